//! A circuit breaker: an agent whose turns keep failing is left alone for a while, then tried once.

use std::time::Duration;

use caxton_events::agent::Circuit;
use caxton_events::{AgentEvent, AgentId, Timestamp};

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row that open it. Default: 10.
    pub failures: u32,
    /// Time until it is tried again. Default: 60 s.
    pub open_for: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self { failures: 10, open_for: Duration::from_mins(1) }
    }
}

/// The circuit of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    failures: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Timestamp,
    },
    /// One turn is under way to see.
    Probing,
}

impl Breaker {
    /// A circuit as it was recorded last. A probe that was under way is made again.
    pub fn recorded(circuit: Circuit, failures: u32, until: Option<Timestamp>) -> Self {
        let state = match circuit {
            Circuit::Closed => State::Closed,
            Circuit::Open | Circuit::HalfOpen => State::Open { until: until.unwrap_or(Timestamp::EPOCH) },
        };
        Self { failures, state }
    }

    /// Whether a turn may begin.
    pub fn lets_through(&self, now: Timestamp) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::Probing => false,
        }
    }

    /// When a turn may begin, if it may not now and only time has to pass.
    pub const fn until(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::Probing => None,
        }
    }

    /// A turn begins. The state from now on, if it is another one.
    pub fn begin(&mut self) -> Option<Circuit> {
        matches!(self.state, State::Open { .. }).then(|| {
            self.state = State::Probing;
            Circuit::HalfOpen
        })
    }

    /// A turn ended. The state from now on, if it is another one.
    pub fn end(&mut self, succeeded: bool, now: Timestamp, rules: &BreakerRules) -> Option<Circuit> {
        if succeeded {
            let closed = self.state == State::Closed;
            *self = Self::default();
            return (!closed).then_some(Circuit::Closed);
        }
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Probing => true,
            State::Closed => self.failures >= rules.failures,
            // A turn that began before the circuit opened.
            State::Open { .. } => false,
        };
        opens.then(|| {
            self.state = State::Open { until: later(now, rules.open_for) };
            Circuit::Open
        })
    }

    /// The turn that was to show how the agent does said nothing about it: another one may from `until` on. The state from
    /// now on, if it is another one.
    pub fn put_off(&mut self, until: Timestamp) -> Option<Circuit> {
        (self.state == State::Probing).then(|| {
            self.state = State::Open { until };
            Circuit::Open
        })
    }

    /// The event for a state that was just entered.
    pub fn event(&self, agent: &AgentId, circuit: Circuit) -> AgentEvent {
        AgentEvent::CircuitChanged {
            agent: agent.clone(),
            circuit,
            failures: self.failures,
            until: self.until(),
        }
    }
}

/// The moment `wait` after `now`.
pub fn later(now: Timestamp, wait: Duration) -> Timestamp {
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    Timestamp::from_unix_micros(now.unix_micros().saturating_add(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BreakerRules = BreakerRules { failures: 3, open_for: Duration::from_mins(1) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_micros(seconds * 1_000_000)
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let mut breaker = Breaker::default();
        for (succeeded, then) in [(false, None), (false, None), (true, None), (false, None), (false, None)] {
            assert_eq!(breaker.end(succeeded, at(0), &RULES), then);
            assert!(breaker.lets_through(at(0)));
        }
        assert_eq!(breaker.end(false, at(5), &RULES), Some(Circuit::Open));
        assert!(!breaker.lets_through(at(64)) && breaker.lets_through(at(65)));
        assert_eq!(breaker.end(false, at(6), &RULES), None, "a turn from before does not prolong it");
        assert_eq!(breaker.until(), Some(at(65)));
        assert_eq!(breaker.begin(), Some(Circuit::HalfOpen));
        assert!(!breaker.lets_through(at(1_000)), "one turn at a time is tried");
        assert_eq!(breaker.end(false, at(70), &RULES), Some(Circuit::Open));
        assert_eq!(breaker.until(), Some(at(130)));
        assert_eq!(breaker.begin(), Some(Circuit::HalfOpen));
        assert_eq!(breaker.end(true, at(131), &RULES), Some(Circuit::Closed));
        assert_eq!(breaker, Breaker::default());
    }

    #[test]
    fn a_try_that_says_nothing_is_made_again_and_counts_for_nothing() {
        let mut breaker = Breaker::recorded(Circuit::Open, 3, Some(at(9)));
        assert_eq!(breaker.put_off(at(20)), None, "nobody tries yet");
        assert_eq!(breaker.begin(), Some(Circuit::HalfOpen));
        assert_eq!(breaker.put_off(at(12)), Some(Circuit::Open));
        assert_eq!(breaker, Breaker::recorded(Circuit::Open, 3, Some(at(12))));
        assert_eq!(Breaker::default().put_off(at(12)), None);
    }

    #[test]
    fn a_recorded_circuit_goes_on() {
        let open = Breaker::recorded(Circuit::Open, 10, Some(at(9)));
        assert!(!open.lets_through(at(8)) && open.lets_through(at(9)));
        assert!(Breaker::recorded(Circuit::HalfOpen, 10, None).lets_through(at(0)));
        assert!(Breaker::recorded(Circuit::Closed, 2, None).lets_through(at(0)));
    }
}
