//! The body of a block: fixed entries, then the stored events, so that the n-th event is found without a walk.
//!
//! ```text
//! | entry: 48 × count | stored event | stored event | …
//! entry: | time after the block's first, µs: u64 LE | end of the event: u32 | kind: u8 | version: u8 | flags: u16 |
//!        | BLAKE3 of the stored event: 32 |
//! ```
//!
//! Ends count from the end of the entries. Flag 1: the stored event is `| length: u32 LE | LZ4 block |`. Flag 2: the stored
//! event is `| envelope | sealed payload |` (`sealing`), and with flag 1 only the payload is compressed, below the seal.
//!
//! An event that was erased while it lay there as it was written keeps its place, its entry and so its leaf; its bytes are
//! `| 0 | position of the order: u64 LE | zeros |`, which no event begins with that matches its hash.
//!
//! Who reads goes by the checksum of the whole body where the header has one and it holds: then only what begins with 0 is
//! held to its hash. Otherwise every event is.

use std::borrow::Cow;
use std::ops::Range;

use twox_hash::XxHash3_64;

use crate::id::Seq;
use crate::limits::EVENT_BYTES_MAX;
use crate::log::chain::{Hash, Tag, hash};
use crate::log::header::{Header, array};
use crate::time::Timestamp;

/// Length of an entry.
pub(crate) const ENTRY_BYTES: usize = 48;
/// The stored event is compressed with LZ4.
pub(crate) const FLAG_LZ4: u16 = 1;
/// The payload is encrypted.
pub(crate) const FLAG_SEALED: u16 = 2;
/// What an event that was erased begins with, and the position of the order behind it.
const REDACTED_BYTES: usize = 9;

/// What the header keeps of a body, for whoever only reads.
pub(crate) fn checksum(body: &[u8]) -> u64 {
    XxHash3_64::oneshot(body)
}

/// What stands about one event outside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub time_delta: u64,
    pub body_end: u32,
    pub tag: Tag,
    pub body_hash: Hash,
}

impl Entry {
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..8].copy_from_slice(&self.time_delta.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_end.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.tag.bytes());
        bytes[16..].copy_from_slice(&self.body_hash.0);
        bytes
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Self {
        Self {
            time_delta: u64::from_le_bytes(array(&bytes[0..8])),
            body_end: u32::from_le_bytes(array(&bytes[8..12])),
            tag: Tag {
                kind: bytes[12],
                version: bytes[13],
                flags: u16::from_le_bytes(array(&bytes[14..16])),
            },
            body_hash: Hash(array(&bytes[16..48])),
        }
    }
}

/// An event of a block and what its entry says, but for its hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedEvent<'a> {
    /// Its index in the block.
    pub index: usize,
    pub seq: Seq,
    pub recorded_at: Timestamp,
    pub tag: Tag,
    /// Its bytes from the envelope on, if they lie there as they were encoded and need not be held to their hash.
    pub plain: Option<&'a [u8]>,
}

/// A block's body whose entries were checked against its header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    first: Seq,
    first_at: Timestamp,
    entries: &'a [u8],
    stored: &'a [u8],
    /// Whether the whole body was found to be what was written, so that its events need not be hashed.
    sound: bool,
}

