//! Reduced products in AVX-512, with the 16-bit products of BF16 and the 8-bit products of VNNI.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps,
    _mm512_dpbusd_epi32, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_ps,
    _mm512_storeu_si512,
};

use super::kernels::{PANEL_COLUMNS, PREFETCH_FAR_ROWS, PREFETCH_ROWS};
use super::reduced::{Columns, ReducedTile, STEP_WORDS, step_of, step_of_mut};
use super::reduced_plain as plain;

/// [`plain::pack_bf16`] with the instruction that rounds.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) fn pack_bf16(numbers: &[f32], to: &mut [u32]) {
    const DEPTH: usize = 2 * STEP_WORDS;
    for (step, numbers) in numbers.chunks(DEPTH).enumerate() {
        let to = &mut step_of_mut(to, step)[..STEP_WORDS];
        let mut padded = [0.0; DEPTH];
        let numbers = numbers.first_chunk::<DEPTH>().unwrap_or_else(|| {
            padded[..numbers.len()].copy_from_slice(numbers);
            &padded
        });
        // SAFETY: `numbers` has 32 numbers and `to` has 16 words.
        unsafe {
            let (low, high) =
                (_mm512_loadu_ps(numbers.as_ptr()), _mm512_loadu_ps(numbers.as_ptr().add(STEP_WORDS)));
            let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        }
    }
}

/// [`plain::round_to_bf16`] in these instructions.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn round_to_bf16(numbers: &[f32], to: &mut [u32]) {
    plain::round_to_bf16(numbers, to);
}

/// [`plain::pack_values`] in these instructions.
#[target_feature(enable = "avx512f,avx2,fma")]
pub(super) fn pack_values(values: &[f32], stride: usize, len: usize, packed: &mut [u32]) {
    plain::pack_values(values, stride, len, packed);
}

/// [`plain::pack_int8`] in these instructions.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
pub(super) fn pack_int8<const FLIP: u32>(numbers: &[f32], to: &mut [u32]) -> f32 {
    plain::pack_int8::<FLIP>(numbers, to)
}

/// Calls `rows::<N>` for a tile of N rows, up to 8: 2 × 8 sums, 2 weights and a factor.
macro_rules! by_rows {
    ($rows:ident, $tile:expr) => {
        match $tile.rows {
            1 => $rows::<1>($tile),
            2 => $rows::<2>($tile),
            3 => $rows::<3>($tile),
            4 => $rows::<4>($tile),
            5 => $rows::<5>($tile),
            6 => $rows::<6>($tile),
            7 => $rows::<7>($tile),
            _ => $rows::<8>($tile),
        }
    };
}

/// A tile of 16-bit numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) fn bf16_tile(tile: &mut ReducedTile<'_>) {
    by_rows!(bf16_rows, tile);
}

/// A tile of 8-bit numbers, of which those of the left side are 128 greater than they mean.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(super) fn int8_tile(tile: &mut ReducedTile<'_>) {
    by_rows!(int8_rows, tile);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn bf16_rows<const ROWS: usize>(tile: &mut ReducedTile<'_>) {
    let bias = tile.columns.bias.as_ptr();
    // SAFETY: `bias` has 32 numbers.
    let start: [__m512; 2] = unsafe { [_mm512_loadu_ps(bias), _mm512_loadu_ps(bias.add(16))] };
    let mut sums = [start; ROWS];
    for (step, panel) in tile.columns.panel.chunks_exact(STEP_WORDS).enumerate() {
        let x = &step_of(tile.x, step)[..ROWS * STEP_WORDS];
        for (word, row_weights) in panel.iter().enumerate() {
            let weights = load(row_weights).map(|weights| {
                // SAFETY: both are 512 bits.
                unsafe { std::mem::transmute::<__m512i, __m512bh>(weights) }
            });
            prefetch(&tile.columns, step * STEP_WORDS + word);
            for (row, sums) in sums.iter_mut().enumerate() {
                let factors = _mm512_set1_epi32(x[row * STEP_WORDS + word] as i32);
                // SAFETY: both are 512 bits.
                let factors = unsafe { std::mem::transmute::<__m512i, __m512bh>(factors) };
                sums[0] = _mm512_dpbf16_ps(sums[0], factors, weights[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], factors, weights[1]);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let y = &mut tile.y.numbers[row * tile.y.stride..][..PANEL_COLUMNS];
        // SAFETY: `y` has 32 numbers.
        unsafe {
            _mm512_storeu_ps(y.as_mut_ptr(), sums[0]);
            _mm512_storeu_ps(y.as_mut_ptr().add(16), sums[1]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn int8_rows<const ROWS: usize>(tile: &mut ReducedTile<'_>) {
    let offsets = tile.columns.offsets.as_ptr();
    // SAFETY: `offsets` has 32 numbers.
    let start: [__m512i; 2] =
        unsafe { [_mm512_loadu_si512(offsets.cast()), _mm512_loadu_si512(offsets.add(16).cast())] };
    let mut sums = [start; ROWS];
    for (step, panel) in tile.columns.panel.chunks_exact(STEP_WORDS).enumerate() {
        let x = &step_of(tile.x, step)[..ROWS * STEP_WORDS];
        for (word, row_weights) in panel.iter().enumerate() {
            let weights = load(row_weights);
            prefetch(&tile.columns, step * STEP_WORDS + word);
            for (row, sums) in sums.iter_mut().enumerate() {
                let factors = _mm512_set1_epi32(x[row * STEP_WORDS + word] as i32);
                sums[0] = _mm512_dpbusd_epi32(sums[0], factors, weights[0]);
                sums[1] = _mm512_dpbusd_epi32(sums[1], factors, weights[1]);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        let mut results = [0_i32; PANEL_COLUMNS];
        // SAFETY: `results` has 32 numbers.
        unsafe {
            _mm512_storeu_si512(results.as_mut_ptr().cast(), sums[0]);
            _mm512_storeu_si512(results.as_mut_ptr().add(16).cast(), sums[1]);
        }
        let y = &mut tile.y.numbers[row * tile.y.stride..][..PANEL_COLUMNS];
        plain::int8_results(&results, tile.row_scales[row], &tile.columns, y);
    }
}

#[target_feature(enable = "avx512f")]
fn load(words: &[u32; PANEL_COLUMNS]) -> [__m512i; 2] {
    // SAFETY: there are 32 words.
    unsafe { [_mm512_loadu_si512(words.as_ptr().cast()), _mm512_loadu_si512(words.as_ptr().add(16).cast())] }
}

/// Fetches what comes some rows after row `at` of the panel; see [`PREFETCH_ROWS`] and [`PREFETCH_FAR_ROWS`].
#[target_feature(enable = "avx512f")]
fn prefetch(columns: &Columns<'_>, at: usize) {
    let depth = columns.panel.len();
    let far = PREFETCH_FAR_ROWS.min(depth);
    // The addresses may lie behind the panel; to fetch ahead of use is allowed from anywhere.
    let here = columns.panel.as_ptr().cast::<u32>();
    let ahead = here.wrapping_add((at + PREFETCH_ROWS) * PANEL_COLUMNS);
    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(16).cast());
    let ahead = if at + far < depth {
        here.wrapping_add((at + far) * PANEL_COLUMNS)
    } else {
        columns.next.wrapping_add((at + far - depth) * PANEL_COLUMNS)
    };
    _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
    _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(16).cast());
}
