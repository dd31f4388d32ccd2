//! all-MiniLM-L6-v2 with a forward pass of its own: packed weights, no padding, the processor's widest vectors.
//!
//! Reading order: `forward` (the pass) and `attention`, `weights` (what they read), `product` (the two put together),
//! `kernels` (arithmetic with 32 bits), `reduced` (with 16 and 8), `instructions` (for which processors), `helper` (a
//! second thread for one short text), `split` (several for a long one), `tokenize`.

mod attention;
mod buffer;
pub(super) mod forward;
mod helper;
mod instructions;
mod kernels;
#[cfg(target_arch = "x86_64")]
mod kernels_avx2;
#[cfg(target_arch = "x86_64")]
mod kernels_avx512;
mod kernels_pointwise;
mod kernels_scalar;
#[cfg(test)]
mod precision_tests;
mod product;
mod reduced;
#[cfg(target_arch = "x86_64")]
mod reduced_amx;
#[cfg(target_arch = "x86_64")]
mod reduced_avx2;
#[cfg(target_arch = "x86_64")]
mod reduced_avx512;
mod reduced_plain;
mod reduced_weights;
mod safetensors;
mod split;
#[cfg(test)]
mod tests;
pub(super) mod tokenize;
mod weights;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use instructions::InstructionSet;
pub use safetensors::TensorError;

use super::embedder::{EmbedError, Embedder, ModelIdentity};
use super::standby::{StandBy, Taken};
use super::{LoadError, ModelOptions, model_files};
use forward::Scratch;
use helper::{Helper, Shared};
use kernels::Kernels;
use tokenize::Tokens;
use weights::{Numbers, Placement, Weights};

/// Tokens of one pass at most. More do not make it faster; they only take 9 KB each while it lasts.
const PASS_TOKENS_MAX: usize = 1_024;
/// Tokens below which a pass is not split between threads: one chunk of the feed-forward part.
const PASS_TOKENS_MIN: usize = 112;
/// Longest text that the helper is called for before its tokens are known, in bytes.
const HELPED_BYTES_MAX: usize = 4 * helper::TOKENS_MAX;

/// Bytes of a token, about: in English rather more.
const TOKEN_BYTES: usize = 4;

/// The model, loaded and packed. Any number of threads may call it at once; each call has memory of its own.
pub struct MiniLm {
    identity: ModelIdentity,
    tokens: Tokens,
    weights: Arc<Weights>,
    kernels: Kernels,
    /// The thread that takes part in the pass of one short text, unless `options.helper` is off.
    helper: Option<Helper>,
    /// Threads that take tokens of one text.
    others: StandBy,
    options: ModelOptions,
    /// Memory of passes that are over, at most one for each thread that may run.
    idle: Mutex<Vec<Scratch>>,
}

