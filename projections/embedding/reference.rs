//! The same model on candle's own BERT: the slow truth that the fused forward pass is held against.

use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, HiddenAct, PositionEmbeddingType};

use super::embedder::{EmbedError, Embedder, ModelIdentity};
use super::minilm::tokenize::Tokens;
use super::{LoadError, ModelOptions, Precision, model_files};

/// all-MiniLM-L6-v2 on candle, in `f32` on the processor.
pub struct ReferenceMiniLm {
    identity: ModelIdentity,
    tokens: Tokens,
    model: BertModel,
    options: ModelOptions,
}

/// As the model's `config.json` says; the weights' checksum is what holds them to it.
fn config() -> Config {
    Config {
        vocab_size: 30_522,
        hidden_size: 384,
        num_hidden_layers: 6,
        num_attention_heads: 12,
        intermediate_size: 1_536,
        hidden_act: HiddenAct::Gelu,
        hidden_dropout_prob: 0.1,
        max_position_embeddings: super::TOKENS_MAX,
        type_vocab_size: 2,
        initializer_range: 0.02,
        layer_norm_eps: 1e-12,
        pad_token_id: 0,
        position_embedding_type: PositionEmbeddingType::Absolute,
        use_cache: true,
        classifier_dropout: None,
        model_type: Some("bert".to_owned()),
    }
}

impl ReferenceMiniLm {
    /// Loads the model in folder `dir`, whose files must be those that [`model_files::ALL_MINILM_L6_V2`] names.
    ///
    /// # Errors
    ///
    /// [`LoadError`], naming the file or the option and what to do.
    pub fn load(dir: &Path, options: &ModelOptions) -> Result<Self, LoadError> {
        options.check()?;
        if options.precision != Precision::Fp32 {
            return Err(LoadError::Precision { precision: options.precision });
        }
        let found = model_files::check(dir, &model_files::ALL_MINILM_L6_V2)?;
        let path = dir.join(model_files::WEIGHTS);
        let failed = |source| LoadError::Reference { path: path.clone(), source: Box::new(source) };
        let weights = if options.memory_map {
            // SAFETY: files of a model are never written in place: `model pull` renames finished files into the
            // folder, and the checksum was verified.
            unsafe { VarBuilder::from_mmaped_safetensors(&[&path], DType::F32, &Device::Cpu) }
        } else {
            let bytes =
                std::fs::read(&path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
            VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu)
        };
        let model = weights.and_then(|weights| BertModel::load(weights, &config())).map_err(failed)?;
        Ok(Self {
            identity: found.identity,
            tokens: Tokens::load(&dir.join(model_files::TOKENIZER), options.max_tokens)?,
            model,
            options: options.clone(),
        })
    }

    /// One pass: pads to the longest text, and leaves the padding out of attention and mean.
    fn pass(&self, ids: &[&[u32]]) -> Result<Vec<Vec<f32>>, candle_core::Error> {
        let longest = ids.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let shape = (ids.len(), longest);
        let mut padded = Vec::with_capacity(ids.len() * longest);
        let mut mask = Vec::with_capacity(ids.len() * longest);
        for ids in ids {
            let padding = longest - ids.len();
            padded.extend(ids.iter().copied().chain(std::iter::repeat_n(0, padding)));
            mask.extend(ids.iter().map(|_| 1.0_f32).chain(std::iter::repeat_n(0.0, padding)));
        }
        let padded = Tensor::from_vec(padded, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let states = self.model.forward(&padded, &padded.zeros_like()?, Some(&mask))?;
        let sums = states.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
        // The mean's own divisor cancels out when the vector is brought to length 1.
        let vectors = sums.broadcast_div(&sums.sqr()?.sum_keepdim(1)?.sqrt()?)?;
        (0..ids.len()).map(|index| vectors.i(index)?.to_vec1()).collect()
    }
}

impl Embedder for ReferenceMiniLm {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let ids = texts
            .iter()
            .enumerate()
            .map(|(index, text)| self.tokens.ids(text, index))
            .collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        if self.options.length_sorted {
            order.sort_by_key(|index| ids[*index].len());
        }
        let mut answers = vec![Vec::new(); texts.len()];
        for batch in order.chunks(self.options.batch_size) {
            let texts: Vec<&[u32]> = batch.iter().map(|index| ids[*index].as_slice()).collect();
            let vectors =
                self.pass(&texts).map_err(|source| EmbedError::Reference { source: Box::new(source) })?;
            for (index, vector) in batch.iter().zip(vectors) {
                answers[*index] = vector;
            }
        }
        super::check_finite(&answers)?;
        Ok(answers)
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        self.tokens.chunk(text)
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.tokens.count(text)
    }

    fn instructions(&self) -> &'static str {
        "candle"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;
    use crate::embedding::testing::{cosine, model_dir, reference_texts};
    use crate::embedding::{Engine, load};

    #[test]
    fn candle_agrees_with_pytorch() {
        let Some(dir) = model_dir("candle_agrees_with_pytorch") else { return };
        let model = load(&dir, &ModelOptions { engine: Engine::Candle, ..ModelOptions::default() }).unwrap();
        let reference = reference_texts();
        let texts: Vec<&str> = reference.iter().map(|row| row.text.as_str()).collect();
        for (row, found) in reference.iter().zip(model.embed(&texts).unwrap()) {
            let cosine = cosine(&found, &row.vector);
            assert!(cosine >= 0.999_9, "{cosine} for {:?}", row.text);
        }
        assert_eq!(model.identity().name, "all-MiniLM-L6-v2");
        assert!(model.embed(&[]).unwrap().is_empty());
    }
}
