//! A directory that lost events or shares them, with vectors: what is found by meaning, and what the model is asked again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caxton_events::log::{Log, LogOptions};
use caxton_events::memory::Validity;
use caxton_events::{Scope, Seq, SystemEvent};
use caxton_projections::embedding::{
    CacheOptions, DIMENSIONS, EmbedError, Embedder, EmbeddingService, ModelIdentity, Precision,
    ServiceOptions,
};
use caxton_projections::queries::{Search, SearchMode};

use super::fork::{Cut, fork_dir, seal_stopped};
use super::start::system_batch;
use super::trim::{DropOptions, drop_events};
use super::{Engine, EngineOptions, Submission, SystemClock, Wait};
use crate::commands::{NewEntity, NewObservation, OnExisting, Write};

const PATIENCE: Duration = Duration::from_mins(1);

/// Vectors that follow from the text alone; counts the texts it is asked for.
struct Hashing {
    identity: ModelIdentity,
    asked: Arc<AtomicUsize>,
    /// Texts of the largest call.
    most: Arc<AtomicUsize>,
}

impl Embedder for Hashing {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.asked.fetch_add(texts.len(), Ordering::Relaxed);
        self.most.fetch_max(texts.len(), Ordering::Relaxed);
        Ok(texts.iter().map(|text| vector(text)).collect())
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        std::iter::once(0..text.len()).filter(|range| !range.is_empty()).collect()
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len()
    }
}

fn vector(text: &str) -> Vec<f32> {
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut numbers: Vec<f32> = (0..DIMENSIONS)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / 16_777_216.0 - 0.5
        })
        .collect();
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    for number in &mut numbers {
        *number /= length;
    }
    numbers
}

/// An engine with such a model, and the number of texts it was asked for.
fn start(dir: &Path) -> (Engine, Arc<AtomicUsize>) {
    let (engine, asked, _) = start_with(dir, 512);
    (engine, asked)
}

/// The same with steps of the vectors of so many records, and the texts of the largest call of the model.
fn start_with(dir: &Path, vector_records_max: usize) -> (Engine, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (asked, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let identity = ModelIdentity {
        name: "hashing".to_owned(),
        weights_sha256: "ab".repeat(32),
        dimensions: DIMENSIONS,
        precision: Precision::Fp32,
    };
    let embedder = Arc::new(Hashing { identity, asked: Arc::clone(&asked), most: Arc::clone(&most) });
    let cache = CacheOptions { entries_max: 40, ..CacheOptions::default() };
    let options = ServiceOptions { cache, ..ServiceOptions::new(Arc::new(|| Duration::ZERO)) };
    let service = EmbeddingService::start(embedder, options).unwrap();
    let options = EngineOptions {
        embedding: Some(Arc::new(service)),
        compress_above: None,
        vector_records_max,
        ..EngineOptions::new(dir)
    };
    let engine = Engine::start(&options, &mut |_| {}).unwrap();
    let head = engine.log().head().seq;
    engine.view().wait_for(head, Wait::Indexed, PATIENCE).unwrap();
    (engine, asked, most)
}

/// Longer than a block holds, a few times over.
fn fill(engine: &Engine) {
    for n in 0..12 {
        let content = format!("note {n} {}", "x".repeat(70_000));
        let creation = Write::CreateEntity(NewEntity {
            scope: Scope::Global,
            name: format!("thing {n}"),
            entity_type: "note".to_owned(),
            observations: vec![NewObservation { content, validity: Validity::default() }],
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
            on_existing: OnExisting::Merge,
        });
        let submission = Submission {
            actor: "ada".parse().unwrap(),
            workspace: "lab".parse().unwrap(),
            named: None,
            correlation: None,
            causation: None,
            idempotency: None,
            writes: vec![creation],
            atomic: true,
            wait: Wait::Indexed,
        };
        engine.submit_blocking(submission).unwrap();
    }
}

fn search() -> Search {
    Search {
        text: "thing 7 (note)".to_owned(),
        mode: SearchMode::Semantic,
        scopes: vec![Scope::Global],
        limit: 12,
        ..Search::default()
    }
}

/// What is found by meaning, with its similarity.
fn found(engine: &Engine) -> Vec<(String, Option<f32>)> {
    let answer = search().ask(engine.view()).unwrap();
    answer.hits.into_iter().map(|hit| (hit.entity.name, hit.similarity)).collect()
}

#[test]
fn a_cache_that_misses_its_target_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, ..) = start_with(dir.path(), 512);
    let semantic = engine.view().semantic().unwrap();
    assert_eq!(engine.measured().cache_hit_rate, None, "nobody asked");
    for n in 0..40 {
        semantic.embedding.embed_query(&format!("question {n}")).unwrap();
    }
    assert_eq!(
        engine.measured().cache_hit_rate,
        None,
        "no cache would have had what is asked for the first time"
    );
    for n in 40..100 {
        semantic.embedding.embed_query(&format!("question {n}")).unwrap();
    }
    assert_eq!(engine.measured().cache_hit_rate, Some(0.0));
    let passed: Vec<&str> = engine.advice().iter().map(|advice| advice.limit).collect();
    assert_eq!(passed, ["min_cache_hit_rate"]);
    let telemetry = crate::telemetry::Telemetry::install().unwrap();
    engine.watch();
    assert!(telemetry.render().contains("caxton_embedding_cache_below_target 1"));
    for _ in 0..1_901 {
        semantic.embedding.embed_query("the same question").unwrap();
    }
    assert!(engine.measured().cache_hit_rate.is_some_and(|rate| rate > 0.9));
    engine.watch();
    assert!(telemetry.render().contains("caxton_embedding_cache_below_target 0"));
    engine.stop();
}

