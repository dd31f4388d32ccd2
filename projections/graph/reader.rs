//! The reading side: rows by number, by name, by neighbour.

use std::sync::{Arc, LazyLock};

use caxton_events::{AgentId, MemoryId, Scope, Seq, Timestamp};
use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::as_of::{AsOf, Listed};
use super::connection::unread;
use super::list::VALID_AT;
use super::pool::Pool;
use super::{
    Direction, Entity, GraphMoment, GraphStats, Observation, ReadError, Relation, RelationFilter, ScopeStats,
    columns,
};

/// A handle for queries of the graph; cheap to clone, usable from any thread.
///
/// Each call borrows a read connection and sees one committed state. A call fails with [`ReadError::Exhausted`] when
/// none is free for as long as [`SqliteOptions::reader_wait`](super::SqliteOptions::reader_wait), and with
/// [`ReadError::Sqlite`] when the file cannot be read.
///
/// It looks at the present, or, after [`as_of`](Self::as_of), at what the graph held after a record: then every query
/// that speaks of the present means that moment.
#[derive(Debug, Clone)]
pub struct GraphReader {
    pool: Arc<Pool>,
    pub(super) as_of: AsOf,
}

impl GraphReader {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, as_of: AsOf::default() }
    }

    pub(super) const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// A handle that sees the graph as it was after the record `seq`, which it must include: what was written later is not
    /// there, and what was replaced or removed later still is.
    #[must_use]
    pub fn as_of(&self, seq: Seq) -> Self {
        Self { pool: Arc::clone(&self.pool), as_of: AsOf::seq(seq) }
    }

    /// The last record the graph includes, whatever moment the handle looks at.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn checkpoint(&self) -> Result<Seq, ReadError> {
        let seq: i64 = self.one("the checkpoint", "SELECT checkpoint FROM meta", (), |row| row.get(0))?;
        Ok(Seq(seq as u64))
    }

    /// The number the next memory row gets: one above every number ever given.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn next_id(&self) -> Result<MemoryId, ReadError> {
        let id: i64 = self.one("the next number", "SELECT next_id FROM meta", (), |row| row.get(0))?;
        Ok(MemoryId(id as u64))
    }

    /// The entity with this number, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entity(&self, id: MemoryId) -> Result<Option<Entity>, ReadError> {
        self.with("an entity", |connection| entity_by_id(connection, self.as_of, id))
    }

    /// The entity with this name in `scope`, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entity_by_name(&self, scope: &Scope, name: &str) -> Result<Option<Entity>, ReadError> {
        self.snapshot("an entity by its name", |connection| {
            let Some(scope) = scope_id(connection, scope)? else { return Ok(None) };
            let sql = self.as_of.sql("e", |alive| {
                format!(
                    "SELECT {} FROM entities e CROSS JOIN scopes s ON s.id = e.scope_id
                     WHERE e.name = :name AND e.scope_id = :scope AND {alive}",
                    columns::ENTITY
                )
            });
            let sql = format!("{sql} ORDER BY 1 LIMIT 1");
            self.as_of.one(connection, &sql, &[(":name", &name), (":scope", &scope)], columns::entity)
        })
    }

    /// Those of these entities that are in the present, in the order asked for.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entities(&self, ids: &[MemoryId]) -> Result<Vec<Entity>, ReadError> {
        self.snapshot("entities", |connection| {
            ids.iter().filter_map(|id| entity_by_id(connection, self.as_of, *id).transpose()).collect()
        })
    }

    /// The observation with this number, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observation(&self, id: MemoryId) -> Result<Option<Observation>, ReadError> {
        self.with("an observation", |connection| observation_by_id(connection, self.as_of, id))
    }

    /// Those of these observations that are in the present, in the order asked for.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observations(&self, ids: &[MemoryId]) -> Result<Vec<Observation>, ReadError> {
        self.snapshot("observations", |connection| {
            ids.iter().filter_map(|id| observation_by_id(connection, self.as_of, *id).transpose()).collect()
        })
    }

    /// Up to `limit` observations of an entity after the one given, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observations_of(
        &self,
        entity: MemoryId,
        after: Option<MemoryId>,
        limit: usize,
    ) -> Result<Vec<Observation>, ReadError> {
        self.with("observations of an entity", |connection| {
            observations_beyond(connection, self.as_of, Side::After, entity, after.unwrap_or_default(), limit)
        })
    }

    /// The observation of an entity with exactly this text, the first if there are several.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observation_by_content(
        &self,
        entity: MemoryId,
        content: &str,
    ) -> Result<Option<Observation>, ReadError> {
        if self.as_of.moment().is_some() {
            // Texts of the past have no index of their own: those of the entity are looked through.
            return self.with("an observation by its text", |connection| {
                let sql = self.as_of.sql("o", |alive| {
                    format!(
                        "SELECT {} FROM observations o WHERE o.entity_id = :entity AND o.content = :content AND {alive}",
                        columns::OBSERVATION
                    )
                });
                let sql = format!("{sql} ORDER BY 1 LIMIT 1");
                let params: &[(&str, &dyn rusqlite::ToSql)] =
                    &[(":entity", &(entity.0 as i64)), (":content", &content)];
                self.as_of.one(connection, &sql, params, columns::observation)
            });
        }
        let sql = format!(
            "SELECT {} FROM observations o INDEXED BY idx_observations_content
             WHERE substr(CAST(o.content AS BLOB), 1, 64) = substr(CAST(?1 AS BLOB), 1, 64) AND o.content = ?1
                 AND o.entity_id = ?2 AND o.removed_seq IS NULL ORDER BY o.id LIMIT 1",
            columns::OBSERVATION
        );
        self.with("an observation by its text", |connection| {
            connection
                .prepare_cached(&sql)?
                .query_row((content, entity.0 as i64), columns::observation)
                .optional()
        })
    }

    /// How many observations an entity has.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observation_count(&self, entity: MemoryId) -> Result<u64, ReadError> {
        let sql = self.as_of.sql("o", |alive| {
            format!("SELECT count(*) FROM observations o WHERE o.entity_id = :entity AND {alive}")
        });
        self.with("the observations of an entity", |connection| {
            let counts = self.as_of.rows(connection, &sql, &[(":entity", &(entity.0 as i64))], |row| {
                row.get::<_, i64>(0).map(|count| count as u64)
            });
            Ok(counts?.into_iter().sum())
        })
    }

    /// How many observations of an entity are true at `at`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observation_count_at(&self, entity: MemoryId, at: Timestamp) -> Result<u64, ReadError> {
        let sql = self.as_of.sql("o", |alive| {
            format!(
                "SELECT count(*) FROM observations o
                 WHERE o.entity_id = :entity AND {alive} AND {VALID_AT}"
            )
        });
        self.with("the observations of an entity", |connection| {
            let (entity, at) = (entity.0 as i64, at.unix_micros() as i64);
            let params: &[(&str, &dyn rusqlite::ToSql)] = &[(":entity", &entity), (":at", &at)];
            let counts = self
                .as_of
                .rows(connection, &sql, params, |row| row.get::<_, i64>(0).map(|count| count as u64));
            Ok(counts?.into_iter().sum())
        })
    }

    /// The relation with this number, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn relation(&self, id: MemoryId) -> Result<Option<Relation>, ReadError> {
        self.with("a relation", |connection| relation_by_id(connection, self.as_of, id))
    }

    /// The relation that says `relation_type` from one entity to another in `scope`, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn relation_by_triple(
        &self,
        scope: &Scope,
        from: MemoryId,
        to: MemoryId,
        relation_type: &str,
    ) -> Result<Option<Relation>, ReadError> {
        let sql = relation_sql(
            self.as_of,
            "r.relation_type = :type AND r.from_entity = :from AND r.to_entity = :to AND s.scope = :scope",
        );
        self.with("a relation by its ends", |connection| {
            let (from, to, scope) = (from.0 as i64, to.0 as i64, scope.to_string());
            let params: &[(&str, &dyn rusqlite::ToSql)] =
                &[(":type", &relation_type), (":from", &from), (":to", &to), (":scope", &scope)];
            self.as_of.one(connection, &sql, params, columns::relation)
        })
    }

    /// Up to `limit` relations of an entity after the one given, in the order of their numbers: of these types (empty:
    /// all) and at least so strong. A relation of an entity to itself comes once.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn relations_of(
        &self,
        entity: MemoryId,
        direction: Direction,
        types: &[String],
        min_strength: f64,
        after: Option<MemoryId>,
        limit: usize,
    ) -> Result<Vec<Relation>, ReadError> {
        let filter = RelationFilter {
            relation_types: types.to_vec(),
            min_strength,
            after,
            limit,
            ..RelationFilter::default()
        };
        self.relations_around(entity, direction, &filter)
    }

    /// How many rows there are in the present: in these scopes, or in all.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn stats(&self, scopes: Option<&[Scope]>) -> Result<GraphStats, ReadError> {
        self.snapshot("the figures of the graph", |connection| {
            let sql = match self.as_of.moment() {
                None => "SELECT scope, entities, observations, relations FROM scopes ORDER BY id",
                Some(_) => {
                    "SELECT s.scope, f.entities, f.observations, f.relations
                     FROM scopes s CROSS JOIN figures f ON f.scope_id = s.id
                     WHERE f.seq = (SELECT max(seq) FROM figures WHERE scope_id = s.id AND seq <= :as_of)
                     ORDER BY s.id"
                }
            };
            let all = self.as_of.rows(connection, sql, &[], |row| {
                let count = |column| row.get::<_, i64>(column).map(|count| count as u64);
                Ok(ScopeStats {
                    scope: columns::scope(row, 0)?,
                    entities: count(1)?,
                    observations: count(2)?,
                    relations: count(3)?,
                })
            })?;
            let agents: i64 = connection
                .prepare_cached("SELECT count(*) FROM agents WHERE created_seq <= ?1")?
                .query_row((self.as_of.limit(),), |row| row.get(0))?;
            let mut stats = GraphStats { agents: agents as u64, ..GraphStats::default() };
            for scope in all {
                if scopes.is_none_or(|scopes| scopes.contains(&scope.scope)) {
                    stats.entities += scope.entities;
                    stats.observations += scope.observations;
                    stats.relations += scope.relations;
                    stats.scopes.push(scope);
                }
            }
            Ok(stats)
        })
    }

    /// How many entities of the present this agent created, in all scopes.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entities_owned(&self, owner: &AgentId) -> Result<u64, ReadError> {
        let sql = self
            .as_of
            .sql("e", |alive| format!("SELECT count(*) FROM entities e WHERE e.owner = :owner AND {alive}"));
        self.with("the entities of an agent", |connection| {
            let counts = self.as_of.rows(connection, &sql, &[(":owner", &owner.as_str())], |row| {
                row.get::<_, i64>(0).map(|count| count as u64)
            });
            Ok(counts?.into_iter().sum())
        })
    }

    /// Whether this agent ever wrote.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn agent_known(&self, agent: &AgentId) -> Result<bool, ReadError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM agents WHERE agent_id = ?1 AND created_seq <= ?2)";
        self.one("an agent", sql, (agent.as_str(), self.as_of.limit()), |row| row.get(0))
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &std::path::Path {
        self.pool.path()
    }

    /// Size of the file and its journal, in bytes.
    pub fn file_bytes(&self) -> u64 {
        let path = self.pool.path();
        let mut journal = path.clone().into_os_string();
        journal.push("-wal");
        let len = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |file| file.len());
        len(path) + len(journal.as_ref())
    }

    /// Asks several questions about one state. `read` must not ask the reader itself: it holds a connection, and
    /// there may be no other.
    ///
    /// # Errors
    ///
    /// [`ReadError`], and what `read` fails with.
    pub fn at_once<T>(
        &self,
        read: impl FnOnce(&GraphMoment<'_>) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let connection = self.pool.borrow()?;
        let transaction = connection.unchecked_transaction().map_err(unread("the graph"))?;
        let answer = read(&GraphMoment::new(&transaction, self.as_of))?;
        transaction.commit().map_err(unread("the graph"))?;
        Ok(answer)
    }

    /// Reads with a borrowed connection. One statement sees one state.
    pub(super) fn with<T>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        read(&*self.pool.borrow()?).map_err(unread(what))
    }

    /// Reads with a borrowed connection inside a transaction, so that several statements see one state.
    pub(super) fn snapshot<T>(
        &self,
        what: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        self.with(what, |connection| {
            let transaction = connection.unchecked_transaction()?;
            let answer = read(&transaction)?;
            transaction.commit()?;
            Ok(answer)
        })
    }

    fn one<T>(
        &self,
        what: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        self.with(what, |connection| connection.prepare_cached(sql)?.query_row(params, read))
    }
}

