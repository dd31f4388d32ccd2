//! The body of a request, read into memory within a size and a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::api::rest::problem::Problem;
use crate::api::rest::refusals::overloaded;

/// Bodies of at most this many bytes are not counted: all connections together hold little of them.
const UNCOUNTED_BYTES: usize = 64 << 10;
/// The unit in which bodies are counted.
const UNIT_BYTES: usize = 1 << 10;

/// What one body may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes_max: usize,
    pub(super) time: Duration,
}

/// Room for the bodies of all requests together.
pub(in crate::api::rest) struct Bodies {
    room: Arc<Semaphore>,
    units: usize,
}

impl Bodies {
    /// Room for `bytes`.
    pub(in crate::api::rest) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(units)), units }
    }

    /// Room for one body; a body larger than all room takes all of it.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = (bytes / UNIT_BYTES + 1).min(self.units);
        Arc::clone(&self.room).acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
    }
}

/// The room that a request's body takes, given back when the request is forgotten.
#[derive(Clone)]
struct Taken {
    _room: Arc<OwnedSemaphorePermit>,
}

/// Replaces the body by its bytes.
///
/// # Errors
///
/// A [`Problem`]: 413 for too large a body, 408 for a slow one, 415 for an encoded one, 400 when the client broke off,
/// 503 when the bodies of others take all room.
pub(super) async fn read(request: Request, bodies: &Bodies, limits: Limits) -> Result<Request, Problem> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    check_encoding(&request)?;
    let (mut parts, body) = request.into_parts();
    let hint = body.size_hint();
    if hint.lower() > limits.bytes_max as u64 {
        return Err(too_large(limits.bytes_max));
    }
    let deadline = Instant::now() + limits.time;
    // A body that does not say how long it is may become as long as it is allowed to.
    let expected = hint.exact().map_or(limits.bytes_max, |bytes| bytes as usize);
    if expected > UNCOUNTED_BYTES {
        let Ok(Some(room)) = timeout_at(deadline, bodies.take(expected)).await else {
            return Err(overloaded("the bodies of other requests take all room").close());
        };
        parts.extensions.insert(Taken { _room: Arc::new(room) });
    }
    let bytes: Bytes = match timeout_at(deadline, Limited::new(body, limits.bytes_max).collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            return Err(too_large(limits.bytes_max));
        }
        Ok(Err(error)) => {
            let detail = format!("the body did not arrive whole: {error}");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "BODY_INCOMPLETE", detail).close());
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {:?}", limits.time);
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT", detail)
                .remedy("send it faster or in smaller parts")
                .close());
        }
    };
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

fn check_encoding(request: &Request) -> Result<(), Problem> {
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_ENCODING",
            "the body is encoded in a way that is not read here",
        )
        .field("Content-Encoding")
        .value(encoding.to_str().unwrap_or("(not ASCII)"))
        .remedy("send the body as it is")
        .close()),
        Some(_) | None => Ok(()),
    }
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "BODY_TOO_LARGE",
        format!("the body is larger than {bytes_max} bytes"),
    )
    .field("body")
    .detail("limit_bytes", bytes_max)
    .remedy("send it in several requests, or as NDJSON in parts")
    .close()
}
