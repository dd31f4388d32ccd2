//! The way back from short logs: reading, checking, folding, starting.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use caxton_events::log::{Log, Reader};
use caxton_projections::{Graph, Projection as _, SqliteOptions};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput};
use tempfile::TempDir;

use super::replay::replayed;
use super::restart::{mixed, remove_projections, start};
use super::written::{log, observation};
use crate::harness::memory::records;
use crate::harness::scratch;

/// Events of about 150 bytes that are replayed and verified.
const EVENTS: u64 = 100_000;
/// Entities of the graph that is folded, with two observations each, and relations.
const ENTITIES: u64 = 8_000;
const RELATIONS: u64 = 6_000;
const WORDS: usize = 12;
/// Records folded in one transaction.
const BATCH: usize = 4_096;
/// Events that an engine starts over.
const START_EVENTS: u64 = 20_000;

/// Every benchmark that the command line asks for.
pub(crate) fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    group.sampling_mode(SamplingMode::Flat);
    read(&mut group);
    fold(&mut group);
    starts(&mut group);
    group.finish();
    criterion.final_summary();
}

fn read(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut held = None;
    let written = || {
        let dir = scratch();
        log(dir.path(), EVENTS, |n| observation(n, 150));
        let reader = Log::open_read_only(dir.path()).unwrap();
        (dir, reader)
    };
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function(BenchmarkId::new("replay", EVENTS), |bencher| {
        let (_, reader): &mut (TempDir, Reader) = held.get_or_insert_with(written);
        bencher.iter(|| assert_eq!(replayed(reader, false), EVENTS));
    });
    group.bench_function(BenchmarkId::new("verify", EVENTS), |bencher| {
        let (_, reader) = held.get_or_insert_with(written);
        bencher.iter(|| assert_eq!(reader.verify(&mut |_| ()).unwrap().events, EVENTS));
    });
}

fn fold(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut held = None;
    let count = ENTITIES * 3 + RELATIONS;
    group.throughput(Throughput::Elements(count));
    group.bench_function(BenchmarkId::new("graph_from_the_log", count), |bencher| {
        let records = held.get_or_insert_with(|| records(ENTITIES, RELATIONS, WORDS));
        bencher.iter_batched(
            scratch,
            |dir| {
                let mut graph = Graph::open(dir.path(), &SqliteOptions::default()).unwrap();
                graph.begin_rebuild().unwrap();
                for batch in records.chunks(BATCH) {
                    graph.apply(batch).unwrap();
                }
                graph.finish_rebuild().unwrap();
                black_box((graph, dir))
            },
            BatchSize::PerIteration,
        );
    });
}

/// Until every projection includes the end of the log. The vectors by content stay.
fn starts(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut held = None;
    let asked = Arc::new(AtomicU64::new(0));
    let written = || {
        let dir = scratch();
        log(dir.path(), START_EVENTS, mixed);
        start(dir.path(), &asked);
        dir
    };
    group.throughput(Throughput::Elements(START_EVENTS));
    for (name, keeps) in [("start", true), ("start_without_projections", false)] {
        group.bench_function(BenchmarkId::new(name, START_EVENTS), |bencher| {
            let dir = held.get_or_insert_with(written);
            bencher.iter_custom(|times| {
                let started = |_| {
                    if !keeps {
                        remove_projections(dir.path());
                    }
                    Duration::from_secs_f64(start(dir.path(), &asked))
                };
                (0..times).map(started).sum()
            });
        });
    }
}
