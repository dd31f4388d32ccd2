//! The kernels in AVX2 with FMA.

use std::arch::x86_64::{
    _MM_HINT_T1, _mm_prefetch, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps,
};

use super::kernels::{Norm, PANEL_COLUMNS, Tile};
use super::kernels_pointwise as pointwise;

/// Most rows of a tile: 2 × 6 sums, 2 weights and a factor take 15 of the 16 registers.
pub(super) const TILE_ROWS_MAX: usize = 6;

/// Columns that are computed at a time.
pub(super) const PASS_COLUMNS: usize = 16;
/// Passes over a panel for each tile.
pub(super) const PASSES: usize = PANEL_COLUMNS / PASS_COLUMNS;

/// Computes one tile of at most [`TILE_ROWS_MAX`] rows.
#[target_feature(enable = "avx2,fma")]
pub(super) fn tile(tile: &mut Tile<'_>) {
    macro_rules! by_rows {
        ($column:expr, $($rows:literal)*) => {
            match tile.x.count {
                $($rows => rows::<$rows, { $column }>(tile),)*
                _ => rows::<TILE_ROWS_MAX, { $column }>(tile),
            }
        };
    }
    by_rows!(0, 1 2 3 4 5);
    by_rows!(PASS_COLUMNS, 1 2 3 4 5);
}

/// Computes the [`PASS_COLUMNS`] columns from `COLUMN` on; it is 0 or 16.
///
/// Meanwhile its share of the next panel is fetched into the core's second cache, a little each step: all passes over a panel
/// together fetch one, so that memory is never asked for more at a time than it gives. Fetched row by row ahead of use
/// instead, 12 tokens take 1.5 times as long and 112 an eighth longer.
#[target_feature(enable = "avx2,fma")]
fn rows<const ROWS: usize, const COLUMN: usize>(tile: &mut Tile<'_>) {
    const { assert!(COLUMN + PASS_COLUMNS <= PANEL_COLUMNS) }
    let depth = tile.panel.len();
    let (place, tiles) = tile.place;
    let ahead_step = (PANEL_COLUMNS * size_of::<f32>()).div_ceil(PASSES * tiles);
    let ahead_first = (PASSES * place + COLUMN / PASS_COLUMNS) * depth * ahead_step;
    let ahead = tile.next.cast::<u8>().wrapping_add(ahead_first);
    // These two cuts are the bounds checks of every access below.
    let x = &tile.x.numbers[..(ROWS - 1) * tile.x.stride + depth];
    let y = &mut tile.y.numbers[..(ROWS - 1) * tile.y.stride + PANEL_COLUMNS];
    // SAFETY: `bias` has 32 numbers, and COLUMN + 16 is at most 32.
    let (low, high) = unsafe {
        let bias = tile.bias.as_ptr().add(COLUMN);
        (_mm256_loadu_ps(bias), _mm256_loadu_ps(bias.add(8)))
    };
    let mut sums_low = [low; ROWS];
    let mut sums_high = [high; ROWS];
    for (step, weights) in tile.panel.iter().enumerate() {
        // SAFETY: a row of the panel has 32 numbers, and COLUMN + 16 is at most 32.
        let (low, high) = unsafe {
            let weights = weights.as_ptr().add(COLUMN);
            (_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(8)))
        };
        // The address may lie behind all weights; to fetch ahead of use is allowed from anywhere.
        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(step * ahead_step).cast());
        for row in 0..ROWS {
            // SAFETY: `row` < ROWS and `step` < depth, so this is inside the cut of `x` above.
            let factor = _mm256_set1_ps(unsafe { *x.get_unchecked(row * tile.x.stride + step) });
            sums_low[row] = _mm256_fmadd_ps(factor, low, sums_low[row]);
            sums_high[row] = _mm256_fmadd_ps(factor, high, sums_high[row]);
        }
    }
    for row in 0..ROWS {
        // SAFETY: `row` < ROWS and COLUMN + 16 is at most 32, so this is inside the cut of `y` above.
        unsafe {
            let to = y.as_mut_ptr().add(row * tile.y.stride + COLUMN);
            _mm256_storeu_ps(to, sums_low[row]);
            _mm256_storeu_ps(to.add(8), sums_high[row]);
        }
    }
}

/// [`pointwise::gelu`] in these instructions.
#[target_feature(enable = "avx2,fma")]
pub(super) fn gelu(values: &mut [f32]) {
    pointwise::gelu::<true>(values);
}

/// [`pointwise::softmax`] in these instructions.
#[target_feature(enable = "avx2,fma")]
pub(super) fn softmax(values: &mut [f32], scale: f32) {
    pointwise::softmax::<true>(values, scale);
}

/// [`pointwise::add_and_normalise`] in these instructions.
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_and_normalise(values: &mut [f32], residual: &[f32], norm: &Norm) {
    pointwise::add_and_normalise(values, residual, norm);
}
