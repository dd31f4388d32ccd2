//! How providers of capabilities are: one, those of a capability, and all.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::agent::{AgentStatus, Circuit, Health};
use caxton_events::{CapabilityName, Clock as _, Timestamp};
use caxton_projections::agents::{HealthRow, Registration};
use caxton_projections::conversations::Inbox;
use caxton_projections::talk::TalkState;
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::{Call, READ_QUERY};
use super::super::problem::Problem;
use super::super::rows;
use super::capabilities::not_offered;
use crate::commands::talk::routing::FULL_LOAD;
use crate::engine::SystemClock;

/// What an offer is worth at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It takes messages.
    Active,
    /// It takes messages of the conversations it is in.
    Draining,
    /// It does not answer, or is left alone after failures.
    Unhealthy,
    /// Its agent does not run.
    Inactive,
}

/// The words for them.
pub(super) const STATUSES: &[(&str, Status)] = &[
    ("active", Status::Active),
    ("draining", Status::Draining),
    ("unhealthy", Status::Unhealthy),
    ("inactive", Status::Inactive),
];

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
            Self::Inactive => "inactive",
        }
    }

    pub(super) const fn takes_messages(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

/// How a provider is.
pub(super) struct Standing<'a> {
    pub(super) status: Status,
    health: Health,
    found: Option<&'a HealthRow>,
    agent_status: Option<AgentStatus>,
    failures: u32,
    inbox: Option<&'a Inbox>,
}

/// How the provider of an offer is at `now`.
pub(super) fn standing<'a>(state: &'a TalkState, offer: &Registration, now: Timestamp) -> Standing<'a> {
    let agent = state.registry.agent(&offer.agent).filter(|agent| !agent.removed);
    let health = agent.map_or(Health::Unhealthy, |agent| agent.health_in(Some(&offer.capability)));
    let closed_off = agent.is_some_and(|agent| {
        agent.circuit == Circuit::Open && agent.circuit_until.is_none_or(|until| until > now)
    });
    let agent_status = agent.and_then(|agent| agent.status);
    let status = match (agent, agent_status) {
        (None, _) | (_, Some(AgentStatus::Stopped | AgentStatus::Error)) => Status::Inactive,
        _ if closed_off || health == Health::Unhealthy => Status::Unhealthy,
        (_, Some(AgentStatus::Draining)) => Status::Draining,
        (_, Some(AgentStatus::Running) | None) => Status::Active,
    };
    let found = agent.and_then(|agent| {
        let rows = agent
            .health
            .iter()
            .filter(|row| row.capability.is_none() || row.capability.as_ref() == Some(&offer.capability));
        rows.max_by_key(|row| (row.health, row.capability.is_some()))
    });
    let inbox = state.conversations.inbox(&offer.agent);
    Standing { status, health, found, agent_status, failures: agent.map_or(0, |agent| agent.failures), inbox }
}

impl Standing<'_> {
    fn response_millis(&self) -> Option<f64> {
        let micros = self.inbox.map(|inbox| inbox.response_micros).filter(|micros| *micros > 0)?;
        Some(micros as f64 / 1e3)
    }

    fn success_rate(&self) -> Option<f64> {
        let inbox = self.inbox.filter(|inbox| inbox.answered > 0)?;
        Some(1.0 - inbox.failed as f64 / inbox.answered as f64)
    }
}

/// An offer with how its provider is.
pub(super) fn row(state: &TalkState, offer: &Registration, with_metadata: bool, now: Timestamp) -> Value {
    let standing = standing(state, offer, now);
    let waiting = standing.inbox.map_or(0, Inbox::waiting);
    let mut shown = json!({
        "registration_id": offer.id,
        "agent_id": offer.agent,
        "agent_name": offer.agent,
        "capability": offer.capability,
        "version": offer.version,
        "priority": offer.priority,
        "status": standing.status.as_str(),
        "health": standing.health,
        "agent_status": standing.agent_status,
        "load_score": waiting.min(FULL_LOAD) as f64 / FULL_LOAD as f64,
        "queue_depth": waiting,
        "response_time_avg_ms": standing.response_millis(),
        "success_rate": standing.success_rate(),
        "consecutive_failures": standing.failures,
        "last_health_check": standing.found.map(|row| row.at),
        "health_check_url": offer.health_check_url,
        "registered_at": offer.registered_at,
        "seq": offer.seq,
    });
    if with_metadata {
        let metadata = offer.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok());
        shown["metadata"] = metadata.unwrap_or(Value::Null);
    }
    shown
}

