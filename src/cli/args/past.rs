//! The options that ask about the past.

use clap::Args;

use super::memory::Who;
use super::talk::PageOf;

/// When a question looks.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct At {
    /// As it was after this record, or at this time: a seq or RFC 3339 [default: now]
    #[arg(long, value_name = "SEQ|TIME")]
    pub(in crate::cli) as_of: Option<String>,
}

/// When a question looks, and what must have been true when.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct AtAndTrue {
    #[command(flatten)]
    pub(in crate::cli) at: At,
    /// Only what was true at this time (RFC 3339), apart from when it was known
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) valid_at: Option<String>,
}

/// `caxton memory diff`
#[derive(Debug, Args)]
pub(in crate::cli) struct MemoryDiff {
    /// The memory as it was after this record, or at this time
    #[arg(long, value_name = "SEQ|TIME")]
    pub(in crate::cli) from: String,
    /// And as it was after this one, or at this time [default: now]
    #[arg(long, value_name = "SEQ|TIME")]
    pub(in crate::cli) to: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) page: PageOf,
    #[command(flatten)]
    pub(in crate::cli) who: Who,
}
