//! Events as bytes: an envelope (who, where, why), then the payload of one kind and version. The home of bincode.
//!
//! `| envelope: bincode | payload: bincode of the event's family |`, both in bincode's standard configuration
//! (variable-length little-endian integers). Kind and version stand outside, in the block's entry.

use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::{BorrowDecode, Decode, Encode};

use crate::agent::AgentEvent;
use crate::borrowed::{EventRef, MemoryEventRef, SENT_VARIANT, SentRef};
use crate::conversation::ConversationEvent;
use crate::cursor;
use crate::event::{Event, Family, Kind};
use crate::id::Seq;
use crate::limits::EVENT_BYTES_MAX;
use crate::memory::MemoryEvent;
use crate::record::Draft;
use crate::system::SystemEvent;
use crate::turn::TurnEvent;

/// The limit only guards reading: a length that lies cannot make the reader allocate more than an event may have.
const CONFIG: Configuration<LittleEndian, Varint, Limit<EVENT_BYTES_MAX>> =
    config::standard().with_limit::<EVENT_BYTES_MAX>();

/// Everything about an event but its place and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Envelope<'a> {
    /// The stream it belongs to.
    pub stream: &'a str,
    /// Who caused it.
    pub actor: &'a str,
    /// Ties together what one request or conversation caused.
    pub correlation: Option<&'a str>,
    /// The event that led to this one.
    pub causation: Option<Seq>,
    /// Number of the key the payload is encrypted under, if it is.
    pub subject_key: Option<u64>,
}

/// Why bytes are no event this program can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The kind or the version is not known here.
    #[error("written by a newer Caxton (kind {kind}, version {version}); use that version to read it")]
    Newer {
        /// Number of the kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// The payload does not open under its key: the key is another one, or the bytes are not those that were sealed.
    #[error(
        "the payload does not open under key {subject_key:016x}: the key file is that of another log, or was changed"
    )]
    Unsealed {
        /// Number of the key.
        subject_key: u64,
    },
    /// Whether the payload is encrypted is said differently in two places.
    #[error("the event's envelope and its entry disagree whether its payload is encrypted")]
    Seal,
    /// The bytes do not follow the format.
    #[error("the bytes of the event do not follow its format")]
    Malformed(#[source] bincode::error::DecodeError),
    /// Bytes are left behind the payload.
    #[error("{bytes} bytes are left behind the event")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The payload is of another kind than its tag says.
    #[error("the event is tagged {tagged} but holds {found}")]
    Mismatch {
        /// What the tag says.
        tagged: &'static str,
        /// What the bytes hold.
        found: &'static str,
    },
}

/// Appends the bytes of `draft` to `out`: its envelope and its payload in the newest version of its kind.
pub fn encode(draft: &Draft, out: &mut Vec<u8>) {
    encode_envelope(draft, None, out);
    encode_payload(&draft.event, out);
}

/// Appends the envelope of `draft` alone; its payload is encrypted under the key with that number, if there is one.
pub(crate) fn encode_envelope(draft: &Draft, subject_key: Option<u64>, out: &mut Vec<u8>) {
    let envelope = Envelope {
        stream: &draft.stream,
        actor: &draft.actor,
        correlation: draft.correlation.as_deref(),
        causation: draft.causation,
        subject_key,
    };
    put(&envelope, out);
}

/// Appends the payload alone, as the golden files hold it.
pub(crate) fn encode_payload(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Memory(event) => put(event, out),
        Event::Agent(event) => put(event, out),
        Event::Conversation(event) => put(event, out),
        Event::Turn(event) => put(event, out),
        Event::System(event) => put(event, out),
    }
}

#[expect(
    clippy::expect_used,
    reason = "derived encoders fail only when their writer does, and a Vec does not"
)]
fn put(value: &impl Encode, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, out, CONFIG).expect("a Vec takes every byte");
}

/// Splits the bytes of an event into its envelope and its payload.
///
/// # Errors
///
/// [`DecodeError::Malformed`] if the bytes do not begin with an envelope.
#[inline]
pub fn decode_envelope(bytes: &[u8]) -> Result<(Envelope<'_>, &[u8]), DecodeError> {
    cursor::envelope(bytes).map_or_else(|| decode_any_envelope(bytes), Ok)
}

/// The same by the general decoder, which also says what is wrong.
#[cold]
fn decode_any_envelope(bytes: &[u8]) -> Result<(Envelope<'_>, &[u8]), DecodeError> {
    let (envelope, used): (Envelope<'_>, usize) =
        bincode::borrow_decode_from_slice(bytes, CONFIG).map_err(DecodeError::Malformed)?;
    Ok((envelope, &bytes[used..]))
}

/// Reads a payload written in the newest version of `kind`.
pub(crate) fn decode_current(kind: Kind, payload: &[u8]) -> Result<Event, DecodeError> {
    let event = match kind.family() {
        Family::Memory => Event::Memory(get::<MemoryEvent>(payload)?),
        Family::Agent => Event::Agent(get::<AgentEvent>(payload)?),
        Family::Conversation => Event::Conversation(get::<ConversationEvent>(payload)?),
        Family::Turn => Event::Turn(get::<TurnEvent>(payload)?),
        Family::System => Event::System(get::<SystemEvent>(payload)?),
    };
    if event.kind() == kind {
        Ok(event)
    } else {
        Err(DecodeError::Mismatch { tagged: kind.name(), found: event.kind().name() })
    }
}

/// The same without a copy, for the families that have such a form.
#[inline]
pub(crate) fn decode_borrowed(kind: Kind, payload: &[u8]) -> Result<EventRef<'_>, DecodeError> {
    by_hand(kind, payload).map_or_else(|| decode_any_borrowed(kind, payload), Ok)
}

