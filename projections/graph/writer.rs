//! The writing side.
use std::path::Path;

use caxton_events::{Record, Seq};

use super::{GraphError, GraphReader, SqliteOptions};
use crate::projection::{ApplyError, Projection};

/// The graph projection.
#[derive(Debug)]
pub struct Graph {}

impl Graph {
    /// Opens the graph in `dir`.
    pub fn open(dir: &Path, options: &SqliteOptions) -> Result<Self, GraphError> { todo!() }
    /// A handle for queries.
    pub fn reader(&self) -> GraphReader { todo!() }
    /// Starts a rebuild.
    pub fn begin_rebuild(&mut self) -> Result<(), ApplyError> { todo!() }
    /// Ends a rebuild.
    pub fn finish_rebuild(&mut self) -> Result<(), ApplyError> { todo!() }
    /// Refreshes statistics.
    pub fn analyze(&mut self) -> Result<(), ApplyError> { todo!() }
    /// Moves the journal into the file.
    pub fn checkpoint_wal(&mut self) -> Result<(), ApplyError> { todo!() }
    /// Gives free pages back.
    pub fn vacuum(&mut self, pages: u32) -> Result<(), ApplyError> { todo!() }
}

impl Projection for Graph {
    fn name(&self) -> &'static str { "graph" }
    fn version(&self) -> u32 { todo!() }
    fn checkpoint(&self) -> Seq { todo!() }
    fn apply(&mut self, records: &[Record]) -> Result<(), ApplyError> { todo!() }
    fn reset(&mut self) -> Result<(), ApplyError> { todo!() }
}
