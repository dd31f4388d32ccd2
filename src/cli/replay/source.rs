//! The log that is replayed: that of a stopped directory, or of a backup, which is put together in a folder beside it meanwhile.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use caxton_events::Clock as _;
use caxton_events::log::Reader;
use caxton_tools::backup::{RestoreOptions, Until, empty_but, restore};
use tempfile::TempDir;

use crate::cli::args::Common;
use crate::cli::backup::not_restored;
use crate::cli::failure::{Exit, Failure};
use crate::cli::interrupt::Open;
use crate::cli::progress::Progress;
use crate::cli::{log, setup};
use crate::engine::SystemClock;

/// What the name of a folder beside a backup begins with; what follows is drawn.
const PREFIX: &str = "caxton-replay-";
/// Lies in such a folder, and is locked as long as it is in use.
const LOCK_FILE: &str = "replay.lock";
/// The folder holds the contents of the whole log.
const OWNERS_ALONE: u32 = 0o700;

/// An open log.
pub(super) struct Source {
    pub(super) reader: Reader,
    /// The directory that it lies in.
    pub(super) dir: PathBuf,
    /// Removes what was made of a backup, once nobody reads it any more.
    _made: Option<Open>,
}

impl Source {
    /// Opens the log of the data directory, or of the backup that is named for one.
    pub(super) fn open(common: &Common) -> Result<Self, Failure> {
        let named = setup::named_dir(common)?;
        if !setup::is_backup(&named) {
            return Ok(Self { reader: log::open(common)?, dir: named, _made: None });
        }
        let folder = Beside::make(&named)?;
        let dir = folder.path().join("data");
        let open = Open::closed_by(move || {
            // What cannot be removed has a name that says what it is.
            let _ = folder.close();
            "what was made of the backup is removed".to_owned()
        });
        // There is nobody to tell that nobody can be told.
        let _ = writeln!(
            io::stderr(),
            "caxton: {} is a backup: its log lies in {} for as long as it is replayed",
            named.display(),
            dir.display()
        );
        put_together(&named, &dir, common)?;
        let made = Common { data_dir: Some(dir.clone()), ..common.clone() };
        Ok(Self { reader: log::open(&made)?, dir, _made: Some(open) })
    }
}

/// A folder beside a backup that nobody else may read, for as long as this process holds the lock in it.
struct Beside {
    folder: TempDir,
    /// Held as long as the folder is in use; also a process that is killed lets it go.
    _lock: File,
}

impl Beside {
    /// Makes one where there is as much room as for the backup, and removes those that a killed replay left there.
    fn make(backup: &Path) -> Result<Self, Failure> {
        // The last name of a path may be a dot.
        let whole = backup.canonicalize().unwrap_or_else(|_| backup.to_owned());
        let parent = whole.parent().unwrap_or(Path::new("."));
        clear(parent);
        Self::locked(parent).map_err(|error| {
            let (parent, backup) = (parent.display(), backup.display());
            let message = format!(
                "could not make a folder in {parent} for the log of the backup: {error}; restore it where there is room, with \
                 `caxton restore --from {backup} --to DIR`, and replay DIR"
            );
            Failure::new(Exit::Failed, message)
        })
    }

    fn locked(parent: &Path) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(OWNERS_ALONE))
            .tempdir_in(parent)?;
        let new = folder.path().join("new.lock");
        let lock = File::options().write(true).create_new(true).open(&new)?;
        // Where the file system knows no locks, there is none; then none is taken for left over either.
        let _ = lock.try_lock();
        // It has its name only once it is held: nobody takes the folder for left over in between.
        fs::rename(&new, folder.path().join(LOCK_FILE))?;
        Ok(Self { folder, _lock: lock })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes it with all that lies in it.
    fn close(self) -> io::Result<()> {
        self.folder.close()
    }
}

/// Removes the folders in `parent` that a replay left when it was killed. What cannot be removed changes nothing: the next
/// replay finds it again.
fn clear(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let named = entry.file_name().to_str().is_some_and(is_ours);
        // A link of that name leads to what somebody else made.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if named && is_folder {
            let _ = remove_left(&entry.path());
        }
    }
}

/// Whether a folder of this name may be one of ours.
fn is_ours(name: &str) -> bool {
    let drawn = name.strip_prefix(PREFIX);
    drawn.is_some_and(|drawn| !drawn.is_empty() && drawn.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Removes a folder that has our lock in it, which nobody holds.
fn remove_left(folder: &Path) -> io::Result<()> {
    let place = folder.join(LOCK_FILE);
    if !fs::symlink_metadata(&place)?.is_file() {
        return Ok(());
    }
    let lock = File::options().write(true).open(&place)?;
    if lock.try_lock().is_ok() {
        // The lock goes last: what a removal leaves that is broken off is still known for ours.
        empty_but(folder, &[LOCK_FILE])?;
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

fn put_together(backup: &Path, dir: &Path, common: &Common) -> Result<(), Failure> {
    let options = RestoreOptions {
        until: Until::End,
        force: false,
        // The whole log keeps its own.
        new_log_id: [0; 16],
        keys: None,
        at: SystemClock.now(),
    };
    let mut progress = Progress::new("putting the log together", "events", !common.no_progress);
    let done = restore(backup, dir, &options, &mut |at, of| progress.set(at.0, of.0));
    drop(progress);
    done.map(|_| ()).map_err(|error| not_restored(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Beside, LOCK_FILE, OWNERS_ALONE};

    #[test]
    fn what_a_killed_replay_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let backup = place.path().join("backup");
        fs::create_dir(&backup).unwrap();
        let left = place.path().join("caxton-replay-a1B2c3");
        fs::create_dir_all(left.join("data.restoring/graph")).unwrap();
        fs::write(left.join(LOCK_FILE), "").unwrap();
        let [unlocked, other] =
            ["caxton-replay-keep", "caxton-replay-my.notes"].map(|name| place.path().join(name));
        for folder in [&unlocked, &other] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(other.join(LOCK_FILE), "").unwrap();
        let held = Beside::make(&backup).unwrap();
        assert!(!left.exists(), "nobody held it");
        let mode = fs::metadata(held.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNERS_ALONE);
        let second = Beside::make(&backup).unwrap();
        assert!(held.path().exists() && unlocked.exists() && other.exists());
        let was = held.path().to_owned();
        held.close().unwrap();
        assert!(!was.exists() && second.path().exists());
    }
}
