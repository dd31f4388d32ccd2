//! Blocks of a snapshot: headers in order, bodies on demand, both checked.

use std::ops::Range;
use std::sync::Arc;

use redb::{OwnedAccessGuard, OwnedRange, ReadOnlyTable, ReadableTableMetadata};

use crate::id::Seq;
use crate::log::block::Block;
use crate::log::header::Header;
use crate::log::keys;
use crate::log::pack::ChainEnd;
use crate::log::past::Part;
use crate::log::scan::ReadError;
use crate::log::store::{Snapshot, StoreError, guarded};
use crate::log::wal::{Recent, WalBlock};

/// A value that stays readable as long as it is held.
pub(crate) enum Value {
    /// In redb.
    Stored(OwnedAccessGuard<&'static [u8]>),
    /// In the write-ahead log, where it is there.
    Recent(Arc<WalBlock>, fn(&WalBlock) -> &[u8]),
    /// A copy.
    Owned(Box<[u8]>),
}

impl Value {
    /// Takes the value in where a panic is caught: looking at it is what fails when its page is damaged, and a page
    /// that is held does not change any more.
    pub(crate) fn new(guard: OwnedAccessGuard<&'static [u8]>) -> Self {
        guard.value();
        Self::Stored(guard)
    }

    /// The body of a block of the write-ahead log.
    pub(crate) fn body_of(block: &Arc<WalBlock>) -> Self {
        Self::Recent(Arc::clone(block), WalBlock::body)
    }

