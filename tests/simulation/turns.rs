//! Agents of files under murder: a turn that is cut off anywhere ends as if nothing had happened.
//!
//! `SIMULATION_KILLS` sets how often the server is killed (default 5; 100 is the long form), `SIMULATION_SEED` where the
//! dice start.

#![allow(clippy::wildcard_enum_match_arm, reason = "each check looks at a few events of all there are")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use caxton_events::log::Filter;
use caxton_events::{
    AgentId, ConversationEvent, ConversationId, Event, MemoryEvent, Record, Seq, SystemEvent, TurnEvent,
    TurnId,
};
use serde_json::{Value, json};

use super::server::{Server, get, post};
use super::web::{Reply, Request, Web};
use super::{Dice, check_rebuild, number_from};
use caxton::engine::{Engine, EngineOptions};

/// Clients that ask at the same time.
const CLIENTS: u64 = 4;
/// Questions of one conversation; then its client opens another.
const LANE_MAX: u64 = 12;
/// A bound against hanging for ever, not a measure.
const PATIENCE: Duration = Duration::from_mins(3);
/// Every so many requests to the model fail, so that turns are taken up again too.
const FAILS_EVERY: u64 = 13;

/// Agents by file: what they can do, more front matter, what they are told.
const AGENTS: &[(&str, &str, &str, &str)] = &[
    ("talker", "talk", "llm: {provider: counted}\nmemory: {auto_store: true}", "You talk."),
    ("keeper", "keep", "llm: {provider: counted}\ntools: [memory]", "You keep notes."),
    ("asker", "ask", "tools: [message]", "You ask around."),
    ("first", "work", "capability_metadata: {work: {priority: 900}}", "You are the first."),
    ("spare", "work", "", "You stand in."),
];

const SCRIPT: &str = r#"
rules:
  - when: {system_contains: You ask around, step: 1}
    delay: 5ms
    calls:
      - tool: message
        arguments: {capability: talk, performative: REQUEST, content: "say for {{question}}", wait: true}
  - when: {system_contains: You ask around}
    delay: 3ms
    answer: "heard {{result.answer.content}}"
  - when: {system_contains: You are the first, contains: refuse}
    delay: 6ms
    error: {kind: refused, message: "not this"}
  - when: {system_contains: You are the first}
    delay: 4ms
    answer: "first did {{question}}"
  - when: {system_contains: You stand in}
    delay: 4ms
    answer: "spare did {{question}}"
"#;

/// What the counted model was asked last: by question and step, the number of the request.
type Asked = Arc<Mutex<BTreeMap<(String, u64), u64>>>;

/// Counts what happens, so that the kills come after something.
#[derive(Default)]
struct Ticks {
    count: Mutex<u64>,
    moved: Condvar,
}

impl Ticks {
    fn tick(&self) {
        *self.count.lock().unwrap() += 1;
        self.moved.notify_all();
    }

    /// Waits for so many ticks more; `false` when nothing happens any more.
    fn wait(&self, more: u64) -> bool {
        let mut count = self.count.lock().unwrap();
        let until = *count + more;
        while *count < until {
            let (next, result) = self.moved.wait_timeout(count, PATIENCE).unwrap();
            if result.timed_out() {
                return false;
            }
            count = next;
        }
        true
    }
}

/// A question that was acknowledged.
struct Question {
    client: String,
    /// The agent or capability it was put to.
    whom: &'static str,
    text: String,
    seq: u64,
    conversation: String,
}

/// What the clients share.
struct Town {
    base: Mutex<String>,
    done: AtomicBool,
    ticks: Arc<Ticks>,
    /// By message number.
    asked: Mutex<BTreeMap<String, Question>>,
}

impl Town {
    fn base(&self) -> String {
        self.base.lock().unwrap().clone()
    }

    /// Sends until it is acknowledged, each time with the same number.
    fn send(&self, body: &Value) -> Value {
        loop {
            match post(&self.base(), "/api/v1/messages", body) {
                Some((200 | 201, answer)) => {
                    self.ticks.tick();
                    return answer;
                }
                Some((status, answer)) => panic!("a valid message was answered {status}: {answer}"),
                None => std::thread::yield_now(),
            }
        }
    }
}

