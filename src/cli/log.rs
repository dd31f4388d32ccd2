//! `caxton log …`: through a running server, or on the stopped log itself.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use caxton_events::log::{Filter, Log, OpenError, Reader};
use caxton_events::{Family, Kind, Seq};
use caxton_tools::log::{Line, Tail, overview, tail, verify};
use serde_json::Value;

use super::args::{Common, LogCommand, LogTail};
use super::backend::{self, Backend, Request};
use super::failure::{Exit, Failure, SALVAGE};
use super::feed;
use super::fork;
use super::output::Output;
use super::progress::Progress;
use super::proofs::{self, Wanted};
use super::{ranges, retention, salvage, setup};
use crate::engine::lost_end::LostEnd;
use crate::engine::refuse_newer_format;

/// Events asked of a server at a time.
const PAGE: &str = "1000";
/// How long the server may hold back an answer that has no events yet.
const FOLLOW_SECONDS: &str = "20";

/// Runs a command about the log.
pub(super) fn run(command: &LogCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    if let LogCommand::Tail(what) = command {
        kinds(&what.kinds)?;
    }
    match command {
        LogCommand::CheckProof(what) => return proofs::check(what, out),
        LogCommand::Fork(what) => return fork::fork(what, common, out),
        LogCommand::Detach => return fork::make_independent(common, out),
        LogCommand::Drop(what) => return retention::drop(what, common, out),
        LogCommand::Tail(_)
        | LogCommand::Verify { .. }
        | LogCommand::Salvage(_)
        | LogCommand::Head { .. }
        | LogCommand::Prove(_)
        | LogCommand::Consistency(_) => (),
    }
    let reads_files = matches!(
        command,
        LogCommand::Verify { .. } | LogCommand::Salvage(_) | LogCommand::Head { kinds: true, .. }
    );
    let server = if reads_files { backend::holding_files(common) } else { backend::running(common) }?;
    match (server, command) {
        (Some(server), LogCommand::Tail(what)) => tail_server(common, Backend::Http(server), what, out),
        (Some(server), LogCommand::Head { kinds: false, checkpoint }) => {
            proofs::head_of_server(&Backend::Http(server), *checkpoint, out)
        }
        (
            Some(server),
            LogCommand::Verify { .. } | LogCommand::Salvage(_) | LogCommand::Head { kinds: true, .. },
        ) => {
            let message =
                format!("{} has the log open; stop it first: this reads the file itself", server.url());
            Err(Failure::new(Exit::Unreachable, message))
        }
        (Some(server), LogCommand::Prove(what)) => Wanted::Event(what).ask(&Backend::Http(server), out),
        (Some(server), LogCommand::Consistency(what)) => {
            Wanted::Growth(what).ask(&Backend::Http(server), out)
        }
        (None, LogCommand::Verify { salvage: true, .. }) => salvage::verify(common, out),
        (None, LogCommand::Salvage(what)) => salvage::run(what, common, out),
        (_, command) => offline(command, common, out),
    }
}

fn offline(command: &LogCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let verifies = matches!(command, LogCommand::Verify { .. });
    let reader = if verifies { open_to_verify(common) } else { open(common) }?;
    match command {
        LogCommand::Tail(what) if what.follow => {
            let message =
                "no server runs on this data directory, so nothing new can come; leave out --follow";
            Err(Failure::new(Exit::Unreachable, message))
        }
        LogCommand::Tail(what) => {
            ranges::not_dropped(&reader, &[("--from", what.from)])?;
            let wanted = Tail {
                from: what.from.map(Seq),
                lines_max: what.lines as usize,
                filter: Filter {
                    kinds: kinds(&what.kinds)?,
                    stream: what.stream.clone(),
                    actor: what.actor.clone(),
                    ..Filter::default()
                },
            };
            let lines = tail(&reader, &wanted).map_err(|error| Failure::of(Exit::Failed, &error))?;
            lines.iter().try_for_each(|line| show(line, out))
        }
        LogCommand::Verify { own, .. } => {
            let mut progress = Progress::new("verifying", "events", !common.no_progress);
            let intact = verify(&reader, *own, &mut |seq, head| progress.set(seq.0, head.0));
            drop(progress);
            out.value(&intact.map_err(|error| Failure::of(Exit::Failed, &error))?)?;
            can_go_on(&known_data_dir(common)?, reader.head().seq)
        }
        LogCommand::Prove(what) => Wanted::Event(what).make(&reader, common, out),
        LogCommand::Consistency(what) => Wanted::Growth(what).make(&reader, common, out),
        LogCommand::CheckProof(what) => proofs::check(what, out),
        LogCommand::Fork(what) => fork::fork(what, common, out),
        LogCommand::Detach => fork::make_independent(common, out),
        LogCommand::Drop(what) => retention::drop(what, common, out),
        LogCommand::Salvage(what) => salvage::run(what, common, out),
        LogCommand::Head { checkpoint: true, .. } => {
            out.text(proofs::signer(&reader, common)?.sign(reader.head()))
        }
        LogCommand::Head { kinds, .. } => {
            let mut progress = Progress::new("counting", "events", !common.no_progress);
            let figures = overview(&reader, *kinds, &mut |seq, head| progress.set(seq.0, head.0));
            drop(progress);
            let figures = figures.map_err(|error| Failure::of(Exit::Failed, &error))?;
            proofs::head_of_log(&reader, common, &figures, out)
        }
    }
}

