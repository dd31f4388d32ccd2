//! What a cleanup would remove first: questions over the whole present, whoever may see it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use caxton_events::{MemoryId, Seq, Timestamp};

use super::reader::rows;
use super::{GraphReader, ReadError};

/// An entity that might go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// Its number.
    pub id: MemoryId,
    /// By what it was chosen: for [`least_recent`](GraphReader::least_recent) microseconds since 1970, for
    /// [`largest`](GraphReader::largest) bytes.
    pub key: u64,
}

/// The last change of an entity: of itself or of one of its observations.
const CHANGED: &str = "max(e.updated_at, coalesce((SELECT max(o.updated_at) FROM observations o
    WHERE o.entity_id = e.id AND o.removed_seq IS NULL), 0))";

impl GraphReader {
    /// The `count` entities whose last change is oldest, or whose last use is, where `used` tells a later one; the oldest
    /// first. Looks at entities in the order in which they were described, and no further than it must.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn least_recent(
        &self,
        count: usize,
        used: impl Fn(MemoryId) -> Option<Timestamp>,
    ) -> Result<Vec<Victim>, ReadError> {
        let sql = format!(
            "SELECT e.id, e.updated_at, {CHANGED} FROM entities e WHERE e.removed_seq IS NULL
             ORDER BY e.updated_at"
        );
        self.with("the entities that were not used for longest", |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut found = statement.query(())?;
            // The latest of those chosen so far is on top.
            let mut chosen: BinaryHeap<(u64, MemoryId)> = BinaryHeap::new();
            while let Some(row) = found.next()? {
                let (id, described, changed): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let is_full = chosen.len() >= count;
                if is_full && chosen.peek().is_none_or(|(latest, ..)| described as u64 >= *latest) {
                    break;
                }
                let id = MemoryId(id as u64);
                let key = (changed as u64).max(used(id).map_or(0, Timestamp::unix_micros));
                chosen.push((key, id));
                if is_full {
                    chosen.pop();
                }
            }
            Ok(chosen.into_sorted_vec().into_iter().map(|(key, id)| Victim { id, key }).collect())
        })
    }

    /// The `count` entities with numbers in `ids` whose observations have the most bytes, the largest first; among equals the
    /// one with the lower number.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn largest(&self, ids: Range<MemoryId>, count: usize) -> Result<Vec<Victim>, ReadError> {
        let sql = "SELECT e.id, coalesce((SELECT sum(octet_length(o.content)) FROM observations o
                 WHERE o.entity_id = e.id AND o.removed_seq IS NULL), 0) AS bytes
             FROM entities e WHERE e.removed_seq IS NULL AND e.id >= ?1 AND e.id < ?2";
        self.with("the largest entities", |connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut found = statement.query((ids.start.0 as i64, ids.end.0 as i64))?;
            // The smallest of those chosen so far is on top.
            let mut chosen: BinaryHeap<Reverse<(u64, Reverse<MemoryId>)>> = BinaryHeap::new();
            while let Some(row) = found.next()? {
                let (id, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
                chosen.push(Reverse((bytes as u64, Reverse(MemoryId(id as u64)))));
                if chosen.len() > count {
                    chosen.pop();
                }
            }
            let chosen = chosen.into_sorted_vec().into_iter();
            Ok(chosen.map(|Reverse((key, Reverse(id)))| Victim { id, key }).collect())
        })
    }

    /// Whether an entity is gone, or was described after the record `since`, or something was noted of it then, or noted no
    /// longer.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entity_changed_since(&self, id: MemoryId, since: Seq) -> Result<bool, ReadError> {
        let sql = "SELECT 1 FROM entities e WHERE e.id = ?1 AND e.removed_seq IS NULL AND e.created_seq <= ?2
             AND NOT EXISTS (SELECT 1 FROM observations o
                 WHERE o.entity_id = ?1 AND o.removed_seq IS NULL AND o.created_seq > ?2)
             AND NOT EXISTS (SELECT 1 FROM observations o
                 WHERE o.entity_id = ?1 AND o.removed_seq IS NOT NULL AND o.removed_seq > ?2)";
        self.lacks("changes of an entity", sql, id, since)
    }

    /// Whether a relation is gone, or was described after the record `since`.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn relation_changed_since(&self, id: MemoryId, since: Seq) -> Result<bool, ReadError> {
        let sql =
            "SELECT 1 FROM relations r WHERE r.id = ?1 AND r.removed_seq IS NULL AND r.created_seq <= ?2";
        self.lacks("changes of a relation", sql, id, since)
    }

    /// Whether `sql` finds nothing for a row and a record.
    fn lacks(&self, what: &'static str, sql: &str, id: MemoryId, since: Seq) -> Result<bool, ReadError> {
        self.with(what, |connection| {
            let found = rows(connection, sql, (id.0 as i64, since.0 as i64), |row| row.get::<_, i64>(0))?;
            Ok(found.is_empty())
        })
    }

    /// The `count` relations that were described longest ago, or, with `weakest`, those of the least strength and among equals
    /// the oldest.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn relations_to_go(&self, count: usize, weakest: bool) -> Result<Vec<MemoryId>, ReadError> {
        let order = if weakest { "strength, updated_at, id" } else { "updated_at, id" };
        let sql = format!("SELECT id FROM relations WHERE removed_seq IS NULL ORDER BY {order} LIMIT ?1");
        self.with("the relations that would go first", |connection| {
            rows(connection, &sql, (count as i64,), |row| row.get::<_, i64>(0).map(|id| MemoryId(id as u64)))
        })
    }

    /// The first `count` relations with numbers in `ids` that lack an end.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn orphaned_relations(&self, ids: Range<MemoryId>, count: usize) -> Result<Vec<MemoryId>, ReadError> {
        let sql =
            "SELECT r.id FROM relations r WHERE r.removed_seq IS NULL AND r.id >= ?1 AND r.id < ?2 AND NOT (
                 EXISTS (SELECT 1 FROM entities e WHERE e.id = r.from_entity AND e.removed_seq IS NULL)
                 AND EXISTS (SELECT 1 FROM entities e WHERE e.id = r.to_entity AND e.removed_seq IS NULL))
             ORDER BY r.id LIMIT ?3";
        self.with("relations without an end", |connection| {
            let bounds = (ids.start.0 as i64, ids.end.0 as i64, count as i64);
            rows(connection, sql, bounds, |row| row.get::<_, i64>(0).map(|id| MemoryId(id as u64)))
        })
    }
}
