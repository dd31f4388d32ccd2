//! What happens to the server itself.

use bincode::{Decode, Encode};

use crate::id::Seq;
use crate::subject::Subject;

/// A fact about the server or its data directory.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum SystemEvent {
    /// A server opened the data directory for writing.
    ServerStarted {
        /// Its version, as in `Cargo.toml`.
        version: String,
    },
    /// The server closed the data directory in order.
    ServerStopped,
    /// The embedding model changed: vectors written from here on are of this model.
    EmbeddingModelChanged {
        /// Its name; `none` for keyword-only operation.
        name: String,
        /// SHA-256 of its weights, lower-case hex; empty for `none`.
        weights_sha256: String,
        /// Width of its vectors; 0 for `none`.
        dimensions: u32,
    },
    /// The oldest events were given up: the log may have lost them from here on.
    LogTrimmed {
        /// The last position that was given up.
        through: Seq,
        /// Merkle root of the log there, hex.
        root: String,
        /// Who gave them up.
        by: String,
    },
    /// Somebody had subjects erased: from here on nothing of what was recorded about them before is shown. That their keys
    /// and every copy beside the log are gone is said by [`SystemEvent::Erased`].
    ErasureOrdered {
        /// What is erased, in order.
        subjects: Vec<Subject>,
        /// What was asked for, as `agent:NAME`, a scope, or `conversation:ID`.
        asked: String,
        /// Numbers of the keys that are destroyed.
        keys: Vec<u64>,
        /// Events that cannot be read any more.
        events: u64,
        /// Numbers of memory below it were given out: none of them is given out again, although nothing tells of them.
        next_memory_id: u64,
        /// Why.
        reason: Option<String>,
        /// Who asked for it.
        by: String,
    },
    /// An erasure is complete: keys, rows, words, vectors and caches are gone.
    Erased {
        /// Where it was ordered.
        order: Seq,
        /// Keys that were destroyed.
        keys: u64,
        /// Events that cannot be read any more.
        events: u64,
    },
}
