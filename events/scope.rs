//! Whose memory a fact belongs to.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

use crate::id::{AgentId, NameError, WorkspaceId};

/// The part of memory a fact lives in. Names of entities are unique within one scope.
///
/// Its text form is `agent:NAME`, `workspace:NAME` or `global`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Scope {
    /// Seen by one agent.
    Agent(AgentId),
    /// Seen by every agent of a workspace.
    Workspace(WorkspaceId),
    /// Seen by all.
    Global,
}

impl Scope {
    /// `agent`, `workspace` or `global`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::Workspace(_) => "workspace",
            Self::Global => "global",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(name) => write!(f, "agent:{name}"),
            Self::Workspace(name) => write!(f, "workspace:{name}"),
            Self::Global => f.write_str("global"),
        }
    }
}

/// Why a text names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Neither `agent:NAME`, `workspace:NAME` nor `global`.
    #[error("{text:?} is no scope; write agent:NAME, workspace:NAME or global")]
    Kind {
        /// What was given.
        text: String,
    },
    /// The name after the colon is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text.split_once(':') {
            Some(("agent", name)) => Ok(Self::Agent(name.parse()?)),
            Some(("workspace", name)) => Ok(Self::Workspace(name.parse()?)),
            None if text == "global" => Ok(Self::Global),
            Some(_) | None => Err(ScopeError::Kind { text: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scope;

    #[test]
    fn a_scope_reads_back_as_it_was_written() {
        for text in ["agent:ada", "workspace:lab", "global", "agent:a:b"] {
            assert_eq!(text.parse::<Scope>().map(|scope| scope.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "team:x", "agent:", "Global", "agent"] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }
}
