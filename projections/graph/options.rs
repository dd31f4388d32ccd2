//! Settings of the SQLite file: the seed's `sqlite_config` and `sqlite_advanced`, and the pool of readers.

use std::time::Duration;

/// How SQLite keeps the projection. The log has its own durability: losing the end of this file costs a replay, no fact.
#[derive(Debug, Clone, PartialEq)]
pub struct SqliteOptions {
    /// Journal as write-ahead log, so that readers never wait for the writer. `false`: a rollback journal, where
    /// both wait for each other up to [`SqliteOptions::busy_timeout`]. Default: true.
    pub wal_mode: bool,
    /// Page cache of the writer, in MiB; the readers share half as much again. Default: 128. Bounds: 1 to 65,536.
    pub cache_size_mb: u32,
    /// Part of the file that is read through a memory map, in MiB; 0 turns it off. Default: 512.
    pub mmap_size_mb: u32,
    /// Size of a page in bytes: a power of two from 512 to 65,536. Another size than the file's rewrites the file when
    /// it is opened. Default: 4096.
    pub page_size: u32,
    /// When SQLite waits for the disk. Default: normal.
    pub synchronous: Synchronous,
    /// Size the journal is cut back to after a checkpoint, in MiB; `None`: not cut. Default: 100.
    pub journal_size_limit_mb: Option<u32>,
    /// Where temporary tables live. Default: memory.
    pub temp_store: TempStore,
    /// Whether freed pages go back to the file system. Another mode than the file's rewrites the file when it is opened.
    /// Default: none.
    pub auto_vacuum: AutoVacuum,
    /// How hard checkpoints try: those of commits ([`SqliteOptions::wal_checkpoint_interval`]) and
    /// [`Graph::checkpoint_wal`](super::Graph::checkpoint_wal). Waiting, for [`SqliteOptions::busy_timeout`] at most, holds the
    /// writer up and no reader. Default: passive.
    pub wal_checkpoint_strategy: CheckpointStrategy,
    /// Pages in the journal after which a commit moves them into the file; where it waited for readers in vain, so many pages later
    /// again. Default: 20,000.
    pub wal_checkpoint_interval: u32,
    /// How often the owner should call [`Graph::analyze`](super::Graph::analyze). Default: one hour.
    pub analyze_frequency: Duration,
    /// What [`Graph::vacuum`](super::Graph::vacuum) does. Default: incremental.
    pub vacuum_strategy: VacuumStrategy,
    /// Read-only connections. Default: 8. Bounds: 1 to 64.
    pub readers: usize,
    /// How long a query waits for a free connection before [`ReadError::Exhausted`](super::ReadError::Exhausted).
    /// Default: 5 s.
    pub reader_wait: Duration,
    /// How long SQLite waits for a lock another process or a rollback journal holds. Default: 5 s.
    pub busy_timeout: Duration,
    /// Prepared statements a connection keeps. Default: 64.
    pub statement_cache: usize,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            wal_mode: true,
            cache_size_mb: 128,
            mmap_size_mb: 512,
            page_size: 4096,
            synchronous: Synchronous::Normal,
            journal_size_limit_mb: Some(100),
            temp_store: TempStore::Memory,
            auto_vacuum: AutoVacuum::None,
            wal_checkpoint_strategy: CheckpointStrategy::Passive,
            wal_checkpoint_interval: 20_000,
            analyze_frequency: Duration::from_hours(1),
            vacuum_strategy: VacuumStrategy::Incremental,
            readers: 8,
            reader_wait: Duration::from_secs(5),
            busy_timeout: Duration::from_secs(5),
            statement_cache: 64,
        }
    }
}

/// `PRAGMA synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Never wait: a power cut can damage the file, which is then rebuilt from the log.
    Off = 0,
    /// Wait at checkpoints: a power cut can lose the last transactions, which are then replayed.
    Normal = 1,
    /// Wait at each commit.
    Full = 2,
}

/// `PRAGMA temp_store`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TempStore {
    /// As SQLite was built: in files.
    Default = 0,
    /// In files.
    File = 1,
    /// In memory.
    Memory = 2,
}

/// `PRAGMA auto_vacuum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoVacuum {
    /// Freed pages are used again, the file never shrinks.
    None = 0,
    /// Freed pages go back at each commit.
    Full = 1,
    /// Freed pages go back when [`Graph::vacuum`](super::Graph::vacuum) asks for it.
    Incremental = 2,
}

/// How hard a checkpoint tries to move the journal into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointStrategy {
    /// What no reader needs any more, without waiting.
    Passive,
    /// All, waiting for readers of older states.
    Full,
    /// All, waiting for every reader that still uses the journal: the next write begins it anew.
    Restart,
}

/// How [`Graph::vacuum`](super::Graph::vacuum) gives space back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VacuumStrategy {
    /// Up to the given number of free pages; needs [`AutoVacuum::Incremental`] to find any.
    Incremental,
    /// The whole file is written anew.
    Full,
    /// [`VacuumStrategy::Full`] when more than a quarter of the file is free, else incremental.
    Auto,
}
