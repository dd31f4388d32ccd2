//! Vectors of what the graph holds now, for a log that has lost the events that led there.

use caxton_events::{MemoryEvent, MemoryId, Record, Seq, Timestamp};
use caxton_projections::graph::{Entity, EntityFilter, GraphReader, Observation, ReadError};
use caxton_projections::projection::{ApplyError, Projection as _};
use caxton_projections::vector::Vectors;

/// Rows folded at a time.
const ROWS_MAX: usize = 512;

/// Why the vectors were not folded.
#[derive(Debug, thiserror::Error)]
pub enum RefoldError {
    /// The graph could not be read.
    #[error("could not read the graph")]
    Graph(#[from] ReadError),
    /// The vectors could not be stored, or the model failed.
    #[error("could not fold the vectors")]
    Vectors(#[from] ApplyError),
}

/// Folds every row of the graph into `vectors`, which are emptied before, as of the graph's checkpoint: as if each had been
/// recorded as it is now. Vectors of rows that are no more, or of what they were before, are not among them: searches as of a
/// record before that say that they are not exact.
pub(super) fn refold(graph: &GraphReader, vectors: &mut Vectors) -> Result<(), RefoldError> {
    let checkpoint = graph.checkpoint()?;
    vectors.reset()?;
    vectors.lack_past(checkpoint);
    let (mut records, mut after) = (Vec::with_capacity(ROWS_MAX), None);
    // A row was at least one event, so there are at least as many positions as batches.
    let mut batch = Seq::ZERO;
    let mut fold_full = |records: &mut Vec<Record>| -> Result<(), ApplyError> {
        if records.len() >= ROWS_MAX {
            batch = batch.next();
            vectors.fold(records, batch.min(checkpoint))?;
            records.clear();
        }
        Ok(())
    };
    loop {
        let filter = EntityFilter { after, limit: ROWS_MAX, ..EntityFilter::default() };
        let entities = graph.list_entities(&filter)?;
        let Some(last) = entities.last().map(|entity| entity.id) else { break };
        for entity in entities {
            let id = entity.id;
            records.push(created(entity));
            fold_full(&mut records)?;
            let mut last: Option<MemoryId> = None;
            loop {
                let observations = graph.observations_of(id, last, ROWS_MAX)?;
                let Some(newest) = observations.last().map(|observation| observation.id) else { break };
                records.extend(observations.into_iter().map(added));
                last = Some(newest);
                fold_full(&mut records)?;
            }
        }
        after = Some(last);
    }
    vectors.fold(&records, checkpoint)?;
    Ok(())
}

fn created(entity: Entity) -> Record {
    let Entity { id, scope, name, entity_type, metadata, confidence, validity, updated_seq, .. } = entity;
    let event = MemoryEvent::EntityCreated { id, scope, name, entity_type, metadata, confidence, validity };
    record(updated_seq, event)
}

fn added(observation: Observation) -> Record {
    // The text is that of the last version: what it was before is not said.
    let Observation { id, entity, content, validity, updated_seq, .. } = observation;
    record(updated_seq, MemoryEvent::ObservationAdded { id, entity, content, validity })
}

fn record(seq: Seq, event: MemoryEvent) -> Record {
    Record {
        seq,
        recorded_at: Timestamp::EPOCH,
        stream: String::new(),
        actor: String::new(),
        correlation: None,
        causation: None,
        event: event.into(),
    }
}

#[cfg(test)]
mod tests;
