//! What rows of a graph become, and how many at a time.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};
use caxton_projections::embedding::{
    DIMENSIONS, EmbedError, Embedder, ModelIdentity, Precision, VectorStore,
};
use caxton_projections::graph::{Graph, Observation, SqliteOptions};
use caxton_projections::projection::Projection as _;
use caxton_projections::vector::{VectorOptions, Vectors};

use super::{ROWS_MAX, added, record, refold};

/// Gives all texts the same vector; knows the most it was asked for at once.
struct Counting {
    identity: ModelIdentity,
    most: AtomicUsize,
}

impl Embedder for Counting {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.most.fetch_max(texts.len(), Ordering::Relaxed);
        let vector: Vec<f32> = (0..DIMENSIONS).map(|at| if at == 0 { 1.0 } else { 0.0 }).collect();
        Ok(vec![vector; texts.len()])
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        std::iter::once(0..text.len()).collect()
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len()
    }
}

#[test]
fn a_text_counts_from_the_record_that_made_it_what_it_is() {
    let observation = Observation {
        id: MemoryId(2),
        entity: MemoryId(1),
        content: "as it is now".to_owned(),
        validity: Validity::default(),
        created_at: Timestamp::EPOCH,
        created_seq: Seq(5),
        actor: "ada".to_owned(),
        updated_at: Timestamp::EPOCH,
        updated_seq: Seq(50),
    };
    assert_eq!(added(observation).seq, Seq(50));
}

#[test]
fn entities_of_which_nothing_is_noted_are_folded_so_many_at_a_time_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let count = 2 * ROWS_MAX as u64 + 100;
    let created = |id: u64| {
        let event = MemoryEvent::EntityCreated {
            id: MemoryId(id),
            scope: Scope::Global,
            name: format!("thing {id}"),
            entity_type: "note".to_owned(),
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
        };
        record(Seq(id), event)
    };
    let records: Vec<Record> = (1..=count).map(created).collect();
    let mut graph = Graph::open(&dir.path().join("graph"), &SqliteOptions::default()).unwrap();
    graph.apply(&records).unwrap();
    let identity = ModelIdentity {
        name: "counting".to_owned(),
        weights_sha256: "ab".repeat(32),
        dimensions: DIMENSIONS,
        precision: Precision::Fp32,
    };
    let store = VectorStore::open(dir.path(), &identity).unwrap();
    let model = Arc::new(Counting { identity, most: AtomicUsize::new(0) });
    let embedder: Arc<dyn Embedder> = Arc::clone(&model) as Arc<dyn Embedder>;
    let mut vectors = Vectors::open(dir.path(), VectorOptions::default(), store, embedder).unwrap();
    refold(&graph.reader(), &mut vectors).unwrap();
    assert_eq!((vectors.reader().stats().rows, vectors.checkpoint()), (count, Seq(count)));
    assert_eq!(model.most.load(Ordering::Relaxed), ROWS_MAX);
    assert!(vectors.unsaved() > 0 && vectors.saved() == Seq::ZERO, "nothing of it is saved so far");
}
