//! Files whose bytes must not stay: overwritten with zeros where they lie, then removed.
//!
//! A file system that never writes in place, and a disk that moves what it wears out, may keep the old bytes all the same.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Overwrites a file and removes it; a folder with everything in it. What is not there is no error.
///
/// # Errors
///
/// What the system said.
pub fn shred(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?.file_type(),
    };
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            shred(&entry?.path())?;
        }
        return fs::remove_dir(path);
    }
    if kind.is_file() {
        overwrite(path)?;
    }
    fs::remove_file(path)
}

/// Does that with what lies in a folder, where the name `goes`. The folder stays, and what is gone stays so after a power cut. A
/// folder that is not there holds nothing.
///
/// # Errors
///
/// What the system said; some may be gone.
pub fn shred_in(dir: &Path, mut goes: impl FnMut(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if goes(&entry.file_name().to_string_lossy()) {
            shred(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Overwrites a file with zeros, which are on the disk when this returns.
fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    while left > 0 {
        let some = left.min(ZEROS.len() as u64) as usize;
        file.write_all(&ZEROS[..some])?;
        left -= some as u64;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;

    use super::{shred, shred_in};

    #[test]
    fn the_bytes_of_a_file_are_zeros_before_it_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), vec![7; 100_000]).unwrap();
        // A second name keeps the bytes, so that they can be looked at afterwards.
        let kept = dir.path().join("kept");
        fs::hard_link(folder.join("file"), &kept).unwrap();
        shred(&folder).unwrap();
        shred(&folder).unwrap();
        assert!(!folder.exists());
        assert_eq!(fs::read(&kept).unwrap(), vec![0; 100_000]);
    }

    #[test]
    fn what_goes_of_a_folder_goes_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        shred_in(&dir.path().join("nowhere"), |_| true).unwrap();
        for name in ["one", "other"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        shred_in(dir.path(), |name| name == "one").unwrap();
        assert!(!dir.path().join("one").exists() && dir.path().join("other").exists());
        shred_in(dir.path(), |_| true).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
