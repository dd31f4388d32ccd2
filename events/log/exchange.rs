//! A log as lines of text: the events as they are stored, each with the root that the log has after it, between a line
//! that says which log it is and one with its head.
//!
//! Whoever reads them recomputes every leaf and every root, so the first line that is not what was written is known by
//! its number. Hashes and stored bytes are base64, as in [`evidence`](crate::log::evidence).

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::event::Kind;
use crate::id::Seq;
use crate::log::chain::{Frontier, Hash, Tag};
use crate::log::checkpoint::{NoteError, PublicKey, SignedCheckpoint, name};
use crate::log::header::array;
use crate::log::reader::Head;
use crate::log::stored::{Body, KeptEvent};
use crate::time::Timestamp;

/// Version of the lines.
pub const EXCHANGE_VERSION: u32 = 1;

/// The first line: which log it is, and what of it follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// [`EXCHANGE_VERSION`].
    pub version: u32,
    /// The log's id: 32 hexadecimal digits.
    pub log_id: String,
    /// Events in the log as the lines were begun.
    pub events: u64,
    /// Whether every event follows; otherwise a choice of them, which makes no log.
    pub complete: bool,
    /// The last event that the log had dropped; what is left of it makes no log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_through: Option<Seq>,
    /// Whether events may have been erased by orders that are not among the lines, see [`Reader::may_lack_orders`].
    ///
    /// [`Reader::may_lack_orders`]: crate::log::Reader::may_lack_orders
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gaps: bool,
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// Its position.
    pub seq: Seq,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Number of its kind.
    pub kind_number: u8,
    /// Version of its kind.
    pub version: u8,
    /// How the bytes are stored.
    pub flags: u16,
    /// Envelope and payload; absent where they were erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// The order that they were erased by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_by: Option<Seq>,
    /// Hash of these bytes, also of those that were erased.
    pub body_hash: String,
    /// Root of the log after this event; absent where not every event before it is among the lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

/// The last line: the head after the last event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadLine {
    /// Events there are.
    pub seq: Seq,
    /// Root over them.
    pub root: String,
    /// The signed head, where there was a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The key that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// A newer Caxton wrote it.
    #[error("the lines have version {found}, this program reads {EXCHANGE_VERSION}; use a newer Caxton")]
    Version {
        /// What it says.
        found: u32,
    },
    /// The id of the log is no id.
    #[error("log_id {found:?} is not 32 hexadecimal digits")]
    LogId {
        /// What stands there.
        found: String,
    },
    /// Text that is no base64, or not of the right length.
    #[error("{field} is no {what} in base64")]
    Base64 {
        /// Which field.
        field: &'static str,
        /// What it should be.
        what: &'static str,
    },
    /// Another event was due.
    #[error("event {found} stands where {expected} is due: lines are missing, doubled or in another order")]
    Order {
        /// What was due.
        expected: Seq,
        /// What stands there.
        found: Seq,
    },
    /// The bytes are not those that the hash is of.
    #[error("the bytes of event {seq} have another hash than body_hash: one of them was changed")]
    Body {
        /// The event.
        seq: Seq,
    },
    /// The event does not lead to its root.
    #[error(
        "event {seq} does not lead to the root of its line: its bytes, time, kind or place were changed, or the root was"
    )]
    Root {
        /// The event.
        seq: Seq,
    },
    /// The line has neither the bytes of the event nor the order that they were erased by, or both.
    #[error("event {seq} must have either stored bytes or the order in erased_by that they were erased by")]
    Bytes {
        /// The event.
        seq: Seq,
    },
    /// An event says that it was erased by an event that is no order to erase, or stands before it.
    #[error("events say that they were erased by {order}, which is no order to erase what stands before it")]
    NoOrder {
        /// What they name.
        order: Seq,
    },
    /// The head, or the key that is known, is that of another log than the first line names.
    #[error(
        "the first line is that of {found}, the key that of {expected}: one of them was changed, or is another log's"
    )]
    OtherLog {
        /// Name of the log in the first line.
        found: String,
        /// Name of the log whose key it is.
        expected: String,
    },
    /// The line has no root.
    #[error("event {seq} has no root: this is no whole log; export it without filters")]
    NoRoot {
        /// The event.
        seq: Seq,
    },
    /// The head is of more or fewer events.
    #[error(
        "the head is that after {expected}, the lines end with {found}: lines are missing, or the head was changed"
    )]
    HeadPlace {
        /// What the head says.
        expected: Seq,
        /// The last event read.
        found: Seq,
    },
    /// The head is of other events.
    #[error(
        "the {what} has another root after {seq} than the lines: it is that of another log, or was changed"
    )]
    HeadRoot {
        /// Its position.
        seq: Seq,
        /// Which of the two heads in the line.
        what: &'static str,
    },
    /// The head or its key cannot be read.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The head is not signed, and should be.
    #[error("the head is not signed; leave the key out to take it all the same")]
    Unsigned,
    /// The head is signed by another key than the one that is known.
    #[error("the head is signed by {named}, not by {expected}")]
    OtherKey {
        /// In the line.
        named: String,
        /// What it is checked with.
        expected: String,
    },
    /// The head is not signed as it stands.
    #[error("the signed head is wrong")]
    Signature(#[source] crate::log::checkpoint::CheckpointError),
}

