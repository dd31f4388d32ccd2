//! Agents of files over a real engine, with a model that does what a script says.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod backlog;
mod erasing;
mod large;
mod outgoing;
mod waiting;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use caxton_events::conversation::{Content, Message, Performative, Strategy};
use caxton_events::log::Filter;
use caxton_events::{
    AgentId, ConversationEvent, Draft, Event, Family, Kind, Record, Seq, Timestamp, TurnEvent, TurnId,
};
use tempfile::TempDir;

use super::replies::Out;
use super::{AgentRuntime, Equipment};
use crate::agents::{AgentDirectory, DirectoryOptions, EngineLog};
use crate::commands::talk::{Outgoing, To, Upkeep};
use crate::config::{Config, LlmProvider, ProviderKind, Rows};
use crate::engine::{Engine, EngineOptions, SentOutcome};
use crate::llm::{Registry, Surroundings};
use crate::toolbox::memory::Ranking;
use crate::toolbox::message::{Asked, Messages as _};

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

const SCRIPT: &str = r#"
rules:
  - when: {contains: hang}
    delay: 60s
    answer: late
  - when: {contains: refuse, system_contains: broken}
    error: {kind: refused, message: "no"}
  - when: {contains: store, step: 1}
    calls:
      - {tool: memory, arguments: {operation: store, entity: "{{question}}", observations: ["kept by a tool"]}}
  - when: {contains: store}
    answer: "{{result}}"
  - when: {contains: ask the other, step: 1}
    calls:
      - {tool: message, arguments: {capability: other, performative: REQUEST, content: "what now?", wait: true}}
  - when: {contains: ask the other}
    answer: "it says: {{result.answer.content}}"
  - when: {matches: "aside in (?<where>\\S+)", step: 1}
    calls:
      - {tool: message, arguments: {to: sue, performative: REQUEST, content: "what now?", conversation: "{{where}}", wait: true}}
  - when: {contains: aside}
    answer: "it says: {{result.answer.content}}"
  - when: {contains: cite}
    answer: "[1] According to the docs, yes."
  - when: {contains: name}
    answer: "{name} is a placeholder"
  - when: {system_contains: "second text"}
    answer: "second: {{question}}"
  - answer: "re: {{question}}"
"#;

/// An engine with its agents, over a directory.
struct Life {
    engine: Engine,
    directory: AgentDirectory,
    runtime: AgentRuntime,
}

/// The file of an agent that offers `capability`, with more front matter and what it is told.
fn file(name: &str, capability: &str, more: &str, told: &str) -> String {
    format!("---\nname: {name}\nversion: 1.0.0\ncapabilities: [{capability}]\n{more}---\n{told}\n")
}

fn put(dir: &Path, name: &str, text: &str) {
    let folder = dir.join("agents");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(".new"), text).unwrap();
    fs::rename(folder.join(".new"), folder.join(format!("{name}.md"))).unwrap();
}

impl Life {
    fn begin(dir: &Path) -> Self {
        Self::with(dir, |_| ())
    }

    fn with(dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let script = dir.join("script.yaml");
        fs::write(&script, SCRIPT).unwrap();
        let mut config = Config::default();
        config.conversation_processing.batch_timeout = Duration::ZERO;
        config.llm.default = "script".to_owned();
        config.llm.providers = Rows(vec![LlmProvider {
            name: "script".to_owned(),
            kind: ProviderKind::Scripted,
            script: Some(script),
            retries: 0,
            ..LlmProvider::default()
        }]);
        change(&mut config);
        let engine = Engine::start(&EngineOptions::new(dir), &mut |_| ()).unwrap();
        let models = Registry::build(
            &config.llm,
            &Surroundings::of_machine(&|_| None, config.agents.response_cache_ttl),
        );
        let equipment = Equipment::new(&config, &engine, models.unwrap(), Ranking::default());
        let log = Arc::new(EngineLog::of(engine.clone()));
        let directory = AgentDirectory::start(log, DirectoryOptions::new(&config, dir)).unwrap();
        let runtime = AgentRuntime::start(&config, &engine, &directory, equipment).unwrap();
        Self { engine, directory, runtime }
    }

