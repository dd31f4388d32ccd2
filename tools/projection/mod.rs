//! What is folded from a log, looked after offline: is it what the log adds up to, and another one in its place.
//!
//! Reading order: [`Home`] (where everything is), `states` (the projections behind one trait), [`verify()`], [`rebuild()`],
//! [`list()`], `room` (is there space for it).

mod base;
mod list;
mod rebuild;
mod room;
mod states;
#[cfg(test)]
mod tests;
mod verify;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use caxton_events::Seq;
use caxton_events::log::Reader;
use caxton_projections::embedding::Embedder;
use caxton_projections::graph::SqliteOptions;
use caxton_projections::vector::VectorOptions;
use serde::Serialize;

pub use list::{Listed, list};
pub use rebuild::{Comparison, RebuildError, RebuildOptions, Rebuilt, rebuild};
pub use room::{NoRoom, Room, folder_bytes, needed_bytes, system_room};
pub use states::StateError;
pub use verify::{Verified, VerifiedPart, VerifyError, verify};

/// A projection. Its name is that of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// Entities, observations, relations, and their words.
    Graph,
    /// Agents and conversations.
    Talk,
    /// Vectors of observations and entities.
    Vectors,
}

impl Name {
    /// Every projection there is.
    pub const ALL: [Self; 3] = [Self::Graph, Self::Talk, Self::Vectors];

    /// As it is typed and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Graph => "graph",
            Self::Talk => "talk",
            Self::Vectors => "vectors",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no projection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no projection; use graph, talk (agents and conversations) or vectors")]
pub struct UnknownName {
    /// What was given.
    pub text: String,
}

impl FromStr for Name {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| UnknownName { text: text.chars().take(64).collect() })
    }
}

/// Where everything is. Whoever has it holds the data directory's lock.
#[derive(Clone)]
pub struct Home<'a> {
    /// The data directory.
    pub data_dir: &'a Path,
    /// Its log.
    pub log: &'a Reader,
    /// The graph's settings.
    pub sqlite: &'a SqliteOptions,
    /// The vectors' settings.
    pub vectors: VectorOptions,
    /// The model of the vectors; without one they cannot be looked after.
    pub embedder: Option<Arc<dyn Embedder>>,
}

/// Hears how far the work on a projection is: the last record folded and the one to reach.
pub type Progress<'a> = &'a mut dyn FnMut(Name, Seq, Seq);
