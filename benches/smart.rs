//! Smart routing: a prediction for ten models, and the choice of one, within 300 µs at
//! 20,000 rows of history, 100 µs of it for what does not depend on them.
//!
//! `cargo bench --bench smart`; the figures are the time for one query.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may fail"
)]

use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pilotfish::smart::choose::{Candidate, Requirement, choose};
use pilotfish::smart::history::{Output, Row};
use pilotfish::smart::predict::{Predictor, Scratch};
use pilotfish::smart::running::{Running, Window};

const MODELS: usize = 10;

/// A question of so many words; some words are frequent, most are rare.
fn query(random: &mut fastrand::Rng, words: usize) -> String {
    let word = |random: &mut fastrand::Rng| {
        let (one, other) = (random.u32(1..150), random.u32(1..150));
        format!("w{:x} ", one * other / random.u32(1..150))
    };
    (0..words).map(|_| word(random)).collect()
}

fn rows(count: usize) -> Vec<Row> {
    let names: Vec<Arc<str>> = (0..MODELS).map(|at| format!("m{at}").into()).collect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut row = |_| Row {
        query: query(&mut random, 80),
        input_tokens: None,
        outputs: names
            .iter()
            .map(|model| Output {
                model: Arc::clone(model),
                score: Some(f32::from(random.u8(0..2))),
                tokens: Some(random.u32(10..500)),
            })
            .collect(),
        split: None,
    };
    (0..count).map(&mut row).collect()
}

fn predict(criterion: &mut Criterion) {
    let fitted = Predictor::fit(rows(1_000), &mut |_| {});
    let mut random = fastrand::Rng::with_seed(8);
    let queries = [
        ("80 words", query(&mut random, 80)),
        ("2 KiB", query(&mut random, 500)),
    ];
    let mut group = criterion.benchmark_group("predict");
    for count in [1_000, 20_000, 100_000] {
        let predictor = fitted.with(&rows(count - 1_000));
        assert_eq!(predictor.rows(), count);
        for (name, query) in &queries {
            let mut scratch = Scratch::new();
            group.bench_with_input(BenchmarkId::new(*name, count), query, |bencher, query| {
                bencher.iter(|| {
                    predictor.predict(Some(query), &mut scratch);
                    choose(&candidates(&scratch), Requirement::Each(0.7))
                });
            });
        }
    }
    group.finish();
}

/// What a choice is made from, at prices that grow.
fn candidates(scratch: &Scratch) -> Vec<Candidate> {
    let models = scratch.predictions().iter().zip(1..);
    let candidates = models.map(|(prediction, price)| Candidate {
        quality: f64::from(prediction.quality),
        cost: Some(f64::from(prediction.tokens) * f64::from(price)),
        is_open: true,
        load_price: 0.0,
    });
    candidates.collect()
}

/// What a choice costs the thread beside the workers.
fn observe(criterion: &mut Criterion) {
    let predictor = Predictor::fit(rows(1_000), &mut |_| {});
    let mut scratch = Scratch::new();
    let mut random = fastrand::Rng::with_seed(9);
    let asked: Vec<Vec<Candidate>> = (0..1024)
        .map(|_| {
            predictor.predict(Some(&query(&mut random, 80)), &mut scratch);
            candidates(&scratch)
        })
        .collect();
    let (running, mut window) = (Running::new(0.5), Window::new());
    let mut asked = asked.iter().cycle();
    criterion.bench_function("observe/10 models", |bencher| {
        bencher.iter(|| {
            let candidates = asked.next().unwrap();
            let chosen = choose(candidates, running.rule()).unwrap();
            window.observe(&running, predictor.models(), candidates, chosen.at);
        });
    });
}

fn fit(criterion: &mut Criterion) {
    let rows = rows(2_000);
    let mut group = criterion.benchmark_group("fit");
    group.sample_size(10);
    group.bench_function("2,000 rows", |bencher| {
        bencher.iter_batched(
            || rows.clone(),
            |rows| Predictor::fit(rows, &mut |_| {}).rows(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, predict, observe, fit);
criterion_main!(benches);
