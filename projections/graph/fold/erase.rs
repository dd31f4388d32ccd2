//! Erasing scopes: every row of every time and what pointed into them.

use caxton_events::{Scope, Subject};
use rusqlite::OptionalExtension as _;

use super::{Figures, Fold, FoldError, Memo, Place};

/// Relations of which an end is not there, in any version. SQLite gathers the numbers that are there once: a look for each relation
/// would read all entities each time while a rebuild goes without indexes.
const DANGLING: &str = "relations.from_entity NOT IN (SELECT id FROM entities)
    OR relations.to_entity NOT IN (SELECT id FROM entities)";

impl Fold<'_> {
    /// Writes what was kept back.
    pub(super) fn flush(&mut self) -> rusqlite::Result<()> {
        let mut update = self.connection.prepare_cached(
            "UPDATE scopes SET entities = ?2, observations = ?3, relations = ?4, text_rows = ?5, text_words = ?6
             WHERE id = ?1",
        )?;
        for (scope, figures) in std::mem::take(&mut self.figures) {
            let Figures { entities, observations, relations, text_rows, text_words } = figures;
            update.execute((scope, entities, observations, relations, text_rows, text_words))?;
        }
        Ok(())
    }

    /// Takes relations out of the figures of a scope.
    pub(super) fn lose_relations(
        &mut self,
        place: &Place<'_>,
        scope: i64,
        relations: i64,
    ) -> Result<(), FoldError> {
        self.figures(scope)?.relations -= relations;
        self.count(place)
    }

    /// Takes the scopes among `subjects` out as if nothing had ever been written to them. Numbers below `next_id` are not
    /// given out again. A rebuild that no longer sees what was erased comes to the same rows.
    pub(super) fn erase(
        &mut self,
        place: &Place<'_>,
        subjects: &[Subject],
        next_id: u64,
    ) -> Result<(), FoldError> {
        self.flush()?;
        let scopes: Vec<&Scope> = subjects.iter().filter_map(Subject::scope).collect();
        for scope in &scopes {
            self.erase_scope(scope)?;
        }
        // Also of a scope that is not there: a rebuild sees nothing of it but what pointed into it.
        if !scopes.is_empty() {
            self.erase_dangling(place)?;
        }
        *self.memo = Memo::default();
        self.next_id = self.next_id.max(next_id);
        Ok(())
    }

    fn erase_dangling(&mut self, place: &Place<'_>) -> Result<(), FoldError> {
        let connection = self.connection;
        let sql = format!(
            "SELECT scope_id, count(*) FROM relations WHERE removed_seq IS NULL AND ({DANGLING}) GROUP BY scope_id"
        );
        let mut gone: Vec<(i64, i64)> = Vec::new();
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            gone.push((row.get(0)?, row.get(1)?));
        }
        for (scope, relations) in gone {
            self.lose_relations(place, scope, relations)?;
        }
        connection.execute(&format!("DELETE FROM relations WHERE {DANGLING}"), ())?;
        Ok(())
    }

    fn erase_scope(&mut self, scope: &Scope) -> rusqlite::Result<()> {
        let connection = self.connection;
        let id: Option<i64> = connection
            .query_row("SELECT id FROM scopes WHERE scope = ?1", (scope.to_string(),), |row| row.get(0))
            .optional()?;
        let Some(id) = id else { return Ok(()) };
        self.texts.erase();
        for sql in [
            "DELETE FROM figures WHERE scope_id = ?1",
            "DELETE FROM embeddings WHERE entity_id IN (SELECT id FROM entities WHERE scope_id = ?1)",
            "DELETE FROM observations WHERE scope_id = ?1",
            "DELETE FROM relations WHERE scope_id = ?1",
            "DELETE FROM entities WHERE scope_id = ?1",
            "DELETE FROM scopes WHERE id = ?1",
        ] {
            connection.execute(sql, (id,))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use rusqlite::Connection;

    use super::DANGLING;
    use crate::graph::schema::{INDEXES, TABLES};

    #[test]
    fn relations_to_nothing_are_found_without_a_look_at_the_entities_for_each() {
        for indexes in ["", INDEXES] {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(TABLES).unwrap();
            connection.execute_batch(indexes).unwrap();
            for sql in [
                format!("SELECT count(*) FROM relations WHERE removed_seq IS NULL AND ({DANGLING})"),
                format!("DELETE FROM relations WHERE {DANGLING}"),
            ] {
                let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                let plan = statement.query_map((), |row| row.get::<_, String>(3)).unwrap();
                let plan: Vec<String> = plan.collect::<Result<_, _>>().unwrap();
                assert!(plan.iter().any(|step| step.starts_with("LIST SUBQUERY")), "{sql}\n{plan:?}");
                assert!(!plan.iter().any(|step| step.contains("CORRELATED")), "{sql}\n{plan:?}");
            }
        }
    }
}
