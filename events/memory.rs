//! What happens to the long-term memory.

use bincode::{Decode, Encode};

use crate::choice::choice;
use crate::id::{AgentId, ConversationId, MemoryId, Seq};
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

/// Where a row that came back is from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Origin {
    /// The record of its first version.
    pub first: Seq,
    /// When that was recorded.
    pub created_at: Timestamp,
    /// Who wrote the version that is back.
    pub author: String,
}

choice! {
    /// What happens to facts that build on what is undone.
    "treatment of later facts" Later {
        /// Nothing is undone when there are any.
        Refuse = "refuse",
        /// They stay, and so does what they build on.
        Keep = "keep",
        /// They are undone too.
        Undo = "undo",
    }
}

/// Which facts were to be undone: those that meet every condition given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Chosen {
    /// What this agent wrote.
    pub agent: Option<AgentId>,
    /// What was written in the turns of this conversation.
    pub conversation: Option<ConversationId>,
    /// What has this correlation.
    pub correlation: Option<String>,
    /// From this position on.
    pub from: Option<Seq>,
    /// Through this position.
    pub to: Option<Seq>,
    /// Recorded then or later.
    pub since: Option<Timestamp>,
    /// Recorded before then.
    pub until: Option<Timestamp>,
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
    /// An entity is again what it was in an earlier version, whether it was changed or removed since.
    EntityRestored {
        /// Its number.
        id: MemoryId,
        /// Where it lives.
        scope: Scope,
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
        /// Who wrote its first version.
        owner: String,
        /// Its version from now on: one more than it ever had.
        version: u32,
        /// Where it is from.
        origin: Origin,
    },
    /// An observation is again what it was in an earlier version.
    ObservationRestored {
        /// Its number.
        id: MemoryId,
        /// The entity it is about.
        entity: MemoryId,
        /// The text from now on.
        content: String,
        /// Its validity from now on.
        validity: Validity,
        /// Where it is from.
        origin: Origin,
    },
    /// A relation is again what it was in an earlier version.
    RelationRestored {
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
        /// Its strength from now on.
        strength: f64,
        /// Its confidence from now on.
        confidence: f64,
        /// Its metadata from now on.
        metadata: Option<String>,
        /// Its validity from now on.
        validity: Validity,
        /// Where it is from.
        origin: Origin,
    },
    /// Facts were undone. The records right behind this one do it, one for each of `undoes` and in its order.
    Undone {
        /// Which were chosen.
        chosen: Chosen,
        /// What happened to those that build on them.
        later: Later,
        /// The end of the log as the choice was made: facts behind it were not chosen.
        through: Seq,
        /// The facts that each of the following records undoes, in their order.
        undoes: Vec<Vec<Seq>>,
    },
}
