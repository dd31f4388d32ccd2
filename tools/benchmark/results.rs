//! What a benchmark run leaves behind, as JSON that later versions can still read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caxton_events::Timestamp;
use serde::{Deserialize, Serialize};

use super::baselines::{CriterionError, LAST_RUN, read_criterion};
use super::targets::{Grade, Target};

/// Version of the form of a results file.
pub const FORMAT: u32 = 1;
/// How this program was built: `debug` or `release`.
pub const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
/// Each bound of a histogram that is kept is so many times the one before.
pub const HISTOGRAM_STEP: f64 = 1.25;

/// A stretch that begins so many seconds before the planned end, or fewer, is one of rounding.
const MOMENT: f64 = 1e-3;

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
    /// How it was built, as [`PROFILE`] has it; `None` where that is not told.
    #[serde(default)]
    pub profile: Option<String>,
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

impl Results {
    /// Those of a run of `benchmark` that has found nothing yet, made nobody knows where and when.
    pub fn new(benchmark: &str) -> Self {
        Self {
            format: FORMAT,
            benchmark: benchmark.to_owned(),
            settings: Vec::new(),
            target: None,
            version: String::new(),
            profile: None,
            started_at: Timestamp::EPOCH,
            machine: Machine::default(),
            parts: Vec::new(),
            figures: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Keeps a figure. One that came to no number is told in a remark instead: JSON has no way to write it, and a file with it
    /// could not be read again.
    pub fn keep(&mut self, mut figure: Figure) {
        if figure.value.is_finite() {
            figure.samples.retain(|sample| sample.is_finite());
            self.figures.push(figure);
        } else {
            self.remarks.push(format!("{} came to no number and is left out", figure.name));
        }
    }
}

/// A flag and its value, which is `true` or `false` for a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As it is typed, without the dashes.
    pub flag: String,
    /// Its value.
    pub value: String,
}

impl Setting {
    /// As it is typed: a switch without a value; `None` for one that was not given.
    pub fn typed(&self) -> Option<String> {
        let Self { flag, value } = self;
        match value.as_str() {
            "true" => Some(format!("--{flag}")),
            "false" => None,
            value => Some(format!("--{flag} {value}")),
        }
    }
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

impl Machine {
    /// This one. What the system does not tell is empty or 0.
    pub fn here() -> Self {
        let line = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches([' ', '\t', ':']).trim().to_owned()
        };
        let kilobytes = line("/proc/meminfo", "MemTotal");
        Self {
            processor: line("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u64),
            memory_bytes: kilobytes.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1_024,
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
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
    /// Time at its beginning in which the rate grew to what was asked, in seconds.
    #[serde(default)]
    pub ramp_up_seconds: f64,
    /// Operations that were to be sent each second; `None` when each waited for the one before.
    pub offered_per_second: Option<f64>,
    /// How long they were to be sent, in seconds; `None` when each waited for the one before.
    #[serde(default)]
    pub planned_seconds: Option<f64>,
    /// Operations done each second; of those that were to be sent for some time, the ones that were done by its end.
    pub per_second: f64,
    /// From the moment an operation was due to its answer; without a rate, from the moment it was sent.
    pub latency: Option<Percentiles>,
    /// How it went over time.
    pub intervals: Vec<Interval>,
    /// Counts of latencies by their upper bound in microseconds, ascending by [`HISTOGRAM_STEP`] from 1 on; empty ones left out.
    pub histogram: Vec<(f64, u64)>,
}

impl Part {
    /// Share of operations that were done, 0 to 1.
    pub fn success(&self) -> f64 {
        let failed: u64 = self.failed.values().sum();
        let all = self.done + failed;
        if all == 0 { 0.0 } else { self.done as f64 / all as f64 }
    }

    /// Its stretches at the full rate.
    pub fn at_full_rate(&self) -> &[Interval] {
        let from = self.intervals.partition_point(|interval| interval.at < self.ramp_up_seconds);
        &self.intervals[from..]
    }

    /// Those of them that began before the planned end: what was answered behind it was late.
    pub fn until_planned_end(&self) -> &[Interval] {
        let stretches = self.at_full_rate();
        let Some(ends) = self.planned_seconds else { return stretches };
        &stretches[..stretches.partition_point(|stretch| stretch.at + MOMENT < ends)]
    }
}

impl Interval {
    /// Operations done each second.
    pub fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.done as f64 / self.seconds } else { 0.0 }
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
    /// Its 90th percentile.
    #[serde(default)]
    pub p90: f64,
    /// Its 95th.
    #[serde(default)]
    pub p95: f64,
    /// Its 99th.
    pub p99: f64,
    /// Its 99.9th.
    #[serde(default)]
    pub p999: f64,
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

/// Which middle of its samples a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Middle {
    /// Their mean, or what stands for all of them.
    #[default]
    Mean,
    /// The one in the middle: a few that took long do not move it.
    Median,
}

/// The value in the middle, between two the mean of both; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
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
    /// How many of them are of each round, where they are of several: a round is a run of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<usize>,
    /// Which middle of them the number is.
    #[serde(default)]
    pub middle: Middle,
    /// What is good enough, where that is said.
    #[serde(default)]
    pub target: Option<Target>,
    /// How it does against the target.
    #[serde(default)]
    pub grade: Option<Grade>,
    /// The smallest change that counts, in its unit: what is near 0 grows to a multiple of itself by chance.
    #[serde(default)]
    pub least_change: f64,
}

impl Figure {
    /// A number, graded where there is a target.
    pub fn new(name: impl Into<String>, value: f64, unit: &str, better: Better) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.to_owned(),
            better,
            samples: Vec::new(),
            rounds: Vec::new(),
            middle: Middle::Mean,
            target: None,
            grade: None,
            least_change: 0.0,
        }
    }

