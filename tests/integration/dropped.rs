//! What is asked about events that were dropped: every answer says where the log begins, and none is short without a word.

use std::path::Path;

use caxton_events::log::Log;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{check_failure, json as ask, run};
use super::process::{Server, get, post};
use super::retention::{drop_before, filled};

/// A stopped directory without its oldest events, and the first position that it has.
fn without_the_oldest(place: &TempDir) -> (String, u64) {
    let dir = filled(place);
    let head = Log::open_read_only(Path::new(&dir)).unwrap().head().seq.0;
    let first = drop_before(&dir, head)["first_seq"].as_u64().unwrap();
    assert!(first > 2, "{first}");
    (dir, first)
}

#[test]
fn the_command_line_refuses_what_was_dropped_and_says_what_an_answer_lacks() {
    let place = TempDir::new().unwrap();
    let (dir, first) = without_the_oldest(&place);
    let gone = (first - 1).to_string();
    let says = format!("the log begins at #{first}, what lies before was dropped");
    let here = ["--keyword-only", "--data-dir", &dir];
    for args in [
        &["audit", "query", "--from", "1", "--to", &gone][..],
        &["audit", "query", "--until", "1971-01-01"],
        &["audit", "why", &gone],
        &["log", "tail", "--from", "1"],
        &["export", "events", "--from-seq", "1", "--out", "-"],
        &["export", "events", "--to-seq", &gone, "--out", "-"],
    ] {
        check_failure(&[args, &here].concat(), 5, &says);
    }
    for flag in ["--from-seq", "--to-seq"] {
        let says = format!("{} is #{gone}, and the log begins at #{first}: what was before", &flag[2..]);
        check_failure(&[&["replay", flag, &gone][..], &here].concat(), 2, &says);
    }
    let says = format!("--from-seq: the log begins at record #{first}, what lies before was dropped");
    let undo = ["memory", "undo", "--from-seq", "1", "--to-seq", &gone];
    check_failure(&[&undo[..], &here].concat(), 5, &says);
    // The row is in the memory; what made it is not in the log.
    let says = format!("the log has no ent_1; it begins at #{first}, what lies before was dropped");
    check_failure(&[&["audit", "why", "ent_1"][..], &here].concat(), 3, &says);
    let output = run(&[&["audit", "query", "--from", "1"][..], &here].concat());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains(&format!("begins at #{first}")), "{told}");
    let behind = ["audit", "query", "--from", &first.to_string(), "--json"].map(str::to_owned);
    let behind: Vec<&str> = behind.iter().map(String::as_str).chain(here).collect();
    let answer = ask(&behind);
    assert_eq!((&answer["first_seq"], &answer["dropped"]), (&json!(first), &json!(false)), "{answer}");
}

#[test]
fn a_server_refuses_what_was_dropped_and_says_what_an_answer_lacks() {
    let place = TempDir::new().unwrap();
    let (dir, first) = without_the_oldest(&place);
    let server = Server::start(Path::new(&dir), &["--keyword-only"]);
    let fetch = |path: &str| -> (u16, Value) { get(server.base(), &format!("/api/v1{path}")).unwrap() };
    let gone = first - 1;
    for path in [
        "/events?from_seq=1".to_owned(),
        "/events/stream?from_seq=1".to_owned(),
        "/events/export?from_seq=1".to_owned(),
        format!("/audit?from_seq=1&to_seq={gone}"),
        "/audit?until=1971-01-01".to_owned(),
        format!("/audit/why/{gone}"),
        "/messages?until=1971-01-01".to_owned(),
        "/agents/ada/logs?until=1971-01-01".to_owned(),
        format!("/log/proof?seq={gone}"),
        format!("/log/consistency?from={}", gone - 1),
        "/log/consistency?from=0&to=1".to_owned(),
    ] {
        let (status, problem) = fetch(&path);
        assert_eq!((status, &problem["code"]), (422, &json!("EVENTS_DROPPED")), "{path}: {problem}");
        assert_eq!(problem["details"]["first_seq"], first, "{path}");
    }
    let body = json!({"from_seq": 1, "to_seq": gone});
    let (status, problem) = post(server.base(), "/api/v1/memory/undo", &body).unwrap();
    assert_eq!((status, &problem["details"]["first_seq"]), (422, &json!(first)), "{problem}");
    let (status, problem) = fetch("/audit/why/ent_1");
    assert_eq!((status, &problem["details"]["first_seq"]), (404, &json!(first)), "{problem}");
    for path in ["/events", "/audit", "/messages", "/agents/ada/logs", "/log/head"] {
        let (status, answer) = fetch(path);
        assert_eq!((status, &answer["first_seq"]), (200, &json!(first)), "{path}: {answer}");
    }
    assert_eq!(fetch("/audit?from_seq=1&limit=1").1["dropped"], true);
    assert_eq!(fetch(&format!("/audit?from_seq={first}&limit=1")).1["dropped"], false);
    let (status, page) = fetch(&format!("/events?from_seq={first}&limit=1"));
    assert_eq!((status, &page["events"][0]["seq"]), (200, &json!(first)), "{page}");
    let body = json!({"agent": "ada", "dry_run": true});
    let (status, preview) = post(server.base(), "/api/v1/memory/undo", &body).unwrap();
    assert_eq!((status, &preview["first_seq"]), (200, &json!(first)), "{preview}");
    server.stop();
}