/// All rows of a statement.
pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, read)?.collect()
}

/// The number of a scope, if anything was ever written to it.
pub(super) fn scope_id(connection: &Connection, scope: &Scope) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM scopes WHERE scope = ?1")?
        .query_row((scope.to_string(),), |row| row.get(0))
        .optional()
}

/// The numbers of these scopes, or of all when the list is empty; scopes nobody wrote to have none.
pub(super) fn scope_ids(connection: &Connection, scopes: &[Scope]) -> rusqlite::Result<Vec<i64>> {
    if scopes.is_empty() {
        return rows(connection, "SELECT id FROM scopes ORDER BY id", (), |row| row.get(0));
    }
    let mut ids = Vec::with_capacity(scopes.len());
    for scope in scopes {
        ids.extend(scope_id(connection, scope)?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// A list of types as one parameter for `json_each`; `None`: no restriction.
pub(super) fn type_list(types: &[String]) -> Option<String> {
    (!types.is_empty()).then(|| serde_json::Value::from(types).to_string())
}

/// Reads relations under a condition on all that is looked at.
pub(super) fn relation_sql(as_of: AsOf, condition: &str) -> String {
    as_of.sql("r", |alive| relation_where(&format!("{condition} AND {alive}")))
}

fn relation_where(condition: &str) -> String {
    relation_from("relations r", condition)
}

/// Reads relations from a source of them.
pub(super) fn relation_from(source: &str, condition: &str) -> String {
    format!(
        "SELECT {} FROM {source} CROSS JOIN scopes s ON s.id = r.scope_id WHERE {condition}",
        columns::RELATION
    )
}

pub(super) fn entity_by_id(
    connection: &Connection,
    as_of: AsOf,
    id: MemoryId,
) -> rusqlite::Result<Option<Entity>> {
    static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
        AsOf::by_id("entities", "e", |condition| {
            format!(
                "SELECT {} FROM entities e CROSS JOIN scopes s ON s.id = e.scope_id WHERE {condition}",
                columns::ENTITY
            )
        })
    });
    as_of.one(connection, as_of.of(&SQL), &[(":id", &(id.0 as i64))], columns::entity)
}

pub(super) fn observation_by_id(
    connection: &Connection,
    as_of: AsOf,
    id: MemoryId,
) -> rusqlite::Result<Option<Observation>> {
    static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
        AsOf::by_id("observations", "o", |condition| {
            format!("SELECT {} FROM observations o WHERE {condition}", columns::OBSERVATION)
        })
    });
    as_of.one(connection, as_of.of(&SQL), &[(":id", &(id.0 as i64))], columns::observation)
}

