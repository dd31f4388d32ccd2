//! Undo: which facts are taken back, what builds on them, and the events that do it. A function of the graph's history.
//!
//! Reading order: this file (what is asked and answered), [`rows`] (the facts about one row, and what is left of it
//! without some of them), [`settle`] (what must go or stay together), [`events`] (from rows to events).

mod events;
mod rows;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caxton_events::limits::{UNDO_BYTES_MAX, UNDO_EVENTS_MAX};
use caxton_events::memory::Later;
use caxton_events::{MemoryEvent, MemoryId, Scope, Seq};
use caxton_projections::graph::{GraphMoment, HistoryRow, ReadError, RowRef};

use settle::Planner;

/// Texts of all versions of the rows that are looked at for an undo, in bytes: what they say now, and what they said then.
const LOADED_BYTES_MAX: usize = 2 * UNDO_BYTES_MAX;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Undo<'a> {
    /// The facts to take back, each with its row.
    pub chosen: &'a [(Seq, RowRef)],
    /// What was undone before: each record that did it with the facts that it undid.
    pub undone: &'a BTreeMap<Seq, Vec<Seq>>,
    /// What happens to facts that build on the chosen ones.
    pub later: Later,
}

/// What an undo comes to.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// What changes, in the order in which it is recorded. With [`Later::Refuse`] and later facts: what would change if
    /// those were taken along.
    pub changes: Vec<Change>,
    /// Facts that build on chosen ones, by position.
    pub later_facts: Vec<LaterFact>,
    /// Chosen facts that were undone before.
    pub already_undone: usize,
    /// Chosen facts that stay, because later ones build on them.
    pub kept: usize,
    /// Chosen facts that are taken back without a trace, because others took them back already: what was created and removed.
    pub without_effect: usize,
}

/// What happens to one row.
#[derive(Debug, Clone)]
pub struct Change {
    /// The row.
    pub row: RowRef,
    /// Where it lives.
    pub scope: Scope,
    /// What it is; `None`: it is not there.
    pub before: Option<Arc<HistoryRow>>,
    /// What it will be, as it was then; `None`: it goes.
    pub after: Option<Arc<HistoryRow>>,
    /// The facts that this takes back, by position.
    pub undoes: Vec<Seq>,
    /// No chosen fact is among them: it goes along with those that are.
    pub along: bool,
    /// What is recorded.
    pub event: MemoryEvent,
}

/// A fact that builds on one that is to be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaterFact {
    /// Its position.
    pub seq: Seq,
    /// What it is about.
    pub row: RowRef,
    /// The first of the facts that it builds on.
    pub builds_on: Seq,
    /// How.
    pub why: Why,
}

/// How a fact builds on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It changed what the other had made of the same row.
    SameRow,
    /// It is about an entity that would go.
    About(MemoryId),
    /// It removed the entity of a row that would come back.
    Removed(MemoryId),
    /// It took the name, the text or the place of a row that would come back.
    TookPlaceOf(RowRef),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SameRow => f.write_str("changed it again"),
            Self::About(entity) => write!(f, "is about ent_{entity}, which would go"),
            Self::Removed(entity) => write!(f, "removed ent_{entity}, which what comes back is about"),
            Self::TookPlaceOf(row) => write!(f, "took the place of {row}, which would come back"),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// More facts than one undo may take back.
    #[error("more than {UNDO_EVENTS_MAX} facts would be undone at once")]
    TooMany,
    /// More text than one undo may bring back, or read to find out what comes back.
    #[error(
        "more than {UNDO_BYTES_MAX} bytes of text would come back at once, or more than {LOADED_BYTES_MAX} would have to be read \
         for it"
    )]
    TooLarge,
    /// The memory could not be read.
    #[error(transparent)]
    Graph(#[from] ReadError),
}

/// Decides what takes the chosen facts back, on the memory as it is at this moment.
///
/// What is left of a row is its state after the last fact that stays. A fact *builds on* an undone one when it came later
/// and changed the same row, is about an entity that would go, removed the entity of a row that would come back, or took
/// its place.
///
/// # Errors
///
/// [`PlanError`].
pub fn plan(memory: &GraphMoment<'_>, undo: &Undo<'_>) -> Result<Plan, PlanError> {
    let mut planner = Planner::new(memory, undo.undone, undo.later);
    for (seq, row) in undo.chosen {
        planner.choose(*row, *seq)?;
    }
    let live: BTreeSet<Seq> = planner.rows().flat_map(|row| row.undone().iter().copied()).collect();
    planner.settle()?;
    let mut plan = events::changes(&mut planner)?;
    for row in planner.rows() {
        // What was void at first may go as well, along with what another undo had brought back.
        let gone: BTreeSet<Seq> = row.undone().iter().copied().collect();
        for seq in row.chosen.difference(&gone) {
            if live.contains(seq) {
                plan.kept += 1;
            } else {
                plan.already_undone += 1;
            }
        }
    }
    plan.later_facts = planner.later_facts();
    Ok(plan)
}

/// The row that a fact is about.
pub const fn row_of(event: &MemoryEvent) -> Option<RowRef> {
    match event {
        MemoryEvent::EntityCreated { id, .. }
        | MemoryEvent::EntityUpdated { id, .. }
        | MemoryEvent::EntityRestored { id, .. }
        | MemoryEvent::EntityRemoved { id } => Some(RowRef::Entity(*id)),
        MemoryEvent::ObservationAdded { id, .. }
        | MemoryEvent::ObservationUpdated { id, .. }
        | MemoryEvent::ObservationRestored { id, .. }
        | MemoryEvent::ObservationRemoved { id, .. } => Some(RowRef::Observation(*id)),
        MemoryEvent::RelationCreated { id, .. }
        | MemoryEvent::RelationUpdated { id, .. }
        | MemoryEvent::RelationRestored { id, .. }
        | MemoryEvent::RelationRemoved { id } => Some(RowRef::Relation(*id)),
        MemoryEvent::Undone { .. } => None,
    }
}

impl Plan {
    /// Whether later facts are in the way.
    pub fn is_refused(&self, later: Later) -> bool {
        later == Later::Refuse && !self.later_facts.is_empty()
    }
}
