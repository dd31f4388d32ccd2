//! The rows of the graph as callers see them.

use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope, Seq, Timestamp};
use serde::{Serialize, Serializer};

/// A thing with a name, as it is now or was in one version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// Its number.
    pub id: MemoryId,
    /// Where it lives.
    #[serde(serialize_with = "as_text")]
    pub scope: Scope,
    /// Unique within the scope.
    pub name: String,
    /// What kind of thing it is.
    pub entity_type: String,
    /// A JSON object as text; serialised as the object.
    #[serde(serialize_with = "as_json")]
    pub metadata: Option<String>,
    /// 0 to 1.
    pub confidence: f64,
    /// When it was true.
    #[serde(flatten, serialize_with = "as_bounds")]
    pub validity: Validity,
    /// 1, and one more with each update.
    pub version: u32,
    /// When the first version was recorded.
    pub created_at: Timestamp,
    /// When this version was recorded.
    pub updated_at: Timestamp,
    /// The record of the first version.
    pub created_seq: Seq,
    /// The record of this version.
    pub updated_seq: Seq,
    /// Who wrote the first version.
    pub owner: String,
}

/// Something noted about an entity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observation {
    /// Its number.
    pub id: MemoryId,
    /// The entity it is about.
    pub entity: MemoryId,
    /// The text.
    pub content: String,
    /// When it was true.
    #[serde(flatten, serialize_with = "as_bounds")]
    pub validity: Validity,
    /// When the first version was recorded.
    pub created_at: Timestamp,
    /// The record of the first version.
    pub created_seq: Seq,
    /// Who wrote this version.
    pub actor: String,
    /// When this version was recorded.
    pub updated_at: Timestamp,
    /// The record of this version.
    pub updated_seq: Seq,
}

/// A directed connection between two entities.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Relation {
    /// Its number.
    pub id: MemoryId,
    /// The scope it was written to.
    #[serde(serialize_with = "as_text")]
    pub scope: Scope,
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
    /// A JSON object as text; serialised as the object.
    #[serde(serialize_with = "as_json")]
    pub metadata: Option<String>,
    /// When it was true.
    #[serde(flatten, serialize_with = "as_bounds")]
    pub validity: Validity,
    /// When the first version was recorded.
    pub created_at: Timestamp,
    /// When this version was recorded.
    pub updated_at: Timestamp,
    /// The record of the first version.
    pub created_seq: Seq,
    /// Who wrote this version.
    pub actor: String,
}

/// One version of one row, present or past.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryRow {
    /// The record that wrote this version.
    pub created_seq: Seq,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// Who wrote it.
    pub actor: String,
    /// The record that replaced or removed it; `None`: it is the present.
    pub removed_seq: Option<Seq>,
    /// When it was replaced or removed.
    pub removed_at: Option<Timestamp>,
    /// What it said.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What a version in the history said.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// An entity.
    Entity(Entity),
    /// An observation.
    Observation(Observation),
    /// A relation.
    Relation(Relation),
}

impl Fact {
    /// How many bytes those of its texts take that may be long.
    pub fn text_bytes(&self) -> usize {
        match self {
            Self::Entity(entity) => entity.name.len() + entity.metadata.as_ref().map_or(0, String::len),
            Self::Observation(observation) => observation.content.len(),
            Self::Relation(relation) => relation.metadata.as_ref().map_or(0, String::len),
        }
    }

    /// Whether both are the same. A row that says again what it said is, whenever and as whichever version that was written.
    pub fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Entity(one), Self::Entity(other)) => {
                let (version, updated_at, updated_seq) = (other.version, other.updated_at, other.updated_seq);
                Entity { version, updated_at, updated_seq, ..one.clone() } == *other
            }
            (Self::Observation(one), Self::Observation(other)) => {
                let (updated_at, updated_seq) = (other.updated_at, other.updated_seq);
                Observation { updated_at, updated_seq, ..one.clone() } == *other
            }
            (Self::Relation(one), Self::Relation(other)) => {
                Relation { updated_at: other.updated_at, ..one.clone() } == *other
            }
            (Self::Entity(_) | Self::Observation(_) | Self::Relation(_), _) => false,
        }
    }
}

/// How many rows there are in the present.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct GraphStats {
    /// Entities.
    pub entities: u64,
    /// Observations.
    pub observations: u64,
    /// Relations.
    pub relations: u64,
    /// Agents that ever wrote, in all scopes.
    pub agents: u64,
    /// The same by scope, in the order the scopes were first written to.
    pub scopes: Vec<ScopeStats>,
}

/// How many rows one scope has in the present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScopeStats {
    /// The scope.
    #[serde(serialize_with = "as_text")]
    pub scope: Scope,
    /// Entities.
    pub entities: u64,
    /// Observations, counted where their entity lives.
    pub observations: u64,
    /// Relations.
    pub relations: u64,
}

fn as_text<S: Serializer>(scope: &Scope, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(scope)
}

#[derive(Serialize)]
struct Bounds {
    valid_from: Option<Timestamp>,
    valid_to: Option<Timestamp>,
}

fn as_bounds<S: Serializer>(validity: &Validity, serializer: S) -> Result<S::Ok, S::Error> {
    Bounds { valid_from: validity.from, valid_to: validity.to }.serialize(serializer)
}

/// Metadata is checked before it is recorded; what is no JSON all the same is passed on as a string.
#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn as_json<S: Serializer>(metadata: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match metadata {
        None => serializer.serialize_none(),
        Some(text) => match serde_json::from_str::<serde_json::Value>(text) {
            Ok(value) => value.serialize(serializer),
            Err(_) => serializer.serialize_str(text),
        },
    }
}
