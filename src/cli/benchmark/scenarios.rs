//! `benchmark scenario`: the three loads of the performance guide, with what it asserts of each.

use std::time::Duration;

use caxton_tools::benchmark::{Better, Figure, Interval, Part, Target};

use super::load::Pacing;
use super::record::{IN_SECONDS_MAX, latencies, rate};
use super::run::Run;
use super::schedule::{Phase, Schedule};
use super::traffic::{self, Messages, Receivers, open, register};
use crate::cli::args::{BenchmarkScenario, ScenarioName};
use crate::cli::failure::{Exit, Failure};
use crate::config::format_duration;

/// Share of messages that must come through.
const SUCCESS_PERCENT: f64 = 99.0;
/// Longest 99th percentile, in ms.
const P99_MS: f64 = 100.0;
/// How much slower the end may be than the beginning.
const SLOWER: f64 = 1.05;
/// Growth of memory from which it leaks, in MB a minute, and by how much it must differ to count.
const LEAK_MB: f64 = 1.0;
const LEAK_LEAST_MB: f64 = 0.5;
/// The burst: how long before it, how long it lasts, how long behind it.
const BURST: (Duration, Duration, Duration) =
    (Duration::from_secs(10), Duration::from_secs(10), Duration::from_secs(30));
/// The least time behind a burst.
const BURST_BEHIND_MIN: Duration = Duration::from_secs(5);
/// Seconds by which a recovery must differ to count: it is told in stretches of one.
const RECOVERY_LEAST_SECONDS: f64 = 2.0;
/// A burst without a recovery counts as so many times the time behind it, or the longest that is good enough: more than any recovery
/// that comes.
const NEVER: f64 = 2.0;
/// Recovered: the 99th percentile is back to this many times what it was before, or below the target of a message.
const RECOVERED: f64 = 2.0;

/// One of the loads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scenario {
    pub(super) agents: u64,
    /// Messages a second; of a burst, before and behind it.
    pub(super) rate: f64,
    /// Messages a second within the burst.
    pub(super) burst: Option<f64>,
    pub(super) bytes: usize,
    pub(super) lasts: Duration,
}

impl Scenario {
    /// As the guide has it, for so long if that was asked.
    pub(super) fn of(name: ScenarioName, duration: Option<Duration>) -> Self {
        let all = BURST.0 + BURST.1 + BURST.2;
        let (agents, rate, burst, bytes, lasts) = match name {
            ScenarioName::Peak => (1_000, 100_000.0, None, 1_024, Duration::from_mins(5)),
            ScenarioName::Sustained => (100, 10_000.0, None, 512, Duration::from_hours(24)),
            ScenarioName::Burst => (100, 1_000.0, Some(50_000.0), 512, all),
        };
        Self { agents, rate, burst, bytes, lasts: duration.unwrap_or(lasts) }
    }

    /// When messages are due, a request for so many each. The rate is reached within `ramp_up`; that of a burst at once.
    fn schedule(&self, batch: u64, ramp_up: Duration) -> Schedule {
        let rate = self.rate / batch as f64;
        let Some(burst) = self.burst else { return Schedule::steady(rate, self.lasts, ramp_up) };
        let phase = |name, lasts, rate| Phase { name, lasts, rates: (rate, rate) };
        let mut phases = Schedule::reached("before", rate, BURST.0, ramp_up).to_vec();
        phases.push(phase("burst", BURST.1, burst / batch as f64));
        phases.push(phase("behind", self.lasts.saturating_sub(BURST.0 + BURST.1), rate));
        Schedule::of(phases)
    }

    /// Messages of it.
    fn messages(&self, batch: u64, ramp_up: Duration) -> u64 {
        self.schedule(batch, ramp_up).operations().saturating_mul(batch)
    }

    /// Bytes that it takes on disk at the most.
    pub(super) fn disk_bytes(&self, batch: u64, ramp_up: Duration) -> u64 {
        traffic::disk_bytes(self.messages(batch, ramp_up), self.bytes)
    }
}

