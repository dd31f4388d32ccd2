//! Merging small blocks: lone appends make lone blocks, and a lone block costs many times its events in pages.
//!
//! Events keep their positions, times and hashes, so every root stays. Each event is moved about three times at most:
//! tiny blocks by the dozen into small ones, small ones into a full one, full ones never again.

use std::collections::VecDeque;

use redb::{ReadableTable, WriteTransaction};

use crate::codec;
use crate::id::Seq;
use crate::limits::BLOCK_BYTES_MAX;
use crate::log::block::{Block, ENTRY_BYTES, Entry, Stored};
use crate::log::bloom::{Item, item_hash};
use crate::log::chain::hash;
use crate::log::header::Header;
use crate::log::pack::{BlockPlace, ChainEnd, Summary};
use crate::log::sealing::opened::envelope_bytes;
use crate::log::store::{BODIES, HEADERS, Snapshot, StoreError};
use crate::log::{blocks, scan::ReadError};

/// Blocks below this are tiny.
const TINY_BYTES: usize = 8 << 10;
/// So many tiny blocks in a row are merged.
const TINY_RUN: usize = 64;
/// Blocks from this size on are full: they are never merged.
const FULL_BYTES: usize = BLOCK_BYTES_MAX / 2;
/// So many small blocks are written while a merge is due before it is made although others wait.
const PASSED_OVER_MAX: usize = 64;
/// Headers looked at when the log is opened, to find what can be merged.
const LOOK_BACK_MAX: usize = 4_096;

/// The small blocks at the end of the log, in order and without a gap.
#[derive(Debug, Default)]
pub(crate) struct SmallRun {
    blocks: VecDeque<BlockPlace>,
    /// What they take. Kept, as the next number is, since both are asked for at each step of the writer.
    bytes: usize,
    /// How many tiny ones there are in a row at the end.
    tiny: usize,
    /// How many were taken in while a merge was due.
    passed_over: usize,
}

impl SmallRun {
    /// The run at the end of an existing log.
    pub(crate) fn find(snapshot: &Snapshot) -> Result<Self, ReadError> {
        let mut headers = snapshot.headers_until(Seq(u64::MAX))?;
        let mut run = Self::default();
        while run.blocks.len() < LOOK_BACK_MAX
            && let Some((first, value)) = blocks::next_header(&mut headers, true)?
        {
            let bytes = blocks::read_header(first, &value)?.body_bytes as usize;
            if bytes >= FULL_BYTES || first <= snapshot.past.through() {
                break;
            }
            run.blocks.push_front(BlockPlace { first, bytes });
        }
        run.count();
        Ok(run)
    }

    /// Counts anew what is in the run.
    fn count(&mut self) {
        self.bytes = self.blocks.iter().map(|place| place.bytes).sum();
        self.tiny = self.blocks.iter().rev().take_while(|place| place.bytes < TINY_BYTES).count();
        self.passed_over = 0;
    }

    /// Takes in a block that was written at the end.
    pub(crate) fn note(&mut self, place: BlockPlace) {
        if place.bytes >= FULL_BYTES {
            self.blocks.clear();
            return self.count();
        }
        self.passed_over += usize::from(self.is_due());
        self.blocks.push_back(place);
        self.bytes += place.bytes;
        self.tiny = if place.bytes < TINY_BYTES { self.tiny + 1 } else { 0 };
    }

    /// The blocks to merge next: neighbours, at least two, together no larger than a block may be.
    fn due(&self) -> Option<std::ops::Range<usize>> {
        if self.tiny >= TINY_RUN {
            let start = self.blocks.len() - self.tiny;
            return Some(start..self.fitting(start));
        }
        self.is_due().then(|| 0..self.fitting(0))
    }

