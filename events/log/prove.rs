//! Making proofs from the frontiers that block headers hold, without reading the log from its beginning.
//!
//! The siblings left of an event are the peaks of the frontier before it. A sibling right of it is, but for its last
//! leaf, made of peaks of the frontier before that leaf: so each costs one block. What is cut off by the end of the tree
//! are the last peaks of its own frontier. For a tree of n events that are at most log₂ n blocks, found by their position.

use crate::id::Seq;
use crate::log::block::{Block, Stored};
use crate::log::blocks::{Value, damaged, next_header, open_block, read_header};
use crate::log::chain::{Frontier, Hash, LeafBlocks, node};
use crate::log::header::Header;
use crate::log::proof::{ConsistencyProof, InclusionProof, ProofError, Side, StoredEvent, Way};
use crate::log::reader::Head;
use crate::log::scan::ReadError;
use crate::log::store::Snapshot;
use crate::time::Timestamp;

/// Why a proof could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The position is 0 or lies behind the tree; or the tree is larger than the log.
    #[error("{asked} is not among the first {size} events; choose a position from 1 to {size}")]
    Beyond {
        /// What was asked for.
        asked: Seq,
        /// Events there are.
        size: u64,
    },
    /// The position lies before the first event that the log still has.
    #[error(
        "the events before {first} were dropped, so nothing can be proved of {asked}; choose a position from {} on",
        first.0
    )]
    Dropped {
        /// What was asked for.
        asked: Seq,
        /// The first position that there is.
        first: Seq,
    },
    /// The event was erased where it lay: its bytes are gone, only their hash is left.
    #[error(
        "the content of {seq} was erased by {order}; its place in the log can be proved by {order}, not its content"
    )]
    Erased {
        /// The event.
        seq: Seq,
        /// The order.
        order: Seq,
    },
    /// The log could not be read, or is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Checks that `asked` lies from `least` to `size`.
fn within(asked: u64, least: u64, size: u64) -> Result<(), ProveError> {
    if (least..=size).contains(&asked) { Ok(()) } else { Err(ProveError::Beyond { asked: Seq(asked), size }) }
}

/// Checks that the log still has what is needed for the tree of `size` events.
fn kept(snapshot: &Snapshot, size: u64) -> Result<(), ProveError> {
    let first = snapshot.past.first();
    if size + 1 >= first.0 { Ok(()) } else { Err(ProveError::Dropped { asked: Seq(size), first }) }
}

/// The event at `seq`, as it is stored.
pub(crate) fn stored(snapshot: &Snapshot, head: Seq, seq: Seq) -> Result<StoredEvent, ProveError> {
    within(seq.0, 1, head.0)?;
    let first = snapshot.past.first();
    if seq < first {
        return Err(ProveError::Dropped { asked: seq, first });
    }
    let (first, value) = covering(snapshot, seq)?;
    let header = read_header(first, &value)?;
    let body = snapshot.body(first)?;
    let block = open_block(&header, &body)?;
    let index = (seq.0 - first.0) as usize;
    let entry = block.entry(index);
    match block.stored(index).map_err(|what| damaged(first, format!("{what} ({seq})")))? {
        Stored::Bytes(bytes) => {
            let recorded_at = block.recorded_at(&entry);
            Ok(StoredEvent { seq, recorded_at, tag: entry.tag, bytes: bytes.to_vec() })
        }
        Stored::Redacted(order) => Err(ProveError::Erased { seq, order }),
    }
}

/// The head of the log as it was after `size` events.
pub(crate) fn head_at(snapshot: &Snapshot, head: Seq, size: u64) -> Result<Head, ProveError> {
    within(size, 0, head.0)?;
    if size > 0 {
        kept(snapshot, size)?;
    }
    let mut prover = Prover { snapshot, open: None };
    let root = prover.frontier(size)?.root();
    if size == 0 {
        return Ok(Head { root, ..Head::default() });
    }
    if size == snapshot.past.start.frontier.count() {
        return Ok(snapshot.past.origin.before_first());
    }
    let recorded_at = time_of(snapshot, Seq(size))?;
    Ok(Head { seq: Seq(size), root, recorded_at })
}

/// The frontier of the log after `size` events.
pub(crate) fn frontier_at(snapshot: &Snapshot, size: u64) -> Result<Frontier, ReadError> {
    Prover { snapshot, open: None }.frontier(size)
}

