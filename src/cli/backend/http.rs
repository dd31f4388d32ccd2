//! A running server, over HTTP.

use std::io::Cursor;
use std::time::Duration;

use serde_json::Value;
use ureq::config::AutoHeaderValue;
use ureq::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use ureq::{Agent, Body};

use super::{Answer, Request};
use crate::api::rest::LOG_ID_HEADER;
use crate::cli::failure::{Exit, Failure};
use crate::failure::chain;

/// Time for a connection; the server is on this machine or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for an answer to begin; imports with `wait=indexed` take long.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);
/// Time for each step of a request among many.
const LOADED_TIMEOUT: Duration = Duration::from_mins(1);
/// Time for a server to say that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer about the head of a log that is read, in bytes.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// What the name of a log begins with; its id follows.
const LOG_NAME: &str = "caxton/log/";

/// A server and how to talk to it.
pub(in crate::cli) struct Http {
    agent: Agent,
    base: String,
    key: Option<String>,
}

/// What is found at an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nobody answers.
    Nobody,
    /// A server with the log of this id.
    Log(String),
    /// Something that does not say which log it has.
    Stranger,
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

/// Where an answer points instead of giving what was asked for, if it does.
///
/// Nobody follows it: on the way a request that writes becomes one that reads, and is taken for done.
pub(in crate::cli) fn pointed_to(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let to = headers.get("location").map_or(&b""[..], HeaderValue::as_bytes);
    let to = String::from_utf8_lossy(to).into_owned();
    status.is_redirection().then(|| if to.is_empty() { "another place".to_owned() } else { to })
}

/// A client that sends many requests to one server and keeps up to `connections` open.
///
/// Answers are asked for as they are: to make them smaller takes longer than to send them, where client and server share a machine.
/// Redirects are answers. Its times are those of steps: with one for a whole request, ureq starts a thread for each to look up
/// the host's name.
pub(in crate::cli) fn loading_agent(connections: usize) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .accept_encoding(AutoHeaderValue::None)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_send_request(Some(LOADED_TIMEOUT))
        .timeout_send_body(Some(LOADED_TIMEOUT))
        .timeout_recv_response(Some(LOADED_TIMEOUT))
        .timeout_recv_body(Some(LOADED_TIMEOUT))
        .max_idle_connections(connections)
        .max_idle_connections_per_host(connections)
        .proxy(None)
        .build()
        .into()
}

impl Http {
    /// The server at `url`, as in `http://127.0.0.1:8080`.
    pub(in crate::cli) fn new(url: &str, key: Option<String>) -> Result<Self, Failure> {
        is_address(url, "")?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .proxy(None)
            .build()
            .into();
        Ok(Self { agent, base: url.trim_end_matches('/').to_owned(), key })
    }

    /// Who speaks HTTP there. One request, and another one to a server that is too old to say its log in the first answer.
    pub(super) fn who_answers(&self) -> Found {
        let probe = self.agent.get(format!("{}/api/v1/ready", self.base));
        let Ok(answer) = probe.config().timeout_global(Some(PROBE_TIMEOUT)).build().call() else {
            return Found::Nobody;
        };
        let told = answer.headers().get(LOG_ID_HEADER).and_then(|id| id.to_str().ok());
        told.map(str::to_owned).or_else(|| self.log_of_head()).map_or(Found::Stranger, Found::Log)
    }

    /// The log that the server names with its head. It is asked without a key: nobody knows yet who it is.
    fn log_of_head(&self) -> Option<String> {
        let ask = self.agent.get(format!("{}/api/v1/log/head", self.base));
        let mut answer = ask.config().timeout_global(Some(PROBE_TIMEOUT)).build().call().ok()?;
        let body = answer.body_mut().with_config().limit(HEAD_BYTES_MAX).reader();
        let head: Value = serde_json::from_reader(body).ok()?;
        let id = head.get("public_key")?.as_str()?.strip_prefix(LOG_NAME)?.get(..32)?;
        Some(id.to_owned())
    }

    /// The base address.
    pub(in crate::cli) fn url(&self) -> &str {
        &self.base
    }

