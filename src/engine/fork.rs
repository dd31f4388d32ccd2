//! A fork of a data directory: everything that a server needs to start on it, with a past that it shares.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_events::log::open::data_dir_around;
use caxton_events::log::{
    self, Filter, Fork, ForkError, ForkOptions, Head, Log, LogOptions, OpenError, ReadError, Reader,
    SealError, SealedLog, StoreError, fork_log, note_fork,
};
use caxton_events::{Clock as _, Kind, Seq, Timestamp};

use super::{Engine, SystemClock, base, erase, start};

/// Folder of agents' files, where it is inside the data directory.
const AGENTS_DIR: &str = "agents";
/// In a folder of vectors: they were taken over from a parent, which may have had more texts than the fork.
const INHERITED: &str = "inherited";

/// Where a fork is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// At the end of the log.
    Head,
    /// Behind the event at this position.
    Seq(Seq),
    /// Behind the last event recorded at this time or before.
    Time(Timestamp),
}

impl Cut {
    /// Reads a position or a time as people write them.
    pub fn parse(text: &str) -> Option<Self> {
        let seq = text.strip_prefix('#').unwrap_or(text).parse().map(|seq| Self::Seq(Seq(seq)));
        seq.ok().or_else(|| text.parse().ok().map(Self::Time))
    }

    /// The position in this log.
    fn resolve(self, log: &Reader) -> Result<Seq, SealLogError> {
        let (first, head) = (log.first()?, log.head().seq);
        let seq = match self {
            Self::Head => head,
            Self::Seq(seq) => seq,
            Self::Time(at) => match log.last_by(at)? {
                last if last < first => return Err(SealLogError::Before { at }),
                last => last,
            },
        };
        if first <= seq && seq <= head { Ok(seq) } else { Err(SealLogError::Beyond { seq, first, head }) }
    }
}

/// Why a log is not ready to be forked.
#[derive(Debug, thiserror::Error)]
pub enum SealLogError {
    /// There is no such position.
    #[error("{seq} is not in the log; choose a position from {} to {}", first.0, head.0)]
    Beyond {
        /// What was asked for.
        seq: Seq,
        /// The first position there is.
        first: Seq,
        /// The last one.
        head: Seq,
    },
    /// There was no event yet.
    #[error("no event was recorded at {at} or before; choose a later time")]
    Before {
        /// What was asked for.
        at: Timestamp,
    },
    /// The log did not open.
    #[error("could not open the event log")]
    Open(#[from] OpenError),
    /// The log could not be read.
    #[error("could not read the event log")]
    Read(#[from] ReadError),
    /// The log could not be sealed.
    #[error("could not seal the event log")]
    Seal(#[from] SealError),
    /// What is to be erased may still lie in the log as it was written, and what is sealed is never written again.
    #[error(
        "an erasure is under way or not complete; try again when it is complete, or start the server once, which completes it"
    )]
    Erasing,
    /// The engine has stopped.
    #[error("the server is stopping; try again when it runs, or when it has ended")]
    Stopped,
}

impl From<StoreError> for SealLogError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

/// Why there is no fork. The directory that was to be forked is as it was, and nothing is left of the fork.
#[derive(Debug, thiserror::Error)]
pub enum ForkDirError {
    /// A directory that is whole cannot get this name.
    #[error(
        "{} is a mount point, a symbolic link or no name, and a fork is put in its place by renaming it; fork to a directory in \
         it, or to another one",
        to.display()
    )]
    Unnamable {
        /// The directory.
        to: PathBuf,
    },
    /// There is something already.
    #[error("{} is not empty; fork to a directory that does not exist, or is empty", to.display())]
    NotEmpty {
        /// The directory.
        to: PathBuf,
    },
    /// It would lie in a data directory.
    #[error("{} lies in the data directory {}; fork to a directory outside of it", to.display(), data_dir.display())]
    Inside {
        /// The directory.
        to: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// An earlier attempt was cut short.
    #[error("{} was left by a fork that was cut short; remove it and try again", path.display())]
    Left {
        /// The folder.
        path: PathBuf,
    },
    /// The log has lost its oldest events, and what is kept of them includes later ones than the cut.
    #[error(
        "{cut}: the log has lost its oldest events, and what is kept in their place in base/ is as of {}; fork there or later",
        saved.map_or_else(|| "no event".to_owned(), |saved| saved.to_string())
    )]
    NoBase {
        /// Where the fork was to be cut.
        cut: Seq,
        /// The first position at which a fork is possible; `None`: there is no base.
        saved: Option<Seq>,
    },
    /// The log could not be forked.
    #[error("could not fork the event log")]
    Log(#[source] ForkError),
    /// A file or folder could not be made.
    #[error("could not make {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system gave no random numbers.
    #[error("could not draw the fork's id")]
    Random(#[source] getrandom::Error),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ForkDirError {
    move |source| ForkDirError::Io { path: path.to_owned(), source }
}

impl Engine {
    /// Brings everything up to `cut` into files that are not written any more, while the engine goes on; the position, and
    /// the files. It blocks for some ten milliseconds.
    ///
    /// # Errors
    ///
    /// [`SealLogError`].
    pub fn seal(&self, cut: Cut) -> Result<(Seq, SealedLog), SealLogError> {
        // An erasure that has looked at the log writes it anew, which it cannot once a part of it is sealed.
        let Ok(_alone) = self.inner.erasing.alone.try_lock() else { return Err(SealLogError::Erasing) };
        let log = self.inner.sealer.upgrade().ok_or(SealLogError::Stopped)?;
        sealed(&log, &absolute(&self.inner.data_dir), cut)
    }
}

/// Does the same with the stopped log in `dir`.
///
/// # Errors
///
/// [`SealLogError`].
pub fn seal_stopped(dir: &Path, cut: Cut) -> Result<(Seq, SealedLog), SealLogError> {
    if !dir.join(log::open::LOG_FILE).exists() {
        // Opening for writing would make one.
        drop(Log::open_read_only(dir)?);
    }
    let log = Log::open(dir, LogOptions::new([0; 16]), Arc::new(SystemClock))?;
    let found = sealed(&log, &absolute(dir), cut)?;
    log.close().map_err(|_| SealLogError::Stopped)?;
    Ok(found)
}

fn sealed(log: &Log, dir: &Path, cut: Cut) -> Result<(Seq, SealedLog), SealLogError> {
    let reader = log.reader();
    let (seq, origin) = (cut.resolve(&reader)?, reader.origin()?);
    if !erase::pending(&reader)?.is_empty() {
        return Err(SealLogError::Erasing);
    }
    let sealed = if seq <= log::sealed_through(&origin) {
        SealedLog {
            dir: dir.to_owned(),
            log_id: reader.log_id(),
            head: reader.head(),
            origin,
            has_gaps: reader.has_gaps(),
        }
    } else {
        SealedLog { dir: dir.to_owned(), ..log.seal()? }
    };
    Ok((seq, sealed))
}

fn absolute(dir: &Path) -> PathBuf {
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned())
}

