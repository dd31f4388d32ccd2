//! Dropping the oldest events of a stopped log, and making it independent of files it shares.
//!
//! What is dropped are whole blocks. In their place stands what is needed to check and go on with the rest: how many events there
//! were, the root and the frontier over them ([`Dropped`]). All heads from there on, all proofs about events that are kept and
//! the growth from any of these heads to a later one remain what they were; of an earlier head nothing can be proved any more.
//!
//! Files that hold only what is dropped are removed, the one that also holds what is kept is written anew. The step from the old
//! log to the new one is a single rename or commit: a crash leaves the one or the other. What goes is overwritten with zeros where
//! it lies, unless another directory shares the file: no erasure would find its bytes later.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::id::Seq;
use crate::log::beside::write_whole;
use crate::log::blocks::{each_key_of, next_header, read_header};
use crate::log::copy::{CopyError, Wanted, copy_as};
use crate::log::fork::{Fork, forks_of};
use crate::log::keys;
use crate::log::open::{
    self, LOG_FILE, NEW_FILE, OpenError, Opened, allow_writing, open_file, open_file_read_only,
    open_to_write, put_origin, write_through,
};
use crate::log::origin::{Dropped, ORIGIN_FILE, Origin, SEALED_DIR, SealedFile, sealed_name};
use crate::log::pack::ChainEnd;
use crate::log::past::{Part, Past};
use crate::log::reader::Reader;
use crate::log::rewrite;
use crate::log::scan::ReadError;
use crate::log::seal::is_same_file;
use crate::log::store::{KEYS, Own, Snapshot, StoreError, guarded};
use crate::time::Timestamp;

const CACHE_BYTES: usize = 32 << 20;

/// What is to be dropped.
#[derive(Debug, Clone)]
pub struct TrimOptions {
    /// Everything in blocks that end before this position.
    pub before: Seq,
    /// The time to record.
    pub at: Timestamp,
    /// Who drops it.
    pub by: String,
    /// Whether forks may keep what is dropped here: then its space is not given back, and it is not gone.
    pub forks_keep: bool,
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// The first position that the log still has.
    pub first: Seq,
    /// Events dropped this time.
    pub events: u64,
    /// Bytes on the medium that the log's files take less: of what is shared with other directories, none.
    pub freed_bytes: u64,
    /// Bytes on the medium of files that this log has no more use for and other directories keep.
    pub kept_bytes: u64,
}

/// Why nothing was dropped. The log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no such position.
    #[error("{before} lies beyond the end of the log; choose a position up to {}", head.0)]
    Beyond {
        /// What was asked for.
        before: Seq,
        /// The end of the log.
        head: Seq,
    },
    /// Forks have files of their own names for what would be dropped.
    #[error(
        "{} is shared with {}; drop the events there first, detach it (log detach), remove it, or let it keep them \
         (--forks-keep)",
        file.display(), describe(forks)
    )]
    Shared {
        /// The sealed file.
        file: PathBuf,
        /// The forks that are known to share it.
        forks: Vec<Fork>,
    },
    /// The log could not be read, or is damaged.
    #[error("could not read the log")]
    Read(#[from] ReadError),
    /// What is kept could not be written to a file of its own.
    #[error("could not write what is kept")]
    Copy(#[from] CopyError),
    /// A file could not be renamed, removed or synced.
    #[error("could not change {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the medium said.
        #[source]
        source: io::Error,
    },
}

impl From<StoreError> for TrimError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

