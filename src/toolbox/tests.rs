//! The toolbox over a provider that does what a test says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::http_client::HttpClient;
use super::stub::{Reply, Server, caller};
use super::{Caller, Offer, Permissions, ToolError, ToolProvider, Toolbox, Unavailable};
use crate::llm::ToolSpec;

const TIME: Duration = Duration::from_mins(1);

/// Tools that answer, hang, panic, or give more than anyone wants.
#[derive(Debug, Default)]
struct Odd {
    opened: AtomicUsize,
}

impl ToolProvider for Odd {
    fn tools(&self) -> BoxFuture<'_, Result<Vec<ToolSpec>, ToolError>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let spec = |name: &str| ToolSpec {
            name: name.to_owned(),
            description: String::new(),
            parameters: json!({"type": "object"}),
        };
        Box::pin(async move { Ok(vec![spec("mcp__odd__echo"), spec("mcp__odd__hang")]) })
    }

    fn call<'a>(
        &'a self,
        _: &'a Caller,
        tool: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(async move {
            match tool.trim_start_matches("mcp:odd/").trim_start_matches("mcp__odd__") {
                "echo" => Ok(arguments.to_string()),
                "hang" => std::future::pending().await,
                "huge" => Ok("x".repeat(50_000_000)),
                "panic" => panic!("as a test wants it"),
                other => Err(ToolError::Failed(other.to_owned())),
            }
        })
    }
}

/// A provider that does not open, or not in time.
#[derive(Debug)]
enum Dead {
    Fails,
    Hangs,
}

impl ToolProvider for Dead {
    fn tools(&self) -> BoxFuture<'_, Result<Vec<ToolSpec>, ToolError>> {
        Box::pin(async {
            match self {
                Self::Fails => Err(ToolError::Failed("is dead".to_owned())),
                Self::Hangs => std::future::pending().await,
            }
        })
    }

    fn call<'a>(
        &'a self,
        _: &'a Caller,
        _: &'a str,
        _: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(async { Err(ToolError::Failed("is dead".to_owned())) })
    }
}

fn allowed(tools: &[&str]) -> Caller {
    let caller = caller();
    let tools = tools.iter().map(|tool| (*tool).to_owned()).collect();
    Caller { permissions: Permissions { tools, ..caller.permissions }, ..caller }
}

fn toolbox() -> (Toolbox, Arc<Odd>) {
    let odd = Arc::new(Odd::default());
    let toolbox = Toolbox::new().with("mcp:odd", Arc::clone(&odd) as Arc<dyn ToolProvider>);
    (toolbox.with("mcp:dead", Arc::new(Dead::Fails)), odd)
}

#[track_caller]
fn refused(result: Result<String, ToolError>, words: &str) {
    let Err(ToolError::Refused(reason)) = result else { panic!("{result:?}") };
    assert!(reason.contains(words), "{reason}");
}

#[tokio::test]
async fn a_tool_is_called_under_either_of_its_names() {
    let (toolbox, _) = toolbox();
    let caller = allowed(&["mcp:odd"]);
    for name in ["mcp:odd/echo", "mcp__odd__echo"] {
        assert_eq!(toolbox.call(&caller, name, "{\"a\": 1}").await.unwrap(), "{\"a\":1}");
        assert_eq!(toolbox.call(&caller, name, " ").await.unwrap(), "{}");
    }
}

#[tokio::test]
async fn what_is_unknown_or_not_allowed_is_refused() {
    let (toolbox, _) = toolbox();
    refused(
        toolbox.call(&allowed(&["shell"]), "shell", "{}").await,
        "no tool shell; there are mcp:dead, mcp:odd",
    );
    let one = allowed(&["mcp:odd/echo"]);
    refused(
        toolbox.call(&one, "mcp:odd/hang", "{}").await,
        "may not call mcp:odd/hang; its file allows mcp:odd/echo",
    );
    refused(toolbox.call(&allowed(&[]), "mcp__odd__echo", "{}").await, "its file allows none");
    refused(toolbox.call(&one, &"x".repeat(1_000), "{}").await, "no tool xxx");
}