/// The same for what is read by hand, see [`cursor`].
#[inline(always)]
#[expect(clippy::inline_always, reason = "handing the event over through memory costs more than decoding it")]
pub(crate) fn by_hand(kind: Kind, payload: &[u8]) -> Option<EventRef<'_>> {
    match cursor::memory(kind, payload) {
        None if kind == Kind::MessageSent => cursor::message(payload).map(EventRef::Message),
        event => event.map(EventRef::Memory),
    }
}

/// The same by the general decoder.
fn decode_any_borrowed(kind: Kind, payload: &[u8]) -> Result<EventRef<'_>, DecodeError> {
    if MemoryEventRef::covers(kind)
        && let Ok(event) = borrow::<MemoryEventRef<'_>>(payload)
        && event.kind() == kind
    {
        return Ok(EventRef::Memory(event));
    }
    if kind == Kind::MessageSent
        && let Ok(SentRef { variant: SENT_VARIANT, message }) = borrow(payload)
    {
        return Ok(EventRef::Message(message));
    }
    // Also what is wrong is told here.
    decode_current(kind, payload).map(EventRef::Other)
}

/// Reads one value that takes all of `bytes` and borrows from them.
fn borrow<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let (value, used) = bincode::borrow_decode_from_slice(bytes, CONFIG).map_err(DecodeError::Malformed)?;
    if used == bytes.len() { Ok(value) } else { Err(DecodeError::Trailing { bytes: bytes.len() - used }) }
}

