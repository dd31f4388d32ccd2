//! Which format a body has: JSON, or MessagePack where it is offered. Handlers know JSON alone.

use std::io;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::api::rest::json::parse_msgpack;
use crate::api::rest::problem::Problem;

/// What answers in MessagePack are called.
const MSGPACK: &str = "application/msgpack";
/// What it is called by some.
const ALSO_MSGPACK: &[&str] = &[MSGPACK, "application/x-msgpack", "application/vnd.msgpack"];
const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";

/// What bodies may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Formats {
    /// Whether MessagePack is offered. Default: false.
    pub msgpack: bool,
    /// Whether a client that does not say what it takes gets MessagePack, where it is offered. Default: false.
    pub msgpack_first: bool,
}

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    MessagePack,
}

/// How well a media type suits a client: by a range that names it, or by one that stands for many.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Suits {
    quality: f32,
    named: bool,
}

impl Formats {
    /// The format in which `headers` ask for the answer.
    ///
    /// # Errors
    ///
    /// A [`Problem`] with status 406 when they take nothing but MessagePack and it is not offered.
    pub(super) fn wanted(self, headers: &HeaderMap) -> Result<Format, Problem> {
        let texts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<(String, f32)> = texts.flat_map(|text| text.split(',')).filter_map(range).collect();
        let usual = if self.msgpack && self.msgpack_first { Format::MessagePack } else { Format::Json };
        if ranges.is_empty() {
            return Ok(usual);
        }
        let json = suits(&ranges, &[JSON, PROBLEM_JSON]);
        let msgpack = suits(&ranges, ALSO_MSGPACK);
        if !self.msgpack {
            let alone = ranges.iter().all(|(name, _)| ALSO_MSGPACK.contains(&name.as_str()));
            return if alone { Err(not_offered(headers)) } else { Ok(Format::Json) };
        }
        if msgpack == json {
            return Ok(usual);
        }
        Ok(if msgpack > json { Format::MessagePack } else { Format::Json })
    }

    /// Media types of answers that this layer makes of JSON.
    pub(in crate::api::rest) const fn out_of_json(self) -> &'static [&'static str] {
        if self.msgpack { ALSO_MSGPACK } else { &[] }
    }

    /// The request with its body as JSON of at most `bytes_max`.
    ///
    /// # Errors
    ///
    /// A [`Problem`]: 415 when MessagePack is not offered, 400 for what is none, 413 for what is larger as JSON.
    pub(super) async fn as_json(self, request: Request, bytes_max: usize) -> Result<Request, Problem> {
        let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Some(given) = given.filter(|given| is_msgpack(given)) else { return Ok(request) };
        if !self.msgpack {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "bodies in MessagePack are not taken here",
            )
            .field("Content-Type")
            .value(given)
            .remedy("send JSON with Content-Type: application/json, or set api_optimization.enable_msgpack to true"));
        }
        let (mut parts, body) = request.into_parts();
        // A layer in front has read it into memory already.
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let value = parse_msgpack(&bytes)?;
        let mut json = Bounded { bytes: Vec::with_capacity(bytes.len()), bytes_max };
        // A value that was read is one that can be written, if there is room.
        serde_json::to_writer(&mut json, &value).map_err(|_| too_large(bytes_max))?;
        let json = json.bytes;
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(json.len()));
        Ok(Request::from_parts(parts, Body::from(json)))
    }

    /// The answer in the format that was asked for. Only whole JSON answers have another; streams are what they are.
    pub(super) async fn answer(self, mut response: Response, format: Format) -> Response {
        let kind = response.headers().get(header::CONTENT_TYPE);
        let is_json = kind.is_some_and(|kind| kind == JSON || kind == PROBLEM_JSON);
        if !self.msgpack || !is_json || response.body().size_hint().exact().is_none() {
            return response;
        }
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
        if format == Format::Json {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        // The size is known, so the body is in memory and cannot fail.
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let value = serde_json::from_slice::<Value>(&bytes).ok();
        let Some(packed) = value.and_then(|value| rmp_serde::to_vec_named(&value).ok()) else {
            // An empty answer to HEAD.
            return Response::from_parts(parts, Body::from(bytes));
        };
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MSGPACK));
        parts.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(packed))
    }
}

/// Bytes up to a number: what is written beyond it is an error.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.bytes_max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body takes more than {bytes_max} bytes as JSON");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", detail)
        .field("body")
        .detail("limit_bytes", bytes_max)
        .remedy("send it in several requests, or as NDJSON in parts")
}

