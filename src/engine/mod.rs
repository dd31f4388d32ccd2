//! The pipeline: a command is decided, its events are committed to the log, projections fold them, the caller is
//! answered. Starting and stopping it in order.
//!
//! Reading order: [`submission`] (in and out), [`memory_writer`] and `memory_group` (decide, append, fold), [`undo`] (facts taken
//! back), [`cleanup`] and [`caretaker`] (facts that have to go), [`vector_fold`] (what follows
//! on its own), [`talk`] (messages in and out), [`message_router`], `answers`, `deadlines`, [`talk_fold`] and `talk_redo` (their pipeline),
//! `audit_fold` (what makes audits quick), [`inboxes`] and [`deliveries`] (who hears of them), [`start`] (recovery), [`rebuild`] and [`adopt`] (a projection built
//! anew meanwhile), `told` (threads whose panic health tells of), [`signing`] (the key of the log's heads), [`fork`] (a directory that shares a past), [`trim`] (one without
//! its oldest events), [`erase`] (what must not stay), `standstill` (what keeps rebuilds from bringing it back), [`copies`] (the
//! graph's file for who exports it), [`searches`] and [`kept`] (questions, and answers as long as they hold).

mod adopt;
pub mod advice;
mod answers;
mod audit_fold;
mod base;
pub mod caretaker;
pub mod cleanup;
#[cfg(test)]
mod cleanup_tests;
pub mod clock;
pub mod copies;
mod deadlines;
pub mod deliveries;
pub mod erase;
pub mod fork;
mod gauges;
pub mod inboxes;
pub mod kept;
pub mod lost_end;
mod memory_group;
#[cfg(test)]
mod memory_group_tests;
mod memory_writer;
mod message_router;
mod present;
pub mod queries;
mod rebuild;
#[cfg(test)]
mod rebuild_tests;
mod refold;
#[cfg(test)]
mod router_tests;
pub mod searches;
pub mod signing;
mod standstill;
mod start;
mod start_graph;
mod start_talk;
pub mod steps;
pub mod submission;
pub mod talk;
mod talk_fold;
mod talk_redo;
#[cfg(test)]
mod talk_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod told;
pub mod trim;
#[cfg(test)]
mod trim_tests;
pub mod undo;
mod vector_fold;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use caxton_events::log::{Log, Reader, Signer};
use caxton_events::{Record, Seq, SystemEvent};
use caxton_projections::audit::Postings;
use caxton_projections::graph::ReadError;
use caxton_projections::view::{Part, View};
use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;

pub use clock::SystemClock;
pub use gauges::Timed;
pub use rebuild::{Rebuild, RebuildRefusal, RebuildState};
pub use signing::SigningKeyError;
pub use start::{EngineOptions, StartError, StartStep, refuse_newer_format};
pub use submission::{Idempotency, Outcome, Submission, SubmitError, Wait};
pub use talk::{Done, RECORDS_BYTES_MAX, SentOutcome, SentResults, TalkError};
pub use undo::{UndoAsk, UndoError, UndoOutcome};

use crate::commands::{Caller, Ids, Refusal, Write, decide};
use memory_writer::{Asked, Pending};
use present::Folded;
use rebuild::Rebuilds;

/// A running Caxton without its edges. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    view: View,
    rebuilds: Arc<Rebuilds>,
    log: Reader,
    /// The log as long as it is written.
    sealer: Weak<Log>,
    postings: audit_fold::Maker,
    signer: Signer,
    /// Taken when the engine stops: then nothing more is accepted.
    commands: RwLock<Option<Sender<Asked>>>,
    /// The same for the message router.
    requests: RwLock<Option<Sender<talk::Request>>>,
    wakers: Arc<inboxes::Wakers>,
    leases: inboxes::Leases,
    threads: Mutex<Option<Threads>>,
    stopping: Arc<AtomicBool>,
    /// Why the engine did not end in order, if it did not.
    failed_end: OnceLock<String>,
    index_timeout: Duration,
    recovery: Recovery,
    /// Of the writer and all readers.
    sqlite_connections: usize,
    /// The end of the log when the engine started.
    started_at: Seq,
    data_dir: PathBuf,
    damaged: Arc<AtomicBool>,
    keepers: erase::Keepers,
    erasing: erase::Erasing,
    watched: advice::Watched,
    said: advice::Said,
    searches: searches::Searches,
}

struct Threads {
    memory: JoinHandle<Arc<Log>>,
    vectors: Option<JoinHandle<()>>,
    router: JoinHandle<()>,
    talk_fold: JoinHandle<()>,
    talk_store: JoinHandle<()>,
    /// Dropped to end the thread that stores.
    stop_store: Sender<()>,
}

/// What starting found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records folded into the graph to catch up.
    pub replayed: u64,
    /// Why the graph was rebuilt from the first record, if it was.
    pub graph_rebuilt: Option<String>,
    /// Why agents and conversations were rebuilt from the first record, if they were.
    pub talk_rebuilt: Option<String>,
    /// What was found in the vectors' files, if it was not the expected.
    pub vectors: Option<String>,
}

