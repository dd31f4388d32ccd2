//! The write-ahead log: a small commit becomes durable here with one write and one sync, and goes into redb by the block.
//!
//! A commit of redb costs some hundred microseconds, be it of one event or of a full block. So what is small is packed as
//! a block of its own, written as one record, and kept in memory, where readers find it; when a full block has come
//! together, or the space is used up, all of it goes into redb in one commit and the records begin anew from the front. A
//! record is overwritten only by one that is durable after that commit. At a start, what redb does not have is taken
//! from the records.
//!
//! The method is that of write-ahead logging with a memory table (P. O'Neil et al., *The Log-Structured Merge-Tree*,
//! Acta Informatica 33, 1996), with redb as the only level behind it.
//!
//! ```text
//! | magic "CxtE" | keys: u32 LE | first seq: u64 | length of the record: u64 | length of the body: u32 |
//! | length of the header: u32 | checksum: 8 | body | header | for each key: length: u32, length of its row: u32 |
//! | keys and rows | zeros up to a page |
//! ```
//!
//! Body and header are those of a block; they hold what proves the events. The checksum is XXH3 over everything but
//! itself, with a secret of the file as its seed: bytes of a user that look like a record are none.

use std::collections::HashMap;
use std::hash::Hasher as _;
use std::ops::Range;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use crate::id::Seq;
use crate::log::header::{HEADER_BYTES_MAX, array};
use crate::log::journal::PAGE;
use crate::log::open::{FORMAT_ROW, write_through};
use crate::log::store::{META, Own, StoreError};

/// The seed of a file's records, in its table about the log and once more in its superblocks. A file without it has the log's id for
/// one, which everybody may know.
pub(crate) const SEED_ROW: &str = "wal_seed";
/// Format of a file that has it: who knows only others would not find what stands in its write-ahead log.
pub(crate) const LOG_FORMAT_SEED: u32 = 4;
const MAGIC: [u8; 4] = *b"CxtE";
const FIXED_BYTES: usize = 40;
const CHECKSUM: Range<usize> = 32..40;
const KEY_LENGTHS_BYTES: usize = 8;
/// What is wrong with a file whose [`SEED_ROW`] is none.
pub(crate) const NO_SEED: &str = "the seed of its write-ahead log is none";

/// Distinguishes the records of one file from whatever else may stand in their place, such as what a user wrote there before.
#[derive(Clone, Copy)]
pub(crate) struct Seed(u64);

impl Seed {
    /// Of a file of the log with this id that has no secret.
    pub(crate) fn of(log_id: &[u8; 16]) -> Self {
        Self(u64::from_le_bytes(array(&log_id[8..])))
    }

    /// Of a file with this secret.
    pub(crate) const fn secret(secret: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(secret))
    }

    /// Of a file of the log with this id and this [`SEED_ROW`], if it has one; `None` where that is none.
    pub(crate) fn of_file(row: Option<&[u8]>, log_id: &[u8; 16]) -> Option<Self> {
        match row {
            Some(row) => row.try_into().ok().map(Self::secret),
            None => Some(Self::of(log_id)),
        }
    }

    /// Of the log's own file, which gets this secret where it has none. Its tables must have every event: from then on no record
    /// that was written before counts.
    pub(crate) fn settle(own: &Own, log_id: &[u8; 16], secret: Option<[u8; 8]>) -> Result<Self, StoreError> {
        let row = own.meta(SEED_ROW)?;
        match (own, &row, secret) {
            (Own::Writable(file), None, Some(secret)) => {
                // On the medium when this returns, and so before any record with this seed. The superblock comes behind the row: a
                // seed that is kept there and not in the tables would not be the one that records are written with.
                write_through(file, |transaction| {
                    let mut meta = transaction.open_table(META)?;
                    meta.insert(FORMAT_ROW, LOG_FORMAT_SEED.to_le_bytes().as_slice())?;
                    meta.insert(SEED_ROW, secret.as_slice())?;
                    Ok(())
                })?;
                file.journal.keep_seed(secret).map_err(StoreError::Io)?;
                Ok(Self::secret(secret))
            }
            (Own::Writable(_) | Own::ReadOnly(_), _, _) => {
                let seed = Self::of_file(row.as_deref(), log_id);
                let seed = seed.ok_or_else(|| StoreError::Damaged(NO_SEED.to_owned()))?;
                // Another program may have written the superblocks since.
                if let (Own::Writable(file), Some(_)) = (own, &row) {
                    file.journal.keep_seed(seed.0.to_le_bytes()).map_err(StoreError::Io)?;
                }
                Ok(seed)
            }
        }
    }
}

