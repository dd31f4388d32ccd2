//! What providers are sent, and what odd answers of real servers become.

use serde_json::{Value, json};

use super::conformance::{KEY, options};
use super::stub::{Reply, Stub};
use super::{ask, call, question, said};
use crate::llm::{Answer, Ask, ChatMessage, ModelError, ModelErrorKind, Role, http};

/// A conversation with a call of a tool and its result.
fn conversation() -> Ask {
    let mut ask = question("tea?");
    let result =
        |id: &str, text: &str| ChatMessage { answers: Some(id.to_owned()), ..said(Role::Tool, text) };
    let calls = vec![call("c1", "memory", r#"{"q":"tea"}"#), call("c2", "memory", "{}")];
    ask.messages.push(ChatMessage { tool_calls: calls, ..said(Role::Assistant, "") });
    ask.messages.extend([result("c1", "green"), result("c2", "none"), said(Role::User, "and?")]);
    Ask { temperature: Some(1.3), top_p: Some(0.7), max_tokens: Some(50), ..ask }
}

const CHAT: &str = r#"{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}"#;
const MESSAGE: &str = r#"{"content": [{"type": "text", "text": "yes"}], "stop_reason": "end_turn"}"#;

#[tokio::test]
async fn chat_completions_are_asked_as_they_are_documented() {
    let stub = Stub::start(vec![Reply::json(CHAT)]).await;
    let model = http::openai(options(&format!("{}/v1", stub.url), true)).unwrap();
    let answer = ask(&*model, &conversation()).await.0.unwrap();
    assert!(answer.usage.estimated && answer.usage.input_tokens > 20, "{:?}", answer.usage);
    assert_eq!((answer.usage.output_tokens, answer.model.as_str()), (1, "m1"));
    let request = &stub.requests()[0];
    assert!(request.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", request.head);
    assert!(request.head.contains(&format!("authorization: Bearer {KEY}")), "{}", request.head);
    let function = |id: &str, arguments: &str| {
        let function = json!({ "name": "memory", "arguments": arguments });
        json!({ "id": id, "type": "function", "function": function })
    };
    let parameters = json!({ "type": "object", "properties": { "q": { "type": "string" } } });
    let tool = json!({ "name": "memory", "description": "Searches memory.", "parameters": parameters });
    let expected = json!({
        "model": "m1",
        "messages": [
            { "role": "system", "content": "You are a librarian." },
            { "role": "user", "content": "tea?" },
            {
                "role": "assistant",
                "content": null,
                "tool_calls": [function("c1", r#"{"q":"tea"}"#), function("c2", "{}")],
            },
            { "role": "tool", "tool_call_id": "c1", "content": "green" },
            { "role": "tool", "tool_call_id": "c2", "content": "none" },
            { "role": "user", "content": "and?" },
        ],
        "tools": [{ "type": "function", "function": tool }],
        "temperature": 1.3,
        "top_p": 0.7,
        "max_tokens": 50,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    assert_eq!(request.body, expected);
}

#[tokio::test]
async fn messages_are_asked_as_they_are_documented() {
    let stub = Stub::start(vec![Reply::json(MESSAGE)]).await;
    let model = http::anthropic(options(&stub.url, false)).unwrap();
    ask(&*model, &conversation()).await.0.unwrap();
    let late = Ask {
        model: String::new(),
        max_tokens: None,
        messages: vec![said(Role::Assistant, "x")],
        ..conversation()
    };
    ask(&*model, &late).await.0.unwrap();
    let [request, second] = &stub.requests()[..] else { panic!("two requests") };
    assert!(request.head.starts_with("POST /v1/messages HTTP/1.1"), "{}", request.head);
    for header in [&format!("x-api-key: {KEY}"), "anthropic-version: 2023-06-01"] {
        assert!(request.head.contains(header), "{}", request.head);
    }
    let text = |text: &str| json!({ "type": "text", "text": text });
    let used =
        |id: &str, input: Value| json!({ "type": "tool_use", "id": id, "name": "memory", "input": input });
    let result = |id: &str, text: &str| json!({ "type": "tool_result", "tool_use_id": id, "content": text });
    let schema = json!({ "type": "object", "properties": { "q": { "type": "string" } } });
    let expected = json!({
        "model": "m1",
        "system": "You are a librarian.",
        "messages": [
            { "role": "user", "content": [text("tea?")] },
            { "role": "assistant", "content": [used("c1", json!({ "q": "tea" })), used("c2", json!({}))] },
            { "role": "user", "content": [result("c1", "green"), result("c2", "none"), text("and?")] },
        ],
        "tools": [{ "name": "memory", "description": "Searches memory.", "input_schema": schema }],
        "temperature": 1.0,
        "max_tokens": 50,
        "stream": false,
    });
    assert_eq!(request.body, expected);
    assert_eq!((&second.body["max_tokens"], &second.body["model"]), (&json!(4096), &json!("m-default")));
    assert_eq!(second.body["messages"][0], json!({ "role": "user", "content": [text("tea?")] }));
}

#[tokio::test]
async fn tools_that_were_called_are_named_where_no_more_may_be() {
    let stub = Stub::start(vec![Reply::json(MESSAGE)]).await;
    let model = http::anthropic(options(&stub.url, false)).unwrap();
    let (last, plain) =
        (Ask { tools: Vec::new(), ..conversation() }, Ask { tools: Vec::new(), ..question("tea") });
    for asked in [last, plain] {
        ask(&*model, &asked).await.0.unwrap();
    }
    let [last, plain] = &stub.requests()[..] else { panic!("two requests") };
    assert_eq!(last.body["tools"], json!([{ "name": "memory", "input_schema": { "type": "object" } }]));
    assert_eq!(last.body["tool_choice"], json!({ "type": "none" }));
    assert!(plain.body["tools"].is_null() && plain.body["tool_choice"].is_null(), "{}", plain.body);
}

/// Given this answer of a server of chat completions, this comes of the question.
async fn answered(reply: Reply) -> Result<Answer, ModelError> {
    let stub = Stub::start(vec![reply]).await;
    ask(&*http::openai(options(&stub.url, true)).unwrap(), &question("tea")).await.0
}

#[tokio::test]
async fn servers_that_number_calls_in_their_own_way_are_understood() {
    let delta =
        |calls: &str| format!("data: {{\"choices\": [{{\"delta\": {{\"tool_calls\": [{calls}]}}}}]}}\n\n");
    let end = "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"tool_calls\"}]}\n\n";
    let named = |more: &str, name: &str| {
        format!(r#"{{{more} "function": {{"name": "{name}", "arguments": "{{}}"}}}}"#)
    };
    for (first, second, ids) in [
        // Every call at the place 0, told apart by id.
        (r#""index": 0, "id": "x","#, r#""index": 0, "id": "y","#, ["x", "y"]),
        // No place at all.
        (r#""id": "x","#, r#""id": "y","#, ["x", "y"]),
        // Neither place nor id.
        ("", "", ["call_1_0", "call_1_1"]),
        // One id for all.
        (r#""index": 0, "id": "x","#, r#""index": 1, "id": "x","#, ["x", "call_1_1"]),
    ] {
        let body =
            [delta(&named(first, "memory")), delta(&named(second, "message")), end.to_owned()].concat();
        let calls = answered(Reply::stream(&body, 20)).await.unwrap().tool_calls;
        assert_eq!(calls, [call(ids[0], "memory", "{}"), call(ids[1], "message", "{}")], "{body}");
    }
    // Arguments as an object.
    let whole =
        r#"{"choices": [{"message": {"tool_calls": [{"function": {"name": "a", "arguments": {"q": 1}}}]}}]}"#;
    let calls = answered(Reply::json(whole)).await.unwrap().tool_calls;
    assert_eq!(calls, [call("call_1_0", "a", r#"{"q":1}"#)]);
}

#[tokio::test]
async fn entries_of_a_whole_answer_are_calls_of_their_own_whatever_their_numbers() {
    for (numbers, ids) in [
        (json!({ "id": "x" }), ["x", "call_1_1"]),
        (json!({ "index": 0, "id": "x" }), ["x", "call_1_1"]),
        (json!({ "index": 0 }), ["call_1_0", "call_1_1"]),
    ] {
        let entry = |tool: &str, arguments: &str| {
            let mut entry = numbers.clone();
            entry["function"] = json!({ "name": tool, "arguments": arguments });
            entry
        };
        let calls = [entry("memory", r#"{"q":"tea"}"#), entry("message", "{}")];
        let message = json!({ "tool_calls": calls });
        let body = json!({ "choices": [{ "message": message, "finish_reason": "tool_calls" }] });
        let calls = answered(Reply::json(&body.to_string())).await.unwrap().tool_calls;
        assert_eq!(
            calls,
            [call(ids[0], "memory", r#"{"q":"tea"}"#), call(ids[1], "message", "{}")],
            "{body}"
        );
    }
}

#[tokio::test]
async fn arguments_that_are_no_object_are_the_toolboxs_to_judge_and_are_not_sent_back() {
    for written in ["not json", "[1]", "{\"operation\": oops", "7"] {
        let function = json!({ "name": "memory", "arguments": written });
        let message = json!({ "tool_calls": [{ "id": "c", "type": "function", "function": function }] });
        let body = json!({ "choices": [{ "message": message, "finish_reason": "tool_calls" }] });
        let answer = answered(Reply::json(&body.to_string())).await.unwrap();
        assert_eq!(answer.tool_calls, [call("c", "memory", written)]);

        let mut again = question("tea");
        again.messages.push(ChatMessage { tool_calls: answer.tool_calls, ..said(Role::Assistant, "") });
        again.messages.push(ChatMessage { answers: Some("c".to_owned()), ..said(Role::Tool, "no JSON") });
        let stub = Stub::start(vec![Reply::json(CHAT), Reply::json(MESSAGE)]).await;
        ask(&*http::openai(options(&stub.url, false)).unwrap(), &again).await.0.unwrap();
        ask(&*http::anthropic(options(&stub.url, false)).unwrap(), &again).await.0.unwrap();
        let [chat, messages] = &stub.requests()[..] else { panic!("two requests") };
        let sent = &chat.body["messages"][2]["tool_calls"][0]["function"]["arguments"];
        assert_eq!(sent, "{}", "servers read it, and refuse the whole request for what is no JSON");
        assert_eq!(messages.body["messages"][1]["content"][0]["input"], json!({}));
    }
}

#[tokio::test]
async fn every_odd_answer_has_its_kind() {
    let choice = |message: &str, stop: &str| {
        Reply::json(&format!(r#"{{"choices": [{{"message": {message}, "finish_reason": "{stop}"}}]}}"#))
    };
    let called = |arguments: &str| {
        format!(r#"{{"tool_calls": [{{"function": {{"name": "a", "arguments": "{arguments}"}}}}]}}"#)
    };
    let wait =
        |seconds| ModelErrorKind::RateLimited { retry_after: Some(std::time::Duration::from_secs(seconds)) };
    let quota = r#"{"error": {"message": "you have no money", "code": "insufficient_quota"}}"#;
    for (reply, kind, words) in [
        (Reply::json(r#"{"error": {"message": "out of memory"}}"#), ModelErrorKind::Failed, "out of memory"),
        (Reply::json(r#"{"error": "model is loading"}"#), ModelErrorKind::Failed, "model is loading"),
        (Reply::json("[]"), ModelErrorKind::Garbled, "no choices"),
        (Reply::json("<html>\n\u{7}login"), ModelErrorKind::Garbled, "<html>"),
        (Reply::stream("data: {\"error\": {\"message\": \"dead\"}}\n\n", 9), ModelErrorKind::Failed, "dead"),
        (Reply::stream("", 1), ModelErrorKind::Failed, "in the middle"),
        (choice(&called("{"), "length"), ModelErrorKind::Refused, "raise max_tokens"),
        (choice(&called(""), "length"), ModelErrorKind::Refused, "raise max_tokens"),
        (choice(r#"{"content": ""}"#, "length"), ModelErrorKind::Refused, "raise max_tokens"),
        (choice(r#"{"content": "x"}"#, "content_filter"), ModelErrorKind::Refused, "other words"),
        (choice(r#"{"tool_calls": [{"id": "x"}]}"#, "stop"), ModelErrorKind::Garbled, "without a name"),
        (Reply::of("429 Too Many Requests", "", quota), ModelErrorKind::Refused, "no money"),
        (Reply::of("503 Busy", "Retry-After: 2\r\n", ""), wait(2), "503"),
        (Reply::of("503 Busy", "", ""), ModelErrorKind::Failed, "503"),
        (Reply::of("529 Overloaded", "Retry-After: 3\r\n", ""), wait(3), "529"),
        (Reply::of("504 Gateway Timeout", "", ""), ModelErrorKind::Timeout, "504"),
        (
            Reply::of("404 Not Found", "", r#"{"error": "model 'm1' not found"}"#),
            ModelErrorKind::Refused,
            "check `model`",
        ),
        (
            Reply::of("302 Found", "Location: http://127.0.0.1:1/\r\n", ""),
            ModelErrorKind::Refused,
            "not followed",
        ),
        (Reply::of("400 Bad Request", "", "{\"detail\": \"too\nlong\"}"), ModelErrorKind::Refused, "400"),
    ] {
        let context = format!("{reply:?}");
        let error = answered(reply).await.expect_err(&context);
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{words:?} is not in {error}");
        assert!(!error.message.contains(char::is_control), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_without_the_last_word_counts_when_it_said_why_it_stopped() {
    let text = "data: {\"choices\": [{\"delta\": {\"content\": \"tea\"}, \"finish_reason\": \"stop\"}]}\n\n";
    assert_eq!(answered(Reply::stream(text, 7)).await.unwrap().text, "tea");
    let parts = r#"{"choices": [{"message": {"content": [{"type": "text", "text": "te"}, {"text": "a"}]}}]}"#;
    assert_eq!(answered(Reply::json(parts)).await.unwrap().text, "tea");
}

#[tokio::test]
async fn errors_in_a_stream_of_messages_have_their_kinds() {
    for (kind, expected) in [
        ("overloaded_error", ModelErrorKind::RateLimited { retry_after: None }),
        ("api_error", ModelErrorKind::Failed),
        ("invalid_request_error", ModelErrorKind::Refused),
        ("timeout_error", ModelErrorKind::Timeout),
    ] {
        let event = json!({ "type": "error", "error": { "type": kind, "message": "so it is" } });
        let stub = Stub::start(vec![Reply::stream(&format!("event: error\ndata: {event}\n\n"), 13)]).await;
        let error =
            ask(&*http::anthropic(options(&stub.url, true)).unwrap(), &question("tea")).await.0.unwrap_err();
        assert_eq!(error.kind, expected, "{error}");
        assert!(error.message.contains("so it is"), "{error}");
    }
}

#[tokio::test]
async fn a_provider_without_a_model_says_what_is_missing() {
    let options = http::HttpOptions { model: String::new(), ..options("http://127.0.0.1:1", true) };
    let asked = Ask { model: String::new(), ..question("tea") };
    let error = ask(&*http::openai(options).unwrap(), &asked).await.0.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Refused);
    assert!(error.message.contains("set `model`"), "{error}");
}
