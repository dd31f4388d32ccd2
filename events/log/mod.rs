//! The append-only log: packed, hash-chained blocks in redb, one writer, many readers.
//!
//! Reading order: [`options`] and [`batch`] (in), [`chain`] (what ties events together), `prepare` (on the caller's
//! thread), `writer`, `admit`, `wal`, `pack` and `merge` (on the writer's), `flusher` (on its own), `header` and `block`
//! (the bytes), [`sealing`] and [`erasure`] (what can be made unreadable), [`reader`], [`visit`], [`scan`], [`sweep`] and
//! [`verify`] (out), [`reach`] (what is left of a range), [`salvage`] (out of a damaged one), [`stretch`], `key_page`
//! and [`build`](mod@build) (carried away and put together again), [`proof`], [`prove`], [`checkpoint`] and [`evidence`] (for
//! auditors), [`open`] (start) and [`beside`]. [`origin`] says where a log begins that does not begin in its own file, [`past`] reads the
//! sealed files before it, [`seal`] makes one, [`fork`] shares them, [`copy`](mod@copy), [`trim`] and [`rewrite`] write a
//! part of a log anew. `lanes` and `tails` hash many events at once.
//!
//! Four tables: `headers` and `bodies` (first seq of a block → bytes, apart so that a scan passes over what cannot
//! match), `keys` (idempotency), `meta`. What is acknowledged is on disk as [`Durability`] says; a batch is there as a
//! whole or not at all, after any crash. What is damaged is refused by name, never repaired by guess.

mod admit;
mod at_time;
pub mod batch;
pub mod beside;
mod block;
mod blocks;
mod bloom;
pub mod build;
pub mod chain;
pub mod checkpoint;
pub mod copy;
mod ending;
pub mod erasure;
pub mod evidence;
pub mod exchange;
pub mod filter;
mod flusher;
pub mod fork;
mod header;
mod journal;
mod key_page;
mod keys;
mod lanes;
mod leaves;
mod lock;
mod merge;
pub mod open;
pub mod options;
pub mod origin;
mod pack;
pub mod past;
mod prepare;
pub mod proof;
pub mod prove;
mod quiet;
pub mod reach;
pub mod reader;
pub mod rebuild;
mod remains;
pub mod rewrite;
pub mod salvage;
pub mod scan;
pub mod seal;
pub mod sealing;
mod shared;
pub mod store;
pub mod stored;
mod streams;
pub mod stretch;
pub mod sweep;
mod tails;
#[cfg(test)]
pub(crate) mod tests;
pub mod trim;
pub mod verify;
pub mod visit;
mod wal;
mod writer;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded, select};
use redb::StorageBackend;

pub use batch::{AppendError, Appended, Batch, Expected, IdempotencyKey, LogClosed, Series, Ticket};
pub use build::{BuildError, LogBuild};
pub use chain::Hash;
pub use checkpoint::{Checkpoint, CheckpointError, PublicKey, SignedCheckpoint, SignedTextError, Signer};
pub use copy::{Copied, CopyError, copy_log};
pub use erasure::{EraseError, Hold, Holdings, OrdersError, follow_orders};
pub use evidence::{Evidence, EvidenceError, Growth};
pub use filter::Filter;
pub use fork::{Fork, ForkError, ForkOptions, fork_log, forks_of, note_fork};
pub use lanes::hash_each;
pub use lock::{DirLock, LOCK_FILE};
pub use open::OpenError;
pub use options::{Durability, LogOptions};
pub use origin::{Dropped, ForkedFrom, ORIGIN_FILE, Origin, SEALED_DIR, SealedFile};
pub use past::PartError;
pub use proof::{ConsistencyProof, InclusionProof, ProofError, StoredEvent};
pub use prove::ProveError;
pub use reach::{Range, Reach};
pub use reader::{Head, KeyRow, LogStats, Reader, event_id, event_id_at};
pub use rewrite::RewriteError;
pub use salvage::{Lost, Salvage, Salvaged, Survey};
pub use scan::{FoundScan, ReadError, Scan, ScanStats};
pub use seal::{SealError, SealedLog, sealed_through};
pub use sealing::opened::{Around, Found, SealedRecord};
pub use sealing::{Encrypt, KEYS_FILE, KeysError, Sealing, take_keys};
pub use store::StoreError;
pub use stretch::{End, StoredBlock, Stretch};
pub use sweep::{Extent, Gap, Picker, Sweep, Swept, Touched};
pub use trim::{TrimError, TrimOptions, Trimmed, check_unshared, detach, drop_before, trim_point};
pub use verify::{Verified, VerifyError};
pub use visit::{Blocks, EventBlock, FoundRef, RecordRef};

