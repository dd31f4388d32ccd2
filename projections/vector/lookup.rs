//! What a query and many sketches have in common, by tables: some bits of a row at a time are the number of the place
//! where their sum stands.
//!
//! A. André, A.-M. Kermarrec, N. Le Scouarnec, "Cache locality is not enough: high-performance nearest neighbor search
//! with product quantization fast scan", PVLDB 2015, keep such tables in registers, where one instruction looks up a
//! place for each of many rows. Tables of 64 places need AVX-512 VBMI and tables of 16 places AVX2; a processor that has
//! neither reads tables of 256 from memory. All add up the same whole numbers, so all give the same sums.

use crate::embedding::DIMENSIONS;
use crate::vector::quantise::Code;
use crate::vector::sketch::{Extent, Probe, Sketches, extent};
use crate::vector::slab::BLOCK_ROWS;

/// Bytes that hold a bit for each number of a vector.
const BYTES: usize = DIMENSIONS / 8;
/// Rows that are counted together: their bytes fill a register of 512 bits.
pub(crate) const LANES: usize = 64;

/// The signs of 64 rows, byte by byte: the first of all rows, then the second. Bit b of byte j is set where number 8·j + b is
/// positive.
///
/// Row r lies at place 2·r, and from row 32 on at 2·(r − 32) + 1: of numbers that are added in pairs of bytes, the low
/// halves are those of the first rows in their order, and the high halves those of the others.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Signs([[u8; LANES]; BYTES]);

impl Signs {
    pub(crate) const ZERO: Self = Self([[0; LANES]; BYTES]);

    /// Gives row `row` the signs of `code`; says how many of its numbers are positive.
    pub(crate) fn set(&mut self, row: usize, code: &Code) -> u16 {
        let (place, mut ones) = (place_of(row), 0);
        for (eight, numbers) in self.0.as_chunks_mut::<8>().0.iter_mut().zip(code.0.as_chunks::<64>().0) {
            let word = positive(numbers);
            ones += word.count_ones() as u16;
            eight.iter_mut().zip(word.to_le_bytes()).for_each(|(bytes, byte)| bytes[place] = byte);
        }
        ones
    }

    /// What is read first.
    pub(crate) fn beginning(&self) -> &[u8] {
        self.0[..8].as_flattened()
    }
}

/// A bit for each number that is positive.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::cast_ptr_alignment, reason = "these loads need no alignment")]
fn positive(numbers: &[i8; 64]) -> u64 {
    use std::arch::x86_64::{__m128i, _mm_cmpgt_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_setzero_si128};
    numbers.as_chunks::<16>().0.iter().rev().fold(0, |word, sixteen| {
        // SAFETY: every x86-64 processor has SSE2, and 16 bytes are read from any address.
        let bits = unsafe {
            let sixteen = _mm_loadu_si128(sixteen.as_ptr().cast::<__m128i>());
            _mm_movemask_epi8(_mm_cmpgt_epi8(sixteen, _mm_setzero_si128()))
        };
        word << 16 | u64::from(bits.cast_unsigned())
    })
}

/// A bit for each number that is positive.
#[cfg(not(target_arch = "x86_64"))]
fn positive(numbers: &[i8; 64]) -> u64 {
    numbers.iter().rev().fold(0, |word, &number| word << 1 | u64::from(number > 0))
}

/// Where a row lies among those that are counted together.
const fn place_of(row: usize) -> usize {
    row % (LANES / 2) * 2 + row / (LANES / 2)
}

/// What steps of a query add up to, for each pattern of some bits of a sketch.
#[derive(Debug, Clone)]
pub(crate) enum Tables {
    /// For three bytes each: the low six bits of the first, of the second, of the third, and the two high ones of all three.
    #[cfg(target_arch = "x86_64")]
    Six(Box<[[u8; 64]; BYTES / 3 * 4]>),
    /// For each half of a byte, the low one first; twice, for both halves of a register.
    #[cfg(target_arch = "x86_64")]
    Four(Box<[[u8; 32]; BYTES * 2]>),
    /// For each byte.
    Eight(Vec<[u16; 256]>),
}