/// Refuses a duration in which the scenario cannot tell what it is for.
pub(super) fn check(what: &BenchmarkScenario) -> Result<(), Failure> {
    let Some(duration) = what.duration.filter(|_| what.name == ScenarioName::Burst) else { return Ok(()) };
    let least = BURST.0 + BURST.1 + BURST_BEHIND_MIN;
    let (given, comes, lasts) =
        (format_duration(duration), format_duration(BURST.0), format_duration(BURST.1));
    let message = if duration < least {
        let least = format_duration(least);
        format!(
            "--duration {given} is too short for a burst, which comes after {comes} and lasts {lasts}; give {least} or more, or \
             leave it out"
        )
    } else if duration > IN_SECONDS_MAX {
        // In longer stretches there is none that lies before it, nor one that tells when it was over.
        let most = format_duration(IN_SECONDS_MAX);
        format!(
            "--duration {given} is too long for a burst, which comes after {comes}, lasts {lasts} and is told by the second; give \
             {most} or less, or leave it out"
        )
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Usage, message))
}

/// Runs it.
pub(super) fn run(run: &mut Run<'_>, what: &BenchmarkScenario) -> Result<(), Failure> {
    let scenario = Scenario::of(what.name, what.duration);
    register(run, scenario.agents)?;
    open(run, scenario.agents)?;
    let work = Messages {
        agents: scenario.agents,
        bytes: scenario.bytes,
        batch: what.batch,
        conversations: scenario.agents,
        words: run.words,
    };
    let schedule = scenario.schedule(what.batch, what.place.ramp_up);
    let mut receivers = Receivers::new(&run.door, scenario.agents, run.words);
    let (pacing, connections) = (Pacing::Open(schedule), run.connections());
    let part = run.part_beside(("message", &work), pacing, connections, &mut || receivers.acknowledge())?;
    run.figure(rate(&part, "messages/s"));
    let success = Figure::new("message success", part.success() * 100.0, "%", Better::Higher);
    run.figure(success.against(Target::only(SUCCESS_PERCENT)));
    // The share that came through moves by a few percent where ten times as many failed.
    run.failures(&part);
    if let Some((p50, p99)) = latencies(&part) {
        run.figure(p50);
        run.figure(p99.against(Target::only(P99_MS)));
    }
    match what.name {
        ScenarioName::Peak => (),
        ScenarioName::Sustained => {
            if let Some(slower) = degradation(part.until_planned_end()) {
                let figure =
                    Figure::new("p99 of the last fifth against the first", slower, "×", Better::Lower);
                run.figure(figure.against(Target::only(SLOWER)));
            }
            if let Some(slope) = slope(run.memory_seen()) {
                let figure = Figure::new("growth of memory without files", slope, "MB/min", Better::Lower);
                run.figure(figure.counting_from(LEAK_LEAST_MB).against(Target::only(LEAK_MB)));
            }
        }
        ScenarioName::Burst => {
            let (figure, remark) = recovered(&part, scenario.lasts);
            run.figure(figure);
            if let Some(text) = remark {
                run.remark(text);
            }
        }
    }
    run.resident();
    Ok(())
}

/// The mean 99th percentile of the last fifth of the run against that of the first; `None` of a run too short for fifths, or where
/// nothing was done in one of the two. A stretch in which nothing was done has no percentile.
fn degradation(intervals: &[Interval]) -> Option<f64> {
    let fifth = intervals.len() / 5;
    let mean = |some: &[Interval]| {
        let done: Vec<f64> = some.iter().filter(|one| one.done > 0).map(|one| one.p99).collect();
        (!done.is_empty()).then(|| done.iter().sum::<f64>() / done.len() as f64)
    };
    let (first, last) = (mean(&intervals[..fifth])?, mean(&intervals[intervals.len() - fifth..])?);
    (first > 0.0).then(|| last / first)
}

/// How fast the second half of the samples (seconds, bytes) grows, in MB a minute: the line with the least squares. The first half
/// fills caches.
fn slope(samples: &[(f64, u64)]) -> Option<f64> {
    let late = &samples[samples.len() / 2..];
    if late.len() < 3 {
        return None;
    }
    let count = late.len() as f64;
    let mean_at = late.iter().map(|(at, _)| at).sum::<f64>() / count;
    let mean = late.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / count;
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (at, bytes) in late {
        covariance += (at - mean_at) * (*bytes as f64 - mean);
        variance += (at - mean_at) * (at - mean_at);
    }
    (variance > 0.0).then(|| covariance / variance * 60.0 / 1e6)
}

/// How long the recovery took in a run that lasts so long, and what is to be said where there was none.
fn recovered(part: &Part, lasts: Duration) -> (Figure, Option<String>) {
    let behind = lasts.saturating_sub(BURST.0 + BURST.1);
    let never = behind.max(BURST.2).as_secs_f64() * NEVER;
    let found = recovery(part);
    let remark = found.is_none().then(|| {
        format!(
            "it did not recover from the burst within the {} behind it: {never} s stand for that",
            format_duration(behind)
        )
    });
    let figure = Figure::new("recovery after the burst", found.unwrap_or(never), "s", Better::Lower)
        .counting_from(RECOVERY_LEAST_SECONDS)
        .against(Target::only(BURST.2.as_secs_f64()));
    (figure, remark)
}

