//! NDJSON in, NDJSON out: each line is a wish of its own and has its answer on a line, as soon as it is there.

use std::io::BufRead as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::{StreamExt as _, stream};
use serde_json::{Map, Value, json};

use super::Api;
use super::batch::{Kind, done, failed, label};
use super::call::{Call, WriteContext};
use super::entity_writes::as_asked;
use super::fields::Fields;
use super::json::parse_line;
use super::problem::Complaint;
use super::refusals;
use crate::commands::{Refusal, Write, Written};
use crate::engine::{Outcome, SubmitError};

/// Lines that become one command.
const CHUNK_LINES: usize = 256;
/// Bytes after which a chunk ends early.
const CHUNK_BYTES: usize = 1 << 20;
/// How often a chunk is offered again to an engine that is busy.
const OFFERS_MAX: u32 = 8;

/// The lines of a body, one chunk at a time.
pub(super) struct Lines {
    body: Bytes,
    at: usize,
    line: usize,
}

impl Lines {
    /// The lines of `body`.
    pub(super) fn of(body: Bytes) -> Self {
        Self { body, at: 0, line: 0 }
    }

    /// The next lines that are not blank with their numbers, from 1; empty at the end.
    pub(super) fn chunk(&mut self) -> Vec<(usize, Bytes)> {
        let (mut lines, start) = (Vec::new(), self.at);
        while self.at < self.body.len() && lines.len() < CHUNK_LINES && self.at - start < CHUNK_BYTES {
            let mut rest = &self.body[self.at..];
            // A slice has no way to fail.
            let taken = rest.skip_until(b'\n').unwrap_or(0).max(1);
            let end = self.at + taken - usize::from(self.body[self.at + taken - 1] == b'\n');
            let line = self.body.slice(self.at..end);
            self.at += taken;
            self.line += 1;
            if !line.iter().all(u8::is_ascii_whitespace) {
                lines.push((self.line, line));
            }
        }
        lines
    }
}

/// One line as `read` understands it.
pub(super) fn parsed<T>(
    line: &Bytes,
    known: &[&[&str]],
    read: impl FnOnce(&mut Fields) -> T,
) -> Result<T, Complaint> {
    let value = parse_line(line).map_err(|problem| problem.as_complaint())?;
    let mut fields = Fields::object(value, String::new(), known);
    let read = read(&mut fields);
    match fields.into_complaint() {
        Some(complaint) => Err(complaint),
        None => Ok(read),
    }
}

/// Offers something to the engine, again while it is busy: the body is here, so its sender can wait.
pub(super) async fn patiently<T, E, F: Future<Output = Result<T, E>>>(
    offer: impl Fn() -> F,
    is_busy: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let mut pause = Duration::from_millis(10);
    for _ in 1..OFFERS_MAX {
        match offer().await {
            Err(error) if is_busy(&error) => tokio::time::sleep(pause).await,
            answer => return answer,
        }
        pause *= 2;
    }
    offer().await
}

/// Offers a chunk of writes.
pub(super) async fn offered(
    api: &Api,
    context: &WriteContext,
    chunk: usize,
    writes: Vec<Write>,
) -> Result<Outcome, SubmitError> {
    let offer = || api.engine.submit(context.chunk(chunk, writes.clone()));
    patiently(offer, |error| matches!(error, SubmitError::Overloaded)).await
}

/// Answers the lines of a body, chunk after chunk.
pub(super) trait Answering: Send + 'static {
    /// One line of NDJSON for each line, in their order.
    fn answer(&mut self, lines: Vec<(usize, Bytes)>) -> impl Future<Output = Bytes> + Send;
}

