//! Products of 16-bit and 8-bit numbers: how both sides are packed, and who multiplies them.
//!
//! Numbers that are multiplied lie side by side in words of 32 bits: two of 16 bits or four of 8, along the depth.
//! 16 words are a *step*: as much of a row as one instruction on tiles takes.
//!
//! ```text
//! operand  block of 16 rows | block | …     block  step | step | …     step  16 rows of 16 words
//! panel    step | step | …                  step   16 word rows of 32 columns, a word each
//! ```
//!
//! What is behind the depth or the last row is zero.

use std::io;

use super::buffer::WordBuffer;
use super::instructions::{InstructionSet, Lanes};
use super::kernels::{Kernels, Order, PANEL_COLUMNS, Rows, RowsMut};
use super::reduced_plain as plain;
#[cfg(target_arch = "x86_64")]
use super::{reduced_amx as amx, reduced_avx2 as avx2, reduced_avx512 as avx512};

/// Words of a row that are a step.
pub(crate) const STEP_WORDS: usize = 16;
/// Rows of a block.
pub(crate) const BLOCK_ROWS: usize = 16;
/// Words of a step of a block.
const STEP_BLOCK_WORDS: usize = STEP_WORDS * BLOCK_ROWS;

/// What a word holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Two bfloat16.
    Bf16,
    /// Four signed bytes from −127 to 127.
    Int8,
}

impl Form {
    /// How many numbers that is.
    pub(crate) const fn numbers_per_word(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }

    /// Steps of a row of `depth` numbers.
    pub(crate) const fn steps(self, depth: usize) -> usize {
        depth.div_ceil(STEP_WORDS * self.numbers_per_word())
    }

    /// Words of a panel of `depth` rows.
    pub(crate) const fn panel_words(self, depth: usize) -> usize {
        self.steps(depth) * STEP_WORDS * PANEL_COLUMNS
    }
}

/// One side of a product: rows of activations, packed for the other side's form.
pub(crate) struct Operand {
    words: WordBuffer,
    /// Of 8-bit rows: what one stands for.
    scales: Vec<f32>,
    rows: usize,
    steps: usize,
    form: Form,
}

/// The other side: a matrix of reduced precision, packed in panels of [`PANEL_COLUMNS`] columns.
#[derive(Clone, Copy)]
pub(crate) struct ReducedPanels<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) form: Form,
    /// Numbers of a row that is multiplied.
    pub(crate) depth: usize,
    /// One number for each column, or `None` for zeros.
    pub(crate) bias: Option<&'a [f32]>,
    /// Of 8-bit columns: what a one stands for, and −128 times the sum of the column's numbers.
    pub(crate) columns: Option<(&'a [f32], &'a [i32])>,
}

impl<'a> ReducedPanels<'a> {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.words.len() / self.form.panel_words(self.depth).max(1)
    }

    fn rows(&self, index: usize) -> &'a [[u32; PANEL_COLUMNS]] {
        let (rows, _) = self.words.as_chunks();
        let len = self.form.steps(self.depth) * STEP_WORDS;
        &rows[index * len..(index + 1) * len]
    }
}

/// One tile of a product: some rows of one block times one panel.
pub(super) struct ReducedTile<'a> {
    /// The block from its first row of the tile on: a row's words of a step lie together, its next step
    /// [`STEP_BLOCK_WORDS`](self) words further.
    pub(super) x: &'a [u32],
    /// What one stands for, by row; empty with 16 bits.
    pub(super) row_scales: &'a [f32],
    pub(super) rows: usize,
    /// Which of how many tiles of the panel this is.
    pub(super) place: (usize, usize),
    pub(super) columns: Columns<'a>,
    pub(super) y: RowsMut<'a>,
}

