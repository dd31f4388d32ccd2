//! A pass over all rows of a search: cut into pieces that any number of threads take, each giving what it would give
//! alone.
//!
//! A piece of a large scope says for each of its rows what the similarity hardly exceeds, by the sketches; `near` then
//! looks closer at the best of all. Every other piece compares its rows in 8 bits at once.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::embedding::standby::Work;
use crate::vector::kernels::Kernel;
use crate::vector::quantise::Query;
use crate::vector::scan::{ALL_ROWS, Found, Scan};
use crate::vector::shared::View;
use crate::vector::slab::{BLOCK_ROWS, Filter, Slab};

/// Blocks of a piece: some ten microseconds of sketches.
const PIECE_BLOCKS: usize = 16;
/// Rows of a piece at most.
const PIECE_ROWS: usize = PIECE_BLOCKS * BLOCK_ROWS;
/// Rows of a block from which on their sketches are looked at: they come for all rows of it at once.
const SKETCHED_ROWS_MIN: usize = 32;
/// Looks at a piece that another thread has, for each row of it, before it is done here too: several times what it
/// takes.
const SPINS_PER_ROW: usize = 4;
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
    /// What the sketch says of each row of the piece; −∞ for what is not searched by sketches. Empty when none is.
    uppers: Vec<f32>,
    /// The highest of each block.
    tops: [f32; PIECE_BLOCKS],
    /// Rows that were only looked at by their sketches.
    sketched: usize,
}

/// A block of which sketches were looked at.
pub(crate) struct Sketched<'a> {
    pub(crate) source: u32,
    /// Number of its first row.
    pub(crate) first: u32,
    pub(crate) uppers: &'a [f32],
    pub(crate) top: f32,
}

/// Buffers that searches use one after another: fresh ones cost more than what is written to them.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<f32>>>);

impl Buffers {
    fn take(&self) -> Vec<f32> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().unwrap_or_else(|| Vec::with_capacity(PIECE_ROWS))
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
    outputs: Vec<OnceLock<Output>>,
    /// The first piece that nobody has taken.
    next: AtomicUsize,
    /// Bits of a similarity that the last answer surely reaches, as far as is known.
    floor: AtomicU32,
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
    /// Takes pieces as long as there are any.
    fn work(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(output) = self.outputs.get(number) else { return };
            // Refused when a thread that waited for it was faster in the end; both are the same.
            drop(output.set(self.look_at(&self.pieces[number])));
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
        let outputs = pieces.iter().map(|_| OnceLock::new()).collect();
        let Aim { query, kernel, filter, limit, minimum } = aim;
        let (next, floor) = (AtomicUsize::new(0), AtomicU32::new(minimum.to_bits()));
        Self { query, kernel, filter, limit, parts, pieces, outputs, next, floor, buffers }
    }

    /// Whether another thread would make it shorter.
    pub(crate) fn is_long(&self) -> bool {
        self.pieces.len() >= 3
    }

    /// The scopes that are searched, by source.
    pub(crate) fn slabs(&self) -> Vec<&Slab> {
        self.parts.iter().map(Part::slab).collect()
    }

    /// Takes `count` pieces and does nothing with them, as a thread that has lost its core.
    #[cfg(test)]
    pub(crate) fn lose(&self, count: usize) {
        self.next.fetch_add(count, Ordering::Relaxed);
    }

