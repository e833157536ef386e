//! The body peek: 1 KiB within 1 µs, 1 MiB within 300 µs; and the look at a head
//! below hyper, which is to stay around 100 ns.
//!
//! `cargo bench --bench peek`; the figures are the time for one whole body.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros; a bench may fail"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pilotfish::downstream::strict::Scan;
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

/// A head of about 400 bytes as the official clients send it, with a body.
const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n\
    Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nAccept: application/json\r\n\
    Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.8.1\r\n\
    X-Stainless-Lang: python\r\nX-Stainless-Package-Version: 2.8.1\r\n\
    X-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n\
    Authorization: Bearer 0123456789abcdef\r\nContent-Length: 13\r\n\r\n{\"model\":\"m\"}";

fn head(criterion: &mut Criterion) {
    criterion.bench_function("head", |bencher| {
        let mut scan = Scan::default();
        bencher.iter(|| scan.push(std::hint::black_box(HEAD.as_bytes())));
        assert!(scan.has_seen(1));
    });
}

criterion_group!(benches, peek, head);
criterion_main!(benches);
