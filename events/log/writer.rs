//! The one thread that appends: it takes what is queued, commits it as one group, and hands that over to be flushed.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, never, select, tick};

use crate::id::Seq;
use crate::limits::BLOCK_BYTES_MAX;
use crate::log::admit::{Group, StreamEnds};
use crate::log::batch::{Answer, AppendError, Series};
use crate::log::flusher::{Commit, Failure, Flusher, Unsynced, fail};
use crate::log::journal::{Logged, Sealed};
use crate::log::keys;
use crate::log::merge::SmallRun;
use crate::log::options::{Durability, LogOptions};
use crate::log::pack::{ChainEnd, pack, pack_one};
use crate::log::prepare::Prepared;
use crate::log::reader::{Head, KeyRow};
use crate::log::rewrite::{self, Redaction, rewrite};
use crate::log::seal::{SealError, SealedLog, Stop};
use crate::log::shared::Shared;
use crate::log::store::{Database, KEYS, Own, StoreError, Writable, guarded};
use crate::log::wal::{Seed, WalBlock, record_bytes_max};
use crate::time::Clock;

/// Batches on their way to the writer.
pub(crate) struct Submission {
    pub batches: Vec<Result<Prepared, AppendError>>,
    /// What the batches belong to, if they build on others.
    pub series: Option<Series>,
    pub answer: Sender<Answer>,
}

impl Submission {
    fn size(&self) -> (usize, usize) {
        let placed = self.batches.iter().flatten();
        placed
            .fold((0, 0), |(events, bytes), batch| (events + batch.events.len(), bytes + batch.block_bytes()))
    }
}

/// What is asked of the writer.
pub(crate) enum Work {
    Append(Submission),
    Seal(Sender<Result<SealedLog, SealError>>),
}

/// The state of the writer's thread.
pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub options: LogOptions,
    pub clock: Arc<dyn Clock>,
    pub end: ChainEnd,
    pub small: SmallRun,
    pub streams: StreamEnds,
    pub flusher: Flusher,
    /// Whether something is committed that neither is on disk nor on its way there.
    pub unsynced: bool,
    /// Of the records in the write-ahead log.
    pub seed: Seed,
    pub pending: Pending,
    /// Where the bodies of blocks are put together.
    pub body: Vec<u8>,
    /// What was taken from the queue while a group was put together and does not belong to it.
    pub held: Option<Work>,
    pub redactions: Receiver<Redaction>,
}

/// What is in the write-ahead log and not in redb.
pub(crate) struct Pending {
    batches: Vec<Prepared>,
    keys: Vec<(String, Vec<u8>)>,
    /// What the batches take in blocks.
    bytes: usize,
    /// Where in the write-ahead log the next record goes.
    position: u64,
    /// The end of the chain in redb.
    stored: ChainEnd,
}

impl Pending {
    /// Nothing, behind what redb has.
    pub(crate) const fn after(stored: ChainEnd) -> Self {
        Self { batches: Vec::new(), keys: Vec::new(), bytes: 0, position: 0, stored }
    }
}

/// Wakes everybody when the writer's thread ends, in whatever way.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.closed.set("its writer stopped unexpectedly; restart to see what was kept");
        self.0.end();
    }
}

enum Next {
    Work(Work),
    Sync,
    Merge,
    Redact(Redaction),
    End,
    Failed,
}

impl Writer {
    /// Serves the queue until every sender is gone or the store fails; then the log is closed.
    ///
    /// # Errors
    ///
    /// [`AppendError::Io`] with what the store said.
    pub(crate) fn run(mut self, queue: &Receiver<Work>) -> Result<(), AppendError> {
        let ending = Ending(Arc::clone(&self.shared));
        let served = self.serve(queue);
        // What the flusher met came first; what the writer met is mostly the consequence.
        let served = self.flusher.finish().map_or(served, Err);
        if let Err(Failure { source, .. }) = &served {
            self.shared.close_after(source);
        } else {
            self.shared.closed.set("it was closed in order");
        }
        drop(ending);
        let closed = match self.shared.take_database() {
            Some(Database { own: Own::Writable(Writable { database, .. }), .. }) => {
                guarded(|| Ok(database.close()?))
            }
            Some(Database { own: Own::ReadOnly(_), .. }) | None => Ok(()),
        };
        served
            .and_then(|()| closed.map_err(|source| self.failure(source)))
            .map_err(|failure| AppendError::Io { first: failure.first, source: failure.source })
    }

