//! Chat completions as OpenAI has them, and Ollama, vLLM, llama.cpp and many others with it.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::wire::{self, Dialect, Draft, DraftCall, Fault, Shape, Stop, count_of, text_of};
use super::{Ask, ChatMessage, ModelErrorKind, Role, Secret};

/// The host that takes `max_completion_tokens` and, for its newer models, refuses `max_tokens`, the name that all
/// others know.
const OPENAI_HOST: &str = "//api.openai.com";

/// The dialect.
#[derive(Debug)]
pub(super) struct ChatCompletions;

impl Dialect for ChatCompletions {
    const PATH: &'static str = "/chat/completions";

    fn authorise(headers: &mut HeaderMap, key: Option<&Secret>) -> bool {
        let Some(key) = key else { return true };
        let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", key.expose())) else { return false };
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        true
    }

    fn body(ask: &Ask, shape: &Shape<'_>) -> Value {
        let mut messages = Vec::with_capacity(ask.messages.len() + 1);
        if !ask.system.is_empty() {
            messages.push(json!({ "role": "system", "content": ask.system }));
        }
        messages.extend(ask.messages.iter().map(message));
        if ask.messages.is_empty() {
            messages.push(json!({ "role": "user", "content": ask.question }));
        }
        let mut body = json!({ "model": shape.model_of(ask), "messages": messages, "stream": shape.stream });
        if shape.stream {
            body["stream_options"] = json!({ "include_usage": true });
        }
        if !ask.tools.is_empty() {
            let tools = ask.tools.iter().map(|tool| {
                let function =
                    json!({ "name": tool.name, "description": tool.description, "parameters": tool.parameters });
                json!({ "type": "function", "function": function })
            });
            body["tools"] = tools.collect();
        }
        if let Some(temperature) = ask.temperature {
            body["temperature"] = decimal(temperature);
        }
        if let Some(top_p) = ask.top_p {
            body["top_p"] = decimal(top_p);
        }
        for (name, penalty) in
            [("frequency_penalty", ask.frequency_penalty), ("presence_penalty", ask.presence_penalty)]
        {
            if let Some(penalty) = penalty {
                body[name] = decimal(penalty);
            }
        }
        if let Some(tokens) = ask.max_tokens.or(shape.max_tokens) {
            let of_openai = shape.base_url.contains(OPENAI_HOST);
            body[if of_openai { "max_completion_tokens" } else { "max_tokens" }] = tokens.into();
        }
        body
    }

    fn whole(body: &Value, draft: &mut Draft) -> Result<(), Fault> {
        let Some(choice) = body["choices"].get(0) else { return Err(no_choice(body)) };
        take_frame(body, draft);
        let message = &choice["message"];
        take_text(message, draft);
        draft.calls.extend(calls_of(message).map(whole_call));
        take_stop(choice, draft);
        draft.ended = true;
        Ok(())
    }

    fn event(_: &str, data: &str, draft: &mut Draft) -> Result<(), Fault> {
        if data.trim() == "[DONE]" {
            draft.ended = true;
            return Ok(());
        }
        let body = wire::json(data)?;
        if !body["error"].is_null() || !body.is_object() {
            return Err(no_choice(&body));
        }
        take_frame(&body, draft);
        // The last chunk may hold the usage alone.
        if let Some(choice) = body["choices"].get(0) {
            draft.pieces += usize::from(says_something(&choice["delta"]));
            take_text(&choice["delta"], draft);
            for piece in calls_of(&choice["delta"]) {
                take_call(piece, draft);
            }
            take_stop(choice, draft);
        }
        Ok(())
    }
}

/// A number as it was written: `0.7` as an f32 is not `0.7` as an f64.
pub(super) fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn message(message: &ChatMessage) -> Value {
    match message.role {
        Role::User => json!({ "role": "user", "content": message.content }),
        Role::Tool => {
            json!({ "role": "tool", "tool_call_id": message.answers, "content": message.content })
        }
        Role::Assistant if message.tool_calls.is_empty() => {
            json!({ "role": "assistant", "content": message.content })
        }
        Role::Assistant => {
            let calls = message.tool_calls.iter().map(|call| {
                let is_object = wire::object(&call.arguments).is_some();
                let arguments = if is_object { call.arguments.as_str() } else { "{}" };
                let function = json!({ "name": call.tool, "arguments": arguments });
                json!({ "id": call.id, "type": "function", "function": function })
            });
            let content = (!message.content.is_empty()).then_some(&message.content);
            json!({ "role": "assistant", "content": content, "tool_calls": calls.collect::<Vec<_>>() })
        }
    }
}

