//! Taking a log and a memory elsewhere, and bringing what others kept in.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use caxton::engine::SystemClock;
use caxton_events::log::{Log, LogOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{caxton, check, check_failure, json as cli_json, until};
use super::server::Server;

fn told(server: &Server) {
    for index in 0..30 {
        server.entity(&format!("thing {index}"), "Thing", &["first", "second"]);
    }
    server.relation("thing 0", "thing 1", "precedes");
}

#[test]
fn a_running_servers_log_is_exported_and_becomes_the_log_of_another_directory() {
    let server = Server::start();
    told(&server);
    let url = format!("http://{}", server.address);
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, data) = (path("log.jsonl"), path("data"));
    check(&["--url", &url, "export", "events", "--out", &file], &["wrote", "log.jsonl"]);
    let head = server.get("/log/head").expect(200).json();
    let key = head["public_key"].as_str().unwrap().to_owned();
    check(
        &["import", "events", &file, "--to", &data, "--public-key", &key],
        &["every hash as exported", head["root"].as_str().unwrap(), "signed by"],
    );
    check(&["log", "verify", "--data-dir", &data], &[]);
    let exported = cli_json(&["--json", "log", "head", "--data-dir", &data]);
    assert_eq!(exported["root"], head["root"]);
    let found = cli_json(&["--json", "--keyword-only", "--data-dir", &data, "memory", "stats"]);
    assert_eq!(found["global_stats"]["total_entities"], 30);
    check_failure(&["import", "events", &file, "--to", &data], 5, "is not empty");

    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = [&lines[..7], &lines[8..]].concat().join("\n");
    fs::write(path("hole.jsonl"), without).unwrap();
    let hole = ["import", "events", &path("hole.jsonl"), "--to", &path("other")].map(str::to_owned);
    let hole: Vec<&str> = hole.iter().map(String::as_str).collect();
    check_failure(&hole, 5, "event #8 stands where #7 is due");
    check_failure(&["export", "events", "--kind", "memory.nonsense", "--out", "-"], 2, "known are");
    let turned = ["export", "events", "--from-seq", "10", "--to-seq", "5", "--out", "-"];
    check_failure(&turned, 2, "--to-seq 5: lies before --from-seq (10)");
    let turned = ["export", "events", "--since", "2026-02-01", "--until", "2026-01-01", "--out", "-"];
    let told = "--until 2026-01-01T00:00:00.000000Z: is not after --since (2026-02-01T00:00:00.000000Z)";
    check_failure(&turned, 2, told);
}

