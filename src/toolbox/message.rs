//! The tool `message`: an agent sends to another agent, or to whoever has a capability.
//!
//! The number of the message is made of turn and call: a call that is repeated after a crash sends nothing twice.

use std::fmt;
use std::sync::Arc;

use caxton_events::conversation::{Content, Performative, Priority, Strategy};
use caxton_events::limits::MESSAGE_CONTENT_BYTES_MAX;
use caxton_events::{AgentId, CapabilityName, ConversationId, MessageId, Seq, TurnId, WorkspaceId};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::arguments::{Arguments, fitting};
use super::{Caller, ToolError, ToolProvider, Wait, Waits};
use crate::llm::ToolSpec;

/// The tool's name.
pub const NAME: &str = "message";

/// Room for the names of an answer and of the mark that it was cut.
const MARKS_BYTES_MAX: usize = 64;

const ARGUMENTS: &[&str] = &[
    "to",
    "capability",
    "strategy",
    "performative",
    "content",
    "conversation",
    "priority",
    "in_reply_to",
    "wait",
];

/// Who gets a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// One agent.
    Agent(AgentId),
    /// Whoever has a capability.
    Capability {
        /// Its name.
        name: CapabilityName,
        /// How one of several is chosen; `None`: as configured.
        strategy: Option<Strategy>,
    },
}

/// A message that an agent sends in a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMessage {
    /// Its number: the same for the same call, so that a repetition is recognised.
    pub id: MessageId,
    /// Who sends it.
    pub sender: AgentId,
    /// The sender's workspace.
    pub workspace: WorkspaceId,
    /// What it does.
    pub performative: Performative,
    /// Who gets it.
    pub to: Recipient,
    /// What it says.
    pub content: Content,
    /// The conversation it belongs to: the one named, else the turn's.
    pub conversation: ConversationId,
    /// How urgent it is.
    pub priority: Priority,
    /// The word or number of the message that it answers.
    pub in_reply_to: Option<String>,
    /// The turn in which it is sent.
    pub turn: TurnId,
    /// The record that led to it.
    pub cause: Seq,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    /// Where it stands.
    pub seq: Seq,
    /// Who gets it; empty: nobody could be found, and it is a dead letter.
    pub receivers: Vec<AgentId>,
    /// How they were found, in one sentence; empty when the agent named them.
    pub reason: String,
}

/// What was answered to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where the answer stands.
    pub seq: Seq,
    /// Who answered.
    pub sender: AgentId,
    /// What the answer does.
    pub performative: Performative,
    /// What it says.
    pub content: Content,
}

/// A message whose answer is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Who sent it.
    pub sender: &'a AgentId,
    /// Its conversation.
    pub conversation: &'a ConversationId,
    /// Where it stands.
    pub seq: Seq,
    /// Its number.
    pub id: MessageId,
}

/// The way out of an agent into the conversations.
pub trait Messages: Send + Sync + fmt::Debug {
    /// Sends; the message is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`ToolError::Arguments`] or [`ToolError::Refused`] when the rules say no, [`ToolError::Failed`] when it could
    /// not be recorded.
    fn send(&self, message: AgentMessage) -> BoxFuture<'_, Result<SentMessage, ToolError>>;

    /// Waits for the answer to a message, for as long as the caller likes. The sender is then done with the answer: it
    /// does not come to it as a message of its own. Asked again, it gives the same answer.
    ///
    /// # Errors
    ///
    /// [`ToolError::Failed`] when it could not be read.
    fn answer<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<Answer, ToolError>>;
}

/// Sends messages for agents.
#[derive(Debug, Clone)]
pub struct MessageTool {
    messages: Arc<dyn Messages>,
    waits: Arc<Waits>,
}

impl MessageTool {
    /// A tool that sends by `messages`, and notes in `waits` whose answer is waited for.
    pub fn new(messages: Arc<dyn Messages>, waits: Arc<Waits>) -> Self {
        Self { messages, waits }
    }
}