impl<'a> Block<'a> {
    /// Checks the length and the entries; events are checked as they are read.
    pub(crate) fn open(header: &Header<'_>, body: &'a [u8]) -> Result<Self, &'static str> {
        if body.len() != header.body_bytes as usize {
            return Err("the block has another length than its header says");
        }
        let Some((entries, _)) = body.split_at_checked(header.count as usize * ENTRY_BYTES) else {
            return Err("the block is shorter than its entries");
        };
        if hash(entries) != header.entries_hash {
            return Err("the entries do not match the header");
        }
        Self::trusted(header.first, header.first_at, header.count, body, false)
    }

    /// As [`Block::open`], for who only reads: goes by the checksum of the body where it holds.
    pub(crate) fn open_to_read(header: &Header<'_>, body: &'a [u8]) -> Result<Self, &'static str> {
        let right_length = body.len() == header.body_bytes as usize;
        if right_length && header.body_checksum.is_some_and(|wanted| wanted == checksum(body)) {
            return Self::trusted(header.first, header.first_at, header.count, body, true);
        }
        Self::open(header, body)
    }

    /// As [`Block::open`], for a body that was opened before, and found `sound` as a whole or not.
    pub(crate) fn trusted(
        first: Seq,
        first_at: Timestamp,
        count: u32,
        body: &'a [u8],
        sound: bool,
    ) -> Result<Self, &'static str> {
        let Some((entries, stored)) = body.split_at_checked(count as usize * ENTRY_BYTES) else {
            return Err("the block is shorter than its entries");
        };
        Ok(Self { first, first_at, entries, stored, sound })
    }

    /// Whether the body is what was written, as a whole.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    pub(crate) fn seq(&self, index: usize) -> Seq {
        Seq(self.first.0 + index as u64)
    }

    /// The entry of the event with this index, which must be below the count.
    pub(crate) fn entry(&self, index: usize) -> Entry {
        Entry::decode(&self.entries[index * ENTRY_BYTES..(index + 1) * ENTRY_BYTES])
    }

    pub(crate) fn recorded_at(&self, entry: &Entry) -> Timestamp {
        self.after(entry.time_delta)
    }

    /// So many microseconds after the first event.
    fn after(&self, time_delta: u64) -> Timestamp {
        Timestamp::from_unix_micros(self.first_at.unix_micros().saturating_add(time_delta))
    }

    /// The bytes of the event as they are stored, checked against their hash.
    pub(crate) fn stored(&self, index: usize) -> Result<Stored<'a>, &'static str> {
        let start = match index {
            0 => 0,
            _ => self.entry(index - 1).body_end as usize,
        };
        self.stored_between(start, &self.entry(index))
    }

    /// The bytes of the event with this entry, which begin at `start`.
    fn stored_between(&self, start: usize, entry: &Entry) -> Result<Stored<'a>, &'static str> {
        let Some(stored) = self.stored.get(start..entry.body_end as usize) else {
            return Err("an event ends outside its block");
        };
        // What begins with 0 may stand for an event that was erased.
        if self.sound && stored.first() != Some(&0) {
            return Ok(Stored::Bytes(stored));
        }
        Stored::of(stored, &hash(stored), entry).ok_or("an event does not match its hash")
    }

    /// Every entry with the bytes of its event, which are not held to their hash.
    pub(crate) fn unchecked(&self) -> impl Iterator<Item = (Entry, Option<&'a [u8]>)> {
        let (stored, mut start) = (self.stored, 0);
        self.entries.chunks_exact(ENTRY_BYTES).map(move |entry| {
            let entry = Entry::decode(entry);
            let bytes = stored.get(start..entry.body_end as usize);
            start = entry.body_end as usize;
            (entry, bytes)
        })
    }

    /// What the events behind the one with this index take.
    pub(crate) fn bytes_behind(&self, index: usize) -> u64 {
        let end = self.entry(self.count() - 1).body_end;
        u64::from(end.saturating_sub(self.entry(index).body_end))
    }

    /// The events with these indexes.
    pub(crate) fn events(&self, wanted: Range<usize>) -> Events<'a> {
        let start = match wanted.start {
            0 => 0,
            first => self.entry(first - 1).body_end as usize,
        };
        Events { block: *self, start, wanted }
    }

    /// Whether the payload of an event is encrypted.
    pub(crate) fn has_sealed(&self) -> bool {
        (0..self.count()).any(|index| self.entry(index).tag.flags & FLAG_SEALED != 0)
    }

    /// Whether the mark of an order stands in the place of an event.
    pub(crate) fn has_redacted(&self) -> bool {
        let may_be = |index: &usize| self.raw(*index).is_some_and(|stored| stored.first() == Some(&0));
        (0..self.count()).filter(may_be).any(|index| matches!(self.stored(index), Ok(Stored::Redacted(_))))
    }

    /// The bytes of the event whatever they are.
    pub(crate) fn raw(&self, index: usize) -> Option<&'a [u8]> {
        let start = index.checked_sub(1).map_or(0, |before| self.entry(before).body_end as usize);
        self.stored.get(start..self.entry(index).body_end as usize)
    }
}

