//! The files that go with a log: those of agents, the configuration, the format of the directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::is_plain;
use super::format::PartKind;
use super::source::{Extra, Extras};

/// Name of the file that says which format a data directory has.
const FORMAT_FILE: &str = "FORMAT";
/// Name of the key that signs heads.
const KEY_FILE: &str = "signing.key";
/// Largest file that is taken, in bytes. Agents' files and configurations are far below.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Folders in folders that are looked into.
const DEPTH_MAX: usize = 8;

/// Where these files are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The folder of agents.
    pub agents: Option<PathBuf>,
    /// The configuration file.
    pub config: Option<PathBuf>,
}

/// A file that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("could not take {} into the backup", path.display())]
pub struct ExtraError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Reads them all. What is not there is left out; what cannot be read is an error; what no backup can name is told.
///
/// # Errors
///
/// [`ExtraError`].
pub fn extras(places: &Places) -> Result<Extras, ExtraError> {
    let mut found = Extras::default();
    found.files.extend(file(PartKind::Format, &places.data_dir.join(FORMAT_FILE), FORMAT_FILE)?);
    if let Some(config) = &places.config {
        let name = config.file_name().map_or("caxton.yaml".into(), |name| name.to_string_lossy());
        if is_plain(&name) {
            found.files.extend(file(PartKind::Config, config, &name)?);
        } else {
            found.left_out.push(unnamable(Path::new(&*name)));
        }
    }
    if let Some(agents) = &places.agents {
        folder(agents, "", DEPTH_MAX, &mut found)?;
    }
    Ok(found)
}

/// What is told of a file or folder whose name cannot stand in a backup.
fn unnamable(name: &Path) -> String {
    let name = name.to_string_lossy();
    format!("{name:?}: its name is not UTF-8 or holds a \\; rename it")
}

/// The key that signs heads, where there is one.
///
/// # Errors
///
/// [`ExtraError`].
pub fn signing_key(data_dir: &Path) -> Result<Option<Extra>, ExtraError> {
    file(PartKind::Key, &data_dir.join(KEY_FILE), KEY_FILE)
}

fn file(kind: PartKind, path: &Path, name: &str) -> Result<Option<Extra>, ExtraError> {
    let failed = |source| ExtraError { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            let what = format!("it has {} bytes, {FILE_BYTES_MAX} are taken at the most", found.len());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        Ok(_) => (),
    }
    let content = fs::read(path).map_err(failed)?;
    Ok(Some(Extra { kind, name: name.to_owned(), content }))
}

/// The files in `dir` and below, by name; hidden ones are editors' and are left out.
fn folder(dir: &Path, below: &str, depth: usize, found: &mut Extras) -> Result<(), ExtraError> {
    let failed = |source| ExtraError { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<PathBuf>>>()
        .map_err(failed)?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let Some(name) = name.to_str().filter(|name| is_plain(name)) else {
            found.left_out.push(unnamable(&Path::new(below).join(name)));
            continue;
        };
        let name = format!("{below}{name}");
        if !path.is_dir() {
            found.files.extend(file(PartKind::Agent, &path, &name)?);
        } else if depth > 0 {
            folder(&path, &format!("{name}/"), depth - 1, found)?;
        } else {
            let told = format!(
                "{name:?}: it lies below {DEPTH_MAX} folders, and no deeper one is looked into; move it up"
            );
            found.left_out.push(told);
        }
    }
    Ok(())
}
