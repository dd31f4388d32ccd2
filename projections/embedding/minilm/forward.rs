//! The forward pass: tokens of several texts in, one vector of length 1 for each text out.
//!
//! Texts lie end to end, without padding. A chunk of rows goes through a whole feed-forward part before the next
//! one, so that what is between its halves stays in the cache.

use std::io;

use super::buffer::FloatBuffer;
use super::helper::{Shared, multiply_panel};
use super::kernels::{Kernels, Order, PANEL_COLUMNS, Panels, Rows, RowsMut};
use super::weights::{Product, Weights};

/// Rows that go through a feed-forward part together: a multiple of every kernel's tile but one, 0.7 MB between
/// the halves.
const CHUNK_ROWS: usize = 112;
/// Width of an attention head, which is what makes its keys and values whole panels.
const HEAD: usize = PANEL_COLUMNS;

/// Memory for the intermediate results of one pass. It grows to the largest pass and is used again.
#[derive(Default)]
pub(crate) struct Scratch {
    tokens: usize,
    longest: usize,
    state: Option<Buffers>,
}

struct Buffers {
    /// The vector of each token, rows of `hidden`.
    hidden: FloatBuffer,
    /// Query, key and value of each token.
    attention: FloatBuffer,
    /// What attention gathered for each token.
    gathered: FloatBuffer,
    /// Output of the attention part.
    attended: FloatBuffer,
    /// Between the halves of the feed-forward part, for one chunk.
    between: FloatBuffer,
    /// Keys of one head as panels: transposed.
    keys: FloatBuffer,
    /// Values of one head as a panel.
    values: FloatBuffer,
    /// Scores of one head: a row a token.
    scores: FloatBuffer,
}

impl Scratch {
    /// Makes room for `tokens` in all, `longest` of them in one text.
    fn reserve(
        &mut self,
        weights: &Weights,
        tokens: usize,
        longest: usize,
    ) -> Result<&mut Buffers, io::Error> {
        if tokens > self.tokens || longest > self.longest {
            self.state = None;
            self.tokens = tokens.max(self.tokens);
            self.longest = longest.max(self.longest);
        }
        let (tokens, padded) = (self.tokens, self.longest.next_multiple_of(PANEL_COLUMNS));
        let (hidden, feed_forward) = (weights.shape.hidden, weights.shape.feed_forward);
        match &mut self.state {
            Some(buffers) => Ok(buffers),
            state => {
                let zeroed = |len| FloatBuffer::zeroed(len, false);
                Ok(state.insert(Buffers {
                    hidden: zeroed(tokens * hidden)?,
                    attention: zeroed(tokens * 3 * hidden)?,
                    gathered: zeroed(tokens * hidden)?,
                    attended: zeroed(tokens * hidden)?,
                    between: zeroed(CHUNK_ROWS.min(tokens) * feed_forward)?,
                    keys: zeroed(padded * HEAD)?,
                    values: zeroed(padded * HEAD)?,
                    scores: zeroed(padded * padded)?,
                }))
            }
        }
    }

    /// Bytes that a pass over `tokens`, `longest` of them in one text, needs at most.
    pub(crate) fn bytes(weights: &Weights, tokens: usize, longest: usize) -> usize {
        let padded = longest.next_multiple_of(PANEL_COLUMNS);
        let shape = weights.shape;
        let numbers =
            tokens * 6 * shape.hidden + CHUNK_ROWS * shape.feed_forward + padded * (2 * HEAD + padded);
        numbers * size_of::<f32>()
    }
}

/// What a pass works with.
pub(crate) struct Pass<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) weights: &'a Weights,
    /// The thread that takes part, if one does. For one short text.
    pub(crate) helper: Option<Shared<'a>>,
}

impl Pass<'_> {
    /// Writes `product` of layer `layer` to `y`.
    fn multiply(&mut self, layer: usize, product: Product, x: Rows<'_>, y: &mut RowsMut<'_>) {
        if let Some(helper) = &mut self.helper
            && helper.multiply(layer, product, x, y)
        {
            return;
        }
        let panels = self.weights.panels(layer, product);
        for index in 0..panels.count() {
            multiply_panel(self.kernels, product, x, panels, index, Order::Upwards, y);
        }
    }
}

/// The vectors of `texts`, each a list of at least one and at most `weights.shape.positions` tokens: the mean of
/// their tokens' last states, brought to length 1.
///
/// # Errors
///
/// The system's, when there is no memory for the intermediate results.
pub(crate) fn forward(
    mut pass: Pass<'_>,
    texts: &[&[u32]],
    scratch: &mut Scratch,
) -> Result<Vec<Vec<f32>>, io::Error> {
    let (kernels, weights) = (pass.kernels, pass.weights);
    let tokens = texts.iter().map(|text| text.len()).sum();
    let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let buffers = scratch.reserve(weights, tokens, longest)?;
    embed_tokens(kernels, weights, texts, buffers);
    for layer in 0..weights.layers.len() {
        let hidden = weights.shape.hidden;
        for first in (0..tokens).step_by(CHUNK_ROWS) {
            let count = CHUNK_ROWS.min(tokens - first);
            pass.multiply(
                layer,
                Product::AttentionIn,
                Rows { numbers: &buffers.hidden[first * hidden..], count, stride: hidden },
                &mut RowsMut { numbers: &mut buffers.attention[first * 3 * hidden..], stride: 3 * hidden },
            );
        }
        let mut first = 0;
        for text in texts {
            attend(kernels, hidden, first, text.len(), buffers);
            first += text.len();
        }
        for first in (0..tokens).step_by(CHUNK_ROWS) {
            finish_layer(&mut pass, layer, first, CHUNK_ROWS.min(tokens - first), buffers);
        }
    }
    let mut first = 0;
    let mut vectors = Vec::with_capacity(texts.len());
    for text in texts {
        vectors.push(pool(&buffers.hidden[first * weights.shape.hidden..], text.len(), weights.shape.hidden));
        first += text.len();
    }
    Ok(vectors)
}

