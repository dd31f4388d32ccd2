//! Tools of MCP servers, used by agents: one that works, one that dies, hangs or talks nonsense, one that never opens.

use serde_json::json;

use super::super::web::{Reply, Request, Web};
use super::{Town, file, of, provider};

/// A server of MCP in the shell: it answers, hangs, talks nonsense or dies, as the tool's name says.
const SCRIPT: &str = r#"
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
tool() { printf '{"name":"%s","description":"does %s","inputSchema":{"type":"object"}}' "$1" "$1"; }
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case "$line" in
    *'"initialize"'*)
      answer '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}' ;;
    *'"tools/list"'*) answer '{"tools":['"$(tool echo),$(tool hang),$(tool die),$(tool garble)"']}' ;;
    *'"name":"echo"'*) answer '{"content":[{"type":"text","text":"echoed"}]}' ;;
    *'"name":"die"'*) exit 3 ;;
    *'"name":"garble"'*) echo 'this is no JSON'; echo '[]' ;;
  esac
done
"#;

fn servers() -> String {
    let script = SCRIPT.replace('\n', "\n        ");
    format!(
        "agents: {{tool_call_timeout: 1m}}\nmcp_servers:\n  - name: stub\n    command: sh\n    args:\n      - -c\n      - |\n        \
         {script}\n  - name: mute\n    command: sh\n    args: [-c, 'cat > /dev/null']\n    timeout: 10m\n"
    )
}

/// A model that calls the tool that its question names, if it was offered.
fn caller() -> Web {
    Web::start(|request: &Request| {
        let tool = request.last("user");
        let offered = request.body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_offered = offered.iter().any(|one| one["function"]["name"] == tool);
        match request.step() {
            1 if is_offered => Reply::calls("c", tool, &json!({"x": 1})),
            1 => Reply::says(&format!("{tool} is not offered")),
            _ => Reply::says(&format!("it said: {}", request.last("tool"))),
        }
    })
}

#[test]
fn an_agent_uses_the_tools_of_a_server_and_outlives_what_the_server_does() {
    let model = caller();
    let limits = "resource_limits: {tool_call_timeout: 500ms, response_timeout: 1m}";
    let all = format!("tools: ['mcp:stub']\n{limits}");
    let one = "tools: ['mcp:stub/echo']\nresource_limits: {tool_call_timeout: 30s, response_timeout: 1m}";
    let agents = [("ada", file("ada", "talk", &all)), ("sue", file("sue", "echo", one))];
    let town = Town::with(&[provider("m", &model, "")], &servers(), &agents);
    for (agent, tool, words, failed) in [
        ("sue", "mcp__stub__echo", "it said: echoed", Some(false)),
        ("sue", "mcp__stub__die", "is not offered", None),
        ("ada", "mcp__stub__die", "died in the middle", Some(true)),
        ("sue", "mcp__stub__echo", "it said: echoed", Some(false)),
        ("ada", "mcp__stub__hang", "no result within", Some(true)),
        ("ada", "mcp__stub__garble", "no result within", Some(true)),
        ("sue", "mcp__stub__echo", "it said: echoed", Some(false)),
    ] {
        let sent = town.ask(agent, tool);
        let answer = town.answer(&sent);
        assert_eq!(answer["performative"], "INFORM", "{answer}");
        assert!(answer["content"].as_str().unwrap().contains(words), "{tool}: {answer}");
        let told: Vec<bool> = of(&town.turn(&sent), "turn.tool_answered", "failed")
            .iter()
            .map(|failed| failed.as_bool().unwrap())
            .collect();
        assert_eq!(told, failed.into_iter().collect::<Vec<_>>(), "{tool}");
    }
}

#[test]
fn a_server_that_never_opens_holds_up_no_other_agent() {
    let model = caller();
    let limits = "resource_limits: {memory_search_timeout: 10m, response_timeout: 20m}";
    let stuck = format!("tools: ['mcp:mute']\n{limits}");
    let agents = [("stuck", file("stuck", "wait", &stuck)), ("ada", file("ada", "talk", ""))];
    let config = format!("conversation_processing: {{batch_timeout: 200ms, batch_size: 31}}\n{}", servers());
    let town = Town::with(&[provider("m", &model, "")], &config, &agents);
    // In one batch, more of them than contexts are made at a time.
    let mut messages: Vec<_> = (0..30)
        .map(|number| json!({"performative": "REQUEST", "sender": "bob", "receiver": "stuck", "content": format!("s{number}")}))
        .collect();
    messages.push(json!({"performative": "REQUEST", "sender": "bob", "receiver": "ada", "content": "hello"}));
    let sent = town.post("/messages/batch", &json!({"messages": messages}));
    let answer = town.answer(&sent["results"][30]);
    assert_eq!(answer["content"], "hello is not offered");
    assert!(town.events("turn.context_prepared").len() == 1, "the others still wait for their tools");
}
