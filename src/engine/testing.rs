//! What tests over several modules share: a model that does as told, and who listens how far a projection is.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, MemoryId, Scope, Seq};
use caxton_projections::embedding::{
    DIMENSIONS, EmbedError, Embedder, EmbeddingService, ModelIdentity, Precision, ServiceOptions,
};
use caxton_projections::view::{Part, Positions};

/// Hears of each batch before it is turned into vectors, and may fail it.
type Hears = dyn Fn(&[&str]) -> Result<(), EmbedError> + Send + Sync;

/// A model that gives all texts the same vector.
pub(crate) struct SameVector {
    identity: ModelIdentity,
    hears: Box<Hears>,
}

impl SameVector {
    /// One of which `hears` hears each batch first.
    pub(crate) fn new(hears: impl Fn(&[&str]) -> Result<(), EmbedError> + Send + Sync + 'static) -> Self {
        let identity = ModelIdentity {
            name: "same vector".to_owned(),
            weights_sha256: "0".repeat(64),
            dimensions: DIMENSIONS,
            precision: Precision::Fp32,
        };
        Self { identity, hears: Box::new(hears) }
    }

    /// The same behind a service.
    pub(crate) fn served(
        hears: impl Fn(&[&str]) -> Result<(), EmbedError> + Send + Sync + 'static,
    ) -> Arc<EmbeddingService> {
        let started = Instant::now();
        let options = ServiceOptions::new(Arc::new(move || started.elapsed()));
        Arc::new(EmbeddingService::start(Arc::new(Self::new(hears)), options).unwrap())
    }
}

impl Embedder for SameVector {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        (self.hears)(texts)?;
        let mut vector = vec![0.0; DIMENSIONS];
        vector[0] = 1.0;
        Ok(vec![vector; texts.len()])
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        std::iter::once(0..text.len()).filter(|range| !range.is_empty()).collect()
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len()
    }
}

/// An entity that comes to be.
pub(crate) fn created(id: u64, scope: Scope, name: &str) -> MemoryEvent {
    MemoryEvent::EntityCreated {
        id: MemoryId(id),
        scope,
        name: name.to_owned(),
        entity_type: "note".to_owned(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
    }
}

/// Does `change` many times while somebody listens how far `part` is: whoever hears of a change finds it noted. It returns how far
/// the projection is then.
pub(crate) fn changes_are_noted_first(
    positions: &Positions,
    part: Part,
    mut change: impl FnMut(u32) -> Seq + Send,
) {
    std::thread::scope(|scope| {
        let (hears, heard_first) = mpsc::channel();
        let work = scope.spawn(move || {
            let noted = |n| {
                let before = positions.memory_changes();
                let seq = change(n);
                if n == 0 {
                    assert!(seq > Seq::ZERO && positions.get(part).seq >= seq, "there is nothing to hear");
                    // The others are made while somebody listens.
                    heard_first.recv().unwrap();
                }
                (seq, before)
            };
            (0..200).map(noted).collect::<Vec<_>>()
        });
        let (mut heard, mut last) = (Vec::new(), Seq::ZERO);
        while !work.is_finished() {
            let seq = positions.get(part).seq;
            if seq > last {
                heard.push((seq, positions.memory_changes()));
                last = seq;
                // Only the first is waited for.
                let _ = hears.send(());
            }
        }
        let noted = work.join().unwrap();
        assert!(!heard.is_empty());
        for (seq, changes) in heard {
            assert!(noted.iter().any(|(at, before)| *at == seq && changes > *before), "{seq}");
        }
    });
}
