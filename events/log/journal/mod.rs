//! A redo journal below redb, in the same file: what redb commits becomes durable with one sync, in two places.
//!
//! redb alone syncs twice for each commit and scatters a dozen small pages. Here redb's syncs are only order marks;
//! [`Journal::flush`], called after each commit that must last, makes everything written so far durable at once, or
//! nothing of it: small pages and redb's header go into one record of the journal, large pages go to their place, and
//! the record names each of them with its checksum. After a crash the last record counts only if it is whole and all that
//! it names is there, which is the state before the flush or the one after it. The journal is emptied by writing its
//! pages home ([`Journal::checkpoint`]) when it is half full and when the log is closed.
//!
//! Writing large pages straight to their place is safe because redb never overwrites, but for its header, what its
//! last commit refers to. A flush at any time is safe because redb must survive a crash between any two writes.
//!
//! The scheme is that of physical redo logging with ordered data (J. Gray, A. Reuter, *Transaction Processing*, 1993,
//! §10.3; ext4's `data=ordered`).
//!
//! Between the ring and redb's part lies the write-ahead log, which the journal only writes, syncs and reads: its records
//! stand in no relation to pages.
//!
//! Reading order: `layout` (what is where), `overlay` (pages that are not home yet), `recovery`, this file; `wal` is the
//! part of small commits, `file` the medium below, where that is a file, `remains` serves what is left of a damaged one.

mod file;
mod flush;
mod layout;
mod overlay;
mod recovery;
mod remains;
#[cfg(test)]
mod tests;
mod wal;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::StorageBackend;

pub(crate) use file::FileMedium;
use flush::Flight;
pub(crate) use flush::Sealed;
use layout::{Named, RING, Superblock};
pub(crate) use layout::{PAGE, RING_BYTES, WAL_BYTES};
use overlay::Overlay;
pub(crate) use remains::Remains;
use remains::Tolerant;
pub(crate) use wal::Logged;

/// Writes of at least so many bytes go straight to their place.
const LARGE_BYTES: usize = 32 << 10;

/// The journal of one file, and with it the file as redb sees it.
#[derive(Debug)]
pub(crate) struct Journal {
    medium: Box<dyn StorageBackend>,
    writable: bool,
    ring_bytes: u64,
    wal_bytes: u64,
    /// Where redb's part begins.
    home: u64,
    state: RwLock<State>,
    flight: Flight,
    /// Whether the medium is not written any more: what redb writes stays in memory.
    frozen: AtomicBool,
    /// The memory of records that landed, for the next ones.
    buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Pages that are not home yet.
    overlay: Overlay,
    /// Large writes since the last flush: where, how long, and their checksum.
    large: BTreeMap<u64, Named>,
    /// What the last record names: it must stay as it is, for that record to count after a crash.
    held: BTreeMap<u64, Named>,
    /// Length of the file as redb sees it.
    len: u64,
    /// The same when it was last flushed.
    flushed_len: u64,
    /// Nothing was ever written from here on, so no state refers to it.
    reached: u64,
    /// Bytes that are missing at the end of the medium: it is damaged, and they read as zeros.
    missing_bytes: u64,
    /// Whether no superblock is right, so that what is where is a guess, or what redb has is known to be damaged.
    damaged: bool,
    /// Of the superblock in force.
    generation: u64,
    /// Seed of the write-ahead log's records, for every superblock to come; 0 where none is kept.
    seed: u64,
    /// The same in the superblock in force.
    kept_seed: u64,
    /// Records of this generation.
    records: u64,
    /// Where in the ring the next record goes.
    position: u64,
    /// Whether a write or a sync failed: what is on the medium since is unknown.
    failed: bool,
}

impl State {
    fn is_flushed(&self) -> bool {
        self.overlay.unsaved_bytes() == 0 && self.large.is_empty() && self.len == self.flushed_len
    }

    /// Whether a large write may go to its place now.
    fn is_free(&self, offset: u64, len: u64) -> bool {
        let end = offset + len;
        let same = self.large.get(&offset).is_some_and(|named| named.len == len);
        (same || !overlaps(&self.large, offset, end))
            && !overlaps(&self.held, offset, end)
            && self.overlay.cuts_nothing(offset, end)
    }
}

/// Reads what is there; what lies behind the end of the medium reads as zeros.
fn read_padded(medium: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let there = medium.len()?.saturating_sub(offset).min(out.len() as u64) as usize;
    let (there, beyond) = out.split_at_mut(there);
    if !there.is_empty() {
        medium.read(offset, there)?;
    }
    beyond.fill(0);
    Ok(())
}

fn overlaps(places: &BTreeMap<u64, Named>, offset: u64, end: u64) -> bool {
    places.range(..end).next_back().is_some_and(|(start, named)| start + named.len > offset)
}

