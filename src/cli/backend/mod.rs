//! Where a command's requests go: to the server that has the data directory, or, when none runs, to an engine of its
//! own behind the same REST router.

mod found;
mod http;
mod local;

use std::io::{self, Read};

use serde_json::Value;

use super::args::Common;
use super::failure::{Exit, Failure};
use super::setup;

use http::Found;
pub(super) use http::{Http, is_address, loading_agent, pointed_to};
pub(super) use local::Local;

/// Name of the file in the data directory that holds the address of the server running on it.
pub(super) const ENDPOINT_FILE: &str = "endpoint";

/// Longest answer that is read whole, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    method: &'static str,
    path: String,
    body: Option<(&'static str, Vec<u8>)>,
}

impl Request {
    /// Asks for what is at `path`.
    pub(super) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), body: None }
    }

    /// Sends a JSON value to `path`.
    pub(super) fn post(path: &str, body: &Value) -> Self {
        Self {
            method: "POST",
            path: path.to_owned(),
            body: Some(("application/json", body.to_string().into_bytes())),
        }
    }

    /// Sends JSON lines to `path`.
    pub(super) fn post_lines(path: &str, body: Vec<u8>) -> Self {
        Self { method: "POST", path: path.to_owned(), body: Some(("application/x-ndjson", body)) }
    }

    /// With a parameter, percent-encoded.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(name);
        self.path.push('=');
        encode_into(&mut self.path, value);
        self
    }

    /// With a parameter, when there is a value.
    pub(super) fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// A piece of a path, percent-encoded.
pub(super) fn encoded(piece: &str) -> String {
    let mut text = String::with_capacity(piece.len());
    encode_into(&mut text, piece);
    text
}

