//! Vectors in one bit a number: which rows of a large scope deserve a closer look.
//!
//! A row x is kept as the signs of its code, and a query q as four bits a number. With s = sign(x)/√D and
//! ρ = x·s, (q·s)/ρ estimates q·x without bias, and the estimate spreads around it by √(1/ρ² − 1)/√(D − 1):
//! J. Gao, C. Long, "`RaBitQ`: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate
//! Nearest Neighbor Search", SIGMOD 2024. Their random rotation is left out: on 300,000 texts of this model the
//! spread with it and without it is the same within 2 %. The spread that the query's own rounding φ adds is known
//! and included.
//!
//! A scan reads 54 bytes a row this way instead of 392, so it passes over what is surely far, and 8-bit codes decide
//! about the rest.

use crate::embedding::DIMENSIONS;
use crate::vector::column::Column;
use crate::vector::kernels::{RowBits, fetch};
use crate::vector::lookup::{LANES, Signs, Tables};
use crate::vector::quantise::Code;
use crate::vector::slab::BLOCK_ROWS;

/// Largest number of the query: four bits.
pub(crate) const STEPS: u8 = 15;
/// Spreads that an estimate may be too low before its row is missed: one row of some 700 is by chance, and none of the
/// 6,400 that were the 64 nearest among 300,000 to a hundred queries. Half a spread more compares 1.6 × the rows.
const SPREADS: f32 = 3.0;

/// The sketches of a full block's rows; of others there are none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sketches {
    pub(crate) signs: Column<Signs>,
    /// Numbers that are positive, by row.
    ones: Column<u16>,
    /// 1/(ρ·√D) by row: what a product with the signs is worth.
    weights: Column<f32>,
}

impl Sketches {
    /// The sketches of the rows that `codes` times `scales` are, [`BLOCK_ROWS`] of each.
    pub(crate) fn of(codes: &[Code], scales: &[f32]) -> Self {
        let mut sketches = Self::default();
        for (codes, scales) in codes.chunks_exact(LANES).zip(scales.chunks_exact(LANES)) {
            let mut signs = Signs::ZERO;
            for (row, (code, scale)) in codes.iter().zip(scales).enumerate() {
                sketches.ones.push(signs.set(row, code));
                let (sum, squares) = lengths(code);
                // A code of nothing but zeros says nothing: its spread is 0 and so is its estimate.
                sketches.weights.push(scale * squares as f32 / sum.max(1) as f32);
            }
            sketches.signs.push(signs);
        }
        sketches.signs.seal();
        sketches.ones.seal();
        sketches.weights.seal();
        sketches
    }

    /// Memory of a row, in bytes.
    pub(crate) const ROW_BYTES: usize = DIMENSIONS / 8 + size_of::<u16>() + size_of::<f32>();

    /// Whether there is nothing: the block is not full.
    pub(crate) fn is_empty(&self) -> bool {
        self.signs.is_empty()
    }

    /// Writes to `uppers`, those of the `group`th rows that are counted together, what their similarity to the query hardly
    /// exceeds. `sums`: the query's steps at the numbers that are positive in the row, added up.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it takes on the instructions of the function it is called from"
    )]
    pub(crate) fn weigh(&self, probe: &Probe, group: usize, sums: &[u16; LANES], uppers: &mut [f32; LANES]) {
        let rows = group * LANES..(group + 1) * LANES;
        let counts = sums.iter().zip(&self.ones[rows.clone()]).zip(&self.weights[rows]);
        for (upper, ((&sum, &ones), &weight)) in uppers.iter_mut().zip(counts) {
            let product = 2.0 * (probe.lowest * f32::from(ones) + probe.step * f32::from(sum)) - probe.total;
            let spread = (weight * weight * probe.widened - 1.0).max(0.0) * probe.share;
            *upper = product * weight + spread.sqrt();
        }
    }
}

/// The sum of the sizes of `code`'s numbers, and that of their squares.
fn lengths(code: &Code) -> (i32, i32) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has avx2.
        return unsafe { lengths_avx2(code) };
    }
    lengths_of(code)
}

