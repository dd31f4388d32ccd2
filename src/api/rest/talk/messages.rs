//! Messages in: one, a batch, or lines; and what became of each.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::stream;
use serde_json::{Map, Value, json};

use super::super::Api;
use super::super::batch::failed;
use super::super::call::Call;
use super::super::fields::Fields;
use super::super::json::parse_json;
use super::super::lines::Lines;
use super::super::problem::{Complaint, Problem};
use super::super::refusals::{Place, status_of, whole};
use super::super::rows;
use super::outgoing::{EXTRAS, MESSAGE, outgoing};
use super::shown::sent;
use super::{complaint, not_done, refused};
use crate::commands::Refusal;
use crate::commands::talk::Outgoing;
use crate::engine::{SentOutcome, SentResults, TalkError};

/// How often a chunk of lines is offered again to an engine that is busy.
const OFFERS_MAX: u32 = 8;

/// Whether routing is to be explained.
pub(super) fn explain(call: &Call) -> Result<bool, Problem> {
    let mut query = call.query(&[&["explain"]])?;
    let explain = query.flag("explain").unwrap_or(false);
    if call.headers().contains_key("idempotency-key") {
        let remedy = "give each message a message_id: a repetition is recognised by it";
        query.complain("Idempotency-Key", None, "is not for messages", remedy);
    }
    query.finish()?;
    Ok(explain)
}

/// A message that was read without a complaint is there; that it is not cannot happen.
fn read(wish: Option<Outgoing>) -> Result<Outgoing, Problem> {
    wish.ok_or_else(|| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", "the message is not valid")
    })
}

/// `POST /messages`: one JSON message, or one a line.
pub(super) async fn create(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let explain = explain(&call)?;
    if call.is_lines() {
        return Ok(lines(api, &call, explain));
    }
    let wish = single(&call)?;
    let outcome = api.engine.send(wish).await.map_err(|error| not_done(error, &whole))?;
    created(&api, &outcome, explain)
}

/// The one message of a body.
pub(super) fn single(call: &Call) -> Result<Outgoing, Problem> {
    let mut fields = call.members(&[MESSAGE, EXTRAS])?;
    let wish = outgoing(&mut fields, &call.request_id);
    fields.finish()?;
    read(wish)
}

/// What its sender is told.
pub(super) fn created(api: &Api, outcome: &SentOutcome, explain: bool) -> Result<Response, Problem> {
    let status = if outcome.replayed { StatusCode::OK } else { StatusCode::CREATED };
    rows::json(status, &sent(api, outcome, explain))
}

/// `POST /messages/batch`: a list, all or none unless `atomic` is false.
pub(super) async fn batch(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let explain = explain(&call)?;
    let mut body = call.members(&[&["messages", "atomic", "batch_id"]])?;
    let atomic = body.flag("atomic").unwrap_or(true);
    let batch_id = body.text("batch_id");
    let items = body.list("messages", true, api.options.batch_items_max);
    let mut wishes = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let mut part = body.part(item, &format!("messages[{index}]"), &[MESSAGE, EXTRAS]);
        wishes.push(outgoing(&mut part, &call.request_id));
        body.absorb(part);
    }
    if wishes.is_empty() {
        body.complain("messages", None, "is empty", "give at least one message");
    }
    body.finish()?;
    let wishes = wishes.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let place = |index: usize| format!("messages[{index}].");
    let results = api.engine.send_many(wishes, atomic).await;
    let results = results.map_err(|error| not_done(error, &place))?;
    let refusals: Vec<&Refusal> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let lost = refusals.len();
    if lost > 0 && lost == results.len() {
        return Err(refused(refusals.into_iter().cloned().collect(), &place));
    }
    let status = if lost == 0 { StatusCode::CREATED } else { StatusCode::MULTI_STATUS };
    let seq = results.iter().flatten().map(|outcome| outcome.seq).max();
    let shown: Vec<Value> = results.iter().map(|result| item(&api, result, explain, &place)).collect();
    let body = json!({
        "batch_id": batch_id,
        "messages_sent": shown.len() - lost,
        "failed_messages": lost,
        "results": shown,
        "seq": seq,
    });
    rows::json(status, &body)
}

fn item(api: &Api, result: &Result<SentOutcome, Refusal>, explain: bool, place: Place<'_>) -> Value {
    match result {
        Ok(outcome) => sent(api, outcome, explain),
        Err(refusal) => {
            let status = status_of(refusal.code);
            Value::Object(failed(Map::new(), &complaint(refusal.clone(), place), status))
        }
    }
}

/// One message a line, each for itself; the answer has one line a message, as soon as it is there.
fn lines(api: Api, call: &Call, explain: bool) -> Response {
    let job = Job { api, request_id: call.request_id.clone(), explain, lines: Lines::of(call.body.clone()) };
    let answers = stream::unfold(job, |mut job| async move {
        let chunk = job.lines.chunk();
        if chunk.is_empty() {
            return None;
        }
        let answer = job.answer(chunk).await;
        Some((Ok::<_, std::convert::Infallible>(answer), job))
    });
    let mut response = Response::new(Body::from_stream(answers));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

struct Job {
    api: Api,
    request_id: String,
    explain: bool,
    lines: Lines,
}

impl Job {
    fn parsed(&self, line: &Bytes) -> Result<Outgoing, Complaint> {
        let value = parse_json(line).map_err(|problem| problem.as_complaint())?;
        let mut fields = Fields::object(value, String::new(), &[MESSAGE, EXTRAS]);
        let wish = outgoing(&mut fields, &self.request_id);
        match fields.into_complaint() {
            Some(complaint) => Err(complaint),
            None => read(wish).map_err(|problem| problem.as_complaint()),
        }
    }

    async fn answer(&self, chunk: Vec<(usize, Bytes)>) -> Bytes {
        let mut wishes = Vec::with_capacity(chunk.len());
        let mut items = Vec::with_capacity(chunk.len());
        for (number, line) in chunk {
            match self.parsed(&line) {
                Ok(wish) => {
                    wishes.push(wish);
                    items.push((number, None));
                }
                Err(complaint) => items.push((number, Some(complaint))),
            }
        }
        let (mut results, problem) = match offered(&self.api, wishes).await {
            Ok(results) => (results.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(not_done(error, &whole))),
        };
        let mut text = String::new();
        for (number, complaint) in items {
            let mut shown = match (complaint, &problem) {
                (Some(complaint), _) => {
                    failed(Map::new(), &complaint, StatusCode::UNPROCESSABLE_ENTITY).into()
                }
                (None, Some(problem)) => failed(Map::new(), &problem.as_complaint(), problem.status()).into(),
                (None, None) => match results.next() {
                    Some(result) => item(&self.api, &result, self.explain, &whole),
                    None => json!({}),
                },
            };
            shown["line"] = json!(number);
            text.push_str(&shown.to_string());
            text.push('\n');
        }
        Bytes::from(text)
    }
}

/// Offers messages to the engine, again when it is busy: the body is here, so its sender can wait.
async fn offered(api: &Api, wishes: Vec<Outgoing>) -> Result<SentResults, TalkError> {
    if wishes.is_empty() {
        return Ok(Vec::new());
    }
    let mut pause = Duration::from_millis(10);
    for _ in 1..OFFERS_MAX {
        match api.engine.send_many(wishes.clone(), false).await {
            Err(TalkError::Overloaded) => tokio::time::sleep(pause).await,
            answer => return answer,
        }
        pause *= 2;
    }
    api.engine.send_many(wishes, false).await
}
