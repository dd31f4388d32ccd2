//! Opens connections to the SQLite file: the only place that does, so that every setting is set in an order that works.
//!
//! `page_size` and `auto_vacuum` come before the journal mode and the first table, where SQLite still listens; in a file
//! that already has others they take a `VACUUM` outside WAL.

use std::ffi::c_int;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::is_damage;
use super::options::{CheckpointStrategy, SqliteOptions, Synchronous};
use super::{GraphError, ReadError, schema, upgrade};

/// Largest memory map SQLite makes, in MiB.
const MMAP_MB_MAX: u32 = 2_047;

/// Opens the file for writing, and makes it when there is none.
pub(super) fn open_writer(path: &Path, options: &SqliteOptions) -> Result<Connection, GraphError> {
    check(options)?;
    check_length(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|source| failed("open", path, source))?;
    if is_ours(path, &connection)? {
        reshape(path, &connection, options)?;
    } else {
        create(&connection, options).map_err(|source| failed("create", path, source))?;
    }
    tune_writer(&mut connection, options).map_err(|source| failed("set up", path, source))?;
    Ok(connection)
}

/// Refuses a file that is shorter than its own header says. `SQLite` would find out at the first missing page, or never
/// as long as the journal beside the file holds the pages that are asked for.
fn check_length(path: &Path) -> Result<(), GraphError> {
    let io = |source| GraphError::Io { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(io)?,
    };
    let len = file.metadata().map_err(io)?.len();
    // The header of a database file: page size at 16 (1 means 65,536), size in pages at 28, both big-endian, and
    // the size counts when the change counter at 24 equals the one at 92 (sqlite.org/fileformat2.html, 1.3).
    let mut header = [0; 100];
    if len < header.len() as u64 {
        return Ok(());
    }
    file.read_exact(&mut header).map_err(io)?;
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    if header[24..28] == header[92..96] && len < pages * page_bytes {
        let reason = format!("it takes {len} bytes where its header says {}", pages * page_bytes);
        return Err(GraphError::Damaged { path: path.to_owned(), reason });
    }
    Ok(())
}

/// Opens the file for reading. Its writer must have opened it before.
pub(super) fn open_reader(path: &Path, options: &SqliteOptions) -> Result<Connection, GraphError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.pragma_update(None, "query_only", true)?;
        let share = options.cache_size_mb / 2 / u32::try_from(options.readers).unwrap_or(u32::MAX);
        tune(&connection, options, share.max(1))?;
        Ok(connection)
    };
    open().map_err(|source| failed("open for reading", path, source))
}

/// Opens the file to copy it whole: readers cannot, because they may write nothing anywhere.
pub(super) fn open_copier(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    Connection::open_with_flags(path, flags)
}

/// Sets how hard the writer waits for the disk.
pub(super) fn set_synchronous(connection: &Connection, synchronous: Synchronous) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", synchronous as i32)
}

/// Sets where pages go before the file.
pub(super) fn set_journal(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(()))
}

