//! The journal's medium where it is a file: space is taken ahead of the writes that fill it.
//!
//! A write to space that the file system has not given out yet makes the next sync wait for the allocator, each time.
//! Here the file system is asked for a good piece at once, inside of the file's length. Space taken ahead reads as zeros
//! as it did before, and nothing that was written is touched, so neither recovery nor redb sees a difference.
//!
//! Large writes do not stay in the page cache (`RWF_DONTCACHE`, Linux 6.14): the kernel starts to write them out at once
//! instead of at the sync, and takes the same memory for the next ones. Who reads what was just written finds it in redb's
//! cache.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::LARGE_BYTES;

/// How much space is taken at once.
const PIECE_BYTES: u64 = 16 << 20;

/// A file as a medium.
#[derive(Debug)]
pub(crate) struct FileMedium {
    inner: FileBackend,
    /// The same file, to ask for space.
    file: File,
    /// Up to here the space was taken, or could not be.
    taken: AtomicU64,
    /// Whether large writes pass through the page cache without staying there.
    passes: AtomicBool,
}

impl FileMedium {
    /// The medium in `file`.
    ///
    /// # Errors
    ///
    /// The file could not be shared.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let inner = FileBackend::new(file.try_clone()?).map_err(io::Error::other)?;
        Ok(Self { inner, file, taken: AtomicU64::new(0), passes: AtomicBool::new(true) })
    }

    /// Takes the space from `start` on, unless a write up to `end` finds it taken.
    fn take(&self, start: u64, end: u64) -> io::Result<()> {
        if end <= self.taken.load(Ordering::Relaxed) {
            return Ok(());
        }
        let until = self.file.metadata()?.len().min(start + PIECE_BYTES).max(end);
        // One that does not know how, or has no space left, is asked again only behind this piece: the write itself
        // says what is wrong, if anything is.
        let _ = allocate(&self.file, start, until - start);
        self.taken.fetch_max(until, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn allocate(file: &File, start: u64, bytes: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::KEEP_SIZE, start, bytes)?)
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

/// Writes without keeping it in the page cache.
///
/// # Errors
///
/// The file's; [`io::ErrorKind::Unsupported`] where the kernel or the file system does not know how.
#[cfg(target_os = "linux")]
fn write_past(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    /// `RWF_DONTCACHE` of `linux/fs.h`.
    const DONT_CACHE: rustix::io::ReadWriteFlags = rustix::io::ReadWriteFlags::from_bits_retain(0x80);
    let mut written = 0;
    while written < data.len() {
        let rest = [io::IoSlice::new(&data[written..])];
        match rustix::io::pwritev2(file, &rest, offset + written as u64, DONT_CACHE) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn write_past(_: &File, _: u64, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl StorageBackend for FileMedium {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // What is cut off is given back.
        self.taken.fetch_min(len, Ordering::Relaxed);
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.take(offset, offset + data.len() as u64)?;
        if data.len() >= LARGE_BYTES && self.passes.load(Ordering::Relaxed) {
            match write_past(&self.file, offset, data) {
                Ok(()) => return Ok(()),
                // Who does not know how may say so in several ways. What is really wrong, the other way meets too.
                Err(error) => {
                    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
                    if matches!(error.kind(), Unsupported | InvalidInput | PermissionDenied) {
                        self.passes.store(false, Ordering::Relaxed);
                    }
                }
            }
        }
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs::File;
    use std::sync::atomic::Ordering;

    use redb::StorageBackend;

    use super::{FileMedium, PIECE_BYTES};
    use crate::log::tests::Random;

    #[test]
    fn taking_space_ahead_changes_no_byte_and_no_length() {
        let dir = tempfile::tempdir().unwrap();
        let file =
            File::options().read(true).write(true).create_new(true).open(dir.path().join("file")).unwrap();
        let mut random = Random::new(11);
        let mut model = vec![0; 3 * PIECE_BYTES as usize];
        for reopened in 0..4 {
            let medium = FileMedium::new(file.try_clone().unwrap()).unwrap();
            // Where that is not to be had, large writes are like all others.
            medium.passes.store(reopened % 2 == 0, Ordering::Relaxed);
            medium.set_len(model.len() as u64).unwrap();
            for n in 0..60 {
                let len = 1 + random.below(300 << 10) as usize;
                let offset = random.below((model.len() - len) as u64) as usize;
                let data = vec![(n + reopened) as u8; len];
                model[offset..offset + len].copy_from_slice(&data);
                medium.write(offset as u64, &data).unwrap();
            }
            // Made shorter and longer again, so that space is given back and taken anew.
            let short = model.len() - random.below(PIECE_BYTES * 2) as usize;
            medium.set_len(short as u64).unwrap();
            medium.set_len(model.len() as u64).unwrap();
            model[short..].fill(0);
            medium.write(model.len() as u64 - 5, b"abcde").unwrap();
            let end = model.len() - 5;
            model[end..].copy_from_slice(b"abcde");
            assert_eq!(medium.len().unwrap(), model.len() as u64);
            let mut found = vec![0; model.len()];
            medium.read(0, &mut found).unwrap();
            assert!(found == model, "after opening {reopened}");
        }
    }
}
