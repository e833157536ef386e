//! The pick among 100 engines: within 0.2 µs.
//!
//! `cargo bench --bench decide`
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may fail"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use pilotfish::fleet::{EngineSpec, EngineUrl, Fleet};
use pilotfish::metrics::ModelRegistry;
use pilotfish::policy::{Policy, Tried, decide};

fn pick(criterion: &mut Criterion) {
    let mut fleet = Fleet::new(Policy::RoundRobin, ModelRegistry::default());
    fleet.reconcile(
        (0..100)
            .map(|n| EngineSpec {
                url: EngineUrl::parse(&format!("http://engine-{n}:8000")).unwrap(),
                models: vec!["m".to_owned()],
            })
            .collect(),
    );
    let snapshot = fleet.published().load_full();
    let candidates = &snapshot.model("m").unwrap().candidates;
    criterion.bench_function("decide/roundrobin/100", |bencher| {
        bencher.iter(|| {
            decide(Policy::RoundRobin, candidates, &Tried::default())
                .unwrap()
                .key
        });
    });
    criterion.bench_function("model lookup", |bencher| {
        bencher.iter(|| snapshot.model(std::hint::black_box("m")).is_some());
    });
}

criterion_group!(benches, pick);
criterion_main!(benches);
