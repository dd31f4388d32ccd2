//! Messages between agents: sent, routed, read, done with, leased, given up.

use std::thread;

use serde_json::{Value, json};

use super::server::Server;

/// A server with these agents.
pub(crate) fn with_agents(names: &[&str]) -> Server {
    let server = Server::start();
    for name in names {
        server.post("/agents", &json!({"agent_id": name})).expect(201);
    }
    server
}

pub(crate) fn request(sender: &str, receiver: &str, content: &str) -> Value {
    json!({"performative": "REQUEST", "sender": sender, "receiver": receiver, "content": content})
}

#[track_caller]
pub(crate) fn send(server: &Server, body: &Value) -> Value {
    server.post("/messages", body).expect(201).json()
}

#[track_caller]
pub(crate) fn inbox(server: &Server, agent: &str, query: &str) -> Value {
    server.get(&format!("/agents/{agent}/inbox{query}")).expect(200).json()
}

pub(crate) fn contents(page: &Value) -> Vec<&str> {
    let messages = page["messages"].as_array().unwrap();
    messages.iter().map(|message| message["content"].as_str().unwrap()).collect()
}

pub(crate) fn offer(server: &Server, agent: &str, capability: &str, priority: u64) -> Value {
    let body = json!({"agent_id": agent, "capability": capability, "priority": priority});
    server.post("/capabilities", &body).expect(201).json()
}

#[test]
fn what_is_sent_is_read_answered_and_done_with() {
    let server = with_agents(&["bob"]);
    let mut body = request("ada", "bob", "how many?");
    body["reply_with"] = json!("q1");
    body["metadata"] = json!({"project": "tea"});
    let sent = send(&server, &body);
    assert_eq!((&sent["status"], &sent["delivered_to"]), (&json!("delivered"), &json!(["bob"])));
    assert_eq!(sent.get("routing"), None);
    send(&server, &request("ada", "bob", "and when?"));

    let page = inbox(&server, "bob", "?limit=1");
    assert_eq!((&page["count"], &page["waiting"]), (&json!(1), &json!(2)));
    let message = &page["messages"][0];
    for (member, value) in [
        ("seq", &sent["seq"]),
        ("message_id", &sent["message_id"]),
        ("conversation_id", &sent["conversation_id"]),
        ("performative", &json!("REQUEST")),
        ("sender", &json!("ada")),
        ("content", &json!("how many?")),
        ("priority", &json!("normal")),
        ("reply_with", &json!("q1")),
        ("metadata", &json!({"project": "tea"})),
    ] {
        assert_eq!(&message[member], value, "{member}");
    }
    let after = format!("?after={}", page["next_after"]);
    assert_eq!(contents(&inbox(&server, "bob", &after)), ["and when?"]);

    let done = server.post("/agents/bob/inbox/ack", &json!({"through": sent["seq"]})).expect(200).json();
    assert_eq!((&done["status"], &done["waiting"]), (&json!("acknowledged"), &json!(1)));
    assert_eq!(contents(&inbox(&server, "bob", "")), ["and when?"]);
    let again = server.post("/agents/bob/inbox/ack", &json!({"seqs": [sent["seq"]]})).expect(200).json();
    assert_eq!(again["status"], "unchanged");

    let answer = json!({
        "performative": "inform", "sender": "bob", "receiver": "ada", "content": {"cups": 3},
        "conversation_id": sent["conversation_id"], "in_reply_to": "q1",
    });
    send(&server, &answer);
    let page = inbox(&server, "ada", "");
    assert_eq!(page["messages"][0]["content"], json!({"cups": 3}));
    assert_eq!(page["messages"][0]["answers_seq"], sent["seq"]);
}

