//! State: what the log adds up to, as graph and text, and the way to keep it up to date.
//!
//! Reading order: [`projection`] (what a projection is), [`driver`] (how it follows the log), [`graph`] (entities,
//! observations and relations in SQLite), [`text`] (words to rows, in the same database).

pub mod driver;
pub mod graph;
pub mod projection;
pub mod text;

pub use driver::{CatchUpError, catch_up};
pub use graph::{Graph, GraphReader, SqliteOptions};
pub use projection::{ApplyError, Projection};
