//! E3, the first half: who is slow, greedy, or takes nothing.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::frames::PREFACE;
use crate::harness::{Blame, Conn, Outcomes, SHORT, Witness, app, row, run};
use crate::process::Process;
use crate::support::engine::RawEngine;
use crate::support::{Client, PATIENCE, TestApp, eventually, post};

use Blame::{Never, NoEffect};
use Conn::{Closed, Kept};

const STREAM: &str = r#"{"model":"m","stream":true}"#;

fn stage() -> (Witness, TestApp) {
    let witness = Witness::start();
    let app = app(&witness.url(), |config| {
        config.settings.timeouts.client_head = SHORT;
        config.settings.timeouts.client_body_idle = SHORT;
    });
    (witness, app)
}

/// Asserts that the connection ends, long before an idle one would.
#[track_caller]
fn ends_soon(client: &mut Client, what: &str) -> Vec<u8> {
    let since = Instant::now();
    let rest = client.rest();
    let waited = since.elapsed();
    assert!(waited < Duration::from_secs(10), "{what}: {waited:?}");
    rest
}

#[test]
fn the_first_bytes_are_due_whatever_protocol_they_begin() {
    let (witness, app) = stage();
    for first in [b"".as_slice(), b"P", b"PRI ", &PREFACE[..23], b"G", b"\r\n"] {
        let mut client = app.connect();
        client.write(first);
        let rest = ends_soon(&mut client, &format!("{first:?}"));
        let said = String::from_utf8(rest).unwrap();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408 "),
            "{said}"
        );
    }
    assert!(witness.met().is_empty());
    // A whole preface is a client that may rest.
    let mut client = app.connect();
    client.write(PREFACE);
    client.stream.set_read_timeout(Some(3 * SHORT)).unwrap();
    let mut byte = [0; 64];
    let mut read = || std::io::Read::read(&mut client.stream, &mut byte);
    while matches!(read(), Ok(n) if n > 0) {}
    let end = read();
    assert!(end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_handshake_that_stalls_is_given_up() {
    let witness = Witness::start();
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
    let [cert, key] = ["collector.pem", "collector.key"].map(|name| format!("{fixtures}{name}"));
    let process = Process::start_with(
        &witness.url(),
        &json!({"timeouts": {"client_head": "300ms"}}),
        &["--tls-cert", &cert, "--tls-key", &key],
    );
    // Nothing, half of a hello, and a hello that promises more than it sends.
    let hello: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for first in [b"".as_slice(), &hello[..3], hello] {
        let mut clients: Vec<Client> = (0..50).map(|_| process.connect()).collect();
        for client in &mut clients {
            client.write(first);
        }
        for client in &mut clients {
            ends_soon(client, "a handshake");
        }
    }
    // What is no TLS at all is not kept either.
    let mut client = process.connect();
    client.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    let said = ends_soon(&mut client, "no TLS");
    assert!(!said.starts_with(b"HTTP/1.1 200"));
    assert!(witness.met().is_empty());
}

#[test]
fn a_head_is_due_as_a_whole() {
    let (witness, app) = stage();
    let half = b"GET / HTTP/1.1\r\nho";
    run(
        &app,
        Some(&witness),
        &[row(
            (18, "half a head"),
            half,
            (&[408], "head_timeout"),
            (Closed, Never),
        )],
    );
    // A byte at a time, and a field at a time: never silent for long.
    for piece in ["x", "a: b\r\n"] {
        let mut client = app.connect();
        client.write(b"GET / HTTP/1.1\r\n");
        let since = Instant::now();
        while client.stream.write_all(piece.as_bytes()).is_ok() {
            std::thread::park_timeout(Duration::from_millis(20));
            assert!(since.elapsed() < Duration::from_secs(10), "it goes on");
        }
    }
    assert!(witness.met().is_empty());
}

#[test]
fn a_body_is_due_piece_by_piece_and_not_too_slowly() {
    let (witness, app) = stage();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n";
    run(
        &app,
        Some(&witness),
        &[row(
            (19, "a body that stops"),
            format!("{head}{{"),
            (&[408], "request_timeout"),
            (Closed, Never),
        )],
    );
    // A byte now and then: below the least rate.
    let mut client = app.connect();
    client.write(head.as_bytes());
    let since = Instant::now();
    while client.stream.write_all(b" ").is_ok() && since.elapsed() < 5 * SHORT {
        std::thread::park_timeout(Duration::from_millis(50));
        assert_eq!(witness.met().len(), 0, "no engine waits for it");
    }
    let late = client.answer().unwrap();
    late.assert_error(408, "request_timeout");
    assert!(client.rest().is_empty());
    // One that an engine has begun to get: it never sees an end.
    let audio = head.replace("application/json", "audio/wav");
    let audio = audio.replace(": 100\r\n", ": 9000000\r\n");
    let mut client = app.connect();
    client.write(format!("{audio}RIFF").as_bytes());
    if let Some(answer) = client.answer() {
        answer.assert_error(408, "request_timeout");
    }
    app.settled();
    assert!(witness.met().iter().all(|met| met.body.is_none()));
    assert_eq!(Outcomes::of(&app).faults, 0);
}

#[test]
fn a_body_beyond_its_bound_is_refused_before_it_has_come() {
    let witness = Witness::start();
    let url = witness.url();
    // Of two models nobody can tell which: of one it would be passed on.
    let app = TestApp::with(&[(&url, "m"), (&url, "n")], |config| {
        config.settings.limits.max_peek_bytes = 100_000;
    });
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let some = format!(r#"{{"messages":"{}"#, "x".repeat(150_000));
    let declared = format!("{head}content-length: 900000000\r\n\r\n{some}");
    let size = some.len();
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{size:x}\r\n{some}\r\n");
    let refused = (&[413_u16] as &[u16], "request_too_large");
    run(
        &app,
        Some(&witness),
        &[
            row((20, "declared"), declared, refused, (Closed, Never)),
            row((20, "in chunks"), chunked, refused, (Closed, Never)),
        ],
    );
}

#[test]
fn a_body_beyond_its_bound_is_passed_on_where_there_is_no_doubt() {
    let witness = Witness::start();
    let url = witness.url();
    let body = format!(r#"{{"messages":"{}","model":"m"}}"#, "x".repeat(500_000));
    let first = format!(r#"{{"model":"m","messages":"{}"}}"#, "x".repeat(500_000));
    // One model; and two, of which the body's first bytes name one.
    for (models, body) in [(&["m"][..], &body), (&["m", "n"], &first)] {
        let engines: Vec<(&str, &str)> = models.iter().map(|model| (&*url, *model)).collect();
        let app = TestApp::with(&engines, |config| {
            config.settings.limits.max_peek_bytes = 100_000;
        });
        assert_eq!(app.chat(body).status, 200);
        let met = witness.met().pop().unwrap();
        assert_eq!(met.body.as_deref(), Some(body.as_bytes()), "to the byte");
    }
}

#[test]
fn an_idle_connection_outlives_the_deadline_of_a_head() {
    let (_witness, app) = stage();
    let mut client = app.connect();
    for _ in 0..2 {
        client.write(post("/v1/completions", r#"{"model":"m"}"#).as_bytes());
        assert_eq!(client.answer().unwrap().status, 200);
        std::thread::park_timeout(2 * SHORT);
    }
}

#[test]
fn all_bodies_together_have_a_bound() {
    let witness = Witness::start();
    let body = format!(r#"{{"messages":"{}","model":"m"}}"#, "x".repeat(500_000));
    let app = app(&witness.url(), |config| {
        config.bounds.peek_budget_bytes = 100_000;
    });
    let answer = app.chat(&body);
    answer.assert_error(503, "overloaded");
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert!(witness.met().is_empty());
    assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200);
}

#[test]
fn who_would_send_a_body_in_vain_is_told_before() {
    let (witness, app) = stage();
    let expects = |fields: &str| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             expect: 100-continue\r\n{fields}\r\n"
        )
    };
    let length = "content-length: 13\r\n";
    run(
        &app,
        Some(&witness),
        &[row(
            (21, "an encoding"),
            expects(&format!("content-encoding: gzip\r\n{length}")),
            (&[415], "unsupported_encoding"),
            (Closed, Never),
        )],
    );
    // Who is welcome is told so, once, and the engine is not asked for it.
    let mut client = app.connect();
    client.write(expects(length).as_bytes());
    assert_eq!(client.answer().unwrap().status, 100);
    client.write(br#"{"model":"m"}"#);
    assert_eq!(client.answer().unwrap().status, 200);
    let head = witness.met().pop().unwrap().head;
    assert!(!head.contains("expect"), "{head}");
    // Another expectation is nobody's.
    let odd = expects(length).replace("100-continue", "y 100-continue");
    run(
        &app,
        Some(&witness),
        &[row(
            (21, "an unknown expectation"),
            odd + r#"{"model":"m"}"#,
            (&[200, 417], ""),
            (Kept, NoEffect),
        )],
    );
}

/// An engine that sends for as long as someone takes it, and what it sent.
pub(crate) fn flood() -> (RawEngine, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (sent, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, over) = (Arc::clone(&sent), Arc::clone(&ended));
    let engine = RawEngine::start(move |mut conn| {
        let Some(seen) = conn.request() else { return };
        if seen.head.starts_with("GET ") {
            conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
            return;
        }
        conn.stream_head();
        conn.stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let event = format!("data: {}\n\n", "x".repeat(0x4000 - 8));
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while conn.stream.write_all(chunk.as_bytes()).is_ok() {
            count.fetch_add(event.len(), SeqCst);
        }
        over.fetch_add(1, SeqCst);
    });
    (engine, sent, ended)
}

#[test]
fn who_takes_nothing_holds_an_engine_back_and_is_cut() {
    let (engine, sent, ended) = flood();
    let process = Process::start(
        &engine.url(),
        &json!({"timeouts": {"client_write_stall": "500ms"}}),
    );
    let idle = process.metric("pilotfish_client_connections ") as u64;
    let before = process.rss();
    let mut clients: Vec<Client> = (0..8).map(|_| process.connect()).collect();
    for client in &mut clients {
        client.write(post("/v1/chat/completions", STREAM).as_bytes());
        client.until("\r\n\r\n");
    }
    eventually("the engine's streams end", || ended.load(SeqCst) == 8);
    let grown = process.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for eight streams");
    assert!(sent.load(SeqCst) < 8 * (16 << 20), "{sent:?} bytes taken");
    for client in &mut clients {
        let rest = client.rest();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "no end");
    }
    let outcome = |name: &str| {
        let url = engine.url();
        process.metric(&format!(
            "pilotfish_engine_requests_total{{engine=\"{url}\",outcome=\"{name}\"}}"
        )) as u64
    };
    assert_eq!(
        (
            outcome("client_gone"),
            outcome("failure"),
            outcome("timeout")
        ),
        (8, 0, 0)
    );
    assert_eq!(process.metric("pilotfish_client_connections ") as u64, idle);
}
