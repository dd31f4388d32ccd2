//! A log made anew of events as they are stored: the same leaves, the same root, in blocks of its own.

use std::fs;
use std::path::{Path, PathBuf};

use crate::codec;
use crate::id::Seq;
use crate::limits::BLOCK_BYTES_MAX;
use crate::log::beside::ID_FILE;
use crate::log::block::{ENTRY_BYTES, FLAG_LZ4, FLAG_SEALED, Stored, redacted};
use crate::log::bloom::{Item, item_hash};
use crate::log::build::{BuildError, LogBuild};
use crate::log::lock::DirLock;
use crate::log::open::{NEW_FILE, OpenError, lock};
use crate::log::pack::{ChainEnd, pack_one};
use crate::log::prepare::{Prepared, PreparedEvent};
use crate::log::proof::UnreadableError;
use crate::log::reader::Head;
use crate::log::sealing::KeyRing;
use crate::log::sealing::opened::{self, Placed, envelope_bytes};
use crate::log::stored::{Body, KeptEvent};
use crate::log::streams::Streams;
use crate::log::stretch::StoredBlock;
use crate::time::Timestamp;

/// What an attempt before may have left where there is no log; the id was written before the log had its name.
const LEFT: &[&str] = &["LOCK", NEW_FILE, ID_FILE];

/// Why a log could not be made of events. Nothing is left of the attempt but an empty directory with its lock's file.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// There is something in the directory.
    #[error("{} is not empty, it holds {found}; name a directory that is empty or not there", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A file in it.
        found: String,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Another event was due.
    #[error("event {found} comes where {expected} is due")]
    Order {
        /// What was due.
        expected: Seq,
        /// What came.
        found: Seq,
    },
    /// The event was recorded before the one in front of it.
    #[error("event {seq} was recorded before the one in front of it, which no log does")]
    Time {
        /// The event.
        seq: Seq,
    },
    /// The event cannot be read.
    #[error("could not read event {seq}")]
    Unreadable {
        /// The event.
        seq: Seq,
        /// Why.
        #[source]
        source: UnreadableError,
    },
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] BuildError),
}

/// A log in the making, in a directory of its own. Dropped before [`Rebuild::finish`], it is gone.
pub struct Rebuild {
    build: LogBuild,
    end: ChainEnd,
    /// Events of the next block, those of one moment together.
    waiting: Vec<Prepared>,
    waiting_bytes: usize,
    last: (Seq, Timestamp),
    _lock: DirLock,
}

impl std::fmt::Debug for Rebuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuild").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Rebuild {
    /// Begins a log with this id in `dir`, which is made if it is not there and must be empty.
    ///
    /// # Errors
    ///
    /// [`RebuildError`].
    pub fn begin(dir: &Path, log_id: [u8; 16]) -> Result<Self, RebuildError> {
        // Once before anything is put there, and once when nobody else can.
        check_empty(dir)?;
        let lock = lock(dir)?;
        check_empty(dir)?;
        let build = LogBuild::begin(dir, log_id).inspect_err(|_| {
            // Half a file is none; one that could not be removed is no hindrance to the next attempt.
            let _ = fs::remove_file(dir.join(NEW_FILE));
        })?;
        Ok(Self {
            build,
            end: ChainEnd::default(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            last: (Seq::ZERO, Timestamp::EPOCH),
            _lock: lock,
        })
    }

    /// Adds the next event.
    ///
    /// # Errors
    ///
    /// [`RebuildError`] if it is not the next, cannot be read, or cannot be written.
    pub fn push(&mut self, event: KeptEvent) -> Result<(), RebuildError> {
        let (last, last_at) = self.last;
        let seq = event.seq;
        if seq != last.next() {
            return Err(RebuildError::Order { expected: last.next(), found: seq });
        }
        if event.recorded_at < last_at {
            return Err(RebuildError::Time { seq });
        }
        let items = checked_items(&event).map_err(|source| RebuildError::Unreadable { seq, source })?;
        let KeptEvent { recorded_at, tag, body_hash, body, .. } = event;
        let stored = match body {
            Body::Stored(bytes) => bytes,
            Body::Erased(order) => redacted(order),
        };
        let bytes = ENTRY_BYTES + stored.len();
        if self.waiting_bytes + bytes > BLOCK_BYTES_MAX {
            self.write_block()?;
        }
        self.last = (seq, recorded_at);
        self.waiting_bytes += bytes;
        let prepared = PreparedEvent { tag, len: stored.len() as u32, body_hash, items };
        match self.waiting.last_mut().filter(|batch| batch.recorded_at == recorded_at) {
            Some(batch) => {
                batch.events.push(prepared);
                batch.bytes.extend_from_slice(&stored);
            }
            None => self.waiting.push(Prepared {
                events: vec![prepared],
                bytes: stored,
                streams: Streams::default(),
                key: None,
                expected: None,
                recorded_at,
                sealed_under: Vec::new(),
                generation: 0,
            }),
        }
        Ok(())
    }

    /// Writes the events that wait as one block, every hash of which is recomputed.
    fn write_block(&mut self) -> Result<(), RebuildError> {
        let batches = std::mem::take(&mut self.waiting);
        if batches.is_empty() {
            return Ok(());
        }
        let first = Seq(self.end.frontier.count() + 1);
        let mut body = vec![0; std::mem::take(&mut self.waiting_bytes)];
        let header = pack_one(&batches, &mut body, &mut self.end);
        self.build.block(StoredBlock { first, header, body }, Seq(u64::MAX))?;
        Ok(())
    }

    /// Makes the file last and gives it its name; the head of the log then.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Write`].
    pub fn finish(mut self) -> Result<Head, RebuildError> {
        self.write_block()?;
        Ok(self.build.finish()?)
    }
}

fn check_empty(dir: &Path) -> Result<(), RebuildError> {
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    if !dir.try_exists().map_err(io)? {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if !LEFT.iter().any(|left| name == *left) {
            let found = name.to_string_lossy().into_owned();
            return Err(RebuildError::NotEmpty { path: dir.to_owned(), found });
        }
    }
    Ok(())
}

/// What the filter of a block knows of an event, which must be one that this program can read but for its key.
fn checked_items(event: &KeptEvent) -> Result<[u64; 3], UnreadableError> {
    if event.tag.flags & !(FLAG_LZ4 | FLAG_SEALED) != 0 {
        let what = "it is stored in a way that this program does not know; use a newer Caxton";
        return Err(UnreadableError::Unpack(what));
    }
    if !event.is_intact() {
        return Err(UnreadableError::Unpack("its bytes do not match their hash"));
    }
    let KeptEvent { seq, recorded_at, tag, body, .. } = event;
    let stored = match body {
        Body::Stored(bytes) => Stored::Bytes(bytes),
        Body::Erased(order) => Stored::Redacted(*order),
    };
    let placed = Placed { seq: *seq, recorded_at: *recorded_at, tag: *tag };
    opened::open(stored, placed, &KeyRing::default(), |_| true)?;
    let Body::Stored(bytes) = body else { return Ok([0; 3]) };
    let bytes = envelope_bytes(bytes, *tag).map_err(UnreadableError::Unpack)?;
    let (envelope, _) = codec::decode_envelope(&bytes)?;
    let correlation = envelope.correlation.map_or(0, |text| item_hash(Item::Correlation, text));
    Ok([item_hash(Item::Stream, envelope.stream), item_hash(Item::Actor, envelope.actor), correlation])
}
