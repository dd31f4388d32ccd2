//! What is done on the caller's thread, so that the one writer need not: encode, compress, hash.

use std::sync::Arc;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

use crate::codec;
use crate::event::Kind;
use crate::limits::{EVENT_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX};
use crate::log::batch::{AppendError, Batch, Expected, IdempotencyKey};
use crate::log::block::{ENTRY_BYTES, FLAG_LZ4, FLAG_SEALED};
use crate::log::bloom::{Item, Items};
use crate::log::chain::{Hash, Tag};
use crate::log::lanes::hash_each;
use crate::log::sealing::{self, Key, KeyRing, NONCE_BYTES, OVERHEAD_BYTES, Sealer};
use crate::log::streams::Streams;
use crate::record::Draft;
use crate::time::Timestamp;
use crate::upcast;

/// An event ready to be placed. Its bytes lie in [`Prepared::bytes`], in order.
#[derive(Debug, Clone)]
pub(crate) struct PreparedEvent {
    pub tag: Tag,
    pub len: u32,
    pub body_hash: Hash,
    /// Stream, actor and correlation for the block's filter; 0 stands for none.
    pub items: [u64; 3],
}

/// A batch ready to be placed.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub events: Vec<PreparedEvent>,
    /// The stored bodies, one after the other.
    pub bytes: Vec<u8>,
    pub streams: Streams,
    pub key: Option<IdempotencyKey>,
    pub expected: Option<(String, Expected)>,
    /// When it was placed; the epoch before.
    pub recorded_at: Timestamp,
    /// Numbers of the keys it is encrypted under.
    pub sealed_under: Vec<u64>,
    /// How many times keys had been destroyed before these were looked up.
    pub generation: u64,
}

/// How batches are prepared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preparation {
    /// Events longer than this are compressed if that makes them smaller.
    pub compress_above: Option<usize>,
    /// What gives payloads their keys, if any get one.
    pub sealer: Option<Arc<Sealer>>,
    pub ring: Arc<KeyRing>,
}

impl Prepared {
    /// What it will take in blocks, in bytes.
    pub(crate) fn block_bytes(&self) -> usize {
        self.bytes.len() + self.events.len() * ENTRY_BYTES
    }

    /// The kind and the stream of each event, in order.
    pub(crate) fn kinds_and_streams(&self) -> impl Iterator<Item = (Kind, &str)> {
        let mut streams = self.streams.iter().peekable();
        self.events.iter().enumerate().filter_map(move |(index, event)| {
            while streams.next_if(|(_, last)| *last < index).is_some() {}
            let (stream, _) = streams.peek()?;
            Some((Kind::from_tag(event.tag.kind)?, *stream))
        })
    }
}

/// Encodes, compresses and hashes a batch, or refuses it.
pub(crate) fn prepare(batch: Batch, how: &Preparation) -> Result<Prepared, AppendError> {
    let Batch { drafts, key, expected } = batch;
    prepare_drafts(&drafts, key, expected, how)
}

/// The same for drafts that stay with the caller.
pub(crate) fn prepare_drafts(
    drafts: &[Draft],
    key: Option<IdempotencyKey>,
    expected: Option<(String, Expected)>,
    how: &Preparation,
) -> Result<Prepared, AppendError> {
    if drafts.is_empty() {
        return Err(AppendError::Empty);
    }
    if let Some(IdempotencyKey { key, .. }) = &key
        && !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
    {
        return Err(AppendError::KeyLength { bytes: key.len() });
    }
    let generation = how.ring.generation();
    let keys = how.sealer.as_ref().map(|sealer| sealer.keys_for(drafts)).transpose();
    let keys = keys.map_err(|source| AppendError::Keys { source: Arc::new(source) })?.unwrap_or_default();
    let mut sealed_under: Vec<u64> = keys.iter().flatten().map(|key| key.id).collect();
    sealed_under.dedup();
    let mut events: Vec<PreparedEvent> = Vec::with_capacity(drafts.len());
    let mut bytes = Vec::new();
    let mut streams = Streams::with_capacity(drafts.len());
    let mut before: Option<&Draft> = None;
    let mut items = FilterItems { places: Vec::with_capacity(drafts.len()), fresh: Items::default() };
    let mut compressor = Compressor { above: how.compress_above, table: None, compressed: Vec::new() };
    for (index, draft) in drafts.iter().enumerate() {
        let start = bytes.len();
        let kind = draft.event.kind();
        let mut tag = Tag { kind: kind.tag(), version: upcast::version(kind), flags: 0 };
        let too_large = |bytes| AppendError::TooLarge { index, bytes };
        if let Some((sealer, key)) = how.sealer.as_ref().zip(keys.get(index).copied().flatten()) {
            tag = seal(draft, tag, (sealer, key), &mut compressor, &mut bytes).map_err(too_large)?;
        } else {
            codec::encode(draft, &mut bytes);
            let len = bytes.len() - start;
            if len > EVENT_BYTES_MAX {
                return Err(too_large(len));
            }
            tag.flags = compressor.compress(&mut bytes, start);
        }
        // Reserved from the first event's size, so that a large batch is not copied again and again as it grows.
        if index == 0 {
            bytes.reserve((bytes.len() + bytes.len() / 8) * (drafts.len() - 1));
        }
        items.push(draft, before);
        streams.push(&draft.stream, index, before.is_some_and(|before| before.stream == draft.stream));
        events.push(PreparedEvent {
            tag,
            len: (bytes.len() - start) as u32,
            body_hash: Hash::default(),
            items: [0; 3],
        });
        before = Some(draft);
    }
    let mut rest = bytes.as_slice();
    let bodies: Vec<&[u8]> = events.iter().filter_map(|event| rest.split_off(..event.len as usize)).collect();
    for (event, body_hash) in hash_each(&bodies).into_iter().enumerate() {
        events[event].body_hash = body_hash;
    }
    items.give(&mut events);
    let recorded_at = Timestamp::EPOCH;
    Ok(Prepared { events, bytes, streams, key, expected, recorded_at, sealed_under, generation })
}

