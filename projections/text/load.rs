//! The index out of the rows of the graph's file.

use std::thread;

use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Timestamp};
use crossbeam_channel::bounded;
use rusqlite::{Connection, Row};

use super::batch::{Text, TextBatch, Written};
use super::index::{TextIndex, Texts};

/// Texts that are handed over together at the most.
const BATCH_TEXTS_MAX: usize = 2_048;
/// What a batch takes after which it is handed over, however few texts it has. With the one that is being read and the one
/// that is being added there are two more than wait.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Batches that wait to be added.
const BATCHES_MAX: usize = 4;

const HEADERS: &str = "
    SELECT created_seq, removed_seq, id, id, scope_id, valid_from, valid_to, name, entity_type
    FROM entities ORDER BY created_seq";
const CONTENTS: &str = "
    SELECT created_seq, removed_seq, id, entity_id, scope_id, valid_from, valid_to, content
    FROM observations ORDER BY created_seq";

impl TextIndex {
    /// Reads every row, unless that was done. `snapshot` begins a transaction and calls what it is given inside of it.
    ///
    /// # Errors
    ///
    /// What `snapshot` gives.
    pub(crate) fn load<E>(
        &self,
        mut snapshot: impl FnMut(&mut dyn FnMut(&Connection) -> rusqlite::Result<()>) -> Result<(), E>,
    ) -> Result<(), E> {
        let _one = self.loader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while !self.is_loaded() {
            self.begin_loading();
            let mut loaded = None;
            let read = snapshot(&mut |connection| {
                loaded = Some(read(connection)?);
                Ok(())
            });
            self.finish_loading(loaded);
            read?;
        }
        Ok(())
    }
}

/// All texts, and the last record they include. One thread reads and takes texts apart, another puts the words in.
fn read(connection: &Connection) -> rusqlite::Result<(Texts, u64)> {
    let through: i64 = connection.query_row("SELECT checkpoint FROM meta", (), |row| row.get(0))?;
    let (send, receive) = bounded::<TextBatch>(BATCHES_MAX);
    let add = move || {
        let mut texts = Texts::default();
        for batch in receive {
            texts.add(&batch, 0..batch.len());
        }
        texts
    };
    let texts = thread::scope(|scope| {
        let adding = thread::Builder::new().name("text-load".to_owned()).spawn_scoped(scope, add);
        each_batch(connection, |batch| {
            // It ends early only by a panic, which joining it passes on.
            let _ = send.send(batch);
        })?;
        drop(send);
        let adding = adding.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok::<_, rusqlite::Error>(adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok((texts, through as u64))
}

/// Hands over all texts, so many and so much at a time.
fn each_batch(connection: &Connection, mut hand_over: impl FnMut(TextBatch)) -> rusqlite::Result<()> {
    let mut batch = TextBatch::default();
    for sql in [HEADERS, CONTENTS] {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            put(&mut batch, row)?;
            if batch.len() >= BATCH_TEXTS_MAX || batch.bytes() >= BATCH_BYTES_MAX {
                hand_over(std::mem::take(&mut batch));
            }
        }
    }
    hand_over(batch);
    Ok(())
}

fn put(batch: &mut TextBatch, row: &Row<'_>) -> rusqlite::Result<()> {
    let id = |column| row.get::<_, i64>(column).map(|id| MemoryId(id as u64));
    let at = |column| {
        row.get::<_, Option<i64>>(column).map(|at| at.map(|at| Timestamp::from_unix_micros(at as u64)))
    };
    let written = Written { created: row.get(0)?, scope: row.get(4)? };
    let validity = Validity { from: at(5)?, to: at(6)? };
    let first = row.get_ref(7)?.as_str()?;
    let text = match row.get_ref(8) {
        Ok(entity_type) => Text::Header { name: first, entity_type: entity_type.as_str()? },
        Err(rusqlite::Error::InvalidColumnIndex(_)) => Text::Content(first),
        Err(error) => return Err(error),
    };
    batch.add(written, (id(2)?, id(3)?), text, &validity);
    if let Some(removed) = row.get(1)? {
        batch.close(written, removed, text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use rusqlite::Connection;

    use super::{BATCH_BYTES_MAX, BATCH_TEXTS_MAX, each_batch};

    /// The columns that are read, of an entity and `contents` about it.
    fn rows(contents: &[String]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE entities(created_seq INTEGER, removed_seq INTEGER, id INTEGER, scope_id INTEGER,
                     valid_from INTEGER, valid_to INTEGER, name TEXT, entity_type TEXT);
                 CREATE TABLE observations(created_seq INTEGER, removed_seq INTEGER, id INTEGER, entity_id INTEGER,
                     scope_id INTEGER, valid_from INTEGER, valid_to INTEGER, content TEXT);
                 INSERT INTO entities VALUES (1, NULL, 1, 1, NULL, NULL, 'loom', 'machine');",
            )
            .unwrap();
        for (id, content) in (2_i64..).zip(contents) {
            connection
                .execute(
                    "INSERT INTO observations VALUES (?1, NULL, ?1, 1, 1, NULL, NULL, ?2)",
                    (id, content),
                )
                .unwrap();
        }
        connection
    }

    /// How many texts each batch has, and the largest of what they take.
    fn batches(contents: &[String]) -> (Vec<usize>, usize) {
        let (mut texts, mut bytes_max) = (Vec::new(), 0);
        each_batch(&rows(contents), |batch| {
            texts.push(batch.len());
            bytes_max = bytes_max.max(batch.bytes());
        })
        .unwrap();
        (texts, bytes_max)
    }

    #[test]
    fn batches_are_bounded_by_what_they_take_and_by_their_number() {
        let large = "turbine loom ".repeat(10_000);
        let (_, of_one) = batches(std::slice::from_ref(&large));
        assert!(of_one > large.len() && of_one < BATCH_BYTES_MAX, "{of_one}");
        let (texts, bytes_max) = batches(&vec![large; 60]);
        assert!(bytes_max < BATCH_BYTES_MAX + of_one, "{bytes_max}");
        assert_eq!(texts.iter().sum::<usize>(), 61);
        assert!(texts.len() > 1, "{texts:?}");

        let (texts, _) = batches(&vec!["so".to_owned(); BATCH_TEXTS_MAX]);
        assert_eq!(texts, [BATCH_TEXTS_MAX, 1]);
    }
}
