//! A log and the files that belong to it, as frames: made one by one while they are sent, and the log goes on.

use std::collections::VecDeque;

use caxton_events::Seq;
use caxton_events::log::{End, ForkedFrom, Head, ProveError, ReadError, Reader, Signer, Stretch};
use serde::{Deserialize, Serialize};

use super::format::PartKind;
use super::frames::Frame;

/// Idempotency keys that are in memory at the most.
const KEYS_MAX: usize = 4_096;

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

/// The files that go with the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extras {
    /// Those that are taken.
    pub files: Vec<Extra>,
    /// What is left out, and what to do about it: a line for people each.
    pub left_out: Vec<String>,
}

impl From<Vec<Extra>> for Extras {
    fn from(files: Vec<Extra>) -> Self {
        Self { files, left_out: Vec::new() }
    }
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) forks: Vec<ForkedFrom>,
    /// Files that are there and do not come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<String>,
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
    /// The next idempotency keys with their rows.
    keys: VecDeque<(String, Vec<u8>)>,
    /// The last key that was read.
    key: Option<String>,
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
    extras: Extras,
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
        forks: reader.origin().map_err(ReadError::from)?.forks,
        left_out: extras.left_out,
    };
    let mut front = VecDeque::from([Frame::Begin(json(&begin)).encode()]);
    for Extra { kind, name, content } in extras.files {
        front.push_back(Frame::File(json(&FileHead { kind, name }), content).encode());
    }
    let stretch = Some(reader.stretch(end, head.seq));
    let (reader, keys) = (reader.clone(), VecDeque::new());
    Ok(Frames { reader, head, after, front, stretch, keys, key: None, ended: false })
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
        self.stretch = None;
        if self.keys.is_empty() {
            // One that is added meanwhile is of an event behind the head, and not asked for.
            let stretch = (self.after, self.head.seq);
            self.keys = self.reader.keys_behind(self.key.as_deref(), stretch, KEYS_MAX)?.into();
            self.key = self.keys.back().map(|(key, _)| key.clone());
        }
        if let Some((key, row)) = self.keys.pop_front() {
            return Ok(Some(Frame::Key(key, row).encode()));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::sync::Arc;

    use caxton_events::log::{Batch, IdempotencyKey, Log, LogOptions};
    use caxton_events::{Clock, Draft, SystemEvent, Timestamp};

    use super::{Extras, Frame, KEYS_MAX, Wanted, source};

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_micros(43_200_000_000)
        }
    }

    #[test]
    fn no_more_keys_than_a_page_are_in_memory_and_none_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(Noon)).unwrap();
        let batch = |number: usize| {
            let draft = Draft {
                stream: "system".to_owned(),
                actor: "ada".to_owned(),
                correlation: None,
                causation: None,
                event: SystemEvent::ServerStopped.into(),
            };
            let (key, answer) = (format!("key {number:05}"), Vec::new());
            let key = IdempotencyKey { key, fingerprint: [1; 32], answer };
            Batch { key: Some(key), ..Batch::of(vec![draft]) }
        };
        let count = 2 * KEYS_MAX + 1;
        for appended in log.append((0..count).map(batch).collect()).unwrap() {
            appended.unwrap();
        }
        let mut frames = source(&log.reader(), &Wanted::default(), Extras::default(), None).unwrap();
        let mut found = 0;
        while let Some(frame) = frames.next() {
            assert!(frames.keys.len() < KEYS_MAX);
            if let Some(Frame::Key(key, _)) = Frame::read(&mut frame.unwrap().as_slice()).unwrap() {
                assert_eq!(key, format!("key {found:05}"));
                found += 1;
            }
        }
        assert_eq!(found, count);
    }
}
