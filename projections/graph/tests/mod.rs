//! Tests of the graph: stories of records told to a graph in a temporary directory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod as_of;
mod fold;
mod keyword;
mod model;
mod open;
mod plans;
mod queries;
mod victims;

use caxton_events::memory::Validity;
use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};

use super::{Graph, SqliteOptions};
use crate::projection::Projection;

/// Records in the making, one microsecond apart, numbered as the writer would.
#[derive(Default)]
struct Story {
    records: Vec<Record>,
    ids: u64,
}

impl Story {
    fn tell(&mut self, event: impl Into<Event>) {
        let seq = self.records.len() as u64 + 1;
        self.records.push(Record {
            seq: Seq(seq),
            recorded_at: Timestamp::from_unix_micros(1_000 + seq),
            stream: "test".to_owned(),
            actor: "ada".to_owned(),
            correlation: None,
            causation: None,
            event: event.into(),
        });
    }

    fn id(&mut self) -> MemoryId {
        self.ids += 1;
        MemoryId(self.ids)
    }

    fn entity(&mut self, scope: &str, name: &str, entity_type: &str) -> MemoryId {
        let id = self.id();
        self.tell(MemoryEvent::EntityCreated {
            id,
            scope: scope.parse().unwrap(),
            name: name.to_owned(),
            entity_type: entity_type.to_owned(),
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
        });
        id
    }

    fn rename(&mut self, id: MemoryId, name: &str) {
        self.tell(MemoryEvent::EntityUpdated {
            id,
            name: name.to_owned(),
            entity_type: "thing".to_owned(),
            metadata: Some(r#"{"renamed":true}"#.to_owned()),
            confidence: 0.5,
            validity: Validity::default(),
        });
    }

    fn note(&mut self, entity: MemoryId, content: &str) -> MemoryId {
        let id = self.id();
        let content = content.to_owned();
        self.tell(MemoryEvent::ObservationAdded { id, entity, content, validity: Validity::default() });
        id
    }

    fn relate(&mut self, from: MemoryId, to: MemoryId, relation_type: &str, strength: f64) -> MemoryId {
        let id = self.id();
        self.tell(MemoryEvent::RelationCreated {
            id,
            scope: Scope::Global,
            from,
            to,
            relation_type: relation_type.to_owned(),
            strength,
            confidence: 1.0,
            metadata: None,
            validity: Validity::default(),
        });
        id
    }
}

/// A graph in a directory of its own.
struct Fixture {
    graph: Graph,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with(&small())
    }

    fn with(options: &SqliteOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { graph: Graph::open(dir.path(), options).unwrap(), dir }
    }

    /// The story folded in, in batches of `batch`.
    fn told(story: &Story, batch: usize) -> Self {
        let mut fixture = Self::new();
        for records in story.records.chunks(batch) {
            fixture.graph.apply(records).unwrap();
        }
        fixture
    }
}

/// Two readers and small caches: tests run side by side.
fn small() -> SqliteOptions {
    SqliteOptions { readers: 2, cache_size_mb: 4, mmap_size_mb: 16, ..SqliteOptions::default() }
}
