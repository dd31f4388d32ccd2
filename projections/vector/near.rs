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

/// Compares the rows that are at most `to` and at least `from` by their sketches, downwards, until the rest is below
/// the floor. Says how many.
fn add_between(scan: &mut Scan<'_>, slabs: &[&Slab], blocks: &[Sketched<'_>], from: f32, to: f32) -> usize {
    let mut found: Vec<(f32, u32, u32)> = Vec::new();
    for block in blocks.iter().filter(|block| block.top >= from) {
        collect(block, from, to, &mut found);
    }
    found.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut compared = 0;
    for step in found.chunks(STEP_ROWS) {
        if step[0].0 < scan.floor() {
            break;
        }
        let rows: Vec<(u32, u32)> = step.iter().map(|&(_, source, row)| (source, row)).collect();
        scan.add_scattered(slabs, &rows);
        compared += step.len();
    }
    compared
}

/// Adds those rows of `block` to `found`.
fn collect(block: &Sketched<'_>, from: f32, to: f32, found: &mut Vec<(f32, u32, u32)>) {
    // A row that is not searched has −∞ here; `from` may be that too.
    let from = from.max(f32::MIN);
    for (eight, uppers) in block.uppers.as_chunks::<8>().0.iter().enumerate() {
        // Most rows are far away: eight of them are passed over in one step.
        if uppers.iter().map(|&upper| u8::from(upper >= from)).max() == Some(1) {
            for (at, &upper) in uppers.iter().enumerate() {
                if upper >= from && upper <= to {
                    found.push((upper, block.source, block.first + (eight * 8 + at) as u32));
                }
            }
        }
    }
}
