//! The Merkle tree over all events: leaves, nodes, and the frontier that yields the root after each event.
//!
//! The tree is that of RFC 6962 §2.1 with BLAKE3 and one byte in front that keeps leaves and nodes apart:
//!
//! - leaf = `BLAKE3(0x00 | seq: u64 LE | recorded at, µs: u64 LE | BLAKE3(stored body): 32)`
//! - node = `BLAKE3(0x01 | left: 32 | right: 32)`
//!
//! It knows nothing of blocks, so merging blocks changes no root.

use std::fmt;

use crate::id::Seq;
use crate::time::Timestamp;

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

/// The hash of stored bytes.
pub(crate) fn hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// The leaf of one event.
pub fn leaf(seq: Seq, recorded_at: Timestamp, body: &Hash) -> Hash {
    let mut bytes = [0; 49];
    bytes[1..9].copy_from_slice(&seq.0.to_le_bytes());
    bytes[9..17].copy_from_slice(&recorded_at.unix_micros().to_le_bytes());
    bytes[17..].copy_from_slice(&body.0);
    hash(&bytes)
}

/// The node over two subtrees.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    hash(&bytes)
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
mod tests {
    use super::{Frontier, Hash, hash, leaf, node};
    use crate::{Seq, Timestamp};

    /// The definition in RFC 6962 §2.1, word for word.
    fn tree_head(leaves: &[Hash]) -> Hash {
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
            let next = leaf(Seq(count + 1), Timestamp::EPOCH, &hash(&count.to_le_bytes()));
            leaves.push(next);
            frontier.push(next);
        }
        assert_eq!(Frontier::from_peaks(3, leaves[..1].to_vec()), None);
    }

    #[test]
    fn a_leaf_binds_place_time_and_content() {
        let body = hash(b"body");
        let at = Timestamp::from_unix_micros(5);
        let base = leaf(Seq(1), at, &body);
        for other in [
            leaf(Seq(2), at, &body),
            leaf(Seq(1), Timestamp::from_unix_micros(6), &body),
            leaf(Seq(1), at, &hash(b"bodz")),
        ] {
            assert_ne!(base, other);
        }
    }
}
