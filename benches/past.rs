//! How much longer a question about the past takes than the same question about the present.
//!
//! `cargo bench --bench past -- [ENTITIES]` (default: 30,000) makes a memory of so many entities with two observations and
//! three relations each, and then changes or removes a third of everything. Each question is asked in turn of the present,
//! as of the last record (the same answer), and as of the record before the changes, and the medians are compared.

#![allow(clippy::print_stdout, reason = "a bench talks to a person")]
#![allow(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use caxton_events::memory::Validity;
use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};
use caxton_projections::embedding::{
    DIMENSIONS, EmbedError, Embedder, EmbeddingService, ModelIdentity, Precision, ServiceOptions, VectorStore,
};
use caxton_projections::graph::{Direction, EntityFilter, WalkQuery, WalkStrategy};
use caxton_projections::queries::Search;
use caxton_projections::talk::TalkStore;
use caxton_projections::text::KeywordQuery;
use caxton_projections::vector::{VectorOptions, VectorQuery, VectorReader, Vectors};
use caxton_projections::view::{Positions, Semantic, View};
use caxton_projections::{Graph, GraphReader, Projection, SqliteOptions};

const ROUNDS: usize = 400;
const WORDS: usize = 12;
const BATCH: usize = 1_000;

/// A small generator with a fixed seed: the same rows in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Words are drawn as in language: the n-th most frequent about 1/n as often as the first.
    fn text(&mut self, words: usize) -> String {
        let word = |random: &mut Self| {
            let u = random.below(1 << 30) as f64 / f64::from(1 << 30);
            format!("w{}", 20_000_f64.powf(u) as u64)
        };
        (0..words).map(|_| word(self)).collect::<Vec<_>>().join(" ")
    }
}

/// A model that hashes.
struct Hashing(ModelIdentity);

fn vector_of(text: &str) -> Vec<f32> {
    let mut bytes = vec![0; DIMENSIONS * 4];
    blake3::Hasher::new().update(text.as_bytes()).finalize_xof().fill(&mut bytes);
    let noise =
        bytes.chunks_exact(4).map(|four| four.iter().map(|&byte| f32::from(byte) - 127.5).sum::<f32>());
    let vector: Vec<f32> = noise.collect();
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|&x| (f64::from(x) / length) as f32).collect()
}

impl Embedder for Hashing {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| vector_of(text)).collect())
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        std::iter::once(0..text.len()).collect()
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len()
    }
}

/// The log: what is written first, where that ends, and what is changed then.
struct Story {
    random: Random,
    records: Vec<Record>,
}

impl Story {
    fn tell(&mut self, event: MemoryEvent) {
        let seq = self.records.len() as u64 + 1;
        self.records.push(Record {
            seq: Seq(seq),
            recorded_at: Timestamp::from_unix_micros(1_700_000_000_000_000 + seq),
            stream: "global".to_owned(),
            actor: "bench".to_owned(),
            correlation: None,
            causation: None,
            event: Event::Memory(event),
        });
    }

    /// Entity `n` has the number 6 n + 1, its observations the two behind it, its relations the three behind those.
    fn write(&mut self, entities: u64) -> Seq {
        let validity = Validity::default();
        for n in 0..entities {
            let id = MemoryId(n * 6 + 1);
            let (name, entity_type) = (format!("entity {n}"), format!("type{}", n % 20));
            let (metadata, confidence) = (None, 1.0);
            let scope = Scope::Global;
            self.tell(MemoryEvent::EntityCreated {
                id,
                scope,
                name,
                entity_type,
                metadata,
                confidence,
                validity,
            });
            for at in 1..=2 {
                let content = self.random.text(WORDS);
                self.tell(MemoryEvent::ObservationAdded {
                    id: MemoryId(id.0 + at),
                    entity: id,
                    content,
                    validity,
                });
            }
        }
        for n in 0..entities * 3 {
            let (id, from) = (MemoryId(n / 3 * 6 + 4 + n % 3), MemoryId(n / 3 * 6 + 1));
            let to = MemoryId(self.random.below(entities) * 6 + 1);
            let relation_type = format!("relation{}", n % 10);
            let (scope, strength, confidence, metadata) = (Scope::Global, 0.5, 1.0, None);
            self.tell(MemoryEvent::RelationCreated {
                id,
                scope,
                from,
                to,
                relation_type,
                strength,
                confidence,
                metadata,
                validity,
            });
        }
        Seq(self.records.len() as u64)
    }

