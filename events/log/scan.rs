//! Iteration over records, forwards and backwards, past the blocks that cannot match.

use std::ops::Range;
use std::sync::Arc;

use crate::codec::DecodeError;
use crate::id::Seq;
use crate::log::block::Block;
use crate::log::blocks::{Headers, Value, damaged, next_header, open_block, read_header};
use crate::log::filter::{Filter, Matcher};
use crate::log::header::Header;
use crate::log::proof::UnreadableError;
use crate::log::sealing::KeyRing;
use crate::log::sealing::opened::{self, Found, Placed, SealedRecord};
use crate::log::store::{Snapshot, StoreError};
use crate::record::Record;
use crate::time::Timestamp;

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes are not what was written.
    #[error("the block at {block} is damaged: {what}; restore events.redb from a backup")]
    Damaged {
        /// Position of the block's first event.
        block: Seq,
        /// What does not fit.
        what: String,
    },
    /// The event cannot be decoded, although its bytes are those that were written.
    #[error("could not decode {seq}")]
    Decode {
        /// Its position.
        seq: Seq,
        /// Why; mostly that a newer Caxton wrote it.
        #[source]
        source: DecodeError,
    },
    /// The event is encrypted, and its key is not there.
    #[error(
        "{seq} ({stream}) is encrypted under key {key:016x}, which is not in {}; put back the newest copy of that file",
        crate::log::sealing::KEYS_FILE
    )]
    KeyMissing {
        /// Its position.
        seq: Seq,
        /// Its stream.
        stream: String,
        /// Number of the key.
        key: u64,
    },
    /// The row of an idempotency key is not what was written.
    #[error("the row of idempotency key {key:?} is damaged; restore events.redb from a backup")]
    Key {
        /// The key.
        key: String,
    },
    /// The store failed.
    #[error("could not read the log")]
    Store(#[from] StoreError),
}

/// How much of the log a scan touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanStats {
    /// Blocks whose events were looked at.
    pub blocks_read: u64,
    /// Blocks passed over by their header alone.
    pub blocks_skipped: u64,
    /// Last position (going up) or first one (going down) of the furthest block that was read or passed over.
    pub reached: Seq,
}

/// Records in order of position, as the log stood when the scan began. Ends after the first error. Events that were erased
/// are passed over; [`FoundScan`] shows their places.
///
/// It holds a snapshot: the file cannot reuse the space of what was merged since. Do not park one for long.
pub struct Scan {
    state: Result<Walk, Option<ReadError>>,
    stats: ScanStats,
}

/// As [`Scan`], with the places of events that were erased.
#[derive(Debug)]
pub struct FoundScan(pub(crate) Scan);

impl FoundScan {
    /// What was touched so far.
    pub fn stats(&self) -> ScanStats {
        self.0.stats
    }
}

impl Iterator for FoundScan {
    type Item = Result<Found, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.next_found()? {
            Ok(Found::Sealed(SealedRecord { erased_by: None, seq, key, around, .. })) => {
                self.0.state = Err(None);
                Some(Err(key_missing(seq, key, around)))
            }
            found => Some(found),
        }
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("stats", &self.stats).finish_non_exhaustive()
    }
}

/// A scan under way.
struct Walk {
    snapshot: Snapshot,
    headers: Headers,
    keys: Arc<KeyRing>,
    matcher: Matcher,
    down: bool,
    /// Where the next block must begin (going up) or end (going down), once the first was seen.
    joint: Option<Seq>,
    current: Option<Current>,
}

/// The block whose events are being delivered.
pub(crate) struct Current {
    pub first: Seq,
    first_at: Timestamp,
    count: u32,
    body: Value,
    /// Indexes not looked at yet.
    pub left: Range<usize>,
}

impl Scan {
    /// A scan of `snapshot` from `from` on.
    pub(crate) fn new(
        snapshot: Result<Snapshot, StoreError>,
        keys: &Arc<KeyRing>,
        from: Seq,
        filter: &Filter,
        down: bool,
    ) -> Self {
        let keys = Arc::clone(keys);
        let state = snapshot.and_then(|snapshot| {
            let headers = if down { snapshot.headers_until(from) } else { snapshot.headers_from(from) }?;
            let matcher = Matcher::new(filter, from, down);
            Ok(Walk { snapshot, headers, keys, matcher, down, joint: None, current: None })
        });
        Self { state: state.map_err(|error| Some(error.into())), stats: ScanStats::default() }
    }

