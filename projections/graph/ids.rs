//! Numbers of rows without what they say: of what goes together with an entity or a scope nothing else is needed, and it may be
//! very much text.

use caxton_events::{MemoryId, Scope};
use rusqlite::ToSql;

use super::as_of::Params;
use super::list::number;
use super::reader::scope_id;
use super::{GraphReader, ReadError, columns};

impl GraphReader {
    /// The numbers of up to `limit` observations of an entity after the one given, in their order.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observation_ids_of(
        &self,
        entity: MemoryId,
        after: Option<MemoryId>,
        limit: usize,
    ) -> Result<Vec<MemoryId>, ReadError> {
        let sql = self.as_of.sql("o", |alive| {
            format!(
                "SELECT o.id FROM observations o WHERE o.entity_id = :entity AND o.id > :after AND {alive}"
            )
        });
        self.ids("observations of an entity", &sql, &[(":entity", &(entity.0 as i64))], (after, limit))
    }

    /// The numbers of up to `limit` relations of an entity after the one given, in their order, each with its scope. One of an
    /// entity to itself comes once.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn relation_ids_of(
        &self,
        entity: MemoryId,
        after: Option<MemoryId>,
        limit: usize,
    ) -> Result<Vec<(MemoryId, Scope)>, ReadError> {
        let sql = self.as_of.sql("r", |alive| {
            let one_end = |end: &str| {
                format!(
                    "SELECT r.id, s.scope FROM relations r CROSS JOIN scopes s ON s.id = r.scope_id
                     WHERE r.{end} = :entity AND r.id > :after AND {alive}"
                )
            };
            let (outgoing, incoming) = (one_end("from_entity"), one_end("to_entity"));
            format!("{outgoing} UNION ALL {incoming} AND r.from_entity <> :entity")
        });
        let (entity, after, limit) = (entity.0 as i64, number(after), limit as i64);
        self.with("the relations of an entity", |connection| {
            let params: Params<'_> = &[(":entity", &entity), (":after", &after), (":limit", &limit)];
            let sql = format!("{sql} ORDER BY 1 LIMIT :limit");
            self.as_of
                .rows(connection, &sql, params, |row| Ok((columns::id(row, 0)?, columns::scope(row, 1)?)))
        })
    }

    /// The numbers of up to `limit` relations of a scope after the one given, in their order.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn relation_ids_in(
        &self,
        scope: &Scope,
        after: Option<MemoryId>,
        limit: usize,
    ) -> Result<Vec<MemoryId>, ReadError> {
        let Some(scope) = self.with("a scope", |connection| scope_id(connection, scope))? else {
            return Ok(Vec::new());
        };
        let sql = self.as_of.sql("r", |alive| {
            format!("SELECT r.id FROM relations r WHERE r.scope_id = :scope AND r.id > :after AND {alive}")
        });
        self.ids("relations of a scope", &sql, &[(":scope", &scope)], (after, limit))
    }

    /// The numbers of up to `limit` entities of a scope after the one given, in their order: of these types, or of all when there
    /// are none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entity_ids_in(
        &self,
        scope: &Scope,
        entity_types: &[String],
        after: Option<MemoryId>,
        limit: usize,
    ) -> Result<Vec<MemoryId>, ReadError> {
        let Some(scope) = self.with("a scope", |connection| scope_id(connection, scope))? else {
            return Ok(Vec::new());
        };
        let (what, page) = ("entities of a scope", (after, limit));
        let sql = |typed: &str| {
            self.as_of.sql("e", |alive| {
                format!(
                    "SELECT e.id FROM entities e WHERE e.scope_id = :scope{typed} AND e.id > :after AND {alive}"
                )
            })
        };
        if entity_types.is_empty() {
            return self.ids(what, &sql(""), &[(":scope", &scope)], page);
        }
        let (sql, mut found) = (sql(" AND e.entity_type = :type"), Vec::new());
        for entity_type in entity_types {
            found.extend(self.ids(what, &sql, &[(":scope", &scope), (":type", entity_type)], page)?);
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }

    /// One page of what `sql` selects.
    fn ids(
        &self,
        what: &'static str,
        sql: &str,
        params: Params<'_>,
        (after, limit): (Option<MemoryId>, usize),
    ) -> Result<Vec<MemoryId>, ReadError> {
        let (after, limit) = (number(after), limit as i64);
        let mut params: Vec<(&str, &dyn ToSql)> = params.to_vec();
        params.push((":after", &after));
        params.push((":limit", &limit));
        self.with(what, |connection| {
            let sql = format!("{sql} ORDER BY 1 LIMIT :limit");
            self.as_of.rows(connection, &sql, &params, |row| columns::id(row, 0))
        })
    }
}
