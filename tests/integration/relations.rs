//! Relations: created, read, listed, changed, removed, walked.

use serde_json::{Value, json};

use super::server::Server;

fn family(server: &Server) {
    for name in ["Ada", "Byron", "Babbage"] {
        server.entity(name, "Person", &[&format!("{name} lived in London")]);
    }
    server.relation("Ada", "Byron", "daughter_of");
    let works = json!({
        "agent_id": "ada", "from_entity": "Ada", "to_entity": "Babbage", "relation_type": "works_with",
        "strength": 0.9, "confidence": 0.8, "metadata": {"since": 1833}, "bidirectional": true,
    });
    server.post("/memory/relations", &works).expect(201);
}

#[test]
fn a_relation_is_created_read_changed_and_removed() {
    let server = Server::start();
    family(&server);
    let created = server.relation("Byron", "Babbage", "knows");
    assert_eq!(created["from_entity"], "Byron");
    assert_eq!(created["to_entity"], "Babbage");
    assert_eq!((&created["strength"], &created["confidence"]), (&json!(0.5), &json!(1.0)));
    assert_eq!((&created["created_by"], &created["memory_scope"]), (&json!("ada"), &json!("agent")));
    assert!(created["created_at"].is_string() && created["seq"].is_u64());
    let id = created["relation_id"].as_str().unwrap();
    assert!(id.starts_with("rel_"));

    let path = format!("/memory/relations/{id}?agent_id=ada");
    let change = json!({"strength": 0.25, "metadata": {"how": "by letter"}});
    let changed = server.ask("PATCH", &path).json(&change).send().expect(200).json();
    assert_eq!((&changed["status"], &changed["strength"]), (&json!("updated"), &json!(0.25)));
    let shown = server.get(&path).expect(200).json();
    assert_eq!((&shown["metadata"], &shown["confidence"]), (&json!({"how": "by letter"}), &json!(1.0)));

    let other = format!("/memory/relations/{id}?agent_id=bob");
    server.get(&other).problem(404, "RELATION_NOT_FOUND");
    server.delete(&other).problem(404, "RELATION_NOT_FOUND");
    server.ask("PATCH", &other).json(&change).send().problem(404, "RELATION_NOT_FOUND");

    assert_eq!(server.delete(&path).expect(200).json()["status"], "removed");
    server.get(&path).problem(404, "RELATION_NOT_FOUND");
}

#[test]
fn a_relation_that_exists_otherwise_is_a_conflict() {
    let server = Server::start();
    family(&server);
    let same = json!({
        "agent_id": "ada", "from_entity": "Ada", "to_entity": "Byron", "relation_type": "daughter_of",
    });
    assert_eq!(server.post("/memory/relations", &same).expect(200).json()["status"], "unchanged");
    let mut other = same;
    other["strength"] = json!(0.1);
    server.post("/memory/relations", &other).problem(409, "RELATION_CONFLICT");
    other["on_existing"] = json!("update");
    assert_eq!(server.post("/memory/relations", &other).expect(200).json()["status"], "updated");
    // A relation has no type beside the one that it is found by.
    other["on_existing"] = json!("extend");
    let problem = server.post("/memory/relations", &other).problem(422, "VALIDATION_ERROR");
    assert_eq!(problem["field"], "on_existing");
}

#[test]
fn a_relation_to_nothing_is_refused() {
    let server = Server::start();
    family(&server);
    for (from, to, field) in
        [("Ada", "Nobody", "to_entity"), ("Nobody", "Ada", "from_entity"), ("Ada", "ent_999999", "to_entity")]
    {
        let body = json!({"agent_id": "ada", "from_entity": from, "to_entity": to, "relation_type": "knows"});
        let problem = server.post("/memory/relations", &body).problem(404, "ENTITY_NOT_FOUND");
        assert_eq!(problem["field"], field);
    }
    let foreign = server.entity("hidden", "Note", &[]);
    let body = json!({
        "agent_id": "bob", "from_entity": foreign["entity_id"], "to_entity": foreign["entity_id"],
        "relation_type": "knows",
    });
    server.post("/memory/relations", &body).problem(404, "ENTITY_NOT_FOUND");
}