    /// Sends a request. An answer that points elsewhere is a refusal.
    pub(super) fn send(&self, request: Request) -> Result<Answer, Failure> {
        let asked = format!("{} {}", request.method, request.path.split('?').next().unwrap_or_default());
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
        if let Some(to) = pointed_to(parts.status, &parts.headers) {
            let message = format!(
                "{} answers {asked} with {status} and points to {to}, where nothing was asked; name the server itself with --url",
                self.base
            );
            return Err(Failure::new(Exit::Refused, message));
        }
        let body: Box<dyn std::io::Read> =
            if status == 204 { Box::new(Cursor::new(b"null")) } else { Box::new(body.into_reader()) };
        Ok(Answer { status, body })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use serde_json::json;

    use super::{Exit, Found, Http, Request};

    const ID: &str = "0123456789abcdef0123456789abcdef";

    /// Where these answers are given, one to each request, and to which paths.
    fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = Vec::new();
                let mut byte = [0; 1];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                // What is not read may take the answer with it.
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse().ok()
                });
                let mut body = vec![0_u8; length.unwrap_or(0)];
                stream.read_exact(&mut body).unwrap();
                let path = head.split(' ').nth(1).unwrap();
                let keyed = head.to_ascii_lowercase().contains("\r\nauthorization:");
                asked.push(if keyed { format!("{path} with a key") } else { path.to_owned() });
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        (url, serving)
    }

    /// Who is found where these answers are given, and to which paths.
    fn found(answers: Vec<String>) -> (Found, Vec<String>) {
        let (url, serving) = serve(answers);
        // Whoever it is gets no key before that is known.
        let found = Http::new(&url, Some("secret".to_owned())).unwrap().who_answers();
        (found, serving.join().unwrap())
    }

    fn answer(status: &str, header: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }

    #[test]
    fn a_server_is_known_by_its_log_after_one_request_and_an_old_one_after_two() {
        let header = format!("caxton-log-id: {ID}\r\n");
        for status in ["200 OK", "503 Service Unavailable"] {
            let (who, asked) = found(vec![answer(status, &header, "{}")]);
            assert_eq!((who, asked), (Found::Log(ID.to_owned()), vec!["/api/v1/ready".to_owned()]));
        }
        let key = format!(r#"{{"public_key": "caxton/log/{ID}+deadbeef+AAAA"}}"#);
        let (who, asked) = found(vec![answer("200 OK", "", "{}"), answer("200 OK", "", &key)]);
        assert_eq!(who, Found::Log(ID.to_owned()));
        assert_eq!(asked, ["/api/v1/ready", "/api/v1/log/head"]);
        let other =
            |body: &str| found(vec![answer("404 Not Found", "", body), answer("404 Not Found", "", body)]).0;
        assert_eq!(other("<html>"), Found::Stranger);
        assert_eq!(other("{}"), Found::Stranger);
    }

    #[test]
    fn an_answer_that_points_elsewhere_is_a_refusal_and_is_not_followed() {
        for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"] {
            let (other, elsewhere) = serve(Vec::new());
            elsewhere.join().unwrap();
            let header = format!("location: {other}/there\r\n");
            let (url, serving) = serve(vec![answer(status, &header, "gone")]);
            let request = Request::post("/api/v1/memory/entities", &json!({"a": 1})).with("again", "true");
            let refused = Http::new(&url, None).unwrap().send(request).err().unwrap();
            assert_eq!(refused.exit, Some(Exit::Refused), "{refused}");
            let code = &status[..3];
            let told = format!(
                "{url} answers POST /api/v1/memory/entities with {code} and points to {other}/there, where nothing was asked"
            );
            assert!(refused.to_string().starts_with(&told), "{refused}");
            assert_eq!(serving.join().unwrap(), ["/api/v1/memory/entities?again=true"]);
        }
    }

    #[test]
    fn nobody_is_found_where_nobody_listens() {
        assert_eq!(Http::new("http://127.0.0.1:1", None).unwrap().who_answers(), Found::Nobody);
    }
}