/// When the event at `seq` was recorded.
fn time_of(snapshot: &Snapshot, seq: Seq) -> Result<Timestamp, ReadError> {
    let (first, value) = covering(snapshot, seq)?;
    let header = read_header(first, &value)?;
    let body = snapshot.body(first)?;
    let block = open_block(&header, &body)?;
    Ok(block.recorded_at(&block.entry((seq.0 - first.0) as usize)))
}

/// The audit path of the event at `seq` in the tree of `size` events.
pub(crate) fn inclusion(
    snapshot: &Snapshot,
    head: Seq,
    seq: Seq,
    size: u64,
) -> Result<InclusionProof, ProveError> {
    within(size, 1, head.0)?;
    within(seq.0, 1, size)?;
    kept(snapshot, seq.0 - 1).map_err(|error| match error {
        ProveError::Dropped { first, .. } => ProveError::Dropped { asked: seq, first },
        ProveError::Beyond { .. } | ProveError::Erased { .. } | ProveError::Read(_) => error,
    })?;
    let mut prover = Prover { snapshot, open: None };
    let tree = prover.frontier(size)?;
    let before = prover.frontier(seq.0 - 1)?;
    let leaf = prover.open(seq)?.leaf(seq);
    let path = prover.path(0, Way { index: seq.0 - 1, last: size - 1 }, &before, &tree)?;
    let proof = InclusionProof { seq, size, path };
    let head = Head { seq: Seq(size), root: tree.root(), ..Head::default() };
    proof.check(&leaf, &head).map_err(|error| unfit(seq, &error))?;
    Ok(proof)
}

/// The proof that the tree of `to` events begins with that of `from`.
pub(crate) fn consistency(
    snapshot: &Snapshot,
    head: Seq,
    from: u64,
    to: u64,
) -> Result<ConsistencyProof, ProveError> {
    within(to, 0, head.0)?;
    within(from, 0, to)?;
    kept(snapshot, if from == 0 { to } else { from })?;
    let mut prover = Prover { snapshot, open: None };
    let (old, new) = (prover.frontier(from)?, prover.frontier(to)?);
    let mut path = Vec::new();
    if let Some((last, before)) = old.peaks().split_last()
        && from < to
    {
        let (level, way) = Way::between(from, to);
        // An earlier tree that is a single subtree has its hash as its root, which the auditor knows.
        path.extend(Some(*last).filter(|_| !from.is_power_of_two()));
        let before = Frontier::from_peaks(from - (1 << level), before.to_vec()).unwrap_or_default();
        path.extend(prover.path(level, way, &before, &new)?);
    }
    let proof = ConsistencyProof { from, to, path };
    let tree =
        |frontier: &Frontier| Head { seq: Seq(frontier.count()), root: frontier.root(), ..Head::default() };
    proof.check(&tree(&old), &tree(&new)).map_err(|error| unfit(Seq(from.max(1)), &error))?;
    Ok(proof)
}

/// A proof that was made and does not hold: what it was made of is not one log.
fn unfit(near: Seq, error: &ProofError) -> ReadError {
    damaged(near, format!("blocks do not belong together ({error}); log verify names the first of them"))
}

/// The header of the block that holds `seq`, which must be in the snapshot.
fn covering(snapshot: &Snapshot, seq: Seq) -> Result<(Seq, Value), ReadError> {
    let mut headers = snapshot.headers_from(seq)?;
    let found = next_header(&mut headers, false)?.ok_or_else(|| damaged(seq, "it is missing"))?;
    let header = read_header(found.0, &found.1)?;
    if (header.first..=header.last()).contains(&seq) {
        Ok(found)
    } else {
        Err(damaged(seq, "a block before or after it is missing"))
    }
}

/// A block whose leaves are known.
struct Open {
    first: Seq,
    /// The frontier before its first event.
    before: Frontier,
    leaves: Vec<[u8; 32]>,
}

impl Open {
    /// The leaf of an event of the block.
    fn leaf(&self, seq: Seq) -> Hash {
        Hash(self.leaves[(seq.0 - self.first.0) as usize])
    }

    fn holds(&self, seq: Seq) -> bool {
        self.first <= seq && seq.0 - self.first.0 < self.leaves.len() as u64
    }

    /// The frontier after `count` events, the last of which is in the block or right before it.
    fn frontier(&self, count: u64) -> Frontier {
        let mut frontier = self.before.clone();
        frontier.extend(self.leaves[..(count + 1 - self.first.0) as usize].to_vec());
        frontier
    }
}

