//! The command line among agents that talk: messages, conversations, offers, dead letters and logs, with agents
//! outside of the server that answer over REST.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use caxton_events::agent::Health;
use caxton_events::turn::{ToolCall, Usage};
use caxton_events::{AgentEvent, Draft, Event, Seq, Timestamp, TurnEvent, TurnId};
use serde_json::{Value, json};

use super::cli::{caxton, check, check_failure, json, run};
use super::client::Ask;
use super::server::Server;

pub(crate) fn with_agents(names: &[&str]) -> Server {
    let server = Server::start();
    for name in names {
        server.post("/agents", &json!({"agent_id": name})).expect(201);
    }
    server
}

pub(crate) fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// An agent outside of the server: takes so many messages from its inbox and answers each.
pub(crate) fn answering(
    address: SocketAddr,
    name: &'static str,
    count: usize,
    answer: impl Fn(&str) -> Vec<(&'static str, String)> + Send + 'static,
) -> JoinHandle<()> {
    let ask = move |method: &str, path: &str| Ask::new(address, method, &format!("/api/v1{path}"));
    thread::spawn(move || {
        for _ in 0..count {
            let page = loop {
                let page =
                    ask("GET", &format!("/agents/{name}/inbox?limit=1&wait=20")).send().expect(200).json();
                if page["count"] == 1 {
                    break page;
                }
            };
            let message = &page["messages"][0];
            for (performative, content) in answer(message["content"].as_str().unwrap()) {
                let reply = json!({
                    "performative": performative, "sender": name, "receiver": message["sender"], "content": content,
                    "conversation_id": message["conversation_id"], "in_reply_to": message["message_id"],
                });
                ask("POST", "/messages").json(&reply).send().expect(201);
            }
            let done = json!({"seqs": [message["seq"]]});
            ask("POST", &format!("/agents/{name}/inbox/ack")).json(&done).send().expect(200);
        }
    })
}

/// Says it again, or fails.
pub(crate) fn echo(text: &str) -> Vec<(&'static str, String)> {
    if text.contains("fail") {
        vec![("FAILURE", "cannot do that".to_owned())]
    } else {
        vec![("AGREE", "one moment".to_owned()), ("INFORM", format!("you said {text}"))]
    }
}

/// A command that runs while the test does something.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    input: Option<ChildStdin>,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = caxton(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (out, input) = (BufReader::new(child.stdout.take().unwrap()), child.stdin.take());
        Self { child, out, input }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.out.read_line(&mut line).unwrap() > 0, "the output ended");
        line.trim_end().to_owned()
    }

    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What is printed until the end, and how it ends.
    pub(crate) fn end(mut self) -> (String, ExitStatus) {
        drop(self.input.take());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.out, &mut rest).unwrap();
        (rest, self.child.wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_message_is_sent_and_its_answers_are_waited_for() {
    let server = with_agents(&["bob", "eve"]);
    let (url, address) = (url(&server), server.address);
    let send =
        |args: &[&'static str]| [&["--url", &url, "message", "send", "--from", "ada"][..], args].concat();
    check(&send(&["--to", "bob", "hello"]), &["sent to bob as #", " in conv-", ", message "]);
    let bob = answering(address, "bob", 2, echo);
    let shown = ["sent to bob as #", "bob → ada  AGREE", "bob → ada  INFORM", "  you said two words"];
    check(&send(&["--to", "bob", "--wait=60", "two words"]), &shown);
    bob.join().unwrap();
    // Everything that was printed is done with.
    assert_eq!(server.get("/agents/ada/inbox").expect(200).json()["waiting"], 2, "the answer to hello waits");

    let (bob, eve) = (answering(address, "bob", 1, echo), answering(address, "eve", 1, echo));
    let both = json(&[&["--json"], &send(&["--to", "bob,eve", "--wait=60", "all?"])[..]].concat());
    assert_eq!((&both["complete"], both["answers"].as_array().unwrap().len()), (&json!(true), 4));
    bob.join().unwrap();
    eve.join().unwrap();

    let bob = answering(address, "bob", 1, echo);
    check_failure(&send(&["--to", "bob", "--wait=60", "please fail"]), 1, "bob answered FAILURE");
    bob.join().unwrap();
    check_failure(
        &send(&["--to", "bob", "--wait=1", "nobody is there"]),
        1,
        "not every answer came within 1 second",
    );
}

#[test]
fn a_text_that_only_begins_like_json_is_sent_as_a_text() {
    let server = with_agents(&["bob"]);
    let url = url(&server);
    let send = ["--url", &url, "message", "send", "--from", "ada", "--to", "bob"];
    for text in ["[URGENT] server down", "{name} is a placeholder", "[1, 2]"] {
        check(&[&send[..], &[text]].concat(), &["sent to bob as #"]);
    }
    let inbox = server.get("/agents/bob/inbox").expect(200).json();
    let contents: Vec<&Value> =
        inbox["messages"].as_array().unwrap().iter().map(|message| &message["content"]).collect();
    let then = [json!("[URGENT] server down"), json!("{name} is a placeholder"), json!([1, 2])];
    assert_eq!(contents, then.iter().collect::<Vec<_>>());
}

#[test]
fn what_a_message_carries_is_sent_as_it_was_typed() {
    let server = with_agents(&["bob"]);
    let url = url(&server);
    let send = ["--url", &url, "--json", "message", "send", "--from", "ada", "--to", "bob"];
    let id = "018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f";
    let words =
        ["-p", "query", "--topic", "tea", "--priority", "high", "--reply-with", "q1", "--message-id", id];
    json(&[&send[..], &words, &["--reply-by", "1h", "--as-json", "42"]].concat());
    let message = &server.get("/agents/bob/inbox").expect(200).json()["messages"][0];
    for (member, value) in [
        ("performative", json!("QUERY")),
        ("content", json!(42)),
        ("priority", json!("high")),
        ("reply_with", json!("q1")),
        ("message_id", json!(id)),
    ] {
        assert_eq!(message[member], value, "{member}");
    }
    assert!(message["reply_by"].is_string());
    let conversation = message["conversation_id"].as_str().unwrap();
    check(&["--url", &url, "conversations", "list"], &["tea", "ada, bob", "1 conversation"]);

    // An answer, from standard input, and the same once more.
    let answer =
        ["--url", &url, "message", "send", "--from", "bob", "--to", "ada", "--conversation", conversation];
    let id = "018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e60";
    let answer = [&answer[..], &["--in-reply-to", "q1", "--message-id", id]].concat();
    for (shown, input) in [("sent to ada", "{\"cups\": 3}\n"), ("as it was sent before", "{\"cups\": 3}")] {
        let mut sending = Running::start(&[&answer[..], &["-"]].concat());
        sending.input.as_mut().unwrap().write_all(input.as_bytes()).unwrap();
        let (out, status) = sending.end();
        assert!(status.success() && out.contains(shown), "{out}");
    }
    let got = server.get("/agents/ada/inbox").expect(200).json();
    assert_eq!((&got["count"], &got["messages"][0]["content"]), (&json!(1), &json!({"cups": 3})));
    assert_eq!(got["messages"][0]["performative"], "INFORM");
    check_failure(&[&answer[..], &["something else"]].concat(), 5, "MESSAGE_ID_CONFLICT");
}

#[test]
fn exit_codes_and_remedies_say_what_is_wrong() {
    let server = with_agents(&["bob"]);
    let url = url(&server);
    let with = |args: &[&'static str]| [&["--url", &url][..], args].concat();
    let send = |args: &[&'static str]| with(&[&["message", "send", "--from", "ada"], args].concat());
    check_failure(&send(&["x"]), 2, "--to <NAME>|--capability <NAME>");
    check_failure(&send(&["--to", "bob", "--capability", "c", "x"]), 2, "cannot be used with");
    check_failure(&send(&["--to", "bob", "--strategy", "priority", "x"]), 2, "--capability <NAME>");
    check_failure(&send(&["--to", "bob", "--reply-by", "soon", "x"]), 2, "--reply-by: \"soon\"");
    check_failure(&send(&["--to", "bob", "--as-json", "{"]), 2, "CONTENT is no JSON");
    check_failure(&send(&["--to", "bo", "x"]), 3, "remedy: did you mean bob?");
    check_failure(&send(&["--to", "bob", "-p", "shout", "x"]), 5, "performative");
    check_failure(&send(&["--to", "bob", "--conversation", "none", "x"]), 3, "CONVERSATION_NOT_FOUND");
    check_failure(&with(&["conversations", "show", "none"]), 3, "CONVERSATION_NOT_FOUND");
    check_failure(&with(&["conversations", "show", "none", "--follow"]), 3, "CONVERSATION_NOT_FOUND");
    check_failure(&with(&["conversations", "list", "--cursor", "x"]), 5, "INVALID_CURSOR");
    check_failure(&with(&["capabilities", "test", "nothing"]), 3, "CAPABILITY_NOT_FOUND");
    check_failure(&with(&["deadletters", "replay", "7"]), 3, "DEAD_LETTER_NOT_FOUND");
    check_failure(&with(&["deadletters", "replay"]), 2, "--all");
    check_failure(&with(&["agents", "logs", "nobody"]), 3, "AGENT_NOT_FOUND");
    check_failure(&with(&["chat", "nobody", "--as", "ada"]), 3, "AGENT_NOT_FOUND");
    let dir = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    for command in [
        &["chat", "bob"][..],
        &["message", "send", "--from", "ada", "--to", "bob", "--wait=1", "x"],
        &["conversations", "show", "c", "--follow"],
        &["agents", "logs", "bob", "--follow"],
    ] {
        check_failure(&[command, &place].concat(), 4, "start one with `caxton serve`");
    }
}

#[test]
fn a_stopped_directory_is_asked_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    let with = |args: &[&'static str]| [args, &place].concat();
    let lost = ["message", "send", "--from", "ada", "--capability", "draw-plots", "sin(x)"];
    check(&with(&lost), &["sent to nobody", "nobody offers it", "dead letter #"]);
    let list = json(&with(&["--json", "conversations", "list"]));
    let id = list["conversations"][0]["conversation_id"].as_str().unwrap();
    check(
        &[&["conversations", "show", id][..], &place].concat(),
        &["ada → nobody  REQUEST", "system → ada  FAILURE"],
    );
    check(&with(&["deadletters", "list"]), &["no_provider", "1 dead letter"]);
    check(&with(&["capabilities", "list"]), &["0 capabilities"]);
    check(
        &with(&["agents", "logs", "ada"]),
        &["is registered", "sends REQUEST to", "gets FAILURE from system"],
    );
}

#[test]
fn who_would_get_a_message_is_explained() {
    let server = with_agents(&["bob", "eve"]);
    let url = url(&server);
    for (agent, version, priority) in [("bob", "2.1.0", 80), ("eve", "1.0.0", 50)] {
        let body =
            json!({"agent_id": agent, "capability": "plots", "version": version, "priority": priority});
        server.post("/capabilities", &body).expect(201);
    }
    let with = |args: &[&'static str]| [&["--url", &url][..], args].concat();
    check(&with(&["capabilities", "list"]), &["plots", "bob", "2.1.0", "eve", "healthy", "1 capability"]);
    check(&with(&["capabilities", "list", "--agent", "eve"]), &["1.0.0", "1 capability"]);
    let test = ["capabilities", "test", "plots", "--strategy", "priority"];
    check(
        &with(&test),
        &["would reach bob of 2 providers, by priority", "bob is first of 2", "eve", "priority 50"],
    );
    check(&with(&["capabilities", "test", "plots", "--version", "1"]), &["would reach eve of 1 provider"]);
    let explained =
        ["message", "send", "--from", "ada", "--capability", "plots", "--version", "2", "--explain", "x"];
    check(&with(&explained), &["sent to bob", "for plots by best_match: bob is first of 1", "because"]);
    assert_eq!(server.get("/agents/bob/inbox").expect(200).json()["count"], 1, "a test sends nothing");

    let event = |agent: &str| {
        let health = Health::Unhealthy;
        let event = AgentEvent::HealthChanged {
            agent: agent.parse().unwrap(),
            capability: None,
            health,
            reason: "it is gone".into(),
        };
        Draft {
            stream: "agents".into(),
            actor: "system".into(),
            correlation: None,
            causation: None,
            event: event.into(),
        }
    };
    server.engine.record(vec![event("bob"), event("eve")]).unwrap();
    check_failure(&with(&test), 1, "no provider can take a message now");
}

#[test]
fn dead_letters_are_listed_and_sent_again() {
    let server = with_agents(&["bob"]);
    let url = url(&server);
    let with = |args: &[&'static str]| [&["--url", &url][..], args].concat();
    for content in ["one", "two", "three"] {
        let body =
            json!({"performative": "REQUEST", "sender": "ada", "capability": "plots", "content": content});
        server.post("/messages", &body).expect(201);
    }
    check(
        &with(&["deadletters", "list", "-n", "2"]),
        &["no_provider", "2 dead letters", "there are more: add --cursor "],
    );
    let page = json(&with(&["--json", "deadletters", "list", "-n", "2"]));
    let second = page["dead_letters"][1]["seq"].to_string();
    check_failure(&["--url", &url, "deadletters", "replay", &second], 1, "became a dead letter again");
    check_failure(&["--url", &url, "deadletters", "replay", &second], 5, "--again");
    let cursor = page["next_cursor"].as_str().unwrap();
    check(&["--url", &url, "deadletters", "list", "-n", "2", "--cursor", cursor], &["2 dead letters\n"]);
    server.post("/capabilities", &json!({"agent_id": "bob", "capability": "plots"})).expect(201);
    let first = page["dead_letters"][0]["seq"].to_string();
    check(
        &["--url", &url, "deadletters", "replay", &first],
        &["went to bob as #", "1 dead letter sent again"],
    );
    check(&with(&["deadletters", "replay", "--all", "--reason", "expired"]), &["0 dead letters sent again"]);
    check(&with(&["deadletters", "replay", "--all"]), &["2 dead letters sent again"]);
    check(&with(&["deadletters", "list", "--pending"]), &["0 dead letters"]);
    let inbox = server.get("/agents/bob/inbox").expect(200).json();
    let contents: Vec<&str> = inbox["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].as_str().unwrap())
        .collect();
    assert_eq!(contents, ["one", "three", "two"]);
    // One of several is wrong: the others go, and the exit code says so.
    let output = run(&["--url", &url, "deadletters", "replay", "--again", &first, "999999"]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(3) && out.contains("#999999: "), "{output:?}");
    assert!(out.contains("1 dead letter sent again"), "{out}");
}

#[test]
fn conversations_are_listed_in_pages_and_shown() {
    let server = with_agents(&["bob", "eve"]);
    let url = url(&server);
    for (receiver, content) in [("bob", "one"), ("eve", "two"), ("bob", "three")] {
        let body =
            json!({"performative": "INFORM", "sender": "ada", "receiver": receiver, "content": content});
        server.post("/messages", &body).expect(201);
    }
    let page = json(&["--url", &url, "--json", "conversations", "list", "--participant", "bob", "-n", "1"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = [
        "--url",
        &url,
        "--json",
        "conversations",
        "list",
        "--participant",
        "bob",
        "-n",
        "1",
        "--cursor",
        cursor,
    ];
    let next = json(&next);
    assert_eq!((next["count"].as_u64(), &next["next_cursor"]), (Some(1), &Value::Null));
    let id = next["conversations"][0]["conversation_id"].as_str().unwrap();
    let shown = ["1 message, between ada, bob", "ada → bob  INFORM  #", "\n  one\n"];
    check(&["--url", &url, "conversations", "show", id], &shown);
    let whole = json(&["--url", &url, "--json", "conversations", "show", id]);
    assert_eq!(
        (&whole["conversation"]["status"], &whole["messages"][0]["content"]),
        (&json!("active"), &json!("one"))
    );
    server.post(&format!("/conversations/{id}/close"), &json!({})).expect(200);
    check(&["--url", &url, "conversations", "show", id], &["(completed)", "ended: completed"]);
    check(&["--url", &url, "conversations", "list", "--status", "ended"], &[id, "1 conversation"]);
}

#[test]
fn a_conversation_is_followed_to_its_end() {
    let server = with_agents(&["bob"]);
    let url = url(&server);
    let send = |conversation: &str, content: &str| {
        let body = json!({"performative": "INFORM", "sender": "ada", "receiver": "bob", "conversation_id": conversation,
            "content": content});
        server.post("/messages", &body).expect(201);
    };
    server.post("/conversations", &json!({"conversation_id": "plan", "topic": "tea"})).expect(201);
    server.post("/conversations", &json!({"conversation_id": "other"})).expect(201);
    send("plan", "before");
    let mut following = Running::start(&["--url", &url, "conversations", "show", "plan", "--follow"]);
    assert!(following.line().contains("topic: tea"));
    following.line_with("  before");
    send("other", "not shown");
    send("plan", "after");
    assert!(following.line().contains("ada → bob  INFORM"));
    assert_eq!(following.line(), "  after");
    server.post("/conversations/plan/close", &json!({})).expect(200);
    let (rest, status) = following.end();
    assert!(status.success() && rest.contains("the conversation ends: completed"), "{rest}");
    // One that has ended is shown to its end at once.
    check(
        &["--url", &url, "conversations", "show", "plan", "-f"],
        &["before", "after", "the conversation ends"],
    );

    let mut following =
        Running::start(&["--url", &url, "--json", "conversations", "show", "other", "--follow"]);
    let told: Value = serde_json::from_str(&following.line()).unwrap();
    assert_eq!(told["content"], "not shown");
    following.signal("-INT");
    assert!(following.end().1.success(), "Ctrl-C ends it in order");
}

/// What bob did with a message.
fn a_turn(turn: TurnId, asked: &Value) -> Vec<Draft> {
    let conversation = asked["conversation_id"].as_str().unwrap().parse().unwrap();
    let call = ToolCall { id: "c1".into(), tool: "memory".into(), arguments: "{}".into() };
    let started = TurnEvent::Started {
        turn,
        agent: "bob".parse().unwrap(),
        config: Seq(1),
        message: Seq(asked["seq"].as_u64().unwrap()),
        conversation,
        attempt: 1,
    };
    let answered = TurnEvent::ModelAnswered {
        turn,
        step: 1,
        provider: "extractive".into(),
        model: "quotes".into(),
        text: String::new(),
        tool_calls: vec![call],
        usage: Usage { input_tokens: 9, output_tokens: 3, estimated: false },
        cached: false,
        took_micros: 1_500,
    };
    let refused = TurnEvent::ToolRefused {
        turn,
        call: "c1".into(),
        tool: "memory".into(),
        reason: "not allowed".into(),
    };
    let failed = TurnEvent::Failed { turn, reason: "it came to nothing".into(), will_retry: false };
    let draft = |event: TurnEvent| Draft {
        stream: "x".into(),
        actor: "bob".into(),
        correlation: None,
        causation: None,
        event: Event::Turn(event),
    };
    [started, answered, refused, failed].map(draft).to_vec()
}

#[test]
fn what_an_agent_did_is_told_and_followed() {
    let server = with_agents(&["bob", "eve"]);
    let url = url(&server);
    let question =
        json!({"performative": "REQUEST", "sender": "ada", "receiver": "bob", "content": "how\nmany?"});
    let asked = server.post("/messages", &question).expect(201).json();
    let elsewhere =
        json!({"performative": "REQUEST", "sender": "ada", "receiver": "eve", "content": "not his"});
    server.post("/messages", &elsewhere).expect(201);
    server.entity("cups", "thing", &["there are three"]);
    let turn = TurnId::new(Timestamp::EPOCH, [7; 10]);
    server.engine.record(a_turn(turn, &asked)).unwrap();
    let logs = ["--url", &url, "agents", "logs", "bob"];
    let output = run(&logs);
    let out = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> =
        out.lines().map(|line| line.split_once(" #").unwrap().1.split_once(' ').unwrap().1).collect();
    let tag = &turn.to_string()[turn.to_string().len() - 6..];
    assert!(
        lines[1].starts_with("gets REQUEST from ada in conv-") && lines[1].ends_with(": how many?"),
        "{out}"
    );
    assert_eq!(lines[0], "is registered, in workspace default");
    assert_eq!(lines[2], format!("[{tag}] takes up #{}", asked["seq"]));
    let then = format!("[{tag}] extractive/quotes answered in 1.5 ms (9 + 3 tokens): wants 1 call: memory");
    assert_eq!(lines[3], then);
    assert_eq!(lines[4], format!("[{tag}] memory is refused: not allowed"));
    assert_eq!(lines[5..], [format!("[{tag}] failed: it came to nothing")]);
    check(&[&logs[..], &["-n", "1"]].concat(), &["it came to nothing"]);
    check(&[&logs[..], &["--full"]].concat(), &["how\nmany?"]);

    let mut following = Running::start(&[&logs[..], &["-n", "1", "--follow"]].concat());
    assert!(following.line().contains("it came to nothing"));
    let answer = json!({"performative": "INFORM", "sender": "bob", "receiver": "ada", "content": "three",
        "conversation_id": asked["conversation_id"], "in_reply_to": asked["message_id"]});
    server.post("/messages", &elsewhere).expect(201);
    server.post("/messages", &answer).expect(201);
    let line = following.line();
    assert!(line.contains("sends INFORM to ada") && line.ends_with(": three"), "{line}");
    following.signal("-INT");
    assert!(following.end().1.success());
}

#[test]
fn every_command_has_examples_or_says_what_it_does() {
    for (command, text) in [
        (&["message", "send"][..], "caxton message send --from ada --to bob"),
        (&["conversations", "show"], "--follow"),
        (&["capabilities", "test"], "nothing is sent"),
        (&["deadletters", "replay"], "--all --reason agent_stopped"),
        (&["agents", "logs"], "caxton agents logs librarian --follow"),
        (&["chat"], "| caxton chat librarian"),
    ] {
        check(&[command, &["--help"]].concat(), &[text]);
    }
}