/// The kinds of the events that are exported of a log that ends at `head`, and the choices that are refused.
fn chosen(place: &[&str], head: u64) {
    let dir = TempDir::new().unwrap();
    let (file, behind, last) = (dir.path().join("log.jsonl"), (head + 1).to_string(), head.to_string());
    let refused = |choice: &[&str], says: &str| {
        check_failure(&[place, &["export", "events", "--out", "-"], choice].concat(), 2, says);
    };
    let says = format!("--from-seq {behind}: the log ends at #{head}; give a position up to that");
    refused(&["--from-seq", &behind], &says);
    refused(&["--from-seq", "0"], "--from-seq");
    refused(&["--kind", "memroy."], "and the families memory. conversation. agent. turn. system.");
    let kinds = |choice: &[&str]| {
        let out = ["export", "events", "--force", "--out", file.to_str().unwrap()];
        check(&[place, &out, choice].concat(), &["wrote"]);
        let text = fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter_map(|line| line["kind"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&["--from-seq", &last]).len(), 1);
    let memory = kinds(&["--kind", "memory."]);
    assert!(memory.len() > 90 && memory.iter().all(|kind| kind.starts_with("memory.")), "{memory:?}");
    let both = kinds(&["--kind", "system.*", "--kind", "memory.relation_created"]);
    let (system, rest): (Vec<_>, Vec<_>) = both.iter().partition(|kind| kind.starts_with("system."));
    assert!(!system.is_empty(), "{both:?}");
    assert_eq!(rest, ["memory.relation_created"]);
}

#[test]
fn an_export_begins_within_the_log_and_takes_families_of_kinds() {
    let server = Server::start();
    told(&server);
    let url = format!("http://{}", server.address);
    chosen(&["--url", &url], server.engine.log().head().seq.0);
    let shown = server.get("/events?kinds=system.&limit=1000").expect(200).json();
    let shown = shown["events"].as_array().unwrap();
    let is_of_system = |event: &Value| event["kind"].as_str().unwrap().starts_with("system.");
    assert!(!shown.is_empty() && shown.iter().all(is_of_system));
    let near = server.get("/events?kinds=memroy.").problem(422, "VALIDATION_ERROR");
    assert_eq!(near["remedy"], "did you mean \"memory.\"?");
    let far = server.get("/events?kinds=bogus.,nonsense").problem(422, "VALIDATION_ERROR");
    assert_eq!(far["detail"], "kinds: \"bogus.\" is no kind of event (and 1 more, see errors)");
    assert!(far["details"]["kinds"].as_array().unwrap().contains(&json!("memory.")), "{far}");
    assert_eq!(far.to_string().matches("\"system.erased\"").count(), 1, "{far}");

    let stopped = server.leave();
    let place = ["--data-dir", stopped.path().to_str().unwrap()];
    chosen(&place, Log::open_read_only(stopped.path()).unwrap().head().seq.0);
    let tail = ["log", "tail", "-n", "1", "--kind", "memory."];
    check(&[&tail[..], &place].concat(), &["memory.relation_created"]);
}

#[test]
fn events_come_as_lines_or_as_a_table_and_only_those_asked_for() {
    let server = Server::start();
    told(&server);
    let all = server.get("/events/export").expect(200);
    assert_eq!(all.header("content-type"), Some("application/x-ndjson"));
    let lines = all.lines();
    assert_eq!((&lines[0]["type"], &lines[0]["complete"]), (&json!("log"), &json!(true)));
    assert_eq!(lines.last().unwrap()["type"], "head");
    assert_eq!(lines.len() as u64, server.engine.log().head().seq.0 + 2);
    let some = server.get("/events/export?kinds=memory.relation_created&actor=ada").expect(200).lines();
    assert_eq!((some.len(), &some[1]["data"]["relation_type"]), (3, &json!("precedes")));
    assert_eq!(some[2], json!({"type": "end", "events": 1}));
    let table = server.get("/events/export?format=parquet&from_seq=3&to_seq=9").expect(200);
    assert_eq!((&table.body[..4], &table.body[table.body.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]));
    for (path, field) in [
        ("/events/export?format=csv", "format"),
        ("/events/export?kinds=nonsense", "kinds"),
        ("/events/export?from_seq=0", "from_seq"),
        ("/memory/export/tables?format=parquet", "table"),
        ("/memory/export/tables?table=agents", "table"),
    ] {
        assert_eq!(server.get(path).problem(422, "VALIDATION_ERROR")["field"], field, "{path}");
    }
    for table in ["entities", "observations", "relations"] {
        let file = server.get(&format!("/memory/export/tables?table={table}")).expect(200).body;
        assert_eq!(&file[..4], b"PAR1", "{table}");
    }
    let file = server.get("/memory/export/tables?format=sqlite").expect(200).body;
    assert_eq!(&file[..15], b"SQLite format 3");
    let without = Server::start();
    without.get("/memory/export/tables?table=entities&include_embeddings=true").problem(503, "NO_MODEL");
}

#[test]
fn what_ends_before_it_begins_is_refused_with_both_ends() {
    let server = Server::start();
    told(&server);
    let (since, until) = ("2026-02-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z");
    let times = format!("since={since}&until={until}");
    let of_times = ("until", until, format!("is not after since ({since})"));
    for (path, (field, value, message)) in [
        (
            "/events/export?from_seq=10&to_seq=5".to_owned(),
            ("to_seq", "5", "lies before from_seq (10)".to_owned()),
        ),
        (format!("/events/export?{times}"), of_times.clone()),
        (format!("/events?{times}"), of_times.clone()),
        (format!("/events/stream?{times}"), of_times.clone()),
        (format!("/messages?{times}"), of_times.clone()),
        (format!("/agents/ada/logs?{times}"), of_times),
    ] {
        let problem = server.get(&path).problem(422, "VALIDATION_ERROR");
        assert_eq!((&problem["field"], &problem["value"]), (&json!(field), &json!(value)), "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(&message), "{path}: {problem}");
    }
    server.get("/events/export?from_seq=5&to_seq=5").expect(200);
}

#[test]
fn the_memory_of_a_stopped_directory_is_exported_whole() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, tables, file) = (path("data"), path("tables"), path("memory.db"));
    let place = ["--data-dir", &data, "--keyword-only"];
    let with = |args: &[&str]| [args, &place].concat().iter().map(ToString::to_string).collect::<Vec<_>>();
    let run = |args: &[&str], prints: &[&str]| {
        let args = with(args);
        check(&args.iter().map(String::as_str).collect::<Vec<_>>(), prints);
    };
    run(&["memory", "add", "engine", "is brass"], &["created"]);
    run(
        &["export", "memory", "--out", &tables],
        &["wrote", "entities.parquet", "observations.parquet", "relations.parquet"],
    );
    for name in ["entities", "observations", "relations"] {
        let file = fs::read(dir.path().join("tables").join(format!("{name}.parquet"))).unwrap();
        assert_eq!(&file[file.len() - 4..], b"PAR1");
    }
    run(&["export", "memory", "--format", "sqlite", "--out", &file], &["wrote"]);
    assert_eq!(&fs::read(&file).unwrap()[..15], b"SQLite format 3");
    run(&["export", "events", "--format", "parquet", "--out", &path("e.parquet")], &["wrote"]);
}

