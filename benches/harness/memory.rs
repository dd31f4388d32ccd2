//! Memories to ask, the same in each run: rows drawn from a fixed seed, folded directly or written through an engine.

use std::hint::black_box;
use std::sync::Arc;

use caxton::commands::{EntityRef, NewEntity, NewObservation, NewRelation, OnExisting, Write};
use caxton::engine::{Engine, EngineOptions, Outcome, Submission};
use caxton_events::memory::Validity;
use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};
use caxton_projections::GraphReader;
use caxton_projections::embedding::EmbeddingService;
use caxton_projections::graph::{Direction, WalkQuery, WalkStrategy};
use caxton_projections::text::KeywordQuery;
use caxton_projections::view::Wait;
use tempfile::TempDir;

/// Words of an observation in an engine's memory.
const WORDS: usize = 12;
/// Writes of one submission.
const GROUP: usize = 500;
/// Relations of an entity in an engine's memory.
const RELATIONS: u64 = 2;
/// Different questions, asked in turn: one sample asks all of them many times.
const QUESTIONS: usize = 64;

/// A small generator with a fixed seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Words are drawn as in language: the n-th most frequent about 1/n as often as the first.
    fn word(&mut self) -> u64 {
        let u = self.below(1 << 30) as f64 / f64::from(1 << 30);
        50_000_f64.powf(u) as u64
    }

    pub(crate) fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| format!("w{}", self.word())).collect::<Vec<_>>().join(" ")
    }
}

/// What a record looks like around its event.
pub(crate) fn record(seq: u64, event: MemoryEvent) -> Record {
    Record {
        seq: Seq(seq),
        recorded_at: Timestamp::from_unix_micros(1_700_000_000_000_000 + seq),
        stream: "global".to_owned(),
        actor: "bench".to_owned(),
        correlation: None,
        causation: None,
        event: Event::Memory(event),
    }
}

/// Entities, each followed by its two observations of so many words, then the relations.
pub(crate) fn records(entities: u64, relations: u64, words: usize) -> Vec<Record> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut records = Vec::with_capacity((entities * 3 + relations) as usize);
    let validity = Validity::default();
    let mut push = |event| records.push(record(records.len() as u64 + 1, event));
    for entity in 0..entities {
        let id = MemoryId(entity * 3 + 1);
        push(MemoryEvent::EntityCreated {
            id,
            scope: Scope::Global,
            name: format!("entity {entity} {}", random.text(2)),
            entity_type: format!("type{}", entity % 20),
            metadata: None,
            confidence: 1.0,
            validity,
        });
        for n in 1..=2 {
            let content = random.text(words);
            push(MemoryEvent::ObservationAdded { id: MemoryId(id.0 + n), entity: id, content, validity });
        }
    }
    for relation in 0..relations {
        push(MemoryEvent::RelationCreated {
            id: MemoryId(entities * 3 + 1 + relation),
            scope: Scope::Global,
            from: MemoryId(random.below(entities) * 3 + 1),
            to: MemoryId(random.below(entities) * 3 + 1),
            relation_type: format!("relation{}", random.below(10)),
            strength: random.below(100) as f64 / 100.0,
            confidence: 1.0,
            metadata: None,
            validity,
        });
    }
    records
}

pub(crate) fn one_hop(reader: &GraphReader, entity: MemoryId) {
    black_box(reader.relations_of(entity, Direction::Both, &[], 0.0, None, 100).unwrap());
}

pub(crate) fn two_hops(reader: &GraphReader, root: MemoryId) {
    let query = WalkQuery {
        root,
        direction: Direction::Both,
        max_depth: 2,
        relation_types: Vec::new(),
        min_strength: 0.0,
        scopes: vec![Scope::Global],
        valid_at: None,
        strategy: WalkStrategy::BreadthFirst,
        nodes_max: 1_000,
    };
    black_box(reader.walk(&query).unwrap());
}

pub(crate) fn keyword(reader: &GraphReader, text: String) {
    let query = KeywordQuery { text, scopes: vec![Scope::Global], limit: 10, ..KeywordQuery::default() };
    black_box(reader.keyword(&query).unwrap());
}

