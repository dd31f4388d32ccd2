//! What there is: every path with its methods.

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tower::ServiceExt as _;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate as _, SizeAbove};

use super::problem::{Problem, nearest, shortened};
use super::{
    Api, RestOptions, audit, backup, batch, config_agents, embeddings, entities, entity_writes, erase,
    events, events_export, export, graph_walk, health, import, log_proofs, log_seal, memory_diff, middleware,
    observations, projections, relations, search, stats, stream, talk, undo,
};
use crate::engine::Engine;

/// Paths without parameters, for the hint in a 404.
const PATHS: &[&str] = &[
    "/api/v1/agents",
    "/api/v1/audit",
    "/api/v1/backup",
    "/api/v1/capabilities",
    "/api/v1/capabilities/health",
    "/api/v1/config-agents",
    "/api/v1/config-agents/reload",
    "/api/v1/config-agents/templates",
    "/api/v1/config-agents/validate",
    "/api/v1/conversations",
    "/api/v1/conversations/archive",
    "/api/v1/conversations/export",
    "/api/v1/dead-letters",
    "/api/v1/erase",
    "/api/v1/events",
    "/api/v1/events/export",
    "/api/v1/events/stream",
    "/api/v1/health",
    "/api/v1/health/detailed",
    "/api/v1/health/memory",
    "/api/v1/log/consistency",
    "/api/v1/log/head",
    "/api/v1/log/proof",
    "/api/v1/log/seal",
    "/api/v1/memory/config",
    "/api/v1/memory/diff",
    "/api/v1/memory/entities",
    "/api/v1/memory/entities/batch",
    "/api/v1/memory/export",
    "/api/v1/memory/export/tables",
    "/api/v1/memory/health",
    "/api/v1/memory/import",
    "/api/v1/memory/observations/batch",
    "/api/v1/memory/relations",
    "/api/v1/memory/relations/batch",
    "/api/v1/memory/search",
    "/api/v1/memory/stats",
    "/api/v1/memory/undo",
    "/api/v1/messages",
    "/api/v1/messages/batch",
    "/api/v1/projections",
    "/api/v1/ready",
    "/v1/embeddings",
];

/// Paths that any word fits and at which there is nothing to be read: whoever asks for it has mistyped another path.
const DELETED_ONLY: &[&str] = &["/api/v1/capabilities/{name}/{capability}", "/api/v1/memory/{agent_id}"];

/// The whole door as a service, without its connections: who listens for it decides which hosts it answers to.
pub fn router(engine: Engine, options: RestOptions) -> Router {
    with_layers(&Api::new(engine, options, false))
}

/// The same over an `api` that is there.
pub(super) fn with_layers(api: &Api) -> Router {
    layered(api, resources())
}

/// The same over an `api` that is there, with messages alone, which go nowhere.
pub(super) fn unlogged(api: &Api) -> Router {
    layered(api, talk::unlogged::routes())
}

fn layered(api: &Api, resources: Router<Api>) -> Router {
    let compression = api.options.compression;
    let paths = Router::new()
        .nest("/api/v1", resources)
        .route("/v1/embeddings", post(embeddings::create))
        .route("/api/v1/embeddings", post(embeddings::create));
    // The paths alone, with nothing around them: a 404 asks them whether another path would have done.
    let known: Router = paths.clone().with_state(api.clone());
    let router = paths
        .fallback(move |request: Request| no_such_path(known.clone(), request))
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(api.clone(), middleware::around))
        .with_state(api.clone());
    match compression {
        Some(compression) => router.layer(
            CompressionLayer::new()
                .gzip(true)
                .quality(CompressionLevel::Precise(i32::from(compression.level.clamp(1, 9))))
                .compress_when(
                    SizeAbove::new(compression.above_bytes)
                        .and(NotForContentType::SSE)
                        .and(NotForContentType::const_new(backup::MEDIA_TYPE)),
                ),
        ),
        None => router,
    }
}

