//! The kernels in AVX-512.

use std::arch::x86_64::{
    _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps,
    _mm512_storeu_ps,
};

use super::kernels::{Norm, PANEL_COLUMNS, PREFETCH_FAR_ROWS, PREFETCH_ROWS, Tile};
use super::kernels_pointwise as pointwise;

/// Most rows of a tile: 2 × 14 sums and 2 weights take 30 of the 32 registers.
pub(super) const TILE_ROWS_MAX: usize = 14;

/// Computes one tile of at most [`TILE_ROWS_MAX`] rows.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn tile(tile: &mut Tile<'_>) {
    macro_rules! by_rows {
        ($($rows:literal)*) => { match tile.x.count { $($rows => rows::<$rows>(tile),)* _ => rows::<TILE_ROWS_MAX>(tile) } };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn rows<const ROWS: usize>(tile: &mut Tile<'_>) {
    let depth = tile.panel.len();
    let far = PREFETCH_FAR_ROWS.min(depth);
    // These two cuts are the bounds checks of every access below.
    let x = &tile.x.numbers[..(ROWS - 1) * tile.x.stride + depth];
    let y = &mut tile.y.numbers[..(ROWS - 1) * tile.y.stride + PANEL_COLUMNS];
    // SAFETY: `bias` has 32 numbers.
    let (low, high) =
        unsafe { (_mm512_loadu_ps(tile.bias.as_ptr()), _mm512_loadu_ps(tile.bias.as_ptr().add(16))) };
    let mut sums_low = [low; ROWS];
    let mut sums_high = [high; ROWS];
    for (step, weights) in tile.panel.iter().enumerate() {
        // SAFETY: a row of the panel has 32 numbers.
        let (low, high) =
            unsafe { (_mm512_loadu_ps(weights.as_ptr()), _mm512_loadu_ps(weights.as_ptr().add(16))) };
        // The address may lie behind the panel; to fetch ahead of use is allowed from anywhere.
        let ahead = weights.as_ptr().wrapping_add(PREFETCH_ROWS * PANEL_COLUMNS);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(16).cast());
        let ahead = if step + far < depth {
            weights.as_ptr().wrapping_add(far * PANEL_COLUMNS)
        } else {
            tile.next.wrapping_add((step + far - depth) * PANEL_COLUMNS)
        };
        _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(16).cast());
        for row in 0..ROWS {
            // SAFETY: `row` < ROWS and `step` < depth, so this is inside the cut of `x` above.
            let factor = _mm512_set1_ps(unsafe { *x.get_unchecked(row * tile.x.stride + step) });
            sums_low[row] = _mm512_fmadd_ps(factor, low, sums_low[row]);
            sums_high[row] = _mm512_fmadd_ps(factor, high, sums_high[row]);
        }
    }
    for row in 0..ROWS {
        // SAFETY: `row` < ROWS, so 32 numbers from here are inside the cut of `y` above.
        unsafe {
            let to = y.as_mut_ptr().add(row * tile.y.stride);
            _mm512_storeu_ps(to, sums_low[row]);
            _mm512_storeu_ps(to.add(16), sums_high[row]);
        }
    }
}

/// [`pointwise::gelu`] in these instructions.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn gelu(values: &mut [f32]) {
    pointwise::gelu::<true>(values);
}

/// [`pointwise::softmax`] in these instructions.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn softmax(values: &mut [f32], scale: f32) {
    pointwise::softmax::<true>(values, scale);
}

/// [`pointwise::add_and_normalise`] in these instructions.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn add_and_normalise(values: &mut [f32], residual: &[f32], norm: &Norm) {
    pointwise::add_and_normalise(values, residual, norm);
}