/// Says these to bob, who is done with all of them; the position of the last one.
fn say(dir: &str, texts: &[&str]) -> u64 {
    let server = Server::start(Path::new(dir), &["--keyword-only"]);
    let tell = |path: &str, body: &Value| post(server.base(), &format!("/api/v1{path}"), body).unwrap();
    // The second time they are known.
    for agent in ["ada", "bob"] {
        tell("/agents", &json!({"agent_id": agent}));
    }
    tell("/conversations", &json!({"conversation_id": "c"}));
    let mut last = 0;
    for text in texts {
        let body = json!({
            "performative": "INFORM", "sender": "ada", "receiver": "bob", "content": text, "conversation_id": "c",
        });
        let (status, sent) = tell("/messages", &body);
        assert_eq!(status, 201, "{sent}");
        last = sent["seq"].as_u64().unwrap();
    }
    let (status, done) = tell("/agents/bob/inbox/ack", &json!({"through": last}));
    assert_eq!(status, 200, "{done}");
    server.stop();
    last
}

#[test]
fn pages_begin_with_the_first_message_that_the_log_has() {
    let place = TempDir::new().unwrap();
    let dir = place.path().join("data").display().to_string();
    let lost = say(&dir, &["a", "b", "c", "d", "e"]);
    assert_eq!(filled(&place), dir);
    let head = Log::open_read_only(Path::new(&dir)).unwrap().head().seq.0;
    let kept = ["x", "y", "z"];
    say(&dir, &kept);
    let first = drop_before(&dir, head)["first_seq"].as_u64().unwrap();
    assert!(first > lost, "{first}");
    let server = Server::start(Path::new(&dir), &["--keyword-only"]);
    for (path, list) in [
        ("/agents/bob/logs?order=oldest", "logs"),
        ("/agents/bob/logs?order=newest", "logs"),
        ("/conversations/c/messages?", "messages"),
        ("/messages?receiver=bob&order=oldest", "messages"),
        ("/messages?receiver=bob", "messages"),
    ] {
        for limit in 1..=4 {
            let (mut seqs, mut cursor) = (Vec::new(), String::new());
            loop {
                let asked = format!("/api/v1{path}&limit={limit}{cursor}");
                let (status, page) = get(server.base(), &asked).unwrap();
                assert_eq!(status, 200, "{asked}: {page}");
                let rows = page[list].as_array().unwrap();
                assert!(!rows.is_empty() && rows.len() <= limit, "{asked}: {page}");
                seqs.extend(rows.iter().map(|row| row["seq"].as_u64().unwrap()));
                let Some(next) = page["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert!(seqs.iter().all(|seq| *seq >= first), "{path}: {seqs:?}");
            assert_eq!(seqs.len(), kept.len(), "{path}&limit={limit}: {seqs:?}");
        }
    }
    server.stop();
}
