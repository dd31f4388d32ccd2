//! Vectors of observations and entity headers, found by similarity.
//!
//! One vector for each piece of an observation (up to 256 tokens) and one for each entity's header, `name (type)`.
//! The rows of a scope lie together: 8 bits a number in memory to be scanned, the `f32` vectors in the store beside
//! the log to be compared exactly. Large scopes get an HNSW index, built in the background. What a row was before it was
//! changed or removed lies apart, with the records that made and closed it, and what an entity was before it was described anew,
//! once for all its rows: a search as of an earlier record looks at all of them.
//!
//! Reading order: [`Vectors`] (the projection), `fold` (records to rows), `slab`, `column`, `past` and `filter` (rows of a scope),
//! `quantise` and `kernels` (8-bit similarity and its error), `scan` (the exact search), `sketch`, `lookup`, `pass`, `shares` and `near`
//! (the search of many rows, on several threads), `search` ([`VectorReader`]), `index` and `builder` (HNSW),
//! `state` and `files` (disk), `compare` (two folds).

mod builder;
mod column;
mod compare;
mod erase;
mod files;
mod filter;
mod fold;
mod index;
mod kernels;
mod lookup;
mod near;
mod pass;
mod past;
mod quantise;
mod scan;
mod search;
mod shared;
mod shares;
mod sketch;
mod slab;
mod state;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caxton_events::log::{Hash, Reader};
use caxton_events::{Event, Family, Kind, MemoryId, Record, Seq, SystemEvent};

use crate::embedding::Embedder;
use crate::embedding::store::VectorStore;
use crate::projection::{ApplyError, Projection};
use crate::vector::builder::{Builder, least_rows, wants_work};
use crate::vector::fold::{EntityRow, Pace};
use crate::vector::shared::{Kinds, Shared};
use crate::vector::state::{Loaded, load, state_path};

pub use erase::ScrubError;
pub use files::FileError;
pub use fold::FoldError;
pub use index::IndexError;
pub use kernels::Kernel;
pub use quantise::QueryVectorError;
pub use search::{
    Begun, ScopeStats, VectorAnswer, VectorHit, VectorQuery, VectorReader, VectorSearchError, VectorStats,
};
pub use state::{SaveError, Snapshot, StateError, stored};

/// Grows when saved rows must not be read by a newer fold.
pub const PROJECTION_VERSION: u32 = 3;

/// How vectors are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorOptions {
    /// Rows from which on a scope is searched by its sketches: rows that are surely far are passed over, and one of
    /// some 700 near rows may be missed. Below, every row is compared. Default: 20,000.
    pub sketch_from: u32,
    /// Rows from which on a scope gets an HNSW index. Default: 1,000,000. Below, sketches need no building and found
    /// all of the ten nearest among 300,000 texts of common words, where an index found 65 %
    /// (`cargo bench --bench load`).
    pub index_from: u32,
    /// Candidates kept while a row is added to an index: more link better and take longer. Default: 160.
    pub expansion_add: usize,
    /// Candidates kept while an index is searched: more find more and take longer. Default: 256, which
    /// found 99.1 % of the ten nearest among 59,000 package descriptions (`cargo bench --bench search`).
    pub expansion_search: usize,
    /// Threads that build indexes. Default: 1.
    pub build_threads: usize,
    /// Rows that are scanned in the time an index takes for each candidate it keeps: searches use whichever is
    /// cheaper. Default: 900: the 160 measured with 8-bit codes, times what a sketch is smaller, and a little less.
    pub scan_rows_per_candidate: u32,
    /// Threads of a scan, the caller's included; those beside it stand by, for one search at a time. Answers do not
    /// depend on it. Default: 1. Bounds: 1 to 8; what lies outside counts as the bound.
    pub scan_threads: usize,
}

impl Default for VectorOptions {
    fn default() -> Self {
        Self {
            sketch_from: 20_000,
            index_from: 1_000_000,
            expansion_add: 160,
            expansion_search: 256,
            build_threads: 1,
            scan_rows_per_candidate: 900,
            scan_threads: 1,
        }
    }
}

