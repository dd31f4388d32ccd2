//! All projections together, as queries see them.

use std::sync::Arc;
use std::time::Duration;

use caxton_events::{MemoryId, Seq};

use crate::embedding::EmbeddingService;
use crate::graph::GraphReader;
pub use crate::positions::{Part, Position, Positions, Wait, WaitError};
use crate::talk::TalkReader;
use crate::uses::Uses;
use crate::vector::VectorReader;

/// Handles to read every projection. Cheap to clone, usable from any thread, never in the way of the writers.
///
/// It shows the present, or, made by [`as_of`](Self::as_of), the memory as it was after an earlier record.
#[derive(Clone)]
pub struct View {
    graph: GraphReader,
    semantic: Option<Semantic>,
    talk: TalkReader,
    positions: Arc<Positions>,
    moment: Option<Seq>,
    uses: Arc<Uses>,
    /// Time since some fixed moment, never going back.
    now: Option<Arc<dyn Fn() -> Duration + Send + Sync>>,
}

/// What semantic search needs; absent in keyword-only operation.
#[derive(Clone)]
pub struct Semantic {
    /// The vectors.
    pub vectors: VectorReader,
    /// The model that turns queries into vectors.
    pub embedding: Arc<EmbeddingService>,
}

impl View {
    /// Puts the handles together.
    pub fn new(
        graph: GraphReader,
        semantic: Option<Semantic>,
        talk: TalkReader,
        positions: Arc<Positions>,
    ) -> Self {
        Self { graph, semantic, talk, positions, moment: None, uses: Arc::default(), now: None }
    }

    /// The same with a clock, which tells the time since some fixed moment and never goes back. Questions that could be asked on and on
    /// stop by it; without one they do not.
    #[must_use]
    pub fn timed(self, now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { now: Some(Arc::new(now)), ..self }
    }

    /// What the clock says, if there is one.
    pub(crate) fn now(&self) -> Duration {
        self.now.as_ref().map_or(Duration::ZERO, |now| now())
    }

    /// The same with the memory as it was after the record `seq`, which its projections must include; wait for that first.
    /// Agents and conversations are those of the present: see [`PastTalk`](crate::talk::PastTalk).
    #[must_use]
    pub fn as_of(&self, seq: Seq) -> Self {
        Self { graph: self.graph.as_of(seq), moment: Some(seq), ..self.clone() }
    }

    /// The record after which the memory is shown; `None`: it is the present.
    pub const fn moment(&self) -> Option<Seq> {
        self.moment
    }

    /// Graph and text.
    pub const fn graph(&self) -> &GraphReader {
        &self.graph
    }

    /// Vectors and model, unless Caxton runs keyword-only.
    pub const fn semantic(&self) -> Option<&Semantic> {
        self.semantic.as_ref()
    }

    /// Agents and conversations.
    pub const fn talk(&self) -> &TalkReader {
        &self.talk
    }

    /// When entities were read last. Whoever shows entities of the present to somebody notes them here.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// Notes that these entities are shown to somebody, unless the past is looked at.
    pub fn shown(&self, ids: impl IntoIterator<Item = MemoryId>) {
        if self.moment.is_none() {
            self.uses.note(ids);
        }
    }

    /// How far the projections are.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The last record of the memory that is shown: the one it is shown as of, or the last that every projection of it
    /// includes.
    pub fn seq(&self) -> Seq {
        if let Some(moment) = self.moment {
            return moment;
        }
        let graph = self.positions.get(Part::Graph).seq;
        match self.semantic {
            Some(_) => graph.min(self.positions.get(Part::Vectors).seq),
            None => graph,
        }
    }

    /// Blocks until `seq` is visible as far as `wait` asks, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// [`WaitError`] when a projection is late or has stopped.
    pub fn wait_for(&self, seq: Seq, wait: Wait, timeout: Duration) -> Result<(), WaitError> {
        self.positions.wait_for(seq, wait, timeout)
    }
}
