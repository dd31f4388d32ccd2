//! A circuit breaker: after enough failures in a row a provider is left alone for a while, then tried with care.

use std::time::Duration;

/// What part of the pause a request waits longer that may be why the provider failed.
const SUSPECTED_PART: u32 = 10;

/// What part of the pause a request stays away while another one tries.
const TRYING_PART: u32 = 10;
/// The shortest and the longest such time: it is not known when the other one is answered.
const TRYING_WAIT_MIN: Duration = Duration::from_millis(200);
const TRYING_WAIT_MAX: Duration = Duration::from_secs(3);

/// When it opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open it; 0: it never opens.
    pub failures: u32,
    /// How long it stays open before a request is let through to try.
    pub pause: Duration,
    /// Successes in a row, one request at a time, that close it again.
    pub successes: u32,
}

/// The breaker of one provider. Time comes from the caller.
#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Duration,
    },
    /// One request at a time tries.
    Trying {
        successes: u32,
        under_way: bool,
    },
}

/// What became of a request that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Failure,
    /// It says nothing about the provider: a refusal for good, or the caller went away.
    Neither,
}

impl Breaker {
    pub(super) const fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// Lets a request through, or says how long to stay away. Whoever was let through says what became of it. One that is
    /// `suspected` to be why the provider failed leaves others a part of the pause to try before it.
    pub(super) fn admit(&mut self, now: Duration, suspected: bool) -> Result<(), Duration> {
        let behind = if suspected { self.options.pause / SUSPECTED_PART } else { Duration::ZERO };
        let meanwhile = (self.options.pause / TRYING_PART).clamp(TRYING_WAIT_MIN, TRYING_WAIT_MAX);
        match &mut self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until } if now < *until + behind => Err((*until + behind).saturating_sub(now)),
            State::Open { .. } => {
                self.state = State::Trying { successes: 0, under_way: true };
                Ok(())
            }
            State::Trying { under_way: true, .. } => Err(meanwhile),
            State::Trying { under_way, .. } => {
                *under_way = true;
                Ok(())
            }
        }
    }

    /// What became of a request that was let through.
    pub(super) fn record(&mut self, now: Duration, outcome: Outcome) {
        let open = State::Open { until: now + self.options.pause };
        self.state = match (self.state, outcome) {
            (State::Closed { .. }, Outcome::Success) => State::Closed { failures: 0 },
            (State::Closed { failures }, Outcome::Failure) => {
                let failures = failures.saturating_add(1);
                let opens = self.options.failures > 0 && failures >= self.options.failures;
                if opens { open } else { State::Closed { failures } }
            }
            (State::Trying { successes, .. }, Outcome::Success) => {
                let successes = successes + 1;
                if successes >= self.options.successes {
                    State::Closed { failures: 0 }
                } else {
                    State::Trying { successes, under_way: false }
                }
            }
            (State::Trying { .. }, Outcome::Failure) => open,
            (State::Trying { successes, .. }, Outcome::Neither) => {
                State::Trying { successes, under_way: false }
            }
            // Requests that began before it opened.
            (state @ State::Open { .. }, _) | (state @ State::Closed { .. }, Outcome::Neither) => state,
        };
    }

    /// Whether requests are turned away, or let through one by one.
    pub(super) const fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: BreakerOptions =
        BreakerOptions { failures: 3, pause: Duration::from_mins(1), successes: 2 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_after_successes() {
        let mut breaker = Breaker::new(OPTIONS);
        for outcome in [Outcome::Failure, Outcome::Failure, Outcome::Success, Outcome::Failure] {
            assert_eq!(breaker.admit(at(0), false), Ok(()));
            breaker.record(at(0), outcome);
        }
        breaker.record(at(1), Outcome::Failure);
        assert!(!breaker.is_open(), "a success in between counts from the start again");
        breaker.record(at(2), Outcome::Failure);
        assert_eq!(breaker.admit(at(12), false), Err(at(50)));
        breaker.record(at(13), Outcome::Failure);
        assert_eq!(breaker.admit(at(61), false), Err(at(1)), "a late failure does not make the pause longer");
        assert_eq!(breaker.admit(at(62), false), Ok(()));
        assert_eq!(breaker.admit(at(62), false), Err(at(3)), "one tries at a time, and others wait a while");
        breaker.record(at(63), Outcome::Success);
        assert_eq!(breaker.admit(at(63), false), Ok(()));
        assert!(breaker.is_open());
        breaker.record(at(63), Outcome::Success);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_try_that_fails_opens_it_again_and_one_that_says_nothing_frees_its_place() {
        let mut breaker = Breaker::new(BreakerOptions { failures: 1, ..OPTIONS });
        breaker.record(at(0), Outcome::Failure);
        assert_eq!(breaker.admit(at(60), false), Ok(()));
        breaker.record(at(61), Outcome::Neither);
        assert_eq!(breaker.admit(at(61), false), Ok(()));
        breaker.record(at(62), Outcome::Failure);
        assert_eq!(breaker.admit(at(63), false), Err(at(59)));
    }

    #[test]
    fn a_request_that_may_be_to_blame_lets_others_try_first() {
        let mut breaker = Breaker::new(BreakerOptions { failures: 1, ..OPTIONS });
        breaker.record(at(0), Outcome::Failure);
        assert_eq!(breaker.admit(at(10), true), Err(at(56)), "it is told at once how long");
        assert_eq!(breaker.admit(at(60), true), Err(at(6)));
        assert_eq!(breaker.admit(at(60), false), Ok(()));
        breaker.record(at(61), Outcome::Failure);
        assert_eq!(breaker.admit(at(127), true), Ok(()), "where nobody else comes it is its turn");
    }

    #[test]
    fn whoever_comes_while_one_tries_waits_a_part_of_the_pause() {
        for (pause, wait) in [(1, 200), (10_000, 1_000), (3_600_000, 3_000)] {
            let pause = Duration::from_millis(pause);
            let mut breaker = Breaker::new(BreakerOptions { failures: 1, pause, ..OPTIONS });
            breaker.record(at(0), Outcome::Failure);
            assert_eq!(breaker.admit(pause, false), Ok(()));
            assert_eq!(breaker.admit(pause, false), Err(Duration::from_millis(wait)));
        }
    }

    #[test]
    fn with_no_failures_to_count_it_never_opens() {
        let mut breaker = Breaker::new(BreakerOptions { failures: 0, ..OPTIONS });
        for _ in 0..100 {
            breaker.record(at(0), Outcome::Failure);
        }
        assert_eq!(breaker.admit(at(0), false), Ok(()));
    }
}
