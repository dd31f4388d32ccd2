//! Finding the last state that was flushed.

use std::cmp::Reverse;
use std::io;

use redb::StorageBackend;

use super::layout::{PAGE, RING, RING_BYTES, Record, SUPERBLOCK_BYTES, Superblock, WAL_BYTES, checksum};
use super::{State, read_padded};

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The superblock in force, and the state as of the last record that counts.
pub(super) fn recover(medium: &dyn StorageBackend) -> io::Result<(Superblock, State)> {
    let superblock = newest_superblock(medium)?.ok_or_else(|| damaged("it has no superblock"))?;
    let (superblock, state) = last_state(medium, superblock)?;
    if state.missing_bytes > 0 { Err(damaged("it is cut short")) } else { Ok((superblock, state)) }
}

/// The same for a medium whose end may be missing, as [`State::missing_bytes`] says, and whose superblocks may be
/// damaged, as [`State::damaged`] says.
pub(super) fn recover_remains(medium: &dyn StorageBackend) -> io::Result<(Superblock, State)> {
    let newest = newest_superblock(medium)?;
    if let Some(superblock) = newest
        && let Ok(recovered) = last_state(medium, superblock)
    {
        return Ok(recovered);
    }
    recover_by_records(medium)
}

/// The state as of the last records that are there, whether they count or not: pages that were brought home since lie in
/// them once more.
pub(super) fn recover_by_records(medium: &dyn StorageBackend) -> io::Result<(Superblock, State)> {
    let newest = newest_superblock(medium)?;
    let (ring_bytes, wal_bytes) =
        newest.map_or((RING_BYTES, WAL_BYTES), |superblock| (superblock.ring_bytes, superblock.wal_bytes));
    let seed = newest.map_or(0, |superblock| superblock.seed);
    let mut superblock = Superblock { generation: 0, ring_bytes, len: 0, wal_bytes, seed };
    superblock.len = medium.len()?.saturating_sub(superblock.home());
    // Each generation begins at the front of the ring.
    let first = Record::read(&read_ring(medium, ring_bytes)?, 0);
    superblock.generation = first.map_or(0, |record| record.header.generation);
    let (superblock, state) = last_state(medium, superblock)?;
    Ok((superblock, State { damaged: true, ..state }))
}

fn read_ring(medium: &dyn StorageBackend, ring_bytes: u64) -> io::Result<Vec<u8>> {
    let mut ring = vec![0; ring_bytes as usize];
    read_padded(medium, RING, &mut ring)?;
    Ok(ring)
}

fn last_state(medium: &dyn StorageBackend, superblock: Superblock) -> io::Result<(Superblock, State)> {
    let bytes = medium.len()?;
    let Superblock { generation, ring_bytes, len, .. } = superblock;
    let home = superblock.home();
    let mut records = records(&read_ring(medium, ring_bytes)?, generation)?;
    // Only the last one can be from a flush that did not end; nobody was told of it.
    let unended = match records.last() {
        Some(last) if !is_complete(medium, home, last)? => records.pop(),
        Some(_) | None => None,
    };
    let flushed_len = records.last().map_or(len, |record| record.header.len);
    // The medium was longer than it is when that flush began, so it is no sign of a flush that did not end that a page
    // behind the end of the medium is not there.
    if home + flushed_len > bytes
        && let Some(last) = unended
        && is_right(medium, home, &last)?
    {
        records.push(last);
    }
    let mut state = State { len, generation, ..State::default() };
    for record in records {
        for (offset, named) in &record.named {
            state.overlay.cover(*offset, offset + named.len);
        }
        for (offset, piece) in record.pieces() {
            state.overlay.put(offset, piece, false);
        }
        state.len = record.header.len;
        state.records += 1;
        state.position += record.length();
        state.held = record.named;
    }
    state.flushed_len = state.len;
    let ends = state.held.iter().map(|(offset, named)| home + offset + named.len);
    state.missing_bytes = ends.chain([home + state.len]).max().unwrap_or_default().saturating_sub(bytes);
    // All of the medium: the last record may name a page behind the length that it gives.
    state.reached = bytes.saturating_sub(home);
    Ok((superblock, state))
}

fn newest_superblock(medium: &dyn StorageBackend) -> io::Result<Option<Superblock>> {
    let bytes = medium.len()?;
    let mut found = Vec::new();
    for place in Superblock::places() {
        if bytes >= place + PAGE {
            let mut read = [0; SUPERBLOCK_BYTES];
            medium.read(place, &mut read)?;
            found.extend(Superblock::decode(&read));
        }
    }
    found.sort_unstable_by_key(|superblock: &Superblock| Reverse(superblock.generation));
    // The newest one may be of a program that does not keep the seed.
    let seed = found.iter().map(|superblock| superblock.seed).find(|seed| *seed != 0).unwrap_or_default();
    Ok(found.first().map(|newest| Superblock { seed, ..*newest }))
}

/// The records of `generation`, in their order, up to the first that is missing or torn.
fn records(ring: &[u8], generation: u64) -> io::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    let mut position = 0;
    while let Some(record) = Record::read(ring, position) {
        if record.header.generation > generation {
            return Err(damaged("its newest superblock is damaged"));
        }
        if record.header.generation < generation || record.header.number != records.len() as u64 + 1 {
            break;
        }
        position += record.length();
        records.push(record);
    }
    Ok(records)
}

/// Whether everything that a record names is there.
fn is_complete(medium: &dyn StorageBackend, home: u64, record: &Record) -> io::Result<bool> {
    let bytes = medium.len()?;
    let mut ends = record.named.iter().map(|(offset, named)| home + offset + named.len);
    Ok(bytes >= home + record.header.len && ends.all(|end| end <= bytes) && is_right(medium, home, record)?)
}

/// Whether what a record names is what was written, as far as the medium reaches.
fn is_right(medium: &dyn StorageBackend, home: u64, record: &Record) -> io::Result<bool> {
    let bytes = medium.len()?;
    for (offset, named) in &record.named {
        if bytes < home + offset + named.len {
            continue;
        }
        let mut page = vec![0; named.len as usize];
        medium.read(home + offset, &mut page)?;
        if checksum(&page) != named.checksum {
            return Ok(false);
        }
    }
    Ok(true)
}
