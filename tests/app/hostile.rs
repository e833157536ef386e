//! Input that no honest client sends: a clear answer, nothing leaked, no
//! engine blamed.

use std::time::Duration;

use crate::support::engine::RawEngine;
use crate::support::{Answer, TestApp, post};

fn app() -> (RawEngine, TestApp) {
    let engine = RawEngine::echo();
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.client_head = Duration::from_millis(300);
        config.settings.timeouts.client_body_idle = Duration::from_millis(300);
    });
    (engine, app)
}

/// Whatever came of it, nothing is left over and nobody is blamed.
fn unharmed(app: &TestApp) {
    app.settled();
    let page = app.get("/metrics").text();
    for line in page
        .lines()
        .filter(|line| line.starts_with("pilotfish_engine_requests_total"))
    {
        let blamed = line.contains("failure") || line.contains("timeout");
        assert!(!blamed || line.ends_with(" 0"), "{line}");
    }
    assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200, "it still serves");
}

fn raw(app: &TestApp, bytes: &[u8]) -> Option<Answer> {
    let mut client = app.connect();
    client.write(bytes);
    client.answer()
}

#[test]
fn bodies_that_make_no_sense() {
    let (_engine, app) = app();
    let deep = format!(r#"{{"model":"m","x":{}}}"#, "[".repeat(100_000));
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(10_000));
    for (body, code) in [
        ("", "invalid_json"),
        ("nonsense", "invalid_json"),
        ("{", "invalid_json"),
        (r#"{"model":"m"} trailing"#, "invalid_json"),
        (&deep, "invalid_json"),
        ("[1]", "invalid_json"),
        ("\"m\"", "invalid_json"),
        ("{}", "missing_model"),
        (r#"{"model":null}"#, "invalid_value"),
        (r#"{"model":7}"#, "invalid_value"),
        (r#"{"model":""}"#, "invalid_value"),
        (r#"{"model":"auto"}"#, "invalid_value"),
        (&long, "invalid_value"),
        (r#"{"model":"m","model":"m"}"#, "invalid_value"),
        (
            r#"{"stream":true,"model":"m","stream":false}"#,
            "invalid_value",
        ),
    ] {
        app.chat(body).assert_error(400, code);
    }
    let position = app.chat(r#"{"model":"m",}"#);
    assert!(position.text().contains("byte 13"), "{}", position.text());
    let mut request = post("/v1/chat/completions", r#"{"model":"m?"}"#).into_bytes();
    let at = request.iter().position(|byte| *byte == b'?').unwrap();
    request[at] = 0xff;
    raw(&app, &request)
        .unwrap()
        .assert_error(400, "invalid_json");
    unharmed(&app);
}

#[test]
fn bodies_beyond_what_we_hold() {
    let engine = RawEngine::echo();
    let small =
        |config: &mut pilotfish::config::Config| config.settings.limits.max_peek_bytes = 100_000;
    let body = format!(r#"{{"messages":"{}","model":"m"}}"#, "x".repeat(500_000));
    // One model: there is no doubt.
    let app = TestApp::with(&[(&engine.url(), "m")], small);
    let answer = app.chat(&body);
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with(body.as_bytes()));
    // Two models: nobody can tell.
    let app = TestApp::with(&[(&engine.url(), "m"), (&engine.url(), "n")], small);
    app.chat(&body).assert_error(413, "request_too_large");
    let first = body
        .replace(r#","model":"m""#, "")
        .replacen('{', r#"{"model":"n","#, 1);
    assert_eq!(app.chat(&first).status, 200);
    // All bodies together are bounded too.
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.bounds.peek_budget_bytes = 100_000
    });
    let answer = app.chat(&body);
    answer.assert_error(503, "overloaded");
    assert_eq!(answer.field("retry-after"), Some("1"));
    unharmed(&app);
}

#[test]
fn heads_that_make_no_sense() {
    let (_engine, app) = app();
    let fields = |n: usize| "x: y\r\n".repeat(n);
    let huge = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nbig: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", fields(1000));
    for (bytes, status) in [
        (b"nonsense\r\n\r\n".as_slice(), 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\0\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            400,
        ),
        (
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
            400,
        ),
        (huge.as_bytes(), 431),
        (many.as_bytes(), 431),
    ] {
        let answer = raw(&app, bytes).unwrap();
        assert_eq!(
            answer.status,
            status,
            "{}",
            String::from_utf8_lossy(&bytes[..60.min(bytes.len())])
        );
    }
    raw(&app, b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap()
        .assert_error(405, "method_not_allowed");
    raw(&app, b"TRACE / HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap()
        .assert_error(405, "method_not_allowed");
    let long = format!("{} / HTTP/1.1\r\nhost: x\r\n\r\n", "M".repeat(40));
    raw(&app, long.as_bytes())
        .unwrap()
        .assert_error(405, "method_not_allowed");
    // A bare LF ends a line, as RFC 9112 §2.2 allows; the engine gets CRLF.
    let lenient = raw(&app, b"GET /lf HTTP/1.1\nhost: x\n\n").unwrap();
    assert!(
        lenient.text().starts_with("GET /lf HTTP/1.1\r\n"),
        "{}",
        lenient.text()
    );
    unharmed(&app);
}

#[test]
fn a_length_and_chunks_at_once_are_one_request_and_the_end() {
    let (engine, app) = app();
    let mut client = app.connect();
    client.write(
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
    );
    let answer = client.answer().unwrap();
    assert!(answer.text().starts_with("POST /x "));
    assert!(client.answer().is_none(), "the connection ends");
    assert!(
        engine.connections() <= 3,
        "the model list's, the metrics', and one request's"
    );
    unharmed(&app);
}

#[test]
fn bad_chunks_are_the_clients_fault() {
    let (_engine, app) = app();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    for chunk in [
        "zz\r\n",
        "5\nabcde\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "3\r\n{\"aXX",
    ] {
        let answer = raw(&app, format!("{head}{chunk}").as_bytes());
        if let Some(answer) = answer {
            answer.assert_error(400, "incomplete_body");
        }
    }
    // Passed on as it comes: the engine never sees an end.
    let head = head.replace("application/json", "audio/wav");
    let answer = raw(&app, format!("{head}3\r\nabc\r\nzz\r\n").as_bytes());
    if let Some(answer) = answer {
        answer.assert_error(400, "incomplete_body");
    }
    unharmed(&app);
}

#[test]
fn a_client_that_leaves_mid_upload_is_nobodys_fault() {
    let (_engine, app) = app();
    for kind in ["application/json", "audio/wav"] {
        let mut client = app.connect();
        client.write(format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: 1000000\r\n\r\n{{\"model\"").as_bytes());
        drop(client);
    }
    unharmed(&app);
}

#[test]
fn slow_heads_and_bodies_are_late() {
    let (_engine, app) = app();
    // Nothing at all, half a preface, half a head.
    assert!(raw(&app, b"").is_none());
    assert!(raw(&app, b"PR").is_none_or(|answer| answer.status == 408));
    let late = raw(&app, b"GET / HTTP/1.1\r\nho").unwrap();
    late.assert_error_without_id(408, "head_timeout");
    // A head, a byte at a time: the deadline is for the whole of it.
    let mut client = app.connect();
    for byte in b"GET / HTTP/1.1\r\nhost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" {
        if std::io::Write::write_all(&mut client.stream, &[*byte]).is_err() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    drop(client);
    // A body that stops, and one that drips.
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    raw(&app, format!("{head}{{").as_bytes())
        .unwrap()
        .assert_error(408, "request_timeout");
    let mut client = app.connect();
    client.write(head.as_bytes());
    for _ in 0..20 {
        if std::io::Write::write_all(&mut client.stream, b" ").is_err() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    client
        .answer()
        .unwrap()
        .assert_error(408, "request_timeout");
    unharmed(&app);
}

#[test]
fn an_idle_connection_outlives_the_head_deadline() {
    let (_engine, app) = app();
    let mut client = app.connect();
    for _ in 0..2 {
        client.write(post("/v1/completions", r#"{"model":"m"}"#).as_bytes());
        assert_eq!(client.answer().unwrap().status, 200);
        std::thread::park_timeout(Duration::from_millis(600));
    }
}