    fn serve(&mut self, queue: &Receiver<Work>) -> Result<(), Failure> {
        let ticker = match self.options.durability {
            Durability::Interval(interval) => tick(interval),
            Durability::Always | Durability::Off => never(),
        };
        loop {
            match self.next(queue, &ticker) {
                Next::Work(Work::Append(first)) => self.append_group(first, queue)?,
                Next::Work(Work::Seal(answer)) => match self.seal() {
                    Ok(sealed) => drop(answer.send(Ok(sealed))),
                    Err(Stop::Refused(error)) => drop(answer.send(Err(error))),
                    Err(Stop::Failed(failure)) => {
                        // Kept until it is said why the log is closed, so that who asked is told.
                        self.held = Some(Work::Seal(answer));
                        return Err(failure);
                    }
                },
                Next::Sync => self.sync()?,
                Next::Merge => self.merge()?,
                Next::Redact(redaction) => self.redact(&redaction)?,
                Next::End => return self.store_pending().and_then(|()| self.sync()),
                Next::Failed => return Err(self.failure(StoreError::Closed)),
            }
        }
    }

    /// What to do now; blocks while there is nothing.
    fn next<T>(&mut self, queue: &Receiver<Work>, ticker: &Receiver<T>) -> Next {
        if let Some(work) = self.held.take() {
            return Next::Work(work);
        }
        let merges = self.options.merge_blocks && self.small.is_due() && !self.flusher.has_failed();
        if merges && self.is_merge_overdue() {
            return Next::Merge;
        }
        // Of what is there one is chosen at random: a queue that is never empty keeps nobody else waiting.
        let next = if merges {
            select! {
                recv(queue) -> work => work.map_or(Next::End, Next::Work),
                recv(ticker) -> _ => Next::Sync,
                recv(self.redactions) -> redaction => redaction.map_or(Next::End, Next::Redact),
                recv(self.flusher.failed()) -> _ => Next::Failed,
                default => Next::Merge,
            }
        } else {
            select! {
                recv(queue) -> work => work.map_or(Next::End, Next::Work),
                recv(ticker) -> _ => Next::Sync,
                recv(self.redactions) -> redaction => redaction.map_or(Next::End, Next::Redact),
                recv(self.flusher.failed()) -> _ => Next::Failed,
            }
        };
        // Who was told of the failure and comes again is told why, and not that its own write failed.
        if self.flusher.has_failed() { Next::Failed } else { next }
    }

    /// Whether a merge is made although others wait. Where each commit is synced it would wait for the disk, and few small blocks
    /// come about there.
    fn is_merge_overdue(&self) -> bool {
        self.options.durability != Durability::Always && self.small.is_overdue()
    }

    /// Commits `first` and what else is queued, up to the limits, and answers every caller.
    fn append_group(&mut self, first: Submission, queue: &Receiver<Work>) -> Result<(), Failure> {
        let (mut events, mut bytes) = first.size();
        let mut submissions = vec![first];
        while events < self.options.group_events_max
            && bytes < self.options.group_bytes_max
            && let Ok(work) = queue.try_recv()
        {
            let submission = match work {
                Work::Append(submission) => submission,
                Work::Seal(_) => {
                    self.held = Some(work);
                    break;
                }
            };
            let size = submission.size();
            (events, bytes) = (events + size.0, bytes + size.1);
            submissions.push(submission);
        }
        let now = self.clock.now().max(self.end.recorded_at);
        let next = self.next_seq();
        let shared = Arc::clone(&self.shared);
        let mut streams = std::mem::take(&mut self.streams);
        let mut group = Group::new(&shared, &mut streams, next, now);
        let mut waiting = Vec::with_capacity(submissions.len());
        for Submission { batches, series, answer } in submissions {
            waiting.push((answer, group.admit_all(batches, series.as_ref())));
        }
        let Group { placed, keys, .. } = group;
        self.streams = streams;
        let committed = self.commit(placed, &keys);
        let head = (self.next_seq() > next).then(|| self.head());
        match committed {
            Ok(unsynced) => {
                self.flusher.hand(Commit { first: next, unsynced, head, waiting });
                Ok(())
            }
            Err(failure) => {
                let failure = self.flusher.finish().unwrap_or(failure);
                // The reason is there before anybody is told, so that whoever is told finds it.
                self.shared.close_after(&failure.source);
                waiting.iter_mut().flat_map(|(_, results)| results).for_each(|result| fail(result, &failure));
                for (answer, results) in waiting {
                    let _ = answer.send(results);
                }
                Err(failure)
            }
        }
    }

