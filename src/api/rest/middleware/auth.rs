//! Who may come in: `Authorization: Bearer KEY`, checked before anything else is looked at.

use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};

use crate::api::rest::options::ApiKeys;
use crate::api::rest::problem::Problem;

/// The one path that needs no key when it is read: a load balancer asks it, and the answer is yes or no.
const OPEN: &str = "/api/v1/ready";

/// Lets a request in that carries a valid key, or any when no keys are configured.
///
/// # Errors
///
/// A [`Problem`] with status 401.
pub(super) fn check(keys: Option<&ApiKeys>, request: &Request) -> Result<(), Problem> {
    let Some(keys) = keys else {
        return Ok(());
    };
    // With a body it needs one as well: who has no key must not take the room that bodies share.
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if reads && request.uri().path() == OPEN && request.body().is_end_stream() {
        return Ok(());
    }
    let key = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(|value| value.split_once(' '));
    let key = key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
    let detail = match key.map(|key| keys.verify(key)) {
        Some(Some(_)) => return Ok(()),
        Some(None) => "the API key is not valid",
        None => "an API key is required",
    };
    crate::telemetry::authentication_failed();
    let problem = Problem::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", detail)
        .field("Authorization")
        .remedy("send Authorization: Bearer KEY with a key from the server's configuration")
        .challenge();
    Err(if request.body().is_end_stream() { problem } else { problem.close() })
}
