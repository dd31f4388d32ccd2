//! `caxton log verify --salvage | salvage`: what is left of a damaged log.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use caxton_events::log::{Log, OpenError, Reader};
use caxton_tools::log::{Remains, SalvageError, salvage, survey};

use super::args::{Common, LogSalvage};
use super::failure::{Exit, Failure};
use super::log;
use super::output::{Output, counted};
use super::progress::Progress;
use crate::engine::lost_end::LostEnd;
use crate::failure::chain;

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
    let mut remains = remains.map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
    remains.lost_end = lost_end(&remains, common)?;
    out.value(&remains)?;
    told(&remains)
}

/// What shows that the end of the log is lost, if anything beside it does.
fn lost_end(remains: &Remains, common: &Common) -> Result<Option<String>, Failure> {
    let dir = log::known_data_dir(common)?;
    Ok(LostEnd::find(&dir, remains.head_seq).map(|lost| lost.to_string()))
}

/// Writes what can be read to a directory.
pub(super) fn run(what: &LogSalvage, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let dir = &what.to;
    let reader = open(common)?;
    let is_new = !dir.exists();
    fs::create_dir_all(dir).map_err(|error| Failure::file("make", dir, &error))?;
    if fs::read_dir(dir).map_err(|error| Failure::file("read", dir, &error))?.next().is_some() {
        let message = format!("--to: {} is not empty; name an empty or a new directory", dir.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut remains =
        write_events(&reader, dir, common).map_err(|failure| taken_back(dir, is_new, failure))?;
    remains.lost_end = lost_end(&remains, common)?;
    let reported = write_report(&remains, dir);
    let printed = out.value(&remains);
    if let Err(failure) = reported {
        return Err(unreported(failure, told(&remains), dir));
    }
    printed?;
    told(&remains)
}

/// Writes every event that can be read.
fn write_events(reader: &Reader, dir: &Path, common: &Common) -> Result<Remains, Failure> {
    let events = dir.join(EVENTS_FILE);
    let file = File::create(&events).map_err(|error| Failure::file("make", &events, &error))?;
    let mut file = BufWriter::new(file);
    let mut progress = Progress::new("salvaging", "events", !common.no_progress);
    let remains = salvage(reader, &mut file, &mut |seq, head| progress.set(seq.0, head.0));
    drop(progress);
    let remains = remains.map_err(|error| match error {
        SalvageError::Write(error) => unwritten(&events, &error),
        // Without the advice to salvage: this was it.
        SalvageError::Store(_) => Failure::new(Exit::Failed, chain(&error)),
    })?;
    file.get_ref().sync_all().map_err(|error| unwritten(&events, &error))?;
    Ok(remains)
}

/// Writes what is lost.
fn write_report(remains: &Remains, dir: &Path) -> Result<(), Failure> {
    let report = dir.join(REPORT_FILE);
    let text = serde_json::to_vec_pretty(remains).map_err(io::Error::from);
    text.and_then(|text| fs::write(&report, text)).map_err(|error| {
        // Half a report would be taken for a whole one; the failure names it, whether it can be removed or not.
        let _ = fs::remove_file(&report);
        unwritten(&report, &error)
    })
}

fn unwritten(file: &Path, error: &io::Error) -> Failure {
    let failure = Failure::file("write", file, error);
    let message = format!("{failure}; name a place with room for it with --to");
    failure.told(message)
}

/// What is said where the events are all there and the report is not. They stay: the medium may not give them again.
fn unreported(failure: Failure, found: Result<(), Failure>, dir: &Path) -> Failure {
    let events = dir.join(EVENTS_FILE);
    let damage = found.err().map_or_else(String::new, |damage| format!("; {damage}"));
    let message =
        format!("{failure}; {} is whole, and the report stands on standard output{damage}", events.display());
    failure.told(message)
}

/// Removes events that did not come to their end: they would be taken for everything that can be read.
fn taken_back(dir: &Path, is_new: bool, failure: Failure) -> Failure {
    let events = dir.join(EVENTS_FILE);
    let removed = fs::remove_file(&events);
    if is_new {
        // An empty folder that stays hides nothing.
        let _ = fs::remove_dir(dir);
    }
    let message = match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            format!("{failure}; {} is not complete, and could not be removed", events.display())
        }
        Ok(()) | Err(_) => format!("{failure}; what was written to {} is removed again", dir.display()),
    };
    failure.told(message)
}

/// The stopped log, with its end as it is. To find what there is takes as long as to read it.
fn open(common: &Common) -> Result<Reader, Failure> {
    let dir = log::known_data_dir(common)?;
    let mut progress = Progress::new("looking through", "events", !common.no_progress);
    let opened = Log::open_damaged(&dir, &mut |seq, head| progress.set(seq.0, head.0));
    drop(progress);
    opened.map_err(|error| {
        let exit = if matches!(error, OpenError::Locked { .. }) { Exit::Unreachable } else { Exit::Failed };
        // Without the advice to salvage: this was it.
        Failure::new(exit, chain(&error))
    })
}

fn told(remains: &Remains) -> Result<(), Failure> {
    let end = (remains.missing_bytes > 0).then(|| "the end of its file is missing".to_owned());
    let structure = remains.structure_damaged.then(|| "the structure of its file".to_owned());
    let gaps = remains.lost.len();
    let gaps = (gaps > 0).then(|| format!("{} above", counted(gaps, "gap")));
    let lost = remains.lost_end.clone();
    let damage: Vec<String> = end.into_iter().chain(structure).chain(gaps).chain(lost).collect();
    if damage.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("the log is damaged: {}", damage.join(", "))))
}
