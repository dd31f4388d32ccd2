//! Questions over more than one projection, each a struct with `ask(&View)`.

mod fusion;
pub mod search;

pub use search::{Fusion, Search, SearchAnswer, SearchError, SearchHit, SearchMode};
