//! Export and import: what goes out comes in again.

use serde_json::{Value, json};

use super::server::Server;

fn fill(server: &Server) {
    for index in 0..250 {
        server.entity(&format!("entity {index}"), "Thing", &["first", "second"]);
    }
    let named = json!({
        "agent_id": "ada", "entity_name": "ent_1", "entity_type": "Trap", "observations": [],
        "metadata": {"a": [1, 2]}, "confidence": 0.5, "valid_from": "2020-01-01",
    });
    server.post("/memory/entities", &named).expect(201);
    server.relation("entity 0", "entity 249", "precedes");
}

/// What an export says, without the numbers and times that are drawn anew.
fn meaning(rows: &[Value]) -> Vec<Value> {
    let keep = |row: &Value, names: &[&str]| -> Value {
        names.iter().map(|name| ((*name).to_owned(), row[*name].clone())).collect()
    };
    let names = [
        "entity_name",
        "entity_type",
        "metadata",
        "confidence",
        "valid_from",
        "from_entity",
        "to_entity",
        "relation_type",
        "strength",
    ];
    let mut kept = Vec::new();
    for row in rows {
        let mut row_kept = keep(row, &names);
        let texts = row["observations"].as_array().into_iter().flatten().map(|text| text["content"].clone());
        row_kept["texts"] = texts.collect();
        kept.push(row_kept);
    }
    kept
}

#[test]
fn a_json_export_comes_in_whole_elsewhere() {
    let server = Server::start();
    fill(&server);
    let export = server.get("/memory/export?agent_id=ada").expect(200).json();
    let metadata = &export["export_metadata"];
    assert_eq!((&metadata["entity_count"], &metadata["relation_count"]), (&json!(251), &json!(1)));
    assert_eq!((&metadata["format"], &metadata["memory_scope"]), (&json!("json"), &json!("agent")));
    assert_eq!(export["entities"].as_array().unwrap().len(), 251);

    let other = Server::start();
    let body = json!({"agent_id": "bob", "memory_scope": "workspace", "data": export});
    let answer = other.post("/memory/import", &body).expect(201).json();
    assert_eq!((&answer["entities_imported"], &answer["relations_imported"]), (&json!(251), &json!(1)));
    let copied = other.get("/memory/export?agent_id=bob&memory_scope=workspace").expect(200).json();
    for list in ["entities", "relations"] {
        let (there, here) = (copied[list].as_array().unwrap(), body["data"][list].as_array().unwrap());
        assert_eq!(meaning(there), meaning(here));
    }
}

