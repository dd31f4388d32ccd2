//! State: what the log adds up to, as graph and text, and the way to keep it up to date.
//!
//! Reading order: [`projection`] (what a projection is), [`graph`] (entities, observations and relations in SQLite),
//! [`text`] (words to rows, in the same database).

pub mod graph;
pub mod projection;
pub mod text;

pub use graph::{Graph, GraphReader, SqliteOptions};
pub use projection::{ApplyError, Projection};
