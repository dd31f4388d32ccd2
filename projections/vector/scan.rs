//! Rows compared in 8 bits, then the real similarity of every row that could be among the best.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::embedding::store::{StoreView, Vector};
use crate::vector::filter::Wanted;
use crate::vector::kernels::Kernel;
use crate::vector::quantise::{Code, Query, similarity};
use crate::vector::slab::{BLOCK_ROWS, Block, Slab};

/// The rows of a full block.
pub(crate) const ALL_ROWS: [u8; BLOCK_ROWS] = {
    let mut rows = [0; BLOCK_ROWS];
    let mut at = 0;
    while at < BLOCK_ROWS {
        rows[at] = at as u8;
        at += 1;
    }
    rows
};

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

/// A row to look at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seen {
    /// What its sketch says its similarity hardly exceeds; ∞ where none was asked.
    pub(crate) upper: f32,
    /// Which of the slabs.
    pub(crate) source: u32,
    pub(crate) row: u32,
}

/// What the last answer surely reaches.
#[derive(Debug, Clone)]
pub(crate) struct Floor {
    limit: usize,
    /// The `limit` largest similarities that are certain so far, the smallest on top.
    certain: BinaryHeap<Reverse<Score>>,
    value: f32,
}

impl Floor {
    /// The floor of a search for `limit` rows that are at least `least` similar.
    pub(crate) const fn new(limit: usize, least: f32) -> Self {
        Self { limit, certain: BinaryHeap::new(), value: least }
    }

    pub(crate) const fn value(&self) -> f32 {
        self.value
    }

    /// Takes note that some row is at least `similarity` similar.
    pub(crate) fn raise(&mut self, similarity: f32) {
        if self.certain.len() < self.limit {
            self.certain.push(Reverse(Score(similarity)));
        } else if self.certain.peek().is_some_and(|least| least.0.0 < similarity) {
            self.certain.pop();
            self.certain.push(Reverse(Score(similarity)));
        }
        if self.certain.len() == self.limit
            && let Some(least) = self.certain.peek()
        {
            self.value = self.value.max(least.0.0);
        }
    }
}

/// A row that could be among the best.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    /// What was read from its code.
    estimate: f32,
    /// How far off that can be.
    bound: f32,
    /// As in [`Seen`].
    sketch: f32,
    /// Which of the slabs.
    source: u32,
    row: u32,
}

impl Candidate {
    fn upper(&self) -> f32 {
        self.estimate + self.bound
    }

    /// Whether it could be an answer to a search that asks for `floor`.
    fn reaches(&self, floor: f32) -> bool {
        // The bound is added with a rounding; `ROUNDING_MAX` in it has room for that.
        self.upper() >= floor && self.sketch >= floor
    }

    /// What it counts for in the floor: no more than its sketch says. So the floor is the same whichever rows below it
    /// were compared, and so is what reaches it.
    fn least(&self) -> f32 {
        (self.estimate - self.bound).min(self.sketch)
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
    floor: Floor,
    candidates: Vec<Candidate>,
}

/// What a part of a search found, to be added to what others found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    candidates: Vec<Candidate>,
    certain: Vec<f32>,
}

impl Found {
    /// Similarities that rows surely reach, for a [`Floor`].
    pub(crate) fn certain(&self) -> impl Iterator<Item = f32> {
        self.certain.iter().copied()
    }
}

impl<'a> Scan<'a> {
    /// A search for the `limit` best rows that are at least `floor` similar.
    pub(crate) fn new(query: &'a Query, kernel: Kernel, limit: usize, floor: f32) -> Self {
        Self { query, kernel, floor: Floor::new(limit, floor), candidates: Vec::new() }
    }

    /// What no answer is below.
    pub(crate) const fn floor(&self) -> f32 {
        self.floor.value
    }

    /// What was found, for [`absorb`](Self::absorb).
    pub(crate) fn found(self) -> Found {
        let certain = self.floor.certain.into_iter().map(|Reverse(Score(least))| least).collect();
        Found { candidates: self.candidates, certain }
    }

    /// Adds what another part of the search found, in other rows.
    pub(crate) fn absorb(&mut self, found: &Found) {
        found.certain().for_each(|least| self.floor.raise(least));
        let floor = self.floor();
        self.candidates.extend(found.candidates.iter().filter(|candidate| candidate.reaches(floor)));
    }

    /// Looks at every row of block `number` of `slab` from row `start` of it on that is wanted.
    pub(crate) fn add_block(
        &mut self,
        source: u32,
        slab: &Slab,
        number: usize,
        start: usize,
        wanted: Wanted<'_>,
    ) {
        let (block, first) = (&*slab.blocks[number], (number * BLOCK_ROWS) as u32);
        if start == 0 && block.passes_whole(wanted.filter) {
            if let Some(next) = slab.blocks.get(number + 1) {
                self.kernel.fetch_first(&next.codes);
            }
            self.add_whole(source, first, block);
        } else {
            let mut rows = [0; BLOCK_ROWS];
            let count = block.select(start, wanted, &mut rows);
            self.add_rows(source, first, block, &rows[..count]);
        }
    }

