//! An event as it can be read today: as a whole, or what is around its content.

use std::borrow::Cow;

use super::{Held, KeyRing, unseal};
use crate::codec::{self, DecodeError, Envelope};
use crate::event::Kind;
use crate::id::Seq;
use crate::log::block::{FLAG_LZ4, FLAG_SEALED, Stored, decompress, unpack};
use crate::log::chain::Tag;
use crate::log::proof::UnreadableError;
use crate::record::Record;
use crate::time::Timestamp;
use crate::upcast;

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

/// The event, if `takes` its envelope. One whose envelope is gone is taken only by who takes all.
pub(crate) fn open(
    stored: Stored<'_>,
    placed: Placed,
    keys: &KeyRing,
    takes: impl FnOnce(Option<&Envelope<'_>>) -> bool,
) -> Result<Option<Found>, UnreadableError> {
    let Placed { seq, recorded_at, tag } = placed;
    let newer = DecodeError::Newer { kind: tag.kind, version: tag.version };
    let kind = Kind::from_tag(tag.kind);
    let stored = match stored {
        Stored::Bytes(stored) => stored,
        Stored::Redacted(order) => {
            let kind = kind.ok_or(newer)?;
            let sealed =
                SealedRecord { seq, recorded_at, kind, around: None, key: None, erased_by: Some(order) };
            return Ok(takes(None).then_some(Found::Sealed(sealed)));
        }
    };
    let bytes = envelope_bytes(stored, tag).map_err(UnreadableError::Unpack)?;
    let (envelope, payload) = codec::decode_envelope(&bytes)?;
    if envelope.subject_key.is_some() != (tag.flags & FLAG_SEALED != 0) {
        return Err(DecodeError::Seal.into());
    }
    if !takes(Some(&envelope)) {
        return Ok(None);
    }
    let payload = match envelope.subject_key.map(|id| (id, keys.get(id))) {
        None => Cow::Borrowed(payload),
        Some((subject_key, Held::Key(key))) => {
            let around = &bytes[..bytes.len() - payload.len()];
            let payload = unseal(&key.secret, tag, around, payload);
            let payload = payload.ok_or(DecodeError::Unsealed { subject_key })?;
            if tag.flags & FLAG_LZ4 == 0 {
                Cow::Owned(payload)
            } else {
                Cow::Owned(decompress(&payload).map_err(UnreadableError::Unpack)?)
            }
        }
        Some((id, held)) => {
            let erased_by = match held {
                Held::Destroyed(order) => Some(order),
                Held::Key(_) | Held::Unknown => None,
            };
            let (kind, around) = (kind.ok_or(newer)?, Some(Around::of(&envelope)));
            let sealed = SealedRecord { seq, recorded_at, kind, around, key: Some(id), erased_by };
            return Ok(Some(Found::Sealed(sealed)));
        }
    };
    let event = upcast::decode(tag.kind, tag.version, &payload)?;
    let Around { stream, actor, correlation, causation } = Around::of(&envelope);
    Ok(Some(Found::Record(Record { seq, recorded_at, stream, actor, correlation, causation, event })))
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
