//! Anthropic's messages.

use std::collections::BTreeSet;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::openai::decimal;
use super::wire::{self, Dialect, Draft, DraftCall, Fault, Shape, Stop, count_of, text_of};
use super::{Ask, ChatMessage, ModelErrorKind, Role, Secret};

/// The version of the interface that this file speaks.
const VERSION: &str = "2023-06-01";
/// Tokens of an answer when nobody says: the interface demands a number.
const MAX_TOKENS: u32 = 4_096;

/// The dialect.
#[derive(Debug)]
pub(super) struct Messages;

impl Dialect for Messages {
    const PATH: &'static str = "/v1/messages";

    fn authorise(headers: &mut HeaderMap, key: Option<&Secret>) -> bool {
        headers.insert(HeaderName::from_static("anthropic-version"), HeaderValue::from_static(VERSION));
        let Some(key) = key else { return true };
        let Ok(mut value) = HeaderValue::from_str(key.expose()) else { return false };
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static("x-api-key"), value);
        true
    }

    fn body(ask: &Ask, shape: &Shape<'_>) -> Value {
        let mut body = json!({
            "model": shape.model_of(ask),
            "messages": messages(ask),
            "max_tokens": ask.max_tokens.or(shape.max_tokens).unwrap_or(MAX_TOKENS),
            "stream": shape.stream,
        });
        if !ask.system.is_empty() {
            body["system"] = ask.system.as_str().into();
        }
        if !ask.tools.is_empty() {
            let tools = ask.tools.iter().map(|tool| {
                json!({ "name": tool.name, "description": tool.description, "input_schema": tool.parameters })
            });
            body["tools"] = tools.collect();
        } else if let Some(tools) = used(ask) {
            body["tools"] = tools;
            body["tool_choice"] = json!({ "type": "none" });
        }
        // Here the scale ends at 1, and newer models refuse both numbers together.
        if let Some(temperature) = ask.temperature {
            body["temperature"] = decimal(temperature.min(1.0));
        } else if let Some(top_p) = ask.top_p {
            body["top_p"] = decimal(top_p);
        }
        body
    }

    fn whole(body: &Value, draft: &mut Draft) -> Result<(), Fault> {
        let Some(blocks) = body["content"].as_array() else { return Err(failure(body)) };
        take_frame(body, draft);
        for block in blocks {
            take_block(block, None, draft);
        }
        take_stop(&body["stop_reason"], draft);
        draft.ended = true;
        Ok(())
    }

    fn event(_: &str, data: &str, draft: &mut Draft) -> Result<(), Fault> {
        let body = wire::json(data)?;
        let kind = text_of(&body["type"]);
        // What models think comes in blocks as well.
        draft.pieces += usize::from(matches!(kind, "content_block_start" | "content_block_delta"));
        match kind {
            "message_start" => take_frame(&body["message"], draft),
            "content_block_start" => take_block(&body["content_block"], body["index"].as_u64(), draft),
            "content_block_delta" => {
                let delta = &body["delta"];
                draft.text.push_str(text_of(&delta["text"]));
                let place = body["index"].as_u64();
                if let Some(call) = draft.calls.iter_mut().rfind(|call| call.place == place) {
                    call.arguments.push_str(text_of(&delta["partial_json"]));
                }
            }
            "message_delta" => {
                take_stop(&body["delta"]["stop_reason"], draft);
                draft.output_tokens = count_of(&body["usage"]["output_tokens"]).or(draft.output_tokens);
            }
            "message_stop" => draft.ended = true,
            "error" => return Err(failure(&body)),
            "" => return Err(Fault::garbled("an event has no type: this is not a stream of messages")),
            // Pings, ends of blocks, and what later versions add.
            _ => (),
        }
        Ok(())
    }
}

