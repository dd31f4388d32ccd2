//! `caxton replay` and what rescues a damaged log.

use std::path::PathBuf;

use caxton_tools::replay::Pace;
use clap::Args;

/// Examples of `caxton replay`.
pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  caxton replay                                      how fast is the log read?
  caxton replay --into ./rehearsal --to-seq 5000     projections as they were at 5000
  caxton replay --speed 10 --from-time 2026-11-23    ten times as fast as it was recorded
  caxton replay --target http://127.0.0.1:8081       the recorded load on another server

The data directory is that of a server that does not run, a backup or a copy. docs/replay.md says more.";

/// `caxton replay`
#[derive(Debug, Args)]
pub(in crate::cli) struct Replay {
    /// First position [default: 1]
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) from_seq: Option<u64>,
    /// Last position [default: the end of the log]
    #[arg(long, value_name = "SEQ")]
    pub(in crate::cli) to_seq: Option<u64>,
    /// Nothing recorded before this moment, as in 2026-11-23T14:05:00Z
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) from_time: Option<String>,
    /// Nothing recorded after this moment
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) to_time: Option<String>,
    /// Fold into fresh projections in this directory, which must be empty or new [default: into nothing]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) into: Option<PathBuf>,
    /// Decode every event and fold nothing: what is done anyway
    #[arg(long, conflicts_with = "into")]
    pub(in crate::cli) into_nothing: bool,
    /// `full`, `recorded`, or how many times as fast as recorded, as in 10 or x0.5 [default: full; recorded with --target]
    #[arg(long, value_name = "SPEED", allow_negative_numbers = true)]
    pub(in crate::cli) speed: Option<Pace>,
    /// Decode on so many threads, 1 or 2; 2 for a replay into nothing at full speed
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(in crate::cli) threads: u8,
    /// Send what the events imply to the server at this address, as requests
    #[arg(long, value_name = "URL", conflicts_with_all = ["into", "into_nothing", "threads"])]
    pub(in crate::cli) target: Option<String>,
    /// So many requests a second, whatever was recorded
    #[arg(
        long,
        value_name = "COUNT",
        requires = "target",
        conflicts_with = "speed",
        allow_negative_numbers = true,
        value_parser = rate
    )]
    pub(in crate::cli) rate: Option<f64>,
    /// Requests under way at a time
    #[arg(
        long,
        value_name = "COUNT",
        requires = "target",
        default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub(in crate::cli) in_flight: u16,
}

/// Requests a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err("write a number above 0, as in 200 or 0.5".to_owned()),
    }
}

/// `caxton log salvage`
#[derive(Debug, Args)]
pub(in crate::cli) struct LogSalvage {
    /// Directory for events.jsonl and salvage.json, which must be empty or new
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) to: PathBuf,
}
