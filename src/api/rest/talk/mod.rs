//! Agents among themselves: messages, inboxes, conversations, offers, dead letters.
//!
//! Reading order: [`outgoing`] (a message is read), [`plain`] (the short way for most), [`messages`] (and sent),
//! [`shown`] (what is shown of one), [`said`] (and found again), [`inbox`], [`conversations`], [`registry`] and
//! [`agent_log`] (agents), [`past`] (all of it as of an earlier record), [`capabilities`] and [`providers`] (what they offer, and how they are), [`dead_letters`].
//! [`unlogged`] is for measuring only.

mod agent_log;
mod capabilities;
mod conversations;
mod dead_letters;
mod inbox;
mod messages;
mod outgoing;
pub(super) mod past;
mod plain;
mod providers;
pub(super) mod registry;
mod said;
pub(super) mod shown;
pub(super) mod unlogged;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{delete, get, post};
use caxton_events::{AgentId, Seq};

use super::Api;
use super::call::Call;
use super::fields::Fields;
use super::problem::{Complaint, Problem, shortened};
use super::refusals::{self, Place};
use crate::commands::talk::Outgoing;
use crate::commands::{Refusal, RefusalCode};
use crate::engine::TalkError;

/// Most positions that one request may name.
const SEQS_MAX: usize = 10_000;

/// The routes below `/api/v1`.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/messages", get(said::list).post(messages::create))
        .route("/messages/batch", post(messages::batch))
        .route("/agents", get(registry::agents).post(registry::register))
        .route("/agents/{agent}", get(registry::agent))
        .route("/agents/{agent}/health", post(registry::report_health))
        .route("/agents/{agent}/logs", get(agent_log::list))
        .route("/agents/{agent}/inbox", get(inbox::list))
        .route("/agents/{agent}/inbox/stream", get(inbox::stream))
        .route("/agents/{agent}/inbox/ack", post(inbox::acknowledge))
        .route("/agents/{agent}/inbox/release", post(inbox::release))
        .route("/conversations", get(conversations::list).post(conversations::open))
        .route("/conversations/archive", post(conversations::archive_many))
        .route("/conversations/{conversation}", get(conversations::get))
        .route("/conversations/{conversation}/messages", get(conversations::messages))
        .route("/conversations/{conversation}/close", post(conversations::close))
        .route("/conversations/{conversation}/archive", post(conversations::archive))
        .route("/conversations/{conversation}/extend", post(conversations::extend))
        .route("/capabilities", get(capabilities::list).post(capabilities::offer))
        .route("/capabilities/health", get(providers::of_all))
        .route("/capabilities/{name}", get(capabilities::get).put(capabilities::change))
        .route("/capabilities/{name}/health", get(providers::of_one).delete(capabilities::withdraw))
        .route("/capabilities/{name}/{capability}", delete(capabilities::withdraw))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/{seq}/replay", post(dead_letters::replay))
}

/// A refusal as the client is told.
fn complaint(refusal: Refusal, place: Place<'_>) -> Complaint {
    // The rules of the memory have a code of their own; what is wrong with a message is wrong with the request.
    let is_validation = refusal.code == RefusalCode::Validation;
    let code = if is_validation { "VALIDATION_ERROR" } else { refusal.code.as_str() };
    let field = match refusal.field.as_str() {
        "name" | "agent" => "agent_id",
        "conversation" => "conversation_id",
        "dead_letter" => "seq",
        other => other,
    };
    Complaint {
        field: format!("{}{field}", place(refusal.index)),
        code,
        value: None,
        message: refusal.message,
        remedy: refusal.remedy,
    }
}

/// Refusals of something of which nothing was written. The status is the first one's.
fn refused(refusals: Vec<Refusal>, place: Place<'_>) -> Problem {
    let first = refusals.first().map(|refusal| refusals::status_of(refusal.code));
    let complaints = refusals.into_iter().map(|refusal| complaint(refusal, place)).collect();
    Problem::complaints(first.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY), complaints)
}

/// What became of a wish that has no outcome.
fn not_done(error: TalkError, place: Place<'_>) -> Problem {
    match error {
        TalkError::Refused(refusals) => refused(refusals, place),
        TalkError::Overloaded => refusals::overloaded("too many messages are waiting"),
        TalkError::Stopped => refusals::stopping(),
        TalkError::Unavailable { name, error } => refusals::projection_stopped(name, &error, None),
        TalkError::Log(error) => refusals::log_failed(&error),
        TalkError::Read(error) => refusals::log_unreadable(&error),
        TalkError::Store(error) => refusals::internal(&error),
    }
}

/// Whether the queues of agents that run here have room for a message from outside.
fn room(api: &Api, wish: &Outgoing) -> Result<(), Problem> {
    let Some(turns) = &api.options.turns else { return Ok(()) };
    turns.check(wish).map_err(|full| {
        let seconds = u32::try_from(full.retry_after.as_secs()).unwrap_or(u32::MAX).max(1);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, RefusalCode::QueueFull.as_str(), full.to_string())
            .remedy(format!("try again in {seconds} s, or raise queue_size of the queue {:?}", full.queue))
            .detail("queue", full.queue)
            .retry_after(seconds)
    })
}

/// The agent that the path names, when there is one.
fn known_agent(api: &Api, call: &Call) -> Result<AgentId, Problem> {
    let text = call.path("agent");
    let name = text.parse().ok();
    let known = name.filter(|name| api.engine.view().talk().read().registry.is_known(name));
    known.ok_or_else(|| no_agent(text))
}

fn no_agent(text: &str) -> Problem {
    let detail = format!("there is no agent {:?}", shortened(text));
    Problem::new(StatusCode::NOT_FOUND, RefusalCode::AgentNotFound.as_str(), detail)
        .field("agent_id")
        .value(text)
        .remedy("register it with POST /agents, or see GET /agents")
}

/// That the header which says who asks, when there is one, names the agent that the request speaks for.
fn says_who(call: &Call, field: &str, agent: &AgentId) -> Result<(), Problem> {
    let Some(asks) = call.headers().get("x-caxton-agent") else { return Ok(()) };
    if asks.as_bytes() == agent.as_str().as_bytes() {
        return Ok(());
    }
    let asks = shortened(&String::from_utf8_lossy(asks.as_bytes()));
    let detail = format!("{field}: is {agent} here and {asks} in X-Caxton-Agent");
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
        .field(field)
        .value(agent.as_str())
        .remedy("name one agent, or leave the header out"))
}

/// The agent that the path names, whose inbox the request is about. One that was removed has its inbox still.
fn inbox_owner(api: &Api, call: &Call) -> Result<AgentId, Problem> {
    let text = call.path("agent");
    let name: Option<AgentId> = text.parse().ok();
    let agent = name.filter(|name| api.engine.view().talk().read().registry.agent(name).is_some());
    let agent = agent.ok_or_else(|| no_agent(text))?;
    says_who(call, "agent_id", &agent)?;
    Ok(agent)
}

/// Positions in the log as a list of whole numbers.
fn seqs(fields: &mut Fields, name: &str) -> Vec<Seq> {
    let items = fields.list(name, false, SEQS_MAX);
    let mut seqs = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match item.as_u64() {
            Some(seq) => seqs.push(Seq(seq)),
            None => fields.complain(
                &format!("{name}[{index}]"),
                Some(&item.to_string()),
                "must be a whole number",
                "give the seq of a message, as the inbox shows it",
            ),
        }
    }
    seqs
}
