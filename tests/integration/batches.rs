//! Many writes in one request: all or nothing, each for itself, or a line each.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::server::Server;

fn entity(name: &str) -> Value {
    json!({"entity_name": name, "entity_type": "Tool", "observations": ["is a tool"]})
}

#[test]
fn a_batch_is_all_or_nothing() {
    let server = Server::start();
    let good = json!({"agent_id": "ada", "entities": [entity("a"), entity("b"), entity("a")]});
    let answer = server.post("/memory/entities/batch", &good).expect(201).json();
    assert_eq!((&answer["entities_created"], &answer["failed_entities"]), (&json!(2), &json!(0)));
    assert_eq!(answer["entities_unchanged"], 1);
    assert_eq!(answer["results"][0]["entity_name"], "a");
    assert_eq!(answer["results"][0]["entity_id"], answer["results"][2]["entity_id"]);
    assert!(
        answer["batch_id"].is_string() && answer["seq"].is_u64() && answer["processing_time_ms"].is_f64()
    );

    let mut bad = entity("a");
    bad["entity_type"] = json!("Person");
    let mixed = json!({"agent_id": "ada", "entities": [entity("c"), bad.clone()]});
    let problem = server.post("/memory/entities/batch", &mixed).problem(409, "ENTITY_TYPE_CONFLICT");
    assert_eq!(problem["field"], "entities[1].entity_type");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 1);
    server.get("/memory/entities/c?agent_id=ada").problem(404, "ENTITY_NOT_FOUND");

    let apart = json!({"agent_id": "ada", "atomic": false, "entities": [entity("c"), bad.clone()]});
    let answer = server.post("/memory/entities/batch", &apart).expect(207).json();
    assert_eq!((&answer["entities_created"], &answer["failed_entities"]), (&json!(1), &json!(1)));
    assert_eq!(answer["results"][1]["code"], "ENTITY_TYPE_CONFLICT");
    assert_eq!(answer["results"][1]["http_status"], 409);
    server.get("/memory/entities/c?agent_id=ada").expect(200);
    let none = json!({"agent_id": "ada", "atomic": false, "entities": [bad]});
    server.post("/memory/entities/batch", &none).problem(409, "ENTITY_TYPE_CONFLICT");
}

#[test]
fn a_batch_has_an_id_of_its_own_where_it_writes_something() {
    let server = Server::start();
    let write = |name: &str| {
        let body = json!({"agent_id": "ada", "entities": [entity(name)]});
        server.post("/memory/entities/batch", &body).json()["batch_id"].clone()
    };
    let (first, again, second) = (write("a"), write("a"), write("b"));
    assert!(first.is_string() && second.is_string() && first != second, "{first} {second}");
    assert_eq!(again, Value::Null);
}

#[test]
fn a_key_that_another_batch_used_is_told_of_by_its_header() {
    let server = Server::start();
    let write = |name: &str| {
        let body = json!({"agent_id": "ada", "entities": [entity(name)]});
        server.ask("POST", "/memory/entities/batch").header("Idempotency-Key", "k-1").json(&body).send()
    };
    write("a").expect(201);
    assert_eq!(write("b").problem(409, "IDEMPOTENCY_KEY_CONFLICT")["field"], "Idempotency-Key");
}

#[test]
fn every_item_names_what_a_merge_did_not_take() {
    let server = Server::start();
    let mut unsure = entity("a");
    unsure["confidence"] = json!(0.5);
    server.post("/memory/entities/batch", &json!({"agent_id": "ada", "entities": [unsure]})).expect(201);
    let mut sure = entity("a");
    sure["confidence"] = json!(1);
    let mut other = entity("a");
    other["metadata"] = json!({"k": 1});
    other["observations"] = json!(["is old"]);
    let items = [entity("a"), sure, other];
    let told = [None, Some(json!(["confidence"])), Some(json!(["metadata"]))];
    let body = json!({"agent_id": "ada", "entities": items});
    let answer = server.post("/memory/entities/batch", &body).expect(200).json();
    let results = answer["results"].as_array().unwrap();
    let not_taken: Vec<_> = results.iter().map(|result| result.get("not_taken").cloned()).collect();
    assert_eq!(not_taken, told, "{answer}");
    assert_eq!((&answer["entities_updated"], &answer["entities_unchanged"]), (&json!(1), &json!(2)));

    let lines: Vec<String> = items.iter().map(ToString::to_string).collect();
    let ask = server.ask("POST", "/memory/entities/batch?agent_id=ada").lines(&lines.join("\n"));
    let results = ask.send().expect(200).lines();
    let not_taken: Vec<_> = results.iter().map(|result| result.get("not_taken").cloned()).collect();
    assert_eq!(not_taken, told);

    let observations = json!({"agent_id": "ada", "observations": [
        {"entity": "a", "content": "is a tool", "valid_from": "2000-01-01"},
    ]});
    let answer = server.post("/memory/observations/batch", &observations).expect(200).json();
    assert_eq!(answer["results"][0]["status"], "unchanged");
    assert_eq!(answer["results"][0]["not_taken"], json!(["valid_from"]));
}