/// One client: puts questions to agents, a few at a time into one conversation, and waits for the answers.
fn converse(client: u64, town: &Town, seed: u64) {
    let name = format!("client-{client}");
    let mut dice = Dice(seed.wrapping_mul(1_000).wrapping_add(client));
    let mut lanes: BTreeMap<&str, (String, u64)> = BTreeMap::new();
    let (mut sent, mut answered, mut after) = (0, 0, 0);
    while !town.done.load(Ordering::Relaxed) {
        let whom = ["talker", "keeper", "asker", "work"][dice.roll(4) as usize];
        for _ in 0..=dice.roll(3) {
            sent += 1;
            let word = if whom == "work" && dice.roll(3) == 0 { "refuse" } else { "please" };
            let text = format!("{word} {name}/{sent}");
            let id = format!("{client:08x}-0000-8000-8000-{sent:012x}");
            let mut body =
                json!({"message_id": id, "performative": "REQUEST", "sender": name, "content": text});
            if whom == "work" {
                body["capability"] = json!(whom);
                body["routing_strategy"] = json!("failover");
            } else {
                body["receiver"] = json!(whom);
            }
            if let Some((conversation, _)) = lanes.get(whom) {
                body["conversation_id"] = json!(conversation);
            }
            let answer = town.send(&body);
            let conversation = answer["conversation_id"].as_str().unwrap().to_owned();
            let seq = answer["seq"].as_u64().unwrap();
            let used = lanes.remove(whom).map_or(1, |(_, used)| used + 1);
            if used < LANE_MAX {
                lanes.insert(whom, (conversation.clone(), used));
            }
            let question = Question { client: name.clone(), whom, text, seq, conversation };
            town.asked.lock().unwrap().insert(id, question);
        }
        let started = Instant::now();
        while answered < sent {
            assert!(started.elapsed() < PATIENCE, "{name} waits for {} answers of {whom}", sent - answered);
            let path = format!("/api/v1/agents/{name}/inbox?after={after}&wait=5");
            match get(&town.base(), &path) {
                Some((200, page)) => {
                    let count = page["count"].as_u64().unwrap();
                    after = page["next_after"].as_u64().unwrap();
                    answered += count;
                    (0..count).for_each(|_| town.ticks.tick());
                }
                Some((status, page)) => panic!("an inbox was answered {status}: {page}"),
                None => std::thread::yield_now(),
            }
        }
    }
}

/// A model that answers with the number of the request, so that it shows which request was recorded.
fn counted_model(asked: Asked, ticks: Arc<Ticks>) -> Web {
    Web::start(move |request: &Request| {
        let (question, step, number) = (request.last("user").to_owned(), request.step(), request.number);
        let newest = {
            let mut asked = asked.lock().unwrap();
            let newest = asked.entry((question.clone(), step)).or_default();
            *newest = number.max(*newest);
            *newest
        };
        ticks.tick();
        // As long as a model takes: most kills find one at work.
        std::thread::sleep(Duration::from_millis(number * 7 % 17));
        if number.is_multiple_of(FAILS_EVERY) || newest > number {
            return Reply::json(500, &json!({"error": {"message": "out of order"}}));
        }
        if request.last("system").contains("You keep notes.") && step == 1 {
            let arguments = json!({"operation": "store", "entity": question, "observations": [question]});
            return Reply::calls(&format!("n{number}"), "memory", &arguments);
        }
        Reply::says(&format!("n{number} {question}"))
    })
}

