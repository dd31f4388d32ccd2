//! What the events led to that were dropped from a log: the files of graph and conversations as of some event, and the
//! events about agents, because the agents' directory goes by them.
//!
//! `base/<last event included>/` holds `graph/`, `talk/` and `agents.jsonl`, a line for each event:
//! `{"seq", "recorded_at", "kind", "version", "bytes"}`, kind and version as numbers, the bytes of envelope and payload in hex.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use caxton_events::log::chain::Tag;
use caxton_events::log::{Filter, Found, ReadError, Reader, StoredEvent};
use caxton_events::{Draft, Family, Record, Seq, Timestamp, codec, upcast};
use caxton_projections::base::{BASE_DIR, base_folder, bases, newest_base};
use caxton_projections::graph::{DAMAGED_MARK, Graph};
use caxton_projections::projection::Projection as _;
use caxton_projections::shred::shred;
use caxton_projections::talk::TalkStore;
use caxton_projections::view::Part;
use serde::{Deserialize, Serialize};

use super::start::EngineOptions;

/// Folders of projections that a base has.
const FOLDERS: [&str; 2] = ["graph", "talk"];
const AGENTS_FILE: &str = "agents.jsonl";
/// Extension of a base while it is made.
const BESIDE: &str = "new";

/// Why a base was not written.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// A file could not be read or written.
    #[error("could not write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log could not be read.
    #[error("could not read the event log")]
    Read(#[from] ReadError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BaseError {
    move |source| BaseError::Io { path: path.to_owned(), source }
}

/// An event as the base holds it.
#[derive(Serialize, Deserialize)]
struct Line {
    seq: Seq,
    recorded_at: Timestamp,
    kind: u8,
    version: u8,
    bytes: String,
}

/// Writes the base of everything up to `saved`, which the files of the projections include; they must be closed. It is on the
/// medium when this returns, with every name that leads to it: what it replaces goes next.
pub(super) fn save(data_dir: &Path, log: &Reader, saved: Seq) -> Result<(), BaseError> {
    let base = data_dir.join(BASE_DIR);
    let (to, beside) = (base.join(saved.0.to_string()), base.join(format!("{}.{BESIDE}", saved.0)));
    let earlier = dropped_agent_events(data_dir, log).map_err(io_error(&base))?;
    remove_dir(&beside).map_err(io_error(&beside))?;
    for folder in FOLDERS {
        copy_files(&data_dir.join(folder), &beside.join(folder)).map_err(io_error(&beside))?;
    }
    save_agents(&beside.join(AGENTS_FILE), log, earlier)?;
    sync_dir(&beside)?;
    remove_dir(&to).map_err(io_error(&to))?;
    fs::rename(&beside, &to).map_err(io_error(&to))?;
    sync_dir(&base)?;
    sync_dir(data_dir)
}

/// Makes the names in a folder last.
fn sync_dir(dir: &Path) -> Result<(), BaseError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir))
}

/// Writes every event about agents, those of the base before and those of the log.
fn save_agents(path: &Path, log: &Reader, earlier: Vec<Record>) -> Result<(), BaseError> {
    let filter = Filter { kinds: Some(Family::kinds(&[Family::Agent])), ..Filter::default() };
    let kept = log.scan(Seq::FIRST, &filter);
    let file = File::create(path).map_err(io_error(path))?;
    let mut out = BufWriter::new(file);
    for record in earlier.into_iter().map(Ok).chain(kept) {
        let mut line = serde_json::to_vec(&line(record?)).map_err(|error| io_error(path)(error.into()))?;
        line.push(b'\n');
        out.write_all(&line).map_err(io_error(path))?;
    }
    out.flush().and_then(|()| out.get_ref().sync_all()).map_err(io_error(path))
}

fn line(record: Record) -> Line {
    let Record { seq, recorded_at, stream, actor, correlation, causation, event } = record;
    let kind = event.kind();
    let mut bytes = Vec::new();
    codec::encode(&Draft { stream, actor, correlation, causation, event }, &mut bytes);
    let bytes = bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Line { seq, recorded_at, kind: kind.tag(), version: upcast::version(kind), bytes }
}

fn record(line: &Line) -> Option<Record> {
    let digits = line.bytes.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes = digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>()?;
    let tag = Tag { kind: line.kind, version: line.version, flags: 0 };
    let event = StoredEvent { seq: line.seq, recorded_at: line.recorded_at, tag, bytes };
    match event.found().ok()? {
        Found::Record(record) => Some(record),
        // Facts about agents are not encrypted.
        Found::Sealed(_) => None,
    }
}

/// The events about agents that the log does not have any more, in order; none if nothing was dropped.
pub(super) fn dropped_agent_events(data_dir: &Path, log: &Reader) -> io::Result<Vec<Record>> {
    let Some((first, base)) = base_of(data_dir, log)? else { return Ok(Vec::new()) };
    let path = base.join(AGENTS_FILE);
    let mut records = Vec::new();
    for text in BufReader::new(File::open(&path)?).lines() {
        let line: Line = serde_json::from_str(&text?)?;
        if line.seq < first {
            let unfit = || {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is damaged at {}", path.display(), line.seq),
                )
            };
            records.push(record(&line).ok_or_else(unfit)?);
        }
    }
    Ok(records)
}

