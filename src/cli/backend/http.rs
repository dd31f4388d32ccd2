//! A running server, over HTTP.

use std::io::Cursor;
use std::time::Duration;

use ureq::http::Uri;
use ureq::{Agent, Body};

use super::{Answer, Request};
use crate::cli::failure::{Exit, Failure};
use crate::failure::chain;

/// Time for a connection; the server is on this machine or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for an answer to begin; imports with `wait=indexed` take long.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);
/// Time for a server to say that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A server and how to talk to it.
pub(in crate::cli) struct Http {
    agent: Agent,
    base: String,
    key: Option<String>,
}

/// Refuses what is no address of a server. `flag` is what gave it, with a colon and a space, or nothing.
pub(in crate::cli) fn is_address(url: &str, flag: &str) -> Result<(), Failure> {
    let fits = url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    });
    if fits {
        return Ok(());
    }
    let message = format!("{flag}{url:?} is no address of a server; write http://HOST:PORT");
    Err(Failure::new(Exit::Usage, message))
}

impl Http {
    /// The server at `url`, as in `http://127.0.0.1:8080`.
    pub(in crate::cli) fn new(url: &str, key: Option<String>) -> Result<Self, Failure> {
        is_address(url, "")?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .proxy(None)
            .build()
            .into();
        Ok(Self { agent, base: url.trim_end_matches('/').to_owned(), key })
    }

    /// Whether something speaks HTTP there.
    pub(super) fn answers(&self) -> bool {
        let probe = self.agent.get(format!("{}/api/v1/ready", self.base));
        probe.config().timeout_global(Some(PROBE_TIMEOUT)).build().call().is_ok()
    }

    /// The base address.
    pub(in crate::cli) fn url(&self) -> &str {
        &self.base
    }

    /// Sends a request.
    pub(super) fn send(&self, request: Request) -> Result<Answer, Failure> {
        let mut builder = ureq::http::Request::builder()
            .method(request.method)
            .uri(format!("{}{}", self.base, request.path))
            // The server may have another format for those who do not say.
            .header("accept", "application/json, */*;q=0.5")
            .header("user-agent", concat!("caxton/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            builder = builder.header("authorization", format!("Bearer {key}"));
        }
        let (kind, body) = request.body.unwrap_or_default();
        if !kind.is_empty() {
            builder = builder.header("content-type", kind);
        }
        let request = builder
            .body(body)
            .map_err(|error| Failure::new(Exit::Usage, format!("could not make the request: {error}")))?;
        let empty = request.body().is_empty();
        let response = if empty { self.agent.run(request.map(|_| ())) } else { self.agent.run(request) };
        let response = response.map_err(|error| {
            let message = format!("no answer from {}: {}; is it running?", self.base, chain(&error));
            Failure::new(Exit::Unreachable, message)
        })?;
        let (parts, body): (_, Body) = response.into_parts();
        let status = parts.status.as_u16();
        let body: Box<dyn std::io::Read> =
            if status == 204 { Box::new(Cursor::new(b"null")) } else { Box::new(body.into_reader()) };
        Ok(Answer { status, body })
    }
}
