//! Reading without copies: blocks that are checked once, and their events looked at where they lie.

use std::ops::Range;
use std::sync::Arc;

use crate::borrowed::EventRef;
use crate::codec::{self, DecodeError, Envelope};
use crate::cursor;
use crate::event::Kind;
use crate::id::Seq;
use crate::log::block::{Block, Entry, PlacedEvent, Stored};
use crate::log::blocks::{Headers, Value, damaged, next_header, open_to_read, read_header};
use crate::log::chain::Tag;
use crate::log::filter::{Filter, Matcher};
use crate::log::header::Header;
use crate::log::proof::UnreadableError;
use crate::log::scan::{ReadError, ScanStats};
use crate::log::sealing::KeyRing;
pub use crate::log::sealing::opened::FoundRef;
use crate::log::sealing::opened::{self, Found, Placed};
use crate::log::store::{Snapshot, StoreError};
use crate::record::Record;
use crate::time::Timestamp;
use crate::upcast;

/// An event where it lies in its block, with its place.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// Its position.
    pub seq: Seq,
    /// When the writer took it.
    pub recorded_at: Timestamp,
    /// Who, where, why.
    pub envelope: Envelope<'a>,
    pub(crate) tag: Tag,
    pub(crate) payload: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// What kind of fact it is; `None` when a newer Caxton wrote it.
    #[inline]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_tag(self.tag.kind)
    }

    /// What happened.
    ///
    /// # Errors
    ///
    /// [`ReadError::Decode`] if the bytes are no event that this program knows.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "handing the event over through memory costs more than decoding it"
    )]
    pub fn event(&self) -> Result<EventRef<'a>, ReadError> {
        if let Some(kind) = self.kind()
            && self.tag.version == upcast::version(kind)
            && let Some(event) = codec::by_hand(kind, self.payload)
        {
            return Ok(event);
        }
        self.event_in_general()
    }

    #[inline(never)]
    fn event_in_general(&self) -> Result<EventRef<'a>, ReadError> {
        upcast::decode_borrowed(self.tag.kind, self.tag.version, self.payload)
            .map_err(|source| ReadError::Decode { seq: self.seq, source })
    }

    /// A copy that outlives the block.
    ///
    /// # Errors
    ///
    /// As [`RecordRef::event`].
    pub fn to_record(&self) -> Result<Record, ReadError> {
        self.copied().map_err(|source| ReadError::Decode { seq: self.seq, source })
    }

    pub(crate) fn copied(&self) -> Result<Record, DecodeError> {
        Ok(Record {
            seq: self.seq,
            recorded_at: self.recorded_at,
            stream: self.envelope.stream.to_owned(),
            actor: self.envelope.actor.to_owned(),
            correlation: self.envelope.correlation.map(str::to_owned),
            causation: self.envelope.causation,
            event: upcast::decode(self.tag.kind, self.tag.version, self.payload)?,
        })
    }
}

/// What is asked for, and the keys it is read with.
pub(crate) struct Lens {
    pub matcher: Matcher,
    pub keys: Arc<KeyRing>,
}

impl Lens {
    pub(crate) fn new(matcher: Matcher, keys: &Arc<KeyRing>) -> Arc<Self> {
        Arc::new(Self { matcher, keys: Arc::clone(keys) })
    }
}

/// A block that was read and checked; its events are looked at in place. It can be sent to another thread.
pub struct EventBlock {
    first: Seq,
    first_at: Timestamp,
    count: u32,
    body: Value,
    sound: bool,
    /// Indexes within the bounds of the scan.
    wanted: Range<usize>,
    lens: Arc<Lens>,
}

impl std::fmt::Debug for EventBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventBlock")
            .field("first", &self.first)
            .field("last", &self.last())
            .finish_non_exhaustive()
    }
}

impl EventBlock {
    /// Reads and checks the block with this header.
    pub(crate) fn open(
        snapshot: &Snapshot,
        header: &Header<'_>,
        lens: &Arc<Lens>,
    ) -> Result<Self, ReadError> {
        let body = snapshot.body(header.first)?;
        let sound = open_to_read(header, &body)?.is_sound();
        Ok(Self::opened(header, body, sound, lens))
    }

    /// The block with this header and this body, which was found `sound` as a whole or not.
    pub(crate) fn opened(header: &Header<'_>, body: Value, sound: bool, lens: &Arc<Lens>) -> Self {
        Self {
            first: header.first,
            first_at: header.first_at,
            count: header.count,
            body,
            sound,
            wanted: lens.matcher.indexes(header),
            lens: Arc::clone(lens),
        }
    }

