//! `caxton export …` and `caxton import …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::past::At;

/// Commands that take data elsewhere.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ExportCommand {
    /// Write events of the log to a file
    #[command(after_help = "\
Examples:
  caxton export events --out log.jsonl
  caxton export events --format parquet --kind memory.observation_added --since 2026-01-01T00:00:00Z --out notes.parquet

Lines of the whole log, without a filter, carry what its hashes need: `caxton import events` makes the log of them again.")]
    Events(ExportEvents),
    /// Write the whole memory, of all agents, to files
    #[command(after_help = "\
Examples:
  caxton export memory --out tables/
  caxton export memory --as-of 2026-01-31T12:00:00Z --embeddings --out january/
  caxton export memory --format sqlite --out memory.db")]
    Memory(ExportMemory),
    /// Write agents, conversations and messages to files
    #[command(after_help = "\
Examples:
  caxton export conversations --out tables/")]
    Conversations(ExportConversations),
}

/// Commands that bring data in.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImportCommand {
    /// Make a log of exported lines in an empty directory, with every hash checked
    #[command(after_help = "\
Examples:
  caxton import events log.jsonl --to data/
  caxton import events log.jsonl --to data/ --public-key caxton/log/5d0c…
  ssh other caxton export events --out - | caxton import events - --to data/

Rows for a memory that exists, and the file of an MCP memory server: `caxton memory import`.")]
    Events(ImportEvents),
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum EventsFormat {
    /// A line of JSON for each
    Jsonl,
    /// A Parquet file
    Parquet,
}

/// `caxton export events`
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportEvents {
    /// How they are written
    #[arg(long, value_enum, default_value = "jsonl")]
    pub(in crate::cli) format: EventsFormat,
    /// File to write, `-` for standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(in crate::cli) out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Only this kind, as in `memory.entity_created`, or a family, as in `memory.`; may be given again
    #[arg(long = "kind", short = 'k', value_name = "KIND")]
    pub(in crate::cli) kinds: Vec<String>,
    /// Only events that this agent caused
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) actor: Option<String>,
    /// Only events of this stream, as in agent:ada
    #[arg(long, value_name = "STREAM")]
    pub(in crate::cli) stream: Option<String>,
    /// Only events with this correlation
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) correlation: Option<String>,
    /// Only events from this position on
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) from_seq: Option<u64>,
    /// Only events through this position
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) to_seq: Option<u64>,
    /// Only events recorded then or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Only events recorded before then (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
}

/// How the memory is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum MemoryFormat {
    /// Three Parquet files in a folder: entities, observations, relations
    Parquet,
    /// The SQLite file as it is, compacted
    Sqlite,
}

/// `caxton export memory`
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportMemory {
    /// How it is written; one agent's memory as lines: `caxton memory export`
    #[arg(long, value_enum, default_value = "parquet")]
    pub(in crate::cli) format: MemoryFormat,
    /// File to write; the folder for Parquet
    #[arg(long, short = 'o', value_name = "PATH")]
    pub(in crate::cli) out: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) when: At,
    /// Replace what is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Write the vectors of entities and observations too (Parquet)
    #[arg(long)]
    pub(in crate::cli) embeddings: bool,
}

/// `caxton export conversations`
#[derive(Debug, Args)]
pub(in crate::cli) struct ExportConversations {
    /// Folder for three Parquet files: agents, conversations, messages
    #[arg(long, short = 'o', value_name = "DIR")]
    pub(in crate::cli) out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

/// `caxton import events`
#[derive(Debug, Args)]
pub(in crate::cli) struct ImportEvents {
    /// The lines, `-` for standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// The data directory to make; it must be empty
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) to: PathBuf,
    /// The key that must have signed the head (`caxton log head` of the other log prints it)
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) public_key: Option<String>,
}
