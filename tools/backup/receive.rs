//! Frames to a folder: checked as they come, read back when they are there, and made part of the backup in one step.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use caxton_events::log::{End, ReadError, open::data_dir_around};
use caxton_events::{Seq, Timestamp};
use serde::Serialize;

use super::disk::{create_private, is_plain, sync_tree, write_private};
use super::format::{
    BackupHead, FILES_DIR, LOCK_FILE, LOG_DIR, MANIFEST_FILE, Made, Manifest, ManifestError, Part, PartKind,
    Run, read_manifest,
};
use super::frames::{Frame, FrameError, MAGIC, read_magic};
use super::left::{self, is_all_there_is};
use super::source::{Begin, Extra, FileHead, Wanted};
use crate::counted::counted;

/// Bytes after which a run goes on in another file.
const RUN_BYTES: u64 = 256 << 20;
/// Files that are named to people at the most.
const SHOWN_MAX: usize = 5;

/// Why a backup was not made or added to. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The folder holds something else.
    #[error("{} is not empty and no backup; choose an empty folder, or one that holds a backup", dir.display())]
    Foreign {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder lies in a data directory, which a loss takes with it.
    #[error("{} lies in the data directory {}; choose a folder outside of it", dir.display(), data_dir.display())]
    Inside {
        /// The folder.
        dir: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
    },
    /// Somebody else writes it.
    #[error("{} is being written by another process; wait for its end", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The manifest that is there cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It is a backup of another log.
    #[error("{} is a backup of the log {found}, this is the log {expected}; choose another folder", dir.display())]
    OtherLog {
        /// The folder.
        dir: PathBuf,
        /// Whose backup it is.
        found: String,
        /// What was to be backed up.
        expected: String,
    },
    /// A run that is there is damaged, so nothing can be put behind it.
    #[error("the backup cannot be added to: {} is damaged or cut short; begin a new backup in an empty folder", path.display())]
    Damaged {
        /// The run.
        path: PathBuf,
    },
    /// What came is cut short or nonsense.
    #[error("what came broke off behind {after}; nothing was added to the backup")]
    Source {
        /// The last position that came.
        after: Seq,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// A block that came is not what was recorded.
    #[error(
        "what came behind {after} is not what was recorded; verify the log; nothing was added to the backup"
    )]
    Block {
        /// The last position that is right.
        after: Seq,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// The blocks do not lead to the head.
    #[error("what came does not lead to the log's head {head}; nothing was added to the backup")]
    Head {
        /// The head.
        head: Seq,
    },
    /// What was written reads back otherwise.
    #[error("{} reads back otherwise than it was written; check the disk; nothing was added to the backup", path.display())]
    ReadBack {
        /// The file.
        path: PathBuf,
    },
    /// A file that came has a name that cannot stand in a backup.
    #[error(
        "{name:?} is no name that a backup can have for a file; rename the file; nothing was added to the backup"
    )]
    Name {
        /// The name, as it is in its folder.
        name: String,
    },
    /// A file could not be written.
    #[error("could not write {} (is there space?); nothing was added to the backup", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What was added to a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Added {
    /// The folder.
    pub dir: PathBuf,
    /// The last position that was there before.
    pub after: Seq,
    /// The end of the log in it.
    pub head: BackupHead,
    /// Events added.
    pub events: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes of the whole backup.
    pub bytes_in_all: u64,
    /// Files of agents, the configuration and so on in it.
    pub files: usize,
    /// Those of them that are as they were the last time, because this time brought none of their kind.
    pub kept: Vec<String>,
    /// Files and folders beside the log that are not in it, and what to do about each.
    pub left_out: Vec<String>,
}

