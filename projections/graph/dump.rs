//! What an export asks of the whole graph: all observations, page by page, and a copy of the file.

use std::path::Path;

use caxton_events::MemoryId;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::connection::{open_copier, unread};
use super::{GraphReader, Observation, ReadError, columns};

impl GraphReader {
    /// The first `limit` observations of all entities behind `after`, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn list_observations(
        &self,
        after: Option<MemoryId>,
        limit: usize,
    ) -> Result<Vec<Observation>, ReadError> {
        let sql = self.as_of.sql("o", |alive| {
            format!("SELECT {} FROM observations o WHERE o.id > :after AND {alive}", columns::OBSERVATION)
        });
        let (after, limit) = (after.unwrap_or_default().0 as i64, limit as i64);
        self.with("a list of observations", |connection| {
            let params: &[(&str, &dyn rusqlite::ToSql)] = &[(":after", &after), (":limit", &limit)];
            let sql = format!("{sql} ORDER BY 1 LIMIT :limit");
            self.as_of.rows(connection, &sql, params, columns::observation)
        })
    }

    /// Writes the whole file, past and present, as one new file without free pages, as it is at one moment. `to` must not
    /// exist.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; what was written of it is left.
    pub fn copy_into(&self, to: &Path) -> Result<(), ReadError> {
        let what = "the whole graph to copy it";
        let connection = open_copier(self.path()).map_err(unread(what))?;
        // A path need not be UTF-8.
        let to = ToSqlOutput::Borrowed(ValueRef::Text(to.as_os_str().as_encoded_bytes()));
        connection.execute("VACUUM INTO ?1", (to,)).map(drop).map_err(unread(what))
    }
}
