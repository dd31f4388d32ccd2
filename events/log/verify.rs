//! Walking the whole chain: every hash again, from the first event to the last, and every event decoded.
//!
//! A block is checked against where the header before it says that the chain stood. That header is checked with its own
//! block, so that blocks need not wait for each other: each thread takes the next one. What counts is the first that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::borrowed::EventRef;
use crate::codec::{self, Envelope};
use crate::cursor;
use crate::event::{Event, Kind};
use crate::id::Seq;
use crate::log::block::{Block, Entry, Stored};
use crate::log::blocks::{Headers, Value, damaged, next_header, open_block, read_header};
use crate::log::bloom::{BlockItems, Item};
use crate::log::chain::{Hash, LeafBlocks, Tag};
use crate::log::header::Header;
use crate::log::keys;
use crate::log::lanes::hash_each;
use crate::log::pack::ChainEnd;
use crate::log::reader::KeyRow;
use crate::log::scan::ReadError;
use crate::log::sealing::KeyRing;
use crate::log::sealing::opened::{self, FoundRef, Placed};
use crate::log::store::{Snapshot, StoreError};
use crate::log::visit::unreadable;
use crate::system::SystemEvent;
use crate::upcast;

/// Threads that check blocks at the most, the caller's among them.
const THREADS_MAX: usize = 4;

/// What [`Reader::verify`](crate::log::Reader::verify) found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Events checked.
    pub events: u64,
    /// Blocks checked.
    pub blocks: u64,
    /// Of these, events whose content was erased.
    pub erased: u64,
    /// Of the erased ones, those whose order is not in this log, which is a fork or was restored up to a point.
    pub erased_later: u64,
    /// Of these, events that are encrypted under a key that is not here: their bytes are right, what they say was not read.
    pub unread: u64,
    /// Idempotency keys checked.
    pub keys: u64,
    /// Merkle root over all of them.
    pub root: Hash,
}

/// Why a log is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The first block that is wrong; everything before it was checked and is right.
    #[error("everything up to {good} is right, what follows is not")]
    Block {
        /// Last position that is right.
        good: Seq,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// An idempotency key's row is wrong; the events are right.
    #[error("every event is right, but the row of an idempotency key is not")]
    Key(#[source] ReadError),
}

/// How much of a log is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Every event that the log still has.
    All,
    /// What lies in its own file, behind sealed ones.
    Own,
}

/// What verifying finds besides the chain.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub erased: u64,
    pub unread: u64,
    /// Orders that events say they were erased by, with how many do, and the orders there are.
    named: BTreeMap<Seq, u64>,
    orders: BTreeSet<Seq>,
}

/// Checks the whole log. `noted` says whether the log has a note that orders of it may lie elsewhere; it is asked when one does.
pub(crate) fn verify(
    snapshot: Result<Snapshot, StoreError>,
    extent: Extent,
    ring: &KeyRing,
    noted: impl FnOnce() -> Result<bool, StoreError>,
    progress: &mut dyn FnMut(Seq),
) -> Result<Verified, VerifyError> {
    let at_start = |source: ReadError| VerifyError::Block { good: Seq::ZERO, source };
    let snapshot = snapshot.map_err(|error| at_start(error.into()))?;
    let start = match extent {
        Extent::All => snapshot.past.start.clone(),
        Extent::Own => snapshot.own_start().map_err(at_start)?,
    };
    let before = start.frontier.count();
    let headers = snapshot.headers_from(Seq(before + 1)).map_err(|error| at_start(error.into()))?;
    let walk = Walk {
        headers,
        end: Some(start),
        blocks: 0,
        reached: Seq(before),
        right: BTreeMap::new(),
        wrong: None,
        findings: Findings::default(),
    };
    let Walk { end, blocks, wrong, findings, .. } = check_all(&snapshot, ring, walk, progress);
    if let Some((good, source)) = wrong {
        return Err(VerifyError::Block { good, source });
    }
    let end = end.unwrap_or_default();
    let good = Seq(end.frontier.count());
    let counted = match extent {
        Extent::All => snapshot.block_count(),
        Extent::Own => snapshot.own_block_count(),
    };
    match counted.map_err(|error| VerifyError::Block { good, source: error.into() })? {
        counted if counted == blocks => (),
        counted => {
            let what = format!("the store counts {counted} blocks, {blocks} were found");
            return Err(VerifyError::Block { good, source: damaged(good, what) });
        }
    }
    let keys = verify_keys(&snapshot, extent, good).map_err(VerifyError::Key)?;
    let erased_later =
        findings.erased_later(good, noted).map_err(|source| VerifyError::Block { good, source })?;
    let (Findings { erased, unread, .. }, root) = (findings, end.frontier.root());
    Ok(Verified { events: good.0 - before, blocks, erased, erased_later, unread, keys, root })
}

