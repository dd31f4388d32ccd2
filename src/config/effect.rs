//! Keys that change nothing, each with its reason: mostly because of what others are set to. A start names those that were set.

use super::aliases::canonical;
use super::table::value_of;
use super::{
    Allocator, AutoVacuum, CleanupStrategy, Config, Durability, EmbeddingEngine, ThreadClass, VacuumStrategy,
};

/// A key that was set and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ineffective {
    /// The key, as it was written.
    pub key: String,
    /// Its value.
    pub value: serde_json::Value,
    /// Why it changes nothing.
    pub reason: &'static str,
}

/// Keys below `name` have no effect while `applies` holds.
struct Rule {
    name: &'static str,
    reason: &'static str,
    applies: fn(&Config) -> bool,
    /// Whether there is a value that changes something, here or in another build.
    works: bool,
}

const fn always(name: &'static str, reason: &'static str) -> Rule {
    Rule { name, reason, applies: |_| true, works: false }
}

/// A key that changes something unless `applies` holds.
const fn when(name: &'static str, applies: fn(&Config) -> bool, reason: &'static str) -> Rule {
    Rule { name, reason, applies, works: true }
}

const NO_MODEL: &str = "embedding.keyword_only is true: the server loads no model, and there are no vectors";

/// `caxton model pull` and `caxton embed` use it too, whatever the server loads.
const MODEL_PATH: &str = "memory.embedding_config.model_path";

const NO_WAL: &str = "memory.sqlite_config.wal_mode is false: there is no write-ahead log";

const NO_ANSWER_KEPT: &str = "no answer of a model is kept: agents.response_cache_ttl is 0s, or \
                              conversation_processing.response_cache_enabled is false";

const NO_COMPRESSION: &str = "http_server.enable_compression is false";

const NO_QUEUES: &str = "request_handling.priority_queues.enabled is false: there is one queue for all";

const fn without_model(config: &Config) -> bool {
    config.embedding.keyword_only
}

const fn without_wal(config: &Config) -> bool {
    !config.memory.sqlite_config.wal_mode
}

const fn keeps_no_answer(config: &Config) -> bool {
    config.agents.response_cache_ttl.is_zero() || !config.conversation_processing.response_cache_enabled
}

const NO_VECTOR_KEPT: &str = "memory.embedding_config.cache_size is 0: no vector of a query is kept";

const fn keeps_no_vector(config: &Config) -> bool {
    config.memory.embedding_config.cache_size == 0
}

const ONE_AT_A_TIME: &str = "conversation_processing.batch_size is 1: no batch holds a second conversation";

const fn one_at_a_time(config: &Config) -> bool {
    config.conversation_processing.batch_size == 1
}

const NO_LIMIT: &str =
    "neither memory.cleanup.entity_limit nor relation_limit beside it is set: sweeps choose nothing";

const NO_SWEEP: &str = "sweeps do nothing: memory.cleanup.orphan_cleanup is false, and neither entity_limit nor relation_limit \
                        beside it is set";

const fn without_limit(config: &Config) -> bool {
    let cleanup = &config.memory.cleanup;
    cleanup.entity_limit.is_none() && cleanup.relation_limit.is_none()
}

const fn without_sweep(config: &Config) -> bool {
    without_limit(config) && !config.memory.cleanup.orphan_cleanup
}

fn runs_candle(config: &Config) -> bool {
    config.embedding.engine == EmbeddingEngine::Candle
}

const ONE_ALLOCATOR: &str =
    "SQLite is given the allocator of the process, see memory_allocation.allocator; there is no other";

const OTHER_ALLOCATOR: &str = if cfg!(feature = "system-allocator") {
    "this binary was built with the system's allocator; build it without `--features system-allocator`"
} else if cfg!(feature = "jemalloc") {
    "this binary was built with jemalloc; build it without `--features jemalloc`"
} else {
    "this binary was built with mimalloc; build it with `--features jemalloc` or `--features system-allocator`"
};

