//! One suite, run over every provider: what it says, what it calls, and how each way to fail is told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::stub::{Reply, Stub};
use super::{ManualClock, ask, call, question};
use crate::llm::http::{self, HttpOptions};
use crate::llm::scripted::Scripted;
use crate::llm::{LanguageModel, ModelErrorKind, Secret};

pub(super) const KEY: &str = "sk-very-secret-0123456789";
const TEXT: &str = "Tea is ready: \u{1f375}.";

/// What a provider goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    Plain,
    Tools,
    Failure,
    Garbage,
    Half,
    Hang,
    RateLimit,
    WrongKey,
    TooLarge,
    Nothing,
    Nobody,
}

const SCENES: [Scene; 11] = [
    Scene::Plain,
    Scene::Tools,
    Scene::Failure,
    Scene::Garbage,
    Scene::Half,
    Scene::Hang,
    Scene::RateLimit,
    Scene::WrongKey,
    Scene::TooLarge,
    Scene::Nothing,
    Scene::Nobody,
];

/// How one provider says it.
struct Dialect {
    name: &'static str,
    make: fn(HttpOptions) -> Result<Arc<dyn LanguageModel>, http::ClientError>,
    stream: bool,
    plain: &'static str,
    tools: &'static str,
    nothing: &'static str,
}

const DIALECTS: [Dialect; 4] = [
    Dialect {
        name: "openai, whole",
        make: http::openai,
        stream: false,
        plain: include_str!("answers/openai_plain.json"),
        tools: include_str!("answers/openai_tools.json"),
        nothing: r#"{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}"#,
    },
    Dialect {
        name: "openai, streaming",
        make: http::openai,
        stream: true,
        plain: include_str!("answers/openai_plain.sse"),
        tools: include_str!("answers/openai_tools.sse"),
        nothing: "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n",
    },
    Dialect {
        name: "anthropic, whole",
        make: http::anthropic,
        stream: false,
        plain: include_str!("answers/anthropic_plain.json"),
        tools: include_str!("answers/anthropic_tools.json"),
        nothing: r#"{"type": "message", "content": [], "stop_reason": "end_turn"}"#,
    },
    Dialect {
        name: "anthropic, streaming",
        make: http::anthropic,
        stream: true,
        plain: include_str!("answers/anthropic_plain.sse"),
        tools: include_str!("answers/anthropic_tools.sse"),
        nothing: "data: {\"type\": \"message_stop\"}\n\n",
    },
];

pub(super) fn options(url: &str, stream: bool) -> HttpOptions {
    let minute = Duration::from_mins(1);
    HttpOptions {
        provider: "tested".to_owned(),
        base_url: url.to_owned(),
        key: Some(Secret::new(KEY, "the test").unwrap()),
        model: "m-default".to_owned(),
        max_tokens: None,
        stream,
        connect_timeout: minute,
        read_timeout: minute,
        total_timeout: minute,
        answer_bytes_max: 1 << 20,
    }
}

impl Dialect {
    fn good(&self, body: &str) -> Reply {
        if self.stream { Reply::stream(body, 11) } else { Reply::json(body) }
    }

    fn half(&self) -> Reply {
        let reply = self.good(self.plain);
        let parts = reply.parts[..reply.parts.len() / 2].to_vec();
        if self.stream {
            return Reply { parts, ..reply };
        }
        // The head promises the whole body.
        let body = &self.plain.as_bytes()[..self.plain.len() / 2];
        Reply { parts: vec![reply.parts[0].clone(), body.to_vec()], ..reply }
    }

