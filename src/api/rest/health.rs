//! Whether the server lives, is ready, and what it is made of.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use caxton_events::log::{Head, LogStats, ReadError, Reader};
use caxton_events::{Clock as _, MemoryId, Seq, Timestamp};
use caxton_projections::embedding::Embedder as _;
use caxton_projections::graph::RelationFilter;
use caxton_projections::view::{Part, View};
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::call::Call;
use super::problem::Problem;
use super::refusals::{GO_ON, REOPEN, graph_failed, stopping};
use super::rows;
use crate::engine::SystemClock;
use crate::failure::chain;

/// The header of answers to `GET /ready` that says which log the server has: its id as 32 hexadecimal digits.
pub const LOG_ID_HEADER: &str = "caxton-log-id";
/// How long the checks of `/memory/health` stand before they are made again, in microseconds.
const CHECK_MICROS: u64 = 60_000_000;
/// Relations that are looked at for ends that are gone.
const RELATIONS_CHECKED_MAX: usize = 10_000;

/// What to do about a log that cannot be read although it is open.
const VERIFY: &str = "stop the server and run `caxton log verify`";

/// The last checks of the memory that read its data, and when they were made.
#[derive(Debug, Default)]
pub(super) struct Checks(Mutex<Option<(Timestamp, Made)>>);

/// Checks that read the data.
#[derive(Debug, Clone)]
struct Made {
    database: Value,
    model: Value,
    orphans: Value,
}

/// What keeps a server from being healthy.
#[derive(Debug, Serialize)]
struct Cause {
    /// Where it is found.
    component: &'static str,
    error: String,
    remedy: &'static str,
}

/// What keeps the server from being healthy. The log comes before what follows it: that stops with it. Only flags are
/// looked at, so that the answer is that of this moment.
fn cause(api: &Api) -> Option<Cause> {
    if api.engine.is_stopping() {
        return None;
    }
    if let Some(error) = closed(api.engine.log()) {
        return Some(Cause { component: "log", error, remedy: REOPEN });
    }
    let (component, error) = stopped(api.engine.view(), None)?;
    Some(Cause { component, error, remedy: GO_ON })
}

/// `degraded` when the log is closed or a projection does not go on, `stopping` on the way out.
fn status(api: &Api, cause: Option<&Cause>) -> &'static str {
    if api.engine.is_stopping() {
        "stopping"
    } else if cause.is_some() {
        "degraded"
    } else {
        "healthy"
    }
}

/// Why the log takes no more events, if it does not.
fn closed(log: &Reader) -> Option<String> {
    log.closed().map(|closed| closed.to_string())
}

/// The projection that has stopped, with its error. One that only lacks what a closed log still holds has not.
fn stopped(view: &View, closed: Option<&str>) -> Option<(&'static str, String)> {
    [Part::Graph, Part::Vectors, Part::Talk].into_iter().find_map(|part| {
        let error = view.positions().get(part).stopped.filter(|error| closed != Some(error.as_str()));
        error.map(|error| (part.name(), error))
    })
}

/// How a projection is that has stopped with this error, if it has.
fn standing(stopped: Option<&str>, closed: Option<&str>) -> &'static str {
    match stopped {
        None => "healthy",
        Some(error) if closed == Some(error) => "waiting",
        Some(_) => "stopped",
    }
}

/// `GET /ready`: 200 when writes and reads are taken. It needs no key, and besides says only which log this is, so that nobody
/// takes the server for another one.
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let mut response = readiness(&api).into_response();
    let id = format!("{:032x}", u128::from_be_bytes(api.engine.log().log_id()));
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(LOG_ID_HEADER, id);
    }
    response
}

