//! One MCP server: opened at its first use, opened again when it died, left alone for a while when it keeps dying.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::{
    ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams, ProtocolVersion, Tool,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, NotificationContext, Peer, RunningService,
    serve_client_with_lifecycle,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, RoleClient};
use tokio::sync::Mutex;

use super::process::{self, Child};
use super::{ERROR_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::config::McpServer;
use crate::failure;
use crate::llm::{KeyError, Secret};
use crate::toolbox::arguments::{cut, shortened};
use crate::toolbox::{ToolError, tls};
use crate::{VERSION, telemetry};

/// Versions of the protocol that a server may answer with.
const VERSIONS: &[ProtocolVersion] = ProtocolVersion::KNOWN_VERSIONS;

/// Tools of one server that are offered.
const TOOLS_MAX: usize = 256;
/// Pages of a list of tools that are asked for.
const PAGES_MAX: usize = 64;
/// Longest rest between two starts.
const REST_MAX: Duration = Duration::from_mins(1);
/// Shortest value of a variable that may be a secret, in bytes: a shorter one may be any word.
const SECRET_BYTES_MIN: usize = 8;
/// What the names of variables with secrets have in them.
const SECRET_WORDS: &[&str] =
    &["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH", "COOKIE", "WEBHOOK", "PRIVATE", "BEARER"];
/// The same for whole parts of names.
const SECRET_PARTS: &[&str] = &["PAT", "PWD", "DSN", "PIN"];
/// Time to connect to a server by HTTP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One server.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) server: McpServer,
    open: Mutex<Option<Arc<Running>>>,
    /// Since when it is being started, while it is.
    starting: StdMutex<Option<Instant>>,
    health: StdMutex<Health>,
}

/// A server that answered.
#[derive(Debug)]
pub(super) struct Running {
    service: RunningService<RoleClient, Client>,
    tools: StdMutex<Arc<Vec<Tool>>>,
    _child: Option<Child>,
}

/// How often a server failed in a row, why it did last, and until when it is left alone.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: u32,
    cause: String,
    rest_until: Option<Instant>,
}

impl Health {
    /// Refuses a start before its time.
    pub(super) fn gate(&self, now: Instant) -> Result<(), String> {
        match self.rest_until {
            Some(until) if now < until => {
                let (seconds, cause) = ((until - now).as_secs() + 1, cut(&self.cause, ERROR_BYTES_MAX));
                Err(format!(
                    "failed {} times in a row (the last time it {cause}) and is tried again in {seconds} s",
                    self.failures
                ))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The server did not start, or died, for this cause. After the first time it may be started at once.
    pub(super) fn failed(&mut self, now: Instant, cause: &str) {
        cause.clone_into(&mut self.cause);
        self.failures = self.failures.saturating_add(1);
        let rest = match self.failures {
            0 | 1 => Duration::ZERO,
            more => REST_MAX.min(Duration::from_secs(1 << (more - 2).min(30))),
        };
        self.rest_until = Some(now + rest);
    }

    /// The server did what it was asked.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }
}

/// What servers may ask of us: nothing. They may tell that their tools have changed.
#[derive(Debug, Default)]
struct Client {
    changed: AtomicBool,
}

impl ClientHandler for Client {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.store(true, Ordering::Relaxed);
    }

    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("caxton", VERSION))
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }
}

impl Running {
    /// Where requests go.
    pub(super) fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    /// Its tools, asked for again after it said that they have changed.
    pub(super) async fn tools(&self) -> Result<Arc<Vec<Tool>>, String> {
        let changed = &self.service.service().changed;
        if changed.swap(false, Ordering::Relaxed) {
            let stale = Stale(Some(changed));
            let tools = Arc::new(list(self.peer()).await?);
            stale.renewed();
            *self.tools.lock().unwrap_or_else(PoisonError::into_inner) = tools;
        }
        Ok(Arc::clone(&self.tools.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A list of tools that is being read anew. What ends before it is read, for want of an answer or of time, leaves it
/// to the next who asks.
struct Stale<'a>(Option<&'a AtomicBool>);

impl Stale<'_> {
    fn renewed(mut self) {
        self.0 = None;
    }
}

impl Drop for Stale<'_> {
    fn drop(&mut self) {
        if let Some(changed) = self.0 {
            changed.store(true, Ordering::Relaxed);
        }
    }
}

impl Connection {
    pub(super) fn new(server: McpServer) -> Self {
        Self { server, open: Mutex::new(None), starting: StdMutex::default(), health: StdMutex::default() }
    }

