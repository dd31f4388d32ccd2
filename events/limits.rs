//! Every bound of the log and of what may be written, with its unit.

/// Longest name of an agent or a workspace, in bytes.
pub const AGENT_NAME_BYTES_MAX: usize = 128;
/// Longest name of an entity, in bytes.
pub const ENTITY_NAME_BYTES_MAX: usize = 1_024;
/// Longest type of an entity or a relation, in bytes.
pub const TYPE_BYTES_MAX: usize = 128;
/// Longest observation, in bytes.
pub const OBSERVATION_BYTES_MAX: usize = 1 << 20;
/// Longest metadata of one row as JSON, in bytes.
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// All observations of one entity in one command, in bytes.
pub const ENTITY_BYTES_MAX: usize = 10 << 20;
/// Largest encoded event, in bytes.
pub const EVENT_BYTES_MAX: usize = 16 << 20;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Largest block of the log before its store's own overhead, in bytes: just under 256 KiB, because the store rounds
/// a value up to a power of two.
pub const BLOCK_BYTES_MAX: usize = (256 << 10) - 64;
/// Batches that may wait for the log's writer.
pub const LOG_QUEUE_MAX: usize = 2_048;
/// Commits of the log that are on their way to the medium: while one is flushed the next is packed, and the writer then
/// waits. One more would not be faster and adds a flush to what the last caller waits (p99 of 512: 9.0 and 11.2 ms).
pub const LOG_COMMITS_MAX: usize = 1;
/// Jobs that may wait for the model, of queries and of bulk each.
pub const EMBEDDING_QUEUE_MAX: usize = 1_024;
/// Longest name of a capability, in bytes.
pub const CAPABILITY_NAME_BYTES_MAX: usize = 100;
/// Longest content of one message, in bytes.
pub const MESSAGE_CONTENT_BYTES_MAX: usize = 10 << 20;
/// All the free fields of one message together as JSON, in bytes.
pub const MESSAGE_EXTRAS_BYTES_MAX: usize = 256 << 10;
/// Longest `reply_with` and `in_reply_to`, in bytes.
pub const REPLY_WORD_BYTES_MAX: usize = 255;
/// Receivers of one message.
pub const RECEIVERS_MAX: usize = 10_000;
/// Providers that a recorded routing decision names.
pub const CANDIDATES_MAX: usize = 16;
/// Contents that one answer holds, or that are read for it at a time, in bytes.
pub const CONTENTS_BYTES_MAX: u64 = 16 << 20;
/// Longest topic of a conversation, in bytes.
pub const TOPIC_BYTES_MAX: usize = 1_024;
/// Longest text of a config agent, in bytes.
pub const AGENT_FILE_BYTES_MAX: usize = 256 << 10;
/// Facts that are undone at once: an undo is one batch.
pub const UNDO_EVENTS_MAX: usize = 200_000;
/// Texts and metadata that come back in one undo, in bytes.
pub const UNDO_BYTES_MAX: usize = 256 << 20;
