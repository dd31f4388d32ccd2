//! What goes with every request: keys, ids, methods, tags, compression, positions, idempotency.

use caxton::api::rest::{ApiKeys, RestOptions};
use serde_json::{Value, json};

use super::client::Ask;
use super::server::Server;

fn keyed() -> Server {
    let keys = ApiKeys::new(|key| (key == "cax_live_right").then(|| "ops".to_owned()));
    Server::with(RestOptions { api_keys: Some(keys), ..RestOptions::default() })
}

#[test]
fn a_key_is_asked_for_before_anything_is_read() {
    let server = keyed();
    for (method, path, body) in [
        ("GET", "/memory/search?agent_id=%ZZ", ""),
        ("GET", "/no/such/path", ""),
        ("POST", "/memory/entities", "{half"),
        ("DELETE", "/memory/ada?confirm=true", ""),
        ("GET", "/health", ""),
    ] {
        let reply = server.ask(method, path).raw(body.as_bytes()).send();
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"caxton\""));
        reply.problem(401, "UNAUTHORIZED");
    }
    for wrong in
        ["Bearer cax_live_wrong", "Bearer ", "Basic cax_live_right", "cax_live_right", "Bearer cax_live_righ"]
    {
        server.ask("GET", "/health").header("Authorization", wrong).send().problem(401, "UNAUTHORIZED");
    }
    server.ask("GET", "/health").header("Authorization", "Bearer cax_live_right").send().expect(200);
    server.ask("GET", "/health").header("Authorization", "bearer cax_live_right").send().expect(200);
    assert_eq!(server.get("/ready").expect(200).json(), json!({"ready": true}));
}

#[test]
fn without_a_key_one_may_ask_whether_the_server_is_ready_and_send_nothing() {
    let server = keyed();
    server.ask("HEAD", "/ready").send().expect(200);
    for (method, body) in [("POST", "a body"), ("POST", ""), ("PUT", "a body"), ("GET", "a body")] {
        server.ask(method, "/ready").raw(body.as_bytes()).send().problem(401, "UNAUTHORIZED");
    }
    let known = server.ask("POST", "/ready").header("Authorization", "Bearer cax_live_right");
    known.raw(b"a body").send().problem(405, "METHOD_NOT_ALLOWED");
}

#[test]
fn an_id_of_a_request_is_taken_or_drawn() {
    let server = Server::start();
    let given = server.ask("GET", "/health").header("X-Request-Id", "my-id-7").send().expect(200);
    assert_eq!(given.header("x-request-id"), Some("my-id-7"));
    let drawn = [server.get("/health"), server.get("/health")];
    let ids: Vec<_> = drawn.iter().map(|reply| reply.header("x-request-id").unwrap()).collect();
    assert_ne!(ids[0], ids[1]);
    for odd in ["two words", &"x".repeat(200)] {
        let reply = server.ask("GET", "/health").header("X-Request-Id", odd).send().expect(200);
        assert_ne!(reply.header("x-request-id"), Some(odd));
    }
    let created = server
        .ask("POST", "/memory/entities")
        .header("X-Request-Id", "cause")
        .json(&json!({"entity_name": "a", "entity_type": "T"}));
    created.send().expect(201);
    let events = server.get("/events?correlation_id=cause").json();
    assert!(events["count"].as_u64().unwrap() > 0);
}

#[test]
fn a_wrong_path_and_a_wrong_method_are_problems_too() {
    let server = Server::start();
    let problem = server.get("/memory/entities/a/histroy").problem(404, "NO_SUCH_PATH");
    assert!(problem["remedy"].is_string());
    let problem = server.get("/helth").problem(404, "NO_SUCH_PATH");
    assert_eq!(problem["remedy"], "did you mean /api/v1/health?");
    Ask::new(server.address, "GET", "/").send().problem(404, "NO_SUCH_PATH");
    let reply = server.ask("PUT", "/memory/entities").send();
    assert!(reply.header("allow").is_some_and(|allow| allow.contains("GET") && allow.contains("POST")));
    reply.problem(405, "METHOD_NOT_ALLOWED");
    server.ask("BREW", "/health").send().problem(405, "METHOD_NOT_ALLOWED");
    let head = server.ask("HEAD", "/health").send().expect(200);
    assert!(head.body.is_empty() && head.header("content-length").is_some());
    let lost = server.ask("HEAD", "/helth").send().expect(404);
    assert_eq!(lost.header("content-type"), Some("application/problem+json"));
}

