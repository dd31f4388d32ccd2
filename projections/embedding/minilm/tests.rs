//! Kernels against plain arithmetic, the forward pass against itself, and the model against `PyTorch`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use super::kernels::{Norm, PANEL_COLUMNS, Panels, Rows, RowsMut};
use super::weights::testing::{SMALL, small_weights};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::*;
use crate::embedding::standby::Work;
use crate::embedding::testing::{cosine, model_dir, reference_texts};
use crate::embedding::{CacheOptions, EmbeddingService, Precision, ServiceOptions};

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

fn all_kernels() -> Vec<Kernels> {
    let sets = InstructionSet::available(Precision::Fp32).into_iter();
    sets.map(|set| Kernels::of(set, Precision::Fp32).unwrap()).collect()
}

/// A pass on this thread alone.
fn run(kernels: Kernels, weights: &Weights, texts: &[&[u32]], scratch: &mut Scratch) -> Vec<Vec<f32>> {
    forward::forward(forward::Pass { kernels, weights, helper: None }, texts, scratch).unwrap()
}

#[track_caller]
fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = (f64::from(*found) - expected).abs();
        assert!(off <= tolerance, "{what}: number {index} is {found}, not {expected}");
    }
}

/// x · panels + bias, in double precision.
fn plain_product(x: &Rows<'_>, panels: &Panels<'_>) -> Vec<f64> {
    let depth = panels.depth;
    let columns = panels.numbers.len() / depth;
    let mut product = Vec::new();
    for row in 0..x.count {
        for column in 0..columns {
            let panel = &panels.numbers[column / PANEL_COLUMNS * PANEL_COLUMNS * depth..];
            let sum: f64 = (0..depth)
                .map(|step| {
                    let weight = panel[step * PANEL_COLUMNS + column % PANEL_COLUMNS];
                    f64::from(x.numbers[row * x.stride + step]) * f64::from(weight)
                })
                .sum();
            product.push(sum + panels.bias.map_or(0.0, |bias| f64::from(bias[column])));
        }
    }
    product
}

#[test]
fn every_kernel_multiplies_as_plain_arithmetic_does() {
    for kernels in all_kernels() {
        for rows in (1..=30).chain([111, 112, 113]) {
            for (depth, panels, gap, with_bias) in
                [(1, 1, 0, true), (2, 3, 5, false), (7, 2, 1, true), (33, 1, 3, false), (64, 3, 0, true)]
            {
                let columns = panels * PANEL_COLUMNS;
                let (x_stride, y_stride) = (depth + gap, columns + gap);
                // Exactly as long as the last row needs: a read beyond it would fail here.
                let x = numbers(1, (rows - 1) * x_stride + depth);
                let packed = numbers(2, depth * columns);
                let bias = numbers(3, columns);
                let mut y = vec![f32::NAN; (rows - 1) * y_stride + columns];
                let x = Rows { numbers: &x, count: rows, stride: x_stride };
                let packed = Panels { numbers: &packed, depth, bias: with_bias.then_some(&bias) };
                kernels.matmul(x, packed, &mut RowsMut { numbers: &mut y, stride: y_stride });
                let what = format!("{:?}, {rows} rows of {depth}, {panels} panels", kernels.set());
                let expected = plain_product(&x, &packed);
                for (row, expected) in expected.chunks(columns).enumerate() {
                    assert_close(&y[row * y_stride..][..columns], expected, 1e-4, &what);
                }
                let in_gaps =
                    (0..rows - 1).flat_map(|row| &y[row * y_stride + columns..(row + 1) * y_stride]);
                assert!(in_gaps.into_iter().all(|number| number.is_nan()), "{what}: wrote between rows");
            }
        }
    }
}

#[test]
fn a_product_of_nothing_writes_nothing() {
    for kernels in all_kernels() {
        let x = Rows { numbers: &[], count: 0, stride: 3 };
        kernels.matmul(
            x,
            Panels { numbers: &[0.0; 96], depth: 3, bias: None },
            &mut RowsMut { numbers: &mut [], stride: 32 },
        );
    }
}

