//! What happened to the operations of one kind, counted while they come in.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use caxton_tools::benchmark::{Better, Figure, Interval, Part, Percentiles};
use hdrhistogram::Histogram;

/// Stretches that a part is told in, at the most.
const INTERVALS_MAX: u32 = 600;
/// Shortest stretch.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// A plan that lasts no longer is told in the shortest stretches.
pub(super) const IN_SECONDS_MAX: Duration = INTERVAL_MIN.saturating_mul(INTERVALS_MAX);
/// Significant digits of the percentiles of a part, and of those of a stretch.
const DIGITS: (u8, u8) = (3, 2);
/// Longest latency that is told from longer ones, in nanoseconds: an hour.
const NANOS_MAX: u64 = 3_600_000_000_000;
/// Each step of the histogram that is kept ends above the one before by its bound divided by this: [`HISTOGRAM_STEP`] in whole
/// nanoseconds.
///
/// [`HISTOGRAM_STEP`]: caxton_tools::benchmark::results::HISTOGRAM_STEP
const STEP_DIVISOR: u64 = 4;
/// Percentage points by which the share that failed must differ to count: below that it may be one operation of a thousand.
const FAILED_LEAST_PERCENT: f64 = 0.1;

/// Counts of one kind of operation. Any number of threads add to it.
pub(super) struct Record {
    name: String,
    width: Duration,
    /// When the plan ends by which they are sent; `None` where each waits for the one before.
    ends: Option<Duration>,
    counts: Mutex<Counts>,
}

struct Counts {
    nanos: Histogram<u64>,
    done: u64,
    /// Of those, the ones done by the end of the plan.
    in_time: u64,
    failed: BTreeMap<String, u64>,
    last: Duration,
    slots: Vec<Slot>,
}

struct Slot {
    nanos: Histogram<u64>,
    done: u64,
    failed: u64,
}

/// What one operation came to.
pub(super) enum Outcome<'a> {
    /// So many things were done by it.
    Done(u64),
    /// So many things were not, for this reason.
    Failed(u64, &'a str),
}

#[expect(clippy::expect_used, reason = "the bounds are constants that a histogram can have")]
fn histogram(digits: u8) -> Histogram<u64> {
    let mut nanos = Histogram::new_with_max(NANOS_MAX / 3_600, digits).expect("a second with a few digits");
    nanos.auto(true);
    nanos
}

fn note(histogram: &mut Histogram<u64>, nanos: u64) {
    // It grows with what is put in, and an hour is far below where it would end.
    let _ = histogram.record(nanos);
}

impl Record {
    /// Of operations called `name`, each of which waits for the one before, that take about `lasts` together.
    pub(super) fn new(name: &str, lasts: Duration) -> Self {
        Self::of(name, lasts, None)
    }

    /// Of operations called `name` that are sent by a plan that lasts so long.
    pub(super) fn planned(name: &str, lasts: Duration) -> Self {
        Self::of(name, lasts, Some(lasts))
    }

    fn of(name: &str, lasts: Duration, ends: Option<Duration>) -> Self {
        let counts = Counts {
            nanos: histogram(DIGITS.0),
            done: 0,
            in_time: 0,
            failed: BTreeMap::new(),
            last: Duration::ZERO,
            slots: Vec::new(),
        };
        let width = (lasts / INTERVALS_MAX).max(INTERVAL_MIN);
        Self { name: name.to_owned(), width, ends, counts: Mutex::new(counts) }
    }

    /// Takes in an operation that was answered at `at` after the start and took so long from the moment it was due.
    pub(super) fn add(&self, at: Duration, took: Duration, outcome: &Outcome<'_>) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(NANOS_MAX).min(NANOS_MAX);
        let index = (at.as_nanos() / self.width.as_nanos()) as usize;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.last = counts.last.max(at);
        if counts.slots.len() <= index {
            counts.slots.resize_with(index + 1, || Slot { nanos: histogram(DIGITS.1), done: 0, failed: 0 });
        }
        match outcome {
            Outcome::Done(things) => {
                counts.done += things;
                if self.ends.is_none_or(|ends| at <= ends) {
                    counts.in_time += things;
                }
                note(&mut counts.nanos, nanos);
                let slot = &mut counts.slots[index];
                slot.done += things;
                note(&mut slot.nanos, nanos);
            }
            Outcome::Failed(things, why) => {
                counts.slots[index].failed += things;
                match counts.failed.get_mut(*why) {
                    Some(count) => *count += things,
                    None => {
                        counts.failed.insert((*why).to_owned(), *things);
                    }
                }
            }
        }
    }

