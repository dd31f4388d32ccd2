//! How the memory is kept: steps of its graph, advice to move it, sweeps, the cache of questions.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const STEP_SECONDS: &str = "caxton_projection_step_seconds";
const STEP_RECORDS: &str = "caxton_projection_step_records";
const SCALING_ADVISED: &str = "caxton_memory_scaling_advised";
const CACHE_BELOW_TARGET: &str = "caxton_embedding_cache_below_target";
const SWEEPS: &str = "caxton_memory_cleanup_sweeps_total";
const SWEPT: &str = "caxton_memory_cleanup_removed_total";
const LIST_HITS: &str = "caxton_agent_list_cache_hits_total";
const LIST_MISSES: &str = "caxton_agent_list_cache_misses_total";
const RESPONSES_REUSED: &str = "caxton_response_pool_reused_total";
const CONVERSATIONS_REUSED: &str = "caxton_conversation_pool_reused_total";

/// The graph folded `records` in one transaction.
pub fn graph_step_finished(records: usize, took: Duration) {
    histogram!(STEP_SECONDS).record(took.as_secs_f64());
    histogram!(STEP_RECORDS).record(records as f64);
}

/// Searches that are remembered for their times.
const RECENT_MAX: usize = 1_000;
/// Searches before their times say something.
const RECENT_MIN: usize = 100;

/// Times of recent searches, the oldest overwritten first.
static RECENT: Mutex<Recent> = Mutex::new(Recent { times: Vec::new(), next: 0 });

struct Recent {
    times: Vec<Duration>,
    next: usize,
}

impl Recent {
    fn add(&mut self, took: Duration) {
        if self.times.len() < RECENT_MAX {
            self.times.push(took);
        } else {
            self.times[self.next] = took;
        }
        self.next = (self.next + 1) % RECENT_MAX;
    }

    fn p99(&self) -> Option<Duration> {
        let mut times = self.times.clone();
        if times.len() < RECENT_MIN {
            return None;
        }
        times.sort_unstable();
        times.get(times.len() * 99 / 100).copied()
    }
}

pub(super) fn search_took(took: Duration) {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).add(took);
}

/// The 99th percentile of the last thousand searches; `None` until there were a hundred.
pub fn recent_search_p99() -> Option<Duration> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).p99()
}

/// Whether a limit of `memory.scaling` is passed.
pub fn scaling_advised(limit: &'static str, passed: bool) {
    gauge!(SCALING_ADVISED, "limit" => limit).set(if passed { 1.0 } else { 0.0 });
}

/// Whether the query cache misses its target.
pub fn cache_target_missed(missed: bool) {
    gauge!(CACHE_BELOW_TARGET).set(if missed { 1.0 } else { 0.0 });
}

/// A sweep ended, having removed these.
pub fn swept(entities: u64, relations: u64) {
    counter!(SWEEPS).increment(1);
    counter!(SWEPT, "kind" => "entity").increment(entities);
    counter!(SWEPT, "kind" => "relation").increment(relations);
}

/// The list of agents was asked for, and was found as it was made before.
pub fn agent_list_asked(found: bool) {
    counter!(if found { LIST_HITS } else { LIST_MISSES }).increment(1);
}

/// An answer was written into a buffer that another one had before.
pub fn response_buffer_reused() {
    counter!(RESPONSES_REUSED).increment(1);
}

/// A conversation is kept in the room of one that is not any more.
pub fn conversation_object_reused() {
    counter!(CONVERSATIONS_REUSED).increment(1);
}

pub(super) fn describe() {
    let help = "Answers that were written into a buffer that another one had before.";
    describe_counter!(RESPONSES_REUSED, Unit::Count, help);
    let help = "Conversations that are kept in the room of one that is not any more.";
    describe_counter!(CONVERSATIONS_REUSED, Unit::Count, help);
    describe_gauge!(
        SCALING_ADVISED,
        Unit::Count,
        "1 while a limit of memory.scaling is passed, by limit, else 0."
    );
    describe_gauge!(CACHE_BELOW_TARGET, Unit::Count, "1 while the query cache misses its target, else 0.");
    describe_counter!(SWEEPS, Unit::Count, "Sweeps of memory.cleanup.");
    describe_counter!(
        SWEPT,
        Unit::Count,
        "Rows that sweeps removed, by kind; what went with an entity is not counted."
    );
    describe_counter!(LIST_HITS, Unit::Count, "Lists of agents that were found as they were made before.");
    describe_counter!(LIST_MISSES, Unit::Count, "Lists of agents that were made anew.");
    describe_histogram!(
        STEP_SECONDS,
        Unit::Seconds,
        "Time of a transaction that folds records into the graph."
    );
    describe_histogram!(STEP_RECORDS, Unit::Count, "Records folded into the graph in one transaction.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_hundredth_of_the_last_thousand_counts() {
        let mut recent = Recent { times: Vec::new(), next: 0 };
        for millis in 1..RECENT_MIN as u64 {
            recent.add(Duration::from_millis(millis));
            assert_eq!(recent.p99(), None);
        }
        recent.add(Duration::from_millis(100));
        assert_eq!(recent.p99(), Some(Duration::from_millis(100)));
        for _ in 0..RECENT_MAX {
            recent.add(Duration::from_millis(7));
        }
        assert_eq!(recent.p99(), Some(Duration::from_millis(7)), "what was slow is long ago");
    }
}
