//! The configuration: every key with its type, bounds and default, and where each effective value came from.
//!
//! Reading order: the sections ([`Server`], [`Memory`], [`Log`], …) say what may be set; [`load`] says how files,
//! environment and flags become one [`Config`]; [`check`], [`show`] and [`explain`] say it to people.
//!
//! Precedence: flag, then `CAXTON_*` variable, then file, then preset, then default. Two names of the same key in one
//! source with different values are refused; see `aliases.rs` for which names those are.

mod agents;
mod aliases;
mod check;
mod checks;
pub(crate) mod document;
mod effect;
mod environment;
mod explain;
mod keys;
mod llm;
mod load;
mod memory;
mod messaging;
mod paths;
mod presets;
mod privacy;
mod problem;
mod runtime;
mod server;
mod setting;
mod show;
mod table;
mod tools;
mod units;
mod values;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroUsize;

pub use agents::{
    AgentOverride, Agents, Classification, ConversationProcessing, DefaultLimits, MemoryScope,
    PriorityQueues, Queue, RequestHandling,
};
pub use check::{Report, check, check_file};
pub(crate) use document::{Document, Entry, Node, Yaml};
pub use document::{Place, TEXT_BYTES_MAX};
pub use effect::Ineffective;
pub(crate) use effect::effect_of;
pub use environment::environment;
pub use explain::{Explained, ExplainedKey, KeyLine, UnknownKey, explain};
pub use keys::{CreateError, HashError, KEY_PREFIX, KEYS_MAX, KeyHash, KeyHashes, NewKey, create_key};
pub use llm::{EXTRACTIVE, LOCAL, Llm, LlmProvider, NoKeyHere, ProviderKind};
pub use load::{Flag, Loaded, Origin, Sources, load, load_text};
pub use memory::{
    AutoVacuum, Backend, Cleanup, Durability, Embedding, EmbeddingConfig, EmbeddingEngine, Fusion, Log,
    MODEL_TOKENS_MAX, Memory, MemoryWrites, MigrationBackend, Model, Scaling, SearchDefaults, SearchMode,
    SqliteConfig, Synchronous, TempStore,
};
pub use messaging::Messaging;
pub(crate) use paths::{file_in_the_way, resolved};
pub use presets::{Preset, UnknownPreset};
pub use privacy::{Encrypt, Privacy};
pub use problem::{LoadError, Problem, Source};
pub use runtime::{
    AdvancedMemoryTuning, AgentMemory, Allocator, AsyncRuntime, CleanupAdvanced, CleanupStrategy,
    CpuOptimization, EmbeddingAdvanced, MemoryAllocation, ModelPages, Precision, Runtime, Similarity,
    SqliteAdvanced, SqliteAllocator, SqliteMemory, ThreadClass, VacuumStrategy, VectorSimilarity,
    WalCheckpoint,
};
pub use server::{ApiOptimization, Auth, Format, HttpServer, LogFormat, Logging, METRICS_PORT, PORT, Server};
pub use setting::{RowField, Rows};
pub use show::{known_keys, show};
pub use tools::McpServer;
pub use units::{Bytes, format_duration, parse_duration};

