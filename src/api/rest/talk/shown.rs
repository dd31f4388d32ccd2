//! What is shown of a message: to who sent it and to who gets it.

use caxton_events::conversation::{Candidate, Content, Message, Routing};
use caxton_events::{ConversationEvent, Event, Record};
use serde_json::{Value, json};

use super::super::Api;
use crate::engine::SentOutcome;

/// What became of a message. `explain` adds who was looked at.
pub(super) fn sent(api: &Api, outcome: &SentOutcome, explain: bool) -> Value {
    let (delivered, letters) = {
        let state = api.engine.view().talk().read();
        let first = outcome.seq.next();
        let last = caxton_events::Seq(first.0 + outcome.receivers.len() as u64);
        // Those of the sending itself stand right behind the message.
        let letters = state.conversations.dead_letters().range(first..=last);
        let letters: Vec<_> =
            letters.map(|(_, letter)| letter).filter(|letter| letter.sent == outcome.seq).collect();
        let lost = |agent: &&caxton_events::AgentId| {
            letters.iter().any(|letter| letter.receiver.as_ref() == Some(*agent))
        };
        let delivered: Vec<_> = outcome.receivers.iter().filter(|agent| !lost(agent)).cloned().collect();
        (delivered, letters.iter().map(|letter| letter.seq).collect::<Vec<_>>())
    };
    let mut body = json!({
        "message_id": outcome.id,
        "seq": outcome.seq,
        "conversation_id": outcome.conversation,
        "status": if delivered.is_empty() { "dead_lettered" } else { "delivered" },
        "delivered_to": delivered,
        "recorded_at": outcome.recorded_at,
        "replayed": outcome.replayed,
    });
    if !letters.is_empty() {
        body["dead_letters"] = json!(letters);
    }
    if let Some(found) = &outcome.routing {
        body["routing"] = routing(found, explain);
    }
    body
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
        "answers_seq": record.causation,
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
