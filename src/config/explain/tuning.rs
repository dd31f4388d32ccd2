//! What is to be said of `advanced_memory_tuning` and `runtime`.

use super::entries::{Entry, entry};

pub(super) const ENTRIES: &[Entry] = &[
    entry(
        "advanced_memory_tuning.sqlite_advanced.wal_checkpoint_strategy",
        "When the graph's write-ahead log is moved into its file, SQLite goes as far as readers let it (passive), waits for those \
         of older states (full), or for all, so that the next write begins the log anew (restart). Where they do not end, \
         writes are held up for up to 5 s, and again after so many pages more; no read waits.",
        "the size of graph/graph.db-wal in the data directory while reads overlap",
    ),
    entry(
        "advanced_memory_tuning.sqlite_advanced.wal_checkpoint_interval",
        "The graph's write-ahead log is moved into its file by a write that leaves so many pages in it.",
        "the size of graph/graph.db-wal in the data directory",
    ),
    entry(
        "advanced_memory_tuning.sqlite_advanced.analyze_frequency",
        "The planner's statistics are refreshed and free pages given back so often, when nothing is written.",
        "the table sqlite_stat1 of graph/graph.db; caxton_sqlite_query_time_seconds",
    ),
    entry(
        "advanced_memory_tuning.sqlite_advanced.vacuum_strategy",
        "Free pages of the graph's file are given back every analyze_frequency: up to 1,000 of them (incremental, which finds some \
         only with memory.sqlite_config.auto_vacuum: incremental), all, by writing the file anew (full), or all when more than a \
         quarter of the file is free and else as with incremental (auto).",
        "caxton_memory_sqlite_size_bytes",
    ),
    entry(
        "advanced_memory_tuning.embedding_advanced.model_precision",
        "The model's weights are kept and multiplied in this precision.",
        "the line model of the start report; caxton_embedding_model_info; `caxton benchmark embeddings`",
    ),
    entry(
        "advanced_memory_tuning.embedding_advanced.batch_optimization",
        "Texts of like length go through the model together, so that less is computed for padding.",
        "`caxton benchmark embeddings`; caxton_embedding_generation_duration_seconds",
    ),
    entry(
        "advanced_memory_tuning.embedding_advanced.prefetch_batches",
        "While the model is at some texts, so many batches behind them are cut into tokens by the thread that waits for the \
         vectors; 0 leaves that to the model's threads.",
        "caxton_embedding_texts_tokenized_ahead_total",
    ),
    entry(
        "advanced_memory_tuning.vector_similarity.algorithm",
        "Scores of a search by meaning are cosines, dot products or Euclidean distances turned into 1 / (1 + distance). \
         Vectors have length 1, so that the order is the same.",
        "the scores and the member similarity of GET /api/v1/memory/search?mode=semantic",
    ),
    entry(
        "advanced_memory_tuning.vector_similarity.precision_threshold",
        "With mode=semantic, cosines are compared in fixed steps of this size; hits in one step are ordered by their id.",
        "the order of hits of GET /api/v1/memory/search?mode=semantic",
    ),
    entry(
        "advanced_memory_tuning.vector_similarity.early_termination",
        "Scopes of 20,000 vectors and more are searched by sketches, very large ones through the approximate index; false compares \
         every vector.",
        "caxton_memory_search_latency_seconds with 20,000 vectors and more; `caxton memory compare-search`",
    ),
    entry(
        "advanced_memory_tuning.vector_similarity.scan_threads",
        "So many threads share the scan of one search; further searches at the same time scan alone.",
        "the threads called scan-…, as in `ps -T -p PID`; caxton_memory_search_latency_seconds",
    ),
    entry(
        "advanced_memory_tuning.cleanup_advanced.cleanup_strategy",
        "Sweeps of memory.cleanup remove first the entities that were not found, read or changed for longest (lru; a start \
         forgets reads), that did not change for longest (age), or of which most is noted (size).",
        "`caxton audit query --actor system`",
    ),
    entry(
        "advanced_memory_tuning.cleanup_advanced.cleanup_thread_count",
        "So many threads of a sweep look through all rows, for what is largest and for relations that lack an end; one \
         thread writes, whatever this says.",
        "the threads called cleanup-…, as in `ps -T -p PID`, during a sweep",
    ),
    entry(
        "runtime.cpu_optimization.memory_worker_threads",
        "So many threads read the graph for queries at a time.",
        "caxton_server_sqlite_connections; caxton_sqlite_query_time_seconds",
    ),
    entry(
        "runtime.cpu_optimization.agent_worker_threads",
        "The turns of agents run on so many threads.",
        "the threads called caxton-agents, as in `ps -T -p PID`",
    ),
    entry(
        "runtime.cpu_optimization.enable_cpu_affinity",
        "Each thread of the model, of scans and of requests is kept on one core.",
        "the line affinity of the start report; `taskset -pa PID`",
    ),
    entry(
        "runtime.cpu_optimization.high_priority_threads",
        "Threads of these classes get a higher priority from the system, where it lets the process raise one.",
        "the line priority of the start report; the column NI of `ps -T -o comm,ni -p PID`",
    ),
    entry(
        "runtime.cpu_optimization.async_runtime",
        "Asynchronous code runs on tokio. There is no other runtime.",
        "`caxton config check FILE`",
    ),
    entry(
        "runtime.cpu_optimization.tokio_worker_threads",
        "The asynchronous runtime that handles requests has so many threads, whatever http_server.worker_threads says; agents have \
         agent_worker_threads beside it.",
        "the threads called caxton-http, as in `ps -T -p PID`",
    ),
];
