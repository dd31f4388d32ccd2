//! Keys reach the part of the program that they are for: what each part does with its options is tested beside it.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use clap::Parser as _;

use crate::cli::args::Args;
use crate::cli::failure::Exit;
use crate::config::{Config, load_text};
use crate::engine::cleanup::First;

use super::{
    cleanup, engine_options, load, model_options, ranking, rest_options, service_options, sqlite_options,
    vector_options,
};

/// A key, a value as it stands in a file, and where it has to be seen.
type Row = (&'static str, &'static str, fn(&Config) -> String);

const ROWS: &[Row] = &[
    ("memory.sqlite_config.cache_size_mb", "3", |c| sqlite_options(c).cache_size_mb.to_string()),
    ("memory.sqlite_config.mmap_size_mb", "7", |c| sqlite_options(c).mmap_size_mb.to_string()),
    ("memory.sqlite_config.page_size", "8192", |c| sqlite_options(c).page_size.to_string()),
    ("memory.sqlite_config.synchronous", "full", |c| lower(&sqlite_options(c).synchronous)),
    ("memory.sqlite_config.journal_size_limit_mb", "9", |c| {
        sqlite_options(c).journal_size_limit_mb.unwrap_or_default().to_string()
    }),
    ("memory.sqlite_config.temp_store", "file", |c| lower(&sqlite_options(c).temp_store)),
    ("memory.sqlite_config.auto_vacuum", "full", |c| lower(&sqlite_options(c).auto_vacuum)),
    ("memory.sqlite_config.wal_mode", "false", |c| sqlite_options(c).wal_mode.to_string()),
    ("advanced_memory_tuning.sqlite_advanced.wal_checkpoint_strategy", "restart", |c| {
        lower(&sqlite_options(c).wal_checkpoint_strategy)
    }),
    ("advanced_memory_tuning.sqlite_advanced.wal_checkpoint_interval", "77", |c| {
        sqlite_options(c).wal_checkpoint_interval.to_string()
    }),
    ("advanced_memory_tuning.sqlite_advanced.analyze_frequency", "7s", |c| {
        format!("{:?}", sqlite_options(c).analyze_frequency)
    }),
    ("advanced_memory_tuning.sqlite_advanced.vacuum_strategy", "full", |c| {
        lower(&sqlite_options(c).vacuum_strategy)
    }),
    ("advanced_memory_tuning.vector_similarity.scan_threads", "7", |c| {
        vector_options(c).scan_threads.to_string()
    }),
    ("advanced_memory_tuning.vector_similarity.early_termination", "false", |c| {
        (!rest_options(c, None).search.exact).to_string()
    }),
    ("advanced_memory_tuning.vector_similarity.early_termination", "false", |c| {
        (!ranking(c).exact).to_string()
    }),
    ("advanced_memory_tuning.vector_similarity.precision_threshold", "0.25", |c| {
        ranking(c).precision.to_string()
    }),
    ("advanced_memory_tuning.embedding_advanced.batch_optimization", "false", |c| {
        model_options(c).length_sorted.to_string()
    }),
    ("advanced_memory_tuning.embedding_advanced.batch_optimization", "false", |c| {
        service_options(c).length_sorted.to_string()
    }),
    ("advanced_memory_tuning.embedding_advanced.prefetch_batches", "7", |c| {
        service_options(c).batches_ahead.to_string()
    }),
    ("advanced_memory_tuning.embedding_advanced.model_precision", "int8", |c| {
        lower(&model_options(c).precision)
    }),
    ("memory.embedding_config.batch_size", "5", |c| model_options(c).batch_size.to_string()),
    ("memory.embedding_config.batch_size", "6", |c| service_options(c).batch_size.to_string()),
    ("memory.embedding_config.thread_count", "7", |c| service_options(c).threads.to_string()),
    ("memory.embedding_config.max_sequence_length", "99", |c| model_options(c).max_tokens.to_string()),
    ("memory.embedding_config.cache_size", "11", |c| service_options(c).cache.entries_max.to_string()),
    ("memory.embedding_config.embedding_ttl", "9s", |c| {
        service_options(c).cache.ttl.map(|ttl| format!("{ttl:?}")).unwrap_or_default()
    }),
    ("memory.embedding_config.cleanup_threshold", "0.25", |c| {
        service_options(c).cache.cleanup_threshold.to_string()
    }),
    ("memory.embedding_config.aggressive_cleanup", "true", |c| {
        service_options(c).cache.aggressive_cleanup.to_string()
    }),
    ("memory_allocation.embedding_model.memory_mapping", "false", |c| {
        model_options(c).memory_map.to_string()
    }),
    ("memory_allocation.embedding_model.prefault_pages", "false", |c| model_options(c).prefault.to_string()),
    ("memory_allocation.embedding_model.huge_pages", "false", |c| model_options(c).huge_pages.to_string()),
    ("embedding.engine", "candle", |c| lower(&model_options(c).engine)),
    ("log.durability", "'off'", |c| format!("'{}'", lower(&engine_options(c, None).durability))),
    ("log.cache_mb", "1", |c| (engine_options(c, None).log_cache_bytes >> 20).to_string()),
    ("privacy.encrypt", "all", |c| lower(&engine_options(c, None).encrypt)),
    ("memory_writes.compression_threshold", "123", |c| {
        engine_options(c, None).compress_above.unwrap_or_default().to_string()
    }),
    ("memory_writes.compress_observations", "false", |c| {
        engine_options(c, None).compress_above.is_some().to_string()
    }),
    ("memory_writes.max_pending_writes", "12", |c| engine_options(c, None).commands_max.to_string()),
    ("memory_writes.max_transaction_size", "13", |c| engine_options(c, None).steps.records_max.to_string()),
    ("memory_writes.entity_batch_size", "21", |c| engine_options(c, None).steps.entities_max.to_string()),
    ("memory_writes.relation_batch_size", "22", |c| engine_options(c, None).steps.relations_max.to_string()),
    ("memory_writes.observation_batch_size", "23", |c| {
        engine_options(c, None).steps.observations_max.to_string()
    }),
    ("memory_writes.embedding_batch_size", "24", |c| engine_options(c, None).vector_records_max.to_string()),
    ("memory_writes.transaction_timeout", "25s", |c| format!("{:?}", engine_options(c, None).steps.time_max)),
    ("messaging.max_pending_requests", "14", |c| engine_options(c, None).requests_max.to_string()),
    ("server.wait_timeout", "15s", |c| format!("{:?}", engine_options(c, None).index_timeout)),
    ("server.wait_timeout", "16s", |c| format!("{:?}", rest_options(c, None).min_seq_timeout)),
    ("server.request_timeout", "17s", |c| format!("{:?}", rest_options(c, None).request_timeout)),
    ("server.request_timeout", "26s", |c| format!("{:?}", rest_options(c, None).body_timeout)),
    ("server.shutdown_timeout", "18s", |c| format!("{:?}", rest_options(c, None).drain_timeout)),
    ("http_server.max_connections", "19", |c| rest_options(c, None).connections_max.to_string()),
    // Half of them, where that is fewer than there would be.
    ("http_server.max_blocking_threads", "6", |c| (rest_options(c, None).embeddings_max * 2).to_string()),
    ("http_server.connection_timeout", "20s", |c| format!("{:?}", rest_options(c, None).connection_timeout)),
    ("http_server.keep_alive_timeout", "21s", |c| format!("{:?}", rest_options(c, None).keep_alive_timeout)),
    ("api_optimization.include_stack_traces", "true", |c| rest_options(c, None).error_causes.to_string()),
    ("advanced_memory_tuning.vector_similarity.precision_threshold", "0.25", |c| {
        rest_options(c, None).search.precision.to_string()
    }),
    ("advanced_memory_tuning.vector_similarity.algorithm", "euclidean", |c| {
        rest_options(c, None).search.measure.as_str().to_owned()
    }),
    ("memory.search.cache_size", "3072", |c| engine_options(c, None).search_cache_bytes.to_string()),
    // A 32nd of it.
    ("memory.sqlite_config.cache_size_mb", "64", |c| {
        (engine_options(c, None).search_cache_bytes >> 15).to_string()
    }),
    ("memory.scaling.max_entities", "31", |c| engine_options(c, None).watched.entities_max.to_string()),
    ("memory.scaling.max_relations", "32", |c| engine_options(c, None).watched.relations_max.to_string()),
    ("memory.scaling.max_storage_mb", "33", |c| engine_options(c, None).watched.storage_mb_max.to_string()),
    ("memory.scaling.max_search_latency_ms", "34", |c| {
        engine_options(c, None).watched.search_max.as_millis().to_string()
    }),
    ("memory.scaling.min_cache_hit_rate", "0.35", |c| {
        engine_options(c, None).watched.cache_hit_rate_min.to_string()
    }),
    ("memory.embedding_config.cache_hit_target", "0.36", |c| {
        engine_options(c, None).watched.cache_hit_target.to_string()
    }),
    ("memory.embedding_config.precompute_common", "true", |c| service_options(c).count_queries.to_string()),
    ("memory.cleanup.interval", "37s", |c| format!("{:?}", cleanup(c).interval)),
    ("memory.cleanup.entity_limit", "38", |c| cleanup(c).entities_max.unwrap_or_default().to_string()),
    ("memory.cleanup.relation_limit", "39", |c| cleanup(c).relations_max.unwrap_or_default().to_string()),
    ("memory.cleanup.batch_size", "40", |c| cleanup(c).batch.to_string()),
    ("memory.cleanup.orphan_cleanup", "false", |c| cleanup(c).orphans.to_string()),
    ("advanced_memory_tuning.cleanup_advanced.cleanup_strategy", "size", |c| match cleanup(c).first {
        First::LeastUsed => "lru".to_owned(),
        First::Oldest => "age".to_owned(),
        First::Largest => "size".to_owned(),
    }),
    ("advanced_memory_tuning.cleanup_advanced.cleanup_thread_count", "4", |c| cleanup(c).threads.to_string()),
    ("memory.search.semantic_weight", "0.5", |c| rest_options(c, None).search.semantic_weight.to_string()),
    ("memory.search.semantic_weight", "0.5", |c| match rest_options(c, None).search.fusion {
        super::Fusion::Weighted { semantic_weight } => semantic_weight.to_string(),
        super::Fusion::ReciprocalRank => String::new(),
    }),
    ("memory.search.fusion", "reciprocal_rank", |c| match rest_options(c, None).search.fusion {
        super::Fusion::Weighted { .. } => String::new(),
        super::Fusion::ReciprocalRank => "reciprocal_rank".to_owned(),
    }),
    ("agents.memory_scope", "workspace", |c| lower(&rest_options(c, None).default_scope)),
];

