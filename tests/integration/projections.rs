//! Projections listed, compared and rebuilt: through the REST door while it goes on, and from the command line.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use caxton::api::rest::RestOptions;
use caxton_projections::view::Part;

use super::cli::{check, check_failure, json as run_json};
use super::program::Program;
use super::server::Server;

fn named<'a>(listed: &'a Value, name: &str) -> &'a Value {
    listed["projections"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()
}

#[test]
fn every_projection_is_listed_and_rebuilt_while_the_server_answers() {
    let server = Server::with_model();
    for name in ["gnuplot", "plotutils"] {
        server.entity(name, "program", &["draws plots", "in a terminal"]);
    }
    let seq = server.entity("vim", "program", &["edits text"])["seq"].as_u64().unwrap();
    let search = "/memory/search?agent_id=ada&query=plots&mode=hybrid";
    let hits =
        |min: u64| server.get(&format!("{search}&min_seq={min}")).expect(200).json()["results"].clone();
    let before = hits(seq);
    let listed = server.get("/projections").expect(200).json();
    for name in ["graph", "talk", "vectors"] {
        let row = named(&listed, name);
        assert!(
            row["version"].as_u64() > Some(0) && row["bytes"].is_u64() && row["rebuild"].is_null(),
            "{row}"
        );
        let begun = server.post(&format!("/projections/{name}/rebuild"), &json!({})).expect(202).json();
        assert!(begun["rebuild"]["number"].is_u64(), "{begun}");
        let mut row = begun;
        while row["rebuild"]["state"] == "running" {
            row = server.get(&format!("/projections/{name}?wait_seconds=5")).expect(200).json();
        }
        assert_eq!(row["rebuild"]["state"], "done", "{row}");
        assert!(row["checkpoint"].as_u64() >= Some(seq), "{row}");
        // Scores are those of the same rows.
        assert_eq!(hits(seq), before, "{name}");
    }
    server.entity("emacs", "program", &["edits plots"]);
    assert!(hits(0).as_array().unwrap().iter().any(|hit| hit["entity_name"] == "emacs"));
    let unknown = server.get("/projections/grpah").expect(404).json();
    assert_eq!(
        (&unknown["code"], &unknown["remedy"]),
        (&json!("PROJECTION_NOT_FOUND"), &json!("did you mean graph?"))
    );
    let url = format!("http://{}", server.address);
    check(&["--url", &url, "projection", "list"], &["graph", "vectors", "current"]);
    check(&["--url", &url, "projection", "rebuild", "talk"], &["talk rebuilt up to #"]);
    check_failure(&["--url", &url, "projection", "verify"], 4, "stop it first");
    check_failure(&["--url", &url, "projection", "rebuild", "--keep-old"], 2, "stopped server");
    check_failure(&["projection", "rebuild", "grahp"], 2, "is no projection");
}

/// A disk without room.
fn no_room(dir: &std::path::Path) -> std::io::Result<u64> {
    fs::metadata(dir).map(|_| 0)
}

#[test]
fn without_a_graph_its_requests_alone_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    check(&[&["memory", "add", "gnuplot", "draws plots"][..], &place].concat(), &[]);
    fs::write(dir.path().join("graph/graph.db"), vec![7; 50_000]).unwrap();
    let server = Server::on(dir, RestOptions::default(), |engine| {
        engine.rebuild_beside = true;
        engine.room = no_room;
    });
    server.engine.wait_for_rebuild(Part::Graph, std::time::Duration::from_mins(1));
    let entity = json!({"agent_id": "ada", "entity_name": "vim", "entity_type": "t", "observations": []});
    for reply in [
        server.get("/memory/search?agent_id=ada&query=plots"),
        server.get("/memory/entities?agent_id=ada"),
        server.get("/memory/stats"),
        server.post("/memory/entities", &entity),
    ] {
        assert_eq!(reply.header("retry-after"), Some("5"));
        let problem = reply.expect(503).json();
        assert_eq!(problem["code"], "PROJECTION_REBUILDING", "{problem}");
        assert_eq!(problem["details"]["projection"], "graph", "{problem}");
    }
    // Everything else is answered, and the log takes in what agents say.
    server.get("/events").expect(200);
    server.get("/log/head").expect(200);
    server.get("/conversations").expect(200);
    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    server.post("/agents", &json!({"agent_id": "eve"})).expect(201);
    let message =
        json!({"sender": "bob", "receiver": "eve", "performative": "INFORM", "content": "still here"});
    let head = |server: &Server| server.get("/log/head").expect(200).json()["seq"].as_u64().unwrap();
    let before = head(&server);
    server.post("/messages", &message).expect(201);
    assert!(head(&server) > before);
    server.get("/ready").expect(503);
    let row = server.get("/projections/graph").expect(200).json();
    assert_eq!((&row["status"], &row["rebuild"]["state"]), (&json!("stopped"), &json!("failed")), "{row}");
    assert!(row["error"].as_str().unwrap().contains("are missing"), "{row}");
}

