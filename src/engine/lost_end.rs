//! Whether events that were acknowledged are missing at the log's end.
//!
//! A record at the end that is damaged cannot be told from one whose write a crash cut off, of which nobody was told: the log
//! ends before it, and every check of the log alone finds it whole. The projections know better: they fold what is durable.

use std::path::Path;

use caxton_events::Seq;
use caxton_events::log::Durability;
use caxton_projections::view::Part;
use caxton_projections::{graph, talk, vector};

use super::start::StartError;

/// A projection that has folded more than the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log ends at {head}, but {part} had folded {folded}: events that were acknowledged are missing at the log's end",
    part = part.name()
)]
pub struct LostEnd {
    /// The log's last record.
    pub head: Seq,
    /// The projection.
    pub part: Part,
    /// The last record that it includes.
    pub folded: Seq,
}

impl LostEnd {
    /// The projection in `data_dir` that includes most behind `head`, if one does. Files that cannot be read say nothing.
    pub fn find(data_dir: &Path, head: Seq) -> Option<Self> {
        let dir = |part: Part| data_dir.join(part.name());
        let graph = graph::stored(&dir(Part::Graph)).ok().flatten();
        let talk = talk::stored(&dir(Part::Talk)).ok().flatten();
        let vectors = vector::stored(&dir(Part::Vectors)).ok().flatten();
        let parts = [(Part::Graph, graph), (Part::Talk, talk), (Part::Vectors, vectors)];
        let ahead = parts.into_iter().filter_map(|(part, stored)| Some((part, stored?.checkpoint)));
        let ahead = ahead.filter(|(_, folded)| *folded > head).max_by_key(|(_, folded)| *folded);
        ahead.map(|(part, folded)| Self { head, part, folded })
    }
}

/// Refuses to go on from a log that lost its end, which would give the lost positions to other events.
pub(super) fn refuse(data_dir: &Path, durability: Durability, head: Seq) -> Result<(), StartError> {
    // Otherwise a crash may lose what was acknowledged, as was asked for.
    match LostEnd::find(data_dir, head) {
        Some(lost) if durability == Durability::Always => Err(StartError::LostEnd(lost)),
        Some(_) | None => Ok(()),
    }
}