#[test]
fn a_line_export_comes_in_whole_elsewhere() {
    let server = Server::start();
    fill(&server);
    let export = server.get("/memory/export?agent_id=ada&format=jsonl").expect(200);
    assert_eq!(export.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(export.lines().len(), 254);
    let end = json!({"type": "end", "entities": 251, "relations": 1});
    assert_eq!(export.lines().last(), Some(&end));
    let text = String::from_utf8(export.body).unwrap();
    let other = Server::start();
    let ask =
        |text: &str| other.ask("POST", "/memory/import?agent_id=bob&memory_scope=global").lines(text).send();
    let answer = ask(&text).expect(201).json();
    assert_eq!((&answer["entities_imported"], &answer["relations_imported"]), (&json!(251), &json!(1)));
    let again = ask(&text).expect(201).json();
    assert_eq!((&again["entities_imported"], &again["conflicts_resolved"]), (&json!(0), &json!(252)));

    let broken = format!("{{\"entity_name\": \n{}", text.lines().nth(1).unwrap());
    let answer = ask(&broken).expect(207).json();
    assert_eq!((&answer["failed"], &answer["errors"][0]["line"]), (&json!(1), &json!(1)));
    assert_eq!(answer["errors"][0]["code"], "MALFORMED_JSON");
    ask("{}").expect(422);
    ask("\n\n").problem(422, "VALIDATION_ERROR");
}

#[test]
fn a_line_export_that_was_cut_short_is_refused_before_anything_is_written() {
    let server = Server::start();
    server.entity("a", "T", &["x"]);
    server.entity("b", "T", &[]);
    server.relation("a", "b", "precedes");
    let export = server.get("/memory/export?agent_id=ada&format=jsonl").expect(200);
    let text = String::from_utf8(export.body).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let other = Server::start();
    let ask =
        |lines: &[&str]| other.ask("POST", "/memory/import?agent_id=bob").lines(&lines.join("\n")).send();
    let head = other.engine.log().head().seq;
    for cut in 1..lines.len() {
        assert_eq!(ask(&lines[..cut]).problem(400, "BODY_INCOMPLETE")["field"], "body");
        let hole = [&lines[..cut], &lines[cut + 1..]].concat();
        ask(&hole).problem(400, "BODY_INCOMPLETE");
    }
    // A last line that ends in the middle is a sign of it whether the lines are an export's or not.
    for from in [0, 1] {
        let half = [&lines[from..3], &[&lines[3][..lines[3].len() / 2]]].concat();
        let problem = ask(&half).problem(400, "BODY_INCOMPLETE");
        assert_eq!(problem["details"]["line"], 4 - from, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("ends in the middle; nothing was"), "{problem}");
    }
    assert_eq!(other.engine.log().head().seq, head, "something was written");
    // Without the line that makes it an export it is as good as any lines.
    ask(&lines[1..3]).expect(201);
    ask(&lines).expect(201);
    let old = text.replace("\"version\":\"1.1\"", "\"version\":\"1.0\"");
    let old: Vec<&str> = old.lines().take(3).collect();
    ask(&old).expect(201);
}

#[test]
fn a_strategy_decides_what_happens_to_what_is_there() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let import = |strategy: &str| {
        let body = json!({
            "agent_id": "ada", "memory_scope": "agent", "merge_strategy": strategy,
            "data": {"entities": [
                {"entity_name": "new", "entity_type": "Thing"},
                {"entity_name": "Ada", "entity_type": "Person", "confidence": 0.3, "observations": ["plays chess"]},
            ]},
        });
        server.post("/memory/import", &body)
    };
    let problem = import("error_on_conflict").problem(409, "ALREADY_EXISTS");
    assert!(problem["field"].as_str().unwrap().starts_with("data.entities[1]."), "{problem}");
    server.get("/memory/entities/new?agent_id=ada").problem(404, "ENTITY_NOT_FOUND");
    let skipped = import("skip_existing").expect(201).json();
    assert_eq!((&skipped["entities_imported"], &skipped["entities_skipped"]), (&json!(1), &json!(1)));
    assert_eq!(server.get("/memory/entities/Ada?agent_id=ada").json()["confidence"], 1.0);
    let updated = import("update_existing").expect(201).json();
    assert_eq!((&updated["entities_updated"], &updated["entities_skipped"]), (&json!(1), &json!(1)));
    let shown = server.get("/memory/entities/Ada?agent_id=ada").json();
    assert_eq!((&shown["confidence"], &shown["observation_count"]), (&json!(0.3), &json!(2)));
    assert_eq!(import("overwrite").problem(422, "VALIDATION_ERROR")["field"], "merge_strategy");
}

#[test]
fn an_export_carries_vectors_when_asked() {
    let server = Server::with_model();
    server.entity("Ada", "Person", &["likes tea"]);
    let export = server.get("/memory/export?agent_id=ada&include_embeddings=true").expect(200).json();
    assert_eq!(export["entities"][0]["embedding"].as_array().unwrap().len(), 384);
    let without = Server::start();
    without.get("/memory/export?agent_id=ada&include_embeddings=true").problem(503, "NO_MODEL");
}

#[test]
fn an_import_that_writes_nothing_bears_no_number_of_another() {
    let server = Server::start();
    let by_lines = || {
        let lines = "{\"entity_name\": \"tea\", \"entity_type\": \"Drink\"}\n";
        server.ask("POST", "/memory/import?agent_id=ada").lines(lines).send().expect(201).json()
    };
    let whole = || {
        let tea = json!({"entity_name": "tea", "entity_type": "Drink"});
        let body = json!({"agent_id": "ada", "data": {"entities": [tea]}});
        server.post("/memory/import", &body).expect(201).json()
    };
    let first = by_lines();
    assert_eq!(first["import_id"], format!("import_{}", first["seq"]));
    server.entity("cup", "Thing", &[]);
    for again in [by_lines(), whole()] {
        assert_eq!((&again["import_id"], &again["entities_skipped"]), (&Value::Null, &json!(1)), "{again}");
        assert!(again["seq"].as_u64() > first["seq"].as_u64(), "reads behind it see everything: {again}");
    }
}
