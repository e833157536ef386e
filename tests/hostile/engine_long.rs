//! E6: an answer that does not end soon, and an upload beside one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::json;

use crate::harness::app;
use crate::process::Process;
use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually, post, sim};

const PLAIN: &str = r#"{"model":"m"}"#;
const STREAM: &str = r#"{"model":"m","stream":true}"#;

#[test]
fn a_line_of_100_mb_passes_and_is_not_held() {
    const SIZE: usize = 100 << 20;
    let engine = RawEngine::start(|mut conn| {
        let Some(seen) = conn.request() else { return };
        if seen.head.starts_with("GET ") {
            conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
            return;
        }
        conn.stream_head();
        conn.chunk("data: ");
        let piece = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
        (0..SIZE >> 20).for_each(|_| conn.write(&piece));
        conn.chunk("\n\ndata: [DONE]\n\n");
        conn.write("0\r\n\r\n");
        conn.closed();
    });
    let process = Process::start(&engine.url(), &json!({}));
    for _ in 0..20 {
        assert_eq!(
            process
                .send("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
                .status,
            200
        );
    }
    let before = process.rss();
    let mut client = process.connect();
    client.write(post("/v1/chat/completions", STREAM).as_bytes());
    let (mut got, mut most) = (0, 0);
    let mut piece = vec![0; 1 << 20];
    let mut tail = Vec::new();
    while !tail.ends_with(b"0\r\n\r\n") {
        let read = std::io::Read::read(&mut client.stream, &mut piece).unwrap();
        assert!(read > 0, "after {got} bytes");
        if got >> 24 < (got + read) >> 24 {
            most = most.max(process.rss());
        }
        got += read;
        tail.extend_from_slice(&piece[read.saturating_sub(64)..read]);
        tail.drain(..tail.len().saturating_sub(64));
    }
    assert!(got > SIZE, "{got} bytes");
    assert!(tail.starts_with(b"x") || String::from_utf8_lossy(&tail).contains("[DONE]"));
    let grown = most.saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for one line");
    let url = engine.url();
    let failed = format!("pilotfish_engine_requests_total{{engine=\"{url}\",outcome=\"failure\"}}");
    assert_eq!(process.metric(&failed) as u64, 0);
}

#[test]
fn both_legs_of_a_request_end_together() {
    // There is no splitting of prefill and decode here: who asks for it is told.
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .args(["--service-discovery", "static", "--static-models", "m"])
        .args(["--static-backends", "http://127.0.0.1:1"])
        .args(["--routing-logic", "disaggregated_prefill"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("connector"), "{said}");
    // The two legs that there are: an upload that goes on while its answer comes.
    let over = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&over);
    let engine = RawEngine::start(move |mut conn| {
        let Some(head) = conn.head() else { return };
        if head.starts_with("GET ") {
            return;
        }
        conn.stream_head();
        conn.chunk("data: 1\n\n");
        if head.contains("/dies ") {
            return;
        }
        conn.closed();
        count.fetch_add(1, SeqCst);
    });
    let app = app(&engine.url(), |_| {});
    let upload = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: audio/wav\r\n\
             content-length: 900000000\r\n\r\nRIFF"
        )
    };
    // The engine dies: the upload is given up with the answer.
    let mut client = app.connect();
    client.write(upload("/dies").as_bytes());
    let answer = client.answer().unwrap();
    assert!(!answer.whole, "{answer:?}");
    assert!(client.rest().is_empty());
    app.settled();
    // The client leaves: the engine's answer is given up with the upload.
    let mut client = app.connect();
    client.write(upload("/lives").as_bytes());
    client.until("data: 1\n\n");
    drop(client);
    eventually("the engine is left", || over.load(SeqCst) == 1);
    app.settled();
    assert_eq!(of(&app, "failure"), 1, "the one that died");
    let good = sim(None);
    assert_eq!(TestApp::new(&[good.url()]).chat(PLAIN).status, 200);
}

fn of(app: &TestApp, outcome: &str) -> u64 {
    let page = app.get("/metrics").text();
    let name = format!("outcome=\"{outcome}\"");
    let of_engines = "pilotfish_engine_requests_total{";
    let mut lines = page.lines().filter(|line| line.starts_with(of_engines));
    let line = lines.find(|line| line.contains(&name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
