//! Health, figures, configuration, and the log as it can be read.

use std::fs;
use std::sync::Arc;

use caxton::api::rest::RestOptions;
use caxton::engine::SystemClock;
use caxton_events::log::{Batch, Log, LogOptions};
use caxton_events::{Clock, Draft, SystemEvent, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::Server;

#[test]
fn a_healthy_server_says_so_in_every_detail() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    server.entity("Byron", "Person", &[]);
    server.relation("Ada", "Byron", "daughter_of");
    let ready = server.get("/ready").expect(200);
    assert_eq!(ready.json(), json!({"ready": true}));
    let id = format!("{:032x}", u128::from_be_bytes(server.engine.log().log_id()));
    assert_eq!(ready.header("caxton-log-id"), Some(id.as_str()));
    let health = server.get("/health").expect(200).json();
    assert_eq!((&health["status"], &health["memory_backend"]), (&json!("healthy"), &json!("embedded")));
    assert_eq!((&health["agents_count"], &health["memory_entities"]), (&json!(1), &json!(2)));
    assert!(health["version"].is_string() && health["uptime"].is_u64() && health["cause"].is_null());
    let memory = server.get("/health/memory").expect(200).json();
    assert_eq!((&memory["sqlite_status"], &memory["relations"]), (&json!("healthy"), &json!(1)));
    let detailed = server.get("/health/detailed").expect(200).json();
    assert_eq!(detailed["components"]["graph"]["lag_events"], 0);
    assert_eq!(detailed["components"]["vectors"]["status"], "disabled");
    assert_eq!(detailed["components"]["log"]["status"], "healthy");
    assert_eq!(detailed["components"]["log"]["root"].as_str().unwrap().len(), 64);
    assert_eq!(detailed["components"]["log"]["clock_behind_seconds"], Value::Null);
    let checks = server.get("/memory/health").expect(200).json();
    let named: Vec<_> = checks["checks"].as_array().unwrap().iter().map(|check| &check["name"]).collect();
    assert_eq!(
        named,
        [
            "database_connectivity",
            "embedding_model_loaded",
            "index_integrity",
            "orphaned_relations",
            "log_writable"
        ]
    );
    assert_eq!(checks["status"], "healthy");
    assert!(checks["last_check"].is_string() && checks["next_check"].is_string());
}

#[test]
fn damage_in_the_store_of_vectors_is_told() {
    let server = Server::with_model();
    let seq = server.entity("Ada", "Person", &["likes tea"])["seq"].as_u64().unwrap();
    let search = format!("/memory/search?agent_id=ada&query=tea&mode=semantic&min_seq={seq}");
    server.get(&search).expect(200);
    let damaged = |server: &Server| {
        server.get("/health/detailed").expect(200).json()["components"]["vectors"]["damaged"].clone()
    };
    assert_eq!(damaged(&server), 0);
    let dir = server.leave();
    let mut files = fs::read_dir(dir.path().join("vectors")).unwrap().map(|file| file.unwrap().path());
    let keys = files.find(|path| path.extension().is_some_and(|extension| extension == "keys")).unwrap();
    let mut bytes = fs::read(&keys).unwrap();
    // The first record begins behind 64 bytes.
    bytes[64] ^= 1;
    fs::write(&keys, bytes).unwrap();
    let server = Server::beside(dir, |_| ());
    assert_eq!(damaged(&server), 1);
}

/// Three days, in microseconds.
const AHEAD_MICROS: u64 = 3 * 86_400 * 1_000_000;

/// A clock that is ahead.
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(SystemClock.now().unix_micros() + AHEAD_MICROS)
    }
}

#[test]
fn a_clock_that_was_ahead_shows_in_the_state_of_the_log() {
    let dir = TempDir::new().unwrap();
    let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(Ahead)).unwrap();
    let draft = Draft {
        stream: "system".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: SystemEvent::ServerStopped.into(),
    };
    log.append(vec![Batch::of(vec![draft])]).unwrap().remove(0).unwrap();
    log.close().unwrap();
    let server = Server::on(dir, RestOptions::default(), |_| ());
    let detailed = server.get("/health/detailed").expect(200).json();
    let behind = detailed["components"]["log"]["clock_behind_seconds"].as_u64().unwrap();
    assert!(behind > 2 * 86_400, "{behind}");
    assert_eq!(detailed["status"], "healthy", "it goes on");
}

