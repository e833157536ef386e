//! The pick among 100 engines: round-robin within 0.2 µs, session within 0.6.
//!
//! `cargo bench --bench decide`
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may fail"
)]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pilotfish::config::{Routing, SessionKey, Settings};
use pilotfish::fleet::{EngineSpec, EngineUrl, Fleet, Snapshot};
use pilotfish::metrics::ModelRegistry;
use pilotfish::policy::{Asked, Tried, decide};

fn snapshot(routing: Routing) -> Arc<Snapshot> {
    let mut fleet = Fleet::new(ModelRegistry::default());
    let specs = (0..100).map(|n| EngineSpec {
        url: EngineUrl::parse(&format!("http://engine-{n}:8000")).unwrap(),
        models: vec!["m".to_owned()],
        is_learned: false,
        traits: Arc::default(),
    });
    let settings = Settings {
        routing,
        ..Settings::default()
    };
    fleet.apply(Arc::new(settings), specs.collect());
    fleet.published().load_full()
}

fn pick(criterion: &mut Criterion) {
    let key = SessionKey {
        field: http::HeaderName::from_static("x-user-id"),
        key: Arc::from("x-user-id"),
    };
    for routing in [Routing::RoundRobin, Routing::Session { key }] {
        let snapshot = snapshot(routing);
        let candidates = &snapshot.model("m").unwrap().candidates;
        let asked = Asked {
            session: Some("0b9c7e52-4a4e-4d0e-8d0f-a5f6f3f9f6f1"),
        };
        let name = format!("decide/{}/100", snapshot.policy.name());
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| {
                let chosen = decide(snapshot.policy, candidates, asked, &Tried::default());
                chosen.unwrap().engine.key
            });
        });
    }
    let snapshot = snapshot(Routing::RoundRobin);
    criterion.bench_function("model lookup", |bencher| {
        bencher.iter(|| snapshot.model(std::hint::black_box("m")).is_some());
    });
}

criterion_group!(benches, pick);
criterion_main!(benches);