/// That a fork may be made at `to`: there is nothing, or an empty folder, outside of any data directory.
///
/// # Errors
///
/// [`ForkDirError::Unnamable`], [`ForkDirError::NotEmpty`], [`ForkDirError::Inside`], or [`ForkDirError::Io`] where that could not
/// be seen.
pub fn check_place(to: &Path) -> Result<(), ForkDirError> {
    if !can_be_named(to) {
        return Err(ForkDirError::Unnamable { to: to.to_owned() });
    }
    match fs::read_dir(to).map(|mut entries| entries.next().is_none()) {
        Ok(true) => (),
        Ok(false) => return Err(ForkDirError::NotEmpty { to: to.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(source) => return Err(io_error(to)(source)),
    }
    data_dir_around(to).map_or(Ok(()), |data_dir| Err(ForkDirError::Inside { to: to.to_owned(), data_dir }))
}

/// Whether a directory that is made beside can get this name: `.`, `..` and the root are none, a mount point keeps its own, and a
/// link is no directory.
fn can_be_named(to: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
    let is_apart = device(to).zip(device(&to.join(".."))).is_some_and(|(here, above)| here != above);
    to.file_name().is_some() && !to.is_symlink() && !is_apart
}

/// Makes a data directory at `to`, which must not exist or be empty, that shares the events of `parent` up to `cut`. With
/// `copy` it shares no file. Its projections are folded at its first start.
///
/// # Errors
///
/// [`ForkDirError`].
pub fn fork_dir(
    parent: &SealedLog,
    cut: Seq,
    to: &Path,
    copy: Option<&mut dyn FnMut(Seq, Seq)>,
) -> Result<Head, ForkDirError> {
    check_place(to)?;
    let mut log_id = [0; 16];
    getrandom::fill(&mut log_id).map_err(ForkDirError::Random)?;
    let options = ForkOptions { cut, log_id, at: SystemClock.now() };
    // Under another name until it is whole: what is at `to` is a fork, or nothing.
    let beside = beside(to);
    let above = beside.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(above).map_err(io_error(above))?;
    DirBuilder::new().mode(start::OWNERS_ALONE).create(&beside).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            ForkDirError::Left { path: beside.clone() }
        } else {
            io_error(&beside)(error)
        }
    })?;
    let made = fill(parent, &options, &beside, copy).and_then(|head| {
        fs::rename(&beside, to).map_err(io_error(to))?;
        Ok(head)
    });
    if made.is_err() {
        // What is left of it is a folder that the next attempt names.
        let _ = fs::remove_dir_all(&beside);
    }
    let head = made?;
    if let Err(error) = sync(above) {
        // Its name may be gone after a crash, and then nobody is told of a fork that was there.
        let _ = fs::remove_dir_all(to);
        return Err(error);
    }
    let fork = Fork { dir: absolute(to), seq: cut, at: options.at };
    if let Err(error) = note_fork(&parent.dir, &fork) {
        tracing::warn!(%error, "could not note the fork in its parent");
    }
    Ok(head)
}

