//! Packed products against plain arithmetic over the same rounded numbers, for everything that this processor has.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::cmp::Ordering;

use super::super::reduced_weights::pack_weights;
use super::*;
use crate::embedding::Precision;

/// Numbers in [-1, 1) that look random and are the same at each call.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

/// Kernels with the form that they multiply packed; those of plain loops multiply both.
fn ways() -> Vec<(Kernels, Form)> {
    let of = |precision, form| {
        let sets = InstructionSet::available(precision).into_iter();
        sets.map(move |set| (Kernels::of(set, precision).unwrap(), form))
    };
    of(Precision::Fp16, Form::Bf16).chain(of(Precision::Int8, Form::Int8)).collect()
}

/// The matrix of `columns` columns, each given as a row, packed; with what belongs to its columns.
struct Packed {
    words: Vec<u32>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
    bias: Vec<f32>,
    form: Form,
    depth: usize,
}

impl Packed {
    fn new(rows: &[f32], depth: usize, form: Form) -> Self {
        let columns = rows.len() / depth;
        let mut words = vec![0; columns / PANEL_COLUMNS * form.panel_words(depth)];
        let packed = pack_weights(rows, depth, form, &mut words);
        let bias = numbers(9, columns);
        Self { words, scales: packed.scales, offsets: packed.offsets, bias, form, depth }
    }

    fn panels(&self) -> ReducedPanels<'_> {
        ReducedPanels {
            words: &self.words,
            form: self.form,
            depth: self.depth,
            bias: Some(&self.bias),
            columns: (self.form == Form::Int8).then_some((&*self.scales, &*self.offsets)),
        }
    }
}

/// `x · panels + bias`: rows of as many numbers as there are columns, `gap` NaNs behind each.
fn product(kernels: Kernels, x: Rows<'_>, packed: &Packed, gap: usize) -> Vec<f32> {
    let panels = packed.panels();
    let columns = panels.count() * PANEL_COLUMNS;
    let stride = columns + gap;
    let mut y = vec![f32::NAN; x.count * stride];
    let mut operand = Operand::with_room(x.count, packed.depth).unwrap();
    operand.fill(kernels, packed.form, x, packed.depth);
    let tiles = kernels.tiles();
    for index in 0..panels.count() {
        let mut y = RowsMut { numbers: &mut y, stride };
        kernels.reduced_panel(&tiles, &operand, panels, index, Order::Upwards, &mut y);
    }
    y
}

/// A row as `form` keeps it: whole numbers, and what one stands for.
fn kept(row: &[f32], form: Form) -> (Vec<f64>, f64) {
    match form {
        Form::Bf16 => {
            let nearest = |number: f32| {
                let below = f32::from_bits(number.to_bits() & 0xffff_0000);
                let above = f32::from_bits((number.to_bits() & 0xffff_0000) + 0x1_0000);
                let (under, over) = (f64::from(number - below).abs(), f64::from(above - number).abs());
                let even = below.to_bits() & 0x1_0000 == 0;
                let nearer = match under.total_cmp(&over) {
                    Ordering::Less => below,
                    Ordering::Equal if even => below,
                    Ordering::Equal | Ordering::Greater => above,
                };
                f64::from(nearer)
            };
            (row.iter().map(|number| nearest(*number)).collect(), 1.0)
        }
        Form::Int8 => {
            let greatest =
                row.iter().fold(0.0_f64, |greatest, number| greatest.max(f64::from(*number).abs()));
            let scale = greatest / 127.0;
            let whole = |number: f32| if scale > 0.0 { (f64::from(number) / scale).round() } else { 0.0 };
            (row.iter().map(|number| whole(*number)).collect(), scale)
        }
    }
}

