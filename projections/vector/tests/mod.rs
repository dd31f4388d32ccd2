//! Tests of the vector projection: its fold, its searches, its files, its indexes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod as_of;
mod exactness;
mod folding;
mod indexing;
mod restarting;
mod sketching;
mod threading;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use caxton_events::memory::Validity;
use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq, Subject, SystemEvent, Timestamp};
use tempfile::TempDir;

use super::{VectorAnswer, VectorHit, VectorOptions, VectorQuery, VectorReader, Vectors};
use crate::embedding::store::VectorStore;
use crate::embedding::{DIMENSIONS, EmbedError, Embedder, ModelIdentity, Precision};
use crate::projection::{ApplyError, Projection};

/// Words a piece may have.
const PIECE_WORDS: usize = 4;
/// A text with this word in it makes the model fail.
const POISON: &str = "poison";
/// A text with one of these in it makes it panic: when it is embedded, when it is cut.
const CRASHES: [&str; 2] = ["crash", "uncuttable"];

/// A model that hashes: unit vectors around 40 centres, the same for the same text.
struct Hashing {
    identity: ModelIdentity,
    /// Texts embedded so far.
    embedded: AtomicUsize,
}

impl Hashing {
    fn new(digit: char) -> Arc<Self> {
        let weights_sha256 = std::iter::repeat_n(digit, 64).collect();
        let identity = ModelIdentity {
            name: "hashing".into(),
            weights_sha256,
            dimensions: DIMENSIONS,
            precision: Precision::Fp32,
        };
        Arc::new(Self { identity, embedded: AtomicUsize::new(0) })
    }

    fn embedded(&self) -> usize {
        self.embedded.load(Ordering::Relaxed)
    }
}

/// 384 numbers of about normal distribution that follow from `seed`.
fn noise(seed: &str) -> Vec<f32> {
    let mut bytes = vec![0; DIMENSIONS * 4];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes.chunks_exact(4).map(|four| four.iter().map(|&byte| f32::from(byte) - 127.5).sum()).collect()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    for x in &mut vector {
        *x = (f64::from(*x) / length) as f32;
    }
    vector
}

/// The vector of `text`.
fn vector_of(text: &str) -> Vec<f32> {
    let centre = noise(&format!("centre {}", blake3::hash(text.as_bytes()).as_bytes()[0] % 40));
    unit(centre.iter().zip(noise(text)).map(|(centre, own)| centre + 0.8 * own).collect())
}

impl Embedder for Hashing {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        assert!(texts.iter().all(|text| text.split_whitespace().count() <= PIECE_WORDS), "{texts:?}");
        assert!(!texts.iter().any(|text| text.contains(CRASHES[0])), "a text was not expected");
        self.embedded.fetch_add(texts.len(), Ordering::Relaxed);
        match texts.iter().position(|text| text.contains(POISON)) {
            Some(index) => Err(EmbedError::NotFinite { index }),
            None => Ok(texts.iter().map(|text| vector_of(text)).collect()),
        }
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        assert!(!text.contains(CRASHES[1]), "a text was not expected");
        let place = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
        let words: Vec<&str> = text.split_whitespace().collect();
        words
            .chunks(PIECE_WORDS)
            .map(|piece| place(piece[0])..place(piece[piece.len() - 1]) + piece[piece.len() - 1].len())
            .collect()
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count() + 2
    }
}

/// A log in memory and a projection of it.
struct House {
    dir: TempDir,
    options: VectorOptions,
    model: Arc<Hashing>,
    log: Vec<Record>,
    vectors: Option<Vectors>,
}

impl House {
    fn new() -> Self {
        Self::with(VectorOptions::default())
    }

