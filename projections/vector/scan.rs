//! The scan: a pass over all rows in 8 bits, or in one bit first where there are many, then the real similarity of
//! every row that could be among the best.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::embedding::store::StoreView;
use crate::vector::kernels::Kernel;
use crate::vector::quantise::{Query, similarity};
use crate::vector::slab::{BLOCK_ROWS, Block, Filter, Slab};

/// The rows of a full block.
const ALL_ROWS: [u8; BLOCK_ROWS] = {
    let mut rows = [0; BLOCK_ROWS];
    let mut at = 0;
    while at < BLOCK_ROWS {
        rows[at] = at as u8;
        at += 1;
    }
    rows
};

/// Rows of a block from which on their sketches are looked at first: they come for all rows of it at once.
const SKETCHED_ROWS_MIN: usize = 32;

/// Candidates whose vectors are fetched ahead of use.
const AHEAD_VECTORS: usize = 4;

/// A total order of finite numbers for heaps.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Score(f32);

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A row that could be among the best.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// What was read from its code.
    estimate: f32,
    /// How far off that can be.
    bound: f32,
    /// Which of the slabs.
    source: u32,
    row: u32,
}

impl Candidate {
    fn upper(&self) -> f32 {
        self.estimate + self.bound
    }
}

/// Similarity, key, source and row: ordered as answers are, the best last.
type Entry = (Score, Reverse<u64>, u32, u32);

/// One of the best rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Best {
    pub(crate) similarity: f32,
    /// Which of the slabs, by its number at [`Scan::add`].
    pub(crate) source: u32,
    pub(crate) row: u32,
}

/// A search under way over any number of slabs.
pub(crate) struct Scan<'a> {
    query: &'a Query,
    kernel: Kernel,
    limit: usize,
    /// The `limit` largest similarities that are certain so far, the smallest on top.
    certain: BinaryHeap<Reverse<Score>>,
    /// No row below can be an answer.
    floor: f32,
    candidates: Vec<Candidate>,
    /// Whether a row was passed over because its sketch is far.
    passed_over: bool,
}

impl<'a> Scan<'a> {
    /// A search for the `limit` best rows that are at least `floor` similar.
    pub(crate) fn new(query: &'a Query, kernel: Kernel, limit: usize, floor: f32) -> Self {
        Self {
            query,
            kernel,
            limit,
            certain: BinaryHeap::new(),
            floor,
            candidates: Vec::new(),
            passed_over: false,
        }
    }

