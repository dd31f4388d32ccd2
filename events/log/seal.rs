//! Sealing: the log's own file becomes one that nobody writes any more, and the log goes on in a new one.
//!
//! It takes as long for any log: a file is made, one gets a second name, the other takes its first. Until that last step the log
//! goes on in the old file whatever happens, after it in the new one.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::Seq;
use crate::log::batch::LogClosed;
use crate::log::beside::write_whole;
use crate::log::erasure::carry_marks;
use crate::log::flusher::{Commit, Failure, Unsynced};
use crate::log::open::{NEW_FILE, create_at, put_origin, write_through};
use crate::log::origin::{ORIGIN_FILE, Origin, SEALED_DIR, SealedFile, sealed_name};
use crate::log::past::{Part, Past};
use crate::log::reader::Head;
use crate::log::rewrite::{old_path, remove_second_name};
use crate::log::store::{Database, Own, StoreError, Writable, guarded};
use crate::log::writer::{Pending, Writer};

/// Write permissions, which a sealed file has not.
const WRITE_MODE: u32 = 0o222;

/// A log all of whose events lie in sealed files: what a fork is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedLog {
    /// The data directory.
    pub dir: PathBuf,
    /// Id of the log.
    #[serde(with = "crate::log::origin::hex")]
    pub log_id: [u8; 16],
    /// The end of the log when it was sealed.
    #[serde(skip)]
    pub head: Head,
    /// Its sealed files up to there, and what lies before them.
    pub origin: Origin,
    /// Whether events of it were erased.
    #[serde(default)]
    pub has_gaps: bool,
}

/// Why a log was not sealed. It goes on as before, unless it says that it is closed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The log lies in no file.
    #[error("a log in memory cannot be sealed")]
    NoFile,
    /// A file could not be made, named or synced.
    #[error("could not make {} (is the directory writable, and is there space?)", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the medium said.
        #[source]
        source: io::Error,
    },
    /// The new file could not be laid out.
    #[error("could not lay out {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// The log failed on the way, or was closed before.
    #[error(transparent)]
    Closed(#[from] LogClosed),
}

/// What sealing ended with: an error of its own, or one that closes the log.
pub(crate) enum Stop {
    Refused(SealError),
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Makes the names in a folder last.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all())
}

/// Makes the name of a file or a folder last.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_dir(folder.unwrap_or(Path::new(".")))
}

impl Writer {
    /// Seals what the log's own file holds, if it holds anything.
    pub(crate) fn seal(&mut self) -> Result<SealedLog, Stop> {
        let path = self.shared.path.clone().ok_or(Stop::Refused(SealError::NoFile))?;
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        self.settle()?;
        let (log_id, head) = (self.shared.log_id, self.head());
        let past = self.shared.with_database(|database| Ok(Arc::clone(&database.past)));
        let past = past.map_err(|source| self.failure(source))?;
        if head.seq == past.through() {
            return Ok(SealedLog { dir, log_id, head, origin: past.origin.clone(), has_gaps: false });
        }
        let sealed = SealedFile {
            file: sealed_name(&log_id, head.seq),
            log_id,
            through: head.seq,
            keys_through: head.seq,
            root: head.root.0,
            last: head.seq,
            last_root: head.root.0,
        };
        let mut origin = past.origin.clone();
        origin.sealed.push(sealed.clone());
        let next = self.lay_out(&dir, &origin).map_err(Stop::Refused)?;
        let sealed_path = dir.join(SEALED_DIR).join(&sealed.file);
        // Under its name of an old file it would be overwritten.
        remove_second_name(&path)
            .map_err(|source| Stop::Refused(SealError::Io { path: old_path(&path), source }))?;
        give_name(&path, &sealed_path).map_err(Stop::Refused)?;
        if let Err(source) = fs::rename(dir.join(NEW_FILE), &path) {
            return Err(if take_back_name(&path, &sealed_path) {
                Stop::Refused(SealError::Io { path, source })
            } else {
                self.failure(StoreError::Io(source)).into()
            });
        }
        // From here on the new file is the log's: what fails leaves open which one a restart would find.
        sync_dir(&dir).map_err(|source| self.failure(StoreError::Io(source)))?;
        // Not before, when a restart could find it as the log's own. That nobody writes it does not depend on this.
        let _ = forbid_writing(&sealed_path);
        let past = (past.start.clone(), past.parts.clone(), origin.clone());
        self.go_on_in(next, sealed, sealed_path, past).map_err(|source| self.failure(source))?;
        // For people and programs, and for what is left of the log should it be damaged.
        let _ = write_whole(&dir, ORIGIN_FILE, origin.to_json().as_bytes());
        Ok(SealedLog { dir, log_id, head, origin, has_gaps: false })
    }

    /// Brings everything that was committed into the tables, makes it durable, and empties the journal.
    fn settle(&mut self) -> Result<(), Failure> {
        self.store_pending()?;
        let ((), sealed) = self.write(true, |_| Ok(())).map_err(|source| self.failure(source))?;
        self.unsynced = false;
        let unsynced = sealed.map(Unsynced::Pages);
        self.flusher.hand(Commit { first: self.next_seq(), unsynced, head: None, waiting: Vec::new() });
        self.flusher.drain(self.next_seq());
        if self.flusher.has_failed() {
            return Err(self.failure(StoreError::Closed));
        }
        self.with_writable(|database| guarded(|| database.journal.checkpoint().map_err(StoreError::Io)))
            .map_err(|source| self.failure(source))
    }