#[test]
fn a_waiting_reader_gets_the_message_that_comes() {
    let server = with_agents(&["ada", "bob"]);
    let page = thread::scope(|scope| {
        let reader = scope.spawn(|| inbox(&server, "bob", "?wait=20"));
        send(&server, &request("ada", "bob", "now"));
        reader.join().unwrap()
    });
    assert_eq!(contents(&page), ["now"]);
    let leased = thread::scope(|scope| {
        let reader = scope.spawn(|| inbox(&server, "ada", "?wait=20&consumer=w1"));
        send(&server, &request("bob", "ada", "then"));
        reader.join().unwrap()
    });
    assert_eq!(contents(&leased), ["then"]);
}

#[test]
fn a_capability_finds_the_agent_and_says_why() {
    let server = with_agents(&["ada", "slow", "fast"]);
    offer(&server, "slow", "data-analysis", 10);
    let fast = offer(&server, "fast", "data-analysis", 900);
    assert_eq!((&fast["version"], &fast["priority"]), (&json!("1.0.0"), &json!(900)));
    let mut body = json!({
        "performative": "REQUEST", "sender": "ada", "capability": "data-analysis", "content": "sum",
        "routing_strategy": "priority",
    });
    let sent = server.post("/messages?explain=true", &body).expect(201).json();
    assert_eq!(sent["delivered_to"], json!(["fast"]));
    let routing = &sent["routing"];
    assert_eq!((&routing["strategy"], &routing["capability"]), (&json!("priority"), &json!("data-analysis")));
    assert!(routing["reason"].as_str().unwrap().starts_with("fast is first of 2"), "{routing}");
    let candidates = routing["candidates"].as_array().unwrap();
    assert_eq!((&candidates[0]["agent_id"], &candidates[1]["agent_id"]), (&json!("fast"), &json!("slow")));
    assert!(candidates[0]["score"].as_f64() > candidates[1]["score"].as_f64(), "{routing}");
    assert_eq!(send(&server, &body)["routing"].get("candidates"), None);

    let dry = server.get("/capabilities/data-analysis?routing_strategy=priority").expect(200).json();
    assert_eq!((&dry["total_providers"], &dry["routing"]["would_reach"]), (&json!(2), &json!(["fast"])));
    let change = server.ask("PUT", &format!("/capabilities/{}", fast["registration_id"].as_str().unwrap()));
    assert_eq!(change.json(&json!({"priority": 1})).send().expect(200).json()["priority"], 1);
    assert_eq!(send(&server, &body)["delivered_to"], json!(["slow"]));
    body["routing_strategy"] = json!("broadcast");
    assert_eq!(send(&server, &body)["delivered_to"].as_array().unwrap().len(), 2);

    server.delete("/capabilities/fast/data-analysis").expect(204);
    server.delete("/capabilities/fast/data-analysis").problem(404, "REGISTRATION_NOT_FOUND");
    let listed = server.get("/capabilities").expect(200).json();
    assert_eq!(listed["total"], 1);
    assert_eq!(listed["capabilities"][0]["providers"].as_array().unwrap().len(), 1);
    server.get("/capabilities/chess").problem(404, "CAPABILITY_NOT_FOUND");
    let twice = json!({"agent_id": "slow", "capability": "data-analysis"});
    server.post("/capabilities", &twice).problem(409, "DUPLICATE_REGISTRATION");
}