/// The error function by its series, in double precision; exact enough up to 4.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for step in 1..200_i32 {
        term *= -x * x / f64::from(step);
        sum += term / f64::from(2 * step + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn every_kernel_bends_as_the_error_function_does() {
    let inputs: Vec<f32> = (-560..=560).map(|step| step as f32 / 100.0).collect();
    let expected: Vec<f64> = inputs
        .iter()
        .map(|x| 0.5 * f64::from(*x) * (1.0 + erf(f64::from(*x) * std::f64::consts::FRAC_1_SQRT_2)))
        .collect();
    for kernels in all_kernels() {
        for len in [1, 7, 15, 16, 17, inputs.len()] {
            let mut values = inputs[..len].to_vec();
            kernels.gelu(&mut values);
            assert_close(&values, &expected[..len], 2e-6, &format!("{:?} of {len}", kernels.set()));
        }
        let mut far = [-1e30, -40.0, 40.0, 1e30];
        kernels.gelu(&mut far);
        assert_eq!(far[2..], [40.0, 1e30]);
        assert!(far[1].abs() < 1e-5, "{far:?}");
    }
}

#[test]
fn every_kernel_turns_scores_into_shares() {
    for kernels in all_kernels() {
        for len in [1, 2, 15, 16, 17, 31, 33, 255] {
            let mut values: Vec<f32> = numbers(len as u64, len).iter().map(|number| number * 30.0).collect();
            let weights: Vec<f64> = values.iter().map(|value| (f64::from(*value) * 0.5).exp()).collect();
            let total: f64 = weights.iter().sum();
            let expected: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
            kernels.softmax(&mut values, 0.5);
            assert_close(&values, &expected, 1e-6, &format!("{:?} of {len}", kernels.set()));
        }
        let mut far = [1e4, -1e4, 1e4];
        kernels.softmax(&mut far, 1.0);
        assert_close(&far, &[0.5, 0.0, 0.5], 1e-30, "far apart");
    }
}

#[test]
fn every_kernel_adds_and_normalises() {
    for kernels in all_kernels() {
        for len in [1, 3, 16, 31, 64, 385] {
            let (values, residual) = (numbers(5, len), numbers(6, len));
            let norm = Norm { gain: numbers(7, len), bias: numbers(8, len), epsilon: 1e-12 };
            let sums: Vec<f64> =
                values.iter().zip(&residual).map(|(value, add)| f64::from(value + add)).collect();
            let mean = sums.iter().sum::<f64>() / len as f64;
            let variance = sums.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / len as f64;
            let expected: Vec<f64> = (0..len)
                .map(|index| {
                    (sums[index] - mean) / (variance + 1e-12).sqrt() * f64::from(norm.gain[index])
                        + f64::from(norm.bias[index])
                })
                .collect();
            let mut found = values;
            kernels.add_and_normalise(&mut found, &residual, &norm);
            assert_close(&found, &expected, 2e-5, &format!("{:?} of {len}", kernels.set()));
        }
    }
}

#[test]
fn every_kernel_gives_the_same_vectors_alone_and_in_a_batch() {
    let weights = small_weights();
    let lengths = [1, 2, 31, 32, 33, 63, 80, 5, 13];
    let texts: Vec<Vec<u32>> = lengths
        .iter()
        .map(|len| (0..*len).map(|index| (index * index + len) % (SMALL.vocabulary as u32 + 3)).collect())
        .collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let portable = Kernels::of(InstructionSet::Portable, Precision::Fp32).unwrap();
    let truth = run(portable, &weights, &texts, &mut Scratch::default());
    for kernels in all_kernels() {
        let mut scratch = Scratch::default();
        for (text, truth) in texts.iter().zip(&truth) {
            let alone = run(kernels, &weights, &[text], &mut scratch);
            let truth: Vec<f64> = truth.iter().map(|number| f64::from(*number)).collect();
            assert_close(&alone[0], &truth, 1e-5, &format!("{:?}, {} tokens", kernels.set(), text.len()));
        }
        // The memory of the passes before is used again and must not show.
        let batch = run(kernels, &weights, &texts, &mut scratch);
        for (found, truth) in batch.iter().zip(&truth) {
            assert!(cosine(found, truth) > 0.999_999, "{:?}", kernels.set());
            assert!((cosine(found, found) - 1.0).abs() < 1e-6, "a vector has length 1");
        }
    }
    assert!(run(portable, &weights, &[], &mut Scratch::default()).is_empty());
}

#[test]
fn every_kernel_agrees_with_pytorch() {
    let Some(dir) = model_dir("every_kernel_agrees_with_pytorch") else { return };
    let reference = reference_texts();
    let texts: Vec<&str> = reference.iter().map(|row| row.text.as_str()).collect();
    for set in InstructionSet::available(Precision::Fp32) {
        let options = ModelOptions { threads: 2, batch_size: 7, ..ModelOptions::default() };
        let model = MiniLm::load_for(&dir, &options, set).unwrap();
        let batch = model.embed(&texts).unwrap();
        for (row, found) in reference.iter().zip(&batch) {
            let cosine = cosine(found, &row.vector);
            assert!(cosine >= 0.999_99, "{set:?}: {cosine} for {:?}", row.text);
        }
        let alone = model.embed(&texts[4..5]).unwrap();
        assert!(cosine(&alone[0], &batch[4]) > 0.999_999);
    }
}

#[test]
fn queries_of_many_threads_get_the_bits_they_get_alone() {
    let Some(dir) = model_dir("queries_of_many_threads_get_the_bits_they_get_alone") else { return };
    let texts: Vec<String> =
        ["", "one", "a plot in a terminal", "naïve café", &"forty words or so ".repeat(10)]
            .iter()
            .map(|text| (*text).to_owned())
            .chain([11, 17, 18, 20, 27, 28, 37, 60, 300].map(|words| "agent ".repeat(words)))
            .collect();
    for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
        get_the_bits_they_get_alone(&dir, &texts, precision);
    }
}

