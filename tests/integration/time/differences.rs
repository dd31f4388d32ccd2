//! What came, changed and went between two moments.

use serde_json::{Value, json};

use super::super::server::Server;

fn differences(server: &Server, query: &str) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page =
            server.get(&format!("/memory/diff?agent_id=ada&limit=2&{query}{cursor}")).expect(200).json();
        found.extend(page["differences"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// Change, kind, and what it is about, before and after.
fn told(differences: &[Value]) -> Vec<String> {
    let side = |row: &Value| {
        ["entity_name", "content", "relation_type"]
            .iter()
            .find_map(|name| row[*name].as_str())
            .unwrap_or("-")
            .to_owned()
    };
    let tell = |one: &Value| {
        let (change, kind) = (one["change"].as_str().unwrap(), one["kind"].as_str().unwrap());
        format!("{change} {kind} {} > {}", side(&one["before"]), side(&one["after"]))
    };
    differences.iter().map(tell).collect()
}

#[test]
fn what_differs_between_two_moments_is_told_once_with_both_sides() {
    let server = Server::start();
    server.entity("Ada", "person", &["likes tea"]);
    server.entity("engine", "machine", &["of brass"]);
    let from = server.engine.log().head().seq.0;
    let patch = |path: &str, body: Value| server.ask("PATCH", path).json(&body).send().expect(200);
    patch("/memory/entities/Ada?agent_id=ada", json!({"entity_name": "Augusta"}));
    patch("/memory/entities/Augusta?agent_id=ada", json!({"entity_name": "Lady Ada"}));
    server.relation("Lady Ada", "engine", "uses");
    server.entity("brief", "Note", &["gone at once"]);
    server.delete("/memory/entities/brief?agent_id=ada").expect(200);
    let middle = server.engine.log().head().seq.0;
    server.delete("/memory/entities/engine?agent_id=ada").expect(200);

    let first = differences(&server, &format!("from={from}&to={middle}"));
    assert_eq!(told(&first), ["changed entity Ada > Lady Ada", "added relation - > uses"]);
    assert_eq!((&first[0]["before"]["version"], &first[0]["after"]["version"]), (&json!(1), &json!(3)));
    assert_eq!(first[1]["after"]["from_entity"], "Lady Ada");
    let second = differences(&server, &format!("from={middle}"));
    let mut words = told(&second);
    words.sort();
    assert_eq!(
        words,
        ["removed entity engine > -", "removed observation of brass > -", "removed relation uses > -"]
    );
    let note = second.iter().find(|one| one["kind"] == "observation").unwrap();
    assert_eq!(note["entity_name"], "engine", "a removed entity is named as it was");
    assert_eq!(differences(&server, "from=0&to=0"), Vec::<Value>::new());
    let other = server.get(&format!("/memory/diff?agent_id=bob&from={from}")).expect(200).json();
    assert_eq!(other["count"], 0, "what others keep for themselves is not seen");
}

#[test]
fn pages_of_differences_end_where_the_first_one_ended() {
    let server = Server::start();
    for number in 0..5 {
        server.entity(&format!("thing {number}"), "T", &[]);
    }
    let page = server.get("/memory/diff?agent_id=ada&from=0&limit=3").expect(200).json();
    server.entity("later", "T", &[]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let next =
        server.get(&format!("/memory/diff?agent_id=ada&from=0&limit=30&cursor={cursor}")).expect(200).json();
    assert_eq!((&page["to"], &page["count"]), (&next["to"], &json!(3)));
    assert_eq!(
        told(next["differences"].as_array().unwrap()),
        ["added entity - > thing 3", "added entity - > thing 4"]
    );
    let broken = format!("{cursor}0");
    server.get(&format!("/memory/diff?agent_id=ada&from=0&cursor={broken}")).problem(400, "INVALID_CURSOR");
    server.get(&format!("/memory/diff?agent_id=ada&from=1&cursor={cursor}")).problem(400, "INVALID_CURSOR");
}

#[test]
fn ends_that_are_missing_turned_round_or_not_there_yet_are_refused() {
    let server = Server::start();
    server.entity("Ada", "person", &[]);
    let refuse = |query: &str, code: &str, field: &str| {
        let problem = server.get(&format!("/memory/diff?agent_id=ada{query}")).problem(422, code);
        assert_eq!(problem["field"], field, "{query}");
        assert!(problem["remedy"].is_string(), "{query}");
    };
    refuse("", "VALIDATION_ERROR", "from");
    refuse("&from=soon", "VALIDATION_ERROR", "from");
    refuse("&from=2&to=1", "VALIDATION_ERROR", "from");
    refuse("&from=999999", "AS_OF_IN_FUTURE", "from");
    refuse("&from=0&to=2999-01-01", "AS_OF_IN_FUTURE", "to");
    refuse("&from=0&as_of=1", "VALIDATION_ERROR", "as_of");
}
