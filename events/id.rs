//! Names and numbers that must not be mixed up, each built by parsing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::limits::{AGENT_NAME_BYTES_MAX, CAPABILITY_NAME_BYTES_MAX};

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
        ///
        /// Copies share their text.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// A copy with a text of its own. Copies that share their text count themselves beside it: for a key that is
            /// compared on one core while copies come and go on others.
            #[must_use]
            pub fn apart(&self) -> Self {
                Self(Arc::from(self.as_str()))
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                check_name(name)?;
                Ok(Self(name.into()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                check_name(&name)?;
                Ok(Self(name.into()))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.as_str().to_owned()
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

name! {
    /// Name of a conversation: 1 to 128 bytes of letters, digits and `- _ . : @`. Same rule as [`AgentId`].
    ConversationId
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; 16]);

        impl $type {
            /// What stands before the UUID where the kind of number matters to people.
            pub const PREFIX: &'static str = $prefix;

            /// From the bytes of a UUID.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes of its UUID.
            pub const fn bytes(self) -> [u8; 16] {
                self.0
            }

            /// A `UUIDv7` of this moment and these random bits.
            pub fn new(at: crate::Timestamp, random: [u8; 10]) -> Self {
                let millis = at.unix_micros() / 1_000;
                Self(*uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().as_bytes())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", Self::PREFIX, uuid::Uuid::from_bytes(self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }

        impl FromStr for $type {
            type Err = NumberError;

            fn from_str(text: &str) -> Result<Self, NumberError> {
                let uuid = text.strip_prefix(Self::PREFIX).unwrap_or(text);
                let uuid = uuid::Uuid::try_parse(uuid)
                    .map_err(|_| NumberError { found: text.chars().take(64).collect() })?;
                Ok(Self(*uuid.as_bytes()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NumberError;

            fn try_from(text: String) -> Result<Self, NumberError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(number: $type) -> Self {
                number.to_string()
            }
        }
    };
}

/// A text that is no UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no UUID; write 32 hexadecimal digits, as in 018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f")]
pub struct NumberError {
    /// What was given.
    pub found: String,
}

number! {
    /// Number of a message: a UUID. The sender may choose it; a repetition is recognised by it.
    MessageId, ""
}

number! {
    /// Number of a turn: one message handled by one agent.
    TurnId, "turn_"
}

number! {
    /// Number of a capability's registration.
    RegistrationId, "reg_"
}

/// Name of a capability: words of lower-case letters and digits joined by `-`, levels joined by `.`, as in
/// `data-analysis.visual`; 1 to 100 bytes. Copies share their text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CapabilityName(Arc<str>);

/// A name of a capability that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is no capability; write 1 to {CAPABILITY_NAME_BYTES_MAX} bytes in kebab-case, as in data-analysis.visual"
)]
pub struct CapabilityNameError {
    /// What was given.
    pub found: String,
}

impl CapabilityName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CapabilityName {
    type Err = CapabilityNameError;

    fn from_str(name: &str) -> Result<Self, CapabilityNameError> {
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit())
        };
        let level = |level: &str| level.split('-').all(word);
        let valid = name.len() <= CAPABILITY_NAME_BYTES_MAX
            && name.starts_with(|sign: char| sign.is_ascii_lowercase())
            && name.split('.').all(level);
        if valid {
            Ok(Self(name.into()))
        } else {
            Err(CapabilityNameError { found: name.chars().take(120).collect() })
        }
    }
}

impl TryFrom<String> for CapabilityName {
    type Error = CapabilityNameError;

    fn try_from(name: String) -> Result<Self, CapabilityNameError> {
        name.parse()
    }
}

impl From<CapabilityName> for String {
    fn from(name: CapabilityName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for CapabilityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::{AgentId, CapabilityName, MessageId, NameError, TurnId};
    use crate::Timestamp;

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

    #[test]
    fn a_capability_is_written_in_kebab_case_with_levels() {
        for name in ["a", "data-analysis", "data-analysis.visual", "ocr2.v10-beta"] {
            assert!(name.parse::<CapabilityName>().is_ok(), "{name}");
        }
        let long = "x".repeat(101);
        for name in ["", "Data", "data_analysis", "-a", "a-", "a--b", "a..b", ".a", "a.", "1st", "a b", &long]
        {
            assert!(name.parse::<CapabilityName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_number_reads_back_with_and_without_its_prefix() {
        let turn = TurnId::new(Timestamp::from_unix_micros(1_700_000_000_000_000), [7; 10]);
        let text = turn.to_string();
        assert!(text.starts_with("turn_018bcfe5-6800-7"), "{text}");
        assert_eq!(text.parse(), Ok(turn));
        assert_eq!(text.trim_start_matches("turn_").parse(), Ok(turn));
        assert!("reg_".parse::<TurnId>().is_err());
        let message: MessageId =
            "018F6B3C52AA7C319D3E0A1B2C3D4E5F".parse().expect("UUIDs come in many forms");
        assert_eq!(message.to_string(), "018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f");
    }
}