impl Tables {
    /// The tables of `steps`, each at most [`STEPS`](super::sketch::STEPS), for the fastest instructions of this processor.
    pub(crate) fn best(steps: &[u8; DIMENSIONS]) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_six() {
                return Self::six(steps);
            }
            if is_x86_feature_detected!("avx2") {
                return Self::four(steps);
            }
        }
        Self::eight(steps)
    }

    /// Those for every kind of instructions that this processor has.
    #[cfg(test)]
    pub(crate) fn all(steps: &[u8; DIMENSIONS]) -> Vec<Self> {
        let all = std::iter::once(Self::eight(steps));
        #[cfg(target_arch = "x86_64")]
        let all = all
            .chain(is_x86_feature_detected!("avx2").then(|| Self::four(steps)))
            .chain(has_six().then(|| Self::six(steps)));
        all.collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn six(steps: &[u8; DIMENSIONS]) -> Self {
        let mut tables = Box::new([[0; 64]; BYTES / 3 * 4]);
        for (tables, steps) in tables.as_chunks_mut::<4>().0.iter_mut().zip(steps.as_chunks::<24>().0) {
            let low = [0, 8, 16].map(|first| std::array::from_fn(|bit| steps[first + bit]));
            let [first, second, third]: [[u8; 6]; 3] = low;
            let high = [6, 7, 14, 15, 22, 23].map(|number: usize| steps[number]);
            *tables = [first, second, third, high].map(|steps| table(&steps));
        }
        Self::Six(tables)
    }

    #[cfg(target_arch = "x86_64")]
    fn four(steps: &[u8; DIMENSIONS]) -> Self {
        let mut tables = Box::new([[0; 32]; BYTES * 2]);
        for (table_twice, steps) in tables.iter_mut().zip(steps.as_chunks::<4>().0) {
            let table: [u8; 16] = table(steps);
            table_twice.as_chunks_mut::<16>().0.fill(table);
        }
        Self::Four(tables)
    }

    fn eight(steps: &[u8; DIMENSIONS]) -> Self {
        Self::Eight(eights(steps))
    }

    /// Writes to `uppers` what [`Sketches::weigh`] says of each row of `sketches`, and says between what that is.
    pub(crate) fn uppers(
        &self,
        probe: &Probe,
        sketches: &Sketches,
        uppers: &mut [f32; BLOCK_ROWS],
    ) -> Extent {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Six(tables) => {
                // SAFETY: there are such tables only where the processor has what the function needs.
                unsafe { x86::uppers_avx512(tables, probe, sketches, uppers) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Four(tables) => {
                // SAFETY: as above.
                unsafe { x86::uppers_avx2(tables, probe, sketches, uppers) }
            }
            Self::Eight(tables) => {
                let groups = uppers.as_chunks_mut::<LANES>().0.iter_mut().zip(sketches.signs.iter());
                for (group, (uppers, signs)) in groups.enumerate() {
                    sketches.weigh(probe, group, &sums(tables, signs), uppers);
                }
                extent(uppers)
            }
        }
    }
}

/// Whether the processor has what [`x86::uppers_avx512`] needs.
#[cfg(target_arch = "x86_64")]
fn has_six() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi")
}

/// The tables of eight steps each.
fn eights(steps: &[u8; DIMENSIONS]) -> Vec<[u16; 256]> {
    steps.as_chunks::<8>().0.iter().map(|steps| table(&steps.map(u16::from))).collect()
}

/// What `steps` add up to for each set of bits: that of place 5 is the first and the third.
fn table<Sum, const BITS: usize, const PLACES: usize>(steps: &[Sum; BITS]) -> [Sum; PLACES]
where
    Sum: Copy + Default + std::ops::Add<Output = Sum>,
{
    const { assert!(PLACES == 1 << BITS) };
    let mut table = [Sum::default(); PLACES];
    for (bit, &step) in steps.iter().enumerate() {
        let (known, new) = table.split_at_mut(1 << bit);
        new.iter_mut().zip(known).for_each(|(new, known)| *new = *known + step);
    }
    table
}

/// The sums of 64 rows, by row, in plain Rust.
fn sums(tables: &[[u16; 256]], signs: &Signs) -> [u16; LANES] {
    let mut sums = [0; LANES];
    for (bytes, table) in signs.0.iter().zip(tables) {
        sums.iter_mut().zip(bytes).for_each(|(sum, &byte)| *sum += table[usize::from(byte)]);
    }
    std::array::from_fn(|row| sums[place_of(row)])
}

