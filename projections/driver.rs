//! Keeps a projection up to date: reads what follows its checkpoint and folds it in, batch by batch.

use std::panic::resume_unwind;
use std::thread;

use caxton_events::log::{Filter, ReadError, Reader};
use caxton_events::{AgentEvent, ConversationEvent, Event, MemoryEvent, Record, Seq};
use crossbeam_channel::bounded;

use crate::projection::{ApplyError, Projection, WordCounts};

/// Most records in one batch.
pub const BATCH_RECORDS_MAX: usize = 4_096;
/// Records from which on a thread reads ahead.
const READ_AHEAD_MIN: u64 = 2 * BATCH_RECORDS_MAX as u64;
/// Text in a batch after which it is folded, in bytes.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// Why a projection could not be brought up to date. It includes what was folded before.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The projection includes records the log does not have: it belongs to another log, or to a later state of this
    /// one. Rebuild it.
    #[error(
        "the {name} projection includes record {checkpoint}, the log ends at {head}; rebuild the projection"
    )]
    Ahead {
        /// The projection.
        name: &'static str,
        /// Its checkpoint.
        checkpoint: Seq,
        /// The end of the log.
        head: Seq,
    },
    /// The log lost events that the projection does not include. Start from the base, if there is one.
    #[error(
        "the {name} projection includes what was recorded up to {checkpoint}, the log begins at {first}: what lies between was \
         dropped"
    )]
    Dropped {
        /// The projection.
        name: &'static str,
        /// Its checkpoint.
        checkpoint: Seq,
        /// The first record of the log.
        first: Seq,
    },
    /// The log could not be read.
    #[error("could not read the log after {after} for the {name} projection")]
    Read {
        /// The projection.
        name: &'static str,
        /// The last record that was read.
        after: Seq,
        /// What the log said.
        #[source]
        source: ReadError,
    },
    /// The log skipped a record.
    #[error("the log gave record {found} where {expected} was due; verify the log")]
    Gap {
        /// The record that was due.
        expected: Seq,
        /// The record that came.
        found: Seq,
    },
    /// The log ended before the record it said was its last.
    #[error("the log ended at {found}, before its head {head}; verify the log")]
    Short {
        /// The last record that came.
        found: Seq,
        /// The end of the log.
        head: Seq,
    },
    /// The records could not be folded in.
    #[error("the {name} projection stopped at {after}")]
    Apply {
        /// The projection.
        name: &'static str,
        /// Its checkpoint.
        after: Seq,
        /// What the projection said.
        #[source]
        source: ApplyError,
    },
}