/// What the threads share: how far blocks were handed out, and what was found in them.
struct Walk {
    headers: Headers,
    /// Where the chain stands before the next block, on the word of the header before it. `None` when nothing can follow.
    end: Option<ChainEnd>,
    /// Blocks handed out.
    blocks: u64,
    /// The last position up to which everything is right.
    reached: Seq,
    /// Blocks behind it that are right: the last position before each, and its own last.
    right: BTreeMap<Seq, Seq>,
    /// The first block that is wrong: the last position before it, and what is wrong.
    wrong: Option<(Seq, ReadError)>,
    findings: Findings,
}

/// A block to be checked, and where the chain stands before it.
struct Task {
    before: ChainEnd,
    first: Seq,
    header: Value,
}

impl Walk {
    /// The next block. There is none at the end, and none behind what is wrong.
    fn next(&mut self) -> Option<Task> {
        if self.wrong.is_some() {
            return None;
        }
        let before = self.end.clone()?;
        let (first, header) = loop {
            match next_header(&mut self.headers, false) {
                // Where the log's own file has no block yet, the one found is that before it.
                Ok(Some((first, _))) if first.0 <= before.frontier.count() && self.blocks == 0 => (),
                Ok(next) => break next?,
                Err(error) => {
                    self.note_wrong(Seq(before.frontier.count()), error.into());
                    return None;
                }
            }
        };
        // A header that is wrong is named by who checks its block; nothing can follow it.
        self.end = read_header(first, &header).ok().and_then(|header| {
            let (frontier, bytes_through) = (header.frontier()?, header.bytes_through);
            Some(ChainEnd { frontier, bytes_through, recorded_at: header.last_at })
        });
        self.blocks += 1;
        Some(Task { before, first, header })
    }

    fn note_right(&mut self, before: Seq, last: Seq) {
        self.right.insert(before, last);
        while let Some(last) = self.right.remove(&self.reached) {
            self.reached = last;
        }
    }

    fn note_wrong(&mut self, good: Seq, error: ReadError) {
        if self.wrong.as_ref().is_none_or(|(earlier, _)| good < *earlier) {
            self.wrong = Some((good, error));
        }
    }
}

/// Checks every block, on as many threads as there are processors.
fn check_all(snapshot: &Snapshot, ring: &KeyRing, walk: Walk, progress: &mut dyn FnMut(Seq)) -> Walk {
    let walk = Mutex::new(walk);
    let more = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX) - 1;
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for _ in 0..more {
            let thread = thread::Builder::new().name("verify".to_owned());
            // Where the system gives no thread, those that are there do it.
            threads.extend(thread.spawn_scoped(scope, || check_some(snapshot, ring, &walk, &mut |_| ())));
        }
        check_some(snapshot, ring, &walk, progress);
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
    let walk = walk.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress(walk.reached);
    walk
}

fn locked(walk: &Mutex<Walk>) -> MutexGuard<'_, Walk> {
    walk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one block after the other and checks it, until there is none or one is wrong. `progress` hears up to where
/// everything is right.
fn check_some(snapshot: &Snapshot, ring: &KeyRing, walk: &Mutex<Walk>, progress: &mut dyn FnMut(Seq)) {
    let mut findings = Findings::default();
    loop {
        let Some(Task { before, first, header }) = locked(walk).next() else { break };
        let (good, mut end) = (Seq(before.frontier.count()), before);
        let checked = read_header(first, &header)
            .and_then(|header| verify_block(&header, &snapshot.body(first)?, &mut end, ring, &mut findings));
        let mut shared = locked(walk);
        match checked {
            Ok(()) => shared.note_right(good, Seq(end.frontier.count())),
            Err(error) => shared.note_wrong(good, error),
        }
        let reached = shared.reached;
        drop(shared);
        progress(reached);
    }
    locked(walk).findings.add(findings);
}