/// [`lengths`] in these instructions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[expect(clippy::cast_ptr_alignment, reason = "codes are aligned to 64 bytes")]
fn lengths_avx2(code: &Code) -> (i32, i32) {
    use std::arch::x86_64::{
        __m256i, _mm256_abs_epi8, _mm256_add_epi32, _mm256_load_si256, _mm256_madd_epi16,
        _mm256_maddubs_epi16, _mm256_sad_epu8, _mm256_set1_epi16, _mm256_setzero_si256, _mm256_storeu_si256,
    };
    let (zero, one) = (_mm256_setzero_si256(), _mm256_set1_epi16(1));
    let (mut sums, mut squares) = (zero, zero);
    for numbers in code.0.as_chunks::<32>().0 {
        // SAFETY: 32 bytes, and each such part of a code is aligned to as many.
        let sizes = _mm256_abs_epi8(unsafe { _mm256_load_si256(numbers.as_ptr().cast::<__m256i>()) });
        sums = _mm256_add_epi32(sums, _mm256_sad_epu8(sizes, zero));
        // Two squares are 2 · 127² at most, which 16 bits hold.
        let pairs = _mm256_maddubs_epi16(sizes, sizes);
        squares = _mm256_add_epi32(squares, _mm256_madd_epi16(pairs, one));
    }
    let total = |lanes: __m256i| {
        let mut parts = [0_i32; 8];
        // SAFETY: 32 bytes, written to any address.
        unsafe { _mm256_storeu_si256(parts.as_mut_ptr().cast::<__m256i>(), lanes) };
        parts.into_iter().sum()
    };
    (total(sums), total(squares))
}

fn lengths_of(code: &Code) -> (i32, i32) {
    let numbers = || code.0.iter().map(|&number| i32::from(number));
    (numbers().map(i32::abs).sum(), numbers().map(|number| number * number).sum())
}

/// Between what some numbers are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    pub(crate) lowest: f32,
    pub(crate) highest: f32,
}

/// Between what the numbers of a block are, in lanes that the processor compares together.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it takes on the instructions of the function it is called from")]
pub(crate) fn extent(uppers: &[f32; BLOCK_ROWS]) -> Extent {
    let (mut low, mut high) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    for numbers in uppers.as_chunks::<16>().0 {
        for ((low, high), &number) in low.iter_mut().zip(&mut high).zip(numbers) {
            *low = if number < *low { number } else { *low };
            *high = if number > *high { number } else { *high };
        }
    }
    let (lowest, highest) = (low.into_iter().fold(f32::INFINITY, f32::min), high.into_iter());
    Extent { lowest, highest: highest.fold(f32::NEG_INFINITY, f32::max) }
}

/// A query, made ready to be compared with many sketches.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    /// Its numbers in steps from the lowest.
    tables: Tables,
    lowest: f32,
    step: f32,
    /// The sum of its numbers as they are in the tables.
    total: f32,
    /// D·(1 + φ²).
    widened: f32,
    /// The square of [`SPREADS`], over D − 1.
    share: f32,
}

impl Probe {
    /// `vector`, which has length 1, for the best instructions there are.
    pub(crate) fn new(vector: &[f32; DIMENSIONS]) -> Self {
        let lowest = vector.iter().copied().fold(f32::INFINITY, f32::min);
        let highest = vector.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let most = f32::from(STEPS);
        let step = ((highest - lowest) / most).max(f32::MIN_POSITIVE);
        let mut steps = [0; DIMENSIONS];
        let (mut total, mut squares) = (0.0, 0.0);
        for (taken, &number) in steps.iter_mut().zip(vector) {
            let rounded = ((number - lowest) / step).round_ties_even().clamp(0.0, most);
            *taken = rounded as u8;
            let rounded = lowest + rounded * step;
            total += rounded;
            squares += (number - rounded).powi(2);
        }
        let dimensions = DIMENSIONS as f32;
        let share = SPREADS.powi(2) / (dimensions - 1.0);
        let tables = Tables::best(&steps);
        Self { tables, lowest, step, total, widened: dimensions * (1.0 + squares), share }
    }

    /// Writes to `uppers` for each row of `sketches` what its similarity hardly exceeds, and says between what they are. As they
    /// were, where there are no sketches.
    ///
    /// `next` is what will be looked at after it: its beginning is on its way meanwhile, and the processor fetches ahead
    /// from there by itself. Every processor gives the same numbers.
    pub(crate) fn uppers(
        &self,
        sketches: &Sketches,
        next: Option<&Sketches>,
        uppers: &mut [f32; BLOCK_ROWS],
    ) -> Extent {
        if let Some(signs) = next.and_then(|next| next.signs.first()) {
            fetch(signs.beginning());
        }
        self.tables.uppers(self, sketches, uppers)
    }
}

