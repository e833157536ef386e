//! What a change of a cluster costs: the fleet is made anew from the full list,
//! of which one engine is another one each time.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's own; a bench may panic"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pilotfish::config::{EngineUrl, Settings};
use pilotfish::discovery::models::Cards;
use pilotfish::discovery::{Found, specs};
use pilotfish::fleet::Fleet;
use pilotfish::metrics::ModelRegistry;

fn found(engines: usize) -> Vec<Found> {
    let models: Arc<[String]> = ["meta-llama/Llama-3.1-8B-Instruct".to_owned()].into();
    let one = |at: usize| {
        let url = format!("http://10.1.{}.{}:8000", at / 250, at % 250);
        Found {
            identity: format!("6f7a1c3e-0000-4000-8000-{at:012}:8000").into(),
            url: EngineUrl::parse(&url).unwrap(),
            models: Some(Arc::clone(&models)),
            traits: Arc::default(),
            is_ready: true,
        }
    };
    (0..engines).map(one).collect()
}

fn reconciling(c: &mut Criterion) {
    let settings = Arc::new(Settings::default());
    for engines in [20, 1_000, 5_000] {
        let mut found = found(engines);
        let mut fleet = Fleet::new(ModelRegistry::default());
        let mut at = 0;
        c.bench_function(&format!("a readiness changes, {engines} engines"), |b| {
            b.iter(|| {
                at = (at + 1) % engines;
                found[at].is_ready = !found[at].is_ready;
                let specs = specs(&found, &Cards::default());
                fleet.apply(Arc::clone(&settings), black_box(specs));
            });
        });
    }
}

criterion_group!(benches, reconciling);
criterion_main!(benches);
