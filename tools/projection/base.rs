//! Where folds of a log begin that has lost its oldest events: the files that were kept in their place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caxton_events::Seq;

use super::{Home, Name};

/// Folder of what dropped events led to; `base/<last event included>/` holds a folder for each projection.
const BASE_DIR: &str = "base";

/// Puts the newest base that lies at or before `until` into the empty folder `dir`, where the log of `home` has lost events;
/// whether it has.
///
/// # Errors
///
/// What the medium said; not found where there is no such base.
pub(super) fn seed(home: &Home<'_>, name: Name, dir: &Path, until: Seq) -> io::Result<bool> {
    let first = home.log.first().map_err(io::Error::other)?;
    if first == Seq::FIRST {
        return Ok(false);
    }
    let from = newest(&home.data_dir.join(BASE_DIR), first, until)?.map(|base| base.join(name.as_str()));
    let Some(from) = from.filter(|from| from.is_dir()) else {
        let what = format!(
            "the log begins at {first}, and {BASE_DIR}/ has no {name} of before that to begin from; a server makes vectors from the \
             graph when vectors/ is removed"
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    };
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), dir.join(entry.file_name()))?;
        }
    }
    Ok(true)
}

/// The newest base that includes everything before `first` and nothing behind `until`.
fn newest(base: &Path, first: Seq, until: Seq) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut found: Option<(Seq, PathBuf)> = None;
    for entry in entries {
        let entry = entry?;
        let saved = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Seq);
        if let Some(saved) = saved.filter(|saved| saved.next() >= first && *saved <= until)
            && found.as_ref().is_none_or(|(newest, _)| *newest < saved)
        {
            found = Some((saved, entry.path()));
        }
    }
    Ok(found.map(|(_, path)| path))
}
