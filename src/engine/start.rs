//! Starting: open the log, bring every projection up to it, then accept commands.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use caxton_events::log::{
    self, AppendError, Batch, Durability, Encrypt, Filter, Log, LogClosed, LogOptions, OpenError, ReadError,
    Reader, Sealing, Signer,
};
use caxton_events::{Draft, Event, Kind, Seq, SystemEvent};
use caxton_projections::base::BASE_DIR;
use caxton_projections::driver::CatchUpError;
use caxton_projections::embedding::store::Opened;
use caxton_projections::embedding::{
    Embedder, EmbeddingService, ModelIdentity, Precision, StoreError, VectorStore,
};
use caxton_projections::graph::{self, GraphError, GraphReader, SqliteOptions};
use caxton_projections::projection::{ApplyError, Projection};
use caxton_projections::shred::shred;
use caxton_projections::swap::Place;
use caxton_projections::talk::OpenTalkError;
use caxton_projections::vector::{OpenVectorsError, VectorOptions, Vectors};
use caxton_projections::view::{Part, Positions, Semantic, View};
use crossbeam_channel::{Receiver, Sender, bounded};

use super::advice::{Said, Watched};
use super::audit_fold;
use super::base::{self, RestoreError, lacks_events};
use super::clock::stopwatch;
use super::copies;
use super::erase::{self, EraseError, Erasing, Keepers};
use super::fork::{inherit_vectors, inherited_mark};
use super::inboxes::{Leases, Wakers};
use super::lost_end::{self, LostEnd};
use super::rebuild::{Offer, Rebuilds, VectorParts};
use super::refold::{RefoldError, refold};
use super::searches::Searches;
use super::signing::{self, SigningKeyError};
use super::start_graph::{Ends, StartedGraph, open_graph, start_memory};
use super::start_talk::{open_talk, start_talk};
use super::steps::StepLimits;
use super::told;
use super::vector_fold::{Retry, Saving, VectorFold, fold_beside};
use super::{Engine, Inner, Recovery, SystemClock, Threads};
use crate::commands::talk::Settings;
use crate::failure;

/// Version of the data directory's layout. A directory of a newer one is refused.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";

/// How an engine is started.
pub struct EngineOptions {
    /// Where log, projections and vectors live. Made when missing.
    pub data_dir: PathBuf,
    /// When an acknowledged write is on disk.
    pub durability: Durability,
    /// Page cache of the log, in bytes.
    pub log_cache_bytes: usize,
    /// Event bodies over so many bytes are compressed; `None`: never.
    pub compress_above: Option<usize>,
    /// Which payloads are encrypted under keys of their own, so that they can be erased.
    pub encrypt: Encrypt,
    /// The SQLite file.
    pub sqlite: SqliteOptions,
    /// Whether a graph that cannot be used is built anew while everything else is answered, instead of before the start
    /// is done. Until it is there, reads of the memory and writes to it are refused with
    /// [`graph::ReadError::Rebuilding`] and [`SubmitError::Rebuilding`](super::SubmitError::Rebuilding). Default: false.
    pub rebuild_beside: bool,
    /// Says how many bytes are free where a projection is built anew. Default: as the system says.
    pub room: fn(&Path) -> io::Result<u64>,
    /// The vectors.
    pub vectors: VectorOptions,
    /// The model; `None`: keyword-only.
    pub embedding: Option<Arc<EmbeddingService>>,
    /// Commands that may wait for the memory writer; more are refused as overload.
    pub commands_max: usize,
    /// Writes decided and committed together at the most.
    pub group_writes_max: usize,
    /// What is folded into the graph in one transaction.
    pub steps: StepLimits,
    /// Records folded into the vectors in one step, which ends earlier with 1 MiB of their contents. At least 1.
    pub vector_records_max: usize,
    /// How long a write with `wait=indexed` waits for the vectors.
    pub index_timeout: Duration,
    /// The least time between two saves of the vectors, so that a crash replays little. It is 30 times as long as the last one took
    /// where that is more, and an hour where nothing came that they fold.
    pub save_vectors_every: Duration,
    /// Limits of messages and conversations.
    pub talk: Settings,
    /// Requests that may wait for the message router; more are refused as overload.
    pub requests_max: usize,
    /// Limits that are watched; passing one changes nothing and is told.
    pub watched: Watched,
    /// Answers to searches that are kept at most, in bytes; 0: none is.
    pub search_cache_bytes: usize,
}

