//! Taking a log and a memory elsewhere: as lines of JSON, and as Parquet for programs that read tables.
//!
//! Reading order: [`events`] (the log), [`import`] (a log out of lines), [`memory`] and [`talk`] (the
//! projections as tables), [`table`] (rows to Parquet).

pub mod events;
pub mod import;
pub mod memory;
pub mod table;
pub mod talk;
#[cfg(test)]
mod tests;

use caxton_events::Seq;
use caxton_events::log::{ProveError, ReadError as LogReadError, StoreError};
use caxton_projections::embedding::EmbedError;
use caxton_projections::graph::ReadError as GraphReadError;
use parquet::errors::ParquetError;

/// Bytes after which a piece is handed over.
const PIECE_BYTES: usize = 256 << 10;

/// Why nothing, or not all, was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log could not be read.
    #[error("could not read the log")]
    Log(#[from] LogReadError),
    /// The log's store failed.
    #[error("could not read the log")]
    Store(#[from] StoreError),
    /// The head could not be read.
    #[error("could not read the head of the log")]
    Head(#[from] ProveError),
    /// What was read is not what the head says.
    #[error(
        "the events do not add up to the log's root after {seq}: run `caxton log verify` to see where it is damaged"
    )]
    Root {
        /// The last event.
        seq: Seq,
    },
    /// The memory could not be read.
    #[error("could not read the memory")]
    Graph(#[from] GraphReadError),
    /// A text has no vector.
    #[error("could not turn texts into vectors")]
    Embed(#[from] EmbedError),
    /// A row could not be written as JSON.
    #[error("could not write a row as JSON")]
    Json(#[from] serde_json::Error),
    /// The table could not be written.
    #[error("could not write the table")]
    Table(#[from] ParquetError),
}
