//! The reading side.
use caxton_events::{AgentId, MemoryId, Scope, Seq};

use super::*;
use crate::text::{KeywordQuery, TextHit};

/// A handle for queries.
#[derive(Debug, Clone)]
pub struct GraphReader {}

impl GraphReader {
    pub fn checkpoint(&self) -> Result<Seq, ReadError> { todo!() }
    pub fn next_id(&self) -> Result<MemoryId, ReadError> { todo!() }
    pub fn entity(&self, id: MemoryId) -> Result<Option<Entity>, ReadError> { todo!() }
    pub fn entity_by_name(&self, scope: &Scope, name: &str) -> Result<Option<Entity>, ReadError> { todo!() }
    pub fn entities(&self, ids: &[MemoryId]) -> Result<Vec<Entity>, ReadError> { todo!() }
    pub fn list_entities(&self, filter: &EntityFilter) -> Result<Vec<Entity>, ReadError> { todo!() }
    pub fn observation(&self, id: MemoryId) -> Result<Option<Observation>, ReadError> { todo!() }
    pub fn observations(&self, ids: &[MemoryId]) -> Result<Vec<Observation>, ReadError> { todo!() }
    pub fn observations_of(&self, entity: MemoryId, after: Option<MemoryId>, limit: usize) -> Result<Vec<Observation>, ReadError> { todo!() }
    pub fn observation_by_content(&self, entity: MemoryId, content: &str) -> Result<Option<Observation>, ReadError> { todo!() }
    pub fn observation_count(&self, entity: MemoryId) -> Result<u64, ReadError> { todo!() }
    pub fn neighbours(&self, observation: MemoryId, before: usize, after: usize) -> Result<Vec<Observation>, ReadError> { todo!() }
    pub fn relation(&self, id: MemoryId) -> Result<Option<Relation>, ReadError> { todo!() }
    pub fn relation_by_triple(&self, from: MemoryId, to: MemoryId, relation_type: &str) -> Result<Option<Relation>, ReadError> { todo!() }
    pub fn relations_of(&self, entity: MemoryId, direction: Direction, types: &[String], min_strength: f64, after: Option<MemoryId>, limit: usize) -> Result<Vec<Relation>, ReadError> { todo!() }
    pub fn list_relations(&self, filter: &RelationFilter) -> Result<Vec<Relation>, ReadError> { todo!() }
    pub fn walk(&self, query: &WalkQuery) -> Result<Walk, ReadError> { todo!() }
    pub fn history(&self, entity: MemoryId) -> Result<Vec<HistoryRow>, ReadError> { todo!() }
    pub fn keyword(&self, query: &KeywordQuery) -> Result<Vec<TextHit>, ReadError> { todo!() }
    pub fn stats(&self, scopes: Option<&[Scope]>) -> Result<GraphStats, ReadError> { todo!() }
    pub fn agent_known(&self, agent: &AgentId) -> Result<bool, ReadError> { todo!() }
    pub fn file_bytes(&self) -> Result<u64, ReadError> { todo!() }
    pub fn digest(&self) -> Result<[u8; 32], ReadError> { todo!() }
}
