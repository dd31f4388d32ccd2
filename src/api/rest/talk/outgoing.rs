//! A message as its sender writes it.

use caxton_events::conversation::{Content, Priority, Strategy};
use caxton_events::{AgentId, CapabilityName};
use caxton_projections::conversations::SYSTEM;
use serde_json::{Map, Value};

use super::super::fields::Fields;
use crate::commands::talk::routing::is_version;
use crate::commands::talk::{Outgoing, To};

/// Members of a message that have a meaning here.
pub(super) const MESSAGE: &[&str] = &[
    "message_id",
    "performative",
    "sender",
    "workspace",
    "receiver",
    "receivers",
    "capability",
    "to_capability",
    "routing_strategy",
    "broadcast",
    "content",
    "content_type",
    "conversation_id",
    "parent_conversation",
    "topic",
    "protocol",
    "priority",
    "reply_with",
    "in_reply_to",
    "reply_by",
    "expires_at",
];
/// Members that are kept as they are and given to the receivers.
pub(super) const EXTRAS: &[&str] = &[
    "language",
    "ontology",
    "parameters",
    "query_params",
    "attachments",
    "context_hints",
    "trace_context",
    "delivery_options",
    "error",
    "security",
    "metadata",
];

/// Reads one message. `None` comes with complaints only.
pub(super) fn outgoing(fields: &mut Fields, request_id: &str) -> Option<Outgoing> {
    required(fields, "performative", "give one, such as REQUEST or INFORM");
    required(fields, "sender", "name the agent that sends");
    let performative = fields.parsed("performative");
    let sender = agent(fields, "sender");
    let to = addressee(fields);
    let content = match fields.take("content") {
        Some(Value::String(text)) => Some(Content::Text(text)),
        Some(value) => Some(Content::Json(value.to_string())),
        None => {
            fields.complain("content", None, "is missing", "give a text or a JSON value");
            None
        }
    };
    let plain = is_plain(fields, content.as_ref());
    let id = fields.parsed("message_id");
    let workspace = fields.parsed("workspace");
    let conversation = fields.parsed("conversation_id");
    let parent = fields.parsed("parent_conversation");
    let (topic, protocol) = (fields.text("topic"), fields.text("protocol"));
    if let Some(open) = &conversation {
        for (name, given) in [
            ("topic", topic.is_some()),
            ("protocol", protocol.is_some()),
            ("parent_conversation", parent.is_some()),
        ] {
            if given {
                let message = format!("belongs to a new conversation, not to {open}");
                fields.complain(name, None, &message, "leave it out, or leave conversation_id out");
            }
        }
    }
    let priority = fields.parsed("priority").unwrap_or(Priority::Normal);
    let (reply_with, in_reply_to) = (fields.text("reply_with"), fields.text("in_reply_to"));
    let (reply_by, expires_at) = (fields.time("reply_by"), fields.time("expires_at"));
    let extras: Map<String, Value> =
        EXTRAS.iter().filter_map(|name| fields.take(name).map(|value| ((*name).to_owned(), value))).collect();
    let mut wish = Outgoing::new(sender?, performative?, to?, content?);
    wish.workspace = workspace.unwrap_or(wish.workspace);
    Some(Outgoing {
        plain,
        id,
        conversation,
        topic,
        protocol,
        parent,
        priority,
        reply_with,
        in_reply_to,
        reply_by,
        expires_at,
        extras: (!extras.is_empty()).then(|| Value::Object(extras).to_string()),
        correlation: Some(request_id.to_owned()),
        ..wish
    })
}

/// Whether the content is a text whatever it begins with.
fn is_plain(fields: &mut Fields, content: Option<&Content>) -> bool {
    let plain = fields.choice("content_type", &[("text", true)]).unwrap_or(false);
    if plain && let Some(Content::Json(_)) = content {
        let remedy = "give the content as a text, or leave content_type out";
        fields.complain("content_type", Some("text"), "stands beside a content that is no text", remedy);
    }
    plain
}

fn required(fields: &mut Fields, name: &str, remedy: &str) {
    if !fields.given(name) {
        let value = fields.has(name).then_some("null");
        fields.complain(name, value, "is missing", remedy);
    }
}

