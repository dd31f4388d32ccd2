//! A projection built anew while the server goes on: folded on a thread of its own, then handed to the thread that keeps
//! the one in use, which puts it in its place between two groups of work.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use caxton_events::Seq;
use caxton_events::log::Reader;
use caxton_projections::driver::catch_up_to;
use caxton_projections::embedding::{Embedder, EmbeddingService, VectorStore};
use caxton_projections::graph::{Graph, SqliteOptions, is_out_of_room};
use caxton_projections::projection::Projection;
use caxton_projections::shred::shred;
use caxton_projections::swap::Place;
use caxton_projections::talk::TalkFold;
use caxton_projections::vector::{VectorOptions, Vectors};
use caxton_projections::view::{Part, Positions};
use caxton_tools::projection::{Name, NoRoom, needed_bytes};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Serialize;

use super::standstill::Standstill;
use super::start::EngineOptions;
use super::vector_fold::fold_some;
use crate::{failure, telemetry};

/// Records folded between two looks at whether the engine stops.
const STEP_RECORDS: u64 = 20_000;
/// The same for the graph, whose records take microseconds: each step begins with nothing read ahead.
const STEP_RECORDS_GRAPH: u64 = 60_000;
/// Those of a step of the vectors, which may end earlier with their texts: the model may have to go over each of them, while an
/// erasure or the end of the server waits.
const STEP_RECORDS_VECTORS: usize = 512;
/// Records behind the log at which a new one is handed over: its keeper folds the rest while others wait.
const NEAR_RECORDS: u64 = 1_000;
/// Why nothing more is built at the end.
pub(super) const STOPS: &str = "the server stops";
/// So often the new one runs after a log that grows; then its keeper folds what is left.
const ROUNDS_MAX: u32 = 16;

/// Another fold for the thread that keeps a projection.
pub(super) struct Offer<T> {
    pub(super) fold: T,
    pub(super) answer: Sender<Result<Seq, String>>,
}

/// How a rebuild goes, or went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rebuild {
    /// Tells rebuilds of one run apart.
    pub number: u64,
    /// Why it was begun.
    pub reason: String,
    /// Where it is.
    pub state: RebuildState,
    /// The last record it includes.
    pub seq: Seq,
    /// The end of the log as it last saw it.
    pub of: Seq,
    /// How long it took so far, or in all.
    pub seconds: f64,
    /// Why it failed; the projection in use still is.
    pub error: Option<String>,
}

/// Where a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RebuildState {
    /// It folds; the one in use answers.
    Running,
    /// The new one is in use.
    Done,
    /// It was given up; the one in use still is.
    Failed,
}

/// Why a rebuild was not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildRefusal {
    /// One is under way.
    #[error("{part} is being rebuilt already", part = part.name())]
    UnderWay {
        /// Which projection.
        part: Part,
    },
    /// There are no vectors without a model.
    #[error("there are no vectors: the server runs keyword-only")]
    NoModel,
    /// The engine stops.
    #[error("the server is stopping")]
    Stopping,
    /// The system gave no thread.
    #[error("could not start a thread: {0}")]
    Thread(String),
}

/// What a rebuild of the vectors needs.
#[derive(Clone)]
pub(super) struct VectorParts {
    pub(super) store: VectorStore,
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) options: VectorOptions,
}

impl VectorParts {
    /// Those of the vectors in use.
    pub(super) fn of(options: &EngineOptions, vectors: &Vectors, embedding: &Arc<EmbeddingService>) -> Self {
        let embedder = Arc::clone(embedding) as Arc<dyn Embedder>;
        Self { store: vectors.store(), embedder, options: options.vectors }
    }
}

/// The receiving ends, for the threads that keep projections.
pub(super) struct Offers {
    pub(super) graph: Receiver<Offer<Graph>>,
    pub(super) talk: Receiver<Offer<TalkFold>>,
    pub(super) vectors: Receiver<Offer<Vectors>>,
}

