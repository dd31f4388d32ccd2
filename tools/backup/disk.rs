//! Files and folders of a backup, and of what is restored of one: for their owner alone, and there to stay.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Whether a name stands for a file right there, or below in folders of plain names.
pub(super) fn is_plain(name: &str) -> bool {
    let path = Path::new(name);
    !name.is_empty()
        && !name.contains('\\')
        && path.components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

/// Whether a directory that is made beside can get this name: `.`, `..` and the root are none, and a mount point keeps its own.
pub(super) fn can_be_named(to: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    let is_apart = device(to).zip(device(&to.join(".."))).is_some_and(|(here, above)| here != above);
    to.file_name().is_some() && !is_apart
}

/// Makes a file that only its owner may read: a backup holds what everybody wrote.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes such a file and waits until it is on disk.
pub(super) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = create_private(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes the names in `dir` and below last.
pub(super) fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        }
    }
    File::open(dir)?.sync_all()
}

/// Removes what is in `dir` and below and is not `named`.
pub(super) fn remove_unnamed(dir: &Path, named: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            remove_unnamed(&path, named)?;
            // One that still holds something stays.
            let _ = fs::remove_dir(&path);
        } else if !named(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
