//! Data directories that share a past: made of stopped and of running ones, and independent of each other from there.

use std::fs;
use std::path::Path;

use caxton_events::Seq;
use caxton_events::log::{Filter, Log, Reader};
use caxton_projections::graph::{Graph, SqliteOptions};
use caxton_projections::projection::Projection as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{check, check_failure, json as ask, run};
use super::process::{Server, get, post};

fn dirs() -> (TempDir, String, String) {
    let place = TempDir::new().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let (parent, fork) = (path("parent"), path("fork"));
    (place, parent, fork)
}

fn add(dir: &str, name: &str, text: &str) {
    let args = ["memory", "add", name, "--type", "Thing", text, "--keyword-only", "--data-dir", dir];
    check(&args, &[name]);
}

fn names(dir: &str) -> Vec<String> {
    names_of("default", dir)
}

fn names_of(agent: &str, dir: &str) -> Vec<String> {
    let output = run(&["memory", "export", "--agent", agent, "--keyword-only", "--data-dir", dir]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut names: Vec<String> =
        lines.filter_map(|line| line["entity_name"].as_str().map(str::to_owned)).collect();
    names.sort();
    names
}

fn reader(dir: &str) -> Reader {
    Log::open_read_only(Path::new(dir)).unwrap()
}

/// Digest over a graph that is folded from the first events of a log.
fn folded(log: &Reader, until: Seq) -> [u8; 32] {
    let dir = TempDir::new().unwrap();
    let mut graph = Graph::open(dir.path(), &SqliteOptions::default()).unwrap();
    let filter = Filter { until: Some(until), ..Filter::default() };
    let records: Vec<_> = log.scan(Seq::FIRST, &filter).map(Result::unwrap).collect();
    graph.apply(&records).unwrap();
    graph.reader().digest().unwrap()
}

/// Position of the last event of the stopped log.
fn head(dir: &str) -> u64 {
    reader(dir).head().seq.0
}

#[test]
fn a_fork_of_a_stopped_directory_goes_its_own_way() {
    let (_place, parent, fork) = dirs();
    add(&parent, "before", "is in both");
    let cut = head(&parent);
    add(&parent, "after", "is in the parent alone");
    let made =
        ask(&["log", "fork", "--at", &cut.to_string(), "--to", &fork, "--data-dir", &parent, "--json"]);
    assert_eq!(made["seq"], cut);
    assert_eq!(reader(&fork).head_at(cut).unwrap(), reader(&parent).head_at(cut).unwrap());
    assert_eq!(folded(&reader(&fork), Seq(cut)), folded(&reader(&parent), Seq(cut)));
    let prove = ["log", "prove", "--seq", "1", "--data-dir", &fork];
    let remedy = format!("memory stats --keyword-only --data-dir {fork}");
    let told = format!("`caxton {remedy}` does; until then no head of this log is signed");
    check_failure(&prove, 3, &told);
    check(&remedy.split(' ').collect::<Vec<_>>(), &["total entities"]);
    check(&prove, &["\"inclusion\""]);
    add(&fork, "other", "is in the fork alone");
    assert_eq!(names(&fork), ["before", "other"]);
    assert_eq!(names(&parent), ["after", "before"]);
    for dir in [&parent, &fork] {
        check(&["projection", "check", "--data-dir", dir], &["equals its rebuild"]);
        check(&["log", "verify", "--data-dir", dir], &["are as written"]);
        check(&["log", "verify", "--own", "--data-dir", dir], &["are as written"]);
    }
    let shown = ask(&["log", "head", "--data-dir", &fork, "--json"]);
    assert_eq!(shown["origin"]["forks"][0]["seq"], cut);
    check(&["log", "head", "--data-dir", &fork], &[&format!("forked at #{cut} from caxton/log/")]);
    // The parent is gone, and the fork does not mind; nor when it moves.
    fs::remove_dir_all(&parent).unwrap();
    let moved = format!("{fork}-moved");
    fs::rename(&fork, &moved).unwrap();
    assert_eq!(names(&moved), ["before", "other"]);
    check(&["log", "detach", "--data-dir", &moved], &["shares no file any more"]);
    assert_eq!(fs::read_dir(Path::new(&moved).join("sealed")).unwrap().count(), 0);
    check(&["log", "verify", "--data-dir", &moved], &["are as written"]);
    assert_eq!(names(&moved), ["before", "other"]);
}

fn remember(server: &Server, name: &str) -> u64 {
    let body =
        json!({ "agent_id": "ada", "entity_name": name, "entity_type": "Thing", "observations": [name] });
    let (status, answer) = post(server.base(), "/api/v1/memory/entities", &body).unwrap();
    assert_eq!(status, 201, "{answer}");
    answer["seq"].as_u64().unwrap()
}

fn known(server: &Server) -> Vec<String> {
    let (_, answer) = get(server.base(), "/api/v1/memory/entities?agent_id=ada&limit=100").unwrap();
    let name = |entity: &Value| entity["entity_name"].as_str().unwrap().to_owned();
    answer["entities"].as_array().unwrap().iter().map(name).collect()
}

#[test]
fn a_running_server_is_forked_and_both_go_on_through_a_kill() {
    let (_place, parent, fork) = dirs();
    let mut server = Server::start(Path::new(&parent), &["--keyword-only"]);
    for n in 0..20 {
        remember(&server, &format!("shared {n}"));
    }
    let cut = remember(&server, "last that is shared");
    remember(&server, "only in the parent");
    check(&["log", "fork", "--at", &cut.to_string(), "--to", &fork, "--data-dir", &parent], &["forked"]);
    let other = Server::start(Path::new(&fork), &["--keyword-only"]);
    remember(&other, "only in the fork");
    remember(&server, "another of the parent");
    assert_eq!((known(&server).len(), known(&other).len()), (23, 22));
    // What was sealed in a server that was killed then is read by its next start and by the fork.
    server.kill();
    let server = Server::start(Path::new(&parent), &["--keyword-only"]);
    assert_eq!(known(&server).len(), 23);
    remember(&server, "after the kill");
    other.stop();
    server.stop();
    for (dir, count) in [(&parent, 24), (&fork, 22)] {
        assert_eq!(names_of("ada", dir).len(), count);
        check(&["log", "verify", "--data-dir", dir], &["are as written"]);
        check(&["projection", "check", "--data-dir", dir], &["equals its rebuild"]);
    }
}

#[test]
fn what_cannot_be_forked_is_refused_and_leaves_nothing() {
    let (place, parent, fork) = dirs();
    add(&parent, "one", "text");
    let head = head(&parent);
    let refuse = |at: &str, to: &str, code: i32, says: &str| {
        check_failure(&["log", "fork", "--at", at, "--to", to, "--data-dir", &parent], code, says);
    };
    let beyond = (head + 99).to_string();
    refuse(&beyond, &fork, 3, &format!("#{beyond} is not in the log; choose a position from 1 to"));
    refuse("0", &fork, 3, "#0 is not in the log");
    refuse("yesterday", &fork, 2, "is neither a position nor a time from 1970 on");
    refuse("1970-01-01T00:00:00Z", &fork, 3, "no event was recorded at 1970-01-01T00:00:00");
    refuse("1", &parent, 5, "is not empty; fork to a directory that does not exist");
    let inside = format!("{parent}/deep/fork");
    refuse("1", &inside, 5, "lies in the data directory");
    assert!(!Path::new(&parent).join("sealed").exists(), "nothing is sealed for a fork that cannot be");
    assert!(!Path::new(&fork).exists());
    let left = place.path().join(".fork.caxton-fork");
    fs::create_dir(&left).unwrap();
    refuse("1", &fork, 5, "was left by a fork that was cut short; remove it and try again");
    fs::remove_dir(&left).unwrap();
    fs::create_dir(&fork).unwrap();
    check(&["log", "fork", "--to", &fork, "--data-dir", &parent], &["forked"]);
    let none = place.path().join("none").display().to_string();
    check_failure(&["log", "fork", "--to", &none, "--data-dir", &none], 3, "there is no data directory at");
}

#[test]
fn what_a_newer_caxton_wrote_is_neither_written_to_nor_forked() {
    let (_place, parent, fork) = dirs();
    add(&parent, "one", "text");
    let log = Path::new(&parent).join("events.redb");
    let before = fs::read(&log).unwrap();
    fs::write(Path::new(&parent).join("FORMAT"), "99\n").unwrap();
    for command in [
        &["log", "fork", "--to", &fork][..],
        &["log", "detach"],
        &["log", "drop", "--before", "2"],
        &["projection", "rebuild", "graph", "talk"],
    ] {
        check_failure(&[command, &["--data-dir", &parent]].concat(), 1, "has data format \"99\"");
    }
    assert!(fs::read(&log).unwrap() == before && !Path::new(&fork).exists());
    assert!(!Path::new(&parent).join("sealed").exists());
}

#[test]
fn a_fork_whose_shared_file_is_lost_says_so() {
    let (_place, parent, fork) = dirs();
    add(&parent, "one", "text");
    check(&["log", "fork", "--to", &fork, "--data-dir", &parent], &["forked"]);
    let sealed = fs::read_dir(Path::new(&fork).join("sealed")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&sealed).unwrap();
    let says = "which holds an earlier part of this log, cannot be used; restore it from a backup";
    check_failure(&["log", "head", "--data-dir", &fork], 1, says);
    let output = run(&["memory", "stats", "--keyword-only", "--data-dir", &fork]);
    assert!(String::from_utf8_lossy(&output.stderr).contains(says));
    // The remedy: the parent has the same file.
    fs::hard_link(Path::new(&parent).join("sealed").join(sealed.file_name().unwrap()), &sealed).unwrap();
    check(&["log", "verify", "--data-dir", &fork], &["are as written"]);
}
