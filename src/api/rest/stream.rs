//! Server-sent events: the log as it grows, and an inbox as it fills.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use caxton_events::{AgentId, Seq};
use caxton_tools::log::Line;
use futures::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::Instant;

use super::Api;
use super::call::Call;
use super::events::{FILTER, wanted};
use super::fields::Fields;
use super::problem::Problem;
use super::refusals::{begins_at, internal, log_unreadable};
use super::talk::shown::message;
use super::wanted::Wanted;
use crate::agents::Piece;
use crate::engine::RECORDS_BYTES_MAX;
use crate::telemetry::{self, OpenStream, Stream};

/// How often the end of the log is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long a wait for a message lasts before the server's own state is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A stream on which nothing happens says so after this long, so that nobody in between takes it for dead.
const ALIVE: Duration = Duration::from_secs(15);
/// Records that are read at a time.
const CHUNK: usize = 256;
/// Positions of the log that are looked at in one read.
const SCANNED_MAX: u64 = 200_000;

/// What is streamed.
#[derive(Clone)]
pub(super) enum Source {
    /// The log, what the filter keeps of it.
    Log(Wanted),
    /// The messages to an agent that it is not done with.
    Inbox(AgentId),
}

/// `GET /events/stream`: events behind `Last-Event-ID`, from `from_seq` on, or from now on.
pub(super) async fn events(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[FILTER, &["from_seq"]])?;
    let given = query.integer("from_seq", 1..=u64::MAX).map(Seq);
    let wanted = wanted(&mut query);
    let resumed = last_event_id(&call, &mut query);
    let head = api.engine.log().head().seq;
    within(&mut query, "from_seq", given, head.next());
    within(&mut query, "Last-Event-ID", resumed, head);
    query.finish()?;
    let from = given.map(Seq::previous);
    let begins = match resumed {
        Some(_) => ("Last-Event-ID", resumed.map(Seq::next)),
        None => ("from_seq", given),
    };
    begins_at(api.engine.log(), &[begins])?;
    let after = resumed.or(from).unwrap_or(head);
    Ok(answer(api, Source::Log(wanted), after, None))
}

/// A place behind the next event is one of another log, or none: who goes on there would pass over what comes.
fn within(query: &mut Fields, name: &str, given: Option<Seq>, last: Seq) {
    if let Some(given) = given.filter(|given| *given > last) {
        let message = format!("is beyond the end of the log: the last place is {}", last.0);
        let remedy = "give a position that this server answered, or nothing for what comes from now on";
        query.complain(name, Some(&given.0.to_string()), &message, remedy);
    }
}

/// Where a client that lost its connection goes on.
pub(super) fn last_event_id(call: &Call, query: &mut Fields) -> Option<Seq> {
    let text = call.headers().get("last-event-id")?.to_str().unwrap_or_default();
    let seq = text.parse().ok().map(Seq);
    if seq.is_none() {
        query.complain(
            "Last-Event-ID",
            Some(text),
            "is no position",
            "send the id of the last event, or nothing",
        );
    }
    seq
}

/// The stream of everything behind `after`, and of `pieces` of answers that are on their way.
pub(super) fn answer(
    api: Api,
    source: Source,
    after: Seq,
    pieces: Option<broadcast::Receiver<Piece>>,
) -> Response {
    let what = match &source {
        Source::Log(_) => Stream::Events,
        Source::Inbox(_) => Stream::Inbox,
    };
    let streaming = Streaming {
        api,
        source,
        after,
        told: after,
        pieces,
        ended: false,
        _open: telemetry::stream_opened(what),
    };
    let opened = streaming.beginning();
    let opened = stream::once(async move { Ok(opened) });
    let events = stream::unfold(streaming, |mut streaming| async move {
        let bytes = streaming.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), streaming))
    });
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(opened, events)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

struct Streaming {
    api: Api,
    source: Source,
    /// Up to where was looked.
    after: Seq,
    /// The last such place that was told.
    told: Seq,
    /// Answers while they are being made. They have no number: after a lost connection only the message comes.
    pieces: Option<broadcast::Receiver<Piece>>,
    ended: bool,
    _open: OpenStream,
}

