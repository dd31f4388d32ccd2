//! The tool `http_client`: one HTTP request to a host that the agent's file allows.
//!
//! Reading order: [`HttpClient`] (the call), `request` (what may be asked, and redirects), `hosts` (where it may go).

mod hosts;
mod request;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, LINK, LOCATION,
    RETRY_AFTER,
};
use reqwest::{Client, Response};
use serde_json::{Map, Value, json};

pub(crate) use self::hosts::is_host;
use self::hosts::{Blocked, Checked, LookUp, Reach};
use self::request::{METHODS, Request};
use super::arguments::fitting;
use super::{Caller, Permissions, ToolError, ToolProvider, tls};
use crate::failure;
use crate::llm::ToolSpec;

/// The tool's name.
pub const NAME: &str = "http_client";

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most headers of an answer; one with more fails.
const ANSWER_HEADERS_MAX: usize = 100;
/// Bytes of an answer's body at most, whatever the agent's file says.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Longest value of a header that is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 1_024;

/// Headers of an answer that agents see: none that could carry a credential.
const SHOWN: [HeaderName; 8] =
    [CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, LINK, LOCATION, RETRY_AFTER];

/// Asks HTTP servers for agents.
///
/// Connections are shared by agents that may go to the same addresses; there are no cookies. Proxies of the environment
/// are not used: behind one, the address that is checked would not be the address that is asked.
pub struct HttpClient {
    look_up: LookUp,
    /// Where agents may go that may not ask private addresses.
    narrow: Reach,
    public: OnceLock<Client>,
    private: OnceLock<Client>,
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HttpClient")
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    /// A client that finds hosts as the system does. Nothing is opened yet.
    pub fn new() -> Self {
        Self::with(hosts::system(), Reach::Public)
    }

    fn with(look_up: LookUp, narrow: Reach) -> Self {
        Self { look_up, narrow, public: OnceLock::new(), private: OnceLock::new() }
    }

    fn client(&self, reach: Reach) -> Result<&Client, ToolError> {
        let slot = if reach == Reach::Private { &self.private } else { &self.public };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let made = tls::client(|builder| {
            builder
                .no_proxy()
                .referer(false)
                .connect_timeout(CONNECT_TIMEOUT)
                .http1_max_headers(ANSWER_HEADERS_MAX)
                .dns_resolver(Checked { look_up: self.look_up.clone(), reach })
        });
        let made = made.map_err(|error| ToolError::Failed(failure::chain(&error)))?;
        Ok(slot.get_or_init(|| made))
    }

    /// Makes the request and follows its redirects, each checked like the first.
    async fn fetch(&self, permissions: &Permissions, mut request: Request) -> Result<String, ToolError> {
        let reach = if permissions.private_addresses { Reach::Private } else { self.narrow };
        let mut redirects: Vec<String> = Vec::new();
        loop {
            // Until the first answer nothing has happened; later ones are failures of something that has.
            let refused = |reason: String| match redirects.last() {
                None => ToolError::Refused(reason),
                Some(from) => {
                    ToolError::Failed(format!("{from} redirects to a place that is not asked: {reason}"))
                }
            };
            if let Some(reason) = request.objection(permissions, reach) {
                return Err(refused(reason));
            }
            let response = match self.send(reach, &request).await? {
                Ok(response) => response,
                Err(blocked) => return Err(refused(blocked.to_string())),
            };
            let next = request.redirected(response.status(), response.headers());
            let shown = without_query(&request.url);
            let Some(next) = next.map_err(|reason| ToolError::Failed(format!("{shown} {reason}")))? else {
                return answer(permissions, response, redirects).await;
            };
            redirects.push(shown);
            if redirects.len() > permissions.redirects_max as usize {
                let max = permissions.redirects_max;
                return Err(ToolError::Failed(format!(
                    "more than {max} redirects: {}",
                    redirects.join(" → ")
                )));
            }
            request = next;
        }
    }

    async fn send(&self, reach: Reach, request: &Request) -> Result<Result<Response, Blocked>, ToolError> {
        let client = self.client(reach)?;
        let mut builder =
            client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let host = request.url.host_str().unwrap_or_default();
        match builder.send().await {
            Ok(response) => {
                let address = response.remote_addr().map(|address| address.ip());
                Ok(address.map_or(Ok(()), |address| reach.check(host, address)).map(|()| response))
            }
            Err(error) => match blocked(&error) {
                Some(blocked) => Ok(Err(blocked)),
                None => Err(failed(error)),
            },
        }
    }
}

