//! Dropping the oldest events of a stopped data directory: what they led to is saved first, as the base that projections
//! are rebuilt from once the events are gone.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_events::log::{
    self, AppendError, Fork, Hash, Log, LogClosed, LogOptions, OpenError, ReadError, Reader, SEALED_DIR,
    StoreError, TrimError, TrimOptions, Trimmed, check_unshared, drop_before, forks_of, trim_point,
};
use caxton_events::{AgentId, Clock as _, Seq, SystemEvent, Timestamp};
use caxton_projections::projection::Projection as _;
use caxton_projections::talk::{Talk, TalkStore};

use super::base::{self, BaseError};
use super::erase;
use super::fork::Cut;
use super::start::{EngineOptions, StartError, StartStep, system_batch};
use super::start_graph::{StartedGraph, open_graph};
use super::start_talk::open_talk;
use super::{Recovery, SystemClock};

/// What is to be dropped.
#[derive(Debug, Clone)]
pub struct DropOptions {
    /// Everything before this event, in whole blocks.
    pub before: Cut,
    /// Who drops it, as the log records.
    pub by: String,
    /// Whether forks may keep what is dropped here.
    pub forks_keep: bool,
}

/// What [`drop_events`] would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The first event that it would keep.
    pub first: Seq,
    /// How many there are before it.
    pub events: u64,
    /// Files that would keep their space, the oldest first. Unless forks may keep them, nothing would be dropped.
    pub shared: Vec<SharedFile>,
}

/// A sealed file that would lose events here, and has a name in another data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFile {
    /// The file.
    pub file: PathBuf,
    /// The forks that are known to share it; none where it is a directory that this one does not know of.
    pub forks: Vec<Fork>,
}

