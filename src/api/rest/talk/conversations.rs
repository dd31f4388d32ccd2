//! Conversations: a page, one, what was said in it, opening, closing, putting away.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::conversation::ConversationEnd;
use caxton_events::{AgentId, ConversationId, Seq};
use caxton_projections::conversations::Conversation;
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::Call;
use super::super::caller::Caller;
use super::super::entities::Page;
use super::super::fields::Fields;
use super::super::problem::{Problem, shortened};
use super::super::refusals::whole;
use super::super::rows;
use super::not_done;
use super::shown::message;
use crate::commands::RefusalCode;
use crate::commands::talk::{NewConversation, Upkeep};

/// Who does something; a name or the header.
const WHO: &[&str] = &["agent_id", "workspace"];
/// A year.
const TIMEOUT_SECONDS_MAX: u64 = 366 * 24 * 3_600;

/// Which conversations a page lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Present,
    Open,
    Ended,
    Archived,
    All,
}

const WHICH: &[(&str, Which)] = &[
    ("present", Which::Present),
    ("active", Which::Open),
    ("ended", Which::Ended),
    ("archived", Which::Archived),
    ("all", Which::All),
];

impl Which {
    fn holds(self, row: &Conversation) -> bool {
        match self {
            Self::Present => !row.archived,
            Self::Open => row.is_open(),
            Self::Ended => !row.is_open() && !row.archived,
            Self::Archived => row.archived,
            Self::All => true,
        }
    }
}

fn status(row: &Conversation) -> &'static str {
    match (row.archived, row.ending) {
        (true, _) => "archived",
        (false, Some(ending)) => ending.end.as_str(),
        (false, None) => "active",
    }
}

fn shown(row: &Conversation) -> Value {
    json!({
        "conversation_id": row.id,
        "status": status(row),
        "topic": row.topic,
        "protocol": row.protocol,
        "parent_conversation": row.parent,
        "participants": row.participants,
        "message_count": row.messages.len(),
        "created_at": row.opened_at,
        "last_activity": row.last_at,
        "ends_at": row.is_open().then(|| row.deadline()),
        "ended_at": row.ending.map(|ending| ending.at),
        "end": row.ending.map(|ending| ending.end),
        "participants_max": row.participants_max,
        "messages_max": row.messages_max,
        "seq": row.opened,
    })
}

fn missing(text: &str) -> Problem {
    let detail = format!("there is no conversation {:?}", shortened(text));
    Problem::new(StatusCode::NOT_FOUND, RefusalCode::ConversationNotFound.as_str(), detail)
        .field("conversation_id")
        .value(text)
        .remedy("see GET /conversations")
}

/// The conversation that the path names. A name that can be none is one that nobody has.
fn named(call: &Call) -> Result<ConversationId, Problem> {
    let text = call.path("conversation");
    text.parse().map_err(|_| missing(text))
}

/// `GET /conversations`: the latest opened first.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Page::QUERY, &["participant", "status"]])?;
    let page = Page::take(&api, &call, &mut query);
    let participant = query.parsed::<AgentId>("participant");
    let which = query.choice("status", WHICH).unwrap_or(Which::Present);
    query.finish()?;
    let before = page.after()?.map_or(Seq(u64::MAX), Seq);
    api.read(move |view| {
        let state = view.talk().read();
        let mut rows: Vec<&Conversation> = state
            .conversations
            .iter()
            .filter(|row| row.opened < before && which.holds(row))
            .filter(|row| participant.as_ref().is_none_or(|agent| row.participants.contains(agent)))
            .collect();
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.opened));
        rows.truncate(page.limit + 1);
        let next_cursor = page.cut(&mut rows, |row| row.opened.0);
        let shown: Vec<Value> = rows.into_iter().map(shown).collect();
        drop(state);
        let count = shown.len();
        rows::json(
            StatusCode::OK,
            &json!({"conversations": shown, "count": count, "next_cursor": next_cursor}),
        )
    })
    .await
}

/// `GET /conversations/{id}`.
pub(super) async fn get(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    rows::json(StatusCode::OK, &present(&api, &named(&call)?)?)
}

fn present(api: &Api, id: &ConversationId) -> Result<Value, Problem> {
    let state = api.engine.view().talk().read();
    state.conversations.get(id).map(shown).ok_or_else(|| missing(id.as_str()))
}

