//! A whole server under load, measured from outside: ingest, search, recall, restart, rebuild, memory.
//!
//! ```text
//! cargo bench --bench load -- --entities 10000 [--relations 50000] [--queries 300] [--keep DIR] [--preset NAME]
//! ```
//!
//! The corpus is made of common words, the same at each run: an entity, two observations of about 40 tokens each, and
//! relations. `--keep DIR` keeps the vectors' store between runs, so that the model need not run again. Every figure
//! is printed as it is measured; nothing is judged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark is a script: it stops at the first surprise and prints what it sees"
)]

mod corpus;
#[path = "../../tests/simulation/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Server, get, get_with, post};

/// Rows in one request.
const BATCH: usize = 100;
/// Clients that ingest at the same time.
const CLIENTS: usize = 4;

struct Options {
    entities: usize,
    relations: usize,
    queries: usize,
    keep: Option<PathBuf>,
    preset: Option<String>,
}

fn options() -> Options {
    let mut options = Options { entities: 10_000, relations: 0, queries: 300, keep: None, preset: None };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().expect("a flag needs a value");
        match flag.as_str() {
            "--entities" => options.entities = value().parse().unwrap(),
            "--relations" => options.relations = value().parse().unwrap(),
            "--queries" => options.queries = value().parse().unwrap(),
            "--keep" => options.keep = Some(value().into()),
            "--preset" => options.preset = Some(value()),
            // The bench runner adds flags of its own.
            _ => {}
        }
    }
    options
}

/// The 50th and 99th of 100 and the largest.
fn percentiles(samples: &mut [Duration]) -> String {
    samples.sort_unstable();
    let at = |part: usize| samples[(samples.len() * part / 100).min(samples.len() - 1)];
    format!("p50 {:.2?} p99 {:.2?} max {:.2?}", at(50), at(99), at(100))
}

/// Posts every body, by several clients at the same time, and gives the time it took.
fn post_all(base: &str, path: &str, bodies: &[Value]) -> Duration {
    let started = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for body in bodies.iter().skip(client).step_by(CLIENTS) {
                    let (status, answer) = post(base, path, body).expect("the server answers");
                    assert_eq!(status, 201, "{answer}");
                }
            });
        }
    });
    started.elapsed()
}

fn report(what: &str, rows: usize, elapsed: Duration) {
    println!("ingest: {rows} {what} in {elapsed:.2?} = {:.0}/s", rows as f64 / elapsed.as_secs_f64());
}

fn ingest(server: &Server, options: &Options) {
    let entities: Vec<Value> = (0..options.entities).map(corpus::entity).collect();
    let batch = |chunk: &[Value]| json!({"agent_id": "bench", "memory_scope": "global", "entities": chunk});
    let batches: Vec<Value> = entities.chunks(BATCH).map(batch).collect();
    let elapsed = post_all(server.base(), "/api/v1/memory/entities/batch?wait=applied", &batches);
    report("entities and observations", options.entities * 3, elapsed);
    let relations = corpus::relations(options.entities, options.relations);
    let batch = |chunk: &[Value]| json!({"agent_id": "bench", "memory_scope": "global", "relations": chunk});
    let batches: Vec<Value> = relations.chunks(BATCH).map(batch).collect();
    let elapsed = post_all(server.base(), "/api/v1/memory/relations/batch?wait=applied", &batches);
    report("relations", relations.len(), elapsed);
}

/// Rows above which a scope gets an index, as the server has it.
const INDEX_FROM: u64 = 1_000_000;

