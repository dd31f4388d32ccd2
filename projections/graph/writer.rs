//! The writing side: the one connection that folds records in, and keeps the file in shape.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_events::{Family, Kind, Record, Seq};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::connection::{create_tables, failed, leave_journal, open_writer, set_synchronous, tune_writer};
use super::erase::scrub;
use super::error::is_damage;
use super::fold::{Fold, FoldError, Memo};
use super::options::{CheckpointStrategy, Synchronous, VacuumStrategy};
use super::pool::Pool;
use super::{GraphError, GraphReader, SqliteOptions, schema};
use crate::projection::{ApplyError, Projection, WordCounts};
use crate::text::batch::{Counts, TextBatch};

/// Name of the file in the data directory that says that the graph was found damaged and must be rebuilt.
pub const DAMAGED_MARK: &str = "graph.damaged-mark";
/// Name of the file in the directory.
pub const FILE_NAME: &str = "graph.db";
/// Name of the file beside it that says that its contents are worth nothing, because a rebuild was begun.
pub(super) const REBUILDING_MARK: &str = "rebuilding-mark";

/// The graph projection: entities, observations, relations and their words.
///
/// A batch of records and the checkpoint change in one transaction, behind which the index of words follows. Readers
/// ([`Graph::reader`]) see the state before or after a batch, and never hold it up.
#[derive(Debug)]
pub struct Graph {
    // Dropped in this order: the last connection to close moves the journal into the file, which a reader cannot.
    pool: Arc<Pool>,
    connection: Connection,
    options: SqliteOptions,
    checkpoint: Seq,
    memo: Memo,
    /// Whether the log has erased events, so that records may speak of rows that were never folded.
    gaps: bool,
    /// Of the batch that is folded next, if somebody counted them.
    words: Option<WordCounts>,
}

impl Graph {
    /// Opens the graph in `dir`, and makes both when they do not exist. A rebuild that was not finished starts from
    /// nothing again.
    ///
    /// # Errors
    ///
    /// [`GraphError`]; the file is as it was.
    pub fn open(dir: &Path, options: &SqliteOptions) -> Result<Self, GraphError> {
        std::fs::create_dir_all(dir).map_err(|source| GraphError::Io { path: dir.to_owned(), source })?;
        let path = dir.join(FILE_NAME);
        clear_unfinished(dir)?;
        let connection = open_writer(&path, options)?;
        let unfinished = connection
            .query_row("SELECT rebuilding FROM meta", (), |row| row.get(0))
            .map_err(|source| failed("read", &path, source))?;
        if unfinished {
            recreate(&connection, Indexes::All).map_err(|source| failed("clear", &path, source))?;
        }
        let checkpoint = connection
            .query_row("SELECT checkpoint FROM meta", (), |row| row.get::<_, i64>(0))
            .map_err(|source| failed("read", &path, source))?;
        let pool = Arc::new(Pool::open(path, options)?);
        let checkpoint = Seq(checkpoint as u64);
        Ok(Self {
            pool,
            connection,
            options: options.clone(),
            checkpoint,
            memo: Memo::default(),
            gaps: false,
            words: None,
        })
    }

    /// A handle for queries; cheap to clone.
    pub fn reader(&self) -> GraphReader {
        GraphReader::new(Arc::clone(&self.pool))
    }

    pub(super) const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn set_pool(&mut self, pool: Arc<Pool>) {
        self.pool = pool;
    }

    pub(super) fn into_parts(self) -> (Arc<Pool>, Connection) {
        (self.pool, self.connection)
    }

    /// Where the file is.
    pub fn path(&self) -> &PathBuf {
        self.pool.path()
    }

    /// Forgets everything and prepares for a fold of the whole log: no waiting for the disk, no journal, indexes last.
    /// Queries see the rows that are there, slowly, and not while a batch is written. What a crash leaves is cleared when
    /// the graph is next opened.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when the file could not be cleared.
    pub fn begin_rebuild(&mut self) -> Result<(), ApplyError> {
        self.memo = Memo::default();
        // The mark must be on disk before the file is not to be trusted any more.
        let mark = self.rebuilding_mark();
        let marked =
            std::fs::File::create(&mark).and_then(|file| file.sync_all()).and_then(|()| sync_folder(&mark));
        marked.map_err(|source| self.unstored(source))?;
        let alone = self.pool.suspend();
        let begin = |connection: &Connection| {
            recreate(connection, Indexes::Last)?;
            set_synchronous(connection, Synchronous::Off)?;
            // Nothing is to be rolled back, and every page is written once instead of twice. Others that have the file open
            // keep SQLite from it, and everything goes on with a journal.
            if alone { leave_journal(connection) } else { Ok(()) }
        };
        let begun = begin(&self.connection);
        self.reopen_pool(alone)?;
        begun.map_err(|source| self.failed(source))?;
        self.checkpoint = Seq::ZERO;
        self.pool.texts().unload();
        Ok(())
    }

