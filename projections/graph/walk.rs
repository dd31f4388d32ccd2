//! Walks along relations, breadth first or depth first, bounded in depth, in entities and in relations.

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use caxton_events::MemoryId;
use rusqlite::{Connection, Row, ToSql};

use super::as_of::AsOf;
use super::in_scopes::InScopes;
use super::list::{VALID_AT, micros};
use super::reader::type_list;
use super::{
    Direction, GraphReader, ReadError, WALK_DEPTH_MAX, WALK_EDGES_MAX, WALK_NODES_MAX, Walk, WalkEdge,
    WalkNode, WalkQuery, WalkStrategy, columns,
};

impl GraphReader {
    /// What is reachable from an entity. Empty when the root is not in the present, not in the scopes, or not true when it
    /// should be.
    ///
    /// # Errors
    ///
    /// [`ReadError::TooLarge`] beyond [`WALK_DEPTH_MAX`] or [`WALK_NODES_MAX`]; else as every query.
    pub fn walk(&self, query: &WalkQuery) -> Result<Walk, ReadError> {
        self.walk_within(query, WALK_EDGES_MAX)
    }

    /// The same along at most so many relations.
    pub(super) fn walk_within(&self, query: &WalkQuery, edges_max: usize) -> Result<Walk, ReadError> {
        if query.max_depth > WALK_DEPTH_MAX {
            return Err(ReadError::TooLarge {
                field: "max_depth",
                value: query.max_depth,
                max: WALK_DEPTH_MAX,
            });
        }
        if query.nodes_max > WALK_NODES_MAX {
            return Err(ReadError::TooLarge {
                field: "nodes_max",
                value: query.nodes_max,
                max: WALK_NODES_MAX,
            });
        }
        self.snapshot("what is reachable from an entity", |connection| {
            let scopes = InScopes::of(connection, &query.scopes)?;
            let types = type_list(&query.relation_types);
            Walker {
                connection,
                as_of: self.as_of,
                query,
                scopes,
                types,
                depths: BTreeMap::new(),
                walk: Walk::default(),
                edges_left: edges_max,
            }
            .run()
        })
    }
}

/// A walk under way.
struct Walker<'a> {
    connection: &'a Connection,
    as_of: AsOf,
    query: &'a WalkQuery,
    scopes: InScopes,
    types: Option<String>,
    /// The least depth each node was met at.
    depths: BTreeMap<MemoryId, usize>,
    walk: Walk,
    /// Relations that it may still go along.
    edges_left: usize,
}

