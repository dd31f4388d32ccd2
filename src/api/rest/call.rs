//! One request, read whole: path, query, headers, body, and what every write and every read has in common.

use std::fmt::Display;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use caxton_events::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use caxton_events::{Scope, Seq};
use caxton_projections::view::Wait;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::Api;
use super::caller::{CALLER, Caller};
use super::fields::Fields;
use super::json::parse_json;
use super::middleware::request_id::RequestId;
use super::moment::Named;
use super::problem::{Problem, shortened};
use crate::commands::Write;
use crate::engine::{Idempotency, Submission};

/// Parameters of every write.
const WRITE_QUERY: &[&str] = &["wait"];
/// Parameters of every read of the memory.
const MEMORY_READ_QUERY: &[&str] = &["min_seq", "as_of"];
/// Parameters of every other read.
pub(super) const READ_QUERY: &[&str] = &["min_seq"];

/// What to do about a body where only parameters and headers say whose memory it is.
pub(super) const IDENTITY_BESIDE: &str =
    "leave it out; agent_id, workspace and memory_scope are parameters or headers of this request";

/// A request whose body is here.
pub(super) struct Call {
    parts: Parts,
    path: Vec<(String, String)>,
    /// The body.
    pub(super) body: Bytes,
    /// The id of the request, from the client or drawn.
    pub(super) request_id: String,
}

impl FromRequest<Api> for Call {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        use axum::extract::FromRequestParts as _;
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, api).await.map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_PATH", "the path is not percent-encoded UTF-8")
                .remedy("percent-encode names in the path as UTF-8")
        })?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
        let body = gathered(body).await?;
        if !body.is_empty() {
            check_charset(&parts.headers)?;
        }
        Ok(Self { parts, path, body, request_id })
    }
}

/// Refuses a body that is said to be in another encoding than UTF-8: read as that it might be another text.
fn check_charset(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let charsets = given.split(';').skip(1).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim())
    });
    let unquoted = |value: &str| -> String {
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        quoted.unwrap_or(value).to_ascii_lowercase()
    };
    match charsets.map(unquoted).find(|charset| !["utf-8", "utf8"].contains(&charset.as_str())) {
        None => Ok(()),
        Some(charset) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            format!("the body must be in UTF-8, and is said to be in {:?}", shortened(&charset)),
        )
        .field("Content-Type")
        .value(given)
        .remedy("send it in UTF-8, with charset=utf-8 or without a charset")),
    }
}

/// The body, which a layer in front has read into memory already.
async fn gathered(body: Body) -> Result<Bytes, Problem> {
    let body = body.collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "BODY_INCOMPLETE", "the body did not arrive whole")
    })
}

impl Call {
    /// The part of the path that the route calls `name`.
    pub(super) fn path(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The query string, without the parameters that choose a page: what a cursor is bound to.
    pub(super) fn page_query(&self) -> String {
        let query = self.parts.uri.query().unwrap_or_default();
        let passing = |pair: &&str| {
            !["cursor=", "limit=", "min_seq="].iter().any(|name| pair.starts_with(name)) && !pair.is_empty()
        };
        let mut pairs: Vec<&str> = query.split('&').filter(passing).collect();
        pairs.sort_unstable();
        let header = |name| self.headers().get(name).map_or(&b""[..], |value| value.as_bytes());
        let agent = String::from_utf8_lossy(header("x-caxton-agent"));
        let workspace = String::from_utf8_lossy(header("x-caxton-workspace"));
        format!("{}?{}\n{agent}\n{workspace}", self.parts.uri.path(), pairs.join("&"))
    }

    /// The query parameters, of which only `known` may occur.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when the query string is malformed.
    pub(super) fn query(&self, known: &[&[&str]]) -> Result<Fields, Problem> {
        Fields::query(self.parts.uri.query(), known)
    }

    /// Whether the body has this media type.
    pub(super) fn is(&self, media_type: &str) -> bool {
        let given =
            self.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        given.split(';').next().is_some_and(|given| given.trim().eq_ignore_ascii_case(media_type))
    }

    /// Whether the body is said to be JSON.
    pub(super) fn is_json(&self) -> bool {
        self.is("application/json")
    }

    /// Whether the body is one JSON value a line.
    pub(super) fn is_lines(&self) -> bool {
        self.is("application/x-ndjson") || self.is("application/jsonl") || self.is("application/x-jsonlines")
    }

    /// Refuses a body where none is read.
    ///
    /// # Errors
    ///
    /// A [`Problem`], whose remedy is `remedy`.
    pub(super) fn no_body(&self, remedy: &str) -> Result<(), Problem> {
        if matches!(self.body.trim_ascii(), b"" | b"{}") {
            return Ok(());
        }
        let detail = "is not read by this request";
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
            .field("body")
            .value(&String::from_utf8_lossy(&self.body))
            .remedy(remedy))
    }

    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// A [`Problem`]: 415 for another media type, 400 for what is no JSON or no UTF-8.
    pub(super) fn json(&self) -> Result<Value, Problem> {
        if !self.is_json() {
            // Requiring it keeps web pages from writing to a server on the same machine without being asked first.
            let given = self.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                "the body must be JSON",
            )
            .field("Content-Type")
            .value(given.unwrap_or("(none)"))
            .remedy("send Content-Type: application/json (curl: use --json)"));
        }
        parse_json(&self.body)
    }

    /// The members of the body, of which only `known` may occur.
    ///
    /// # Errors
    ///
    /// As [`Call::json`].
    pub(super) fn members(&self, known: &[&[&str]]) -> Result<Fields, Problem> {
        Ok(Fields::object(self.json()?, String::new(), known))
    }

    /// The problem with the values that the body holds in its fields.
    pub(super) fn with_values(&self, problem: Problem) -> Problem {
        match parse_json(&self.body) {
            Ok(body) => problem.values_from(&body),
            Err(_) => problem,
        }
    }

    /// The position that the answer must include, as parameter or header.
    pub(super) fn min_seq(&self, fields: &mut Fields) -> Option<Seq> {
        let mut min_seq = fields.integer("min_seq", 0..=u64::MAX);
        if let Some(value) = self.headers().get("caxton-min-seq") {
            let text = value.to_str().unwrap_or_default();
            match text.parse::<u64>() {
                Ok(seq) => min_seq = min_seq.max(Some(seq)),
                Err(_) => fields.complain(
                    "Caxton-Min-Seq",
                    Some(text),
                    "must be a whole number from 0 up",
                    "give the seq of an earlier answer",
                ),
            }
        }
        min_seq.map(Seq)
    }

    /// A hash of everything that makes this request what it is, for its idempotency key.
    fn fingerprint(&self, caller: &Caller) -> [u8; 32] {
        let query = self.parts.uri.query().unwrap_or_default();
        let meant: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("wait=")).collect();
        let mut hasher = blake3::Hasher::new();
        for part in [
            self.parts.method.as_str(),
            self.parts.uri.path(),
            &meant.join("&"),
            caller.agent.as_str(),
            caller.workspace.as_str(),
        ] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&self.body);
        *hasher.finalize().as_bytes()
    }

    /// The client's own key for this request.
    fn idempotency(&self, caller: &Caller, query: &mut Fields) -> Option<Idempotency> {
        let value = self.headers().get("idempotency-key")?;
        let text = value.to_str().unwrap_or_default().trim();
        // Room for the number of a chunk, when the request becomes several commands.
        let bytes_max = IDEMPOTENCY_KEY_BYTES_MAX - 16;
        if text.is_empty() || text.len() > bytes_max {
            let remedy = format!("use 1 to {bytes_max} visible ASCII characters, such as a UUID");
            query.complain("Idempotency-Key", Some(text), "is no valid key", &remedy);
            return None;
        }
        Some(Idempotency { key: text.to_owned(), fingerprint: self.fingerprint(caller) })
    }
}