#[test]
fn what_nobody_can_do_fails_in_the_inbox_and_can_be_sent_again() {
    let server = with_agents(&["ada", "bob"]);
    let body = json!({
        "performative": "REQUEST", "sender": "ada", "capability": "translation", "content": "bonjour",
        "reply_with": "t1",
    });
    let sent = send(&server, &body);
    assert_eq!((&sent["status"], &sent["delivered_to"]), (&json!("dead_lettered"), &json!([])));
    let failure = &inbox(&server, "ada", "")["messages"][0];
    assert_eq!((&failure["performative"], &failure["sender"]), (&json!("FAILURE"), &json!("system")));
    assert_eq!(
        (&failure["in_reply_to"], &failure["conversation_id"]),
        (&json!("t1"), &sent["conversation_id"])
    );
    assert!(failure["content"].as_str().unwrap().contains("translation"), "{failure}");

    let letters = server.get("/dead-letters?reason=no_provider").expect(200).json();
    assert_eq!((&letters["count"], &letters["total"]), (&json!(1), &json!(1)));
    let letter = &letters["dead_letters"][0];
    assert_eq!((&letter["message_seq"], &letter["message_id"]), (&sent["seq"], &sent["message_id"]));

    offer(&server, "bob", "translation", 50);
    let replay = format!("/dead-letters/{}/replay", letter["seq"]);
    let again = server.ask("POST", &replay).send().expect(201).json();
    assert_eq!(again["delivered_to"], json!(["bob"]));
    assert_eq!(contents(&inbox(&server, "bob", "")), ["bonjour"]);
    let letters = server.get("/dead-letters?replayed=true").expect(200).json();
    assert_eq!(letters["dead_letters"][0]["replayed_as"], json!([again["message_id"]]));
    server.ask("POST", &replay).send().problem(409, "WRONG_STATE");
    server.post(&replay, &json!({"again": true})).expect(201);
    server.post(&replay, &json!({"x": 1})).problem(422, "VALIDATION_ERROR");
    let others = server.get("/dead-letters?reason=expired").expect(200).json();
    assert_eq!((&others["count"], &others["total"]), (&json!(0), &json!(0)));
    let told = server.get("/messages?sender=system").expect(200).json();
    assert_eq!((&told["count"], &told["messages"][0]["seq"]), (&json!(1), &failure["seq"]));
    server.ask("POST", "/dead-letters/1/replay").send().problem(404, "DEAD_LETTER_NOT_FOUND");
    server.ask("POST", "/dead-letters/one/replay").send().problem(400, "INVALID_ID");
}

/// What is wrong with a message whatever happened before, as changes to a good one.
fn bad_alone() -> Vec<(Value, u16, &'static str, &'static str)> {
    let huge = "x".repeat((10 << 20) + 1);
    let validation = "VALIDATION_ERROR";
    vec![
        (json!({"performative": "SHOUT"}), 422, validation, "performative"),
        (json!({"performative": null}), 422, validation, "performative"),
        (json!({"sender": null}), 422, validation, "sender"),
        (json!({"sender": "system"}), 422, validation, "sender"),
        (json!({"receiver": null}), 422, validation, "receiver"),
        (json!({"capability": "chess"}), 422, validation, "capability"),
        (json!({"receiver": null, "capability": "No Name"}), 422, validation, "capability"),
        (json!({"receiver": null, "capability": "chess:"}), 422, validation, "capability"),
        (json!({"receiver": null, "capability": "chess:banana"}), 422, validation, "capability"),
        (
            json!({"receiver": null, "capability": "chess", "to_capability": "go"}),
            422,
            validation,
            "to_capability",
        ),
        (json!({"routing_strategy": "priority"}), 422, validation, "routing_strategy"),
        (json!({"receiver": "ada"}), 422, validation, "receiver"),
        (json!({"receiver": "system"}), 422, validation, "receiver"),
        (json!({"receivers": ["bob"]}), 422, validation, "receiver"),
        (json!({"receiver": "nobody"}), 404, "AGENT_NOT_FOUND", "receiver"),
        (json!({"content": ""}), 422, validation, "content"),
        (json!({"content": null}), 422, validation, "content"),
        (json!({"content": huge}), 413, "TOO_LARGE", "content"),
        (json!({"parent_conversation": "conv-none"}), 404, "CONVERSATION_NOT_FOUND", "parent_conversation"),
        (json!({"content": "{\"a\": "}), 422, validation, "content"),
        (json!({"content_type": "prose"}), 422, validation, "content_type"),
        (json!({"content": [1], "content_type": "text"}), 422, validation, "content_type"),
        (json!({"expires_at": "2001-01-01"}), 422, "EXPIRED", "expires_at"),
        (json!({"reply_by": "2001-01-01"}), 422, "EXPIRED", "reply_by"),
        (json!({"reply_by": "soon"}), 422, validation, "reply_by"),
        (json!({"priority": "urgent"}), 422, validation, "priority"),
        (json!({"message_id": "7"}), 422, validation, "message_id"),
        (json!({"recipient": "bob"}), 422, validation, "recipient"),
    ]
}

