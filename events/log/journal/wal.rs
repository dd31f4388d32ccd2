//! The journal's hand in the write-ahead log: its records are written, synced and read here, and understood by
//! [`crate::log::wal`].

use std::io;
use std::sync::Arc;

use super::layout::RING;
use super::{Journal, read_padded};
use crate::log::wal::WalBlock;

/// A block on its way to the write-ahead log. Dropped before it is durable, it takes the journal with it: nothing later
/// may count.
#[derive(Debug)]
#[must_use = "what it holds is durable only once it is persisted"]
pub(crate) struct Logged {
    journal: Arc<Journal>,
    block: Arc<WalBlock>,
    position: u64,
    durable: bool,
}

impl Logged {
    /// Writes the record and syncs. What was logged or sealed before must be persisted before.
    ///
    /// # Errors
    ///
    /// The medium's. What is on it since is unknown, so every later write and flush fails too.
    pub(crate) fn persist(&mut self) -> io::Result<()> {
        let place = RING + self.journal.ring_bytes + self.position;
        self.journal.persist_at(place, self.block.record())?;
        self.durable = true;
        Ok(())
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if !self.durable {
            self.journal.state_mut().failed = true;
            self.journal.flight.lose();
        }
    }
}

impl Journal {
    /// Room for records of the write-ahead log, in bytes.
    pub(crate) fn wal_bytes(&self) -> u64 {
        self.wal_bytes
    }

    /// Takes a block that goes to `position` in the write-ahead log, where its record must have room.
    ///
    /// # Errors
    ///
    /// An earlier write failed.
    pub(crate) fn log(self: &Arc<Self>, block: Arc<WalBlock>, position: u64) -> io::Result<Logged> {
        self.check()?;
        Ok(Logged { journal: Arc::clone(self), block, position, durable: false })
    }

    /// The write-ahead log as it is on the medium.
    ///
    /// # Errors
    ///
    /// The medium's.
    pub(crate) fn read_wal(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.wal_bytes as usize];
        read_padded(self.medium.as_ref(), RING + self.ring_bytes, &mut bytes)?;
        Ok(bytes)
    }
}
