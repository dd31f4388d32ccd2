//! Where a log that is being opened ends: by its last block, and by what its write-ahead log has beyond it.

use std::sync::Arc;

use crate::id::Seq;
use crate::log::blocks::{Value, damaged, next_header, read_header};
use crate::log::header::Header;
use crate::log::journal::Journal;
use crate::log::pack::ChainEnd;
use crate::log::salvage::last_readable;
use crate::log::scan::ReadError;
use crate::log::sealing::KeyRing;
use crate::log::store::{Database, Own, Snapshot, StoreError};
use crate::log::verify::{Findings, verify_block};
use crate::log::wal::{self, Seed, WalBlock};

/// The blocks of the write-ahead log that continue the chain at `end`, which is moved behind them.
///
/// What was overwritten or torn is no record. A record that does not follow on what is there shows that one before it was
/// lost, which was durable: it is damage.
pub(crate) fn check_recent(
    database: &Database,
    journal: &Journal,
    seed: Seed,
    end: &mut ChainEnd,
) -> Result<Vec<Arc<WalBlock>>, ReadError> {
    let live = live_records(database, journal, seed)?;
    for block in &live {
        let header =
            Header::decode(block.first, block.header()).map_err(|what| damaged(block.first, what))?;
        verify_block(&header, &Value::body_of(block), end, &KeyRing::default(), &mut Findings::default())?;
    }
    Ok(live)
}

/// The whole records of the write-ahead log that are not in the tables.
fn live_records(
    database: &Database,
    journal: &Journal,
    seed: Seed,
) -> Result<Vec<Arc<WalBlock>>, StoreError> {
    let wal = journal.read_wal().map_err(StoreError::Io)?;
    let stored = database.stored_seq()?;
    let mut live = wal::records(seed, &wal);
    live.retain(|block| block.first > stored);
    Ok(live)
}

/// Checks the last block against the one before it; the end of the chain.
pub(crate) fn check_end(database: &Database) -> Result<ChainEnd, ReadError> {
    let snapshot = database.snapshot(Seq(u64::MAX))?;
    let mut headers = snapshot.headers_until(Seq(u64::MAX))?;
    let Some((first, value)) = next_header(&mut headers, true)? else {
        return Ok(database.past.start.clone());
    };
    let header = read_header(first, &value)?;
    let mut end = database.past.start.clone();
    if let Some((before, value)) = next_header(&mut headers, true)? {
        let before = read_header(before, &value)?;
        end.frontier = before.frontier().ok_or_else(|| damaged(before.first, "its peaks do not fit"))?;
        (end.bytes_through, end.recorded_at) = (before.bytes_through, before.last_at);
    }
    let body = snapshot.body(first)?;
    verify_block(&header, &body, &mut end, &KeyRing::default(), &mut Findings::default())?;
    Ok(end)
}

/// The end of what is left of a log, on the word of the last header that is right. Readers are shown what stands in the
/// write-ahead log behind the tables, whether it continues the chain or not.
pub(crate) fn end_of_remains(
    database: &Database,
    journal: &Journal,
    seed: Seed,
) -> Result<ChainEnd, ReadError> {
    let snapshot = database.snapshot(Seq(u64::MAX))?;
    let stored = last_right_header(&snapshot);
    let reached = stored.as_ref().unwrap_or(&snapshot.past.start).frontier.count();
    let mut live = wal::records(seed, &journal.read_wal().map_err(StoreError::Io)?);
    live.retain(|block| block.first.0 > reached);
    live.sort_by_key(|block| block.first);
    let logged = live.iter().rev().find_map(|block| {
        let header = Header::decode(block.first, block.header()).ok()?;
        end_behind(&header)
    });
    if let Own::ReadOnly(read_only) = &database.own {
        read_only.show(live);
    }
    logged.map_or(stored, Ok)
}

/// The end of the chain on the word of the last header of the tables that is right.
fn last_right_header(snapshot: &Snapshot) -> Result<ChainEnd, ReadError> {
    let from_the_end = || {
        let mut headers = snapshot.headers_until(Seq(u64::MAX))?;
        while let Some((first, value)) = next_header(&mut headers, true)? {
            if let Some(end) = read_header(first, &value).ok().as_ref().and_then(end_behind) {
                return Ok(Some(end));
            }
        }
        Ok::<_, StoreError>(None)
    };
    match from_the_end() {
        Ok(end) => Ok(end.unwrap_or_else(|| snapshot.past.start.clone())),
        // Where the pages of the end are damaged, what lies before them is found from the front.
        Err(error) => last_readable(snapshot, end_behind).ok_or_else(|| error.into()),
    }
}

/// The end of the chain behind a block, on the word of its header.
fn end_behind(header: &Header<'_>) -> Option<ChainEnd> {
    let frontier = header.frontier()?;
    Some(ChainEnd { frontier, bytes_through: header.bytes_through, recorded_at: header.last_at })
}
