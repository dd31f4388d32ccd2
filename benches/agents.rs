//! Agents from files: how long a turn takes Caxton itself, and how soon a changed file is in use.
//!
//! `cargo bench --bench agents` runs 20 agents with a scripted model that answers at once, at 100 conversations a second,
//! over a memory of 2,000 entities; then it renames files into place beside none and beside 1,000 others and asks over
//! HTTP until the new version is shown. `--model DIR` (or `CAXTON_MODEL_DIR`) searches memory by meaning as well,
//! `--seconds N` and `--rate N` change the load, `--reloads N` the renames.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench stops at the first surprise and speaks"
)]

#[path = "crowd/medium.rs"]
#[allow(dead_code, reason = "each bench uses its part")]
mod medium;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton::agents::{
    AgentDirectory, AgentRuntime, DirectoryOptions, EngineLog, Equipment, open_conversations,
};
use caxton::api::rest::{RestOptions, serve};
use caxton::commands::talk::{Outgoing, To};
use caxton::commands::{NewEntity, NewObservation, OnExisting, Write};
use caxton::config::{Config, LlmProvider, ProviderKind, Rows};
use caxton::engine::{Engine, EngineOptions, Submission, Timed};
use caxton::llm::{Registry, Surroundings};
use caxton::toolbox::memory::Ranking;
use caxton_events::conversation::{Content, Performative};
use caxton_events::memory::Validity;
use caxton_events::{AgentId, Scope, Seq};
use caxton_projections::embedding::{self, EmbeddingService, ModelOptions, ServiceOptions};
use caxton_projections::view::Wait;

use medium::{at, syncs};

const AGENTS: usize = 20;
const ENTITIES: usize = 2_000;
const OTHER_FILES: usize = 1_000;

struct Options {
    model: Option<PathBuf>,
    seconds: u64,
    rate: u64,
    reloads: usize,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            model: std::env::var_os("CAXTON_MODEL_DIR").map(PathBuf::from),
            seconds: 20,
            rate: 100,
            reloads: 200,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().expect("a value behind the flag");
            match name.as_str() {
                "--model" => options.model = Some(PathBuf::from(value())),
                "--seconds" => options.seconds = value().parse().unwrap(),
                "--rate" => options.rate = value().parse().unwrap(),
                "--reloads" => options.reloads = value().parse().unwrap(),
                "--bench" => (),
                other => panic!("unknown flag {other}"),
            }
        }
        options
    }
}

/// A server without its door.
struct Inside {
    engine: Engine,
    directory: AgentDirectory,
    turns: AgentRuntime,
}

impl Inside {
    fn start(dir: &Path, model: Option<&Path>) -> Self {
        let script = dir.join("rules.yaml");
        fs::write(&script, "rules:\n  - answer: \"{{question}} {{fact}}\"\n").unwrap();
        let mut config = Config::default();
        "script".clone_into(&mut config.llm.default);
        config.agents.max_agents = 100_000;
        config.llm.providers = Rows(vec![LlmProvider {
            name: "script".to_owned(),
            kind: ProviderKind::Scripted,
            script: Some(script),
            ..LlmProvider::default()
        }]);
        let mut options = EngineOptions::new(dir);
        options.embedding = model.map(|model| {
            let loaded = embedding::load(model, &ModelOptions::default()).unwrap();
            let started = Instant::now();
            let service = ServiceOptions::new(Arc::new(move || started.elapsed()));
            Arc::new(EmbeddingService::start(Arc::new(Timed(loaded)), service).unwrap())
        });
        let engine = Engine::start(&options, &mut |_| ()).unwrap();
        let models = Registry::build(&config.llm, &Surroundings::of_machine(&|_| None, Duration::ZERO));
        let equipment = Equipment::new(&config, &engine, models.unwrap(), Ranking::default());
        let options = DirectoryOptions {
            conversations: open_conversations(engine.clone()),
            ..DirectoryOptions::new(&config, dir)
        };
        let log = Arc::new(EngineLog::of(engine.clone()));
        let directory = AgentDirectory::start(log, options).unwrap();
        let turns = AgentRuntime::start(&config, &engine, &directory, equipment).unwrap();
        Self { engine, directory, turns }
    }