#[tokio::test]
async fn arguments_that_are_no_object_never_reach_the_tool() {
    let (toolbox, _) = toolbox();
    let caller = allowed(&["mcp:odd"]);
    let huge = format!("{{\"a\": \"{}\"}}", "x".repeat(2 << 20));
    for text in ["null", "[]", "\"x\"", "7", "{", "{\"a\": 1} x", &huge] {
        let result = toolbox.call(&caller, "mcp:odd/echo", text).await;
        assert!(
            matches!(&result, Err(ToolError::Arguments { field, .. }) if field == "arguments"),
            "{result:?}"
        );
    }
    let told = toolbox.call(&caller, "mcp:odd/echo", "not json").await.unwrap_err().to_string();
    assert!(told.ends_with(": not json; write {\"name\": value, …}"), "the model sees what it wrote: {told}");
}

#[tokio::test]
async fn a_tool_that_hangs_ends_at_its_time() {
    let (toolbox, _) = toolbox();
    let caller = Caller { timeout: Duration::from_millis(20), ..allowed(&["mcp:odd"]) };
    let result = toolbox.call(&caller, "mcp:odd/hang", "{}").await;
    assert_eq!(result, Err(ToolError::Timeout(Duration::from_millis(20))));
}

#[tokio::test]
async fn a_server_that_never_answers_ends_at_its_time() {
    let server = Server::start(|_| Reply::Silence).await;
    let toolbox = Toolbox::new().with("http_client", Arc::new(HttpClient::new()));
    let mut caller = Caller { timeout: Duration::from_millis(200), ..caller() };
    caller.permissions.private_addresses = true;
    caller.permissions.allowed_hosts = vec!["127.0.0.1".to_owned()];
    let arguments = json!({"url": server.url("/")}).to_string();
    let result = toolbox.call(&caller, "http_client", &arguments).await;
    assert_eq!(result, Err(ToolError::Timeout(Duration::from_millis(200))));
}

#[tokio::test]
async fn fifty_megabytes_and_a_panic_are_failures_of_their_call_alone() {
    let (toolbox, _) = toolbox();
    let caller = allowed(&["mcp:odd"]);
    let result = toolbox.call(&caller, "mcp:odd/huge", "{}").await;
    let words = "the result takes 50000000 bytes, the limit is 65536; ask for less";
    assert_eq!(result, Err(ToolError::Failed(words.to_owned())));
    let result = toolbox.call(&caller, "mcp:odd/panic", "{}").await;
    assert!(matches!(result, Err(ToolError::Failed(_))), "{result:?}");
    assert!(toolbox.call(&caller, "mcp:odd/echo", "{}").await.is_ok());
}

#[tokio::test]
async fn nothing_is_opened_before_it_is_allowed_and_asked_for() {
    let (toolbox, odd) = toolbox();
    assert!(toolbox.knows("mcp:odd/anything") && toolbox.knows("mcp__odd__x") && !toolbox.knows("mcp:none"));
    assert_eq!(toolbox.offer(&allowed(&[]).permissions, TIME).await, Offer::default());
    assert_eq!(odd.opened.load(Ordering::Relaxed), 0);
    let offer = toolbox.offer(&allowed(&["mcp:odd/echo", "mcp:dead", "mcp:none/x"]).permissions, TIME).await;
    assert_eq!(odd.opened.load(Ordering::Relaxed), 1);
    assert_eq!(offer.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["mcp__odd__echo"]);
    let missing = "there is no tool mcp:none/x; there are mcp:dead, mcp:odd";
    let unavailable =
        |name: &str, reason: &str| Unavailable { name: name.to_owned(), reason: reason.to_owned() };
    assert_eq!(offer.unavailable, [unavailable("mcp:dead", "is dead"), unavailable("mcp:none/x", missing)]);
}

#[tokio::test]
async fn a_server_that_does_not_open_in_time_is_named_and_the_others_are_there() {
    let toolbox = toolbox().0.with("mcp:slow", Arc::new(Dead::Hangs));
    let time = Duration::from_millis(20);
    let offer = toolbox.offer(&allowed(&["mcp:odd", "mcp:slow"]).permissions, time).await;
    assert_eq!(offer.tools.len(), 2);
    assert_eq!(offer.unavailable[0].reason, "no result within 20ms");
}
