//! From flags, files and variables to options of the parts: the one place that knows them all.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use caxton_events::log::open::LOG_FILE;
use caxton_events::log::{self, OpenError};
use caxton_projections::embedding::{
    self, CacheOptions, Embedder as _, EmbeddingService, Engine as ModelEngine, ModelOptions, Precision,
    ServiceOptions,
};
use caxton_projections::graph::{
    AutoVacuum, CheckpointStrategy, SqliteOptions, Synchronous, TempStore, VacuumStrategy,
};
use caxton_projections::queries::{Fusion, SearchMode};
use caxton_projections::vector::VectorOptions;
use caxton_tools::backup::format::MANIFEST_FILE;

use super::args::Common;
use super::failure::{Exit, Failure};
use super::interrupt::{Open, Opening};
use super::model::{self, Missing};
use super::progress::Progress;
use crate::agents::{
    AgentDirectory, DirectoryOptions, EngineLog, Equipment, Surroundings, open_conversations,
};
use crate::allocator;
use crate::api::rest::{ApiKeys, Compression, Formats, Measure, RestOptions, ScopeKind, SearchDefaults};
use crate::commands::talk;
use crate::config::{self, Config, Flag, Loaded, Sources};
use crate::engine::advice::Watched;
use crate::engine::cleanup::{Cleanup, First};
use crate::engine::steps::StepLimits;
use crate::engine::{Engine, EngineOptions, StartError, StartStep, Timed};
use crate::llm;
use crate::model::PullOptions;
use crate::telemetry;
use crate::toolbox::memory::Ranking;

const MIB: usize = 1 << 20;

/// The configuration: flags over variables over the file over the preset.
pub(super) fn load(common: &Common, mut flags: Vec<Flag>) -> Result<Loaded, Failure> {
    if let Some(dir) = &common.data_dir {
        let dir = as_text("--data-dir (or CAXTON_DATA_DIR)", dir)?;
        flags.push(Flag::text("--data-dir", "server.data_dir", dir));
    }
    if let Some(dir) = &common.model_path {
        let dir = as_text("--model-path", dir)?;
        flags.push(Flag::text("--model-path", "memory.embedding_config.model_path", dir));
    }
    if common.keyword_only {
        flags.push(Flag::new("--keyword-only", "embedding.keyword_only", "true"));
    }
    flags.extend(common.set.iter().map(|set| Flag::new("--set", &set.key, &*set.value)));
    let sources = Sources {
        preset: common.preset,
        file: common.config.clone(),
        environment: config::environment(),
        flags,
    };
    config::load(&sources).map_err(|error| Failure::of(Exit::Usage, &error))
}

/// A folder as the configuration has it. A name that is no text would silently become that of another folder.
fn as_text<'a>(flag: &str, dir: &'a Path) -> Result<&'a str, Failure> {
    dir.to_str().ok_or_else(|| {
        let message = format!(
            "{flag}: the name of the folder {} is not UTF-8, as it must be; rename the folder, or name a symbolic link to it",
            dir.display()
        );
        Failure::new(Exit::Usage, message)
    })
}

/// The data directory, whether it exists or not.
pub(super) fn data_dir(common: &Common) -> Result<PathBuf, Failure> {
    let dir = named_dir(common)?;
    can_hold_data(&dir)?;
    Ok(dir)
}

/// The folder that is named for the data directory, which may be a backup.
pub(super) fn named_dir(common: &Common) -> Result<PathBuf, Failure> {
    match &common.data_dir {
        Some(dir) => Ok(dir.clone()),
        None => Ok(load(common, Vec::new())?.config.server.data_dir),
    }
}

/// Refuses as a data directory a file, what would lie in one, and a backup.
pub(super) fn can_hold_data(dir: &Path) -> Result<(), Failure> {
    is_no_file(dir)?;
    if !is_backup(dir) {
        return Ok(());
    }
    let dir = dir.display();
    let message = format!(
        "{dir} is a backup, not a data directory: make one of it with `caxton restore --from {dir} --to DIR` and name DIR; \
         `caxton backup verify {dir}` and `caxton replay --data-dir {dir}` read the backup itself"
    );
    Err(Failure::new(Exit::Usage, message))
}