/// One panel with what belongs to its columns.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) panel: &'a [[u32; PANEL_COLUMNS]],
    /// Where the panel starts that is multiplied after this one: to be fetched, never to be read.
    pub(super) next: *const u32,
    pub(super) bias: &'a [f32; PANEL_COLUMNS],
    pub(super) scales: &'a [f32; PANEL_COLUMNS],
    pub(super) offsets: &'a [i32; PANEL_COLUMNS],
}

/// The step `index` of a tile's rows: 16 words a row, rows one behind the other.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it belongs into the loops of the kernels")]
pub(super) fn step_of(x: &[u32], index: usize) -> &[u32] {
    &x[index * STEP_BLOCK_WORDS..]
}

/// As [`step_of`], to be written.
#[inline(always)]
#[allow(clippy::inline_always, reason = "it belongs into the loops of the kernels")]
pub(super) fn step_of_mut(x: &mut [u32], index: usize) -> &mut [u32] {
    &mut x[index * STEP_BLOCK_WORDS..]
}

const NO_BIAS: [f32; PANEL_COLUMNS] = [0.0; PANEL_COLUMNS];
const NO_OFFSETS: [i32; PANEL_COLUMNS] = [0; PANEL_COLUMNS];

impl Operand {
    /// Room for `rows` rows of `depth` numbers in each form.
    ///
    /// # Errors
    ///
    /// The system's, when there is no memory.
    pub(crate) fn with_room(rows: usize, depth: usize) -> io::Result<Self> {
        let rows = rows.next_multiple_of(BLOCK_ROWS);
        let words = WordBuffer::zeroed(rows * depth.next_multiple_of(2 * STEP_WORDS), false)?;
        Ok(Self { words, scales: vec![0.0; rows], rows: 0, steps: 0, form: Form::Bf16 })
    }

    /// Bytes that [`with_room`](Self::with_room) takes.
    pub(crate) fn bytes(rows: usize, depth: usize) -> usize {
        let rows = rows.next_multiple_of(BLOCK_ROWS);
        rows * (depth.next_multiple_of(2 * STEP_WORDS) + 1) * size_of::<u32>()
    }

    /// Takes the rows of `x`, each of `depth` numbers, in `form`.
    pub(crate) fn fill(&mut self, kernels: Kernels, form: Form, x: Rows<'_>, depth: usize) {
        (self.rows, self.steps, self.form) = (x.count, form.steps(depth), form);
        let block_words = self.steps * STEP_BLOCK_WORDS;
        for row in 0..x.count {
            let numbers = &x.numbers[row * x.stride..][..depth];
            let start = row / BLOCK_ROWS * block_words + row % BLOCK_ROWS * STEP_WORDS;
            let to = &mut self.words[start..];
            match form {
                Form::Bf16 => kernels.pack_bf16(numbers, to),
                Form::Int8 => self.scales[row] = kernels.pack_int8(numbers, to),
            }
        }
        // Tiles have all 16 rows. What the last ones give is dropped; it must only be no trap for the arithmetic.
        for row in x.count..x.count.next_multiple_of(BLOCK_ROWS) {
            let start = row / BLOCK_ROWS * block_words + row % BLOCK_ROWS * STEP_WORDS;
            for step in 0..self.steps {
                self.words[start + step * STEP_BLOCK_WORDS..][..STEP_WORDS].fill(0);
            }
            self.scales[row] = 0.0;
        }
    }

    /// Takes the rows of `x`, each of `depth` numbers, rounded to 16 bits and not packed.
    pub(crate) fn round(&mut self, kernels: Kernels, x: Rows<'_>, depth: usize) {
        for (row, to) in self.words.chunks_exact_mut(depth).take(x.count).enumerate() {
            kernels.round_to_bf16(&x.numbers[row * x.stride..][..depth], to);
        }
    }

    /// What [`round`](Self::round) took, one row behind the other.
    pub(crate) fn rounded(&self) -> &[f32] {
        self.words.floats()
    }

