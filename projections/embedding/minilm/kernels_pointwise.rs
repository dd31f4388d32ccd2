//! What is done number by number, in plain loops that each instruction set compiles for itself.
//!
//! Everything here is `inline(always)`: a function is compiled for the instructions of the one it is inlined into.

#![allow(clippy::inline_always, reason = "a body compiled apart would have the plainest instructions only")]

use super::kernels::Norm;

/// Whether the target itself, without detection, multiplies and adds in one instruction.
pub(super) const NATIVE_FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// Sums that run side by side, so that a reduction fills a register of 512 bits.
const LANES: usize = 16;

/// a · b + c, in one step where `FMA`.
///
/// `mul_add` without the instruction is a call that is a hundred times slower, so it is chosen by the caller.
#[inline(always)]
pub(super) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// See [`super::kernels::Kernels::gelu`].
#[inline(always)]
pub(super) fn gelu<const FMA: bool>(values: &mut [f32]) {
    for value in values {
        *value *= 0.5 * (1.0 + erf::<FMA>(*value * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// See [`super::kernels::Kernels::softmax`].
#[inline(always)]
pub(super) fn softmax<const FMA: bool>(values: &mut [f32], scale: f32) {
    let greatest = reduce(values, f32::NEG_INFINITY, |value| value, f32::max);
    for value in values.iter_mut() {
        *value = exp_of_negative::<FMA>((*value - greatest) * scale);
    }
    let inverse = 1.0 / sum(values, |value| value);
    for value in values {
        *value *= inverse;
    }
}

/// See [`super::kernels::Kernels::add_and_normalise`].
#[inline(always)]
pub(super) fn add_and_normalise(values: &mut [f32], residual: &[f32], norm: &Norm) {
    for (value, add) in values.iter_mut().zip(residual) {
        *value += add;
    }
    let count = values.len() as f32;
    let mean = sum(values, |value| value) / count;
    let variance = sum(values, |value| (value - mean) * (value - mean)) / count;
    let inverse = 1.0 / (variance + norm.epsilon).sqrt();
    for ((value, gain), bias) in values.iter_mut().zip(&norm.gain).zip(&norm.bias) {
        *value = (*value - mean) * inverse * gain + bias;
    }
}

#[inline(always)]
fn sum(values: &[f32], map: impl Fn(f32) -> f32) -> f32 {
    reduce(values, 0.0, map, |a, b| a + b)
}

#[inline(always)]
fn reduce(values: &[f32], start: f32, map: impl Fn(f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = join(*lane, map(*value));
        }
    }
    let mut total = start;
    for lane in lanes {
        total = join(total, lane);
    }
    for value in rest {
        total = join(total, map(*value));
    }
    total
}

/// The error function, within 2 · 10⁻⁷ of the true value: the rational approximation of Eigen and XLA on [−4, 4].
#[inline(always)]
fn erf<const FMA: bool>(x: f32) -> f32 {
    const NUMERATOR: [f32; 7] = [
        -2.726_142_4e-10,
        2.770_681_5e-8,
        -2.101_024e-6,
        -5.692_506_2e-5,
        -7.349_906_4e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const DENOMINATOR: [f32; 5] =
        [-1.456_607_15e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2];
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    x * polynomial::<FMA, 7>(&NUMERATOR, square) / polynomial::<FMA, 5>(&DENOMINATOR, square)
}

/// e to the power of `x`, which is 0 or less, within 2 · 10⁻⁷ of it: the approximation of Cephes.
#[inline(always)]
fn exp_of_negative<const FMA: bool>(x: f32) -> f32 {
    const SERIES: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 5.0e-1];
    /// ln 2, split so that whole · high is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away 1.5 · 2²³ rounds to a whole number on every processor, without a call
    // and without the checks of a cast.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = multiply_add::<FMA>(whole, -LN_2_HIGH, x);
    let rest = multiply_add::<FMA>(whole, -LN_2_LOW, rest);
    let series = polynomial::<FMA, 6>(&SERIES, rest);
    let mantissa = multiply_add::<FMA>(series * rest, rest, rest) + 1.0;
    // The low bits of `shifted` are the whole number: moved into the exponent's place they are its power of two.
    mantissa * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

/// The polynomial with these coefficients, the highest power first.
#[inline(always)]
fn polynomial<const FMA: bool, const TERMS: usize>(coefficients: &[f32; TERMS], x: f32) -> f32 {
    let mut value = coefficients[0];
    for coefficient in &coefficients[1..] {
        value = multiply_add::<FMA>(value, x, *coefficient);
    }
    value
}