    /// Position of its first event.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// Position of its last event.
    pub fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }

    /// Length of the block in the log, in bytes.
    pub fn bytes(&self) -> usize {
        self.body.value().len()
    }

    /// Calls `visit` with each event that the scan is to deliver, in order, until one fails. Events that were erased are
    /// passed over.
    ///
    /// # Errors
    ///
    /// What `visit` returned, or [`ReadError`] if the block is damaged, holds what is no event, or one that is encrypted
    /// under a key that is not here.
    pub fn for_each<E: From<ReadError>>(
        &self,
        mut visit: impl FnMut(&RecordRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.for_each_found(|found| match found {
            FoundRef::Record(record) => visit(record),
            FoundRef::Sealed(_) => Ok(()),
        })
    }

    /// As [`EventBlock::for_each`], with what is left of events that were erased.
    ///
    /// # Errors
    ///
    /// As [`EventBlock::for_each`].
    pub fn for_each_found<E: From<ReadError>>(
        &self,
        mut visit: impl FnMut(&FoundRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let block = self.block()?;
        let mut room = Vec::new();
        for event in block.events(self.wanted.clone()) {
            if !self.lens.matcher.takes_entry(event.tag.kind, event.recorded_at) {
                continue;
            }
            // What a value passes through on its way to `visit` costs more here than what is done with it: each copy
            // waits for the one before.
            if let Some(stored) = event.plain
                && let Some((envelope, payload)) = cursor::envelope(stored)
                && envelope.subject_key.is_none()
            {
                if self.lens.matcher.takes_envelope(Some(&envelope)) {
                    let PlacedEvent { seq, recorded_at, tag, .. } = event;
                    visit(&FoundRef::Record(RecordRef { seq, recorded_at, envelope, tag, payload }))?;
                }
                continue;
            }
            let (stored, index) = (block.stored(event.index), event.index);
            match self.look(&block, (event.seq, &block.entry(index)), stored, &mut room)? {
                Some(FoundRef::Sealed(sealed)) if sealed.erased_by.is_none() => {
                    return Err(sealed.key_missing().into());
                }
                Some(found) => visit(&found)?,
                None => (),
            }
        }
        Ok(())
    }

    /// The event with this index, if the scan is to deliver it.
    pub(crate) fn found(&self, index: usize, room: &mut Vec<u8>) -> Result<Option<Found>, ReadError> {
        Ok(self.found_sized(index, room)?.map(|(found, _)| found))
    }

    /// The same, with the bytes that its content takes unpacked.
    pub(crate) fn found_sized(
        &self,
        index: usize,
        room: &mut Vec<u8>,
    ) -> Result<Option<(Found, usize)>, ReadError> {
        let block = self.block()?;
        let (seq, entry, stored) = (block.seq(index), block.entry(index), block.stored(index));
        let Some(found) = self.look(&block, (seq, &entry), stored, room)? else { return Ok(None) };
        let bytes = match &found {
            FoundRef::Record(record) => record.payload.len(),
            FoundRef::Sealed(_) => 0,
        };
        found.to_found().map(|found| Some((found, bytes))).map_err(|source| ReadError::Decode { seq, source })
    }

    /// The next index to be looked at, from either end.
    pub(crate) fn next_index(&mut self, down: bool) -> Option<usize> {
        if down { self.wanted.next_back() } else { self.wanted.next() }
    }

    pub(crate) fn block(&self) -> Result<Block<'_>, ReadError> {
        Block::trusted(self.first, self.first_at, self.count, self.body.value(), self.sound)
            .map_err(|what| damaged(self.first, what))
    }

    /// The event with this entry, if the scan is to deliver it. What is compressed or encrypted is unpacked into `room`.
    #[inline(never)]
    fn look<'a>(
        &self,
        block: &Block<'_>,
        (seq, entry): (Seq, &Entry),
        stored: Result<Stored<'a>, &'static str>,
        room: &'a mut Vec<u8>,
    ) -> Result<Option<FoundRef<'a>>, ReadError> {
        let Lens { matcher, keys } = &*self.lens;
        let recorded_at = block.recorded_at(entry);
        if !matcher.takes_entry(entry.tag.kind, recorded_at) {
            return Ok(None);
        }
        let stored = stored.map_err(|what| damaged(self.first, format!("{what} ({seq})")))?;
        let placed = Placed { seq, recorded_at, tag: entry.tag };
        let found = opened::look(stored, placed, keys, room, |envelope| matcher.takes_envelope(envelope));
        found.map_err(|error| unreadable(self.first, seq, error))
    }
}

