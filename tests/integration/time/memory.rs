//! Every read of the memory as of every record.

use serde_json::{Value, json};

use super::super::server::Server;
use super::{Album, lasting};

const PATHS: &[&str] = &[
    "/memory/entities?agent_id=ada&include_observations=true",
    "/memory/entities?agent_id=ada&entity_types=person&limit=1",
    "/memory/entities?agent_id=ada&name_prefix=L",
    "/memory/entities/Ada?agent_id=ada",
    "/memory/entities/Lady%20Ada?agent_id=ada",
    "/memory/entities/Ada/history?agent_id=ada",
    "/memory/entities/engine/observations?agent_id=ada",
    "/memory/relations?agent_id=ada",
    "/memory/relations?agent_id=ada&entity=engine&direction=incoming",
    "/memory/graph/engine?agent_id=ada&max_depth=3",
    "/memory/graph/engine?agent_id=ada&valid_at=2000-01-01",
    "/memory/stats?agent_id=ada",
    "/memory/stats",
    "/memory/search?agent_id=ada&query=ada+steam+engine&mode=keyword&include_relations=true&neighbours=1",
    "/memory/search?agent_id=ada&query=countess&mode=keyword",
    "/memory/export?agent_id=ada&format=jsonl",
];

const BY_MEANING: &[&str] = &[
    "/memory/search?agent_id=ada&query=steam+engine&mode=semantic&exact=true",
    "/memory/search?agent_id=ada&query=likes+tea&mode=hybrid&exact=true",
    "/memory/search?agent_id=ada&query=likes+tea&mode=hybrid&entity_types=countess",
];

/// A life: things are noted, renamed, corrected, related, removed. `shoot` is called after each step.
fn live(server: &Server, wait: &str, shoot: &mut dyn FnMut()) {
    let path = |path: &str| format!("{path}?agent_id=ada&wait={wait}");
    let post = |at: &str, body: Value| server.post(&path(at), &body).expect(201).json();
    let change = |at: &str, body: Value| server.ask("PATCH", &path(at)).json(&body).send().expect(200).json();
    let thing = |name: &str, kind: &str, notes: &[&str]| json!({"entity_name": name, "entity_type": kind, "observations": notes});
    post("/memory/entities", thing("Ada", "person", &["likes tea", "wrote a program"]));
    shoot();
    post("/memory/entities", thing("engine", "machine", &["runs on steam"]));
    shoot();
    let uses = post(
        "/memory/relations",
        json!({"from_entity": "Ada", "to_entity": "engine", "relation_type": "uses"}),
    );
    shoot();
    let uses = format!("/memory/relations/{}", uses["relation_id"].as_str().unwrap());
    change(&uses, json!({"strength": 1.0, "valid_from": "1990-01-01", "valid_to": "2010-01-01"}));
    shoot();
    change("/memory/entities/Ada", json!({"entity_name": "Lady Ada", "entity_type": "countess"}));
    shoot();
    let noted =
        post("/memory/entities/engine/observations", json!({"observations": ["made of brass and iron"]}));
    shoot();
    let note = format!("/memory/observations/{}", noted["observation_ids"][0].as_str().unwrap());
    change(&note, json!({"content": "made of brass for Ada"}));
    shoot();
    post("/memory/entities", thing("Lovelace", "place", &["a house by the sea"]));
    shoot();
    server.delete(&path(&note)).expect(200);
    shoot();
    server.delete(&path(&uses)).expect(200);
    shoot();
    server.delete(&path("/memory/entities/engine")).expect(200);
    shoot();
    post("/memory/entities", thing("engine", "idea", &["another one, of steam alone"]));
    shoot();
}

#[test]
fn every_read_of_the_past_is_what_was_read_when_it_was_the_present() {
    let server = Server::start();
    let mut album = Album::new(&server, PATHS);
    live(&server, "applied", &mut || album.shoot());
    album.check();
}

#[test]
fn a_search_by_meaning_in_the_past_is_what_was_found_when_it_was_the_present() {
    let server = Server::with_model();
    let mut album = Album::new(&server, BY_MEANING);
    live(&server, "indexed", &mut || album.shoot());
    album.check();
}

#[test]
fn an_answer_about_the_past_says_of_which_record_it_is_and_that_it_is_exact() {
    let server = Server::with_model();
    server.entity("Ada", "person", &["likes tea"]);
    let seq = server.engine.log().head().seq.0;
    server.entity("Charles", "person", &["likes tea"]);
    let path = format!("/memory/search?agent_id=ada&query=tea&as_of={seq}");
    let reply = server.get(&path).expect(200);
    assert_eq!(reply.header("caxton-as-of"), Some(seq.to_string().as_str()));
    let found = reply.json();
    assert_eq!((&found["as_of"], &found["seq"], &found["exact"]), (&json!(seq), &json!(seq), &json!(true)));
    assert_eq!((found["total_results"].clone(), &found["events_behind"]), (json!(1), &json!(0)));
    let body = json!({"agent_id": "ada", "query": "tea", "as_of": seq});
    let same = server.post("/memory/search", &body).expect(200).json();
    assert_eq!(lasting(same), lasting(found));
    // Of the present the header alone says it: a tag must not change with every write elsewhere.
    let reply = server.get("/memory/entities/Ada?agent_id=ada").expect(200);
    let head = server.engine.log().head().seq.0;
    assert_eq!(reply.header("caxton-as-of"), Some(head.to_string().as_str()));
    assert_eq!(reply.json().get("as_of"), None);
}

