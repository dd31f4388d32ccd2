//! The files of the agents directory: listed, read with suspicion, written whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use caxton_events::limits::AGENT_FILE_BYTES_MAX;

/// How the name of an agent's file ends.
pub(super) const EXTENSION: &str = ".md";
/// How the names of notes for people begin.
const README: &str = "README";

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What reading a file gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// There is no such file.
    Gone,
    /// Its bytes, one more than the limit at most.
    Bytes(Vec<u8>, Stamp),
    /// It must not or cannot be read.
    Refused { reason: String, remedy: &'static str, stamp: Option<Stamp> },
    /// It was changed while it was read.
    Changing,
}

/// Whether a name is that of an agent's file: `….md`, not hidden.
pub(super) fn is_agent_file(name: &str) -> bool {
    name.ends_with(EXTENSION) && !name.starts_with('.') && name.len() > EXTENSION.len()
}

/// Whether a file is a note for people and no agent: it is called README, whatever follows, and has no front matter.
pub fn is_note(name: &str, bytes: &[u8]) -> bool {
    let is_readme = name.get(..README.len()).is_some_and(|start| start.eq_ignore_ascii_case(README));
    let text = String::from_utf8_lossy(bytes);
    is_readme && !text.trim_start_matches('\u{feff}').trim_start().starts_with("---")
}

/// The agents' files of a directory with their stamps; links carry the stamp of what they lead to.
pub(super) fn list(directory: &Path) -> io::Result<BTreeMap<String, Option<Stamp>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_agent_file(&name) {
            let stamp = fs::metadata(entry.path()).ok().map(|metadata| Stamp::of(&metadata));
            found.insert(name, stamp);
        }
    }
    Ok(found)
}

/// Reads the file `name` of `directory`. A link is followed only as long as it stays in the directory.
pub(super) fn read(directory: &Path, name: &str) -> Reading {
    let path = directory.join(name);
    let refused = |reason: String, remedy: &'static str, stamp: Option<Stamp>| Reading::Refused {
        reason,
        remedy,
        stamp,
    };
    let unreadable = |error: &io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            Reading::Gone
        } else {
            refused(format!("the file cannot be read: {error}"), "check its permissions", None)
        }
    };
    let link = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata.is_symlink(),
        Err(error) => return unreadable(&error),
    };
    let real = if link {
        let real = path.canonicalize().and_then(|real| Ok((real, directory.canonicalize()?)));
        match real {
            Ok((real, inside)) if real.parent() == Some(&inside) => real,
            Ok(_) => {
                let reason = "the file is a link that leads out of the agents directory".to_owned();
                let stamp = fs::metadata(&path).ok().map(|metadata| Stamp::of(&metadata));
                return refused(reason, "copy the file into the directory", stamp);
            }
            Err(_) => {
                return refused("the file is a link that leads nowhere".to_owned(), "remove the link", None);
            }
        }
    } else {
        path
    };
    // A link that was put there since is not followed, and a pipe is not waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&real);
    let opened = file.and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match opened {
        Ok(opened) => opened,
        Err(error) => return unreadable(&error),
    };
    let stamp = Stamp::of(&metadata);
    if !metadata.is_file() {
        return refused("this is not a file".to_owned(), "put a file there", Some(stamp));
    }
    let mut bytes =
        Vec::with_capacity(usize::try_from(stamp.bytes).unwrap_or(0).min(AGENT_FILE_BYTES_MAX + 1));
    if let Err(error) = (&file).take(AGENT_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes) {
        return unreadable(&error);
    }
    match file.metadata() {
        Ok(after) if Stamp::of(&after) == stamp => Reading::Bytes(bytes, stamp),
        Ok(_) => Reading::Changing,
        Err(error) => unreadable(&error),
    }
}

/// A file that is written and synced beside its place, and not there yet.
#[derive(Debug)]
pub(super) struct Prepared {
    directory: PathBuf,
    temporary: Option<PathBuf>,
    target: PathBuf,
}