/// Checks that a block continues the chain at `end`, is what its header says and can be decoded, and moves `end` behind it.
pub(crate) fn verify_block(
    header: &Header<'_>,
    body: &Value,
    end: &mut ChainEnd,
    ring: &KeyRing,
    findings: &mut Findings,
) -> Result<(), ReadError> {
    let wrong = |what: &str| Err(damaged(header.first, what));
    if header.first.0 != end.frontier.count() + 1 {
        return wrong("the block before it is missing");
    }
    if header.prev_root != end.frontier.root() {
        return wrong("it does not continue the chain: its root before differs from the one reached");
    }
    if header.first_at < end.recorded_at || header.last_at < header.first_at {
        return wrong("its time runs backwards");
    }
    let block = open_block(header, body)?;
    let contents = verify_events(&block, header, end, ring, findings)?;
    if end.frontier.root() != header.root || end.frontier != header.frontier().unwrap_or_default() {
        return wrong("its events do not lead to its root");
    }
    if end.recorded_at != header.last_at || end.bytes_through != header.bytes_through {
        return wrong("its header does not match its events");
    }
    contents.left_out_by(header).map_or(Ok(()), wrong)
}

/// Kinds, streams, actors and correlations of a block's events. Its header must know them: whoever looks for one passes over
/// a block whose header does not, and no hash is over what a header says of them.
#[derive(Default)]
struct Contents {
    kinds: u128,
    /// `None` where there is no filter to hold them to.
    items: Option<BlockItems>,
}

impl Contents {
    fn of_block(header: &Header<'_>) -> Self {
        Self { kinds: 0, items: (!header.filter.is_empty()).then(BlockItems::default) }
    }

    /// Takes in the number of an event's kind. Headers have no place for those from 128 on, which no event can be read with.
    fn note_kind(&mut self, kind: u8) {
        self.kinds |= 1_u128.checked_shl(u32::from(kind)).unwrap_or(0);
    }

    fn note(&mut self, envelope: &Envelope<'_>) {
        let Some(items) = &mut self.items else { return };
        items.push(Item::Stream, envelope.stream);
        items.push(Item::Actor, envelope.actor);
        if let Some(correlation) = envelope.correlation {
            items.push(Item::Correlation, correlation);
        }
    }

    /// What is wrong with the header if it does not know all of it.
    fn left_out_by(&self, header: &Header<'_>) -> Option<&'static str> {
        if self.kinds & !header.kinds != 0 {
            return Some("its header leaves out kinds of its events");
        }
        let all_in = self.items.as_ref().is_none_or(|items| items.may_be_in(header.filter));
        (!all_in).then_some("its header leaves out streams, actors or correlations of its events")
    }
}

fn verify_events(
    block: &Block<'_>,
    header: &Header<'_>,
    end: &mut ChainEnd,
    ring: &KeyRing,
    findings: &mut Findings,
) -> Result<Contents, ReadError> {
    let of_block = |what: &str, seq: Seq| damaged(header.first, format!("{what} ({seq})"));
    let mut bodies = Vec::with_capacity(block.count());
    for (seq, (_, stored)) in (header.first.0..).map(Seq).zip(block.unchecked()) {
        let stored = stored.ok_or_else(|| of_block("an event ends outside its block", seq))?;
        end.bytes_through += stored.len() as u64;
        bodies.push(stored);
    }
    let hashes = hash_each(&bodies);
    let (mut leaves, mut room) = (LeafBlocks::with_capacity(block.count()), Vec::new());
    let mut contents = Contents::of_block(header);
    let events = (header.first.0..).map(Seq).zip(block.unchecked()).zip(bodies.iter().zip(&hashes));
    for ((seq, (entry, _)), (stored, hash)) in events {
        let recorded_at = block.recorded_at(&entry);
        if recorded_at < end.recorded_at {
            return Err(of_block("time runs backwards", seq));
        }
        end.recorded_at = recorded_at;
        leaves.push(seq, recorded_at, entry.tag, &entry.body_hash);
        contents.note_kind(entry.tag.kind);
        if *hash == entry.body_hash
            && let Some(envelope) = read_in_place(stored, entry.tag)
        {
            contents.note(&envelope);
            continue;
        }
        let stored = Stored::of(stored, hash, &entry)
            .ok_or_else(|| of_block("an event does not match its hash", seq))?;
        let placed = Placed { seq, recorded_at, tag: entry.tag };
        findings.note(header.first, stored, placed, ring, &mut room, &mut contents)?;
    }
    end.frontier.extend(leaves.hashes());
    Ok(contents)
}

/// The envelope of these bytes, which are not compressed, if they are an event of those that are decoded where they lie. What
/// is not is for [`Findings::note`], which takes all that can be there, and more time.
fn read_in_place(stored: &[u8], tag: Tag) -> Option<Envelope<'_>> {
    let current =
        Kind::from_tag(tag.kind).filter(|kind| tag.version == upcast::version(*kind) && tag.flags == 0);
    let (kind, (envelope, payload)) = current.zip(cursor::envelope(stored))?;
    let is_read = envelope.subject_key.is_none() && codec::by_hand(kind, payload).is_some();
    is_read.then_some(envelope)
}