fn get_the_bits_they_get_alone(dir: &Path, texts: &[String], precision: Precision) {
    let options = ModelOptions { precision, ..ModelOptions::default() };
    let alone = MiniLm::load(dir, &options).unwrap();
    let expected: Vec<_> = texts.iter().map(|text| alone.embed(&[text]).unwrap()).collect();
    let together = ModelOptions { helper: true, text_threads: 3, ..options };
    let helped = Arc::new(MiniLm::load(dir, &together).unwrap());
    let options = ServiceOptions {
        cache: CacheOptions { entries_max: 0, ..CacheOptions::default() },
        threads: 2,
        ..ServiceOptions::new(Arc::new(|| Duration::ZERO))
    };
    let service = EmbeddingService::start(Arc::clone(&helped) as Arc<dyn Embedder>, options).unwrap();
    for (text, expected) in texts.iter().zip(&expected) {
        for _ in 0..5 {
            assert_eq!(&helped.embed(&[text]).unwrap(), expected, "{precision}: {text:?}");
        }
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (service, expected) = (&service, &expected);
            scope.spawn(move || {
                for index in (0..texts.len()).cycle().skip(thread).take(3 * texts.len()) {
                    let found = service.embed_query(&texts[index]).unwrap();
                    // Several may share a pass, whose tiles then have other rows; the sums are the same.
                    assert!(cosine(&found, &expected[index][0]) > 0.999_999, "{:?}", texts[index]);
                }
            });
        }
    });
}

/// Work that keeps a thread until it is told to end.
#[derive(Default)]
struct Busy {
    has_begun: AtomicBool,
    may_end: AtomicBool,
}

