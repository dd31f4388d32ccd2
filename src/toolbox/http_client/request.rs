//! A request as an agent may make it, and the next one when an answer redirects.

use reqwest::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    USER_AGENT,
};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use super::hosts::{self, Reach};
use crate::toolbox::arguments::{Arguments, shortened};
use crate::toolbox::{Permissions, ToolError};

/// Longest URL, in bytes.
const URL_BYTES_MAX: usize = 8 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 32;
/// All names and values of a request's headers together, in bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What may be asked for.
pub(super) const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// The arguments of a call.
pub(super) const ARGUMENTS: &[&str] = &["url", "method", "headers", "body"];

/// Headers that belong to the connection, not to the one who asks.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "accept-encoding",
];

/// Headers that another host may see: all others may be credentials.
const HARMLESS: [HeaderName; 4] = [ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, USER_AGENT];

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<String>,
}

impl Request {
    /// Reads the arguments of a call.
    pub(super) fn read(arguments: &Value) -> Result<Self, ToolError> {
        let arguments = Arguments::of(arguments, ARGUMENTS)?;
        let url = url(arguments.required("url")?)?;
        let method = method(arguments.text("method")?.unwrap_or("GET"))?;
        let mut headers = headers(&arguments)?;
        let body = match arguments.value("body") {
            None => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(json) => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                Some(json.to_string())
            }
        };
        if let Some(body) = &body {
            if matches!(method, Method::GET | Method::HEAD) {
                let reason = format!("does not go with {method}");
                return Err(ToolError::argument("body", reason, "use POST, PUT or PATCH, or leave it out"));
            }
            if body.len() > BODY_BYTES_MAX {
                let reason = format!("takes {} bytes, the limit is {BODY_BYTES_MAX}", body.len());
                return Err(ToolError::argument("body", reason, "shorten it"));
            }
        }
        Ok(Self { method, url, headers, body })
    }

    /// Why it must not be made, if so. Addresses behind names are checked when the connection is made.
    pub(super) fn objection(&self, permissions: &Permissions, reach: Reach) -> Option<String> {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        if !hosts::allowed(&permissions.allowed_hosts, host, port) {
            let hosts = match permissions.allowed_hosts.as_slice() {
                [] => "none".to_owned(),
                hosts => hosts.join(", "),
            };
            return Some(format!("{host}:{port} is not among the hosts that this agent may ask: {hosts}"));
        }
        reach.check(host, hosts::literal(host)?).err().map(|blocked| blocked.to_string())
    }

    /// The request that the answer redirects to; `None` when it does not.
    pub(super) fn redirected(&self, status: StatusCode, headers: &HeaderMap) -> Result<Option<Self>, String> {
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(location) = headers.get(LOCATION) else { return Ok(None) };
        let text = location.to_str().map_err(|_| "redirects to something that is no URL".to_owned())?;
        let to = self.url.join(text).ok().filter(|to| text.len() <= URL_BYTES_MAX && is_web(to));
        let Some(to) = to.filter(|to| to.username().is_empty() && to.password().is_none()) else {
            return Err(format!("redirects to {:?}, which is no plain HTTP URL", shortened(text)));
        };
        if self.url.scheme() == "https" && to.scheme() == "http" {
            return Err(format!("redirects from HTTPS to HTTP ({}), which is not followed", shortened(text)));
        }
        let mut next = Self { url: to, ..self.clone() };
        let becomes_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            next.method = Method::GET;
            next.body = None;
            next.headers.remove(CONTENT_TYPE);
            next.headers.remove(CONTENT_LENGTH);
        }
        if next.url.origin() != self.url.origin() {
            let kept =
                HARMLESS.iter().filter_map(|name| Some((name.clone(), next.headers.get(name)?.clone())));
            next.headers = kept.collect();
        }
        Ok(Some(next))
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty())
}

fn url(text: &str) -> Result<Url, ToolError> {
    let wrong = |reason: String| ToolError::argument("url", reason, "write https://host/path");
    if text.len() > URL_BYTES_MAX {
        return Err(wrong(format!("takes {} bytes, the limit is {URL_BYTES_MAX}", text.len())));
    }
    let url = Url::parse(text).map_err(|error| wrong(format!("{:?} is no URL: {error}", shortened(text))))?;
    if !is_web(&url) {
        return Err(wrong(format!("{:?} is not of the web", shortened(text))));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let remedy = "send an authorization header instead";
        return Err(ToolError::argument("url", "has a user or a password in it", remedy));
    }
    Ok(url)
}

fn method(text: &str) -> Result<Method, ToolError> {
    let upper = text.to_ascii_uppercase();
    let known =
        METHODS.contains(&upper.as_str()).then(|| Method::from_bytes(upper.as_bytes()).ok()).flatten();
    known.ok_or_else(|| {
        let reason = format!("{:?} is not allowed", shortened(text));
        ToolError::argument("method", reason, format!("use one of {}", METHODS.join(", ")))
    })
}

fn headers(arguments: &Arguments<'_>) -> Result<HeaderMap, ToolError> {
    let mut headers = HeaderMap::new();
    let Some(given) = arguments.object("headers")? else { return Ok(headers) };
    let bytes: usize =
        given.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if given.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        let reason = format!("are {} with {bytes} bytes", given.len());
        let remedy = format!("send at most {HEADERS_MAX} with {HEADER_BYTES_MAX} bytes");
        return Err(ToolError::argument("headers", reason, remedy));
    }
    for (name, value) in given {
        let field = format!("headers.{}", shortened(name));
        let wrong = |reason: &str, remedy: &str| ToolError::argument(&field, reason, remedy);
        let known = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| wrong("is no name of a header", "use letters, digits and -"))?;
        if RESERVED.contains(&known.as_str()) || known.as_str().starts_with("proxy-") {
            return Err(wrong("is set by the connection", "leave it out"));
        }
        let text = value.as_str().ok_or_else(|| wrong("must be a text", "give a text"))?;
        let value = HeaderValue::from_str(text)
            .map_err(|_| wrong("has characters that no header may have", "use visible ASCII on one line"))?;
        headers.insert(known, value);
    }
    Ok(headers)
}