/// Whether a backup is in `dir`, and no log.
pub(super) fn is_backup(dir: &Path) -> bool {
    dir.join(MANIFEST_FILE).is_file() && !dir.join(LOG_FILE).exists()
}

fn is_no_file(dir: &Path) -> Result<(), Failure> {
    let Some(file) = config::file_in_the_way(dir) else { return Ok(()) };
    let message = format!(
        "the data directory cannot be {}: {} is a file, not a folder; name the folder that it lies in, or \
         another one, with --data-dir (or CAXTON_DATA_DIR, or server.data_dir in the configuration)",
        dir.display(),
        file.display()
    );
    Err(Failure::new(Exit::Usage, message))
}

/// The data directory, which must exist.
pub(super) fn existing_data_dir(common: &Common) -> Result<PathBuf, Failure> {
    let dir = data_dir(common)?;
    if dir.is_dir() {
        return Ok(dir);
    }
    let message = format!(
        "there is no data directory at {} and no server was named; name one with --data-dir or --url, or run `caxton \
         serve`",
        dir.display()
    );
    Err(Failure::new(Exit::NotFound, message))
}

/// A running engine on the data directory, which is closed in order when what comes with it is dropped or a signal comes.
pub(super) fn engine(
    loaded: &Loaded,
    common: &Common,
    progress: &mut Progress,
) -> Result<(Engine, Open), Failure> {
    // A model may be fetched first, which a signal ends at once.
    let embedding = embedding(loaded, common, &PullOptions::default())?;
    let opening = Opening::begin();
    let engine = start(loaded, embedding, false, progress)?;
    let stopped = engine.clone();
    let open = opening.closed_by(move || {
        stopped.stop();
        match stopped.failed_end() {
            None => "the log is closed in order".to_owned(),
            Some(why) => format!("the log could not be closed in order: {why}"),
        }
    });
    Ok((engine, open))
}

/// The same for a server: a graph that must be built anew is built while everything else is answered. A model that is fetched first
/// is given up when `stop` is set.
pub(super) fn serving_engine(
    loaded: &Loaded,
    common: &Common,
    progress: &mut Progress,
    stop: &Arc<AtomicBool>,
) -> Result<Engine, Failure> {
    let options = PullOptions { stop: Arc::clone(stop), ..PullOptions::default() };
    start(loaded, embedding(loaded, common, &options)?, true, progress)
}

/// What turns texts into vectors, if anything does.
fn embedding(
    loaded: &Loaded,
    common: &Common,
    options: &PullOptions,
) -> Result<Option<Arc<EmbeddingService>>, Failure> {
    // Before anything large is loaded.
    allocator::give_back_after(loaded.config.memory_allocation.purge_delay);
    if loaded.config.embedding.keyword_only {
        return Ok(None);
    }
    let found = model::find_or_pull(loaded, common, Missing::RefuseConfigured, options)?;
    embedding_service(&loaded.config, &found).map(Some)
}

fn start(
    loaded: &Loaded,
    embedding: Option<Arc<EmbeddingService>>,
    rebuild_beside: bool,
    progress: &mut Progress,
) -> Result<Engine, Failure> {
    let options = EngineOptions { rebuild_beside, ..engine_options(&loaded.config, embedding) };
    let engine = Engine::start(&options, &mut |step| match step {
        StartStep::Folding { at, of, .. } => progress.set(at.0, of.0),
        StartStep::LoadingVectors => (),
    });
    engine.map_err(|error| {
        let locked = matches!(error, StartError::Log(OpenError::Locked { .. }));
        Failure::of(if locked { Exit::Unreachable } else { Exit::Failed }, &error)
    })
}