    pub(crate) fn value(&self) -> &[u8] {
        match self {
            Self::Stored(guard) => guard.value(),
            Self::Recent(block, part) => part(block),
            Self::Owned(row) => row,
        }
    }
}

/// A row of a table of blocks.
type Row = Result<(OwnedAccessGuard<u64>, OwnedAccessGuard<&'static [u8]>), redb::StorageError>;

/// Takes an idempotency key and its row.
type TakeRow<'a, E> = dyn FnMut(&str, &[u8]) -> Result<(), E> + 'a;

/// Headers of a snapshot, from both ends: those in files, the oldest first, and behind them those in the write-ahead log.
#[derive(Clone)]
pub(crate) struct Headers {
    stored: Vec<OwnedRange<u64, &'static [u8]>>,
    recent: Recent,
    /// Of `recent`, those not given yet.
    left: Range<usize>,
}

impl Headers {
    fn next(&mut self, down: bool) -> Result<Option<(Seq, Value)>, StoreError> {
        if down && let Some(index) = self.left.next_back() {
            return Ok(Some(self.recent(index)));
        }
        let stored = guarded(|| {
            let next = if down { self.next_stored_back() } else { self.next_stored() };
            Ok(next.transpose()?.map(|(key, value)| (Seq(key.value()), Value::new(value))))
        })?;
        if stored.is_some() || down {
            return Ok(stored);
        }
        Ok(self.left.next().map(|index| self.recent(index)))
    }

    fn next_stored(&mut self) -> Option<Row> {
        self.stored.iter_mut().find_map(Iterator::next)
    }

    fn next_stored_back(&mut self) -> Option<Row> {
        self.stored.iter_mut().rev().find_map(DoubleEndedIterator::next_back)
    }

    fn recent(&self, index: usize) -> (Seq, Value) {
        let block = &self.recent[index];
        (block.first, Value::Recent(Arc::clone(block), WalBlock::header))
    }
}

/// The error for a block that is not what was written.
pub(crate) fn damaged(block: Seq, what: impl Into<String>) -> ReadError {
    ReadError::Damaged { block, what: what.into() }
}

impl Snapshot {
    /// Blocks of the write-ahead log that redb does not have, up to [`Snapshot::through`].
    fn recent_through(&self, through: Seq) -> Range<usize> {
        let end = self.recent.partition_point(|block| block.first <= through);
        self.recent_from..end.max(self.recent_from)
    }

    /// Headers of the blocks that hold `from` and everything after it.
    pub(crate) fn headers_from(&self, from: Seq) -> Result<Headers, StoreError> {
        let mut left = self.recent_through(self.through);
        // The last that begins at `from` or before it; without one, the first events lie in redb.
        let begun = self.recent[left.clone()].partition_point(|block| block.first <= from);
        left.start += begun.saturating_sub(1);
        let stored = guarded(|| {
            // From the end: who reads on where it stopped finds its place in the log's own file.
            let mut stored = Vec::new();
            let mut start = if begun == 0 { None } else { Some(from.0) };
            for (headers, through) in self.files().rev() {
                if start.is_none() {
                    let before = headers.range_owned(..=from.0.min(through.0))?.next_back().transpose()?;
                    start = before.map(|(key, _)| key.value());
                }
                let first = start.unwrap_or_default();
                stored.push(headers.range_owned(first..=through.0.max(first))?);
                if start.is_some() {
                    break;
                }
            }
            stored.reverse();
            Ok(stored)
        })?;
        Ok(Headers { stored, recent: Arc::clone(&self.recent), left })
    }

    /// Headers of the blocks that begin at `from` or behind it, without a look at what stands before.
    pub(crate) fn headers_beginning(&self, from: Seq) -> Result<Headers, StoreError> {
        let mut left = self.recent_through(self.through);
        // Behind the first block of the write-ahead log nothing lies in files, whose pages may be damaged there.
        let in_files = self.recent[left.clone()].first().is_none_or(|block| from < block.first);
        left.start += self.recent[left.clone()].partition_point(|block| block.first < from);
        let stored = guarded(|| {
            let files = self.files().filter(|_| in_files);
            let ranges = files.map(|(headers, through)| headers.range_owned(from.0..=through.0.max(from.0)));
            Ok(ranges.collect::<Result<_, _>>()?)
        })?;
        Ok(Headers { stored, recent: Arc::clone(&self.recent), left })
    }

    /// Headers of the blocks that hold `until` and everything before it.
    pub(crate) fn headers_until(&self, until: Seq) -> Result<Headers, StoreError> {
        let until = until.min(self.through);
        let stored = guarded(|| {
            let ranges =
                self.files().map(|(headers, through)| headers.range_owned(..=through.0.min(until.0)));
            Ok(ranges.collect::<Result<_, _>>()?)
        })?;
        Ok(Headers { stored, recent: Arc::clone(&self.recent), left: self.recent_through(until) })
    }

    /// The headers of each file and the last position that is read from it, the oldest file first.
    fn files(&self) -> impl DoubleEndedIterator<Item = (&ReadOnlyTable<u64, &'static [u8]>, Seq)> {
        let parts = self.past.parts.iter().map(|part| (&part.tables.headers, part.sealed.through));
        parts.chain([(&self.own.headers, self.through)])
    }

    /// How many blocks there are, those beyond [`Snapshot::through`] included.
    pub(crate) fn block_count(&self) -> Result<u64, StoreError> {
        let own = self.own_block_count()?;
        self.past.parts.iter().try_fold(own, |count, part| Ok(count + part.blocks()?))
    }

    /// How many blocks the log's own file has.
    pub(crate) fn own_block_count(&self) -> Result<u64, StoreError> {
        let recent = (self.recent.len() - self.recent_from) as u64;
        guarded(|| Ok(self.own.headers.len()? + recent))
    }

    /// The end of the chain before the first block of the log's own file.
    pub(crate) fn own_start(&self) -> Result<ChainEnd, ReadError> {
        let mut headers = self.headers_until(self.past.through())?;
        let Some((first, value)) = next_header(&mut headers, true)? else {
            return Ok(self.past.start.clone());
        };
        let header = read_header(first, &value)?;
        let frontier = header.frontier().ok_or_else(|| damaged(first, "its peaks do not fit"))?;
        Ok(ChainEnd { frontier, bytes_through: header.bytes_through, recorded_at: header.last_at })
    }

    /// The body of the block stored at `first`.
    pub(crate) fn body(&self, first: Seq) -> Result<Value, ReadError> {
        let recent = &self.recent[self.recent_from..];
        if let Ok(index) = recent.binary_search_by_key(&first, |block| block.first) {
            return Ok(Value::body_of(&recent[index]));
        }
        let sealed = self.past.parts.partition_point(|part| part.sealed.through < first);
        if let Some(bodies) = self.bodies.as_ref().filter(|_| sealed == self.past.parts.len()) {
            let body = bodies.read(first)?.map(Value::Owned);
            return body.ok_or_else(|| damaged(first, "its events are missing"));
        }
        let tables = self.past.parts.get(sealed).map_or(&self.own, |part| &part.tables);
        guarded(|| Ok(tables.bodies.get_owned(first.0)?.map(Value::new)))?
            .ok_or_else(|| damaged(first, "its events are missing"))
    }

    /// The bytes stored under an idempotency key.
    pub(crate) fn key_row(&self, key: &str) -> Result<Option<Value>, StoreError> {
        let recent = self.recent[self.recent_from..].iter().rev().find_map(|block| block.key_row(key));
        if let Some(row) = recent {
            return Ok(Some(Value::Owned(row.into())));
        }
        let own = guarded(|| Ok(self.own.keys.get_owned(key)?.map(Value::new)))?;
        if own.is_some() {
            return Ok(own);
        }
        for part in self.past.parts.iter().rev() {
            let found = guarded(|| Ok(part.tables.keys.get_owned(key)?.map(Value::new)))?;
            // Behind the cut the key was used in the other log, not in this one. What cannot be read is for the caller to name.
            let beyond = |row: &Value| {
                keys::decode(key, row.value()).is_some_and(|row| row.last > part.sealed.keys_through)
            };
            if let Some(row) = found.filter(|row| !beyond(row)) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// How many idempotency keys the log's own file counts.
    pub(crate) fn own_key_count(&self) -> Result<u64, StoreError> {
        let recent: usize = self.recent[self.recent_from..].iter().map(|block| block.keys().len()).sum();
        guarded(|| Ok(self.own.keys.len()? + recent as u64))
    }

    /// How many idempotency keys there are at the most: a cut leaves some out that are only found by reading all.
    pub(crate) fn key_count(&self) -> Result<u64, StoreError> {
        let count = |count, part: &Arc<Part>| Ok(count + guarded(|| Ok(part.tables.keys.len()?))?);
        self.past.parts.iter().try_fold(self.own_key_count()?, count)
    }

    /// Shows every idempotency key with its row to `take`: those of the log's own file, then those of sealed ones.
    pub(crate) fn each_key<E: From<ReadError>>(&self, take: &mut TakeRow<'_, E>) -> Result<(), E> {
        self.each_own_key(take)?;
        self.each_sealed_key(take)
    }

    /// The same for sealed files, as far as they belong to this log.
    pub(crate) fn each_sealed_key<E: From<ReadError>>(&self, take: &mut TakeRow<'_, E>) -> Result<(), E> {
        self.past.parts.iter().try_for_each(|part| each_key_of(part, take))
    }

    /// The same for the log's own file: those that redb does not have yet, then the others in order.
    pub(crate) fn each_own_key<E: From<ReadError>>(&self, take: &mut TakeRow<'_, E>) -> Result<(), E> {
        for (key, row) in self.recent[self.recent_from..].iter().flat_map(|block| block.keys()) {
            take(key, row)?;
        }
        each_row(&self.own.keys, take)
    }
}

/// Shows every idempotency key of a sealed file that belongs to the log, with its row, to `take`.
pub(crate) fn each_key_of<E: From<ReadError>>(part: &Part, take: &mut TakeRow<'_, E>) -> Result<(), E> {
    each_row(&part.tables.keys, &mut |key, row| {
        let beyond = keys::decode(key, row).is_some_and(|row| row.last > part.sealed.keys_through);
        if beyond { Ok(()) } else { take(key, row) }
    })
}

fn each_row<E: From<ReadError>>(
    table: &ReadOnlyTable<&'static str, &'static [u8]>,
    take: &mut TakeRow<'_, E>,
) -> Result<(), E> {
    let mut rows = guarded(|| Ok(table.range_owned::<&str>(..)?)).map_err(ReadError::from)?;
    let mut next = || {
        guarded(|| {
            let next = rows.next().transpose()?;
            Ok(next.map(|(key, row)| take(key.value(), row.value())))
        })
    };
    while let Some(taken) = next().map_err(ReadError::from)? {
        taken?;
    }
    Ok(())
}

/// The next header going up or down, with the place it is stored at.
pub(crate) fn next_header(headers: &mut Headers, down: bool) -> Result<Option<(Seq, Value)>, StoreError> {
    headers.next(down)
}

/// Reads a stored header.
pub(crate) fn read_header(first: Seq, value: &Value) -> Result<Header<'_>, ReadError> {
    Header::decode(first, value.value()).map_err(|what| damaged(first, what))
}

/// Opens a stored body against its header.
pub(crate) fn open_block<'a>(header: &Header<'_>, body: &'a Value) -> Result<Block<'a>, ReadError> {
    Block::open(header, body.value()).map_err(|what| damaged(header.first, what))
}

/// Opens a stored body against its header for who only reads.
pub(crate) fn open_to_read<'a>(header: &Header<'_>, body: &'a Value) -> Result<Block<'a>, ReadError> {
    Block::open_to_read(header, body.value()).map_err(|what| damaged(header.first, what))
}