impl EngineOptions {
    /// The defaults for a data directory, without a model.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            durability: Durability::Always,
            log_cache_bytes: 32 << 20,
            compress_above: Some(4 << 10),
            encrypt: Encrypt::None,
            sqlite: SqliteOptions::default(),
            rebuild_beside: false,
            room: caxton_tools::projection::system_room,
            vectors: VectorOptions::default(),
            embedding: None,
            commands_max: 5_000,
            group_writes_max: 4_096,
            steps: StepLimits::default(),
            vector_records_max: 512,
            index_timeout: Duration::from_secs(30),
            save_vectors_every: Duration::from_mins(1),
            talk: Settings::default(),
            requests_max: 10_000,
            watched: Watched::default(),
            search_cache_bytes: 4 << 20,
        }
    }
}

/// What the engine is doing while it starts, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartStep {
    /// A projection folds records.
    Folding {
        /// Which one.
        projection: &'static str,
        /// The last record folded.
        at: Seq,
        /// The last record of the log.
        of: Seq,
    },
    /// The vectors are loaded.
    LoadingVectors,
}

/// Why the engine did not start. Nothing was lost.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("could not use {}", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The data directory was written by a newer Caxton, or is not one.
    #[error("{} has data format {found:?}, this Caxton reads {FORMAT}; use a newer Caxton or another data directory", path.display())]
    Format {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The log did not open.
    #[error("could not open the event log")]
    Log(#[source] OpenError),
    /// The key that signs the log's heads cannot be used.
    #[error("could not open the key that signs the log's heads")]
    SigningKey(#[source] SigningKeyError),
    /// The log could not be read.
    #[error("could not read the event log")]
    Read(#[source] ReadError),
    /// The first event of this run could not be recorded.
    #[error("could not record the start")]
    Append(#[source] AppendError),
    /// The log lacks events that a projection has folded.
    #[error(
        "{0}. Restore a backup into an empty directory (caxton restore), or save what can be read (caxton log salvage). To go \
         on without them, build what was folded anew: caxton projection rebuild"
    )]
    LostEnd(LostEnd),
    /// The graph did not open.
    #[error("could not open the graph")]
    Graph(#[source] GraphError),
    /// The graph could not be asked.
    #[error("could not read the graph")]
    GraphRead(#[source] graph::ReadError),
    /// The graph could not be brought up to the log.
    #[error("could not bring the graph up to the log")]
    CatchUp(#[source] CatchUpError),
    /// The graph could not be prepared for a rebuild.
    #[error("could not rebuild the graph")]
    Rebuild(#[source] ApplyError),
    /// What was saved before events were dropped could not be put in place.
    #[error(transparent)]
    Base(#[from] RestoreError),
    /// Agents and conversations did not open.
    #[error("could not open agents and conversations")]
    Talk(#[source] OpenTalkError),
    /// The system gave no random numbers.
    #[error("could not draw a random number")]
    Random(#[source] getrandom::Error),
    /// The store of vectors did not open.
    #[error("could not open the store of vectors")]
    Store(#[source] StoreError),
    /// The vectors did not open.
    #[error("could not open the vectors")]
    Vectors(#[source] OpenVectorsError),
    /// The vectors could not be made from the graph.
    #[error("could not make the vectors from the graph")]
    Refold(#[source] RefoldError),
    /// The system gave no thread.
    #[error("could not start a thread")]
    Thread(#[source] io::Error),
    /// What an erasure that was cut short ordered could not be taken out of the log.
    #[error("could not complete an erasure that was cut short")]
    Erasure(#[source] EraseError),
}

/// One event about the server, as a batch.
pub(super) fn system_batch(event: SystemEvent) -> Batch {
    Batch::of(vec![Draft {
        stream: "system".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: event.into(),
    }])
}

impl Engine {
    /// Opens the data directory, brings the projections up to the log and starts to accept commands.
    ///
    /// The graph is rebuilt when its file is missing, damaged or of another version. The vectors go on where they
    /// were saved and catch up in the background.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub fn start(options: &EngineOptions, progress: &mut dyn FnMut(StartStep)) -> Result<Self, StartError> {
        check_format(&options.data_dir)?;
        let log = open_log(options)?;
        lost_end::refuse(&options.data_dir, options.durability, log.reader().head().seq)?;
        let signer = signing::open_or_create(&options.data_dir, log.reader().log_id())
            .map_err(StartError::SigningKey)?;
        let orders = erase::pending(&log.reader()).map_err(StartError::Read)?;
        // Before anything is said in them that is gone when they are forgotten.
        let _held = erase::hold(&log, &orders);
        erase::resume(&log, &orders).map_err(StartError::Erasure)?;
        let engine = Self::start_over(options, log, signer, progress)?;
        engine.complete_behind_rebuilds();
        if !orders.is_empty() {
            engine.complete_pending();
        }
        Ok(engine)
    }

    /// Brings the projections up to the log and starts the threads.
    fn start_over(
        options: &EngineOptions,
        log: Log,
        signer: Signer,
        progress: &mut dyn FnMut(StartStep),
    ) -> Result<Self, StartError> {
        let (mut recovery, stopping) = (Recovery::default(), Arc::new(AtomicBool::new(false)));
        settle(options, &log.reader())?;
        let (mut graph, mut vectors) = open_memory(options, &log.reader(), &mut recovery, progress)?;
        record_start(&log, options.embedding.as_deref())?;
        let positions = Arc::new(Positions::new(options.embedding.is_some()));
        graph.catch_up(&log.reader(), &positions)?;
        let (talk, store) = open_talk(options, &log.reader(), &mut recovery, progress)?;
        positions.advance(Part::Talk, talk.checkpoint());
        make_lacking(vectors.as_mut(), &log.reader(), &graph.reader())?;
        let (rebuilds, offers) = Rebuilds::new(
            options,
            log.reader(),
            vectors.as_ref().map(|(vectors, embedding)| VectorParts::of(options, vectors, embedding)),
            (&positions, &stopping),
        );
        let (reads, around) = ((&log.reader(), graph.reader()), (&positions, &stopping));
        let vectors = start_vectors(options, vectors, reads, around, offers.vectors)?;
        let view = View::new(graph.reader(), vectors.semantic, talk.reader(), Arc::clone(&positions));
        let (reader, log) = (log.reader(), Arc::new(log));
        let (sealer, wakers) = (Arc::downgrade(&log), Arc::new(Wakers::new()));
        let talking = start_talk(options, &log, (talk, store), (&positions, offers.talk), &wakers)?;
        let (damaged, awaited) = (Arc::new(AtomicBool::new(false)), graph.awaited().map(str::to_owned));
        let ((sender, commands), (order, erasures)) = (bounded(options.commands_max), bounded(0));
        let (nudge, talk) = (talking.nudge, view.talk().clone());
        let ends = Ends { commands, erasures, offers: offers.graph, nudge, talk };
        let memory = start_memory(options, log, graph, (positions, Arc::clone(&damaged)), ends)?;
        let threads = Threads {
            memory,
            vectors: vectors.thread,
            router: talking.router,
            talk_fold: talking.fold,
            talk_store: talking.store,
            stop_store: talking.stop_store,
        };
        begin_awaited(awaited, &rebuilds, &view);
        // Behind that, which it makes way for.
        let postings = audit_fold::start(&options.data_dir, &reader, &rebuilds, &stopping)?;
        Ok(Self {
            inner: Arc::new(Inner {
                view: view.timed(stopwatch()),
                rebuilds,
                sealer,
                postings,
                signer,
                commands: RwLock::new(Some(sender)),
                requests: RwLock::new(Some(talking.requests)),
                wakers,
                leases: Leases::default(),
                threads: Mutex::new(Some(threads)),
                stopping,
                failed_end: OnceLock::new(),
                index_timeout: options.index_timeout,
                recovery,
                sqlite_connections: options.sqlite.readers + 1,
                started_at: reader.head().seq,
                data_dir: options.data_dir.clone(),
                damaged,
                keepers: Keepers {
                    memory: order,
                    talk: talking.scrub,
                    talk_store: talking.scrub_store,
                    vectors: vectors.scrub,
                },
                erasing: Erasing::default(),
                watched: options.watched,
                said: Said::default(),
                searches: Searches::new(options.search_cache_bytes),
                log: reader,
            }),
        })
    }
}

/// Begins the rebuild of a graph that is awaited.
fn begin_awaited(reason: Option<String>, rebuilds: &Arc<Rebuilds>, view: &View) {
    if let Some(Err(refused)) = reason.map(|reason| rebuilds.begin(Part::Graph, reason)) {
        // Nobody else can have begun one; what is left is that the system gave no thread.
        view.positions().stop(Part::Graph, refused.to_string());
    }
}

/// Permissions of a data directory that is made.
pub(super) const OWNERS_ALONE: u32 = 0o700;

/// Refuses a directory of a newer format; marks a new one.
fn check_format(data_dir: &Path) -> Result<(), StartError> {
    let failed = |path: &Path, source| StartError::Directory { path: path.to_owned(), source };
    // What agents remember and say is nobody else's; one that is there keeps what its owner gave it.
    let made = DirBuilder::new().recursive(true).mode(OWNERS_ALONE).create(data_dir);
    made.map_err(|source| failed(data_dir, source))?;
    if refuse_newer_format(data_dir)? {
        return Ok(());
    }
    mark_format(data_dir).map_err(|source| failed(&data_dir.join(FORMAT_FILE), source))
}

/// Refuses a directory of a newer format, for who reads it without an engine; whether it has a mark. One that a power cut left
/// without its content is none: it says nothing about what lies beside it, which says itself what it is.
///
/// # Errors
///
/// [`StartError::Format`], or [`StartError::Directory`] if the mark cannot be read.
pub fn refuse_newer_format(data_dir: &Path) -> Result<bool, StartError> {
    let path = data_dir.join(FORMAT_FILE);
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == FORMAT.to_string() => Ok(true),
        Ok(found) if found.chars().all(|c| c == '\0' || c.is_whitespace()) => Ok(false),
        Ok(found) => Err(StartError::Format { path, found: found.trim().chars().take(32).collect() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StartError::Directory { path, source }),
    }
}

/// Marks a new data directory.
pub(super) fn mark_format(data_dir: &Path) -> io::Result<()> {
    log::beside::write_whole(data_dir, FORMAT_FILE, format!("{FORMAT}\n").as_bytes())
}

/// Random bytes of the system.
fn draw(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

fn open_log(options: &EngineOptions) -> Result<Log, StartError> {
    let (mut log_id, mut wal_seed) = ([0; 16], [0; 8]);
    let drawn = draw(&mut log_id).and_then(|()| draw(&mut wal_seed));
    drawn.map_err(|source| StartError::Directory { path: options.data_dir.clone(), source })?;
    let log_options = LogOptions {
        durability: options.durability,
        cache_bytes: options.log_cache_bytes,
        compress_above: options.compress_above,
        sealing: (options.encrypt != Encrypt::None).then_some(Sealing { what: options.encrypt, draw }),
        wal_seed: Some(wal_seed),
        ..LogOptions::new(log_id)
    };
    Log::open(&options.data_dir, log_options, Arc::new(SystemClock)).map_err(StartError::Log)
}

/// Records the start, and the model where it is another one than before: a rebuild then knows which vectors to expect.
fn record_start(log: &Log, embedding: Option<&EmbeddingService>) -> Result<(), StartError> {
    let model = match embedding.map(Embedder::identity) {
        Some(ModelIdentity { name, weights_sha256, dimensions, precision }) => {
            SystemEvent::EmbeddingModelChanged {
                // Vectors of another precision are another model's.
                name: match precision {
                    Precision::Fp32 => name.clone(),
                    precision @ (Precision::Fp16 | Precision::Int8) => format!("{name} ({precision})"),
                },
                weights_sha256: weights_sha256.clone(),
                dimensions: u32::try_from(*dimensions).unwrap_or(u32::MAX),
            }
        }
        None => SystemEvent::EmbeddingModelChanged {
            name: "none".to_owned(),
            weights_sha256: String::new(),
            dimensions: 0,
        },
    };
    let filter = Filter { kinds: Some(vec![Kind::EmbeddingModelChanged]), ..Filter::default() };
    let reader = log.reader();
    let last = reader.scan_back(reader.head().seq, &filter).next().transpose().map_err(StartError::Read)?;
    let mut batches = vec![system_batch(SystemEvent::ServerStarted { version: crate::VERSION.to_owned() })];
    if last.map(|record| record.event) != Some(Event::System(model.clone())) {
        batches.push(system_batch(model));
    }
    let closed = |closed: LogClosed| StartError::Append(closed.into());
    for result in log.append(batches).map_err(closed)? {
        result.map_err(StartError::Append)?;
    }
    Ok(())
}

/// Cleans up after a crash in the middle of a rebuild, a comparison, an export or a drop, and puts in place what was saved for a
/// log that lost events.
fn settle(options: &EngineOptions, log: &Reader) -> Result<(), StartError> {
    let data_dir = &options.data_dir;
    for part in [Part::Graph, Part::Vectors, Part::Talk] {
        let place = Place::new(data_dir, part.name());
        let settled = place.settle();
        let settled =
            settled.map_err(|source| StartError::Directory { path: place.current().to_owned(), source })?;
        if settled.removed || settled.restored {
            tracing::warn!(
                projection = part.name(),
                restored = settled.restored,
                "a rebuild did not end; what was half built was removed"
            );
        }
        // What a comparison folds afresh holds everything that is erased later.
        let scratch = data_dir.join(format!("{}.verifying", part.name()));
        shred(&scratch).map_err(|source| StartError::Directory { path: scratch, source })?;
    }
    let copies = copies::remove(data_dir);
    copies.map_err(|source| StartError::Directory { path: data_dir.clone(), source })?;
    let unused = base::remove_unused(data_dir, log);
    unused.map_err(|source| StartError::Directory { path: data_dir.join(BASE_DIR), source })?;
    Ok(base::restore(options, log)?)
}

/// The vectors for searches, the thread that keeps them, and the way to have it clean its files.
#[derive(Default)]
struct StartedVectors {
    semantic: Option<Semantic>,
    thread: Option<JoinHandle<()>>,
    scrub: Option<Sender<erase::ScrubVectors>>,
}

/// Starts the thread that keeps the vectors, where there is a model.
fn start_vectors(
    options: &EngineOptions,
    vectors: Option<(Vectors, Arc<EmbeddingService>)>,
    (log, graph): (&Reader, GraphReader),
    (positions, stopping): (&Arc<Positions>, &Arc<AtomicBool>),
    offers: Receiver<Offer<Vectors>>,
) -> Result<StartedVectors, StartError> {
    let Some((vectors, embedding)) = vectors else { return Ok(StartedVectors::default()) };
    positions.advance(Part::Vectors, vectors.checkpoint());
    let semantic = Semantic { vectors: vectors.reader(), embedding };
    let (scrub, scrubs) = bounded(0);
    let fold = VectorFold {
        vectors,
        graph,
        scrubs,
        log: log.clone(),
        positions: Arc::clone(positions),
        stopping: Arc::clone(stopping),
        saving: Saving::every(options.save_vectors_every, Instant::now()),
        records_max: options.vector_records_max.max(1),
        offers,
        retry: Retry::default(),
        inherited: inherited_mark(&options.data_dir),
    };
    let thread = told::spawn("vector-fold", (Part::Vectors, positions), || fold.run());
    let thread = Some(thread.map_err(StartError::Thread)?);
    Ok(StartedVectors { semantic: Some(semantic), thread, scrub: Some(scrub) })
}

/// Vectors and the model they are of.
type Embedded = (Vectors, Arc<EmbeddingService>);

/// The graph, brought up to the log, and the vectors, which are folded beside it meanwhile where they are far behind.
fn open_memory(
    options: &EngineOptions,
    log: &Reader,
    recovery: &mut Recovery,
    progress: &mut dyn FnMut(StartStep),
) -> Result<(StartedGraph, Option<Embedded>), StartError> {
    let mut vectors = open_vectors(options, log, recovery, progress)?;
    let whole = vectors.as_mut().filter(|(vectors, _)| !lacks_events(log, vectors.checkpoint()));
    let beside = whole.map(|(vectors, _)| vectors);
    let graph = fold_beside(beside, log, || open_graph(options, log, recovery, progress))?;
    Ok((graph, vectors))
}

/// Makes the vectors from the graph where the log has lost the events that they lack.
fn make_lacking(vectors: Option<&mut Embedded>, log: &Reader, graph: &GraphReader) -> Result<(), StartError> {
    let Some((vectors, _)) = vectors.filter(|(vectors, _)| lacks_events(log, vectors.checkpoint())) else {
        return Ok(());
    };
    tracing::warn!("the vectors are made from the graph, because the events before it were dropped");
    refold(graph, vectors).map_err(StartError::Refold)
}

/// The vectors where they were saved, where there is a model.
fn open_vectors(
    options: &EngineOptions,
    log: &Reader,
    recovery: &mut Recovery,
    progress: &mut dyn FnMut(StartStep),
) -> Result<Option<Embedded>, StartError> {
    let Some(embedding) = &options.embedding else { return Ok(None) };
    progress(StartStep::LoadingVectors);
    let dir = options.data_dir.join("vectors");
    inherit_vectors(&options.data_dir, log);
    let store = VectorStore::open(&dir, embedding.identity()).map_err(StartError::Store)?;
    tell_damage(store.opened());
    let embedder: Arc<dyn Embedder> = Arc::clone(embedding) as Arc<dyn Embedder>;
    let mut vectors = Vectors::open(&dir, options.vectors, store, embedder).map_err(StartError::Vectors)?;
    if let Some(refused) = &vectors.opened().refused {
        let reason = failure::chain(refused);
        tracing::warn!(%reason, "the vectors are folded again from the log");
        recovery.vectors = Some(reason);
        if let Err(error) = vectors.remove_indexes() {
            tracing::warn!(%error, "could not remove the indexes over the vectors as they were");
        }
    }
    let (folded, head) = (vectors.checkpoint(), log.head().seq);
    lost_end::refuse_vectors(options.durability, folded, head)?;
    let stale = if folded > head {
        Some(format!("they were at {folded}, the log ends at {head}"))
    } else {
        vectors.check_log(log).err().map(|other| failure::chain(&other))
    };
    if let Some(reason) = stale {
        tracing::warn!(%reason, "the vectors are rebuilt from the log");
        recovery.vectors = Some(reason);
        vectors.reset().map_err(StartError::Rebuild)?;
    }
    vectors.follow(log);
    Ok(Some((vectors, Arc::clone(embedding))))
}

/// Says what of the store of vectors is of no use any more.
fn tell_damage(Opened { cut, damaged, set_aside, .. }: &Opened) {
    if let Some(aside) = set_aside {
        let aside = aside.display();
        tracing::warn!(%aside, "the store of vectors could not be used and was set aside; texts are embedded anew");
    }
    if *cut > 0 || *damaged > 0 {
        tracing::warn!(
            cut,
            damaged,
            "vectors of the store are damaged or were cut off; their texts are embedded again when needed"
        );
    }
}