setting::section! {
    /// Everything that can be set, with its effective value.
    pub struct Config {
        /// `server`.
        pub server: Server = Server::default();
        /// `http_server`.
        pub http_server: HttpServer = HttpServer::default();
        /// `api_optimization`.
        pub api_optimization: ApiOptimization = ApiOptimization::default();
        /// `auth`.
        pub auth: Auth = Auth::default();
        /// `log`: the event log.
        pub log: Log = Log::default();
        /// `memory`.
        pub memory: Memory = Memory::default();
        /// `memory_writes`.
        pub memory_writes: MemoryWrites = MemoryWrites::default();
        /// `embedding`.
        pub embedding: Embedding = Embedding::default();
        /// `memory_allocation`.
        pub memory_allocation: MemoryAllocation = MemoryAllocation::default();
        /// `advanced_memory_tuning`.
        pub advanced_memory_tuning: AdvancedMemoryTuning = AdvancedMemoryTuning::default();
        /// `runtime`.
        pub runtime: Runtime = Runtime::default();
        /// `agents`.
        pub agents: Agents = Agents::default();
        /// `llm`: language models.
        pub llm: Llm = Llm::default();
        /// `mcp_servers`: servers of tools that agents may be allowed to call.
        pub mcp_servers: Rows<McpServer> = Rows::default();
        /// `privacy`: what of the log can be made unreadable.
        pub privacy: Privacy = Privacy::default();
        /// `messaging`: limits of messages, inboxes and conversations.
        pub messaging: Messaging = Messaging::default();
        /// `conversation_processing`.
        pub conversation_processing: ConversationProcessing = ConversationProcessing::default();
        /// `request_handling`.
        pub request_handling: RequestHandling = RequestHandling::default();
        /// `logging`: what the process tells on standard error.
        pub logging: Logging = Logging::default();
    }
}

/// Why the server must not listen where it was told to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} can be reached from other machines and no API key is configured; make one with `caxton key create \
     NAME` and set auth.keys_file, or listen on 127.0.0.1"
)]
pub struct ExposedError {
    /// The address it was told.
    pub address: SocketAddr,
}

impl Config {
    /// The effective value of every key of a section, by its dotted name.
    pub fn values_below(&self, section: &str) -> serde_json::Map<String, serde_json::Value> {
        let below = |key: &&str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        let keys = show::canonical_keys().filter(below);
        keys.map(|key| (key.to_owned(), table::value_of(self, key))).collect()
    }

    /// Threads of the asynchronous runtime, which handles requests: `tokio_worker_threads`, else
    /// `http_server.worker_threads`, else one a core.
    pub fn tokio_worker_threads(&self) -> usize {
        let explicit = self.runtime.cpu_optimization.tokio_worker_threads;
        explicit.or(self.http_server.worker_threads).unwrap_or_else(cores)
    }

    /// Threads that run the turns of agents: `agent_worker_threads`, else the cores but at most 4.
    pub fn agent_worker_threads(&self) -> usize {
        self.runtime.cpu_optimization.agent_worker_threads.unwrap_or_else(|| cores().min(4))
    }

    /// Threads that run the embedding model: `thread_count`, else the cores but at most 4.
    pub fn embedding_threads(&self) -> usize {
        self.memory.embedding_config.thread_count.unwrap_or_else(|| cores().min(4))
    }

    /// Threads that scan vectors for one search: `scan_threads`, else the cores but at most 4.
    pub fn scan_threads(&self) -> usize {
        self.advanced_memory_tuning.vector_similarity.scan_threads.unwrap_or_else(|| cores().min(4))
    }

    /// Size in bytes from which an event is compressed; `None` when compression is off.
    pub fn compress_above(&self) -> Option<usize> {
        let writes = &self.memory_writes;
        writes.compress_observations.then_some(writes.compression_threshold.0)
    }

    /// The API keys: those in place and those of `auth.keys_file`, which is read now.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when the file cannot be read or holds something else.
    pub fn api_keys(&self) -> Result<KeyHashes, Box<Problem>> {
        match &self.auth.keys_file {
            Some(path) => keys::read_keys_file(path, self.auth.keys.clone()),
            None => Ok(self.auth.keys.clone()),
        }
    }

    /// Refuses an address that other machines reach while there is no key.
    ///
    /// # Errors
    ///
    /// [`ExposedError`] then.
    pub fn check_exposure(&self, keys: &KeyHashes) -> Result<(), ExposedError> {
        let address = self.http_server.bind_address;
        if address.ip().is_loopback() || !keys.is_empty() { Ok(()) } else { Err(ExposedError { address }) }
    }
}

/// Cores this process may use, at least 1.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}
