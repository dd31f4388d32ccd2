//! The names of all metrics, and what each one says.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};

pub(super) const MEMORY_ENTITIES: &str = "caxton_memory_entities_total";
pub(super) const MEMORY_RELATIONS: &str = "caxton_memory_relations_total";
pub(super) const MEMORY_SEARCH_LATENCY: &str = "caxton_memory_search_latency_seconds";
pub(super) const MEMORY_SEARCH_LATENCY_TABLE: &str = "caxton_memory_search_latency";
pub(super) const MEMORY_SQLITE_SIZE: &str = "caxton_memory_sqlite_size_bytes";
pub(super) const TEXT_INDEX_BYTES: &str = "caxton_text_index_bytes";
pub(super) const MEMORY_CACHE_HIT_RATE: &str = "caxton_memory_cache_hit_rate";
pub(super) const MEMORY_SEARCH_CACHE_HITS: &str = "caxton_memory_search_cache_hits_total";
pub(super) const MEMORY_SEARCH_CACHE_BYTES: &str = "caxton_memory_search_cache_bytes";
pub(super) const MEMORY_PENDING_WRITES: &str = "caxton_memory_pending_writes";
pub(super) const EMBEDDING_DURATION: &str = "caxton_embedding_generation_duration_seconds";
pub(super) const EMBEDDING_LATENCY_TABLE: &str = "caxton_embedding_latency";
pub(super) const EMBEDDING_TEXTS: &str = "caxton_embedding_texts_total";
pub(super) const EMBEDDING_CUT_AHEAD: &str = "caxton_embedding_texts_tokenized_ahead_total";
pub(super) const EMBEDDING_CACHE_SIZE: &str = "caxton_embedding_cache_size";
pub(super) const EMBEDDING_CACHE_HIT_RATE: &str = "caxton_embedding_cache_hit_rate";
pub(super) const EMBEDDING_MODEL: &str = "caxton_embedding_model_info";
pub(super) const SQLITE_QUERY_TIME: &str = "caxton_sqlite_query_time_seconds";
pub(super) const SQLITE_QUERY_TIME_TABLE: &str = "caxton_sqlite_query_time";
pub(super) const SERVER_STARTUP_TIME: &str = "caxton_server_startup_time_seconds";
pub(super) const SERVER_STARTUP_TIME_TABLE: &str = "caxton_server_startup_time";
pub(super) const SERVER_MEMORY_USED: &str = "caxton_server_memory_used_bytes";
pub(super) const SERVER_MEMORY_PEAK: &str = "caxton_server_memory_peak_bytes";
pub(super) const SERVER_MEMORY_FILES: &str = "caxton_server_memory_file_backed_bytes";
pub(super) const SERVER_CPU_USAGE: &str = "caxton_server_cpu_usage_percent";
pub(super) const SERVER_SQLITE_CONNECTIONS: &str = "caxton_server_sqlite_connections";
pub(super) const SERVER_REQUESTS_PER_SECOND: &str = "caxton_server_http_requests_per_second";
pub(super) const SERVER_ACTIVE_CONNECTIONS: &str = "caxton_server_active_connections";
pub(super) const API_REQUEST_DURATION: &str = "caxton_api_request_duration_seconds";
pub(super) const API_AUTHENTICATION_FAILURES: &str = "caxton_api_authentication_failures_total";
pub(super) const LOG_EVENTS: &str = "caxton_log_events_total";
pub(super) const LOG_APPEND: &str = "caxton_log_append_seconds";
pub(super) const LOG_SIZE: &str = "caxton_log_size_bytes";
pub(super) const PROJECTION_LAG: &str = "caxton_projection_lag_events";
pub(super) const AUDIT_POSTINGS_BYTES: &str = "caxton_audit_postings_bytes";
pub(super) const AUDIT_BLOCKS: &str = "caxton_audit_blocks_total";
pub(super) const REPLAY_RATE: &str = "caxton_replay_events_per_second";
pub(super) const LLM_REQUESTS: &str = "caxton_llm_requests_total";
pub(super) const LLM_REQUEST_DURATION: &str = "caxton_llm_request_duration_seconds";
pub(super) const LLM_ACTIVE: &str = "caxton_llm_requests_active";
pub(super) const LLM_ERRORS: &str = "caxton_llm_errors_total";
pub(super) const LLM_RETRIES: &str = "caxton_llm_retries_total";
pub(super) const LLM_TOKENS: &str = "caxton_llm_token_usage_total";
pub(super) const LLM_CIRCUIT_OPEN: &str = "caxton_llm_circuit_open";
pub(super) const LLM_CACHE_HITS: &str = "caxton_llm_cache_hits_total";
pub(super) const LLM_CACHE_MISSES: &str = "caxton_llm_cache_misses_total";
pub(super) const AGENT_CONFIG_COUNT: &str = "caxton_agent_config_count";
pub(super) const AGENT_RELOAD_DURATION: &str = "caxton_agent_reload_duration_seconds";
pub(super) const CONFIG_RELOAD_TIME: &str = "caxton_config_reload_time";
pub(super) const AGENT_VALIDATION_CACHE_SIZE: &str = "caxton_agent_validation_cache_size";
pub(super) const AGENT_VALIDATION_CACHE_HIT_RATE: &str = "caxton_agent_validation_cache_hit_rate";
pub(super) const TOOL_CALLS: &str = "caxton_agent_tool_calls_total";
pub(super) const TOOL_CALL_DURATION: &str = "caxton_agent_tool_call_duration_seconds";
pub(super) const TOOL_DENIALS: &str = "caxton_tool_access_denials_total";
pub(super) const TOOL_SERVER_STARTS: &str = "caxton_mcp_server_starts_total";