/// Does without a place before the file, if nobody else has it open; else everything stays as it was.
pub(super) fn leave_journal(connection: &Connection) -> rusqlite::Result<()> {
    match set_journal(connection, "OFF") {
        Err(error) if is_busy(&error) => Ok(()),
        other => other,
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Makes the tables; with `indexes` also those that only queries need.
pub(super) fn create_tables(
    connection: &Connection,
    indexes: bool,
    rebuilding: bool,
) -> rusqlite::Result<()> {
    connection.execute_batch(schema::TABLES)?;
    if indexes {
        connection.execute_batch(schema::INDEXES)?;
    }
    connection.execute(
        "INSERT INTO meta(one, version, checkpoint, next_id, rebuilding) VALUES (1, ?1, 0, 1, ?2)",
        (schema::VERSION, rebuilding),
    )?;
    Ok(())
}

/// SQLite's own words for damage, ours for the rest.
pub(super) fn failed(what: &'static str, path: &Path, source: rusqlite::Error) -> GraphError {
    if is_damage(&source) {
        GraphError::Damaged { path: path.to_owned(), reason: source.to_string() }
    } else {
        GraphError::Sqlite { what, path: path.to_owned(), source }
    }
}

fn check(options: &SqliteOptions) -> Result<(), GraphError> {
    let refuse = |key, value, remedy| Err(GraphError::Setting { key, value, remedy });
    let page_size = options.page_size;
    if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
        return refuse("page_size", page_size.into(), "a power of two from 512 to 65536");
    }
    if !(1..=65_536).contains(&options.cache_size_mb) {
        return refuse("cache_size_mb", options.cache_size_mb.into(), "1 to 65536");
    }
    if options.mmap_size_mb > MMAP_MB_MAX {
        return refuse("mmap_size_mb", options.mmap_size_mb.into(), "0 to 2047, the most SQLite maps");
    }
    if !(1..=64).contains(&options.readers) {
        return refuse("readers", options.readers as u64, "1 to 64");
    }
    if options.wal_checkpoint_interval > i32::MAX as u32 {
        return refuse(
            "wal_checkpoint_interval",
            options.wal_checkpoint_interval.into(),
            "at most 2147483647",
        );
    }
    Ok(())
}

/// Whether the file holds our tables; `false`: it is empty. Anything else is an error that says what it is.
fn is_ours(path: &Path, connection: &Connection) -> Result<bool, GraphError> {
    let read = |pragma: &str| {
        connection
            .query_row(pragma, (), |row| row.get::<_, i64>(0))
            .map_err(|source| failed("read the header of", path, source))
    };
    let tables = read("SELECT count(*) FROM sqlite_schema")?;
    let application = read("PRAGMA application_id")?;
    if application != i64::from(schema::APPLICATION_ID) {
        if tables == 0 && application == 0 {
            return Ok(false);
        }
        return Err(GraphError::Foreign { path: path.to_owned() });
    }
    let mut found = read("PRAGMA user_version")? as u32;
    if upgrade::UPGRADED.contains(&found) {
        upgrade::upgrade(connection).map_err(|source| failed("upgrade", path, source))?;
        found = schema::VERSION;
    }
    if found != schema::VERSION {
        return Err(GraphError::Version { path: path.to_owned(), found, expected: schema::VERSION });
    }
    connection.query_row("SELECT checkpoint FROM meta", (), |_| Ok(())).map_err(|source| {
        GraphError::Damaged {
            path: path.to_owned(),
            reason: format!("its checkpoint cannot be read ({source})"),
        }
    })?;
    Ok(true)
}

fn create(connection: &Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    connection.pragma_update(None, "page_size", options.page_size)?;
    connection.pragma_update(None, "auto_vacuum", options.auto_vacuum as i32)?;
    let transaction = connection.unchecked_transaction()?;
    connection.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", schema::VERSION)?;
    create_tables(connection, true, false)?;
    transaction.commit()
}

/// Gives an existing file the page size and the vacuum mode asked for, which means writing it anew.
fn reshape(path: &Path, connection: &Connection, options: &SqliteOptions) -> Result<(), GraphError> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
    let differs = || {
        rusqlite::Result::Ok(
            read("page_size")? != options.page_size || read("auto_vacuum")? != options.auto_vacuum as u32,
        )
    };
    let rewrite = || {
        set_journal(connection, "DELETE")?;
        connection.pragma_update(None, "page_size", options.page_size)?;
        connection.pragma_update(None, "auto_vacuum", options.auto_vacuum as i32)?;
        connection.execute_batch("VACUUM")
    };
    if differs().map_err(|source| failed("read the header of", path, source))? {
        rewrite().map_err(|source| failed("give another page size or vacuum mode to", path, source))?;
    }
    Ok(())
}