impl Streaming {
    /// The next events, or a sign of life; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let alive = Instant::now() + ALIVE;
        loop {
            if self.ended || self.api.is_leaving() {
                return None;
            }
            // In front of the messages that they become.
            let text = self.said_by_now();
            if !text.is_empty() {
                return Some(Bytes::from(text));
            }
            match self.read().await {
                Ok(text) if text.is_empty() => (),
                Ok(text) => return Some(Bytes::from(text)),
                // Many read at the moment: what is there now is there in a moment, too.
                Err(problem) if problem.code() == "OVERLOADED" => tokio::time::sleep(LOOK).await,
                Err(problem) => {
                    self.ended = true;
                    let complaint = problem.as_complaint();
                    let data = json!({"code": complaint.code, "detail": complaint.message});
                    return Some(Bytes::from(format!("event: error\ndata: {data}\n\n")));
                }
            }
            if Instant::now() >= alive {
                return Some(self.sign());
            }
            match &self.source {
                // So much of the log is still to be looked through that the next read is as long as this one.
                Source::Log(_) if self.left() >= SCANNED_MAX => (),
                Source::Log(_) => tokio::time::sleep(POLL).await,
                Source::Inbox(agent) => {
                    let message = self.api.engine.wait_inbox(agent, self.after, LOOK);
                    let Some(pieces) = &mut self.pieces else {
                        message.await;
                        continue;
                    };
                    tokio::select! {
                        _ = message => (),
                        piece = pieces.recv() => match piece {
                            Ok(piece) if is_heard(&self.api, agent, &piece) => {
                                let mut text = String::new();
                                said(&mut text, &piece);
                                return Some(Bytes::from(text));
                            }
                            // Who is too slow misses pieces; the message has all of them.
                            Ok(_) | Err(RecvError::Lagged(_)) => (),
                            Err(RecvError::Closed) => self.pieces = None,
                        },
                    }
                }
            }
        }
    }

    /// A sign of life, and of the log the place where it begins: a client that loses its connection before the first event goes on
    /// there. What of an inbox is not acknowledged comes again anyway.
    fn beginning(&self) -> Bytes {
        let mut text = ": open\n\n".to_owned();
        if matches!(self.source, Source::Log(_)) {
            place(&mut text, self.after);
        }
        Bytes::from(text)
    }

    /// A sign of life: how far the log was looked through, where that is another place than the one told last.
    fn sign(&mut self) -> Bytes {
        if matches!(self.source, Source::Inbox(_)) || self.told == self.after {
            return Bytes::from_static(b": here\n\n");
        }
        self.told = self.after;
        let mut text = String::new();
        place(&mut text, self.after);
        Bytes::from(text)
    }

    /// Pieces that came since the last look.
    fn said_by_now(&mut self) -> String {
        let mut text = String::new();
        let (Some(pieces), Source::Inbox(agent)) = (&mut self.pieces, &self.source) else { return text };
        loop {
            match pieces.try_recv() {
                Ok(piece) if is_heard(&self.api, agent, &piece) => said(&mut text, &piece),
                // Who is too slow misses pieces; the message has all of them.
                Ok(_) | Err(TryRecvError::Lagged(_)) => (),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return text,
            }
        }
    }

    /// Positions of the log that were not looked at yet.
    fn left(&self) -> u64 {
        self.api.engine.log().head().seq.0.saturating_sub(self.after.0)
    }

    /// What there is behind the last event now.
    async fn read(&mut self) -> Result<String, Problem> {
        let (text, after) = match &self.source {
            Source::Log(wanted) => self.read_log(wanted.clone(), SCANNED_MAX).await?,
            Source::Inbox(agent) => self.read_inbox(agent).await?,
        };
        self.after = after;
        Ok(text)
    }

    /// What is wanted of at most `scanned_max` events, and the last one that was looked at: a filter that keeps little does not
    /// hold a read for as long as the whole log takes, nor when its client is gone.
    async fn read_log(&self, mut wanted: Wanted, scanned_max: u64) -> Result<(String, Seq), Problem> {
        let (log, after) = (self.api.engine.log().clone(), self.after);
        let last = log.head().seq.min(Seq(after.0.saturating_add(scanned_max)));
        if last <= after {
            return Ok((String::new(), after));
        }
        wanted.filter.until = Some(last);
        self.api
            .read(move |_| {
                let (mut text, mut count) = (String::new(), 0);
                for found in log.scan_found(after.next(), &wanted.filter) {
                    let found = found.map_err(|error| log_unreadable(&error))?;
                    if !wanted.takes_found(&found) {
                        continue;
                    }
                    let seq = found.seq();
                    let line = Line::of_found(&log, found);
                    event(&mut text, seq, &line.kind, &line)?;
                    count += 1;
                    if count == CHUNK || text.len() as u64 >= RECORDS_BYTES_MAX {
                        return Ok((text, seq));
                    }
                }
                Ok((text, last))
            })
            .await
    }

    async fn read_inbox(&self, agent: &AgentId) -> Result<(String, Seq), Problem> {
        let engine = self.api.engine.clone();
        let seqs = engine.inbox(agent, self.after, CHUNK);
        let Some(last) = seqs.last().copied() else { return Ok((String::new(), self.after)) };
        self.api
            .read(move |_| {
                let records = engine.records(&seqs).map_err(|error| internal(&error))?;
                // Of large messages fewer are read at a time.
                let last = records.last().map_or(last, |record| record.seq);
                let mut text = String::new();
                for record in &records {
                    event(&mut text, record.seq, "message", &message(record))?;
                }
                Ok((text, last))
            })
            .await
    }
}

