//! Dot products of a 16-bit query with rows of 8-bit codes: the inner loop of the exact scan.
//!
//! Every kernel gives the same integers, so which one runs never changes an answer.

use crate::embedding::DIMENSIONS;
use crate::vector::quantise::Code;
use crate::vector::slab::BLOCK_ROWS;

/// Rows that are fetched into the core's second cache ahead of use.
///
/// A scan waits for memory, not for arithmetic, and what the processor fetches by itself is too little: without this
/// 30,000 rows take up to three times as long; 8 to 32 rows make no difference.
const AHEAD_ROWS: usize = 16;

/// One bit for each row of a block.
pub(crate) type RowBits = [u64; BLOCK_ROWS / 64];

/// A query in 16 bits: every number within ±32,767.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Wide(pub(crate) [i16; DIMENSIONS]);

/// Which instructions the scan uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// AVX-512 with VNNI: 64 bytes at a time, multiply and add in one instruction.
    Avx512Vnni,
    /// AVX2: 32 bytes at a time.
    Avx2,
    /// Plain Rust, for every processor.
    Portable,
}

impl Kernel {
    /// The fastest one this processor has.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this processor has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                kernels.push(Self::Avx512Vnni);
            }
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self::Avx2);
            }
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// Brings the first of `codes` near, which are multiplied soon.
    pub(crate) fn fetch_first(self, codes: &[Code]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni | Self::Avx2 => x86::fetch_first(codes),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512Vnni | Self::Avx2 => _ = codes,
            Self::Portable => (),
        }
    }

    /// Brings `numbers` near, which are looked at soon.
    pub(crate) fn fetch(self, numbers: &[f32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni | Self::Avx2 => x86::fetch(numbers),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512Vnni | Self::Avx2 => _ = numbers,
            Self::Portable => (),
        }
    }

    /// Writes the dot product of `query` with `codes[rows[i]]` to `dots[i]`.
    ///
    /// Exact: 384 × 32,767 × 127 is below 2³¹. Panics if a row is not in `codes`.
    pub(crate) fn dots(self, query: &Wide, codes: &[Code], rows: &[u8], dots: &mut [i32]) {
        self.dots_at(query, |at| rows.get(at).map(|&row| &codes[usize::from(row)]), dots);
    }

    /// Writes the dot product of `query` with `codes[i]` to `dots[i]`.
    pub(crate) fn dots_of(self, query: &Wide, codes: &[&Code], dots: &mut [i32]) {
        self.dots_at(query, |at| codes.get(at).copied(), dots);
    }

    /// Writes the dot product of `query` with what `code_at` says of i to `dots[i]`, as long as it says something.
    fn dots_at<'a>(self, query: &Wide, code_at: impl Fn(usize) -> Option<&'a Code>, dots: &mut [i32]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                // SAFETY: `available` is the only place that makes this variant in this crate's scans, after it
                // found avx512f, avx512bw and avx512vnni on this processor.
                unsafe { x86::dots_avx512(query, code_at, dots) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                // SAFETY: as above, with avx2.
                unsafe { x86::dots_avx2(query, code_at, dots) }
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512Vnni | Self::Avx2 => portable(query, code_at, dots),
            Self::Portable => portable(query, code_at, dots),
        }
    }
}