/// What every write has in common.
pub(super) struct WriteContext {
    /// Who writes.
    pub(super) caller: Caller,
    /// Where to.
    pub(super) scope: Scope,
    /// What must have happened before the answer.
    pub(super) wait: Wait,
    idempotency: Option<Idempotency>,
    request_id: String,
}

impl WriteContext {
    /// Parameters of the query string of a write.
    pub(super) const QUERY: &[&[&str]] = &[CALLER, WRITE_QUERY];

    /// Reads it from the query string, the headers and, where there is one, the body.
    pub(super) fn take(api: &Api, call: &Call, query: &mut Fields, body: Option<&mut Fields>) -> Self {
        let wait = query.choice(
            "wait",
            &[("durable", Wait::Durable), ("applied", Wait::Applied), ("indexed", Wait::Indexed)],
        );
        let caller = match body {
            Some(body) => Caller::take(&mut [query, body], call.headers()),
            None => Caller::take(&mut [query], call.headers()),
        };
        Self {
            scope: caller.writes(api.options.default_scope),
            wait: wait.unwrap_or(Wait::Applied),
            idempotency: call.idempotency(&caller, query),
            request_id: call.request_id.clone(),
            caller,
        }
    }

    /// The client's own key for this request, if it gave one.
    pub(super) fn idempotency(&self) -> Option<Idempotency> {
        self.idempotency.clone()
    }

    /// A command of these writes.
    pub(super) fn submission(&self, writes: Vec<Write>, atomic: bool) -> Submission {
        Submission {
            actor: self.caller.agent.clone(),
            workspace: self.caller.workspace.clone(),
            named: self.caller.named_scope(),
            correlation: Some(self.request_id.clone()),
            causation: None,
            idempotency: self.idempotency.clone(),
            writes,
            atomic,
            wait: self.wait,
        }
    }

    /// The command with number `chunk`, or another short name of its own, of a request that becomes several.
    pub(super) fn chunk(&self, chunk: impl Display, writes: Vec<Write>) -> Submission {
        let mut submission = self.submission(writes, false);
        if let Some(idempotency) = &mut submission.idempotency {
            idempotency.key = format!("{}#{chunk}", idempotency.key);
        }
        submission
    }
}

/// What every read has in common.
pub(super) struct ReadContext {
    /// Who reads.
    pub(super) caller: Caller,
    /// Where to look, most specific scope first.
    pub(super) scopes: Vec<Scope>,
    /// What the answer must include.
    pub(super) min_seq: Option<Seq>,
    /// The moment that is asked about; `None`: the present.
    pub(super) as_of: Option<Named>,
}

impl ReadContext {
    /// Parameters of the query string of a read.
    pub(super) const QUERY: &[&[&str]] = &[CALLER, MEMORY_READ_QUERY];

    /// Reads it from parameters or members, and headers.
    pub(super) fn take(call: &Call, fields: &mut Fields) -> Self {
        let caller = Caller::take(&mut [fields], call.headers());
        Self::of(caller, call, fields)
    }

    /// The same of a read with a body, whose query string may say who asks.
    pub(super) fn take_body(call: &Call, query: &mut Fields, body: &mut Fields) -> Self {
        let caller = Caller::take(&mut [query, body], call.headers());
        Self::of(caller, call, body)
    }

    fn of(caller: Caller, call: &Call, fields: &mut Fields) -> Self {
        let as_of = Named::take(fields, "as_of");
        Self { scopes: caller.reads(), min_seq: call.min_seq(fields), as_of, caller }
    }
}
