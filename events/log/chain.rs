//! The Merkle tree over all events: leaves, nodes, and the frontier that yields the root after each event.
//!
//! The tree is that of RFC 6962 §2.1 with keyed BLAKE3. Instead of a byte in front, a key of their own keeps leaves and
//! nodes apart, so that each is a single block of BLAKE3's and many are hashed side by side:
//!
//! - leaf = `BLAKE3(key "caxton log: the leaf of an event", seq: u64 LE | recorded at, µs: u64 LE |
//!   BLAKE3(stored body): 32 | kind: u8 | version: u8 | flags: u16 LE | zeros: 12)`
//! - node = `BLAKE3(key "caxton log: node of two subtrees", left: 32 | right: 32)`
//!
//! It knows nothing of blocks, so merging blocks changes no root.

use std::fmt;

use crate::id::Seq;
use crate::log::lanes::keyed_each;
use crate::time::Timestamp;

const LEAF_KEY: &[u8; 32] = b"caxton log: the leaf of an event";
const NODE_KEY: &[u8; 32] = b"caxton log: node of two subtrees";

/// A BLAKE3 hash; its text form is lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// How the stored bytes of an event are to be read.
///
/// A leaf binds it: the same bytes can be well-formed for kinds of two families, and only the kind says which event they
/// are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tag {
    /// Number of the event's kind.
    pub kind: u8,
    /// Version of that kind.
    pub version: u8,
    /// Bit 0: the bytes are compressed.
    pub flags: u16,
}

impl Tag {
    /// `| kind: u8 | version: u8 | flags: u16 LE |`, as it stands in entries and leaves.
    pub(crate) fn bytes(self) -> [u8; 4] {
        let [low, high] = self.flags.to_le_bytes();
        [self.kind, self.version, low, high]
    }
}

/// The hash of stored bytes.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// The leaf of one event.
pub fn leaf(seq: Seq, recorded_at: Timestamp, tag: Tag, body: &Hash) -> Hash {
    Hash(*blake3::keyed_hash(LEAF_KEY, &leaf_block(seq, recorded_at, tag, body)).as_bytes())
}

/// The leaves of events that follow each other from `first` on, all recorded at once.
pub(crate) fn leaves<'a>(
    first: Seq,
    recorded_at: Timestamp,
    events: impl Iterator<Item = &'a (Tag, Hash)>,
) -> Vec<[u8; 32]> {
    let mut leaves = LeafBlocks::with_capacity(events.size_hint().0);
    for (seq, (tag, body)) in (first.0..).zip(events) {
        leaves.push(Seq(seq), recorded_at, *tag, body);
    }
    leaves.hashes()
}

/// Leaves on their way to be hashed side by side.
pub(crate) struct LeafBlocks(Vec<[u8; 64]>);

impl LeafBlocks {
    pub(crate) fn with_capacity(events: usize) -> Self {
        Self(Vec::with_capacity(events))
    }

    /// The leaf of an event: position, time, how it is to be read, hash of its bytes.
    #[inline]
    pub(crate) fn push(&mut self, seq: Seq, recorded_at: Timestamp, tag: Tag, body: &Hash) {
        self.0.push(leaf_block(seq, recorded_at, tag, body));
    }

    /// The bytes of the leaves, in order.
    pub(crate) fn hashes(&self) -> Vec<[u8; 32]> {
        keyed_each(LEAF_KEY, &self.0)
    }
}

fn leaf_block(seq: Seq, recorded_at: Timestamp, tag: Tag, body: &Hash) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(&seq.0.to_le_bytes());
    block[8..16].copy_from_slice(&recorded_at.unix_micros().to_le_bytes());
    block[16..48].copy_from_slice(&body.0);
    block[48..52].copy_from_slice(&tag.bytes());
    block
}

/// The node over two subtrees.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    Hash(*blake3::keyed_hash(NODE_KEY, &node_block(left, right)).as_bytes())
}

fn node_block(left: &Hash, right: &Hash) -> [u8; 64] {
    let mut block = [0; 64];
    block[..32].copy_from_slice(&left.0);
    block[32..].copy_from_slice(&right.0);
    block
}

