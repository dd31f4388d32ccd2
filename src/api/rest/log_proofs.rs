//! The log for auditors: its signed head, proofs that an event is in it, proofs that it only grew.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::Seq;
use caxton_events::log::{ProveError, ReadError};
use caxton_tools::log::{prove, prove_growth};
use serde_json::json;

use super::Api;
use super::call::Call;
use super::fields::Fields;
use super::problem::Problem;
use super::refusals::{begins_at, events_dropped, log_unreadable};
use super::rows;

/// `GET /log/head`: the position and the Merkle root of everything recorded, signed.
pub(super) async fn head(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let (head, signer) = (api.engine.log().head(), api.engine.signer());
    let origin = api.engine.log().origin().map_err(|error| log_unreadable(&ReadError::Store(error)))?;
    let first = begins_at(api.engine.log(), &[])?;
    rows::json(
        StatusCode::OK,
        &json!({
            "origin": Some(origin).filter(|origin| !origin.is_none()),
            "seq": head.seq,
            "first_seq": first,
            "root": head.root.to_string(),
            "recorded_at": head.recorded_at,
            "checkpoint": signer.sign(head).to_string(),
            "public_key": signer.public_key().to_string(),
        }),
    )
}

/// `GET /log/proof`: that the event at `seq` is among the first `size`, by default among all.
pub(super) async fn proof(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["seq", "size"]])?;
    let seq = required(&mut query, "seq", 1);
    let size = query.integer("size", 1..=u64::MAX);
    query.finish()?;
    let engine = api.engine.clone();
    api.read(move |_| {
        let proof = prove(engine.log(), engine.signer(), Seq(seq), size);
        let proof = proof.map_err(|error| unproved(&error, "seq"))?;
        rows::json(StatusCode::OK, &proof)
    })
    .await
}

/// `GET /log/consistency`: that the first `from` events are still the first of the first `to`, by default of all.
pub(super) async fn consistency(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["from", "to"]])?;
    let from = required(&mut query, "from", 0);
    let to = query.integer("to", 0..=u64::MAX);
    query.finish()?;
    let engine = api.engine.clone();
    api.read(move |_| {
        // Of nothing at all the log still has everything.
        let field = if from == 0 { "to" } else { "from" };
        let proof = prove_growth(engine.log(), engine.signer(), from, to);
        let proof = proof.map_err(|error| unproved(&error, field))?;
        rows::json(StatusCode::OK, &proof)
    })
    .await
}

fn required(query: &mut Fields, name: &str, least: u64) -> u64 {
    if !query.has(name) {
        query.complain(name, None, "is missing", "add it: it is required");
    }
    query.integer(name, least..=u64::MAX).unwrap_or_default()
}

/// Nothing is proved; `field` asked for the earliest event.
fn unproved(error: &ProveError, field: &str) -> Problem {
    match error {
        ProveError::Dropped { first, .. } => events_dropped(field, *first),
        ProveError::Beyond { .. } => {
            Problem::new(StatusCode::NOT_FOUND, "EVENT_NOT_FOUND", error.to_string())
                .remedy("GET /api/v1/log/head says how many events there are")
        }
        ProveError::Erased { .. } => Problem::new(StatusCode::GONE, "EVENT_ERASED", error.to_string())
            .remedy("prove the order that erased it instead"),
        ProveError::Read(error) => log_unreadable(error),
    }
}
