//! What can go wrong with the SQLite file: when it is opened, when it is read, when it is kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Why the graph was not opened. For [`GraphError::Damaged`], [`GraphError::Foreign`] and [`GraphError::Version`] the
/// remedy is the same: set the file aside and rebuild from the log.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// A setting is out of its bounds.
    #[error("{key} is {value}; use {remedy}")]
    Setting {
        /// The setting, as in `sqlite_config`.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What would do.
        remedy: &'static str,
    },
    /// The directory could not be made or read.
    #[error("could not use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is cut, overwritten or no SQLite file.
    #[error("{} is damaged: {reason}; set it aside and rebuild it from the log", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The file is SQLite's but not Caxton's.
    #[error("{} is a SQLite file of another program; set it aside and rebuild it from the log", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another version of this projection.
    #[error("{} has version {found}, this program writes {expected}; rebuild it from the log", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The version of this program.
        expected: u32,
    },
    /// SQLite failed in another way.
    #[error("could not {what} {}", path.display())]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

impl GraphError {
    /// Whether setting the file aside and rebuilding it from the log is the remedy.
    pub const fn is_rebuildable(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Foreign { .. } | Self::Version { .. })
    }
}

/// Why a query was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Every read connection was busy for as long as a query may wait. Ask again, or allow more readers.
    #[error(
        "all {readers} read connections were busy for {waited:?}; try again or raise the number of readers"
    )]
    Exhausted {
        /// How many there are.
        readers: usize,
        /// How long the query waited.
        waited: Duration,
    },
    /// There is no graph to read yet: it is being rebuilt from the log. Ask again later.
    #[error("the graph is being rebuilt from the log: {reason}")]
    Rebuilding {
        /// Why it is.
        reason: Arc<str>,
    },
    /// SQLite failed.
    #[error("could not read {what}")]
    Sqlite {
        /// What was asked for.
        what: &'static str,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The words were unloaded each time before the query could ask them, as erasures do. Ask again.
    #[error("the words of the memory were unloaded {rounds} times before they could be asked; try again")]
    Forgotten {
        /// How often.
        rounds: usize,
    },
    /// The query asks for more than its bound.
    #[error("{field} is {value}, the limit is {max}")]
    TooLarge {
        /// Which part of the query.
        field: &'static str,
        /// Its value.
        value: usize,
        /// Its bound.
        max: usize,
    },
}

impl ReadError {
    /// Whether the file is damaged, so that the remedy is to set it aside and rebuild it from the log.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Sqlite { source, .. } if is_damage(source))
    }
}

/// Whether SQLite says that the file is not what it wrote.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// Whether a failure, or what caused it, is that the medium has no room left: a full disk, a quota, or a limit on the size
/// of files.
pub fn is_out_of_room(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), StorageFull | QuotaExceeded | FileTooLarge)
        {
            return true;
        }
        if let Some(rusqlite::Error::SqliteFailure(failure, _)) = error.downcast_ref::<rusqlite::Error>()
            && (failure.code == rusqlite::ErrorCode::DiskFull
                || failure.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE)
        {
            return true;
        }
        next = error.source();
    }
    false
}
