//! Every version of an entity, of its observations and of its relations.

use caxton_events::MemoryId;
use rusqlite::{Connection, Row};

use super::reader::rows;
use super::{Fact, GraphReader, HistoryRow, ReadError, columns};

impl GraphReader {
    /// What was ever said of an entity, in the order it was recorded; empty when there was never such an entity.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn history(&self, entity: MemoryId) -> Result<Vec<HistoryRow>, ReadError> {
        self.snapshot("the history of an entity", |connection| {
            let mut found = entities(connection, entity)?;
            found.extend(observations(connection, entity)?);
            found.extend(relations(connection, entity, "r.from_entity = ?1")?);
            found.extend(relations(connection, entity, "r.to_entity = ?1 AND r.from_entity <> ?1")?);
            found.sort_by_key(|row| row.created_seq);
            if let Some(moment) = self.as_of.moment() {
                found.retain(|row| row.created_seq <= moment);
                for row in found.iter_mut().filter(|row| row.removed_seq.is_some_and(|seq| seq > moment)) {
                    (row.removed_seq, row.removed_at) = (None, None);
                }
            }
            Ok(found)
        })
    }
}

/// The columns of a version after those of its row.
pub(super) fn version(row: &Row<'_>, first: usize, fact: Fact) -> rusqlite::Result<HistoryRow> {
    Ok(HistoryRow {
        created_seq: columns::seq(row, first)?,
        created_at: columns::time(row, first + 1)?,
        actor: row.get(first + 2)?,
        removed_seq: row.get::<_, Option<i64>>(first + 3)?.map(|seq| caxton_events::Seq(seq as u64)),
        removed_at: columns::time_or_none(row, first + 4)?,
        fact,
    })
}

fn entities(connection: &Connection, entity: MemoryId) -> rusqlite::Result<Vec<HistoryRow>> {
    let sql = both(&format!(
        "SELECT {}, e.created_seq, e.updated_at, e.actor, e.removed_seq, e.removed_at
         FROM entities e CROSS JOIN scopes s ON s.id = e.scope_id WHERE e.id = ?1 AND e.removed_seq",
        columns::ENTITY
    ));
    rows(connection, &sql, (entity.0 as i64,), |row| {
        version(row, columns::ENTITY_LEN, Fact::Entity(columns::entity(row)?))
    })
}

fn observations(connection: &Connection, entity: MemoryId) -> rusqlite::Result<Vec<HistoryRow>> {
    let sql = both(&format!(
        "SELECT {}, o.created_seq, o.updated_at, o.actor, o.removed_seq, o.removed_at
         FROM observations o WHERE o.entity_id = ?1 AND o.removed_seq",
        columns::OBSERVATION
    ));
    rows(connection, &sql, (entity.0 as i64,), |row| {
        version(row, columns::OBSERVATION_LEN, Fact::Observation(columns::observation(row)?))
    })
}

fn relations(
    connection: &Connection,
    entity: MemoryId,
    condition: &str,
) -> rusqlite::Result<Vec<HistoryRow>> {
    let sql = both(&format!(
        "SELECT {}, r.created_seq, r.updated_at, r.actor, r.removed_seq, r.removed_at
         FROM relations r CROSS JOIN scopes s ON s.id = r.scope_id WHERE {condition} AND r.removed_seq",
        columns::RELATION
    ));
    rows(connection, &sql, (entity.0 as i64,), |row| {
        version(row, columns::RELATION_LEN, Fact::Relation(columns::relation(row)?))
    })
}

/// Present and past, each by its own index.
pub(super) fn both(select: &str) -> String {
    format!("{select} IS NULL UNION ALL {select} IS NOT NULL")
}
