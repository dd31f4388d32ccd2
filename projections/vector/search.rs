//! Which rows are most similar to a vector: the reading side of the projection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use caxton_events::{MemoryId, Scope, Seq, Timestamp};

use crate::by_name::numbers_of;
use crate::embedding::standby::{Called, Work};
use crate::embedding::{EmbedError, Embedder};
use crate::vector::filter::Filter;
use crate::vector::index::Hnsw;
use crate::vector::pass::{Aim, Part, Pass};
use crate::vector::quantise::{Query, QueryVectorError};
use crate::vector::scan::Seen;
use crate::vector::shared::{Shared, View};

/// What a search asks for.
#[derive(Debug, Clone, Copy)]
pub struct VectorQuery<'a> {
    /// 384 finite numbers, not all zero; brought to length 1 if they are not.
    pub vector: &'a [f32],
    /// Where to look; scopes that hold nothing are passed over.
    pub scopes: &'a [Scope],
    /// Only entities of these types; empty: all.
    pub entity_types: &'a [String],
    /// Only rows that were true at this moment, and whose entity was.
    pub valid_at: Option<Timestamp>,
    /// Rows as they were after this record, which the projection must include; `None`: as they are.
    pub as_of: Option<Seq>,
    /// Only rows at least this similar.
    pub min_similarity: Option<f32>,
    /// Rows at most.
    pub limit: usize,
    /// Scan everything, whatever it costs.
    pub exact: bool,
}

/// A row that is near the query.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct VectorHit {
    /// The observation, or the entity itself when its name and type matched.
    pub row: MemoryId,
    /// The entity it belongs to.
    pub entity: MemoryId,
    /// Which part of a long observation, from 0.
    pub chunk: u16,
    /// Cosine, −1 to 1, of the stored `f32` vectors; higher is nearer.
    pub similarity: f32,
}

/// The nearest rows.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorAnswer {
    /// The nearest first; equally near ones by row and chunk.
    pub hits: Vec<VectorHit>,
    /// Whether it is certain that no nearer row was missed. It is not as of a record before which rows are lacking.
    pub exact: bool,
}

/// Why a search was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VectorSearchError {
    /// The vector cannot be compared.
    #[error(transparent)]
    Vector(#[from] QueryVectorError),
    /// A bound that is no number.
    #[error("min_similarity is NaN; give a number from -1 to 1, or none")]
    MinSimilarity,
}

/// A scope in numbers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ScopeStats {
    /// Its name, as in `agent:ada`.
    pub scope: String,
    /// Rows that can be found.
    pub rows: u64,
    /// Rows that were removed and still take room.
    pub removed: u64,
    /// What rows were before they were changed or removed: only searches as of an earlier record look at them.
    pub closed: u64,
    /// Rows the HNSW index covers; 0 without one. The rest is scanned.
    pub indexed: u64,
    /// Memory of rows and index, in bytes.
    pub bytes: u64,
}

/// The projection in numbers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct VectorStats {
    /// The last record included.
    pub checkpoint: Seq,
    /// Rows that can be found, all scopes together.
    pub rows: u64,
    /// By scope.
    pub scopes: Vec<ScopeStats>,
    /// Vectors in the store beside, used or not.
    pub stored: u64,
    /// Stored vectors that were found damaged: records that were of no use when the store was opened, and how often a search
    /// met a vector that does not fit its row since. A text whose vector is gone is embedded again when it is folded again.
    pub damaged: u64,
    /// The instructions that scan.
    pub kernel: String,
    /// Why the last build of an index failed, of a scope that has had none since; searches scan meanwhile. It is tried again
    /// once the scope has changed by many rows.
    pub index_failure: Option<String>,
}

/// Rows that a filter passes over in the time one is scanned.
const SKIPPED_PER_SCANNED: f64 = 20.0;

/// Searches the vectors while the projection folds on. Clones are cheap.
#[derive(Clone)]
pub struct VectorReader {
    shared: Arc<Shared>,
}

impl VectorReader {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The last record that searches from now on include.
    pub fn checkpoint(&self) -> Seq {
        self.shared.checkpoint()
    }

    /// The vector of each of `texts`, in their order: the one that is stored, and where there is none, or it is damaged, the one that
    /// `embedder` makes. It must be the model of this projection.
    ///
    /// # Errors
    ///
    /// [`EmbedError`] of the model.
    pub fn vectors_of(&self, texts: &[&str], embedder: &dyn Embedder) -> Result<Vec<Vec<f32>>, EmbedError> {
        let store = &self.shared.store;
        let stored = |text: &&str| Some(store.vector(store.get_slot(text)?)?.to_vec());
        let found: Vec<Option<Vec<f32>>> = texts.iter().map(stored).collect();
        let lacking = texts.iter().zip(&found).filter(|(_, vector)| vector.is_none());
        let missing: Vec<&str> = lacking.map(|(text, _)| *text).collect();
        let made = if missing.is_empty() { Vec::new() } else { embedder.embed(&missing)? };
        let mut made = made.into_iter();
        // A model makes one for each.
        Ok(found.into_iter().map(|vector| vector.or_else(|| made.next()).unwrap_or_default()).collect())
    }

