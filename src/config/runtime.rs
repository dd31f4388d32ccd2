//! `runtime`, `memory_allocation`, `advanced_memory_tuning`: threads, pages and finer points of the stores.

use std::time::Duration;

use super::document::{Node, Yaml};
use super::setting::{DAY, Limits, Setting, Wrong, choice, keys, millis, one_of, section, whole, word};

section! {
    /// `runtime`: the machine.
    pub struct Runtime {
        /// Threads.
        pub cpu_optimization: CpuOptimization = CpuOptimization::default();
    }
}

section! {
    /// `runtime.cpu_optimization`: threads.
    pub struct CpuOptimization {
        /// Reads of the graph at a time, each with a connection of its own to SQLite; unset: 8. One thread writes.
        pub memory_worker_threads: Option<usize> = None, whole(1, 64);
        /// Threads of agents; unset: 4, or the cores when they are fewer.
        pub agent_worker_threads: Option<usize> = None, whole(1, 1_024);
        /// Keep each thread of requests, agents, the model, scans and the memory on one core.
        pub enable_cpu_affinity: bool = false;
        /// Classes of threads that the system should serve first. It must be allowed to raise a priority (`CAP_SYS_NICE`).
        pub high_priority_threads: Vec<ThreadClass> = Vec::new();
        /// Runtime of asynchronous code.
        pub async_runtime: AsyncRuntime = AsyncRuntime::Tokio;
        /// Threads of that runtime, whatever `http_server.worker_threads` says; unset: as many as that says, else the cores.
        /// Agents have threads of their own beside it: `agent_worker_threads`.
        pub tokio_worker_threads: Option<usize> = None, whole(1, 1_024);
    }
}

choice! {
    /// Threads that do the same.
    pub enum ThreadClass {
        /// Requests.
        HttpWorkers = "http_workers",
        /// Searches: the model for queries, and scans.
        MemorySearch = "memory_search",
        /// The memory writer and the log.
        MemoryWriter = "memory_writer",
        /// Messages between agents.
        Messages = "messages",
        /// Turns of agents.
        Agents = "agents",
        /// The model for what is written.
        Embedding = "embedding",
    }
}

impl Setting for Vec<ThreadClass> {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let Yaml::List(items) = &node.value else { return Err(Wrong::kind(node, &self.takes(limits))) };
        let read = |(index, item): (usize, &Node)| {
            let class = word(item, ThreadClass::WORDS, ThreadClass::from_word);
            class.map_err(|wrong| wrong.below(&format!("[{index}]")))
        };
        *self = items.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        self.iter().map(|class| class.as_str()).collect()
    }

    fn takes(&self, _: Limits) -> String {
        format!("a list, each {}", one_of(ThreadClass::WORDS))
    }
}

keys!(Vec<ThreadClass>);

choice! {
    /// Runtimes of asynchronous code.
    pub enum AsyncRuntime {
        /// Tokio.
        Tokio = "tokio",
    }
}

section! {
    /// `memory_allocation`: where memory comes from.
    pub struct MemoryAllocation {
        /// Allocator of the process. It is chosen when the program is built: mimalloc, or with `--features jemalloc` or
        /// `--features system-allocator` another.
        pub allocator: Allocator = Allocator::BUILT_IN;
        /// Memory that was freed goes back to the system after so long, unless it is used again before.
        pub purge_delay: Duration = Duration::from_secs(1), millis(0, 3_600_000);
        /// Pages of the model's file.
        pub embedding_model: ModelPages = ModelPages::default();
        /// SQLite's allocators.
        pub sqlite_memory: SqliteMemory = SqliteMemory::default();
        /// Pools of agents.
        pub agent_memory: AgentMemory = AgentMemory::default();
    }
}

choice! {
    /// Allocators.
    pub enum Allocator {
        /// The system's.
        System = "system",
        /// jemalloc.
        Jemalloc = "jemalloc",
        /// mimalloc.
        Mimalloc = "mimalloc",
    }
}

impl Allocator {
    /// The one that this program was built with.
    pub const BUILT_IN: Self = if cfg!(feature = "system-allocator") {
        Self::System
    } else if cfg!(feature = "jemalloc") {
        Self::Jemalloc
    } else {
        Self::Mimalloc
    };
}

section! {
    /// `memory_allocation.embedding_model`: pages of the model's file.
    pub struct ModelPages {
        /// Map the file instead of reading it.
        pub memory_mapping: bool = true;
        /// Touch every page at start.
        pub prefault_pages: bool = true;
        /// Ask for huge pages under the weights; otherwise the whole process does without them.
        pub huge_pages: bool = true;
    }
}

section! {
    /// `memory_allocation.sqlite_memory`: SQLite's allocators.
    pub struct SqliteMemory {
        /// Of its page cache.
        pub page_cache_allocator: SqliteAllocator = SqliteAllocator::Malloc;
        /// Of temporary storage.
        pub temp_allocator: SqliteAllocator = SqliteAllocator::Malloc;
    }
}

choice! {
    /// SQLite's allocators.
    pub enum SqliteAllocator {
        /// The process's.
        Malloc = "malloc",
    }
}

