//! Proofs over the Merkle tree and how they are checked: that an event is in a tree, and that a later tree only added to
//! an earlier one.
//!
//! The paths are those of RFC 6962 §2.1.1 and §2.1.2; the hashes are those of [`chain`](crate::log::chain). Checking needs
//! nothing but what is passed in. How paths are made is in `prove`.

use std::cmp::Ordering;

use crate::codec::DecodeError;
use crate::id::Seq;
use crate::log::block::Stored;
use crate::log::chain::{Hash, Tag, hash, leaf, node};
use crate::log::reader::Head;
use crate::log::sealing::KeyRing;
use crate::log::sealing::opened::{self, Found, Placed};
use crate::time::Timestamp;

/// An event as the tree binds it: its place, its time, and its bytes as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its position.
    pub seq: Seq,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// How `bytes` are read.
    pub tag: Tag,
    /// Envelope and payload, compressed and encrypted if the tag says so.
    pub bytes: Vec<u8>,
}

/// Why stored bytes are no event this program can read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableError {
    /// They cannot be decompressed.
    #[error("{0}")]
    Unpack(&'static str),
    /// They do not follow the format of an event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl StoredEvent {
    /// The hash of the stored bytes.
    pub fn body_hash(&self) -> Hash {
        hash(&self.bytes)
    }

    /// The leaf the event has in the tree.
    pub fn leaf(&self) -> Hash {
        leaf(self.seq, self.recorded_at, self.tag, &self.body_hash())
    }

    /// The event with its place; without its content if that is encrypted, because no key is at hand.
    ///
    /// # Errors
    ///
    /// [`UnreadableError`] if the bytes are no event, or one of a newer Caxton.
    pub fn found(&self) -> Result<Found, UnreadableError> {
        let Self { seq, recorded_at, tag, bytes } = self;
        let placed = Placed { seq: *seq, recorded_at: *recorded_at, tag: *tag };
        let found = opened::open(Stored::Bytes(bytes), placed, &KeyRing::default(), |_| true)?;
        found.ok_or(UnreadableError::Unpack("the event is empty"))
    }
}

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The proof is for a tree of another size than the head it is checked against.
    #[error("the proof is for a log of {proof} events, the head for one of {head}")]
    Size {
        /// Events in the tree of the proof.
        proof: u64,
        /// Events under the head.
        head: u64,
    },
    /// The event's position is not in the tree, or the earlier tree is larger than the later one.
    #[error("{place} cannot be in a log of {size} events")]
    Place {
        /// Position of the event, or the last of the earlier tree.
        place: Seq,
        /// Events in the tree.
        size: u64,
    },
    /// The path has too few or too many hashes for these sizes.
    #[error("the path has {found} hashes, in its place it has {expected}")]
    Length {
        /// Hashes in the path.
        found: usize,
        /// Hashes that a path between these places has.
        expected: usize,
    },
    /// The path leads elsewhere.
    #[error(
        "event and path lead to the root {computed}, the head has {head}: the event, the path or the head is not what was \
         recorded"
    )]
    Root {
        /// What was computed.
        computed: Hash,
        /// What the head has.
        head: Hash,
    },
    /// The path does not contain the earlier tree.
    #[error(
        "the earlier head has the root {head}, the proof leads to {computed}: what was recorded before it was changed, \
         removed or put in another order"
    )]
    EarlierRoot {
        /// What was computed.
        computed: Hash,
        /// What the earlier head has.
        head: Hash,
    },
    /// The path does not lead to the later tree.
    #[error(
        "the later head has the root {head}, the proof leads to {computed}: it is not the log of the earlier head"
    )]
    LaterRoot {
        /// What was computed.
        computed: Hash,
        /// What the later head has.
        head: Hash,
    },
}

/// What shows that an event is in the tree of a size: a Merkle audit path, RFC 6962 §2.1.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// Position of the event.
    pub seq: Seq,
    /// Events in the tree.
    pub size: u64,
    /// The siblings on the way from the leaf to the root, at most 64.
    pub path: Vec<Hash>,
}

