//! Reduced products in plain loops, which each instruction set compiles for itself.
//!
//! What is `inline(always)` is compiled for the instructions of the function it is inlined into.

#![allow(clippy::inline_always, reason = "a body compiled apart would have the plainest instructions only")]

use super::kernels::PANEL_COLUMNS;
use super::reduced::{Columns, ReducedTile, STEP_WORDS, step_of, step_of_mut};

/// The greatest number of 8 bits that is used: with as many below zero, products have no preferred sign.
pub(super) const INT8_MAX: f32 = 127.0;

/// The upper half of `number`, rounded to the nearest, to even between two.
#[inline(always)]
pub(super) fn bf16(number: f32) -> u32 {
    let bits = number.to_bits();
    // A number that is none stays none: rounding could carry its bits over into the sign.
    if number.is_nan() { 0x7fc0 } else { (bits + 0x7fff + (bits >> 16 & 1)) >> 16 }
}

/// Rounds numbers to 16 bits and gives them as such of 32.
#[inline(always)]
pub(super) fn round_to_bf16(numbers: &[f32], to: &mut [u32]) {
    for (to, number) in to.iter_mut().zip(numbers) {
        *to = bf16(*number) << 16;
    }
}

/// Packs a row of an operand; see [`super::reduced::Operand`].
#[inline(always)]
pub(super) fn pack_bf16(numbers: &[f32], to: &mut [u32]) {
    const DEPTH: usize = 2 * STEP_WORDS;
    for (step, numbers) in numbers.chunks(DEPTH).enumerate() {
        let mut padded = [0.0; DEPTH];
        padded[..numbers.len()].copy_from_slice(numbers);
        for (to, pair) in step_of_mut(to, step).iter_mut().zip(padded.as_chunks::<2>().0) {
            *to = bf16(pair[0]) | bf16(pair[1]) << 16;
        }
    }
}

/// Packs a row of an operand and says what one stands for; `FLIP` turns bits over in each word.
#[inline(always)]
pub(super) fn pack_int8<const FLIP: u32>(numbers: &[f32], to: &mut [u32]) -> f32 {
    const DEPTH: usize = 4 * STEP_WORDS;
    let greatest = greatest(numbers);
    let inverse = if greatest > 0.0 { INT8_MAX / greatest } else { 0.0 };
    for (step, numbers) in numbers.chunks(DEPTH).enumerate() {
        let mut padded = [0.0; DEPTH];
        padded[..numbers.len()].copy_from_slice(numbers);
        for (to, four) in step_of_mut(to, step).iter_mut().zip(padded.as_chunks::<4>().0) {
            *to = u32::from_le_bytes(four.map(|number| int8(number * inverse))) ^ FLIP;
        }
    }
    greatest / INT8_MAX
}

/// The greatest distance from zero; NaN where a number is none.
#[inline(always)]
pub(super) fn greatest(numbers: &[f32]) -> f32 {
    let mut lanes = [0_u32; 16];
    let (chunks, rest) = numbers.as_chunks::<16>();
    // Without their sign, floating-point numbers are in the order of their bits, and those that are none are last.
    let size = |number: f32| number.to_bits() & 0x7fff_ffff;
    for chunk in chunks {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane = size(*number).max(*lane);
        }
    }
    let of_rest = rest.iter().map(|number| size(*number)).max().unwrap_or(0);
    f32::from_bits(lanes.into_iter().fold(of_rest, u32::max))
}

/// The nearest whole number, to even between two, as a byte.
#[inline(always)]
pub(super) fn int8(number: f32) -> u8 {
    // Adding 1.5 · 2²³ rounds to a whole number and leaves it in the low bits, on every processor.
    const ROUND: f32 = 12_582_912.0;
    (number + ROUND).to_bits() as u8
}

/// A tile of 16-bit numbers.
pub(super) fn bf16_tile(tile: &mut ReducedTile<'_>) {
    let pair = |word: u32| [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)];
    for row in 0..tile.rows {
        let mut sums = *tile.columns.bias;
        for (step, panel) in tile.columns.panel.chunks_exact(STEP_WORDS).enumerate() {
            let x = &step_of(tile.x, step)[row * STEP_WORDS..][..STEP_WORDS];
            for (factors, weights) in x.iter().zip(panel) {
                let factors = pair(*factors);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    let weights = pair(*weights);
                    *sum += factors[0] * weights[0] + factors[1] * weights[1];
                }
            }
        }
        tile.y.numbers[row * tile.y.stride..][..PANEL_COLUMNS].copy_from_slice(&sums);
    }
}

/// A tile of 8-bit numbers.
pub(super) fn int8_tile(tile: &mut ReducedTile<'_>) {
    for row in 0..tile.rows {
        let mut sums = [0_i32; PANEL_COLUMNS];
        for (step, panel) in tile.columns.panel.chunks_exact(STEP_WORDS).enumerate() {
            let x = &step_of(tile.x, step)[row * STEP_WORDS..][..STEP_WORDS];
            for (factors, weights) in x.iter().zip(panel) {
                let factors = factors.to_le_bytes().map(|byte| i32::from(byte as i8));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    let weights = weights.to_le_bytes().map(|byte| i32::from(byte as i8));
                    for (factor, weight) in factors.iter().zip(weights) {
                        *sum += factor * weight;
                    }
                }
            }
        }
        let y = &mut tile.y.numbers[row * tile.y.stride..][..PANEL_COLUMNS];
        int8_results(&sums, tile.row_scales[row], &tile.columns, y);
    }
}

/// What the sums of a row stand for, into `y`.
#[inline(always)]
pub(super) fn int8_results(sums: &[i32; PANEL_COLUMNS], scale: f32, columns: &Columns<'_>, y: &mut [f32]) {
    let columns = columns.scales.iter().zip(columns.bias);
    for ((y, sum), (column, bias)) in y.iter_mut().zip(sums).zip(columns) {
        *y = *sum as f32 * (scale * column) + bias;
    }
}

/// Packs the values of `len` tokens as one panel: two tokens a word, zeros behind the last one.
#[inline(always)]
pub(super) fn pack_values(values: &[f32], stride: usize, len: usize, packed: &mut [u32]) {
    let (rows, _) = packed.as_chunks_mut::<PANEL_COLUMNS>();
    for (index, to) in rows.iter_mut().enumerate() {
        let row = |token: usize| {
            let row = (token < len).then(|| values[token * stride..].first_chunk());
            row.flatten().unwrap_or(&[0.0; PANEL_COLUMNS])
        };
        let pairs = row(2 * index).iter().zip(row(2 * index + 1));
        for (to, (even, odd)) in to.iter_mut().zip(pairs) {
            *to = bf16(*even) | bf16(*odd) << 16;
        }
    }
}