/// The table.
const RULES: &[Rule] = &[
    always("memory_allocation.sqlite_memory", ONE_ALLOCATOR),
    when(
        "memory_allocation.agent_memory.pool_size",
        |config| {
            let pools = &config.memory_allocation.agent_memory;
            !pools.conversation_pool && !pools.response_pool
        },
        "both pools are off; see conversation_pool and response_pool beside it",
    ),
    when(
        "memory_allocation.allocator",
        |config| config.memory_allocation.allocator != Allocator::BUILT_IN,
        OTHER_ALLOCATOR,
    ),
    when(
        "memory_allocation.purge_delay",
        |_| Allocator::BUILT_IN != Allocator::Mimalloc,
        "it is for mimalloc, and this binary was built with another allocator",
    ),
    when(
        "server.allowed_hosts",
        |config| config.auth.keys_file.is_some() || !config.auth.keys.is_empty(),
        "there are API keys: who has one is answered, whatever host a request is for",
    ),
    when(
        "log.flush_interval",
        |config| config.log.durability != Durability::Interval,
        "it is for `log.durability: interval`; now each write waits for the disk or none does",
    ),
    when(
        "memory_writes.compression_threshold",
        |config| !config.memory_writes.compress_observations,
        "memory_writes.compress_observations is false",
    ),
    // The REST door.
    when(
        "http_server.worker_threads",
        |config| config.runtime.cpu_optimization.tokio_worker_threads.is_some(),
        "runtime.cpu_optimization.tokio_worker_threads is set, and is the number of these threads",
    ),
    when(
        "http_server.header_buffer_size",
        |config| config.http_server.header_buffer_size.0 <= config.http_server.request_buffer_size.0,
        "http_server.request_buffer_size is as large: the larger of the two counts",
    ),
    when(
        "http_server.request_buffer_size",
        |config| config.http_server.request_buffer_size.0 < config.http_server.header_buffer_size.0,
        "http_server.header_buffer_size is larger: the larger of the two counts",
    ),
    when("http_server.compression_level", |config| !config.http_server.enable_compression, NO_COMPRESSION),
    when(
        "http_server.compression_threshold",
        |config| !config.http_server.enable_compression,
        NO_COMPRESSION,
    ),
    when(
        "http_server.cache_ttl",
        |config| !config.http_server.cache_static_content,
        "http_server.cache_static_content is false",
    ),
    when(
        "api_optimization.cache_ttl",
        |config| !config.api_optimization.cache_agent_list,
        "api_optimization.cache_agent_list is false",
    ),
    // The graph's file.
    when(
        "advanced_memory_tuning.sqlite_advanced.vacuum_strategy",
        |config| {
            config.advanced_memory_tuning.sqlite_advanced.vacuum_strategy == VacuumStrategy::Incremental
                && config.memory.sqlite_config.auto_vacuum != AutoVacuum::Incremental
        },
        "incremental finds free pages to give back only with memory.sqlite_config.auto_vacuum: incremental; set that, or \
         choose full or auto",
    ),
    when("advanced_memory_tuning.sqlite_advanced.wal_checkpoint_strategy", without_wal, NO_WAL),
    when("advanced_memory_tuning.sqlite_advanced.wal_checkpoint_interval", without_wal, NO_WAL),
    when("memory.sqlite_config.journal_size_limit_mb", without_wal, NO_WAL),
    // Models and searches.
    when("memory.embedding_config", without_model, NO_MODEL),
    when("embedding.engine", without_model, NO_MODEL),
    when("advanced_memory_tuning.embedding_advanced", without_model, NO_MODEL),
    when("advanced_memory_tuning.vector_similarity", without_model, NO_MODEL),
    when("memory_allocation.embedding_model.memory_mapping", without_model, NO_MODEL),
    when("memory_allocation.embedding_model.prefault_pages", without_model, NO_MODEL),
    when("memory_writes.embedding_batch_size", without_model, NO_MODEL),
    when("memory.scaling.min_cache_hit_rate", without_model, NO_MODEL),
    when("memory.embedding_config.embedding_ttl", keeps_no_vector, NO_VECTOR_KEPT),
    when("memory.embedding_config.cleanup_threshold", keeps_no_vector, NO_VECTOR_KEPT),
    when("memory.embedding_config.aggressive_cleanup", keeps_no_vector, NO_VECTOR_KEPT),
    when("memory.embedding_config.cache_hit_target", keeps_no_vector, NO_VECTOR_KEPT),
    when("memory.scaling.min_cache_hit_rate", keeps_no_vector, NO_VECTOR_KEPT),
    when("memory.search.fusion", without_model, NO_MODEL),
    when("memory.search.semantic_weight", without_model, NO_MODEL),
    when(
        "advanced_memory_tuning.embedding_advanced.prefetch_batches",
        runs_candle,
        "embedding.engine: candle cuts each text where it embeds it",
    ),
    when(
        "memory_allocation.embedding_model.prefault_pages",
        runs_candle,
        "embedding.engine: candle copies the whole file when it is loaded",
    ),
    when(
        "memory_allocation.embedding_model.prefault_pages",
        |config| !config.memory_allocation.embedding_model.memory_mapping,
        "memory_allocation.embedding_model.memory_mapping is false: the file is read, and no page of it is mapped",
    ),
    when(
        "memory_allocation.embedding_model.huge_pages",
        |config| {
            let asks = config.memory_allocation.embedding_model.huge_pages;
            asks && (runs_candle(config) || without_model(config))
        },
        "it is for the weights of embedding.engine: fused, which are not loaded; only false changes something",
    ),
    when(
        "runtime.cpu_optimization.high_priority_threads",
        |config| {
            let classes = &config.runtime.cpu_optimization.high_priority_threads;
            let of_model =
                |class: &ThreadClass| matches!(class, ThreadClass::Embedding | ThreadClass::MemorySearch);
            without_model(config) && !classes.is_empty() && classes.iter().all(of_model)
        },
        "embedding.keyword_only is true: there are no threads of these classes",
    ),
    // Sweeps.
    when("advanced_memory_tuning.cleanup_advanced.cleanup_strategy", without_limit, NO_LIMIT),
    when(
        "advanced_memory_tuning.cleanup_advanced.cleanup_thread_count",
        |config| {
            let strategy = config.advanced_memory_tuning.cleanup_advanced.cleanup_strategy;
            let finds_largest =
                strategy == CleanupStrategy::Size && config.memory.cleanup.entity_limit.is_some();
            !finds_largest && !config.memory.cleanup.orphan_cleanup
        },
        "no sweep looks through all rows: memory.cleanup.orphan_cleanup is false, and entity_limit beside it is not set or \
         cleanup_strategy is not size",
    ),
    when("memory.cleanup.batch_size", without_sweep, NO_SWEEP),
    when("memory.cleanup.interval", without_sweep, NO_SWEEP),
    // Agents.
    when("conversation_processing.batch_timeout", one_at_a_time, ONE_AT_A_TIME),
    when("conversation_processing.parallel_conversations", one_at_a_time, ONE_AT_A_TIME),
    when("conversation_processing.memory_batch_search", one_at_a_time, ONE_AT_A_TIME),
    when("conversation_processing.embedding_batch_size", one_at_a_time, ONE_AT_A_TIME),
    when(
        "conversation_processing.embedding_batch_size",
        |config| !config.conversation_processing.memory_batch_search,
        "conversation_processing.memory_batch_search is false: each conversation searches for itself",
    ),
    when(
        "memory_allocation.agent_memory.conversation_pool",
        |config| config.conversation_processing.conversation_cache_size == 0,
        "conversation_processing.conversation_cache_size is 0: no conversation is kept, and none leaves room",
    ),
    when(
        "conversation_processing.response_cache_enabled",
        |config| {
            let enabled = config.conversation_processing.response_cache_enabled;
            enabled && config.agents.response_cache_ttl.is_zero()
        },
        "agents.response_cache_ttl is 0s; set it too, and performance.cache_responses: true in the files of agents",
    ),
    when(
        "agents.response_cache_ttl",
        |config| !config.conversation_processing.response_cache_enabled,
        "conversation_processing.response_cache_enabled is false",
    ),
    when("llm.cache_entries", keeps_no_answer, NO_ANSWER_KEPT),
    when("llm.cache_size", keeps_no_answer, NO_ANSWER_KEPT),
    when(
        "request_handling.classification",
        |config| !config.request_handling.priority_queues.enabled,
        NO_QUEUES,
    ),
];