fn readiness(api: &Api) -> Result<Response, Problem> {
    if api.engine.is_stopping() {
        return Err(stopping());
    }
    match cause(api) {
        None if !api.engine.is_caught_up() => {
            let detail = "the projections are catching up with the log; searches miss what is not folded yet";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "NOT_READY", detail.to_owned())
                .remedy("wait; GET /api/v1/health/detailed says how far they are")
                .retry_after(1))
        }
        None => rows::json(StatusCode::OK, &json!({"ready": true})),
        Some(cause) => {
            let detail = match cause.component {
                "log" => "the log is closed".to_owned(),
                name => format!("projection {name} has stopped"),
            };
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
        let cause = cause(&own);
        rows::json(
            StatusCode::OK,
            &json!({
                "status": status(&own, cause.as_ref()),
                "cause": cause,
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
        let (cause, closed) = (cause(&own), closed(own.engine.log()));
        let model = view.semantic().map(|semantic| semantic.embedding.identity().name.clone());
        rows::json(
            StatusCode::OK,
            &json!({
                "status": status(&own, cause.as_ref()),
                "cause": cause,
                "sqlite_status": standing(graph.stopped.as_deref(), closed.as_deref()),
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
        let head = log.head();
        let stats = log.stats();
        let closed = closed(log);
        let trouble = trouble(closed.as_deref(), &stats);
        let mut log = log_component(head, trouble.as_ref(), stats.ok());
        log["clock_behind_seconds"] = own.engine.clock_behind().map(|behind| behind.as_secs()).into();
        let cause = cause(&own).or(trouble);
        let component = |part: Part| {
            let position = view.positions().get(part);
            json!({
                "status": standing(position.stopped.as_deref(), closed.as_deref()),
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
                "status": status(&own, cause.as_ref()),
                "cause": cause,
                "version": crate::VERSION,
                "uptime_seconds": own.started.elapsed().as_secs(),
                "components": {
                    "log": log,
                    "audit": audit(&own, head.seq, closed.as_deref()),
                    "graph": component(Part::Graph),
                    "talk": talk(view, component(Part::Talk)),
                    "vectors": semantic.map_or(json!({"status": "disabled"}), |semantic| {
                        let stats = semantic.vectors.stats();
                        let indexed: u64 = stats.scopes.iter().map(|scope| scope.indexed).sum();
                        let mut vectors = component(Part::Vectors);
                        vectors["rows"] = stats.rows.into();
                        vectors["rows_indexed"] = indexed.into();
                        vectors["index_failure"] = stats.index_failure.into();
                        vectors["damaged"] = stats.damaged.into();
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

/// What is wrong with the log: it has closed itself, or its figures cannot be read.
fn trouble(closed: Option<&str>, stats: &Result<LogStats, ReadError>) -> Option<Cause> {
    match (closed, stats) {
        (Some(error), _) => Some(Cause { component: "log", error: error.to_owned(), remedy: REOPEN }),
        (None, Err(error)) => Some(Cause { component: "log", error: chain(error), remedy: VERIFY }),
        (None, Ok(_)) => None,
    }
}

/// The log, with its figures where they can be read. Where it ends is known in any case.
fn log_component(head: Head, trouble: Option<&Cause>, stats: Option<LogStats>) -> Value {
    json!({
        "status": if trouble.is_some() { "unhealthy" } else { "healthy" },
        "error": trouble.map(|cause| &cause.error),
        "remedy": trouble.map(|cause| cause.remedy),
        "seq": head.seq,
        "root": head.root.to_string(),
        "events": stats.map(|stats| stats.events),
        "blocks": stats.map(|stats| stats.blocks),
        "file_bytes": stats.map(|stats| stats.file_bytes),
    })
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
fn audit(api: &Api, head: Seq, closed: Option<&str>) -> Value {
    let status = api.engine.postings().status();
    json!({
        "status": standing(status.failure.as_deref(), closed),
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

/// `GET /memory/health`. Checks that read the data are made anew once a minute at most; those that look at flags, always.
pub(super) async fn memory_checks(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let own = api.clone();
    api.read(move |view| {
        let now = SystemClock.now();
        let mut kept = own.checks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = kept.as_ref().filter(|(at, _)| at.unix_micros() + CHECK_MICROS > now.unix_micros());
        let (at, made) = match fresh {
            Some(kept) => kept.clone(),
            None => kept.insert((now, made(&own, view))).clone(),
        };
        drop(kept);
        let closed = closed(own.engine.log());
        let index = match stopped(view, closed.as_deref()) {
            None => check("index_integrity", "pass", "all projections follow the log"),
            Some((name, error)) => check("index_integrity", "fail", &format!("projection {name}: {error}")),
        };
        let log = match closed {
            None => check("log_writable", "pass", "the log takes events"),
            Some(error) => check("log_writable", "fail", &format!("{error}; {REOPEN}")),
        };
        let checks = [made.database, made.model, index, made.orphans, log];
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

fn check(name: &str, status: &str, detail: &str) -> Value {
    json!({"name": name, "status": status, "detail": detail})
}

fn made(api: &Api, view: &View) -> Made {
    let failed = |name: &str, error: &caxton_projections::graph::ReadError| {
        if error.is_damage() {
            api.engine.graph_is_damaged(&chain(error));
        }
        check(name, "fail", &error.to_string())
    };
    let database = match view.graph().checkpoint() {
        Ok(seq) => check("database_connectivity", "pass", &format!("the graph is at {}", seq.0)),
        Err(error) => failed("database_connectivity", &error),
    };
    let model = match view.semantic() {
        Some(semantic) => check("embedding_model_loaded", "pass", &semantic.embedding.identity().name),
        None => check("embedding_model_loaded", "skipped", "the server runs keyword-only"),
    };
    let orphans = match orphans(view) {
        Ok((checked, 0)) => check("orphaned_relations", "pass", &format!("none of {checked} relations")),
        Ok((checked, found)) => {
            check("orphaned_relations", "fail", &format!("{found} of {checked} relations"))
        }
        Err(error) => failed("orphaned_relations", &error),
    };
    Made { database, model, orphans }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_events::log::{Head, LogStats, ReadError, StoreError};
    use serde_json::Value;

    use super::{REOPEN, VERIFY, log_component, standing, trouble};

    const CLOSED: &str = "the log is closed: an earlier write failed";

    #[test]
    fn a_log_that_is_closed_or_unreadable_is_named_and_the_rest_is_answered() {
        let stats = LogStats { events: 7, ..LogStats::default() };
        let unreadable = || Err(ReadError::Store(StoreError::Closed));
        for (closed, stats, told, events) in [
            (None, Ok(stats), None, Some(7)),
            (Some(CLOSED), Ok(stats), Some((CLOSED, REOPEN)), Some(7)),
            (Some(CLOSED), unreadable(), Some((CLOSED, REOPEN)), None),
            (None, unreadable(), Some(("could not read the log: the log is closed", VERIFY)), None),
        ] {
            let trouble = trouble(closed, &stats);
            let component = log_component(Head::default(), trouble.as_ref(), stats.ok());
            let text = |name: &str| component[name].as_str();
            assert_eq!(text("status"), Some(if told.is_some() { "unhealthy" } else { "healthy" }));
            assert_eq!(text("error").zip(text("remedy")), told);
            assert_eq!(component["events"].as_u64(), events);
            assert_eq!(component["root"].as_str().map(str::len), Some(64));
            let cause = serde_json::to_value(&trouble).unwrap();
            assert_eq!(cause.get("component").and_then(Value::as_str), told.map(|_| "log"));
        }
    }

    #[test]
    fn a_projection_that_waits_for_a_closed_log_has_not_stopped() {
        for (stopped, closed, then) in [
            (None, None, "healthy"),
            (None, Some(CLOSED), "healthy"),
            (Some("disk full"), None, "stopped"),
            (Some("disk full"), Some(CLOSED), "stopped"),
            (Some(CLOSED), Some(CLOSED), "waiting"),
        ] {
            assert_eq!(standing(stopped, closed), then, "{stopped:?} {closed:?}");
        }
    }
}
