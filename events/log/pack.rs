//! Placed batches as blocks: where to cut, and what each block and its header hold.

use redb::WriteTransaction;

use crate::id::Seq;
use crate::limits::BLOCK_BYTES_MAX;
use crate::log::block::{ENTRY_BYTES, Entry, checksum};
use crate::log::bloom;
use crate::log::chain::{Frontier, Hash, hash, leaves};
use crate::log::header::Header;
use crate::log::prepare::{Prepared, PreparedEvent};
use crate::log::store::{BODIES, HEADERS, StoreError};
use crate::time::Timestamp;

/// What the store keeps beside a value in its page.
const STORE_OVERHEAD_BYTES: usize = (256 << 10) - BLOCK_BYTES_MAX;
/// A block that would leave more than a quarter of its page empty is cut at half the page, down to this page size.
const PAGE_BYTES_CUT_MIN: usize = 64 << 10;

/// The end of the chain, as the writer carries it from commit to commit.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChainEnd {
    pub frontier: Frontier,
    pub bytes_through: u64,
    pub recorded_at: Timestamp,
}

/// A block that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    pub first: Seq,
    pub bytes: usize,
}

/// How many bytes the next block should take when `remaining` are left to place.
///
/// The store gives each value a page of a power of two, so a block that fills little more than half of one is cut.
fn target_bytes(remaining: usize) -> usize {
    if remaining >= BLOCK_BYTES_MAX {
        return BLOCK_BYTES_MAX;
    }
    let page = (remaining + STORE_OVERHEAD_BYTES).next_power_of_two();
    if page > PAGE_BYTES_CUT_MIN && remaining <= page / 4 * 3 {
        page / 2 - STORE_OVERHEAD_BYTES
    } else {
        remaining
    }
}

/// A place within the placed batches: batch, event in it, byte in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    batch: usize,
    event: usize,
    byte: usize,
}

impl Cursor {
    fn event<'a>(&self, batches: &'a [Prepared]) -> Option<&'a PreparedEvent> {
        batches.get(self.batch).and_then(|batch| batch.events.get(self.event))
    }

    fn advance(&mut self, batches: &[Prepared], event: &PreparedEvent) {
        self.event += 1;
        self.byte += event.len as usize;
        if self.event == batches[self.batch].events.len() {
            *self = Self { batch: self.batch + 1, event: 0, byte: 0 };
        }
    }
}

/// Writes all events of `batches` as blocks at the end of the chain, in order. `body` is memory to put them together in, which
/// may hold whatever was there before.
pub(crate) fn pack(
    transaction: &WriteTransaction,
    batches: &[Prepared],
    end: &mut ChainEnd,
    body: &mut Vec<u8>,
) -> Result<Vec<BlockPlace>, StoreError> {
    let mut headers = transaction.open_table(HEADERS)?;
    let mut bodies = transaction.open_table(BODIES)?;
    let mut remaining: usize = batches.iter().map(Prepared::block_bytes).sum();
    let mut places = Vec::new();
    let mut cursor = Cursor::default();
    while cursor.event(batches).is_some() {
        let target = target_bytes(remaining);
        let (mut until, mut count, mut bytes) = (cursor, 0_u32, 0);
        while let Some(event) = until.event(batches) {
            let with_it = bytes + ENTRY_BYTES + event.len as usize;
            if with_it > target && count > 0 {
                break;
            }
            until.advance(batches, event);
            (bytes, count) = (with_it, count + 1);
        }
        let first = Seq(end.frontier.count() + 1);
        let cut = Cut { batches, from: cursor, until, count };
        if body.len() < bytes {
            body.resize(bytes, 0);
        }
        let body = &mut body[..bytes];
        let header = cut.fill(body, first, end);
        // Not reserved and filled in place: redb would make as much memory of zeros, and copy these into its page first.
        bodies.insert(first.0, &*body)?;
        headers.insert(first.0, header.as_slice())?;
        places.push(BlockPlace { first, bytes });
        remaining -= bytes;
        cursor = until;
    }
    Ok(places)
}

/// All events of `batches` as one block at the end of the chain: fills `body`, which has room for exactly these, and
/// gives the encoded header.
pub(crate) fn pack_one(batches: &[Prepared], body: &mut [u8], end: &mut ChainEnd) -> Vec<u8> {
    let count = batches.iter().map(|batch| batch.events.len() as u32).sum();
    let until = Cursor { batch: batches.len(), ..Cursor::default() };
    let cut = Cut { batches, from: Cursor::default(), until, count };
    cut.fill(body, Seq(end.frontier.count() + 1), end)
}

/// The events of one block.
struct Cut<'a> {
    batches: &'a [Prepared],
    from: Cursor,
    until: Cursor,
    count: u32,
}

