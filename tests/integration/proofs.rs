//! The log for auditors: signed heads and proofs over REST and the command line, checked without server and directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use caxton_events::log::{PublicKey, SignedCheckpoint};
use caxton_tools::log::{ProofFile, Proved};
use serde_json::Value;

use super::cli::{check, check_failure, json};
use super::server::Server;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn proof(value: Value) -> ProofFile {
    serde_json::from_value(value).unwrap()
}

#[test]
fn every_event_is_proved_under_the_head_that_is_signed() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea", "lives in London"]);
    let head = server.get("/log/head").expect(200).json();
    let key: PublicKey = text(&head, "public_key").parse().unwrap();
    let signed: SignedCheckpoint = text(&head, "checkpoint").parse().unwrap();
    assert_eq!(signed.check(&key), Ok(()));
    assert_eq!(signed.checkpoint.head.root.to_string(), text(&head, "root"));
    let count = head["seq"].as_u64().unwrap();
    assert_eq!(signed.checkpoint.head.seq.0, count);
    let events = server.get("/events").expect(200).json();
    for (seq, listed) in (1..=count).zip(events["events"].as_array().unwrap()) {
        let answer = server.get(&format!("/log/proof?seq={seq}&size={count}")).expect(200).json();
        assert_eq!(&answer["event"], listed, "the event as it is listed");
        let proved = proof(answer).check(Some(&key), Some(&signed)).unwrap();
        assert!(matches!(proved, Proved::Inclusion { event, .. } if event.seq.0 == seq));
    }
}

#[test]
fn a_head_that_was_kept_is_shown_to_have_only_grown() {
    let server = Server::start();
    let kept = server.get("/log/head").expect(200).json();
    let (key, kept): (PublicKey, SignedCheckpoint) =
        (text(&kept, "public_key").parse().unwrap(), text(&kept, "checkpoint").parse().unwrap());
    for n in 0..5 {
        server.entity(&format!("entity {n}"), "Thing", &["x"]);
        let from = kept.checkpoint.head.seq.0;
        let growth = proof(server.get(&format!("/log/consistency?from={from}")).expect(200).json());
        let Proved::Consistency { later, .. } = growth.check(Some(&key), Some(&kept)).unwrap() else {
            panic!("no proof of consistency");
        };
        assert_eq!(later.seq, server.engine.log().head().seq);
    }
    let none = proof(server.get("/log/consistency?from=0&to=1").expect(200).json());
    none.check(Some(&key), None).unwrap();
    assert!(none.check(Some(&key), Some(&kept)).is_err(), "it is about another head");
}

#[test]
fn what_cannot_be_proved_is_refused() {
    let server = Server::start();
    let head = server.engine.log().head().seq.0;
    for (path, says) in [
        (
            format!("/log/proof?seq={}", head + 1),
            format!("#{} is not among the first {head} events", head + 1),
        ),
        ("/log/proof?seq=2&size=1".to_owned(), "#2 is not among the first 1 events".to_owned()),
        (format!("/log/proof?seq=1&size={}", head + 1), format!("#{} is not among", head + 1)),
        ("/log/consistency?from=2&to=1".to_owned(), "#2 is not among the first 1 events".to_owned()),
    ] {
        let problem = server.get(&path).problem(404, "EVENT_NOT_FOUND");
        assert!(text(&problem, "detail").starts_with(&says), "{path}: {problem}");
    }
    for path in
        ["/log/proof", "/log/proof?seq=0", "/log/proof?seq=x", "/log/consistency", "/log/proof?seq=1&to=2"]
    {
        server.get(path).problem(422, "VALIDATION_ERROR");
    }
}

/// A stopped directory with some memory, and a folder of an auditor, who has nothing else.
struct Audit {
    place: tempfile::TempDir,
    auditor: tempfile::TempDir,
}

impl Audit {
    fn start() -> Self {
        let audit = Self { place: tempfile::tempdir().unwrap(), auditor: tempfile::tempdir().unwrap() };
        audit.remember("gnuplot");
        audit
    }

    fn remember(&self, name: &str) {
        check(&self.at(&["memory", "add", name, "Draws plots", "--keyword-only"]), &["created"]);
    }