    /// The rows most similar to a vector.
    ///
    /// Small scopes are scanned exactly, large ones by their sketches, and very large ones that have an index with
    /// it where the filter leaves enough for that to be cheaper. Similarities are exact in each case.
    ///
    /// # Errors
    ///
    /// [`VectorSearchError`] for a vector or a bound that cannot be compared with.
    pub fn search(&self, ask: &VectorQuery<'_>) -> Result<VectorAnswer, VectorSearchError> {
        Ok(self.begin(ask)?.finish())
    }

    /// Begins a [`search`](Self::search): threads that stand by start with it, and the caller can do something else before it
    /// [finishes](Begun::finish) what they have not done by then.
    ///
    /// # Errors
    ///
    /// As [`search`](Self::search).
    pub fn begin(&self, ask: &VectorQuery<'_>) -> Result<Begun<'_>, VectorSearchError> {
        let query = Query::new(ask.vector)?;
        let minimum = ask.min_similarity.unwrap_or(f32::NEG_INFINITY);
        if minimum.is_nan() {
            return Err(VectorSearchError::MinSimilarity);
        }
        let Some((filter, views, mut whole)) = self.asked(ask).filter(|_| ask.limit > 0) else {
            return Ok(Begun::nowhere());
        };
        let options = &self.shared.options;
        let (mut parts, mut indexed) = (Vec::with_capacity(views.len()), Vec::new());
        for view in views {
            let source = parts.len() as u32;
            let index = view.index.as_deref().filter(|_| !ask.exact);
            let rows_per_candidate = options.scan_rows_per_candidate;
            let found = index
                .and_then(|index| by_index(&query, ask.limit, &view, index, &filter, rows_per_candidate));
            let from = found.as_ref().map_or(0, |(_, covered)| *covered);
            if let Some((rows, _)) = found {
                whole = false;
                indexed.extend(rows.into_iter().map(|row| Seen { upper: f32::INFINITY, source, row }));
            }
            let sketched = !ask.exact && rows_then(&view, filter.as_of) >= options.sketch_from;
            if filter.as_of.is_some() && view.closed.rows > 0 {
                parts.push(Part { view: Arc::clone(&view), closed: false, from, sketched });
                parts.push(Part { view, closed: true, from: 0, sketched });
            } else {
                parts.push(Part { view, closed: false, from, sketched });
            }
        }
        let aim = Aim { query, kernel: self.shared.kernel, filter, limit: ask.limit, minimum };
        let pass = Arc::new(Pass::new(aim, parts, Arc::clone(&self.shared.buffers)));
        let called =
            if pass.is_long() { self.shared.helpers.take().map(|threads| threads.call(&pass)) } else { None };
        Ok(Begun(Some(Scanning { shared: &self.shared, pass, called, indexed, whole, minimum })))
    }

    /// The filter of `ask`, the scopes to look at, and whether they hold all that it asks for; `None` when no row can pass it.
    fn asked(&self, ask: &VectorQuery<'_>) -> Option<(Filter, Vec<Arc<View>>, bool)> {
        let mut scopes: Vec<&Scope> = ask.scopes.iter().collect();
        scopes.sort_unstable();
        scopes.dedup();
        // Scopes and the numbers of their types at the same moment.
        let known = self.shared.known();
        let views =
            scopes.iter().filter_map(|scope| known.cells.get(*scope)).map(|cell| cell.view()).collect();
        let whole = ask.as_of.is_none_or(|seq| seq >= known.past_from);
        let valid_at = ask.valid_at.map(Timestamp::unix_micros);
        let as_of = ask.as_of.map(|seq| seq.0);
        if ask.entity_types.is_empty() {
            return Some((Filter { kinds: None, valid_at, as_of }, views, whole));
        }
        let kinds = numbers_of(ask.entity_types, |name| known.kinds.number(name));
        // A type that nothing has may be that of rows which are lacking.
        let any = !kinds.is_empty() || !whole;
        any.then_some((Filter { kinds: Some(kinds), valid_at, as_of }, views, whole))
    }

    /// How much there is, and what is indexed.
    pub fn stats(&self) -> VectorStats {
        let cells = self.shared.cells();
        let scopes: Vec<ScopeStats> = cells
            .iter()
            .map(|cell| {
                let view = cell.view();
                let (rows, index) = (view.slab.alive(), view.index.as_ref());
                ScopeStats {
                    scope: cell.scope.to_string(),
                    rows: u64::from(rows),
                    removed: u64::from(view.slab.dead),
                    closed: u64::from(view.closed.rows),
                    indexed: index.map_or(0, |index| u64::from(index.rows())),
                    bytes: (view.slab.bytes()
                        + view.closed.bytes()
                        + view.past.bytes()
                        + index.map_or(0, |index| index.bytes_taken())) as u64,
                }
            })
            .collect();
        let failure = cells.iter().find_map(|cell| cell.index_failure());
        VectorStats {
            checkpoint: self.checkpoint(),
            rows: scopes.iter().map(|scope| scope.rows).sum(),
            scopes,
            stored: self.shared.store.len() as u64,
            damaged: self.shared.damaged.load(Ordering::Relaxed),
            kernel: format!("{:?}", self.shared.kernel),
            index_failure: failure.map(|failure| failure.what),
        }
    }
}

/// A search that was begun, see [`VectorReader::begin`]. Dropped, nobody who has not begun with it
/// begins any more.
pub struct Begun<'a>(Option<Scanning<'a>>);