#[test]
fn nothing_is_replaced_or_half_written() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    let with = |args: &[&str]| [args, &["--data-dir", &data, "--keyword-only"]].concat().join(" ");
    let failure = |args: &[&str], code, says: &str| {
        let args = with(args);
        check_failure(&args.split(' ').collect::<Vec<_>>(), code, says);
    };
    let success = |args: &[&str]| {
        let args = with(args);
        check(&args.split(' ').collect::<Vec<_>>(), &[]);
    };
    success(&["memory", "add", "engine", "brass"]);
    let (file, tables) = (path("log.jsonl"), path("tables"));
    fs::write(&file, "old").unwrap();
    for args in [
        &["export", "events", "--out", &file][..],
        &["export", "events", "--format", "parquet", "--out", &file],
        &["export", "memory", "--format", "sqlite", "--out", &file],
    ] {
        failure(args, 2, "log.jsonl is there already; name another place, or replace it with --force");
        assert_eq!(fs::read(&file).unwrap(), b"old");
    }
    success(&["export", "events", "--force", "--out", &file]);
    assert!(fs::read_to_string(&file).unwrap().starts_with("{\"type\":\"log\""));
    success(&["export", "memory", "--out", &tables]);
    failure(&["export", "memory", "--out", &tables], 2, "entities.parquet is there already");
    success(&["export", "memory", "--force", "--out", &tables]);
    failure(&["export", "memory", "--out", "-"], 2, "name a folder");
    failure(&["export", "memory", "--out", &file], 1, "could not make");
    let nowhere = path("nowhere/log.jsonl");
    failure(&["export", "events", "--out", &nowhere], 3, "nowhere/log.jsonl");
    failure(&["import", "events", &nowhere, "--to", &path("new")], 3, "nowhere/log.jsonl");
    failure(&["import", "events", &file, "--to", &data], 5, "is not empty, it holds");
    failure(&["import", "events", &file, "--to", &file], 1, "log.jsonl");
    // A device that is always full.
    failure(&["export", "events", "--out", "/dev/full"], 1, "/dev/full");
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["data", "log.jsonl", "tables"]);
}

