//! Conversations: a page, one, what was said in it, opening, closing, putting away.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::conversation::ConversationEnd;
use caxton_events::{AgentId, Clock as _, ConversationId, Seq, Timestamp};
use caxton_projections::conversations::Conversation;
use caxton_projections::talk::TalkPart;
use caxton_projections::view::View;
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::{Call, READ_QUERY};
use super::super::caller::Caller;
use super::super::entities::Page;
use super::super::fields::Fields;
use super::super::moment::{AS_OF, talk_context};
use super::super::problem::{Problem, shortened};
use super::super::refusals::{begins_at, whole};
use super::super::rows;
use super::not_done;
use super::past::answer;
use super::shown::message;
use crate::commands::RefusalCode;
use crate::commands::talk::{NewConversation, Upkeep};
use crate::config::parse_duration;
use crate::engine::SystemClock;

/// Who does something: a parameter, a member or the header.
pub(super) const WHO: &[&str] = &["agent_id", "workspace"];
/// Conversations looked at for one page; a filter that keeps few answers early, with a cursor.
const LOOKED_AT_MAX: usize = 20_000;
/// Conversations that one request archives.
const ARCHIVED_MAX: usize = 10_000;
/// Who sends and who gets, both of whom count: with room for fewer nobody could be spoken to. As `messaging.max_participants`.
const PARTICIPANTS_LEAST: u64 = 2;
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
        // The largest number stands for no limit.
        "messages_max": Some(row.messages_max).filter(|max| *max < u32::MAX),
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
    let mut query = call.query(&[Page::QUERY, READ_QUERY, AS_OF, &["participant", "status"]])?;
    let page = Page::take(&api, &call, &mut query);
    let (min_seq, as_of) = talk_context(&call, &mut query);
    let participant = query.parsed::<AgentId>("participant");
    let which = query.choice("status", WHICH).unwrap_or(Which::Present);
    query.finish()?;
    let before = page.after()?.map_or(Seq(u64::MAX), Seq);
    let moment = api.talk_moment(as_of, min_seq).await?;
    let body = api.read_talk(moment, TalkPart::Conversations, move |state| {
        let (mut rows, mut stopped) = (Vec::new(), None);
        for (count, row) in state.conversations.opened_before(before).enumerate() {
            let takes_part = participant.as_ref().is_none_or(|agent| row.participants.contains(agent));
            if takes_part && which.holds(row) {
                rows.push(row);
            }
            if rows.len() > page.limit {
                break;
            }
            if count + 1 == LOOKED_AT_MAX {
                stopped = Some(row.opened);
                break;
            }
        }
        let next_cursor = page
            .cut(&mut rows, |row| row.opened.0)
            .or_else(|| stopped.map(|opened| page.cursor_at(opened.0)));
        let shown: Vec<Value> = rows.into_iter().map(shown).collect();
        let count = shown.len();
        Ok(json!({"conversations": shown, "count": count, "next_cursor": next_cursor}))
    });
    answer(moment, body.await?)
}

/// `GET /conversations/{id}`.
pub(super) async fn get(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[READ_QUERY, AS_OF])?;
    let (min_seq, as_of) = talk_context(&call, &mut query);
    query.finish()?;
    let moment = api.talk_moment(as_of, min_seq).await?;
    let id = named(&call)?;
    let part = TalkPart::Conversation(id.clone());
    let body = api.read_talk(moment, part, move |state| {
        state.conversations.get(&id).map(shown).ok_or_else(|| missing(id.as_str()))
    });
    answer(moment, body.await?)
}

fn present(api: &Api, id: &ConversationId) -> Result<Value, Problem> {
    let state = api.engine.view().talk().read();
    state.conversations.get(id).map(shown).ok_or_else(|| missing(id.as_str()))
}

