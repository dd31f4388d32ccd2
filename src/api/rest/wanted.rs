//! Which events of the log a client wants: what the log itself can tell from outside, and what concerns an agent.

use caxton_events::log::{Filter, Found};
use caxton_events::{AgentEvent, AgentId, ConversationEvent, Event, Record};

/// A filter over the log.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// What the log passes over without reading it.
    pub(super) filter: Filter,
    /// Only what this agent did, was sent, or became.
    pub(super) concerning: Option<AgentId>,
}

impl Wanted {
    /// Whether an event that passed the filter is wanted. Of one that was erased only the actor is known, at most.
    pub(super) fn takes_found(&self, found: &Found) -> bool {
        match found {
            Found::Record(record) => self.takes(record),
            Found::Sealed(sealed) => {
                let around = sealed.around.as_ref();
                self.concerning
                    .as_ref()
                    .is_none_or(|agent| around.is_some_and(|around| around.actor == agent.as_str()))
            }
        }
    }

    /// Whether a record that passed the filter is wanted.
    pub(super) fn takes(&self, record: &Record) -> bool {
        self.concerning.as_ref().is_none_or(|agent| concerns(record, agent))
    }
}

fn concerns(record: &Record, agent: &AgentId) -> bool {
    record.actor == agent.as_str()
        || match &record.event {
            Event::Agent(event) => subject(event) == Some(agent),
            Event::Conversation(event) => reaches(event, agent),
            // Their actor is the agent; so it is of what it wrote into memory.
            Event::Turn(_) | Event::Memory(_) | Event::System(_) => false,
        }
}

fn subject(event: &AgentEvent) -> Option<&AgentId> {
    match event {
        AgentEvent::ExternalRegistered { agent, .. }
        | AgentEvent::ConfigLoaded { agent, .. }
        | AgentEvent::ConfigRemoved { agent, .. }
        | AgentEvent::StatusChanged { agent, .. }
        | AgentEvent::CapabilityRegistered { agent, .. }
        | AgentEvent::CapabilityRemoved { agent, .. }
        | AgentEvent::HealthChanged { agent, .. }
        | AgentEvent::CircuitChanged { agent, .. } => Some(agent),
        AgentEvent::ConfigRejected { agent, .. } => agent.as_ref(),
        AgentEvent::CapabilityUpdated { .. } => None,
    }
}

fn reaches(event: &ConversationEvent, agent: &AgentId) -> bool {
    match event {
        ConversationEvent::MessageSent(message) => {
            message.sender == *agent || message.receivers.contains(agent)
        }
        ConversationEvent::MessageExpired { receivers, .. } => receivers.contains(agent),
        ConversationEvent::DeliveryRetried { receiver, .. } => receiver == agent,
        ConversationEvent::MessageDeadLettered { receiver, .. } => receiver.as_ref() == Some(agent),
        ConversationEvent::InboxAcknowledged { agent: reader, .. } => reader == agent,
        ConversationEvent::Opened { .. }
        | ConversationEvent::ReplyOverdue { .. }
        | ConversationEvent::DeadLetterReplayed { .. }
        | ConversationEvent::Extended { .. }
        | ConversationEvent::Closed { .. }
        | ConversationEvent::Archived { .. } => false,
    }
}
