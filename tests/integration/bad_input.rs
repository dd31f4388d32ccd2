//! What clients send that they should not: a clear refusal with the field, and nothing written.

use caxton::api::rest::RestOptions;
use serde_json::{Value, json};

use super::client::Reply;
use super::server::Server;

/// The reply is this problem about this field, and the log is as long as before.
#[track_caller]
fn refused(server: &Server, send: impl FnOnce(&Server) -> Reply, status: u16, code: &str, field: &str) {
    let head = server.engine.log().head().seq;
    let problem = send(server).problem(status, code);
    assert_eq!(problem["field"], field, "{problem}");
    assert!(problem["remedy"].is_string(), "{problem}");
    assert_eq!(server.engine.log().head().seq, head, "something was written");
}

fn entity(name: &str, observation: &str) -> Value {
    json!({"agent_id": "ada", "entity_name": name, "entity_type": "Thing", "observations": [observation]})
}

#[test]
fn names_and_observations_that_cannot_be_kept_are_refused() {
    let server = Server::start();
    let megabytes = "x".repeat(10 << 20);
    let invalid = "INVALID_ENTITY_DATA";
    for (body, status, code, field) in [
        (entity("", "x"), 422, invalid, "entity_name"),
        (entity("   ", "x"), 422, invalid, "entity_name"),
        (entity("a\u{0}b", "x"), 422, invalid, "entity_name"),
        (entity("a\nb", "x"), 422, invalid, "entity_name"),
        (entity(&megabytes, "x"), 413, "TOO_LARGE", "entity_name"),
        (entity("a", ""), 422, invalid, "observations[0]"),
        (entity("a", "bell \u{7}"), 422, invalid, "observations[0]"),
        (entity("a", &megabytes), 413, "TOO_LARGE", "observations[0]"),
    ] {
        let send = |server: &Server| server.post("/memory/entities", &body);
        let head = server.engine.log().head().seq;
        let problem = send(&server).problem(status, code);
        assert!(problem["field"].as_str().unwrap().starts_with(field), "{problem}");
        assert_eq!(server.engine.log().head().seq, head);
    }
    let ten: Vec<String> = (0..11).map(|index| format!("{index}{}", "y".repeat(1_000_000))).collect();
    let body = json!({"agent_id": "ada", "entity_name": "a", "entity_type": "T", "observations": ten});
    refused(&server, |server| server.post("/memory/entities", &body), 413, "TOO_LARGE", "observations");
}

#[test]
fn values_of_the_wrong_kind_are_refused_with_their_field() {
    let server = Server::start();
    let base = entity("a", "x");
    for (member, value, field) in [
        ("entity_name", json!(7), "entity_name"),
        ("entity_name", json!(null), "entity_name"),
        ("entity_type", json!(["T"]), "entity_type"),
        ("observations", json!("x"), "observations"),
        ("observations", json!([7]), "observations[0]"),
        ("observations", json!([{"contents": "x"}]), "observations[0].contents"),
        ("confidence", json!(1.01), "confidence"),
        ("confidence", json!(-0.5), "confidence"),
        ("confidence", json!("NaN"), "confidence"),
        ("metadata", json!("{}"), "metadata"),
        ("metadata", json!([]), "metadata"),
        ("valid_from", json!("tomorrow"), "valid_from"),
        ("valid_from", json!(1_700_000_000), "valid_from"),
        ("agent_id", json!("a b"), "agent_id"),
        ("agent_id", json!(""), "agent_id"),
        ("agent_id", json!("x".repeat(129)), "agent_id"),
        ("memory_scope", json!("team"), "memory_scope"),
        ("on_existing", json!("explode"), "on_existing"),
        ("entity_naem", json!("a"), "entity_naem"),
    ] {
        let mut body = base.clone();
        body[member] = value;
        refused(&server, |server| server.post("/memory/entities", &body), 422, "VALIDATION_ERROR", field);
    }
    let mut body = base;
    body["valid_from"] = json!("2026-01-02");
    body["valid_to"] = json!("2026-01-01");
    refused(&server, |server| server.post("/memory/entities", &body), 422, "VALIDATION_ERROR", "valid_to");
}

#[test]
fn an_unknown_scope_is_refused_wherever_it_is_named() {
    let server = Server::start();
    for path in ["entities?", "search?query=x&", "graph/a?", "relations?", "export?", "stats?"] {
        let send = |server: &Server| server.get(&format!("/memory/{path}agent_id=ada&memory_scope=team"));
        refused(&server, send, 422, "VALIDATION_ERROR", "memory_scope");
    }
    let clear = |server: &Server| server.delete("/memory/ada?confirm=true&memory_scope=team");
    refused(&server, clear, 422, "VALIDATION_ERROR", "memory_scope");
    let import = json!({"agent_id": "ada", "memory_scope": "team", "data": {"entities": []}});
    let send = |server: &Server| server.post("/memory/import", &import);
    refused(&server, send, 422, "VALIDATION_ERROR", "memory_scope");
}