impl ToolProvider for HttpClient {
    fn tools(&self) -> BoxFuture<'_, Result<Vec<ToolSpec>, ToolError>> {
        let spec = ToolSpec {
            name: NAME.to_owned(),
            description: "Makes one HTTP request and gives status, headers and body.".to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "url": {"type": "string", "description": "http or https"},
                    "method": {"type": "string", "enum": METHODS, "description": "GET when absent"},
                    "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                    "body": {"description": "a text, or JSON"},
                },
                "required": ["url"],
                "additionalProperties": false,
            }),
        };
        Box::pin(async { Ok(vec![spec]) })
    }

    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        _tool: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(async move {
            let request = Request::read(arguments)?;
            let timeout = caller.permissions.http_timeout.unwrap_or(Duration::MAX).min(caller.timeout);
            let fetched = tokio::time::timeout(timeout, self.fetch(&caller.permissions, request)).await;
            fetched.unwrap_or(Err(ToolError::Timeout(timeout)))
        })
    }
}

/// The block that made a request fail, if that is why.
fn blocked(error: &reqwest::Error) -> Option<Blocked> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(blocked) = error.downcast_ref::<Blocked>() {
            return Some(blocked.clone());
        }
        source = error.source();
    }
    None
}

/// What went wrong, without the URL: its query may hold a key.
fn failed(error: reqwest::Error) -> ToolError {
    ToolError::Failed(failure::chain(&error.without_url()))
}

/// A URL without what may be secret in it.
fn without_query(url: &reqwest::Url) -> String {
    url.as_str().split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// The answer as JSON of at most `http_bytes_max`: a body that is too long is cut and says so.
async fn answer(
    permissions: &Permissions,
    mut response: Response,
    redirects: Vec<String>,
) -> Result<String, ToolError> {
    let mut shown = Map::new();
    shown.insert("status".to_owned(), json!(response.status().as_u16()));
    shown.insert("url".to_owned(), json!(response.url().as_str()));
    if !redirects.is_empty() {
        shown.insert("redirects".to_owned(), json!(redirects));
    }
    shown.insert("headers".to_owned(), headers(response.headers()));
    // Room for the members that come after the body is known.
    let head = Value::Object(shown.clone()).to_string().len() + 64;
    let room = permissions.http_bytes_max.saturating_sub(head).min(BODY_BYTES_MAX);
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.to_ascii_lowercase();
    let mut body = Vec::new();
    let mut more = false;
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        let take = chunk.len().min(room - body.len());
        body.extend_from_slice(&chunk[..take]);
        if take < chunk.len() {
            more = true;
            break;
        }
    }
    if let Some(text) = text(&body, more, &kind) {
        let fits = fitting(&text, room);
        shown.insert("truncated".to_owned(), json!(more || fits.len() < text.len()));
        shown.insert("body".to_owned(), json!(fits));
    } else {
        shown.insert("truncated".to_owned(), json!(more));
        shown.insert("binary_bytes".to_owned(), json!(body.len()));
    }
    Ok(Value::Object(shown).to_string())
}

fn headers(headers: &HeaderMap) -> Value {
    let shown = SHOWN.iter().filter_map(|name| {
        let value = headers.get(name)?.to_str().ok().filter(|value| value.len() <= SHOWN_BYTES_MAX)?;
        Some((name.as_str().to_owned(), json!(value)))
    });
    Value::Object(shown.collect())
}

/// `body` as text, without the half character that a cut may leave at its end; `None` when it is something else. `kind` is
/// its content type in small letters: what that calls text is one in every charset, if with holes.
fn text<'a>(body: &'a [u8], is_cut: bool, kind: &str) -> Option<Cow<'a, str>> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(error) if is_cut && error.error_len().is_none() => {
            Cow::Borrowed(std::str::from_utf8(&body[..error.valid_up_to()]).ok()?)
        }
        // The bytes of this one are the first characters of Unicode.
        Err(_) if charset(kind) == Some("iso-8859-1") => {
            Cow::Owned(body.iter().copied().map(char::from).collect())
        }
        Err(_) if kind.starts_with("text/") || charset(kind).is_some() => String::from_utf8_lossy(body),
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some(text)
}

/// The charset that a content type names.
fn charset(kind: &str) -> Option<&str> {
    let named = kind.split(';').skip(1).find_map(|part| part.trim().strip_prefix("charset="));
    named.map(|name| name.trim_matches('"'))
}
