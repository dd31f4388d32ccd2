//! Keys are where they belong: in the one header that carries them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::super::web::{Reply, Request, Web};
use super::{Town, file, provider};

const MODEL_KEY: &str = "sk-model-9f8e7d6c5b4a39281706";
const FILE_KEY: &str = "sk-file-00112233445566778899";
const TOKEN: &str = "mcp-token-a1b2c3d4e5f6a7b8c9d0";

/// Everything below a folder that holds `words`.
fn holding(folder: &Path, words: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            holding(&entry.path(), words, found);
        } else if fs::read(entry.path()).unwrap().windows(words.len()).any(|part| part == words.as_bytes()) {
            found.push(entry.path().display().to_string());
        }
    }
}

#[test]
fn keys_are_in_no_event_no_answer_no_metric_and_no_line_of_the_log() {
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    // Whoever refuses a key likes to repeat it.
    let web = Web::start(move |request: &Request| {
        seen.lock().unwrap().push(request.head.clone());
        let key =
            request.head.split("Bearer ").nth(1).or(request.head.split("bearer ").nth(1)).unwrap_or_default();
        let key = key.lines().next().unwrap_or_default();
        let text = format!("the key {key} is not valid (Authorization: Bearer {key})");
        if request.last("user") == "raw" {
            return Reply::of(401, "", text.as_bytes());
        }
        Reply::json(401, &json!({"error": {"message": text}}))
    });
    let providers = [
        provider("m", &web, ", api_key_env: MODEL_KEY_OF_THE_TEST"),
        provider("f", &web, ", api_key_file: 'KEY_FILE'"),
    ];
    let config = format!(
        "logging: {{filter: trace}}\nmcp_servers: [{{name: web, url: '{}', token_variable: TOKEN_OF_THE_TEST}}]",
        web.url("/mcp")
    );
    let mut town = Town::found(&providers, &config);
    let key_file = town.dir.path().join("key");
    fs::write(&key_file, FILE_KEY).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let config = town.dir.path().join("caxton.yaml");
    let text = fs::read_to_string(&config).unwrap().replace("KEY_FILE", &key_file.display().to_string());
    fs::write(&config, text).unwrap();
    town.put("ada", &file("ada", "talk", "tools: ['mcp:web']"));
    town.put("sue", &file("sue", "talk", "llm: {provider: f}"));
    let lines = town.dir.path().join("stderr");
    let run = format!("exec \"$0\" \"$@\" 2> '{}'", lines.display());
    let mut command = Command::new("sh");
    command.args(["-c", &run, env!("CARGO_BIN_EXE_caxton")]);
    town.serve(command.env("MODEL_KEY_OF_THE_TEST", MODEL_KEY).env("TOKEN_OF_THE_TEST", TOKEN));
    for agent in ["ada", "sue"] {
        for text in ["json", "raw"] {
            let (performative, content) = town.hear(agent, text);
            assert!(performative == "FAILURE" && content.contains("is not valid"), "{content}");
            assert!(!content.contains("sk-"), "{content}");
        }
    }
    let shown = [
        town.get("/events?limit=1000").to_string(),
        town.get("/dead-letters").to_string(),
        town.get("/config-agents").to_string(),
    ]
    .concat();
    assert!(shown.contains("is not valid"));
    town.server.take().unwrap().stop();
    let sent = heads.lock().unwrap().concat();
    let log = fs::read_to_string(&lines).unwrap();
    assert!(log.contains("is not valid") && log.contains(" TRACE "), "the log tells little: {log:.2000}");
    for key in [MODEL_KEY, FILE_KEY, TOKEN] {
        assert!(sent.contains(key), "{key} never reached its place");
        // A part of a key that is long enough to be of use counts as well.
        let part = &key[..16];
        assert!(!shown.contains(part), "{key} is shown");
        assert!(!log.contains(part), "{key}: {:?}", log.lines().find(|line| line.contains(part)));
        let mut found = Vec::new();
        holding(&town.dir.path().join("data"), part, &mut found);
        assert!(found.is_empty(), "{key} is in {found:?}");
    }
}
