//! `caxton memory …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::past::{At, AtAndTrue, MemoryDiff};

/// Commands about the memory.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MemoryCommand {
    /// Remember a thing and what is known about it
    Add(Add),
    /// Connect two things
    Relate(Relate),
    /// Find what was remembered, by meaning and by words
    Search(Search),
    /// Ask two memories the same questions and show how their answers differ
    CompareSearch(CompareSearch),
    /// Walk the relations around a thing
    Graph(Graph),
    /// Count what is there
    Stats(Stats),
    /// Tell what came, changed and went between two moments
    #[command(after_help = "\
Examples:
  caxton memory diff --from 2026-11-01 --agent ada
  caxton memory diff --from 1200 --to 1300 --json")]
    Diff(MemoryDiff),
    /// Write the memory to a file
    Export(Export),
    /// Read a file into the memory
    Import(Import),
    /// Take back what an agent, a conversation or a range of the log wrote
    #[command(after_help = "\
Examples:
  caxton memory undo --agent scraper --since 2026-03-01T09:00:00Z --dry-run
  caxton memory undo --conversation conv-0199… --later keep
  caxton memory undo --from-seq 812 --to-seq 830

Nothing leaves the log: the undo is recorded, and can be undone by its own range. Facts that build on what would go are
listed, and nothing is done unless --later says what happens to them.")]
    Undo(Undo),
}

/// Who asks.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Who {
    /// The agent whose memory it is
    #[arg(long, value_name = "NAME", env = "CAXTON_AGENT", default_value = "default")]
    pub(in crate::cli) agent: String,
    /// The workspace it works in
    #[arg(long, value_name = "NAME", env = "CAXTON_WORKSPACE", default_value = "default")]
    pub(in crate::cli) workspace: String,
    /// The part of memory: writes go to the agent's own unless told otherwise, reads see all three
    #[arg(long, value_enum, value_name = "SCOPE")]
    pub(in crate::cli) scope: Option<ScopeName>,
}

/// A part of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ScopeName {
    /// Seen by one agent
    Agent,
    /// Seen by every agent of a workspace
    Workspace,
    /// Seen by all
    Global,
}

impl ScopeName {
    /// As requests name it.
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workspace => "workspace",
            Self::Global => "global",
        }
    }
}

/// `caxton memory add`
#[derive(Debug, Args)]
pub(in crate::cli) struct Add {
    /// Name of the thing, unique within its scope
    pub(in crate::cli) name: String,
    /// What is known about it, one text each; added to what is known already
    #[arg(value_name = "OBSERVATION", required = true)]
    pub(in crate::cli) observations: Vec<String>,
    /// What kind of thing it is [default: thing; what is there already keeps its type]
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub(in crate::cli) entity_type: Option<String>,
    /// A JSON object with anything else, of a thing that is new
    #[arg(long, value_name = "JSON")]
    pub(in crate::cli) metadata: Option<String>,
    /// What is told is true from this moment on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) valid_from: Option<String>,
    /// What is told is true until this moment (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) valid_to: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) who: Who,
}

/// `caxton memory relate`
#[derive(Debug, Args)]
pub(in crate::cli) struct Relate {
    /// Where the relation starts
    pub(in crate::cli) from: String,
    /// What it says, as in `depends_on`
    pub(in crate::cli) relation: String,
    /// Where it ends
    pub(in crate::cli) to: String,
    /// How strong it is, 0 to 1
    #[arg(long, value_name = "NUMBER", default_value_t = 0.5)]
    pub(in crate::cli) strength: f64,
    /// Say the same the other way round
    #[arg(long)]
    pub(in crate::cli) both: bool,
    #[command(flatten)]
    pub(in crate::cli) who: Who,
}

/// How a search ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Mode {
    /// By meaning and by words
    Hybrid,
    /// By meaning
    Semantic,
    /// By words
    Keyword,
}

impl Mode {
    /// As requests name it.
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "hybrid",
            Self::Semantic => "semantic",
            Self::Keyword => "keyword",
        }
    }
}

/// `caxton memory search`
#[derive(Debug, Args)]
pub(in crate::cli) struct Search {
    /// What is sought, in words
    #[arg(value_name = "QUERY", required = true)]
    pub(in crate::cli) query: Vec<String>,
    /// Hits at most
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    pub(in crate::cli) limit: u16,
    /// What ranks [default: hybrid, or what the server is set to]
    #[arg(long, value_enum)]
    pub(in crate::cli) mode: Option<Mode>,
    /// Only things of this type; may be given again
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub(in crate::cli) types: Vec<String>,
    /// Only hits at least this similar (cosine, -1 to 1)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(in crate::cli) min_similarity: Option<f32>,
    /// Show the relations of each hit
    #[arg(long)]
    pub(in crate::cli) relations: bool,
    #[command(flatten)]
    pub(in crate::cli) when: AtAndTrue,
    #[command(flatten)]
    pub(in crate::cli) who: Who,
}

