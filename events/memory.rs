//! What happens to the long-term memory.

use bincode::{Decode, Encode};

use crate::id::MemoryId;
use crate::scope::Scope;
use crate::time::Timestamp;

/// When a fact was true in the world, apart from when it was learnt. An open end is `None`; `from` is included,
/// `to` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Validity {
    /// True from then on; `None`: since always.
    pub from: Option<Timestamp>,
    /// True until then; `None`: still.
    pub to: Option<Timestamp>,
}

impl Validity {
    /// Whether the fact was true at `at`.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }
}

/// A fact about the memory. Every variant is complete: folding it needs nothing but the state before it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum MemoryEvent {
    /// A thing got a name in a scope.
    EntityCreated {
        /// Its number.
        id: MemoryId,
        /// Where it lives.
        scope: Scope,
        /// Unique within the scope.
        name: String,
        /// What kind of thing it is.
        entity_type: String,
        /// A JSON object as text, or nothing.
        metadata: Option<String>,
        /// 0 to 1: how sure the writer was.
        confidence: f64,
        /// When it was true.
        validity: Validity,
    },
    /// An entity got another description. Carries the whole new state; the old one stays in the history.
    EntityUpdated {
        /// Its number.
        id: MemoryId,
        /// Its name from now on.
        name: String,
        /// Its type from now on.
        entity_type: String,
        /// Its metadata from now on.
        metadata: Option<String>,
        /// Its confidence from now on.
        confidence: f64,
        /// Its validity from now on.
        validity: Validity,
    },
    /// An entity was taken out of the present. Its observations and relations have events of their own before it.
    EntityRemoved {
        /// Its number.
        id: MemoryId,
    },
    /// Something was noted about an entity.
    ObservationAdded {
        /// Its number.
        id: MemoryId,
        /// The entity it is about.
        entity: MemoryId,
        /// The text.
        content: String,
        /// When it was true.
        validity: Validity,
    },
    /// An observation got another text. The old one stays in the history.
    ObservationUpdated {
        /// Its number.
        id: MemoryId,
        /// The entity it is about.
        entity: MemoryId,
        /// The text from now on.
        content: String,
        /// Its validity from now on.
        validity: Validity,
    },
    /// An observation was taken out of the present.
    ObservationRemoved {
        /// Its number.
        id: MemoryId,
        /// The entity it was about.
        entity: MemoryId,
    },
    /// Two entities were connected. `(from, to, relation_type)` is unique in the present.
    RelationCreated {
        /// Its number.
        id: MemoryId,
        /// The scope it was written to.
        scope: Scope,
        /// Where it starts.
        from: MemoryId,
        /// Where it ends.
        to: MemoryId,
        /// What it says.
        relation_type: String,
        /// 0 to 1.
        strength: f64,
        /// 0 to 1.
        confidence: f64,
        /// A JSON object as text, or nothing.
        metadata: Option<String>,
        /// When it was true.
        validity: Validity,
    },
    /// A relation got other properties. Carries the whole new state.
    RelationUpdated {
        /// Its number.
        id: MemoryId,
        /// Its strength from now on.
        strength: f64,
        /// Its confidence from now on.
        confidence: f64,
        /// Its metadata from now on.
        metadata: Option<String>,
        /// Its validity from now on.
        validity: Validity,
    },
    /// A relation was taken out of the present.
    RelationRemoved {
        /// Its number.
        id: MemoryId,
    },
}