fn describe(forks: &[Fork]) -> String {
    if forks.is_empty() {
        return "another data directory".to_owned();
    }
    let forks: Vec<String> =
        forks.iter().map(|fork| format!("the fork {} at {}", fork.dir.display(), fork.seq)).collect();
    forks.join(" and ")
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> TrimError {
    move |source| TrimError::Io { path: path.to_owned(), source }
}

/// The first position that would be kept if everything in blocks before `before` were dropped; `None` if nothing would be.
///
/// # Errors
///
/// [`TrimError::Beyond`], or what the log said.
pub fn trim_point(log: &Reader, before: Seq) -> Result<Option<Seq>, TrimError> {
    point(&log.snapshot()?, log.head().seq, before)
}

fn point(snapshot: &Snapshot, head: Seq, before: Seq) -> Result<Option<Seq>, TrimError> {
    if before > head {
        return Err(TrimError::Beyond { before, head });
    }
    let mut headers = snapshot.headers_from(before)?;
    let found = next_header(&mut headers, false)?;
    let first =
        found.map(|(first, value)| read_header(first, &value).map(|header| header.first)).transpose()?;
    Ok(first.filter(|first| *first > snapshot.past.first()))
}

/// Refuses when another data directory shares a file that would lose events if those before `first` were dropped from this one.
///
/// # Errors
///
/// [`TrimError::Shared`], or what the medium said.
pub fn check_unshared(dir: &Path, log: &Reader, first: Seq) -> Result<(), TrimError> {
    touched(&log.snapshot()?, first).iter().try_for_each(|part| unshared(dir, &part.path))
}

/// The sealed files that hold something before `first`, the oldest first.
fn touched(snapshot: &Snapshot, first: Seq) -> Vec<Arc<Part>> {
    let past = &snapshot.past;
    let begins = past.parts.iter().scan(past.first(), |begin, part| {
        let begins = *begin;
        *begin = part.sealed.through.next();
        Some((begins, part))
    });
    begins.filter(|(begin, _)| *begin < first).map(|(_, part)| Arc::clone(part)).collect()
}

/// Drops the oldest events of the stopped log in `dir`; `None` if there was nothing to drop.
///
/// # Errors
///
/// [`TrimError`].
pub fn drop_before(dir: &Path, options: &TrimOptions) -> Result<Option<Trimmed>, TrimError> {
    let _lock = open::lock(dir)?;
    let Opened { database, end, log_id } = settled(dir)?;
    let snapshot = database.snapshot(Seq(u64::MAX))?;
    let head = Seq(end.frontier.count());
    let Some(first) = point(&snapshot, head, options.before)? else {
        return Ok(None);
    };
    if !options.forks_keep {
        touched(&snapshot, first).iter().try_for_each(|part| unshared(dir, &part.path))?;
    }
    let past = &snapshot.past;
    remove_half_made(dir, &past.origin).map_err(io_error(dir))?;
    let touched = touched(&snapshot, first);
    let before = files_bytes(dir, &past.origin)?;
    let start = end_before(&snapshot, first)?;
    let mut origin = Origin {
        dropped: Some(Dropped::before(&start, options.at, &options.by)),
        sealed: past.origin.sealed.iter().filter(|sealed| sealed.through >= first).cloned().collect(),
        leftover: Vec::new(),
        forks: past.origin.forks.clone(),
    };
    if let Some(part) = touched.last().filter(|part| part.sealed.through >= first) {
        let kept = keep_rest(dir, &snapshot, part, start.clone())?;
        if let Some(cut) = origin.sealed.first_mut() {
            *cut = kept;
        }
    }
    origin.leftover = unnamed(&past.origin, &origin);
    let events = first.0 - past.first().0;
    if first <= past.through().next() {
        let keys = keys_of_kept(past, first)?;
        drop((snapshot, database, touched));
        set_origin(dir, &origin, &keys)?;
    } else {
        let wanted = Wanted { start, until: head, log_id, origin: &origin, of: None };
        let new = lay_out(dir, &snapshot, wanted, &mut |_| ())?;
        // Closed before their bytes go.
        drop((snapshot, database, touched));
        put_in_place(dir, &new)?;
    }
    finish(dir, &origin)?;
    let after = files_bytes(dir, &origin)?;
    let freed_bytes = before.own.saturating_sub(after.own);
    let kept_bytes = before.shared.saturating_sub(after.shared);
    Ok(Some(Trimmed { first, events, freed_bytes, kept_bytes }))
}

/// Writes what a sealed file holds behind `start` to a file of its own.
fn keep_rest(dir: &Path, snapshot: &Snapshot, part: &Part, start: ChainEnd) -> Result<SealedFile, TrimError> {
    let (sealed, first) = (part.sealed.clone(), Seq(start.frontier.count() + 1));
    let file = format!("{:020}-{}", first.0, sealed_name(&sealed.log_id, sealed.through));
    let path = dir.join(SEALED_DIR).join(&file);
    let origin = Origin::default();
    let (until, log_id) = (sealed.through, sealed.log_id);
    remove(&path).map_err(io_error(&path))?;
    copy_as(snapshot, Wanted { start, until, log_id, origin: &origin, of: Some(part) }, &path, &mut |_| ())?;
    // What the file held behind a fork's cut is not in its copy.
    Ok(SealedFile { file, last: sealed.through, last_root: sealed.root, ..sealed })
}

/// Files that the log had a use for and has none any more.
fn unnamed(before: &Origin, after: &Origin) -> Vec<String> {
    let used = |file: &String| after.sealed.iter().any(|sealed| sealed.file == *file);
    before.sealed.iter().map(|sealed| sealed.file.clone()).filter(|file| !used(file)).collect()
}

/// Rows of idempotency keys that lie in files which go, of events that are kept: where a fork was cut within a block, it has the
/// events in a file of its own and the keys in the one before.
fn keys_of_kept(past: &Past, first: Seq) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
    let mut kept = Vec::new();
    let goes = |part: &&Arc<Part>| part.sealed.through < first && first <= part.sealed.keys_through;
    for part in past.parts.iter().filter(goes) {
        each_key_of::<ReadError>(part, &mut |key, row| {
            let known = keys::decode(key, row).ok_or_else(|| ReadError::Key { key: key.to_owned() })?;
            if known.last >= first {
                kept.push((key.to_owned(), row.to_vec()));
            }
            Ok(())
        })?;
    }
    Ok(kept)
}