#[test]
fn an_unknown_member_is_named_with_the_nearest_known_one() {
    let server = Server::start();
    let body = json!({"agent_id": "ada", "entity_nmae": "a", "entity_type": "T"});
    let problem = server.post("/memory/entities", &body).problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["errors"][0]["remedy"], "did you mean \"entity_name\"?");
    let problem = server.get("/memory/entities?agentid=ada").problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["remedy"], "did you mean \"agent_id\"?");
    // Where none is near, all are named.
    let problem = server.get("/events?to_seq=3").problem(422, "VALIDATION_ERROR");
    let remedy = problem["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("known are: ") && remedy.contains("from_seq"), "{problem}");
}

#[test]
fn a_member_given_twice_is_refused_with_its_place() {
    let server = Server::start();
    for (body, field) in [
        (
            "{\"agent_id\": \"ada\", \"entity_name\": \"a\", \"entity_name\": \"b\", \"entity_type\": \"T\"}",
            "entity_name",
        ),
        (
            "{\"agent_id\": \"ada\", \"entity_name\": \"a\", \"entity_type\": \"T\", \"metadata\": {\"k\": 1, \"k\": 2}}",
            "metadata.k",
        ),
    ] {
        let send = |server: &Server| {
            let ask = server.ask("POST", "/memory/entities").header("Content-Type", "application/json");
            ask.raw(body.as_bytes()).send()
        };
        refused(&server, send, 422, "VALIDATION_ERROR", field);
    }
    let line = "{\"entity_name\": \"a\", \"entity_type\": \"T\", \"entity_type\": \"U\"}";
    let answer = server.ask("POST", "/memory/entities/batch?agent_id=ada").lines(line).send().expect(200);
    assert_eq!(
        (&answer.lines()[0]["code"], &answer.lines()[0]["field"]),
        (&json!("VALIDATION_ERROR"), &json!("entity_type"))
    );
}

#[test]
fn strengths_that_are_no_shares_are_refused() {
    let server = Server::start();
    server.entity("a", "T", &[]);
    for (strength, status, code, field) in [
        ("1.5", 422, "VALIDATION_ERROR", "strength"),
        ("-0.1", 422, "VALIDATION_ERROR", "strength"),
        ("\"NaN\"", 422, "VALIDATION_ERROR", "strength"),
        ("NaN", 400, "MALFORMED_JSON", "body"),
        ("Infinity", 400, "MALFORMED_JSON", "body"),
        ("1e999", 400, "MALFORMED_JSON", "body"),
    ] {
        let body = format!(
            "{{\"agent_id\": \"ada\", \"from_entity\": \"a\", \"to_entity\": \"a\", \"relation_type\": \"r\", \
             \"strength\": {strength}}}"
        );
        let send = |server: &Server| {
            let ask = server.ask("POST", "/memory/relations").header("Content-Type", "application/json");
            ask.raw(body.as_bytes()).send()
        };
        refused(&server, send, status, code, field);
    }
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    let server = Server::start();
    let deep = "[".repeat(100_000);
    for (body, status, code) in [
        (&b"{\"entity_name\": \"a\", \"ent"[..], 400, "MALFORMED_JSON"),
        (b"{\"entity_name\": \"a\"} trailing", 400, "MALFORMED_JSON"),
        (b"not json", 400, "MALFORMED_JSON"),
        (b" ", 400, "MALFORMED_JSON"),
        (b"{\"entity_name\": \"\xff\xfe\"}", 400, "INVALID_UTF8"),
        (b"{\"entity_name\": \"\\ud800\"}", 400, "MALFORMED_JSON"),
        (deep.as_bytes(), 400, "MALFORMED_JSON"),
        (b"[1, 2]", 422, "VALIDATION_ERROR"),
        (b"null", 422, "VALIDATION_ERROR"),
    ] {
        let send = |server: &Server| {
            let ask = server.ask("POST", "/memory/entities").header("Content-Type", "application/json");
            ask.raw(body).send()
        };
        refused(&server, send, status, code, "body");
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let send = |server: &Server| {
            server.ask("POST", "/memory/entities").header("Content-Type", media_type).raw(b"{}").send()
        };
        refused(&server, send, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type");
    }
    let send = |server: &Server| {
        let ask = server.ask("POST", "/memory/entities").header("Content-Encoding", "gzip");
        ask.json(&entity("a", "x")).send()
    };
    refused(&server, send, 415, "UNSUPPORTED_ENCODING", "Content-Encoding");
}

#[test]
fn a_body_is_in_utf_8_and_said_to_be_in_nothing_else() {
    let server = Server::start();
    let text = entity("a", "x").to_string();
    let send = |path: &str, media_type: &str, body: &str| {
        server.ask("POST", path).header("Content-Type", media_type).raw(body.as_bytes()).send()
    };
    for charset in ["latin1", "\"ISO-8859-1\"", "utf-16", "us-ascii", "", "utf-8; charset=latin1"] {
        for (path, media_type) in [
            ("/memory/entities", "application/json"),
            ("/memory/entities/batch?agent_id=ada", "application/x-ndjson"),
            ("/messages", "application/json"),
        ] {
            let given = format!("{media_type}; CharSet={charset}");
            let refusing = |_: &Server| send(path, &given, &text);
            refused(&server, refusing, 415, "UNSUPPORTED_MEDIA_TYPE", "Content-Type");
            let problem = send(path, &given, &text).problem(415, "UNSUPPORTED_MEDIA_TYPE");
            assert_eq!(problem["value"], given);
            assert!(problem["detail"].as_str().unwrap().contains("must be in UTF-8"), "{problem}");
        }
    }
    for charset in ["utf-8", "UTF-8", "utf8", "\"utf-8\"", " \"UTF-8\" ; x=1"] {
        let given = format!("Application/JSON;charset={charset}");
        let status = send("/memory/entities", &given, &text).status;
        assert!([200, 201].contains(&status), "{given}: {status}");
    }
    // Where there is no body, nothing is said of one.
    server
        .ask("GET", "/memory/entities")
        .header("Content-Type", "text/plain; charset=latin1")
        .send()
        .expect(200);
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let server = Server::with(RestOptions { body_bytes_max: 10_000, ..RestOptions::default() });
    let body = entity("a", &"x".repeat(20_000));
    refused(&server, |server| server.post("/memory/entities", &body), 413, "BODY_TOO_LARGE", "body");
    let send = |server: &Server| {
        let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 20_000, "x".repeat(20_000));
        let ask = server.ask("POST", "/memory/entities").header("Transfer-Encoding", "chunked");
        super::connections::send_raw(server.address, &[&ask.bytes()[..], chunk.as_bytes()].concat()).unwrap()
    };
    refused(&server, send, 413, "BODY_TOO_LARGE", "body");
    server.post("/memory/entities", &entity("a", "x")).expect(201);
}

