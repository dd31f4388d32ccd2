//! Where a directory is built before it gets its name: a folder beside, that says of itself what it is.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use caxton_events::log::open::lock;
use caxton_events::log::{DirLock, LOCK_FILE, OpenError};

use super::disk::write_private;
use super::restore::RestoreError;

/// Name of the file that says where a directory came from. It comes last: what has it is whole.
pub(super) const MARKER_FILE: &str = "restored.json";
/// Its name until then. What has it is in the making, and whole to nobody.
pub(super) const MARKER_PART: &str = "restored.json.part";

/// The folder that the directory for `to` is built in, locked and marked, with nothing else in it: two that build there would mix.
/// What one left that was killed is removed; what is whole, or was put there by others, is not.
pub(super) fn begin_beside(beside: &Path, to: &Path) -> Result<DirLock, RestoreError> {
    let io = |source| RestoreError::Io { path: beside.to_owned(), source };
    let has = |name: &str| beside.join(name).exists();
    // Before there is a lock in what is somebody else's.
    let is_ours = !holds_more(beside).map_err(io)? || has(MARKER_PART) || has(MARKER_FILE);
    if beside.is_symlink() || !is_ours {
        return Err(RestoreError::InTheWay { path: beside.to_owned() });
    }
    let locked = lock(beside);
    if matches!(locked, Err(OpenError::Locked { .. })) {
        return Err(RestoreError::Underway { to: to.to_owned() });
    }
    let locked = locked?;
    if has(MARKER_FILE) {
        return Err(RestoreError::Unnamed { path: beside.to_owned(), to: to.to_owned() });
    }
    // One that was left may have been made for others to read.
    let emptied = write_private(&beside.join(MARKER_PART), b"")
        .and_then(|()| empty_but(beside, &[LOCK_FILE, MARKER_PART]))
        .and_then(|()| fs::set_permissions(beside, Permissions::from_mode(0o700)));
    emptied.map_err(io)?;
    Ok(locked)
}

/// Whether there is more in a folder than its lock.
fn holds_more(dir: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        if entry?.file_name() != LOCK_FILE {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether something is in the way.
pub(super) fn is_taken(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the new directory its name; where the one before went. Between the two renames of a directory that is moved aside a
/// crash leaves both under other names, and none is lost. `step` comes before each change of a name: what it fails with is
/// taken for the end of the process.
pub(super) fn put_in_place(
    beside: &Path,
    to: &Path,
    taken: bool,
    step: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Option<PathBuf>> {
    let aside = if taken { Some(free_name(to)) } else { None };
    step()?;
    // An empty directory is replaced by the rename that follows.
    if let Some(aside) = &aside {
        fs::rename(to, aside)?;
        step()?;
    }
    if let Err(error) = fs::rename(beside, to) {
        if let Some(aside) = &aside {
            fs::rename(aside, to)?;
        }
        return Err(error);
    }
    step()?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(aside)
}

/// The first free name of `dir.before-restore-1`, `-2`, ….
fn free_name(dir: &Path) -> PathBuf {
    let mut number = 1_u32;
    loop {
        let path = beside(dir, &format!("before-restore-{number}"));
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}

/// The folder with this ending beside `dir`.
pub(super) fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or(std::ffi::OsStr::new("data")).to_os_string();
    name.push(".");
    name.push(ending);
    dir.with_file_name(name)
}

/// Removes what is in a folder, but for the files `kept`, which say whose it is should this be broken off.
///
/// # Errors
///
/// What the system said; some may be gone.
pub fn empty_but(dir: &Path, kept: &[&str]) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if kept.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a folder whose lock is held. What another puts there, once the lock's file is gone, stays.
pub(super) fn discard(dir: &Path) -> io::Result<()> {
    // It is not whole from here on, and should not say so.
    match fs::rename(dir.join(MARKER_FILE), dir.join(MARKER_PART)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => (),
    }
    empty_but(dir, &[LOCK_FILE, MARKER_PART])?;
    fs::remove_file(dir.join(MARKER_PART))?;
    fs::remove_file(dir.join(LOCK_FILE))?;
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::io;
    use std::path::Path;

    use super::{beside, put_in_place};

    fn put(dir: &Path, what: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("file"), what).unwrap();
    }

    fn held(dir: &Path) -> Option<String> {
        fs::read_to_string(dir.join("file")).ok()
    }

    /// The process ends before each change of a name: both directories are there whole, under their own name or the one
    /// that says what they are.
    #[test]
    fn a_restore_that_ends_at_any_step_loses_neither_directory() {
        for taken in [false, true] {
            let mut whole = false;
            for end in 0..5 {
                let dir = tempfile::tempdir().unwrap();
                let to = dir.path().join("data");
                let new = beside(&to, "restoring");
                put(&new, "new");
                if taken {
                    put(&to, "old");
                } else {
                    fs::create_dir(&to).unwrap();
                }
                let mut steps = 0;
                let ended = put_in_place(&new, &to, taken, &mut || {
                    steps += 1;
                    if steps > end { Err(io::Error::other("the process ends")) } else { Ok(()) }
                });
                whole |= ended.is_ok();
                let aside = held(&beside(&to, "before-restore-1"));
                let found = (held(&to), held(&new), aside);
                let (old, none) = (Some("old".to_owned()).filter(|_| taken), None);
                let new = Some("new".to_owned());
                let expected = [
                    (old.clone(), new.clone(), none.clone()),
                    (none.clone(), new.clone(), old.clone()),
                    (new, none, old),
                ];
                assert!(expected.contains(&found), "step {end}: {found:?}");
                assert!(ended.is_err() || found == expected[2], "step {end}: {found:?}");
            }
            assert!(whole, "five steps are more than there are");
        }
    }
}