/// `GET /conversations/{id}/messages`: in their order.
pub(super) async fn messages(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Page::QUERY])?;
    let page = Page::take(&api, &call, &mut query);
    query.finish()?;
    let id = named(&call)?;
    let after = page.after()?.map_or(Seq::ZERO, Seq);
    let engine = api.engine.clone();
    api.read(move |view| {
        let (mut seqs, total): (Vec<Seq>, u64) = {
            let state = view.talk().read();
            let row = state.conversations.get(&id).ok_or_else(|| missing(id.as_str()))?;
            (row.messages.after(after).take(page.limit + 1).collect(), row.messages.len())
        };
        let next_cursor = page.cut(&mut seqs, |seq| seq.0);
        let records = engine.records(&seqs).map_err(|error| not_done(error, &whole))?;
        let messages: Vec<Value> = records.iter().filter_map(message).collect();
        let body = json!({
            "conversation_id": id,
            "count": messages.len(),
            "messages": messages,
            "total": total,
            "next_cursor": next_cursor,
        });
        rows::json(StatusCode::OK, &body)
    })
    .await
}

fn millis(body: &mut Fields, name: &str) -> Option<u64> {
    body.integer(name, 1..=TIMEOUT_SECONDS_MAX).map(|seconds| seconds * 1_000)
}

fn count(body: &mut Fields, name: &str) -> Option<u32> {
    body.integer(name, 1..=u64::from(u32::MAX)).and_then(|count| u32::try_from(count).ok())
}

/// `POST /conversations`: one that begins before its first message.
pub(super) async fn open(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let known: &[&str] = &[
        "conversation_id",
        "topic",
        "protocol",
        "parent_conversation",
        "idle_timeout_seconds",
        "life_timeout_seconds",
        "participants_max",
        "messages_max",
    ];
    call.query(&[])?.finish()?;
    let mut body = call.members(&[WHO, known])?;
    let caller = Caller::take(&mut [&mut body], call.headers());
    let wish = NewConversation {
        id: body.parsed("conversation_id"),
        topic: body.text("topic"),
        protocol: body.text("protocol"),
        parent: body.parsed("parent_conversation"),
        idle_timeout_millis: millis(&mut body, "idle_timeout_seconds"),
        life_timeout_millis: millis(&mut body, "life_timeout_seconds"),
        participants_max: count(&mut body, "participants_max"),
        messages_max: count(&mut body, "messages_max"),
    };
    body.finish()?;
    let done = api.engine.upkeep(&caller.agent, Upkeep::Open(wish)).await;
    let done = done.map_err(|error| not_done(error, &whole))?;
    let id = done.record.and_then(|record| record.stream.parse::<ConversationId>().ok());
    let id = id.ok_or_else(|| missing(""))?;
    rows::json(StatusCode::CREATED, &present(&api, &id)?)
}

/// `POST /conversations/{id}/close`.
pub(super) async fn close(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let ends: &[(&str, ConversationEnd)] =
        &[("completed", ConversationEnd::Completed), ("cancelled", ConversationEnd::Cancelled)];
    let mut body = optional(&call, &[WHO, &["end"]])?;
    let caller = Caller::take(&mut [&mut body], call.headers());
    let end = body.choice("end", ends).unwrap_or(ConversationEnd::Completed);
    body.finish()?;
    let conversation = named(&call)?;
    ended(&api, &caller, conversation.clone(), Upkeep::Close { conversation, end }).await
}

/// `POST /conversations/{id}/archive`.
pub(super) async fn archive(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut body = optional(&call, &[WHO])?;
    let caller = Caller::take(&mut [&mut body], call.headers());
    body.finish()?;
    let conversation = named(&call)?;
    ended(&api, &caller, conversation.clone(), Upkeep::Archive { conversation }).await
}

/// The members of a body that need not be there.
fn optional(call: &Call, known: &[&[&str]]) -> Result<Fields, Problem> {
    call.query(&[])?.finish()?;
    if call.body.is_empty() { Fields::query(None, known) } else { call.members(known) }
}

async fn ended(api: &Api, caller: &Caller, id: ConversationId, wish: Upkeep) -> Result<Response, Problem> {
    let done = api.engine.upkeep(&caller.agent, wish).await.map_err(|error| not_done(error, &whole))?;
    let mut shown = present(api, &id)?;
    shown["seq"] = json!(done.seq);
    rows::json(StatusCode::OK, &shown)
}
