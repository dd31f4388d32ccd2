//! Models that answer garbage, fail, stop in the middle or hang.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::process::post;
use super::super::web::{Reply, Request, Web};
use super::{Town, file, of, provider};

const STREAM: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n";

fn piece(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
}

/// What can go wrong with an answer, by name.
fn broken(how: &str) -> Reply {
    match how {
        "garbage" => Reply::of(200, "content-type: application/json\r\n", b"\xff\xfe<html>no JSON</html>"),
        "other-json" => Reply::json(200, &json!({"answer": "in a form of our own"})),
        "500" => Reply::json(500, &json!({"error": {"message": "out of memory"}})),
        "half" => Reply::raw(&format!("{STREAM}{}{}", piece("half of "), piece("an ans"))),
        "nothing" => Reply::raw(""),
        "empty" => Reply::says(""),
        other => panic!("{other}"),
    }
}

const WAYS: &[&str] = &["garbage", "other-json", "500", "half", "nothing", "empty"];

#[test]
fn a_broken_model_is_asked_again_then_given_up_and_what_was_given_up_can_be_sent_again() {
    let mended = Arc::new(AtomicBool::new(false));
    let asked: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let (works, counts) = (Arc::clone(&mended), Arc::clone(&asked));
    let model = Web::start(move |request: &Request| {
        let question = request.last("user");
        if works.load(Ordering::Relaxed) {
            return Reply::says(&format!("at last: {question}"));
        }
        *counts.lock().unwrap().entry(question.to_owned()).or_default() += 1;
        broken(question)
    });
    let agents: Vec<(&str, String)> =
        WAYS.iter().map(|way| (*way, file(&format!("a-{way}"), "work", ""))).collect();
    let town = Town::with(&[provider("m", &model, "")], "", &agents);
    let sent: Vec<(&str, Value)> =
        WAYS.iter().map(|way| (*way, town.ask(&format!("a-{way}"), way))).collect();
    for (way, sent) in &sent {
        let answer = town.answer(sent);
        assert_eq!(answer["performative"], "FAILURE", "{way}: {answer}");
        // The moment after, the message is a dead letter.
        let letter = &town.await_events("conversation.message_dead_lettered", 1, |data| {
            data["message_id"] == sent["message_id"]
        })[0]["data"];
        assert_eq!(
            (&letter["reason"], &letter["attempts"]),
            (&json!("retries_exhausted"), &json!(4)),
            "{way}"
        );
        let turn = town.turn(sent);
        assert_eq!(of(&turn, "turn.model_failed", "will_retry"), [true, true, true, false], "{way}");
        assert_eq!(of(&turn, "turn.started", "attempt"), [1, 2, 3, 4], "{way}");
        assert_eq!(asked.lock().unwrap()[*way], 4, "{way}");
        let retried = town.await_events("conversation.delivery_retried", 3, |data| {
            data["message_id"] == sent["message_id"]
        });
        let moments: Vec<(String, String)> = retried
            .iter()
            .map(|event| (event["recorded_at"].to_string(), event["data"]["not_before"].to_string()))
            .collect();
        assert!(moments.iter().all(|(recorded, not_before)| recorded < not_before), "{moments:?}");
    }
    let letters = town.get("/dead-letters?limit=100");
    assert_eq!(letters["total"], WAYS.len(), "{letters}");
    mended.store(true, Ordering::Relaxed);
    for letter in letters["dead_letters"].as_array().unwrap() {
        let again = town.post(&format!("/dead-letters/{}/replay", letter["seq"]), &json!({}));
        assert_eq!(again["delivered_to"], json!([letter["receiver"]]));
        let answer = town.answer(&again);
        let way = letter["receiver"].as_str().unwrap().trim_start_matches("a-");
        assert_eq!(
            (&answer["performative"], &answer["content"]),
            (&json!("INFORM"), &json!(format!("at last: {way}")))
        );
    }
    assert_eq!(town.get("/dead-letters?replayed=false")["count"], 0);
}

#[test]
fn arguments_that_are_no_json_are_told_to_the_model_and_touch_no_other_agent() {
    let model = Web::start(|request: &Request| match request.step() {
        1 if request.last("user").contains("JSON") => {
            let function = json!({"name": "memory", "arguments": "{\"operation\": oops"});
            let call = json!({"id": "c", "type": "function", "function": function});
            let message = json!({"tool_calls": [call]});
            Reply::json(200, &json!({"choices": [{"finish_reason": "tool_calls", "message": message}]}))
        }
        1 => Reply::says("well"),
        _ => Reply::says(&format!("it said: {}", request.last("tool"))),
    });
    let more = ", breaker_failures: 1";
    let row = provider("m", &model, "").replace(", breaker_failures: 0", more);
    let agents = [("ada", file("ada", "talk", "tools: [memory]")), ("sue", file("sue", "listen", ""))];
    let town = Town::with(&[row], "", &agents);
    for _ in 0..3 {
        let (performative, said) = town.hear("ada", "no JSON, please");
        assert_eq!(performative, "INFORM");
        assert!(said.contains("it said: arguments: are not JSON"), "{said}");
        assert_eq!(town.hear("sue", "hello").1, "well");
    }
    assert!(town.events("turn.model_failed").is_empty());
}

