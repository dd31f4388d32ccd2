//! What happens to agents.

use bincode::{Decode, Encode};

use crate::id::{AgentId, WorkspaceId};

/// A fact about an agent.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum AgentEvent {
    /// An agent outside the server was seen for the first time, by its first write.
    ExternalRegistered {
        /// Its name.
        agent: AgentId,
        /// The workspace it named.
        workspace: WorkspaceId,
    },
}