/// A block that lies in the write-ahead log and in memory.
#[derive(Debug)]
pub(crate) struct WalBlock {
    /// Position of its first event.
    pub first: Seq,
    record: Vec<u8>,
    body: Range<usize>,
    header: Range<usize>,
    /// Idempotency keys and where their rows are.
    keys: HashMap<String, Range<usize>>,
}

/// Blocks that redb does not have, the oldest first.
pub(crate) type Recent = Arc<Vec<Arc<WalBlock>>>;

/// Bytes of a record at the most, for a body of that length and these keys.
pub(crate) fn record_bytes_max(body: usize, keys: &[(String, Vec<u8>)]) -> u64 {
    let keys: usize = keys.iter().map(|(key, row)| KEY_LENGTHS_BYTES + key.len() + row.len()).sum();
    ((FIXED_BYTES + body + HEADER_BYTES_MAX + keys) as u64).next_multiple_of(PAGE)
}

impl WalBlock {
    /// The record of a block: `fill` writes its body in place and gives its header.
    pub(crate) fn build(
        seed: Seed,
        first: Seq,
        body_bytes: usize,
        keys: &[(String, Vec<u8>)],
        fill: impl FnOnce(&mut [u8]) -> Vec<u8>,
    ) -> Self {
        let body = FIXED_BYTES..FIXED_BYTES + body_bytes;
        let mut record = Vec::with_capacity(body.end + (1 << 10));
        record.resize(body.end, 0);
        let encoded = fill(&mut record[body.clone()]);
        record.extend_from_slice(&encoded);
        let header = body.end..record.len();
        for (key, row) in keys {
            record.extend_from_slice(&(key.len() as u32).to_le_bytes());
            record.extend_from_slice(&(row.len() as u32).to_le_bytes());
        }
        let mut places = HashMap::with_capacity(keys.len());
        for (key, row) in keys {
            record.extend_from_slice(key.as_bytes());
            places.insert(key.clone(), record.len()..record.len() + row.len());
            record.extend_from_slice(row);
        }
        record.resize(record.len().next_multiple_of(PAGE as usize), 0);
        record[..4].copy_from_slice(&MAGIC);
        record[4..8].copy_from_slice(&(keys.len() as u32).to_le_bytes());
        record[8..16].copy_from_slice(&first.0.to_le_bytes());
        let length = record.len() as u64;
        record[16..24].copy_from_slice(&length.to_le_bytes());
        record[24..28].copy_from_slice(&(body_bytes as u32).to_le_bytes());
        record[28..32].copy_from_slice(&(encoded.len() as u32).to_le_bytes());
        let checksum = checksum(seed, &record);
        record[CHECKSUM].copy_from_slice(&checksum);
        Self { first, record, body, header, keys: places }
    }

    /// Reads the record that `bytes` begin with; `None` where there is none, or a torn one.
    fn read(seed: Seed, bytes: &[u8]) -> Option<Self> {
        let fixed = bytes.get(..FIXED_BYTES).filter(|fixed| fixed[..4] == MAGIC)?;
        let length = usize::try_from(u64::from_le_bytes(array(&fixed[16..24]))).ok()?;
        let record = bytes.get(..length).filter(|record| record.len() >= FIXED_BYTES)?;
        if checksum(seed, record) != fixed[CHECKSUM] {
            return None;
        }
        // The checksum holds, so the lengths are those that were written; they are looked at all the same.
        let number = |at: usize| u32::from_le_bytes(array(&fixed[at..at + 4])) as usize;
        let (count, body_bytes, header_bytes) = (number(4), number(24), number(28));
        let body = FIXED_BYTES..FIXED_BYTES.checked_add(body_bytes)?;
        let header = body.end..body.end.checked_add(header_bytes)?;
        let lengths = header.end..header.end.checked_add(count.checked_mul(KEY_LENGTHS_BYTES)?)?;
        let mut at = lengths.end;
        let mut keys = HashMap::with_capacity(count.min(record.len()));
        for lengths in record.get(lengths)?.chunks_exact(KEY_LENGTHS_BYTES) {
            let key_bytes = u32::from_le_bytes(array(&lengths[..4])) as usize;
            let row_bytes = u32::from_le_bytes(array(&lengths[4..])) as usize;
            let key = std::str::from_utf8(record.get(at..at.checked_add(key_bytes)?)?).ok()?;
            let row = at + key_bytes..(at + key_bytes).checked_add(row_bytes)?;
            at = row.end;
            keys.insert(key.to_owned(), row);
        }
        let first = Seq(u64::from_le_bytes(array(&fixed[8..16])));
        (at <= length).then(|| Self { first, record: record.to_vec(), body, header, keys })
    }

    /// What stands in the file.
    pub(crate) fn record(&self) -> &[u8] {
        &self.record
    }