/// Waits until the vectors are at the log's head and their index covers them, and says how long it took.
fn wait_for_vectors(server: &Server) {
    let started = Instant::now();
    let mut caught_up = None;
    loop {
        let (_, health) = get(server.base(), "/api/v1/health/detailed").expect("the server answers");
        let vectors = &health["components"]["vectors"];
        let number = |name: &str| vectors[name].as_u64().expect("a number");
        if number("lag_events") == 0 {
            let caught_up = caught_up.get_or_insert_with(|| started.elapsed());
            // New rows are indexed in steps; the last tenth may wait to be scanned.
            if number("rows") < INDEX_FROM || number("rows_indexed") * 10 >= number("rows") * 9 {
                println!("vectors: exact after {caught_up:.2?} more, index after {:.2?}", started.elapsed());
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn hits(answer: &Value) -> Vec<String> {
    let results = answer["results"].as_array().expect("results");
    results.iter().map(|hit| hit["entity_id"].as_str().expect("an id").to_owned()).collect()
}

fn search(server: &Server, name: &str, filter: &str, queries: usize) {
    let ask = |index: usize, more: &str, headers: &[(&str, &str)]| {
        let query = corpus::query(index);
        let path = format!("/api/v1/memory/search?agent_id=bench&query={query}&limit=10{filter}{more}");
        let started = Instant::now();
        let (status, answer) = get_with(server.base(), &path, headers).expect("the server answers");
        let elapsed = started.elapsed();
        assert_eq!(status, 200, "{answer}");
        let inside = answer["search_time_ms"].as_f64().expect("a number") / 1e3;
        (elapsed, Duration::from_secs_f64(inside), hits(&answer))
    };
    // Each search has queries of its own, so that none finds the vector of another in the cache. One pass a kind: between
    // two cached queries a new one would push the rows out of the processor's caches, with the model's weights.
    let indexes = name.len() * 1_000_000..name.len() * 1_000_000 + queries;
    let (mut fresh, answers): (Vec<_>, Vec<_>) = indexes
        .clone()
        .map(|index| {
            let (elapsed, _, hits) = ask(index, "", &[]);
            (elapsed, hits)
        })
        .unzip();
    let again = |headers: &[(&str, &str)]| -> (Vec<_>, Vec<_>) {
        let answers = indexes.clone().map(|index| ask(index, "", headers));
        answers.map(|(elapsed, inside, _)| (elapsed, inside)).unzip()
    };
    // With the vector of the question at hand, and then with the answer.
    let (mut cached, mut inside) = again(&[("cache-control", "no-cache")]);
    let (mut kept, mut kept_inside) = again(&[]);
    let (mut found, mut wanted) = (0_u32, 0_u32);
    if filter.contains("mode=semantic") {
        for (index, ids) in indexes.clone().zip(&answers) {
            let (_, _, exact) = ask(index, "&exact=true", &[]);
            wanted += exact.len() as u32;
            found += exact.iter().filter(|id| ids.contains(id)).count() as u32;
        }
    }
    let recall = format!(", recall@10 {:.4}", f64::from(found) / f64::from(wanted.max(1)));
    let recall = if wanted > 0 { recall.as_str() } else { "" };
    let (fresh, cached, inside) =
        (percentiles(&mut fresh), percentiles(&mut cached), percentiles(&mut inside));
    let (kept, kept_inside) = (percentiles(&mut kept), percentiles(&mut kept_inside));
    println!(
        "search {name}: fresh {fresh}; cached {cached}; these in the server {inside}; kept answers {kept}; these in the server \
         {kept_inside}{recall}"
    );
}

fn start(data_dir: &Path, options: &Options, what: &str) -> Server {
    let started = Instant::now();
    let preset: Vec<&str> = options.preset.iter().flat_map(|preset| ["--preset", preset]).collect();
    let server = Server::start(data_dir, &preset);
    println!("{what}: ready after {:.2?}", started.elapsed());
    server
}

/// Removes what the server wrote in `data_dir`, except files whose name ends as one of `keep`.
fn clear(data_dir: &Path, keep: &[&str]) {
    for entry in std::fs::read_dir(data_dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            clear(&path, keep);
        } else if !keep.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            std::fs::remove_file(path).unwrap();
        }
    }
}

fn main() {
    let options = options();
    let scratch = tempfile::tempdir().unwrap();
    let data_dir = options.keep.clone().unwrap_or_else(|| scratch.path().join("data"));
    println!("{} entities, 2 observations each, {} relations", options.entities, options.relations);
    clear(&data_dir, &[".keys", ".vecs"]);
    let server = start(&data_dir, &options, "start, empty");
    ingest(&server, &options);
    wait_for_vectors(&server);
    for (name, filter) in [
        ("semantic", "&mode=semantic"),
        ("semantic, type of 1 %", "&mode=semantic&entity_types=share-1"),
        ("semantic, a type of 10 %", "&mode=semantic&entity_types=share-10"),
        ("semantic, another type of 50 %", "&mode=semantic&entity_types=share-50"),
        ("keyword", "&mode=keyword"),
        ("hybrid", "&mode=hybrid"),
    ] {
        search(&server, name, filter, options.queries);
    }
    println!("memory after the searches: {}", server.memory());
    server.stop();
    let server = start(&data_dir, &options, "start, everything saved");
    wait_for_vectors(&server);
    server.stop();
    clear(&data_dir, &[".keys", ".vecs", "events.redb", "FORMAT"]);
    let server = start(&data_dir, &options, "start, graph and text rebuilt from the log");
    wait_for_vectors(&server);
    search(&server, "semantic after rebuild", "&mode=semantic", options.queries.min(100));
    server.stop();
}
