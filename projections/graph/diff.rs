//! What differs between two records: which rows came, which are another version, which went.
//!
//! A row of the graph is one difference at most, however often it changed between the two: it stands at the record that
//! made it what it is at the end, or that removed it. So the differences have an order that pages can follow.

use caxton_events::{MemoryId, Scope, Seq};
use rusqlite::{Connection, Row, ToSql};

use super::as_of::AsOf;
use super::reader::{entity_by_id, observation_by_id, relation_by_id, scope_ids};
use super::{Fact, GraphReader, ReadError, columns};

/// Records that one call looks through; it answers early where there is little to find.
pub const DIFF_RECORDS_MAX: u64 = 100_000;
/// Rows that are read at a time.
const CHUNK: usize = 256;

/// Which differences to list, in the order of their records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffQuery {
    /// Only rows of these scopes; empty: of all.
    pub scopes: Vec<Scope>,
    /// The memory as it was after this record …
    pub from: Seq,
    /// … and after this one, which is not before it and which the graph includes.
    pub to: Seq,
    /// Only behind this record: where the page before ended; `from` at first.
    pub after: Seq,
    /// At most so many.
    pub limit: usize,
    /// At most up to the one with which their texts take so many bytes.
    pub bytes: u64,
}

/// A row that is not the same at both ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The record that made it what it is at the end, or removed it.
    pub seq: Seq,
    /// What it was at the beginning; `None`: it was not there.
    pub before: Option<Fact>,
    /// What it is at the end; `None`: it is not there any more.
    pub after: Option<Fact>,
}

impl Difference {
    /// How many bytes its texts take.
    pub fn text_bytes(&self) -> usize {
        [&self.before, &self.after].into_iter().flatten().map(Fact::text_bytes).sum()
    }
}

/// One page of differences.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// In the order of their records.
    pub differences: Vec<Difference>,
    /// What was looked through: before [`DiffQuery::to`] when there may be more behind it.
    pub through: Seq,
}

impl GraphReader {
    /// What differs in the memory between two records. The moment of the handle does not matter.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn diff(&self, query: &DiffQuery) -> Result<Diff, ReadError> {
        self.snapshot("the differences between two records", |connection| {
            let scopes = serde_json::Value::from(scope_ids(connection, &query.scopes)?).to_string();
            let end = query.to.min(Seq(query.after.0.saturating_add(DIFF_RECORDS_MAX)));
            let (mut found, mut place, mut bytes) = (Vec::new(), query.after, 0_u64);
            loop {
                let window = Window { query, scopes: &scopes, after: place, end };
                let candidates = window.candidates(connection)?;
                let is_last = candidates.len() < CHUNK;
                for candidate in candidates {
                    place = candidate.seq;
                    if let Some(difference) = compared(connection, query, &candidate)? {
                        bytes = bytes.saturating_add(difference.text_bytes() as u64);
                        found.push(difference);
                    }
                    if found.len() >= query.limit || bytes >= query.bytes {
                        return Ok(Diff { differences: found, through: place });
                    }
                }
                if is_last {
                    return Ok(Diff { differences: found, through: end });
                }
            }
        })
    }
}

/// The three kinds of rows.
#[derive(Clone, Copy)]
pub(super) enum Table {
    Entities,
    Observations,
    Relations,
}

impl Table {
    /// What a statement calls it.
    pub(super) const fn alias(self) -> &'static str {
        match self {
            Self::Entities => "e",
            Self::Observations => "o",
            Self::Relations => "r",
        }
    }

    /// Its name, its columns, how many they are, and what they are read with.
    pub(super) const fn parts(self) -> (&'static str, &'static str, usize, &'static str) {
        const SCOPES: &str = "CROSS JOIN scopes s ON s.id = e.scope_id";
        match self {
            Self::Entities => ("entities e", columns::ENTITY, columns::ENTITY_LEN, SCOPES),
            Self::Observations => ("observations o", columns::OBSERVATION, columns::OBSERVATION_LEN, ""),
            Self::Relations => (
                "relations r",
                columns::RELATION,
                columns::RELATION_LEN,
                "CROSS JOIN scopes s ON s.id = r.scope_id",
            ),
        }
    }

    pub(super) fn fact(self, row: &Row<'_>) -> rusqlite::Result<Fact> {
        Ok(match self {
            Self::Entities => Fact::Entity(columns::entity(row)?),
            Self::Observations => Fact::Observation(columns::observation(row)?),
            Self::Relations => Fact::Relation(columns::relation(row)?),
        })
    }
}

/// The last thing that happened to a row. Its texts are read when it is compared: many rows are candidates.
struct Candidate {
    table: Table,
    seq: Seq,
    /// The record that wrote the version.
    written: i64,
    /// Whether the row was there at the beginning.
    was_there: bool,
    is_removed: bool,
}

impl Candidate {
    /// The version that was made, or removed.
    fn fact(&self, connection: &Connection) -> rusqlite::Result<Fact> {
        let ((name, columns, _, join), alias) = (self.table.parts(), self.table.alias());
        let sql = format!("SELECT {columns} FROM {name} {join} WHERE {alias}.created_seq = ?1");
        connection.prepare_cached(&sql)?.query_row((self.written,), |row| self.table.fact(row))
    }
}