    /// Commits what a group has placed; what makes that durable, if it is to be.
    fn commit(
        &mut self,
        placed: Vec<Prepared>,
        keys: &HashMap<String, KeyRow>,
    ) -> Result<Option<Unsynced>, Failure> {
        if placed.is_empty() {
            return Ok(None);
        }
        let bytes: usize = placed.iter().map(Prepared::block_bytes).sum();
        let keys: Vec<(String, Vec<u8>)> =
            keys.iter().map(|(key, row)| (key.clone(), keys::encode(key, row))).collect();
        let is_small = self.options.durability == Durability::Always
            && bytes <= self.options.wal_group_bytes_max
            && self.pending.bytes + bytes < BLOCK_BYTES_MAX;
        if is_small && let Some(logged) = self.log(&placed, bytes, &keys)? {
            self.pending.batches.extend(placed);
            self.pending.keys.extend(keys);
            self.pending.bytes += bytes;
            return Ok(Some(Unsynced::Block(logged)));
        }
        self.store(placed, keys)
    }

    /// Writes the batches as one block into the write-ahead log, unless that has no room for it.
    fn log(
        &mut self,
        placed: &[Prepared],
        bytes: usize,
        keys: &[(String, Vec<u8>)],
    ) -> Result<Option<Logged>, Failure> {
        let position = self.pending.position;
        let (seed, first, mut end) = (self.seed, self.next_seq(), self.end.clone());
        let logged = self
            .with_writable(|database| {
                if position + record_bytes_max(bytes, keys) > database.journal.wal_bytes() {
                    return Ok(None);
                }
                let block =
                    WalBlock::build(seed, first, bytes, keys, |body| pack_one(placed, body, &mut end));
                let taken = block.record().len() as u64;
                Ok(Some((database.log(block, position)?, taken)))
            })
            .map_err(|source| self.failure(source))?;
        Ok(logged.map(|(logged, taken)| {
            self.pending.position += taken;
            self.end = end;
            logged
        }))
    }

    /// Writes what is in the write-ahead log, and these batches behind it, into redb in one commit.
    fn store(
        &mut self,
        placed: Vec<Prepared>,
        keys: Vec<(String, Vec<u8>)>,
    ) -> Result<Option<Unsynced>, Failure> {
        let durable = self.options.durability == Durability::Always;
        let mut end = self.pending.stored.clone();
        let mut body = std::mem::take(&mut self.body);
        let batches: Vec<Prepared> = self.pending.batches.drain(..).chain(placed).collect();
        let keys: Vec<(String, Vec<u8>)> = self.pending.keys.drain(..).chain(keys).collect();
        let (places, sealed) = self
            .write(durable, |transaction| {
                let places = pack(transaction, &batches, &mut end, &mut body)?;
                if !keys.is_empty() {
                    let mut table = transaction.open_table(KEYS)?;
                    for (key, row) in &keys {
                        table.insert(key.as_str(), row.as_slice())?;
                    }
                }
                Ok(places)
            })
            .map_err(|source| self.failure(source))?;
        // Readers find these events in redb from now on; those of a snapshot taken before keep what they have.
        let cleared = self.with_writable(|database| {
            database.clear_recent();
            Ok(())
        });
        cleared.map_err(|source| self.failure(source))?;
        self.pending = Pending::after(end.clone());
        self.end = end;
        self.unsynced = !durable;
        // That of a single event that is larger than a block is not kept.
        if body.len() <= BLOCK_BYTES_MAX {
            self.body = body;
        }
        for place in places {
            self.small.note(place);
        }
        Ok(sealed.map(Unsynced::Pages))
    }

