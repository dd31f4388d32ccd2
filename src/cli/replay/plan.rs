//! From recorded events to requests: events of one command become one request, what follows from others is left out.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::iter::Peekable;

use caxton_events::conversation::{ConversationEnd, Message};
use caxton_events::memory::Validity;
use caxton_events::{
    AgentEvent, AgentId, ConversationEvent, ConversationId, Event, MemoryEvent, MemoryId, Record, Seq,
    Timestamp,
};
use caxton_projections::conversations::SYSTEM;
use serde_json::{Map, Value, json};

use super::wish::{Noted, Opening, Place, Wish, ends, object};

/// What requests are kept in order by: two that share one of these are sent one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Row(MemoryId),
    /// A name in a scope, hashed: it may be taken, given up and taken again.
    Name(u64),
    Conversation(String),
    Agent(String),
    Inbox(String),
}

/// A request with its place in the order.
#[derive(Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) wish: Wish,
    /// When the event was recorded.
    pub(super) at: Timestamp,
    /// It waits for everything before it that has one of these, and everything after it waits for it.
    pub(super) orders: Vec<Key>,
    /// It waits for the last before it that has one of these.
    pub(super) needs: Vec<Key>,
}

/// Reads events and makes requests of them.
pub(super) struct Planner<I: Iterator> {
    records: Peekable<I>,
    ready: VecDeque<Planned>,
    names: HashMap<MemoryId, u64>,
    ends: HashMap<MemoryId, (MemoryId, MemoryId)>,
    agents: HashSet<AgentId>,
    /// Messages that their receivers are not done with.
    open: HashMap<AgentId, Vec<(Seq, ConversationId)>>,
    /// Events that are not sent, by kind.
    pub(super) left_out: BTreeMap<&'static str, u64>,
    /// The last position read.
    pub(super) reached: Seq,
}

impl<E, I: Iterator<Item = Result<Record, E>>> Planner<I> {
    pub(super) fn new(records: I) -> Self {
        Self {
            records: records.peekable(),
            ready: VecDeque::new(),
            names: HashMap::new(),
            ends: HashMap::new(),
            agents: HashSet::new(),
            open: HashMap::new(),
            left_out: BTreeMap::new(),
            reached: Seq::ZERO,
        }
    }

