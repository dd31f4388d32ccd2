//! What goes into the engine and what comes out.

use caxton_events::{AgentId, Scope, Seq, Timestamp, WorkspaceId};
pub use caxton_projections::view::Wait;

use crate::commands::{Refusal, Write, Written};

/// A client's own key for a request, so that a retry does not write twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// 1 to 255 bytes; scoped to the actor by the engine.
    pub key: String,
    /// Hash of the request: the same key with another fingerprint is a conflict.
    pub fingerprint: [u8; 32],
}

/// A command with its sender.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Who asks. An unknown agent is registered by this, unless an event led to it.
    pub actor: AgentId,
    /// The workspace it works in.
    pub workspace: WorkspaceId,
    /// The scope that the request names, if it names one: the writes touch no row of another one, by name or by number.
    pub named: Option<Scope>,
    /// Ties together what one request caused; the request id of an edge.
    pub correlation: Option<String>,
    /// The event that led to it, where there is one: the call of a tool. What a turn writes makes nobody known: its agent is, or
    /// was removed meanwhile.
    pub causation: Option<Seq>,
    /// The client's own key.
    pub idempotency: Option<Idempotency>,
    /// What is asked: at least one write.
    pub writes: Vec<Write>,
    /// All or nothing; otherwise each write stands alone.
    pub atomic: bool,
    /// What must have happened before the answer.
    pub wait: Wait,
}

impl Idempotency {
    /// The name of the key in the log: keys of two actors never meet, and any length fits.
    pub(super) fn scoped(&self, actor: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(actor.as_bytes());
        hasher.update(&[0]);
        hasher.update(self.key.as_bytes());
        hasher.finalize().to_hex().to_string()
    }
}

impl Submission {
    /// The name of the idempotency key in the log.
    pub(super) fn scoped_key(&self) -> Option<String> {
        Some(self.idempotency.as_ref()?.scoped(self.actor.as_str()))
    }
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Its first event; the log's head when nothing changed.
    pub first: Seq,
    /// Its last event: read with this as `min_seq` to see it.
    pub last: Seq,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// One per write. Refusals occur only when the command was not atomic.
    pub results: Vec<Result<Written, Refusal>>,
    /// The idempotency key was known: this is what the first request did.
    pub replayed: bool,
}

/// Why a command has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The rules said no. Nothing was written.
    #[error("the command was refused")]
    Refused(Vec<Refusal>),
    /// Too many commands wait, or the log refused time and again what this one was decided on. Nothing was written: try again
    /// later.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The server is stopping. Nothing was written.
    #[error("the server is stopping")]
    Stopped,
    /// The events are in the log for good, but a projection that the caller waits for has stopped.
    #[error("projection {name} has stopped: {error}; the write is recorded as {last}")]
    ProjectionStopped {
        /// Which one.
        name: &'static str,
        /// What it said.
        error: String,
        /// The last event of the command.
        last: Seq,
    },
    /// The events are in the log for good, but a projection did not reach them in time.
    #[error("the write is recorded as {last}, but waiting for it took too long")]
    TimedOut {
        /// The last event of the command.
        last: Seq,
    },
    /// The log failed. Whether the command survives is unknown until the server was restarted.
    #[error("could not record the command")]
    Log(#[source] caxton_events::log::AppendError),
    /// A projection that decisions need has stopped. Nothing was written: try again when it is healed.
    #[error("projection {name} has stopped: {error}; nothing was written")]
    Unavailable {
        /// Which one.
        name: &'static str,
        /// What it said.
        error: String,
    },
    /// A projection that decisions need is being built anew. Nothing was written: try again later.
    #[error("projection {name} is being rebuilt from the log: {reason}; nothing was written")]
    Rebuilding {
        /// Which one.
        name: &'static str,
        /// Why it is.
        reason: String,
    },
    /// The log could not be asked for an idempotency key. Nothing was written.
    #[error("could not look up the idempotency key")]
    Read(#[source] caxton_events::log::ReadError),
    /// The kept answer to an idempotency key cannot be read. Nothing was written again.
    #[error("could not read the kept answer to the idempotency key")]
    Answer(#[source] serde_json::Error),
    /// The graph could not be read to decide the command. Nothing was written.
    #[error("could not read the memory to decide the command")]
    Graph(#[source] caxton_projections::graph::ReadError),
}
