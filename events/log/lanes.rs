//! BLAKE3 of many short inputs side by side, one in each lane of the vector unit.
//!
//! BLAKE3 is made for long inputs: it hashes their chunks of 1,024 bytes in parallel, but the blocks of one chunk one
//! after the other. An event is mostly a single chunk, so hashed alone it uses one lane of up to sixteen. Here inputs
//! with as many blocks go through the lanes together; only the last, partly filled block of each is compressed alone.
//!
//! The results are those of [`blake3::hash`] and [`blake3::keyed_hash`], which the tests hold them to. The entry to the
//! lanes is not part of blake3's promised interface, so the workspace pins its version.

use std::sync::OnceLock;

use blake3::IncrementCounter;
use blake3::platform::{MAX_SIMD_DEGREE, Platform};
use blake3::{BLOCK_LEN, CHUNK_LEN, OUT_LEN};

use crate::log::chain::{Hash, hash};
use crate::log::header::array;

/// The state that an input without a key begins with: BLAKE3 specification, section 2.2.
const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED: u8 = 1 << 4;

/// Full blocks that may stand before the last one of a chunk, and one for none.
const RUNS: usize = CHUNK_LEN / BLOCK_LEN;

fn platform() -> Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    *PLATFORM.get_or_init(Platform::detect)
}

/// The hash of each input, in order.
pub(crate) fn hash_each<'a>(inputs: impl Iterator<Item = &'a [u8]>) -> Vec<Hash> {
    let inputs: Vec<&[u8]> = inputs.collect();
    let mut hashes = vec![Hash::default(); inputs.len()];
    let mut runs: [Vec<usize>; RUNS] = Default::default();
    for (index, input) in inputs.iter().enumerate() {
        // A single block gains nothing; what is longer than a chunk has lanes of its own to fill.
        if (BLOCK_LEN + 1..=CHUNK_LEN).contains(&input.len()) {
            runs[(input.len() - 1) / BLOCK_LEN].push(index);
        } else {
            hashes[index] = hash(input);
        }
    }
    for (blocks, members) in runs.iter().enumerate() {
        for members in members.chunks(MAX_SIMD_DEGREE) {
            match blocks {
                1 => run::<64>(&inputs, members, &mut hashes),
                2 => run::<128>(&inputs, members, &mut hashes),
                3 => run::<192>(&inputs, members, &mut hashes),
                4 => run::<256>(&inputs, members, &mut hashes),
                5 => run::<320>(&inputs, members, &mut hashes),
                6 => run::<384>(&inputs, members, &mut hashes),
                7 => run::<448>(&inputs, members, &mut hashes),
                8 => run::<512>(&inputs, members, &mut hashes),
                9 => run::<576>(&inputs, members, &mut hashes),
                10 => run::<640>(&inputs, members, &mut hashes),
                11 => run::<704>(&inputs, members, &mut hashes),
                12 => run::<768>(&inputs, members, &mut hashes),
                13 => run::<832>(&inputs, members, &mut hashes),
                14 => run::<896>(&inputs, members, &mut hashes),
                _ => run::<960>(&inputs, members, &mut hashes),
            }
        }
    }
    hashes
}

/// Hashes the `members` of `inputs`, each of `FULL` bytes and 1 to 64 more.
fn run<const FULL: usize>(inputs: &[&[u8]], members: &[usize], hashes: &mut [Hash]) {
    let mut fronts: [&[u8; FULL]; MAX_SIMD_DEGREE] = [&[0; FULL]; MAX_SIMD_DEGREE];
    let split = members.iter().map(|index| inputs[*index].split_first_chunk::<FULL>());
    let mut states = [0; OUT_LEN * MAX_SIMD_DEGREE];
    let mut tails: [&[u8]; MAX_SIMD_DEGREE] = [&[]; MAX_SIMD_DEGREE];
    for ((front, tail), parts) in fronts.iter_mut().zip(&mut tails).zip(split) {
        if let Some((first, last)) = parts {
            (*front, *tail) = (first, last);
        }
    }
    let platform = platform();
    let fronts = &fronts[..members.len()];
    let counter = IncrementCounter::No;
    platform.hash_many(fronts, &IV, 0, counter, 0, CHUNK_START, 0, &mut states[..OUT_LEN * members.len()]);
    for ((index, state), tail) in members.iter().zip(states.chunks_exact(OUT_LEN)).zip(tails) {
        let mut state = words(&array(state));
        let mut block = [0; BLOCK_LEN];
        block[..tail.len()].copy_from_slice(tail);
        platform.compress_in_place(&mut state, &block, tail.len() as u8, 0, CHUNK_END | ROOT);
        for (bytes, word) in hashes[*index].0.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// The keyed hash of each block, in order.
pub(crate) fn keyed_each<'a>(
    key: &[u8; 32],
    blocks: impl ExactSizeIterator<Item = &'a [u8; BLOCK_LEN]>,
) -> Vec<Hash> {
    let blocks: Vec<&[u8; BLOCK_LEN]> = blocks.collect();
    let mut out = vec![0; OUT_LEN * blocks.len()];
    let counter = IncrementCounter::No;
    platform().hash_many(&blocks, &words(key), 0, counter, KEYED, CHUNK_START, CHUNK_END | ROOT, &mut out);
    out.chunks_exact(OUT_LEN).map(|hash| Hash(array(hash))).collect()
}

fn words(bytes: &[u8; 32]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_le_bytes(array(bytes));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{hash_each, keyed_each};
    use crate::log::chain::{Hash, hash};

    fn bytes(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 31 + seed * 7 + n / 251) as u8).collect()
    }

    #[track_caller]
    fn check(lens: impl Iterator<Item = usize>) {
        let inputs: Vec<Vec<u8>> = lens.enumerate().map(|(seed, len)| bytes(len, seed)).collect();
        let alone: Vec<Hash> = inputs.iter().map(|input| hash(input)).collect();
        assert_eq!(hash_each(inputs.iter().map(Vec::as_slice)), alone);
    }

    #[test]
    fn every_length_has_the_hash_that_it_has_alone() {
        check(std::iter::empty());
        check(0..2_100);
        for len in [1, 63, 64, 65, 128, 959, 960, 961, 1_000, 1_023, 1_024, 1_025] {
            check((0..40).map(|_| len));
        }
        check((0..3_000).map(|n| n * 7_919 % 1_100));
    }

    #[test]
    fn every_number_of_blocks_has_the_keyed_hashes_that_they_have_alone() {
        let key = [9; 32];
        for count in 0..70 {
            let blocks: Vec<[u8; 64]> =
                (0..count).map(|seed| bytes(64, seed).try_into().unwrap_or([0; 64])).collect();
            let alone: Vec<Hash> =
                blocks.iter().map(|block| Hash(*blake3::keyed_hash(&key, block).as_bytes())).collect();
            assert_eq!(keyed_each(&key, blocks.iter()), alone);
        }
    }
}
