//! Language models behind one trait.
//!
//! Reading order: this file (what is asked and answered), then one file a provider: [`extractive`], [`scripted`],
//! `openai` and `anthropic` over `http` and `sse`, [`local`]. Around each stand [`meter`], [`resilient`] (retries,
//! limits, circuit breaker), [`fallback`] and [`cache`]; [`registry`] puts them together by the configuration.

mod anthropic;
mod breaker;
pub mod cache;
pub mod clock;
pub mod extractive;
pub mod fallback;
pub mod http;
pub mod local;
pub mod meter;
mod openai;
pub mod registry;
pub mod resilient;
pub mod scripted;
mod secret;
mod silence;
mod sse;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use caxton_events::turn::{ToolCall, Usage};
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

pub use registry::{Registry, RegistryError, Surroundings, unusable};
pub use secret::{KeyError, Secret};

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
    /// Its cosine to the question, where it was found by meaning.
    pub similarity: Option<f32>,
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
    /// Performative of the message that is answered, as in `REQUEST`; empty when there is none.
    pub performative: String,
    /// 0 to 2; `None`: the provider's default.
    pub temperature: Option<f32>,
    /// 0 to 1; `None`: the provider's default.
    pub top_p: Option<f32>,
    /// Tokens of the answer at most; `None`: the provider's default.
    pub max_tokens: Option<u32>,
    /// Against repeating words, −2 to 2; `None`: the provider's default. Anthropic's interface has none.
    pub frequency_penalty: Option<f32>,
    /// Against staying with a subject, −2 to 2; `None`: the provider's default. Anthropic's interface has none.
    pub presence_penalty: Option<f32>,
    /// An answer that was kept from exactly the same request will do.
    pub reuse: bool,
    /// When nobody waits for the answer any more; `None`: it is waited for as long as it takes.
    pub until: Option<Instant>,
    /// When a provider that has said nothing yet is given up for the next one of its chain; `None`: at `until`.
    pub first_word_by: Option<Instant>,
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
    /// The provider that answered, by its name in the configuration: with a fallback chain it may be another one
    /// than was asked.
    pub provider: String,
    /// Whether the answer was kept from an earlier request.
    pub cached: bool,
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
    /// A word for it, as metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Failed => "failed",
            Self::Garbled => "garbled",
            Self::Refused => "refused",
        }
    }

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
    /// Whether anybody was asked. `false`: the request was turned away on this side, and waits for its time.
    pub asked: bool,
}

impl ModelError {
    /// An error of `provider`.
    pub fn new(provider: &str, kind: ModelErrorKind, message: impl Into<String>) -> Self {
        Self { provider: provider.to_owned(), kind, message: message.into(), asked: true }
    }
}

impl Ask {
    /// Which request of a turn this is, from 1: one more than the answers of the model since the user spoke.
    pub fn step(&self) -> usize {
        let since = self.messages.iter().rev().take_while(|message| message.role != Role::User);
        1 + since.filter(|message| message.role == Role::Assistant).count()
    }

    /// When a provider that has said nothing yet is given up.
    fn patience(&self) -> Option<Instant> {
        self.first_word_by.or(self.until)
    }

    /// When a request that waits for its turn at a provider is turned away. Half of the time is the provider's: who is asked
    /// at the last moment cannot answer.
    fn turn_by(&self) -> Option<Instant> {
        self.patience().map(|until| part_of(until, 2))
    }

    /// Every text that a provider is sent.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let said = self.messages.iter().flat_map(|message| {
            let calls = message.tool_calls.iter().flat_map(|call| [call.tool.as_str(), &call.arguments]);
            std::iter::once(message.content.as_str()).chain(calls)
        });
        let tools = self.tools.iter().flat_map(|tool| [tool.name.as_str(), &tool.description]);
        std::iter::once(self.system.as_str()).chain(said).chain(tools)
    }

    /// An estimate of what the request and `answer` take, for providers that do not say.
    fn estimate(&self, answer: &str) -> Usage {
        let schemas: u32 = self.tools.iter().map(|tool| estimate_tokens(&tool.parameters.to_string())).sum();
        Usage {
            input_tokens: self.texts().map(estimate_tokens).sum::<u32>().saturating_add(schemas),
            output_tokens: estimate_tokens(answer),
            estimated: true,
        }
    }
}

/// Tokens that `text` takes, about: a quarter of its characters.
pub fn estimate_tokens(text: &str) -> u32 {
    u32::try_from(text.chars().count().div_ceil(4)).unwrap_or(u32::MAX)
}

/// When the first of so many equal parts of the time up to `until` is over.
fn part_of(until: Instant, parts: u32) -> Instant {
    let now = Instant::now();
    now + until.saturating_duration_since(now) / parts
}

/// What `future` gives, unless it takes longer than `until`.
async fn by<T>(until: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    let Some(until) = until else { return Some(future.await) };
    timeout_at(until, future).await.ok()
}

/// Hears the pieces of an answer while it is being made. An empty one is none: the model thinks, or says what it calls.
///
/// An attempt that breaks off is not taken back: what counts is the text of the [`Answer`]. Later attempts are silent.
pub type Pieces<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// A language model at its provider.
pub trait LanguageModel: Send + Sync + fmt::Debug {
    /// The provider's name in the configuration.
    fn provider(&self) -> &str;

    /// Forgets answers that it kept, if it keeps any.
    fn forget(&self) {}

    /// Asks for one answer. `pieces` hears its text as it comes, where the provider streams.
    ///
    /// # Errors
    ///
    /// [`ModelError`]. Dropping the future ends the request.
    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>>;
}
