//! What a recorded event implies: a request to a server, in the numbers of the log it was recorded in.

use std::collections::HashMap;
use std::fmt;

use caxton_events::conversation::{Content, ConversationEnd, Message};
use caxton_events::memory::Validity;
use caxton_events::{
    AgentId, ConversationId, MemoryId, MessageId, RegistrationId, Seq, Timestamp, WorkspaceId,
};
use serde_json::{Map, Value, json};

use super::super::backend::encoded;

/// Who writes, and to which part of memory.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    pub(super) agent: String,
    /// The stream: a scope as text.
    pub(super) scope: String,
}

/// An observation: its number, its text, when it was true.
pub(super) type Noted = (MemoryId, String, Validity);

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wish {
    Agent {
        agent: AgentId,
        workspace: WorkspaceId,
    },
    Offer {
        registration: RegistrationId,
        body: Value,
    },
    ChangeOffer {
        registration: RegistrationId,
        body: Value,
    },
    WithdrawOffer {
        agent: AgentId,
        capability: String,
    },
    Entity {
        place: Place,
        id: MemoryId,
        body: Map<String, Value>,
        observations: Vec<Noted>,
    },
    ChangeEntity {
        place: Place,
        id: MemoryId,
        body: Value,
    },
    RemoveEntity {
        place: Place,
        id: MemoryId,
    },
    Observations {
        place: Place,
        entity: MemoryId,
        observations: Vec<Noted>,
    },
    ChangeObservation {
        place: Place,
        id: MemoryId,
        body: Value,
    },
    RemoveObservation {
        place: Place,
        id: MemoryId,
    },
    Relation {
        place: Place,
        id: MemoryId,
        from: MemoryId,
        to: MemoryId,
        body: Map<String, Value>,
    },
    ChangeRelation {
        place: Place,
        id: MemoryId,
        body: Value,
    },
    RemoveRelation {
        place: Place,
        id: MemoryId,
    },
    Open {
        conversation: ConversationId,
        parent: Option<ConversationId>,
        body: Map<String, Value>,
        by: String,
    },
    Message {
        message: Box<Message>,
        seq: Seq,
        at: Timestamp,
        answers: Option<Seq>,
        opening: Option<Opening>,
    },
    Close {
        conversation: ConversationId,
        end: ConversationEnd,
        by: String,
    },
    Archive {
        conversation: ConversationId,
        by: String,
    },
    Extend {
        conversation: ConversationId,
        idle_seconds: u64,
        life_seconds: u64,
        by: String,
    },
    Acknowledge {
        agent: AgentId,
        sent: Vec<Seq>,
    },
}

/// What a message said about the conversation it opened.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Opening {
    pub(super) topic: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) parent: Option<ConversationId>,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sent {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Option<Value>,
}

/// The server's numbers for what has numbers in the log.
#[derive(Debug, Default)]
pub(super) struct Learned {
    memory: HashMap<MemoryId, String>,
    conversations: HashMap<ConversationId, String>,
    messages: HashMap<MessageId, String>,
    /// Where messages stand: there and here.
    seqs: HashMap<Seq, u64>,
    registrations: HashMap<RegistrationId, String>,
}

fn request(method: &'static str, path: impl fmt::Display, body: impl Into<Option<Value>>) -> Sent {
    Sent { method, path: format!("/api/v1{path}"), body: body.into() }
}

impl Place {
    /// As parameters of a request.
    fn query(&self) -> String {
        let mut query = format!("?agent_id={}", encoded(&self.agent));
        match self.scope.split_once(':') {
            Some(("workspace", name)) => {
                query.push_str("&memory_scope=workspace&workspace=");
                query.push_str(&encoded(name));
            }
            Some(_) => query.push_str("&memory_scope=agent"),
            None => query.push_str("&memory_scope=global"),
        }
        query
    }
}

