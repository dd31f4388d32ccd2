//! Vectors for texts: the model, its files and what keeps it busy.
//!
//! Reading order: [`embedder`] (the trait), [`store`] (vectors on disk, found by their text).

pub mod embedder;
pub mod store;

pub use embedder::{DIMENSIONS, EmbedError, Embedder, ModelIdentity};
pub use store::{Slot, StoreError, VectorStore};