/// Why the projection could not be opened. Unusable state is no reason: it is folded anew, see [`Vectors::opened`].
#[derive(Debug, thiserror::Error)]
pub enum OpenVectorsError {
    /// The directory cannot be used.
    #[error("could not create {path}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system gave no thread.
    #[error("could not start the thread that builds vector indexes")]
    Thread {
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// What opening found, for the operator's log.
#[derive(Debug, Default)]
pub struct OpenedVectors {
    /// Rows that were loaded.
    pub rows: u64,
    /// Why saved state was not used, if there was any.
    pub refused: Option<StateError>,
}

/// The vectors of all scopes as a projection of the log.
///
/// State is in memory; [`snapshot`](Self::snapshot) and [`save`](Self::save) put it on disk with its checkpoint. What
/// was folded since is folded again after a crash, without running the model: its vectors are in the store.
pub struct Vectors {
    dir: PathBuf,
    // In front of what it works on, so that it is stopped first.
    builder: Builder,
    shared: Arc<Shared>,
    embedder: Arc<dyn Embedder>,
    entities: HashMap<MemoryId, EntityRow>,
    opened: OpenedVectors,
    /// The checkpoint of the file.
    saved: Seq,
    /// What the file that was opened says the log's root was there.
    root: Option<Hash>,
    /// Where the records come from, once that was said.
    log: Option<Reader>,
    unsaved: u64,
    /// Records may speak of what was erased.
    gaps: bool,
    /// Careful while the last fold failed.
    pace: Pace,
}

impl Vectors {
    /// Opens what was saved in `dir`, or starts empty. Indexes are read or built in the background.
    ///
    /// `store` must be the one of `embedder`'s model.
    ///
    /// # Errors
    ///
    /// [`OpenVectorsError`] when there is no directory or no thread to be had.
    pub fn open(
        dir: &Path,
        options: VectorOptions,
        store: VectorStore,
        embedder: Arc<dyn Embedder>,
    ) -> Result<Self, OpenVectorsError> {
        fs::create_dir_all(dir)
            .map_err(|source| OpenVectorsError::Directory { path: dir.to_path_buf(), source })?;
        let loaded = load(dir, embedder.identity(), &store);
        let model = embedder.identity().vectors_key();
        let shared = Arc::new(Shared::new(options, store));
        let (mut entities, mut opened) = (HashMap::new(), OpenedVectors::default());
        let (mut saved, mut root) = (Seq::ZERO, None);
        match loaded {
            Ok(None) => (),
            Ok(Some(Loaded { checkpoint, past_from, root: then, kinds, cells, entities: rows })) => {
                (saved, root) = (checkpoint, then);
                opened.rows = cells.iter().map(|cell| u64::from(cell.view().slab.alive())).sum();
                let scopes: Vec<_> = cells.iter().map(|cell| cell.scope.clone()).collect();
                shared.restore(cells, kinds, (past_from, checkpoint));
                let cells: Vec<_> = scopes.iter().map(|scope| shared.cell_or_new(scope)).collect();
                entities.reserve(rows.len());
                entities.extend(rows.into_iter().map(|(id, cell, kind, span)| {
                    (id, EntityRow { cell: Arc::clone(&cells[cell as usize]), kind, span })
                }));
            }
            Err(refused) => opened.refused = Some(refused),
        }
        let builder = Builder::start(dir.to_path_buf(), model, Arc::clone(&shared))
            .map_err(|source| OpenVectorsError::Thread { source })?;
        Ok(Self {
            dir: dir.to_path_buf(),
            builder,
            shared,
            embedder,
            entities,
            opened,
            saved,
            root,
            log: None,
            unsaved: 0,
            gaps: false,
            pace: Pace::AtOnce,
        })
    }

    /// What opening found.
    pub fn opened(&self) -> &OpenedVectors {
        &self.opened
    }

    /// Whether what was opened was folded from the records that `log` has; to be asked before anything is folded. Where the log ends
    /// before its checkpoint or has dropped what lies there, whoever asks compares the positions.
    ///
    /// # Errors
    ///
    /// [`StateError::OtherLog`] or [`StateError::NoLog`]; [`reset`](Projection::reset) it then.
    pub fn check_log(&self, log: &Reader) -> Result<(), StateError> {
        let checkpoint = self.saved;
        if checkpoint == Seq::ZERO {
            return Ok(());
        }
        let Some(root) = self.root else {
            // A log that has dropped events could not give the past of the rows again.
            let is_whole = log.first().is_ok_and(|first| first == Seq::FIRST);
            return if is_whole { Err(StateError::NoLog) } else { Ok(()) };
        };
        match log.head_at(checkpoint.0) {
            Ok(head) if head.root != root => Err(StateError::OtherLog { checkpoint }),
            // From one that cannot be read there, nothing could be folded in their place.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Takes `log` as the one that the records are of: what is saved from here on says so.
    pub fn follow(&mut self, log: &Reader) {
        self.log = Some(log.clone());
    }

    /// The searching side. It stays good while the projection folds on, and after it was dropped.
    pub fn reader(&self) -> VectorReader {
        VectorReader::new(Arc::clone(&self.shared))
    }

    /// Where the vectors themselves are.
    pub fn store(&self) -> VectorStore {
        self.shared.store.clone()
    }

    /// Blocks until every scope that is due an HNSW index has it. Searches need not wait: they scan meanwhile.
    pub fn finish_indexes(&self) {
        self.builder.finish();
    }

    /// Notes that rows are folded as of `seq`, without what they were before: searches as of an earlier record are not exact. Kept
    /// with the rows, until [`reset`](Projection::reset).
    pub fn lack_past(&mut self, seq: Seq) {
        self.shared.set_past_from(seq);
    }

    /// Records folded since the last snapshot: how much a crash would make the next start fold again.
    pub const fn unsaved(&self) -> u64 {
        self.unsaved
    }

    /// Whether an index was built since the last save: it is in no file, though nothing may have been folded.
    pub fn has_unsaved_index(&self) -> bool {
        self.shared.has_unsaved_index.load(Ordering::Acquire)
    }

    /// The checkpoint that was saved last, or that the file had when it was opened; [`Seq::ZERO`] where there is none to go on from.
    pub const fn saved(&self) -> Seq {
        self.saved
    }

    /// This moment, to be written on any thread while folding goes on.
    ///
    /// # Errors
    ///
    /// [`SaveError::Log`] if the log that it [follows](Self::follow) cannot be read.
    pub fn snapshot(&mut self) -> Result<Snapshot, SaveError> {
        let checkpoint = self.shared.checkpoint();
        let head = self.log.as_ref().map(|log| log.head_at(checkpoint.0)).transpose()?;
        self.unsaved = 0;
        let views = self.shared.cells().iter().map(|cell| (cell.scope.clone(), cell.view())).collect();
        Ok(Snapshot {
            dir: self.dir.clone(),
            store: self.shared.store.clone(),
            model: self.embedder.identity().vectors_key(),
            checkpoint,
            past_from: self.shared.past_from(),
            root: head.map(|head| head.root),
            kinds: self.shared.kinds(),
            views,
            entities: self.entities.clone(),
            indexed_from: least_rows(true, &self.shared.options),
        })
    }

    /// Writes the state with its checkpoint: after this, a start goes on from here.
    ///
    /// # Errors
    ///
    /// [`SaveError`]; what was saved before is still there.
    pub fn save(&mut self) -> Result<(), SaveError> {
        let unsaved = self.unsaved;
        // In front of the views: one that is built from here on may be in none of them.
        let has_index = self.shared.has_unsaved_index.swap(false, Ordering::AcqRel);
        let written = self.snapshot().and_then(|snapshot| {
            snapshot.write()?;
            Ok(snapshot.checkpoint())
        });
        self.saved = written.inspect_err(|_| {
            self.unsaved = unsaved;
            self.shared.has_unsaved_index.fetch_or(has_index, Ordering::AcqRel);
        })?;
        Ok(())
    }
}

impl Projection for Vectors {
    fn name(&self) -> &'static str {
        "vectors"
    }

    fn version(&self) -> u32 {
        PROJECTION_VERSION
    }

    fn checkpoint(&self) -> Seq {
        self.shared.checkpoint()
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = Family::kinds(&[Family::Memory]);
        kinds.push(Kind::ErasureOrdered);
        kinds
    }

    fn expect_gaps(&mut self) {
        self.gaps = true;
    }

    fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ApplyError> {
        let is_order = |record: &Record| record.event.kind() == Kind::ErasureOrdered;
        for part in records.chunk_by(|before, next| !is_order(before) && !is_order(next)) {
            if let [Record { event: Event::System(SystemEvent::ErasureOrdered { subjects, .. }), .. }] = part
            {
                self.forget(subjects);
            } else {
                let cells = self.fold_part(part)?;
                if cells.iter().any(|cell| wants_work(cell, &self.shared.options)) {
                    self.builder.wake();
                }
            }
            // What follows an order is decided on what is left behind it. Should that fail, it goes on from here.
            if let Some(last) = part.last() {
                self.shared.set_checkpoint(last.seq.min(through));
            }
            self.unsaved += part.len() as u64;
        }
        self.shared.set_checkpoint(through);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), ApplyError> {
        let removed = match fs::remove_file(state_path(&self.dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => self.remove_indexes(),
        };
        removed.map_err(|error| ApplyError::Store { after: self.checkpoint(), source: Box::new(error) })?;
        self.entities.clear();
        self.shared.restore(Vec::new(), Kinds::default(), (Seq::ZERO, Seq::ZERO));
        (self.saved, self.unsaved, self.root) = (Seq::ZERO, 0, None);
        Ok(())
    }
}
