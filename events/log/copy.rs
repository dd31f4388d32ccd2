//! Copying a log, or its beginning, into a new file: what forks, backups and logs without their oldest events are made of.
//!
//! Blocks are checked as [`verify`](crate::log::verify) does and written as they are; only the one that holds the cut is made
//! shorter. Events keep their positions, times and hashes, so the copy has the root that the log had there.

use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::id::Seq;
use crate::log::block::ENTRY_BYTES;
use crate::log::blocks::{Value, each_key_of, next_header, open_block, read_header};
use crate::log::chain::{Hash, hash, leaf};
use crate::log::erasure::Marks;
use crate::log::header::Header;
use crate::log::keys;
use crate::log::merge::filter_items;
use crate::log::open::{create_at, put_origin, write_through};
use crate::log::origin::Origin;
use crate::log::pack::{ChainEnd, Summary};
use crate::log::past::Part;
use crate::log::prove::{self, ProveError};
use crate::log::reader::{Head, Reader};
use crate::log::scan::ReadError;
use crate::log::sealing::KeyRing;
use crate::log::store::{BODIES, HEADERS, KEYS, Snapshot, StoreError, Writable, guarded};
use crate::log::verify::{Findings, verify_block};

/// Bytes of blocks in one commit of the copy.
const COMMIT_BYTES: usize = 32 << 20;
/// Idempotency keys in one commit of the copy.
const COMMIT_KEYS: usize = 32_768;
/// Memory for pages of the copy while it is written.
const CACHE_BYTES: usize = 32 << 20;

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Copied {
    /// The end of the copy: what the log's head was after these events.
    pub head: Head,
    /// Blocks written.
    pub blocks: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Idempotency keys written: those whose events are in the copy.
    pub keys: u64,
}

/// Why a log was not copied. The log is as it was, and nothing is left of the copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// There is no such position.
    #[error("{until} is not in the log, which ends at {head}; choose a position from 0 to {}", head.0)]
    Beyond {
        /// What was asked for.
        until: Seq,
        /// The last position.
        head: Seq,
    },
    /// The events there were dropped.
    #[error("the events before {first} were dropped; choose a position from {} on", first.previous().0)]
    Dropped {
        /// The first position that there is.
        first: Seq,
    },
    /// The log could not be read, or is damaged.
    #[error("could not read the log that is copied")]
    Read(#[from] ReadError),
    /// The copy could not be written: there is a file already, no space, or no permission.
    #[error("could not write {} (is there space, and no such file yet?)", path.display())]
    Write {
        /// The copy.
        path: PathBuf,
        /// Why not.
        #[source]
        source: StoreError,
    },
}

/// Writes the first `until` events of the log into a new file at `to`: the same log, as it was then, in a single file. What
/// was dropped from the log is not in the copy either.
///
/// The copy is on the medium and closed in order when this returns. `progress` hears the last position after each block. The
/// log may be written meanwhile; what is copied is the log as it stands now.
///
/// # Errors
///
/// [`CopyError`]; what was written of the copy is removed.
///
/// ```
/// # use std::sync::Arc;
/// # use caxton_events::log::{Log, LogOptions, copy_log};
/// # use caxton_events::{Clock, Seq, Timestamp};
/// # struct Noon;
/// # impl Clock for Noon {
/// #     fn now(&self) -> Timestamp { Timestamp::from_unix_micros(43_200_000_000) }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (dir, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(Noon))?;
/// let copied = copy_log(&log.reader(), Seq(0), &other.path().join("events.redb"), &mut |_| ())?;
/// assert_eq!(copied.head.seq, Seq(0));
/// assert_eq!(Log::open_read_only(other.path())?.log_id(), [7; 16]);
/// # Ok(())
/// # }
/// ```
pub fn copy_log(
    from: &Reader,
    until: Seq,
    to: &Path,
    progress: &mut dyn FnMut(Seq),
) -> Result<Copied, CopyError> {
    let snapshot = from.snapshot()?;
    let past = &snapshot.past;
    let shared = past.origin.forks.iter().any(|fork| fork.seq > until);
    // Of what it shares with other logs, it has no more than its own events.
    let root = if shared { root_at(&snapshot, until)? } else { Hash::default() };
    let origin = past.origin.shared(until, &root);
    let (log_id, start) = (from.log_id(), past.start.clone());
    copy_as(&snapshot, Wanted { until, start, log_id, origin: &origin, of: None }, to, progress)
}

