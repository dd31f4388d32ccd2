//! `benchmark system`: everything at once, what it takes, where it ends, and how it comes back.

use std::ops::RangeInclusive;
use std::time::Duration;

use caxton_tools::benchmark::{Better, Figure, Interval, Part, Target};

use super::instance::Usage;
use super::load::Pacing;
use super::memory::{self, Searches, fill};
use super::record::rate;
use super::run::{Run, graded};
use super::schedule::Schedule;
use super::traffic::{self, Messages, open, register};
use crate::cli::args::BenchmarkSystem;
use crate::cli::failure::Failure;
use crate::config::format_duration;

/// Messages a second that a run may come to, for what it takes on disk.
const MESSAGES_A_SECOND: f64 = 200_000.0;
/// Bytes of a message.
const BYTES: usize = 512;
/// Messages in a request where as many as possible are to come through.
const BATCH: u64 = 100;
/// How long a rate is tried, from the moment it is reached.
const TRIED: Duration = Duration::from_secs(5);
/// Single messages that come through in a second at the most.
const SINGLE_A_SECOND: f64 = 50_000.0;
/// What the search for the limit sends is no more than so many tries at the highest rate that comes through, each twice: two for
/// all that were doubled up to it, one for the first that misses, and three in the gap, which is then as narrow as [`CLOSE`] asks.
/// What misses is sent for twice as long at the most, until it is given up.
const TRIES: u32 = 2 * 2 * 6;
/// Share of messages that must come through.
const SUCCESS: f64 = 0.99;
/// Megabytes of an agent by which its memory must differ to count, and seconds of a recovery.
const LEAST: (f64, f64) = (0.1, 0.1);
/// How close the limit is found, as a share of it.
const CLOSE: f64 = 0.1;
/// The first rate that is tried, in messages a second.
const FIRST: f64 = 500.0;
/// Rates outside of these are not tried: what misses the targets at a few messages a second has no limit to be found, and few
/// messages say nothing.
const RATES: RangeInclusive<f64> = 10.0..=1_000_000.0;

/// Bytes that a run takes on disk at the most.
pub(super) fn disk_bytes(what: &BenchmarkSystem) -> u64 {
    let one = TRIED.saturating_add(what.place.ramp_up);
    let tries = if what.find_limits { one.saturating_mul(TRIES) } else { Duration::ZERO };
    let seconds = what.duration.as_secs_f64();
    let messages = (MESSAGES_A_SECOND + what.rate) * seconds + SINGLE_A_SECOND * tries.as_secs_f64();
    memory::disk_bytes(what.memory_entities, 0).saturating_add(traffic::disk_bytes(messages as u64, BYTES))
}

/// Runs it.
pub(super) fn run(run: &mut Run<'_>, what: &BenchmarkSystem) -> Result<(), Failure> {
    let spawned = register(run, what.agents)?;
    graded(run, &spawned, (Target::SPAWN_MS, Target::SPAWN_MS));
    if let (Some(before), Some(after)) = (run.before, run.instance.usage()) {
        let grown = after.memory.resident.saturating_sub(before.memory.resident);
        let each = grown as f64 / what.agents as f64 / 1e6;
        let each = Figure::new("memory per agent", each, "MB", Better::Lower).counting_from(LEAST.0);
        run.figure(each.against(Target::AGENT_MB));
    }
    if what.memory_entities > 0 {
        fill(run, what.memory_entities, 0)?;
    }
    open(run, what.concurrent_conversations)?;
    let many = Messages {
        agents: what.agents,
        bytes: BYTES,
        batch: BATCH,
        conversations: what.concurrent_conversations,
        words: run.words,
    };
    let as_many = Pacing::Closed { operations: u64::MAX, within: what.duration };
    let sent = run.part("messages in batches", &many, as_many, run.connections())?;
    run.figure(rate(&sent, "messages/s").against(Target::MESSAGES_PER_SECOND));
    run.failures(&sent);
    let before = run.instance.usage();
    let single = Messages { batch: 1, ..many };
    let steady = Schedule::steady(what.rate, what.duration, what.place.ramp_up);
    let steady = run.part("message", &single, Pacing::Open(steady), run.connections())?;
    graded(run, &steady, (Target::MESSAGE_P50_MS, Target::MESSAGE_P99_MS));
    if let (Some(before), Some(after)) = (before, run.instance.usage()) {
        processor(run, &steady, (before, after), what.agents);
    }
    if what.memory_entities > 0 {
        let mode = if run.keyword_only()? { "keyword" } else { "hybrid" };
        let searches = Pacing::Closed { operations: 1_000, within: what.duration };
        let work = Searches { mode, words: run.words };
        let found = run.part("search", &work, searches, run.askers())?;
        graded(run, &found, Target::SEARCH_MS);
    }
    if what.find_limits {
        limit(run, &single, what.place.ramp_up)?;
    }
    run.resident();
    if let Some(took) = run.instance.crash()? {
        let figure = Figure::new("recovery after a kill", took.as_secs_f64(), "s", Better::Lower);
        run.figure(figure.counting_from(LEAST.1).against(Target::RECOVERY_SECONDS));
    }
    Ok(())
}

