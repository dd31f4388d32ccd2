//! Messages in: one, a batch, or lines; and what became of each.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::Seq;
use caxton_projections::conversations::DeadLetter;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::Api;
use super::super::batch::failed;
use super::super::call::Call;
use super::super::fields::Sorted;
use super::super::lines::{Answering, parsed, streamed};
use super::super::problem::{Complaint, Problem};
use super::super::refusals::{Place, status_of, whole};
use super::super::rows;
use super::outgoing::{EXTRAS, MESSAGE, outgoing};
use super::plain::{self, Listed, Together};
use super::shown::{Sent, sent};
use super::{complaint, not_done, room, says_who};
use crate::commands::Refusal;
use crate::commands::talk::Outgoing;
use crate::engine::{SentOutcome, SentResults, TalkError};

/// Room for the answer to one line.
const ANSWER_BYTES: usize = 320;
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
        let (body, request_id) = (call.body.clone(), call.request_id.clone());
        return Ok(streamed(body, Job { api, request_id, explain, call }));
    }
    let wish = single(&call)?;
    says_who(&call, "sender", &wish.sender)?;
    room(&api, &wish)?;
    let outcome = api.engine.send(wish).await;
    let outcome = outcome.map_err(|error| call.with_values(not_done(error, &whole)))?;
    created(&api, &outcome, explain)
}

/// The one message of a body.
pub(super) fn single(call: &Call) -> Result<Outgoing, Problem> {
    if call.is_json()
        && let Some(wish) = plain::message(&call.body, &call.request_id)
    {
        return Ok(wish);
    }
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
    let Together { wishes, listed, atomic } = many(&call, api.options.batch_items_max)?;
    for (at, wish) in listed.places.iter().zip(&wishes) {
        says_who(&call, &format!("messages[{at}].sender"), &wish.sender)?;
        room(&api, wish)?;
    }
    let place = |index: usize| listed.place(index);
    let results = api.engine.send_many(wishes, atomic).await;
    let results = results.map_err(|error| call.with_values(not_done(error, &place)))?;
    let lost = results.iter().filter(|result| result.is_err()).count();
    if lost > 0 && lost == results.len() {
        let refusals: Vec<Refusal> = results.into_iter().filter_map(Result::err).collect();
        let status = refusals.first().map_or(StatusCode::UNPROCESSABLE_ENTITY, |first| status_of(first.code));
        let told = refusals.into_iter().map(|refusal| complaint(refusal, &place));
        let unread = listed.bad.iter().map(|(_, complaint, _)| complaint.clone());
        return Err(call.with_values(Problem::complaints(status, told.chain(unread).collect())));
    }
    told(&api, explain, &listed, &results)
}

/// The messages of a list.
pub(super) fn many(call: &Call, items_max: usize) -> Result<Together, Problem> {
    plain::batch(call, items_max).map_or_else(|| together(call, items_max), Ok)
}

/// What is told of a list, some message of which was sent.
pub(super) fn told(
    api: &Api,
    explain: bool,
    listed: &Listed,
    results: &SentResults,
) -> Result<Response, Problem> {
    let place = |index: usize| listed.place(index);
    let Listed { places, bad, batch_id } = listed;
    let lost = results.iter().filter(|result| result.is_err()).count() + bad.len();
    let status = if lost == 0 { StatusCode::CREATED } else { StatusCode::MULTI_STATUS };
    let shown = {
        let state = api.engine.view().talk().read();
        let letters = state.conversations.dead_letters();
        let sent = results.iter().map(|result| Item::of(letters, result, explain, &place));
        let mut shown: Vec<(usize, Item<'_>)> = places.iter().copied().zip(sent).collect();
        shown.extend(bad.iter().map(|(at, complaint, status)| (*at, Item::failed(complaint, *status))));
        shown.sort_by_key(|(at, _)| *at);
        shown.into_iter().map(|(_, item)| item).collect::<Vec<_>>()
    };
    let body = Sending {
        batch_id: batch_id.as_deref(),
        failed_messages: lost,
        messages_sent: shown.len() - lost,
        seq: results.iter().flatten().map(|outcome| outcome.seq).max(),
        results: shown,
    };
    rows::json(status, &body)
}

/// The messages of a body that is not plain.
fn together(call: &Call, items_max: usize) -> Result<Together, Problem> {
    let mut body = call.members(&[&["messages", "atomic", "batch_id"]])?;
    let atomic = body.flag("atomic").unwrap_or(true);
    let batch_id = body.text("batch_id");
    let items = body.list("messages", true, items_max);
    if items.is_empty() && body.is_fine() {
        body.complain("messages", None, "is empty", "give at least one message");
    }
    let mut all = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let mut part = body.part(item, &format!("messages[{index}]"), &[MESSAGE, EXTRAS]);
        all.push((outgoing(&mut part, &call.request_id), part));
    }
    let Sorted { good, bad } = body.sorted(all, atomic);
    body.finish()?;
    let (places, wishes): (Vec<usize>, Vec<Option<Outgoing>>) = good.into_iter().unzip();
    let bad = bad.into_iter().map(|(at, complaint, _)| (at, complaint, StatusCode::UNPROCESSABLE_ENTITY));
    Ok(Together {
        wishes: wishes.into_iter().map(read).collect::<Result<_, _>>()?,
        listed: Listed { places, bad: bad.collect(), batch_id },
        atomic,
    })
}

