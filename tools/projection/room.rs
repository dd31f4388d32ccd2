//! Is there room for another one beside the one in use, and how much is missing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caxton_events::log::Reader;

use super::Name;

/// Says how many bytes the file system of a folder has left for this process.
pub type Room<'a> = &'a dyn Fn(&Path) -> io::Result<u64>;

/// A rebuild for which there is no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", told(self))]
pub struct NoRoom {
    /// Where.
    pub dir: PathBuf,
    /// About how many bytes it takes.
    pub needed: u64,
    /// How many are free.
    pub free: u64,
    /// Whether the system refused although that many are free: a quota, or a limit on the size of files.
    pub limited: bool,
}

fn told(NoRoom { dir, needed, free, limited }: &NoRoom) -> String {
    let dir = dir.display();
    if *limited {
        return format!(
            "the system refused to write more in {dir}, although {} are free there: a quota or a limit on the size of \
             files; about {} are needed",
            megabytes(*free),
            megabytes(*needed)
        );
    }
    format!(
        "there is no room in {dir}: about {} are needed, {} are free, {} are missing",
        megabytes(*needed),
        megabytes(*free),
        megabytes(needed.saturating_sub(*free).max(1))
    )
}

/// A size as people read it, never shown as nothing.
fn megabytes(bytes: u64) -> String {
    if bytes < 10 << 20 {
        format!("{} kB", bytes.div_ceil(1_000))
    } else {
        format!("{} MB", bytes.div_ceil(1_000_000))
    }
}

/// The bytes free for this process where `dir` is, as the system says.
///
/// # Errors
///
/// What the system said.
pub fn system_room(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// About how many bytes another one takes: as many as the one in use, and a journal, or as the log's events where there
/// is none.
///
/// # Errors
///
/// What the system said.
pub fn needed_bytes(log: &Reader, place: &Path, name: Name) -> io::Result<u64> {
    let used = folder_bytes(place, &|file| name != Name::Vectors || !is_of_store(file))?;
    if used > 0 {
        return Ok(used);
    }
    Ok(log.stats().map_or(0, |stats| stats.bytes))
}

/// Bytes of the files in `dir` and below that `counts` takes; 0 when there is no such folder.
///
/// # Errors
///
/// What the system said.
pub fn folder_bytes(dir: &Path, counts: &dyn Fn(&Path) -> bool) -> io::Result<u64> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut bytes = 0;
    for entry in entries {
        let path = entry?.path();
        bytes += match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => folder_bytes(&path, counts)?,
            Ok(found) if counts(&path) => found.len(),
            Ok(_) => 0,
            // Gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(bytes)
}

/// Whether a file holds vectors by content, which belong to no fold.
fn is_of_store(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "keys" || extension == "vecs")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::path::PathBuf;

    use super::{NoRoom, system_room};

    #[test]
    fn the_message_says_how_much_is_missing_and_where() {
        let missing =
            NoRoom { dir: PathBuf::from("/data"), needed: 90_000_000, free: 20_000_000, limited: false };
        assert_eq!(
            missing.to_string(),
            "there is no room in /data: about 90 MB are needed, 20 MB are free, 70 MB are missing"
        );
        let limited = NoRoom { limited: true, needed: 5_000, ..missing };
        assert_eq!(
            limited.to_string(),
            "the system refused to write more in /data, although 20 MB are free there: a quota or a limit on the size of \
             files; about 5 kB are needed"
        );
    }

    #[test]
    fn the_system_knows_its_room() {
        let dir = tempfile::tempdir().unwrap();
        assert!(system_room(dir.path()).unwrap() > 0);
    }
}
