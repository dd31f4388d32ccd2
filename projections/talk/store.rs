//! The file: one row a thing, one a block of positions, written with the checkpoint in one transaction.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use caxton_events::{MessageId, Seq};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use serde::de::DeserializeOwned;

use super::changes::{Changes, List, Table};
use super::known::Known;
use super::postings::Block;
use super::spill::Spill;
use super::{Shared, TALK_VERSION, Talk, TalkState};

/// Name of the file in its directory.
pub const FILE_NAME: &str = "talk.db";

/// Why the file was not opened. It holds nothing that the log does not: set it aside and fold again.
#[derive(Debug, thiserror::Error)]
pub enum OpenTalkError {
    /// The directory could not be made.
    #[error("could not use {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is of another version of this projection.
    #[error("{} has version {found}, this program writes {TALK_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
    },
    /// A row is not what was written.
    #[error("a row of {table} in {} cannot be read", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Its table.
        table: &'static str,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
    /// SQLite failed.
    #[error("could not read {}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

/// Looks numbers of messages up in the file.
#[derive(Debug)]
pub(super) struct Ids(Connection);

impl Ids {
    /// How many there are, rather too many, without counting them: a row takes some 24 bytes of the file.
    fn roughly(&self) -> rusqlite::Result<usize> {
        let pragma = |name| self.0.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        Ok((pragma("page_count")? * pragma("page_size")? / 24) as usize)
    }

    pub(super) fn find(&self, id: MessageId) -> rusqlite::Result<Option<Seq>> {
        let mut statement = self.0.prepare_cached("SELECT seq FROM message_ids WHERE id = ?1")?;
        let found = statement.query_row([&id.bytes()[..]], |row| row.get::<_, i64>(0)).optional()?;
        Ok(found.map(|seq| Seq(seq as u64)))
    }
}

/// The storing side: writes what changed, on a thread of its own.
#[derive(Debug)]
pub struct TalkStore {
    shared: Arc<Shared>,
    pub(super) connection: Connection,
    /// The checkpoint in the file.
    stored: Seq,
    /// What was taken out of the state up to a checkpoint and could not be written.
    pending: Option<(Changes, Seq)>,
}

