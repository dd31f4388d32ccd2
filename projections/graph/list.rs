//! Lists in the order of numbers, page by page.
//!
//! A list over several scopes or types is merged from one indexed walk each, none longer than the page: sorting all rows
//! of a large scope for every page would take as long as the scope is large.

use caxton_events::{MemoryId, Timestamp};
use rusqlite::{Connection, ToSql};

use super::as_of::{AsOf, Listed};
use super::in_scopes::InScopes;
use super::reader::{relation_from, relation_sql, scope_ids, type_list};
use super::{Direction, Entity, EntityFilter, GraphReader, ReadError, Relation, RelationFilter, columns};

/// That a row is true at `:at`, when it is given.
pub(super) const VALID_AT: &str =
    "(:at IS NULL OR (valid_from IS NULL OR valid_from <= :at) AND (valid_to IS NULL OR valid_to > :at))";

/// That a row is true at some time from `:since` on and before `:until`, to stand behind another condition.
const VALID_BETWEEN: &str =
    " AND (valid_from IS NULL OR valid_from < :until) AND (valid_to IS NULL OR valid_to > :since)";

impl GraphReader {
    /// The entities that pass the filter, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn list_entities(&self, filter: &EntityFilter) -> Result<Vec<Entity>, ReadError> {
        self.snapshot("a list of entities", |connection| {
            if let Some(prefix) = filter.name_prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
                return entities_by_prefix(connection, self.as_of, filter, prefix);
            }
            if filter.scopes.is_empty() && filter.entity_types.is_empty() {
                return entities(connection, self.as_of, filter, None, None);
            }
            let mut found = Vec::new();
            for scope in scope_ids(connection, &filter.scopes)? {
                if filter.entity_types.is_empty() {
                    found.extend(entities(connection, self.as_of, filter, Some(scope), None)?);
                }
                for (index, entity_type) in filter.entity_types.iter().enumerate() {
                    if !filter.entity_types.iter().take(index).any(|earlier| earlier == entity_type) {
                        found.extend(entities(
                            connection,
                            self.as_of,
                            filter,
                            Some(scope),
                            Some(entity_type),
                        )?);
                    }
                }
            }
            found.sort_unstable_by_key(|entity| entity.id);
            found.truncate(filter.limit);
            Ok(found)
        })
    }

    /// The relations that pass the filter, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn list_relations(&self, filter: &RelationFilter) -> Result<Vec<Relation>, ReadError> {
        self.snapshot("a list of relations", |connection| {
            if filter.scopes.is_empty() {
                return relations(connection, self.as_of, filter, None);
            }
            let mut found = Vec::new();
            for scope in scope_ids(connection, &filter.scopes)? {
                found.extend(relations(connection, self.as_of, filter, Some(scope))?);
            }
            found.sort_unstable_by_key(|relation| relation.id);
            found.truncate(filter.limit);
            Ok(found)
        })
    }

    /// The relations of an entity that pass the filter, in the order of their numbers. One of an entity to itself comes once.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn relations_around(
        &self,
        entity: MemoryId,
        direction: Direction,
        filter: &RelationFilter,
    ) -> Result<Vec<Relation>, ReadError> {
        self.snapshot("the relations of an entity", |connection| {
            let scopes = InScopes::of(connection, &filter.scopes)?;
            let one_end = |end: &str| relations_at(connection, self.as_of, (entity, end), (filter, &scopes));
            let mut found = Vec::new();
            if direction != Direction::Incoming {
                found = one_end("r.from_entity = :entity")?;
            }
            if direction != Direction::Outgoing {
                let loops = if direction == Direction::Both { " AND r.from_entity <> :entity" } else { "" };
                found.extend(one_end(&format!("r.to_entity = :entity{loops}"))?);
            }
            found.sort_unstable_by_key(|relation| relation.id);
            found.truncate(filter.limit);
            Ok(found)
        })
    }
}

pub(super) fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.unix_micros() as i64)
}

pub(super) fn number(after: Option<MemoryId>) -> i64 {
    after.unwrap_or_default().0 as i64
}

/// One page of one scope and one type, or of all.
fn entities(
    connection: &Connection,
    as_of: AsOf,
    filter: &EntityFilter,
    scope: Option<i64>,
    entity_type: Option<&str>,
) -> rusqlite::Result<Vec<Entity>> {
    let mut condition = String::new();
    if scope.is_some() {
        condition.push_str("e.scope_id = :scope AND ");
    }
    if entity_type.is_some() {
        condition.push_str("e.entity_type = :type AND ");
    }
    condition.push_str("e.id > :after");
    let (after, at, limit) = (number(filter.after), micros(filter.valid_at), filter.limit as i64);
    let mut params: Vec<(&str, &dyn ToSql)> = vec![(":after", &after)];
    if let Some(scope) = &scope {
        params.push((":scope", scope));
    }
    if let Some(entity_type) = &entity_type {
        params.push((":type", entity_type));
    }
    let listed = Listed { table: "entities", alias: "e", condition: &condition, params: &params };
    let sql = as_of.list_sql("e", &as_of.sources(connection, &listed)?, |source, alive| {
        format!(
            "SELECT {} FROM {source} CROSS JOIN scopes s ON s.id = e.scope_id
             WHERE {condition} AND {alive} AND {VALID_AT}",
            columns::ENTITY
        )
    });
    params.push((":at", &at));
    params.push((":limit", &limit));
    as_of.rows(connection, &format!("{sql} ORDER BY 1 LIMIT :limit"), &params, columns::entity)
}