    /// Rows that were taken.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    fn block(&self, index: usize) -> &[u32] {
        let len = self.steps * STEP_BLOCK_WORDS;
        &self.words[index * len..(index + 1) * len]
    }
}

/// What a thread must have while it multiplies; see [`Kernels::tiles`].
pub(crate) struct Tiles(#[cfg(target_arch = "x86_64")] Option<amx::Tiles>);

impl Kernels {
    /// What this thread needs for reduced products. A pass holds it while it lasts, and no other on its thread.
    pub(crate) fn tiles(self) -> Tiles {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a `Kernels` of this set exists only where tiles were granted.
        let tiles = Tiles((self.set() == InstructionSet::Amx).then(|| unsafe { amx::Tiles::shaped() }));
        #[cfg(not(target_arch = "x86_64"))]
        let tiles = Tiles();
        tiles
    }

    /// Packs a row of an operand; see [`Operand`].
    pub(crate) fn pack_bf16(self, numbers: &[f32], to: &mut [u32]) {
        match self.set() {
            // SAFETY: a `Kernels` of these sets exists only where the processor was seen to have them.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 | InstructionSet::Amx => unsafe { avx512::pack_bf16(numbers, to) },
            _ => plain::pack_bf16(numbers, to),
        }
    }

    /// Rounds `numbers` to 16 bits.
    fn round_to_bf16(self, numbers: &[f32], to: &mut [u32]) {
        match self.set().lanes() {
            // SAFETY: a `Kernels` with these lanes exists only where the processor was seen to have them.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx512 => unsafe { avx512::round_to_bf16(numbers, to) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx2 => unsafe { avx2::round_to_bf16(numbers, to) },
            Lanes::Portable => plain::round_to_bf16(numbers, to),
        }
    }

    /// Packs the values of `len` tokens, rows of a head whose starts are `stride` apart, as one panel.
    pub(crate) fn pack_values(self, values: &[f32], stride: usize, len: usize, packed: &mut [u32]) {
        match self.set() {
            // SAFETY: a `Kernels` of these sets exists only where the processor was seen to have them.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 | InstructionSet::Amx => unsafe {
                avx512::pack_values(values, stride, len, packed);
            },
            _ => plain::pack_values(values, stride, len, packed),
        }
    }

    /// Packs a row of an operand; what one stands for.
    fn pack_int8(self, numbers: &[f32], to: &mut [u32]) -> f32 {
        match self.set() {
            // SAFETY: a `Kernels` of this set exists only where the processor was seen to have it.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => unsafe { avx512::pack_int8::<0>(numbers, to) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni => unsafe { avx512::pack_int8::<{ avx2::UNSIGNED }>(numbers, to) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::AvxVnni => unsafe { avx2::pack_int8::<{ avx2::UNSIGNED }>(numbers, to) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { avx2::pack_int8::<0>(numbers, to) },
            _ => plain::pack_int8::<0>(numbers, to),
        }
    }

    /// The columns of `y = x · panels + bias` that panel `index` gives; the next one comes in `order`.
    pub(crate) fn reduced_panel(
        self,
        tiles: &Tiles,
        x: &Operand,
        panels: ReducedPanels<'_>,
        index: usize,
        order: Order,
        y: &mut RowsMut<'_>,
    ) {
        debug_assert!(x.form == panels.form && x.steps == panels.form.steps(panels.depth));
        if x.rows == 0 || x.steps == 0 {
            return;
        }
        let columns = columns_of(panels, index, order);
        let y = RowsMut { numbers: &mut y.numbers[index * PANEL_COLUMNS..], stride: y.stride };
        for (index, first) in (0..x.rows).step_by(2 * BLOCK_ROWS).enumerate() {
            let rows = (x.rows - first).min(2 * BLOCK_ROWS);
            let mut y = RowsMut { numbers: &mut y.numbers[first * y.stride..], stride: y.stride };
            self.two_blocks(tiles, x, 2 * index, rows, columns, &mut y);
        }
    }

    /// As [`reduced_panel`](Self::reduced_panel) for up to two blocks of `rows` rows together.
    fn two_blocks(
        self,
        tiles: &Tiles,
        x: &Operand,
        block: usize,
        rows: usize,
        columns: Columns<'_>,
        y: &mut RowsMut<'_>,
    ) {
        let scales = |first: usize, count: usize| match x.form {
            Form::Bf16 => &[][..],
            Form::Int8 => &x.scales[first..first + count],
        };
        let first_row = block * BLOCK_ROWS;
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &tiles.0 {
            let second = if rows > BLOCK_ROWS { block + 1 } else { block };
            let pair = amx::Pair {
                form: x.form,
                blocks: [x.block(block), x.block(second)],
                rows,
                fetch: block == 0,
                row_scales: scales(first_row, rows),
                columns,
            };
            // SAFETY: tiles are granted only together with AVX-512 and BF16.
            return unsafe { amx::multiply(tiles, &pair, y) };
        }
        let tile_rows = tile_rows_max(self.set());
        for first in (0..rows).step_by(tile_rows) {
            let count = tile_rows.min(rows - first);
            let words = &x.block(block + first / BLOCK_ROWS)[first % BLOCK_ROWS * STEP_WORDS..];
            let mut tile = ReducedTile {
                x: words,
                row_scales: scales(first_row + first, count),
                rows: count,
                place: ((first_row + first) / tile_rows, x.rows.div_ceil(tile_rows)),
                columns,
                y: RowsMut { numbers: &mut y.numbers[first * y.stride..], stride: y.stride },
            };
            match x.form {
                Form::Bf16 => self.bf16_tile(&mut tile),
                Form::Int8 => self.int8_tile(&mut tile),
            }
        }
    }

    fn bf16_tile(self, tile: &mut ReducedTile<'_>) {
        match self.set() {
            // SAFETY: a `Kernels` of this set exists only where the processor was seen to have it.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Bf16 => unsafe { avx512::bf16_tile(tile) },
            // The others multiply rounded numbers of 32 bits, see `Matrix::Rounded`.
            _ => plain::bf16_tile(tile),
        }
    }

    fn int8_tile(self, tile: &mut ReducedTile<'_>) {
        match self.set() {
            // SAFETY: a `Kernels` of this set exists only where the processor was seen to have it.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512Vnni => unsafe { avx512::int8_tile(tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::AvxVnni => unsafe { avx2::int8_tile_vnni(tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => unsafe { avx2::int8_tile(tile) },
            _ => plain::int8_tile(tile),
        }
    }
}

/// Most rows of a tile. They divide a block, so that a tile lies in one.
fn tile_rows_max(set: InstructionSet) -> usize {
    let wide = matches!(set, InstructionSet::Avx512Vnni | InstructionSet::Avx512Bf16);
    if wide { 8 } else { 4 }
}

fn columns_of(panels: ReducedPanels<'_>, index: usize, order: Order) -> Columns<'_> {
    let panel = panels.rows(index);
    let len = panel.len() * PANEL_COLUMNS;
    let start = panel.as_ptr().cast::<u32>();
    // What lies behind the last panel is what the pass reads next: matrices lie in the order of their use.
    let next = match order {
        Order::Upwards => start.wrapping_add(len),
        Order::Downwards => start.wrapping_sub(len),
    };
    let first = index * PANEL_COLUMNS;
    let bias = panels.bias.and_then(|bias| bias[first..].first_chunk()).unwrap_or(&NO_BIAS);
    let (scales, offsets) = panels
        .columns
        .and_then(|(scales, offsets)| scales[first..].first_chunk().zip(offsets[first..].first_chunk()))
        .unwrap_or((&NO_BIAS, &NO_OFFSETS));
    Columns { panel, next, bias, scales, offsets }
}

#[cfg(test)]
mod tests;
