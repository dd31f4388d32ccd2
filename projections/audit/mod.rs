//! What happened to whom, found without reading the whole log: postings from agents, conversations, rows of the memory,
//! messages, turns, correlations and causes to positions.
//!
//! Reading order: [`terms`](mod@terms) (what an event can be found by), `pages` and `segment` (the files), this file (all of them
//! together, and how they come to be), [`trail`] (questions).
//!
//! A segment covers 65,536 events that lie side by side; sixteen of them become one. Segments are made behind the writer's
//! back and may be missing: what none covers is read from the log, so that no answer depends on how far they are. They
//! can be thrown away at any time.

mod pages;
mod segment;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod trail;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use caxton_events::Seq;
use caxton_events::log::{Filter, ProveError, ReadError, Reader};

pub use segment::SegmentError;
pub use terms::Term;
pub use trail::{Question, Trail};

use crate::shred::{shred, shred_in};
use segment::{Segment, SegmentWriter, Stretch};
use terms::terms;

/// Name of the folder in the data directory.
pub const FOLDER: &str = "audit";
/// Name of the projection in answers and metrics.
pub const NAME: &str = "audit";
/// Events of the smallest segment.
pub const SEGMENT_EVENTS: u64 = 1 << 16;
/// Neighbouring segments that become one.
pub const MERGED_SEGMENTS: u64 = 16;
/// Events after which is asked whether to stop.
const STOP_EVENTS: u32 = 4_096;
/// Files that were dropped and are still named, at most.
const DROPPED_MAX: usize = 16;

/// Why the postings do not go on. Answers stay right: they read the log instead.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file could not be read or written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The folder cannot be used.
    #[error("could not use {}", path.display())]
    Folder {
        /// The folder or a file in it.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log could not be read.
    #[error("could not read the log for the postings")]
    Read(#[from] ReadError),
    /// The root of the log at the end of a segment could not be computed.
    #[error("could not tie the postings to the log")]
    Prove(#[from] ProveError),
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A segment over so many events was made from the log.
    Built {
        /// How many.
        events: u64,
    },
    /// Segments became one.
    Merged,
    /// There is nothing to do before the log has grown.
    Done,
}

/// How far the postings are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Position up to which every event is covered.
    pub through: Seq,
    /// Events that are covered, those behind a hole included.
    pub events: u64,
    /// Files.
    pub segments: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Files that were dropped since the start, with their reasons; the last ones.
    pub dropped: Vec<String>,
    /// Why they do not go on, if they do not.
    pub failure: Option<String>,
}

/// The postings of a log. Cheap to clone; readers and the one that makes them share it.
#[derive(Debug, Clone)]
pub struct Postings {
    shared: Arc<Shared>,
}

/// How large segments are.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Events of the smallest one.
    events: u64,
    /// How many of these become one.
    merged: u64,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    sizes: Sizes,
    /// Held by who reads the folder, makes files in it or takes them out.
    files: Mutex<()>,
    /// Ascending, without overlaps.
    segments: RwLock<Vec<Arc<Segment>>>,
    dropped: Mutex<Vec<String>>,
    /// First positions of stretches that the log cannot give.
    unreadable: Mutex<BTreeSet<Seq>>,
    failure: Mutex<Option<String>>,
    /// The first position that the log still had when it was last looked at.
    kept: AtomicU64,
}

impl Postings {
    /// The postings in the folder of a data directory, none of them open yet.
    pub fn at(data_dir: &Path) -> Self {
        Self::with_sizes(data_dir, Sizes { events: SEGMENT_EVENTS, merged: MERGED_SEGMENTS })
    }

    fn with_sizes(data_dir: &Path, sizes: Sizes) -> Self {
        let shared = Shared {
            dir: data_dir.join(FOLDER),
            sizes,
            files: Mutex::default(),
            segments: RwLock::default(),
            dropped: Mutex::default(),
            unreadable: Mutex::default(),
            failure: Mutex::default(),
            kept: AtomicU64::new(1),
        };
        Self { shared: Arc::new(shared) }
    }

