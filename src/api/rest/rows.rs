//! Entities, observations and relations as JSON, and the little that all handlers use to read and answer them.

use std::collections::HashMap;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope, Seq, Timestamp};
use caxton_projections::graph::{Entity, Observation, Relation};
use caxton_projections::view::View;
use serde::Serialize;
use serde_json::Value;

use super::buffers;
use super::ids::Row;
use super::problem::Problem;
use super::refusals;

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let bytes = buffers::json(value).map_err(|error| refusals::internal(&error))?;
    let mut response = made(bytes);
    *response.status_mut() = status;
    Ok(response)
}

/// An answer whose JSON was made before.
pub(super) fn made(json: Bytes) -> Response {
    let mut response = Response::new(Body::from(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer with the record it is of, where it is not of the present.
#[derive(Serialize)]
struct AsOf<'a, T> {
    #[serde(flatten)]
    answer: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Seq>,
}

/// An answer from `view` in JSON: an object that also says of which record it is, when it is not of the present.
pub(super) fn shown(view: &View, answer: &impl Serialize) -> Result<Response, Problem> {
    json(StatusCode::OK, &AsOf { answer, as_of: view.moment() })
}

/// An entity.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EntityRow {
    pub(super) entity_id: String,
    pub(super) entity_name: String,
    pub(super) entity_type: String,
    pub(super) memory_scope: &'static str,
    pub(super) agent_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workspace: Option<String>,
    pub(super) metadata: Option<Value>,
    pub(super) confidence: f64,
    pub(super) valid_from: Option<Timestamp>,
    pub(super) valid_to: Option<Timestamp>,
    pub(super) version: u32,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observation_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observations: Option<Vec<ObservationRow>>,
    pub(super) seq: Seq,
}

impl From<Entity> for EntityRow {
    fn from(entity: Entity) -> Self {
        Self {
            entity_id: Row::Entity.show(entity.id),
            memory_scope: entity.scope.kind(),
            agent_id: match &entity.scope {
                Scope::Agent(agent) => agent.to_string(),
                Scope::Workspace(_) | Scope::Global => entity.owner,
            },
            workspace: workspace_of(&entity.scope),
            entity_name: entity.name,
            entity_type: entity.entity_type,
            metadata: object(entity.metadata),
            confidence: entity.confidence,
            valid_from: entity.validity.from,
            valid_to: entity.validity.to,
            version: entity.version,
            created_at: entity.created_at,
            updated_at: entity.updated_at,
            observation_count: None,
            observations: None,
            seq: entity.updated_seq,
        }
    }
}

/// An observation.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ObservationRow {
    pub(super) observation_id: String,
    pub(super) entity_id: String,
    pub(super) content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) valid_from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) valid_to: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    pub(super) created_by: String,
    pub(super) seq: Seq,
    pub(super) updated_at: Timestamp,
    pub(super) updated_seq: Seq,
}

impl From<Observation> for ObservationRow {
    fn from(observation: Observation) -> Self {
        let Validity { from, to } = observation.validity;
        Self {
            observation_id: Row::Observation.show(observation.id),
            entity_id: Row::Entity.show(observation.entity),
            content: observation.content,
            valid_from: from,
            valid_to: to,
            created_at: observation.created_at,
            created_by: observation.actor,
            seq: observation.created_seq,
            updated_at: observation.updated_at,
            updated_seq: observation.updated_seq,
        }
    }
}

/// A relation, with the names of its ends where they are still there and the caller sees them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RelationRow {
    pub(super) relation_id: String,
    pub(super) from_entity: Option<String>,
    pub(super) from_entity_id: String,
    pub(super) to_entity: Option<String>,
    pub(super) to_entity_id: String,
    /// In an export, where its ends live: those that are not in the scope that is exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from_scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to_scope: Option<&'static str>,
    pub(super) relation_type: String,
    pub(super) strength: f64,
    pub(super) confidence: f64,
    pub(super) metadata: Option<Value>,
    pub(super) valid_from: Option<Timestamp>,
    pub(super) valid_to: Option<Timestamp>,
    pub(super) memory_scope: &'static str,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) created_by: String,
    pub(super) seq: Seq,
}

impl RelationRow {
    /// The relation with the names of its ends out of `names`.
    pub(super) fn new(relation: Relation, names: &HashMap<MemoryId, String>) -> Self {
        Self {
            relation_id: Row::Relation.show(relation.id),
            from_entity: names.get(&relation.from).cloned(),
            from_entity_id: Row::Entity.show(relation.from),
            to_entity: names.get(&relation.to).cloned(),
            to_entity_id: Row::Entity.show(relation.to),
            from_scope: None,
            to_scope: None,
            relation_type: relation.relation_type,
            strength: relation.strength,
            confidence: relation.confidence,
            metadata: object(relation.metadata),
            valid_from: relation.validity.from,
            valid_to: relation.validity.to,
            memory_scope: relation.scope.kind(),
            created_at: relation.created_at,
            updated_at: relation.updated_at,
            created_by: relation.actor,
            seq: relation.created_seq,
        }
    }

    /// All `relations`, with one look-up for the names: of ends in the scopes that the caller sees.
    pub(super) fn all(
        view: &View,
        relations: Vec<Relation>,
        visible: &[Scope],
    ) -> Result<Vec<Self>, Problem> {
        let ends = relations.iter().flat_map(|relation| [relation.from, relation.to]);
        let names = names_of(view, ends, Some(visible))?;
        Ok(relations.into_iter().map(|relation| Self::new(relation, &names)).collect())
    }
}

/// The names of entities of these scopes, or of all. One's own relation may lead to an entity of a workspace that one asks from
/// no more.
pub(super) fn names_of(
    view: &View,
    ids: impl Iterator<Item = MemoryId>,
    visible: Option<&[Scope]>,
) -> Result<HashMap<MemoryId, String>, Problem> {
    let mut ids: Vec<MemoryId> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    let entities = view.graph().entities(&ids).map_err(|error| refusals::graph_failed(&error))?;
    let is_seen = |entity: &Entity| visible.is_none_or(|scopes| scopes.contains(&entity.scope));
    Ok(entities.into_iter().filter(is_seen).map(|entity| (entity.id, entity.name)).collect())
}

/// The entity that `text` means, by id or by name, in the first of `scopes` that has it.
///
/// # Errors
///
/// A [`Problem`]: 404 when there is none, 5xx when the graph fails.
pub(super) fn find_entity(view: &View, text: &str, scopes: &[Scope]) -> Result<Entity, Problem> {
    let graph = view.graph();
    let failed = |error| refusals::graph_failed(&error);
    if let Some(id) = Row::Entity.parse(text)
        && let Some(entity) = graph.entity(id).map_err(failed)?
        && scopes.contains(&entity.scope)
    {
        return Ok(entity);
    }
    for scope in scopes {
        if let Some(entity) = graph.entity_by_name(scope, text).map_err(failed)? {
            return Ok(entity);
        }
    }
    Err(Row::Entity.missing(text))
}

/// The workspace of a scope, where it is one.
pub(super) fn workspace_of(scope: &Scope) -> Option<String> {
    match scope {
        Scope::Workspace(workspace) => Some(workspace.to_string()),
        Scope::Agent(_) | Scope::Global => None,
    }
}

/// Metadata as the object it is. It was checked before it was recorded; anything else is shown as a text.
pub(super) fn object(metadata: Option<String>) -> Option<Value> {
    metadata.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)))
}
