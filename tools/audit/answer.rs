//! Walking through the log for an answer, a piece at a time.

use caxton_events::Seq;
use caxton_events::log::{Range, Reach, ReadError, Reader, StoreError};
use caxton_projections::audit::trail::More;
use caxton_projections::audit::{Postings, Question, Trail};

use super::format::{Summary, Unread};
use crate::log::Line;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// All of what is asked about lies before the first event that the log has.
    #[error("the log begins at {first}, what lies before was dropped; ask for what lies there or behind it")]
    Dropped {
        /// That first one.
        first: Seq,
    },
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// An answer under way. Nothing is held open between two steps.
#[derive(Debug, Clone)]
pub struct Answer {
    trail: Trail,
    head: Seq,
    first: Seq,
    /// Whether the question reaches back before the first event.
    is_cut: bool,
    limit: Option<u64>,
    last: Seq,
}

impl Answer {
    /// The answer to `question` over the log as it stands now, with at most `limit` events.
    ///
    /// # Errors
    ///
    /// [`AnswerError`]: all of it was dropped, or the log cannot be read at all.
    pub fn new(question: Question, reader: &Reader, limit: Option<u64>) -> Result<Self, AnswerError> {
        let Question { from, to, since, until, .. } = question;
        let (first, reach) = reader.reach(&Range { from, to, since, until })?;
        if reach == Reach::Dropped {
            return Err(AnswerError::Dropped { first });
        }
        let (head, is_cut) = (reader.head().seq, reach == Reach::Cut);
        let trail = Trail::new(question, reader).map_err(ReadError::from)?;
        Ok(Self { trail, head, first, is_cut, limit, last: Seq::ZERO })
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.trail.figures().matched >= limit)
    }

    /// Whether every event was given, or as many as were asked for.
    pub fn is_done(&self) -> bool {
        self.is_full() || self.trail.is_done()
    }

    /// The last event that was given, when there may be more behind it: the next page begins there.
    pub fn stopped_at(&self) -> Option<Seq> {
        (self.is_full() && !self.trail.is_done()).then_some(self.last)
    }

    /// Gives the next events until `give` has enough or there is something to do for others.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the log cannot be read at all.
    pub fn step(
        &mut self,
        reader: &Reader,
        postings: &Postings,
        give: &mut dyn FnMut(Line) -> More,
    ) -> Result<(), StoreError> {
        if self.is_done() {
            return Ok(());
        }
        let mut left = self.limit.map_or(u64::MAX, |limit| limit - self.trail.figures().matched);
        let mut last = self.last;
        self.trail.step(reader, postings, &mut |event| {
            last = event.seq();
            left -= 1;
            let more = give(Line::of_found(reader, event));
            if left == 0 { More::No } else { more }
        })?;
        self.last = last;
        Ok(())
    }

    /// What it took so far.
    pub fn summary(&self, next_cursor: Option<String>) -> Summary {
        let figures = self.trail.figures();
        let (gaps, gaps_more) = self.trail.gaps();
        Summary {
            count: figures.matched,
            next_cursor,
            head_seq: self.head,
            first_seq: self.first,
            dropped: self.is_cut,
            blocks_read: figures.read.blocks,
            blocks_skipped: figures.blocks.saturating_sub(figures.read.blocks),
            bytes_read: figures.read.bytes,
            bytes_skipped: figures.bytes.saturating_sub(figures.read.bytes),
            postings_bytes_read: figures.postings_bytes,
            gaps: gaps
                .iter()
                .map(|gap| Unread { from_seq: gap.first, to_seq: gap.last, what: gap.what.clone() })
                .collect(),
            gaps_more,
        }
    }
}
