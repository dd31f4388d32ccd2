//! Reading: snapshots in both directions, the live tail, keys, figures.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use crate::id::Seq;
use crate::log::batch::LogClosed;
use crate::log::blocks::{next_header, open_block, read_header};
use crate::log::chain::Hash;
use crate::log::filter::Filter;
use crate::log::header::Header;
use crate::log::keys;
use crate::log::origin::Origin;
use crate::log::past::Past;
use crate::log::proof::{ConsistencyProof, InclusionProof, StoredEvent};
use crate::log::prove::{self, ProveError};
use crate::log::salvage::{self, Salvage, Survey};
use crate::log::scan::{FoundScan, ReadError, Scan};
use crate::log::sealing::KeyRing;
use crate::log::shared::Shared;
use crate::log::store::{Snapshot, StoreError};
use crate::log::verify::{self, Extent, Verified, VerifyError};
use crate::log::visit::Blocks;
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
    /// Events in it: those that were dropped are not.
    pub events: u64,
    /// Bytes of their stored bodies.
    pub bytes: u64,
    /// Blocks they lie in, and those of a commit that is on its way to the medium.
    pub blocks: u64,
    /// Idempotency keys kept, those of such a commit included.
    pub keys: u64,
    /// Size of its files in bytes, sealed ones included; 0 where the log lies in no file.
    pub file_bytes: u64,
    /// When the first event was recorded.
    pub oldest: Option<Timestamp>,
    /// When the last event was recorded.
    pub newest: Option<Timestamp>,
}