/// Makes the stopped log in `dir` independent of sealed files, and so of forks and of what it was forked from: everything goes
/// into its own file.
///
/// # Errors
///
/// [`TrimError`].
pub fn detach(dir: &Path, progress: &mut dyn FnMut(Seq, Seq)) -> Result<(), TrimError> {
    let _lock = open::lock(dir)?;
    let Opened { database, end, log_id } = settled(dir)?;
    let snapshot = database.snapshot(Seq(u64::MAX))?;
    let past = &snapshot.past;
    remove_half_made(dir, &past.origin).map_err(io_error(dir))?;
    if past.parts.is_empty() {
        // One that was cut short may have left the files that the log was in.
        let path = dir.join(LOG_FILE);
        rewrite::remove_old(&path).map_err(io_error(&rewrite::old_path(&path)))?;
        return remove_leftover(dir, &past.origin);
    }
    let leftover = past.origin.sealed.iter().map(|sealed| sealed.file.clone()).collect();
    let origin = Origin { sealed: Vec::new(), leftover, ..past.origin.clone() };
    let head = Seq(end.frontier.count());
    let wanted = Wanted { start: past.start.clone(), until: head, log_id, origin: &origin, of: None };
    let new = lay_out(dir, &snapshot, wanted, &mut |seq| progress(seq, head))?;
    // Closed before their bytes go.
    drop((snapshot, database));
    put_in_place(dir, &new)?;
    finish(dir, &origin)
}

/// The log, with everything in its tables and closed in order, open for reading. The directory must be locked.
fn settled(dir: &Path) -> Result<Opened, TrimError> {
    match open_file_read_only(dir, CACHE_BYTES) {
        Err(OpenError::Unclean { .. }) => (),
        opened => return Ok(opened?),
    }
    close(open_file(dir, CACHE_BYTES, [0; 16])?)?;
    Ok(open_file_read_only(dir, CACHE_BYTES)?)
}

