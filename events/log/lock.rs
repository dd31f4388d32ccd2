//! The lock on a data directory: one writer, or any number of readers.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Name of the lock's file. It stays; only the lock on it counts, which ends with its process.
pub const LOCK_FILE: &str = "LOCK";

/// Why a directory could not be locked.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody else holds it.
    Held {
        /// The process that writes; 0 when it is only being read.
        pid: u32,
    },
    /// The file could not be opened, locked or written.
    Io(io::Error),
}

/// A held lock; dropping it releases the directory.
#[derive(Debug)]
pub struct DirLock {
    file: File,
    exclusive: bool,
}

impl DirLock {
    /// Locks `dir` for writing and writes this process's id into the file.
    pub(crate) fn exclusive(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(LOCK_FILE);
        let mut file = loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(LockError::Io)?;
            file.try_lock().map_err(|error| held(&mut file, error))?;
            // Who held it may have moved the directory since it was opened, and its lock with it.
            if is_at(&file, &path).map_err(LockError::Io)? {
                break file;
            }
        };
        let write = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        write.map_err(LockError::Io)?;
        Ok(Self { file, exclusive: true })
    }

    /// Locks `dir` against writers. A directory without a lock file, such as a backup, is read without one.
    pub(crate) fn shared(dir: &Path) -> Result<Option<Self>, LockError> {
        let mut file = match File::open(dir.join(LOCK_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LockError::Io(error)),
        };
        file.try_lock_shared().map_err(|error| held(&mut file, error))?;
        Ok(Some(Self { file, exclusive: false }))
    }

    /// The process that writes to `dir` at this moment, 0 where it does not say. The lock is let go at once.
    pub(crate) fn writer(dir: &Path) -> io::Result<Option<u32>> {
        match Self::shared(dir) {
            Ok(_) => Ok(None),
            Err(LockError::Held { pid }) => Ok(Some(pid)),
            Err(LockError::Io(error)) => Err(error),
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        if self.exclusive {
            // An empty file under a lock means readers; a failure leaves an old number behind, no more.
            let _ = self.file.set_len(0);
        }
        let _ = self.file.unlock();
    }
}

/// Whether an open file is the one of this name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (open, named) = (file.metadata()?, fs::metadata(path));
    match named {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn held(file: &mut File, error: TryLockError) -> LockError {
    match error {
        TryLockError::Error(error) => LockError::Io(error),
        TryLockError::WouldBlock => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            LockError::Held { pid: text.trim().parse().unwrap_or(0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::{DirLock, LOCK_FILE, is_at};

    #[test]
    fn a_lock_of_a_directory_that_was_moved_is_not_that_of_the_one_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let [dir, aside] = ["data", "aside"].map(|name| folder.path().join(name));
        fs::create_dir(&dir).unwrap();
        let held = DirLock::exclusive(&dir).unwrap();
        let opened = File::open(dir.join(LOCK_FILE)).unwrap();
        assert!(is_at(&opened, &dir.join(LOCK_FILE)).unwrap());
        fs::rename(&dir, &aside).unwrap();
        assert!(!is_at(&opened, &dir.join(LOCK_FILE)).unwrap());
        fs::create_dir(&dir).unwrap();
        let other = DirLock::exclusive(&dir).unwrap();
        assert!(!is_at(&opened, &dir.join(LOCK_FILE)).unwrap());
        assert!(is_at(&opened, &aside.join(LOCK_FILE)).unwrap());
        drop((held, other));
    }
}
