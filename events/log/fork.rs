//! Forking: a log that shares the past of another up to a cut, and nothing after it.
//!
//! The fork gets the sealed files of the past under names of its own, and a new file to go on in. A block that holds the cut is
//! the only thing that is copied, its first events alone. So a fork costs the same for any log, neither log can change what
//! the other reads, and each may be moved, or removed, without the other.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::Seq;
use crate::log::beside::{write_id, write_whole};
use crate::log::blocks::{Value, damaged, read_header};
use crate::log::copy::{CopyError, Wanted, copy_as, front};
use crate::log::erasure::Marks;
use crate::log::header::Header;
use crate::log::open::{
    LOG_FILE, NEW_FILE, OpenError, Opened, create_at, open_file_at, put_origin, write_through,
};
use crate::log::origin::{ForkedFrom, ORIGIN_FILE, Origin, SEALED_DIR, SealedFile};
use crate::log::pack::ChainEnd;
use crate::log::past::{Part, PartError};
use crate::log::reader::Head;
use crate::log::scan::ReadError;
use crate::log::seal::{SealedLog, sealed_through, sync_dir};
use crate::log::sealing::{KeyFile, KeysError};
use crate::log::store::{BODIES, HEADERS, StoreError, guarded};
use crate::time::Timestamp;

/// Names the forks of a data directory, a line of JSON each.
pub const FORKS_FILE: &str = "forks.jsonl";
const CACHE_BYTES: usize = 1 << 20;

/// A fork as the directory it was made from remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// Where it was made.
    pub dir: PathBuf,
    /// The last position that it shares.
    pub seq: Seq,
    /// When it was made.
    pub at: Timestamp,
}

/// What a fork is to be.
#[derive(Debug, Clone)]
pub struct ForkOptions {
    /// The last position that both share.
    pub cut: Seq,
    /// The fork's own id. Draw it at random.
    pub log_id: [u8; 16],
    /// The time to record.
    pub at: Timestamp,
}

/// Why there is no fork. The log that was to be forked is as it was; what there is of the fork is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ForkError {
    /// There is no such position.
    #[error("{cut} is not in the log; choose a position from {} to {}", first.0, head.0)]
    Beyond {
        /// What was asked for.
        cut: Seq,
        /// The first position there is.
        first: Seq,
        /// The last one.
        head: Seq,
    },
    /// A sealed file cannot be used.
    #[error("could not use {}", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PartError,
    },
    /// The block that holds the cut cannot be read.
    #[error("could not read the events at {cut}")]
    Read {
        /// The cut.
        cut: Seq,
        /// Why not.
        #[source]
        source: ReadError,
    },
    /// The fork could not be opened to take in what lies before it.
    #[error("could not read the parent's events")]
    Open(#[from] OpenError),
    /// The parent's events could not be copied.
    #[error("could not copy the parent's events")]
    Copy(#[from] CopyError),
    /// The fork would lie on another file system than the log.
    #[error(
        "{} lies on another file system than the log, so both cannot share a file; fork with a copy of the events (--copy)",
        path.display()
    )]
    OtherFileSystem {
        /// The file that would be shared.
        path: PathBuf,
    },
    /// The keys of encrypted payloads could not be copied.
    #[error("could not take the keys of what is encrypted along")]
    Keys(#[from] KeysError),
    /// A file of the fork could not be written.
    #[error("could not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: StoreError,
    },
}

impl ForkError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source: StoreError::Io(source) }
    }
}

/// Makes the files of a fork in `to`, a folder without a log, and answers its head. The fork is not noted in the parent: see
/// [`note_fork`]. The keys of encrypted payloads come last, so that a fork that is cut short leaves none.
///
/// With `copy`, which hears the last position copied and the one to reach, the fork shares no file: it has all events itself.
///
/// # Errors
///
/// [`ForkError`].
pub fn fork_log(
    parent: &SealedLog,
    options: &ForkOptions,
    to: &Path,
    copy: Option<&mut dyn FnMut(Seq, Seq)>,
) -> Result<Head, ForkError> {
    let ForkOptions { cut, log_id, at } = *options;
    let (sealed, begun) = cut_sealed(parent, cut)?;
    let head = begun.head;
    let mut origin = parent.origin.shared(cut, &head.root);
    origin.sealed = sealed;
    origin.forks.push(ForkedFrom {
        log_id: parent.log_id,
        dir: parent.dir.display().to_string(),
        seq: cut,
        root: head.root.0,
        at,
    });
    if let Some(progress) = copy {
        write_own(to, (log_id, parent.has_gaps), &origin, begun)?;
        copy_sealed(parent, to, cut, progress)?;
    } else {
        link_sealed(parent, to, &origin)?;
        write_own(to, (log_id, parent.has_gaps), &origin, begun)?;
    }
    KeyFile::copy(&parent.dir, parent.log_id, to, log_id)?;
    Ok(head)
}

