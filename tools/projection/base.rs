//! Where folds of a log begin that has lost its oldest events: the files that were kept in their place.

use std::fs;
use std::io;
use std::path::Path;

use caxton_events::Seq;
use caxton_projections::base::{BASE_DIR, newest_base};

use super::{Home, Name};

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
    let from = newest_base(home.data_dir, first, until)?.map(|base| base.join(name.as_str()));
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
