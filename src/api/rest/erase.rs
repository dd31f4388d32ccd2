//! Erasing: what would go, and its end.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::AgentId;
use caxton_events::log::EraseError as LogEraseError;
use serde_json::{Value, json};

use super::Api;
use super::call::Call;
use super::fields::Fields;
use super::problem::Problem;
use super::refusals::{graph_failed, internal, log_failed, log_unreadable};
use super::rows;
use crate::engine::erase::{Asked, EraseError, Plan, PlanError};

/// Members of the body.
const BODY: &[&str] = &["scope", "agent", "conversation", "reason", "dry_run", "confirm"];
/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1_024;
/// Who asks when the request does not say.
const NOBODY: &str = "system";

/// `POST /erase`: with `dry_run` what would go; with `confirm`, which a dry run gives, its end.
pub(super) async fn erase(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    // What stands there would not be read: a `dry_run` that is passed over erases for good.
    call.query(&[])?.finish()?;
    let mut body = call.members(&[BODY])?;
    let by = asks(&call, &mut body);
    let asked = asked(&mut body);
    let reason = body.text("reason");
    if let Some(reason) = reason.as_ref().filter(|reason| reason.len() > REASON_BYTES_MAX) {
        body.complain(
            "reason",
            Some(reason),
            "is too long",
            &format!("use at most {REASON_BYTES_MAX} bytes"),
        );
    }
    let is_dry = body.flag("dry_run").unwrap_or(false);
    let confirm = body.text("confirm");
    if !is_dry && confirm.is_none() {
        body.complain(
            "confirm",
            None,
            "is missing",
            "send dry_run=true first, look at what would go, and send its confirm with the same request",
        );
    }
    body.finish()?;
    let Some(asked) = asked else { return Err(internal(&std::io::Error::other("nothing was asked for"))) };
    let engine = api.engine.clone();
    let done = tokio::task::spawn_blocking(move || -> Result<Value, EraseError> {
        if is_dry {
            return Ok(shown(&engine.erase_plan(&asked)?));
        }
        let (plan, receipt) = engine.erase(&asked, confirm.as_deref(), (reason, by))?;
        let mut body = shown(&plan);
        body["order_seq"] = json!(receipt.order);
        body["erased_seq"] = json!(receipt.erased);
        body["receipt"] = json!(receipt.text);
        Ok(body)
    });
    let body = done.await.map_err(|error| internal(&error))?.map_err(|error| not_erased(&error))?;
    rows::json(StatusCode::OK, &body)
}

/// Who asks; a header that is no name is a complaint.
fn asks(call: &Call, body: &mut Fields) -> String {
    let Some(value) = call.headers().get("x-caxton-agent") else { return NOBODY.to_owned() };
    let text = value.to_str().unwrap_or_default();
    if let Err(error) = text.parse::<AgentId>() {
        body.complain("x-caxton-agent", Some(text), &error.to_string(), "correct the header");
    }
    text.to_owned()
}

/// What the body names; a complaint is noted where that is not one thing.
fn asked(body: &mut Fields) -> Option<Asked> {
    let named = ["scope", "agent", "conversation"].iter().filter(|name| body.given(name)).count();
    let scope = body.parsed("scope").map(Asked::Scope);
    let agent = body.parsed("agent").map(Asked::Agent);
    let conversation = body.parsed("conversation").map(Asked::Conversation);
    if named != 1 {
        let what =
            if named == 0 { "is missing" } else { "stands beside another of scope, agent and conversation" };
        body.complain("scope", None, what, "name exactly one of scope, agent and conversation");
    }
    scope.or(agent).or(conversation)
}

fn shown(plan: &Plan) -> Value {
    let subjects: Vec<Value> = plan
        .subjects
        .iter()
        .map(|planned| {
            json!({
                "subject": planned.subject.to_string(),
                "events": planned.holdings.readable(),
                "encrypted": planned.holdings.sealed,
                "plain": planned.holdings.plain,
                "erased_before": planned.holdings.erased,
            })
        })
        .collect();
    let stays: Vec<Value> =
        plan.stays.iter().map(|(scope, facts)| json!({"scope": scope, "facts": facts})).collect();
    json!({
        "asked": plan.asked.to_string(),
        "subjects": subjects,
        "events": plan.events(),
        "plain": plan.plain(),
        "stays": stays,
        "quoted_in": {"conversations": plan.quoted.named, "count": plan.quoted.count},
        "confirm": plan.token(),
    })
}

fn not_erased(error: &EraseError) -> Problem {
    let detail = error.to_string();
    let problem = |status, code, remedy: &str| Problem::new(status, code, detail.clone()).remedy(remedy);
    match error {
        EraseError::Plan(PlanError::Unknown { .. }) => {
            problem(StatusCode::NOT_FOUND, "NOTHING_TO_ERASE", "check the name: names are case-sensitive")
        }
        EraseError::Plan(PlanError::Gone { .. }) => problem(
            StatusCode::NOT_FOUND,
            "NOTHING_TO_ERASE",
            "GET /api/v1/events?kinds=system.erased lists what was erased",
        ),
        EraseError::Plan(PlanError::Trimmed { .. }) => {
            problem(StatusCode::CONFLICT, "LOG_TRIMMED", "see docs/erasure.md")
        }
        EraseError::Plan(PlanError::Shared { .. }) => {
            problem(StatusCode::CONFLICT, "SHARED_FILES", "see docs/fork.md")
        }
        EraseError::Plan(PlanError::Read(error)) | EraseError::Read(error) => log_unreadable(error),
        EraseError::Plan(PlanError::Graph(error)) => graph_failed(error),
        EraseError::Changed => {
            problem(StatusCode::CONFLICT, "CHANGED", "send dry_run=true again and confirm what it shows")
        }
        EraseError::Busy => problem(StatusCode::CONFLICT, "ERASURE_UNDER_WAY", "try again when it is done"),
        EraseError::Log(LogEraseError::Order(error)) => log_failed(error),
        EraseError::Unready { .. } | EraseError::Stopped => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "see GET /api/v1/health/detailed")
        }
        EraseError::Log(LogEraseError::Keys { .. })
        | EraseError::Rewrite { .. }
        | EraseError::Incomplete { .. }
        | EraseError::Receipt { .. }
        | EraseError::Unrecorded { .. } => {
            tracing::error!(error = %crate::failure::chain(error), "an erasure is not complete");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "ERASURE_INCOMPLETE",
                "see the server's log; the next start, or the next erasure, completes it",
            )
        }
    }
}
