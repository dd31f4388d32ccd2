//! The versions of single rows and what stands around them now: what an undo asks.

use std::fmt;
use std::sync::LazyLock;

use caxton_events::{MemoryId, Scope, Seq};
use rusqlite::{OptionalExtension, Row};

use super::connection::unread;
use super::history::{both, version};
use super::reader::{rows, scope_id};
use super::{Fact, GraphMoment, HistoryRow, ReadError, columns};

/// A row of the memory by its number, with what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowRef {
    /// An entity.
    Entity(MemoryId),
    /// An observation.
    Observation(MemoryId),
    /// A relation.
    Relation(MemoryId),
}

/// As answers show it: `ent_3`, `obs_4`, `rel_5`.
impl fmt::Display for RowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entity(id) => write!(f, "ent_{id}"),
            Self::Observation(id) => write!(f, "obs_{id}"),
            Self::Relation(id) => write!(f, "rel_{id}"),
        }
    }
}

impl GraphMoment<'_> {
    /// Every version of a row, the oldest first; empty when there was never such a row. `None`: their texts take more than
    /// `bytes_max`, behind which nothing is read.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn versions(&self, row: RowRef, bytes_max: usize) -> Result<Option<Vec<HistoryRow>>, ReadError> {
        static SQL: LazyLock<[String; 3]> = LazyLock::new(|| {
            [
                format!(
                    "SELECT {}, e.created_seq, e.updated_at, e.actor, e.removed_seq, e.removed_at
                     FROM entities e CROSS JOIN scopes s ON s.id = e.scope_id WHERE e.id = ?1 AND e.removed_seq",
                    columns::ENTITY
                ),
                format!(
                    "SELECT {}, o.created_seq, o.updated_at, o.actor, o.removed_seq, o.removed_at
                     FROM observations o WHERE o.id = ?1 AND o.removed_seq",
                    columns::OBSERVATION
                ),
                format!(
                    "SELECT {}, r.created_seq, r.updated_at, r.actor, r.removed_seq, r.removed_at
                     FROM relations r CROSS JOIN scopes s ON s.id = r.scope_id WHERE r.id = ?1 AND r.removed_seq",
                    columns::RELATION
                ),
            ]
            .map(|select| both(&select))
        });
        let read = |sql: &str, id: MemoryId, fact: fn(&Row<'_>) -> rusqlite::Result<HistoryRow>| {
            let mut statement = self.connection().prepare_cached(sql)?;
            let (mut found, mut bytes) = (Vec::new(), 0_usize);
            for version in statement.query_map((id.0 as i64,), fact)? {
                let version = version?;
                bytes = bytes.saturating_add(version.fact.text_bytes());
                if bytes > bytes_max {
                    return Ok(None);
                }
                found.push(version);
            }
            found.sort_by_key(|version| version.created_seq);
            Ok(Some(found))
        };
        let [entities, observations, relations] = &*SQL;
        let found = match row {
            RowRef::Entity(id) => read(entities, id, |row| {
                version(row, columns::ENTITY_LEN, Fact::Entity(columns::entity(row)?))
            }),
            RowRef::Observation(id) => read(observations, id, |row| {
                version(row, columns::OBSERVATION_LEN, Fact::Observation(columns::observation(row)?))
            }),
            RowRef::Relation(id) => read(relations, id, |row| {
                version(row, columns::RELATION_LEN, Fact::Relation(columns::relation(row)?))
            }),
        };
        found.map_err(unread("the versions of a row"))
    }

    /// The observations and relations that an entity of the present has, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn belongings(&self, entity: MemoryId) -> Result<Vec<RowRef>, ReadError> {
        let ids = |sql: &str, row: fn(MemoryId) -> RowRef| {
            rows(self.connection(), sql, (entity.0 as i64,), |found| Ok(row(columns::id(found, 0)?)))
        };
        let read = || {
            let mut found = ids(
                "SELECT id FROM observations WHERE entity_id = ?1 AND removed_seq IS NULL ORDER BY id",
                RowRef::Observation,
            )?;
            found.extend(ids(
                "SELECT id FROM relations WHERE from_entity = ?1 AND removed_seq IS NULL
                 UNION SELECT id FROM relations WHERE to_entity = ?1 AND removed_seq IS NULL ORDER BY id",
                RowRef::Relation,
            )?);
            Ok(found)
        };
        read().map_err(unread("what an entity has"))
    }

    /// What was removed together with an entity: its observations and relations whose removals stand right before its own
    /// at `seq`, each with its position.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn removed_with(&self, entity: MemoryId, seq: Seq) -> Result<Vec<(Seq, RowRef)>, ReadError> {
        const SQL: &str = "
            SELECT 0, o.id FROM observations o WHERE o.removed_seq = ?1 AND o.entity_id = ?2
                AND o.removed_at = (SELECT removed_at FROM entities WHERE removed_seq = ?3 AND id = ?2)
                AND NOT EXISTS (SELECT 1 FROM observations n WHERE n.created_seq = ?1)
            UNION ALL
            SELECT 1, r.id FROM relations r WHERE r.removed_seq = ?1 AND ?2 IN (r.from_entity, r.to_entity)
                AND r.removed_at = (SELECT removed_at FROM entities WHERE removed_seq = ?3 AND id = ?2)
                AND NOT EXISTS (SELECT 1 FROM relations n WHERE n.created_seq = ?1)";
        let read = || {
            let mut statement = self.connection().prepare_cached(SQL)?;
            let (mut found, mut at) = (Vec::new(), seq.previous());
            loop {
                let key = (at.0 as i64, entity.0 as i64, seq.0 as i64);
                let row = statement.query_row(key, |row| {
                    let id = columns::id(row, 1)?;
                    let is_relation: bool = row.get(0)?;
                    Ok(if is_relation { RowRef::Relation(id) } else { RowRef::Observation(id) })
                });
                let Some(row) = row.optional()? else { return Ok(found) };
                found.push((at, row));
                at = at.previous();
            }
        };
        read().map_err(unread("what was removed with an entity"))
    }

    /// The row of the present that stands where this one would: the entity of the same name in the scope, the observation
    /// of the same entity with the same text, the relation of the same ends and type in the scope.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn in_place_of(&self, fact: &Fact) -> Result<Option<RowRef>, ReadError> {
        let connection = self.connection();
        let of = |scope: &Scope| scope_id(connection, scope);
        let read = || match fact {
            Fact::Entity(entity) => {
                let Some(scope) = of(&entity.scope)? else { return Ok(None) };
                let sql = "SELECT id FROM entities WHERE name = ?1 AND scope_id = ?2 AND removed_seq IS NULL
                           ORDER BY id LIMIT 1";
                let mut statement = connection.prepare_cached(sql)?;
                let found = statement.query_row((&entity.name, scope), |row| columns::id(row, 0));
                Ok(found.optional()?.map(RowRef::Entity))
            }
            Fact::Observation(observation) => {
                let sql = "SELECT id FROM observations INDEXED BY idx_observations_content
                           WHERE substr(CAST(content AS BLOB), 1, 64) = substr(CAST(?1 AS BLOB), 1, 64)
                               AND content = ?1 AND entity_id = ?2 AND id <> ?3 AND removed_seq IS NULL
                           ORDER BY id LIMIT 1";
                let key = (&observation.content, observation.entity.0 as i64, observation.id.0 as i64);
                let found = connection.prepare_cached(sql)?.query_row(key, |row| columns::id(row, 0));
                Ok(found.optional()?.map(RowRef::Observation))
            }
            Fact::Relation(relation) => {
                let Some(scope) = of(&relation.scope)? else { return Ok(None) };
                let sql = "SELECT id FROM relations WHERE relation_type = ?1 AND from_entity = ?2 AND to_entity = ?3
                               AND scope_id = ?4 AND removed_seq IS NULL ORDER BY id LIMIT 1";
                let (from, to) = (relation.from.0 as i64, relation.to.0 as i64);
                let mut statement = connection.prepare_cached(sql)?;
                let found = statement
                    .query_row((&relation.relation_type, from, to, scope), |row| columns::id(row, 0));
                Ok(found.optional()?.map(RowRef::Relation))
            }
        };
        read().map_err(unread("the row in the place of another"))
    }
}