/// `GET /conversations/{id}/messages`: in their order.
pub(super) async fn messages(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Page::QUERY, READ_QUERY, AS_OF])?;
    let page = Page::take(&api, &call, &mut query);
    let (min_seq, as_of) = talk_context(&call, &mut query);
    query.finish()?;
    let moment = api.talk_moment(as_of, min_seq).await?;
    // What was said stays and goes on behind it: of the past it is the part up to the moment.
    let through = moment.map_or(Seq(u64::MAX), |moment| moment.seq);
    let id = named(&call)?;
    let after = page.after()?.map_or(Seq::ZERO, Seq);
    let engine = api.engine.clone();
    api.read(move |view| {
        // The list still names what was dropped: a page of that would be empty.
        let after = after.max(begins_at(engine.log(), &[])?.previous());
        let (mut seqs, total): (Vec<Seq>, u64) = {
            let state = view.talk().read();
            let row = state.conversations.get(&id).filter(|row| row.opened <= through);
            let gone = || {
                let problem = missing(id.as_str());
                match moment {
                    Some(moment) => moment.explained(problem),
                    None => problem,
                }
            };
            let messages = &row.ok_or_else(gone)?.messages;
            let page = messages.after(after).take_while(|seq| *seq <= through).take(page.limit + 1);
            (page.collect(), messages.count_between(Seq::ZERO, through))
        };
        let mut next_cursor = page.cut(&mut seqs, |seq| seq.0);
        let records = engine.records(&seqs).map_err(|error| not_done(error, &whole))?;
        // Of large messages fewer come on a page.
        if let Some(last) = records.last().filter(|record| seqs.last() != Some(&record.seq)) {
            next_cursor = Some(page.cursor_at(last.seq.0));
        }
        let messages: Vec<Value> = records.iter().filter_map(message).collect();
        let body = json!({
            "conversation_id": id,
            "count": messages.len(),
            "messages": messages,
            "total": total,
            "next_cursor": next_cursor,
        });
        answer(moment, body)
    })
    .await
}

fn millis(body: &mut Fields, name: &str) -> Option<u64> {
    body.integer(name, 1..=TIMEOUT_SECONDS_MAX).map(|seconds| seconds * 1_000)
}

fn count(body: &mut Fields, name: &str, least: u64) -> Option<u32> {
    body.integer(name, least..=u64::from(u32::MAX)).and_then(|count| u32::try_from(count).ok())
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
    let (caller, mut body) = asked_by(&call, call.members(&[WHO, known])?)?;
    let wish = NewConversation {
        id: body.parsed("conversation_id"),
        topic: body.text("topic"),
        protocol: body.text("protocol"),
        parent: body.parsed("parent_conversation"),
        idle_timeout_millis: millis(&mut body, "idle_timeout_seconds"),
        life_timeout_millis: millis(&mut body, "life_timeout_seconds"),
        participants_max: count(&mut body, "participants_max", PARTICIPANTS_LEAST),
        messages_max: count(&mut body, "messages_max", 1),
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
    let (caller, mut body) = asked_by(&call, optional(&call, &[WHO, &["end"]])?)?;
    let end = body.choice("end", ends).unwrap_or(ConversationEnd::Completed);
    body.finish()?;
    let conversation = named(&call)?;
    ended(&api, &caller, conversation.clone(), Upkeep::Close { conversation, end }).await
}

/// `POST /conversations/{id}/archive`.
pub(super) async fn archive(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let (caller, body) = asked_by(&call, optional(&call, &[WHO])?)?;
    body.finish()?;
    let conversation = named(&call)?;
    let wish = Upkeep::Archive { conversations: vec![conversation.clone()] };
    ended(&api, &caller, conversation, wish).await
}

/// `POST /conversations/{id}/extend`: other timeouts for one that is open.
pub(super) async fn extend(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] = &["idle_timeout_seconds", "life_timeout_seconds"];
    let (caller, mut body) = asked_by(&call, call.members(&[WHO, own])?)?;
    if !body.has("idle_timeout_seconds") && !body.has("life_timeout_seconds") {
        body.complain(
            "idle_timeout_seconds",
            None,
            "is missing",
            "give it, or life_timeout_seconds, or both",
        );
    }
    let idle_timeout_millis = millis(&mut body, "idle_timeout_seconds");
    let life_timeout_millis = millis(&mut body, "life_timeout_seconds");
    body.finish()?;
    let conversation = named(&call)?;
    let id = conversation.clone();
    ended(&api, &caller, id, Upkeep::Extend { conversation, idle_timeout_millis, life_timeout_millis }).await
}

/// Up to `limit` conversations that are wanted. The state is let go now and then.
fn collected(view: &View, is_wanted: impl Fn(&&Conversation) -> bool, limit: usize) -> Vec<ConversationId> {
    let (mut ids, mut before) = (Vec::new(), Seq(u64::MAX));
    loop {
        let state = view.talk().read();
        let mut count = 0;
        for row in state.conversations.opened_before(before).take(LOOKED_AT_MAX) {
            (count, before) = (count + 1, row.opened);
            if is_wanted(&row) {
                ids.push(row.id.clone());
            }
            if ids.len() == limit {
                return ids;
            }
        }
        if count < LOOKED_AT_MAX {
            return ids;
        }
    }
}

