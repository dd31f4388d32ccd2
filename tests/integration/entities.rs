//! Entities: created, read, listed, changed, removed, remembered.

use serde_json::json;

use super::cli::{check, check_failure};
use super::server::Server;

#[test]
fn an_entity_is_created_and_read_by_id_and_by_name() {
    let server = Server::start();
    let body = json!({
        "agent_id": "ada", "entity_name": "café/Zürich", "entity_type": "Place",
        "observations": ["opens at seven", {"content": "sells cake", "valid_from": "2026-01-01"}],
        "metadata": {"source": "walk"}, "confidence": 0.9,
        "valid_from": "2020-01-01T00:00:00Z", "valid_to": "2030-01-01T00:00:00+01:00",
    });
    let reply = server.post("/memory/entities", &body).expect(201);
    let created = reply.json();
    assert_eq!(created["status"], "created");
    assert_eq!(created["entity_name"], "café/Zürich");
    assert_eq!(created["entity_type"], "Place");
    assert_eq!(created["observation_count"], 2);
    assert_eq!(created["memory_scope"], "agent");
    assert_eq!(created["agent_id"], "ada");
    assert_eq!(created["version"], 1);
    assert_eq!(created["embedding_generated"], false);
    assert!(created["created_at"].is_string() && created["updated_at"].is_string());
    let id = created["entity_id"].as_str().unwrap();
    assert!(id.starts_with("ent_"));
    assert_eq!(reply.header("location"), Some(format!("/api/v1/memory/entities/{id}").as_str()));
    assert_eq!(reply.header("caxton-seq"), Some(created["seq"].to_string().as_str()));

    let by_id = server.get(&format!("/memory/entities/{id}?agent_id=ada")).expect(200).json();
    let by_name = server.get("/memory/entities/caf%C3%A9%2FZ%C3%BCrich?agent_id=ada").expect(200).json();
    assert_eq!(by_id, by_name);
    assert_eq!(by_id["metadata"], json!({"source": "walk"}));
    assert_eq!(by_id["confidence"], 0.9);
    assert_eq!(by_id["valid_to"], "2029-12-31T23:00:00.000000Z");
    assert_eq!(by_id["observations"][0]["content"], "opens at seven");
    assert_eq!(by_id["observations"][1]["valid_from"], "2026-01-01T00:00:00.000000Z");
    assert_eq!(by_id["observations"][1]["observation_id"], created["observation_ids"][1]);
}

#[test]
fn creating_again_merges_and_says_so() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let again = json!({
        "agent_id": "ada", "entity_name": "Ada", "entity_type": "Person",
        "observations": ["likes tea", "plays chess"],
    });
    let merged = server.post("/memory/entities", &again).expect(200).json();
    assert_eq!(merged["status"], "updated");
    assert_eq!(merged["observation_count"], 2);
    let same = server.post("/memory/entities", &again).expect(200).json();
    assert_eq!(same["status"], "unchanged");
    assert_eq!(same["observation_count"], 2);
    let mut other = again;
    other["entity_type"] = json!("Robot");
    let problem = server.post("/memory/entities", &other).problem(409, "ENTITY_TYPE_CONFLICT");
    assert_eq!(problem["field"], "entity_type");
    other["on_existing"] = json!("refuse");
    other["entity_type"] = json!("Person");
    server.post("/memory/entities", &other).problem(409, "ALREADY_EXISTS");
    other["on_existing"] = json!("skip");
    assert_eq!(server.post("/memory/entities", &other).expect(200).json()["status"], "skipped");
}

