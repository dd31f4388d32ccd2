//! The tables of the log in redb, and what can go wrong with them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{ReadOnlyTable, ReadableDatabase, TableDefinition};

/// First seq of a block → its header.
pub(crate) const HEADERS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("headers");
/// First seq of a block → its body.
pub(crate) const BODIES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("bodies");
/// Idempotency key → where its batch went.
pub(crate) const KEYS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("keys");
/// What is known about the log as a whole.
pub(crate) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

/// What the medium or the store said.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("the medium failed")]
    Io(#[source] io::Error),
    /// The file's own structure is broken.
    #[error("the store is damaged: {0}; restore events.redb from a backup")]
    Damaged(String),
    /// The store refused.
    #[error("the store refused")]
    Refused(#[source] Box<redb::Error>),
    /// The log was closed while a reader was still in use.
    #[error("the log is closed")]
    Closed,
}

impl From<redb::Error> for StoreError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "redb's list is open, and what is not named here is passed on"
    )]
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(source) => Self::Io(source),
            redb::Error::Corrupted(what) => Self::Damaged(what),
            redb::Error::DatabaseClosed => Self::Closed,
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier write failed")),
            redb::Error::TableDoesNotExist(table) => Self::Damaged(format!("it has no table {table:?}")),
            redb::Error::TableTypeMismatch { table, .. } => {
                Self::Damaged(format!("its table {table:?} is not the log's"))
            }
            other => Self::Refused(Box::new(other)),
        }
    }
}

macro_rules! from_redb {
    ($($error:ident)*) => {
        $(impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}

from_redb! { CommitError DatabaseError SetDurabilityError StorageError TableError TransactionError }

/// Runs what reads the store, and reports it as damaged where it panics.
///
/// redb trusts the pages it wrote and may panic on one that changed since; checking them all would mean reading the
/// whole file at each start.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a page has no sense");
        Err(StoreError::Damaged(what.to_owned()))
    })
}

/// The database, as it was opened.
pub(crate) enum Database {
    Writable(redb::Database),
    ReadOnly(redb::ReadOnlyDatabase),
}

/// The tables of a log as of one commit.
pub(crate) struct Snapshot {
    pub headers: ReadOnlyTable<u64, &'static [u8]>,
    pub bodies: ReadOnlyTable<u64, &'static [u8]>,
    pub keys: ReadOnlyTable<&'static str, &'static [u8]>,
}

impl Database {
    /// The tables as last committed.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        guarded(|| {
            let transaction = match self {
                Self::Writable(database) => database.begin_read()?,
                Self::ReadOnly(database) => database.begin_read()?,
            };
            Ok(Snapshot {
                headers: transaction.open_table(HEADERS)?,
                bodies: transaction.open_table(BODIES)?,
                keys: transaction.open_table(KEYS)?,
            })
        })
    }

    /// A row of [`META`].
    pub(crate) fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| {
            let transaction = match self {
                Self::Writable(database) => database.begin_read()?,
                Self::ReadOnly(database) => database.begin_read()?,
            };
            let row = transaction.open_table(META)?.get_owned(name)?;
            Ok(row.map(|row| row.value().to_vec()))
        })
    }
}
