//! Everything that can happen, by family.

use crate::agent::AgentEvent;
use crate::conversation::ConversationEvent;
use crate::memory::MemoryEvent;
use crate::system::SystemEvent;
use crate::turn::TurnEvent;

/// A fact, named in the past tense and never edited.
///
/// An enum on purpose: whoever folds events is made to choose for each new kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// About the long-term memory.
    Memory(MemoryEvent),
    /// About an agent.
    Agent(AgentEvent),
    /// About messages and conversations.
    Conversation(ConversationEvent),
    /// About an agent's handling of a message.
    Turn(TurnEvent),
    /// About the server.
    System(SystemEvent),
}

/// The families of events, one enum each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// [`MemoryEvent`].
    Memory,
    /// [`AgentEvent`].
    Agent,
    /// [`ConversationEvent`].
    Conversation,
    /// [`TurnEvent`].
    Turn,
    /// [`SystemEvent`].
    System,
}

impl Family {
    /// What the names of their kinds begin with, each family once.
    pub const PREFIXES: &[&str] = &["memory.", "conversation.", "agent.", "turn.", "system."];

    /// Every kind of these families, by number.
    pub fn kinds(families: &[Self]) -> Vec<Kind> {
        Kind::ALL.iter().copied().filter(|kind| families.contains(&kind.family())).collect()
    }
}

impl Kind {
    /// The family it belongs to, which is the first part of its name.
    pub const fn family(self) -> Family {
        match self.tag() {
            ..16 => Family::Memory,
            16..32 => Family::Conversation,
            32..64 => Family::Agent,
            64..80 => Family::System,
            80.. => Family::Turn,
        }
    }