#[test]
fn an_item_with_one_content_is_told_of_it_by_the_names_it_gave() {
    let server = Server::start();
    server.entity("a", "Tool", &["is a tool", "is old"]);
    let alone = json!({"entity": "a", "content": "is a tool", "valid_from": "2000-01-01"});
    let listed = json!([{"content": "is old", "valid_to": "2050-01-01"}, "is new"]);
    // A time that the item gives for its list is told of by the text that did not take it.
    let for_all = json!({"entity": "a", "observations": ["is newer", "is old"], "valid_from": "2000-01-01"});
    let items = [alone, json!({"entity": "a", "observations": listed}), for_all];
    let told =
        [json!(["valid_from"]), json!(["observations[0].valid_to"]), json!(["observations[1].valid_from"])];
    let not_taken = |results: &[Value]| -> Vec<Value> {
        results.iter().map(|result| result["not_taken"].clone()).collect()
    };
    let body = json!({"agent_id": "ada", "observations": items});
    let answer = server.post("/memory/observations/batch", &body).expect(201).json();
    assert_eq!(not_taken(answer["results"].as_array().unwrap()), told, "{answer}");
    let lines: Vec<String> = items.iter().map(ToString::to_string).collect();
    let ask = server.ask("POST", "/memory/observations/batch?agent_id=ada").lines(&lines.join("\n"));
    assert_eq!(not_taken(&ask.send().expect(200).lines()), told);

    let blank = json!({"entity": "a", "content": " "});
    let unlisted = json!({"entity": "a", "observations": [" "]});
    let empty = json!({"entity": "a", "observations": []});
    for (item, field) in [(&blank, "content"), (&unlisted, "observations[0]"), (&empty, "observations")] {
        let atomic = json!({"agent_id": "ada", "observations": [item]});
        let problem = server.post("/memory/observations/batch", &atomic).problem(422, "INVALID_ENTITY_DATA");
        assert_eq!(problem["field"], format!("observations[0].{field}"));
        let ask = server.ask("POST", "/memory/observations/batch?agent_id=ada").lines(&item.to_string());
        assert_eq!(ask.send().expect(200).lines()[0]["field"], field);
    }
}

