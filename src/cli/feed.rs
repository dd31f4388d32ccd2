//! Server-sent events as commands read them: in order, and on from the last one when a connection breaks; and the
//! signal that ends a command.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Common;
use super::backend::{self, Backend, Request};
use super::failure::{Exit, Failure};
use super::output::cell;

/// A stream without even a sign of life for so long is dead; the server gives one each 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Attempts in a row to reach the server again, with the waits below about a minute.
const ATTEMPTS_MAX: u32 = 40;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Events that are read ahead of whoever uses them.
const AHEAD_MAX: usize = 64;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// Where it stands in the log; 0 for an event that has no place there.
    pub(super) seq: u64,
    /// What it is.
    pub(super) name: String,
    /// What it says.
    pub(super) data: Value,
}

/// What a stream tells.
#[derive(Debug)]
pub(super) enum Told {
    /// The next event.
    Event(Event),
    /// The connection broke; another one is being made, and nothing is lost.
    Lost,
    /// There is nothing more to come.
    Ended(Failure),
}

/// What one connection gives.
#[derive(Debug)]
enum Heard {
    Alive,
    /// How far the server has looked: what is asked again begins there.
    Place(u64),
    Event(Event),
    /// It will not be better another time.
    Refused(Failure),
    Broken(Failure),
}

/// Reads a stream on a thread of its own. `ask` makes the request for what stands behind a position.
pub(super) fn listen<T>(
    common: &Common,
    after: u64,
    ask: impl Fn(u64) -> Request + Send + Sync + 'static,
    told: Sender<T>,
) where
    T: From<Told> + Send + 'static,
{
    let (common, ask) = (common.clone(), Arc::new(ask));
    thread::spawn(move || {
        let (mut last, mut failed, mut wait) = (after, 0, FIRST_WAIT);
        loop {
            let heard = connect(common.clone(), ask(last));
            let why = loop {
                match heard.recv_timeout(SILENCE_MAX) {
                    Ok(Heard::Alive) => (failed, wait) = (0, FIRST_WAIT),
                    Ok(Heard::Place(seq)) => (last, failed, wait) = (last.max(seq), 0, FIRST_WAIT),
                    Ok(Heard::Event(event)) => {
                        last = last.max(event.seq);
                        if told.send(Told::Event(event).into()).is_err() {
                            return;
                        }
                    }
                    Ok(Heard::Refused(why)) => {
                        let _ = told.send(Told::Ended(why).into());
                        return;
                    }
                    Ok(Heard::Broken(why)) => break why,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                        break Failure::new(Exit::Unreachable, "the server has fallen silent");
                    }
                }
            };
            if failed == 0 && told.send(Told::Lost.into()).is_err() {
                return;
            }
            failed += 1;
            if failed > ATTEMPTS_MAX {
                let _ = told.send(Told::Ended(why).into());
                return;
            }
            thread::sleep(wait);
            wait = (wait * 2).min(WAIT_MAX);
        }
    });
}

/// Asks `server`, and where that is gone whichever runs in its place, for about a minute; it stands in `server` then.
///
/// # Errors
///
/// What `ask` met last, or at once where it will not be better another time.
pub(super) fn persistently<T>(
    common: &Common,
    server: &mut Backend,
    mut ask: impl FnMut(&Backend) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (mut answer, mut failed, mut wait) = (ask(server), 0, FIRST_WAIT);
    while failed < ATTEMPTS_MAX && answer.as_ref().err().is_some_and(may_pass) {
        failed += 1;
        thread::sleep(wait);
        wait = (wait * 2).min(WAIT_MAX);
        answer = match backend::running(common) {
            Ok(Some(found)) => {
                *server = Backend::Http(found);
                ask(server)
            }
            Ok(None) => Err(Failure::new(Exit::Unreachable, "the server is gone")),
            Err(failure) => Err(failure),
        };
    }
    answer
}

/// Whether it may be better another time.
fn may_pass(failure: &Failure) -> bool {
    match failure.exit {
        Some(Exit::Failed | Exit::Unreachable) | None => true,
        Some(Exit::Usage | Exit::NotFound | Exit::Refused) => false,
    }
}

/// One connection. Its thread ends with it, or when nobody listens any more.
fn connect(common: Common, request: Request) -> Receiver<Heard> {
    let (heard, listener) = sync_channel(AHEAD_MAX);
    thread::spawn(move || {
        let body = backend::running(&common).and_then(|server| match server {
            Some(server) => Backend::Http(server).read(request),
            None => Err(Failure::new(Exit::Unreachable, "the server is gone")),
        });
        let last = match body {
            Ok(body) => read(body, &heard),
            Err(failure) if may_pass(&failure) => Some(Heard::Broken(failure)),
            Err(failure) => Some(Heard::Refused(failure)),
        };
        if let Some(last) = last {
            let _ = heard.send(last);
        }
    });
    listener
}