    /// The end of the longest run from `start` that fits into one block.
    fn fitting(&self, start: usize) -> usize {
        let mut bytes = 0;
        let fits = self.blocks.range(start..).take_while(|place| {
            bytes += place.bytes;
            bytes <= BLOCK_BYTES_MAX
        });
        start + fits.count()
    }

    /// Whether a merge is worth its commit.
    pub(crate) fn is_due(&self) -> bool {
        self.tiny >= TINY_RUN || self.bytes >= BLOCK_BYTES_MAX
    }

    /// Whether one that is due was passed over for too long.
    pub(crate) fn is_overdue(&self) -> bool {
        self.passed_over >= PASSED_OVER_MAX
    }

    /// Merges what is due within `transaction`.
    ///
    /// Damaged blocks are left as they are, for `verify` to name: merging must not bless them.
    pub(crate) fn merge(&mut self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let Some(range) = self.due() else {
            return Ok(());
        };
        let places: Vec<BlockPlace> = self.blocks.range(range.clone()).copied().collect();
        match merge_blocks(transaction, &places)? {
            Ok(merged) => {
                // What lies before a full block has no neighbour left to merge with but what lies before it.
                if merged.bytes >= FULL_BYTES {
                    self.blocks.drain(..range.end);
                } else {
                    self.blocks.drain(range.start + 1..range.end);
                    self.blocks[range.start] = merged;
                }
            }
            Err(Damaged) => self.blocks.clear(),
        }
        self.count();
        Ok(())
    }
}

/// A block was not what its header says.
struct Damaged;

/// One block and its header, copied out.
struct Loaded {
    header: Vec<u8>,
    body: Vec<u8>,
}

fn load(transaction: &WriteTransaction, places: &[BlockPlace]) -> Result<Option<Vec<Loaded>>, StoreError> {
    let (headers, bodies) = (transaction.open_table(HEADERS)?, transaction.open_table(BODIES)?);
    let mut loaded = Vec::with_capacity(places.len());
    for place in places {
        let (Some(header), Some(body)) = (headers.get(place.first.0)?, bodies.get(place.first.0)?) else {
            return Ok(None);
        };
        loaded.push(Loaded { header: header.value().to_vec(), body: body.value().to_vec() });
    }
    Ok(Some(loaded))
}

fn merge_blocks(
    transaction: &WriteTransaction,
    places: &[BlockPlace],
) -> Result<Result<BlockPlace, Damaged>, StoreError> {
    let Some(loaded) = load(transaction, places)? else {
        return Ok(Err(Damaged));
    };
    let Some((first, header, body)) = join(places, &loaded) else {
        return Ok(Err(Damaged));
    };
    let (mut headers, mut bodies) = (transaction.open_table(HEADERS)?, transaction.open_table(BODIES)?);
    for place in places {
        headers.remove(place.first.0)?;
        bodies.remove(place.first.0)?;
    }
    headers.insert(first.0, header.as_slice())?;
    bodies.insert(first.0, body.as_slice())?;
    Ok(Ok(BlockPlace { first, bytes: body.len() }))
}