    /// The kinds that `name` stands for: one by its dotted name, or a family by what its kinds begin with, as in `memory.`,
    /// `memory.*` or `memory`. None when there is no such kind.
    pub fn named(name: &str) -> Vec<Self> {
        if let Some(kind) = Self::from_name(name) {
            return vec![kind];
        }
        let family = name.trim_end_matches('*').trim_end_matches('.');
        let is_of_family = |kind: &Self| kind.name().split('.').next() == Some(family);
        Self::ALL.iter().copied().filter(is_of_family).collect()
    }
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
            #[inline]
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
    /// [`MemoryEvent::EntityRestored`].
    EntityRestored = 10, "memory.entity_restored", Self::Memory(MemoryEvent::EntityRestored { .. }),
    /// [`MemoryEvent::ObservationRestored`].
    ObservationRestored = 11, "memory.observation_restored", Self::Memory(MemoryEvent::ObservationRestored { .. }),
    /// [`MemoryEvent::RelationRestored`].
    RelationRestored = 12, "memory.relation_restored", Self::Memory(MemoryEvent::RelationRestored { .. }),
    /// [`MemoryEvent::Undone`].
    MemoryUndone = 13, "memory.undone", Self::Memory(MemoryEvent::Undone { .. }),
    /// [`ConversationEvent::Opened`].
    ConversationOpened = 16, "conversation.opened",
        Self::Conversation(ConversationEvent::Opened { .. }),
    /// [`ConversationEvent::MessageSent`].
    MessageSent = 17, "conversation.message_sent",
        Self::Conversation(ConversationEvent::MessageSent(..)),
    /// [`ConversationEvent::MessageExpired`].
    MessageExpired = 18, "conversation.message_expired",
        Self::Conversation(ConversationEvent::MessageExpired { .. }),
    /// [`ConversationEvent::ReplyOverdue`].
    ReplyOverdue = 19, "conversation.reply_overdue",
        Self::Conversation(ConversationEvent::ReplyOverdue { .. }),
    /// [`ConversationEvent::DeliveryRetried`].
    DeliveryRetried = 20, "conversation.delivery_retried",
        Self::Conversation(ConversationEvent::DeliveryRetried { .. }),
    /// [`ConversationEvent::MessageDeadLettered`].
    MessageDeadLettered = 21, "conversation.message_dead_lettered",
        Self::Conversation(ConversationEvent::MessageDeadLettered { .. }),
    /// [`ConversationEvent::DeadLetterReplayed`].
    DeadLetterReplayed = 22, "conversation.dead_letter_replayed",
        Self::Conversation(ConversationEvent::DeadLetterReplayed { .. }),
    /// [`ConversationEvent::InboxAcknowledged`].
    InboxAcknowledged = 23, "conversation.inbox_acknowledged",
        Self::Conversation(ConversationEvent::InboxAcknowledged { .. }),
    /// [`ConversationEvent::Extended`].
    ConversationExtended = 24, "conversation.extended",
        Self::Conversation(ConversationEvent::Extended { .. }),
    /// [`ConversationEvent::Closed`].
    ConversationClosed = 25, "conversation.closed",
        Self::Conversation(ConversationEvent::Closed { .. }),
    /// [`ConversationEvent::Archived`].
    ConversationArchived = 26, "conversation.archived",
        Self::Conversation(ConversationEvent::Archived { .. }),
    /// [`AgentEvent::ExternalRegistered`].
    ExternalAgentRegistered = 32, "agent.external_registered", Self::Agent(AgentEvent::ExternalRegistered { .. }),
    /// [`AgentEvent::ConfigLoaded`].
    AgentConfigLoaded = 33, "agent.config_loaded",
        Self::Agent(AgentEvent::ConfigLoaded { .. }),
    /// [`AgentEvent::ConfigRejected`].
    AgentConfigRejected = 34, "agent.config_rejected",
        Self::Agent(AgentEvent::ConfigRejected { .. }),
    /// [`AgentEvent::ConfigRemoved`].
    AgentConfigRemoved = 35, "agent.config_removed",
        Self::Agent(AgentEvent::ConfigRemoved { .. }),
    /// [`AgentEvent::StatusChanged`].
    AgentStatusChanged = 36, "agent.status_changed",
        Self::Agent(AgentEvent::StatusChanged { .. }),
    /// [`AgentEvent::CapabilityRegistered`].
    CapabilityRegistered = 37, "agent.capability_registered",
        Self::Agent(AgentEvent::CapabilityRegistered { .. }),
    /// [`AgentEvent::CapabilityUpdated`].
    CapabilityUpdated = 38, "agent.capability_updated",
        Self::Agent(AgentEvent::CapabilityUpdated { .. }),
    /// [`AgentEvent::CapabilityRemoved`].
    CapabilityRemoved = 39, "agent.capability_removed",
        Self::Agent(AgentEvent::CapabilityRemoved { .. }),
    /// [`AgentEvent::HealthChanged`].
    AgentHealthChanged = 40, "agent.health_changed",
        Self::Agent(AgentEvent::HealthChanged { .. }),
    /// [`AgentEvent::CircuitChanged`].
    AgentCircuitChanged = 41, "agent.circuit_changed",
        Self::Agent(AgentEvent::CircuitChanged { .. }),
    /// [`SystemEvent::ServerStarted`].
    ServerStarted = 64, "system.server_started", Self::System(SystemEvent::ServerStarted { .. }),
    /// [`SystemEvent::ServerStopped`].
    ServerStopped = 65, "system.server_stopped", Self::System(SystemEvent::ServerStopped),
    /// [`SystemEvent::EmbeddingModelChanged`].
    EmbeddingModelChanged = 66, "system.embedding_model_changed",
        Self::System(SystemEvent::EmbeddingModelChanged { .. }),
    /// [`SystemEvent::ErasureOrdered`].
    ErasureOrdered = 70, "system.erasure_ordered", Self::System(SystemEvent::ErasureOrdered { .. }),
    /// [`SystemEvent::Erased`].
    Erased = 71, "system.erased", Self::System(SystemEvent::Erased { .. }),
    /// [`SystemEvent::LogTrimmed`].
    LogTrimmed = 72, "system.log_trimmed", Self::System(SystemEvent::LogTrimmed { .. }),
    /// [`TurnEvent::Started`].
    TurnStarted = 80, "turn.started",
        Self::Turn(TurnEvent::Started { .. }),
    /// [`TurnEvent::ContextPrepared`].
    ContextPrepared = 81, "turn.context_prepared",
        Self::Turn(TurnEvent::ContextPrepared { .. }),
    /// [`TurnEvent::ModelAnswered`].
    ModelAnswered = 82, "turn.model_answered",
        Self::Turn(TurnEvent::ModelAnswered { .. }),
    /// [`TurnEvent::ModelFailed`].
    ModelFailed = 83, "turn.model_failed",
        Self::Turn(TurnEvent::ModelFailed { .. }),
    /// [`TurnEvent::ToolStarted`].
    ToolStarted = 84, "turn.tool_started",
        Self::Turn(TurnEvent::ToolStarted { .. }),
    /// [`TurnEvent::ToolAnswered`].
    ToolAnswered = 85, "turn.tool_answered",
        Self::Turn(TurnEvent::ToolAnswered { .. }),
    /// [`TurnEvent::ToolRefused`].
    ToolRefused = 86, "turn.tool_refused",
        Self::Turn(TurnEvent::ToolRefused { .. }),
    /// [`TurnEvent::Finished`].
    TurnFinished = 87, "turn.finished",
        Self::Turn(TurnEvent::Finished { .. }),
    /// [`TurnEvent::Failed`].
    TurnFailed = 88, "turn.failed",
        Self::Turn(TurnEvent::Failed { .. }),
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

impl From<ConversationEvent> for Event {
    fn from(event: ConversationEvent) -> Self {
        Self::Conversation(event)
    }
}

impl From<TurnEvent> for Event {
    fn from(event: TurnEvent) -> Self {
        Self::Turn(event)
    }
}

impl From<SystemEvent> for Event {
    fn from(event: SystemEvent) -> Self {
        Self::System(event)
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, Kind};

    #[test]
    fn a_kind_belongs_to_the_family_its_name_begins_with() {
        for kind in Kind::ALL {
            let family = format!("{:?}", kind.family()).to_lowercase();
            assert_eq!(kind.name().split('.').next(), Some(family.as_str()), "{kind:?}");
            assert_eq!(Kind::from_name(kind.name()), Some(*kind));
        }
        assert_eq!(Family::kinds(&[Family::System]).len(), 6);
    }

    #[test]
    fn a_kind_is_named_alone_or_with_its_family() {
        assert_eq!(Kind::named("turn.started"), [Kind::TurnStarted]);
        let mut all = Vec::new();
        for prefix in Family::PREFIXES {
            let kinds = Kind::named(prefix);
            assert!(
                !kinds.is_empty() && kinds.iter().all(|kind| kind.name().starts_with(prefix)),
                "{prefix}"
            );
            assert_eq!(Kind::named(&format!("{prefix}*")), kinds);
            assert_eq!(Kind::named(prefix.trim_end_matches('.')), kinds);
            all.extend(kinds);
        }
        all.sort_unstable();
        assert_eq!(all, Kind::ALL);
        for nothing in ["", ".", "*", "mem", "memory.nonsense", "memory.entity_*"] {
            assert_eq!(Kind::named(nothing), [], "{nothing}");
        }
    }
}
