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
        let entry = entry?;
        // A link leads to what is not below.
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}
