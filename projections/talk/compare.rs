//! What is stored in its canonical form: agents and conversations each as one digest, and where two folds differ.

use std::path::Path;

use caxton_events::Seq;
use rusqlite::{Connection, OpenFlags};

use super::store::{FILE_NAME, TalkStore};
use crate::difference::{Difference, PartDigest};
use crate::graph::{Canonical, difference, digests};
use crate::projection::Stored;

const fn agents(table: &'static str, sql: &'static str) -> Canonical {
    Canonical { part: "agents", table, sql, key: 1 }
}

const fn conversations(table: &'static str, sql: &'static str) -> Canonical {
    Canonical { part: "conversations", table, sql, key: 1 }
}

const fn list(table: &'static str, sql: &'static str) -> Canonical {
    Canonical { part: "conversations", table, sql, key: 2 }
}

/// Every table in a canonical order.
const TABLES: &[Canonical] = &[
    agents("agents", "SELECT key, state FROM agents ORDER BY key"),
    agents("rejections", "SELECT key, state FROM rejections ORDER BY key"),
    agents("registrations", "SELECT key, state FROM registrations ORDER BY key"),
    conversations("conversations", "SELECT key, state FROM conversations ORDER BY key"),
    conversations("inboxes", "SELECT key, state FROM inboxes ORDER BY key"),
    conversations("timers", "SELECT key, state FROM timers ORDER BY key"),
    conversations("retries", "SELECT key, state FROM retries ORDER BY key"),
    conversations("dead_letters", "SELECT key, state FROM dead_letters ORDER BY key"),
    list("conversation_blocks", "SELECT * FROM conversation_blocks ORDER BY owner, number"),
    list("inbox_blocks", "SELECT * FROM inbox_blocks ORDER BY owner, number"),
    list("sent_blocks", "SELECT * FROM sent_blocks ORDER BY owner, number"),
    list("routed_blocks", "SELECT * FROM routed_blocks ORDER BY owner, number"),
    conversations("message_ids", "SELECT id, seq FROM message_ids ORDER BY id"),
];

impl TalkStore {
    /// Hash over all that is stored and the checkpoint, after a flush: two folds of the same log give the same.
    ///
    /// # Errors
    ///
    /// What SQLite said.
    pub fn digest(&mut self) -> rusqlite::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        for part in self.parts()? {
            hasher.update(&part.digest);
        }
        hasher.update(&self.stored().0.to_le_bytes());
        Ok(*hasher.finalize().as_bytes())
    }

    /// The same for `agents` and `conversations` each, without the checkpoint: records of others change nothing.
    ///
    /// # Errors
    ///
    /// What SQLite said.
    pub fn parts(&mut self) -> rusqlite::Result<Vec<PartDigest>> {
        self.flush()?;
        digests(&self.connection, TABLES)
    }

    /// The first row in which this file and `other` differ; `None` when their digests are the same.
    ///
    /// # Errors
    ///
    /// What SQLite said.
    pub fn difference(&mut self, other: &mut Self) -> rusqlite::Result<Option<Difference>> {
        self.flush()?;
        other.flush()?;
        difference(&self.connection, &other.connection, TABLES)
    }
}

/// What the file in `dir` says about itself; `None` where there is none.
///
/// # Errors
///
/// What SQLite said; mostly that it is no file of SQLite's.
pub fn stored(dir: &Path) -> rusqlite::Result<Option<Stored>> {
    let path = dir.join(FILE_NAME);
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let checkpoint: i64 = connection.query_row("SELECT checkpoint FROM meta", (), |row| row.get(0))?;
    Ok(Some(Stored { version, checkpoint: Seq(checkpoint as u64) }))
}