/// Brings `values` near, which are looked at soon.
#[inline]
pub(crate) fn fetch<Value>(values: &[Value]) {
    #[cfg(target_arch = "x86_64")]
    x86::fetch(values);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// One bit for each of up to [`BLOCK_ROWS`] numbers, set where it is `wanted`.
pub(crate) fn equal(numbers: &[u32], wanted: u32) -> RowBits {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor was just found to have it.
        return unsafe { x86::equal_avx512(numbers, wanted) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        return unsafe { x86::equal_avx2(numbers, wanted) };
    }
    let mut bits = RowBits::default();
    add_equal(numbers, wanted, 0, &mut bits);
    bits
}

/// The same for numbers from row `first` on, in plain Rust.
fn add_equal(numbers: &[u32], wanted: u32, first: usize, bits: &mut RowBits) {
    for (row, &number) in (first..BLOCK_ROWS).zip(numbers) {
        bits[row / 64] |= u64::from(number == wanted) << (row % 64);
    }
}

fn portable<'a>(query: &Wide, code_at: impl Fn(usize) -> Option<&'a Code>, dots: &mut [i32]) {
    for (at, dot) in dots.iter_mut().enumerate() {
        let Some(code) = code_at(at) else { return };
        *dot = query.0.iter().zip(&code.0).map(|(&q, &c)| i32::from(q) * i32::from(c)).sum();
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::cast_ptr_alignment,
    reason = "the arrays are aligned to 64 bytes and read in steps that divide it"
)]
pub(in crate::vector) mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _MM_HINT_T1, _mm_add_epi32, _mm_cvtsi128_si32, _mm_load_si128, _mm_prefetch,
        _mm_shuffle_epi32, _mm256_add_epi32, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmpeq_epi32,
        _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_load_si256, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_movemask_ps, _mm256_set1_epi32, _mm256_setzero_si256, _mm512_add_epi32,
        _mm512_cmpeq_epi32_mask, _mm512_cvtepi8_epi16, _mm512_dpwssd_epi32, _mm512_load_si512,
        _mm512_loadu_si512, _mm512_reduce_add_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    };

    use super::{AHEAD_ROWS, BLOCK_ROWS, Code, DIMENSIONS, RowBits, Wide, add_equal};

    /// Codes that fill one 512-bit register once widened to 16 bits.
    const STEP_512: usize = 32;
    /// The same for 256 bits.
    const STEP_256: usize = 16;

    /// Bytes that are fetched together.
    const LINE_BYTES: usize = 64;

    /// Fetches the first rows of a block that is scanned after the one at hand.
    pub(super) fn fetch_first(codes: &[Code]) {
        codes.iter().take(AHEAD_ROWS).for_each(|code| fetch(&code.0));
    }

    /// Fetches all of `values`.
    #[inline]
    pub(super) fn fetch<Value>(values: &[Value]) {
        let start = values.as_ptr().cast::<i8>();
        for offset in (0..size_of_val(values)).step_by(LINE_BYTES) {
            // SAFETY: every x86-64 processor has SSE, which brought this instruction; it reads nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(offset)) };
        }
    }

    /// # Safety
    ///
    /// The processor must have avx512f.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn equal_avx512(numbers: &[u32], wanted: u32) -> RowBits {
        let (sixteens, rest) = numbers[..numbers.len().min(BLOCK_ROWS)].as_chunks::<16>();
        let (mut bits, wanted_all) = (RowBits::default(), _mm512_set1_epi32(wanted.cast_signed()));
        for (at, numbers) in sixteens.iter().enumerate() {
            // SAFETY: sixteen numbers are 64 bytes, which this reads from any address.
            let numbers = unsafe { _mm512_loadu_si512(numbers.as_ptr().cast::<__m512i>()) };
            let mask = _mm512_cmpeq_epi32_mask(numbers, wanted_all);
            bits[at / 4] |= u64::from(mask) << (at % 4 * 16);
        }
        add_equal(rest, wanted, sixteens.len() * 16, &mut bits);
        bits
    }

    /// # Safety
    ///
    /// The processor must have avx2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn equal_avx2(numbers: &[u32], wanted: u32) -> RowBits {
        let (eights, rest) = numbers[..numbers.len().min(BLOCK_ROWS)].as_chunks::<8>();
        let (mut bits, wanted_all) = (RowBits::default(), _mm256_set1_epi32(wanted.cast_signed()));
        for (at, numbers) in eights.iter().enumerate() {
            // SAFETY: eight numbers are 32 bytes, which this reads from any address.
            let numbers = unsafe { _mm256_loadu_si256(numbers.as_ptr().cast::<__m256i>()) };
            let mask = _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(numbers, wanted_all)));
            bits[at / 8] |= u64::from(mask.cast_unsigned()) << (at % 8 * 8);
        }
        add_equal(rest, wanted, eights.len() * 8, &mut bits);
        bits
    }

    /// # Safety
    ///
    /// The processor must have avx512f, avx512bw and avx512vnni.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) unsafe fn dots_avx512<'a>(
        query: &Wide,
        code_at: impl Fn(usize) -> Option<&'a Code>,
        dots: &mut [i32],
    ) {
        let mut q = [_mm512_setzero_si512(); DIMENSIONS / STEP_512];
        for (register, numbers) in q.iter_mut().zip(query.0.chunks_exact(STEP_512)) {
            // SAFETY: `Wide` is aligned to 64 bytes and chunks are 64 bytes long.
            *register = unsafe { _mm512_load_si512(numbers.as_ptr().cast::<__m512i>()) };
        }
        for (at, dot) in dots.iter_mut().enumerate() {
            let Some(code) = code_at(at) else { return };
            if let Some(ahead) = code_at(at + AHEAD_ROWS) {
                fetch(&ahead.0);
            }
            let mut sums = [_mm512_setzero_si512(); 2];
            for (step, numbers) in code.0.chunks_exact(STEP_512).enumerate() {
                // SAFETY: `Code` is aligned to 64 bytes and chunks are 32 bytes long.
                let narrow = unsafe { _mm256_load_si256(numbers.as_ptr().cast::<__m256i>()) };
                sums[step % 2] = _mm512_dpwssd_epi32(sums[step % 2], _mm512_cvtepi8_epi16(narrow), q[step]);
            }
            *dot = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]));
        }
    }

    /// # Safety
    ///
    /// The processor must have avx2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn dots_avx2<'a>(
        query: &Wide,
        code_at: impl Fn(usize) -> Option<&'a Code>,
        dots: &mut [i32],
    ) {
        for (at, dot) in dots.iter_mut().enumerate() {
            let Some(code) = code_at(at) else { return };
            if let Some(ahead) = code_at(at + AHEAD_ROWS) {
                fetch(&ahead.0);
            }
            let mut sums = [_mm256_setzero_si256(); 2];
            let parts = code.0.chunks_exact(STEP_256).zip(query.0.chunks_exact(STEP_256));
            for (step, (narrow, wide)) in parts.enumerate() {
                // SAFETY: `Code` is aligned to 64 bytes and chunks are 16 bytes long.
                let narrow = unsafe { _mm_load_si128(narrow.as_ptr().cast()) };
                // SAFETY: `Wide` is aligned to 64 bytes and chunks are 32 bytes long.
                let wide = unsafe { _mm256_load_si256(wide.as_ptr().cast::<__m256i>()) };
                let product = _mm256_madd_epi16(_mm256_cvtepi8_epi16(narrow), wide);
                sums[step % 2] = _mm256_add_epi32(sums[step % 2], product);
            }
            let sum = _mm256_add_epi32(sums[0], sums[1]);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_11_10>(sum));
            let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b00_00_00_01>(sum));
            *dot = _mm_cvtsi128_si32(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use proptest::prelude::*;

    use super::{Kernel, RowBits, Wide, add_equal, equal};
    use crate::embedding::DIMENSIONS;
    use crate::vector::quantise::Code;

    fn by_hand(query: &[i16], code: &[i8]) -> i64 {
        query.iter().zip(code).map(|(&q, &c)| i64::from(q) * i64::from(c)).sum()
    }

    #[track_caller]
    fn check(query: &[i16], codes: &[Vec<i8>]) {
        let wide = Wide(query.try_into().unwrap());
        let rows: Vec<u8> = (0..codes.len()).rev().map(|row| row as u8).collect();
        let then: Vec<i64> = codes.iter().rev().map(|code| by_hand(query, code)).collect();
        let codes: Vec<Code> = codes.iter().map(|code| Code(code.as_slice().try_into().unwrap())).collect();
        for kernel in Kernel::available() {
            let mut dots = vec![0; rows.len()];
            kernel.dots(&wide, &codes, &rows, &mut dots);
            assert!(dots.iter().map(|&dot| i64::from(dot)).eq(then.iter().copied()), "{kernel:?}: {dots:?}");
            let mut dots = vec![0; rows.len()];
            kernel.dots_of(&wide, &codes.iter().rev().collect::<Vec<_>>(), &mut dots);
            assert!(dots.iter().map(|&dot| i64::from(dot)).eq(then.iter().copied()), "{kernel:?}: {dots:?}");
        }
    }

    #[test]
    fn every_processor_marks_the_same_numbers() {
        let kinds: Vec<u32> = (0..300_u32).map(|row| row.wrapping_mul(2_654_435_761) >> 30).collect();
        for (len, wanted) in (0..300).flat_map(|len| [(len, 0), (len, 3), (len, u32::MAX)]) {
            let then: RowBits = std::array::from_fn(|word| {
                let set = |at: &usize| kinds[..len].get(word * 64 + at) == Some(&wanted);
                (0..64).filter(set).map(|at| 1 << at).sum()
            });
            assert_eq!(equal(&kinds[..len], wanted), then, "{wanted} in {len}");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor was just found to have it.
                assert_eq!(unsafe { super::x86::equal_avx2(&kinds[..len], wanted) }, then);
            }
            let mut plain = RowBits::default();
            add_equal(&kinds[..len], wanted, 0, &mut plain);
            assert_eq!(plain, then);
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        for (q, c) in [(32_767, 127), (-32_767, 127), (32_767, -127), (-32_767, -127), (32_767, -128)] {
            check(&[q; DIMENSIONS], &[vec![c; DIMENSIONS]]);
        }
    }

    proptest! {
        #[test]
        fn every_kernel_gives_the_sum_of_the_products(
            query in proptest::collection::vec(-32_767_i16..=32_767, DIMENSIONS),
            codes in proptest::collection::vec(proptest::collection::vec(-127_i8..=127, DIMENSIONS), 1..5),
        ) {
            check(&query, &codes);
        }
    }
}
