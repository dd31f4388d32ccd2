//! `caxton log drop`: gives up the oldest events of a stopped data directory.

use std::path::Path;

use caxton_events::Seq;
use caxton_events::log::{Log, OpenError, TrimError, Trimmed, check_unshared};
use serde_json::json;

use super::args::{Common, LogDrop};
use super::failure::{Exit, Failure};
use super::output::{Output, counted};
use super::progress::Progress;
use super::{fork, setup};
use crate::engine::StartStep;
use crate::engine::fork::Cut;
use crate::engine::trim::{DropError, DropOptions, drop_events, would_drop};

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
        let found = would_drop(&dir, before).map_err(|error| failed(&error))?;
        let shared = found.map(|(first, _)| shared(&dir, first)).transpose()?.flatten();
        let found = found.map(|(first, events)| Trimmed { first, events, freed_bytes: 0, kept_bytes: 0 });
        show(found, true, shared.as_ref(), out)?;
        return match shared {
            // Nothing would be dropped then, and that is what a trial is to find out.
            Some(shared) if !what.forks_keep => Err(fork::failed(&shared)),
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
    show(dropped.map_err(|error| failed(&error))?, false, None, out)
}

/// What says that forks have files of what lies before `first`; `None` when none of them does.
fn shared(dir: &Path, first: Seq) -> Result<Option<TrimError>, Failure> {
    let log = Log::open_read_only(dir).map_err(|error| failed(&DropError::from(error)))?;
    match check_unshared(dir, &log, first) {
        Ok(()) => Ok(None),
        Err(shared @ TrimError::Shared { .. }) => Ok(Some(shared)),
        Err(error) => Err(fork::failed(&error)),
    }
}

/// What was dropped or, `dry`, would be: then nothing is known of its bytes but who else has them.
fn show(
    dropped: Option<Trimmed>,
    dry: bool,
    shared: Option<&TrimError>,
    out: &mut Output,
) -> Result<(), Failure> {
    let (file, forks) = match shared {
        Some(TrimError::Shared { file, forks }) => (Some(file), forks.as_slice()),
        Some(_) | None => (None, &[][..]),
    };
    let forks: Vec<String> = forks.iter().map(|fork| fork.dir.display().to_string()).collect();
    if out.is_json() {
        let done = dropped.filter(|_| !dry);
        return out.json(&json!({
            "dry_run": dry,
            "events": dropped.map_or(0, |dropped| dropped.events),
            "first_seq": dropped.map(|dropped| dropped.first),
            "freed_bytes": done.map(|done| done.freed_bytes),
            "kept_bytes": done.map(|done| done.kept_bytes),
            "shared_with": dry.then_some(&forks),
        }));
    }
    let Some(Trimmed { first, events, freed_bytes, kept_bytes }) = dropped else {
        return out.line("there is nothing to drop: what lies before is in the same block as what is kept, or gone already");
    };
    let events = counted(events as usize, "event");
    if dry {
        out.line(format_args!("would drop {events}; the log would begin at {first}"))?;
        let Some(file) = file else { return Ok(()) };
        let who = if forks.is_empty() {
            "another data directory".to_owned()
        } else {
            format!("the fork {}", forks.join(" and the fork "))
        };
        let file = file.display();
        return out.line(format_args!("{file} would keep its space on the disk: it is shared with {who}"));
    }
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
        DropError::Waiting { .. } => Exit::Refused,
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
