//! Fewer bits against 32: how near the vectors are, and whether sentences keep their ranks.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use super::weights::testing::{SMALL, every_way, small_weights};
use super::*;
use crate::embedding::Precision;
use crate::embedding::testing::{cosine, model_dir};

const REDUCED: [Precision; 2] = [Precision::Fp16, Precision::Int8];

/// The least cosine between a vector of a precision and the same text's of 32 bits, over texts of any length.
fn nearness(precision: Precision) -> f64 {
    match precision {
        Precision::Fp32 => 0.999_999,
        Precision::Fp16 => 0.999_9,
        // The empty text, which is two frame tokens, is at 0.983.
        Precision::Int8 => 0.98,
    }
}

fn options(precision: Precision) -> ModelOptions {
    ModelOptions { precision, ..ModelOptions::default() }
}

fn pass(kernels: Kernels, weights: &Weights, texts: &[&[u32]], scratch: &mut Scratch) -> Vec<Vec<f32>> {
    forward::forward(forward::Pass { kernels, weights, helper: None }, texts, scratch).unwrap()
}

#[test]
fn every_way_gives_the_same_bits_alone_and_in_a_batch() {
    let lengths = [1, 2, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 80, 5, 13];
    let texts: Vec<Vec<u32>> = lengths
        .iter()
        .map(|len| (0..*len).map(|index| (index * index + len) % SMALL.vocabulary as u32).collect())
        .collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let full = small_weights();
    let truth = pass(Kernels::fastest(Precision::Fp32), &full, &texts, &mut Scratch::default());
    for (kernels, weights) in every_way() {
        let what = format!("{kernels:?}, {:?}", weights.numbers());
        let mut scratch = Scratch::default();
        let batch = pass(kernels, &weights, &texts, &mut scratch);
        for ((text, found), truth) in texts.iter().zip(&batch).zip(&truth) {
            // The memory of longer passes is used again and must not show.
            let alone = pass(kernels, &weights, &[text], &mut scratch);
            assert_eq!(&alone[0], found, "{what}, {} tokens", text.len());
            let near = cosine(found, truth);
            assert!(near > 0.999, "{what}, {} tokens: {near}", text.len());
        }
    }
}

/// A text of `tokens` tokens.
fn text_of(tokens: usize) -> String {
    let words = "the agent kept a note about seven rivers and old train music for later but nobody asked";
    words.split(' ').cycle().skip(tokens % 7).take(tokens - 2).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_length_is_near_what_32_bits_give_on_every_set() {
    let Some(dir) = model_dir("every_length_is_near_what_32_bits_give_on_every_set") else { return };
    let texts: Vec<String> =
        (2..=70).chain((71..=256).step_by(9)).map(text_of).chain([String::new()]).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let full = MiniLm::load(&dir, &options(Precision::Fp32)).unwrap().embed(&texts).unwrap();
    for precision in REDUCED {
        let fastest = MiniLm::load(&dir, &options(precision)).unwrap();
        let expected = fastest.embed(&texts).unwrap();
        for ((text, expected), full) in texts.iter().zip(&expected).zip(&full) {
            let near = cosine(expected, full);
            assert!(near >= nearness(precision), "{precision}: {near} for {} bytes", text.len());
            assert!((cosine(expected, expected) - 1.0).abs() < 1e-6, "a vector has length 1");
        }
        for set in InstructionSet::available(precision) {
            let model = MiniLm::load_for(&dir, &options(precision), set).unwrap();
            // Plain loops are slow: few texts for them.
            let (step, short): (usize, &[usize]) =
                if set == InstructionSet::Portable { (60, &[14]) } else { (37, &[1, 13, 14, 15, 30, 31]) };
            for index in (0..texts.len()).step_by(step).chain(short.iter().copied()) {
                let alone = model.embed(&texts[index..=index]).unwrap();
                let near = cosine(&alone[0], &expected[index]);
                assert!(near >= nearness(precision), "{precision} on {set:?}: {near} for text {index}");
                if set == fastest.instruction_set() {
                    assert_eq!(alone[0], expected[index], "{precision} on {set:?}: text {index} alone");
                }
            }
        }
    }
}

/// Pairs of sentences with how alike they are said to be, of which there are 44 times 5.
fn sentence_pairs() -> Vec<(&'static str, &'static str, f64)> {
    let text = include_str!("../golden/sentence-pairs.txt");
    let blocks: Vec<Vec<&str>> = text
        .split("\n\n")
        .map(|block| block.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>())
        .filter(|block| !block.is_empty())
        .collect();
    let mut pairs = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        assert_eq!(block.len(), 5, "{block:?}");
        pairs.extend((1..5).map(|other| (block[0], block[other], 5.0 - other as f64)));
        pairs.push((block[0], blocks[(index + 3) % blocks.len()][0], 0.0));
    }
    pairs
}

