//! Vectors for texts: the model, its files and what keeps it busy.
//!
//! Reading order: [`embedder`] (the trait).

pub mod embedder;

pub use embedder::{DIMENSIONS, EmbedError, Embedder, ModelIdentity};