#[test]
fn a_merge_names_what_it_did_not_take() {
    let server = Server::start();
    let body = json!({
        "agent_id": "ada", "entity_name": "Ada", "entity_type": "Person", "observations": ["likes tea"],
        "metadata": {"source": "letters", "page": 7}, "confidence": 0.5, "valid_from": "1985-12-10",
    });
    let path = "/memory/entities/Ada?agent_id=ada";
    let created = server.post("/memory/entities", &body).expect(201).json();
    assert_eq!(created.get("not_taken"), None);
    let kept = server.get(path).expect(200).json();
    let again = |body: &serde_json::Value, status: &str, not_taken: &[&str]| {
        for wait in ["durable", "applied"] {
            let answer = server.post(&format!("/memory/entities?wait={wait}"), body).expect(200).json();
            let status = if wait == "durable" { status } else { "unchanged" };
            assert_eq!(answer["status"], status, "{wait}: {answer}");
            let told = answer.get("not_taken").cloned().unwrap_or_else(|| json!([]));
            assert_eq!(told, json!(not_taken), "{wait}: {answer}");
        }
    };
    // The same, and nothing but what is required: nothing is lost.
    again(&body, "unchanged", &[]);
    let bare = json!({"agent_id": "ada", "entity_name": "Ada", "entity_type": "Person"});
    again(&bare, "unchanged", &[]);
    let mut other = body.clone();
    for (member, value) in [
        ("metadata", json!({"source": "hearsay"})),
        ("confidence", json!(1)),
        ("valid_from", json!("1986-01-01")),
        ("valid_to", json!("2052-11-27")),
        ("observations", json!([{"content": "likes tea", "valid_from": "2000-01-01"}])),
    ] {
        other[member] = value;
    }
    let all = ["metadata", "confidence", "valid_from", "valid_to", "observations[0].valid_from"];
    again(&other, "unchanged", &all);
    other["observations"] = json!(["plays chess"]);
    again(&other, "updated", &all[..4]);
    let now = server.get(path).expect(200).json();
    for member in ["metadata", "confidence", "valid_from", "valid_to", "version"] {
        assert_eq!(now[member], kept[member], "{member}");
    }
    // What makes it as asked takes all of it but the time of a text that is there.
    other["on_existing"] = json!("update");
    other["observations"] = json!([{"content": "likes tea", "valid_from": "2000-01-01"}]);
    again(&other, "updated", &all[4..]);
}

#[test]
fn a_thing_of_another_type_is_extended_where_the_request_says_so() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let mut body = json!({
        "agent_id": "ada", "entity_name": "Ada", "entity_type": "thing", "observations": ["plays chess"],
    });
    server.post("/memory/entities", &body).problem(409, "ENTITY_TYPE_CONFLICT");
    body["on_existing"] = json!("extend");
    let extended = server.post("/memory/entities", &body).expect(200).json();
    assert_eq!(
        (&extended["status"], &extended["entity_type"], &extended["observation_count"]),
        (&json!("updated"), &json!("Person"), &json!(2))
    );
    assert_eq!(server.post("/memory/entities", &body).expect(200).json()["status"], "unchanged");
    body["entity_name"] = json!("engine");
    assert_eq!(server.post("/memory/entities", &body).expect(201).json()["entity_type"], "thing");
}

#[test]
fn an_answer_tells_what_the_entity_is_whether_it_waits_or_not() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let ask = |method: &str, path: &str, body: &serde_json::Value, key: &str| {
        let ask = server.ask(method, path).json(body);
        let ask = if key.is_empty() { ask } else { ask.header("Idempotency-Key", key) };
        ask.send().expect(200).json()
    };
    for wait in ["durable", "applied"] {
        let path = format!("/memory/entities?agent_id=ada&wait={wait}");
        let add = |on_existing: &str, text: &str, key: &str| {
            let body = json!({
                "entity_name": "Ada", "entity_type": "thing", "observations": [text],
                "on_existing": on_existing,
            });
            let answer = ask("POST", &path, &body, key);
            (answer["status"].clone(), answer["entity_type"].clone())
        };
        let told = |status: &str, entity_type: &str| (json!(status), json!(entity_type));
        let text = format!("waits until it is {wait}");
        // The same request again is answered from what was kept.
        for _ in 0..2 {
            assert_eq!(add("extend", &text, wait), told("updated", "Person"), "{wait}");
        }
        assert_eq!(add("extend", &text, ""), told("unchanged", "Person"), "{wait}");
        assert_eq!(add("skip", &text, ""), told("skipped", "Person"), "{wait}");
        assert_eq!(add("update", &text, ""), told("updated", "thing"), "{wait}");
        let path = format!("/memory/entities/Ada?agent_id=ada&wait={wait}");
        let sure = ask("PATCH", &path, &json!({"confidence": 0.5}), "");
        assert_eq!((&sure["entity_name"], &sure["entity_type"]), (&json!("Ada"), &json!("thing")), "{wait}");
        let back = ask("PATCH", &path, &json!({"entity_type": "Person"}), "");
        assert_eq!((&back["entity_name"], &back["entity_type"]), (&json!("Ada"), &json!("Person")), "{wait}");
    }
}

