//! How long searching by similarity takes, how much it finds, and how soon it is ready after a start.
//!
//! `cargo bench --bench search` asks a memory of 1,000 and of 10,000 entities by criterion, with its flags.
//!
//! `cargo bench --bench search -- ROWS…` prints a table for each number of rows, as in 10000 100000. The
//! vectors are unit vectors around a thousand centres, made from hashes, so every run measures the same. Scopes
//! get an HNSW index from `--index-from ROWS` on, and searches use it where it is cheaper. With `--keep DIR` the data
//! stays in DIR (and `--reuse` skips what is there already): the `.vecs` file there is plain `f32`, 384 a row, for
//! other programs to build their index over.
//!
//! With `--model DIR --texts FILE` the vectors are those of the model in DIR: one row for each line of FILE, but the
//! last 300, which are the questions. `apt-cache dumpavail | sed -n 's/^Description\(-en\)\?: //p' | sort -Ru` makes such a
//! file of real sentences.

#![allow(clippy::print_stdout, reason = "a bench talks to a person")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench stops at the first surprise")]

#[path = "search/baselines.rs"]
mod baselines;
mod harness;

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::memory::Validity;
use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};
use caxton_projections::Projection;
use caxton_projections::embedding::{
    DIMENSIONS, EmbedError, Embedder, MiniLm, ModelIdentity, ModelOptions, Precision, VectorStore,
};
use caxton_projections::vector::{VectorOptions, VectorQuery, VectorReader, Vectors};

/// Flags of the tables.
const FLAGS: [&str; 6] = ["--keep", "--model", "--texts", "--reuse", "--index-from", "--threads"];
const CENTRES: u64 = 1_000;
const QUESTIONS: usize = 300;
const LIMIT: usize = 10;

/// A model that hashes.
struct Hashing(ModelIdentity);

fn noise(seed: &str) -> Vec<f32> {
    let mut bytes = vec![0; DIMENSIONS * 4];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes.chunks_exact(4).map(|four| four.iter().map(|&byte| f32::from(byte) - 127.5).sum()).collect()
}

/// A unit vector that has a cosine of about 0.6 with its centre, as sentences on one subject have.
fn vector_of(text: &str) -> Vec<f32> {
    let hash = blake3::hash(text.as_bytes());
    let centre = u64::from_le_bytes(std::array::from_fn(|at| hash.as_bytes()[at])) % CENTRES;
    let mut vector: Vec<f32> =
        noise(&format!("centre {centre}")).iter().zip(noise(text)).map(|(a, b)| 0.75 * a + b).collect();
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    for x in &mut vector {
        *x = (f64::from(*x) / length) as f32;
    }
    vector
}

impl Embedder for Hashing {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| vector_of(text)).collect())
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        std::iter::once(0..text.len()).collect()
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len()
    }
}

/// What is measured: texts, where they come from, and what makes vectors of them.
struct House {
    dir: PathBuf,
    embedder: Arc<dyn Embedder>,
    /// Real texts, a row each; none: made up.
    texts: Vec<String>,
    questions: Vec<String>,
    /// Rows from which on there is an HNSW index, where not the default.
    index_from: Option<u32>,
    /// Threads of a scan.
    threads: usize,
}

/// Entities of one observation: half, a tenth and a hundredth of them of a type.
fn log_of(rows: u64, texts: &[String]) -> Vec<Record> {
    let event = |number: u64| {
        let (id, entity) = (MemoryId(number + 1), MemoryId(number / 2 * 2 + 1));
        if number % 2 == 1 {
            let content = texts.get(number as usize).cloned().unwrap_or_else(|| {
                format!("an observation of some forty tokens, as they are written about thing {number}")
            });
            return MemoryEvent::ObservationAdded { id, entity, content, validity: Validity::default() };
        }
        let entity_type = match number / 2 % 100 {
            0 => "1 %",
            1..=10 => "10 %",
            11..=60 => "50 %",
            _ => "the rest",
        };
        MemoryEvent::EntityCreated {
            id,
            scope: Scope::Global,
            name: texts.get(number as usize).cloned().unwrap_or_else(|| format!("thing {number}")),
            entity_type: entity_type.into(),
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
        }
    };
    let record = |number: u64| Record {
        seq: Seq(number + 1),
        recorded_at: Timestamp::EPOCH,
        stream: "global".into(),
        actor: "bench".into(),
        correlation: None,
        causation: None,
        event: Event::Memory(event(number)),
    };
    (0..rows).map(record).collect()
}