/// The agents, the script and the configuration; the path of the last.
fn furnish(dir: &Path, model: &Web) -> PathBuf {
    std::fs::create_dir_all(dir.join("data/agents")).unwrap();
    for (name, capability, more, told) in AGENTS {
        let limits = "resource_limits: {tool_call_timeout: 2m, response_timeout: 2m}";
        let text = format!(
            "---\nname: {name}\nversion: 1.0.0\ncapabilities: [{capability}]\n{more}\n{limits}\n---\n{told}\n"
        );
        std::fs::write(dir.join(format!("data/agents/{name}.md")), text).unwrap();
    }
    let script = dir.join("rules.yaml");
    std::fs::write(&script, SCRIPT).unwrap();
    let config = dir.join("caxton.yaml");
    let rows = format!(
        "agents: {{tool_call_timeout: 2m}}\nconversation_processing: {{batch_timeout: 1ms}}\nllm:\n  default: rules\n  \
         providers:\n    - {{name: rules, kind: scripted, script: '{}', retries: 0}}\n    - {{name: counted, kind: openai, \
         base_url: '{}', model: m, stream: false, retries: 0, breaker_failures: 0, max_concurrent: 64}}\n",
        script.display(),
        model.url("/v1")
    );
    std::fs::write(&config, rows).unwrap();
    config
}

#[test]
fn turns_that_are_cut_off_by_sigkill_are_finished_once() {
    let (kills, seed) = (number_from("SIMULATION_KILLS", 5), number_from("SIMULATION_SEED", 1));
    eprintln!("{kills} kills in the middle of turns, SIMULATION_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let (asked, ticks) = (Asked::default(), Arc::new(Ticks::default()));
    let model = counted_model(Arc::clone(&asked), Arc::clone(&ticks));
    let config = furnish(dir.path(), &model);
    let (data, flags) = (dir.path().join("data"), ["--keyword-only", "--config", config.to_str().unwrap()]);
    let mut server = Server::start(&data, &flags);
    let town = Arc::new(Town {
        base: Mutex::new(server.base().to_owned()),
        done: AtomicBool::new(false),
        ticks: Arc::clone(&ticks),
        asked: Mutex::default(),
    });
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|client| {
            let town = Arc::clone(&town);
            std::thread::spawn(move || converse(client, &town, seed))
        })
        .collect();
    let mut dice = Dice(seed);
    for _ in 0..kills {
        assert!(ticks.wait(dice.roll(40)), "nothing happens any more");
        assert!(!clients.iter().any(std::thread::JoinHandle::is_finished), "a client met a wrong answer");
        // The moment of a kill is between two events, not always at one.
        std::thread::sleep(Duration::from_micros(dice.roll(5_000)));
        server.kill();
        server = Server::start(&data, &flags);
        server.base().clone_into(&mut town.base.lock().unwrap());
    }
    town.done.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    await_empty_inboxes(server.base());
    server.stop();
    let told = Told::read(&data);
    told.check(&town.asked.lock().unwrap(), &asked.lock().unwrap());
    assert!(kills < 5 || told.resumed() > 0, "no kill met a turn: nothing was tested");
    check_rebuild(&data);
}

/// A message is done with a moment after its answer was sent.
fn await_empty_inboxes(base: &str) {
    let started = Instant::now();
    for (agent, ..) in AGENTS {
        loop {
            let (status, page) = get(base, &format!("/api/v1/agents/{agent}/inbox")).unwrap();
            assert_eq!(status, 200, "{page}");
            if page["waiting"] == 0 {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "left in the inbox of {agent}: {page}");
            std::thread::yield_now();
        }
    }
}

/// The log when all is over.
struct Told(Vec<Record>);

impl Told {
    fn read(data: &Path) -> Self {
        let engine = Engine::start(&EngineOptions::new(data), &mut |_| {}).unwrap();
        let records = engine.log().scan(Seq::FIRST, &Filter::default()).map(Result::unwrap).collect();
        engine.stop();
        Self(records)
    }

    fn check(&self, asked: &BTreeMap<String, Question>, model: &BTreeMap<(String, u64), u64>) {
        self.check_answers(asked);
        let again = self.check_models(model);
        self.check_lanes();
        self.check_memory(asked);
        self.check_calls(asked);
        eprintln!(
            "{} questions, {} events, {} turns resumed, {again} requests to a model made again",
            asked.len(),
            self.0.len(),
            self.resumed()
        );
    }