/// The roots of the complete subtrees over all events so far, largest first: all that is needed to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    count: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The frontier after `count` events with these peaks; `None` if their number does not fit.
    pub fn from_peaks(count: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == count.count_ones() as usize).then_some(Self { count, peaks })
    }

    /// Adds the leaf of the next event.
    pub fn push(&mut self, leaf: Hash) {
        let mut subtree = leaf;
        // As many peaks as `count` has trailing ones are as large as the subtree that grows from the leaf.
        for _ in 0..self.count.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                subtree = node(&left, &subtree);
            }
        }
        self.peaks.push(subtree);
        self.count += 1;
    }

    /// Adds the leaves of the next events, in order: as [`Frontier::push`] for each, a level of the tree at a time. Two
    /// hashes side by side are the node over them as it is hashed.
    pub(crate) fn extend(&mut self, leaves: Vec<[u8; 32]>) {
        let mut before = self.count;
        self.count += leaves.len() as u64;
        let mut level = leaves;
        let mut peaks = Vec::new();
        while before > 0 || !level.is_empty() {
            if before & 1 == 1
                && let Some(peak) = self.peaks.pop()
            {
                level.insert(0, peak.0);
            }
            if level.len() % 2 == 1 {
                peaks.extend(level.pop().map(Hash));
            }
            let (pairs, _) = level.as_flattened().as_chunks();
            level = keyed_each(NODE_KEY, pairs);
            before >>= 1;
        }
        peaks.reverse();
        self.peaks = peaks;
    }

    /// The root over all events so far; the hash of nothing before the first.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else {
            return hash(&[]);
        };
        peaks.fold(*last, |right, left| node(left, &right))
    }

    /// How many events it covers.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The peaks, largest first: as many as the count has ones in binary.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }
}

#[cfg(test)]
pub(in crate::log) mod tests {
    use super::{Frontier, Hash, Tag, hash, leaf, leaves, node};
    use crate::{Seq, Timestamp};

    const TAG: Tag = Tag { kind: 1, version: 2, flags: 3 };

    /// The definition in RFC 6962 §2.1, word for word.
    pub(in crate::log) fn tree_head(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => hash(&[]),
            [leaf] => *leaf,
            _ => {
                let left = leaves.len().next_power_of_two() / 2;
                node(&tree_head(&leaves[..left]), &tree_head(&leaves[left..]))
            }
        }
    }

    #[test]
    fn the_frontier_yields_the_tree_head_after_every_event() {
        let mut frontier = Frontier::default();
        let mut leaves = Vec::new();
        for count in 0..300_u64 {
            assert_eq!(frontier.root(), tree_head(&leaves), "after {count}");
            let again = Frontier::from_peaks(count, frontier.peaks().to_vec());
            assert_eq!(again.as_ref(), Some(&frontier));
            let next = leaf(Seq(count + 1), Timestamp::EPOCH, TAG, &hash(&count.to_le_bytes()));
            leaves.push(next);
            frontier.push(next);
        }
        assert_eq!(Frontier::from_peaks(3, leaves[..1].to_vec()), None);
    }

    #[test]
    fn many_leaves_at_once_lead_to_the_frontier_that_they_lead_to_one_by_one() {
        let bodies: Vec<(Tag, Hash)> = (0..200_u8).map(|n| (Tag { kind: n, ..TAG }, hash(&[n]))).collect();
        let at = Timestamp::from_unix_micros(5);
        for before in 0..70 {
            for count in [0, 1, 2, 3, 4, 7, 8, 31, 64, 130] {
                let mut one_by_one = Frontier::default();
                let mut at_once = Frontier::default();
                for (seq, (tag, body)) in (1..).zip(&bodies[..before]) {
                    one_by_one.push(leaf(Seq(seq), at, *tag, body));
                }
                at_once.extend(leaves(Seq(1), at, bodies[..before].iter()));
                assert_eq!(at_once, one_by_one, "{before}");
                let next = Seq(before as u64 + 1);
                for (seq, (tag, body)) in (next.0..).zip(&bodies[before..before + count]) {
                    one_by_one.push(leaf(Seq(seq), at, *tag, body));
                }
                at_once.extend(leaves(next, at, bodies[before..before + count].iter()));
                assert_eq!(at_once, one_by_one, "{before} and {count}");
            }
        }
    }

    #[test]
    fn a_leaf_binds_place_time_content_and_how_it_is_read() {
        let body = hash(b"body");
        let at = Timestamp::from_unix_micros(5);
        let base = leaf(Seq(1), at, TAG, &body);
        for other in [
            leaf(Seq(2), at, TAG, &body),
            leaf(Seq(1), Timestamp::from_unix_micros(6), TAG, &body),
            leaf(Seq(1), at, TAG, &hash(b"bodz")),
            leaf(Seq(1), at, Tag { kind: 0, ..TAG }, &body),
            leaf(Seq(1), at, Tag { version: 1, ..TAG }, &body),
            leaf(Seq(1), at, Tag { flags: 1, ..TAG }, &body),
            leaf(Seq(1), at, Tag { flags: 0x103, ..TAG }, &body),
        ] {
            assert_ne!(base, other);
        }
    }
}
