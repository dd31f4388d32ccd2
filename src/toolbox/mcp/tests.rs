//! Servers that behave and servers that do not: by standard input and output a shell script, by HTTP a stub.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::time::{Duration, Instant};

use serde_json::json;

use super::connection::{Health, told};
use super::*;

use crate::toolbox::stub::{Asked, Reply, Server, caller, reply};

/// A server of MCP in the shell: it answers, hangs, talks nonsense, says too much or dies, as the tool's name says.
const SCRIPT: &str = r#"
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
text() { answer '{"content":[{"type":"text","text":"'"$1"'"}]}'; }
tool() { printf '{"name":"%s","description":"does %s","inputSchema":{"type":"object"}}' "$1" "$1"; }
echo 'started' >> "$STARTS"
echo "$$" > "$STARTS.pid"
echo 'hello from standard error' >&2
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case "$line" in
    *'"initialize"'*)
      answer '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"stub","version":"1"}}' ;;
    *'"tools/list"'*)
      answer '{"tools":['"$(tool echo),$(tool say.more),$(tool hang),$(tool die),$(tool garble),$(tool big),$(tool huge),$(tool sorry),$(tool env)"']}' ;;
    *'"name":"echo"'*) text 'echoed' ;;
    *'"name":"say.more"'*) text 'more' ;;
    *'"name":"env"'*) text "$GIVEN $CARGO_PKG_NAME $CARGO_MANIFEST_DIR" ;;
    *'"name":"die"'*) exit 3 ;;
    *'"name":"garble"'*) echo 'this is no JSON'; echo '{"jsonrpc":"2.0","id":'; echo '[]'; echo '{"a":1}' ;;
    *'"name":"big"'*) text "$(head -c 200000 /dev/zero | tr '\0' x)" ;;
    *'"name":"huge"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"' "$id"
      head -c 50000000 /dev/zero | tr '\0' x; echo '"}]}}' ;;
    *'"name":"sorry"'*) answer '{"isError":true,"content":[{"type":"text","text":"no luck"}]}' ;;
  esac
done
"#;

/// The script as a server, and the directory in which it notes its starts.
fn script(timeout: Duration) -> (McpTools, tempfile::TempDir) {
    written(SCRIPT, timeout)
}

/// The same with this script.
fn written(script: &str, timeout: Duration) -> (McpTools, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = McpServer {
        name: "stub".to_owned(),
        command: Some("sh".to_owned()),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: vec![
            format!("STARTS={}", dir.path().join("starts").display()),
            "GIVEN=given".to_owned(),
            "CARGO_PKG_NAME".to_owned(),
        ],
        timeout,
        ..McpServer::default()
    };
    (McpTools::new(server), dir)
}

fn starts(dir: &tempfile::TempDir) -> usize {
    std::fs::read_to_string(dir.path().join("starts")).map_or(0, |text| text.lines().count())
}

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(300);

async fn call(tools: &McpTools, tool: &str, timeout: Duration) -> Result<String, ToolError> {
    let caller = Caller { timeout, ..caller() };
    tools.call(&caller, tool, &json!({"x": 1})).await
}

#[track_caller]
fn failed(result: &Result<String, ToolError>, words: &str) {
    assert!(
        matches!(result, Err(ToolError::Failed(reason)) if reason.contains(words)),
        "{words}: {result:?}"
    );
}

