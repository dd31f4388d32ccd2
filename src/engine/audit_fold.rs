//! The thread that makes the postings of the audit trail: behind the writer's back, and out of its way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use caxton_events::log::Reader;
use caxton_projections::audit::{self, AuditError, Postings, Step};
use caxton_projections::view::Part;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::StartError;
use super::rebuild::Rebuilds;
use crate::{failure, telemetry};

/// How long the thread waits for the log to grow before it looks again.
const IDLE: Duration = Duration::from_secs(1);
/// How long it waits after a failure before it tries again.
const RETRY: Duration = Duration::from_secs(30);
/// While the log grows, the thread rests this many times as long as it worked: it takes a tenth of a core at the most.
const REST: u32 = 9;
/// Longest rest.
const REST_MAX: Duration = Duration::from_secs(5);

struct AuditFold {
    postings: Postings,
    log: Reader,
    rebuilds: Arc<Rebuilds>,
    stopping: Arc<AtomicBool>,
    /// Ends when the engine stops.
    stop: Receiver<()>,
}

/// The postings, and the thread that makes them.
pub(super) struct Maker {
    pub(super) postings: Postings,
    /// The thread, and what ends it when it is dropped.
    running: Mutex<Option<(JoinHandle<()>, Sender<()>)>>,
}

/// Opens the postings of a data directory and goes on making them. Nobody waits for it.
pub(super) fn start(
    data_dir: &Path,
    log: &Reader,
    rebuilds: &Arc<Rebuilds>,
    stopping: &Arc<AtomicBool>,
) -> Result<Maker, StartError> {
    let postings = Postings::at(data_dir);
    let (sender, stop) = bounded(0);
    let (rebuilds, stopping) = (Arc::clone(rebuilds), Arc::clone(stopping));
    let fold = AuditFold { postings: postings.clone(), log: log.clone(), rebuilds, stopping, stop };
    let thread = thread::Builder::new().name("audit-postings".to_owned()).spawn(|| fold.run());
    let running = Mutex::new(Some((thread.map_err(StartError::Thread)?, sender)));
    Ok(Maker { postings, running })
}

impl Maker {
    /// Ends the thread.
    pub(super) fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((thread, stop)) = running else { return };
        drop(stop);
        if thread.join().is_err() {
            tracing::error!("the thread of the audit trail panicked; its postings are made again");
        }
    }
}

impl AuditFold {
    /// Works until the engine stops. What is not there by then is made after the next start.
    fn run(self) {
        if let Err(error) = self.postings.open(&self.log).and_then(|()| self.postings.tidy()) {
            self.failed(&error);
        }
        for dropped in self.postings.status().dropped {
            tracing::warn!(dropped, "postings of the audit trail are made again");
        }
        loop {
            let rest = self.work();
            self.report();
            if self.stop.recv_timeout(rest) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// Does what is next and says how long to rest.
    fn work(&self) -> Duration {
        if self.rebuilds.is_running(Part::Graph) {
            // That is waited for, and needs the cores and the medium.
            return IDLE;
        }
        let (began, head) = (Instant::now(), self.log.head().seq);
        let stopping = || self.stopping.load(Ordering::Relaxed);
        match self.postings.step(&self.log, &stopping) {
            Ok(Step::Done) => {
                self.postings.note_failure(None);
                IDLE
            }
            Ok(Step::Built { .. } | Step::Merged) => {
                self.postings.note_failure(None);
                let is_growing = self.log.head().seq > head;
                if is_growing { (began.elapsed() * REST).min(REST_MAX) } else { Duration::ZERO }
            }
            Err(error) => {
                match self.log.closed() {
                    // It is the log that has failed, and who keeps it tells of it.
                    Some(closed) => self.postings.note_failure(Some(closed.to_string())),
                    None => self.failed(&error),
                }
                RETRY
            }
        }
    }

    fn failed(&self, error: &AuditError) {
        let error = failure::chain(error);
        tracing::warn!(projection = audit::NAME, %error, "no postings are made; audits read the log instead");
        self.postings.note_failure(Some(error));
    }

    fn report(&self) {
        let status = self.postings.status();
        telemetry::projection_lagged(audit::NAME, self.log.head().seq.0.saturating_sub(status.through.0));
        telemetry::postings_kept(status.bytes);
    }
}
