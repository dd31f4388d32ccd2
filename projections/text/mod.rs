//! Words to rows: a full-text index over the graph's rows, in memory, and BM25 over it.
//!
//! Reading order: [`words`] (text to words), [`batch`] (what changes), [`list`] and [`shelf`] (how texts are kept), [`index`]
//! (all of them, shared with the graph's writer), [`load`] (out of the rows), [`query`] (what is asked and answered),
//! [`score`] (what texts are worth), [`keyword`] (how).

pub(crate) mod batch;
pub(crate) mod index;
pub(crate) mod keyword;
mod list;
mod load;
mod query;
mod score;
mod shelf;
pub(crate) mod words;

pub use query::{KEYWORD_LIMIT_MAX, KeywordQuery, TextHit, TextHitKind};
