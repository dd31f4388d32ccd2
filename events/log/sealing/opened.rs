//! An event as it can be read today: as a whole, or what is around its content.

use std::borrow::Cow;

use super::{Held, KeyRing, unseal};
use crate::codec::{self, DecodeError, Envelope};
use crate::event::Kind;
use crate::id::Seq;
use crate::log::block::{FLAG_LZ4, FLAG_SEALED, Stored, decompress, unpack, unpack_into};
use crate::log::chain::Tag;
use crate::log::proof::UnreadableError;
use crate::log::scan::ReadError;
use crate::log::visit::RecordRef;
use crate::record::Record;
use crate::time::Timestamp;

/// An event whose content cannot be read: it was erased, or its key is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// Its position.
    pub seq: Seq,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// What kind of fact it was.
    pub kind: Kind,
    /// Who, where and why; `None` if that was erased with the content.
    pub around: Option<Around>,
    /// Number of the key that its content is encrypted under.
    pub key: Option<u64>,
    /// The order it was erased by; `None` if its key is only not here.
    pub erased_by: Option<Seq>,
}

impl SealedRecord {
    /// The error for who needs the content of an event whose key is not here.
    pub(crate) fn key_missing(&self) -> ReadError {
        let stream = self.around.as_ref().map(|around| around.stream.clone()).unwrap_or_default();
        ReadError::KeyMissing { seq: self.seq, stream, key: self.key.unwrap_or_default() }
    }
}

/// What stands around the content of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// The stream it belongs to.
    pub stream: String,
    /// Who caused it.
    pub actor: String,
    /// Ties together what one request or conversation caused.
    pub correlation: Option<String>,
    /// The event that led to this one.
    pub causation: Option<Seq>,
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// With its content.
    Record(Record),
    /// Without it.
    Sealed(SealedRecord),
}

impl Found {
    /// Its position.
    pub const fn seq(&self) -> Seq {
        match self {
            Self::Record(record) => record.seq,
            Self::Sealed(sealed) => sealed.seq,
        }
    }

    /// When it was recorded.
    pub const fn recorded_at(&self) -> Timestamp {
        match self {
            Self::Record(record) => record.recorded_at,
            Self::Sealed(sealed) => sealed.recorded_at,
        }
    }
}

/// Where an event stands and how it is to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub seq: Seq,
    pub recorded_at: Timestamp,
    pub tag: Tag,
}

/// An event of the log, with its content where it lies.
#[derive(Debug, Clone)]
pub enum FoundRef<'a> {
    /// With its content.
    Record(RecordRef<'a>),
    /// Without it.
    Sealed(SealedRecord),
}

impl FoundRef<'_> {
    /// A copy that outlives its bytes.
    pub(crate) fn to_found(&self) -> Result<Found, DecodeError> {
        match self {
            Self::Record(record) => record.copied().map(Found::Record),
            Self::Sealed(sealed) => Ok(Found::Sealed(sealed.clone())),
        }
    }
}

/// The event, if `takes` its envelope. One whose envelope is gone is taken only by who takes all.
pub(crate) fn open(
    stored: Stored<'_>,
    placed: Placed,
    keys: &KeyRing,
    takes: impl FnOnce(Option<&Envelope<'_>>) -> bool,
) -> Result<Option<Found>, UnreadableError> {
    let mut room = Vec::new();
    let found = look(stored, placed, keys, &mut room, takes)?;
    Ok(found.map(|found| found.to_found()).transpose()?)
}

/// The same where it lies. What is compressed or encrypted is unpacked into `room`.
#[inline]
pub(crate) fn look<'a>(
    stored: Stored<'a>,
    placed: Placed,
    keys: &KeyRing,
    room: &'a mut Vec<u8>,
    takes: impl FnOnce(Option<&Envelope<'_>>) -> bool,
) -> Result<Option<FoundRef<'a>>, UnreadableError> {
    let Placed { seq, recorded_at, tag } = placed;
    let stored = match stored {
        Stored::Bytes(stored) => stored,
        Stored::Redacted(order) => {
            if !takes(None) {
                return Ok(None);
            }
            let (kind, erased_by) = (placed.kind()?, Some(order));
            let sealed = SealedRecord { seq, recorded_at, kind, around: None, key: None, erased_by };
            return Ok(Some(FoundRef::Sealed(sealed)));
        }
    };
    if tag.flags & FLAG_SEALED != 0 {
        return look_sealed(stored, placed, keys, room, takes);
    }
    let bytes = unpack_into(stored, tag, room).map_err(UnreadableError::Unpack)?;
    let (envelope, payload) = codec::decode_envelope(bytes)?;
    if envelope.subject_key.is_some() {
        return Err(DecodeError::Seal.into());
    }
    let record = RecordRef { seq, recorded_at, envelope, tag, payload };
    Ok(takes(Some(&envelope)).then_some(FoundRef::Record(record)))
}

/// The same for one that is encrypted: apart, so that what is not stays small enough to be part of its caller.
#[inline(never)]
fn look_sealed<'a>(
    stored: &'a [u8],
    Placed { seq, recorded_at, tag }: Placed,
    keys: &KeyRing,
    room: &'a mut Vec<u8>,
    takes: impl FnOnce(Option<&Envelope<'_>>) -> bool,
) -> Result<Option<FoundRef<'a>>, UnreadableError> {
    let placed = Placed { seq, recorded_at, tag };
    let (envelope, sealed) = codec::decode_envelope(stored)?;
    let Some(subject_key) = envelope.subject_key else { return Err(DecodeError::Seal.into()) };
    if !takes(Some(&envelope)) {
        return Ok(None);
    }
    let erased_by = match keys.get(subject_key) {
        Held::Key(key) => {
            let around = &stored[..stored.len() - sealed.len()];
            let payload = unseal(&key.secret, tag, around, sealed);
            let payload = payload.ok_or(DecodeError::Unsealed { subject_key })?;
            *room = if tag.flags & FLAG_LZ4 == 0 {
                payload
            } else {
                decompress(&payload).map_err(UnreadableError::Unpack)?
            };
            let record = RecordRef { seq, recorded_at, envelope, tag, payload: room };
            return Ok(Some(FoundRef::Record(record)));
        }
        Held::Destroyed(order) => Some(order),
        Held::Unknown => None,
    };
    let (kind, around) = (placed.kind()?, Some(Around::of(&envelope)));
    let sealed = SealedRecord { seq, recorded_at, kind, around, key: Some(subject_key), erased_by };
    Ok(Some(FoundRef::Sealed(sealed)))
}

impl Placed {
    fn kind(&self) -> Result<Kind, DecodeError> {
        let Tag { kind, version, .. } = self.tag;
        Kind::from_tag(kind).ok_or(DecodeError::Newer { kind, version })
    }
}

impl Around {
    fn of(envelope: &Envelope<'_>) -> Self {
        Self {
            stream: envelope.stream.to_owned(),
            actor: envelope.actor.to_owned(),
            correlation: envelope.correlation.map(str::to_owned),
            causation: envelope.causation,
        }
    }
}

/// The bytes of an event from its envelope on; the payload behind it may still be sealed.
pub(crate) fn envelope_bytes(stored: &[u8], tag: Tag) -> Result<Cow<'_, [u8]>, &'static str> {
    if tag.flags & FLAG_SEALED == 0 { unpack(stored, tag) } else { Ok(Cow::Borrowed(stored)) }
}
