//! The time of the machine, and whether it is behind that of the log.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use caxton_events::{Clock, Timestamp};

use super::Engine;

/// A clock that is behind the log by no more is not told of: clocks are set by as much all the time.
const BEHIND_MIN: Duration = Duration::from_secs(5);

/// The machine's clock. The log keeps its records in order when this one is set back.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

/// A clock that never goes back: the time since this call.
pub(super) fn stopwatch() -> impl Fn() -> Duration + Send + Sync + 'static {
    let begun = Instant::now();
    move || begun.elapsed()
}

impl Engine {
    /// How far the machine's clock is behind the last record, when that is more than five seconds: it was ahead, and was set
    /// back since. Until it has caught up, everything is recorded with the time of that record.
    pub fn clock_behind(&self) -> Option<Duration> {
        behind(self.log().head().recorded_at, SystemClock.now())
    }
}

fn behind(last: Timestamp, now: Timestamp) -> Option<Duration> {
    let micros = last.unix_micros().saturating_sub(now.unix_micros());
    Some(Duration::from_micros(micros)).filter(|behind| *behind > BEHIND_MIN)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use caxton_events::Timestamp;

    use super::behind;

    #[test]
    fn a_clock_is_behind_when_it_is_by_more_than_clocks_are_set_by() {
        let at = |seconds: u64| Timestamp::from_unix_micros(seconds * 1_000_000);
        assert_eq!(behind(at(100), at(200)), None);
        assert_eq!(behind(at(100), at(95)), None);
        assert_eq!(behind(at(100), at(94)), Some(Duration::from_secs(6)));
    }
}