impl LogLine {
    /// The line of a log with this id.
    pub fn new(log_id: [u8; 16], events: u64, complete: bool) -> Self {
        let log_id = format!("{:032x}", u128::from_be_bytes(log_id));
        Self { version: EXCHANGE_VERSION, log_id, events, complete, dropped_through: None, gaps: false }
    }

    /// The id of the log.
    ///
    /// # Errors
    ///
    /// [`LineError::Version`] and [`LineError::LogId`].
    pub fn log_id(&self) -> Result<[u8; 16], LineError> {
        if self.version != EXCHANGE_VERSION {
            return Err(LineError::Version { found: self.version });
        }
        let is_hex = self.log_id.len() == 32 && self.log_id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u128::from_str_radix(&self.log_id, 16).ok().filter(|_| is_hex);
        id.map(u128::to_be_bytes).ok_or_else(|| LineError::LogId { found: self.log_id.clone() })
    }
}

impl EventLine {
    /// The line of an event, with the root after it where every event before it is known.
    pub fn new(event: &KeptEvent, root: Option<&Hash>) -> Self {
        let Tag { kind, version, flags } = event.tag;
        let (stored, erased_by) = match &event.body {
            Body::Stored(bytes) => (Some(BASE64_STANDARD.encode(bytes)), None),
            Body::Erased(order) => (None, Some(*order)),
        };
        Self {
            seq: event.seq,
            recorded_at: event.recorded_at,
            kind_number: kind,
            version,
            flags,
            stored,
            erased_by,
            body_hash: encode(&event.body_hash),
            root: root.map(encode),
        }
    }
}

impl HeadLine {
    /// The line of a head, signed where there is a signature.
    pub fn new(head: &Head, signed: Option<(&SignedCheckpoint, &PublicKey)>) -> Self {
        Self {
            seq: head.seq,
            root: encode(&head.root),
            checkpoint: signed.map(|(checkpoint, _)| checkpoint.to_string()),
            public_key: signed.map(|(_, key)| key.to_string()),
        }
    }
}

impl HeadLine {
    /// Whether it has this root.
    pub fn has_root(&self, root: &Hash) -> bool {
        self.root == encode(root)
    }
}

/// Reads the lines of a whole log in their order and finds the first that is not what was written.
#[derive(Debug, Clone, Default)]
pub struct LineCheck {
    frontier: Frontier,
    /// Orders that events say they were erased by, with how many do, and those that were read.
    named: BTreeMap<Seq, u64>,
    orders: BTreeSet<Seq>,
    /// Whether orders may lie elsewhere.
    gaps: bool,
    /// The log that the first line names.
    log_id: Option<[u8; 16]>,
}

impl LineCheck {
    /// Begins behind this first line. With `known`, the log must be the one whose key that is.
    ///
    /// # Errors
    ///
    /// [`LineError`] if the line names no log, or another.
    pub fn begin(line: &LogLine, known: Option<&PublicKey>) -> Result<Self, LineError> {
        let check = Self { gaps: line.gaps, log_id: Some(line.log_id()?), ..Self::default() };
        known.map_or(Ok(()), |key| check.is_of(key))?;
        Ok(check)
    }