    fn with(options: VectorOptions) -> Self {
        let mut house = Self {
            dir: TempDir::new().unwrap(),
            options,
            model: Hashing::new('a'),
            log: Vec::new(),
            vectors: None,
        };
        house.open();
        house
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn store(&self) -> VectorStore {
        VectorStore::open(&self.path().join("store"), self.model.identity()).unwrap()
    }

    /// Closes the projection without saving it, as a crash does, and opens it again.
    fn open(&mut self) {
        self.vectors = None;
        let model: Arc<dyn Embedder> = self.model.clone();
        let dir = self.path().join("vectors");
        self.vectors = Some(Vectors::open(&dir, self.options, self.store(), model).unwrap());
    }

    fn vectors(&mut self) -> &mut Vectors {
        self.vectors.as_mut().unwrap()
    }

    fn reader(&mut self) -> VectorReader {
        self.vectors().reader()
    }

    /// Puts events into the log without folding them.
    fn log(&mut self, events: impl IntoIterator<Item = MemoryEvent>) {
        for event in events {
            self.log.push(Record {
                seq: Seq(self.log.len() as u64 + 1),
                recorded_at: Timestamp::EPOCH,
                stream: "global".into(),
                actor: "test".into(),
                correlation: None,
                causation: None,
                event: Event::Memory(event),
            });
        }
    }

    /// Puts the order to erase these into the log.
    fn order(&mut self, subjects: &[Subject]) {
        let seq = Seq(self.log.len() as u64 + 1);
        self.log.push(Record {
            seq,
            recorded_at: Timestamp::EPOCH,
            stream: "system".into(),
            actor: "test".into(),
            correlation: None,
            causation: None,
            event: Event::System(SystemEvent::ErasureOrdered {
                subjects: subjects.to_vec(),
                asked: "test".into(),
                keys: Vec::new(),
                events: 1,
                next_memory_id: 1_000_000,
                reason: None,
                by: "test".into(),
            }),
        });
    }

    /// Folds what was not folded yet, `batch` records at a time.
    fn fold_by(&mut self, batch: usize) -> Result<(), ApplyError> {
        let log = std::mem::take(&mut self.log);
        let start = self.vectors().checkpoint().0 as usize;
        let result = log[start..].chunks(batch).try_for_each(|records| self.vectors().apply(records));
        self.log = log;
        result
    }

    fn add(&mut self, events: impl IntoIterator<Item = MemoryEvent>) {
        self.log(events);
        self.fold_by(1_000).unwrap();
    }

    /// The same log folded from the start in another directory.
    fn rebuilt(&self) -> Self {
        let mut house = Self::with(self.options);
        house.log.clone_from(&self.log);
        house.fold_by(7).unwrap();
        house
    }
}

fn scope(name: &str) -> Scope {
    name.parse().unwrap()
}

fn between(from: u64, to: u64) -> Validity {
    Validity { from: Some(Timestamp::from_unix_micros(from)), to: Some(Timestamp::from_unix_micros(to)) }
}

fn entity(id: u64, scope_name: &str, name: &str, entity_type: &str) -> MemoryEvent {
    MemoryEvent::EntityCreated {
        id: MemoryId(id),
        scope: scope(scope_name),
        name: name.into(),
        entity_type: entity_type.into(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
    }
}

fn entity_updated(id: u64, name: &str, entity_type: &str, validity: Validity) -> MemoryEvent {
    MemoryEvent::EntityUpdated {
        id: MemoryId(id),
        name: name.into(),
        entity_type: entity_type.into(),
        metadata: None,
        confidence: 1.0,
        validity,
    }
}

fn observation(id: u64, entity: u64, content: &str) -> MemoryEvent {
    observation_during(id, entity, content, Validity::default())
}

fn observation_during(id: u64, entity: u64, content: &str, validity: Validity) -> MemoryEvent {
    let (id, entity) = (MemoryId(id), MemoryId(entity));
    MemoryEvent::ObservationAdded { id, entity, content: content.into(), validity }
}

fn observation_updated(id: u64, entity: u64, content: &str, validity: Validity) -> MemoryEvent {
    let (id, entity) = (MemoryId(id), MemoryId(entity));
    MemoryEvent::ObservationUpdated { id, entity, content: content.into(), validity }
}

fn observation_removed(id: u64, entity: u64) -> MemoryEvent {
    MemoryEvent::ObservationRemoved { id: MemoryId(id), entity: MemoryId(entity) }
}

fn entity_removed(id: u64) -> MemoryEvent {
    MemoryEvent::EntityRemoved { id: MemoryId(id) }
}

/// What a search asks for, in a form that is short to write.
#[derive(Debug, Clone)]
struct Ask {
    text: String,
    scopes: Vec<Scope>,
    entity_types: Vec<String>,
    valid_at: Option<Timestamp>,
    as_of: Option<Seq>,
    min_similarity: Option<f32>,
    limit: usize,
    exact: bool,
}

fn ask(text: &str, limit: usize) -> Ask {
    Ask {
        text: text.into(),
        scopes: vec![Scope::Global],
        entity_types: Vec::new(),
        valid_at: None,
        as_of: None,
        min_similarity: None,
        limit,
        exact: true,
    }
}

impl Ask {
    fn answer(&self, reader: &VectorReader) -> VectorAnswer {
        let vector = vector_of(&self.text);
        reader
            .search(&VectorQuery {
                vector: &vector,
                scopes: &self.scopes,
                entity_types: &self.entity_types,
                valid_at: self.valid_at,
                as_of: self.as_of,
                min_similarity: self.min_similarity,
                limit: self.limit,
                exact: self.exact,
            })
            .unwrap()
    }

    fn hits(&self, reader: &VectorReader) -> Vec<VectorHit> {
        self.answer(reader).hits
    }

    /// Numbers of the rows found, in their order.
    fn rows(&self, reader: &VectorReader) -> Vec<u64> {
        self.hits(reader).iter().map(|hit| hit.row.0).collect()
    }
}
