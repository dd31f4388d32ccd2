//! Without API keys the server takes no request that a page from elsewhere had a browser send.

use caxton::api::rest::{ApiKeys, RestOptions};
use serde_json::json;

use super::client::Ask;
use super::server::Server;

#[test]
fn a_name_that_leads_here_by_rebinding_reads_nothing_and_writes_nothing() {
    let server = Server::start();
    server.entity("kettle", "thing", &["boils"]);
    let before = server.engine.log().head();
    let rebound = |ask: Ask| ask.header("Host", "evil.example:8080").send();
    let problem =
        rebound(server.ask("GET", "/memory/entities?agent_id=ada")).problem(421, "HOST_NOT_ALLOWED");
    assert_eq!((&problem["field"], &problem["value"]), (&json!("Host"), &json!("evil.example:8080")));
    let remedy = problem["remedy"].as_str().unwrap();
    assert!(remedy.contains("server.allowed_hosts") && remedy.contains("auth.keys_file"), "{remedy}");
    let body = json!({"agent_id": "ada", "entity_name": "lid", "entity_type": "thing"});
    rebound(server.ask("POST", "/memory/entities").json(&body)).problem(421, "HOST_NOT_ALLOWED");
    rebound(server.ask("GET", "/no/such/path")).problem(421, "HOST_NOT_ALLOWED");
    assert_eq!(server.engine.log().head(), before);
    for host in ["localhost", "127.0.0.1:1", "[::1]:1"] {
        server.ask("GET", "/memory/stats").header("Host", host).send().expect(200);
    }
}

#[test]
fn a_page_from_elsewhere_starts_nothing_with_a_post_that_has_no_body() {
    let server = Server::start();
    server.post("/conversations", &json!({"conversation_id": "plan"})).expect(201);
    let before = server.engine.log().head();
    for path in ["/projections/talk/rebuild", "/log/seal", "/conversations/plan/close"] {
        for origin in ["https://evil.example", "null"] {
            let problem = server.ask("POST", path).header("Origin", origin).send();
            let problem = problem.problem(403, "ORIGIN_NOT_ALLOWED");
            assert_eq!((&problem["field"], &problem["value"]), (&json!("Origin"), &json!(origin)), "{path}");
        }
    }
    assert_eq!(server.engine.log().head(), before);
    let own = server.ask("POST", "/conversations/plan/close").header("Origin", "http://localhost:3000");
    own.send().expect(200);
}

#[test]
fn a_page_from_elsewhere_has_no_effect_with_a_get_that_does_not_name_it() {
    let server = Server::start();
    server.post("/agents", &json!({"agent_id": "bob"})).expect(201);
    let body = json!({"performative": "INFORM", "sender": "ada", "receiver": "bob", "content": "hi"});
    server.post("/messages", &body).expect(201);
    let lease = "/agents/bob/inbox?consumer=picture&lease=3600";
    for path in [lease, "/memory/export/tables?format=sqlite", "/memory/stats"] {
        let problem = server.ask("GET", path).header("Sec-Fetch-Site", "cross-site").send();
        let problem = problem.problem(403, "ORIGIN_NOT_ALLOWED");
        let named = (&problem["field"], &problem["value"]);
        assert_eq!(named, (&json!("Sec-Fetch-Site"), &json!("cross-site")), "{path}");
        let remedy = problem["remedy"].as_str().unwrap();
        assert!(remedy.contains("type the address") && remedy.contains("drop Sec-Fetch-Site"), "{remedy}");
    }
    let linked = server.ask("GET", "/memory/stats").header("Sec-Fetch-Site", "cross-site");
    linked.header("Referer", "http://localhost:3000/desk").send().expect(200);
    // A server elsewhere may have passed this on, of which the page loads a picture.
    let passed_on =
        server.ask("GET", "/agents/bob/inbox?consumer=x&lease=3600").header("Sec-Fetch-Site", "cross-site");
    let refused = passed_on.header("Referer", "http://localhost:3000/").send();
    refused.problem(403, "ORIGIN_NOT_ALLOWED");
    let own = server.ask("GET", lease).header("Sec-Fetch-Site", "same-origin").send().expect(200).json();
    assert_eq!(own["count"], 1, "nobody has it: {own}");
}

#[test]
fn where_keys_decide_no_name_of_a_host_does() {
    let keys = ApiKeys::new(|key| (key == "secret").then(|| "ada".to_owned()));
    let server = Server::with(RestOptions { api_keys: Some(keys), ..RestOptions::default() });
    let from =
        |ask: Ask| ask.header("Host", "caxton.example").header("Origin", "https://desk.example").send();
    from(server.ask("GET", "/memory/stats")).problem(401, "UNAUTHORIZED");
    from(server.ask("GET", "/memory/stats").header("Authorization", "Bearer secret")).expect(200);
}