/// Reads events to the end of the stream; what the end is. `None` when nobody listens.
fn read(body: impl Read, heard: &SyncSender<Heard>) -> Option<Heard> {
    let mut event = Event { seq: 0, name: String::new(), data: Value::Null };
    for line in BufReader::new(body).lines() {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                let message = format!("the stream broke: {error}");
                return Some(Heard::Broken(Failure::new(Exit::Unreachable, message)));
            }
        };
        if line.is_empty() {
            let whole =
                std::mem::replace(&mut event, Event { seq: 0, name: String::new(), data: Value::Null });
            if whole.name.is_empty() {
                continue;
            }
            if whole.name == "place" {
                heard.send(Heard::Place(whole.seq)).ok()?;
                continue;
            }
            if whole.name == "error" {
                let message = format!("{} [{}]", cell(&whole.data, "detail"), cell(&whole.data, "code"));
                return Some(Heard::Refused(Failure::new(Exit::Failed, message)));
            }
            heard.send(Heard::Event(whole)).ok()?;
        } else if line.starts_with(':') {
            heard.send(Heard::Alive).ok()?;
        } else if let Some((field, value)) = line.split_once(':') {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => event.seq = value.parse().unwrap_or_default(),
                "event" => value.clone_into(&mut event.name),
                "data" => event.data = serde_json::from_str(value).unwrap_or_default(),
                _ => (),
            }
        }
    }
    Some(Heard::Broken(Failure::new(Exit::Unreachable, "the server has ended the stream")))
}

/// What a shell says of a command that Ctrl-C ended.
pub(super) const INTERRUPTED: i32 = 130;

/// Tells of the first Ctrl-C or SIGTERM. The second one ends the process at once.
pub(super) fn on_interrupt<T: Send + 'static>(told: Sender<T>, what: T) -> Result<(), Failure> {
    let failed = |error| Failure::new(Exit::Failed, format!("could not listen to signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    drop(inside);
    thread::spawn(move || {
        runtime.block_on(async move {
            let mut what = Some(what);
            loop {
                tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
                match what.take() {
                    Some(what) => drop(told.send(what)),
                    None => std::process::exit(INTERRUPTED),
                }
            }
        });
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test stops at the first surprise")]

    use std::sync::mpsc::sync_channel;

    use serde_json::json;

    use super::{Event, Heard, read};
    use crate::cli::failure::Exit;

    fn heard(text: &str) -> (Vec<Event>, Vec<u64>, usize, Option<Heard>) {
        let (heard, listener) = sync_channel(16);
        let last = read(text.as_bytes(), &heard);
        drop(heard);
        let (mut events, mut places, mut alive) = (Vec::new(), Vec::new(), 0);
        for heard in listener {
            match heard {
                Heard::Event(event) => events.push(event),
                Heard::Alive => alive += 1,
                Heard::Place(seq) => places.push(seq),
                Heard::Refused(_) | Heard::Broken(_) => panic!("{heard:?}"),
            }
        }
        (events, places, alive, last)
    }

    #[test]
    fn events_are_read_whole_and_signs_of_life_are_none() {
        let text = ": open\n\nid: 6\nevent: place\ndata: {\"seq\":6}\n\n\
                    id: 7\nevent: message\ndata: {\"content\": \"a: b\"}\n\n: here\n\nevent: piece\ndata:1\n\n\
                    id: 9\nevent: message\ndata: {\"content\": \"cut\n";
        let (events, places, alive, last) = heard(text);
        let event = |seq, name: &str, data| Event { seq, name: name.to_owned(), data };
        assert_eq!(events, [event(7, "message", json!({"content": "a: b"})), event(0, "piece", json!(1))]);
        assert_eq!((places.as_slice(), alive), (&[6][..], 2));
        assert!(matches!(last, Some(Heard::Broken(_))), "{last:?}");
    }

    #[test]
    fn an_error_of_the_server_ends_the_stream_for_good() {
        let (events, _, _, last) = heard(
            "event: error\ndata: {\"code\": \"GRAPH_DAMAGED\", \"detail\": \"no\"}\n\nid: 1\nevent: x\n\n",
        );
        assert!(events.is_empty());
        let Some(Heard::Refused(failure)) = last else { panic!("{last:?}") };
        assert_eq!((failure.exit, failure.to_string().as_str()), (Some(Exit::Failed), "no [GRAPH_DAMAGED]"));
    }
}
