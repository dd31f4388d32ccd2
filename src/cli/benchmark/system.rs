//! `benchmark system`: everything at once, what it takes, where it ends, and how it comes back.

use std::time::Duration;

use caxton_tools::benchmark::{Better, Figure, Part, Target};

use super::instance::Usage;
use super::load::Pacing;
use super::memory::{Searches, fill};
use super::record::{latencies, rate};
use super::run::{Run, graded};
use super::schedule::Schedule;
use super::traffic::{MESSAGE_DISK_BYTES, Messages, open, register};
use crate::cli::args::BenchmarkSystem;
use crate::cli::failure::Failure;

/// Messages a second that a run may come to, for what it takes on disk.
pub(super) const MESSAGES_A_SECOND: f64 = 200_000.0;
/// Bytes of a message.
const BYTES: usize = 512;
/// Messages in a request where as many as possible are to come through.
const BATCH: u64 = 100;
/// How long a rate is tried.
const TRIED: Duration = Duration::from_secs(5);
/// Share of messages that must come through.
const SUCCESS: f64 = 0.99;
/// How close the limit is found, as a share of it.
const CLOSE: f64 = 0.1;
/// The first rate that is tried, in messages a second, and the last.
const RATES: (f64, f64) = (500.0, 1_000_000.0);

/// Bytes on disk of a message of it.
pub(super) const fn message_disk_bytes() -> u64 {
    BYTES as u64 + MESSAGE_DISK_BYTES
}

/// Runs it.
pub(super) fn run(run: &mut Run<'_>, what: &BenchmarkSystem) -> Result<(), Failure> {
    let spawned = register(run, what.agents)?;
    graded(run, &spawned, (Target::SPAWN_MS, Target::SPAWN_MS));
    if let (Some(before), Some(after)) = (run.before, run.instance.usage()) {
        let grown = after.memory.resident.saturating_sub(before.memory.resident);
        let each = grown as f64 / what.agents as f64 / 1e6;
        run.figure(Figure::new("memory per agent", each, "MB", Better::Lower).against(Target::AGENT_MB));
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
    };
    let as_many = Pacing::Closed { operations: u64::MAX, within: what.duration };
    let sent = run.part("messages in batches", &many, as_many, run.connections())?;
    run.figure(rate(&sent, "messages/s").against(Target::MESSAGES_PER_SECOND));
    let before = run.instance.usage();
    let single = Messages { batch: 1, ..many };
    let steady = Schedule::steady(what.rate, what.duration, what.place.ramp_up);
    let steady = run.part("message", &single, Pacing::Open(steady), run.connections())?;
    graded(run, &steady, (Target::MESSAGE_P50_MS, Target::MESSAGE_P99_MS));
    if let (Some(before), Some(after)) = (before, run.instance.usage()) {
        processor(run, &steady, (before, after), what.agents);
    }
    if what.memory_entities > 0 {
        let mode = if run.keyword_only() { "keyword" } else { "hybrid" };
        let searches = Pacing::Closed { operations: 1_000, within: what.duration };
        let found = run.part("search", &Searches { mode }, searches, run.askers())?;
        graded(run, &found, Target::SEARCH_MS);
    }
    if what.find_limits {
        limit(run, &single)?;
    }
    run.resident();
    if let Some(took) = run.instance.crash()? {
        let figure = Figure::new("recovery after a kill", took.as_secs_f64(), "s", Better::Lower);
        run.figure(figure.against(Target::RECOVERY_SECONDS));
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

/// Finds the highest rate of messages that still meets the targets: doubled until it does not, then halved into.
fn limit(run: &mut Run<'_>, work: &Messages) -> Result<(), Failure> {
    let (mut meets, mut misses) = (0.0, None);
    let mut rate = RATES.0;
    while rate <= RATES.1 {
        if is_met(run, work, rate)? {
            meets = rate;
        } else {
            misses = Some(rate);
        }
        rate = match misses {
            None => rate * 2.0,
            Some(misses) if misses - meets > CLOSE * misses => f64::midpoint(meets, misses),
            Some(_) => break,
        };
    }
    run.figure(Figure::new("highest rate within the targets", meets, "messages/s", Better::Higher));
    run.remark(format!(
        "limits: {} s each, a message a request, p99 below {} ms, {} % come through",
        TRIED.as_secs(),
        Target::MESSAGE_P99_MS.target,
        SUCCESS * 100.0
    ));
    Ok(())
}

fn is_met(run: &mut Run<'_>, work: &Messages, rate: f64) -> Result<bool, Failure> {
    let schedule = Schedule::steady(rate, TRIED, Duration::from_secs(1));
    let part = run.part("message at a rate", work, Pacing::Open(schedule), run.connections())?;
    let fast = latencies(&part).is_some_and(|(_, p99)| p99.value <= Target::MESSAGE_P99_MS.target);
    Ok(fast && part.success() >= SUCCESS)
}
