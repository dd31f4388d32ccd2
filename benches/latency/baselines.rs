//! Single operations, one after the other: a write, a message, questions to a memory, a text embedded.

use std::cell::RefCell;
use std::hint::black_box;
use std::path::PathBuf;

use caxton_projections::embedding::{self, ModelOptions};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};

use crate::crowd::{Crowd, Mode, runtime};
use crate::harness::memory::{Memory, keyword, one_hop, two_hops};
use crate::harness::scratch;

const ENTITIES: u64 = 10_000;
const AGENTS: usize = 100;
/// About twelve tokens.
const SHORT: &str = "Ada keeps the red notebook in room 17 of house 4.";

/// Every benchmark that the command line asks for.
pub(crate) fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("latency");
    memory(&mut group);
    message(&mut group);
    embedded(&mut group);
    group.finish();
    criterion.final_summary();
}

fn memory(group: &mut BenchmarkGroup<'_, WallTime>) {
    // Made when the first benchmark needs it: a filter may leave all of them out.
    let memory = RefCell::new(None);
    let with = |work: &mut dyn FnMut(&mut Memory)| {
        work(memory.borrow_mut().get_or_insert_with(|| Memory::of(ENTITIES, None)));
    };
    group.bench_function("point_read", |bencher| {
        with(&mut |memory| {
            let graph = memory.graph();
            bencher.iter(|| black_box(graph.entity(memory.entity()).unwrap()));
        });
    });
    group.bench_function("one_hop", |bencher| {
        with(&mut |memory| {
            let graph = memory.graph();
            bencher.iter(|| one_hop(&graph, memory.entity()));
        });
    });
    group.bench_function("graph_walk", |bencher| {
        with(&mut |memory| {
            let graph = memory.graph();
            bencher.iter(|| two_hops(&graph, memory.entity()));
        });
    });
    group.bench_function("keyword_search", |bencher| {
        with(&mut |memory| {
            let graph = memory.graph();
            bencher.iter(|| keyword(&graph, memory.question()));
        });
    });
    group.bench_function("durable_write", |bencher| {
        with(&mut |memory| bencher.iter(|| black_box(memory.write(1, 1))));
    });
}

fn message(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut started = None;
    group.bench_function("message", |bencher| {
        let (_, crowd, sent) = started.get_or_insert_with(|| {
            let dir = scratch();
            let crowd = Crowd::start(dir.path(), &runtime(), AGENTS);
            (dir, crowd, 0)
        });
        bencher.iter(|| {
            *sent += 1;
            black_box(crowd.engine.send_blocking(crowd.message(*sent, Mode::Direct)).unwrap())
        });
    });
    if let Some((_, crowd, _)) = started {
        crowd.engine.stop();
    }
}

/// The model alone, without the cache of queries.
fn embedded(group: &mut BenchmarkGroup<'_, WallTime>) {
    let Some(dir) = std::env::var_os("CAXTON_MODEL_DIR").map(PathBuf::from).filter(|dir| dir.is_dir()) else {
        println!("latency/embed_short_text is left out: CAXTON_MODEL_DIR names no folder with a model");
        return;
    };
    let mut model = None;
    group.bench_function("embed_short_text", |bencher| {
        let model = model.get_or_insert_with(|| embedding::load(&dir, &ModelOptions::default()).unwrap());
        bencher.iter(|| black_box(model.embed(&[SHORT]).unwrap()));
    });
}
