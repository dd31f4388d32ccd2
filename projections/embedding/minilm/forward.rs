//! The forward pass: tokens of several texts in, one vector of length 1 for each text out.
//!
//! Texts lie end to end, without padding. A chunk of rows goes through a whole feed-forward part before the next
//! one, so that what is between its halves stays in the cache.

use std::io;
use std::ops::Range;
use std::sync::{Arc, RwLock};

use super::attention::{self, HEAD, Head, Text, attend};
use super::buffer::{FloatBuffer, WordBuffer};
use super::helper::Shared;
use super::kernels::{Kernels, PANEL_COLUMNS, Rows, RowsMut};
use super::product::Product;
use super::reduced::{Operand, Tiles};
use super::weights::{Numbers, Weights};

/// Rows that go through a feed-forward part together: a multiple of every kernel's tile but one, 0.7 MB between
/// the halves.
const CHUNK_ROWS: usize = 112;
/// As [`CHUNK_ROWS`], of reduced products: pairs of blocks.
const REDUCED_CHUNK_ROWS: usize = 128;

/// Memory for the intermediate results of one pass. It grows to the largest pass and is used again.
#[derive(Default)]
pub(crate) struct Scratch {
    tokens: usize,
    longest: usize,
    state: Option<Buffers>,
    /// Of a pass that is split.
    met: Option<Arc<Met>>,
}

/// Queries, keys and values of the tokens of one thread, of this layer and of the next, where other threads read them.
pub(super) type Met = [RwLock<FloatBuffer>; 2];

pub(super) struct Buffers {
    /// The vector of each token, rows of `hidden`.
    pub(super) hidden: FloatBuffer,
    /// Query, key and value of each token.
    pub(super) attention: FloatBuffer,
    /// What attention gathered for each token.
    pub(super) gathered: FloatBuffer,
    /// Output of the attention part.
    attended: FloatBuffer,
    /// Between the halves of the feed-forward part, for one chunk.
    between: FloatBuffer,
    /// Keys of one head as panels: transposed.
    pub(super) keys: FloatBuffer,
    /// Values of one head as a panel.
    pub(super) values: FloatBuffer,
    /// Scores of one head: a row a token.
    pub(super) scores: FloatBuffer,
    /// Rows as reduced products take them.
    pub(super) operand: Operand,
    /// Keys and values of one head for reduced products.
    pub(super) packed_keys: WordBuffer,
    pub(super) packed_values: WordBuffer,
}

impl Scratch {
    /// Room for `len` numbers twice, which other threads can read.
    pub(super) fn met(&mut self, len: usize) -> Result<Arc<Met>, io::Error> {
        let fits = |met: &Arc<Met>| met[0].read().is_ok_and(|numbers| numbers.len() >= len);
        if let Some(met) = self.met.as_ref().filter(|met| fits(met)) {
            return Ok(Arc::clone(met));
        }
        let room = || FloatBuffer::zeroed(len, false).map(RwLock::new);
        Ok(Arc::clone(self.met.insert(Arc::new([room()?, room()?]))))
    }

    /// Others may still write to what they read of each other: the next pass gets memory of its own.
    pub(super) fn forget_met(&mut self) {
        self.met = None;
    }

    /// The first `len` numbers of the tokens' last states; none where no pass was.
    pub(super) fn states(&self, len: usize) -> &[f32] {
        self.state.as_ref().map_or(&[], |buffers| &buffers.hidden[..len])
    }

