//! The tables of the log in redb, and what can go wrong with them.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use redb::{ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use crate::id::Seq;
use crate::log::header::Header;
use crate::log::journal::{Journal, Logged, Sealed};
use crate::log::leaves::{Bodies, Gathered};
use crate::log::past::{Past, Tables};
use crate::log::quiet;
use crate::log::wal::{Recent, WalBlock};

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
/// whole file at each start. What it says then is for those who know it.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    quiet::caught(read).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let said = said.map_or_else(String::new, |said| format!(" [{said}]"));
        Err(StoreError::Damaged(format!("a page of its file makes no sense{said}")))
    })
}

/// A database whose commits last once they are flushed.
pub(crate) struct Writable {
    pub database: redb::Database,
    pub journal: Arc<Journal>,
    /// What is committed to the write-ahead log and not to the database.
    recent: Mutex<Recent>,
}

impl Writable {
    pub(crate) fn new(database: redb::Database, journal: Arc<Journal>) -> Self {
        Self { database, journal, recent: Mutex::default() }
    }

    /// Commits a block to the write-ahead log, at `position`; what makes it last once persisted.
    pub(crate) fn log(&self, block: WalBlock, position: u64) -> Result<Logged, StoreError> {
        let block = Arc::new(block);
        let logged = self.journal.log(Arc::clone(&block), position).map_err(StoreError::Io)?;
        Arc::make_mut(&mut self.recent.lock().unwrap_or_else(PoisonError::into_inner)).push(block);
        Ok(logged)
    }

    /// Forgets the blocks of the write-ahead log: the database has their events.
    pub(crate) fn clear_recent(&self) {
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
    }

    /// Runs `fill` in a transaction of its own and commits it; if `durable`, with what makes it last once persisted.
    pub(crate) fn write<T>(
        &self,
        durable: bool,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<(T, Option<Sealed>), StoreError> {
        guarded(|| {
            let mut transaction = self.database.begin_write()?;
            let durability = if durable { redb::Durability::Immediate } else { redb::Durability::None };
            transaction.set_durability(durability)?;
            // Without it, opening after a crash reads the whole file.
            transaction.set_quick_repair(true);
            let filled = fill(&transaction)?;
            transaction.commit()?;
            let sealed = if durable { self.journal.seal().map_err(StoreError::Io)? } else { None };
            Ok((filled, sealed))
        })
    }
}

/// A database that is only read.
pub(crate) struct ReadOnly {
    database: Box<dyn ReadableDatabase + Send + Sync>,
    /// Bodies that lie elsewhere than in the database's table.
    bodies: Option<Arc<Bodies>>,
    /// Blocks of a damaged log's write-ahead log, all behind those of the database that can be read.
    recent: OnceLock<Recent>,
    /// Bytes that are missing at the end of the file.
    missing_bytes: u64,
    /// Whether the structure of the file is damaged.
    structure_damaged: bool,
    /// What looks like records of the write-ahead log that could not be read.
    unread_records: u64,
}

impl ReadOnly {
    pub(crate) fn new(database: redb::ReadOnlyDatabase, journal: &Journal) -> Self {
        Self::of(Box::new(database), None, journal)
    }

    /// Serves what was found without the database's trees.
    pub(crate) fn gathered(found: Gathered, journal: &Journal) -> Self {
        let Gathered { database, bodies, unread_records } = found;
        Self { unread_records, ..Self::of(Box::new(database), Some(Arc::new(bodies)), journal) }
    }

    fn of(
        database: Box<dyn ReadableDatabase + Send + Sync>,
        bodies: Option<Arc<Bodies>>,
        journal: &Journal,
    ) -> Self {
        let (missing_bytes, structure_damaged) =
            (journal.missing_bytes(), bodies.is_some() || journal.is_damaged());
        let (recent, unread_records) = (OnceLock::new(), 0);
        Self { database, bodies, recent, missing_bytes, structure_damaged, unread_records }
    }

