//! The commands about agents from files.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::past::At;
use super::talk::AgentLogs;

/// Commands about agents from files.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AgentsCommand {
    /// List the agents of a running server, those from files and those that registered, and the files that it could not use
    List(AgentsList),
    /// Show one agent: that of a file with its limits and its versions, one that registered with what it does
    Show(AgentShow),
    /// Check agent files, without a server
    Validate(AgentsValidate),
    /// Have a running server look through its agents directory now
    Reload,
    /// Take an earlier version of an agent back into use, until its file changes
    Rollback(AgentRollback),
    /// Show what an agent did: its turns, its tools, its messages
    #[command(after_help = "\
Examples:
  caxton agents logs librarian
  caxton agents logs librarian --follow --full")]
    Logs(AgentLogs),
}

/// `caxton agents list`
#[derive(Debug, Args)]
pub(in crate::cli) struct AgentsList {
    /// Only agents of this workspace
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) workspace: Option<String>,
    /// Only agents that offer this
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) capability: Option<String>,
    /// Only agents that are running, draining, stopped or in error; agents that registered have no status
    #[arg(long, value_name = "STATUS")]
    pub(in crate::cli) status: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) at: At,
}

/// `caxton agents show`
#[derive(Debug, Args)]
pub(in crate::cli) struct AgentShow {
    /// The agent
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,
    /// Print the text of its file and nothing else
    #[arg(long)]
    pub(in crate::cli) content: bool,
    #[command(flatten)]
    pub(in crate::cli) at: At,
}

/// `caxton agents validate`
#[derive(Debug, Args)]
pub(in crate::cli) struct AgentsValidate {
    /// Agent files, folders of them, or - for standard input
    #[arg(value_name = "FILE", required = true)]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// Refuse what is only doubtful, such as unknown keys
    #[arg(long)]
    pub(in crate::cli) strict: bool,
}

/// `caxton agents rollback`
#[derive(Debug, Args)]
pub(in crate::cli) struct AgentRollback {
    /// The agent
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,
    /// The version to take back [default: the one before]
    #[arg(long, value_name = "VERSION", conflicts_with = "to_seq")]
    pub(in crate::cli) to_version: Option<String>,
    /// The text at this position of the log
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) to_seq: Option<u64>,
}
