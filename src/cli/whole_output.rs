//! A file that a command writes: it takes its place when it is whole, and leaves nothing before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::transfer::is_device;

/// A file that is written beside its place, and removed there unless it is finished.
pub(super) struct WholeFile {
    place: PathBuf,
    file: BufWriter<File>,
    /// Where it is written; `None` once it is in its place, and for a device, which is written to as it is.
    part: Option<PathBuf>,
}

impl WholeFile {
    /// A file that is to stand at `place`. Until then it has `.part` behind its name.
    pub(super) fn create(place: &Path) -> io::Result<Self> {
        let place = place.to_owned();
        if is_device(&place) {
            let file = File::options().write(true).open(&place)?;
            return Ok(Self { place, file: BufWriter::new(file), part: None });
        }
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = place.with_file_name(name);
        let file = File::create(&part)?;
        Ok(Self { place, file: BufWriter::new(file), part: Some(part) })
    }

    /// Puts it in its place, instead of what is there.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        if let Some(part) = &self.part {
            self.file.get_ref().sync_all()?;
            fs::rename(part, &self.place)?;
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
            // What is left of the attempt is of no use; that it could not be removed changes nothing.
            let _ = fs::remove_file(part);
        }
    }
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
