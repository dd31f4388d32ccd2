//! Events as they lie in the log: texts are borrowed from the block they were read from, nothing is copied.
//!
//! What makes up the bulk of a log, memory and messages, has a form here; the other kinds are read as they are elsewhere.
//! The fields are those of [`MemoryEvent`](crate::MemoryEvent) and [`Message`](crate::conversation::Message), whose
//! documentation goes for them; the tests hold both forms to the same bytes.

use bincode::{BorrowDecode, Encode};

use crate::conversation::{Performative, Priority, Strategy};
use crate::event::{Event, Kind};
use crate::id::{MemoryId, MessageId};
use crate::memory::Validity;
use crate::time::Timestamp;

/// [`Event`], borrowed where that is worth it.
#[derive(Debug, Clone, PartialEq)]
pub enum EventRef<'a> {
    /// About the long-term memory.
    Memory(MemoryEventRef<'a>),
    /// A message was sent and routed.
    Message(MessageRef<'a>),
    /// Everything else.
    Other(Event),
}

impl EventRef<'_> {
    /// What kind of fact this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Memory(event) => event.kind(),
            Self::Message(_) => Kind::MessageSent,
            Self::Other(event) => event.kind(),
        }
    }
}

/// [`Scope`](crate::Scope), borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub enum ScopeRef<'a> {
    /// Seen by one agent.
    Agent(&'a str),
    /// Seen by every agent of a workspace.
    Workspace(&'a str),
    /// Seen by all.
    Global,
}

/// [`MemoryEvent`](crate::MemoryEvent), borrowed: what is written to memory. What is undone there is rare and has no such
/// form.
#[derive(Debug, Clone, PartialEq, Encode, BorrowDecode)]
#[expect(missing_docs, reason = "the fields are those of MemoryEvent, where they are told")]
pub enum MemoryEventRef<'a> {
    /// A thing got a name in a scope.
    EntityCreated {
        id: MemoryId,
        scope: ScopeRef<'a>,
        name: &'a str,
        entity_type: &'a str,
        metadata: Option<&'a str>,
        confidence: f64,
        validity: Validity,
    },
    /// An entity got another description.
    EntityUpdated {
        id: MemoryId,
        name: &'a str,
        entity_type: &'a str,
        metadata: Option<&'a str>,
        confidence: f64,
        validity: Validity,
    },
    /// An entity was taken out of the present.
    EntityRemoved { id: MemoryId },
    /// Something was noted about an entity.
    ObservationAdded { id: MemoryId, entity: MemoryId, content: &'a str, validity: Validity },
    /// An observation got another text.
    ObservationUpdated { id: MemoryId, entity: MemoryId, content: &'a str, validity: Validity },
    /// An observation was taken out of the present.
    ObservationRemoved { id: MemoryId, entity: MemoryId },
    /// Two entities were connected.
    RelationCreated {
        id: MemoryId,
        scope: ScopeRef<'a>,
        from: MemoryId,
        to: MemoryId,
        relation_type: &'a str,
        strength: f64,
        confidence: f64,
        metadata: Option<&'a str>,
        validity: Validity,
    },
    /// A relation got other properties.
    RelationUpdated {
        id: MemoryId,
        strength: f64,
        confidence: f64,
        metadata: Option<&'a str>,
        validity: Validity,
    },
    /// A relation was taken out of the present.
    RelationRemoved { id: MemoryId },
}

impl MemoryEventRef<'_> {
    /// Whether events of this kind have this form.
    pub(crate) const fn covers(kind: Kind) -> bool {
        matches!(
            kind,
            Kind::EntityCreated
                | Kind::EntityUpdated
                | Kind::EntityRemoved
                | Kind::ObservationAdded
                | Kind::ObservationUpdated
                | Kind::ObservationRemoved
                | Kind::RelationCreated
                | Kind::RelationUpdated
                | Kind::RelationRemoved
        )
    }

    /// What kind of fact this is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::EntityCreated { .. } => Kind::EntityCreated,
            Self::EntityUpdated { .. } => Kind::EntityUpdated,
            Self::EntityRemoved { .. } => Kind::EntityRemoved,
            Self::ObservationAdded { .. } => Kind::ObservationAdded,
            Self::ObservationUpdated { .. } => Kind::ObservationUpdated,
            Self::ObservationRemoved { .. } => Kind::ObservationRemoved,
            Self::RelationCreated { .. } => Kind::RelationCreated,
            Self::RelationUpdated { .. } => Kind::RelationUpdated,
            Self::RelationRemoved { .. } => Kind::RelationRemoved,
        }
    }
}

/// [`Content`](crate::conversation::Content), borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub enum ContentRef<'a> {
    /// Plain text.
    Text(&'a str),
    /// A JSON value as text.
    Json(&'a str),
}

/// [`Message`](crate::conversation::Message), borrowed.
#[derive(Debug, Clone, PartialEq, Encode, BorrowDecode)]
#[expect(missing_docs, reason = "the fields are those of Message, where they are told")]
pub struct MessageRef<'a> {
    pub id: MessageId,
    pub id_given: bool,
    pub performative: Performative,
    pub sender: &'a str,
    pub receivers: Vec<&'a str>,
    pub routing: Option<RoutingRef<'a>>,
    pub conversation: &'a str,
    pub content: ContentRef<'a>,
    pub priority: Priority,
    pub reply_with: Option<&'a str>,
    pub in_reply_to: Option<&'a str>,
    pub reply_by: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub extras: Option<&'a str>,
}

/// [`Routing`](crate::conversation::Routing), borrowed.
#[derive(Debug, Clone, PartialEq, Encode, BorrowDecode)]
#[expect(missing_docs, reason = "the fields are those of Routing, where they are told")]
pub struct RoutingRef<'a> {
    pub capability: &'a str,
    pub strategy: Strategy,
    pub candidates: Vec<CandidateRef<'a>>,
    pub reason: &'a str,
}

/// [`Candidate`](crate::conversation::Candidate), borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Encode, BorrowDecode)]
#[expect(missing_docs, reason = "the fields are those of Candidate, where they are told")]
pub struct CandidateRef<'a> {
    pub agent: &'a str,
    pub score: f32,
    pub because: &'a str,
}

/// `ConversationEvent::MessageSent` as it is encoded: the number of the variant, then the message.
#[derive(Encode, BorrowDecode)]
pub(crate) struct SentRef<'a> {
    pub variant: u32,
    pub message: MessageRef<'a>,
}

/// The number of `ConversationEvent::MessageSent` among its siblings.
pub(crate) const SENT_VARIANT: u32 = 1;