/// Who takes part in the pass of one text, beside the caller's thread.
enum Company<'a> {
    Helper(Shared<'a>),
    Others(Taken<'a>),
    Nobody,
}

/// What one pass works on: places in the batch, and what became of them.
struct Pass {
    texts: Vec<usize>,
    vectors: OnceLock<Result<Vec<Vec<f32>>, std::io::Error>>,
}

impl MiniLm {
    /// Loads the model in folder `dir`, whose files must be those that [`model_files::ALL_MINILM_L6_V2`] names.
    ///
    /// `options.engine` is not asked here: this is the fused one. [`super::load`] chooses.
    ///
    /// # Errors
    ///
    /// [`LoadError`], naming the file or the option and what to do.
    pub fn load(dir: &Path, options: &ModelOptions) -> Result<Self, LoadError> {
        Self::load_with(dir, options, Kernels::fastest(options.precision))
    }

    /// As [`load`](Self::load), with the instructions given instead of the widest: to compare them.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and [`LoadError::Processor`] when this processor lacks them or they are not for the
    /// precision that `options` ask for.
    pub fn load_for(dir: &Path, options: &ModelOptions, set: InstructionSet) -> Result<Self, LoadError> {
        let precision = options.precision;
        let kernels = Kernels::of(set, precision).ok_or(LoadError::Processor { set, precision })?;
        Self::load_with(dir, options, kernels)
    }

    fn load_with(dir: &Path, options: &ModelOptions, kernels: Kernels) -> Result<Self, LoadError> {
        options.check()?;
        let found = model_files::check(dir, &model_files::ALL_MINILM_L6_V2)?;
        let placement = Placement {
            memory_map: options.memory_map,
            prefault: options.prefault,
            huge_pages: options.huge_pages,
        };
        let numbers = Numbers::of(options.precision, kernels.set());
        let weights_path = dir.join(model_files::WEIGHTS);
        // Half of loading is parsing the vocabulary; it goes on beside the packing.
        let (tokens, weights) = std::thread::scope(|scope| {
            let tokenizer_path = dir.join(model_files::TOKENIZER);
            let load_tokens = move || Tokens::load(&tokenizer_path, options.max_tokens);
            let tokens = std::thread::Builder::new()
                .name("model-tokenizer".to_owned())
                .spawn_scoped(scope, load_tokens);
            let weights = Weights::load(&weights_path, weights::MINILM, numbers, placement);
            let tokens = match tokens.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(tokens)) => tokens,
                // The thread could not start, or died: its work is done here, its error is met here.
                _ => Tokens::load(&dir.join(model_files::TOKENIZER), options.max_tokens),
            };
            (tokens, weights)
        });
        let (tokens, weights) = (tokens?, Arc::new(weights?));
        // Without a helper a short text takes longer, and gets the same vector.
        let helper = options.helper.then(|| Helper::start(Arc::clone(&weights), kernels).ok()).flatten();
        let others = if split::can(kernels, &weights) { options.text_threads.saturating_sub(1) } else { 0 };
        Ok(Self {
            identity: ModelIdentity { precision: options.precision, ..found.identity },
            tokens,
            weights,
            kernels,
            helper,
            others: StandBy::start("embed-part", others),
            options: options.clone(),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// The instructions that the forward pass runs on.
    pub fn instruction_set(&self) -> InstructionSet {
        self.kernels.set()
    }

    /// Bytes that one call takes at most while it runs, for each of its threads.
    pub fn scratch_bytes_max(&self) -> usize {
        Scratch::bytes(&self.weights, PASS_TOKENS_MAX, self.options.max_tokens)
    }

    /// Does the products of one pass over `rows` tokens, of made-up numbers, and nothing of what lies between them: to measure
    /// how much of a pass they are. Gives their floating-point operations.
    ///
    /// # Errors
    ///
    /// The system's, when there is no memory for the results.
    pub fn products_alone(&self, rows: usize) -> Result<f64, std::io::Error> {
        let mut scratch = self.scratch();
        let operations = forward::products_alone(self.kernels, &self.weights, rows, &mut scratch);
        self.put_back(scratch);
        operations
    }

    /// Deals the texts out to passes of at most `batch_size` texts and a bounded number of tokens.
    fn passes(&self, ids: &[Vec<u32>]) -> Vec<Pass> {
        let mut order: Vec<usize> = (0..ids.len()).collect();
        if self.options.length_sorted {
            order.sort_by_key(|index| ids[*index].len());
        }
        let tokens: usize = ids.iter().map(Vec::len).sum();
        let share = tokens.div_ceil(self.options.threads.max(1));
        let tokens_max = share.clamp(PASS_TOKENS_MIN, PASS_TOKENS_MAX);
        let mut passes: Vec<Pass> = Vec::new();
        let mut taken = 0;
        for index in order {
            let len = ids[index].len();
            match passes.last_mut() {
                Some(pass) if pass.texts.len() < self.options.batch_size && taken + len <= tokens_max => {
                    pass.texts.push(index);
                    taken += len;
                }
                _ => {
                    passes.push(Pass { texts: vec![index], vectors: OnceLock::new() });
                    taken = len;
                }
            }
        }
        passes
    }

    fn run(&self, pass: &Pass, ids: &[Vec<u32>], helper: Option<Shared<'_>>) {
        let texts: Vec<&[u32]> = pass.texts.iter().map(|index| ids[*index].as_slice()).collect();
        let mut scratch = self.scratch();
        let forward = forward::Pass { kernels: self.kernels, weights: &self.weights, helper };
        let vectors = forward::forward(forward, &texts, &mut scratch);
        self.put_back(scratch);
        // Each pass is taken by one thread, so nothing was set before.
        drop(pass.vectors.set(vectors));
    }

    fn scratch(&self) -> Scratch {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn put_back(&self, scratch: Scratch) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.options.threads.max(self.options.text_threads).max(1) {
            idle.push(scratch);
        }
    }

    /// Takes one text apart; `false` when one of `others` did not come in time: nothing was done.
    fn split(&self, pass: &Pass, text: &[u32], others: Taken<'_>) -> bool {
        let mut scratches: Vec<Scratch> = (0..self.threads_for(text)).map(|_| self.scratch()).collect();
        let vector = split::forward(self.kernels, &self.weights, text, &mut scratches, others);
        for scratch in scratches {
            self.put_back(scratch);
        }
        let Some(vector) = vector.transpose() else { return false };
        drop(pass.vectors.set(vector.map(|vector| vec![vector])));
        true
    }

    /// Threads that a single text is dealt out to.
    fn threads_for(&self, text: &[u32]) -> usize {
        (self.others.count() + 1).min(text.len() / split::tokens_min(&self.weights))
    }

    /// Who is to take part in the pass of `texts`, as far as their length in bytes says it. They wake while the tokens are cut.
    fn call(&self, texts: &[&str]) -> Company<'_> {
        let &[text] = texts else { return Company::Nobody };
        if text.len() >= 2 * split::tokens_min(&self.weights) * TOKEN_BYTES
            && let Some(others) = self.others.take()
        {
            others.rouse();
            return Company::Others(others);
        }
        if text.len() <= HELPED_BYTES_MAX { self.call_helper() } else { Company::Nobody }
    }

    fn call_helper(&self) -> Company<'_> {
        self.helper.as_ref().and_then(Helper::call).map_or(Company::Nobody, Company::Helper)
    }

    /// Who takes part in the pass of texts with these tokens, of whom some were called.
    fn company<'a>(&'a self, called: Company<'a>, ids: &[Vec<u32>]) -> Company<'a> {
        let [text] = ids else { return Company::Nobody };
        if self.threads_for(text) > 1 {
            let others = if let Company::Others(others) = called {
                Some(others)
            } else {
                // They need the core that the helper waits on.
                drop(called);
                self.others.take()
            };
            return others.map_or(Company::Nobody, Company::Others);
        }
        match called {
            Company::Helper(helper) if text.len() <= helper::TOKENS_MAX => Company::Helper(helper),
            Company::Others(others) => {
                drop(others);
                self.call_helper()
            }
            Company::Helper(_) | Company::Nobody => Company::Nobody,
        }
    }

    /// Runs all passes, on up to `threads` threads of which the caller's is one.
    fn run_all(&self, passes: &[Pass], ids: &[Vec<u32>]) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(pass) = passes.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.run(pass, ids, None);
            }
        };
        let helpers = self.options.threads.min(passes.len()).saturating_sub(1);
        std::thread::scope(|scope| {
            for index in 0..helpers {
                let thread = std::thread::Builder::new().name(format!("embed-{}", index + 1));
                if thread.spawn_scoped(scope, work).is_err() {
                    break; // Without a helper the work takes longer and is done all the same.
                }
            }
            work();
        });
    }

    /// The tokens of each of `texts`, cut and framed.
    fn ids(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, EmbedError> {
        texts.iter().enumerate().map(|(index, text)| self.tokens.ids(text, index)).collect()
    }

    /// The vectors of texts with these tokens.
    fn embed_ids(&self, ids: &[Vec<u32>], called: Company<'_>) -> Result<Vec<Vec<f32>>, EmbedError> {
        let passes = self.passes(ids);
        let is_done = match (self.company(called, ids), passes.as_slice()) {
            (Company::Others(others), [pass]) => self.split(pass, &ids[0], others),
            (Company::Helper(helper), [pass]) => {
                self.run(pass, ids, Some(helper));
                true
            }
            (Company::Others(_) | Company::Helper(_) | Company::Nobody, _) => false,
        };
        if !is_done {
            self.run_all(&passes, ids);
        }
        let mut answers = vec![Vec::new(); ids.len()];
        for pass in passes {
            let vectors = pass
                .vectors
                .into_inner()
                .unwrap_or_else(|| Ok(Vec::new()))
                .map_err(|source| EmbedError::Memory { bytes: self.scratch_bytes_max(), source })?;
            for (index, vector) in pass.texts.into_iter().zip(vectors) {
                answers[index] = vector;
            }
        }
        super::check_finite(&answers)?;
        Ok(answers)
    }
}

impl Embedder for MiniLm {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let called = self.call(texts);
        let ids = self.ids(texts)?;
        self.embed_ids(&ids, called)
    }

    fn cut(&self, texts: &[&str]) -> Option<Vec<Vec<u32>>> {
        self.ids(texts).ok()
    }

    fn embed_cut(&self, texts: &[&str], tokens: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.embed_ids(&tokens, self.call(texts))
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        self.tokens.chunk(text)
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.tokens.count(text)
    }

    fn instructions(&self) -> &'static str {
        self.kernels.set().name()
    }
}
