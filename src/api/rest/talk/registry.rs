//! Who there is and what each can do.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::conversation::Strategy;
use caxton_events::{AgentId, CapabilityName, Clock as _, RegistrationId, WorkspaceId};
use caxton_projections::agents::{Agent, Registration};
use caxton_projections::talk::TalkState;
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::Call;
use super::super::caller::Caller;
use super::super::entities::Page;
use super::super::problem::{Problem, shortened};
use super::super::refusals::whole;
use super::super::rows;
use super::outgoing::versioned;
use super::shown::candidate;
use super::{known_agent, not_done};
use crate::commands::RefusalCode;
use crate::commands::talk::{NewCapability, NoChoice, Overlay, Settings, Situation, Upkeep, choose};
use crate::engine::SystemClock;

/// Largest priority of an offer.
const PRIORITY_MAX: u64 = 1_000;
const PRIORITY_DEFAULT: u16 = 50;

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
        "waiting": inbox.map_or(0, caxton_projections::conversations::Inbox::waiting),
        "messages_sent": inbox.map_or(0, |inbox| inbox.sent.len()),
        "registered_at": agent.registered_at,
        "seq": agent.since,
    })
}

/// `GET /agents`: everybody, in the order of their registration.
pub(super) async fn agents(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Page::QUERY, &["workspace", "capability", "kind"]])?;
    let page = Page::take(&api, &call, &mut query);
    let workspace = query.parsed::<WorkspaceId>("workspace");
    let capability = query.parsed::<CapabilityName>("capability");
    let config = query.choice("kind", &[("config", true), ("external", false)]);
    query.finish()?;
    let after = page.after()?.unwrap_or(0);
    api.read(move |view| {
        let state = view.talk().read();
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
        let rows: Vec<Value> = agents.into_iter().map(|agent| shown(&state, agent)).collect();
        drop(state);
        let count = rows.len();
        rows::json(StatusCode::OK, &json!({"agents": rows, "count": count, "next_cursor": next_cursor}))
    })
    .await
}

/// `GET /agents/{id}`.
pub(super) async fn agent(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let name = known_agent(&api, &call)?;
    rows::json(StatusCode::OK, &present(&api, &name))
}

fn present(api: &Api, name: &AgentId) -> Value {
    let state = api.engine.view().talk().read();
    state.registry.agent(name).map_or(Value::Null, |agent| shown(&state, agent))
}

/// `POST /agents`: an agent outside of the server makes itself known. 200 when it was.
pub(super) async fn register(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let mut body = call.members(&[&["agent_id", "workspace"]])?;
    if !body.has("agent_id") && !call.headers().contains_key("x-caxton-agent") {
        body.complain("agent_id", None, "is missing", "add it: it is required");
    }
    let caller = Caller::take(&mut [&mut body], call.headers());
    body.finish()?;
    let (agent, workspace) = (caller.agent.clone(), caller.workspace);
    let done = api.engine.upkeep(&caller.agent, Upkeep::RegisterAgent { agent, workspace }).await;
    let done = done.map_err(|error| not_done(error, &whole))?;
    let status = if done.record.is_some() { StatusCode::CREATED } else { StatusCode::OK };
    rows::json(status, &present(&api, &caller.agent))
}

fn row(state: &TalkState, row: &Registration, with_metadata: bool) -> Value {
    let agent = state.registry.agent(&row.agent);
    let mut shown = json!({
        "registration_id": row.id,
        "agent_id": row.agent,
        "capability": row.capability,
        "version": row.version,
        "priority": row.priority,
        "health": agent.map(|agent| agent.health_in(Some(&row.capability))),
        "agent_status": agent.and_then(|agent| agent.status),
        "health_check_url": row.health_check_url,
        "registered_at": row.registered_at,
        "seq": row.seq,
    });
    if with_metadata {
        let metadata = row.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
        shown["metadata"] = metadata.unwrap_or(Value::Null);
    }
    shown
}