/// What a copy is to hold.
pub(crate) struct Wanted<'a> {
    /// The end of the chain before its first event.
    pub start: ChainEnd,
    /// Its last event.
    pub until: Seq,
    /// Its id.
    pub log_id: [u8; 16],
    /// What it says about its beginning.
    pub origin: &'a Origin,
    /// The sealed file whose idempotency keys it has; `None`: it has those of all files.
    pub of: Option<&'a Part>,
}

fn root_at(snapshot: &Snapshot, until: Seq) -> Result<Hash, CopyError> {
    let head = prove::head_at(snapshot, snapshot.through, until.0).map_err(|error| match error {
        ProveError::Beyond { .. } | ProveError::Erased { .. } => {
            CopyError::Beyond { until, head: snapshot.through }
        }
        ProveError::Dropped { first, .. } => CopyError::Dropped { first },
        ProveError::Read(source) => CopyError::Read(source),
    })?;
    Ok(head.root)
}

/// Writes a part of the log into a new file at `to`.
pub(crate) fn copy_as(
    snapshot: &Snapshot,
    wanted: Wanted<'_>,
    to: &Path,
    progress: &mut dyn FnMut(Seq),
) -> Result<Copied, CopyError> {
    let Wanted { until, log_id, origin, .. } = wanted;
    if until > snapshot.through {
        return Err(CopyError::Beyond { until, head: snapshot.through });
    }
    let first = Seq(wanted.start.frontier.count() + 1);
    if until.next() < first {
        return Err(CopyError::Dropped { first });
    }
    let failed = |source| CopyError::Write { path: to.to_owned(), source };
    // Not removed below when it was there before: that file is somebody else's.
    let file = File::options().read(true).write(true).create_new(true).open(to);
    let file = file.map_err(|source| failed(StoreError::Io(source)))?;
    let copied = create_at(file, CACHE_BYTES, log_id).map_err(failed).and_then(|target| {
        if !origin.is_none() {
            write_through(&target, |transaction| put_origin(transaction, origin)).map_err(failed)?;
        }
        let copied = fill(snapshot, wanted, &target, &failed, progress)?;
        guarded(|| Ok(target.database.close()?)).map_err(failed)?;
        Ok(copied)
    });
    let synced = copied.and_then(|copied| {
        sync_folder(to).map_err(|source| failed(StoreError::Io(source)))?;
        Ok(copied)
    });
    if synced.is_err() {
        // What is left of it is no log anybody asked for; that it could not be copied counts.
        let _ = fs::remove_file(to);
    }
    synced
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

/// Makes the name of a file last.
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new("."))).and_then(|folder| folder.sync_all())
}

/// A block on its way into the copy.
struct Copy {
    first: Seq,
    header: Vec<u8>,
    body: Vec<u8>,
}

fn fill(
    snapshot: &Snapshot,
    wanted: Wanted<'_>,
    target: &Writable,
    failed: &dyn Fn(StoreError) -> CopyError,
    progress: &mut dyn FnMut(Seq),
) -> Result<Copied, CopyError> {
    let Wanted { start: mut end, until, of, .. } = wanted;
    let mut copied = Copied::default();
    let first = Seq(end.frontier.count() + 1);
    let mut headers = snapshot.headers_from(first)?;
    let (mut blocks, mut bytes) = (Vec::new(), 0);
    while end.frontier.count() < until.0 {
        let Some((first, value)) = next_header(&mut headers, false)? else {
            let what = "the blocks that should follow are missing";
            return Err(
                ReadError::Damaged { block: Seq(end.frontier.count() + 1), what: what.to_owned() }.into()
            );
        };
        let header = read_header(first, &value)?;
        let body = snapshot.body(first)?;
        let block = if header.last() <= until {
            verify_block(&header, &body, &mut end, &KeyRing::default(), &mut Findings::default())?;
            Copy { first, header: value.value().to_vec(), body: body.value().to_vec() }
        } else {
            let (header, body) = front(&header, &body, until, &mut end)?;
            Copy { first, header, body }
        };
        bytes += block.body.len();
        (copied.blocks, copied.bytes) = (copied.blocks + 1, copied.bytes + block.body.len() as u64);
        blocks.push(block);
        if bytes >= COMMIT_BYTES {
            store(target, &mut blocks).map_err(failed)?;
            bytes = 0;
        }
        progress(Seq(end.frontier.count()));
    }
    store(target, &mut blocks).map_err(failed)?;
    copied.head = Head { seq: until, root: end.frontier.root(), recorded_at: end.recorded_at };
    // Of a block that a fork was cut in, the keys stay with the file that the events came from.
    let keys_until = of.map_or(until, |part| part.sealed.keys_through);
    copied.keys = copy_keys(snapshot, of, first..=keys_until, target, failed)?;
    Ok(copied)
}

