//! Vectors in one bit a number: which rows of a large scope deserve a closer look.
//!
//! A row x is kept as the signs of its code, and a query q as four bits a number. With s = sign(x)/√D and
//! ρ = x·s, (q·s)/ρ estimates q·x without bias, and the estimate spreads around it by √(1/ρ² − 1)/√(D − 1):
//! J. Gao, C. Long, "`RaBitQ`: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate
//! Nearest Neighbor Search", SIGMOD 2024. Their random rotation is left out: on 300,000 texts of this model the
//! spread with it and without it is the same within 2 %. The spread that the query's own rounding φ adds is known
//! and included.
//!
//! A scan reads 52 bytes a row this way instead of 392, so it passes over what is surely far, and 8-bit codes decide
//! about the rest.

use crate::embedding::DIMENSIONS;
use crate::vector::quantise::Code;
use crate::vector::slab::BLOCK_ROWS;

/// Words that hold a bit for each number of a vector.
const WORDS: usize = DIMENSIONS / 64;
/// Rows that are counted together: 8 words of 64 bits fill a register of 512.
const LANES: usize = 8;
/// Bits of a number of the query.
const PLANES: usize = 4;
/// Largest number of the query.
const STEPS: f32 = ((1 << PLANES) - 1) as f32;
/// Spreads that an estimate may be too low before its row is missed: one row of some 4,000 is by chance, and among
/// the 64 nearest of 300,000 none of 6,400 was.
const SPREADS: f32 = 3.5;

/// The signs of eight rows, word by word.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Signs([[u64; LANES]; WORDS]);

/// The sketches of a block's rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sketches {
    signs: Vec<Signs>,
    /// 1/(ρ·√D) by row: what a product with the signs is worth.
    weights: Vec<f32>,
}

impl Sketches {
    /// Adds the row that `code` times `scale` is.
    pub(crate) fn push(&mut self, code: &Code, scale: f32) {
        let (row, lane) = (self.weights.len(), self.weights.len() % LANES);
        if lane == 0 {
            self.signs.push(Signs([[0; LANES]; WORDS]));
        }
        let signs = &mut self.signs[row / LANES].0;
        for (word, numbers) in signs.iter_mut().zip(code.0.chunks_exact(64)) {
            let bits = numbers.iter().enumerate().map(|(at, &number)| u64::from(number > 0) << at);
            word[lane] = bits.fold(0, |word, bit| word | bit);
        }
        let sum: i32 = code.0.iter().map(|&number| i32::from(number).abs()).sum();
        let squares: i32 = code.0.iter().map(|&number| i32::from(number).pow(2)).sum();
        // A code of nothing but zeros says nothing: its spread is 0 and so is its estimate.
        self.weights.push(scale * squares as f32 / sum.max(1) as f32);
    }

    /// Memory of a row, in bytes.
    pub(crate) const ROW_BYTES: usize = DIMENSIONS / 8 + size_of::<f32>();

    /// Writes to `uppers` for each row what its similarity to the query hardly exceeds.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it takes on the instructions of the function it is called from"
    )]
    fn uppers(&self, probe: &Probe, uppers: &mut [f32; BLOCK_ROWS]) {
        let mut sums = [0_u64; BLOCK_ROWS];
        let mut ones = [0_u64; BLOCK_ROWS];
        let lanes = sums.chunks_exact_mut(LANES).zip(ones.chunks_exact_mut(LANES));
        for (signs, (sums, ones)) in self.signs.iter().zip(lanes) {
            let (mut sum, mut one) = ([[0_u64; LANES]; PLANES], [0_u64; LANES]);
            for (word, words) in signs.0.iter().enumerate() {
                for (sum, plane) in sum.iter_mut().zip(&probe.planes) {
                    for (sum, signs) in sum.iter_mut().zip(words) {
                        *sum += u64::from((signs & plane[word]).count_ones());
                    }
                }
                for (one, signs) in one.iter_mut().zip(words) {
                    *one += u64::from(signs.count_ones());
                }
            }
            for lane in 0..LANES {
                sums[lane] = sum.iter().enumerate().map(|(bit, sum)| sum[lane] << bit).sum();
                ones[lane] = one[lane];
            }
        }
        let counts = sums.iter().zip(&ones).zip(&self.weights);
        for (upper, ((&sum, &ones), &weight)) in uppers.iter_mut().zip(counts) {
            // Both are at most 384 · 15.
            let (sum, ones) = (f32::from(sum as u16), f32::from(ones as u16));
            let product = 2.0 * (probe.lowest * ones + probe.step * sum) - probe.total;
            let spread = (weight * weight * probe.widened - 1.0).max(0.0) * probe.share;
            *upper = product * weight + spread.sqrt();
        }
    }
}

/// A query, made ready to be compared with many sketches.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Its numbers in steps from the lowest: bit b of number i is bit i of plane b.
    planes: [[u64; WORDS]; PLANES],
    lowest: f32,
    step: f32,
    /// The sum of its numbers as they are in the planes.
    total: f32,
    /// D·(1 + φ²).
    widened: f32,
    /// The square of [`SPREADS`], over D − 1.
    share: f32,
}

