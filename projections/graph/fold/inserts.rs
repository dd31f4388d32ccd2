//! The statements that are run for most records, kept at hand while a batch is folded: none is looked for by its text.

use rusqlite::{CachedStatement, Connection};

const ENTITY: &str =
    "INSERT INTO entities(created_seq, id, scope_id, version, first_seq, created_at, updated_at, valid_from,
         valid_to, confidence, owner, actor, name, entity_type, metadata)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";

const OBSERVATION: &str =
    "INSERT INTO observations(created_seq, id, entity_id, scope_id, first_seq, created_at, updated_at,
         valid_from, valid_to, actor, content)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

const RELATION: &str =
    "INSERT INTO relations(created_seq, id, scope_id, from_entity, to_entity, first_seq, created_at,
         updated_at, valid_from, valid_to, strength, confidence, actor, relation_type, metadata)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";

#[derive(Default)]
pub(super) struct Inserts<'a> {
    entity: Option<CachedStatement<'a>>,
    observation: Option<CachedStatement<'a>>,
    relation: Option<CachedStatement<'a>>,
}

impl<'a> Inserts<'a> {
    pub(super) fn entity(&mut self, on: &'a Connection) -> rusqlite::Result<&mut CachedStatement<'a>> {
        prepared(&mut self.entity, on, ENTITY)
    }

    pub(super) fn observation(&mut self, on: &'a Connection) -> rusqlite::Result<&mut CachedStatement<'a>> {
        prepared(&mut self.observation, on, OBSERVATION)
    }

    pub(super) fn relation(&mut self, on: &'a Connection) -> rusqlite::Result<&mut CachedStatement<'a>> {
        prepared(&mut self.relation, on, RELATION)
    }
}

fn prepared<'s, 'a>(
    place: &'s mut Option<CachedStatement<'a>>,
    on: &'a Connection,
    sql: &str,
) -> rusqlite::Result<&'s mut CachedStatement<'a>> {
    match place {
        Some(statement) => Ok(statement),
        none => Ok(none.insert(on.prepare_cached(sql)?)),
    }
}
