//! What the server tells about itself: metrics in Prometheus' text form, and its own log lines.
//!
//! One function a fact, so that names and units live here and nowhere else. Names are those of the tuning guide where
//! it has one (`caxton_memory_entities_total` is a gauge there, and stays one); ours follow its pattern. Labels take
//! few values: never an id, a name or a text of a user.
//!
//! The table names of the guide, which lack their unit (`caxton_agent_response_time`), are exported beside their twins.
//!
//! Timings are summaries over the last minute with the quantiles 0, 0.5, 0.9, 0.95, 0.99, 0.999 and 1.

mod agents;
mod logging;
mod memory;
mod messages;
mod models;
mod names;
mod process;
mod upkeep;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

pub use agents::{
    TurnOutcome, agent_queue_measured, agent_queue_refused, agent_queue_served, batch_formed, turn_ended,
    turns_running,
};
pub use logging::{LoggingError, start_logging};
pub use memory::{
    agent_list_asked, cache_target_missed, conversation_object_reused, graph_step_finished,
    recent_search_p99, response_buffer_reused, scaling_advised, swept,
};
pub use messages::{
    MessageOutcome, OpenStream, Stream, TalkMeasured, message_not_recorded, messages_answered, stream_opened,
    talk_measured, talk_recorded,
};
pub use models::{
    ModelRequest, model_answered, model_cache_asked, model_circuit, model_failed, model_request_began,
    model_retried, model_turned_away,
};
pub use process::{ProcessMemory, process_memory, process_memory_of, process_time_of};
pub use upkeep::{Upkeep, UpkeepError};

/// Requests answered since the process started; the upkeep turns it into a rate.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// The metrics of this process.
#[derive(Debug, Clone)]
pub struct Telemetry {
    handle: PrometheusHandle,
}