/// Checks one event of the block at `first` against its own hash, and that it can be decoded.
pub(crate) fn check_event(
    block: &Block<'_>,
    first: Seq,
    index: usize,
    ring: &KeyRing,
    findings: &mut Findings,
) -> Result<(), ReadError> {
    let (seq, entry): (Seq, Entry) = (block.seq(index), block.entry(index));
    let stored = block.stored(index).map_err(|what| damaged(first, format!("{what} ({seq})")))?;
    let placed = Placed { seq, recorded_at: block.recorded_at(&entry), tag: entry.tag };
    findings.note(first, stored, placed, ring, &mut Vec::new(), &mut Contents::default())
}

impl Findings {
    /// Decodes an event of the block at `first` as far as that is possible, and notes what is around its content.
    #[inline(never)]
    fn note(
        &mut self,
        first: Seq,
        stored: Stored<'_>,
        placed: Placed,
        ring: &KeyRing,
        room: &mut Vec<u8>,
        contents: &mut Contents,
    ) -> Result<(), ReadError> {
        if let Stored::Redacted(order) = stored {
            let seq = placed.seq;
            // An order takes what stands before it, whichever log has it: positions before a cut are the same in all of them.
            if order <= seq {
                let what = format!("it was not erased by {order}, which does not lie behind it ({seq})");
                return Err(damaged(first, what));
            }
            *self.named.entry(order).or_default() += 1;
        }
        let found = opened::look(stored, placed, ring, room, |envelope| {
            if let Some(envelope) = envelope {
                contents.note(envelope);
            }
            true
        });
        match found.map_err(|error| unreadable(first, placed.seq, error))? {
            Some(FoundRef::Record(record)) => {
                if let EventRef::Other(Event::System(SystemEvent::ErasureOrdered { .. })) = record.event()? {
                    self.orders.insert(placed.seq);
                }
            }
            Some(FoundRef::Sealed(sealed)) if sealed.erased_by.is_some() => self.erased += 1,
            Some(FoundRef::Sealed(_)) => self.unread += 1,
            None => (),
        }
        Ok(())
    }

    /// Events whose order is not in the log, which ends at `end`. What lies up to there can only be missing where the log was
    /// `noted` to have lost its end once: as a fork, or restored up to a point. It has gone on since.
    fn erased_later(
        &self,
        end: Seq,
        noted: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<u64, ReadError> {
        let missing = self.named.iter().filter(|(order, _)| !self.orders.contains(order));
        let missing: Vec<(Seq, u64)> = missing.map(|(order, events)| (*order, *events)).collect();
        if let Some((order, _)) = missing.iter().find(|(order, _)| *order <= end)
            && !noted()?
        {
            let what = format!("events say that they were erased by {order}, which is no order to erase");
            return Err(damaged(*order, what));
        }
        Ok(missing.iter().map(|(_, events)| events).sum())
    }

    fn add(&mut self, mut other: Self) {
        self.erased += other.erased;
        self.unread += other.unread;
        for (order, events) in other.named {
            *self.named.entry(order).or_default() += events;
        }
        self.orders.append(&mut other.orders);
    }
}

/// Checks every row of a key: its checksum, and that it points into the log.
fn verify_keys(snapshot: &Snapshot, extent: Extent, head: Seq) -> Result<u64, ReadError> {
    let check = |key: &str, row: &[u8]| {
        let points_into_log =
            |row: &KeyRow| Seq::FIRST <= row.first && row.first <= row.last && row.last <= head;
        let right = keys::decode(key, row).is_some_and(|row| points_into_log(&row));
        if right { Ok(()) } else { Err(ReadError::Key { key: key.to_owned() }) }
    };
    let mut count = 0;
    snapshot.each_own_key(&mut |key, row| {
        count += 1;
        check(key, row)
    })?;
    let counted = snapshot.own_key_count()?;
    if counted != count {
        return Err(ReadError::Key { key: format!("{count} of {counted}") });
    }
    if extent == Extent::All {
        snapshot.each_sealed_key(&mut |key, row| {
            count += 1;
            check(key, row)
        })?;
    }
    Ok(count)
}
