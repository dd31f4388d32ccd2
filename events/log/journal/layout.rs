//! What is where in the file: two superblocks, the ring of records, the write-ahead log, and redb's pages behind them.
//!
//! All numbers are little-endian. A superblock: magic, format, generation, length of the ring, length of redb's part,
//! length of the write-ahead log, seed of its records (0: not kept), zeros, checksum of these. A record: magic, generation, number, length of redb's part, how many large writes it names, how
//! many pieces it holds, its own length, checksum of all of it but the checksum; then the table of what it names (offset,
//! length, checksum), the table of its pieces (offset, length) and their bytes, filled up to a page.

use std::collections::BTreeMap;
use std::hash::Hasher as _;

use twox_hash::XxHash3_64;

/// Everything in the file begins at a multiple of it, so that a torn write spoils nothing written before.
pub(crate) const PAGE: u64 = 4_096;
/// Where the ring begins.
pub(super) const RING: u64 = 2 * PAGE;
/// Length of the ring of a new file; the write-ahead log begins behind it. Tests have a small one, which is soon full.
pub(crate) const RING_BYTES: u64 = if cfg!(test) { 256 << 10 } else { (4 << 20) - RING };
/// Length of the write-ahead log of a new file; redb's part begins behind it. Tests have a small one too.
pub(crate) const WAL_BYTES: u64 = if cfg!(test) { 32 << 10 } else { 4 << 20 };
/// Version of this layout.
const LAYOUT: u32 = 2;
const SUPERBLOCK_MAGIC: [u8; 4] = *b"CxtS";
const RECORD_MAGIC: [u8; 4] = *b"CxtR";
pub(super) const SUPERBLOCK_BYTES: usize = 64;
const RECORD_HEADER_BYTES: usize = 64;
const NAMED_BYTES: usize = 24;
const PIECE_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 8;

/// XXH3 of what was written: it tells what was torn, and proves nothing.
pub(super) type Checksum = [u8; CHECKSUM_BYTES];

/// The checksum of bytes.
pub(super) fn checksum(bytes: &[u8]) -> Checksum {
    XxHash3_64::oneshot(bytes).to_le_bytes()
}

/// A large write that a record names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    pub len: u64,
    pub checksum: Checksum,
}

/// Says which records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    /// Records of this generation count, none before.
    pub generation: u64,
    pub ring_bytes: u64,
    /// Length of redb's part when the generation began.
    pub len: u64,
    pub wal_bytes: u64,
    /// Of the write-ahead log's records, once more than in the tables; 0 where it is not kept here.
    pub seed: u64,
}

impl Superblock {
    /// Where it goes: every second one to the same place, so that the one before stays until this one is whole.
    pub(super) const fn place(&self) -> u64 {
        Self::places()[(self.generation % 2) as usize]
    }

    /// Where superblocks are.
    pub(super) const fn places() -> [u64; 2] {
        [0, PAGE]
    }

    pub(super) fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[..4].copy_from_slice(&SUPERBLOCK_MAGIC);
        bytes[4..8].copy_from_slice(&LAYOUT.to_le_bytes());
        let numbers = [self.generation, self.ring_bytes, self.len, self.wal_bytes, self.seed];
        for (place, number) in (8..).step_by(8).zip(numbers) {
            bytes[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(&bytes[..SUPERBLOCK_BYTES - CHECKSUM_BYTES]);
        bytes[SUPERBLOCK_BYTES - CHECKSUM_BYTES..].copy_from_slice(&checksum);
        bytes
    }

    /// `None` when it is not one, or torn.
    pub(super) fn decode(bytes: &[u8; SUPERBLOCK_BYTES]) -> Option<Self> {
        let (body, stored) = bytes.split_at(SUPERBLOCK_BYTES - CHECKSUM_BYTES);
        let right =
            body[..4] == SUPERBLOCK_MAGIC && body[4..8] == LAYOUT.to_le_bytes() && checksum(body) == *stored;
        let superblock = Self {
            generation: number(body, 8),
            ring_bytes: number(body, 16),
            len: number(body, 24),
            wal_bytes: number(body, 32),
            seed: number(body, 40),
        };
        right.then_some(superblock)
    }

    /// Where the write-ahead log begins.
    pub(super) const fn wal(&self) -> u64 {
        RING + self.ring_bytes
    }

    /// Where redb's part begins.
    pub(super) const fn home(&self) -> u64 {
        self.wal() + self.wal_bytes
    }
}

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub generation: u64,
    /// From 1 in each generation.
    pub number: u64,
    /// Length of redb's part.
    pub len: u64,
}

