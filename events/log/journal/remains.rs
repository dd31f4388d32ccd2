//! The file as redb sees it when it shall serve what is left of it, however it was left.
//!
//! redb reads a database that another process may be writing by its header and its pages alone: it repairs nothing, does
//! without its own record of free pages, and does not ask how long the file is. That the file was not closed in order
//! means to it that the other process is still there, if a lock says so. Here there is none; the locks are answered for it,
//! so that what a crash or damage left behind is read as it is and nothing is written.

use std::io;
use std::ops::Bound;

use redb::{BackendError, StorageBackend};

use super::{Backend, PAGE};

/// The byte that a process which writes keeps locked while the file is consistent (redb, docs/design.md, "Lock bytes").
const CONSISTENT_BYTE: u64 = (1 << 62) + 4;
/// Reads of so many bytes at the most are answered with zeros where nothing is.
const NOWHERE_BYTES_MAX: usize = 1 << 20;

/// A medium some of whose sectors cannot be read: they read as zeros. Nothing is written to it.
#[derive(Debug)]
pub(super) struct Tolerant(pub(super) Box<dyn StorageBackend>);

impl StorageBackend for Tolerant {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.0.read(offset, out) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => (),
            read => return read,
        }
        let mut start = 0;
        while start < out.len() {
            let end = (PAGE - (offset + start as u64) % PAGE) as usize + start;
            let piece = start..end.min(out.len());
            if self.0.read(offset + start as u64, &mut out[piece.clone()]).is_err() {
                out[piece.clone()].fill(0);
            }
            start = piece.end;
        }
        Ok(())
    }

    /// As every other way to write: what is left stays as it is.
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// What is left of a file. Its locks lock nothing: the data directory's do that.
#[derive(Debug)]
pub(crate) struct Remains(pub(super) Backend);

impl StorageBackend for Remains {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    /// A damaged page may send redb behind the end. An error would end all reading; zeros are a page without sense, which
    /// costs what lies below it.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.0.read(offset, out) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && out.len() <= NOWHERE_BYTES_MAX => {
                out.fill(0);
                Ok(())
            }
            read => read,
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    /// Of all bytes, only the one is locked that says that the file is consistent.
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        let asked = Bound::Included(CONSISTENT_BYTE);
        Ok((start, end) == (asked, asked))
    }
}
