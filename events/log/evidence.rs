//! What an auditor takes away: an event or two heads, with the proof, the signed head and the key, in one value that needs
//! no log to be checked.
//!
//! Hashes and stored bytes are base64 in the serialized form, checkpoints and keys are the texts of
//! [`checkpoint`](crate::log::checkpoint).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::id::Seq;
use crate::log::chain::{Hash, Tag, leaf};
use crate::log::checkpoint::{CheckpointError, NoteError, PublicKey, SignedCheckpoint, Signer};
use crate::log::header::array;
use crate::log::proof::{ConsistencyProof, InclusionProof, ProofError, StoredEvent, UnreadableError};
use crate::log::prove::ProveError;
use crate::log::reader::{Head, Reader};
use crate::log::sealing::opened::Found;
use crate::time::Timestamp;

/// An event and what shows that it is in a log.
///
/// [`body_hash`](Evidence::body_hash) and [`leaf`](Evidence::leaf) follow from the event. They are there so that a change
/// can be told from others: without them, everything before the root would be one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "EvidenceText", try_from = "EvidenceText")]
pub struct Evidence {
    /// The event as it is stored.
    pub event: StoredEvent,
    /// Hash of its bytes.
    pub body_hash: Hash,
    /// Its leaf in the tree.
    pub leaf: Hash,
    /// The siblings on the way from the leaf to the root.
    pub path: Vec<Hash>,
    /// The head the path leads to.
    pub checkpoint: SignedCheckpoint,
    /// The key that signed it.
    pub public_key: PublicKey,
}

/// Two heads and what shows that the later log only added to the earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "GrowthText", try_from = "GrowthText")]
pub struct Growth {
    /// The earlier head.
    pub earlier: SignedCheckpoint,
    /// The later one.
    pub later: SignedCheckpoint,
    /// The hashes that make up both roots.
    pub path: Vec<Hash>,
    /// The key that signed both.
    pub public_key: PublicKey,
}

/// What does not fit.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The proof names another key than the one it is to be checked with.
    #[error("it names the key {named}, not {expected}")]
    OtherKey {
        /// In the proof.
        named: String,
        /// What it is checked with.
        expected: String,
    },
    /// The head is not signed as it stands.
    #[error("the signed head is wrong")]
    Head(#[source] CheckpointError),
    /// The stored bytes were changed or replaced.
    #[error(
        "the content of {seq} is not what was recorded: its bytes have the hash {found}, the proof is for {recorded}"
    )]
    Content {
        /// Position of the event.
        seq: Seq,
        /// Hash of the bytes as they are.
        found: Hash,
        /// Hash of the bytes that were recorded.
        recorded: Hash,
    },
    /// Position, time, kind, version or flags were changed.
    #[error("the position, the time or the kind of {seq} is not what was recorded")]
    Place {
        /// Position of the event.
        seq: Seq,
    },
    /// The path does not lead from the event to the signed root, or from the earlier root to the later one.
    #[error("the path is wrong, or it is that of another event")]
    Path(#[source] ProofError),
    /// Everything fits, but this program cannot read the event.
    #[error("{seq} is what was recorded, but could not be read")]
    Unreadable {
        /// Position of the event.
        seq: Seq,
        /// Why; mostly that a newer Caxton wrote it.
        #[source]
        source: UnreadableError,
    },
}

impl Evidence {
    /// Checks everything and gives the event, without its content if that is encrypted: its bytes lead to its leaf, the leaf to the root, and the root is signed.
    ///
    /// With `known`, the key must be that one. Without it the key that the proof itself names is believed, which shows
    /// only that all of it was made by one hand.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] names the first thing that does not fit.
    pub fn check(&self, known: Option<&PublicKey>) -> Result<Found, EvidenceError> {
        let Self { event, body_hash, leaf: recorded_leaf, path, checkpoint, public_key } = self;
        let seq = event.seq;
        same_key(public_key, known)?;
        checkpoint.check(public_key).map_err(EvidenceError::Head)?;
        let found = event.body_hash();
        if found != *body_hash {
            return Err(EvidenceError::Content { seq, found, recorded: *body_hash });
        }
        if leaf(seq, event.recorded_at, event.tag, body_hash) != *recorded_leaf {
            return Err(EvidenceError::Place { seq });
        }
        let head = &checkpoint.checkpoint.head;
        let proof = InclusionProof { seq, size: head.seq.0, path: path.clone() };
        proof.check(recorded_leaf, head).map_err(EvidenceError::Path)?;
        event.found().map_err(|source| EvidenceError::Unreadable { seq, source })
    }
}

impl Growth {
    /// Checks both signatures, and that everything under the earlier head lies unchanged under the later one.
    ///
    /// # Errors
    ///
    /// [`EvidenceError`] names the first thing that does not fit.
    pub fn check(&self, known: Option<&PublicKey>) -> Result<(), EvidenceError> {
        let Self { earlier, later, path, public_key } = self;
        same_key(public_key, known)?;
        for signed in [earlier, later] {
            signed.check(public_key).map_err(EvidenceError::Head)?;
        }
        let (from, to) = (&earlier.checkpoint.head, &later.checkpoint.head);
        let proof = ConsistencyProof { from: from.seq.0, to: to.seq.0, path: path.clone() };
        proof.check(from, to).map_err(EvidenceError::Path)
    }
}