/// `caxton memory compare-search`
#[derive(Debug, Args)]
pub(in crate::cli) struct CompareSearch {
    /// The other memory: the address of a server, or a data directory, as of a fork
    #[arg(long, value_name = "URL|DIR")]
    pub(in crate::cli) with: String,
    /// The questions, one a line, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) queries: PathBuf,
    /// Hits compared for each question
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    pub(in crate::cli) limit: u16,
    /// What ranks [default: hybrid, or what each is set to]
    #[arg(long, value_enum)]
    pub(in crate::cli) mode: Option<Mode>,
    /// Configuration of the other directory, where no server runs on it [default: the same]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) with_config: Option<PathBuf>,
    /// Folder of the other directory's embedding model, where no server runs on it [default: the same]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) with_model_path: Option<PathBuf>,
    /// Do without a model in the other directory, where no server runs on it
    #[arg(long)]
    pub(in crate::cli) with_keyword_only: bool,
    #[command(flatten)]
    pub(in crate::cli) who: Who,
}

/// `caxton memory graph`
#[derive(Debug, Args)]
pub(in crate::cli) struct Graph {
    /// Name of the thing to start from
    pub(in crate::cli) name: String,
    /// Relations followed in a row, at most 10
    #[arg(long, short = 'd', value_name = "COUNT", default_value_t = 2)]
    pub(in crate::cli) depth: u8,
    /// Only relations of this type; may be given again
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub(in crate::cli) types: Vec<String>,
    /// Only relations at least this strong
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    pub(in crate::cli) min_strength: f64,
    #[command(flatten)]
    pub(in crate::cli) when: AtAndTrue,
    #[command(flatten)]
    pub(in crate::cli) who: Who,
}

/// `caxton memory stats`
#[derive(Debug, Args)]
pub(in crate::cli) struct Stats {
    /// Only what this agent sees
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) at: At,
}

/// `caxton memory export`
#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    /// File to write, `-` for standard output: one JSON object a line
    #[arg(long, short = 'o', value_name = "FILE", default_value = "-")]
    pub(in crate::cli) out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Write the vectors too
    #[arg(long)]
    pub(in crate::cli) embeddings: bool,
    #[command(flatten)]
    pub(in crate::cli) when: AtAndTrue,
    #[command(flatten)]
    pub(in crate::cli) who: Who,
}

/// What happens to things that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum MergeStrategy {
    /// Make them as the file says
    UpdateExisting,
    /// Leave them as they are
    SkipExisting,
    /// Refuse the file's line
    ErrorOnConflict,
}

impl MergeStrategy {
    /// As requests name it.
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::UpdateExisting => "update_existing",
            Self::SkipExisting => "skip_existing",
            Self::ErrorOnConflict => "error_on_conflict",
        }
    }
}

/// How a file to import is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ImportFormat {
    /// As `memory export` and `corpus` write it
    Caxton,
    /// As the MCP reference memory server keeps it: memory.jsonl
    Mcp,
}

/// `caxton memory import`
#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// File to read, `-` for standard input: what `memory export`, `corpus` or an MCP memory server wrote
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// How it is written
    #[arg(long, value_enum, default_value = "caxton")]
    pub(in crate::cli) format: ImportFormat,
    /// What happens to things that exist already [default: update-existing; for mcp, what is missing is added]
    #[arg(long, value_enum)]
    pub(in crate::cli) on_conflict: Option<MergeStrategy>,
    /// Lines sent in one request
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(in crate::cli) chunk: u32,
    #[command(flatten)]
    pub(in crate::cli) who: Who,
}

/// What happens to facts that build on what is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LaterFacts {
    /// Nothing is undone when there are any
    Refuse,
    /// They stay, and so does what they build on
    Keep,
    /// They are undone too
    Undo,
}

impl LaterFacts {
    /// As requests name it.
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Keep => "keep",
            Self::Undo => "undo",
        }
    }
}

/// `caxton memory undo`
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("choice").required(true).multiple(true).args(["agent", "conversation", "correlation", "from_seq"])))]
pub(in crate::cli) struct Undo {
    /// What this agent wrote
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    /// What was written in the turns of this conversation
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) conversation: Option<String>,
    /// What has this correlation: one request, one turn
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) correlation: Option<String>,
    /// What stands at this position or behind it
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) from_seq: Option<u64>,
    /// What stands at this position or before it
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) to_seq: Option<u64>,
    /// What was recorded then or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<String>,
    /// What was recorded before then (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) until: Option<String>,
    /// What happens to facts that build on what is undone
    #[arg(long, value_enum, default_value = "refuse")]
    pub(in crate::cli) later: LaterFacts,
    /// Show every change, and do nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Changes and later facts shown
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub(in crate::cli) limit: u32,
    /// Who undoes, bound to the scopes it sees [default: the operator, who is not]
    #[arg(long = "as", value_name = "NAME")]
    pub(in crate::cli) by: Option<String>,
    /// The workspace that --as works in
    #[arg(long, value_name = "NAME", requires = "by")]
    pub(in crate::cli) workspace: Option<String>,
}
