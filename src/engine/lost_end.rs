//! Whether events that were acknowledged are missing at the log's end.
//!
//! A record at the end that is damaged cannot be told from one whose write a crash cut off, of which nobody was told: the log
//! ends before it, and every check of the log alone finds it whole. The projections know better: they fold what is durable.

use std::path::Path;

use caxton_events::Seq;
use caxton_events::log::Durability;
use caxton_projections::projection::Stored;
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
    /// A projection in `data_dir` that includes more than `head`, if one does. Files that cannot be read say nothing.
    pub fn find(data_dir: &Path, head: Seq) -> Option<Self> {
        let vectors = || vector::stored(&data_dir.join(Part::Vectors.name())).ok().flatten();
        Self::find_in_tables(data_dir, head).or_else(|| Self::of(Part::Vectors, vectors()?.checkpoint, head))
    }

    /// The same of the two that say where they are in a row, which costs next to nothing.
    fn find_in_tables(data_dir: &Path, head: Seq) -> Option<Self> {
        let graph = graph::stored(&data_dir.join(Part::Graph.name())).ok().flatten();
        let talk = talk::stored(&data_dir.join(Part::Talk.name())).ok().flatten();
        let of = |part, stored: Option<Stored>| Self::of(part, stored?.checkpoint, head);
        of(Part::Graph, graph).or_else(|| of(Part::Talk, talk))
    }

    fn of(part: Part, folded: Seq, head: Seq) -> Option<Self> {
        (folded > head).then_some(Self { head, part, folded })
    }
}

/// Refuses to go on from a log that lost its end, which would give the lost positions to other events. The vectors are judged
/// when they were read anyway: [`refuse_vectors`].
pub(super) fn refuse(data_dir: &Path, durability: Durability, head: Seq) -> Result<(), StartError> {
    refused(durability, LostEnd::find_in_tables(data_dir, head))
}

/// The same for vectors that have folded up to `folded`.
pub(super) fn refuse_vectors(durability: Durability, folded: Seq, head: Seq) -> Result<(), StartError> {
    refused(durability, LostEnd::of(Part::Vectors, folded, head))
}

fn refused(durability: Durability, lost: Option<LostEnd>) -> Result<(), StartError> {
    // Otherwise a crash may lose what was acknowledged, as was asked for.
    match lost {
        Some(lost) if durability == Durability::Always => Err(StartError::LostEnd(lost)),
        Some(_) | None => Ok(()),
    }
}
