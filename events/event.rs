//! Everything that can happen, by family.

use crate::agent::AgentEvent;
use crate::memory::MemoryEvent;
use crate::system::SystemEvent;

/// A fact, named in the past tense and never edited.
///
/// An enum on purpose: whoever folds events is made to choose for each new kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// About the long-term memory.
    Memory(MemoryEvent),
    /// About an agent.
    Agent(AgentEvent),
    /// About the server.
    System(SystemEvent),
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $tag:literal, $name:literal, $pattern:pat,)*) => {
        /// The kind of an event: a number on disk, a dotted name for people. Numbers are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$doc])* $kind = $tag,)*
        }

        impl Kind {
            /// Every kind, by number.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The number on disk, below 128.
            pub const fn tag(self) -> u8 {
                self as u8
            }

            /// The kind with this number.
            pub const fn from_tag(tag: u8) -> Option<Self> {
                match tag {
                    $($tag => Some(Self::$kind),)*
                    _ => None,
                }
            }

            /// The dotted name, as in `memory.entity_created`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            /// The kind with this dotted name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name() == name)
            }
        }

        impl Event {
            /// What kind of fact this is.
            pub const fn kind(&self) -> Kind {
                match self {
                    $($pattern => Kind::$kind,)*
                }
            }
        }
    };
}

kinds! {
    /// [`MemoryEvent::EntityCreated`].
    EntityCreated = 1, "memory.entity_created", Self::Memory(MemoryEvent::EntityCreated { .. }),
    /// [`MemoryEvent::EntityUpdated`].
    EntityUpdated = 2, "memory.entity_updated", Self::Memory(MemoryEvent::EntityUpdated { .. }),
    /// [`MemoryEvent::EntityRemoved`].
    EntityRemoved = 3, "memory.entity_removed", Self::Memory(MemoryEvent::EntityRemoved { .. }),
    /// [`MemoryEvent::ObservationAdded`].
    ObservationAdded = 4, "memory.observation_added", Self::Memory(MemoryEvent::ObservationAdded { .. }),
    /// [`MemoryEvent::ObservationUpdated`].
    ObservationUpdated = 5, "memory.observation_updated", Self::Memory(MemoryEvent::ObservationUpdated { .. }),
    /// [`MemoryEvent::ObservationRemoved`].
    ObservationRemoved = 6, "memory.observation_removed", Self::Memory(MemoryEvent::ObservationRemoved { .. }),
    /// [`MemoryEvent::RelationCreated`].
    RelationCreated = 7, "memory.relation_created", Self::Memory(MemoryEvent::RelationCreated { .. }),
    /// [`MemoryEvent::RelationUpdated`].
    RelationUpdated = 8, "memory.relation_updated", Self::Memory(MemoryEvent::RelationUpdated { .. }),
    /// [`MemoryEvent::RelationRemoved`].
    RelationRemoved = 9, "memory.relation_removed", Self::Memory(MemoryEvent::RelationRemoved { .. }),
    /// [`AgentEvent::ExternalRegistered`].
    ExternalAgentRegistered = 32, "agent.external_registered", Self::Agent(AgentEvent::ExternalRegistered { .. }),
    /// [`SystemEvent::ServerStarted`].
    ServerStarted = 64, "system.server_started", Self::System(SystemEvent::ServerStarted { .. }),
    /// [`SystemEvent::ServerStopped`].
    ServerStopped = 65, "system.server_stopped", Self::System(SystemEvent::ServerStopped),
    /// [`SystemEvent::EmbeddingModelChanged`].
    EmbeddingModelChanged = 66, "system.embedding_model_changed",
        Self::System(SystemEvent::EmbeddingModelChanged { .. }),
}

impl From<MemoryEvent> for Event {
    fn from(event: MemoryEvent) -> Self {
        Self::Memory(event)
    }
}

impl From<AgentEvent> for Event {
    fn from(event: AgentEvent) -> Self {
        Self::Agent(event)
    }
}

impl From<SystemEvent> for Event {
    fn from(event: SystemEvent) -> Self {
        Self::System(event)
    }
}
