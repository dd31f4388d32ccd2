//! `memory`, `memory_writes`, `log`, `embedding`: what is kept, how it is written and how it is found.

use std::path::PathBuf;
use std::time::Duration;

use super::setting::{DAY, Limits, choice, millis, section, share, whole};
use super::units::Bytes;

section! {
    /// `memory`: the long-term memory.
    pub struct Memory {
        /// Kind of store.
        pub backend: Backend = Backend::Embedded;
        /// The SQLite file behind the graph and text projections. Durability is the log's, see [`Log`].
        pub sqlite_config: SqliteConfig = SqliteConfig::default();
        /// The embedding model and its caches.
        pub embedding_config: EmbeddingConfig = EmbeddingConfig::default();
        /// Periodic removal of what is beyond the limits.
        pub cleanup: Cleanup = Cleanup::default();
        /// When to advise a move to a larger store.
        pub scaling: Scaling = Scaling::default();
        /// What a search does unless the request says otherwise.
        pub search: SearchDefaults = SearchDefaults::default();
    }
}

choice! {
    /// Kinds of store.
    pub enum Backend {
        /// In this process.
        Embedded = "embedded",
    }
}

section! {
    /// `memory.sqlite_config`: pragmas of the graph and text projections.
    pub struct SqliteConfig {
        /// `journal_mode`: write-ahead log, or a rollback journal.
        pub wal_mode: bool = true;
        /// `cache_size` of the writer, in MB; the readers share half as much again.
        pub cache_size_mb: u32 = 128, whole(1, 65_536);
        /// `mmap_size`, in MB: at most 2047, the most that SQLite maps. 0 turns mapping off.
        pub mmap_size_mb: u32 = 512, whole(0, 2_047);
        /// `page_size`, in bytes; a file that has another one is written anew at the start.
        pub page_size: u32 = 4_096, Limits::PowerOfTwo { min: 512, max: 65_536 };
        /// `synchronous`.
        pub synchronous: Synchronous = Synchronous::Normal;
        /// `journal_size_limit`, in MB; unset: no limit.
        pub journal_size_limit_mb: Option<u32> = Some(100), whole(1, 1 << 20);
        /// `temp_store`.
        pub temp_store: TempStore = TempStore::Memory;
        /// `auto_vacuum`; a file that has another one is written anew at the start.
        pub auto_vacuum: AutoVacuum = AutoVacuum::None;
    }
}

choice! {
    /// SQLite's `synchronous`.
    pub enum Synchronous {
        /// Never wait for the disk.
        Off = "off",
        /// Wait at checkpoints.
        Normal = "normal",
        /// Wait at every commit.
        Full = "full",
    }
}

choice! {
    /// SQLite's `temp_store`.
    pub enum TempStore {
        /// As SQLite was built.
        Default = "default",
        /// In files.
        File = "file",
        /// In memory.
        Memory = "memory",
    }
}

choice! {
    /// SQLite's `auto_vacuum`.
    pub enum AutoVacuum {
        /// The file never shrinks by itself.
        None = "none",
        /// Free pages are given back every `advanced_memory_tuning.sqlite_advanced.analyze_frequency`.
        Incremental = "incremental",
        /// Free pages are given back at every commit.
        Full = "full",
    }
}

section! {
    /// `memory.embedding_config`: the model that turns text into vectors.
    pub struct EmbeddingConfig {
        /// Name of the model.
        pub model: Model = Model::MiniLmL6V2;
        /// Folder with the model's files, looked at first.
        pub model_path: PathBuf = PathBuf::from("./models/");
        /// Query vectors kept in memory.
        pub cache_size: usize = 10_000, whole(0, 100_000_000);
        /// Texts of one forward pass.
        pub batch_size: usize = 32, whole(1, 4_096);
        /// Threads of the model; unset: 4, or the cores when they are fewer. From 2 on, two share a single short query.
        pub thread_count: Option<usize> = None, whole(1, 1_024);
        /// Tokens of a text that the model reads. The model's own limit is 256: above it this is cut to 256.
        pub max_sequence_length: usize = MODEL_TOKENS_MAX, whole(8, 512);
        /// Compute the vectors of frequent queries before they are asked.
        pub precompute_common: bool = false;
        /// Share of queries that should be answered from the cache; below it, once the cache had to forget some, a warning is
        /// logged.
        pub cache_hit_target: f64 = 0.90, share();
        /// Age at which a cached vector is dropped.
        pub embedding_ttl: Duration = Duration::from_hours(1), millis(1, 3_650 * DAY);
        /// Share of the cache from which on entries that are too old are dropped, and that stays when it is full.
        pub cleanup_threshold: f64 = 0.8, Limits::Real { min: 0.05, max: 1.0 };
        /// A full cache is emptied to half, where that is less than `cleanup_threshold`.
        pub aggressive_cleanup: bool = false;
    }
}

/// Tokens that all-MiniLM-L6-v2 was trained to read; longer texts are cut into chunks of this many.
pub const MODEL_TOKENS_MAX: usize = 256;

choice! {
    /// Known embedding models.
    pub enum Model {
        /// sentence-transformers/all-MiniLM-L6-v2, 384 dimensions.
        MiniLmL6V2 = "all-MiniLM-L6-v2",
    }
}