/// Spearman's coefficient of rank correlation; equal numbers share the mean of their ranks.
fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |values: &[f64]| -> Vec<f64> {
        let below = |x: f64| values.iter().filter(|value| **value < x).count() as f64;
        let equal = |x: f64| values.iter().filter(|value| value.total_cmp(&x).is_eq()).count() as f64;
        values.iter().map(|value| below(*value) + equal(*value) / 2.0).collect()
    };
    let (a, b) = (ranks(a), ranks(b));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(&a), mean(&b));
    let moment = |a: &[f64], b: &[f64], mean_a: f64, mean_b: f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum()
    };
    moment(&a, &b, mean_a, mean_b) / (moment(&a, &a, mean_a, mean_a) * moment(&b, &b, mean_b, mean_b)).sqrt()
}

#[test]
fn ranks_correlate_as_spearman_defines_it() {
    assert!((rank_correlation(&[1.0, 2.0, 3.0], &[10.0, 200.0, 3e3]) - 1.0).abs() < 1e-12);
    assert!((rank_correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
    // By hand: ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4.
    let found = rank_correlation(&[1.0, 2.0, 2.0, 3.0], &[1.0, 3.0, 2.0, 4.0]);
    assert!((found - 4.5 / 22.5_f64.sqrt()).abs() < 1e-12, "{found}");
}

/// The gate of a precision: sentences keep their ranks within half a point of 100.
#[test]
#[allow(clippy::print_stdout, reason = "its figures are what a gate is judged by")]
fn sentences_keep_their_ranks_within_half_a_point() {
    let Some(dir) = model_dir("sentences_keep_their_ranks_within_half_a_point") else { return };
    let pairs = sentence_pairs();
    assert_eq!(pairs.len(), 220);
    let said: Vec<f64> = pairs.iter().map(|pair| pair.2).collect();
    let likeness = |options: &ModelOptions, set: Option<InstructionSet>| -> Vec<f64> {
        let model = match set {
            Some(set) => MiniLm::load_for(&dir, options, set),
            None => MiniLm::load(&dir, options),
        };
        let model = model.unwrap();
        let of = |texts: Vec<&str>| model.embed(&texts).unwrap();
        let (left, right) =
            (of(pairs.iter().map(|pair| pair.0).collect()), of(pairs.iter().map(|pair| pair.1).collect()));
        left.iter().zip(&right).map(|(left, right)| cosine(left, right)).collect()
    };
    let full = likeness(&options(Precision::Fp32), None);
    let truth = rank_correlation(&full, &said);
    assert!(truth > 0.8, "{truth}");
    for precision in REDUCED {
        for set in InstructionSet::available(precision) {
            if set == InstructionSet::Portable {
                continue; // Slow, and held near the others by the test above.
            }
            let reduced = likeness(&options(precision), Some(set));
            let found = rank_correlation(&reduced, &said);
            let with_full = rank_correlation(&reduced, &full);
            println!("{precision} on {set:?}: {found:.4} of {truth:.4}, with fp32 {with_full:.5}");
            assert!(found >= truth - 0.005, "{precision} on {set:?}: {found}, not {truth}");
            assert!(with_full >= 0.995, "{precision} on {set:?}: {with_full}");
        }
    }
}

#[test]
fn a_precision_is_refused_where_nobody_computes_with_it() {
    let dir = Path::new("nowhere");
    let error = MiniLm::load_for(dir, &options(Precision::Fp32), InstructionSet::Amx).err().unwrap();
    assert_eq!(error.to_string(), "this processor does not have AMX, or fp32 is not computed with them");
    let candle = ModelOptions { engine: crate::embedding::Engine::Candle, ..options(Precision::Int8) };
    let error = crate::embedding::load(dir, &candle).err().unwrap().to_string();
    assert!(error.contains("fp32 alone, not with int8"), "{error}");
}
