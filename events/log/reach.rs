//! What a log that lost its oldest events still has of a range, so that no answer about the range is short without a word.

use crate::id::Seq;
use crate::log::reader::Reader;
use crate::log::scan::ReadError;
use crate::time::Timestamp;

/// A range of a log, by positions, by times or by both. What is not given is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Range {
    /// At this position or behind it.
    pub from: Option<Seq>,
    /// At this position or before it.
    pub to: Option<Seq>,
    /// Recorded at this time or later.
    pub since: Option<Timestamp>,
    /// Recorded before this time.
    pub until: Option<Timestamp>,
}

/// How much of a range was not dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All of it.
    Whole,
    /// What lies at the log's first position or behind it; the range begins before.
    Cut,
    /// Nothing: it ends before the log's first position.
    Dropped,
}

impl Reader {
    /// The first position of the log, and how much it has of `range`.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store fails or a block on the way is damaged.
    pub fn reach(&self, range: &Range) -> Result<(Seq, Reach), ReadError> {
        let first = self.first()?;
        let Some(dropped) = self.origin()?.dropped else { return Ok((first, Reach::Whole)) };
        let begins_behind = range.from.is_some_and(|from| from >= first)
            || range.since.is_some_and(|since| since > dropped.recorded_at);
        if begins_behind {
            return Ok((first, Reach::Whole));
        }
        let by_time = match range.until.map(Timestamp::unix_micros) {
            Some(until) => self.last_by(Timestamp::from_unix_micros(until.saturating_sub(1)))?,
            None => Seq(u64::MAX),
        };
        let last = range.to.map_or(by_time, |to| to.min(by_time));
        Ok((first, if last < first { Reach::Dropped } else { Reach::Cut }))
    }
}
