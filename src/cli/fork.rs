//! `caxton log fork | detach`: data directories that share a past.

use std::path::{Path, PathBuf};

use caxton_events::Seq;
use caxton_events::log::{Head, SealedLog, TrimError, detach};
use serde::Deserialize;
use serde_json::json;

use super::args::{Common, LogFork};
use super::backend::{self, Backend, Request};
use super::failure::{Exit, Failure};
use super::log;
use super::output::Output;
use super::progress::Progress;
use crate::engine::fork::{Cut, ForkDirError, SealLogError, check_place, fork_dir, seal_stopped};
use crate::engine::refuse_newer_format;

/// What a server answers that made its log ready.
#[derive(Deserialize)]
struct Ready {
    seq: Seq,
    log: SealedLog,
}

/// Makes a fork, of a stopped directory or of that of a running server.
pub(super) fn fork(what: &LogFork, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let cut = match &what.at {
        None => Cut::Head,
        Some(text) => Cut::parse(text).ok_or_else(|| {
            let message = format!(
                "--at {text:?} is neither a position nor a time from 1970 on; give 17 or 2026-11-28T14:05:06Z"
            );
            Failure::new(Exit::Usage, message)
        })?,
    };
    // Before the log is sealed for it.
    check_place(&what.to).map_err(|error| unmade(&error))?;
    let (seq, log) = match backend::running(common)? {
        Some(server) => ask(&Backend::Http(server), what.at.as_deref())?,
        None => seal_stopped(&log::known_data_dir(common)?, cut).map_err(|error| unsealed(&error))?,
    };
    let mut progress = Progress::new("copying", "events", what.copy && !common.no_progress);
    let mut heard = |at: Seq, of: Seq| progress.set(at.0, of.0);
    let copy = what.copy.then_some(&mut heard as &mut dyn FnMut(Seq, Seq));
    let made = fork_dir(&log, seq, &what.to, copy);
    drop(progress);
    let head = made.map_err(|error| unmade(&error))?;
    show(head, &log.dir, &what.to, out)
}

/// Asks a running server, which must run on this machine.
fn ask(server: &Backend, at: Option<&str>) -> Result<(Seq, SealedLog), Failure> {
    let request = Request::post("/api/v1/log/seal", &json!({})).with_some("at", at);
    let Ready { seq, log } = serde_json::from_value(server.ask(request)?).map_err(|error| {
        Failure::new(Exit::Failed, format!("the server did not say where its log is: {error}"))
    })?;
    if log.dir.is_dir() {
        // A newer server may keep in it what this program would leave out of the fork.
        refuse_newer_format(&log.dir).map_err(|error| Failure::of(Exit::Failed, &error))?;
        return Ok((seq, log));
    }
    let message = format!(
        "the server keeps its log in {}, which is not on this machine; fork where the server runs",
        log.dir.display()
    );
    Err(Failure::new(Exit::NotFound, message))
}

fn unmade(error: &ForkDirError) -> Failure {
    if matches!(error, ForkDirError::Unnamable { .. }) {
        return Failure::of(Exit::Usage, error);
    }
    let refused = matches!(
        error,
        ForkDirError::NotEmpty { .. }
            | ForkDirError::Inside { .. }
            | ForkDirError::Left { .. }
            | ForkDirError::NoBase { .. }
    );
    Failure::of(if refused { Exit::Refused } else { Exit::Failed }, error)
}

fn unsealed(error: &SealLogError) -> Failure {
    let exit = match error {
        SealLogError::Beyond { .. } | SealLogError::Before { .. } => Exit::NotFound,
        SealLogError::Open(caxton_events::log::OpenError::Locked { .. }) => Exit::Unreachable,
        SealLogError::Erasing => Exit::Refused,
        SealLogError::Open(_) | SealLogError::Read(_) | SealLogError::Seal(_) | SealLogError::Stopped => {
            Exit::Failed
        }
    };
    Failure::of(exit, error)
}

fn show(head: Head, parent: &Path, to: &Path, out: &mut Output) -> Result<(), Failure> {
    let Head { seq, root, recorded_at } = head;
    if out.is_json() {
        let (parent, to) = (parent.display().to_string(), to.display().to_string());
        return out.json(&json!({
            "dir": to, "parent": parent, "seq": seq, "root": root.to_string(), "recorded_at": recorded_at,
        }));
    }
    let (parent, to) = (parent.display(), to.display());
    out.line(format_args!(
        "forked {parent} at {seq}, recorded {recorded_at}, to {to}\nroot {root}\nstart a server on it with: caxton serve --data-dir {to} --port 0 --metrics-port off"
    ))
}

/// Gives a stopped directory files of its own for everything it shares.
pub(super) fn make_independent(common: &Common, out: &mut Output) -> Result<(), Failure> {
    let dir = stopped(common)?;
    let mut progress = Progress::new("copying", "events", !common.no_progress);
    let detached = detach(&dir, &mut |at, of| progress.set(at.0, of.0));
    drop(progress);
    detached.map_err(|error| failed(&error))?;
    if out.is_json() {
        return out.json(&json!({ "dir": dir.display().to_string() }));
    }
    out.line(format_args!("{} shares no file any more", dir.display()))
}

/// The data directory, on which no server runs.
pub(super) fn stopped(common: &Common) -> Result<PathBuf, Failure> {
    if let Some(server) = backend::holding_files(common)? {
        let message =
            format!("{} has the log open; stop it first: this writes the file itself", server.url());
        return Err(Failure::new(Exit::Unreachable, message));
    }
    log::known_data_dir(common)
}

/// What a command about the files of a log failed with.
pub(super) fn failed(error: &TrimError) -> Failure {
    let exit = match error {
        TrimError::Open(caxton_events::log::OpenError::Locked { .. }) => Exit::Unreachable,
        TrimError::Beyond { .. } => Exit::NotFound,
        TrimError::Shared { .. } => Exit::Refused,
        TrimError::Open(_) | TrimError::Read(_) | TrimError::Copy(_) | TrimError::Io { .. } => Exit::Failed,
    };
    Failure::of(exit, error)
}
