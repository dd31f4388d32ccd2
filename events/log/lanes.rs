//! BLAKE3 of many short inputs side by side, one in each lane of the vector unit.
//!
//! BLAKE3 is made for long inputs: it hashes their chunks of 1,024 bytes in parallel, but the blocks of one chunk one
//! after the other. An event is mostly a single chunk, so hashed alone it uses one lane of up to sixteen. Here inputs
//! with as many blocks go through the lanes together, and then (`tails`) the last, partly filled block of each. Of an
//! input of two chunks each chunk goes with those of other inputs.
//!
//! The results are those of [`blake3::hash`] and [`blake3::keyed_hash`], which the tests hold them to. The entry to the
//! lanes is not part of blake3's promised interface, so the workspace pins its version.

use std::sync::OnceLock;

use blake3::IncrementCounter;
use blake3::platform::{MAX_SIMD_DEGREE, Platform};
use blake3::{BLOCK_LEN, CHUNK_LEN, OUT_LEN};

use crate::log::chain::{Hash, hash};
use crate::log::header::array;
use crate::log::tails::{self, LANES, Tails};

/// The state that an input without a key begins with: BLAKE3 specification, section 2.2.
pub(crate) const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 1 << 1;
const ROOT: u8 = 1 << 3;
const KEYED: u8 = 1 << 4;

const PARENT: u8 = 1 << 2;

/// Last blocks that are compressed alone: as many as take less time than sixteen side by side.
const ALONE_MAX: usize = 3;
/// Members of a run: each has a lane.
const _: () = assert!(MAX_SIMD_DEGREE <= LANES);

/// Full blocks that may stand before the last one of a chunk, and one for none.
const RUNS: usize = CHUNK_LEN / BLOCK_LEN;

fn platform() -> Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    *PLATFORM.get_or_init(Platform::detect)
}

/// The BLAKE3 hash of each input, in order: [`blake3::hash`] of it. Inputs of up to 2,048 bytes share the lanes of the vector
/// unit, so that sixteen of them take little more time than two alone.
pub fn hash_each(inputs: &[&[u8]]) -> Vec<Hash> {
    let mut hashes = vec![Hash::default(); inputs.len()];
    let (mut ones, mut twos) = (Vec::with_capacity(inputs.len()), Vec::new());
    for (index, input) in inputs.iter().enumerate() {
        // What is longer than two chunks has lanes of its own to fill.
        if (1..=CHUNK_LEN).contains(&input.len()) {
            ones.push(index);
        } else if (CHUNK_LEN + 1..=2 * CHUNK_LEN).contains(&input.len()) {
            twos.push(index);
        } else {
            hashes[index] = hash(input);
        }
    }
    let chunks: Vec<&[u8]> = ones.iter().map(|index| inputs[*index]).collect();
    for (index, hash) in ones.iter().zip(last_chunks(&chunks, 0, ROOT)) {
        hashes[*index] = hash;
    }
    let pairs: Vec<(&[u8; CHUNK_LEN], &[u8])> =
        twos.iter().filter_map(|index| inputs[*index].split_first_chunk()).collect();
    for (index, hash) in twos.iter().zip(two_chunks(&pairs)) {
        hashes[*index] = hash;
    }
    hashes
}

/// The hashes of inputs of two chunks, the second of 1 to 1,024 bytes.
fn two_chunks(pairs: &[(&[u8; CHUNK_LEN], &[u8])]) -> Vec<Hash> {
    let (firsts, lasts): (Vec<&[u8; CHUNK_LEN]>, Vec<&[u8]>) = pairs.iter().copied().unzip();
    let (platform, counter) = (platform(), IncrementCounter::No);
    let mut left = vec![0; OUT_LEN * pairs.len()];
    platform.hash_many(&firsts, &IV, 0, counter, 0, CHUNK_START, CHUNK_END, &mut left);
    let right = last_chunks(&lasts, 1, 0);
    let parents: Vec<[u8; BLOCK_LEN]> = left
        .chunks_exact(OUT_LEN)
        .zip(&right)
        .map(|(left, right)| {
            let mut parent = [0; BLOCK_LEN];
            parent[..OUT_LEN].copy_from_slice(left);
            parent[OUT_LEN..].copy_from_slice(&right.0);
            parent
        })
        .collect();
    let parents: Vec<&[u8; BLOCK_LEN]> = parents.iter().collect();
    let mut out = vec![0; OUT_LEN * pairs.len()];
    platform.hash_many(&parents, &IV, 0, counter, PARENT | ROOT, 0, 0, &mut out);
    out.chunks_exact(OUT_LEN).map(|hash| Hash(array(hash))).collect()
}