    fn stop(self) {
        self.turns.stop();
        self.directory.stop();
        self.engine.stop();
    }
}

fn put(dir: &Path, name: &str, version: usize) {
    let folder = dir.join("agents");
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "---\nname: {name}\nversion: 1.0.{version}\ncapabilities: [talk]\ntools: [memory]\nmemory: {{scope: global}}\n---\nYou answer.\n"
    );
    fs::write(dir.join(".new"), text).unwrap();
    fs::rename(dir.join(".new"), folder.join(format!("{name}.md"))).unwrap();
}

fn remember(engine: &Engine) {
    let actor: AgentId = "filler".parse().unwrap();
    for chunk in 0..ENTITIES / 100 {
        let write = |at: usize| {
            let number = chunk * 100 + at;
            Write::CreateEntity(NewEntity {
                name: format!("thing {number}"),
                entity_type: "thing".to_owned(),
                scope: Scope::Global,
                observations: vec![NewObservation {
                    content: format!(
                        "thing {number} is kept in room {} of house {}",
                        number % 97,
                        number % 13
                    ),
                    validity: Validity::default(),
                }],
                metadata: None,
                confidence: 1.0,
                validity: Validity::default(),
                on_existing: OnExisting::Merge,
            })
        };
        let submission = Submission {
            actor: actor.clone(),
            workspace: "default".parse().unwrap(),
            named: None,
            correlation: None,
            causation: None,
            idempotency: None,
            writes: (0..100).map(write).collect(),
            atomic: true,
            wait: Wait::Indexed,
        };
        engine.submit_blocking(submission).unwrap();
    }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// Times of turns in milliseconds, from the moment each question was due until its answer was in the asker's inbox.
async fn ask(engine: Engine, rate: u64, seconds: u64) -> Vec<f64> {
    let asker: AgentId = "asker".parse().unwrap();
    let total = rate * seconds;
    let (sent, mut due) = tokio::sync::mpsc::unbounded_channel();
    let (sender, from) = (engine.clone(), asker.clone());
    let started = Instant::now();
    tokio::spawn(async move {
        for number in 0..total {
            let at = started + Duration::from_micros(number * 1_000_000 / rate);
            tokio::time::sleep_until(at.into()).await;
            let to = To::Agents(vec![format!("agent-{}", number as usize % AGENTS).parse().unwrap()]);
            let question = Content::Text(format!("where is thing {}?", number % ENTITIES as u64));
            let wish = Outgoing::new(from.clone(), Performative::Query, to, question);
            let (engine, sent) = (sender.clone(), sent.clone());
            tokio::spawn(async move {
                let outcome = engine.send(wish).await.unwrap();
                sent.send((outcome.id.to_string(), at)).unwrap();
            });
        }
    });
    let mut asked: HashMap<String, Instant> = HashMap::new();
    let mut early: HashMap<String, Instant> = HashMap::new();
    let (mut times, mut after) = (Vec::new(), Seq::ZERO);
    while (times.len() as u64) < total {
        engine.wait_inbox(&asker, after, Duration::from_millis(20)).await;
        let now = Instant::now();
        let seqs = engine.inbox(&asker, after, 1_000);
        after = seqs.last().copied().unwrap_or(after);
        let reading = engine.clone();
        let messages = tokio::task::spawn_blocking(move || reading.messages(&seqs).unwrap()).await.unwrap();
        for (_, message) in messages {
            assert_eq!(message.performative, Performative::Inform, "{:?}", message.content);
            early.insert(message.in_reply_to.clone().unwrap(), now);
        }
        while let Ok((id, at)) = due.try_recv() {
            asked.insert(id, at);
        }
        early.retain(|id, answered| {
            let Some(at) = asked.remove(id) else { return true };
            times.push(answered.duration_since(at).as_secs_f64() * 1e3);
            false
        });
    }
    times.sort_by(f64::total_cmp);
    times
}

fn turns(options: &Options) -> String {
    let dir = tempfile::tempdir().unwrap();
    for agent in 0..AGENTS {
        put(dir.path(), &format!("agent-{agent}"), 0);
    }
    let inside = Inside::start(dir.path(), options.model.as_deref());
    remember(&inside.engine);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(ask(inside.engine.clone(), options.rate, 2));
    // Another asker would do as well; the inbox of this one is read from its end.
    let end = inside.engine.log().head().seq;
    let asker: AgentId = "asker".parse().unwrap();
    let wish =
        caxton::commands::talk::Upkeep::Acknowledge { agent: asker.clone(), through: end, also: vec![] };
    inside.engine.upkeep_blocking(&asker, wish).unwrap();
    let times = runtime.block_on(ask(inside.engine.clone(), options.rate, options.seconds));
    let sync = at(&syncs(dir.path(), 101), 0.5).as_secs_f64() * 1e3;
    inside.stop();
    let found = if options.model.is_some() { "meaning and words" } else { "words" };
    format!(
        "| agent turn, {AGENTS} agents, {} conversations/s, memory by {found} | p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; fdatasync p50 {sync:.2} ms | p50 10, p99 50 |\n",
        options.rate,
        percentile(&times, 0.5),
        percentile(&times, 0.99),
        times[times.len() - 1],
    )
}

/// One GET on a connection that stays open.
fn get(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET /api/v1{path} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: identity\r\n\r\n")
        .unwrap();
    let (mut reply, mut bytes) = (Vec::new(), [0; 16 << 10]);
    loop {
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "the server hung up");
        reply.extend_from_slice(&bytes[..read]);
        let text = String::from_utf8_lossy(&reply);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().trim().parse::<usize>().unwrap() {
                return body.to_owned();
            }
        }
    }
}

