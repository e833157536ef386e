//! What knowing the caller costs a request: with limits of both kinds, at most a
//! microsecond; nothing when nobody asks.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench may fail where it stands"
)]

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use pilotfish::auth::{Auth, hash};
use pilotfish::config::auth::{CallerEntry, MOST_CALLERS, Proof};

fn head(key: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "pilotfish:8001"),
        ("content-type", "application/json"),
        ("accept", "*/*"),
        ("user-agent", "OpenAI/Python 2.8.0"),
        ("x-stainless-lang", "python"),
        ("x-stainless-runtime", "CPython"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
    headers.insert(AUTHORIZATION, value);
    headers
}

fn key(n: usize) -> String {
    format!("pf-{n:064x}")
}

fn costs(criterion: &mut Criterion) {
    let entries = |count: usize| -> Vec<CallerEntry> {
        let entries = (0..count).map(|n| CallerEntry {
            name: format!("team-{n}").into(),
            proof: Proof::Keys(vec![hash(key(n).as_bytes())]),
            models: Some(["llama-3".to_owned()].into()),
            requests_per_minute: NonZeroU32::new(u32::MAX),
            max_in_flight: NonZeroU32::new(32),
            expires: Some(std::time::Duration::from_secs(u64::MAX)),
        });
        entries.collect()
    };
    let (few, most) = (Auth::new(&entries(1)), Auth::new(&entries(MOST_CALLERS)));
    let mut group = criterion.benchmark_group("auth");
    for (name, auth, headers) in [
        ("a key of one", &few, head(&key(0))),
        ("a key of 10,000", &most, head(&key(4711))),
        ("a wrong key", &most, head(&key(MOST_CALLERS))),
        ("a key of 10 KB", &most, head(&"k".repeat(10 << 10))),
        ("no key", &most, HeaderMap::new()),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let admitted = auth.admit(black_box(&headers), None).ok();
                admitted.map(|one| one.caller.may_use("llama-3", |_| None))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
