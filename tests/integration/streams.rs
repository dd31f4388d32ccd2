//! Server-sent events: what happens is told while it happens, and nothing is lost over a broken connection.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::client::connect;
use super::server::Server;

/// A stream that is being read.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    fn open(server: &Server, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut ask = server.ask("GET", path);
        for (name, value) in headers {
            ask = ask.header(name, value);
        }
        let mut stream = connect(server.address);
        stream.write_all(&ask.bytes()).unwrap();
        let mut events = Self { stream, text: String::new() };
        events.read_until(": open\n\n");
        assert!(events.text.starts_with("HTTP/1.1 200"), "{}", events.text);
        assert!(events.text.contains("content-type: text/event-stream"), "{}", events.text);
        assert!(!events.text.contains("content-encoding"), "{}", events.text);
        events
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        let len = self.stream.read(&mut buffer).unwrap();
        self.text.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
        len > 0
    }

    fn read_until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(self.more(), "the stream ended without {wanted:?}: {}", self.text);
        }
    }

    /// The next `count` events: id, kind, data. What only tells the place is none of them.
    fn next(&mut self, count: usize) -> Vec<(u64, String, Value)> {
        let is_event = |text: &&str| text.contains("data: ") && !text.contains("event: place\n");
        while self.text.split("\n\n").filter(is_event).count() < count || !self.text.ends_with("\n\n\r\n") {
            assert!(self.more(), "the stream ended: {}", self.text);
        }
        let member = |event: &str, name: &str| {
            let line = event.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {event}")).to_owned()
        };
        let events = self.text.split("\n\n").filter(is_event);
        let events = events.map(|event| {
            let data = serde_json::from_str(&member(event, "data: ")).unwrap();
            (member(event, "id: ").parse().unwrap(), member(event, "event: "), data)
        });
        let events = events.collect();
        self.text.clear();
        events
    }
}

fn send(server: &Server, content: &str) -> u64 {
    let body = json!({"performative": "INFORM", "sender": "ada", "receiver": "bob", "content": content});
    server.post("/messages", &body).expect(201).json()["seq"].as_u64().unwrap()
}

#[test]
fn the_log_is_told_as_it_grows_and_goes_on_after_the_last_event() {
    let server = Server::start();
    server.post("/agents", &json!({"agent_id": "before"})).expect(201);
    let path = "/events/stream?kinds=agent.external_registered";
    let mut events = Events::open(&server, path, &[("Accept-Encoding", "gzip")]);
    server.post("/conversations", &json!({"conversation_id": "plan"})).expect(201);
    server.post("/agents", &json!({"agent_id": "ada"})).expect(201);
    let told = events.next(1);
    assert_eq!((told.len(), told[0].1.as_str()), (1, "agent.external_registered"));
    assert_eq!(told[0].2["seq"], told[0].0);
    assert_eq!(told[0].2["data"]["agent_id"], "ada");
    drop(events);

    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    let last = told[0].0.to_string();
    let missed = Events::open(&server, path, &[("Last-Event-ID", &last)]).next(1);
    assert_eq!((missed.len(), &missed[0].2["data"]["agent_id"]), (1, &json!("bob")));
    let all = Events::open(&server, &format!("{path}&from_seq=1"), &[]).next(3);
    assert_eq!(all.len(), 3);
    let bad = server.ask("GET", path).header("Last-Event-ID", "x").send();
    assert_eq!(bad.problem(422, "VALIDATION_ERROR")["field"], "Last-Event-ID");
    server.get("/events/stream?kinds=agent.none").problem(422, "VALIDATION_ERROR");
}

#[test]
fn nothing_is_lost_when_the_connection_breaks_before_the_first_event() {
    let server = Server::start();
    server.post("/agents", &json!({"agent_id": "ada"})).expect(201);
    let path = "/events/stream?kinds=agent.external_registered";
    let mut events = Events::open(&server, path, &[]);
    let id = server.engine.log().head().seq.0.to_string();
    events.read_until(&format!("id: {id}\nevent: place\ndata: {{\"seq\":{id}}}\n\n"));
    drop(events);
    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    let missed = Events::open(&server, path, &[("Last-Event-ID", &id)]).next(1);
    assert_eq!((missed.len(), &missed[0].2["data"]["agent_id"]), (1, &json!("bob")));
}