    /// What all pieces gave. A piece that another thread took and does not finish is looked at here.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.outputs.iter().zip(&self.pieces).map(|(output, piece)| {
            let mut spins = piece.blocks * BLOCK_ROWS * SPINS_PER_ROW;
            while output.get().is_none() && spins > 0 {
                spins -= 1;
                std::hint::spin_loop();
            }
            output.get_or_init(|| self.look_at(piece))
        })
    }

    /// A search with everything that pieces have compared.
    pub(crate) fn scan(&self, minimum: f32) -> Scan<'_> {
        let mut scan = Scan::new(&self.query, self.kernel, self.limit, minimum);
        self.outputs().for_each(|output| scan.absorb(&output.found));
        scan
    }

    /// The blocks whose rows are known by their sketches, in their order.
    pub(crate) fn sketched(&self) -> impl Iterator<Item = Sketched<'_>> {
        self.outputs().zip(&self.pieces).flat_map(|(output, piece)| {
            let blocks = output.uppers.chunks(BLOCK_ROWS).zip(output.tops).enumerate();
            blocks.filter(|(_, (_, top))| *top > f32::NEG_INFINITY).map(|(number, (uppers, top))| {
                let first = ((piece.first + number) * BLOCK_ROWS) as u32;
                Sketched { source: piece.source, first, uppers, top }
            })
        })
    }

    /// How many rows are known by their sketches alone.
    pub(crate) fn sketched_rows(&self) -> usize {
        self.outputs().map(|output| output.sketched).sum()
    }

    fn look_at(&self, piece: &Piece) -> Output {
        let floor = f32::from_bits(self.floor.load(Ordering::Relaxed));
        let part = &self.parts[piece.source as usize];
        let mut scan = Scan::new(&self.query, self.kernel, self.limit, floor);
        let mut output = Output { tops: [f32::NEG_INFINITY; PIECE_BLOCKS], ..Output::default() };
        if part.sketched {
            self.sketch(piece, part, &mut scan, &mut output);
        } else {
            for number in piece.first..piece.first + piece.blocks {
                let start = (part.from as usize).saturating_sub(number * BLOCK_ROWS);
                scan.add_block(piece.source, part.slab(), number, start, &self.filter);
            }
        }
        // Others need not keep what cannot be among the best of all. What they leave out never is, so it does not
        // matter to the answer when they learn it.
        let raise = |bits| Some(f32::from_bits(bits).max(scan.floor()).to_bits());
        let _always_some = self.floor.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise);
        output.found = scan.found();
        output
    }

    fn sketch(&self, piece: &Piece, part: &Part, scan: &mut Scan<'_>, output: &mut Output) {
        let slab = part.slab();
        output.uppers = self.buffers.take();
        output.uppers.clear();
        output.uppers.resize(piece.blocks * BLOCK_ROWS, f32::NEG_INFINITY);
        let uppers = output.uppers.as_chunks_mut::<BLOCK_ROWS>().0;
        for (at, (uppers, top)) in uppers.iter_mut().zip(&mut output.tops).enumerate() {
            let number = piece.first + at;
            let block = &slab.blocks[number];
            let start = (part.from as usize).saturating_sub(number * BLOCK_ROWS);
            let (mut rows, mut count) = (ALL_ROWS, BLOCK_ROWS);
            if start > 0 || !block.passes_whole(&self.filter) {
                count = block.select(start, &self.filter, &mut rows);
            }
            if count < SKETCHED_ROWS_MIN {
                scan.add_rows(piece.source, (number * BLOCK_ROWS) as u32, block, &rows[..count]);
                continue;
            }
            let next = slab.blocks.get(number + 1).map(|next| &next.sketches);
            self.query.probe.uppers(&block.sketches, next, uppers);
            if count < BLOCK_ROWS {
                let all = std::mem::replace(uppers, [f32::NEG_INFINITY; BLOCK_ROWS]);
                for &row in &rows[..count] {
                    uppers[usize::from(row)] = all[usize::from(row)];
                }
            }
            *top = highest(uppers);
            output.sketched += count;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let outputs = std::mem::take(&mut self.outputs).into_iter();
        self.buffers.give_back(outputs.filter_map(OnceLock::into_inner).map(|output| output.uppers));
    }
}

/// The highest of a block, in lanes that the processor compares together.
fn highest(uppers: &[f32; BLOCK_ROWS]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for numbers in uppers.as_chunks::<16>().0 {
        for (lane, &number) in lanes.iter_mut().zip(numbers) {
            *lane = if number > *lane { number } else { *lane };
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}
