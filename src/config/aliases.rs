//! Keys that have two names. Only names of the same thing are here: what merely sounds alike stays apart.

/// An alias and the key it stands for. A whole section may stand for another.
///
/// Not aliases, on purpose: `agents.conversation_limit` is of one agent, `server.max_concurrent_conversations` of all;
/// `agents.tool_call_timeout` caps every limit, `agents.default_limits.tool_call_timeout` is the usual one; the
/// `embedding_batch_size` of writes, conversations and the model are three batches; `api_optimization.cache_ttl` is of
/// the agent list, `http_server.cache_ttl` of clients. `server.port` and `http_server.bind_address` overlap and are
/// reconciled in `load.rs`.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("http_server.request_timeout", "server.request_timeout"),
    ("http_server.thread_pool_size", "http_server.worker_threads"),
    ("runtime.cpu_optimization.http_worker_threads", "http_server.worker_threads"),
    ("runtime.cpu_optimization.tokio_max_blocking_threads", "http_server.max_blocking_threads"),
    ("runtime.cpu_optimization.embedding_threads", "memory.embedding_config.thread_count"),
    ("embedding_config", "memory.embedding_config"),
    ("memory.embedding_config.precompute_frequent", "memory.embedding_config.precompute_common"),
    ("memory.embedding_config.memory_map_model", "memory_allocation.embedding_model.memory_mapping"),
    ("memory.sqlite_config.wal_size_limit_mb", "memory.sqlite_config.journal_size_limit_mb"),
    ("advanced_memory_tuning.cleanup_advanced.cleanup_batch_size", "memory.cleanup.batch_size"),
    ("memory_writes.flush_interval", "log.flush_interval"),
    ("agents.conversation_limit", "agents.default_limits.max_conversations"),
    ("agents.max_memory_entities_per_agent", "agents.default_limits.max_memory_entities"),
];

/// The key that `key` stands for, which is `key` itself for most. Applied until nothing changes: a key of an aliased
/// section may have an alias of its own.
pub(crate) fn canonical(key: &str) -> String {
    let mut name = key.to_owned();
    while let Some(next) = ALIASES.iter().find_map(|(alias, target)| {
        let rest = name.strip_prefix(alias)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{target}{rest}"))
    }) {
        name = next;
    }
    name
}
