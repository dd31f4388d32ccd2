//! Starting the memory's graph: open it, fold the tail, or say why it must be built anew.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use caxton_events::log::{Log, Reader};
use caxton_events::{MemoryId, Seq};
use caxton_projections::driver::{CatchUpError, catch_up};
use caxton_projections::graph::{self, Graph, GraphReader};
use caxton_projections::projection::Projection as _;
use caxton_projections::swap::Place;
use caxton_projections::talk::TalkReader;
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::{Receiver, Sender};

use super::Recovery;
use super::erase::MemoryWork;
use super::memory_writer::{Asked, Limits, MemoryWriter};
use super::rebuild::Offer;
use super::start::{EngineOptions, StartError, StartStep};
use super::steps::Steps;
use super::told;
use crate::commands::Ids;
use crate::failure;

/// Records that a missing graph is folded from before the server answers; more are folded beside it.
const FOLDED_FIRST_MAX: u64 = 20_000;

/// The graph at the start.
pub(super) enum StartedGraph {
    /// It is up to the log.
    Ready(Box<Graph>),
    /// It must be built anew, and until it is, its queries are told why.
    Awaited {
        /// Where queries go.
        reader: GraphReader,
        /// Why it must be built.
        reason: String,
    },
}

impl StartedGraph {
    /// For queries, now and later.
    pub(super) fn reader(&self) -> GraphReader {
        match self {
            Self::Ready(graph) => graph.reader(),
            Self::Awaited { reader, .. } => reader.clone(),
        }
    }

    /// Why it is not there, if it is not.
    pub(super) fn awaited(&self) -> Option<&str> {
        match self {
            Self::Ready(_) => None,
            Self::Awaited { reason, .. } => Some(reason),
        }
    }

    /// Folds what was recorded since it was opened, and says where it is.
    pub(super) fn catch_up(&mut self, log: &Reader, positions: &Positions) -> Result<(), StartError> {
        if let Self::Ready(graph) = self {
            catch_up(log, graph.as_mut(), &mut |_, _| {}).map_err(StartError::CatchUp)?;
            positions.advance(Part::Graph, graph.checkpoint());
        }
        Ok(())
    }
}

/// What the memory writer hears and whom it tells.
pub(super) struct Ends {
    pub(super) commands: Receiver<Asked>,
    pub(super) erasures: Receiver<MemoryWork>,
    pub(super) offers: Receiver<Offer<Graph>>,
    pub(super) nudge: Sender<()>,
    pub(super) talk: TalkReader,
}

/// Starts the thread that keeps the graph.
pub(super) fn start_memory(
    options: &EngineOptions,
    log: Arc<Log>,
    graph: StartedGraph,
    (positions, damaged): (Arc<Positions>, Arc<AtomicBool>),
    Ends { commands, erasures, offers, nudge, talk }: Ends,
) -> Result<JoinHandle<Arc<Log>>, StartError> {
    let reader = graph.reader();
    let (graph, awaited) = match graph {
        StartedGraph::Ready(graph) => (Some(*graph), None),
        StartedGraph::Awaited { reason, .. } => (None, Some(reason)),
    };
    let next = match &graph {
        Some(_) => reader.next_id().map_err(StartError::GraphRead)?,
        None => MemoryId::default(),
    };
    let shown = Arc::clone(&positions);
    let writer = MemoryWriter {
        ids: Ids::starting_at(next),
        log,
        graph,
        awaited,
        reader,
        place: Place::new(&options.data_dir, Part::Graph.name()),
        sqlite: options.sqlite.clone(),
        offers,
        positions,
        commands,
        erasures,
        limits: Limits {
            group_writes_max: options.group_writes_max,
            analyze_every: options.sqlite.analyze_frequency,
        },
        steps: Steps::new(options.steps),
        deferred: Vec::new(),
        undo_next: None,
        talk,
        nudge,
        damaged,
    };
    let thread = told::spawn("memory-writer", (Part::Graph, &shown), || writer.run());
    thread.map_err(StartError::Thread)
}

/// Leaves word for the next start that the graph must be rebuilt.
pub(super) fn mark_damaged(data_dir: &Path) -> io::Result<()> {
    fs::File::create(data_dir.join(graph::DAMAGED_MARK))?.sync_all()
}

