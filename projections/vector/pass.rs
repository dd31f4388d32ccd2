//! A pass over all rows of a search: cut into pieces that any number of threads take, each giving what it would give
//! alone.
//!
//! A piece of a large scope says for each of its rows what the similarity hardly exceeds, by the sketches; `near` then
//! looks closer at the best of all. Every other piece compares its rows in 8 bits at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::embedding::standby::Work;
use crate::vector::filter::Filter;
use crate::vector::kernels::Kernel;
use crate::vector::near::Near;
use crate::vector::quantise::Query;
use crate::vector::scan::{Floor, Found, Scan, Seen};
use crate::vector::shared::View;
use crate::vector::shares::Shares;
use crate::vector::sketch::only;
use crate::vector::slab::{BLOCK_ROWS, Slab, places};

/// Blocks of a piece: some ten microseconds of sketches.
const PIECE_BLOCKS: usize = 16;
/// Rows of a piece at most.
const PIECE_ROWS: usize = PIECE_BLOCKS * BLOCK_ROWS;
/// Rows of a block from which on their sketches are looked at: they come for all rows of it at once.
const SKETCHED_ROWS_MIN: u32 = 32;
/// Rows of a block from which on they are compared at once; fewer wait for those of other blocks.
const TOGETHER: usize = 8;
/// Buffers that are kept for the next search: 2 MB.
const BUFFERS_MAX: usize = 128;

/// The rows of one scope that a search looks at.
pub(crate) struct Part {
    pub(crate) view: Arc<View>,
    /// Whether its closed rows are meant.
    pub(crate) closed: bool,
    /// The first row.
    pub(crate) from: u32,
    /// Whether their sketches are looked at first.
    pub(crate) sketched: bool,
}

impl Part {
    pub(crate) fn slab(&self) -> &Slab {
        if self.closed { &self.view.closed } else { &self.view.slab }
    }
}

/// Some blocks of a part.
struct Piece {
    source: u32,
    first: usize,
    blocks: usize,
}

/// What is known of a piece's rows.
#[derive(Default)]
pub(crate) struct Output {
    /// From the rows that were compared.
    found: Found,
    /// What the sketch says of each row of the piece. Empty when none is searched by sketches.
    uppers: Vec<f32>,
    /// The highest of each block; −∞ where no sketch was looked at, and the rest of that block says nothing.
    tops: [f32; PIECE_BLOCKS],
    /// The lowest of all; ∞ where no sketch was looked at.
    lowest: f32,
}

/// A block of which sketches were looked at.
pub(crate) struct Sketched<'a> {
    pub(crate) source: u32,
    /// Number of its first row.
    pub(crate) first: u32,
    /// Those of rows that are not wanted are −∞.
    pub(crate) uppers: &'a [f32; BLOCK_ROWS],
    pub(crate) top: f32,
}

/// Buffers that searches use one after another: fresh ones cost more than what is written to them.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<f32>>>);

impl Buffers {
    fn take(&self) -> Vec<f32> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().unwrap_or_else(|| vec![0.0; PIECE_ROWS])
    }

    fn give_back(&self, buffers: impl Iterator<Item = Vec<f32>>) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(buffers.filter(|buffer| buffer.capacity() > 0));
        idle.truncate(BUFFERS_MAX);
    }
}

/// A pass under way.
pub(crate) struct Pass {
    query: Query,
    kernel: Kernel,
    filter: Filter,
    limit: usize,
    parts: Vec<Part>,
    pieces: Vec<Piece>,
    outputs: Shares<Output>,
    /// What comes after that, once one thread has all outputs.
    near: OnceLock<Near>,
    /// Bits of a similarity that the last answer surely reaches, as far as is known.
    floor: AtomicU32,
    /// The same with what it is known from; whoever finds it taken goes on without.
    certain: Mutex<Floor>,
    buffers: Arc<Buffers>,
}

/// What a pass is for.
pub(crate) struct Aim {
    pub(crate) query: Query,
    pub(crate) kernel: Kernel,
    pub(crate) filter: Filter,
    /// Rows wanted at most.
    pub(crate) limit: usize,
    /// The least similarity wanted.
    pub(crate) minimum: f32,
}