/// Why metrics cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("another recorder of metrics is already in place")]
pub struct InstallError(#[source] metrics::SetRecorderError<metrics_exporter_prometheus::PrometheusRecorder>);

impl Telemetry {
    /// Puts the recorder in place for the whole process; later calls give the same one.
    ///
    /// Until then every function of this module does nothing, cheaply.
    ///
    /// # Errors
    ///
    /// [`InstallError`] when a recorder that is not ours is in place.
    pub fn install() -> Result<Self, InstallError> {
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        static INSTALLING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = HANDLE.get() {
            return Ok(Self { handle: handle.clone() });
        }
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(InstallError)?;
        names::describe();
        memory::describe();
        Ok(Self { handle: HANDLE.get_or_init(|| handle).clone() })
    }

    /// The metrics as Prometheus reads them, with the process's memory measured now.
    pub fn render(&self) -> String {
        process::record_memory();
        messages::publish();
        self.handle.render()
    }

    /// Starts the thread that keeps the metrics small and measures rates; it ends when the handle is dropped.
    ///
    /// # Errors
    ///
    /// [`UpkeepError`] when the system gives no thread.
    pub fn start_upkeep(&self) -> Result<Upkeep, UpkeepError> {
        Upkeep::start(self.handle.clone())
    }
}

/// The content type of [`Telemetry::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The server is ready to serve, `took` after its start.
pub fn server_started(took: Duration) {
    for name in [names::SERVER_STARTUP_TIME, names::SERVER_STARTUP_TIME_TABLE] {
        gauge!(name).set(took.as_secs_f64());
    }
}

/// A request was answered. `endpoint` is the route with its parameters unfilled, as in `/api/v1/memory/entities/{id}`.
pub fn request_finished(method: &'static str, endpoint: &str, status: u16, took: Duration) {
    REQUESTS.fetch_add(1, Ordering::Relaxed);
    let labels =
        [("method", method.to_owned()), ("endpoint", endpoint.to_owned()), ("status", status.to_string())];
    histogram!(names::API_REQUEST_DURATION, &labels).record(took.as_secs_f64());
}

/// A request came without a key that is known.
pub fn authentication_failed() {
    counter!(names::API_AUTHENTICATION_FAILURES).increment(1);
}

/// A connection to a client was opened.
pub fn connection_opened() {
    gauge!(names::SERVER_ACTIVE_CONNECTIONS).increment(1.0);
}

/// A connection to a client has ended.
pub fn connection_closed() {
    gauge!(names::SERVER_ACTIVE_CONNECTIONS).decrement(1.0);
}

/// What the memory holds now.
pub fn memory_counted(entities: u64, relations: u64) {
    gauge!(names::MEMORY_ENTITIES).set(entities as f64);
    gauge!(names::MEMORY_RELATIONS).set(relations as f64);
}

/// A search of memory was answered, from query to hits.
pub fn search_finished(took: Duration) {
    timed([names::MEMORY_SEARCH_LATENCY, names::MEMORY_SEARCH_LATENCY_TABLE], took);
    memory::search_took(took);
}

/// Searches of memory whose question was known, and all of them; how many were answered with what is kept, since the start; and
/// what is kept, in bytes.
pub fn search_cache_counted((known, all): (u64, u64), hits: u64, bytes: usize) {
    gauge!(names::MEMORY_CACHE_HIT_RATE).set(share(known, all));
    counter!(names::MEMORY_SEARCH_CACHE_HITS).absolute(hits);
    gauge!(names::MEMORY_SEARCH_CACHE_BYTES).set(bytes as f64);
}

/// Size of the SQLite files, in bytes.
pub fn sqlite_measured(bytes: u64) {
    gauge!(names::MEMORY_SQLITE_SIZE).set(bytes as f64);
}

/// Bytes that the words of all texts take in memory.
pub fn words_measured(bytes: usize) {
    gauge!(names::TEXT_INDEX_BYTES).set(bytes as f64);
}

/// Connections to SQLite that are open now.
pub fn sqlite_connections_open(count: usize) {
    gauge!(names::SERVER_SQLITE_CONNECTIONS).set(count as f64);
}

/// A question to SQLite was answered.
pub fn sqlite_query_finished(took: Duration) {
    timed([names::SQLITE_QUERY_TIME, names::SQLITE_QUERY_TIME_TABLE], took);
}

/// `texts` became vectors in one call of the model that took `took`. The summary is of one text.
pub fn embedding_finished(texts: usize, took: Duration) {
    let Ok(texts) = u32::try_from(texts.max(1)) else { return };
    timed([names::EMBEDDING_DURATION, names::EMBEDDING_LATENCY_TABLE], took / texts);
    counter!(names::EMBEDDING_TEXTS).increment(u64::from(texts));
}

/// Texts since the start whose tokens were cut before the model came to them.
pub fn embedding_cut_ahead(texts: u64) {
    counter!(names::EMBEDDING_CUT_AHEAD).absolute(texts);
}

/// The model is loaded: what its products are made of, and whose instructions compute.
pub fn embedding_loaded(precision: &'static str, instructions: &'static str) {
    gauge!(names::EMBEDDING_MODEL, "precision" => precision, "instructions" => instructions).set(1.0);
}

/// Vectors of queries that are kept now; those found there, and all that were looked for, since the start.
pub fn embedding_cache_counted(entries: usize, hits: u64, all: u64) {
    gauge!(names::EMBEDDING_CACHE_SIZE).set(entries as f64);
    gauge!(names::EMBEDDING_CACHE_HIT_RATE).set(share(hits, all));
}

/// Writes were appended to the log and are as durable as configured; `head` is the last position of the log.
pub fn log_appended(head: u64, took: Duration) {
    log_opened(head);
    histogram!(names::LOG_APPEND).record(took.as_secs_f64());
}

/// The log was opened; `head` is its last position.
pub fn log_opened(head: u64) {
    counter!(names::LOG_EVENTS).absolute(head);
}

/// Size of the log, in bytes.
pub fn log_measured(bytes: u64) {
    gauge!(names::LOG_SIZE).set(bytes as f64);
}

/// How many events `projection` is behind the log.
pub fn projection_lagged(projection: &'static str, events: u64) {
    gauge!(names::PROJECTION_LAG, "projection" => projection).set(events as f64);
}

/// A rebuild of `projection` folded `events` in `took`.
pub fn projection_rebuilt(projection: &'static str, events: u64, took: Duration) {
    let seconds = took.as_secs_f64().max(f64::EPSILON);
    gauge!(names::REPLAY_RATE, "projection" => projection).set(events as f64 / seconds);
}

/// Size of the postings of the audit trail.
pub fn postings_kept(bytes: u64) {
    gauge!(names::AUDIT_POSTINGS_BYTES).set(bytes as f64);
}

/// An audit read so many blocks of the log and left out so many.
pub fn audit_answered(blocks_read: u64, blocks_skipped: u64) {
    counter!(names::AUDIT_BLOCKS, "outcome" => "read").increment(blocks_read);
    counter!(names::AUDIT_BLOCKS, "outcome" => "skipped").increment(blocks_skipped);
}

/// Writes under way now.
pub fn writes_pending(count: usize) {
    gauge!(names::MEMORY_PENDING_WRITES).set(count as f64);
}

/// A changed agent file is in use (or was rejected) this long after it was seen.
pub fn agent_reloaded(took: Duration) {
    timed([names::AGENT_RELOAD_DURATION, names::CONFIG_RELOAD_TIME], took);
}

/// Agents of the directory that are in use.
pub fn config_agents_counted(count: usize) {
    gauge!(names::AGENT_CONFIG_COUNT).set(count as f64);
}

/// Judgements of agent files that are kept now; texts that were found there, and all, since the start.
pub fn agent_validations_counted(entries: usize, hits: u64, all: u64) {
    gauge!(names::AGENT_VALIDATION_CACHE_SIZE).set(entries as f64);
    gauge!(names::AGENT_VALIDATION_CACHE_HIT_RATE).set(share(hits, all));
}

/// How a call of a tool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolOutcome {
    /// With a result.
    Done,
    /// The agent may not.
    Refused,
    /// The arguments are not what the tool takes.
    Arguments,
    /// Not in time.
    Timeout,
    /// It was tried and failed.
    Failed,
}