    fn folder_failed(path: &Path) -> impl Fn(io::Error) -> AuditError + '_ {
        |source| AuditError::Folder { path: path.to_owned(), source }
    }

    /// Opens the files that are there and belong to the log. Others are left out, and named in [`Status::dropped`] where
    /// something is wrong with them. Nothing is written.
    ///
    /// # Errors
    ///
    /// [`AuditError`] when the folder or the log cannot be read.
    pub fn open(&self, reader: &Reader) -> Result<(), AuditError> {
        let _files = self.files();
        self.kept(reader)?;
        let dir = &self.shared.dir;
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Self::folder_failed(dir))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(Self::folder_failed(dir))?.path();
            if path.extension().is_some_and(|extension| extension == "postings") {
                match Segment::open(&path).and_then(|segment| of_log(segment, reader)) {
                    Ok(segment) => found.push(Arc::new(segment)),
                    Err(error) => self.note_dropped(&error),
                }
            }
        }
        // Of segments that overlap, the larger one was made of the others.
        found.sort_by_key(|segment| (segment.stretch.first, u64::MAX - segment.events()));
        found.dedup_by(|later, earlier| later.stretch.first <= earlier.stretch.last);
        *self.shared.segments.write().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// The first position that the log still has.
    fn kept(&self, reader: &Reader) -> Result<Seq, ReadError> {
        let kept = reader.first()?;
        self.shared.kept.store(kept.0, Ordering::Relaxed);
        Ok(kept)
    }

    /// Removes what is in the folder and is no part of the postings: files that were dropped or never finished, and those
    /// that became part of others.
    ///
    /// # Errors
    ///
    /// [`AuditError::Folder`].
    pub fn tidy(&self) -> Result<(), AuditError> {
        let _files = self.files();
        let dir = &self.shared.dir;
        fs::create_dir_all(dir).map_err(Self::folder_failed(dir))?;
        let used: Vec<PathBuf> = self.segments().iter().map(|segment| segment.path().to_owned()).collect();
        for entry in fs::read_dir(dir).map_err(Self::folder_failed(dir))? {
            let path = entry.map_err(Self::folder_failed(dir))?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let is_ours = matches!(extension, Some("postings" | "unfinished"));
            if is_ours && !used.contains(&path) {
                shred(&path).map_err(Self::folder_failed(&path))?;
            }
        }
        Ok(())
    }

    /// Makes the next segment that the log has the events for, or one of several; [`Step::Done`] when there is none to
    /// make. One caller at a time. When `stop` says so, nothing is made.
    ///
    /// # Errors
    ///
    /// [`AuditError`]; what there is stays in use.
    pub fn step(&self, reader: &Reader, stop: &dyn Fn() -> bool) -> Result<Step, AuditError> {
        let _files = self.files();
        if self.merge_next()? {
            return Ok(Step::Merged);
        }
        let kept = self.kept(reader)?;
        let Some(first) = self.next_uncovered(kept, reader.head().seq) else { return Ok(Step::Done) };
        fs::create_dir_all(&self.shared.dir).map_err(Self::folder_failed(&self.shared.dir))?;
        match self.build(reader, first, stop) {
            Ok(None) => Ok(Step::Done),
            Ok(Some(segment)) => {
                self.put(Arc::new(segment));
                Ok(Step::Built { events: self.shared.sizes.events })
            }
            // Questions read it from the log, and tell of the damage. What lies behind it can be covered all the same.
            Err(AuditError::Read(
                error @ (ReadError::Damaged { .. } | ReadError::Decode { .. } | ReadError::KeyMissing { .. }),
            )) => {
                self.unreadable().insert(first);
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Overwrites and removes the files that cover one of these positions, which ascend: what was taken out of the log since still
    /// stands there, as hashes of names and numbers. They are made again, and the log is read until then. One that is under way is
    /// waited for.
    ///
    /// # Errors
    ///
    /// [`AuditError::Folder`]; some of them may be there still.
    pub fn forget(&self, seqs: &[Seq]) -> Result<(), AuditError> {
        if seqs.is_empty() {
            return Ok(());
        }
        let covers = |first: Seq, last: Seq| {
            let next = seqs.get(seqs.partition_point(|seq| *seq < first));
            next.is_some_and(|seq| *seq <= last)
        };
        let _files = self.files();
        let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.retain(|segment| !covers(segment.stretch.first, segment.stretch.last));
        drop(segments);
        // Those that are not in use as well: dropped, never finished, not opened yet.
        let goes = |name: &str| {
            let is_ours = [".postings", ".unfinished"].iter().any(|ending| name.ends_with(*ending));
            is_ours && Segment::named(name).is_none_or(|(first, last)| covers(first, last))
        };
        shred_in(&self.shared.dir, goes).map_err(Self::folder_failed(&self.shared.dir))
    }

    /// The first stretch that can be covered and is not, by its first position. Before `kept` the log has nothing any more.
    fn next_uncovered(&self, kept: Seq, head: Seq) -> Option<Seq> {
        let (unreadable, events) = (self.unreadable(), self.shared.sizes.events);
        let mut segments = self.segments().into_iter().peekable();
        let mut first = Seq::FIRST;
        loop {
            if let Some(segment) = segments.next_if(|segment| segment.stretch.first <= first) {
                first = segment.stretch.last.next().max(first);
            } else if unreadable.contains(&first) || first.0 + events <= kept.0 {
                first = Seq(first.0 + events);
            } else {
                return (head.0 >= first.0 + events - 1).then_some(first);
            }
        }
    }

    fn build(
        &self,
        reader: &Reader,
        first: Seq,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Segment>, AuditError> {
        let events = self.shared.sizes.events;
        let last = Seq(first.0 + events - 1);
        let root = reader.head_at(last.0)?.root;
        let mut found: Vec<(u64, u32)> = Vec::with_capacity(8 * events as usize);
        for event in reader.scan_found(first, &Filter { until: Some(last), ..Filter::default() }) {
            let event = event?;
            let position = (event.seq().0 - first.0) as u32;
            if position.is_multiple_of(STOP_EVENTS) && stop() {
                return Ok(None);
            }
            terms(&event, &mut |term| found.push((term.hash(), position)));
        }
        found.sort_unstable();
        found.dedup();
        let stretch = Stretch { log_id: reader.log_id(), first, last, root };
        let mut writer = SegmentWriter::create(&self.shared.dir, stretch)?;
        let mut positions = Vec::new();
        for term in found.chunk_by(|one, other| one.0 == other.0) {
            positions.clear();
            positions.extend(term.iter().map(|(_, position)| *position));
            writer.add(term[0].0, &positions)?;
        }
        Ok(Some(writer.finish()?))
    }

    /// Merges the first small segments that fill the place of a large one; whether there were such.
    fn merge_next(&self) -> Result<bool, AuditError> {
        let segments = self.segments();
        let Sizes { events, merged } = self.shared.sizes;
        let large = events * merged;
        let place = |segment: &Arc<Segment>| (segment.stretch.first.0 - 1) / large;
        let whole = segments
            .chunk_by(|one, other| place(one) == place(other))
            .find(|parts| parts.len() as u64 == merged);
        let Some(parts) = whole else { return Ok(false) };
        let parts: Vec<&Segment> = parts.iter().map(AsRef::as_ref).collect();
        match segment::merge(&self.shared.dir, &parts) {
            Ok(Some(merged)) => {
                self.put(Arc::new(merged));
                // Overwritten: what an erasure takes out of the log later stands here in the same hashes.
                for part in parts {
                    shred(part.path()).map_err(Self::folder_failed(part.path()))?;
                }
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(SegmentError::Damaged { path, what }) => {
                match parts.iter().find(|part| part.path() == path) {
                    Some(damaged) => self.drop_segment(damaged, &SegmentError::Damaged { path, what }),
                    None => self.note_dropped(&SegmentError::Damaged { path, what }),
                }
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn segments(&self) -> Vec<Arc<Segment>> {
        self.shared.segments.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a segment in, in the place of those that it covers.
    fn put(&self, new: Arc<Segment>) {
        let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        segments.retain(|old| !new.covers().contains(&old.stretch.first));
        segments.push(new);
        segments.sort_by_key(|segment| segment.stretch.first);
    }

    /// The segment that covers `seq`, or the nearest one behind it, or in front of it with `down`.
    fn at_or_beyond(&self, seq: Seq, down: bool) -> Option<Arc<Segment>> {
        let segments = self.shared.segments.read().unwrap_or_else(PoisonError::into_inner);
        if down {
            let index = segments.partition_point(|segment| segment.stretch.first <= seq);
            return index.checked_sub(1).map(|index| Arc::clone(&segments[index]));
        }
        let index = segments.partition_point(|segment| segment.stretch.last < seq);
        segments.get(index).map(Arc::clone)
    }

    fn files(&self) -> MutexGuard<'_, ()> {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dropped(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreadable(&self) -> MutexGuard<'_, BTreeSet<Seq>> {
        self.shared.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_dropped(&self, error: &SegmentError) {
        let mut dropped = self.dropped();
        if dropped.len() == DROPPED_MAX {
            dropped.remove(0);
        }
        dropped.push(error.to_string());
    }

    /// Takes a segment out of use. The log is read in its place until another one is made. Of one that is out of use already
    /// nothing is told: it may have been overwritten for good reason while it was read.
    fn drop_segment(&self, damaged: &Segment, error: &SegmentError) {
        let mut segments = self.shared.segments.write().unwrap_or_else(PoisonError::into_inner);
        let before = segments.len();
        segments.retain(|segment| !std::ptr::eq(&raw const **segment, damaged));
        if segments.len() < before {
            self.note_dropped(error);
        }
    }

    /// Notes why they do not go on, or that they do.
    pub fn note_failure(&self, failure: Option<String>) {
        *self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// How far they are.
    pub fn status(&self) -> Status {
        let segments = self.segments();
        // What was dropped from the log needs no postings.
        let (kept, events) = (self.shared.kept.load(Ordering::Relaxed), self.shared.sizes.events);
        let mut through = Seq((kept - 1) / events * events);
        for segment in &segments {
            if segment.stretch.first != through.next() {
                break;
            }
            through = segment.stretch.last;
        }
        Status {
            through,
            events: segments.iter().map(|segment| segment.events()).sum(),
            segments: segments.len(),
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            dropped: self.dropped().clone(),
            failure: self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The segment if it is about this log as it is.
fn of_log(segment: Segment, reader: &Reader) -> Result<Segment, SegmentError> {
    let Stretch { log_id, last, root, .. } = segment.stretch;
    let is_of_log = log_id == reader.log_id() && reader.head_at(last.0).is_ok_and(|head| head.root == root);
    if is_of_log { Ok(segment) } else { Err(SegmentError::Foreign { path: segment.path().to_owned() }) }
}
