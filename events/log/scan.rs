//! Iteration over records, forwards and backwards, past the blocks that cannot match.

use std::ops::Range;

use crate::codec::{self, DecodeError};
use crate::id::Seq;
use crate::log::block::Block;
use crate::log::blocks::{Headers, Value, damaged, next_header, open_block, read_header};
use crate::log::filter::{Filter, Matcher};
use crate::log::header::Header;
use crate::log::store::{Snapshot, StoreError};
use crate::record::Record;
use crate::time::Timestamp;
use crate::upcast;

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

/// Records in order of position, as the log stood when the scan began. Ends after the first error.
///
/// It holds a snapshot: the file cannot reuse the space of what was merged since. Do not park one for long.
pub struct Scan {
    state: Result<Walk, Option<ReadError>>,
    stats: ScanStats,
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
        from: Seq,
        filter: &Filter,
        down: bool,
    ) -> Self {
        let state = snapshot.and_then(|snapshot| {
            let headers = if down { snapshot.headers_until(from) } else { snapshot.headers_from(from) }?;
            let matcher = Matcher::new(filter, from, down);
            Ok(Walk { snapshot, headers, matcher, down, joint: None, current: None })
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
        let next = match &mut self.state {
            Ok(walk) => walk.next(&mut self.stats),
            Err(error) => Err(error.take()?),
        };
        match next {
            Ok(Some(record)) => Some(Ok(record)),
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
    fn next(&mut self, stats: &mut ScanStats) -> Result<Option<Record>, ReadError> {
        loop {
            if let Some(current) = &mut self.current {
                while let Some(index) = if self.down { current.left.next_back() } else { current.left.next() }
                {
                    if let Some(record) = current.record(index, &self.matcher)? {
                        return Ok(Some(record));
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

    /// The record at `index`, if it matches. Only this event is checked and decoded.
    pub(crate) fn record(&self, index: usize, matcher: &Matcher) -> Result<Option<Record>, ReadError> {
        let block = Block::trusted(self.first, self.first_at, self.count, self.body.value())
            .map_err(|what| damaged(self.first, what))?;
        let (seq, entry) = (block.seq(index), block.entry(index));
        let recorded_at = block.recorded_at(&entry);
        if !matcher.takes_entry(entry.tag.kind, recorded_at) {
            return Ok(None);
        }
        let bytes = block.event(index).map_err(|what| damaged(self.first, format!("{what} ({seq})")))?;
        let undecodable = |source| ReadError::Decode { seq, source };
        let (envelope, payload) = codec::decode_envelope(&bytes).map_err(undecodable)?;
        if !matcher.takes_envelope(&envelope) {
            return Ok(None);
        }
        Ok(Some(Record {
            seq,
            recorded_at,
            stream: envelope.stream.to_owned(),
            actor: envelope.actor.to_owned(),
            correlation: envelope.correlation.map(str::to_owned),
            causation: envelope.causation,
            event: upcast::decode(entry.tag.kind, entry.tag.version, payload).map_err(undecodable)?,
        }))
    }
}