section! {
    /// `memory.cleanup`: sweeps that remove what is above a limit, as events that can be undone.
    pub struct Cleanup {
        /// Time between sweeps.
        pub interval: Duration = Duration::from_mins(5), millis(1_000, 365 * DAY);
        /// Entities above which a sweep removes some; unset: no limit.
        pub entity_limit: Option<u64> = None, whole(1, u64::MAX);
        /// Relations above which a sweep removes some; unset: no limit.
        pub relation_limit: Option<u64> = None, whole(1, u64::MAX);
        /// Rows that a sweep removes in one step; other writes go between two.
        pub batch_size: usize = 100, whole(1, 1_000_000);
        /// Sweeps remove relations that lack an end.
        pub orphan_cleanup: bool = true;
    }
}

section! {
    /// `memory.scaling`: when to advise a move to a larger store.
    pub struct Scaling {
        /// Entities above which it is advised.
        pub max_entities: u64 = 100_000, whole(1, u64::MAX);
        /// Relations above which it is advised.
        pub max_relations: u64 = 500_000, whole(1, u64::MAX);
        /// Size above which it is advised, in MB.
        pub max_storage_mb: u64 = 1_024, whole(1, u64::MAX);
        /// 99th percentile of search above which it is advised, in milliseconds.
        pub max_search_latency_ms: u64 = 100, whole(1, 3_600_000);
        /// Share of cache hits below which it is advised, once the cache had to forget some.
        pub min_cache_hit_rate: f64 = 0.80, share();
        /// Move by itself. Not offered: only `false`.
        pub auto_migrate_enabled: bool = false;
        /// Where a move would go.
        pub migration_backend: MigrationBackend = MigrationBackend::Qdrant;
    }
}

choice! {
    /// Larger stores.
    pub enum MigrationBackend {
        /// Vectors to Qdrant.
        Qdrant = "qdrant",
    }
}

section! {
    /// `memory.search`: what a search does unless the request says otherwise.
    pub struct SearchDefaults {
        /// By meaning, by words, or both.
        pub mode: SearchMode = SearchMode::Hybrid;
        /// How the two rankings of a hybrid search become one.
        pub fusion: Fusion = Fusion::Weighted;
        /// Share of meaning in the weighted fusion; words have the rest.
        pub semantic_weight: f64 = 0.6, share();
        /// Hits of a search when the request names no limit.
        pub limit: usize = 10, whole(1, 1_000);
        /// Hits of a search at most; a larger limit is refused.
        pub max_limit: usize = 100, whole(1, 1_000);
        /// Observations before and after each matched one that are returned with it.
        pub neighbours: usize = 0, whole(0, 20);
        /// Size of the answers that are kept until memory changes, in bytes; 0: none is. Unset: a 32nd of
        /// `memory.sqlite_config.cache_size_mb`, 4 MiB as a rule.
        pub cache_size: Option<Bytes> = None, whole(0, 16 << 30);
    }
}

choice! {
    /// How a search finds.
    pub enum SearchMode {
        /// By meaning.
        Semantic = "semantic",
        /// By words.
        Keyword = "keyword",
        /// By both.
        Hybrid = "hybrid",
    }
}

choice! {
    /// How two rankings become one.
    pub enum Fusion {
        /// Weighted sum of normalised scores.
        Weighted = "weighted",
        /// Reciprocal ranks.
        ReciprocalRank = "reciprocal_rank",
    }
}

section! {
    /// `memory_writes`: batches between the log and the projections.
    pub struct MemoryWrites {
        /// Records about entities of one step of the graph, one transaction.
        pub entity_batch_size: usize = 1_000, whole(1, 1_000_000);
        /// Records about relations of one step of the graph.
        pub relation_batch_size: usize = 1_000, whole(1, 1_000_000);
        /// Records about observations of one step of the graph.
        pub observation_batch_size: usize = 1_000, whole(1, 1_000_000);
        /// Records of one step of the vectors. Few starve the model's batches; many keep `wait=indexed` waiting.
        pub embedding_batch_size: usize = 512, whole(1, 1_000_000);
        /// Time of a step of the graph above which the next ones are made smaller.
        pub transaction_timeout: Duration = Duration::from_secs(5), millis(1, DAY);
        /// Records of any kind of one step of the graph.
        pub max_transaction_size: usize = 1_000, whole(1, 1_000_000);
        /// Requests that write and wait for the memory writer at most, a batch as one; above it new ones are answered 503.
        pub max_pending_writes: usize = 5_000, whole(1, 10_000_000);
        /// Compress long observations in the log.
        pub compress_observations: bool = true;
        /// Smallest event that is compressed, in bytes.
        pub compression_threshold: Bytes = Bytes(4_096);
    }
}

section! {
    /// `log`: the event log, the only truth.
    pub struct Log {
        /// When an append is acknowledged.
        pub durability: Durability = Durability::Always;
        /// Time between syncs with `durability: interval`: what a power cut may lose. Without effect otherwise.
        pub flush_interval: Duration = Duration::from_secs(1), millis(1, 3_600_000);
        /// Cache of the log's store, in MB.
        pub cache_mb: u64 = 32, whole(1, 1 << 20);
    }
}

choice! {
    /// When an append is acknowledged.
    pub enum Durability {
        /// When it is on disk.
        Always = "always",
        /// When it is with the operating system; synced every `log.flush_interval`.
        Interval = "interval",
        /// When it is with the operating system; never synced. For benchmarks.
        Off = "off",
    }
}

section! {
    /// `embedding`: which code runs the model, and whether any does.
    pub struct Embedding {
        /// Code that runs the model.
        pub engine: EmbeddingEngine = EmbeddingEngine::Fused;
        /// Run without a model: search by words only.
        pub keyword_only: bool = false;
    }
}

choice! {
    /// Code that runs the model.
    pub enum EmbeddingEngine {
        /// Our own forward pass.
        Fused = "fused",
        /// Candle's, slower: the reference.
        Candle = "candle",
    }
}
