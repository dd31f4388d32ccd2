//! A thread that looks after the metrics: it folds samples away, which otherwise pile up until somebody asks, and
//! turns counts into rates.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;

use super::{REQUESTS, names, process};

/// Time between two rounds; rates are over this window.
const INTERVAL: Duration = Duration::from_secs(5);

/// The running upkeep. Dropping it ends the thread.
#[derive(Debug)]
pub struct Upkeep {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why the upkeep could not start.
#[derive(Debug, thiserror::Error)]
#[error("could not start the thread that keeps the metrics")]
pub struct UpkeepError(#[source] std::io::Error);

impl Upkeep {
    pub(super) fn start(handle: PrometheusHandle) -> Result<Self, UpkeepError> {
        let (stop, stopped) = bounded::<()>(0);
        let run = move || {
            let mut last = Sample::now();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                handle.run_upkeep();
                process::record_memory();
                let now = Sample::now();
                let rates = rates(&last, &now);
                gauge!(names::SERVER_REQUESTS_PER_SECOND).set(rates.requests_per_second);
                gauge!(names::SERVER_CPU_USAGE).set(rates.cpu_percent);
                last = now;
            }
        };
        let thread = std::thread::Builder::new().name("caxton-metrics".to_owned()).spawn(run);
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(UpkeepError)?) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was told by its hook; metrics are no reason to stop in disorder.
            let _ = thread.join();
        }
    }
}

/// What was counted at one moment.
struct Sample {
    at: Instant,
    requests: u64,
    processor: Duration,
}

impl Sample {
    fn now() -> Self {
        let processor = process::process_time().unwrap_or_default();
        Self { at: Instant::now(), requests: REQUESTS.load(Ordering::Relaxed), processor }
    }
}

#[derive(Debug, PartialEq)]
struct Rates {
    requests_per_second: f64,
    cpu_percent: f64,
}

/// What happened a second between two samples.
fn rates(before: &Sample, after: &Sample) -> Rates {
    let seconds = after.at.duration_since(before.at).as_secs_f64().max(0.001);
    let processor = after.processor.saturating_sub(before.processor).as_secs_f64();
    Rates {
        requests_per_second: after.requests.saturating_sub(before.requests) as f64 / seconds,
        cpu_percent: 100.0 * processor / seconds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time() {
        let start = Instant::now();
        let sample = |seconds: u64, requests, millis| Sample {
            at: start + Duration::from_secs(seconds),
            requests,
            processor: Duration::from_millis(millis),
        };
        let then = Rates { requests_per_second: 20.0, cpu_percent: 50.0 };
        assert_eq!(rates(&sample(0, 100, 1_000), &sample(5, 200, 3_500)), then);
        let nothing = Rates { requests_per_second: 0.0, cpu_percent: 0.0 };
        assert_eq!(rates(&sample(5, 100, 1_000), &sample(5, 90, 900)), nothing);
    }
}