/// Writes `content` beside the file `name` of `directory`.
pub(super) fn prepare(directory: &Path, name: &str, content: &str) -> io::Result<Prepared> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let temporary = directory.join(format!(".{name}.{:016x}.tmp", u64::from_le_bytes(random)));
    let prepared = Prepared {
        directory: directory.to_owned(),
        target: directory.join(name),
        temporary: Some(temporary.clone()),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    Ok(prepared)
}

impl Prepared {
    /// Puts the file into its place.
    pub(super) fn commit(mut self) -> io::Result<()> {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        if let Err(error) = fs::rename(&temporary, &self.target) {
            self.temporary = Some(temporary);
            return Err(error);
        }
        File::open(&self.directory)?.sync_all()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nobody looks at it: it is hidden, and a second attempt has another name.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Takes the file `name` away; one that is gone is no fault.
pub(super) fn remove(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => File::open(directory)?.sync_all(),
    }
}

/// Takes away what an earlier run prepared and did not commit.
pub(super) fn remove_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp")).and_then(|name| {
            let (name, random) = name.rsplit_once('.')?;
            (is_agent_file(name) && random.len() == 16).then_some(())
        });
        if ours.is_some() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::os::unix::fs::symlink;

    use super::*;

    fn refusal(reading: &Reading) -> &str {
        if let Reading::Refused { reason, .. } = reading { reason } else { "" }
    }

    #[test]
    fn links_are_followed_inside_the_directory_only() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        let at = inside.path();
        fs::write(outside.path().join("secret.md"), "secret").unwrap();
        fs::write(at.join("real.md"), "text").unwrap();
        symlink(outside.path().join("secret.md"), at.join("out.md")).unwrap();
        symlink("/etc/passwd", at.join("etc.md")).unwrap();
        symlink("real.md", at.join("in.md")).unwrap();
        symlink("nothing", at.join("broken.md")).unwrap();
        symlink(outside.path(), at.join("folder.md")).unwrap();
        fs::create_dir(at.join("dir.md")).unwrap();
        assert!(matches!(read(at, "in.md"), Reading::Bytes(bytes, _) if bytes == b"text"));
        for name in ["out.md", "etc.md", "folder.md"] {
            assert!(refusal(&read(at, name)).contains("leads out"), "{name}");
        }
        assert!(refusal(&read(at, "broken.md")).contains("nowhere"));
        assert!(refusal(&read(at, "dir.md")).contains("not a file"));
        assert_eq!(read(at, "none.md"), Reading::Gone);
        let names: Vec<_> = list(at).unwrap().into_keys().collect();
        assert_eq!(names, ["broken.md", "dir.md", "etc.md", "folder.md", "in.md", "out.md", "real.md"]);
    }

    #[test]
    fn a_readme_without_front_matter_is_a_note() {
        for (name, text, note) in [
            ("README.md", "# Agents\n", true),
            ("readme.de.md", "", true),
            ("README.md", "---\nname: Ada\n---\n", false),
            ("README.md", "\u{feff}\n---\n", false),
            ("ada.md", "# Agents\n", false),
            ("a-README.md", "# Agents\n", false),
        ] {
            assert_eq!(is_note(name, text.as_bytes()), note, "{name} {text:?}");
        }
    }

    #[test]
    fn a_large_file_is_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.md"), vec![b'x'; 300 << 10]).unwrap();
        let Reading::Bytes(bytes, _) = read(dir.path(), "a.md") else { panic!("it can be read") };
        assert_eq!(bytes.len(), AGENT_FILE_BYTES_MAX + 1);
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        prepare(at, "a.md", "one").unwrap().commit().unwrap();
        drop(prepare(at, "a.md", "two").unwrap());
        assert_eq!(fs::read_to_string(at.join("a.md")).unwrap(), "one");
        assert_eq!(fs::read_dir(at).unwrap().count(), 1, "nothing is left behind");
        std::mem::forget(prepare(at, "a.md", "three").unwrap());
        fs::write(at.join(".note.tmp"), "mine").unwrap();
        remove_leftovers(at).unwrap();
        assert_eq!(fs::read_dir(at).unwrap().count(), 2, "what is not ours stays");
        remove(at, "a.md").unwrap();
        remove(at, "a.md").unwrap();
        assert!(list(at).unwrap().is_empty());
    }
}