    /// Changes every sixth row and removes every sixth observation and relation.
    fn change(&mut self, entities: u64) -> Seq {
        let validity = Validity::default();
        for n in (0..entities).step_by(6) {
            let id = MemoryId(n * 6 + 1);
            let (name, entity_type) = (format!("entity {n} renamed"), format!("type{}", n % 20));
            let (metadata, confidence) = (None, 1.0);
            self.tell(MemoryEvent::EntityUpdated { id, name, entity_type, metadata, confidence, validity });
        }
        for n in 0..entities {
            let entity = MemoryId(n * 6 + 1);
            let (note, relation) = (MemoryId(entity.0 + 1), MemoryId(entity.0 + 3));
            let content = self.random.text(WORDS);
            if n % 3 == 1 {
                self.tell(MemoryEvent::ObservationUpdated { id: note, entity, content, validity });
                let (strength, confidence, metadata) = (0.9, 1.0, None);
                self.tell(MemoryEvent::RelationUpdated {
                    id: relation,
                    strength,
                    confidence,
                    metadata,
                    validity,
                });
            } else if n % 3 == 2 {
                self.tell(MemoryEvent::ObservationRemoved { id: note, entity });
                self.tell(MemoryEvent::RelationRemoved { id: relation });
            }
        }
        Seq(self.records.len() as u64)
    }
}

