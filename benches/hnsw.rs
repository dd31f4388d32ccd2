//! What the HNSW index finds and how long it takes to build, beside hnswlib with the same parameters.
//!
//! `cargo bench --bench hnsw -- --model DIR --texts FILE`: one vector for each line of FILE, but the last 300, which are
//! the questions. `apt-cache dumpavail | sed -n 's/^Description-en: //p' | sort -Ru | head -30000` makes such a file. Recall is
//! printed for an index that was just built, for the one read back from disk, and after each was thrown away and built
//! again. With `PEER_PYTHON=venv/bin/python` (which has hnswlib and numpy) both build in turns, `--rounds` times
//! (default 9). `--threads N` (default: the cores) holds for both. `--keep DIR` keeps the vectors for another run.

#![allow(clippy::print_stdout, reason = "a bench talks to a person")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench stops at the first surprise")]

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use caxton_events::memory::Validity;
use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};
use caxton_projections::Projection as _;
use caxton_projections::embedding::{Embedder, MiniLm, ModelOptions, VectorStore};
use caxton_projections::vector::{VectorOptions, VectorQuery, Vectors};

const QUESTIONS: usize = 300;
const LIMIT: usize = 10;
/// Links of a node, as the index has them.
const CONNECTIVITY: usize = 16;

struct House {
    dir: PathBuf,
    embedder: Arc<dyn Embedder>,
    threads: usize,
}

impl House {
    /// The saved state; with an index from `index_from` rows on, which every search then uses.
    fn open(&self, index_from: u32) -> Vectors {
        let store = VectorStore::open(&self.dir.join("store"), self.embedder.identity()).unwrap();
        let options = VectorOptions {
            index_from,
            build_threads: self.threads,
            scan_rows_per_candidate: 0,
            ..VectorOptions::default()
        };
        Vectors::open(&self.dir.join("vectors"), options, store, Arc::clone(&self.embedder)).unwrap()
    }

    /// The files below the folder of vectors that end so.
    fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    }

    /// Builds the index over the saved rows, and saves it; seconds from opening them to the index's end.
    fn build(&self) -> f64 {
        for index in self.files("vectors", "hnsw") {
            fs::remove_file(index).unwrap();
        }
        let start = Instant::now();
        let mut vectors = self.open(1);
        vectors.finish_indexes();
        let seconds = start.elapsed().as_secs_f64();
        let stats = vectors.reader().stats();
        assert_eq!(stats.scopes[0].indexed, stats.rows, "the index covers every row");
        vectors.save().unwrap();
        seconds
    }

    /// The share of the true nearest that the saved index finds.
    fn recall(&self, questions: &[Vec<f32>]) -> f64 {
        let vectors = self.open(1);
        vectors.finish_indexes();
        let reader = vectors.reader();
        let ask = |vector: &[f32], exact: bool| {
            let query = VectorQuery {
                vector,
                scopes: &[Scope::Global],
                entity_types: &[],
                valid_at: None,
                as_of: None,
                min_similarity: None,
                limit: LIMIT,
                exact,
            };
            let answer = reader.search(&query).unwrap();
            assert_eq!(answer.exact, exact, "the index answers unless the truth is asked for");
            answer.hits.into_iter().map(|hit| hit.row).collect::<HashSet<MemoryId>>()
        };
        let found =
            questions.iter().map(|vector| ask(vector, false).intersection(&ask(vector, true)).count());
        found.sum::<usize>() as f64 / (questions.len() * LIMIT) as f64
    }
}

/// An observation for each text, all of one entity.
fn log_of(texts: &[&str]) -> Vec<Record> {
    let entity = MemoryEvent::EntityCreated {
        id: MemoryId(1),
        scope: Scope::Global,
        name: "packages".into(),
        entity_type: "list".into(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
    };
    let observation = |(at, text): (usize, &&str)| MemoryEvent::ObservationAdded {
        id: MemoryId(at as u64 + 2),
        entity: MemoryId(1),
        content: (*text).to_owned(),
        validity: Validity::default(),
    };
    let events = std::iter::once(entity).chain(texts.iter().enumerate().map(observation));
    let record = |(at, event): (usize, MemoryEvent)| Record {
        seq: Seq(at as u64 + 1),
        recorded_at: Timestamp::EPOCH,
        stream: "global".into(),
        actor: "bench".into(),
        correlation: None,
        causation: None,
        event: Event::Memory(event),
    };
    events.enumerate().map(record).collect()
}

struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    name: String,
}