/// A record that was read.
#[derive(Debug)]
pub(super) struct Record {
    pub header: RecordHeader,
    pub named: BTreeMap<u64, Named>,
    /// Where a piece goes, and where its bytes are in the record.
    pieces: Vec<(u64, std::ops::Range<usize>)>,
    bytes: Vec<u8>,
}

impl RecordHeader {
    /// Builds the record in `record`, but for its checksum: see [`put_checksum`].
    pub(super) fn encode<'a>(
        &self,
        record: &mut Vec<u8>,
        pieces: impl Iterator<Item = (u64, &'a [u8])>,
        named: &BTreeMap<u64, Named>,
    ) {
        let pieces: Vec<(u64, &[u8])> = pieces.collect();
        record.clear();
        record.resize(RECORD_HEADER_BYTES, 0);
        for (offset, named) in named {
            record.extend_from_slice(&offset.to_le_bytes());
            record.extend_from_slice(&named.len.to_le_bytes());
            record.extend_from_slice(&named.checksum);
        }
        for (offset, bytes) in &pieces {
            record.extend_from_slice(&offset.to_le_bytes());
            record.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        }
        for (_, bytes) in &pieces {
            record.extend_from_slice(bytes);
        }
        record.resize(record.len().next_multiple_of(PAGE as usize), 0);
        let length = record.len() as u64;
        record[..4].copy_from_slice(&RECORD_MAGIC);
        let counts = (named.len() as u64, pieces.len() as u64);
        for (place, number) in
            [self.generation, self.number, self.len, counts.0, counts.1, length].into_iter().enumerate()
        {
            record[8 + place * 8..16 + place * 8].copy_from_slice(&number.to_le_bytes());
        }
    }
}

/// Completes a record that was built.
pub(super) fn put_checksum(record: &mut [u8]) {
    let checksum = record_checksum(record);
    record[RECORD_HEADER_BYTES - CHECKSUM_BYTES..RECORD_HEADER_BYTES].copy_from_slice(&checksum);
}

/// Of everything but the place of the checksum itself.
fn record_checksum(record: &[u8]) -> Checksum {
    let mut hasher = XxHash3_64::new();
    hasher.write(&record[..RECORD_HEADER_BYTES - CHECKSUM_BYTES]);
    hasher.write(&record[RECORD_HEADER_BYTES..]);
    hasher.finish().to_le_bytes()
}

impl Record {
    /// Reads the record at `position` in the ring; `None` where there is none, or a torn one.
    pub(super) fn read(ring: &[u8], position: u64) -> Option<Self> {
        let rest = ring.get(position as usize..)?;
        let header = rest.get(..RECORD_HEADER_BYTES)?;
        let length = usize::try_from(number(header, 48)).ok()?;
        let bytes = rest.get(..length).filter(|bytes| bytes.len() >= RECORD_HEADER_BYTES)?;
        let stored = &header[RECORD_HEADER_BYTES - CHECKSUM_BYTES..];
        if header[..4] != RECORD_MAGIC || record_checksum(bytes) != *stored {
            return None;
        }
        let header =
            RecordHeader { generation: number(bytes, 8), number: number(bytes, 16), len: number(bytes, 24) };
        // The checksum holds, so the tables are those that were written.
        let (named_count, piece_count) = (number(bytes, 32) as usize, number(bytes, 40) as usize);
        let table = &bytes[RECORD_HEADER_BYTES..];
        let (named, table) = table.split_at_checked(named_count.checked_mul(NAMED_BYTES)?)?;
        let (pieces, _) = table.split_at_checked(piece_count.checked_mul(PIECE_BYTES)?)?;
        let named = named.chunks_exact(NAMED_BYTES).map(|row| {
            (number(row, 0), Named { len: number(row, 8), checksum: number(row, 16).to_le_bytes() })
        });
        let mut at = RECORD_HEADER_BYTES + named_count * NAMED_BYTES + piece_count * PIECE_BYTES;
        let pieces = pieces.chunks_exact(PIECE_BYTES).map(|row| {
            let start = at;
            at = at.checked_add(number(row, 8) as usize)?;
            (at <= length).then_some((number(row, 0), start..at))
        });
        let pieces = pieces.collect::<Option<_>>()?;
        Some(Self { header, named: named.collect(), pieces, bytes: bytes.to_vec() })
    }

    /// Bytes it takes in the ring.
    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Its pieces with their offsets.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(offset, range)| (*offset, &self.bytes[range.clone()]))
    }
}

fn number(bytes: &[u8], place: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[place..place + 8]);
    u64::from_le_bytes(eight)
}
