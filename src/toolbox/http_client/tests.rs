//! Requests to servers on this machine, which stand for the public network where a test is about the rest.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::toolbox::stub::{Asked, Reply, Server, caller, reply};

/// A client for which 127.0.0.1 is public, with names of its own.
fn client(names: &'static [(&'static str, &'static [&'static str])]) -> HttpClient {
    let next = Arc::new(AtomicUsize::new(0));
    let look_up: LookUp = Arc::new(move |host| {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        let found = names.iter().find(|(name, _)| *name == host).map(|(_, addresses)| *addresses);
        Box::pin(async move {
            let addresses = found.ok_or_else(|| std::io::Error::other("no such host"))?;
            // `then` stands between the answer to the first look-up and the answer to later ones.
            let mut answers = addresses.split(|text| *text == "then");
            let first = answers.next().unwrap();
            let answer = if turn == 0 { first } else { answers.next().unwrap_or(first) };
            Ok(answer.iter().map(|text| text.parse::<IpAddr>().unwrap()).collect())
        })
    });
    HttpClient::with(look_up, Reach::Stubbed)
}

fn permissions(hosts: &[&str]) -> Permissions {
    let allowed_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    Permissions { allowed_hosts, ..caller().permissions }
}

async fn ask(client: &HttpClient, permissions: &Permissions, arguments: Value) -> Result<Value, ToolError> {
    let caller = Caller { permissions: permissions.clone(), ..caller() };
    let text = client.call(&caller, NAME, &arguments).await?;
    assert!(text.len() <= permissions.http_bytes_max, "{} bytes", text.len());
    Ok(serde_json::from_str(&text).unwrap())
}

#[track_caller]
fn refused(result: &Result<Value, ToolError>, words: &str) {
    assert!(
        matches!(result, Err(ToolError::Refused(reason)) if reason.contains(words)),
        "{words}: {result:?}"
    );
}

#[track_caller]
fn failed(result: &Result<Value, ToolError>, words: &str) {
    assert!(
        matches!(result, Err(ToolError::Failed(reason)) if reason.contains(words)),
        "{words}: {result:?}"
    );
}

fn ok(_: &Asked) -> Reply {
    reply(200, &[("content-type", "text/plain"), ("set-cookie", "secret=1")], b"hello")
}

#[tokio::test]
async fn a_request_goes_out_as_it_was_asked_and_the_answer_comes_back() {
    let server = Server::start(ok).await;
    let arguments = json!({
        "url": server.url("/a?b=c"), "method": "post", "headers": {"X-Api-Key": "k"}, "body": {"n": 1},
    });
    let answer = ask(&client(&[]), &permissions(&["127.0.0.1"]), arguments).await.unwrap();
    assert_eq!(
        (&answer["status"], &answer["body"], &answer["truncated"]),
        (&json!(200), &json!("hello"), &json!(false))
    );
    assert_eq!(answer["headers"], json!({"content-type": "text/plain", "content-length": "5"}), "no cookies");
    let asked = server.asked();
    assert_eq!((asked[0].line.as_str(), asked[0].body.as_str()), ("POST /a?b=c", "{\"n\":1}"));
    assert_eq!(
        (asked[0].header("x-api-key"), asked[0].header("content-type")),
        (Some("k"), Some("application/json"))
    );
}