fn no_registration(text: &str) -> Problem {
    let detail = format!("there is no registration {:?}", shortened(text));
    Problem::new(StatusCode::NOT_FOUND, RefusalCode::RegistrationNotFound.as_str(), detail)
        .field("registration_id")
        .value(text)
        .remedy("see GET /capabilities for the registrations there are")
}

fn offered(api: &Api, id: RegistrationId) -> Result<Value, Problem> {
    let state = api.engine.view().talk().read();
    let found = state.registry.registration(id).map(|found| row(&state, found, true));
    found.ok_or_else(|| no_registration(&id.to_string()))
}

/// `POST /capabilities`: an agent offers something.
pub(super) async fn offer(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let mut body =
        call.members(&[&["agent_id", "capability", "version", "priority", "metadata", "health_check_url"]])?;
    for name in ["agent_id", "capability"] {
        if !body.has(name) {
            body.complain(name, None, "is missing", "add it: it is required");
        }
    }
    let (agent, capability) = (body.parsed::<AgentId>("agent_id"), body.parsed("capability"));
    let version = body.text("version").unwrap_or_else(|| "1.0.0".to_owned());
    let priority = body.integer("priority", 0..=PRIORITY_MAX);
    let priority = priority.map_or(PRIORITY_DEFAULT, |priority| priority as u16);
    let metadata = body.metadata("metadata").flatten();
    let health_check_url = body.text("health_check_url");
    body.finish()?;
    let (Some(agent), Some(capability)) = (agent, capability) else {
        let detail = "agent_id and capability must be texts";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail));
    };
    let actor = agent.clone();
    let key = (agent.clone(), CapabilityName::clone(&capability));
    let wish =
        Upkeep::Offer(NewCapability { agent, capability, version, priority, metadata, health_check_url });
    api.engine.upkeep(&actor, wish).await.map_err(|error| not_done(error, &whole))?;
    let state = api.engine.view().talk().read();
    let made = state.registry.providers(&key.1).find(|row| row.agent == key.0);
    // Somebody may have withdrawn it since.
    let shown =
        made.map_or_else(|| json!({"agent_id": key.0, "capability": key.1}), |made| row(&state, made, true));
    drop(state);
    rows::json(StatusCode::CREATED, &shown)
}

/// `GET /capabilities`: who offers what, by name.
pub(super) async fn capabilities(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query =
        call.query(&[&["capability", "agent_id", "version", "include_metadata", "limit", "offset"]])?;
    let capability = query.parsed::<CapabilityName>("capability");
    let agent = query.parsed::<AgentId>("agent_id");
    let version = query.text("version");
    let with_metadata = query.flag("include_metadata").unwrap_or(false);
    let limit = query.integer("limit", 1..=api.options.page_size_max as u64);
    let limit = limit.map_or(api.options.page_size_default, |limit| limit as usize);
    let offset = query.integer("offset", 0..=u64::from(u32::MAX)).unwrap_or(0) as usize;
    query.finish()?;
    api.read(move |view| {
        let state = view.talk().read();
        let mut found: BTreeMap<&CapabilityName, Vec<&Registration>> = BTreeMap::new();
        for row in state.registry.registrations() {
            if capability.as_ref().is_none_or(|name| *name == row.capability)
                && agent.as_ref().is_none_or(|name| *name == row.agent)
                && version.as_ref().is_none_or(|version| *version == row.version)
            {
                found.entry(&row.capability).or_default().push(row);
            }
        }
        let total = found.len();
        let page: Vec<Value> = found
            .into_iter()
            .skip(offset)
            .take(limit)
            .map(|(name, offers)| {
                let providers: Vec<Value> =
                    offers.into_iter().map(|offer| row(&state, offer, with_metadata)).collect();
                json!({"capability": name, "providers": providers})
            })
            .collect();
        drop(state);
        let body = json!({"capabilities": page, "total": total, "limit": limit, "offset": offset});
        rows::json(StatusCode::OK, &body)
    })
    .await
}

