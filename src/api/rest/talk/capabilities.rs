//! Who offers what: offering, changing, withdrawing, a page, one with whom a message would reach.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::conversation::Strategy;
use caxton_events::{AgentId, CapabilityName, Clock as _, RegistrationId};
use caxton_projections::agents::Registration;
use caxton_projections::talk::TalkState;
use serde_json::{Map, Value, json};

use super::super::Api;
use super::super::call::{Call, READ_QUERY};
use super::super::fields::Fields;
use super::super::problem::{Problem, shortened};
use super::super::refusals::whole;
use super::super::rows;
use super::not_done;
use super::outgoing::{versioned, wanted_version};
use super::providers::{STATUSES, Status, row, standing};
use super::shown::candidate;
use crate::commands::RefusalCode;
use crate::commands::talk::routing::fits;
use crate::commands::talk::{NewCapability, NoChoice, Overlay, Settings, Situation, Upkeep, choose};
use crate::engine::SystemClock;

/// Largest priority of an offer.
const PRIORITY_MAX: u64 = 1_000;
const PRIORITY_DEFAULT: u16 = 50;

fn no_registration(text: &str) -> Problem {
    let detail = format!("there is no registration {:?}", shortened(text));
    Problem::new(StatusCode::NOT_FOUND, RefusalCode::RegistrationNotFound.as_str(), detail)
        .field("registration_id")
        .value(text)
        .remedy("see GET /capabilities for the registrations there are")
}

/// Nobody offers what the path names.
pub(super) fn not_offered(text: &str) -> Problem {
    let detail = format!("nobody offers {:?}", shortened(text));
    Problem::new(StatusCode::NOT_FOUND, "CAPABILITY_NOT_FOUND", detail)
        .field("capability")
        .value(text)
        .remedy("see GET /capabilities for what is offered")
}

/// Nobody offers it in the version that was asked for; which there are.
fn not_in_version(state: &TalkState, name: &CapabilityName, text: &str) -> Problem {
    let versions: BTreeSet<&str> =
        state.registry.providers(name).map(|offer| offer.version.as_str()).collect();
    if versions.is_empty() {
        return not_offered(text);
    }
    let versions = Vec::from_iter(versions).join(", ");
    not_offered(text).remedy(format!("{name} is offered in version {versions}"))
}

fn offered(api: &Api, id: RegistrationId) -> Result<Value, Problem> {
    let now = SystemClock.now();
    let state = api.engine.view().talk().read();
    let found = state.registry.registration(id).map(|found| row(&state, found, true, now));
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
    let now = SystemClock.now();
    let state = api.engine.view().talk().read();
    let made = state.registry.providers(&key.1).find(|row| row.agent == key.0);
    // Somebody may have withdrawn it since.
    let shown = made
        .map_or_else(|| json!({"agent_id": key.0, "capability": key.1}), |made| row(&state, made, true, now));
    drop(state);
    rows::json(StatusCode::CREATED, &shown)
}

/// `GET /capabilities`: who offers what, by name.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] =
        &["capability", "agent_id", "status", "version", "include_metadata", "limit", "offset"];
    let mut query = call.query(&[own, READ_QUERY])?;
    let min_seq = call.min_seq(&mut query);
    let capability = query.parsed::<CapabilityName>("capability");
    let agent = query.parsed::<AgentId>("agent_id");
    let status = query.choice("status", STATUSES);
    let version = wanted_version(&mut query);
    let with_metadata = query.flag("include_metadata").unwrap_or(false);
    let limit = query.integer("limit", 1..=api.options.page_size_max as u64);
    let limit = limit.map_or(api.options.page_size_default, |limit| limit as usize);
    let offset = query.integer("offset", 0..=u64::from(u32::MAX)).unwrap_or(0) as usize;
    query.finish()?;
    api.talk_caught_up(min_seq).await?;
    api.read(move |view| {
        let now = SystemClock.now();
        let state = view.talk().read();
        let is_wanted = |row: &&Registration| {
            agent.as_ref().is_none_or(|name| *name == row.agent)
                && version.as_deref().is_none_or(|wanted| fits(&row.version, Some(wanted)))
                && status.is_none_or(|status| standing(&state, row, now).status == status)
        };
        let mut found: BTreeMap<&CapabilityName, Vec<&Registration>> = BTreeMap::new();
        match &capability {
            Some(name) => {
                for row in state.registry.providers(name).filter(is_wanted) {
                    found.entry(&row.capability).or_default().push(row);
                }
            }
            None => {
                for row in state.registry.registrations().filter(is_wanted) {
                    found.entry(&row.capability).or_default().push(row);
                }
            }
        }
        let total = found.len();
        let page: Vec<Value> = found
            .into_iter()
            .skip(offset)
            .take(limit)
            .map(|(name, mut offers)| {
                offers.sort_unstable_by_key(|offer| (offer.seq, offer.id));
                let providers: Vec<Value> =
                    offers.into_iter().map(|offer| row(&state, offer, with_metadata, now)).collect();
                json!({"capability": name, "providers": providers})
            })
            .collect();
        drop(state);
        let body = json!({"capabilities": page, "total": total, "limit": limit, "offset": offset});
        rows::json(StatusCode::OK, &body)
    })
    .await
}