/// Starts rebuilds and knows how they go.
pub(super) struct Rebuilds {
    data_dir: PathBuf,
    log: Reader,
    sqlite: SqliteOptions,
    room: fn(&Path) -> io::Result<u64>,
    vectors: Option<VectorParts>,
    positions: Arc<Positions>,
    stopping: Arc<AtomicBool>,
    graph: Sender<Offer<Graph>>,
    talk: Sender<Offer<TalkFold>>,
    vector_fold: Sender<Offer<Vectors>>,
    known: Mutex<Known>,
    changed: Condvar,
    /// Keeps rebuilds and erasures apart.
    pub(super) standstill: Standstill,
    behind_graph: OnceLock<Behind>,
}

/// What is done behind a rebuild.
type Behind = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Known {
    begun: u64,
    /// By [`Part`].
    last: [Option<(Rebuild, Instant)>; 3],
    threads: Vec<JoinHandle<()>>,
}

impl Known {
    fn is_running(&self, part: Part) -> bool {
        let last = self.last[part as usize].as_ref();
        last.is_some_and(|(rebuild, _)| rebuild.state == RebuildState::Running)
    }
}

impl Rebuilds {
    pub(super) fn new(
        options: &EngineOptions,
        log: Reader,
        vectors: Option<VectorParts>,
        (positions, stopping): (&Arc<Positions>, &Arc<AtomicBool>),
    ) -> (Arc<Self>, Offers) {
        let ((graph, graphs), (talk, talks), (vector_fold, folds)) = (bounded(0), bounded(0), bounded(0));
        let EngineOptions { data_dir, sqlite, room, .. } = options;
        let (data_dir, sqlite, room) = (data_dir.clone(), sqlite.clone(), *room);
        let (known, changed) = (Mutex::default(), Condvar::new());
        let (positions, stopping) = (Arc::clone(positions), Arc::clone(stopping));
        let rebuilds = Self {
            data_dir,
            log,
            sqlite,
            room,
            vectors,
            positions,
            stopping,
            graph,
            talk,
            vector_fold,
            known,
            changed,
            standstill: Standstill::default(),
            behind_graph: OnceLock::new(),
        };
        (Arc::new(rebuilds), Offers { graph: graphs, talk: talks, vectors: folds })
    }

    /// How the last rebuild of a projection goes, or went.
    pub(super) fn last(&self, part: Part) -> Option<Rebuild> {
        let known = self.known();
        let (rebuild, started) = known.last[part as usize].as_ref()?;
        let mut rebuild = rebuild.clone();
        if rebuild.state == RebuildState::Running {
            rebuild.seconds = started.elapsed().as_secs_f64();
        }
        Some(rebuild)
    }

    /// Whether a rebuild of `part` is under way.
    pub(super) fn is_running(&self, part: Part) -> bool {
        self.known().is_running(part)
    }

    /// Tells what is to be done whenever another graph is in use, before its rebuild counts as done. Told once.
    pub(super) fn when_graph_is_rebuilt(&self, behind: impl Fn() + Send + Sync + 'static) {
        // Somebody else's would be the same.
        let _ = self.behind_graph.set(Box::new(behind));
    }