/// The rules about the key `name` (canonical).
fn about(name: &str) -> impl Iterator<Item = &'static Rule> {
    let below = move |rule: &&Rule| {
        let rest = name.strip_prefix(rule.name);
        rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('.') && name != MODEL_PATH))
    };
    RULES.iter().filter(below)
}

/// Why the key `name` (canonical) has no effect; `None` when it has.
pub(crate) fn reason(config: &Config, name: &str) -> Option<&'static str> {
    about(name).find(|rule| (rule.applies)(config)).map(|rule| rule.reason)
}

/// What a key does in a configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EffectOf {
    /// Its value; `Null` where there is no such key.
    pub(crate) value: serde_json::Value,
    /// Why the value changes nothing; `None` when it does.
    pub(crate) without_effect: Option<&'static str>,
}

/// What the key `name`, which may be an alias, does in `config`.
pub(crate) fn effect_of(config: &Config, name: &str) -> EffectOf {
    let name = canonical(name);
    EffectOf { value: value_of(config, &name), without_effect: reason(config, &name) }
}

/// Why no value of the key `name` (canonical) changes anything; `None` when one does.
pub(crate) fn never(name: &str) -> Option<&'static str> {
    about(name).find(|rule| !rule.works).map(|rule| rule.reason)
}

/// Those of `keys` (the canonical name and the one that was written) that have no effect.
pub(crate) fn among<'a>(config: &Config, keys: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Ineffective> {
    let listed = keys.filter_map(|(name, written)| {
        let reason = reason(config, name)?;
        Some(Ineffective { key: written.to_owned(), value: value_of(config, name), reason })
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::super::load::load_text;
    use super::super::table::known;
    use super::*;

    /// A key, a file where it changes nothing, and one where it does.
    type Row = (&'static str, &'static str, &'static str);

    const ROWS: &[Row] = &[
        (
            "http_server.worker_threads",
            "http_server: {worker_threads: 4}\nruntime: {cpu_optimization: {tokio_worker_threads: 4}}",
            "http_server: {worker_threads: 4}",
        ),
        (
            "runtime.cpu_optimization.http_worker_threads",
            "runtime: {cpu_optimization: {http_worker_threads: 4, tokio_worker_threads: 8}}",
            "runtime: {cpu_optimization: {http_worker_threads: 4}}",
        ),
        (
            "http_server.header_buffer_size",
            "http_server: {header_buffer_size: 16KB}",
            "http_server: {header_buffer_size: 17KB}",
        ),
        (
            "http_server.request_buffer_size",
            "http_server: {request_buffer_size: 16KB, header_buffer_size: 17KB}",
            "http_server: {request_buffer_size: 17KB, header_buffer_size: 17KB}",
        ),
        (
            "http_server.compression_level",
            "http_server: {compression_level: 9, enable_compression: false}",
            "http_server: {compression_level: 9}",
        ),
        (
            "http_server.compression_threshold",
            "http_server: {compression_threshold: 1, enable_compression: false}",
            "http_server: {compression_threshold: 1}",
        ),
        (
            "memory_writes.compression_threshold",
            "memory_writes: {compression_threshold: 1, compress_observations: false}",
            "memory_writes: {compression_threshold: 1}",
        ),
        (
            "http_server.cache_ttl",
            "http_server: {cache_ttl: 1s, cache_static_content: false}",
            "http_server: {cache_ttl: 1s}",
        ),
        (
            "api_optimization.cache_ttl",
            "api_optimization: {cache_ttl: 1s, cache_agent_list: false}",
            "api_optimization: {cache_ttl: 1s}",
        ),
        (
            "advanced_memory_tuning.sqlite_advanced.vacuum_strategy",
            "advanced_memory_tuning: {sqlite_advanced: {vacuum_strategy: incremental}}",
            "advanced_memory_tuning: {sqlite_advanced: {vacuum_strategy: auto}}",
        ),
        (
            "advanced_memory_tuning.sqlite_advanced.vacuum_strategy",
            "advanced_memory_tuning: {sqlite_advanced: {vacuum_strategy: incremental}}\n\
             memory: {sqlite_config: {auto_vacuum: full}}",
            "advanced_memory_tuning: {sqlite_advanced: {vacuum_strategy: incremental}}\n\
             memory: {sqlite_config: {auto_vacuum: incremental}}",
        ),
        (
            "advanced_memory_tuning.sqlite_advanced.wal_checkpoint_strategy",
            "advanced_memory_tuning: {sqlite_advanced: {wal_checkpoint_strategy: full}}\n\
             memory: {sqlite_config: {wal_mode: false}}",
            "advanced_memory_tuning: {sqlite_advanced: {wal_checkpoint_strategy: full}}",
        ),
        (
            "advanced_memory_tuning.sqlite_advanced.wal_checkpoint_interval",
            "advanced_memory_tuning: {sqlite_advanced: {wal_checkpoint_interval: 9}}\n\
             memory: {sqlite_config: {wal_mode: false}}",
            "advanced_memory_tuning: {sqlite_advanced: {wal_checkpoint_interval: 9}}",
        ),
        (
            "memory.sqlite_config.journal_size_limit_mb",
            "memory: {sqlite_config: {journal_size_limit_mb: 9, wal_mode: false}}",
            "memory: {sqlite_config: {journal_size_limit_mb: 9}}",
        ),
        (
            "embedding_config.batch_size",
            "embedding: {keyword_only: true}\nembedding_config: {batch_size: 9}",
            "embedding_config: {batch_size: 9}",
        ),
        (
            "embedding.engine",
            "embedding: {engine: candle, keyword_only: true}",
            "embedding: {engine: candle}",
        ),
        (
            "memory.search.semantic_weight",
            "embedding: {keyword_only: true}\nmemory: {search: {semantic_weight: 0.5}}",
            "memory: {search: {semantic_weight: 0.5, fusion: reciprocal_rank}}",
        ),
        (
            "memory.search.fusion",
            "embedding: {keyword_only: true}\nmemory: {search: {fusion: reciprocal_rank}}",
            "memory: {search: {fusion: reciprocal_rank}}",
        ),
        (
            "advanced_memory_tuning.embedding_advanced.prefetch_batches",
            "embedding: {engine: candle}\nadvanced_memory_tuning: {embedding_advanced: {prefetch_batches: 9}}",
            "advanced_memory_tuning: {embedding_advanced: {prefetch_batches: 9}}",
        ),
        (
            "memory_allocation.embedding_model.prefault_pages",
            "embedding: {engine: candle}\nmemory_allocation: {embedding_model: {prefault_pages: false}}",
            "memory_allocation: {embedding_model: {prefault_pages: false}}",
        ),
        (
            "memory_allocation.embedding_model.prefault_pages",
            "memory_allocation: {embedding_model: {prefault_pages: true, memory_mapping: false}}",
            "memory_allocation: {embedding_model: {prefault_pages: true}}",
        ),
        (
            "memory_allocation.embedding_model.huge_pages",
            "embedding: {engine: candle}\nmemory_allocation: {embedding_model: {huge_pages: true}}",
            "embedding: {engine: candle}\nmemory_allocation: {embedding_model: {huge_pages: false}}",
        ),
        (
            "runtime.cpu_optimization.high_priority_threads",
            "embedding: {keyword_only: true}\n\
             runtime: {cpu_optimization: {high_priority_threads: [embedding, memory_search]}}",
            "embedding: {keyword_only: true}\n\
             runtime: {cpu_optimization: {high_priority_threads: [embedding, agents]}}",
        ),
        (
            "runtime.cpu_optimization.high_priority_threads",
            "embedding: {keyword_only: true}\nruntime: {cpu_optimization: {high_priority_threads: [embedding]}}",
            "runtime: {cpu_optimization: {high_priority_threads: [embedding]}}",
        ),
        (
            "advanced_memory_tuning.cleanup_advanced.cleanup_strategy",
            "advanced_memory_tuning: {cleanup_advanced: {cleanup_strategy: age}}",
            "advanced_memory_tuning: {cleanup_advanced: {cleanup_strategy: age}}\n\
             memory: {cleanup: {relation_limit: 9}}",
        ),
        (
            "advanced_memory_tuning.cleanup_advanced.cleanup_thread_count",
            "advanced_memory_tuning: {cleanup_advanced: {cleanup_thread_count: 2}}\n\
             memory: {cleanup: {orphan_cleanup: false, entity_limit: 9}}",
            "advanced_memory_tuning: {cleanup_advanced: {cleanup_thread_count: 2, cleanup_strategy: size}}\n\
             memory: {cleanup: {orphan_cleanup: false, entity_limit: 9}}",
        ),
        (
            "advanced_memory_tuning.cleanup_advanced.cleanup_batch_size",
            "advanced_memory_tuning: {cleanup_advanced: {cleanup_batch_size: 9}}\n\
             memory: {cleanup: {orphan_cleanup: false}}",
            "advanced_memory_tuning: {cleanup_advanced: {cleanup_batch_size: 9}}",
        ),
        (
            "memory.cleanup.interval",
            "memory: {cleanup: {interval: 1m, orphan_cleanup: false}}",
            "memory: {cleanup: {interval: 1m, orphan_cleanup: false, entity_limit: 9}}",
        ),
        (
            "conversation_processing.response_cache_enabled",
            "conversation_processing: {response_cache_enabled: true}",
            "conversation_processing: {response_cache_enabled: true}\nagents: {response_cache_ttl: 1m}",
        ),
        (
            "agents.response_cache_ttl",
            "conversation_processing: {response_cache_enabled: false}\nagents: {response_cache_ttl: 1m}",
            "agents: {response_cache_ttl: 1m}",
        ),
        (
            "llm.cache_entries",
            "llm: {cache_entries: 9}",
            "llm: {cache_entries: 9}\nagents: {response_cache_ttl: 1m}",
        ),
        (
            "llm.cache_size",
            "llm: {cache_size: 1MB}",
            "llm: {cache_size: 1MB}\nagents: {response_cache_ttl: 1m}",
        ),
        (
            "request_handling.classification.high_capabilities",
            "request_handling: {priority_queues: {enabled: false}, classification: {high_capabilities: [a]}}",
            "request_handling: {classification: {high_capabilities: [a]}}",
        ),
    ];

    #[test]
    fn a_key_that_another_one_leaves_nothing_to_do_is_listed_and_only_then() {
        for (key, vain, useful) in ROWS {
            let listed = |text: &str| {
                let found = load_text(text).unwrap().without_effect();
                found.iter().any(|one| one.key == *key)
            };
            assert!(listed(vain), "{key} changes nothing in {vain}");
            assert!(!listed(useful), "{key} changes something in {useful}");
        }
    }

    #[test]
    fn a_cache_of_none_and_a_batch_of_one_leave_nothing_to_what_is_finer() {
        let listed = |text: &str| load_text(text).unwrap().without_effect().len();
        for (set, count, vain, useful) in [
            (
                "embedding_config: {embedding_ttl: 1m, cleanup_threshold: 0.5, aggressive_cleanup: true, \
                 cache_hit_target: 0.5, batch_size: 9, cache_size: SIZE}\nmemory: {scaling: {min_cache_hit_rate: 0.5}}",
                5,
                "0",
                "1",
            ),
            (
                "conversation_processing: {batch_timeout: 1s, parallel_conversations: 2, memory_batch_search: true, \
                 embedding_batch_size: 9, context_cache_ttl: 1s, batch_size: SIZE}",
                4,
                "1",
                "2",
            ),
            (
                "conversation_processing: {embedding_batch_size: 9, memory_batch_search: SIZE}",
                1,
                "false",
                "true",
            ),
            (
                "conversation_processing: {conversation_cache_size: SIZE}\n\
                 memory_allocation: {agent_memory: {conversation_pool: true, pool_size: 9}}",
                1,
                "0",
                "1",
            ),
        ] {
            assert_eq!(listed(&set.replace("SIZE", vain)), count, "{vain} in {set}");
            assert_eq!(listed(&set.replace("SIZE", useful)), 0, "{useful} in {set}");
        }
    }

    #[test]
    fn every_row_of_the_table_names_something_that_exists() {
        for rule in RULES {
            assert!(known(rule.name).is_some(), "{}", rule.name);
            assert!(!rule.reason.is_empty() && !rule.reason.ends_with('.'), "{}", rule.reason);
        }
    }

    #[test]
    fn where_the_model_lies_is_told_to_commands_too_that_load_it() {
        let mut config = Config::default();
        config.embedding.keyword_only = true;
        assert_eq!(reason(&config, MODEL_PATH), None);
        assert_eq!(reason(&config, "memory.embedding_config.batch_size"), Some(NO_MODEL));
    }

    #[test]
    fn a_value_that_is_already_so_is_not_listed() {
        let mut config = Config::default();
        assert_eq!(reason(&config, "memory_allocation.allocator"), None);
        config.memory_allocation.allocator = match Allocator::BUILT_IN {
            Allocator::Jemalloc => Allocator::System,
            Allocator::System | Allocator::Mimalloc => Allocator::Jemalloc,
        };
        assert!(reason(&config, "memory_allocation.allocator").is_some());
        assert_eq!(reason(&config, "server.port"), None);
        assert_eq!(reason(&config, "server.allowed_hosts"), None);
        config.auth.keys_file = Some("keys".into());
        assert!(reason(&config, "server.allowed_hosts").is_some());
    }
}