/// A moment as it stands in a body; null for an open end.
pub(super) fn ends(validity: &Validity) -> [(&'static str, Value); 2] {
    [("valid_from", json!(validity.from)), ("valid_to", json!(validity.to))]
}

/// A JSON object that is kept as text; null where there is none.
pub(super) fn object(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

fn noted(observations: &[Noted]) -> Value {
    let one = |(_, content, validity): &Noted| {
        let mut item = Map::new();
        item.insert("content".to_owned(), json!(content));
        item.extend(ends(validity).into_iter().map(|(name, value)| (name.to_owned(), value)));
        Value::Object(item)
    };
    observations.iter().map(one).collect()
}

impl Wish {
    /// The request, in the server's numbers; `None` when it is about something that this run has not made there. `now` is
    /// the present, which deadlines are moved to.
    pub(super) fn request(&self, known: &Learned, now: Timestamp) -> Option<Sent> {
        Some(match self {
            Self::Agent { agent, workspace } => {
                request("POST", "/agents", json!({ "agent_id": agent, "workspace": workspace }))
            }
            Self::Offer { body, .. } => request("POST", "/capabilities", body.clone()),
            Self::ChangeOffer { registration, body } => {
                let registration = known.registrations.get(registration)?;
                request("PUT", format!("/capabilities/{}", encoded(registration)), body.clone())
            }
            Self::WithdrawOffer { agent, capability } => {
                let path = format!("/capabilities/{}/{}", encoded(agent.as_str()), encoded(capability));
                request("DELETE", path, None)
            }
            Self::Acknowledge { agent, sent } => {
                let seqs: Vec<u64> = sent.iter().filter_map(|seq| known.seqs.get(seq).copied()).collect();
                let path = format!("/agents/{}/inbox/ack", encoded(agent.as_str()));
                (!seqs.is_empty()).then(|| request("POST", path, json!({ "seqs": seqs })))?
            }
            Self::Entity { .. }
            | Self::ChangeEntity { .. }
            | Self::RemoveEntity { .. }
            | Self::Observations { .. }
            | Self::ChangeObservation { .. }
            | Self::RemoveObservation { .. }
            | Self::Relation { .. }
            | Self::ChangeRelation { .. }
            | Self::RemoveRelation { .. } => self.memory_request(known)?,
            Self::Open { .. }
            | Self::Message { .. }
            | Self::Close { .. }
            | Self::Archive { .. }
            | Self::Extend { .. } => self.talk_request(known, now)?,
        })
    }

    fn memory_request(&self, known: &Learned) -> Option<Sent> {
        let row = |id: &MemoryId| known.memory.get(id).map(String::as_str);
        let at =
            |kind: &str, id, place: &Place| Some(format!("/memory/{kind}/{}{}", row(id)?, place.query()));
        Some(match self {
            Self::Entity { place, body, observations, .. } => {
                let mut body = body.clone();
                body.insert("observations".to_owned(), noted(observations));
                request("POST", format!("/memory/entities{}", place.query()), Value::Object(body))
            }
            Self::ChangeEntity { place, id, body } => {
                request("PATCH", at("entities", id, place)?, body.clone())
            }
            Self::RemoveEntity { place, id } => request("DELETE", at("entities", id, place)?, None),
            Self::Observations { place, entity, observations } => {
                let path = format!("/memory/entities/{}/observations{}", row(entity)?, place.query());
                request("POST", path, json!({ "observations": noted(observations) }))
            }
            Self::ChangeObservation { place, id, body } => {
                request("PATCH", at("observations", id, place)?, body.clone())
            }
            Self::RemoveObservation { place, id } => request("DELETE", at("observations", id, place)?, None),
            Self::Relation { place, from, to, body, .. } => {
                let mut body = body.clone();
                body.insert("from_entity".to_owned(), json!(row(from)?));
                body.insert("to_entity".to_owned(), json!(row(to)?));
                request("POST", format!("/memory/relations{}", place.query()), Value::Object(body))
            }
            Self::ChangeRelation { place, id, body } => {
                request("PATCH", at("relations", id, place)?, body.clone())
            }
            Self::RemoveRelation { place, id } => request("DELETE", at("relations", id, place)?, None),
            Self::Agent { .. }
            | Self::Offer { .. }
            | Self::ChangeOffer { .. }
            | Self::WithdrawOffer { .. }
            | Self::Open { .. }
            | Self::Message { .. }
            | Self::Close { .. }
            | Self::Archive { .. }
            | Self::Extend { .. }
            | Self::Acknowledge { .. } => return None,
        })
    }

    fn talk_request(&self, known: &Learned, now: Timestamp) -> Option<Sent> {
        let at = |conversation, what: &str| {
            let name: &String = known.conversations.get(conversation)?;
            Some(format!("/conversations/{}/{what}", encoded(name)))
        };
        Some(match self {
            Self::Open { parent, body, by, .. } => {
                let mut body = body.clone();
                body.insert("agent_id".to_owned(), json!(by));
                if let Some(parent) = parent.as_ref().and_then(|parent| known.conversations.get(parent)) {
                    body.insert("parent_conversation".to_owned(), json!(parent));
                }
                request("POST", "/conversations", Value::Object(body))
            }
            Self::Close { conversation, end, by } => {
                request("POST", at(conversation, "close")?, json!({ "end": end, "agent_id": by }))
            }
            Self::Archive { conversation, by } => {
                request("POST", at(conversation, "archive")?, json!({ "agent_id": by }))
            }
            Self::Extend { conversation, idle_seconds, life_seconds, by } => request(
                "POST",
                at(conversation, "extend")?,
                json!({ "idle_timeout_seconds": idle_seconds, "life_timeout_seconds": life_seconds, "agent_id": by }),
            ),
            Self::Message { message, at, answers, opening, .. } => {
                let body = message_body(message, (*at, now), *answers, opening.as_ref(), known);
                request("POST", "/messages", Value::Object(body))
            }
            Self::Agent { .. }
            | Self::Offer { .. }
            | Self::ChangeOffer { .. }
            | Self::WithdrawOffer { .. }
            | Self::Acknowledge { .. }
            | Self::Entity { .. }
            | Self::ChangeEntity { .. }
            | Self::RemoveEntity { .. }
            | Self::Observations { .. }
            | Self::ChangeObservation { .. }
            | Self::RemoveObservation { .. }
            | Self::Relation { .. }
            | Self::ChangeRelation { .. }
            | Self::RemoveRelation { .. } => return None,
        })
    }

    /// Takes in what the server answered.
    pub(super) fn learn(&self, answer: &Value, known: &mut Learned) {
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        match self {
            Self::Offer { registration, .. } => {
                known.registrations.extend(text("registration_id").map(|there| (*registration, there)));
            }
            Self::Entity { id, observations, .. } => {
                known.memory.extend(text("entity_id").map(|there| (*id, there)));
                learn_observations(observations, answer, known);
            }
            Self::Observations { observations, .. } => learn_observations(observations, answer, known),
            Self::Relation { id, .. } => {
                known.memory.extend(text("relation_id").map(|there| (*id, there)));
            }
            Self::Open { conversation, .. } => {
                known
                    .conversations
                    .extend(text("conversation_id").map(|there| (conversation.clone(), there)));
            }
            Self::Message { message, seq, .. } => {
                known
                    .conversations
                    .extend(text("conversation_id").map(|there| (message.conversation.clone(), there)));
                known.messages.extend(text("message_id").map(|there| (message.id, there)));
                known.seqs.extend(answer.get("seq").and_then(Value::as_u64).map(|there| (*seq, there)));
            }
            Self::Acknowledge { sent, .. } => {
                for seq in sent {
                    known.seqs.remove(seq);
                }
            }
            Self::Agent { .. }
            | Self::ChangeOffer { .. }
            | Self::WithdrawOffer { .. }
            | Self::ChangeEntity { .. }
            | Self::RemoveEntity { .. }
            | Self::ChangeObservation { .. }
            | Self::RemoveObservation { .. }
            | Self::ChangeRelation { .. }
            | Self::RemoveRelation { .. }
            | Self::Close { .. }
            | Self::Archive { .. }
            | Self::Extend { .. } => (),
        }
    }
}

fn learn_observations(observations: &[Noted], answer: &Value, known: &mut Learned) {
    let there = answer.get("observation_ids").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let pairs = observations.iter().zip(there);
    known.memory.extend(pairs.filter_map(|((id, ..), there)| Some((*id, there.as_str()?.to_owned()))));
}

/// A message in the server's numbers. Its conversation goes on there; one that this run has not seen begins with it.
fn message_body(
    message: &Message,
    (recorded_at, now): (Timestamp, Timestamp),
    answers: Option<Seq>,
    opening: Option<&Opening>,
    known: &Learned,
) -> Map<String, Value> {
    let mut body = object(message.extras.as_deref()).as_object().cloned().unwrap_or_default();
    let mut put = |name: &str, value: Value| drop(body.insert(name.to_owned(), value));
    put("performative", json!(message.performative));
    put("sender", json!(message.sender));
    put("priority", json!(message.priority));
    put(
        "content",
        match &message.content {
            Content::Text(text) => json!(text),
            Content::Json(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        },
    );
    if let Content::Text(text) = &message.content
        && text.starts_with(['{', '['])
    {
        put("content_type", json!("text"));
    }
    match &message.routing {
        // Nobody was found: the same is asked for again.
        Some(routing) if message.receivers.is_empty() => {
            put("capability", json!(routing.capability));
            put("routing_strategy", json!(routing.strategy));
        }
        Some(_) | None => put("receivers", json!(message.receivers)),
    }
    if message.id_given {
        put("message_id", json!(message.id));
    }
    match (known.conversations.get(&message.conversation), opening) {
        (Some(there), _) => put("conversation_id", json!(there)),
        (None, Some(Opening { topic, protocol, parent })) => {
            let parent = parent.as_ref().and_then(|parent| known.conversations.get(parent));
            for (name, value) in [("topic", topic), ("protocol", protocol)] {
                if let Some(value) = value {
                    put(name, json!(value));
                }
            }
            if let Some(parent) = parent {
                put("parent_conversation", json!(parent));
            }
        }
        (None, None) => (),
    }
    if let Some(word) = &message.reply_with {
        put("reply_with", json!(word));
    }
    if let Some(word) = &message.in_reply_to
        && answers.is_some_and(|seq| {
            known.seqs.contains_key(&seq) || known.conversations.contains_key(&message.conversation)
        })
    {
        let id = word.parse::<MessageId>().ok();
        put("in_reply_to", json!(id.and_then(|id| known.messages.get(&id)).unwrap_or(word)));
    }
    // What was to come then is to come now, after the same time.
    let moved = |at: Timestamp| {
        let ahead = at.unix_micros().saturating_sub(recorded_at.unix_micros());
        Timestamp::from_unix_micros(now.unix_micros().saturating_add(ahead))
    };
    for (name, at) in [("reply_by", message.reply_by), ("expires_at", message.expires_at)] {
        if let Some(at) = at {
            put(name, json!(moved(at)));
        }
    }
    body
}
