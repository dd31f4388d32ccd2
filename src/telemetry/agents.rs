//! Metrics of agents at work: turns, the queues before them, circuits.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const RESPONSE_TIME: &str = "caxton_agent_response_time_seconds";
const RESPONSE_TIME_TABLE: &str = "caxton_agent_response_time";
const TURNS: &str = "caxton_agent_turns_total";
const QUEUE_DEPTH: &str = "caxton_agent_queue_depth";
const QUEUE_WAIT: &str = "caxton_agent_queue_wait_seconds";
const QUEUE_LATE: &str = "caxton_agent_queue_late_total";
const QUEUE_REFUSED: &str = "caxton_agent_queue_refused_total";
const TURNS_RUNNING: &str = "caxton_agent_turns_running";
const BATCH_SIZE: &str = "caxton_agent_batch_conversations";

/// Gives each metric its help text.
pub(super) fn describe() {
    for (name, unit, help) in [
        (RESPONSE_TIME, Unit::Seconds, "Time of a turn, from the moment its message is taken up to its end."),
        (RESPONSE_TIME_TABLE, Unit::Seconds, "The same as caxton_agent_response_time_seconds."),
        (QUEUE_WAIT, Unit::Seconds, "Time a message waited before it was taken up, by queue."),
        (BATCH_SIZE, Unit::Count, "Conversations that were prepared together."),
    ] {
        describe_histogram!(name, unit, help);
    }
    for (name, help) in [
        (TURNS, "Turns that ended, by outcome."),
        (QUEUE_LATE, "Messages that waited longer than their queue's max_latency, by queue."),
        (QUEUE_REFUSED, "Messages that were refused because their queue was full, by queue."),
    ] {
        describe_counter!(name, Unit::Count, help);
    }
    describe_gauge!(QUEUE_DEPTH, Unit::Count, "Messages that wait, by queue.");
    describe_gauge!(TURNS_RUNNING, Unit::Count, "Turns under way.");
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnOutcome {
    /// The message was handled.
    Finished,
    /// It is taken up again, after a failure or when its model may be asked.
    Retried,
    /// It is given up.
    Failed,
    /// Its sender took it back.
    Cancelled,
    /// The turn could not be recorded; it goes on later.
    Stuck,
}

impl TurnOutcome {
    /// The word in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Stuck => "stuck",
        }
    }
}

/// A turn ended.
pub fn turn_ended(outcome: TurnOutcome, took: Duration) {
    counter!(TURNS, "outcome" => outcome.as_str()).increment(1);
    super::timed([RESPONSE_TIME, RESPONSE_TIME_TABLE], took);
}

/// Turns under way now.
pub fn turns_running(count: usize) {
    gauge!(TURNS_RUNNING).set(count as f64);
}

/// Messages that wait in a queue now.
pub fn agent_queue_measured(queue: &str, depth: usize) {
    gauge!(QUEUE_DEPTH, "queue" => queue.to_owned()).set(depth as f64);
}

/// A message was taken up.
pub fn agent_queue_served(queue: &str, waited: Duration, late: bool) {
    histogram!(QUEUE_WAIT, "queue" => queue.to_owned()).record(waited.as_secs_f64());
    if late {
        counter!(QUEUE_LATE, "queue" => queue.to_owned()).increment(1);
    }
}

/// A message was refused since its queue is full.
pub fn agent_queue_refused(queue: &str) {
    counter!(QUEUE_REFUSED, "queue" => queue.to_owned()).increment(1);
}

/// So many conversations are prepared together.
pub fn batch_formed(conversations: usize) {
    histogram!(BATCH_SIZE).record(conversations as f64);
}