    /// Turns that were begun before a start of the server and ended behind it.
    fn resumed(&self) -> usize {
        let (mut life, mut resumed) = (0, 0);
        let mut begun: BTreeMap<TurnId, i32> = BTreeMap::new();
        for record in &self.0 {
            match &record.event {
                Event::System(SystemEvent::ServerStarted { .. }) => life += 1,
                Event::Turn(TurnEvent::Started { turn, .. }) => _ = begun.entry(*turn).or_insert(life),
                Event::Turn(
                    TurnEvent::Finished { turn, .. } | TurnEvent::Failed { turn, will_retry: false, .. },
                ) => {
                    resumed += usize::from(begun.get(turn).is_some_and(|of| *of < life));
                }
                _ => (),
            }
        }
        resumed
    }

    fn messages(&self) -> impl Iterator<Item = (Seq, &caxton_events::conversation::Message)> {
        self.0.iter().filter_map(|record| match &record.event {
            Event::Conversation(ConversationEvent::MessageSent(message)) => Some((record.seq, &**message)),
            _ => None,
        })
    }

    fn turns(&self) -> impl Iterator<Item = &TurnEvent> {
        self.0
            .iter()
            .filter_map(|record| if let Event::Turn(event) = &record.event { Some(event) } else { None })
    }

    /// Each question has one answer, and it is the right one; those of a lane came in the order of the questions.
    fn check_answers(&self, asked: &BTreeMap<String, Question>) {
        let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut lanes: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (seq, answer) in
            self.messages().filter(|(_, message)| message.receivers[0].as_str().starts_with("client-"))
        {
            let word = answer.in_reply_to.as_deref().unwrap_or_else(|| panic!("{answer:?} answers nothing"));
            let question = asked.get(word).unwrap_or_else(|| panic!("{answer:?} answers what nobody asked"));
            *answers.entry(word).or_default() += 1;
            let (text, said) = (&question.text, answer.content.as_str());
            let says = match (question.whom, text.starts_with("refuse")) {
                ("work", true) => said == format!("spare did {text}"),
                ("work", false) => said == format!("first did {text}"),
                ("asker", _) => said.starts_with("heard n") && said.ends_with(&format!(" say for {text}")),
                _ => said.starts_with('n') && said.ends_with(text),
            };
            assert!(says, "{seq} answers {text:?} of {} with {said:?}", question.whom);
            assert_eq!(answer.receivers[0].as_str(), question.client);
            if question.whom != "work" {
                let lane = lanes.entry((question.whom, &question.conversation)).or_default();
                assert!(*lane < question.seq, "{seq}: {text:?} was answered behind a later question");
                *lane = question.seq;
            }
        }
        for (id, question) in asked {
            let found = answers.get(id.as_str()).copied().unwrap_or(0);
            assert_eq!(found, 1, "{:?} of {} has {found} answers", question.text, question.client);
        }
    }

    /// No request to a model was answered twice, and none was made again when its answer was recorded. How many were
    /// made again because a kill came before that.
    fn check_models(&self, model: &BTreeMap<(String, u64), u64>) -> usize {
        let contents: BTreeMap<Seq, &str> =
            self.messages().map(|(seq, message)| (seq, message.content.as_str())).collect();
        let mut turns: BTreeMap<TurnId, (&AgentId, Seq)> = BTreeMap::new();
        let mut recorded: BTreeSet<(&AgentId, Seq, u32)> = BTreeSet::new();
        let mut counted = 0;
        for event in self.turns() {
            match event {
                TurnEvent::Started { turn, agent, message, .. } => _ = turns.insert(*turn, (agent, *message)),
                TurnEvent::ModelAnswered { turn, step, provider, text, tool_calls, .. } => {
                    let (agent, message) = turns[turn];
                    let is_first = recorded.insert((agent, message, *step));
                    assert!(is_first, "{agent} has two answers in step {step} to the message at {message}");
                    if provider != "counted" {
                        continue;
                    }
                    counted += 1;
                    let said = tool_calls.first().map_or(text.as_str(), |call| call.id.as_str());
                    let number = said[1..].split(' ').next().unwrap().parse::<u64>().unwrap();
                    let newest = model[&(contents[&message].to_owned(), u64::from(*step))];
                    assert_eq!(
                        number, newest,
                        "{agent} asked again for step {step} of {:?}",
                        contents[&message]
                    );
                }
                _ => (),
            }
        }
        assert_eq!(counted, model.len(), "a question to the model has no recorded answer");
        model.values().max().map_or(0, |requests| *requests as usize) - counted
    }