#[test]
fn a_mistyped_path_is_none_though_any_word_fits_the_route() {
    let server = Server::start();
    // Any word may be the agent whose memory is cleared; there is nothing to be read or written under it.
    for (method, path, near) in [
        ("GET", "/memory/searc", "/api/v1/memory/search"),
        ("POST", "/memory/serch", "/api/v1/memory/search"),
        ("POST", "/memory/imprt", "/api/v1/memory/import"),
        ("GET", "/memory/entites", "/api/v1/memory/entities"),
    ] {
        let problem = server.ask(method, path).send().problem(404, "NO_SUCH_PATH");
        assert_eq!(problem["remedy"], format!("did you mean {near}?"), "{path}");
    }
    server.get("/capabilities/golf/helth").problem(404, "NO_SUCH_PATH");
    server.delete("/memory/searc").problem(400, "CONFIRMATION_REQUIRED");
    // Where the word may name something that is there, the method is what is wrong; a path that is near is named as well.
    let refused = |path: &str| {
        let reply = server.ask("POST", path).send();
        assert!(reply.header("allow").is_some_and(|allow| allow.contains("GET")), "{path}");
        reply.problem(405, "METHOD_NOT_ALLOWED")["remedy"].as_str().unwrap().to_owned()
    };
    let remedy = "use one of the methods in the Allow header";
    assert_eq!(refused("/memory/entities/Ada"), remedy);
    let near = "; or did you mean /api/v1/memory/entities/batch?";
    assert_eq!(refused("/memory/entities/btach"), format!("{remedy}{near}"));
}

#[test]
fn a_slash_at_the_end_of_a_path_is_told_as_what_is_wrong() {
    let server = Server::start();
    for (method, path, without) in [
        ("GET", "/memory/entities/?agent_id=ada", "/api/v1/memory/entities"),
        ("GET", "/memory/entities/Ada/", "/api/v1/memory/entities/Ada"),
        ("POST", "/memory/entities/Ada/observations/", "/api/v1/memory/entities/Ada/observations"),
        ("GET", "/agents/ada/inbox//", "/api/v1/agents/ada/inbox"),
        ("DELETE", "/memory/ada/", "/api/v1/memory/ada"),
    ] {
        let problem = server.ask(method, path).send().problem(404, "NO_SUCH_PATH");
        let remedy = format!("did you mean {without}, without the slash at the end?");
        assert_eq!(problem["remedy"], remedy, "{method} {path}");
    }
    // Where there is nothing without it either, or nothing that takes the method, what is near is told as ever.
    for (path, near) in [
        ("/helth/", "/api/v1/health"),
        ("/memory/searc/", "/api/v1/memory/search"),
        ("/messages/batch/", "/api/v1/messages/batch"),
    ] {
        let problem = server.get(path).problem(404, "NO_SUCH_PATH");
        assert_eq!(problem["remedy"], format!("did you mean {near}?"), "{path}");
    }
}

#[test]
fn what_did_not_change_is_not_sent_again() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let path = "/memory/entities/Ada?agent_id=ada";
    let tag = server.get(path).expect(200).header("etag").unwrap().to_owned();
    let again = || server.ask("GET", path).header("If-None-Match", &tag).send();
    let same = again().expect(304);
    assert_eq!(same.header("etag"), Some(tag.as_str()));
    assert!(same.body.is_empty());
    server
        .post("/memory/entities/Ada/observations?agent_id=ada", &json!({"observations": ["new"]}))
        .expect(201);
    let changed = again().expect(200);
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
    assert_eq!(server.ask("HEAD", path).send().expect(200).header("etag"), changed.header("etag"));

    let plain = Server::with(RestOptions { etags: false, ..RestOptions::default() });
    plain.entity("Ada", "Person", &[]);
    assert_eq!(plain.get(path).expect(200).header("etag"), None);
}