/// Keeps the share of a core that an agent took.
fn processor(run: &mut Run<'_>, part: &Part, (before, after): (Usage, Usage), agents: u64) {
    let used = after.processor.saturating_sub(before.processor).as_secs_f64();
    if part.seconds > 0.0 {
        let each = used / part.seconds / agents as f64 * 100.0;
        run.figure(
            Figure::new("processor per agent", each, "%", Better::Lower).against(Target::AGENT_CPU_PERCENT),
        );
    }
}

/// Finds the highest rate of messages that still meets the targets. Each rate that is tried is a part of its own, whose name
/// tells the rate. What two runs are compared by is the limit alone: its name is always the same, and they may have tried others.
fn limit(run: &mut Run<'_>, work: &Messages, ramp_up: Duration) -> Result<(), Failure> {
    let connections = run.connections();
    let found = highest(|rate| {
        let mut meets = |name: &str| {
            let schedule = Schedule::steady(rate, ramp_up.saturating_add(TRIED), ramp_up);
            let part = run.part(name, work, Pacing::Open(schedule), connections)?;
            Ok(is_met(&part, run.tail_at_full_rate()))
        };
        // A disk or a neighbour that is slow for a tenth of a second spoils a try, which says little about the rate.
        Ok(meets(&tried(rate))? || meets(&format!("{}, again", tried(rate)))?)
    })?;
    run.figure(Figure::new("highest rate within the targets", found, "messages/s", Better::Higher));
    let reached = if ramp_up.is_zero() {
        "reached at once".to_owned()
    } else {
        format!("behind a ramp-up of {}, which does not count", format_duration(ramp_up))
    };
    run.remark(format!(
        "limits: {} s at each rate, {reached}, a message a request, and again where that misses the targets; within them are a p99 \
         of at most {} ms and {} % that come through",
        TRIED.as_secs(),
        Target::MESSAGE_P99_MS.target,
        SUCCESS * 100.0
    ));
    Ok(())
}

/// What the messages are called that were sent at this rate.
fn tried(rate: f64) -> String {
    format!("message at {rate}/s")
}

/// The highest rate that meets the targets: doubled until one misses them, then halved into the gap. 0 where the lowest misses
/// them, too.
fn highest(mut meets: impl FnMut(f64) -> Result<bool, Failure>) -> Result<f64, Failure> {
    let (mut met, mut missed, mut rate) = (0.0, None, FIRST);
    while RATES.contains(&rate) {
        if meets(rate)? {
            met = rate;
        } else {
            missed = Some(rate);
        }
        rate = match missed {
            None => rate * 2.0,
            // Whole, because it is shown.
            Some(missed) if missed - met > CLOSE * missed => f64::midpoint(met, missed).round(),
            Some(_) => break,
        };
    }
    Ok(met)
}