impl Journal {
    /// Lays out an empty medium.
    ///
    /// # Errors
    ///
    /// The medium's.
    pub(crate) fn create(
        medium: Box<dyn StorageBackend>,
        ring_bytes: u64,
        wal_bytes: u64,
    ) -> io::Result<Arc<Self>> {
        // Written and not only reserved: a record must never wait for the file system to allocate.
        medium.write(RING, &vec![0; (ring_bytes + wal_bytes) as usize])?;
        let superblock = Superblock { generation: 1, ring_bytes, len: 0, wal_bytes, seed: 0 };
        medium.write(superblock.place(), &superblock.encode())?;
        medium.sync_data()?;
        let state = State { generation: 1, ..State::default() };
        Ok(Self::new(medium, true, &superblock, state))
    }

    /// Opens a medium and finds the last state that was flushed, in memory: the medium is not written.
    ///
    /// # Errors
    ///
    /// The medium's, and [`io::ErrorKind::InvalidData`] where it holds no journal or a damaged one.
    pub(crate) fn open(medium: Box<dyn StorageBackend>, writable: bool) -> io::Result<Arc<Self>> {
        if writable {
            // What a process wrote and did not sync before it ended may be found and not be on the medium yet.
            medium.sync_data()?;
        }
        let (superblock, state) = recovery::recover(medium.as_ref())?;
        Ok(Self::new(medium, writable, &superblock, state))
    }

