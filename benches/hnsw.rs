//! What the HNSW index finds and how long it takes to build, beside hnswlib with the same parameters.
//!
//! `cargo bench --bench hnsw -- --model DIR --texts FILE`: one vector for each line of FILE, but the last 300, which are
//! the questions. `apt-cache dumpavail | sed -n 's/^Description\(-en\)\?: //p' | sort -Ru | head -30000` makes such a file. Recall is
//! printed for an index that was just built, for the one read back from disk, and after each was thrown away and built
//! again. With `PEER_PYTHON=venv/bin/python` (which has hnswlib and numpy) both build in turns, `--rounds` times
//! (default 9), and then both answer the questions in turns on one thread each: hnswlib, and a search as the program does
//! it by default, which below a million rows scans sketches. The peer gets the least `ef` that finds 0.98 of the nearest,
//! and then the least that finds as many as the program. `CHROMA_PYTHON=venv/bin/python` (which has chromadb and numpy) sets
//! Chroma beside it in the same way, in a process of its own without a network. `--threads N` (default: the cores) holds for both builds.
//! `--keep DIR` keeps the vectors for another run.

#![allow(clippy::print_stdout, reason = "a bench talks to a person")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench stops at the first surprise")]

#[path = "crowd/ratios.rs"]
mod ratios;

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
use ratios::{median, summary};

const QUESTIONS: usize = 300;
const LIMIT: usize = 10;
/// What hnswlib has to find at least, unless the program itself finds less.
const RECALL: f64 = 0.98;
/// What its searches are tried with, from the cheapest.
const EF: [usize; 14] = [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1_024, 2_048, 4_096];
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
            let answer = reader.search(&query(vector, exact)).unwrap();
            assert_eq!(answer.exact, exact, "the index answers unless the truth is asked for");
            answer.hits.into_iter().map(|hit| hit.row).collect::<HashSet<MemoryId>>()
        };
        let found =
            questions.iter().map(|vector| ask(vector, false).intersection(&ask(vector, true)).count());
        found.sum::<usize>() as f64 / (questions.len() * LIMIT) as f64
    }
}

fn query(vector: &[f32], exact: bool) -> VectorQuery<'_> {
    VectorQuery {
        vector,
        scopes: &[Scope::Global],
        entity_types: &[],
        valid_at: None,
        as_of: None,
        min_similarity: None,
        limit: LIMIT,
        exact,
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
    fn start((python, script): (&Path, &str), vectors: &Path, threads: usize) -> Self {
        let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "benches/peers", script].iter().collect();
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
        writeln!(self.input, "build").unwrap();
        self.read().parse().unwrap()
    }

    /// Seconds a question and the share of the true nearest that was found.
    fn ask(&mut self, ef: usize, questions: &Path) -> (f64, f64) {
        writeln!(self.input, "ask {ef} {}", questions.display()).unwrap();
        let answer = self.read();
        let (seconds, found) = answer.split_once(' ').unwrap();
        (seconds.parse().unwrap(), found.parse().unwrap())
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
    let (mean, low, high) = summary(&ratios_of(&ours, &theirs));
    println!(
        "build: {:.2} s, {} {:.2} s; {mean:.2} of its time [{low:.2}, {high:.2}] in {rounds} pairs, {} threads each",
        median(&mut ours),
        peer.name,
        median(&mut theirs),
        house.threads,
    );
}

fn ratios_of(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

/// Both answer the questions in turns, the program on one thread, at equal recall.
fn compare_answers(house: &House, peer: &mut Peer, questions: &[Vec<f32>], rounds: usize) {
    let store = VectorStore::open(&house.dir.join("store"), house.embedder.identity()).unwrap();
    let options = VectorOptions { scan_threads: 1, ..VectorOptions::default() };
    let vectors =
        Vectors::open(&house.dir.join("vectors"), options, store, Arc::clone(&house.embedder)).unwrap();
    let reader = vectors.reader();
    let answers = |exact: bool| -> Vec<HashSet<MemoryId>> {
        let hits = questions.iter().map(|vector| reader.search(&query(vector, exact)).unwrap().hits);
        hits.map(|hits| hits.into_iter().map(|hit| hit.row).collect()).collect()
    };
    let (found, nearest) = (answers(false), answers(true));
    let shared = found.iter().zip(&nearest).map(|(some, all)| some.intersection(all).count());
    let recall = shared.sum::<usize>() as f64 / (questions.len() * LIMIT) as f64;
    let file = house.dir.join("questions");
    fs::write(&file, questions.iter().flatten().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    peer.build();
    let tried: Vec<(usize, f64)> = EF.into_iter().map(|ef| (ef, peer.ask(ef, &file).1)).collect();
    // What a search by sketches finds is hard to reach by links: both what is enough for most and what is as much.
    for enough in [recall.min(RECALL), recall] {
        let Some(&(ef, theirs)) = tried.iter().find(|(_, found)| *found >= enough) else {
            let (ef, most) = tried[tried.len() - 1];
            println!("search: recall@{LIMIT} {recall:.4}; {} finds {most:.4} with ef {ef}", peer.name);
            continue;
        };
        answer_in_turns(&answers, (questions.len(), recall), peer, (ef, theirs, &file), rounds);
    }
}

/// Both answer in turns; the peer with `ef`, which finds `theirs`.
fn answer_in_turns(
    answers: &impl Fn(bool) -> Vec<HashSet<MemoryId>>,
    (questions, recall): (usize, f64),
    peer: &mut Peer,
    (ef, theirs, file): (usize, f64, &Path),
    rounds: usize,
) {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                let start = Instant::now();
                answers(false);
                times[0].push(start.elapsed().as_secs_f64() / questions as f64);
            } else {
                times[1].push(peer.ask(ef, file).0);
            }
        }
    }
    let [mut ours, mut others] = times;
    let (mean, low, high) = summary(&ratios_of(&ours, &others));
    println!(
        "search: {:.3} ms at recall@{LIMIT} {recall:.4}, {} with ef {ef} {:.3} ms at {theirs:.4}; {mean:.2} of its time \
         [{low:.2}, {high:.2}] in {rounds} pairs, one question at a time",
        median(&mut ours) * 1e3,
        peer.name,
        median(&mut others) * 1e3,
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
            "--rounds" => rounds = arguments.next().map_or(9, |rounds| rounds.parse().unwrap()).max(9),
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
        let mut peer = Peer::start((Path::new(&python), "hnswlib_peer.py"), &vecs[0], threads);
        compare(&house, &mut peer, rounds);
        compare_answers(&house, &mut peer, &questions, rounds);
    } else {
        println!("hnswlib was left out: set PEER_PYTHON to a Python that has it");
    }
    if let Some(python) = std::env::var_os("CHROMA_PYTHON") {
        let vecs = house.files("store", "vecs");
        let mut peer = Peer::start((Path::new(&python), "chroma_peer.py"), &vecs[0], threads);
        compare_answers(&house, &mut peer, &questions, rounds);
    }
}
