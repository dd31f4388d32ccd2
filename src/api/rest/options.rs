//! What the REST door is told when it opens: limits, times, keys, defaults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use caxton_projections::queries::{Fusion, SearchMode};

use super::backup::BackupFiles;
use super::caller::ScopeKind;
use super::middleware::Formats;
use crate::agents::{AgentDirectory, AgentRuntime};

/// Time for the body of an import to arrive, where others have less: it may be as large as a body can be.
const IMPORT_BODY_TIMEOUT_MIN: Duration = Duration::from_secs(30);

/// Checks a key that a client sends and names its owner; it must take the same time for every wrong key.
type Verify = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The keys that open the API.
#[derive(Clone)]
pub struct ApiKeys(Arc<Verify>);

impl ApiKeys {
    /// Keys as `verify` knows them: it answers the name of a valid key, in constant time.
    pub fn new(verify: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(verify))
    }

    /// The name of `key`, when it is valid.
    pub fn verify(&self, key: &str) -> Option<String> {
        (self.0)(key)
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeys(…)")
    }
}

/// When and how answers are compressed with gzip.
#[derive(Debug, Clone, Copy)]
pub struct Compression {
    /// Answers of fewer bytes are sent as they are. Default: 1024.
    pub above_bytes: u64,
    /// 1 (fast) to 9 (small). Default: 6.
    pub level: u8,
}

/// The settings of the REST door.
#[derive(Debug, Clone)]
pub struct RestOptions {
    /// Who may talk to it; `None`: everybody who can connect.
    pub api_keys: Option<ApiKeys>,
    /// Hosts that requests may be for, and pages that send them from, besides this machine; without keys, on a loopback address.
    /// Default: none.
    pub allowed_hosts: Vec<String>,
    /// Largest request body, in bytes. Default: 32 MiB.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies over 64 KiB that are in memory at a time; further ones wait, then get 503. Those of requests for
    /// embeddings, which wait for the model, have a quarter as much of their own. Default: 256 MiB.
    pub bodies_bytes_max: usize,
    /// Connections served at a time; further ones get 503 and are closed. Default: 1000.
    pub connections_max: usize,
    /// Time for a new connection to send its first request's head. Default: 30 s.
    pub connection_timeout: Duration,
    /// Time an idle connection stays open. Default: 60 s.
    pub keep_alive_timeout: Duration,
    /// Time for a request's body to arrive, that of an import at least 30 s; then 408. Default: 30 s.
    pub body_timeout: Duration,
    /// Time for the answer once the request is there; then 504. Default: 30 s.
    pub request_timeout: Duration,
    /// Time that a read waits for the position it names. Default: 10 s.
    pub min_seq_timeout: Duration,
    /// Time for the answer to an import or a request for embeddings, and until that to an export of the whole memory begins; at
    /// least `request_timeout`. Default: 10 min.
    pub import_timeout: Duration,
    /// Time for requests under way to finish when the server stops. Default: 20 s.
    pub drain_timeout: Duration,
    /// Read buffer and longest request head of a connection, in bytes; at least 8192. Default: 16384.
    pub request_buffer_bytes: usize,
    /// Buffers of answers that are kept to be used again, in the whole process; 0: each answer gets one of its own.
    /// Default: 1000.
    pub buffers_max: usize,
    /// Send buffer of a connection in the system, in bytes; `None`: as the system sees fit. Default: none.
    pub send_buffer_bytes: Option<usize>,
    /// Compression of answers; `None`: never. Default: above 1024 bytes at level 6.
    pub compression: Option<Compression>,
    /// Whether reads carry an `ETag` and answer 304. Default: true.
    pub etags: bool,
    /// How long clients may keep answers that stay the same while the server runs; `None`: they ask each time.
    /// Default: 5 min.
    pub static_max_age: Option<Duration>,
    /// How long a list of agents is given again while nothing it shows has changed; `None`: it is made each time.
    /// Default: 30 s.
    pub agent_list_max_age: Option<Duration>,
    /// Items on a page when `limit` is not given. Default: 50.
    pub page_size_default: usize,
    /// Largest `limit` of a page. Default: 1000.
    pub page_size_max: usize,
    /// Most items of a JSON batch. Default: 100.
    pub batch_items_max: usize,
    /// What bodies may be. Default: JSON alone.
    pub formats: Formats,
    /// Whether problems carry values and the list of all errors. Default: true.
    pub detailed_errors: bool,
    /// Whether failures (5xx) carry the chain of their causes. Default: false.
    pub error_causes: bool,
    /// Reads that run at a time, each on a blocking thread. Default: 16.
    pub reads_max: usize,
    /// Requests for embeddings that are answered at a time, each on a blocking thread until the model is done; their texts share its
    /// passes. Default: 8.
    pub embeddings_max: usize,
    /// Reads that may wait for their turn, and requests for embeddings; further ones get 503. Default: 1024.
    pub reads_waiting_max: usize,
    /// Scope of writes that name none. Default: agent.
    pub default_scope: ScopeKind,
    /// What a search does unless the request says otherwise.
    pub search: SearchDefaults,
    /// What `GET /memory/config` answers: the effective configuration of the memory, without secrets.
    pub memory_config: serde_json::Value,
    /// The agents directory; `None`: no agents run in this process. Default: none.
    pub agents: Option<AgentDirectory>,
    /// What runs them; `None`: messages to them wait. Default: none.
    pub turns: Option<AgentRuntime>,
    /// What `GET /backup` takes along besides the log. Default: nothing.
    pub backup: BackupFiles,
}