use crate::id::Seq;
use crate::record::Draft;
use crate::time::Clock;
use flusher::Flusher;
use merge::SmallRun;
use open::Opened;
use pack::ChainEnd;
use prepare::{Preparation, Prepared};
use rewrite::Redaction;
use sealing::{KeyRing, Sealer};
use shared::Shared;
use wal::Seed;
use writer::{Pending, Submission, Work, Writer};

/// Memory for pages of a log that is only read. What is read from one end to the other is not needed again, and buffers that
/// go round quickly stay in the processor's cache.
const READ_ONLY_CACHE_BYTES: usize = 4 << 20;

/// A log that is open for appending. Dropping it closes it as [`Log::close`] does, without telling how that went.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    preparation: Preparation,
    queue: Option<Sender<Work>>,
    redactions: Sender<Redaction>,
    /// Held while the log is written anew, until its old file is overwritten.
    rewriting: Mutex<()>,
    writer: Option<JoinHandle<Result<(), AppendError>>>,
}

impl Log {
    /// Opens the log in `dir`, or creates it where `dir` holds nothing of Caxton's.
    ///
    /// Takes the directory's lock, checks the last block, and starts the writer's thread; none of it takes longer for
    /// a longer log. The lock ends with the writer.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: in use, lost, damaged, written by a newer Caxton, or the medium failed.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use caxton_events::log::{Batch, Filter, Log, LogOptions};
    /// use caxton_events::{Clock, Draft, Seq, SystemEvent, Timestamp};
    ///
    /// struct Noon;
    /// impl Clock for Noon {
    ///     fn now(&self) -> Timestamp {
    ///         Timestamp::from_unix_micros(43_200_000_000)
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(Noon))?;
    /// let draft = Draft {
    ///     stream: "system".into(),
    ///     actor: "system".into(),
    ///     correlation: None,
    ///     causation: None,
    ///     event: SystemEvent::ServerStopped.into(),
    /// };
    /// let appended = log.append(vec![Batch::of(vec![draft])])?.remove(0)?;
    /// assert_eq!(appended.last, Seq(1));
    /// for record in log.reader().scan(Seq::FIRST, &Filter::default()) {
    ///     assert_eq!(record?.recorded_at.to_string(), "1970-01-01T12:00:00.000000Z");
    /// }
    /// log.close()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(dir: &Path, options: LogOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let lock = open::lock(dir)?;
        let opened = open::open_file(dir, options.cache_bytes, options.log_id)?;
        let keys = erasure::open_keys(dir, &opened, &options)?;
        Self::start(opened, Some(dir), Some(lock), keys, options, clock)
    }

    /// Opens the stopped log in `dir` for reading; no other process can write to it while the reader lives.
    ///
    /// # Errors
    ///
    /// As [`Log::open`]; also when the log was not closed in order and must be opened for writing once.
    pub fn open_read_only(dir: &Path) -> Result<Reader, OpenError> {
        let lock = open::lock_shared(dir)?;
        let opened = open::open_file_read_only(dir, READ_ONLY_CACHE_BYTES)?;
        let keys = erasure::open_keys_read_only(dir, opened.log_id)?;
        let shared = share(opened.database, &opened.end, opened.log_id, Some(dir));
        Ok(Reader::new(Arc::new(shared.with_keys(keys).holding(lock))))
    }

    /// Whether the stopped log in `dir`, which [`open_read_only`](Self::open_read_only) opens, would take events: it is opened for
    /// writing, and a commit made, in memory. Readers do not see what this looks at, the store's own record of free pages, so a log
    /// may be read to its end and refused by [`Log::open`]. The file stays as it is. Takes milliseconds, whatever the log's size.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as [`Log::open`] or the first append would say it.
    pub fn rehearse(dir: &Path) -> Result<(), OpenError> {
        let _lock = open::lock_shared(dir)?;
        open::rehearse_file(dir)
    }

    /// Opens the stopped log in `dir` for reading although its last block may be damaged, the end of its file missing, or it
    /// was not closed in order: its end is then the last header that is right, and whole records of the write-ahead log are
    /// seen whether they continue the chain or not. The file stays as it is. For [`Reader::scan_salvaging`] and
    /// [`Reader::survey`]; [`Reader::missing_bytes`] says how much of the file is missing.
    ///
    /// All blocks are looked for first, which reads the file once: `progress` hears the last position looked for and the last one
    /// there should be, from the beginning again where the log is damaged.
    ///
    /// # Errors
    ///
    /// As [`Log::open_read_only`], when there is no log at all to be seen in what is left.
    pub fn open_damaged(dir: &Path, progress: &mut dyn FnMut(Seq, Seq)) -> Result<Reader, OpenError> {
        let lock = open::lock_shared(dir)?;
        let opened = remains::open_file_damaged(dir, READ_ONLY_CACHE_BYTES, progress)?;
        let keys = erasure::open_keys_read_only(dir, opened.log_id)?;
        let shared = share(opened.database, &opened.end, opened.log_id, Some(dir));
        Ok(Reader::new(Arc::new(shared.with_keys(keys).holding(lock))))
    }

    /// Opens or creates a log on a medium of the caller's: memory, or a disk that fails when a test says so.
    ///
    /// Unlike [`Log::open`] it cannot create under another name first: a medium that fails while the log is being
    /// created may hold something that is no log yet.
    ///
    /// # Errors
    ///
    /// As [`Log::open`], but for the lock.
    pub fn open_on(
        backend: impl StorageBackend,
        options: LogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let opened = open::open_backend(backend, options.cache_bytes, options.log_id)?;
        Self::start(opened, None, None, Arc::default(), options, clock)
    }

    fn start(
        opened: Opened,
        dir: Option<&Path>,
        lock: Option<DirLock>,
        keys: Arc<KeyRing>,
        options: LogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let path = dir.map_or_else(|| Path::new("(backend)").to_owned(), |dir| dir.join(open::LOG_FILE));
        let Opened { database, end, log_id } = opened;
        let seed = Seed::settle(&database.own, &log_id, options.wal_seed);
        let seed = seed.map_err(|error| open::store_error(&path, error))?;
        let stored = end.clone();
        let sealer = options.sealing.filter(|sealing| sealing.what != Encrypt::None);
        let sealer = sealer.map(|sealing| Sealer::new(sealing, Arc::clone(&keys)).map(Arc::new)).transpose();
        let preparation = Preparation {
            compress_above: options.compress_above,
            sealer: sealer.map_err(OpenError::Keys)?,
            ring: Arc::clone(&keys),
        };
        let shared = Arc::new(share(database, &end, log_id, dir).with_keys(keys));
        let found = shared.snapshot().map_err(ReadError::from).and_then(|snapshot| SmallRun::find(&snapshot));
        let small = found.map_err(|source| OpenError::Damaged { path: path.clone(), source })?;
        let (queue, submissions) = bounded(options.queue_max.max(1));
        let (redactions, asked) = bounded(1);
        let unasked = asked.clone();
        let io = |source: io::Error| OpenError::Io { path: path.clone(), source };
        let flusher = Flusher::start(Arc::clone(&shared)).map_err(io)?;
        let writer = Writer {
            shared: Arc::clone(&shared),
            options,
            clock,
            end,
            small,
            streams: admit::StreamEnds::default(),
            flusher,
            unsynced: false,
            seed,
            pending: Pending::after(stored),
            body: Vec::new(),
            held: None,
            redactions: asked,
        };
        let thread = thread::Builder::new().name("log-writer".to_owned());
        let writer = thread.spawn(move || {
            let written = catch_unwind(AssertUnwindSafe(|| writer.run(&submissions)));
            // Released last: who gets the directory next finds it closed.
            drop(lock);
            // A submission that is left in the queue would keep its caller waiting as long as the log is there. Dropped,
            // it tells its caller why the log was closed.
            while select! {
                recv(submissions) -> work => work.is_ok(),
                recv(unasked) -> redaction => redaction.is_ok(),
            } {}
            for work in submissions {
                drop(work);
            }
            written.unwrap_or_else(|panic| resume_unwind(panic))
        });
        let writer = Some(writer.map_err(io)?);
        let rewriting = Mutex::default();
        Ok(Self { shared, preparation, redactions, rewriting, queue: Some(queue), writer })
    }

    /// Appends and blocks until the batches are durable (as the setting says); one result a batch, in order.
    ///
    /// The batches of one call are committed together, but each is refused or placed on its own.
    ///
    /// # Errors
    ///
    /// [`LogClosed`] after a failure or an orderly end.
    pub fn append(&self, batches: Vec<Batch>) -> Result<Vec<Result<Appended, AppendError>>, LogClosed> {
        self.submit(batches)?.wait()
    }

    /// The same for batches each of which builds on those before it: behind one that is not written, because it was refused or
    /// its key is known, all others are [`AppendError::SeriesBroken`].
    ///
    /// # Errors
    ///
    /// [`LogClosed`] after a failure or an orderly end.
    pub fn append_series(
        &self,
        batches: Vec<Batch>,
    ) -> Result<Vec<Result<Appended, AppendError>>, LogClosed> {
        let mut is_broken = false;
        let prepared = batches.into_iter().map(|batch| {
            if is_broken {
                return Err(AppendError::SeriesBroken);
            }
            let prepared = prepare::prepare(batch, &self.preparation);
            is_broken = prepared.is_err();
            prepared
        });
        self.send(prepared.collect(), Some(Series::default()))?.wait()
    }

    /// Encodes and hashes batches on this thread and hands them to the writer; blocks while its queue is full.
    ///
    /// # Errors
    ///
    /// [`LogClosed`] after a failure or an orderly end.
    pub fn submit(&self, batches: Vec<Batch>) -> Result<Ticket, LogClosed> {
        self.send(batches.into_iter().map(|batch| prepare::prepare(batch, &self.preparation)).collect(), None)
    }

    fn send(
        &self,
        batches: Vec<Result<Prepared, AppendError>>,
        series: Option<Series>,
    ) -> Result<Ticket, LogClosed> {
        let (answer, answered) = bounded(1);
        let closed = || self.shared.closed.error();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Work::Append(Submission { batches, series, answer })).map_err(|_| closed())?;
        Ok(Ticket { answer: answered, closed: Arc::clone(&self.shared.closed) })
    }

    /// The same for one batch without conditions, whose drafts stay with the caller; in a series, if it builds on others.
    ///
    /// # Errors
    ///
    /// [`LogClosed`] after a failure or an orderly end.
    pub fn submit_drafts(&self, drafts: &[Draft], series: Option<&Series>) -> Result<Ticket, LogClosed> {
        let prepared = prepare::prepare_drafts(drafts, None, None, &self.preparation);
        self.send(vec![prepared], series.cloned())
    }

    /// Seals what the log holds: its events are then in files that are not written any more and may be shared, and it goes on
    /// in a new one. Costs the same for any log, while which the writer waits.
    ///
    /// # Errors
    ///
    /// [`SealError`]; the log goes on as before, unless it was closed.
    pub fn seal(&self) -> Result<SealedLog, SealError> {
        let (answer, answered) = bounded(1);
        let closed = || self.shared.closed.error();
        self.queue.as_ref().ok_or_else(closed)?.send(Work::Seal(answer)).map_err(|_| closed())?;
        let sealed = answered.recv().map_err(|_| closed())??;
        Ok(SealedLog { has_gaps: self.reader().has_gaps(), ..sealed })
    }

    /// A handle to read. It outlives the log: then its reads say that the log is closed.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// The end of the log as last committed.
    pub fn head(&self) -> Head {
        self.shared.head()
    }

    /// Writes what was submitted, syncs, and releases the directory.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the last sync failed or the log was closed by an earlier failure.
    pub fn close(mut self) -> Result<(), AppendError> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), AppendError> {
        drop(self.queue.take());
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(written)) => written,
            Some(Err(_)) => Err(AppendError::Closed(self.shared.closed.error())),
            None => Ok(()),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Who wants to know how it went calls `close`.
        let _ = self.stop();
    }
}

fn share(database: store::Database, end: &ChainEnd, log_id: [u8; 16], dir: Option<&Path>) -> Shared {
    let head =
        Head { seq: Seq(end.frontier.count()), root: end.frontier.root(), recorded_at: end.recorded_at };
    Shared::new(database, head, log_id, dir.map(|dir| dir.join(open::LOG_FILE)))
}
