//! Who gets the request, by each policy among 10 to 10,000 engines.
//!
//! `cargo bench --bench decide`. Among 100 engines: round-robin, least
//! connections, latency and load within 0.2 µs; weighted, session, consistent
//! hash within 0.6; prefix-aware and three goals within 2. Two choices cost the
//! same among any number; rendezvous grows with it, up to 10 µs among 1,000.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may fail"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use pilotfish::config::Settings;
use pilotfish::config::dynamic::DynamicFile;
use pilotfish::config::policies::PolicyKind;
use pilotfish::config::resolve::resolve;
use pilotfish::fleet::attributes::Place;
use pilotfish::fleet::{Fleet, Snapshot};
use pilotfish::metrics::ModelRegistry;
use pilotfish::policy::memory::{Fingerprint, Prefix, Recalled};
use pilotfish::policy::{Asked, Moment, Question, Rules, Tried, decide};
use serde_json::json;

/// A fleet of so many engines under that policy, all of them busy and known.
fn snapshot(policy: &str, count: usize) -> Arc<Snapshot> {
    let keys: DynamicFile = serde_json::from_value(json!({
        "service_discovery": "static", "routing_logic": policy, "session_key": "x-user-id",
        "engines": (0..count)
            .map(|n| json!({
                "url": format!("http://engine-{n}:8000"), "models": ["m"],
                "metadata": {"parameterCountB": n % 70},
            }))
            .collect::<Vec<_>>(),
    }))
    .unwrap();
    let settings: Settings = resolve(&keys).unwrap().settings;
    let specs = pilotfish::discovery::listed::specs(&settings.engines, &Default::default());
    let mut fleet = Fleet::new(ModelRegistry::default());
    fleet.apply(Arc::new(settings), specs);
    let snapshot = fleet.published().load_full();
    let mut rng = Rng::with_seed(1);
    for one in snapshot.all.candidates.list() {
        let engine = &one.engine;
        engine.in_flight.store(rng.u32(1..20), Relaxed);
        engine.outstanding.store(rng.u64(100..10_000), Relaxed);
        let took = Duration::from_millis(rng.u64(10..500));
        engine.latency.observe(took, Duration::from_secs(50));
        let mut values = [None; Place::COUNT];
        values.fill_with(|| Some(rng.f64()));
        engine.told(&values, Duration::from_secs(99));
    }
    snapshot
}

fn pick(criterion: &mut Criterion) {
    // These choose a model; its engine is their strategy's choice.
    for policy in PolicyKind::NAMES
        .into_iter()
        .filter(|name| !matches!(*name, "sequential" | "smart"))
    {
        let mut group = criterion.benchmark_group(format!("decide/{policy}"));
        for count in [10, 100, 1000, 10_000] {
            let snapshot = snapshot(policy, count);
            let set = &snapshot.model("m").unwrap().candidates;
            let kind = &snapshot.policies.default.spec.kind;
            let mut rng = Rng::with_seed(7);
            let mut asked = Asked {
                key: Some("0b9c7e52-4a4e-4d0e-8d0f-a5f6f3f9f6f1".to_owned()),
                prompt_tokens: 1000,
                ..Asked::default()
            };
            asked.prefix = Prefix {
                anchor: Some(42),
                root: Some(43),
                bytes: 4000,
                worth: 3200,
                // Seen by an engine that is gone, and so to be placed anew.
                recalled: [Recalled {
                    key: u64::MAX,
                    bytes: 2048,
                }; 3],
            };
            let (tried, moment) = (
                Tried::default(),
                Moment {
                    now: Duration::from_secs(100),
                    stale_after: Duration::from_secs(60),
                    rules: Rules::of(&snapshot.settings),
                },
            );
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    let question = Question {
                        set,
                        asked: &asked,
                        tried: &tried,
                        moment,
                        bound: None,
                    };
                    decide(kind, &question, &mut rng)
                });
            });
        }
        group.finish();
    }
}

fn memory(criterion: &mut Criterion) {
    let memory = pilotfish::policy::memory::Memory::default();
    let prints: Vec<Fingerprint> = (1..=20)
        .map(|n: u32| Fingerprint {
            hash: pilotfish::fleet::ring::mix(9, u64::from(n)),
            bytes: n * 128,
        })
        .collect();
    let now = Duration::from_secs(10);
    criterion.bench_function("prefix/recall of 20", |bencher| {
        bencher.iter(|| memory.recall(&prints, now));
    });
    criterion.bench_function("prefix/learn of 20", |bencher| {
        bencher.iter(|| memory.learn(&prints, 3, now));
    });
    let snapshot = snapshot("roundrobin", 100);
    criterion.bench_function("model lookup", |bencher| {
        bencher.iter(|| snapshot.model(std::hint::black_box("m")).is_some());
    });
}

criterion_group!(benches, pick, memory);
criterion_main!(benches);
