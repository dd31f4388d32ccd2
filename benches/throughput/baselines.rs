//! Groups of writes, one group after the other: events into the log, entities and messages through the engine.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::log::{Batch, Durability, Log, LogOptions};
use caxton_events::memory::Validity;
use caxton_events::{Draft, MemoryEvent, MemoryId};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use tempfile::TempDir;

use crate::crowd::{Crowd, Mode, runtime};
use crate::harness::memory::{Memory, Random};
use crate::harness::scratch;
use crate::log::System;

/// Letters of an event of about 200 bytes.
const CONTENT_BYTES: usize = 160;
/// Events after which a log makes room for another one: it slows down as its file grows.
const EVENTS_MAX: u64 = 300_000;
/// Groups in a log before the first that counts: those make the file.
const FIRST_GROUPS: u64 = 16;
/// Agents that messages go between.
const AGENTS: usize = 100;
/// Messages that are under way together where as many as possible are to come through.
const IN_FLIGHT: u64 = 2_048;
/// Entities that stand in the memory before it is written to.
const ENTITIES: u64 = 1_000;

/// Every benchmark that the command line asks for.
pub(crate) fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("log_append");
    for (name, durability) in [("durable", Durability::Always), ("without_sync", Durability::Off)] {
        for events in [1, 64, 1_024] {
            append(&mut group, name, durability, events);
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("memory_write");
    for entities in [1, 64] {
        write(&mut group, entities);
    }
    group.finish();
    let mut group = criterion.benchmark_group("messages");
    for messages in [1, 64] {
        send(&mut group, messages);
    }
    in_flight(&mut group);
    group.finish();
    criterion.final_summary();
}

fn drafts(count: u64) -> Vec<Draft> {
    let mut random = Random(7);
    let draft = |n| {
        let mut content = String::new();
        while content.len() < CONTENT_BYTES {
            content.push_str(&random.text(4));
        }
        let event = MemoryEvent::ObservationAdded {
            id: MemoryId(n),
            entity: MemoryId(n / 2),
            content,
            validity: Validity::default(),
        };
        let (stream, actor) = ("agent:ada".to_owned(), "ada".to_owned());
        Draft { stream, actor, correlation: None, causation: None, event: event.into() }
    };
    (0..count).map(draft).collect()
}

/// A log that takes groups, one after the other.
struct Taking {
    log: Log,
    events: u64,
    _dir: TempDir,
}

impl Taking {
    fn fresh(durability: Durability, drafts: &[Draft]) -> Self {
        let dir = scratch();
        let options = LogOptions { durability, ..LogOptions::new([1; 16]) };
        let log = Log::open(dir.path(), options, Arc::new(System)).unwrap();
        let mut taking = Self { log, events: 0, _dir: dir };
        for _ in 0..FIRST_GROUPS {
            taking.append(drafts);
        }
        taking
    }

    /// The time that a group takes.
    fn append(&mut self, drafts: &[Draft]) -> Duration {
        let batch = Batch::of(drafts.to_vec());
        let start = Instant::now();
        black_box(self.log.append(vec![batch]).unwrap().remove(0).unwrap());
        self.events += drafts.len() as u64;
        start.elapsed()
    }
}

fn append(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, durability: Durability, events: u64) {
    let mut held = None;
    group.throughput(Throughput::Elements(events));
    group.bench_function(BenchmarkId::new(name, events), |bencher| {
        let drafts = drafts(events);
        bencher.iter_custom(|groups| {
            let one = |_| {
                let taking: &mut Taking = held.get_or_insert_with(|| Taking::fresh(durability, &drafts));
                let took = taking.append(&drafts);
                if taking.events > EVENTS_MAX {
                    held = None;
                }
                took
            };
            (0..groups).map(one).sum()
        });
    });
}

fn write(group: &mut BenchmarkGroup<'_, WallTime>, entities: u64) {
    let mut memory = None;
    group.throughput(Throughput::Elements(entities));
    group.bench_function(BenchmarkId::new("entities", entities), |bencher| {
        let memory = memory.get_or_insert_with(|| Memory::of(ENTITIES, None));
        bencher.iter(|| black_box(memory.write(entities as usize, 1)));
    });
}

fn send(group: &mut BenchmarkGroup<'_, WallTime>, messages: u64) {
    let mut started = None;
    group.throughput(Throughput::Elements(messages));
    group.bench_function(BenchmarkId::new("a_call", messages), |bencher| {
        let (_, crowd, sent) = started.get_or_insert_with(|| {
            let dir = scratch();
            let crowd = Crowd::start(dir.path(), &runtime(), AGENTS);
            (dir, crowd, 0)
        });
        bencher.iter(|| {
            let wishes = (*sent..*sent + messages).map(|n| crowd.message(n, Mode::Direct)).collect();
            *sent += messages;
            black_box(crowd.engine.send_many_blocking(wishes, true).unwrap())
        });
    });
    if let Some((_, crowd, _)) = started {
        crowd.engine.stop();
    }
}

/// Each message is a call of its own, and none waits for another.
fn in_flight(group: &mut BenchmarkGroup<'_, WallTime>) {
    let mut started = None;
    group.throughput(Throughput::Elements(IN_FLIGHT));
    group.bench_function(BenchmarkId::new("in_flight", IN_FLIGHT), |bencher| {
        let (_, runtime, crowd, sent) = started.get_or_insert_with(|| {
            let (dir, runtime) = (scratch(), runtime());
            let crowd = Crowd::start(dir.path(), &runtime, AGENTS);
            (dir, runtime, Arc::new(crowd), 0)
        });
        bencher.iter(|| {
            let mut tasks = tokio::task::JoinSet::new();
            for n in *sent..*sent + IN_FLIGHT {
                let crowd = Arc::clone(crowd);
                let send = async move { crowd.engine.send(crowd.message(n, Mode::Direct)).await.unwrap() };
                tasks.spawn_on(send, runtime.handle());
            }
            *sent += IN_FLIGHT;
            black_box(runtime.block_on(tasks.join_all()))
        });
    });
    if let Some((_, _, crowd, _)) = started {
        crowd.engine.stop();
    }
}
