//! State: what the log adds up to, as graph, text and vectors, and the way to keep it up to date.
//!
//! Reading order: [`projection`] (what a projection is), [`graph`] (entities, observations and relations in SQLite),
//! [`text`] (words to rows, in the same database), [`embedding`] (texts to vectors), [`vector`] (vectors to rows).

pub mod embedding;
pub mod graph;
pub mod projection;
pub mod text;
pub mod vector;

pub use graph::{Graph, GraphReader, SqliteOptions};
pub use projection::{ApplyError, Projection};
pub use vector::{VectorReader, Vectors};