/// The observations of an entity with their times, in the order they were added.
fn times(server: &Server, name: &str) -> Vec<(String, Value, Value)> {
    let rows = server.get(&format!("/memory/entities/{name}/observations?agent_id=ada")).expect(200).json();
    let row = |row: &Value| {
        let text = row["content"].as_str().unwrap().to_owned();
        (text, row["valid_from"].clone(), row["valid_to"].clone())
    };
    rows["observations"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn the_times_of_an_item_are_those_of_each_text_that_has_none_of_its_own() {
    let server = Server::start();
    let texts = json!([
        "outer",
        {"content": "outer too"},
        {"content": "inner", "valid_to": "2030-01-01"},
        {"content": "always", "valid_from": null},
    ]);
    let (from, to) = (json!("2024-01-01T00:00:00.000000Z"), json!("2025-01-01T00:00:00.000000Z"));
    let then = [
        ("outer".to_owned(), from.clone(), to.clone()),
        ("outer too".to_owned(), from, to),
        ("inner".to_owned(), Value::Null, json!("2030-01-01T00:00:00.000000Z")),
        ("always".to_owned(), Value::Null, Value::Null),
    ];
    let item = |name: &str| {
        json!({
            "entity": name, "observations": texts, "valid_from": "2024-01-01", "valid_to": "2025-01-01",
        })
    };
    for name in ["batch", "line"] {
        server.entity(name, "Tool", &[]);
    }
    let body = json!({"agent_id": "ada", "observations": [item("batch")]});
    server.post("/memory/observations/batch", &body).expect(201);
    let ask = server.ask("POST", "/memory/observations/batch?agent_id=ada").lines(&item("line").to_string());
    assert_eq!(ask.send().expect(200).lines()[0]["status"], "created");
    // The times of an entity are its own, and none of its observations.
    let entity = json!({"agent_id": "ada", "entities": [{
        "entity_name": "entity", "entity_type": "Tool", "observations": ["always"], "valid_from": "2024-01-01",
    }]});
    server.post("/memory/entities/batch", &entity).expect(201);
    assert_eq!(times(&server, "batch"), then);
    assert_eq!(times(&server, "line"), then);
    assert_eq!(times(&server, "entity"), then[3..]);

    let mut never = item("batch");
    never["valid_to"] = json!("2023-01-01");
    let body = json!({"agent_id": "ada", "observations": [never]});
    let problem = server.post("/memory/observations/batch", &body).problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["field"], "observations[0].valid_to");
}

#[test]
fn an_item_says_one_content_or_a_list_and_each_fault_is_told_once() {
    let server = Server::start();
    server.entity("a", "Tool", &[]);
    for (item, field, told) in [
        (json!({"entity": "a", "content": "x", "observations": ["y"]}), "content", "observations"),
        (json!({"entity": "a", "content": "x", "observations": []}), "content", "observations"),
        (json!({"entity": "a", "content": 123}), "content", "must be a text"),
        (json!({"entity": 7, "content": "x"}), "entity", "must be a text"),
        (json!({"entity": "a", "observations": "x"}), "observations", "must be a list"),
        (json!({"entity": "a", "content": null}), "content", "is missing"),
        (json!({"entity": null, "content": "x"}), "entity", "is missing"),
    ] {
        let body = json!({"agent_id": "ada", "observations": [item]});
        let problem = server.post("/memory/observations/batch", &body).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], format!("observations[0].{field}"), "{item}");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(told), "{problem}");
        let ask = server.ask("POST", "/memory/observations/batch?agent_id=ada").lines(&item.to_string());
        let line = &ask.send().expect(200).lines()[0];
        assert_eq!((&line["http_status"], &line["field"]), (&json!(422), &json!(field)), "{item}");
    }
    let beside = json!({"entity": "a", "content": "x", "observations": null});
    let body = json!({"agent_id": "ada", "observations": [beside]});
    server.post("/memory/observations/batch", &body).expect(201);
    assert_eq!(times(&server, "a").len(), 1);
}

#[test]
fn every_bad_item_of_a_batch_is_named() {
    let server = Server::start();
    let body = json!({"agent_id": "ada", "entities": [
        {"entity_name": "a", "entity_type": "Tool", "confidence": 2},
        {"entity_nam": "b", "entity_type": "Tool"},
        "c",
    ]});
    let problem = server.post("/memory/entities/batch", &body).problem(422, "VALIDATION_ERROR");
    let fields: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
    assert!(fields.contains(&"entities[0].confidence"), "{fields:?}");
    assert!(fields.contains(&"entities[1].entity_nam"), "{fields:?}");
    assert!(fields.contains(&"entities[1].entity_name"), "{fields:?}");
    assert!(fields.contains(&"entities[2]"), "{fields:?}");
    let many: Vec<Value> = (0..101).map(|index| entity(&index.to_string())).collect();
    let problem = server.post("/memory/entities/batch", &json!({"agent_id": "ada", "entities": many}));
    assert_eq!(problem.problem(422, "VALIDATION_ERROR")["field"], "entities");
    let empty = server.post("/memory/entities/batch", &json!({"agent_id": "ada", "entities": []}));
    assert_eq!(empty.problem(422, "VALIDATION_ERROR")["field"], "entities");
}

