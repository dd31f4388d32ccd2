//! Benchmarks by criterion, whose baselines are kept and compared: when they run, for how long, and where.
//!
//! Each bench has programs of its own too, which are asked for by flags that criterion does not know.

#![allow(dead_code, reason = "each bench uses its part")]

pub(crate) mod asked;
pub(crate) mod memory;

use std::time::Duration;

use criterion::Criterion;
use tempfile::TempDir;

/// Long enough for ten benchmarks in half a minute; flags such as `--measurement-time` change it.
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
const SAMPLES: usize = 20;
/// Draws of criterion's own bootstrap: with its default the analysis takes as long as the samples.
const RESAMPLES: usize = 10_000;

/// Whether a program of the bench's own is asked for: one of these flags, or with `numbers` a plain number that is no flag's value.
pub(crate) fn asks_for_own(flags: &[&str], numbers: bool) -> bool {
    asked::for_own(std::env::args().skip(1), flags, numbers)
}

/// Criterion as the command line has it.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURED)
        .nresamples(RESAMPLES)
        .without_plots()
        .configure_from_args()
}

/// A folder below `target`, which is on the disk that is to be measured; dropped, it is gone.
pub(crate) fn scratch() -> TempDir {
    std::fs::create_dir_all("target").unwrap();
    tempfile::Builder::new().prefix("bench-").tempdir_in("target").unwrap()
}
