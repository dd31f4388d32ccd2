//! Texts to tokens, as the model counts them, and the places where a long text may be cut.

use std::ops::Range;
use std::path::Path;

use tokenizers::Tokenizer;

use super::super::LoadError;
use super::super::embedder::EmbedError;

/// Tokens that frame every text: `[CLS]` before it, `[SEP]` after it.
pub(crate) const FRAME_TOKENS: usize = 2;
/// Bytes of a text that are tokenised at a time, at first. 254 tokens of English take about 1,200.
const WINDOW_BYTES: usize = 8 << 10;

/// The model's tokenizer without the padding and the cut that its file asks for.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    /// Most tokens of a text, without the frame.
    content_max: usize,
}

/// One token of a text: its bytes, and whether a word starts with it.
#[derive(Clone, Copy)]
struct Token {
    start: usize,
    end: usize,
    starts_word: bool,
}

impl Tokens {
    /// Reads `tokenizer.json`; texts are cut at `tokens_max` tokens, the frame included.
    pub(crate) fn load(path: &Path, tokens_max: usize) -> Result<Self, LoadError> {
        let unfit = |source| LoadError::Tokenizer { path: path.to_path_buf(), source };
        let bytes =
            std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_path_buf(), source })?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(unfit)?;
        // The file asks for a cut at 128 and for padding to 128.
        tokenizer.with_truncation(None).map_err(unfit)?.with_padding(None);
        Ok(Self { tokenizer, content_max: tokens_max.saturating_sub(FRAME_TOKENS).max(1) })
    }

    /// The ids of `text`, cut and framed. `index` is its place in the batch, for the error.
    pub(crate) fn ids(&self, text: &str, index: usize) -> Result<Vec<u32>, EmbedError> {
        let failed = |source| EmbedError::Tokenize { index, source };
        let mut ids = self.head(text).map_err(failed)?;
        if ids.len() > self.content_max + FRAME_TOKENS
            && let Some(last) = ids.pop()
        {
            ids.truncate(self.content_max + FRAME_TOKENS - 1);
            ids.push(last);
        }
        Ok(ids)
    }

    /// The framed ids of so much of `text` that what the cut keeps is as if all of it had been tokenised.
    fn head(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let mut window = WINDOW_BYTES;
        while window < text.len() {
            let head = &text[..text.floor_char_boundary(window)];
            // The last word may go on beyond the window: it must not be one that is kept.
            let tokens = self.tokens(head)?;
            let last_word = tokens.iter().rposition(|token| token.starts_word).unwrap_or(0);
            if last_word >= self.content_max {
                return Ok(self.tokenizer.encode_fast(head, true)?.get_ids().to_vec());
            }
            window *= 2;
        }
        Ok(self.tokenizer.encode_fast(text, true)?.get_ids().to_vec())
    }

    fn tokens(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        let encoding = self.tokenizer.encode(text, false)?;
        let words = encoding.get_word_ids();
        let tokens = encoding.get_offsets().iter().enumerate().map(|(index, (start, end))| {
            let word = words.get(index).copied().flatten();
            let starts_word = index == 0 || word.is_none() || word != words[index - 1];
            Token { start: *start, end: *end, starts_word }
        });
        Ok(tokens.collect())
    }

    /// See [`crate::embedding::Embedder::chunk`].
    pub(crate) fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        let mut starts = Vec::new();
        self.walk(text, |from, tokens| starts.extend(tokens.first().map(|first| from + first.start)));
        // What has no token, such as a mark that belongs to the letter before it, stays with what it follows.
        if let Some(first) = starts.first_mut() {
            *first = 0;
        }
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let mut ranges: Vec<_> =
            starts.iter().zip(ends).map(|(start, end)| trimmed(text, *start..end)).collect();
        if ranges.is_empty() && !text.is_empty() {
            // White space and control characters have no token, but they are a text.
            ranges.push(0..text.len());
        }
        ranges
    }

    /// See [`crate::embedding::Embedder::count_tokens`].
    pub(crate) fn count(&self, text: &str) -> usize {
        let mut count = FRAME_TOKENS;
        self.walk(text, |_, tokens| count += tokens.len());
        count
    }

    /// Calls `found` with the tokens of each chunk and with the byte that their places count from.
    ///
    /// Works in windows, so that a text of a megabyte does not stand in memory as a million tokens.
    fn walk(&self, text: &str, mut found: impl FnMut(usize, &[Token])) {
        let mut from = 0;
        let mut window = WINDOW_BYTES;
        while from < text.len() {
            let end = text.floor_char_boundary(from.saturating_add(window));
            let part = &text[from..end];
            let Ok(tokens) = self.tokens(part) else {
                // The tokenizer's only failure is a vocabulary without [UNK], which `embed` then reports.
                found(from, &[Token { start: 0, end: text.len() - from, starts_word: true }]);
                return;
            };
            let mut used = 0;
            while tokens.len() - used > self.content_max {
                let cut = used + self.cut(&tokens[used..]);
                found(from, &tokens[used..cut]);
                used = cut;
            }
            if end == text.len() {
                found(from, &tokens[used..]);
                return;
            }
            // What is left may be the start of a longer chunk; the next window starts there.
            window = if used == 0 { window * 2 } else { WINDOW_BYTES };
            from += tokens.get(used).filter(|_| used > 0).map_or(0, |token| token.start);
        }
    }

    /// How many of `tokens`, which are too many, the first chunk takes.
    fn cut(&self, tokens: &[Token]) -> usize {
        let after_space = |cut: &usize| tokens[cut - 1].end < tokens[*cut].start;
        let between_words = |cut: &usize| tokens[*cut].starts_word;
        let longest = self.content_max;
        let late = longest / 2 + 1..=longest;
        late.clone().rev().find(after_space).or_else(|| late.rev().find(between_words)).unwrap_or(longest)
    }
}

/// `range` without the white space at its ends.
fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + part.len() - part.trim_start().len();
    start..start + part.trim().len()
}
