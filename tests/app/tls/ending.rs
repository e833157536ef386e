//! How connections end: by either side, by a cut, by a deadline, by a drain.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use super::{STREAM, app, mounted};
use crate::support::engine::RawEngine;
use crate::support::tls::{Ended, TlsClient};
use crate::support::{PATIENCE, eventually, post};

#[test]
fn a_client_that_leaves_is_noticed_whatever_it_has_sent() {
    let (authority, files) = mounted("leaving");
    let trusted = authority.trusted(None, &[]);
    for more in ["", "GET /health HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let gone = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&gone);
        let engine = RawEngine::start(move |mut conn| {
            if conn.request().is_some_and(|it| it.head.starts_with("POST")) {
                conn.stream_head();
                conn.chunk("data: 0\n\n");
                conn.closed();
                seen.store(true, SeqCst);
            }
        });
        let app = app(&engine.url(), files.settings(), |_| {});
        let mut client = TlsClient::connect(app.address, &trusted).unwrap();
        client.write(&post("/v1/chat/completions", STREAM));
        client.until("data: 0\n\n");
        client.write(more);
        drop(client);
        eventually("told", || gone.load(SeqCst));
        app.settled();
    }
}

#[test]
fn a_cut_answer_is_not_announced_as_an_end() {
    let (authority, files) = mounted("cut");
    let engine = RawEngine::start(|mut conn| {
        if conn.request().is_some_and(|it| it.head.starts_with("POST")) {
            conn.write("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\npart");
            socket2::SockRef::from(&conn.stream)
                .set_linger(Some(Duration::ZERO))
                .unwrap();
        }
    });
    let app = app(&engine.url(), files.settings(), |_| {});
    let trusted = authority.trusted(None, &[]);
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut client = TlsClient::connect(app.address, &trusted).unwrap();
        let request = post("/v1/chat/completions", r#"{"model":"m"}"#);
        client.write(&request.replace("HTTP/1.1", version));
        let (text, ended) = client.rest();
        // By its framing, or by how the connection ends: a client can tell.
        let is_chunked = text.contains("chunked");
        assert!(text.contains("part"), "{text}");
        assert!(!text.ends_with("0\r\n\r\n"), "{text}");
        assert!(is_chunked || ended != Ended::Announced, "{text}");
    }
}

#[test]
fn clients_that_are_too_slow_are_cut() {
    let (authority, files) = mounted("slow");
    let engine = RawEngine::start(|mut conn| {
        if conn.request().is_some_and(|it| it.head.starts_with("POST")) {
            conn.stream_head();
            let piece = "x".repeat(64 << 10);
            while conn
                .stream
                .write_all(format!("10000\r\n{piece}\r\n").as_bytes())
                .is_ok()
            {}
        }
    });
    let app = app(&engine.url(), files.settings(), |config| {
        config.settings.timeouts.client_head = Duration::from_millis(300);
        config.settings.timeouts.client_write_stall = Duration::from_millis(300);
    });
    let trusted = authority.trusted(None, &[]);
    let connect = || TlsClient::connect(app.address, &trusted).unwrap();
    // One that says nothing, and one that does not end its head.
    assert_eq!(connect().rest().0, "");
    let mut late = connect();
    late.write("GET /health HTTP/1.1\r\n");
    assert!(late.rest().0.starts_with("HTTP/1.1 408 "));
    // One that reads nothing.
    let mut deaf = connect();
    deaf.write(&post("/v1/chat/completions", STREAM));
    eventually("under way", || app.in_flight() == 1);
    app.settled();
}

#[test]
fn a_drain_lets_streams_end_and_tells_the_idle() {
    let (authority, files) = mounted("drain");
    let (engine, go) = RawEngine::stepped(1);
    let app = app(&engine.url(), files.settings(), |config| {
        config.drain.timeout = PATIENCE;
    });
    let trusted = authority.trusted(None, &[]);
    let mut idle = TlsClient::connect(app.address, &trusted).unwrap();
    idle.get("/health");
    let mut client = TlsClient::connect(app.address, &trusted).unwrap();
    client.write(&post("/v1/chat/completions", STREAM));
    client.until("data: 0\n\n");
    // One whose handshake has not begun does not hold us up.
    let _silent = TcpStream::connect(app.address).unwrap();
    let draining = std::thread::spawn(move || app.drain());
    assert_eq!(idle.rest(), (String::new(), Ended::Announced));
    go.send(()).unwrap();
    client.until("data: [DONE]\n\n\r\n0\r\n\r\n");
    assert_eq!(client.rest(), (String::new(), Ended::Announced));
    let report = draining.join().unwrap();
    assert_eq!((report.requests_cut, report.connections_cut), (0, 0));
}
