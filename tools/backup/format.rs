//! The files of a backup: the manifest, which is sealed, and runs of blocks.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use caxton_events::log::{ForkedFrom, Head};
use caxton_events::{Seq, Timestamp};
use serde::{Deserialize, Serialize};

/// Name of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The manifest before it has its name.
pub(super) const MANIFEST_PART: &str = "manifest.json.part";
/// Folder of the runs.
pub(super) const LOG_DIR: &str = "log";
/// Folder of everything else.
pub(super) const FILES_DIR: &str = "files";
/// Name of the lock.
pub(super) const LOCK_FILE: &str = "LOCK";
/// Format of backups written here.
const FORMAT: u32 = 1;
/// Longest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// What a part of a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// A run of blocks.
    Log,
    /// A file of an agent; its name is that in the folder of agents.
    Agent,
    /// The configuration.
    Config,
    /// The format of the data directory.
    Format,
    /// The key that signs the log's heads.
    Key,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Where it is in the backup, with `/`.
    pub path: String,
    /// What it is.
    pub kind: PartKind,
    /// Its name where it came from: `librarian.md`, `caxton.yaml`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// BLAKE3 of its content, hex.
    pub blake3: String,
    /// Of a run: the first and the last position in it, and how many idempotency keys.
    pub run: Option<Run>,
}

/// What is in a run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The first position.
    pub first: Seq,
    /// The last one; before the first when it has keys alone.
    pub last: Seq,
    /// Idempotency keys.
    pub keys: u64,
}

/// The end of the log in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupHead {
    /// The last position.
    pub seq: Seq,
    /// Merkle root over all events up to there, hex.
    pub root: String,
    /// When the last of them was recorded.
    pub recorded_at: Timestamp,
}

impl From<Head> for BackupHead {
    fn from(head: Head) -> Self {
        Self { seq: head.seq, root: head.root.to_string(), recorded_at: head.recorded_at }
    }
}

/// One time that a backup was made or added to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// When.
    pub at: Timestamp,
    /// The last position that was there before.
    pub after: Seq,
    /// The last position that was there then.
    pub until: Seq,
    /// The program's version.
    pub by: String,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of the backup.
    pub format: u32,
    /// Id of the log, hex.
    pub log_id: String,
    /// Its end.
    pub head: BackupHead,
    /// The same signed by the server, as auditors keep it; `None` from a log without a key.
    pub checkpoint: Option<String>,
    /// The key that signed it.
    pub public_key: Option<String>,
    /// The logs that it was forked from, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<ForkedFrom>,
    /// Every time it was made, the first one first.
    pub made: Vec<Made>,
    /// Every file, runs first and in order.
    pub parts: Vec<Part>,
}

/// A manifest with its seal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    manifest: Manifest,
    /// BLAKE3 of the manifest as compact JSON, hex.
    blake3: String,
}

impl Sealed {
    /// The file, to the byte: there is one way to write a manifest, so that no change of it goes unseen.
    fn text(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// Why there is no backup to be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no manifest.
    #[error(
        "{} holds no {MANIFEST_FILE}: it is no backup, or making it was cut short before its end; make it again",
        dir.display()
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// It could not be read.
    #[error("could not read {}", path.display())]
    Io {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is cut short, or no manifest.
    #[error("{} is cut short or no manifest of a backup; make the backup again", path.display())]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It was changed after it was written.
    #[error("{} is not what was written: its seal does not fit; make the backup again", path.display())]
    Changed {
        /// The manifest.
        path: PathBuf,
    },
    /// It is of a newer Caxton.
    #[error("{} has format {found}, this Caxton knows {FORMAT}; use a newer Caxton", path.display())]
    Newer {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Manifest {
    /// An empty backup of the log with this id.
    pub(super) fn empty(log_id: String) -> Self {
        Self {
            format: FORMAT,
            log_id,
            head: BackupHead { seq: Seq::ZERO, root: String::new(), recorded_at: Timestamp::EPOCH },
            checkpoint: None,
            public_key: None,
            forks: Vec::new(),
            made: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// The runs, in order.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&Part, Run)> {
        self.parts.iter().filter_map(|part| part.run.map(|run| (part, run)))
    }

    /// Writes it in one step: a crash leaves the manifest before it, or this one.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let text = Sealed { manifest: self.clone(), blake3: self.seal()? }.text()?;
        let part = dir.join(MANIFEST_PART);
        let mut file = File::create(&part)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&part, dir.join(MANIFEST_FILE))?;
        File::open(dir)?.sync_all()
    }

    fn seal(&self) -> io::Result<String> {
        Ok(blake3::hash(&serde_json::to_vec(self)?).to_string())
    }
}

/// The manifest of the backup in `dir`.
///
/// # Errors
///
/// [`ManifestError`].
pub fn read_manifest(dir: &Path) -> Result<Manifest, ManifestError> {
    let path = dir.join(MANIFEST_FILE);
    let io = |source| ManifestError::Io { path: path.clone(), source };
    let text = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ManifestError::Missing { dir: dir.to_owned() });
        }
        opened => {
            let mut text = Vec::new();
            let mut file = io::Read::take(opened.map_err(io)?, MANIFEST_BYTES_MAX);
            io::Read::read_to_end(&mut file, &mut text).map_err(io)?;
            text
        }
    };
    let unreadable = |source| ManifestError::Unreadable { path: path.clone(), source };
    // A newer one may have other fields: its format is looked at first.
    let loose: serde_json::Value = serde_json::from_slice(&text).map_err(unreadable)?;
    let found = loose["manifest"]["format"].as_u64().unwrap_or_default() as u32;
    if found > FORMAT {
        return Err(ManifestError::Newer { path, found });
    }
    let sealed: Sealed = serde_json::from_slice(&text).map_err(unreadable)?;
    let same = sealed.manifest.seal().map_err(io)? == sealed.blake3 && sealed.text().map_err(io)? == text;
    if same { Ok(sealed.manifest) } else { Err(ManifestError::Changed { path }) }
}
