//! `caxton log tail | verify | head`: through a running server, or on the stopped log itself.

use std::path::PathBuf;

use caxton_events::log::{Filter, Log, OpenError, Reader};
use caxton_events::{Kind, Seq};
use caxton_tools::log::{Tail, overview, tail, verify};
use serde_json::Value;

use super::args::{Common, LogCommand, LogTail};
use super::backend::{self, Backend, Request};
use super::failure::{Exit, Failure};
use super::output::{Output, cell, items};
use super::progress::Progress;
use super::setup;

/// Events asked of a server at a time.
const PAGE: u32 = 1_000;
/// How long the server may hold back an answer that has no events yet, in milliseconds.
const FOLLOW_MILLIS: &str = "20000";

/// Runs a command about the log.
pub(super) fn run(command: &LogCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    if let LogCommand::Tail(what) = command {
        kinds(what)?;
    }
    match (backend::running(common)?, command) {
        (Some(server), LogCommand::Tail(what)) => tail_server(&Backend::Http(server), what, out),
        (Some(server), LogCommand::Head { kinds: false }) => {
            let head = Backend::Http(server).ask(Request::get("/api/v1/log/head"))?;
            if out.is_json() {
                return out.json(&head);
            }
            for (name, value) in head.as_object().into_iter().flatten() {
                out.line(format_args!("{} {}", name.replace('_', " "), cell(&head, name)).to_string().trim_end())?;
                let _ = value;
            }
            Ok(())
        }
        (Some(server), LogCommand::Verify | LogCommand::Head { kinds: true }) => {
            let message = format!("{} has the log open; stop it first: this reads the file itself", server.url());
            Err(Failure::new(Exit::Unreachable, message))
        }
        (None, command) => offline(command, common, out),
    }
}

fn offline(command: &LogCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let reader = open(common)?;
    match command {
        LogCommand::Tail(what) if what.follow => {
            let message = "no server runs on this data directory, so nothing new can come; leave out --follow";
            Err(Failure::new(Exit::Unreachable, message))
        }
        LogCommand::Tail(what) => {
            let wanted = Tail {
                from: what.from.map(Seq),
                lines_max: what.lines as usize,
                filter: Filter {
                    kinds: kinds(what)?,
                    stream: what.stream.clone(),
                    actor: what.actor.clone(),
                    ..Filter::default()
                },
            };
            let lines = tail(&reader, &wanted).map_err(|error| Failure::of(Exit::Failed, &error))?;
            for line in lines {
                if out.is_json() { out.json_line(&line)? } else { out.line(&line)? }
            }
            Ok(())
        }
        LogCommand::Verify => {
            let mut progress = Progress::new("verifying", "events", !common.no_progress);
            let intact = verify(&reader, &mut |seq, head| progress.set(seq.0, head.0));
            drop(progress);
            out.value(&intact.map_err(|error| Failure::of(Exit::Failed, &error))?)
        }
        LogCommand::Head { kinds } => {
            let mut progress = Progress::new("counting", "events", !common.no_progress);
            let figures = overview(&reader, *kinds, &mut |seq, head| progress.set(seq.0, head.0));
            drop(progress);
            out.value(&figures.map_err(|error| Failure::of(Exit::Failed, &error))?)
        }
    }
}

/// The stopped log of the data directory.
pub(super) fn open(common: &Common) -> Result<Reader, Failure> {
    let dir: PathBuf = setup::existing_data_dir(common)?;
    Log::open_read_only(&dir).map_err(|error| {
        let exit = if matches!(error, OpenError::Locked { .. }) { Exit::Unreachable } else { Exit::Failed };
        Failure::of(exit, &error)
    })
}

/// The kinds asked for; `None` for all.
fn kinds(what: &LogTail) -> Result<Option<Vec<Kind>>, Failure> {
    if what.kinds.is_empty() {
        return Ok(None);
    }
    let kind = |name: &String| {
        Kind::from_name(name).ok_or_else(|| {
            let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            Failure::new(Exit::Usage, format!("{name:?} is no kind of event; use one of {}", known.join(", ")))
        })
    };
    what.kinds.iter().map(kind).collect::<Result<_, _>>().map(Some)
}

/// Pages through a server's events and, with `--follow`, waits for more.
fn tail_server(server: &Backend, what: &LogTail, out: &mut Output) -> Result<(), Failure> {
    let mut left = what.lines;
    let mut from = match what.from {
        Some(from) => Some(from),
        None if what.follow && what.lines == 0 => Some(head(server)? + 1),
        None => None,
    };
    loop {
        let limit = if what.follow && from.is_some() { PAGE } else { left.min(PAGE) };
        let mut request = Request::get("/api/v1/events")
            .with("limit", &limit.to_string())
            .with_some("type", (!what.kinds.is_empty()).then(|| what.kinds.join(",")).as_deref())
            .with_some("stream", what.stream.as_deref())
            .with_some("actor", what.actor.as_deref());
        request = match from {
            Some(seq) => request.with("from_seq", &seq.to_string()),
            None => request.with("order", "desc"),
        };
        if what.follow && from.is_some() {
            request = request.with("wait_ms", FOLLOW_MILLIS);
        }
        let page = server.ask(request)?;
        let mut events: Vec<&Value> = items(&page, "events").iter().collect();
        if from.is_none() {
            events.reverse();
        }
        for event in &events {
            if out.is_json() { out.json_line(event)? } else { out.line(line(event))? }
        }
        out.flush()?;
        left = left.saturating_sub(u32::try_from(events.len()).unwrap_or(u32::MAX));
        let next = page.get("next_seq").and_then(Value::as_u64);
        if !what.follow && (left == 0 || events.len() < limit as usize || from.is_none()) {
            return Ok(());
        }
        from = match (next, events.last().and_then(|event| event.get("seq")).and_then(Value::as_u64)) {
            (Some(next), _) => Some(next),
            (None, Some(last)) => Some(last + 1),
            (None, None) if from.is_none() => Some(head(server)? + 1),
            (None, None) => from,
        };
    }
}

fn head(server: &Backend) -> Result<u64, Failure> {
    let head = server.ask(Request::get("/api/v1/log/head"))?;
    Ok(head.get("seq").and_then(Value::as_u64).unwrap_or_default())
}

/// An event of a server on one line.
fn line(event: &Value) -> String {
    let [seq, at, kind, stream, actor] =
        ["seq", "recorded_at", "kind", "stream", "actor"].map(|name| cell(event, name));
    format!("#{seq} {at} {kind} {stream} by {actor}: {}", event.get("payload").unwrap_or(&Value::Null))
}
