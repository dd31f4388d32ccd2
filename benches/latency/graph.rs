//! Latency of the graph: point reads, hops, keyword search, and the pace of its fold.

use std::hint::black_box;
use std::time::{Duration, Instant};

use caxton_events::MemoryId;
use caxton_projections::{Graph, Projection, SqliteOptions};

use crate::crowd::medium::at;
use crate::harness::memory::{Random, keyword, one_hop, records, two_hops};

const ENTITIES: u64 = 100_000;
const RELATIONS: u64 = 500_000;
const WORDS_PER_OBSERVATION: usize = 40;
const LIVE_BATCH: usize = 1_000;
const REBUILD_BATCH: usize = 4_096;

fn pace(what: &str, rows: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {rows} rows in {seconds:.2} s, {:.0} rows/s", rows as f64 / seconds);
}

/// Folds the records both ways and says how fast; the graph of the live fold stays.
fn fold(dir: &std::path::Path) -> Graph {
    let records = records(ENTITIES, RELATIONS, WORDS_PER_OBSERVATION);
    let with_text = ENTITIES as usize * 3;

    let mut rebuilt = Graph::open(&dir.join("rebuilt"), &SqliteOptions::default()).unwrap();
    let start = Instant::now();
    rebuilt.begin_rebuild().unwrap();
    for batch in records.chunks(REBUILD_BATCH) {
        rebuilt.apply(batch).unwrap();
    }
    pace("rebuild, fold alone", records.len(), start);
    rebuilt.finish_rebuild().unwrap();
    pace("rebuild, whole", records.len(), start);

    let mut live = Graph::open(&dir.join("live"), &SqliteOptions::default()).unwrap();
    let start = Instant::now();
    for batch in records[..with_text].chunks(LIVE_BATCH) {
        live.apply(batch).unwrap();
    }
    pace("live fold, entities and observations", with_text, start);
    let start = Instant::now();
    for batch in records[with_text..].chunks(LIVE_BATCH) {
        live.apply(batch).unwrap();
    }
    pace("live fold, relations", records.len() - with_text, start);
    println!(
        "file: {} MB live, {} MB rebuilt",
        live.reader().file_bytes() >> 20,
        rebuilt.reader().file_bytes() >> 20
    );
    assert_eq!(
        live.reader().digest().unwrap(),
        rebuilt.reader().digest().unwrap(),
        "rebuild differs from live fold"
    );
    live.analyze().unwrap();
    live
}

/// Quantiles of single calls.
fn quantiles(what: &str, calls: usize, mut call: impl FnMut()) {
    let mut times: Vec<Duration> = (0..calls)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let micros = |share: f64| at(&times, share).as_secs_f64() * 1e6;
    let shares = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
    let told: Vec<String> =
        shares.iter().map(|(name, share)| format!("{name} {:.1} µs", micros(*share))).collect();
    println!("{what}: {}", told.join(", "));
}

fn entity(random: &mut Random) -> MemoryId {
    MemoryId(random.below(ENTITIES) * 3 + 1)
}

/// Prints the pace of the fold and quantiles.
pub(crate) fn latency() {
    let dir = tempfile::tempdir().unwrap();
    let graph = fold(dir.path());
    let reader = graph.reader();
    let mut random = Random(42);
    quantiles("point read", 100_000, || drop(black_box(reader.entity(entity(&mut random)).unwrap())));
    quantiles("one hop", 100_000, || one_hop(&reader, entity(&mut random)));
    quantiles("two hops", 2_000, || two_hops(&reader, entity(&mut random)));
    quantiles("keyword, 5 words", 2_000, || keyword(&reader, random.text(5)));
    quantiles("keyword, 2 frequent words", 2_000, || {
        keyword(&reader, format!("w{} w{}", 1 + random.below(9), 1 + random.below(9)));
    });
}