/// Appends the envelope of `draft` and its payload, compressed if that makes it smaller and then encrypted; the error is
/// the size of an event that is too large.
fn seal(
    draft: &Draft,
    tag: Tag,
    (sealer, key): (&Sealer, Key),
    compressor: &mut Compressor,
    bytes: &mut Vec<u8>,
) -> Result<Tag, usize> {
    let envelope = bytes.len();
    codec::encode_envelope(draft, Some(key.id), bytes);
    let sealed = bytes.len();
    bytes.extend_from_slice(&[0; NONCE_BYTES]);
    let payload = bytes.len();
    codec::encode_payload(&draft.event, bytes);
    let len = bytes.len() - envelope + OVERHEAD_BYTES - NONCE_BYTES;
    if len > EVENT_BYTES_MAX {
        return Err(len);
    }
    let tag = Tag { flags: FLAG_SEALED | compressor.compress(bytes, payload), ..tag };
    let nonce = sealer.nonce(&bytes[payload..]);
    sealing::seal(&key.secret, tag, &nonce, bytes, (envelope, sealed));
    Ok(tag)
}

/// Compresses events one after the other, in the same memory.
struct Compressor {
    above: Option<usize>,
    table: Option<CompressTable>,
    compressed: Vec<u8>,
}

impl Compressor {
    /// Compresses what lies behind `start` if it is long enough and gets smaller; the flags say which.
    fn compress(&mut self, bytes: &mut Vec<u8>, start: usize) -> u16 {
        let plain = &bytes[start..];
        if self.above.is_none_or(|above| plain.len() <= above) {
            return 0;
        }
        let compressed = match self.run(plain) {
            Some(compressed) if compressed.len() + 4 < plain.len() => compressed,
            _ => return 0,
        };
        let length = plain.len() as u32;
        bytes.truncate(start);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(compressed);
        FLAG_LZ4
    }

    fn run(&mut self, plain: &[u8]) -> Option<&[u8]> {
        let room = get_maximum_output_size(plain.len());
        if self.compressed.len() < room {
            self.compressed.resize(room, 0);
        }
        let table = self.table.get_or_insert_default();
        let len = compress_into_with_table(plain, &mut self.compressed, table).ok()?;
        self.compressed.get(..len)
    }
}

/// The filter items of drafts, hashed together.
struct FilterItems {
    /// Of each draft.
    places: Vec<[ItemPlace; 3]>,
    fresh: Items,
}

/// Where an item comes from.
#[derive(Clone, Copy)]
enum ItemPlace {
    /// There is none.
    Nowhere,
    /// It is that of the draft before.
    Before,
    /// It is the next one that is hashed.
    Fresh,
}

impl FilterItems {
    fn push(&mut self, draft: &Draft, before: Option<&Draft>) {
        let mut place = |item, text: Option<&str>, known: Option<&str>| match text {
            Some(text) if known == Some(text) => ItemPlace::Before,
            Some(text) => {
                self.fresh.push(item, text);
                ItemPlace::Fresh
            }
            None => ItemPlace::Nowhere,
        };
        let known = before.and_then(|before| before.correlation.as_deref());
        self.places.push([
            place(Item::Stream, Some(&draft.stream), before.map(|before| before.stream.as_str())),
            place(Item::Actor, Some(&draft.actor), before.map(|before| before.actor.as_str())),
            place(Item::Correlation, draft.correlation.as_deref(), known),
        ]);
    }

    /// Writes them to their events.
    fn give(self, events: &mut [PreparedEvent]) {
        let mut fresh = self.fresh.hashes().into_iter();
        let mut before = [0; 3];
        for (event, places) in events.iter_mut().zip(self.places) {
            for (item, place) in before.iter_mut().zip(places) {
                match place {
                    ItemPlace::Nowhere => *item = 0,
                    ItemPlace::Before => (),
                    ItemPlace::Fresh => *item = fresh.next().unwrap_or_default(),
                }
            }
            event.items = before;
        }
    }
}
