//! Backups of a server that goes on and of a stopped directory, and what is made of them.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_events::Seq;
use caxton_events::log::{Filter, Log};
use serde_json::json;

use super::cli::{check, check_failure, json, run};
use super::server::Server;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A stopped directory with so many entities more.
fn remember(data: &str, names: &[&str]) {
    for name in names {
        check(&["--keyword-only", "--data-dir", data, "memory", "add", name, "something"], &[]);
    }
}

#[test]
fn a_stopped_directory_is_backed_up_added_to_verified_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let (data, backup, other) = (path("data"), path("backup"), path("other"));
    let at = ["--keyword-only", "--data-dir", &data];
    let with =
        |args: &[&str]| [args, &at[..]].concat().iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let go = |args: &[&str]| {
        let args = with(args);
        json(&[&["--json"], args.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())
    };
    remember(&data, &["a", "b"]);
    fs::create_dir_all(dir.path().join("data/agents")).unwrap();
    fs::write(dir.path().join("data/agents/echo.md"), "no agent yet").unwrap();
    let first = go(&["backup", "--to", &backup]);
    assert_eq!((&first["after"], &first["events"]), (&json!(0), &first["head"]["seq"]));
    check(&["backup", "verify", &backup], &["is whole", "made in 1 step\n"]);
    remember(&data, &["c"]);
    let second = go(&["backup", "--to", &backup]);
    assert_eq!(second["after"], first["head"]["seq"]);
    assert!(second["bytes"].as_u64() < first["bytes"].as_u64(), "{second}");
    check(&["backup", "verify", &backup], &["is whole", "made in 2 steps"]);
    let key = dir.path().join("backup/files/2/signing.key");
    assert!(!key.exists(), "the key is not taken along unasked");
    go(&["backup", "--to", &backup, "--with-keys"]);
    let restored = run(&["restore", "--from", &backup, "--to", &other, "--rebuild", "--keyword-only"]);
    let told = String::from_utf8(restored.stdout).unwrap();
    assert!(told.contains("every hash fits") && told.contains("graph rebuilt up to"), "{told}");
    assert!(!told.contains("at the first start"), "what is built now waits for nothing: {told}");
    let again = path("again");
    let both = json(&["--json", "restore", "--from", &backup, "--to", &again, "--rebuild", "--keyword-only"]);
    assert_eq!(both["restored"]["head"], second["head"], "{both}");
    let names: Vec<_> =
        both["projections"].as_array().unwrap().iter().map(|one| &one["projection"]).collect();
    assert_eq!(names, ["graph", "talk"], "{both}");
    let there = ["--keyword-only", "--data-dir", &other];
    check(&[&["projection", "verify"][..], &there].concat(), &["graph at", "talk at"]);
    check(&[&["log", "verify"][..], &there].concat(), &[second["head"]["root"].as_str().unwrap()]);
    check(&[&["memory", "search", "something"][..], &there].concat(), &["a ", "b ", "c ", "3 hits"]);
    assert_eq!(fs::read_to_string(dir.path().join("other/agents/echo.md")).unwrap(), "no agent yet");
    let signing = |name: &str| fs::read(dir.path().join(name).join("signing.key")).unwrap();
    assert_eq!(signing("data"), signing("other"));
}

#[test]
fn a_point_in_time_leaves_out_what_came_later_and_gets_another_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let (data, backup, whole, before) = (path("data"), path("backup"), path("whole"), path("before"));
    remember(&data, &["kept"]);
    let at = ["--keyword-only", "--data-dir", &data];
    let head = json(&[&["--json", "log", "head"][..], &at].concat());
    let seq = head["seq"].to_string();
    remember(&data, &["regretted"]);
    check(&[&["backup", "--to", &backup][..], &at].concat(), &["read back and verified"]);
    let restored = json(&["--json", "restore", "--from", &backup, "--to", &before, "--to-seq", &seq]);
    assert_eq!(restored["head"]["seq"], head["seq"]);
    assert_ne!(restored["log_id"], restored["from_log_id"]);
    let found = |dir: &str| {
        let hits = json(&["--json", "--keyword-only", "--data-dir", dir, "memory", "search", "something"]);
        hits["results"].as_array().unwrap().len()
    };
    assert_eq!(found(&before), 1);
    let restored = json(&["--json", "restore", "--from", &backup, "--to", &whole]);
    assert_eq!(restored["log_id"], restored["from_log_id"]);
    assert_eq!(found(&whole), 2);
    check_failure(&["restore", "--from", &backup, "--to", &whole], 5, "is not empty");
    check(&["restore", "--from", &backup, "--to", &whole, "--force"], &["whole.before-restore-1"]);
    let gone = path("gone");
    check_failure(
        &["restore", "--from", &backup, "--to", &gone, "--to-seq", "9999"],
        3,
        "9999 is not in the backup",
    );
    let early = "2001-01-01T00:00:00Z";
    check_failure(
        &["restore", "--from", &backup, "--to", &gone, "--to-time", early],
        3,
        "the backup begins later",
    );
    check_failure(&["restore", "--from", &backup, "--to", &gone, "--to-time", "noon"], 2, "--to-time");
    check_failure(&["restore", "--from", &data, "--to", &gone], 3, "holds no manifest.json");
    check_failure(&[&["backup", "--to", &data][..], &at].concat(), 5, "is not empty and no backup");
    assert!(!Path::new(&gone).exists());
    // What a restore that was killed left is no obstacle.
    fs::create_dir_all(dir.path().join("gone.restoring/graph")).unwrap();
    check_failure(&["restore", "--from", &backup, "--to", &gone], 5, "bears no mark of a restore");
    fs::write(dir.path().join("gone.restoring/restored.json.part"), "").unwrap();
    check(&["restore", "--from", &backup, "--to", &gone], &["restored", "built at the first start"]);
    assert!(!dir.path().join("gone.restoring").exists());
}