    /// Makes room for `tokens` in all, `longest` of them in one text.
    pub(super) fn reserve(
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
                let reduced = weights.numbers() != Numbers::Full;
                let full_head = padded * HEAD;
                let reduced_head = if reduced { attention::packed_words(padded) } else { 0 };
                let chunk = chunk_rows(weights).min(tokens);
                let operand_depth = if reduced { feed_forward.max(padded) } else { 0 };
                Ok(state.insert(Buffers {
                    hidden: zeroed(tokens * hidden)?,
                    attention: zeroed(tokens * 3 * hidden)?,
                    gathered: zeroed(tokens * hidden)?,
                    attended: zeroed(tokens * hidden)?,
                    between: zeroed(chunk * feed_forward)?,
                    keys: zeroed(full_head)?,
                    values: zeroed(full_head)?,
                    scores: zeroed(padded * padded)?,
                    operand: Operand::with_room(chunk.max(attention::ROWS), operand_depth)?,
                    packed_keys: WordBuffer::zeroed(reduced_head, false)?,
                    packed_values: WordBuffer::zeroed(reduced_head, false)?,
                }))
            }
        }
    }

    /// Bytes that a pass over `tokens`, `longest` of them in one text, needs at most.
    pub(crate) fn bytes(weights: &Weights, tokens: usize, longest: usize) -> usize {
        let padded = longest.next_multiple_of(PANEL_COLUMNS);
        let shape = weights.shape;
        let chunk = chunk_rows(weights);
        let numbers = tokens * 6 * shape.hidden + chunk * shape.feed_forward + padded * (2 * HEAD + padded);
        let reduced = match weights.numbers() {
            Numbers::Full => 0,
            Numbers::Rounded | Numbers::Reduced(_) => {
                Operand::bytes(chunk, shape.feed_forward.max(padded))
                    + 2 * attention::packed_words(padded) * size_of::<u32>()
            }
        };
        numbers * size_of::<f32>() + reduced
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
    pub(super) fn multiply(
        &mut self,
        (layer, product): (usize, Product),
        tiles: &Tiles,
        x: Rows<'_>,
        operand: &mut Operand,
        y: &mut RowsMut<'_>,
    ) {
        let multiplication = self.weights.matrix(layer, product).with(self.kernels, tiles, x, operand);
        if let Some(helper) = &mut self.helper
            && helper.multiply((layer, product), x, &multiplication, y)
        {
            return;
        }
        multiplication.all(self.kernels, product, y);
    }
}