    /// The reply of the scene.
    fn reply(&self, scene: Scene) -> Reply {
        let error = format!(r#"{{"error": {{"message": "it did not work with {KEY}", "type": "x"}}}}"#);
        match scene {
            Scene::Plain | Scene::TooLarge | Scene::Nobody => self.good(self.plain),
            Scene::Tools => self.good(self.tools),
            Scene::Nothing => self.good(self.nothing),
            Scene::Failure => Reply::of("500 Internal Server Error", "", &error),
            Scene::WrongKey => Reply::of("401 Unauthorized", "", &error),
            Scene::RateLimit => Reply::of("429 Too Many Requests", "Retry-After: 7\r\n", &error),
            Scene::Garbage => self.good("data: <html>it works!</html>\n\n"),
            Scene::Half => self.half(),
            Scene::Hang => Reply::silence(),
        }
    }

    async fn model(&self, scene: Scene) -> (Stub, Arc<dyn LanguageModel>) {
        let stub = Stub::start(vec![self.reply(scene)]).await;
        let mut options = options(&stub.url, self.stream);
        match scene {
            Scene::Hang => options.read_timeout = Duration::from_millis(30),
            Scene::TooLarge => options.answer_bytes_max = TEXT.len() - 1,
            // Port 1 is nobody's.
            Scene::Nobody => options.base_url = "http://127.0.0.1:1/v1".to_owned(),
            Scene::Plain
            | Scene::Tools
            | Scene::Failure
            | Scene::Garbage
            | Scene::Half
            | Scene::RateLimit
            | Scene::WrongKey
            | Scene::Nothing => (),
        }
        (stub, (self.make)(options).unwrap())
    }
}

/// What must come of the scene, whoever plays it.
async fn check(who: &str, model: &dyn LanguageModel, scene: Scene) {
    let (answered, heard) = ask(model, &question("Is there tea?")).await;
    let context = format!("{who}, {scene:?}: {answered:?}");
    let seven = Some(Duration::from_secs(7));
    let kind = match scene {
        Scene::Plain => {
            let answer = answered.expect(&context);
            assert_eq!((answer.text.as_str(), heard.concat().as_str()), (TEXT, TEXT), "{context}");
            assert_eq!((answer.usage.input_tokens, answer.usage.output_tokens), (12, 4), "{context}");
            assert!(!answer.usage.estimated && !answer.cached, "{context}");
            assert_eq!((answer.model.as_str(), answer.provider.as_str()), ("m1", "tested"), "{context}");
            return assert!(answer.tool_calls.is_empty(), "{context}");
        }
        Scene::Tools => {
            let answer = answered.expect(&context);
            let calls =
                [call("call_a", "memory", r#"{"q":"tea {\"green\"}"}"#), call("call_b", "message", "{}")];
            return assert_eq!(answer.tool_calls, calls, "{context}");
        }
        Scene::Failure | Scene::Half => ModelErrorKind::Failed,
        Scene::Garbage | Scene::Nothing => ModelErrorKind::Garbled,
        Scene::Hang => ModelErrorKind::Timeout,
        Scene::RateLimit => ModelErrorKind::RateLimited { retry_after: seven },
        Scene::WrongKey | Scene::TooLarge => ModelErrorKind::Refused,
        Scene::Nobody => ModelErrorKind::Unreachable,
    };
    let error = answered.expect_err(&context);
    assert_eq!(error.kind, kind, "{context}");
    assert_eq!(error.provider, "tested", "{context}");
    let told = format!("{error} {error:?} {model:?}");
    assert!(!told.contains("sk-very"), "a key was told: {told}");
    assert!(!error.message.contains(['\n', '\r']) && error.message.chars().count() < 450, "{told}");
}

#[tokio::test]
async fn providers_behind_http_keep_the_contract() {
    for dialect in &DIALECTS {
        for scene in SCENES {
            let (_stub, model) = dialect.model(scene).await;
            check(dialect.name, &*model, scene).await;
        }
    }
}

#[tokio::test]
async fn a_scripted_model_keeps_the_contract() {
    let rules = |scene: Scene| match scene {
        Scene::Plain => {
            format!("{{answer: '{TEXT}', usage: {{input_tokens: 12, output_tokens: 4}}}}")
        }
        Scene::Tools => {
            r#"{calls: [{tool: memory, arguments: {q: 'tea {"green"}'}}, {tool: message}]}"#.to_owned()
        }
        Scene::Failure | Scene::Half => "{error: {kind: failed}}".to_owned(),
        Scene::Garbage | Scene::Nothing => "{error: {kind: garbled}}".to_owned(),
        Scene::Hang => "{delay: 1h, error: {kind: timeout}}".to_owned(),
        Scene::RateLimit => "{error: {kind: rate_limited, retry_after: 7s}}".to_owned(),
        Scene::WrongKey | Scene::TooLarge => "{error: {kind: refused}}".to_owned(),
        Scene::Nobody => "{error: {kind: unreachable}}".to_owned(),
    };
    for scene in SCENES.into_iter().filter(|scene| *scene != Scene::Tools) {
        let text = format!("model: m1\nrules: [{}]", rules(scene));
        let clock = Arc::new(ManualClock::default());
        let model = Scripted::parse("tested", Path::new("rules.yaml"), &text, clock).unwrap();
        check("scripted", &model, scene).await;
    }
    let text = format!("rules: [{}]", rules(Scene::Tools));
    let clock = Arc::new(ManualClock::default());
    let model = Scripted::parse("tested", Path::new("rules.yaml"), &text, clock).unwrap();
    let answer = ask(&model, &question("tea")).await.0.unwrap();
    let calls = [call("call_1_0", "memory", r#"{"q":"tea {\"green\"}"}"#), call("call_1_1", "message", "{}")];
    assert_eq!(answer.tool_calls, calls);
}

#[tokio::test]
async fn a_stream_that_stands_still_is_given_up() {
    for dialect in DIALECTS.iter().filter(|dialect| dialect.stream) {
        let stub = Stub::start(vec![dialect.half().then_hangs()]).await;
        let options = HttpOptions { read_timeout: Duration::from_millis(30), ..options(&stub.url, true) };
        let (answered, heard) = ask(&*(dialect.make)(options).unwrap(), &question("tea")).await;
        assert_eq!(answered.unwrap_err().kind, ModelErrorKind::Timeout, "{}", dialect.name);
        assert!(TEXT.starts_with(&heard.concat()), "{heard:?}");
    }
}

#[tokio::test]
async fn calls_and_thoughts_are_heard_as_pieces_without_a_text_and_roles_and_pings_are_not() {
    let role = r#"{"choices": [{"delta": {"role": "assistant", "content": ""}}]}"#;
    let thought = r#"{"choices": [{"delta": {"content": "", "reasoning_content": "hm"}}]}"#;
    let ping = r#"{"type": "ping"}"#;
    let thinking =
        r#"{"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}"#;
    let stop = r#"{"type": "message_stop"}"#;
    for (streaming, body, count) in [
        (1, DIALECTS[1].tools.to_owned(), 4),
        (1, format!("data: {role}\n\ndata: {thought}\n\ndata: [DONE]\n\n"), 1),
        (3, DIALECTS[3].tools.to_owned(), 6),
        (3, format!("data: {ping}\n\ndata: {thinking}\n\ndata: {stop}\n\n"), 1),
    ] {
        let stub = Stub::start(vec![DIALECTS[streaming].good(&body)]).await;
        let model = (DIALECTS[streaming].make)(options(&stub.url, true)).unwrap();
        let heard = ask(&*model, &question("tea")).await.1;
        assert_eq!(heard.iter().filter(|piece| piece.is_empty()).count(), count, "{body}: {heard:?}");
    }
}

#[tokio::test]
async fn a_stream_that_trickles_has_a_time_in_all() {
    // Whole pieces keep coming; what runs out is the time for the whole.
    let stub = Stub::start(vec![Reply::stream(": ping\n\n", 3).then_hangs()]).await;
    let options = HttpOptions { total_timeout: Duration::from_millis(30), ..options(&stub.url, true) };
    let answered = ask(&*http::openai(options).unwrap(), &question("tea")).await.0;
    assert_eq!(answered.unwrap_err().kind, ModelErrorKind::Timeout);
}

#[tokio::test]
async fn the_limit_of_a_stream_is_for_what_is_said_and_not_for_what_is_around_it() {
    for dialect in DIALECTS.iter().filter(|dialect| dialect.stream) {
        let stub = Stub::start(vec![dialect.good(dialect.plain), dialect.good(dialect.tools)]).await;
        let options = HttpOptions { answer_bytes_max: TEXT.len(), ..options(&stub.url, true) };
        let model = (dialect.make)(options).unwrap();
        assert_eq!(ask(&*model, &question("tea")).await.0.unwrap().text, TEXT, "{}", dialect.name);
        let error = ask(&*model, &question("tea")).await.0.unwrap_err();
        assert_eq!(error.kind, ModelErrorKind::Refused, "arguments count: {error}");
    }
    // What says nothing ends all the same: as events, or as one that does not end.
    for endless in [": ping\n\n".repeat(40_000), "x".repeat(70_000)] {
        let stub = Stub::start(vec![Reply::stream(&endless, 10_000).then_hangs()]).await;
        let options = HttpOptions { answer_bytes_max: 1_024, ..options(&stub.url, true) };
        let error = ask(&*http::openai(options).unwrap(), &question("tea")).await.0.unwrap_err();
        assert_eq!(error.kind, ModelErrorKind::Refused, "{error}");
        assert!(error.message.contains("more than 1024 bytes"), "{error}");
    }
}

#[tokio::test]
async fn who_asked_for_a_stream_takes_a_whole_answer_too() {
    for (streaming, whole) in [(1, 0), (3, 2)] {
        let stub = Stub::start(vec![Reply::json(DIALECTS[whole].plain)]).await;
        let model = (DIALECTS[streaming].make)(options(&stub.url, true)).unwrap();
        let (answered, heard) = ask(&*model, &question("tea")).await;
        assert_eq!((answered.unwrap().text.as_str(), heard), (TEXT, vec![TEXT.to_owned()]));
    }
}
