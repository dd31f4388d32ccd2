//! What tests of tools need: a caller, and HTTP servers on this machine that answer as a test says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caxton_events::{Seq, TurnId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Caller, Permissions};
use crate::config::MemoryScope;

/// Agent `ada` in the workspace `lab`, in the call `c1` of a turn.
pub(super) fn caller() -> Caller {
    Caller {
        agent: "ada".parse().unwrap(),
        workspace: "lab".parse().unwrap(),
        turn: TurnId::from_bytes([7; 16]),
        conversation: "talk".parse().unwrap(),
        cause: Seq(3),
        call: "c1".to_owned(),
        permissions: Permissions {
            tools: vec!["memory".to_owned(), "http_client".to_owned(), "message".to_owned()],
            redirects_max: 3,
            http_bytes_max: 64 << 10,
            result_bytes_max: 64 << 10,
            memory_results_max: 10,
            memory_writes: true,
            memory_scope: MemoryScope::Workspace,
            ..Permissions::default()
        },
        timeout: Duration::from_mins(1),
    }
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// Method and target.
    pub(super) line: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What a server does with a request.
pub(super) enum Reply {
    /// Writes this and closes.
    Bytes(Vec<u8>),
    /// Nothing, and keeps the connection.
    Silence,
}

/// A whole answer.
pub(super) fn reply(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

/// A server on this machine, until the runtime of the test ends.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(super) async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, answer) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(answer));
        let server = Self { address, asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (asked, answer) = (Arc::clone(&asked), Arc::clone(&answer));
                tokio::spawn(async move { serve(stream, &asked, &*answer).await });
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, asked: &Mutex<Vec<Asked>>, answer: &(dyn Fn(&Asked) -> Reply + Sync)) {
    let Some(request) = read(&mut stream).await else { return };
    asked.lock().unwrap().push(request.clone());
    match answer(&request) {
        Reply::Bytes(bytes) => {
            // The client may have had enough.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Reply::Silence => std::future::pending().await,
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.lines();
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let mut request = Asked { line, headers: lines.filter_map(header).collect(), body: String::new() };
    let length: usize = request.header("content-length").map_or(0, |text| text.parse().unwrap());
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    request.body = String::from_utf8(bytes[end + 4..].to_vec()).ok()?;
    Some(request)
}
