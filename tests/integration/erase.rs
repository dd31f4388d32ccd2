//! Erasing: what was planted is in no file afterwards, and everything else is as it was.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use caxton::engine::EngineOptions;
use caxton_events::log::{Batch, Encrypt, Filter, Log, LogOptions};
use caxton_events::{Clock, Draft, Event, Seq, Subject, SystemEvent, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{check, check_failure, run};
use super::server::Server;

fn encrypting(engine: &mut EngineOptions) {
    engine.encrypt = Encrypt::All;
}

/// Files of a directory, however deep, that hold the text in whatever case.
fn holding(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
            continue;
        }
        let bytes = fs::read(&path).unwrap().to_ascii_lowercase();
        if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[track_caller]
fn check_nowhere(dir: &Path, texts: &[&str]) {
    for text in texts {
        assert_eq!(holding(dir, text), Vec::<String>::new(), "{text}");
    }
}

/// What is written of ada, each with a word of its own.
const PLANTED: &[&str] =
    &["zqname", "zqtype", "zqnote", "zqmeta", "zqlink", "zqwhy", "zqsaid", "zqanswer", "zqtopic", "zqolder"];
/// What is written of others.
const OTHERS: &[&str] = &["bqname", "bqnote", "bqsaid"];

fn plant(server: &Server) {
    let entity = |agent: &str, name: &str, kind: &str, notes: &[&str]| {
        let body = json!({
            "agent_id": agent, "entity_name": name, "entity_type": kind, "observations": notes,
            "metadata": {"from": if agent == "ada" { "zqmeta" } else { "letters" }},
        });
        server.post("/memory/entities?wait=indexed", &body).expect(201).json()
    };
    entity("carol", "of carol", "person", &["she listens"]);
    entity("bob", "bqname", "person", &["bqnote one"]);
    let made = entity("ada", "zqname", "zqtype", &["zqnote one", "zqolder text"]);
    entity("ada", "zqname two", "zqtype", &["zqnote two"]);
    let body = json!({
        "agent_id": "ada", "from_entity": "zqname", "to_entity": "zqname two", "relation_type": "zqlink",
        "metadata": {"why": "zqwhy"},
    });
    server.post("/memory/relations", &body).expect(201);
    let notes = server
        .get(&format!("/memory/entities/{}/observations?agent_id=ada", made["entity_id"].as_str().unwrap()));
    let notes = notes.expect(200).json();
    let older = notes["observations"].as_array().unwrap().iter().find(|row| row["content"] == "zqolder text");
    let older = older.unwrap()["observation_id"].as_str().unwrap().to_owned();
    server.delete(&format!("/memory/observations/{older}?agent_id=ada")).expect(200);
    for (conversation, topic) in [("c-ada", "zqtopic"), ("c-bob", "letters"), ("c-topic", "zqtopic too")] {
        let body = json!({"conversation_id": conversation, "topic": topic});
        server.post("/conversations", &body).expect(201);
    }
    say(server, "ada", "bob", "c-ada", "zqsaid to bob");
    say(server, "bob", "ada", "c-ada", "zqanswer to ada");
    say(server, "bob", "carol", "c-bob", "bqsaid to carol");
    say(server, "ada", "carol", "c-topic", "zqsaid again");
}

fn say(server: &Server, from: &str, to: &str, conversation: &str, content: &str) {
    let body = json!({
        "performative": "INFORM", "sender": from, "receiver": to, "conversation_id": conversation, "content": content,
    });
    server.post("/messages", &body).expect(201);
}

fn erase(server: &Server, what: &Value) -> Value {
    let with = |name: &str, value: Value| {
        let mut body = what.clone();
        body[name] = value;
        body
    };
    let plan = server.post("/erase", &with("dry_run", json!(true))).expect(200).json();
    server.post("/erase", &with("confirm", plan["confirm"].clone())).expect(200).json()
}

/// What others see of the memory and of conversations.
fn seen(server: &Server) -> Value {
    let get = |path: &str| {
        let mut body = server.get(path).expect(200).json();
        for moving in ["seq", "took_micros", "took_ms", "query_time_ms"] {
            body.as_object_mut().unwrap().remove(moving);
        }
        body
    };
    json!([
        get("/memory/search?query=bqnote&agent_id=bob&mode=keyword")["results"],
        get("/memory/search?query=bqnote&agent_id=bob&mode=semantic")["results"],
        get("/memory/entities?agent_id=bob")["entities"],
        get("/conversations/c-bob/messages")["messages"],
        get("/agents/carol/inbox")["messages"],
    ])
}

#[test]
fn what_was_planted_is_in_no_file_and_others_see_what_they_saw() {
    let mut server = Server::beside(TempDir::new().unwrap(), encrypting);
    plant(&server);
    for text in PLANTED.iter().chain(OTHERS) {
        assert!(
            !holding(&server.dir().join("graph"), text).is_empty()
                || text.contains("said")
                || text.contains("answer")
                || text.contains("topic"),
            "{text}"
        );
    }
    let others = server.get("/memory/entities?agent_id=bob").expect(200).json()["entities"].clone();
    let done = erase(&server, &json!({"agent": "ada", "reason": "by request"}));
    assert_eq!(done["asked"], "agent ada");
    let named: Vec<&str> =
        done["subjects"].as_array().unwrap().iter().map(|row| row["subject"].as_str().unwrap()).collect();
    assert_eq!(named, ["agent:ada", "conversation:c-ada", "conversation:c-topic"]);
    assert_eq!(server.get("/memory/entities?agent_id=bob").expect(200).json()["entities"], others);
    assert_eq!(server.get("/memory/entities?agent_id=ada").expect(200).json()["count"], 0);
    server.get("/conversations/c-ada").problem(404, "CONVERSATION_NOT_FOUND");
    assert_eq!(server.get("/agents/bob/inbox").expect(200).json()["messages"], json!([]));
    let saw = seen(&server);
    let digest = server.engine.view().graph().digest().unwrap();
    let events = server.get("/events").expect(200).json();
    let erased: Vec<&Value> =
        events["events"].as_array().unwrap().iter().filter(|row| row["data"]["erased"] == true).collect();
    assert!(erased.iter().all(|row| row["data"]["erased_by_seq"] == done["order_seq"]), "{erased:?}");
    assert_eq!(erased.len() as u64, done["events"].as_u64().unwrap());
    let dir = server.leave();
    check_nowhere(dir.path(), PLANTED);
    // What others say is encrypted in the log, what they remember stands in the graph.
    for text in ["bqname", "bqnote"] {
        assert!(!holding(dir.path(), text).is_empty(), "{text} stays");
    }
    let place = ["log", "verify", "--data-dir", dir.path().to_str().unwrap()];
    check(&place, &[&format!("the content of {} events was erased", erased.len())]);
    // Another start, and one that folds everything anew.
    server = Server::beside(dir, encrypting);
    assert_eq!(seen(&server), saw);
    let dir = server.leave();
    for folder in ["graph", "talk", "vectors"] {
        fs::remove_dir_all(dir.path().join(folder)).unwrap();
    }
    server = Server::beside(dir, encrypting);
    let head = server.engine.log().head().seq.0;
    server.get(&format!("/memory/search?query=x&agent_id=bob&min_seq={head}")).expect(200);
    assert_eq!(seen(&server), saw);
    assert_eq!(server.engine.view().graph().digest().unwrap(), digest);
    // Numbers of memory are not given out again, and a new key begins.
    let fresh = server.entity("zqname", "zqtype", &["new"]);
    assert!(fresh["entity_id"].as_str().unwrap()[4..].parse::<u64>().unwrap() > 6, "{fresh}");
    check_nowhere(server.leave().path(), &["zqnote", "zqsaid", "zqmeta"]);
}

#[test]
fn a_plan_says_what_goes_and_only_what_was_looked_at_is_erased() {
    let server = Server::beside(TempDir::new().unwrap(), encrypting);
    plant(&server);
    server
        .post(
            "/memory/entities",
            &json!({"agent_id": "ada", "memory_scope": "global", "entity_name": "shared", "entity_type": "t"}),
        )
        .expect(201);
    let plan = server.post("/erase", &json!({"agent": "ada", "dry_run": true})).expect(200).json();
    assert_eq!(plan["stays"], json!([{"scope": "global", "facts": 1}]));
    assert_eq!(plan["quoted_in"], json!({"conversations": [], "count": 0}));
    let head = server.engine.log().head().seq;
    say(&server, "ada", "bob", "c-ada", "one more");
    let stale = json!({"agent": "ada", "confirm": plan["confirm"]});
    server.post("/erase", &stale).problem(409, "CHANGED");
    server.post("/erase", &json!({"agent": "ada"})).problem(422, "VALIDATION_ERROR");
    for body in [json!({}), json!({"agent": "ada", "scope": "global"}), json!({"scope": "team:x"})] {
        let mut body = body;
        body["dry_run"] = json!(true);
        server.post("/erase", &body).problem(422, "VALIDATION_ERROR");
    }
    for body in
        [json!({"agent": "nobody"}), json!({"conversation": "c-none"}), json!({"scope": "workspace:none"})]
    {
        let mut body = body;
        body["dry_run"] = json!(true);
        let problem = server.post("/erase", &body).problem(404, "NOTHING_TO_ERASE");
        assert!(problem["detail"].as_str().unwrap().contains("nothing was ever recorded"), "{problem}");
    }
    assert_eq!(server.engine.log().head().seq.0, head.0 + 1, "nothing was recorded but the message");
    erase(&server, &json!({"conversation": "c-ada"}));
    let again = server.post("/erase", &json!({"conversation": "c-ada", "dry_run": true}));
    let problem = again.problem(404, "NOTHING_TO_ERASE");
    assert!(problem["detail"].as_str().unwrap().contains("was erased before"), "{problem}");
    assert_eq!(server.get("/memory/entities?agent_id=ada").expect(200).json()["count"], 3);
}

#[test]
fn what_was_written_without_encryption_is_taken_out_of_the_log_too() {
    for (then, now) in
        [(Encrypt::None, Encrypt::None), (Encrypt::None, Encrypt::All), (Encrypt::All, Encrypt::None)]
    {
        let server = Server::beside(TempDir::new().unwrap(), |engine| engine.encrypt = then);
        plant(&server);
        let dir = server.leave();
        let server = Server::beside(dir, |engine| engine.encrypt = now);
        server.entity("zqlater", "t", &["zqlater too"]);
        let head = server.engine.log().head();
        erase(&server, &json!({"agent": "ada"}));
        let saw = seen(&server);
        assert_eq!(server.engine.log().head_at(head.seq.0).unwrap(), head, "no root has changed");
        assert_eq!(server.get("/memory/entities?agent_id=ada").expect(200).json()["count"], 0);
        server.entity("after", "t", &["it goes on"]);
        let again = server.post("/erase", &json!({"agent": "ada", "dry_run": true})).expect(200).json();
        assert_eq!(again["events"], 2);
        let dir = server.leave();
        check_nowhere(dir.path(), PLANTED);
        check_nowhere(dir.path(), &["zqlater"]);
        for text in OTHERS.iter().filter(|_| now == Encrypt::None && then == Encrypt::None) {
            assert!(!holding(dir.path(), text).is_empty(), "{text} stays");
        }
        check(&["log", "verify", "--data-dir", dir.path().to_str().unwrap()], &["events was erased"]);
        for folder in ["graph", "talk", "vectors"] {
            fs::remove_dir_all(dir.path().join(folder)).unwrap();
        }
        let server = Server::beside(dir, |engine| engine.encrypt = now);
        let head = server.engine.log().head().seq.0;
        server.get(&format!("/memory/search?query=x&agent_id=bob&min_seq={head}")).expect(200);
        assert_eq!(seen(&server), saw);
    }
}

#[test]
fn a_request_that_says_what_is_not_read_or_not_who_asks_erases_nothing() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let plan = server.post("/erase", &json!({"agent": "ada", "dry_run": true})).expect(200).json();
    let body = json!({"agent": "ada", "confirm": plan["confirm"]});
    server.post("/erase?dry_run=true", &body).problem(422, "VALIDATION_ERROR");
    let as_agent =
        |name: &str| server.ask("POST", "/erase").header("X-Caxton-Agent", name).json(&body).send();
    assert_eq!(as_agent("no name").problem(422, "VALIDATION_ERROR")["field"], "x-caxton-agent");
    assert_eq!(server.get("/memory/entities?agent_id=ada").expect(200).json()["count"], 1);
    as_agent("ops").expect(200);
    assert_eq!(server.get("/memory/entities?agent_id=ada").expect(200).json()["count"], 0);
}