/// The agents of the directory that `config` names, looked after from now on.
pub(super) fn agents(
    config: &Config,
    engine: &Engine,
    equipment: &Equipment,
) -> Result<AgentDirectory, Failure> {
    let options = DirectoryOptions::new(config, &config.server.data_dir);
    let surroundings = Surroundings {
        tools: equipment.tools.names().map(str::to_owned).collect(),
        providers: equipment.models.names().map(str::to_owned).collect(),
        ..options.surroundings
    };
    let conversations = open_conversations(engine.clone());
    let options = DirectoryOptions { surroundings, conversations, ..options };
    AgentDirectory::start(Arc::new(EngineLog::of(engine.clone())), options)
        .map_err(|error| Failure::of(Exit::Failed, &error))
}

/// The language models that `config` names, checked; those of the agents' files are among them.
pub(super) fn language_models(config: &Config) -> Result<llm::Registry, Failure> {
    let environment = |name: &str| std::env::var(name).ok();
    let caches = config.conversation_processing.response_cache_enabled;
    let ttl = if caches { config.agents.response_cache_ttl } else { Duration::ZERO };
    let around = llm::Surroundings {
        local_model: crate::model::small_language_model(Some(&config.server.data_dir)),
        ..llm::Surroundings::of_machine(&environment, ttl)
    };
    llm::Registry::build(&config.llm, &around).map_err(|error| Failure::of(Exit::Usage, &error))
}

/// What agents of files work with, over `engine`.
pub(super) fn equipment(config: &Config, engine: &Engine, models: llm::Registry) -> Equipment {
    Equipment::new(config, engine, models, ranking(config))
}

/// How searches of agents and for them rank: as those of clients that say nothing.
fn ranking(config: &Config) -> Ranking {
    let SearchDefaults { mode, fusion, exact, precision, .. } = search_defaults(config);
    Ranking { mode, fusion, exact, precision }
}

/// The model in `dir` behind its service.
pub(super) fn embedding_service(config: &Config, dir: &Path) -> Result<Arc<EmbeddingService>, Failure> {
    let embedder =
        embedding::load(dir, &model_options(config)).map_err(|error| Failure::of(Exit::Failed, &error))?;
    let service = EmbeddingService::start(Arc::new(Timed(embedder)), service_options(config))
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    telemetry::embedding_loaded(service.identity().precision.name(), service.instructions());
    Ok(Arc::new(service))
}

fn service_options(config: &Config) -> ServiceOptions {
    let started = Instant::now();
    let cache = &config.memory.embedding_config;
    ServiceOptions {
        threads: config.embedding_threads(),
        batch_size: cache.batch_size,
        batches_ahead: config.advanced_memory_tuning.embedding_advanced.prefetch_batches,
        cache: CacheOptions {
            entries_max: cache.cache_size,
            ttl: Some(cache.embedding_ttl),
            cleanup_threshold: cache.cleanup_threshold,
            aggressive_cleanup: cache.aggressive_cleanup,
        },
        count_queries: cache.precompute_common,
        length_sorted: config.advanced_memory_tuning.embedding_advanced.batch_optimization,
        ..ServiceOptions::new(Arc::new(move || started.elapsed()))
    }
}

fn model_options(config: &Config) -> ModelOptions {
    let (pages, settings) = (&config.memory_allocation.embedding_model, &config.memory.embedding_config);
    ModelOptions {
        engine: match config.embedding.engine {
            config::EmbeddingEngine::Fused => ModelEngine::Fused,
            config::EmbeddingEngine::Candle => ModelEngine::Candle,
        },
        precision: match config.advanced_memory_tuning.embedding_advanced.model_precision {
            config::Precision::Fp32 => Precision::Fp32,
            config::Precision::Fp16 => Precision::Fp16,
            config::Precision::Int8 => Precision::Int8,
        },
        memory_map: pages.memory_mapping,
        prefault: pages.prefault_pages,
        huge_pages: pages.huge_pages,
        max_tokens: settings.max_sequence_length.min(config::MODEL_TOKENS_MAX),
        threads: 1,
        helper: config.embedding_threads() > 1,
        text_threads: config.embedding_threads(),
        batch_size: settings.batch_size,
        length_sorted: config.advanced_memory_tuning.embedding_advanced.batch_optimization,
    }
}

