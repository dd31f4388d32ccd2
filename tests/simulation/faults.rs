//! A whole server on a disk that is full or cannot be written, on a damaged log, and stopped in the middle of a batch.
//!
//! Disks of a given size need a mount namespace of their own, which `unshare` of util-linux gives to everybody where the
//! system allows it; elsewhere these tests say SKIPPED.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use super::server::{Server, get, post};

/// A small disk that only this process and those it starts see.
struct SmallDisk {
    holder: Child,
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where the system does not allow it.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount =
            format!("mount -t tmpfs -o {options} tmpfs '{}' && echo ready && exec cat", dir.path().display());
        let holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-c", &mount])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut holder) = holder else {
            eprintln!("SKIPPED: there is no unshare");
            return None;
        };
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said.trim() != "ready" {
            let _ = holder.wait();
            eprintln!("SKIPPED: the system allows no mount namespace");
            return None;
        }
        Some(Self { holder, dir })
    }

    /// Runs a program where the disk is seen.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.holder.id().to_string();
        command.args(["--target", &target, "--user", "--mount", "--preserve-credentials", program]);
        command
    }

    fn remount(&self, options: &str) {
        let status =
            self.inside("mount").args(["-o", &format!("remount,{options}")]).arg(self.dir.path()).status();
        assert!(status.unwrap().success());
    }

    fn serve(&self) -> Server {
        let mut command = self.inside(env!("CARGO_BIN_EXE_caxton"));
        let seen = format!("/proc/{}/root{}", self.holder.id(), self.data().display());
        Server::start_by(&mut command, &self.data(), Path::new(&seen), &["--keyword-only"])
    }

    /// The data directory, as those inside see it.
    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn entity(name: &str, observation: &str) -> Value {
    json!({"agent_id": "ada", "entity_name": name, "entity_type": "thing", "observations": [observation]})
}

fn count(base: &str) -> u64 {
    let (status, stats) = get(base, "/api/v1/memory/stats?agent_id=ada").unwrap();
    assert_eq!(status, 200, "{stats}");
    stats["global_stats"]["total_entities"].as_u64().unwrap()
}

/// A text that does not get shorter by compressing it.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"abcdefghijklmnopqrstuvwxyz      "[(state >> 59) as usize])
    };
    (0..300_000).map(|_| letter()).collect()
}

/// Runs `caxton` to its end.
fn caxton(args: &[&str], data_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caxton"));
    command.args(args).arg("--data-dir").arg(data_dir).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, text: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(text), "{said}");
}