/// Times from the rename of a file to an answer that shows its version, in milliseconds.
fn reloads(others: usize, count: usize) -> String {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "changing", 0);
    for other in 0..others {
        put(dir.path(), &format!("other-{other}"), 0);
    }
    let inside = Inside::start(dir.path(), None);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let options = RestOptions {
        agents: Some(inside.directory.clone()),
        turns: Some(inside.turns.clone()),
        ..RestOptions::default()
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = inside.engine.clone();
    let served = runtime.spawn(async move {
        serve(listener, serving, options, async move { drop(stopped.await) }).await.unwrap();
    });
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut times = Vec::new();
    for version in 1..=count {
        // The file is written before; what is measured begins with the rename.
        let started = Instant::now();
        put(dir.path(), "changing", version);
        let shown = format!("\"version\":\"1.0.{version}\"");
        while !get(&mut stream, "/config-agents/changing").contains(&shown) {}
        times.push(started.elapsed().as_secs_f64() * 1e3);
        // A file that was just read is not read again within 100 ms.
        std::thread::sleep(Duration::from_millis(110));
    }
    times.sort_by(f64::total_cmp);
    let _ = stop.send(());
    drop(stream);
    runtime.block_on(served).unwrap();
    inside.stop();
    format!(
        "| hot reload beside {others} other files, rename(2) to a GET that shows it, {count} times | p50 {:.2} ms, p99 {:.2} ms | p50 50, p99 200 |\n",
        percentile(&times, 0.5),
        percentile(&times, 0.99),
    )
}

fn main() {
    let options = Options::read();
    let mut table = "| what | figure | bar |\n|---|---|---|\n".to_owned();
    for row in [turns(&options), reloads(0, options.reloads), reloads(OTHER_FILES, options.reloads)] {
        let _ = write!(table, "{row}");
    }
    println!("{table}");
}