#[test]
fn without_a_model_the_vectors_are_disabled_and_cannot_be_rebuilt() {
    let server = Server::start();
    let listed = server.get("/projections").expect(200).json();
    assert_eq!(named(&listed, "vectors")["status"], "disabled");
    assert_eq!(
        server.post("/projections/vectors/rebuild", &json!({})).expect(503).json()["code"],
        "NO_MODEL"
    );
}

#[test]
fn a_damaged_graph_is_told_once_however_many_requests_meet_it() {
    let program = Program::start("");
    let mut text = String::new();
    for number in 0..500 {
        writeln!(text, "{}", json!({"entity_name": format!("thing {number}"), "entity_type": "t"})).unwrap();
    }
    program.ask("POST", "/memory/import?agent_id=ada").lines(&text).send().expect(201);
    let dir = program.leave();
    let data = dir.path().join("data");
    // All of it stands in the file then, and nothing in its journal.
    let rebuild = ["projection", "rebuild", "graph", "--keyword-only", "--data-dir", data.to_str().unwrap()];
    check(&rebuild, &[]);
    let file = data.join("graph/graph.db");
    let mut bytes = fs::read(&file).unwrap();
    for page in bytes.chunks_mut(4096).filter(|page| page.windows(9).any(|text| text == b"thing 250")) {
        page.fill(0xA5);
    }
    fs::write(&file, bytes).unwrap();

    let program = Program::again(dir, "");
    let found = |program: &Program| program.get("/memory/entities/thing%20250?agent_id=ada");
    for _ in 0..5 {
        found(&program).problem(500, "GRAPH_DAMAGED");
    }
    let entity = json!({"agent_id": "ada", "entity_name": "vim", "entity_type": "t"});
    program.post("/memory/entities", &entity).problem(503, "PROJECTION_STOPPED");
    let health = program.get("/health/detailed").expect(200).json();
    assert_eq!((&health["status"], &health["cause"]["component"]), (&json!("degraded"), &json!("graph")));
    let told = program.told();
    let errors: Vec<&str> = told.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("its file is damaged"), "{told}");

    let program = Program::again(program.leave(), "");
    program.get("/projections/graph?wait_seconds=25").expect(200);
    found(&program).expect(200);
}

#[test]
fn a_stopped_directory_is_looked_after_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let place = ["--keyword-only", "--data-dir", data.to_str().unwrap()];
    let with = |args: &[&'static str]| [args, &place[..]].concat();
    check_failure(&with(&["projection", "list"]), 3, "there is no data directory");
    check(&with(&["memory", "add", "gnuplot", "draws plots"]), &[]);
    check(&with(&["projection", "list"]), &["graph", "talk"]);
    check(&with(&["projection", "verify"]), &["graph at", "talk at", "conversations", "equals its rebuild"]);
    check(
        &with(&["projection", "rebuild"]),
        &["graph rebuilt up to", "the old one was the same", "talk rebuilt"],
    );
    check(&with(&["projection", "rebuild", "graph", "--keep-old"]), &["the old one is in"]);
    assert!(data.join("graph.old/graph.db").exists());
    let rebuilt = run_json(&[&["--json"], with(&["projection", "rebuild", "graph"]).as_slice()].concat());
    assert_eq!(rebuilt["projections"][0]["comparison"]["result"], "equal");
    assert!(!data.join("graph.old").exists());
    // A graph that is not what the log adds up to: that of another directory.
    let other = dir.path().join("other");
    let there = ["--keyword-only", "--data-dir", other.to_str().unwrap()];
    check(&[&["memory", "add", "gnuplot", "draws circles"][..], &there].concat(), &[]);
    fs::copy(other.join("graph/graph.db"), data.join("graph/graph.db")).unwrap();
    check_failure(&with(&["projection", "verify", "graph"]), 1, "caxton projection rebuild graph");
    let output = super::cli::run(&with(&["projection", "check"]));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        shown.contains("differs from its rebuild") && shown.contains("the first difference is in"),
        "{shown}"
    );
    check(&with(&["projection", "rebuild", "graph"]), &["was not what the log adds up to"]);
    check(&with(&["projection", "verify"]), &["equals its rebuild"]);
}

