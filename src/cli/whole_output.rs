//! A file that a command writes: it takes its place when it is whole, and leaves nothing before, not when Ctrl-C or SIGTERM ends
//! the command either.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::interrupt::due;
use super::transfer::is_device;

/// A file that is written beside its place, and removed there unless it is finished.
pub(super) struct WholeFile {
    place: PathBuf,
    file: BufWriter<File>,
    /// Where it is written; `None` once it is in its place, and for a device, which is written to as it is.
    part: Option<PathBuf>,
}

impl WholeFile {
    /// A file that is to stand at `place`. Until then it stands at [`part_of`] it, and is written over what has that name: what a
    /// command left that was killed.
    pub(super) fn create(place: &Path) -> io::Result<Self> {
        let place = place.to_owned();
        if is_device(&place) {
            let file = File::options().write(true).open(&place)?;
            return Ok(Self { place, file: BufWriter::new(file), part: None });
        }
        let part = part_of(&place);
        let mut due = due();
        let file = File::create(&part)?;
        due.add_part(part.clone());
        drop(due);
        Ok(Self { place, file: BufWriter::new(file), part: Some(part) })
    }

    /// Puts it in its place, instead of what is there.
    pub(super) fn finish(self) -> io::Result<()> {
        finish_all(vec![self]).map_err(|(_, error)| error)
    }

    /// Writes to the medium what is still on its way there.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        if self.part.is_some() { self.file.get_ref().sync_all() } else { Ok(()) }
    }
}

/// Puts files in their places, instead of what is there, when all of them are written: a signal finds all of them there, or none.
///
/// # Errors
///
/// The place of the file that failed, and why. While they are written, all stay as they were.
pub(super) fn finish_all(mut files: Vec<WholeFile>) -> Result<(), (PathBuf, io::Error)> {
    for file in &mut files {
        file.sync().map_err(|error| (file.place.clone(), error))?;
    }
    let mut due = due();
    let mut failed = None;
    for file in &mut files {
        let Some(part) = &file.part else { continue };
        if let Err(error) = fs::rename(part, &file.place) {
            failed = Some((file.place.clone(), error));
            break;
        }
        due.remove_part(part);
        file.part = None;
    }
    // Before the files: those that are not in their places take themselves off the list.
    drop(due);
    failed.map_or(Ok(()), Err)
}

/// Where a file stands that is to stand at `place`.
pub(super) fn part_of(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    place.with_file_name(name)
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
            let mut due = due();
            // What is left of the attempt is of no use; that it could not be removed changes nothing.
            let _ = fs::remove_file(part);
            due.remove_part(part);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::io::Write as _;

    use super::{WholeFile, finish_all};

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

    #[test]
    fn files_of_a_set_take_their_places_together() {
        let folder = tempfile::tempdir().unwrap();
        let places = ["a", "b", "c"].map(|name| folder.path().join(name));
        let written = || -> Vec<WholeFile> {
            let files = places.iter().map(|place| {
                let mut file = WholeFile::create(place).unwrap();
                file.write_all(b"whole").unwrap();
                assert!(!place.exists());
                file
            });
            files.collect()
        };
        drop(written());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        finish_all(written()).unwrap();
        assert!(places.iter().all(|place| fs::read(place).unwrap() == b"whole"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_that_cannot_take_its_place_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [free, taken] = ["free", "taken"].map(|name| folder.path().join(name));
        let files = [&free, &taken].map(|place| WholeFile::create(place).unwrap()).into();
        // A folder that holds something gives way to no file.
        fs::create_dir_all(taken.join("inside")).unwrap();
        let (place, _) = finish_all(files).unwrap_err();
        assert_eq!(place, taken);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