#[test]
fn long_answers_are_compressed_for_those_who_can_read_them() {
    let server = Server::start();
    server.entity("Ada", "Person", &[&"likes tea ".repeat(1_000)]);
    let ask = |path: &str| server.ask("GET", path).header("Accept-Encoding", "gzip").send().expect(200);
    let long = ask("/memory/entities/Ada?agent_id=ada");
    assert_eq!(long.header("content-encoding"), Some("gzip"));
    assert!(long.body.len() < 2_000 && long.body.starts_with(&[0x1f, 0x8b]));
    assert_eq!(ask("/ready").header("content-encoding"), None);
    assert_eq!(server.get("/memory/entities/Ada?agent_id=ada").header("content-encoding"), None);
    // A stream: its last part ends the compressed body, too.
    for format in ["json", "jsonl"] {
        let export = ask(&format!("/memory/export?agent_id=ada&format={format}"));
        assert_eq!(export.header("content-encoding"), Some("gzip"));
        assert!(export.body.starts_with(&[0x1f, 0x8b]));
    }
    let never = Server::with(RestOptions { compression: None, ..RestOptions::default() });
    never.entity("Ada", "Person", &[&"likes tea ".repeat(1_000)]);
    let reply =
        never.ask("GET", "/memory/entities/Ada?agent_id=ada").header("Accept-Encoding", "gzip").send();
    assert_eq!(reply.expect(200).header("content-encoding"), None);
}

#[test]
fn a_retry_with_the_same_key_writes_once() {
    let server = Server::start();
    let ask = |path: &str, content: &str| {
        let body = json!({"agent_id": "ada", "entity_name": "Ada", "entity_type": "Person", "observations": [content]});
        server.ask("POST", path).header("Idempotency-Key", "k-1").json(&body).send()
    };
    let first = ask("/memory/entities", "likes tea").expect(201);
    let head = server.get("/log/head").json();
    let second = ask("/memory/entities", "likes tea").expect(201);
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!(first.json()["entity_id"], second.json()["entity_id"]);
    assert_eq!(first.json()["seq"], second.json()["seq"]);
    assert_eq!(server.get("/log/head").json(), head);
    ask("/memory/entities?wait=durable", "likes tea").expect(201);
    ask("/memory/entities", "plays chess").problem(409, "IDEMPOTENCY_KEY_CONFLICT");
    let other = json!({"agent_id": "bob", "entity_name": "Ada", "entity_type": "Person", "observations": []});
    server.ask("POST", "/memory/entities").header("Idempotency-Key", "k-1").json(&other).send().expect(201);
    let long = "x".repeat(300);
    let reply = server.ask("POST", "/memory/entities").header("Idempotency-Key", &long).json(&other).send();
    assert_eq!(reply.problem(422, "VALIDATION_ERROR")["field"], "Idempotency-Key");

    let lines = "{\"entity_name\": \"l\", \"entity_type\": \"T\"}\n";
    let ask =
        || server.ask("POST", "/memory/entities/batch").header("Idempotency-Key", "k-2").lines(lines).send();
    let (first, second) = (ask().expect(200).lines(), ask().expect(200).lines());
    assert_eq!(first, second);
    assert_eq!(first[0]["status"], "created");
}

#[test]
fn a_read_waits_for_the_position_it_names() {
    let server = Server::with(RestOptions {
        min_seq_timeout: std::time::Duration::from_millis(50),
        ..RestOptions::default()
    });
    let body = json!({"agent_id": "ada", "entity_name": "Ada", "entity_type": "Person", "observations": []});
    for wait in ["durable", "applied", "indexed"] {
        server.post(&format!("/memory/entities?wait={wait}"), &body);
    }
    let seq = server
        .post("/memory/entities/Ada/observations?agent_id=ada&wait=durable", &json!({"observations": ["x"]}));
    let seq = seq.expect(201).json()["seq"].as_u64().unwrap();
    // On a machine with much else to do the memory may take longer than this server is told to wait.
    let shown = loop {
        let reply = server.get(&format!("/memory/entities/Ada?agent_id=ada&min_seq={seq}"));
        if reply.status != 503 {
            break reply.expect(200).json();
        }
    };
    assert_eq!(shown["observation_count"], 1);
    let late =
        server.ask("GET", "/memory/entities/Ada?agent_id=ada").header("Caxton-Min-Seq", "99999").send();
    assert_eq!(late.header("retry-after"), Some("1"));
    let problem = late.problem(503, "NOT_CAUGHT_UP");
    assert_eq!(problem["details"]["position"], seq);
    for bad in ["-1", "soon", "1.5"] {
        let reply =
            server.ask("GET", "/memory/entities/Ada?agent_id=ada").header("Caxton-Min-Seq", bad).send();
        assert_eq!(reply.problem(422, "VALIDATION_ERROR")["field"], "Caxton-Min-Seq");
    }
    assert_eq!(
        server.post("/memory/entities?wait=forever", &body).problem(422, "VALIDATION_ERROR")["field"],
        "wait"
    );
}

