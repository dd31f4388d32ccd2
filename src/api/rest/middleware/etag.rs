//! `ETag`, `If-None-Match` and `If-Match`: answers that did not change are not sent again, changes that are stale are
//! not made.

use axum::body::Body;
use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use caxton_events::MemoryId;
use http_body_util::BodyExt as _;

use crate::api::rest::fields::Fields;
use crate::api::rest::ids::Row;
use crate::api::rest::problem::Problem;
use crate::commands::write::ExpectedVersion;

/// Bodies above this are sent without a tag: hashing them costs more than sending them.
const TAGGED_BYTES_MAX: u64 = 1 << 20;

/// The version of the entity in a response, and its number; they become the front of the tag, so that `If-Match` can name them.
#[derive(Debug, Clone, Copy)]
pub(in crate::api::rest) struct Version {
    pub(in crate::api::rest) version: u32,
    pub(in crate::api::rest) id: MemoryId,
}

/// What a request says about its answer's tag.
pub(super) struct Conditions {
    reads: bool,
    none_match: Option<String>,
}

impl Conditions {
    /// The conditions of `request`.
    pub(super) fn of(request: &Request) -> Self {
        let none_match = request.headers().get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        Self {
            reads: matches!(*request.method(), Method::GET | Method::HEAD),
            none_match: none_match.map(str::to_owned),
        }
    }
}

impl Conditions {
    /// Whether the request changes nothing.
    pub(super) const fn reads(&self) -> bool {
        self.reads
    }
}

/// Where `If-Match` is heeded.
const MATCHED: &str = "/api/v1/memory/entities/{entity}";

/// Refuses `If-Match` of a change that does not look at it: who sends it relies on it.
///
/// # Errors
///
/// 422 about the field `If-Match`.
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    let Some(tag) = request.headers().get(header::IF_MATCH).filter(|_| !request.method().is_safe()) else {
        return Ok(());
    };
    let is_heeded = request.method() != Method::POST
        && request.extensions().get::<MatchedPath>().is_none_or(|route| route.as_str() == MATCHED);
    if is_heeded || tag == "*" {
        return Ok(());
    }
    let detail =
        "If-Match: is for PATCH, PUT and DELETE of /memory/entities/{id} alone: other rows have no versions";
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail);
    let problem = problem.field("If-Match").value(tag.to_str().unwrap_or_default());
    Err(problem.remedy("leave it out, and read the row again before you change it"))
}

/// The response with its tag, or 304 when the client has it. Streams are left as they are.
///
/// The tag is weak because the same answer may go out compressed or not.
pub(super) async fn tagged(response: Response, conditions: &Conditions) -> Response {
    let size = response.body().size_hint().exact();
    let known = size.is_some_and(|size| size > 0 && size <= TAGGED_BYTES_MAX);
    if !conditions.reads || response.status() != StatusCode::OK || !known {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The size is known, so the body is in memory and cannot fail.
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let hash = blake3::hash(&bytes).to_hex();
    let tag = match parts.extensions.get::<Version>() {
        Some(Version { version, id }) => {
            format!("W/\"{version}-{}-{}\"", Row::Entity.show(*id), &hash[..16])
        }
        None => format!("W/\"{}\"", &hash[..16]),
    };
    let unchanged = conditions.none_match.as_deref().is_some_and(|given| matches_any(given, &tag));
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    parts.headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    if unchanged {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn matches_any(given: &str, tag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    given.trim() == "*" || given.split(',').any(|one| bare(one) == bare(tag))
}

/// The version that `If-Match` names: the number at the front of a tag, as in `"3"` or `W/"3-ent_7-9f86d081884c7d65"`, and
/// behind it which entity's it is, where the tag says that.
///
/// Only these count, so a change by somebody else to the entity's observations does not stand in the way.
pub(in crate::api::rest) fn expected_version(
    headers: &HeaderMap,
    fields: &mut Fields,
) -> Option<ExpectedVersion> {
    let text = headers.get(header::IF_MATCH)?.to_str().unwrap_or_default().trim();
    if text == "*" {
        return None;
    }
    let bare = text.trim_start_matches("W/").trim_matches('"');
    let mut parts = bare.split('-');
    let version: Option<u32> = parts.next().and_then(|number| number.parse().ok());
    if version.is_none() {
        let remedy = "send the ETag of GET /memory/entities/{id}, or the version in quotes";
        fields.complain("If-Match", Some(text), "names no version", remedy);
    }
    let id = parts.next().and_then(|part| Row::Entity.parse(part));
    version.map(|version| ExpectedVersion { version, id })
}

#[cfg(test)]
mod tests {
    use super::matches_any;

    #[test]
    fn a_tag_matches_itself_in_every_spelling() {
        for given in ["W/\"3-ab\"", "\"3-ab\"", "\"x\", W/\"3-ab\"", "*"] {
            assert!(matches_any(given, "W/\"3-ab\""), "{given}");
        }
        for given in ["", "\"3-ac\"", "3"] {
            assert!(!matches_any(given, "W/\"3-ab\""), "{given}");
        }
    }
}
