//! The short way into a message: one whose members are plain texts is read at once, without a tree of values in between.
//!
//! Whatever else there is, and whatever is wrong, goes the long way through [`outgoing`](super::outgoing), which has the
//! words for it. Nothing is read here that is not read there as the same message.

use std::borrow::Cow;
use std::fmt;

use axum::http::StatusCode;
use caxton_events::conversation::Content;
use caxton_events::{AgentId, MessageId, WorkspaceId};
use caxton_projections::conversations::SYSTEM;
use serde::de::{Deserialize, Deserializer, Visitor};

use super::super::call::Call;
use super::super::problem::Complaint;
use crate::commands::talk::{Outgoing, To};

/// A text that stays in the body where it can.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Read)
    }
}

/// A message for one agent by name.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    #[serde(borrow)]
    performative: Text<'a>,
    #[serde(borrow)]
    sender: Text<'a>,
    #[serde(borrow)]
    receiver: Text<'a>,
    #[serde(borrow)]
    content: Text<'a>,
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
    #[serde(borrow)]
    workspace: Option<Text<'a>>,
    #[serde(borrow)]
    conversation_id: Option<Text<'a>>,
    #[serde(borrow)]
    priority: Option<Text<'a>>,
    #[serde(borrow)]
    reply_with: Option<Text<'a>>,
    #[serde(borrow)]
    in_reply_to: Option<Text<'a>>,
}

impl Plain<'_> {
    fn into_outgoing(self, request_id: &str) -> Option<Outgoing> {
        let sender: AgentId = self.sender.0.parse().ok()?;
        let receiver: AgentId = self.receiver.0.parse().ok()?;
        if sender.as_str() == SYSTEM || receiver.as_str() == SYSTEM {
            return None;
        }
        let performative = self.performative.0.parse().ok()?;
        let content = Content::Text(self.content.0.into_owned());
        let mut wish = Outgoing::new(sender, performative, To::Agents(vec![receiver]), content);
        if let Some(id) = self.message_id {
            wish.id = Some(id.0.parse::<MessageId>().ok()?);
        }
        if let Some(workspace) = self.workspace {
            wish.workspace = workspace.0.parse::<WorkspaceId>().ok()?;
        }
        if let Some(conversation) = self.conversation_id {
            wish.conversation = Some(conversation.0.parse().ok()?);
        }
        if let Some(priority) = self.priority {
            wish.priority = priority.0.parse().ok()?;
        }
        wish.reply_with = self.reply_with.map(|word| word.0.into_owned());
        wish.in_reply_to = self.in_reply_to.map(|word| word.0.into_owned());
        wish.correlation = Some(request_id.to_owned());
        Some(wish)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Several<'a> {
    #[serde(borrow)]
    messages: Vec<Plain<'a>>,
    atomic: Option<bool>,
    #[serde(borrow)]
    batch_id: Option<Text<'a>>,
}

/// Messages that are sent together.
pub(super) struct Together {
    pub(super) wishes: Vec<Outgoing>,
    pub(super) listed: Listed,
    pub(super) atomic: bool,
}

/// What the answer to a list needs of it.
pub(super) struct Listed {
    /// Where each message stands.
    pub(super) places: Vec<usize>,
    /// The others, when each stands alone: where they are and what is wrong.
    pub(super) bad: Vec<(usize, Complaint, StatusCode)>,
    pub(super) batch_id: Option<String>,
}

impl Listed {
    /// Names the fields of a message by where it stands.
    pub(super) fn place(&self, index: usize) -> String {
        format!("messages[{}].", self.places.get(index).copied().unwrap_or(index))
    }
}

/// One message; `None`: it must go the long way.
pub(super) fn message(bytes: &[u8], request_id: &str) -> Option<Outgoing> {
    read::<Plain<'_>>(bytes)?.into_outgoing(request_id)
}

/// A batch of 1 to `items_max` messages; `None`: it must go the long way.
pub(super) fn batch(call: &Call, items_max: usize) -> Option<Together> {
    if !call.is_json() {
        return None;
    }
    let Several { messages, atomic, batch_id } = read(&call.body)?;
    if messages.is_empty() || messages.len() > items_max {
        return None;
    }
    let places = (0..messages.len()).collect();
    let wishes = messages.into_iter().map(|message| message.into_outgoing(&call.request_id));
    Some(Together {
        wishes: wishes.collect::<Option<_>>()?,
        listed: Listed { places, bad: Vec::new(), batch_id: batch_id.map(|id| id.0.into_owned()) },
        atomic: atomic.unwrap_or(true),
    })
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    // Checked once as a whole, which is cheaper than text by text.
    serde_json::from_str(std::str::from_utf8(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use serde_json::{Value, json};

    use super::super::super::fields::Fields;
    use super::super::super::json::parse_json;
    use super::super::outgoing::{EXTRAS, MESSAGE, outgoing};
    use super::message;
    use crate::commands::talk::Outgoing;

    fn long_way(text: &str) -> Option<Outgoing> {
        let mut fields = Fields::object(parse_json(text.as_bytes()).ok()?, String::new(), &[MESSAGE, EXTRAS]);
        let wish = outgoing(&mut fields, "r-1");
        fields.finish().is_ok().then_some(wish).flatten()
    }

    fn with(name: &str, value: Value) -> String {
        let mut whole =
            json!({"performative": "INFORM", "sender": "ada", "receiver": "bob", "content": "hello"});
        whole[name] = value;
        whole.to_string()
    }

    #[test]
    fn what_is_read_the_short_way_is_what_the_long_way_reads() {
        for text in [
            with("content", json!("a \"quoted\" line\n and \u{e9}\u{1f600}")),
            with("performative", json!("request")),
            with("message_id", json!("018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f")),
            with("workspace", json!("lab")),
            with("workspace", Value::Null),
            with("conversation_id", json!("plan")),
            with("priority", json!("high")),
            with("reply_with", json!("q1")),
            with("in_reply_to", json!("q0")),
            with("in_reply_to", Value::Null),
        ] {
            let long = long_way(&text);
            assert_eq!(message(text.as_bytes(), "r-1"), long, "{text}");
            assert!(long.is_some() || text.contains("request"), "{text}");
        }
    }

    #[test]
    fn everything_else_goes_the_long_way() {
        for text in [
            with("content", json!({"cups": 3})),
            with("content", Value::Null),
            with("content_type", json!("text")),
            with("topic", json!("tea")),
            with("receivers", json!(["cyd"])),
            with("receiver", Value::Null),
            with("receiver", json!("a b")),
            with("sender", json!("system")),
            with("performative", json!("SHOUT")),
            with("priority", json!(1)),
            with("message_id", json!("7")),
            with("metadata", json!({})),
            with("reciever", json!("bob")),
            "{\"sender\": \"ada\", \"sender\": \"ada\"}".to_owned(),
            "[]".to_owned(),
            with("content", json!("x")) + "x",
        ] {
            assert_eq!(message(text.as_bytes(), "r-1"), None, "{text}");
        }
        assert_eq!(message(b"{\"content\": \"\xff\"}", "r-1"), None);
    }
}
