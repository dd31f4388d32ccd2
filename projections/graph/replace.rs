//! Another file in the place of the one in use, while queries go on: they see the one or the other.

use std::path::Path;
use std::sync::Arc;

use caxton_events::Seq;
use rusqlite::{Connection, OpenFlags};

use super::pool::Pool;
use super::writer::{FILE_NAME, Graph, REBUILDING_MARK};
use super::{GraphError, GraphReader, SqliteOptions};
use crate::projection::{ApplyError, Stored};

impl GraphReader {
    /// A reader of a graph that is still to be made in `dir`: queries are told `reason` until
    /// [`Graph::lend_to`] gives it one.
    pub fn awaiting(dir: &Path, options: &SqliteOptions, reason: &str) -> Self {
        Self::new(Arc::new(Pool::refused(dir.join(FILE_NAME), options, reason)))
    }

    /// Closes every connection so that the file can be replaced; queries wait for the new one, at most as long as for a
    /// free connection. `false` when a query took longer than that: then nothing changed.
    pub fn suspend(&self) -> bool {
        self.pool().suspend()
    }

    /// Tells queries `reason` from now on.
    pub fn refuse(&self, reason: &str) {
        self.pool().refuse(reason);
    }
}

impl Graph {
    /// Answers the queries of `reader` from now on, which has the same path and no open connection.
    pub fn lend_to(&mut self, reader: &GraphReader) {
        reader.pool().resume(self.pool());
        self.set_pool(Arc::clone(reader.pool()));
    }

    /// Moves the journal into the file and closes both; nobody may read the graph any more.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when SQLite failed.
    pub fn close(self) -> Result<(), ApplyError> {
        let after = crate::projection::Projection::checkpoint(&self);
        let (pool, connection) = self.into_parts();
        drop(pool);
        let closed = connection
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .and_then(|()| connection.close().map_err(|(_, error)| error));
        closed.map_err(|source| ApplyError::Store { after, source: Box::new(source) })
    }
}

/// What the file in `dir` says about itself; `None` where there is none, or one whose rebuild was not finished.
///
/// # Errors
///
/// [`GraphError`]: mostly that it is damaged, or no file of Caxton's.
pub fn stored(dir: &Path) -> Result<Option<Stored>, GraphError> {
    let path = dir.join(FILE_NAME);
    if !path.exists() || dir.join(REBUILDING_MARK).exists() {
        return Ok(None);
    }
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let checkpoint: i64 = connection.query_row("SELECT checkpoint FROM meta", (), |row| row.get(0))?;
        rusqlite::Result::Ok(Stored { version, checkpoint: Seq(checkpoint as u64) })
    };
    read().map(Some).map_err(|source| super::connection::failed("read", &path, source))
}