/// Nobody depends on those who take part: a piece they took and do not finish is looked at again.
impl Work for Pass {
    /// Takes pieces as long as there are any, then those that need a closer look.
    fn work(&self) {
        self.outputs.work(|number| self.look_at(number), |output| self.learn(&output.found));
        if let Some(near) = self.near() {
            near.work(self);
        }
    }
}

impl Pass {
    pub(crate) fn new(aim: Aim, parts: Vec<Part>, buffers: Arc<Buffers>) -> Self {
        let mut pieces = Vec::new();
        for (source, part) in parts.iter().enumerate() {
            let (mut first, end) = (part.from as usize / BLOCK_ROWS, part.slab().blocks.len());
            while first < end {
                let blocks = PIECE_BLOCKS.min(end - first);
                pieces.push(Piece { source: source as u32, first, blocks });
                first += blocks;
            }
        }
        let outputs = Shares::new(pieces.len());
        let Aim { query, kernel, filter, limit, minimum } = aim;
        let (near, floor) = (OnceLock::new(), AtomicU32::new(minimum.to_bits()));
        let certain = Mutex::new(Floor::new(limit, minimum));
        Self { query, kernel, filter, limit, parts, pieces, outputs, near, floor, certain, buffers }
    }

    /// Whether another thread would make it shorter.
    pub(crate) fn is_long(&self) -> bool {
        self.pieces.len() >= 3
    }

    /// The scopes that are searched, by source.
    pub(crate) fn slabs(&self) -> Vec<&Slab> {
        self.parts.iter().map(Part::slab).collect()
    }

    /// One of them.
    pub(crate) fn slab(&self, source: u32) -> &Slab {
        self.parts[source as usize].slab()
    }

    /// Rows wanted at most.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// How many pieces there are.
    pub(crate) const fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Takes `count` pieces, and `closer` to look closer at, and does nothing with them, as a thread that has lost its core.
    #[cfg(test)]
    pub(crate) fn lose(&self, count: usize, closer: usize) {
        if let Some(near) = self.near().filter(|_| closer > 0) {
            near.lose(closer);
        }
        self.outputs.lose(count);
    }

