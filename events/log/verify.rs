//! Walking the whole chain: every hash again, from the first event to the last.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Event;
use crate::id::Seq;
use crate::log::block::{Block, Stored};
use crate::log::blocks::{Value, damaged, next_header, open_block, read_header};
use crate::log::chain::{Hash, leaf};
use crate::log::header::Header;
use crate::log::keys;
use crate::log::pack::ChainEnd;
use crate::log::reader::KeyRow;
use crate::log::scan::{ReadError, unreadable};
use crate::log::sealing::KeyRing;
use crate::log::sealing::opened::{self, Found, Placed, SealedRecord};
use crate::log::store::{Snapshot, StoreError};
use crate::system::SystemEvent;

/// What [`Reader::verify`](crate::log::Reader::verify) found in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verified {
    /// Events checked.
    pub events: u64,
    /// Blocks checked.
    pub blocks: u64,
    /// Of these, events whose content was erased.
    pub erased: u64,
    /// Of the erased ones, those whose order lies behind the end of this log, which is a fork or was restored up to a point.
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
    erased: u64,
    unread: u64,
    /// Orders that events say they were erased by, with how many do, and the orders there are.
    named: BTreeMap<Seq, u64>,
    orders: BTreeSet<Seq>,
}

pub(crate) fn verify(
    snapshot: Result<Snapshot, StoreError>,
    extent: Extent,
    ring: &KeyRing,
    progress: &mut dyn FnMut(Seq),
) -> Result<Verified, VerifyError> {
    let at_start = |error: StoreError| VerifyError::Block { good: Seq::ZERO, source: error.into() };
    let snapshot = snapshot.map_err(at_start)?;
    let mut end = match extent {
        Extent::All => snapshot.past.start.clone(),
        Extent::Own => {
            snapshot.own_start().map_err(|source| VerifyError::Block { good: Seq::ZERO, source })?
        }
    };
    let before = end.frontier.count();
    let mut headers = snapshot.headers_from(Seq(before + 1)).map_err(at_start)?;
    let mut findings = Findings::default();
    let mut blocks = 0;
    loop {
        let good = Seq(end.frontier.count());
        let stop = |source: ReadError| VerifyError::Block { good, source };
        let Some((first, value)) = next_header(&mut headers, false).map_err(|error| stop(error.into()))?
        else {
            break;
        };
        if first.0 <= before {
            // Where the log's own file has no block yet, the one found is that before it.
            continue;
        }
        let body = snapshot.body(first).map_err(stop)?;
        read_header(first, &value)
            .and_then(|header| verify_block(&header, &body, &mut end, ring, &mut findings))
            .map_err(stop)?;
        blocks += 1;
        progress(Seq(end.frontier.count()));
    }
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
    let Findings { erased, unread, named, orders } = findings;
    let mut erased_later = 0;
    for (order, events) in named.iter().filter(|(order, _)| !orders.contains(order)) {
        if *order > good {
            erased_later += events;
            continue;
        }
        let what = format!("events say that they were erased by {order}, which is no order to erase");
        return Err(VerifyError::Block { good, source: damaged(*order, what) });
    }
    let root = end.frontier.root();
    Ok(Verified { events: good.0 - before, blocks, erased, erased_later, unread, keys, root })
}

/// Checks that a block continues the chain at `end` and is what its header says, and moves `end` behind it.
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
    verify_events(&block, header, end, ring, findings)?;
    if end.frontier.root() != header.root || end.frontier != header.frontier().unwrap_or_default() {
        return wrong("its events do not lead to its root");
    }
    if end.recorded_at != header.last_at || end.bytes_through != header.bytes_through {
        return wrong("its header does not match its events");
    }
    Ok(())
}

fn verify_events(
    block: &Block<'_>,
    header: &Header<'_>,
    end: &mut ChainEnd,
    ring: &KeyRing,
    findings: &mut Findings,
) -> Result<(), ReadError> {
    for index in 0..block.count() {
        let (seq, entry) = (block.seq(index), block.entry(index));
        let recorded_at = block.recorded_at(&entry);
        let of_block = |what: &str| damaged(header.first, format!("{what} ({seq})"));
        if recorded_at < end.recorded_at {
            return Err(of_block("time runs backwards"));
        }
        let stored = block.stored(index).map_err(of_block)?;
        end.bytes_through += block.raw(index).unwrap_or_default().len() as u64;
        let placed = Placed { seq, recorded_at, tag: entry.tag };
        let found = opened::open(stored, placed, ring, |_| true);
        findings.note(stored, found.map_err(|error| unreadable(header.first, seq, error))?);
        end.frontier.push(leaf(seq, recorded_at, entry.tag, &entry.body_hash));
        end.recorded_at = recorded_at;
    }
    Ok(())
}

impl Findings {
    fn note(&mut self, stored: Stored<'_>, found: Option<Found>) {
        if let Stored::Redacted(order) = stored {
            *self.named.entry(order).or_default() += 1;
        }
        match found {
            Some(Found::Sealed(SealedRecord { erased_by: Some(_), .. })) => self.erased += 1,
            Some(Found::Sealed(_)) => self.unread += 1,
            Some(Found::Record(record)) => {
                if matches!(record.event, Event::System(SystemEvent::ErasureOrdered { .. })) {
                    self.orders.insert(record.seq);
                }
            }
            None => (),
        }
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