/// Sets all that the writer needs.
pub(super) fn tune_writer(connection: &mut Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    let journal = if options.wal_mode { "WAL" } else { "TRUNCATE" };
    set_journal(connection, journal)?;
    set_synchronous(connection, options.synchronous)?;
    checkpoint_after_commits(connection, options)?;
    let journal_bytes = options.journal_size_limit_mb.map_or(-1, |mb| i64::from(mb) << 20);
    connection.pragma_update_and_check(None, "journal_size_limit", journal_bytes, |_| Ok(()))?;
    tune(connection, options, options.cache_size_mb)
}

/// Has a commit that leaves so many pages in the journal move them into the file, as hard as the options say. SQLite does that by
/// itself where nobody is to be waited for.
fn checkpoint_after_commits(connection: &mut Connection, options: &SqliteOptions) -> rusqlite::Result<()> {
    let interval = options.wal_checkpoint_interval;
    let mode = match options.wal_checkpoint_strategy {
        CheckpointStrategy::Passive => {
            return connection.pragma_update_and_check(None, "wal_autocheckpoint", interval, |_| Ok(()));
        }
        CheckpointStrategy::Full => CheckpointMode::FULL,
        CheckpointStrategy::Restart => CheckpointMode::RESTART,
    };
    let interval = c_int::try_from(interval).unwrap_or(c_int::MAX);
    let mut tries = Tries { interval, tried_at: 0 };
    // SQLite calls this when the commit is done and its lock is given back.
    let after_commit = move |wal: &mut Wal, pages: c_int| -> rusqlite::Result<()> {
        if tries.are_due(pages) {
            // Whatever kept the checkpoint from its end, the commit is done: an error here would deny that.
            let _ = wal.checkpoint_v2(mode);
        }
        Ok(())
    };
    connection.wal_hook(Some(after_commit))
}

/// When commits try to move the pages of the journal into the file.
struct Tries {
    /// Pages of the journal from one to the next.
    interval: c_int,
    /// Pages of the journal at the last one.
    tried_at: c_int,
}

impl Tries {
    /// Whether a commit that leaves so many pages tries. The next one comes as many pages later as the first, whatever becomes of
    /// this: the journal begins anew only when nobody reads in it, and at each commit readers would hold every write up.
    const fn are_due(&mut self, pages: c_int) -> bool {
        // Every commit adds some, so that it was begun anew where there are no more than before.
        let last = if pages <= self.tried_at { 0 } else { self.tried_at };
        let due = pages >= self.interval.saturating_add(last);
        self.tried_at = if due { pages } else { last };
        due
    }
}

fn tune(connection: &Connection, options: &SqliteOptions, cache_mb: u32) -> rusqlite::Result<()> {
    connection.busy_timeout(options.busy_timeout)?;
    // Plans that do not depend on the values bound: with statistics, SQLite would else prepare a statement again for each
    // new value, which takes ten times as long as the read itself.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "cache_size", -(i64::from(cache_mb) << 10))?;
    let map_bytes = i64::from(options.mmap_size_mb) << 20;
    connection.pragma_update_and_check(None, "mmap_size", map_bytes, |_| Ok(()))?;
    connection.pragma_update(None, "temp_store", options.temp_store as i32)?;
    connection.set_prepared_statement_cache_capacity(options.statement_cache.max(1));
    Ok(())
}

/// Names what a query asked for when SQLite fails.
pub(super) fn unread(what: &'static str) -> impl FnOnce(rusqlite::Error) -> ReadError {
    move |source| ReadError::Sqlite { what, source }
}

#[cfg(test)]
mod tests {
    use super::Tries;

    #[test]
    fn a_journal_that_cannot_begin_anew_is_moved_into_the_file_every_so_many_pages() {
        let mut tries = Tries { interval: 10, tried_at: 0 };
        let due: Vec<_> = [4, 9, 12, 13, 21, 22, 23, 31, 32, 3, 9, 10, 11, 10, 11]
            .into_iter()
            .filter(|pages| tries.are_due(*pages))
            .collect();
        assert_eq!(due, [12, 22, 32, 10, 10]);
    }
}
