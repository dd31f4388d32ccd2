//! From rows to events: what is recorded, in an order in which nothing is ever about something that is not there.

use caxton_events::limits::UNDO_BYTES_MAX;
use caxton_events::memory::Origin;
use caxton_events::{MemoryEvent, Scope};
use caxton_projections::graph::{Fact, HistoryRow, RowRef};

use super::rows::Row;
use super::settle::Planner;
use super::{Change, Plan, PlanError};

/// Every change that the settled rows come to.
pub(super) fn changes(planner: &mut Planner<'_>) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let undone: Vec<RowRef> =
        planner.numbered().filter(|(_, row)| !row.undone().is_empty()).map(|(row, _)| *row).collect();
    let mut bytes = 0_usize;
    for row in undone {
        let scope = scope_of(planner, row)?;
        let found = planner.load(row)?;
        let (Some(scope), true) = (scope, found.changes()) else {
            plan.without_effect += found.undone().iter().filter(|seq| found.chosen.contains(seq)).count();
            continue;
        };
        let Some(event) = event(row, found) else { continue };
        bytes = bytes.saturating_add(found.after().map_or(0, |after| text_bytes(&after.fact)));
        if bytes > UNDO_BYTES_MAX {
            return Err(PlanError::TooLarge);
        }
        plan.changes.push(Change {
            row,
            scope,
            before: found.before().cloned(),
            after: found.after().cloned(),
            undoes: found.undone().to_vec(),
            along: !found.undone().iter().any(|seq| found.chosen.contains(seq)),
            event,
        });
    }
    plan.changes.sort_by_key(|change| (order(change), change.row));
    Ok(plan)
}

/// Rows go before the entities they are about, and come back after them.
fn order(change: &Change) -> u8 {
    match (change.row, change.after.is_some()) {
        (RowRef::Relation(_), false) => 0,
        (RowRef::Observation(_), false) => 1,
        (RowRef::Entity(_), false) => 2,
        (RowRef::Entity(_), true) => 3,
        (RowRef::Observation(_), true) => 4,
        (RowRef::Relation(_), true) => 5,
    }
}

/// Where a row lives: an observation lives where its entity does.
fn scope_of(planner: &mut Planner<'_>, row: RowRef) -> Result<Option<Scope>, PlanError> {
    let entity = match planner.load(row)?.any() {
        Some(Fact::Entity(row)) => return Ok(Some(row.scope.clone())),
        Some(Fact::Relation(row)) => return Ok(Some(row.scope.clone())),
        Some(Fact::Observation(row)) => row.entity,
        None => return Ok(None),
    };
    Ok(match planner.load(RowRef::Entity(entity))?.any() {
        Some(Fact::Entity(row)) => Some(row.scope.clone()),
        Some(Fact::Observation(_) | Fact::Relation(_)) | None => None,
    })
}

/// The event that makes the row what it will be.
fn event(row: RowRef, found: &Row) -> Option<MemoryEvent> {
    let Some(after) = found.after() else {
        return Some(match (row, found.any()?) {
            (RowRef::Observation(id), Fact::Observation(row)) => {
                MemoryEvent::ObservationRemoved { id, entity: row.entity }
            }
            (RowRef::Relation(id), _) => MemoryEvent::RelationRemoved { id },
            (RowRef::Entity(id) | RowRef::Observation(id), _) => MemoryEvent::EntityRemoved { id },
        });
    };
    Some(match &after.fact {
        Fact::Entity(row) => MemoryEvent::EntityRestored {
            id: row.id,
            scope: row.scope.clone(),
            name: row.name.clone(),
            entity_type: row.entity_type.clone(),
            metadata: row.metadata.clone(),
            confidence: row.confidence,
            validity: row.validity,
            owner: row.owner.clone(),
            version: found.version_max() + 1,
            origin: origin(after),
        },
        Fact::Observation(row) => MemoryEvent::ObservationRestored {
            id: row.id,
            entity: row.entity,
            content: row.content.clone(),
            validity: row.validity,
            origin: origin(after),
        },
        Fact::Relation(row) => MemoryEvent::RelationRestored {
            id: row.id,
            scope: row.scope.clone(),
            from: row.from,
            to: row.to,
            relation_type: row.relation_type.clone(),
            strength: row.strength,
            confidence: row.confidence,
            metadata: row.metadata.clone(),
            validity: row.validity,
            origin: origin(after),
        },
    })
}

fn origin(version: &HistoryRow) -> Origin {
    let (first, created_at) = match &version.fact {
        Fact::Entity(row) => (row.created_seq, row.created_at),
        Fact::Observation(row) => (row.created_seq, row.created_at),
        Fact::Relation(row) => (row.created_seq, row.created_at),
    };
    Origin { first, created_at, author: version.actor.clone() }
}

fn text_bytes(fact: &Fact) -> usize {
    let metadata = |metadata: &Option<String>| metadata.as_ref().map_or(0, String::len);
    match fact {
        Fact::Entity(row) => row.name.len() + metadata(&row.metadata),
        Fact::Observation(row) => row.content.len(),
        Fact::Relation(row) => metadata(&row.metadata),
    }
}
