//! Bytes of what makes up the bulk of a log, read by hand: envelopes, memory and messages in bincode's standard
//! configuration, at a fraction of the time that the general decoder takes for values this small.
//!
//! `None` says only that the bytes are not read here: they may be wrong, long or unusual. The general decoder then reads
//! them or names what is wrong with them, so that both give the same values and the same errors.

use crate::borrowed::{
    CandidateRef, ContentRef, MemoryEventRef, MessageRef, RoutingRef, SENT_VARIANT, ScopeRef,
};
use crate::codec::Envelope;
use crate::conversation::{Performative, Priority, Strategy};
use crate::event::Kind;
use crate::id::{MemoryId, MessageId, Seq};
use crate::memory::Validity;
use crate::time::Timestamp;

/// Longest event that is read here: below it, the limit on what decoding may claim cannot be reached.
const BYTES_MAX: usize = 1 << 20;
/// From this length on, texts are checked many bytes at a time; below, getting there takes longer than it saves.
const WIDE_TEXT_BYTES: usize = 64;

// What the first byte of an integer says about those behind it.
const SINGLE_MAX: u8 = 250;
const TWO_BYTES: u8 = 251;
const FOUR_BYTES: u8 = 252;
const EIGHT_BYTES: u8 = 253;

/// What is left of some bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() <= BYTES_MAX).then_some(Self(bytes))
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        let [first] = self.take()?;
        if first <= SINGLE_MAX { Some(u64::from(first)) } else { self.long_number(first) }
    }

    #[inline]
    fn long_number(&mut self, first: u8) -> Option<u64> {
        match first {
            TWO_BYTES => self.take().map(u16::from_le_bytes).map(u64::from),
            FOUR_BYTES => self.take().map(u32::from_le_bytes).map(u64::from),
            EIGHT_BYTES => self.take().map(u64::from_le_bytes),
            _ => None,
        }
    }

    #[inline]
    fn float(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }

    #[inline]
    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        if length < WIDE_TEXT_BYTES {
            std::str::from_utf8(text).ok()
        } else {
            simdutf8::basic::from_utf8(text).ok()
        }
    }

    /// A value that may be there, behind the byte that says so.
    #[inline]
    #[expect(clippy::option_option, reason = "the outer one says whether it could be read")]
    fn maybe<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.take()? {
            [0] => Some(None),
            [1] => read(self).map(Some),
            [_] => None,
        }
    }

    fn yes_or_no(&mut self) -> Option<bool> {
        match self.take()? {
            [0] => Some(false),
            [1] => Some(true),
            [_] => None,
        }
    }

    /// A member of a set of words, by its place there.
    fn member<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(usize::try_from(self.number()?).ok()?).copied()
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = usize::try_from(self.number()?).ok()?;
        // Each takes a byte at the least: a length that lies takes no memory.
        if length > self.0.len() {
            return None;
        }
        let mut list = Vec::with_capacity(length);
        for _ in 0..length {
            list.push(read(self)?);
        }
        Some(list)
    }

    #[inline]
    fn id(&mut self) -> Option<MemoryId> {
        self.number().map(MemoryId)
    }

    #[inline]
    fn validity(&mut self) -> Option<Validity> {
        // Always and still, which is what most facts are.
        if let Some(([0, 0], rest)) = self.0.split_first_chunk::<2>() {
            self.0 = rest;
            return Some(Validity::default());
        }
        self.bounds()
    }

    fn bounds(&mut self) -> Option<Validity> {
        Some(Validity { from: self.maybe(Self::timestamp)?, to: self.maybe(Self::timestamp)? })
    }

    fn timestamp(&mut self) -> Option<Timestamp> {
        // What lies behind the year 9999 is held at its end here, and is not there.
        let micros = self.number()?;
        let timestamp = Timestamp::from_unix_micros(micros);
        (timestamp.unix_micros() == micros).then_some(timestamp)
    }

    fn scope(&mut self) -> Option<ScopeRef<'a>> {
        match self.number()? {
            0 => self.text().map(ScopeRef::Agent),
            1 => self.text().map(ScopeRef::Workspace),
            2 => Some(ScopeRef::Global),
            _ => None,
        }
    }

    fn content(&mut self) -> Option<ContentRef<'a>> {
        match self.number()? {
            0 => self.text().map(ContentRef::Text),
            1 => self.text().map(ContentRef::Json),
            _ => None,
        }
    }

    fn candidate(&mut self) -> Option<CandidateRef<'a>> {
        let agent = self.text()?;
        Some(CandidateRef { agent, score: self.take().map(f32::from_le_bytes)?, because: self.text()? })
    }

    fn routing(&mut self) -> Option<RoutingRef<'a>> {
        Some(RoutingRef {
            capability: self.text()?,
            strategy: self.member(Strategy::ALL)?,
            candidates: self.list(Self::candidate)?,
            reason: self.text()?,
        })
    }
}

