//! What breaker, budget and admission cost a request: taken together, 100 ns.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench may fail where it stands"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use pilotfish::config::Settings;
use pilotfish::fleet::breaker::Standing;
use pilotfish::fleet::gate::Gate;
use pilotfish::fleet::health::Health;
use pilotfish::proxy::retry::RetryBudget;

fn costs(criterion: &mut Criterion) {
    let (health, budget) = (Health::default(), RetryBudget::default());
    let gates = [Arc::new(Gate::default()), Arc::new(Gate::default())];
    let settings = Settings::default();
    let now = Duration::from_secs(100);
    let mut group = criterion.benchmark_group("resilience");
    group.bench_function("breaker", |bencher| {
        bencher.iter(|| {
            let standing = black_box(&health).take(black_box(now));
            health.succeeded(standing, now);
        });
    });
    group.bench_function("budget", |bencher| {
        bencher.iter(|| black_box(&budget).deposit(black_box(now)));
    });
    group.bench_function("admission off", |bencher| {
        bencher.iter(|| black_box(&settings).admission.is_off());
    });
    group.bench_function("admission, model and process", |bencher| {
        bencher.iter(|| {
            let places = gates.each_ref().map(|gate| gate.enter(black_box(1000)));
            assert!(places.iter().all(Option::is_some));
        });
    });
    group.bench_function("all of them", |bencher| {
        bencher.iter(|| {
            let standing = black_box(&health).take(black_box(now));
            budget.deposit(now);
            let places = gates.each_ref().map(|gate| gate.enter(1000));
            health.succeeded(standing, now);
            places
        });
    });
    group.bench_function("breaker of an engine in trouble", |bencher| {
        let troubled = Health::default();
        troubled.failed(
            Standing::Trusted,
            pilotfish::fleet::engine::Outcome::Failure,
            now,
        );
        bencher.iter(|| {
            let standing = black_box(&troubled).take(black_box(now));
            troubled.released(standing, now);
        });
    });
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
