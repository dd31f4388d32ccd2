//! `POST /log/seal`: makes a running log ready to be forked.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::Api;
use super::call::Call;
use super::problem::Problem;
use super::refusals::log_unreadable;
use super::rows;
use crate::engine::fork::{Cut, SealLogError};
use crate::failure::chain;

/// Brings everything up to `at` into files that are not written any more, and says which.
pub(super) async fn seal(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.no_body("leave it out; at is a parameter: /api/v1/log/seal?at=17")?;
    let mut query = call.query(&[&["at"]])?;
    let at = query.text("at");
    let cut = at.as_deref().map_or(Some(Cut::Head), Cut::parse);
    if cut.is_none() {
        query.complain(
            "at",
            at.as_deref(),
            "is neither a position nor a time from 1970 on",
            "send 17 or 2026-11-28T14:05:06Z",
        );
    }
    query.finish()?;
    let engine = api.engine.clone();
    api.read(move |_| {
        let (seq, sealed) = engine.seal(cut.unwrap_or(Cut::Head)).map_err(|error| unsealed(&error))?;
        rows::json(StatusCode::OK, &json!({ "seq": seq, "log": sealed }))
    })
    .await
}

fn unsealed(error: &SealLogError) -> Problem {
    match error {
        SealLogError::Beyond { .. } | SealLogError::Before { .. } => {
            Problem::new(StatusCode::NOT_FOUND, "EVENT_NOT_FOUND", error.to_string())
                .remedy("GET /api/v1/log/head says how many events there are")
        }
        SealLogError::Read(error) => log_unreadable(error),
        SealLogError::Open(_) | SealLogError::Seal(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", chain(error))
        }
        SealLogError::Erasing => Problem::new(StatusCode::CONFLICT, "ERASURE_UNDER_WAY", error.to_string()),
        SealLogError::Stopped => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "STOPPING", error.to_string()),
    }
}
