//! The commands that measure.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::KeyValue;

/// Days that a time has at the most. It is far longer than any of the loads, and short enough to be added to others.
const DAYS_MAX: u64 = 30;

/// A time, as in `300s`, `5m` or `24h`.
fn duration(text: &str) -> Result<Duration, String> {
    let lasts = bounded(text, "300s, 5m or 24h")?;
    if lasts.is_zero() {
        return Err("must be longer than nothing; write it as in 300s, 5m or 24h".to_owned());
    }
    Ok(lasts)
}

/// The same, and nothing at all.
fn duration_or_none(text: &str) -> Result<Duration, String> {
    bounded(text, "5s or 0s")
}

/// A time that is not too long, which is written as in `examples`.
fn bounded(text: &str, examples: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(lasts) if lasts > Duration::from_hours(24 * DAYS_MAX) => {
            Err(format!("must be {DAYS_MAX} days at the most; write it as in {examples}"))
        }
        Ok(lasts) => Ok(lasts),
        Err(error) => Err(format!("{error}; write it as in {examples}")),
    }
}

/// A rate: 0 for none.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && (0.0..=10_000_000.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("must be a number from 0 to 10000000, operations a second".to_owned()),
    }
}

/// A rate at which something is done.
fn rate_above_0(text: &str) -> Result<f64, String> {
    match rate(text) {
        Ok(rate) if rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("must be a number above 0, up to 10000000, operations a second".to_owned()),
    }
}

/// A share. Of what is better the higher it is, nothing can get lost but all of it: with 1 it never became worse.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => {
            Err("must be a share from 0 to less than 1, as in 0.1 for a tenth; no rate falls by more than all of it".to_owned())
        }
    }
}

/// What the exit code of a run says.
const RUN_EXIT_CODES: &str = "\
Exit code 0: it was measured, whatever the grades: `critical` and `fail` are findings. 1: it could not be measured, or
nothing at all was done of an operation. Others as for every command. Scripts that want to fail for a server that became
slower ask `caxton benchmark compare`.";

/// Commands that measure.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum BenchmarkCommand {
    /// Write a memory of some size, and ask it by meaning, by words, by both and along its relations
    #[command(after_help = RUN_EXIT_CODES)]
    Memory(BenchmarkMemory),
    /// Talk to agents from files at a given rate
    #[command(after_help = RUN_EXIT_CODES)]
    Agents(BenchmarkAgents),
    /// Turn texts into vectors, alone and in batches
    #[command(after_help = RUN_EXIT_CODES)]
    Embeddings(BenchmarkEmbeddings),
    /// Write and read the store at given rates, side by side
    #[command(after_help = RUN_EXIT_CODES)]
    Storage(BenchmarkStorage),
    /// Everything at once: agents, messages, memory, what it takes, where it ends, how it comes back
    #[command(after_help = RUN_EXIT_CODES)]
    System(BenchmarkSystem),
    /// One of three loads of messages: a peak, a long steady one, a burst
    #[command(after_help = RUN_EXIT_CODES)]
    Scenario(BenchmarkScenario),
    /// Find out what a key of the configuration changes, in runs that take turns
    #[command(
        after_help = "    caxton benchmark effect memory.sqlite_config.synchronous=full -- storage --duration 10s\n\n\
            runs `benchmark storage --duration 10s` ten times, every other time with the key set, and tells for each figure what\n\
            changed and within which bounds. Flags of the benchmark stand behind `--`.\n\n\
            Exit code 0: it was measured, whatever it changes. 1: it could not be measured, or nothing at all was done of an\n\
            operation. 2: there is no such key, it has this value already, or it would change nothing. Others as for every\n\
            command."
    )]
    Effect(BenchmarkEffect),
    /// Set two runs side by side and find what became worse
    #[command(
        after_help = "A run is a file that --output wrote, or what `cargo bench` left behind: target/criterion is its last run,\n\
            target/criterion:main what it kept with --save-baseline main, target/criterion:a,b both as rounds of one run.\n\n\
            Exit code 0: nothing is surely worse beyond the threshold. 1: something is, or the run now lacks a figure of the one\n\
            before. 2: a run could not be read, they are of two benchmarks, no figure is in both, or the file to write is there\n\
            already."
    )]
    Compare(BenchmarkCompare),
}

impl BenchmarkCommand {
    /// The flags that every benchmark has; `None` of what sets others side by side.
    pub(in crate::cli) const fn place(&self) -> Option<&BenchmarkPlace> {
        match self {
            Self::Memory(what) => Some(&what.place),
            Self::Agents(what) => Some(&what.place),
            Self::Embeddings(what) => Some(&what.place),
            Self::Storage(what) => Some(&what.place),
            Self::System(what) => Some(&what.place),
            Self::Scenario(what) => Some(&what.place),
            Self::Effect(_) | Self::Compare(_) => None,
        }
    }
}

/// Flags of every benchmark.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct BenchmarkPlace {
    /// Measure the server at this address instead of one that is started for it
    #[arg(long, value_name = "URL", help_heading = "Measuring")]
    pub(in crate::cli) target: Option<String>,
    /// Connections, each of which has one request under way [default: 32 where there is a rate, else one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096), help_heading = "Measuring")]
    pub(in crate::cli) connections: Option<u16>,
    /// Time in which a rate is reached
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration_or_none, help_heading = "Measuring")]
    pub(in crate::cli) ramp_up: Duration,
    /// Show each stretch of the run, a second long unless the run is longer than ten minutes
    #[arg(long, help_heading = "Measuring")]
    pub(in crate::cli) intervals: bool,
    /// Where the folder of the started server is made; it is removed at the end [default: the system's folder for such]
    #[arg(long, value_name = "DIR", help_heading = "Measuring")]
    pub(in crate::cli) dir: Option<PathBuf>,
    /// Write the results as JSON, for `benchmark compare`
    #[arg(long, value_name = "FILE", help_heading = "Measuring")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE", help_heading = "Measuring")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long, help_heading = "Measuring")]
    pub(in crate::cli) force: bool,
}

