//! Which events of a log: positions, times, or both.

use caxton_events::log::{Filter, ReadError, Reader};
use caxton_events::{Seq, Timestamp};

/// Which events. Both ends are included; what is not given is the end of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range {
    /// The first position.
    pub from: Option<Seq>,
    /// The last position.
    pub to: Option<Seq>,
    /// Nothing recorded before this moment.
    pub recorded_from: Option<Timestamp>,
    /// Nothing recorded after this moment.
    pub recorded_to: Option<Timestamp>,
}

/// Why there is no such range in the log.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The log has no events.
    #[error("the log is empty: there is nothing to replay")]
    Empty,
    /// A position is 0.
    #[error("{name} is 0, the first event is 1")]
    Zero {
        /// The flag.
        name: &'static str,
    },
    /// A position lies behind the end.
    #[error("{name} is {found}, the log ends at {head}; give a position up to that")]
    Beyond {
        /// The flag.
        name: &'static str,
        /// What was given.
        found: Seq,
        /// The last position.
        head: Seq,
    },
    /// The range ends before it begins.
    #[error("from-seq {from} lies behind to-seq {to}; exchange them")]
    Backwards {
        /// Where it is to begin.
        from: Seq,
        /// Where it is to end.
        to: Seq,
    },
    /// The range ends before it begins.
    #[error("from-time {from} lies behind to-time {to}; exchange them")]
    TimeBackwards {
        /// When it is to begin.
        from: Timestamp,
        /// When it is to end.
        to: Timestamp,
    },
    /// Nothing was recorded then.
    #[error(
        "no event lies in this range: the log's events were recorded from {oldest} to {newest}; give a range that \
         holds one"
    )]
    Nothing {
        /// When the first event of the log was recorded.
        oldest: Timestamp,
        /// When the last one was.
        newest: Timestamp,
    },
    /// A projection cannot begin in the middle.
    #[error(
        "a projection adds up from the first event, and this range begins at {from}; replay it into nothing"
    )]
    NotFromTheFirst {
        /// Where it begins.
        from: Seq,
    },
    /// What was there was dropped.
    #[error(
        "{name} is {found}, and the log begins at {first}: what was before was dropped; give a later position"
    )]
    Dropped {
        /// The flag.
        name: &'static str,
        /// What was given.
        found: Seq,
        /// The first position that is left.
        first: Seq,
    },
    /// The log could not be read.
    #[error("could not read the log")]
    Read(#[from] ReadError),
}

/// A range of a certain log: it holds at least one event.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The first position.
    pub from: Seq,
    /// The last position.
    pub until: Seq,
    pub(super) recorded_from: Option<Timestamp>,
    pub(super) recorded_to: Option<Timestamp>,
    /// When the first event of the range was recorded.
    pub begins_at: Timestamp,
}

impl Bounds {
    /// The filter of a scan over the events up to `until`.
    pub fn filter(&self, until: Seq) -> Filter {
        // The end is included, and a filter's is not.
        let before =
            self.recorded_to.map(|at| Timestamp::from_unix_micros(at.unix_micros().saturating_add(1)));
        Filter {
            until: Some(until),
            recorded_from: self.recorded_from,
            recorded_before: before,
            ..Filter::default()
        }
    }

    /// Refuses a range that does not begin at the first event.
    ///
    /// # Errors
    ///
    /// [`RangeError::NotFromTheFirst`].
    pub fn from_the_first(&self) -> Result<(), RangeError> {
        if self.from == Seq::FIRST { Ok(()) } else { Err(RangeError::NotFromTheFirst { from: self.from }) }
    }

    /// Events of the range, by its positions.
    pub fn events(&self) -> u64 {
        self.until.0 - self.from.0 + 1
    }
}

impl Range {
    /// The range as positions of this log.
    ///
    /// # Errors
    ///
    /// [`RangeError`] if the log has no such range.
    pub fn resolve(&self, reader: &Reader) -> Result<Bounds, RangeError> {
        let head = reader.head().seq;
        if head == Seq::ZERO {
            return Err(RangeError::Empty);
        }
        let first = reader.first().map_err(ReadError::from)?;
        for (name, given) in [("from-seq", self.from), ("to-seq", self.to)] {
            match given {
                Some(Seq::ZERO) => return Err(RangeError::Zero { name }),
                Some(found) if found > head => return Err(RangeError::Beyond { name, found, head }),
                Some(found) if found < first => return Err(RangeError::Dropped { name, found, first }),
                Some(_) | None => (),
            }
        }
        let (from, until) = (self.from.unwrap_or(first), self.to.unwrap_or(head));
        if from > until {
            return Err(RangeError::Backwards { from, to: until });
        }
        if let (Some(from), Some(to)) = (self.recorded_from, self.recorded_to)
            && from > to
        {
            return Err(RangeError::TimeBackwards { from, to });
        }
        let Self { recorded_from, recorded_to, .. } = *self;
        let mut bounds = Bounds { from, until, recorded_from, recorded_to, begins_at: Timestamp::EPOCH };
        let first = reader.scan(from, &bounds.filter(until)).next().transpose()?;
        let Some(first) = first else {
            let (oldest, newest) = ends(reader)?;
            return Err(RangeError::Nothing { oldest, newest });
        };
        (bounds.from, bounds.begins_at) = (first.seq, first.recorded_at);
        Ok(bounds)
    }
}

fn ends(reader: &Reader) -> Result<(Timestamp, Timestamp), ReadError> {
    let stats = reader.stats()?;
    Ok((stats.oldest.unwrap_or_default(), stats.newest.unwrap_or_default()))
}
