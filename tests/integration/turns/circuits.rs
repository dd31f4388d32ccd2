//! Agents that keep failing are left alone for a while.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::super::web::{Reply, Request, Web};
use super::{PATIENCE, Town, file, of, provider};

/// A model that refuses what the weak agent asks until it is mended.
fn model(mended: Arc<AtomicBool>) -> Web {
    Web::start(move |request: &Request| {
        if request.last("system").contains("You are weak.") && !mended.load(Ordering::Relaxed) {
            return Reply::json(400, &json!({"error": {"message": "no"}}));
        }
        Reply::says(&format!("re: {}", request.last("user")))
    })
}

fn agents() -> [(&'static str, String); 2] {
    let first = "capability_metadata: {work: {priority: 900}}";
    [("weak", file("weak", "work", first)), ("strong", file("strong", "work", ""))]
}

fn circuits(town: &Town) -> Vec<Value> {
    of(&town.events("agent.circuit_changed"), "agent.circuit_changed", "circuit")
}

#[test]
fn an_open_circuit_is_recorded_and_passed_over_also_after_a_restart() {
    let model = model(Arc::default());
    let config = "agents: {circuit_failures: 3, circuit_pause: 1h}";
    let mut town = Town::with(&[provider("m", &model, "")], config, &agents());
    for number in 0..3 {
        assert!(circuits(&town).is_empty(), "it opened after {number} failures");
        let sent = town.ask_capability("work", "priority", &format!("work {number}"));
        assert_eq!(sent["delivered_to"], json!(["weak"]), "{sent}");
        assert_eq!(town.answer(&sent)["performative"], "FAILURE");
    }
    let opened = &town.await_events("agent.circuit_changed", 1, |_| true)[0]["data"];
    assert_eq!(
        (&opened["agent_id"], &opened["circuit"], &opened["failures"]),
        (&json!("weak"), &json!("open"), &json!(3))
    );
    // It is in the log a moment before routing knows it.
    let started = Instant::now();
    while town.get("/agents/weak")["circuit"] != "open" {
        assert!(started.elapsed() < PATIENCE, "{}", town.get("/agents/weak"));
        std::thread::yield_now();
    }
    for life in 0..2 {
        let sent = town.ask_capability("work", "priority", "more work");
        assert_eq!(sent["delivered_to"], json!(["strong"]), "{sent}");
        let candidates = sent["routing"]["candidates"].as_array().unwrap();
        let weak = candidates.iter().find(|candidate| candidate["agent_id"] == "weak").unwrap();
        assert_eq!(weak["because"], "its circuit is open", "in life {life}");
        assert_eq!(town.answer(&sent)["content"], "re: more work");
        town.server.take().unwrap().stop();
        town.serve(&mut Command::new(env!("CARGO_BIN_EXE_caxton")));
    }
    // What is put to the agent itself waits for it.
    let sent = town.ask("weak", "for you");
    assert_eq!(town.answer(&town.ask("strong", "and you"))["content"], "re: and you");
    assert!(town.turn(&sent).is_empty(), "it is left alone");
    assert_eq!(circuits(&town), ["open"]);
}

#[test]
fn a_circuit_closes_when_a_message_that_is_tried_is_answered() {
    let mended = Arc::new(AtomicBool::new(false));
    let model = model(Arc::clone(&mended));
    let config = "agents: {circuit_failures: 2, circuit_pause: 30ms}";
    let town = Town::with(&[provider("m", &model, "")], config, &agents());
    for text in ["one", "two"] {
        assert_eq!(town.hear("weak", text).0, "FAILURE");
    }
    // The answer comes a moment before the circuit opens.
    town.await_events("agent.circuit_changed", 1, |_| true);
    assert_eq!(town.hear("weak", "three").0, "FAILURE", "a trial that fails");
    town.await_events("agent.circuit_changed", 3, |_| true);
    assert_eq!(circuits(&town), ["open", "half_open", "open"]);
    mended.store(true, Ordering::Relaxed);
    assert_eq!(town.hear("weak", "four"), ("INFORM".to_owned(), "re: four".to_owned()));
    let changes = town.await_events("agent.circuit_changed", 5, |_| true);
    assert_eq!(circuits(&town), ["open", "half_open", "open", "half_open", "closed"]);
    assert_eq!((&changes[4]["data"]["failures"], &changes[4]["data"]["until"]), (&json!(0), &Value::Null));
    let sent = town.ask_capability("work", "priority", "five");
    assert_eq!(sent["delivered_to"], json!(["weak"]), "it is the first choice again");
    assert_eq!(town.answer(&sent)["content"], "re: five");
}
