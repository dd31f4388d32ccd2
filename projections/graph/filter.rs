//! What may be asked of the graph. In every filter an empty list means no restriction.

use caxton_events::{MemoryId, Scope, Timestamp};
use serde::Serialize;

/// Which entities to list, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EntityFilter {
    /// Only of these scopes.
    pub scopes: Vec<Scope>,
    /// Only of these types.
    pub entity_types: Vec<String>,
    /// Only with names that start so; upper and lower case differ.
    pub name_prefix: Option<String>,
    /// Only true then.
    pub valid_at: Option<Timestamp>,
    /// Only after this one: the last of the page before.
    pub after: Option<MemoryId>,
    /// At most so many.
    pub limit: usize,
}

/// Which relations to list, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RelationFilter {
    /// Only of these scopes.
    pub scopes: Vec<Scope>,
    /// Only of these types.
    pub relation_types: Vec<String>,
    /// Only at least so strong; 0: all.
    pub min_strength: f64,
    /// Only true then.
    pub valid_at: Option<Timestamp>,
    /// Only true at some time from the first moment on and before the second.
    pub valid_between: Option<(Timestamp, Timestamp)>,
    /// Only after this one: the last of the page before.
    pub after: Option<MemoryId>,
    /// At most so many.
    pub limit: usize,
}

/// Which end of a relation an entity is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// The entity is where it starts.
    Outgoing,
    /// The entity is where it ends.
    Incoming,
    /// Either.
    #[default]
    Both,
}

/// The order in which a walk meets entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WalkStrategy {
    /// Nearest first.
    #[default]
    BreadthFirst,
    /// Along each path to its end first.
    DepthFirst,
}

/// Deepest walk.
pub const WALK_DEPTH_MAX: usize = 10;
/// Most entities one walk may return.
pub const WALK_NODES_MAX: usize = 10_000;
/// Most relations one walk may go along.
pub const WALK_EDGES_MAX: usize = 200_000;

/// What to reach from an entity.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkQuery {
    /// Where to start.
    pub root: MemoryId,
    /// Along which ends of relations.
    pub direction: Direction,
    /// How many relations away, 0 to [`WALK_DEPTH_MAX`].
    pub max_depth: usize,
    /// Only along relations of these types.
    pub relation_types: Vec<String>,
    /// Only along relations at least so strong; 0: all.
    pub min_strength: f64,
    /// Only along relations of these scopes, and to entities of these scopes.
    pub scopes: Vec<Scope>,
    /// Only along relations that were true then, and to entities that were.
    pub valid_at: Option<Timestamp>,
    /// In which order.
    pub strategy: WalkStrategy,
    /// At most so many entities, the root among them; 1 to [`WALK_NODES_MAX`].
    pub nodes_max: usize,
}

/// What a walk met.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Walk {
    /// Entities, in the order they were met; the root first.
    pub nodes: Vec<WalkNode>,
    /// The relations it went along whose ends are both among the nodes, by number.
    pub edges: Vec<WalkEdge>,
    /// Whether there was more than the bounds allow.
    pub truncated: bool,
}

/// An entity that a walk met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WalkNode {
    /// Its number.
    pub id: MemoryId,
    /// The least number of relations to it from the root.
    pub depth: usize,
}

/// A relation that a walk went along.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WalkEdge {
    /// Its number.
    pub id: MemoryId,
    /// Where it starts.
    pub from: MemoryId,
    /// Where it ends.
    pub to: MemoryId,
    /// What it says.
    pub relation_type: String,
    /// 0 to 1.
    pub strength: f64,
    /// 0 to 1.
    pub confidence: f64,
}
