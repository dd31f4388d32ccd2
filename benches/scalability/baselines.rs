//! The same operation among more and more agents and over larger and larger memories.

use std::hint::black_box;

use caxton_events::conversation::Strategy;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};

use crate::crowd::{Crowd, Mode, runtime};
use crate::harness::memory::{Memory, keyword, one_hop};
use crate::harness::scratch;

const SIZES: [u64; 4] = [10, 100, 1_000, 10_000];
/// Messages or entities of one call: one alone would measure the disk.
const GROUP: u64 = 64;

/// Every benchmark that the command line asks for.
pub(crate) fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("among_agents");
    group.throughput(Throughput::Elements(GROUP));
    for agents in SIZES {
        messages(&mut group, agents);
    }
    group.finish();
    let mut group = criterion.benchmark_group("over_entities");
    for entities in SIZES {
        memory(&mut group, entities);
    }
    group.finish();
    criterion.final_summary();
}

/// To an agent by its name, and to the best of ten by a capability.
fn messages(group: &mut BenchmarkGroup<'_, WallTime>, agents: u64) {
    let mut started = None;
    for (name, mode) in
        [("messages", Mode::Direct), ("messages_to_a_capability", Mode::Capability(Strategy::BestMatch))]
    {
        group.bench_function(BenchmarkId::new(name, agents), |bencher| {
            let (_, crowd, sent) = started.get_or_insert_with(|| {
                let dir = scratch();
                let crowd = Crowd::start(dir.path(), &runtime(), agents as usize);
                (dir, crowd, 0)
            });
            bencher.iter(|| {
                let wishes = (*sent..*sent + GROUP).map(|n| crowd.message(n, mode)).collect();
                *sent += GROUP;
                black_box(crowd.engine.send_many_blocking(wishes, true).unwrap())
            });
        });
    }
    if let Some((_, crowd, _)) = started {
        crowd.engine.stop();
    }
}

/// Reads first: the writes make it larger.
fn memory(group: &mut BenchmarkGroup<'_, WallTime>, entities: u64) {
    let made = || Memory::of(entities, None);
    let mut held = None;
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("keyword_search", entities), |bencher| {
        let memory = held.get_or_insert_with(made);
        let graph = memory.graph();
        bencher.iter(|| keyword(&graph, memory.question()));
    });
    group.bench_function(BenchmarkId::new("one_hop", entities), |bencher| {
        let memory = held.get_or_insert_with(made);
        let graph = memory.graph();
        bencher.iter(|| one_hop(&graph, memory.entity()));
    });
    group.throughput(Throughput::Elements(GROUP));
    group.bench_function(BenchmarkId::new("writes", entities), |bencher| {
        let memory = held.get_or_insert_with(made);
        bencher.iter(|| black_box(memory.write(GROUP as usize, 1)));
    });
}