pub(super) fn relation_by_id(
    connection: &Connection,
    as_of: AsOf,
    id: MemoryId,
) -> rusqlite::Result<Option<Relation>> {
    static SQL: LazyLock<[String; 2]> = LazyLock::new(|| AsOf::by_id("relations", "r", relation_where));
    as_of.one(connection, as_of.of(&SQL), &[(":id", &(id.0 as i64))], columns::relation)
}

/// Which way from an observation.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Before,
    After,
}

/// Observations of an entity on one side of a number, nearest first.
pub(super) fn observations_beyond(
    connection: &Connection,
    as_of: AsOf,
    side: Side,
    entity: MemoryId,
    from: MemoryId,
    limit: usize,
) -> rusqlite::Result<Vec<Observation>> {
    static SQL: LazyLock<[[String; 2]; 2]> = LazyLock::new(|| {
        [("<", "DESC"), (">", "ASC")].map(|(compare, order)| {
            let select = |alive: &str| {
                format!(
                    "SELECT {} FROM observations o
                     WHERE o.entity_id = :entity AND o.id {compare} :from AND {alive}",
                    columns::OBSERVATION
                )
            };
            AsOf::both("o", select).map(|sql| format!("{sql} ORDER BY 1 {order} LIMIT :limit"))
        })
    });
    let (entity, number, limit) = (entity.0 as i64, from.0 as i64, limit as i64);
    let params: &[(&str, &dyn rusqlite::ToSql)] =
        &[(":entity", &entity), (":from", &number), (":limit", &limit)];
    let [before, after] = &*SQL;
    let sql = match side {
        Side::Before => before,
        // Most entities have one page: what was removed of them is looked through once, whatever it is.
        Side::After if from == MemoryId(0) || as_of.moment().is_none() => after,
        Side::After => {
            let condition = "o.entity_id = :entity AND o.id > :from";
            let placed = &params[..2];
            let listed = Listed { table: "observations", alias: "o", condition, params: placed };
            let sql = as_of.list_sql("o", &as_of.sources(connection, &listed)?, |source, alive| {
                format!("SELECT {} FROM {source} WHERE {condition} AND {alive}", columns::OBSERVATION)
            });
            let sql = format!("{sql} ORDER BY 1 LIMIT :limit");
            return as_of.rows(connection, &sql, params, columns::observation);
        }
    };
    as_of.rows(connection, as_of.of(sql), params, columns::observation)
}
