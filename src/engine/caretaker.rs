//! Threads that look after a server now and then: whether a limit is passed, and whether something has to go.

use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::Engine;
use super::cleanup::{Cleanup, SweepError};
use super::submission::SubmitError;
use crate::failure;

/// Time between two looks at the limits.
const INTERVAL: Duration = Duration::from_secs(15);

/// Time after which frequent queries are written again.
const KEPT_EVERY: Duration = Duration::from_mins(5);

/// Time between two looks at whether the words of all texts are in memory: they are not after another graph was put in place,
/// or something was erased.
const WORDS_EVERY: Duration = Duration::from_secs(1);

/// A running caretaker. Dropping it ends its thread.
#[derive(Debug)]
pub struct Caretaker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no caretaker.
#[derive(Debug, thiserror::Error)]
#[error("could not start the thread {name}")]
pub struct CaretakerError {
    /// Its name.
    name: &'static str,
    /// What the system said.
    #[source]
    source: std::io::Error,
}

/// Never gives anything; disconnected when the caretaker is to end.
type Stopped = Receiver<()>;

impl Caretaker {
    /// Looks at the limits of `engine` at once, and from then on every 15 seconds.
    ///
    /// # Errors
    ///
    /// [`CaretakerError`] when the system gives no thread.
    pub fn watch(engine: &Engine) -> Result<Self, CaretakerError> {
        let engine = engine.clone();
        Self::start("caretaker", move |stopped| {
            engine.watch();
            while passed(stopped, INTERVAL) {
                engine.watch();
            }
        })
    }

    /// Sweeps the memory of `engine` in the intervals of `cleanup`, the first time after one.
    ///
    /// # Errors
    ///
    /// [`CaretakerError`] when the system gives no thread.
    pub fn sweep(engine: &Engine, cleanup: Cleanup) -> Result<Self, CaretakerError> {
        engine.expect_sweeps(&cleanup);
        let engine = engine.clone();
        Self::start("cleanup", move |stopped| {
            while passed(stopped, cleanup.interval) {
                let go_on = || stopped.try_recv() == Err(TryRecvError::Empty) && !engine.is_stopping();
                match engine.sweep(&cleanup, &go_on) {
                    Ok(_) | Err(SweepError::Submit(SubmitError::Stopped)) => (),
                    // The next sweep goes on where this one ended.
                    Err(SweepError::Submit(SubmitError::Overloaded)) => {
                        tracing::info!("clients' writes go first: what memory.cleanup does not keep waits");
                    }
                    Err(error) => {
                        tracing::warn!(error = %failure::chain(&error), "a sweep of memory.cleanup ended before its end");
                    }
                }
            }
        })
    }

    /// Computes the vectors of the queries that were asked most before this start, and keeps those that are asked now: every
    /// five minutes, and at the end.
    ///
    /// # Errors
    ///
    /// [`CaretakerError`] when the system gives no thread.
    pub fn queries(engine: &Engine) -> Result<Self, CaretakerError> {
        let engine = engine.clone();
        Self::start("queries", move |stopped| {
            let keep = || {
                if let Err(error) = engine.keep_queries() {
                    tracing::warn!(%error, "could not keep the frequent queries");
                }
            };
            engine.warm_queries();
            while passed(stopped, KEPT_EVERY) {
                keep();
            }
            keep();
        })
    }

    /// Reads the words of all texts for searches, so that no search has to: at once, and when they are forgotten.
    ///
    /// # Errors
    ///
    /// [`CaretakerError`] when the system gives no thread.
    pub fn words(engine: &Engine) -> Result<Self, CaretakerError> {
        let graph = engine.view().graph().clone();
        Self::start("words", move |stopped| {
            loop {
                if let Err(error) = graph.load_words() {
                    // There may be no graph yet: the next look finds one, or the next search says the same.
                    tracing::debug!(error = %failure::chain(&error), "could not read the words of all texts");
                }
                if !passed(stopped, WORDS_EVERY) {
                    return;
                }
            }
        })
    }

    fn start(
        name: &'static str,
        work: impl FnOnce(&Stopped) + Send + 'static,
    ) -> Result<Self, CaretakerError> {
        let (stop, stopped) = bounded::<()>(0);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&stopped));
        let thread = thread.map_err(|source| CaretakerError { name, source })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

/// Waits; whether the time passed, and not the caretaker's life.
fn passed(stopped: &Stopped, time: Duration) -> bool {
    stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was told by its hook; the server needs nothing of it to stop.
            let _ = thread.join();
        }
    }
}
