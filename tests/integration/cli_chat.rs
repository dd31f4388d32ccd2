//! Chats from the command line, and what goes on over a server that was killed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::cli::{caxton, check_failure, json, until};
use super::cli_talk::{Running, answering, echo, url, with_agents};
use super::client::Ask;

/// A server in a process of its own, on a directory, until it is killed.
fn served(dir: &Path) -> Child {
    let place = ["--keyword-only", "--data-dir", dir.to_str().unwrap()];
    let mut server = caxton(&[&["serve", "--port", "0", "--metrics-port", "off"][..], &place].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(server.stdout.as_mut().unwrap(), "log        ");
    server
}

#[test]
fn following_and_chatting_go_on_where_they_were_after_the_server_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    let send = |to: &str, content: &str| {
        let args =
            ["--json", "message", "send", "--from", "ada", "--to", to, "--conversation", "plan", content];
        json(&[&args[..], &place].concat())
    };
    let address = || {
        let endpoint = std::fs::read_to_string(dir.path().join("endpoint")).unwrap();
        endpoint.trim().trim_start_matches("http://").parse::<SocketAddr>().unwrap()
    };
    let post = |path: &str, body: &Value| Ask::new(address(), "POST", path).json(body).send().expect(201);
    let mut server = served(dir.path());
    post("/api/v1/agents", &json!({"agent_id": "bob"}));
    post("/api/v1/conversations", &json!({"conversation_id": "plan"}));
    send("bob", "one");
    let mut following =
        Running::start(&[&["conversations", "show", "plan", "--follow"][..], &place].concat());
    let mut chatting =
        Running::start(&[&["chat", "bob", "--as", "carl", "--conversation", "plan"][..], &place].concat());
    let mut tailing = Running::start(&[&["--json", "log", "tail", "--follow"][..], &place].concat());
    tailing.line_with("\"one\"");
    following.line_with("  one");
    chatting.type_line("first");
    following.line_with("  first");
    tailing.line_with("\"first\"");
    server.kill().unwrap();
    server.wait().unwrap();
    let mut server = served(dir.path());
    send("bob", "two");
    assert_eq!(following.line_with("  two"), "  two");
    tailing.line_with("\"two\"");
    // The chat still waits for its answer, on a connection that is made anew.
    let bob = json!({"performative": "INFORM", "sender": "bob", "receiver": "carl", "conversation_id": "plan",
        "content": "first is answered"});
    post("/api/v1/messages", &bob);
    assert_eq!(chatting.line(), "bob: first is answered");
    chatting.type_line("second");
    following.line_with("  second");
    tailing.line_with("\"second\"");
    tailing.signal("-KILL");
    tailing.end();
    following.signal("-TERM");
    chatting.signal("-INT");
    let (rest, status) = following.end();
    assert!(status.success() && !rest.contains("  one") && !rest.contains("  two"), "told twice: {rest}");
    assert!(chatting.end().1.success());
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_chat_asks_line_by_line_and_goes_on_later() {
    let server = with_agents(&["bob"]);
    let (url, address) = (url(&server), server.address);
    let chat = ["--url", &url, "chat", "bob", "--as", "carl", "--performative", "query"];
    let bob = answering(address, "bob", 4, echo);
    let mut chatting = Running::start(&chat);
    for line in ["first", "", "[URGENT] {no JSON", "please fail", "last"] {
        chatting.type_line(line);
    }
    let (out, status) = chatting.end();
    assert!(status.success(), "{out}");
    let then = [
        "bob agrees: one moment",
        "bob: you said first",
        "bob agrees: one moment",
        "bob: you said [URGENT] {no JSON",
        "bob failed: cannot do that",
        "bob agrees: one moment",
        "bob: you said last",
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), then);
    bob.join().unwrap();
    let list = server.get("/conversations?participant=carl").expect(200).json();
    assert_eq!((&list["count"], &list["conversations"][0]["message_count"]), (&json!(1), &json!(11)));
    assert_eq!(
        server.get("/agents/carl/inbox").expect(200).json()["waiting"],
        0,
        "what was shown is done with"
    );
    assert_eq!(server.get("/agents/carl").expect(200).json()["kind"], "external");

    // Something comes while nobody is here; it is shown when the conversation goes on.
    let id = list["conversations"][0]["conversation_id"].as_str().unwrap();
    let late = json!({"performative": "INFORM", "sender": "bob", "receiver": "carl", "conversation_id": id,
        "content": "by the way"});
    server.post("/messages", &late).expect(201);
    let bob = answering(address, "bob", 1, echo);
    let mut chatting = Running::start(&[&chat[..], &["--conversation", id]].concat());
    assert_eq!(chatting.line(), "bob: by the way");
    chatting.type_line("again");
    let (out, status) = chatting.end();
    assert!(status.success() && out.ends_with("bob: you said again\n"), "{out}");
    bob.join().unwrap();
    assert_eq!(server.get("/conversations?participant=carl").expect(200).json()["count"], 1);
    server.post(&format!("/conversations/{id}/close"), &json!({})).expect(200);
    check_failure(&[&chat[..], &["--conversation", id]].concat(), 5, "has ended (completed)");
}

#[test]
fn a_chat_outlives_its_conversation_its_patience_and_its_agent() {
    let server = with_agents(&["bob"]);
    let (url, address) = (url(&server), server.address);
    let chat = ["--url", &url, "--json", "chat", "bob", "--as", "carl", "--timeout", "1"];
    let mut chatting = Running::start(&chat);
    chatting.type_line("nobody listens");
    let sent: Value = serde_json::from_str(&chatting.line()).unwrap();
    let id = sent["sent"]["conversation_id"].as_str().unwrap();
    let given_up: Value = serde_json::from_str(&chatting.line()).unwrap();
    assert_eq!(given_up["error"], "no answer within 1 second; it is shown when it comes");
    server.post(&format!("/conversations/{id}/close"), &json!({})).expect(200);
    chatting.type_line("go on");
    let sent: Value = serde_json::from_str(&chatting.line()).unwrap();
    let next = sent["sent"]["conversation_id"].as_str().unwrap();
    let conversation = server.get(&format!("/conversations/{next}")).expect(200).json();
    assert_eq!(conversation["parent_conversation"], id);
    // Bob comes, and takes both.
    answering(address, "bob", 1, |_| Vec::new()).join().unwrap();
    answering(address, "bob", 1, |_| vec![("REFUSE", "too late".to_owned())]).join().unwrap();
    let told = loop {
        let line: Value = serde_json::from_str(&chatting.line()).unwrap();
        if line.get("error").is_none() {
            break line;
        }
    };
    assert_eq!((&told["performative"], &told["content"]), (&json!("REFUSE"), &json!("too late")));
    chatting.signal("-INT");
    assert!(chatting.end().1.success());
}
