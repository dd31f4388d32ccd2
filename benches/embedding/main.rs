//! How fast texts become vectors: load, one short text, the same with the helper, batches of 32, fewer bits, and pairs with
//! candle and with onnxruntime.
//!
//! `CAXTON_MODEL_DIR=… PEER_PYTHON=venv/bin/python cargo bench --bench embedding`. Without `PEER_PYTHON` onnxruntime
//! is left out; `benches/peers/onnxruntime_minilm.py` says what that Python needs. `TORCH_PYTHON` names one that has `PyTorch`, which
//! then computes in bfloat16 beside ours (`benches/peers/torch_minilm.py`). One thread each, but where the helper
//! or two threads are named. `-- reduced` measures fewer bits alone, `-- peak` what part of a bare product's speed a pass has.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "its figures are for people")]

mod peak;
mod peer;

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use caxton_projections::embedding::model_files::{self, Finding};
use caxton_projections::embedding::{
    Embedder, InstructionSet, MiniLm, ModelOptions, Precision, ReferenceMiniLm,
};
use peer::{ONNXRUNTIME, Peer, Program, TORCH};

const PAIRS: usize = 31;
const BATCH: usize = 32;
/// Rest before each run beside onnxruntime: its threads go on looking for work behind a run, on the cores that are measured.
const REST: Duration = Duration::from_millis(100);
/// 12 tokens with the frame.
const SHORT: &str = "draw a small plot from a terminal with python now";

fn main() {
    let candidates =
        model_files::candidates(&caxton::model::places(None, None), &model_files::ALL_MINILM_L6_V2);
    let Finding::Found(found) = model_files::find(&candidates) else {
        println!("no model; run `caxton model pull` or set CAXTON_MODEL_DIR");
        return;
    };
    let python = std::env::var_os("PEER_PYTHON").map(PathBuf::from);
    if python.is_none() {
        println!("onnxruntime is left out: set PEER_PYTHON to a Python that has it");
    }
    if std::env::args().any(|argument| argument == "reduced") {
        return reduced(&found.dir, python.as_deref());
    }
    if std::env::args().any(|argument| argument == "peak") {
        return peak::measure(&found.dir, python.as_deref());
    }
    let model = load(&found.dir);
    assert_eq!(model.count_tokens(SHORT), 12, "the short text");
    single(&model, "one text of 12 tokens", SHORT);
    single(&model, "one text of 60 tokens", &text_of(&model, 60, 0));
    single(&model, "one text of 256 tokens", &text_of(&model, 256, 0));
    let helped =
        MiniLm::load(&found.dir, &ModelOptions { helper: true, text_threads: 2, ..ModelOptions::default() })
            .unwrap();
    for tokens in [8, 12, 20, 60, 112, 128, 256] {
        let text = text_of(&model, tokens, 0);
        let ratios = pairs(201, || time(&helped, &[&text]), || time(&model, &[&text]));
        report(&format!("one text of {tokens} tokens on two threads"), "without", &ratios);
    }
    for set in InstructionSet::available(Precision::Fp32) {
        let other = MiniLm::load_for(&found.dir, &ModelOptions::default(), set).unwrap();
        single(&other, &format!("  12 tokens on {}", set.name()), SHORT);
    }
    let reference = ReferenceMiniLm::load(&found.dir, &ModelOptions::default()).unwrap();
    for (name, texts) in &batches(&model) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let candle = pairs(9, || time(&model, &texts), || time(&reference, &texts));
        report(&format!("batch of {BATCH}, {name}"), "candle", &candle);
    }
    if let Some(python) = &python {
        for threads in [1, 2] {
            let ours = ModelOptions {
                threads,
                helper: threads > 1,
                text_threads: threads,
                ..ModelOptions::default()
            };
            let ours = MiniLm::load(&found.dir, &ours).unwrap();
            let mut peer = Peer::start((python, ONNXRUNTIME), &found.dir, "fp32", threads);
            against(&mut peer, &ours, &format!("fp32, {threads} threads"));
        }
    }
    reduced(&found.dir, python.as_deref());
    peak::measure(&found.dir, python.as_deref());
}

/// Fewer bits: on each set of instructions against 32 bits, and the fastest against onnxruntime's int8.
fn reduced(dir: &Path, python: Option<&Path>) {
    let full = MiniLm::load(dir, &ModelOptions::default()).unwrap();
    for precision in [Precision::Fp16, Precision::Int8] {
        for set in
            InstructionSet::available(precision).into_iter().filter(|set| *set != InstructionSet::Portable)
        {
            let options = ModelOptions { precision, ..ModelOptions::default() };
            let model = MiniLm::load_for(dir, &options, set).unwrap();
            let name = format!("{precision} on {}", set.name());
            for tokens in [12, 60, 256] {
                let text = text_of(&full, tokens, 0);
                let ratios = pairs(PAIRS, || time(&model, &[&text]), || time(&full, &[&text]));
                report(&format!("{name}, one text of {tokens} tokens"), "fp32", &ratios);
            }
            for (batch, texts) in &batches(&full) {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let ratios = pairs(9, || time(&model, &texts), || time(&full, &texts));
                report(&format!("{name}, batch of {BATCH}, {batch}"), "fp32", &ratios);
            }
        }
    }
    let both = &[Precision::Fp16, Precision::Int8][..];
    if let Some(python) = python {
        reduced_against((python, ONNXRUNTIME), "int8", dir, both);
    }
    if let Some(python) = std::env::var_os("TORCH_PYTHON") {
        reduced_against((Path::new(&python), TORCH), "bf16", dir, both);
    }
}