fn open(house: &House) -> Vectors {
    let store = VectorStore::open(&house.dir.join("store"), house.embedder.identity()).unwrap();
    let dir = house.dir.join("vectors");
    let options = VectorOptions::default();
    let index_from = house.index_from.unwrap_or(options.index_from);
    let options = VectorOptions { index_from, scan_threads: house.threads, ..options };
    Vectors::open(&dir, options, store, Arc::clone(&house.embedder)).unwrap()
}

fn say(what: &str, took: Duration, used: Duration) {
    println!(
        "  {what:<56} {:>10.1} ms, {:.1} ms of processor time",
        took.as_secs_f64() * 1e3,
        used.as_secs_f64() * 1e3
    );
}

/// Processor time of all threads so far: what remains comparable on a machine that does other things too.
fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Behind the name in brackets: the 12th and 13th field are user and system time in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (start, before) = (Instant::now(), used());
    let result = work();
    say(what, start.elapsed(), used().saturating_sub(before));
    result
}

/// Median and 99th percentile of the questions, and the share of the true ten they found.
fn ask(reader: &VectorReader, questions: &[Vec<f32>], entity_type: Option<&str>, exact: bool) {
    let entity_types: Vec<String> = entity_type.iter().map(|&name| name.to_owned()).collect();
    let search = |vector: &[f32], exact: bool| {
        let (scopes, valid_at, min_similarity) = (&[Scope::Global], None, None);
        let query = VectorQuery {
            vector,
            scopes,
            entity_types: &entity_types,
            valid_at,
            as_of: None,
            min_similarity,
            limit: LIMIT,
            exact,
        };
        let start = Instant::now();
        let answer = reader.search(&query).unwrap();
        (start.elapsed(), answer)
    };
    let (mut times, mut found, mut wanted, mut scanned) = (Vec::new(), 0, 0, 0);
    for vector in questions {
        let (took, answer) = search(vector, exact);
        times.push(took);
        scanned += usize::from(answer.exact);
        let rows: HashSet<u64> = answer.hits.iter().map(|hit| hit.row.0).collect();
        let truth = search(vector, true).1;
        wanted += truth.hits.len();
        found += truth.hits.iter().filter(|hit| rows.contains(&hit.row.0)).count();
    }
    times.sort_unstable();
    println!(
        "  {:<9} {:<10} p50 {:>8.3} ms  p99 {:>8.3} ms  recall@{LIMIT} {:.4}  scanned {scanned}/{QUESTIONS}",
        if exact { "exact" } else { "by cost" },
        entity_type.unwrap_or("all"),
        times[QUESTIONS / 2].as_secs_f64() * 1e3,
        times[QUESTIONS * 99 / 100].as_secs_f64() * 1e3,
        found as f64 / wanted as f64,
    );
}

fn measure(rows: u64, house: &House, reuse: bool) {
    if !reuse {
        fold(rows, house);
    }
    let vectors = timed("open what was saved, until exact search", || open(house));
    assert!(vectors.opened().refused.is_none(), "{:?}", vectors.opened());
    timed("index read after that", || vectors.finish_indexes());
    let reader = vectors.reader();
    let questions: Vec<&str> = house.questions.iter().map(String::as_str).collect();
    let questions = house.embedder.embed(&questions).unwrap();
    for entity_type in [None, Some("50 %"), Some("10 %"), Some("1 %")] {
        for exact in [true, false] {
            ask(&reader, &questions, entity_type, exact);
        }
    }
    let stats = reader.stats();
    println!("  {} MiB in memory for {} rows", stats.scopes[0].bytes >> 20, stats.rows);
}