/// Gives the sealed files names in the fork.
fn link_sealed(parent: &SealedLog, to: &Path, origin: &Origin) -> Result<(), ForkError> {
    let folder = to.join(SEALED_DIR);
    fs::create_dir(&folder).map_err(ForkError::io(&folder))?;
    for SealedFile { file, .. } in &origin.sealed {
        let (from, to) = (parent.dir.join(SEALED_DIR).join(file), folder.join(file));
        fs::hard_link(&from, &to).map_err(|error| {
            if error.kind() == io::ErrorKind::CrossesDevices {
                ForkError::OtherFileSystem { path: to.clone() }
            } else {
                ForkError::io(&to)(error)
            }
        })?;
    }
    sync_dir(&folder).map_err(ForkError::io(&folder))
}

/// The beginning of the fork's own file.
struct Begun {
    head: Head,
    /// The first events of the block that was cut.
    block: Option<(Seq, Vec<u8>, Vec<u8>)>,
}

/// The sealed files that a fork shares, and what it has to have itself.
fn cut_sealed(parent: &SealedLog, cut: Seq) -> Result<(Vec<SealedFile>, Begun), ForkError> {
    let (first, head) = (parent.origin.before_first().seq.next(), sealed_through(&parent.origin));
    let all = &parent.origin.sealed;
    let holder = all.partition_point(|sealed| sealed.through < cut);
    if cut < first || holder == all.len() {
        return Err(ForkError::Beyond { cut, first, head });
    }
    let folder = parent.dir.join(SEALED_DIR);
    let open = |sealed: &SealedFile| {
        let opened = Part::open(&folder, sealed);
        opened.map_err(|source| ForkError::Sealed { path: folder.join(&sealed.file), source })
    };
    let part = open(&all[holder])?;
    let read = |source: ReadError| ForkError::Read { cut, source };
    let first_of = |part: &Part| part.first().map_err(|error| read(error.into()));
    let before_part = || {
        for sealed in all[..holder].iter().rev() {
            let before = open(sealed)?;
            // A log that was cut inside of the file's first block has none of its blocks.
            if first_of(&before)? <= sealed.through {
                return last_end(&before, sealed.through, cut);
            }
        }
        Ok(parent.origin.start().unwrap_or_default())
    };
    let (at, value) = covering(&part, cut).map_err(read)?;
    let header = read_header(at, &value).map_err(read)?;
    let mut sealed: Vec<SealedFile> = all[..=holder].to_vec();
    // Keys of events behind the cut are not the fork's, wherever their rows are.
    for sealed in &mut sealed {
        sealed.keys_through = sealed.keys_through.min(cut);
    }
    let last = &mut sealed[holder];
    if header.last() == cut {
        (last.through, last.root) = (cut, header.root.0);
        let head = Head { seq: cut, root: header.root, recorded_at: header.last_at };
        return Ok((sealed, Begun { head, block: None }));
    }
    let before = if at == first_of(&part)? { before_part()? } else { last_end(&part, at.previous(), cut)? };
    (last.through, last.root) = (at.previous(), before.frontier.root().0);
    let body = guarded(|| Ok(part.tables.bodies.get_owned(at.0)?.map(Value::new)));
    let body = body
        .map_err(|error| read(error.into()))?
        .ok_or_else(|| read(damaged(at, "its events are missing")))?;
    let mut end = before;
    let (header, body) = front(&header, &body, cut, &mut end).map_err(read)?;
    let head = Head { seq: cut, root: end.frontier.root(), recorded_at: end.recorded_at };
    Ok((sealed, Begun { head, block: Some((at, header, body)) }))
}

