//! The commands of operators: serving, the log, the model, the configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::LogSalvage;

/// `caxton serve`
#[derive(Debug, Args)]
pub(in crate::cli) struct Serve {
    /// Port of the REST API, 0 for any free one [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub(in crate::cli) port: Option<u16>,
    /// Address to listen on; anything but a loopback address needs an API key [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) host: Option<std::net::IpAddr>,
    /// Port of /metrics on the loopback address, 0 for any free one, "off" for none [default: 9090]
    #[arg(long, value_name = "PORT")]
    pub(in crate::cli) metrics_port: Option<String>,
    /// Stop when standard input is closed, as it is when the program is gone that started this one
    #[arg(long, hide = true)]
    pub(in crate::cli) until_input_closes: bool,
}

/// Commands about the event log.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LogCommand {
    /// Show the newest events, or those from a position on
    Tail(LogTail),
    /// Recompute every hash from the first event to the last
    Verify {
        /// Only what this log recorded itself since it was forked or sealed, not what it shares
        #[arg(long)]
        own: bool,
        /// Go on after damage and name everything that is lost
        #[arg(long, conflicts_with = "own")]
        salvage: bool,
    },
    /// Write every event that a damaged log still holds, and what is lost
    Salvage(LogSalvage),
    /// Show the end of the log and its size
    Head {
        /// Read every event and count the kinds
        #[arg(long)]
        kinds: bool,
        /// Print the signed head alone, as auditors keep it
        #[arg(long, conflicts_with = "kinds")]
        checkpoint: bool,
    },
    /// Prove that an event is in the log, for an auditor who has neither log nor server
    Prove(ProveEvent),
    /// Prove that everything under an earlier head is unchanged under a later one
    Consistency(ProveGrowth),
    /// Check a proof: needs neither server nor data directory
    #[command(after_help = "\
Exit code 0: it holds. 1: it does not, and standard error says what does not fit. docs/audit.md says what that means.")]
    CheckProof(CheckProof),
    /// Make a data directory that shares everything up to a position, and goes its own way from there
    #[command(after_help = "\
Examples:
  caxton log fork --to /data/what-if
  caxton log fork --at 17000 --to /data/before
  caxton log fork --at 2026-11-28T14:00:00Z --to /data/at-two

It takes as long for any log. The directory may have a running server, which goes on. docs/fork.md says what both share.")]
    Fork(LogFork),
    /// Give a stopped data directory files of its own for everything it shares with others
    Detach,
    /// Drop the oldest events of a stopped data directory; what they led to stays
    #[command(after_help = "\
Examples:
  caxton log drop --before 2026-01-01T00:00:00Z --dry-run
  caxton log drop --before 17000 --by 'ada, retention of 90 days'

Whole blocks go. The memory, agents and conversations stay as they are; texts of messages, audit and any past state before
that point are gone for good. docs/retention.md says what stays provable.")]
    Drop(LogDrop),
}

/// `caxton log drop`
#[derive(Debug, Args)]
pub(in crate::cli) struct LogDrop {
    /// The first event to keep: its position, or the time from which events are kept
    #[arg(long, value_name = "SEQ|TIME")]
    pub(in crate::cli) before: String,
    /// Who drops them, as the log records
    #[arg(long, value_name = "TEXT", default_value = "operator")]
    pub(in crate::cli) by: String,
    /// Drop them here although forks keep them: then their space is not given back
    #[arg(long)]
    pub(in crate::cli) forks_keep: bool,
    /// Say what would be dropped and whose files keep their space, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// `caxton log fork`
#[derive(Debug, Args)]
pub(in crate::cli) struct LogFork {
    /// The last event that both share: its position, or the time until which events count [default: the last one]
    #[arg(long, value_name = "SEQ|TIME")]
    pub(in crate::cli) at: Option<String>,
    /// Where the fork is made: a directory that does not exist, or is empty
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) to: PathBuf,
    /// Copy the events instead of sharing files: for another disk
    #[arg(long)]
    pub(in crate::cli) copy: bool,
}

/// `caxton log prove`
#[derive(Debug, Args)]
pub(in crate::cli) struct ProveEvent {
    /// Position of the event
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) seq: u64,
    /// Prove it against the head the log had after so many events [default: the present one]
    #[arg(long, value_name = "COUNT")]
    pub(in crate::cli) size: Option<u64>,
    /// File to write, `-` for standard output
    #[arg(long, short = 'o', value_name = "FILE", default_value = "-")]
    pub(in crate::cli) out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

