//! How much of the memory one answer holds: 16 MiB of texts, and at least one row.

use serde_json::{Value, json};

use super::server::Server;

const MIB: usize = 1 << 20;
/// What one answer holds.
const ROOM: usize = 16 * MIB;

/// A text of 1 MiB of few words, one of them its number.
fn long(number: usize) -> String {
    let word = format!(" word {number}");
    "x".repeat(MIB - word.len()) + &word
}

/// Bytes of the texts in `rows`.
fn bytes(rows: &Value) -> usize {
    rows.as_array().into_iter().flatten().map(|row| row["content"].as_str().map_or(0, str::len)).sum()
}

/// All rows of a list, page by page; no page holds more than it may.
#[track_caller]
fn pages(server: &Server, path: &str, list: &str, of_row: impl Fn(&Value) -> usize) -> Vec<Vec<Value>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{path}&limit=100{cursor}")).expect(200).json();
        let rows = page[list].as_array().unwrap().clone();
        let bytes: usize = rows.iter().map(&of_row).sum();
        assert!(!rows.is_empty() && bytes <= ROOM, "{} rows with {bytes} bytes", rows.len());
        pages.push(rows);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[test]
fn pages_of_entities_with_large_observations_are_short_and_go_on() {
    let server = Server::start();
    for number in 0..20 {
        server.entity(&format!("entity {number}"), "T", &[&long(number)]);
    }
    let path = "/memory/entities?agent_id=ada&include_observations=true";
    let pages_of = pages(&server, path, "entities", |row| bytes(&row["observations"]));
    assert_eq!(pages_of.len(), 2);
    let names: Vec<Value> = pages_of.concat().iter().map(|row| row["entity_name"].clone()).collect();
    let all: Vec<Value> = (0..20).map(|number| json!(format!("entity {number}"))).collect();
    assert_eq!(names, all);
    assert!(pages_of.concat().iter().all(|row| row["observations"].as_array().unwrap().len() == 1));
    // Without the texts all fit.
    assert_eq!(pages(&server, "/memory/entities?agent_id=ada", "entities", |_| 0).len(), 1);

    let path = "/memory/search?agent_id=ada&query=word&mode=keyword&limit=100&observation_limit=1";
    let found = server.get(path).expect(200).json();
    let hits = found["results"].as_array().unwrap();
    assert_eq!(hits.len(), 20);
    let shown = |hit: &Value| {
        let matched = hit["why"]["matched_observation"]["content"].as_str().map_or(0, str::len);
        matched + bytes(&hit["observations"])
    };
    let total: usize = hits.iter().map(shown).sum();
    assert!((ROOM / 2..=ROOM).contains(&total), "{total}");
    assert_eq!((hits[0].get("truncated"), shown(&hits[0])), (None, 2 * MIB));
    assert_eq!((&hits[19]["truncated"], shown(&hits[19])), (&json!(true), 0));

    let hub = server.entity("hub", "T", &[]);
    for number in 0..20 {
        server.relation("hub", &format!("entity {number}"), "knows");
    }
    let id = hub["entity_id"].as_str().unwrap();
    let walk = |more: &str| server.get(&format!("/memory/graph/{id}?agent_id=ada{more}")).expect(200).json();
    let large = walk("");
    let nodes = large["graph"]["nodes"].as_array().unwrap();
    let total: usize = nodes.iter().map(|node| bytes(&node["observations"])).sum();
    assert_eq!((nodes.len(), total, &large["traversal_stats"]["truncated"]), (21, ROOM, &json!(true)));
    assert_eq!(nodes[20].get("observations"), None);
    assert_eq!(walk("&include_observations=false")["traversal_stats"]["truncated"], false);
}

#[test]
fn an_entity_shows_as_many_of_its_observations_as_one_answer_holds() {
    let server = Server::start();
    server.entity("Ada", "T", &[]);
    for number in [0, 10] {
        let texts: Vec<String> = (number..number + 10).map(long).collect();
        let path = "/memory/entities/Ada/observations?agent_id=ada";
        server.post(path, &json!({"observations": texts})).expect(201);
    }
    let shown = server.get("/memory/entities/Ada?agent_id=ada").expect(200).json();
    assert_eq!((bytes(&shown["observations"]), &shown["observation_count"]), (ROOM, &json!(20)));
    let path = "/memory/entities/Ada/observations?agent_id=ada";
    let pages_of = pages(&server, path, "observations", |row| row["content"].as_str().unwrap().len());
    assert_eq!(pages_of.iter().map(Vec::len).collect::<Vec<_>>(), [16, 4]);
    let last = pages_of[1][3]["content"].as_str().unwrap();
    assert!(last.ends_with(" word 19"));
    let path = "/memory/entities/Ada/history?agent_id=ada";
    let versions =
        pages(&server, path, "versions", |row| row["observation"]["content"].as_str().map_or(0, str::len));
    assert_eq!(versions.concat().len(), 21);
    let path = "/memory/diff?agent_id=ada&from=0";
    let differences =
        pages(&server, path, "differences", |row| row["after"]["content"].as_str().map_or(0, str::len));
    assert_eq!(differences.concat().len(), 21);
}