impl Engine {
    /// Hands a command to the memory writer and waits for its outcome.
    ///
    /// # Errors
    ///
    /// [`SubmitError`].
    pub async fn submit(&self, submission: Submission) -> Result<Outcome, SubmitError> {
        let wait = submission.wait;
        let outcome = self.enqueue(submission)?.await.map_err(|_| SubmitError::Stopped)??;
        if wait != Wait::Indexed || self.inner.view.positions().reached(outcome.last, wait) {
            return Ok(outcome);
        }
        let engine = self.clone();
        let waited = tokio::task::spawn_blocking(move || engine.wait_indexed(outcome.last)).await;
        waited.unwrap_or(Err(SubmitError::Stopped)).map(|()| outcome)
    }

    /// The same for callers outside of async code.
    ///
    /// # Errors
    ///
    /// [`SubmitError`].
    pub fn submit_blocking(&self, submission: Submission) -> Result<Outcome, SubmitError> {
        let wait = submission.wait;
        let outcome = self.enqueue(submission)?.blocking_recv().map_err(|_| SubmitError::Stopped)??;
        if wait == Wait::Indexed {
            self.wait_indexed(outcome.last)?;
        }
        Ok(outcome)
    }

    /// The same for the server itself: every scope is open to it.
    fn submit_everywhere(&self, submission: Submission) -> Result<Outcome, SubmitError> {
        let (answer, outcome) = oneshot::channel();
        self.ask_writer(Asked::Write(Pending { submission, everywhere: true, answer }))?;
        outcome.blocking_recv().map_err(|_| SubmitError::Stopped)?
    }

    fn wait_indexed(&self, last: Seq) -> Result<(), SubmitError> {
        use caxton_projections::view::WaitError;
        match self.inner.view.wait_for(last, Wait::Indexed, self.inner.index_timeout) {
            Ok(()) => Ok(()),
            Err(WaitError::TimedOut { .. }) => Err(SubmitError::TimedOut { last }),
            Err(WaitError::Stopped { part, error, .. }) => {
                Err(SubmitError::ProjectionStopped { name: part.name(), error, last })
            }
        }
    }

    fn enqueue(
        &self,
        submission: Submission,
    ) -> Result<oneshot::Receiver<Result<Outcome, SubmitError>>, SubmitError> {
        let (answer, outcome) = oneshot::channel();
        self.ask_writer(Asked::Write(Pending { submission, everywhere: false, answer }))?;
        Ok(outcome)
    }

    fn ask_writer(&self, asked: Asked) -> Result<(), SubmitError> {
        let commands = self.inner.commands.read().unwrap_or_else(PoisonError::into_inner);
        let sender = commands.as_ref().ok_or(SubmitError::Stopped)?;
        // Said of the log before anything else is looked at: what depends on it fails next, and is not the cause.
        if let Some(closed) = self.inner.log.closed() {
            return Err(SubmitError::Log(closed.into()));
        }
        match sender.try_send(asked) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(SubmitError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(match self.ended(Part::Graph) {
                Some((name, error)) => SubmitError::Unavailable { name, error },
                None => SubmitError::Stopped,
            }),
        }
    }

    /// The name of a projection whose thread takes nothing any more although the engine does not stop, and why.
    fn ended(&self, part: Part) -> Option<(&'static str, String)> {
        Some((part.name(), self.inner.view.positions().get(part).stopped?))
    }

    /// Why the rules would refuse some of `writes` now, each by its index. Writes nothing; blocks. It is an answer for who cannot
    /// submit them yet: what others write meanwhile may change it.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the memory could not be read.
    pub fn refusals(&self, caller: Caller<'_>, writes: &[Write]) -> Result<Vec<Refusal>, ReadError> {
        // The graph is milliseconds behind at the most. Where it has stopped, the answer is of the state it has.
        let _ = self.inner.view.wait_for(self.inner.log.head().seq, Wait::Applied, self.inner.index_timeout);
        let graph = self.inner.view.graph();
        let mut ids = Ids::starting_at(graph.next_id()?);
        let decision = decide(&Folded(graph.clone()), caller, writes, false, &mut ids)?;
        Ok(decision.results.into_iter().filter_map(Result::err).collect())
    }

    /// Commands that wait for the memory writer.
    pub fn pending(&self) -> usize {
        let commands = self.inner.commands.read().unwrap_or_else(PoisonError::into_inner);
        commands.as_ref().map_or(0, Sender::len)
    }

    /// How often the memory changed since the start: while this stays the same, a question has the same answer.
    pub fn memory_changes(&self) -> u64 {
        self.inner.view.positions().memory_changes()
    }

    /// All projections.
    pub fn view(&self) -> &View {
        &self.inner.view
    }

