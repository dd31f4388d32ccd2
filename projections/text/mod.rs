//! Words to rows: a full-text index in the graph's database, and BM25 over it.
//!
//! Reading order: [`keyword`] (the query).

pub mod keyword;

pub use keyword::{KeywordQuery, TextHit, TextHitKind};
