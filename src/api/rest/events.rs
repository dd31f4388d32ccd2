//! The log itself: its head, and its events page by page or as they come.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::log::Filter;
use caxton_events::memory::Validity;
use caxton_events::{AgentEvent, Event, Kind, MemoryEvent, Record, Seq, SystemEvent};
use serde_json::{Value, json};

use super::Api;
use super::call::Call;
use super::fields::Fields;
use super::ids::Row;
use super::problem::{Problem, nearest};
use super::refusals::log_unreadable;
use super::rows::{self, object};

const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;
/// Longest time a client may wait for the next event, in seconds.
const WAIT_SECONDS_MAX: u64 = 25;
const POLL: Duration = Duration::from_millis(20);
/// Records looked at for one page; a filter that keeps little answers early with a `next_seq`.
const SCANNED_MAX: usize = 200_000;

const EVENTS: &[&str] =
    &["from_seq", "limit", "kinds", "actor", "stream", "correlation_id", "since", "until", "wait_seconds"];

/// `GET /log/head`: the position and the Merkle root of everything recorded.
pub(super) async fn head(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let head = api.engine.log().head();
    rows::json(
        StatusCode::OK,
        &json!({
            "seq": head.seq,
            "root": head.root.to_string(),
            "recorded_at": head.recorded_at,
        }),
    )
}

/// `GET /events`: events from `from_seq` on, at most `limit`; with `wait_seconds` it waits for the next one.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[EVENTS])?;
    let from = Seq(query.integer("from_seq", 1..=u64::MAX).unwrap_or(1));
    let limit = query.integer("limit", 1..=LIMIT_MAX).unwrap_or(LIMIT_DEFAULT) as usize;
    let wait = query.integer("wait_seconds", 0..=WAIT_SECONDS_MAX).unwrap_or(0);
    let filter = Filter {
        until: None,
        kinds: kinds(&mut query),
        stream: query.text("stream"),
        actor: query.text("actor"),
        correlation: query.text("correlation_id"),
        recorded_from: query.time("since"),
        recorded_before: query.time("until"),
    };
    query.finish()?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
    while api.engine.log().head().seq < from && tokio::time::Instant::now() < deadline {
        if api.engine.is_stopping() {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let log = api.engine.log().clone();
    api.read(move |_| {
        let head = log.head().seq;
        let (mut events, mut scanned, mut next) = (Vec::new(), 0, head.next().max(from));
        for record in log.scan(from, &filter) {
            let record = record.map_err(|error| log_unreadable(&error))?;
            scanned += 1;
            if events.len() == limit || scanned > SCANNED_MAX {
                next = record.seq;
                break;
            }
            next = next.max(record.seq.next());
            let id = log.event_id(&record).to_string();
            events.push(event(record, &id));
        }
        let body = json!({
            "count": events.len(),
            "events": events,
            "next_seq": next,
            "head_seq": head,
        });
        rows::json(StatusCode::OK, &body)
    })
    .await
}

fn kinds(query: &mut Fields) -> Option<Vec<Kind>> {
    let names = query.texts("kinds");
    let mut kinds = Vec::with_capacity(names.len());
    for name in &names {
        if let Some(kind) = Kind::from_name(name) {
            kinds.push(kind);
            continue;
        }
        let known = || Kind::ALL.iter().map(|kind| kind.name());
        let remedy = match nearest(name, known()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known are: {}", known().collect::<Vec<_>>().join(", ")),
        };
        query.complain("kinds", Some(name), "is no kind of event", &remedy);
    }
    (!names.is_empty()).then_some(kinds)
}

/// An event as clients see it.
fn event(record: Record, id: &str) -> Value {
    let kind = record.event.kind().name();
    json!({
        "seq": record.seq,
        "id": id,
        "recorded_at": record.recorded_at,
        "kind": kind,
        "stream": record.stream,
        "actor": record.actor,
        "correlation_id": record.correlation,
        "causation_seq": record.causation,
        "data": data(record.event),
    })
}

fn data(event: Event) -> Value {
    match event {
        Event::Memory(event) => memory(event),
        Event::Agent(AgentEvent::ExternalRegistered { agent, workspace }) => {
            json!({"agent_id": agent, "workspace": workspace})
        }
        Event::System(event) => system(event),
    }
}

fn system(event: SystemEvent) -> Value {
    match event {
        SystemEvent::ServerStarted { version } => json!({"version": version}),
        SystemEvent::ServerStopped => json!({}),
        SystemEvent::EmbeddingModelChanged { name, weights_sha256, dimensions } => {
            json!({"name": name, "weights_sha256": weights_sha256, "dimensions": dimensions})
        }
    }
}

fn memory(event: MemoryEvent) -> Value {
    match event {
        MemoryEvent::EntityCreated { id, scope, name, entity_type, metadata, confidence, validity } => with(
            validity,
            json!({
                "entity_id": Row::Entity.show(id), "scope": scope.to_string(), "entity_name": name,
                "entity_type": entity_type, "metadata": object(metadata), "confidence": confidence,
            }),
        ),
        MemoryEvent::EntityUpdated { id, name, entity_type, metadata, confidence, validity } => with(
            validity,
            json!({
                "entity_id": Row::Entity.show(id), "entity_name": name, "entity_type": entity_type,
                "metadata": object(metadata), "confidence": confidence,
            }),
        ),
        MemoryEvent::EntityRemoved { id } => json!({"entity_id": Row::Entity.show(id)}),
        MemoryEvent::ObservationAdded { id, entity, content, validity }
        | MemoryEvent::ObservationUpdated { id, entity, content, validity } => with(
            validity,
            json!({
                "observation_id": Row::Observation.show(id), "entity_id": Row::Entity.show(entity),
                "content": content,
            }),
        ),
        MemoryEvent::ObservationRemoved { id, entity } => {
            json!({"observation_id": Row::Observation.show(id), "entity_id": Row::Entity.show(entity)})
        }
        MemoryEvent::RelationCreated {
            id,
            scope,
            from,
            to,
            relation_type,
            strength,
            confidence,
            metadata,
            validity,
        } => with(
            validity,
            json!({
                "relation_id": Row::Relation.show(id), "scope": scope.to_string(),
                "from_entity_id": Row::Entity.show(from), "to_entity_id": Row::Entity.show(to),
                "relation_type": relation_type, "strength": strength, "confidence": confidence,
                "metadata": object(metadata),
            }),
        ),
        MemoryEvent::RelationUpdated { id, strength, confidence, metadata, validity } => with(
            validity,
            json!({
                "relation_id": Row::Relation.show(id), "strength": strength, "confidence": confidence,
                "metadata": object(metadata),
            }),
        ),
        MemoryEvent::RelationRemoved { id } => json!({"relation_id": Row::Relation.show(id)}),
    }
}

fn with(validity: Validity, mut data: Value) -> Value {
    data["valid_from"] = json!(validity.from);
    data["valid_to"] = json!(validity.to);
    data
}