/// Takes the word back: there is another graph.
pub(super) fn unmark_damaged(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(graph::DAMAGED_MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens the graph and brings it up to the log. One that cannot be used is set aside and built anew, here or, with
/// [`EngineOptions::rebuild_beside`], later.
pub(super) fn open_graph(
    options: &EngineOptions,
    log: &Reader,
    recovery: &mut Recovery,
    progress: &mut dyn FnMut(StartStep),
) -> Result<StartedGraph, StartError> {
    let dir = options.data_dir.join(Part::Graph.name());
    let reason = match usable(options, log, &dir)? {
        Ok(graph) => match fold_graph(graph, log, recovery, progress) {
            // What SQLite refuses now it refuses at the next start as well.
            Err(StartError::CatchUp(error @ CatchUpError::Apply { .. })) => failure::chain(&error),
            folded => return folded.map(|graph| StartedGraph::Ready(Box::new(graph))),
        },
        Err(reason) => reason,
    };
    if options.rebuild_beside {
        tracing::warn!(%reason, "the graph is rebuilt from the log while the server answers everything else");
        recovery.graph_rebuilt = Some(reason.clone());
        let reader = GraphReader::awaiting(&dir, &options.sqlite, &reason);
        return Ok(StartedGraph::Awaited { reader, reason });
    }
    let graph = set_aside(&dir, options, reason, recovery)?;
    fold_graph(graph, log, recovery, progress).map(|graph| StartedGraph::Ready(Box::new(graph)))
}

/// The graph, or why it must be built anew.
fn usable(options: &EngineOptions, log: &Reader, dir: &Path) -> Result<Result<Graph, String>, StartError> {
    if options.data_dir.join(graph::DAMAGED_MARK).exists() {
        return Ok(Err("it was found damaged in the last run".to_owned()));
    }
    let head = log.head().seq;
    if options.rebuild_beside && !dir.exists() && head.0 > FOLDED_FIRST_MAX {
        return Ok(Err("there is none".to_owned()));
    }
    Ok(match Graph::open(dir, &options.sqlite) {
        // Folded from a log that is not this one, or that lost its end with weak durability.
        Ok(graph) if graph.checkpoint() > head => {
            Err(format!("it was at {}, the log ends at {head}", graph.checkpoint()))
        }
        Ok(graph)
            if options.rebuild_beside && graph.checkpoint() == Seq::ZERO && head.0 > FOLDED_FIRST_MAX =>
        {
            Err("it is empty".to_owned())
        }
        Ok(graph) => Ok(graph),
        Err(error) if error.is_rebuildable() => Err(failure::chain(&error)),
        Err(error) => return Err(StartError::Graph(error)),
    })
}

/// Brings the graph up to the log.
fn fold_graph(
    mut graph: Graph,
    log: &Reader,
    recovery: &mut Recovery,
    progress: &mut dyn FnMut(StartStep),
) -> Result<Graph, StartError> {
    let behind = log.head().seq.0 - graph.checkpoint().0;
    let mut folding = |at, of| progress(StartStep::Folding { projection: Part::Graph.name(), at, of });
    // From the first record on, the bulk mode is worth its switches.
    let bulk = graph.checkpoint() == Seq::ZERO && behind > 0;
    if bulk {
        graph.begin_rebuild().map_err(StartError::Rebuild)?;
    }
    catch_up(log, &mut graph, &mut folding).map_err(StartError::CatchUp)?;
    if bulk {
        graph.finish_rebuild().map_err(StartError::Rebuild)?;
    }
    recovery.replayed = behind;
    Ok(graph)
}

/// Sets the unusable graph aside and starts an empty one, to be filled from the log.
fn set_aside(
    dir: &Path,
    options: &EngineOptions,
    reason: String,
    recovery: &mut Recovery,
) -> Result<Graph, StartError> {
    tracing::warn!(%reason, "the graph is rebuilt from the log");
    recovery.graph_rebuilt = Some(reason);
    let aside = dir.with_extension("damaged");
    let failed = |source| StartError::Directory { path: aside.clone(), source };
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(failed)?;
    }
    // Somebody may have removed the folder by hand: then there is nothing to set aside.
    if dir.exists() {
        fs::rename(dir, &aside).map_err(failed)?;
    }
    let graph = Graph::open(dir, &options.sqlite).map_err(StartError::Graph)?;
    unmark_damaged(&options.data_dir).map_err(failed)?;
    Ok(graph)
}
