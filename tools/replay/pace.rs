//! How fast: as fast as it goes, or by the times that were recorded.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use caxton_events::Timestamp;

/// What tells how much time has passed since some moment, and waits. A test's moves when it is told to wait.
pub trait Watch: Sync {
    /// Time since the moment the watch began.
    fn elapsed(&self) -> Duration;

    /// Blocks until so much time has passed since then.
    fn wait_until(&self, at: Duration);
}

/// How fast events follow each other. Its text form is `full`, `recorded`, or a factor as in `10` or `x0.5`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Pace {
    /// As fast as they can be read.
    #[default]
    Full,
    /// So many times as fast as they were recorded: a finite number above 0.
    Times(f64),
}

/// A text that is no pace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no speed; write full, recorded, or how many times as fast, as in 10 or x0.5")]
pub struct PaceError {
    /// What was given.
    pub found: String,
}

impl FromStr for Pace {
    type Err = PaceError;

    fn from_str(text: &str) -> Result<Self, PaceError> {
        match text {
            "full" => return Ok(Self::Full),
            "recorded" => return Ok(Self::Times(1.0)),
            _ => (),
        }
        let number = text.strip_prefix(['x', '×']).unwrap_or(text);
        match number.parse::<f64>() {
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Self::Times(times)),
            Ok(_) | Err(_) => Err(PaceError { found: text.chars().take(64).collect() }),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full speed"),
            Self::Times(times) => write!(f, "{times} × recorded speed"),
        }
    }
}

/// How long after the first event of a range, recorded at `begins_at`, the one recorded at `at` is due.
pub fn due(begins_at: Timestamp, at: Timestamp, times: f64) -> Duration {
    let micros = at.unix_micros().saturating_sub(begins_at.unix_micros()) as f64 / times;
    Duration::try_from_secs_f64(micros / 1e6).unwrap_or(Duration::MAX)
}
