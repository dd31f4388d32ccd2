//! Providers of capabilities: filters, changes that keep what they do not name, and health.

use caxton_events::agent::AgentStatus;
use caxton_events::{AgentEvent, Draft};
use serde_json::{Value, json};

use super::messages::{offer, request, send, with_agents};
use super::server::Server;

fn report(server: &Server, agent: &str, body: &Value) -> Value {
    server.post(&format!("/agents/{agent}/health"), body).expect(200).json()
}

fn set_status(server: &Server, agent: &str, status: AgentStatus) {
    let event =
        AgentEvent::StatusChanged { agent: agent.parse().unwrap(), status, reason: "test".to_owned() };
    let draft = Draft {
        stream: "agents".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: event.into(),
    };
    server.engine.record(vec![draft]).unwrap();
}

/// Who is listed for this query, by capability.
#[track_caller]
fn listed(server: &Server, query: &str) -> Vec<String> {
    let page = server.get(&format!("/capabilities?{query}")).expect(200).json();
    let rows = page["capabilities"].as_array().unwrap();
    let names = rows.iter().flat_map(|row| row["providers"].as_array().unwrap());
    names
        .map(|row| format!("{}:{}", row["capability"].as_str().unwrap(), row["agent_id"].as_str().unwrap()))
        .collect()
}

#[test]
fn capabilities_are_filtered_by_provider_status_and_version() {
    let server = with_agents(&["a", "b", "c", "d"]);
    for agent in ["a", "b", "c", "d"] {
        offer(&server, agent, "chess", 1);
    }
    let golf = json!({"agent_id": "a", "capability": "golf", "version": "2.1.0"});
    server.post("/capabilities", &golf).expect(201);
    report(&server, "b", &json!({"health": "unhealthy", "reason": "no board"}));
    set_status(&server, "c", AgentStatus::Draining);
    set_status(&server, "d", AgentStatus::Stopped);
    assert_eq!(listed(&server, ""), ["chess:a", "chess:b", "chess:c", "chess:d", "golf:a"]);
    assert_eq!(listed(&server, "capability=golf"), ["golf:a"]);
    assert_eq!(listed(&server, "agent_id=a"), ["chess:a", "golf:a"]);
    assert_eq!(listed(&server, "agent_id=a&capability=chess"), ["chess:a"]);
    assert_eq!(listed(&server, "status=active"), ["chess:a", "golf:a"]);
    assert_eq!(listed(&server, "status=unhealthy"), ["chess:b"]);
    assert_eq!(listed(&server, "status=draining"), ["chess:c"]);
    assert_eq!(listed(&server, "status=inactive&capability=chess"), ["chess:d"]);
    assert_eq!(
        (listed(&server, "version=2"), listed(&server, "version=2.2")),
        (vec!["golf:a".to_owned()], vec![])
    );
    assert_eq!(listed(&server, "limit=1&offset=1"), ["golf:a"]);
    assert_eq!(server.get("/capabilities?status=asleep").problem(422, "VALIDATION_ERROR")["field"], "status");
    let able = |query: &str| -> Vec<Value> {
        let shown = server.get(&format!("/capabilities/chess{query}")).expect(200).json();
        assert_eq!((&shown["total_providers"], &shown["healthy_providers"]), (&json!(4), &json!(1)));
        shown["providers"].as_array().unwrap().iter().map(|row| row["agent_id"].clone()).collect()
    };
    assert_eq!(able(""), ["a", "c"]);
    assert_eq!(able("?include_unhealthy=true"), ["a", "b", "c", "d"]);
}

#[test]
fn a_change_of_an_offer_keeps_what_it_does_not_name() {
    let server = with_agents(&["a", "b"]);
    let body = json!({
        "agent_id": "a", "capability": "translation", "metadata": {"language": "fr", "level": 2},
        "health_check_url": "http://127.0.0.1:1/health",
    });
    let made = server.post("/capabilities", &body).expect(201).json();
    let path = format!("/capabilities/{}", made["registration_id"].as_str().unwrap());
    let put = |body: Value| server.ask("PUT", &path).json(&body).send();
    let changed = put(json!({"priority": 7})).expect(200).json();
    assert_eq!(
        (&changed["priority"], &changed["metadata"], &changed["health_check_url"]),
        (&json!(7), &body["metadata"], &body["health_check_url"])
    );
    let changed = put(json!({"metadata": {"language": "de"}})).expect(200).json();
    assert_eq!((&changed["priority"], &changed["metadata"]), (&json!(7), &json!({"language": "de"})));
    let changed = put(json!({"metadata": null, "health_check_url": null})).expect(200).json();
    assert_eq!((&changed["metadata"], &changed["health_check_url"]), (&Value::Null, &Value::Null));
    assert_eq!(changed["priority"], 7);
    put(json!({})).problem(422, "VALIDATION_ERROR");
    put(json!({"metadata": [1]})).problem(422, "VALIDATION_ERROR");

    put(json!({"metadata": {"language": "de"}})).expect(200);
    offer(&server, "b", "translation", 9);
    let found = |filter: &str| -> Vec<Value> {
        let shown =
            server.get(&format!("/capabilities/translation?metadata_filter={filter}")).expect(200).json();
        let count = json!(shown["providers"].as_array().unwrap().len());
        assert_eq!((&shown["total_providers"], &shown["healthy_providers"]), (&count, &count), "{shown}");
        assert_eq!(shown["routing"]["candidates"].as_array().unwrap().len(), count, "{shown}");
        shown["providers"].as_array().unwrap().iter().map(|row| row["agent_id"].clone()).collect()
    };
    assert_eq!(found("%7B%22language%22:%22de%22%7D"), ["a"]);
    assert_eq!(found("%7B%22language%22:%22fr%22%7D"), Vec::<Value>::new());
    assert_eq!(found("%7B%7D"), ["a", "b"]);
    let wrong = server.get("/capabilities/translation?metadata_filter=de");
    assert_eq!(wrong.problem(422, "VALIDATION_ERROR")["field"], "metadata_filter");
}

