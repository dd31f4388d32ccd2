//! Is a backup whole? Every file is read, every hash of the log recomputed; everything that is wrong is named.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use caxton_events::Seq;
use caxton_events::log::{End, PublicKey, SignedCheckpoint};
use serde::Serialize;

use super::format::{BackupHead, Manifest, ManifestError, Part, read_manifest};
use super::frames::{Frame, FrameError, read_magic};
use super::receive::Hashed;
use crate::counted::counted;

/// What is wrong with one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which part: a path in the backup.
    pub part: String,
    /// What is wrong with it.
    pub what: String,
}

/// What the check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The folder.
    pub dir: PathBuf,
    /// Id of the log, hex.
    pub log_id: String,
    /// The end of the log, as the manifest says.
    pub head: BackupHead,
    /// How often it was made or added to.
    pub times: usize,
    /// Files read.
    pub parts: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Events whose hashes were recomputed.
    pub events: u64,
    /// Everything that is wrong; nothing when the backup is whole.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dir, head, times, parts, bytes, events, problems, .. } = self;
        let dir = dir.display();
        if problems.is_empty() {
            return write!(
                f,
                "{dir} is whole: {} up to {}, {}, {}, made in {}\nroot {}",
                counted(*events, "event"),
                head.seq,
                counted(*parts as u64, "file"),
                counted(*bytes, "byte"),
                counted(*times as u64, "step"),
                head.root
            );
        }
        write!(f, "{dir} is not what was written:")?;
        problems.iter().try_for_each(|Problem { part, what }| write!(f, "\n  {part}: {what}"))
    }
}

/// Why there is nothing to check.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no manifest to be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Reads the whole backup in `dir`. `progress` hears the last position read and the one to reach.
///
/// # Errors
///
/// [`CheckError`] where there is no backup; what is wrong with one is in [`Checked::problems`].
pub fn check(dir: &Path, progress: &mut dyn FnMut(Seq, Seq)) -> Result<Checked, CheckError> {
    let manifest = read_manifest(dir)?;
    let mut problems = missing(dir, &manifest);
    let (mut end, mut good, mut bytes) = (End::default(), true, 0);
    for part in &manifest.parts {
        if problems.iter().any(|problem| problem.part == part.path) {
            good &= part.run.is_none();
            continue;
        }
        let mut told = |what: String| problems.push(Problem { part: part.path.clone(), what });
        let before = end.seq();
        let found = if part.run.is_some() {
            let head = manifest.head.seq;
            walk(dir, part, &mut |frame| match frame {
                Frame::Block(block) if good => {
                    let after = end.seq();
                    end.take(block).map_err(|error| format!("behind {after}: {error}"))?;
                    progress(end.seq(), head);
                    Ok(())
                }
                Frame::Block(_) | Frame::Key(..) => Ok(()),
                Frame::Begin(_) | Frame::File(..) | Frame::End(_) => {
                    Err("it holds what no run holds".to_owned())
                }
            })
        } else {
            hashed(dir, part)
        };
        match found {
            Ok(()) => bytes += part.bytes,
            Err(what) => {
                told(what);
                good &= part.run.is_none();
            }
        }
        if good && part.run.is_some_and(|run| end.seq() != run.last && run.last > before) {
            problems.push(Problem { part: part.path.clone(), what: format!("it ends at {}", end.seq()) });
            good = false;
        }
    }
    if good {
        problems.extend(wrong_head(&manifest, &end));
    }
    Ok(Checked {
        dir: dir.to_owned(),
        log_id: manifest.log_id,
        head: manifest.head,
        times: manifest.made.len(),
        parts: manifest.parts.len(),
        bytes,
        events: end.seq().0,
        problems,
    })
}

/// The parts that are not there, or not as long as they were written: told without reading one.
pub(super) fn missing(dir: &Path, manifest: &Manifest) -> Vec<Problem> {
    let mut problems = Vec::new();
    for part in &manifest.parts {
        let of_log =
            part.run.map_or_else(String::new, |run| format!(" (events {} to {})", run.first, run.last));
        let what = match std::fs::metadata(dir.join(&part.path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => format!("it is missing{of_log}"),
            Err(error) => format!("could not look at it: {error}"),
            Ok(found) if found.len() < part.bytes => {
                format!("it is cut short: {} of {} bytes are there{of_log}", found.len(), part.bytes)
            }
            Ok(found) if found.len() > part.bytes => {
                format!("it is longer than it was written: {} bytes instead of {}", found.len(), part.bytes)
            }
            Ok(_) => continue,
        };
        problems.push(Problem { part: part.path.clone(), what });
    }
    problems
}

/// Whether the chain leads to the head of the manifest, and the signature fits.
fn wrong_head(manifest: &Manifest, end: &End) -> Option<Problem> {
    let problem = |what: String| Some(Problem { part: "manifest.json".to_owned(), what });
    let head = BackupHead::from(end.head());
    if head.seq != manifest.head.seq || head.root != manifest.head.root {
        let what = format!("the log in it ends at {} with root {}, not as it says", head.seq, head.root);
        return problem(what);
    }
    let (Some(checkpoint), Some(key)) = (&manifest.checkpoint, &manifest.public_key) else { return None };
    let signed = checkpoint.parse::<SignedCheckpoint>().map_err(|error| error.to_string());
    let key = key.parse::<PublicKey>().map_err(|error| error.to_string());
    let checked = signed.and_then(|signed| {
        signed.check(&key?).map_err(|error| error.to_string())?;
        Ok(signed.checkpoint.head)
    });
    match checked {
        Ok(signed) if signed.root == end.head().root => None,
        Ok(_) => problem("its signed head is another one than that of the log in it".to_owned()),
        Err(error) => problem(format!("its signed head is wrong: {error}")),
    }
}

/// Shows every frame of a run to `take` and compares the hash of the file.
pub(super) fn walk(
    dir: &Path,
    part: &Part,
    take: &mut dyn FnMut(&Frame) -> Result<(), String>,
) -> Result<(), String> {
    let unreadable = |error: io::Error| format!("could not read it: {error}");
    let file = File::open(dir.join(&part.path)).map_err(unreadable)?;
    let mut source = BufReader::with_capacity(1 << 20, Hashed::of(file));
    let told = |error: FrameError| match &error {
        FrameError::Io(cause) => format!("could not read it: {cause}"),
        FrameError::Cut | FrameError::Nonsense(_) => error.to_string(),
    };
    read_magic(&mut source).map_err(told)?;
    while let Some(frame) = Frame::read(&mut source).map_err(told)? {
        take(&frame)?;
    }
    same(part, &source.get_ref().hasher)
}

fn hashed(dir: &Path, part: &Part) -> Result<(), String> {
    let unreadable = |error: io::Error| format!("could not read it: {error}");
    let mut source = Hashed::of(File::open(dir.join(&part.path)).map_err(unreadable)?);
    io::copy(&mut source, &mut io::sink()).map_err(unreadable)?;
    same(part, &source.hasher)
}

fn same(part: &Part, hasher: &blake3::Hasher) -> Result<(), String> {
    let found = hasher.finalize().to_string();
    if found == part.blake3 {
        return Ok(());
    }
    Err(format!("its content was changed: its hash is {found}, {} was written", part.blake3))
}
