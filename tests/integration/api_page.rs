//! The pages about the API name every word that a choice takes, and every code of a problem.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::client::Ask;
use super::server::Server;

const PAGES: &str = concat!(include_str!("../../docs/api.md"), include_str!("../../docs/agents.md"));

/// Requests that give a word which is no choice, and the parameter or member that has it.
fn asked() -> Vec<(&'static str, &'static str, Value, &'static str)> {
    let get = |path, field| ("GET", path, Value::Null, field);
    let post = |path, body, field| ("POST", path, body, field);
    vec![
        get("/memory/entities?memory_scope=qqq", "memory_scope"),
        get("/memory/relations?direction=qqq", "direction"),
        get("/memory/graph/x?direction=qqq", "direction"),
        get("/memory/graph/x?traversal_strategy=qqq", "traversal_strategy"),
        get("/memory/search?query=x&mode=qqq", "mode"),
        get("/memory/search?query=x&fusion=qqq", "fusion"),
        get("/memory/search?query=x&temporal_filter=qqq", "temporal_filter"),
        get("/memory/export?format=qqq", "format"),
        get("/memory/export/tables?format=qqq", "format"),
        get("/memory/export/tables?table=qqq", "table"),
        get("/conversations/export?table=qqq", "table"),
        get("/events/export?format=qqq", "format"),
        get("/audit?format=qqq", "format"),
        get("/audit?order=qqq", "order"),
        get("/messages?order=qqq", "order"),
        get("/messages?performative=qqq", "performative"),
        get("/agents?kind=qqq", "kind"),
        get("/agents/ada/logs?level=qqq", "level"),
        get("/conversations?status=qqq", "status"),
        get("/dead-letters?reason=qqq", "reason"),
        get("/capabilities?status=qqq", "status"),
        get("/capabilities/golf?routing_strategy=qqq", "routing_strategy"),
        get("/config-agents?status=qqq", "status"),
        post("/memory/entities?wait=qqq", json!({}), "wait"),
        post("/memory/entities", json!({"on_existing": "qqq"}), "on_existing"),
        post("/memory/undo", json!({"agent": "ada", "later": "qqq"}), "later"),
        post("/memory/import", json!({"merge_strategy": "qqq"}), "merge_strategy"),
        post("/messages", json!({"priority": "qqq"}), "priority"),
        post("/conversations/plan/close", json!({"end": "qqq"}), "end"),
        post("/conversations/archive", json!({"status": "qqq"}), "status"),
        post("/embeddings", json!({"encoding_format": "qqq"}), "encoding_format"),
    ]
}

/// The words that a refusal of `field` lists: all there are.
#[track_caller]
fn words(problem: &Value, field: &str) -> Vec<String> {
    let errors = problem["errors"].as_array().unwrap();
    let error = errors.iter().find(|error| error["field"] == field).expect("a complaint about the field");
    let text = |name: &str| error[name].as_str().unwrap();
    let list = text("message").strip_prefix("must be one of: ").or(text("remedy").strip_prefix("use "));
    list.unwrap().split(", ").map(str::to_owned).collect()
}

/// Whether some place of the pages, a line or two, names `field` and all of `words`.
fn are_told(field: &str, words: &[String]) -> bool {
    let lines: Vec<&str> = PAGES.lines().collect();
    lines.windows(2).any(|lines| {
        let text = lines.join(" ");
        let is_between = |sign: char| !sign.is_ascii_alphanumeric() && sign != '_' && sign != '-';
        let told: BTreeSet<&str> = text.split(is_between).collect();
        told.contains(field) && words.iter().all(|word| told.contains(word.as_str()))
    })
}

#[test]
fn every_word_of_a_choice_is_told() {
    let server = Server::start();
    for (method, path, body, field) in asked() {
        let ask = server.ask(method, path);
        let ask = if body.is_null() { ask } else { ask.json(&body) };
        let words = words(&ask.send().problem(422, "VALIDATION_ERROR"), field);
        assert!(are_told(field, &words), "{method} {path}: the pages do not name all of {words:?}");
    }
    let lines = server.ask("POST", "/memory/import?format=qqq").lines("{}").send();
    let words = words(&lines.problem(422, "VALIDATION_ERROR"), "format");
    assert!(are_told("format", &words), "the pages do not name all of {words:?}");
}

/// Words that are written as codes are, and name methods.
const METHODS: &[&str] = &["DELETE", "HEAD", "NONE", "OPTIONS", "PATCH", "POST"];

fn is_code(word: &str) -> bool {
    let is_in_capitals = word.bytes().all(|sign| sign.is_ascii_uppercase() || sign == b'_');
    word.len() > 3 && is_in_capitals && !METHODS.contains(&word)
}

/// The files of a folder and of those in it, without those that are tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if !path.to_str().unwrap().ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_code_of_a_problem_is_told() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = sources(&root.join("src/api"));
    files.push(root.join("src/commands/refusal.rs"));
    let mut codes: BTreeSet<String> = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        codes.extend(text.split('"').filter(|word| is_code(word)).map(str::to_owned));
    }
    let (_, rest) = PAGES.split_once("| status | codes |").unwrap();
    let (table, _) = rest.split_once("\n\n").unwrap();
    let told: BTreeSet<String> = table.split('`').filter(|word| is_code(word)).map(str::to_owned).collect();
    let missing: Vec<&String> = codes.difference(&told).collect();
    assert!(missing.is_empty(), "docs/api.md does not name {missing:?}");
    let gone: Vec<&String> = told.difference(&codes).collect();
    assert!(gone.is_empty(), "docs/api.md names {gone:?}, which no problem has");
}

/// The words of a command as a shell makes them of it.
fn shell_words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for sign in command.replace("\\\n", " ").chars() {
        match sign {
            '\'' => quoted = !quoted,
            sign if sign.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            sign => word.push(sign),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The request that an example with curl sends.
fn of_curl(server: &Server, command: &str) -> Ask {
    let words = shell_words(command);
    let behind = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1);
    let place = words.iter().find_map(|word| word.strip_prefix("localhost:8080/api/v1"));
    let body = behind("--json");
    let method = behind("-X").map_or(if body.is_some() { "POST" } else { "GET" }, String::as_str);
    let ask = server.ask(method, place.expect("the address of an example"));
    match body {
        Some(body) => ask.json(&serde_json::from_str(body).expect(body)),
        None => ask,
    }
}

#[test]
fn the_examples_about_the_memory_can_be_followed_in_their_order() {
    let (_, rest) = PAGES.split_once("\n## Entities\n").unwrap();
    let (part, _) = rest.split_once("\n## Batches\n").unwrap();
    let lines: Vec<&str> = part.lines().filter(|line| line.starts_with("    ")).collect();
    let text = lines.join("\n");
    let examples: Vec<&str> = text.split("    curl ").skip(1).collect();
    assert!(examples.len() >= 7, "{text}");
    let server = Server::start();
    for example in examples {
        let reply = of_curl(&server, example).send();
        let told = String::from_utf8_lossy(&reply.body);
        assert!((200..300).contains(&reply.status), "{example}: {told}");
    }
}
