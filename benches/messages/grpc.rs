//! `umadb.v1.DCB/Append` over HTTP/2, as little of it as one call at a time on a connection needs.

use crate::client::Wire;
use crate::payload::{BYTES, Payloads};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const RESET: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const FRAME_HEAD: usize = 9;

pub(crate) struct Append {
    payloads: Payloads,
    stream: u32,
    /// The answer's message has come; a refusal has none.
    accepted: bool,
    headers: Vec<u8>,
    event: Vec<u8>,
}

impl Append {
    pub(crate) fn new(payloads: Payloads) -> Self {
        let mut headers = vec![0x83, 0x86];
        // Names out of the static table (:path, :authority, content-type), values as they are, nothing indexed.
        for (name, value) in [
            (&[0x04][..], "/umadb.v1.DCB/Append"),
            (&[0x01], "localhost"),
            (&[0x0f, 0x10], "application/grpc"),
            (&[0x00, 2, b't', b'e'], "trailers"),
        ] {
            headers.extend_from_slice(name);
            headers.push(value.len() as u8);
            headers.extend_from_slice(value.as_bytes());
        }
        Self { payloads, stream: 1, accepted: false, headers, event: Vec::new() }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A field of bytes, as protocol buffers have it.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn length(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Wire for Append {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frame(out, SETTINGS, 0, 0, &[]);
        // Room for every answer of a run.
        frame(out, WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
        false
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        self.event.clear();
        let tag = format!("agent-{:04}", self.payloads.agent());
        field(&mut self.event, 1, b"MessageSent");
        field(&mut self.event, 2, tag.as_bytes());
        field(&mut self.event, 3, self.payloads.text());
        let mut message = Vec::with_capacity(BYTES + 128);
        message.extend_from_slice(&[0; 5]);
        field(&mut message, 1, &self.event);
        let bytes = (message.len() - 5) as u32;
        message[1..5].copy_from_slice(&bytes.to_be_bytes());
        self.accepted = false;
        frame(out, HEADERS, END_HEADERS, self.stream, &self.headers);
        frame(out, DATA, END_STREAM, self.stream, &message);
    }

    fn answered(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        let (mut at, mut done) = (0, false);
        while let Some(head) = input.get(at..at + FRAME_HEAD) {
            let bytes = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let Some(payload) = input.get(at + FRAME_HEAD..at + FRAME_HEAD + bytes) else { break };
            match kind {
                DATA => self.accepted |= bytes > 5,
                SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
                GO_AWAY | RESET => panic!("the server gave up: {payload:?}"),
                _ => (),
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                assert!(self.accepted, "refused: {}", String::from_utf8_lossy(payload));
                self.stream += 2;
                done = true;
            }
            at += FRAME_HEAD + bytes;
        }
        input.drain(..at);
        done
    }
}