impl ToolProvider for MessageTool {
    fn tools(&self) -> BoxFuture<'_, Result<Vec<ToolSpec>, ToolError>> {
        let spec = ToolSpec {
            name: NAME.to_owned(),
            description:
                "Sends a message to another agent, by name or by capability. The answer comes as a message of its own, or, \
                 with wait, as the result."
                    .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "to": {"type": "string", "description": "an agent's name; or give capability"},
                    "capability": {"type": "string", "description": "what the receiver must be able to do"},
                    "strategy": {"type": "string", "enum": Strategy::WORDS},
                    "performative": {
                        "type": "string", "enum": Performative::WORDS, "description": "INFORM when absent",
                    },
                    "content": {"description": "a text, or JSON"},
                    "conversation": {"type": "string", "description": "another conversation than this one"},
                    "priority": {"type": "string", "enum": Priority::WORDS},
                    "in_reply_to": {"type": "string"},
                    "wait": {"type": "boolean", "description": "wait for the answer and give it as the result"},
                },
                "required": ["content"],
                "additionalProperties": false,
            }),
        };
        Box::pin(async { Ok(vec![spec]) })
    }

    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        _tool: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(async move {
            let (message, waits) = read(caller, arguments)?;
            let (id, conversation) = (message.id, message.conversation.clone());
            let _waiting = waits.then(|| {
                let elsewhere = (conversation != caller.conversation).then(|| conversation.clone());
                let (agent, turn) = (caller.agent.clone(), caller.turn);
                self.waits.begin(Wait { agent, turn, message: id, elsewhere })
            });
            let sent = self.messages.send(message).await?;
            let mut shown = json!({ "message_id": id, "seq": sent.seq, "receivers": sent.receivers });
            if !sent.reason.is_empty() {
                shown["reason"] = json!(sent.reason);
            }
            if waits {
                let asked = Asked { sender: &caller.agent, conversation: &conversation, seq: sent.seq, id };
                let answer = self.messages.answer(asked).await?;
                let room = caller.permissions.bytes_max(NAME).saturating_sub(shown.to_string().len());
                shown["answer"] = told(&answer, room);
            }
            Ok(shown.to_string())
        })
    }
}

/// An answer as JSON, with as much of its content as `bytes` have room for: its receiver is done with it, so a result that
/// fails for its size would be the loss of it.
fn told(answer: &Answer, bytes: usize) -> Value {
    let mut told = json!({
        "seq": answer.seq,
        "sender": answer.sender,
        "performative": answer.performative.as_str(),
        "content": "",
    });
    let head = told.to_string().len() + MARKS_BYTES_MAX;
    let content = answer.content.as_str();
    let fits = fitting(content, bytes.saturating_sub(head));
    told["content"] = json!(fits);
    if fits.len() < content.len() {
        told["truncated"] = json!(true);
    }
    told
}