pub(super) fn engine_options(config: &Config, embedding: Option<Arc<EmbeddingService>>) -> EngineOptions {
    EngineOptions {
        durability: durability(config),
        log_cache_bytes: (config.log.cache_mb as usize).saturating_mul(MIB),
        compress_above: config.compress_above(),
        encrypt: encrypt(config),
        sqlite: sqlite_options(config),
        vectors: vector_options(config),
        embedding,
        commands_max: config.memory_writes.max_pending_writes,
        steps: step_limits(config),
        vector_records_max: config.memory_writes.embedding_batch_size,
        index_timeout: config.server.wait_timeout,
        talk: talk_settings(config),
        requests_max: config.messaging.max_pending_requests,
        watched: watched(config),
        search_cache_bytes: search_cache_bytes(config),
        ..EngineOptions::new(&config.server.data_dir)
    }
}

/// Answers to searches that are kept: as long as nobody says how much, in proportion to what else is kept of the graph.
fn search_cache_bytes(config: &Config) -> usize {
    let pages = (config.memory.sqlite_config.cache_size_mb as usize).saturating_mul(MIB);
    config.memory.search.cache_size.map_or(pages / 32, |bytes| bytes.0)
}

/// What sweeps keep to.
pub(super) fn cleanup(config: &Config) -> Cleanup {
    let (cleanup, advanced) = (&config.memory.cleanup, &config.advanced_memory_tuning.cleanup_advanced);
    Cleanup {
        interval: cleanup.interval,
        entities_max: cleanup.entity_limit,
        relations_max: cleanup.relation_limit,
        batch: cleanup.batch_size,
        orphans: cleanup.orphan_cleanup,
        first: match advanced.cleanup_strategy {
            config::CleanupStrategy::Lru => First::LeastUsed,
            config::CleanupStrategy::Age => First::Oldest,
            config::CleanupStrategy::Size => First::Largest,
        },
        threads: advanced.cleanup_thread_count,
    }
}

/// What sweeps take away, in words; `None` where nothing that is whole.
pub(super) fn swept(config: &Config) -> Option<String> {
    let Cleanup { interval, entities_max, relations_max, .. } = cleanup(config);
    let rows = [(entities_max, "entities"), (relations_max, "relations")];
    let kept: Vec<String> =
        rows.into_iter().filter_map(|(max, what)| Some(format!("{} {what}", max?))).collect();
    let interval = config::format_duration(interval);
    (!kept.is_empty()).then(|| format!("what is above {} is removed every {interval}", kept.join(" and ")))
}

/// Limits that are watched.
fn watched(config: &Config) -> Watched {
    let scaling = &config.memory.scaling;
    Watched {
        entities_max: scaling.max_entities,
        relations_max: scaling.max_relations,
        storage_mb_max: scaling.max_storage_mb,
        search_max: Duration::from_millis(scaling.max_search_latency_ms),
        cache_hit_rate_min: scaling.min_cache_hit_rate,
        backend: scaling.migration_backend.as_str(),
        cache_hit_target: config.memory.embedding_config.cache_hit_target,
    }
}

/// What the graph folds in one transaction.
fn step_limits(config: &Config) -> StepLimits {
    let writes = &config.memory_writes;
    StepLimits {
        records_max: writes.max_transaction_size,
        entities_max: writes.entity_batch_size,
        relations_max: writes.relation_batch_size,
        observations_max: writes.observation_batch_size,
        time_max: writes.transaction_timeout,
    }
}

