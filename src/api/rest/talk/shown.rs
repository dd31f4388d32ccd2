//! What is shown of a message: to who sent it and to who gets it.

use std::collections::BTreeMap;
use std::fmt::Display;

use caxton_events::conversation::{Candidate, Content, Message, Routing};
use caxton_events::{AgentId, ConversationEvent, Event, MessageId, Record, Seq, Timestamp};
use caxton_projections::conversations::DeadLetter;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::super::Api;
use crate::engine::SentOutcome;

/// What became of a message, as its sender is told: members in the order of their names.
#[derive(Serialize)]
pub(super) struct Sent<'a> {
    conversation_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dead_letters: Vec<Seq>,
    delivered_to: Vec<&'a str>,
    /// In an answer a line: which line of the body it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<usize>,
    #[serde(serialize_with = "in_words")]
    message_id: MessageId,
    recorded_at: Timestamp,
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    routing: Option<Value>,
    seq: Seq,
    status: &'static str,
}

impl<'a> Sent<'a> {
    /// With the dead letters as they are now. `explain` adds who was looked at.
    pub(super) fn of(letters: &BTreeMap<Seq, DeadLetter>, outcome: &'a SentOutcome, explain: bool) -> Self {
        // Those of the sending itself stand right behind the message.
        let first = outcome.seq.next();
        let last = Seq(first.0 + outcome.receivers.len() as u64);
        let letters: Vec<&DeadLetter> = letters
            .range(first..=last)
            .map(|(_, letter)| letter)
            .filter(|letter| letter.sent == outcome.seq)
            .collect();
        let lost = |agent: &AgentId| letters.iter().any(|letter| letter.receiver.as_ref() == Some(agent));
        let delivered: Vec<&str> =
            outcome.receivers.iter().filter(|agent| !lost(agent)).map(AgentId::as_str).collect();
        Self {
            conversation_id: outcome.conversation.as_str(),
            status: if delivered.is_empty() { "dead_lettered" } else { "delivered" },
            dead_letters: letters.iter().map(|letter| letter.seq).collect(),
            delivered_to: delivered,
            line: None,
            message_id: outcome.id,
            recorded_at: outcome.recorded_at,
            replayed: outcome.replayed,
            routing: outcome.routing.as_ref().map(|found| routing(found, explain)),
            seq: outcome.seq,
        }
    }
}

/// Writes what has words of its own without a text in between.
fn in_words<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What became of a message. `explain` adds who was looked at.
pub(super) fn sent<'a>(api: &Api, outcome: &'a SentOutcome, explain: bool) -> Sent<'a> {
    Sent::of(api.engine.view().talk().read().conversations.dead_letters(), outcome, explain)
}

fn routing(routing: &Routing, explain: bool) -> Value {
    let mut shown = json!({
        "capability": routing.capability,
        "strategy": routing.strategy,
        "reason": routing.reason,
    });
    if explain {
        shown["candidates"] = routing.candidates.iter().map(candidate).collect();
    }
    shown
}

/// Who was looked at, and why it was taken or not.
pub(super) fn candidate(row: &Candidate) -> Value {
    json!({"agent_id": row.agent, "score": row.score, "because": row.because})
}

/// The message in a record; `None` when it holds something else.
pub(in crate::api::rest) fn message(record: &Record) -> Option<Value> {
    let Event::Conversation(ConversationEvent::MessageSent(message)) = &record.event else { return None };
    let mut shown = json!({
        "seq": record.seq,
        "message_id": message.id,
        "performative": message.performative,
        "sender": message.sender,
        "receivers": message.receivers,
        "conversation_id": message.conversation,
        "content": content(message),
        "priority": message.priority,
        "reply_with": message.reply_with,
        "in_reply_to": message.in_reply_to,
        // What an answer answers is the event that led to it; other messages may have a cause as well.
        "answers_seq": record.causation.filter(|_| message.in_reply_to.is_some()),
        "reply_by": message.reply_by,
        "expires_at": message.expires_at,
        "recorded_at": record.recorded_at,
        "correlation_id": record.correlation,
    });
    if let Some(found) = &message.routing {
        shown["routing"] = routing(found, true);
    }
    let extras = message.extras.as_deref().and_then(|text| serde_json::from_str(text).ok());
    if let Some(Value::Object(extras)) = extras {
        for (name, value) in extras {
            shown[name] = value;
        }
    }
    Some(shown)
}

fn content(message: &Message) -> Value {
    match &message.content {
        Content::Text(text) => json!(text),
        // It was JSON when it was sent; a reader that cannot hold its numbers gets the text.
        Content::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    }
}