#[test]
fn a_member_that_is_null_is_one_that_is_left_out() {
    let server = with_agents(&["bob"]);
    for name in ["performative", "sender", "receiver", "content"] {
        let mut message = request("ada", "bob", "hello");
        message[name] = Value::Null;
        let problem = server.post("/messages", &message).problem(422, "VALIDATION_ERROR");
        let remedy = problem["errors"][0]["remedy"].as_str().or_else(|| problem["remedy"].as_str());
        assert!(problem["field"] == name && remedy.is_some_and(|remedy| !remedy.is_empty()), "{problem}");
    }
    let mut message = request("ada", "bob", "hello");
    for name in ["receivers", "capability", "to_capability", "routing_strategy", "reply_by", "metadata"] {
        message[name] = Value::Null;
    }
    assert_eq!(send(&server, &message)["delivered_to"], json!(["bob"]));
}

#[test]
fn a_text_may_begin_like_json_where_its_sender_says_that_it_is_one() {
    let server = with_agents(&["bob"]);
    for text in ["[URGENT] server down", "[1]"] {
        let mut message = request("ada", "bob", text);
        message["content_type"] = json!("text");
        send(&server, &message);
    }
    assert_eq!(contents(&inbox(&server, "bob", "")), ["[URGENT] server down", "[1]"]);
    let problem =
        server.post("/messages", &request("ada", "bob", "[URGENT]")).problem(422, "VALIDATION_ERROR");
    assert!(problem.to_string().contains("content_type=text"), "{problem}");

    // It is one also when it is sent again.
    let mut lost = request("ada", "bob", "[bonjour");
    (lost["receiver"], lost["capability"]) = (Value::Null, json!("translation"));
    lost["content_type"] = json!("text");
    send(&server, &lost);
    offer(&server, "bob", "translation", 50);
    let letters = server.get("/dead-letters").expect(200).json();
    let replay = format!("/dead-letters/{}/replay", letters["dead_letters"][0]["seq"]);
    server.ask("POST", &replay).send().expect(201);
    assert_eq!(contents(&inbox(&server, "bob", ""))[2], "[bonjour");
}

