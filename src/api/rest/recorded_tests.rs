//! Answers while nothing can be read, and exports while much is written.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use super::{Api, RestOptions, routes};
use crate::engine::{Engine, EngineOptions};

/// A door that no connection leads to.
struct Door {
    api: Api,
    engine: Engine,
    runtime: Runtime,
    _dir: TempDir,
}

impl Door {
    /// With one turn to read, behind which nobody waits.
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        let options = RestOptions { reads_max: 1, reads_waiting_max: 0, ..RestOptions::default() };
        let api = Api::new(engine.clone(), options, false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { api, engine, runtime, _dir: dir }
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Response {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
            .unwrap();
        self.runtime.block_on(routes::with_layers(&self.api).oneshot(request)).unwrap()
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let response = self.send(method, path, body);
        let status = response.status();
        let bytes = self.runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[track_caller]
    fn entity(&self, name: &str, observations: &[&str]) -> Value {
        let body = json!({"entity_name": name, "entity_type": "T", "observations": observations});
        let (status, entity) = self.ask("POST", "/memory/entities?agent_id=ada", &body);
        assert_eq!(status, StatusCode::CREATED, "{entity}");
        entity
    }

    #[track_caller]
    fn relation(&self, from: &str, to: &str) -> Value {
        let body = json!({"from_entity": from, "to_entity": to, "relation_type": "knows"});
        let (status, relation) = self.ask("POST", "/memory/relations?agent_id=ada", &body);
        assert_eq!(status, StatusCode::CREATED, "{relation}");
        relation
    }

    /// The next piece of an answer that is streamed; `None` at its end.
    fn piece(&self, body: &mut Body) -> Option<Bytes> {
        let frame = self.runtime.block_on(body.frame())?;
        Some(frame.unwrap().into_data().unwrap())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

#[test]
fn a_write_that_is_recorded_is_a_success_though_nothing_can_be_read() {
    let door = Door::open();
    let kept = door.entity("Byron", &[]);
    let knows = door.entity("Ada", &["likes tea"]);
    let relation = door.relation("Ada", "Byron")["relation_id"].as_str().unwrap().to_owned();
    let turn = door.runtime.block_on(door.api.turns.take()).unwrap();
    let (status, refused) = door.ask("GET", "/memory/entities/Ada?agent_id=ada", &Value::Null);
    assert_eq!((status.as_u16(), &refused["code"]), (503, &json!("OVERLOADED")));

    let ada = "/memory/entities/Ada?agent_id=ada";
    let relation = format!("/memory/relations/{relation}?agent_id=ada");
    for (method, path, body, status, told) in [
        (
            "POST",
            "/memory/entities?agent_id=ada",
            json!({"entity_name": "engine", "entity_type": "Machine", "observations": ["is brass"]}),
            201,
            json!({"entity_name": "engine", "entity_type": "Machine", "status": "created", "version": 1}),
        ),
        (
            "PATCH",
            ada,
            json!({"confidence": 0.5}),
            200,
            json!({"entity_id": knows["entity_id"], "entity_name": "Ada", "status": "updated", "version": 2}),
        ),
        (
            "PUT",
            "/memory/entities/Byron?agent_id=ada",
            json!({"entity_type": "Poet"}),
            200,
            json!({"entity_id": kept["entity_id"], "entity_type": "Poet", "status": "updated"}),
        ),
        (
            "POST",
            "/memory/relations?agent_id=ada",
            json!({"from_entity": "Ada", "to_entity": "engine", "relation_type": "programs"}),
            201,
            json!({"from_entity": "Ada", "status": "created", "created_by": "ada"}),
        ),
        ("PATCH", relation.as_str(), json!({"strength": 0.75}), 200, json!({"status": "updated"})),
        (
            "POST",
            "/memory/relations?agent_id=ada",
            json!({"from_entity": "Ada", "to_entity": "Byron", "relation_type": "knows", "on_existing": "skip"}),
            200,
            json!({"status": "skipped", "strength": null, "created_by": null}),
        ),
        ("POST", "/memory/undo", json!({"agent": "ada"}), 200, json!({"status": "undone", "changes": null})),
    ] {
        let head = door.engine.log().head().seq.0;
        let (code, answer) = door.ask(method, path, &body);
        assert_eq!(code.as_u16(), status, "{method} {path}: {answer}");
        for (name, value) in told.as_object().unwrap() {
            assert_eq!(&answer[name], value, "{method} {path}: {answer}");
        }
        assert_eq!(answer["seq"], door.engine.log().head().seq.0, "{method} {path}: {answer}");
        let is_written = told["status"] != "skipped";
        assert_eq!(door.engine.log().head().seq.0 > head, is_written, "{method} {path}");
    }
    drop(turn);
    let (status, _) = door.ask("GET", ada, &Value::Null);
    assert_eq!(status, StatusCode::NOT_FOUND, "all of it was undone");
}

#[test]
fn an_answer_that_was_kept_leaves_out_what_it_does_not_know_and_cannot_read() {
    let door = Door::open();
    door.entity("Ada", &[]);
    let ask = || {
        let body = json!({
            "entity_name": "Ada", "entity_type": "thing", "observations": ["likes tea"], "on_existing": "extend",
        });
        let request = Request::builder()
            .method("POST")
            .uri("/api/v1/memory/entities?agent_id=ada")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("idempotency-key", "k")
            .body(Body::from(body.to_string()))
            .unwrap();
        let response = door.runtime.block_on(routes::with_layers(&door.api).oneshot(request)).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = door.runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    assert_eq!(ask()["entity_type"], "T");
    assert_eq!(ask()["entity_type"], "T");
    let turn = door.runtime.block_on(door.api.turns.take()).unwrap();
    let again = ask();
    assert_eq!((again.get("entity_type"), &again["entity_name"]), (None, &json!("Ada")), "{again}");
    drop(turn);
}

/// The document that pieces make, read to its end.
fn rest(door: &Door, mut body: Body, mut text: Vec<u8>) -> Value {
    while let Some(piece) = door.piece(&mut body) {
        text.extend_from_slice(&piece);
    }
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn an_export_is_of_one_record_whatever_is_written_meanwhile() {
    let door = Door::open();
    for name in ["a", "b", "c"] {
        door.entity(name, &["x"]);
    }
    door.relation("a", "b");
    let response = door.send("GET", "/memory/export?agent_id=ada", &Value::Null);
    let moment = response.headers()["caxton-as-of"].to_str().unwrap().to_owned();
    let mut body = response.into_body();
    let head = door.piece(&mut body).unwrap();
    assert!(!String::from_utf8_lossy(&head).contains("entity_name"), "nothing but the head is read yet");
    door.ask("DELETE", "/memory/entities/a?agent_id=ada", &Value::Null);
    door.entity("d", &[]);
    door.relation("d", "c");
    let export = rest(&door, body, head.to_vec());
    let names = |list: &str, name: &str| -> Vec<Value> {
        export[list].as_array().unwrap().iter().map(|row| row[name].clone()).collect()
    };
    assert_eq!(names("entities", "entity_name"), ["a", "b", "c"]);
    assert_eq!(
        (names("relations", "from_entity"), names("relations", "to_entity")),
        (vec![json!("a")], vec![json!("b")])
    );
    assert_eq!(export["export_metadata"]["seq"].to_string(), moment);
}

#[test]
fn an_export_comes_in_pieces_however_much_one_entity_has() {
    const TEXT: usize = 300_000;
    let door = Door::open();
    let texts: Vec<String> = (0..12).map(|number| format!("{number:02}{}", "x".repeat(TEXT))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    door.entity("short", &["a", "b"]);
    door.entity("long", &texts);
    door.entity("none", &[]);
    door.relation("long", "none");
    for format in ["json", "jsonl"] {
        let path = format!("/memory/export?agent_id=ada&format={format}");
        let mut body = door.send("GET", &path, &Value::Null).into_body();
        let (mut text, mut largest) = (Vec::new(), 0);
        while let Some(piece) = door.piece(&mut body) {
            largest = largest.max(piece.len());
            text.extend_from_slice(&piece);
        }
        assert!(largest < (1 << 20) + 2 * TEXT, "{format}: a piece of {largest} bytes");
        let rows: Vec<Value> = if format == "json" {
            let whole: Value = serde_json::from_slice(&text).unwrap();
            whole["entities"].as_array().unwrap().clone()
        } else {
            let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            lines
                .map(|line| serde_json::from_slice(line).unwrap())
                .filter(|row: &Value| row["type"] == "entity")
                .collect()
        };
        let counts: Vec<usize> =
            rows.iter().map(|row| row["observations"].as_array().unwrap().len()).collect();
        assert_eq!(counts, [2, 12, 0], "{format}");
        assert_eq!(rows[1]["observations"][11]["content"], texts[11], "{format}");
    }
}