/// The first event that the log still has, and the folder of the newest base that includes everything before it; `None` if nothing
/// was dropped, or there is no such base.
fn base_of(data_dir: &Path, log: &Reader) -> io::Result<Option<(Seq, PathBuf)>> {
    let first = log.first().map_err(io::Error::other)?;
    if first == Seq::FIRST {
        return Ok(None);
    }
    Ok(newest_base(data_dir, first, Seq(u64::MAX))?.map(|base| (first, base)))
}

/// Takes the newest base at or before `cut` along to a fork of a log whose first event is `first`; `None` if there is no such
/// base, with the last event of the oldest that there is.
pub(super) fn carry(from: &Path, to: &Path, (first, cut): (Seq, Seq)) -> io::Result<Result<(), Option<Seq>>> {
    let Some(base) = newest_base(from, first, cut)? else {
        return Ok(Err(bases(from)?.into_iter().filter(|saved| saved.next() >= first).min()));
    };
    let above = to.join(BASE_DIR);
    let to = above.join(base.file_name().unwrap_or_default());
    let from = base;
    for folder in FOLDERS {
        copy_files(&from.join(folder), &to.join(folder))?;
    }
    fs::copy(from.join(AGENTS_FILE), to.join(AGENTS_FILE))?;
    for copied in [&to.join(AGENTS_FILE), &to, &above] {
        File::open(copied)?.sync_all()?;
    }
    Ok(Ok(()))
}

/// Why a projection that must start from a base does not.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no base that includes what was dropped.
    #[error(
        "the {name} projection would have to be folded from events before {first}, which were dropped, and there is no base; \
         restore {name}/ or base/ from a backup"
    )]
    Missing {
        /// The projection.
        name: &'static str,
        /// The first event of the log.
        first: Seq,
    },
    /// The files could not be put in place.
    #[error("could not put the base in place of {}", path.display())]
    Io {
        /// The folder of the projection.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// For a log that has lost events: puts the base in place of a graph, and of conversations, that cannot be used or are not there, so
/// that they are folded on from it. What is there and can be used stays.
pub(super) fn restore(options: &EngineOptions, log: &Reader) -> Result<(), RestoreError> {
    let first = log.first().unwrap_or(Seq::FIRST);
    if first == Seq::FIRST {
        return Ok(());
    }
    let marked = options.data_dir.join(DAMAGED_MARK);
    let graph = options.data_dir.join(Part::Graph.name());
    let fits = |checkpoint: Seq| first <= checkpoint.next() && checkpoint <= log.head().seq;
    // Looked at only where there is one: opening makes what is missing.
    let usable = graph.exists()
        && !marked.exists()
        && Graph::open(&graph, &options.sqlite).is_ok_and(|graph| fits(graph.checkpoint()));
    if !usable {
        put(&options.data_dir, log, (Part::Graph, "graph"), first)?;
        let _ = fs::remove_file(&marked);
    }
    let talk = options.data_dir.join("talk");
    if !(talk.exists() && TalkStore::open(&talk).is_ok_and(|(talk, _)| fits(talk.checkpoint()))) {
        put(&options.data_dir, log, (Part::Talk, "talk"), first)?;
    }
    Ok(())
}

/// Puts the base's files of a projection where it expects them; what was there is set aside.
fn put(
    data_dir: &Path,
    log: &Reader,
    (part, folder): (Part, &'static str),
    first: Seq,
) -> Result<(), RestoreError> {
    let to = data_dir.join(folder);
    let failed = |source| RestoreError::Io { path: to.clone(), source };
    let found = base_of(data_dir, log).map_err(failed)?;
    let (_, base) = found.ok_or(RestoreError::Missing { name: part.name(), first })?;
    let (beside, aside) =
        (data_dir.join(format!("{folder}.new")), data_dir.join(format!("{folder}.damaged")));
    remove_dir(&beside).map_err(failed)?;
    copy_files(&base.join(folder), &beside).map_err(failed)?;
    remove_dir(&aside).map_err(failed)?;
    if to.exists() {
        fs::rename(&to, &aside).map_err(failed)?;
    }
    fs::rename(&beside, &to).map_err(failed)?;
    let base = base.display();
    tracing::warn!(%base, projection = part.name(), "started from the base: the events before it were dropped");
    Ok(())
}

/// Whether a projection with this checkpoint lacks events that the log does not have any more.
pub(super) fn lacks_events(log: &Reader, checkpoint: Seq) -> bool {
    log.first().is_ok_and(|first| checkpoint.next() < first)
}

/// Overwrites and removes what drops left that were cut short: bases of a log that has all its events, which nothing starts from,
/// and half made ones. No erasure looks into them.
pub(super) fn remove_unused(data_dir: &Path, log: &Reader) -> io::Result<()> {
    let base = data_dir.join(BASE_DIR);
    if log.first().map_err(io::Error::other)? == Seq::FIRST {
        return shred(&base);
    }
    let entries = match fs::read_dir(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == BESIDE) {
            shred(&path)?;
        }
    }
    Ok(())
}

/// Removes earlier bases; one that stays costs space and nothing else.
pub(super) fn remove_others(data_dir: &Path, kept: Seq) {
    for other in bases(data_dir).unwrap_or_default().into_iter().filter(|other| *other != kept) {
        let _ = fs::remove_dir_all(base_folder(data_dir, other));
    }
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Copies the files of a folder, but for what SQLite makes anew, onto the medium.
fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !name.ends_with("-shm") {
            let copy = to.join(name);
            fs::copy(&path, &copy)?;
            File::open(&copy)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}
