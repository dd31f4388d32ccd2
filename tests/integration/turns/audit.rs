//! Why something is in memory: back over the turn that wrote it to the message that was asked and to what was read.

use serde_json::{Value, json};

use super::super::cli::{check, json as printed};
use super::super::web::{Reply, Request, Web};
use super::{Town, file, of, provider};

/// A model that searches, then stores what it was told to, then says so.
fn curious() -> Web {
    Web::start(|request: &Request| match request.step() {
        1 => Reply::calls("a", "memory", &json!({"operation": "search", "query": "plots"})),
        2 => {
            let wish =
                json!({"operation": "store", "entity": "report", "observations": ["gnuplot is enough"]});
            Reply::calls("b", "memory", &wish)
        }
        _ => Reply::says("done"),
    })
}

fn relations(causes: &Value) -> Vec<(&str, &str)> {
    let name = |cause: &'_ Value| match (&cause["event"]["kind"], &cause["turn"]["agent_id"]) {
        (Value::String(kind), _) => kind.clone(),
        (_, agent) => format!("turn of {}", agent.as_str().unwrap_or("nobody")),
    };
    let causes = causes.as_array().unwrap();
    causes.iter().map(|cause| (cause["relation"].as_str().unwrap(), name(cause).leak() as &str)).collect()
}

/// An agent that knows of gnuplot, was asked, and wrote a report: what was known, and the question.
fn asked(model: &Web) -> (Town, Value, Value) {
    let agents = [("ada", file("ada", "talk", "tools: [memory]\npermissions: {memory_writes: true}"))];
    let town = Town::with(&[provider("m", model, "")], "", &agents);
    let known = json!({
        "agent_id": "ada", "entity_name": "gnuplot", "entity_type": "program", "observations": ["draws plots"],
    });
    let known = town.post("/memory/entities", &known);
    let sent = town.ask("ada", "what draws plots?");
    let answer = town.answer(&sent);
    assert_eq!(answer["content"], "done", "{answer}");
    (town, known, sent)
}

#[test]
fn what_an_agent_wrote_leads_back_to_its_turn_the_question_and_what_it_read() {
    let model = curious();
    let (mut town, _, sent) = asked(&model);
    let written = town.events("memory.observation_added").pop().unwrap();
    let turn = of(&town.turn(&sent), "turn.started", "turn_id").pop().unwrap();
    assert_eq!(written["correlation_id"], turn);
    let started = of(&town.turn(&sent), "turn.tool_started", "call_id");
    assert_eq!(started.len(), 2);
    let cause = town.get(&format!("/audit?from_seq={0}&to_seq={0}", written["causation_seq"]));
    assert_eq!(cause["events"][0]["kind"], "turn.tool_started");

    let id = written["data"]["observation_id"].as_str().unwrap();
    let why = town.get(&format!("/audit/why/{id}"));
    assert_eq!(relations(&why["because"]), [("is", "memory.observation_added")]);
    let in_turn = &why["because"][0]["because"];
    assert_eq!(relations(in_turn), [("in the turn", "turn of ada")]);
    let steps = in_turn[0]["turn"]["steps"].as_array().unwrap();
    let steps: Vec<&str> = steps.iter().map(|step| step["kind"].as_str().unwrap()).collect();
    assert_eq!((steps[0], *steps.last().unwrap()), ("turn.started", "turn.finished"));
    assert_eq!(steps.iter().filter(|kind| **kind == "turn.tool_answered").count(), 2);
    let led = relations(&in_turn[0]["because"]);
    assert!(led.contains(&("took up", "conversation.message_sent")), "{led:?}");
    assert!(led.contains(&("runs by", "agent.config_loaded")), "{led:?}");
    assert!(led.contains(&("read", "memory.entity_created")), "{led:?}");
    assert!(led.contains(&("read", "memory.observation_added")), "{led:?}");
    assert_eq!((&why["cut"], &why["gaps"]), (&json!(false), &json!([])));

    // Bounds cut, and say so.
    let small = town.get(&format!("/audit/why/{id}?depth=1&nodes=2"));
    assert_eq!(small["cut"], json!(true));

    // The same from the stopped directory.
    town.server.take().unwrap().stop();
    let data = town.dir.path().join("data");
    let at = ["--data-dir", data.to_str().unwrap()];
    let offline = printed(&[&["--json", "audit", "why", id][..], &at].concat());
    assert_eq!(offline["because"], why["because"]);
    let tree =
        ["in the turn turn_", " of ada", "calls memory", "took up #", "read #", "done, with the message"];
    check(&[&["audit", "why", id][..], &at].concat(), &tree);
}

#[test]
fn what_was_read_and_asked_leads_to_the_turn() {
    let model = curious();
    let (town, known, sent) = asked(&model);
    let turn = of(&town.turn(&sent), "turn.started", "turn_id").pop().unwrap();
    // Who read the fact that was there before, and what became of the question.
    let read = town.get(&format!("/audit/why/{}", known["entity_id"].as_str().unwrap()));
    assert!(relations(&read["led_to"]).contains(&("was read by", "turn.tool_answered")), "{read}");
    let question = town.get(&format!("/audit/why/{}", sent["message_id"].as_str().unwrap()));
    let led_to = relations(&question["led_to"]);
    assert!(led_to.contains(&("led to", "turn.started")), "{led_to:?}");
    assert!(led_to.contains(&("led to", "conversation.message_sent")), "{led_to:?}");
    let of_turn = town.get(&format!("/audit/why/{}", turn.as_str().unwrap()));
    assert!(relations(&of_turn["led_to"]).contains(&("led to", "memory.observation_added")), "{of_turn}");

    // Everything of the turn, whatever its kind.
    let events = town.get(&format!("/audit?turn_id={}&limit=1000", turn.as_str().unwrap()));
    let kinds: Vec<&str> =
        events["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    for kind in
        ["turn.started", "memory.entity_created", "memory.observation_added", "conversation.message_sent"]
    {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}