/// Reads one value that takes all of `bytes`.
pub(crate) fn get<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used) = bincode::decode_from_slice(bytes, CONFIG).map_err(DecodeError::Malformed)?;
    if used == bytes.len() { Ok(value) } else { Err(DecodeError::Trailing { bytes: bytes.len() - used }) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::{
        DecodeError, EventRef, SENT_VARIANT, SentRef, cursor, decode_any_borrowed, decode_any_envelope,
        decode_borrowed, decode_current, decode_envelope, encode, encode_envelope, encode_payload, put,
    };
    use crate::borrowed::MemoryEventRef;
    use crate::memory::Validity;
    use crate::upcast::tests::samples;
    use crate::{Draft, Kind, MemoryEvent, MemoryId, Seq};

    fn drafts() -> Vec<Draft> {
        let whys = [(None, None), (Some("request-7".to_owned()), Some(Seq(7)))];
        let mut drafts = Vec::new();
        for event in samples() {
            for (correlation, causation) in whys.clone() {
                drafts.push(Draft {
                    stream: "agent:ada".to_owned(),
                    actor: "ada".to_owned(),
                    correlation,
                    causation,
                    event: event.clone(),
                });
            }
        }
        drafts
    }

    #[test]
    fn every_event_reads_back_as_it_was_written() {
        for draft in drafts() {
            let mut bytes = Vec::new();
            encode(&draft, &mut bytes);
            let (envelope, payload) = decode_envelope(&bytes).unwrap();
            assert_eq!((envelope.stream, envelope.actor), (draft.stream.as_str(), draft.actor.as_str()));
            assert_eq!(
                (envelope.correlation, envelope.causation),
                (draft.correlation.as_deref(), draft.causation)
            );
            assert_eq!(decode_current(draft.event.kind(), payload).unwrap(), draft.event);
        }
    }

    #[test]
    fn what_is_borrowed_has_the_bytes_and_the_kind_of_what_is_owned() {
        for event in samples() {
            let (mut bytes, mut again) = (Vec::new(), Vec::new());
            encode_payload(&event, &mut bytes);
            let borrowed = decode_borrowed(event.kind(), &bytes).unwrap();
            assert_eq!(borrowed.kind(), event.kind());
            match borrowed {
                EventRef::Memory(event) => put(&event, &mut again),
                EventRef::Message(message) => put(&SentRef { variant: SENT_VARIANT, message }, &mut again),
                EventRef::Other(other) => {
                    assert_eq!(other, event);
                    let borrowed = MemoryEventRef::covers(event.kind()) || event.kind() == Kind::MessageSent;
                    assert!(!borrowed, "{event:?} has a form of its own");
                    continue;
                }
            }
            assert_eq!(again, bytes, "{event:?}");
            for len in 0..bytes.len() {
                assert!(decode_borrowed(event.kind(), &bytes[..len]).is_err(), "{event:?} cut to {len}");
            }
            bytes.push(0);
            let longer = decode_borrowed(event.kind(), &bytes);
            assert!(matches!(longer, Err(DecodeError::Trailing { bytes: 1 })), "{event:?}");
        }
    }

    #[test]
    fn what_is_read_by_hand_is_what_the_general_decoder_reads() {
        let check_envelope = |bytes: &[u8]| {
            if let Some((envelope, rest)) = cursor::envelope(bytes) {
                assert_eq!((envelope, rest), decode_any_envelope(bytes).unwrap(), "{bytes:?}");
            }
        };
        let check_payload = |bytes: &[u8]| {
            for kind in Kind::ALL {
                if let Some(event) = cursor::memory(*kind, bytes) {
                    assert_eq!(EventRef::Memory(event), decode_any_borrowed(*kind, bytes).unwrap());
                }
            }
            if let Some(message) = cursor::message(bytes) {
                let again = decode_any_borrowed(Kind::MessageSent, bytes).unwrap();
                assert_eq!(EventRef::Message(message), again);
            }
        };
        for draft in drafts() {
            let mut bytes = Vec::new();
            encode_envelope(&draft, Some(1 << 40), &mut bytes);
            encode_payload(&draft.event, &mut bytes);
            let (_, payload) = cursor::envelope(&bytes).unwrap();
            let kind = draft.event.kind();
            assert_eq!(cursor::memory(kind, payload).is_some(), MemoryEventRef::covers(kind), "{draft:?}");
            assert_eq!(cursor::message(payload).is_some(), kind == Kind::MessageSent, "{draft:?}");
            // Every byte of it as something else.
            for index in 0..bytes.len() {
                for flipped in
                    [1, 2, 4, 0x80, 0xff, bytes[index] ^ 0xfb, bytes[index] ^ 0xfc, bytes[index] ^ 0xfd]
                {
                    let mut bytes = bytes.clone();
                    bytes[index] ^= flipped;
                    check_envelope(&bytes);
                    check_payload(&bytes[(bytes.len() - payload.len()).min(index)..]);
                    check_payload(&bytes[bytes.len() - payload.len()..]);
                }
            }
        }
    }

    #[test]
    fn integers_and_texts_of_every_width_are_read_by_hand() {
        let numbers = [0, 250, 251, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, u64::MAX];
        let texts =
            [0, 1, 63, 64, 65, 250, 251, 70_000].map(|len| "ä".repeat(len / 2) + &"b".repeat(len % 2));
        for (number, content) in numbers.into_iter().flat_map(|n| texts.iter().map(move |text| (n, text))) {
            let (id, entity) = (MemoryId(number), MemoryId(number / 3));
            let event = MemoryEvent::ObservationAdded {
                id,
                entity,
                content: content.clone(),
                validity: Validity::default(),
            };
            let mut bytes = Vec::new();
            encode_payload(&event.into(), &mut bytes);
            let read = cursor::memory(Kind::ObservationAdded, &bytes).unwrap();
            let expected =
                MemoryEventRef::ObservationAdded { id, entity, content, validity: Validity::default() };
            assert_eq!(read, expected);
            let last = bytes.len() - 3;
            bytes[last] = 0xff;
            assert_eq!(cursor::memory(Kind::ObservationAdded, &bytes), None, "{number} {}", content.len());
        }
    }

    #[test]
    fn an_event_of_another_kind_than_its_tag_is_named() {
        for (event, other) in samples().iter().zip(samples().iter().skip(1)) {
            let mut bytes = Vec::new();
            encode_payload(event, &mut bytes);
            let owned = decode_current(other.kind(), &bytes).unwrap_err();
            let borrowed = decode_borrowed(other.kind(), &bytes).unwrap_err();
            assert_eq!(borrowed.to_string(), owned.to_string(), "{event:?} as {:?}", other.kind());
        }
    }

    #[test]
    fn a_cut_or_lengthened_event_is_refused_at_every_byte() {
        for draft in drafts() {
            let mut bytes = Vec::new();
            encode(&draft, &mut bytes);
            for len in 0..bytes.len() {
                let read = decode_envelope(&bytes[..len])
                    .and_then(|(_, payload)| decode_current(draft.event.kind(), payload));
                assert!(read.is_err(), "{draft:?} cut to {len}");
            }
            bytes.push(0);
            let (_, payload) = decode_envelope(&bytes).unwrap();
            assert!(matches!(
                decode_current(draft.event.kind(), payload),
                Err(DecodeError::Trailing { bytes: 1 })
            ));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_nor_allocate_beyond_the_limit() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000_usize {
            let bytes: Vec<u8> = (0..round % 64)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect();
            if let Ok((_, payload)) = decode_envelope(&bytes) {
                for kind in Kind::ALL {
                    let owned = decode_current(*kind, payload).is_ok();
                    assert_eq!(decode_borrowed(*kind, payload).is_ok(), owned, "{bytes:?} as {kind:?}");
                }
            }
        }
        // A string that claims 2^60 bytes.
        assert!(decode_envelope(&[253, 0, 0, 0, 0, 0, 0, 0, 16]).is_err());
    }
}
