//! What a client gets instead of an answer: `application/problem+json` (RFC 9457) with a stable code and a remedy.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use caxton_events::Seq;
use serde::Serialize;
use serde_json::{Map, Value};

use super::moment::ERASED_SINCE;
use crate::failure::causes;

/// Longest piece of a client's value that is repeated to it, in characters.
const ECHO_CHARS_MAX: usize = 120;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Complaint {
    /// Where, as in `entities[3].observations[0].content`.
    pub(super) field: String,
    /// Stable code.
    pub(super) code: &'static str,
    /// What was given, shortened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
    /// What is wrong with it.
    pub(super) message: String,
    /// What to do about it.
    pub(super) remedy: String,
}

/// A request that was not granted, or that failed.
#[derive(Debug, Clone)]
pub(super) struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: String,
    field: Option<String>,
    value: Option<String>,
    remedy: Option<String>,
    errors: Vec<Complaint>,
    details: Map<String, Value>,
    retry_after_seconds: Option<u32>,
    challenge: bool,
    close: bool,
    causes: Vec<String>,
    erased_since: Option<Seq>,
}

/// How much of a problem a client is told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// The values that were given, and all that is wrong.
    pub(super) detailed: bool,
    /// What each layer said of a failure (5xx).
    pub(super) causes: bool,
}

impl Problem {
    /// A problem with its status, stable code and one sentence for people.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            detail: detail.into(),
            field: None,
            value: None,
            remedy: None,
            errors: Vec::new(),
            details: Map::new(),
            retry_after_seconds: None,
            challenge: false,
            close: false,
            causes: Vec::new(),
            erased_since: None,
        }))
    }

    /// A problem made of complaints; the first one speaks for all. `complaints` is not empty.
    pub(super) fn complaints(status: StatusCode, complaints: Vec<Complaint>) -> Self {
        let Some(first) = complaints.first() else {
            return Self::new(status, "VALIDATION_ERROR", "the request is not valid");
        };
        let mut detail = if first.field.is_empty() {
            first.message.clone()
        } else {
            format!("{}: {}", first.field, first.message)
        };
        if complaints.len() > 1 {
            let _ = write!(detail, " (and {} more, see errors)", complaints.len() - 1);
        }
        let mut problem = Self::new(status, first.code, detail).remedy(first.remedy.clone());
        problem.0.field = Some(first.field.clone()).filter(|field| !field.is_empty());
        problem.0.value.clone_from(&first.value);
        problem.0.errors = complaints;
        problem
    }

    /// Names the field.
    pub(super) fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Shows what was given, shortened.
    pub(super) fn value(mut self, value: &str) -> Self {
        self.0.value = Some(shortened(value));
        self
    }

    /// Says what to do.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Shows what `body` holds where a complaint names a field without its value.
    pub(super) fn values_from(mut self, body: &Value) -> Self {
        for complaint in self.0.errors.iter_mut().filter(|complaint| complaint.value.is_none()) {
            complaint.value = value_at(body, &complaint.field);
        }
        if self.0.value.is_none() {
            self.0.value = self.0.errors.first().and_then(|first| first.value.clone());
        }
        self
    }

    /// Adds a member to `details`, for programs.
    pub(super) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.details.insert(name.to_owned(), value.into());
        self
    }

    /// Keeps what each layer said of the failure, for who is to be told.
    pub(super) fn caused_by(mut self, error: &dyn Error) -> Self {
        self.0.causes = causes(error);
        self
    }

    /// What each layer said of the failure, in one line; of one without causes, what the client is told.
    pub(super) fn cause(&self) -> String {
        if self.0.causes.is_empty() { self.0.detail.clone() } else { self.0.causes.join(": ") }
    }

    /// Says when to try again.
    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    /// Asks for a key.
    pub(super) fn challenge(mut self) -> Self {
        self.0.challenge = true;
        self
    }

    /// Says in a header which order erased something behind the moment that was asked about.
    pub(super) fn erased_since(mut self, order: Seq) -> Self {
        self.0.erased_since = Some(order);
        self
    }

    /// Ends the connection after the answer: the rest of the request was not read.
    pub(super) fn close(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// The problem as one complaint in a list.
    pub(super) fn as_complaint(&self) -> Complaint {
        let inner = &self.0;
        if let Some(first) = inner.errors.first() {
            return first.clone();
        }
        Complaint {
            field: inner.field.clone().unwrap_or_default(),
            code: inner.code,
            value: inner.value.clone(),
            message: inner.detail.clone(),
            remedy: inner.remedy.clone().unwrap_or_default(),
        }
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }

    /// The answer as JSON.
    pub(super) fn body(&self, request_id: &str, told: Told) -> Vec<u8> {
        let (inner, detailed) = (&self.0, told.detailed);
        let mut details = Cow::Borrowed(&inner.details);
        // A refusal has no causes: the rules said no, and nothing broke.
        if told.causes && inner.status.is_server_error() && !inner.causes.is_empty() {
            details.to_mut().insert("causes".to_owned(), inner.causes.clone().into());
        }
        let members = Members {
            kind: format!("urn:caxton:problem:{}", inner.code.to_ascii_lowercase().replace('_', "-")),
            title: title(inner.code),
            status: inner.status.as_u16(),
            detail: &inner.detail,
            code: inner.code,
            field: inner.field.as_deref(),
            value: inner.value.as_deref().filter(|_| detailed),
            remedy: inner.remedy.as_deref(),
            request_id,
            details: &details,
            errors: if detailed { &inner.errors } else { &[] },
        };
        // Strings, numbers and maps with text keys always serialise; an empty body would still carry the status.
        serde_json::to_vec(&members).unwrap_or_default()
    }

    /// The whole answer.
    pub(super) fn render(&self, request_id: &str, told: Told) -> Response {
        let mut response = Response::new(Body::from(self.body(request_id, told)));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(order) = self.0.erased_since {
            headers.insert(ERASED_SINCE, HeaderValue::from(order.0));
        }
        if self.0.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"caxton\""));
        }
        if self.0.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Leaves the problem in the response's extensions: the outermost layer renders it, because only that one knows the