/// Gauges that are exported as 0 until they are set, so that a dashboard finds them on an idle server.
pub(super) const PRESENT_FROM_THE_START: &[&str] = &[
    MEMORY_ENTITIES,
    MEMORY_RELATIONS,
    MEMORY_SQLITE_SIZE,
    TEXT_INDEX_BYTES,
    MEMORY_CACHE_HIT_RATE,
    MEMORY_PENDING_WRITES,
    EMBEDDING_CACHE_SIZE,
    EMBEDDING_CACHE_HIT_RATE,
    SERVER_MEMORY_USED,
    SERVER_CPU_USAGE,
    SERVER_SQLITE_CONNECTIONS,
    SERVER_REQUESTS_PER_SECOND,
    SERVER_ACTIVE_CONNECTIONS,
    AGENT_CONFIG_COUNT,
];

/// Gives each metric its help text, and the idle ones their first value.
pub(super) fn describe() {
    describe_gauges();
    describe_times_and_counts();
    describe_audit_and_model();
    super::agents::describe();
    super::messages::describe();
    for name in PRESENT_FROM_THE_START {
        gauge!(*name).set(0.0);
    }
}

fn describe_gauges() {
    for (name, unit, help) in [
        (MEMORY_ENTITIES, Unit::Count, "Entities in memory now."),
        (MEMORY_RELATIONS, Unit::Count, "Relations in memory now."),
        (MEMORY_SQLITE_SIZE, Unit::Bytes, "Size of the SQLite files."),
        (TEXT_INDEX_BYTES, Unit::Bytes, "Memory that the words of all texts take."),
        (
            MEMORY_CACHE_HIT_RATE,
            Unit::Count,
            "Share of searches that were answered with a kept answer or a kept vector of the query.",
        ),
        (MEMORY_SEARCH_CACHE_BYTES, Unit::Bytes, "Memory that kept answers to searches take."),
        (MEMORY_PENDING_WRITES, Unit::Count, "Writes under way."),
        (EMBEDDING_CACHE_SIZE, Unit::Count, "Query vectors kept in memory."),
        (EMBEDDING_CACHE_HIT_RATE, Unit::Count, "Share of query vectors found in memory."),
        (SERVER_STARTUP_TIME, Unit::Seconds, "Time from start to ready."),
        (SERVER_STARTUP_TIME_TABLE, Unit::Seconds, "The same as caxton_server_startup_time_seconds."),
        (SERVER_MEMORY_USED, Unit::Bytes, "Memory of the process, pages of mapped files included."),
        (SERVER_MEMORY_PEAK, Unit::Bytes, "The most memory the process had."),
        (SERVER_MEMORY_FILES, Unit::Bytes, "Pages of mapped files in memory."),
        (SERVER_CPU_USAGE, Unit::Percent, "Processor time used; 100 is one core."),
        (SERVER_SQLITE_CONNECTIONS, Unit::Count, "Connections to SQLite."),
        (
            SERVER_REQUESTS_PER_SECOND,
            Unit::CountPerSecond,
            "Requests answered a second, over the last seconds.",
        ),
        (SERVER_ACTIVE_CONNECTIONS, Unit::Count, "Connections to clients."),
        (AGENT_CONFIG_COUNT, Unit::Count, "Agents from files that are in use."),
        (AGENT_VALIDATION_CACHE_SIZE, Unit::Count, "Judgements of agent files kept in memory."),
        (AGENT_VALIDATION_CACHE_HIT_RATE, Unit::Count, "Share of agent files whose judgement was kept."),
        (LOG_SIZE, Unit::Bytes, "Size of the event log."),
        (PROJECTION_LAG, Unit::Count, "Events of the log that a projection has not folded yet."),
        (LLM_ACTIVE, Unit::Count, "Requests to a language model under way, by provider."),
        (LLM_CIRCUIT_OPEN, Unit::Count, "1 while a provider is left alone after failures, else 0."),
        (REPLAY_RATE, Unit::CountPerSecond, "Events a second in the last rebuild of a projection."),
    ] {
        describe_gauge!(name, unit, help);
    }
}

