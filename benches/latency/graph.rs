//! Latency of the graph: point reads, hops, keyword search, and the pace of its fold.

use std::hint::black_box;
use std::time::Instant;

use caxton_events::memory::Validity;
use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};
use caxton_projections::graph::{Direction, WalkQuery, WalkStrategy};
use caxton_projections::text::KeywordQuery;
use caxton_projections::{Graph, GraphReader, Projection, SqliteOptions};
use criterion::Criterion;

const ENTITIES: u64 = 100_000;
const RELATIONS: u64 = 500_000;
const WORDS_PER_OBSERVATION: usize = 40;
const LIVE_BATCH: usize = 1_000;
const REBUILD_BATCH: usize = 4_096;

/// A small generator with a fixed seed: the same rows in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Words are drawn as in language: the n-th most frequent about 1/n as often as the first.
    fn word(&mut self) -> u64 {
        let u = self.below(1 << 30) as f64 / f64::from(1 << 30);
        50_000_f64.powf(u) as u64
    }

    fn text(&mut self, words: usize) -> String {
        (0..words).map(|_| format!("w{}", self.word())).collect::<Vec<_>>().join(" ")
    }
}

fn record(seq: u64, event: MemoryEvent) -> Record {
    Record {
        seq: Seq(seq),
        recorded_at: Timestamp::from_unix_micros(1_700_000_000_000_000 + seq),
        stream: "global".to_owned(),
        actor: "bench".to_owned(),
        correlation: None,
        causation: None,
        event: Event::Memory(event),
    }
}

/// 100,000 entities, each followed by its two observations, then the relations: 800,000 records.
fn records() -> Vec<Record> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut records = Vec::with_capacity((ENTITIES * 3 + RELATIONS) as usize);
    let validity = Validity::default();
    let mut push = |event| records.push(record(records.len() as u64 + 1, event));
    for entity in 0..ENTITIES {
        let id = MemoryId(entity * 3 + 1);
        push(MemoryEvent::EntityCreated {
            id,
            scope: Scope::Global,
            name: format!("entity {entity} {}", random.text(2)),
            entity_type: format!("type{}", entity % 20),
            metadata: None,
            confidence: 1.0,
            validity,
        });
        for n in 1..=2 {
            let content = random.text(WORDS_PER_OBSERVATION);
            push(MemoryEvent::ObservationAdded { id: MemoryId(id.0 + n), entity: id, content, validity });
        }
    }
    for relation in 0..RELATIONS {
        push(MemoryEvent::RelationCreated {
            id: MemoryId(ENTITIES * 3 + 1 + relation),
            scope: Scope::Global,
            from: MemoryId(random.below(ENTITIES) * 3 + 1),
            to: MemoryId(random.below(ENTITIES) * 3 + 1),
            relation_type: format!("relation{}", random.below(10)),
            strength: random.below(100) as f64 / 100.0,
            confidence: 1.0,
            metadata: None,
            validity,
        });
    }
    records
}

fn pace(what: &str, rows: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {rows} rows in {seconds:.2} s, {:.0} rows/s", rows as f64 / seconds);
}

/// Folds the records both ways and says how fast; the graph of the live fold stays.
fn fold(dir: &std::path::Path) -> Graph {
    let records = records();
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
    pace("live fold, entities and observations with full text", with_text, start);
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

/// Quantiles of single calls, which criterion's means hide.
fn quantiles(what: &str, calls: usize, mut call: impl FnMut()) {
    let mut micros: Vec<f64> = (0..calls)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    micros.sort_by(f64::total_cmp);
    let at = |q: f64| micros[((calls - 1) as f64 * q) as usize];
    println!("{what}: p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs", at(0.5), at(0.99), at(0.999));
}

fn entity(random: &mut Random) -> MemoryId {
    MemoryId(random.below(ENTITIES) * 3 + 1)
}

fn one_hop(reader: &GraphReader, entity: MemoryId) {
    black_box(reader.relations_of(entity, Direction::Both, &[], 0.0, None, 100).unwrap());
}

fn two_hops(reader: &GraphReader, root: MemoryId) {
    let query = WalkQuery {
        root,
        direction: Direction::Both,
        max_depth: 2,
        relation_types: Vec::new(),
        min_strength: 0.0,
        scopes: vec![Scope::Global],
        valid_at: None,
        strategy: WalkStrategy::BreadthFirst,
        nodes_max: 1_000,
    };
    black_box(reader.walk(&query).unwrap());
}

fn keyword(reader: &GraphReader, text: String) {
    let query = KeywordQuery { text, scopes: vec![Scope::Global], limit: 10, ..KeywordQuery::default() };
    black_box(reader.keyword(&query).unwrap());
}

/// Prints the pace of the fold and quantiles, then runs criterion.
pub(crate) fn latency(criterion: &mut Criterion) {
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
    let mut group = criterion.benchmark_group("graph");
    group.bench_function("point_read", |b| b.iter(|| reader.entity(entity(&mut random)).unwrap()));
    group.bench_function("one_hop", |b| b.iter(|| one_hop(&reader, entity(&mut random))));
    group.bench_function("two_hops", |b| b.iter(|| two_hops(&reader, entity(&mut random))));
    group.bench_function("keyword", |b| b.iter(|| keyword(&reader, random.text(5))));
    group.finish();
}