/// The header of the block that holds `seq`.
fn covering(part: &Part, seq: Seq) -> Result<(Seq, Value), ReadError> {
    let row = guarded(|| {
        let row = part.tables.headers.range_owned(..=seq.0)?.next_back().transpose()?;
        Ok(row.map(|(key, value)| (Seq(key.value()), Value::new(value))))
    });
    row?.ok_or_else(|| damaged(seq, "it is missing"))
}

/// The end of the chain after the block of the file that ends at `through`.
fn last_end(part: &Part, through: Seq, cut: Seq) -> Result<ChainEnd, ForkError> {
    let end = covering(part, through).and_then(|(first, value)| end_of(&read_header(first, &value)?));
    end.map_err(|source| ForkError::Read { cut, source })
}

fn end_of(header: &Header<'_>) -> Result<ChainEnd, ReadError> {
    let frontier = header.frontier().ok_or_else(|| damaged(header.first, "its peaks do not fit"))?;
    Ok(ChainEnd { frontier, bytes_through: header.bytes_through, recorded_at: header.last_at })
}

/// Writes the fork's own file, its id and its origin.
fn write_own(
    to: &Path,
    (log_id, parent_has_gaps): ([u8; 16], bool),
    origin: &Origin,
    begun: Begun,
) -> Result<(), ForkError> {
    let new = to.join(NEW_FILE);
    let failed = |source| ForkError::Write { path: new.clone(), source };
    let file =
        File::options().read(true).write(true).create_new(true).open(&new).map_err(ForkError::io(&new))?;
    let created = create_at(file, CACHE_BYTES, log_id).map_err(failed)?;
    let filled = write_through(&created, |transaction| {
        put_origin(transaction, origin)?;
        Marks { sealed: false, gaps: parent_has_gaps }.put(transaction)?;
        if let Some((first, header, body)) = begun.block {
            transaction.open_table(HEADERS)?.insert(first.0, header.as_slice())?;
            transaction.open_table(BODIES)?.insert(first.0, body.as_slice())?;
        }
        Ok(())
    });
    filled.and_then(|()| guarded(|| Ok(created.database.close()?))).map_err(failed)?;
    let path = to.join(LOG_FILE);
    fs::rename(&new, &path).map_err(ForkError::io(&path))?;
    write_id(to, log_id).map_err(ForkError::io(to))?;
    let text = to.join(ORIGIN_FILE);
    write_whole(to, ORIGIN_FILE, origin.to_json().as_bytes()).map_err(ForkError::io(&text))
}

/// Puts the events of the sealed files, which lie in the parent's directory, into the fork's own file.
fn copy_sealed(
    parent: &SealedLog,
    to: &Path,
    cut: Seq,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<(), ForkError> {
    let path = to.join(LOG_FILE);
    let Opened { database, log_id, .. } = open_file_at(&path, &parent.dir, CACHE_BYTES)?;
    let read = |source| ForkError::Read { cut, source };
    let snapshot = database.snapshot(Seq(u64::MAX)).map_err(|error| read(error.into()))?;
    let origin = Origin { sealed: Vec::new(), ..snapshot.past.origin.clone() };
    let start = snapshot.past.start.clone();
    let new = to.join(NEW_FILE);
    let wanted = Wanted { start, until: cut, log_id, origin: &origin, of: None };
    copy_as(&snapshot, wanted, &new, &mut |seq| progress(seq, cut))?;
    fs::rename(&new, &path).map_err(ForkError::io(&path))?;
    let text = to.join(ORIGIN_FILE);
    write_whole(to, ORIGIN_FILE, origin.to_json().as_bytes()).map_err(ForkError::io(&text))
}

/// Notes a fork in the data directory that it was made from, so that whoever drops events there is told of it.
///
/// # Errors
///
/// What the medium said.
pub fn note_fork(parent: &Path, fork: &Fork) -> io::Result<()> {
    let mut line = serde_json::to_vec(fork)?;
    line.push(b'\n');
    let mut file = File::options().append(true).create(true).open(parent.join(FORKS_FILE))?;
    file.write_all(&line)?;
    file.sync_all()
}

/// The forks that were made from a data directory. A line that cannot be read is passed over.
///
/// # Errors
///
/// What the medium said.
pub fn forks_of(parent: &Path) -> io::Result<Vec<Fork>> {
    let text = match fs::read_to_string(parent.join(FORKS_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