/// Whether what was sent at the full rate, of which `tail` is the 99th percentile in microseconds, met the targets; while the
/// rate grew, less was asked.
fn is_met(part: &Part, tail: Option<f64>) -> bool {
    let stretches = part.at_full_rate();
    let count = |of: fn(&Interval) -> u64| stretches.iter().map(of).sum::<u64>() as f64;
    let (done, failed) = (count(|stretch| stretch.done), count(|stretch| stretch.failed));
    let p99 = match part.latency {
        // What is shown decides, where it is of the same requests.
        Some(all) if part.ramp_up_seconds <= 0.0 => Some(all.p99),
        Some(_) | None => tail,
    };
    let is_fast = p99.is_some_and(|p99| p99 <= Target::MESSAGE_P99_MS.target * 1e3);
    is_fast && done > 0.0 && done / (done + failed) >= SUCCESS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use caxton_tools::benchmark::Percentiles;

    use super::{Interval, Part, highest, is_met, tried};

    #[test]
    fn a_limit_is_doubled_up_to_and_halved_into() {
        let search = |limit: f64| {
            let mut rates = Vec::new();
            let found = highest(|rate| {
                rates.push(rate);
                Ok(rate <= limit)
            });
            (found.unwrap(), rates)
        };
        let rates = vec![500.0, 1_000.0, 2_000.0, 4_000.0, 3_000.0, 3_500.0, 3_250.0];
        assert_eq!(search(3_000.0), (3_000.0, rates));
        // A server that meets the targets at no rate, or at every one, is not asked for ever.
        assert_eq!(search(0.0), (0.0, vec![500.0, 250.0, 125.0, 63.0, 32.0, 16.0]));
        let (found, rates) = search(f64::INFINITY);
        assert_eq!((found, rates.len()), (512_000.0, 11));
    }

    #[test]
    fn each_rate_that_is_tried_has_a_name_of_its_own() {
        let mut names = Vec::new();
        let found = highest(|rate| {
            names.push(tried(rate));
            Ok(rate < 750.0)
        });
        assert!(found.is_ok_and(|found| (500.0..750.0).contains(&found)));
        let first = ["message at 500/s", "message at 1000/s", "message at 750/s", "message at 625/s"];
        assert_eq!(names[..4], first);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 5, "{names:?}");
    }

    /// Two seconds in which the rate grew and three at the full one; of each its p99 in ms, and how many failed.
    fn part(ramp_up_seconds: f64, seconds: [(f64, u64); 5]) -> Part {
        let interval = |(at, (p99, failed)): (usize, (f64, u64))| Interval {
            at: at as f64,
            seconds: 1.0,
            done: 100,
            failed,
            p50: 1.0,
            p90: 1.0,
            p95: 1.0,
            p99: p99 * 1e3,
            p999: p99 * 1e3,
            max: p99 * 1e3,
        };
        let all = Percentiles { p50: 1.0, p90: 1.0, p95: 1.0, p99: 9_000.0, p999: 9_000.0, max: 9_000.0 };
        Part {
            name: String::new(),
            done: 500,
            failed: BTreeMap::new(),
            seconds: 5.0,
            ramp_up_seconds,
            offered_per_second: None,
            planned_seconds: None,
            per_second: 100.0,
            latency: Some(all),
            intervals: seconds.into_iter().enumerate().map(interval).collect(),
            histogram: Vec::new(),
        }
    }

    #[test]
    fn a_rate_is_judged_by_what_was_sent_at_it() {
        let (fast, slow, lost) = ((2.0, 0), (12.0, 0), (2.0, 5));
        let (quick, late) = (Some(2_000.0), Some(12_000.0));
        assert!(is_met(&part(2.0, [fast; 5]), quick));
        assert!(is_met(&part(2.0, [slow, lost, fast, fast, fast]), quick), "while it grew does not count");
        assert!(!is_met(&part(2.0, [fast, fast, slow, slow, slow]), late), "and does not hide what follows");
        assert!(!is_met(&part(2.0, [fast, fast, lost, lost, lost]), quick));
        // The percentile of all of them decides, not those of the seconds.
        assert!(is_met(&part(2.0, [fast, fast, slow, slow, fast]), quick));
        assert!(!is_met(&part(2.0, [fast; 5]), late));
        // Without a ramp-up all of it counts, by the percentile that is shown.
        assert!(is_met(&part(0.0, [slow, slow, fast, fast, fast]), late));
        assert!(!is_met(&part(0.0, [lost, lost, fast, fast, fast]), quick));
        let nothing = Part { intervals: Vec::new(), ..part(2.0, [fast; 5]) };
        assert!(!is_met(&nothing, None) && !is_met(&nothing, quick), "nothing was sent");
    }
}
