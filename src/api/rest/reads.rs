//! Reading without holding up the server: on blocking threads, so many at a time, after what must be visible is.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use caxton_events::Seq;
use caxton_events::log::{ReadError, StoreError};
use caxton_projections::view::{Part, View, Wait};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Api;
use super::problem::Problem;
use super::refusals;
use crate::telemetry;

/// Whose turn it is to read, or to do something else of which not much is done at a time.
pub(super) struct Turns {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    full: &'static str,
}

impl Turns {
    /// `running_max` at a time, `waiting_max` behind them; `full` is said to who finds no place.
    pub(super) fn new(running_max: usize, waiting_max: usize, full: &'static str) -> Self {
        Self {
            running: Arc::new(Semaphore::new(running_max.max(1))),
            waiting: AtomicUsize::new(0),
            waiting_max,
            full,
        }
    }

    pub(super) async fn take(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(permit);
        }
        let place = Place::behind(&self.waiting);
        if place.before >= self.waiting_max {
            return Err(refusals::overloaded(self.full));
        }
        Arc::clone(&self.running).acquire_owned().await.map_err(|_| refusals::stopping())
    }
}

/// A place in the queue; left when the request is answered or given up.
struct Place<'a> {
    waiting: &'a AtomicUsize,
    before: usize,
}

impl<'a> Place<'a> {
    fn behind(waiting: &'a AtomicUsize) -> Self {
        Self { before: waiting.fetch_add(1, Ordering::Relaxed), waiting }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Does `work` on a blocking thread.
async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| refusals::internal(&error))?
}

impl Api {
    /// Runs `read` on a blocking thread when its turn comes.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        elsewhere(self.in_turn(&self.turns, read).await?).await
    }

    /// The same for what the model has to do first, which may take minutes: it has turns of its own, so that nobody who reads waits
    /// for it.
    pub(super) async fn embed<T: Send + 'static>(
        &self,
        embed: impl FnOnce(&View) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        elsewhere(self.in_turn(&self.embeddings, embed).await?).await
    }

    /// The same for what takes milliseconds: on the thread that the request came to, whose other work moves to another one
    /// meanwhile. No thread need wake to read, and none to answer, which is a tenth of the time of a search. The time limit of
    /// the request is looked at only behind it.
    pub(super) async fn read_here<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let work = self.in_turn(&self.turns, read).await?;
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| catch_unwind(AssertUnwindSafe(work)))
                    .unwrap_or_else(|_| Err(refusals::internal(&io::Error::other("reading panicked"))))
            }
            RuntimeFlavor::CurrentThread | _ => {
                tokio::task::spawn_blocking(work).await.map_err(|error| refusals::internal(&error))?
            }
        }
    }

    /// What reads, once its turn has come.
    async fn in_turn<T, R: FnOnce(&View) -> Result<T, Problem>>(
        &self,
        turns: &Turns,
        read: R,
    ) -> Result<impl FnOnce() -> Result<T, Problem> + use<T, R>, Problem> {
        let turn = turns.take().await?;
        let engine = self.engine.clone();
        Ok(move || {
            let result = read(engine.view());
            if let Err(problem) = &result
                && problem.code() == refusals::GRAPH_DAMAGED
            {
                engine.graph_is_damaged(&problem.cause());
            }
            drop(turn);
            result
        })
    }

    /// The same for what SQLite alone answers: its time is a metric.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&View) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.read(move |view| {
            let started = Instant::now();
            let result = query(view);
            telemetry::sqlite_query_finished(started.elapsed());
            result
        })
        .await
    }

    /// What `read` finds, for the answer to a write that is recorded. A read that is refused or fails must not make it look as
    /// if nothing were written: then the answer is without what would have been found.
    pub(super) async fn read_behind_write<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, Problem> + Send + 'static,
    ) -> Option<T> {
        match self.read(read).await {
            Ok(found) => Some(found),
            Err(problem) => {
                tracing::debug!(code = problem.code(), "the answer to a write lacks what could not be read");
                None
            }
        }
    }

    /// Waits until reads of the memory include `seq`, for at most `min_seq_timeout`.
    pub(super) async fn caught_up(&self, seq: Option<Seq>, wait: Wait) -> Result<(), Problem> {
        let parts: &[Part] = match wait {
            Wait::Durable => &[],
            Wait::Indexed if self.engine.view().semantic().is_some() => &[Part::Graph, Part::Vectors],
            Wait::Applied | Wait::Indexed => &[Part::Graph],
        };
        self.reached(seq, parts).await
    }

    /// The same for reads of agents and conversations.
    pub(super) async fn talk_caught_up(&self, seq: Option<Seq>) -> Result<(), Problem> {
        self.reached(seq, &[Part::Talk]).await
    }

    async fn reached(&self, seq: Option<Seq>, parts: &[Part]) -> Result<(), Problem> {
        let Some(seq) = seq else {
            return Ok(());
        };
        let deadline = tokio::time::Instant::now() + self.options.min_seq_timeout;
        let mut pause = Duration::from_millis(1);
        loop {
            let positions = self.engine.view().positions();
            let mut places = parts.iter().map(|part| (part.name(), positions.get(*part)));
            let Some((name, position)) = places.find(|(_, position)| position.seq < seq) else {
                return Ok(());
            };
            if let Some(error) = position.stopped {
                // It only lacks what the log still holds: the log is the cause.
                if self.engine.log().closed().is_some_and(|closed| closed.to_string() == error) {
                    return Err(refusals::log_unreadable(&ReadError::Store(StoreError::Closed)));
                }
                return Err(refusals::projection_stopped(name, &error, None));
            }
            if tokio::time::Instant::now() >= deadline {
                let position = position.seq.0;
                let detail = format!(
                    "projection {name} is at {position}, {} was asked for and did not come within {:?}",
                    seq.0, self.options.min_seq_timeout
                );
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_CAUGHT_UP", detail)
                    .field("min_seq")
                    .value(&seq.0.to_string())
                    .detail("position", position)
                    .remedy("try again; check that the seq is one that this server answered")
                    .retry_after(1));
            }
            // Polling costs no thread; the projections are rarely more than a few milliseconds behind.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::Turns;

    #[tokio::test]
    async fn a_full_queue_of_reads_refuses_and_a_free_place_serves() {
        let turns = Turns::new(1, 0, "too many reads are waiting");
        let first = turns.take().await.unwrap();
        assert_eq!(turns.take().await.unwrap_err().code(), "OVERLOADED");
        drop(first);
        assert!(turns.take().await.is_ok());
    }
}
