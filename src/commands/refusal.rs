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
    /// The entity has another version than expected.
    VersionConflict,
    /// The thing to create exists.
    AlreadyExists,
    /// A text is longer than its limit.
    TooLarge,
    /// The idempotency key was used for another request.
    IdempotencyConflict,
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