/// A handle to read a log; cheap to clone, never blocks the writer.
#[derive(Debug, Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The end of the log as last committed.
    pub fn head(&self) -> Head {
        self.shared.head()
    }

    /// Why the log takes no more events, if it does not; it is not read any more then, either. Costs next to nothing.
    pub fn closed(&self) -> Option<LogClosed> {
        self.shared.closed.given()
    }

    /// Records from `from` on, upwards, as the log stands now.
    pub fn scan(&self, from: Seq, filter: &Filter) -> Scan {
        Scan::new(self.shared.snapshot(), &self.shared.keys, from, filter, false)
    }

    /// As [`Reader::scan`], with the places of events that were erased.
    pub fn scan_found(&self, from: Seq, filter: &Filter) -> FoundScan {
        FoundScan(self.scan(from, filter))
    }

    /// As [`Reader::scan_back`], with the places of events that were erased.
    pub fn scan_found_back(&self, from: Seq, filter: &Filter) -> FoundScan {
        FoundScan(self.scan_back(from, filter))
    }

    /// Keys of encrypted payloads: how many there are, and how many were destroyed.
    pub fn key_counts(&self) -> (usize, usize) {
        self.shared.keys.counts()
    }

    /// Records from `from` on, downwards, as the log stands now.
    pub fn scan_back(&self, from: Seq, filter: &Filter) -> Scan {
        Scan::new(self.shared.snapshot(), &self.shared.keys, from, filter, true)
    }

    /// Blocks from the one that holds `from` on, upwards, as the log stands now: for who looks at many events and keeps
    /// few. Events of them that the filter leaves out are not shown.
    pub fn blocks(&self, from: Seq, filter: &Filter) -> Blocks {
        Blocks::new(self.shared.snapshot(), &self.shared.keys, from, filter)
    }

    /// Records from `from` on, upwards, past what is damaged: whatever cannot be read comes as a gap, with its positions
    /// and what is wrong with it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if nothing of the log can be read.
    pub fn scan_salvaging(&self, from: Seq, filter: &Filter) -> Result<Salvage, StoreError> {
        let snapshot = self.shared.snapshot()?;
        let head = snapshot.through;
        Ok(Salvage::new(snapshot, &self.shared.keys, from, head, filter))
    }

    /// Checks as [`Reader::verify`] does and goes on after what is wrong. Idempotency keys are not looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if nothing of the log can be read.
    pub fn survey(&self, progress: &mut dyn FnMut(Seq)) -> Result<Survey, StoreError> {
        let snapshot = self.shared.snapshot()?;
        let head = snapshot.through;
        Ok(salvage::survey(snapshot, &self.shared.keys, head, progress))
    }

    /// Bytes that are missing at the end of the log's own file, of a log that was opened damaged: events behind
    /// [`Reader::head`] may have been in them. 0 for every other log.
    pub fn missing_bytes(&self) -> u64 {
        self.shared.with_database(|database| Ok(database.missing_bytes())).unwrap_or_default()
    }

    /// Whether the structure of the log's own file is damaged, of a log that was opened damaged. Where its trees do not lead to
    /// all there is, what it holds was found by a look at every page, and idempotency keys were not.
    pub fn structure_damaged(&self) -> bool {
        self.shared.with_database(|database| Ok(database.structure_damaged())).unwrap_or_default()
    }

    /// What looks like records of the write-ahead log with events behind [`Reader::head`], of a log that was opened damaged and
    /// whose seed of these records is lost: nobody can tell whether they are. 0 for every other log.
    pub fn unread_records(&self) -> u64 {
        self.shared.with_database(|database| Ok(database.unread_records())).unwrap_or_default()
    }

    /// Where the batch with this idempotency key went.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store fails or the row is damaged.
    pub fn key(&self, key: &str) -> Result<Option<KeyRow>, ReadError> {
        find_key(&self.shared.snapshot()?, key)
    }

    /// The event at `seq` as it is stored: what a proof is about.
    ///
    /// # Errors
    ///
    /// [`ProveError`] if there is none, or its block is damaged.
    pub fn stored_event(&self, seq: Seq) -> Result<StoredEvent, ProveError> {
        let (snapshot, head) = self.bounded()?;
        prove::stored(&snapshot, head, seq)
    }

    /// The head the log had after its first `size` events.
    ///
    /// # Errors
    ///
    /// [`ProveError`] if the log has fewer, or a block is damaged.
    pub fn head_at(&self, size: u64) -> Result<Head, ProveError> {
        let (snapshot, head) = self.bounded()?;
        prove::head_at(&snapshot, head, size)
    }

    /// What shows that the event at `seq` is among the first `size`: RFC 6962 §2.1.1. It takes about log₂ `size` blocks.
    ///
    /// # Errors
    ///
    /// [`ProveError`] if there is no such event, the log has fewer than `size`, or a block is damaged.
    pub fn prove_inclusion(&self, seq: Seq, size: u64) -> Result<InclusionProof, ProveError> {
        let (snapshot, head) = self.bounded()?;
        prove::inclusion(&snapshot, head, seq, size)
    }

    /// What shows that the first `from` events are still the first of the first `to`: RFC 6962 §2.1.2.
    ///
    /// # Errors
    ///
    /// [`ProveError`] if `from` is larger than `to` or the log has fewer than `to`, or a block is damaged.
    pub fn prove_consistency(&self, from: u64, to: u64) -> Result<ConsistencyProof, ProveError> {
        let (snapshot, head) = self.bounded()?;
        prove::consistency(&snapshot, head, from, to)
    }

    /// What the log is now, for what looks below its surface.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.shared.snapshot()
    }

    pub(crate) fn gaps(&self) -> &AtomicU8 {
        &self.shared.gaps
    }

    /// A row of the table about the log.
    pub(crate) fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.with_database(|database| database.own.meta(name))
    }

    pub(crate) fn keys(&self) -> &Arc<KeyRing> {
        &self.shared.keys
    }

    /// Everything that is committed.
    pub(crate) fn whole(&self) -> Result<Snapshot, StoreError> {
        self.shared.whole_snapshot()
    }

    /// A snapshot and the position of its last event.
    pub(crate) fn bounded(&self) -> Result<(Snapshot, Seq), ReadError> {
        let snapshot = self.shared.snapshot()?;
        let through = snapshot.through;
        Ok((snapshot, through))
    }

    /// Blocks until the log has an event after `seq`, it is closed, or `timeout` is over; the last position then.
    pub fn wait_beyond(&self, seq: Seq, timeout: Duration) -> Seq {
        self.shared.wait_beyond(seq, timeout)
    }

    /// The figures of the log.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store fails or the first or last header is damaged.
    pub fn stats(&self) -> Result<LogStats, ReadError> {
        let snapshot = self.shared.snapshot()?;
        let mut stats = LogStats {
            blocks: snapshot.block_count()?,
            keys: snapshot.key_count()?,
            file_bytes: self.file_bytes(&snapshot)?,
            ..LogStats::default()
        };
        let mut headers = snapshot.headers_until(Seq(u64::MAX))?;
        if let Some((first, value)) = next_header(&mut headers.clone(), true)? {
            let last = read_header(first, &value)?;
            let (start, (bytes_through, newest)) = (&snapshot.past.start, end_of(&snapshot, &last)?);
            stats.events = last.last().min(snapshot.through).0 - start.frontier.count();
            (stats.bytes, stats.newest) = (bytes_through - start.bytes_through, Some(newest));
        }
        if let Some((first, value)) = next_header(&mut headers, false)? {
            stats.oldest = Some(read_header(first, &value)?.first_at);
        }
        Ok(stats)
    }

    fn file_bytes(&self, snapshot: &Snapshot) -> Result<u64, StoreError> {
        let sealed = snapshot.past.parts.iter().map(|part| &part.path);
        let mut files = self.shared.path.iter().chain(sealed);
        files.try_fold(0, |bytes, path| Ok(bytes + fs::metadata(path).map_err(StoreError::Io)?.len()))
    }

    /// What lies before the log's own file: sealed files, forks, what was dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the log is closed.
    pub fn origin(&self) -> Result<Origin, StoreError> {
        Ok(self.past()?.origin.clone())
    }

    /// The first position that the log still has; that behind its last event when it has none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the log is closed.
    pub fn first(&self) -> Result<Seq, StoreError> {
        Ok(self.past()?.first())
    }

    pub(crate) fn past(&self) -> Result<Arc<Past>, StoreError> {
        self.shared.with_database(|database| Ok(Arc::clone(&database.past)))
    }

    /// The log's own id, drawn when it was created.
    pub fn log_id(&self) -> [u8; 16] {
        self.shared.log_id
    }

    /// The record's id, the same at each call: a `UUIDv7` of its time, this log and its position.
    pub fn event_id(&self, record: &Record) -> uuid::Uuid {
        event_id(&self.log_id_at(record.seq), record)
    }

    /// The id of the log that recorded the event at `seq`: in a fork, that of the log it was forked from where both share it.
    pub fn log_id_at(&self, seq: Seq) -> [u8; 16] {
        let own = self.shared.log_id;
        self.past().map_or(own, |past| past.origin.log_id_at(seq, own))
    }

    /// Recomputes every hash from the first event on, and calls `progress` after each block with its last position.
    ///
    /// # Errors
    ///
    /// [`VerifyError`] names the first block that is not what was written.
    pub fn verify(&self, progress: &mut dyn FnMut(Seq)) -> Result<Verified, VerifyError> {
        self.verify_extent(Extent::All, progress)
    }

    /// The same for what lies in the log's own file, behind sealed ones.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_own(&self, progress: &mut dyn FnMut(Seq)) -> Result<Verified, VerifyError> {
        self.verify_extent(Extent::Own, progress)
    }

    fn verify_extent(&self, extent: Extent, progress: &mut dyn FnMut(Seq)) -> Result<Verified, VerifyError> {
        let noted = || self.may_lack_orders();
        verify::verify(self.shared.whole_snapshot(), extent, &self.shared.keys, noted, progress)
    }
}

