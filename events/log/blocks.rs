//! Blocks of a snapshot: headers in order, bodies on demand, both checked.

use redb::{OwnedAccessGuard, OwnedRange, ReadableTableMetadata};

use crate::id::Seq;
use crate::log::block::Block;
use crate::log::header::Header;
use crate::log::scan::ReadError;
use crate::log::store::{Snapshot, StoreError, guarded};

/// A value of the store that stays readable as long as it is held.
pub(crate) struct Value(OwnedAccessGuard<&'static [u8]>);

impl Value {
    /// Takes the value in where a panic is caught: looking at it is what fails when its page is damaged, and a page
    /// that is held does not change any more.
    fn new(guard: OwnedAccessGuard<&'static [u8]>) -> Self {
        guard.value();
        Self(guard)
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.0.value()
    }
}

/// Headers of a snapshot, from both ends.
pub(crate) type Headers = OwnedRange<u64, &'static [u8]>;

/// The error for a block that is not what was written.
pub(crate) fn damaged(block: Seq, what: impl Into<String>) -> ReadError {
    ReadError::Damaged { block, what: what.into() }
}

impl Snapshot {
    /// Headers of the blocks that hold `from` and everything after it.
    pub(crate) fn headers_from(&self, from: Seq) -> Result<Headers, StoreError> {
        guarded(|| {
            let before = self.headers.range_owned(..=from.0)?.next_back().transpose()?;
            let start = before.map_or(0, |(key, _)| key.value());
            Ok(self.headers.range_owned(start..=self.through.0.max(start))?)
        })
    }

    /// Headers of the blocks that hold `until` and everything before it.
    pub(crate) fn headers_until(&self, until: Seq) -> Result<Headers, StoreError> {
        guarded(|| Ok(self.headers.range_owned(..=until.min(self.through).0)?))
    }

    /// How many blocks there are, those beyond [`Snapshot::through`] included.
    pub(crate) fn block_count(&self) -> Result<u64, StoreError> {
        guarded(|| Ok(self.headers.len()?))
    }

    /// The body of the block stored at `first`.
    pub(crate) fn body(&self, first: Seq) -> Result<Value, ReadError> {
        guarded(|| Ok(self.bodies.get_owned(first.0)?.map(Value::new)))?
            .ok_or_else(|| damaged(first, "its events are missing"))
    }
}

impl Snapshot {
    /// The bytes stored under an idempotency key.
    pub(crate) fn key_row(&self, key: &str) -> Result<Option<Value>, StoreError> {
        guarded(|| Ok(self.keys.get_owned(key)?.map(Value::new)))
    }
}

/// The next header going up or down, with the place it is stored at.
pub(crate) fn next_header(headers: &mut Headers, down: bool) -> Result<Option<(Seq, Value)>, StoreError> {
    guarded(|| {
        let next = if down { headers.next_back() } else { headers.next() };
        Ok(next.transpose()?.map(|(key, value)| (Seq(key.value()), Value::new(value))))
    })
}

/// Reads a stored header.
pub(crate) fn read_header(first: Seq, value: &Value) -> Result<Header<'_>, ReadError> {
    Header::decode(first, value.value()).map_err(|what| damaged(first, what))
}

/// Opens a stored body against its header.
pub(crate) fn open_block<'a>(header: &Header<'_>, body: &'a Value) -> Result<Block<'a>, ReadError> {
    Block::open(header, body.value()).map_err(|what| damaged(header.first, what))
}
