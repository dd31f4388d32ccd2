//! The thread that keeps the vectors: follows the log on its own, so that no writer waits for the model.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caxton_events::log::{Filter, Reader};
use caxton_events::{Event, Kind, Record, Seq, Subject, SystemEvent};
use caxton_projections::driver::CatchUpError;
use caxton_projections::graph::GraphReader;
use caxton_projections::projection::Projection;
use caxton_projections::shred::shred;
use caxton_projections::vector::Vectors;
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::Receiver;

use super::erase::ScrubVectors;
use super::rebuild::{Failed, Offer, STOPS};
use crate::{failure, telemetry};

/// How long the thread waits for records before it looks whether it should stop.
const IDLE: Duration = Duration::from_millis(200);
/// How long it waits after a failure before it tries again.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The same after many: what fails each time may cost the model as much as what goes well.
const RETRY_MAX: Duration = Duration::from_mins(1);
/// Content of records, in bytes, with which a step ends: whoever stops the thread, or has something erased, waits until the model has
/// been at it. The record that reaches it is still in the step, which holds less than this and one record more.
const STEP_BYTES: u64 = 1 << 20;
/// Records folded at a time while something else is waited for, which may wait as long for the last of them.
const BESIDE_RECORDS: usize = 128;
/// Records behind the log from which vectors are folded beside the graph.
const BESIDE_MIN: u64 = 2_000;
/// So many times as long as a save took, the next one is waited for: all of the state is written, and nothing folded meanwhile.
const SAVE_SHARE: u32 = 30;
/// How often the state is saved where only its checkpoint has moved, over messages mostly: passing over them again takes no time.
const SAVE_CHECKPOINT_EVERY: Duration = Duration::from_hours(1);

pub(super) struct VectorFold {
    pub(super) vectors: Vectors,
    pub(super) graph: GraphReader,
    /// Something was erased from the log.
    pub(super) scrubs: Receiver<ScrubVectors>,
    pub(super) log: Reader,
    pub(super) positions: Arc<Positions>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) saving: Saving,
    /// Records folded at a time: more would keep `wait=indexed` waiting, fewer would starve the batching of the model.
    pub(super) records_max: usize,
    /// Another fold to take in place of the one in use.
    pub(super) offers: Receiver<Offer<Vectors>>,
    pub(super) retry: Retry,
    /// The mark of vectors that were taken over from a parent, some of them perhaps of texts that the log does not have.
    pub(super) inherited: Option<PathBuf>,
}

/// When a fold that failed is tried again: after twice as long each time.
#[derive(Debug, Default)]
pub(super) struct Retry {
    waits: Duration,
    at: Option<Instant>,
}

impl Retry {
    fn is_due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    fn note(&mut self, went_well: bool, now: Instant) {
        if went_well {
            *self = Self::default();
        } else {
            self.waits = (self.waits * 2).clamp(RETRY_MIN, RETRY_MAX);
            self.at = now.checked_add(self.waits);
        }
    }
}

/// When vectors are saved while the thread runs.
#[derive(Debug)]
pub(super) struct Saving {
    /// The least time between two saves.
    every: Duration,
    /// When the last one ended, well or not.
    at: Instant,
    took: Duration,
}

impl Saving {
    pub(super) fn every(every: Duration, now: Instant) -> Self {
        Self { every, at: now, took: Duration::ZERO }
    }

    fn is_due(&self, now: Instant, unsaved: u64, has_moved: bool) -> bool {
        let wait = self.every.max(self.took.saturating_mul(SAVE_SHARE));
        let wait = if unsaved > 0 { wait } else { wait.max(SAVE_CHECKPOINT_EVERY) };
        (unsaved > 0 || has_moved) && now.saturating_duration_since(self.at) >= wait
    }

    fn note(&mut self, began: Instant, ended: Instant) {
        (self.at, self.took) = (ended, ended.saturating_duration_since(began));
    }
}