/// Leaves −∞ in the places of all but `rows`; says between what those are.
pub(crate) fn only(rows: &RowBits, uppers: &mut [f32; BLOCK_ROWS]) -> Extent {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the function needs.
            return unsafe { only_avx512(rows, uppers) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { only_avx2(rows, uppers) };
        }
    }
    only_these(rows, uppers)
}

/// [`only`] in these instructions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn only_avx512(rows: &RowBits, uppers: &mut [f32; BLOCK_ROWS]) -> Extent {
    only_these(rows, uppers)
}

/// [`only`] in these instructions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn only_avx2(rows: &RowBits, uppers: &mut [f32; BLOCK_ROWS]) -> Extent {
    only_these(rows, uppers)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "it takes on the instructions of the function it is called from")]
fn only_these(rows: &RowBits, uppers: &mut [f32; BLOCK_ROWS]) -> Extent {
    let mut low = [f32::INFINITY; 16];
    for (number, numbers) in uppers.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let bits = (rows[number / 4] >> (number % 4 * 16)) as u16;
        for (lane, (low, number)) in low.iter_mut().zip(numbers).enumerate() {
            let is_wanted = bits & 1 << lane != 0;
            *low = if is_wanted && *number < *low { *number } else { *low };
            *number = if is_wanted { *number } else { f32::NEG_INFINITY };
        }
    }
    Extent { lowest: low.into_iter().fold(f32::INFINITY, f32::min), highest: extent(uppers).highest }
}

/// Which numbers are at least `from` and below `below`.
pub(crate) fn reaching(uppers: &[f32; BLOCK_ROWS], from: f32, below: f32) -> RowBits {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the function needs.
            return unsafe { reaching_avx512(uppers, from, below) };
        }
        if is_x86_feature_detected!("avx") {
            // SAFETY: as above.
            return unsafe { reaching_avx(uppers, from, below) };
        }
    }
    reaching_plain(uppers, from, below)
}

/// [`reaching`] in plain Rust.
fn reaching_plain(uppers: &[f32; BLOCK_ROWS], from: f32, below: f32) -> RowBits {
    let mut marks = [0; BLOCK_ROWS / 64];
    for (marks, numbers) in marks.iter_mut().zip(uppers.as_chunks::<64>().0) {
        for (at, &number) in numbers.iter().enumerate() {
            *marks |= u64::from(number >= from && number < below) << at;
        }
    }
    marks
}

/// # Safety
///
/// The processor must have avx512f.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn reaching_avx512(uppers: &[f32; BLOCK_ROWS], from: f32, below: f32) -> RowBits {
    use std::arch::x86_64::{_CMP_GE_OQ, _CMP_LT_OQ, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_set1_ps};
    let (from, below) = (_mm512_set1_ps(from), _mm512_set1_ps(below));
    let mut marks = [0; BLOCK_ROWS / 64];
    for (at, numbers) in uppers.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: there are 16 numbers.
        let numbers = unsafe { _mm512_loadu_ps(numbers.as_ptr()) };
        let high = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(numbers, from);
        let found = high & _mm512_cmp_ps_mask::<_CMP_LT_OQ>(numbers, below);
        marks[at / 4] |= u64::from(found) << (at % 4 * 16);
    }
    marks
}

