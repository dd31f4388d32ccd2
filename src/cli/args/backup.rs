//! The commands about backups.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `caxton backup`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(in crate::cli) struct Backup {
    #[command(subcommand)]
    pub(in crate::cli) command: Option<BackupCommand>,
    /// Folder of the backup: empty, or one that is added to
    #[arg(long, value_name = "DIR", required = true)]
    pub(in crate::cli) to: Option<PathBuf>,
    /// Take signing.key along: whoever has it can sign heads as this server does
    #[arg(long)]
    pub(in crate::cli) with_keys: bool,
}

/// Commands about backups that are there.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BackupCommand {
    /// Read a whole backup and recompute every hash
    #[command(
        after_help = "Exit code 0: it is whole. 1: it is not, and every part that is missing, cut short or changed is named."
    )]
    Verify {
        /// Folder of the backup
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// `caxton restore`
#[derive(Debug, Args)]
pub(in crate::cli) struct Restore {
    /// Folder of the backup
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) from: PathBuf,
    /// Data directory to make: one that is not there, or empty
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) to: PathBuf,
    /// Leave out what was recorded behind this position
    #[arg(long, value_name = "SEQ", conflicts_with = "to_time")]
    pub(in crate::cli) to_seq: Option<u64>,
    /// Leave out what was recorded later, as in 2026-11-28T14:05:00Z
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) to_time: Option<String>,
    /// Move a directory that is not empty aside; it is never removed
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// The newest copy of erasure.keys, where payloads are encrypted: it is in no backup
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) keys: Option<PathBuf>,
    /// Build the projections right away, not at the first start
    #[arg(long)]
    pub(in crate::cli) rebuild: bool,
}