#[test]
fn a_full_disk_is_named_and_what_was_acknowledged_is_there_when_it_has_room_again() {
    let Some(disk) = SmallDisk::mount("size=48m") else { return };
    let server = disk.serve();
    let text = "some words that take room ".repeat(15_000);
    let mut acknowledged = 0;
    let refusal = loop {
        assert!(acknowledged < 400, "the disk never fills up");
        let (status, answer) =
            post(server.base(), "/api/v1/memory/entities", &entity(&format!("e{acknowledged}"), &text))
                .unwrap();
        if status != 201 {
            break (status, answer);
        }
        acknowledged += 1;
    };
    // The log's file or the graph's, whichever meets the end first.
    let code = refusal.1["code"].as_str().unwrap().to_owned();
    let expected = [(507, "DISK_FULL"), (503, "PROJECTION_STOPPED")];
    assert!(expected.contains(&(refusal.0, code.as_str())), "{refusal:?}");
    assert!(refusal.1["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{refusal:?}");
    assert_eq!(get(server.base(), "/api/v1/health").unwrap().1["status"], "degraded");
    let (status, answer) = post(server.base(), "/api/v1/memory/entities", &entity("after", "x")).unwrap();
    assert_eq!(status, 503, "{answer}");
    drop(server);
    disk.remount("size=256m");
    let server = disk.serve();
    // The refused writes were recorded where the answer said so.
    let found = count(server.base());
    assert!((acknowledged..=acknowledged + 2).contains(&found), "{found} of {acknowledged}");
    assert_eq!(post(server.base(), "/api/v1/memory/entities", &entity("room", "again")).unwrap().0, 201);
    server.stop();
}

/// What a server whose log has closed itself says of itself.
#[track_caller]
fn names_the_log(base: &str) {
    let answered = |path: &str| {
        let (status, answer) = get(base, path).unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };
    for path in ["/api/v1/health", "/api/v1/health/memory", "/api/v1/health/detailed"] {
        let health = answered(path);
        assert_eq!((&health["status"], &health["cause"]["component"]), (&json!("degraded"), &json!("log")));
        let error = health["cause"]["error"].as_str().unwrap();
        assert!(error.starts_with("the log is closed: an earlier write failed"), "{health}");
        assert!(health["cause"]["remedy"].as_str().unwrap().contains("restart"), "{health}");
    }
    let components = answered("/api/v1/health/detailed")["components"].clone();
    assert_eq!(components["log"]["status"], "unhealthy", "{components}");
    for name in ["graph", "talk", "audit"] {
        assert_ne!(components[name]["status"], "stopped", "{components}");
    }
    let checks = answered("/api/v1/memory/health")["checks"].clone();
    let failed = checks.as_array().unwrap().iter().filter(|check| check["status"] == "fail");
    assert_eq!(failed.map(|check| &check["name"]).collect::<Vec<_>>(), ["log_writable"], "{checks}");
    let (status, ready) = get(base, "/api/v1/ready").unwrap();
    assert_eq!((status, &ready["code"]), (503, &json!("NOT_READY")), "{ready}");
    for wish in ["/api/v1/memory/entities", "/api/v1/messages"] {
        let message = json!({"performative": "INFORM", "sender": "ada", "receiver": "bob", "content": "x"});
        let wished = if wish.ends_with("messages") { message } else { entity("after", "x") };
        let (status, answer) = post(base, wish, &wished).unwrap();
        assert_eq!((status, &answer["code"]), (503, &json!("LOG_CLOSED")), "{wish}: {answer}");
    }
    let (status, answer) = get(base, "/api/v1/events").unwrap();
    assert_eq!((status, &answer["code"]), (503, &json!("LOG_CLOSED")), "{answer}");
}

#[test]
fn a_log_without_room_answers_507_and_goes_on_when_it_has_room_again() {
    let Some(disk) = SmallDisk::mount("size=24m") else { return };
    // The graph lies on a disk that has room: what fills up is the log's alone.
    let elsewhere = tempfile::tempdir().unwrap();
    let (data, graph) = (disk.data(), elsewhere.path().display());
    let link = format!("mkdir '{0}' && ln -s '{graph}' '{0}/graph'", data.display());
    assert!(disk.inside("sh").args(["-c", &link]).status().unwrap().success());
    let server = disk.serve();
    let mut acknowledged = 0;
    let (status, refusal) = loop {
        assert!(acknowledged < 400, "the disk never fills up");
        let wish = entity(&format!("e{acknowledged}"), &noise(acknowledged));
        let (status, answer) = post(server.base(), "/api/v1/memory/entities", &wish).unwrap();
        if status != 201 {
            break (status, answer);
        }
        acknowledged += 1;
    };
    assert_eq!((status, &refusal["code"]), (507, &json!("DISK_FULL")), "{refusal}");
    assert!(refusal["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{refusal}");
    // Reading goes on, and whoever asks how the server is hears of the log at once, whatever stopped with it.
    assert_eq!(count(server.base()), acknowledged);
    names_the_log(server.base());
    assert_eq!(server.ended(), Some(1), "the log was not closed in order");
    disk.remount("size=256m");
    let server = disk.serve();
    let found = count(server.base());
    assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} of {acknowledged}");
    assert_eq!(post(server.base(), "/api/v1/memory/entities", &entity("room", "again")).unwrap().0, 201);
    server.stop();
}

/// A limit on the size of files stands for a full disk, where the system allows no small one.
#[test]
fn a_server_whose_log_failed_does_not_end_as_if_all_were_well() {
    let dir = tempfile::tempdir().unwrap();
    Server::start(dir.path(), &["--keyword-only"]).stop();
    let room = std::fs::metadata(dir.path().join("events.redb")).unwrap().len() + (1 << 20);
    // A POSIX shell counts in blocks of 512 bytes; a signal that is ignored leaves an error of the write.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", room / 512);
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_caxton")]);
    let server = Server::start_by(&mut command, dir.path(), dir.path(), &["--keyword-only"]);
    let mut acknowledged = 0;
    loop {
        assert!(acknowledged < 400, "the log never fills up");
        let wish = entity(&format!("e{acknowledged}"), &noise(acknowledged));
        if post(server.base(), "/api/v1/memory/entities", &wish).unwrap().0 != 201 {
            break;
        }
        acknowledged += 1;
    }
    assert_eq!(server.ended(), Some(1));
    let server = Server::start(dir.path(), &["--keyword-only"]);
    let found = count(server.base());
    assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} of {acknowledged}");
    server.stop();
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let Some(disk) = SmallDisk::mount("size=48m") else { return };
    disk.serve().stop();
    disk.remount("ro");
    let mut serve = disk.inside(env!("CARGO_BIN_EXE_caxton"));
    let serve = serve.args(["serve", "--keyword-only", "--port", "0", "--metrics-port", "off", "--data-dir"]);
    let output = serve.arg(disk.data()).stdin(Stdio::null()).output().unwrap();
    says(&output, 1, "is the directory writable");
    says(&output, 1, &disk.data().display().to_string());
}

