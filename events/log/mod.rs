//! The append-only log: packed, hash-chained blocks in redb, one writer, many readers.
//!
//! Reading order: [`options`], [`batch`] (in), [`chain`] (what ties it together), [`writer`], [`reader`] and [`scan`] (out).

pub mod batch;
pub mod chain;
pub mod filter;
pub mod options;
pub mod reader;
pub mod scan;
pub mod store;
pub mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use batch::{AppendError, Appended, Batch, Expected, IdempotencyKey, LogClosed, Ticket};
pub use chain::Hash;
pub use filter::Filter;
pub use options::{Durability, LogOptions};
pub use reader::{Head, KeyRow, LogStats, Reader};
pub use scan::{ReadError, Scan, ScanStats};
pub use store::StoreError;
pub use verify::{Verified, VerifyError};

use crate::time::Clock;

/// Why a log could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error("{} is in use by process {pid}; stop it, or talk to it over HTTP", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who holds it; 0 when it is only being read, by somebody unknown.
        pid: u32,
    },
}

/// A log that is open for appending.
#[derive(Debug)]
pub struct Log {
    reader: Reader,
}

impl Log {
    /// Opens the log in `dir`, or creates it where `dir` holds nothing of Caxton's.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: in use, damaged, written by a newer Caxton, or the medium failed. Nothing is repaired by guess.
    pub fn open(_dir: &Path, _options: LogOptions, _clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        Ok(Self { reader: Reader {} })
    }

    /// Opens the stopped log in `dir` for reading.
    ///
    /// # Errors
    ///
    /// As [`Log::open`]; also when the log was not closed in order and must be opened for writing once.
    pub fn open_read_only(_dir: &Path) -> Result<Reader, OpenError> {
        Ok(Reader {})
    }

    /// Appends and blocks until the batches are durable (as the setting says); one result a batch, in order.
    ///
    /// # Errors
    ///
    /// [`LogClosed`] after a failure or an orderly end.
    pub fn append(&self, batches: Vec<Batch>) -> Result<Vec<Result<Appended, AppendError>>, LogClosed> {
        self.submit(batches)?.wait()
    }

    /// Hands batches to the writer; blocks while its queue is full.
    ///
    /// # Errors
    ///
    /// [`LogClosed`] after a failure or an orderly end.
    pub fn submit(&self, _batches: Vec<Batch>) -> Result<Ticket, LogClosed> {
        Err(writer::ClosedReason::default().error())
    }

    /// A handle to read.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The end of the log as last committed.
    pub fn head(&self) -> Head {
        self.reader.head()
    }

    /// Writes what was submitted, syncs, and releases the directory.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the last sync failed or the log was closed by an earlier failure.
    pub fn close(self) -> Result<(), AppendError> {
        Ok(())
    }
}