impl RestOptions {
    /// Time for the body of an import to arrive.
    pub(super) fn import_body_timeout(&self) -> Duration {
        self.body_timeout.max(IMPORT_BODY_TIMEOUT_MIN)
    }

    /// Time for the answer to what may take long.
    pub(super) fn answer_timeout(&self) -> Duration {
        self.import_timeout.max(self.request_timeout)
    }

    /// Longest time that a request waits for something to happen: its answer must be there before its time is over.
    pub(super) fn wait_max(&self) -> Duration {
        self.request_timeout.mul_f64(0.8)
    }
}

/// What a search does unless the request says otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchDefaults {
    /// By meaning, by words, or both. Default: both.
    pub mode: SearchMode,
    /// How two rankings become one. Default: weighted, 0.6 for meaning.
    pub fusion: Fusion,
    /// The weight of meaning where a request asks for the weighted fusion and says none. Default: 0.6.
    pub semantic_weight: f32,
    /// Hits. Default: 10.
    pub limit: usize,
    /// The largest `limit`. Default: 100.
    pub limit_max: usize,
    /// Observations shown before and after each matched one. Default: 0.
    pub neighbours: usize,
    /// Whether every vector is compared, whatever it costs. Default: false.
    pub exact: bool,
    /// Scores by meaning that differ by less are ordered by number. Default: 0, the exact order.
    pub precision: f32,
    /// What scores by meaning say. Default: the cosine.
    pub measure: Measure,
}

/// What a score by meaning says. All three order hits alike: vectors have length 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Measure {
    /// The cosine.
    #[default]
    Cosine,
    /// The dot product.
    Dot,
    /// 1 / (1 + Euclidean distance): 1 for the same direction.
    Euclidean,
}

impl Measure {
    /// Its name, as the configuration has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Dot => "dot",
            Self::Euclidean => "euclidean",
        }
    }

    /// The score of two vectors of length 1 with this cosine.
    pub fn of(self, cosine: f64) -> f64 {
        match self {
            Self::Cosine | Self::Dot => cosine,
            Self::Euclidean => 1.0 / (1.0 + (2.0 - 2.0 * cosine).max(0.0).sqrt()),
        }
    }
}

impl Default for SearchDefaults {
    fn default() -> Self {
        let (mode, fusion) = (SearchMode::default(), Fusion::default());
        Self {
            mode,
            fusion,
            semantic_weight: 0.6,
            limit: 10,
            limit_max: 100,
            neighbours: 0,
            exact: false,
            precision: 0.0,
            measure: Measure::Cosine,
        }
    }
}

impl Default for RestOptions {
    fn default() -> Self {
        Self {
            api_keys: None,
            allowed_hosts: Vec::new(),
            body_bytes_max: 32 << 20,
            bodies_bytes_max: 256 << 20,
            connections_max: 1_000,
            connection_timeout: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_mins(1),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            min_seq_timeout: Duration::from_secs(10),
            import_timeout: Duration::from_mins(10),
            drain_timeout: Duration::from_secs(20),
            request_buffer_bytes: 16_384,
            buffers_max: 1_000,
            send_buffer_bytes: None,
            compression: Some(Compression { above_bytes: 1_024, level: 6 }),
            etags: true,
            static_max_age: Some(Duration::from_mins(5)),
            agent_list_max_age: Some(Duration::from_secs(30)),
            page_size_default: 50,
            page_size_max: 1_000,
            batch_items_max: 100,
            formats: Formats::default(),
            detailed_errors: true,
            error_causes: false,
            reads_max: 16,
            embeddings_max: 8,
            reads_waiting_max: 1_024,
            default_scope: ScopeKind::Agent,
            search: SearchDefaults::default(),
            memory_config: serde_json::Value::Object(serde_json::Map::new()),
            agents: None,
            turns: None,
            backup: BackupFiles::default(),
        }
    }
}