/// Rows that go through a feed-forward part together.
pub(super) fn chunk_rows(weights: &Weights) -> usize {
    match weights.numbers() {
        Numbers::Full | Numbers::Rounded => CHUNK_ROWS,
        Numbers::Reduced(_) => REDUCED_CHUNK_ROWS,
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
    let tiles = &kernels.tiles();
    embed_tokens(kernels, weights, texts.iter().map(|text| (0, *text)), &mut buffers.hidden);
    let chunk_rows = chunk_rows(weights);
    for layer in 0..weights.layers.len() {
        let hidden = weights.shape.hidden;
        for first in (0..tokens).step_by(chunk_rows) {
            let count = chunk_rows.min(tokens - first);
            pass.multiply(
                (layer, Product::AttentionIn),
                tiles,
                Rows { numbers: &buffers.hidden[first * hidden..], count, stride: hidden },
                &mut buffers.operand,
                &mut RowsMut { numbers: &mut buffers.attention[first * 3 * hidden..], stride: 3 * hidden },
            );
        }
        let mut first = 0;
        for text in texts {
            let place = first..first + text.len();
            if attention::is_bf16(kernels, weights) {
                attention::attend_bf16(kernels, tiles, hidden, place, buffers);
            } else {
                let Buffers { attention, gathered, keys, values, scores, .. } = &mut *buffers;
                let rows = &attention[place.start * 3 * hidden..place.end * 3 * hidden];
                let text = Text { parts: &[rows], own: 0, hidden };
                attend(
                    kernels,
                    text,
                    &mut Head { keys, values, scores },
                    &mut gathered[place.start * hidden..],
                );
            }
            first += text.len();
        }
        for first in (0..tokens).step_by(chunk_rows) {
            let rows = first..tokens.min(first + chunk_rows);
            finish_layer(&mut pass, tiles, layer, rows, buffers);
        }
    }
    let mut first = 0;
    let mut vectors = Vec::with_capacity(texts.len());
    for text in texts {
        let rows = first * weights.shape.hidden..(first + text.len()) * weights.shape.hidden;
        vectors.push(pool([&buffers.hidden[rows]], weights.shape.hidden));
        first += text.len();
    }
    Ok(vectors)
}

/// The products of a pass over `rows` tokens alone, in their order and in the same chunks. Gives their operations.
///
/// # Errors
///
/// The system's, when there is no memory for the results.
pub(super) fn products_alone(
    kernels: Kernels,
    weights: &Weights,
    rows: usize,
    scratch: &mut Scratch,
) -> Result<f64, io::Error> {
    let Buffers { hidden, attention, attended, between, operand, .. } = scratch.reserve(weights, rows, 1)?;
    let tiles = &kernels.tiles();
    // What an earlier pass left there would do as well, but for numbers that are slow to multiply.
    hidden[..rows * weights.shape.hidden].fill(0.5);
    let (width, wide) = (weights.shape.hidden, weights.shape.feed_forward);
    let mut operations = 0;
    let mut multiply = |place, x: Rows<'_>, y: &mut RowsMut<'_>| {
        let (layer, product) = place;
        let matrix = weights.matrix(layer, product);
        operations += 2 * x.count * matrix.depth() * matrix.count() * PANEL_COLUMNS;
        // The Gaussian unit behind FeedIn is no product.
        matrix.with(kernels, tiles, x, operand).all(kernels, Product::FeedOut, y);
    };
    for layer in 0..weights.layers.len() {
        let chunks = || {
            let chunk = chunk_rows(weights);
            (0..rows).step_by(chunk).map(move |first| (first * width, chunk.min(rows - first)))
        };
        for (first, count) in chunks() {
            let x = Rows { numbers: &hidden[first..], count, stride: width };
            let y = &mut attention[3 * first..];
            multiply((layer, Product::AttentionIn), x, &mut RowsMut { numbers: y, stride: 3 * width });
        }
        for (first, count) in chunks() {
            let x = || Rows { numbers: &hidden[first..], count, stride: width };
            let attended = &mut RowsMut { numbers: &mut attended[first..], stride: width };
            multiply((layer, Product::AttentionOut), x(), attended);
            multiply((layer, Product::FeedIn), x(), &mut RowsMut { numbers: between, stride: wide });
            let x = Rows { numbers: between, count, stride: wide };
            multiply((layer, Product::FeedOut), x, attended);
        }
    }
    Ok(operations as f64)
}

/// Word, position and token type of each token, added and normalised. A text comes with the place of its first token.
pub(super) fn embed_tokens<'a>(
    kernels: Kernels,
    weights: &Weights,
    texts: impl Iterator<Item = (usize, &'a [u32])>,
    hidden: &mut [f32],
) {
    let mut rows = hidden.chunks_exact_mut(weights.shape.hidden);
    for (first, text) in texts {
        for ((place, id), row) in text.iter().enumerate().zip(&mut rows) {
            weights.word(*id, row);
            kernels.add_and_normalise(row, weights.position(first + place), &weights.embedding_norm);
        }
    }
}

/// The attention's output and the feed-forward part, for some rows.
pub(super) fn finish_layer(
    pass: &mut Pass<'_>,
    tiles: &Tiles,
    layer: usize,
    rows: Range<usize>,
    buffers: &mut Buffers,
) {
    let (kernels, weights) = (pass.kernels, pass.weights);
    let norms = &weights.layers[layer];
    let (hidden, feed_forward) = (weights.shape.hidden, weights.shape.feed_forward);
    let count = rows.len();
    let rows = rows.start * hidden..rows.end * hidden;
    let operand = &mut buffers.operand;
    let state = &mut buffers.hidden[rows.clone()];
    let attended = &mut buffers.attended[rows.clone()];
    pass.multiply(
        (layer, Product::AttentionOut),
        tiles,
        Rows { numbers: &buffers.gathered[rows], count, stride: hidden },
        operand,
        &mut RowsMut { numbers: attended, stride: hidden },
    );
    for (row, before) in attended.chunks_exact_mut(hidden).zip(state.chunks_exact(hidden)) {
        kernels.add_and_normalise(row, before, &norms.attention_norm);
    }
    let between = &mut buffers.between[..count * feed_forward];
    pass.multiply(
        (layer, Product::FeedIn),
        tiles,
        Rows { numbers: attended, count, stride: hidden },
        operand,
        &mut RowsMut { numbers: between, stride: feed_forward },
    );
    pass.multiply(
        (layer, Product::FeedOut),
        tiles,
        Rows { numbers: between, count, stride: feed_forward },
        operand,
        &mut RowsMut { numbers: state, stride: hidden },
    );
    for (row, before) in state.chunks_exact_mut(hidden).zip(attended.chunks_exact(hidden)) {
        kernels.add_and_normalise(row, before, &norms.feed_norm);
    }
}

/// The mean of all rows, brought to length 1.
pub(super) fn pool<'a>(parts: impl IntoIterator<Item = &'a [f32]>, hidden: usize) -> Vec<f32> {
    let mut mean = vec![0.0_f32; hidden];
    for row in parts.into_iter().flat_map(|part| part.chunks_exact(hidden)) {
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