#[tokio::test]
async fn a_server_is_started_at_its_first_use_and_its_tools_have_names_for_models() {
    let (tools, dir) = script(LONG);
    assert_eq!((tools.family().as_str(), starts(&dir)), ("mcp:stub", 0));
    let specs = tools.tools().await.unwrap();
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert!(names.contains(&"mcp__stub__echo") && names.len() == 9, "{names:?}");
    let odd = names::model_name("mcp:stub/say.more");
    assert!(names.contains(&odd.as_str()), "{names:?}");
    assert_eq!(specs[0].parameters, json!({"type": "object"}));
    for (tool, text) in [
        ("mcp:stub/echo", "echoed"),
        ("mcp__stub__echo", "echoed"),
        ("mcp:stub/say.more", "more"),
        (&odd, "more"),
    ] {
        assert_eq!(call(&tools, tool, LONG).await.as_deref(), Ok(text));
    }
    assert_eq!(starts(&dir), 1);
    let unknown = call(&tools, "mcp:stub/none", LONG).await;
    assert!(
        matches!(&unknown, Err(ToolError::Refused(reason)) if reason.contains("it has echo, say.more")),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_fails_its_call_and_is_started_again() {
    let (tools, dir) = script(LONG);
    failed(&call(&tools, "mcp:stub/die", LONG).await, "died in the middle of the call");
    assert_eq!(call(&tools, "mcp:stub/echo", LONG).await.as_deref(), Ok("echoed"));
    assert_eq!(starts(&dir), 2);
}

#[tokio::test]
async fn a_call_that_hangs_or_is_answered_with_nonsense_fails_alone() {
    let (tools, dir) = script(LONG);
    tools.tools().await.unwrap();
    for tool in ["hang", "garble"] {
        let (odd, good) = futures::future::join(
            call(&tools, &format!("mcp:stub/{tool}"), SHORT),
            call(&tools, "mcp:stub/echo", LONG),
        )
        .await;
        assert_eq!(odd, Err(ToolError::Timeout(SHORT)), "{tool}");
        assert_eq!(good.as_deref(), Ok("echoed"), "{tool}");
    }
    assert_eq!(call(&tools, "mcp:stub/echo", LONG).await.as_deref(), Ok("echoed"));
    assert_eq!(starts(&dir), 1, "the server was not touched");
}

#[tokio::test]
async fn long_results_are_cut_and_endless_ones_dropped() {
    let (tools, _dir) = script(LONG);
    let text = call(&tools, "mcp:stub/big", LONG).await.unwrap();
    let max = caller().permissions.result_bytes_max;
    assert!(text.len() <= max && text.ends_with(" of 200000 bytes]"), "{}", &text[text.len() - 60..]);
    let huge = call(&tools, "mcp:stub/huge", Duration::from_secs(3)).await;
    assert_eq!(huge, Err(ToolError::Timeout(Duration::from_secs(3))));
    assert_eq!(call(&tools, "mcp:stub/echo", LONG).await.as_deref(), Ok("echoed"));
}

#[tokio::test]
async fn an_error_of_the_tool_is_told_and_the_environment_is_only_what_was_given() {
    let (tools, _dir) = script(LONG);
    assert_eq!(call(&tools, "mcp:stub/sorry", LONG).await, Err(ToolError::Failed("no luck".to_owned())));
    assert_eq!(call(&tools, "mcp:stub/env", LONG).await.as_deref(), Ok("given caxton "));
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "so the child could have had it");
}

#[tokio::test]
async fn secrets_that_a_server_was_given_are_left_out_of_what_it_says_and_nothing_else_is() {
    let words = "$Db_Password $GITHUB_PAT_TOKEN $CARGO_PKG_DESCRIPTION \
                 $GH_PAT $DATABASE_URL hunter22pw $STARTS $TZ $ACCOUNT_ID $GIT_AUTHOR_NAME $KEY_FILE";
    let script = SCRIPT
        .replace("$GIVEN $CARGO_PKG_NAME $CARGO_MANIFEST_DIR", words)
        .replace("no luck", "no luck with '\"$Db_Password\"'");
    let (tools, dir) = written(&script, LONG);
    let mut server = tools.connection.server.clone();
    let given = [
        "Db_Password=hush-hush",
        "GITHUB_PAT_TOKEN=ghp_0123456789",
        "CARGO_PKG_DESCRIPTION",
        "GH_PAT=ghp_9876543210",
        "DATABASE_URL=postgres://u:hunter22pw@db/x",
        "TZ=Europe/Berlin",
        "ACCOUNT_ID=123456789012",
        "GIT_AUTHOR_NAME=acme-corp",
        "KEY_FILE=/run/secrets/key",
    ];
    server.env.extend(given.map(str::to_owned));
    let tools = McpTools::new(server);
    let path = dir.path().join("starts").display().to_string();
    let told = format!("… … … … … … {path} Europe/Berlin 123456789012 acme-corp /run/secrets/key");
    assert_eq!(call(&tools, "mcp:stub/env", LONG).await, Ok(told));
    let sorry = call(&tools, "mcp:stub/sorry", LONG).await;
    assert_eq!(sorry, Err(ToolError::Failed("no luck with …".to_owned())));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_is_killed_when_its_tools_are_dropped() {
    let (tools, dir) = script(LONG);
    tools.tools().await.unwrap();
    let pid = std::fs::read_to_string(dir.path().join("starts.pid")).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    // Alive: there, and no zombie.
    let alive = || std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z "));
    assert!(alive());
    drop(tools);
    while alive() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why_and_is_left_alone_for_a_while() {
    let missing = McpServer {
        name: "gone".to_owned(),
        command: Some("/nowhere/at-all".to_owned()),
        ..McpServer::default()
    };
    failed(
        &call(&McpTools::new(missing), "mcp:gone/x", LONG).await,
        "MCP server gone could not be started as",
    );
    let silent = McpServer {
        name: "mute".to_owned(),
        command: Some("cat".to_owned()),
        args: vec!["/dev/zero".to_owned()],
        timeout: SHORT,
        ..McpServer::default()
    };
    failed(
        &call(&McpTools::new(silent), "mcp:mute/x", LONG).await,
        "did not answer within 300ms of its start",
    );
    let ends =
        McpServer { name: "ends".to_owned(), command: Some("true".to_owned()), ..McpServer::default() };
    failed(&call(&McpTools::new(ends), "mcp:ends/x", LONG).await, "did not open");
}

#[tokio::test]
async fn who_comes_while_a_server_is_being_started_does_not_wait_for_it() {
    let mute = McpServer {
        name: "mute".to_owned(),
        command: Some("sh".to_owned()),
        args: ["-c", "cat > /dev/null"].map(str::to_owned).to_vec(),
        timeout: LONG,
        ..McpServer::default()
    };
    let tools = McpTools { start_patience: Duration::ZERO, ..McpTools::new(mute) };
    assert!(tokio::time::timeout(SHORT, tools.tools()).await.is_err(), "the first one waits");
    let second = tools.tools().await.map(|_| String::new());
    failed(&second, "MCP server mute has been starting for ");
}

#[tokio::test]
async fn a_server_of_another_protocol_is_refused_with_both_versions_named() {
    for version in ["1999-01-01", "2099-01-01"] {
        let (tools, _dir) = written(&SCRIPT.replace("2025-06-18", version), LONG);
        let opened = tools.tools().await.map(|_| String::new());
        failed(&opened, &format!("speaks MCP of {version}, and Caxton that of 2024-11-05, "));
    }
}

#[test]
fn errors_are_told_in_words() {
    #[derive(Debug, thiserror::Error)]
    #[error("Send message error Transport [a::B<c::D<[u8]>>] error: refused, when opening")]
    struct Typed;
    assert_eq!(told(&Typed), "Send message error refused, when opening");
    let web = McpTools::new(McpServer { url: Some("http://x/".to_owned()), ..McpServer::default() });
    assert!(web.closed().contains("it is connected to again"), "Caxton did not start it: {}", web.closed());
}

#[test]
fn rests_double_up_to_a_minute_and_success_ends_them() {
    let now = Instant::now();
    let mut health = Health::default();
    for seconds in [0, 1, 2, 4, 8, 16, 32, 60, 60] {
        health.failed(now, "did not open: nobody there");
        let rest = Duration::from_secs(seconds);
        assert!(health.gate(now + rest).is_ok(), "{seconds}");
        if seconds > 0 {
            let early = health.gate(now + Duration::from_millis(seconds * 1_000 - 1));
            let end = "(the last time it did not open: nobody there) and is tried again in 1 s";
            assert!(early.is_err_and(|reason| reason.ends_with(end)), "{seconds}");
        }
    }
    health.worked();
    assert!(health.gate(now).is_ok());
}

/// What a server of streamable HTTP answers, in JSON or as a stream of events.
fn by_http(asked: &Asked, events: bool) -> Reply {
    let message: Value = serde_json::from_str(&asked.body).unwrap_or_default();
    let result = match message["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"},
        }),
        Some("tools/list") => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
        Some("tools/call") => {
            json!({"content": [{"type": "text", "text": message["params"]["arguments"].to_string()}]})
        }
        Some(_) => return reply(202, &[], b""),
        None => return reply(405, &[], b""),
    };
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    if events {
        reply(200, &[("content-type", "text/event-stream")], format!("data: {answer}\n\n").as_bytes())
    } else {
        reply(200, &[("content-type", "application/json")], answer.as_bytes())
    }
}