    /// The new file, under another name than its own.
    fn lay_out(&self, dir: &Path, origin: &Origin) -> Result<Writable, SealError> {
        let path = dir.join(NEW_FILE);
        let io = |source| SealError::Io { path: path.clone(), source };
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            Ok(()) | Err(_) => (),
        }
        let file = File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
        let store = |source| SealError::Store { path: path.clone(), source };
        let created = create_at(file, self.options.cache_bytes, self.shared.log_id).map_err(store)?;
        let laid_out = write_through(&created, |transaction| {
            put_origin(transaction, origin)?;
            self.shared.with_database(|database| carry_marks(&database.own, transaction))
        });
        laid_out.map_err(store)?;
        Ok(created)
    }

    /// Takes the new file for the log's own, and the old one for the last of the sealed ones.
    fn go_on_in(
        &mut self,
        next: Writable,
        sealed: SealedFile,
        path: PathBuf,
        (start, mut parts, origin): (crate::log::pack::ChainEnd, Vec<Arc<Part>>, Origin),
    ) -> Result<(), StoreError> {
        self.shared.replace_database(|database| {
            let Some(Database { own: Own::Writable(old), .. }) = database else {
                return Err(StoreError::Closed);
            };
            // Who reads it goes on; what redb would write when it closes it must not reach the file any more.
            old.journal.freeze();
            parts.push(Arc::new(Part::left(old.database, sealed, path)?));
            Ok(Database { own: Own::Writable(next), past: Arc::new(Past { start, parts, origin }) })
        })?;
        self.pending = Pending::after(self.end.clone());
        self.small = crate::log::merge::SmallRun::default();
        self.settle_seed()
    }
}

/// Gives the log's own file its name among the sealed ones.
fn give_name(path: &Path, sealed: &Path) -> Result<(), SealError> {
    let io = |path: &Path, source| SealError::Io { path: path.to_owned(), source };
    let folder = sealed.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|source| io(folder, source))?;
    match fs::hard_link(path, sealed) {
        // Left by an attempt that was cut short.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !is_same_file(path, sealed).map_err(|source| io(sealed, source))? {
                return Err(io(sealed, error));
            }
        }
        Err(source) => return Err(io(sealed, source)),
        Ok(()) => (),
    }
    // And the folder, where it is new: with the rename this becomes the only place of what the log holds.
    let named = sync_dir(folder).and_then(|()| sync_name(folder));
    named.map_err(|source| io(folder, source))
}

/// Takes the name among the sealed ones from the log's own file, of which a rename was told to have failed. `false` where it was
/// done all the same, or nobody can tell: that name may then be the only one that the events have, and it stays.
fn take_back_name(path: &Path, sealed: &Path) -> bool {
    let stays = is_same_file(path, sealed).unwrap_or(false);
    if stays {
        // A second name that nothing refers to costs nothing; at the next attempt it is there already.
        let _ = fs::remove_file(sealed);
    }
    stays
}

/// Takes the permission to write to a file.
fn forbid_writing(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    fs::set_permissions(path, fs::Permissions::from_mode(mode & !WRITE_MODE))
}

/// Whether `other` is another name of the file at `path`, which must be there. What the system does not say is an error: one of
/// two names of a file must not be taken for a file that may go.
pub(crate) fn is_same_file(path: &Path, other: &Path) -> io::Result<bool> {
    let file = fs::metadata(path)?;
    match fs::metadata(other) {
        Ok(other) => Ok(is_same(&file, &other)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether two answers of the system are about one file.
pub(crate) fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The last position of a log whose own file is empty, as the origin says.
#[must_use]
pub fn sealed_through(origin: &Origin) -> Seq {
    origin.sealed.last().map_or_else(|| origin.before_first().seq, |sealed| sealed.through)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::{SEALED_DIR, WRITE_MODE, forbid_writing, give_name, sync_name, take_back_name};

    fn may_be_written(path: &Path) -> bool {
        fs::metadata(path).unwrap().permissions().mode() & WRITE_MODE != 0
    }

    #[test]
    fn a_file_may_be_written_for_as_long_as_it_is_the_logs_own() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("events.redb");
        let sealed = dir.path().join(SEALED_DIR).join("part.redb");
        fs::write(&own, "events").unwrap();
        give_name(&own, &sealed).unwrap();
        assert!(may_be_written(&own), "the seal may end here");
        fs::remove_file(&own).unwrap();
        forbid_writing(&sealed).unwrap();
        assert!(!may_be_written(&sealed));
    }

    #[test]
    fn a_rename_that_failed_and_was_done_takes_no_name_from_what_is_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let (own, new) = (dir.path().join("events.redb"), dir.path().join("events.redb.new"));
        let sealed = dir.path().join(SEALED_DIR).join("part.redb");
        fs::write(&own, "events").unwrap();
        fs::write(&new, "none yet").unwrap();
        give_name(&own, &sealed).unwrap();
        assert!(take_back_name(&own, &sealed) && !sealed.exists(), "the log goes on in its file");
        give_name(&own, &sealed).unwrap();
        fs::rename(&new, &own).unwrap();
        assert!(!take_back_name(&own, &sealed));
        fs::remove_file(&own).unwrap();
        assert!(!take_back_name(&own, &sealed), "nobody can tell");
        assert_eq!(fs::read(&sealed).unwrap(), b"events");
    }

    #[test]
    fn a_name_lasts_wherever_the_folder_is_that_it_stands_in() {
        let dir = tempfile::tempdir().unwrap();
        // A name without a folder stands in the one that the process is in.
        for path in [dir.path().join("data"), dir.path().to_owned(), "data".into()] {
            sync_name(&path).unwrap();
        }
        assert!(sync_name(&dir.path().join("nowhere").join("data")).is_err());
    }
}
