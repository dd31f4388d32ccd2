//! The commands about what is folded from the log.

use std::path::PathBuf;

use caxton_tools::projection::Name;
use clap::{Args, Subcommand};

/// Commands about what is folded from the log.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ProjectionCommand {
    /// Show every projection with its version, position and size
    List,
    /// Fold the log afresh beside the projections in use and compare them
    #[command(after_help = "\
Exit code 0: every one named is what the log adds up to. 1: one is not, and its first difference is shown; rebuild it.")]
    Verify(VerifyProjections),
    /// Build projections anew from the log and put them in place of those in use
    #[command(after_help = "\
The new one is built beside the old, compared, read back and put in place by one rename: a crash at any point leaves the old
one or the new one. With a running server the server does it and goes on answering. docs/backup.md says more.")]
    Rebuild(RebuildProjections),
    /// The same as `verify graph`
    Check,
}

/// `caxton projection verify`
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyProjections {
    /// graph, talk (agents and conversations), vectors [default: all there are]
    #[arg(value_name = "NAME")]
    pub(in crate::cli) names: Vec<Name>,
}

/// `caxton projection rebuild`
#[derive(Debug, Args)]
pub(in crate::cli) struct RebuildProjections {
    /// graph, talk (agents and conversations), vectors [default: all]
    #[arg(value_name = "NAME")]
    pub(in crate::cli) names: Vec<Name>,
    /// Keep what was in use as NAME.old in the data directory
    #[arg(long)]
    pub(in crate::cli) keep_old: bool,
    /// Build them from this backup instead, beside a running server if need be
    #[arg(long, value_name = "BACKUP", requires = "into")]
    pub(in crate::cli) from: Option<PathBuf>,
    /// Where to restore the backup's log and build its projections: an empty directory
    #[arg(long, value_name = "DIR", requires = "from", conflicts_with = "keep_old")]
    pub(in crate::cli) into: Option<PathBuf>,
}
