//! A directory without its oldest events: the present is what it was, through restarts and rebuilds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use caxton_events::Seq;
use caxton_events::log::Log;
use caxton_projections::graph::{Graph, SqliteOptions};
use serde_json::json;
use tempfile::TempDir;

use super::cli::{check, check_failure, json as ask, run};
use super::process::{Server, get, post};

/// Text that does not get smaller.
fn noise(seed: u64) -> String {
    let mut state = seed * 2 + 1;
    let words = (0..1_500).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A stopped directory with more events than a block holds, and a conversation.
pub(crate) fn filled(place: &TempDir) -> String {
    let dir = place.path().join("data").display().to_string();
    let server = Server::start(Path::new(&dir), &["--keyword-only"]);
    for n in 0..40 {
        let text = format!("note {n} {}", noise(n));
        let entities: Vec<_> = (0..4)
            .map(|part| json!({ "entity_name": format!("thing {n}.{part}"), "entity_type": "Thing", "observations": [text] }))
            .collect();
        let body = json!({ "agent_id": "ada", "entities": entities });
        let (status, answer) = post(server.base(), "/api/v1/memory/entities/batch", &body).unwrap();
        assert_eq!(status, 201, "{answer}");
    }
    server.stop();
    dir
}

fn send(dir: &str, text: &str) {
    // An agent is known from its first use on.
    let add = [
        "memory",
        "add",
        "tea",
        "--type",
        "Drink",
        "hot",
        "--agent",
        "bob",
        "--keyword-only",
        "--data-dir",
        dir,
    ];
    check(&add, &["created"]);
    check(
        &["message", "send", "--from", "ada", "--to", "bob", text, "--keyword-only", "--data-dir", dir],
        &["sent"],
    );
}

/// What the memory and the conversations are now.
fn present(dir: &str) -> (String, String) {
    let output = run(&["memory", "export", "--agent", "ada", "--keyword-only", "--data-dir", dir]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let exported = String::from_utf8(output.stdout).unwrap();
    assert!(exported.contains("thing 7.1"), "{}", &exported[..exported.len().min(500)]);
    // The first line says when and of which position it is.
    let rows: Vec<&str> = exported.lines().filter(|line| !line.contains("exported_at")).collect();
    let conversations = ask(&["conversations", "list", "--keyword-only", "--data-dir", dir, "--json"]);
    (rows.join("\n"), conversations["conversations"].to_string())
}

/// Over every row of the graph, past and present.
fn digest(dir: &str) -> [u8; 32] {
    let graph = Graph::open(&Path::new(dir).join("graph"), &SqliteOptions::default()).unwrap();
    graph.reader().digest().unwrap()
}

pub(crate) fn drop_before(dir: &str, before: u64) -> serde_json::Value {
    let before = before.to_string();
    ask(&["log", "drop", "--before", &before, "--by", "ada", "--keyword-only", "--data-dir", dir, "--json"])
}

#[test]
fn the_present_outlives_its_events() {
    let place = TempDir::new().unwrap();
    let dir = filled(&place);
    let head = Log::open_read_only(Path::new(&dir)).unwrap().head().seq.0;
    let (then, rows) = (present(&dir), digest(&dir));
    let preview =
        ask(&["log", "drop", "--before", &head.to_string(), "--dry-run", "--data-dir", &dir, "--json"]);
    let dropped = drop_before(&dir, head);
    assert_eq!((&preview["events"], &preview["shared_files"]), (&dropped["events"], &json!([])));
    assert!(dropped["events"].as_u64().unwrap() > head / 2, "{dropped}");
    assert!(dropped["freed_bytes"].as_u64().unwrap() > 1 << 20, "{dropped}");
    let first = dropped["first_seq"].as_u64().unwrap();
    let log = Log::open_read_only(Path::new(&dir)).unwrap();
    assert_eq!(log.first().unwrap(), Seq(first));
    drop(log);
    check(&["log", "verify", "--data-dir", &dir], &["are as written"]);
    check(
        &["log", "head", "--data-dir", &dir],
        &[&format!("everything up to #{} was dropped by ada", first - 1)],
    );
    check(&["log", "tail", "--kind", "system.log_trimmed", "--data-dir", &dir], &["system.log_trimmed"]);
    check(&["log", "prove", "--seq", &first.to_string(), "--data-dir", &dir], &["checkpoint"]);
    let gone = (first - 1).to_string();
    let says = format!("the events before #{first} were dropped");
    check_failure(&["log", "prove", "--seq", &gone, "--data-dir", &dir], 5, &says);
    assert_eq!(present(&dir), then);
    for (command, says) in
        [("verify", ["graph at", "talk at"]), ("rebuild", ["graph rebuilt", "talk rebuilt"])]
    {
        check(&["projection", command, "graph", "talk", "--keyword-only", "--data-dir", &dir], &says);
    }
    assert_eq!(present(&dir), then, "built anew from the base");
    let gone = ["erase", "--agent", "ada", "--dry-run", "--keyword-only", "--data-dir", &dir];
    check_failure(&gone, 5, &format!("the events of the log before #{first} were dropped"));
    // A fork begins from the same base, and can be cut no earlier.
    let fork = place.path().join("fork").display().to_string();
    let early = ["log", "fork", "--at", &first.to_string(), "--to", &fork, "--data-dir", &dir];
    check_failure(&early, 5, "fork there or later");
    assert!(!Path::new(&fork).exists());
    check(&["log", "fork", "--to", &fork, "--data-dir", &dir], &["forked"]);
    assert_eq!(present(&fork), then);
    // Lost projections are rebuilt from the base and what follows.
    for lost in [&["graph"][..], &["talk"], &["graph", "talk", "vectors"]] {
        for folder in lost {
            let _ = fs::remove_dir_all(Path::new(&dir).join(folder));
        }
        assert_eq!(present(&dir), then, "without {lost:?}");
        assert_eq!(digest(&dir), rows);
    }
    check(
        &["memory", "add", "later", "--type", "Thing", "text", "--keyword-only", "--data-dir", &dir],
        &["created"],
    );
    check(&["log", "verify", "--data-dir", &dir], &["are as written"]);
    // Without the base and the graph there is nothing to build from, and nothing is made up.
    for folder in ["graph", "base"] {
        fs::remove_dir_all(Path::new(&dir).join(folder)).unwrap();
    }
    let says = "there is no base; restore graph/ or base/ from a backup";
    check_failure(&["memory", "stats", "--keyword-only", "--data-dir", &dir], 1, says);
}

#[test]
fn what_somebody_is_still_to_read_is_not_dropped() {
    let place = TempDir::new().unwrap();
    let dir = place.path().join("data").display().to_string();
    send(&dir, "do read this");
    let dir = filled(&place);
    let head = Log::open_read_only(Path::new(&dir)).unwrap().head().seq.0.to_string();
    let says = "bob is not done with the message at #";
    let args = ["log", "drop", "--before", &head, "--keyword-only", "--data-dir", &dir];
    check_failure(&args, 5, says);
    let early = ["log", "drop", "--before", "1970-01-01T00:00:00Z", "--keyword-only", "--data-dir", &dir];
    check(&early, &["there is nothing to drop"]);
    let late = ["log", "drop", "--before", "2999-01-01T00:00:00Z", "--keyword-only", "--data-dir", &dir];
    check_failure(&late, 3, "no event was recorded at 2999-01-01");
    let wrong = ["log", "drop", "--before", "then", "--keyword-only", "--data-dir", &dir];
    check_failure(&wrong, 2, "is neither a position nor a time from 1970 on");
}

#[test]
fn what_a_fork_shares_is_dropped_only_when_told_so() {
    let place = TempDir::new().unwrap();
    let dir = filled(&place);
    let fork = place.path().join("fork").display().to_string();
    check(&["log", "fork", "--to", &fork, "--data-dir", &dir], &["forked"]);
    let head = Log::open_read_only(Path::new(&dir)).unwrap().head().seq.0.to_string();
    let args = ["log", "drop", "--before", &head, "--keyword-only", "--data-dir", &dir];
    check_failure(
        &args,
        5,
        &format!("is shared with the fork {}", fs::canonicalize(&fork).unwrap().display()),
    );
    let size = |dir: &str| {
        let files = fs::read_dir(Path::new(dir).join("sealed")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum::<u64>()
    };
    // A trial says both: that it would be refused, and what is not given back where it is not.
    let trial = [&args[..], &["--dry-run"]].concat();
    check_failure(&trial, 5, "or let it keep them (--forks-keep)");
    let there = fs::canonicalize(&fork).unwrap().display().to_string();
    let keeps = format!("would keep its space on the disk: it is shared with the fork {there}");
    check(&[&trial[..], &["--forks-keep"]].concat(), &["would drop", &keeps]);
    let told = ask(&[&trial[..], &["--forks-keep", "--json"]].concat());
    let shared_files = told["shared_files"].as_array().unwrap();
    assert_eq!((shared_files.len(), &shared_files[0]["forks"]), (1, &json!([there])), "{told}");
    let shared = size(&fork);
    let dropped = ask(&[&args[..], &["--forks-keep", "--json"]].concat());
    assert!(dropped["events"].as_u64() > Some(0), "{dropped}");
    // What the fork keeps is still on the disk: it was not given back.
    assert_eq!((&dropped["freed_bytes"], &dropped["kept_bytes"]), (&json!(0), &json!(shared)), "{dropped}");
    assert_eq!(size(&fork), shared);
    check(&["log", "verify", "--data-dir", &fork], &["are as written"]);
    let server = Server::start(Path::new(&dir), &["--keyword-only"]);
    let (status, answer) = get(server.base(), "/api/v1/memory/entities/thing%203.1?agent_id=ada").unwrap();
    assert_eq!(status, 200, "{answer}");
    check_failure(&args, 4, "has the log open; stop it first");
    server.stop();
}

#[test]
fn a_trial_names_every_file_that_others_share_and_who_they_are() {
    let place = TempDir::new().unwrap();
    let [dir, one, two] = ["data", "one", "two"].map(|name| place.path().join(name).display().to_string());
    let remember = |dir: &str, name: &str| {
        check(&["memory", "add", name, "a thing", "--keyword-only", "--data-dir", dir], &["created"]);
    };
    for (name, fork) in [("tea", &one), ("cup", &two)] {
        remember(&dir, name);
        check(&["log", "fork", "--to", fork, "--data-dir", &dir], &["forked"]);
    }
    remember(&dir, "pot");
    remember(&one, "jug");
    let [in_one, in_two] = [&one, &two].map(|fork| fs::canonicalize(fork).unwrap().display().to_string());
    let keeps = |who: &str| format!("would keep its space on the disk: it is shared with {who}\n");
    let both = keeps(&format!("the fork {in_one} and the fork {in_two}"));
    let second = keeps(&format!("the fork {in_two}"));
    let unknown = keeps("another data directory");
    for (dir, forks, says) in [
        (&dir, vec![json!([in_one, in_two]), json!([in_two])], vec![both.as_str(), &second]),
        // A fork does not know what it was made from, nor the other forks of that.
        (&one, vec![json!([])], vec![unknown.as_str()]),
    ] {
        let head = Log::open_read_only(Path::new(dir)).unwrap().head().seq.0.to_string();
        let trial = ["log", "drop", "--before", &head, "--dry-run", "--data-dir", dir];
        check_failure(&trial, 5, "is shared with");
        let trial = [&trial[..], &["--forks-keep"]].concat();
        check(&trial, &says);
        let told = ask(&[&trial[..], &["--json"]].concat());
        let files = told["shared_files"].as_array().unwrap();
        let of_each: Vec<_> = files.iter().map(|shared| shared["forks"].clone()).collect();
        assert_eq!(of_each, forks, "{told}");
        // They are all there are, the oldest first.
        let sealed = Log::open_read_only(Path::new(dir)).unwrap().origin().unwrap().sealed;
        assert_eq!(files.len(), sealed.len(), "{told}");
        for (shared, sealed) in files.iter().zip(&sealed) {
            assert!(shared["file"].as_str().unwrap().ends_with(&sealed.file), "{told}");
        }
    }
}

#[test]
fn two_memories_are_asked_the_same_and_their_answers_compared() {
    let place = TempDir::new().unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let (dir, fork, queries) = (path("data"), path("fork"), path("queries.txt"));
    for (name, text) in [("tea", "a hot drink of leaves"), ("coffee", "a hot drink of beans")] {
        check(
            &["memory", "add", name, "--type", "Drink", text, "--keyword-only", "--data-dir", &dir],
            &[name],
        );
    }
    check(&["log", "fork", "--to", &fork, "--data-dir", &dir], &["forked"]);
    fs::write(&queries, "hot drink\n\nleaves\n").unwrap();
    let compare = |with: &str| {
        let args = [
            "memory",
            "compare-search",
            "--with",
            with,
            "--queries",
            &queries,
            "--keyword-only",
            "--data-dir",
            &dir,
            "--json",
        ];
        ask(&args)
    };
    let same = compare(&fork);
    assert_eq!((&same["queries"], &same["same"], &same["mean_overlap"]), (&json!(2), &json!(2), &json!(1.0)));
    assert_eq!((&same["mode"], &same["other_mode"]), (&json!("keyword"), &json!("keyword")));
    let more =
        ["memory", "add", "cocoa", "--type", "Drink", "a hot drink", "--keyword-only", "--data-dir", &fork];
    check(&more, &["cocoa"]);
    let differs = compare(&fork);
    assert_eq!(differs["same"], 1, "{differs}");
    let found = differs["results"][0]["changes"].as_array().unwrap();
    assert!(
        found.iter().any(|change| change["entity_name"] == "cocoa" && change["rank"].is_null()),
        "{differs}"
    );
    let server = Server::start(Path::new(&fork), &["--keyword-only"]);
    assert_eq!(compare(server.base())["results"], differs["results"], "a server is asked over HTTP");
    assert_eq!(compare(&fork)["results"], differs["results"], "and found by its directory");
    server.stop();
    fs::write(&queries, "\n").unwrap();
    let args = [
        "memory",
        "compare-search",
        "--with",
        &fork,
        "--queries",
        &queries,
        "--keyword-only",
        "--data-dir",
        &dir,
    ];
    check_failure(&args, 2, "has no question; write one a line");
}
