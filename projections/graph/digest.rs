//! One number for the whole state: equal digests, equal answers.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::{GraphReader, ReadError};

/// Every table in a canonical order, the words of the full-text index last.
const STATEMENTS: &[&str] = &[
    "SELECT version, next_id FROM meta",
    "SELECT * FROM scopes ORDER BY id",
    "SELECT * FROM agents ORDER BY agent_id",
    "SELECT * FROM entities ORDER BY created_seq",
    "SELECT * FROM observations ORDER BY created_seq",
    "SELECT * FROM relations ORDER BY created_seq",
    "SELECT * FROM embeddings ORDER BY entity_id",
    "SELECT DISTINCT term, doc FROM texts_words ORDER BY term, doc",
];

impl GraphReader {
    /// BLAKE3 over a canonical form of every row, past and present, and of the full-text index; the checkpoint is not in
    /// it, so that records without a row change nothing. A rebuild has the digest
    /// of the fold it repeats. Reads the whole file.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn digest(&self) -> Result<[u8; 32], ReadError> {
        self.snapshot("the whole graph", |connection| {
            let mut hasher = blake3::Hasher::new();
            for sql in STATEMENTS {
                hash_rows(connection, sql, &mut hasher)?;
            }
            Ok(*hasher.finalize().as_bytes())
        })
    }
}

/// Each value as its type, its length where it has one, and its bytes, so that no two sequences of values look alike.
pub(crate) fn hash_rows(
    connection: &Connection,
    sql: &str,
    hasher: &mut blake3::Hasher,
) -> rusqlite::Result<()> {
    hasher.update(sql.as_bytes());
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        for column in 0..columns {
            match row.get_ref(column)? {
                ValueRef::Null => {
                    hasher.update(&[0]);
                }
                ValueRef::Integer(number) => {
                    hasher.update(&[1]).update(&number.to_le_bytes());
                }
                ValueRef::Real(number) => {
                    hasher.update(&[2]).update(&number.to_bits().to_le_bytes());
                }
                ValueRef::Text(bytes) => {
                    hasher.update(&[3]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
                }
                ValueRef::Blob(bytes) => {
                    hasher.update(&[4]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
                }
            }
        }
    }
    Ok(())
}
