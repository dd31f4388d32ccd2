//! Every version of an entity, of its observations and of its relations, page by page.

use caxton_events::{MemoryId, Scope, Seq};
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::diff::Table;
use super::reader::scope_ids;
use super::{Fact, GraphReader, HistoryRow, ReadError, columns};

/// Which versions to list, in the order of their records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Whose.
    pub entity: MemoryId,
    /// Only what the entity and its relations were in these scopes; empty: in all.
    pub scopes: Vec<Scope>,
    /// Only behind this record: where the page before ended.
    pub after: Seq,
    /// At most so many.
    pub limit: usize,
    /// With texts of at most so many bytes; the first has room whatever it takes.
    pub bytes: u64,
}

/// One page of versions.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryPage {
    /// In the order of their records.
    pub rows: Vec<HistoryRow>,
    /// Whether there is none behind them.
    pub is_last: bool,
}

/// What a history has, how it is found, and how many bytes its texts take.
const PARTS: [(Table, &str, &str); 4] = [
    (Table::Entities, "e.id = :entity", "octet_length(e.name) + coalesce(octet_length(e.metadata), 0)"),
    (Table::Observations, "o.entity_id = :entity", "octet_length(o.content)"),
    (Table::Relations, "r.from_entity = :entity", "coalesce(octet_length(r.metadata), 0)"),
    (
        Table::Relations,
        "r.to_entity = :entity AND r.from_entity <> :entity",
        "coalesce(octet_length(r.metadata), 0)",
    ),
];

/// Where a version stands.
struct Place {
    table: Table,
    seq: i64,
    bytes: i64,
}

impl GraphReader {
    /// What was ever said of an entity, in the order it was recorded; empty when there was never such an entity.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn history(&self, entity: MemoryId) -> Result<Vec<HistoryRow>, ReadError> {
        let (scopes, after) = (Vec::new(), Seq::ZERO);
        let all = HistoryQuery { entity, scopes, after, limit: usize::MAX, bytes: u64::MAX };
        Ok(self.history_page(&all)?.rows)
    }

    /// A page of that. Texts are read of its versions alone.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn history_page(&self, query: &HistoryQuery) -> Result<HistoryPage, ReadError> {
        self.snapshot("the history of an entity", |connection| {
            let scopes = serde_json::Value::from(scope_ids(connection, &query.scopes)?).to_string();
            let mut places = Vec::new();
            for (table, condition, bytes) in PARTS {
                let sql = places_sql(table, condition, bytes);
                let read = |row: &Row<'_>| Ok(Place { table, seq: row.get(0)?, bytes: row.get(1)? });
                let params: &[(&str, &dyn ToSql)] = &[
                    (":entity", &(query.entity.0 as i64)),
                    (":after", &(query.after.0 as i64)),
                    (":moment", &self.as_of.limit()),
                    (":scopes", &scopes),
                    // One more says whether there is more.
                    (":limit", &i64::try_from(query.limit).map_or(i64::MAX, |limit| limit.saturating_add(1))),
                ];
                let mut statement = connection.prepare_cached(&sql)?;
                for place in statement.query_map(params, read)? {
                    places.push(place?);
                }
            }
            places.sort_unstable_by_key(|place| place.seq);
            let fitting = fitting(&places, query);
            let is_last = fitting == places.len();
            let rows = places.iter().take(fitting).map(|place| read_version(connection, place));
            let mut rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            if let Some(moment) = self.as_of.moment() {
                for row in rows.iter_mut().filter(|row| row.removed_seq.is_some_and(|seq| seq > moment)) {
                    (row.removed_seq, row.removed_at) = (None, None);
                }
            }
            Ok(HistoryPage { rows, is_last })
        })
    }

    /// Whether this entity ever was in one of these scopes.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entity_was_in(&self, entity: MemoryId, scopes: &[Scope]) -> Result<bool, ReadError> {
        self.snapshot("whether there was an entity", |connection| {
            let scopes = serde_json::Value::from(scope_ids(connection, scopes)?).to_string();
            let sql = both(
                "SELECT 1 FROM entities e WHERE e.id = ?1 AND +e.created_seq <= ?2
                     AND +e.scope_id IN (SELECT value FROM json_each(?3)) AND e.removed_seq",
            );
            let key = (entity.0 as i64, self.as_of.limit(), scopes);
            let mut statement = connection.prepare_cached(&format!("{sql} LIMIT 1"))?;
            Ok(statement.query_row(key, |_| Ok(())).optional()?.is_some())
        })
    }
}

/// The statement that finds where versions stand. Nothing but their rows is asked for by the number of a record: an index
/// finds them by what they belong to.
fn places_sql(table: Table, condition: &str, bytes: &str) -> String {
    let (name, ..) = table.parts();
    let alias = table.alias();
    let scoped = match table {
        Table::Observations => ":scopes IS NOT NULL".to_owned(),
        Table::Entities | Table::Relations => {
            format!("+{alias}.scope_id IN (SELECT value FROM json_each(:scopes))")
        }
    };
    let sql = both(&format!(
        "SELECT +{alias}.created_seq, {bytes} FROM {name}
         WHERE {condition} AND +{alias}.created_seq > :after AND +{alias}.created_seq <= :moment AND {scoped}
             AND {alias}.removed_seq"
    ));
    format!("{sql} ORDER BY 1 LIMIT :limit")
}

/// How many of the places one page has room for.
fn fitting(places: &[Place], query: &HistoryQuery) -> usize {
    let mut bytes = 0_u64;
    let fits = |(index, place): &(usize, &Place)| {
        bytes = bytes.saturating_add(place.bytes as u64);
        *index == 0 || bytes <= query.bytes
    };
    places.iter().enumerate().take(query.limit).take_while(fits).count()
}

fn read_version(connection: &Connection, place: &Place) -> rusqlite::Result<HistoryRow> {
    let (name, columns, len, join) = place.table.parts();
    let alias = place.table.alias();
    let sql = format!(
        "SELECT {columns}, {alias}.created_seq, {alias}.updated_at, {alias}.actor, {alias}.removed_seq, {alias}.removed_at
         FROM {name} {join} WHERE {alias}.created_seq = ?1"
    );
    let read = |row: &Row<'_>| version(row, len, place.table.fact(row)?);
    connection.prepare_cached(&sql)?.query_row((place.seq,), read)
}

/// The columns of a version after those of its row.
pub(super) fn version(row: &Row<'_>, first: usize, fact: Fact) -> rusqlite::Result<HistoryRow> {
    Ok(HistoryRow {
        created_seq: columns::seq(row, first)?,
        created_at: columns::time(row, first + 1)?,
        actor: row.get(first + 2)?,
        removed_seq: row.get::<_, Option<i64>>(first + 3)?.map(|seq| Seq(seq as u64)),
        removed_at: columns::time_or_none(row, first + 4)?,
        fact,
    })
}

/// Present and past, each by its own index.
pub(super) fn both(select: &str) -> String {
    format!("{select} IS NULL UNION ALL {select} IS NOT NULL")
}