/// The message, and whether its answer is waited for.
fn read(caller: &Caller, arguments: &Value) -> Result<(AgentMessage, bool), ToolError> {
    let arguments = Arguments::of(arguments, ARGUMENTS)?;
    let strategy: Option<Strategy> = arguments.parsed("strategy")?;
    let to = match (arguments.parsed("to")?, arguments.parsed("capability")?) {
        (Some(agent), None) if agent == caller.agent => {
            return Err(ToolError::argument("to", "is the sender itself", "name another agent"));
        }
        (Some(_), None) if strategy.is_some() => {
            return Err(ToolError::argument("strategy", "does not go with to", "leave one of them out"));
        }
        (Some(agent), None) => Recipient::Agent(agent),
        (None, Some(name)) => Recipient::Capability { name, strategy },
        (Some(_), Some(_)) => {
            return Err(ToolError::argument("to", "does not go with capability", "leave one of them out"));
        }
        (None, None) => {
            return Err(ToolError::argument("to", "is missing", "name an agent, or give a capability"));
        }
    };
    let content = match arguments.value("content") {
        None => return Err(ToolError::argument("content", "is missing", "add it: it is required")),
        Some(Value::String(text)) => Content::Text(text.clone()),
        Some(json) => Content::Json(json.to_string()),
    };
    let bytes = content.as_str().len();
    if bytes == 0 || bytes > MESSAGE_CONTENT_BYTES_MAX {
        let reason = format!("takes {bytes} bytes, which must be 1 to {MESSAGE_CONTENT_BYTES_MAX}");
        return Err(ToolError::argument("content", reason, "say what is needed"));
    }
    let performative = arguments.parsed("performative")?.unwrap_or(Performative::Inform);
    let waits = arguments.flag("wait")?.unwrap_or(false);
    if waits && !performative.expects_reply() {
        let reason = format!("is for what is answered, and {performative} is not");
        return Err(ToolError::argument("wait", reason, "leave it out, or use REQUEST or QUERY"));
    }
    let message = AgentMessage {
        id: message_id(caller),
        sender: caller.agent.clone(),
        workspace: caller.workspace.clone(),
        performative,
        to,
        content,
        conversation: arguments.parsed("conversation")?.unwrap_or_else(|| caller.conversation.clone()),
        priority: arguments.parsed("priority")?.unwrap_or(Priority::Normal),
        in_reply_to: arguments.text("in_reply_to")?.map(str::to_owned),
        turn: caller.turn,
        cause: caller.cause,
    };
    Ok((message, waits))
}

