//! Starting with nothing but the log and the vectors by content.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use caxton::engine::{Engine, EngineOptions};
use caxton_events::conversation::{Content, Message, Performative, Priority};
use caxton_events::memory::Validity;
use caxton_events::{AgentEvent, ConversationEvent, Draft, Event, MemoryEvent, MemoryId, MessageId, Scope};
use caxton_projections::embedding::{
    DIMENSIONS, EmbedError, Embedder, EmbeddingService, ModelIdentity, Precision, ServiceOptions,
};
use caxton_projections::view::Wait;

use super::written::{log, text};
use crate::crowd::table::Table;

/// Longest time to be ready.
const SECONDS_MAX: f64 = 15.0;
/// Longer than any run takes.
const PATIENCE: Duration = Duration::from_mins(30);
/// Events after which the pattern begins anew: an entity, four observations, a relation, a message …
const PATTERN: u64 = 10;

/// A model that draws a vector for a text, and counts how often it was asked.
struct Drawn {
    identity: ModelIdentity,
    asked: Arc<AtomicU64>,
}

impl Embedder for Drawn {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.asked.fetch_add(texts.len() as u64, Ordering::Relaxed);
        let vector = |text: &&str| {
            let mut state =
                u64::from_le_bytes(*blake3::hash(text.as_bytes()).as_bytes().first_chunk().unwrap()) | 1;
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            };
            let mut vector: Vec<f32> = (0..DIMENSIONS).map(|_| next()).collect();
            let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
            for number in &mut vector {
                *number /= length;
            }
            vector
        };
        Ok(texts.iter().map(vector).collect())
    }

    fn chunk(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        if text.is_empty() { Vec::new() } else { std::iter::once(0..text.len()).collect() }
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count() + 2
    }
}

fn service(asked: &Arc<AtomicU64>) -> Arc<EmbeddingService> {
    let identity = ModelIdentity {
        name: "drawn".to_owned(),
        weights_sha256: "0".repeat(64),
        dimensions: DIMENSIONS,
        precision: Precision::Fp32,
    };
    let started = Instant::now();
    let options = ServiceOptions::new(Arc::new(move || started.elapsed()));
    let model = Drawn { identity, asked: Arc::clone(asked) };
    Arc::new(EmbeddingService::start(Arc::new(model), options).unwrap())
}

/// The n-th of mixed events: of ten, two entities, four observations, a relation and three messages.
pub(crate) fn mixed(n: u64) -> Draft {
    let (round, step) = (n / PATTERN, n % PATTERN);
    let (first, agent) = (round * PATTERN + 1, format!("agent-{}", round % 100));
    let id = MemoryId(n + 1);
    let event: Event = match step {
        // Each agent is known before it does anything.
        0 if round < 100 => AgentEvent::ExternalRegistered {
            agent: agent.parse().unwrap(),
            workspace: "default".parse().unwrap(),
        }
        .into(),
        0..2 => MemoryEvent::EntityCreated {
            id,
            scope: Scope::Agent(agent.parse().unwrap()),
            name: format!("entity {n}"),
            entity_type: "thing".to_owned(),
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
        }
        .into(),
        2..6 => MemoryEvent::ObservationAdded {
            id,
            entity: MemoryId(first + 1),
            content: text(n, 120),
            validity: Validity::default(),
        }
        .into(),
        6 if round >= 100 => MemoryEvent::RelationCreated {
            id,
            scope: Scope::Agent(agent.parse().unwrap()),
            from: MemoryId(first),
            to: MemoryId(first + 1),
            relation_type: "beside".to_owned(),
            strength: 0.5,
            confidence: 1.0,
            metadata: None,
            validity: Validity::default(),
        }
        .into(),
        _ => message(n, &agent, round),
    };
    let stream = if matches!(event, Event::Memory(_)) { format!("agent:{agent}") } else { "talk".to_owned() };
    Draft { stream, actor: agent, correlation: None, causation: None, event }
}

fn message(n: u64, agent: &str, round: u64) -> Event {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    let conversation = format!("conversation-{}", round % 10_000).parse().unwrap();
    // The first message of a conversation stands behind its opening.
    if n % PATTERN == 7 && round < 10_000 {
        return ConversationEvent::Opened {
            conversation,
            topic: None,
            protocol: None,
            parent: None,
            idle_timeout_millis: 3_600_000_000,
            life_timeout_millis: 3_600_000_000,
            participants_max: 100,
            messages_max: 1_000_000,
        }
        .into();
    }
    ConversationEvent::MessageSent(Box::new(Message {
        id: MessageId::from_bytes(id),
        id_given: false,
        performative: Performative::Inform,
        sender: agent.parse().unwrap(),
        receivers: vec![format!("agent-{}", (round + 1) % 100).parse().unwrap()],
        routing: None,
        conversation,
        content: Content::Text(text(n, 120)),
        priority: Priority::Normal,
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        expires_at: None,
        extras: None,
    }))
    .into()
}

/// Starts an engine and waits until every part has the log's end; the seconds that takes.
pub(crate) fn start(dir: &Path, asked: &Arc<AtomicU64>) -> f64 {
    let mut options = EngineOptions::new(dir);
    options.embedding = Some(service(asked));
    let started = Instant::now();
    let engine = Engine::start(&options, &mut |_| ()).unwrap();
    let head = engine.log().head().seq;
    engine.view().wait_for(head, Wait::Indexed, PATIENCE).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    engine.stop();
    seconds
}

/// Removes everything that was folded; the vectors by content stay.
pub(crate) fn remove_projections(dir: &Path) {
    for folder in ["graph", "talk"] {
        fs::remove_dir_all(dir.join(folder)).unwrap();
    }
    for entry in fs::read_dir(dir.join("vectors")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "keys" && extension != "vecs") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Starts with the projections gone.
pub(crate) fn without_projections(dir: &Path, events: u64, table: &mut Table) {
    let dir = dir.join("restart");
    log(&dir, events, mixed);
    let asked = Arc::new(AtomicU64::new(0));
    let first = start(&dir, &asked);
    let texts = asked.load(Ordering::Relaxed);
    remove_projections(&dir);
    let seconds = start(&dir, &asked);
    assert_eq!(asked.load(Ordering::Relaxed), texts, "the model is not asked again");
    table.note(
        format!("first start over {events} mixed events, {texts} texts embedded"),
        format!("{first:.1} s"),
    );
    table.row("start with the projections gone", format!("{seconds:.1} s"), "15 s", seconds < SECONDS_MAX);
    let _ = fs::remove_dir_all(&dir);
}
