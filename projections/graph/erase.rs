//! What erasing needs of the file: the texts that are left, what an agent wrote elsewhere, and writing it anew.

use caxton_events::{AgentId, Scope};
use rusqlite::Connection;

use super::{GraphReader, ReadError};

/// How often a checkpoint that readers hold up is tried again; each try waits as long as `SQLite` waits for a lock.
const TRIES: usize = 20;

impl GraphReader {
    /// What an agent wrote to other scopes than this one and that is there: scope and number of facts.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn written_elsewhere(&self, agent: &AgentId, own: &Scope) -> Result<Vec<(String, u64)>, ReadError> {
        self.snapshot("what an agent wrote", |connection| {
            let mut statement = connection.prepare(
                "SELECT scope, count(*) FROM (
                     SELECT scope_id FROM entities WHERE actor = ?1 AND removed_seq IS NULL
                     UNION ALL SELECT scope_id FROM observations WHERE actor = ?1 AND removed_seq IS NULL
                     UNION ALL SELECT scope_id FROM relations WHERE actor = ?1 AND removed_seq IS NULL
                 ) JOIN scopes ON scopes.id = scope_id WHERE scope <> ?2 GROUP BY scope ORDER BY scope",
            )?;
            let rows = statement.query_map((agent.as_str(), own.to_string()), |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
            })?;
            rows.collect()
        })
    }

    /// Every text of every row there is, of the present and the past: headers as `name (type)`, then observations.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn each_text(&self, each: &mut dyn FnMut(&str)) -> Result<(), ReadError> {
        self.snapshot("every text", |connection| {
            for sql in [
                "SELECT name || ' (' || entity_type || ')' FROM entities",
                "SELECT content FROM observations",
            ] {
                let mut statement = connection.prepare(sql)?;
                let mut rows = statement.query(())?;
                while let Some(row) = rows.next()? {
                    each(row.get_ref(0)?.as_str()?);
                }
            }
            Ok(())
        })
    }
}

/// Writes the file anew and empties the journal: no page holds what was deleted. `false`: readers held it up until the end.
pub(super) fn scrub(connection: &Connection) -> rusqlite::Result<bool> {
    connection.execute_batch("VACUUM")?;
    empty_journal(connection)
}

/// Moves the journal into the file and cuts it to nothing. `false`: readers held it up until the end.
pub(crate) fn empty_journal(connection: &Connection) -> rusqlite::Result<bool> {
    for _ in 0..TRIES {
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get(0))?;
        if busy == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
