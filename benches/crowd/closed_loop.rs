//! So many messages in flight: each sender waits for its answer before it sends again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::{Crowd, Mode};

/// How messages are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) mode: Mode,
    /// Messages sent and not answered.
    pub(crate) in_flight: usize,
    /// Messages of one call.
    pub(crate) group: usize,
}

/// Senders at work.
pub(crate) struct Running {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Running {
    /// Starts them. Numbers of messages begin at `from`.
    pub(crate) fn start(crowd: &Arc<Crowd>, runtime: &Runtime, load: Load, from: u64) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let next = Arc::new(AtomicU64::new(from));
        let mut tasks = JoinSet::new();
        for _ in 0..load.in_flight.div_ceil(load.group) {
            let (crowd, stop) = (Arc::clone(crowd), Arc::clone(&stop));
            let (answered, next) = (Arc::clone(&answered), Arc::clone(&next));
            let run = async move {
                while !stop.load(Ordering::Relaxed) {
                    let first = next.fetch_add(load.group as u64, Ordering::Relaxed);
                    if load.group == 1 {
                        crowd.engine.send(crowd.message(first, load.mode)).await.unwrap();
                    } else {
                        let numbers = first..first + load.group as u64;
                        let wishes = numbers.map(|n| crowd.message(n, load.mode)).collect();
                        let sent = crowd.engine.send_many(wishes, true).await.unwrap();
                        assert_eq!(sent.len(), load.group, "one answer a message");
                    }
                    answered.fetch_add(load.group as u64, Ordering::Relaxed);
                }
            };
            tasks.spawn_on(run, runtime.handle());
        }
        Self { tasks, stop, answered }
    }

    /// Messages answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets every sender finish.
    pub(crate) fn stop(mut self, runtime: &Runtime) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            while let Some(task) = self.tasks.join_next().await {
                task.unwrap();
            }
        });
        self.answered()
    }
}

/// Messages a second: after a second to warm up, over `time`. Also how many were sent altogether.
pub(crate) fn rate(
    crowd: &Arc<Crowd>,
    runtime: &Runtime,
    load: Load,
    time: Duration,
    from: u64,
) -> (f64, u64) {
    let running = Running::start(crowd, runtime, load, from);
    std::thread::sleep(Duration::from_secs(1));
    let (before, start) = (running.answered(), Instant::now());
    std::thread::sleep(time);
    let rate = (running.answered() - before) as f64 / start.elapsed().as_secs_f64();
    (rate, running.stop(runtime))
}