    /// Seconds for which it has been starting, from `patience` on: then nobody else waits for it.
    pub(super) fn has_been_starting(&self, patience: Duration) -> Option<u64> {
        let since = *self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        let so_far = since?.elapsed();
        (so_far >= patience).then_some(so_far.as_secs())
    }

    /// The server, started if it does not run. A start goes on when the one who asked for it is gone, so that it is
    /// there for the next, or counts as failed.
    pub(super) async fn running(self: &Arc<Self>) -> Result<Arc<Running>, ToolError> {
        let this = Arc::clone(self);
        let opened = tokio::spawn(async move { this.open().await }).await;
        let opened = opened.unwrap_or_else(|error| Err(format!("could not be started: {error}")));
        opened.map_err(|reason| self.failed(&reason))
    }

    /// The failure with the server's name before it.
    pub(super) fn failed(&self, reason: &str) -> ToolError {
        ToolError::Failed(format!("MCP server {} {}", self.server.name, self.without_secrets(reason)))
    }

    /// `text` without the server's token and the secrets among its variables, which it may repeat, and the query of its
    /// URL, which may hold a key.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let text = match token(&self.server) {
            Ok(Some(token)) => token.scrub(text),
            Ok(None) | Err(_) => text.to_owned(),
        };
        let text = given(&self.server.env).fold(text, |text, value| text.replace(&value, "…"));
        let query = self.server.url.as_ref().and_then(|url| url.split_once('?')).map(|(_, query)| query);
        match query.filter(|query| !query.is_empty()) {
            Some(query) => text.replace(query, "…"),
            None => text,
        }
    }

    /// Notes that a call was answered.
    pub(super) fn worked(&self) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).worked();
    }

    async fn open(&self) -> Result<Arc<Running>, String> {
        let mut open = self.open.lock().await;
        match open.take() {
            Some(running) if !running.peer().is_transport_closed() => {
                return Ok(Arc::clone(open.insert(running)));
            }
            Some(_dead) => self.note_failure("died"),
            None => (),
        }
        self.health.lock().unwrap_or_else(PoisonError::into_inner).gate(Instant::now())?;
        let timeout = self.server.timeout;
        self.note_start(Some(Instant::now()));
        let started = match tokio::time::timeout(timeout, self.start()).await {
            Ok(started) => started,
            Err(_) => Err(format!("did not answer within {timeout:?} of its start")),
        };
        self.note_start(None);
        telemetry::tool_server_started(&self.server.name, started.is_ok());
        match started {
            Ok(running) => Ok(Arc::clone(open.insert(Arc::new(running)))),
            Err(reason) => {
                let reason = self.without_secrets(&reason);
                self.note_failure(&reason);
                tracing::warn!(server = self.server.name, reason, "an MCP server did not start");
                Err(reason)
            }
        }
    }

    fn note_failure(&self, cause: &str) {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).failed(Instant::now(), cause);
    }

    fn note_start(&self, since: Option<Instant>) {
        *self.starting.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Starts the server with the handshake that most know; one that refuses it is asked in the newest protocol, which
    /// has none.
    async fn start(&self) -> Result<Running, String> {
        match self.connect(ClientLifecycleMode::Initialize).await {
            Err(Unopened::Handshake(error)) if matches!(*error, ClientInitializeError::JsonRpcError(_)) => {
                let preferred_versions = vec![ProtocolVersion::LATEST];
                let newest = self.connect(ClientLifecycleMode::Discover { preferred_versions }).await;
                newest.map_err(|_| Unopened::Handshake(error).told())
            }
            other => other.map_err(Unopened::told),
        }
    }

    async fn connect(&self, lifecycle: ClientLifecycleMode) -> Result<Running, Unopened> {
        let server = &self.server;
        let (service, child) = match (&server.command, &server.url) {
            (Some(command), _) => {
                let (child, pipe) = process::start(&server.name, command, &server.args, &server.env)
                    .map_err(|error| {
                        Unopened::Start(format!("could not be started as {command:?}: {error}"))
                    })?;
                let service = serve_client_with_lifecycle(Client::default(), pipe, lifecycle).await;
                (service, Some(child))
            }
            (None, Some(url)) => {
                let transport = http(server, url).map_err(Unopened::Start)?;
                (serve_client_with_lifecycle(Client::default(), transport, lifecycle).await, None)
            }
            (None, None) => return Err(Unopened::Start("has neither command nor url".to_owned())),
        };
        let service = service.map_err(|error| Unopened::Handshake(Box::new(error)))?;
        let spoken = service.peer().peer_info().map(|server| server.protocol_version.clone());
        if let Some(spoken) = spoken.filter(|spoken| !VERSIONS.contains(spoken)) {
            let ours = VERSIONS.iter().map(ProtocolVersion::as_str).collect::<Vec<_>>().join(", ");
            let spoken = shortened(spoken.as_str());
            return Err(Unopened::Start(format!("speaks MCP of {spoken}, and Caxton that of {ours}")));
        }
        let tools = list(service.peer()).await.map_err(Unopened::Start)?;
        Ok(Running { service, tools: StdMutex::new(Arc::new(tools)), _child: child })
    }
}