#[test]
fn bad_items_of_every_kind_are_told_in_one_answer() {
    let server = Server::start();
    for name in ["a", "b"] {
        server.entity(name, "Tool", &[]);
    }
    let head = server.engine.log().head().seq;
    let told = |path: &str, body: &Value| {
        let problem = server.post(path, body).problem(422, "VALIDATION_ERROR");
        let text = |error: &Value, name: &str| error[name].as_str().unwrap().to_owned();
        let errors = problem["errors"].as_array().unwrap().iter();
        errors.map(|error| (text(error, "field"), text(error, "code"))).collect::<Vec<_>>()
    };
    let then = |rows: &[(&str, &str)]| -> Vec<(String, String)> {
        rows.iter().map(|(field, code)| ((*field).to_owned(), (*code).to_owned())).collect()
    };
    let relation = |to: &str, strength: Value| json!({"from_entity": "a", "to_entity": to, "relation_type": "near", "strength": strength});
    let relations = [relation("nobody", json!(0.5)), relation("b", json!("x")), relation("b", json!(0.5))];
    let unread = ("relations[1].strength", "VALIDATION_ERROR");
    assert_eq!(
        told("/memory/relations/batch", &json!({"agent_id": "ada", "relations": relations})),
        then(&[unread, ("relations[0].to_entity", "ENTITY_NOT_FOUND")])
    );
    // Who asks is not known: what there is for them is not either.
    assert_eq!(
        told("/memory/relations/batch", &json!({"agent_id": "a b", "relations": relations})),
        then(&[("agent_id", "VALIDATION_ERROR"), unread])
    );
    let observations = json!([
        {"entity": "a", "content": " "},
        {"entity": "nobody", "content": "x"},
        {"entity": "a", "content": 7},
    ]);
    assert_eq!(
        told("/memory/observations/batch", &json!({"agent_id": "ada", "observations": observations})),
        then(&[
            ("observations[2].content", "VALIDATION_ERROR"),
            ("observations[0].content", "INVALID_ENTITY_DATA"),
            ("observations[1].entity", "ENTITY_NOT_FOUND"),
        ])
    );
    assert_eq!(server.engine.log().head().seq, head, "something was written");
}

#[test]
fn observations_and_relations_come_in_batches_too() {
    let server = Server::start();
    let ada = server.entity("Ada", "Person", &[]);
    server.entity("Byron", "Person", &[]);
    let body = json!({"agent_id": "ada", "observations": [
        {"entity": "Ada", "content": "likes tea"},
        {"entity_id": ada["entity_id"], "observations": ["plays chess", "writes notes"]},
    ]});
    let answer = server.post("/memory/observations/batch", &body).expect(201).json();
    assert_eq!(answer["results"][1]["observation_ids"].as_array().unwrap().len(), 2);
    let shown = server.get("/memory/entities/Ada?agent_id=ada").json();
    assert_eq!(shown["observation_count"], 3);
    let bad = json!({"agent_id": "ada", "observations": [{"entity": "Ada"}, {"content": "x"}]});
    let problem = server.post("/memory/observations/batch", &bad).problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["errors"][0]["field"], "observations[0].content");
    assert_eq!(problem["errors"][1]["field"], "observations[1].entity");

    let body = json!({"agent_id": "ada", "relations": [
        {"from_entity": "Ada", "to_entity": "Byron", "relation_type": "daughter_of"},
        {"from_entity": "Ada", "to_entity": "Byron", "relation_type": "admires", "strength": 0.4},
    ]});
    let answer = server.post("/memory/relations/batch", &body).expect(201).json();
    assert_eq!(answer["relations_created"], 2);
    assert!(answer["results"][0]["relation_id"].as_str().unwrap().starts_with("rel_"));
}

