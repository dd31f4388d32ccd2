//! Ascending positions in the log, packed: a block of up to 256 holds the first in full and the others as distances.

use std::ops::Range;

use caxton_events::Seq;

/// Positions of one block. Boundaries lie at multiples of it, so that two folds of one log pack alike.
const BLOCK_POSITIONS: usize = 256;

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
    fn positions(&self) -> impl Iterator<Item = Seq> + '_ {
        let mut bytes = self.distances.iter();
        let mut at = self.first.0;
        let rest = (1..self.count).map(move |_| {
            let (mut distance, mut shift) = (0_u64, 0);
            for byte in bytes.by_ref() {
                distance |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            at += distance;
            Seq(at)
        });
        std::iter::once(self.first).chain(rest)
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

/// A list of ascending positions: one to three bytes each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Postings {
    /// How many there are: kept here, so that who counts need not touch the blocks.
    count: u64,
    blocks: Vec<Block>,
    /// Blocks before this one are stored and do not change any more.
    stored: usize,
}

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
        self.blocks.first().map(|block| block.first)
    }

    /// The last position.
    pub fn last(&self) -> Option<Seq> {
        self.blocks.last().map(|block| block.last)
    }

    /// Positions behind `seq`, upwards.
    pub fn after(&self, seq: Seq) -> impl Iterator<Item = Seq> + '_ {
        let from = self.blocks.partition_point(|block| block.last <= seq);
        self.blocks[from..].iter().flat_map(Block::positions).skip_while(move |position| *position <= seq)
    }

    /// Up to `limit` positions before `seq`, downwards.
    pub fn before(&self, seq: Seq, limit: usize) -> Vec<Seq> {
        let until = self.blocks.partition_point(|block| block.first < seq);
        let mut found = Vec::with_capacity(limit.min(BLOCK_POSITIONS));
        for block in self.blocks[..until].iter().rev() {
            let positions: Vec<Seq> = block.positions().take_while(|position| *position < seq).collect();
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
        let whole = |block: &&Block| block.first > after && block.last <= through;
        let (mut count, from) = (0, self.blocks.partition_point(|block| block.last <= after));
        for block in self.blocks[from..].iter().take_while(|block| block.first <= through) {
            count += if whole(&block) {
                u64::from(block.count)
            } else {
                block.positions().filter(|position| *position > after && *position <= through).count() as u64
            };
        }
        count
    }

    /// The blocks that were not stored as they are now, with their numbers; from now on they count as stored.
    pub(crate) fn unstored(&mut self) -> Range<usize> {
        let range = self.stored..self.blocks.len();
        self.stored = self.blocks.len().saturating_sub(1);
        range
    }

    pub(crate) fn block(&self, index: usize) -> &Block {
        &self.blocks[index]
    }

    /// Puts a stored block at the end.
    pub(crate) fn restore(&mut self, block: Block) {
        self.count += u64::from(block.count);
        self.blocks.push(block);
        self.stored = self.blocks.len() - 1;
    }
}

#[cfg(test)]
mod tests {
    use caxton_events::Seq;

    use super::Postings;

    #[test]
    fn positions_read_back_in_both_directions_from_everywhere() {
        let mut postings = Postings::default();
        let mut plain = Vec::new();
        let mut at = 0_u64;
        for n in 0..1_000_u64 {
            at += 1 + n * n % 977;
            postings.push(Seq(at));
            postings.push(Seq(at));
            plain.push(Seq(at));
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
