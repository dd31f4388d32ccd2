//! `GET /audit/why/{what}`: what led to an event, a row of the memory, a message or a turn.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::Seq;
use caxton_events::log::ReadError;
use caxton_tools::audit::{Subject, WhyError, WhyOptions};

use super::Api;
use crate::api::rest::call::Call;
use crate::api::rest::problem::Problem;
use crate::api::rest::refusals::{events_dropped, log_unreadable};
use crate::api::rest::rows;

/// `GET /audit/why/{what}`.
pub(in crate::api::rest) async fn why(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["depth", "nodes"]])?;
    let standard = WhyOptions::default();
    let depth = query.integer("depth", WhyOptions::DEPTH);
    let nodes = query.integer("nodes", WhyOptions::NODES);
    let options = WhyOptions {
        depth_max: depth.map_or(standard.depth_max, |depth| depth as usize),
        nodes_max: nodes.map_or(standard.nodes_max, |nodes| nodes as usize),
    };
    let what = call.path("what").to_owned();
    let subject: Result<Subject, _> = what.parse();
    if let Err(error) = &subject {
        let error = error.to_string();
        let (message, remedy) = error.split_once("; ").unwrap_or((&error, "correct it"));
        query.complain("what", Some(&what), message, remedy);
    }
    query.finish()?;
    let own = api.clone();
    api.read(move |_| {
        // What could not be read was refused above.
        let Ok(subject) = subject else { return Err(missing(&what, format!("the log has no {what}"))) };
        let (log, postings) = (own.engine.log(), own.engine.postings());
        let why = caxton_tools::audit::why(log, postings, (&what, &subject), options);
        rows::json(StatusCode::OK, &why.map_err(|error| unexplained(&what, error))?)
    })
    .await
}

fn unexplained(what: &str, error: WhyError) -> Problem {
    match error {
        WhyError::NotFound { first, .. } => {
            let problem = missing(what, error.to_string());
            if first > Seq::FIRST { problem.detail("first_seq", first.0) } else { problem }
        }
        WhyError::Dropped { first, .. } => events_dropped("what", first).value(what),
        WhyError::Damaged { .. } => damaged(&error),
        WhyError::Store(error) => log_unreadable(&ReadError::Store(error)),
    }
}

fn missing(what: &str, detail: String) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "EVENT_NOT_FOUND", detail)
        .field("what")
        .value(what)
        .remedy("check the id; GET /api/v1/audit finds events by who and what they are about")
}

fn damaged(error: &WhyError) -> Problem {
    tracing::error!(%error, "an event could not be read");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", error.to_string())
        .remedy("run caxton log verify, and restore events.redb from a backup")
}
