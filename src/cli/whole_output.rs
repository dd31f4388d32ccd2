//! A file that a command writes: it takes its place when it is whole, and leaves nothing before, not when Ctrl-C or SIGTERM ends
//! the command either.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::thread;

use super::feed::{INTERRUPTED, on_interrupt};
use super::transfer::is_device;

/// Files that are not in their place yet: a signal that ends the process removes them.
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// The signal is waited for from the first of them on.
static WATCHED: Once = Once::new();

/// A file that is written beside its place, and removed there unless it is finished.
pub(super) struct WholeFile {
    place: PathBuf,
    file: BufWriter<File>,
    /// Where it is written; `None` once it is in its place, and for a device, which is written to as it is.
    part: Option<PathBuf>,
}

impl WholeFile {
    /// A file that is to stand at `place`. Until then it has `.part` behind its name, and is written over what has that name: what a
    /// command left that was killed.
    pub(super) fn create(place: &Path) -> io::Result<Self> {
        let place = place.to_owned();
        if is_device(&place) {
            let file = File::options().write(true).open(&place)?;
            return Ok(Self { place, file: BufWriter::new(file), part: None });
        }
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = place.with_file_name(name);
        WATCHED.call_once(removed_when_interrupted);
        let mut parts = parts();
        let file = File::create(&part)?;
        parts.push(part.clone());
        drop(parts);
        Ok(Self { place, file: BufWriter::new(file), part: Some(part) })
    }

    /// Puts it in its place, instead of what is there.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        if let Some(part) = &self.part {
            self.file.get_ref().sync_all()?;
            let mut parts = parts();
            fs::rename(part, &self.place)?;
            parts.retain(|other| other != part);
            drop(parts);
            self.part = None;
        }
        Ok(())
    }
}

impl Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let mut parts = parts();
            // What is left of the attempt is of no use; that it could not be removed changes nothing.
            let _ = fs::remove_file(part);
            parts.retain(|other| other != part);
        }
    }
}

/// To be held while a file is made, moved or removed, so that a signal finds those that are there.
fn parts() -> MutexGuard<'static, Vec<PathBuf>> {
    PARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is under way when Ctrl-C or SIGTERM comes, and ends this process.
fn removed_when_interrupted() {
    let (told, interrupted) = mpsc::channel();
    // Who cannot listen is ended by the signal all the same, and the next command writes over what it leaves.
    if on_interrupt(told, ()).is_err() {
        return;
    }
    thread::spawn(move || {
        if interrupted.recv() == Ok(()) {
            // Held to the end: no file must come into its place, or be begun, meanwhile.
            let parts = parts();
            for part in parts.iter() {
                let _ = fs::remove_file(part);
            }
            std::process::exit(INTERRUPTED);
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::io::Write as _;

    use super::WholeFile;

    #[test]
    fn what_is_there_stays_until_the_file_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out.csv");
        let written = |text: &[u8]| {
            let mut file = WholeFile::create(&place).unwrap();
            file.write_all(text).unwrap();
            file
        };
        drop(written(b"half"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        written(b"old").finish().unwrap();
        drop(written(b"half"));
        assert_eq!(fs::read(&place).unwrap(), b"old");
        written(b"new").finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
