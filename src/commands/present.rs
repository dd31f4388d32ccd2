//! What a decision may know: the memory as it is now, row by row.

use caxton_events::memory::Validity;
use caxton_events::{AgentId, MemoryId, Scope, Seq};
use caxton_projections::graph::ReadError;

use super::write::SweptRow;

/// An entity as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct PresentEntity {
    /// Its number.
    pub id: MemoryId,
    /// Where it lives.
    pub scope: Scope,
    /// Its name.
    pub name: String,
    /// Its type.
    pub entity_type: String,
    /// A JSON object as text.
    pub metadata: Option<String>,
    /// 0 to 1.
    pub confidence: f64,
    /// When it is true.
    pub validity: Validity,
    /// 1 at first, one more with each update.
    pub version: u32,
}

/// An observation as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct PresentObservation {
    /// Its number.
    pub id: MemoryId,
    /// The entity it is about.
    pub entity: MemoryId,
    /// The text.
    pub content: String,
    /// When it is true.
    pub validity: Validity,
}

/// A relation as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct PresentRelation {
    /// Its number.
    pub id: MemoryId,
    /// The scope it was written to.
    pub scope: Scope,
    /// Where it starts.
    pub from: MemoryId,
    /// Where it ends.
    pub to: MemoryId,
    /// What it says.
    pub relation_type: String,
    /// 0 to 1.
    pub strength: f64,
    /// 0 to 1.
    pub confidence: f64,
    /// A JSON object as text.
    pub metadata: Option<String>,
    /// When it is true.
    pub validity: Validity,
}

/// The memory as it is now, as far as decisions ask: read from the graph, or from an
/// [`Overlay`](super::overlay::Overlay) of accepted events that are not folded yet.
///
/// Every method fails with [`ReadError`] when the memory could not be read.
#[expect(clippy::missing_errors_doc, reason = "said once for the trait")]
pub trait Present {
    /// The entity with this number.
    fn entity(&self, id: MemoryId) -> Result<Option<PresentEntity>, ReadError>;
    /// The entity with this name in this very scope.
    fn entity_named(&self, scope: &Scope, name: &str) -> Result<Option<PresentEntity>, ReadError>;
    /// Numbers of the entities of a scope, ascending; only these types unless empty.
    fn entities_of(&self, scope: &Scope, entity_types: &[String]) -> Result<Vec<MemoryId>, ReadError>;
    /// The observation with this number.
    fn observation(&self, id: MemoryId) -> Result<Option<PresentObservation>, ReadError>;
    /// The observation of an entity with exactly this text.
    fn observation_reading(&self, entity: MemoryId, content: &str) -> Result<Option<MemoryId>, ReadError>;
    /// Numbers of all observations of an entity, ascending.
    fn observations_of(&self, entity: MemoryId) -> Result<Vec<MemoryId>, ReadError>;
    /// The relation with this number.
    fn relation(&self, id: MemoryId) -> Result<Option<PresentRelation>, ReadError>;
    /// The relation of this type between two entities, in this direction, that was written to this very scope.
    fn relation_between(
        &self,
        scope: &Scope,
        from: MemoryId,
        to: MemoryId,
        relation_type: &str,
    ) -> Result<Option<PresentRelation>, ReadError>;
    /// Numbers of all relations that start or end at an entity, ascending, and the scope each was written to.
    fn relations_of(&self, entity: MemoryId) -> Result<Vec<(MemoryId, Scope)>, ReadError>;
    /// Numbers of the relations written to a scope, ascending.
    fn relations_in(&self, scope: &Scope) -> Result<Vec<MemoryId>, ReadError>;
    /// Whether a row is gone, or something was recorded of it after `since`: of an entity also what is noted of it, or no
    /// longer is.
    fn changed_since(&self, row: SweptRow, since: Seq) -> Result<bool, ReadError>;
    /// Whether an agent has been registered.
    fn agent_known(&self, agent: &AgentId) -> Result<bool, ReadError>;
}