    fn end(self) {
        self.runtime.stop();
        self.directory.stop();
        self.engine.stop();
    }

    fn send(&self, to: To, performative: Performative, text: &str) -> SentOutcome {
        let wish = Outgoing::new(name("bob"), performative, to, Content::Text(text.to_owned()));
        self.engine.send_blocking(wish).unwrap()
    }

    fn request(&self, agent: &str, text: &str) -> SentOutcome {
        self.send(To::Agents(vec![name(agent)]), Performative::Request, text)
    }

    /// What is in bob's inbox once it holds so many messages.
    fn heard(&self, count: usize) -> Vec<Message> {
        wait(|| self.engine.inbox(&name("bob"), Seq::ZERO, count).len() >= count);
        let records = self.engine.inbox_records(&name("bob"), Seq::ZERO, usize::MAX).unwrap();
        records.into_iter().map(message).collect()
    }

    fn turns(&self) -> Vec<TurnEvent> {
        let filter = Filter { kinds: Some(Family::kinds(&[Family::Turn])), ..Filter::default() };
        let records = self.engine.log().scan(Seq::FIRST, &filter).map(Result::unwrap);
        let events = records
            .filter_map(|record| if let Event::Turn(event) = record.event { Some(event) } else { None });
        events.collect()
    }

    fn of_kind(&self, kind: Kind) -> Vec<Record> {
        let filter = Filter { kinds: Some(vec![kind]), ..Filter::default() };
        self.engine.log().scan(Seq::FIRST, &filter).map(Result::unwrap).collect()
    }
}

fn name(text: &str) -> AgentId {
    text.parse().unwrap()
}

fn message(record: Record) -> Message {
    let Event::Conversation(ConversationEvent::MessageSent(message)) = record.event else {
        panic!("{record:?}")
    };
    *message
}

fn wait(mut until: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !until() {
        assert!(started.elapsed() < PATIENCE, "it did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn a_message_is_answered_and_done_with() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk."));
    let life = Life::begin(dir.path());
    let sent = life.request("ada", "hello");
    let heard = life.heard(1);
    assert_eq!(heard[0].content, Content::Text("re: hello".to_owned()));
    assert_eq!((&heard[0].sender, heard[0].performative), (&name("ada"), Performative::Inform));
    assert_eq!(heard[0].in_reply_to, Some(sent.id.to_string()));
    wait(|| life.engine.inbox(&name("ada"), Seq::ZERO, 1).is_empty());
    let words: Vec<&str> = life.turns().iter().map(word).collect();
    assert_eq!(words, ["started", "context", "answered", "finished"]);
    life.end();
}

fn word(event: &TurnEvent) -> &'static str {
    match event {
        TurnEvent::Started { .. } => "started",
        TurnEvent::ContextPrepared { .. } => "context",
        TurnEvent::ModelAnswered { .. } => "answered",
        TurnEvent::ModelFailed { .. } => "model failed",
        TurnEvent::ToolStarted { .. } => "tool",
        TurnEvent::ToolAnswered { .. } => "result",
        TurnEvent::ToolRefused { .. } => "refused",
        TurnEvent::Finished { .. } => "finished",
        TurnEvent::Failed { .. } => "failed",
    }
}