/// The answers to a body as NDJSON, each chunk of them as soon as it is there.
pub(super) fn streamed(body: Bytes, answering: impl Answering) -> Response {
    let answers = stream::unfold((Lines::of(body), answering), |(mut lines, mut answering)| async move {
        let chunk = lines.chunk();
        if chunk.is_empty() {
            return None;
        }
        let answer = answering.answer(chunk).await;
        Some((Ok::<_, std::convert::Infallible>(answer), (lines, answering)))
    });
    // Who compresses it asks once more behind the end.
    let mut response = Response::new(Body::from_stream(answers.fuse()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

struct Job {
    api: Api,
    context: WriteContext,
    kind: &'static Kind,
    chunk: usize,
    /// Room that its body takes is given back with it.
    _call: Call,
}

/// Writes every line and streams their results.
pub(super) fn written(api: Api, context: WriteContext, call: Call, kind: &'static Kind) -> Response {
    streamed(call.body.clone(), Job { api, context, kind, chunk: 0, _call: call })
}

impl Answering for Job {
    async fn answer(&mut self, lines: Vec<(usize, Bytes)>) -> Bytes {
        let (mut writes, mut asked) = (Vec::with_capacity(lines.len()), Vec::with_capacity(lines.len()));
        let mut items = Vec::with_capacity(lines.len());
        for (number, line) in lines {
            let mut item = Map::new();
            item.insert("line".to_owned(), json!(number));
            match parsed(&line, self.kind.known, |fields| self.kind.item(fields, &self.context)) {
                Ok(read) => {
                    item.extend(label(&read.write));
                    writes.push(read.write);
                    asked.push(read.asked);
                    items.push((item, None));
                }
                Err(complaint) => items.push((item, Some(complaint))),
            }
        }
        let chunk = self.chunk;
        self.chunk += 1;
        let outcome = if writes.is_empty() {
            None
        } else {
            Some(as_asked(offered(&self.api, &self.context, chunk, writes).await, &asked))
        };
        Bytes::from(shown(items, outcome))
    }
}

/// The results of a chunk, a line each; what could not be read has its complaint already.
fn shown(
    items: Vec<(Map<String, Value>, Option<Complaint>)>,
    outcome: Option<Result<Outcome, SubmitError>>,
) -> Vec<u8> {
    let (results, seq, problem) = match outcome {
        Some(Ok(outcome)) => (outcome.results, Some(outcome.last), None),
        Some(Err(error)) => (Vec::new(), None, Some(refusals::not_submitted(error, &refusals::whole))),
        None => (Vec::new(), None, None),
    };
    let mut results = results.into_iter();
    let mut text = Vec::new();
    for (item, complaint) in items {
        let mut shown = match (complaint, &problem) {
            (Some(complaint), _) => failed(item, &complaint, StatusCode::UNPROCESSABLE_ENTITY),
            (None, Some(problem)) => failed(item, &problem.as_complaint(), problem.status()),
            (None, None) => match results.next() {
                Some(result) => result_of(item, result),
                None => item,
            },
        };
        if let Some(seq) = seq.filter(|_| shown.get("code").is_none()) {
            shown.insert("seq".to_owned(), json!(seq));
        }
        // Maps with text keys always serialise.
        text.extend(serde_json::to_vec(&shown).unwrap_or_default());
        text.push(b'\n');
    }
    text
}

fn result_of(item: Map<String, Value>, result: Result<Written, Refusal>) -> Map<String, Value> {
    match result {
        Ok(written) => done(item, &written),
        Err(refusal) => {
            let status = refusals::status_of(refusal.code);
            failed(item, &refusals::complaint(refusal, &refusals::whole), status)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::sync::Arc;

    use axum::body::{Body, Bytes};
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::{Api, CHUNK_LINES, Lines};
    use crate::api::rest::{RestOptions, routes};
    use crate::engine::{Engine, EngineOptions};

    #[test]
    fn the_room_of_a_body_is_taken_until_its_lines_are_answered() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        let api = Api::new(engine.clone(), RestOptions::default(), false);
        let room = Arc::new(());
        let request = Request::builder()
            .method("POST")
            .uri("/api/v1/memory/entities/batch")
            .header("host", "localhost")
            .header("content-type", "application/x-ndjson")
            .extension(Arc::clone(&room))
            .body(Body::from(r#"{"entity_name": "a", "entity_type": "T"}"#))
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let response = runtime.block_on(routes::with_layers(&api).oneshot(request)).unwrap();
        assert_eq!(Arc::strong_count(&room), 2, "no line is answered yet");
        let answers = runtime.block_on(response.into_body().collect()).unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&answers).contains("created"), "{answers:?}");
        assert_eq!(Arc::strong_count(&room), 1);
        engine.stop();
    }

    #[test]
    fn every_line_keeps_its_number_over_blank_ones_and_chunks() {
        let mut lines = Lines::of(Bytes::from_static(b"a\n\n  \nb\r\nc"));
        let numbers: Vec<usize> = lines.chunk().iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 4, 5]);
        assert!(lines.chunk().is_empty());

        let many = "x\n".repeat(CHUNK_LINES + 3);
        let mut lines = Lines::of(Bytes::from(many));
        assert_eq!(lines.chunk().len(), CHUNK_LINES);
        let rest = lines.chunk();
        assert_eq!((rest.len(), rest[0].0), (3, CHUNK_LINES + 1));
    }
}
