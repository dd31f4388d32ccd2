//! Requests that wait, and requests that take long: what they hold up meanwhile and what they do not.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use caxton_projections::view::Part;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use super::events_export::OPEN_COPIES_MAX;
use super::{Api, RestOptions, routes};
use crate::engine::testing::SameVector;
use crate::engine::{Engine, EngineOptions};

/// A door that no connection leads to.
struct Door {
    api: Api,
    engine: Engine,
    _dir: TempDir,
}

impl Door {
    /// With what is told when the model is asked, and what holds the model. That is dropped first, and a runtime last: it waits
    /// for its threads, and they for the model.
    fn open(options: RestOptions) -> (Self, Receiver<()>, Sender<()>) {
        let ((asked, is_asked), (hold, held)) = (channel(), channel());
        let (asked, held) = (Mutex::new(asked), Mutex::new(held));
        let embedding = Some(SameVector::served(move |_| {
            // Not every test listens.
            let _ = asked.lock().unwrap().send(());
            // Nothing is ever sent: this comes back when the other end is gone.
            assert!(held.lock().unwrap().recv().is_err());
            Ok(())
        }));
        let dir = tempfile::tempdir().unwrap();
        let engine_options = EngineOptions { embedding, ..EngineOptions::new(dir.path()) };
        let engine = Engine::start(&engine_options, &mut |_| {}).unwrap();
        let api = Api::new(engine.clone(), options, false);
        (Self { api, engine, _dir: dir }, is_asked, hold)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

/// Its clock goes on where everybody waits.
fn paused() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

async fn sent(api: &Api, method: &str, path: &str, body: &Value) -> Response {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) })
        .unwrap();
    routes::with_layers(api).oneshot(request).await.unwrap()
}

async fn ask(api: &Api, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let response = sent(api, method, path, body).await;
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// A request for the vectors of `texts`, at which the model is. One that never comes to it is told of instead of waited for.
fn begun(
    runtime: &Runtime,
    api: &Api,
    path: &'static str,
    texts: Value,
    asked: Receiver<()>,
) -> JoinHandle<(u16, Value)> {
    let api = api.clone();
    let mut slow = runtime.spawn(async move { ask(&api, "POST", path, &texts).await });
    runtime.block_on(async {
        tokio::select! {
            begun = tokio::task::spawn_blocking(move || asked.recv()) => begun.unwrap().unwrap(),
            answer = &mut slow => panic!("the model was not asked: {answer:?}"),
        }
    });
    slow
}

#[test]
fn embeddings_have_the_time_they_need_and_take_none_from_who_reads() {
    for path in ["/v1/embeddings", "/api/v1/embeddings"] {
        let runtime = paused();
        let options =
            RestOptions { reads_max: 1, embeddings_max: 1, reads_waiting_max: 0, ..RestOptions::default() };
        let (door, asked, hold) = Door::open(options);
        let texts = json!({"model": "same vector", "input": "x"});
        let slow = begun(&runtime, &door.api, path, texts.clone(), asked);
        let (status, stats) = runtime.block_on(async {
            tokio::time::advance(door.api.options.request_timeout * 2).await;
            ask(&door.api, "GET", "/api/v1/memory/stats", &Value::Null).await
        });
        assert_eq!(status, 200, "{path}: {stats}");
        let (status, refused) = runtime.block_on(ask(&door.api, "POST", path, &texts));
        assert_eq!((status, &refused["code"]), (503, &json!("OVERLOADED")), "{path}");
        assert!(!slow.is_finished(), "{path}");
        drop(hold);
        let (status, answer) = runtime.block_on(slow).unwrap();
        assert_eq!((status, &answer["data"][0]["index"]), (200, &json!(0)), "{path}: {answer}");
    }
}

#[test]
fn texts_that_wait_for_the_model_leave_what_is_written_its_room() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    // No room is left beside one of these bodies.
    let options = RestOptions { bodies_bytes_max: 128 << 10, ..RestOptions::default() };
    let (door, asked, hold) = Door::open(options);
    let large = "x ".repeat(50_000);
    let texts = json!({"model": "same vector", "input": large});
    let slow = begun(&runtime, &door.api, "/v1/embeddings", texts, asked);
    // Read, and refused for what it says.
    let named = json!({"agent_id": large, "entities": []});
    let (status, refused) = runtime.block_on(ask(&door.api, "POST", "/api/v1/memory/entities/batch", &named));
    assert_eq!((status, &refused["code"]), (422, &json!("VALIDATION_ERROR")), "{refused}");
    assert!(!slow.is_finished());
    drop(hold);
    assert_eq!(runtime.block_on(slow).unwrap().0, 200);
}

#[test]
fn what_takes_long_has_no_less_time_than_other_requests() {
    let runtime = paused();
    let options = RestOptions { request_timeout: Duration::from_mins(20), ..RestOptions::default() };
    let (door, asked, hold) = Door::open(options);
    let texts = json!({"model": "same vector", "input": "x"});
    let slow = begun(&runtime, &door.api, "/v1/embeddings", texts, asked);
    let (status, stats) = runtime.block_on(async {
        tokio::time::advance(door.api.options.import_timeout + Duration::from_mins(5)).await;
        ask(&door.api, "GET", "/api/v1/memory/stats", &Value::Null).await
    });
    assert_eq!(status, 200, "{stats}");
    assert!(!slow.is_finished());
    drop(hold);
    assert_eq!(runtime.block_on(slow).unwrap().0, 200);
}

#[test]
fn who_waits_is_answered_before_the_time_for_it_is_over() {
    let runtime = paused();
    let options = RestOptions { request_timeout: Duration::from_secs(10), ..RestOptions::default() };
    let (door, _asked, hold) = Door::open(options);
    // The vectors are being rebuilt for as long as nobody says what the vector of this one is.
    let entity = json!({"entity_name": "kettle", "entity_type": "thing", "observations": ["it boils"]});
    let plain = Builder::new_current_thread().enable_all().build().unwrap();
    let made = plain.block_on(ask(&door.api, "POST", "/api/v1/memory/entities?agent_id=ada", &entity));
    assert_eq!(made.0, 201, "{}", made.1);
    door.engine.rebuild(Part::Vectors).unwrap();
    let get = |path: &str| runtime.block_on(ask(&door.api, "GET", path, &Value::Null));
    let (status, page) = get("/api/v1/events?from_seq=1000&wait_seconds=25");
    assert_eq!((status, &page["count"]), (200, &json!(0)), "{page}");
    let (status, vectors) = get("/api/v1/projections/vectors?wait_seconds=25");
    assert_eq!((status, &vectors["status"]), (200, &json!("rebuilding")), "{vectors}");
    drop(hold);
}

#[test]
fn some_copies_of_the_graph_are_sent_at_a_time() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (door, _asked, _hold) = Door::open(RestOptions::default());
    let copy = || {
        let path = "/api/v1/memory/export/tables?format=sqlite";
        runtime.block_on(sent(&door.api, "GET", path, &Value::Null))
    };
    // Each is made, and nobody reads any of them to its end.
    let mut unread: Vec<Response> = (0..OPEN_COPIES_MAX).map(|_| copy()).collect();
    assert!(unread.iter().all(|response| response.status() == 200));
    let refused = copy();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"30".parse().unwrap()));
    unread.pop();
    assert_eq!(copy().status(), 200);
}