/// The header and body of one block that holds all events of `loaded`; `None` if any of them is damaged.
fn join(places: &[BlockPlace], loaded: &[Loaded]) -> Option<(Seq, Vec<u8>, Vec<u8>)> {
    let headers: Vec<Header<'_>> = places
        .iter()
        .zip(loaded)
        .map(|(place, loaded)| Header::decode(place.first, &loaded.header).ok())
        .collect::<Option<_>>()?;
    let chained =
        |pair: &[Header<'_>]| pair[0].last().next() == pair[1].first && pair[0].root == pair[1].prev_root;
    if !headers.windows(2).all(chained) {
        return None;
    }
    let (front, back) = (headers.first()?, headers.last()?);
    let count: u32 = headers.iter().map(|header| header.count).sum();
    let mut body = Vec::with_capacity(loaded.iter().map(|loaded| loaded.body.len()).sum());
    let mut stored = Vec::new();
    let mut summary = Summary::default();
    for (header, loaded) in headers.iter().zip(loaded) {
        let block = Block::open(header, &loaded.body).ok()?;
        for index in 0..block.count() {
            let entry = block.entry(index);
            // Read before it is moved: what is damaged stays where it is.
            let items = filter_items(&block, index).ok()?;
            stored.extend_from_slice(block.raw(index)?);
            let time_delta = block.recorded_at(&entry).unix_micros() - front.first_at.unix_micros();
            body.extend_from_slice(&Entry { time_delta, body_end: stored.len() as u32, ..entry }.encode());
            summary.add(entry.tag.kind, items);
        }
    }
    debug_assert_eq!(body.len(), count as usize * ENTRY_BYTES);
    let entries_hash = hash(&body);
    body.extend_from_slice(&stored);
    let end =
        ChainEnd { frontier: back.frontier()?, bytes_through: back.bytes_through, recorded_at: back.last_at };
    let times = (front.first_at, back.last_at);
    let hashes = (front.prev_root, entries_hash);
    Some((front.first, summary.header(front.first, (count, &body), times, hashes, &end), body))
}

/// What the filter of a block knows of an event, whose bytes are checked on the way: nothing of one that was erased with
/// its envelope.
pub(crate) fn filter_items(block: &Block<'_>, index: usize) -> Result<[u64; 3], String> {
    let Stored::Bytes(stored) = block.stored(index).map_err(str::to_owned)? else { return Ok([0; 3]) };
    let event = envelope_bytes(stored, block.entry(index).tag).map_err(str::to_owned)?;
    let (envelope, _) = codec::decode_envelope(&event).map_err(|error| error.to_string())?;
    let correlation = envelope.correlation.map_or(0, |text| item_hash(Item::Correlation, text));
    Ok([item_hash(Item::Stream, envelope.stream), item_hash(Item::Actor, envelope.actor), correlation])
}

#[cfg(test)]
mod tests {
    use super::{BlockPlace, FULL_BYTES, PASSED_OVER_MAX, SmallRun, TINY_BYTES, TINY_RUN};
    use crate::Seq;
    use crate::log::tests::Random;

    fn note(run: &mut SmallRun, bytes: usize) {
        run.note(BlockPlace { first: Seq::FIRST, bytes });
    }

    #[test]
    fn what_is_kept_of_a_run_is_what_a_walk_over_it_would_count() {
        let (mut random, mut run) = (Random::new(5), SmallRun::default());
        let mut runs_due = 0;
        for n in 0..20_000 {
            let sizes = [1, TINY_BYTES - 1, TINY_BYTES, FULL_BYTES - 1, FULL_BYTES];
            // For a while there are only tiny ones.
            let kinds = if n / 100 % 2 == 0 { 2 } else { sizes.len() as u64 };
            note(&mut run, sizes[random.below(kinds) as usize]);
            let mut counted = SmallRun { blocks: run.blocks.clone(), ..SmallRun::default() };
            counted.count();
            assert_eq!((run.bytes, run.tiny), (counted.bytes, counted.tiny), "after {n}");
            assert_eq!(run.is_due(), run.due().is_some_and(|range| range.len() >= 2), "after {n}");
            runs_due += usize::from(run.is_due());
        }
        assert!((1_000..19_000).contains(&runs_due), "{runs_due}");
    }

    #[test]
    fn a_merge_that_is_passed_over_becomes_overdue() {
        let mut run = SmallRun::default();
        for _ in 0..TINY_RUN {
            assert!(!run.is_due());
            note(&mut run, 100);
        }
        for _ in 0..PASSED_OVER_MAX {
            assert!(run.is_due() && !run.is_overdue());
            note(&mut run, 100);
        }
        assert!(run.is_overdue());
        note(&mut run, FULL_BYTES);
        assert!(!run.is_due() && !run.is_overdue(), "nothing is left before a full block");
    }
}