    /// Whether the key is that of the log that the first line names.
    fn is_of(&self, key: &PublicKey) -> Result<(), LineError> {
        match self.log_id {
            Some(log_id) if name(&log_id) != key.name() => {
                Err(LineError::OtherLog { found: name(&log_id), expected: key.name() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The event of the next line.
    ///
    /// # Errors
    ///
    /// [`LineError`] names what does not fit.
    pub fn event(&mut self, line: &EventLine) -> Result<KeptEvent, LineError> {
        let (seq, expected) = (line.seq, Seq(self.frontier.count() + 1));
        if seq != expected {
            return Err(LineError::Order { expected, found: seq });
        }
        let body = match (&line.stored, line.erased_by) {
            (Some(text), None) => {
                let bytes = BASE64_STANDARD.decode(text);
                Body::Stored(bytes.map_err(|_| LineError::Base64 { field: "stored", what: "event" })?)
            }
            (None, Some(order)) => Body::Erased(order),
            (Some(_), Some(_)) | (None, None) => return Err(LineError::Bytes { seq }),
        };
        let tag = Tag { kind: line.kind_number, version: line.version, flags: line.flags };
        let body_hash = decode("body_hash", &line.body_hash)?;
        let event = KeptEvent { seq, recorded_at: line.recorded_at, tag, body_hash, body };
        if !event.is_intact() {
            return Err(LineError::Body { seq });
        }
        self.frontier.push(event.leaf());
        let Some(root) = &line.root else { return Err(LineError::NoRoot { seq }) };
        if self.frontier.root() != decode("root", root)? {
            return Err(LineError::Root { seq });
        }
        match event.body {
            // An order takes what stands before it.
            Body::Erased(order) if order <= seq => return Err(LineError::NoOrder { order }),
            Body::Erased(order) => *self.named.entry(order).or_default() += 1,
            Body::Stored(_) if tag.kind == Kind::ErasureOrdered.tag() => drop(self.orders.insert(seq)),
            Body::Stored(_) => (),
        }
        Ok(event)
    }

    /// Events read so far.
    pub fn count(&self) -> u64 {
        self.frontier.count()
    }

    /// Orders that events say they were erased by and that were not read, with how many do.
    fn missing(&self) -> impl Iterator<Item = (&Seq, &u64)> {
        self.named.iter().filter(|(order, _)| !self.orders.contains(order))
    }

    /// Events so far whose order was not read, which is right for a fork or a log that was restored up to a point alone.
    pub fn erased_later(&self) -> u64 {
        self.missing().map(|(_, events)| events).sum()
    }

    /// Checks the last line against what was read, and its signature against the key that it names, which is returned. With
    /// `known`, it must be signed, and by that key.
    ///
    /// # Errors
    ///
    /// [`LineError`].
    pub fn head(&self, line: &HeadLine, known: Option<&PublicKey>) -> Result<Option<PublicKey>, LineError> {
        let found = Seq(self.frontier.count());
        let root = self.frontier.root();
        let named = |what, seq: Seq, named: Hash| match (seq == found, named == root) {
            (true, true) => Ok(()),
            (true, false) => Err(LineError::HeadRoot { seq, what }),
            (false, _) => Err(LineError::HeadPlace { expected: seq, found }),
        };
        named("head", line.seq, decode("root", &line.root)?)?;
        if let Some((order, _)) = self.missing().next().filter(|_| !self.gaps) {
            return Err(LineError::NoOrder { order: *order });
        }
        let (Some(checkpoint), Some(key)) = (&line.checkpoint, &line.public_key) else {
            return if known.is_some() { Err(LineError::Unsigned) } else { Ok(None) };
        };
        let (checkpoint, key): (SignedCheckpoint, PublicKey) = (checkpoint.parse()?, key.parse()?);
        if let Some(known) = known.filter(|known| **known != key) {
            return Err(LineError::OtherKey { named: key.to_string(), expected: known.to_string() });
        }
        checkpoint.check(&key).map_err(LineError::Signature)?;
        self.is_of(&key)?;
        let head = &checkpoint.checkpoint.head;
        named("signed head", head.seq, head.root)?;
        Ok(Some(key))
    }
}

fn encode(hash: &Hash) -> String {
    BASE64_STANDARD.encode(hash.0)
}

fn decode(field: &'static str, text: &str) -> Result<Hash, LineError> {
    let bytes = BASE64_STANDARD.decode(text).ok().filter(|bytes| bytes.len() == 32);
    Ok(Hash(array(&bytes.ok_or(LineError::Base64 { field, what: "hash" })?)))
}
