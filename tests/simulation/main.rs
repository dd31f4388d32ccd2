//! Whole servers under murder: what was acknowledged must be there, whatever happened in between.
//!
//! `SIMULATION_KILLS` sets how often the server is killed (default 20; 200 is the long form), `SIMULATION_SEED` where the dice
//! start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test stops at the first surprise and says what it did"
)]

mod faults;
mod messages;
mod server;
mod turns;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caxton::engine::{Engine, EngineOptions};
use serde_json::{Value, json};
use server::{Server, get, post};

/// Clients that write at the same time.
const WRITERS: u64 = 8;

/// A small generator with a seed (S. Vigna, `SplitMix64`): the moments of the kills can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the writers know: by name of an entity, its only observation.
#[derive(Default)]
struct Ledger {
    sent: BTreeMap<String, String>,
    acknowledged: BTreeSet<String>,
    relations: BTreeSet<(String, String)>,
}

/// One client: writes single entities, batches and relations until told to stop. An error of the transport leaves the
/// write in doubt, and so it does in the ledger.
fn write(writer: u64, base: &Mutex<String>, ledger: &Mutex<Ledger>, acks: &AtomicU64, done: &AtomicBool) {
    let agent = format!("writer-{writer}");
    let mut turn = 0_u64;
    let mut last = None;
    while !done.load(Ordering::Relaxed) {
        turn += 1;
        let base = base.lock().unwrap().clone();
        let count = if turn.is_multiple_of(5) { 4 } else { 1 };
        let names: Vec<String> = (0..count).map(|part| format!("{agent}/{turn}/{part}")).collect();
        let entities: Vec<Value> = names
            .iter()
            .map(|name| json!({"entity_name": name, "entity_type": "note", "observations": [content_of(name)]}))
            .collect();
        {
            let mut ledger = ledger.lock().unwrap();
            ledger.sent.extend(names.iter().map(|name| (name.clone(), content_of(name))));
        }
        let answer = if count == 1 {
            let mut body = entities[0].clone();
            body["agent_id"] = json!(agent);
            body["memory_scope"] = json!("global");
            post(&base, "/api/v1/memory/entities", &body)
        } else {
            let body = json!({"agent_id": agent, "memory_scope": "global", "entities": entities});
            post(&base, "/api/v1/memory/entities/batch", &body)
        };
        match answer {
            Some((201, _)) => {
                acks.fetch_add(1, Ordering::Relaxed);
                ledger.lock().unwrap().acknowledged.extend(names.iter().cloned());
            }
            Some((status, body)) => panic!("a valid write was answered {status}: {body}"),
            None => {
                std::thread::yield_now();
                continue;
            }
        }
        if let Some(previous) = last.replace(names[0].clone()) {
            let body = json!({"agent_id": agent, "memory_scope": "global", "from_entity": previous,
                "to_entity": names[0], "relation_type": "before"});
            if let Some((201, _)) = post(&base, "/api/v1/memory/relations", &body) {
                acks.fetch_add(1, Ordering::Relaxed);
                ledger.lock().unwrap().relations.insert((previous, names[0].clone()));
            }
        }
    }
}

fn content_of(name: &str) -> String {
    format!("this was written as {name}")
}

/// Everything the server has, in pages: name → observations.
fn read_all(base: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let path = format!(
            "/api/v1/memory/entities?memory_scope=global&include_observations=true&limit=1000{cursor}"
        );
        let (status, page) = get(base, &path).expect("the server answers");
        assert_eq!(status, 200, "{page}");
        for entity in page["entities"].as_array().unwrap() {
            let name = entity["entity_name"].as_str().unwrap().to_owned();
            let observations = entity["observations"].as_array().unwrap();
            let contents = observations
                .iter()
                .map(|row| row["content"].as_str().unwrap_or_else(|| row.as_str().unwrap()).to_owned());
            assert!(all.insert(name.clone(), contents.collect()).is_none(), "{name} is there twice");
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn check_ledger(base: &str, ledger: &Ledger) {
    let all = read_all(base);
    for name in &ledger.acknowledged {
        let found = all.get(name).unwrap_or_else(|| panic!("{name} was acknowledged and is lost"));
        assert_eq!(found, &[ledger.sent[name].clone()]);
    }
    for name in all.keys() {
        assert!(ledger.sent.contains_key(name), "{name} was never sent");
    }
    for (from, to) in &ledger.relations {
        let path =
            format!("/api/v1/memory/graph/{}?memory_scope=global&max_depth=1", from.replace('/', "%2F"));
        let (status, walk) = get(base, &path).expect("the server answers");
        assert_eq!(status, 200, "{walk}");
        let nodes = walk["graph"]["nodes"].as_array().unwrap();
        assert!(
            nodes.iter().any(|node| node["entity_name"] == **to),
            "{from} → {to} was acknowledged and is lost"
        );
    }
}

#[test]
fn every_acknowledged_write_survives_sigkill_under_eight_writers() {
    let (kills, seed) = (number_from("SIMULATION_KILLS", 20), number_from("SIMULATION_SEED", 1));
    eprintln!("{kills} kills, SIMULATION_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(seed);
    let mut server = Server::start(dir.path(), &["--keyword-only"]);
    let base = Arc::new(Mutex::new(server.base().to_owned()));
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let (acks, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (base, ledger) = (Arc::clone(&base), Arc::clone(&ledger));
            let (acks, done) = (Arc::clone(&acks), Arc::clone(&done));
            std::thread::spawn(move || write(writer, &base, &ledger, &acks, &done))
        })
        .collect();
    for _ in 0..kills {
        let until = acks.load(Ordering::Relaxed) + 1 + dice.roll(200);
        while acks.load(Ordering::Relaxed) < until {
            assert!(!writers.iter().any(std::thread::JoinHandle::is_finished), "a writer met a wrong answer");
            std::thread::yield_now();
        }
        server.kill();
        server = Server::start(dir.path(), &["--keyword-only"]);
        *base.lock().unwrap() = server.base().to_owned();
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().unwrap();
    }
    let ledger = ledger.lock().unwrap();
    check_ledger(server.base(), &ledger);
    server.stop();
    eprintln!("{} entities acknowledged, {} sent", ledger.acknowledged.len(), ledger.sent.len());
    check_rebuild(dir.path());
}

/// The graph that lived through the kills equals one folded afresh from the log, and the log proves itself.
fn check_rebuild(data_dir: &std::path::Path) {
    let digest = || {
        let engine = Engine::start(&EngineOptions::new(data_dir), &mut |_| {}).unwrap();
        engine.log().verify(&mut |_| {}).unwrap();
        let seq = engine.log().head().seq;
        engine.view().wait_for(seq, caxton::engine::Wait::Applied, Duration::from_mins(1)).unwrap();
        let digest = engine.view().graph().digest().unwrap();
        engine.stop();
        digest
    };
    let lived = digest();
    std::fs::remove_dir_all(data_dir.join("graph")).unwrap();
    assert_eq!(digest(), lived);
}
