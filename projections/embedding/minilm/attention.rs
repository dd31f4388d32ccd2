//! Attention: how much of each token of a text goes into each other, head by head.

use std::ops::Range;

use super::forward::Buffers;
use super::kernels::{Kernels, Order, PANEL_COLUMNS, Panels, Rows, RowsMut};
use super::reduced::{BLOCK_ROWS, Form, ReducedPanels, STEP_WORDS, Tiles};
use super::weights::{Numbers, Weights};

/// Width of an attention head, which is what makes its keys and values whole panels.
pub(super) const HEAD: usize = PANEL_COLUMNS;
/// Tokens whose scores are computed together with 16 bits: two blocks, which stay in the nearest cache.
pub(super) const ROWS: usize = 2 * BLOCK_ROWS;

/// Whether queries, keys and values have 16 bits.
pub(super) fn is_bf16(kernels: Kernels, weights: &Weights) -> bool {
    weights.numbers() != Numbers::Full && kernels.set().multiplies_bf16()
}

/// The queries, keys and values of a text's tokens.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    /// One behind the other: rows of query, key and value, no numbers behind the last.
    pub(super) parts: &'a [&'a [f32]],
    /// Which of the parts asks.
    pub(super) own: usize,
    /// Width of a query.
    pub(super) hidden: usize,
}

impl<'a> Text<'a> {
    const fn stride(self) -> usize {
        3 * self.hidden
    }

    fn len(self) -> usize {
        self.parts.iter().map(|part| part.len() / self.stride()).sum()
    }

    /// The [`HEAD`] numbers of each token that begin at `offset` of its row.
    fn each(self, offset: usize) -> impl Iterator<Item = &'a [f32]> {
        self.parts
            .iter()
            .flat_map(move |part| part.chunks_exact(self.stride()))
            .map(move |row| &row[offset..][..HEAD])
    }
}

/// Room for one head.
pub(super) struct Head<'a> {
    pub(super) keys: &'a mut [f32],
    pub(super) values: &'a mut [f32],
    pub(super) scores: &'a mut [f32],
}

/// Self-attention of the tokens of a text that ask, head by head; what each gathers goes to a row of `gathered`.
pub(super) fn attend(kernels: Kernels, text: Text<'_>, room: &mut Head<'_>, gathered: &mut [f32]) {
    let (hidden, stride, len) = (text.hidden, text.stride(), text.len());
    let own = text.parts[text.own];
    let count = own.len() / stride;
    let padded = len.next_multiple_of(PANEL_COLUMNS);
    let scale = 1.0 / (HEAD as f32).sqrt();
    for head in (0..hidden).step_by(HEAD) {
        transpose_keys(text.each(hidden + head), len, room.keys);
        for (value, from) in room.values.chunks_exact_mut(HEAD).zip(text.each(2 * hidden + head)) {
            value.copy_from_slice(from);
        }
        kernels.matmul(
            Rows { numbers: &own[head..], count, stride },
            Panels { numbers: &room.keys[..padded * HEAD], depth: HEAD, bias: None },
            &mut RowsMut { numbers: room.scores, stride: padded },
        );
        for row in room.scores.chunks_exact_mut(padded).take(count) {
            kernels.softmax(&mut row[..len], scale);
        }
        kernels.matmul(
            Rows { numbers: room.scores, count, stride: padded },
            Panels { numbers: &room.values[..len * HEAD], depth: len, bias: None },
            &mut RowsMut { numbers: &mut gathered[head..], stride: hidden },
        );
    }
}

/// Writes the keys of `len` tokens as panels: a column a token, zeros where the last panel has no token.
fn transpose_keys<'a>(mut keys: impl Iterator<Item = &'a [f32]>, len: usize, panels: &mut [f32]) {
    for (index, panel) in panels.chunks_exact_mut(HEAD * PANEL_COLUMNS).enumerate() {
        let first = index * PANEL_COLUMNS;
        if first >= len {
            break;
        }
        if len - first < PANEL_COLUMNS {
            panel.fill(0.0);
        }
        for (column, key) in keys.by_ref().take(PANEL_COLUMNS).enumerate() {
            for (to, number) in panel[column..].iter_mut().step_by(PANEL_COLUMNS).zip(key) {
                *to = *number;
            }
        }
    }
}

/// Words that the keys of one head take, and its values too, of a text of `padded` tokens.
pub(super) const fn packed_words(padded: usize) -> usize {
    padded / PANEL_COLUMNS * Form::Bf16.panel_words(HEAD)
}

/// As [`attend`], with queries, keys, values and shares of 16 bits.
pub(super) fn attend_bf16(
    kernels: Kernels,
    tiles: &Tiles,
    hidden: usize,
    place: Range<usize>,
    buffers: &mut Buffers,
) {
    let (first, len, stride) = (place.start, place.len(), 3 * hidden);
    let padded = len.next_multiple_of(PANEL_COLUMNS);
    let scale = 1.0 / (HEAD as f32).sqrt();
    let words = packed_words(padded);
    for head in (0..hidden).step_by(HEAD) {
        let text = &buffers.attention[first * stride + head..];
        pack_keys(kernels, &text[hidden..], stride, len, &mut buffers.packed_keys[..words]);
        kernels.pack_values(&text[2 * hidden..], stride, len, &mut buffers.packed_values[..words]);
        let panels =
            |words, depth| ReducedPanels { words, form: Form::Bf16, depth, bias: None, columns: None };
        let keys = panels(&buffers.packed_keys[..words], HEAD);
        let values = panels(&buffers.packed_values[..words], padded);
        for row in (0..len).step_by(ROWS) {
            let count = ROWS.min(len - row);
            let queries = Rows { numbers: &text[row * stride..], count, stride };
            buffers.operand.fill(kernels, Form::Bf16, queries, HEAD);
            let mut scores = RowsMut { numbers: &mut buffers.scores, stride: padded };
            for index in 0..keys.count() {
                kernels.reduced_panel(tiles, &buffers.operand, keys, index, Order::Upwards, &mut scores);
            }
            for row in buffers.scores.chunks_exact_mut(padded).take(count) {
                kernels.softmax(&mut row[..len], scale);
                row[len..].fill(0.0);
            }
            let shares = Rows { numbers: &buffers.scores, count, stride: padded };
            buffers.operand.fill(kernels, Form::Bf16, shares, padded);
            let gathered = &mut buffers.gathered[(first + row) * hidden + head..];
            let mut gathered = RowsMut { numbers: gathered, stride: hidden };
            kernels.reduced_panel(tiles, &buffers.operand, values, 0, Order::Upwards, &mut gathered);
        }
    }
}

/// Packs the keys of `len` tokens as panels: a column a token, zeros where the last panel has no token.
fn pack_keys(kernels: Kernels, keys: &[f32], stride: usize, len: usize, packed: &mut [u32]) {
    for (index, panel) in packed.chunks_exact_mut(STEP_WORDS * PANEL_COLUMNS).enumerate() {
        let first = index * PANEL_COLUMNS;
        let count = PANEL_COLUMNS.min(len - first);
        if count < PANEL_COLUMNS {
            panel.fill(0);
        }
        for column in 0..count {
            let mut words = [0; STEP_WORDS];
            kernels.pack_bf16(&keys[(first + column) * stride..][..HEAD], &mut words);
            for (to, word) in panel[column..].iter_mut().step_by(PANEL_COLUMNS).zip(words) {
                *to = word;
            }
        }
    }
}
