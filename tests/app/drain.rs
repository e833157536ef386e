//! Stopping: readiness first, open streams last, and what was cut is told.

use std::time::Duration;

use crate::support::engine::RawEngine;
use crate::support::{PATIENCE, TestApp, post};

const STREAM: &str = r#"{"model":"m","stream":true}"#;

#[test]
fn open_streams_finish_and_new_requests_are_served_while_settling() {
    let (engine, go) = RawEngine::stepped(1);
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.drain.settle = Duration::from_millis(600);
        config.drain.timeout = PATIENCE;
    });
    let mut idle = app.connect();
    idle.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(idle.answer().unwrap().status, 200);
    let mut client = app.connect();
    client.write(post("/v1/chat/completions", STREAM).as_bytes());
    client.until("data: 0\n\n");
    let address = app.address;
    let draining = std::thread::spawn(move || app.drain());

    // Readiness fails; new connections are still served, and asked to close.
    crate::support::eventually("not ready", || {
        let mut probe = crate::support::Client::connect(address);
        probe.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n");
        probe.answer().is_some_and(|answer| answer.status == 503)
    });
    let mut late = crate::support::Client::connect(address);
    late.write(b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n");
    if let Some(answer) = late.answer() {
        assert_eq!(answer.field("connection"), Some("close"));
    }
    // Idle connections end, the stream goes on.
    assert!(idle.rest().is_empty());
    go.send(()).unwrap();
    client.until("data: [DONE]\n\n\r\n0\r\n\r\n");
    assert!(client.rest().is_empty());
    let report = draining.join().unwrap();
    assert_eq!((report.requests_cut, report.connections_cut), (0, 0));
}

#[test]
fn what_is_still_open_at_the_deadline_is_cut_and_counted() {
    let (engine, _go) = RawEngine::stepped(1);
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.drain.timeout = Duration::from_millis(200);
    });
    let mut client = app.connect();
    client.write(post("/v1/chat/completions", STREAM).as_bytes());
    client.until("data: 0\n\n");
    let report = app.drain();
    assert_eq!((report.requests_cut, report.connections_cut), (1, 1));
    let rest = String::from_utf8(client.rest()).unwrap();
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
}