#[test]
fn an_end_in_a_workspace_that_is_not_the_callers_has_no_name() {
    let server = Server::start();
    server.entity("Ada", "Person", &[]);
    let tea = json!({
        "agent_id": "ada", "workspace": "lab", "memory_scope": "workspace", "entity_name": "secret tea",
        "entity_type": "Drink",
    });
    let tea = server.post("/memory/entities", &tea).expect(201).json();
    let likes = json!({
        "agent_id": "ada", "workspace": "lab", "from_entity": "Ada", "to_entity": "secret tea",
        "relation_type": "likes",
    });
    let likes = server.post("/memory/relations", &likes).expect(201).json();
    assert_eq!(likes["to_entity"], "secret tea");
    let one = format!("/memory/relations/{}?", likes["relation_id"].as_str().unwrap());
    for (workspace, name) in [("lab", json!("secret tea")), ("office", Value::Null)] {
        let get =
            |path: &str| server.get(&format!("{path}agent_id=ada&workspace={workspace}")).expect(200).json();
        let of_kind = |rows: &Value| {
            rows.as_array().unwrap().iter().find(|row| row["kind"] == "relation").cloned().unwrap()
        };
        for row in [
            &get("/memory/relations?")["relations"][0],
            &get(&one),
            &get("/memory/search?query=Ada&include_relations=true&")["results"][0]["relations"][0],
            &of_kind(&get("/memory/entities/Ada/history?")["versions"])["relation"],
            &of_kind(&get("/memory/diff?from=0&")["differences"])["after"],
        ] {
            assert_eq!(
                (&row["from_entity"], &row["to_entity"]),
                (&json!("Ada"), &name),
                "{workspace}: {row}"
            );
            assert_eq!(row["to_entity_id"], tea["entity_id"]);
        }
        // A line without a name could not be imported.
        let exported = get("/memory/export?");
        let whole = if name.is_null() { (Value::Null, json!(1)) } else { (name, Value::Null) };
        let found = (&exported["relations"][0]["to_entity"], &exported["relations_left_out"]);
        assert_eq!(found, (&whole.0, &whole.1), "{workspace}: {exported}");
    }
}

