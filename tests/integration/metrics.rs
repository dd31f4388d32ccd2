//! Metrics: what a server exports after real traffic, and that the page about them is true.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use super::client::connect;
use super::program::Program;

fn request(to: &Value) -> Value {
    let mut body = json!({"performative": "REQUEST", "sender": "ada", "content": "please"});
    body.as_object_mut().unwrap().extend(to.as_object().unwrap().clone());
    body
}

/// Every sample of this name, with its labels as they stand.
fn samples<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let own = |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    };
    text.lines().filter(own).collect()
}

#[track_caller]
fn value(text: &str, sample: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{sample} is not in\n{text}")).parse().unwrap()
}

/// Messages of every fate: three delivered, one routed, one that nobody can do, one refused, one repeated, one answer.
fn traffic(program: &Program) {
    program.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    program.post("/capabilities", &json!({"agent_id": "bob", "capability": "chess"})).expect(201);
    let first =
        program.post("/messages", &request(&json!({"receiver": "bob", "reply_with": "q"}))).expect(201);
    let first = first.json();
    let both = [request(&json!({"receiver": "bob"})), request(&json!({"receiver": "bob"}))];
    program.post("/messages/batch", &json!({"messages": both})).expect(201);
    let routed = request(&json!({"capability": "chess", "routing_strategy": "failover"}));
    program.post("/messages", &routed).expect(201);
    program.post("/messages", &request(&json!({"capability": "translation"}))).expect(201);
    program.post("/messages", &request(&json!({"receiver": "nobody"}))).problem(404, "AGENT_NOT_FOUND");
    let mut known = request(&json!({"receiver": "bob"}));
    known["message_id"] = json!("00000000-0000-4000-8000-000000000001");
    program.post("/messages", &known).expect(201);
    program.post("/messages", &known).expect(200);
    let answer = json!({
        "performative": "INFORM", "sender": "bob", "receiver": "ada", "content": "done",
        "conversation_id": first["conversation_id"], "in_reply_to": "q",
    });
    program.post("/messages", &answer).expect(201);
    program.post("/agents/bob/inbox/ack", &json!({"through": first["seq"]})).expect(200);
}

/// Lets a conversation end by itself.
fn wait_for_an_end(program: &Program) {
    program.post("/conversations", &json!({"idle_timeout_seconds": 1})).expect(201);
    let mut from = 1;
    loop {
        let path = format!("/events?kinds=conversation.closed&from_seq={from}&wait_seconds=20");
        let page = program.get(&path).expect(200).json();
        if page["count"] == 1 {
            return;
        }
        from = page["next_seq"].as_u64().unwrap();
    }
}

#[test]
fn what_agents_say_to_each_other_is_counted_and_timed() {
    let program = Program::start("");
    traffic(&program);
    wait_for_an_end(&program);
    let mut stream = connect(program.address);
    stream
        .write_all(&program.ask("GET", "/agents/ada/inbox/stream").bytes())
        .and_then(|()| stream.read_exact(&mut [0; 64]))
        .unwrap();
    let text = program.metrics();
    for (sample, count) in [
        ("caxton_messages_total{performative=\"REQUEST\",outcome=\"delivered\"}", 5.0),
        ("caxton_messages_total{performative=\"REQUEST\",outcome=\"dead_lettered\"}", 1.0),
        ("caxton_messages_total{performative=\"REQUEST\",outcome=\"refused\"}", 1.0),
        ("caxton_messages_total{performative=\"REQUEST\",outcome=\"repeated\"}", 1.0),
        ("caxton_messages_total{performative=\"INFORM\",outcome=\"delivered\"}", 1.0),
        ("caxton_messages_total{performative=\"FAILURE\",outcome=\"delivered\"}", 1.0),
        ("caxton_routing_decisions_total{strategy=\"failover\",outcome=\"routed\"}", 1.0),
        ("caxton_routing_decisions_total{strategy=\"best_match\",outcome=\"no_provider\"}", 1.0),
        ("caxton_dead_letters_total{reason=\"no_provider\"}", 1.0),
        ("caxton_dead_letters_total{reason=\"expired\"}", 0.0),
        ("caxton_dead_letters_kept", 1.0),
        ("caxton_deadlines_fired_total{deadline=\"conversation_idle\"}", 1.0),
        ("caxton_deadlines_fired_total{deadline=\"reply\"}", 0.0),
        // Six requests were recorded, one known, the refused one is not timed.
        ("caxton_message_latency_seconds_count", 7.0),
        // Four of bob's five; the failure and the answer of ada's.
        ("caxton_inbox_messages_waiting", 6.0),
        ("caxton_inbox_messages_waiting_max", 4.0),
        ("caxton_conversations_open", 6.0),
        ("caxton_conversations_kept", 7.0),
        ("caxton_message_requests_waiting", 0.0),
        ("caxton_agents_registered{kind=\"external\"}", 2.0),
        ("caxton_agents_registered{kind=\"config\"}", 0.0),
        ("caxton_sse_streams_open{stream=\"inbox\"}", 1.0),
        ("caxton_sse_streams_open{stream=\"events\"}", 0.0),
        ("caxton_projection_lag_events{projection=\"talk\"}", 0.0),
    ] {
        assert!((value(&text, sample) - count).abs() < f64::EPSILON, "{sample} is not {count} in\n{text}");
    }
    assert!(value(&text, "caxton_inbox_lag_seconds") > 0.0, "{text}");
    for name in ["caxton_messages_total", "caxton_inbox_lag_seconds", "caxton_message_latency_seconds"] {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not explained in\n{text}");
    }
    assert!(samples(&text, "caxton_message_latency_seconds").len() >= 7, "no quantiles in\n{text}");
}

#[test]
fn connections_that_have_ended_are_open_no_more() {
    let program = Program::start("");
    let ready = b"GET /api/v1/ready HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let streams = [(); 3].map(|()| {
        let mut stream = connect(program.address);
        // Answered, so it was taken.
        stream.write_all(ready).and_then(|()| stream.read_exact(&mut [0; 12])).unwrap();
        stream
    });
    let open = || value(&program.metrics(), "caxton_server_active_connections");
    assert!(open() >= 3.0, "{}", open());
    drop(streams);
    // The server hears of it a little later.
    assert!((0..10_000).any(|_| open() < 1.0), "{} connections are still open", open());
}

#[test]
fn the_page_of_metrics_names_what_there_is_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut written = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("src/telemetry")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let declared =
            text.lines().filter(|line| line.contains("const ") && line.contains(": &str = \"caxton_"));
        written.extend(declared.map(|line| line.split('"').nth(1).unwrap().to_owned()));
    }
    let page = std::fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    let words = page.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '_'));
    let documented: BTreeSet<String> =
        words.filter(|word| word.starts_with("caxton_")).map(str::to_owned).collect();
    assert_eq!(documented, written);
    assert!(written.len() > 60, "{written:?}");

    let program = Program::start("");
    let families = program.metrics();
    let exported = families.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in exported {
        assert!(written.contains(name), "{name} is exported and not documented");
        assert!(families.contains(&format!("# HELP {name} ")), "{name} is not explained");
    }
}