#[test]
fn a_turn_that_was_cut_off_goes_on_from_what_is_recorded() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk."));
    let life = Life::begin(dir.path());
    life.request("ada", "first");
    life.heard(1);
    wait(|| life.engine.inbox(&name("ada"), Seq::ZERO, 1).is_empty());
    let config = life
        .turns()
        .into_iter()
        .find_map(|event| if let TurnEvent::Started { config, .. } = event { Some(config) } else { None });
    life.end();

    // As after a crash behind the model's answer: the answer is recorded, and not yet sent.
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let to = To::Agents(vec![name("ada")]);
    let wish = Outgoing::new(name("bob"), Performative::Request, to, Content::Text("second".to_owned()));
    let sent = engine.send_blocking(wish).unwrap();
    let turn = TurnId::new(Timestamp::from_unix_micros(1), [7; 10]);
    let recorded = [
        TurnEvent::Started {
            turn,
            agent: name("ada"),
            config: config.unwrap(),
            message: sent.seq,
            conversation: sent.conversation.clone(),
            attempt: 1,
        },
        TurnEvent::ContextPrepared {
            turn,
            parts: Vec::new(),
            budget_tokens: 100,
            missing_variables: Vec::new(),
            system_prompt: "You talk.".to_owned(),
            user_prompt: "second".to_owned(),
        },
        TurnEvent::ModelAnswered {
            turn,
            step: 1,
            provider: "script".to_owned(),
            model: "scripted".to_owned(),
            text: "what was answered before the crash".to_owned(),
            tool_calls: Vec::new(),
            usage: caxton_events::turn::Usage::default(),
            cached: false,
            took_micros: 1,
        },
    ];
    let draft = |event: TurnEvent| Draft {
        stream: format!("conversation:{}", sent.conversation),
        actor: "ada".to_owned(),
        correlation: None,
        causation: Some(sent.seq),
        event: Event::Turn(event),
    };
    engine.record(recorded.into_iter().map(draft).collect()).unwrap();
    engine.stop();
    drop(engine);

    let life = Life::begin(dir.path());
    let heard = life.heard(2);
    assert_eq!(heard[1].content, Content::Text("what was answered before the crash".to_owned()));
    wait(|| life.engine.inbox(&name("ada"), Seq::ZERO, 1).is_empty());
    let of_turn: Vec<&str> =
        life.turns().iter().filter(|event| crate::agents::turn::turn_of(event) == turn).map(word).collect();
    assert_eq!(of_turn, ["started", "context", "answered", "finished"], "the model was not asked again");
    life.end();
}

#[test]
fn what_waits_is_answered_when_its_agent_comes_back() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk."));
    let life = Life::begin(dir.path());
    life.request("ada", "one");
    life.heard(1);
    fs::remove_file(dir.path().join("agents/ada.md")).unwrap();
    wait(|| life.directory.roster().get("ada").is_none());
    let record = |text: &str| {
        // Addressed to an agent whose file is gone, as one that was on its way.
        let wish = Outgoing::new(
            name("bob"),
            Performative::Request,
            To::Agents(vec![name("ada")]),
            Content::Text(text.to_owned()),
        );
        life.engine.send_blocking(wish)
    };
    let waits = record("two").is_ok();
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk. second text"));
    wait(|| life.directory.roster().get("ada").is_some());
    life.request("ada", "three");
    let heard = life.heard(if waits { 3 } else { 2 });
    assert_eq!(heard.last().unwrap().content, Content::Text("second: three".to_owned()));
    life.end();
}

#[test]
fn a_changed_file_answers_the_next_message() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk."));
    let life = Life::begin(dir.path());
    life.request("ada", "one");
    assert_eq!(life.heard(1)[0].content, Content::Text("re: one".to_owned()));
    let before = life.directory.roster().get("ada").unwrap().registered.seq;
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk. second text"));
    wait(|| life.directory.roster().get("ada").unwrap().registered.seq != before);
    wait(|| life.runtime.inner.agents.get(&name("ada")).unwrap().spec.config != before);
    life.request("ada", "two");
    assert_eq!(life.heard(2)[1].content, Content::Text("second: two".to_owned()));
    life.end();
}