#[test]
fn a_damaged_block_is_named_and_never_started_over() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--keyword-only"]);
    for n in 0..3 {
        let (status, answer) = post(
            server.base(),
            "/api/v1/memory/entities",
            &entity(&format!("e{n}"), &format!("mark {n} here")),
        )
        .unwrap();
        assert_eq!(status, 201, "{answer}");
    }
    server.stop();
    let log = dir.path().join("events.redb");
    let whole = std::fs::read(&log).unwrap();
    let flip = |text: &[u8]| {
        let mut bytes = whole.clone();
        let places: Vec<usize> =
            (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text)).collect();
        assert!(!places.is_empty());
        for at in places {
            bytes[at] ^= 1;
        }
        std::fs::write(&log, &bytes).unwrap();
        bytes
    };
    let damaged = flip(b"mark 1 here");
    says(&caxton(&["log", "verify"], dir.path()), 1, "is damaged");
    assert_eq!(std::fs::read(&log).unwrap(), damaged, "a damaged log was changed");
    std::fs::write(&log, &whole).unwrap();
    assert_eq!(caxton(&["log", "verify"], dir.path()).status.code(), Some(0));
}

#[test]
fn sigterm_in_the_middle_of_batches_leaves_whole_batches() {
    const BATCH: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let server = Server::start(dir.path(), &["--keyword-only"]);
        let before = count(server.base());
        let base = server.base().to_owned();
        let writer = std::thread::spawn(move || {
            let mut acknowledged = 0;
            loop {
                let rows: Vec<Value> = (0..BATCH)
                    .map(|row| json!({"entity_name": format!("r{round} b{acknowledged} {row}"), "entity_type": "t"}))
                    .collect();
                let body = json!({"agent_id": "ada", "entities": rows});
                match post(&base, "/api/v1/memory/entities/batch", &body) {
                    Some((201, _)) => acknowledged += 1,
                    Some(_) | None => return acknowledged,
                }
            }
        });
        while count(server.base()) == before {
            std::thread::yield_now();
        }
        server.stop();
        let acknowledged: u64 = writer.join().unwrap();
        let server = Server::start(dir.path(), &["--keyword-only"]);
        let written = count(server.base()) - before;
        assert_eq!(written % BATCH as u64, 0, "half a batch was written");
        assert!(written >= acknowledged * BATCH as u64, "{written} of {acknowledged} batches");
        server.stop();
    }
}
