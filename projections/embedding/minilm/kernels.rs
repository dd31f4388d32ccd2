//! The arithmetic of the forward pass, in the widest instructions that this processor has.

use super::instructions::{InstructionSet, Lanes};
use super::kernels_pointwise as pointwise;
use super::kernels_scalar as scalar;
#[cfg(target_arch = "x86_64")]
use super::{kernels_avx2 as avx2, kernels_avx512 as avx512};
use crate::embedding::Precision;

/// Columns of a packed panel. A tile of the product is always this wide.
pub(crate) const PANEL_COLUMNS: usize = 32;

/// Rows of a panel that are fetched into the nearest cache ahead of use.
///
/// The weights of a layer do not fit into a core's own cache. Without this, a text of 12 tokens takes twice as long
/// and one of 256 a fifth longer (`cargo bench --bench embedding`); 8 to 64 rows make no difference.
///
/// For AVX-512. AVX2 takes longer over a row than the second cache does to bring the next.
pub(crate) const PREFETCH_ROWS: usize = 16;

/// Rows of a panel that are fetched into the core's second cache ahead of use.
///
/// The nearest cache waits for few lines at a time, too few to hide the way to memory; the second waits for more.
/// A text of 12 tokens takes a tenth less; 64 to 384 rows make no difference. For AVX-512: AVX2 passes over a panel more
/// often and fetches the next one meanwhile.
pub(crate) const PREFETCH_FAR_ROWS: usize = 128;

/// The kernels of one instruction set. A value is the proof that this processor has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    set: InstructionSet,
}

/// Numbers of a matrix, read: `count` rows of `width`, whose starts are `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) count: usize,
    pub(crate) stride: usize,
}

/// Numbers of a matrix, written: rows whose starts are `stride` apart.
pub(crate) struct RowsMut<'a> {
    pub(crate) numbers: &'a mut [f32],
    pub(crate) stride: usize,
}

/// A matrix of `depth` rows, packed in panels of [`PANEL_COLUMNS`] columns: all of the first panel row by row, then
/// all of the second.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) numbers: &'a [f32],
    pub(crate) depth: usize,
    /// One number for each column, or `None` for zeros.
    pub(crate) bias: Option<&'a [f32]>,
}

impl<'a> Panels<'a> {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.numbers.len() / (PANEL_COLUMNS * self.depth.max(1))
    }

    fn rows(&self, index: usize) -> &'a [[f32; PANEL_COLUMNS]] {
        let (rows, _) = self.numbers.as_chunks();
        &rows[index * self.depth..(index + 1) * self.depth]
    }
}

/// In which order panels are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Upwards,
    Downwards,
}

/// One tile of a product: up to the set's most rows of x times one panel.
pub(crate) struct Tile<'a> {
    /// Rows of `depth` numbers.
    pub(crate) x: Rows<'a>,
    /// `depth` rows of [`PANEL_COLUMNS`].
    pub(crate) panel: &'a [[f32; PANEL_COLUMNS]],
    /// Where the panel starts that is multiplied after this one: to be fetched, never to be read.
    pub(crate) next: *const f32,
    /// Which of how many tiles of the panel this is.
    pub(crate) place: (usize, usize),
    pub(crate) bias: &'a [f32; PANEL_COLUMNS],
    pub(crate) y: RowsMut<'a>,
}

const NO_BIAS: [f32; PANEL_COLUMNS] = [0.0; PANEL_COLUMNS];

impl Kernels {
    /// The kernels of `set`, or `None` when this processor lacks it or it has nothing for `precision`.
    pub(crate) fn of(set: InstructionSet, precision: Precision) -> Option<Self> {
        InstructionSet::available(precision).contains(&set).then_some(Self { set })
    }

    /// The fastest kernels of this processor for `precision`.
    pub(crate) fn fastest(precision: Precision) -> Self {
        let set = InstructionSet::available(precision).pop().unwrap_or(InstructionSet::Portable);
        Self { set }
    }

    /// Which set this is.
    pub(crate) fn set(self) -> InstructionSet {
        self.set
    }

    fn tile_rows_max(self) -> usize {
        match self.set.lanes() {
            Lanes::Portable => scalar::TILE_ROWS_MAX,
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx2 => avx2::TILE_ROWS_MAX,
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx512 => avx512::TILE_ROWS_MAX,
        }
    }