impl ToolOutcome {
    /// The word in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Arguments => "arguments",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// An agent called a tool of the provider `tool`.
pub fn tool_called(tool: &str, outcome: ToolOutcome, took: Duration) {
    let labels = [("tool", tool.to_owned()), ("outcome", outcome.as_str().to_owned())];
    counter!(names::TOOL_CALLS, &labels).increment(1);
    if outcome == ToolOutcome::Refused {
        counter!(names::TOOL_DENIALS, "tool" => tool.to_owned()).increment(1);
    } else {
        histogram!(names::TOOL_CALL_DURATION, "tool" => tool.to_owned()).record(took.as_secs_f64());
    }
}

/// An MCP server was started, or did not start.
pub fn tool_server_started(server: &str, answered: bool) {
    let outcome = if answered { "done" } else { "failed" };
    let labels = [("server", server.to_owned()), ("outcome", outcome.to_owned())];
    counter!(names::TOOL_SERVER_STARTS, &labels).increment(1);
}

/// One time under both of its names.
fn timed(names: [&'static str; 2], took: Duration) {
    for name in names {
        histogram!(name).record(took.as_secs_f64());
    }
}

/// `part` of `all`, 0 when there is nothing.
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;

    /// What is rendered after `act`, in a recorder of its own.
    fn rendered(act: impl FnOnce()) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            names::describe();
            act();
        });
        handle.render()
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
    }

    #[test]
    fn the_names_of_the_tuning_guide_are_exported_as_it_shows_them() {
        let text = rendered(|| {
            memory_counted(15_423, 45_678);
            search_finished(Duration::from_millis(12));
            sqlite_measured(104_857_600);
            words_measured(2_048);
            search_cache_counted((87, 100), 40, 4_096);
            embedding_finished(1, Duration::from_millis(5));
            embedding_cut_ahead(64);
            embedding_cache_counted(8_934, 92, 100);
            sqlite_connections_open(5);
        });
        for line in [
            "caxton_memory_entities_total 15423",
            "caxton_memory_relations_total 45678",
            "caxton_text_index_bytes 2048",
            "caxton_memory_sqlite_size_bytes 104857600",
            "caxton_memory_cache_hit_rate 0.87",
            "caxton_memory_search_cache_hits_total 40",
            "caxton_memory_search_cache_bytes 4096",
            "caxton_embedding_texts_tokenized_ahead_total 64",
            "caxton_embedding_cache_size 8934",
            "caxton_embedding_cache_hit_rate 0.92",
            "caxton_server_sqlite_connections 5",
            "# TYPE caxton_memory_search_latency_seconds summary",
            "caxton_memory_search_latency_count 1",
            "caxton_embedding_latency_count 1",
        ] {
            has(&text, line);
        }
        for start in [
            "caxton_memory_search_latency_seconds{quantile=\"0.5\"} 0.01",
            "caxton_memory_search_latency_seconds{quantile=\"0.99\"} 0.01",
            "caxton_embedding_generation_duration_seconds{quantile=\"0.5\"} 0.00",
        ] {
            assert!(text.lines().any(|line| line.starts_with(start)), "{start} is not in\n{text}");
        }
    }

    #[test]
    fn gauges_of_the_tuning_guide_are_there_before_anything_happened() {
        let text = rendered(|| ());
        for name in names::PRESENT_FROM_THE_START {
            has(&text, &format!("{name} 0"));
        }
    }

    #[test]
    fn agents_from_files_are_counted_and_timed() {
        let text = rendered(|| {
            agent_reloaded(Duration::from_millis(20));
            config_agents_counted(8);
            agent_validations_counted(5, 1, 4);
        });
        has(&text, "caxton_agent_config_count 8");
        has(&text, "caxton_agent_validation_cache_size 5");
        has(&text, "caxton_agent_validation_cache_hit_rate 0.25");
        has(&text, "caxton_config_reload_time_count 1");
        has(&text, "caxton_agent_reload_duration_seconds_count 1");
    }

    #[test]
    fn the_log_and_the_lag_are_counted() {
        let text = rendered(|| {
            log_opened(40);
            log_appended(42, Duration::from_millis(1));
            log_appended(41, Duration::from_millis(1));
            projection_lagged("graph", 7);
            projection_rebuilt("graph", 1_000, Duration::from_millis(500));
        });
        has(&text, "caxton_log_events_total 42");
        has(&text, "caxton_log_append_seconds_count 2");
        has(&text, "caxton_projection_lag_events{projection=\"graph\"} 7");
        has(&text, "caxton_replay_events_per_second{projection=\"graph\"} 2000");
    }

    #[test]
    fn requests_are_timed_by_route_and_status() {
        let text = rendered(|| {
            request_finished("GET", "/api/v1/memory/entities/{id}", 404, Duration::from_millis(2));
            authentication_failed();
        });
        has(&text, "caxton_api_authentication_failures_total 1");
        let count = "caxton_api_request_duration_seconds_count\
                     {method=\"GET\",endpoint=\"/api/v1/memory/entities/{id}\",status=\"404\"} 1";
        has(&text, count);
    }

    #[test]
    fn models_are_counted_by_provider() {
        let text = rendered(|| {
            let active = model_request_began("ollama");
            model_answered("ollama", Duration::from_millis(20), 30, 7);
            model_failed("ollama", "timeout", Duration::from_secs(1));
            model_turned_away("ollama", "circuit_open");
            model_retried("ollama");
            model_circuit("ollama", true);
            model_cache_asked(true);
            model_cache_asked(false);
            drop(active);
        });
        for line in [
            "caxton_llm_requests_total{provider=\"ollama\",outcome=\"ok\"} 1",
            "caxton_llm_requests_total{provider=\"ollama\",outcome=\"error\"} 1",
            "caxton_llm_errors_total{provider=\"ollama\",kind=\"timeout\"} 1",
            "caxton_llm_errors_total{provider=\"ollama\",kind=\"circuit_open\"} 1",
            "caxton_llm_token_usage_total{provider=\"ollama\",direction=\"input\"} 30",
            "caxton_llm_token_usage_total{provider=\"ollama\",direction=\"output\"} 7",
            "caxton_llm_retries_total{provider=\"ollama\"} 1",
            "caxton_llm_circuit_open{provider=\"ollama\"} 1",
            "caxton_llm_requests_active{provider=\"ollama\"} 0",
            "caxton_llm_request_duration_seconds_count{provider=\"ollama\"} 2",
            "caxton_llm_cache_hits_total 1",
            "caxton_llm_cache_misses_total 1",
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn turns_and_queues_of_agents_are_measured() {
        let text = rendered(|| {
            turn_ended(TurnOutcome::Finished, Duration::from_secs(2));
            turn_ended(TurnOutcome::Failed, Duration::from_secs(4));
            turns_running(3);
            agent_queue_measured("critical", 7);
            agent_queue_served("critical", Duration::from_secs(1), false);
            agent_queue_served("critical", Duration::from_secs(3), true);
            agent_queue_refused("background");
            batch_formed(10);
        });
        for line in [
            "caxton_agent_response_time_seconds_sum 6",
            "caxton_agent_response_time_seconds_count 2",
            "caxton_agent_response_time_count 2",
            "caxton_agent_turns_total{outcome=\"finished\"} 1",
            "caxton_agent_turns_total{outcome=\"failed\"} 1",
            "caxton_agent_turns_running 3",
            "caxton_agent_queue_depth{queue=\"critical\"} 7",
            "caxton_agent_queue_wait_seconds_count{queue=\"critical\"} 2",
            "caxton_agent_queue_late_total{queue=\"critical\"} 1",
            "caxton_agent_queue_refused_total{queue=\"background\"} 1",
            "caxton_agent_batch_conversations_sum 10",
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn calls_of_tools_are_counted_by_tool_and_outcome() {
        let text = rendered(|| {
            tool_called("memory", ToolOutcome::Done, Duration::from_secs(1));
            tool_called("memory", ToolOutcome::Refused, Duration::ZERO);
            tool_server_started("files", false);
        });
        for line in [
            "caxton_agent_tool_calls_total{tool=\"memory\",outcome=\"done\"} 1",
            "caxton_agent_tool_calls_total{tool=\"memory\",outcome=\"refused\"} 1",
            "caxton_tool_access_denials_total{tool=\"memory\"} 1",
            "caxton_agent_tool_call_duration_seconds_count{tool=\"memory\"} 1",
            "caxton_mcp_server_starts_total{server=\"files\",outcome=\"failed\"} 1",
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn a_share_of_nothing_is_nothing() {
        assert!(share(0, 0) == 0.0 && (share(1, 4) - 0.25).abs() < f64::EPSILON);
    }

    #[test]
    fn the_model_says_how_it_computes() {
        let text = rendered(|| embedding_loaded("int8", "AMX"));
        has(&text, "caxton_embedding_model_info{precision=\"int8\",instructions=\"AMX\"} 1");
    }

    #[test]
    fn a_batch_counts_each_text() {
        let text = rendered(|| embedding_finished(32, Duration::from_millis(320)));
        has(&text, "caxton_embedding_texts_total 32");
        has(&text, "caxton_embedding_generation_duration_seconds_sum 0.01");
    }

    #[test]
    fn the_recorder_is_installed_once_for_all() {
        let (first, second) = (Telemetry::install().unwrap(), Telemetry::install().unwrap());
        server_started(Duration::from_secs(2));
        let upkeep = first.start_upkeep().unwrap();
        drop(upkeep);
        has(&second.render(), "caxton_server_startup_time_seconds 2");
        has(&second.render(), "caxton_server_startup_time 2");
        has(&second.render(), "caxton_sse_streams_open{stream=\"inbox\"} 0");
        assert!(second.render().contains("# HELP caxton_server_memory_used_bytes "), "{}", second.render());
    }
}
