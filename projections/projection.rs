//! What a projection is: state folded from records, with a checkpoint, that may be thrown away.

use caxton_events::{Kind, Record, Seq};

use crate::text::batch::Counts;

/// How many words the texts of some records have.
#[derive(Debug)]
pub struct WordCounts(pub(crate) Counts);

impl WordCounts {
    /// Counts them on this thread.
    pub(crate) fn of(records: &[Record]) -> Self {
        Self(Counts::alone(records))
    }
}

/// State that is folded from the log.
///
/// Two folds of the same records give the same state: no clock, no randomness, no network.
pub trait Projection: Send {
    /// Its name, as in metrics and messages.
    fn name(&self) -> &'static str;

    /// Grows when old state must not be read; whoever opens the projection then rebuilds it.
    fn version(&self) -> u32;

    /// The last record it includes; [`Seq::ZERO`] when it is empty.
    fn checkpoint(&self) -> Seq;

    /// The kinds of records it folds; all others mean nothing to it and need not be shown to it.
    fn kinds(&self) -> Vec<Kind>;

    /// Tells it that events of the log were erased: records may speak of what was never folded, which is then passed over.
    fn expect_gaps(&mut self) {}

    /// Whether it counts the words of texts as it folds them. Who reads ahead then counts those of the next batch.
    fn counts_words(&self) -> bool {
        false
    }

    /// Takes how many words the records have that are folded next.
    fn foresee(&mut self, _: WordCounts) {}

    /// Folds `records` in and moves the checkpoint to `through`, all or nothing. They lie behind the checkpoint, ascend,
    /// and are every record of its [`kinds`](Self::kinds) up to `through`; others among them are passed over.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; the state is then as before the call, or, behind an order to erase, that of the checkpoint.
    fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ApplyError>;

    /// Folds a gapless run of records of any kind. Those up to the checkpoint are passed over, so that a batch may be
    /// offered twice.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]; the state is then as before the call.
    fn apply(&mut self, records: &[Record]) -> Result<(), ApplyError> {
        let checkpoint = self.checkpoint();
        let records = records.get(records.partition_point(|record| record.seq <= checkpoint)..);
        let records = records.unwrap_or_default();
        let Some(last) = records.last() else { return Ok(()) };
        let mut expected = checkpoint;
        for record in records {
            expected = expected.next();
            if record.seq != expected {
                return Err(ApplyError::Gap { expected, found: record.seq });
            }
        }
        self.fold(records, last.seq)
    }

    /// Forgets everything; the checkpoint is [`Seq::ZERO`] again.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when the state could not be removed.
    fn reset(&mut self) -> Result<(), ApplyError>;
}

/// What a projection's files say about themselves, read without loading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The version that wrote them.
    pub version: u32,
    /// The last record they include.
    pub checkpoint: Seq,
}

/// Why records were not folded. The projection stops; the log is not touched.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A record is missing between the checkpoint and the batch. Read the log again from the checkpoint.
    #[error("expected record {expected}, got {found}")]
    Gap {
        /// The record after the checkpoint.
        expected: Seq,
        /// The record that came.
        found: Seq,
    },
    /// A record speaks of a row that does not exist. The state, or the log, is not what it was: rebuild the projection.
    #[error("record {seq} names {what} {id}, which does not exist; rebuild the projection")]
    Unknown {
        /// The record.
        seq: Seq,
        /// `entity`, `observation` or `relation`.
        what: &'static str,
        /// The number it named.
        id: u64,
    },
    /// The store failed. Nothing of the batch was kept.
    #[error("could not store what follows {after}")]
    Store {
        /// The checkpoint.
        after: Seq,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