/// Leaves the saved state of `rows` rows on disk.
fn fold(rows: u64, house: &House) {
    let log = log_of(rows, &house.texts);
    let mut vectors = open(house);
    println!("{rows} rows, {}", vectors.reader().stats().kernel);
    let apply = |vectors: &mut Vectors| {
        log.chunks(512).for_each(|records| vectors.apply(records).unwrap());
    };
    timed("fold, the model run for every text", || apply(&mut vectors));
    vectors.reset().unwrap();
    drop(vectors);
    let mut vectors = open(house);
    timed("fold again, every vector in the store", || apply(&mut vectors));
    timed("index ready after that", || vectors.finish_indexes());
    timed("save", || vectors.save().unwrap());
}

/// The hashing model, or the one in `--model` with the texts in `--texts`.
fn house(model: Option<&Path>, texts: Option<&Path>) -> House {
    let Some((model, texts)) = model.zip(texts) else {
        let identity = ModelIdentity {
            name: "hashing".into(),
            weights_sha256: "b".repeat(64),
            dimensions: DIMENSIONS,
            precision: Precision::Fp32,
        };
        let questions = (0..QUESTIONS).map(|number| format!("question {number}")).collect();
        let embedder = Arc::new(Hashing(identity));
        return House {
            dir: PathBuf::new(),
            embedder,
            texts: Vec::new(),
            questions,
            index_from: None,
            threads: 1,
        };
    };
    let embedder = Arc::new(MiniLm::load(model, &ModelOptions::default()).unwrap());
    let texts = std::fs::read_to_string(texts).unwrap();
    let mut texts: Vec<String> = texts.lines().map(str::to_owned).collect();
    let questions = texts.split_off(texts.len() - QUESTIONS);
    House { dir: PathBuf::new(), embedder, texts, questions, index_from: None, threads: 1 }
}

fn main() {
    if !harness::asks_for_own(&FLAGS, true) {
        baselines::run(&mut harness::criterion());
        return;
    }
    let mut sizes: Vec<u64> = Vec::new();
    let (mut keep, mut model, mut texts, mut reuse) = (None, None, None, false);
    let (mut index_from, mut threads) = (None, std::thread::available_parallelism().map_or(1, usize::from));
    let mut arguments = std::env::args().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--keep" => keep = arguments.next().map(PathBuf::from),
            "--model" => model = arguments.next().map(PathBuf::from),
            "--texts" => texts = arguments.next().map(PathBuf::from),
            "--reuse" => reuse = true,
            "--index-from" => index_from = arguments.next().map(|rows| rows.parse().unwrap()),
            "--threads" => threads = arguments.next().map_or(1, |threads| threads.parse().unwrap()),
            // One of criterion's, which has no effect on a table.
            flag if harness::asked::takes_value(flag) => {
                arguments.next_if(|value| value.parse::<u64>().is_ok());
            }
            // Cargo adds `--bench`.
            rows => sizes.extend(rows.parse::<u64>()),
        }
    }
    let mut house = house(model.as_deref(), texts.as_deref());
    (house.index_from, house.threads) = (index_from, threads);
    if !house.texts.is_empty() {
        sizes = vec![house.texts.len() as u64];
    } else if sizes.is_empty() {
        sizes = vec![10_000, 100_000];
    }
    for rows in sizes {
        let temporary = tempfile::tempdir().unwrap();
        house.dir = keep.as_ref().map_or(temporary.path().to_path_buf(), |keep| keep.join(rows.to_string()));
        std::fs::create_dir_all(&house.dir).unwrap();
        measure(rows, &house, reuse);
    }
}
