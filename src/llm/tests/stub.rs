//! A server that says what it was told to, byte for byte, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with one request.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// What is sent, in pieces that arrive one after the other.
    pub(super) parts: Vec<Vec<u8>>,
    /// Whether the connection then stays open without a word; else it is closed.
    pub(super) hangs: bool,
}

impl Reply {
    /// A whole answer.
    pub(super) fn of(status: &str, headers: &str, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        Self { parts: vec![head.into_bytes(), body.as_bytes().to_vec()], hangs: false }
    }

    pub(super) fn json(body: &str) -> Self {
        Self::of("200 OK", "Content-Type: application/json\r\n", body)
    }

    /// A stream that is cut into pieces of `size` bytes and ends with the connection.
    pub(super) fn stream(body: &str, size: usize) -> Self {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n".to_vec();
        let parts = std::iter::once(head).chain(body.as_bytes().chunks(size).map(<[u8]>::to_vec));
        Self { parts: parts.collect(), hangs: false }
    }

    pub(super) fn silence() -> Self {
        Self { parts: Vec::new(), hangs: true }
    }

    pub(super) fn then_hangs(mut self) -> Self {
        self.hangs = true;
        self
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) head: String,
    pub(super) body: Value,
}

/// The server. Replies are given in order, the last one again and again.
pub(super) struct Stub {
    pub(super) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Stub {
    pub(super) async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let server = tokio::spawn(async move {
            let mut open = Vec::new();
            for number in 0.. {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                let Some(request) = read(&mut stream).await else { continue };
                seen.lock().unwrap().push(request);
                let reply = replies.get(number).or(replies.last()).unwrap().clone();
                for part in &reply.parts {
                    // The client may have heard enough.
                    if stream.write_all(part).await.is_err() || stream.flush().await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                if reply.hangs {
                    open.push(stream);
                }
            }
        });
        Self { url, requests, server }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4_096];
        let count = stream.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
        });
        if body.len() >= length.unwrap_or(0) {
            let body = serde_json::from_str(body).unwrap_or_default();
            return Some(Request { head: head.to_owned(), body });
        }
    }
}