#[test]
fn the_command_line_adds_to_a_thing_of_any_type_unless_it_names_one() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let url = format!("http://{}", server.address);
    let add = ["--url", url.as_str(), "memory", "add", "--agent", "ada"];
    let with = |args: &[&'static str]| [&add[..], args].concat();
    check(&with(&["Ada", "plays chess"]), &["updated Ada", "2 observations"]);
    check_failure(&with(&["Ada", "is a robot", "--type", "Robot"]), 5, "ENTITY_TYPE_CONFLICT");
    check(&with(&["Ada", "plays chess", "--type", "Person"]), &["unchanged Ada"]);
    check(&with(&["engine", "is brass"]), &["created engine"]);
    let entity_type = |name: &str| {
        let path = format!("/memory/entities/{name}?agent_id=ada");
        server.get(&path).expect(200).json()["entity_type"].clone()
    };
    assert_eq!([entity_type("Ada"), entity_type("engine")], [json!("Person"), json!("thing")]);
    let lost = with(&["Ada", "plays chess", "--metadata", "{\"k\": 1}"]);
    check(&lost, &["unchanged Ada", "not taken: metadata"]);
}

#[test]
fn what_one_agent_notes_another_does_not_see() {
    let server = Server::start();
    let own = server.entity("secret", "Note", &["mine alone"]);
    let id = own["entity_id"].as_str().unwrap();
    let shared = json!({
        "agent_id": "ada", "workspace": "lab", "memory_scope": "workspace",
        "entity_name": "shared", "entity_type": "Note", "observations": ["for the lab"],
    });
    server.post("/memory/entities", &shared).expect(201);

    for path in ["secret", id] {
        let path = format!("/memory/entities/{path}?agent_id=bob&workspace=lab");
        server.get(&path).problem(404, "ENTITY_NOT_FOUND");
        server.delete(&path).problem(404, "ENTITY_NOT_FOUND");
        let body = json!({"entity_type": "Stolen"});
        server.ask("PATCH", &path).json(&body).send().problem(404, "ENTITY_NOT_FOUND");
    }
    server.get("/memory/entities/shared?agent_id=bob&workspace=lab").expect(200);
    server.get("/memory/entities/shared?agent_id=bob&workspace=other").problem(404, "ENTITY_NOT_FOUND");
    server.get("/memory/entities/shared?agent_id=bob&workspace=lab&memory_scope=agent").expect(404);
    let by_header = server.ask("GET", &format!("/memory/entities/{id}")).header("X-Caxton-Agent", "ada");
    by_header.send().expect(200);
    // The scope of a write is the agent's own: the workspace's entity is not touched by its name alone.
    server.delete("/memory/entities/shared?agent_id=ada&workspace=lab").problem(404, "ENTITY_NOT_FOUND");
    server.delete("/memory/entities/shared?agent_id=ada&workspace=lab&memory_scope=workspace").expect(200);
}