    /// The next request; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Planned>, E> {
        while self.ready.is_empty() {
            let group = self.group()?;
            if group.is_empty() {
                return Ok(None);
            }
            self.plan(&group);
        }
        Ok(self.ready.pop_front())
    }

    /// The events of one command: those that follow each other with the same moment and the same correlation.
    fn group(&mut self) -> Result<Vec<Record>, E> {
        let mut group: Vec<Record> = Vec::new();
        while let Some(next) = self.records.peek() {
            let belongs = match (next, group.first()) {
                (Ok(next), Some(first)) => {
                    next.recorded_at == first.recorded_at && next.correlation == first.correlation
                }
                (Err(_), Some(_)) => false,
                (_, None) => true,
            };
            if !belongs {
                break;
            }
            if let Some(record) = self.records.next().transpose()? {
                self.reached = record.seq;
                group.push(record);
            }
        }
        Ok(group)
    }

    fn leave_out(&mut self, record: &Record) {
        *self.left_out.entry(record.event.kind().name()).or_default() += 1;
    }

    fn push(&mut self, record: &Record, wish: Wish, orders: Vec<Key>, needs: Vec<Key>) {
        self.ready.push_back(Planned { wish, at: record.recorded_at, orders, needs });
    }

    fn plan(&mut self, group: &[Record]) {
        let removed: HashSet<MemoryId> = group
            .iter()
            .filter_map(|record| match &record.event {
                Event::Memory(MemoryEvent::EntityRemoved { id }) => Some(*id),
                Event::Memory(_)
                | Event::Agent(_)
                | Event::Conversation(_)
                | Event::Turn(_)
                | Event::System(_) => None,
            })
            .collect();
        let mut rest = group;
        while let [record, behind @ ..] = rest {
            rest = behind;
            match &record.event {
                Event::Memory(event) => rest = &rest[self.memory(record, event, rest, &removed)..],
                Event::Agent(event) => self.agent(record, event),
                Event::Conversation(event) => rest = &rest[self.talk(record, event, rest)..],
                Event::Turn(_) | Event::System(_) => self.leave_out(record),
            }
        }
    }

    fn agent(&mut self, record: &Record, event: &AgentEvent) {
        match event {
            AgentEvent::ExternalRegistered { agent, workspace }
            | AgentEvent::ConfigLoaded { agent, workspace, .. } => {
                if !self.agents.insert(agent.clone()) {
                    return self.leave_out(record);
                }
                let wish = Wish::Agent { agent: agent.clone(), workspace: workspace.clone() };
                self.push(record, wish, vec![Key::Agent(agent.as_str().to_owned())], Vec::new());
            }
            AgentEvent::CapabilityRegistered {
                registration,
                agent,
                capability,
                version,
                priority,
                metadata,
                health_check_url,
            } => {
                let mut body = json!({
                    "agent_id": agent, "capability": capability, "version": version, "priority": priority,
                });
                for (name, value) in
                    [("metadata", object(metadata.as_deref())), ("health_check_url", json!(health_check_url))]
                {
                    if !value.is_null() {
                        body[name] = value;
                    }
                }
                let wish = Wish::Offer { registration: *registration, body };
                self.push(record, wish, vec![Key::Agent(agent.as_str().to_owned())], Vec::new());
            }
            AgentEvent::CapabilityUpdated { registration, priority, metadata, health_check_url } => {
                let body = json!({
                    "priority": priority, "metadata": object(metadata.as_deref()),
                    "health_check_url": health_check_url,
                });
                let wish = Wish::ChangeOffer { registration: *registration, body };
                self.push(record, wish, vec![Key::Agent(record.actor.clone())], Vec::new());
            }
            AgentEvent::CapabilityRemoved { agent, capability, .. } => {
                let capability = capability.as_str().to_owned();
                let wish = Wish::WithdrawOffer { agent: agent.clone(), capability };
                self.push(record, wish, vec![Key::Agent(agent.as_str().to_owned())], Vec::new());
            }
            AgentEvent::ConfigRejected { .. }
            | AgentEvent::ConfigRemoved { .. }
            | AgentEvent::StatusChanged { .. }
            | AgentEvent::HealthChanged { .. }
            | AgentEvent::CircuitChanged { .. } => self.leave_out(record),
        }
    }

    /// Plans an event of the memory; how many of those behind it went with it.
    fn memory(
        &mut self,
        record: &Record,
        event: &MemoryEvent,
        behind: &[Record],
        removed: &HashSet<MemoryId>,
    ) -> usize {
        let place = Place { agent: record.actor.clone(), scope: record.stream.clone() };
        match event {
            MemoryEvent::EntityCreated { id, name, entity_type, metadata, confidence, validity, .. } => {
                let mut body = Map::new();
                body.insert("entity_name".to_owned(), json!(name));
                body.insert("entity_type".to_owned(), json!(entity_type));
                body.insert("confidence".to_owned(), json!(confidence));
                put_some(&mut body, "metadata", object(metadata.as_deref()));
                put_ends(&mut body, validity);
                let observations = noted(*id, behind);
                let (taken, key) = (observations.len(), name_of(record, name));
                self.names.insert(*id, key);
                let wish = Wish::Entity { place, id: *id, body, observations };
                self.push(record, wish, vec![Key::Row(*id), Key::Name(key)], Vec::new());
                return taken;
            }
            MemoryEvent::EntityUpdated { id, name, entity_type, metadata, confidence, validity } => {
                let mut body = json!({
                    "entity_name": name, "entity_type": entity_type, "metadata": object(metadata.as_deref()),
                    "confidence": confidence,
                });
                for (name, value) in ends(validity) {
                    body[name] = value;
                }
                let key = name_of(record, name);
                let before = self.names.insert(*id, key).filter(|before| *before != key);
                let orders = [Key::Row(*id), Key::Name(key)].into_iter().chain(before.map(Key::Name));
                self.push(record, Wish::ChangeEntity { place, id: *id, body }, orders.collect(), Vec::new());
            }
            MemoryEvent::EntityRemoved { id } => {
                let name = self.names.remove(id).map(Key::Name);
                let orders = std::iter::once(Key::Row(*id)).chain(name).collect();
                self.push(record, Wish::RemoveEntity { place, id: *id }, orders, Vec::new());
            }
            MemoryEvent::ObservationAdded { entity, .. } => {
                // The event itself stands in front of those behind it.
                let first = noted(*entity, std::slice::from_ref(record));
                let observations: Vec<_> = first.into_iter().chain(noted(*entity, behind)).collect();
                let taken = observations.len() - 1;
                let wish = Wish::Observations { place, entity: *entity, observations };
                self.push(record, wish, vec![Key::Row(*entity)], Vec::new());
                return taken;
            }
            MemoryEvent::ObservationUpdated { id, entity, content, validity } => {
                let mut body = json!({ "content": content });
                for (name, value) in ends(validity) {
                    body[name] = value;
                }
                let wish = Wish::ChangeObservation { place, id: *id, body };
                self.push(record, wish, vec![Key::Row(*entity)], Vec::new());
            }
            MemoryEvent::ObservationRemoved { id, entity } => {
                // The removal of the entity takes them along.
                if removed.contains(entity) {
                    self.leave_out(record);
                } else {
                    let wish = Wish::RemoveObservation { place, id: *id };
                    self.push(record, wish, vec![Key::Row(*entity)], Vec::new());
                }
            }
            MemoryEvent::RelationCreated { .. }
            | MemoryEvent::RelationUpdated { .. }
            | MemoryEvent::RelationRemoved { .. } => self.relation(record, event, place, removed),
            MemoryEvent::EntityRestored { .. }
            | MemoryEvent::ObservationRestored { .. }
            | MemoryEvent::RelationRestored { .. }
            | MemoryEvent::Undone { .. } => self.leave_out(record),
        }
        0
    }

    fn relation(&mut self, record: &Record, event: &MemoryEvent, place: Place, removed: &HashSet<MemoryId>) {
        match event {
            MemoryEvent::RelationCreated {
                id,
                from,
                to,
                relation_type,
                strength,
                confidence,
                metadata,
                validity,
                ..
            } => {
                let mut body = Map::new();
                body.insert("relation_type".to_owned(), json!(relation_type));
                body.insert("strength".to_owned(), json!(strength));
                body.insert("confidence".to_owned(), json!(confidence));
                put_some(&mut body, "metadata", object(metadata.as_deref()));
                put_ends(&mut body, validity);
                self.ends.insert(*id, (*from, *to));
                let wish = Wish::Relation { place, id: *id, from: *from, to: *to, body };
                self.push(record, wish, self.keys_of(*id), Vec::new());
            }
            MemoryEvent::RelationUpdated { id, strength, confidence, metadata, validity } => {
                let mut body = json!({
                    "strength": strength, "confidence": confidence, "metadata": object(metadata.as_deref()),
                });
                for (name, value) in ends(validity) {
                    body[name] = value;
                }
                self.push(
                    record,
                    Wish::ChangeRelation { place, id: *id, body },
                    self.keys_of(*id),
                    Vec::new(),
                );
            }
            MemoryEvent::RelationRemoved { id } => {
                let orders = self.keys_of(*id);
                let ends = self.ends.remove(id);
                if ends.is_some_and(|(from, to)| removed.contains(&from) || removed.contains(&to)) {
                    return self.leave_out(record);
                }
                self.push(record, Wish::RemoveRelation { place, id: *id }, orders, Vec::new());
            }
            MemoryEvent::EntityCreated { .. }
            | MemoryEvent::EntityUpdated { .. }
            | MemoryEvent::EntityRemoved { .. }
            | MemoryEvent::ObservationAdded { .. }
            | MemoryEvent::ObservationUpdated { .. }
            | MemoryEvent::ObservationRemoved { .. }
            | MemoryEvent::EntityRestored { .. }
            | MemoryEvent::ObservationRestored { .. }
            | MemoryEvent::RelationRestored { .. }
            | MemoryEvent::Undone { .. } => (),
        }
    }

    /// A relation and its ends.
    fn keys_of(&self, relation: MemoryId) -> Vec<Key> {
        let ends = self.ends.get(&relation).copied();
        let ends = ends.into_iter().flat_map(|(from, to)| [Key::Row(from), Key::Row(to)]);
        std::iter::once(Key::Row(relation)).chain(ends).collect()
    }

    /// Plans an event about messages; how many of those behind it went with it.
    fn talk(&mut self, record: &Record, event: &ConversationEvent, behind: &[Record]) -> usize {
        let (by, named) = (record.actor.clone(), |name: &str| vec![Key::Conversation(name.to_owned())]);
        match event {
            ConversationEvent::Opened {
                conversation,
                topic,
                protocol,
                parent,
                idle_timeout_millis,
                life_timeout_millis,
                participants_max,
                messages_max,
            } => {
                let opening =
                    Opening { topic: topic.clone(), protocol: protocol.clone(), parent: parent.clone() };
                if let Some(taken) = self.opened_by_message(conversation, opening, behind) {
                    return taken;
                }
                let mut body = Map::new();
                put_some(&mut body, "topic", json!(topic));
                put_some(&mut body, "protocol", json!(protocol));
                put_some(&mut body, "idle_timeout_seconds", json!(idle_timeout_millis / 1_000));
                put_some(&mut body, "life_timeout_seconds", json!(life_timeout_millis / 1_000));
                put_some(&mut body, "participants_max", json!(participants_max));
                // The largest number stands for no limit.
                put_some(
                    &mut body,
                    "messages_max",
                    json!((*messages_max != u32::MAX).then_some(messages_max)),
                );
                let wish =
                    Wish::Open { conversation: conversation.clone(), parent: parent.clone(), body, by };
                self.push(record, wish, named(conversation.as_str()), Vec::new());
            }
            ConversationEvent::MessageSent(message) => self.message(record, message, None),
            ConversationEvent::Closed { conversation, end } => {
                if matches!(end, ConversationEnd::IdleTimeout | ConversationEnd::LifeTimeout) {
                    self.leave_out(record);
                } else {
                    let wish = Wish::Close { conversation: conversation.clone(), end: *end, by };
                    self.push(record, wish, named(conversation.as_str()), Vec::new());
                }
            }
            ConversationEvent::Archived { conversation } => {
                let wish = Wish::Archive { conversation: conversation.clone(), by };
                self.push(record, wish, named(conversation.as_str()), Vec::new());
            }
            ConversationEvent::Extended { conversation, idle_timeout_millis, life_timeout_millis } => {
                let wish = Wish::Extend {
                    conversation: conversation.clone(),
                    idle_seconds: idle_timeout_millis / 1_000,
                    life_seconds: life_timeout_millis / 1_000,
                    by,
                };
                self.push(record, wish, named(conversation.as_str()), Vec::new());
            }
            ConversationEvent::InboxAcknowledged { agent, through, also } => {
                self.acknowledged(record, agent, *through, also);
            }
            ConversationEvent::MessageExpired { .. }
            | ConversationEvent::ReplyOverdue { .. }
            | ConversationEvent::DeliveryRetried { .. }
            | ConversationEvent::MessageDeadLettered { .. }
            | ConversationEvent::DeadLetterReplayed { .. } => self.leave_out(record),
        }
        0
    }

    /// Plans the message that opened the conversation, if the first one behind is that; how many events went with it.
    fn opened_by_message(
        &mut self,
        conversation: &ConversationId,
        opening: Opening,
        behind: &[Record],
    ) -> Option<usize> {
        let (index, event) = first_talk(behind)?;
        let ConversationEvent::MessageSent(message) = event else { return None };
        if message.conversation != *conversation || message.sender.as_str() == SYSTEM {
            return None;
        }
        // What stands between them introduces the sender.
        for between in &behind[..index] {
            if let Event::Agent(event) = &between.event {
                self.agent(between, event);
            }
        }
        self.message(&behind[index], message, Some(opening));
        Some(index + 1)
    }

    fn message(&mut self, record: &Record, message: &Message, opening: Option<Opening>) {
        // What the server itself says, it says again.
        if message.sender.as_str() == SYSTEM {
            return self.leave_out(record);
        }
        for receiver in &message.receivers {
            let place = (record.seq, message.conversation.clone());
            self.open.entry(receiver.clone()).or_default().push(place);
        }
        let agents = std::iter::once(&message.sender).chain(&message.receivers);
        let needs = agents.map(|agent| Key::Agent(agent.as_str().to_owned())).collect();
        let wish = Wish::Message {
            message: Box::new(message.clone()),
            seq: record.seq,
            at: record.recorded_at,
            answers: record.causation,
            opening,
        };
        self.push(record, wish, vec![Key::Conversation(message.conversation.as_str().to_owned())], needs);
    }

    fn acknowledged(&mut self, record: &Record, agent: &AgentId, through: Seq, also: &[Seq]) {
        let open = self.open.entry(agent.clone()).or_default();
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(open).into_iter().partition(|(seq, _)| *seq <= through || also.contains(seq));
        *open = left;
        if done.is_empty() {
            return self.leave_out(record);
        }
        let needs = done.iter().map(|(_, conversation)| Key::Conversation(conversation.as_str().to_owned()));
        let needs = needs.collect::<HashSet<Key>>().into_iter().collect();
        let sent = done.into_iter().map(|(seq, _)| seq).collect();
        let wish = Wish::Acknowledge { agent: agent.clone(), sent };
        self.push(record, wish, vec![Key::Inbox(agent.as_str().to_owned())], needs);
    }
}