/// A moment, or how long ago it was, as in `30d`.
fn moment(body: &mut Fields, name: &str) -> Option<Timestamp> {
    let text = body.peek_text(name);
    let Some(ago) = text.as_deref().and_then(parse_duration) else {
        if let Some(text) = text.as_deref().filter(|text| text.parse::<Timestamp>().is_err()) {
            body.take(name);
            body.complain(name, Some(text), "is neither a moment nor a span", "write 30d, or 2026-01-31");
        }
        return body.time(name);
    };
    body.take(name);
    let micros = u64::try_from(ago.as_micros()).unwrap_or(u64::MAX);
    Some(Timestamp::from_unix_micros(SystemClock.now().unix_micros().saturating_sub(micros)))
}

const ENDED: &[(&str, Option<ConversationEnd>)] = &[
    ("ended", None),
    ("completed", Some(ConversationEnd::Completed)),
    ("cancelled", Some(ConversationEnd::Cancelled)),
    ("idle_timeout", Some(ConversationEnd::IdleTimeout)),
    ("life_timeout", Some(ConversationEnd::LifeTimeout)),
];

/// `POST /conversations/archive`: those that are named, or those that ended before a moment.
pub(super) async fn archive_many(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] = &["conversation_ids", "older_than", "status", "limit"];
    let (caller, mut body) = asked_by(&call, call.members(&[WHO, own])?)?;
    let by_name = body.has("conversation_ids");
    let mut ids = Vec::new();
    for (index, text) in body.texts("conversation_ids").into_iter().enumerate() {
        match text.parse::<ConversationId>() {
            Ok(id) => ids.push(id),
            Err(error) => {
                let place = format!("conversation_ids[{index}]");
                body.complain(&place, Some(&text), &error.to_string(), "correct the name");
            }
        }
    }
    for name in ["older_than", "status", "limit"] {
        if by_name && body.has(name) {
            body.complain(name, None, "stands beside conversation_ids", "give names or a filter, not both");
        }
    }
    if !by_name && !body.has("older_than") && !body.has("status") {
        let remedy = "give conversation_ids, or older_than, or status (ended: all that have ended)";
        body.complain("conversation_ids", None, "is missing", remedy);
    }
    if ids.len() > ARCHIVED_MAX {
        let message = format!("names {} conversations, the limit is {ARCHIVED_MAX}", ids.len());
        body.complain("conversation_ids", None, &message, "archive them in parts");
    }
    let older_than = moment(&mut body, "older_than");
    let end = body.choice("status", ENDED).flatten();
    let limit = body.integer("limit", 1..=ARCHIVED_MAX as u64).map_or(ARCHIVED_MAX, |limit| limit as usize);
    body.finish()?;
    let mut more = false;
    if by_name {
        ids.sort_unstable();
        ids.dedup();
    } else {
        let is_wanted = move |row: &&Conversation| {
            let Some(ending) = row.ending.filter(|_| !row.archived) else { return false };
            end.is_none_or(|end| end == ending.end) && older_than.is_none_or(|before| ending.at < before)
        };
        ids = api.read(move |view| Ok(collected(view, is_wanted, limit + 1))).await?;
        more = ids.len() > limit;
        ids.truncate(limit);
    }
    let wish = Upkeep::Archive { conversations: ids };
    let done = api.engine.upkeep(&caller.agent, wish).await.map_err(|error| not_done(error, &whole))?;
    rows::json(StatusCode::OK, &json!({"archived": done.recorded, "more": more, "seq": done.seq}))
}

/// Who asks, in the query string, the body or the headers, and the rest of the body.
fn asked_by(call: &Call, mut body: Fields) -> Result<(Caller, Fields), Problem> {
    let mut query = call.query(&[WHO])?;
    let caller = Caller::take(&mut [&mut query, &mut body], call.headers());
    body.absorb(query);
    Ok((caller, body))
}

/// The members of a body that need not be there.
pub(super) fn optional(call: &Call, known: &[&[&str]]) -> Result<Fields, Problem> {
    if call.body.is_empty() { Fields::query(None, known) } else { call.members(known) }
}

async fn ended(api: &Api, caller: &Caller, id: ConversationId, wish: Upkeep) -> Result<Response, Problem> {
    let done = api.engine.upkeep(&caller.agent, wish).await.map_err(|error| not_done(error, &whole))?;
    let mut shown = present(api, &id)?;
    shown["seq"] = json!(done.seq);
    rows::json(StatusCode::OK, &shown)
}