    /// Opens a medium that will never be written: what redb writes to it, to settle what was left open, stays in memory.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(crate) fn open_frozen(medium: Box<dyn StorageBackend>) -> io::Result<Arc<Self>> {
        let journal = Self::open(medium, false)?;
        journal.freeze();
        Ok(journal)
    }

    /// Opens what is left of a medium, of which nothing is written; what is missing at its end or cannot be read is zeros, and
    /// what its superblocks do not say is guessed.
    ///
    /// # Errors
    ///
    /// The medium's.
    pub(crate) fn open_remains(medium: Box<dyn StorageBackend>) -> io::Result<Arc<Self>> {
        let medium: Box<dyn StorageBackend> = Box::new(Tolerant(medium));
        let (superblock, state) = recovery::recover_remains(medium.as_ref())?;
        Ok(Self::new(medium, false, &superblock, state))
    }

    /// The same with the pages as the last records have them, whether these count or not.
    ///
    /// # Errors
    ///
    /// The medium's.
    pub(crate) fn open_records(medium: Box<dyn StorageBackend>) -> io::Result<Arc<Self>> {
        let medium: Box<dyn StorageBackend> = Box::new(Tolerant(medium));
        let (superblock, state) = recovery::recover_by_records(medium.as_ref())?;
        Ok(Self::new(medium, false, &superblock, state))
    }

    /// Bytes that are missing at the end of the medium.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.state().missing_bytes
    }

    /// Whether no superblock of the medium is right, or damage was noted.
    pub(crate) fn is_damaged(&self) -> bool {
        self.state().damaged
    }

    /// Notes that what redb has is damaged.
    pub(crate) fn note_damage(&self) {
        self.state_mut().damaged = true;
    }

    /// From now on the medium stays as it is: what redb writes, as it does when it is closed, stays in memory.
    ///
    /// What must last has to be home before: see [`checkpoint`](Self::checkpoint).
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Release);
    }

    fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    fn new(
        medium: Box<dyn StorageBackend>,
        writable: bool,
        superblock: &Superblock,
        state: State,
    ) -> Arc<Self> {
        let seed = superblock.seed;
        let state = State { seed, kept_seed: seed, ..state };
        Arc::new(Self {
            medium,
            writable,
            ring_bytes: superblock.ring_bytes,
            wal_bytes: superblock.wal_bytes,
            home: superblock.home(),
            state: RwLock::new(state),
            flight: Flight::default(),
            frozen: AtomicBool::new(false),
            buffers: Mutex::default(),
        })
    }

    /// The medium as redb uses it.
    pub(crate) fn backend(self: &Arc<Self>) -> Backend {
        Backend(Arc::clone(self))
    }

    /// The medium as redb uses it to serve what is left of it.
    pub(crate) fn remains(self: &Arc<Self>) -> Remains {
        Remains(self.backend())
    }

    /// Keeps the seed of the write-ahead log's records in every superblock from now on, where it is found although the tables are
    /// not. It is on the medium when this returns.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub(crate) fn keep_seed(self: &Arc<Self>, seed: [u8; 8]) -> io::Result<()> {
        let seed = u64::from_le_bytes(seed);
        if self.state().kept_seed == seed {
            return Ok(());
        }
        self.state_mut().seed = seed;
        self.checkpoint()
    }

    /// The seed that a superblock keeps.
    pub(crate) fn kept_seed(&self) -> Option<[u8; 8]> {
        let seed = self.state().kept_seed;
        (seed != 0).then(|| seed.to_le_bytes())
    }

    /// Brings home what the records hold, and begins a new generation. Everything must be flushed.
    fn empty(&self) -> io::Result<()> {
        self.check()?;
        let (next, shrinks, written) = {
            let state = self.state();
            if state.position == 0 && state.seed == state.kept_seed {
                return Ok(());
            }
            let mut pieces = state.overlay.pieces();
            let written = pieces.try_for_each(|(offset, bytes)| self.medium.write(self.home + offset, bytes));
            let (generation, len) = (state.generation + 1, state.len);
            let (ring_bytes, wal_bytes) = (self.ring_bytes, self.wal_bytes);
            let next = Superblock { generation, ring_bytes, len, wal_bytes, seed: state.seed };
            (next, self.medium.len()? > self.home + len, written)
        };
        let superseded = written
            .and_then(|()| self.medium.sync_data())
            .and_then(|()| self.medium.write(next.place(), &next.encode()))
            .and_then(|()| self.medium.sync_data());
        if let Err(error) = superseded {
            return self.fail(error);
        }
        let mut state = self.state_mut();
        state.overlay.clear();
        state.held.clear();
        (state.generation, state.records, state.position) = (next.generation, 0, 0);
        state.kept_seed = next.seed;
        drop(state);
        if shrinks {
            self.medium.set_len(self.home + next.len).or_else(|error| self.fail(error))
        } else {
            Ok(())
        }
    }

    /// Writes a large page to its place.
    fn write_home(self: &Arc<Self>, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset >= self.state().reached {
            self.flight.wait_for_room();
        } else {
            self.flight.wait_for_all();
        }
        self.check()?;
        let len = data.len() as u64;
        let (free, full) = {
            let state = self.state();
            (state.is_free(offset, len), state.large.len() as u64 >= self.ring_bytes / 256)
        };
        if !free {
            self.checkpoint()?;
        } else if full {
            self.flush()?;
        }
        if let Err(error) = self.medium.write(self.home + offset, data) {
            return self.fail(error);
        }
        let named = Named { len, checksum: layout::checksum(data) };
        let mut state = self.state_mut();
        state.overlay.cover(offset, offset + len);
        state.large.insert(offset, named);
        state.reached = state.reached.max(offset + len);
        Ok(())
    }

    /// Keeps a small page for the next record.
    fn write_small(self: &Arc<Self>, offset: u64, data: &[u8]) -> io::Result<()> {
        self.flight.wait_for_room();
        self.check()?;
        // A quarter of the ring is free for it: records begin in its first half.
        if self.state().overlay.unsaved_bytes() + data.len() > self.ring_bytes as usize / 4 {
            self.flush()?;
        }
        let mut state = self.state_mut();
        state.overlay.put(offset, data, true);
        state.reached = state.reached.max(offset + data.len() as u64);
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        if self.state().failed { Err(io::Error::other("an earlier write failed")) } else { Ok(()) }
    }

    fn fail<T>(&self, error: io::Error) -> io::Result<T> {
        self.state_mut().failed = true;
        Err(error)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn buffer(&self) -> Vec<u8> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Vec<u8>) {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

/// The file as redb sees it: without the journal in front.
#[derive(Debug)]
pub(crate) struct Backend(Arc<Journal>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        // Held until the bytes are there: a page must not move home between the two looks.
        let state = self.0.state();
        if state.len < offset + out.len() as u64 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        if state.overlay.read_whole(offset, out) {
            return Ok(());
        }
        let place = self.0.home + offset;
        // What a frozen file was made longer by is in memory alone.
        if self.0.is_frozen() || state.missing_bytes > 0 {
            read_padded(self.0.medium.as_ref(), place, out)?;
        } else {
            self.0.medium.read(place, out)?;
        }
        state.overlay.patch(offset, out);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.0.is_frozen() {
            self.0.state_mut().len = len;
            return Ok(());
        }
        self.0.flight.wait_for_room();
        self.0.check()?;
        // It is made shorter only when the journal is empty: a record may still name what is cut off.
        if self.0.medium.len()? < self.0.home + len {
            self.0.medium.set_len(self.0.home + len).or_else(|error| self.0.fail(error))?;
        }
        self.0.state_mut().len = len;
        Ok(())
    }

    /// An order mark: [`Journal::flush`] is what makes durable, and it keeps the order by doing all or nothing.
    fn sync_data(&self) -> io::Result<()> {
        self.0.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.0.is_frozen() {
            self.0.state_mut().overlay.put(offset, data, false);
            return Ok(());
        }
        // redb overwrites its first page in place.
        if offset >= PAGE && data.len() >= LARGE_BYTES {
            self.0.write_home(offset, data)
        } else {
            self.0.write_small(offset, data)
        }
    }

    fn close(&self) -> io::Result<()> {
        if self.0.writable && !self.0.is_frozen() && !self.0.state().failed {
            self.0.checkpoint()?;
        }
        self.0.medium.close()
    }
}
