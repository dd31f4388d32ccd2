//! Replaying a log from the command line: into nothing, into projections, and into another server.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use caxton::engine::SystemClock;
use caxton_events::log::{Batch, Log, LogOptions};
use caxton_events::{Draft, SystemEvent};
use serde_json::{Value, json};

use super::cli::{check, check_failure, json, run};
use super::process;
use super::server::Server;

/// A server whose log holds something of everything, stopped.
fn recorded() -> Server {
    let mut server = Server::start();
    memory(&server);
    talk(&server);
    server.stop();
    server.engine.stop();
    server
}

fn memory(server: &Server) {
    for (name, observations) in [
        ("tea", &["a drink", "made of leaves"][..]),
        ("cup", &["holds tea"]),
        ("pot", &[]),
        ("old", &["goes away"]),
    ] {
        server.entity(name, "Thing", observations);
    }
    let rich = json!({
        "agent_id": "ada", "entity_name": "kettle", "entity_type": "Tool", "confidence": 0.25,
        "metadata": {"made_of": ["steel"]}, "valid_from": "2020-01-01T00:00:00Z",
        "observations": [{"content": "boils", "valid_from": "2021-01-01T00:00:00Z", "valid_to": "2031-01-01T00:00:00Z"}],
    });
    server.post("/memory/entities", &rich).expect(201);
    server.relation("tea", "cup", "is_in");
    server.relation("pot", "old", "replaces");
    let liked = server.relation("cup", "pot", "stands_beside");
    let liked = liked["relation_id"].as_str().unwrap();
    let change = |path: &str, body: Value| server.ask("PATCH", path).json(&body).send().expect(200).json();
    change(
        &format!("/memory/relations/{liked}?agent_id=ada"),
        json!({ "strength": 1.0, "metadata": {"why": "order"} }),
    );
    change(
        "/memory/entities/cup?agent_id=ada",
        json!({ "entity_name": "mug", "metadata": {"handle": true} }),
    );
    let added = server
        .post(
            "/memory/entities/mug/observations?agent_id=ada",
            &json!({ "observations": ["is blue", "is chipped"] }),
        )
        .expect(201)
        .json();
    let ids: Vec<&str> =
        added["observation_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    change(&format!("/memory/observations/{}?agent_id=ada", ids[0]), json!({ "content": "is green" }));
    server.delete(&format!("/memory/observations/{}?agent_id=ada", ids[1])).expect(200);
    server.delete("/memory/entities/old?agent_id=ada").expect(200);
    server.entity("old", "Other", &["came back"]);
    let shared = json!({
        "agent_id": "bob", "workspace": "lab", "memory_scope": "workspace", "entity_name": "bench",
        "entity_type": "Place", "observations": ["is shared"],
    });
    server.post("/memory/entities", &shared).expect(201);
}

fn talk(server: &Server) {
    for agent in ["ada", "bob", "eve"] {
        server.post("/agents", &json!({ "agent_id": agent }));
    }
    let offer = json!({ "agent_id": "bob", "capability": "counting", "version": "1.2.0", "priority": 70 });
    server.post("/capabilities", &offer).expect(201);
    let say = |body: Value| server.post("/messages", &body).expect(201).json();
    let asked = say(json!({
        "performative": "REQUEST", "sender": "ada", "receiver": "bob", "content": "how many cups?",
        "reply_with": "q1", "topic": "cups", "priority": "high", "reply_by": "2999-01-01T00:00:00Z",
    }));
    let conversation = asked["conversation_id"].as_str().unwrap();
    say(json!({
        "performative": "INFORM", "sender": "bob", "receiver": "ada", "content": {"cups": 3},
        "in_reply_to": "q1", "conversation_id": conversation, "language": "en",
    }));
    let named = say(json!({
        "performative": "QUERY", "sender": "eve", "receivers": ["ada", "bob"], "content": "who is there?",
        "message_id": "018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f",
    }));
    let drawn = asked["message_id"].as_str().unwrap();
    say(json!({
        "performative": "INFORM", "sender": "bob", "receiver": "ada", "content": "still three",
        "in_reply_to": drawn, "conversation_id": conversation,
    }));
    say(json!({
        "performative": "REQUEST", "sender": "eve", "capability": "counting", "content": "count them",
    }));
    say(json!({
        "performative": "REQUEST", "sender": "eve", "capability": "flying", "content": "fly",
    }));
    let opened = json!({ "topic": "later", "idle_timeout_seconds": 7_200, "agent_id": "ada" });
    let opened = server.post("/conversations", &opened).expect(201).json();
    say(json!({
        "performative": "INFORM", "sender": "ada", "receiver": "eve", "content": "at last",
        "conversation_id": opened["conversation_id"],
    }));
    server.post(&format!("/conversations/{conversation}/close"), &json!({ "agent_id": "ada" })).expect(200);
    server.post("/agents/bob/inbox/ack", &json!({ "through": named["seq"] })).expect(200);
}

/// What an agent's memory holds, without numbers and times of the server's own.
fn contents(server: &Server, who: &str) -> Vec<String> {
    let lines = server.get(&format!("/memory/export?format=jsonl&{who}")).expect(200).lines();
    let mut contents: Vec<String> = lines
        .into_iter()
        .filter(|line| line["type"] != "metadata")
        .map(|line| bare(line).to_string())
        .collect();
    contents.sort();
    contents
}

/// A value without what each server draws for itself.
fn bare(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(name, _)| {
                let drawn = name.ends_with("_id") && *name != "agent_id";
                !drawn
                    && !name.ends_with("_at")
                    && !["id", "seq", "updated_seq", "version"].contains(&name.as_str())
            })
            .map(|(name, value)| (name, bare(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(bare).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// Every message in the order of its conversation, conversations by their first message.
fn said(server: &Server) -> Vec<Vec<Value>> {
    let listed = server.get("/messages?order=oldest&limit=100").expect(200).json();
    let messages = listed["messages"].as_array().unwrap().clone();
    let mut numbers: HashMap<String, String> = HashMap::new();
    let mut conversations: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for message in messages.iter().filter(|message| message["sender"] != "system") {
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        numbers.insert(text("message_id"), message["content"].to_string());
        let answers = text("in_reply_to");
        let kept = json!([
            message["performative"],
            message["sender"],
            message["receivers"],
            message["content"],
            message["priority"],
            message["reply_with"],
            numbers.get(&answers).unwrap_or(&answers),
            message["language"],
            message["reply_by"].is_string(),
        ]);
        conversations.entry(text("conversation_id")).or_default().push(kept);
    }
    let mut conversations: Vec<_> = conversations.into_values().collect();
    conversations.sort_by_key(|messages| messages[0].to_string());
    conversations
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn a_replay_into_a_server_gives_it_the_same_memory_and_the_same_conversations() {
    let target = Server::start();
    let source = {
        let source = Server::start();
        memory(&source);
        talk(&source);
        source
    };
    let expected: Vec<Vec<String>> = ["agent_id=ada", "agent_id=bob&workspace=lab&memory_scope=workspace"]
        .map(|who| contents(&source, who))
        .into();
    let (words, waiting) = (said(&source), inboxes(&source));
    let source = stopped(source);
    let url = format!("http://{}", target.address);
    let replay = |more: &[&str]| {
        let all = ["--json", "replay", "--data-dir", path(source.dir()), "--target", &url];
        json(&[&all[..], more].concat())
    };
    let report = replay(&["--speed", "full", "--in-flight", "8"]);
    assert_eq!(report["refused"], json!({}), "{report}");
    assert_eq!((&report["unknown"], &report["unanswered"]), (&json!(0), &json!(0)), "{report}");
    assert!(report["accepted"].as_u64().unwrap() >= 25, "{report}");
    assert_eq!(report["latency"]["count"], report["sent"]);
    for (who, expected) in
        ["agent_id=ada", "agent_id=bob&workspace=lab&memory_scope=workspace"].iter().zip(expected)
    {
        assert_eq!(contents(&target, who), expected, "{who}");
    }
    assert_eq!(said(&target), words);
    assert_eq!(inboxes(&target), waiting);
    let flying = target.get("/dead-letters").expect(200).json();
    assert_eq!(flying["total"], 1, "what nobody could do then, nobody can do now");
}

fn inboxes(server: &Server) -> Vec<(String, u64)> {
    ["ada", "bob", "eve"]
        .map(|agent| {
            let inbox = server.get(&format!("/agents/{agent}/inbox")).expect(200).json();
            let of_agents = inbox["messages"].as_array().unwrap().iter();
            (agent.to_owned(), of_agents.filter(|message| message["sender"] != "system").count() as u64)
        })
        .into()
}

fn stopped(mut server: Server) -> Server {
    server.stop();
    server.engine.stop();
    server
}

#[test]
fn a_replay_into_a_directory_has_the_digest_of_the_graph_in_place() {
    let source = recorded();
    let place = ["--keyword-only", "--data-dir", path(source.dir())];
    let live = json(&[&["--json", "projection", "verify", "graph"][..], &place].concat());
    let live = &live["projections"][0];
    let fresh = tempfile::tempdir().unwrap();
    let into = fresh.path().join("projections");
    let to = live["seq"].to_string();
    let replay = |more: &[&str]| json(&[&["--json", "replay", "--to-seq", &to][..], &place, more].concat());
    let replayed = replay(&["--into", path(&into)]);
    for (part, there) in live["parts"].as_array().unwrap().iter().zip(0..) {
        let folded = &replayed["into"]["parts"][there as usize];
        assert_eq!((&folded["part"], &folded["digest"]), (&part["part"], &part["live"]));
    }
    assert_eq!(replayed["into"]["vectors"], Value::Null);
    assert_eq!((&replayed["events"], &replayed["last_seq"]), (&live["seq"], &live["seq"]));
    assert!(into.join("graph").is_dir() && into.join("talk").is_dir());
    let nothing = replay(&[]);
    assert_eq!((&nothing["kinds"], &nothing["into"]), (&replayed["kinds"], &Value::Null));
    assert_eq!(replay(&["--threads", "2"])["kinds"], nothing["kinds"]);
    let part = ["--json", "replay", "--from-seq", "3", "--to-seq", "7", "--speed", "x1000000"];
    let part = json(&[&part[..], &place].concat());
    assert_eq!((&part["events"], &part["first_seq"], &part["last_seq"]), (&json!(5), &json!(3), &json!(7)));
    assert_eq!(part["late"]["count"], 5);
    check(
        &[&["replay"][..], &place].concat(),
        &["events/s", "MB/s", "memory.entity_created", "decode a block: p50"],
    );
}

#[test]
fn what_cannot_be_replayed_is_refused_by_name() {
    let source = recorded();
    let dir = path(source.dir());
    let fails = |more: &[&str], code, says: &str| {
        check_failure(&[&["replay", "--keyword-only", "--data-dir", dir][..], more].concat(), code, says);
    };
    fails(&["--from-seq", "0"], 2, "from-seq is 0, the first event is 1");
    fails(&["--to-seq", "100000"], 2, "to-seq is #100000, the log ends at #");
    fails(&["--from-seq", "5", "--to-seq", "2"], 2, "from-seq #5 lies behind to-seq #2; exchange them");
    fails(&["--from-time", "yesterday"], 2, "--from-time: \"yesterday\" is no RFC 3339 time");
    fails(&["--from-time", "2990-01-01"], 2, "no event lies in this range");
    fails(&["--speed", "fast"], 2, "\"fast\" is no speed; write full, recorded");
    fails(
        &["--threads", "2", "--speed", "recorded"],
        2,
        "two threads are for a replay into nothing at full speed",
    );
    fails(&["--into", dir], 2, "is not empty; name an empty or a new directory");
    fails(&["--from-seq", "100000"], 2, "from-seq is #100000, the log ends at #");
    fails(&["--speed", "0"], 2, "\"0\" is no speed; write full, recorded");
    fails(&["--speed", "-2"], 2, "\"-2\" is no speed; write full, recorded");
    fails(&["--rate", "5"], 2, "--target");
    fails(&["--target", "http://127.0.0.1:9", "--rate", "0"], 2, "write a number above 0");
    fails(&["--target", "127.0.0.1:9"], 2, "is no address of a server; write http://HOST:PORT");
    fails(&["--target", "http://two words"], 2, "is no address of a server; write http://HOST:PORT");
    fails(&["--target", "http://127.0.0.1:9", "--rate", "-1"], 2, "write a number above 0");
    fails(&["--target", "http://127.0.0.1:9"], 4, "no answer from http://127.0.0.1:9");
    let fresh = tempfile::tempdir().unwrap();
    let into = fresh.path().join("new");
    fails(&["--into", path(&into), "--from-seq", "2"], 2, "a projection adds up from the first event");
    fs::write(source.dir().join("FORMAT"), "99\n").unwrap();
    fails(&[], 1, "has data format \"99\", this Caxton reads 1; use a newer Caxton");
    let salvage = ["log", "salvage", "--data-dir", dir, "--to", path(&into)];
    check_failure(&salvage, 1, "has data format \"99\"");
    check_failure(
        &["replay", "--data-dir", path(&fresh.path().join("none"))],
        3,
        "there is no data directory at",
    );
}

/// Changes every stored copy of a text in the log of a stopped directory.
fn damage(dir: &Path, text: &str) {
    let file = dir.join("events.redb");
    let mut bytes = fs::read(&file).unwrap();
    let mut hits = 0;
    while let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
        bytes[at] ^= 1;
        hits += 1;
    }
    assert!(hits > 0, "{text} stands in the log");
    fs::write(&file, bytes).unwrap();
}

#[test]
fn a_damaged_log_is_named_and_what_is_left_of_it_is_saved() {
    let source = recorded();
    let place = ["--data-dir", path(source.dir())];
    let whole = json(&[&["--json", "log", "verify", "--salvage"][..], &place].concat());
    assert_eq!(whole["lost"], json!([]));
    let head = whole["head_seq"].as_u64().unwrap();
    damage(source.dir(), "made of leaves");
    check_failure(&[&["replay"][..], &place].concat(), 1, "an event does not match its hash");
    check_failure(&[&["log", "verify"][..], &place].concat(), 1, "an event does not match its hash");
    for command in [&["log", "verify"][..], &["replay"]] {
        check_failure(&[command, &place].concat(), 1, "caxton log salvage --to DIR");
    }
    let surveyed = run(&[&["--json", "log", "verify", "--salvage"][..], &place].concat());
    assert_eq!(surveyed.status.code(), Some(1));
    let surveyed: Value = serde_json::from_slice(&surveyed.stdout).unwrap();
    let lost = &surveyed["lost"][0];
    assert_eq!((&lost["events"], &lost["kinds"]), (&json!(1), &json!(["memory.observation_added"])));
    assert_eq!(surveyed["events"].as_u64(), Some(head - 1));
    let fresh = tempfile::tempdir().unwrap();
    let to = fresh.path().join("saved");
    let salvage = [&["log", "salvage", "--to", path(&to)][..], &place].concat();
    check_failure(&salvage, 1, "the log is damaged: 1 gap above");
    let events = fs::read_to_string(to.join("events.jsonl")).unwrap();
    let seqs: Vec<u64> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs.len() as u64, head - 1);
    assert!(!seqs.contains(&lost["first_seq"].as_u64().unwrap()));
    let told: Value = serde_json::from_slice(&fs::read(to.join("salvage.json")).unwrap()).unwrap();
    assert_eq!(told["lost"], surveyed["lost"]);
    check_failure(&salvage, 2, "is not empty; name an empty or a new directory");
}

#[test]
fn a_log_whose_end_is_missing_is_saved_as_far_as_it_goes() {
    let source = recorded();
    let place = ["--data-dir", path(source.dir())];
    let head = json(&[&["--json", "log", "verify", "--salvage"][..], &place].concat())["head_seq"].clone();
    let file = fs::File::options().write(true).open(source.dir().join("events.redb")).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    check_failure(&[&["log", "verify"][..], &place].concat(), 1, "it is cut short");
    let serve = ["serve", "--keyword-only", "--port", "0", "--metrics-port", "off"];
    for command in [&serve[..], &["log", "verify"], &["status"], &["memory", "stats", "--keyword-only"]] {
        check_failure(&[command, &place].concat(), 1, "caxton log salvage --to DIR");
    }
    let surveyed = run(&[&["--json", "log", "verify", "--salvage"][..], &place].concat());
    assert_eq!(surveyed.status.code(), Some(1));
    let surveyed: Value = serde_json::from_slice(&surveyed.stdout).unwrap();
    assert_eq!((&surveyed["missing_bytes"], &surveyed["lost"]), (&json!(1), &json!([])));
    assert_eq!(surveyed["events"], head);
    let fresh = tempfile::tempdir().unwrap();
    let to = fresh.path().join("saved");
    let salvage = [&["log", "salvage", "--to", path(&to)][..], &place].concat();
    check_failure(&salvage, 1, "the log is damaged: the end of its file is missing");
    let events = fs::read_to_string(to.join("events.jsonl")).unwrap();
    assert_eq!(Some(events.lines().count() as u64), head.as_u64());
}

/// The pages of the store begin here, its header first.
const STORE: usize = 8 << 20;
const PAGE: usize = 4_096;

/// A log whose store was changed page by page, and the events it had.
fn with_pages(change: impl Fn(usize, &mut [u8])) -> (Server, u64) {
    let source = recorded();
    let head = json(&["--json", "log", "verify", "--salvage", "--data-dir", path(source.dir())]);
    let file = source.dir().join("events.redb");
    let mut bytes = fs::read(&file).unwrap();
    bytes[STORE..].chunks_mut(PAGE).enumerate().for_each(|(number, page)| change(number, page));
    fs::write(&file, bytes).unwrap();
    (source, head["head_seq"].as_u64().unwrap())
}

/// Takes away the records before the store, which have everything in a log as short as this one, too.
fn without_records(source: &Server) {
    let file = source.dir().join("events.redb");
    let mut bytes = fs::read(&file).unwrap();
    bytes[2 * PAGE..STORE].fill(0);
    fs::write(&file, bytes).unwrap();
}

#[test]
fn a_store_without_sense_is_told_in_one_sentence() {
    // A page that is neither a leaf nor a branch makes redb panic.
    let (source, _) = with_pages(|number, page| page[0] *= u8::from(number == 0));
    without_records(&source);
    for command in [&["log", "verify"][..], &["log", "verify", "--salvage"]] {
        let failed = run(&[command, &["--data-dir", path(source.dir())]].concat());
        let told = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(1), "{command:?}: {told}");
        assert!(told.contains("is damaged or no log of Caxton's"), "{command:?}: {told}");
        assert!(!told.contains("panicked"), "{command:?}: {told}");
        // Where nothing can be salvaged, nobody is sent to try it.
        assert!(!told.contains("caxton log salvage"), "{command:?}: {told}");
    }
}

#[test]
fn where_nothing_is_left_of_a_log_a_backup_is_the_remedy() {
    let fresh = tempfile::tempdir().unwrap();
    let [data, to] = ["data", "saved"].map(|name| fresh.path().join(name));
    let (verify, place) = (["log", "verify"], ["--data-dir", path(&data)]);
    half_lost(&data);
    let noise: Vec<u8> = (0..20_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (bytes, holds) in
        [(&[][..], "it is empty"), (&noise[..100], "it has 100 bytes"), (&noise, "it has 20000 bytes")]
    {
        fs::write(data.join("events.redb"), bytes).unwrap();
        for command in [&[&verify[..], &place].concat()[..], &saving(&data, &to)] {
            let failed = run(command);
            let told = String::from_utf8_lossy(&failed.stderr);
            assert_eq!(failed.status.code(), Some(1), "{command:?}: {told}");
            assert!(told.contains(holds) && told.contains("restore a backup"), "{command:?}: {told}");
            assert!(!told.contains("log salvage") && !told.contains("Database"), "{command:?}: {told}");
        }
        assert!(!to.exists());
        // No other command sends anybody to salvage it either.
        let serve = ["serve", "--keyword-only", "--port", "0", "--metrics-port", "off"];
        for command in [&serve[..], &["log", "head"], &["replay"], &["memory", "stats", "--keyword-only"]] {
            let failed = run(&[command, &place].concat());
            let told = String::from_utf8_lossy(&failed.stderr);
            assert_eq!(failed.status.code(), Some(1), "{command:?}: {told}");
            assert!(told.contains("restore") && !told.contains("log salvage"), "{command:?}: {told}");
        }
    }
}

#[test]
fn a_log_whose_header_and_branches_are_gone_is_saved_whole() {
    let (source, head) = with_pages(|number, page| {
        if number == 0 || page[0] == 2 {
            page.fill(0);
        }
    });
    without_records(&source);
    let place = ["--data-dir", path(source.dir())];
    check_failure(&[&["log", "verify"][..], &place].concat(), 1, "caxton log salvage --to DIR");
    let fresh = tempfile::tempdir().unwrap();
    let to = fresh.path().join("saved");
    let salvage = [&["log", "salvage", "--to", path(&to)][..], &place].concat();
    check_failure(&salvage, 1, "the log is damaged: the structure of its file");
    let told: Value = serde_json::from_slice(&fs::read(to.join("salvage.json")).unwrap()).unwrap();
    assert_eq!((&told["structure_damaged"], &told["lost"]), (&json!(true), &json!([])));
    let events = fs::read_to_string(to.join("events.jsonl")).unwrap();
    assert_eq!(events.lines().count() as u64, head);
}

#[test]
fn a_log_that_was_not_closed_in_order_can_be_checked_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--data-dir", path(dir.path())];
    let mut server = process::Server::start(dir.path(), &["--keyword-only"]);
    let body = json!({ "agent_id": "ada", "entity_name": "tea", "entity_type": "Drink" });
    let (status, answer) = process::post(server.base(), "/api/v1/memory/entities", &body).unwrap();
    assert_eq!(status, 201, "{answer}");
    server.kill();
    // What a server leaves that is killed would be taken for one that runs.
    fs::remove_file(dir.path().join("endpoint")).unwrap();
    let says = "then read it again, or check it as it is: caxton log verify --salvage";
    check_failure(&[&["log", "verify"][..], &place].concat(), 1, says);
    let surveyed = json(&[&["--json", "log", "verify", "--salvage"][..], &place].concat());
    assert_eq!(surveyed["lost"], json!([]));
}

/// What saves the log in `data` to `to`.
fn saving<'a>(data: &'a Path, to: &'a Path) -> [&'a str; 6] {
    ["log", "salvage", "--to", path(to), "--data-dir", path(data)]
}

/// Runs the program where no file of more than [`ROOM`] bytes can be written, as on a full disk.
fn run_without_room(args: &[&str]) -> Output {
    let limited = "trap '' XFSZ; ulimit -f 1; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, "sh", env!("CARGO_BIN_EXE_caxton")]).args(args);
    command.env_remove("CAXTON_URL").output().unwrap()
}

/// A block, as `ulimit` counts.
const ROOM: u64 = 512;

#[test]
fn a_salvage_that_finds_no_room_leaves_nothing() {
    let source = recorded();
    let fresh = tempfile::tempdir().unwrap();
    let there = fresh.path().join("there");
    fs::create_dir(&there).unwrap();
    for (to, stays) in [(fresh.path().join("new"), false), (there, true)] {
        let output = run_without_room(&saving(source.dir(), &to));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let says = format!("could not write {}", to.join("events.jsonl").display());
        assert!(told.contains(&says) && told.contains("is removed again"), "{told}");
        assert_eq!(to.exists(), stays);
        assert!(!to.join("events.jsonl").exists() && !to.join("salvage.json").exists());
    }
}

/// A log of four short events, of which the second and the fourth are damaged: more is to be said of them than is left.
fn half_lost(dir: &Path) {
    let log = Log::open(dir, LogOptions::new([7; 16]), Arc::new(SystemClock)).unwrap();
    let drafts = ["system", "remarkable", "system", "remarkable"].map(|actor| Draft {
        stream: "system".to_owned(),
        actor: actor.to_owned(),
        correlation: None,
        causation: None,
        event: SystemEvent::ServerStopped.into(),
    });
    log.append(vec![Batch::of(drafts.into())]).unwrap().remove(0).unwrap();
    log.close().unwrap();
    damage(dir, "remarkable");
}

#[test]
fn events_that_are_saved_stay_where_their_report_finds_no_room() {
    let fresh = tempfile::tempdir().unwrap();
    let [data, whole, to] = ["data", "whole", "new"].map(|name| fresh.path().join(name));
    half_lost(&data);
    // What a salvage left that was killed is written over.
    fs::create_dir(&whole).unwrap();
    fs::write(whole.join("events.jsonl.part"), "half").unwrap();
    check_failure(&saving(&data, &whole), 1, "the log is damaged: 2 gaps above");
    assert_eq!(fs::read_dir(&whole).unwrap().count(), 2);
    let events = fs::read(whole.join("events.jsonl")).unwrap();
    let report = fs::metadata(whole.join("salvage.json")).unwrap().len();
    assert!(events.len() as u64 <= ROOM && ROOM < report, "{} and {report} bytes", events.len());
    let output = run_without_room(&saving(&data, &to));
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for says in [
        format!("could not write {}", to.join("salvage.json").display()),
        format!("{} is whole", to.join("events.jsonl").display()),
        "the log is damaged: 2 gaps above".to_owned(),
    ] {
        assert!(told.contains(&says), "it should say {says:?}, but: {told}");
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("lost: #2,") && printed.contains("lost: #4,"), "{printed}");
    assert_eq!(fs::read(to.join("events.jsonl")).unwrap(), events);
    assert!(!to.join("salvage.json").exists(), "half a report");
}
