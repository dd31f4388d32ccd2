//! What projections there are: version, position, size.

use std::fmt;

use caxton_events::Seq;
use caxton_events::log::Reader;
use caxton_projections::graph::Graph;
use caxton_projections::projection::Stored;
use caxton_projections::vector::Vectors;
use serde::Serialize;
use std::path::Path;

use super::Name;
use super::room::folder_bytes;
use super::states::{State, StateError, TalkFile, told};

/// A projection as its files tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Which one.
    pub name: Name,
    /// The version that wrote it; `None` when there is none, or it cannot be read.
    pub version: Option<u32>,
    /// The last record it includes.
    pub checkpoint: Option<Seq>,
    /// Records of the log that it does not include.
    pub lag: Option<u64>,
    /// Bytes of its folder; with the vectors by content.
    pub bytes: u64,
    /// Why it cannot be read, and what to do.
    pub error: Option<String>,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        match (&self.checkpoint, &self.error) {
            (_, Some(error)) => write!(f, "cannot be read: {error}"),
            (Some(checkpoint), None) => write!(f, "is at {checkpoint}"),
            (None, None) => f.write_str("is not there; the next start builds it"),
        }
    }
}

/// Every projection of the stopped data directory.
pub fn list(data_dir: &Path, log: &Reader) -> Vec<Listed> {
    let row = |name: Name, stored: fn(&Path) -> Result<Option<Stored>, StateError>| {
        let dir = data_dir.join(name.as_str());
        let (stored, error) = match stored(&dir) {
            Ok(stored) => (stored, None),
            Err(error) if error.is_of_system() => (None, Some(told(&error))),
            Err(error) => {
                let remedy = format!("`caxton projection rebuild {name}`, or the next start, builds it anew");
                (None, Some(format!("{}; {remedy}", told(&error))))
            }
        };
        Listed {
            name,
            version: stored.map(|stored| stored.version),
            checkpoint: stored.map(|stored| stored.checkpoint),
            lag: stored.map(|stored| log.head().seq.0.saturating_sub(stored.checkpoint.0)),
            bytes: folder_bytes(&dir, &|_| true).unwrap_or(0),
            error,
        }
    };
    Name::ALL
        .into_iter()
        .map(|name| match name {
            Name::Graph => row(name, Graph::stored),
            Name::Talk => row(name, TalkFile::stored),
            Name::Vectors => row(name, Vectors::stored),
        })
        .collect()
}
