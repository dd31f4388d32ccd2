//! A disk in memory that can lose its power, fail or fill up at any operation.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use redb::StorageBackend;

use super::Random;

/// What happens from a given operation on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) enum Fault {
    /// Every operation fails.
    Dead,
    /// Writes and growth fail, reads and syncs do not.
    Full,
    /// Syncs fail, writes do not.
    SyncFails,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Debug, Default)]
struct State {
    /// What a reader of the running system sees.
    live: Vec<u8>,
    /// What was on the medium at the last sync.
    synced: Vec<u8>,
    /// What was changed since.
    pending: Vec<Change>,
    operations: u64,
    syncs: u64,
    /// Bytes that were read.
    read: u64,
    fault: Option<(u64, Fault)>,
    /// Whether syncs wait.
    holds_syncs: bool,
    /// Syncs that wait.
    held: u64,
}

/// A handle to the disk; clones share it.
#[derive(Debug, Clone, Default)]
pub(in crate::log) struct Disk(Arc<(Mutex<State>, Condvar)>);

/// How much of what was not synced reached the medium.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) enum Survives {
    Nothing,
    Everything,
    /// A part of the changes, in any order, one of them torn; drawn from the seed.
    Some(u64),
}

impl Disk {
    /// A disk that holds these bytes.
    pub(in crate::log) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.with(|state| (state.live, state.synced) = (bytes.clone(), bytes));
        disk
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.0.lock().unwrap())
    }

    /// From the `at`-th write, growth or sync on (from 0), the fault holds.
    pub(in crate::log) fn fail_at(&self, at: u64, fault: Fault) {
        self.with(|state| state.fault = Some((at, fault)));
    }

    /// Writes, growths and syncs so far.
    pub(in crate::log) fn operations(&self) -> u64 {
        self.with(|state| state.operations)
    }

    /// Bytes read so far.
    pub(in crate::log) fn read_bytes(&self) -> u64 {
        self.with(|state| state.read)
    }

    pub(in crate::log) fn syncs(&self) -> u64 {
        self.with(|state| state.syncs)
    }

    /// Blocks until there were more than `seen` syncs.
    pub(in crate::log) fn wait_for_sync_after(&self, seen: u64) {
        let guard = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(guard, |state| state.syncs <= seen).unwrap());
    }

    /// From now on syncs wait until they are let go.
    pub(in crate::log) fn hold_syncs(&self) {
        self.with(|state| state.holds_syncs = true);
    }

    /// Blocks until a sync waits.
    pub(in crate::log) fn wait_for_held_sync(&self) {
        let guard = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(guard, |state| state.held == 0).unwrap());
    }

    /// Lets go what waits, and what comes.
    pub(in crate::log) fn let_syncs_go(&self) {
        self.with(|state| state.holds_syncs = false);
        self.0.1.notify_all();
    }

    /// Waits where syncs are held.
    fn pass(&self) {
        let mut guard = self.0.0.lock().unwrap();
        guard.held += 1;
        self.0.1.notify_all();
        let mut guard = self.0.1.wait_while(guard, |state| state.holds_syncs).unwrap();
        guard.held -= 1;
    }

    /// Everything as the running system sees it.
    pub(in crate::log) fn bytes(&self) -> Vec<u8> {
        self.with(|state| state.live.clone())
    }

    /// The medium after a loss of power.
    pub(in crate::log) fn after_power_cut(&self, survives: Survives) -> Self {
        let (mut image, mut pending) = self.with(|state| (state.synced.clone(), state.pending.clone()));
        match survives {
            Survives::Nothing => pending.clear(),
            Survives::Everything => (),
            Survives::Some(seed) => {
                let mut random = Random::new(seed);
                pending.retain(|_| random.below(3) != 0);
                if !pending.is_empty() {
                    let torn = random.below(pending.len() as u64) as usize;
                    if let Change::Write(_, data) = &mut pending[torn] {
                        data.truncate(random.below(data.len() as u64 + 1) as usize);
                    }
                }
            }
        }
        for change in &pending {
            apply(&mut image, change);
        }
        Self::holding(image)
    }

    fn operate(&self, change: Option<Change>) -> io::Result<()> {
        let done = self.with(|state| {
            let now = state.operations;
            state.operations += 1;
            let fault = state.fault.filter(|(at, _)| *at <= now).map(|(_, fault)| fault);
            match (fault, &change) {
                (Some(Fault::Dead), _) => return Err(io::Error::other("the power is gone")),
                (Some(Fault::Full), Some(_)) => return Err(io::Error::from(io::ErrorKind::StorageFull)),
                (Some(Fault::SyncFails), None) => return Err(io::Error::other("the sync failed")),
                (Some(Fault::Full | Fault::SyncFails) | None, _) => (),
            }
            if let Some(change) = change {
                apply(&mut state.live, &change);
                state.pending.push(change);
            } else {
                state.synced = state.live.clone();
                state.pending.clear();
                state.syncs += 1;
            }
            Ok(())
        });
        self.0.1.notify_all();
        done
    }
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => image.resize(*len as usize, 0),
        Change::Write(offset, data) => {
            let start = *offset as usize;
            // A write may reach the medium although the growth before it did not.
            if image.len() < start + data.len() {
                image.resize(start + data.len(), 0);
            }
            image[start..start + data.len()].copy_from_slice(data);
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|state| state.live.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|state| {
            let start = offset as usize;
            let from = state.live.get(start..start + out.len());
            out.copy_from_slice(from.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
            state.read += out.len() as u64;
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate(Some(Change::SetLen(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.pass();
        self.operate(None)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(Some(Change::Write(offset, data.to_vec())))
    }
}
