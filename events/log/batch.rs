//! What goes into the log and what comes back: batches, acknowledgements, refusals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;

use crate::id::Seq;
use crate::limits::{EVENT_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use crate::log::scan::ReadError;
use crate::log::sealing::KeysError;
use crate::log::shared::ClosedReason;
use crate::log::store::StoreError;
use crate::record::{Draft, Record};
use crate::time::Timestamp;

/// Events that are written together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// At least one.
    pub drafts: Vec<Draft>,
    /// Makes a repetition harmless: a second batch with the same key is answered with the first one's place.
    pub key: Option<IdempotencyKey>,
    /// Refuses the batch unless the named stream is where the caller thinks it is.
    pub expected: Option<(String, Expected)>,
}

impl Batch {
    /// A batch without conditions.
    pub fn of(drafts: Vec<Draft>) -> Self {
        Self { drafts, key: None, expected: None }
    }
}

/// A client's own name for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// 1 to [`IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// Hash of what the client asked for: the same key with another one is a conflict.
    pub fingerprint: [u8; 32],
    /// Given back as it is when the batch comes again.
    pub answer: Vec<u8>,
}

/// Where a stream must be for a batch to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It has no event yet.
    Empty,
    /// Its last event has this position.
    LastSeq(Seq),
}

/// The place a batch got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Position of its first event.
    pub first: Seq,
    /// Position of its last event.
    pub last: Seq,
    /// When the writer took it.
    pub recorded_at: Timestamp,
    /// The stored answer, when the key was known: nothing was written, the rest says where the first batch is.
    pub replayed: Option<Vec<u8>>,
}

impl Appended {
    /// The records that the batch's `drafts` became.
    pub fn records(&self, drafts: Vec<Draft>) -> impl Iterator<Item = Record> + use<> {
        let recorded_at = self.recorded_at;
        drafts.into_iter().zip(self.first.0..).map(move |(draft, seq)| Record {
            seq: Seq(seq),
            recorded_at,
            stream: draft.stream,
            actor: draft.actor,
            correlation: draft.correlation,
            causation: draft.causation,
            event: draft.event,
        })
    }
}

/// Why a batch was not appended. Other batches of the same call are not touched by it, except after
/// [`AppendError::Io`] and in a [`Series`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The batch has no event. Nothing was written.
    #[error("the batch is empty; give at least one event")]
    Empty,
    /// An encoded event is larger than [`EVENT_BYTES_MAX`]. Nothing was written.
    #[error(
        "event {index} of the batch takes {bytes} bytes, the limit is {EVENT_BYTES_MAX}; split its content"
    )]
    TooLarge {
        /// Its place in the batch, from 0.
        index: usize,
        /// Its encoded size.
        bytes: usize,
    },
    /// The idempotency key is empty or longer than [`IDEMPOTENCY_KEY_BYTES_MAX`]. Nothing was written.
    #[error("the idempotency key takes {bytes} bytes; use 1 to {IDEMPOTENCY_KEY_BYTES_MAX}")]
    KeyLength {
        /// Its length.
        bytes: usize,
    },
    /// The key was used before for something else. Nothing was written.
    #[error(
        "idempotency key {key:?} was used for another request, recorded at {first}; use a new key for new content"
    )]
    KeyConflict {
        /// The key.
        key: String,
        /// Position of the first event written under it.
        first: Seq,
    },
    /// The stream is not where the caller thought. Nothing was written.
    #[error("stream {stream:?} {}, but {}; read it again and retry", describe(*.expected), place(*.actual))]
    Unexpected {
        /// The stream.
        stream: String,
        /// What the caller asked for.
        expected: Expected,
        /// Position of its last event, if it has one.
        actual: Option<Seq>,
    },
    /// A key for the content could not be made or stored. Nothing was written.
    #[error("could not give the content a key of its own")]
    Keys {
        /// Why.
        #[source]
        source: Arc<KeysError>,
    },
    /// What the batch is about is being erased. Nothing was written; send it again.
    #[error("{stream} is being erased at this moment; nothing was written, send it again")]
    BeingErased {
        /// The stream.
        stream: String,
    },
    /// A batch in front of it in its [`Series`] was refused, or was answered from its first time. Nothing was written; decide
    /// it again, in a new series.
    #[error("what the batch builds on was refused; nothing was written")]
    SeriesBroken,
    /// The key or the expected position could not be checked, because the log could not be read. Nothing was written.
    #[error("could not check the conditions of the batch")]
    Unchecked {
        /// Why the log could not be read.
        #[source]
        source: Arc<ReadError>,
    },
    /// The medium failed. Whether the batch survives is unknown until the log is opened again; this log is closed.
    #[error("could not append {first}; the log is closed, restart to see what was kept")]
    Io {
        /// Position the first event would have had.
        first: Seq,
        /// What the medium said.
        #[source]
        source: Arc<StoreError>,
    },
    /// The log was closed by an earlier failure or by [`Log::close`](crate::log::Log::close). Nothing was written.
    #[error(transparent)]
    Closed(#[from] LogClosed),
}

fn describe(expected: Expected) -> String {
    match expected {
        Expected::Empty => "should be empty".to_owned(),
        Expected::LastSeq(seq) => format!("should end at {seq}"),
    }
}

fn place(actual: Option<Seq>) -> String {
    actual.map_or_else(|| "it is empty".to_owned(), |seq| format!("it ends at {seq}"))
}

/// The log takes no more events.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the log is closed: {reason}")]
pub struct LogClosed {
    /// Why: an earlier failure, or an orderly end.
    pub reason: Arc<str>,
}

/// Batches of one caller, each of which builds on those before it: once the log has not written one, whether it refused it or
/// knew its key, it takes none of those behind it. A copy is the same series.
#[derive(Debug, Clone, Default)]
pub struct Series(Arc<AtomicBool>);

impl Series {
    /// Whether one of its batches was not written.
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn break_off(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What the writer answers for one submission: one result a batch, in order.
pub(crate) type Answer = Vec<Result<Appended, AppendError>>;

/// A submission on its way. Dropping it does not take the submission back.
#[derive(Debug)]
pub struct Ticket {
    pub(crate) answer: Receiver<Answer>,
    pub(crate) closed: Arc<ClosedReason>,
}

impl Ticket {
    /// Blocks until the batches are durable (as the setting says) or refused; one result a batch, in order.
    ///
    /// # Errors
    ///
    /// [`LogClosed`] if the log was closed before the submission was taken.
    pub fn wait(self) -> Result<Vec<Result<Appended, AppendError>>, LogClosed> {
        self.answer.recv().map_err(|_| self.closed.error())
    }
}