#[test]
fn a_bad_message_is_told_what_is_wrong_with_it() {
    let server = with_agents(&["bob", "eve"]);
    let sent = send(&server, &request("ada", "bob", "first"));
    let conversation = &sent["conversation_id"];
    let id = "018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f";
    let mut first = request("ada", "bob", "with a number");
    first["message_id"] = json!(id);
    assert_eq!(send(&server, &first)["message_id"], id);
    let repeated = server.post("/messages", &first).expect(200).json();
    assert_eq!(repeated["replayed"], true);

    let validation = "VALIDATION_ERROR";
    let placed = [
        (json!({"conversation_id": "conv-none"}), 404, "CONVERSATION_NOT_FOUND", "conversation_id"),
        (json!({"conversation_id": conversation, "topic": "tea"}), 422, validation, "topic"),
        (json!({"in_reply_to": "q1"}), 422, validation, "conversation_id"),
        (
            json!({"conversation_id": conversation, "in_reply_to": "nothing"}),
            404,
            "MESSAGE_NOT_FOUND",
            "in_reply_to",
        ),
        (
            json!({"sender": "eve", "conversation_id": conversation, "in_reply_to": sent["message_id"]}),
            422,
            "PROTOCOL_VIOLATION",
            "in_reply_to",
        ),
        (
            json!({"sender": "bob", "receiver": "eve", "performative": "ACCEPT_PROPOSAL",
                   "conversation_id": conversation, "in_reply_to": sent["message_id"]}),
            422,
            "PROTOCOL_VIOLATION",
            "performative",
        ),
        (json!({"message_id": id}), 409, "MESSAGE_ID_CONFLICT", "message_id"),
    ];
    let head = server.get("/log/head").json();
    for (change, status, code, field) in bad_alone().into_iter().chain(placed) {
        let mut body = request("ada", "bob", "hello");
        let shown: String = change.to_string().chars().take(100).collect();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let reply = server.post("/messages", &body);
        assert_eq!(reply.status, status, "{shown}: {}", String::from_utf8_lossy(&reply.body));
        let problem = reply.problem(status, code);
        assert_eq!(problem["field"], field, "{shown}: {problem}");
        assert!(problem["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{shown}");
    }
    assert_eq!(server.get("/log/head").json(), head, "a refused message left something");
    let keyed = server.ask("POST", "/messages").header("Idempotency-Key", "k");
    let problem = keyed.json(&request("ada", "bob", "hello")).send().problem(422, validation);
    assert_eq!(problem["field"], "Idempotency-Key");
}

#[test]
fn a_batch_of_messages_is_all_or_nothing_unless_asked_otherwise() {
    let server = with_agents(&["bob"]);
    let (good, bad) = (request("ada", "bob", "one"), request("ada", "nobody", "two"));
    let mixed = json!({"messages": [good.clone(), bad.clone()]});
    let problem = server.post("/messages/batch", &mixed).problem(404, "AGENT_NOT_FOUND");
    assert_eq!(problem["field"], "messages[1].receiver");
    assert_eq!(inbox(&server, "bob", "")["count"], 0);

    let apart = json!({"messages": [good.clone(), bad.clone()], "atomic": false, "batch_id": "b7"});
    let answer = server.post("/messages/batch", &apart).expect(207).json();
    assert_eq!((&answer["messages_sent"], &answer["failed_messages"]), (&json!(1), &json!(1)));
    assert_eq!((&answer["batch_id"], &answer["seq"]), (&json!("b7"), &answer["results"][0]["seq"]));
    assert_eq!(
        (&answer["results"][1]["code"], &answer["results"][1]["http_status"]),
        (&json!("AGENT_NOT_FOUND"), &json!(404))
    );
    assert_eq!(contents(&inbox(&server, "bob", "")), ["one"]);

    let all = json!({"messages": [good.clone(), request("ada", "bob", "three")]});
    server.post("/messages/batch", &all).expect(201);
    assert_eq!(contents(&inbox(&server, "bob", "")), ["one", "one", "three"]);
    for body in [json!({}), json!({"messages": []}), json!({"messages": vec![good.clone(); 101]})] {
        assert_eq!(
            server.post("/messages/batch", &body).problem(422, "VALIDATION_ERROR")["field"],
            "messages"
        );
    }
    let wrong = json!({"messages": [good, {"sender": "ada", "receiver": "bob", "content": "x"}]});
    let problem = server.post("/messages/batch", &wrong).problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["field"], "messages[1].performative");
}

#[test]
fn a_message_that_cannot_be_read_fails_alone_in_a_batch_of_single_ones() {
    let server = with_agents(&["bob"]);
    let bad = json!({"performative": "SHOUT", "sender": "ada", "receiver": "bob", "content": "x"});
    let messages = json!([bad, request("ada", "bob", "one"), request("ada", "nobody", "two")]);
    let answer =
        server.post("/messages/batch", &json!({"messages": messages, "atomic": false})).expect(207).json();
    let fields: Vec<&str> = (0..3).filter_map(|at| answer["results"][at]["field"].as_str()).collect();
    assert_eq!(fields, ["messages[0].performative", "messages[2].receiver"]);
    assert_eq!((&answer["messages_sent"], &answer["failed_messages"]), (&json!(1), &json!(2)));
    assert_eq!(contents(&inbox(&server, "bob", "")), ["one"]);
    let none = json!({"messages": [messages[0], messages[0]], "atomic": false});
    let problem = server.post("/messages/batch", &none).problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(2));
}

