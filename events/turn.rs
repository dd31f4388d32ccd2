//! What happens while an agent answers a message: every answer of a model and every result of a tool is a fact before
//! anything depends on it, so that a turn can be resumed and replayed without asking again.

use bincode::{Decode, Encode};

use crate::choice::choice;
use crate::id::{AgentId, ConversationId, MessageId, Seq, TurnId};

choice! {
    /// Where a part of a turn's context came from.
    "context source" ContextKind {
        /// Earlier messages of the conversation.
        History = "conversation_history",
        /// Memory, by search.
        Memory = "memory",
        /// Who can do what.
        Capabilities = "capabilities",
        /// What tools know.
        Tools = "tool_data",
    }
}

/// What one source gave to a context.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ContextPart {
    /// The source.
    pub kind: ContextKind,
    /// What was used, by name: `#17` a record, `ent_3` an entity, `obs_5` an observation, `capability:x`, `tool:y`.
    pub used: Vec<String>,
    /// Tokens it takes, estimated.
    pub tokens: u32,
    /// Items that were left out because the budget was used up.
    pub left_out: u32,
    /// Why the source gave nothing, if it failed; of tools, also which of them are missing, and why.
    pub unavailable: Option<String>,
}

/// A model's wish to call a tool.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ToolCall {
    /// The model's number for the call, unique in the turn.
    pub id: String,
    /// The tool's name.
    pub tool: String,
    /// Its arguments: a JSON object as text, unless the model wrote something else.
    pub arguments: String,
}

/// Tokens of one request to a model.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Whether they were estimated, because the provider did not say.
    pub estimated: bool,
}

/// A fact about a turn: one message handled by one agent.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum TurnEvent {
    /// An agent took up a message.
    Started {
        /// The number of the turn.
        turn: TurnId,
        /// Who.
        agent: AgentId,
        /// Where the agent's text stands that it runs by.
        config: Seq,
        /// Where the message stands.
        message: Seq,
        /// The conversation of both.
        conversation: ConversationId,
        /// 1 for the first time the message is taken up.
        attempt: u32,
    },
    /// The context was put together.
    ContextPrepared {
        /// The number of the turn.
        turn: TurnId,
        /// What each source gave.
        parts: Vec<ContextPart>,
        /// Tokens it may take.
        budget_tokens: u32,
        /// Variables of the template that had no value.
        missing_variables: Vec<String>,
        /// The system prompt as it was rendered.
        system_prompt: String,
        /// The user prompt as it was rendered.
        user_prompt: String,
    },
    /// A model answered.
    ModelAnswered {
        /// The number of the turn.
        turn: TurnId,
        /// Which request of the turn, from 1.
        step: u32,
        /// Who was asked.
        provider: String,
        /// Which model.
        model: String,
        /// What it said.
        text: String,
        /// What it wants to call.
        tool_calls: Vec<ToolCall>,
        /// What it took.
        usage: Usage,
        /// Whether the answer came from the cache.
        cached: bool,
        /// How long it took, in microseconds.
        took_micros: u64,
    },
    /// A model did not answer.
    ModelFailed {
        /// The number of the turn.
        turn: TurnId,
        /// Which request of the turn, from 1.
        step: u32,
        /// Who was asked.
        provider: String,
        /// Which model.
        model: String,
        /// What went wrong, without secrets.
        error: String,
        /// Whether it, or the next provider, is asked again.
        will_retry: bool,
    },
    /// A tool is about to be called. Without a result behind it, the call may or may not have happened.
    ToolStarted {
        /// The number of the turn.
        turn: TurnId,
        /// The number of the call.
        call: String,
        /// The tool's name.
        tool: String,
    },
    /// A tool gave a result, or failed.
    ToolAnswered {
        /// The number of the turn.
        turn: TurnId,
        /// The number of the call.
        call: String,
        /// The tool's name.
        tool: String,
        /// What it gave: text or JSON as text.
        result: String,
        /// Whether that is an error.
        failed: bool,
        /// How long it took, in microseconds.
        took_micros: u64,
    },
    /// A tool was not called, because the agent may not.
    ToolRefused {
        /// The number of the turn.
        turn: TurnId,
        /// The number of the call.
        call: String,
        /// The tool's name.
        tool: String,
        /// Which permission or limit said no.
        reason: String,
    },
    /// The turn is done.
    Finished {
        /// The number of the turn.
        turn: TurnId,
        /// The answer, if there is one.
        reply: Option<MessageId>,
    },
    /// The turn came to nothing.
    Failed {
        /// The number of the turn.
        turn: TurnId,
        /// Why.
        reason: String,
        /// Whether the message is taken up again.
        will_retry: bool,
    },
}