    /// Empties the write-ahead log into redb.
    pub(crate) fn store_pending(&mut self) -> Result<(), Failure> {
        if self.pending.batches.is_empty() {
            return Ok(());
        }
        let first = self.next_seq();
        let unsynced = self.store(Vec::new(), Vec::new())?;
        self.flusher.hand(Commit { first, unsynced, head: None, waiting: Vec::new() });
        Ok(())
    }

    pub(crate) fn with_writable<T>(
        &self,
        work: impl FnOnce(&Writable) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.shared.with_database(|database| match &database.own {
            Own::Writable(database) => work(database),
            Own::ReadOnly(_) => Err(StoreError::Closed),
        })
    }

    /// Runs `fill` in a transaction of its own and commits it.
    pub(crate) fn write<T>(
        &self,
        durable: bool,
        fill: impl FnOnce(&redb::WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<(T, Option<Sealed>), StoreError> {
        self.with_writable(|database| database.write(durable, fill))
    }

    /// Sends everything committed so far on its way to the disk.
    fn sync(&mut self) -> Result<(), Failure> {
        if self.unsynced {
            let ((), sealed) = self.write(true, |_| Ok(())).map_err(|source| self.failure(source))?;
            self.unsynced = false;
            let unsynced = sealed.map(Unsynced::Pages);
            self.flusher.hand(Commit { first: self.next_seq(), unsynced, head: None, waiting: Vec::new() });
        }
        Ok(())
    }

    /// Merges small blocks, without a sync of its own: until the next one the unmerged blocks are on disk.
    ///
    /// Readers see blocks up to the head, so no block may be merged that the head does not include yet.
    fn merge(&mut self) -> Result<(), Failure> {
        self.flusher.drain(self.next_seq());
        if self.flusher.has_failed() {
            return Ok(());
        }
        let mut small = std::mem::take(&mut self.small);
        self.write(false, |transaction| small.merge(transaction)).map_err(|source| self.failure(source))?;
        self.small = small;
        Ok(())
    }

    /// Writes the log anew without the content of some events. Everything that was submitted before is in it.
    fn redact(&mut self, redaction: &Redaction) -> Result<(), Failure> {
        self.store_pending()?;
        self.sync()?;
        self.flusher.drain(self.next_seq());
        if self.flusher.has_failed() {
            return Ok(());
        }
        let rewritten = rewrite(&self.shared, redaction, self.options.cache_bytes);
        self.pending = Pending::after(self.end.clone());
        // The file is another one even where something was refused at the end.
        let rewritten = self.settle_seed().map_err(rewrite::Stop::Failed).and(rewritten);
        let (told, served) = match rewritten {
            Ok(redacted) => (Ok(redacted), Ok(())),
            Err(rewrite::Stop::Refused(error)) => (Err(error), Ok(())),
            Err(rewrite::Stop::Failed(source)) => {
                let failure = self.failure(source);
                // The reason is there before anybody is told.
                self.shared.close_after(&failure.source);
                (Err(self.shared.closed.error().into()), Err(failure))
            }
        };
        // Who asked may have gone.
        let _ = redaction.answer.send(told);
        served
    }

    /// Takes up the seed of the log's own file, which is another one than before.
    pub(crate) fn settle_seed(&mut self) -> Result<(), StoreError> {
        let (log_id, secret) = (self.shared.log_id, self.options.wal_seed);
        self.seed = self.shared.with_database(|database| Seed::settle(&database.own, &log_id, secret))?;
        Ok(())
    }

    pub(crate) fn next_seq(&self) -> Seq {
        Seq(self.end.frontier.count() + 1)
    }

    pub(crate) fn head(&self) -> Head {
        Head {
            seq: Seq(self.end.frontier.count()),
            root: self.end.frontier.root(),
            recorded_at: self.end.recorded_at,
        }
    }

    pub(crate) fn failure(&self, source: StoreError) -> Failure {
        Failure { first: self.next_seq(), source: Arc::new(source) }
    }
}