/// The tools that the messages call, by name alone: a request that shows calls and names no tools is refused there. `None`:
/// they call none.
fn used(ask: &Ask) -> Option<Value> {
    let calls = ask.messages.iter().flat_map(|message| &message.tool_calls);
    let names: BTreeSet<&str> = calls.map(|call| call.tool.as_str()).collect();
    let tools = names.iter().map(|name| json!({ "name": name, "input_schema": { "type": "object" } }));
    (!names.is_empty()).then(|| tools.collect())
}

/// The messages, with what one side says in a row put together: results of tools belong to the user.
fn messages(ask: &Ask) -> Vec<Value> {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in &ask.messages {
        let role = if message.role == Role::Assistant { "assistant" } else { "user" };
        let blocks = blocks(message);
        match turns.last_mut() {
            _ if blocks.is_empty() => (),
            Some((last, before)) if *last == role => before.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    // The interface begins with the user; a history that was cut may begin with the model.
    if turns.first().is_none_or(|(role, _)| *role != "user") {
        let question = if ask.question.trim().is_empty() { "Go on." } else { &ask.question };
        turns.insert(0, ("user", vec![text_block(question)]));
    }
    turns.into_iter().map(|(role, content)| json!({ "role": role, "content": content })).collect()
}

fn text_block(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn blocks(message: &ChatMessage) -> Vec<Value> {
    if message.role == Role::Tool {
        let result =
            json!({ "type": "tool_result", "tool_use_id": message.answers, "content": message.content });
        return vec![result];
    }
    // Blocks of nothing but white space are refused there.
    let text = (!message.content.trim().is_empty()).then(|| text_block(&message.content));
    let calls = message.tool_calls.iter().map(|call| {
        let input = wire::object(&call.arguments).unwrap_or_else(|| json!({}));
        json!({ "type": "tool_use", "id": call.id, "name": call.tool, "input": input })
    });
    text.into_iter().chain(calls).collect()
}

/// What stands around the blocks.
fn take_frame(message: &Value, draft: &mut Draft) {
    text_of(&message["model"]).clone_into(&mut draft.model);
    let usage = &message["usage"];
    let read = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"];
    let counts = read.iter().filter_map(|name| count_of(&usage[name]));
    draft.input_tokens = counts.reduce(u32::saturating_add);
    draft.output_tokens = count_of(&usage["output_tokens"]);
}

fn take_block(block: &Value, place: Option<u64>, draft: &mut Draft) {
    match text_of(&block["type"]) {
        "text" => draft.text.push_str(text_of(&block["text"])),
        "tool_use" => {
            // In a stream the input begins as `{}` and comes in pieces.
            let input = &block["input"];
            let whole = input.as_object().is_some_and(|input| !input.is_empty());
            let arguments = if whole { input.to_string() } else { String::new() };
            let (id, tool) = (text_of(&block["id"]).to_owned(), text_of(&block["name"]).to_owned());
            draft.calls.push(DraftCall { place, id, tool, arguments });
        }
        _ => (),
    }
}

fn take_stop(reason: &Value, draft: &mut Draft) {
    draft.stop = match text_of(reason) {
        "" => draft.stop,
        "max_tokens" | "model_context_window_exceeded" => Some(Stop::Length),
        "refusal" => Some(Stop::Filtered),
        _ => Some(Stop::Done),
    };
}

/// An error that came with status 200 or in the middle of a stream, or something that is no message.
fn failure(body: &Value) -> Fault {
    let Some(message) = wire::message_of(body) else {
        return Fault::garbled("the answer has no content: this is not a message");
    };
    let kind = match text_of(&body["error"]["type"]) {
        "overloaded_error" | "rate_limit_error" => ModelErrorKind::RateLimited { retry_after: None },
        "timeout_error" => ModelErrorKind::Timeout,
        "invalid_request_error"
        | "authentication_error"
        | "permission_error"
        | "not_found_error"
        | "billing_error" => ModelErrorKind::Refused,
        _ => ModelErrorKind::Failed,
    };
    Fault::new(kind, format!("the provider failed: {message}"))
}
