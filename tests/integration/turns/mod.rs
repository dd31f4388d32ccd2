//! Turns of agents of files, in a server of its own: models and tools that misbehave, and who is not touched by it.

mod audit;
mod cache;
mod circuits;
mod files;
mod keys;
mod mcp;
mod models;
mod tools;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Server, get, post};
use super::web::Web;

/// A bound against hanging for ever, not a measure.
const PATIENCE: Duration = Duration::from_mins(1);

/// Nothing waits for a batch to fill.
const BATCHES: &str = "conversation_processing: {batch_timeout: 1ms}";

/// A server, its directory, and who writes to its agents: bob.
struct Town {
    server: Option<Server>,
    dir: TempDir,
}

/// The file of an agent that offers `capability`, with more front matter.
fn file(name: &str, capability: &str, more: &str) -> String {
    let limits =
        if more.contains("resource_limits") { "" } else { "resource_limits: {response_timeout: 1m}\n" };
    format!(
        "---\nname: {name}\nversion: 1.0.0\ncapabilities: [{capability}]\n{limits}{more}\n---\nYou are {name}.\n"
    )
}

/// A row of `llm.providers`: a model on this machine that is asked once a turn's attempt.
fn provider(name: &str, model: &Web, more: &str) -> String {
    let url = model.url("/v1");
    format!(
        "    - {{name: {name}, kind: openai, base_url: '{url}', model: m, retries: 0, breaker_failures: 0{more}}}\n"
    )
}

impl Town {
    /// Prepares a directory: these providers, of which the first is the default, and more of the configuration.
    fn found(providers: &[String], more: &str) -> Self {
        let town = Self { server: None, dir: TempDir::new().unwrap() };
        fs::create_dir_all(town.dir.path().join("data/agents")).unwrap();
        let first = providers[0].split("name: ").nth(1).unwrap().split(',').next().unwrap();
        let rows = providers.concat();
        let batches = if more.contains("conversation_processing") { "" } else { BATCHES };
        let config = format!("{batches}\n{more}\nllm:\n  default: {first}\n  providers:\n{rows}");
        fs::write(town.dir.path().join("caxton.yaml"), config).unwrap();
        town
    }

    /// The same with the agents of these files, running.
    fn with(providers: &[String], more: &str, agents: &[(&str, String)]) -> Self {
        let mut town = Self::found(providers, more);
        for (name, text) in agents {
            town.put(name, text);
        }
        town.serve(&mut Command::new(env!("CARGO_BIN_EXE_caxton")));
        town
    }

    fn serve(&mut self, command: &mut Command) {
        let (data, config) = (self.dir.path().join("data"), self.dir.path().join("caxton.yaml"));
        let flags = ["--keyword-only", "--config", config.to_str().unwrap()];
        self.server = Some(Server::start_by(command, &data, &data, &flags));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("data/agents").join(format!("{name}.md"))
    }

    fn put(&self, name: &str, text: &str) {
        let new = self.dir.path().join("new.md");
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.path(name)).unwrap();
    }

    fn base(&self) -> &str {
        self.server.as_ref().unwrap().base()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let (status, body) = get(self.base(), &format!("/api/v1{path}")).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, body) = post(self.base(), &format!("/api/v1{path}"), body).unwrap();
        assert!((200..300).contains(&status), "{path}: {status} {body}");
        body
    }

    /// Asks an agent something, in a conversation of its own.
    #[track_caller]
    fn ask(&self, agent: &str, text: &str) -> Value {
        let body = json!({"performative": "REQUEST", "sender": "bob", "receiver": agent, "content": text});
        self.post("/messages", &body)
    }

    /// Asks whoever has a capability.
    #[track_caller]
    fn ask_capability(&self, capability: &str, strategy: &str, text: &str) -> Value {
        let body = json!({
            "performative": "REQUEST", "sender": "bob", "capability": capability, "routing_strategy": strategy,
            "content": text,
        });
        self.post("/messages?explain=true", &body)
    }

    /// The answer to what was sent.
    #[track_caller]
    fn answer(&self, sent: &Value) -> Value {
        let (id, started) = (sent["message_id"].as_str().unwrap(), Instant::now());
        let mut after = 0;
        loop {
            let page = self.get(&format!("/agents/bob/inbox?after={after}&wait=5&limit=100"));
            let found =
                page["messages"].as_array().unwrap().iter().find(|message| message["in_reply_to"] == id);
            if let Some(found) = found {
                return found.clone();
            }
            after = page["next_after"].as_u64().unwrap();
            assert!(started.elapsed() < PATIENCE, "no answer to {sent}");
        }
    }

    /// Asks and waits: performative and content of the answer.
    #[track_caller]
    fn hear(&self, agent: &str, text: &str) -> (String, String) {
        let answer = self.answer(&self.ask(agent, text));
        let member = |name: &str| answer[name].as_str().unwrap().to_owned();
        (member("performative"), member("content"))
    }

    /// What the log has of these kinds.
    #[track_caller]
    fn events(&self, kinds: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut from = 1;
        loop {
            let page = self.get(&format!("/events?kinds={kinds}&from_seq={from}&limit=1000"));
            events.extend(page["events"].as_array().unwrap().iter().cloned());
            from = page["next_seq"].as_u64().unwrap();
            if from > page["head_seq"].as_u64().unwrap() {
                return events;
            }
        }
    }

    /// Waits until the log has so many events of a kind for which `fits` says yes, and gives them.
    #[track_caller]
    fn await_events(&self, kind: &str, count: usize, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let mut found = self.events(kind);
            found.retain(|event| fits(&event["data"]));
            if found.len() >= count {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "{} of {count} {kind}: {found:?}", found.len());
            std::thread::yield_now();
        }
    }

    /// The turn of a message, as the words for its events.
    fn turn(&self, sent: &Value) -> Vec<Value> {
        let events = self.events(
            "turn.started,turn.context_prepared,turn.model_answered,turn.model_failed,turn.tool_started,\
             turn.tool_answered,turn.tool_refused,turn.finished,turn.failed",
        );
        let turn = events
            .iter()
            .find(|event| event["kind"] == "turn.started" && event["data"]["message_seq"] == sent["seq"])
            .map_or(Value::Null, |started| started["data"]["turn_id"].clone());
        events.into_iter().filter(|event| event["data"]["turn_id"] == turn).collect()
    }
}

/// Members `data.NAME` of the events of one kind.
fn of(events: &[Value], kind: &str, name: &str) -> Vec<Value> {
    events.iter().filter(|event| event["kind"] == kind).map(|event| event["data"][name].clone()).collect()
}