fn is_msgpack(given: &str) -> bool {
    let name = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ALSO_MSGPACK.contains(&name.as_str())
}

fn not_offered(headers: &HeaderMap) -> Problem {
    let given = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    Problem::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", "answers in MessagePack are not offered here")
        .field("Accept")
        .value(given.unwrap_or("(none)"))
        .remedy("send Accept: application/json, or set api_optimization.enable_msgpack to true")
}

/// One range of `Accept` with its quality.
fn range(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';');
    let name = parts.next()?.trim().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.trim().strip_prefix("q=").map(str::to_owned));
    let quality = weight.map_or(Some(1.0), |weight| weight.trim().parse().ok())?;
    (!name.is_empty()).then_some((name, quality))
}

/// How well one of `names` suits: a range that names it decides, else the widest that covers it.
fn suits(ranges: &[(String, f32)], names: &[&str]) -> Suits {
    let best = |wanted: &dyn Fn(&str) -> bool| {
        ranges.iter().filter(|(name, _)| wanted(name)).map(|(_, quality)| *quality).reduce(f32::max)
    };
    if let Some(quality) = best(&|name| names.contains(&name)) {
        return Suits { quality, named: quality > 0.0 };
    }
    let wide = best(&|name| name == "application/*").or_else(|| best(&|name| name == "*/*"));
    Suits { quality: wide.unwrap_or(0.0), named: false }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[track_caller]
    fn check(formats: Formats, accept: &str, then: Option<Format>) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        }
        assert_eq!(formats.wanted(&headers).ok(), then, "{formats:?} {accept:?}");
    }

    #[test]
    fn a_client_gets_the_format_that_suits_it_best() {
        let offered = Formats { msgpack: true, msgpack_first: false };
        let first = Formats { msgpack: true, msgpack_first: true };
        for (accept, usual, when_first) in [
            ("", Format::Json, Format::MessagePack),
            ("*/*", Format::Json, Format::MessagePack),
            ("application/*", Format::Json, Format::MessagePack),
            ("application/json", Format::Json, Format::Json),
            ("application/msgpack", Format::MessagePack, Format::MessagePack),
            ("Application/X-MsgPack; q=0.5", Format::MessagePack, Format::MessagePack),
            ("application/vnd.msgpack, */*", Format::MessagePack, Format::MessagePack),
            ("application/json, */*;q=0.1", Format::Json, Format::Json),
            ("application/json;q=0.2, application/msgpack;q=0.7", Format::MessagePack, Format::MessagePack),
            ("application/json, application/msgpack", Format::Json, Format::MessagePack),
            ("*/*, application/msgpack;q=0", Format::Json, Format::Json),
            ("text/event-stream", Format::Json, Format::MessagePack),
            ("application/msgpack;q=much", Format::Json, Format::MessagePack),
        ] {
            check(offered, accept, Some(usual));
            check(first, accept, Some(when_first));
        }
    }

    #[tokio::test]
    async fn what_is_larger_as_json_than_a_body_may_be_is_refused() {
        let offered = Formats { msgpack: true, msgpack_first: false };
        // Each of them is one byte, and five and a comma as JSON.
        let value = [false; 10];
        let (packed, json) = (rmp_serde::to_vec_named(&value).unwrap(), serde_json::to_vec(&value).unwrap());
        for (bytes_max, fits) in [(json.len() - 1, false), (json.len(), true)] {
            let request = axum::http::Request::builder().header(header::CONTENT_TYPE, MSGPACK);
            let request = request.body(Body::from(packed.clone())).unwrap();
            match offered.as_json(request, bytes_max).await {
                Ok(request) => {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    assert!(fits && body == json, "{bytes_max}");
                }
                Err(problem) => {
                    assert_eq!(
                        (problem.status(), problem.code()),
                        (StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE")
                    );
                    assert!(!fits, "{bytes_max}");
                }
            }
        }
    }

    #[test]
    fn only_who_takes_nothing_else_is_refused_where_it_is_not_offered() {
        let off = Formats::default();
        for accept in ["", "*/*", "application/json", "text/html", "application/msgpack, application/json"] {
            check(off, accept, Some(Format::Json));
        }
        check(off, "application/msgpack", None);
        check(off, "application/x-msgpack, application/msgpack;q=0.3", None);
    }
}
