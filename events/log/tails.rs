//! The last, partly filled block of many chunks, sixteen side by side.
//!
//! BLAKE3's own entry to its lanes takes full blocks only. What is left of an input behind its full blocks has a length of its
//! own in each lane; compressed alone it costs as much as all of them together. Here is that one function for processors with
//! AVX-512; others compress each alone. BLAKE3 specification, section 2.2.

use blake3::BLOCK_LEN;

/// How many go side by side.
pub(crate) const LANES: usize = 16;

/// A word of each.
pub(crate) type Row = [u32; LANES];

/// What is compressed: words of states and blocks stand together by their place.
pub(crate) struct Tails {
    /// States before, and after.
    pub states: [Row; 8],
    /// Blocks, filled up with zeros.
    pub blocks: [Row; BLOCK_LEN / 4],
    /// Bytes of each block.
    pub lens: Row,
}

/// Whether this processor can compress them.
pub(crate) fn is_able() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Compresses all of them. `false`: this processor cannot, and nothing was changed.
#[cfg(target_arch = "x86_64")]
pub(crate) fn compress(tails: &mut Tails, counter: u64, flags: u8) -> bool {
    let can = is_able();
    if can {
        // SAFETY: the processor was just found to have AVX-512F, all that the function asks for.
        unsafe { avx512::compress(tails, counter, flags) };
    }
    can
}

/// Compresses all of them. `false`: this processor cannot, and nothing was changed.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn compress(_tails: &mut Tails, _counter: u64, _flags: u8) -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_ror_epi32, _mm512_set1_epi32,
        _mm512_storeu_si512, _mm512_xor_si512,
    };

    use super::{Row, Tails};
    use crate::log::lanes::IV;

    /// The order of a block's words in each round.
    const SCHEDULE: [[usize; 16]; 7] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8],
        [3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1],
        [10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6],
        [12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4],
        [9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7],
        [11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13],
    ];

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(row: &Row) -> __m512i {
        // SAFETY: a row is the 64 bytes that are read, and no alignment is asked for.
        unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn compress(tails: &mut Tails, counter: u64, flags: u8) {
        let all = |word: u32| _mm512_set1_epi32(word.cast_signed());
        let mut v = [all(0); 16];
        for (word, row) in v.iter_mut().zip(&tails.states) {
            *word = load(row);
        }
        for (word, iv) in v[8..12].iter_mut().zip(IV) {
            *word = all(iv);
        }
        (v[12], v[13]) = (all(counter as u32), all((counter >> 32) as u32));
        (v[14], v[15]) = (load(&tails.lens), all(u32::from(flags)));
        let mut m = [all(0); 16];
        for (word, row) in m.iter_mut().zip(&tails.blocks) {
            *word = load(row);
        }
        for order in &SCHEDULE {
            mix(&mut v, [0, 4, 8, 12], m[order[0]], m[order[1]]);
            mix(&mut v, [1, 5, 9, 13], m[order[2]], m[order[3]]);
            mix(&mut v, [2, 6, 10, 14], m[order[4]], m[order[5]]);
            mix(&mut v, [3, 7, 11, 15], m[order[6]], m[order[7]]);
            mix(&mut v, [0, 5, 10, 15], m[order[8]], m[order[9]]);
            mix(&mut v, [1, 6, 11, 12], m[order[10]], m[order[11]]);
            mix(&mut v, [2, 7, 8, 13], m[order[12]], m[order[13]]);
            mix(&mut v, [3, 4, 9, 14], m[order[14]], m[order[15]]);
        }
        for (index, row) in tails.states.iter_mut().enumerate() {
            let word = _mm512_xor_si512(v[index], v[index + 8]);
            // SAFETY: a row is the 64 bytes that are written, and no alignment is asked for.
            unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), word) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn mix(state: &mut [__m512i; 16], [a, b, c, d]: [usize; 4], first: __m512i, second: __m512i) {
        state[a] = _mm512_add_epi32(_mm512_add_epi32(state[a], state[b]), first);
        state[d] = _mm512_ror_epi32::<16>(_mm512_xor_si512(state[d], state[a]));
        state[c] = _mm512_add_epi32(state[c], state[d]);
        state[b] = _mm512_ror_epi32::<12>(_mm512_xor_si512(state[b], state[c]));
        state[a] = _mm512_add_epi32(_mm512_add_epi32(state[a], state[b]), second);
        state[d] = _mm512_ror_epi32::<8>(_mm512_xor_si512(state[d], state[a]));
        state[c] = _mm512_add_epi32(state[c], state[d]);
        state[b] = _mm512_ror_epi32::<7>(_mm512_xor_si512(state[b], state[c]));
    }
}
