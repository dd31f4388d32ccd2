//! A file without a name for what is known and seldom asked: full blocks of positions leave the memory for it.
//!
//! What stands in it is in the projection's own file, too; it is made anew at each start. So nothing of it is synced, and the
//! system keeps as much of it in memory as it likes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Its name for the moment in which it has one.
const NAME: &str = "positions.spill";

/// The file; it ends when nobody reads it any more.
#[derive(Debug)]
pub(crate) struct Spill {
    dir: PathBuf,
    file: File,
    /// Bytes that are written.
    len: Mutex<u64>,
}

impl Spill {
    /// Makes the file in `dir`.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn in_dir(dir: &Path) -> io::Result<Self> {
        let path = dir.join(NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { dir: dir.to_owned(), file, len: Mutex::new(0) })
    }

    /// Another one in the same directory.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn fresh(&self) -> io::Result<Self> {
        Self::in_dir(&self.dir)
    }

    /// Writes `bytes` at the end; returns where they begin.
    ///
    /// # Errors
    ///
    /// The system's, mostly that the disk is full.
    pub(crate) fn put(&self, bytes: &[u8]) -> io::Result<u64> {
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(bytes, *len)?;
        let at = *len;
        *len += bytes.len() as u64;
        Ok(at)
    }

    /// The `len` bytes from `at` on, which were put there.
    ///
    /// # Errors
    ///
    /// The system's: the disk does not give back what it took a moment ago.
    pub(crate) fn get(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}
