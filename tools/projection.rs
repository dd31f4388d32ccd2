//! Is a projection what the log adds up to? Rebuilds it beside the one in place and compares.

use std::fmt;
use std::path::Path;

use caxton_events::log::{Filter, Hash, ReadError, Reader};
use caxton_events::{Record, Seq};
use caxton_projections::graph::{Graph, GraphError, ReadError as GraphReadError, SqliteOptions};
use caxton_projections::projection::{ApplyError, Projection as _};
use serde::Serialize;

/// Records folded in one transaction.
const RECORDS_MAX: usize = 4_096;

/// What the comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RebuildCheck {
    /// The last record that both include.
    pub seq: Seq,
    /// Digest over all rows of the graph in place, hex.
    pub live: String,
    /// Digest over all rows of the rebuilt graph, hex.
    pub rebuilt: String,
    /// Whether they are the same.
    pub equal: bool,
}

impl fmt::Display for RebuildCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.equal { "equals" } else { "differs from" };
        write!(
            f,
            "the graph at {} {verdict} its rebuild\nlive    {}\nrebuilt {}",
            self.seq, self.live, self.rebuilt
        )
    }
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum RebuildCheckError {
    /// A graph did not open.
    #[error("could not open the {which} graph")]
    Open {
        /// `live` or `scratch`.
        which: &'static str,
        /// Why not.
        #[source]
        source: GraphError,
    },
    /// The log could not be read.
    #[error("could not read the log")]
    Log(#[source] ReadError),
    /// A record could not be folded.
    #[error("could not fold the log")]
    Apply(#[source] ApplyError),
    /// A graph could not be read.
    #[error("could not read the {which} graph")]
    Read {
        /// `live` or `scratch`.
        which: &'static str,
        /// Why not.
        #[source]
        source: GraphReadError,
    },
}

/// Folds the log into a new graph in `scratch`, an empty folder, up to where the graph in `live` is, and compares all
/// rows. `progress` hears the last position folded and the one to reach. Nothing in `live` is changed, but its journal
/// may be moved into its file.
///
/// # Errors
///
/// [`RebuildCheckError`]; a difference is no error.
pub fn rebuild_check(
    log: &Reader,
    live: &Path,
    scratch: &Path,
    options: &SqliteOptions,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<RebuildCheck, RebuildCheckError> {
    let open =
        |which, dir| Graph::open(dir, options).map_err(|source| RebuildCheckError::Open { which, source });
    let in_place = open("live", live)?;
    let mut rebuilt = open("scratch", scratch)?;
    let seq = in_place.checkpoint();
    fold(log, &mut rebuilt, seq, progress)?;
    let digest = |which, graph: &Graph| {
        let digest = graph.reader().digest().map_err(|source| RebuildCheckError::Read { which, source })?;
        Ok(Hash(digest).to_string())
    };
    let (live, rebuilt) = (digest("live", &in_place)?, digest("scratch", &rebuilt)?);
    Ok(RebuildCheck { seq, equal: live == rebuilt, live, rebuilt })
}

fn fold(
    log: &Reader,
    graph: &mut Graph,
    until: Seq,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<(), RebuildCheckError> {
    graph.begin_rebuild().map_err(RebuildCheckError::Apply)?;
    let filter = Filter { until: Some(until), ..Filter::default() };
    let mut records: Vec<Record> = Vec::with_capacity(RECORDS_MAX);
    let mut scan = log.scan(Seq::FIRST, &filter).peekable();
    while let Some(record) = scan.next() {
        records.push(record.map_err(RebuildCheckError::Log)?);
        if records.len() == RECORDS_MAX || scan.peek().is_none() {
            graph.apply(&records).map_err(RebuildCheckError::Apply)?;
            progress(graph.checkpoint(), until);
            records.clear();
        }
    }
    graph.finish_rebuild().map_err(RebuildCheckError::Apply)
}