    /// A search that keeps nothing below the floor as it is known.
    pub(crate) fn begin(&self) -> Scan<'_> {
        let floor = f32::from_bits(self.floor.load(Ordering::Relaxed));
        Scan::new(&self.query, self.kernel, self.limit, floor)
    }

    /// Raises the floor by what was found in rows that nobody told of yet. Others need not keep what cannot be among the best
    /// of all; what they leave out never is, so it does not matter to the answer when they learn it.
    pub(crate) fn learn(&self, found: &Found) {
        // Somebody who has it may have lost its core.
        if let Ok(mut known) = self.certain.try_lock() {
            found.certain().for_each(|least| known.raise(least));
            self.floor.store(known.value().to_bits(), Ordering::Relaxed);
        }
    }

    /// Everything that was compared, by all who took part, for the rows that are at least `minimum` similar. What they took
    /// and do not finish is done here.
    pub(crate) fn scan(&self, minimum: f32) -> Scan<'_> {
        let mut scan = Scan::new(&self.query, self.kernel, self.limit, minimum);
        self.outputs().for_each(|output| scan.absorb(&output.found));
        if let Some(near) = self.near() {
            near.found(self).for_each(|found| scan.absorb(found));
        }
        scan
    }

    /// Whether there is a row that a search with this floor in the end does not compare.
    pub(crate) fn passes_over(&self, floor: f32) -> bool {
        self.outputs().any(|output| output.lowest < floor)
    }

    /// What all pieces gave.
    fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.outputs.all(|number| self.look_at(number))
    }

    /// What comes after all pieces, where sketches were looked at.
    fn near(&self) -> Option<&Near> {
        if !self.parts.iter().any(|part| part.sketched) {
            return None;
        }
        if let Some(near) = self.near.get() {
            return Some(near);
        }
        // Two may do this at the same time: neither waits for a thread that may have lost its core.
        let is_first = self.near.set(Near::of(self)).is_ok();
        let near = self.near.get()?;
        if is_first {
            near.learn(self);
        }
        Some(near)
    }

    /// The blocks of all pieces whose rows are known by their sketches, in their order.
    pub(crate) fn sketched(&self) -> impl Iterator<Item = Sketched<'_>> {
        self.outputs().zip(&self.pieces).flat_map(|(output, piece)| piece.sketched(output))
    }

    /// Those of one piece.
    pub(crate) fn sketched_in(&self, number: usize) -> impl Iterator<Item = Sketched<'_>> {
        let output = self.outputs.get(number, |number| self.look_at(number));
        output.zip(self.pieces.get(number)).into_iter().flat_map(|(output, piece)| piece.sketched(output))
    }

    fn look_at(&self, number: usize) -> Output {
        let piece = &self.pieces[number];
        let part = &self.parts[piece.source as usize];
        let mut scan = self.begin();
        let mut output =
            Output { tops: [f32::NEG_INFINITY; PIECE_BLOCKS], lowest: f32::INFINITY, ..Output::default() };
        if part.sketched {
            self.sketch(piece, part, &mut scan, &mut output);
        } else {
            for number in piece.first..piece.first + piece.blocks {
                let start = (part.from as usize).saturating_sub(number * BLOCK_ROWS);
                scan.add_block(piece.source, part.slab(), number, start, part.view.wanted(&self.filter));
            }
        }
        output.found = scan.found();
        output
    }

    fn sketch(&self, piece: &Piece, part: &Part, scan: &mut Scan<'_>, output: &mut Output) {
        let slab = part.slab();
        output.uppers = self.buffers.take();
        let uppers = output.uppers.as_chunks_mut::<BLOCK_ROWS>().0;
        // Looked at together, so that the next ones are on their way while one is compared.
        let mut few = Vec::new();
        for (at, (uppers, top)) in uppers.iter_mut().zip(&mut output.tops).take(piece.blocks).enumerate() {
            let number = piece.first + at;
            let block = &slab.blocks[number];
            slab.fetch_after(number, &self.filter);
            let start = (part.from as usize).saturating_sub(number * BLOCK_ROWS);
            let rows = block.rows_from(start, part.view.wanted(&self.filter));
            let count: u32 = rows.iter().map(|word| word.count_ones()).sum();
            if count < SKETCHED_ROWS_MIN || block.sketches.is_empty() {
                let (source, first) = (piece.source, (number * BLOCK_ROWS) as u32);
                let mut list = [0; BLOCK_ROWS];
                let len = places(&rows, &mut list);
                if len >= TOGETHER {
                    scan.add_rows(source, first, block, &list[..len]);
                } else {
                    let seen = |&at: &u8| Seen { upper: f32::INFINITY, source, row: first + u32::from(at) };
                    few.extend(list[..len].iter().map(seen));
                }
                continue;
            }
            let next = slab.blocks.get(number + 1).map(|next| &next.sketches);
            let mut seen = self.query.probe.uppers(&block.sketches, next, uppers);
            if count < BLOCK_ROWS as u32 {
                seen = only(&rows, uppers);
            }
            *top = seen.highest;
            output.lowest = output.lowest.min(seen.lowest);
        }
        scan.add_scattered(|_| slab, &few);
    }
}

impl Piece {
    /// Its blocks whose rows are known by their sketches.
    fn sketched<'a>(&self, output: &'a Output) -> impl Iterator<Item = Sketched<'a>> + use<'a> {
        let (source, first) = (self.source, self.first);
        let blocks = output.uppers.as_chunks::<BLOCK_ROWS>().0.iter().zip(output.tops).enumerate();
        blocks.filter(|(_, (_, top))| *top > f32::NEG_INFINITY).map(move |(number, (uppers, top))| Sketched {
            source,
            first: ((first + number) * BLOCK_ROWS) as u32,
            uppers,
            top,
        })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.buffers.give_back(self.outputs.take().map(|output| output.uppers));
    }
}
