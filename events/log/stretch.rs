//! A stretch of the log as blocks that stand for themselves: what a backup carries away, from where the last one ended.
//!
//! Blocks are merged as the log grows, so a stretch rarely begins where a block does. The block that holds its beginning or
//! its end is cut; events keep their positions, times and hashes, and every root stays what it was.

use crate::id::Seq;
use crate::log::block::{ENTRY_BYTES, Entry};
use crate::log::blocks::{Value, damaged, next_header, open_block, read_header};
use crate::log::chain::{Hash, hash, leaf};
use crate::log::header::Header;
use crate::log::keys;
use crate::log::merge::filter_items;
use crate::log::pack::{ChainEnd, Summary};
use crate::log::prove::{self, ProveError};
use crate::log::reader::{Head, Reader};
use crate::log::scan::ReadError;
use crate::log::sealing::KeyRing;
use crate::log::verify::{Findings, verify_block};
use crate::time::Timestamp;

/// Where a chain of events ends: all that is needed to check what follows, and to go on with it.
#[derive(Debug, Clone, Default)]
pub struct End(pub(crate) ChainEnd);

impl End {
    /// What the log's head is there.
    pub fn head(&self) -> Head {
        let frontier = &self.0.frontier;
        Head { seq: Seq(frontier.count()), root: frontier.root(), recorded_at: self.0.recorded_at }
    }

    /// Position of the last event.
    pub fn seq(&self) -> Seq {
        Seq(self.0.frontier.count())
    }

    /// Where the chain ends behind a block, as its header says: for one that was checked before.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if the header is none.
    pub fn behind(block: &StoredBlock) -> Result<Self, ReadError> {
        behind(&block.header()?).map(Self)
    }

    /// Recomputes every hash of a block, checks that it continues the chain, and moves behind it.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] says what does not fit; the end is then of no use any more.
    pub fn take(&mut self, block: &StoredBlock) -> Result<(), ReadError> {
        let header = block.header()?;
        verify_block(&header, &block.value(), &mut self.0, &KeyRing::default(), &mut Findings::default())
    }
}

/// A block as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// Position of its first event.
    pub first: Seq,
    /// What is known about it without reading its events.
    pub header: Vec<u8>,
    /// Its entries and events.
    pub body: Vec<u8>,
}

impl StoredBlock {
    fn header(&self) -> Result<Header<'_>, ReadError> {
        Header::decode(self.first, &self.header).map_err(|what| damaged(self.first, what))
    }

    fn value(&self) -> Value {
        Value::Owned(self.body.as_slice().into())
    }

    /// Position of its last event.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if its header is none.
    pub fn last(&self) -> Result<Seq, ReadError> {
        Ok(self.header()?.last())
    }

    /// Merkle root of the log behind it.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if its header is none.
    pub fn root(&self) -> Result<Hash, ReadError> {
        Ok(self.header()?.root)
    }

    /// Position of the last of its events that was recorded at `moment` or before; the one in front of the block when
    /// none was.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if it is not what was written.
    pub fn last_until(&self, moment: Timestamp) -> Result<Seq, ReadError> {
        let (header, body) = (self.header()?, self.value());
        if header.last_at <= moment {
            return Ok(header.last());
        }
        let block = open_block(&header, &body)?;
        let within = (0..block.count()).take_while(|&at| block.recorded_at(&block.entry(at)) <= moment);
        Ok(Seq(header.first.0 + within.count() as u64).previous())
    }

    /// The same block up to `until`, which lies in it; `end` is the end of the chain before it and is moved behind what
    /// is left.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] if it is not what was written, or does not continue the chain.
    pub fn front(&self, until: Seq, end: &mut End) -> Result<Self, ReadError> {
        let header = self.header()?;
        cut(&header, &self.value(), until, &mut end.0)
    }
}

/// The events of a block behind `end`, up to `until`, as a block of their own; `end` is moved behind them.
fn cut(header: &Header<'_>, body: &Value, until: Seq, end: &mut ChainEnd) -> Result<StoredBlock, ReadError> {
    let first = Seq(end.frontier.count() + 1);
    let until = until.min(header.last());
    if first < header.first || first > until {
        return Err(damaged(header.first, "the block before it is missing"));
    }
    if first == header.first && header.prev_root != end.frontier.root() {
        let what = "it does not continue the chain: its root before differs from the one reached";
        return Err(damaged(header.first, what));
    }
    let block = open_block(header, body)?;
    let range = (first.0 - header.first.0) as usize..(until.0 + 1 - header.first.0) as usize;
    let first_at = block.recorded_at(&block.entry(range.start));
    let prev_root = end.frontier.root();
    let (mut entries, mut stored) = (Vec::with_capacity(range.len() * ENTRY_BYTES), Vec::new());
    let mut summary = Summary::default();
    for index in range.clone() {
        let (seq, entry) = (block.seq(index), block.entry(index));
        let of_event = |what: &str| damaged(header.first, format!("{what} ({seq})"));
        block.stored(index).map_err(of_event)?;
        stored.extend_from_slice(block.raw(index).unwrap_or_default());
        let at = block.recorded_at(&entry);
        let time_delta = at.unix_micros() - first_at.unix_micros();
        entries.extend(Entry { time_delta, body_end: stored.len() as u32, ..entry }.encode());
        summary.add(entry.tag.kind, filter_items(&block, index).map_err(|what| of_event(&what))?);
        end.frontier.push(leaf(seq, at, entry.tag, &entry.body_hash));
        end.recorded_at = at;
    }
    end.bytes_through += stored.len() as u64;
    let hashes = (prev_root, hash(&entries));
    let body = [entries, stored].concat();
    let times = (first_at, end.recorded_at);
    let header = summary.header(first, (range.len() as u32, &body), times, hashes, end);
    Ok(StoredBlock { first, header, body })
}