#[test]
fn failover_gives_the_message_to_the_next_provider() {
    let dir = TempDir::new().unwrap();
    let first = "capability_metadata: {work: {priority: 900}}\n";
    put(dir.path(), "ada", &file("ada", "work", first, "You are broken."));
    put(dir.path(), "sue", &file("sue", "work", "", "You work."));
    let life = Life::begin(dir.path());
    let to = |strategy| To::Capability { name: "work".parse().unwrap(), version: None, strategy };
    let sent = life.send(to(Strategy::Failover), Performative::Request, "refuse this");
    assert_eq!(sent.receivers, [name("ada")]);
    let heard = life.heard(1);
    assert_eq!(
        (&heard[0].sender, heard[0].performative, &heard[0].content),
        (&name("sue"), Performative::Inform, &Content::Text("re: refuse this".to_owned()))
    );
    assert_eq!(heard[0].in_reply_to, Some(sent.id.to_string()), "bob sees one question and one answer");
    let letters = life.of_kind(Kind::MessageDeadLettered);
    assert_eq!(letters.len(), 1, "what ada could not do is recorded");
    // Another strategy leaves it with whom it was given to.
    life.send(to(Strategy::Priority), Performative::Request, "refuse that");
    let heard = life.heard(2);
    assert_eq!((&heard[1].sender, heard[1].performative), (&name("ada"), Performative::Failure));
    life.end();
}

#[test]
fn failover_ends_with_a_failure_when_all_have_failed() {
    let dir = TempDir::new().unwrap();
    for agent in ["ada", "sue"] {
        put(dir.path(), agent, &file(agent, "work", "", "You are broken."));
    }
    let life = Life::begin(dir.path());
    let strategy = Strategy::Failover;
    let to = To::Capability { name: "work".parse().unwrap(), version: None, strategy };
    life.send(to, Performative::Request, "refuse this");
    let heard = life.heard(1);
    assert_eq!(heard[0].performative, Performative::Failure);
    wait(|| life.of_kind(Kind::MessageDeadLettered).len() == 2);
    wait(|| ["ada", "sue"].iter().all(|agent| life.engine.inbox(&name(agent), Seq::ZERO, 1).is_empty()));
    assert_eq!(life.heard(1).len(), 1, "bob is told once");
    life.end();
}

#[test]
fn failover_stays_with_the_version_that_was_asked_for() {
    let dir = TempDir::new().unwrap();
    for (agent, offers, told) in [
        ("ada", "work:v2.0", "You are broken."),
        ("sue", "work:v2.1", "You are broken."),
        ("old", "work", "You work."),
    ] {
        put(dir.path(), agent, &file(agent, offers, "", told));
    }
    let life = Life::begin(dir.path());
    let version = Some("2".to_owned());
    let to = To::Capability { name: "work".parse().unwrap(), version, strategy: Strategy::Failover };
    life.send(to, Performative::Request, "refuse this");
    assert_eq!(life.heard(1)[0].performative, Performative::Failure, "both of that version have failed");
    let sent = life.of_kind(Kind::MessageSent).into_iter().map(message);
    let mut asked: Vec<AgentId> =
        sent.flat_map(|one| one.receivers).filter(|agent| *agent != name("bob")).collect();
    asked.sort();
    assert_eq!(asked, [name("ada"), name("sue")]);
    life.end();
}

#[test]
fn a_full_queue_is_told_and_other_agents_go_on() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "resource_limits: {max_conversations: 1}\n", "You talk."));
    put(dir.path(), "sue", &file("sue", "other", "", "You talk."));
    let life = Life::with(dir.path(), |config| {
        for queue in &mut config.request_handling.priority_queues.queues.0 {
            queue.queue_size = 2;
        }
    });
    life.request("ada", "hang 0");
    // Once its turn has begun it waits no longer, so the next two are what the queue holds.
    wait(|| !life.turns().is_empty());
    for number in 1..3 {
        life.request("ada", &format!("hang {number}"));
    }
    let wish = |agent: &str| {
        let to = To::Agents(vec![name(agent)]);
        Outgoing::new(name("bob"), Performative::Request, to, Content::Text("x".to_owned()))
    };
    wait(|| life.runtime.check(&wish("ada")).is_err());
    let full = life.runtime.check(&wish("ada")).unwrap_err();
    assert_eq!((full.queue.as_str(), full.size), ("normal", 2));
    assert!(life.runtime.check(&wish("carol")).is_ok(), "agents outside have no queue here");
    assert!(life.runtime.check(&wish("sue")).is_ok(), "each agent has a place of its own");
    life.engine.send_blocking(wish("sue")).unwrap();
    assert_eq!(life.heard(1)[0].sender, name("sue"), "the queue is full of what waits for ada");
    let critical = Outgoing { priority: caxton_events::conversation::Priority::Critical, ..wish("sue") };
    assert!(life.runtime.check(&critical).is_ok());
    life.engine.send_blocking(critical).unwrap();
    assert_eq!(life.heard(2)[1].sender, name("sue"), "a full queue holds nobody else up");
    // Nothing waits for answers that take a minute.
    life.engine.stop();
}