#[test]
fn a_change_of_the_model_since_then_is_told_where_it_matters() {
    let server = Server::with_model();
    server.entity("Ada", "person", &["likes tea"]);
    // The first model came with the first start, at record 2 or so: as of record 1 there was none.
    let ask = |mode: &str, seq: u64| {
        server
            .get(&format!("/memory/search?agent_id=ada&query=tea&mode={mode}&as_of={seq}"))
            .expect(200)
            .json()
    };
    let told = ask("semantic", 0);
    assert_eq!(told["intervened"][0]["what"], "system.embedding_model_changed", "{told}");
    assert!(told["intervened"][0]["seq"].is_u64() && told["intervened"][0]["recorded_at"].is_string());
    assert_eq!(ask("keyword", 0).get("intervened"), None);
    assert_eq!(ask("semantic", server.engine.log().head().seq.0).get("intervened"), None);
}

#[test]
fn what_is_current_in_a_search_of_the_past_is_what_was_current_then() {
    let server = Server::start();
    let soon = server.engine.log().head().recorded_at.unix_micros() + 3_600_000_000;
    let until = caxton_events::Timestamp::from_unix_micros(soon).to_string();
    let body = json!({
        "agent_id": "ada", "entity_name": "offer", "entity_type": "Note", "observations": ["tea at half price"],
        "valid_from": "1990-01-01", "valid_to": until,
    });
    let seq = server.post("/memory/entities", &body).expect(201).json()["seq"].clone();
    let path = format!("/memory/search?agent_id=ada&query=tea&as_of={seq}");
    let count = |more: &str| server.get(&format!("{path}{more}")).expect(200).json()["total_results"].clone();
    assert_eq!(count(""), 1);
    assert_eq!(count("&valid_at=1980-01-01"), 0);
    assert_eq!(count("&valid_at=2000-01-01"), 1);
    assert_eq!(count("&temporal_filter=all"), 1);
}

#[test]
fn what_was_true_is_asked_apart_from_what_was_known() {
    let server = Server::start();
    let body = json!({
        "agent_id": "ada", "entity_name": "Ada", "entity_type": "person",
        "observations": ["always", {"content": "then", "valid_from": "2000-01-01", "valid_to": "2010-01-01"}],
    });
    server.post("/memory/entities", &body).expect(201);
    let texts = |path: &str| -> Vec<String> {
        let shown = server.get(path).expect(200).json();
        let rows = shown["observations"].as_array().unwrap().iter();
        rows.map(|row| row["content"].as_str().unwrap().to_owned()).collect()
    };
    for path in ["/memory/entities/Ada?agent_id=ada", "/memory/entities/Ada/observations?agent_id=ada"] {
        assert_eq!(texts(path), ["always", "then"]);
        assert_eq!(texts(&format!("{path}&valid_at=2005-01-01")), ["always", "then"]);
        assert_eq!(texts(&format!("{path}&valid_at=2015-01-01")), ["always"]);
    }
    let export =
        |at: &str| server.get(&format!("/memory/export?agent_id=ada&valid_at={at}")).expect(200).json();
    let then = export("2005-01-01");
    assert_eq!(then["entities"][0]["observations"].as_array().unwrap().len(), 2);
    let later = export("2015-01-01");
    assert_eq!(later["entities"][0]["observations"].as_array().unwrap().len(), 1);
    assert_eq!(later["export_metadata"]["valid_at"], "2015-01-01T00:00:00.000000Z");
}

#[test]
fn an_entity_that_was_not_true_then_is_not_found_and_its_observations_are_counted_then() {
    let server = Server::start();
    let body = json!({
        "agent_id": "ada", "entity_name": "telegraph", "entity_type": "Tool",
        "observations": ["clicks", {"content": "is new", "valid_from": "1990-01-01", "valid_to": "1995-01-01"}],
        "valid_from": "1990-01-01", "valid_to": "2000-01-01",
    });
    let created = server.post("/memory/entities", &body).expect(201).json();
    let entity = "/memory/entities/telegraph?agent_id=ada";
    for path in [
        entity,
        "/memory/entities/telegraph/observations?agent_id=ada",
        "/memory/graph/telegraph?agent_id=ada",
    ] {
        server.get(path).expect(200);
        for at in ["1990-01-01", "1999-12-31"] {
            server.get(&format!("{path}&valid_at={at}")).expect(200);
        }
        for at in ["1989-12-31", "2000-01-01"] {
            let problem = server.get(&format!("{path}&valid_at={at}")).problem(404, "ENTITY_NOT_FOUND");
            assert_eq!(problem["field"], "valid_at");
            assert_eq!(problem["value"], format!("{at}T00:00:00.000000Z"));
            let details = json!({
                "entity_id": created["entity_id"],
                "valid_from": "1990-01-01T00:00:00.000000Z",
                "valid_to": "2000-01-01T00:00:00.000000Z",
            });
            assert_eq!(problem["details"], details);
            assert!(problem["remedy"].as_str().unwrap().starts_with("leave valid_at out"), "{problem}");
        }
    }
    let count =
        |at: &str| server.get(&format!("{entity}{at}")).expect(200).json()["observation_count"].clone();
    assert_eq!([count(""), count("&valid_at=1991-01-01"), count("&valid_at=1996-01-01")], [2, 2, 1]);
    let list = server.get("/memory/entities?agent_id=ada&valid_at=1996-01-01").expect(200).json();
    assert_eq!((&list["count"], &list["entities"][0]["observation_count"]), (&json!(1), &json!(1)));
}
