//! What an export asks of the whole graph: all observations, page by page, and a copy of the file.

use std::path::Path;

use caxton_events::MemoryId;
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::as_of::Listed;
use super::connection::{open_copier, unread};
use super::{GraphReader, Observation, ReadError, columns};

/// Where a page of observations ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageMax {
    /// Behind so many rows.
    pub rows: usize,
    /// Behind the row with which the texts take so many bytes.
    pub bytes: usize,
}

impl GraphReader {
    /// The first observations of all entities behind `after`, in the order of their numbers. The page is empty only where
    /// there is none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn list_observations(
        &self,
        after: Option<MemoryId>,
        max: PageMax,
    ) -> Result<Vec<Observation>, ReadError> {
        let after = after.unwrap_or_default().0 as i64;
        self.snapshot("a list of observations", |connection| {
            let condition = "o.id > :after";
            let listed =
                Listed { table: "observations", alias: "o", condition, params: &[(":after", &after)] };
            let sources = self.as_of.sources(connection, &listed)?;
            let page = |selected: &str| {
                let sql = self.as_of.list_sql("o", &sources, |source, alive| {
                    format!("SELECT {selected} FROM {source} WHERE {condition} AND {alive}")
                });
                format!("{sql} ORDER BY 1 LIMIT :limit")
            };
            // Sizes are read without the texts, so that sorting rows of the past takes none of these into memory either.
            let rows = max.rows as i64;
            let params: &[(&str, &dyn ToSql)] = &[(":after", &after), (":limit", &rows)];
            let sizes = page("o.id, octet_length(o.content)");
            let sizes = self.as_of.rows(connection, &sizes, params, |row| row.get::<_, i64>(1))?;
            let rows = within(&sizes, max.bytes) as i64;
            let params: &[(&str, &dyn ToSql)] = &[(":after", &after), (":limit", &rows)];
            self.as_of.rows(connection, &page(columns::OBSERVATION), params, columns::observation)
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

/// How many of these sizes it takes to come to `bytes_max`.
fn within(sizes: &[i64], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |size: &&i64| {
        let fits = bytes < bytes_max;
        bytes += **size as usize;
        fits
    };
    sizes.iter().take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn a_page_ends_with_the_row_that_fills_it_and_has_one_at_least() {
        let check = |sizes: &[i64], rows| assert_eq!(within(sizes, 10), rows, "{sizes:?}");
        check(&[], 0);
        check(&[9], 1);
        check(&[100, 1], 1);
        check(&[4, 5, 1, 1], 3);
        check(&[0, 4, 4], 3);
    }
}
