//! Figures of the memory, and its configuration.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::Scope;
use caxton_projections::embedding::Embedder as _;
use caxton_projections::graph::GraphStats;
use caxton_projections::view::{View, Wait};
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, ReadContext};
use super::problem::Problem;
use super::refusals::graph_failed;
use super::rows;

/// Scopes that the answer lists one by one.
const SCOPES_SHOWN: usize = 1_000;

/// `GET /memory/stats`: everything, or what one agent sees.
pub(super) async fn stats(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(ReadContext::QUERY)?;
    let one = query.has("agent_id") || query.has("workspace") || query.has("memory_scope");
    let one =
        one || ["x-caxton-agent", "x-caxton-workspace"].iter().any(|name| call.headers().contains_key(*name));
    let context = ReadContext::take(&call, &mut query);
    query.finish()?;
    let moment = api.moment(&context, Wait::Applied).await?;
    let own = api.clone();
    api.query_at(moment, move |view| {
        let scopes = one.then_some(context.scopes.as_slice());
        let stats = view.graph().stats(scopes).map_err(|error| graph_failed(&error))?;
        rows::shown(
            view,
            &json!({
                "global_stats": global(view, &stats),
                "scope_breakdown": by_kind(&stats),
                "scopes": &stats.scopes[..stats.scopes.len().min(SCOPES_SHOWN)],
                "performance_metrics": performance(&own, view),
                "seq": view.seq(),
            }),
        )
    })
    .await
}

fn global(view: &View, stats: &GraphStats) -> Value {
    let bytes = view.graph().file_bytes();
    let identity = view.semantic().map(|semantic| semantic.embedding.identity());
    json!({
        "total_entities": stats.entities,
        "total_observations": stats.observations,
        "total_relations": stats.relations,
        "total_agents": stats.agents,
        "storage_size_mb": (bytes as f64 / 1e4).round() / 1e2,
        "embedding_model": identity.map(|identity| identity.name.as_str()),
        "embedding_dimensions": identity.map(|identity| identity.dimensions),
    })
}

/// Means since the server started; null where nothing was measured yet.
fn performance(api: &Api, view: &View) -> Value {
    let embedding = view.semantic().map(|semantic| semantic.embedding.stats());
    let seconds = api.started.elapsed().as_secs_f64();
    let (known, asked) = api.engine.known_questions();
    let hit_rate = (asked > 0).then(|| known as f64 / asked as f64);
    json!({
        "avg_search_time_ms": api.meter.search_millis(),
        "avg_storage_time_ms": api.meter.store_millis(),
        "cache_hit_rate": hit_rate,
        "embeddings_per_second": embedding.map(|stats| stats.texts as f64 / seconds.max(1.0)),
    })
}

/// The scopes added up by kind. Only in an agent's scope is it known who is active: its agent.
fn by_kind(stats: &GraphStats) -> Vec<Value> {
    let mut kinds: BTreeMap<&str, (u64, u64, u64, u64)> = BTreeMap::new();
    for scope in &stats.scopes {
        let sums = kinds.entry(scope.scope.kind()).or_default();
        sums.0 += scope.entities;
        sums.1 += scope.observations;
        sums.2 += scope.relations;
        sums.3 += u64::from(matches!(scope.scope, Scope::Agent(_)));
    }
    let row = |(kind, (entities, observations, relations, agents)): (&str, (u64, u64, u64, u64))| {
        json!({
            "memory_scope": kind,
            "entity_count": entities,
            "observation_count": observations,
            "relation_count": relations,
            "active_agents": if kind == "agent" { json!(agents) } else { Value::Null },
        })
    };
    kinds.into_iter().map(row).collect()
}

/// `GET /memory/config`.
pub(super) async fn config(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    rows::json(StatusCode::OK, &api.options.memory_config)
}
