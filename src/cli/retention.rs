//! `caxton log drop`: gives up the oldest events of a stopped data directory.

use caxton_events::log::{OpenError, TrimError, Trimmed};
use serde_json::{Value, json};

use super::args::{Common, LogDrop};
use super::failure::{Exit, Failure};
use super::output::{Output, counted};
use super::progress::Progress;
use super::{fork, setup};
use crate::engine::StartStep;
use crate::engine::fork::Cut;
use crate::engine::trim::{DropError, DropOptions, SharedFile, Trial, drop_events, would_drop};

/// What there is to say where nothing goes.
const NOTHING: &str =
    "there is nothing to drop: what lies before is in the same block as what is kept, or gone already";

/// Drops what lies before the event or time named.
pub(super) fn drop(what: &LogDrop, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let before = Cut::parse(&what.before).ok_or_else(|| {
        let text = &what.before;
        let message = format!(
            "--before {text:?} is neither a position nor a time from 1970 on; give 17 or 2026-11-28T14:05:06Z"
        );
        Failure::new(Exit::Usage, message)
    })?;
    let dir = fork::stopped(common)?;
    if what.dry_run {
        let trial = would_drop(&dir, before).map_err(|error| failed(&error))?;
        show_trial(trial.as_ref(), out)?;
        return match trial.and_then(|trial| trial.shared.into_iter().next()) {
            // Nothing would be dropped then, and that is what a trial is to find out.
            Some(SharedFile { file, forks }) if !what.forks_keep => {
                Err(fork::failed(&TrimError::Shared { file, forks }))
            }
            Some(_) | None => Ok(()),
        };
    }
    let config = setup::load(common, Vec::new())?.config;
    let options = setup::engine_options(&config, None);
    let wanted = DropOptions { before, by: what.by.clone(), forks_keep: what.forks_keep };
    let mut progress = Progress::new("saving what they led to", "events", !common.no_progress);
    let dropped = drop_events(&options, &wanted, &mut |step| match step {
        StartStep::Folding { at, of, .. } => progress.set(at.0, of.0),
        StartStep::LoadingVectors => (),
    });
    std::mem::drop(progress);
    show(dropped.map_err(|error| failed(&error))?, out)
}

/// What would be dropped. Nothing is known of its bytes but which files keep theirs.
fn show_trial(trial: Option<&Trial>, out: &mut Output) -> Result<(), Failure> {
    let shared = trial.map(|trial| trial.shared.as_slice()).unwrap_or_default();
    if out.is_json() {
        let shared_files: Vec<Value> = shared
            .iter()
            .map(|shared| json!({ "file": shared.file.display().to_string(), "forks": known(shared) }))
            .collect();
        return out.json(&json!({
            "dry_run": true,
            "events": trial.map_or(0, |trial| trial.events),
            "first_seq": trial.map(|trial| trial.first),
            "freed_bytes": null,
            "kept_bytes": null,
            "shared_files": shared_files,
        }));
    }
    let Some(Trial { first, events, .. }) = trial else { return out.line(NOTHING) };
    let events = counted(*events as usize, "event");
    out.line(format_args!("would drop {events}; the log would begin at {first}"))?;
    for shared in shared {
        let forks = known(shared);
        let who = if forks.is_empty() {
            "another data directory".to_owned()
        } else {
            format!("the fork {}", forks.join(" and the fork "))
        };
        let file = shared.file.display();
        out.line(format_args!("{file} would keep its space on the disk: it is shared with {who}"))?;
    }
    Ok(())
}

/// The directories of the forks that are known to share a file.
fn known(shared: &SharedFile) -> Vec<String> {
    shared.forks.iter().map(|fork| fork.dir.display().to_string()).collect()
}

/// What was dropped.
fn show(dropped: Option<Trimmed>, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&json!({
            "dry_run": false,
            "events": dropped.map_or(0, |dropped| dropped.events),
            "first_seq": dropped.map(|dropped| dropped.first),
            "freed_bytes": dropped.map(|dropped| dropped.freed_bytes),
            "kept_bytes": dropped.map(|dropped| dropped.kept_bytes),
            "shared_files": null,
        }));
    }
    let Some(Trimmed { first, events, freed_bytes, kept_bytes }) = dropped else { return out.line(NOTHING) };
    let events = counted(events as usize, "event");
    out.line(format_args!(
        "dropped {events}, {freed_bytes} bytes were given back; the log begins at {first}"
    ))?;
    if kept_bytes == 0 {
        return Ok(());
    }
    out.line(format_args!("{kept_bytes} bytes stay on the disk until the directories that share them let go"))
}

fn failed(error: &DropError) -> Failure {
    let exit = match error {
        DropError::Trim(error) => return fork::failed(error),
        DropError::Open(OpenError::Locked { .. }) => Exit::Unreachable,
        DropError::After { .. } => Exit::NotFound,
        DropError::Waiting { .. } | DropError::Erasing { .. } => Exit::Refused,
        DropError::Open(_)
        | DropError::Awaited
        | DropError::Read(_)
        | DropError::Start(_)
        | DropError::Store(_)
        | DropError::Base(_)
        | DropError::Append(_) => Exit::Failed,
    };
    Failure::of(exit, error)
}