/// The id of a record of the log with this id: see [`Reader::event_id`].
pub fn event_id(log_id: &[u8; 16], record: &Record) -> uuid::Uuid {
    event_id_at(log_id, record.seq, record.recorded_at)
}

/// The same for an event of which only the place is known.
pub fn event_id_at(log_id: &[u8; 16], seq: Seq, recorded_at: Timestamp) -> uuid::Uuid {
    let mut hasher = blake3::Hasher::new();
    hasher.update(log_id).update(&seq.0.to_le_bytes());
    let mut bits = [0; 10];
    bits.copy_from_slice(&hasher.finalize().as_bytes()[..10]);
    let millis = recorded_at.unix_micros() / 1_000;
    uuid::Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
}

/// Bytes of all bodies up to the end of a snapshot, which lies in the block with this header or behind it, and when the last
/// event was recorded.
fn end_of(snapshot: &Snapshot, header: &Header<'_>) -> Result<(u64, Timestamp), ReadError> {
    if header.last() <= snapshot.through {
        return Ok((header.bytes_through, header.last_at));
    }
    let body = snapshot.body(header.first)?;
    let block = open_block(header, &body)?;
    let index = (snapshot.through.0 - header.first.0) as usize;
    Ok((header.bytes_through - block.bytes_behind(index), block.recorded_at(&block.entry(index))))
}

/// The row of a key in a snapshot.
pub(crate) fn find_key(snapshot: &Snapshot, key: &str) -> Result<Option<KeyRow>, ReadError> {
    let Some(row) = snapshot.key_row(key)? else {
        return Ok(None);
    };
    let row = keys::decode(key, row.value()).ok_or_else(|| ReadError::Key { key: key.to_owned() })?;
    Ok((row.last <= snapshot.through).then_some(row))
}