#[test]
fn relations_are_listed_by_end_type_and_strength() {
    let server = Server::start();
    family(&server);
    let list = |query: &str| -> Vec<(String, String)> {
        let page = server.get(&format!("/memory/relations?agent_id=ada{query}")).expect(200).json();
        let rows = page["relations"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rows.iter().map(|row| (text(&row["from_entity"]), text(&row["to_entity"]))).collect()
    };
    assert_eq!(list("").len(), 3);
    assert_eq!(list("&entity=Ada").len(), 3);
    assert_eq!(list("&entity=Ada&direction=incoming"), [("Babbage".to_owned(), "Ada".to_owned())]);
    assert_eq!(list("&entity=Byron&direction=outgoing"), []);
    assert_eq!(list("&relation_types=works_with").len(), 2);
    assert_eq!(list("&min_strength=0.6").len(), 2);
    let first = server.get("/memory/relations?agent_id=ada&entity=Ada&limit=1").expect(200).json();
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(list(&format!("&entity=Ada&limit=5&cursor={cursor}")).len(), 2);
    let problem = server.get("/memory/relations?agent_id=ada&direction=incoming");
    assert_eq!(problem.problem(422, "VALIDATION_ERROR")["field"], "direction");
}

#[test]
fn a_walk_meets_what_is_connected() {
    let server = Server::start();
    family(&server);
    let walk = |query: &str| server.get(&format!("/memory/graph/{query}")).expect(200).json();
    let names = |walk: &Value| -> Vec<String> {
        let nodes = walk["graph"]["nodes"].as_array().unwrap();
        nodes.iter().map(|node| node["entity_name"].as_str().unwrap().to_owned()).collect()
    };
    let all = walk("Byron?agent_id=ada");
    assert_eq!(all["root_entity"], "Byron");
    assert_eq!(names(&all), ["Byron", "Ada", "Babbage"]);
    assert_eq!(all["graph"]["nodes"][2]["depth"], 2);
    assert_eq!(all["graph"]["nodes"][0]["observations"][0]["content"], "Byron lived in London");
    assert_eq!(all["traversal_stats"]["nodes_found"], 3);
    assert_eq!(all["traversal_stats"]["edges_found"], 3);
    assert_eq!(all["traversal_stats"]["truncated"], false);
    let edge = &all["graph"]["edges"][0];
    assert_eq!((&edge["from"], &edge["to"]), (&json!("Ada"), &json!("Byron")));

    assert_eq!(names(&walk("Byron?agent_id=ada&max_depth=1")), ["Byron", "Ada"]);
    assert_eq!(names(&walk("Byron?agent_id=ada&direction=outgoing")), ["Byron"]);
    assert_eq!(names(&walk("Ada?agent_id=ada&relation_types=works_with")), ["Ada", "Babbage"]);
    assert_eq!(names(&walk("Ada?agent_id=ada&min_strength=0.95")), ["Ada"]);
    assert_eq!(walk("Byron?agent_id=ada&max_nodes=2")["traversal_stats"]["truncated"], true);
    let bare = walk("Ada?agent_id=ada&include_observations=false&traversal_strategy=depth_first");
    assert_eq!(bare["graph"]["nodes"][0].get("observations"), None);
    server.get("/memory/graph/Ada?agent_id=bob").problem(404, "ENTITY_NOT_FOUND");
    let deep = server.get("/memory/graph/Ada?agent_id=ada&max_depth=11");
    assert_eq!(deep.problem(422, "VALIDATION_ERROR")["field"], "max_depth");
}

#[test]
fn agents_relate_shared_entities_without_meeting_each_other() {
    let server = Server::start();
    let shared = |name: &str| {
        let body = json!({
            "agent_id": "ada", "memory_scope": "global", "entity_name": name, "entity_type": "T",
            "observations": [],
        });
        server.post("/memory/entities", &body).expect(201);
    };
    shared("tea");
    shared("rain");
    let relate = |agent: &str, strength: f64| {
        let body = json!({
            "agent_id": agent, "from_entity": "tea", "to_entity": "rain", "relation_type": "suits",
            "strength": strength,
        });
        server.post("/memory/relations", &body).expect(201).json()["relation_id"].as_str().unwrap().to_owned()
    };
    let (hers, his) = (relate("ada", 0.9), relate("bob", 0.2));
    assert_ne!(hers, his);
    let seen = server.get("/memory/relations?agent_id=bob").expect(200).json();
    assert_eq!((&seen["count"], &seen["relations"][0]["strength"]), (&json!(1), &json!(0.2)));
    let path = format!("/memory/relations/{hers}?agent_id=bob");
    server.delete(&path).problem(404, "RELATION_NOT_FOUND");
    let ask = server.ask("PATCH", &path).json(&json!({"strength": 0}));
    ask.send().problem(404, "RELATION_NOT_FOUND");

    let own = server.entity("diary", "T", &[]);
    let public = json!({
        "agent_id": "ada", "memory_scope": "global", "from_entity": own["entity_id"], "to_entity": "tea",
        "relation_type": "mentions",
    });
    let problem = server.post("/memory/relations", &public).problem(422, "INVALID_ENTITY_DATA");
    assert_eq!(problem["field"], "from_entity");

    let cleared = server.delete("/memory/ada?confirm=true").expect(200).json();
    assert_eq!((&cleared["entities_deleted"], &cleared["relations_deleted"]), (&json!(1), &json!(1)));
    server.get(&format!("/memory/relations/{his}?agent_id=bob")).expect(200);
}
