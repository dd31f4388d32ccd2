//! Vectors for texts: the model, its files and what keeps it busy.
//!
//! Reading order: [`embedder`] (the trait), [`model_files`] (where a model is found and how it is checked),
//! [`minilm`] (the model as it runs), [`reference`](mod@reference) (the same model, slower, to compare with),
//! [`service`] (batches across callers), [`query_cache`], [`frequent`] (what is asked most) and [`store`] (vectors on disk, found by their text).

pub(crate) mod cores;
pub mod embedder;
pub mod frequent;
pub mod minilm;
pub mod model_files;
pub mod precision;
pub mod query_cache;
pub mod reference;
pub mod service;
pub(crate) mod standby;
pub mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cores::leave_pinned;
pub use embedder::{DIMENSIONS, EmbedError, Embedder, ModelIdentity};
pub use minilm::{InstructionSet, MiniLm};
pub use precision::Precision;
pub use query_cache::{CacheOptions, CacheStats, QueryCache};
pub use reference::ReferenceMiniLm;
pub use service::{EmbeddingService, QueryVector, ServiceOptions, ServiceStats};
pub use store::{Slot, StoreError, VectorStore};

/// Tokens that the model was trained to read at once; also the most that [`ModelOptions::max_tokens`] should be.
pub const TOKENS_TRAINED: usize = 256;
/// Positions that the model has: the most that [`ModelOptions::max_tokens`] can be.
pub const TOKENS_MAX: usize = 512;

/// Who does the arithmetic. Both give the same vectors, up to the rounding of `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// [`MiniLm`], written for this one model.
    #[default]
    Fused,
    /// [`ReferenceMiniLm`] on candle: several times slower, there to compare with.
    Candle,
}

/// How the model is loaded and run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct ModelOptions {
    /// Who does the arithmetic. Default: fused.
    pub engine: Engine,
    /// What the products are made of. Vectors of different precisions must not be compared. Default: fp32, and the
    /// reference engine has no other.
    pub precision: Precision,
    /// Leaves the vectors of the words in the file's own pages (47 MB that the system may drop and read again)
    /// instead of reading them into memory. Default: on. The reference engine copies what it maps.
    pub memory_map: bool,
    /// Reads the mapped pages at load instead of at first use. Without `memory_map` it has nothing to do.
    /// Default: on.
    pub prefault: bool,
    /// Asks for huge pages for the packed weights, where the system has them: a pass reads all of them, and on
    /// ordinary pages a short text takes a quarter longer. Linux only; the fused engine only. Default: on.
    pub huge_pages: bool,
    /// Tokens of a text that are read, with the model's two frame tokens; the rest is cut.
    ///
    /// Default: 256. Bounds: 3 to 512.
    pub max_tokens: usize,
    /// Threads that one call for several texts may use, the caller's included. Default: 1. At least 1. The reference engine takes as many as candle does.
    pub threads: usize,
    /// Keeps a thread that takes part in the call of a single text of up to 112 tokens, one call at a time, and
    /// sleeps otherwise. The vectors are the same, bit by bit. For a machine with a core to spare; the fused engine only.
    /// Default: off.
    pub helper: bool,
    /// Threads that a single text may be split over, the caller's included, one call at a time; each gets 10 tokens at least, 6 where
    /// the model's numbers have 8 bits. The vectors are the same, bit by bit. The fused engine, but not where it computes attention with 16 bits (AMX, AVX-512 BF16).
    /// Default: 1.
    pub text_threads: usize,
    /// Texts in one pass at most. Default: 32. At least 1.
    pub batch_size: usize,
    /// Puts texts of like length into the same pass. Default: on.
    pub length_sorted: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            engine: Engine::Fused,
            precision: Precision::Fp32,
            memory_map: true,
            prefault: true,
            huge_pages: true,
            max_tokens: TOKENS_TRAINED,
            threads: 1,
            helper: false,
            text_threads: 1,
            batch_size: 32,
            length_sorted: true,
        }
    }
}

impl ModelOptions {
    fn check(&self) -> Result<(), LoadError> {
        let wrong = |option, value, bounds| Err(LoadError::Option { option, value, bounds });
        match self {
            Self { max_tokens: value, .. } if !(3..=TOKENS_MAX).contains(value) => {
                wrong("max_tokens", *value, "3 to 512")
            }
            Self { threads: 0, .. } => wrong("threads", 0, "at least 1"),
            Self { batch_size: 0, .. } => wrong("batch_size", 0, "at least 1"),
            _ => Ok(()),
        }
    }
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is absent or is not the one it should be.
    #[error(transparent)]
    Files(#[from] model_files::Damage),
    /// An option is out of its bounds.
    #[error("{option} is {value}; it must be {bounds}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What it was.
        value: usize,
        /// What it may be.
        bounds: &'static str,
    },
    /// This processor lacks the instructions that were asked for, or the precision has no use for them.
    #[error("this processor does not have {}, or {precision} is not computed with them", set.name())]
    Processor {
        /// What was asked for.
        set: InstructionSet,
        /// For which precision.
        precision: Precision,
    },
    /// The reference engine computes with 32 bits alone.
    #[error("the candle engine computes with fp32 alone, not with {precision}; use the fused engine or fp32")]
    Precision {
        /// What was asked for.
        precision: Precision,
    },
    /// A file could not be read, or there was no memory for what is in it.
    #[error("could not load {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The weights are not those of this model.
    #[error("could not read the weights in {}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: minilm::TensorError,
    },
    /// The tokenizer's file is not valid.
    #[error("could not read the tokenizer in {}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizer said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The reference implementation did not take the weights.
    #[error("could not load {} with candle", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// What candle said.
        #[source]
        source: Box<candle_core::Error>,
    },
}

/// Loads the model in folder `dir` with the engine that the options name.
///
/// # Errors
///
/// [`LoadError`], naming the file or the option and what to do.
pub fn load(dir: &Path, options: &ModelOptions) -> Result<Arc<dyn Embedder>, LoadError> {
    Ok(match options.engine {
        Engine::Fused => Arc::new(MiniLm::load(dir, options)?),
        Engine::Candle => Arc::new(ReferenceMiniLm::load(dir, options)?),
    })
}

/// Refuses vectors with a number that is infinite or none, which would poison every comparison.
fn check_finite(vectors: &[Vec<f32>]) -> Result<(), EmbedError> {
    match vectors.iter().position(|vector| !vector.iter().all(|number| number.is_finite())) {
        Some(index) => Err(EmbedError::NotFinite { index }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod testing;