/// Folds the next records up to `until`, which lies behind the checkpoint, `max` at the most; how many there were.
pub(super) fn fold_some(
    vectors: &mut Vectors,
    log: &Reader,
    until: Seq,
    max: usize,
) -> Result<usize, Failed> {
    if log.has_gaps() {
        vectors.expect_gaps();
    }
    let filter = Filter { until: Some(until), kinds: Some(vectors.kinds()), ..Filter::default() };
    let mut scan = log.scan(vectors.checkpoint().next(), &filter);
    let mut records: Vec<Record> = Vec::new();
    let through = loop {
        let is_full = records.len() >= max || scan.content_bytes() >= STEP_BYTES;
        if let Some(last) = records.last().filter(|_| is_full) {
            break last.seq;
        }
        match scan.next() {
            Some(record) => records.push(record.map_err(|error| Failed::of(&error))?),
            None => break reached(scan.stats().reached, until)?,
        }
    };
    // Its snapshot is not kept while the model works.
    drop(scan);
    vectors.fold(&records, through).map_err(|error| Failed::of(&error))?;
    Ok(records.len())
}

/// `until`, if a scan that ended came so far: what it did not see must not count as folded.
fn reached(found: Seq, until: Seq) -> Result<Seq, String> {
    if found < until { Err(CatchUpError::Short { found, head: until }.to_string()) } else { Ok(until) }
}

/// Does `work` while vectors that are far behind the log are folded on a thread of their own, until `work` is done or they
/// are there. What fails there is tried again, and told, by the thread that keeps them.
pub(super) fn fold_beside<T>(vectors: Option<&mut Vectors>, log: &Reader, work: impl FnOnce() -> T) -> T {
    let head = log.head().seq;
    let Some(vectors) = vectors.filter(|vectors| head.0.saturating_sub(vectors.checkpoint().0) > BESIDE_MIN)
    else {
        return work();
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let fold = || {
            while !done.load(Ordering::Relaxed) && vectors.checkpoint() < head {
                if let Err(Failed { text: error, .. }) = fold_some(vectors, log, head, BESIDE_RECORDS) {
                    tracing::warn!(%error, "could not fold the vectors beside the graph; they are folded behind it");
                    return;
                }
            }
        };
        // Where the system gives no thread, they are folded later.
        let _ = thread::Builder::new().name("vector-fold".to_owned()).spawn_scoped(scope, fold);
        let worked = work();
        done.store(true, Ordering::Relaxed);
        worked
    })
}

impl VectorFold {
    /// Works until the engine stops; then saves. What is not folded by then is folded at the next start.
    pub(super) fn run(mut self) {
        while !self.stopping.load(Ordering::Relaxed) {
            if let Ok((erased, answer)) = self.scrubs.try_recv() {
                // Who asked may have gone; the next start asks again.
                let _ = answer.send(self.scrub(&erased));
            }
            let head = self.log.wait_beyond(self.vectors.checkpoint(), IDLE);
            let is_due = head > self.vectors.checkpoint() && self.retry.is_due(Instant::now());
            if is_due && let Err(error) = self.fold_next() {
                self.stopped(error);
            }
            self.keep_own();
            if self.retry.at.is_some() || self.log.closed().is_some() {
                // Who waits for what is there, or for a closed log, is woken at once, every time.
                thread::sleep(IDLE);
            }
            if let Ok(offer) = self.offers.try_recv() {
                self.adopt(offer);
            }
            telemetry::projection_lagged(Part::Vectors.name(), self.lag());
            if self.saving.is_due(Instant::now(), self.unsaved(), self.has_moved()) {
                self.save();
            }
        }
        if self.unsaved() > 0 || self.has_moved() {
            self.save();
        }
    }

    /// How much of the vectors is in no file: records that were folded, and one more for indexes, which are built behind them.
    fn unsaved(&self) -> u64 {
        self.vectors.unsaved() + u64::from(self.vectors.has_unsaved_index())
    }

    /// Whether the checkpoint is another one than that on disk.
    fn has_moved(&self) -> bool {
        self.vectors.checkpoint() != self.vectors.saved()
    }

    /// Makes visible why the vectors do not go on. They are tried again all the same, so that it is told once, and again when it
    /// is another failure.
    fn stopped(&self, error: String) {
        let known = self.positions.get(Part::Vectors).stopped;
        // A closed log is not read any more. Nothing is wrong with the vectors: the next start folds the rest.
        let closed = self.log.closed().map(|closed| closed.to_string());
        if closed.is_none() && known.as_ref() != Some(&error) {
            tracing::error!(projection = Part::Vectors.name(), %error, "a projection has stopped");
        }
        self.positions.stop(Part::Vectors, closed.unwrap_or(error));
    }