    /// The block's body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.record[self.body.clone()]
    }

    /// The block's header.
    pub(crate) fn header(&self) -> &[u8] {
        &self.record[self.header.clone()]
    }

    /// The row of an idempotency key.
    pub(crate) fn key_row(&self, key: &str) -> Option<&[u8]> {
        self.keys.get(key).map(|row| &self.record[row.clone()])
    }

    /// Every idempotency key with its row.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.keys.iter().map(|(key, row)| (key.as_str(), &self.record[row.clone()]))
    }
}

/// Every whole record of a write-ahead log as it is on the medium, live or not, in the order of their places.
pub(crate) fn records(seed: Seed, wal: &[u8]) -> Vec<Arc<WalBlock>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = wal.get(at..).filter(|rest| !rest.is_empty()) {
        at += match WalBlock::read(seed, rest) {
            Some(block) => {
                let length = block.record.len();
                found.push(Arc::new(block));
                length
            }
            None => PAGE as usize,
        };
    }
    found
}

/// How many places of a write-ahead log look like the beginning of a record of events behind `reached`: what may be lost where
/// nobody knows the seed.
pub(crate) fn unproven(wal: &[u8], reached: Seq) -> u64 {
    let pages = wal.chunks_exact(PAGE as usize);
    let begins =
        |page: &&[u8]| page.starts_with(&MAGIC) && u64::from_le_bytes(array(&page[8..16])) > reached.0;
    pages.filter(begins).count() as u64
}

fn checksum(seed: Seed, record: &[u8]) -> [u8; 8] {
    let mut hasher = XxHash3_64::with_seed(seed.0);
    hasher.write(&record[..CHECKSUM.start]);
    hasher.write(&record[CHECKSUM.end..]);
    hasher.finish().to_le_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::{Seed, WalBlock, record_bytes_max, records};
    use crate::Seq;
    use crate::log::header::HEADER_BYTES_MAX;
    use crate::log::journal::PAGE;

    const SEED: Seed = Seed(11);

    fn block(first: u64, body: &[u8], keys: &[(&str, &str)]) -> WalBlock {
        let keys: Vec<(String, Vec<u8>)> =
            keys.iter().map(|(key, row)| ((*key).to_owned(), row.as_bytes().to_vec())).collect();
        WalBlock::build(SEED, Seq(first), body.len(), &keys, |place| {
            place.copy_from_slice(body);
            format!("header of {first}").into_bytes()
        })
    }

    #[track_caller]
    fn check(found: &WalBlock, first: u64, body: &[u8], keys: &[(&str, &str)]) {
        assert_eq!((found.first, found.body()), (Seq(first), body));
        assert_eq!(found.header(), format!("header of {first}").as_bytes());
        assert_eq!(found.keys().len(), keys.len());
        for (key, row) in keys {
            assert_eq!(found.key_row(key), Some(row.as_bytes()));
        }
        assert_eq!(found.key_row("another"), None);
    }

    #[test]
    fn records_read_back_as_they_were_built_one_behind_the_other() {
        let long = vec![7; 9_000];
        let keys = [("a", "row of a"), ("", ""), ("b", "row of b")];
        let blocks = [block(1, b"one", &[]), block(2, &long, &keys), block(9, b"", &keys[..1])];
        let wal: Vec<u8> = blocks.iter().flat_map(|block| block.record().to_vec()).collect();
        assert_eq!(wal.len() as u64, 5 * PAGE);
        let found = records(SEED, &wal);
        assert_eq!(found.len(), 3);
        check(&found[0], 1, b"one", &[]);
        check(&found[1], 2, &long, &keys);
        check(&found[2], 9, b"", &keys[..1]);
        assert!(records(Seed(12), &wal).is_empty(), "records of another log are none");
    }

    #[test]
    fn a_torn_record_is_none_and_what_stands_behind_it_is_found() {
        let blocks = [block(1, &[1; 5_000], &[]), block(2, b"two", &[("k", "row")])];
        let wal: Vec<u8> = blocks.iter().flat_map(|block| block.record().to_vec()).collect();
        for at in (0..wal.len()).step_by(13) {
            let mut torn = wal.clone();
            torn[at] ^= 1;
            let whole = usize::from(at >= 2 * PAGE as usize);
            let found: Vec<u64> = records(SEED, &torn).iter().map(|block| block.first.0).collect();
            assert_eq!(found, [2 - whole as u64], "byte {at}");
            assert!(records(SEED, &wal[..at]).len() <= whole, "cut at {at}");
        }
    }

    #[test]
    fn a_record_takes_no_more_than_was_said() {
        let keys = [("some key".to_owned(), b"and its row".to_vec())];
        for body in [0, 1, 4_000, 70_000] {
            let block = WalBlock::build(SEED, Seq(1), body, &keys, |_| vec![1; HEADER_BYTES_MAX]);
            assert_eq!(block.record().len() as u64, record_bytes_max(body, &keys));
        }
    }
}