impl Walker<'_> {
    fn run(mut self) -> rusqlite::Result<Walk> {
        let mut edges = BTreeMap::new();
        let mut open = VecDeque::from([(self.query.root, 0)]);
        while let Some((node, depth)) = match self.query.strategy {
            WalkStrategy::BreadthFirst => open.pop_front(),
            WalkStrategy::DepthFirst => open.pop_back(),
        } {
            if !self.meet(node, depth)? || depth == self.query.max_depth {
                continue;
            }
            let mut next = Vec::new();
            for edge in self.edges_of(node)? {
                let other = if edge.from == node { edge.to } else { edge.from };
                if self.depths.get(&other).is_none_or(|known| depth + 1 < *known) {
                    next.push((other, depth + 1));
                }
                edges.insert(edge.id, edge);
            }
            if self.query.strategy == WalkStrategy::DepthFirst {
                next.reverse();
            }
            open.extend(next);
        }
        let depths = &self.depths;
        self.walk.edges = edges
            .into_values()
            .filter(|edge: &WalkEdge| depths.contains_key(&edge.from) && depths.contains_key(&edge.to))
            .collect();
        for node in &mut self.walk.nodes {
            node.depth = depths.get(&node.id).copied().unwrap_or(node.depth);
        }
        Ok(self.walk)
    }

    /// Takes a node up; whether to go on from it: it is new, or nearer to the root than when it was met before.
    fn meet(&mut self, node: MemoryId, depth: usize) -> rusqlite::Result<bool> {
        if let Some(known) = self.depths.get_mut(&node) {
            let nearer = depth < *known;
            *known = depth.min(*known);
            return Ok(nearer);
        }
        if !self.visible(node)? {
            return Ok(false);
        }
        if self.walk.nodes.len() >= self.query.nodes_max.max(1) {
            self.walk.truncated = true;
            return Ok(false);
        }
        self.depths.insert(node, depth);
        self.walk.nodes.push(WalkNode { id: node, depth });
        Ok(true)
    }

    /// Whether an entity is in the present, in the scopes asked for and true when it should be.
    fn visible(&self, node: MemoryId) -> rusqlite::Result<bool> {
        static SQL: LazyLock<[[String; 2]; 2]> = LazyLock::new(|| {
            ["", VALID_AT].map(|valid| {
                AsOf::by_id("entities", "e", |condition| {
                    let valid = if valid.is_empty() { String::new() } else { format!(" AND {valid}") };
                    format!("SELECT scope_id FROM entities e WHERE {condition}{valid}")
                })
            })
        });
        let [plain, valid] = &*SQL;
        let (id, at) = (node.0 as i64, micros(self.query.valid_at));
        let (sql, params): (_, &[(&str, &dyn ToSql)]) =
            if at.is_some() { (valid, &[(":id", &id), (":at", &at)]) } else { (plain, &[(":id", &id)]) };
        let scope: Option<i64> =
            self.as_of.one(self.connection, self.as_of.of(sql), params, |row| row.get(0))?;
        Ok(scope.is_some_and(|scope| self.scopes.hold(scope)))
    }

    /// The relations to go along from a node, by number, as far as the bound allows.
    fn edges_of(&mut self, node: MemoryId) -> rusqlite::Result<Vec<WalkEdge>> {
        let mut found = Vec::new();
        if self.query.direction != Direction::Incoming {
            found = self.one_end(node, "from_entity")?;
        }
        if self.query.direction != Direction::Outgoing {
            found.extend(self.one_end(node, "to_entity")?);
            found.sort_by_key(|edge| edge.id);
            found.dedup_by_key(|edge| edge.id);
        }
        self.edges_left = self.edges_left.saturating_sub(found.len());
        if self.edges_left == 0 {
            self.walk.truncated = true;
        }
        Ok(found)
    }

    fn one_end(&self, node: MemoryId, end: &str) -> rusqlite::Result<Vec<WalkEdge>> {
        let at = micros(self.query.valid_at);
        // Without a time the index alone answers. Relations of other scopes do not take the room of those to go along.
        let valid = if at.is_some() { format!(" AND {VALID_AT}") } else { String::new() };
        let in_scopes = self.scopes.condition("r");
        let sql = self.as_of.sql("r", |alive| {
            format!(
                "SELECT id, from_entity, to_entity, relation_type, strength, confidence FROM relations r
                 WHERE {end} = :node AND {alive} AND strength >= :strength
                     AND (:types IS NULL OR relation_type IN (SELECT value FROM json_each(:types))){in_scopes}{valid}"
            )
        });
        let (node, limit) = (node.0 as i64, self.edges_left as i64);
        let mut params: Vec<(&str, &dyn ToSql)> = vec![
            (":node", &node),
            (":strength", &self.query.min_strength),
            (":types", &self.types),
            (":limit", &limit),
        ];
        if at.is_some() {
            params.push((":at", &at));
        }
        params.extend(self.scopes.params());
        self.as_of.rows(self.connection, &format!("{sql} ORDER BY 1 LIMIT :limit"), &params, edge)
    }
}

fn edge(row: &Row<'_>) -> rusqlite::Result<WalkEdge> {
    Ok(WalkEdge {
        id: columns::id(row, 0)?,
        from: columns::id(row, 1)?,
        to: columns::id(row, 2)?,
        relation_type: row.get(3)?,
        strength: row.get(4)?,
        confidence: row.get(5)?,
    })
}
