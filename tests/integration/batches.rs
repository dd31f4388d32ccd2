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
    let mut both = alone.clone();
    both["observations"] = listed.clone();
    // What the list says already is not said by the content: its time is not taken either.
    let mut twice = alone.clone();
    twice["observations"] = json!(["is old", "is a tool"]);
    let items = [alone, both, json!({"entity": "a", "observations": listed}), twice];
    let of_list = "observations[0].valid_to";
    let told =
        [json!(["valid_from"]), json!([of_list, "valid_from"]), json!([of_list]), json!(["valid_from"])];
    let not_taken = |results: &[Value]| -> Vec<Value> {
        results.iter().map(|result| result["not_taken"].clone()).collect()
    };
    let body = json!({"agent_id": "ada", "observations": items});
    let answer = server.post("/memory/observations/batch", &body).expect(201).json();
    assert_eq!(not_taken(answer["results"].as_array().unwrap()), told, "{answer}");
    let lines: Vec<String> = items.iter().map(ToString::to_string).collect();
    let ask = server.ask("POST", "/memory/observations/batch?agent_id=ada").lines(&lines.join("\n"));
    assert_eq!(not_taken(&ask.send().expect(200).lines()), told);

    let blank = json!({"entity": "a", "content": " ", "observations": ["is fine"]});
    let unlisted = json!({"entity": "a", "content": "is fine", "observations": [" "]});
    for (item, field) in [(&blank, "content"), (&unlisted, "observations[0]")] {
        let atomic = json!({"agent_id": "ada", "observations": [item]});
        let problem = server.post("/memory/observations/batch", &atomic).problem(422, "INVALID_ENTITY_DATA");
        assert_eq!(problem["field"], format!("observations[0].{field}"));
        let ask = server.ask("POST", "/memory/observations/batch?agent_id=ada").lines(&item.to_string());
        assert_eq!(ask.send().expect(200).lines()[0]["field"], field);
    }
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
    for (names, field, other, value) in [
        (json!({"entity": "Ada", "entity_name": "Byron"}), "entity_name", "entity", "Byron"),
        (json!({"entity": "Byron", "entity_id": id}), "entity_id", "entity", id),
        // Whether a name and an id are the same entity is not looked up.
        (json!({"entity_id": id, "entity_name": "Ada"}), "entity_name", "entity_id", "Ada"),
    ] {
        let mut item = names.clone();
        item["content"] = json!("likes tea");
        let body = json!({"agent_id": "ada", "observations": [item]});
        let problem = server.post("/memory/observations/batch", &body).problem(422, "VALIDATION_ERROR");
        assert_eq!(problem["field"], format!("observations[0].{field}"), "{names}");
        assert_eq!(problem["value"], value, "{names}");
        let (told, given) = (problem["detail"].as_str().unwrap(), names[other].as_str().unwrap());
        assert!(told.contains(&format!("is not what {other} says beside it, {given:?}")), "{told}");
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
