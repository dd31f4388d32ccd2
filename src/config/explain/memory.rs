//! What is to be said of `memory`, `memory_writes`, `embedding` and `memory_allocation`.

use super::entries::{Entry, entry};

pub(super) const ENTRIES: &[Entry] = &[
    entry(
        "memory.backend",
        "The memory is kept in this process, in the data directory. There is no other store.",
        "memory_backend in GET /api/v1/health",
    ),
    entry(
        "memory.sqlite_config.wal_mode",
        "The graph's file is written through a write-ahead log, so that reads and writes do not wait for each other; \
         without it through a rollback journal.",
        "the file graph/graph.db-wal in the data directory",
    ),
    entry(
        "memory.sqlite_config.cache_size_mb",
        "SQLite keeps so many MB of the graph's pages for the writer, and half as many for all readers together. Answers to searches \
         are kept up to a 32nd of it, unless memory.search.cache_size says how many.",
        "caxton_server_memory_used_bytes; caxton_sqlite_query_time_seconds",
    ),
    entry(
        "memory.sqlite_config.mmap_size_mb",
        "SQLite maps so many MB of the graph's file instead of reading it.",
        "caxton_server_memory_file_backed_bytes",
    ),
    entry(
        "memory.sqlite_config.page_size",
        "The graph's file has pages of this size; one with others is written anew at the start, which takes a while.",
        "`sqlite3 DATA_DIR/graph/graph.db 'PRAGMA page_size'`",
    ),
    entry(
        "memory.sqlite_config.synchronous",
        "SQLite waits for the disk never, at checkpoints or at every commit of the graph. What was acknowledged is in the log \
         in any case.",
        "caxton_sqlite_query_time_seconds; the next start folds what the graph lost",
    ),
    entry(
        "memory.sqlite_config.journal_size_limit_mb",
        "SQLite cuts the graph's journal back to this size after a checkpoint.",
        "the size of graph/graph.db-wal in the data directory",
    ),
    entry(
        "memory.sqlite_config.temp_store",
        "SQLite keeps temporary tables in memory or in files.",
        "caxton_server_memory_used_bytes during large sorts",
    ),
    entry(
        "memory.sqlite_config.auto_vacuum",
        "The graph's file gives free pages back at every commit (full), every analyze_frequency (incremental) or not by itself \
         (none); one that was made for another mode is written anew at the start.",
        "caxton_memory_sqlite_size_bytes after removals",
    ),
    entry(
        "memory.embedding_config.model",
        "Texts become vectors of this model. There is no other.",
        "the line model of the start report; embedding_model in GET /api/v1/memory/stats",
    ),
    entry(
        "memory.embedding_config.model_path",
        "The model's files are looked for in this folder first; when it was set, nowhere else.",
        "the line model of the start report; where `caxton model pull` says that the model is",
    ),
    entry(
        "memory.embedding_config.cache_size",
        "So many vectors of queries are kept, so that a question that comes again does not run the model.",
        "caxton_embedding_cache_size, caxton_embedding_cache_hit_rate",
    ),
    entry(
        "memory.embedding_config.batch_size",
        "The model takes up to so many texts, of all callers, in one pass.",
        "caxton_embedding_generation_duration_seconds; `caxton benchmark embeddings`",
    ),
    entry(
        "memory.embedding_config.thread_count",
        "So many threads run the model, besides one for queries alone.",
        "the threads called embed-…, as in `ps -T -p PID`; `caxton benchmark embeddings`",
    ),
    entry(
        "memory.embedding_config.max_sequence_length",
        "The model reads so many tokens of a text; a longer one is cut into chunks of that length, each with a vector.",
        "rows of vectors in GET /api/v1/health/detailed after a long observation",
    ),
    entry(
        "memory.embedding_config.precompute_common",
        "The 256 queries that are asked most are kept in queries.json, and a start computes their vectors before they are asked; an \
         erasure removes the file.",
        "caxton_embedding_cache_size after a start; the log line \"the vectors of frequent queries are computed\"",
    ),
    entry(
        "memory.embedding_config.cache_hit_target",
        "When fewer queries than this share find their vector in the cache, which had to forget some, a warning is logged: \
         once, until the target was reached again.",
        "caxton_embedding_cache_below_target; the log line \"the query cache misses its target\"",
    ),
    entry(
        "memory.embedding_config.embedding_ttl",
        "A vector of a query is dropped when it is so old.",
        "caxton_embedding_cache_size, caxton_embedding_cache_hit_rate",
    ),
    entry(
        "memory.embedding_config.cleanup_threshold",
        "When the cache is full, the entries unused for longest are dropped until this share of it is left, or half of it with \
         aggressive_cleanup; from this share on those that are older than embedding_ttl are dropped.",
        "caxton_embedding_cache_size",
    ),
    entry(
        "memory.embedding_config.aggressive_cleanup",
        "When the cache is full, half of it is dropped at once, or more where cleanup_threshold says so.",
        "caxton_embedding_cache_size",
    ),
    entry(
        "memory.cleanup.interval",
        "A sweep looks so often whether something has to go.",
        "caxton_memory_cleanup_sweeps_total",
    ),
    entry(
        "memory.cleanup.entity_limit",
        "While the memory holds more entities, sweeps remove some, with their observations and relations, as events of the \
         actor system that audits show and that can be undone. Unset: nothing is ever removed by itself.",
        "caxton_memory_cleanup_removed_total{kind=\"entity\"}; `caxton audit query --actor system`",
    ),
    entry(
        "memory.cleanup.relation_limit",
        "While the memory holds more relations, sweeps remove some: the weakest and among them the oldest, or by age the \
         oldest. Unset: nothing is ever removed by itself.",
        "caxton_memory_cleanup_removed_total{kind=\"relation\"}; `caxton audit query --actor system`",
    ),
    entry(
        "memory.cleanup.batch_size",
        "A sweep removes so many rows in one step; between two steps other writes go first.",
        "the times of the events in `caxton audit query --actor system`",
    ),
    entry(
        "memory.cleanup.orphan_cleanup",
        "Sweeps also remove relations that lack an end, should there be any.",
        "orphaned_relations in GET /api/v1/memory/health",
    ),
    entry(
        "memory.scaling.max_entities",
        "With more entities the server advises a move to a larger store: a warning in its log, a metric and a line in the \
         health. It goes on as before.",
        "scaling in GET /api/v1/health/detailed; caxton_memory_scaling_advised{limit=\"max_entities\"}",
    ),
    entry(
        "memory.scaling.max_relations",
        "With more relations the server advises a move to a larger store.",
        "scaling in GET /api/v1/health/detailed; caxton_memory_scaling_advised{limit=\"max_relations\"}",
    ),
    entry(
        "memory.scaling.max_storage_mb",
        "When the graph's file is larger the server advises a move to a larger store.",
        "scaling in GET /api/v1/health/detailed; caxton_memory_scaling_advised{limit=\"max_storage_mb\"}",
    ),
    entry(
        "memory.scaling.max_search_latency_ms",
        "When the slowest hundredth of recent searches takes longer the server advises a move to a larger store.",
        "scaling in GET /api/v1/health/detailed; caxton_memory_scaling_advised{limit=\"max_search_latency_ms\"}",
    ),
    entry(
        "memory.scaling.min_cache_hit_rate",
        "When fewer queries than this share find their vector in the cache, which had to forget some, the server advises a \
         move to a larger store.",
        "scaling in GET /api/v1/health/detailed; caxton_memory_scaling_advised{limit=\"min_cache_hit_rate\"}",
    ),
    entry(
        "memory.scaling.auto_migrate_enabled",
        "true is refused at the start: Caxton never moves data by itself.",
        "`caxton config check FILE`",
    ),
    entry(
        "memory.scaling.migration_backend",
        "The advice to move names this store and the export that it reads.",
        "scaling in GET /api/v1/health/detailed",
    ),
    entry(
        "memory.search.mode",
        "A search without mode= finds by meaning, by words or by both.",
        "GET /api/v1/memory/search without mode=",
    ),
    entry(
        "memory.search.fusion",
        "A hybrid search without fusion= adds normalised scores, or reciprocal ranks.",
        "the scores of GET /api/v1/memory/search",
    ),
    entry(
        "memory.search.semantic_weight",
        "In the weighted fusion, by default or asked for with fusion=weighted, meaning counts this share and words the rest.",
        "the order and scores of GET /api/v1/memory/search",
    ),
    entry(
        "memory.search.limit",
        "A search without limit= gives so many hits.",
        "the number of hits of GET /api/v1/memory/search",
    ),
    entry(
        "memory.search.max_limit",
        "A search with a larger limit= gets 422.",
        "GET /api/v1/memory/search?limit=100000",
    ),
    entry(
        "memory.search.neighbours",
        "Each matched observation comes with so many before it and after it.",
        "the hits of GET /api/v1/memory/search",
    ),
    entry(
        "memory.search.cache_size",
        "The same question with the same filters is answered with what was found the last time, as long as memory is as it was and \
         nothing of it began or ended to be true. Answers take so many bytes at most: those that came first go first. \
         Cache-Control: no-cache in a request passes them over.",
        "caxton_memory_search_cache_hits_total, caxton_memory_search_cache_bytes; caxton_memory_cache_hit_rate",
    ),
    entry(
        "memory_writes.entity_batch_size",
        "The graph folds new records in steps, each one transaction; a step ends before it would hold more about entities \
         than this. A rebuild takes larger ones.",
        "caxton_projection_step_records; caxton_projection_step_seconds",
    ),
    entry(
        "memory_writes.relation_batch_size",
        "A step of the graph ends before it would hold more relations than this.",
        "caxton_projection_step_records; caxton_projection_step_seconds",
    ),
    entry(
        "memory_writes.observation_batch_size",
        "A step of the graph ends before it would hold more observations than this.",
        "caxton_projection_step_records; caxton_projection_step_seconds",
    ),
    entry(
        "memory_writes.embedding_batch_size",
        "The vectors are brought up to the log so many records at a time, each step followed by a look at what else waits.",
        "caxton_projection_lag_events{projection=\"vectors\"} falls in steps of this size",
    ),
    entry(
        "memory_writes.transaction_timeout",
        "A step of the graph that took longer makes the following ones half as large, until they keep the time.",
        "caxton_projection_step_seconds; the log line \"steps of the graph are made smaller\"",
    ),
    entry(
        "memory_writes.max_transaction_size",
        "A step of the graph holds so many records of any kind at most.",
        "caxton_projection_step_records",
    ),
    entry(
        "memory_writes.max_pending_writes",
        "When so many requests that write wait for the memory writer, a batch as one, further ones get 503 at once.",
        "caxton_memory_pending_writes",
    ),
    entry(
        "memory_writes.compress_observations",
        "Long events are compressed in the log.",
        "caxton_log_size_bytes; file_bytes in GET /api/v1/health/detailed",
    ),
    entry(
        "memory_writes.compression_threshold",
        "Events of fewer bytes are stored as they are.",
        "caxton_log_size_bytes",
    ),
    entry(
        "embedding.engine",
        "The model is run by Caxton's own code, or by candle's, which is slower and the reference.",
        "`caxton benchmark embeddings`; caxton_embedding_generation_duration_seconds",
    ),
    entry(
        "embedding.keyword_only",
        "No model is loaded; searches find by words alone.",
        "the line model of the start report; embedding in GET /api/v1/health/detailed",
    ),
    entry(
        "memory_allocation.allocator",
        "Says which allocator the program should have. It is chosen when the program is built (Cargo features jemalloc and \
         system-allocator, else mimalloc); that it is another one is reported at the start.",
        "the line allocator of the start report; caxton_server_memory_used_bytes",
    ),
    entry(
        "memory_allocation.purge_delay",
        "Memory that was freed goes back to the system after so long, large pieces after ten times that, unless it is used again \
         before. Less makes the process smaller; more spares it page faults, which are dear in virtual machines: appends in \
         groups of 1,024 events were 1.4 times as fast with 1s as with 10ms. The variable MIMALLOC_PURGE_DELAY, in milliseconds, has the \
         last word.",
        "caxton_server_memory_used_bytes; `caxton benchmark storage`",
    ),
    entry(
        "memory_allocation.agent_memory.conversation_pool",
        "When a conversation leaves the cache of conversation_processing.conversation_cache_size, the next one takes over its \
         room instead of asking for memory.",
        "caxton_conversation_pool_reused_total",
    ),
    entry(
        "memory_allocation.agent_memory.response_pool",
        "Answers in JSON are written into buffers that earlier answers had, of up to 64 KiB, instead of memory that grows \
         with each.",
        "caxton_response_pool_reused_total",
    ),
    entry(
        "memory_allocation.agent_memory.pool_size",
        "Each pool keeps so many objects that nobody uses; what is given back beyond is freed.",
        "caxton_response_pool_reused_total; caxton_conversation_pool_reused_total",
    ),
    entry(
        "memory_allocation.embedding_model.memory_mapping",
        "The model's file is mapped and shared with other processes, or read into memory of this one.",
        "caxton_server_memory_file_backed_bytes",
    ),
    entry(
        "memory_allocation.embedding_model.prefault_pages",
        "Every page of the model is touched at the start, so that the first question does not wait for the disk.",
        "caxton_server_startup_time_seconds; caxton_server_memory_file_backed_bytes after the start",
    ),
    entry(
        "memory_allocation.embedding_model.huge_pages",
        "The system is asked for huge pages under the model's weights. Without, the whole process has small pages only: at rest it \
         takes about 40 MB less, short texts take a quarter longer, routing by capability a tenth.",
        "AnonHugePages in /proc/PID/smaps_rollup; caxton_embedding_generation_duration_seconds",
    ),
];