/// The records that are looked through.
struct Window<'a> {
    query: &'a DiffQuery,
    scopes: &'a str,
    after: Seq,
    end: Seq,
}

impl Window<'_> {
    /// The next rows that a record of the window made what they are at the end, or removed for good.
    fn candidates(&self, connection: &Connection) -> rusqlite::Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for table in [Table::Entities, Table::Observations, Table::Relations] {
            found.extend(self.made(connection, table)?);
            found.extend(self.removed(connection, table)?);
        }
        found.sort_unstable_by_key(|candidate| candidate.seq);
        found.truncate(CHUNK);
        Ok(found)
    }

    fn made(&self, connection: &Connection, table: Table) -> rusqlite::Result<Vec<Candidate>> {
        let ((name, ..), alias) = (table.parts(), table.alias());
        let sql = format!(
            "SELECT {alias}.created_seq, {alias}.created_seq, {alias}.first_seq <= :from FROM {name}
             WHERE {alias}.created_seq > :after AND {alias}.created_seq <= :end
                 AND ({alias}.removed_seq IS NULL OR {alias}.removed_seq > :to)
                 AND {alias}.scope_id IN (SELECT value FROM json_each(:scopes))
             ORDER BY {alias}.created_seq LIMIT :limit"
        );
        self.rows(connection, &sql, false, table)
    }

    fn removed(&self, connection: &Connection, table: Table) -> rusqlite::Result<Vec<Candidate>> {
        let ((name, ..), alias) = (table.parts(), table.alias());
        let bare = &name[..name.len() - 2];
        // A row of which there is a later version up to the end is that version's difference; one that came after the
        // beginning is none.
        let sql = format!(
            "SELECT {alias}.created_seq, {alias}.removed_seq, 1 FROM {name} INDEXED BY idx_{bare}_removed
             WHERE {alias}.removed_seq > :after AND {alias}.removed_seq <= :end AND {alias}.first_seq <= :from
                 AND {alias}.scope_id IN (SELECT value FROM json_each(:scopes))
                 AND NOT EXISTS (SELECT 1 FROM {bare} n WHERE n.id = {alias}.id AND n.removed_seq IS NULL
                     AND n.created_seq <= :to)
                 AND NOT EXISTS (SELECT 1 FROM {bare} n WHERE n.id = {alias}.id AND n.removed_seq > {alias}.removed_seq
                     AND n.created_seq <= :to)
             ORDER BY {alias}.removed_seq LIMIT :limit"
        );
        self.rows(connection, &sql, true, table)
    }

    fn rows(
        &self,
        connection: &Connection,
        sql: &str,
        is_removed: bool,
        table: Table,
    ) -> rusqlite::Result<Vec<Candidate>> {
        let (from, to) = (self.query.from.0 as i64, self.query.to.0 as i64);
        let (after, end) = (self.after.0 as i64, self.end.0 as i64);
        let params: &[(&str, &dyn ToSql)] = &[
            (":from", &from),
            (":to", &to),
            (":after", &after),
            (":end", &end),
            (":scopes", &self.scopes),
            (":limit", &(CHUNK as i64)),
        ];
        let read = |row: &Row<'_>| {
            Ok(Candidate {
                table,
                written: row.get(0)?,
                seq: columns::seq(row, 1)?,
                was_there: row.get(2)?,
                is_removed,
            })
        };
        connection.prepare_cached(sql)?.query_map(params, read)?.collect()
    }
}

/// The difference that a candidate is; none when it ends as it began.
fn compared(
    connection: &Connection,
    query: &DiffQuery,
    candidate: &Candidate,
) -> rusqlite::Result<Option<Difference>> {
    let Candidate { seq, was_there, is_removed, .. } = *candidate;
    let fact = candidate.fact(connection)?;
    let before = if was_there { version(connection, AsOf::seq(query.from), &fact)? } else { None };
    let after = (!is_removed).then_some(fact);
    let same = match (&before, &after) {
        (Some(before), Some(after)) => before.is_as(after),
        (before, after) => before.is_none() && after.is_none(),
    };
    Ok((!same).then_some(Difference { seq, before, after }))
}

/// The same row as it was at another moment.
fn version(connection: &Connection, as_of: AsOf, fact: &Fact) -> rusqlite::Result<Option<Fact>> {
    let id = id_of(fact);
    Ok(match fact {
        Fact::Entity(_) => entity_by_id(connection, as_of, id)?.map(Fact::Entity),
        Fact::Observation(_) => observation_by_id(connection, as_of, id)?.map(Fact::Observation),
        Fact::Relation(_) => relation_by_id(connection, as_of, id)?.map(Fact::Relation),
    })
}

fn id_of(fact: &Fact) -> MemoryId {
    match fact {
        Fact::Entity(row) => row.id,
        Fact::Observation(row) => row.id,
        Fact::Relation(row) => row.id,
    }
}