#[test]
fn a_backup_is_replayed_as_it_lies_and_is_refused_as_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let (data, backup) = (path("data"), path("backup"));
    remember(&data, &["a", "b"]);
    check(&["--keyword-only", "--data-dir", &data, "backup", "--to", &backup], &["read back and verified"]);
    let there = |name: &str| {
        let (from, into) = (path(name), path(&format!("folded-{name}")));
        let args = ["--json", "--keyword-only", "replay", "--into", &into, "--data-dir", &from];
        json(&args)
    };
    let (live, kept) = (there("data"), there("backup"));
    assert_eq!((&kept["events"], &kept["kinds"]), (&live["events"], &live["kinds"]));
    assert_eq!(kept["into"]["parts"], live["into"]["parts"]);
    let replayed = run(&["replay", "--data-dir", &backup]);
    let told = String::from_utf8(replayed.stderr).unwrap();
    assert!(replayed.status.success() && told.contains("is a backup: its log lies in "), "{told}");
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left = names.filter(|name| name.to_str().unwrap().starts_with("caxton-replay-")).count();
    assert_eq!(left, 0, "what was made of it is removed");
    let says =
        format!("is a backup, not a data directory: make one of it with `caxton restore --from {backup}");
    for command in [
        &["log", "verify"][..],
        &["log", "tail"],
        &["status"],
        &["memory", "stats"],
        &["memory", "add", "c", "something"],
        &["serve", "--port", "0", "--metrics-port", "off"],
    ] {
        check_failure(&[command, &["--keyword-only", "--data-dir", &backup]].concat(), 2, &says);
    }
    check(&["backup", "verify", &backup], &["is whole"]);
    assert!(!dir.path().join("backup/events.redb").exists(), "no log is begun in a backup");
}

#[test]
fn a_damaged_backup_is_named_part_by_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let (data, backup, other) = (path("data"), path("backup"), path("other"));
    remember(&data, &["a"]);
    check(&["--keyword-only", "--data-dir", &data, "backup", "--to", &backup], &[]);
    let run_file = fs::read_dir(dir.path().join("backup/log")).unwrap().next().unwrap().unwrap().path();
    let content = fs::read(&run_file).unwrap();
    let name = format!("log/{}", run_file.file_name().unwrap().to_str().unwrap());
    let mut flipped = content.clone();
    flipped[content.len() / 2] ^= 1;
    fs::write(&run_file, flipped).unwrap();
    let output = run(&["--json", "backup", "verify", &backup]);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["problems"][0]["part"], name.as_str());
    check_failure(&["restore", "--from", &backup, "--to", &other], 1, "");
    fs::write(&run_file, &content[..content.len() - 1]).unwrap();
    check_failure(&["restore", "--from", &backup, "--to", &other], 1, "it is cut short");
    check_failure(&["backup", "verify", &backup], 1, &name);
    assert!(!Path::new(&other).exists());
}

/// Everything that was acknowledged before the backup began is in it, although ten thousand writes go on.
#[test]
fn a_server_is_backed_up_while_it_is_written() {
    const WRITERS: u64 = 4;
    const BATCHES: u64 = 25;
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let (backup, other) = (dir.path().join("backup"), dir.path().join("other"));
    let url = format!("http://{}", server.address);
    let acknowledged = AtomicU64::new(0);
    let (mut backed_up, mut seen) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (server, acknowledged) = (&server, &acknowledged);
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    let entities: Vec<_> = (0..100)
                        .map(|number| {
                            json!({"entity_name": format!("{writer}/{batch}/{number}"), "entity_type": "note"})
                        })
                        .collect();
                    let body = json!({"agent_id": "ada", "entities": entities});
                    let answer = server.post("/memory/entities/batch", &body).expect(201).json();
                    acknowledged.fetch_max(answer["seq"].as_u64().unwrap(), Ordering::SeqCst);
                }
            });
        }
        for _ in 0..5 {
            let before = acknowledged.load(Ordering::SeqCst);
            let added = json(&["--json", "--url", &url, "backup", "--to", text(&backup)]);
            seen.push(before);
            backed_up.push(added["head"]["seq"].as_u64().unwrap());
        }
    });
    for (before, head) in seen.iter().zip(&backed_up) {
        assert!(head >= before, "{head} is behind {before}, which was acknowledged");
    }
    check(&["--url", &url, "backup", "--to", text(&backup)], &["read back and verified"]);
    check(&["backup", "verify", text(&backup)], &["is whole"]);
    check_failure(&["--url", &url, "backup", "--to", text(&backup), "--with-keys"], 2, "--with-keys");
    let restored = json(&["--json", "restore", "--from", text(&backup), "--to", text(&other)]);
    let log = Log::open_read_only(&other).unwrap();
    let live = server.engine.log();
    assert_eq!(log.head(), live.head_at(restored["head"]["seq"].as_u64().unwrap()).unwrap());
    let count = log.scan(Seq::FIRST, &Filter::default()).flatten().count() as u64;
    assert!(count >= WRITERS * BATCHES * 100, "{count}");
    // Another log is none to add to.
    let another = Server::start();
    let other_url = format!("http://{}", another.address);
    check_failure(&["--url", &other_url, "backup", "--to", text(&backup)], 5, "another");
    server.ask("GET", "/backup?after=3").send().expect(422);
    let wrong = format!("/backup?after=3&root={}", "0".repeat(64));
    assert_eq!(server.ask("GET", &wrong).send().expect(409).json()["code"], "OTHER_HISTORY");
}
