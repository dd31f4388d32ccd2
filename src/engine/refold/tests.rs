//! What rows of a graph become, and how many at a time.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Record, Scope, Seq, Timestamp};
use caxton_projections::embedding::{Embedder as _, VectorStore};
use caxton_projections::graph::{Graph, Observation, SqliteOptions};
use caxton_projections::projection::Projection as _;
use caxton_projections::vector::{VectorOptions, Vectors};

use super::{ROWS_MAX, added, record, refold};
use crate::engine::testing::{SameVector, created};

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
    let made = |id: u64| record(Seq(id), created(id, Scope::Global, &format!("thing {id}")));
    let records: Vec<Record> = (1..=count).map(made).collect();
    let mut graph = Graph::open(&dir.path().join("graph"), &SqliteOptions::default()).unwrap();
    graph.apply(&records).unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&most);
    let model = SameVector::new(move |texts| {
        asked.fetch_max(texts.len(), Ordering::Relaxed);
        Ok(())
    });
    let store = VectorStore::open(dir.path(), model.identity()).unwrap();
    let mut vectors = Vectors::open(dir.path(), VectorOptions::default(), store, Arc::new(model)).unwrap();
    refold(&graph.reader(), &mut vectors).unwrap();
    assert_eq!((vectors.reader().stats().rows, vectors.checkpoint()), (count, Seq(count)));
    assert_eq!(most.load(Ordering::Relaxed), ROWS_MAX);
    assert!(vectors.unsaved() > 0 && vectors.saved() == Seq::ZERO, "nothing of it is saved so far");
}