#[test]
fn null_is_not_given() {
    let server = with_agents(&["bob"]);
    offer(&server, "bob", "plots", 50);
    for change in [
        json!({"capability": null, "broadcast": null}),
        json!({"receiver": null, "capability": "plots"}),
        json!({"receiver": null, "capability": "plots:1", "to_capability": "plots:1"}),
    ] {
        let mut body = request("ada", "bob", "x");
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(send(&server, &body)["delivered_to"], json!(["bob"]), "{change}");
    }
    for name in ["performative", "sender"] {
        let mut body = request("ada", "bob", "x");
        body[name] = Value::Null;
        let problem = server.post("/messages", &body).problem(422, "VALIDATION_ERROR");
        assert_eq!((&problem["field"], &problem["value"]), (&json!(name), &json!("null")));
        let line = server.ask("POST", "/messages").lines(&body.to_string()).send().expect(200).lines();
        assert_eq!(line[0]["field"], name);
    }
}

#[test]
fn what_contradicts_itself_is_refused_with_its_value() {
    let server = with_agents(&["bob"]);
    for (change, field, value) in [
        (json!({"capability": "a", "to_capability": "b"}), "to_capability", "b"),
        (json!({"capability": "a:banana"}), "capability", "banana"),
        (json!({"receiver": "ada"}), "receiver", "ada"),
        (json!({"receiver": "bob", "recipient": "eve"}), "recipient", "eve"),
    ] {
        let mut body = json!({"performative": "REQUEST", "sender": "ada", "content": "x"});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let problem = server.post("/messages", &body).problem(422, "VALIDATION_ERROR");
        assert_eq!((&problem["field"], &problem["value"]), (&json!(field), &json!(value)), "{change}");
    }
    let problem = server.post("/messages", &json!([])).problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1));
    let as_eve = |method: &str, path: &str| server.ask(method, path).header("X-Caxton-Agent", "eve");
    as_eve("POST", "/messages").json(&request("ada", "bob", "x")).send().problem(422, "VALIDATION_ERROR");
    as_eve("POST", "/messages").json(&request("eve", "bob", "x")).send().expect(201);
    as_eve("GET", "/agents/bob/inbox").send().problem(422, "VALIDATION_ERROR");
    let ack = as_eve("POST", "/agents/bob/inbox/ack").json(&json!({"through": 1})).send();
    assert_eq!(ack.problem(422, "VALIDATION_ERROR")["field"], "agent_id");
}

#[test]
fn lines_are_messages_each_for_itself() {
    let server = with_agents(&["bob"]);
    let lines = [
        request("ada", "bob", "one").to_string(),
        String::new(),
        "{".to_owned(),
        request("ada", "nobody", "two").to_string(),
        request("ada", "bob", "three").to_string(),
    ];
    let answers = server.ask("POST", "/messages").lines(&lines.join("\n")).send().expect(200).lines();
    let shown: Vec<(u64, &str)> = answers
        .iter()
        .map(|answer| (answer["line"].as_u64().unwrap(), answer["code"].as_str().unwrap_or("sent")))
        .collect();
    assert_eq!(shown, [(1, "sent"), (3, "MALFORMED_JSON"), (4, "AGENT_NOT_FOUND"), (5, "sent")]);
    assert_eq!(answers[1]["http_status"], 400);
    assert_eq!(contents(&inbox(&server, "bob", "")), ["one", "three"]);
}

