//! Language models behind one trait.
//!
//! Reading order: this file (what is asked and answered), then one file a provider.

use std::fmt;
use std::time::Duration;

use caxton_events::turn::{ToolCall, Usage};
use futures::future::BoxFuture;

/// Who said a message of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one who asks.
    User,
    /// The model.
    Assistant,
    /// A tool, answering a call.
    Tool,
}

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who said it.
    pub role: Role,
    /// What was said; of a tool, its result.
    pub content: String,
    /// Calls the model asked for; empty for other roles.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool answers.
    pub answers: Option<String>,
}

/// A tool the model may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name: letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it is for, for the model to read.
    pub description: String,
    /// JSON Schema of its arguments: an object.
    pub parameters: serde_json::Value,
}

/// Something that memory knows about the question: what providers without a model of their own answer from.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Where it stands, as in `obs_5`.
    pub source: String,
    /// The entity it is about.
    pub entity: String,
    /// The text, verbatim.
    pub text: String,
    /// How well it fits, higher is better.
    pub score: f32,
}

/// What a model is asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ask {
    /// The model's name at its provider; empty: the provider's default.
    pub model: String,
    /// What it should be.
    pub system: String,
    /// What was said so far, the newest last.
    pub messages: Vec<ChatMessage>,
    /// What it may call.
    pub tools: Vec<ToolSpec>,
    /// What memory knows, the best first.
    pub facts: Vec<Fact>,
    /// The question itself, without the prompt around it.
    pub question: String,
    /// 0 to 2; `None`: the provider's default.
    pub temperature: Option<f32>,
    /// 0 to 1; `None`: the provider's default.
    pub top_p: Option<f32>,
    /// Tokens of the answer at most; `None`: the provider's default.
    pub max_tokens: Option<u32>,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// What it says.
    pub text: String,
    /// What it wants to call; then the text is only a remark.
    pub tool_calls: Vec<ToolCall>,
    /// What it took.
    pub usage: Usage,
    /// The model that answered, as its provider names it.
    pub model: String,
}

/// What went wrong, as far as the caller can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelErrorKind {
    /// No answer in time.
    Timeout,
    /// Nobody there.
    Unreachable,
    /// Too much was asked; try again later.
    RateLimited {
        /// When the provider said it may be tried again.
        retry_after: Option<Duration>,
    },
    /// The provider failed (5xx), or ended in the middle.
    Failed,
    /// The answer follows no known form.
    Garbled,
    /// The request is refused for good: a wrong key, an unknown model, a prompt that is too long.
    Refused,
}

impl ModelErrorKind {
    /// Whether asking again can help.
    pub const fn is_transient(self) -> bool {
        !matches!(self, Self::Refused)
    }
}

/// Why a model did not answer. Its text never holds a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {message}")]
pub struct ModelError {
    /// Who was asked.
    pub provider: String,
    /// What can be done about it.
    pub kind: ModelErrorKind,
    /// What went wrong, and how to mend it where that is known.
    pub message: String,
}

/// Hears the pieces of an answer while it is being made.
pub type Pieces<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// A language model at its provider.
pub trait LanguageModel: Send + Sync + fmt::Debug {
    /// The provider's name in the configuration.
    fn provider(&self) -> &str;

    /// Asks for one answer. `pieces` hears its text as it comes, where the provider streams.
    ///
    /// # Errors
    ///
    /// [`ModelError`]. Dropping the future ends the request.
    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>>;
}
