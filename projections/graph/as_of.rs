//! Statements about the present and about a moment of the past.
//!
//! As of a record `s` a row counts when `created_seq <= s` and it was removed behind `s` or not at all. Rows that are still
//! there and rows that were removed lie in different indexes, so that nothing of the past slows the present down; a
//! statement about the past is the same question to both.

use caxton_events::Seq;
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

/// Named parameters of a statement.
pub(super) type Params<'a> = &'a [(&'a str, &'a dyn ToSql)];

/// Records behind a moment up to which a list may look through all that they removed.
const NEAR_RECORDS_MAX: i64 = 10_000;
/// Rows of the past that are looked through in an index in the time that one row is read in.
const STEPS_OF_A_ROW: i64 = 4;

/// The rows that one page of a list is taken from.
pub(super) struct Listed<'a> {
    /// `entities`, `observations` or `relations`.
    pub(super) table: &'a str,
    /// What a statement calls it.
    pub(super) alias: &'a str,
    /// What the rows have in common, and that they stand behind the page before …
    pub(super) condition: &'a str,
    /// … with its parameters, all of them.
    pub(super) params: Params<'a>,
}

/// What a page of a list is read from: rows that still are, and those that were removed since.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sources {
    pub(super) still: String,
    pub(super) gone: String,
}

/// When a question looks: at the present, or as of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AsOf(Option<i64>);

impl AsOf {
    /// As of this record.
    pub(super) const fn seq(seq: Seq) -> Self {
        Self(Some(seq.0 as i64))
    }

    /// The record, unless it is the present.
    pub(crate) const fn moment(self) -> Option<Seq> {
        match self.0 {
            Some(seq) => Some(Seq(seq as u64)),
            None => None,
        }
    }

    /// The record, or one behind all others.
    pub(crate) fn limit(self) -> i64 {
        self.0.unwrap_or(i64::MAX)
    }

    /// The statement that `select` makes with the condition on rows of `alias`.
    pub(crate) fn sql(self, alias: &str, select: impl Fn(&str) -> String) -> String {
        let present = format!("{alias}.removed_seq IS NULL");
        if self.0.is_none() {
            return select(&present);
        }
        let known = format!("{alias}.created_seq <= :as_of");
        let (still, gone) =
            (format!("{present} AND {known}"), format!("{alias}.removed_seq > :as_of AND {known}"));
        format!("{} UNION ALL {}", select(&still), select(&gone))
    }

    /// The same for both kinds of moments: the present first.
    pub(crate) fn both(alias: &str, select: impl Fn(&str) -> String) -> [String; 2] {
        [Self(None), Self(Some(0))].map(|as_of| as_of.sql(alias, &select))
    }

    /// The statements that find one row of `table` by its number, `:id`. The versions of a row follow one another, so that
    /// of those removed behind a moment only the first can count: however often it was changed since.
    pub(super) fn by_id(table: &str, alias: &str, select: impl Fn(&str) -> String) -> [String; 2] {
        let present = format!("{alias}.id = :id AND {alias}.removed_seq IS NULL");
        let known = format!("{alias}.created_seq <= :as_of");
        let version = format!(
            "{alias}.created_seq = (SELECT created_seq FROM {table} WHERE id = :id AND removed_seq > :as_of
                 ORDER BY removed_seq LIMIT 1)"
        );
        let past = format!(
            "{} UNION ALL {} LIMIT 1",
            select(&format!("{present} AND {known}")),
            select(&format!("{version} AND {known}"))
        );
        [select(&present), past]
    }

    /// The statement for this moment out of both.
    pub(crate) fn of(self, statements: &[String; 2]) -> &str {
        let [present, past] = statements;
        if self.0.is_some() { past } else { present }
    }

    /// The statement that `select` makes of a table and the condition on its rows.
    pub(super) fn list_sql(
        self,
        alias: &str,
        sources: &Sources,
        select: impl Fn(&str, &str) -> String,
    ) -> String {
        self.sql(alias, |alive| {
            let source = if alive.contains("IS NULL") { &sources.still } else { &sources.gone };
            select(source, alive)
        })
    }

    /// What a page of a list is read from.
    ///
    /// To find what was removed behind a moment, the rows of the past that stand behind the page before are looked through,
    /// again for each page: a list of a long history would take as long as that is, times its pages. Where less was written
    /// since the moment, what that removed is looked through instead.
    pub(super) fn sources(self, connection: &Connection, listed: &Listed<'_>) -> rusqlite::Result<Sources> {
        let still = format!("{} {}", listed.table, listed.alias);
        let gone = if self.has_less_behind(connection, listed)? {
            format!("{still} INDEXED BY idx_{}_removed", listed.table)
        } else {
            still.clone()
        };
        Ok(Sources { still, gone })
    }

    /// Whether it takes less time to look through what was removed behind the moment than through the past of what is listed.
    fn has_less_behind(self, connection: &Connection, listed: &Listed<'_>) -> rusqlite::Result<bool> {
        let Some(moment) = self.0 else { return Ok(false) };
        let checkpoint: i64 =
            connection.prepare_cached("SELECT checkpoint FROM meta")?.query_row((), |row| row.get(0))?;
        let since = checkpoint.saturating_sub(moment).max(0);
        if since > NEAR_RECORDS_MAX {
            return Ok(false);
        }
        let Listed { table, alias, condition, params } = listed;
        let sql = format!(
            "SELECT 1 FROM {table} {alias} WHERE {condition} AND {alias}.removed_seq IS NOT NULL LIMIT 1 OFFSET :rows"
        );
        let rows = since * STEPS_OF_A_ROW;
        let mut all = params.to_vec();
        all.push((":rows", &rows));
        let more = connection.prepare_cached(&sql)?.query_row(&*all, |_| Ok(())).optional()?;
        Ok(more.is_some())
    }

    /// All rows of a statement that was made for this moment.
    pub(crate) fn rows<T>(
        self,
        connection: &Connection,
        sql: &str,
        params: Params<'_>,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = connection.prepare_cached(sql)?;
        match &self.0 {
            None => statement.query_map(params, read)?.collect(),
            Some(seq) => {
                let mut all = params.to_vec();
                all.push((":as_of", seq));
                statement.query_map(&*all, read)?.collect()
            }
        }
    }

    /// The first row of a statement that was made for this moment.
    pub(crate) fn one<T>(
        self,
        connection: &Connection,
        sql: &str,
        params: Params<'_>,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        let mut statement = connection.prepare_cached(sql)?;
        match &self.0 {
            None => statement.query_row(params, read).optional(),
            Some(seq) => {
                let mut all = params.to_vec();
                all.push((":as_of", seq));
                statement.query_row(&*all, read).optional()
            }
        }
    }
}