fn entities_by_prefix(
    connection: &Connection,
    as_of: AsOf,
    filter: &EntityFilter,
    prefix: &str,
) -> rusqlite::Result<Vec<Entity>> {
    let scopes = serde_json::Value::from(scope_ids(connection, &filter.scopes)?).to_string();
    let end = end_of_prefix(prefix);
    let below = if end.is_some() { "AND e.name < :end" } else { "AND (:end IS NULL)" };
    let sql = as_of.sql("e", |alive| {
        let index = if alive.contains("IS NULL") { "idx_entities_name" } else { "idx_entities_past_name" };
        format!(
            "SELECT {} FROM entities e INDEXED BY {index} CROSS JOIN scopes s ON s.id = e.scope_id
             WHERE e.name >= :prefix {below} AND e.scope_id IN (SELECT value FROM json_each(:scopes))
                 AND e.id > :after AND (:types IS NULL OR e.entity_type IN (SELECT value FROM json_each(:types)))
                 AND {alive} AND {VALID_AT}",
            columns::ENTITY
        )
    });
    let params: &[(&str, &dyn ToSql)] = &[
        (":prefix", &prefix),
        (":end", &end),
        (":scopes", &scopes),
        (":after", &number(filter.after)),
        (":types", &type_list(&filter.entity_types)),
        (":at", &micros(filter.valid_at)),
        (":limit", &(filter.limit as i64)),
    ];
    as_of.rows(connection, &format!("{sql} ORDER BY 1 LIMIT :limit"), params, columns::entity)
}

/// The first text after all that start with `prefix`; `None`: there is none.
fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // Stepping over the surrogates, which are no characters.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// One page of one scope, or of all.
fn relations(
    connection: &Connection,
    as_of: AsOf,
    filter: &RelationFilter,
    scope: Option<i64>,
) -> rusqlite::Result<Vec<Relation>> {
    let place = if scope.is_some() {
        "r.scope_id = :scope AND r.id > :after"
    } else {
        "(:scope IS NULL) AND r.id > :after"
    };
    let after = number(filter.after);
    let placed: &[(&str, &dyn ToSql)] = &[(":scope", &scope), (":after", &after)];
    let listed = Listed { table: "relations", alias: "r", condition: place, params: placed };
    let between = if filter.valid_between.is_some() { VALID_BETWEEN } else { "" };
    let condition = format!(
        "{place} AND r.strength >= :strength
         AND (:types IS NULL OR r.relation_type IN (SELECT value FROM json_each(:types))) AND {VALID_AT}{between}"
    );
    let sql = as_of.list_sql("r", &as_of.sources(connection, &listed)?, |source, alive| {
        relation_from(source, &format!("{condition} AND {alive}"))
    });
    let sql = format!("{sql} ORDER BY 1 LIMIT :limit");
    let (types, limit) = (type_list(&filter.relation_types), filter.limit as i64);
    let (at, [since, until]) = (micros(filter.valid_at), bounds(filter));
    let mut params: Vec<(&str, &dyn ToSql)> = vec![
        (":scope", &scope),
        (":after", &after),
        (":strength", &filter.min_strength),
        (":types", &types),
        (":at", &at),
        (":limit", &limit),
    ];
    if since.is_some() {
        params.push((":since", &since));
        params.push((":until", &until));
    }
    as_of.rows(connection, &sql, &params, columns::relation)
}

/// The ends of the stretch that a filter asks for.
fn bounds(filter: &RelationFilter) -> [Option<i64>; 2] {
    let (since, until) = filter.valid_between.unzip();
    [micros(since), micros(until)]
}

/// One page of the relations at one end of an entity. What is not asked for is no part of the statement.
fn relations_at(
    connection: &Connection,
    as_of: AsOf,
    (entity, end): (MemoryId, &str),
    (filter, scopes): (&RelationFilter, &InScopes),
) -> rusqlite::Result<Vec<Relation>> {
    let valid = if filter.valid_at.is_some() { format!(" AND {VALID_AT}") } else { String::new() };
    let between = if filter.valid_between.is_some() { VALID_BETWEEN } else { "" };
    let condition = format!(
        "{end} AND r.id > :after AND r.strength >= :strength
         AND (:types IS NULL OR r.relation_type IN (SELECT value FROM json_each(:types))){}{valid}{between}",
        scopes.condition("r")
    );
    let sql = format!("{} ORDER BY 1 LIMIT :limit", relation_sql(as_of, &condition));
    let (entity, after, at) = (entity.0 as i64, number(filter.after), micros(filter.valid_at));
    let [since, until] = bounds(filter);
    let (types, limit) = (type_list(&filter.relation_types), filter.limit as i64);
    let mut params: Vec<(&str, &dyn ToSql)> = vec![
        (":entity", &entity),
        (":after", &after),
        (":strength", &filter.min_strength),
        (":types", &types),
        (":limit", &limit),
    ];
    if at.is_some() {
        params.push((":at", &at));
    }
    if since.is_some() {
        params.push((":since", &since));
        params.push((":until", &until));
    }
    params.extend(scopes.params());
    as_of.rows(connection, &sql, &params, columns::relation)
}

#[cfg(test)]
mod tests {
    use super::end_of_prefix;

    #[test]
    fn the_end_of_a_prefix_is_the_next_text_without_it() {
        assert_eq!(end_of_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(end_of_prefix("a\u{D7FF}").as_deref(), Some("a\u{E000}"));
        assert_eq!(end_of_prefix("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(end_of_prefix("\u{10FFFF}"), None);
    }
}