    /// Makes the indexes and waits for the disk: from here on the file survives a power cut as the settings say.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when that failed; the rebuild is then to be begun again.
    pub fn finish_rebuild(&mut self) -> Result<(), ApplyError> {
        let finish = |connection: &Connection| {
            let transaction = connection.unchecked_transaction()?;
            connection.execute_batch(schema::INDEXES)?;
            transaction.commit()?;
            connection.execute_batch("PRAGMA analysis_limit = 1000; ANALYZE")?;
            connection.execute("UPDATE meta SET rebuilding = 0", ())?;
            set_synchronous(connection, Synchronous::Full)?;
            connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        };
        finish(&self.connection).map_err(|source| self.failed(source))?;
        // A reader of an older state can keep SQLite from syncing the file; the mark must not go before that.
        let synced = std::fs::File::open(self.path()).and_then(|file| file.sync_all());
        synced.map_err(|source| self.unstored(source))?;
        // Only alone can SQLite take a journal again; it says so if it is not.
        let alone = self.pool.suspend();
        let tuned = tune_writer(&mut self.connection, &self.options);
        self.reopen_pool(alone)?;
        tuned.map_err(|source| self.failed(source))?;
        let mark = self.rebuilding_mark();
        std::fs::remove_file(&mark).and_then(|()| sync_folder(&mark)).map_err(|source| self.unstored(source))
    }

    /// Lends connections again, if they were closed.
    fn reopen_pool(&self, closed: bool) -> Result<(), ApplyError> {
        let reopened = if closed { self.pool.reopen(&self.options) } else { Ok(()) };
        reopened.map_err(|source| ApplyError::Store { after: self.checkpoint, source: Box::new(source) })
    }

    fn rebuilding_mark(&self) -> PathBuf {
        self.path().with_file_name(REBUILDING_MARK)
    }

    fn unstored(&self, source: std::io::Error) -> ApplyError {
        ApplyError::Store { after: self.checkpoint, source: Box::new(source) }
    }

    /// Refreshes what SQLite knows about its indexes; milliseconds, because it looks at a sample.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when SQLite failed.
    pub fn analyze(&mut self) -> Result<(), ApplyError> {
        self.batch("PRAGMA analysis_limit = 1000; ANALYZE; PRAGMA optimize")
    }

    /// Moves the journal into the file, as hard as [`SqliteOptions::wal_checkpoint_strategy`] says.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when SQLite failed.
    pub fn checkpoint_wal(&mut self) -> Result<(), ApplyError> {
        self.batch(match self.options.wal_checkpoint_strategy {
            CheckpointStrategy::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            CheckpointStrategy::Full => "PRAGMA wal_checkpoint(FULL)",
            CheckpointStrategy::Restart => "PRAGMA wal_checkpoint(RESTART)",
        })
    }

    /// Gives free pages back to the file system, as [`SqliteOptions::vacuum_strategy`] says; `pages` bounds an
    /// incremental step.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when SQLite failed.
    pub fn vacuum(&mut self, pages: u32) -> Result<(), ApplyError> {
        let whole = match self.options.vacuum_strategy {
            VacuumStrategy::Incremental => false,
            VacuumStrategy::Full => true,
            VacuumStrategy::Auto => self.free_share().map_err(|source| self.failed(source))? > 0.25,
        };
        if whole { self.batch("VACUUM") } else { self.incremental_vacuum(pages) }
    }

    /// Gives up to `pages` free pages back; finds some only under
    /// [`AutoVacuum::Incremental`](super::AutoVacuum::Incremental).
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when SQLite failed.
    pub fn incremental_vacuum(&mut self, pages: u32) -> Result<(), ApplyError> {
        // Each step of the statement frees one page.
        let free = || {
            let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
            let mut steps = statement.query(())?;
            while steps.next()?.is_some() {}
            Ok(())
        };
        free().map_err(|source| self.failed(source))
    }

    /// Leaves nothing of what was deleted in the file or in its journal: the file is written anew.
    /// `false`: readers of an older state kept the journal from being emptied; try again.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when SQLite failed.
    pub fn scrub(&mut self) -> Result<bool, ApplyError> {
        scrub(&self.connection).map_err(|source| self.failed(source))
    }

