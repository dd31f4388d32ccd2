//! How a log is opened: durability, bounds, sizes.

use std::time::Duration;

use crate::limits::LOG_QUEUE_MAX;
use crate::log::sealing::Sealing;

/// When an acknowledged event is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before it is acknowledged. The default.
    Always,
    /// At the latest this long after it was acknowledged. A crash of the process or the machine loses what was
    /// acknowledged since the last sync, never a part of a batch and never anything before it.
    Interval(Duration),
    /// When the log is closed in order; a crash loses everything since it was opened. For benchmarks.
    Off,
}

/// Settings of a log. Start from [`LogOptions::new`].
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// When an acknowledged event is on disk. Default: [`Durability::Always`].
    pub durability: Durability,
    /// Memory for pages of the store, in bytes. Default: 32 MiB; more did not help where it was measured.
    pub cache_bytes: usize,
    /// Event bodies longer than this many bytes are compressed with LZ4 when that makes them smaller; `None`: never.
    /// Default: 4 KiB.
    pub compress_above: Option<usize>,
    /// Submissions that may wait for the writer; the next submitter blocks. Default: [`LOG_QUEUE_MAX`], at least 1.
    pub queue_max: usize,
    /// The writer commits when a group has this many events, even if more are waiting. One submission is never split.
    /// Default: 4,096, at least 1.
    pub group_events_max: usize,
    /// The writer commits when a group has this many bytes, even if more are waiting. Default: 8 MiB, at least 1.
    pub group_bytes_max: usize,
    /// A group of at most this many bytes becomes durable in the write-ahead log first and goes into the store together
    /// with others; 0: none does. Only with [`Durability::Always`]. Default: 128 KiB.
    pub wal_group_bytes_max: usize,
    /// Which payloads are encrypted under keys that can be destroyed, and where the keys come from. Default: none.
    pub sealing: Option<Sealing>,
    /// Whether small old blocks are merged while the writer is idle; but for [`Durability::Always`], now and then while it is not,
    /// too. Default: yes.
    pub merge_blocks: bool,
    /// What nobody who has events written can know, drawn at random: the checksums of the write-ahead log begin with it, so that
    /// nobody can write what looks like a record. A file keeps the first it is given. Default: none, and a file that was given
    /// none goes by the log's id.
    pub wal_seed: Option<[u8; 8]>,
    /// Name of a log that is created; ignored when one exists. Draw it at random: event ids come from it.
    pub log_id: [u8; 16],
}

impl LogOptions {
    /// The defaults, for a log that gets this id if it is created.
    pub fn new(log_id: [u8; 16]) -> Self {
        Self {
            durability: Durability::Always,
            cache_bytes: 32 << 20,
            compress_above: Some(4 << 10),
            queue_max: LOG_QUEUE_MAX,
            group_events_max: 4_096,
            group_bytes_max: 8 << 20,
            wal_group_bytes_max: 128 << 10,
            sealing: None,
            merge_blocks: true,
            wal_seed: None,
            log_id,
        }
    }
}
