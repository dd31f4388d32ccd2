//! Reading: snapshots in both directions, the live tail, keys, figures.

use std::time::Duration;

use crate::id::Seq;
use crate::log::chain::Hash;
use crate::log::filter::Filter;
use crate::log::scan::{ReadError, Scan};
use crate::log::verify::{Verified, VerifyError};
use crate::record::Record;
use crate::time::Timestamp;

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Position of the last event, [`Seq::ZERO`] in an empty log.
    pub seq: Seq,
    /// Merkle root over all events.
    pub root: Hash,
    /// When the last event was recorded.
    pub recorded_at: Timestamp,
}

/// Where the batch of an idempotency key went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Hash of what the client asked for.
    pub fingerprint: [u8; 32],
    /// Position of the batch's first event.
    pub first: Seq,
    /// Position of the batch's last event.
    pub last: Seq,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What the client is answered when it asks again.
    pub answer: Vec<u8>,
}

/// Figures of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Events in it.
    pub events: u64,
    /// Bytes of their stored bodies.
    pub bytes: u64,
    /// Blocks they lie in.
    pub blocks: u64,
    /// Idempotency keys kept.
    pub keys: u64,
    /// Size of the file in bytes; 0 where the log lies in no file.
    pub file_bytes: u64,
    /// When the first event was recorded.
    pub oldest: Option<Timestamp>,
    /// When the last event was recorded.
    pub newest: Option<Timestamp>,
}

/// A handle to read a log; cheap to clone, never blocks the writer.
#[derive(Debug, Clone)]
pub struct Reader {}

impl Reader {
    /// The end of the log as last committed.
    pub fn head(&self) -> Head {
        Head::default()
    }

    /// Records from `from` on, upwards, as the log stands now.
    pub fn scan(&self, _from: Seq, _filter: &Filter) -> Scan {
        Scan {}
    }

    /// Records from `from` on, downwards, as the log stands now.
    pub fn scan_back(&self, _from: Seq, _filter: &Filter) -> Scan {
        Scan {}
    }

    /// Where the batch with this idempotency key went.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store fails or the row is damaged.
    pub fn key(&self, _key: &str) -> Result<Option<KeyRow>, ReadError> {
        Ok(None)
    }

    /// Blocks until the log has an event after `seq`, it is closed, or `timeout` is over; the last position then.
    pub fn wait_beyond(&self, _seq: Seq, _timeout: Duration) -> Seq {
        Seq::ZERO
    }

    /// The figures of the log.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store fails.
    pub fn stats(&self) -> Result<LogStats, ReadError> {
        Ok(LogStats::default())
    }

    /// The log's own id, drawn when it was created.
    pub fn log_id(&self) -> [u8; 16] {
        [0; 16]
    }

    /// The record's id, the same at each call: a `UUIDv7` of its time, this log and its position.
    pub fn event_id(&self, _record: &Record) -> uuid::Uuid {
        uuid::Uuid::nil()
    }

    /// Recomputes every hash from the first event on, and calls `progress` after each block with its last position.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the first block that is not what was written.
    pub fn verify(&self, _progress: &mut dyn FnMut(Seq)) -> Result<Verified, VerifyError> {
        Ok(Verified::default())
    }
}
