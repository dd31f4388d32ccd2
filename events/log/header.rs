//! The header of a block: its place in the chain, and what a reader needs to pass it over.
//!
//! ```text
//! | magic "CXBH" | format: u16 LE | filter length: u16 LE | first seq: u64 | count: u32 | body length: u32 |
//! | first time, µs: u64 | last time: u64 | stored bytes through this block: u64 | kinds: u128 |
//! | root before: 32 | root after: 32 | hash of the entries: 32 | peaks after: 32 each | filter |
//! | checksum of the body: u64 LE | checksum: 16 |
//! ```
//!
//! There are as many peaks as the last seq has ones in binary. The last checksum is the front of the BLAKE3 hash of
//! everything before it. The checksum of the body (XXH3) tells whoever only reads that no bit of the block has changed,
//! at a fraction of what hashing each event takes; what was changed with intent is for `verify` to find, which goes by
//! the hashes alone. Headers of format 1 have none.

use crate::id::Seq;
use crate::log::bloom;
use crate::log::chain::{Frontier, Hash, hash};
use crate::time::Timestamp;

/// What a header begins with.
pub(crate) const MAGIC: &[u8; 4] = b"CXBH";
/// The format of headers and blocks written here.
pub(crate) const BLOCK_FORMAT: u16 = 2;
/// The format that knows no checksum of the body.
const FORMAT_WITHOUT_CHECKSUM: u16 = 1;
const FIXED_BYTES: usize = 160;
const BODY_CHECKSUM_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 16;
/// Longest header: with as many peaks as there can be, and the largest filter.
pub(crate) const HEADER_BYTES_MAX: usize =
    FIXED_BYTES + u64::BITS as usize * 32 + bloom::FILTER_BYTES_MAX + BODY_CHECKSUM_BYTES + CHECKSUM_BYTES;

/// What is known about a block without reading its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub first: Seq,
    pub count: u32,
    /// Length of the whole body: entries and stored events.
    pub body_bytes: u32,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    /// Stored bytes of all events from the first of the log to the last of this block.
    pub bytes_through: u64,
    /// Bit `tag` is set for each kind in the block.
    pub kinds: u128,
    pub prev_root: Hash,
    pub root: Hash,
    pub entries_hash: Hash,
    /// The frontier after the block, 32 bytes a peak.
    pub peaks: &'a [u8],
    pub filter: &'a [u8],
    /// XXH3 of the body; `None` in headers of format 1.
    pub body_checksum: Option<u64>,
}

impl<'a> Header<'a> {
    /// Position of the last event.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }

    /// The frontier to go on from after this block.
    pub(crate) fn frontier(&self) -> Option<Frontier> {
        let peaks = self.peaks.chunks_exact(32).map(|peak| Hash(array(peak))).collect();
        Frontier::from_peaks(self.last().0, peaks)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let more = self.peaks.len() + self.filter.len() + BODY_CHECKSUM_BYTES + CHECKSUM_BYTES;
        let mut bytes = Vec::with_capacity(FIXED_BYTES + more);
        let format = self.body_checksum.map_or(FORMAT_WITHOUT_CHECKSUM, |_| BLOCK_FORMAT);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&format.to_le_bytes());
        bytes.extend_from_slice(&(self.filter.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&self.first.0.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.body_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.first_at.unix_micros().to_le_bytes());
        bytes.extend_from_slice(&self.last_at.unix_micros().to_le_bytes());
        bytes.extend_from_slice(&self.bytes_through.to_le_bytes());
        bytes.extend_from_slice(&self.kinds.to_le_bytes());
        bytes.extend_from_slice(&self.prev_root.0);
        bytes.extend_from_slice(&self.root.0);
        bytes.extend_from_slice(&self.entries_hash.0);
        bytes.extend_from_slice(self.peaks);
        bytes.extend_from_slice(self.filter);
        if let Some(checksum) = self.body_checksum {
            bytes.extend_from_slice(&checksum.to_le_bytes());
        }
        let checksum = hash(&bytes);
        bytes.extend_from_slice(&checksum.0[..CHECKSUM_BYTES]);
        bytes
    }

