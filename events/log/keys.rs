//! The rows of idempotency keys.
//!
//! `| fingerprint: 32 | first seq: u64 LE | last seq: u64 | recorded at, µs: u64 | answer | checksum: 16 |`. The
//! checksum is the front of the BLAKE3 hash of the key's length, the key and everything before it.

use crate::id::Seq;
use crate::log::header::array;
use crate::log::reader::KeyRow;
use crate::time::Timestamp;

const FIXED_BYTES: usize = 56;
const CHECKSUM_BYTES: usize = 16;

/// The row as it is stored under `key`.
pub(crate) fn encode(key: &str, row: &KeyRow) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + row.answer.len() + CHECKSUM_BYTES);
    bytes.extend_from_slice(&row.fingerprint);
    for number in [row.first.0, row.last.0, row.recorded_at.unix_micros()] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&row.answer);
    let checksum = checksum(key, &bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Reads the row stored under `key`; `None` if it is not what was written.
pub(crate) fn decode(key: &str, bytes: &[u8]) -> Option<KeyRow> {
    let (row, stored) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if row.len() < FIXED_BYTES || checksum(key, row) != *stored {
        return None;
    }
    let (fixed, answer) = row.split_at(FIXED_BYTES);
    Some(KeyRow {
        fingerprint: array(&fixed[..32]),
        first: Seq(u64::from_le_bytes(array(&fixed[32..40]))),
        last: Seq(u64::from_le_bytes(array(&fixed[40..48]))),
        recorded_at: Timestamp::from_unix_micros(u64::from_le_bytes(array(&fixed[48..56]))),
        answer: answer.to_vec(),
    })
}

fn checksum(key: &str, row: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key.as_bytes()).update(row);
    array(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES])
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use crate::log::reader::KeyRow;
    use crate::{Seq, Timestamp};

    #[test]
    fn a_row_reads_back_under_its_key_alone_and_no_bit_can_change_unseen() {
        let row = KeyRow {
            fingerprint: [5; 32],
            first: Seq(3),
            last: Seq(9),
            recorded_at: Timestamp::from_unix_micros(77),
            answer: b"201".to_vec(),
        };
        let bytes = encode("a", &row);
        assert_eq!(decode("a", &bytes), Some(row));
        assert_eq!(decode("b", &bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode("a", &flipped), None, "bit {bit}");
        }
    }
}