/// Puts everything of a fork into its folder, on disk when this returns. The log comes last, and at its end the keys: a fork that
/// is cut short leaves none.
fn fill(
    parent: &SealedLog,
    options: &ForkOptions,
    dir: &Path,
    copy: Option<&mut dyn FnMut(Seq, Seq)>,
) -> Result<Head, ForkDirError> {
    start::mark_format(dir).map_err(io_error(dir))?;
    let (first, cut) = (parent.origin.before_first().seq.next(), options.cut);
    if first > Seq::FIRST {
        let carried = base::carry(&parent.dir, dir, (first, cut)).map_err(io_error(dir))?;
        carried.map_err(|saved| ForkDirError::NoBase { cut, saved })?;
    }
    copy_folder(&parent.dir.join(AGENTS_DIR), &dir.join(AGENTS_DIR))?;
    sync(dir)?;
    fork_log(parent, options, dir, copy).map_err(ForkDirError::Log)
}

/// Waits until a file, or the names in a folder, are on disk.
fn sync(path: &Path) -> Result<(), ForkDirError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error(path))
}

/// The name under which a fork is made.
fn beside(to: &Path) -> PathBuf {
    let name = to.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    to.with_file_name(format!(".{name}.caxton-fork"))
}

/// Copies a folder of small files with everything in it, where there is one, onto the disk.
fn copy_folder(from: &Path, to: &Path) -> Result<(), ForkDirError> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io_error(from))?,
    };
    fs::create_dir(to).map_err(io_error(to))?;
    for entry in entries {
        let entry = entry.map_err(io_error(from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(io_error(&from))?;
        if kind.is_dir() {
            copy_folder(&from, &to)?;
        } else if kind.is_file() {
            fs::copy(&from, &to).map_err(io_error(&to))?;
            sync(&to)?;
        }
    }
    sync(to)
}

/// Takes the vectors that the parent of a fork has computed, so that the model need not run again. What cannot be taken is
/// computed.
pub(super) fn inherit_vectors(data_dir: &Path, log: &Reader) {
    let to = data_dir.join("vectors");
    let Ok(origin) = log.origin() else { return };
    let Some(fork) = origin.forks.last() else { return };
    let parent = Path::new(&fork.dir).join("vectors");
    if to.exists() || !parent.is_dir() || has_erased(log, fork.seq) {
        return;
    }
    match copy_vectors(&parent, &data_dir.join("vectors.tmp"), &to) {
        Ok(0) => (),
        Ok(bytes) => tracing::info!(bytes, parent = %parent.display(), "took over the vectors of the parent"),
        Err(error) => {
            tracing::warn!(%error, "could not take over the vectors of the parent; they are computed");
        }
    }
}

/// The mark of vectors that were taken over, as long as some may be of texts that the fork does not have.
pub(super) fn inherited_mark(data_dir: &Path) -> Option<PathBuf> {
    Some(data_dir.join("vectors").join(INHERITED)).filter(|mark| mark.exists())
}

/// Whether something was erased behind `cut`, which the parent knows nothing of; also where that cannot be told.
fn has_erased(log: &Reader, cut: Seq) -> bool {
    let kinds = Some(vec![Kind::ErasureOrdered]);
    log.scan(cut.next(), &Filter { kinds, ..Filter::default() }).next().is_some()
}

/// Copies the vectors by content, which their parent may be writing: names first, so that each has its vector.
fn copy_vectors(from: &Path, beside: &Path, to: &Path) -> io::Result<u64> {
    if beside.exists() {
        fs::remove_dir_all(beside)?;
    }
    fs::create_dir(beside)?;
    File::create(beside.join(INHERITED))?;
    let mut bytes = 0;
    for extension in ["keys", "vecs"] {
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            if path.extension().is_some_and(|found| found == extension)
                && let Some(name) = path.file_name()
            {
                bytes += fs::copy(&path, beside.join(name))?;
            }
        }
    }
    File::open(beside)?.sync_all()?;
    fs::rename(beside, to)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::path::Path;

    use caxton_events::{Seq, Timestamp};

    use super::{Cut, ForkDirError, check_place};

    #[test]
    fn a_place_whose_name_no_fork_can_get_is_refused_before_anything_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, link) = (folder.path().join("empty"), folder.path().join("link"));
        std::fs::create_dir(&empty).unwrap();
        std::os::unix::fs::symlink(&empty, &link).unwrap();
        for to in [Path::new("/proc"), Path::new("."), Path::new("/"), &empty.join(".."), &link] {
            let refused = check_place(to);
            assert!(matches!(refused, Err(ForkDirError::Unnamable { .. })), "{}: {refused:?}", to.display());
        }
        check_place(&empty).unwrap();
        check_place(&folder.path().join("none")).unwrap();
    }

    #[test]
    fn a_cut_is_a_position_or_a_time() {
        for (text, then) in [
            ("17", Some(Cut::Seq(Seq(17)))),
            ("#17", Some(Cut::Seq(Seq(17)))),
            ("1970-01-01T00:00:01Z", Some(Cut::Time(Timestamp::from_unix_micros(1_000_000)))),
            ("yesterday", None),
            ("", None),
            ("-1", None),
        ] {
            assert_eq!(Cut::parse(text), then, "{text:?}");
        }
    }
}