/// What comes out at the end of each chunk of 1 to 1,024 bytes that is the last of its input. `counter` is its number
/// there, `root` the flag when it is also the first.
fn last_chunks(chunks: &[&[u8]], counter: u64, root: u8) -> Vec<Hash> {
    let mut hashes = vec![Hash::default(); chunks.len()];
    let mut runs: [Vec<usize>; RUNS] = Default::default();
    for (index, chunk) in chunks.iter().enumerate() {
        runs[chunk.len().saturating_sub(1) / BLOCK_LEN].push(index);
    }
    let end = (counter, root);
    for (blocks, members) in runs.iter().enumerate() {
        for members in members.chunks(MAX_SIMD_DEGREE) {
            match blocks {
                0 => single_blocks(chunks, members, end, &mut hashes),
                1 => run::<64>(chunks, members, end, &mut hashes),
                2 => run::<128>(chunks, members, end, &mut hashes),
                3 => run::<192>(chunks, members, end, &mut hashes),
                4 => run::<256>(chunks, members, end, &mut hashes),
                5 => run::<320>(chunks, members, end, &mut hashes),
                6 => run::<384>(chunks, members, end, &mut hashes),
                7 => run::<448>(chunks, members, end, &mut hashes),
                8 => run::<512>(chunks, members, end, &mut hashes),
                9 => run::<576>(chunks, members, end, &mut hashes),
                10 => run::<640>(chunks, members, end, &mut hashes),
                11 => run::<704>(chunks, members, end, &mut hashes),
                12 => run::<768>(chunks, members, end, &mut hashes),
                13 => run::<832>(chunks, members, end, &mut hashes),
                14 => run::<896>(chunks, members, end, &mut hashes),
                _ => run::<960>(chunks, members, end, &mut hashes),
            }
        }
    }
    hashes
}

/// The `members` of `chunks` that are one block.
fn single_blocks(chunks: &[&[u8]], members: &[usize], (counter, root): (u64, u8), hashes: &mut [Hash]) {
    let flags = CHUNK_START | CHUNK_END | root;
    if members.len() > ALONE_MAX && tails::is_able() {
        let mut blocks: [&[u8]; MAX_SIMD_DEGREE] = [&[]; MAX_SIMD_DEGREE];
        for (block, index) in blocks.iter_mut().zip(members) {
            *block = chunks[*index];
        }
        let mut states = [0; OUT_LEN * MAX_SIMD_DEGREE];
        for (bytes, word) in states.chunks_exact_mut(4).zip(IV.iter().cycle()) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let states = &states[..OUT_LEN * members.len()];
        if last_blocks((states, &blocks), members, (counter, flags), hashes) {
            return;
        }
    }
    for index in members {
        hashes[*index] = last_block(IV, chunks[*index], counter, flags);
    }
}

/// The `members` of `chunks`, each of `FULL` bytes and 1 to 64 more.
fn run<const FULL: usize>(
    chunks: &[&[u8]],
    members: &[usize],
    (counter, root): (u64, u8),
    hashes: &mut [Hash],
) {
    let mut fronts: [&[u8; FULL]; MAX_SIMD_DEGREE] = [&[0; FULL]; MAX_SIMD_DEGREE];
    let split = members.iter().map(|index| chunks[*index].split_first_chunk::<FULL>());
    let mut states = [0; OUT_LEN * MAX_SIMD_DEGREE];
    let mut tails: [&[u8]; MAX_SIMD_DEGREE] = [&[]; MAX_SIMD_DEGREE];
    for ((front, tail), parts) in fronts.iter_mut().zip(&mut tails).zip(split) {
        if let Some((first, last)) = parts {
            (*front, *tail) = (first, last);
        }
    }
    let (fronts, none) = (&fronts[..members.len()], IncrementCounter::No);
    let states = &mut states[..OUT_LEN * members.len()];
    platform().hash_many(fronts, &IV, counter, none, 0, CHUNK_START, 0, states);
    if members.len() > ALONE_MAX
        && tails::is_able()
        && last_blocks((&*states, &tails), members, (counter, CHUNK_END | root), hashes)
    {
        return;
    }
    for ((index, state), tail) in members.iter().zip(states.chunks_exact(OUT_LEN)).zip(tails) {
        hashes[*index] = last_block(words(&array(state)), tail, counter, CHUNK_END | root);
    }
}