/// The answer to a batch: members in the order of their names.
#[derive(Serialize)]
struct Sending<'a> {
    batch_id: Option<&'a str>,
    failed_messages: usize,
    messages_sent: usize,
    results: Vec<Item<'a>>,
    seq: Option<Seq>,
}

/// What became of one of many messages.
#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Sent(Sent<'a>),
    Failed(Map<String, Value>),
}

impl<'a> Item<'a> {
    fn of(
        letters: &BTreeMap<Seq, DeadLetter>,
        result: &'a Result<SentOutcome, Refusal>,
        explain: bool,
        place: Place<'_>,
    ) -> Self {
        match result {
            Ok(outcome) => Self::Sent(Sent::of(letters, outcome, explain)),
            Err(refusal) => Self::failed(&complaint(refusal.clone(), place), status_of(refusal.code)),
        }
    }

    fn failed(complaint: &Complaint, status: StatusCode) -> Self {
        Self::Failed(failed(Map::new(), complaint, status))
    }

    /// The same as the answer to a line.
    fn at(mut self, line: usize) -> Self {
        match &mut self {
            Self::Sent(sent) => sent.line = Some(line),
            Self::Failed(members) => drop(members.insert("line".to_owned(), json!(line))),
        }
        self
    }
}

/// One message a line, each for itself.
struct Job {
    api: Api,
    request_id: String,
    explain: bool,
    call: Call,
}

impl Job {
    /// The message of a line, if there is room for it.
    fn accepted(&self, line: &Bytes) -> Result<Outgoing, (Complaint, StatusCode)> {
        let wish = self.parsed(line)?;
        says_who(&self.call, "sender", &wish.sender)
            .and_then(|()| room(&self.api, &wish))
            .map_err(|problem| (problem.as_complaint(), problem.status()))?;
        Ok(wish)
    }

    fn parsed(&self, line: &Bytes) -> Result<Outgoing, (Complaint, StatusCode)> {
        let told = |problem: Problem| (problem.as_complaint(), problem.status());
        // Lines are sent some at a time: what a line finds beside it must not depend on where they are cut.
        let is_cut_off = |wish: &Outgoing| wish.in_reply_to.is_some() && wish.conversation.is_none();
        match plain::message(line, &self.request_id).filter(|wish| !is_cut_off(wish)) {
            Some(wish) => Ok(wish),
            None => self.read_long(line, is_cut_off).and_then(|wish| read(wish).map_err(told)),
        }
    }

    fn read_long(
        &self,
        line: &Bytes,
        is_cut_off: impl Fn(&Outgoing) -> bool,
    ) -> Result<Option<Outgoing>, (Complaint, StatusCode)> {
        let wish = parsed(line, &[MESSAGE, EXTRAS], |fields| {
            let wish = outgoing(fields, &self.request_id);
            if wish.as_ref().is_some_and(is_cut_off) {
                let remedy = "give the conversation_id of the message that in_reply_to names";
                fields.complain("conversation_id", None, "is missing beside in_reply_to", remedy);
            }
            wish
        });
        wish.map_err(|complaint| (complaint, StatusCode::UNPROCESSABLE_ENTITY))
    }

    /// Offers messages to the engine, again when it is busy: the body is here, so its sender can wait.
    async fn offered(&self, mut wishes: Vec<Outgoing>, lines: &[&Bytes]) -> Result<SentResults, TalkError> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let mut pause = Duration::from_millis(10);
        for _ in 1..OFFERS_MAX {
            match self.api.engine.send_many(wishes, false).await {
                Err(TalkError::Overloaded) => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            // The engine is rarely busy: reading the lines once more costs less than a copy of all, each time.
            wishes = lines.iter().filter_map(|line| self.parsed(line).ok()).collect();
            pause *= 2;
        }
        self.api.engine.send_many(wishes, false).await
    }
}

impl Answering for Job {
    async fn answer(&mut self, chunk: Vec<(usize, Bytes)>) -> Bytes {
        let mut wishes = Vec::with_capacity(chunk.len());
        let mut lines = Vec::with_capacity(chunk.len());
        let mut items = Vec::with_capacity(chunk.len());
        for (number, line) in &chunk {
            match self.accepted(line) {
                Ok(wish) => {
                    wishes.push(wish);
                    lines.push(line);
                    items.push((*number, None));
                }
                Err(complaint) => items.push((*number, Some(complaint))),
            }
        }
        let (results, problem) = match self.offered(wishes, &lines).await {
            Ok(results) => (results, None),
            Err(error) => (Vec::new(), Some(not_done(error, &whole))),
        };
        let state = self.api.engine.view().talk().read();
        let letters = state.conversations.dead_letters();
        let mut results = results.iter();
        let mut text = Vec::with_capacity(items.len() * ANSWER_BYTES);
        for (number, complaint) in items {
            let item = match (complaint, &problem) {
                (Some((complaint, status)), _) => Item::failed(&complaint, status),
                (None, Some(problem)) => Item::failed(&problem.as_complaint(), problem.status()),
                (None, None) => match results.next() {
                    Some(result) => Item::of(letters, result, self.explain, &whole),
                    None => Item::Failed(Map::new()),
                },
            };
            // Texts and numbers always serialise.
            let _ = serde_json::to_writer(&mut text, &item.at(number));
            text.push(b'\n');
        }
        Bytes::from(text)
    }
}
