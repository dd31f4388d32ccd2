//! Many clients in one scope: nobody's write is lost, nothing is there twice.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use super::server::Server;

const CLIENTS: usize = 100;
const ROUNDS: usize = 5;

#[test]
fn a_hundred_clients_in_one_scope_lose_nothing() {
    let server = Arc::new(Server::start());
    let hub = json!({
        "agent_id": "hub", "memory_scope": "workspace", "entity_name": "hub", "entity_type": "Hub", "observations": [],
    });
    server.post("/memory/entities", &hub).expect(201);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let server = Arc::clone(&server);
            std::thread::spawn(move || work(&server, client))
        })
        .collect();
    let last_seq = clients.into_iter().map(|client| client.join().unwrap()).max().unwrap();

    let mut names = BTreeSet::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/memory/entities?agent_id=reader&limit=200&min_seq={last_seq}{cursor}");
        let page = server.get(&path).expect(200).json();
        for row in page["entities"].as_array().unwrap() {
            assert!(names.insert(row["entity_name"].as_str().unwrap().to_owned()), "{row} twice");
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names.len(), 1 + CLIENTS * ROUNDS);
    let stats = server.get("/memory/stats?agent_id=reader").json();
    assert_eq!(stats["global_stats"]["total_relations"], CLIENTS * ROUNDS);
    let hub = server.get("/memory/entities/hub?agent_id=reader").json();
    assert_eq!(hub["observation_count"], CLIENTS);
    assert_eq!(server.get("/memory/health").json()["checks"][3]["status"], "pass");
}

/// Each client makes entities of its own, ties them to the one that all share, and notes that it was there.
fn work(server: &Server, client: usize) -> u64 {
    let agent = format!("agent-{client}");
    let mut seq = 0;
    for round in 0..ROUNDS {
        let name = format!("{agent} round {round}");
        let entity = json!({
            "agent_id": agent, "memory_scope": "workspace", "entity_name": name, "entity_type": "Item",
            "observations": [format!("made by {agent}")],
        });
        server.post("/memory/entities", &entity).expect(201);
        let relation = json!({
            "agent_id": agent, "memory_scope": "workspace", "from_entity": name, "to_entity": "hub",
            "relation_type": "belongs_to",
        });
        let answer = server.post("/memory/relations", &relation).expect(201).json();
        seq = answer["seq"].as_u64().unwrap();
    }
    let note = json!({"agent_id": agent, "memory_scope": "workspace", "observations": [format!("{agent} was here")]});
    let answer = server.post("/memory/entities/hub/observations", &note).expect(201).json();
    seq.max(answer["seq"].as_u64().unwrap())
}

#[test]
fn of_many_clients_that_create_the_same_thing_one_does() {
    let server = Arc::new(Server::start());
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let server = Arc::clone(&server);
            std::thread::spawn(move || {
                let body = json!({
                    "agent_id": "ada", "entity_name": "same", "entity_type": "T", "on_existing": "refuse",
                });
                server.post("/memory/entities", &body).status
            })
        })
        .collect();
    let statuses: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 409].contains(status)), "{statuses:?}");
}