/// The envelope that an event begins with, and the bytes behind it.
#[inline]
pub(crate) fn envelope(bytes: &[u8]) -> Option<(Envelope<'_>, &[u8])> {
    let mut cursor = Cursor::of(bytes)?;
    let envelope = Envelope {
        stream: cursor.text()?,
        actor: cursor.text()?,
        correlation: cursor.maybe(Cursor::text)?,
        causation: cursor.maybe(|cursor| cursor.number().map(Seq))?,
        subject_key: cursor.maybe(Cursor::number)?,
    };
    Some((envelope, cursor.0))
}

/// A fact about memory of this kind that takes all of `payload`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "handing the event over through memory costs more than decoding it")]
pub(crate) fn memory(kind: Kind, payload: &[u8]) -> Option<MemoryEventRef<'_>> {
    let mut cursor = Cursor::of(payload)?;
    let variant = cursor.number()?;
    let event = match (kind, variant) {
        (Kind::ObservationAdded, 3) => MemoryEventRef::ObservationAdded {
            id: cursor.id()?,
            entity: cursor.id()?,
            content: cursor.text()?,
            validity: cursor.validity()?,
        },
        _ => rarer(kind, variant, &mut cursor)?,
    };
    cursor.0.is_empty().then_some(event)
}

/// The kinds that a log has less of: apart, so that the most frequent one stays small.
fn rarer<'a>(kind: Kind, variant: u64, cursor: &mut Cursor<'a>) -> Option<MemoryEventRef<'a>> {
    Some(match (kind, variant) {
        (Kind::EntityCreated, 0) => MemoryEventRef::EntityCreated {
            id: cursor.id()?,
            scope: cursor.scope()?,
            name: cursor.text()?,
            entity_type: cursor.text()?,
            metadata: cursor.maybe(Cursor::text)?,
            confidence: cursor.float()?,
            validity: cursor.validity()?,
        },
        (Kind::EntityUpdated, 1) => MemoryEventRef::EntityUpdated {
            id: cursor.id()?,
            name: cursor.text()?,
            entity_type: cursor.text()?,
            metadata: cursor.maybe(Cursor::text)?,
            confidence: cursor.float()?,
            validity: cursor.validity()?,
        },
        (Kind::EntityRemoved, 2) => MemoryEventRef::EntityRemoved { id: cursor.id()? },
        (Kind::ObservationUpdated, 4) => MemoryEventRef::ObservationUpdated {
            id: cursor.id()?,
            entity: cursor.id()?,
            content: cursor.text()?,
            validity: cursor.validity()?,
        },
        (Kind::ObservationRemoved, 5) => {
            MemoryEventRef::ObservationRemoved { id: cursor.id()?, entity: cursor.id()? }
        }
        (Kind::RelationCreated, 6) => MemoryEventRef::RelationCreated {
            id: cursor.id()?,
            scope: cursor.scope()?,
            from: cursor.id()?,
            to: cursor.id()?,
            relation_type: cursor.text()?,
            strength: cursor.float()?,
            confidence: cursor.float()?,
            metadata: cursor.maybe(Cursor::text)?,
            validity: cursor.validity()?,
        },
        (Kind::RelationUpdated, 7) => MemoryEventRef::RelationUpdated {
            id: cursor.id()?,
            strength: cursor.float()?,
            confidence: cursor.float()?,
            metadata: cursor.maybe(Cursor::text)?,
            validity: cursor.validity()?,
        },
        (Kind::RelationRemoved, 8) => MemoryEventRef::RelationRemoved { id: cursor.id()? },
        _ => return None,
    })
}

/// A message that was sent, if it takes all of `payload`.
pub(crate) fn message(payload: &[u8]) -> Option<MessageRef<'_>> {
    let mut cursor = Cursor::of(payload)?;
    if cursor.number()? != u64::from(SENT_VARIANT) {
        return None;
    }
    let message = MessageRef {
        id: cursor.take().map(MessageId::from_bytes)?,
        id_given: cursor.yes_or_no()?,
        performative: cursor.member(Performative::ALL)?,
        sender: cursor.text()?,
        receivers: cursor.list(Cursor::text)?,
        routing: cursor.maybe(Cursor::routing)?,
        conversation: cursor.text()?,
        content: cursor.content()?,
        priority: cursor.member(Priority::ALL)?,
        reply_with: cursor.maybe(Cursor::text)?,
        in_reply_to: cursor.maybe(Cursor::text)?,
        reply_by: cursor.maybe(Cursor::timestamp)?,
        expires_at: cursor.maybe(Cursor::timestamp)?,
        extras: cursor.maybe(Cursor::text)?,
    };
    cursor.0.is_empty().then_some(message)
}
