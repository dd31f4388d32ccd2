//! Our own door: HTTP/1.1 with keep-alive, one message a request or a hundred.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use crate::client::Wire;
use crate::payload::{AGENTS, Payloads};
use crate::server::{Server, get, post};

/// Messages in a body of many.
pub(crate) const MANY: usize = 100;

/// How messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    Array,
    Lines,
    /// As `Array`, to a door that does not read it.
    Unread,
}

/// Starts the server over an empty directory and registers everybody; each agent has a conversation.
pub(crate) fn start(dir: &Path) -> Server {
    let config = dir.join("caxton.yaml");
    std::fs::write(&config, "http_server: {max_connections: 4096}\n").unwrap();
    let data = dir.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let server = Server::start(&data, &["--keyword-only", "--config", config.to_str().unwrap()]);
    for agent in 0..AGENTS {
        let (status, answer) =
            post(server.base(), "/api/v1/agents", &json!({"agent_id": name(agent)})).unwrap();
        assert_eq!(status, 201, "{answer}");
        let open = json!({"agent_id": name(agent), "conversation_id": conversation(agent)});
        let (status, answer) = post(server.base(), "/api/v1/conversations", &open).unwrap();
        assert_eq!(status, 201, "{answer}");
    }
    server
}

/// Where the log ends.
pub(crate) fn head(server: &Server) -> u64 {
    get(server.base(), "/api/v1/log/head").unwrap().1["seq"].as_u64().unwrap()
}

fn name(agent: usize) -> String {
    format!("agent-{agent:04}")
}

fn conversation(agent: usize) -> String {
    format!("conversation-{agent:04}")
}

pub(crate) struct Http {
    payloads: Payloads,
    shape: Shape,
    body: Vec<u8>,
    head: String,
}

impl Http {
    pub(crate) fn new(payloads: Payloads, shape: Shape) -> Self {
        Self { payloads, shape, body: Vec::new(), head: String::new() }
    }

    fn message(&mut self) {
        let agent = self.payloads.agent();
        let (sender, receiver) = (name(agent), name((agent + 1) % AGENTS));
        let conversation = conversation(agent);
        for part in [
            "{\"performative\":\"INFORM\",\"sender\":\"",
            &sender,
            "\",\"receiver\":\"",
            &receiver,
            "\",\"conversation_id\":\"",
            &conversation,
            "\",\"content\":\"",
        ] {
            self.body.extend_from_slice(part.as_bytes());
        }
        self.body.extend_from_slice(self.payloads.text());
        self.body.extend_from_slice(b"\"}");
    }
}

impl Wire for Http {
    fn request(&mut self, out: &mut Vec<u8>) {
        self.body.clear();
        let (path, media) = match self.shape {
            Shape::One => {
                self.message();
                ("/messages", "application/json")
            }
            Shape::Array | Shape::Unread => {
                self.body.extend_from_slice(b"{\"messages\":[");
                for index in 0..MANY {
                    if index > 0 {
                        self.body.push(b',');
                    }
                    self.message();
                }
                self.body.extend_from_slice(b"]}");
                let unread = self.shape == Shape::Unread;
                (if unread { "/messages/unread" } else { "/messages/batch" }, "application/json")
            }
            Shape::Lines => {
                for _ in 0..MANY {
                    self.message();
                    self.body.push(b'\n');
                }
                ("/messages", "application/x-ndjson")
            }
        };
        self.head.clear();
        let length = self.body.len();
        write!(
            self.head,
            "POST /api/v1{path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media}\r\n\
             content-length: {length}\r\n\r\n"
        )
        .unwrap();
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(&self.body);
    }

    fn answered(&mut self, input: &mut Vec<u8>, _out: &mut Vec<u8>) -> bool {
        let Some(end) = find(input, b"\r\n\r\n") else { return false };
        let good = input.starts_with(b"HTTP/1.1 20");
        let head = &input[..end];
        let whole = match find(head, b"content-length: ") {
            Some(at) => {
                let digits = head[at + 16..].iter().take_while(|byte| byte.is_ascii_digit());
                let length = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
                input.len() >= end + 4 + length
            }
            // One request is under way: the last chunk is the end of what there is.
            None => input.ends_with(b"\r\n0\r\n\r\n"),
        };
        assert!(good || !whole, "{}", String::from_utf8_lossy(input));
        if whole {
            input.clear();
        }
        whole
    }
}

/// Where `wanted` begins.
pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