impl std::fmt::Display for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dir, after, head, events, bytes, bytes_in_all, files, kept, left_out } = self;
        write!(
            f,
            "{}: {} behind {after} up to {}, {bytes} bytes written, read back and verified; {bytes_in_all} bytes and {} in all\n\
             root {}",
            dir.display(),
            counted(*events, "event"),
            head.seq,
            counted(*files as u64, "file"),
            head.root
        )?;
        if !kept.is_empty() {
            let shown = listed(kept, ", ");
            write!(f, "\nkept from the time before, because this time brought none of the kind: {shown}")?;
        }
        if left_out.is_empty() {
            Ok(())
        } else {
            write!(f, "\nnot in the backup: {}", listed(left_out, "\n  "))
        }
    }
}

/// The first of these, and how many more there are.
fn listed(all: &[String], between: &str) -> String {
    let shown = all.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(between);
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A folder that a backup is written to, locked for this process.
pub struct Receiver {
    dir: PathBuf,
    manifest: Option<Manifest>,
    end: End,
    _lock: File,
}

/// Opens `dir` for a backup: an empty folder, which is made where there is none, or one that holds a backup.
///
/// # Errors
///
/// [`ReceiveError`]; nothing was changed but that the folder and its lock are there.
pub fn begin(dir: &Path) -> Result<Receiver, ReceiveError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ReceiveError::Io { path, source }
    };
    if let Some(data_dir) = data_dir_around(dir) {
        return Err(ReceiveError::Inside { dir: dir.to_owned(), data_dir });
    }
    fs::create_dir_all(dir).map_err(io(dir))?;
    refuse_foreign(dir)?;
    let path = dir.join(LOCK_FILE);
    let lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(io(&path))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => ReceiveError::Locked { dir: dir.to_owned() },
        TryLockError::Error(source) => ReceiveError::Io { path, source },
    })?;
    // Only now: what was read before the lock may have been replaced by who held it, and is then no list of what is there.
    let manifest = there(dir)?;
    let mut receiver = Receiver { dir: dir.to_owned(), manifest, end: End::default(), _lock: lock };
    receiver.end = receiver.last_end()?;
    Ok(receiver)
}

/// Refuses a folder with something else in it, before anything is put there.
fn refuse_foreign(dir: &Path) -> Result<(), ReceiveError> {
    let is_backup = || fs::symlink_metadata(dir.join(MANIFEST_FILE)).is_ok();
    let is_free = is_backup()
        || is_all_there_is(dir).map_err(|source| ReceiveError::Io { path: dir.to_owned(), source })?;
    // Asked again: who holds the lock may have made it one meanwhile.
    if is_free || is_backup() { Ok(()) } else { Err(ReceiveError::Foreign { dir: dir.to_owned() }) }
}

