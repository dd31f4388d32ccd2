//! What can be typed: the commands with their flags.

mod agents;
mod audit;
mod backup;
mod benchmark;
mod erase;
mod exchange;
mod key_value;
mod memory;
mod operate;
mod past;
mod projection;
mod replay;
mod talk;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(super) use agents::{AgentRollback, AgentShow, AgentsCommand, AgentsList, AgentsValidate};
pub(super) use audit::{AuditCommand, AuditFormat, AuditQuery, AuditWhy};
pub(super) use backup::{Backup, BackupCommand, Restore};
pub(super) use benchmark::{
    BenchmarkAgents, BenchmarkCommand, BenchmarkCompare, BenchmarkEffect, BenchmarkEmbeddings,
    BenchmarkMemory, BenchmarkPlace, BenchmarkScenario, BenchmarkStorage, BenchmarkSystem, ScenarioName,
};
pub(super) use erase::{CheckReceipt, Erase, EraseCommand};
pub(super) use exchange::{
    EventsFormat, ExportCommand, ExportConversations, ExportEvents, ExportMemory, ImportCommand,
    ImportEvents, MemoryFormat,
};
pub(super) use key_value::KeyValue;
pub(super) use memory::{
    Add, CompareSearch, Export, Graph, Import, ImportFormat, MemoryCommand, MergeStrategy, Mode, Relate,
    ScopeName, Search, Stats, Undo, Who,
};
pub(super) use operate::{
    CheckProof, ConfigCommand, CorpusCommand, EmbedText, KeyCommand, LogCommand, LogDrop, LogFork, LogTail,
    ModelCommand, ModelName, ProveEvent, ProveGrowth, Serve,
};
pub(super) use past::{At, AtAndTrue, MemoryDiff};
pub(super) use projection::{ProjectionCommand, RebuildProjections};
pub(super) use replay::{LogSalvage, Replay};
pub(super) use talk::{
    AgentLogs, CapabilitiesCommand, CapabilitiesList, CapabilityTest, Chat, ConversationShow,
    ConversationStatus, ConversationsCommand, ConversationsList, DeadLettersCommand, DeadLettersList,
    DeadLettersReplay, MessageCommand, MessageSend, PageOf, StrategyName, WhichLetters,
};

use crate::config::Preset;

/// What every exit code means; tests compare it with [`super::failure::Exit`].
pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the disk, the network or a damaged file said no, or an agent gave no answer or a bad one
  2  wrong usage, or a configuration that cannot be used
  3  not found: no such entity, agent, conversation, file or model
  4  no server could be reached, or the data directory is in use by one that does not answer
  5  refused: the rules said no (a conflict, an invalid value, a missing API key); nothing was written but what
     the message names
  130  interrupted before it was done

Every command prints a table for people; --json prints one JSON value for programs.
A command finds a running server by DATA_DIR/endpoint. Without one it opens the directory itself.";

/// Memory for AI agents over one event log: durable, searchable, in a single process.
#[derive(Debug, Parser)]
#[command(name = "caxton", version, after_long_help = EXIT_CODES, propagate_version = true)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Common {
    /// Folder of everything Caxton keeps [default: ./caxton-data]
    #[arg(long, global = true, value_name = "DIR", env = "CAXTON_DATA_DIR", help_heading = "Common")]
    pub(super) data_dir: Option<PathBuf>,
    /// Configuration file (YAML)
    #[arg(long, global = true, value_name = "FILE", env = "CAXTON_CONFIG", help_heading = "Common")]
    pub(super) config: Option<PathBuf>,
    /// Shipped profile below the file: throughput, latency or memory-optimised
    #[arg(long, global = true, value_name = "NAME", env = "CAXTON_PRESET", help_heading = "Common")]
    pub(super) preset: Option<Preset>,
    /// Set a key of the configuration, above file and variables; may be given several times
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = KeyValue::typed, help_heading = "Common")]
    pub(super) set: Vec<KeyValue>,
    /// Talk to the server at this address, whatever the data directory says
    #[arg(long, global = true, value_name = "URL", env = "CAXTON_URL", help_heading = "Common")]
    pub(super) url: Option<String>,
    /// Key for a server that asks for one
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "CAXTON_API_KEY",
        hide_env_values = true,
        help_heading = "Common"
    )]
    pub(super) api_key: Option<String>,
    /// Do without the embedding model: search by words only
    #[arg(long, global = true, help_heading = "Common")]
    pub(super) keyword_only: bool,
    /// Folder that has the embedding model's files; `model pull` puts them there
    #[arg(long, global = true, value_name = "DIR", help_heading = "Common")]
    pub(super) model_path: Option<PathBuf>,
    /// Print JSON instead of tables
    #[arg(long, global = true, help_heading = "Common")]
    pub(super) json: bool,
    /// Show no progress bars
    #[arg(
        long,
        global = true,
        env = "CAXTON_NO_PROGRESS",
        value_parser = clap::builder::FalseyValueParser::new(),
        help_heading = "Common"
    )]
    pub(super) no_progress: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server
    Serve(Serve),
    /// Write to and ask the memory
    #[command(subcommand)]
    Memory(MemoryCommand),
    /// Look after agents from files
    #[command(subcommand)]
    Agents(AgentsCommand),
    /// Send messages between agents
    #[command(subcommand)]
    Message(MessageCommand),
    /// Look at what agents say to each other
    #[command(subcommand)]
    Conversations(ConversationsCommand),
    /// Look at what agents offer, and who would be asked
    #[command(subcommand)]
    Capabilities(CapabilitiesCommand),
    /// Look after messages that were given up
    #[command(subcommand)]
    Deadletters(DeadLettersCommand),
    /// Talk to an agent, line by line
    #[command(after_help = "\