/// A UUID of version 8 (RFC 9562): the hash of turn and call.
fn message_id(caller: &Caller) -> MessageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&caller.turn.bytes());
    hasher.update(caller.call.as_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    MessageId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::sync::Mutex;

    use super::*;
    use crate::toolbox::Toolbox;
    use crate::toolbox::stub::caller;

    /// Messages that end in a list.
    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<AgentMessage>>);

    impl Messages for Kept {
        fn send(&self, message: AgentMessage) -> BoxFuture<'_, Result<SentMessage, ToolError>> {
            let (receivers, reason) = match &message.to {
                Recipient::Agent(agent) => (vec![agent.clone()], String::new()),
                Recipient::Capability { .. } => (Vec::new(), "nobody has it".to_owned()),
            };
            self.0.lock().unwrap().push(message);
            Box::pin(async { Ok(SentMessage { seq: Seq(7), receivers, reason }) })
        }

        fn answer<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<Answer, ToolError>> {
            // Says what it was asked.
            let content = self.0.lock().unwrap().last().unwrap().content.clone();
            assert_eq!(asked.seq, Seq(7));
            let (sender, performative) = ("bob".parse().unwrap(), Performative::Inform);
            Box::pin(async move { Ok(Answer { seq: Seq(9), sender, performative, content }) })
        }
    }

    async fn send(caller: &Caller, arguments: Value) -> (Result<Value, ToolError>, Vec<AgentMessage>) {
        let kept = Arc::new(Kept::default());
        let tool = MessageTool::new(Arc::clone(&kept) as Arc<dyn Messages>, Arc::default());
        let result = tool.call(caller, NAME, &arguments).await;
        let kept = kept.0.lock().unwrap().clone();
        (result.map(|text| serde_json::from_str(&text).unwrap()), kept)
    }

    #[tokio::test]
    async fn a_message_goes_to_an_agent_or_to_a_capability() {
        let caller = caller();
        let (result, kept) = send(&caller, json!({"to": "bob", "content": "hi"})).await;
        assert_eq!(result.unwrap()["receivers"], json!(["bob"]));
        let [message] = kept.as_slice() else { panic!("{kept:?}") };
        assert_eq!(message.performative, Performative::Inform);
        assert_eq!(message.content, Content::Text("hi".to_owned()));
        assert_eq!((&message.conversation, message.cause), (&caller.conversation, caller.cause));

        let wish = json!({
            "capability": "data-analysis", "strategy": "round_robin", "performative": "request",
            "content": {"rows": 3}, "conversation": "other", "priority": "high", "in_reply_to": "r1",
        });
        let (result, kept) = send(&caller, wish).await;
        assert_eq!(result.unwrap()["reason"], json!("nobody has it"));
        assert_eq!(kept[0].content, Content::Json("{\"rows\":3}".to_owned()));
        let strategy = Some(Strategy::RoundRobin);
        assert_eq!(kept[0].to, Recipient::Capability { name: "data-analysis".parse().unwrap(), strategy });
        assert_eq!((kept[0].performative, kept[0].priority), (Performative::Request, Priority::High));
    }

    #[tokio::test]
    async fn an_answer_that_is_waited_for_is_the_result() {
        let wish = json!({"to": "bob", "content": "hi", "performative": "REQUEST", "wait": true});
        let (result, kept) = send(&caller(), wish).await;
        let answer = json!({"seq": 9, "sender": "bob", "performative": "INFORM", "content": "hi"});
        assert_eq!((result.unwrap()["answer"].clone(), kept.len()), (answer, 1));
    }

    #[tokio::test]
    async fn an_answer_without_room_in_the_result_is_cut_and_not_lost() {
        let long = "ä\"\n".repeat(50_000);
        let wish = json!({"to": "bob", "content": long, "performative": "REQUEST", "wait": true}).to_string();
        let messages = Arc::new(Kept::default()) as Arc<dyn Messages>;
        let tool = Arc::new(MessageTool::new(messages, Arc::default()));
        let mut caller = caller();
        caller.permissions.http_bytes_max = 1_000;
        let result = Toolbox::new().with(NAME, tool).call(&caller, NAME, &wish).await.unwrap();
        let max = caller.permissions.result_bytes_max;
        assert!((max - 200..=max).contains(&result.len()), "{}", result.len());
        let answer = serde_json::from_str::<Value>(&result).unwrap()["answer"].clone();
        assert_eq!((&answer["seq"], &answer["truncated"]), (&json!(9), &json!(true)));
        assert!(long.starts_with(answer["content"].as_str().unwrap()));
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_and_nothing_is_sent() {
        for (arguments, field) in [
            (json!({"content": "x"}), "to"),
            (json!({"to": "a", "capability": "b", "content": "x"}), "to"),
            (json!({"to": "ada", "content": "x"}), "to"),
            (json!({"to": "a b", "content": "x"}), "to"),
            (json!({"to": "bob", "strategy": "priority", "content": "x"}), "strategy"),
            (json!({"capability": "Not Kebab", "content": "x"}), "capability"),
            (json!({"capability": "a", "strategy": "guess", "content": "x"}), "strategy"),
            (json!({"to": "bob"}), "content"),
            (json!({"to": "bob", "content": ""}), "content"),
            (json!({"to": "bob", "content": "x".repeat(MESSAGE_CONTENT_BYTES_MAX + 1)}), "content"),
            (json!({"to": "bob", "content": "x", "performative": "SHOUT"}), "performative"),
            (json!({"to": "bob", "content": "x", "priority": 3}), "priority"),
            (json!({"to": "bob", "content": "x", "cc": "eve"}), "cc"),
            (json!({"to": "bob", "content": "x", "wait": true}), "wait"),
            (json!({"to": "bob", "content": "x", "performative": "REQUEST", "wait": "yes"}), "wait"),
        ] {
            let (result, kept) = send(&caller(), arguments).await;
            assert!(
                matches!(&result, Err(ToolError::Arguments { field: found, .. }) if found == field),
                "{result:?}"
            );
            assert!(kept.is_empty(), "{field}");
        }
    }

    #[tokio::test]
    async fn the_same_call_has_the_same_number_and_another_call_another() {
        let arguments = json!({"to": "bob", "content": "hi"});
        let (first, second) = (caller(), Caller { call: "c2".to_owned(), ..caller() });
        let number = async |caller| send(caller, arguments.clone()).await.1[0].id;
        let (one, again, other) = (number(&first).await, number(&first).await, number(&second).await);
        assert!(one == again && one != other, "{one} {again} {other}");
        assert_eq!(&one.to_string()[14..15], "8");
    }
}
