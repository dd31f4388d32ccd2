//! The memory as one caller sees it: rows of other agents and workspaces are not there.

use caxton_events::{AgentId, MemoryId, Scope, Seq, WorkspaceId};
use caxton_projections::graph::ReadError;

use super::present::{Present, PresentEntity, PresentObservation, PresentRelation};
use super::write::SweptRow;

/// Who asks for something to be written.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'caller> {
    /// The agent; unknown ones are registered.
    pub actor: &'caller AgentId,
    /// The workspace it works in.
    pub workspace: &'caller WorkspaceId,
    /// The scope that the request names, if it names one: rows of others are not there, by whichever number they are asked for.
    /// What a relation connects may lie in wider ones all the same.
    pub named: Option<&'caller Scope>,
    /// It is the server itself: every scope is open to it, and it is not registered.
    pub everywhere: bool,
}

/// What of a memory an agent in a workspace may name.
///
/// The lists of what hangs on an entity are whole all the same: whoever removes an entity removes what others tied to
/// it, or those rows would lead nowhere.
pub(super) struct Seen<'memory> {
    pub(super) memory: &'memory dyn Present,
    pub(super) caller: Caller<'memory>,
}

impl Seen<'_> {
    /// Whether a scope is the caller's own, its workspace's or everybody's, and no other than the one that is named.
    pub(super) fn sees(&self, scope: &Scope) -> bool {
        let Caller { actor, workspace, named, everywhere } = self.caller;
        let is_open = everywhere
            || match scope {
                Scope::Agent(owner) => owner == actor,
                Scope::Workspace(name) => name == workspace,
                Scope::Global => true,
            };
        is_open && named.is_none_or(|named| named == scope)
    }
}

impl Present for Seen<'_> {
    fn entity(&self, id: MemoryId) -> Result<Option<PresentEntity>, ReadError> {
        Ok(self.memory.entity(id)?.filter(|row| self.sees(&row.scope)))
    }

    fn entity_named(&self, scope: &Scope, name: &str) -> Result<Option<PresentEntity>, ReadError> {
        if self.sees(scope) { self.memory.entity_named(scope, name) } else { Ok(None) }
    }

    fn entities_of(&self, scope: &Scope, entity_types: &[String]) -> Result<Vec<MemoryId>, ReadError> {
        self.memory.entities_of(scope, entity_types)
    }

    fn observation(&self, id: MemoryId) -> Result<Option<PresentObservation>, ReadError> {
        let Some(row) = self.memory.observation(id)? else { return Ok(None) };
        Ok(self.entity(row.entity)?.map(|_| row))
    }

    fn observation_reading(&self, entity: MemoryId, content: &str) -> Result<Option<MemoryId>, ReadError> {
        self.memory.observation_reading(entity, content)
    }

    fn observations_of(&self, entity: MemoryId) -> Result<Vec<MemoryId>, ReadError> {
        self.memory.observations_of(entity)
    }

    fn relation(&self, id: MemoryId) -> Result<Option<PresentRelation>, ReadError> {
        Ok(self.memory.relation(id)?.filter(|row| self.sees(&row.scope)))
    }

    fn relation_between(
        &self,
        scope: &Scope,
        from: MemoryId,
        to: MemoryId,
        relation_type: &str,
    ) -> Result<Option<PresentRelation>, ReadError> {
        self.memory.relation_between(scope, from, to, relation_type)
    }

    fn relations_of(&self, entity: MemoryId) -> Result<Vec<(MemoryId, Scope)>, ReadError> {
        self.memory.relations_of(entity)
    }

    fn relations_in(&self, scope: &Scope) -> Result<Vec<MemoryId>, ReadError> {
        self.memory.relations_in(scope)
    }

    fn changed_since(&self, row: SweptRow, since: Seq) -> Result<bool, ReadError> {
        self.memory.changed_since(row, since)
    }

    fn agent_known(&self, agent: &AgentId) -> Result<bool, ReadError> {
        self.memory.agent_known(agent)
    }
}
