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
    // What is no line of an import makes it none either, and is refused by itself.
    let doubled = lines[0].replacen('{', "{\"a\":1,\"a\":1,", 1);
    let answer = ask(&[doubled.as_str(), lines[1]]).expect(207).json();
    assert_eq!((&answer["failed"], &answer["errors"][0]["line"]), (&json!(1), &json!(1)), "{answer}");
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

#[test]
fn a_relation_to_what_the_caller_does_not_see_is_left_out_and_counted() {
    let server = Server::start();
    let entity = |scope: &str, name: &str| {
        let body = json!({
            "agent_id": "ada", "workspace": "lab", "memory_scope": scope, "entity_name": name, "entity_type": "T",
        });
        server.post("/memory/entities", &body).expect(201);
    };
    entity("agent", "Ada");
    entity("agent", "tea");
    entity("workspace", "secret");
    for to in ["secret", "tea"] {
        let body = json!({
            "agent_id": "ada", "workspace": "lab", "from_entity": "Ada", "to_entity": to, "relation_type": "likes",
        });
        server.post("/memory/relations", &body).expect(201);
    }
    let export =
        |more: &str| server.get(&format!("/memory/export?agent_id=ada&workspace={more}")).expect(200);
    let seen = export("lab").json();
    assert_eq!(seen["relations"].as_array().unwrap().len(), 2);
    assert_eq!(seen.get("relations_left_out"), None);

    let whole = export("office").json();
    assert_eq!(whole["relations"].as_array().unwrap().len(), 1, "{whole}");
    assert_eq!(whole["relations"][0]["to_entity"], "tea");
    assert_eq!(whole["relations_left_out"], 1);
    let lines = export("office&format=jsonl");
    let end = json!({"type": "end", "entities": 2, "relations": 1, "relations_left_out": 1});
    assert_eq!(lines.lines().last(), Some(&end));

    let other = Server::start();
    let body = json!({"agent_id": "bob", "data": whole});
    let answer = other.post("/memory/import", &body).expect(201).json();
    assert_eq!((&answer["entities_imported"], &answer["relations_imported"]), (&json!(2), &json!(1)));
    let text = String::from_utf8(lines.body).unwrap();
    let answer = other.ask("POST", "/memory/import?agent_id=eve").lines(&text).send().expect(201).json();
    assert_eq!((&answer["entities_imported"], &answer["relations_imported"]), (&json!(2), &json!(1)));
}

/// Creates an entity of `ada` in a scope, with members besides its name and type.
#[track_caller]
fn entity_in(server: &Server, scope: &str, name: &str, more: &Value) {
    let mut body = json!({"agent_id": "ada", "memory_scope": scope, "entity_name": name, "entity_type": "T"});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    server.post("/memory/entities", &body).expect(201);
}

/// The ends of the relations that `ada` has, with the scopes that they live in.
fn ends(server: &Server) -> Vec<[String; 2]> {
    let relations = server.get("/memory/relations?agent_id=ada").expect(200).json();
    let end = |row: &Value, name: &str| {
        let id = row[name].as_str().unwrap();
        let entity = server.get(&format!("/memory/entities/{id}?agent_id=ada")).expect(200).json();
        format!("{} {}", entity["memory_scope"].as_str().unwrap(), entity["entity_name"].as_str().unwrap())
    };
    let rows = relations["relations"].as_array().unwrap().iter();
    rows.map(|row| ["from_entity_id", "to_entity_id"].map(|name| end(row, name))).collect()
}