impl InclusionProof {
    /// Checks that the event with this leaf is the one at [`InclusionProof::seq`] under `head`.
    ///
    /// # Errors
    ///
    /// [`ProofError`] says what does not fit.
    pub fn check(&self, leaf: &Hash, head: &Head) -> Result<(), ProofError> {
        let Self { seq, size, path } = self;
        same_size(*size, head)?;
        if *seq == Seq::ZERO || seq.0 > *size {
            return Err(ProofError::Place { place: *seq, size: *size });
        }
        let way = Way { index: seq.0 - 1, last: size - 1 };
        same_length(path.len(), way.siblings().count())?;
        let climb = |below, (side, sibling): (Side, &Hash)| match side {
            Side::Left => node(sibling, &below),
            Side::Right => node(&below, sibling),
        };
        let computed = way.siblings().zip(path).fold(*leaf, climb);
        if computed == head.root { Ok(()) } else { Err(ProofError::Root { computed, head: head.root }) }
    }
}

/// What shows that the tree of one size begins with the tree of a smaller one: RFC 6962 §2.1.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// Events in the earlier tree.
    pub from: u64,
    /// Events in the later one.
    pub to: u64,
    /// The hashes that make up both roots, at most 65; none if the trees are the same or the earlier one is empty.
    pub path: Vec<Hash>,
}

impl ConsistencyProof {
    /// Checks that everything under `earlier` lies unchanged and in its order under `later`.
    ///
    /// # Errors
    ///
    /// [`ProofError`] says what does not fit.
    pub fn check(&self, earlier: &Head, later: &Head) -> Result<(), ProofError> {
        let Self { from, to, path } = self;
        same_size(*from, earlier)?;
        same_size(*to, later)?;
        if from > to {
            return Err(ProofError::Place { place: Seq(*from), size: *to });
        }
        let (_, way) = Way::between(*from, *to);
        // The first subtree is the whole earlier tree if its size is a power of two: its hash is known.
        let whole = from.is_power_of_two();
        let seeds = usize::from(!whole && *from > 0 && from < to);
        same_length(path.len(), way.siblings().count() + seeds)?;
        let (seed, path) = path.split_at(seeds);
        let start = match (*from, seed.first()) {
            (0, _) => hash(&[]),
            (_, Some(seed)) => *seed,
            (_, None) => earlier.root,
        };
        let (mut old, mut new) = (start, start);
        for (side, sibling) in way.siblings().zip(path) {
            if side == Side::Left {
                old = node(sibling, &old);
                new = node(sibling, &new);
            } else {
                new = node(&new, sibling);
            }
        }
        if old != earlier.root {
            return Err(ProofError::EarlierRoot { computed: old, head: earlier.root });
        }
        if *from > 0 && new != later.root {
            return Err(ProofError::LaterRoot { computed: new, head: later.root });
        }
        Ok(())
    }
}

fn same_size(proof: u64, head: &Head) -> Result<(), ProofError> {
    let head = head.seq.0;
    if proof == head { Ok(()) } else { Err(ProofError::Size { proof, head }) }
}

fn same_length(found: usize, expected: usize) -> Result<(), ProofError> {
    match found.cmp(&expected) {
        Ordering::Equal => Ok(()),
        Ordering::Less | Ordering::Greater => Err(ProofError::Length { found, expected }),
    }
}

/// On which side of the way to the root a sibling stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// The way from a subtree up to the root: its number on its level, and that of the last subtree there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub index: u64,
    pub last: u64,
}

impl Way {
    /// The level and the way of the smallest complete subtree that ends where the tree of `from` events does, in the tree
    /// of `to` events. There is none to go if one of them is empty or both are the same.
    pub(crate) fn between(from: u64, to: u64) -> (u32, Self) {
        if from == 0 || from >= to {
            return (0, Self { index: 0, last: 0 });
        }
        let level = from.trailing_zeros();
        (level, Self { index: (from >> level) - 1, last: (to - 1) >> level })
    }

    /// The side of each sibling, upwards. A last subtree without one is its own parent.
    pub(crate) fn siblings(self) -> impl Iterator<Item = Side> {
        self.steps().filter_map(|(_, _, side)| side)
    }

    /// Each level: how many are below it, the number of the subtree there, and where its sibling stands.
    pub(crate) fn steps(self) -> impl Iterator<Item = (u32, u64, Option<Side>)> {
        let Self { index, last } = self;
        let levels = (0..u64::BITS).take_while(move |level| last >> level > 0);
        levels.map(move |level| {
            let (index, last) = (index >> level, last >> level);
            let side = match index % 2 {
                1 => Some(Side::Left),
                _ if index < last => Some(Side::Right),
                _ => None,
            };
            (level, index, side)
        })
    }
}