section! {
    /// `memory_allocation.agent_memory`: pools of agents.
    pub struct AgentMemory {
        /// Reuse the room of conversations that left `conversation_processing.conversation_cache_size` for others.
        pub conversation_pool: bool = true;
        /// Reuse the buffers that answers are written into.
        pub response_pool: bool = true;
        /// Objects that each pool keeps while nobody uses them; a buffer of an answer has 64 KiB at most.
        pub pool_size: usize = 1_000, whole(0, 10_000_000);
    }
}

section! {
    /// `advanced_memory_tuning`: finer points of the stores.
    pub struct AdvancedMemoryTuning {
        /// SQLite's maintenance.
        pub sqlite_advanced: SqliteAdvanced = SqliteAdvanced::default();
        /// How the model runs.
        pub embedding_advanced: EmbeddingAdvanced = EmbeddingAdvanced::default();
        /// How vectors are compared.
        pub vector_similarity: VectorSimilarity = VectorSimilarity::default();
        /// How cleanup chooses.
        pub cleanup_advanced: CleanupAdvanced = CleanupAdvanced::default();
    }
}

section! {
    /// `advanced_memory_tuning.sqlite_advanced`: SQLite's maintenance.
    pub struct SqliteAdvanced {
        /// How hard a checkpoint of the write-ahead log tries. Where a read of an older state goes on, `full` and `restart` hold the
        /// next writes up for up to 5 s; no read waits.
        pub wal_checkpoint_strategy: WalCheckpoint = WalCheckpoint::Passive;
        /// Pages of the write-ahead log after which a write moves them into the file.
        pub wal_checkpoint_interval: u32 = 10_000, whole(1, 1 << 24);
        /// Time between refreshes of the query planner's statistics; free pages are then given back too.
        pub analyze_frequency: Duration = Duration::from_hours(1), millis(1_000, 365 * DAY);
        /// How free pages are given back. `incremental` finds some only with `memory.sqlite_config.auto_vacuum: incremental`;
        /// `auto` writes the file anew when more than a quarter of it is free.
        pub vacuum_strategy: VacuumStrategy = VacuumStrategy::Incremental;
    }
}

choice! {
    /// How hard a checkpoint tries.
    pub enum WalCheckpoint {
        /// As far as no reader is in the way.
        Passive = "passive",
        /// Wait for readers.
        Full = "full",
        /// Wait for readers, those of the newest state too, so that the next write begins it anew.
        Restart = "restart",
    }
}

choice! {
    /// How free pages are given back.
    pub enum VacuumStrategy {
        /// Some at a time, where `memory.sqlite_config.auto_vacuum` is `incremental`.
        Incremental = "incremental",
        /// All at once: the file is written anew.
        Full = "full",
        /// All at once when more than a quarter of the file is free, else some.
        Auto = "auto",
    }
}

section! {
    /// `advanced_memory_tuning.embedding_advanced`: how the model runs.
    pub struct EmbeddingAdvanced {
        /// What the model's products are made of. With fewer bits texts become vectors faster, where the
        /// processor has instructions for it, and rankings are nearly the same. Each precision has vectors of its own:
        /// after a change they are made anew.
        pub model_precision: Precision = Precision::Fp32;
        /// Put texts of like length together.
        pub batch_optimization: bool = true;
        /// Batches to cut into tokens while the model is at others.
        pub prefetch_batches: usize = 2, whole(0, 1_024);
    }
}

choice! {
    /// Precision of the embedding model.
    pub enum Precision {
        /// 32 bits.
        Fp32 = "fp32",
        /// 16 bits, as bfloat16.
        Fp16 = "fp16",
        /// 8 bits, scaled by column and by token.
        Int8 = "int8",
    }
}

section! {
    /// `advanced_memory_tuning.vector_similarity`: how vectors are compared.
    pub struct VectorSimilarity {
        /// What scores by meaning say. Vectors have length 1, so that all three order hits alike; the Euclidean distance is
        /// shown as 1 / (1 + distance).
        pub algorithm: Similarity = Similarity::Cosine;
        /// With `mode=semantic`, cosines are compared in fixed steps of this size, and those in one step are ties, ordered
        /// by id; 0 keeps the exact order.
        pub precision_threshold: f64 = 0.0, Limits::Real { min: 0.0, max: 0.5 };
        /// Search scopes by sketches from 20,000 vectors on, and by the approximate index where they have one; else every
        /// search compares all vectors.
        pub early_termination: bool = true;
        /// Threads that scan for one search; unset: 4, or the cores when they are fewer. Others scan alone meanwhile.
        pub scan_threads: Option<usize> = None, whole(1, 8);
    }
}

choice! {
    /// Measures of similarity.
    pub enum Similarity {
        /// Cosine.
        Cosine = "cosine",
        /// Dot product.
        Dot = "dot",
        /// Euclidean distance.
        Euclidean = "euclidean",
    }
}

section! {
    /// `advanced_memory_tuning.cleanup_advanced`: how sweeps choose.
    pub struct CleanupAdvanced {
        /// What sweeps remove first: what was not used for longest, what did not change for longest, what is largest.
        pub cleanup_strategy: CleanupStrategy = CleanupStrategy::Lru;
        /// Threads that look for what is largest and for relations without an end.
        pub cleanup_thread_count: usize = 1, whole(1, 1_024);
    }
}

choice! {
    /// What cleanup removes first.
    pub enum CleanupStrategy {
        /// What was not used for longest.
        Lru = "lru",
        /// What is oldest.
        Age = "age",
        /// What is largest.
        Size = "size",
    }
}
