//! What is to be said of `server`, `http_server`, `api_optimization`, `auth`, `logging`, `log`, `privacy` and `messaging`.

use super::entries::{Entry, entry};

pub(super) const ENTRIES: &[Entry] = &[
    entry(
        "server.port",
        "The REST API listens on this port. 0 takes a free one.",
        "the line REST of the start report; DATA_DIR/endpoint",
    ),
    entry(
        "server.metrics_port",
        "Prometheus text is served on this port of the loopback address; null serves none.",
        "the line metrics of the start report; `curl localhost:PORT/metrics`",
    ),
    entry(
        "server.data_dir",
        "The log, the projections and the agents' files are kept in this folder; it is made when missing.",
        "the line data of the start report",
    ),
    entry(
        "server.max_concurrent_conversations",
        "So many turns of agents run at a time; messages of further conversations wait in the queues. A turn that waits for the answer \
         of another agent is not counted, and goes on at once when it has it.",
        "caxton_agent_turns_running, caxton_agent_queue_depth",
    ),
    entry(
        "server.request_timeout",
        "A request whose body does not arrive within this time, an import in no less than 30 seconds, gets 408 BODY_TIMEOUT; one \
         that is not answered within the same time again gets 504 TIMEOUT, imports, exports as tables and embeddings after no less \
         than 10 minutes. A search that has begun is answered, and a stream sent to its end, however long it takes.",
        "caxton_api_request_duration_seconds{status=\"504\"}",
    ),
    entry(
        "server.wait_timeout",
        "A request with wait= or Caxton-Min-Seq waits so long for a projection, then it gets 503.",
        "answers 503 to reads with Caxton-Min-Seq; caxton_projection_lag_events",
    ),
    entry(
        "server.allowed_hosts",
        "Without API keys a request for another host than this machine or these gets 421, one of a page from elsewhere 403.",
        "answers 421 HOST_NOT_ALLOWED and 403 ORIGIN_NOT_ALLOWED",
    ),
    entry(
        "server.max_body_size",
        "A larger request body gets 413 and is not read to its end.",
        "caxton_api_request_duration_seconds{status=\"413\"}",
    ),
    entry(
        "server.shutdown_timeout",
        "After SIGTERM requests and turns under way may take so long; then they are cut off.",
        "the log line \"requests did not finish in time\"",
    ),
    entry(
        "http_server.bind_address",
        "The REST API listens on this address. Beyond the loopback address the start is refused without an API key.",
        "the line REST of the start report",
    ),
    entry(
        "http_server.worker_threads",
        "The asynchronous runtime that handles requests has so many threads, unless \
         runtime.cpu_optimization.tokio_worker_threads says how many.",
        "the threads called caxton-http, as in `ps -T -p PID`",
    ),
    entry(
        "http_server.max_blocking_threads",
        "So many threads at most serve reads and other blocking work behind requests, half of them, and no more than 8, embeddings; \
         of 1, reads wait for these.",
        "caxton_api_request_duration_seconds when more reads come than there are threads",
    ),
    entry(
        "http_server.max_connections",
        "A connection beyond this number is told 503 and closed; beyond 64 of those at a time, closed at once.",
        "caxton_server_active_connections",
    ),
    entry(
        "http_server.connection_timeout",
        "A new connection that has not sent a whole request head by then is closed.",
        "caxton_server_active_connections falls",
    ),
    entry(
        "http_server.keep_alive_timeout",
        "A connection that idles so long between requests is closed.",
        "caxton_server_active_connections falls",
    ),
    entry(
        "http_server.request_buffer_size",
        "A connection reads up to so many bytes ahead, or header_buffer_size where that is larger; a longer request head gets 431.",
        "answers 431; caxton_server_memory_used_bytes with many connections",
    ),
    entry(
        "http_server.response_buffer_size",
        "The system holds up to so many bytes of an answer for a client that is slow to read; then whatever makes the answer \
         waits. Unset, the system finds a size of its own.",
        "`ss -tm sport = :PORT`, at tb: the system doubles what was asked for",
    ),
    entry(
        "http_server.header_buffer_size",
        "The longest request head that is taken is this or request_buffer_size, whichever is larger.",
        "answers 431 to longer heads",
    ),
    entry(
        "http_server.enable_compression",
        "Answers are gzipped for clients that send Accept-Encoding: gzip.",
        "the header Content-Encoding of answers",
    ),
    entry(
        "http_server.compression_threshold",
        "Answers of fewer bytes are sent as they are.",
        "the header Content-Encoding of small answers",
    ),
    entry(
        "http_server.compression_level",
        "gzip tries so hard: higher levels make smaller answers and take more processor time.",
        "the bytes of a compressed answer",
    ),
    entry(
        "http_server.cache_static_content",
        "Answers that stay the same while the server runs carry Cache-Control: max-age, so that clients need not ask again.",
        "the header Cache-Control of GET /api/v1/config-agents/templates",
    ),
    entry(
        "http_server.cache_ttl",
        "Clients may keep those answers so long: the max-age of their Cache-Control.",
        "the header Cache-Control of GET /api/v1/config-agents/templates",
    ),
    entry(
        "http_server.etag_enabled",
        "Reads carry an ETag, and one with a matching If-None-Match is answered 304 without a body.",
        "the header ETag; caxton_api_request_duration_seconds{status=\"304\"}",
    ),
    entry(
        "api_optimization.default_format",
        "A client that does not say which format it accepts gets answers in this one.",
        "the header Content-Type of answers to requests without Accept",
    ),
    entry(
        "api_optimization.enable_msgpack",
        "Bodies may be MessagePack: requests with Content-Type: application/msgpack, answers with Accept: \
         application/msgpack.",
        "the header Content-Type of answers; without it 415 and 406",
    ),
    entry(
        "api_optimization.default_page_size",
        "A list without limit= gives so many rows; /events, /inbox and searches have defaults of their own.",
        "the rows and next_cursor of GET /api/v1/memory/entities",
    ),
    entry(
        "api_optimization.max_page_size",
        "A list with a larger limit= gets 422; /events, /inbox and searches have bounds of their own.",
        "GET /api/v1/memory/entities?limit=1000000",
    ),
    entry(
        "api_optimization.cache_agent_list",
        "A list of agents is made once for all who ask the same, until an agent changes, somebody says something (a list \
         shows when each was last active) or cache_ttl has passed.",
        "caxton_agent_list_cache_hits_total",
    ),
    entry(
        "api_optimization.cache_ttl",
        "A list of agents that was made so long ago is made anew though nothing changed.",
        "caxton_agent_list_cache_hits_total",
    ),
    entry(
        "api_optimization.detailed_errors",
        "Errors carry the value that was wrong and the list of all faults; without it the code, the field and the remedy.",
        "the members value and errors of a 422",
    ),
    entry(
        "api_optimization.include_stack_traces",
        "Answers to failures (5xx) carry the chain of their causes in details.causes; refusals never do.",
        "the member details.causes of a 500",
    ),
    entry(
        "auth.keys_file",
        "Requests need one of the keys whose hashes are in this file; else they get 401.",
        "the line API keys of the start report; caxton_api_authentication_failures_total",
    ),
    entry(
        "auth.keys",
        "Requests need one of these keys; else they get 401.",
        "the line API keys of the start report; caxton_api_authentication_failures_total",
    ),
    entry(
        "logging.filter",
        "Lines of the process's own log below these levels are left out.",
        "standard error of the server",
    ),
    entry(
        "logging.format",
        "Lines of the process's own log are texts or JSON objects.",
        "standard error of the server",
    ),
    entry(
        "log.durability",
        "A write is acknowledged when it is on disk (always), or when the system has it (interval, off), which a power \
         cut may lose.",
        "the line durability of the start report; caxton_log_append_seconds",
    ),
    entry(
        "log.flush_interval",
        "With durability: interval the log is synced so often; a power cut loses at most what came since.",
        "the line durability of the start report",
    ),
    entry(
        "log.cache_mb",
        "The store of the log keeps so much of its file in memory.",
        "caxton_server_memory_used_bytes while audits and replays read the log",
    ),
    entry(
        "privacy.encrypt",
        "Payloads of these scopes are written encrypted under keys of their own, which `caxton erase` destroys.",
        "DATA_DIR/erasure.keys; `caxton log head`, `caxton erase --dry-run`",
    ),
    entry(
        "messaging.max_message_size",
        "A message with a larger content gets 413.",
        "caxton_messages_total{outcome=\"refused\"}",
    ),
    entry(
        "messaging.queue_size",
        "A message to an inbox that holds so many gets 429.",
        "caxton_inbox_messages_waiting_max",
    ),
    entry(
        "messaging.max_pending_requests",
        "When so many requests wait for the message router, further ones get 503 at once.",
        "caxton_message_requests_waiting",
    ),
    entry(
        "messaging.conversation_ttl",
        "A conversation without a message for so long is ended, unless it was opened with another time.",
        "caxton_deadlines_fired_total{deadline=\"conversation_idle\"}",
    ),
    entry(
        "messaging.conversation_lifetime",
        "A conversation that is open for so long is ended, unless it was opened with another time.",
        "caxton_deadlines_fired_total{deadline=\"conversation_life\"}",
    ),
    entry(
        "messaging.max_participants",
        "A message that would bring one more agent into a conversation of so many gets 409.",
        "caxton_messages_total{outcome=\"refused\"}",
    ),
    entry(
        "messaging.max_messages",
        "A message to a conversation that has so many gets 409.",
        "caxton_messages_total{outcome=\"refused\"}",
    ),
];
