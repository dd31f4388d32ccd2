//! What the dialects of providers have in common: an answer that is put together piece by piece.

use std::fmt;

use caxton_events::turn::{ToolCall, Usage};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{Answer, Ask, ModelErrorKind, Secret, estimate_tokens};

/// Longest message of an error, in characters.
const MESSAGE_CHARS_MAX: usize = 400;

/// What goes wrong below a provider's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ModelErrorKind,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(kind: ModelErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn garbled(message: impl Into<String>) -> Self {
        Self::new(ModelErrorKind::Garbled, message)
    }
}

/// What of the options shapes a request.
#[derive(Debug, Clone)]
pub(super) struct Shape<'a> {
    /// The model, when the request names none.
    pub(super) model: &'a str,
    /// Tokens of an answer, when the request does not say.
    pub(super) max_tokens: Option<u32>,
    /// Whether the answer is to come in pieces.
    pub(super) stream: bool,
    /// Address of the provider.
    pub(super) base_url: &'a str,
}

impl Shape<'_> {
    pub(super) fn model_of<'a>(&'a self, ask: &'a Ask) -> &'a str {
        if ask.model.is_empty() { self.model } else { &ask.model }
    }
}

/// How one family of providers speaks.
pub(super) trait Dialect: fmt::Debug + Send + Sync + 'static {
    /// Path below the base address.
    const PATH: &'static str;

    /// Adds what says who asks. `false`: the key cannot be in a header.
    fn authorise(headers: &mut HeaderMap, key: Option<&Secret>) -> bool;

    /// The body of the request.
    fn body(ask: &Ask, shape: &Shape<'_>) -> Value;

    /// Takes a whole answer.
    fn whole(body: &Value, draft: &mut Draft) -> Result<(), Fault>;

    /// Takes one event of a stream.
    fn event(name: &str, data: &str, draft: &mut Draft) -> Result<(), Fault>;
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was done.
    Done,
    /// It had no tokens left.
    Length,
    /// What it said, or was asked, is not allowed there.
    Filtered,
}

/// A call that is still being heard.
#[derive(Debug, Default)]
pub(super) struct DraftCall {
    /// The provider's number of the place that pieces belong to.
    pub(super) place: Option<u64>,
    pub(super) id: String,
    pub(super) tool: String,
    pub(super) arguments: String,
}

/// An answer that is still being heard.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) text: String,
    pub(super) calls: Vec<DraftCall>,
    pub(super) model: String,
    pub(super) input_tokens: Option<u32>,
    pub(super) output_tokens: Option<u32>,
    pub(super) stop: Option<Stop>,
    /// Pieces of a stream so far, whatever they hold: text, calls, thoughts.
    pub(super) pieces: usize,
    /// The provider said that nothing follows.
    pub(super) ended: bool,
}

impl Draft {
    /// Bytes of what was said and called so far.
    pub(super) fn bytes(&self) -> usize {
        let calls = self.calls.iter();
        let calls =
            calls.map(|call| call.id.len() + call.tool.len() + call.arguments.len() + size_of::<DraftCall>());
        self.text.len() + calls.sum::<usize>()
    }

    /// The answer, when it is whole.
    pub(super) fn finish(self, ask: &Ask, provider: &str, model: &str) -> Result<Answer, Fault> {
        if self.stop.is_none() && !self.ended {
            return Err(Fault::new(ModelErrorKind::Failed, "the answer ended in the middle"));
        }
        let cut = self.stop == Some(Stop::Length);
        if self.stop == Some(Stop::Filtered) && self.calls.is_empty() {
            let message = "the provider's filter held the answer back; ask in other words";
            return Err(Fault::new(ModelErrorKind::Refused, message));
        }
        if self.text.trim().is_empty() && self.calls.is_empty() {
            return Err(if cut {
                let message = "max_tokens were used up before the model said anything; raise max_tokens";
                Fault::new(ModelErrorKind::Refused, message)
            } else {
                Fault::garbled("the answer holds neither text nor calls of tools")
            });
        }
        let mut tool_calls: Vec<ToolCall> = Vec::with_capacity(self.calls.len());
        for (index, call) in self.calls.into_iter().enumerate() {
            // A provider that numbers no calls gets numbers that no other request of the turn has.
            let taken = call.id.is_empty() || tool_calls.iter().any(|before| before.id == call.id);
            let id = if taken { format!("call_{}_{index}", ask.messages.len()) } else { call.id };
            let (tool, arguments) = (call.tool, checked(&call.arguments, cut)?);
            if tool.is_empty() {
                return Err(Fault::garbled("the answer calls a tool without a name"));
            }
            tool_calls.push(ToolCall { id, tool, arguments });
        }
        let said = || {
            let calls = tool_calls.iter().map(|call| estimate_tokens(&call.arguments));
            estimate_tokens(&self.text).saturating_add(calls.sum())
        };
        let usage = match (self.input_tokens, self.output_tokens) {
            (Some(input_tokens), Some(output_tokens)) => {
                Usage { input_tokens, output_tokens, estimated: false }
            }
            (input, output) => {
                let guess = ask.estimate("");
                Usage {
                    input_tokens: input.unwrap_or(guess.input_tokens),
                    output_tokens: output.unwrap_or_else(said),
                    estimated: true,
                }
            }
        };
        let model = if self.model.is_empty() { model.to_owned() } else { self.model };
        let provider = provider.to_owned();
        Ok(Answer { text: self.text, tool_calls, usage, model, provider, cached: false })
    }
}

/// The arguments of a call as text. What is no JSON object is the model's mistake and not the provider's: the tool's result
/// says so, and the model mends it.
fn checked(arguments: &str, cut: bool) -> Result<String, Fault> {
    let text = arguments.trim();
    // A call that was cut before its arguments is not one that has none.
    if cut && object(text).is_none() {
        let message = "max_tokens were used up in the middle of a call of a tool; raise max_tokens";
        return Err(Fault::new(ModelErrorKind::Refused, message));
    }
    Ok(if text.is_empty() { "{}" } else { text }.to_owned())
}

/// The arguments of an earlier call, when they are a JSON object: others are not sent back, since providers refuse a whole
/// request for them. Their tool's result says what the model had written.
pub(super) fn object(arguments: &str) -> Option<Value> {
    serde_json::from_str(arguments).ok().filter(Value::is_object)
}

/// The JSON of an event or a body.
pub(super) fn json(text: &str) -> Result<Value, Fault> {
    serde_json::from_str(text)
        .map_err(|error| Fault::garbled(format!("the answer is not JSON ({error}): {:?}", shown(text, 60))))
}

/// A field's text, empty when there is none.
pub(super) fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A field's count of tokens.
pub(super) fn count_of(value: &Value) -> Option<u32> {
    value.as_u64().map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// What an error of a provider says: `error.message`, `message`, or `error` itself.
pub(super) fn message_of(body: &Value) -> Option<&str> {
    let places = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    places.into_iter().find_map(Value::as_str)
}

/// `text` on one line of at most `chars` characters.
pub(super) fn shown(text: &str, chars: usize) -> String {
    let flat: String = text.chars().map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    let flat = flat.trim();
    if flat.chars().count() <= chars {
        return flat.to_owned();
    }
    flat.chars().take(chars).chain(['…']).collect()
}

/// The message of an error as people see it: one line, without the key.
pub(super) fn told(message: &str, key: Option<&Secret>) -> String {
    let clean = key.map_or_else(|| message.to_owned(), |key| key.scrub(message));
    shown(&clean, MESSAGE_CHARS_MAX)
}