#[test]
fn a_write_by_id_touches_only_the_scope_it_names() {
    let server = Server::start();
    let create = |name: &str| {
        let body = json!({
            "agent_id": "ada", "memory_scope": "global", "entity_name": name, "entity_type": "Note",
            "observations": ["for everybody"],
        });
        server.post("/memory/entities", &body).expect(201).json()
    };
    let (tea, rain) = (create("tea"), create("rain"));
    let (id, note) = (tea["entity_id"].as_str().unwrap(), tea["observation_ids"][0].as_str().unwrap());
    let relation = json!({
        "agent_id": "ada", "memory_scope": "global", "from_entity": id, "to_entity": rain["entity_id"],
        "relation_type": "suits",
    });
    let related = server.post("/memory/relations", &relation).expect(201).json();
    let suits = related["relation_id"].as_str().unwrap();
    let rows = [
        (format!("/memory/relations/{suits}"), "RELATION_NOT_FOUND", json!({"strength": 0.1})),
        (format!("/memory/observations/{note}"), "OBSERVATION_NOT_FOUND", json!({"content": "mine"})),
        (format!("/memory/entities/{id}"), "ENTITY_NOT_FOUND", json!({"entity_type": "Mine"})),
    ];
    for (path, code, change) in &rows {
        for scope in ["agent", "workspace"] {
            let path = format!("{path}?agent_id=ada&memory_scope={scope}");
            server.delete(&path).problem(404, code);
            server.ask("PATCH", &path).json(change).send().problem(404, code);
        }
    }
    let more = json!({"observations": ["for ada"]});
    let path = format!("/memory/entities/{id}/observations?agent_id=ada&memory_scope=agent");
    server.post(&path, &more).problem(404, "ENTITY_NOT_FOUND");
    let batch = json!({
        "agent_id": "ada", "memory_scope": "agent", "observations": [{"entity_id": id, "content": "for ada"}],
    });
    server.post("/memory/observations/batch", &batch).problem(404, "ENTITY_NOT_FOUND");
    // The ends of a relation may lie in wider scopes than the relation.
    let own = json!({
        "agent_id": "ada", "memory_scope": "agent", "from_entity": id, "to_entity": rain["entity_id"],
        "relation_type": "likes",
    });
    server.post("/memory/relations", &own).expect(201);
    for (path, ..) in &rows {
        server.delete(&format!("{path}?agent_id=ada&memory_scope=global")).expect(200);
    }
    // Without a scope an id is enough.
    let rain = rain["entity_id"].as_str().unwrap();
    server.delete(&format!("/memory/entities/{rain}?agent_id=ada")).expect(200);
}