    /// In a conversation an agent takes up one message at a time, in their order, and only questions.
    fn check_lanes(&self) {
        let questions: BTreeMap<Seq, bool> =
            self.messages().map(|(seq, message)| (seq, message.performative.expects_reply())).collect();
        let mut lanes: BTreeMap<(&AgentId, &ConversationId), (Seq, bool)> = BTreeMap::new();
        let mut turns: BTreeMap<TurnId, (&AgentId, &ConversationId)> = BTreeMap::new();
        for event in self.turns() {
            match event {
                TurnEvent::Started { turn, agent, conversation, message, .. } => {
                    turns.insert(*turn, (agent, conversation));
                    let lane = lanes.entry((agent, conversation)).or_insert((Seq::ZERO, false));
                    let (newest, is_open) = *lane;
                    let in_order = if is_open { *message == newest } else { *message > newest };
                    assert!(in_order, "{agent} took up {message} of {conversation} when it was at {newest}");
                    assert!(questions[message], "{agent} took up {message}, which is no question");
                    *lane = (*message, true);
                }
                TurnEvent::Finished { turn, .. } | TurnEvent::Failed { turn, will_retry: false, .. } => {
                    lanes.get_mut(&turns[turn]).unwrap().1 = false;
                }
                _ => (),
            }
        }
        assert!(lanes.values().all(|(_, is_open)| !is_open), "a turn has no end");
    }

    /// What a tool stores is stored once, and so is what an agent remembers by itself.
    fn check_memory(&self, asked: &BTreeMap<String, Question>) {
        let mut entities: BTreeMap<&str, usize> = BTreeMap::new();
        let mut observations: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &self.0 {
            match &record.event {
                Event::Memory(MemoryEvent::EntityCreated { name, .. }) => {
                    *entities.entry(name).or_default() += 1;
                }
                Event::Memory(MemoryEvent::ObservationAdded { content, .. }) => {
                    *observations.entry(content).or_default() += 1;
                }
                _ => (),
            }
        }
        // A call that is made again after a kill is told what it was told, or would have been told, the first time.
        for event in self.turns() {
            if let TurnEvent::ToolAnswered { tool, result, .. } = event
                && tool == "memory"
            {
                let result: Value = serde_json::from_str(result).unwrap();
                assert_eq!(result["status"], "created", "{result}");
            }
        }
        for question in asked.values() {
            let (text, client) = (question.text.as_str(), &question.client);
            match question.whom {
                "keeper" => {
                    assert_eq!(entities.get(text), Some(&1), "{text:?}");
                    assert_eq!(observations.get(text), Some(&1), "{text:?}");
                }
                "talker" => {
                    let remembered = format!("{client}: {text}");
                    assert_eq!(observations.get(remembered.as_str()), Some(&1), "{remembered:?}");
                }
                _ => (),
            }
        }
        assert!(observations.values().all(|count| *count == 1), "{observations:?}");
    }

    /// What a tool asks another agent is asked once, and what one provider refuses is given to the other once.
    fn check_calls(&self, asked: &BTreeMap<String, Question>) {
        let mut said: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (_, message) in self.messages() {
            for receiver in &message.receivers {
                *said.entry((receiver.as_str(), message.content.as_str())).or_default() += 1;
            }
        }
        let times = |agent: &str, text: &str| said.get(&(agent, text)).copied().unwrap_or(0);
        for question in asked.values() {
            let text = question.text.as_str();
            match question.whom {
                "asker" => assert_eq!(times("talker", &format!("say for {text}")), 1, "{text:?}"),
                "work" => {
                    let passed_on = usize::from(text.starts_with("refuse"));
                    assert_eq!((times("first", text), times("spare", text)), (1, passed_on), "{text:?}");
                }
                agent => assert_eq!(times(agent, text), 1, "{text:?}"),
            }
        }
    }
}
