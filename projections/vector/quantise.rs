//! Vectors in 8 bits, and how far a similarity read from them can be off.
//!
//! A row x is kept as a code c and a scale s, with ε = ‖x − s·c‖ measured when it was made. A query q becomes d and
//! t, with φ = ‖q − t·d‖. Then q·x − t·s·(d·c) = q·(x − s·c) + (q − t·d)·(s·c), and by Cauchy and Schwarz its size
//! is at most ‖q‖·ε + φ·‖s·c‖ ≤ ‖q‖·ε + φ·(‖x‖ + ε). That is the whole bound, but for the rounding of `f32`.

use crate::embedding::DIMENSIONS;
use crate::embedding::store::Vector;
use crate::vector::kernels::Wide;
use crate::vector::sketch::Probe;

/// A row in 8 bits: every number within ±127.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Code(pub(crate) [i8; DIMENSIONS]);

/// A vector in 8 bits.
#[derive(Debug, Clone)]
pub(crate) struct Quantised {
    /// The code.
    pub(crate) code: Code,
    /// What one step of the code is worth.
    pub(crate) scale: f32,
    /// At least ‖x − scale·code‖.
    pub(crate) error: f32,
}

/// At least ‖x‖ of any vector in a store.
const LENGTH_MAX: f64 = 1.002;

/// At least the rounding of a similarity and of its estimate in `f32`: a dot product of 384 numbers in 16 lanes adds
/// less than 32 times in a row, so it is off by less than 32·2⁻²³·‖q‖·‖x‖ < 4e-6, the estimate by less than 1e-6.
const ROUNDING_MAX: f64 = 1e-5;

/// Numbers that are looked at side by side.
const LANES: usize = 16;

/// The 8-bit form of `vector`: the same bits on every processor.
pub(crate) fn quantise(vector: &Vector) -> Quantised {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has avx2.
        return unsafe { quantise_avx2(vector) };
    }
    quantised(vector)
}

/// [`quantised`] in these instructions. Without them rounding is a call of a function for each number.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn quantise_avx2(vector: &Vector) -> Quantised {
    quantised(vector)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "it takes on the instructions of the function it is called from")]
fn quantised(vector: &Vector) -> Quantised {
    let (chunks, _) = vector.as_chunks::<LANES>();
    let mut largest = [0.0_f32; LANES];
    for numbers in chunks {
        for (largest, x) in largest.iter_mut().zip(numbers) {
            *largest = if x.abs() > *largest { x.abs() } else { *largest };
        }
    }
    let scale = (largest.into_iter().fold(0.0, f32::max) / 127.0).max(f32::MIN_POSITIVE);
    let mut code = Code([0; DIMENSIONS]);
    let mut squared = [0.0_f64; LANES];
    for (steps, numbers) in code.0.as_chunks_mut::<LANES>().0.iter_mut().zip(chunks) {
        for ((step, x), squared) in steps.iter_mut().zip(numbers).zip(&mut squared) {
            let rounded = (x / scale).round_ties_even().clamp(-127.0, 127.0);
            *step = rounded as i32 as i8;
            let off = f64::from(*x) - f64::from(scale) * f64::from(rounded);
            *squared += off * off;
        }
    }
    Quantised { code, scale, error: above(squared.into_iter().sum::<f64>().sqrt()) }
}

/// The smallest `f32` that is surely not below `number`, which was computed in `f64`.
fn above(number: f64) -> f32 {
    ((number * (1.0 + 1e-12)) as f32).next_up()
}