fn same_key(named: &PublicKey, known: Option<&PublicKey>) -> Result<(), EvidenceError> {
    match known {
        Some(known) if known != named => {
            Err(EvidenceError::OtherKey { named: named.to_string(), expected: known.to_string() })
        }
        Some(_) | None => Ok(()),
    }
}

impl Reader {
    /// The event at `seq` with all that shows it is among the first `size`.
    ///
    /// # Errors
    ///
    /// [`ProveError`] as [`Reader::prove_inclusion`].
    pub fn evidence(&self, seq: Seq, size: u64, signer: &Signer) -> Result<Evidence, ProveError> {
        let InclusionProof { path, .. } = self.prove_inclusion(seq, size)?;
        let event = self.stored_event(seq)?;
        Ok(Evidence {
            body_hash: event.body_hash(),
            leaf: event.leaf(),
            event,
            path,
            checkpoint: signer.sign(self.head_at(size)?),
            public_key: signer.public_key(),
        })
    }

    /// The heads after `from` and after `to` events with what shows that the log grew from one to the other.
    ///
    /// # Errors
    ///
    /// [`ProveError`] as [`Reader::prove_consistency`].
    pub fn growth(&self, from: u64, to: u64, signer: &Signer) -> Result<Growth, ProveError> {
        let ConsistencyProof { path, .. } = self.prove_consistency(from, to)?;
        let sign = |head: Head| signer.sign(head);
        let (earlier, later) = (sign(self.head_at(from)?), sign(self.head_at(to)?));
        Ok(Growth { earlier, later, path, public_key: signer.public_key() })
    }
}

/// Why serialized evidence cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A text that is no hash or no bytes.
    #[error("{field} is no {what} in base64")]
    Base64 {
        /// Which field.
        field: &'static str,
        /// What it should be.
        what: &'static str,
    },
    /// A text that is no checkpoint or no public key.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// [`Evidence`] as it is serialized.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceText {
    seq: Seq,
    recorded_at: Timestamp,
    kind: u8,
    version: u8,
    flags: u16,
    stored: String,
    body_hash: String,
    leaf: String,
    path: Vec<String>,
    checkpoint: String,
    public_key: String,
}

/// [`Growth`] as it is serialized.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrowthText {
    earlier: String,
    later: String,
    path: Vec<String>,
    public_key: String,
}

fn encode(hash: &Hash) -> String {
    BASE64_STANDARD.encode(hash.0)
}

fn encode_all(path: &[Hash]) -> Vec<String> {
    path.iter().map(encode).collect()
}

fn decode(field: &'static str, text: &str) -> Result<Hash, TextError> {
    let bytes = BASE64_STANDARD.decode(text).ok().filter(|bytes| bytes.len() == 32);
    Ok(Hash(array(&bytes.ok_or(TextError::Base64 { field, what: "hash" })?)))
}

fn decode_all(path: &[String]) -> Result<Vec<Hash>, TextError> {
    path.iter().map(|text| decode("path", text)).collect()
}

impl From<Evidence> for EvidenceText {
    fn from(evidence: Evidence) -> Self {
        let Evidence { event, body_hash, leaf, path, checkpoint, public_key } = evidence;
        let Tag { kind, version, flags } = event.tag;
        Self {
            seq: event.seq,
            recorded_at: event.recorded_at,
            kind,
            version,
            flags,
            stored: BASE64_STANDARD.encode(event.bytes),
            body_hash: encode(&body_hash),
            leaf: encode(&leaf),
            path: encode_all(&path),
            checkpoint: checkpoint.to_string(),
            public_key: public_key.to_string(),
        }
    }
}

impl TryFrom<EvidenceText> for Evidence {
    type Error = TextError;

    fn try_from(text: EvidenceText) -> Result<Self, TextError> {
        let EvidenceText { seq, recorded_at, kind, version, flags, .. } = text;
        let bytes = BASE64_STANDARD.decode(text.stored);
        let bytes = bytes.map_err(|_| TextError::Base64 { field: "stored", what: "event" })?;
        Ok(Self {
            event: StoredEvent { seq, recorded_at, tag: Tag { kind, version, flags }, bytes },
            body_hash: decode("body_hash", &text.body_hash)?,
            leaf: decode("leaf", &text.leaf)?,
            path: decode_all(&text.path)?,
            checkpoint: text.checkpoint.parse()?,
            public_key: text.public_key.parse()?,
        })
    }
}

impl From<Growth> for GrowthText {
    fn from(growth: Growth) -> Self {
        let Growth { earlier, later, path, public_key } = growth;
        Self {
            earlier: earlier.to_string(),
            later: later.to_string(),
            path: encode_all(&path),
            public_key: public_key.to_string(),
        }
    }
}

impl TryFrom<GrowthText> for Growth {
    type Error = TextError;

    fn try_from(text: GrowthText) -> Result<Self, TextError> {
        Ok(Self {
            earlier: text.earlier.parse()?,
            later: text.later.parse()?,
            path: decode_all(&text.path)?,
            public_key: text.public_key.parse()?,
        })
    }
}