/// Whether a piece belongs to a conversation that the agent takes part in.
fn is_heard(api: &Api, agent: &AgentId, piece: &Piece) -> bool {
    let state = api.engine.view().talk().read();
    let conversation = state.conversations.get(&piece.conversation);
    conversation.is_some_and(|conversation| conversation.participants.contains(agent))
        && piece.agent != *agent
}

/// A piece in the format of the wire.
fn said(text: &mut String, piece: &Piece) {
    let data = json!({"conversation_id": piece.conversation, "sender": piece.agent, "text": *piece.text});
    let _ = write!(text, "event: piece\ndata: {data}\n\n");
}

/// A place of the log in the format of the wire: an event of its own, with data, for readers take an `id` alone for an event that
/// says nothing.
fn place(text: &mut String, seq: Seq) {
    let _ = write!(text, "id: {0}\nevent: place\ndata: {{\"seq\":{0}}}\n\n", seq.0);
}

/// One event in the format of the wire. JSON on one line needs no further care.
fn event(text: &mut String, seq: Seq, kind: &str, data: &impl Serialize) -> Result<(), Problem> {
    let data = serde_json::to_string(data).map_err(|error| internal(&error))?;
    let _ = write!(text, "id: {}\nevent: {kind}\ndata: {data}\n\n", seq.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_events::log::Filter;

    use super::*;
    use crate::api::rest::RestOptions;
    use crate::commands::talk::Upkeep;
    use crate::engine::{Engine, EngineOptions};

    #[test]
    fn a_filter_that_keeps_little_looks_at_a_stretch_of_the_log_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        for at in 0..10 {
            let agent: AgentId = format!("a{at}").parse().unwrap();
            let wish = Upkeep::RegisterAgent { agent: agent.clone(), workspace: "lab".parse().unwrap() };
            engine.upkeep_blocking(&agent, wish).unwrap();
        }
        let head = engine.log().head().seq;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (concerning, found) in [("nobody", 0), ("a9", 1)] {
            let concerning = Some(concerning.parse().unwrap());
            let wanted = Wanted { filter: Filter::default(), concerning };
            let mut streaming = Streaming {
                api: Api::new(engine.clone(), RestOptions::default(), false),
                source: Source::Log(wanted.clone()),
                after: Seq::ZERO,
                told: Seq::ZERO,
                pieces: None,
                ended: false,
                _open: telemetry::stream_opened(Stream::Events),
            };
            let (mut places, mut text) = (Vec::new(), String::new());
            while streaming.after < head {
                let (part, after) = runtime.block_on(streaming.read_log(wanted.clone(), 4)).unwrap();
                places.push(after.0);
                text.push_str(&part);
                streaming.after = after;
            }
            assert_eq!(places[..2], [4, 8]);
            assert_eq!(text.matches("event: agent.").count(), found, "{text}");
            // Who loses the connection here goes on behind what was looked through.
            let place = format!("id: {0}\nevent: place\ndata: {{\"seq\":{0}}}\n\n", head.0);
            assert_eq!(streaming.beginning(), format!(": open\n\n{place}"));
            assert_eq!(streaming.sign(), place);
            assert_eq!(streaming.sign(), ": here\n\n", "it is told already");
        }
        engine.stop();
    }
}