/// `healthy` when all are, `unhealthy` when none can take a message, else `degraded`.
fn overall(healthy: usize, able: usize, all: usize) -> Health {
    if healthy == all {
        Health::Healthy
    } else if able == 0 {
        Health::Unhealthy
    } else {
        Health::Degraded
    }
}

/// The providers of one capability by how they are: healthy, able to take a message, all.
fn counted(state: &TalkState, name: &CapabilityName, now: Timestamp) -> (usize, usize, usize) {
    let mut count = (0, 0, 0);
    for offer in state.registry.providers(name) {
        let standing = standing(state, offer, now);
        let healthy = standing.status == Status::Active && standing.health == Health::Healthy;
        count.0 += usize::from(healthy);
        count.1 += usize::from(standing.status.takes_messages());
        count.2 += 1;
    }
    count
}

/// `GET /capabilities/{name}/health`.
pub(super) async fn of_one(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[READ_QUERY])?;
    let min_seq = call.min_seq(&mut query);
    query.finish()?;
    api.talk_caught_up(min_seq).await?;
    let text = call.path("name").to_owned();
    let name: CapabilityName = text.parse().map_err(|_| not_offered(&text))?;
    let now = SystemClock.now();
    let state = api.engine.view().talk().read();
    let (healthy, able, all) = counted(&state, &name, now);
    if all == 0 {
        return Err(not_offered(&text));
    }
    let provider = |offer: &Registration| {
        let standing = standing(&state, offer, now);
        let ill = standing.health != Health::Healthy;
        json!({
            "registration_id": offer.id,
            "agent_id": offer.agent,
            "version": offer.version,
            "status": standing.status.as_str(),
            "health": standing.health,
            "last_check": standing.found.map(|row| row.at),
            "error": standing.found.filter(|_| ill).map(|row| &row.reason),
            "response_time_ms": standing.response_millis(),
            "success_rate": standing.success_rate(),
            "consecutive_failures": standing.failures,
        })
    };
    let providers: Vec<Value> = state.registry.providers(&name).map(provider).collect();
    drop(state);
    let body = json!({
        "capability": name,
        "overall_health": overall(healthy, able, all),
        "healthy_providers": healthy,
        "total_providers": all,
        "providers": providers,
    });
    rows::json(StatusCode::OK, &body)
}

/// `GET /capabilities/health`: every capability.
pub(super) async fn of_all(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[READ_QUERY, &["include_healthy", "include_unhealthy"]])?;
    let min_seq = call.min_seq(&mut query);
    let with_healthy = query.flag("include_healthy").unwrap_or(true);
    let with_unhealthy = query.flag("include_unhealthy").unwrap_or(true);
    query.finish()?;
    api.talk_caught_up(min_seq).await?;
    api.read(move |view| {
        let now = SystemClock.now();
        let state = view.talk().read();
        let mut counts = [0_usize; 3];
        let mut shown = Vec::new();
        for (name, _) in state.registry.capabilities() {
            let (healthy, able, all) = counted(&state, name, now);
            let health = overall(healthy, able, all);
            counts[health as usize] += 1;
            if if health == Health::Healthy { with_healthy } else { with_unhealthy } {
                shown.push(json!({
                    "capability": name,
                    "overall_health": health,
                    "healthy_providers": healthy,
                    "total_providers": all,
                }));
            }
        }
        drop(state);
        let [healthy, degraded, unhealthy] = counts;
        let body = json!({
            "overall_health": overall(healthy, healthy + degraded, healthy + degraded + unhealthy),
            "healthy_capabilities": healthy,
            "degraded_capabilities": degraded,
            "unhealthy_capabilities": unhealthy,
            "capabilities": shown,
        });
        rows::json(StatusCode::OK, &body)
    })
    .await
}
