//! Walking the whole chain.

use crate::id::Seq;
use crate::log::chain::Hash;
use crate::log::scan::ReadError;

/// What [`Reader::verify`](crate::log::Reader::verify) found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Events checked.
    pub events: u64,
    /// Blocks checked.
    pub blocks: u64,
    /// Idempotency keys checked.
    pub keys: u64,
    /// Merkle root over all of them.
    pub root: Hash,
}

/// Why a log is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The first block that is wrong; everything before it was checked and is right.
    #[error("verified up to {good}, then stopped")]
    Block {
        /// Last position that is right.
        good: Seq,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// An idempotency key's row is wrong; the events are right.
    #[error("every event is right, but the row of an idempotency key is not")]
    Key(#[source] ReadError),
}