fn describe_times_and_counts() {
    for (name, help) in [
        (MEMORY_SEARCH_LATENCY, "Time of a search of memory, from query to hits."),
        (MEMORY_SEARCH_LATENCY_TABLE, "The same as caxton_memory_search_latency_seconds."),
        (EMBEDDING_LATENCY_TABLE, "The same as caxton_embedding_generation_duration_seconds."),
        (SQLITE_QUERY_TIME_TABLE, "The same as caxton_sqlite_query_time_seconds."),
        (EMBEDDING_DURATION, "Time to turn one text into a vector."),
        (SQLITE_QUERY_TIME, "Time of a question to SQLite."),
        (API_REQUEST_DURATION, "Time of a request, by route and status."),
        (LLM_REQUEST_DURATION, "Time of a request to a language model, by provider."),
        (AGENT_RELOAD_DURATION, "Time from a change of an agent file to its use."),
        (CONFIG_RELOAD_TIME, "The same as caxton_agent_reload_duration_seconds."),
        (TOOL_CALL_DURATION, "Time of a call of a tool, by tool."),
        (LOG_APPEND, "Time of an append, from hand-over to as durable as configured."),
    ] {
        describe_histogram!(name, Unit::Seconds, help);
    }
    for (name, help) in [
        (EMBEDDING_TEXTS, "Texts that the model turned into vectors."),
        (EMBEDDING_CUT_AHEAD, "Texts that were cut into tokens while the model was at others."),
        (MEMORY_SEARCH_CACHE_HITS, "Searches that were answered with a kept answer."),
        (API_AUTHENTICATION_FAILURES, "Requests without a known key."),
        (LLM_REQUESTS, "Requests to language models, by provider and outcome."),
        (LLM_ERRORS, "Requests to language models that gave no answer, by provider and kind."),
        (LLM_RETRIES, "Requests to language models that were made again, by provider."),
        (LLM_TOKENS, "Tokens that language models read (input) and wrote (output), by provider."),
        (LLM_CACHE_HITS, "Answers of language models that were found among those kept."),
        (LLM_CACHE_MISSES, "Answers of language models that were not found among those kept."),
        (TOOL_CALLS, "Calls of tools by agents, by tool and outcome."),
        (TOOL_DENIALS, "Calls of tools that an agent may not make, by tool."),
        (TOOL_SERVER_STARTS, "Starts of MCP servers, by server and whether they answered."),
        (LOG_EVENTS, "Events in the log: its last position."),
    ] {
        describe_counter!(name, Unit::Count, help);
    }
}

fn describe_audit_and_model() {
    let how = "1: how the embedding model computes, by precision and instructions.";
    describe_gauge!(EMBEDDING_MODEL, Unit::Count, how);
    let size = "Size of the postings that audits find events by.";
    describe_gauge!(AUDIT_POSTINGS_BYTES, Unit::Bytes, size);
    let blocks = "Blocks of the log that audits read and left out, by outcome.";
    describe_counter!(AUDIT_BLOCKS, Unit::Count, blocks);
}