#[test]
fn an_observation_that_names_its_entity_twice_names_one() {
    let server = Server::start();
    let ada = server.entity("Ada", "Person", &[]);
    server.entity("Byron", "Person", &[]);
    let id = ada["entity_id"].as_str().unwrap();
    let (differs, again) = ("is not what", "names the entity again beside");
    for (names, field, other, value, why) in [
        (json!({"entity": "Ada", "entity_name": "Byron"}), "entity_name", "entity", "Byron", differs),
        (json!({"entity": id, "entity_id": "ent_99"}), "entity_id", "entity", "ent_99", differs),
        // Whether a name and an id are the same entity is not looked up, nor said.
        (json!({"entity": "Ada", "entity_id": id}), "entity_id", "entity", id, again),
        (json!({"entity_id": id, "entity_name": "Ada"}), "entity_name", "entity_id", "Ada", again),
    ] {
        let mut item = names.clone();
        item["content"] = json!("likes tea");
        let body = json!({"agent_id": "ada", "observations": [item]});
        let problem = server.post("/memory/observations/batch", &body).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], format!("observations[0].{field}"), "{names}");
        assert_eq!(problem["value"], value, "{names}");
        let (told, given) = (problem["detail"].as_str().unwrap(), names[other].as_str().unwrap());
        assert!(told.contains(why) && told.contains(other) && told.contains(&format!("{given:?}")), "{told}");
        assert!(problem["remedy"].as_str().unwrap().contains("leave one of them out"), "{problem}");
        let ask = server.ask("POST", "/memory/observations/batch?agent_id=ada").lines(&item.to_string());
        let line = &ask.send().expect(200).lines()[0];
        assert_eq!((&line["http_status"], &line["field"]), (&json!(422), &json!(field)), "{names}");
    }
    let count = |name: &str| {
        server.get(&format!("/memory/entities/{name}?agent_id=ada")).json()["observation_count"].clone()
    };
    assert_eq!((count("Ada"), count("Byron")), (json!(0), json!(0)));
    let same = json!({"entity": "Ada", "entity_name": "Ada", "content": "likes tea"});
    server
        .post("/memory/observations/batch", &json!({"agent_id": "ada", "observations": [same]}))
        .expect(201);
    assert_eq!(count("Ada"), 1);
}

#[test]
fn lines_stand_each_for_itself() {
    let server = Server::start();
    let mut text = String::new();
    for index in 0..600 {
        let _ = writeln!(text, "{}", entity(&format!("tool {index}")));
    }
    text.push_str("{\"entity_name\": \"half\n\n");
    let _ = writeln!(text, "{}", json!({"entity_name": "x", "entity_type": ""}));
    let _ = writeln!(text, "{}", json!({"entity_name": "x", "entity_typ": "Tool"}));
    let _ = writeln!(text, "{}", entity("last"));
    let reply = server.ask("POST", "/memory/entities/batch?agent_id=ada").lines(&text).send().expect(200);
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let results = reply.lines();
    assert_eq!(results.len(), 604);
    assert!(results[..600].iter().all(|line| line["status"] == "created" && line["seq"].is_u64()));
    assert_eq!((&results[600]["line"], &results[600]["code"]), (&json!(601), &json!("MALFORMED_JSON")));
    let told = results[600]["message"].as_str().unwrap();
    assert!(told.ends_with("at column 21 of the line"), "{told}");
    assert_eq!((&results[601]["line"], &results[601]["field"]), (&json!(603), &json!("entity_type")));
    let statuses: Vec<&Value> = results[600..603].iter().map(|line| &line["http_status"]).collect();
    assert_eq!(statuses, [&json!(400), &json!(422), &json!(422)]);
    assert_eq!(results[602]["field"], "entity_typ");
    assert_eq!((&results[603]["entity_name"], &results[603]["status"]), (&json!("last"), &json!("created")));
    let stats = server.get("/memory/stats?agent_id=ada").json();
    assert_eq!(stats["global_stats"]["total_entities"], 601);

    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}",
        json!({"from_entity": "tool 1", "to_entity": "tool 2", "relation_type": "near"})
    );
    let _ = writeln!(
        text,
        "{}",
        json!({"from_entity": "tool 1", "to_entity": "nothing", "relation_type": "near"})
    );
    let results =
        server.ask("POST", "/memory/relations/batch?agent_id=ada").lines(&text).send().expect(200).lines();
    assert_eq!(results[0]["status"], "created");
    assert_eq!((&results[1]["code"], &results[1]["http_status"]), (&json!("ENTITY_NOT_FOUND"), &json!(404)));
}

#[test]
fn an_item_that_cannot_be_read_fails_alone_when_asked_so() {
    let server = Server::start();
    let bad = json!({"entity_name": "b"});
    let apart = json!({"entities": [bad, entity("a")], "atomic": false});
    let answer = server.post("/memory/entities/batch", &apart).expect(207).json();
    let first = &answer["results"][0];
    assert_eq!((&first["status"], &first["field"]), (&json!("failed"), &json!("entities[0].entity_type")));
    assert_eq!((&answer["results"][1]["status"], &answer["failed_entities"]), (&json!("created"), &json!(1)));
    let none = json!({"entities": [bad], "atomic": false});
    server.post("/memory/entities/batch", &none).problem(422, "VALIDATION_ERROR");
}
