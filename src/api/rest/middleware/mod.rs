//! What happens around every request, from the outside in: id, host, key, body, time limit, answer.

mod auth;
mod body;
mod etag;
mod format;
mod hosts;
pub(super) mod request_id;

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

pub(super) use body::Bodies;
pub(super) use etag::{Version, expected_version};
use format::Format;
pub use format::Formats;
use request_id::RequestId;

use super::Api;
use super::problem::{Problem, Told};
use super::refusals::GRAPH_DAMAGED;

/// May take long: everything there is may be in its body.
const IMPORT: &str = "/api/v1/memory/import";
/// May take long too: a file of the whole graph is made before the first byte of the answer.
const EXPORT_TABLES: &str = "/api/v1/memory/export/tables";
/// May take long too, and its answer is the only one with the receipt: the log may be written anew before it.
const ERASE: &str = "/api/v1/erase";
/// May take long as well: the model reads up to thousands of texts.
const EMBEDDINGS: [&str; 2] = ["/v1/embeddings", "/api/v1/embeddings"];

/// Answers that stay the same while the server runs.
const STATIC: &[&str] =
    &["/api/v1/memory/config", "/api/v1/config-agents/templates", "/api/v1/config-agents/templates/{id}"];

/// The one layer of the door. The order is the point: a page from elsewhere or a client without a key gets nothing parsed, a slow body does not
/// use up the time for the answer, and every problem of the inner layers is rendered here with the id of the request.
pub(super) async fn around(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = api.request_ids.of(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let conditions = etag::Conditions::of(&request);
    let matched = route.as_ref().map_or("(none)", MatchedPath::as_str);
    let formats = api.options.formats;
    let format = formats.wanted(request.headers());

    let (response, format) = match format {
        Ok(format) => match granted(&api, request).await {
            Ok(request) => {
                let response = answered(&api, request, next).await;
                note_damage(&api, &response);
                (response, format)
            }
            Err(problem) => (problem.into_response(), format),
        },
        Err(problem) => (problem.into_response(), Format::Json),
    };
    let told = Told { detailed: api.options.detailed_errors, causes: api.options.error_causes };
    let response = rendered(response, &id, told);
    let mut response = formats.answer(response, format).await;
    if conditions.reads() && response.status() == StatusCode::OK && STATIC.contains(&matched) {
        keep_for(&mut response, api.options.static_max_age);
    }
    if api.options.etags {
        response = etag::tagged(response, &conditions).await;
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(request_id::HEADER, value);
    }
    let route = matched;
    let took = started.elapsed();
    super::meter::request_finished(route, &method, response.status(), took);
    tracing::debug!(%id, %method, route, status = response.status().as_u16(), ?took, "request");
    response
}

/// Lets the client keep the answer so long without asking again. It is the client's own: a shared cache knows no keys.
fn keep_for(response: &mut Response, age: Option<Duration>) {
    let value =
        age.and_then(|age| HeaderValue::from_str(&format!("private, max-age={}", age.as_secs())).ok());
    if let Some(value) = value {
        response.headers_mut().entry(CACHE_CONTROL).or_insert(value);
    }
}

/// The request with its body in memory, when it may be served.
async fn granted(api: &Api, request: Request) -> Result<Request, Problem> {
    if api.guards_hosts {
        hosts::check(&api.options.allowed_hosts, &request)?;
    }
    auth::check(api.options.api_keys.as_ref(), &request)?;
    etag::check(&request)?;
    let path = request.uri().path();
    let time = if path == IMPORT { api.options.import_body_timeout() } else { api.options.body_timeout };
    // Those that wait for the model may keep theirs for minutes.
    let bodies = if EMBEDDINGS.contains(&path) { &api.embedding_bodies } else { &api.bodies };
    let limits = body::Limits { bytes_max: api.options.body_bytes_max, time };
    let request = body::read(request, bodies, limits).await?;
    api.options.formats.as_json(request, limits.bytes_max).await
}

async fn answered(api: &Api, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let takes_long = [IMPORT, EXPORT_TABLES, ERASE].contains(&path) || EMBEDDINGS.contains(&path);
    let limit = if takes_long { api.options.answer_timeout() } else { api.options.request_timeout };
    let remedy = after_time(request.method(), path);
    if let Ok(response) = tokio::time::timeout(limit, next.run(request)).await {
        return response;
    }
    let detail = format!("no answer within {limit:?}");
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", detail).remedy(remedy).into_response()
}

/// What to do about a request whose time is over: a write may have been recorded, and how it is told from another one differs.
fn after_time(method: &Method, path: &str) -> &'static str {
    if method.is_safe() {
        "try again, ask for less, or raise http_server.request_timeout"
    } else if path.starts_with("/api/v1/memory/") {
        "the write may have been recorded: repeat it with the same Idempotency-Key, or read first"
    } else if path.starts_with("/api/v1/messages") {
        "the message may have been recorded: repeat it with the same message_id, or read first; one without a message_id would be sent again"
    } else {
        "it may have been done: read first, and repeat it only if it was not"
    }
}