/// An engine with a memory in it, on a folder of its own. Both are gone when it is dropped.
pub(crate) struct Memory {
    pub(crate) engine: Engine,
    ids: Vec<MemoryId>,
    questions: Vec<String>,
    asked: usize,
    random: Random,
    named: u64,
    _dir: TempDir,
}

impl Memory {
    /// So many entities with two observations and two relations each; searches include them.
    pub(crate) fn of(entities: u64, embedding: Option<Arc<EmbeddingService>>) -> Self {
        let dir = super::scratch();
        let options = EngineOptions { embedding, ..EngineOptions::new(dir.path()) };
        let engine = Engine::start(&options, &mut |_| ()).unwrap();
        let mut random = Random(42);
        let questions = (0..QUESTIONS).map(|_| random.text(4)).collect();
        let mut memory = Self { engine, ids: Vec::new(), questions, asked: 0, random, named: 0, _dir: dir };
        let mut last = Seq(0);
        while (memory.ids.len() as u64) < entities {
            let count = (entities as usize - memory.ids.len()).min(GROUP);
            let outcome = memory.write(count, 2);
            memory.ids.extend(outcome.results.iter().map(|result| result.as_ref().unwrap().id));
            last = outcome.last;
        }
        let mut relations = entities * RELATIONS;
        while relations > 0 {
            let count = relations.min(GROUP as u64);
            let writes = (0..count).map(|_| memory.relation()).collect();
            last = memory.submit(writes).last;
            relations -= count;
        }
        memory.engine.view().wait_for(last, Wait::Indexed, std::time::Duration::from_mins(10)).unwrap();
        memory
    }

    /// One of the first entities, another one each time.
    pub(crate) fn entity(&mut self) -> MemoryId {
        self.ids[self.random.below(self.ids.len() as u64) as usize]
    }

    /// The next of the questions.
    pub(crate) fn question(&mut self) -> String {
        self.asked += 1;
        self.questions[self.asked % QUESTIONS].clone()
    }

    pub(crate) fn graph(&self) -> GraphReader {
        self.engine.view().graph().clone()
    }

    /// So many new entities in one command, with so many observations each: durable and folded.
    pub(crate) fn write(&mut self, count: usize, observations: usize) -> Outcome {
        let writes = (0..count).map(|_| self.new_entity(observations)).collect();
        self.submit(writes)
    }

    fn submit(&self, writes: Vec<Write>) -> Outcome {
        let submission = Submission {
            actor: "filler".parse().unwrap(),
            workspace: "default".parse().unwrap(),
            named: None,
            correlation: None,
            causation: None,
            idempotency: None,
            writes,
            atomic: true,
            wait: Wait::Applied,
        };
        self.engine.submit_blocking(submission).unwrap()
    }

    fn new_entity(&mut self, observations: usize) -> Write {
        self.named += 1;
        let observation = |random: &mut Random| NewObservation {
            content: random.text(WORDS),
            validity: Validity::default(),
        };
        Write::CreateEntity(NewEntity {
            scope: Scope::Global,
            name: format!("entity {} {}", self.named, self.random.text(2)),
            entity_type: format!("type{}", self.named % 20),
            observations: (0..observations).map(|_| observation(&mut self.random)).collect(),
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
            on_existing: OnExisting::Merge,
        })
    }

    fn relation(&mut self) -> Write {
        let (from, mut to) = (self.entity(), self.entity());
        while to == from {
            to = self.entity();
        }
        let end = |id| EntityRef::Id { id, scopes: vec![Scope::Global] };
        Write::CreateRelation(NewRelation {
            scope: Scope::Global,
            from: end(from),
            to: end(to),
            relation_type: format!("relation{}", self.random.below(10)),
            strength: 0.5,
            confidence: 1.0,
            metadata: None,
            validity: Validity::default(),
            bidirectional: false,
            on_existing: OnExisting::Merge,
        })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.engine.stop();
    }
}