#[test]
fn entities_are_listed_page_by_page() {
    let server = Server::start();
    for index in 0..7 {
        let entity_type = if index % 2 == 0 { "Even" } else { "Odd" };
        server.entity(&format!("number {index}"), entity_type, &["a number"]);
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    let mut pages = 0;
    loop {
        let path = format!("/memory/entities?agent_id=ada&limit=3{cursor}");
        let page = server.get(&path).expect(200).json();
        let entities = page["entities"].as_array().unwrap();
        names.extend(entities.iter().map(|entity| entity["entity_name"].as_str().unwrap().to_owned()));
        assert!(entities.iter().all(|entity| entity["observation_count"] == 1));
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(names, (0..7).map(|index| format!("number {index}")).collect::<Vec<_>>());

    let count = |query: &str| {
        let page = server.get(&format!("/memory/entities?agent_id=ada&{query}")).expect(200).json();
        page["count"].as_u64().unwrap()
    };
    assert_eq!(count("entity_types=Odd"), 3);
    assert_eq!(count("entity_types=Odd,Even"), 7);
    assert_eq!(count("name_prefix=number%206"), 1);
    assert_eq!(count("memory_scope=global"), 0);
    let shown = server.get("/memory/entities?agent_id=ada&include_observations=true&limit=1").json();
    assert_eq!(shown["entities"][0]["observations"][0]["content"], "a number");
}

#[test]
fn a_change_keeps_what_it_does_not_name_and_a_replacement_does_not() {
    let server = Server::start();
    let body = json!({
        "agent_id": "ada", "entity_name": "Ada", "entity_type": "Person", "observations": ["likes tea"],
        "metadata": {"k": 1}, "confidence": 0.5, "valid_from": "2020-01-01",
    });
    server.post("/memory/entities", &body).expect(201);
    let path = "/memory/entities/Ada?agent_id=ada";
    let patched =
        server.ask("PATCH", path).json(&json!({"entity_type": "Countess"})).send().expect(200).json();
    assert_eq!((&patched["status"], &patched["version"]), (&json!("updated"), &json!(2)));
    let shown = server.get(path).json();
    assert_eq!(shown["entity_type"], "Countess");
    assert_eq!(shown["metadata"], json!({"k": 1}));
    assert_eq!(shown["confidence"], 0.5);

    server
        .ask("PATCH", path)
        .json(&json!({"metadata": null, "valid_from": null, "valid_to": null}))
        .send()
        .expect(200);
    let shown = server.get(path).json();
    assert_eq!((&shown["metadata"], &shown["valid_from"]), (&json!(null), &json!(null)));
    assert_eq!(shown["entity_type"], "Countess");

    let half = server.ask("PATCH", path).json(&json!({"valid_from": "2021-01-01"})).send();
    assert_eq!(half.problem(422, "VALIDATION_ERROR")["field"], "valid_to");

    let renamed = json!({"entity_type": "Person", "entity_name": "Ada Lovelace"});
    server.ask("PUT", path).json(&renamed).send().expect(200);
    let shown = server.get("/memory/entities/Ada%20Lovelace?agent_id=ada").expect(200).json();
    assert_eq!((&shown["confidence"], &shown["observation_count"]), (&json!(1.0), &json!(1)));
    server.get(path).problem(404, "ENTITY_NOT_FOUND");
}

#[test]
fn a_condition_that_nothing_looks_at_is_refused() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let path = "/memory/observations/obs_2?agent_id=ada";
    let tag = server.get(path).expect(200).header("etag").unwrap().to_owned();
    let change = json!({"content": "likes coffee"});
    for (method, path, body) in [
        ("PATCH", path, &change),
        ("DELETE", path, &json!({})),
        ("POST", "/memory/entities/Ada/observations?agent_id=ada", &json!({"observations": ["x"]})),
    ] {
        let told = server.ask(method, path).header("If-Match", &tag).json(body).send();
        let told = told.problem(422, "VALIDATION_ERROR");
        assert_eq!((&told["field"], &told["value"]), (&json!("If-Match"), &json!(tag)), "{method}");
    }
    server.ask("PATCH", path).header("If-Match", "*").json(&change).send().expect(200);
}

#[test]
fn whose_memory_is_taken_away_stands_in_no_body() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let body = json!({"agent_id": "ada", "memory_scope": "global"});
    for path in [
        "/memory/entities/Ada?agent_id=ada",
        "/memory/observations/obs_2?agent_id=ada",
        "/memory/relations/rel_2?agent_id=ada",
        "/memory/ada?confirm=true",
    ] {
        let told = server.ask("DELETE", path).json(&body).send().problem(422, "VALIDATION_ERROR");
        assert_eq!(told["field"], "body", "{path}");
        assert!(told["remedy"].as_str().unwrap().contains("are parameters"), "{told}");
    }
    server.get("/memory/entities/Ada?agent_id=ada").expect(200);
    server.ask("DELETE", "/memory/entities/Ada?agent_id=ada").json(&json!({})).send().expect(200);
}

