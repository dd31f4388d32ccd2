//! A file that a command writes: it takes its place when it is whole, and leaves nothing before, not when Ctrl-C or SIGTERM ends
//! the command either. Only its owner may read it: most hold what agents remember and say.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::interrupt::due;
use super::transfer::is_device;

/// Permissions of what is written.
const OWNERS_ALONE: u32 = 0o600;

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
        let file = take_part(&part)?;
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
    let (mut placed, mut failed) = (Vec::new(), None);
    for file in &mut files {
        let Some(part) = &file.part else { continue };
        if let Err(error) = fs::rename(part, &file.place) {
            failed = Some((file.place.clone(), error));
            break;
        }
        due.remove_part(part);
        file.part = None;
        placed.push(file.place.clone());
    }
    // Before the files: those that are not in their places take themselves off the list.
    drop(due);
    for place in placed {
        if let Err(error) = sync_folder(&place) {
            failed = failed.or(Some((place, error)));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Makes the name of a file last.
fn sync_folder(place: &Path) -> io::Result<()> {
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Opens a file that stands beside its place, empty and for this command alone: two that write to it would mix.
fn take_part(part: &Path) -> io::Result<File> {
    loop {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).mode(OWNERS_ALONE).open(part)?;
        // Where the file system knows no locks, there is none.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            let what = "another command is writing it; wait for its end";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        }
        // Who had it may have put it in its place since it was opened.
        if is_at(&file, part)? {
            file.set_permissions(Permissions::from_mode(OWNERS_ALONE))?;
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

/// Whether an open file is the one of this name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::{WholeFile, finish_all, is_at, part_of};

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
    fn one_command_at_a_time_writes_a_file_that_its_owner_alone_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        // What a command left that was killed, when such files were made for all to read.
        fs::write(part_of(&place), "left behind").unwrap();
        fs::set_permissions(part_of(&place), fs::Permissions::from_mode(0o644)).unwrap();
        let mut first = WholeFile::create(&place).unwrap();
        first.write_all(b"first").unwrap();
        let refused = WholeFile::create(&place).err().unwrap();
        assert_eq!(refused.to_string(), "another command is writing it; wait for its end");
        let opened = fs::File::open(part_of(&place)).unwrap();
        assert!(is_at(&opened, &part_of(&place)).unwrap());
        first.finish().unwrap();
        // Who opened it before has no right to the file in its place.
        assert!(!is_at(&opened, &part_of(&place)).unwrap());
        assert_eq!(fs::read(&place).unwrap(), b"first");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        let mut second = WholeFile::create(&place).unwrap();
        second.write_all(b"2nd").unwrap();
        second.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"2nd");
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