/// The settings of the vectors.
pub(super) fn vector_options(config: &Config) -> VectorOptions {
    VectorOptions { scan_threads: config.scan_threads(), ..VectorOptions::default() }
}

/// Which payloads get keys of their own.
fn encrypt(config: &Config) -> log::Encrypt {
    match config.privacy.encrypt {
        config::Encrypt::None => log::Encrypt::None,
        config::Encrypt::Agents => log::Encrypt::Agents,
        config::Encrypt::All => log::Encrypt::All,
    }
}

/// Limits of messages, inboxes and conversations.
fn talk_settings(config: &Config) -> talk::Settings {
    let messaging = &config.messaging;
    talk::Settings {
        idle_timeout_millis: messaging.conversation_ttl.as_millis() as u64,
        life_timeout_millis: messaging.conversation_lifetime.as_millis() as u64,
        participants_max: messaging.max_participants,
        messages_max: messaging.max_messages.unwrap_or(u32::MAX),
        inbox_max: messaging.queue_size,
        content_bytes_max: messaging.max_message_size.0,
    }
}

/// The log's durability.
pub(super) fn durability(config: &Config) -> log::Durability {
    match config.log.durability {
        config::Durability::Always => log::Durability::Always,
        config::Durability::Interval => log::Durability::Interval(config.log.flush_interval),
        config::Durability::Off => log::Durability::Off,
    }
}

/// The settings of the graph's SQLite file.
pub(super) fn sqlite_options(config: &Config) -> SqliteOptions {
    let (sqlite, advanced) = (&config.memory.sqlite_config, &config.advanced_memory_tuning.sqlite_advanced);
    SqliteOptions {
        wal_mode: sqlite.wal_mode,
        cache_size_mb: sqlite.cache_size_mb,
        mmap_size_mb: sqlite.mmap_size_mb,
        page_size: sqlite.page_size,
        synchronous: match sqlite.synchronous {
            config::Synchronous::Off => Synchronous::Off,
            config::Synchronous::Normal => Synchronous::Normal,
            config::Synchronous::Full => Synchronous::Full,
        },
        journal_size_limit_mb: sqlite.journal_size_limit_mb,
        temp_store: match sqlite.temp_store {
            config::TempStore::Default => TempStore::Default,
            config::TempStore::File => TempStore::File,
            config::TempStore::Memory => TempStore::Memory,
        },
        auto_vacuum: match sqlite.auto_vacuum {
            config::AutoVacuum::None => AutoVacuum::None,
            config::AutoVacuum::Incremental => AutoVacuum::Incremental,
            config::AutoVacuum::Full => AutoVacuum::Full,
        },
        wal_checkpoint_strategy: match advanced.wal_checkpoint_strategy {
            config::WalCheckpoint::Passive => CheckpointStrategy::Passive,
            config::WalCheckpoint::Full => CheckpointStrategy::Full,
            config::WalCheckpoint::Restart => CheckpointStrategy::Restart,
        },
        wal_checkpoint_interval: advanced.wal_checkpoint_interval,
        analyze_frequency: advanced.analyze_frequency,
        vacuum_strategy: match advanced.vacuum_strategy {
            config::VacuumStrategy::Incremental => VacuumStrategy::Incremental,
            config::VacuumStrategy::Full => VacuumStrategy::Full,
            config::VacuumStrategy::Auto => VacuumStrategy::Auto,
        },
        readers: config
            .runtime
            .cpu_optimization
            .memory_worker_threads
            .unwrap_or(SqliteOptions::default().readers),
        ..SqliteOptions::default()
    }
}

