//! The audit trail over REST and the command line: questions, pages, formats, bad input, damage.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use caxton::api::rest::{ApiKeys, RestOptions};
use caxton::engine::SystemClock;
use caxton_events::log::{Log, LogOptions};
use serde_json::{Value, json};

use super::cli::{check, check_failure, json as printed, run};
use super::server::Server;

/// A server where two agents wrote and talked.
fn talkative() -> Server {
    let server = Server::start();
    for n in 0..20 {
        server.entity(&format!("thing {n}"), "Thing", &["one", "two"]);
    }
    let bob =
        json!({"agent_id": "bob", "entity_name": "bolt", "entity_type": "Thing", "observations": ["x"]});
    server.post("/memory/entities", &bob).expect(201);
    for name in ["conv-0", "conv-1"] {
        let opened = json!({"conversation_id": name});
        server.post("/conversations", &opened).expect(201);
    }
    for n in 0..5 {
        let message = json!({
            "performative": "INFORM", "sender": "bob", "receiver": "ada", "content": format!("word {n}"),
            "conversation_id": format!("conv-{}", n % 2),
        });
        server.post("/messages", &message).expect(201);
    }
    server
}

fn seqs(answer: &Value) -> Vec<u64> {
    answer["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect()
}

/// Events that `wanted` says yes to, by their positions.
fn those(server: &Server, wanted: impl Fn(&Value) -> bool) -> Vec<u64> {
    let all = server.get("/audit?limit=all").expect(200).json();
    let events = all["events"].as_array().unwrap();
    events.iter().filter(|event| wanted(event)).map(|event| event["seq"].as_u64().unwrap()).collect()
}

type Wanted<'a> = Box<dyn Fn(&Value) -> bool + 'a>;

/// Conditions, and the events they keep, by what these say. `message` is a message of bob's in the middle.
fn cases(message: &Value) -> Vec<(String, Wanted<'_>)> {
    let text = |name: &str| message[name].as_str().unwrap();
    let (id, at) = (&message["data"]["message_id"], text("recorded_at"));
    let correlation = text("correlation_id");
    let of = |name: &'static str, value: &'static str| move |event: &Value| event[name] == value;
    let names_ada = |event: &Value| event["data"].to_string().contains("\"ada\"");
    vec![
        ("actor=bob".to_owned(), Box::new(of("actor", "bob"))),
        (
            "agent_id=ada".to_owned(),
            Box::new(move |event| {
                event["actor"] == "ada" || event["stream"] == "agent:ada" || names_ada(event)
            }),
        ),
        (
            "conversation_id=conv-1".to_owned(),
            Box::new(|event| event["data"]["conversation_id"] == "conv-1" || event["stream"] == "conv-1"),
        ),
        ("entity_id=ent_1".to_owned(), Box::new(|event| event["data"]["entity_id"] == "ent_1")),
        (
            format!("message_id={}", id.as_str().unwrap()),
            Box::new(move |event| event["data"]["message_id"] == *id),
        ),
        ("kinds=memory.entity_created".to_owned(), Box::new(of("kind", "memory.entity_created"))),
        (
            "kinds=memory.,system.".to_owned(),
            Box::new(|event| {
                let kind = event["kind"].as_str().unwrap();
                kind.starts_with("memory.") || kind.starts_with("system.")
            }),
        ),
        (
            format!("correlation_id={correlation}"),
            Box::new(move |event| event["correlation_id"] == correlation),
        ),
        ("stream=agent:bob".to_owned(), Box::new(of("stream", "agent:bob"))),
        ("scope=agent:bob".to_owned(), Box::new(of("stream", "agent:bob"))),
        (
            "from_seq=5&to_seq=9".to_owned(),
            Box::new(|event| (5..=9).contains(&event["seq"].as_u64().unwrap())),
        ),
        (format!("since={at}"), Box::new(move |event| event["recorded_at"].as_str().unwrap() >= at)),
        (
            format!("until={at}&actor=ada"),
            Box::new(move |event| event["recorded_at"].as_str().unwrap() < at && event["actor"] == "ada"),
        ),
        ("entity_id=ent_999".to_owned(), Box::new(|_| false)),
        ("from_seq=99999".to_owned(), Box::new(|_| false)),
    ]
}

#[test]
fn every_filter_keeps_what_it_names_and_all_of_it() {
    let server = talkative();
    let events = server.get("/events?limit=1000").expect(200).json();
    let all = server.get("/audit?limit=all").expect(200).json();
    assert_eq!(all["events"], events["events"], "the events as they are listed");
    let message = those(&server, |event| event["kind"] == "conversation.message_sent")[2];
    for (query, wanted) in cases(&events["events"][message as usize - 1]) {
        let mut then = those(&server, wanted);
        let answer = server.get(&format!("/audit?limit=1000&{query}")).expect(200).json();
        assert_eq!(seqs(&answer), then, "{query}");
        assert_eq!(answer["count"], then.len(), "{query}");
        assert!(query.ends_with("99") || !then.is_empty(), "{query} shows nothing");
        then.reverse();
        let newest = server.get(&format!("/audit?limit=all&order=newest&{query}")).expect(200).json();
        assert_eq!(seqs(&newest), then, "{query}, the newest first");
        let blocks = newest["blocks_read"].as_u64().unwrap() + newest["blocks_skipped"].as_u64().unwrap();
        assert!(blocks > 0, "{newest}");
    }
}

#[test]
fn pages_add_up_to_the_whole_in_both_directions() {
    let server = talkative();
    for order in ["oldest", "newest", "Newest"] {
        let query = format!("/audit?agent_id=ada&order={order}");
        let whole = seqs(&server.get(&format!("{query}&limit=all")).expect(200).json());
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("{query}&limit=7{cursor}")).expect(200);
            let answer = page.json();
            found.extend(seqs(&answer));
            let Some(next) = answer["next_cursor"].as_str() else { break };
            assert_eq!(page.header("caxton-next-cursor"), Some(next));
            assert_eq!(answer["count"], 7);
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, whole, "{order}");
    }
}

