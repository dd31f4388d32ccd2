//! Messages that were given up: a page, and sending one again.

use std::ops::Bound;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::conversation::DeadLetterReason;
use caxton_events::{AgentId, Seq};
use caxton_projections::conversations::DeadLetter;
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::{Call, READ_QUERY};
use super::super::entities::Page;
use super::super::problem::Problem;
use super::super::refusals::{internal, whole};
use super::super::rows;
use super::conversations::optional;
use super::not_done;
use super::shown::sent;

fn shown(row: &DeadLetter) -> Value {
    json!({
        "seq": row.seq,
        "message_seq": row.sent,
        "message_id": row.message,
        "receiver": row.receiver,
        "reason": row.reason,
        "attempts": row.attempts,
        "detail": row.detail,
        "recorded_at": row.at,
        "replayed_as": row.replayed,
    })
}

/// `GET /dead-letters`: in their order.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Page::QUERY, READ_QUERY, &["receiver", "reason", "replayed"]])?;
    let page = Page::take(&api, &call, &mut query);
    let min_seq = call.min_seq(&mut query);
    let receiver = query.parsed::<AgentId>("receiver");
    let reason = query.parsed::<DeadLetterReason>("reason");
    let replayed = query.flag("replayed");
    query.finish()?;
    let after = page.after()?.map_or(Seq::ZERO, Seq);
    api.talk_caught_up(min_seq).await?;
    api.read(move |view| {
        let state = view.talk().read();
        let letters = state.conversations.dead_letters();
        let is_wanted = |row: &&DeadLetter| {
            (receiver.is_none() || row.receiver == receiver)
                && reason.is_none_or(|reason| reason == row.reason)
                && replayed.is_none_or(|replayed| replayed != row.replayed.is_empty())
        };
        let total = letters.values().filter(is_wanted).count();
        let mut rows: Vec<&DeadLetter> = letters
            .range((Bound::Excluded(after), Bound::Unbounded))
            .map(|(_, row)| row)
            .filter(is_wanted)
            .take(page.limit + 1)
            .collect();
        let next_cursor = page.cut(&mut rows, |row| row.seq.0);
        let rows: Vec<Value> = rows.into_iter().map(shown).collect();
        drop(state);
        let count = rows.len();
        let body = json!({"dead_letters": rows, "count": count, "total": total, "next_cursor": next_cursor});
        rows::json(StatusCode::OK, &body)
    })
    .await
}

/// `POST /dead-letters/{seq}/replay`: its message as a new one.
pub(super) async fn replay(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let mut body = optional(&call, &[&["again"]])?;
    let is_wanted_again = body.flag("again").unwrap_or(false);
    body.finish()?;
    let text = call.path("seq");
    let seq = text.parse::<u64>().map_err(|_| {
        Problem::new(StatusCode::BAD_REQUEST, "INVALID_ID", "the path does not name a position")
            .field("seq")
            .value(text)
            .remedy("give the seq of a dead letter, as GET /dead-letters shows it")
    })?;
    let engine = api.engine.clone();
    let outcome =
        tokio::task::spawn_blocking(move || engine.replay_blocking(Seq(seq), is_wanted_again)).await;
    let outcome = outcome.map_err(|error| internal(&error))?.map_err(|error| not_done(error, &whole))?;
    rows::json(StatusCode::CREATED, &sent(&api, &outcome, true))
}
