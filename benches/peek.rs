//! The body peek: 1 KiB within 1 µs, 1 MiB within 300 µs.
//!
//! `cargo bench --bench peek`; the figures are the time for one whole body.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may fail"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pilotfish::proxy::peek::Scanner;

/// A chat request of about so many bytes, `model` last, as the worst case.
fn body(bytes: usize) -> Vec<u8> {
    let line = r#"def hello():\n    print(\"hello, world\")  # a comment, as code has\n"#;
    let content: String = line
        .chars()
        .cycle()
        .take(bytes.saturating_sub(120))
        .collect();
    // The cycle may have been cut within an escape.
    let content = content.trim_end_matches('\\');
    format!(
        r#"{{"messages":[{{"role":"user","content":"{content}"}}],"max_tokens":64,"stream":true,"model":"m"}}"#
    )
    .into_bytes()
}

fn peek(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("peek");
    for bytes in [1 << 10, 100 << 10, 1 << 20] {
        let body = body(bytes);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(bytes),
            &body,
            |bencher, body| {
                bencher.iter(|| {
                    let mut scanner = Scanner::default();
                    // As they come off a socket.
                    for piece in body.chunks(64 << 10) {
                        scanner.push(piece).unwrap();
                    }
                    scanner.finish().unwrap();
                    scanner.into_found()
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, peek);
criterion_main!(benches);
