//! Blocks of a snapshot: headers in order, bodies on demand, both checked.

use std::ops::Range;
use std::sync::Arc;

use redb::{OwnedAccessGuard, OwnedRange, ReadableTableMetadata};

use crate::id::Seq;
use crate::log::block::Block;
use crate::log::header::Header;
use crate::log::scan::ReadError;
use crate::log::store::{Snapshot, StoreError, guarded};
use crate::log::wal::{Recent, WalBlock};

/// A value that stays readable as long as it is held.
pub(crate) enum Value {
    /// In redb.
    Stored(OwnedAccessGuard<&'static [u8]>),
    /// In the write-ahead log, where it is there.
    Recent(Arc<WalBlock>, fn(&WalBlock) -> &[u8]),
    /// The row of a key in the write-ahead log.
    RecentRow(Box<[u8]>),
}

impl Value {
    /// Takes the value in where a panic is caught: looking at it is what fails when its page is damaged, and a page
    /// that is held does not change any more.
    fn new(guard: OwnedAccessGuard<&'static [u8]>) -> Self {
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
            Self::RecentRow(row) => row,
        }
    }
}

/// Headers of a snapshot, from both ends: those in redb, and behind them those in the write-ahead log.
#[derive(Clone)]
pub(crate) struct Headers {
    stored: OwnedRange<u64, &'static [u8]>,
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
            let next = if down { self.stored.next_back() } else { self.stored.next() };
            Ok(next.transpose()?.map(|(key, value)| (Seq(key.value()), Value::new(value))))
        })?;
        if stored.is_some() || down {
            return Ok(stored);
        }
        Ok(self.left.next().map(|index| self.recent(index)))
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
            let before = match begun {
                0 => self.headers.range_owned(..=from.0)?.next_back().transpose()?,
                _ => None,
            };
            let start = if begun == 0 { before.map_or(0, |(key, _)| key.value()) } else { from.0 };
            Ok(self.headers.range_owned(start..=self.through.0.max(start))?)
        })?;
        Ok(Headers { stored, recent: Arc::clone(&self.recent), left })
    }

    /// Headers of the blocks that hold `until` and everything before it.
    pub(crate) fn headers_until(&self, until: Seq) -> Result<Headers, StoreError> {
        let until = until.min(self.through);
        let stored = guarded(|| Ok(self.headers.range_owned(..=until.0)?))?;
        Ok(Headers { stored, recent: Arc::clone(&self.recent), left: self.recent_through(until) })
    }

    /// How many blocks there are, those beyond [`Snapshot::through`] included.
    pub(crate) fn block_count(&self) -> Result<u64, StoreError> {
        let recent = (self.recent.len() - self.recent_from) as u64;
        guarded(|| Ok(self.headers.len()? + recent))
    }

    /// The body of the block stored at `first`.
    pub(crate) fn body(&self, first: Seq) -> Result<Value, ReadError> {
        let recent = &self.recent[self.recent_from..];
        if let Ok(index) = recent.binary_search_by_key(&first, |block| block.first) {
            return Ok(Value::body_of(&recent[index]));
        }
        guarded(|| Ok(self.bodies.get_owned(first.0)?.map(Value::new)))?
            .ok_or_else(|| damaged(first, "its events are missing"))
    }

    /// The bytes stored under an idempotency key.
    pub(crate) fn key_row(&self, key: &str) -> Result<Option<Value>, StoreError> {
        let recent = self.recent[self.recent_from..].iter().rev().find_map(|block| block.key_row(key));
        if let Some(row) = recent {
            return Ok(Some(Value::RecentRow(row.into())));
        }
        guarded(|| Ok(self.keys.get_owned(key)?.map(Value::new)))
    }

    /// How many idempotency keys there are.
    pub(crate) fn key_count(&self) -> Result<u64, StoreError> {
        let recent: usize = self.recent[self.recent_from..].iter().map(|block| block.keys().len()).sum();
        guarded(|| Ok(self.keys.len()? + recent as u64))
    }

    /// The idempotency keys whose rows redb does not have.
    pub(crate) fn recent_keys(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.recent[self.recent_from..].iter().flat_map(|block| block.keys())
    }
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