fn resources() -> Router<Api> {
    config_agents::routes()
        .merge(talk::routes())
        .route("/memory/entities", get(entities::list).post(entity_writes::create))
        .route("/memory/entities/batch", post(batch::entities))
        .route(
            "/memory/entities/{entity}",
            get(entities::get)
                .patch(entity_writes::patch)
                .put(entity_writes::put)
                .delete(entity_writes::delete),
        )
        .route("/memory/entities/{entity}/history", get(entities::history))
        .route("/memory/entities/{entity}/observations", get(observations::list).post(observations::add))
        .route("/memory/observations/batch", post(batch::observations))
        .route(
            "/memory/observations/{id}",
            get(observations::get).patch(observations::patch).delete(observations::delete),
        )
        .route("/memory/relations", get(relations::list).post(relations::create))
        .route("/memory/relations/batch", post(batch::relations))
        .route(
            "/memory/relations/{id}",
            get(relations::get).patch(relations::patch).delete(relations::delete),
        )
        .route("/memory/search", get(search::by_query).post(search::by_body))
        .route("/memory/graph/{entity}", get(graph_walk::walk))
        .route("/memory/diff", get(memory_diff::list))
        .route("/memory/export", get(export::export))
        .route("/memory/export/tables", get(events_export::tables))
        .route("/memory/import", post(import::import))
        .route("/memory/stats", get(stats::stats))
        .route("/memory/undo", post(undo::undo))
        .route("/memory/health", get(health::memory_checks))
        .route("/memory/config", get(stats::config))
        .route("/memory/{agent_id}", axum::routing::delete(entity_writes::clear))
        .route("/audit", get(audit::query))
        .route("/audit/why/{what}", get(audit::why))
        .route("/log/consistency", get(log_proofs::consistency))
        .route("/log/head", get(log_proofs::head))
        .route("/log/proof", get(log_proofs::proof))
        .route("/backup", get(backup::backup))
        .route("/projections", get(projections::list))
        .route("/projections/{name}", get(projections::get))
        .route("/projections/{name}/rebuild", post(projections::rebuild))
        .route("/log/seal", post(log_seal::seal))
        .route("/erase", post(erase::erase))
        .route("/events", get(events::list))
        .route("/events/export", get(events_export::events))
        .route("/conversations/export", get(events_export::talk))
        .route("/events/stream", get(stream::events))
        .route("/health", get(health::health))
        .route("/health/memory", get(health::memory))
        .route("/health/detailed", get(health::detailed))
        .route("/ready", get(health::ready))
}

async fn no_such_path(known: Router, request: Request) -> Problem {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let without = path.trim_end_matches('/');
    if without.len() < path.len() && takes(known, &method, without).await {
        let remedy = format!("did you mean {}, without the slash at the end?", shortened(without));
        return nothing_at(&path).remedy(remedy);
    }
    nothing_at(&path)
}

/// Whether there is something at `path` that takes `method`. Nothing is run for it: it is asked with a method that nothing
/// takes, and what is there refuses that with the methods it takes.
async fn takes(known: Router, method: &Method, path: &str) -> bool {
    let request = axum::http::Request::builder().method("NONE").uri(path).body(Body::empty());
    let Ok(request) = request else { return false };
    let refusal = match known.oneshot(request).await {
        Ok(refusal) => refusal,
        Err(never) => match never {},
    };
    let allowed = refusal.headers().get(header::ALLOW).and_then(|allowed| allowed.to_str().ok());
    allowed.is_some_and(|allowed| allowed.split(',').any(|allowed| allowed.trim() == method.as_str()))
}

fn nothing_at(path: &str) -> Problem {
    // A slash at the end says nothing about which path was meant.
    let remedy = match nearest(path.trim_end_matches('/'), PATHS.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => "see docs/api.md for the paths there are".to_owned(),
    };
    let detail = format!("there is nothing at {}", shortened(path));
    Problem::new(StatusCode::NOT_FOUND, "NO_SUCH_PATH", detail).remedy(remedy)
}

async fn no_such_method(request: Request) -> Problem {
    let path = request.uri().path();
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if DELETED_ONLY.contains(&route) {
        return nothing_at(path);
    }
    let detail = format!("{} does not take {}", shortened(path), request.method());
    let remedy = match beside(path).filter(|_| route.ends_with('}')) {
        Some(near) => format!("use one of the methods in the Allow header; or did you mean {near}?"),
        None => "use one of the methods in the Allow header".to_owned(),
    };
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail).remedy(remedy)
}

/// The path without parameters that differs from this one in its last part and was probably meant.
fn beside(path: &str) -> Option<&'static str> {
    let (parent, last) = path.rsplit_once('/')?;
    let parts = PATHS.iter().filter_map(|known| known.rsplit_once('/'));
    let near = nearest(last, parts.filter(|(front, _)| *front == parent).map(|(_, part)| part))?;
    PATHS.iter().copied().find(|known| known.rsplit_once('/') == Some((parent, near)))
}