Examples:
  caxton chat librarian
  caxton chat librarian --as ada --conversation conv-0199…
  printf '%s\\n' 'what is gnuplot?' 'and plotutils?' | caxton chat librarian --performative query

Each line is a message, and the next one is read when its answer is there. Ctrl-D or Ctrl-C ends the chat, not the
conversation. Standard input that is no terminal is asked line by line; the exit code is 0 at its end.")]
    Chat(Chat),
    /// Make what was recorded of a scope, an agent or a conversation unreadable for good
    #[command(after_help = "\
Examples:
  caxton erase --agent ada --dry-run
  caxton erase --agent ada --yes --reason 'asked to be forgotten' --out receipt.txt
  caxton erase --conversation conv-0199… --yes
  caxton erase check-receipt receipt.txt

What is erased stays in the log as places without content: `caxton log verify` and proofs hold as before. See
docs/erasure.md for what this covers and what not.")]
    Erase(Erase),
    /// Take the log, the memory or conversations elsewhere: JSON lines, Parquet, SQLite
    #[command(subcommand)]
    Export(ExportCommand),
    /// Bring an exported log in
    #[command(subcommand)]
    Import(ImportCommand),
    /// Look at the event log
    #[command(subcommand)]
    Log(LogCommand),
    /// Find out who did what, when and why
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Read the log again: how fast, and into fresh projections
    #[command(after_help = replay::EXAMPLES)]
    Replay(Replay),
    /// Look after what is folded from the log
    #[command(subcommand)]
    Projection(ProjectionCommand),
    /// Back up the log with the files of agents and the configuration, or add to a backup
    #[command(after_help = "\
Examples:
  caxton backup --to /backups/caxton           the first time everything, then what is new
  caxton backup verify /backups/caxton
  caxton restore --from /backups/caxton --to ./restored

With a running server the backup is streamed while it goes on; everything acknowledged before is in it. docs/backup.md says
more.")]
    Backup(Backup),
    /// Make a data directory of a backup, whole or up to a point
    #[command(after_help = "\
Examples:
  caxton restore --from /backups/caxton --to ./restored
  caxton restore --from /backups/caxton --to ./before --to-time 2026-11-28T14:05:00Z

With its end left out the log gets another id: two histories never go by one name. docs/backup.md says more.")]
    Restore(Restore),
    /// Measure a server as its users see it
    #[command(
        subcommand,
        after_help = "\
Examples:
  caxton benchmark memory --entities 10000 --search-queries 1000 --html memory.html
  caxton benchmark agents --agents 20 --conversations-per-second 100 --duration 60s --output base.json
  caxton benchmark compare base.json current.json --threshold 0.1

Without --target a server is started on a folder of its own, which is removed at the end. The exit code does not depend on
grades: only `compare` ends with 1 for what became worse. docs/benchmark.md says what is measured and how."
    )]
    Benchmark(BenchmarkCommand),
    /// Get the embedding model
    #[command(subcommand)]
    Model(ModelCommand),
    /// Turn a text into a vector
    Embed(EmbedText),
    /// Check, show or explain the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say how a server is doing
    Status,
    /// Make keys for the REST API
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make real input from what this machine knows about its packages
    #[command(subcommand)]
    Corpus(CorpusCommand),
    /// Print completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Args;
    use crate::config::{format_duration, parse_duration};

    /// The defaults of flags that take a time, in a command and those below it, each with its flag.
    fn times(command: &clap::Command, found: &mut Vec<(String, String)>) {
        for flag in command.get_arguments() {
            let names = flag.get_value_names().unwrap_or_default();
            if names.iter().any(|name| name.as_str() == "TIME") {
                let place = format!("{} --{}", command.get_name(), flag.get_id());
                let defaults = flag.get_default_values().iter();
                found.extend(defaults.map(|value| (place.clone(), value.to_string_lossy().into_owned())));
            }
        }
        command.get_subcommands().for_each(|below| times(below, found));
    }

    #[test]
    fn default_times_read_in_the_help_as_they_are_told_elsewhere() {
        let mut found = Vec::new();
        times(&Args::command(), &mut found);
        assert!(found.len() >= 11, "{found:?}");
        for (flag, default) in found {
            let told = parse_duration(&default).map(format_duration);
            assert_eq!(told, Some(default), "{flag}");
        }
    }

    #[test]
    fn every_benchmark_says_what_its_exit_code_means() {
        let args = Args::command();
        let benchmark = args.find_subcommand("benchmark").unwrap();
        let commands: Vec<_> = benchmark.get_subcommands().collect();
        assert!(commands.len() >= 7);
        for command in commands {
            let told = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let name = command.get_name();
            assert!(told.contains("Exit code 0: ") && told.contains(" 1: "), "{name}: {told}");
        }
    }
}
