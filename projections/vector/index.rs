//! The HNSW graph over a large slab. The only place that names usearch.
//!
//! usearch has traps, and each is closed here: searching while rows are added reads what is being written, so an
//! index is never changed once others can see it; an index file with a flipped bit loads and then crashes, so
//! files are read by `files`, which verifies them first; it needs room for rows and threads reserved
//! before use and again after loading; it accepts NaN, which the vector store does not; and it fails a search when
//! more threads come than it reserved, so such a search is told to scan instead.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use crate::embedding::DIMENSIONS;
use crate::embedding::store::{Vector, VectorStore};
use crate::vector::quantise::Query;
use crate::vector::slab::{Block, Slab};

/// Links a row has on each level (twice that on the lowest).
const CONNECTIVITY: usize = 16;
/// Searches that may run at once; more scan.
const SEARCHES_MAX: usize = 64;
/// Rows added between two looks at the stop flag.
const ROWS_PER_ROUND: u32 = 512;

/// How an index is built and searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexSettings {
    /// Candidates kept while a row is added.
    pub(crate) expansion_add: usize,
    /// Candidates kept while searching.
    pub(crate) expansion_search: usize,
    /// Threads that build.
    pub(crate) threads: usize,
}

/// Why an index was not built or read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// usearch refused.
    #[error("usearch could not {action}: {said}")]
    Usearch {
        /// What was tried.
        action: &'static str,
        /// The text of its exception.
        said: String,
    },
    /// The server stops; nothing is lost, the next start builds on.
    #[error("the index was not finished: the server stops")]
    Stopped,
}

fn usearch_error<E: std::fmt::Display>(action: &'static str) -> impl Fn(E) -> IndexError {
    move |error| IndexError::Usearch { action, said: error.to_string() }
}

/// An index over the rows below [`rows`](Self::rows) of a slab, by their numbers. Never changed once it is shared.
pub(crate) struct Hnsw {
    index: Index,
    rows: u32,
    expansion: usize,
    /// Whether a file holds it.
    pub(crate) saved: AtomicBool,
}

impl Hnsw {
    fn empty(settings: IndexSettings, capacity: usize) -> Result<Self, IndexError> {
        let options = IndexOptions {
            dimensions: DIMENSIONS,
            // All vectors have length 1, so this is the cosine; usearch's own would take both lengths each time.
            metric: MetricKind::IP,
            quantization: ScalarKind::BF16,
            connectivity: CONNECTIVITY,
            expansion_add: settings.expansion_add,
            expansion_search: settings.expansion_search,
            multi: false,
        };
        let index = Index::new(&options).map_err(usearch_error("create an index"))?;
        let hnsw =
            Self { index, rows: 0, expansion: settings.expansion_search, saved: AtomicBool::new(false) };
        hnsw.reserve(capacity, settings)?;
        Ok(hnsw)
    }

    fn reserve(&self, capacity: usize, settings: IndexSettings) -> Result<(), IndexError> {
        let threads = SEARCHES_MAX.max(settings.threads);
        self.index
            .reserve_capacity_and_threads(capacity.max(1), threads)
            .map_err(usearch_error("reserve room"))
    }

    /// The index over all rows of `slab` that are in the present; built on `base` where that is given.
    pub(crate) fn build(
        base: Option<&Self>,
        slab: &Slab,
        vectors: &VectorStore,
        settings: IndexSettings,
        stop: &AtomicBool,
    ) -> Result<Self, IndexError> {
        let mut hnsw = match base {
            Some(base) => Self::read(&base.bytes()?, base.rows, slab.rows as usize, settings)?,
            None => Self::empty(settings, slab.rows as usize)?,
        };
        while hnsw.rows < slab.rows {
            if stop.load(Ordering::Relaxed) {
                return Err(IndexError::Stopped);
            }
            let end = slab.rows.min(hnsw.rows + ROWS_PER_ROUND * settings.threads.max(1) as u32);
            hnsw.add(slab, vectors, end, settings.threads)?;
            hnsw.rows = end;
        }
        Ok(hnsw)
    }

    /// Adds the rows from `self.rows` to `end` on `threads` threads.
    fn add(&self, slab: &Slab, vectors: &VectorStore, end: u32, threads: usize) -> Result<(), IndexError> {
        let next = AtomicU32::new(self.rows);
        let work = || -> Result<(), IndexError> {
            loop {
                let row = next.fetch_add(1, Ordering::Relaxed);
                if row >= end {
                    return Ok(());
                }
                let (block, at) = slab.locate(row);
                if block.is_alive(at) {
                    let vector = vectors.vector(block.slots[at]).unwrap_or_else(|| decoded(block, at));
                    self.index.add(u64::from(row), &vector).map_err(usearch_error("add a vector"))?;
                }
            }
        };
        if threads <= 1 {
            return work();
        }
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads)
                .filter_map(|n| {
                    // A thread the system does not give is a thread less, not a failure: this one does all the rest.
                    thread::Builder::new().name(format!("vector-index-{n}")).spawn_scoped(scope, work).ok()
                })
                .collect();
            let mut result = work();
            for other in others {
                result = result.and(other.join().unwrap_or(Err(IndexError::Stopped)));
            }
            result
        })
    }

    /// Rows of the slab it covers, from 0; removed ones among them may be left out.
    pub(crate) const fn rows(&self) -> u32 {
        self.rows
    }

    /// Candidates a search for `count` rows keeps.
    pub(crate) fn expansion(&self, count: usize) -> usize {
        self.expansion.max(count)
    }

    /// Memory it takes, in bytes.
    pub(crate) fn bytes_taken(&self) -> usize {
        self.index.memory_usage()
    }

    /// Numbers of about `count` rows near `query` among those that `wanted` accepts; `None` when too many threads
    /// search at once.
    pub(crate) fn search(
        &self,
        query: &Query,
        count: usize,
        wanted: Option<&dyn Fn(u32) -> bool>,
    ) -> Option<Vec<u32>> {
        let found = match wanted {
            Some(wanted) => self.index.filtered_search(&query.vector, count, |row| wanted(row as u32)),
            None => self.index.search(&query.vector, count),
        };
        Some(found.ok()?.keys.into_iter().map(|row| row as u32).filter(|&row| row < self.rows).collect())
    }

    /// The index as bytes, to be written by [`files`](crate::vector::files) with a checksum.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, IndexError> {
        let mut bytes = vec![0; self.index.serialized_length()];
        self.index.save_to_buffer(&mut bytes).map_err(usearch_error("write an index"))?;
        Ok(bytes)
    }

    /// The index that [`bytes`](Self::bytes) gave, with room for `capacity` rows. `bytes` must have been verified:
    /// usearch believes them.
    pub(crate) fn read(
        bytes: &[u8],
        rows: u32,
        capacity: usize,
        settings: IndexSettings,
    ) -> Result<Self, IndexError> {
        let mut hnsw = Self::empty(settings, 1)?;
        hnsw.index.load_from_buffer(bytes).map_err(usearch_error("read an index"))?;
        hnsw.index.change_expansion_add(settings.expansion_add);
        hnsw.index.change_expansion_search(settings.expansion_search);
        hnsw.reserve(capacity.max(rows as usize), settings)?;
        hnsw.rows = rows;
        Ok(hnsw)
    }
}

/// The vector as its code remembers it, for when the stored one is damaged.
fn decoded(block: &Block, at: usize) -> Vector {
    let scale = block.scales[at];
    std::array::from_fn(|i| scale * f32::from(block.codes[at].0[i]))
}
