//! Requests of a benchmark, on connections that are kept.

use serde_json::Value;
use ureq::Agent;

use crate::cli::backend::loading_agent;
use crate::cli::failure::{Exit, Failure};
use crate::failure::chain;

/// Where the API is.
pub(super) const API: &str = "/api/v1";

/// One request.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    pub(super) method: &'static str,
    /// Below `/api/v1`.
    pub(super) path: String,
    /// Nothing where there is no body.
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Ask {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), ..Self::default() }
    }

    pub(super) fn post(path: impl Into<String>, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self { method: "POST", path: path.into(), content_type: "application/json", body }
    }

    pub(super) fn lines(path: impl Into<String>, body: Vec<u8>) -> Self {
        Self { method: "POST", path: path.into(), content_type: "application/x-ndjson", body }
    }
}

/// The way to a server. Each thread has its own, with a connection that is used again.
#[derive(Clone)]
pub(super) struct Door {
    agent: Agent,
    base: String,
    key: Option<String>,
}

impl Door {
    /// To the server at `url`.
    pub(super) fn new(url: &str, key: Option<String>) -> Self {
        let agent = loading_agent(1);
        Self { agent, base: url.trim_end_matches('/').to_owned(), key }
    }

    /// Another one with a connection of its own.
    pub(super) fn another(&self) -> Self {
        Self::new(&self.base, self.key.clone())
    }

    /// Sends a request and reads the whole answer: status and body, or why there is none.
    pub(super) fn send(&self, ask: &Ask) -> Result<(u16, Vec<u8>), String> {
        self.send_at_root(ask, API)
    }

    /// The same below another root than that of the API.
    pub(super) fn send_at_root(&self, ask: &Ask, root: &str) -> Result<(u16, Vec<u8>), String> {
        let mut builder = ureq::http::Request::builder()
            .method(ask.method)
            .uri(format!("{}{root}{}", self.base, ask.path))
            .header("accept", "application/json, */*;q=0.5")
            .header("user-agent", concat!("caxton-benchmark/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            builder = builder.header("authorization", format!("Bearer {key}"));
        }
        let response = if ask.content_type.is_empty() {
            self.agent.run(builder.body(()).map_err(|error| error.to_string())?)
        } else {
            let request = builder.header("content-type", ask.content_type).body(&ask.body[..]);
            self.agent.run(request.map_err(|error| error.to_string())?)
        };
        let mut response = response.map_err(|error| chain(&error))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec();
        Ok((status, body.map_err(|error| chain(&error))?))
    }

    /// The command by which a person sends the request; the key is theirs to fill in.
    pub(super) fn by_hand(&self, ask: &Ask) -> String {
        let key = if self.key.is_some() { " -H 'authorization: Bearer KEY'" } else { "" };
        format!("curl -X {}{key} '{}{API}{}'", ask.method, self.base, ask.path)
    }

    /// The answer as JSON, where it is one of success.
    pub(super) fn json(&self, ask: &Ask) -> Result<Value, Failure> {
        let (status, body) = self.send(ask).map_err(|silence| {
            let message = format!("no answer from {}: {silence}; is it running?", self.base);
            Failure::new(Exit::Unreachable, message)
        })?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let exit = if matches!(status, 401 | 403) { Exit::Refused } else { Exit::Failed };
        Err(Failure::new(exit, format!("{} {}: {}", ask.method, ask.path, refusal(status, &body))))
    }
}

/// What a refusal says, in a word that can be counted: its code, or its status.
pub(super) fn code(status: u16, body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value.get("code").and_then(Value::as_str).map_or_else(|| format!("status {status}"), str::to_owned)
}

/// The same, with what can be done about it.
pub(super) fn refusal(status: u16, body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    match (text("code"), text("detail"), text("remedy")) {
        (Some(code), Some(detail), Some(remedy)) => format!("{code}: {detail}; {remedy}"),
        (Some(code), Some(detail), None) => format!("{code}: {detail}"),
        _ => format!("status {status}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::{Ask, Door};

    #[test]
    fn answers_are_asked_for_as_they_are_and_redirects_are_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4_096];
            let read = stream.read(&mut request).unwrap();
            stream
                .write_all(
                    b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
                )
                .unwrap();
            String::from_utf8_lossy(&request[..read]).to_ascii_lowercase()
        });
        let (status, body) = Door::new(&url, None).send(&Ask::get("/health")).unwrap();
        assert_eq!((status, body.len()), (307, 0));
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("get /api/v1/health ") && !asked.contains("accept-encoding"), "{asked}");
    }
}