impl TalkStore {
    /// Opens the file in `dir`, makes both when they do not exist, and reads the state into memory.
    ///
    /// # Errors
    ///
    /// [`OpenTalkError`].
    pub fn open(dir: &Path) -> Result<(Talk, Self), OpenTalkError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenTalkError::Io { path: dir.to_owned(), source })?;
        let path = dir.join(FILE_NAME);
        let failed = |source| OpenTalkError::Sqlite { path: path.clone(), source };
        let connection = open(&path).map_err(failed)?;
        let found = connection
            .pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0))
            .map_err(failed)?;
        if found != TALK_VERSION {
            return Err(OpenTalkError::Version { path, found });
        }
        // Without it positions stay in memory.
        let spill = Spill::in_dir(dir).ok().map(Arc::new);
        let mut state = load(&connection, spill.as_ref()).map_err(|error| match error {
            LoadError::Sqlite(source) => OpenTalkError::Sqlite { path: path.clone(), source },
            LoadError::Row(table, source) => OpenTalkError::Row { path: path.clone(), table, source },
        })?;
        let ids = Ids(open(&path).map_err(failed)?);
        state.known = Arc::new(Known::for_numbers(ids.roughly().map_err(failed)?));
        let stored = state.checkpoint;
        let shared = Arc::new(Shared { state: RwLock::new(state), ids: Mutex::new(ids) });
        Ok((Talk { shared: Arc::clone(&shared) }, Self { shared, connection, stored, pending: None }))
    }

    /// Reads the numbers of all messages in the file, so that it need not be asked about new ones. Until then it is.
    ///
    /// # Errors
    ///
    /// What SQLite said; then the file goes on to be asked.
    pub fn learn_numbers(&self) -> rusqlite::Result<()> {
        let known = Arc::clone(&self.shared.read().known);
        let mut statement = self.connection.prepare("SELECT id FROM message_ids")?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            known.add(MessageId::from_bytes(row.get(0)?));
        }
        known.complete();
        Ok(())
    }

    /// The checkpoint in the file.
    pub const fn stored(&self) -> Seq {
        self.stored
    }

    /// Writes what changed since the last time, with the checkpoint, in one transaction.
    ///
    /// # Errors
    ///
    /// What SQLite said. What was taken out is then kept, and written first the next time; what this run never writes, the next
    /// start folds from the log.
    pub fn flush(&mut self) -> rusqlite::Result<()> {
        // Nothing is taken out beside it: its numbers are on their way to the file until it is written.
        self.write_pending()?;
        let (taken, checkpoint) = {
            let mut state = self.shared.write();
            if state.checkpoint == self.stored && !state.changes.reset {
                return Ok(());
            }
            (state.take_changes(), state.checkpoint)
        };
        self.pending = Some((taken.rows(), checkpoint));
        self.write_pending()
    }

    fn write_pending(&mut self) -> rusqlite::Result<()> {
        let Some((changes, checkpoint)) = &self.pending else { return Ok(()) };
        write(&self.connection, changes, *checkpoint)?;
        self.stored = *checkpoint;
        self.pending = None;
        self.shared.write().storing = Arc::default();
        Ok(())
    }

    /// Stores what changed and leaves nothing of what was deleted in the file or in its journal. `false`: a reader kept the
    /// journal from being emptied; try again.
    ///
    /// # Errors
    ///
    /// As [`TalkStore::flush`].
    pub fn scrub(&mut self) -> rusqlite::Result<bool> {
        self.flush()?;
        self.connection.execute_batch("VACUUM")?;
        crate::graph::empty_journal(&self.connection)
    }

    /// Moves the journal into the file: it is about to be closed.
    ///
    /// # Errors
    ///
    /// What SQLite said.
    pub fn close(self) -> rusqlite::Result<()> {
        self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
    }
}

pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // The log is durable: what a power cut takes from here is folded again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let tables =
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get::<_, i64>(0))?;
    if tables == 0 {
        let transaction = connection.unchecked_transaction()?;
        create(&transaction)?;
        transaction.commit()?;
    }
    Ok(connection)
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE meta(one INTEGER PRIMARY KEY CHECK (one = 1), checkpoint INTEGER NOT NULL);
         INSERT INTO meta VALUES (1, 0);
         CREATE TABLE message_ids(id BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;",
    )?;
    for table in Table::ALL {
        connection.execute_batch(&format!(
            "CREATE TABLE {}(key TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID",
            table.name()
        ))?;
    }
    for list in List::ALL {
        connection.execute_batch(&format!(
            "CREATE TABLE {}(owner TEXT NOT NULL, number INTEGER NOT NULL, first_seq INTEGER NOT NULL,
                 last_seq INTEGER NOT NULL, count INTEGER NOT NULL, distances BLOB NOT NULL,
                 PRIMARY KEY (owner, number)) WITHOUT ROWID",
            list.table()
        ))?;
    }
    connection.pragma_update(None, "user_version", TALK_VERSION)
}