    /// What was touched so far.
    pub fn stats(&self) -> ScanStats {
        self.stats
    }
}

impl Iterator for Scan {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_found()? {
                Ok(Found::Record(record)) => return Some(Ok(record)),
                Ok(Found::Sealed(SealedRecord { erased_by: Some(_), .. })) => (),
                Ok(Found::Sealed(SealedRecord { seq, key, around, .. })) => {
                    self.state = Err(None);
                    return Some(Err(key_missing(seq, key, around)));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn key_missing(seq: Seq, key: Option<u64>, around: Option<opened::Around>) -> ReadError {
    let stream = around.map(|around| around.stream).unwrap_or_default();
    ReadError::KeyMissing { seq, stream, key: key.unwrap_or_default() }
}

impl Scan {
    /// The next event that matches, with its content or without.
    fn next_found(&mut self) -> Option<Result<Found, ReadError>> {
        let next = match &mut self.state {
            Ok(walk) => walk.next(&mut self.stats),
            Err(error) => Err(error.take()?),
        };
        match next {
            Ok(Some(found)) => Some(Ok(found)),
            Ok(None) => {
                self.state = Err(None);
                None
            }
            Err(error) => {
                self.state = Err(None);
                Some(Err(error))
            }
        }
    }
}

impl Walk {
    fn next(&mut self, stats: &mut ScanStats) -> Result<Option<Found>, ReadError> {
        loop {
            if let Some(current) = &mut self.current {
                while let Some(index) = if self.down { current.left.next_back() } else { current.left.next() }
                {
                    if let Some(found) = current.found(index, &self.matcher, &self.keys)? {
                        return Ok(Some(found));
                    }
                }
                self.current = None;
            }
            if !self.next_block(stats)? {
                return Ok(None);
            }
        }
    }

    /// Moves to the next block that may hold a match; whether there is one.
    fn next_block(&mut self, stats: &mut ScanStats) -> Result<bool, ReadError> {
        while let Some((first, value)) = next_header(&mut self.headers, self.down)? {
            let header = read_header(first, &value)?;
            let (near, far) = if self.down { (header.last(), first) } else { (first, header.last()) };
            if self.joint.is_some_and(|joint| joint != near) {
                return Err(damaged(first, "a block before or after it is missing"));
            }
            self.joint = Some(if self.down { far.previous() } else { far.next() });
            if self.matcher.is_past(near) {
                return Ok(false);
            }
            stats.reached = far;
            if !self.matcher.may_match(&header) {
                stats.blocks_skipped += 1;
                continue;
            }
            stats.blocks_read += 1;
            self.current = Some(Current::open(&self.snapshot, &header, self.matcher.indexes(&header))?);
            return Ok(true);
        }
        Ok(false)
    }
}

impl Current {
    /// Reads the body and checks its entries; `left` are the indexes to look at.
    pub(crate) fn open(
        snapshot: &Snapshot,
        header: &Header<'_>,
        left: Range<usize>,
    ) -> Result<Self, ReadError> {
        let body = snapshot.body(header.first)?;
        open_block(header, &body)?;
        Ok(Self { first: header.first, first_at: header.first_at, count: header.count, body, left })
    }

    /// Position of the last event.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }

    /// The event at `index`, if it matches. Only this event is checked and decoded.
    pub(crate) fn found(
        &self,
        index: usize,
        matcher: &Matcher,
        keys: &KeyRing,
    ) -> Result<Option<Found>, ReadError> {
        let block = Block::trusted(self.first, self.first_at, self.count, self.body.value())
            .map_err(|what| damaged(self.first, what))?;
        let (seq, entry) = (block.seq(index), block.entry(index));
        let recorded_at = block.recorded_at(&entry);
        if !matcher.takes_entry(entry.tag.kind, recorded_at) {
            return Ok(None);
        }
        let stored = block.stored(index).map_err(|what| damaged(self.first, format!("{what} ({seq})")))?;
        let placed = Placed { seq, recorded_at, tag: entry.tag };
        let found = opened::open(stored, placed, keys, |envelope| matcher.takes_envelope(envelope));
        found.map_err(|error| unreadable(self.first, seq, error))
    }
}

/// The error for bytes that are no event, although they are those that were written.
pub(crate) fn unreadable(block: Seq, seq: Seq, error: UnreadableError) -> ReadError {
    match error {
        UnreadableError::Unpack(what) => damaged(block, format!("{what} ({seq})")),
        UnreadableError::Decode(source) => ReadError::Decode { seq, source },
    }
}