/// Why a server did not open.
enum Unopened {
    /// It could not be started, or did not list its tools.
    Start(String),
    /// It did not understand us, or we it.
    Handshake(Box<ClientInitializeError>),
}

impl Unopened {
    fn told(self) -> String {
        match self {
            Self::Start(reason) => reason,
            Self::Handshake(error) => format!("did not open: {}", told(&*error)),
        }
    }
}

/// An error with its causes as one line, without the types of Rust that the library names in it.
pub(super) fn told(error: &dyn Error) -> String {
    const TYPE: &str = "Transport [";
    const END: &str = "] error: ";
    let mut text = failure::chain(error);
    while let Some(start) = text.find(TYPE)
        && let Some(length) = text[start..].find(END)
    {
        text.replace_range(start..start + length + END.len(), "");
    }
    text
}

fn http(server: &McpServer, url: &str) -> Result<StreamableHttpClientTransport<reqwest::Client>, String> {
    let client = tls::client(|builder| builder.connect_timeout(CONNECT_TIMEOUT))
        .map_err(|error| format!("could not be reached: {}", failure::chain(&error)))?;
    let mut config = StreamableHttpClientTransportConfig::with_uri(url)
        .max_sse_event_size(MESSAGE_BYTES_MAX)
        .max_json_response_size(MESSAGE_BYTES_MAX);
    let token = token(server).map_err(|error| format!("has no token: {}", failure::chain(&error)))?;
    if let Some(token) = token {
        config = config.auth_header(token.expose());
    }
    Ok(StreamableHttpClientTransport::with_client(client, config))
}

/// The token for a server that is reached by HTTP, if it has one.
fn token(server: &McpServer) -> Result<Option<Secret>, KeyError> {
    let read = |variable: &String| Secret::from_variable(variable, &|name| std::env::var(name).ok());
    server.token_variable.as_ref().map(read).transpose()
}

/// Values of the variables that a server is given, where they may be secrets: by their names, or because they do not stand
/// in the configuration but are inherited. A path is what its tools work on, and what they say would be of no use without it.
fn given(env: &[String]) -> impl Iterator<Item = String> {
    let values = env.iter().filter_map(|entry| match entry.split_once('=') {
        Some((name, value)) => (names_a_secret(name) || password(value).is_some()).then(|| value.to_owned()),
        None => std::env::var(entry).ok(),
    });
    // Behind the whole value, so that what is left of it elsewhere goes too: a driver repeats the password alone.
    let values = values.flat_map(|value| {
        let password = password(&value).map(str::to_owned);
        [Some(value), password].into_iter().flatten()
    });
    values.filter(|value| value.len() >= SECRET_BYTES_MIN && !Path::new(value).is_absolute())
}

/// Whether a variable of this name holds a secret.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let mut parts = name.split(['_', '-']).filter(|part| *part != "AUTHOR");
    parts.any(|part| SECRET_PARTS.contains(&part) || SECRET_WORDS.iter().any(|word| part.contains(*word)))
}

/// The password in an address such as `postgres://ada:secret@host/base`; what stands there without a name may be one too.
fn password(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("://")?;
    let (user, _) = rest.split(['/', '?', '#']).next()?.rsplit_once('@')?;
    Some(user.split_once(':').map_or(user, |(_, password)| password))
}

/// The tools of a server, page by page; a list without end is cut.
async fn list(peer: &Peer<RoleClient>) -> Result<Vec<Tool>, String> {
    let mut tools = Vec::new();
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let params = PaginatedRequestParams::default().with_cursor(cursor);
        let page = peer.list_tools(Some(params)).await;
        let page = page.map_err(|error| format!("did not list its tools: {}", told(&error)))?;
        tools.extend(page.tools);
        cursor = page.next_cursor;
        if cursor.is_none() || tools.len() >= TOOLS_MAX {
            break;
        }
    }
    tools.truncate(TOOLS_MAX);
    Ok(tools)
}