#[test]
fn health_is_reported_shown_and_routed_by() {
    let server = with_agents(&["ada", "a", "b"]);
    offer(&server, "a", "chess", 900);
    offer(&server, "b", "chess", 1);
    offer(&server, "b", "golf", 1);
    let health = |name: &str| server.get(&format!("/capabilities/{name}/health")).expect(200).json();
    assert_eq!(health("chess")["overall_health"], "healthy");
    let ill = json!({"health": "unhealthy", "capability": "chess", "reason": "lost its queen"});
    assert_eq!(report(&server, "a", &ill)["status"], "recorded");
    assert_eq!(report(&server, "a", &ill)["status"], "unchanged");
    let chess = health("chess");
    assert_eq!(
        (&chess["overall_health"], &chess["healthy_providers"], &chess["total_providers"]),
        (&json!("degraded"), &json!(1), &json!(2))
    );
    let row = &chess["providers"][0];
    assert_eq!(
        (&row["agent_id"], &row["status"], &row["error"]),
        (&json!("a"), &json!("unhealthy"), &json!("lost its queen"))
    );
    assert!(row["last_check"].is_string() && chess["providers"][1]["last_check"].is_null(), "{chess}");
    let mut body = request("ada", "x", "play");
    body.as_object_mut().unwrap().remove("receiver");
    (body["capability"], body["routing_strategy"]) = (json!("chess"), json!("priority"));
    assert_eq!(send(&server, &body)["delivered_to"], json!(["b"]));

    report(&server, "b", &json!({"health": "unhealthy"}));
    assert_eq!(health("chess")["overall_health"], "unhealthy");
    assert_eq!(send(&server, &body)["status"], "dead_lettered");
    let all = server.get("/capabilities/health").expect(200).json();
    assert_eq!(
        (&all["overall_health"], &all["unhealthy_capabilities"], &all["healthy_capabilities"]),
        (&json!("unhealthy"), &json!(2), &json!(0))
    );
    report(&server, "b", &json!({"health": "healthy"}));
    let all = server.get("/capabilities/health?include_healthy=false").expect(200).json();
    assert_eq!((&all["overall_health"], &all["degraded_capabilities"]), (&json!("degraded"), &json!(1)));
    assert_eq!(all["capabilities"].as_array().unwrap().len(), 1);
    assert_eq!(all["capabilities"][0]["capability"], "chess");

    server.get("/capabilities/chess:v9/health").problem(404, "CAPABILITY_NOT_FOUND");
    server.get("/capabilities/unknown/health").problem(404, "CAPABILITY_NOT_FOUND");
    for (agent, body, status, code) in [
        ("nobody", json!({"health": "healthy"}), 404, "AGENT_NOT_FOUND"),
        ("a", json!({"health": "sick"}), 422, "VALIDATION_ERROR"),
        ("a", json!({}), 422, "VALIDATION_ERROR"),
        ("a", json!({"health": "healthy", "capability": "golf"}), 404, "REGISTRATION_NOT_FOUND"),
        ("a", json!({"health": "healthy", "reason": "x".repeat(1_025)}), 413, "TOO_LARGE"),
    ] {
        server.post(&format!("/agents/{agent}/health"), &body).problem(status, code);
    }
}

#[test]
fn a_capability_called_health_can_be_withdrawn() {
    let server = with_agents(&["a"]);
    offer(&server, "a", "health", 1);
    assert_eq!(listed(&server, "capability=health"), ["health:a"]);
    server.delete("/capabilities/a/health").expect(204);
    server.delete("/capabilities/a/health").problem(404, "REGISTRATION_NOT_FOUND");
}

#[test]
fn a_version_is_one_or_the_beginning_of_one() {
    let server = with_agents(&["bob"]);
    offer(&server, "bob", "plots", 50);
    for path in ["/capabilities?version=zz", "/capabilities/plots?version=1.x"] {
        assert_eq!(server.get(path).problem(422, "VALIDATION_ERROR")["field"], "version", "{path}");
    }
    let other = json!({"agent_id": "bob", "capability": "golf", "version": "banana"});
    assert_eq!(server.post("/capabilities", &other).problem(422, "VALIDATION_ERROR")["field"], "version");
    let problem = server.get("/capabilities/plots?version=9").problem(404, "CAPABILITY_NOT_FOUND");
    assert!(problem["remedy"].as_str().is_some_and(|text| text.contains("1.0.0")), "{problem}");
}