    /// Reads the whole file and says what is wrong with it; empty when nothing is. Takes seconds on large files.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when SQLite failed.
    pub fn check(&self) -> Result<Vec<String>, ApplyError> {
        let check = || {
            let mut statement = self.connection.prepare("PRAGMA integrity_check(100)")?;
            let found = statement.query_map((), |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
            Ok(found.into_iter().filter(|line| line != "ok").collect())
        };
        match check() {
            Err(source) if is_damage(&source) => Ok(vec![source.to_string()]),
            other => other.map_err(|source| self.failed(source)),
        }
    }

    /// The value of a setting as SQLite has it, for diagnosis: `pragma` is a name such as `cache_size`.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when there is no such setting.
    pub fn setting(&self, pragma: &str) -> Result<String, ApplyError> {
        self.connection
            .pragma_query_value(None, pragma, |row| match row.get_ref(0)? {
                ValueRef::Integer(number) => Ok(number.to_string()),
                ValueRef::Text(text) => Ok(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => Ok(String::new()),
            })
            .map_err(|source| self.failed(source))
    }

    fn free_share(&self) -> rusqlite::Result<f64> {
        let read = |pragma| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, f64>(0));
        Ok(read("freelist_count")? / read("page_count")?.max(1.0))
    }

    fn batch(&self, sql: &str) -> Result<(), ApplyError> {
        self.connection.execute_batch(sql).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rusqlite::Error) -> ApplyError {
        ApplyError::Store { after: self.checkpoint, source: Box::new(source) }
    }

    fn write(&mut self, records: &[Record], last: Seq) -> Result<(), FoldError> {
        let counted = self.words.take().map(|WordCounts(counted)| counted);
        let counts = || counted.unwrap_or_else(|| Counts::of(records));
        let texts = TextBatch::new(self.pool.texts().is_unused().then(counts));
        let transaction = self.connection.unchecked_transaction()?;
        let mut fold = Fold::new(&transaction, &mut self.memo, self.gaps, texts)?;
        for record in records {
            fold.apply(record)?;
        }
        let texts = fold.finish(last)?;
        transaction.commit()?;
        self.pool.texts().take(texts, last.0);
        Ok(())
    }
}

impl Projection for Graph {
    fn name(&self) -> &'static str {
        "graph"
    }

    fn version(&self) -> u32 {
        schema::VERSION
    }

    fn checkpoint(&self) -> Seq {
        self.checkpoint
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Family::kinds(&[Family::Memory]);
        kinds.extend([Kind::ExternalAgentRegistered, Kind::ErasureOrdered]);
        kinds
    }

    fn expect_gaps(&mut self) {
        self.gaps = true;
    }

    fn counts_words(&self) -> bool {
        self.pool.texts().is_unused()
    }

    fn foresee(&mut self, words: WordCounts) {
        self.words = Some(words);
    }

    fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ApplyError> {
        self.write(records, through).map_err(|error| {
            self.memo = Memo::default();
            match error {
                FoldError::Sqlite(source) => self.failed(source),
                FoldError::Unknown { seq, what, id } => ApplyError::Unknown { seq, what, id },
            }
        })?;
        self.checkpoint = through;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), ApplyError> {
        self.memo = Memo::default();
        recreate(&self.connection, Indexes::All).map_err(|source| self.failed(source))?;
        self.checkpoint = Seq::ZERO;
        self.pool.texts().unload();
        Ok(())
    }
}

/// Makes a change of the folder around `path` last.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}

/// Removes the file in `dir` where a rebuild of it was not finished.
fn clear_unfinished(dir: &Path) -> Result<(), GraphError> {
    let remove = |name: &str| {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(GraphError::Io { path, source: error })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    };
    let mark = dir.join(REBUILDING_MARK);
    if !mark.try_exists().map_err(|source| GraphError::Io { path: mark.clone(), source })? {
        return Ok(());
    }
    for suffix in ["-shm", "-wal", "-journal", ""] {
        remove(&format!("{FILE_NAME}{suffix}"))?;
    }
    let sync = || sync_folder(&mark).map_err(|source| GraphError::Io { path: mark.clone(), source });
    sync()?;
    remove(REBUILDING_MARK)?;
    sync()
}

/// Renames the file in `dir`, so that [`Graph::open`] makes a new one; returns where it went, or nothing when there is
/// none. Its journal goes with it: beside a new file it would be read as the new file's.
///
/// # Errors
///
/// What the system said when it could not be renamed.
pub fn set_aside(dir: &Path) -> std::io::Result<Option<PathBuf>> {
    if !dir.join(FILE_NAME).try_exists()? {
        return Ok(None);
    }
    let mut number = 1_u32;
    while dir.join(format!("{FILE_NAME}.aside-{number}")).try_exists()? {
        number += 1;
    }
    for suffix in ["-shm", "-wal", ""] {
        let from = dir.join(format!("{FILE_NAME}{suffix}"));
        if from.try_exists()? {
            std::fs::rename(from, dir.join(format!("{FILE_NAME}.aside-{number}{suffix}")))?;
        }
    }
    Ok(Some(dir.join(format!("{FILE_NAME}.aside-{number}"))))
}

/// Which indexes an empty file gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Indexes {
    All,
    Last,
}

/// Takes every table out and makes it again, in one transaction. [`Indexes::Last`] marks the file as being rebuilt.
fn recreate(connection: &Connection, indexes: Indexes) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    connection.execute_batch(schema::DROP)?;
    create_tables(connection, indexes == Indexes::All, indexes == Indexes::Last)?;
    transaction.commit()
}
