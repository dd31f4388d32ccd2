//! Reduced products in AVX2, with and without the 8-bit products of AVX-VNNI.

use std::arch::x86_64::{
    __m256i, _MM_HINT_T1, _mm_prefetch, _mm256_abs_epi8, _mm256_add_epi32, _mm256_dpbusd_avx_epi32,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_si256,
};

use super::kernels::PANEL_COLUMNS;
use super::kernels_avx2::{PASS_COLUMNS, PASSES};
use super::reduced::{ReducedTile, STEP_WORDS, step_of};
use super::reduced_plain as plain;

/// What makes four signed bytes four unsigned ones that are 128 greater: VNNI's left side is unsigned.
pub(super) const UNSIGNED: u32 = 0x8080_8080;

/// [`plain::round_to_bf16`] in these instructions.
#[target_feature(enable = "avx2,fma")]
pub(super) fn round_to_bf16(numbers: &[f32], to: &mut [u32]) {
    plain::round_to_bf16(numbers, to);
}

/// [`plain::pack_int8`] in these instructions.
#[target_feature(enable = "avx2,fma")]
pub(super) fn pack_int8<const FLIP: u32>(numbers: &[f32], to: &mut [u32]) -> f32 {
    plain::pack_int8::<FLIP>(numbers, to)
}

/// Defines a module with a tile of 8-bit numbers of up to 4 rows: `$dot` adds to sums of 32 bits the products of four
/// bytes each.
macro_rules! int8_kernel {
    ($name:ident, $features:literal, $starts_at_offset:literal, $dot:expr) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(in super::super) fn tile(tile: &mut ReducedTile<'_>) {
                match tile.rows {
                    1 => rows::<1>(tile),
                    2 => rows::<2>(tile),
                    3 => rows::<3>(tile),
                    _ => rows::<4>(tile),
                }
            }

            #[target_feature(enable = $features)]
            fn rows<const ROWS: usize>(tile: &mut ReducedTile<'_>) {
                let mut results = [[0_i32; PANEL_COLUMNS]; ROWS];
                // As 32 bits do, see there: all passes over a panel fetch the next one together.
                let (place, tiles) = tile.place;
                let ahead_step = (PANEL_COLUMNS * size_of::<u32>()).div_ceil(PASSES * tiles);
                let mut ahead = tile.columns.next.cast::<u8>();
                ahead = ahead.wrapping_add(PASSES * place * tile.columns.panel.len() * ahead_step);
                for column in (0..PANEL_COLUMNS).step_by(PASS_COLUMNS) {
                    let start: [__m256i; 2] = std::array::from_fn(|half| {
                        let offsets = &tile.columns.offsets[column + 8 * half..][..8];
                        // SAFETY: the cut has eight numbers.
                        unsafe { _mm256_loadu_si256(offsets.as_ptr().cast()) }
                    });
                    let start = if $starts_at_offset { start } else { [_mm256_setzero_si256(); 2] };
                    let mut sums = [start; ROWS];
                    for (step, panel) in tile.columns.panel.chunks_exact(STEP_WORDS).enumerate() {
                        let x = &step_of(tile.x, step)[..ROWS * STEP_WORDS];
                        for (word, weights) in panel.iter().enumerate() {
                            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                            ahead = ahead.wrapping_add(ahead_step);
                            let weights = &weights[column..column + PASS_COLUMNS];
                            // SAFETY: the cut has sixteen words.
                            let weights: [__m256i; 2] = unsafe {
                                [
                                    _mm256_loadu_si256(weights.as_ptr().cast()),
                                    _mm256_loadu_si256(weights.as_ptr().add(8).cast()),
                                ]
                            };
                            for (row, sums) in sums.iter_mut().enumerate() {
                                let factors = _mm256_set1_epi32(x[row * STEP_WORDS + word] as i32);
                                sums[0] = $dot(sums[0], factors, weights[0]);
                                sums[1] = $dot(sums[1], factors, weights[1]);
                            }
                        }
                    }
                    for (sums, results) in sums.iter().zip(&mut results) {
                        let results = &mut results[column..column + 16];
                        // SAFETY: the cut has sixteen numbers.
                        unsafe {
                            _mm256_storeu_si256(results.as_mut_ptr().cast(), sums[0]);
                            _mm256_storeu_si256(results.as_mut_ptr().add(8).cast(), sums[1]);
                        }
                    }
                }
                for (row, sums) in results.iter().enumerate() {
                    let y = &mut tile.y.numbers[row * tile.y.stride..][..PANEL_COLUMNS];
                    plain::int8_results(sums, tile.row_scales[row], &tile.columns, y);
                }
            }
        }
    };
}

// The left side's numbers are 128 greater than they mean; the sums start at what takes that away again.
int8_kernel!(vnni, "avx2,fma,avxvnni", true, |sums, factors, weights| _mm256_dpbusd_avx_epi32(
    sums, factors, weights
));

// AVX2 multiplies bytes only where one side is unsigned, and adds pairs in 16 bits: the sign of the left side goes
// over to the right, and 2 · 127 · 127 has room.
int8_kernel!(signed, "avx2,fma", false, |sums, factors, weights| {
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(factors), _mm256_sign_epi8(weights, factors));
    _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
});

pub(super) use signed::tile as int8_tile;
pub(super) use vnni::tile as int8_tile_vnni;
