//! Entities, observations and relations in SQLite, with their history, and the index of their words beside the file.
//!
//! Reading order: [`schema`] (what is stored), [`writer`] and [`fold`] (how it gets there), [`rows`] and [`filter`] (what
//! is answered and asked), [`as_of`] (the past), [`reader`], [`list`], [`ids`], [`walk`], [`history`], [`past`], [`diff`], [`victims`],
//! [`turns`] and [`keyword`] (the queries), [`compare`] and [`replace`] (two files), [`upgrade`] (files of earlier versions).

mod as_of;
mod columns;
mod compare;
mod connection;
mod diff;
mod digest;
mod dump;
mod erase;
mod error;
mod filter;
mod fold;
mod history;
mod ids;
mod in_scopes;
mod keyword;
mod list;
mod moment;
mod options;
mod past;
mod pool;
mod reader;
mod replace;
mod rows;
mod schema;
mod turns;
mod upgrade;
mod victims;
mod walk;
mod writer;

pub(crate) use as_of::AsOf;
pub(crate) use compare::{Canonical, difference, digests};
pub use diff::{DIFF_RECORDS_MAX, Diff, DiffQuery, Difference};
pub use dump::PageMax;
pub(crate) use erase::empty_journal;
pub use error::{GraphError, ReadError, is_out_of_room};
pub use filter::{
    Direction, EntityFilter, RelationFilter, WALK_DEPTH_MAX, WALK_EDGES_MAX, WALK_NODES_MAX, Walk, WalkEdge,
    WalkNode, WalkQuery, WalkStrategy,
};
pub use history::{HistoryPage, HistoryQuery};
pub use moment::GraphMoment;
pub use options::{AutoVacuum, CheckpointStrategy, SqliteOptions, Synchronous, TempStore, VacuumStrategy};
pub use past::RowRef;
pub use reader::GraphReader;
pub use replace::stored;
pub use rows::{Entity, Fact, GraphStats, HistoryRow, Observation, Relation, ScopeStats};
pub use schema::VERSION;
pub use victims::Victim;
pub use writer::{DAMAGED_MARK, FILE_NAME, Graph, set_aside};

#[cfg(test)]
mod tests;