struct Scanning<'a> {
    shared: &'a Shared,
    pass: Arc<Pass>,
    called: Option<Called<'a>>,
    /// Rows that indexes found, by the part they are of.
    indexed: Vec<Seen>,
    /// Whether no part was asked by its index, and none lacks rows of the time asked for.
    whole: bool,
    minimum: f32,
}

impl Begun<'_> {
    /// A search where nothing can be found.
    pub(crate) const fn nowhere() -> Self {
        Self(None)
    }

    /// Does what is left, and answers.
    pub fn finish(self) -> VectorAnswer {
        let Some(Scanning { shared, pass, called, indexed, whole, minimum }) = self.0 else {
            return VectorAnswer { hits: Vec::new(), exact: true };
        };
        pass.work();
        let mut scan = pass.scan(minimum);
        drop(called);
        let slabs = pass.slabs();
        scan.add_scattered(|source| slabs[source as usize], &indexed);
        let exact = whole && !pass.passes_over(scan.floor());
        // Taken after the slabs: every slot they name is in it.
        let (best, damaged) = scan.finish(&slabs, &shared.store.view(), minimum);
        if damaged > 0 {
            shared.damaged.fetch_add(damaged, Ordering::Relaxed);
        }
        let hits = best.into_iter().map(|best| {
            let (block, at) = slabs[best.source as usize].locate(best.row);
            let key = block.keys[at];
            VectorHit {
                row: key.row(),
                entity: block.entities[at],
                chunk: key.chunk(),
                similarity: best.similarity,
            }
        });
        VectorAnswer { hits: hits.collect(), exact }
    }
}

/// How many rows of the scope decide the way it is searched. As of a record it is those of that time, whatever was
/// written since: with few of them, the answer is exact and stays what it is.
fn rows_then(view: &View, as_of: Option<u64>) -> u32 {
    if as_of.is_none() {
        return view.slab.rows;
    }
    let then = Filter { as_of, ..Filter::default() };
    let then = view.wanted(&then);
    view.slab.count(then, view.slab.rows) + view.closed.count(then, view.closed.rows)
}

/// The rows that the index finds, and from which row on the slab must still be scanned. `None` when the whole slab
/// must be: because that is cheaper, or because the index found less than there is.
fn by_index(
    query: &Query,
    limit: usize,
    view: &View,
    index: &Hnsw,
    filter: &Filter,
    rows_per_candidate: u32,
) -> Option<(Vec<u32>, u32)> {
    let (slab, covered) = (&view.slab, f64::from(index.rows()));
    let filter = &filter.on(slab);
    let wanted = view.wanted(filter);
    let index_cost = |count: usize| index.expansion(count) as f64 * f64::from(rows_per_candidate);
    if index_cost(limit) >= covered {
        return None;
    }
    let passing = slab.count(wanted, index.rows());
    // The order that bf16 blurs is restored by comparing some more rows with f32.
    let count = limit.saturating_mul(2).max(limit.saturating_add(32)).min(passing as usize);
    // The index walks past what the filter does not want, so it takes longer the less that is.
    let share = f64::from(passing) / covered;
    let scan_cost = f64::from(passing) + covered / SKIPPED_PER_SCANNED;
    if passing == 0 || index_cost(count) / share >= scan_cost {
        return None;
    }
    let whole = filter.passes_all() && slab.dead == 0;
    let passes = |row: u32| {
        row < slab.rows && {
            let (block, at) = slab.locate(row);
            block.passes(at, wanted)
        }
    };
    let rows = index.search(query, count, if whole { None } else { Some(&passes) })?;
    (rows.len() >= limit.min(passing as usize)).then(|| (rows, index.rows()))
}