    /// With the same number for each stretch of the run.
    #[must_use]
    pub fn over(mut self, samples: impl IntoIterator<Item = f64>) -> Self {
        self.samples = samples.into_iter().collect();
        self
    }

    /// With samples of several rounds, one behind the other; those of a single round are as those of a run.
    #[must_use]
    pub fn over_rounds(mut self, rounds: Vec<Vec<f64>>) -> Self {
        self.rounds = if rounds.len() > 1 { rounds.iter().map(Vec::len).collect() } else { Vec::new() };
        self.over(rounds.into_iter().flatten())
    }

    /// As the median of its samples.
    #[must_use]
    pub const fn by_median(mut self) -> Self {
        self.middle = Middle::Median;
        self
    }

    /// Whose changes count from so much on, in its unit.
    #[must_use]
    pub const fn counting_from(mut self, least_change: f64) -> Self {
        self.least_change = least_change;
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
        let settings: Vec<String> = self.settings.iter().filter_map(Setting::typed).collect();
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
    #[error("could not read {}; name a file that a benchmark wrote with --output, or a folder of criterion as in target/criterion:main", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{} is empty; run the benchmark again with --output {}", path.display(), path.display())]
    Empty {
        /// The file.
        path: PathBuf,
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
    /// It is a folder of criterion's.
    #[error(transparent)]
    Criterion(#[from] CriterionError),
}

/// Reads what a run left behind: a results file, or what criterion kept in a folder as `DIR`, its last run, `DIR:BASELINE` or
/// `DIR:ROUND,ROUND`, where each round counts once.
///
/// # Errors
///
/// [`ReadError`].
pub fn read_run(place: &Path) -> Result<Results, ReadError> {
    if place.is_dir() {
        return Ok(read_criterion(place, &[LAST_RUN])?);
    }
    // The name of a file may have a colon in it: a folder with a baseline is what is no file.
    let text = place.to_string_lossy();
    match text.rsplit_once(':') {
        Some((dir, names)) if !place.exists() && Path::new(dir).is_dir() => {
            let names: Vec<&str> = names.split(',').collect();
            Ok(read_criterion(Path::new(dir), &names)?)
        }
        Some(_) | None => read_results(place),
    }
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
    if text.trim_ascii().is_empty() {
        return Err(ReadError::Empty { path: path.to_owned() });
    }
    let Head { format } = serde_json::from_str(&text).map_err(form)?;
    if format > FORMAT {
        return Err(ReadError::Newer { path: path.to_owned(), found: format });
    }
    serde_json::from_str(&text).map_err(form)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Better, Figure, Interval, Part, Results, read_results};

    #[test]
    fn a_run_with_a_figure_that_is_no_number_can_be_read_again() {
        let mut results = Results::new("scenario");
        for (name, value) in [("nan", f64::NAN), ("endless", f64::INFINITY), ("number", 1.5)] {
            results.keep(Figure::new(name, value, "×", Better::Lower).over([1.0, f64::NAN, 2.0]));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), serde_json::to_string(&results).unwrap()).unwrap();
        let read = read_results(file.path()).unwrap();
        assert_eq!(read, results);
        assert_eq!((read.figures.len(), &*read.figures[0].samples), (1, &[1.0, 2.0][..]));
        assert_eq!(read.remarks.len(), 2, "{:?}", read.remarks);
    }

    #[test]
    fn stretches_behind_the_planned_end_are_those_of_late_answers() {
        let stretch = |at: u32| Interval {
            at: f64::from(at),
            seconds: 1.0,
            done: 1,
            failed: 0,
            p50: 1.0,
            p90: 1.0,
            p95: 1.0,
            p99: 1.0,
            p999: 1.0,
            max: 1.0,
        };
        let mut part = Part {
            name: "message".to_owned(),
            done: 9,
            failed: BTreeMap::new(),
            seconds: 9.0,
            ramp_up_seconds: 2.0,
            offered_per_second: None,
            planned_seconds: None,
            per_second: 1.0,
            latency: None,
            intervals: (0..9).map(stretch).collect(),
            histogram: Vec::new(),
        };
        assert_eq!(part.until_planned_end().len(), 7);
        for (ends, stretches) in [(5.0, 3), (5.000_5, 3), (5.5, 4), (100.0, 7), (1.0, 0)] {
            part.planned_seconds = Some(ends);
            assert_eq!(part.until_planned_end().len(), stretches, "{ends}");
        }
    }
}
