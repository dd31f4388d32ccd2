//! Conversations as they grow old, reads that wait for writes, answers in one batch, limits as configured.

use serde_json::{Value, json};

use super::messages::{contents, inbox, request, send, with_agents};
use super::program::{Program, caxton};
use super::server::Server;

fn open(server: &Server, body: &Value) -> Value {
    server.post("/conversations", body).expect(201).json()
}

#[track_caller]
fn names(server: &Server, query: &str) -> Vec<String> {
    let page = server.get(&format!("/conversations?{query}")).expect(200).json();
    let rows = page["conversations"].as_array().unwrap().iter();
    rows.map(|row| row["conversation_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn many_conversations_are_put_away_at_once() {
    let server = Server::start();
    for name in ["a", "b", "c", "d", "e"] {
        open(&server, &json!({"conversation_id": name}));
    }
    let archive = |body: Value| server.post("/conversations/archive", &body);
    let close = |name: &str, end: &str| {
        server.post(&format!("/conversations/{name}/close"), &json!({"end": end})).expect(200).json()
    };
    close("a", "completed");
    close("b", "cancelled");
    let last = close("c", "completed");
    // All or none: one of them is open.
    archive(json!({"conversation_ids": ["a", "d"]})).problem(409, "WRONG_STATE");
    archive(json!({"conversation_ids": ["a", "none"]})).problem(404, "CONVERSATION_NOT_FOUND");
    assert_eq!(names(&server, "status=archived"), Vec::<String>::new());

    let done = archive(json!({"conversation_ids": ["a", "a"]})).expect(200).json();
    assert_eq!((&done["archived"], &done["more"]), (&json!(1), &json!(false)));
    assert_eq!(archive(json!({"conversation_ids": ["a"]})).expect(200).json()["archived"], 0);
    assert_eq!(archive(json!({"status": "cancelled"})).expect(200).json()["archived"], 1);
    assert_eq!(names(&server, "status=archived"), ["b", "a"]);
    assert_eq!(archive(json!({"older_than": last["ended_at"]})).expect(200).json()["archived"], 0);
    assert_eq!(archive(json!({"older_than": "30d"})).expect(200).json()["archived"], 0);
    close("d", "completed");
    let done = archive(json!({"status": "ended", "limit": 1})).expect(200).json();
    assert_eq!((&done["archived"], &done["more"]), (&json!(1), &json!(true)));
    assert_eq!(
        archive(json!({"older_than": "2999-01-01", "status": "ended"})).expect(200).json()["archived"],
        1
    );
    assert_eq!(names(&server, ""), ["e"]);
    for (body, field) in [
        (json!({}), "conversation_ids"),
        (json!({"conversation_ids": ["a"], "status": "ended"}), "status"),
        (json!({"conversation_ids": ["a b"]}), "conversation_ids[0]"),
        (json!({"older_than": "soon"}), "older_than"),
        (json!({"status": "active"}), "status"),
    ] {
        assert_eq!(archive(body).problem(422, "VALIDATION_ERROR")["field"], field);
    }
}

#[test]
fn a_page_of_conversations_goes_on_where_the_last_one_ended() {
    let server = with_agents(&["ada", "bob", "eve"]);
    for index in 0..30 {
        open(&server, &json!({"conversation_id": format!("c{index}")}));
        if index % 3 == 0 {
            let mut body = request("ada", if index % 2 == 0 { "bob" } else { "eve" }, "hi");
            body["conversation_id"] = json!(format!("c{index}"));
            send(&server, &body);
        }
    }
    for (query, step) in [("", 1), ("&participant=ada", 3), ("&participant=bob", 6)] {
        let mut expected: Vec<String> = (0..30).filter(|n| n % step == 0).map(|n| format!("c{n}")).collect();
        expected.reverse();
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("/conversations?limit=4{query}{cursor}")).expect(200).json();
            let rows = page["conversations"].as_array().unwrap().iter();
            found.extend(rows.map(|row| row["conversation_id"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, expected, "{query}");
    }
}

#[test]
fn a_conversation_lasts_as_long_as_it_is_given() {
    let server = Server::start();
    let made = open(&server, &json!({"conversation_id": "plan", "idle_timeout_seconds": 3_600}));
    let extend = |name: &str, body: Value| server.post(&format!("/conversations/{name}/extend"), &body);
    let longer = extend("plan", json!({"idle_timeout_seconds": 7_200})).expect(200).json();
    assert!(longer["ends_at"].as_str() > made["ends_at"].as_str(), "{longer}");
    let same = extend("plan", json!({"idle_timeout_seconds": 7_200})).expect(200).json();
    assert_eq!(same["ends_at"], longer["ends_at"]);
    // The longest life is the shorter of the two now.
    let life = extend("plan", json!({"life_timeout_seconds": 60})).expect(200).json();
    assert!(life["ends_at"].as_str() < made["ends_at"].as_str(), "{life}");
    assert_eq!(extend("plan", json!({})).problem(422, "VALIDATION_ERROR")["field"], "idle_timeout_seconds");
    extend("plan", json!({"idle_timeout_seconds": 0})).problem(422, "VALIDATION_ERROR");
    extend("none", json!({"idle_timeout_seconds": 9})).problem(404, "CONVERSATION_NOT_FOUND");

    // One that is about to end goes on; then it is cut short and ends.
    open(&server, &json!({"conversation_id": "short", "idle_timeout_seconds": 3_600}));
    extend("short", json!({"idle_timeout_seconds": 1})).expect(200);
    let mut from = 1;
    loop {
        let path = format!("/events?kinds=conversation.closed&from_seq={from}&wait_seconds=20");
        let page = server.get(&path).expect(200).json();
        if page["count"] == 1 {
            break;
        }
        from = page["next_seq"].as_u64().unwrap();
    }
    let shown = server.get(&format!("/conversations/short?min_seq={}", server.engine.log().head().seq.0));
    assert_eq!(shown.expect(200).json()["end"], "idle_timeout");
    extend("short", json!({"idle_timeout_seconds": 9})).problem(409, "CONVERSATION_CLOSED");
}

#[test]
fn reads_of_agents_and_messages_wait_for_what_was_written() {
    let server = with_agents(&["ada", "bob"]);
    let sent = send(&server, &request("ada", "bob", "hi"));
    // The memory's events have to pass agents and conversations, too.
    let seq = server.entity("Ada", "Person", &["likes tea"])["seq"].as_u64().unwrap();
    assert!(seq > sent["seq"].as_u64().unwrap());
    let conversation = sent["conversation_id"].as_str().unwrap();
    let paths = [
        "/agents".to_owned(),
        "/agents/bob".to_owned(),
        "/agents/bob/inbox".to_owned(),
        "/agents/bob/logs".to_owned(),
        "/messages".to_owned(),
        "/conversations".to_owned(),
        format!("/conversations/{conversation}"),
        format!("/conversations/{conversation}/messages"),
        "/capabilities".to_owned(),
        "/capabilities/health".to_owned(),
        "/dead-letters".to_owned(),
    ];
    for path in &paths {
        server.get(&format!("{path}?min_seq={seq}")).expect(200);
        server.ask("GET", path).header("Caxton-Min-Seq", &seq.to_string()).send().expect(200);
        let bad = server.ask("GET", path).header("Caxton-Min-Seq", "soon").send();
        assert_eq!(bad.problem(422, "VALIDATION_ERROR")["field"], "Caxton-Min-Seq", "{path}");
    }
    let detailed = server.get("/health/detailed").expect(200).json();
    let talk = &detailed["components"]["talk"];
    assert_eq!((&talk["status"], &talk["lag_events"]), (&json!("healthy"), &json!(0)));
    assert_eq!(
        (&talk["agents"], &talk["conversations"], &talk["messages"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(detailed["recovery"]["talk_rebuilt"], Value::Null);
}

#[test]
fn a_position_that_never_comes_is_not_waited_for_for_ever() {
    let options = caxton::api::rest::RestOptions {
        min_seq_timeout: std::time::Duration::from_millis(1),
        ..Default::default()
    };
    let server = Server::with(options);
    let problem = server.get("/agents?min_seq=99999").problem(503, "NOT_CAUGHT_UP");
    assert!(problem["detail"].as_str().unwrap().contains("projection talk"), "{problem}");
}

#[test]
fn who_wrote_to_the_memory_is_an_agent_at_once_and_once_only() {
    let server = Server::start();
    for name in ["w0", "w1", "w2", "w3", "w4"] {
        let body = json!({"agent_id": name, "entity_name": name, "entity_type": "T", "observations": []});
        server.post("/memory/entities", &body).expect(201);
        server.get(&format!("/agents/{name}")).expect(200);
        server.post("/agents", &json!({"agent_id": name})).expect(200);
        send(&server, &request("ada", name, "hello"));
    }
    let page = server.get("/events?kinds=agent.external_registered").expect(200).json();
    let actors: Vec<&Value> =
        page["events"].as_array().unwrap().iter().map(|event| &event["actor"]).collect();
    assert_eq!(actors, ["w0", "ada", "w1", "w2", "w3", "w4"]);
}

#[test]
fn a_message_of_a_batch_answers_one_before_it() {
    let server = with_agents(&["ada", "bob"]);
    let mut question = request("ada", "bob", "how many?");
    question["reply_with"] = json!("q");
    let answer = |performative: &str, word: &str| {
        json!({
            "performative": performative, "sender": "bob", "receiver": "ada", "content": "three", "in_reply_to": word,
        })
    };
    let batch = |messages: &[Value], atomic: bool| {
        server.post("/messages/batch", &json!({"messages": messages, "atomic": atomic}))
    };
    // In the conversation that the question opens, and in no other.
    let done = batch(&[question.clone(), answer("INFORM", "q")], true).expect(201).json();
    let results = done["results"].as_array().unwrap();
    assert_eq!(results[0]["conversation_id"], results[1]["conversation_id"]);
    let shown = &server.get("/agents/ada/inbox").expect(200).json()["messages"][0];
    assert_eq!((&shown["content"], &shown["in_reply_to"]), (&json!("three"), &json!("q")));
    let bob = server.get("/agents/bob").expect(200).json();
    assert_eq!(bob["execution_stats"]["total_requests"], 1);
    // Nobody waited for that answer.
    assert_eq!(bob["execution_stats"]["average_response_time_ms"], Value::Null);

    // By number, in a conversation that is there.
    let id = "00000000-0000-4000-8000-0000000000aa";
    let conversation = results[0]["conversation_id"].clone();
    let mut known = request("ada", "bob", "and now?");
    (known["message_id"], known["conversation_id"]) = (json!(id), conversation.clone());
    let mut named = answer("REFUSE", id);
    named["conversation_id"] = conversation;
    batch(&[known, named], true).expect(201);

    // The rules of answers hold: not by anybody, not with anything, not to what comes later.
    let problem = batch(&[question.clone(), answer("PROPOSE", "q")], true).problem(422, "PROTOCOL_VIOLATION");
    assert_eq!(problem["field"], "messages[1].performative");
    let mut other = answer("INFORM", "q");
    other["sender"] = json!("eve");
    batch(&[question.clone(), other], true).problem(422, "PROTOCOL_VIOLATION");
    batch(&[answer("INFORM", "q"), question.clone()], true).problem(422, "VALIDATION_ERROR");
    let mixed =
        batch(&[answer("INFORM", "q"), question.clone(), answer("AGREE", "q")], false).expect(207).json();
    assert_eq!((&mixed["messages_sent"], &mixed["failed_messages"]), (&json!(2), &json!(1)));
    assert_eq!(contents(&inbox(&server, "bob", "")), ["how many?", "and now?", "how many?"]);

    // Lines are cut where they are cut: there the conversation must be named.
    let text = format!("{question}\n{}\n", answer("INFORM", "q"));
    let lines = server.ask("POST", "/messages").lines(&text).send().expect(200).lines();
    assert_eq!((&lines[0]["status"], &lines[1]["field"]), (&json!("delivered"), &json!("conversation_id")));
}

#[test]
fn limits_of_messages_are_those_of_the_configuration() {
    let program = Program::start(
        "messaging: {queue_size: 2, max_participants: 2, max_messages: 3, max_message_size: 2KB, \
         conversation_ttl: 1h, conversation_lifetime: 30m}\n",
    );
    for name in ["ada", "bob", "eve"] {
        program.post("/agents", &json!({"agent_id": name})).expect(201);
    }
    let long = "x".repeat(2_049);
    program.post("/messages", &request("ada", "bob", &long)).problem(413, "TOO_LARGE");
    let first = program.post("/messages", &request("ada", "bob", "1")).expect(201).json();
    let mut body = request("ada", "bob", "2");
    body["conversation_id"] = first["conversation_id"].clone();
    program.post("/messages", &body).expect(201);
    program.post("/messages", &request("eve", "bob", "3")).problem(429, "QUEUE_FULL");
    let mut third = request("bob", "eve", "x");
    third["conversation_id"] = first["conversation_id"].clone();
    program.post("/messages", &third).problem(409, "LIMIT_REACHED");
    (third["receiver"], third["content"]) = (json!("ada"), json!("3"));
    program.post("/messages", &third).expect(201);
    program.post("/messages", &third).problem(409, "LIMIT_REACHED");
    let path = format!("/conversations/{}", first["conversation_id"].as_str().unwrap());
    let shown = program.get(&path).expect(200).json();
    assert_eq!((&shown["participants_max"], &shown["messages_max"]), (&json!(2), &json!(3)));
    // Half an hour of life is less than an hour of silence.
    let minutes = |name: &str| {
        let at = shown[name].as_str().unwrap();
        let part = |range| at.get::<std::ops::Range<usize>>(range).unwrap().parse::<u64>().unwrap();
        part(11..13) * 60 + part(14..16)
    };
    assert_eq!((minutes("ends_at") + 24 * 60 - minutes("created_at")) % (24 * 60), 30, "{shown}");
}

#[test]
fn a_conversation_has_room_for_two() {
    let server = with_agents(&["ada", "bob"]);
    let narrow = json!({"conversation_id": "pair", "participants_max": 1});
    let problem = server.post("/conversations", &narrow).problem(422, "VALIDATION_ERROR");
    assert_eq!((&problem["field"], &problem["value"]), (&json!("participants_max"), &json!("1")));
    assert!(problem["remedy"].as_str().unwrap().contains("from 2 to"), "{problem}");
    open(&server, &json!({"conversation_id": "pair", "participants_max": 2, "messages_max": 1}));
    let mut body = request("ada", "bob", "just us");
    body["conversation_id"] = json!("pair");
    send(&server, &body);
}

#[test]
fn wrong_limits_are_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (line, says) in [
        ("queue_size: 0", "from 1 to"),
        ("max_participants: 1", "from 2 to"),
        ("max_messages: none", "messaging.max_messages"),
        ("conversation_ttl: 5", "messaging.conversation_ttl"),
        ("conversation_ttl: 1ms", "messaging.conversation_ttl"),
        ("max_message_size: 11MB", "messaging.max_message_size"),
        ("queue_sizes: 5", "did you mean messaging.queue_size?"),
    ] {
        let file = dir.path().join("caxton.yaml");
        std::fs::write(&file, format!("messaging:\n  {line}\n")).unwrap();
        let output = caxton().args(["serve", "--config"]).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert!(text.contains(says) && text.contains(":2:"), "{line}: {text}");
    }
}