#[test]
fn consumers_of_one_inbox_do_not_get_the_same_message() {
    let server = with_agents(&["bob"]);
    let seqs: Vec<Value> = ["a", "b", "c"]
        .iter()
        .map(|text| send(&server, &request("ada", "bob", text))["seq"].clone())
        .collect();
    let first = inbox(&server, "bob", "?consumer=w1&limit=2&lease=600");
    assert_eq!((contents(&first), &first["lease_seconds"]), (vec!["a", "b"], &json!(600)));
    assert_eq!(contents(&inbox(&server, "bob", "?consumer=w2&lease=600")), ["c"]);
    assert_eq!(contents(&inbox(&server, "bob", "?consumer=w3")), [""; 0]);
    assert_eq!(contents(&inbox(&server, "bob", "?consumer=w1&lease=600")), ["a", "b"]);

    for (consumer, then) in [("w2", json!([])), ("nobody", json!([])), ("w1", json!([seqs[1]]))] {
        let given = json!({"consumer": consumer, "seqs": [seqs[1], 99_999]});
        let answer = server.post("/agents/bob/inbox/release", &given).expect(200).json();
        assert_eq!(answer["released"], then, "{consumer}");
    }
    server.post("/agents/bob/inbox/ack", &json!({"seqs": [seqs[0]]})).expect(200);
    assert_eq!(contents(&inbox(&server, "bob", "?consumer=w3")), ["b"]);
    assert_eq!(contents(&inbox(&server, "bob", "")), ["b", "c"]);

    for (query, field) in [
        ("?lease=5", "consumer"),
        ("?consumer=", "consumer"),
        ("?consumer=w1&after=1", "after"),
        ("?wait=-1", "wait"),
        ("?limit=0", "limit"),
        ("?after=1000000", "after"),
    ] {
        let problem = server.get(&format!("/agents/bob/inbox{query}")).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], field, "{query}");
    }
    server.get("/agents/nobody/inbox").problem(404, "AGENT_NOT_FOUND");
    for (body, field) in [
        (json!({}), "through"),
        (json!({"through": 1_000_000}), "through"),
        (json!({"seqs": ["a"]}), "seqs[0]"),
    ] {
        let problem = server.post("/agents/bob/inbox/ack", &body).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], field, "{body}");
    }
}

#[test]
fn conversations_are_listed_read_page_by_page_and_closed() {
    let server = with_agents(&["ada", "bob", "eve"]);
    let made = json!({"conversation_id": "plan", "topic": "tea", "messages_max": 3, "agent_id": "ada"});
    let open = server.post("/conversations", &made).expect(201).json();
    assert_eq!((&open["status"], &open["topic"]), (&json!("active"), &json!("tea")));
    assert_eq!(open["messages_max"], 3);
    server.post("/conversations", &made).problem(409, "ALREADY_EXISTS");
    for text in ["one", "two", "three"] {
        let mut body = request("ada", "bob", text);
        body["conversation_id"] = json!("plan");
        send(&server, &body);
    }
    let mut more = request("ada", "bob", "four");
    more["conversation_id"] = json!("plan");
    server.post("/messages", &more).problem(409, "LIMIT_REACHED");

    let path = "/conversations/plan/messages?limit=2";
    let page = server.get(path).expect(200).json();
    assert_eq!((contents(&page), &page["total"]), (vec!["one", "two"], &json!(3)));
    let next = format!("{path}&cursor={}", page["next_cursor"].as_str().unwrap());
    let page = server.get(&next).expect(200).json();
    assert_eq!((contents(&page), &page["next_cursor"]), (vec!["three"], &Value::Null));

    let other = send(&server, &request("eve", "bob", "hello"))["conversation_id"].clone();
    let names = |query: &str| -> Vec<Value> {
        let page = server.get(&format!("/conversations{query}")).expect(200).json();
        page["conversations"].as_array().unwrap().iter().map(|row| row["conversation_id"].clone()).collect()
    };
    assert_eq!(names(""), [other.clone(), json!("plan")]);
    assert_eq!(names("?participant=ada"), [json!("plan")]);
    let page = server.get("/conversations?limit=1").expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(names(&format!("?limit=1&cursor={cursor}")), [json!("plan")]);

    server.ask("POST", "/conversations/plan/archive").send().problem(409, "WRONG_STATE");
    let end = json!({"agent_id": "bob", "end": "cancelled"});
    assert_eq!(server.post("/conversations/plan/close", &end).expect(200).json()["status"], "cancelled");
    assert_eq!(server.ask("POST", "/conversations/plan/close").send().expect(200).json()["end"], "cancelled");
    more["conversation_id"] = json!("plan");
    server.post("/messages", &more).problem(409, "CONVERSATION_CLOSED");
    assert_eq!(names("?status=active"), std::slice::from_ref(&other));
    server.ask("POST", "/conversations/plan/archive").send().expect(200);
    assert_eq!((names(""), names("?status=archived")), (vec![other], vec![json!("plan")]));
    server.get("/conversations/none").problem(404, "CONVERSATION_NOT_FOUND");
    server.get("/conversations/none/messages").problem(404, "CONVERSATION_NOT_FOUND");
    server.ask("POST", "/conversations/none/close").send().problem(404, "CONVERSATION_NOT_FOUND");
}

