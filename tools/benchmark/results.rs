//! What a benchmark run leaves behind, as JSON that later versions can still read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caxton_events::Timestamp;
use serde::{Deserialize, Serialize};

use super::targets::{Grade, Target};

/// Version of the form of a results file.
pub const FORMAT: u32 = 1;

/// Everything that one run found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of this form: 1.
    pub format: u32,
    /// Which benchmark, as in `memory`.
    pub benchmark: String,
    /// What was asked for, by flag.
    pub settings: Vec<Setting>,
    /// Whether a server was asked over HTTP, and which; otherwise an engine in the process of the benchmark.
    pub target: Option<String>,
    /// Version of the program.
    pub version: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Where it ran.
    pub machine: Machine,
    /// What was done, one kind of operation each.
    pub parts: Vec<Part>,
    /// What is compared: one number each.
    pub figures: Vec<Figure>,
    /// What a reader should know about how it was measured.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// A flag and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As it is typed, without the dashes.
    pub flag: String,
    /// Its value.
    pub value: String,
}

/// Where a benchmark ran.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor, as the system names it.
    pub processor: String,
    /// Processors that the process may use.
    pub cores: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The operating system.
    pub system: String,
}

/// One kind of operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What was done, as in `search`.
    pub name: String,
    /// Operations answered as they should be.
    pub done: u64,
    /// Operations that were not, by why.
    pub failed: BTreeMap<String, u64>,
    /// From the first to the last answer, in seconds.
    pub seconds: f64,
    /// Operations that were to be sent each second; `None` when each waited for the one before.
    pub offered_per_second: Option<f64>,
    /// Operations done each second.
    pub per_second: f64,
    /// From the moment an operation was due to its answer; without a rate, from the moment it was sent.
    pub latency: Option<Percentiles>,
    /// How it went over time.
    pub intervals: Vec<Interval>,
    /// Counts of latencies by their upper bound in microseconds, ascending; empty ones left out.
    pub histogram: Vec<(f64, u64)>,
}

impl Part {
    /// Share of operations that were done, 0 to 1.
    pub fn success(&self) -> f64 {
        let failed: u64 = self.failed.values().sum();
        let all = self.done + failed;
        if all == 0 { 0.0 } else { self.done as f64 / all as f64 }
    }
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half took no longer.
    pub p50: f64,
    /// Nine in ten took no longer.
    pub p90: f64,
    /// 95 in a hundred took no longer.
    pub p95: f64,
    /// 99 in a hundred took no longer.
    pub p99: f64,
    /// 999 in a thousand took no longer.
    pub p999: f64,
    /// None took longer.
    pub max: f64,
}

/// A stretch of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// When it began, in seconds from the start of the part.
    pub at: f64,
    /// How long it lasted, in seconds.
    pub seconds: f64,
    /// Operations done in it.
    pub done: u64,
    /// Operations that failed in it.
    pub failed: u64,
    /// Median latency in microseconds; 0 where nothing was done.
    pub p50: f64,
    /// Its 99th percentile.
    pub p99: f64,
    /// Its longest.
    pub max: f64,
}

/// Which way a number is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
}

/// A number that can be compared with that of another run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of, as in `search p99`.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit, as in `ms`.
    pub unit: String,
    /// Which way it is better.
    pub better: Better,
    /// The same number for each stretch of the run, in order: from these comes the interval of a comparison.
    #[serde(default)]
    pub samples: Vec<f64>,
    /// What is good enough, where that is said.
    #[serde(default)]
    pub target: Option<Target>,
    /// How it does against the target.
    #[serde(default)]
    pub grade: Option<Grade>,
}

impl Figure {
    /// A number, graded where there is a target.
    pub fn new(name: impl Into<String>, value: f64, unit: &str, better: Better) -> Self {
        let samples = Vec::new();
        Self { name: name.into(), value, unit: unit.to_owned(), better, samples, target: None, grade: None }
    }

    /// With the same number for each stretch of the run.
    #[must_use]
    pub fn over(mut self, samples: impl IntoIterator<Item = f64>) -> Self {
        self.samples = samples.into_iter().collect();
        self
    }

    /// Against a target.
    #[must_use]
    pub fn against(mut self, target: Target) -> Self {
        self.grade = Some(target.grade(self.value, self.better));
        self.target = Some(target);
        self
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, .. } = &self.machine;
        let settings: Vec<String> =
            self.settings.iter().map(|Setting { flag, value }| format!("--{flag} {value}")).collect();
        writeln!(f, "benchmark {} {}", self.benchmark, settings.join(" "))?;
        writeln!(f, "caxton {} on {processor}, {cores} cores", self.version)?;
        for remark in &self.remarks {
            writeln!(f, "{remark}")?;
        }
        Ok(())
    }
}

/// Why a results file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be opened.
    #[error("could not read {}; name a file that a benchmark wrote with --output", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} is no results file of a benchmark (line {line}, column {column}); run the benchmark again", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where it ends to be one.
        line: usize,
        /// And in that line.
        column: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A newer program wrote it.
    #[error("{} has format {found}, this program reads up to {FORMAT}; compare with the newer program", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// Reads a results file.
///
/// # Errors
///
/// [`ReadError`].
pub fn read_results(path: &Path) -> Result<Results, ReadError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let form = |source: serde_json::Error| ReadError::Form {
        path: path.to_owned(),
        line: source.line(),
        column: source.column(),
        source,
    };
    let text = fs::read_to_string(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let Head { format } = serde_json::from_str(&text).map_err(form)?;
    if format > FORMAT {
        return Err(ReadError::Newer { path: path.to_owned(), found: format });
    }
    serde_json::from_str(&text).map_err(form)
}