/// An answer without a choice: an error that came with status 200, or something else.
fn no_choice(body: &Value) -> Fault {
    match wire::message_of(body) {
        Some(message) => Fault::new(ModelErrorKind::Failed, format!("the provider failed: {message}")),
        None => Fault::garbled("the answer has no choices: this is not a chat completion"),
    }
}

/// What stands around the choices.
fn take_frame(body: &Value, draft: &mut Draft) {
    let model = text_of(&body["model"]);
    if !model.is_empty() {
        model.clone_into(&mut draft.model);
    }
    let usage = &body["usage"];
    draft.input_tokens = count_of(&usage["prompt_tokens"]).or(draft.input_tokens);
    draft.output_tokens = count_of(&usage["completion_tokens"]).or(draft.output_tokens);
}

fn take_stop(choice: &Value, draft: &mut Draft) {
    draft.stop = match text_of(&choice["finish_reason"]) {
        "" => draft.stop,
        "length" => Some(Stop::Length),
        "content_filter" => Some(Stop::Filtered),
        _ => Some(Stop::Done),
    };
}

/// Whether a piece holds anything of the answer, by whatever name: what models think has several. Some servers send the role
/// before they have begun.
fn says_something(delta: &Value) -> bool {
    let mut members = delta.as_object().into_iter().flatten().filter(|(name, _)| *name != "role");
    members.any(|(_, value)| match value {
        Value::String(text) => !text.is_empty(),
        Value::Array(parts) => !parts.is_empty(),
        Value::Object(parts) => !parts.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    })
}

/// The text of a message, or what a piece adds to it.
fn take_text(message: &Value, draft: &mut Draft) {
    match &message["content"] {
        Value::String(text) => draft.text.push_str(text),
        Value::Array(parts) => {
            for part in parts {
                draft.text.push_str(text_of(&part["text"]));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => (),
    }
    draft.text.push_str(text_of(&message["refusal"]));
}

/// The calls of a message, or pieces of calls.
fn calls_of(message: &Value) -> impl Iterator<Item = &Value> {
    message["tool_calls"].as_array().into_iter().flatten()
}

/// A call of an answer that came as a whole: one entry is one call, whatever its number.
fn whole_call(entry: &Value) -> DraftCall {
    let mut call = DraftCall::default();
    add_to(&mut call, entry);
    call
}

/// A piece of a call in a stream.
fn take_call(piece: &Value, draft: &mut Draft) {
    let (place, id) = (piece["index"].as_u64(), text_of(&piece["id"]));
    let name = text_of(&piece["function"]["name"]);
    // Pieces belong together by their place. Some servers give every call the place 0 and tell them apart by id, some
    // give no place and each call in one piece.
    let same = |call: &DraftCall| match place {
        Some(_) => call.place == place && (id.is_empty() || call.id.is_empty() || call.id == id),
        None => {
            if id.is_empty() {
                name.is_empty()
            } else {
                call.id == id
            }
        }
    };
    let at = draft.calls.iter().rposition(same).unwrap_or_else(|| {
        draft.calls.push(DraftCall { place, ..DraftCall::default() });
        draft.calls.len() - 1
    });
    add_to(&mut draft.calls[at], piece);
}

/// What a piece adds to its call.
fn add_to(call: &mut DraftCall, piece: &Value) {
    let function = &piece["function"];
    if call.id.is_empty() {
        text_of(&piece["id"]).clone_into(&mut call.id);
    }
    if call.tool.is_empty() {
        text_of(&function["name"]).clone_into(&mut call.tool);
    }
    match &function["arguments"] {
        Value::String(text) => call.arguments.push_str(text),
        other @ (Value::Object(_) | Value::Array(_) | Value::Number(_) | Value::Bool(_)) => {
            call.arguments.push_str(&other.to_string());
        }
        Value::Null => (),
    }
}
