//! Where projections begin whose log has lost its oldest events: `base/<last event included>/` in the data directory has a
//! folder of files for each of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caxton_events::Seq;

/// The folder in a data directory.
pub const BASE_DIR: &str = "base";

/// The last events of the bases of a data directory, in no order; none where there is no such folder.
///
/// # Errors
///
/// What the medium said.
pub fn bases(data_dir: &Path) -> io::Result<Vec<Seq>> {
    let entries = match fs::read_dir(data_dir.join(BASE_DIR)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut bases = Vec::new();
    for entry in entries {
        bases.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()).map(Seq));
    }
    Ok(bases)
}

/// The folder of the newest base that includes everything before `first` and nothing behind `until`.
///
/// # Errors
///
/// What the medium said.
pub fn newest_base(data_dir: &Path, first: Seq, until: Seq) -> io::Result<Option<PathBuf>> {
    let saved = bases(data_dir)?.into_iter().filter(|saved| first <= saved.next() && *saved <= until).max();
    Ok(saved.map(|saved| base_folder(data_dir, saved)))
}

/// The folder of the base that includes everything up to `saved`.
pub fn base_folder(data_dir: &Path, saved: Seq) -> PathBuf {
    data_dir.join(BASE_DIR).join(saved.0.to_string())
}
