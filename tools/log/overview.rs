//! The figures of a log: its end, its size, what kinds of events it holds.

use std::collections::BTreeMap;
use std::fmt;

use caxton_events::log::{Dropped, Filter, ForkedFrom, Origin, ReadError, Reader};
use caxton_events::{Seq, Timestamp};
use serde::Serialize;

use crate::counted::counted;

/// The figures of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// Position of the last event.
    pub seq: Seq,
    /// Merkle root over all events, hex.
    pub root: String,
    /// Bytes of the stored bodies.
    pub bytes: u64,
    /// Blocks they lie in.
    pub blocks: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Idempotency keys kept.
    pub keys: u64,
    /// When the first event was recorded.
    pub oldest: Option<Timestamp>,
    /// When the last event was recorded.
    pub newest: Option<Timestamp>,
    /// What lies before the log's own file, where something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Events of each kind; `None` when they were not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<BTreeMap<&'static str, u64>>,
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "head {}", self.seq)?;
        writeln!(f, "root {}", self.root)?;
        write!(f, "{} bytes of events in {}, ", self.bytes, counted(self.blocks, "block"))?;
        write!(f, "{} bytes on disk, {}", self.file_bytes, counted(self.keys, "idempotency key"))?;
        if let (Some(oldest), Some(newest)) = (self.oldest, self.newest) {
            write!(f, "\nrecorded {oldest} to {newest}")?;
        }
        for line in self.origin.iter().flat_map(origin_lines) {
            write!(f, "\n{line}")?;
        }
        for (kind, events) in self.kinds.iter().flatten() {
            write!(f, "\n{events:>12} {kind}")?;
        }
        Ok(())
    }
}

/// The figures of a log. With `count_kinds` every event is read, and `progress` hears the last position read and the
/// last one there is.
///
/// # Errors
///
/// [`ReadError`] when the log is damaged or cannot be read.
pub fn overview(
    reader: &Reader,
    count_kinds: bool,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Overview, ReadError> {
    let (head, stats) = (reader.head(), reader.stats()?);
    let kinds = if count_kinds { Some(kinds(reader, head.seq, progress)?) } else { None };
    Ok(Overview {
        seq: head.seq,
        root: head.root.to_string(),
        bytes: stats.bytes,
        blocks: stats.blocks,
        file_bytes: stats.file_bytes,
        keys: stats.keys,
        oldest: stats.oldest,
        newest: stats.newest,
        origin: Some(reader.origin()?).filter(|origin| !origin.is_none()),
        kinds,
    })
}

/// What an origin says, in lines for people.
pub fn origin_lines(origin: &Origin) -> Vec<String> {
    let mut lines = Vec::new();
    for ForkedFrom { log_id, dir, seq, at, .. } in &origin.forks {
        let id = u128::from_be_bytes(*log_id);
        lines.push(format!("forked at {seq} from caxton/log/{id:032x}, then in {dir}, on {at}"));
    }
    if let Some(Dropped { through, at, by, .. }) = &origin.dropped {
        lines.push(format!("everything up to {through} was dropped by {by} on {at}"));
    }
    if let Some(last) = origin.sealed.last() {
        lines.push(format!("everything up to {} lies in {} sealed files", last.through, origin.sealed.len()));
    }
    lines
}

fn kinds(
    reader: &Reader,
    head: Seq,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<BTreeMap<&'static str, u64>, ReadError> {
    let mut kinds = BTreeMap::new();
    for record in reader.scan(Seq::FIRST, &Filter::default()) {
        let record = record?;
        *kinds.entry(record.event.kind().name()).or_default() += 1;
        if record.seq.0.is_multiple_of(4_096) {
            progress(record.seq, head);
        }
    }
    Ok(kinds)
}
