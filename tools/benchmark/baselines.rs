//! What criterion leaves behind, as results that can be compared.
//!
//! `DIR/GROUP/FUNCTION/PARAMETER/BASELINE/` holds `benchmark.json` (what was measured) and `sample.json` (iterations and
//! nanoseconds of each sample); groups without functions or parameters have fewer folders. A baseline is named with
//! `--save-baseline`; the last run is the baseline `new`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caxton_events::Timestamp;
use serde::Deserialize;

use super::results::{Better, Figure, Results};

/// The baseline that criterion writes in each run.
pub const LAST_RUN: &str = "new";
/// Folders below the first that may hold a benchmark, the baseline's own included.
const DEPTH_MAX: usize = 5;
/// Unit of the figures.
const UNIT: &str = "µs";

/// Why criterion's files were not read.
#[derive(Debug, thiserror::Error)]
pub enum CriterionError {
    /// A file or a folder could not be read.
    #[error("could not read {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{} is not what criterion 0.8 writes (line {line}, column {column}); run the bench again", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where it ends to be that.
        line: usize,
        /// And in that line.
        column: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Samples that say no time.
    #[error("{}: {samples} counts of iterations and {times} times, each must be above 0; run the bench again", path.display())]
    Samples {
        /// The file.
        path: PathBuf,
        /// Counts of iterations in it.
        samples: usize,
        /// Times in it.
        times: usize,
    },
    /// Nothing in the folder has this baseline.
    #[error("{} has no baseline {name:?}, only {}; run the bench with --save-baseline {name}", dir.display(), listed(found))]
    Unknown {
        /// The folder.
        dir: PathBuf,
        /// The baseline.
        name: String,
        /// Those that are there.
        found: Vec<String>,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "nothing that criterion wrote".to_owned() } else { names.join(", ") }
}

/// `benchmark.json`, as far as it is used.
#[derive(Deserialize)]
struct Benchmark {
    full_id: String,
}

/// `sample.json`, as far as it is used.
#[derive(Deserialize)]
struct Sample {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// A benchmark under one baseline.
struct Found {
    baseline: String,
    folder: PathBuf,
}

/// Reads what criterion kept below `dir` under these baselines, as one run: the samples of several baselines, of one round
/// each, follow each other in this order. A baseline that is named twice is one round: twice the same would look as if rounds never
/// differed. Each benchmark becomes a figure, the median time of an iteration.
///
/// # Errors
///
/// [`CriterionError`]; also when one of the baselines stands nowhere below `dir`.
pub fn read_criterion(dir: &Path, baselines: &[&str]) -> Result<Results, CriterionError> {
    let mut found = Vec::new();
    collect(dir, DEPTH_MAX, &mut found)?;
    let known: BTreeSet<&str> = found.iter().map(|found| found.baseline.as_str()).collect();
    if let Some(name) = baselines.iter().find(|name| !known.contains(**name)) {
        return Err(CriterionError::Unknown {
            dir: dir.to_owned(),
            name: (*name).to_owned(),
            found: known.into_iter().map(str::to_owned).collect(),
        });
    }
    let mut micros: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
    let mut started_at = None;
    for (at, baseline) in baselines.iter().enumerate() {
        if baselines[..at].contains(baseline) {
            continue;
        }
        for Found { folder, .. } in found.iter().filter(|found| found.baseline == **baseline) {
            let Benchmark { full_id } = read(&folder.join("benchmark.json"))?;
            micros.entry(full_id).or_default().push(samples(&folder.join("sample.json"))?);
            let written = modified(&folder.join("sample.json"))?;
            started_at = Some(started_at.map_or(written, |first: Timestamp| first.min(written)));
        }
    }
    let figure = |(name, rounds): (String, Vec<Vec<f64>>)| {
        let median = super::results::median(&rounds.concat());
        Figure::new(name, median, UNIT, Better::Lower).over_rounds(rounds).by_median()
    };
    Ok(Results {
        version: "not told by criterion".to_owned(),
        started_at: started_at.unwrap_or(Timestamp::EPOCH),
        figures: micros.into_iter().map(figure).collect(),
        remarks: vec![format!("criterion in {}, {}", dir.display(), baselines.join(", "))],
        ..Results::new("criterion")
    })
}

/// Adds every folder of a benchmark and a baseline below `dir`, in the order of their names.
fn collect(dir: &Path, depth: usize, found: &mut Vec<Found>) -> Result<(), CriterionError> {
    let io = |source| CriterionError::Io { path: dir.to_owned(), source };
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_type().map_err(io)?.is_dir() {
            folders.push(entry.path());
        }
    }
    folders.sort();
    for folder in folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if folder.join("benchmark.json").is_file() {
            found.push(Found { baseline: name, folder });
        } else if depth > 1 {
            collect(&folder, depth - 1, found)?;
        }
    }
    Ok(())
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, CriterionError> {
    let text =
        fs::read_to_string(path).map_err(|source| CriterionError::Io { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| CriterionError::Form {
        path: path.to_owned(),
        line: source.line(),
        column: source.column(),
        source,
    })
}

/// Microseconds of an iteration in each sample, in order.
fn samples(path: &Path) -> Result<Vec<f64>, CriterionError> {
    let Sample { iters, times } = read(path)?;
    let positive = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite() && *number > 0.0);
    if iters.is_empty() || iters.len() != times.len() || !positive(&iters) || !positive(&times) {
        let (samples, times) = (iters.len(), times.len());
        return Err(CriterionError::Samples { path: path.to_owned(), samples, times });
    }
    Ok(iters.iter().zip(&times).map(|(iterations, nanos)| nanos / iterations / 1e3).collect())
}

fn modified(path: &Path) -> Result<Timestamp, CriterionError> {
    let modified = fs::metadata(path).and_then(|file| file.modified());
    let modified = modified.map_err(|source| CriterionError::Io { path: path.to_owned(), source })?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp::from_unix_micros(u64::try_from(since.as_micros()).unwrap_or_default()))
}

#[cfg(test)]
#[path = "baselines_tests.rs"]
mod tests;