/// Each of our precisions beside a peer with fewer bits, on one thread each and on two.
fn reduced_against(program: Program<'_>, bits: &str, dir: &Path, precisions: &[Precision]) {
    for threads in [1, 2] {
        let mut peer = Peer::start(program, dir, bits, threads);
        for precision in precisions.iter().copied() {
            let options = ModelOptions {
                precision,
                threads,
                helper: threads > 1,
                text_threads: threads,
                ..ModelOptions::default()
            };
            let model = MiniLm::load(dir, &options).unwrap();
            against(&mut peer, &model, &format!("{precision}, {threads} threads"));
        }
    }
}

/// One text of each length, and both batches.
fn against(peer: &mut Peer, model: &MiniLm, name: &str) {
    let other = peer.name.clone();
    for tokens in [12, 60, 256] {
        let text = text_of(model, tokens, 0);
        report(&format!("{name}, one text of {tokens} tokens"), &other, &peer.pairs(model, &[&text]));
    }
    for (batch, texts) in &batches(model) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        report(&format!("{name}, batch of {BATCH}, {batch}"), &other, &peer.pairs(model, &texts));
    }
}

fn batches(model: &MiniLm) -> [(&'static str, Vec<String>); 2] {
    [("short, 8 to 20 tokens", batch(model, 8, 20)), ("medium, 40 to 80 tokens", batch(model, 40, 80))]
}

/// Loads the model a few times and says how long that took and what memory it holds.
fn load(dir: &Path) -> MiniLm {
    let mut times = Vec::new();
    let before = memory_kb("RssAnon");
    let mut model = None;
    for _ in 0..5 {
        drop(model.take());
        let start = Instant::now();
        model = Some(MiniLm::load(dir, &ModelOptions::default()).unwrap());
        times.push(start.elapsed());
    }
    let (private, mapped) = (memory_kb("RssAnon") - before, memory_kb("RssFile"));
    times.sort();
    let model = model.unwrap();
    println!("load: {:.1?} (best of 5), {:.1?} (worst)", times[0], times[4]);
    println!(
        "memory: {} MB private, {} MB of files mapped; {}",
        private / 1_024,
        mapped / 1_024,
        model.instruction_set().name()
    );
    model
}

fn memory_kb(field: &str) -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A text of exactly `tokens` tokens; `seed` shifts its words.
fn text_of(model: &MiniLm, tokens: usize, seed: usize) -> String {
    const WORDS: [&str; 12] = [
        "agent", "memory", "search", "graph", "event", "log", "city", "music", "river", "paper", "train",
        "light",
    ];
    let words: Vec<&str> =
        (0..tokens - 2).map(|index| WORDS[(index * 7 + seed * 5 + index / 12) % 12]).collect();
    let text = words.join(" ");
    assert_eq!(model.count_tokens(&text), tokens);
    text
}

/// [`BATCH`] texts of `from` to `to` tokens, spread evenly, shortest first.
fn batch(model: &MiniLm, from: usize, to: usize) -> Vec<String> {
    (0..BATCH).map(|index| text_of(model, from + (to - from) * index / (BATCH - 1), index)).collect()
}

fn single(model: &dyn Embedder, name: &str, text: &str) {
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < 200 || (times.len() < 2_000 && start.elapsed() < Duration::from_secs(5)) {
        times.push(time(model, &[text]));
    }
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{name}: p50 {p50:.2?}, p99 {p99:.2?} of {} runs", times.len());
}

fn time(model: &dyn Embedder, texts: &[&str]) -> Duration {
    let start = Instant::now();
    black_box(model.embed(black_box(texts)).unwrap());
    start.elapsed()
}

/// Seconds of ours and of the other's, one after the other, the order changing each time.
fn pairs(
    count: usize,
    mut ours: impl FnMut() -> Duration,
    mut theirs: impl FnMut() -> Duration,
) -> Vec<(f64, f64)> {
    ours();
    theirs();
    (0..count)
        .map(|index| {
            if index % 2 == 0 {
                let first = ours();
                (first.as_secs_f64(), theirs().as_secs_f64())
            } else {
                let first = theirs();
                (ours().as_secs_f64(), first.as_secs_f64())
            }
        })
        .collect()
}

/// Prints medians, and the geometric mean of the ratios with its 90 % interval.
fn report(name: &str, peer: &str, pairs: &[(f64, f64)]) {
    let median = |pick: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = pairs.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2] * 1e3
    };
    let logs: Vec<f64> = pairs.iter().map(|(ours, theirs)| (theirs / ours).ln()).collect();
    let count = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    // Student's t at 95 % for 8 degrees of freedom is 1.86, for 30 it is 1.70.
    let half = if pairs.len() < 20 { 1.86 } else { 1.70 } * (variance / count).sqrt();
    println!(
        "{name}: {:.2} ms, {peer} {:.2} ms; {:.2} times as fast [{:.2}, {:.2}] in {} pairs",
        median(|pair| pair.0),
        median(|pair| pair.1),
        mean.exp(),
        (mean - half).exp(),
        (mean + half).exp(),
        pairs.len(),
    );
}