/// A JSON object out of a query string, every member of which must stand in the metadata.
fn metadata_filter(query: &mut Fields) -> Map<String, Value> {
    let Some(text) = query.text("metadata_filter") else { return Map::new() };
    serde_json::from_str(&text).unwrap_or_else(|_| {
        let remedy = "give a JSON object, such as {\"language\":\"fr\"}, percent-encoded";
        query.complain("metadata_filter", Some(&text), "is no JSON object", remedy);
        Map::new()
    })
}

fn has(row: &Registration, wanted: &Map<String, Value>) -> bool {
    if wanted.is_empty() {
        return true;
    }
    let metadata = row.metadata.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    metadata.is_some_and(|known| wanted.iter().all(|(name, value)| known.get(name) == Some(value)))
}

/// `GET /capabilities/{name}`: its providers, and whom a message to it would reach now.
pub(super) async fn get(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] = &["version", "routing_strategy", "include_unhealthy", "metadata_filter"];
    let mut query = call.query(&[own, READ_QUERY])?;
    let min_seq = call.min_seq(&mut query);
    let version = wanted_version(&mut query);
    let strategy = query.parsed::<Strategy>("routing_strategy").unwrap_or(Strategy::BestMatch);
    let with_unhealthy = query.flag("include_unhealthy").unwrap_or(false);
    let wanted = metadata_filter(&mut query);
    query.finish()?;
    api.talk_caught_up(min_seq).await?;
    let text = call.path("name").to_owned();
    let (word, suffix) = versioned(&text);
    let version = version.or_else(|| suffix.map(str::to_owned));
    let name: CapabilityName = word.parse().map_err(|_| not_offered(&text))?;
    let now = SystemClock.now();
    let state = api.engine.view().talk().read();
    let offers: Vec<&Registration> =
        state.registry.providers(&name).filter(|row| fits(&row.version, version.as_deref())).collect();
    if offers.is_empty() {
        return Err(not_in_version(&state, &name, &text));
    }
    let offers: Vec<&Registration> = offers.into_iter().filter(|row| has(row, &wanted)).collect();
    let settings = Settings::default();
    let situation = Situation { state: &state, under_way: &[], now, settings: &settings };
    let (mut providers, _) = situation.providers(&Overlay::default(), &name, version.as_deref(), None, None);
    providers.retain(|provider| offers.iter().any(|offer| offer.agent == *provider.agent));
    let (chosen, reason, candidates) =
        match choose(strategy, &providers, state.conversations.routed(name.as_str())) {
            Ok(choice) => (choice.receivers, choice.reason, choice.candidates),
            Err(NoChoice::AllUnavailable { candidates }) => {
                (Vec::new(), "no provider can take a message now".to_owned(), candidates)
            }
            Err(NoChoice::NoProvider { .. }) if !wanted.is_empty() => {
                (Vec::new(), "no provider has such metadata".to_owned(), Vec::new())
            }
            Err(NoChoice::NoProvider { .. }) => return Err(not_offered(&text)),
        };
    let standing_of = |offer: &Registration| standing(&state, offer, now).status;
    let healthy = offers.iter().filter(|offer| standing_of(offer) == Status::Active).count();
    let shown: Vec<Value> = offers
        .iter()
        .filter(|offer| with_unhealthy || standing_of(offer).takes_messages())
        .map(|offer| {
            let mut shown = row(&state, offer, true, now);
            let score = candidates.iter().find(|row| row.agent == offer.agent).map(|row| row.score);
            shown["routing_score"] = json!(score);
            shown
        })
        .collect();
    let body = json!({
        "capability": name,
        "routing_strategy": strategy,
        "total_providers": offers.len(),
        "healthy_providers": healthy,
        "providers": shown,
        "routing": {
            "would_reach": chosen,
            "reason": reason,
            "candidates": candidates.iter().map(candidate).collect::<Vec<_>>(),
        },
    });
    drop(state);
    rows::json(StatusCode::OK, &body)
}

/// `PUT /capabilities/{registration_id}`: an offer gets other properties. What is not named stays; null takes away.
pub(super) async fn change(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let text = call.path("name");
    let registration: RegistrationId = text.parse().map_err(|_| no_registration(text))?;
    let mut body = call.members(&[&["priority", "metadata", "health_check_url"]])?;
    let names = ["priority", "metadata", "health_check_url"];
    let nothing = !names.iter().any(|name| body.has(name));
    let priority = body.integer("priority", 0..=PRIORITY_MAX).map(|priority| priority as u16);
    let metadata = body.metadata("metadata");
    let health_check_url = body.has("health_check_url").then(|| body.text("health_check_url"));
    if nothing {
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
    // A capability of the name `health` stands where the path to its health does.
    let (agent, capability) = match (call.path("name"), call.path("capability")) {
        (agent, "") => (agent, "health"),
        both => both,
    };
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
