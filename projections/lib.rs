//! State: what the log adds up to, as graph, text, vectors and talk, and the way to keep it up to date.
//!
//! Reading order: [`projection`] (what a projection is), [`driver`] (how it follows the log), [`graph`] (entities,
//! observations and relations in SQLite), [`text`] (words to rows, in the same database), [`embedding`] (texts to
//! vectors), [`vector`] (vectors to rows), [`talk`] (agents and conversations), [`audit`] (who did what to whom), [`swap`] and [`difference`] (a projection replaced by another fold of it), then [`view`] (all of them together) and [`queries`].

pub mod agents;
pub mod audit;
pub mod base;
pub mod by_name;
pub mod conversations;
pub mod difference;
pub mod driver;
pub mod embedding;
pub mod graph;
mod positions;
pub mod projection;
pub mod queries;
pub mod shred;
pub mod swap;
pub mod talk;
pub mod text;
pub mod uses;
pub mod vector;
pub mod view;

pub use driver::{CatchUpError, catch_up};
pub use graph::{Graph, GraphReader, SqliteOptions};
pub use projection::{ApplyError, Projection};
pub use vector::{VectorReader, Vectors};
