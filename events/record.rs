//! An event with its place: who, where, when, why.

use crate::event::Event;
use crate::id::Seq;
use crate::time::Timestamp;

/// An event on its way to the log: everything but its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The stream it belongs to: a memory scope (`agent:ada`), `agents`, `system`, later a conversation.
    pub stream: String,
    /// Who caused it: an agent's name, or `system`.
    pub actor: String,
    /// Ties together what one request or conversation caused.
    pub correlation: Option<String>,
    /// The event that led to this one.
    pub causation: Option<Seq>,
    /// What happened.
    pub event: Event,
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its position.
    pub seq: Seq,
    /// When the writer took it, never before the record in front of it.
    pub recorded_at: Timestamp,
    /// The stream it belongs to.
    pub stream: String,
    /// Who caused it.
    pub actor: String,
    /// Ties together what one request or conversation caused.
    pub correlation: Option<String>,
    /// The event that led to this one.
    pub causation: Option<Seq>,
    /// What happened.
    pub event: Event,
}