    /// The log, to read.
    pub fn log(&self) -> &Reader {
        &self.inner.log
    }

    /// What finds events in the log by who and what they are about.
    pub fn postings(&self) -> &Postings {
        &self.inner.postings.postings
    }

    /// The events about agents that were dropped from the log, in order.
    ///
    /// # Errors
    ///
    /// What the system said about the file they are kept in.
    pub fn dropped_agent_events(&self) -> std::io::Result<Vec<Record>> {
        base::dropped_agent_events(&self.inner.data_dir, &self.inner.log)
    }

    /// What signs the log's heads.
    pub fn signer(&self) -> &Signer {
        &self.inner.signer
    }

    /// Notes that the graph's file turned out to be damaged, as `cause` says: nothing more is decided on it, health says
    /// so, and the next start sets it aside and rebuilds it from the log. Everybody who meets the damage says so here; it is
    /// told once.
    pub fn graph_is_damaged(&self, cause: &str) {
        const REASON: &str = "its file is damaged; restart the server to rebuild it from the log";
        // Before the position says so: a graph that stopped and is not damaged is tried again.
        let was_known = self.inner.damaged.swap(true, Ordering::Relaxed);
        // Each time: a group that was under way when the damage was met may have moved the position since.
        self.inner.view.positions().stop(Part::Graph, REASON.to_owned());
        if was_known {
            tracing::debug!(projection = Part::Graph.name(), cause, "the graph is damaged");
            return;
        }
        tracing::error!(projection = Part::Graph.name(), cause, "a projection has stopped: {REASON}");
        if let Err(error) = start_graph::mark_damaged(&self.inner.data_dir) {
            tracing::error!(%error, "could not mark the graph as damaged; remove its folder before the next start");
        }
    }

    /// Whether every projection includes what was in the log when the engine started.
    pub fn is_caught_up(&self) -> bool {
        self.inner.view.positions().reached(self.inner.started_at, Wait::Indexed)
    }

    /// What starting found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// Begins to build a projection anew from the log while the one in use goes on; it is put in place when it is there.
    /// A graph that stopped because its file was damaged goes on then.
    ///
    /// # Errors
    ///
    /// [`RebuildRefusal`]; nothing was begun.
    pub fn rebuild(&self, part: Part) -> Result<(), RebuildRefusal> {
        self.inner.rebuilds.begin(part, "it was asked for".to_owned())
    }

    /// How the last rebuild of a projection in this run goes, or went.
    pub fn last_rebuild(&self, part: Part) -> Option<Rebuild> {
        self.inner.rebuilds.last(part)
    }

    /// Blocks until a projection is not being rebuilt any more, at most for `timeout`.
    pub fn wait_for_rebuild(&self, part: Part, timeout: Duration) {
        self.inner.rebuilds.wait(part, timeout);
    }

    /// The data directory.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.inner.data_dir
    }

    /// Whether [`Engine::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Relaxed)
    }

    /// Stops accepting, finishes what was accepted, saves the projections, closes the log. Blocks; a second call does
    /// nothing.
    pub fn stop(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        // Dropping the only sender ends the memory writer after its last group.
        drop(self.inner.commands.write().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.inner.requests.write().unwrap_or_else(PoisonError::into_inner).take());
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else {
            return;
        };
        for (name, thread) in [("message-router", threads.router), ("talk-fold", threads.talk_fold)] {
            if thread.join().is_err() {
                tracing::error!(name, "a thread panicked; the log is whole, the next start recovers");
            }
        }
        drop(threads.stop_store);
        self.inner.postings.stop();
        if threads.talk_store.join().is_err() {
            tracing::error!("the thread that stores the talk panicked; the next start folds it from the log");
        }
        let Ok(log) = threads.memory.join() else {
            tracing::error!("the memory writer panicked; the log is whole, the next start recovers");
            self.ended_badly("the memory writer panicked".to_owned());
            return;
        };
        if let Err(error) = log.append(vec![start::system_batch(SystemEvent::ServerStopped)]) {
            tracing::warn!(%error, "could not record the end of the server");
        }
        if let Some(vectors) = threads.vectors
            && vectors.join().is_err()
        {
            tracing::error!("the vector thread panicked; vectors are recovered at the next start");
        }
        self.inner.rebuilds.join();
        // The router and the memory writer are gone: this is the last handle.
        let Some(log) = Arc::into_inner(log) else { return };
        if let Err(error) = log.close() {
            tracing::error!(%error, "could not close the log in order");
            self.ended_badly(crate::failure::chain(&error));
        }
    }

    /// Why the log was not closed in order, once the engine has stopped; `None` where it was. What was acknowledged is found again
    /// at the next start.
    pub fn failed_end(&self) -> Option<&str> {
        self.inner.failed_end.get().map(String::as_str)
    }

    fn ended_badly(&self, why: String) {
        // It ends once.
        let _ = self.inner.failed_end.set(why);
    }
}
