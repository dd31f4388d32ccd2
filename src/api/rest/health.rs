//! Whether the server lives, is ready, and what it is made of.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::{Clock as _, MemoryId, Seq, Timestamp};
use caxton_projections::embedding::Embedder as _;
use caxton_projections::graph::RelationFilter;
use caxton_projections::view::{Part, View};
use serde_json::{Value, json};

use super::Api;
use super::call::Call;
use super::problem::Problem;
use super::refusals::{graph_failed, log_unreadable, stopping};
use super::rows;
use crate::engine::SystemClock;

/// How long the checks of `/memory/health` stand before they are made again, in microseconds.
const CHECK_MICROS: u64 = 60_000_000;
/// Relations that are looked at for ends that are gone.
const RELATIONS_CHECKED_MAX: usize = 10_000;

/// The last checks of the memory and when they were made.
#[derive(Debug, Default)]
pub(super) struct Checks(Mutex<Option<(Timestamp, Vec<Value>)>>);

/// `degraded` when a projection does not go on, `stopping` on the way out.
fn status(api: &Api) -> &'static str {
    if api.engine.is_stopping() {
        "stopping"
    } else if stopped(api.engine.view()).is_some() {
        "degraded"
    } else {
        "healthy"
    }
}

/// The projection that has stopped, with its error.
fn stopped(view: &View) -> Option<(&'static str, String)> {
    [Part::Graph, Part::Vectors, Part::Talk]
        .into_iter()
        .find_map(|part| view.positions().get(part).stopped.map(|error| (part.name(), error)))
}

/// `GET /ready`: 200 when writes and reads are taken. It needs no key and says nothing else.
pub(super) async fn ready(State(api): State<Api>) -> Result<Response, Problem> {
    if api.engine.is_stopping() {
        return Err(stopping());
    }
    match stopped(api.engine.view()) {
        None if !api.engine.is_caught_up() => {
            let detail = "the projections are catching up with the log; searches miss what is not folded yet";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_READY", detail.to_owned())
                .remedy("wait; GET /api/v1/health/detailed says how far they are")
                .retry_after(1))
        }
        None => rows::json(StatusCode::OK, &json!({"ready": true})),
        Some((name, _)) => {
            let detail = format!("projection {name} has stopped");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_READY", detail)
                .remedy("see GET /api/v1/health/detailed"))
        }
    }
}

/// `GET /health`.
pub(super) async fn health(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let own = api.clone();
    api.read(move |view| {
        let stats = view.graph().stats(None).map_err(|error| graph_failed(&error))?;
        rows::json(
            StatusCode::OK,
            &json!({
                "status": status(&own),
                "version": crate::VERSION,
                "memory_backend": "embedded",
                "agents_count": stats.agents,
                "memory_entities": stats.entities,
                "uptime": own.started.elapsed().as_secs(),
                "seq": own.engine.log().head().seq,
            }),
        )
    })
    .await
}

/// `GET /health/memory`.
pub(super) async fn memory(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let own = api.clone();
    api.read(move |view| {
        let stats = view.graph().stats(None).map_err(|error| graph_failed(&error))?;
        let graph = view.positions().get(Part::Graph);
        let model = view.semantic().map(|semantic| semantic.embedding.identity().name.clone());
        rows::json(
            StatusCode::OK,
            &json!({
                "status": status(&own),
                "sqlite_status": if graph.stopped.is_some() { "stopped" } else { "healthy" },
                "embedding_model": model.unwrap_or_else(|| "none (keyword-only)".to_owned()),
                "entities": stats.entities,
                "observations": stats.observations,
                "relations": stats.relations,
            }),
        )
    })
    .await
}

/// `GET /health/detailed`: every component with its position and its error.
pub(super) async fn detailed(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let own = api.clone();
    api.read(move |view| {
        let log = own.engine.log();
        let (head, stats) = (log.head(), log.stats().map_err(|error| log_unreadable(&error))?);
        let component = |part: Part| {
            let position = view.positions().get(part);
            json!({
                "status": if position.stopped.is_some() { "stopped" } else { "healthy" },
                "error": position.stopped,
                "seq": position.seq,
                "lag_events": head.seq.0.saturating_sub(position.seq.0),
            })
        };
        let semantic = view.semantic();
        let recovery = own.engine.recovery();
        rows::json(
            StatusCode::OK,
            &json!({
                "status": status(&own),
                "version": crate::VERSION,
                "uptime_seconds": own.started.elapsed().as_secs(),
                "components": {
                    "log": {
                        "status": "healthy",
                        "seq": head.seq,
                        "root": head.root.to_string(),
                        "events": stats.events,
                        "blocks": stats.blocks,
                        "file_bytes": stats.file_bytes,
                    },
                    "audit": audit(&own, head.seq),
                    "graph": component(Part::Graph),
                    "talk": talk(view, component(Part::Talk)),
                    "vectors": semantic.map_or(json!({"status": "disabled"}), |semantic| {
                        let stats = semantic.vectors.stats();
                        let indexed: u64 = stats.scopes.iter().map(|scope| scope.indexed).sum();
                        let mut vectors = component(Part::Vectors);
                        vectors["rows"] = stats.rows.into();
                        vectors["rows_indexed"] = indexed.into();
                        vectors["index_failure"] = stats.index_failure.into();
                        vectors
                    }),
                    "embedding": semantic.map_or(json!({"status": "disabled"}), |semantic| {
                        let identity = semantic.embedding.identity();
                        json!({
                            "status": "healthy",
                            "model": identity.name,
                            "weights_sha256": identity.weights_sha256,
                            "dimensions": identity.dimensions,
                            "precision": identity.precision,
                            "instructions": semantic.embedding.instructions(),
                        })
                    }),
                },
                "scaling": scaling(&own),
                "recovery": {
                    "replayed_events": recovery.replayed,
                    "graph_rebuilt": recovery.graph_rebuilt,
                    "talk_rebuilt": recovery.talk_rebuilt,
                    "vectors": recovery.vectors,
                },
            }),
        )
    })
    .await
}