/// `GET /capabilities/{name}`: its providers, and whom a message would reach now and why.
pub(super) async fn capability(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["version", "routing_strategy"]])?;
    let strategy = query.parsed::<Strategy>("routing_strategy").unwrap_or(Strategy::BestMatch);
    let version = query.text("version");
    query.finish()?;
    let text = call.path("name").to_owned();
    let (word, suffix) = versioned(&text);
    let name: Option<CapabilityName> = word.parse().ok();
    let version = version.or_else(|| suffix.map(str::to_owned));
    let not_found = || {
        let detail = format!("nobody offers {:?}", shortened(&text));
        Problem::new(StatusCode::NOT_FOUND, "CAPABILITY_NOT_FOUND", detail)
            .field("capability")
            .value(&text)
            .remedy("see GET /capabilities for what is offered")
    };
    let name = name.ok_or_else(not_found)?;
    let state = api.engine.view().talk().read();
    let offers: Vec<&Registration> = state
        .registry
        .providers(&name)
        .filter(|row| crate::commands::talk::routing::fits(&row.version, version.as_deref()))
        .collect();
    if offers.is_empty() {
        return Err(not_found());
    }
    let settings = Settings::default();
    let now = SystemClock.now();
    let situation = Situation { state: &state, under_way: &[], now, settings: &settings };
    let (providers, _) = situation.providers(&Overlay::default(), &name, version.as_deref(), None, None);
    let (chosen, reason, candidates) =
        match choose(strategy, &providers, state.conversations.routed(name.as_str())) {
            Ok(choice) => (choice.receivers, choice.reason, choice.candidates),
            Err(NoChoice::AllUnavailable { candidates }) => {
                (Vec::new(), "no provider can take a message now".to_owned(), candidates)
            }
            Err(NoChoice::NoProvider { .. }) => return Err(not_found()),
        };
    let body = json!({
        "capability": name,
        "routing_strategy": strategy,
        "total_providers": offers.len(),
        "providers": offers.iter().map(|offer| row(&state, offer, true)).collect::<Vec<_>>(),
        "routing": {
            "would_reach": chosen,
            "reason": reason,
            "candidates": candidates.iter().map(candidate).collect::<Vec<_>>(),
        },
    });
    drop(state);
    rows::json(StatusCode::OK, &body)
}

/// `PUT /capabilities/{registration_id}`: an offer gets other properties.
pub(super) async fn change(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let text = call.path("name");
    let registration: RegistrationId = text.parse().map_err(|_| no_registration(text))?;
    let mut body = call.members(&[&["priority", "metadata", "health_check_url"]])?;
    let priority = body.integer("priority", 0..=PRIORITY_MAX).map(|priority| priority as u16);
    let metadata = body.metadata("metadata").flatten();
    let health_check_url = body.text("health_check_url");
    if priority.is_none() && metadata.is_none() && health_check_url.is_none() {
        body.complain("priority", None, "is missing", "give priority, metadata or health_check_url");
    }
    body.finish()?;
    let actor = {
        let state = api.engine.view().talk().read();
        state.registry.registration(registration).map(|row| row.agent.clone())
    };
    let actor = actor.ok_or_else(|| no_registration(text))?;
    let wish = Upkeep::ChangeOffer { registration, priority, metadata, health_check_url };
    api.engine.upkeep(&actor, wish).await.map_err(|error| not_done(error, &whole))?;
    rows::json(StatusCode::OK, &offered(&api, registration)?)
}

/// `DELETE /capabilities/{agent}/{capability}`.
pub(super) async fn withdraw(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let (agent, capability) = (call.path("name"), call.path("capability"));
    let named = agent.parse::<AgentId>().ok().zip(capability.parse().ok());
    let Some((agent, capability)) = named else {
        return Err(no_registration(&format!("{agent}/{capability}")));
    };
    let actor = agent.clone();
    let done = api.engine.upkeep(&actor, Upkeep::Withdraw { agent, capability }).await;
    done.map_err(|error| not_done(error, &whole))?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
