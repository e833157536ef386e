//! The page behind `/metrics`: 1,000 engines with one model within 50 ms of the
//! control thread's time.
//!
//! `cargo bench --bench exposition`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may fail"
)]

use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use pilotfish::api::page::Sources;
use pilotfish::config::{ListedEngine, Settings};
use pilotfish::discovery::listed;
use pilotfish::fleet::Fleet;
use pilotfish::fleet::attributes::{Freshness, Place};
use pilotfish::fleet::engine::Outcome;
use pilotfish::fleet::stats::Windows;
use pilotfish::metrics::ModelRegistry;

/// A fleet that has worked: engines that each serve so many models of as many
/// that there are.
fn busy(engines: usize, models: usize) -> (Fleet, Sources) {
    let names: Vec<String> = (0..models)
        .map(|n| format!("meta-llama/Model-{n}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let listed = (0..engines).map(|n| {
        let url = format!("http://engine-{n}.inference.svc.cluster.local:8000");
        ListedEngine::new(&url, &names).unwrap()
    });
    let settings = Settings {
        engines: listed.collect(),
        ..Settings::default()
    };
    let registry = ModelRegistry::default();
    let sources = Sources::new(std::sync::Arc::default(), &registry, 4);
    let mut fleet = Fleet::new(registry);
    let specs = listed::specs(&settings.engines, &Default::default());
    fleet.apply(settings.into(), specs);
    let snapshot = fleet.published().load_full();
    let mut rng = Rng::with_seed(1);
    for model in snapshot.models() {
        for _ in 0..100 {
            model
                .metrics
                .ttft
                .observe(Duration::from_secs_f64(rng.f64()));
            model
                .metrics
                .duration
                .observe(Duration::from_secs_f64(10.0 * rng.f64()));
            model.metrics.input_tokens.observe(rng.u64(1..100_000));
            model.metrics.output_tokens.observe(rng.u64(1..1000));
        }
        model.metrics.count(200);
        for one in model.candidates.list() {
            one.served
                .input_tokens
                .fetch_add(rng.u64(1..1 << 40), Relaxed);
            one.served
                .output_tokens
                .fetch_add(rng.u64(1..1 << 40), Relaxed);
            one.served
                .end(Outcome::Success, Duration::from_millis(rng.u64(..9000)));
            one.served
                .end(Outcome::Timeout, Duration::from_millis(rng.u64(..9000)));
        }
    }
    for one in snapshot.all.candidates.list() {
        one.engine.connects.fetch_add(rng.u64(..1 << 30), Relaxed);
        one.engine.reuses.fetch_add(rng.u64(..1 << 40), Relaxed);
        let mut values = [None; Place::COUNT];
        values.fill_with(|| Some(rng.f64()));
        one.engine.told(&values, snapshot.epoch.elapsed());
    }
    (fleet, sources)
}

fn page(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metrics page");
    group.sample_size(20);
    for (engines, models) in [(10, 1), (1000, 1), (1000, 10), (10, 1000)] {
        let (fleet, sources) = busy(engines, models);
        let snapshot = fleet.published().load_full();
        let mut windows = Windows::new(Duration::from_secs(60));
        windows.sample(&snapshot, Instant::now());
        let render = || {
            let by = Freshness::new(snapshot.epoch.elapsed(), Duration::from_secs(3600));
            let mut text = String::new();
            sources.page(&mut text, black_box(&snapshot), &windows, by);
            text
        };
        let name = format!(
            "{engines} engines, {models} models, {} KiB",
            render().len() >> 10
        );
        group.bench_function(name, |bencher| bencher.iter(render));
    }
    group.finish();
}

criterion_group!(benches, page);
criterion_main!(benches);