    /// The arguments with the data directory.
    fn at<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [args, &["--data-dir", self.place.path().to_str().unwrap()]].concat()
    }

    fn file(&self, name: &str) -> String {
        self.auditor.path().join(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn an_auditor_checks_a_proof_with_nothing_but_the_file_and_the_key() {
    let audit = Audit::start();
    let file = audit.file("proof.json");
    check(&audit.at(&["log", "prove", "--seq", "2", "--out", &file]), &["caxton log check-proof "]);
    let head = json(&audit.at(&["--json", "log", "head"]));
    let key = text(&head, "public_key").to_owned();
    check(&audit.at(&["log", "head"]), &["\npublic key caxton/log/"]);
    drop(audit.place);
    let check_proof = ["log", "check-proof", &file];
    check(&check_proof, &["#2 ", "under the head #", "that key stands in the file itself"]);
    check(&[&check_proof[..], &["--public-key", &key]].concat(), &["signed by caxton/log/"]);
    let proved = json(&[&["--json"], &check_proof[..], &["--public-key", &key]].concat());
    assert_eq!((&proved["event"]["seq"], &proved["proof"]), (&2.into(), &"inclusion".into()));
    let truth = fs::read_to_string(&file).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(truth.contains(from), "{from}");
        fs::write(&file, truth.replacen(from, to, 1)).unwrap();
    };
    changed("\"stored\": \"", "\"stored\": \"AAAA");
    check_failure(&check_proof, 1, "the content of #2 is not what was recorded");
    changed("\"version\": 1", "\"version\": 2");
    check_failure(&check_proof, 1, "the position, the time or the kind of #2 is not what was recorded");
    changed("\"actor\": \"", "\"actor\": \"not-");
    check_failure(&check_proof, 1, "#2 as it is shown is not the event that is proved");
    changed("\\ntime 20", "\\ntime 30");
    check_failure(&check_proof, 1, "the signature does not match the checkpoint");
    changed("\"evidence\"", "\"evidences\"");
    check_failure(&check_proof, 1, "holds no proof that can be read");
    fs::write(&file, truth).unwrap();
    check_failure(&[&check_proof[..], &["--public-key", "a key"]].concat(), 2, "no public key of a log");
    check_failure(
        &["log", "check-proof", &audit.auditor.path().join("none").to_string_lossy()],
        3,
        "could not read",
    );
    let other = Audit::start();
    let other = json(&other.at(&["--json", "log", "head"]));
    let wrong_key = [&check_proof[..], &["--public-key", text(&other, "public_key")]].concat();
    check_failure(&wrong_key, 1, "it names the key ");
}

#[test]
fn an_auditor_finds_out_whether_the_log_that_was_kept_only_grew() {
    let audit = Audit::start();
    let (kept, growth) = (audit.file("head.txt"), audit.file("growth.json"));
    let printed = super::cli::run(&audit.at(&["log", "head", "--checkpoint"]));
    fs::write(&kept, &printed.stdout).unwrap();
    let seq = json(&audit.at(&["--json", "log", "head"]))["seq"].to_string();
    audit.remember("plotutils");
    check(&audit.at(&["log", "consistency", "--from", &seq, "-o", &growth]), &["wrote "]);
    let check_growth = ["log", "check-proof", &growth, "--head", &kept];
    check(&check_growth, &["only grew", &format!("from the head #{seq} of "), "both signed by"]);
    check_failure(&audit.at(&["log", "consistency", "--from", "999"]), 3, "is not among the first");
    // A head that somebody else signed, and one of another log.
    let truth = fs::read_to_string(&kept).unwrap();
    fs::write(&kept, truth.replace(&format!("\n{seq}\n"), "\n1\n")).unwrap();
    check_failure(&check_growth, 1, "the proof does not hold for the head that was kept");
    let other = Audit::start();
    let printed = super::cli::run(&other.at(&["log", "head", "--checkpoint"]));
    fs::write(&kept, &printed.stdout).unwrap();
    check_failure(&check_growth, 1, "the proof does not hold for the head that was kept");
    fs::write(&kept, "nonsense").unwrap();
    check_failure(&check_growth, 1, "this is no checkpoint of a log");
}

#[test]
fn a_proof_replaces_no_file_unless_that_is_wanted() {
    let audit = Audit::start();
    let file = audit.file("proof.json");
    let says = format!("{file} is there already; name another place, or replace it with --force");
    for command in [
        &["log", "prove", "--seq", "2", "--out", &file][..],
        &["log", "consistency", "--from", "1", "--out", &file],
    ] {
        fs::write(&file, "kept").unwrap();
        check_failure(&audit.at(command), 2, &says);
        assert_eq!(fs::read(&file).unwrap(), b"kept");
        check(&audit.at(&[command, &["--force"]].concat()), &["wrote "]);
        check(&["log", "check-proof", &file], &["signed by"]);
    }
}

#[test]
fn a_running_server_proves_what_a_stopped_log_does() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let dir = tempfile::tempdir().unwrap();
    let url = format!("http://{}", server.address);
    for args in [&["log", "prove", "--seq", "1"][..], &["log", "consistency", "--from", "1"]] {
        let args = [args, &["--url", &url]].concat();
        let file = dir.path().join("proof.json");
        fs::write(&file, super::cli::run(&args).stdout).unwrap();
        check(&["log", "check-proof", file.to_str().unwrap()], &["signed by caxton/log/"]);
    }
    check(&["log", "head", "--url", &url], &["public key caxton/log/"]);
    check(&["log", "head", "--checkpoint", "--url", &url], &["\n\n— caxton/log/"]);
    check_failure(&["log", "prove", "--seq", "999", "--url", &url], 3, "EVENT_NOT_FOUND");
}

#[test]
fn a_signing_key_that_others_may_read_stops_the_start() {
    let audit = Audit::start();
    let key = audit.place.path().join("signing.key");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&key), 0o600);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let add = audit.at(&["memory", "add", "a", "b", "--keyword-only"]);
    check_failure(&add, 1, "run chmod 600 on it");
    check_failure(&audit.at(&["log", "prove", "--seq", "1"]), 1, "run chmod 600 on it");
    check(&audit.at(&["log", "verify"]), &["are as written"]);
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "no key").unwrap();
    check_failure(&add, 1, "holds no key of 64 hexadecimal digits");
    fs::remove_file(&key).unwrap();
    check_failure(&audit.at(&["log", "prove", "--seq", "1"]), 3, "it is made when the server starts");
}