/// An agent that can send and get messages.
fn agent(fields: &mut Fields, name: &str) -> Option<AgentId> {
    let agent = fields.parsed::<AgentId>(name)?;
    if agent.as_str() == SYSTEM {
        refuse_system(fields, name);
        return None;
    }
    Some(agent)
}

fn refuse_system(fields: &mut Fields, name: &str) {
    fields.complain(name, Some(SYSTEM), "is the name of the server itself", "name an agent");
}

/// Whom a message is for: agents or a capability, not both.
fn addressee(fields: &mut Fields) -> Option<To> {
    let named = fields.given("receiver") || fields.given("receivers");
    let wanted = ["capability", "to_capability"].into_iter().find(|name| fields.given(name));
    match (named, wanted) {
        (true, Some(name)) => {
            fields.complain(
                name,
                None,
                "stands beside a receiver",
                "name a receiver or a capability, not both",
            );
            None
        }
        (false, None) => {
            fields.complain("receiver", None, "is missing", "name a receiver or a capability");
            None
        }
        (true, None) => receivers(fields),
        (false, Some(name)) => capability(fields, name),
    }
}

fn receivers(fields: &mut Fields) -> Option<To> {
    for name in ["routing_strategy", "broadcast"] {
        if fields.given(name) {
            let remedy = "leave it out, or name a capability instead of a receiver";
            fields.complain(name, None, "chooses among providers of a capability", remedy);
        }
    }
    let mut agents = Vec::new();
    if fields.given("receiver") {
        agents.push(agent(fields, "receiver")?);
    }
    for (index, text) in fields.texts("receivers").into_iter().enumerate() {
        let place = format!("receivers[{index}]");
        match text.parse::<AgentId>() {
            Ok(agent) if agent.as_str() == SYSTEM => refuse_system(fields, &place),
            Ok(agent) => agents.push(agent),
            Err(error) => fields.complain(&place, Some(&text), &error.to_string(), "correct the name"),
        }
    }
    Some(To::Agents(agents))
}

fn capability(fields: &mut Fields, name: &str) -> Option<To> {
    let strategy = fields.parsed::<Strategy>("routing_strategy");
    let broadcast = fields.flag("broadcast").unwrap_or(false);
    if broadcast && strategy.is_some_and(|strategy| strategy != Strategy::Broadcast) {
        let remedy = "leave one of them out";
        fields.complain("broadcast", Some("true"), "stands beside another routing_strategy", remedy);
    }
    let strategy = if broadcast { Strategy::Broadcast } else { strategy.unwrap_or(Strategy::BestMatch) };
    let text = fields.text(name)?;
    if let Some(other) = fields.text("to_capability").filter(|other| *other != text) {
        let message = format!("is not the capability beside it, {text:?}");
        fields.complain("to_capability", Some(&other), &message, "leave one of them out: they mean the same");
    }
    let (word, version) = versioned(&text);
    if let Some(version) = version.filter(|version| !is_version(version)) {
        fields.complain(name, Some(version), "is no version", VERSION_REMEDY);
    }
    match word.parse::<CapabilityName>() {
        Ok(word) => Some(To::Capability { name: word, version: version.map(str::to_owned), strategy }),
        Err(error) => {
            let error = error.to_string();
            let (message, remedy) = error.rsplit_once("; ").unwrap_or((&error, "correct the name"));
            fields.complain(name, Some(&text), message, remedy);
            None
        }
    }
}

/// How a version is asked for.
const VERSION_REMEDY: &str = "write it as in 2.1.0, or its beginning: 2 is any 2.x";

/// The parameter `version` of a read: a version, or the beginning of one.
pub(super) fn wanted_version(query: &mut Fields) -> Option<String> {
    let text = query.text("version")?;
    let version = text.strip_prefix('v').unwrap_or(&text);
    if !is_version(version) {
        query.complain("version", Some(&text), "is no version", VERSION_REMEDY);
    }
    Some(version.to_owned())
}

/// A capability and its version, as in `name:v2.0`.
pub(super) fn versioned(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((name, version)) => (name, Some(version.strip_prefix('v').unwrap_or(version))),
        None => (text, None),
    }
}