fn store(target: &Writable, blocks: &mut Vec<Copy>) -> Result<(), StoreError> {
    write_through(target, |transaction| {
        let (mut headers, mut bodies) = (transaction.open_table(HEADERS)?, transaction.open_table(BODIES)?);
        let mut marks = Marks::default();
        for block in &*blocks {
            marks.note(block.first, &block.header, &block.body);
        }
        marks.put(transaction)?;
        for Copy { first, header, body } in blocks.drain(..) {
            headers.insert(first.0, header.as_slice())?;
            bodies.insert(first.0, body.as_slice())?;
        }
        Ok(())
    })
}

/// The part of a block up to `until`, which lies in it and is not its last event, as a block: header and body. `end`, which
/// must be the end of the chain before it, is moved behind it.
pub(crate) fn front(
    header: &Header<'_>,
    body: &Value,
    until: Seq,
    end: &mut ChainEnd,
) -> Result<(Vec<u8>, Vec<u8>), ReadError> {
    let damaged = |what: &str| ReadError::Damaged { block: header.first, what: what.to_owned() };
    if header.first.0 != end.frontier.count() + 1 || header.prev_root != end.frontier.root() {
        return Err(damaged("it does not continue the chain: its root before differs from the one reached"));
    }
    let block = open_block(header, body)?;
    let count = (until.0 + 1 - header.first.0) as usize;
    let (mut summary, mut last) = (Summary::default(), header.first_at);
    for index in 0..count {
        let (seq, entry) = (block.seq(index), block.entry(index));
        let items = filter_items(&block, index).map_err(|what| damaged(&format!("{what} ({seq})")))?;
        summary.add(entry.tag.kind, items);
        last = block.recorded_at(&entry);
        end.frontier.push(leaf(seq, last, entry.tag, &entry.body_hash));
    }
    // Entries hold distances from the block's first time, ends count from the end of the entries: neither changes.
    let stored = block.entry(count - 1).body_end as usize;
    let entries = &body.value()[..count * ENTRY_BYTES];
    let events = &body.value()[block.count() * ENTRY_BYTES..][..stored];
    end.bytes_through += stored as u64;
    end.recorded_at = last;
    let (front, hashes) = ([entries, events].concat(), (header.prev_root, hash(entries)));
    let encoded = summary.header(header.first, (count as u32, &front), (header.first_at, last), hashes, end);
    Ok((encoded, front))
}

/// Copies the rows of keys whose last event is among these; how many there are.
fn copy_keys(
    snapshot: &Snapshot,
    of: Option<&Part>,
    events: RangeInclusive<Seq>,
    target: &Writable,
    failed: &dyn Fn(StoreError) -> CopyError,
) -> Result<u64, CopyError> {
    let (mut rows, mut count) = (Vec::new(), 0);
    let mut flush = |rows: &mut Vec<(String, Vec<u8>)>| {
        count += rows.len() as u64;
        write_through(target, |transaction| {
            let mut table = transaction.open_table(KEYS)?;
            for (key, row) in rows.drain(..) {
                table.insert(key.as_str(), row.as_slice())?;
            }
            Ok(())
        })
        .map_err(failed)
    };
    let mut take = |key: &str, row: &[u8]| {
        let known = keys::decode(key, row).ok_or_else(|| ReadError::Key { key: key.to_owned() })?;
        if events.contains(&known.last) {
            rows.push((key.to_owned(), row.to_vec()));
        }
        if rows.len() == COMMIT_KEYS { flush(&mut rows) } else { Ok(()) }
    };
    match of {
        Some(part) => each_key_of(part, &mut take)?,
        None => snapshot.each_key(&mut take)?,
    }
    if !rows.is_empty() {
        flush(&mut rows)?;
    }
    Ok(count)
}
