//! The body of a request, read into memory within a size and a time.

use std::time::Duration;

use axum::body::HttpBody as _;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::api::rest::problem::Problem;

/// Replaces the body by its bytes.
///
/// # Errors
///
/// A [`Problem`]: 413 over `bytes_max`, 408 after `limit`, 415 for an encoded body, 400 when the client broke off.
pub(super) async fn read(request: Request, bytes_max: usize, limit: Duration) -> Result<Request, Problem> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_ENCODING",
            "the body is encoded in a way that is not read here",
        )
        .field("Content-Encoding")
        .value(encoding.to_str().unwrap_or("(not ASCII)"))
        .remedy("send the body as it is")
        .close());
    }
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let collected = tokio::time::timeout(limit, Limited::new(body, bytes_max).collect()).await;
    let bytes: Bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            return Err(too_large(bytes_max));
        }
        Ok(Err(error)) => {
            let detail = format!("the body did not arrive whole: {error}");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "BODY_INCOMPLETE", detail).close());
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {limit:?}");
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "BODY_TIMEOUT", detail)
                .remedy("send it faster or in smaller parts")
                .close());
        }
    };
    Ok(Request::from_parts(parts, Body::from(bytes)))
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
