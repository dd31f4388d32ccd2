//! A model that follows rules in a file: texts, calls of tools, errors and delays, for tests and benchmarks.
//!
//! ```yaml
//! model: scripted-1             # its name in answers; default: scripted
//! rules:                        # the first that fits answers
//!   - when:                     # all of these must hold; without `when` a rule always fits
//!       contains: [tea, green]  # words of the question, in any case: a text, or a list of which all must stand there
//!       matches: "(?<n>\\d+) cups"   # a regular expression on the question
//!       performative: REQUEST   # of the message that is answered
//!       step: 1                 # which request of the turn, from 1
//!       system_contains: "You are"   # a text of the system prompt
//!       result_contains: "42"   # a text of the newest result of a tool
//!     times: 2                  # how often it may answer; default: always
//!     delay: 20ms               # before it answers
//!     answer: "{{n}} cups of tea"
//!     calls:
//!       - {tool: memory, arguments: {action: search, query: "{{question}}"}}
//!     usage: {input_tokens: 10, output_tokens: 5}
//!   - error: {kind: rate_limited, retry_after: 1s, message: "slow down"}
//! ```
//!
//! In `answer` and in texts of `arguments`, `{{question}}`, `{{last}}` (the newest message), `{{result}}` (the newest
//! result of a tool), `{{result.answer.content}}` (a member of it, where it is JSON), `{{fact}}` and `{{source}}` (the
//! best of memory), `{{step}}`, and the groups of `matches` by name or number stand for their values. Values are not
//! looked at again.

mod parse;
mod template;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caxton_events::turn::{ToolCall, Usage};
use futures::future::BoxFuture;
use regex::Regex;

use super::clock::Clock;
use super::{Answer, Ask, LanguageModel, ModelError, ModelErrorKind, Pieces, Role};
use template::{Template, Values};

pub use parse::ScriptError;

/// Name of the model in answers, unless the file gives another.
const MODEL: &str = "scripted";

/// The rules of a file.
#[derive(Debug)]
struct Script {
    model: String,
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug)]
struct Rule {
    when: When,
    delay: Duration,
    reply: Reply,
    usage: Option<Usage>,
    /// How often it may still answer.
    left: AtomicU64,
}

/// What must hold for a rule to answer.
#[derive(Debug, Default)]
struct When {
    contains: Vec<String>,
    matches: Option<Regex>,
    performative: Option<String>,
    step: Option<u64>,
    system_contains: Option<String>,
    result_contains: Option<String>,
}

#[derive(Debug)]
enum Reply {
    Answer { text: Template, calls: Vec<CallTemplate> },
    Error { kind: ModelErrorKind, message: String },
}

/// A call; its arguments are templates in their leaves.
#[derive(Debug)]
struct CallTemplate {
    tool: String,
    arguments: template::Json,
}

/// The provider.
#[derive(Debug)]
pub struct Scripted {
    provider: String,
    script: Script,
    clock: Arc<dyn Clock>,
}

impl Scripted {
    /// A provider that follows the rules of the file `path`.
    ///
    /// # Errors
    ///
    /// [`ScriptError`], with line and column.
    pub fn load(provider: &str, path: &Path, clock: Arc<dyn Clock>) -> Result<Self, ScriptError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ScriptError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(provider, path, &text, clock)
    }

    /// A provider that follows the rules of `text`, which errors call `path`.
    ///
    /// # Errors
    ///
    /// [`ScriptError`], with line and column.
    pub fn parse(
        provider: &str,
        path: &Path,
        text: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ScriptError> {
        let script = parse::script(text).map_err(|fault| fault.of(PathBuf::from(path)))?;
        Ok(Self { provider: provider.to_owned(), script, clock })
    }

    fn error(&self, kind: ModelErrorKind, message: impl Into<String>) -> ModelError {
        ModelError::new(&self.provider, kind, message)
    }

    async fn answer(&self, ask: &Ask, pieces: Pieces<'_>) -> Result<Answer, ModelError> {
        let newest_result = newest(ask, Role::Tool);
        let fits = |rule: &&Rule| rule.when.holds(ask, newest_result) && rule.take();
        let Some(rule) = self.script.rules.iter().find(fits) else {
            let message = format!("no rule fits {:?} in step {}", ask.question, ask.step());
            return Err(self.error(ModelErrorKind::Refused, message));
        };
        if !rule.delay.is_zero() {
            self.clock.sleep(rule.delay).await;
        }
        let (text, calls) = match &rule.reply {
            Reply::Error { kind, message } => return Err(self.error(*kind, message)),
            Reply::Answer { text, calls } => (text, calls),
        };
        let values = Values {
            question: &ask.question,
            last: ask.messages.last().map_or("", |message| &message.content),
            result: newest_result,
            fact: ask.facts.first(),
            step: ask.step(),
            groups: rule.when.matches.as_ref().and_then(|regex| regex.captures(&ask.question)),
        };
        let text = text.fill(&values);
        let numbered = |(index, call): (usize, &CallTemplate)| ToolCall {
            id: format!("call_{}_{index}", ask.step()),
            tool: call.tool.clone(),
            arguments: call.arguments.fill(&values).to_string(),
        };
        let tool_calls: Vec<ToolCall> = calls.iter().enumerate().map(numbered).collect();
        // In pieces of a word each, as a model has them.
        text.split_inclusive(' ').for_each(pieces);
        let usage = rule.usage.unwrap_or_else(|| ask.estimate(&text));
        let (model, provider) = (self.script.model.clone(), self.provider.clone());
        Ok(Answer { text, tool_calls, usage, model, provider, cached: false })
    }
}

impl LanguageModel for Scripted {
    fn provider(&self) -> &str {
        &self.provider
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(self.answer(ask, pieces))
    }
}

/// The newest message of `role`, empty when there is none.
fn newest(ask: &Ask, role: Role) -> &str {
    ask.messages.iter().rfind(|message| message.role == role).map_or("", |message| &message.content)
}

impl Rule {
    /// Uses the rule once, where it may be.
    fn take(&self) -> bool {
        let less = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(1) };
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

impl When {
    fn holds(&self, ask: &Ask, result: &str) -> bool {
        let question = ask.question.to_lowercase();
        let stands = |part: &Option<String>, text: &str| part.as_ref().is_none_or(|part| text.contains(part));
        self.contains.iter().all(|word| question.contains(word))
            && self.matches.as_ref().is_none_or(|regex| regex.is_match(&ask.question))
            && self.performative.as_ref().is_none_or(|word| word.eq_ignore_ascii_case(&ask.performative))
            && self.step.is_none_or(|step| step == ask.step() as u64)
            && stands(&self.system_contains, &ask.system)
            && stands(&self.result_contains, result)
    }
}

#[cfg(test)]
mod tests;