#[test]
fn a_stale_change_is_refused() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let path = "/memory/entities/Ada?agent_id=ada";
    let tag = server.get(path).expect(200).header("etag").unwrap().to_owned();
    assert!(tag.starts_with("W/\"1-"), "{tag}");
    let change = |name: &str, value: &str| {
        server.ask("PATCH", path).header(name, value).json(&json!({"entity_type": "Countess"})).send()
    };
    change("If-Match", &tag).expect(200);
    let stale = change("If-Match", &tag).problem(412, "VERSION_CONFLICT");
    assert_eq!((&stale["field"], &stale["value"]), (&json!("If-Match"), &json!(tag)));
    assert_eq!(stale["errors"][0]["field"], "If-Match");
    change("If-Match", "\"2\"").expect(200);
    change("If-Match", "*").expect(200);
    assert_eq!(change("If-Match", "\"new\"").problem(422, "VALIDATION_ERROR")["field"], "If-Match");
    let delete =
        |tag: &str| server.ask("DELETE", "/memory/entities/Ada?agent_id=ada").header("If-Match", tag).send();
    assert_eq!(delete(&tag).problem(412, "VERSION_CONFLICT")["field"], "If-Match");
    server.get("/memory/entities/Ada?agent_id=ada").expect(200);
    let stale = json!({"entity_type": "Robot", "expected_version": 1});
    // Any version will do for `*`: then it is the body that asks for one.
    for ask in [server.ask("PATCH", path), server.ask("PATCH", path).header("If-Match", "*")] {
        let problem = ask.json(&stale).send().problem(409, "VERSION_CONFLICT");
        assert_eq!((&problem["field"], &problem["value"]), (&json!("expected_version"), &json!("1")));
    }
}

#[test]
fn a_tag_is_of_one_entity_and_not_of_another_with_its_name() {
    let server = Server::start();
    let first = server.entity("Ada", "Person", &[]);
    let path = "/memory/entities/Ada?agent_id=ada";
    let tag = server.get(path).expect(200).header("etag").unwrap().to_owned();
    let id = first["entity_id"].as_str().unwrap();
    assert!(tag.starts_with(&format!("W/\"1-{id}-")), "{tag}");
    server.delete(path).expect(200);
    server.entity("Ada", "Robot", &[]);
    let ask = |method: &str, tag: &str| server.ask(method, path).header("If-Match", tag);
    let change = json!({"confidence": 0.5});
    let stale = ask("PATCH", &tag).json(&change).send().problem(412, "VERSION_CONFLICT");
    assert_eq!((&stale["field"], &stale["value"]), (&json!("If-Match"), &json!(tag)));
    assert!(stale["detail"].as_str().unwrap().contains(&format!("not {id}")), "{stale}");
    let whole = json!({"entity_type": "Person"});
    ask("PUT", &tag).json(&whole).send().problem(412, "VERSION_CONFLICT");
    ask("DELETE", &tag).send().problem(412, "VERSION_CONFLICT");
    // A version alone, and a tag of before, mean whatever has the name.
    ask("PATCH", "W/\"1-9f86d081884c7d65\"").json(&change).send().expect(200);
    ask("DELETE", "\"2\"").send().expect(200);
}

#[test]
fn a_removed_entity_takes_its_relations_along_and_leaves_its_history() {
    let server = Server::start();
    let ada = server.entity("Ada", "Person", &["likes tea"]);
    server.entity("Byron", "Person", &["wrote poems"]);
    server.relation("Ada", "Byron", "daughter_of");
    server
        .ask("PATCH", "/memory/entities/Ada?agent_id=ada")
        .json(&json!({"confidence": 0.7}))
        .send()
        .expect(200);
    let removed = server.delete("/memory/entities/Ada?agent_id=ada").expect(200).json();
    assert_eq!((&removed["status"], &removed["relations_deleted"]), (&json!("removed"), &json!(1)));
    server.delete("/memory/entities/Ada?agent_id=ada").problem(404, "ENTITY_NOT_FOUND");
    let relations = server.get("/memory/relations?agent_id=ada").expect(200).json();
    assert_eq!(relations["count"], 0);

    let id = ada["entity_id"].as_str().unwrap();
    let path = format!("/memory/entities/{id}/history?agent_id=ada");
    let history = server.get(&path).expect(200).json();
    let versions = history["versions"].as_array().unwrap();
    let of = |kind: &str| versions.iter().filter(|version| version["kind"] == kind).count();
    assert_eq!((of("entity"), of("observation"), of("relation")), (2, 1, 1), "{history}");
    assert!(versions.iter().all(|version| version["removed_seq"].is_u64()));
    let relation = &versions.iter().find(|version| version["kind"] == "relation").unwrap()["relation"];
    assert_eq!(
        (&relation["from_entity"], &relation["to_entity"]),
        (&json!("Ada"), &json!("Byron")),
        "{relation}"
    );
    let first = server.get(&format!("{path}&limit=2")).expect(200).json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("{path}&limit=2&cursor={cursor}")).expect(200).json();
    assert_eq!(rest["versions"].as_array().unwrap()[..], versions[2..]);
    server.get(&format!("/memory/entities/{id}/history?agent_id=bob")).problem(404, "ENTITY_NOT_FOUND");
}