/// The error for bytes that are no event, although they are those that were written.
pub(crate) fn unreadable(block: Seq, seq: Seq, error: UnreadableError) -> ReadError {
    match error {
        UnreadableError::Unpack(what) => damaged(block, format!("{what} ({seq})")),
        UnreadableError::Decode(source) => ReadError::Decode { seq, source },
    }
}

/// The blocks that may hold what a filter asks for, upwards, as the log stood when this began. Ends after the first error.
///
/// It holds a snapshot: the file cannot reuse the space of what was merged since. Do not park one for long.
///
/// ```
/// # use std::sync::Arc;
/// # use caxton_events::log::{Batch, Filter, Log, LogOptions, ReadError};
/// # use caxton_events::{Clock, Draft, EventRef, Seq, SystemEvent, Timestamp};
/// # struct Noon;
/// # impl Clock for Noon {
/// #     fn now(&self) -> Timestamp {
/// #         Timestamp::from_unix_micros(43_200_000_000)
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(Noon))?;
/// # let draft = Draft {
/// #     stream: "system".into(),
/// #     actor: "system".into(),
/// #     correlation: None,
/// #     causation: None,
/// #     event: SystemEvent::ServerStopped.into(),
/// # };
/// # log.append(vec![Batch::of(vec![draft])])?.remove(0)?;
/// let mut events = 0;
/// for block in log.reader().blocks(Seq::FIRST, &Filter::default()) {
///     block?.for_each(|record| {
///         events += u64::from(record.envelope.stream == "system");
///         record.event().map(|_| ())
///     })?;
/// }
/// assert_eq!(events, 1);
/// # Ok(())
/// # }
/// ```
pub struct Blocks {
    state: Result<BlockWalk, Option<ReadError>>,
    stats: ScanStats,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl Blocks {
    pub(crate) fn new(
        snapshot: Result<Snapshot, StoreError>,
        keys: &Arc<KeyRing>,
        from: Seq,
        filter: &Filter,
    ) -> Self {
        let state = BlockWalk::new(snapshot, keys, from, filter, false);
        Self { state: state.map_err(|error| Some(error.into())), stats: ScanStats::default() }
    }

    /// Ends it: there was an error in a block that it gave.
    pub(crate) fn end(&mut self) {
        self.state = Err(None);
    }

    /// What was touched so far.
    pub fn stats(&self) -> ScanStats {
        self.stats
    }
}

impl Iterator for Blocks {
    type Item = Result<EventBlock, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match &mut self.state {
            Ok(walk) => walk.next(&mut self.stats),
            Err(error) => Err(error.take()?),
        };
        if !matches!(next, Ok(Some(_))) {
            self.state = Err(None);
        }
        next.transpose()
    }
}

/// A walk over blocks in either direction.
pub(crate) struct BlockWalk {
    snapshot: Snapshot,
    headers: Headers,
    lens: Arc<Lens>,
    down: bool,
    /// Where the next block must begin (going up) or end (going down), once the first was seen.
    joint: Option<Seq>,
}

impl BlockWalk {
    pub(crate) fn new(
        snapshot: Result<Snapshot, StoreError>,
        keys: &Arc<KeyRing>,
        from: Seq,
        filter: &Filter,
        down: bool,
    ) -> Result<Self, StoreError> {
        let snapshot = snapshot?;
        let headers = if down { snapshot.headers_until(from) } else { snapshot.headers_from(from) }?;
        let lens = Lens::new(Matcher::new(filter, from, down).up_to(snapshot.through), keys);
        Ok(Self { snapshot, headers, lens, down, joint: None })
    }

    /// The next block that may hold a match.
    pub(crate) fn next(&mut self, stats: &mut ScanStats) -> Result<Option<EventBlock>, ReadError> {
        while let Some((first, value)) = next_header(&mut self.headers, self.down)? {
            let header = read_header(first, &value)?;
            let (near, far) = if self.down { (header.last(), first) } else { (first, header.last()) };
            if self.joint.is_some_and(|joint| joint != near) {
                return Err(damaged(first, "a block before or after it is missing"));
            }
            self.joint = Some(if self.down { far.previous() } else { far.next() });
            if self.lens.matcher.is_past(near) {
                return Ok(None);
            }
            stats.reached = far.min(self.snapshot.through);
            if !self.lens.matcher.may_match(&header) {
                stats.blocks_skipped += 1;
                continue;
            }
            stats.blocks_read += 1;
            return EventBlock::open(&self.snapshot, &header, &self.lens).map(Some);
        }
        Ok(None)
    }
}