    /// `y = x · panels + bias`, as wide as the panels are.
    ///
    /// Panels are the outer loop: one panel stays in the first-level cache while the rows of `x` pass over it.
    pub(crate) fn matmul(self, x: Rows<'_>, panels: Panels<'_>, y: &mut RowsMut<'_>) {
        for index in 0..panels.count() {
            self.matmul_panel(x, panels, index, Order::Upwards, y);
        }
    }

    /// The columns of [`matmul`](Self::matmul) that panel `index` gives; the next one comes in `order`.
    pub(crate) fn matmul_panel(
        self,
        x: Rows<'_>,
        panels: Panels<'_>,
        index: usize,
        order: Order,
        y: &mut RowsMut<'_>,
    ) {
        if x.count == 0 || panels.depth == 0 {
            return;
        }
        let tiles = x.count.div_ceil(self.tile_rows_max());
        // Rows are dealt out evenly: 15 rows are tiles of 8 and 7, not of 14 and 1.
        let (rows_low, taller) = (x.count / tiles, x.count % tiles);
        let panel = panels.rows(index);
        let len = panel.len() * PANEL_COLUMNS;
        // What lies behind the last panel is what the pass reads next: matrices lie in the order of their use.
        let next = match order {
            Order::Upwards => panel.as_ptr().cast::<f32>().wrapping_add(len),
            Order::Downwards => panel.as_ptr().cast::<f32>().wrapping_sub(len),
        };
        let column = index * PANEL_COLUMNS;
        let bias = panels.bias.and_then(|bias| bias[column..].first_chunk()).unwrap_or(&NO_BIAS);
        let mut row = 0;
        for tile in 0..tiles {
            let count = rows_low + usize::from(tile < taller);
            self.tile(Tile {
                x: Rows { numbers: &x.numbers[row * x.stride..], count, stride: x.stride },
                panel,
                next,
                place: (tile, tiles),
                bias,
                y: RowsMut { numbers: &mut y.numbers[row * y.stride + column..], stride: y.stride },
            });
            row += count;
        }
    }

    fn tile(self, mut tile: Tile<'_>) {
        match self.set.lanes() {
            Lanes::Portable => scalar::tile(&mut tile),
            // SAFETY: a `Kernels` of this set exists only where the processor was seen to have it.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx2 => unsafe { avx2::tile(&mut tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx512 => unsafe { avx512::tile(&mut tile) },
        }
    }

    /// Replaces each number by its Gaussian error linear unit, x · Φ(x).
    pub(crate) fn gelu(self, values: &mut [f32]) {
        match self.set.lanes() {
            Lanes::Portable => pointwise::gelu::<{ pointwise::NATIVE_FMA }>(values),
            // SAFETY: a `Kernels` of this set exists only where the processor was seen to have it.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx2 => unsafe { avx2::gelu(values) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx512 => unsafe { avx512::gelu(values) },
        }
    }

    /// Replaces `values` by the softmax of `values · scale`; `scale` is positive.
    pub(crate) fn softmax(self, values: &mut [f32], scale: f32) {
        match self.set.lanes() {
            Lanes::Portable => pointwise::softmax::<{ pointwise::NATIVE_FMA }>(values, scale),
            // SAFETY: a `Kernels` of this set exists only where the processor was seen to have it.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx2 => unsafe { avx2::softmax(values, scale) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx512 => unsafe { avx512::softmax(values, scale) },
        }
    }

    /// Adds `residual` to `values`, then normalises them to mean 0 and variance 1, times `norm.gain` plus `norm.bias`.
    pub(crate) fn add_and_normalise(self, values: &mut [f32], residual: &[f32], norm: &Norm) {
        match self.set.lanes() {
            Lanes::Portable => pointwise::add_and_normalise(values, residual, norm),
            // SAFETY: a `Kernels` of this set exists only where the processor was seen to have it.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx2 => unsafe { avx2::add_and_normalise(values, residual, norm) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Lanes::Avx512 => unsafe { avx512::add_and_normalise(values, residual, norm) },
        }
    }
}

/// The learnt part of a layer normalisation.
pub(crate) struct Norm {
    pub(crate) gain: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    /// Added to the variance, so that constant rows do not divide by zero.
    pub(crate) epsilon: f32,
}
