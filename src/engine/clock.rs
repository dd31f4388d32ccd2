//! The time of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use caxton_events::{Clock, Timestamp};

/// The machine's clock. The log keeps its records in order when this one is set back.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_unix_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}
