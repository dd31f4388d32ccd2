//! Iteration over events as they are stored, with what they read: for copies that must keep every byte.

use crate::id::Seq;
use crate::log::block::{Entry, FLAG_SEALED, Stored};
use crate::log::blocks::damaged;
use crate::log::chain::{Hash, Tag, hash, leaf};
use crate::log::filter::Filter;
use crate::log::reader::Reader;
use crate::log::scan::ReadError;
use crate::log::sealing::opened::Found;
use crate::log::visit::{Blocks, EventBlock};
use crate::time::Timestamp;

/// An event as a log keeps it, with all that its leaf is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEvent {
    /// Its position.
    pub seq: Seq,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// How the bytes are read.
    pub tag: Tag,
    /// Hash of the bytes, also when they are gone.
    pub body_hash: Hash,
    /// The bytes.
    pub body: Body,
}

/// What a log keeps of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Envelope and payload, compressed and encrypted if the tag says so.
    Stored(Vec<u8>),
    /// Nothing: it was erased by the order at this position, while it was not encrypted.
    Erased(Seq),
}

impl KeptEvent {
    /// The leaf the event has in the tree.
    pub fn leaf(&self) -> Hash {
        leaf(self.seq, self.recorded_at, self.tag, &self.body_hash)
    }

    /// Whether its payload is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tag.flags & FLAG_SEALED != 0
    }

    /// Whether the bytes, if they are there, are those that the hash is of.
    pub fn is_intact(&self) -> bool {
        match &self.body {
            Body::Stored(bytes) => hash(bytes) == self.body_hash,
            Body::Erased(_) => true,
        }
    }
}

impl Reader {
    /// Events from `from` on, upwards, as they are stored and as they read, as the log stands now. What was erased, or is
    /// encrypted under a key that is not here, is among them.
    pub fn scan_stored(&self, from: Seq, filter: &Filter) -> StoredScan {
        StoredScan { blocks: self.blocks(from, filter), current: None, room: Vec::new() }
    }
}

/// Stored events in order of position. Ends after the first error.
///
/// It holds a snapshot: the file cannot reuse the space of what was merged since. Do not park one for long.
#[derive(Debug)]
pub struct StoredScan {
    blocks: Blocks,
    current: Option<EventBlock>,
    /// What is compressed or encrypted is unpacked here.
    room: Vec<u8>,
}

impl Iterator for StoredScan {
    type Item = Result<(KeptEvent, Found), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(block) = &mut self.current {
                while let Some(index) = block.next_index(false) {
                    match kept(block, index, &mut self.room).transpose() {
                        None => (),
                        Some(Ok(kept)) => return Some(Ok(kept)),
                        Some(Err(error)) => {
                            self.current = None;
                            self.blocks.end();
                            return Some(Err(error));
                        }
                    }
                }
                self.current = None;
            }
            match self.blocks.next()? {
                Ok(block) => self.current = Some(block),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The event with this index, if the scan is to deliver it.
fn kept(
    block: &EventBlock,
    index: usize,
    room: &mut Vec<u8>,
) -> Result<Option<(KeptEvent, Found)>, ReadError> {
    let Some(found) = block.found(index, room)? else { return Ok(None) };
    let (seq, recorded_at) = (found.seq(), found.recorded_at());
    let read = block.block()?;
    let Entry { tag, body_hash, .. } = read.entry(index);
    let stored = read.stored(index).map_err(|what| damaged(block.first(), format!("{what} ({seq})")))?;
    let body = match stored {
        Stored::Bytes(bytes) => Body::Stored(bytes.to_vec()),
        Stored::Redacted(order) => Body::Erased(order),
    };
    Ok(Some((KeptEvent { seq, recorded_at, tag, body_hash, body }, found)))
}