fn at(server: &Server) -> McpServer {
    McpServer { name: "web".to_owned(), url: Some(server.url("/mcp")), timeout: LONG, ..McpServer::default() }
}

#[tokio::test]
async fn a_server_is_reached_by_http() {
    for events in [false, true] {
        let server = Server::start(move |asked| by_http(asked, events)).await;
        // A variable that is always there stands for one that holds a token.
        let tools =
            McpTools::new(McpServer { token_variable: Some("CARGO_PKG_NAME".to_owned()), ..at(&server) });
        assert_eq!(call(&tools, "mcp:web/echo", LONG).await.as_deref(), Ok("{\"x\":1}"), "events: {events}");
        let asked = server.asked();
        let posts: Vec<&Asked> = asked.iter().filter(|asked| asked.line == "POST /mcp").collect();
        assert!(
            posts.len() >= 4
                && posts.iter().all(|post| post.header("authorization") == Some("Bearer caxton"))
        );
    }
}

#[tokio::test]
async fn a_server_by_http_that_redirects_fails_or_hangs_fails_its_call() {
    let far = Server::start(|asked| by_http(asked, false)).await;
    let target = far.url("/mcp");
    let redirects = Server::start(move |_| reply(307, &[("location", &target)], b"")).await;
    let opened = call(&McpTools::new(at(&redirects)), "mcp:web/echo", LONG).await;
    failed(&opened, "MCP server web did not open");
    assert!(far.asked().is_empty(), "a server may not pass its token on");
    let broken = Server::start(|asked| {
        if asked.body.contains("tools/call") { reply(500, &[], b"<html>") } else { by_http(asked, false) }
    })
    .await;
    let tools = McpTools::new(at(&broken));
    failed(&call(&tools, "mcp:web/echo", LONG).await, "MCP server web failed: ");
    assert_eq!(tools.tools().await.unwrap().len(), 1, "the server is still there");
    let hangs =
        Server::start(
            |asked| {
                if asked.body.contains("tools/call") { Reply::Silence } else { by_http(asked, false) }
            },
        )
        .await;
    let tools = McpTools::new(at(&hangs));
    tools.tools().await.unwrap();
    assert_eq!(call(&tools, "mcp:web/echo", SHORT).await, Err(ToolError::Timeout(SHORT)));
    let nobody = McpServer { url: Some("http://127.0.0.1:1/mcp?key=secret".to_owned()), ..at(&far) };
    let unreached = call(&McpTools::new(nobody), "mcp:web/echo", LONG).await;
    failed(&unreached, "did not open");
    let text = unreached.unwrap_err().to_string();
    assert!(!text.contains("secret"), "a query may hold a key");
    assert!(!text.contains("rmcp"), "types say nothing to people: {text}");
    let keyless = McpServer { token_variable: Some("CAXTON_TEST_UNSET".to_owned()), ..at(&far) };
    failed(&call(&McpTools::new(keyless), "mcp:web/echo", LONG).await, "the variable CAXTON_TEST_UNSET");
}

#[test]
fn a_result_is_text_and_of_the_rest_what_it_would_be() {
    let result: CallToolResult = serde_json::from_value(json!({"content": [
        {"type": "text", "text": "a"},
        {"type": "image", "data": "AAAA", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "file:///x", "name": "x"},
        {"type": "resource", "resource": {"uri": "file:///y", "text": "b"}},
    ]}))
    .unwrap();
    let text = result_text(&result, 1_000).unwrap();
    assert_eq!(text, "a\n[image/png of 4 bytes in base 64]\n[file:///x]\nb");
    let structured: CallToolResult = serde_json::from_value(json!({"structuredContent": {"a": 1}})).unwrap();
    assert_eq!(result_text(&structured, 1_000).unwrap(), "{\"a\":1}");
    assert!(result_text(&result, 10).unwrap().len() <= NOTE_BYTES_MAX);
}