fn behind(header: &Header<'_>) -> Result<ChainEnd, ReadError> {
    Ok(ChainEnd {
        frontier: header.frontier().ok_or_else(|| damaged(header.first, "its peaks do not fit"))?,
        bytes_through: header.bytes_through,
        recorded_at: header.last_at,
    })
}

/// Blocks of a stretch in order. Ends after the first error.
///
/// It holds no snapshot between two blocks, so the log may be written and its blocks merged meanwhile.
#[derive(Debug)]
pub struct Stretch {
    reader: Reader,
    end: ChainEnd,
    until: Seq,
    failed: bool,
}

impl Iterator for Stretch {
    type Item = Result<StoredBlock, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.end.frontier.count() >= self.until.0 {
            return None;
        }
        let block = self.block();
        self.failed = block.is_err();
        Some(block)
    }
}

impl Stretch {
    /// The next block, whole if it fits. What it holds is checked by whoever takes it away, see [`End::take`].
    fn block(&mut self) -> Result<StoredBlock, ReadError> {
        let next = Seq(self.end.frontier.count() + 1);
        let snapshot = self.reader.snapshot()?;
        let mut headers = snapshot.headers_from(next)?;
        let (first, value) =
            next_header(&mut headers, false)?.ok_or_else(|| damaged(next, "it is missing"))?;
        let header = read_header(first, &value)?;
        let body = snapshot.body(first)?;
        if first != next || header.last() > self.until || header.prev_root != self.end.frontier.root() {
            return cut(&header, &body, self.until, &mut self.end);
        }
        self.end = behind(&header)?;
        Ok(StoredBlock { first, header: value.value().to_vec(), body: body.value().to_vec() })
    }
}

/// Is shown an idempotency key and its row.
pub type TakeKey<'a, E> = &'a mut dyn FnMut(&str, &[u8]) -> Result<(), E>;

impl Reader {
    /// Where the chain was after the first `size` events.
    ///
    /// # Errors
    ///
    /// [`ProveError`] if the log has fewer, or a block is damaged.
    pub fn end_at(&self, size: u64) -> Result<End, ProveError> {
        let snapshot = self.snapshot().map_err(ReadError::from)?;
        let head = prove::head_at(&snapshot, snapshot.through, size)?;
        if size == 0 {
            return Ok(End::default());
        }
        let frontier = prove::frontier_at(&snapshot, size)?;
        let mut headers = snapshot.headers_from(head.seq).map_err(ReadError::from)?;
        let found = next_header(&mut headers, false).map_err(ReadError::from)?;
        let (first, value) = found.ok_or_else(|| damaged(head.seq, "it is missing"))?;
        let header = read_header(first, &value)?;
        let body = snapshot.body(first)?;
        let block = open_block(&header, &body)?;
        let bytes_through = header.bytes_through - block.bytes_behind((size - first.0) as usize);
        Ok(End(ChainEnd { frontier, bytes_through, recorded_at: head.recorded_at }))
    }

    /// The blocks behind `after`, which must be an end of this log's chain, up to `until`, which must be in the log.
    pub fn stretch(&self, after: End, until: Seq) -> Stretch {
        Stretch { reader: self.clone(), end: after.0, until, failed: false }
    }

    /// Shows `take` every idempotency key whose batch lies behind `after` and up to `until`, with its row as it is
    /// stored. Reads all keys there are.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; and what `take` fails with.
    pub fn keys_of<E: From<ReadError>>(&self, after: Seq, until: Seq, take: TakeKey<'_, E>) -> Result<(), E> {
        let snapshot = self.snapshot().map_err(ReadError::from)?;
        let mut show = |key: &str, row: &[u8]| {
            let known = keys::decode(key, row).ok_or_else(|| ReadError::Key { key: key.to_owned() })?;
            if after < known.last && known.last <= until { take(key, row) } else { Ok(()) }
        };
        snapshot.each_key(&mut show)
    }
}
