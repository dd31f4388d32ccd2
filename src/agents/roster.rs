//! The agents that are in use, as one value that never changes: readers take it and are not disturbed.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_events::agent::ConfigProblem;
use caxton_events::{AgentId, Seq, Timestamp};

use super::definition::Definition;
use super::limits::Limits;
use super::registry::{Past, Registered};

/// An agent that is in use.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedAgent {
    /// Its name.
    pub name: AgentId,
    /// How it is registered.
    pub registered: Registered,
    /// What its text says; `None` when the text is valid no longer, which its status then says.
    pub definition: Option<Arc<Definition>>,
    /// The limits that hold for it.
    pub limits: Option<Limits>,
    /// The text.
    pub content: Arc<str>,
    /// What is doubtful about the text.
    pub warnings: Arc<[ConfigProblem]>,
    /// Earlier versions and this one, oldest first.
    pub versions: Arc<[Past]>,
}

/// A file that is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedFile {
    /// The file, relative to the directory.
    pub path: String,
    /// The name in it, where one can be read.
    pub agent: Option<AgentId>,
    /// What is wrong.
    pub problems: Vec<ConfigProblem>,
}

/// All agents of the directory at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Roster {
    /// The last event that is in it.
    pub seq: Seq,
    /// When it was made.
    pub at: Option<Timestamp>,
    /// The agents in use, by name.
    pub agents: BTreeMap<AgentId, Arc<LoadedAgent>>,
    /// The files that are not.
    pub rejected: Vec<RejectedFile>,
}

impl Roster {
    /// The agent `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<LoadedAgent>> {
        name.parse::<AgentId>().ok().and_then(|name| self.agents.get(&name))
    }
}
