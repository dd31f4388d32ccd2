//! What turns texts into vectors, whoever does the arithmetic.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sha2::{Digest as _, Sha256};

use super::model_files::hex;
use super::precision::Precision;

/// Width of every vector, in numbers.
pub const DIMENSIONS: usize = 384;

/// Which model made a vector. Vectors of different identities must never be compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct ModelIdentity {
    /// The model's name, such as `all-MiniLM-L6-v2`.
    pub name: String,
    /// SHA-256 of its weights, 64 lower-case hex digits.
    pub weights_sha256: String,
    /// Width of its vectors, in numbers.
    pub dimensions: usize,
    /// What its products are made of.
    pub precision: Precision,
}

impl ModelIdentity {
    /// What its vectors are kept under: 64 lower-case hex digits, the same for vectors that may be compared.
    ///
    /// With 32 bits these are the weights' SHA-256; with fewer, a SHA-256 of that and the precision's name.
    pub fn vectors_key(&self) -> String {
        match self.precision {
            Precision::Fp32 => self.weights_sha256.clone(),
            precision @ (Precision::Fp16 | Precision::Int8) => {
                let text = format!("{} {}", self.weights_sha256, precision.name());
                hex(&Sha256::digest(text.as_bytes()))
            }
        }
    }
}

/// A model that turns texts into vectors of [`DIMENSIONS`] numbers and length 1.
///
/// The same text always gives the same vector, alone or in a batch, up to the rounding of `f32`.
pub trait Embedder: Send + Sync {
    /// Which model this is.
    fn identity(&self) -> &ModelIdentity;

    /// One vector for each of `texts`, in their order.
    ///
    /// A text of more tokens than the model reads is cut; [`chunk`](Self::chunk) it first to keep all of it.
    /// An empty text has a vector too: the one of the model's two frame tokens.
    ///
    /// # Errors
    ///
    /// [`EmbedError`]; then no text of this call has a vector.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;

    /// The tokens of each of `texts`, for [`embed_cut`](Self::embed_cut): cut by one thread while another computes. `None`: they
    /// are cut where they are embedded, by a model that takes none or because one cannot be cut.
    fn cut(&self, _texts: &[&str]) -> Option<Vec<Vec<u32>>> {
        None
    }

    /// As [`embed`](Self::embed), of `texts` whose tokens are there already.
    ///
    /// # Errors
    ///
    /// As [`embed`](Self::embed).
    fn embed_cut(&self, texts: &[&str], _tokens: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed(texts)
    }

    /// Byte ranges of `text` that the model can read whole, in order and without overlap.
    ///
    /// Cuts fall between words, at white space where there is some. White space around a cut belongs to no range.
    /// A text that is not empty has at least one range, an empty one has none.
    fn chunk(&self, text: &str) -> Vec<Range<usize>>;

    /// How many tokens `text` takes, uncut, with the two frame tokens that the model adds.
    fn count_tokens(&self, text: &str) -> usize;

    /// Whose instructions compute, for people, such as `AMX`; empty where that is not known.
    fn instructions(&self) -> &'static str {
        ""
    }
}

/// Why texts got no vectors.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The tokenizer refused a text.
    #[error("could not split text {index} of the batch into tokens")]
    Tokenize {
        /// Which of the texts, from 0.
        index: usize,
        /// What the tokenizer said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The reference implementation failed.
    #[error("the reference model could not run")]
    Reference {
        /// What candle said.
        #[source]
        source: Box<candle_core::Error>,
    },
    /// There was no memory for the intermediate results.
    #[error("could not reserve {bytes} bytes for the model's intermediate results")]
    Memory {
        /// What was asked for.
        bytes: usize,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The model gave a number that is not finite: its weights are damaged.
    #[error("the vector of text {index} of the batch is not finite; the model's weights are damaged")]
    NotFinite {
        /// Which of the texts, from 0.
        index: usize,
    },
    /// The tokenizer or the model panicked over the texts, which is an error in it. They have no vectors until it is mended.
    #[error("the embedding model failed over {texts} texts in a way that was not foreseen: {what}")]
    Panicked {
        /// How many there were.
        texts: usize,
        /// What it said.
        what: String,
    },
    /// Too many queries wait already. Nothing was computed; try again later.
    #[error("{waiting} queries wait for the embedding model already")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The service has stopped. Nothing was computed.
    #[error("the embedding service has stopped")]
    Stopped,
}

impl EmbedError {
    /// The same error, for a caller among whose texts the batch's texts had `places`.
    pub(super) fn at(self, places: &[usize]) -> Self {
        let place = |index: usize| places.get(index).copied().unwrap_or(index);
        match self {
            Self::Tokenize { index, source } => Self::Tokenize { index: place(index), source },
            Self::NotFinite { index } => Self::NotFinite { index: place(index) },
            Self::Reference { .. }
            | Self::Memory { .. }
            | Self::Panicked { .. }
            | Self::Busy { .. }
            | Self::Stopped => self,
        }
    }
}

/// What `work` gives, or what it said when it panicked: whoever works with a model goes on all the same.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // What was under way is dropped, and what models share bears that.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic").to_owned()
    })
}