impl Cut<'_> {
    /// Fills the body in place, moves the end of the chain, and gives the encoded header.
    fn fill(&self, body: &mut [u8], first: Seq, end: &mut ChainEnd) -> Vec<u8> {
        let (entries, stored) = body.split_at_mut(self.count as usize * ENTRY_BYTES);
        let prev_root = end.frontier.root();
        let first_at = self.batches.get(self.from.batch).map_or(end.recorded_at, |batch| batch.recorded_at);
        let mut summary = Summary::default();
        let (mut cursor, mut stored_end) = (self.from, 0_usize);
        // Events of the same moment, whose leaves are added together.
        let (mut run, mut run_first) = (Vec::with_capacity(self.count as usize), first);
        end.recorded_at = first_at;
        for slot in entries.chunks_exact_mut(ENTRY_BYTES) {
            let Some(event) = cursor.event(self.batches) else {
                break;
            };
            let at = self.batches[cursor.batch].recorded_at;
            if at != end.recorded_at {
                end.frontier.extend(leaves(run_first, end.recorded_at, run.iter()));
                (run_first, end.recorded_at) = (Seq(run_first.0 + run.len() as u64), at);
                run.clear();
            }
            stored_end += event.len as usize;
            let entry = Entry {
                time_delta: at.unix_micros() - first_at.unix_micros(),
                body_end: stored_end as u32,
                tag: event.tag,
                body_hash: event.body_hash,
            };
            slot.copy_from_slice(&entry.encode());
            run.push((event.tag, event.body_hash));
            summary.add(event.tag.kind, event.items);
            cursor.advance(self.batches, event);
        }
        end.frontier.extend(leaves(run_first, end.recorded_at, run.iter()));
        copy_bodies(self, stored);
        end.bytes_through += stored.len() as u64;
        let (times, hashes) = ((first_at, end.recorded_at), (prev_root, hash(entries)));
        summary.header(first, (self.count, body), times, hashes, end)
    }
}

/// Copies the stored events of a cut: one run of bytes for each batch it touches.
fn copy_bodies(cut: &Cut<'_>, mut into: &mut [u8]) {
    let mut start = cut.from.byte;
    for batch in cut.from.batch..=cut.until.batch {
        let Some(prepared) = cut.batches.get(batch) else {
            break;
        };
        let stop = if batch == cut.until.batch { cut.until.byte } else { prepared.bytes.len() };
        let (run, rest) = into.split_at_mut(stop - start);
        run.copy_from_slice(&prepared.bytes[start..stop]);
        (into, start) = (rest, 0);
    }
}

/// What a header says about the events of its block.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    kinds: u128,
    items: Vec<u64>,
    newest: [u64; 3],
}

impl Summary {
    /// Takes in one event: the number of its kind (below 128) and its filter items, 0 for none.
    pub(crate) fn add(&mut self, kind: u8, items: [u64; 3]) {
        self.kinds |= 1_u128.checked_shl(u32::from(kind)).unwrap_or(0);
        // Neighbours mostly share their stream and actor; what is left is taken out by the filter.
        for (item, newest) in items.into_iter().zip(&mut self.newest) {
            if item != *newest && item != 0 {
                self.items.push(item);
                *newest = item;
            }
        }
    }

    /// The encoded header of the block with this body, which ends the chain at `end`.
    pub(crate) fn header(
        self,
        first: Seq,
        (count, body): (u32, &[u8]),
        (first_at, last_at): (Timestamp, Timestamp),
        (prev_root, entries_hash): (Hash, Hash),
        end: &ChainEnd,
    ) -> Vec<u8> {
        let peaks: Vec<u8> = end.frontier.peaks().iter().flat_map(|peak| peak.0).collect();
        Header {
            first,
            count,
            body_bytes: body.len() as u32,
            first_at,
            last_at,
            bytes_through: end.bytes_through,
            kinds: self.kinds,
            prev_root,
            root: end.frontier.root(),
            entries_hash,
            peaks: &peaks,
            filter: &bloom::build(self.items),
            body_checksum: Some(checksum(body)),
        }
        .encode()
    }
}

#[cfg(test)]
mod tests {
    use super::target_bytes;
    use crate::limits::BLOCK_BYTES_MAX;

    #[test]
    fn blocks_waste_at_most_a_quarter_of_a_large_page() {
        for total in (1..2 * BLOCK_BYTES_MAX).step_by(977) {
            let (mut remaining, mut pages) = (total, 0);
            while remaining > 0 {
                let target = target_bytes(remaining);
                assert!(target > 0 && target <= remaining.min(BLOCK_BYTES_MAX));
                pages += (target + 64).next_power_of_two();
                remaining -= target;
            }
            assert!(total < 64 << 10 || pages * 3 <= total * 4 + 3 * (32 << 10), "{total} bytes in {pages}");
        }
    }
}
