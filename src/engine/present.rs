//! The graph as decisions read it.

use caxton_events::{AgentId, MemoryId, Scope, Seq};
use caxton_projections::graph::{Entity, GraphReader, Observation, ReadError, Relation};

use crate::commands::{Present, PresentEntity, PresentObservation, PresentRelation, SweptRow};

/// Rows read at a time when all are wanted.
const PAGE_ROWS: usize = 10_000;

/// The folded memory. The memory writer alone folds, so what it reads here is the present.
pub(super) struct Folded(pub(super) GraphReader);

fn entity(row: Entity) -> PresentEntity {
    PresentEntity {
        id: row.id,
        scope: row.scope,
        name: row.name,
        entity_type: row.entity_type,
        metadata: row.metadata,
        confidence: row.confidence,
        validity: row.validity,
        version: row.version,
    }
}

fn observation(row: Observation) -> PresentObservation {
    PresentObservation { id: row.id, entity: row.entity, content: row.content, validity: row.validity }
}

fn relation(row: Relation) -> PresentRelation {
    PresentRelation {
        id: row.id,
        scope: row.scope,
        from: row.from,
        to: row.to,
        relation_type: row.relation_type,
        strength: row.strength,
        confidence: row.confidence,
        metadata: row.metadata,
        validity: row.validity,
    }
}

/// All numbers of a list that is read in pages after the last number.
fn all_pages(
    mut page: impl FnMut(Option<MemoryId>) -> Result<Vec<MemoryId>, ReadError>,
) -> Result<Vec<MemoryId>, ReadError> {
    let mut all = Vec::new();
    loop {
        let ids = page(all.last().copied())?;
        let last_page = ids.len() < PAGE_ROWS;
        all.extend(ids);
        if last_page {
            return Ok(all);
        }
    }
}

impl Present for Folded {
    fn entity(&self, id: MemoryId) -> Result<Option<PresentEntity>, ReadError> {
        Ok(self.0.entity(id)?.map(entity))
    }

    fn entity_named(&self, scope: &Scope, name: &str) -> Result<Option<PresentEntity>, ReadError> {
        Ok(self.0.entity_by_name(scope, name)?.map(entity))
    }

    fn entities_of(&self, scope: &Scope, entity_types: &[String]) -> Result<Vec<MemoryId>, ReadError> {
        all_pages(|after| self.0.entity_ids_in(scope, entity_types, after, PAGE_ROWS))
    }

    fn observation(&self, id: MemoryId) -> Result<Option<PresentObservation>, ReadError> {
        Ok(self.0.observation(id)?.map(observation))
    }

    fn observation_reading(&self, entity: MemoryId, content: &str) -> Result<Option<MemoryId>, ReadError> {
        Ok(self.0.observation_by_content(entity, content)?.map(|row| row.id))
    }

    fn observations_of(&self, entity: MemoryId) -> Result<Vec<MemoryId>, ReadError> {
        all_pages(|after| self.0.observation_ids_of(entity, after, PAGE_ROWS))
    }

    fn relation(&self, id: MemoryId) -> Result<Option<PresentRelation>, ReadError> {
        Ok(self.0.relation(id)?.map(relation))
    }

    fn relation_between(
        &self,
        scope: &Scope,
        from: MemoryId,
        to: MemoryId,
        relation_type: &str,
    ) -> Result<Option<PresentRelation>, ReadError> {
        Ok(self.0.relation_by_triple(scope, from, to, relation_type)?.map(relation))
    }

    fn relations_of(&self, entity: MemoryId) -> Result<Vec<(MemoryId, Scope)>, ReadError> {
        let mut all: Vec<(MemoryId, Scope)> = Vec::new();
        loop {
            let after = all.last().map(|(id, _)| *id);
            let page = self.0.relation_ids_of(entity, after, PAGE_ROWS)?;
            let last_page = page.len() < PAGE_ROWS;
            all.extend(page);
            if last_page {
                return Ok(all);
            }
        }
    }

    fn relations_in(&self, scope: &Scope) -> Result<Vec<MemoryId>, ReadError> {
        all_pages(|after| self.0.relation_ids_in(scope, after, PAGE_ROWS))
    }

    fn changed_since(&self, row: SweptRow, since: Seq) -> Result<bool, ReadError> {
        match row {
            SweptRow::Entity(id) => self.0.entity_changed_since(id, since),
            SweptRow::Relation(id) => self.0.relation_changed_since(id, since),
        }
    }

    fn agent_known(&self, agent: &AgentId) -> Result<bool, ReadError> {
        self.0.agent_known(agent)
    }
}
