//! Ascending positions in the log, packed: a block of up to 256 holds the first in full and the others as distances.
//!
//! Full blocks can be [spilled](Postings::spill): of those only the first position stays in memory.

use std::ops::Range;
use std::sync::Arc;

use caxton_events::Seq;

use super::spill::Spill;

/// Positions of one block. Boundaries lie at multiples of it, so that two folds of one log pack alike.
const BLOCK_POSITIONS: usize = 256;

/// Blocks that are spilled together while a stored list is read.
const SPILLED_TOGETHER: usize = 64;

/// One packed block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    pub(crate) count: u32,
    /// Distances from each position to the next, seven bits a byte, the lowest first.
    pub(crate) distances: Vec<u8>,
}

impl Block {
    fn positions(&self) -> Positions<'_> {
        Positions { bytes: Bytes::Kept(&self.distances), place: 0, next: self.first.0, left: self.count }
    }

    fn push(&mut self, seq: Seq) {
        let mut distance = seq.0 - self.last.0;
        while distance >= 0x80 {
            self.distances.push(distance as u8 | 0x80);
            distance >>= 7;
        }
        self.distances.push(distance as u8);
        self.last = seq;
        self.count += 1;
    }
}

/// The distances of a block.
enum Bytes<'a> {
    Kept(&'a [u8]),
    Read(Vec<u8>),
}

/// The positions of a block, upwards.
struct Positions<'a> {
    bytes: Bytes<'a>,
    /// Bytes that were unpacked.
    place: usize,
    next: u64,
    left: u32,
}

impl Iterator for Positions<'_> {
    type Item = Seq;

    fn next(&mut self) -> Option<Seq> {
        self.left = self.left.checked_sub(1)?;
        let seq = Seq(self.next);
        let bytes = match &self.bytes {
            Bytes::Kept(bytes) => bytes,
            Bytes::Read(bytes) => bytes.as_slice(),
        };
        let mut shift = 0;
        while let Some(byte) = bytes.get(self.place) {
            self.place += 1;
            self.next += u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Some(seq)
    }
}

/// A full block in the spill file.
#[derive(Debug, Clone, Copy)]
struct Spilled {
    first: Seq,
    /// `| where its distances begin: 48 | how many bytes they are: 16 |`.
    place: u64,
}

/// Blocks that left the memory.
#[derive(Debug, Clone)]
struct Cold {
    spill: Arc<Spill>,
    blocks: Vec<Spilled>,
}

/// A list of ascending positions: one to three bytes each.
#[derive(Debug, Clone, Default)]
pub struct Postings {
    /// How many there are: kept here, so that who counts need not touch the blocks.
    count: u64,
    /// The first blocks, where there are such.
    cold: Option<Box<Cold>>,
    /// Those behind.
    blocks: Vec<Block>,
    /// Blocks before this one are stored and do not change any more.
    stored: usize,
}

impl PartialEq for Postings {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.after(Seq::ZERO).eq(other.after(Seq::ZERO))
    }
}

impl Eq for Postings {}

impl Postings {
    /// Adds a position behind the others; one that is not is passed over.
    pub(crate) fn push(&mut self, seq: Seq) {
        match self.blocks.last_mut() {
            Some(block) if seq <= block.last => return,
            Some(block) if (block.count as usize) < BLOCK_POSITIONS => block.push(seq),
            _ => self.blocks.push(Block { first: seq, last: seq, count: 1, distances: Vec::new() }),
        }
        self.count += 1;
    }

    /// How many there are.
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first position.
    pub fn first(&self) -> Option<Seq> {
        (!self.is_empty()).then(|| self.first_of(0))
    }

    /// The last position.
    pub fn last(&self) -> Option<Seq> {
        self.blocks.last().map(|block| block.last)
    }