#[test]
fn every_format_says_the_same_and_what_it_took() {
    let server = talkative();
    let events = server.get("/audit?actor=bob&limit=all").expect(200).json();
    let count = events["events"].as_array().unwrap().len();
    for limit in ["limit=all", "limit=1000"] {
        let lines = server.get(&format!("/audit?actor=bob&format=jsonl&{limit}")).expect(200);
        assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
        let mut lines = lines.lines();
        let summary = lines.pop().unwrap()["summary"].clone();
        assert_eq!((json!(lines), &summary["count"]), (events["events"].clone(), &json!(count)), "{limit}");
        assert_eq!(summary["head_seq"], events["head_seq"]);

        let csv = server.ask("GET", &format!("/audit?actor=bob&{limit}")).header("Accept", "text/csv").send();
        let csv = csv.expect(200);
        assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
        let text = String::from_utf8(csv.body.clone()).unwrap();
        assert!(
            text.starts_with("seq,id,recorded_at,kind,stream,actor,correlation_id,causation_seq,data\r\n")
        );
        // No field of these events holds a line end.
        assert_eq!(text.lines().count(), count + 1, "{text}");

        let batch = server.get(&format!("/audit?actor=bob&format=cloudevents&{limit}")).expect(200);
        assert_eq!(batch.header("content-type"), Some("application/cloudevents-batch+json"));
        let alone = server.get(&format!("/audit?actor=bob&format=cloudevents-jsonl&{limit}")).expect(200);
        assert_eq!(batch.json(), json!(alone.lines()));
        for (event, line) in batch.json().as_array().unwrap().iter().zip(&lines) {
            assert_eq!(event["type"], format!("caxton.{}", line["kind"].as_str().unwrap()));
            assert_eq!((&event["data"], &event["time"]), (&line["data"], &line["recorded_at"]));
        }
        if limit == "limit=1000" {
            for reply in [&csv, &batch] {
                assert_eq!(reply.header("caxton-audit-count"), Some(count.to_string().as_str()));
                assert!(reply.header("caxton-audit-blocks-read").is_some());
            }
        }
    }
}

