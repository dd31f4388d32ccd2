//! Clients that are slow, silent or too many, and a server that stops.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use caxton::api::rest::RestOptions;
use serde_json::json;

use super::client::{Ask, Reply, connect, read_reply};
use super::server::Server;

const SHORT: Duration = Duration::from_millis(150);

/// Sends bytes as they are and reads one answer.
pub(crate) fn send_raw(address: SocketAddr, bytes: &[u8]) -> Option<Reply> {
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    read_reply(&mut stream, false)
}

/// Reads until the server closes; whether it did so without a byte.
fn closed_silently(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    rest.is_empty()
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_given_up() {
    let server = Server::with(RestOptions { body_timeout: SHORT, ..RestOptions::default() });
    let head = "POST /api/v1/memory/entities HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{\"entity_name\"";
    let reply = send_raw(server.address, head.as_bytes()).unwrap();
    assert_eq!(reply.header("connection"), Some("close"));
    reply.problem(408, "BODY_TIMEOUT");
    server.get("/health").expect(200);
}

#[test]
fn a_body_that_breaks_off_writes_nothing() {
    let server = Server::start();
    let head = server.engine.log().head().seq;
    let mut stream = connect(server.address);
    let text = "POST /api/v1/memory/entities HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 1000\r\n\r\n{\"entity_name\": \"a\", \"entity_type\": \"T\"}";
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let reply = read_reply(&mut stream, false);
    assert!(reply.is_none_or(|reply| reply.status == 400));
    server.get("/health").expect(200);
    assert_eq!(server.engine.log().head().seq, head);
}

#[test]
fn a_client_that_says_nothing_is_closed() {
    let server = Server::with(RestOptions { connection_timeout: SHORT, ..RestOptions::default() });
    assert!(closed_silently(&mut connect(server.address)));
    let mut half = connect(server.address);
    half.write_all(b"GET /api/v1/health HTT").unwrap();
    closed_silently(&mut half);
}

#[test]
fn a_connection_that_is_idle_is_closed() {
    let server = Server::with(RestOptions { keep_alive_timeout: SHORT, ..RestOptions::default() });
    let mut idle = connect(server.address);
    idle.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut idle, false).unwrap().status, 200);
    assert!(closed_silently(&mut idle));
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let server = Server::start();
    let mut stream = connect(server.address);
    for _ in 0..3 {
        stream.write_all(b"GET /api/v1/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(read_reply(&mut stream, false).unwrap().status, 200);
    }
    let bodies = json!({"entity_name": "a", "entity_type": "T"}).to_string();
    let text = format!(
        "POST /api/v1/memory/entities HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{bodies}",
        bodies.len()
    );
    stream.write_all(text.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream, false).unwrap().status, 201);
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let server = Server::with(RestOptions { request_buffer_bytes: 8_192, ..RestOptions::default() });
    let text =
        format!("GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(20_000));
    let reply = send_raw(server.address, text.as_bytes());
    assert!(reply.is_none_or(|reply| reply.status == 431));
    server.get("/health").expect(200);
}

#[test]
fn a_connection_too_many_is_told_so() {
    let server = Server::with(RestOptions { connections_max: 2, ..RestOptions::default() });
    let mut held: Vec<TcpStream> = (0..2).map(|_| connect(server.address)).collect();
    for stream in &mut held {
        stream.write_all(b"GET /api/v1/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(read_reply(stream, false).unwrap().status, 200);
    }
    let reply = Ask::new(server.address, "GET", "/api/v1/health").send();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert_eq!(reply.json()["code"], "OVERLOADED");
    drop(held);
    // The places are free when the server has noticed that the others left.
    while Ask::new(server.address, "GET", "/api/v1/health").send().status != 200 {}
}

#[test]
fn an_answer_that_takes_too_long_is_a_timeout() {
    let server = Server::with(RestOptions { request_timeout: SHORT, ..RestOptions::default() });
    server.get("/memory/entities?agent_id=ada&min_seq=999").problem(504, "TIMEOUT");
}

#[test]
fn a_stopping_server_finishes_what_it_began() {
    let mut server = Server::start();
    let mut idle = connect(server.address);
    idle.write_all(b"GET /api/v1/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_reply(&mut idle, false).unwrap().status, 200);

    let body = json!({"entity_name": "a", "entity_type": "T"}).to_string();
    let (first, second) = body.split_at(10);
    let head = format!(
        "POST /api/v1/memory/entities HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut under_way = connect(server.address);
    under_way.write_all(head.as_bytes()).unwrap();
    // The server asks for the body: so the request is under way.
    assert_eq!(read_reply(&mut under_way, true).unwrap().status, 100);
    under_way.write_all(first.as_bytes()).unwrap();
    server.begin_stop();
    // The idle connection is closed, which shows that stopping has begun.
    assert!(closed_silently(&mut idle));
    under_way.write_all(second.as_bytes()).unwrap();
    let reply = read_reply(&mut under_way, false).unwrap();
    assert_eq!(reply.status, 201, "{}", String::from_utf8_lossy(&reply.body));
    server.stop();
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn a_request_that_does_not_end_does_not_hold_up_the_end() {
    let mut server = Server::with(RestOptions { drain_timeout: SHORT, ..RestOptions::default() });
    let mut stream = connect(server.address);
    let head = "POST /api/v1/memory/entities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\
                Expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(read_reply(&mut stream, true).unwrap().status, 100);
    server.stop();
}

#[test]
fn an_engine_that_has_stopped_is_unavailable() {
    let server = Server::start();
    server.engine.stop();
    let body = json!({"entity_name": "a", "entity_type": "T"});
    let reply = server.post("/memory/entities", &body);
    assert_eq!(reply.header("retry-after"), Some("5"));
    reply.problem(503, "STOPPING");
    server.get("/ready").problem(503, "STOPPING");
}