/// The settings of the REST door. `keys` are asked for when there are any.
pub(super) fn rest_options(config: &Config, keys: Option<config::KeyHashes>) -> RestOptions {
    let (http, api) = (&config.http_server, &config.api_optimization);
    let pools = &config.memory_allocation.agent_memory;
    let keys = keys.filter(|keys| !keys.is_empty());
    let defaults = RestOptions::default();
    RestOptions {
        // A read may take the place of a thread that serves connections, which then needs another one.
        reads_max: defaults.reads_max.min(http.max_blocking_threads.saturating_sub(1)).max(1),
        // Half of the threads are left to who reads; where there is one, reads wait for the model.
        embeddings_max: defaults.embeddings_max.min((http.max_blocking_threads / 2).max(1)),
        api_keys: keys.map(|keys| ApiKeys::new(move |key| keys.verify(key).map(str::to_owned))),
        allowed_hosts: config.server.allowed_hosts.clone(),
        body_bytes_max: config.server.max_body_size.0,
        connections_max: http.max_connections,
        connection_timeout: http.connection_timeout,
        keep_alive_timeout: http.keep_alive_timeout,
        body_timeout: config.server.request_timeout,
        request_timeout: config.server.request_timeout,
        min_seq_timeout: config.server.wait_timeout,
        drain_timeout: config.server.shutdown_timeout,
        request_buffer_bytes: http.request_buffer_size.0.max(http.header_buffer_size.0),
        buffers_max: if pools.response_pool { pools.pool_size } else { 0 },
        send_buffer_bytes: http.response_buffer_size.map(|bytes| bytes.0),
        compression: http.enable_compression.then_some(Compression {
            above_bytes: http.compression_threshold.0 as u64,
            level: u8::try_from(http.compression_level).unwrap_or(6),
        }),
        etags: http.etag_enabled,
        static_max_age: http.cache_static_content.then_some(http.cache_ttl),
        agent_list_max_age: api.cache_agent_list.then_some(api.cache_ttl),
        page_size_default: api.default_page_size,
        page_size_max: api.max_page_size,
        formats: Formats {
            msgpack: api.enable_msgpack,
            msgpack_first: api.default_format == config::Format::Msgpack,
        },
        detailed_errors: api.detailed_errors,
        error_causes: api.include_stack_traces,
        search: search_defaults(config),
        memory_config: config.values_below("memory").into(),
        default_scope: match config.agents.memory_scope {
            config::MemoryScope::Agent => ScopeKind::Agent,
            config::MemoryScope::Workspace => ScopeKind::Workspace,
            config::MemoryScope::Global => ScopeKind::Global,
        },
        ..defaults
    }
}

/// What a search does unless the request says otherwise.
fn search_defaults(config: &Config) -> SearchDefaults {
    let (search, similarity) = (&config.memory.search, &config.advanced_memory_tuning.vector_similarity);
    let semantic_weight = search.semantic_weight as f32;
    SearchDefaults {
        mode: match search.mode {
            config::SearchMode::Semantic => SearchMode::Semantic,
            config::SearchMode::Keyword => SearchMode::Keyword,
            config::SearchMode::Hybrid => SearchMode::Hybrid,
        },
        fusion: match search.fusion {
            config::Fusion::Weighted => Fusion::Weighted { semantic_weight },
            config::Fusion::ReciprocalRank => Fusion::ReciprocalRank,
        },
        semantic_weight,
        limit: search.limit,
        limit_max: search.max_limit,
        neighbours: search.neighbours,
        exact: !similarity.early_termination,
        precision: similarity.precision_threshold as f32,
        measure: match similarity.algorithm {
            config::Similarity::Cosine => Measure::Cosine,
            config::Similarity::Dot => Measure::Dot,
            config::Similarity::Euclidean => Measure::Euclidean,
        },
    }
}

/// What a crash may lose, for the startup report.
pub(super) fn loss_window(config: &Config) -> String {
    match durability(config) {
        log::Durability::Always => {
            "always: an acknowledged write is on disk; a crash loses nothing".to_owned()
        }
        log::Durability::Interval(window) => format!(
            "interval: a crash may lose what was acknowledged in the last {}",
            config::format_duration(window.max(Duration::from_millis(1)))
        ),
        log::Durability::Off => {
            "off: a crash may lose everything since the start; for benchmarks only".to_owned()
        }
    }
}
