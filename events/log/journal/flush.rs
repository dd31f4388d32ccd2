//! Flushing in two steps: who writes seals a record of what was written, and who flushes makes it durable, perhaps on
//! another thread, while the next writes come in.
//!
//! What comes in while a record is on its way must not harm the state before that record, which is the one found if the
//! power goes now. Small pages cannot: they stay in memory until their own record. A large page goes straight to its
//! place, which redb may have given free only in the commit that is on its way: it waits until no record is, unless nothing was
//! ever written there. And while the journal is being emptied every write waits.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Journal;
use super::layout::{self, RING, RecordHeader};

/// The sealed records that are on their way to the medium.
#[derive(Debug, Default)]
pub(super) struct Flight {
    state: Mutex<FlightState>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct FlightState {
    records: usize,
    /// Whether the last of them empties the journal.
    empties: bool,
    /// Whether one of them was lost: none after it may count.
    lost: bool,
    /// Who waits for them.
    #[cfg(test)]
    waiting: usize,
}

impl Flight {
    fn lock(&self) -> MutexGuard<'_, FlightState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a record was lost on its way.
    fn has_lost(&self) -> bool {
        self.lock().lost
    }

    /// No later record may count.
    pub(super) fn lose(&self) {
        self.lock().lost = true;
    }

    fn start(&self, empties: bool) {
        let mut state = self.lock();
        state.records += 1;
        state.empties |= empties;
    }

    fn land(&self, lost: bool) {
        let mut state = self.lock();
        state.records -= 1;
        state.lost |= lost;
        if state.records == 0 {
            state.empties = false;
        }
        self.landed.notify_all();
    }

    fn wait_while(&self, unfit: impl Fn(&FlightState) -> bool) {
        let mut state = self.lock();
        while unfit(&state) {
            #[cfg(test)]
            {
                state.waiting += 1;
                self.landed.notify_all();
            }
            state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
            #[cfg(test)]
            {
                state.waiting -= 1;
            }
        }
    }

    /// Blocks while a record is on its way.
    pub(super) fn wait_for_all(&self) {
        self.wait_while(|state| state.records > 0);
    }

    /// Blocks while the journal is to be emptied.
    pub(super) fn wait_for_room(&self) {
        self.wait_while(|state| state.empties);
    }

    /// Blocks until somebody waits for a record, or `done` says that nobody will.
    #[cfg(test)]
    pub(super) fn wait_for_waiter(&self, done: impl Fn() -> bool) {
        let mut state = self.lock();
        while state.waiting == 0 && !done() {
            state = self.landed.wait(state).unwrap();
        }
    }

    /// Makes those who wait look again.
    #[cfg(test)]
    pub(super) fn nudge(&self) {
        drop(self.lock());
        self.landed.notify_all();
    }
}

/// A record that is not durable yet. Dropped before it is, it takes the journal with it: no later record may count.
#[derive(Debug)]
#[must_use = "what it holds is durable only once it is persisted"]
pub(crate) struct Sealed {
    journal: Arc<Journal>,
    record: Vec<u8>,
    position: u64,
    empties: bool,
    /// Whether writers still wait for it.
    in_flight: bool,
}

impl Sealed {
    /// Writes the record and syncs. Sealed records must be persisted in their order.
    ///
    /// # Errors
    ///
    /// The medium's. What is on it since is unknown, so every later write and flush fails too.
    pub(crate) fn persist(&mut self) -> io::Result<()> {
        layout::put_checksum(&mut self.record);
        self.journal.persist_at(RING + self.position, &self.record)?;
        if !self.empties {
            self.land(false);
        }
        Ok(())
    }

    /// Empties the journal if that is due. The record must be durable.
    ///
    /// # Errors
    ///
    /// As [`persist`](Self::persist).
    pub(crate) fn settle(mut self) -> io::Result<()> {
        if self.empties {
            self.journal.empty()?;
            self.land(false);
        }
        Ok(())
    }

    fn land(&mut self, lost: bool) {
        self.in_flight = false;
        self.journal.flight.land(lost);
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        if self.in_flight {
            self.journal.state_mut().failed = true;
            self.land(true);
        }
        self.journal.give_back(std::mem::take(&mut self.record));
    }
}

impl Journal {
    /// Writes `record` and syncs, unless one before it was lost.
    pub(super) fn persist_at(&self, place: u64, record: &[u8]) -> io::Result<()> {
        if self.flight.has_lost() {
            return Err(io::Error::other("an earlier write failed"));
        }
        let written = self.medium.write(place, record).and_then(|()| self.medium.sync_data());
        written.or_else(|error| self.fail(error))
    }

    /// Seals a record of all that was written since the last one; `None` if nothing was.
    ///
    /// # Errors
    ///
    /// An earlier write failed, or the record does not fit.
    pub(crate) fn seal(self: &Arc<Self>) -> io::Result<Option<Sealed>> {
        self.seal_and(false)
    }

    fn seal_and(self: &Arc<Self>, empties: bool) -> io::Result<Option<Sealed>> {
        self.check()?;
        let mut record = self.buffer();
        let mut state = self.state_mut();
        if state.is_flushed() {
            return Ok(None);
        }
        let header = RecordHeader { generation: state.generation, number: state.records + 1, len: state.len };
        header.encode(&mut record, state.overlay.unsaved(), &state.large);
        let position = state.position;
        let end = position + record.len() as u64;
        if end > self.ring_bytes {
            drop(state);
            return self.fail(io::Error::other("the journal has no room for a commit of this size"));
        }
        state.overlay.save();
        state.held = std::mem::take(&mut state.large);
        state.flushed_len = state.len;
        state.records += 1;
        state.position = end;
        drop(state);
        let empties = empties || end > self.ring_bytes / 2;
        self.flight.start(empties);
        Ok(Some(Sealed { journal: Arc::clone(self), record, position, empties, in_flight: true }))
    }

    /// Makes everything written so far durable; after a crash that or the state before it is found.
    ///
    /// # Errors
    ///
    /// The medium's. What is on it since is unknown, so every later write and flush fails too.
    pub(crate) fn flush(self: &Arc<Self>) -> io::Result<()> {
        self.flight.wait_for_all();
        self.seal()?.map_or(Ok(()), persist_and_settle)
    }

    /// Writes everything home and empties the journal.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush).
    pub(crate) fn checkpoint(self: &Arc<Self>) -> io::Result<()> {
        self.flight.wait_for_all();
        self.seal_and(true)?.map_or_else(|| self.empty(), persist_and_settle)
    }
}

fn persist_and_settle(mut sealed: Sealed) -> io::Result<()> {
    sealed.persist()?;
    sealed.settle()
}