    /// Looks at rows of slabs that `slab` knows by their number.
    pub(crate) fn add_scattered<'s>(&mut self, slab: impl Fn(u32) -> &'s Slab, rows: &[Seen]) {
        for rows in rows.chunks(BLOCK_ROWS) {
            let places: Vec<(&Block, usize)> =
                rows.iter().map(|seen| slab(seen.source).locate(seen.row)).collect();
            for &(block, at) in &places {
                self.kernel.fetch(&block.scales[at..=at]);
                self.kernel.fetch(&block.errors[at..=at]);
            }
            let codes: Vec<&Code> = places.iter().map(|&(block, at)| &block.codes[at]).collect();
            let mut dots = [0; BLOCK_ROWS];
            self.kernel.dots_of(&self.query.wide, &codes, &mut dots[..rows.len()]);
            for ((&Seen { upper, source, row }, &(block, at)), &dot) in rows.iter().zip(&places).zip(&dots) {
                let estimate = self.query.estimate(dot, block.scales[at]);
                let bound = self.query.bound(block.errors[at]);
                self.add_candidate(Candidate { estimate, bound, sketch: upper, source, row });
            }
        }
    }

    /// Looks at all rows of a full block: as [`add_rows`](Self::add_rows), without a branch for each row.
    fn add_whole(&mut self, source: u32, first: u32, block: &Block) {
        let mut dots = [0; BLOCK_ROWS];
        self.kernel.dots(&self.query.wide, &block.codes, &ALL_ROWS, &mut dots);
        let (mut estimates, mut bounds) = ([0.0; BLOCK_ROWS], [0.0; BLOCK_ROWS]);
        for ((estimate, &dot), &scale) in estimates.iter_mut().zip(&dots).zip(block.scales.iter()) {
            *estimate = self.query.estimate(dot, scale);
        }
        for (bound, &error) in bounds.iter_mut().zip(block.errors.iter()) {
            *bound = self.query.bound(error);
        }
        for (eight, (estimates, bounds)) in estimates.chunks_exact(8).zip(bounds.chunks_exact(8)).enumerate()
        {
            let uppers = estimates.iter().zip(bounds).map(|(estimate, bound)| estimate + bound);
            // Most rows are far away: eight of them are passed over in one step.
            if uppers.fold(f32::NEG_INFINITY, f32::max) < self.floor() {
                continue;
            }
            for (at, (&estimate, &bound)) in estimates.iter().zip(bounds).enumerate() {
                let row = first + (eight * 8 + at) as u32;
                self.add_candidate(Candidate { estimate, bound, sketch: f32::INFINITY, source, row });
            }
        }
    }

    /// Looks at those `rows` of the block that starts at row `first`.
    pub(crate) fn add_rows(&mut self, source: u32, first: u32, block: &Block, rows: &[u8]) {
        let mut dots = [0; BLOCK_ROWS];
        self.kernel.dots(&self.query.wide, &block.codes, rows, &mut dots[..rows.len()]);
        for (&at, &dot) in rows.iter().zip(&dots) {
            let place = usize::from(at);
            let estimate = self.query.estimate(dot, block.scales[place]);
            let bound = self.query.bound(block.errors[place]);
            let row = first + u32::from(at);
            self.add_candidate(Candidate { estimate, bound, sketch: f32::INFINITY, source, row });
        }
    }

    /// Keeps a row that could be an answer.
    fn add_candidate(&mut self, candidate: Candidate) {
        if candidate.reaches(self.floor()) {
            self.candidates.push(candidate);
            self.floor.raise(candidate.least());
        }
    }

    /// The best rows by their f32 similarity, the best first, equal ones by their key; and how many stored vectors
    /// do not fit their code. Those are damaged, and their estimate stands. It stands for those that an erasure has taken out
    /// since the search began, too, which are not counted.
    ///
    /// Rows whose estimate plus bound is below the similarity of the last answer are not read: they cannot be better.
    pub(crate) fn finish(mut self, slabs: &[&Slab], vectors: &StoreView, minimum: f32) -> (Vec<Best>, u64) {
        let (floor, limit) = (self.floor(), self.floor.limit);
        self.candidates.retain(|candidate| candidate.reaches(floor));
        self.candidates.sort_unstable_by(|a, b| b.upper().total_cmp(&a.upper()));
        let mut damaged = 0;
        let mut best: BinaryHeap<Reverse<Entry>> = BinaryHeap::new();
        let locate = |candidate: &Candidate| slabs[candidate.source as usize].locate(candidate.row);
        for (number, candidate) in self.candidates.iter().enumerate() {
            // The vectors lie far apart, so the next ones are on their way while this one is compared.
            if let Some((block, at)) = self.candidates.get(number + AHEAD_VECTORS).map(locate)
                && let Some(vector) = vectors.vector(block.slots[at])
            {
                self.kernel.fetch(vector);
            }
            let full = best.len() == limit;
            if full && best.peek().is_some_and(|least| candidate.upper() < least.0.0.0) {
                break;
            }
            let (block, at) = locate(candidate);
            let stored = vectors.vector(block.slots[at]);
            let exact = stored.map(|vector| similarity(&self.query.vector, vector));
            let score = match exact {
                Some(exact) if (exact - candidate.estimate).abs() <= candidate.bound => exact,
                Some(_) | None => {
                    damaged += u64::from(stored.is_none_or(|vector| !is_taken_out(vector)));
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

/// Whether a vector was overwritten with zeros, as those of erased texts are. None that is stored has length 0.
fn is_taken_out(vector: &Vector) -> bool {
    vector.iter().all(|number| number.to_bits() == 0)
}
