//! What it costs a worker to tell of a request: its statistics, of the model (the
//! budget is 150 ns) and of the engine, which decisions are made by; a line of
//! the access log; a recorded trace.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench may fail where it stands"
)]

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use http::request::Parts;
use pilotfish::config::{LineForm, ListedEngine, Settings};
use pilotfish::discovery::listed;
use pilotfish::drain::DrainWatch;
use pilotfish::fleet::engine::Outcome;
use pilotfish::fleet::load::{Expected, InFlight};
use pilotfish::fleet::{Candidate, Fleet, Model, Snapshot};
use pilotfish::metrics::{ModelRegistry, Telling};
use pilotfish::proxy::meter::Meter;
use pilotfish::report::{LogOutlet, Outlets, Reporter, SpanOutlet};
use pilotfish::trace::context::Sampler;
use tokio::sync::mpsc;

/// The end of an answer, with its usage.
const ANSWER: &[u8] =
    br#"{"id":"x","choices":[],"usage":{"prompt_tokens":12,"total_tokens":20,"completion_tokens":8}}"#;

fn snapshot() -> Arc<Snapshot> {
    let settings = Settings {
        engines: vec![ListedEngine::new("http://10.0.0.1:8000", &["m"]).unwrap()],
        ..Settings::default()
    };
    let specs = listed::specs(&settings.engines, &Default::default());
    let mut fleet = Fleet::new(ModelRegistry::default());
    fleet.apply(Arc::new(settings), specs);
    fleet.published().load_full()
}

fn head() -> Parts {
    let request = http::Request::post("/v1/chat/completions").header(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    request.body(()).unwrap().into_parts().0
}

/// What happens to the account of one request, from its head to its end.
fn one(
    (reporter, began): (&Rc<Reporter>, Instant),
    head: &Parts,
    model: &Arc<Model>,
    (chosen, policy, slot): (&Candidate, &Arc<str>, &InFlight),
) {
    let id = "0123456789abcdef0123456789abcdef";
    let report = reporter.begin(head, id, "10.0.0.9", began);
    let mut meter = Meter::begin(Arc::clone(model), began, report);
    meter.uploaded(1024);
    let span = meter.onward().map_or(0, |onward| onward.next());
    meter.chosen(chosen, Some(policy), (began, span));
    meter.tried(Ok(200));
    meter.overhead(Some(Duration::from_micros(17)));
    meter.answered(200, slot);
    meter.piece(black_box(ANSWER), began);
    meter.ends(began);
    meter.completes();
}

fn costs(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let model = snapshot.model("m").unwrap();
    let chosen = &model.candidates.list()[0];
    let policy = &snapshot.policies.default.spec.name;
    let began = Instant::now();
    let slot = InFlight::take(chosen, Expected::default(), began);
    let (head, telling) = (head(), Telling::default());
    let (lines, mut written) = mpsc::channel(1024);
    let (spans, mut ended) = mpsc::channel(1024);
    let log = |form| LogOutlet {
        form,
        queue: lines.clone(),
        dropped: telling.lines_dropped.clone(),
    };
    let recorded = SpanOutlet {
        sampler: Sampler::new(1.0),
        queue: spans.clone(),
        dropped: telling.spans_dropped.clone(),
    };
    let (json, text) = (log(LineForm::Json), log(LineForm::Text));
    let rows = [
        ("statistics of the model", None, None),
        ("statistics, line of JSON", Some(json.clone()), None),
        ("statistics, line of text", Some(text), None),
        ("statistics, recorded trace", None, Some(recorded.clone())),
        (
            "statistics, line of JSON, recorded trace",
            Some(json),
            Some(recorded),
        ),
    ];
    let mut group = criterion.benchmark_group("telling");
    for (name, log, spans) in rows {
        let is_told = log.is_some() || spans.is_some();
        let reporter = Reporter::new(Outlets { log, spans }, DrainWatch::default());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                one((&reporter, began), &head, model, (chosen, policy, &slot));
                if is_told {
                    while written.try_recv().is_ok() {}
                    while ended.try_recv().is_ok() {}
                }
            });
        });
    }
    group.bench_function("statistics of the engine", |bencher| {
        bencher.iter(|| {
            let expected = Expected {
                prompt: 10,
                output: 8,
            };
            let mut slot = InFlight::take(black_box(chosen), expected, began);
            slot.delivered(1, began);
            slot.settle_at(Outcome::Success, began);
        });
    });
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
