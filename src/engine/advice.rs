//! When the memory has outgrown this process: limits that are watched, and what is said when one is passed.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::Engine;
use crate::telemetry;

/// Questions to the cache before its share of hits says something.
const ASKED_MIN: u64 = 100;
/// One MB as the configuration means it.
const MB: f64 = 1_048_576.0;

/// Limits beyond which a move to a larger store is advised, and what the cache of queries should reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watched {
    /// Entities. Default: 100,000.
    pub entities_max: u64,
    /// Relations. Default: 500,000.
    pub relations_max: u64,
    /// Size of the graph's file, in MB. Default: 1024.
    pub storage_mb_max: u64,
    /// 99th percentile of recent searches. Default: 100 ms.
    pub search_max: Duration,
    /// Least share of queries whose vector is kept. Default: 0.8.
    pub cache_hit_rate_min: f64,
    /// Where a move would go. Default: qdrant.
    pub backend: &'static str,
    /// Share of queries that should find their vector in the cache. Default: 0.9.
    pub cache_hit_target: f64,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            entities_max: 100_000,
            relations_max: 500_000,
            storage_mb_max: 1_024,
            search_max: Duration::from_millis(100),
            cache_hit_rate_min: 0.8,
            backend: "qdrant",
            cache_hit_target: 0.9,
        }
    }
}

/// What the memory is now.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// Entities.
    pub entities: u64,
    /// Relations.
    pub relations: u64,
    /// Size of the graph's file, in bytes.
    pub storage_bytes: u64,
    /// 99th percentile of recent searches; `None` until there were enough.
    pub search_p99: Option<Duration>,
    /// Share of queries whose vector was kept; `None` until there were enough and the cache had to forget some.
    pub cache_hit_rate: Option<f64>,
}

/// A limit that is passed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Advice {
    /// The key below `memory.scaling`.
    pub limit: &'static str,
    /// What it allows.
    pub allowed: f64,
    /// What there is.
    pub found: f64,
}

/// The keys below `memory.scaling` that are limits.
pub const LIMITS: [&str; 5] =
    ["max_entities", "max_relations", "max_storage_mb", "max_search_latency_ms", "min_cache_hit_rate"];

