//! Keys of agents: which files are agents, what holds for them, and how their turns are prepared.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::program::Program;

/// A bound against hanging for ever, not a measure.
const PATIENCE: Duration = Duration::from_mins(1);

/// An agent's file with more front matter.
fn agent(name: &str, more: &str) -> String {
    format!(
        "---\nname: {name}\nversion: 1.0.0\ncapabilities: [answering]\n{more}---\nYou answer {{{{request}}}}.\n"
    )
}

/// A server whose agents are in `DIR/own`, which it is told by its file.
fn with(config: &str, files: &[(&str, String)]) -> Program {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("own")).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join("own").join(format!("{name}.md")), text).unwrap();
    }
    Program::again(dir, config)
}

#[test]
fn agents_are_those_of_the_files_folder_up_to_its_number() {
    let files = [("ada", agent("ada", "")), ("bob", agent("bob", ""))];
    let all = with("agents: {directory: 'DIR/own'}", &files);
    assert!(all.report.contains("2 from files\n"), "{}", all.report);
    let one = with("agents: {directory: 'DIR/own', max_agents: 1}", &files);
    assert!(one.report.contains("1 from files, 1 rejected"), "{}", one.report);
}

#[test]
fn doubtful_files_are_refused_where_the_file_says_so() {
    let files = [("ada", agent("ada", "favourite_colour: green\n"))];
    let lenient = with("agents: {directory: 'DIR/own'}", &files);
    assert!(lenient.report.contains("1 from files\n"), "{}", lenient.report);
    let strict = with("agents: {directory: 'DIR/own', strict: true}", &files);
    assert!(strict.report.contains("0 from files, 1 rejected"), "{}", strict.report);
}

#[test]
fn limits_of_an_agent_are_those_of_the_file() {
    let files = [("ada", agent("ada", "")), ("bob", agent("bob", "agent_type: heavy-processor\n"))];
    let config = "agents:\n  directory: 'DIR/own'\n  memory_scope: workspace\n  tool_call_timeout: 7s\n  \
                  default_limits: {max_conversations: 11, max_memory_entities: 12, response_timeout: 13s, \
                  tool_call_timeout: 14s, memory_search_timeout: 15s}\n  \
                  overrides: [{agent_type: heavy-processor, max_conversations: 21, max_memory_entities: 22, \
                  response_timeout: 23s, tool_call_timeout: 4s, memory_search_timeout: 25s, memory_scope: global}]\n";
    let program = with(config, &files);
    let limits = |name: &str| {
        let shown = program.get(&format!("/config-agents/{name}")).expect(200).json();
        let mut limits = shown["limits"].clone();
        limits["memory_scope"] = shown["memory_scope"].clone();
        limits
    };
    let expected = |values: [Value; 6]| {
        let names = [
            "max_conversations",
            "max_memory_entities",
            "response_timeout",
            "tool_call_timeout",
            "memory_search_timeout",
            "memory_scope",
        ];
        names.into_iter().zip(values).collect::<Vec<_>>()
    };
    for (name, value) in
        expected([json!(11), json!(12), json!("13s"), json!("7s"), json!("15s"), json!("workspace")])
    {
        assert_eq!(limits("ada")[name], value, "{name}: the cap of all tool calls is 7s");
    }
    for (name, value) in
        expected([json!(21), json!(22), json!("23s"), json!("4s"), json!("25s"), json!("global")])
    {
        assert_eq!(limits("bob")[name], value, "{name}");
    }
}

fn searches(program: &Program) -> u64 {
    let metrics = program.metrics();
    let count =
        metrics.lines().find_map(|line| line.strip_prefix("caxton_memory_search_latency_seconds_count "));
    count.map_or(0, |count| count.parse().unwrap())
}

/// Asks ada the same thing and waits for the answer.
fn ask(program: &Program) {
    let body =
        json!({"performative": "REQUEST", "sender": "bob", "receiver": "ada", "content": "which kettle?"});
    let sent = program.post("/messages", &body).expect(201).json();
    let (started, mut after) = (Instant::now(), 0);
    loop {
        let page = program.get(&format!("/agents/bob/inbox?after={after}&wait=5")).expect(200).json();
        if page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .any(|message| message["in_reply_to"] == sent["message_id"])
        {
            return;
        }
        after = page["next_after"].as_u64().unwrap();
        assert!(started.elapsed() < PATIENCE, "no answer: {page}");
    }
}

#[test]
fn what_memory_gave_is_used_again_as_long_as_the_file_says() {
    for (ttl, again) in [("1h", 0), ("0s", 1)] {
        let config = format!(
            "agents: {{directory: 'DIR/own'}}\nconversation_processing: {{context_cache_ttl: {ttl}, batch_timeout: 1ms}}\n"
        );
        let program = with(&config, &[("ada", agent("ada", ""))]);
        program.post("/agents", &json!({"agent_id": "bob"})).expect(201);
        ask(&program);
        let before = searches(&program);
        ask(&program);
        assert_eq!(searches(&program) - before, again, "{ttl}");
    }
}

#[test]
fn the_list_of_agents_is_kept_as_the_file_says() {
    let hits = |program: &Program| {
        let metrics = program.metrics();
        let hits = metrics.lines().find_map(|line| line.strip_prefix("caxton_agent_list_cache_hits_total "));
        hits.map_or(0, |hits| hits.parse::<u64>().unwrap())
    };
    for (keys, kept) in
        [("cache_ttl: 1h", true), ("cache_ttl: 0s", false), ("cache_agent_list: false", false)]
    {
        let config = format!("agents: {{directory: 'DIR/own'}}\napi_optimization: {{{keys}}}\n");
        let program = with(&config, &[("ada", agent("ada", ""))]);
        let list = || program.get("/config-agents").expect(200).json();
        let first = list();
        assert_eq!(first["total"], 1);
        assert_eq!(list(), first);
        assert_eq!(hits(&program), u64::from(kept), "{keys}");
        program.post("/agents", &json!({"agent_id": "bob"})).expect(201);
        ask(&program);
        assert_ne!(list()["agents"][0]["last_activity"], first["agents"][0]["last_activity"], "{keys}");
        let made = json!({"name": "eve", "content": agent("eve", "")});
        program.post("/config-agents", &made).expect(201);
        assert_eq!(list()["total"], 2, "{keys}");
    }
}