#[cfg(target_arch = "x86_64")]
#[expect(clippy::cast_ptr_alignment, reason = "what is read as aligned is, and the rest is not")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_add_epi8, _mm256_add_epi16, _mm256_and_si256, _mm256_load_si256,
        _mm256_loadu_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi16,
        _mm256_srli_epi16, _mm256_storeu_si256, _mm256_sub_epi16, _mm512_add_epi8, _mm512_add_epi16,
        _mm512_load_si512, _mm512_loadu_si512, _mm512_permutexvar_epi8, _mm512_set1_epi8,
        _mm512_setzero_si512, _mm512_slli_epi16, _mm512_srli_epi16, _mm512_storeu_si512, _mm512_sub_epi16,
        _mm512_ternarylogic_epi32,
    };

    use super::{BYTES, LANES, Signs};
    use crate::vector::sketch::{Extent, Probe, STEPS, Sketches, extent};
    use crate::vector::slab::BLOCK_ROWS;

    /// Bits that come from the first operand where they are set in the mask, else from the second.
    const CHOOSE: i32 = 0b1100_1010;

    // Two sums of six steps, or four of four, fit in a byte.
    const _: () = assert!(12 * STEPS as usize <= 255 && 16 * STEPS as usize <= 255);

    /// # Safety
    ///
    /// The processor must have avx512f, avx512bw and avx512vbmi.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) unsafe fn uppers_avx512(
        tables: &[[u8; 64]; BYTES / 3 * 4],
        probe: &Probe,
        sketches: &Sketches,
        uppers: &mut [f32; BLOCK_ROWS],
    ) -> Extent {
        let [low_two, low_four] = [0x03, 0x0f].map(|mask| _mm512_set1_epi8(mask));
        let groups = uppers.as_chunks_mut::<LANES>().0.iter_mut().zip(sketches.signs.iter());
        for (group, (uppers, signs)) in groups.enumerate() {
            // Both bytes of a pair together, and the high ones alone.
            let (mut both, mut high) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            let threes = signs.0.as_chunks::<3>().0.iter().zip(tables.as_chunks::<4>().0);
            for (bytes, tables) in threes {
                // SAFETY: 64 bytes each; those of `Signs` are aligned to as many.
                let ([a, b, c], [first, second, third, fourth]) = unsafe {
                    (
                        [0, 1, 2].map(|at| _mm512_load_si512(bytes.as_ptr().add(at).cast::<__m512i>())),
                        [0, 1, 2, 3].map(|at| _mm512_loadu_si512(tables.as_ptr().add(at).cast::<__m512i>())),
                    )
                };
                let two = _mm512_ternarylogic_epi32::<CHOOSE>(
                    low_two,
                    _mm512_srli_epi16::<6>(a),
                    _mm512_srli_epi16::<4>(b),
                );
                let three = _mm512_ternarylogic_epi32::<CHOOSE>(low_four, two, _mm512_srli_epi16::<2>(c));
                // The two high bits of a place are not looked at.
                for sum in [
                    _mm512_add_epi8(_mm512_permutexvar_epi8(a, first), _mm512_permutexvar_epi8(b, second)),
                    _mm512_add_epi8(
                        _mm512_permutexvar_epi8(c, third),
                        _mm512_permutexvar_epi8(three, fourth),
                    ),
                ] {
                    both = _mm512_add_epi16(both, sum);
                    high = _mm512_add_epi16(high, _mm512_srli_epi16::<8>(sum));
                }
            }
            let mut sums = [0_u16; LANES];
            let low = _mm512_sub_epi16(both, _mm512_slli_epi16::<8>(high));
            // SAFETY: these are 128 bytes, which are written to any address.
            unsafe {
                _mm512_storeu_si512(sums.as_mut_ptr().cast::<__m512i>(), low);
                _mm512_storeu_si512(sums.as_mut_ptr().add(LANES / 2).cast::<__m512i>(), high);
            }
            sketches.weigh(probe, group, &sums, uppers);
        }
        extent(uppers)
    }

    /// # Safety
    ///
    /// The processor must have avx2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn uppers_avx2(
        tables: &[[u8; 32]; BYTES * 2],
        probe: &Probe,
        sketches: &Sketches,
        uppers: &mut [f32; BLOCK_ROWS],
    ) -> Extent {
        let groups = uppers.as_chunks_mut::<LANES>().0.iter_mut().zip(sketches.signs.iter());
        for (group, (uppers, signs)) in groups.enumerate() {
            let mut sums = [0_u16; LANES];
            for half in 0..2 {
                // SAFETY: the processor has avx2.
                let (low, high) = unsafe { half_avx2(tables, signs, half) };
                // SAFETY: 32 bytes each of 128, which are written to any address.
                unsafe {
                    let first = sums.as_mut_ptr().add(half * 16);
                    _mm256_storeu_si256(first.cast::<__m256i>(), low);
                    _mm256_storeu_si256(first.add(LANES / 2).cast::<__m256i>(), high);
                }
            }
            sketches.weigh(probe, group, &sums, uppers);
        }
        extent(uppers)
    }

    /// The sums of the 32 rows in one half of each byte's places: of the first rows, and of those from row 32 on.
    ///
    /// # Safety
    ///
    /// The processor must have avx2, and `half` must be 0 or 1.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn half_avx2(tables: &[[u8; 32]; BYTES * 2], signs: &Signs, half: usize) -> (__m256i, __m256i) {
        let low_four = _mm256_set1_epi8(0x0f);
        let (mut both, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        let twos = signs.0.as_chunks::<2>().0.iter().zip(tables.as_chunks::<4>().0);
        for (bytes, tables) in twos {
            let mut sum = _mm256_setzero_si256();
            for (bytes, tables) in bytes.iter().zip(tables.as_chunks::<2>().0) {
                // SAFETY: 32 bytes each; those of `Signs` are aligned to as many.
                let (bytes, [low, high]) = unsafe {
                    (
                        _mm256_load_si256(bytes.as_ptr().add(half * 32).cast::<__m256i>()),
                        [0, 1].map(|at| _mm256_loadu_si256(tables.as_ptr().add(at).cast::<__m256i>())),
                    )
                };
                let places = _mm256_and_si256(bytes, low_four);
                sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(low, places));
                let places = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_four);
                sum = _mm256_add_epi8(sum, _mm256_shuffle_epi8(high, places));
            }
            both = _mm256_add_epi16(both, sum);
            high = _mm256_add_epi16(high, _mm256_srli_epi16::<8>(sum));
        }
        (_mm256_sub_epi16(both, _mm256_slli_epi16::<8>(high)), high)
    }
}