/// A limit on the size of files stands for a full disk: what is refused half way is the same.
#[test]
fn a_rebuild_that_finds_no_room_leaves_the_old_in_use_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let lines = dir.path().join("lines.jsonl");
    // Much text that takes little room in the log, which is compressed, and much in the graph, which is not.
    let mut text = String::new();
    for entity in 0..60 {
        let observations: Vec<String> =
            (0..40).map(|number| format!("{number} {}", "plot ".repeat(1_500))).collect();
        let row =
            json!({"entity_name": format!("e{entity}"), "entity_type": "t", "observations": observations});
        writeln!(text, "{row}").unwrap();
    }
    fs::write(&lines, text).unwrap();
    let place = ["--keyword-only", "--data-dir", data.to_str().unwrap()];
    check(&[&["memory", "import", lines.to_str().unwrap()][..], &place].concat(), &["entities imported 60"]);
    let size = |name: &str| fs::metadata(data.join(name)).unwrap().len();
    let (log, graph) = (size("events.redb"), size("graph/graph.db"));
    let limit = log + (1 << 20);
    assert!(graph > limit + (1 << 20), "the graph of {graph} bytes must not fit under {limit}");
    let before = fs::read(data.join("graph/graph.db")).unwrap();
    // A POSIX shell counts in blocks of 512 bytes; a signal that is ignored leaves an error of the write.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", limit / 512);
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_caxton")])
        .args([&["projection", "rebuild", "graph"][..], &place].concat())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("graph was not rebuilt and stays as it was"), "{told}");
    assert!(told.contains(data.to_str().unwrap()) && told.contains("are needed"), "{told}");
    assert!(!data.join("graph.rebuilding").exists(), "what was half built is removed");
    assert_eq!(fs::read(data.join("graph/graph.db")).unwrap(), before);
    check(&[&["projection", "verify", "graph"][..], &place].concat(), &["equals its rebuild"]);
}

#[test]
fn projections_are_built_from_a_backup_beside_a_running_server() {
    let server = Server::start();
    server.entity("gnuplot", "program", &["draws plots"]);
    let dir = tempfile::tempdir().unwrap();
    let (backup, built) = (dir.path().join("backup"), dir.path().join("built"));
    let url = format!("http://{}", server.address);
    check(&["--url", &url, "backup", "--to", backup.to_str().unwrap()], &["verified"]);
    let (from, into) = (backup.to_str().unwrap(), built.to_str().unwrap());
    let args = ["--keyword-only", "--url", &url, "projection", "rebuild", "--from", from, "--into", into];
    check(&args, &["restored", "graph rebuilt up to", "talk rebuilt up to"]);
    check(&["--keyword-only", "--data-dir", into, "projection", "verify"], &["equals its rebuild"]);
    check_failure(&args, 5, "is not empty");
}

#[test]
fn a_log_that_lost_its_end_is_refused_until_its_owner_goes_on_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let place = ["--keyword-only", "--data-dir", data.to_str().unwrap()];
    let with = |args: &[&'static str]| [args, &place[..]].concat();
    check(&with(&["memory", "add", "gnuplot", "draws plots"]), &[]);
    let log = data.join("events.redb");
    let older = fs::read(&log).unwrap();
    check(&with(&["memory", "add", "vim", "edits text"]), &[]);
    check(&with(&["log", "verify"]), &["are as written"]);
    fs::write(&log, &older).unwrap();

    let lost = "events that were acknowledged are missing at the log's end";
    check_failure(&with(&["memory", "stats"]), 1, lost);
    check_failure(&with(&["memory", "stats"]), 1, "caxton projection rebuild");
    check_failure(&with(&["log", "verify"]), 1, lost);
    check_failure(&with(&["log", "verify", "--salvage"]), 1, lost);
    let saved = dir.path().join("saved");
    check_failure(&[&["log", "salvage", "--to", saved.to_str().unwrap()][..], &place].concat(), 1, lost);
    let report: Value = serde_json::from_slice(&fs::read(saved.join("salvage.json")).unwrap()).unwrap();
    assert!(report["lost_end"].as_str().is_some_and(|told| told.contains(lost)), "{report}");
    check(&with(&["projection", "rebuild"]), &["graph"]);
    check(&with(&["log", "verify"]), &["are as written"]);
    check(&with(&["memory", "search", "plots"]), &["gnuplot"]);
    check(&with(&["memory", "search", "text"]), &["0 hits"]);
}