/// The manifest of the backup in `dir`, where there is one. One that cannot be read is not taken for none.
fn there(dir: &Path) -> Result<Option<Manifest>, ManifestError> {
    match read_manifest(dir) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(ManifestError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Receiver {
    /// What the source must send.
    pub fn wanted(&self) -> Wanted {
        let head = self.end.head();
        Wanted { after: head.seq, root: (head.seq > Seq::ZERO).then(|| head.root.to_string()) }
    }

    /// Where the runs that are there end: each must be as long as it was written, and the last must read back.
    fn last_end(&self) -> Result<End, ReceiveError> {
        let Some(manifest) = &self.manifest else { return Ok(End::default()) };
        for part in &manifest.parts {
            let path = self.dir.join(&part.path);
            if fs::metadata(&path).map_or(0, |found| found.len()) != part.bytes {
                return Err(ReceiveError::Damaged { path });
            }
        }
        let Some((last, _)) = manifest.runs().filter(|(_, run)| run.first <= run.last).last() else {
            return Ok(End::default());
        };
        let path = self.dir.join(&last.path);
        let damaged = || ReceiveError::Damaged { path: path.clone() };
        let file = File::open(&path).map_err(|_| damaged())?;
        let mut source = BufReader::with_capacity(1 << 20, file);
        read_magic(&mut source).map_err(|_| damaged())?;
        let mut end = None;
        while let Some(frame) = Frame::read(&mut source).map_err(|_| damaged())? {
            if let Frame::Block(block) = frame {
                end = Some(End::behind(&block).map_err(|_| damaged())?);
            }
        }
        let end = end.ok_or_else(damaged)?;
        let head = BackupHead::from(end.head());
        if head.seq == manifest.head.seq && head.root == manifest.head.root {
            Ok(end)
        } else {
            Err(damaged())
        }
    }

    /// Takes in the frames of `source` and the files of `extras`, checks and reads back everything, and makes it part of
    /// the backup. `at` is now, `by` the program's version; `progress` hears the last position and the one to reach.
    ///
    /// # Errors
    ///
    /// [`ReceiveError`]; the backup is as it was, and what was written is removed.
    pub fn receive(
        mut self,
        source: &mut dyn Read,
        extras: Vec<Extra>,
        (at, by): (Timestamp, &str),
        progress: &mut dyn FnMut(Seq, Seq),
    ) -> Result<Added, ReceiveError> {
        let after = self.end.seq();
        let started = self.end.clone();
        let taken = self.take(source, progress);
        let done = taken.and_then(|mut taken| {
            taken.extras.extend(extras);
            self.read_back(&taken.runs, started)?;
            self.finish(taken, after, at, by)
        });
        // Asked of the disk: the manifest may have its name although writing it failed. Until that is known to last, what either
        // of them names stays. The next time removes what cannot be removed now.
        if done.is_err()
            && let Ok(now) = there(&self.dir)
        {
            let _ = left::remove(&self.dir, &[self.manifest.as_ref(), now.as_ref()]);
        }
        done
    }

    fn take(
        &mut self,
        source: &mut dyn Read,
        progress: &mut dyn FnMut(Seq, Seq),
    ) -> Result<Taken, ReceiveError> {
        let mut source = BufReader::with_capacity(1 << 20, source);
        let broken = |after, source| ReceiveError::Source { after, source };
        let mut next = |after| {
            Frame::read(&mut source)
                .and_then(|frame| frame.ok_or(FrameError::Cut))
                .map_err(|e| broken(after, e))
        };
        let start = self.end.seq();
        let Frame::Begin(begin) = next(start)? else {
            return Err(broken(start, FrameError::Nonsense("it has no beginning")));
        };
        let begin: Begin = serde_json::from_slice(&begin)
            .map_err(|_| broken(start, FrameError::Nonsense("its beginning cannot be read")))?;
        self.check_begin(&begin)?;
        let mut taken = Taken { begin, extras: Vec::new(), runs: Vec::new(), bytes: 0 };
        let mut writer: Option<RunWriter> = None;
        loop {
            let after = self.end.seq();
            let frame = next(after)?;
            match &frame {
                Frame::End(seq) => {
                    let head = BackupHead::from(self.end.head());
                    if *seq != head.seq || head.seq != taken.begin.seq || head.root != taken.begin.root {
                        return Err(ReceiveError::Head { head: taken.begin.seq });
                    }
                    taken.close(writer)?;
                    return Ok(taken);
                }
                Frame::Begin(_) => return Err(broken(after, FrameError::Nonsense("it begins twice"))),
                Frame::File(json, content) => {
                    let FileHead { kind, name } = serde_json::from_slice(json)
                        .map_err(|_| broken(after, FrameError::Nonsense("a file has no name")))?;
                    taken.extras.push(Extra { kind, name, content: content.clone() });
                }
                Frame::Block(block) => {
                    self.end.take(block).map_err(|source| ReceiveError::Block { after, source })?;
                    writer = taken.write(writer, &self.dir, (after.next(), self.end.seq()), &frame)?;
                    progress(self.end.seq(), taken.begin.seq);
                }
                Frame::Key(..) => {
                    writer = taken.write(writer, &self.dir, (after.next(), after), &frame)?;
                }
            }
        }
    }

    fn check_begin(&self, begin: &Begin) -> Result<(), ReceiveError> {
        let start = self.end.seq();
        if let Some(manifest) = self.manifest.as_ref().filter(|manifest| manifest.log_id != begin.log_id) {
            let (dir, found) = (self.dir.clone(), manifest.log_id.clone());
            return Err(ReceiveError::OtherLog { dir, found, expected: begin.log_id.clone() });
        }
        if begin.after == start {
            return Ok(());
        }
        let source = FrameError::Nonsense("it follows something else than the backup holds");
        Err(ReceiveError::Source { after: start, source })
    }

    /// Reads what was written from the disk again and checks the chain from where it begins.
    fn read_back(&self, runs: &[Part], mut end: End) -> Result<(), ReceiveError> {
        for part in runs {
            let path = self.dir.join(&part.path);
            let changed = || ReceiveError::ReadBack { path: path.clone() };
            let file = File::open(&path).map_err(|_| changed())?;
            let mut source = BufReader::with_capacity(1 << 20, Hashed::of(file));
            read_magic(&mut source).map_err(|_| changed())?;
            while let Some(frame) = Frame::read(&mut source).map_err(|_| changed())? {
                if let Frame::Block(block) = frame {
                    end.take(&block).map_err(|_| changed())?;
                }
            }
            if source.get_ref().hasher.finalize().to_string() != part.blake3 {
                return Err(changed());
            }
        }
        if end.head() == self.end.head() { Ok(()) } else { Err(ReceiveError::Head { head: end.seq() }) }
    }

    fn finish(&mut self, taken: Taken, after: Seq, at: Timestamp, by: &str) -> Result<Added, ReceiveError> {
        let Taken { begin, extras, runs, mut bytes } = taken;
        let mut manifest = self.manifest.clone().unwrap_or_else(|| Manifest::empty(begin.log_id.clone()));
        let kept = replace_parts(&mut manifest.parts, runs, &extras);
        let number = manifest.made.len() + 1;
        let files = extras.len() + kept.len();
        for extra in extras {
            let part = self.write_file(number, extra)?;
            bytes += part.bytes;
            manifest.parts.push(part);
        }
        manifest.head = self.end.head().into();
        (manifest.checkpoint, manifest.public_key) = (begin.checkpoint, begin.public_key);
        // An older server does not say them.
        if !begin.forks.is_empty() {
            manifest.forks = begin.forks;
        }
        manifest.made.push(Made { at, after, until: self.end.seq(), by: by.to_owned() });
        let failed = |source| ReceiveError::Io { path: self.dir.join(MANIFEST_FILE), source };
        for folder in [LOG_DIR, FILES_DIR] {
            let folder = self.dir.join(folder);
            if folder.exists() {
                sync_tree(&folder).map_err(failed)?;
            }
        }
        manifest.write(&self.dir).map_err(failed)?;
        // What no manifest names any more costs room and nothing else.
        let _ = left::remove(&self.dir, &[Some(&manifest)]);
        let head = manifest.head.clone();
        Ok(Added {
            dir: self.dir.clone(),
            after,
            events: head.seq.0 - after.0,
            head,
            bytes,
            bytes_in_all: manifest.parts.iter().map(|part| part.bytes).sum(),
            files,
            kept,
            left_out: begin.left_out,
        })
    }

    fn write_file(&self, number: usize, extra: Extra) -> Result<Part, ReceiveError> {
        let Extra { kind, name, content } = extra;
        let folder = if kind == PartKind::Agent { "agents/" } else { "" };
        let path = format!("{FILES_DIR}/{number}/{folder}{name}");
        let place = self.dir.join(&path);
        let io = |source| ReceiveError::Io { path: place.clone(), source };
        // One that leads out of the folder, too: no file of a data directory has it.
        if !is_plain(&name) {
            return Err(ReceiveError::Name { name });
        }
        fs::create_dir_all(place.parent().unwrap_or(&self.dir)).map_err(io)?;
        write_private(&place, &content).map_err(io)?;
        let blake3 = blake3::hash(&content).to_string();
        Ok(Part { path, kind, name, bytes: content.len() as u64, blake3, run: None })
    }
}

/// Puts new runs behind those that are there, and makes way for new files. A kind of which none came stays: without a configuration
/// at hand, without the key asked for, or where agents are not looked for, nothing says that they are gone. The names of what stays.
fn replace_parts(parts: &mut Vec<Part>, runs: Vec<Part>, extras: &[Extra]) -> Vec<String> {
    let (mut all, others): (Vec<Part>, Vec<Part>) =
        parts.drain(..).partition(|part| part.kind == PartKind::Log);
    all.extend(runs);
    let is_kept = |part: &Part| extras.iter().all(|extra| extra.kind != part.kind);
    let kept: Vec<Part> = others.into_iter().filter(is_kept).collect();
    let names = kept.iter().map(|part| part.name.clone()).collect();
    all.extend(kept);
    *parts = all;
    names
}

/// What came, before it is part of the backup.
struct Taken {
    begin: Begin,
    extras: Vec<Extra>,
    runs: Vec<Part>,
    bytes: u64,
}

impl Taken {
    /// Writes a frame to the run under way; a new one is begun where there is none.
    fn write(
        &mut self,
        writer: Option<RunWriter>,
        dir: &Path,
        (first, last): (Seq, Seq),
        frame: &Frame,
    ) -> Result<Option<RunWriter>, ReceiveError> {
        let mut writer = match writer {
            Some(writer) => writer,
            None => RunWriter::begin(dir, first, self.runs.len())?,
        };
        writer.write(frame, last)?;
        if writer.bytes < RUN_BYTES {
            return Ok(Some(writer));
        }
        self.close(Some(writer))?;
        Ok(None)
    }

    fn close(&mut self, writer: Option<RunWriter>) -> Result<(), ReceiveError> {
        if let Some(writer) = writer {
            let part = writer.close()?;
            self.bytes += part.bytes;
            self.runs.push(part);
        }
        Ok(())
    }
}

/// A run under way.
struct RunWriter {
    place: PathBuf,
    path: String,
    sink: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
    run: Run,
}

impl RunWriter {
    fn begin(dir: &Path, first: Seq, number: usize) -> Result<Self, ReceiveError> {
        let path = format!("{LOG_DIR}/{:012}-{number}.run", first.0);
        let place = dir.join(&path);
        let io = |source| ReceiveError::Io { path: place.clone(), source };
        fs::create_dir_all(dir.join(LOG_DIR)).map_err(io)?;
        let file = create_private(&place).map_err(io)?;
        let sink = BufWriter::with_capacity(1 << 20, file);
        let run = Run { first, last: first.previous(), keys: 0 };
        let mut writer = Self { place, path, sink, hasher: blake3::Hasher::new(), bytes: 0, run };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    fn write(&mut self, frame: &Frame, last: Seq) -> Result<(), ReceiveError> {
        self.put(&frame.encode())?;
        self.run.last = last.max(self.run.last);
        self.run.keys += u64::from(matches!(frame, Frame::Key(..)));
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.sink.write_all(bytes).map_err(|source| ReceiveError::Io { path: self.place.clone(), source })
    }

    fn close(mut self) -> Result<Part, ReceiveError> {
        let synced = self.sink.flush().and_then(|()| self.sink.get_ref().sync_all());
        synced.map_err(|source| ReceiveError::Io { path: self.place.clone(), source })?;
        let name = self.path.rsplit('/').next().unwrap_or_default().to_owned();
        let blake3 = self.hasher.finalize().to_string();
        let Self { path, bytes, run, .. } = self;
        Ok(Part { path, kind: PartKind::Log, name, bytes, blake3, run: Some(run) })
    }
}

/// A stream that hashes what passes.
pub(super) struct Hashed<S> {
    stream: S,
    pub(super) hasher: blake3::Hasher,
}

impl<S> Hashed<S> {
    pub(super) fn of(stream: S) -> Self {
        Self { stream, hasher: blake3::Hasher::new() }
    }
}

impl<S: Read> Read for Hashed<S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}