/// Medians of a question in the present, as of the last record and as of the earlier one, in microseconds.
fn compare(what: &str, mut ask: impl FnMut(usize, usize)) {
    let mut micros = [const { Vec::<f64>::new() }; 3];
    for round in 0..ROUNDS {
        for (moment, micros) in micros.iter_mut().enumerate() {
            let start = Instant::now();
            ask(moment, round);
            micros.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    let median = |list: &mut Vec<f64>| {
        // The first rounds warm up.
        list.drain(..ROUNDS / 8);
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    let [present, last, earlier] = micros.each_mut().map(median);
    println!(
        "{what:<36} {present:>9.1} µs  {last:>9.1} µs {:>5.2} ×  {earlier:>9.1} µs {:>5.2} ×",
        last / present,
        earlier / present
    );
}

fn graph_questions(readers: &[GraphReader; 3], entities: u64) {
    let entity = |round: usize| MemoryId(round as u64 * 7_919 % entities * 6 + 1);
    compare("entity by its number", |at, round| {
        drop(black_box(readers[at].entity(entity(round)).unwrap()));
    });
    compare("observations of an entity", |at, round| {
        drop(black_box(readers[at].observations_of(entity(round), None, 100).unwrap()));
    });
    compare("relations of an entity", |at, round| {
        let found = readers[at].relations_of(entity(round), Direction::Both, &[], 0.0, None, 100);
        drop(black_box(found.unwrap()));
    });
    let filter = EntityFilter { scopes: vec![Scope::Global], limit: 50, ..EntityFilter::default() };
    compare("a page of entities", |at, round| {
        let filter = EntityFilter { after: Some(entity(round)), ..filter.clone() };
        drop(black_box(readers[at].list_entities(&filter).unwrap()));
    });
    for depth in [2, 3] {
        compare(&format!("walk, {depth} hops"), |at, round| {
            let query = WalkQuery {
                root: entity(round),
                direction: Direction::Both,
                max_depth: depth,
                relation_types: Vec::new(),
                min_strength: 0.0,
                scopes: vec![Scope::Global],
                valid_at: None,
                strategy: WalkStrategy::BreadthFirst,
                nodes_max: 1_000,
            };
            drop(black_box(readers[at].walk(&query).unwrap()));
        });
    }
    for (what, words) in [("keyword, 3 words", 3), ("keyword, 6 words", 6)] {
        let mut random = Random(42);
        let texts: Vec<String> = (0..ROUNDS).map(|_| random.text(words)).collect();
        compare(what, |at, round| {
            let text = texts[round].clone();
            let query =
                KeywordQuery { text, scopes: vec![Scope::Global], limit: 64, ..KeywordQuery::default() };
            drop(black_box(readers[at].keyword(&query).unwrap()));
        });
    }
    compare("stats", |at, _| drop(black_box(readers[at].stats(None).unwrap())));
}

fn vector_questions(reader: &VectorReader, moments: [Option<Seq>; 3]) {
    let vectors: Vec<Vec<f32>> = (0..ROUNDS).map(|round| vector_of(&format!("question {round}"))).collect();
    for (what, exact) in [("nearest 32 vectors", false), ("nearest 32 vectors, exact", true)] {
        compare(what, |at, round| {
            let query = VectorQuery {
                vector: &vectors[round],
                scopes: &[Scope::Global],
                entity_types: &[],
                valid_at: None,
                as_of: moments[at],
                min_similarity: None,
                limit: 32,
                exact,
            };
            drop(black_box(reader.search(&query).unwrap()));
        });
    }
}

/// Meaning and words together, as agents search. The model is not part of it: the vector of a question is kept.
fn hybrid_questions(views: &[View; 3]) {
    let mut random = Random(43);
    let texts: Vec<String> = (0..ROUNDS).map(|_| random.text(3)).collect();
    for text in &texts {
        views[0].semantic().unwrap().embedding.embed_query(text).unwrap();
    }
    for (what, limit) in [("hybrid search, 10 hits", 10), ("hybrid search, 50 hits", 50)] {
        compare(what, |at, round| {
            let (text, scopes) = (texts[round].clone(), vec![Scope::Global]);
            let search = Search { text, scopes, limit, observations: 3, ..Search::default() };
            drop(black_box(search.ask(&views[at]).unwrap()));
        });
    }
}

fn main() {
    // Cargo adds `--bench`.
    let entities = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(30_000);
    let mut story = Story { random: Random(0x9E37_79B9_7F4A_7C15), records: Vec::new() };
    let (earlier, last) = (story.write(entities), story.change(entities));
    let dir = tempfile::tempdir().unwrap();
    let mut graph = Graph::open(&dir.path().join("graph"), &SqliteOptions::default()).unwrap();
    graph.begin_rebuild().unwrap();
    story.records.chunks(BATCH).for_each(|records| graph.apply(records).unwrap());
    graph.finish_rebuild().unwrap();
    let identity = ModelIdentity {
        name: "hashing".into(),
        weights_sha256: "b".repeat(64),
        dimensions: DIMENSIONS,
        precision: Precision::Fp32,
    };
    let store = VectorStore::open(&dir.path().join("store"), &identity).unwrap();
    let options = VectorOptions::default();
    let mut vectors =
        Vectors::open(&dir.path().join("vectors"), options, store, Arc::new(Hashing(identity.clone())))
            .unwrap();
    story.records.chunks(BATCH).for_each(|records| vectors.apply(records).unwrap());

    println!("{entities} entities, {} records, {earlier} of them before the changes", story.records.len());
    println!("{:<36} {:>12}  {:>20}  {:>20}", "", "the present", "as of the last", "as of the earlier");
    let reader = graph.reader();
    graph_questions(&[reader.clone(), reader.as_of(last), reader.as_of(earlier)], entities);
    vector_questions(&vectors.reader(), [None, Some(last), Some(earlier)]);
    let started = Instant::now();
    let options = ServiceOptions::new(Arc::new(move || started.elapsed()));
    let embedding = Arc::new(EmbeddingService::start(Arc::new(Hashing(identity)), options).unwrap());
    let (talk, _) = TalkStore::open(&dir.path().join("talk")).unwrap();
    let semantic = Semantic { vectors: vectors.reader(), embedding };
    let view = View::new(reader, Some(semantic), talk.reader(), Arc::new(Positions::new(true)));
    hybrid_questions(&[view.clone(), view.as_of(last), view.as_of(earlier)]);
}
