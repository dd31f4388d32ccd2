//! What may be asked of the words, and what is answered.

use caxton_events::{MemoryId, Scope, Timestamp};
use serde::Serialize;

/// Most hits one query may ask for.
pub const KEYWORD_LIMIT_MAX: usize = 65_536;

/// What to look for by words. Empty lists mean no restriction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeywordQuery {
    /// Any text; it is never read as query syntax.
    pub text: String,
    /// Only of these scopes.
    pub scopes: Vec<Scope>,
    /// Only entities of these types and their observations.
    pub entity_types: Vec<String>,
    /// Only what was true then.
    pub valid_at: Option<Timestamp>,
    /// At most so many, up to [`KEYWORD_LIMIT_MAX`].
    pub limit: usize,
}

/// A row that shares words with the query.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TextHit {
    /// The entity or observation that matched.
    pub row: MemoryId,
    /// The entity it is, or is about.
    pub entity: MemoryId,
    /// BM25; higher is better, above 0, without an upper bound.
    pub score: f32,
    /// What matched.
    pub kind: TextHitKind,
}

/// Which text of a row matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextHitKind {
    /// The name or the type of an entity.
    Header,
    /// The content of an observation.
    Observation,
}
