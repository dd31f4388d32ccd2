//! SmolLM2 out of a GGUF file, on the processor.

use std::fs::File;
use std::io::{BufReader, Cursor, Seek as _, SeekFrom};
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::tokenizer::TokenizerFromGguf as _;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, IndexOp as _, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use super::Reworder;

/// What it should be.
const SYSTEM: &str = "You answer questions with the given facts. Repeat the words of the facts. Add nothing.";
/// Tokens of a prompt at most: the model is trained on more, but what it says of long prompts is worth little, and
/// time grows with their square.
const PROMPT_TOKENS_MAX: usize = 768;
/// Longest question and longest fact in a prompt, in characters.
const PART_CHARS_MAX: usize = 800;

/// The model and its tokenizer.
pub(super) struct SmolLm {
    weights: ModelWeights,
    tokenizer: Tokenizer,
    end: u32,
}

impl SmolLm {
    /// Loads the file `path`, whose content the caller has verified.
    ///
    /// Four-bit weights become eight-bit ones on the way: candle has fast kernels for those alone.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            format!("could not {what} {}: {error}", path.display())
        };
        let file = File::open(path).map_err(|error| failed("open", &error))?;
        let mut reader = BufReader::new(file);
        let content = Content::read(&mut reader).map_err(|error| failed("read", &error))?;
        let mut tokenizer =
            Tokenizer::from_gguf(&content).map_err(|error| failed("read the tokenizer of", &error))?;
        // The file names a way to cut words that candle does not know: digits one by one, then bytes.
        tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            PreTokenizerWrapper::Digits(Digits::new(true)),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
        ]))));
        let end = content.metadata.get("tokenizer.ggml.eos_token_id");
        let end =
            end.and_then(|end| end.to_u32().ok()).ok_or_else(|| failed("read", &"it has no last token"))?;
        let mut eight_bit =
            in_eight_bits(&content, &mut reader).map_err(|error| failed("requantise", &error))?;
        drop(content);
        let content = Content::read(&mut eight_bit).map_err(|error| failed("requantise", &error))?;
        let weights = ModelWeights::from_gguf(content, &mut eight_bit, &Device::Cpu);
        Ok(Self { weights: weights.map_err(|error| failed("load", &error))?, tokenizer, end })
    }

    /// The prompt's tokens; facts that do not fit are left out, the last first.
    fn prompt(&self, question: &str, facts: &[String]) -> Result<Vec<u32>, String> {
        for count in (1..=facts.len().max(1)).rev() {
            let facts: Vec<String> =
                facts.iter().take(count).map(|fact| format!("- {}", part(fact))).collect();
            let text = format!(
                "<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nFacts:\n{}\n\nQuestion: {}<|im_end|>\n\
                 <|im_start|>assistant\n",
                facts.join("\n"),
                part(question)
            );
            let encoded = self.tokenizer.encode(text, false).map_err(|error| error.to_string())?;
            if encoded.get_ids().len() <= PROMPT_TOKENS_MAX {
                return Ok(encoded.get_ids().to_vec());
            }
        }
        Err("the question and one fact are too long for the model".to_owned())
    }

    fn generate(
        &mut self,
        prompt: &[u32],
        tokens_max: u32,
        gone: &dyn Fn() -> bool,
    ) -> candle_core::Result<Vec<u32>> {
        self.weights.clear_kv_cache();
        let (mut said, mut input, mut position) = (Vec::new(), prompt.to_vec(), 0);
        while said.len() < tokens_max as usize && !gone() {
            let tensor = Tensor::new(input.as_slice(), &Device::Cpu)?.unsqueeze(0)?;
            let logits = self.weights.forward(&tensor, position)?.i(0)?;
            position += input.len();
            // The likeliest token, always: the same question gets the same words.
            let token = logits.argmax(0)?.to_scalar::<u32>()?;
            if token == self.end {
                break;
            }
            said.push(token);
            input = vec![token];
        }
        self.weights.clear_kv_cache();
        Ok(said)
    }
}

impl Reworder for SmolLm {
    fn reword(
        &mut self,
        question: &str,
        facts: &[String],
        tokens_max: u32,
        gone: &dyn Fn() -> bool,
    ) -> Result<String, String> {
        let prompt = self.prompt(question, facts)?;
        let said = self.generate(&prompt, tokens_max, gone).map_err(|error| error.to_string())?;
        self.tokenizer.decode(&said, true).map_err(|error| error.to_string())
    }
}

/// A text for a prompt, without the marks by which the model knows who speaks.
fn part(text: &str) -> String {
    text.chars().take(PART_CHARS_MAX).collect::<String>().replace("<|", "< |")
}

/// The same file with four-bit weights as eight-bit ones.
fn in_eight_bits(content: &Content, reader: &mut BufReader<File>) -> candle_core::Result<Cursor<Vec<u8>>> {
    let mut names: Vec<&String> = content.tensor_infos.keys().collect();
    names.sort();
    let mut tensors: Vec<(&str, QTensor)> = Vec::with_capacity(names.len());
    for name in names {
        let tensor = content.tensor(reader, name, &Device::Cpu)?;
        let wide = tensor.dtype() == GgmlDType::Q4_1;
        let tensor = if wide {
            QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::Q8_0)?
        } else {
            tensor
        };
        tensors.push((name, tensor));
    }
    // The tokenizer has been read and is most of the rest.
    let kept = content.metadata.iter().filter(|(name, _)| !name.starts_with("tokenizer."));
    let metadata: Vec<(&str, &Value)> = kept.map(|(name, value)| (name.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut written = Cursor::new(Vec::new());
    gguf_file::write(&mut written, &metadata, &tensors)?;
    written.seek(SeekFrom::Start(0))?;
    Ok(written)
}

#[cfg(test)]
#[path = "smollm_tests.rs"]
mod tests;