    /// Reads the header of the block stored at `first`; the error says what does not fit.
    pub(crate) fn decode(first: Seq, bytes: &'a [u8]) -> Result<Self, &'static str> {
        let Some((checked, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err("the header is cut short");
        };
        if checked.len() < FIXED_BYTES || !checked.starts_with(MAGIC) {
            return Err("the header is cut short or of another format");
        }
        if hash(checked).0[..CHECKSUM_BYTES] != *checksum {
            return Err("the header does not match its checksum");
        }
        let (checked, body_checksum) = match u16::from_le_bytes(array(&checked[4..6])) {
            FORMAT_WITHOUT_CHECKSUM => (checked, None),
            BLOCK_FORMAT => match checked.split_last_chunk::<BODY_CHECKSUM_BYTES>() {
                Some((before, checksum)) if before.len() >= FIXED_BYTES => {
                    (before, Some(u64::from_le_bytes(*checksum)))
                }
                Some(_) | None => return Err("the header is cut short"),
            },
            _ => return Err("the block has a format this program does not know; use a newer Caxton"),
        };
        let filter_bytes = usize::from(u16::from_le_bytes(array(&checked[6..8])));
        let count = u32::from_le_bytes(array(&checked[16..20]));
        let (fixed, rest) = checked.split_at(FIXED_BYTES);
        let Some((peaks, filter)) = rest.split_at_checked(rest.len().saturating_sub(filter_bytes)) else {
            return Err("the header is cut short");
        };
        let header = Self {
            first: Seq(u64::from_le_bytes(array(&fixed[8..16]))),
            count,
            body_bytes: u32::from_le_bytes(array(&fixed[20..24])),
            first_at: Timestamp::from_unix_micros(u64::from_le_bytes(array(&fixed[24..32]))),
            last_at: Timestamp::from_unix_micros(u64::from_le_bytes(array(&fixed[32..40]))),
            bytes_through: u64::from_le_bytes(array(&fixed[40..48])),
            kinds: u128::from_le_bytes(array(&fixed[48..64])),
            prev_root: Hash(array(&fixed[64..96])),
            root: Hash(array(&fixed[96..128])),
            entries_hash: Hash(array(&fixed[128..160])),
            peaks,
            filter,
            body_checksum,
        };
        if header.first != first {
            return Err("the block lies at another position than its header says");
        }
        if count == 0 || first == Seq::ZERO || first.0.checked_add(u64::from(count)).is_none() {
            return Err("the header counts no events");
        }
        if filter.len() != filter_bytes || !bloom::is_well_formed(filter) {
            return Err("the header's filter has a wrong length");
        }
        if peaks.len() != 32 * header.last().0.count_ones() as usize {
            return Err("the header has a wrong number of peaks");
        }
        Ok(header)
    }
}

/// The bytes as an array; `bytes` has exactly `N`, which every caller cuts by constants.
pub(crate) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::Header;
    use crate::log::chain::{Frontier, Hash, hash};
    use crate::{Seq, Timestamp};

    #[test]
    fn a_header_reads_back_and_no_bit_of_it_can_change_unseen() {
        let mut frontier = Frontier::default();
        for n in 0..11_u8 {
            frontier.push(hash(&[n]));
        }
        let peaks: Vec<u8> = frontier.peaks().iter().flat_map(|peak| peak.0).collect();
        let header = Header {
            first: Seq(9),
            count: 3,
            body_bytes: 999,
            first_at: Timestamp::from_unix_micros(1),
            last_at: Timestamp::from_unix_micros(2),
            bytes_through: 12_345,
            kinds: 0b110,
            prev_root: Hash([1; 32]),
            root: frontier.root(),
            entries_hash: Hash([3; 32]),
            peaks: &peaks,
            filter: &[7; 8],
            body_checksum: Some(0x0102_0304_0506_0708),
        };
        assert_eq!(header.frontier(), Some(frontier));
        check(&header);
        check(&Header { body_checksum: None, ..header });
    }

    #[track_caller]
    fn check(header: &Header<'_>) {
        let bytes = header.encode();
        assert_eq!(Header::decode(Seq(9), &bytes).as_ref(), Ok(header));
        assert!(Header::decode(Seq(8), &bytes).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(Seq(9), &flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Header::decode(Seq(9), &bytes[..len]).is_err(), "cut to {len}");
        }
    }
}
