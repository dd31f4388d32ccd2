//! Entities, observations and relations in SQLite, with their history, and the full-text index beside them.

mod error;
mod filter;
mod options;
mod reader;
mod rows;
mod writer;

pub use error::{GraphError, ReadError};
pub use filter::*;
pub use options::*;
pub use reader::GraphReader;
pub use rows::*;
pub use writer::Graph;
