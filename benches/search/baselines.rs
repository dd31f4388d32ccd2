//! Questions to a memory of an engine: by words, by meaning, by both, and where a filter refuses most.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use caxton_events::Scope;
use caxton_projections::embedding::{DIMENSIONS, EmbeddingService, ModelIdentity, Precision, ServiceOptions};
use caxton_projections::queries::{Search, SearchMode};
use criterion::{BenchmarkId, Criterion, Throughput};

use crate::Hashing;
use crate::harness::memory::Memory;

const SIZES: [u64; 2] = [1_000, 10_000];
const LIMIT: usize = 10;

/// Every benchmark that the command line asks for.
pub(crate) fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    group.throughput(Throughput::Elements(1));
    for entities in SIZES {
        let mut memory = None;
        for (name, mode, entity_types) in [
            ("keyword", SearchMode::Keyword, Vec::new()),
            ("semantic", SearchMode::Semantic, Vec::new()),
            ("hybrid", SearchMode::Hybrid, Vec::new()),
            // One of twenty.
            ("hybrid_of_a_type", SearchMode::Hybrid, vec!["type3".to_owned()]),
        ] {
            group.bench_function(BenchmarkId::new(name, entities), |bencher| {
                let memory = memory.get_or_insert_with(|| Memory::of(entities, Some(service())));
                let mut search = Search {
                    mode,
                    scopes: vec![Scope::Global],
                    entity_types: entity_types.clone(),
                    limit: LIMIT,
                    observations: 2,
                    ..Search::default()
                };
                let engine = memory.engine.clone();
                bencher.iter(|| {
                    search.text = memory.question();
                    let answer = search.ask(engine.view()).unwrap();
                    assert!(!answer.hits.is_empty(), "{} finds nothing", search.text);
                    black_box(answer)
                });
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

/// A model that takes next to no time: what is measured is the search.
fn service() -> Arc<EmbeddingService> {
    let identity = ModelIdentity {
        name: "hashing".to_owned(),
        weights_sha256: "b".repeat(64),
        dimensions: DIMENSIONS,
        precision: Precision::Fp32,
    };
    let started = Instant::now();
    let options = ServiceOptions::new(Arc::new(move || started.elapsed()));
    Arc::new(EmbeddingService::start(Arc::new(Hashing(identity)), options).unwrap())
}