/// Tells the engine of a graph that a write or another request found damaged: what a read finds, it tells itself.
fn note_damage(api: &Api, response: &Response) {
    let problem = response.extensions().get::<Problem>();
    let Some(problem) = problem.filter(|problem| problem.code() == GRAPH_DAMAGED) else { return };
    let (engine, cause) = (api.engine.clone(), problem.cause());
    // The mark for the next start is written to the disk.
    tokio::task::spawn_blocking(move || engine.graph_is_damaged(&cause));
}

/// The response with its problem written out.
fn rendered(mut response: Response, id: &str, told: Told) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let mut answer = problem.render(id, told);
    for (name, value) in response.headers() {
        if !answer.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::convert::Infallible;
    use std::time::Duration;

    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::post;
    use futures::stream;
    use tower::ServiceExt as _;

    use super::{Api, ERASE, IMPORT, Method, after_time, answered};
    use crate::api::rest::{RestOptions, routes};
    use crate::engine::{Engine, EngineOptions};

    #[test]
    fn an_import_has_time_to_arrive_however_little_others_have() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        let options = RestOptions { body_timeout: Duration::from_secs(1), ..RestOptions::default() };
        let api = Api::new(engine.clone(), options, false);
        // Its clock goes on where everybody waits.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.unwrap();
        // A blank line came, and there is nothing in it to import.
        for (path, status) in [(IMPORT, 422), ("/api/v1/memory/entities/batch", 408)] {
            let late = stream::once(async {
                tokio::time::sleep(Duration::from_secs(20)).await;
                Ok::<_, Infallible>("\n")
            });
            let request = Request::builder()
                .method("POST")
                .uri(path)
                .header("host", "localhost")
                .header("content-type", "application/x-ndjson")
                .body(Body::from_stream(late))
                .unwrap();
            let response = runtime.block_on(routes::with_layers(&api).oneshot(request)).unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
        }
        engine.stop();
    }

    #[test]
    fn an_erasure_has_time_until_its_receipt_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        let api = Api::new(engine.clone(), RestOptions::default(), false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.unwrap();
        let slow = || async { tokio::time::sleep(Duration::from_mins(1)).await };
        let timed = move |request, next| {
            let api = api.clone();
            async move { answered(&api, request, next).await }
        };
        let routes = Router::new()
            .route(ERASE, post(slow))
            .route("/api/v1/memory/undo", post(slow))
            .layer(axum::middleware::from_fn(timed));
        for (path, status) in [(ERASE, 200), ("/api/v1/memory/undo", 504)] {
            let request = Request::builder().method("POST").uri(path).body(Body::empty()).unwrap();
            let response = runtime.block_on(routes.clone().oneshot(request)).unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
        }
        engine.stop();
    }

    #[test]
    fn what_to_do_when_time_is_over_is_what_the_request_takes() {
        for (method, path, told) in [
            (Method::GET, "/api/v1/memory/search", "ask for less"),
            (Method::POST, "/api/v1/memory/entities", "the same Idempotency-Key"),
            (Method::POST, "/api/v1/messages/batch", "the same message_id"),
            (Method::POST, "/api/v1/conversations", "read first"),
        ] {
            assert!(after_time(&method, path).contains(told), "{method} {path}");
        }
    }
}
