//! What can be typed behind `caxton erase`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `caxton erase`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct Erase {
    /// Check a receipt instead
    #[command(subcommand)]
    pub(in crate::cli) command: Option<EraseCommand>,
    /// What was remembered in this scope: agent:NAME, workspace:NAME or global
    #[arg(long, value_name = "SCOPE", group = "what")]
    pub(in crate::cli) scope: Option<String>,
    /// What this agent remembered for itself, and every conversation it took part in
    #[arg(long, value_name = "NAME", group = "what")]
    pub(in crate::cli) agent: Option<String>,
    /// This conversation
    #[arg(long, value_name = "ID", group = "what")]
    pub(in crate::cli) conversation: Option<String>,
    /// Only show what would go
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Erase without asking again; it cannot be undone
    #[arg(long, short = 'y')]
    pub(in crate::cli) yes: bool,
    /// Why, for the record and the receipt
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) reason: Option<String>,
    /// File for the signed receipt; it is printed without one
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Replace the file for the receipt if it is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

/// Commands about receipts.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EraseCommand {
    /// Check that a receipt was signed as it stands; needs neither a server nor a data directory
    CheckReceipt(CheckReceipt),
}

/// `caxton erase check-receipt`
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckReceipt {
    /// The receipt, `-` for standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// The log's public key, from elsewhere than the file (`caxton log head` prints it)
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) public_key: Option<String>,
}