    /// Rows wanted at most.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// What is searched for.
    pub(crate) const fn query(&self) -> &'a Query {
        self.query
    }

    /// Whether rows were passed over by their sketches alone, so that one may be missing.
    pub(crate) const fn passed_over(&self) -> bool {
        self.passed_over
    }

    /// Looks at the sketch of every row of `slab` from row `from` on that passes `filter`, and closer at those that
    /// may be among the best.
    pub(crate) fn add_sketched(&mut self, source: u32, slab: &Slab, from: u32, filter: &Filter) {
        let first = from as usize / BLOCK_ROWS;
        let mut uppers = [0.0; BLOCK_ROWS];
        // A block's rows are compared when those of the next are known: until then they come from memory.
        let (mut rows, mut count, mut before) = ([0; BLOCK_ROWS], 0, first);
        for (number, block) in slab.blocks.iter().enumerate().skip(first) {
            let start = if number == first { from as usize % BLOCK_ROWS } else { 0 };
            let (mut wanted, mut near) = (ALL_ROWS, BLOCK_ROWS);
            if start > 0 || !block.passes_whole(filter) {
                near = block.select(start, filter, &mut wanted);
            }
            if near >= SKETCHED_ROWS_MIN {
                let next = slab.blocks.get(number + 1).map(|next| &next.sketches);
                self.query.probe.uppers(&block.sketches, next, &mut uppers);
                near = self.keep_near(&uppers, &mut wanted, near);
            }
            self.kernel.fetch_rows(&block.codes, &wanted[..near]);
            self.add_rows(source, (before * BLOCK_ROWS) as u32, &slab.blocks[before], &rows[..count]);
            (rows, count, before) = (wanted, near, number);
        }
        if count > 0 {
            self.add_rows(source, (before * BLOCK_ROWS) as u32, &slab.blocks[before], &rows[..count]);
        }
    }

    /// Moves those of the first `count` rows whose sketches reach the floor to the front and says how many there are.
    fn keep_near(&mut self, uppers: &[f32; BLOCK_ROWS], rows: &mut [u8; BLOCK_ROWS], count: usize) -> usize {
        let mut near = 0;
        for at in 0..count {
            let row = rows[at];
            // Written always and kept only if it counts: no branch to mispredict.
            rows[near] = row;
            near += usize::from(uppers[usize::from(row)] >= self.floor);
        }
        self.passed_over |= near < count;
        near
    }

    /// Looks at every row of `slab` from row `from` on that passes `filter`.
    pub(crate) fn add(&mut self, source: u32, slab: &Slab, from: u32, filter: &Filter) {
        let mut rows = [0; BLOCK_ROWS];
        let first = from as usize / BLOCK_ROWS;
        for (number, block) in slab.blocks.iter().enumerate().skip(first) {
            let start = if number == first { from as usize % BLOCK_ROWS } else { 0 };
            if start == 0 && block.passes_whole(filter) {
                if let Some(next) = slab.blocks.get(number + 1) {
                    self.kernel.fetch_first(&next.codes);
                }
                self.add_block(source, (number * BLOCK_ROWS) as u32, block);
            } else {
                let count = block.select(start, filter, &mut rows);
                self.add_rows(source, (number * BLOCK_ROWS) as u32, block, &rows[..count]);
            }
        }
    }

    /// Looks at one row.
    pub(crate) fn add_row(&mut self, source: u32, slab: &Slab, row: u32) {
        let (block, at) = slab.locate(row);
        self.add_rows(source, row - at as u32, block, &[at as u8]);
    }

    /// Looks at all rows of a full block: as [`add_rows`](Self::add_rows), without a branch for each row.
    fn add_block(&mut self, source: u32, first: u32, block: &Block) {
        let mut dots = [0; BLOCK_ROWS];
        self.kernel.dots(&self.query.wide, &block.codes, &ALL_ROWS, &mut dots);
        let (mut estimates, mut bounds) = ([0.0; BLOCK_ROWS], [0.0; BLOCK_ROWS]);
        for ((estimate, &dot), &scale) in estimates.iter_mut().zip(&dots).zip(&block.scales) {
            *estimate = self.query.estimate(dot, scale);
        }
        for (bound, &error) in bounds.iter_mut().zip(&block.errors) {
            *bound = self.query.bound(error);
        }
        for (eight, (estimates, bounds)) in estimates.chunks_exact(8).zip(bounds.chunks_exact(8)).enumerate()
        {
            let uppers = estimates.iter().zip(bounds).map(|(estimate, bound)| estimate + bound);
            // Most rows are far away: eight of them are passed over in one step.
            if uppers.fold(f32::NEG_INFINITY, f32::max) < self.floor {
                continue;
            }
            for (at, (&estimate, &bound)) in estimates.iter().zip(bounds).enumerate() {
                self.add_candidate(Candidate {
                    estimate,
                    bound,
                    source,
                    row: first + (eight * 8 + at) as u32,
                });
            }
        }
    }

    fn add_rows(&mut self, source: u32, first: u32, block: &Block, rows: &[u8]) {
        let mut dots = [0; BLOCK_ROWS];
        self.kernel.dots(&self.query.wide, &block.codes, rows, &mut dots[..rows.len()]);
        for (&at, &dot) in rows.iter().zip(&dots) {
            let place = usize::from(at);
            let estimate = self.query.estimate(dot, block.scales[place]);
            let bound = self.query.bound(block.errors[place]);
            self.add_candidate(Candidate { estimate, bound, source, row: first + u32::from(at) });
        }
    }

    /// Keeps a row that could be an answer.
    fn add_candidate(&mut self, candidate: Candidate) {
        // The bound is added with a rounding; `ROUNDING_MAX` in it has room for that.
        if candidate.upper() >= self.floor {
            self.candidates.push(candidate);
            self.raise(candidate.estimate - candidate.bound);
        }
    }

    /// Takes note that some row is at least `similarity` similar.
    fn raise(&mut self, similarity: f32) {
        if self.certain.len() < self.limit {
            self.certain.push(Reverse(Score(similarity)));
        } else if self.certain.peek().is_some_and(|least| least.0.0 < similarity) {
            self.certain.pop();
            self.certain.push(Reverse(Score(similarity)));
        }
        if self.certain.len() == self.limit
            && let Some(least) = self.certain.peek()
        {
            self.floor = self.floor.max(least.0.0);
        }
    }

    /// The best rows by their f32 similarity, the best first, equal ones by their key; and how many stored vectors
    /// do not fit their code. Those are damaged, and their estimate stands.
    ///
    /// Rows whose estimate plus bound is below the similarity of the last answer are not read: they cannot be better.
    pub(crate) fn finish(mut self, slabs: &[&Slab], vectors: &StoreView, minimum: f32) -> (Vec<Best>, u64) {
        let floor = self.floor;
        self.candidates.retain(|candidate| candidate.upper() >= floor);
        self.candidates.sort_unstable_by(|a, b| b.upper().total_cmp(&a.upper()));
        let mut damaged = 0;
        let mut best: BinaryHeap<Reverse<Entry>> = BinaryHeap::new();
        let locate = |candidate: &Candidate| slabs[candidate.source as usize].locate(candidate.row);
        for (number, candidate) in self.candidates.iter().enumerate() {
            // The vectors lie far apart, so the next ones are on their way while this one is compared.
            if let Some((block, at)) = self.candidates.get(number + AHEAD_VECTORS).map(locate)
                && let Some(vector) = vectors.vector(block.slots[at])
            {
                self.kernel.fetch_vector(vector);
            }
            let full = best.len() == self.limit;
            if full && best.peek().is_some_and(|least| candidate.upper() < least.0.0.0) {
                break;
            }
            let (block, at) = locate(candidate);
            let exact = vectors.vector(block.slots[at]).map(|vector| similarity(&self.query.vector, vector));
            let score = match exact {
                Some(exact) if (exact - candidate.estimate).abs() <= candidate.bound => exact,
                Some(_) | None => {
                    damaged += 1;
                    candidate.estimate
                }
            };
            if score < minimum {
                continue;
            }
            let entry = Reverse((Score(score), Reverse(block.keys[at].0), candidate.source, candidate.row));
            if !full {
                best.push(entry);
            } else if best.peek().is_some_and(|least| least.0 < entry.0) {
                best.pop();
                best.push(entry);
            }
        }
        let best = best.into_sorted_vec().into_iter();
        let best = best.map(|Reverse((score, _, source, row))| Best { similarity: score.0, source, row });
        (best.collect(), damaged)
    }
}
