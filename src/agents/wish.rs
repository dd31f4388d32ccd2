//! What may be asked of the directory, and why it may say no.

use std::io;
use std::sync::Arc;

use caxton_events::agent::ConfigProblem;
use caxton_events::{AgentId, Seq};
use tokio::sync::oneshot;

use super::log::LogError;
use super::roster::LoadedAgent;

/// Which earlier version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Earlier {
    /// The one that was in use before this one.
    Previous,
    /// The newest with this version.
    Version(String),
    /// The one at this position of the log.
    At(Seq),
}

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// A new agent.
    Create { name: AgentId, content: String, start: bool },
    /// Another text for an agent.
    Replace { name: AgentId, content: String, restart: bool },
    /// No agent any more. `force`: even while it talks.
    Remove { name: AgentId, force: bool },
    /// The agent from the start.
    Restart { name: AgentId },
    /// An earlier version.
    RollBack { name: AgentId, to: Earlier },
    /// A look through the whole directory, now.
    Reload,
    /// An end.
    Stop,
}

/// What came of it: the agent as it is now, where there is one.
pub(super) type Answer = Result<Option<Arc<LoadedAgent>>, DirectoryError>;

/// A wish on its way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Why a wish was not granted.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The text is no agent. Nothing changed.
    #[error("the agent's text has {} faults", problems.len())]
    Invalid {
        /// What is wrong with it.
        problems: Vec<ConfigProblem>,
        /// What is doubtful.
        warnings: Vec<ConfigProblem>,
    },
    /// There is no such agent.
    #[error("there is no agent {0} in the agents directory")]
    NotFound(String),
    /// There is an agent of this name, or a file of another agent where its file would be.
    #[error("the name {name} is taken by the file {path}")]
    NameTaken {
        /// The name.
        name: AgentId,
        /// The file that has it.
        path: String,
    },
    /// An agent outside the server has this name.
    #[error("{0} is the name of an agent outside the server, whose inbox an agent of a file would take over")]
    NameOfAnother(AgentId),
    /// There are as many agents as may be.
    #[error("there are {0} agents already, which is the limit")]
    Full(usize),
    /// It talks, and must not be removed without force.
    #[error("{name} has {conversations} open conversations")]
    Talking {
        /// The agent.
        name: AgentId,
        /// How many.
        conversations: usize,
    },
    /// There is no such earlier version.
    #[error("{name} has no version {wanted}")]
    NoSuchVersion {
        /// The agent.
        name: AgentId,
        /// What was asked for.
        wanted: String,
    },
    /// The file could not be written or removed. The agent is as it was.
    #[error("could not write the file {path}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The directory could not be read. All agents are as they were.
    #[error("could not read the agents directory")]
    Unreadable(#[source] io::Error),
    /// The log took nothing. The agent is as it was.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Too much is being asked; try again.
    #[error("too many wishes wait for the agents directory")]
    Busy,
    /// The server stops.
    #[error("the agents directory is no longer looked after")]
    Stopped,
}
