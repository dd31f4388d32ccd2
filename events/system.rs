//! What happens to the server itself.

use bincode::{Decode, Encode};

use crate::id::Seq;

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
}
