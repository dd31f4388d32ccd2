//! Names and numbers that must not be mixed up, each built by parsing.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::limits::AGENT_NAME_BYTES_MAX;

/// Position in the log: 1, 2, 3 … without gaps. [`Seq::ZERO`] is the place before the first event.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first event.
    pub const ZERO: Self = Self(0);
    /// The first event of a log.
    pub const FIRST: Self = Self(1);

    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one, [`Seq::ZERO`] at the start.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Number of a memory row (entity, observation or relation): one counter for all three, from 1, never reused.
///
/// The memory writer draws it and the event carries it, so a rebuild gives every row the same number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MemoryId(pub u64);

impl fmt::Display for MemoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A name that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("the name is empty; use 1 to {AGENT_NAME_BYTES_MAX} letters, digits, '-', '_', '.', ':' or '@'")]
    Empty,
    /// Longer than the limit.
    #[error("the name takes {bytes} bytes, the limit is {AGENT_NAME_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A character outside the set.
    #[error("the name contains {found:?}; use letters, digits, '-', '_', '.', ':' or '@'")]
    Character {
        /// The first one that is not allowed.
        found: char,
    },
}

/// The rule for names of agents and workspaces: 1 to [`AGENT_NAME_BYTES_MAX`] bytes of letters (any script), digits
/// and `- _ . : @`.
fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > AGENT_NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    match name.chars().find(|c| !(c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@'))) {
        Some(found) => Err(NameError::Character { found }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                check_name(name)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                check_name(&name)?;
                Ok(Self(name))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Name of an agent: 1 to 128 bytes of letters, digits and `- _ . : @`.
    AgentId
}

name! {
    /// Name of a workspace: agents in it share one memory scope. Same rule as [`AgentId`].
    WorkspaceId
}

#[cfg(test)]
mod tests {
    use super::{AgentId, NameError};

    #[track_caller]
    fn check(name: &str, then: &Result<(), NameError>) {
        assert_eq!(&name.parse::<AgentId>().map(|_| ()), then, "{name:?}");
    }

    #[test]
    fn a_name_is_letters_digits_and_five_signs() {
        check("ada", &Ok(()));
        check("Ada_1.2:x@y-z", &Ok(()));
        check("ädä", &Ok(()));
        check("", &Err(NameError::Empty));
        check("a b", &Err(NameError::Character { found: ' ' }));
        check("a\u{0}", &Err(NameError::Character { found: '\u{0}' }));
        check("a/b", &Err(NameError::Character { found: '/' }));
        check(&"x".repeat(129), &Err(NameError::TooLong { bytes: 129 }));
    }
}
