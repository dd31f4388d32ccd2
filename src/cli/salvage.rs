//! `caxton log verify --salvage | salvage`: what is left of a damaged log.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use caxton_events::log::{Log, OpenError, Reader};
use caxton_tools::log::{Remains, SalvageError, salvage, survey};

use super::args::{Common, LogSalvage};
use super::failure::{Exit, Failure};
use super::log;
use super::output::{Output, counted};
use super::progress::Progress;
use super::whole_output::{WholeFile, finish_all, part_of};
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
    if !is_free(dir).map_err(|error| Failure::file("read", dir, &error))? {
        let message = format!("--to: {} is not empty; name an empty or a new directory", dir.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let (mut remains, events) =
        write_events(&reader, dir, common).map_err(|failure| taken_back(dir, is_new, failure))?;
    remains.lost_end = lost_end(&remains, common)?;
    let (reported, placed) = match write_report(&remains, dir) {
        Ok(report) => (Ok(()), finish_all(vec![events, report])),
        Err(failure) => (Err(failure), finish_all(vec![events])),
    };
    let printed = out.value(&remains);
    placed.map_err(|(file, error)| unwritten(&file, &error))?;
    if let Err(failure) = reported {
        return Err(unreported(failure, told(&remains), dir));
    }
    printed?;
    told(&remains)
}

/// Whether nothing is in the directory but what a salvage left there that was killed, which is written over.
fn is_free(dir: &Path) -> io::Result<bool> {
    let left = [EVENTS_FILE, REPORT_FILE].map(|name| part_of(&dir.join(name)));
    for entry in fs::read_dir(dir)? {
        if !left.contains(&entry?.path()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes every event that can be read to a file that is not in its place yet.
fn write_events(reader: &Reader, dir: &Path, common: &Common) -> Result<(Remains, WholeFile), Failure> {
    let events = dir.join(EVENTS_FILE);
    let mut file = WholeFile::create(&events).map_err(|error| Failure::file("make", &events, &error))?;
    let mut progress = Progress::new("salvaging", "events", !common.no_progress);
    let remains = salvage(reader, &mut file, &mut |seq, head| progress.set(seq.0, head.0));
    drop(progress);
    let remains = remains.map_err(|error| match error {
        SalvageError::Write(error) => unwritten(&events, &error),
        // Without the advice to salvage: this was it.
        SalvageError::Store(_) => Failure::new(Exit::Failed, chain(&error)),
    })?;
    file.sync().map_err(|error| unwritten(&events, &error))?;
    Ok((remains, file))
}

/// Writes what is lost to a file that is not in its place yet. Half a report would be taken for a whole one.
fn write_report(remains: &Remains, dir: &Path) -> Result<WholeFile, Failure> {
    let report = dir.join(REPORT_FILE);
    let text = serde_json::to_vec_pretty(remains).map_err(io::Error::from);
    let written = text.and_then(|text| {
        let mut file = WholeFile::create(&report)?;
        file.write_all(&text)?;
        file.sync()?;
        Ok(file)
    });
    written.map_err(|error| unwritten(&report, &error))
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

/// What is said of events that did not come to their end, and would be taken for everything that can be read: they are gone.
fn taken_back(dir: &Path, is_new: bool, failure: Failure) -> Failure {
    if is_new {
        // An empty folder that stays hides nothing.
        let _ = fs::remove_dir(dir);
    }
    let message = format!("{failure}; what was written to {} is removed again", dir.display());
    failure.told(message)
}

/// The stopped log, with its end as it is. To find what there is takes as long as to read it.
fn open(common: &Common) -> Result<Reader, Failure> {
    let dir = log::known_data_dir(common)?;
    let mut progress = Progress::new("looking through", "events", !common.no_progress);
    let opened = Log::open_damaged(&dir, &mut |seq, head| progress.set(seq.0, head.0));
    drop(progress);
    opened.map_err(|error| {
        if let OpenError::Damaged { path, .. } | OpenError::Store { path, .. } = &error {
            return nothing_left(path);
        }
        let exit = if matches!(error, OpenError::Locked { .. }) { Exit::Unreachable } else { Exit::Failed };
        // Without the advice to salvage: this was it.
        Failure::new(exit, chain(&error))
    })
}

/// What is said of the log in `dir`, which is damaged, when nothing of it can be salvaged; `None` when something can. To find
/// that out takes as long as to read it.
pub(super) fn hopeless(dir: &Path, common: &Common) -> Option<Failure> {
    let mut progress = Progress::new("looking through", "events", !common.no_progress);
    match Log::open_damaged(dir, &mut |seq, head| progress.set(seq.0, head.0)) {
        Err(OpenError::Damaged { path, .. } | OpenError::Store { path, .. }) => Some(nothing_left(&path)),
        Ok(_) | Err(_) => None,
    }
}

/// What is said where not one event can be found. What the store says of such a file helps nobody.
fn nothing_left(path: &Path) -> Failure {
    let holds = match fs::metadata(path).map(|file| file.len()) {
        Ok(0) => "is empty".to_owned(),
        Ok(bytes) => format!("has {bytes} bytes, and no event of a log can be found in them"),
        Err(error) => format!("cannot be read ({error})"),
    };
    let message = format!(
        "{} is damaged or no log of Caxton's: it {holds}; there is nothing to salvage, restore a backup: \
         caxton restore --from BACKUP --to DIR",
        path.display()
    );
    Failure::new(Exit::Failed, message)
}

fn told(remains: &Remains) -> Result<(), Failure> {
    let end = (remains.missing_bytes > 0).then(|| "the end of its file is missing".to_owned());
    let structure = remains.structure_damaged.then(|| "the structure of its file".to_owned());
    let unread =
        (remains.unread_records > 0).then(|| "its write-ahead log, which could not be read".to_owned());
    let gaps = remains.lost.len();
    let gaps = (gaps > 0).then(|| format!("{} above", counted(gaps, "gap")));
    let lost = remains.lost_end.clone();
    let damage: Vec<String> =
        end.into_iter().chain(structure).chain(unread).chain(gaps).chain(lost).collect();
    if damage.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::Failed, format!("the log is damaged: {}", damage.join(", "))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;

    use super::{EVENTS_FILE, is_free};

    #[test]
    fn what_a_salvage_left_that_was_killed_is_no_hindrance_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_free(folder.path()).unwrap());
        fs::write(folder.path().join("events.jsonl.part"), "{}").unwrap();
        fs::write(folder.path().join("salvage.json.part"), "{").unwrap();
        assert!(is_free(folder.path()).unwrap());
        fs::write(folder.path().join(EVENTS_FILE), "{}").unwrap();
        assert!(!is_free(folder.path()).unwrap());
    }
}