#[test]
fn relations_keep_their_ends_in_other_scopes_beside_others_of_the_same_name() {
    let server = Server::start();
    for scope in ["agent", "workspace", "global"] {
        entity_in(&server, scope, "tea", &Value::Null);
    }
    entity_in(&server, "agent", "Ada", &Value::Null);
    let ids = |scope: &str| {
        let path = format!("/memory/entities/tea?agent_id=ada&memory_scope={scope}");
        server.get(&path).expect(200).json()["entity_id"].clone()
    };
    for scope in ["agent", "workspace", "global"] {
        let body = json!({"agent_id": "ada", "from_entity": "Ada", "to_entity": ids(scope), "relation_type": "likes"});
        server.post("/memory/relations", &body).expect(201);
    }
    let then = ["agent", "workspace", "global"].map(|scope| ["agent Ada".to_owned(), format!("{scope} tea")]);
    assert_eq!(ends(&server), then);
    let export = server.get("/memory/export?agent_id=ada").expect(200).json();
    let rows = export["relations"].as_array().unwrap();
    let named: Vec<(Option<&Value>, &Value)> =
        rows.iter().map(|row| (row.get("from_scope"), &row["to_scope"])).collect();
    assert_eq!(named, [(None, &Value::Null), (None, &json!("workspace")), (None, &json!("global"))]);
    let lines = server.get("/memory/export?agent_id=ada&format=jsonl").expect(200);
    let lines = String::from_utf8(lines.body).unwrap();

    for by_lines in [false, true] {
        let other = Server::start();
        for scope in ["workspace", "global"] {
            entity_in(&other, scope, "tea", &Value::Null);
        }
        if by_lines {
            other.ask("POST", "/memory/import?agent_id=ada").lines(&lines).send().expect(201);
        } else {
            other.post("/memory/import", &json!({"agent_id": "ada", "data": export})).expect(201);
        }
        assert_eq!(ends(&other), then);
    }
    // Without these members the nearest one of the name is meant.
    let plain = Server::start();
    let old = json!({
        "entities": export["entities"],
        "relations": [{"from_entity": "Ada", "to_entity": "tea", "relation_type": "likes"}],
    });
    plain.post("/memory/import", &json!({"agent_id": "ada", "data": old})).expect(201);
    assert_eq!(ends(&plain), [["agent Ada".to_owned(), "agent tea".to_owned()]]);
    let wrong = json!({"from_entity": "Ada", "to_entity": "tea", "relation_type": "x", "to_scope": "galaxy"});
    let body = json!({"agent_id": "ada", "data": {"relations": [wrong]}});
    assert_eq!(
        plain.post("/memory/import", &body).problem(422, "VALIDATION_ERROR")["field"],
        "data.relations[0].to_scope"
    );
}

#[test]
fn an_export_of_a_time_has_no_relation_to_what_was_not_true_then() {
    let server = Server::start();
    entity_in(&server, "agent", "Ada", &Value::Null);
    entity_in(&server, "agent", "telegraph", &json!({"valid_from": "1990-01-01", "valid_to": "2000-01-01"}));
    entity_in(&server, "global", "steam", &json!({"valid_from": "1980-01-01", "valid_to": "1995-01-01"}));
    server.relation("Ada", "telegraph", "uses");
    server.relation("steam", "Ada", "drives");
    let counts = |at: &str| {
        let path = format!("/memory/export?agent_id=ada&format=jsonl{at}");
        let lines = server.get(&path).expect(200).lines();
        let end = lines.last().unwrap();
        let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
        assert_eq!((&end["entities"], &end["relations"]), (&json!(of("entity")), &json!(of("relation"))));
        [of("entity"), of("relation")]
    };
    assert_eq!(counts(""), [2, 2]);
    assert_eq!(counts("&valid_at=1992-01-01"), [2, 2]);
    assert_eq!(counts("&valid_at=1998-01-01"), [2, 1]);
    assert_eq!(counts("&valid_at=2010-01-01"), [1, 0]);
}

/// More than one write takes, by number and by bytes.
fn large_entities() -> Vec<Value> {
    let many: Vec<String> = (0..10_001).map(|number| format!("note {number}")).collect();
    let long: Vec<String> = (0..11).map(|number| format!("{number}{}", "x".repeat((1 << 20) - 2))).collect();
    vec![
        json!({"entity_name": "many", "entity_type": "T", "observations": many}),
        json!({"entity_name": "long", "entity_type": "T", "observations": long}),
    ]
}

