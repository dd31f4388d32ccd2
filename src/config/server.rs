//! `server`, `http_server`, `api_optimization`, `auth`, `logging`: how Caxton is reached.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::keys::KeyHashes;
use super::setting::{DAY, Limits, choice, millis, section, whole};
use super::units::Bytes;

/// Port of the REST API unless told otherwise.
pub const PORT: u16 = 8080;
/// Port of the metrics unless told otherwise.
pub const METRICS_PORT: u16 = 9090;

section! {
    /// `server`: the process as a whole.
    pub struct Server {
        /// Port of the REST API, 0 for any free one. With `http_server.bind_address` both must name the same.
        pub port: u16 = PORT;
        /// Port of `/metrics` on the loopback address, 0 for any free one; `null` turns it off.
        pub metrics_port: Option<u16> = Some(METRICS_PORT);
        /// Folder of everything Caxton keeps; made when missing.
        pub data_dir: PathBuf = PathBuf::from("./caxton-data");
        /// Conversations that all agents work on at a time; messages of others wait in the queues.
        pub max_concurrent_conversations: usize = 1_000, whole(1, 10_000_000);
        /// Time for the body of a request to arrive, then 408, and again so long until it is answered, then 504. The body of an
        /// import has 30 seconds at least; imports, exports as tables and embeddings have 10 minutes at least for their answer;
        /// what is streamed may take longer once it has begun.
        pub request_timeout: Duration = Duration::from_secs(30), millis(1, DAY);
        /// Longest wait for a projection to reach a position (`wait=`, `Caxton-Min-Seq`); then 503.
        pub wait_timeout: Duration = Duration::from_secs(5), millis(0, DAY);
        /// Names of hosts that requests may be for, and pages that send them may be of, besides those of this machine, while there
        /// are no API keys: that of a proxy in front which passes it on, without port.
        pub allowed_hosts: Vec<String> = Vec::new();
        /// Largest request body, in bytes; then 413.
        pub max_body_size: Bytes = Bytes(32 << 20), whole(1_024, 1 << 30);
        /// Time to finish what is under way after SIGTERM.
        pub shutdown_timeout: Duration = Duration::from_secs(30), millis(0, DAY);
    }
}

section! {
    /// `http_server`: sockets, buffers, compression and cache headers of the REST API.
    pub struct HttpServer {
        /// Address and port to listen on. Anything but a loopback address needs an API key.
        pub bind_address: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        /// Threads that handle requests, unless `runtime.cpu_optimization.tokio_worker_threads` says how many; unset: the cores.
        pub worker_threads: Option<usize> = None, whole(1, 1_024);
        /// Threads for blocking work behind requests.
        pub max_blocking_threads: usize = 32, whole(1, 4_096);
        /// Open connections; further ones are told 503 and closed, and beyond 64 of those at a time closed at once.
        pub max_connections: usize = 1_000, whole(1, 1_000_000);
        /// Time for a new connection to send a whole request head.
        pub connection_timeout: Duration = Duration::from_secs(30), millis(1, DAY);
        /// Time a connection may idle between requests.
        pub keep_alive_timeout: Duration = Duration::from_mins(1), millis(1, DAY);
        /// Read buffer of a connection, in bytes; `header_buffer_size`, where that is larger.
        pub request_buffer_size: Bytes = Bytes(16_384), whole(8_192, 64 << 20);
        /// Send buffer of a connection in the system, in bytes: what of an answer may be under way to a slow client; unset: as
        /// the system sees fit.
        pub response_buffer_size: Option<Bytes> = None, whole(1_024, 64 << 20);
        /// Largest request head, in bytes; `request_buffer_size`, where that is larger.
        pub header_buffer_size: Bytes = Bytes(8_192), whole(1_024, 64 << 20);
        /// Compress answers with gzip for clients that accept it.
        pub enable_compression: bool = true;
        /// Smallest answer that is compressed, in bytes.
        pub compression_threshold: Bytes = Bytes(1_024);
        /// Effort of gzip, from 1 (fast) to 9 (small).
        pub compression_level: u32 = 6, whole(1, 9);
        /// Let clients keep answers that stay the same while the server runs: templates of agents, the memory's
        /// configuration.
        pub cache_static_content: bool = true;
        /// How long clients may keep those answers.
        pub cache_ttl: Duration = Duration::from_mins(5);
        /// Send `ETag` and answer 304 to a matching `If-None-Match`.
        pub etag_enabled: bool = true;
    }
}

section! {
    /// `api_optimization`: pages and answers of the REST API.
    pub struct ApiOptimization {
        /// Format of answers to clients that do not say what they take. `msgpack` needs `enable_msgpack`.
        pub default_format: Format = Format::Json;
        /// Take and give MessagePack: `Content-Type` and `Accept: application/msgpack`. Streams and files stay as they are.
        pub enable_msgpack: bool = false;
        /// Rows of a page when the request names no limit; `/events`, `/inbox` and searches have defaults of their own.
        pub default_page_size: usize = 50, whole(1, 10_000);
        /// Rows of a page at most; a larger limit is refused. `/events`, `/inbox` and searches have bounds of their own.
        pub max_page_size: usize = 1_000, whole(1, 10_000);
        /// Give a list of agents again while nothing it shows has changed: no agent, and nothing anybody said.
        pub cache_agent_list: bool = true;
        /// Age at which such a list is made anew all the same.
        pub cache_ttl: Duration = Duration::from_secs(30);
        /// Put the value that was wrong and the list of all faults into errors; the code, the field and the remedy are there in any
        /// case.
        pub detailed_errors: bool = true;
        /// Put the chain of causes into answers to failures (5xx); refusals have none.
        pub include_stack_traces: bool = false;
    }
}

choice! {
    /// The format of answers.
    pub enum Format {
        /// JSON.
        Json = "json",
        /// MessagePack.
        Msgpack = "msgpack",
    }
}

section! {
    /// `auth`: who may call the REST API.
    pub struct Auth {
        /// File with one `name: sha256:<hex>` a line; read at start.
        pub keys_file: Option<PathBuf> = None;
        /// The same in place: a map of names to `sha256:<hex>`.
        pub keys: KeyHashes = KeyHashes::default();
    }
}

section! {
    /// `logging`: what the process tells on standard error.
    pub struct Logging {
        /// Level, or levels by module, as in `info,caxton=debug`.
        pub filter: String = "info".to_owned(), Limits::NotEmpty;
        /// Lines for people, or JSON for machines.
        pub format: LogFormat = LogFormat::Text;
    }
}

choice! {
    /// The form of a line of the process's own log.
    pub enum LogFormat {
        /// One line for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