    /// Lets readers see blocks that the write-ahead log was found to hold behind the tables, in their order; once.
    pub(crate) fn show(&self, blocks: Vec<Arc<WalBlock>>) {
        let _ = self.recent.set(Arc::new(blocks));
    }
}

fn last_seq(headers: &ReadOnlyTable<u64, &'static [u8]>) -> Result<Seq, StoreError> {
    let Some((first, header)) = headers.last()? else {
        return Ok(Seq::ZERO);
    };
    let first = Seq(first.value());
    let damaged = |what| StoreError::Damaged(format!("the block at {first}: {what}"));
    Header::decode(first, header.value()).map(|header| header.last()).map_err(damaged)
}

/// A log's own file, as it was opened, and what lies before it.
pub(crate) struct Database {
    pub own: Own,
    pub past: Arc<Past>,
}

/// A log's own file, as it was opened.
pub(crate) enum Own {
    Writable(Writable),
    ReadOnly(ReadOnly),
}

/// The log as of one commit.
pub(crate) struct Snapshot {
    /// What lies beyond is committed but may not be on the medium yet, even if it lies in the same block.
    pub through: Seq,
    /// The tables of its own file.
    pub own: Tables,
    /// What lies before that.
    pub past: Arc<Past>,
    #[expect(dead_code, reason = "held, so that whoever replaces the database knows that somebody reads")]
    pub token: Arc<()>,
    /// Blocks of the write-ahead log.
    pub recent: Recent,
    /// The first of them that is not in these tables.
    pub recent_from: usize,
    /// Where the bodies of its own file are, if not in its tables.
    pub bodies: Option<Arc<Bodies>>,
}

impl Own {
    fn begin_read(&self) -> Result<redb::ReadTransaction, redb::TransactionError> {
        match self {
            Self::Writable(Writable { database, .. }) => database.begin_read(),
            Self::ReadOnly(ReadOnly { database, .. }) => database.begin_read(),
        }
    }

    /// A row of [`META`].
    pub(crate) fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        guarded(|| {
            let transaction = self.begin_read()?;
            let row = transaction.open_table(META)?.get_owned(name)?;
            Ok(row.map(|row| row.value().to_vec()))
        })
    }
}

impl Database {
    /// The log as last committed, up to `through`.
    pub(crate) fn snapshot(&self, through: Seq) -> Result<Snapshot, StoreError> {
        // Taken before the tables: what has gone from here into the database since is in them.
        let recent = match &self.own {
            Own::Writable(Writable { recent, .. }) => {
                Arc::clone(&recent.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Own::ReadOnly(ReadOnly { recent, .. }) => recent.get().cloned().unwrap_or_default(),
        };
        guarded(|| {
            let own = Tables::open(&self.own.begin_read()?)?;
            let recent_from = match &self.own {
                Own::Writable(_) if !recent.is_empty() => {
                    let stored = last_seq(&own.headers)?;
                    recent.partition_point(|block| block.first <= stored)
                }
                Own::Writable(_) | Own::ReadOnly(_) => 0,
            };
            let (past, token) = (Arc::clone(&self.past), Arc::default());
            let bodies = match &self.own {
                Own::ReadOnly(ReadOnly { bodies, .. }) => bodies.clone(),
                Own::Writable(_) => None,
            };
            Ok(Snapshot { through, own, past, token, recent, recent_from, bodies })
        })
    }

    /// Bytes that are missing at the end of the log's own file.
    pub(crate) fn missing_bytes(&self) -> u64 {
        match &self.own {
            Own::Writable(_) => 0,
            Own::ReadOnly(ReadOnly { missing_bytes, .. }) => *missing_bytes,
        }
    }

    /// Whether the structure of the log's own file is damaged.
    pub(crate) fn structure_damaged(&self) -> bool {
        matches!(&self.own, Own::ReadOnly(ReadOnly { structure_damaged: true, .. }))
    }

    /// What looks like records of the write-ahead log of the log's own file that could not be read.
    pub(crate) fn unread_records(&self) -> u64 {
        match &self.own {
            Own::Writable(_) => 0,
            Own::ReadOnly(ReadOnly { unread_records, .. }) => *unread_records,
        }
    }

    /// Position of the last event that the log's own file has in its tables.
    pub(crate) fn stored_seq(&self) -> Result<Seq, StoreError> {
        guarded(|| last_seq(&self.own.begin_read()?.open_table(HEADERS)?))
    }
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_is_told_as_damage_with_its_words_in_brackets() {
        let told = guarded::<()>(|| panic!("internal error: entered unreachable code"));
        let then = "the store is damaged: a page of its file makes no sense [internal error: entered unreachable code]; \
                    restore events.redb from a backup";
        assert_eq!(told.map_err(|error| error.to_string()), Err(then.to_owned()));
    }
}
