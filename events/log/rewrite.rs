//! Writing the log anew without the content of some events: for what lies in it as it was written, without a key.
//!
//! The new file has every block of the old one with the same header but for the checksum of its body, so every root stays;
//! only in the places of erased events the mark of their order stands instead of their bytes. It gets its name when it is whole and on disk, and the old
//! file, with its journal, its write-ahead log and its free pages, is overwritten with zeros where it lies. Until then that
//! has a name of its own, so that the next opening finds what a crash left of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use crossbeam_channel::{Sender, after};

use crate::codec;
use crate::id::Seq;
use crate::log::batch::LogClosed;
use crate::log::block::{ENTRY_BYTES, Stored, checksum, redact};
use crate::log::blocks::{damaged, next_header, open_block, read_header};
use crate::log::erasure::{Finder, carry_marks};
use crate::log::header::Header;
use crate::log::keys;
use crate::log::open::{create_at, put_origin, write_through};
use crate::log::scan::ReadError;
use crate::log::seal::{is_same, is_same_file, sync_name};
use crate::log::sealing::opened::envelope_bytes;
use crate::log::shared::Shared;
use crate::log::store::{BODIES, HEADERS, KEYS, Own, Snapshot, StoreError, Writable, guarded};
use crate::subject::Subject;

/// Extension of the file while it is written.
pub(crate) const NEW_EXTENSION: &str = "redb.rewrite";
/// Extension of the file that the log was in before, until it is overwritten.
const OLD_EXTENSION: &str = "redb.erased";
/// Bytes of blocks that go into one transaction.
const TRANSACTION_BYTES: usize = 64 << 20;
/// How long readers of the old file are waited for before it is overwritten.
const READERS_WAIT: Duration = Duration::from_millis(100);
const READERS_WAITS: usize = 300;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Why the log was not written anew. It goes on with all its events, unless it says that it is closed.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The log lies in no file.
    #[error("the log lies in no file")]
    NoFile,
    /// A part of the log lies in sealed files, which other directories may share.
    #[error(
        "a part of the log lies in {parts} sealed files that forks may share and that are never written again; stop the \
         server, run caxton log detach, and erase then"
    )]
    Shared {
        /// How many.
        parts: usize,
    },
    /// The log could not be read.
    #[error("could not read the log")]
    Read(#[from] ReadError),
    /// The new file could not be written.
    #[error("could not write the log anew")]
    Store(#[from] StoreError),
    /// The file that the log was in before, which has what is to be erased, could not be overwritten. The log lies in a new
    /// one all the same; asked again, or at its next opening, it tries again.
    #[error("could not overwrite and remove {}, which has the log as it was before", path.display())]
    Old {
        /// The file.
        path: PathBuf,
        /// What the medium said.
        #[source]
        source: io::Error,
    },
    /// The log was closed before, or the new file has its name and it could not be made sure that a crash leaves it that.
    #[error(transparent)]
    Closed(#[from] LogClosed),
}

/// What a rewriting ended with: an error of its own, or one that closes the log.
pub(crate) enum Stop {
    Refused(RewriteError),
    Failed(StoreError),
}

impl From<RewriteError> for Stop {
    fn from(error: RewriteError) -> Self {
        Self::Refused(error)
    }
}

/// Makes the names in an open folder last.
pub(crate) type SyncFolder = fn(&File) -> io::Result<()>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) struct Redaction {
    pub subjects: Vec<Subject>,
    /// Events of them before it lose their content.
    pub order: Seq,
    /// Makes the new file's name last.
    pub sync_folder: SyncFolder,
    pub answer: Sender<Result<Rewritten, RewriteError>>,
}

/// A log that lies in a new file, and its old file, which is still there.
pub(crate) struct Rewritten {
    redacted: u64,
    /// Open as long as somebody may read it.
    old: Option<Own>,
    readers: Weak<()>,
    old_file: File,
    old_path: PathBuf,
}

impl Rewritten {
    /// Overwrites the old file and removes it, once nobody reads it any more or that was waited for long enough; how many events
    /// lost their content. The log takes events meanwhile.
    pub(crate) fn overwrite(self) -> Result<u64, RewriteError> {
        let Self { redacted, old, readers, old_file, old_path: path } = self;
        for _ in 0..READERS_WAITS {
            if readers.upgrade().is_none() {
                break;
            }
            let _ = after(READERS_WAIT).recv();
        }
        // Closed before its bytes go: who still reads is told that, and does not take zeros for damage. What redb cannot write
        // to it would be overwritten.
        let _ = guarded(|| {
            drop(old);
            Ok(())
        });
        let removed = overwrite(old_file).and_then(|()| remove_name(&path));
        removed.map_err(|source| RewriteError::Old { path, source })?;
        Ok(redacted)
    }
}

/// Writes the log beside itself without the content of the subjects' events before `order`, and takes the new file in the
/// place of the old, which is left to be overwritten. Nobody else writes meanwhile, and everything is on disk.
pub(crate) fn rewrite(
    shared: &Shared,
    Redaction { subjects, order, sync_folder, .. }: &Redaction,
    cache_bytes: usize,
) -> Result<Rewritten, Stop> {
    let path = shared.path.as_deref().ok_or(RewriteError::NoFile)?;
    let (new_path, old_path) = (path.with_extension(NEW_EXTENSION), old_path(path));
    let io = |error: io::Error| RewriteError::Store(StoreError::Io(error));
    remove_old(path).map_err(|source| RewriteError::Old { path: old_path.clone(), source })?;
    let (new, redacted) = lay_out(shared, subjects, *order, &new_path, cache_bytes)?;
    let old_file = File::options().write(true).open(path).map_err(io)?;
    // Opened before the new file has its name: nothing may stand between that and its use.
    let folder = File::open(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
    if let Err(error) = name_old(path, &old_path, &folder).and_then(|()| fs::rename(&new_path, path)) {
        return Err(not_renamed(path, &old_file, error));
    }
    // From here on the new file is the log's. What went into the old one would be gone with it.
    let (old, readers) = shared.replace_own(new);
    // Closing it would make its file shorter, and what was cut off would not be overwritten.
    if let Some(Own::Writable(old)) = &old {
        old.journal.freeze();
    }
    // The old file stays whole where a restart may find it again.
    sync_folder(&folder).map_err(|error| Stop::Failed(StoreError::Io(error)))?;
    Ok(Rewritten { redacted, old, readers, old_file, old_path })
}

/// What a rewriting ends with whose new file could not get the name of the log at `path`, which was in the old file before.
fn not_renamed(path: &Path, old_file: &File, error: io::Error) -> Stop {
    let stays = old_file.metadata().and_then(|old| Ok(is_same(&old, &fs::metadata(path)?)));
    if !stays.unwrap_or(false) {
        // It has the name all the same, or nobody can tell: a restart may find another file than the one that would go on.
        return Stop::Failed(StoreError::Io(error));
    }
    // The log goes on in this file. Should its second name stay, it goes before anything else is done with the file.
    let _ = remove_second_name(path);
    RewriteError::Store(StoreError::Io(error)).into()
}

/// Gives the old file a name that it has when the log's own is the new file's: without one, a crash would leave its bytes where
/// nobody finds them.
pub(crate) fn name_old(path: &Path, old_path: &Path, folder: &File) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match fs::hard_link(path, old_path) {
        // Not every file system gives a file two names, and each says so in its own way.
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => folder.sync_all(),
    }
}

/// The name of the file that the log at `path` was in before.
pub(crate) fn old_path(path: &Path) -> PathBuf {
    path.with_extension(OLD_EXTENSION)
}

/// The new file, under another name than its own, and how many events have lost their content in it.
fn lay_out(
    shared: &Shared,
    subjects: &[Subject],
    order: Seq,
    new_path: &Path,
    cache_bytes: usize,
) -> Result<(Writable, u64), RewriteError> {
    let io = |error: io::Error| RewriteError::Store(StoreError::Io(error));
    remove(new_path).map_err(io)?;
    let parts = shared.with_database(|database| Ok(database.past.parts.len()))?;
    if parts > 0 {
        return Err(RewriteError::Shared { parts });
    }
    let file = File::options().read(true).write(true).create_new(true).open(new_path).map_err(io)?;
    let new = create_at(file, cache_bytes, shared.log_id)?;
    write_through(&new, |transaction| {
        shared.with_database(|database| carry_marks(&database.own, transaction))
    })?;
    match copy(&shared.whole_snapshot()?, &new, &Finder::of(subjects), order) {
        Ok(redacted) => Ok((new, redacted)),
        Err(error) => {
            drop(new);
            remove(new_path).map_err(io)?;
            Err(error)
        }
    }
}

/// Overwrites a file that has no name any more, or removes one with its bytes.
pub(crate) fn overwrite(mut file: File) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    while left > 0 {
        let some = left.min(ZEROS.len() as u64) as usize;
        file.write_all(&ZEROS[..some])?;
        left -= some as u64;
    }
    file.sync_data()
}