fn encode_into(text: &mut String, piece: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in piece.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => {
                let digit = |nibble: u8| char::from(HEX[usize::from(nibble)]);
                text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}

/// What came back.
pub(super) struct Answer {
    status: u16,
    body: Box<dyn Read>,
}

/// Who answers.
pub(super) enum Backend {
    /// A running server.
    Http(Http),
    /// An engine in this process, under the directory's lock.
    Local(Box<Local>),
}

impl Backend {
    /// The server that `--url` or the data directory names, or else an engine in this process. A data directory is made
    /// for commands that write, and for those alone.
    pub(super) fn open(common: &Common, writes: bool) -> Result<Self, Failure> {
        if let Some(server) = running(common)? {
            return Ok(Self::Http(server));
        }
        Ok(Self::Local(Box::new(Local::open(common, writes)?)))
    }

    /// Has the model read what it has not read of the log yet, where nobody goes on with that afterwards: a server does.
    pub(super) fn let_model_catch_up(&self, common: &Common) {
        match self {
            Self::Http(_) => (),
            Self::Local(engine) => engine.let_model_catch_up(common),
        }
    }

    /// The answer's body as it comes.
    pub(super) fn read(&self, request: Request) -> Result<Box<dyn Read>, Failure> {
        let answer = self.send(request)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        let text = read_whole(answer.body).unwrap_or_default();
        Err(refusal(answer.status, &text))
    }

    /// The answer's body as JSON.
    pub(super) fn ask(&self, request: Request) -> Result<Value, Failure> {
        parsed(self.read(request)?)
    }

    /// The same for a request whose refusals are part of its answer: a JSON object with the member `report` is an
    /// answer whatever its status.
    pub(super) fn ask_for(&self, request: Request, report: &str) -> Result<Value, Failure> {
        let answer = self.send(request)?;
        let (status, value) = (answer.status, parsed(answer.body)?);
        if value.get(report).is_some() {
            return Ok(value);
        }
        Err(refusal(status, value.to_string().as_bytes()))
    }

    fn send(&self, request: Request) -> Result<Answer, Failure> {
        match self {
            Self::Http(server) => server.send(request),
            Self::Local(engine) => engine.send(request),
        }
    }
}

fn parsed(body: Box<dyn Read>) -> Result<Value, Failure> {
    let text = read_whole(body)
        .map_err(|error| Failure::new(Exit::Failed, format!("the answer did not arrive whole: {error}")))?;
    serde_json::from_slice(&text).map_err(|error| {
        Failure::new(Exit::Failed, format!("the answer is no JSON: {error}; is this a Caxton server?"))
    })
}

fn read_whole(body: Box<dyn Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The server that `--url` names, which must answer and is taken at its word, or the one that has the data directory open.
pub(super) fn running(common: &Common) -> Result<Option<Http>, Failure> {
    match &common.url {
        Some(url) => Http::new(url, common.api_key.clone()).map(Some),
        None => found::on_directory(&setup::data_dir(common)?, common),
    }
}

/// The server that has the files of the data directory open, for a command that works on these itself: `--url` counts only where
/// no directory is named and somebody answers there.
pub(super) fn holding_files(common: &Common) -> Result<Option<Http>, Failure> {
    if let (Some(url), None) = (&common.url, &common.data_dir) {
        let server = Http::new(url, common.api_key.clone())?;
        if server.who_answers() != Found::Nobody {
            return Ok(Some(server));
        }
    }
    found::on_directory(&setup::data_dir(common)?, common)
}

/// What the server tells clients of the REST API, in the words of the command line.
const IN_COMMANDS: &[(&str, &str)] = &[
    ("send Authorization: Bearer KEY with a key from", "give --api-key or CAXTON_API_KEY a key from"),
    ("send again=true", "add --again"),
    (
        "leave conversation_id out to open one, or open it first with POST /conversations",
        "leave --conversation out to open one",
    ),
    (
        "register it with POST /agents",
        "it is known once it has written something, as with `caxton memory add --agent NAME`",
    ),
    ("GET /api/v1/config-agents/ with the agent's name lists", "`caxton agents show NAME` lists"),
    ("GET /api/v1/config-agents lists", "`caxton agents list` lists"),
    ("; GET /api/v1/agents also those that registered", ", and those that registered"),
    ("GET /api/v1/log/head", "`caxton log head`"),
    ("GET /api/v1/health/detailed", "`caxton status`"),
    ("GET /api/v1/events?kinds=system.erased", "`caxton log tail --kind system.erased`"),
    ("GET /audit?kinds=system.erased", "`caxton audit query --kind system.erased`"),
    ("GET /api/v1/audit", "`caxton audit query`"),
    (
        "GET /api/v1/projections/graph?wait_seconds=25 waits for its end",
        "`caxton projection list` says when it has ended",
    ),
    (
        "GET /api/v1/projections/talk?wait_seconds=25 waits for its end",
        "`caxton projection list` says when it has ended",
    ),
    (
        "GET /api/v1/projections/vectors?wait_seconds=25 waits for its end",
        "`caxton projection list` says when it has ended",
    ),
    ("GET /api/v1/projections", "`caxton projection list`"),
    ("GET /agents", "`caxton agents list`"),
    ("GET /conversations", "`caxton conversations list`"),
    ("GET /dead-letters", "`caxton deadletters list`"),
    ("GET /capabilities", "`caxton capabilities list`"),
];

/// A text of the server in the words of the command line.
fn in_commands(told: String) -> String {
    IN_COMMANDS.iter().fold(told, |told, (rest, command)| told.replace(rest, command))
}

/// A problem document as a failure: what is wrong, where, and what to do.
fn refusal(status: u16, body: &[u8]) -> Failure {
    let exit = match status {
        404 => Exit::NotFound,
        400..=499 if status != 408 && status != 429 => Exit::Refused,
        _ => Exit::Failed,
    };
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut message = match text("detail") {
        "" => {
            format!("the server answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]))
        }
        detail => detail.to_owned(),
    };
    if !text("code").is_empty() {
        message = format!("{message} [{}]", text("code"));
    }
    let remedy = match (status, text("remedy")) {
        (401, "") => "give a key with --api-key or CAXTON_API_KEY",
        (_, remedy) => remedy,
    };
    if !remedy.is_empty() {
        message.push_str("\nremedy: ");
        message.push_str(remedy);
    }
    Failure::new(exit, in_commands(message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Request, encoded, refusal};
    use crate::cli::failure::Exit;

    #[test]
    fn parameters_are_percent_encoded() {
        let request =
            Request::get("/a").with("q", "café & co").with_some("n", None).with_some("m", Some("1"));
        assert_eq!(request.path, "/a?q=caf%C3%A9%20%26%20co&m=1");
        assert_eq!(encoded("a/b?c"), "a%2Fb%3Fc");
    }

    #[track_caller]
    fn check(status: u16, body: &str, exit: Exit, message: &str) {
        let failure = refusal(status, body.as_bytes());
        assert_eq!((failure.exit, failure.to_string().as_str()), (Some(exit), message));
    }

    #[test]
    fn remedies_name_commands_and_no_requests() {
        for (told, command) in [
            ("GET /api/v1/log/head says how many events there are", "`caxton log head` says how many"),
            ("register it with POST /agents, or see GET /agents", "or see `caxton agents list`"),
            (
                "register it with POST /agents, or send to a capability",
                "`caxton memory add --agent NAME`, or",
            ),
            ("wait; GET /api/v1/health/detailed says how far they are", "wait; `caxton status` says how far"),
            (
                "GET /api/v1/projections/talk?wait_seconds=25 waits for its end",
                "`caxton projection list` says",
            ),
            (
                "nothing was written; GET /api/v1/projections says how far it is",
                "`caxton projection list` says",
            ),
            ("check the id; GET /api/v1/audit finds events by who", "`caxton audit query` finds"),
            ("see GET /capabilities for what is offered", "see `caxton capabilities list` for"),
        ] {
            let body = json!({ "detail": told, "remedy": told }).to_string();
            let failure = refusal(404, body.as_bytes()).to_string();
            assert_eq!(failure.matches(command).count(), 2, "{failure}");
            assert!(!failure.contains("GET /") && !failure.contains("POST /"), "{failure}");
        }
    }

    #[test]
    fn a_problem_becomes_an_exit_code_and_a_remedy() {
        let problem = r#"{"detail":"there is no x","code":"ENTITY_NOT_FOUND","remedy":"create it"}"#;
        check(404, problem, Exit::NotFound, "there is no x [ENTITY_NOT_FOUND]\nremedy: create it");
        check(409, r#"{"detail":"d"}"#, Exit::Refused, "d");
        check(
            401,
            r#"{"detail":"no key"}"#,
            Exit::Refused,
            "no key\nremedy: give a key with --api-key or CAXTON_API_KEY",
        );
        check(429, r#"{"detail":"full"}"#, Exit::Failed, "full");
        check(503, r#"{"detail":"stopped"}"#, Exit::Failed, "stopped");
        check(502, "<html>", Exit::Failed, "the server answered 502: <html>");
    }
}