/// `caxton benchmark memory`
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchmarkMemory {
    /// Entities, each with three observations
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub(in crate::cli) entities: u64,
    /// Relations between them
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    pub(in crate::cli) relations: u64,
    /// Searches of each kind
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) search_queries: u64,
    /// Time that each kind of search takes at the most
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(in crate::cli) duration: Duration,
    #[command(flatten)]
    pub(in crate::cli) place: BenchmarkPlace,
}

/// `caxton benchmark agents`
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchmarkAgents {
    /// Agents from files
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(in crate::cli) agents: u64,
    /// Questions a second, each in a conversation of its own
    #[arg(long, value_name = "RATE", default_value = "100", value_parser = rate_above_0, allow_negative_numbers = true)]
    pub(in crate::cli) conversations_per_second: f64,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(in crate::cli) duration: Duration,
    /// Time that an answer may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(in crate::cli) response_timeout: Duration,
    #[command(flatten)]
    pub(in crate::cli) place: BenchmarkPlace,
}

/// `caxton benchmark embeddings`
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchmarkEmbeddings {
    /// Texts in a request
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=2048))]
    pub(in crate::cli) batch_size: u64,
    /// Texts in all
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) total_embeddings: u64,
    /// Requests under way at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(in crate::cli) parallel_threads: u16,
    /// Time that it takes at the most [default: as long as it takes]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) duration: Option<Duration>,
    #[command(flatten)]
    pub(in crate::cli) place: BenchmarkPlace,
}

/// `caxton benchmark storage`
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchmarkStorage {
    /// Observations written a second, each durable when it is answered
    #[arg(long, value_name = "RATE", default_value = "1000", value_parser = rate, allow_negative_numbers = true)]
    pub(in crate::cli) write_ops_per_second: f64,
    /// Entities read a second
    #[arg(long, value_name = "RATE", default_value = "5000", value_parser = rate, allow_negative_numbers = true)]
    pub(in crate::cli) read_ops_per_second: f64,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(in crate::cli) duration: Duration,
    #[command(flatten)]
    pub(in crate::cli) place: BenchmarkPlace,
}

/// `caxton benchmark system`
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchmarkSystem {
    /// Agents
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    pub(in crate::cli) agents: u64,
    /// Entities in memory, each with three observations
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub(in crate::cli) memory_entities: u64,
    /// Conversations that messages belong to
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(in crate::cli) concurrent_conversations: u64,
    /// Find the highest rate of messages that meets the targets; each rate is tried for 5 s behind --ramp-up, in a row of its own
    #[arg(long)]
    pub(in crate::cli) find_limits: bool,
    /// How long each part takes
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(in crate::cli) duration: Duration,
    /// Messages a second where latency is measured
    #[arg(long, value_name = "RATE", default_value = "1000", value_parser = rate, allow_negative_numbers = true)]
    pub(in crate::cli) rate: f64,
    #[command(flatten)]
    pub(in crate::cli) place: BenchmarkPlace,
}

/// The loads of the performance guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ScenarioName {
    /// 1,000 agents, 100,000 messages a second of 1 KB, 5 minutes
    Peak,
    /// 100 agents, 10,000 messages a second of 512 bytes, 24 hours
    Sustained,
    /// 1,000 messages a second, then 50,000 for 10 seconds, then 1,000 again
    Burst,
}

impl ScenarioName {
    /// As it is typed.
    pub(in crate::cli) const fn name(self) -> &'static str {
        match self {
            Self::Peak => "peak",
            Self::Sustained => "sustained",
            Self::Burst => "burst",
        }
    }
}

/// `caxton benchmark scenario`
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchmarkScenario {
    /// Which
    pub(in crate::cli) name: ScenarioName,
    /// How long, a burst from 25s to 10m [default: 5m for peak, 24h for sustained, 50s for burst]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(in crate::cli) duration: Option<Duration>,
    /// Messages in a request
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(in crate::cli) batch: u64,
    #[command(flatten)]
    pub(in crate::cli) place: BenchmarkPlace,
}

/// `caxton benchmark effect`
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchmarkEffect {
    /// What is set in every other run, all of it together
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = KeyValue::typed)]
    pub(in crate::cli) with: Vec<KeyValue>,
    /// Runs on each side
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub(in crate::cli) rounds: u16,
    /// Share by which a figure must differ to be told as better or worse
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = share, allow_negative_numbers = true)]
    pub(in crate::cli) threshold: f64,
    /// The benchmark with its flags
    #[arg(last = true, required = true, value_name = "BENCHMARK")]
    pub(in crate::cli) of: Vec<String>,
}

/// `caxton benchmark compare`
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchmarkCompare {
    /// The run before: a results file, or DIR:BASELINE of criterion
    pub(in crate::cli) base: PathBuf,
    /// The run now
    pub(in crate::cli) current: PathBuf,
    /// Share by which something must be worse to count
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = share, allow_negative_numbers = true)]
    pub(in crate::cli) threshold: f64,
    /// Let the run now lack figures that the one before has
    #[arg(long)]
    pub(in crate::cli) allow_missing: bool,
    /// Write what was found as Markdown, for a comment
    #[arg(long, visible_alias = "report", value_name = "FILE")]
    pub(in crate::cli) markdown: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
}