#[test]
fn who_asks_may_stand_in_the_query_string_of_a_request_with_a_body() {
    let server = Server::start();
    server.entity("Ada", "Person", &["likes tea"]);
    let search = |query: &str, body: &Value| server.post(&format!("/memory/search{query}"), body);
    let found = search("?agent_id=ada&memory_scope=agent", &json!({"query": "tea"})).expect(200).json();
    assert_eq!((&found["total_results"], &found["memory_scope"]), (&json!(1), &json!("agent")));
    let other = search("?agent_id=ada", &json!({"query": "tea", "agent_id": "bob"}));
    assert_eq!(other.problem(422, "VALIDATION_ERROR")["field"], "agent_id");
    let other =
        search("?agent_id=ada&memory_scope=agent", &json!({"query": "tea", "memory_scope": "global"}));
    let problem = other.problem(422, "VALIDATION_ERROR");
    assert_eq!((&problem["field"], &problem["value"]), (&json!("memory_scope"), &json!("global")));
    let same = json!({"query": "tea", "memory_scope": "agent-only"});
    search("?agent_id=ada&memory_scope=agent", &same).expect(200);
    let entity = json!({"entity_name": "Eve", "entity_type": "Person", "memory_scope": "agent"});
    let written = server.post("/memory/entities?memory_scope=global&agent_id=ada", &entity);
    assert_eq!(written.problem(422, "VALIDATION_ERROR")["field"], "memory_scope");
    let elsewhere = search("?agent_id=ada&limit=1", &json!({"query": "tea"}));
    assert_eq!(elsewhere.problem(422, "VALIDATION_ERROR")["field"], "limit");

    let bob = server.post("/agents?agent_id=bob&workspace=lab", &json!({})).expect(201).json();
    assert_eq!((&bob["agent_id"], &bob["workspace"]), (&json!("bob"), &json!("lab")));
    for body in [json!({}), json!({"agent_id": null})] {
        assert_eq!(server.post("/agents", &body).problem(422, "VALIDATION_ERROR")["field"], "agent_id");
    }
    let nothing = server.post("/agents/bob/health", &json!({"health": null}));
    assert_eq!(nothing.problem(422, "VALIDATION_ERROR")["field"], "health");
    server.post("/conversations?agent_id=bob", &json!({"conversation_id": "plan"})).expect(201);
    server.post("/conversations/plan/extend?agent_id=bob", &json!({"idle_timeout_seconds": 60})).expect(200);
    server.ask("POST", "/conversations/plan/close?agent_id=bob").send().expect(200);
    let two = server.post("/conversations/plan/archive?agent_id=bob", &json!({"agent_id": "ada"}));
    assert_eq!(two.problem(422, "VALIDATION_ERROR")["field"], "agent_id");
    server.post("/conversations/archive?agent_id=bob", &json!({"conversation_ids": ["plan"]})).expect(200);
}

#[test]
fn a_caller_without_a_name_is_the_default_agent() {
    let server = Server::start();
    let body = json!({"entity_name": "note", "entity_type": "Note", "observations": ["short"]});
    assert_eq!(server.post("/memory/entities", &body).expect(201).json()["agent_id"], "default");
    server.get("/memory/entities/note").expect(200);
    server.get("/memory/entities/note?agent_id=default").expect(200);
    server.get("/memory/entities/note?agent_id=ada").problem(404, "ENTITY_NOT_FOUND");
    let two = server.ask("GET", "/memory/entities/note?agent_id=ada").header("X-Caxton-Agent", "bob").send();
    assert_eq!(two.problem(422, "VALIDATION_ERROR")["field"], "agent_id");
}