impl CatchUpError {
    /// Whether it is the log that could not be read: nothing is wrong with the projection then.
    pub const fn is_of_log(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

/// Folds in what the log holds beyond the projection's checkpoint, up to the log's head as it is when this is called,
/// and returns the new checkpoint. `progress` hears the checkpoint and that head after each batch.
///
/// # Errors
///
/// [`CatchUpError`]; what was folded before stays.
pub fn catch_up(
    reader: &Reader,
    projection: &mut dyn Projection,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Seq, CatchUpError> {
    catch_up_to(reader, projection, reader.head().seq, progress)
}

/// The same up to `head`, a position the log has.
///
/// # Errors
///
/// [`CatchUpError`]; what was folded before stays.
pub fn catch_up_to(
    reader: &Reader,
    projection: &mut dyn Projection,
    head: Seq,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Seq, CatchUpError> {
    let checkpoint = projection.checkpoint();
    if checkpoint > head {
        return Err(CatchUpError::Ahead { name: projection.name(), checkpoint, head });
    }
    let first = reader.first().map_err(|source| CatchUpError::Read {
        name: projection.name(),
        after: checkpoint,
        source: source.into(),
    })?;
    if checkpoint.next() < first {
        return Err(CatchUpError::Dropped { name: projection.name(), checkpoint, first });
    }
    if checkpoint < head {
        if reader.has_gaps() {
            projection.expect_gaps();
        }
        let filter = Filter { until: Some(head), kinds: Some(projection.kinds()), ..Filter::default() };
        let found = if head.0 - checkpoint.0 >= READ_AHEAD_MIN {
            fold_reading_ahead(reader, &filter, head, projection, progress)?
        } else {
            let mut records = reader.scan(checkpoint.next(), &filter);
            fold(&mut records, head, projection, progress)?;
            records.stats().reached
        };
        if found < head {
            return Err(CatchUpError::Short { found, head });
        }
        finish(head, projection, progress)?;
    }
    Ok(projection.checkpoint())
}

/// Records that are folded together, and how many words they have, if that was asked for.
struct Batch {
    records: Vec<Record>,
    words: Option<WordCounts>,
}

/// Puts records together to batches. They come in order, but not without gaps: those of other kinds are left out.
struct Batches<I> {
    records: I,
    name: &'static str,
    /// The last one that was read.
    last: Seq,
    counts_words: bool,
}

impl<I: Iterator<Item = Result<Record, ReadError>>> Iterator for Batches<I> {
    type Item = Result<Batch, CatchUpError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

impl<I: Iterator<Item = Result<Record, ReadError>>> Batches<I> {
    fn batch(&mut self) -> Result<Option<Batch>, CatchUpError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(record) = self.records.next() else { break };
            let record =
                record.map_err(|source| CatchUpError::Read { name: self.name, after: self.last, source })?;
            if record.seq <= self.last {
                return Err(CatchUpError::Gap { expected: self.last.next(), found: record.seq });
            }
            self.last = record.seq;
            bytes += text_bytes(&record);
            records.push(record);
        }
        if records.is_empty() {
            return Ok(None);
        }
        let words = self.counts_words.then(|| WordCounts::of(&records));
        Ok(Some(Batch { records, words }))
    }
}

/// Folds the records batch by batch.
fn fold(
    records: impl Iterator<Item = Result<Record, ReadError>>,
    head: Seq,
    projection: &mut dyn Projection,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<(), CatchUpError> {
    let (name, last) = (projection.name(), projection.checkpoint());
    for batch in (Batches { records, name, last, counts_words: false }) {
        take(batch?, head, projection, progress)?;
    }
    Ok(())
}

/// The same, while a thread reads the next batch and counts its words. Returns how far the log was read.
fn fold_reading_ahead(
    reader: &Reader,
    filter: &Filter,
    head: Seq,
    projection: &mut dyn Projection,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Seq, CatchUpError> {
    let (name, last) = (projection.name(), projection.checkpoint());
    let counts_words = projection.counts_words();
    // One batch is folded and one is ready: more would take memory and save no time.
    let (give, batches) = bounded(0);
    let read = move || {
        let mut records = reader.scan(last.next(), filter);
        for batch in (Batches { records: &mut records, name, last, counts_words }) {
            let ends = batch.is_err();
            if give.send(batch).is_err() || ends {
                break;
            }
        }
        records.stats().reached
    };
    thread::scope(|scope| {
        let reading = thread::Builder::new().name("read-ahead".to_owned()).spawn_scoped(scope, read);
        let Ok(reading) = reading else {
            let mut records = reader.scan(last.next(), filter);
            fold(&mut records, head, projection, progress)?;
            return Ok(records.stats().reached);
        };
        // Dropped before the thread is waited for, which may have one more batch to give.
        let folded = batches.into_iter().try_for_each(|batch| take(batch?, head, projection, progress));
        let reached = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
        folded.map(|()| reached)
    })
}

fn take(
    batch: Batch,
    head: Seq,
    projection: &mut dyn Projection,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<(), CatchUpError> {
    let Some(last) = batch.records.last().map(|record| record.seq) else { return Ok(()) };
    if let Some(words) = batch.words {
        projection.foresee(words);
    }
    apply(&batch.records, last, projection)?;
    progress(last, head);
    Ok(())
}

/// Moves the checkpoint over what lies behind the last record of its kinds.
fn finish(
    head: Seq,
    projection: &mut dyn Projection,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<(), CatchUpError> {
    if projection.checkpoint() < head {
        apply(&[], head, projection)?;
    }
    progress(head, head);
    Ok(())
}

fn apply(records: &[Record], through: Seq, projection: &mut dyn Projection) -> Result<(), CatchUpError> {
    let (name, after) = (projection.name(), projection.checkpoint());
    projection.fold(records, through).map_err(|source| CatchUpError::Apply { name, after, source })
}

/// Bytes of the texts in a record that can be long.
fn text_bytes(record: &Record) -> usize {
    let metadata = |metadata: &Option<String>| metadata.as_ref().map_or(0, String::len);
    match &record.event {
        Event::Memory(event) => match event {
            MemoryEvent::EntityCreated { name, metadata: more, .. }
            | MemoryEvent::EntityUpdated { name, metadata: more, .. }
            | MemoryEvent::EntityRestored { name, metadata: more, .. } => name.len() + metadata(more),
            MemoryEvent::ObservationAdded { content, .. }
            | MemoryEvent::ObservationUpdated { content, .. }
            | MemoryEvent::ObservationRestored { content, .. } => content.len(),
            MemoryEvent::RelationCreated { metadata: more, .. }
            | MemoryEvent::RelationUpdated { metadata: more, .. }
            | MemoryEvent::RelationRestored { metadata: more, .. } => metadata(more),
            MemoryEvent::Undone { .. }
            | MemoryEvent::EntityRemoved { .. }
            | MemoryEvent::ObservationRemoved { .. }
            | MemoryEvent::RelationRemoved { .. } => 0,
        },
        Event::Conversation(ConversationEvent::MessageSent(message)) => message.content.as_str().len(),
        Event::Agent(AgentEvent::ConfigLoaded { content, .. }) => content.len(),
        Event::Agent(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use caxton_events::log::ReadError;
    use caxton_events::{Event, Kind, Record, Seq, SystemEvent, Timestamp};

    use super::{BATCH_RECORDS_MAX, CatchUpError, finish, fold};
    use crate::projection::{ApplyError, Projection};

    /// Remembers the sizes of its batches; refuses one that holds `bad`.
    #[derive(Default)]
    struct Batches {
        checkpoint: Seq,
        sizes: Vec<usize>,
        bad: Option<Seq>,
    }

    impl Projection for Batches {
        fn name(&self) -> &'static str {
            "batches"
        }

        fn version(&self) -> u32 {
            1
        }

        fn checkpoint(&self) -> Seq {
            self.checkpoint
        }

        fn kinds(&self) -> Vec<Kind> {
            Kind::ALL.to_vec()
        }

        fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ApplyError> {
            if let Some(record) = records.iter().find(|record| Some(record.seq) == self.bad) {
                return Err(ApplyError::Unknown { seq: record.seq, what: "entity", id: 1 });
            }
            self.sizes.push(records.len());
            self.checkpoint = through;
            Ok(())
        }

        fn reset(&mut self) -> Result<(), ApplyError> {
            self.checkpoint = Seq::ZERO;
            Ok(())
        }
    }

    fn record(seq: u64) -> Record {
        Record {
            seq: Seq(seq),
            recorded_at: Timestamp::EPOCH,
            stream: "system".to_owned(),
            actor: "system".to_owned(),
            correlation: None,
            causation: None,
            event: Event::System(SystemEvent::ServerStopped),
        }
    }

    fn read(seqs: impl IntoIterator<Item = u64>) -> impl Iterator<Item = Result<Record, ReadError>> {
        seqs.into_iter().map(|seq| Ok(record(seq)))
    }

    #[test]
    fn records_come_in_bounded_batches_up_to_the_head() {
        let mut projection = Batches::default();
        let mut heard = Vec::new();
        let head = BATCH_RECORDS_MAX as u64 + 3;
        fold(read(1..=head), Seq(head), &mut projection, &mut |at, head| heard.push((at, head))).unwrap();
        assert_eq!(projection.sizes, [BATCH_RECORDS_MAX, 3]);
        assert_eq!(projection.checkpoint, Seq(head));
        assert_eq!(heard, [(Seq(BATCH_RECORDS_MAX as u64), Seq(head)), (Seq(head), Seq(head))]);
    }

    #[test]
    fn records_out_of_order_stop_the_fold() {
        let back = fold(read([1, 3, 3]), Seq(3), &mut Batches::default(), &mut |_, _| ());
        assert!(matches!(back, Err(CatchUpError::Gap { expected: Seq(4), found: Seq(3) })), "{back:?}");
    }

    #[test]
    fn a_checkpoint_moves_over_what_the_projection_does_not_fold() {
        let mut projection = Batches::default();
        fold(read([2, 5]), Seq(9), &mut projection, &mut |_, _| ()).unwrap();
        assert_eq!(projection.checkpoint, Seq(5));
        finish(Seq(9), &mut projection, &mut |_, _| ()).unwrap();
        assert_eq!(projection.checkpoint, Seq(9));
    }

    #[test]
    fn a_projection_that_refuses_is_named_with_its_place() {
        let mut projection = Batches { bad: Some(Seq(2)), ..Batches::default() };
        let stopped = fold(read([1, 2]), Seq(2), &mut projection, &mut |_, _| ());
        assert_eq!(stopped.unwrap_err().to_string(), "the batches projection stopped at #0");
    }
}
