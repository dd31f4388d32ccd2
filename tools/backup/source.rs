//! A log and the files that belong to it, as frames: made one by one while they are sent, and the log goes on.

use std::collections::VecDeque;

use caxton_events::Seq;
use caxton_events::log::{End, Head, ProveError, ReadError, Reader, Signer, Stretch};
use serde::{Deserialize, Serialize};

use super::format::PartKind;
use super::frames::Frame;

/// What is to follow: the end of the backup that is added to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Its last position; 0 for a new backup.
    pub after: Seq,
    /// The root there, hex.
    pub root: Option<String>,
}

/// A file that goes with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// What it is.
    pub kind: PartKind,
    /// Its name where it is.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Why a backup was not begun, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The backup that was to be added to is not of this log, or of another history of it.
    #[error(
        "the backup ends at {after} with another root than this log has there: it is of another log, or of another history \
         of this one; begin a new backup in an empty folder"
    )]
    OtherHistory {
        /// Where it ends.
        after: Seq,
    },
    /// The backup has more than the log.
    #[error(
        "the backup ends at {after}, this log at {head}: it is of another log, or of a later state of this one; begin a new backup in an empty folder"
    )]
    Beyond {
        /// Where it ends.
        after: Seq,
        /// Where the log ends.
        head: Seq,
    },
    /// The log does not begin with its first event any more, and a backup would have to.
    #[error(
        "the events before {first} were dropped, and a backup begins with the first one; stop the server and copy the data \
         directory as it is, with base/ and sealed/"
    )]
    Dropped {
        /// The first event that the log has.
        first: Seq,
    },
    /// The log could not be read.
    #[error("could not read the log")]
    Read(#[from] ReadError),
}

impl From<ProveError> for SourceError {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Beyond { asked, size } => Self::Beyond { after: asked, head: Seq(size) },
            ProveError::Dropped { first, .. } => Self::Dropped { first },
            ProveError::Erased { seq, .. } => Self::Beyond { after: seq, head: seq },
            ProveError::Read(error) => Self::Read(error),
        }
    }
}

/// What stands in front of everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) log_id: String,
    pub(super) after: Seq,
    pub(super) seq: Seq,
    pub(super) root: String,
    pub(super) checkpoint: Option<String>,
    pub(super) public_key: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileHead {
    pub(super) kind: PartKind,
    pub(super) name: String,
}

/// The frames of a backup, encoded. Ends after the first error; only one that ends with the last frame is whole.
pub struct Frames {
    reader: Reader,
    head: Head,
    after: Seq,
    front: VecDeque<Vec<u8>>,
    stretch: Option<Stretch>,
    keys: Option<VecDeque<Vec<u8>>>,
    ended: bool,
}

/// Frames of everything behind `wanted` up to the log's head as it is now, with `extras`; heads are signed by `signer`.
///
/// # Errors
///
/// [`SourceError`]: the backup that is added to is none of this log's, or the log cannot be read.
pub fn source(
    reader: &Reader,
    wanted: &Wanted,
    extras: Vec<Extra>,
    signer: Option<&Signer>,
) -> Result<Frames, SourceError> {
    let head = reader.head();
    let after = wanted.after;
    let first = reader.first().map_err(ReadError::from)?;
    if after.next() < first {
        return Err(SourceError::Dropped { first });
    }
    let end = if after == Seq::ZERO { End::default() } else { reader.end_at(after.0)? };
    if wanted.root.as_ref().is_some_and(|root| after > Seq::ZERO && *root != end.head().root.to_string()) {
        return Err(SourceError::OtherHistory { after });
    }
    let begin = Begin {
        log_id: format!("{:032x}", u128::from_be_bytes(reader.log_id())),
        after,
        seq: head.seq,
        root: head.root.to_string(),
        checkpoint: signer.map(|signer| signer.sign(head).to_string()),
        public_key: signer.map(|signer| signer.public_key().to_string()),
    };
    let mut front = VecDeque::from([Frame::Begin(json(&begin)).encode()]);
    for Extra { kind, name, content } in extras {
        front.push_back(Frame::File(json(&FileHead { kind, name }), content).encode());
    }
    let stretch = Some(reader.stretch(end, head.seq));
    Ok(Frames { reader: reader.clone(), head, after, front, stretch, keys: None, ended: false })
}

/// A struct of texts and numbers, which is always JSON.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

impl Frames {
    /// The head that the backup ends with.
    pub fn head(&self) -> Head {
        self.head
    }

    fn step(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        if let Some(frame) = self.front.pop_front() {
            return Ok(Some(frame));
        }
        if let Some(block) = self.stretch.as_mut().and_then(Iterator::next) {
            return Ok(Some(Frame::Block(block?).encode()));
        }
        if self.stretch.take().is_some() {
            // Read in one go: the table is in the order of keys, and one that is added meanwhile must not be missed or met
            // twice.
            let mut keys = VecDeque::new();
            self.reader.keys_of::<ReadError>(self.after, self.head.seq, &mut |key, row| {
                keys.push_back(Frame::Key(key.to_owned(), row.to_vec()).encode());
                Ok(())
            })?;
            self.keys = Some(keys);
        }
        if let Some(frame) = self.keys.as_mut().and_then(VecDeque::pop_front) {
            return Ok(Some(frame));
        }
        self.ended = true;
        Ok(Some(Frame::End(self.head.seq).encode()))
    }
}

impl Iterator for Frames {
    type Item = Result<Vec<u8>, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let frame = self.step();
        self.ended |= frame.is_err();
        frame.transpose()
    }
}
