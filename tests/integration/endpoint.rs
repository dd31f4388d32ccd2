//! The address that a server leaves in its directory, once it is not there any more and another one answers at it.

use std::fs;
use std::path::Path;
use std::process::Command;

use caxton::api::rest::RestOptions;
use caxton_events::log::beside::id_beside;

use super::cli::{caxton, check, check_failure, json};
use super::server::Server;

/// The file in `dir` says that `server` runs there.
fn point(dir: &Path, server: &Server) {
    fs::write(dir.join("endpoint"), format!("http://{}\n", server.address)).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_directory_whose_server_was_killed_is_not_that_of_who_answers_at_its_address_now() {
    let other = Server::start();
    other.entity("theirs", "thing", &["about theirs"]);
    let before = other.engine.log().head();
    let folder = tempfile::tempdir().unwrap();
    let (dir, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let place = ["--keyword-only", "--data-dir", text(&dir)];
    check(
        &[&["memory", "add", "--agent", "ada", "ours", "a kettle"][..], &place].concat(),
        &["created ours"],
    );
    for (command, prints) in [
        (&["memory", "add", "--agent", "ada", "more", "a second kettle"][..], "created more"),
        (&["memory", "search", "--agent", "ada", "kettle"], "2 hits"),
        (&["status"], "no server runs on"),
        (&["log", "verify"], "are as written"),
    ] {
        point(&dir, &other);
        check(&[command, &place].concat(), &[prints]);
    }
    point(&dir, &other);
    let head = json(&[&["--json", "log", "head"][..], &place].concat());
    point(&dir, &other);
    let added = json(&[&["--json", "backup", "--to", text(&backup)][..], &place].concat());
    assert_eq!(added["head"]["root"], head["root"]);
    point(&dir, &other);
    check(&[&["erase", "--agent", "ada", "--yes"][..], &place].concat(), &["erased: "]);
    assert_eq!(other.engine.log().head(), before, "nothing of it reached the other server");
    assert!(!dir.join("endpoint").exists(), "who has the directory to itself takes the file away");
}

#[test]
fn a_copy_of_a_running_servers_directory_is_a_directory_of_its_own() {
    let server = Server::start();
    server.entity("here", "thing", &["about here"]);
    let dir = server.leave();
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(dir.path().join(".")).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    let server = Server::on(dir, RestOptions::default(), |_| ());
    assert_eq!(id_beside(copy.path()), id_beside(server.dir()), "the ids tell nothing here");
    let before = server.engine.log().head();
    for dir in [server.dir(), copy.path()] {
        point(dir, &server);
    }
    let place = ["--keyword-only", "--data-dir", text(copy.path())];
    check(&[&["memory", "add", "there", "about there"][..], &place].concat(), &["created there"]);
    assert_eq!(server.engine.log().head(), before);
    // The directory itself leads to its server as before.
    let runs = format!("a server runs at http://{}", server.address);
    check(&["status", "--data-dir", text(server.dir())], &[&runs]);
}

#[test]
fn a_directory_in_use_is_not_taken_for_that_of_whoever_answers_at_its_address() {
    let (server, other) = (Server::start(), Server::start());
    let before = [&server, &other].map(|server| server.engine.log().head());
    point(server.dir(), &other);
    let place = ["--keyword-only", "--data-dir", text(server.dir())];
    let (process, address) = (std::process::id(), other.address);
    let says = format!("is in use by process {process}, but at http://{address}, the address in ");
    for command in [&["memory", "add", "a", "b"][..], &["log", "head"], &["status"], &["agents", "list"]] {
        check_failure(&[command, &place].concat(), 4, &says);
    }
    assert_eq!([&server, &other].map(|server| server.engine.log().head()), before);
    // Who names a server is taken at his word.
    let url = format!("http://{address}");
    check(&[&["memory", "add", "a", "b", "--url", &url][..], &place].concat(), &["created a"]);
    assert_ne!(other.engine.log().head(), before[1]);
}

#[test]
fn a_command_about_files_goes_by_the_directory_that_it_is_given() {
    let server = Server::start();
    let url = format!("http://{}", server.address);
    let folder = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", text(folder.path())];
    check(&[&["memory", "add", "a", "b"][..], &place].concat(), &[]);
    let commands =
        [&["log", "verify"][..], &["log", "detach"], &["log", "head", "--kinds"], &["projection", "check"]];
    for command in commands {
        for named in ["http://127.0.0.1:1", &url] {
            let args = [command, &place].concat();
            let output = caxton(&args).env("CAXTON_URL", named).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{args:?} with {named}: {told}");
        }
        point(server.dir(), &server);
        let held = [command, &["--data-dir", text(server.dir()), "--url", "http://127.0.0.1:1"]].concat();
        check_failure(&held, 4, "open; stop it first");
        // Where no directory is named, the server that is named has the files.
        check_failure(&[command, &["--url", &url]].concat(), 4, "open; stop it first");
    }
}