#[test]
fn a_conversation_has_its_limit() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "conversation: {max_turns: 1, timeout: 90s}\n", "You talk."));
    let life = Life::begin(dir.path());
    let sent = life.request("ada", "one");
    life.heard(1);
    let idle = || {
        let talk = life.engine.view().talk().read();
        talk.conversations.get(&sent.conversation).unwrap().idle_timeout_millis
    };
    assert_eq!(idle(), 90_000);
    let again = Outgoing {
        conversation: Some(sent.conversation.clone()),
        ..Outgoing::new(
            name("bob"),
            Performative::Request,
            To::Agents(vec![name("ada")]),
            Content::Text("two".to_owned()),
        )
    };
    life.engine.send_blocking(again).unwrap();
    let heard = life.heard(2);
    assert_eq!(heard[1].performative, Performative::Failure);
    assert!(heard[1].content.as_str().contains("conversation.max_turns"), "{:?}", heard[1].content);
    life.end();
}

#[test]
fn what_was_said_is_remembered_and_tools_write_as_the_agent() {
    let dir = TempDir::new().unwrap();
    put(
        dir.path(),
        "ada",
        &file("ada", "talk", "memory: {auto_store: true}\ntools: [memory]\n", "You talk."),
    );
    let life = Life::begin(dir.path());
    life.request("ada", "store bees");
    life.heard(1);
    wait(|| life.engine.inbox(&name("ada"), Seq::ZERO, 1).is_empty());
    let turn = life.turns().iter().map(crate::agents::turn::turn_of).next().unwrap();
    let added = life.of_kind(Kind::EntityCreated);
    let by_turn: Vec<&Record> =
        added.iter().filter(|record| record.correlation == Some(turn.to_string())).collect();
    assert_eq!(by_turn.len(), 2, "one by the tool, one by itself");
    assert!(by_turn.iter().all(|record| record.actor == "ada"));
    life.end();
}

#[test]
fn an_answer_that_only_begins_like_json_is_a_text() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk."));
    let life = Life::begin(dir.path());
    for (count, asked, answer) in
        [(1, "cite", "[1] According to the docs, yes."), (2, "name it", "{name} is a placeholder")]
    {
        life.request("ada", asked);
        let heard = &life.heard(count)[count - 1];
        let then = (Performative::Inform, Content::Text(answer.to_owned()));
        assert_eq!((heard.performative, heard.content.clone()), then);
    }
    life.end();
}

#[test]
fn a_request_that_its_sender_takes_back_is_not_answered() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk."));
    let life = Life::begin(dir.path());
    let sent = life.request("ada", "hang on");
    wait(|| life.turns().iter().any(|event| matches!(event, TurnEvent::ContextPrepared { .. })));
    let cancel = Outgoing {
        conversation: Some(sent.conversation.clone()),
        in_reply_to: Some(sent.id.to_string()),
        ..Outgoing::new(
            name("bob"),
            Performative::Cancel,
            To::Agents(vec![name("ada")]),
            Content::Text("never mind".to_owned()),
        )
    };
    let cancel = life.engine.send_blocking(cancel).unwrap();
    let heard = life.heard(1);
    assert_eq!(heard[0].in_reply_to, Some(cancel.id.to_string()));
    assert_eq!(heard[0].performative, Performative::Inform);
    assert_eq!(heard[0].content.as_str(), format!("{} is taken back; nothing of it was done", sent.seq));
    wait(|| life.engine.inbox(&name("ada"), Seq::ZERO, 1).is_empty());
    assert_eq!(life.heard(1).len(), 1, "the CANCEL has one answer, and the request none");
    assert!(life.of_kind(Kind::MessageDeadLettered).is_empty());
    life.end();
}