#[test]
fn pages_that_cannot_be_are_refused() {
    let server = Server::start();
    for index in 0..3 {
        server.entity(&format!("e{index}"), "T", &[]);
    }
    for bad in ["-1", "0", "1001", "1e3", "x", "18446744073709551616"] {
        let send = |server: &Server| server.get(&format!("/memory/entities?agent_id=ada&limit={bad}"));
        refused(&server, send, 422, "VALIDATION_ERROR", "limit");
    }
    let page = server.get("/memory/entities?agent_id=ada&limit=1").expect(200).json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let cut = &cursor[..cursor.len() - 2];
    for bad in ["x", "%21%21", "AAAA", cut, &format!("{cursor}A")] {
        let send =
            |server: &Server| server.get(&format!("/memory/entities?agent_id=ada&limit=1&cursor={bad}"));
        refused(&server, send, 400, "INVALID_CURSOR", "cursor");
    }
    for other in ["agent_id=bob", "agent_id=ada&entity_types=T", "agent_id=ada&memory_scope=agent"] {
        let send = |server: &Server| server.get(&format!("/memory/entities?{other}&cursor={cursor}"));
        refused(&server, send, 400, "INVALID_CURSOR", "cursor");
    }
    server.get(&format!("/memory/relations?agent_id=ada&cursor={cursor}")).problem(400, "INVALID_CURSOR");
    server.get(&format!("/memory/entities?agent_id=ada&limit=2&cursor={cursor}")).expect(200);
}

#[test]
fn a_body_that_is_not_read_is_refused() {
    let server = Server::start();
    for (path, body) in [("/log/seal", json!({"at": 9_999})), ("/projections/talk/rebuild", json!([1]))] {
        let problem = server.post(path, &body).problem(422, "VALIDATION_ERROR");
        assert_eq!((&problem["field"], &problem["value"]), (&json!("body"), &json!(body.to_string())));
    }
    server.post("/projections/talk/rebuild", &json!({})).expect(202);
    server.ask("POST", "/log/seal").send().expect(200);
}

#[test]
fn paths_and_queries_that_are_not_utf_8_are_refused() {
    let server = Server::start();
    server.get("/memory/entities/%FF?agent_id=ada").problem(400, "MALFORMED_PATH");
    server.get("/memory/entities?agent_id=%FF").problem(400, "MALFORMED_QUERY");
    server.get("/memory/entities?agent_id=%4").problem(400, "MALFORMED_QUERY");
    let twice = server.get("/memory/entities?agent_id=ada&agent_id=bob");
    assert_eq!(twice.problem(422, "VALIDATION_ERROR")["field"], "agent_id");
}

#[test]
fn terse_problems_do_not_repeat_what_was_sent() {
    let server = Server::with(RestOptions { detailed_errors: false, ..RestOptions::default() });
    let problem = server.get("/memory/entities?limit=-1").problem(422, "VALIDATION_ERROR");
    assert_eq!((problem.get("value"), problem.get("errors")), (None, None));
    assert_eq!(problem["field"], "limit");
}