fn put_some(body: &mut Map<String, Value>, name: &str, value: Value) {
    if !value.is_null() {
        body.insert(name.to_owned(), value);
    }
}

/// When it was true, where that is said.
fn put_ends(body: &mut Map<String, Value>, validity: &Validity) {
    for (name, value) in ends(validity) {
        put_some(body, name, value);
    }
}

/// The observations at the front of `records` that are about this entity.
fn noted(entity: MemoryId, records: &[Record]) -> Vec<Noted> {
    let observation = |record: &Record| match &record.event {
        Event::Memory(MemoryEvent::ObservationAdded { id, entity: about, content, validity })
            if *about == entity =>
        {
            Some((*id, content.clone(), *validity))
        }
        Event::Memory(_) | Event::Agent(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => {
            None
        }
    };
    records.iter().map_while(observation).collect()
}

/// The first event about messages.
fn first_talk(records: &[Record]) -> Option<(usize, &ConversationEvent)> {
    records.iter().enumerate().find_map(|(index, record)| match &record.event {
        Event::Conversation(event) => Some((index, event)),
        Event::Memory(_) | Event::Agent(_) | Event::Turn(_) | Event::System(_) => None,
    })
}

/// A name in the scope it is written to.
fn name_of(record: &Record, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&record.stream, name).hash(&mut hasher);
    hasher.finish()
}
