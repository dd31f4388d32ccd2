//! What is to be explained, as it is typed.

use std::str::FromStr;

use caxton_events::{Kind, MemoryId, MessageId, Seq, TurnId};
use caxton_projections::audit::terms::memory_id;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The event at a position.
    Seq(Seq),
    /// A row of the memory: its number and the kinds of events that write it.
    Row(MemoryId, Vec<Kind>),
    /// A message.
    Message(MessageId),
    /// A turn.
    Turn(TurnId),
}

/// A text that names nothing that can be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names nothing that can be explained; give a position (17), ent_ID, obs_ID, rel_ID, the UUID of a message, \
     or turn_UUID"
)]
pub struct SubjectError {
    /// What was given.
    pub text: String,
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let error = || SubjectError { text: text.chars().take(80).collect() };
        let kinds: &[Kind] = match text.get(..4) {
            Some("ent_") => {
                &[Kind::EntityCreated, Kind::EntityUpdated, Kind::EntityRemoved, Kind::EntityRestored]
            }
            Some("obs_") => &[
                Kind::ObservationAdded,
                Kind::ObservationUpdated,
                Kind::ObservationRemoved,
                Kind::ObservationRestored,
            ],
            Some("rel_") => {
                &[Kind::RelationCreated, Kind::RelationUpdated, Kind::RelationRemoved, Kind::RelationRestored]
            }
            _ => &[],
        };
        if !kinds.is_empty() {
            return memory_id(text).map(|id| Self::Row(id, kinds.to_vec())).ok_or_else(error);
        }
        if text.starts_with(TurnId::PREFIX) {
            return text.parse().map(Self::Turn).map_err(|_| error());
        }
        let number = text.strip_prefix('#').unwrap_or(text);
        if let (true, Ok(seq)) = (number.bytes().all(|digit| digit.is_ascii_digit()), number.parse()) {
            return if seq > 0 { Ok(Self::Seq(Seq(seq))) } else { Err(error()) };
        }
        text.parse().map(Self::Message).map_err(|_| error())
    }
}

#[cfg(test)]
mod tests {
    use super::Subject;
    use caxton_events::{MemoryId, Seq};

    #[test]
    fn a_subject_is_read_from_what_answers_show() {
        assert_eq!("17".parse(), Ok(Subject::Seq(Seq(17))));
        assert_eq!("#17".parse(), Ok(Subject::Seq(Seq(17))));
        assert!(matches!("obs_5".parse(), Ok(Subject::Row(MemoryId(5), _))));
        assert!(matches!("turn_018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f".parse(), Ok(Subject::Turn(_))));
        assert!(matches!("018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f".parse(), Ok(Subject::Message(_))));
        assert!(matches!("11111111111111111111111111111111".parse(), Ok(Subject::Message(_))));
        for bad in ["", "0", "#", "ent_", "ent_x", "turn_5", "ada", "-1", "ént_5"] {
            assert!(bad.parse::<Subject>().is_err(), "{bad}");
        }
    }
}