#[test]
fn vectors_follow_in_steps_of_as_many_records_as_the_file_says() {
    for (records_max, most) in [(1, 1), (4, 4), (512, 24)] {
        let dir = tempfile::tempdir().unwrap();
        let without = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        fill(&without);
        without.stop();
        let (engine, asked, largest) = start_with(dir.path(), records_max);
        engine.stop();
        assert_eq!(asked.load(Ordering::Relaxed), 24, "twelve entities and what is noted about each");
        assert_eq!(largest.load(Ordering::Relaxed), most, "{records_max}");
    }
}

#[test]
fn vectors_are_made_from_the_graph_where_their_events_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = start(dir.path());
    fill(&engine);
    let then = found(&engine);
    assert_eq!((then.len(), then[0].0.as_str()), (12, "thing 7"));
    engine.stop();
    drop(engine);
    let what = DropOptions { before: Cut::Head, by: "ada".to_owned(), forks_keep: false };
    let dropped = drop_events(&EngineOptions::new(dir.path()), &what, &mut |_| {}).unwrap().unwrap();
    assert!(dropped.first > Seq(10), "{dropped:?}");
    let (engine, asked) = start(dir.path());
    assert_eq!((found(&engine), asked.load(Ordering::Relaxed)), (then.clone(), 1), "those saved are used");
    engine.stop();
    drop(engine);
    fs::remove_dir_all(dir.path().join("vectors")).unwrap();
    for _ in 0..2 {
        let (engine, _) = start(dir.path());
        assert_eq!(found(&engine), then);
        let past = search().ask(&engine.view().as_of(Seq(10))).unwrap();
        assert!(!past.exact, "what rows were before is not among them");
        assert!(search().ask(engine.view()).unwrap().exact);
        engine.stop();
    }
}

#[test]
fn vectors_of_records_that_the_log_does_not_have_are_folded_anew() {
    let place = tempfile::tempdir().unwrap();
    let (one, other) = (place.path().join("one"), place.path().join("other"));
    let (engine, _) = start(&one);
    fill(&engine);
    let then = found(&engine);
    engine.stop();
    drop(engine);
    // Longer, as a log that lost its end and went on where there was no model.
    for n in 0..3 {
        let without = Engine::start(&EngineOptions::new(&other), &mut |_| {}).unwrap();
        if n == 0 {
            fill(&without);
        }
        without.stop();
    }
    fs::rename(one.join("vectors"), other.join("vectors")).unwrap();
    let (engine, asked) = start(&other);
    let why = engine.recovery().vectors.clone().unwrap();
    assert!(why.contains("from other records"), "{why}");
    assert_eq!(asked.load(Ordering::Relaxed), 0, "the vectors themselves are of texts");
    assert_eq!(found(&engine), then);
    engine.stop();
    drop(engine);
    let (engine, _) = start(&other);
    assert_eq!(engine.recovery().vectors, None);
    engine.stop();
}

#[test]
fn indexes_go_with_a_state_that_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = start(dir.path());
    engine.stop();
    drop(engine);
    let vectors = dir.path().join("vectors");
    let index = vectors.join("0123456789abcdef.hnsw");
    fs::write(&index, "over other rows").unwrap();
    fs::write(vectors.join("vectors.state"), "spoilt").unwrap();
    let (engine, _) = start(dir.path());
    assert!(engine.recovery().vectors.is_some() && !index.exists());
    engine.stop();
}

#[test]
fn a_fork_takes_over_the_vectors_of_its_parent() {
    let place = tempfile::tempdir().unwrap();
    let (parent, fork) = (place.path().join("parent"), place.path().join("fork"));
    let (engine, asked) = start(&parent);
    fill(&engine);
    let then = found(&engine);
    assert!(asked.load(Ordering::Relaxed) >= 24);
    engine.stop();
    drop(engine);
    let (seq, sealed) = seal_stopped(&parent, Cut::Head).unwrap();
    fork_dir(&sealed, seq, &fork, None).unwrap();
    let mode = fs::metadata(&fork).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "what agents remember is its owner's alone");
    let (engine, asked) = start(&fork);
    assert_eq!(asked.load(Ordering::Relaxed), 0, "every text has its vector already");
    assert_eq!(found(&engine), then);
    engine.stop();
    drop(engine);
    // What is erased in a fork is still in its parent.
    let fork = place.path().join("erased");
    fork_dir(&sealed, seq, &fork, None).unwrap();
    let log = Log::open(&fork, LogOptions::new([0; 16]), Arc::new(SystemClock)).unwrap();
    let order = SystemEvent::ErasureOrdered {
        subjects: vec!["agent:ada".parse().unwrap()],
        asked: "test".to_owned(),
        keys: Vec::new(),
        events: 1,
        next_memory_id: 100,
        reason: None,
        by: "test".to_owned(),
    };
    log.append(vec![system_batch(order)]).unwrap().remove(0).unwrap();
    log.close().unwrap();
    let (engine, asked) = start(&fork);
    assert_eq!(asked.load(Ordering::Relaxed), 24, "the model makes them again");
    engine.stop();
}
