//! What happens to agents: who there is, what they can do, how they are.

use bincode::{Decode, Encode};

use crate::choice::choice;
use crate::id::{AgentId, CapabilityName, RegistrationId, Seq, WorkspaceId};
use crate::time::Timestamp;

choice! {
    /// What a config agent does.
    "status" AgentStatus {
        /// It takes messages.
        Running = "running",
        /// It finishes what it has and takes no new conversations.
        Draining = "draining",
        /// It takes nothing.
        Stopped = "stopped",
        /// It cannot run; the last event says why.
        Error = "error",
    }
}

choice! {
    /// How a provider is.
    "health" Health {
        /// It answers.
        Healthy = "healthy",
        /// It answers late or not always.
        Degraded = "degraded",
        /// It does not answer.
        Unhealthy = "unhealthy",
    }
}

choice! {
    /// Whether messages are let through to an agent (a circuit breaker).
    "circuit state" Circuit {
        /// They are.
        Closed = "closed",
        /// They are not, since too many failed.
        Open = "open",
        /// One is, to see.
        HalfOpen = "half_open",
    }
}

/// Where the text of an agent came from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ConfigSource {
    /// A file of the agents directory.
    Directory,
    /// A request; the file was written afterwards.
    Request,
    /// An earlier version of it was taken back.
    Rollback {
        /// Where that version stands.
        to: Seq,
        /// It stays until the file has another SHA-256 than this one.
        file_sha256: String,
    },
}

/// One thing that is wrong with an agent's file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ConfigProblem {
    /// Line in the file, from 1; 0 where there is none.
    pub line: u32,
    /// Column, from 1; 0 where there is none.
    pub column: u32,
    /// The key, dotted; empty for the file as a whole.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

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
    /// An agent's file was found valid and is used from here on.
    ConfigLoaded {
        /// The name in the file.
        agent: AgentId,
        /// The version in the file.
        version: String,
        /// The workspace it works in.
        workspace: WorkspaceId,
        /// Where the text came from.
        source: ConfigSource,
        /// The file, relative to the agents directory; empty while there is none.
        path: String,
        /// SHA-256 of the text, lower-case hex.
        sha256: String,
        /// The whole text.
        content: String,
    },
    /// An agent's file was found invalid; what was loaded before stays in use.
    ConfigRejected {
        /// The name in the file, where it has one that can be read.
        agent: Option<AgentId>,
        /// The file, relative to the agents directory.
        path: String,
        /// SHA-256 of the text, lower-case hex.
        sha256: String,
        /// What is wrong with it.
        problems: Vec<ConfigProblem>,
    },
    /// An agent's file is gone, and the agent with it.
    ConfigRemoved {
        /// Its name.
        agent: AgentId,
        /// The file, relative to the agents directory.
        path: String,
    },
    /// An agent was started, stopped, or broke.
    StatusChanged {
        /// Its name.
        agent: AgentId,
        /// Its status from now on.
        status: AgentStatus,
        /// Why.
        reason: String,
    },
    /// An agent offers a capability.
    CapabilityRegistered {
        /// The number of the registration.
        registration: RegistrationId,
        /// Who offers it.
        agent: AgentId,
        /// What it offers.
        capability: CapabilityName,
        /// The version of what it offers.
        version: String,
        /// 0 to 1,000; higher is preferred.
        priority: u16,
        /// A JSON object as text, or nothing.
        metadata: Option<String>,
        /// Where its health can be asked for.
        health_check_url: Option<String>,
    },
    /// A registration got other properties. Carries the whole new state.
    CapabilityUpdated {
        /// The number of the registration.
        registration: RegistrationId,
        /// Its priority from now on.
        priority: u16,
        /// Its metadata from now on.
        metadata: Option<String>,
        /// Its health check from now on.
        health_check_url: Option<String>,
    },
    /// An agent no longer offers a capability.
    CapabilityRemoved {
        /// The number of the registration.
        registration: RegistrationId,
        /// Who offered it.
        agent: AgentId,
        /// What it offered.
        capability: CapabilityName,
    },
    /// A provider was found to be better or worse than before.
    HealthChanged {
        /// Who.
        agent: AgentId,
        /// In what; `None`: in everything.
        capability: Option<CapabilityName>,
        /// How it is from now on.
        health: Health,
        /// How that was found out.
        reason: String,
    },
    /// Messages are let through to an agent, or no longer.
    CircuitChanged {
        /// Who.
        agent: AgentId,
        /// From now on.
        circuit: Circuit,
        /// Failures in a row.
        failures: u32,
        /// An open circuit is tried again from this moment on.
        until: Option<Timestamp>,
    },
}