/// Why nothing was dropped. Nothing was lost.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// No event was recorded since then, so nothing would be kept.
    #[error("no event was recorded at {at} or later; choose an earlier time")]
    After {
        /// What was asked for.
        at: Timestamp,
    },
    /// A message would go that its receiver is not done with.
    #[error(
        "{agent} is not done with the message at {seq}, which would be dropped; acknowledge it, or drop what lies before {seq}"
    )]
    Waiting {
        /// Whose inbox.
        agent: AgentId,
        /// The message.
        seq: Seq,
    },
    /// Something that was to be erased may still be there: what is kept of the events would hold it.
    #[error(
        "the erasure ordered at {order} is not complete; start the server once, which completes it, then drop"
    )]
    Erasing {
        /// The order.
        order: Seq,
    },
    /// The log did not open.
    #[error("could not open the event log")]
    Open(#[from] OpenError),
    /// The log could not be read.
    #[error("could not read the event log")]
    Read(#[from] ReadError),
    /// What the events led to could not be brought up to date.
    #[error("could not bring the projections up to the log")]
    Start(#[source] Box<StartError>),
    /// The graph is to be built while a server runs.
    #[error("the graph must be built anew first; start the server and wait until it is ready")]
    Awaited,
    /// What the events led to could not be stored.
    #[error("could not store what the events led to")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The base could not be written.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// That events are dropped could not be recorded.
    #[error("could not record that events are dropped")]
    Append(#[from] AppendError),
    /// The events could not be dropped.
    #[error(transparent)]
    Trim(#[from] TrimError),
}

impl From<LogClosed> for DropError {
    fn from(error: LogClosed) -> Self {
        Self::Append(error.into())
    }
}

impl From<StoreError> for DropError {
    fn from(error: StoreError) -> Self {
        Self::Read(error.into())
    }
}

impl From<StartError> for DropError {
    fn from(error: StartError) -> Self {
        Self::Start(Box::new(error))
    }
}

/// Drops the oldest events of the stopped directory; `None` if there is nothing to drop.
///
/// Graph and conversations are saved before as they are now, and an event records who drops what. A crash leaves the log
/// with or without the events, and in both cases with everything that is needed.
///
/// # Errors
///
/// [`DropError`].
pub fn drop_events(
    options: &EngineOptions,
    what: &DropOptions,
    progress: &mut dyn FnMut(StartStep),
) -> Result<Option<Trimmed>, DropError> {
    let dir = options.data_dir.as_path();
    if !dir.join(log::open::LOG_FILE).exists() {
        // Opening for writing would make one.
        drop(Log::open_read_only(dir)?);
    }
    // Blocks must stay what they are between the choice of the first one kept and the deed.
    let log_options = LogOptions { merge_blocks: false, ..LogOptions::new([0; 16]) };
    let log = Log::open(dir, log_options, Arc::new(SystemClock))?;
    let reader = log.reader();
    let before = resolve(what.before, &reader)?;
    let Some(first) = trim_point(&reader, before)? else {
        return Ok(None);
    };
    check_erased(&reader)?;
    if !what.forks_keep {
        check_unshared(dir, &reader, first)?;
    }
    let head = reader.head_at(first.previous().0).map_err(|error| match error {
        log::ProveError::Read(source) => DropError::Read(source),
        log::ProveError::Beyond { .. } | log::ProveError::Dropped { .. } | log::ProveError::Erased { .. } => {
            DropError::Trim(TrimError::Beyond { before, head: reader.head().seq })
        }
    })?;
    let saved = save_base(options, &reader, first, progress)?;
    let event = SystemEvent::LogTrimmed {
        through: head.seq,
        root: Hash(head.root.0).to_string(),
        by: what.by.clone(),
    };
    for appended in log.append(vec![system_batch(event)])? {
        appended?;
    }
    drop(reader);
    log.close()?;
    let options =
        TrimOptions { before, at: SystemClock.now(), by: what.by.clone(), forks_keep: what.forks_keep };
    let trimmed = drop_before(dir, &options)?;
    base::remove_others(dir, saved);
    Ok(trimmed)
}

/// What [`drop_events`] would do; `None` if there is nothing to drop. Whether somebody is still to read what would go is not
/// looked at: for that, conversations would have to be brought up to the log.
///
/// # Errors
///
/// [`DropError`].
pub fn would_drop(dir: &Path, before: Cut) -> Result<Option<Trial>, DropError> {
    let log = Log::open_read_only(dir)?;
    let Some(first) = trim_point(&log, resolve(before, &log)?)? else {
        return Ok(None);
    };
    check_erased(&log)?;
    let events = first.0 - log.first()?.0;
    Ok(Some(Trial { first, events, shared: shared_files(dir, &log, first)? }))
}

/// Every file of which [`check_unshared`] would name the first.
fn shared_files(dir: &Path, log: &Reader, first: Seq) -> Result<Vec<SharedFile>, DropError> {
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| TrimError::Io { path, source }
    };
    let forks = forks_of(dir).map_err(io_error(dir))?;
    let (mut begin, mut shared) = (log.first()?, Vec::new());
    for sealed in log.origin()?.sealed {
        if begin >= first {
            break;
        }
        begin = sealed.through.next();
        let file = dir.join(SEALED_DIR).join(&sealed.file);
        let ours = fs::metadata(&file).map_err(io_error(&file))?;
        if ours.nlink() == 1 {
            continue;
        }
        let shares = |fork: &&Fork| {
            let theirs = fs::metadata(fork.dir.join(SEALED_DIR).join(&sealed.file));
            theirs.is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()))
        };
        let forks = forks.iter().filter(shares).cloned().collect();
        shared.push(SharedFile { file, forks });
    }
    Ok(shared)
}

/// The first event to keep.
fn resolve(before: Cut, log: &Reader) -> Result<Seq, DropError> {
    match before {
        Cut::Head => Ok(log.head().seq),
        Cut::Seq(seq) => Ok(seq),
        Cut::Time(at) => {
            let earlier = Timestamp::from_unix_micros(at.unix_micros().saturating_sub(1));
            let first = log.last_by(earlier)?.next().max(log.first()?);
            if first > log.head().seq { Err(DropError::After { at }) } else { Ok(first) }
        }
    }
}

/// Brings graph and conversations up to the log and copies their files; the last event they include.
fn save_base(
    options: &EngineOptions,
    log: &Reader,
    first: Seq,
    progress: &mut dyn FnMut(StartStep),
) -> Result<Seq, DropError> {
    let mut recovery = Recovery::default();
    base::restore(options, log).map_err(StartError::Base)?;
    let StartedGraph::Ready(graph) = open_graph(options, log, &mut recovery, progress)? else {
        return Err(DropError::Awaited);
    };
    let (talk, store) = open_talk(options, log, &mut recovery, progress)?;
    check_waiting(&talk, first)?;
    let saved = graph.checkpoint().min(talk.checkpoint());
    close(talk, store).map_err(|error| DropError::Store(Box::new(error)))?;
    // The last connection that closes moves its journal into the file.
    drop(graph);
    base::save(&options.data_dir, log, saved)?;
    Ok(saved)
}

fn close(talk: Talk, mut store: TalkStore) -> Result<(), impl std::error::Error + Send + Sync + 'static> {
    let stored = store.flush();
    drop(talk);
    stored.and_then(|()| store.close())
}

/// Refuses while something is to be erased: an order that goes with its events is never completed, and one that stays finds copies
/// that nobody cleans.
fn check_erased(log: &Reader) -> Result<(), DropError> {
    erase::pending(log)?.first().map_or(Ok(()), |order| Err(DropError::Erasing { order: order.seq }))
}

/// Refuses to drop what somebody is still to read.
fn check_waiting(talk: &Talk, first: Seq) -> Result<(), DropError> {
    let state = talk.reader();
    let state = state.read();
    for inbox in state.conversations.inboxes() {
        if let Some(seq) = inbox.open_after(Seq::ZERO).next().filter(|seq| *seq < first) {
            return Err(DropError::Waiting { agent: inbox.agent.clone(), seq });
        }
    }
    Ok(())
}
