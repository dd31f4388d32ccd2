//! Iteration over records, forwards and backwards, past the blocks that cannot match.

use crate::id::Seq;
use crate::log::store::StoreError;
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
    /// The event is of a kind or version this program does not know.
    #[error(
        "{seq} was written by a newer Caxton (kind {kind}, version {version}); use that version to read it"
    )]
    Newer {
        /// Its position.
        seq: Seq,
        /// Number of its kind.
        kind: u8,
        /// Its version.
        version: u8,
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
}

/// Records in order of position, as the log stood when the scan began. Ends after the first error.
#[derive(Debug)]
pub struct Scan {}

impl Scan {
    /// What was touched so far.
    pub fn stats(&self) -> ScanStats {
        ScanStats::default()
    }
}

impl Iterator for Scan {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