#[test]
fn a_place_beyond_the_log_is_no_place_to_go_on_from() {
    let server = Server::start();
    server.post("/agents", &json!({"agent_id": "ada"})).expect(201);
    let head = server.engine.log().head().seq.0;
    let beyond = (head + 1).to_string();
    let problem = server.ask("GET", "/events/stream").header("Last-Event-ID", &beyond).send();
    assert_eq!(problem.problem(422, "VALIDATION_ERROR")["field"], "Last-Event-ID");
    let problem = server.get(&format!("/events/stream?from_seq={}", head + 2));
    let problem = problem.problem(422, "VALIDATION_ERROR");
    assert_eq!((&problem["field"], &problem["value"]), (&json!("from_seq"), &json!((head + 2).to_string())));
    // The next event has this one.
    let mut events = Events::open(&server, &format!("/events/stream?from_seq={beyond}"), &[]);
    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    assert_eq!(events.next(1)[0].0, head + 1);
}

#[test]
fn the_log_tells_what_concerns_one_agent() {
    let server = Server::start();
    for agent in ["ada", "bob", "eve"] {
        server.post("/agents", &json!({"agent_id": agent})).expect(201);
    }
    let sent = send(&server, "to bob");
    server.entity("tea", "drink", &["is hot"]);
    let kinds = |agent: &str| {
        let page = server.get(&format!("/events?agent_id={agent}")).expect(200).json();
        let kinds =
            page["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap().to_owned());
        kinds.collect::<Vec<_>>()
    };
    let told = ["agent.external_registered", "conversation.message_sent"];
    assert_eq!(kinds("bob"), told);
    assert_eq!(kinds("eve"), told[..1]);
    let did = [
        "agent.external_registered",
        "conversation.opened",
        told[1],
        "memory.entity_created",
        "memory.observation_added",
    ];
    assert_eq!(kinds("ada"), did);
    // A page that is full goes on where it ended.
    let page = server.get("/events?agent_id=bob&limit=1").expect(200).json();
    let next = server.get(&format!("/events?agent_id=bob&from_seq={}", page["next_seq"])).expect(200).json();
    assert_eq!((&next["count"], &next["events"][0]["seq"]), (&json!(1), &json!(sent)));
    let mut events = Events::open(&server, "/events/stream?agent_id=bob&from_seq=1", &[]);
    assert_eq!(events.next(2)[1].0, sent);
    server.get("/events?agent_id=a%20b").problem(422, "VALIDATION_ERROR");
}

#[test]
fn an_inbox_is_told_as_it_fills_without_what_is_done_with() {
    let server = Server::start();
    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    let first = send(&server, "one");
    let mut events = Events::open(&server, "/agents/bob/inbox/stream", &[]);
    assert_eq!(events.next(1)[0].2["content"], "one");
    let second = send(&server, "two");
    let told = events.next(1);
    assert_eq!((told[0].0, told[0].1.as_str(), &told[0].2["content"]), (second, "message", &json!("two")));
    drop(events);

    server.post("/agents/bob/inbox/ack", &json!({"seqs": [first]})).expect(200);
    assert_eq!(Events::open(&server, "/agents/bob/inbox/stream", &[]).next(1)[0].0, second);
    let third = send(&server, "three");
    let last = second.to_string();
    let told = Events::open(&server, "/agents/bob/inbox/stream", &[("Last-Event-ID", &last)]).next(1);
    assert_eq!(told[0].0, third);
    server.get("/agents/nobody/inbox/stream").problem(404, "AGENT_NOT_FOUND");
}

#[test]
fn streams_and_waiting_readers_do_not_hold_up_the_end() {
    let mut server = Server::start();
    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    let mut log = Events::open(&server, "/events/stream", &[]);
    let mut inbox = Events::open(&server, "/agents/bob/inbox/stream", &[]);
    server.stop();
    for events in [&mut log, &mut inbox] {
        while events.more() {}
        assert!(events.text.ends_with("0\r\n\r\n"), "{}", events.text);
    }
}