impl Watched {
    /// The limits that `measured` passes.
    pub fn advice(&self, measured: &Measured) -> Vec<Advice> {
        let [entities, relations, storage, search, hits] = LIMITS;
        let above = |limit, found: Option<f64>, allowed: f64| {
            found.filter(|found| *found > allowed).map(|found| Advice { limit, allowed, found })
        };
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let below = measured.cache_hit_rate.filter(|rate| *rate < self.cache_hit_rate_min);
        let below = below.map(|found| Advice { limit: hits, allowed: self.cache_hit_rate_min, found });
        [
            above(entities, Some(measured.entities as f64), self.entities_max as f64),
            above(relations, Some(measured.relations as f64), self.relations_max as f64),
            above(storage, Some(measured.storage_bytes as f64 / MB), self.storage_mb_max as f64),
            above(search, measured.search_p99.map(millis), millis(self.search_max)),
            below,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What was said already: each limit is told of once, until it is kept again.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<BTreeSet<&'static str>>);

impl Said {
    /// Whether `what` holds now and did not when this was asked last.
    fn news(&self, what: &'static str, holds: bool) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if holds {
            return said.insert(what);
        }
        said.remove(what);
        false
    }
}

impl Engine {
    /// What the memory is now.
    pub fn measured(&self) -> Measured {
        let graph = self.view().graph();
        let counted = graph.stats(None).unwrap_or_default();
        let cache = self.view().semantic().map(|semantic| semantic.embedding.stats().cache);
        // Until a vector was forgotten, each miss is a question that was never asked before: no cache would have had it.
        let forgetful = cache.filter(|cache| cache.evicted + cache.expired > 0);
        let asked = forgetful.map(|_| self.known_questions());
        Measured {
            entities: counted.entities,
            relations: counted.relations,
            storage_bytes: graph.file_bytes(),
            search_p99: telemetry::recent_search_p99(),
            cache_hit_rate: asked
                .filter(|(_, all)| *all >= ASKED_MIN)
                .map(|(hits, all)| hits as f64 / all as f64),
        }
    }

    /// The limits of `memory.scaling` that the memory passes now.
    pub fn advice(&self) -> Vec<Advice> {
        self.inner.watched.advice(&self.measured())
    }

    /// The limits that are watched.
    pub fn watched(&self) -> &Watched {
        &self.inner.watched
    }

    /// Looks at the limits and at the clock: brings metrics up to date and says in the log what was not said yet.
    pub fn watch(&self) {
        self.watch_clock();
        let (watched, measured) = (&self.inner.watched, self.measured());
        let advice = watched.advice(&measured);
        for limit in LIMITS {
            let passed = advice.iter().find(|advice| advice.limit == limit);
            telemetry::scaling_advised(limit, passed.is_some());
            if self.inner.said.news(limit, passed.is_some())
                && let Some(Advice { allowed, found, .. }) = passed
            {
                tracing::warn!(
                    limit = format!("memory.scaling.{limit}"),
                    allowed,
                    found,
                    "the memory has outgrown a limit: consider a move to {} (caxton export memory), or raise the limit",
                    watched.backend
                );
            }
        }
        let missed = measured.cache_hit_rate.is_some_and(|rate| rate < watched.cache_hit_target);
        telemetry::cache_target_missed(missed);
        if self.inner.said.news("cache_hit_target", missed) {
            tracing::warn!(
                target_share = watched.cache_hit_target,
                found = measured.cache_hit_rate,
                "the query cache misses its target: raise memory.embedding_config.cache_size or embedding_ttl, or \
                 lower cache_hit_target"
            );
        }
    }

    fn watch_clock(&self) {
        let behind = self.clock_behind();
        if self.inner.said.news("clock", behind.is_some())
            && let Some(behind) = behind
        {
            tracing::warn!(
                behind_seconds = behind.as_secs(),
                "the clock is behind the last record of the log: until it has caught up, everything is recorded with the \
                 time of that record, conversations end later by as much, and as_of with a time finds nothing that is \
                 recorded now; name positions instead, and see docs/time.md"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_that_is_passed_is_named_with_what_there_is() {
        let watched = Watched {
            entities_max: 10,
            relations_max: 20,
            storage_mb_max: 1,
            search_max: Duration::from_millis(5),
            cache_hit_rate_min: 0.5,
            ..Watched::default()
        };
        let kept = Measured {
            entities: 10,
            relations: 20,
            storage_bytes: 1 << 20,
            search_p99: Some(Duration::from_millis(5)),
            cache_hit_rate: Some(0.5),
        };
        assert_eq!(watched.advice(&kept), []);
        assert_eq!(watched.advice(&Measured::default()), [], "what was not measured passes nothing");
        for (measured, limit, allowed, found) in [
            (Measured { entities: 11, ..kept }, "max_entities", 10.0, 11.0),
            (Measured { relations: 21, ..kept }, "max_relations", 20.0, 21.0),
            (Measured { storage_bytes: 3 << 20, ..kept }, "max_storage_mb", 1.0, 3.0),
            (
                Measured { search_p99: Some(Duration::from_millis(8)), ..kept },
                "max_search_latency_ms",
                5.0,
                8.0,
            ),
            (Measured { cache_hit_rate: Some(0.25), ..kept }, "min_cache_hit_rate", 0.5, 0.25),
        ] {
            assert_eq!(watched.advice(&measured), [Advice { limit, allowed, found }]);
        }
    }

    #[test]
    fn what_was_said_is_not_said_again_until_it_was_different() {
        let said = Said::default();
        let heard: Vec<bool> =
            [true, true, false, false, true].into_iter().map(|holds| said.news("limit", holds)).collect();
        assert_eq!(heard, [true, false, false, false, true]);
    }
}
