//! When operations are due. A plan that is fixed before the first one is sent: a server that falls behind changes nothing in it.

use std::time::Duration;

/// The phase in which a rate is reached.
const RAMP_UP: &str = "ramp-up";

/// A stretch with a rate, or with one that grows evenly from one to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Phase {
    /// What it is called in the results.
    pub(super) name: &'static str,
    pub(super) lasts: Duration,
    /// Operations a second where it begins and where it ends.
    pub(super) rates: (f64, f64),
}

impl Phase {
    /// Operations due in it before `at`, from its beginning.
    fn due_by(&self, at: f64) -> f64 {
        let ((from, to), lasts) = (self.rates, self.lasts.as_secs_f64());
        let grows = if lasts > 0.0 { (to - from) / lasts } else { 0.0 };
        from * at + grows * at * at / 2.0
    }

    /// When the operation behind the first `before` of them is due, in seconds from its beginning.
    fn due(&self, before: f64) -> f64 {
        let ((from, to), lasts) = (self.rates, self.lasts.as_secs_f64());
        let grows = (to - from) / lasts;
        if grows == 0.0 {
            return before / from;
        }
        // The positive root of grows/2 · t² + from · t = before, without the difference of two numbers alike.
        2.0 * before / (from + (from * from + 2.0 * grows * before).max(0.0).sqrt())
    }
}

/// Phases one behind the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    phases: Vec<Phase>,
    /// Operations before each phase.
    before: Vec<f64>,
    operations: u64,
}

impl Schedule {
    pub(super) fn of(phases: Vec<Phase>) -> Self {
        let phases: Vec<Phase> = phases
            .into_iter()
            .filter(|phase| !phase.lasts.is_zero() && phase.due_by(phase.lasts.as_secs_f64()) > 0.0)
            .collect();
        let mut before = Vec::with_capacity(phases.len());
        let mut sum = 0.0;
        for phase in &phases {
            before.push(sum);
            sum += phase.due_by(phase.lasts.as_secs_f64());
        }
        Self { phases, before, operations: sum.floor() as u64 }
    }

    /// A rate that is reached evenly within `ramp_up`, which is part of `lasts`.
    pub(super) fn steady(rate: f64, lasts: Duration, ramp_up: Duration) -> Self {
        Self::of(Self::reached("steady", rate, lasts, ramp_up).into())
    }

    /// The same as phases, for others to follow.
    pub(super) fn reached(name: &'static str, rate: f64, lasts: Duration, ramp_up: Duration) -> [Phase; 2] {
        let ramp_up = ramp_up.min(lasts);
        [
            Phase { name: RAMP_UP, lasts: ramp_up, rates: (0.0, rate) },
            Phase { name, lasts: lasts.saturating_sub(ramp_up), rates: (rate, rate) },
        ]
    }

    /// Operations of all phases.
    pub(super) const fn operations(&self) -> u64 {
        self.operations
    }

    /// How long all phases last.
    pub(super) fn lasts(&self) -> Duration {
        self.phases.iter().map(|phase| phase.lasts).sum()
    }

    /// How long the phases last in which a rate is reached.
    pub(super) fn ramp_up(&self) -> Duration {
        self.phases.iter().filter(|phase| phase.name == RAMP_UP).map(|phase| phase.lasts).sum()
    }

    /// When operation `number`, counted from 0, is due after the start; `None` behind the last.
    pub(super) fn due(&self, number: u64) -> Option<Duration> {
        if number >= self.operations {
            return None;
        }
        let number = number as f64;
        let index = self.before.partition_point(|before| *before <= number).checked_sub(1)?;
        let starts: Duration = self.phases[..index].iter().map(|phase| phase.lasts).sum();
        let within = self.phases[index].due(number - self.before[index]);
        Some(starts + Duration::try_from_secs_f64(within).unwrap_or_default())
    }

    /// Operations a second over all of it.
    pub(super) fn mean_rate(&self) -> f64 {
        let lasts = self.lasts().as_secs_f64();
        if lasts > 0.0 { self.operations as f64 / lasts } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Phase, Schedule};

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_steady_rate_is_evenly_spaced() {
        let schedule = Schedule::steady(10.0, seconds(2.0), Duration::ZERO);
        assert_eq!(schedule.operations(), 20);
        assert_eq!(schedule.due(0), Some(Duration::ZERO));
        assert_eq!(schedule.due(19), Some(seconds(1.9)));
        assert_eq!(schedule.due(20), None);
    }

    #[test]
    fn a_ramp_grows_to_its_rate() {
        let schedule = Schedule::steady(100.0, seconds(3.0), seconds(1.0));
        assert_eq!(schedule.operations(), 50 + 200, "half as many while it grows");
        assert_eq!(schedule.ramp_up(), seconds(1.0));
        let due: Vec<f64> = (0..250).filter_map(|n| schedule.due(n)).map(|due| due.as_secs_f64()).collect();
        assert_eq!(due.len(), 250);
        assert!(due.windows(2).all(|two| two[0] <= two[1]), "{due:?}");
        let within = |from: f64, to: f64| due.iter().filter(|due| from <= **due && **due < to).count();
        assert!(within(0.0, 0.25) < within(0.75, 1.0) / 3);
        assert!((99..=101).contains(&within(1.5, 2.5)));
    }

    #[test]
    fn phases_follow_each_other() {
        let phase = |lasts, rate| Phase { name: "x", lasts: seconds(lasts), rates: (rate, rate) };
        let schedule =
            Schedule::of(vec![phase(1.0, 10.0), phase(1.0, 100.0), phase(0.0, 5.0), phase(1.0, 10.0)]);
        assert_eq!((schedule.operations(), schedule.lasts()), (120, seconds(3.0)));
        assert_eq!(schedule.due(10), Some(seconds(1.0)));
        assert_eq!(schedule.due(110), Some(seconds(2.0)));
        assert!((schedule.mean_rate() - 40.0).abs() < 1e-9);
        assert_eq!(Schedule::of(Vec::new()).due(0), None);
    }
}