#[test]
fn a_whole_answer_tells_its_figures_behind_it_to_who_listens() {
    let server = talkative();
    let ask = server.ask("GET", "/audit?limit=all&format=csv").header("TE", "trailers");
    let mut stream = super::client::connect(server.address);
    std::io::Write::write_all(&mut stream, &ask.bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let head = server.engine.log().head().seq.0;
    assert!(text.contains("\r\ntrailer: caxton-audit-count, "), "{text}");
    assert!(
        text.ends_with("\r\n\r\n") && text.contains(&format!("\r\ncaxton-audit-count: {head}\r\n")),
        "{text}"
    );
}

#[test]
fn what_cannot_be_asked_is_refused_with_a_remedy() {
    let server = Server::start();
    for (query, field, says) in [
        ("kinds=memory.entity_creatd", "kinds", "did you mean \\\"memory.entity_created\\\"?"),
        ("since=yesterday", "since", "2026-11-23T14:05:00Z"),
        ("since=2026-01-02&until=2026-01-01", "until", "is not after since"),
        ("from_seq=x", "from_seq", "a whole number from 1 up"),
        ("from_seq=9&to_seq=3", "to_seq", "lies before from_seq (9)"),
        ("format=xml", "format", "json, jsonl, csv, cloudevents, cloudevents-jsonl"),
        ("entity_id=17", "entity_id", "ent_ID"),
        ("message_id=17", "message_id", "is no UUID"),
        ("agent_id=a%20b", "agent_id", "use letters"),
        ("order=up", "order", "use one of: oldest, newest"),
        ("order=latest", "order", "did you mean \\\"newest\\\"?"),
        ("limit=0", "limit", "whole number"),
        ("limit=none", "limit", "whole number"),
        ("actr=ada", "actr", "did you mean \\\"actor\\\"?"),
        ("scope=team", "scope", "agent:NAME"),
    ] {
        let problem = server.get(&format!("/audit?{query}")).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        assert!(problem.to_string().contains(says), "{query}: {problem}");
    }
    server.get("/audit?cursor=broken").problem(400, "INVALID_CURSOR");
    let other = server.get("/audit?limit=1").expect(200).json();
    let cursor = other["next_cursor"].as_str().unwrap();
    server.get(&format!("/audit?limit=1&actor=ada&cursor={cursor}")).problem(400, "INVALID_CURSOR");
    server.ask("GET", "/audit").header("Accept", "text/html").send().problem(406, "NOT_ACCEPTABLE");
    for (what, status, code) in [
        ("obs_999", 404, "EVENT_NOT_FOUND"),
        ("999", 404, "EVENT_NOT_FOUND"),
        ("018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f", 404, "EVENT_NOT_FOUND"),
        ("turn_018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f", 404, "EVENT_NOT_FOUND"),
        ("ada", 422, "VALIDATION_ERROR"),
        ("1?depth=99", 422, "VALIDATION_ERROR"),
    ] {
        server.get(&format!("/audit/why/{what}")).problem(status, code);
    }
}

#[test]
fn the_command_line_asks_a_server_and_a_stopped_log_alike() {
    let server = talkative();
    let dir = tempfile::tempdir().unwrap();
    let at = ["--data-dir", dir.path().to_str().unwrap()];
    for name in ["gnuplot", "plotutils"] {
        check(&[&["memory", "add", name, "Draws plots", "--keyword-only"][..], &at].concat(), &["created"]);
    }
    let url = format!("http://{}", server.address);
    for place in [["--url", &url], at] {
        let with = |args: &[&'static str]| [&["audit"], args, &place].concat();
        let found =
            printed(&[&["--json"], &with(&["query", "--entity", "ent_1", "--kind", "memory."])[..]].concat());
        assert_eq!(found["events"][0]["kind"], "memory.entity_created", "{found}");
        check(&with(&["query", "--last", "1h", "--newest", "-n", "2"]), &["#"]);
        check(
            &with(&["query", "--last", "1h", "--all", "--format", "csv"]),
            &["seq,id,", ",memory.entity_created,"],
        );
        let shown = run(&with(&["query", "-n", "1"]));
        let told = String::from_utf8_lossy(&shown.stderr).into_owned();
        assert!(told.starts_with("1 event; 1 of ") && told.contains("add --all"), "{told}");
        let file = dir.path().join("out.json");
        fs::write(&file, "kept").unwrap();
        let out = ["--all", "--format", "cloudevents", "-o", file.to_str().unwrap()];
        let query = [&with(&["query"])[..], &out].concat();
        check_failure(&query, 2, "out.json is there already; name another place, or replace it with --force");
        assert_eq!(fs::read(&file).unwrap(), b"kept");
        check(&[&query[..], &["--force"]].concat(), &[]);
        let batch: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        assert_eq!(batch[0]["id"], "1");
        assert!(batch[0]["source"].as_str().unwrap().starts_with("caxton/log/"), "{batch}");
        check(&with(&["why", "obs_2"]), &["why obs_2", "└─ is #", "memory.observation_added"]);
        check_failure(
            &with(&["query", "--kind", "entity_creatd"]),
            2,
            "did you mean \"memory.entity_created\"?",
        );
        check_failure(&with(&["query", "--since", "then"]), 2, "since \"then\"");
        check_failure(&with(&["query", "--last", "soon"]), 2, "write 24h, 30m or 7d");
        check_failure(&with(&["query", "--from", "9", "--to", "3"]), 2, "--to \"3\" lies before --from (9)");
        check_failure(&with(&["query", "--format", "xml"]), 2, "possible values");
        check_failure(&with(&["why", "obs_999"]), 3, "the log has no obs_999");
    }
    check_failure(&["audit", "query", "--data-dir", "/nonexistent/caxton"], 3, "/nonexistent/caxton");
}

#[test]
fn a_question_that_is_not_answered_leaves_the_file_as_it_was() {
    let keys = ApiKeys::new(|key| (key == "cax_live_right").then(|| "ops".to_owned()));
    let server = Server::with(RestOptions { api_keys: Some(keys), ..RestOptions::default() });
    let url = format!("http://{}", server.address);
    let place = tempfile::tempdir().unwrap();
    let [locked, cut] = ["locked", "cut"].map(|name| place.path().join(name));
    let _held = Log::open(&locked, LogOptions::new([7; 16]), Arc::new(SystemClock)).unwrap();
    let [locked, cut] = [&locked, &cut].map(|dir| dir.to_str().unwrap());
    check(&["memory", "add", "tea", "a drink", "--keyword-only", "--data-dir", cut], &["created"]);
    let log = fs::File::options().write(true).open(Path::new(cut).join("events.redb")).unwrap();
    log.set_len(log.metadata().unwrap().len() - 1).unwrap();
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("out.csv");
    let query = ["audit", "query", "--all", "--format", "csv", "-o", file.to_str().unwrap()];
    for (from, code, says) in [
        (["--url", &url], 5, "UNAUTHORIZED"),
        (["--data-dir", locked], 4, "is in use by process"),
        (["--data-dir", cut], 1, "it is cut short"),
    ] {
        // The second time it is no other failure: nothing is in the way.
        for _ in 0..2 {
            check_failure(&[&query[..], &from].concat(), code, says);
            assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "{says}");
        }
        fs::write(&file, "kept").unwrap();
        check_failure(&[&query[..], &["--force"], &from].concat(), code, says);
        assert_eq!(fs::read(&file).unwrap(), b"kept", "{says}");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1, "{says}");
        fs::remove_file(&file).unwrap();
    }
}