#[cfg(test)]
mod tests {
    use super::{LANES, Signs, eights, place_of, sums, table};
    use crate::embedding::DIMENSIONS;
    use crate::vector::quantise::Code;

    #[test]
    fn a_table_has_the_sum_of_every_set_of_steps() {
        let steps = [15_u8, 0, 7, 1];
        let table: [u8; 16] = table(&steps);
        for (places, sum) in table.into_iter().enumerate() {
            let then: u8 = (0..4).filter(|bit| places >> bit & 1 == 1).map(|bit| steps[bit]).sum();
            assert_eq!(sum, then, "{places}");
        }
    }

    #[test]
    fn rows_have_places_of_their_own() {
        let mut places: Vec<usize> = (0..LANES).map(place_of).collect();
        assert_eq!((places[0], places[31], places[32], places[63]), (0, 62, 1, 63));
        places.sort_unstable();
        assert!(places.into_iter().eq(0..LANES));
    }

    #[test]
    fn sums_are_those_of_the_positive_numbers() {
        let chance = |row: usize, number: usize| (row * 7_919 + number * 104_729 + row * number) % 11;
        let steps: [u8; DIMENSIONS] = std::array::from_fn(|number| (chance(3, number) + number % 5) as u8);
        let mut signs = Signs::ZERO;
        let codes: [Code; LANES] = std::array::from_fn(|row| {
            Code(std::array::from_fn(|number| if row == 5 { 1 } else { chance(row, number) as i8 - 5 }))
        });
        for (row, code) in codes.iter().enumerate() {
            let ones = code.0.iter().filter(|&&number| number > 0).count();
            assert_eq!(usize::from(signs.set(row, code)), ones);
        }
        let tables = eights(&steps);
        assert_eq!(tables.len(), super::BYTES);
        for (row, sum) in sums(&tables, &signs).into_iter().enumerate() {
            let positive = codes[row].0.iter().zip(&steps).filter(|(number, _)| **number > 0);
            assert_eq!(sum, positive.map(|(_, &step)| u16::from(step)).sum::<u16>(), "row {row}");
        }
    }
}