    /// Folds what another fold lacks, or the one in use does, and takes it in place of that.
    fn adopt(&mut self, Offer { fold, answer }: Offer<Vectors>) {
        let adopted = self.take(fold);
        let _ = answer.send(adopted);
    }

    fn take(&mut self, mut fold: Vectors) -> Result<Seq, String> {
        while fold.checkpoint() > self.vectors.checkpoint() {
            self.goes_on()?;
            self.fold_next()?;
        }
        let checkpoint = self.vectors.checkpoint();
        while fold.checkpoint() < checkpoint {
            self.goes_on()?;
            fold_some(&mut fold, &self.log, checkpoint, self.records_max).map_err(|failed| failed.text)?;
        }
        self.vectors.replace(fold).map_err(|fold| format!("it is at {}", fold.checkpoint()))?;
        self.retry.note(true, Instant::now());
        self.positions.memory_changed();
        self.positions.advance(Part::Vectors, checkpoint);
        self.save();
        Ok(checkpoint)
    }

    /// An error when the engine stops: what many steps would take is not begun any more.
    fn goes_on(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) { Err(STOPS.to_owned()) } else { Ok(()) }
    }

    /// Leaves nothing of what is erased in the files. What lies before the order need not be folded for that: it may be much, and
    /// the model may fail over it.
    fn scrub(&mut self, erased: &[Subject]) -> Result<(), String> {
        self.forget(erased)?;
        self.vectors.scrub(&self.graph, erased).map_err(|error| failure::chain(&error))
    }

    /// Takes out what was taken over from a parent and is of no text here, once everything is folded: nobody could have it erased.
    fn keep_own(&mut self) {
        let is_due = self.inherited.is_some()
            && self.lag() == 0
            && self.graph.checkpoint().is_ok_and(|graph| graph >= self.vectors.checkpoint());
        let Some(mark) = self.inherited.take_if(|_| is_due) else { return };
        let kept = self.vectors.scrub(&self.graph, &[]).map_err(|error| failure::chain(&error));
        if let Err(error) = kept.and_then(|()| shred(&mark).map_err(|error| error.to_string())) {
            tracing::warn!(%error, "vectors of the parent's other texts could not be taken out; the next start tries again");
        }
    }

    /// Takes out what orders behind the checkpoint are about to: up to there the log shows nothing more of it. What the scopes of an
    /// order hold that is folded already was written since.
    fn forget(&mut self, erased: &[Subject]) -> Result<(), String> {
        let (head, after) = (self.log.head().seq, self.vectors.checkpoint());
        if after >= head {
            return Ok(());
        }
        let kinds = Some(vec![Kind::ErasureOrdered]);
        let mut orders =
            self.log.scan(after.next(), &Filter { until: Some(head), kinds, ..Filter::default() });
        for order in orders.by_ref() {
            let order = order.map_err(|error| failure::chain(&error))?;
            if let Event::System(SystemEvent::ErasureOrdered { mut subjects, .. }) = order.event {
                subjects.retain(|subject| erased.contains(subject));
                self.vectors.forget(&subjects);
                self.positions.memory_changed();
            }
        }
        reached(orders.stats().reached, head).map(drop)
    }

    /// Records that are in the log and not in the vectors.
    fn lag(&self) -> u64 {
        self.log.head().seq.0.saturating_sub(self.vectors.checkpoint().0)
    }

    fn fold_next(&mut self) -> Result<(), String> {
        let (head, before) = (self.log.head().seq, self.vectors.checkpoint());
        let folded = fold_some(&mut self.vectors, &self.log, head, self.records_max);
        self.retry.note(folded.is_ok(), Instant::now());
        // Before anybody hears how far they are. Where one behind an order to erase fails, those before it are folded.
        if self.vectors.checkpoint() > before && folded != Ok(0) {
            self.positions.memory_changed();
        }
        folded.map_err(|failed| failed.text)?;
        self.positions.advance(Part::Vectors, self.vectors.checkpoint());
        Ok(())
    }

    fn save(&mut self) {
        let began = Instant::now();
        if let Err(error) = self.vectors.save() {
            let error = failure::chain(&error);
            tracing::warn!(%error, "could not save the vectors; that is tried again, and a start folds them again from the log");
        }
        self.saving.note(began, Instant::now());
    }
}

#[cfg(test)]
mod tests;