/// The last blocks of the `members` of some chunks, from their states behind the blocks before; whether this processor can.
fn last_blocks(
    (before, last): (&[u8], &[&[u8]]),
    members: &[usize],
    (counter, flags): (u64, u8),
    hashes: &mut [Hash],
) -> bool {
    let mut tails = Tails { states: [[0; LANES]; 8], blocks: [[0; LANES]; BLOCK_LEN / 4], lens: [0; LANES] };
    for (lane, (state, bytes)) in before.chunks_exact(OUT_LEN).zip(last).enumerate() {
        for (row, word) in tails.states.iter_mut().zip(words(&array(state))) {
            row[lane] = word;
        }
        let mut block = [0; BLOCK_LEN];
        block[..bytes.len()].copy_from_slice(bytes);
        for (row, word) in tails.blocks.iter_mut().zip(block.chunks_exact(4)) {
            row[lane] = u32::from_le_bytes(array(word));
        }
        tails.lens[lane] = bytes.len() as u32;
    }
    if !tails::compress(&mut tails, counter, flags) {
        return false;
    }
    for (lane, index) in members.iter().enumerate() {
        for (bytes, row) in hashes[*index].0.chunks_exact_mut(4).zip(&tails.states) {
            bytes.copy_from_slice(&row[lane].to_le_bytes());
        }
    }
    true
}

/// The last block of a chunk.
fn last_block(mut state: [u32; 8], bytes: &[u8], counter: u64, flags: u8) -> Hash {
    let mut block = [0; BLOCK_LEN];
    block[..bytes.len()].copy_from_slice(bytes);
    platform().compress_in_place(&mut state, &block, bytes.len() as u8, counter, flags);
    let mut hash = Hash::default();
    for (bytes, word) in hash.0.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    hash
}

/// The bytes of the keyed hash of each block, in order.
pub(crate) fn keyed_each(key: &[u8; 32], blocks: &[[u8; BLOCK_LEN]]) -> Vec<[u8; OUT_LEN]> {
    let inputs: Vec<&[u8; BLOCK_LEN]> = blocks.iter().collect();
    let mut hashes = vec![[0; OUT_LEN]; blocks.len()];
    let (counter, out) = (IncrementCounter::No, hashes.as_flattened_mut());
    platform().hash_many(&inputs, &words(key), 0, counter, KEYED, CHUNK_START, CHUNK_END | ROOT, out);
    hashes
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
        let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
        assert_eq!(hash_each(&inputs), alone);
    }

    #[test]
    fn every_length_has_the_hash_that_it_has_alone() {
        check(0..0);
        check(0..3_200);
        for len in
            [1, 63, 64, 65, 128, 959, 960, 961, 1_000, 1_023, 1_024, 1_025, 1_088, 1_089, 2_047, 2_048, 2_049]
        {
            check((0..40).map(|_| len));
        }
        check((0..3_000).map(|n| n * 7_919 % 2_200));
    }

    #[test]
    fn every_number_of_blocks_has_the_keyed_hashes_that_they_have_alone() {
        let key = [9; 32];
        for count in 0..70 {
            let blocks: Vec<[u8; 64]> =
                (0..count).map(|seed| bytes(64, seed).try_into().unwrap_or([0; 64])).collect();
            let alone: Vec<[u8; 32]> =
                blocks.iter().map(|block| *blake3::keyed_hash(&key, block).as_bytes()).collect();
            assert_eq!(keyed_each(&key, &blocks), alone);
        }
    }
}
