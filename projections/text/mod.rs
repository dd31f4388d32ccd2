//! Words to rows: a full-text index in the graph's database, and BM25 over it.
//!
//! Reading order: [`words`] (text to words), [`index`] (what is stored), [`query`] (what is asked and answered),
//! [`keyword`] (how).

pub(crate) mod index;
pub(crate) mod keyword;
mod query;
pub(crate) mod words;

pub use query::{KEYWORD_LIMIT_MAX, KeywordQuery, TextHit, TextHitKind};