/// `caxton log consistency`
#[derive(Debug, Args)]
pub(in crate::cli) struct ProveGrowth {
    /// Events under the earlier head
    #[arg(long, value_name = "COUNT")]
    pub(in crate::cli) from: u64,
    /// Events under the later one [default: all there are]
    #[arg(long, value_name = "COUNT")]
    pub(in crate::cli) to: Option<u64>,
    /// File to write, `-` for standard output
    #[arg(long, short = 'o', value_name = "FILE", default_value = "-")]
    pub(in crate::cli) out: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

/// `caxton log check-proof`
#[derive(Debug, Args)]
pub(in crate::cli) struct CheckProof {
    /// The proof, `-` for standard input
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// The log's public key, from elsewhere than the file (`caxton log head` prints it)
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) public_key: Option<String>,
    /// A head that was kept (`caxton log head --checkpoint`): the proof must be about it, a proof of consistency must
    /// begin with it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) head: Option<PathBuf>,
}

/// `caxton log tail`
#[derive(Debug, Args)]
pub(in crate::cli) struct LogTail {
    /// Events shown at most
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    pub(in crate::cli) lines: u32,
    /// Start at this position instead of the newest events
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) from: Option<u64>,
    /// Wait for new events (with a running server)
    #[arg(long, short = 'f')]
    pub(in crate::cli) follow: bool,
    /// Only this kind, as in `memory.entity_created`, or a family, as in `memory.`; may be given again
    #[arg(long = "kind", short = 'k', value_name = "KIND")]
    pub(in crate::cli) kinds: Vec<String>,
    /// Only events of this stream, as in agent:ada
    #[arg(long, value_name = "STREAM")]
    pub(in crate::cli) stream: Option<String>,
    /// Only events that this agent caused
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) actor: Option<String>,
}

/// Commands about the models that run in this process.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ModelCommand {
    /// Download a model's files and check them, unless they are here and whole
    Pull {
        /// Which model
        #[arg(value_enum, default_value_t = ModelName::Minilm)]
        name: ModelName,
    },
}

/// The models that can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum ModelName {
    /// all-MiniLM-L6-v2, which search by meaning needs (91 MB)
    Minilm,
    /// SmolLM2-135M-Instruct, which the provider `local` words its answers with (98 MB)
    Smollm2,
}

/// `caxton embed`
#[derive(Debug, Args)]
pub(in crate::cli) struct EmbedText {
    /// The text, `-` to read it from standard input, 1 MiB at most
    #[arg(value_name = "TEXT")]
    pub(in crate::cli) text: String,
}

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// Say what is wrong with a file, which of its keys change nothing yet, and which paths lead nowhere
    #[command(
        after_help = "The file is judged alone, without variables and other flags. Relative paths count from the folder in which Caxton\n\
            is started: run it there. What `caxton serve` would end for is an error, in its words: rules, keys or a model that\n\
            are not where the file says, an address that others reach without a key. Other paths that lead nowhere, and\n\
            variables with keys that are not set here, are warnings. Exit code 0: a server can use the file. 2: it cannot."
    )]
    Check {
        /// The file, `-` for standard input
        file: PathBuf,
    },
    /// Show every value in effect and where it came from
    Show,
    /// Say what a key means, what it holds and why, what it changes and how to see that
    #[command(after_help = "\
Examples:
  caxton config explain memory.search.limit
  caxton config explain memory.cleanup --config caxton.yaml
  caxton config explain embedding_config.cache_size --preset latency --json
  caxton config explain server.port log.durability

A section lists its keys, no name lists all. An alias is explained as the key it stands for. With --json one name gives an
object, several give a list of them, in the order in which they were named.")]
    Explain {
        /// Keys, aliases of keys, or sections [default: all]
        #[arg(value_name = "KEY")]
        keys: Vec<String>,
    },
}

/// Commands about keys of the REST API.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Make a key; only its hash is kept, so the key is shown once
    Create {
        /// Whose key it is
        name: String,
        /// File to add the hash to (`auth.keys_file`); without it the line is printed
        #[arg(long, value_name = "FILE")]
        keys_file: Option<PathBuf>,
    },
}

/// Commands that make real input.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CorpusCommand {
    /// Debian packages, from `apt-cache dumpavail`
    Debian {
        /// Text to read instead of running apt-cache, `-` for standard input
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// File to write, `-` for standard output: what `memory import` reads
        #[arg(long, short = 'o', value_name = "FILE", default_value = "-")]
        out: PathBuf,
        /// Replace what is there
        #[arg(long)]
        force: bool,
        /// Packages at most, programs first
        #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
        limit: usize,
    },
    /// Installed Python packages, from their metadata
    Python {
        /// A site-packages folder to read instead of those that python3 uses; may be given again
        #[arg(long, value_name = "DIR")]
        from: Vec<PathBuf>,
        /// File to write, `-` for standard output: what `memory import` reads
        #[arg(long, short = 'o', value_name = "FILE", default_value = "-")]
        out: PathBuf,
        /// Replace what is there
        #[arg(long)]
        force: bool,
        /// Packages at most
        #[arg(long, value_name = "COUNT", default_value_t = 20_000)]
        limit: usize,
    },
}
