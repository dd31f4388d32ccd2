//! What an event can be found by: who, where, what about, what for. The postings are made from it, and what is found by
//! them is checked against it.

use std::borrow::Cow;

use caxton_events::log::{Around, Found, SealedRecord};
use caxton_events::turn::ContextPart;
use caxton_events::{
    AgentEvent, AgentId, ConversationEvent, Event, MemoryEvent, MemoryId, MessageId, Scope, Seq, TurnEvent,
    TurnId,
};
use serde_json::Value;

/// Grows when other terms are made of the same events: files of other versions are not used.
pub(super) const TERMS_VERSION: u32 = 1;

/// Something an event can be found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Term<'a> {
    /// Who caused it.
    Actor(Cow<'a, str>),
    /// An agent it is about, other than its actor: sender, receiver, owner of a scope, subject.
    Agent(Cow<'a, str>),
    /// The conversation it belongs to.
    Conversation(Cow<'a, str>),
    /// Its stream.
    Stream(Cow<'a, str>),
    /// Its correlation.
    Correlation(Cow<'a, str>),
    /// An entity, observation or relation that it writes or names.
    Row(MemoryId),
    /// A message it is, names or answers with.
    Message(MessageId),
    /// The turn it is of, or in which it was written.
    Turn(TurnId),
    /// The event that led to it.
    Cause(Seq),
    /// An entity or observation that a turn was shown.
    Reads(MemoryId),
}

impl Term<'_> {
    /// 64 bits that stand for it in the files. Two terms may share them: what is found is checked.
    pub(super) fn hash(&self) -> u64 {
        match self {
            Self::Actor(name) => hash(1, name.as_bytes()),
            Self::Agent(name) => hash(2, name.as_bytes()),
            Self::Conversation(name) => hash(3, name.as_bytes()),
            Self::Stream(name) => hash(4, name.as_bytes()),
            Self::Correlation(text) => hash(5, text.as_bytes()),
            Self::Row(id) => hash(6, &id.0.to_le_bytes()),
            Self::Message(id) => hash(7, &id.bytes()),
            Self::Turn(id) => hash(8, &id.bytes()),
            Self::Cause(seq) => hash(9, &seq.0.to_le_bytes()),
            Self::Reads(id) => hash(10, &id.0.to_le_bytes()),
        }
    }
}

/// FNV-1a with the last mixing steps of `MurmurHash3`: the same on every machine and in every release.
fn hash(field: u8, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let mut hash = bytes.iter().fold(step(0xcbf2_9ce4_8422_2325, field), |hash, byte| step(hash, *byte));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Gives everything that an event can be found by; some of it more than once. An erased one is found by what stands around
/// its content, as far as that is left.
pub fn terms<'r>(found: &'r Found, give: &mut dyn FnMut(Term<'r>)) {
    let record = match found {
        Found::Record(record) => record,
        Found::Sealed(SealedRecord { around, .. }) => {
            if let Some(Around { stream, actor, correlation, causation }) = around {
                around_terms((actor, stream, correlation.as_deref(), *causation), give);
            }
            return;
        }
    };
    around_terms((&record.actor, &record.stream, record.correlation.as_deref(), record.causation), give);
    let mut about = About { actor: &record.actor, give };
    match &record.event {
        Event::Memory(event) => {
            // The stream of memory events is their scope.
            if let Some(owner) = record.stream.strip_prefix("agent:") {
                about.agent_named(owner);
            }
            about.memory(event);
        }
        Event::Agent(event) => {
            if let Some(agent) = subject(event) {
                about.agent(agent);
            }
        }
        Event::Conversation(event) => {
            if !matches!(event, ConversationEvent::InboxAcknowledged { .. }) {
                about.conversation_of(&record.stream);
            }
            about.conversation(event);
        }
        Event::Turn(event) => {
            about.conversation_of(&record.stream);
            about.turn(event);
        }
        Event::System(_) => (),
    }
}

fn around_terms<'r>(
    (actor, stream, correlation, causation): (&'r str, &'r str, Option<&'r str>, Option<Seq>),
    give: &mut dyn FnMut(Term<'r>),
) {
    give(Term::Actor(Cow::Borrowed(actor)));
    give(Term::Stream(Cow::Borrowed(stream)));
    if let Some(correlation) = correlation {
        give(Term::Correlation(Cow::Borrowed(correlation)));
        if let Some(turn) = turn_named(correlation) {
            give(Term::Turn(turn));
        }
    }
    if let Some(cause) = causation {
        give(Term::Cause(cause));
    }
}

/// The turn that a correlation names: what a turn writes to memory and says carries it.
pub fn turn_named(correlation: &str) -> Option<TurnId> {
    correlation.starts_with(TurnId::PREFIX).then(|| correlation.parse().ok()).flatten()
}

/// The agent that an event about an agent is about.
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

/// Terms of what an event says.
struct About<'g, 'r> {
    actor: &'r str,
    give: &'g mut dyn FnMut(Term<'r>),
}

impl<'r> About<'_, 'r> {
    fn agent_named(&mut self, name: &'r str) {
        if name != self.actor {
            (self.give)(Term::Agent(Cow::Borrowed(name)));
        }
    }

    fn agent(&mut self, agent: &'r AgentId) {
        self.agent_named(agent.as_str());
    }

    fn agents(&mut self, agents: impl IntoIterator<Item = &'r AgentId>) {
        for agent in agents {
            self.agent(agent);
        }
    }

    fn row(&mut self, id: MemoryId) {
        (self.give)(Term::Row(id));
    }

    fn message(&mut self, id: MessageId) {
        (self.give)(Term::Message(id));
    }

    /// Messages have their conversation as stream, turns the same behind a word.
    fn conversation_of(&mut self, stream: &'r str) {
        let name = stream.strip_prefix("conversation:").unwrap_or(stream);
        (self.give)(Term::Conversation(Cow::Borrowed(name)));
    }

    fn memory(&mut self, event: &'r MemoryEvent) {
        match event {
            MemoryEvent::EntityCreated { id, scope, .. } | MemoryEvent::EntityRestored { id, scope, .. } => {
                self.row(*id);
                self.owner(scope);
            }
            MemoryEvent::EntityUpdated { id, .. }
            | MemoryEvent::EntityRemoved { id }
            | MemoryEvent::RelationUpdated { id, .. }
            | MemoryEvent::RelationRemoved { id } => self.row(*id),
            MemoryEvent::ObservationAdded { id, entity, .. }
            | MemoryEvent::ObservationUpdated { id, entity, .. }
            | MemoryEvent::ObservationRestored { id, entity, .. }
            | MemoryEvent::ObservationRemoved { id, entity } => {
                self.row(*id);
                self.row(*entity);
            }
            MemoryEvent::RelationCreated { id, scope, from, to, .. }
            | MemoryEvent::RelationRestored { id, scope, from, to, .. } => {
                self.row(*id);
                self.row(*from);
                self.row(*to);
                self.owner(scope);
            }
            MemoryEvent::Undone { chosen, .. } => {
                if let Some(agent) = &chosen.agent {
                    self.agent(agent);
                }
                if let Some(conversation) = &chosen.conversation {
                    (self.give)(Term::Conversation(Cow::Borrowed(conversation.as_str())));
                }
            }
        }
    }

    fn owner(&mut self, scope: &'r Scope) {
        if let Scope::Agent(agent) = scope {
            self.agent(agent);
        }
    }

    fn conversation(&mut self, event: &'r ConversationEvent) {
        match event {
            ConversationEvent::MessageSent(message) => {
                self.message(message.id);
                self.agent(&message.sender);
                self.agents(&message.receivers);
            }
            ConversationEvent::MessageExpired { message, receivers, .. } => {
                self.message(*message);
                self.agents(receivers);
            }
            ConversationEvent::ReplyOverdue { message, .. }
            | ConversationEvent::DeadLetterReplayed { message, .. } => self.message(*message),
            ConversationEvent::DeliveryRetried { message, receiver, .. } => {
                self.message(*message);
                self.agent(receiver);
            }
            ConversationEvent::MessageDeadLettered { message, receiver, .. } => {
                self.message(*message);
                self.agents(receiver);
            }
            ConversationEvent::InboxAcknowledged { agent, .. } => self.agent(agent),
            ConversationEvent::Opened { .. }
            | ConversationEvent::Extended { .. }
            | ConversationEvent::Closed { .. }
            | ConversationEvent::Archived { .. } => (),
        }
    }

    fn turn(&mut self, event: &'r TurnEvent) {
        (self.give)(Term::Turn(turn_of(event)));
        for id in reads(event) {
            (self.give)(Term::Reads(id));
        }
        match event {
            TurnEvent::Started { agent, .. } => self.agent(agent),
            TurnEvent::Finished { reply: Some(reply), .. } => self.message(*reply),
            TurnEvent::Finished { reply: None, .. }
            | TurnEvent::ContextPrepared { .. }
            | TurnEvent::ModelAnswered { .. }
            | TurnEvent::ModelFailed { .. }
            | TurnEvent::ToolStarted { .. }
            | TurnEvent::ToolAnswered { .. }
            | TurnEvent::ToolRefused { .. }
            | TurnEvent::Failed { .. } => (),
        }
    }
}

/// The turn an event of turns is of.
pub fn turn_of(event: &TurnEvent) -> TurnId {
    match event {
        TurnEvent::Started { turn, .. }
        | TurnEvent::ContextPrepared { turn, .. }
        | TurnEvent::ModelAnswered { turn, .. }
        | TurnEvent::ModelFailed { turn, .. }
        | TurnEvent::ToolStarted { turn, .. }
        | TurnEvent::ToolAnswered { turn, .. }
        | TurnEvent::ToolRefused { turn, .. }
        | TurnEvent::Finished { turn, .. }
        | TurnEvent::Failed { turn, .. } => *turn,
    }
}

/// Entities and observations that an event of a turn shows to the model: its context, and what the tool `memory` found.
pub fn reads(event: &TurnEvent) -> Vec<MemoryId> {
    match event {
        TurnEvent::ContextPrepared { parts, .. } => {
            let used =
                |part: &ContextPart| part.used.iter().filter_map(|name| memory_id(name)).collect::<Vec<_>>();
            parts.iter().flat_map(used).collect()
        }
        TurnEvent::ToolAnswered { tool, result, failed: false, .. } if tool == "memory" => found(result),
        TurnEvent::ToolAnswered { .. }
        | TurnEvent::Started { .. }
        | TurnEvent::ModelAnswered { .. }
        | TurnEvent::ModelFailed { .. }
        | TurnEvent::ToolStarted { .. }
        | TurnEvent::ToolRefused { .. }
        | TurnEvent::Finished { .. }
        | TurnEvent::Failed { .. } => Vec::new(),
    }
}

/// What a search of the tool `memory` found: its `results` name entities and their observations.
fn found(result: &str) -> Vec<MemoryId> {
    let Ok(Value::Object(mut result)) = serde_json::from_str::<Value>(result) else { return Vec::new() };
    let Some(Value::Array(hits)) = result.remove("results") else { return Vec::new() };
    let id = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).and_then(memory_id);
    let mut ids = Vec::new();
    for hit in &hits {
        ids.extend(id(hit, "entity_id"));
        let observations = hit.get("observations").and_then(Value::as_array);
        ids.extend(observations.into_iter().flatten().filter_map(|one| id(one, "id")));
    }
    ids
}

/// The number in `ent_5`, `obs_5` or `rel_5`: all three are drawn from one counter.
pub fn memory_id(name: &str) -> Option<MemoryId> {
    let digits = ["ent_", "obs_", "rel_"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok().map(MemoryId)).flatten()
}
