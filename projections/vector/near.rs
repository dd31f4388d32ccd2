//! From sketches to candidates: the rows that look best are compared first, so that what the last answer reaches is
//! known before all others are ruled out or compared.
//!
//! Which rows can be answers follows from the sketches and codes alone, not from when which thread was done: a search ends
//! with a floor that is the same in whatever order rows were compared, and only what reaches it by both counts
//! ([`Scan::finish`](crate::vector::scan::Scan::finish)).

use crate::vector::pass::{Pass, Sketched};
use crate::vector::scan::{Found, Seen};
use crate::vector::shares::Shares;
use crate::vector::sketch::reaching;

/// Blocks whose best rows are compared first, for each row that is wanted.
const FIRST_BLOCKS_PER_ROW: usize = 4;

/// The closer look at the rows of a pass.
pub(crate) struct Near {
    /// What the rows that were compared first reach by their sketches; all others are below.
    first: f32,
    /// From these.
    of_first: Found,
    /// From the others, by the pieces of the pass.
    of_rest: Shares<Found>,
}

impl Near {
    /// Compares the rows of `pass` that look best.
    pub(crate) fn of(pass: &Pass) -> Self {
        let mut tops: Vec<f32> = pass.sketched().map(|block| block.top).collect();
        if tops.is_empty() {
            return Self { first: f32::INFINITY, of_first: Found::default(), of_rest: Shares::new(0) };
        }
        // As many rows at least reach this as there are blocks whose best one does.
        let rank = pass.limit().saturating_mul(FIRST_BLOCKS_PER_ROW).clamp(1, tops.len()) - 1;
        let (_, &mut first, _) = tops.select_nth_unstable_by(rank, |a, b| b.total_cmp(a));
        let of_first = compare(pass, pass.sketched(), first, f32::INFINITY);
        Self { first, of_first, of_rest: Shares::new(pass.pieces()) }
    }

    /// Takes pieces as long as there are any, and compares those rows in them that reach the floor.
    pub(crate) fn work(&self, pass: &Pass) {
        self.of_rest.work(|number| self.rest(pass, number), |found| pass.learn(found));
    }

    /// Raises the floor of `pass` by the rows that were compared first.
    pub(crate) fn learn(&self, pass: &Pass) {
        pass.learn(&self.of_first);
    }

    /// From all rows. A piece that another thread took and does not finish is looked at here.
    pub(crate) fn found<'a>(&'a self, pass: &'a Pass) -> impl Iterator<Item = &'a Found> {
        std::iter::once(&self.of_first).chain(self.of_rest.all(|number| self.rest(pass, number)))
    }

    fn rest(&self, pass: &Pass, number: usize) -> Found {
        compare(pass, pass.sketched_in(number), f32::NEG_INFINITY, self.first)
    }

    /// As [`Pass::lose`].
    #[cfg(test)]
    pub(crate) fn lose(&self, count: usize) {
        self.of_rest.lose(count);
    }
}

/// Compares those rows of `blocks` that reach `from` and the floor by their sketches and are below `below`.
fn compare<'a>(pass: &Pass, blocks: impl Iterator<Item = Sketched<'a>>, from: f32, below: f32) -> Found {
    let mut scan = pass.begin();
    // A row that is not searched has −∞.
    let from = from.max(scan.floor()).max(f32::MIN);
    let mut seen: Vec<Seen> = Vec::new();
    for block in blocks.filter(|block| block.top >= from) {
        for (at, mut marks) in reaching(block.uppers, from, below).into_iter().enumerate() {
            while marks != 0 {
                let place = at * 64 + marks.trailing_zeros() as usize;
                marks &= marks - 1;
                let row = block.first + place as u32;
                seen.push(Seen { upper: block.uppers[place], source: block.source, row });
            }
        }
    }
    scan.add_scattered(|source| pass.slab(source), &seen);
    scan.found()
}
