//! Columns to rows: how each table is read.

use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope, Seq, Timestamp};
use rusqlite::Row;
use rusqlite::types::Type;

use super::{Entity, Observation, Relation};

/// What [`entity`] reads, of `entities e` and `scopes s`.
pub(super) const ENTITY: &str = "e.id, s.scope, e.name, e.entity_type, e.metadata, e.confidence, e.valid_from, e.valid_to, \
     e.version, e.created_at, e.updated_at, e.first_seq, e.created_seq, e.owner";
/// How many columns that is.
pub(super) const ENTITY_LEN: usize = 14;
/// What [`observation`] reads, of `observations o`.
pub(super) const OBSERVATION: &str = "o.id, o.entity_id, o.content, o.valid_from, o.valid_to, o.created_at, o.first_seq, \
     o.actor, o.updated_at, o.created_seq";
/// How many columns that is.
pub(super) const OBSERVATION_LEN: usize = 10;
/// What [`relation`] reads, of `relations r` and `scopes s`.
pub(super) const RELATION: &str = "r.id, s.scope, r.from_entity, r.to_entity, r.relation_type, r.strength, r.confidence, \
     r.metadata, r.valid_from, r.valid_to, r.created_at, r.updated_at, r.first_seq, r.actor";
/// How many columns that is.
pub(super) const RELATION_LEN: usize = 14;

pub(super) fn entity(row: &Row<'_>) -> rusqlite::Result<Entity> {
    Ok(Entity {
        id: id(row, 0)?,
        scope: scope(row, 1)?,
        name: row.get(2)?,
        entity_type: row.get(3)?,
        metadata: row.get(4)?,
        confidence: row.get(5)?,
        validity: validity(row, 6)?,
        version: row.get(8)?,
        created_at: time(row, 9)?,
        updated_at: time(row, 10)?,
        created_seq: seq(row, 11)?,
        updated_seq: seq(row, 12)?,
        owner: row.get(13)?,
    })
}

pub(super) fn observation(row: &Row<'_>) -> rusqlite::Result<Observation> {
    Ok(Observation {
        id: id(row, 0)?,
        entity: id(row, 1)?,
        content: row.get(2)?,
        validity: validity(row, 3)?,
        created_at: time(row, 5)?,
        created_seq: seq(row, 6)?,
        actor: row.get(7)?,
        updated_at: time(row, 8)?,
        updated_seq: seq(row, 9)?,
    })
}

pub(super) fn relation(row: &Row<'_>) -> rusqlite::Result<Relation> {
    Ok(Relation {
        id: id(row, 0)?,
        scope: scope(row, 1)?,
        from: id(row, 2)?,
        to: id(row, 3)?,
        relation_type: row.get(4)?,
        strength: row.get(5)?,
        confidence: row.get(6)?,
        metadata: row.get(7)?,
        validity: validity(row, 8)?,
        created_at: time(row, 10)?,
        updated_at: time(row, 11)?,
        created_seq: seq(row, 12)?,
        actor: row.get(13)?,
    })
}

pub(super) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<MemoryId> {
    Ok(MemoryId(row.get::<_, i64>(column)? as u64))
}

pub(super) fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    Ok(Seq(row.get::<_, i64>(column)? as u64))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_unix_micros(row.get::<_, i64>(column)? as u64))
}

pub(super) fn time_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let micros: Option<i64> = row.get(column)?;
    Ok(micros.map(|micros| Timestamp::from_unix_micros(micros as u64)))
}

/// The validity of which the columns begin at this one.
pub(super) fn validity(row: &Row<'_>, column: usize) -> rusqlite::Result<Validity> {
    Ok(Validity { from: time_or_none(row, column)?, to: time_or_none(row, column + 1)? })
}

pub(super) fn scope(row: &Row<'_>, column: usize) -> rusqlite::Result<Scope> {
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
