//! Why a wish was not granted: the rules said no, nothing was written.

use serde::{Deserialize, Serialize};

/// A rule that said no, as a stable code for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// A value is not valid.
    Validation,
    /// The entity is not in the scopes looked at.
    EntityNotFound,
    /// The observation is not in the present.
    ObservationNotFound,
    /// The relation is not in the present.
    RelationNotFound,
    /// The entity exists with another type.
    TypeConflict,
    /// The relation exists with other properties.
    RelationConflict,
    /// The entity has another version than expected, or the row that a sweep chose was changed since.
    VersionConflict,
    /// The thing to create exists.
    AlreadyExists,
    /// A text is longer than its limit.
    TooLarge,
    /// The idempotency key was used for another request.
    IdempotencyConflict,
    /// There is no such agent.
    AgentNotFound,
    /// There is no such conversation.
    ConversationNotFound,
    /// The conversation has ended.
    ConversationClosed,
    /// There is no such message.
    MessageNotFound,
    /// The number of the message was used for another one.
    MessageConflict,
    /// The message does not fit the protocol of what it answers.
    ProtocolViolation,
    /// A moment to come was asked for, and it is over.
    Expired,
    /// A limit of a conversation is reached.
    LimitReached,
    /// An inbox takes no more for now.
    QueueFull,
    /// The thing is in a state in which this cannot be done.
    WrongState,
    /// There is no such registration.
    RegistrationNotFound,
    /// The agent offers the capability already.
    DuplicateRegistration,
    /// There is no such dead letter.
    DeadLetterNotFound,
}

impl RefusalCode {
    /// The code in answers, as in `ENTITY_NOT_FOUND`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "INVALID_ENTITY_DATA",
            Self::EntityNotFound => "ENTITY_NOT_FOUND",
            Self::ObservationNotFound => "OBSERVATION_NOT_FOUND",
            Self::RelationNotFound => "RELATION_NOT_FOUND",
            Self::TypeConflict => "ENTITY_TYPE_CONFLICT",
            Self::RelationConflict => "RELATION_CONFLICT",
            Self::VersionConflict => "VERSION_CONFLICT",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::TooLarge => "TOO_LARGE",
            Self::IdempotencyConflict => "IDEMPOTENCY_KEY_CONFLICT",
            Self::AgentNotFound => "AGENT_NOT_FOUND",
            Self::ConversationNotFound => "CONVERSATION_NOT_FOUND",
            Self::ConversationClosed => "CONVERSATION_CLOSED",
            Self::MessageNotFound => "MESSAGE_NOT_FOUND",
            Self::MessageConflict => "MESSAGE_ID_CONFLICT",
            Self::ProtocolViolation => "PROTOCOL_VIOLATION",
            Self::Expired => "EXPIRED",
            Self::LimitReached => "LIMIT_REACHED",
            Self::QueueFull => "QUEUE_FULL",
            Self::WrongState => "WRONG_STATE",
            Self::RegistrationNotFound => "REGISTRATION_NOT_FOUND",
            Self::DuplicateRegistration => "DUPLICATE_REGISTRATION",
            Self::DeadLetterNotFound => "DEAD_LETTER_NOT_FOUND",
        }
    }
}

/// A wish that was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {message}; {remedy}")]
pub struct Refusal {
    /// The rule.
    pub code: RefusalCode,
    /// Which write of the command, from 0.
    pub index: usize,
    /// The field of that write, as in `observations[2].content`.
    pub field: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    /// The same without the texts that its message quotes: what may be kept of it, since an answer that is kept outlives what
    /// it is about when that is erased.
    #[must_use]
    pub fn without_texts(&self) -> Self {
        Self { message: blanked(&self.message), ..self.clone() }
    }
}

/// A message with three dots in place of what stands in quotes, as `check::excerpt` writes every text of a client.
fn blanked(message: &str) -> String {
    let mut told = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(start) = rest.find('"') {
        told.push_str(&rest[..start]);
        told.push_str("\"…\"");
        let quoted = &rest[start + 1..];
        let mut escaped = false;
        let end = quoted.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        // Without an end, all of it is the text.
        let behind = end.map_or("", |end| &quoted[end + 1..]);
        rest = behind.strip_prefix('…').unwrap_or(behind);
    }
    told + rest
}

#[cfg(test)]
mod tests {
    use super::{Refusal, RefusalCode, blanked};
    use crate::commands::check::excerpt;

    #[test]
    fn a_refusal_without_texts_says_everything_but_what_it_quotes() {
        let long = "zq\"".repeat(40);
        for text in ["zq", "z\"q\\", "\\", "\n zq \"", "“zq”…", "", &long] {
            let message = format!("{} exists in global with type {}, not so", excerpt(text), excerpt("zq"));
            assert_eq!(blanked(&message), "\"…\" exists in global with type \"…\", not so", "{text:?}");
        }
        for message in ["ent_4 has version 2, not 1", "", "0.5 is not between 0 and 1"] {
            assert_eq!(blanked(message), message);
        }
        assert_eq!(blanked("ends in \"zq"), "ends in \"…\"");
        let refusal = Refusal {
            code: RefusalCode::AlreadyExists,
            index: 3,
            field: "entity_name".to_owned(),
            message: "\"zq\" exists".to_owned(),
            remedy: "use \"another\" name".to_owned(),
        };
        let told = Refusal { message: "\"…\" exists".to_owned(), ..refusal.clone() };
        assert_eq!(refusal.without_texts(), told);
    }
}