fn write(connection: &Connection, changes: &Changes, checkpoint: Seq) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    if changes.reset {
        for table in Table::ALL.map(Table::name).into_iter().chain(List::ALL.map(List::table)) {
            transaction.execute(&format!("DELETE FROM {table}"), ())?;
        }
        transaction.execute("DELETE FROM message_ids", ())?;
    }
    for ((table, key), state) in &changes.rows {
        let name = table.name();
        match state {
            Some(state) => {
                let sql = format!("INSERT OR REPLACE INTO {name} VALUES (?1, ?2)");
                transaction.prepare_cached(&sql)?.execute((key, state))?;
            }
            None => {
                transaction.prepare_cached(&format!("DELETE FROM {name} WHERE key = ?1"))?.execute([key])?;
            }
        }
    }
    for row in &changes.blocks {
        let sql = format!("INSERT OR REPLACE INTO {} VALUES (?1, ?2, ?3, ?4, ?5, ?6)", row.list.table());
        transaction.prepare_cached(&sql)?.execute((
            &row.owner,
            row.number as i64,
            row.first.0 as i64,
            row.last.0 as i64,
            row.count,
            &row.distances,
        ))?;
    }
    // A number that is there already is of a message that the log does not have any more: the one that has it now counts.
    let mut statement = transaction.prepare_cached("INSERT OR REPLACE INTO message_ids VALUES (?1, ?2)")?;
    // In their order, so that neighbours land on one page.
    let mut ids: Vec<_> = changes.ids.iter().collect();
    ids.sort_unstable();
    for (id, seq) in ids {
        statement.execute((&id.bytes()[..], seq.0 as i64))?;
    }
    drop(statement);
    transaction.execute("UPDATE meta SET checkpoint = ?1", [checkpoint.0 as i64])?;
    transaction.commit()
}

enum LoadError {
    Sqlite(rusqlite::Error),
    Row(&'static str, serde_json::Error),
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn load(connection: &Connection, spill: Option<&Arc<Spill>>) -> Result<TalkState, LoadError> {
    let mut state = TalkState::default();
    state.conversations.spill = spill.cloned();
    let checkpoint = connection.query_row("SELECT checkpoint FROM meta", (), |row| row.get::<_, i64>(0))?;
    state.checkpoint = Seq(checkpoint as u64);
    rows(connection, Table::Agents, |_, agent| state.registry.restore_agent(agent))?;
    rows(connection, Table::Rejections, |path, rejection| {
        state.registry.rejections.insert(path, rejection);
    })?;
    let mut registrations = Vec::new();
    rows(connection, Table::Registrations, |_, registration| registrations.push(registration))?;
    state.registry.restore_registrations(registrations);
    let talk = &mut state.conversations;
    rows(connection, Table::Conversations, |_, row| talk.restore_conversation(row))?;
    rows(connection, Table::Inboxes, |_, inbox: crate::conversations::Inbox| {
        talk.inboxes.insert(inbox.agent.clone(), Box::new(inbox));
    })?;
    rows(connection, Table::Timers, |_, timer| talk.restore_timer(timer))?;
    rows(connection, Table::Retries, |_, retry: crate::conversations::Retry| {
        talk.retries.insert((retry.sent, retry.receiver.clone()), retry);
    })?;
    rows(connection, Table::DeadLetters, |_, letter: crate::conversations::DeadLetter| {
        talk.dead_letters.insert(letter.seq, letter);
    })?;
    for list in List::ALL {
        let sql = format!(
            "SELECT owner, first_seq, last_seq, count, distances FROM {} ORDER BY owner, number",
            list.table()
        );
        let mut statement = connection.prepare(&sql)?;
        let mut found = statement.query(())?;
        while let Some(row) = found.next()? {
            let block = Block {
                first: Seq(row.get::<_, i64>(1)? as u64),
                last: Seq(row.get::<_, i64>(2)? as u64),
                count: row.get(3)?,
                distances: row.get(4)?,
            };
            let owner = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if let Some(postings) = talk.list(list, owner) {
                postings.restore(block, spill);
            }
        }
    }
    talk.restored();
    Ok(state)
}

fn rows<T: DeserializeOwned>(
    connection: &Connection,
    table: Table,
    mut take: impl FnMut(String, T),
) -> Result<(), LoadError> {
    let mut statement = connection.prepare(&format!("SELECT key, state FROM {}", table.name()))?;
    let mut found = statement.query(())?;
    while let Some(row) = found.next()? {
        let state = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let value = serde_json::from_str(state).map_err(|source| LoadError::Row(table.name(), source))?;
        take(row.get(0)?, value);
    }
    Ok(())
}