    /// Positions behind `seq`, upwards.
    pub fn after(&self, seq: Seq) -> impl Iterator<Item = Seq> + '_ {
        let from = self.holding(seq);
        (from..self.block_count())
            .flat_map(|index| self.positions(index))
            .skip_while(move |position| *position <= seq)
    }

    /// Up to `limit` positions before `seq`, downwards.
    pub fn before(&self, seq: Seq, limit: usize) -> Vec<Seq> {
        let until = self.partition_point(|first| first < seq);
        let mut found = Vec::with_capacity(limit.min(BLOCK_POSITIONS));
        for index in (0..until).rev() {
            let positions: Vec<Seq> = self.positions(index).take_while(|position| *position < seq).collect();
            found.extend(positions.into_iter().rev().take(limit - found.len()));
            if found.len() == limit {
                break;
            }
        }
        found
    }

    /// Whether `seq` is in the list.
    pub fn contains(&self, seq: Seq) -> bool {
        self.after(seq.previous()).next() == Some(seq)
    }

    /// How many lie behind `after` and not behind `through`.
    pub fn count_between(&self, after: Seq, through: Seq) -> u64 {
        let (mut count, blocks) = (0, self.block_count());
        for index in self.holding(after)..blocks {
            let first = self.first_of(index);
            if first > through {
                break;
            }
            // A block ends before the next one begins.
            let whole = first > after && index + 1 < blocks && self.first_of(index + 1) <= through;
            count += if whole {
                BLOCK_POSITIONS as u64
            } else {
                self.positions(index).filter(|position| *position > after && *position <= through).count()
                    as u64
            };
        }
        count
    }

    /// The blocks that were not stored as they are now, with their numbers; from now on they count as stored.
    pub(crate) fn unstored(&mut self) -> Range<usize> {
        let range = self.stored..self.block_count();
        self.stored = self.block_count().saturating_sub(1);
        range
    }

    /// A block that was not stored before.
    pub(crate) fn block(&self, index: usize) -> &Block {
        &self.blocks[index - self.cold_count()]
    }

    /// Puts a stored block at the end.
    pub(crate) fn restore(&mut self, block: Block, spill: Option<&Arc<Spill>>) {
        self.count += u64::from(block.count);
        self.blocks.push(block);
        self.stored = self.block_count() - 1;
        if let Some(spill) = spill.filter(|_| self.blocks.len() > SPILLED_TOGETHER) {
            self.spill(spill);
        }
    }

    /// Moves the blocks that do not change any more to `spill`. Where that takes no more, they stay.
    pub(crate) fn spill(&mut self, spill: &Arc<Spill>) {
        let full = self.stored - self.cold_count();
        if full == 0 {
            return;
        }
        let mut bytes = Vec::new();
        let lens = self.blocks.iter().take(full).map(|block| block.distances.len());
        let lens: Vec<usize> = lens.collect();
        self.blocks.iter().take(full).for_each(|block| bytes.extend_from_slice(&block.distances));
        let Ok(mut at) = spill.put(&bytes) else { return };
        let fresh = || Box::new(Cold { spill: Arc::clone(spill), blocks: Vec::new() });
        let cold = self.cold.get_or_insert_with(fresh);
        for (block, len) in self.blocks.drain(..full).zip(lens) {
            cold.blocks.push(Spilled { first: block.first, place: at << 16 | len as u64 });
            at += len as u64;
        }
        self.blocks.shrink_to(2);
    }

    fn cold_count(&self) -> usize {
        self.cold.as_ref().map_or(0, |cold| cold.blocks.len())
    }

    fn block_count(&self) -> usize {
        self.cold_count() + self.blocks.len()
    }

    /// The first position of a block.
    fn first_of(&self, index: usize) -> Seq {
        match self.cold.as_ref().and_then(|cold| cold.blocks.get(index)) {
            Some(block) => block.first,
            None => self.blocks[index - self.cold_count()].first,
        }
    }

    /// How many blocks there are whose first position is as `is_before` says; they are the first ones.
    fn partition_point(&self, is_before: impl Fn(Seq) -> bool) -> usize {
        let cold =
            self.cold.as_ref().map_or(0, |cold| cold.blocks.partition_point(|block| is_before(block.first)));
        if cold < self.cold_count() {
            cold
        } else {
            cold + self.blocks.partition_point(|block| is_before(block.first))
        }
    }

    /// The block in which the positions behind `seq` begin, or end.
    fn holding(&self, seq: Seq) -> usize {
        self.partition_point(|first| first <= seq).saturating_sub(1)
    }

    #[expect(
        clippy::expect_used,
        reason = "the file has no name and was written by this process: where the disk does not give it back, nothing that \
                  is folded can be relied on any more"
    )]
    fn positions(&self, index: usize) -> Positions<'_> {
        let Some((cold, block)) = self.cold.as_ref().and_then(|cold| Some((cold, cold.blocks.get(index)?)))
        else {
            return self.blocks[index - self.cold_count()].positions();
        };
        let bytes = cold.spill.get(block.place >> 16, (block.place & 0xffff) as usize);
        let bytes = Bytes::Read(bytes.expect("positions that were spilled can be read"));
        Positions { bytes, place: 0, next: block.first.0, left: BLOCK_POSITIONS as u32 }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use caxton_events::Seq;

    use super::{Postings, Spill};

    #[test]
    fn positions_read_back_in_both_directions_from_everywhere() {
        check(&mut |_| ());
    }

    #[test]
    fn spilled_positions_read_back_as_well() {
        let dir = tempfile::tempdir().expect("a directory");
        let spill = Arc::new(Spill::in_dir(dir.path()).expect("a file"));
        check(&mut |postings| {
            postings.unstored();
            postings.spill(&spill);
        });
        assert_eq!(dir.path().read_dir().expect("a directory").count(), 0, "it has no name");
    }

    /// `after_each` is called now and then.
    #[track_caller]
    fn check(after_each: &mut dyn FnMut(&mut Postings)) {
        let mut postings = Postings::default();
        let mut plain = Vec::new();
        let mut at = 0_u64;
        for n in 0..1_000_u64 {
            at += 1 + n * n % 977;
            postings.push(Seq(at));
            postings.push(Seq(at));
            plain.push(Seq(at));
            if n % 100 == 99 {
                after_each(&mut postings);
            }
        }
        assert_eq!(
            (postings.len(), postings.first(), postings.last()),
            (1_000, Some(plain[0]), Some(Seq(at)))
        );
        for probe in (0..at + 2).step_by(37).chain([plain[255].0, plain[256].0, plain[999].0]) {
            let cut = plain.partition_point(|seq| seq.0 <= probe);
            assert!(postings.after(Seq(probe)).eq(plain[cut..].iter().copied()), "after {probe}");
            let before = plain.partition_point(|seq| seq.0 < probe);
            let expected: Vec<Seq> = plain[..before].iter().rev().take(300).copied().collect();
            assert_eq!(postings.before(Seq(probe), 300), expected, "before {probe}");
            assert_eq!(postings.contains(Seq(probe)), plain.contains(&Seq(probe)));
            assert_eq!(
                postings.count_between(Seq(probe), Seq(at - 5)),
                plain.iter().filter(|seq| seq.0 > probe && seq.0 <= at - 5).count() as u64
            );
        }
    }
}