fn lower(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

/// A file with one key.
fn file(key: &str, value: &str) -> Config {
    let mut text = String::new();
    for (depth, part) in key.split('.').enumerate() {
        let line_end = if depth > 0 { "\n" } else { "" };
        write!(text, "{line_end}{}{part}:", "  ".repeat(depth)).unwrap();
    }
    load_text(&format!("{text} {value}\n")).unwrap().config
}

#[test]
fn each_key_reaches_the_option_of_its_part() {
    for (key, value, seen) in ROWS {
        assert_ne!(seen(&Config::default()), *value, "{key} is so by default: this shows nothing");
        assert_eq!(seen(&file(key, value)), *value, "{key}");
    }
}

#[test]
fn a_folder_whose_name_is_no_text_is_refused_and_not_taken_for_another() {
    let folder = OsStr::from_bytes(b"/no/d\xff");
    for flag in ["--data-dir", "--model-path"] {
        let typed = [OsStr::new("caxton"), OsStr::new("status"), OsStr::new(flag), folder];
        let args = Args::try_parse_from(typed).unwrap();
        let refused = load(&args.common, Vec::new()).err().unwrap();
        assert_eq!(refused.exit, Some(Exit::Usage), "{refused}");
        let told = refused.to_string();
        assert!(told.starts_with(flag) && told.contains("is not UTF-8, as it must be; rename"), "{told}");
    }
}
