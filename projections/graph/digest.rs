//! One number for the whole state: equal digests, equal answers.

use super::compare::{Canonical, difference, digests};
use super::{GraphReader, ReadError};
use crate::difference::{Difference, PartDigest};

const fn graph(table: &'static str, sql: &'static str, key: usize) -> Canonical {
    Canonical { part: "graph", table, sql, key }
}

/// Every table in a canonical order.
///
/// Scopes stand by their names: their numbers depend on which scopes were written to before, erased ones included.
const TABLES: &[Canonical] = &[
    graph("meta", "SELECT version, next_id FROM meta", 0),
    graph(
        "scopes",
        "SELECT scope, entities, observations, relations, text_rows, text_words FROM scopes ORDER BY scope",
        1,
    ),
    graph(
        "figures",
        "SELECT (SELECT scope FROM scopes WHERE scopes.id = scope_id) AS scope, seq, entities, observations, relations,
             text_rows, text_words FROM figures ORDER BY 1, 2",
        2,
    ),
    graph("agents", "SELECT * FROM agents ORDER BY agent_id", 1),
    graph(
        "entities",
        "SELECT created_seq, removed_seq, removed_at, id, (SELECT scope FROM scopes WHERE scopes.id = scope_id), version,
             first_seq, created_at, updated_at, valid_from, valid_to, confidence, owner, actor, name, entity_type,
             metadata FROM entities ORDER BY created_seq",
        1,
    ),
    graph(
        "observations",
        "SELECT created_seq, removed_seq, removed_at, id, entity_id, (SELECT scope FROM scopes WHERE scopes.id = scope_id),
             first_seq, created_at, updated_at, valid_from, valid_to, actor, content FROM observations
             ORDER BY created_seq",
        1,
    ),
    graph(
        "relations",
        "SELECT created_seq, removed_seq, removed_at, id, (SELECT scope FROM scopes WHERE scopes.id = scope_id), from_entity,
             to_entity, first_seq, created_at, updated_at, valid_from, valid_to, strength, confidence, actor,
             relation_type, metadata FROM relations ORDER BY created_seq",
        1,
    ),
    graph("embeddings", "SELECT * FROM embeddings ORDER BY entity_id", 1),
];

impl GraphReader {
    /// BLAKE3 over a canonical form of every row, past and present; the checkpoint is not in it, so that records without a
    /// row change nothing. A rebuild has the digest of the fold it repeats. Reads the whole file.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn digest(&self) -> Result<[u8; 32], ReadError> {
        let mut hasher = blake3::Hasher::new();
        for part in self.parts()? {
            hasher.update(&part.digest);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// The same as the projection's parts.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn parts(&self) -> Result<Vec<PartDigest>, ReadError> {
        self.snapshot("the whole graph", |connection| digests(connection, TABLES))
    }

    /// The first row in which this graph and `other` differ; `None` when their digests are the same.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn difference(&self, other: &Self) -> Result<Option<Difference>, ReadError> {
        self.snapshot("the whole graph", |first| {
            Ok(other.snapshot("the other graph", |second| difference(first, second, TABLES)))
        })?
    }
}
