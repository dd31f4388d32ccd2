//! From sketches to candidates: the rows that look best are compared first, so that what the last answer reaches is
//! known early and few rows are compared in all.
//!
//! Which rows are compared follows from the sketches alone, not from when which thread was done.

use crate::vector::pass::{Pass, Sketched};
use crate::vector::scan::Scan;
use crate::vector::slab::Slab;

/// Blocks whose best rows are compared first, for each row that is wanted.
const FIRST_BLOCKS_PER_ROW: usize = 4;
/// Rows that are compared between two looks at the floor.
const STEP_ROWS: usize = 128;
/// Classes of rows by their sketches.
const BINS: usize = 256;

/// Compares those rows of `pass` whose sketches reach the floor, the nearest first, and says whether some were passed
/// over.
pub(crate) fn add_near(scan: &mut Scan<'_>, pass: &Pass, slabs: &[&Slab]) -> bool {
    let blocks: Vec<Sketched<'_>> = pass.sketched().collect();
    let mut tops: Vec<f32> = blocks.iter().map(|block| block.top).collect();
    if tops.is_empty() {
        return false;
    }
    // As many rows at least reach this as there are blocks whose best one does.
    let rank = scan.limit().saturating_mul(FIRST_BLOCKS_PER_ROW).clamp(1, tops.len()) - 1;
    let (_, &mut first, _) = tops.select_nth_unstable_by(rank, |a, b| b.total_cmp(a));
    let mut compared = add_between(scan, slabs, &blocks, first, f32::INFINITY);
    let (floor, rest) = (scan.floor(), first.next_down());
    if floor <= rest {
        compared += add_between(scan, slabs, &blocks, floor, rest);
    }
    compared < pass.sketched_rows()
}

/// Compares the rows that are at most `to` and at least `from` by their sketches, downwards, but for those below what
/// the floor is by then. Says how many.
fn add_between(scan: &mut Scan<'_>, slabs: &[&Slab], blocks: &[Sketched<'_>], from: f32, to: f32) -> usize {
    let mut found: Vec<Seen> = Vec::new();
    for block in blocks.iter().filter(|block| block.top >= from) {
        collect(block, from, to, &mut found);
    }
    let (found, tops) = downwards(&found);
    let mut compared = 0;
    for step in found.chunks(STEP_ROWS) {
        // No row from here on is above what its bin is.
        let floor = scan.floor();
        if step.first().is_some_and(|(bin, _)| tops[usize::from(*bin)] < floor) {
            break;
        }
        let near = step.iter().filter(|(_, seen)| seen.upper >= floor);
        let rows: Vec<(u32, u32)> = near.map(|(_, seen)| (seen.source, seen.row)).collect();
        scan.add_scattered(slabs, &rows);
        compared += rows.len();
    }
    compared
}

/// A row by its sketch.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    upper: f32,
    source: u32,
    row: u32,
}

/// Rows with the bin of each, from the highest bin on, those of a bin in the order they came; and the highest of each bin.
///
/// That is order enough: what matters is that the floor is known soon. Sorting them all took as long as comparing them.
fn downwards(found: &[Seen]) -> (Vec<(u8, Seen)>, [f32; BINS]) {
    let mut tops = [f32::NEG_INFINITY; BINS];
    let uppers = || found.iter().map(|seen| seen.upper);
    let (lowest, highest) =
        (uppers().fold(f32::INFINITY, f32::min), uppers().fold(f32::NEG_INFINITY, f32::max));
    let per_bin = ((highest - lowest) / (BINS - 1) as f32).max(f32::MIN_POSITIVE);
    let bin_of = |upper: f32| ((highest - upper) / per_bin).min((BINS - 1) as f32) as u8;
    let mut starts = [0; BINS];
    for upper in uppers() {
        let bin = usize::from(bin_of(upper));
        starts[bin] += 1;
        tops[bin] = tops[bin].max(upper);
    }
    let mut rows = 0;
    for start in &mut starts {
        (*start, rows) = (rows, rows + *start);
    }
    let mut ordered = vec![(0, Seen { upper: 0.0, source: 0, row: 0 }); rows];
    for seen in found {
        let bin = bin_of(seen.upper);
        let place = &mut starts[usize::from(bin)];
        ordered[*place] = (bin, *seen);
        *place += 1;
    }
    (ordered, tops)
}

/// Adds those rows of `block` to `found`.
fn collect(block: &Sketched<'_>, from: f32, to: f32, found: &mut Vec<Seen>) {
    // A row that is not searched has −∞ here; `from` may be that too.
    let from = from.max(f32::MIN);
    for (eight, uppers) in block.uppers.as_chunks::<8>().0.iter().enumerate() {
        // Most rows are far away: eight of them are passed over in one step.
        if uppers.iter().map(|&upper| u8::from(upper >= from)).max() == Some(1) {
            for (at, &upper) in uppers.iter().enumerate() {
                if upper >= from && upper <= to {
                    let row = block.first + (eight * 8 + at) as u32;
                    found.push(Seen { upper, source: block.source, row });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BINS, Seen, downwards};

    #[test]
    fn higher_bins_come_first_and_no_row_is_above_its_bin() {
        for spread in [0.0, 1e-30, 0.3, 1e6] {
            let seen = |row: u32| {
                let upper =
                    spread * (f32::from((row.wrapping_mul(2_654_435_761) >> 16) as u16) / 65_536.0 - 0.5);
                Seen { upper, source: row % 3, row }
            };
            let found: Vec<Seen> = (0..3_000).map(seen).collect();
            let (ordered, tops) = downwards(&found);
            for pair in ordered.windows(2) {
                let ((bin, seen), (next_bin, next)) = (pair[0], pair[1]);
                let later = bin == next_bin && seen.row < next.row;
                assert!(later || bin < next_bin && seen.upper > next.upper, "{pair:?}");
            }
            assert!(ordered.iter().all(|(bin, seen)| seen.upper <= tops[usize::from(*bin)]));
            let bins = tops.iter().filter(|top| top.is_finite()).count();
            assert_eq!(bins > 1, spread > 0.0);
            assert!(tops.is_sorted_by(|a, b| !a.is_finite() || !b.is_finite() || a > b));
            let mut back: Vec<Seen> = ordered.iter().map(|(_, seen)| *seen).collect();
            back.sort_unstable_by_key(|seen| seen.row);
            assert!(back == found, "all of them, once");
        }
        assert_eq!(downwards(&[]), (Vec::new(), [f32::NEG_INFINITY; BINS]));
    }
}