#[test]
fn an_export_that_is_interrupted_leaves_what_was_there_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let dir = TempDir::new().unwrap();
    let (file, part) = (dir.path().join("log.jsonl"), dir.path().join("log.jsonl.part"));
    fs::write(&file, "old").unwrap();
    // What a command left that was killed is written over.
    fs::write(&part, "left").unwrap();
    for signal in ["-INT", "-TERM"] {
        let out = file.to_str().unwrap();
        let mut export =
            caxton(&["--url", &url, "export", "events", "--force", "--out", out]).spawn().unwrap();
        // An answer that begins and does not go on.
        let (mut answer, _) = listener.accept().unwrap();
        until(&mut answer, "\r\n\r\n");
        let begun = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{\"type\":\"log\",\"version\":1}\n";
        answer.write_all(begun.as_bytes()).unwrap();
        while !fs::metadata(&part).is_ok_and(|part| part.len() == 0) {
            assert_eq!(export.try_wait().unwrap(), None);
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = Command::new("kill").args([signal, &export.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(export.wait().unwrap().code(), Some(130), "{signal}");
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{signal}");
    }
}

#[test]
fn a_log_that_another_process_holds_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let _held = Log::open(&data, LogOptions::new([7; 16]), Arc::new(SystemClock)).unwrap();
    let (data, file) = (data.to_str().unwrap().to_owned(), dir.path().join("log.jsonl"));
    let out = file.to_str().unwrap();
    check_failure(&["export", "events", "--out", out, "--data-dir", &data], 4, "is in use by process");
    assert!(!file.exists());
    check_failure(&["import", "events", "--to", &data, "Cargo.toml"], 5, "line 1 cannot be read");
}

#[test]
fn all_tables_are_of_the_moment_that_is_asked_for() {
    let server = Server::start();
    told(&server);
    let seq = server.engine.log().head().seq.0;
    let rows = |query: &str| {
        let answer = server.get(&format!("/memory/export/tables?table=entities{query}")).expect(200);
        (answer.header("caxton-as-of").unwrap().to_owned(), answer.body.len())
    };
    let then = rows("");
    assert_eq!(then.0, seq.to_string());
    server.entity("later", "Thing", &["written behind it"]);
    assert_eq!(rows(&format!("&as_of={seq}")), then);
    assert!(rows("").1 > then.1);
    for (query, field) in [("format=sqlite&as_of=3", "as_of"), ("table=entities&as_of=99999", "as_of")] {
        let answer = server.get(&format!("/memory/export/tables?{query}"));
        assert_eq!((answer.status, &answer.json()["field"]), (422, &json!(field)), "{query}");
    }
}

#[test]
fn what_agents_said_becomes_tables() {
    let server = Server::start();
    let bob = json!({"agent_id": "bob", "entity_name": "cup", "entity_type": "Thing"});
    server.post("/memory/entities", &bob).expect(201);
    let sent = server.post(
        "/messages",
        &json!({"performative": "INFORM", "sender": "ada", "receiver": "bob", "content": "tea is ready"}),
    );
    assert!((200..300).contains(&sent.status), "{}", sent.json());
    for table in ["agents", "conversations", "messages"] {
        let file = server.get(&format!("/conversations/export?table={table}")).expect(200).body;
        assert_eq!((&file[..4], &file[file.len() - 4..]), (&b"PAR1"[..], &b"PAR1"[..]), "{table}");
    }
    let file = server.get("/conversations/export?table=messages").expect(200).body;
    assert!(file.windows(12).any(|part| part == b"tea is ready"));
    for path in ["/conversations/export", "/conversations/export?table=inboxes"] {
        assert_eq!(server.get(path).problem(422, "VALIDATION_ERROR")["field"], "table", "{path}");
    }
    let (url, dir) = (format!("http://{}", server.address), TempDir::new().unwrap());
    let out = dir.path().join("talk").to_str().unwrap().to_owned();
    let export = ["--url", &url, "export", "conversations", "--out", &out];
    check(&export, &["agents.parquet", "conversations.parquet", "messages.parquet"]);
    check_failure(&export, 2, "agents.parquet is there already");
}

#[test]
fn tables_of_what_was_said_end_at_the_record_that_is_asked_for() {
    let server = Server::start();
    let say = |sender: &str, content: &str| {
        let body = json!({"performative": "INFORM", "sender": sender, "receiver": "bob", "content": content});
        assert!((200..300).contains(&server.post("/messages", &body).status), "{body}");
    };
    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    say("ada", "tea is ready");
    let seq = server.engine.log().head().seq.0;
    let tables = |query: &str| {
        let table = |name| server.get(&format!("/conversations/export?table={name}{query}")).expect(200).body;
        ["agents", "conversations", "messages"].map(table)
    };
    let through = format!("&through={seq}");
    let then = tables(&through);
    say("eve", "and so are the cups");
    assert_eq!(tables(&through), then);
    assert!(tables("").iter().zip(&then).all(|(now, then)| now.len() > then.len()));
    let beyond = server.get("/conversations/export?table=agents&through=99999");
    assert_eq!(beyond.problem(422, "VALIDATION_ERROR")["field"], "through");
}

#[test]
fn what_was_erased_is_in_no_export_and_the_log_is_the_same_elsewhere() {
    let server = Server::start();
    server.entity("engine", "Machine", &["a secret that goes"]);
    let plan = server.post("/erase", &json!({"scope": "agent:ada", "dry_run": true})).expect(200).json();
    server.post("/erase", &json!({"scope": "agent:ada", "confirm": plan["confirm"]})).expect(200);
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (url, file, data) = (format!("http://{}", server.address), path("log.jsonl"), path("data"));
    check(&["--url", &url, "export", "events", "--out", &file], &["wrote"]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("erased_by") && !text.contains("secret"), "{text}");
    check(&["import", "events", &file, "--to", &data], &["every hash as exported"]);
    check(&["log", "verify", "--data-dir", &data], &["erased"]);
    let head = server.get("/log/head").expect(200).json();
    assert_eq!(cli_json(&["--json", "log", "head", "--data-dir", &data])["root"], head["root"]);
}

/// What the MCP reference memory server keeps: relations may stand before what they connect.
const MCP: &str = r#"{"type":"relation","from":"Ada","to":"Engine","relationType":"programs"}
{"type":"entity","name":"Ada","entityType":"person","observations":["likes tea","writes notes"]}
{"type":"entity","name":"Engine","entityType":"machine","observations":[]}
{"type":"relation","from":"Engine","to":"Nobody","relationType":"knows"}
{"type":"entity","name":"Half"}
{"type":"graph","name":"x"}
"#;

/// What was changed since the first import keeps that when the next one comes in.
#[track_caller]
fn changed_meanwhile(server: &Server) {
    let change = |path: &str, body: Value| {
        server.ask("PATCH", &format!("/memory/{path}?agent_id=ada")).json(&body).send().expect(200);
    };
    let relations = server.get("/memory/relations?agent_id=ada&entity=Ada").expect(200).json();
    let relation = format!("relations/{}", relations["relations"][0]["relation_id"].as_str().unwrap());
    change(&relation, json!({"strength": 0.75, "metadata": {"since": 1833}}));
    change("entities/Ada", json!({"entity_type": "countess"}));
    let more = MCP.replace("\"writes notes\"", "\"writes notes\",\"plays chess\"");
    let answer = server.ask("POST", "/memory/import?agent_id=ada&format=mcp").lines(&more).send();
    let answer = answer.expect(207).json();
    assert_eq!((&answer["failed"], &answer["entities_updated"]), (&json!(3), &json!(1)), "{answer}");
    assert_eq!(
        (&answer["entities_skipped"], &answer["relations_skipped"]),
        (&json!(1), &json!(1)),
        "{answer}"
    );
    let ada = server.get("/memory/entities/Ada?agent_id=ada").expect(200).json();
    assert_eq!((&ada["entity_type"], &ada["observation_count"]), (&json!("countess"), &json!(3)));
    let shown = server.get(&format!("/memory/{relation}?agent_id=ada")).expect(200).json();
    assert_eq!((&shown["strength"], &shown["metadata"]), (&json!(0.75), &json!({"since": 1833})));
}

#[test]
fn the_memory_of_the_mcp_reference_server_comes_in_and_again_without_doubles() {
    let server = Server::start();
    let import = || server.ask("POST", "/memory/import?agent_id=ada&format=mcp").lines(MCP).send();
    let first = import().expect(207).json();
    assert_eq!(
        (&first["entities_imported"], &first["relations_imported"]),
        (&json!(2), &json!(1)),
        "{first}"
    );
    assert_eq!(first["failed"], 3);
    let mut errors: Vec<(u64, String)> = first["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["line"].as_u64().unwrap(), error["field"].as_str().unwrap().to_owned()))
        .collect();
    errors.sort();
    let then =
        [(4, "to_entity"), (5, "entityType"), (6, "type")].map(|(line, field)| (line, field.to_owned()));
    assert_eq!(errors, then);
    let head = server.engine.log().head().seq;
    let again = import().expect(207).json();
    assert_eq!((&again["entities_imported"], &again["entities_skipped"]), (&json!(0), &json!(2)), "{again}");
    assert_eq!(server.engine.log().head().seq, head, "something was written twice");
    let shown = server.get("/memory/entities/Ada?agent_id=ada").expect(200).json();
    assert_eq!((&shown["entity_type"], &shown["observation_count"]), (&json!("person"), &json!(2)));
    changed_meanwhile(&server);
    assert_eq!(
        server.ask("POST", "/memory/import?format=xml").lines(MCP).send().problem(422, "VALIDATION_ERROR")["field"],
        "format"
    );

    let dir = TempDir::new().unwrap();
    let file = dir.path().join("memory.jsonl");
    fs::write(&file, MCP).unwrap();
    let (url, file) = (format!("http://{}", server.address), file.to_str().unwrap().to_owned());
    let args = [
        "--url", &url, "--json", "memory", "import", "--format", "mcp", "--chunk", "1", "--agent", "bob",
        &file,
    ];
    let output = super::cli::run(&args);
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    let totals: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&totals["entities_imported"], &totals["relations_imported"], &totals["failed"]),
        (&json!(2), &json!(1), &json!(3))
    );
}