#[test]
fn every_set_multiplies_packed_numbers_as_plain_arithmetic_does() {
    for (kernels, form) in ways() {
        for (depth, panels, gap) in
            [(1, 1, 0), (2, 2, 3), (7, 1, 1), (31, 1, 0), (64, 3, 5), (65, 2, 0), (130, 1, 2)]
        {
            let columns = panels * PANEL_COLUMNS;
            let weights = numbers(2, columns * depth);
            let packed = Packed::new(&weights, depth, form);
            let sides: Vec<_> = weights.chunks(depth).map(|row| kept(row, form)).collect();
            for rows in (1..=18).chain([31, 32, 33, 47, 48, 128]) {
                let x = numbers(1, rows * depth + rows);
                let x = Rows { numbers: &x, count: rows, stride: depth + 1 };
                let y = product(kernels, x, &packed, gap);
                for row in 0..rows {
                    let (left, left_scale) = kept(&x.numbers[row * x.stride..][..depth], form);
                    for (column, (right, right_scale)) in sides.iter().enumerate() {
                        let sum: f64 = left.iter().zip(right).map(|(a, b)| a * b).sum();
                        let expected = sum * left_scale * right_scale + f64::from(packed.bias[column]);
                        let found = f64::from(y[row * (columns + gap) + column]);
                        // A number half way between two may be rounded to either: one step of one factor.
                        let slack =
                            2e-5 + left_scale.min(*right_scale) * f64::from(u8::from(form == Form::Int8));
                        let what =
                            format!("{kernels:?}, {form:?}, {rows} rows of {depth}: ({row}, {column})");
                        assert!((found - expected).abs() <= slack, "{what}: {found}, not {expected}");
                    }
                    let behind = &y[row * (columns + gap) + columns..(row + 1) * (columns + gap)];
                    assert!(behind.iter().all(|number| number.is_nan()), "{kernels:?} wrote between rows");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_wherever_it_stands() {
    for (kernels, form) in ways() {
        let (depth, rows) = (96, 70);
        let packed = Packed::new(&numbers(2, 64 * depth), depth, form);
        let x = numbers(3, rows * depth);
        let together = product(kernels, Rows { numbers: &x, count: rows, stride: depth }, &packed, 0);
        for (row, expected) in together.chunks(64).enumerate() {
            let own = Rows { numbers: &x[row * depth..], count: 1, stride: depth };
            assert_eq!(product(kernels, own, &packed, 0), expected, "{kernels:?}, {form:?}, row {row}");
        }
    }
}

#[test]
fn products_of_8_bits_have_the_same_bits_on_every_set() {
    let (depth, rows) = (384, 37);
    let packed = Packed::new(&numbers(4, 64 * depth), depth, Form::Int8);
    let x = numbers(5, rows * depth);
    let x = Rows { numbers: &x, count: rows, stride: depth };
    let results: Vec<_> = InstructionSet::available(Precision::Int8)
        .into_iter()
        .map(|set| (set, product(Kernels::of(set, Precision::Int8).unwrap(), x, &packed, 0)))
        .collect();
    for (set, found) in &results {
        assert!(found == &results[0].1, "{set:?}");
    }
}

#[test]
fn rows_of_zeros_and_rows_that_are_no_numbers_stay_what_they_are() {
    let depth = 40;
    for (kernels, form) in ways() {
        let packed = Packed::new(&numbers(2, 32 * depth), depth, form);
        let mut x = vec![0.0; 3 * depth];
        x[depth + 3] = f32::NAN;
        x[2 * depth + 5] = f32::INFINITY;
        let y = product(kernels, Rows { numbers: &x, count: 3, stride: depth }, &packed, 0);
        assert_eq!(y[..32], packed.bias, "{kernels:?}, {form:?}");
        assert!(y[32..64].iter().all(|number| number.is_nan()), "{kernels:?}, {form:?}");
        assert!(y[64..].iter().all(|number| !number.is_finite()), "{kernels:?}, {form:?}");
    }
}

#[test]
fn rounding_to_16_bits_keeps_what_is_no_number() {
    for (number, expected) in [
        (0.0, 0),
        (1.0, 0x3f80),
        (-1.0, 0xbf80),
        // Half way between two: to the even one.
        (f32::from_bits(0x3f80_8000), 0x3f80),
        (f32::from_bits(0x3f81_8000), 0x3f82),
        (f32::from_bits(0x3f80_8001), 0x3f81),
        (f32::MAX, 0x7f80),
        (f32::INFINITY, 0x7f80),
        (f32::NAN, 0x7fc0),
        (f32::from_bits(0xffff_ffff), 0x7fc0),
    ] {
        assert_eq!(plain::bf16(number), expected, "{number}");
    }
}