    /// Things done and not done so far.
    pub(super) fn so_far(&self) -> (u64, u64) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        (counts.done, counts.failed.values().sum())
    }

    /// 99th percentile in microseconds of everything that was answered from `ramp_up` on, in the stretches of
    /// [`Part::at_full_rate`]; `None` where nothing was.
    pub(super) fn tail_from(&self, ramp_up: Duration) -> Option<f64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let grows = ramp_up.as_nanos().div_ceil(self.width.as_nanos()) as usize;
        let mut all = histogram(DIGITS.1);
        for slot in counts.slots.iter().skip(grows) {
            // It grows with what is put in, as each of them did.
            let _ = all.add(&slot.nanos);
        }
        (!all.is_empty()).then(|| all.value_at_quantile(0.99) as f64 / 1e3)
    }

    /// What was found. `offered`: things that were to be done each second, which grew to that within `ramp_up`.
    pub(super) fn part(&self, offered: Option<f64>, ramp_up: Duration) -> Part {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (seconds, width) = (counts.last.as_secs_f64(), self.width.as_secs_f64());
        let intervals = counts.slots.iter().enumerate().map(|(index, slot)| {
            let at = index as f64 * width;
            let at_share = |share: f64| slot.nanos.value_at_quantile(share) as f64 / 1e3;
            Interval {
                at,
                seconds: width.min((seconds - at).max(0.0)),
                done: slot.done,
                failed: slot.failed,
                p50: at_share(0.5),
                p90: at_share(0.9),
                p95: at_share(0.95),
                p99: at_share(0.99),
                p999: at_share(0.999),
                max: slot.nanos.max() as f64 / 1e3,
            }
        });
        let planned_seconds = self.ends.map(|ends| ends.as_secs_f64());
        // A plan lasts as long as it lasts: one answer that comes late does not make its rate a lower one.
        let measured = planned_seconds.unwrap_or(seconds);
        Part {
            name: self.name.clone(),
            done: counts.done,
            failed: counts.failed.clone(),
            seconds,
            ramp_up_seconds: ramp_up.as_secs_f64(),
            offered_per_second: offered,
            planned_seconds,
            per_second: if measured > 0.0 { counts.in_time as f64 / measured } else { 0.0 },
            latency: percentiles(&counts.nanos),
            intervals: intervals.collect(),
            histogram: steps(&counts.nanos),
        }
    }
}

fn percentiles(nanos: &Histogram<u64>) -> Option<Percentiles> {
    let at = |share: f64| nanos.value_at_quantile(share) as f64 / 1e3;
    (!nanos.is_empty()).then(|| Percentiles {
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: nanos.max() as f64 / 1e3,
    })
}

/// Counts by upper bound in microseconds: a few steps in each doubling, from a microsecond on.
fn steps(nanos: &Histogram<u64>) -> Vec<(f64, u64)> {
    let mut found = Vec::new();
    let (mut bound, mut below) = (1_000_u64, 0);
    while below < nanos.len() {
        let through = nanos.count_between(0, bound);
        if through > below {
            found.push((bound as f64 / 1e3, through - below));
        }
        below = through;
        bound += bound / STEP_DIVISOR;
    }
    found
}

/// The whole stretches of a part at its full rate, up to the end of its plan: the last one is mostly cut short, and the first one
/// begins with cold caches.
fn whole(part: &Part) -> &[Interval] {
    match part.until_planned_end() {
        [_, whole @ .., _] if !whole.is_empty() => whole,
        [] => &part.intervals,
        all => all,
    }
}

/// Things done each second, over the run.
pub(super) fn rate(part: &Part, unit: &str) -> Figure {
    let samples = whole(part).iter().filter(|interval| interval.seconds > 0.0);
    let samples = samples.map(Interval::per_second);
    Figure::new(format!("{} rate", part.name), part.per_second, unit, Better::Higher).over(samples)
}