#[test]
fn an_entity_with_more_than_one_write_takes_comes_in_whole_and_counts_once() {
    let entities = large_entities();
    let relation = json!({"from_entity": "many", "to_entity": "long", "relation_type": "precedes"});
    let lines = format!("{}\n{relation}\n{}\n", entities[0], entities[1]);
    for by_lines in [true, false] {
        let server = Server::start();
        let import = |strategy: &str| {
            let reply = if by_lines {
                let path = format!("/memory/import?agent_id=ada&merge_strategy={strategy}");
                server.ask("POST", &path).lines(&lines).send()
            } else {
                let data = json!({"entities": entities, "relations": [relation]});
                let body = json!({"agent_id": "ada", "merge_strategy": strategy, "data": data});
                server.post("/memory/import", &body)
            };
            let answer = reply.expect(201).json();
            let figure = |name: &str| answer[name].as_u64().unwrap();
            assert_eq!(figure("failed"), 0, "{answer}");
            ["imported", "updated", "skipped"].map(|done| figure(&format!("entities_{done}")))
        };
        let counts = || {
            ["many", "long"].map(|name| {
                let path = format!("/memory/entities/{name}?agent_id=ada&include_observations=false");
                server.get(&path).expect(200).json()["observation_count"].as_u64().unwrap()
            })
        };
        assert_eq!(import("update_existing"), [2, 0, 0], "{by_lines}");
        assert_eq!(counts(), [10_001, 11]);
        assert_eq!(import("update_existing"), [0, 0, 2], "{by_lines}");
        // One text more behind the first part is a change of the entity, once.
        let path = "/memory/entities/many/observations?agent_id=ada&limit=1000";
        let (mut last, mut cursor) = (Value::Null, String::new());
        loop {
            let page = server.get(&format!("{path}{cursor}")).expect(200).json();
            last = page["observations"].as_array().unwrap().last().cloned().unwrap_or(last);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let id = last["observation_id"].as_str().unwrap();
        server.delete(&format!("/memory/observations/{id}?agent_id=ada")).expect(200);
        assert_eq!(import("skip_existing"), [0, 0, 2], "{by_lines}");
        assert_eq!(counts(), [10_000, 11], "what is skipped is left as it is");
        assert_eq!(import("update_existing"), [0, 1, 1], "{by_lines}");
        assert_eq!(counts(), [10_001, 11]);
    }
}

#[test]
fn an_import_that_is_repeated_with_its_key_is_counted_as_the_first_time() {
    let server = Server::start();
    let relation = json!({"from_entity": "many", "to_entity": "long", "relation_type": "precedes"});
    let data = json!({"entities": large_entities(), "relations": [relation]});
    let body = json!({"agent_id": "ada", "merge_strategy": "skip_existing", "data": data});
    let import = || {
        let ask = server.ask("POST", "/memory/import").header("Idempotency-Key", "one").json(&body);
        let answer = ask.send().expect(201).json();
        ["entities_imported", "entities_skipped", "relations_imported", "relations_skipped"]
            .map(|name| answer[name].as_u64().unwrap())
    };
    assert_eq!(import(), [2, 0, 1, 0]);
    assert_eq!(import(), [2, 0, 1, 0], "the entities are there by now");
}

#[test]
fn a_large_entity_that_is_refused_leaves_nothing_and_says_which_text_it_is() {
    let mut many = large_entities().swap_remove(0);
    many["observations"][10_000] = json!("a\u{0}b");
    let server = Server::start();
    server.entity("tea", "T", &[]);
    let head = server.engine.log().head().seq;
    let body = json!({"agent_id": "ada", "data": {"entities": [many]}});
    let problem = server.post("/memory/import", &body).problem(422, "INVALID_ENTITY_DATA");
    assert_eq!(problem["field"], "data.entities[0].observations[10000]");
    let lines = server.ask("POST", "/memory/import?agent_id=ada").lines(&format!("{many}\n")).send();
    let answer = lines.expect(422).json();
    assert_eq!((&answer["failed"], &answer["errors"][0]["line"]), (&json!(1), &json!(1)), "{answer}");
    assert_eq!(answer["errors"][0]["field"], "observations[10000]");
    many["entity_name"] = json!("tea");
    many["observations"][10_000] = json!("fine");
    let path = "/memory/import?agent_id=ada&merge_strategy=error_on_conflict";
    let lines = server.ask("POST", path).lines(&format!("{many}\n")).send().expect(422).json();
    assert_eq!(lines["errors"][0]["code"], "ALREADY_EXISTS", "{lines}");
    assert_eq!(server.engine.log().head().seq, head, "something was written");
}
