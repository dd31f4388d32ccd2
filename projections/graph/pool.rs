//! Read-only connections, lent one to a query, and the words of the rows they read.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::connection::open_reader;
use super::{GraphError, ReadError, SqliteOptions};
use crate::text::index::TextIndex;

/// A fixed number of connections. The last one given back is lent first: its statements and pages are warm.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    returned: Condvar,
    readers: usize,
    wait: Duration,
    path: PathBuf,
    texts: TextIndex,
}

#[derive(Debug)]
struct State {
    idle: Vec<Connection>,
    lent: usize,
    mode: Mode,
}

/// Whether queries get a connection.
#[derive(Debug, Clone)]
enum Mode {
    Open,
    /// The file is about to be replaced: queries wait for the new one, and what comes back is closed.
    Suspended,
    /// There is no file to read: queries are told so.
    Refused(Arc<str>),
}

impl Pool {
    pub(super) fn open(path: PathBuf, options: &SqliteOptions) -> Result<Self, GraphError> {
        let idle = open_readers(&path, options)?;
        Ok(Self::with(path, options, idle, Mode::Open))
    }

    /// A pool without a connection, whose queries are told `reason`, until it is given some.
    pub(super) fn refused(path: PathBuf, options: &SqliteOptions, reason: &str) -> Self {
        Self::with(path, options, Vec::new(), Mode::Refused(Arc::from(reason)))
    }

    fn with(path: PathBuf, options: &SqliteOptions, idle: Vec<Connection>, mode: Mode) -> Self {
        let (readers, wait) = (options.readers, options.reader_wait);
        let state = Mutex::new(State { idle, lent: 0, mode });
        Self { state, returned: Condvar::new(), readers, wait, path, texts: TextIndex::default() }
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The words of the file's rows.
    pub(super) const fn texts(&self) -> &TextIndex {
        &self.texts
    }

    /// Lends a connection; waits for one up to the limit.
    pub(super) fn borrow(&self) -> Result<Borrowed<'_>, ReadError> {
        let waits = |state: &mut State| match state.mode {
            Mode::Open => state.idle.is_empty(),
            Mode::Suspended => true,
            Mode::Refused(_) => false,
        };
        let waited = self.returned.wait_timeout_while(self.state(), self.wait, waits);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Mode::Refused(reason) = &state.mode {
            return Err(ReadError::Rebuilding { reason: Arc::clone(reason) });
        }
        let exhausted = || ReadError::Exhausted { readers: self.readers, waited: self.wait };
        let connection = state.idle.pop().ok_or_else(exhausted)?;
        state.lent += 1;
        Ok(Borrowed { connection: Some(connection), pool: self })
    }

    /// Closes every connection and waits for those that are lent, at most half as long as a query waits; queries that come
    /// meanwhile wait too. Whether all are closed; if not, the pool is as it was.
    pub(super) fn suspend(&self) -> bool {
        let mut state = self.state();
        state.mode = Mode::Suspended;
        // Half of it, so that the queries that wait meanwhile get their answer in time.
        let waited = self.returned.wait_timeout_while(state, self.wait / 2, |state| state.lent > 0);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && state.lent > 0 {
            state.mode = Mode::Open;
            drop(state);
            self.returned.notify_all();
            return false;
        }
        state.idle.clear();
        true
    }

    /// Lends fresh connections from now on.
    pub(super) fn reopen(&self, options: &SqliteOptions) -> Result<(), GraphError> {
        let connections = open_readers(&self.path, options)?;
        self.lend(connections);
        Ok(())
    }

    /// Takes the connections of `other`, which must be to a file with this path, and lends them from now on.
    pub(super) fn resume(&self, other: &Self) {
        let connections = std::mem::take(&mut other.state().idle);
        self.texts.unload();
        self.lend(connections);
    }

    fn lend(&self, connections: Vec<Connection>) {
        let mut state = self.state();
        state.idle = connections;
        state.mode = Mode::Open;
        drop(state);
        self.returned.notify_all();
    }

    /// Tells queries `reason` from now on.
    pub(super) fn refuse(&self, reason: &str) {
        let mut state = self.state();
        state.idle.clear();
        state.mode = Mode::Refused(Arc::from(reason));
        drop(state);
        self.returned.notify_all();
    }

    /// A panic in another thread cannot leave the list half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_readers(path: &Path, options: &SqliteOptions) -> Result<Vec<Connection>, GraphError> {
    (0..options.readers).map(|_| open_reader(path, options)).collect()
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
        let connection = self.connection.take();
        let mut state = self.pool.state();
        state.lent = state.lent.saturating_sub(1);
        match state.mode {
            Mode::Open => state.idle.extend(connection),
            // Closed before it is said that nothing is lent.
            Mode::Suspended | Mode::Refused(_) => drop(connection),
        }
        let suspended = matches!(state.mode, Mode::Suspended);
        drop(state);
        if suspended {
            self.pool.returned.notify_all();
        } else {
            self.pool.returned.notify_one();
        }
    }
}
