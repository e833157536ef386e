//! The reference's selection: read, asked of a block, and decided by among many.
//!
//! `cargo bench --bench selecting`. The whole request is read within 12 µs, JSON
//! included; its metadata conditions take 150 ns a block, its metrics 15 ns. A
//! decision among 100 engines takes 3 µs, 30 when its text was never seen; among
//! 1,000, 30 µs.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may fail"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use pilotfish::config::dynamic::DynamicFile;
use pilotfish::config::resolve::resolve;
use pilotfish::fleet::attributes::{Freshness, Live, Place};
use pilotfish::fleet::{Fleet, Snapshot};
use pilotfish::metrics::ModelRegistry;
use pilotfish::policy::{Asked, Moment, Question, Rules, Tried, choose};
use pilotfish::query::{Envelope, Query, Subject, Vocabulary};
use pilotfish::select::Selections;
use serde_json::{Value, json};

const PAYLOAD: &str = include_str!("../src/query/tests/payload.json");
const NOW: Duration = Duration::from_secs(100);

/// A component's document of the usual size.
fn component() -> Value {
    json!({
        "componentId": {"name": "qwen", "version": "1.0.0", "releaseTag": "stable"},
        "componentURI": "model.qwen:1.0.0-stable", "componentType": "model",
        "containerRegistryInfo": {
            "containerImage": "registry/qwen:1", "containerRegistryId": "r1",
            "containerImageMetadata": {"author": "a", "description": "d"},
            "componentMode": "aios",
        },
        "componentMetadata": {
            "usecase": "chat-completion, multi-modal", "framework": "llama-cpp-python",
            "hardware": "gpu", "supports_quantization": true,
            "quantization_methods": ["gguf", "awq"],
            "provider": {"name": "p", "modelIdentifier": "qwen"},
            "architecture": {"contextLength": 32768, "parameterCountB": 7.6},
            "capabilities": {"supportsStreaming": true},
            "evaluation": {"benchmarks": {
                "MMLU": {"metric": "accuracy", "value": 82.3},
                "HellaSwag": {"metric": "accuracy", "value": 79},
                "ARC-Challenge": {"metric": "accuracy", "value": 85},
            }},
            "dataUsagePolicy": "none", "biasAndFairness": "none",
            "trainingDetails": {}, "knownLimitations": "some",
        },
        "componentInitData": {}, "componentInitSettings": {}, "componentParameters": {},
        "componentInputProtocol": {}, "componentOutputProtocol": {},
        "componentManagementCommandsTemplate": {}, "tags": ["llm", "multi-modal"],
    })
}

/// A fleet of so many engines of one model, each a block of its own, all known.
fn snapshot(count: usize) -> Arc<Snapshot> {
    let engines = (0..count).map(|n| {
        json!({
            "url": format!("http://e{n}:1"), "models": ["m"], "metadata": component(),
            "block": format!("blk-{n}"),
        })
    });
    let keys = json!({
        "service_discovery": "static", "routing_logic": "roundrobin",
        "engines": engines.collect::<Vec<_>>(),
    });
    let keys: DynamicFile = serde_json::from_value(keys).unwrap();
    let settings = resolve(&keys).unwrap().settings;
    let specs = pilotfish::discovery::listed::specs(&settings.engines, &Default::default());
    let mut fleet = Fleet::new(ModelRegistry::default());
    fleet.apply(Arc::new(settings), specs);
    let snapshot = fleet.published().load_full();
    let mut rng = Rng::with_seed(1);
    for one in snapshot.all.candidates.list() {
        let mut values = [None; Place::COUNT];
        // The first of the two conditions does not hold: both are read.
        values[Live::UptimeHours as usize] = Some(5.0);
        values[Live::BusyTokensPerSecond as usize] = Some(rng.f64() * 60.0 + 11.0);
        values[Live::RequestsRunning as usize] = Some(f64::from(rng.u32(0..20)));
        one.engine.told(&values, NOW);
        let queue = f64::from(rng.u32(0..10));
        one.engine.attributes.hear(Live::QueueAverage1m, queue, NOW);
    }
    snapshot
}

fn parsed(payload: &str) -> Query {
    let document: Value = serde_json::from_str(payload).unwrap();
    let envelope = Envelope::search(&document).unwrap();
    let (filter, at) = envelope.filter.unwrap();
    Query::parse(filter, &at, Vocabulary { own: &[] }).unwrap()
}

fn query(criterion: &mut Criterion) {
    criterion.bench_function("query/read", |bencher| {
        bencher.iter(|| parsed(black_box(PAYLOAD)));
    });
    criterion.bench_function("query/read, its JSON alone", |bencher| {
        bencher.iter(|| serde_json::from_str::<Value>(black_box(PAYLOAD)).unwrap());
    });
    let snapshot = snapshot(1);
    let list = snapshot.all.candidates.list();
    let by = Freshness::new(NOW, Duration::from_secs(60));
    let (query, subject) = (
        parsed(PAYLOAD),
        Subject {
            id: "blk-1",
            list,
            members: &[0],
        },
    );
    assert!(query.admits_fixed(&subject) && query.admits_live(&subject, by));
    criterion.bench_function("query/metadata", |bencher| {
        bencher.iter(|| black_box(&query).admits_fixed(black_box(&subject)));
    });
    criterion.bench_function("query/metrics", |bencher| {
        bencher.iter(|| black_box(&query).admits_live(black_box(&subject), by));
    });
}

/// The choice of an engine: a model's, each of a block of its own.
fn decision(criterion: &mut Criterion) {
    for count in [100, 1000] {
        let snapshot = snapshot(count);
        let set = &snapshot.model("m").unwrap().candidates;
        let (asked, tried) = (Asked::default(), Tried::default());
        let mut rng = Rng::with_seed(7);
        let mut decide = |selections: &mut Selections| {
            let found = selections.search(PAYLOAD.as_bytes(), &snapshot, None);
            let policy = &found.unwrap().policy;
            let bound = selections.bound(policy, &snapshot, set);
            let question = Question {
                set,
                asked: &asked,
                tried: &tried,
                moment: Moment {
                    now: NOW,
                    stale_after: Duration::from_secs(60),
                    rules: Rules::of(&snapshot.settings),
                },
                bound: bound.as_deref(),
            };
            choose(&policy.spec.kind, &question, &mut rng).unwrap().at
        };
        let mut known = Selections::default();
        criterion.bench_function(&format!("decision/known/{count}"), |bencher| {
            bencher.iter(|| decide(&mut known));
        });
        criterion.bench_function(&format!("decision/never seen/{count}"), |bencher| {
            bencher.iter(|| decide(&mut Selections::default()));
        });
    }
}

criterion_group!(benches, query, decision);
criterion_main!(benches);
