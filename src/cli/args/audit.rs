//! The commands of auditors: who did what, and why something is as it is.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Commands about the audit trail.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// Find events by who, what, where and when
    #[command(after_help = "\
Examples:
  caxton audit query --agent ada --last 24h
  caxton audit query --entity ent_5 --kind memory. --newest
  caxton audit query --since 2026-11-01 --until 2026-12-01 --all --format csv --out november.csv

The events go to standard output or the file; what the answer took, and what could not be read, is told on standard
error. The exit code is 1 when a part of the log could not be read.")]
    Query(Box<AuditQuery>),
    /// Tell what led to an event, an entity, an observation, a relation, a message or a turn
    Why(AuditWhy),
}

/// `caxton audit query`
#[derive(Debug, Args)]
pub(in crate::cli) struct AuditQuery {
    /// Only events that this agent caused
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) actor: Option<String>,
    /// Only events that this agent caused or that are about it: sender, receiver, owner
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    /// Only events of this conversation
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) conversation: Option<String>,
    /// Only events that write or name this entity, observation or relation: `ent_5`, `obs_7`, `rel_9`
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) entity: Option<String>,
    /// Only events that are, name or answer with this message
    #[arg(long, value_name = "UUID")]
    pub(in crate::cli) message: Option<String>,
    /// Only events of this turn, and what was written in it
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) turn: Option<String>,
    /// Only this kind, as in `memory.entity_created`, or a family, as in `memory.`; may be given again
    #[arg(long = "kind", short = 'k', value_name = "KIND")]
    pub(in crate::cli) kinds: Vec<String>,
    /// Only events with this correlation: the id of a request, a conversation or a turn
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) correlation: Option<String>,
    /// Only events that the event at this position led to
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) cause: Option<String>,
    /// Only events of this stream
    #[arg(long, value_name = "STREAM")]
    pub(in crate::cli) stream: Option<String>,
    /// Only what was written to this scope of memory: agent:NAME, workspace:NAME or global
    #[arg(long, value_name = "SCOPE")]
    pub(in crate::cli) scope: Option<String>,
    /// Only events recorded at this time (RFC 3339) or later
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// Only events recorded before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
    /// Only events of the last span of time, as in 24h, 30m or 7d
    #[arg(long, value_name = "SPAN", conflicts_with = "since")]
    pub(in crate::cli) last: Option<String>,
    /// Only events at this position or behind it
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) from: Option<String>,
    /// Only events at this position or before it
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) to: Option<String>,
    /// The newest first
    #[arg(long)]
    pub(in crate::cli) newest: bool,
    /// Events shown at most [default: 50, or what the server is set to]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(in crate::cli) limit: Option<u64>,
    /// Show every event that matches
    #[arg(long, conflicts_with = "limit")]
    pub(in crate::cli) all: bool,
    /// How to write them [default: lines for people, with --json one JSON object]
    #[arg(long, short = 'f', value_name = "FORMAT")]
    pub(in crate::cli) format: Option<AuditFormat>,
    /// File to write, `-` for standard output
    #[arg(long, short = 'o', value_name = "FILE", default_value = "-")]
    pub(in crate::cli) out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum AuditFormat {
    /// One line for people
    Text,
    /// One JSON object
    Json,
    /// A JSON object a line
    Jsonl,
    /// RFC 4180
    Csv,
    /// A batch of `CloudEvents` 1.0
    Cloudevents,
    /// A `CloudEvent` 1.0 a line
    CloudeventsJsonl,
}

/// `caxton audit why`
#[derive(Debug, Args)]
pub(in crate::cli) struct AuditWhy {
    /// A position (17), `ent_ID`, `obs_ID`, `rel_ID`, the UUID of a message, or `turn_UUID`
    #[arg(value_name = "WHAT")]
    pub(in crate::cli) what: String,
    /// Steps back, at most
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=32))]
    pub(in crate::cli) depth: u64,
    /// Events and turns shown, at most
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(in crate::cli) nodes: u64,
}