#[test]
fn a_conversation_without_a_limit_of_messages_says_so() {
    let server = Server::start();
    for no_limit in [json!(null), json!(u32::MAX)] {
        let body = json!({"agent_id": "ada", "messages_max": no_limit});
        let open = server.post("/conversations", &body).expect(201).json();
        assert_eq!(open.get("messages_max"), Some(&Value::Null), "{open}");
    }
}

#[test]
fn agents_make_themselves_known() {
    let server = Server::start();
    let made = server.post("/agents", &json!({"agent_id": "ada", "workspace": "lab"})).expect(201).json();
    assert_eq!((&made["kind"], &made["workspace"]), (&json!("external"), &json!("lab")));
    server.post("/agents", &json!({"agent_id": "ada"})).expect(200);
    server.post("/agents", &json!({"agent_id": "ada", "workspace": "lab"})).expect(200);
    let moved = server.post("/agents", &json!({"agent_id": "ada", "workspace": "shop"}));
    assert_eq!(moved.problem(409, "ALREADY_EXISTS")["field"], "workspace");
    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    offer(&server, "bob", "chess", 1);
    let names = |query: &str| -> Vec<Value> {
        let page = server.get(&format!("/agents{query}")).expect(200).json();
        page["agents"].as_array().unwrap().iter().map(|row| row["agent_id"].clone()).collect()
    };
    assert_eq!(names(""), ["ada", "bob"]);
    assert_eq!(
        (names("?workspace=lab"), names("?capability=chess")),
        (vec![json!("ada")], vec![json!("bob")])
    );
    let cursor = server.get("/agents?limit=1").expect(200).json()["next_cursor"].clone();
    assert_eq!(names(&format!("?limit=1&cursor={}", cursor.as_str().unwrap())), ["bob"]);
    assert_eq!(server.get("/agents/bob").expect(200).json()["capabilities"], json!(["chess"]));
    server.get("/agents/eve").problem(404, "AGENT_NOT_FOUND");
    for (body, field) in [
        (json!({}), "agent_id"),
        (json!({"agent_id": "a b"}), "agent_id"),
        (json!({"agent_id": "system"}), "agent_id"),
    ] {
        assert_eq!(server.post("/agents", &body).problem(422, "VALIDATION_ERROR")["field"], field, "{body}");
    }
    let unknown = json!({"agent_id": "eve", "capability": "chess"});
    assert_eq!(server.post("/capabilities", &unknown).problem(404, "AGENT_NOT_FOUND")["field"], "agent_id");
}
