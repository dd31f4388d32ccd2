//! `caxton log verify --salvage | salvage`: what is left of a damaged log.

use std::fs::{self, File};
use std::io::{self, BufWriter};

use caxton_events::log::{Log, OpenError, Reader};
use caxton_tools::log::{Remains, salvage, survey};

use super::args::{Common, LogSalvage};
use super::failure::{Exit, Failure};
use super::log;
use super::output::{Output, counted};
use super::progress::Progress;
use crate::engine::lost_end::LostEnd;

/// The events, a JSON object a line.
const EVENTS_FILE: &str = "events.jsonl";
/// What is lost.
const REPORT_FILE: &str = "salvage.json";

/// Checks the whole log and names every gap.
pub(super) fn verify(common: &Common, out: &mut Output) -> Result<(), Failure> {
    let reader = open(common)?;
    let mut progress = Progress::new("verifying", "events", !common.no_progress);
    let remains = survey(&reader, &mut |seq, head| progress.set(seq.0, head.0));
    drop(progress);
    let remains = remains.map_err(|error| Failure::of(Exit::Failed, &error))?;
    out.value(&remains)?;
    told(&remains, common)
}

/// Writes what can be read to a directory.
pub(super) fn run(what: &LogSalvage, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let dir = &what.to;
    let reader = open(common)?;
    fs::create_dir_all(dir).map_err(|error| Failure::file("make", dir, &error))?;
    if fs::read_dir(dir).map_err(|error| Failure::file("read", dir, &error))?.next().is_some() {
        let message = format!("--to: {} is not empty; name an empty or a new directory", dir.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let (events, report) = (dir.join(EVENTS_FILE), dir.join(REPORT_FILE));
    let file = File::create(&events).map_err(|error| Failure::file("make", &events, &error))?;
    let mut file = BufWriter::new(file);
    let mut progress = Progress::new("salvaging", "events", !common.no_progress);
    let remains = salvage(&reader, &mut file, &mut |seq, head| progress.set(seq.0, head.0));
    drop(progress);
    let remains = remains.map_err(|error| Failure::of(Exit::Failed, &error))?;
    let text = serde_json::to_vec_pretty(&remains).map_err(io::Error::from);
    text.and_then(|text| fs::write(&report, text))
        .map_err(|error| Failure::file("write", &report, &error))?;
    file.get_ref().sync_all().map_err(|error| Failure::file("write", &events, &error))?;
    out.value(&remains)?;
    told(&remains, common)
}

/// The stopped log, with its end as it is.
fn open(common: &Common) -> Result<Reader, Failure> {
    let dir = log::known_data_dir(common)?;
    Log::open_damaged(&dir).map_err(|error| {
        let exit = if matches!(error, OpenError::Locked { .. }) { Exit::Unreachable } else { Exit::Failed };
        Failure::of(exit, &error)
    })
}

fn told(remains: &Remains, common: &Common) -> Result<(), Failure> {
    let end = (remains.missing_bytes > 0).then(|| "the end of its file is missing".to_owned());
    let gaps = remains.lost.len();
    let gaps = (gaps > 0).then(|| format!("{} above", counted(gaps, "gap")));
    let lost = LostEnd::find(&log::known_data_dir(common)?, remains.head_seq).map(|lost| lost.to_string());
    let damage: Vec<String> = end.into_iter().chain(gaps).chain(lost).collect();
    if damage.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("the log is damaged: {}", damage.join(", "))))
}