/// id of the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Serialize)]
struct Members<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    details: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "<[Complaint]>::is_empty")]
    errors: &'a [Complaint],
}

/// `ENTITY_NOT_FOUND` as `Entity not found`.
fn title(code: &str) -> String {
    let mut title = code.to_ascii_lowercase().replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

/// The first characters of `value`.
pub(super) fn shortened(value: &str) -> String {
    match value.char_indices().nth(ECHO_CHARS_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", &value[..end], value.len()),
        None => value.to_owned(),
    }
}

/// What stands at a path such as `messages[1].receiver`, shortened.
fn value_at(body: &Value, path: &str) -> Option<String> {
    let mut value = body;
    for part in path.split('.') {
        let (name, index) = part.split_once('[').unwrap_or((part, ""));
        // A receiver is named alone or among several.
        value = value.get(name).or_else(|| value.get(format!("{name}s")))?;
        if !index.is_empty() {
            value = value.get(index.trim_end_matches(']').parse::<usize>().ok()?)?;
        }
    }
    match value {
        Value::Null => None,
        Value::String(text) => Some(shortened(text)),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(shortened(&value.to_string()))
        }
    }
}

/// The member of `known` that `given` was probably meant to be: it differs in one letter of four at most, or in one of a short
/// name. What is further off is another word, and to name it would lead astray.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes time in the square of the length; nobody mistypes a name of a thousand letters.
    if given.len() > 64 {
        return None;
    }
    let given = given.to_lowercase();
    let len = given.chars().count();
    let is_near = |edits: usize, other_len: usize| {
        edits <= (len.max(other_len) / 4).max(1) && edits < len.min(other_len)
    };
    known
        .into_iter()
        .filter_map(|name| {
            let other = name.to_lowercase();
            let other_len = other.chars().count();
            // Each letter that one of them has more is an edit: most names are told apart without being compared.
            let near = is_near(len.abs_diff(other_len), other_len);
            let edits = near.then(|| strsim::damerau_levenshtein(&given, &other))?;
            is_near(edits, other_len).then_some((edits, name))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use axum::http::StatusCode;
    use serde_json::Value;

    use super::{Complaint, Problem, Told, nearest, shortened};

    const ALL: Told = Told { detailed: true, causes: true };

    #[test]
    fn causes_are_told_of_failures_alone_and_only_where_that_is_asked_for() {
        let inner = std::io::Error::other("no space left");
        let error = crate::engine::StartError::Thread(inner);
        for (status, told, then) in [
            (StatusCode::INTERNAL_SERVER_ERROR, ALL, true),
            (StatusCode::INTERNAL_SERVER_ERROR, Told { detailed: true, causes: false }, false),
            (StatusCode::SERVICE_UNAVAILABLE, Told { detailed: false, causes: true }, true),
            (StatusCode::CONFLICT, ALL, false),
        ] {
            let problem = Problem::new(status, "X", "it failed").detail("seq", 7).caused_by(&error);
            let body: Value = serde_json::from_slice(&problem.body("r1", told)).unwrap();
            assert_eq!(body["details"]["seq"], 7);
            let causes = body["details"]["causes"].as_array();
            assert_eq!(causes.is_some(), then, "{status} {told:?}");
            if let Some(causes) = causes {
                assert_eq!(causes[causes.len() - 1], "no space left");
                assert!(causes.len() > 1, "{causes:?}");
            }
        }
    }

    #[test]
    fn a_problem_says_what_where_and_what_to_do() {
        let complaint = Complaint {
            field: "limit".to_owned(),
            code: "VALIDATION_ERROR",
            value: Some("-1".to_owned()),
            message: "must be from 1 to 100".to_owned(),
            remedy: "give a number from 1 to 100".to_owned(),
        };
        let problem = Problem::complaints(StatusCode::UNPROCESSABLE_ENTITY, vec![complaint]);
        let body: Value = serde_json::from_slice(&problem.body("r1", ALL)).unwrap();
        assert_eq!(body["type"], "urn:caxton:problem:validation-error");
        assert_eq!(body["title"], "Validation error");
        assert_eq!(body["status"], 422);
        assert_eq!(body["detail"], "limit: must be from 1 to 100");
        assert_eq!(body["field"], "limit");
        assert_eq!(body["value"], "-1");
        assert_eq!(body["remedy"], "give a number from 1 to 100");
        assert_eq!(body["request_id"], "r1");
        assert_eq!(body["errors"][0]["field"], "limit");
        let terse: Value = serde_json::from_slice(&problem.body("r1", Told::default())).unwrap();
        assert_eq!(terse.get("errors"), None);
        assert_eq!(terse.get("value"), None);
    }

    #[test]
    fn the_nearest_name_is_a_likely_one_or_none() {
        let known = ["entity_name", "entity_type", "observations"];
        assert_eq!(nearest("entity_nmae", known), Some("entity_name"));
        assert_eq!(nearest("observation", known), Some("observations"));
        assert_eq!(nearest("Entity_Type", known), Some("entity_type"));
        assert_eq!(nearest("actr", ["actor", "after"]), Some("actor"));
        // Alike at an end, and yet another word.
        assert_eq!(nearest("to_seq", ["from_seq", "min_seq", "limit"]), None);
        assert_eq!(nearest("entity", known), None);
        assert_eq!(nearest("x", ["q", "to"]), None);
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }

    #[test]
    fn a_long_value_is_not_repeated_whole() {
        assert_eq!(shortened("ä"), "ä");
        assert!(shortened(&"ä".repeat(1_000)).len() < 300);
    }
}
