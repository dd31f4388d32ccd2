//! Read-only connections, lent one to a query.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::connection::open_reader;
use super::{GraphError, ReadError, SqliteOptions};

/// A fixed number of connections. The last one given back is lent first: its statements and pages are warm.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
    readers: usize,
    wait: Duration,
    path: PathBuf,
}

impl Pool {
    pub(super) fn open(path: PathBuf, options: &SqliteOptions) -> Result<Self, GraphError> {
        let idle =
            (0..options.readers).map(|_| open_reader(&path, options)).collect::<Result<Vec<_>, _>>()?;
        let (readers, wait) = (options.readers, options.reader_wait);
        Ok(Self { idle: Mutex::new(idle), returned: Condvar::new(), readers, wait, path })
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Lends a connection; waits for one up to the limit.
    pub(super) fn borrow(&self) -> Result<Borrowed<'_>, ReadError> {
        let exhausted = || ReadError::Exhausted { readers: self.readers, waited: self.wait };
        let (mut idle, _) = self
            .returned
            .wait_timeout_while(self.idle(), self.wait, |idle| idle.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let connection = idle.pop().ok_or_else(exhausted)?;
        Ok(Borrowed { connection: Some(connection), pool: self })
    }

    /// A panic in another thread cannot leave the list half changed.
    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection on loan; given back when dropped.
#[derive(Debug)]
pub(super) struct Borrowed<'a> {
    connection: Option<Connection>,
    pool: &'a Pool,
}

impl Deref for Borrowed<'_> {
    type Target = Connection;

    #[expect(clippy::expect_used, reason = "the connection leaves only in drop")]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("a loan holds its connection until it is dropped")
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.idle().push(connection);
            self.pool.returned.notify_one();
        }
    }
}
