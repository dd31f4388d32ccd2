//! What happens around every request, from the outside in: id, key, body, time limit, answer.

mod auth;
mod body;
mod etag;
pub(super) mod request_id;

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

pub(super) use body::Bodies;
pub(super) use etag::{Version, expected_version};
use request_id::RequestId;

use super::Api;
use super::problem::Problem;

/// May take long: everything there is may be in its body.
const IMPORT: &str = "/api/v1/memory/import";
/// May take long too: a file of the whole graph is made before the first byte of the answer.
const EXPORT_TABLES: &str = "/api/v1/memory/export/tables";

/// The one layer of the door. The order is the point: a client without a key gets nothing parsed, a slow body does not
/// use up the time for the answer, and every problem of the inner layers is rendered here with the id of the request.
pub(super) async fn around(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = api.request_ids.of(request.headers());
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let conditions = etag::Conditions::of(&request);

    let response = match granted(&api, request).await {
        Ok(request) => answered(&api, request, next).await,
        Err(problem) => problem.into_response(),
    };
    let mut response = rendered(response, &id, api.options.detailed_errors);
    if api.options.etags {
        response = etag::tagged(response, &conditions).await;
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(request_id::HEADER, value);
    }
    let route = route.as_ref().map_or("(none)", MatchedPath::as_str);
    let took = started.elapsed();
    super::meter::request_finished(route, &method, response.status(), took);
    tracing::debug!(%id, %method, route, status = response.status().as_u16(), ?took, "request");
    response
}

/// The request with its body in memory, when it may be served.
async fn granted(api: &Api, request: Request) -> Result<Request, Problem> {
    auth::check(api.options.api_keys.as_ref(), &request)?;
    let limits = body::Limits { bytes_max: api.options.body_bytes_max, time: api.options.body_timeout };
    body::read(request, &api.bodies, limits).await
}

async fn answered(api: &Api, request: Request, next: Next) -> Response {
    let takes_long = [IMPORT, EXPORT_TABLES].contains(&request.uri().path());
    let limit = if takes_long { api.options.import_timeout } else { api.options.request_timeout };
    let changes = !request.method().is_safe();
    if let Ok(response) = tokio::time::timeout(limit, next.run(request)).await {
        return response;
    }
    let remedy = if changes {
        "the write may have been recorded: repeat it with the same Idempotency-Key, or read first"
    } else {
        "try again, ask for less, or raise http_server.request_timeout"
    };
    let detail = format!("no answer within {limit:?}");
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "TIMEOUT", detail).remedy(remedy).into_response()
}

/// The response with its problem written out.
fn rendered(mut response: Response, id: &str, detailed: bool) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let mut answer = problem.render(id, detailed);
    for (name, value) in response.headers() {
        if !answer.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}
