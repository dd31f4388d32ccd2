//! Messages offered at a rate, each counted from the moment it was due.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::crowd::medium::{at, syncs};
use crate::crowd::table::Table;
use crate::crowd::{Crowd, Mode, runtime};

const AGENTS: usize = 1_000;
/// Not counted at the beginning.
const WARM_UP: Duration = Duration::from_secs(2);
const P50_MAX: Duration = Duration::from_millis(1);
const P99_MAX: Duration = Duration::from_millis(10);

/// Moments after the start at which messages are due, `rate` a second in the mean.
fn due(rate: u64, time: Duration) -> Vec<Duration> {
    let (mut state, mut now, mut moments) = (0x9e37_79b9_7f4a_7c15_u64, 0.0, Vec::new());
    while now < time.as_secs_f64() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let share = ((state >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        now -= share.ln() / rate as f64;
        moments.push(Duration::from_secs_f64(now));
    }
    moments
}

/// Offers messages and prints the quantiles of their latencies beside those of the medium.
pub(crate) fn offered(dir: &Path, rate: u64, seconds: u64) {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).unwrap();
    let runtime = runtime();
    let crowd = Arc::new(Crowd::start(dir, &runtime, AGENTS));
    let mut medium = syncs(dir, 1_000);
    let due = due(rate, WARM_UP + Duration::from_secs(seconds));
    let latencies: Arc<Vec<AtomicU64>> = Arc::new(due.iter().map(|_| AtomicU64::new(u64::MAX)).collect());
    let (start, mut late) = (Instant::now(), Vec::with_capacity(due.len()));
    for (n, moment) in due.iter().enumerate() {
        let intended = start + *moment;
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        late.push(intended.elapsed());
        let (crowd, latencies) = (Arc::clone(&crowd), Arc::clone(&latencies));
        runtime.spawn(async move {
            // A message that is refused or lost keeps the longest latency there is.
            if crowd.engine.send(crowd.message(n as u64, Mode::Direct)).await.is_ok() {
                latencies[n].store(intended.elapsed().as_nanos() as u64, Ordering::Relaxed);
            }
        });
    }
    let unanswered = || latencies.iter().filter(|nanos| nanos.load(Ordering::Relaxed) == u64::MAX).count();
    let offered_for = start.elapsed();
    while unanswered() > 0 && start.elapsed() < offered_for + Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    medium.extend(syncs(dir, 1_000));
    medium.sort_unstable();
    let from = due.partition_point(|moment| *moment < WARM_UP);
    let mut counted: Vec<Duration> =
        latencies[from..].iter().map(|nanos| Duration::from_nanos(nanos.load(Ordering::Relaxed))).collect();
    counted.sort_unstable();
    late.sort_unstable();
    let sync = at(&medium, 0.99);
    let p99_max = P99_MAX.max(3 * sync);
    let mut table = Table::default();
    table.note(
        "offered",
        format!("{rate}/s for {seconds} s, {} counted, {} unanswered", counted.len(), unanswered()),
    );
    table.row(
        "p50",
        format!("{:?}", at(&counted, 0.5)),
        format!("< {P50_MAX:?}"),
        at(&counted, 0.5) < P50_MAX,
    );
    table.note("p90", format!("{:?}", at(&counted, 0.9)));
    table.row(
        "p99",
        format!("{:?}", at(&counted, 0.99)),
        format!("< {p99_max:?}"),
        at(&counted, 0.99) < p99_max,
    );
    table.note("p99.9, most", format!("{:?}, {:?}", at(&counted, 0.999), at(&counted, 1.0)));
    table.note("fdatasync of 4 KiB: p50, p99", format!("{:?}, {sync:?}", at(&medium, 0.5)));
    table
        .note("the sender itself was late: p50, p99", format!("{:?}, {:?}", at(&late, 0.5), at(&late, 0.99)));
    table.print();
    crowd.engine.stop();
    let _ = std::fs::remove_dir_all(dir);
}