#[test]
fn a_relation_of_a_history_has_the_names_of_its_time() {
    let server = Server::start();
    server.entity("Ada", "Person", &[]);
    server.entity("Byron", "Person", &[]);
    let knows = server.relation("Ada", "Byron", "knows");
    let change = |path: &str, body: serde_json::Value| {
        server.ask("PATCH", &format!("{path}?agent_id=ada")).json(&body).send().expect(200);
    };
    change("/memory/entities/Byron", json!({"entity_name": "Lord Byron"}));
    let relation = format!("/memory/relations/{}", knows["relation_id"].as_str().unwrap());
    change(&relation, json!({"strength": 1.0}));
    let ends = |query: &str| {
        let path = format!("/memory/entities/Ada/history?agent_id=ada{query}");
        let history = server.get(&path).expect(200).json();
        let versions = history["versions"].as_array().unwrap().iter();
        let relations = versions.filter(|version| version["kind"] == "relation");
        relations
            .map(|version| ["from_entity", "to_entity"].map(|end| version["relation"][end].clone()))
            .collect::<Vec<_>>()
    };
    let then = [["Ada", "Byron"], ["Ada", "Lord Byron"]];
    assert_eq!(ends(""), then);
    assert_eq!(ends(&format!("&as_of={}", knows["seq"])), then[..1]);
    // They stay when the other end goes.
    server.delete("/memory/entities/Lord%20Byron?agent_id=ada").expect(200);
    assert_eq!(ends(""), then);
}

#[test]
fn clearing_a_scope_needs_a_yes_and_leaves_the_others() {
    let server = Server::start();
    for (name, entity_type) in [("a", "Tool"), ("b", "Tool"), ("c", "Person")] {
        server.entity(name, entity_type, &["x"]);
    }
    server.relation("a", "b", "uses");
    let global = json!({
        "agent_id": "ada", "memory_scope": "global", "entity_name": "g", "entity_type": "Tool", "observations": [],
    });
    server.post("/memory/entities", &global).expect(201);
    let problem = server.delete("/memory/ada").problem(400, "CONFIRMATION_REQUIRED");
    assert_eq!(problem["field"], "confirm");
    for nothing in ["", ",", "Tool,", "%20"] {
        let path = format!("/memory/ada?confirm=true&entity_types={nothing}");
        assert_eq!(server.delete(&path).problem(422, "VALIDATION_ERROR")["field"], "entity_types");
    }
    let cleared = server.delete("/memory/ada?confirm=true&entity_types=Tool").expect(200).json();
    assert_eq!((&cleared["entities_deleted"], &cleared["relations_deleted"]), (&json!(2), &json!(1)));
    assert!(cleared["cleared_at"].is_string() && cleared["seq"].is_u64());
    let left = server.get("/memory/entities?agent_id=ada").json();
    let names: Vec<_> =
        left["entities"].as_array().unwrap().iter().map(|row| row["entity_name"].clone()).collect();
    assert_eq!(names, [json!("c"), json!("g")]);
    server.delete("/memory/ada?confirm=true&agent_id=bob").problem(422, "VALIDATION_ERROR");
}