/// Seconds from the end of the burst until latencies are what they were, of nearly all that was asked; `None` if they never are.
fn recovery(part: &Part) -> Option<f64> {
    let (before, ends) = (BURST.0.as_secs_f64(), (BURST.0 + BURST.1).as_secs_f64());
    let calm: Vec<f64> = part
        .intervals
        .iter()
        .filter(|one| one.at + one.seconds <= before && one.done > 0)
        .map(|one| one.p99)
        .collect();
    let usual = calm.iter().sum::<f64>() / calm.len().max(1) as f64;
    let bound = (usual * RECOVERED).max(Target::MESSAGE_P99_MS.target * 1e3);
    let mut behind = part.until_planned_end().iter().filter(|one| one.at >= ends && is_through(one));
    behind.find(|one| one.p99 <= bound).map(|one| one.at - ends)
}

/// Whether something was done in a stretch, and nearly all that was tried: what is refused at once is fast, too.
fn is_through(interval: &Interval) -> bool {
    let (done, tried) = (interval.done as f64, (interval.done + interval.failed) as f64);
    done > 0.0 && done * 100.0 >= tried * SUCCESS_PERCENT
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use caxton_tools::benchmark::Grade;

    use super::{
        Interval, Part, Scenario, ScenarioName, degradation, format_duration, recovered, recovery, slope,
    };

    fn intervals(p99: impl IntoIterator<Item = f64>) -> Vec<Interval> {
        let interval = |(at, p99): (usize, f64)| Interval {
            at: at as f64,
            seconds: 1.0,
            done: 10,
            failed: 0,
            p50: 1.0,
            p90: 1.0,
            p95: 1.0,
            p99,
            p999: p99,
            max: p99,
        };
        p99.into_iter().enumerate().map(interval).collect()
    }

    #[test]
    fn the_loads_are_those_of_the_guide() {
        let peak = Scenario::of(ScenarioName::Peak, None);
        let messages = |of: &Scenario, batch| of.messages(batch, Duration::ZERO);
        assert_eq!((peak.agents, messages(&peak, 100), peak.bytes), (1_000, 30_000_000, 1_024));
        assert_eq!(peak.messages(100, Duration::from_mins(1)), 30_000_000 - 3_000_000, "half of a minute's");
        let short = Scenario::of(ScenarioName::Sustained, Some(Duration::from_mins(1)));
        assert_eq!((short.agents, messages(&short, 1), short.bytes), (100, 600_000, 512));
        let burst = Scenario::of(ScenarioName::Burst, None);
        assert_eq!(messages(&burst, 100), 10_000 + 500_000 + 30_000);
        assert_eq!(burst.messages(100, Duration::from_secs(4)), 8_000 + 500_000 + 30_000);
        // As `--help` has it.
        let lasts = [ScenarioName::Peak, ScenarioName::Sustained, ScenarioName::Burst]
            .map(|name| format_duration(Scenario::of(name, None).lasts));
        assert_eq!(lasts, ["5m", "24h", "50s"]);
    }

    #[test]
    fn what_a_scenario_takes_on_disk_is_not_more_than_is_said() {
        let minutes = |minutes| Some(Duration::from_mins(minutes));
        for (name, duration, took) in [
            // As `data directory` had it at the end of such runs.
            (ScenarioName::Burst, None, 630_000_000_u64),
            (ScenarioName::Sustained, minutes(30), 13_287_022_000),
            // By what a message took in such a run, 685 bytes of the log and 21 beside it, of which 512 are its content; the log's
            // file may be 4 GiB ahead.
            (ScenarioName::Sustained, None, 864_000_000 * 706 + (4 << 30)),
            (ScenarioName::Peak, None, 30_000_000 * (706 - 512 + 1_024) + (4 << 30)),
        ] {
            let said = Scenario::of(name, duration).disk_bytes(100, Duration::ZERO);
            assert!(took <= said, "{name:?} {duration:?}: said {said}, took {took}");
            assert!(said < took / 2 * 3, "{name:?} {duration:?}: said {said}, took {took}");
        }
        let endless = Scenario::of(ScenarioName::Peak, Some(Duration::MAX));
        assert_eq!(endless.disk_bytes(100, Duration::ZERO), u64::MAX);
    }

    #[test]
    fn a_run_that_becomes_slower_is_told() {
        assert_eq!(degradation(&intervals([1.0; 4])), None);
        assert_eq!(degradation(&intervals([1.0; 50])), Some(1.0));
        let slower = (0..50).map(|n| if n < 40 { 1.0 } else { 2.0 });
        assert_eq!(degradation(&intervals(slower)), Some(2.0));
    }

    #[test]
    fn stretches_in_which_nothing_was_done_are_not_fast() {
        let with_idle = |idle: fn(usize) -> bool| {
            let mut all = intervals([4.0; 50]);
            for (at, interval) in all.iter_mut().enumerate().filter(|(at, _)| idle(*at)) {
                *interval = Interval { done: 0, p99: 0.0, at: at as f64, ..*interval };
            }
            degradation(&all)
        };
        assert_eq!(with_idle(|at| at.is_multiple_of(2)), Some(1.0));
        assert_eq!(with_idle(|at| at < 10), None, "nothing to compare with");
        assert_eq!(with_idle(|at| at >= 40), None, "nothing to be compared");
        assert_eq!(degradation(&intervals([0.0; 50])), None, "no number");
    }

    #[test]
    fn memory_that_grows_is_told_and_caches_that_fill_are_not() {
        let grows = |bytes_a_second: f64| {
            let all: Vec<(f64, u64)> =
                (0..600).map(|n| (f64::from(n), (f64::from(n) * bytes_a_second) as u64)).collect();
            slope(&all).unwrap_or(f64::NAN)
        };
        assert!((grows(1e6) - 60.0).abs() < 0.01);
        assert!(grows(0.0).abs() < 1e-9);
        let filled: Vec<(f64, u64)> =
            (0..600).map(|n| (f64::from(n), (n.min(200) * 1_000_000) as u64)).collect();
        assert!(slope(&filled).is_some_and(|slope| slope.abs() < 1e-9));
        assert_eq!(slope(&filled[..3]), None);
    }

    /// A burst in stretches of a second, of which latencies are back so many behind it.
    fn burst(back: usize) -> Part {
        let p99 = (0..50).map(|n| if (10..20 + back).contains(&n) { 900_000.0 } else { 8_000.0 });
        Part {
            name: String::new(),
            done: 1,
            failed: BTreeMap::new(),
            seconds: 50.0,
            ramp_up_seconds: 0.0,
            offered_per_second: None,
            planned_seconds: Some(50.0),
            per_second: 0.0,
            latency: None,
            intervals: intervals(p99),
            histogram: Vec::new(),
        }
    }

    #[test]
    fn recovery_is_when_latencies_are_back() {
        assert_eq!(recovery(&burst(0)), Some(0.0));
        assert_eq!(recovery(&burst(7)), Some(7.0));
        assert_eq!(recovery(&burst(30)), None);
    }

    #[test]
    fn seconds_in_which_nearly_all_is_refused_are_no_recovery() {
        let mut part = burst(0);
        for (at, failed) in [(20, 990), (21, 1), (22, 0)] {
            part.intervals[at] = Interval { done: 50, failed, ..part.intervals[at] };
        }
        assert_eq!(recovery(&part), Some(2.0), "1 of 51 is more than one in a hundred");
        part.intervals[21].done = 99;
        assert_eq!(recovery(&part), Some(1.0));
        part.intervals[20] = Interval { done: 0, failed: 0, ..part.intervals[20] };
        assert_eq!(recovery(&part), Some(1.0), "nothing was done");
    }

    #[test]
    fn a_burst_without_a_recovery_has_the_worst_figure() {
        let figure = |back, lasts| {
            let (figure, remark) = recovered(&burst(back), Duration::from_secs(lasts));
            (figure.value, figure.grade, remark.is_some())
        };
        assert_eq!(figure(7, 50), (7.0, Some(Grade::Pass), false));
        assert_eq!(figure(30, 50), (60.0, Some(Grade::Fail), true));
        // The time behind a short one is too short for the target, and a long one may have recovered late.
        assert_eq!(figure(30, 25), (60.0, Some(Grade::Fail), true));
        assert_eq!(figure(30, 320), (600.0, Some(Grade::Fail), true));
        let (_, remark) = recovered(&burst(30), Duration::from_secs(50));
        let remark = remark.unwrap_or_default();
        assert!(remark.contains("did not recover from the burst within the 30s behind it"), "{remark}");
    }
}