/// # Safety
///
/// The processor must have avx.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
unsafe fn reaching_avx(uppers: &[f32; BLOCK_ROWS], from: f32, below: f32) -> RowBits {
    use std::arch::x86_64::{
        _CMP_GE_OQ, _CMP_LT_OQ, _mm256_and_ps, _mm256_cmp_ps, _mm256_loadu_ps, _mm256_movemask_ps,
        _mm256_set1_ps,
    };
    let (from, below) = (_mm256_set1_ps(from), _mm256_set1_ps(below));
    let mut marks = [0; BLOCK_ROWS / 64];
    for (at, numbers) in uppers.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: there are 8 numbers.
        let numbers = unsafe { _mm256_loadu_ps(numbers.as_ptr()) };
        let high = _mm256_cmp_ps::<_CMP_GE_OQ>(numbers, from);
        let found = _mm256_and_ps(high, _mm256_cmp_ps::<_CMP_LT_OQ>(numbers, below));
        marks[at / 8] |= u64::from(_mm256_movemask_ps(found).cast_unsigned()) << (at % 8 * 8);
    }
    marks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::{Code, Probe, SPREADS, Sketches, Tables, lengths, lengths_of, reaching, reaching_plain};
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

    /// What the sketches of `rows` say, and of zeros behind them.
    fn uppers(query: &[f32; DIMENSIONS], rows: &[[f32; DIMENSIONS]]) -> [f32; BLOCK_ROWS] {
        let zeros = std::iter::repeat(&[0.0; DIMENSIONS]);
        let rows: Vec<_> = rows.iter().chain(zeros).take(BLOCK_ROWS).map(quantise).collect();
        let (codes, scales): (Vec<_>, Vec<_>) = rows.iter().map(|row| (row.code, row.scale)).unzip();
        let (sketches, probe) = (Sketches::of(&codes, &scales), Probe::new(query));
        let mut uppers = [f32::NEG_INFINITY; BLOCK_ROWS];
        probe.uppers(&sketches, None, &mut uppers);
        for tables in Tables::all(&steps_of(query)) {
            let (probe, mut others) = (Probe { tables, ..probe.clone() }, [f32::NEG_INFINITY; BLOCK_ROWS]);
            probe.uppers(&sketches, None, &mut others);
            assert_eq!(uppers.map(f32::to_bits), others.map(f32::to_bits), "all instructions agree");
        }
        uppers
    }

    /// The numbers of `query` in steps, as [`Probe::new`] takes them.
    fn steps_of(query: &[f32; DIMENSIONS]) -> [u8; DIMENSIONS] {
        let (lowest, step) = (Probe::new(query).lowest, Probe::new(query).step);
        query.map(|number| ((number - lowest) / step).round_ties_even().clamp(0.0, 15.0) as u8)
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
        // 10,240 rows; 14 of them are to be expected.
        assert!(missed <= 30, "{missed}");
        // The spread of a random row is about 0.038; more slack than so would rule out nothing.
        let mean = slack / f64::from(40 * BLOCK_ROWS as u32);
        assert!(mean < f64::from(SPREADS) * 0.045, "{mean}");
    }

    #[test]
    fn every_processor_marks_the_same_rows() {
        let mut uppers = [0.0_f32; BLOCK_ROWS];
        for (at, upper) in uppers.iter_mut().enumerate() {
            *upper = (at * 37 % 256) as f32 / 256.0;
        }
        (uppers[7], uppers[70], uppers[255]) = (f32::NEG_INFINITY, 0.5, f32::INFINITY);
        for (from, below) in [
            (f32::MIN, f32::INFINITY),
            (0.5, 0.75),
            (0.5, 0.5),
            (0.9, f32::INFINITY),
            (f32::INFINITY, f32::INFINITY),
        ] {
            let marks = reaching(&uppers, from, below);
            assert_eq!(marks, reaching_plain(&uppers, from, below));
            for (at, upper) in uppers.iter().enumerate() {
                let marked = marks[at / 64] >> (at % 64) & 1 == 1;
                assert_eq!(marked, *upper >= from && *upper < below, "{at}: {upper} in {from}..{below}");
            }
        }
    }

    #[test]
    fn a_row_is_near_itself_and_far_from_its_opposite() {
        for seed in 0..200 {
            let row = vector(seed);
            let uppers = uppers(&row, &[row, row.map(|number| -number)]);
            assert!(uppers[0] >= 0.98 && uppers[1] < -0.7, "{:?}", &uppers[..2]);
            assert!(uppers[2..].iter().all(|upper| *upper == 0.0), "what is all zeros is near nothing");
        }
    }

    #[test]
    fn every_processor_measures_codes_alike() {
        let longest = Code(std::array::from_fn(|number| if number % 3 == 0 { -127 } else { 127 }));
        let others = (0..50).map(|seed| quantise(&vector(seed)).code);
        for code in others.chain([longest, Code([0; DIMENSIONS])]) {
            assert_eq!(lengths(&code), lengths_of(&code));
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