#[tokio::test]
async fn a_host_that_is_not_allowed_is_never_asked() {
    let server = Server::start(ok).await;
    let (port, url) = (server.address.port(), server.url("/"));
    let other = format!("127.0.0.1:{}", port ^ 1);
    for hosts in [&[][..], &["example.com"], &["*.0.0.1"], &[other.as_str()]] {
        refused(&ask(&client(&[]), &permissions(hosts), json!({"url": url})).await, "not among the hosts");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn an_address_of_this_machine_is_refused_in_every_spelling() {
    let server = Server::start(ok).await;
    let port = server.address.port();
    let client = HttpClient::with(
        client(&[("loop.test", &["127.0.0.1"]), ("six.test", &["::1"])]).look_up,
        Reach::Public,
    );
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "loop.test",
        "LOOP.test",
        "loop.test.",
        "six.test",
        "169.254.169.254",
        "10.0.0.1",
    ] {
        let url = format!("http://{host}:{port}/");
        let result = ask(&client, &permissions(&["*"]), json!({"url": url})).await;
        if host == "loop.test." {
            assert!(result.is_err(), "{host}");
        } else {
            refused(&result, "is at");
        }
    }
    assert!(server.asked().is_empty());
    let system = HttpClient::new();
    let url = format!("http://localhost:{port}/");
    refused(&ask(&system, &permissions(&["localhost"]), json!({"url": url})).await, "localhost is at");
    let private = Permissions { private_addresses: true, ..permissions(&["localhost"]) };
    assert_eq!(ask(&system, &private, json!({"url": url})).await.unwrap()["status"], json!(200));
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_each_time() {
    let server = Server::start(ok).await;
    let url = format!("http://rebind.test:{}/", server.address.port());
    let client = client(&[("rebind.test", &["127.0.0.1", "then", "10.0.0.1"])]);
    let permissions = permissions(&["rebind.test"]);
    assert_eq!(ask(&client, &permissions, json!({"url": url})).await.unwrap()["status"], json!(200));
    refused(&ask(&client, &permissions, json!({"url": url})).await, "rebind.test is at 10.0.0.1");
}

#[tokio::test]
async fn of_several_addresses_only_those_within_reach_are_asked() {
    let server = Server::start(ok).await;
    let url = format!("http://mixed.test:{}/", server.address.port());
    let client = client(&[("mixed.test", &["127.0.0.2", "169.254.169.254", "127.0.0.1"])]);
    let answer = ask(&client, &permissions(&["mixed.test"]), json!({"url": url})).await.unwrap();
    assert_eq!(answer["body"], json!("hello"));
}

#[tokio::test]
async fn a_redirect_is_checked_like_the_first_request() {
    for (to, words) in [
        ("http://10.0.0.1/", "10.0.0.1 is at 10.0.0.1"),
        ("http://[::1]:80/", "[::1] is at ::1"),
        ("http://169.254.169.254/latest/meta-data/", "a metadata service"),
        ("http://inside.test/", "inside.test is at 192.168.0.1"),
        ("//other.example/", "other.example:80 is not among the hosts"),
        ("file:///etc/passwd", "no plain HTTP URL"),
        ("http://user:pass@127.0.0.1/", "no plain HTTP URL"),
        ("gopher://127.0.0.1/", "no plain HTTP URL"),
    ] {
        let server = Server::start(move |_| reply(302, &[("location", to)], b"")).await;
        let client = client(&[("inside.test", &["192.168.0.1"])]);
        let permissions = permissions(&["127.0.0.1", "10.0.0.1", "[::1]", "169.254.169.254", "inside.test"]);
        let result = ask(&client, &permissions, json!({"url": server.url("/?key=secret")})).await;
        failed(&result, words);
        assert!(!result.unwrap_err().to_string().contains("secret"), "a query may hold a key");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn redirects_without_end_end_at_the_limit() {
    let server = Server::start(|asked| {
        let turn: usize = asked.line.trim_start_matches("GET /").parse().unwrap();
        reply(307, &[("location", &format!("/{}", turn + 1))], b"")
    })
    .await;
    let permissions = permissions(&["127.0.0.1"]);
    failed(&ask(&client(&[]), &permissions, json!({"url": server.url("/0")})).await, "more than 3 redirects");
    assert_eq!(server.asked().len(), 4);
    let none = Permissions { redirects_max: 0, ..permissions };
    failed(&ask(&client(&[]), &none, json!({"url": server.url("/0")})).await, "more than 0 redirects");
}

#[tokio::test]
async fn credentials_stay_with_their_host() {
    let far = Server::start(ok).await;
    let target = far.url("/far");
    let near = Server::start(move |asked| match asked.line.as_str() {
        "GET /start" => reply(302, &[("location", "/near")], b""),
        _ => reply(302, &[("location", &target)], b""),
    })
    .await;
    let headers = json!({
        "Authorization": "Bearer t", "Cookie": "c=1", "X-Api-Key": "k", "Accept": "text/plain",
    });
    let arguments = json!({"url": near.url("/start"), "headers": headers});
    let answer = ask(&client(&[]), &permissions(&["127.0.0.1"]), arguments).await.unwrap();
    assert_eq!(answer["redirects"], json!([near.url("/start"), near.url("/near")]));
    let same = &near.asked()[1];
    assert_eq!((same.header("authorization"), same.header("x-api-key")), (Some("Bearer t"), Some("k")));
    let other = &far.asked()[0];
    for name in ["authorization", "cookie", "x-api-key", "referer"] {
        assert_eq!(other.header(name), None, "{name}");
    }
    assert_eq!(other.header("accept"), Some("text/plain"));
}

#[tokio::test]
async fn a_redirect_keeps_or_drops_the_body_as_its_status_says() {
    for (status, then, body) in
        [(301, "GET", ""), (302, "GET", ""), (303, "GET", ""), (307, "POST", "b"), (308, "POST", "b")]
    {
        let server = Server::start(move |asked| match asked.line.as_str() {
            "POST /" => reply(status, &[("location", "/next")], b""),
            _ => reply(200, &[], b""),
        })
        .await;
        let arguments = json!({"url": server.url("/"), "method": "POST", "body": "b"});
        ask(&client(&[]), &permissions(&["127.0.0.1"]), arguments).await.unwrap();
        let last = server.asked().pop().unwrap();
        assert_eq!((last.line, last.body), (format!("{then} /next"), body.to_owned()), "{status}");
    }
}

#[tokio::test]
async fn fifty_megabytes_are_cut_to_what_the_agent_may_have() {
    let text = Server::start(|_| reply(200, &[], "ä\"\n\u{1}".repeat(10_000_000).as_bytes())).await;
    let permissions = permissions(&["127.0.0.1"]);
    let answer = ask(&client(&[]), &permissions, json!({"url": text.url("/")})).await.unwrap();
    let body = answer["body"].as_str().unwrap();
    assert!(answer["truncated"] == json!(true) && body.len() > 10_000, "{}", body.len());
    let binary = Server::start(|_| reply(200, &[], &vec![0xff; 50_000_000])).await;
    let answer = ask(&client(&[]), &permissions, json!({"url": binary.url("/")})).await.unwrap();
    assert!(
        answer["truncated"] == json!(true) && answer["binary_bytes"].is_u64() && answer["body"].is_null()
    );
    let none = Permissions { http_bytes_max: 400, ..permissions };
    assert!(ask(&client(&[]), &none, json!({"url": text.url("/")})).await.is_ok());
}

#[tokio::test]
async fn what_is_called_text_is_one_in_every_charset() {
    let latin = b"caf\xe9 \x80";
    for (kind, body) in [
        ("text/html; charset=ISO-8859-1", Some("café \u{80}")),
        ("text/html; x=y; charset=\"iso-8859-1\"", Some("café \u{80}")),
        ("application/xml; charset=windows-1252", Some("caf\u{fffd} \u{fffd}")),
        ("text/plain", Some("caf\u{fffd} \u{fffd}")),
        ("image/png", None),
    ] {
        let server = Server::start(move |_| reply(200, &[("content-type", kind)], latin)).await;
        let answer = ask(&client(&[]), &permissions(&["127.0.0.1"]), json!({"url": server.url("/")})).await;
        let answer = answer.unwrap();
        assert_eq!((answer["body"].as_str(), &answer["truncated"]), (body, &json!(false)), "{kind}");
        assert_eq!(answer["binary_bytes"].is_u64(), body.is_none(), "{kind}");
    }
    let zeros = Server::start(|_| reply(200, &[("content-type", "text/plain")], b"\0\xff")).await;
    let answer = ask(&client(&[]), &permissions(&["127.0.0.1"]), json!({"url": zeros.url("/")})).await;
    assert_eq!(answer.unwrap()["binary_bytes"], json!(2));
}

#[tokio::test]
async fn a_request_ends_at_the_time_that_the_file_gives_it() {
    let server = Server::start(|_| Reply::Silence).await;
    let limit = Duration::from_millis(20);
    let permissions = Permissions { http_timeout: Some(limit), ..permissions(&["127.0.0.1"]) };
    let result = ask(&client(&[]), &permissions, json!({"url": server.url("/")})).await;
    assert_eq!(result, Err(ToolError::Timeout(limit)));
}

#[tokio::test]
async fn an_answer_that_is_no_http_or_ends_early_is_a_failure() {
    let many = "x-a: y\r\n".repeat(500);
    for bytes in [
        "garbage\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        String::new(),
    ] {
        let server = Server::start(move |_| Reply::Bytes(bytes.clone().into_bytes())).await;
        let result =
            ask(&client(&[]), &permissions(&["127.0.0.1"]), json!({"url": server.url("/?key=secret")})).await;
        let Err(ToolError::Failed(reason)) = result else { panic!("{result:?}") };
        assert!(!reason.contains("secret"), "{reason}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_arguments_is_named() {
    let many: serde_json::Map<String, Value> = (0..33).map(|n| (format!("x-{n}"), json!("y"))).collect();
    let url = "http://127.0.0.1:1/";
    for (arguments, field) in [
        (json!({}), "url"),
        (json!({"url": "nowhere"}), "url"),
        (json!({"url": "ftp://x/"}), "url"),
        (json!({"url": "file:///etc/passwd"}), "url"),
        (json!({"url": "http://user:pass@x/"}), "url"),
        (json!({"url": format!("http://x/{}", "y".repeat(9_000))}), "url"),
        (json!({"url": url, "method": "TRACE"}), "method"),
        (json!({"url": url, "method": "CONNECT"}), "method"),
        (json!({"url": url, "body": "x"}), "body"),
        (json!({"url": url, "method": "POST", "body": "x".repeat((1 << 20) + 1)}), "body"),
        (json!({"url": url, "headers": {"Host": "x"}}), "headers.Host"),
        (json!({"url": url, "headers": {"Transfer-Encoding": "chunked"}}), "headers.Transfer-Encoding"),
        (json!({"url": url, "headers": {"Proxy-Authorization": "x"}}), "headers.Proxy-Authorization"),
        (json!({"url": url, "headers": {"a b": "x"}}), "headers.a b"),
        (json!({"url": url, "headers": {"x": "a\r\nb: c"}}), "headers.x"),
        (json!({"url": url, "headers": {"x": 1}}), "headers.x"),
        (json!({"url": url, "headers": many}), "headers"),
        (json!({"url": url, "headers": "x: y"}), "headers"),
        (json!({"url": url, "proxy": "x"}), "proxy"),
    ] {
        let result = ask(&client(&[]), &permissions(&["*"]), arguments).await;
        assert!(
            matches!(&result, Err(ToolError::Arguments { field: found, .. }) if found == field),
            "{field}: {result:?}"
        );
    }
}