#[test]
fn what_only_informs_is_answered_where_the_file_says_so() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "messaging: {auto_respond: true}\n", "You talk."));
    put(dir.path(), "sue", &file("sue", "talk", "", "You talk."));
    let life = Life::begin(dir.path());
    life.send(To::Agents(vec![name("sue")]), Performative::Inform, "one");
    life.send(To::Agents(vec![name("ada")]), Performative::Inform, "two");
    let heard = life.heard(1);
    wait(|| ["ada", "sue"].iter().all(|agent| life.engine.inbox(&name(agent), Seq::ZERO, 1).is_empty()));
    assert_eq!((&heard[0].sender, heard[0].in_reply_to.as_ref()), (&name("ada"), None));
    assert_eq!(life.heard(1).len(), 1);
    life.end();
}

#[test]
fn an_agent_asks_another_and_uses_its_answer() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "tools: [message]\n", "You talk."));
    put(dir.path(), "sue", &file("sue", "other", "", "You talk."));
    let life = Life::begin(dir.path());
    life.request("ada", "ask the other");
    let heard = life.heard(1);
    assert_eq!(heard[0].content, Content::Text("it says: re: what now?".to_owned()));
    wait(|| life.engine.inbox(&name("ada"), Seq::ZERO, 1).is_empty());
    let turns = life.turns().into_iter().filter(|event| matches!(event, TurnEvent::Started { .. }));
    assert_eq!(turns.count(), 2, "what a tool waited for is not taken up again as a message");
    life.end();
}

#[test]
fn a_turn_may_ask_its_model_once_more_than_its_file_lets_it_call_tools() {
    let dir = TempDir::new().unwrap();
    let calls = |calls: u32| format!("permissions: {{max_tool_calls: {calls}}}\n");
    for (agent, more) in [("ada", calls(40)), ("sue", calls(2)), ("tom", calls(20)), ("zoe", String::new())] {
        put(dir.path(), agent, &file(agent, "talk", &more, "You talk."));
    }
    let life = Life::begin(dir.path());
    for (agent, steps) in [("ada", 41), ("sue", 8), ("tom", 21), ("zoe", 8)] {
        let running = || life.runtime.inner.agents.get(&name(agent));
        wait(|| running().is_some());
        assert_eq!(running().unwrap().spec.limits.steps_max, steps, "{agent}");
    }
    life.end();
}

#[test]
fn nothing_is_taken_up_once_the_end_has_begun() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "", "You talk."));
    let life = Life::begin(dir.path());
    life.request("ada", "hello");
    life.heard(1);
    // Requests that are under way may still send messages.
    life.runtime.begin_stop();
    let late = life.request("ada", "again");
    life.runtime.stop();
    let started = life.turns().into_iter().filter(|event| matches!(event, TurnEvent::Started { .. }));
    assert_eq!(started.count(), 1);
    assert_eq!(life.engine.inbox(&name("ada"), Seq::ZERO, 9).last(), Some(&late.seq));
    life.end();
}

#[test]
fn who_waits_for_an_answer_is_told_when_the_server_stops() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let workspace = "lab".parse().unwrap();
    let known = Upkeep::RegisterAgent { agent: name("ada"), workspace };
    engine.upkeep_blocking(&name("ada"), known).unwrap();
    let (to, content) = (To::Agents(vec![name("ada")]), Content::Text("what now?".to_owned()));
    let wish = Outgoing::new(name("bob"), Performative::Request, to, content);
    let sent = engine.send_blocking(wish).unwrap();
    engine.stop();
    let sender = name("bob");
    let asked = Asked { sender: &sender, conversation: &sent.conversation, seq: sent.seq, id: sent.id };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(Out::new(engine, Strategy::BestMatch).answer(asked));
    assert!(answer.unwrap_err().to_string().contains("stopping"));
}