impl Probe {
    /// The planes of `vector`, which has length 1.
    pub(crate) fn new(vector: &[f32; DIMENSIONS]) -> Self {
        let lowest = vector.iter().copied().fold(f32::INFINITY, f32::min);
        let highest = vector.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let step = ((highest - lowest) / STEPS).max(f32::MIN_POSITIVE);
        let mut planes = [[0; WORDS]; PLANES];
        let (mut total, mut squares) = (0.0, 0.0);
        for (at, &number) in vector.iter().enumerate() {
            let steps = ((number - lowest) / step).round_ties_even().clamp(0.0, STEPS);
            for (bit, plane) in planes.iter_mut().enumerate() {
                plane[at / 64] |= u64::from(steps as u8 >> bit & 1) << (at % 64);
            }
            let rounded = lowest + steps * step;
            total += rounded;
            squares += (number - rounded).powi(2);
        }
        let dimensions = DIMENSIONS as f32;
        let share = SPREADS.powi(2) / (dimensions - 1.0);
        Self { planes, lowest, step, total, widened: dimensions * (1.0 + squares), share }
    }

    /// Writes to `uppers` for each row of `sketches` what its similarity hardly exceeds; the rest stays as it is.
    ///
    /// Every processor gives the same numbers.
    pub(crate) fn uppers(&self, sketches: &Sketches, uppers: &mut [f32; BLOCK_ROWS]) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq") {
                // SAFETY: the processor has what the function needs.
                return unsafe { uppers_avx512(self, sketches, uppers) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
                // SAFETY: as above.
                return unsafe { uppers_avx2(self, sketches, uppers) };
            }
        }
        sketches.uppers(self, uppers);
    }
}

/// # Safety
///
/// The processor must have avx512f and avx512vpopcntdq.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
unsafe fn uppers_avx512(probe: &Probe, sketches: &Sketches, uppers: &mut [f32; BLOCK_ROWS]) {
    sketches.uppers(probe, uppers);
}

/// # Safety
///
/// The processor must have avx2 and popcnt.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt")]
unsafe fn uppers_avx2(probe: &Probe, sketches: &Sketches, uppers: &mut [f32; BLOCK_ROWS]) {
    sketches.uppers(probe, uppers);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::{Probe, SPREADS, Sketches};
    use crate::embedding::DIMENSIONS;
    use crate::vector::quantise::{Query, quantise, similarity};
    use crate::vector::slab::BLOCK_ROWS;

    /// A unit vector of about normal numbers that follow from `seed`.
    fn vector(seed: usize) -> [f32; DIMENSIONS] {
        let mut bytes = vec![0; DIMENSIONS * 4];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        let fours = bytes.chunks_exact(4);
        let numbers: Vec<f32> =
            fours.map(|four| four.iter().map(|&byte| f32::from(byte) - 127.5).sum()).collect();
        Query::new(&numbers).unwrap().vector
    }

    fn uppers(query: &[f32; DIMENSIONS], rows: &[[f32; DIMENSIONS]]) -> [f32; BLOCK_ROWS] {
        let mut sketches = Sketches::default();
        for row in rows {
            let row = quantise(row);
            sketches.push(&row.code, row.scale);
        }
        let (probe, mut uppers) = (Probe::new(query), [f32::NEG_INFINITY; BLOCK_ROWS]);
        probe.uppers(&sketches, &mut uppers);
        let mut plain = [f32::NEG_INFINITY; BLOCK_ROWS];
        sketches.uppers(&probe, &mut plain);
        assert_eq!(uppers.map(f32::to_bits), plain.map(f32::to_bits), "all instructions agree");
        uppers
    }

    #[test]
    fn few_rows_are_nearer_than_their_sketch_says() {
        let (mut missed, mut slack) = (0, 0.0);
        for question in 0..40 {
            let query = vector(question);
            let rows: Vec<_> = (0..BLOCK_ROWS).map(|row| vector(1_000 + question * 1_000 + row)).collect();
            for (upper, row) in uppers(&query, &rows).iter().zip(&rows) {
                let truth = similarity(&query, row);
                missed += usize::from(truth > *upper);
                slack += f64::from(upper - truth);
            }
        }
        // 10,240 rows; 2.4 of them are to be expected.
        assert!(missed <= 12, "{missed}");
        // The spread of a random row is about 0.038; more slack than so would rule out nothing.
        let mean = slack / f64::from(40 * BLOCK_ROWS as u32);
        assert!(mean < f64::from(SPREADS) * 0.045, "{mean}");
    }

    #[test]
    fn a_row_is_near_itself_and_far_from_its_opposite() {
        for seed in 0..200 {
            let row = vector(seed);
            let uppers = uppers(&row, &[row, row.map(|number| -number)]);
            assert!(uppers[0] >= 0.98 && uppers[1] < -0.7, "{:?}", &uppers[..2]);
            assert!(uppers[2..].iter().all(|upper| *upper < f32::MIN), "there is no third row");
        }
    }

    #[test]
    fn vectors_of_few_numbers_have_sketches_too() {
        let (mut one, mut other) = ([0.0; DIMENSIONS], [0.0; DIMENSIONS]);
        (one[3], other[383]) = (1.0, -1.0);
        let uppers = uppers(&one, &[one, other]);
        assert!(uppers[0] >= 1.0, "{}", uppers[0]);
        assert!(uppers[1] >= 0.0 && uppers[1].is_finite(), "{}", uppers[1]);
    }
}