impl Peer {
    fn start(python: &Path, vectors: &Path, threads: usize) -> Self {
        let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "benches/peers/hnswlib_build.py"].iter().collect();
        let expansion = VectorOptions::default().expansion_add;
        let mut command = Command::new(python);
        command
            .arg(script)
            .arg(vectors)
            .args([CONNECTIVITY, expansion, threads].map(|number| number.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut peer = Self { child, input, output, name: String::new() };
        peer.name = peer.read();
        peer
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn build(&mut self) -> f64 {
        writeln!(self.input).unwrap();
        self.read().parse().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Both build in turns, the order changing each time.
fn compare(house: &House, peer: &mut Peer, rounds: usize) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            ours.push(house.build());
            theirs.push(peer.build());
        } else {
            theirs.push(peer.build());
            ours.push(house.build());
        }
        println!("  round {}: {:.2} s, {:.2} s", round + 1, ours[round], theirs[round]);
    }
    let logs: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| (ours / theirs).ln()).collect();
    let count = rounds as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    // Student's t at 95 % for 8 degrees of freedom.
    let half = 1.86 * (variance / count).sqrt();
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    println!(
        "build: {:.2} s, {} {:.2} s; {:.2} of its time [{:.2}, {:.2}] in {rounds} pairs, {} threads each",
        ours[rounds / 2],
        peer.name,
        theirs[rounds / 2],
        mean.exp(),
        (mean - half).exp(),
        (mean + half).exp(),
        house.threads,
    );
}

fn main() {
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut model, mut texts, mut keep, mut rounds) = (None, None, None, 9);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--model" => model = arguments.next(),
            "--texts" => texts = arguments.next(),
            "--keep" => keep = arguments.next().map(PathBuf::from),
            "--rounds" => rounds = arguments.next().map_or(9, |rounds| rounds.parse().unwrap()),
            "--threads" => threads = arguments.next().map_or(1, |threads| threads.parse().unwrap()),
            // Cargo adds `--bench`.
            _ => (),
        }
    }
    let Some((model, texts)) = model.zip(texts) else {
        println!("give --model DIR and --texts FILE; the head of benches/hnsw.rs says how to make one");
        return;
    };
    let options = ModelOptions { batch_size: 32, ..ModelOptions::default() };
    let embedder: Arc<dyn Embedder> = Arc::new(MiniLm::load(Path::new(&model), &options).unwrap());
    let texts = fs::read_to_string(texts).unwrap();
    let mut texts: Vec<&str> = texts.lines().collect();
    let questions = texts.split_off(texts.len() - QUESTIONS);
    let questions = embedder.embed(&questions).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let house = House { dir: keep.unwrap_or_else(|| temporary.path().to_owned()), embedder, threads };
    fs::create_dir_all(house.dir.join("vectors")).unwrap();
    let mut vectors = house.open(u32::MAX);
    let log = log_of(&texts);
    let saved = vectors.checkpoint();
    for records in log.chunks(512).filter(|records| records[0].seq > saved) {
        vectors.apply(records).unwrap();
    }
    vectors.save().unwrap();
    drop(vectors);
    let seconds = house.build();
    println!("{} rows, built in {seconds:.2} s", texts.len());
    println!("recall@{LIMIT} of the index read back after that: {:.4}", house.recall(&questions));
    house.build();
    println!("recall@{LIMIT} after it was thrown away and built again: {:.4}", house.recall(&questions));
    if let Some(python) = std::env::var_os("PEER_PYTHON") {
        let vecs = house.files("store", "vecs");
        let mut peer = Peer::start(Path::new(&python), &vecs[0], threads);
        compare(&house, &mut peer, rounds);
    } else {
        println!("hnswlib was left out: set PEER_PYTHON to a Python that has it");
    }
}