/// Takes away the name of a file that is overwritten, if it has one.
fn remove_name(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => sync_name(path),
    }
}

/// Removes the old file of the log at `path`, with its bytes, where that was cut short. Nobody may read it any more.
pub(crate) fn remove_old(path: &Path) -> io::Result<()> {
    let old = old_path(path);
    if !old.try_exists()? {
        return Ok(());
    }
    if remove_second_name(path)? {
        return Ok(());
    }
    // As long as the name of the new file may not last, a restart may find the log in the old one.
    sync_name(path)?;
    remove(&old)
}

/// Takes away the old file's name from the log at `path`, where the new file never had the log's name: under it the log would be
/// taken for what is to be overwritten. Whether there was such a name; an error where that cannot be told.
pub(crate) fn remove_second_name(path: &Path) -> io::Result<bool> {
    let old = old_path(path);
    if !is_same_file(path, &old)? {
        return Ok(false);
    }
    fs::remove_file(&old)?;
    sync_name(&old)?;
    Ok(true)
}

/// Removes what a rewriting that was cut short left behind.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match File::options().write(true).open(path) {
        Ok(file) => {
            overwrite(file)?;
            fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn copy(snapshot: &Snapshot, new: &Writable, finder: &Finder<'_>, order: Seq) -> Result<u64, RewriteError> {
    let mut headers = snapshot.headers_from(Seq::ZERO)?;
    let mut redacted = BTreeSet::new();
    let mut blocks: Vec<(u64, Vec<u8>, Vec<u8>)> = Vec::new();
    let mut bytes = 0;
    loop {
        let next = next_header(&mut headers, false)?;
        if (next.is_none() || bytes >= TRANSACTION_BYTES) && !blocks.is_empty() {
            write_through(new, |transaction| {
                let (mut headers, mut bodies) =
                    (transaction.open_table(HEADERS)?, transaction.open_table(BODIES)?);
                for (first, header, body) in &blocks {
                    headers.insert(*first, header.as_slice())?;
                    bodies.insert(*first, body.as_slice())?;
                }
                Ok(())
            })?;
            blocks.clear();
            bytes = 0;
        }
        let Some((first, value)) = next else { break };
        let header = read_header(first, &value)?;
        let stored = snapshot.body(first)?;
        let mut body = stored.value().to_vec();
        let before = redacted.len();
        if first < order && finder.may_be_in(header.filter) {
            let places = places(&header, &stored, finder, order)?;
            for (seq, place) in places {
                if redact(&mut body[place], order) {
                    redacted.insert(seq);
                }
            }
        }
        bytes += body.len();
        // Only where every event was held to its hash: another one would vouch for a body that is damaged.
        let of_body = |_| if redacted.len() > before { Some(checksum(&body)) } else { header.body_checksum };
        let body_checksum = header.body_checksum.and_then(of_body);
        blocks.push((first.0, Header { body_checksum, ..header }.encode(), body));
    }
    copy_rows(snapshot, new, &redacted)?;
    Ok(redacted.len() as u64)
}

/// Where in the body of a block events of the subjects lie as they were written.
fn places(
    header: &Header<'_>,
    body: &crate::log::blocks::Value,
    finder: &Finder<'_>,
    order: Seq,
) -> Result<Vec<(Seq, std::ops::Range<usize>)>, ReadError> {
    let block = open_block(header, body)?;
    let bodies = block.count() * ENTRY_BYTES;
    let mut found = Vec::new();
    let mut start = 0;
    for index in 0..block.count() {
        let (seq, entry) = (block.seq(index), block.entry(index));
        let place = bodies + start..bodies + entry.body_end as usize;
        start = entry.body_end as usize;
        let of_block = |what: &str| damaged(header.first, format!("{what} ({seq})"));
        let Stored::Bytes(stored) = block.stored(index).map_err(of_block)? else { continue };
        let bytes = envelope_bytes(stored, entry.tag).map_err(of_block)?;
        let (envelope, _) =
            codec::decode_envelope(&bytes).map_err(|source| ReadError::Decode { seq, source })?;
        if seq < order && finder.subject(entry.tag.kind, envelope.stream).is_some() {
            found.push((seq, place));
        }
    }
    Ok(found)
}

/// Copies idempotency keys, but for those of erased events, and what is known about the log.
fn copy_rows(snapshot: &Snapshot, new: &Writable, redacted: &BTreeSet<Seq>) -> Result<(), RewriteError> {
    let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
    snapshot.each_own_key::<ReadError>(&mut |key, row| {
        let place = keys::decode(key, row).ok_or_else(|| ReadError::Key { key: key.to_owned() })?;
        if redacted.range(place.first..=place.last).next().is_none() {
            rows.push((key.to_owned(), row.to_vec()));
        }
        Ok(())
    })?;
    write_through(new, |transaction| {
        put_origin(transaction, &snapshot.past.origin)?;
        let mut keys = transaction.open_table(KEYS)?;
        for (key, row) in &rows {
            keys.insert(key.as_str(), row.as_slice())?;
        }
        Ok(())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::symlink;

    use super::{Stop, not_renamed, old_path, remove_old, remove_second_name};

    #[test]
    fn what_cannot_be_told_from_the_log_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.redb");
        let old = old_path(&path);
        fs::write(&old, "may be the log").unwrap();
        // Where the log is not there, and where the system does not say what is.
        for asks in [false, true] {
            if asks {
                symlink(&path, &path).unwrap();
            }
            remove_old(&path).unwrap_err();
            remove_second_name(&path).unwrap_err();
            assert_eq!(fs::read(&old).unwrap(), b"may be the log");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, "the log").unwrap();
        remove_old(&path).unwrap();
        assert!(!old.exists() && path.exists());
    }

    #[test]
    fn a_rename_that_failed_and_was_done_closes_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("events.redb"), dir.path().join("new"));
        fs::write(&path, "old").unwrap();
        fs::write(&new, "new").unwrap();
        let old_file = File::open(&path).unwrap();
        fs::hard_link(&path, old_path(&path)).unwrap();
        let failed = || io::Error::other("the server did not answer");
        assert!(matches!(not_renamed(&path, &old_file, failed()), Stop::Refused(_)));
        assert!(!old_path(&path).exists(), "the log goes on in the file that it was in");
        fs::hard_link(&path, old_path(&path)).unwrap();
        fs::rename(&new, &path).unwrap();
        assert!(matches!(not_renamed(&path, &old_file, failed()), Stop::Failed(_)));
        assert!(old_path(&path).exists(), "the next opening overwrites it");
        fs::remove_file(&path).unwrap();
        assert!(matches!(not_renamed(&path, &old_file, failed()), Stop::Failed(_)));
    }
}