impl Work for Busy {
    fn work(&self) {
        self.has_begun.store(true, Ordering::SeqCst);
        while !self.may_end.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_text_whose_other_threads_do_not_come_is_embedded_without_them() {
    let Some(dir) = model_dir("a_text_whose_other_threads_do_not_come_is_embedded_without_them") else {
        return;
    };
    let model = MiniLm::load(&dir, &ModelOptions { text_threads: 2, ..ModelOptions::default() }).unwrap();
    let text = "agent ".repeat(60);
    let expected = model.embed(&[&text]).unwrap();
    let busy = Arc::new(Busy::default());
    let called = model.others.take().unwrap().call(&busy);
    while !busy.has_begun.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    drop(called);
    for _ in 0..3 {
        assert_eq!(model.embed(&[&text]).unwrap(), expected);
    }
    busy.may_end.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(model.embed(&[&text]).unwrap(), expected);
    }
}

#[test]
fn how_the_weights_are_held_does_not_change_the_vectors() {
    let Some(dir) = model_dir("how_the_weights_are_held_does_not_change_the_vectors") else { return };
    let mapped = MiniLm::load(&dir, &ModelOptions::default()).unwrap();
    let read = ModelOptions {
        memory_map: false,
        huge_pages: false,
        length_sorted: false,
        ..ModelOptions::default()
    };
    let read = MiniLm::load(&dir, &read).unwrap();
    let texts = ["one", "a longer text than the others by far", "two words"];
    assert_eq!(mapped.embed(&texts).unwrap(), read.embed(&texts).unwrap());
}

#[test]
fn texts_of_like_length_share_a_pass_where_that_is_asked_for() {
    let Some(dir) = model_dir("texts_of_like_length_share_a_pass_where_that_is_asked_for") else { return };
    let ids: Vec<Vec<u32>> = [9, 2, 8, 3].into_iter().map(|len| vec![7; len]).collect();
    for (length_sorted, batch_size, then) in [
        (true, 2, vec![vec![1, 3], vec![2, 0]]),
        (false, 2, vec![vec![0, 1], vec![2, 3]]),
        (false, 3, vec![vec![0, 1, 2], vec![3]]),
    ] {
        let options = ModelOptions { batch_size, length_sorted, ..ModelOptions::default() };
        let model = MiniLm::load(&dir, &options).unwrap();
        let passes: Vec<Vec<usize>> = model.passes(&ids).into_iter().map(|pass| pass.texts).collect();
        assert_eq!(passes, then, "{length_sorted} {batch_size}");
    }
}

#[test]
fn a_text_is_cut_at_the_tokens_that_were_asked_for() {
    let Some(dir) = model_dir("a_text_is_cut_at_the_tokens_that_were_asked_for") else { return };
    let short = MiniLm::load(&dir, &ModelOptions { max_tokens: 5, ..ModelOptions::default() }).unwrap();
    let full = MiniLm::load(&dir, &ModelOptions::default()).unwrap();
    assert_eq!(short.embed(&["one two three four five"]).unwrap(), full.embed(&["one two three"]).unwrap());
    // Beyond what is tokenised at once, the cut is where it was.
    let start = "word ".repeat(254);
    let long = format!("{start}{}", "and more ".repeat(20_000));
    assert_eq!(full.embed(&[long.as_str()]).unwrap(), full.embed(&[start.trim_end()]).unwrap());
    let endless = "x".repeat(50_000);
    assert_eq!(full.embed(&[endless.as_str()]).unwrap(), full.embed(&["x".repeat(101).as_str()]).unwrap());
}

#[test]
fn chunks_cover_every_word_and_none_is_too_long() {
    let Some(dir) = model_dir("chunks_cover_every_word_and_none_is_too_long") else { return };
    let model = MiniLm::load(&dir, &ModelOptions { max_tokens: 34, ..ModelOptions::default() }).unwrap();
    let sentence =
        "Agents remember what they were told, naïve café résumé included; https://example.org/a/b?c=d ";
    let texts = [
        "short".to_owned(),
        "  padded  ".to_owned(),
        sentence.repeat(3),
        sentence.repeat(3_000),
        "no-white-space,".repeat(3_000),
        "中文句子测试".repeat(2_000),
        "e\u{301}".repeat(9_000),
        "\n\t ".repeat(5_000),
        "🦀".repeat(5_000),
        format!("{} end", "x".repeat(40_000)),
    ];
    for text in &texts {
        let chunks = model.chunk(text);
        let what: String = text.chars().take(20).collect();
        assert!(!chunks.is_empty(), "{what}");
        let mut end = 0;
        let mut counted = 0;
        for chunk in &chunks {
            let between = &text[end..chunk.start];
            assert!(between.trim().is_empty(), "{what}: {between:?} is in no chunk");
            let count = model.count_tokens(&text[chunk.clone()]);
            assert!(count <= 34, "{what}: {count} tokens in {chunk:?}");
            counted += count - tokenize::FRAME_TOKENS;
            end = chunk.end;
        }
        assert!(text[end..].trim().is_empty(), "{what}: the end is in no chunk");
        assert_eq!(counted + tokenize::FRAME_TOKENS, model.count_tokens(text), "{what}");
    }
    let english = sentence.repeat(3);
    for chunk in model.chunk(&english) {
        assert!(!english[chunk.end..].starts_with(|next: char| next.is_alphanumeric()), "cut inside a word");
    }
    assert!(model.chunk("").is_empty());
    assert_eq!(model.count_tokens(""), 2);
    assert_eq!(model.count_tokens("hello world"), 4);
}

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    let rows = [
        (ModelOptions { max_tokens: 2, ..ModelOptions::default() }, "max_tokens is 2; it must be 3 to 512"),
        (
            ModelOptions { max_tokens: 513, ..ModelOptions::default() },
            "max_tokens is 513; it must be 3 to 512",
        ),
        (ModelOptions { threads: 0, ..ModelOptions::default() }, "threads is 0; it must be at least 1"),
        (ModelOptions { batch_size: 0, ..ModelOptions::default() }, "batch_size is 0; it must be at least 1"),
    ];
    for (options, message) in rows {
        let error = MiniLm::load(Path::new("nowhere"), &options).err().unwrap();
        assert_eq!(error.to_string(), message);
    }
}
