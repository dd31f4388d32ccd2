//! Who there is, and what each did lately.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::agent::Health;
use caxton_events::{AgentId, CapabilityName, WorkspaceId};
use caxton_projections::agents::Agent;
use caxton_projections::conversations::Inbox;
use caxton_projections::talk::{TalkPart, TalkState};
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::{Call, READ_QUERY};
use super::super::caller::Caller;
use super::super::entities::Page;
use super::super::moment::{AS_OF, talk_context};
use super::super::problem::Problem;
use super::super::refusals::whole;
use super::super::rows;
use super::conversations::WHO;
use super::past::answer;
use super::{known_agent, no_agent, not_done};
use crate::commands::RefusalCode;
use crate::commands::talk::Upkeep;

/// What an agent answered so far: questions that it was asked, and how.
pub(in crate::api::rest) fn stats(inbox: Option<&Inbox>) -> Value {
    let (answered, failed) = inbox.map_or((0, 0), |inbox| (inbox.answered, inbox.failed));
    let millis = inbox
        .map(|inbox| inbox.response_micros)
        .filter(|micros| *micros > 0)
        .map(|micros| micros as f64 / 1e3);
    json!({
        "total_requests": answered,
        "successful_requests": answered - failed,
        "failed_requests": failed,
        "average_response_time_ms": millis,
    })
}

fn shown(state: &TalkState, agent: &Agent) -> Value {
    let inbox = state.conversations.inbox(&agent.name);
    let offers: Vec<&str> =
        state.registry.registrations_of(&agent.name).map(|row| row.capability.as_str()).collect();
    json!({
        "agent_id": agent.name,
        "workspace": agent.workspace,
        "kind": if agent.is_config() { "config" } else { "external" },
        "status": agent.status,
        "health": agent.health_in(None),
        "circuit": agent.circuit,
        "capabilities": offers,
        "waiting": inbox.map_or(0, Inbox::waiting),
        "messages_sent": inbox.map_or(0, |inbox| inbox.sent.len()),
        "messages_received": inbox.map_or(0, |inbox| inbox.messages.len()),
        "last_activity": inbox.and_then(|inbox| inbox.active_at),
        "execution_stats": stats(inbox),
        "registered_at": agent.registered_at,
        "seq": agent.since,
    })
}

/// `GET /agents`: everybody, in the order of their registration.
pub(super) async fn agents(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Page::QUERY, READ_QUERY, AS_OF, &["workspace", "capability", "kind"]])?;
    let (min_seq, as_of) = talk_context(&call, &mut query);
    let page = Page::take(&api, &call, &mut query);
    let workspace = query.parsed::<WorkspaceId>("workspace");
    let capability = query.parsed::<CapabilityName>("capability");
    let config = query.choice("kind", &[("config", true), ("external", false)]);
    query.finish()?;
    let after = page.after()?.unwrap_or(0);
    let moment = api.talk_moment(as_of, min_seq).await?;
    let body = api.read_talk(moment, TalkPart::Everything, move |state| {
        let offers = |agent: &Agent, name| state.registry.providers(name).any(|row| row.agent == agent.name);
        let mut agents = state.registry.agents();
        agents.retain(|agent| {
            agent.since.0 > after
                && workspace.as_ref().is_none_or(|name| *name == agent.workspace)
                && config.is_none_or(|config| config == agent.is_config())
                && capability.as_ref().is_none_or(|name| offers(agent, name))
        });
        agents.sort_unstable_by_key(|agent| agent.since);
        agents.truncate(page.limit + 1);
        let next_cursor = page.cut(&mut agents, |agent| agent.since.0);
        let rows: Vec<Value> = agents.into_iter().map(|agent| shown(state, agent)).collect();
        let count = rows.len();
        Ok(json!({"agents": rows, "count": count, "next_cursor": next_cursor}))
    });
    answer(moment, body.await?)
}

/// `GET /agents/{id}`.
pub(super) async fn agent(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[READ_QUERY, AS_OF])?;
    let (min_seq, as_of) = talk_context(&call, &mut query);
    query.finish()?;
    let moment = api.talk_moment(as_of, min_seq).await?;
    let text = call.path("agent").to_owned();
    let body = api.read_talk(moment, TalkPart::Everything, move |state| {
        let name = text.parse().ok().filter(|name| state.registry.is_known(name));
        let agent = name.and_then(|name| state.registry.agent(&name)).ok_or_else(|| no_agent(&text))?;
        Ok(shown(state, agent))
    });
    answer(moment, body.await?)
}

fn present(api: &Api, name: &AgentId) -> Value {
    let state = api.engine.view().talk().read();
    state.registry.agent(name).map_or(Value::Null, |agent| shown(&state, agent))
}

/// That the caller, which was known before, is where it says: it does not move.
fn stays(api: &Api, Caller { agent, workspace, .. }: &Caller) -> Result<(), Problem> {
    let state = api.engine.view().talk().read();
    match state.registry.agent(agent).filter(|known| !known.removed).map(|known| &known.workspace) {
        Some(known) if known != workspace => {
            let detail = format!("agent {agent} is in the workspace {known} and does not move");
            let remedy =
                format!("leave workspace out or give {known}, or register another name in {workspace}");
            Err(Problem::new(StatusCode::CONFLICT, RefusalCode::AlreadyExists.as_str(), detail)
                .field("workspace")
                .value(workspace.as_str())
                .remedy(remedy))
        }
        Some(_) | None => Ok(()),
    }
}

/// `POST /agents`: an agent outside of the server makes itself known. 200 when it was.
pub(super) async fn register(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[WHO])?;
    let mut body = call.members(&[WHO])?;
    let is_said = |name: &str, header: &str| {
        body.given(name) || query.given(name) || call.headers().contains_key(header)
    };
    let (names, places) = (is_said("agent_id", "x-caxton-agent"), is_said("workspace", "x-caxton-workspace"));
    if !names {
        body.complain("agent_id", None, "is missing", "add it: it is required");
    }
    let caller = Caller::take(&mut [&mut query, &mut body], call.headers());
    body.absorb(query);
    body.finish()?;
    let (agent, workspace) = (caller.agent.clone(), caller.workspace.clone());
    let done = api.engine.upkeep(&caller.agent, Upkeep::RegisterAgent { agent, workspace }).await;
    let done = done.map_err(|error| not_done(error, &whole))?;
    if places && done.record.is_none() {
        stays(&api, &caller)?;
    }
    let status = if done.record.is_some() { StatusCode::CREATED } else { StatusCode::OK };
    rows::json(status, &present(&api, &caller.agent))
}

/// `POST /agents/{id}/health`: how an agent is, in one capability or in everything; routing goes by it.
pub(super) async fn report_health(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let agent = known_agent(&api, &call)?;
    let mut body = call.members(&[&["health", "capability", "reason"]])?;
    if !body.given("health") {
        body.complain("health", None, "is missing", "give healthy, degraded or unhealthy");
    }
    let health = body.parsed::<Health>("health");
    let capability = body.parsed::<CapabilityName>("capability");
    let reason = body.text("reason").unwrap_or_default();
    body.finish()?;
    let health = health.unwrap_or(Health::Healthy);
    let wish = Upkeep::ReportHealth { agent: agent.clone(), capability: capability.clone(), health, reason };
    let done = api.engine.upkeep(&agent, wish).await.map_err(|error| not_done(error, &whole))?;
    let body = json!({
        "agent_id": agent,
        "capability": capability,
        "health": health,
        "status": if done.record.is_some() { "recorded" } else { "unchanged" },
        "seq": done.seq,
    });
    rows::json(StatusCode::OK, &body)
}