/// Word, position and token type of each token, added and normalised.
fn embed_tokens(kernels: Kernels, weights: &Weights, texts: &[&[u32]], buffers: &mut Buffers) {
    let mut rows = buffers.hidden.chunks_exact_mut(weights.shape.hidden);
    for text in texts {
        for ((position, id), row) in text.iter().enumerate().zip(&mut rows) {
            weights.word(*id, row);
            kernels.add_and_normalise(row, weights.position(position), &weights.embedding_norm);
        }
    }
}

/// Self-attention of the text whose `len` tokens start at row `first`, head by head.
fn attend(kernels: Kernels, hidden: usize, first: usize, len: usize, buffers: &mut Buffers) {
    let stride = 3 * hidden;
    let padded = len.next_multiple_of(PANEL_COLUMNS);
    let scale = 1.0 / (HEAD as f32).sqrt();
    for head in (0..hidden).step_by(HEAD) {
        let queries = first * stride + head;
        transpose_keys(&buffers.attention[queries + hidden..], stride, len, &mut buffers.keys);
        for (row, value) in buffers.values.chunks_exact_mut(HEAD).take(len).enumerate() {
            value.copy_from_slice(&buffers.attention[queries + 2 * hidden + row * stride..][..HEAD]);
        }
        kernels.matmul(
            Rows { numbers: &buffers.attention[queries..], count: len, stride },
            Panels { numbers: &buffers.keys[..padded * HEAD], depth: HEAD, bias: None },
            &mut RowsMut { numbers: &mut buffers.scores, stride: padded },
        );
        for row in buffers.scores.chunks_exact_mut(padded).take(len) {
            kernels.softmax(&mut row[..len], scale);
        }
        kernels.matmul(
            Rows { numbers: &buffers.scores, count: len, stride: padded },
            Panels { numbers: &buffers.values[..len * HEAD], depth: len, bias: None },
            &mut RowsMut { numbers: &mut buffers.gathered[first * hidden + head..], stride: hidden },
        );
    }
}

/// Writes the keys of `len` tokens as panels: a column a token, zeros where the last panel has no token.
fn transpose_keys(keys: &[f32], stride: usize, len: usize, panels: &mut [f32]) {
    for (index, panel) in panels.chunks_exact_mut(HEAD * PANEL_COLUMNS).enumerate() {
        let first = index * PANEL_COLUMNS;
        if first >= len {
            break;
        }
        if len - first < PANEL_COLUMNS {
            panel.fill(0.0);
        }
        for column in 0..PANEL_COLUMNS.min(len - first) {
            let key = &keys[(first + column) * stride..][..HEAD];
            for (to, number) in panel[column..].iter_mut().step_by(PANEL_COLUMNS).zip(key) {
                *to = *number;
            }
        }
    }
}

/// The attention's output and the feed-forward part, for `count` rows from `first` on.
fn finish_layer(pass: &mut Pass<'_>, layer: usize, first: usize, count: usize, buffers: &mut Buffers) {
    let (kernels, weights) = (pass.kernels, pass.weights);
    let norms = &weights.layers[layer];
    let (hidden, feed_forward) = (weights.shape.hidden, weights.shape.feed_forward);
    let rows = first * hidden..(first + count) * hidden;
    let state = &mut buffers.hidden[rows.clone()];
    let attended = &mut buffers.attended[rows.clone()];
    pass.multiply(
        layer,
        Product::AttentionOut,
        Rows { numbers: &buffers.gathered[rows], count, stride: hidden },
        &mut RowsMut { numbers: attended, stride: hidden },
    );
    for (row, before) in attended.chunks_exact_mut(hidden).zip(state.chunks_exact(hidden)) {
        kernels.add_and_normalise(row, before, &norms.attention_norm);
    }
    let between = &mut buffers.between[..count * feed_forward];
    pass.multiply(
        layer,
        Product::FeedIn,
        Rows { numbers: attended, count, stride: hidden },
        &mut RowsMut { numbers: between, stride: feed_forward },
    );
    pass.multiply(
        layer,
        Product::FeedOut,
        Rows { numbers: between, count, stride: feed_forward },
        &mut RowsMut { numbers: state, stride: hidden },
    );
    for (row, before) in state.chunks_exact_mut(hidden).zip(attended.chunks_exact(hidden)) {
        kernels.add_and_normalise(row, before, &norms.feed_norm);
    }
}

/// The mean of `len` rows, brought to length 1.
fn pool(rows: &[f32], len: usize, hidden: usize) -> Vec<f32> {
    let mut mean = vec![0.0_f32; hidden];
    for row in rows.chunks_exact(hidden).take(len) {
        for (sum, number) in mean.iter_mut().zip(row) {
            *sum += number;
        }
    }
    let length = mean.iter().map(|sum| f64::from(*sum) * f64::from(*sum)).sum::<f64>().sqrt() as f32;
    // The mean's own divisor cancels out. All zeros have no direction and stay as they are.
    let inverse = if length > 0.0 { 1.0 / length } else { 1.0 };
    for number in &mut mean {
        *number *= inverse;
    }
    mean
}
