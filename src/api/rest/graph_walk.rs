//! `GET /memory/graph/{entity}`: what is connected to an entity, so many steps away.

use std::collections::HashMap;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use caxton_events::{MemoryId, Timestamp};
use caxton_projections::graph::{WALK_DEPTH_MAX, WALK_NODES_MAX, Walk, WalkQuery, WalkStrategy};
use caxton_projections::view::{View, Wait};
use serde_json::{Value, json};

use super::Api;
use super::batch::millis;
use super::call::{Call, ReadContext};
use super::contents::Room;
use super::entities::{must_be_true, observations};
use super::ids::Row;
use super::problem::Problem;
use super::refusals::graph_failed;
use super::relations::DIRECTIONS;
use super::rows::{self, ObservationRow, find_entity};

/// Steps when none are named.
const DEPTH_DEFAULT: u64 = 3;
/// Entities at most, when nothing else is named.
const NODES_DEFAULT: u64 = 1_000;
/// Observations shown with a node.
const OBSERVATIONS_SHOWN: usize = 20;

const WALK: &[&str] = &[
    "max_depth",
    "relation_types",
    "min_strength",
    "direction",
    "include_observations",
    "traversal_strategy",
    "max_nodes",
    "valid_at",
];
const STRATEGIES: &[(&str, WalkStrategy)] =
    &[("breadth_first", WalkStrategy::BreadthFirst), ("depth_first", WalkStrategy::DepthFirst)];

/// `GET /memory/graph/{entity}`.
pub(super) async fn walk(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], WALK])?;
    let context = ReadContext::take(&call, &mut query);
    let max_depth = query.integer("max_depth", 0..=WALK_DEPTH_MAX as u64).unwrap_or(DEPTH_DEFAULT);
    let nodes_max = query.integer("max_nodes", 1..=WALK_NODES_MAX as u64).unwrap_or(NODES_DEFAULT);
    let mut walk = WalkQuery {
        root: MemoryId(0),
        direction: query.choice("direction", DIRECTIONS).unwrap_or_default(),
        max_depth: max_depth as usize,
        relation_types: query.types("relation_types"),
        min_strength: query.number("min_strength", 0.0..=1.0).unwrap_or(0.0),
        scopes: context.scopes.clone(),
        valid_at: query.time("valid_at"),
        strategy: query.choice("traversal_strategy", STRATEGIES).unwrap_or_default(),
        nodes_max: nodes_max as usize,
    };
    let with_observations = query.flag("include_observations").unwrap_or(true);
    query.finish()?;
    let moment = api.moment(&context, Wait::Applied).await?;
    let text = call.path("entity").to_owned();
    api.query_at(moment, move |view| {
        let started = Instant::now();
        let root = find_entity(view, &text, &context.scopes)?;
        must_be_true(&root, walk.valid_at)?;
        walk.root = root.id;
        let found = view.graph().walk(&walk).map_err(|error| graph_failed(&error))?;
        let reached = found.nodes.iter().map(|node| node.depth).max().unwrap_or(0);
        let (nodes, edges, is_cut) = shown(view, &found, with_observations.then_some(walk.valid_at))?;
        let answer = json!({
            "root_entity": root.name,
            "root_entity_id": Row::Entity.show(root.id),
            "traversal_stats": {
                "max_depth": reached,
                "nodes_found": nodes.len(),
                "edges_found": edges.len(),
                "truncated": found.truncated || is_cut,
                "traversal_time_ms": millis(started),
            },
            "graph": {"nodes": nodes, "edges": edges},
        });
        let mut response = rows::shown(view, &answer)?;
        response.headers_mut().insert(
            axum::http::header::CACHE_CONTROL,
            axum::http::HeaderValue::from_static("private, no-store"),
        );
        Ok(response)
    })
    .await
}

/// The nodes and the edges, and whether observations were left out because there is no room for them in one answer; with
/// observations, those that are true at the time given.
#[expect(
    clippy::option_option,
    reason = "without observations, with all, with those of a time: three things"
)]
fn shown(
    view: &View,
    walk: &Walk,
    with_observations: Option<Option<Timestamp>>,
) -> Result<(Vec<Value>, Vec<Value>, bool), Problem> {
    let failed = |error| graph_failed(&error);
    let ids: Vec<MemoryId> = walk.nodes.iter().map(|node| node.id).collect();
    view.shown(ids.iter().copied());
    let entities = view.graph().entities(&ids).map_err(failed)?;
    let by_id: HashMap<MemoryId, _> = entities.into_iter().map(|entity| (entity.id, entity)).collect();
    let (mut room, mut is_cut) = (Room::default(), false);
    let mut nodes = Vec::with_capacity(walk.nodes.len());
    for node in &walk.nodes {
        // One that was removed between the two reads is gone.
        let Some(entity) = by_id.get(&node.id) else { continue };
        let mut shown = json!({
            "entity_id": Row::Entity.show(node.id),
            "entity_name": entity.name,
            "entity_type": entity.entity_type,
            "memory_scope": entity.scope.kind(),
            "depth": node.depth,
        });
        if let Some(valid_at) = with_observations
            && !is_cut
        {
            let (observations, is_short) =
                observations(view, node.id, None, valid_at, OBSERVATIONS_SHOWN, &mut room)?;
            is_cut = is_short;
            let observations: Vec<_> = observations.into_iter().map(ObservationRow::from).collect();
            shown["observations"] = json!(observations);
        }
        nodes.push(shown);
    }
    let name = |id| by_id.get(&id).map(|entity| entity.name.as_str());
    let edges = walk.edges.iter().map(|edge| {
        json!({
            "relation_id": Row::Relation.show(edge.id),
            "from": name(edge.from),
            "from_entity_id": Row::Entity.show(edge.from),
            "to": name(edge.to),
            "to_entity_id": Row::Entity.show(edge.to),
            "relation_type": edge.relation_type,
            "strength": edge.strength,
            "confidence": edge.confidence,
        })
    });
    Ok((nodes, edges.collect(), is_cut))
}