/// Reads frontiers and subtrees from a snapshot; keeps the last block, because neighbours mostly lie in one.
struct Prover<'a> {
    snapshot: &'a Snapshot,
    open: Option<Open>,
}

impl Prover<'_> {
    /// The block that holds `seq`, checked against its own header and that of the block before.
    fn open(&mut self, seq: Seq) -> Result<&Open, ReadError> {
        let open = match self.open.take().filter(|open| open.holds(seq)) {
            Some(open) => open,
            None => open_at(self.snapshot, seq)?,
        };
        Ok(self.open.insert(open))
    }

    /// The frontier after `count` events: from a header where one ends there.
    fn frontier(&mut self, count: u64) -> Result<Frontier, ReadError> {
        if count == 0 {
            return Ok(Frontier::default());
        }
        if count == self.snapshot.past.start.frontier.count() {
            return Ok(self.snapshot.past.start.frontier.clone());
        }
        let (first, value) = covering(self.snapshot, Seq(count))?;
        let header = read_header(first, &value)?;
        if header.last().0 == count {
            return frontier_of(&header);
        }
        Ok(self.open(Seq(count))?.frontier(count))
    }

    /// The complete subtree of 2^`level` events behind the first `begin`.
    fn complete(&mut self, begin: u64, level: u32) -> Result<Hash, ReadError> {
        let end = Seq(begin + (1 << level));
        let open = self.open(end)?;
        let before = open.frontier(end.0 - 1);
        let halves = before.peaks().iter().rev().take(level as usize);
        Ok(halves.fold(open.leaf(end), |right, left| node(left, &right)))
    }

    /// The siblings of the subtree at the foot of `way`, which stands on `level`; `before` is the frontier in front of that
    /// subtree, `tree` that of the whole.
    fn path(
        &mut self,
        level: u32,
        way: Way,
        before: &Frontier,
        tree: &Frontier,
    ) -> Result<Vec<Hash>, ReadError> {
        let mut left = before.peaks().iter().rev();
        let mut path = Vec::new();
        for (above, index, side) in way.steps() {
            let level = level + above;
            match side {
                None => (),
                Some(Side::Left) => path.extend(left.next()),
                Some(Side::Right) => {
                    let begin = (index + 1) << level;
                    let behind = tree.count() - begin;
                    path.push(if behind >> level == 0 {
                        tail(tree, behind)
                    } else {
                        self.complete(begin, level)?
                    });
                }
            }
        }
        Ok(path)
    }
}

/// The subtree over the last `count` events of a tree, of which there is at least one, cut off by its end.
fn tail(tree: &Frontier, count: u64) -> Hash {
    let mut peaks = tree.peaks().iter().rev().take(count.count_ones() as usize);
    let last = peaks.next().copied().unwrap_or_default();
    peaks.fold(last, |right, left| node(left, &right))
}

fn frontier_of(header: &Header<'_>) -> Result<Frontier, ReadError> {
    header.frontier().ok_or_else(|| damaged(header.first, "its peaks do not fit"))
}

fn open_at(snapshot: &Snapshot, seq: Seq) -> Result<Open, ReadError> {
    let (first, value) = covering(snapshot, seq)?;
    let header = read_header(first, &value)?;
    let before = if first == snapshot.past.first() {
        snapshot.past.start.frontier.clone()
    } else {
        let (before, value) = covering(snapshot, first.previous())?;
        frontier_of(&read_header(before, &value)?)?
    };
    if before.count() + 1 != first.0 || before.root() != header.prev_root {
        return Err(damaged(
            first,
            "it does not continue the chain: its root before differs from the one reached",
        ));
    }
    let body = snapshot.body(first)?;
    let open = Open { first, before, leaves: leaves_of(&open_block(&header, &body)?) };
    if open.frontier(header.last().0) == frontier_of(&header)? {
        Ok(open)
    } else {
        Err(damaged(first, "its events do not lead to its root"))
    }
}

/// The bytes of the leaves of a block's events.
fn leaves_of(block: &Block<'_>) -> Vec<[u8; 32]> {
    let mut leaves = LeafBlocks::with_capacity(block.count());
    for index in 0..block.count() {
        let entry = block.entry(index);
        leaves.push(block.seq(index), block.recorded_at(&entry), entry.tag, &entry.body_hash);
    }
    leaves.hashes()
}