/// Which limits of `memory.scaling` are passed, and what to do then. Nothing else changes by it.
fn scaling(api: &Api) -> Value {
    let advice = api.engine.advice();
    let backend = api.engine.watched().backend;
    json!({
        "advised": !advice.is_empty(),
        "passed": advice,
        "remedy": (!advice.is_empty()).then(|| {
            format!("consider a move to {backend} with `caxton export memory`, or raise the limit")
        }),
    })
}

/// The postings of the audit trail. Answers are right without them, only slower, so that the server is healthy all the
/// same.
fn audit(api: &Api, head: Seq) -> Value {
    let status = api.engine.postings().status();
    json!({
        "status": if status.failure.is_some() { "stopped" } else { "healthy" },
        "error": status.failure,
        "seq": status.through,
        "lag_events": head.0.saturating_sub(status.through.0),
        "files": status.segments,
        "bytes": status.bytes,
        "dropped": status.dropped,
    })
}

/// Agents and conversations, with how many there are.
fn talk(view: &View, mut component: Value) -> Value {
    let state = view.talk().read();
    let (config, external) = state.registry.count();
    component["agents"] = (config + external).into();
    component["conversations"] = state.conversations.len().into();
    component["conversations_open"] = state.conversations.open().into();
    component["messages"] = state.conversations.messages().into();
    component["dead_letters"] = state.conversations.dead_letters().len().into();
    component
}

/// `GET /memory/health`: checks that look at the data; made anew once a minute at most.
pub(super) async fn memory_checks(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let own = api.clone();
    api.read(move |view| {
        let now = SystemClock.now();
        let mut kept = own.checks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = kept.as_ref().filter(|(at, _)| at.unix_micros() + CHECK_MICROS > now.unix_micros());
        let (at, checks) = match fresh {
            Some(kept) => kept.clone(),
            None => kept.insert((now, made(view))).clone(),
        };
        drop(kept);
        let failed = checks.iter().any(|check| check["status"] == "fail");
        rows::json(
            StatusCode::OK,
            &json!({
                "status": if failed { "degraded" } else { "healthy" },
                "checks": checks,
                "last_check": at,
                "next_check": Timestamp::from_unix_micros(at.unix_micros() + CHECK_MICROS),
            }),
        )
    })
    .await
}

fn made(view: &View) -> Vec<Value> {
    let check =
        |name: &str, status: &str, detail: String| json!({"name": name, "status": status, "detail": detail});
    let database = match view.graph().checkpoint() {
        Ok(seq) => check("database_connectivity", "pass", format!("the graph is at {}", seq.0)),
        Err(error) => check("database_connectivity", "fail", error.to_string()),
    };
    let model = match view.semantic() {
        Some(semantic) => check("embedding_model_loaded", "pass", semantic.embedding.identity().name.clone()),
        None => check("embedding_model_loaded", "skipped", "the server runs keyword-only".to_owned()),
    };
    let index = match stopped(view) {
        None => check("index_integrity", "pass", "all projections follow the log".to_owned()),
        Some((name, error)) => check("index_integrity", "fail", format!("projection {name}: {error}")),
    };
    let orphans = match orphans(view) {
        Ok((checked, 0)) => check("orphaned_relations", "pass", format!("none of {checked} relations")),
        Ok((checked, found)) => {
            check("orphaned_relations", "fail", format!("{found} of {checked} relations"))
        }
        Err(error) => check("orphaned_relations", "fail", error.to_string()),
    };
    vec![database, model, index, orphans]
}

/// How many relations were looked at, and how many of them lack an end.
fn orphans(view: &View) -> Result<(usize, usize), caxton_projections::graph::ReadError> {
    let filter = RelationFilter { limit: RELATIONS_CHECKED_MAX, ..RelationFilter::default() };
    let relations = view.graph().list_relations(&filter)?;
    let ends: HashSet<MemoryId> =
        relations.iter().flat_map(|relation| [relation.from, relation.to]).collect();
    let ids: Vec<MemoryId> = ends.into_iter().collect();
    let present: HashSet<MemoryId> =
        view.graph().entities(&ids)?.into_iter().map(|entity| entity.id).collect();
    let whole = |id: &MemoryId| present.contains(id);
    let orphaned = relations.iter().filter(|relation| !whole(&relation.from) || !whole(&relation.to)).count();
    Ok((relations.len(), orphaned))
}