#[test]
fn figures_are_of_all_or_of_one_agent() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let other =
        json!({"agent_id": "bob", "entity_name": "Bob", "entity_type": "Person", "observations": ["x", "y"]});
    server.post("/memory/entities", &other).expect(201);
    let all = server.get("/memory/stats").expect(200).json();
    assert_eq!(all["global_stats"]["total_entities"], 2);
    assert_eq!(all["global_stats"]["total_observations"], 3);
    assert_eq!(all["global_stats"]["total_agents"], 2);
    assert!(all["global_stats"]["storage_size_mb"].as_f64().unwrap() > 0.0);
    assert_eq!(all["scope_breakdown"][0]["active_agents"], 2);
    assert!(all["performance_metrics"]["avg_storage_time_ms"].is_f64());
    let own = server.get("/memory/stats?agent_id=ada").expect(200).json();
    assert_eq!(own["global_stats"]["total_entities"], 1);

    let shared = json!({
        "agent_id": "bob", "workspace": "lab", "memory_scope": "workspace",
        "entity_name": "Plan", "entity_type": "Thing", "observations": [],
    });
    server.post("/memory/entities", &shared).expect(201);
    let lab =
        server.ask("GET", "/memory/stats").header("X-Caxton-Workspace", "lab").send().expect(200).json();
    assert_eq!(lab["global_stats"]["total_entities"], 1, "a workspace in the header is one in the query");
}

#[test]
fn the_configuration_is_shown_as_it_was_given() {
    let options = RestOptions { memory_config: json!({"backend": "embedded"}), ..RestOptions::default() };
    let server = Server::with(options);
    assert_eq!(server.get("/memory/config").expect(200).json(), json!({"backend": "embedded"}));
}

#[test]
fn the_log_is_read_from_any_place_by_kind_and_actor() {
    let server = Server::start();
    let created = server.entity("Ada", "Person", &["likes tea"]);
    let other = json!({"agent_id": "bob", "entity_name": "Bob", "entity_type": "Person", "observations": []});
    server.post("/memory/entities", &other).expect(201);
    let head = server.get("/log/head").expect(200).json();
    let all = server.get("/events").expect(200).json();
    let events = all["events"].as_array().unwrap();
    assert_eq!(events.len() as u64, head["seq"].as_u64().unwrap());
    assert!(events.iter().zip(1_u64..).all(|(event, seq)| event["seq"] == seq && event["id"].is_string()));
    assert_eq!(all["next_seq"].as_u64(), head["seq"].as_u64().map(|seq| seq + 1));

    let of = |query: &str| server.get(&format!("/events?{query}")).expect(200).json();
    let kinds = of("kinds=memory.entity_created,memory.observation_added&actor=ada");
    assert_eq!(kinds["count"], 2);
    let first = &kinds["events"][0];
    assert_eq!(first["kind"], "memory.entity_created");
    assert_eq!(first["data"]["entity_id"], created["entity_id"]);
    assert_eq!(first["data"]["entity_name"], "Ada");
    assert!(first["correlation_id"].is_string());
    let one = of("limit=1");
    assert_eq!((&one["count"], &one["next_seq"]), (&json!(1), &json!(2)));
    assert_eq!(of("from_seq=2&limit=1")["events"][0]["seq"], 2);
    let beyond = of("from_seq=999");
    // Whoever asked too far is led back, and misses nothing.
    assert_eq!((&beyond["count"], &beyond["next_seq"]), (&json!(0), &all["next_seq"]));
    let problem = server.get("/events?kinds=memory.entity_create").problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["remedy"], "did you mean \"memory.entity_created\"?");
    server.get("/events?from_seq=0").problem(422, "VALIDATION_ERROR");
}

#[test]
fn a_reader_of_the_log_waits_for_the_next_event() {
    let server = Server::start();
    let next = server.get("/log/head").json()["seq"].as_u64().unwrap() + 1;
    let waiting = server.ask("GET", &format!("/events?from_seq={next}&wait_seconds=25"));
    let waiter = std::thread::spawn(move || waiting.send().expect(200).json());
    server.entity("Ada", "Person", &[]);
    let page = waiter.join().unwrap();
    assert_eq!(page["events"][0]["seq"], next);
}
