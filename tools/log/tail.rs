//! The events of a log, the newest or from a position on.

use caxton_events::Seq;
use caxton_events::log::{Filter, ReadError, Reader};

use super::line::Line;

/// Which events to show.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    /// The first position looked at; `None`: the newest events that match.
    pub from: Option<Seq>,
    /// Events shown at most.
    pub lines_max: usize,
    /// What they must match.
    pub filter: Filter,
}

/// The events that `what` asks for, in order of position.
///
/// # Errors
///
/// [`ReadError`] when the log is damaged or cannot be read.
pub fn tail(reader: &Reader, what: &Tail) -> Result<Vec<Line>, ReadError> {
    let line = |found: Result<_, ReadError>| found.map(|found| Line::of_found(reader, found));
    if let Some(from) = what.from {
        return reader.scan_found(from, &what.filter).take(what.lines_max).map(line).collect();
    }
    let newest = reader.scan_found_back(reader.head().seq, &what.filter).take(what.lines_max);
    let mut lines: Vec<Line> = newest.map(line).collect::<Result<_, _>>()?;
    lines.reverse();
    Ok(lines)
}
