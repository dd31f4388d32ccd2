//! Time and chance as providers need them, so that tests bring their own.

use std::fmt;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

/// Time that only goes forward.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since some moment in the past, the same for all calls.
    fn now(&self) -> Duration;

    /// Ends after `time`.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's time.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }
}

/// Numbers that nobody can foresee.
pub trait Chance: Send + Sync + fmt::Debug {
    /// A number from 0 up to, but not including, 1.
    fn draw(&self) -> f64;
}

/// The system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemChance;

impl Chance for SystemChance {
    fn draw(&self) -> f64 {
        // Without random bytes, waits are half of what they may be: still spread by when each began.
        let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}