/// Flips a bit wherever the log's file holds this text.
fn damage(dir: &Path, text: &str) {
    let file = dir.join("events.redb");
    let mut bytes = fs::read(&file).unwrap();
    let mut places = 0;
    while let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
        bytes[at] ^= 1;
        places += 1;
    }
    assert!(places > 0, "{text} is in the log");
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_block_is_named_and_everything_around_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let at = ["--data-dir", dir.path().to_str().unwrap()];
    for n in 0..6 {
        let text = format!("remarkable text number {n} of this test");
        check(
            &[&["memory", "add", &format!("thing{n}"), &text, "--keyword-only"][..], &at].concat(),
            &["created"],
        );
    }
    let whole = printed(&[&["--json", "audit", "query", "--all"][..], &at].concat());
    let of_third = |event: &&Value| event["data"]["content"] == "remarkable text number 2 of this test";
    let damaged = whole["events"].as_array().unwrap().iter().find(of_third).unwrap()["seq"].as_u64().unwrap();
    damage(dir.path(), "remarkable text number 2 of this test");
    let query = [&["audit", "query", "--all", "--format", "jsonl"][..], &at].concat();
    check_failure(
        &query,
        1,
        &format!("the answer may lack events: #{damaged} to #{damaged} could not be read: "),
    );
    let output = String::from_utf8(run(&query).stdout).unwrap();
    let mut lines: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap()["summary"].clone();
    assert_eq!(summary["gaps"][0]["from_seq"], damaged);
    let then: Vec<&Value> =
        whole["events"].as_array().unwrap().iter().filter(|event| !of_third(event)).collect();
    assert_eq!(lines.iter().collect::<Vec<_>>(), then, "everything else");
    check_failure(
        &[&["audit", "why", &damaged.to_string()][..], &at].concat(),
        1,
        "stands where the log is damaged",
    );
}