#[test]
fn an_answer_that_broke_off_is_asked_for_again_and_given_whole() {
    let model = Web::start(
        |request: &Request| {
            if request.number == 1 { broken("half") } else { Reply::says("a whole answer") }
        },
    );
    let town = Town::with(&[provider("m", &model, "")], "", &[("ada", file("ada", "talk", ""))]);
    let sent = town.ask("ada", "hello");
    let answer = town.answer(&sent);
    assert_eq!((&answer["performative"], &answer["content"]), (&json!("INFORM"), &json!("a whole answer")));
    let turn = town.turn(&sent);
    assert_eq!(of(&turn, "turn.model_failed", "will_retry"), [true]);
    assert_eq!(of(&turn, "turn.model_answered", "text"), ["a whole answer"]);
}

#[test]
fn a_model_that_refuses_is_not_asked_again() {
    let model = Web::start(|_: &Request| Reply::json(400, &json!({"error": {"message": "too long"}})));
    let town = Town::with(&[provider("m", &model, "")], "", &[("ada", file("ada", "talk", ""))]);
    let sent = town.ask("ada", "hello");
    let answer = town.answer(&sent);
    assert_eq!(answer["performative"], "FAILURE");
    assert!(answer["content"].as_str().unwrap().contains("too long"), "{answer}");
    assert_eq!(of(&town.turn(&sent), "turn.model_failed", "will_retry"), [false]);
    let letter = &town.await_events("conversation.message_dead_lettered", 1, |_| true)[0]["data"];
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("given_up"), &json!(1)));
}

#[test]
fn a_model_that_hangs_fails_its_turn_alone_and_holds_up_no_other_agent() {
    let silent = Web::start(|_: &Request| Reply::silence());
    let good = Web::start(|request: &Request| Reply::says(&format!("re: {}", request.last("user"))));
    let providers = [provider("good", &good, ""), provider("silent", &silent, ", max_concurrent: 100")];
    let patient = "llm: {provider: silent}\nresource_limits: {response_timeout: 10m}";
    let hasty = "llm: {provider: silent}\nresource_limits: {response_timeout: 200ms}";
    let agents = [
        ("patient", file("patient", "wait", patient)),
        ("hasty", file("hasty", "hurry", hasty)),
        ("ada", file("ada", "talk", "")),
    ];
    let town = Town::with(&providers, "", &agents);
    let hanging: Vec<Value> = (0..50).map(|number| town.ask("patient", &format!("hang {number}"))).collect();
    town.await_events("turn.context_prepared", 50, |_| true);
    for number in 0..5 {
        assert_eq!(town.hear("ada", &format!("hello {number}")).1, format!("re: hello {number}"));
    }
    let sent = town.ask("hasty", "hurry");
    let answer = town.answer(&sent);
    assert_eq!(answer["performative"], "FAILURE");
    let turn = town.turn(&sent);
    assert_eq!(of(&turn, "turn.model_failed", "will_retry"), [false]);
    assert!(of(&turn, "turn.model_failed", "error")[0].as_str().unwrap().contains("no answer within 200ms"));
    let ended = town.events("turn.finished,turn.failed");
    for sent in &hanging {
        let turn = town.turn(sent)[0]["data"]["turn_id"].clone();
        assert!(ended.iter().all(|event| event["data"]["turn_id"] != turn), "it still waits");
    }
}

#[test]
fn what_waits_for_an_agent_that_hangs_shuts_no_other_out() {
    let silent = Web::start(|_: &Request| Reply::silence());
    let good = Web::start(|request: &Request| Reply::says(&format!("re: {}", request.last("user"))));
    let providers = [provider("good", &good, ""), provider("silent", &silent, "")];
    let stuck = "llm: {provider: silent}\nresource_limits: {response_timeout: 10m, max_conversations: 1}";
    let agents = [("stuck", file("stuck", "wait", stuck)), ("ada", file("ada", "talk", ""))];
    let queues = "request_handling: {priority_queues: {queues: [\
                  {name: critical, priority: 0, queue_size: 5}, {name: high, priority: 1, queue_size: 5}, \
                  {name: normal, priority: 2, queue_size: 5}, {name: background, priority: 3, queue_size: 5}]}}";
    let town = Town::with(&providers, queues, &agents);
    let body = json!({"performative": "REQUEST", "sender": "bob", "receiver": "stuck", "content": "hang"});
    let refused = (0..1_000).find_map(|_| {
        let (status, answer) = post(town.base(), "/api/v1/messages", &body).unwrap();
        (status != 201).then_some((status, answer))
    });
    let (status, answer) = refused.expect("the queue is never full");
    assert_eq!((status, &answer["code"]), (429, &json!("QUEUE_FULL")), "{answer}");
    for number in 0..5 {
        assert_eq!(town.hear("ada", &format!("hello {number}")).1, format!("re: hello {number}"));
    }
    assert_eq!(post(town.base(), "/api/v1/messages", &body).unwrap().0, 429, "it is still full");
}