/// Similarity of two vectors of length 1: their dot product in `f32`.
///
/// The order of the sums is fixed (16 lanes, then halves), so every processor gives the same bits.
pub(crate) fn similarity(a: &Vector, b: &Vector) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for (a, b) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    let mut width = 8;
    while width > 0 {
        for at in 0..width {
            lanes[at] += lanes[at + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Why a query vector cannot be compared with anything.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum QueryVectorError {
    /// It has another width.
    #[error("the query vector has {numbers} numbers, the index has vectors of {DIMENSIONS}")]
    Width {
        /// Its width.
        numbers: usize,
    },
    /// A number is NaN or infinite.
    #[error("number {at} of the query vector is {number}; all must be finite")]
    NotFinite {
        /// Which one, from 0.
        at: usize,
        /// What it is.
        number: f32,
    },
    /// All numbers are zero, or too small to have a direction.
    #[error("the query vector is zero and has no direction")]
    Zero,
}

/// A query, made ready to be compared with many rows.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    /// Its direction: length 1.
    pub(crate) vector: Vector,
    /// In 16 bits.
    pub(crate) wide: Wide,
    /// In 4 bits.
    pub(crate) probe: Probe,
    scale: f32,
    /// φ·(‖x‖ at most) plus rounding: the part of the bound that is the same for every row.
    base: f32,
    /// ‖q‖ + φ: what a row's own error is multiplied with.
    slope: f32,
}

impl Query {
    /// Brings `numbers` to length 1 and quantises them.
    pub(crate) fn new(numbers: &[f32]) -> Result<Self, QueryVectorError> {
        let Ok(mut vector) = Vector::try_from(numbers) else {
            return Err(QueryVectorError::Width { numbers: numbers.len() });
        };
        if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
            return Err(QueryVectorError::NotFinite { at, number: vector[at] });
        }
        let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if length < f64::from(f32::MIN_POSITIVE) {
            return Err(QueryVectorError::Zero);
        }
        // A vector that has length 1 already keeps its bits, so that equal texts get the same scores everywhere.
        if (length - 1.0).abs() > 1e-6 {
            for x in &mut vector {
                *x = (f64::from(*x) / length) as f32;
            }
        }
        let largest = vector.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let scale = largest / 32_767.0;
        let mut wide = Wide([0; DIMENSIONS]);
        let (mut off, mut squared) = (0.0_f64, 0.0_f64);
        for (step, &x) in wide.0.iter_mut().zip(&vector) {
            *step = (x / scale).round_ties_even().clamp(-32_767.0, 32_767.0) as i16;
            off += (f64::from(x) - f64::from(scale) * f64::from(*step)).powi(2);
            squared += f64::from(x).powi(2);
        }
        let (phi, norm) = (off.sqrt(), squared.sqrt());
        Ok(Self {
            probe: Probe::new(&vector),
            vector,
            wide,
            scale,
            base: above(phi * LENGTH_MAX + ROUNDING_MAX),
            slope: above(norm + phi),
        })
    }

    /// The similarity read from a row's code: `dot` is the product of the two codes.
    pub(crate) fn estimate(&self, dot: i32, scale: f32) -> f32 {
        dot as f32 * (self.scale * scale)
    }

    /// How far [`estimate`](Self::estimate) can be from [`similarity`] for a row with this error.
    pub(crate) fn bound(&self, error: f32) -> f32 {
        self.base + self.slope * error
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use proptest::prelude::*;

    use super::{Query, QueryVectorError, quantise, quantised, similarity};
    use crate::embedding::DIMENSIONS;
    use crate::embedding::store::Vector;
    use crate::vector::kernels::Kernel;

    fn unit(numbers: &[f32]) -> Vector {
        Query::new(numbers).unwrap().vector
    }

    fn numbers() -> impl Strategy<Value = Vec<f32>> {
        let spread = prop_oneof![Just(1.0_f32), Just(1e-3), Just(1e-20), Just(1e20)];
        let number = prop_oneof![8 => -1.0_f32..1.0, 1 => Just(0.0), 1 => -1e-6_f32..1e-6];
        (proptest::collection::vec(number, DIMENSIONS), spread)
            .prop_map(|(numbers, spread)| numbers.into_iter().map(|x| x * spread).collect::<Vec<f32>>())
            .prop_filter("has a direction", |numbers| numbers.iter().any(|x| x.abs() > 1e-21))
    }

    proptest! {
        #[test]
        fn every_processor_gives_the_same_bits(x in numbers()) {
            let x: Vector = x.try_into().unwrap();
            let (here, plain) = (quantise(&x), quantised(&x));
            prop_assert_eq!(here.code.0, plain.code.0);
            prop_assert_eq!((here.scale.to_bits(), here.error.to_bits()), (plain.scale.to_bits(), plain.error.to_bits()));
        }

        #[test]
        fn an_estimate_is_never_further_off_than_its_bound(q in numbers(), x in numbers(), peak in 0_usize..DIMENSIONS * 3) {
            let mut x = unit(&x).to_vec();
            // One large number makes the steps of all others coarse.
            if let Some(x) = x.get_mut(peak) {
                *x = 3.0;
            }
            let (query, x) = (Query::new(&q).unwrap(), unit(&x));
            let row = quantise(&x);
            let mut dot = [0];
            Kernel::Portable.dots(&query.wide, std::slice::from_ref(&row.code), &[0], &mut dot);
            let estimate = f64::from(query.estimate(dot[0], row.scale));
            let bound = f64::from(query.bound(row.error));
            let truth: f64 = query.vector.iter().zip(&x).map(|(&q, &x)| f64::from(q) * f64::from(x)).sum();
            let single = f64::from(similarity(&query.vector, &x));
            prop_assert!((truth - estimate).abs() <= bound, "{truth} {estimate} {bound}");
            prop_assert!((single - estimate).abs() <= bound, "{single} {estimate} {bound}");
            prop_assert!((single - truth).abs() < 4e-6, "{single} {truth}");
        }
    }

    #[test]
    fn a_query_without_a_direction_is_refused() {
        let check = |numbers: &[f32], then: QueryVectorError| {
            assert_eq!(Query::new(numbers).map(|query| query.vector), Err(then));
        };
        check(&[1.0; 3], QueryVectorError::Width { numbers: 3 });
        check(&[0.0; DIMENSIONS], QueryVectorError::Zero);
        let mut numbers = [1.0; DIMENSIONS];
        numbers[7] = f32::INFINITY;
        check(&numbers, QueryVectorError::NotFinite { at: 7, number: f32::INFINITY });
        numbers[7] = f32::NAN;
        assert!(matches!(Query::new(&numbers), Err(QueryVectorError::NotFinite { at: 7, .. })));
    }

    #[test]
    fn a_vector_of_length_one_keeps_its_bits() {
        let vector = unit(&std::array::from_fn::<f32, DIMENSIONS, _>(|at| (at as f32).sin()));
        assert_eq!(unit(&vector).map(f32::to_bits), vector.map(f32::to_bits));
    }
}