struct Late;

impl Clock for Late {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(4_000_000_000_000_000)
    }
}

#[test]
fn an_erasure_that_was_cut_short_is_completed_by_the_next_start() {
    let server = Server::beside(TempDir::new().unwrap(), encrypting);
    plant(&server);
    let dir = server.leave();
    // As after a kill between the order and everything that follows it.
    let keys = fs::read(dir.path().join("erasure.keys")).unwrap();
    let subjects: Vec<Subject> = vec!["agent:ada".parse().unwrap(), "conversation:c-ada".parse().unwrap()];
    let keys = keys[128..].chunks(128).filter(|place| {
        subjects
            .iter()
            .any(|subject| blake3::hash(subject.to_string().as_bytes()).as_bytes()[..] == place[48..80])
    });
    let keys: Vec<u64> = keys.map(|place| u64::from_le_bytes(place[8..16].try_into().unwrap())).collect();
    assert_eq!(keys.len(), 2);
    let log = Log::open(dir.path(), LogOptions::new([0; 16]), Arc::new(Late)).unwrap();
    let order = SystemEvent::ErasureOrdered {
        subjects,
        asked: "agent ada".to_owned(),
        keys,
        events: 9,
        next_memory_id: 100,
        reason: None,
        by: "system".to_owned(),
    };
    let draft = Draft {
        stream: "system".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: order.into(),
    };
    let order = log.append(vec![Batch::of(vec![draft])]).unwrap().remove(0).unwrap().first;
    log.close().unwrap();
    assert!(!holding(dir.path(), "zqnote").is_empty());
    let server = Server::beside(dir, encrypting);
    let ends = server.engine.log().scan(order, &Filter::default()).map(Result::unwrap);
    let ends: Vec<Seq> = ends
        .filter_map(|record| {
            if let Event::System(SystemEvent::Erased { order, .. }) = record.event {
                Some(order)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(ends, [order]);
    server.get("/conversations/c-ada").problem(404, "CONVERSATION_NOT_FOUND");
    assert_eq!(server.get("/memory/entities?agent_id=ada").expect(200).json()["count"], 0);
    assert!(server.get("/conversations/c-bob").expect(200).json()["conversation_id"] == "c-bob");
    check_nowhere(server.leave().path(), &["zqname", "zqnote", "zqanswer", "zqmeta", "zqolder"]);
}

#[test]
fn an_answer_that_is_kept_for_a_key_quotes_nothing_of_what_was_erased() {
    let server = Server::beside(TempDir::new().unwrap(), encrypting);
    server.entity("zqname", "zqtype", &["zqnote"]);
    let entity = |name: &str| json!({"entity_name": name, "entity_type": "person", "observations": []});
    let items = [entity("taken"), entity("zqname")];
    let body = json!({"agent_id": "ada", "atomic": false, "entities": items});
    let ask = || {
        let ask = server.ask("POST", "/memory/entities/batch").header("Idempotency-Key", "k-1");
        ask.json(&body).send().expect(207).json()["results"].clone()
    };
    let refused = ask();
    assert!(refused[1]["message"].as_str().unwrap().contains("zqtype"), "{refused}");
    erase(&server, &json!({"agent": "ada"}));
    let again = ask();
    let message = again[1]["message"].as_str().unwrap();
    assert_eq!(message, "\"…\" exists in agent:ada with type \"…\", not \"…\"");
    for member in ["http_status", "code", "field", "remedy"] {
        assert_eq!(again[1][member], refused[1][member]);
    }
    check_nowhere(server.leave().path(), &["zqname", "zqtype", "zqnote"]);
}

#[test]
fn a_graph_that_is_folded_anew_counts_what_went_with_an_erased_scope_as_the_one_before() {
    let server = Server::beside(TempDir::new().unwrap(), encrypting);
    for name in ["shared", "other"] {
        let body = json!({
            "agent_id": "ada", "workspace": "lab", "memory_scope": "workspace", "entity_name": name,
            "entity_type": "thing",
        });
        server.post("/memory/entities", &body).expect(201);
    }
    let body = json!({
        "agent_id": "ada", "workspace": "lab", "from_entity": "shared", "to_entity": "other",
        "relation_type": "near",
    });
    server.post("/memory/relations", &body).expect(201);
    // The relation is of another scope than the entity that it goes with.
    server.delete("/memory/entities/shared?agent_id=bob&workspace=lab&memory_scope=workspace").expect(200);
    erase(&server, &json!({"scope": "workspace:lab"}));
    let digest = server.engine.view().graph().digest().unwrap();
    let dir = server.leave();
    fs::remove_dir_all(dir.path().join("graph")).unwrap();
    let server = Server::beside(dir, encrypting);
    let head = server.engine.log().head().seq.0;
    server.get(&format!("/memory/search?query=x&agent_id=bob&min_seq={head}")).expect(200);
    assert_eq!(server.engine.view().graph().digest().unwrap(), digest);
}

#[test]
fn a_receipt_holds_as_it_was_signed_and_not_otherwise() {
    let server = Server::beside(TempDir::new().unwrap(), encrypting);
    plant(&server);
    let done = erase(&server, &json!({"scope": "agent:ada", "reason": "left\nthe project"}));
    let receipt = done["receipt"].as_str().unwrap();
    let key = server.get("/log/head").expect(200).json()["public_key"].as_str().unwrap().to_owned();
    let dir = server.leave();
    let file = dir.path().join("receipt.txt");
    let path = file.to_str().unwrap();
    fs::write(&file, receipt).unwrap();
    check(
        &["erase", "check-receipt", path, "--public-key", &key],
        &["asked scope agent:ada", "keys 1", "this is what was signed"],
    );
    for (from, to) in [("agent:ada", "agent:bob"), ("keys 1", "keys 2"), ("ordered", "Ordered")] {
        fs::write(&file, receipt.replacen(from, to, 1)).unwrap();
        check_failure(&["erase", "check-receipt", path], 1, "the receipt is not what was signed");
    }
    fs::write(&file, "nothing").unwrap();
    check_failure(&["erase", "check-receipt", path], 1, "this is no receipt of an erasure");
}

#[test]
fn a_stopped_directory_is_erased_by_the_command_line() {
    let config = TempDir::new().unwrap();
    let file = config.path().join("caxton.yaml");
    fs::write(&file, "privacy: {encrypt: agents}\n").unwrap();
    let data = config.path().join("data");
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    let place = ["--data-dir", data, "--config", file, "--keyword-only", "--no-progress"];
    let with = |args: &[&'static str]| [args, &place[..]].concat();
    check(&with(&["memory", "add", "zqname", "zqnote here", "--agent", "ada"]), &[]);
    check(
        &with(&["erase", "--agent", "ada", "--dry-run"]),
        &["agent:ada", "agent ada: 2 events of 1 subject"],
    );
    check_failure(&with(&["erase", "--agent", "ada"]), 2, "nothing was erased yet");
    check_failure(
        &with(&["erase", "--agent", "eve", "--yes"]),
        3,
        "nothing was ever recorded of the agent eve",
    );
    // A receipt is made once: that it has no place is told before anything is erased.
    let receipt = config.path().join("receipt.txt");
    fs::write(&receipt, "kept").unwrap();
    let path = receipt.to_str().unwrap();
    let into = [&["erase", "--agent", "ada", "--yes", "--out", path][..], &place].concat();
    check_failure(&into, 2, "receipt.txt is there already; name another place, or replace it with --force");
    let nowhere = with(&["erase", "--agent", "ada", "--yes", "--out", "/nowhere/receipt.txt"]);
    check_failure(&nowhere, 3, "there is no folder /nowhere for the receipt");
    assert_eq!(fs::read(&receipt).unwrap(), b"kept");
    check(&with(&["erase", "--agent", "ada", "--dry-run"]), &["agent ada: 2 events of 1 subject"]);
    check(&[&into[..], &["--force"]].concat(), &["erased: ordered at", "wrote the receipt to"]);
    assert!(fs::read_to_string(&receipt).unwrap().contains("caxton/erasure/"));
    // Where it cannot be written after all, it is printed.
    check(&with(&["memory", "add", "bqname", "bqnote here", "--agent", "bob"]), &[]);
    let output = run(&with(&["erase", "--agent", "bob", "--yes", "--out", "/dev/full"]));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert!(out.contains("caxton/erasure/") && err.contains("it is erased all the same"), "{out}{err}");
    check_nowhere(config.path().join("data").as_path(), &["zqname", "zqnote"]);
    check_failure(&with(&["erase", "--agent", "ada", "--yes"]), 3, "was erased before");
    check(&with(&["log", "tail", "-n", "40"]), &["erased=true"]);
    fs::remove_file(config.path().join("data/erasure.keys")).unwrap();
    check_failure(&with(&["memory", "stats"]), 1, "erasure.keys is missing");
}

#[test]
fn a_moment_before_an_erasure_says_that_something_is_gone_and_audits_show_the_places() {
    let server = Server::beside(TempDir::new().unwrap(), encrypting);
    plant(&server);
    let then = server.engine.log().head().seq.0;
    let entities = server.get("/memory/entities?agent_id=ada").expect(200).json();
    let gone = entities["entities"][0]["entity_id"].as_str().unwrap().to_owned();
    let before = server.get(&format!("/memory/entities/{gone}?agent_id=ada&as_of={then}")).expect(200);
    assert_eq!(before.header("caxton-erased-since"), None);
    let order = erase(&server, &json!({"agent": "ada"}))["order_seq"].as_u64().unwrap();
    let told = |path: &str, since: Option<u64>| {
        let reply = server.get(path).expect(200);
        let header = reply.header("caxton-erased-since").map(|seq| seq.parse::<u64>().unwrap());
        assert_eq!(header, since, "{path}");
        reply.json()
    };
    for path in [
        "/memory/entities?agent_id=bob",
        "/memory/stats?agent_id=bob",
        "/memory/export?agent_id=bob",
        "/agents",
    ] {
        let sign = if path.contains('?') { '&' } else { '?' };
        told(&format!("{path}{sign}as_of={then}"), Some(order));
        told(&format!("{path}{sign}as_of={order}"), None);
    }
    told(&format!("/memory/diff?agent_id=bob&from={then}"), Some(order));
    let search = format!("/memory/search?query=bqnote&agent_id=bob&mode=keyword&as_of={then}");
    let intervened = &told(&search, Some(order))["intervened"];
    assert_eq!(intervened[0]["what"], "system.erasure_ordered");
    assert_eq!(intervened[0]["seq"], order);
    for path in [
        format!("/memory/entities/{gone}?agent_id=ada"),
        "/conversations/c-ada?".to_owned(),
        "/conversations/c-ada/messages?".to_owned(),
    ] {
        let problem = server.get(&format!("{path}&as_of={then}"));
        assert_eq!(problem.status, 404);
        assert_eq!(problem.json()["details"]["erased_since_seq"], order, "{path}");
        assert_eq!(problem.header("caxton-erased-since"), Some(order.to_string().as_str()), "{path}");
    }
    let audit = server.get("/audit?conversation_id=c-ada").expect(200).json();
    assert_eq!(audit["events"], json!([]), "the conversation is not named by what is left");
    let audit = server.get("/audit?stream=c-ada").expect(200).json();
    let rows = audit["events"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        assert_eq!(row["data"]["erased_by_seq"], order, "{row}");
        let why = server.get(&format!("/audit/why/{}", row["seq"])).expect(200).json();
        assert_eq!(why["because"][0]["event"]["data"]["erased"], true, "{why}");
    }
    assert_eq!(audit["gaps"], json!([]));
}

#[test]
fn the_past_of_conversations_that_was_asked_for_before_is_without_what_was_erased() {
    let server = Server::beside(TempDir::new().unwrap(), |_| ());
    plant(&server);
    let then = server.engine.log().head().seq.0;
    let listed = |as_of: u64| -> Vec<String> {
        let page = server.get(&format!("/conversations?as_of={as_of}")).expect(200).json();
        let ids = page["conversations"].as_array().unwrap().iter().map(|row| &row["conversation_id"]);
        ids.map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    assert!(listed(then).contains(&"c-ada".to_owned()));
    let erased = erase(&server, &json!({"conversation": "c-ada"}))["erased_seq"].as_u64().unwrap();
    for as_of in [then, erased] {
        let ids = listed(as_of);
        assert!(ids.contains(&"c-bob".to_owned()) && !ids.contains(&"c-ada".to_owned()), "{as_of}: {ids:?}");
    }
}

#[test]
fn forks_and_restored_logs_of_a_time_before_an_erasure_are_whole_without_what_was_erased() {
    for encrypt in [Encrypt::All, Encrypt::None] {
        let server = Server::beside(TempDir::new().unwrap(), |engine| engine.encrypt = encrypt);
        plant(&server);
        let then = server.engine.log().head().seq.0.to_string();
        erase(&server, &json!({"agent": "ada"}));
        let events = server.get("/events?limit=1000").expect(200).json();
        let is_erased = |row: &&Value| row["data"]["erased"] == true;
        let erased = events["events"].as_array().unwrap().iter().filter(is_erased).count();
        let dir = server.leave();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (data, backup) = (dir.path().to_str().unwrap().to_owned(), TempDir::new().unwrap());
        let backup = backup.path().join("b").to_str().unwrap().to_owned();
        let others = TempDir::new().unwrap();
        let other = |name: &str| others.path().join(name).to_str().unwrap().to_owned();
        check(&["--keyword-only", "--data-dir", &data, "backup", "--to", &backup], &["verified"]);
        check(&["--data-dir", &data, "log", "fork", "--at", &then, "--to", &other("fork")], &[]);
        let (restored, keys) = (other("restored"), path("erasure.keys"));
        let restore = ["restore", "--from", &backup, "--to", &restored, "--to-seq", &then];
        if encrypt == Encrypt::All {
            check(&restore, &["is in no backup"]);
            let place = ["--keyword-only", "--data-dir", &restored];
            check_failure(&[&["memory", "stats"], &place[..]].concat(), 1, "erasure.keys is missing");
            check_failure(
                &[&restore[..], &["--force", "--keys", &path("signing.key")]].concat(),
                1,
                "does not begin as a file of keys does",
            );
            check(&[&restore[..], &["--force", "--keys", &keys]].concat(), &["every hash fits"]);
        } else {
            check(&restore, &["every hash fits"]);
        }
        for copy in [other("fork"), restored] {
            let place = ["--keyword-only", "--data-dir", &copy];
            check(
                &[&["log", "verify"], &place[..]].concat(),
                &[&format!("the content of {erased} events was erased")],
            );
            check(&[&["memory", "search", "bqnote", "--agent", "bob"], &place[..]].concat(), &["bqname"]);
            check(&[&["memory", "search", "zqnote", "--agent", "ada"], &place[..]].concat(), &["0 hits"]);
            check(&[&["projection", "verify"], &place[..]].concat(), &["graph at", "talk at"]);
            check_nowhere(Path::new(&copy), PLANTED);
        }
    }
}