/// Events of a block in order.
pub(crate) struct Events<'a> {
    block: Block<'a>,
    /// Where the next one begins.
    start: usize,
    wanted: Range<usize>,
}

impl<'a> Iterator for Events<'a> {
    type Item = PlacedEvent<'a>;

    // What it gives must not go through memory: whoever asks would wait for it longer than making it takes.
    #[inline]
    fn next(&mut self) -> Option<PlacedEvent<'a>> {
        let (index, block) = (self.wanted.next()?, &self.block);
        let entry = block.entries.get(index * ENTRY_BYTES..)?.first_chunk::<ENTRY_BYTES>()?;
        let Entry { time_delta, body_end, tag, .. } = Entry::decode(entry);
        let end = body_end as usize;
        let mut plain = None;
        // What begins with 0 may stand for an event that was erased.
        if block.sound
            && tag.flags == 0
            && let Some(stored) = block.stored.get(self.start..end)
            && stored.first().is_some_and(|first| *first != 0)
        {
            plain = Some(stored);
        }
        self.start = end;
        Some(PlacedEvent { index, seq: block.seq(index), recorded_at: block.after(time_delta), tag, plain })
    }
}

/// What stands in an event's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    /// The event, as its hash says.
    Bytes(&'a [u8]),
    /// Nothing: it was erased by the order at this position.
    Redacted(Seq),
}

impl<'a> Stored<'a> {
    /// What stands there, `hash` being that of the bytes; `None` if they are neither the entry's event nor the mark of an
    /// order.
    pub(crate) fn of(bytes: &'a [u8], hash: &Hash, entry: &Entry) -> Option<Self> {
        if *hash == entry.body_hash {
            return Some(Self::Bytes(bytes));
        }
        redaction(bytes).map(Self::Redacted)
    }
}

/// The order that an event was erased by, if it was.
fn redaction(stored: &[u8]) -> Option<Seq> {
    let (front, rest) = stored.split_first_chunk::<REDACTED_BYTES>()?;
    let order = u64::from_le_bytes(array(&front[1..]));
    (front[0] == 0 && order > 0 && rest.iter().all(|byte| *byte == 0)).then_some(Seq(order))
}

/// Puts the mark of the order in the place of an event. `false`: there is no room for it, and nothing was changed.
pub(crate) fn redact(stored: &mut [u8], order: Seq) -> bool {
    if stored.len() < REDACTED_BYTES {
        return false;
    }
    stored.fill(0);
    stored[1..REDACTED_BYTES].copy_from_slice(&order.0.to_le_bytes());
    true
}

/// The bytes of an event as they were encoded, from those that are stored; what is compressed is unpacked into `room`.
pub(crate) fn unpack_into<'a>(
    stored: &'a [u8],
    tag: Tag,
    room: &'a mut Vec<u8>,
) -> Result<&'a [u8], &'static str> {
    match unpack(stored, tag)? {
        Cow::Borrowed(bytes) => Ok(bytes),
        Cow::Owned(bytes) => {
            *room = bytes;
            Ok(room)
        }
    }
}

/// What stands in the place of an event that was erased, where nothing says how long it was.
pub(crate) fn redacted(order: Seq) -> Vec<u8> {
    let mut stored = vec![0; REDACTED_BYTES];
    redact(&mut stored, order);
    stored
}

/// The bytes of an event as they were encoded, from those that are stored.
pub(crate) fn unpack(stored: &[u8], tag: Tag) -> Result<Cow<'_, [u8]>, &'static str> {
    if tag.flags & FLAG_LZ4 == 0 {
        return Ok(Cow::Borrowed(stored));
    }
    decompress(stored).map(Cow::Owned)
}

/// What was compressed, of which `| length: u32 LE | LZ4 block |` is there.
pub(crate) fn decompress(stored: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Some((length, compressed)) = stored.split_first_chunk::<4>() else {
        return Err("a compressed event is cut short");
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > EVENT_BYTES_MAX {
        return Err("a compressed event is larger than an event may be");
    }
    let event = lz4_flex::block::decompress(compressed, length)
        .map_err(|_| "a compressed event cannot be decompressed")?;
    if event.len() == length { Ok(event) } else { Err("a compressed event has another length than it says") }
}