fn close(opened: Opened) -> Result<(), TrimError> {
    match opened.database.own {
        Own::Writable(writable) => Ok(guarded(|| Ok(writable.database.close()?))?),
        Own::ReadOnly(_) => Ok(()),
    }
}

/// The end of the chain before the block that begins at `first`.
fn end_before(snapshot: &Snapshot, first: Seq) -> Result<ChainEnd, ReadError> {
    let mut headers = snapshot.headers_until(first.previous())?;
    let Some((at, value)) = next_header(&mut headers, true)? else {
        return Ok(snapshot.past.start.clone());
    };
    let header = read_header(at, &value)?;
    let unfit = || ReadError::Damaged { block: at, what: "its peaks do not fit".to_owned() };
    let frontier = header.frontier().ok_or_else(unfit)?;
    Ok(ChainEnd { frontier, bytes_through: header.bytes_through, recorded_at: header.last_at })
}

/// Refuses a file that has another name elsewhere.
fn unshared(dir: &Path, file: &Path) -> Result<(), TrimError> {
    let data = fs::metadata(file).map_err(io_error(file))?;
    if data.nlink() == 1 {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default();
    let shares = |fork: &Fork| {
        let theirs = fs::metadata(fork.dir.join(SEALED_DIR).join(name));
        theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (data.dev(), data.ino()))
    };
    let mut forks = forks_of(dir).map_err(io_error(dir))?;
    forks.retain(shares);
    Err(TrimError::Shared { file: file.to_owned(), forks })
}

/// Writes what is wanted to a file beside the log's own.
fn lay_out(
    dir: &Path,
    snapshot: &Snapshot,
    wanted: Wanted<'_>,
    progress: &mut dyn FnMut(Seq),
) -> Result<PathBuf, TrimError> {
    let new = dir.join(NEW_FILE);
    remove(&new).map_err(io_error(&new))?;
    copy_as(snapshot, wanted, &new, progress)?;
    Ok(new)
}

/// Puts a file in place of the log's own, which is overwritten and removed unless it has another name; should a crash leave it,
/// the next opening does that.
fn put_in_place(dir: &Path, new: &Path) -> Result<(), TrimError> {
    let path = dir.join(LOG_FILE);
    let old_path = rewrite::old_path(&path);
    rewrite::remove_old(&path).map_err(io_error(&old_path))?;
    allow_writing(&path);
    // Opened before it loses its name: where the file system gives it no second one, its bytes are found by this alone.
    let old = File::options().write(true).open(&path).map_err(io_error(&path))?;
    let is_alone = old.metadata().map_err(io_error(&path))?.nlink() == 1;
    let folder = File::open(dir).map_err(io_error(dir))?;
    let named = if is_alone { rewrite::name_old(&path, &old_path, &folder) } else { Ok(()) };
    named.and_then(|()| fs::rename(new, &path)).map_err(|error| {
        // Should its second name stay, it goes before anything else is done with the file.
        let _ = rewrite::remove_second_name(&path);
        io_error(&path)(error)
    })?;
    folder.sync_all().map_err(io_error(dir))?;
    if !is_alone {
        return Ok(());
    }
    let is_named = old_path.try_exists().map_err(io_error(&old_path))?;
    let removed = if is_named { rewrite::remove_old(&path) } else { rewrite::overwrite(old) };
    removed.map_err(io_error(&old_path))
}

