//! Agents, conversations and messages as of every record.

use serde_json::{Value, json};

use super::super::cli::{check, json as printed};
use super::super::cli_talk::url;
use super::super::messages::{offer, request, send};
use super::super::program::Program;
use super::super::server::Server;
use super::Album;

const PATHS: &[&str] = &[
    "/conversations?status=all",
    "/conversations",
    "/conversations?participant=eve",
    "/conversations/plan",
    "/conversations/plan/messages",
    "/conversations/plan/messages?limit=1",
    "/messages?order=oldest",
    "/messages?sender=ada&performative=REQUEST",
    "/agents",
    "/agents?capability=plan",
    "/agents/bob",
    "/agents/bob/logs",
];

/// A talk with everything that changes what is shown of it. `shoot` is called after each step.
fn talk(server: &Server, shoot: &mut dyn FnMut()) {
    let agent = |name: &str| server.post("/agents", &json!({"agent_id": name})).expect(201);
    agent("ada");
    shoot();
    agent("bob");
    shoot();
    offer(server, "bob", "plan", 50);
    shoot();
    server.post("/conversations", &json!({"conversation_id": "plan", "topic": "tea"})).expect(201);
    shoot();
    let mut ask = request("ada", "bob", "how many cups?");
    (ask["conversation_id"], ask["reply_with"]) = (json!("plan"), json!("q1"));
    let asked = send(server, &ask);
    shoot();
    let mut told = request("bob", "ada", "three");
    (told["performative"], told["conversation_id"], told["in_reply_to"]) =
        (json!("INFORM"), json!("plan"), json!("q1"));
    send(server, &told);
    shoot();
    server.post("/agents/bob/inbox/ack", &json!({"through": asked["seq"]})).expect(200);
    shoot();
    server.post("/agents/bob/health", &json!({"health": "degraded", "reason": "tired"})).expect(200);
    shoot();
    let extended = json!({"idle_timeout_seconds": 7_000});
    server.post("/conversations/plan/extend", &extended).expect(200);
    shoot();
    let mut more = request("eve", "bob", "and for me?");
    more["conversation_id"] = json!("plan");
    send(server, &more);
    shoot();
    server.post("/conversations/plan/close", &json!({"end": "completed"})).expect(200);
    shoot();
    server.post("/conversations/plan/archive", &json!({})).expect(200);
    shoot();
    send(server, &request("bob", "eve", "another matter"));
    shoot();
}

#[test]
fn agents_conversations_and_messages_of_the_past_are_what_was_shown_when_it_was_the_present() {
    let server = Server::start();
    let mut album = Album::new(&server, PATHS);
    talk(&server, &mut || album.shoot());
    // How many there are in all is not counted for the past: then the answer says null.
    for shot in &mut album.shots {
        for (path, (_, lines)) in PATHS.iter().zip(&mut shot.answers) {
            if path.starts_with("/messages") && lines[0]["total"].is_u64() {
                lines[0]["total"] = Value::Null;
            }
        }
    }
    album.check();
    let last = album.shots.last().unwrap().seq;
    let shown = server.get(&format!("/conversations/plan?as_of={last}")).expect(200);
    assert_eq!(shown.header("caxton-as-of"), Some(last.to_string().as_str()));
    assert_eq!(shown.json()["as_of"], json!(last));
}

#[test]
fn a_list_of_the_past_goes_on_page_by_page() {
    let server = Server::start();
    for number in 0..7 {
        server.post("/conversations", &json!({"conversation_id": format!("c{number}")})).expect(201);
    }
    let seq = server.engine.log().head().seq.0;
    server.post("/conversations/c3/close", &json!({})).expect(200);
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/conversations?status=active&limit=2&as_of={seq}{cursor}");
        let page = server.get(&path).expect(200).json();
        found.extend(
            page["conversations"].as_array().unwrap().iter().map(|row| row["conversation_id"].clone()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, (0..7).rev().map(|number| json!(format!("c{number}"))).collect::<Vec<_>>());
}

#[test]
fn the_command_line_shows_conversations_of_the_past() {
    let server = Server::start();
    let mut seqs = Vec::new();
    talk(&server, &mut || seqs.push(server.engine.log().head().seq.0.to_string()));
    let place = url(&server);
    let asked = seqs[4].as_str();
    check(
        &["conversations", "show", "plan", "--url", &place, "--as-of", asked],
        &["plan (active), 1 message", "how many cups?"],
    );
    check(
        &["conversations", "list", "--url", &place, "--as-of", asked],
        &["plan", "active", "1 conversation"],
    );
    let now = printed(&["--json", "conversations", "list", "--url", &place, "--status", "archived"]);
    assert_eq!(now["conversations"][0]["conversation_id"], "plan");
}

fn agent_file(version: &str) -> String {
    format!("---\nname: Ada\nversion: {version}\ncapabilities: [answering]\n---\nYou answer.\n")
}

#[test]
fn agents_from_files_are_shown_as_their_files_were() {
    let program = Program::start("{}");
    let get = |path: &str| program.get(path).expect(200).json();
    let head = || get("/log/head")["seq"].as_u64().unwrap();
    let before = head();
    let made = json!({"name": "Ada", "content": agent_file("1.0.0")});
    program.post("/config-agents", &made).expect(201);
    let (first, shown) = (head(), get("/config-agents/Ada"));
    let changed = json!({"content": agent_file("1.1.0")});
    program.ask("PUT", "/config-agents/Ada").json(&changed).send().expect(200);
    assert_eq!(get("/config-agents/Ada")["version"], "1.1.0");

    // The directory notes when it read a file, the log when it was told: a moment later.
    let without_times = |mut agent: Value| {
        agent["deployed_at"].take();
        agent["versions"][0]["loaded_at"].take();
        agent
    };
    let mut then = get(&format!("/config-agents/Ada?as_of={first}"));
    assert_eq!(then.as_object_mut().unwrap().remove("as_of"), Some(json!(first)));
    assert_eq!(without_times(then), without_times(shown));
    let count = |seq: u64| get(&format!("/config-agents?as_of={seq}"))["total"].clone();
    assert_eq!((count(before), count(first)), (json!(0), json!(1)));
    let place = format!("http://{}", program.address);
    let as_of = first.to_string();
    check(&["agents", "show", "Ada", "--url", &place, "--as-of", &as_of], &["1.0.0"]);
    check(&["agents", "list", "--url", &place, "--as-of", &before.to_string()], &["0 agents"]);
}