/// Median and 99th percentile in ms; nothing where nothing was done.
pub(super) fn latencies(part: &Part) -> Option<(Figure, Figure)> {
    let Percentiles { p50, p99, .. } = part.latency?;
    let done: Vec<&Interval> = whole(part).iter().filter(|interval| interval.done > 0).collect();
    let figure = |which: &str, micros: f64, of: fn(&Interval) -> f64| {
        let samples = done.iter().map(|interval| of(interval) / 1e3);
        Figure::new(format!("{} {which}", part.name), micros / 1e3, "ms", Better::Lower).over(samples)
    };
    Some((figure("p50", p50, |interval| interval.p50), figure("p99", p99, |interval| interval.p99)))
}

/// The share of what was tried that failed, in percent, also where that is nothing: a run that is compared with this one may have
/// more. `None` where nothing was tried.
pub(super) fn failures(part: &Part) -> Option<Figure> {
    let failed: u64 = part.failed.values().sum();
    let tried = part.done + failed;
    (tried > 0).then(|| {
        let share = failed as f64 / tried as f64 * 100.0;
        Figure::new(format!("{} failed", part.name), share, "%", Better::Lower)
            .counting_from(FAILED_LEAST_PERCENT)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use caxton_tools::benchmark::results::HISTOGRAM_STEP;

    use super::{Outcome, Record, failures, latencies, rate};

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_part_tells_what_was_added() {
        let record = Record::new("search", Duration::from_secs(3));
        for n in 0..300 {
            record.add(millis(10 * n), millis(1 + n % 3), &Outcome::Done(2));
        }
        record.add(millis(3_000), millis(500), &Outcome::Failed(2, "REFUSED"));
        record.add(millis(3_000), millis(500), &Outcome::Failed(1, "REFUSED"));
        let part = record.part(Some(200.0), Duration::ZERO);
        assert_eq!((part.done, part.failed["REFUSED"], record.so_far()), (600, 3, (600, 3)));
        assert!((part.success() - 600.0 / 603.0).abs() < 1e-9);
        assert!((part.per_second - 200.0).abs() < 0.1, "{}", part.per_second);
        let found = part.latency.unwrap_or_else(|| panic!("nothing"));
        // Three significant digits.
        assert!(
            (1_998.0..2_003.0).contains(&found.p50) && (2_997.0..3_004.0).contains(&found.max),
            "{found:?}"
        );
        assert_eq!(part.intervals.len(), 4);
        assert_eq!(part.intervals.iter().map(|one| one.done).sum::<u64>(), 600);
        assert_eq!(part.intervals[3].failed, 3);
        let counted: u64 = part.histogram.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 300, "each operation once: {:?}", part.histogram);
        assert!(part.histogram.windows(2).all(|two| two[0].0 < two[1].0));
        assert_eq!(rate(&part, "1/s").samples, [200.0, 200.0], "the first and the last are left out");
        let (p50, p99) = latencies(&part).unwrap_or_else(|| panic!("nothing"));
        assert!(p50.value < p99.value && p50.samples.len() == 2, "{p50:?} {p99:?}");
    }

    #[test]
    fn each_stretch_has_all_its_percentiles() {
        let record = Record::new("search", Duration::from_secs(3));
        for n in 1..=1_000 {
            record.add(millis(n - 1), millis(n), &Outcome::Done(1));
        }
        let part = record.part(None, Duration::ZERO);
        let [one] = part.intervals[..] else { panic!("{:?}", part.intervals) };
        // Two significant digits.
        for (found, millis) in [
            (one.p50, 500.0),
            (one.p90, 900.0),
            (one.p95, 950.0),
            (one.p99, 990.0),
            (one.p999, 999.0),
            (one.max, 1e3),
        ] {
            assert!((found / 1e3 / millis - 1.0).abs() < 0.02, "{millis}: {found}");
        }
    }

    #[test]
    fn stretches_before_the_full_rate_are_no_samples() {
        let record = Record::new("search", Duration::from_secs(6));
        for n in 0..600 {
            record.add(millis(10 * n), millis(1), &Outcome::Done(1));
        }
        let samples = |ramp_up| rate(&record.part(None, millis(ramp_up)), "1/s").samples.len();
        // The first and the last of those that are left are left out, too.
        assert_eq!([0, 2_000, 2_500, 60_000].map(samples), [4, 2, 1, 6], "all where there is no full rate");
    }

    #[test]
    fn the_tail_at_the_full_rate_is_that_of_all_requests_and_not_of_seconds() {
        let record = Record::new("search", Duration::from_secs(6));
        // Slow while the rate grows; then a second with a few slow ones, which are less than one in a hundred of all.
        for n in 0..600_u64 {
            let took = if n < 200 || (300..303).contains(&n) { 50 } else { 1 };
            record.add(millis(10 * n), millis(took), &Outcome::Done(1));
        }
        let tail = |ramp_up| record.tail_from(millis(ramp_up)).map(|micros| (micros / 1e3).round());
        assert_eq!([0, 2_000, 4_000].map(tail), [Some(50.0), Some(1.0), Some(1.0)]);
        let part = record.part(None, millis(2_000));
        let seconds = part.at_full_rate();
        let mean = seconds.iter().map(|one| one.p99).sum::<f64>() / seconds.len() as f64;
        assert!(mean > 10_000.0, "the mean over the seconds tells {mean} µs");
        assert_eq!(tail(60_000), None);
    }

    #[test]
    fn a_straggler_does_not_lower_the_rate_of_a_plan() {
        let record = Record::planned("message", Duration::from_secs(10));
        for n in 0..1_000 {
            record.add(millis(10 * n + 1), millis(1), &Outcome::Done(1));
        }
        record.add(millis(40_000), millis(30_010), &Outcome::Done(1));
        let part = record.part(Some(100.0), Duration::ZERO);
        assert_eq!((part.done, part.per_second, part.planned_seconds), (1_001, 100.0, Some(10.0)));
        let of_stretches = rate(&part, "1/s").samples;
        assert_eq!(of_stretches, [100.0; 8], "without the seconds in which nothing was due any more");
        let (_, p99) = latencies(&part).unwrap_or_else(|| panic!("nothing"));
        assert!(p99.samples.iter().all(|millis| *millis < 2.0), "{p99:?}");
    }

    #[test]
    fn the_share_that_failed_is_told_where_nothing_did() {
        let record = Record::new("message", Duration::from_secs(1));
        let share = || failures(&record.part(None, Duration::ZERO)).map(|failed| failed.value);
        assert_eq!(share(), None, "nothing was tried");
        record.add(millis(1), millis(1), &Outcome::Done(3));
        assert_eq!(share(), Some(0.0));
        record.add(millis(1), millis(1), &Outcome::Failed(1, "REFUSED"));
        assert_eq!(share(), Some(25.0));
    }

    #[test]
    fn the_steps_of_the_histogram_are_those_that_a_page_shows() {
        let record = Record::new("message", Duration::from_secs(1));
        for micros in (1..2_000_u64).map(|n| n * n) {
            record.add(millis(1), Duration::from_micros(micros), &Outcome::Done(1));
        }
        for (bound, _) in record.part(None, Duration::ZERO).histogram {
            let step = bound.ln() / HISTOGRAM_STEP.ln();
            assert!((step - step.round()).abs() < 0.1, "{bound} µs is no bound of a step");
        }
    }

    #[test]
    fn of_nothing_there_is_nothing() {
        let part = Record::new("search", Duration::from_secs(1)).part(None, Duration::ZERO);
        assert_eq!((part.done, part.latency, part.per_second), (0, None, 0.0));
        assert!(latencies(&part).is_none() && part.histogram.is_empty());
    }

    #[test]
    fn a_figure_of_what_failed_counts_from_a_thousandth_on() {
        let record = Record::new("message", Duration::from_secs(1));
        record.add(millis(1), millis(1), &Outcome::Done(1));
        let failed = failures(&record.part(None, Duration::ZERO)).unwrap_or_else(|| panic!("nothing"));
        assert!((failed.least_change - 0.1).abs() < 1e-9 && failed.name == "message failed", "{failed:?}");
    }

    #[test]
    fn long_runs_have_long_stretches_and_long_waits_are_kept() {
        let record = Record::new("x", Duration::from_hours(24));
        record.add(Duration::from_hours(24), Duration::from_hours(2), &Outcome::Done(1));
        let part = record.part(None, Duration::ZERO);
        assert!(part.intervals.len() <= 601, "{}", part.intervals.len());
        assert!(
            part.latency.is_some_and(|found| (found.max / 3_600e6 - 1.0).abs() < 0.01),
            "{:?}",
            part.latency
        );
    }
}
