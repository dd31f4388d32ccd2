//! Messages that go nowhere: what the log costs is measured against them. No route of the product leads here.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use caxton_events::{Clock as _, ConversationId, MessageId, Seq};

use super::super::Api;
use super::super::call::Call;
use super::super::problem::Problem;
use super::messages;
use super::plain::Together;
use crate::commands::talk::{Outgoing, To};
use crate::engine::{SentOutcome, SystemClock};

/// Stands where the position in the log would.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The routes, below `/api/v1`.
pub(in crate::api::rest) fn routes() -> Router<Api> {
    Router::new()
        .route("/messages", post(create))
        .route("/messages/batch", post(batch))
        .route("/messages/unread", post(unread))
}

/// As `POST /messages` for one message, without the engine in between.
async fn create(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let explain = messages::explain(&call)?;
    let outcome = outcome(messages::single(&call)?);
    messages::created(&api, &outcome, explain)
}

/// As `POST /messages/batch`, without the engine in between.
async fn batch(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let explain = messages::explain(&call)?;
    let Together { wishes, listed, .. } = messages::many(&call, api.options.batch_items_max)?;
    let results = wishes.into_iter().map(|wish| Ok(outcome(wish))).collect();
    messages::told(&api, explain, &listed, &results)
}

/// Takes a body and looks at nothing of it: what the network alone costs.
async fn unread(call: Call) -> StatusCode {
    drop(call);
    StatusCode::CREATED
}

fn outcome(wish: Outgoing) -> SentOutcome {
    let seq = NEXT.fetch_add(1, Ordering::Relaxed);
    let recorded_at = SystemClock.now();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&seq.to_le_bytes());
    let drawn = MessageId::new(recorded_at, random);
    let conversation = wish.conversation.or_else(|| drawn.to_string().parse::<ConversationId>().ok());
    SentOutcome {
        seq: Seq(seq),
        id: wish.id.unwrap_or(drawn),
        conversation: conversation.unwrap_or_else(super::super::caller::default),
        receivers: match wish.to {
            To::Agents(agents) => agents,
            To::Capability { .. } => Vec::new(),
        },
        routing: None,
        recorded_at,
        replayed: false,
    }
}
