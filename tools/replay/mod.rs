//! Replay: a range of a log read again, folded into fresh projections or into nothing, as fast as it goes or as fast as it
//! went.
//!
//! It is the rehearsal of a recovery, with its figures. Reading order: [`range`](Range) (which events), [`pace`](Pace) (how
//! fast), `full` and `paced` (the two ways through the log), [`projections`](Projections) (where to), [`report`](Replayed)
//! (what came out).

mod full;
mod pace;
mod paced;
mod projections;
mod range;
mod report;
#[cfg(test)]
mod tests;

use caxton_events::Seq;
use caxton_events::log::{ReadError, Reader};
use caxton_projections::projection::ApplyError;

pub use pace::{Pace, PaceError, Watch, due};
pub use projections::{Folded, FoldedPart, OpenProjectionsError, Projections, VectorParts};
pub use range::{Bounds, Range, RangeError};
pub use report::{Latencies, Latency, Replayed};

use report::Tally;

/// Threads that decode at the most.
pub const THREADS_MAX: usize = 2;

/// How to replay.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which events.
    pub range: Range,
    /// How fast.
    pub pace: Pace,
    /// Decode on two threads. Only for a replay into nothing at full speed.
    pub two_threads: bool,
}

/// Why a replay ended before its range did.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such range.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The log could not be read.
    #[error("could not read the log")]
    Read(#[from] ReadError),
    /// The log ended before the range did.
    #[error("the log gave nothing behind {found}, before the end of the range at {until}; verify the log")]
    Short {
        /// The last record that came.
        found: Seq,
        /// The end of the range.
        until: Seq,
    },
    /// A projection refused what is in the log.
    #[error("the {projection} projection stopped after {after}")]
    Fold {
        /// Which one.
        projection: &'static str,
        /// The last record it includes.
        after: Seq,
        /// What it said.
        #[source]
        source: ApplyError,
    },
    /// A projection could not be put on disk or read back.
    #[error("could not finish the {projection} projection")]
    Finish {
        /// Which one.
        projection: &'static str,
        /// What its store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system gave no second thread.
    #[error("could not start a second thread; replay on one")]
    Thread(#[source] std::io::Error),
    /// Two threads were asked for where the order of events counts.
    #[error("two threads are for a replay into nothing at full speed; leave one of them out")]
    Ordered,
}

/// Replays `reader`'s log into nothing: every event is decoded. `progress` hears how many events of how many are done.
///
/// # Errors
///
/// [`ReplayError`].
pub fn replay(
    reader: &Reader,
    options: &Options,
    watch: &dyn Watch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Replayed, ReplayError> {
    let bounds = options.range.resolve(reader)?;
    let started = watch.elapsed();
    let tally = match options.pace {
        Pace::Full => full::decode(reader, &bounds, options.two_threads, watch, progress)?,
        Pace::Times(_) if options.two_threads => return Err(ReplayError::Ordered),
        Pace::Times(times) => paced::decode(reader, &bounds, times, watch, progress)?,
    };
    tally.whole(&bounds)?;
    Ok(tally.report(watch.elapsed().saturating_sub(started), None))
}

/// Folds `reader`'s log into `projections`, which are empty. The range must begin at the first event: a projection adds up
/// from there.
///
/// # Errors
///
/// [`ReplayError`]; what was folded before stays in the directory.
pub fn replay_into(
    reader: &Reader,
    options: &Options,
    mut projections: Projections,
    watch: &dyn Watch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Replayed, ReplayError> {
    if options.two_threads {
        return Err(ReplayError::Ordered);
    }
    let bounds = options.range.resolve(reader)?;
    bounds.from_the_first()?;
    let started = watch.elapsed();
    let tally = paced::fold(reader, &bounds, options.pace, &mut projections, watch, progress)?;
    tally.whole(&bounds)?;
    let folded = projections.finish()?;
    Ok(tally.report(watch.elapsed().saturating_sub(started), Some(folded)))
}

impl Tally {
    /// Refuses a log that ended early. A range that is cut by time ends where it ends.
    fn whole(&self, bounds: &Bounds) -> Result<(), ReplayError> {
        match self.last {
            Some(found) if found < bounds.until && bounds.recorded_to.is_none() => {
                Err(ReplayError::Short { found, until: bounds.until })
            }
            Some(_) | None => Ok(()),
        }
    }
}