    /// Begins to rebuild a projection, or has it wait while something is erased.
    pub(super) fn begin(self: &Arc<Self>, part: Part, reason: String) -> Result<(), RebuildRefusal> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(RebuildRefusal::Stopping);
        }
        if part == Part::Vectors && self.vectors.is_none() {
            return Err(RebuildRefusal::NoModel);
        }
        let mut known = self.known();
        if known.is_running(part) {
            return Err(RebuildRefusal::UnderWay { part });
        }
        known.begun += 1;
        let rebuild = Rebuild {
            number: known.begun,
            reason,
            state: RebuildState::Running,
            seq: Seq::ZERO,
            of: self.log.head().seq,
            seconds: 0.0,
            error: None,
        };
        known.last[part as usize] = Some((rebuild, Instant::now()));
        let own = Arc::clone(self);
        let thread = thread::Builder::new().name(format!("rebuild-{}", part.name()));
        match thread.spawn(move || own.run(part)) {
            Ok(thread) => {
                known.threads.retain(|thread| !thread.is_finished());
                known.threads.push(thread);
                Ok(())
            }
            Err(error) => {
                known.last[part as usize] = None;
                Err(RebuildRefusal::Thread(error.to_string()))
            }
        }
    }

    /// Waits for the threads, which look at whether the engine stops.
    pub(super) fn join(&self) {
        self.standstill.end();
        let threads = std::mem::take(&mut self.known().threads);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that rebuilt a projection panicked; the one in use still is");
            }
        }
    }

    fn run(&self, part: Part) {
        let place = Place::new(&self.data_dir, part.name());
        let started = Instant::now();
        let built = self.build(part, &place);
        if part == Part::Graph
            && built.is_ok()
            && let Some(behind) = self.behind_graph.get()
        {
            behind();
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut known = self.known();
        if let Some((rebuild, _)) = &mut known.last[part as usize] {
            rebuild.seconds = seconds;
            match built {
                Ok(seq) => {
                    tracing::info!(projection = part.name(), %seq, seconds, "a projection was rebuilt");
                    telemetry::projection_rebuilt(part.name(), seq.0, started.elapsed());
                    (rebuild.state, rebuild.seq, rebuild.of) = (RebuildState::Done, seq, seq);
                }
                Err(error) => {
                    tracing::error!(projection = part.name(), %error, "a projection was not rebuilt");
                    if self.positions.get(part).seq == Seq::ZERO {
                        // There was none before either: whoever looks is told, and may begin it again.
                        self.positions.stop(part, format!("it could not be rebuilt: {error}"));
                    }
                    (rebuild.state, rebuild.error) = (RebuildState::Failed, Some(error));
                }
            }
        }
        drop(known);
        self.changed.notify_all();
    }

    /// Builds it and hands it over; anew where something was erased meanwhile.
    fn build(&self, part: Part, place: &Place) -> Result<Seq, String> {
        loop {
            let Some(at_work) = self.standstill.work() else { return Err(STOPS.to_owned()) };
            let built = match part {
                Part::Graph => self.graph(place),
                Part::Talk => self.talk(),
                Part::Vectors => self.vectors(place),
            };
            // An erasure waits for this thread until the guard goes, so that it is the same one that interrupted it.
            let again = built.is_err() && self.standstill.is_wanted();
            // Before it is told that it ended: the next one may begin at once. The next start removes what is left as well.
            let removed = if again { shred(&place.beside()) } else { place.give_up() };
            if let Err(error) = removed {
                tracing::warn!(%error, "could not remove what is left of a rebuild");
            }
            drop(at_work);
            if !again {
                return built;
            }
            tracing::info!(projection = part.name(), "a rebuild begins anew, because something is erased");
        }
    }

    fn graph(&self, place: &Place) -> Result<Seq, String> {
        let needed = self.needed(place)?;
        let build = || {
            let dir = place.begin().map_err(|error| Failed::of(&error))?;
            let mut graph = Graph::open(&dir, &self.sqlite).map_err(|error| Failed::of(&error))?;
            graph.begin_rebuild().map_err(|error| Failed::of(&error))?;
            let step = |graph: &mut Graph, head: Seq| self.step(graph, head, STEP_RECORDS_GRAPH);
            self.follow(Part::Graph, &mut graph, step)?;
            graph.finish_rebuild().map_err(|error| Failed::of(&error))?;
            self.follow(Part::Graph, &mut graph, step)?;
            Ok(graph)
        };
        let graph = build().map_err(|error| self.told(place, needed, error))?;
        let seq = hand_over(&self.graph, graph)?;
        // One that could not be used was not cleaned either when something was erased.
        let discarded = if self.log.has_gaps() { shred(&place.old()) } else { place.discard_old() };
        discarded.map_err(|error| failure::chain(&error))?;
        Ok(seq)
    }

    fn talk(&self) -> Result<Seq, String> {
        let mut fold = TalkFold::default();
        let step = |fold: &mut TalkFold, head: Seq| self.step(fold, head, STEP_RECORDS);
        self.follow(Part::Talk, &mut fold, step).map_err(|error| error.text)?;
        hand_over(&self.talk, fold)
    }

    fn vectors(&self, place: &Place) -> Result<Seq, String> {
        let VectorParts { store, embedder, options } =
            self.vectors.clone().ok_or_else(|| RebuildRefusal::NoModel.to_string())?;
        let needed = self.needed(place)?;
        let build = || {
            let dir = place.begin().map_err(|error| Failed::of(&error))?;
            let mut vectors =
                Vectors::open(&dir, options, store, embedder).map_err(|error| Failed::of(&error))?;
            let step = |vectors: &mut Vectors, head: Seq| self.step_of_vectors(vectors, head);
            self.follow(Part::Vectors, &mut vectors, step)?;
            vectors.finish_indexes();
            self.follow(Part::Vectors, &mut vectors, step)?;
            Ok(vectors)
        };
        let vectors = build().map_err(|error| self.told(place, needed, error))?;
        hand_over(&self.vector_fold, vectors)
    }

    /// Folds until the projection is near the end of the log. A `step` folds what comes next, up to the record it is given at most.
    fn follow<P: Projection>(
        &self,
        part: Part,
        projection: &mut P,
        step: impl Fn(&mut P, Seq) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        for _ in 0..ROUNDS_MAX {
            let head = self.log.head().seq;
            while projection.checkpoint() < head {
                if self.stopping.load(Ordering::Relaxed) {
                    return Err(STOPS.to_owned().into());
                }
                if self.standstill.is_wanted() {
                    return Err("something is erased".to_owned().into());
                }
                step(projection, head)?;
                if let Some((rebuild, _)) = &mut self.known().last[part as usize] {
                    (rebuild.seq, rebuild.of) = (projection.checkpoint(), head);
                }
            }
            if self.log.head().seq.0 - head.0 <= NEAR_RECORDS {
                break;
            }
        }
        Ok(())
    }

    /// Folds the next `records`, up to `head`.
    fn step(&self, projection: &mut dyn Projection, head: Seq, records: u64) -> Result<(), Failed> {
        let until = Seq(projection.checkpoint().0.saturating_add(records)).min(head);
        let folded = catch_up_to(&self.log, projection, until, &mut |_, _| ());
        folded.map(drop).map_err(|error| Failed::of(&error))
    }

    /// The same of the vectors, as many as the model is done with soon.
    fn step_of_vectors(&self, vectors: &mut Vectors, head: Seq) -> Result<(), Failed> {
        // Folds nothing; refuses a log that lost what comes next.
        self.step(vectors, head, 0)?;
        let until = Seq(vectors.checkpoint().0.saturating_add(STEP_RECORDS)).min(head);
        fold_some(vectors, &self.log, until, STEP_RECORDS_VECTORS).map(drop)
    }

    /// About how many bytes it takes; an error when there are not that many.
    fn needed(&self, place: &Place) -> Result<u64, String> {
        let name = if place.current().ends_with(Name::Graph.as_str()) { Name::Graph } else { Name::Vectors };
        let found = needed_bytes(&self.log, place.current(), name)
            .and_then(|needed| Ok((needed, (self.room)(&self.data_dir)?)));
        let (needed, free) = found.map_err(|error| failure::chain(&error))?;
        if free < needed {
            return Err(NoRoom { dir: self.data_dir.clone(), needed, free, limited: false }.to_string());
        }
        Ok(needed)
    }

    fn told(&self, place: &Place, needed: u64, error: Failed) -> String {
        if !error.full {
            return error.text;
        }
        // Removed first, so that what is said to be free is.
        let _ = place.give_up();
        let free = (self.room)(&self.data_dir).unwrap_or(0);
        NoRoom { dir: self.data_dir.clone(), needed, free, limited: free >= needed }.to_string()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every critical section leaves whole values.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until the rebuild of `part` is no longer running, at most for `timeout`.
    pub(super) fn wait(&self, part: Part, timeout: Duration) {
        drop(self.changed.wait_timeout_while(self.known(), timeout, |known| known.is_running(part)));
    }
}

/// Gives a fold to the thread that keeps the projection; where it is when it was taken.
fn hand_over<T>(to: &Sender<Offer<T>>, fold: T) -> Result<Seq, String> {
    let (answer, answered) = bounded(1);
    let gone = || STOPS.to_owned();
    to.send(Offer { fold, answer }).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

/// Why a fold failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) text: String,
    /// There was no room.
    full: bool,
}

impl From<String> for Failed {
    /// Anything else than a lack of room.
    fn from(text: String) -> Self {
        Self { text, full: false }
    }
}

impl Failed {
    pub(super) fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { text: failure::chain(error), full: is_out_of_room(error) }
    }
}
