//! What an attempt to make a backup that was cut short leaves in its folder, told from what others put there.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, FileType};
use std::io;
use std::path::Path;

use super::format::{FILES_DIR, LOCK_FILE, LOG_DIR, MANIFEST_PART, Manifest};

/// Whether `dir`, which has no manifest, is empty or holds nothing but what a first attempt left, which locks the folder before it
/// puts anything there.
pub(super) fn is_all_there_is(dir: &Path) -> io::Result<bool> {
    if entries(dir)?.is_empty() {
        return Ok(true);
    }
    Ok(dir.join(LOCK_FILE).is_file() && holds_ours_alone(dir, Path::new(""))?)
}

fn holds_ours_alone(dir: &Path, folder: &Path) -> io::Result<bool> {
    for entry in entries(&dir.join(folder))? {
        let (name, kind) = (folder.join(entry.file_name()), entry.file_type()?);
        if !is_ours(&name, kind, 1) || (kind.is_dir() && !holds_ours_alone(dir, &name)?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes from `dir` what attempts to make or to add to its backup left, but for what one of the manifests names. What others put
/// there stays, and no link is followed.
pub(super) fn remove(dir: &Path, manifests: &[Option<&Manifest>]) -> io::Result<()> {
    let manifests = manifests.iter().flatten();
    // The attempt behind the last one that ended well may have been cut short.
    let times = 1 + manifests.clone().map(|manifest| manifest.made.len()).max().unwrap_or_default();
    let mut kept: HashSet<&Path> =
        manifests.flat_map(|manifest| &manifest.parts).map(|part| Path::new(&part.path)).collect();
    kept.insert(Path::new(LOCK_FILE));
    remove_below(dir, Path::new(""), &kept, times)
}

fn remove_below(dir: &Path, folder: &Path, kept: &HashSet<&Path>, times: usize) -> io::Result<()> {
    for entry in entries(&dir.join(folder))? {
        let (name, kind) = (folder.join(entry.file_name()), entry.file_type()?);
        if !is_ours(&name, kind, times) || kept.contains(name.as_path()) {
            continue;
        }
        if kind.is_dir() {
            remove_below(dir, &name, kept, times)?;
            // One that still holds something stays.
            let _ = fs::remove_dir(dir.join(&name));
        } else {
            fs::remove_file(dir.join(&name))?;
        }
    }
    Ok(())
}

/// What is in a folder; nothing in one that is gone, as when who holds the lock removes it.
fn entries(dir: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

/// Whether a backup that was made or added to so many times has such a name in its folder, for a file or a folder of this kind. Links
/// are never made.
fn is_ours(name: &Path, kind: FileType, times: usize) -> bool {
    let parts: Option<Vec<&str>> = name.iter().map(OsStr::to_str).collect();
    match parts.as_deref() {
        Some([LOG_DIR | FILES_DIR]) => kind.is_dir(),
        Some([LOCK_FILE | MANIFEST_PART]) => kind.is_file(),
        Some([LOG_DIR, run]) => kind.is_file() && is_run(run),
        Some([FILES_DIR, time]) => kind.is_dir() && is_time(time, times),
        Some([FILES_DIR, time, ..]) => (kind.is_file() || kind.is_dir()) && is_time(time, times),
        Some(_) | None => false,
    }
}

/// Whether runs are named so: the first position in it and a number.
fn is_run(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = name.strip_suffix(".run").and_then(|name| name.split_once('-'));
    numbers.is_some_and(|(first, number)| first.len() >= 12 && is_number(first) && is_number(number))
}

/// Whether the folder of one of so many times is named so.
fn is_time(name: &str, times: usize) -> bool {
    name.parse().is_ok_and(|time: usize| (1..=times).contains(&time) && time.to_string() == name)
}
