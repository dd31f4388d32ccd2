//! A web server in the test: language models and websites that say what a test wants, byte for byte.

#![allow(dead_code, reason = "tests share it, each uses a part")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Connections are numbered from 1 in the order in which they were made; each has one request.
    pub(crate) number: u64,
    /// The first line and the headers.
    pub(crate) head: String,
    /// The body, null unless it is JSON.
    pub(crate) body: Value,
}

impl Request {
    /// The text of the last message of this role in a chat completion.
    pub(crate) fn last(&self, role: &str) -> &str {
        let messages = self.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let newest = messages.iter().rev().find(|message| message["role"] == role);
        newest.and_then(|message| message["content"].as_str()).unwrap_or_default()
    }

    /// Which request of its turn it is, from 1.
    pub(crate) fn step(&self) -> u64 {
        let messages = self.body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        1 + messages.iter().filter(|message| message["role"] == "assistant").count() as u64
    }
}

/// What is done with a request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// What is written.
    bytes: Vec<u8>,
    /// Whether the connection then stays open until the other side has had enough.
    hangs: bool,
}

impl Reply {
    /// A whole answer.
    pub(crate) fn of(status: u16, headers: &str, body: &[u8]) -> Self {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        Self { bytes: [head.as_bytes(), body].concat(), hangs: false }
    }

    /// JSON with a status.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::of(status, "content-type: application/json\r\n", body.to_string().as_bytes())
    }

    /// Nothing, for as long as the other side waits.
    pub(crate) const fn silence() -> Self {
        Self { bytes: Vec::new(), hangs: true }
    }

    /// These bytes, and the end of the connection.
    pub(crate) fn raw(bytes: &str) -> Self {
        Self { bytes: bytes.as_bytes().to_vec(), hangs: false }
    }

    /// A chat completion that says a text.
    pub(crate) fn says(text: &str) -> Self {
        let message = json!({"role": "assistant", "content": text});
        Self::completion(&message, "stop")
    }

    /// A chat completion that calls a tool.
    pub(crate) fn calls(id: &str, tool: &str, arguments: &Value) -> Self {
        let function = json!({"name": tool, "arguments": arguments.to_string()});
        let call = json!({"id": id, "type": "function", "function": function});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        Self::completion(&message, "tool_calls")
    }

    fn completion(message: &Value, reason: &str) -> Self {
        let choice = json!({"index": 0, "message": message, "finish_reason": reason});
        Self::json(200, &json!({"object": "chat.completion", "model": "m", "choices": [choice]}))
    }
}

/// A running server; it ends when dropped.
pub(crate) struct Web {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Web {
    /// Starts a server on a free port. `answer` is called on a thread a connection.
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let (ending, answer) = (Arc::clone(&ends), Arc::new(answer));
        let accepting = std::thread::spawn(move || {
            for number in 1.. {
                let Ok((stream, _)) = listener.accept() else { return };
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || serve(stream, number, &*answer));
            }
        });
        Self { address, ends, accepting: Some(accepting) }
    }

    /// The address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // Wakes who accepts; it may have ended already.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(mut stream: TcpStream, number: u64, answer: &(dyn Fn(&Request) -> Reply + Sync)) {
    let Some(request) = read(&mut stream, number) else { return };
    let reply = answer(&request);
    // The other side may be gone, or have heard enough.
    let _ = stream.write_all(&reply.bytes);
    if reply.hangs {
        let _ = stream.read(&mut [0; 64]);
    }
}

fn read(stream: &mut TcpStream, number: u64) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut more = |bytes: &mut Vec<u8>| {
        let mut buffer = [0; 4_096];
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
        Some(())
    };
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        more(&mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
    });
    while bytes.len() < end + 4 + length.unwrap_or(0) {
        more(&mut bytes)?;
    }
    let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or_default();
    Some(Request { number, head, body })
}
