//! Iteration over records, forwards and backwards, past the blocks that cannot match.

use std::sync::Arc;

use crate::codec::DecodeError;
use crate::id::Seq;
use crate::log::filter::Filter;
use crate::log::sealing::KeyRing;
use crate::log::sealing::opened::{Found, SealedRecord};
use crate::log::store::{Snapshot, StoreError};
use crate::log::visit::{BlockWalk, EventBlock};
use crate::record::Record;

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
    /// Last position (going up) or first one (going down) of the furthest block that was read or passed over, as far as the log
    /// reached when the scan began.
    pub reached: Seq,
}

/// Records in order of position, as the log stood when the scan began. Ends after the first error. Events that were erased
/// are passed over; [`FoundScan`] shows their places.
///
/// It holds a snapshot: the file cannot reuse the space of what was merged since. Do not park one for long.
pub struct Scan {
    state: Result<Walk, Option<ReadError>>,
    stats: ScanStats,
    content_bytes: u64,
}

/// As [`Scan`], with the places of events that were erased.
#[derive(Debug)]
pub struct FoundScan(pub(crate) Scan);

impl FoundScan {
    /// What was touched so far.
    pub fn stats(&self) -> ScanStats {
        self.0.stats
    }

    /// As [`Scan::content_bytes`].
    pub fn content_bytes(&self) -> u64 {
        self.0.content_bytes
    }
}

impl Iterator for FoundScan {
    type Item = Result<Found, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.0.next_found()? {
            Ok(Found::Sealed(sealed)) if sealed.erased_by.is_none() => {
                self.0.state = Err(None);
                Some(Err(sealed.key_missing()))
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
    blocks: BlockWalk,
    down: bool,
    current: Option<EventBlock>,
    /// What is compressed or encrypted is unpacked here.
    room: Vec<u8>,
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
        let state = BlockWalk::new(snapshot, keys, from, filter, down).map(|blocks| Walk {
            blocks,
            down,
            current: None,
            room: Vec::new(),
        });
        Self {
            state: state.map_err(|error| Some(error.into())),
            stats: ScanStats::default(),
            content_bytes: 0,
        }
    }

    /// What was touched so far.
    pub fn stats(&self) -> ScanStats {
        self.stats
    }

    /// Bytes of all contents that were handed out so far, unpacked: for who bounds how much of them it holds.
    pub fn content_bytes(&self) -> u64 {
        self.content_bytes
    }
}

impl Iterator for Scan {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_found()? {
                Ok(Found::Record(record)) => return Some(Ok(record)),
                Ok(Found::Sealed(SealedRecord { erased_by: Some(_), .. })) => (),
                Ok(Found::Sealed(sealed)) => {
                    self.state = Err(None);
                    return Some(Err(sealed.key_missing()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Scan {
    /// The next event that matches, with its content or without.
    fn next_found(&mut self) -> Option<Result<Found, ReadError>> {
        let next = match &mut self.state {
            Ok(walk) => walk.next(&mut self.stats),
            Err(error) => Err(error.take()?),
        };
        match next {
            Ok(Some((found, bytes))) => {
                self.content_bytes += bytes as u64;
                Some(Ok(found))
            }
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
    fn next(&mut self, stats: &mut ScanStats) -> Result<Option<(Found, usize)>, ReadError> {
        loop {
            if let Some(block) = &mut self.current {
                while let Some(index) = block.next_index(self.down) {
                    if let Some(found) = block.found_sized(index, &mut self.room)? {
                        return Ok(Some(found));
                    }
                }
                self.current = None;
            }
            self.current = self.blocks.next(stats)?;
            if self.current.is_none() {
                return Ok(None);
            }
        }
    }
}