/// Whether a server would go on behind `head`, the end of a log that is as it was written: nothing is lost behind it, and what
/// only a writer looks at is in order.
fn can_go_on(dir: &Path, head: Seq) -> Result<(), Failure> {
    if let Some(lost) = LostEnd::find(dir, head) {
        return Err(Failure::new(Exit::Failed, format!("{lost}; restore a backup{SALVAGE}")));
    }
    Log::rehearse(dir).map_err(|error| {
        let failure = Failure::of(Exit::Failed, &error);
        let message = format!("the log can be read and takes no more events: {failure}");
        failure.told(message)
    })
}

/// The data directory, which no newer Caxton wrote.
pub(super) fn known_data_dir(common: &Common) -> Result<PathBuf, Failure> {
    let dir = setup::existing_data_dir(common)?;
    refuse_newer_format(&dir).map_err(|error| Failure::of(Exit::Failed, &error))?;
    Ok(dir)
}

/// The stopped log of the data directory.
pub(super) fn open(common: &Common) -> Result<Reader, Failure> {
    let dir: PathBuf = known_data_dir(common)?;
    Log::open_read_only(&dir).map_err(|error| unopened(&error))
}

/// The same to look for damage: nobody is sent to salvage what nothing is left of.
fn open_to_verify(common: &Common) -> Result<Reader, Failure> {
    let dir = known_data_dir(common)?;
    Log::open_read_only(&dir).map_err(|error| {
        let damaged = matches!(error, OpenError::Damaged { .. } | OpenError::Store { .. });
        let hopeless = if damaged { salvage::hopeless(&dir, common) } else { None };
        hopeless.unwrap_or_else(|| unopened(&error))
    })
}

fn unopened(error: &OpenError) -> Failure {
    let exit = if matches!(error, OpenError::Locked { .. }) { Exit::Unreachable } else { Exit::Failed };
    Failure::of(exit, error)
}

/// The kinds that `--kind` names, each by its own name or by that of its family; `None` for all.
pub(super) fn kinds(names: &[String]) -> Result<Option<Vec<Kind>>, Failure> {
    let mut kinds = Vec::new();
    for name in names {
        let named = Kind::named(name);
        if named.is_empty() {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            let message = format!(
                "--kind {name:?} is no kind of event; known are: {}, and the families {}",
                known.join(", "),
                Family::PREFIXES.join(" ")
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        kinds.extend(named);
    }
    Ok((!names.is_empty()).then_some(kinds))
}

/// A page of a server's events.
#[derive(serde::Deserialize)]
struct Page {
    events: Vec<Line>,
    /// Where the next page begins.
    next_seq: Seq,
    /// The end of the log when the page was made.
    head_seq: Seq,
}

/// Shows events of a server and, with `--follow`, those to come, also when it is started again meanwhile.
fn tail_server(
    common: &Common,
    mut server: Backend,
    what: &LogTail,
    out: &mut Output,
) -> Result<(), Failure> {
    let lines_max = what.lines as usize;
    let mut from = match what.from {
        Some(from) => Seq(from.max(1)),
        None => newest(&server, what, lines_max, out)?,
    };
    let mut shown = 0;
    while what.follow || (what.from.is_some() && shown < lines_max) {
        let page = if what.follow {
            feed::persistently(common, &mut server, |server| page(server, what, from, FOLLOW_SECONDS))?
        } else {
            page(&server, what, from, "0")?
        };
        let wanted = if what.follow { page.events.len() } else { lines_max - shown };
        for line in page.events.iter().take(wanted) {
            show(line, out)?;
        }
        out.flush()?;
        shown += page.events.len();
        from = page.next_seq;
        if !what.follow && from > page.head_seq {
            break;
        }
    }
    Ok(())
}

/// Shows the newest events and answers the position after the last one looked at.
fn newest(server: &Backend, what: &LogTail, lines_max: usize, out: &mut Output) -> Result<Seq, Failure> {
    let answer = server.ask(Request::get("/api/v1/log/head"))?;
    let number = |name: &str| answer.get(name).and_then(Value::as_u64);
    let (first, head) = (number("first_seq").unwrap_or(1), number("seq").unwrap_or_default());
    let filtered = !what.kinds.is_empty() || what.stream.is_some() || what.actor.is_some();
    // With a filter it is not known where the last matches begin; the server passes over blocks that hold none.
    let unfiltered = (head + 1).saturating_sub(lines_max as u64).max(first);
    let mut from = Seq(if filtered { first } else { unfiltered });
    let mut lines = VecDeque::new();
    while from.0 <= head {
        let page = page(server, what, from, "0")?;
        lines.extend(page.events);
        lines.drain(..lines.len().saturating_sub(lines_max));
        from = page.next_seq;
    }
    for line in &lines {
        show(line, out)?;
    }
    out.flush()?;
    Ok(from)
}

fn page(server: &Backend, what: &LogTail, from: Seq, wait_seconds: &str) -> Result<Page, Failure> {
    let kinds = what.kinds.join(",");
    let request = Request::get("/api/v1/events")
        .with("from_seq", &from.0.to_string())
        .with("limit", PAGE)
        .with("wait_seconds", wait_seconds)
        .with_some("kinds", (!kinds.is_empty()).then_some(kinds.as_str()))
        .with_some("stream", what.stream.as_deref())
        .with_some("actor", what.actor.as_deref());
    let page = server.ask(request)?;
    serde_json::from_value(page)
        .map_err(|error| Failure::new(Exit::Failed, format!("the server sent no page of events: {error}")))
}

fn show(line: &Line, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() { out.json_line(line) } else { out.line(line) }
}