/// Writes where the log begins, and rows of idempotency keys, in one step.
fn set_origin(dir: &Path, origin: &Origin, keys: &[(String, Vec<u8>)]) -> Result<(), TrimError> {
    // It still says what it said before: nothing that this names may go.
    let opened = open_to_write(dir, CACHE_BYTES, [0; 16])?;
    if let Own::Writable(writable) = &opened.database.own {
        write_through(writable, |transaction| {
            put_origin(transaction, origin)?;
            let mut table = transaction.open_table(KEYS)?;
            for (key, row) in keys {
                table.insert(key.as_str(), row.as_slice())?;
            }
            Ok(())
        })?;
    }
    close(opened)
}

/// Removes what the log has no more use for, and writes the origin for people and programs.
fn finish(dir: &Path, origin: &Origin) -> Result<(), TrimError> {
    remove_leftover(dir, origin)?;
    let written = write_whole(dir, ORIGIN_FILE, origin.to_json().as_bytes());
    written.map_err(io_error(&dir.join(ORIGIN_FILE)))
}

/// Removes the files that the origin says are of no more use.
pub(crate) fn remove_leftover(dir: &Path, origin: &Origin) -> Result<(), TrimError> {
    let folder = dir.join(SEALED_DIR);
    let used = |file: &String| origin.sealed.iter().any(|sealed| sealed.file == *file);
    // A name is looked up in that folder alone, whatever somebody wrote into the record.
    let plain = |file: &&String| Path::new(file).file_name().is_some_and(|name| name == file.as_str());
    for file in origin.leftover.iter().filter(plain).filter(|file| !used(file)) {
        let path = folder.join(file);
        remove(&path).map_err(io_error(&path))?;
    }
    Ok(())
}

/// Removes what a drop, a detaching or a seal left half made that was cut short: it holds events, and no erasure looks there. The
/// directory must be locked. Other files that the origin does not name stay: the log may be an older one that was put back.
pub(crate) fn remove_half_made(dir: &Path, origin: &Origin) -> io::Result<()> {
    rewrite::remove(&dir.join(NEW_FILE))?;
    let entries = match fs::read_dir(dir.join(SEALED_DIR)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if origin.sealed.iter().any(|sealed| sealed.file == name) {
            continue;
        }
        // What nobody can tell stays.
        if is_same_file(&dir.join(LOG_FILE), &path).unwrap_or(false) {
            // The second name of a file that was not sealed after all.
            fs::remove_file(&path)?;
        } else if is_rest(&name, origin) {
            // The file that it is the rest of still is whole.
            remove(&path)?;
        }
    }
    Ok(())
}

/// Whether this is the name of a file into which a drop writes what it keeps of one that the origin names.
fn is_rest(name: &str, origin: &Origin) -> bool {
    origin.sealed.iter().any(|sealed| {
        let whole = sealed_name(&sealed.log_id, sealed.through);
        let first = name.strip_suffix(whole.as_str()).and_then(|first| first.strip_suffix('-'));
        first.is_some_and(|first| first.parse::<u64>().is_ok())
    })
}

/// Removes a file if it is there, with its bytes unless it has another name: they are still those of another directory's file.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(file) if file.is_file() && file.nlink() == 1 => {
            // A sealed file may not be written.
            allow_writing(path);
            rewrite::remove(path)
        }
        Ok(_) => fs::remove_file(path),
    }
}

/// What the log's files take on the medium, in bytes.
#[derive(Debug, Default)]
struct FilesBytes {
    /// Of files that are this directory's alone.
    own: u64,
    /// Of files that have another name elsewhere: removing this one gives nothing back.
    shared: u64,
}

fn files_bytes(dir: &Path, origin: &Origin) -> Result<FilesBytes, TrimError> {
    let sealed = origin.sealed.iter().map(|sealed| dir.join(SEALED_DIR).join(&sealed.file));
    let mut bytes = FilesBytes::default();
    for path in sealed.chain([dir.join(LOG_FILE)]) {
        let data = fs::metadata(&path).map_err(io_error(&path))?;
        let place = if data.nlink() == 1 { &mut bytes.own } else { &mut bytes.shared };
        *place += data.blocks() * 512;
    }
    Ok(bytes)
}
