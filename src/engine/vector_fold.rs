//! The thread that keeps the vectors: follows the log on its own, so that no writer waits for the model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caxton_events::log::{Filter, Reader};
use caxton_events::{Record, Subject};
use caxton_projections::driver::catch_up_to;
use caxton_projections::graph::GraphReader;
use caxton_projections::projection::Projection;
use caxton_projections::vector::Vectors;
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::Receiver;

use super::erase::ScrubVectors;
use super::rebuild::Offer;
use crate::{failure, telemetry};

/// How long the thread waits for records before it looks whether it should stop.
const IDLE: Duration = Duration::from_millis(200);
/// How long it waits after a failure before it tries again.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The same after many: what fails each time may cost the model as much as what goes well.
const RETRY_MAX: Duration = Duration::from_mins(1);
/// Records folded at a time while something else is waited for, which may wait as long for the last of them.
const BESIDE_RECORDS: usize = 128;
/// Records behind the log from which vectors are folded beside the graph.
const BESIDE_MIN: u64 = 2_000;

pub(super) struct VectorFold {
    pub(super) vectors: Vectors,
    pub(super) graph: GraphReader,
    /// Something was erased from the log.
    pub(super) scrubs: Receiver<ScrubVectors>,
    pub(super) log: Reader,
    pub(super) positions: Arc<Positions>,
    pub(super) stopping: Arc<AtomicBool>,
    /// How often unsaved vectors are saved while the thread runs.
    pub(super) save_every: Duration,
    /// Records folded at a time: more would keep `wait=indexed` waiting, fewer would starve the batching of the model.
    pub(super) records_max: usize,
    /// Another fold to take in place of the one in use.
    pub(super) offers: Receiver<Offer<Vectors>>,
    pub(super) retry: Retry,
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

/// Folds the next records, `max` at the most; how many there were.
fn fold_some(vectors: &mut Vectors, log: &Reader, max: usize) -> Result<usize, String> {
    let head = log.head().seq;
    if log.has_gaps() {
        vectors.expect_gaps();
    }
    let filter = Filter { until: Some(head), kinds: Some(vectors.kinds()), ..Filter::default() };
    let records: Vec<Record> = log
        .scan(vectors.checkpoint().next(), &filter)
        .take(max)
        .collect::<Result<_, _>>()
        .map_err(|error| failure::chain(&error))?;
    let through = records.last().filter(|_| records.len() == max).map_or(head, |last| last.seq);
    vectors.fold(&records, through).map_err(|error| failure::chain(&error))?;
    Ok(records.len())
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
                if let Err(error) = fold_some(vectors, log, BESIDE_RECORDS) {
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

/// Tells who waits for the vectors when their thread panics.
struct Told(Arc<Positions>);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(Part::Vectors, "its thread panicked; restart the server".to_owned());
        }
    }
}

impl VectorFold {
    /// Works until the engine stops; then saves. What is not folded by then is folded at the next start.
    pub(super) fn run(mut self) {
        let _told = Told(Arc::clone(&self.positions));
        let mut saved_at = Instant::now();
        let mut saved = self.vectors.checkpoint();
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
            if self.retry.at.is_some() || self.log.closed().is_some() {
                // Who waits for what is there, or for a closed log, is woken at once, every time.
                thread::sleep(IDLE);
            }
            if let Ok(offer) = self.offers.try_recv() {
                self.adopt(offer);
            }
            telemetry::projection_lagged(Part::Vectors.name(), self.lag());
            if self.vectors.checkpoint() > saved && saved_at.elapsed() >= self.save_every {
                self.save();
                saved_at = Instant::now();
                saved = self.vectors.checkpoint();
            }
        }
        self.save();
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
    fn adopt(&mut self, Offer { mut fold, answer }: Offer<Vectors>) {
        while fold.checkpoint() > self.vectors.checkpoint() {
            if let Err(error) = self.fold_next() {
                let _ = answer.send(Err(error));
                return;
            }
        }
        let checkpoint = self.vectors.checkpoint();
        let adopted = catch_up_to(&self.log, &mut fold, checkpoint, &mut |_, _| ())
            .map_err(|error| failure::chain(&error))
            .and_then(|_| {
                self.vectors.replace(fold).map_err(|fold| format!("it is at {}", fold.checkpoint()))
            });
        if adopted.is_ok() {
            self.retry.note(true, Instant::now());
            self.positions.advance(Part::Vectors, checkpoint);
            self.positions.memory_changed();
            self.save();
        }
        let _ = answer.send(adopted.map(|()| checkpoint));
    }

    /// Folds the order and leaves nothing of what it erases in the files.
    fn scrub(&mut self, erased: &[Subject]) -> Result<(), String> {
        let head = self.log.head().seq;
        while self.vectors.checkpoint() < head {
            self.fold_next()?;
        }
        self.vectors.scrub(&self.graph, erased).map_err(|error| failure::chain(&error))
    }

    /// Records that are in the log and not in the vectors.
    fn lag(&self) -> u64 {
        self.log.head().seq.0.saturating_sub(self.vectors.checkpoint().0)
    }

    fn fold_next(&mut self) -> Result<(), String> {
        let folded = fold_some(&mut self.vectors, &self.log, self.records_max);
        self.retry.note(folded.is_ok(), Instant::now());
        let folded = folded?;
        self.positions.advance(Part::Vectors, self.vectors.checkpoint());
        if folded > 0 {
            self.positions.memory_changed();
        }
        Ok(())
    }

    fn save(&mut self) {
        if let Err(error) = self.vectors.save() {
            let error = failure::chain(&error);
            tracing::warn!(%error, "could not save the vectors; the next start folds them again from the log");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Retry;

    #[test]
    fn what_fails_again_and_again_is_tried_after_twice_as_long_each_time() {
        let (mut retry, mut now) = (Retry::default(), Instant::now());
        assert!(retry.is_due(now));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            retry.note(false, now);
            assert!(!retry.is_due(now + Duration::from_millis(seconds * 1_000 - 1)), "{seconds}");
            now += Duration::from_secs(seconds);
            assert!(retry.is_due(now), "{seconds}");
        }
        retry.note(true, now);
        assert!(retry.is_due(now));
        retry.note(false, now);
        assert!(retry.is_due(now + Duration::from_secs(1)), "as after the first");
    }
}
