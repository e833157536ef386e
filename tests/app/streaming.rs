//! Streams pass event by event; who leaves, who is slow and who breaks off is
//! noticed on the other side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};

use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually, post};

const STREAM: &str = r#"{"model":"m","stream":true,"max_tokens":1000}"#;

fn chat() -> String {
    post("/v1/chat/completions", STREAM)
}

#[test]
fn events_pass_one_by_one() {
    let (engine, go) = RawEngine::stepped(5);
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(chat().as_bytes());
    for n in 0..5 {
        client.until(&format!("data: {n}\n\n"));
        go.send(()).unwrap();
    }
    client.until("data: [DONE]\n\n\r\n0\r\n\r\n");
    app.settled();
    assert_eq!(
        app.metric("pilotfish_inter_token_latency_seconds_count") as u64,
        5
    );
}

/// What a client does just before it leaves.
fn leave(request: &str, until: Option<&str>) {
    let speed = Speed {
        max_running: 1,
        base_ttft: Duration::from_millis(if until.is_some() { 0 } else { 10_000 }),
        itl: Duration::from_millis(5),
        ..Speed::default()
    };
    let engine = SimEngine::start(SimConfig::new("m", speed)).unwrap();
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(request.as_bytes());
    match until {
        Some(text) => drop(client.until(text)),
        None => eventually("the engine works", || app.in_flight() == 1),
    }
    eventually("the engine runs it", || {
        engine.gauges().running.load(SeqCst) == 1
    });
    drop(client);
    eventually("the engine's abort", || {
        engine.gauges().aborted.load(SeqCst) == 1
    });
    assert_eq!(engine.gauges().running.load(SeqCst), 0);
    app.settled();
    let gone = r#"pilotfish_engine_requests_total{engine=""#;
    let page = app.get("/metrics").text();
    let line = page
        .lines()
        .find(|l| l.starts_with(gone) && l.contains("client_gone"))
        .unwrap();
    assert!(line.ends_with(" 1"), "{line}");
}

#[test]
fn a_client_that_leaves_before_the_head_aborts_the_engine() {
    leave(&post("/v1/completions", r#"{"model":"m"}"#), None);
}

#[test]
fn a_client_that_leaves_mid_stream_aborts_the_engine() {
    leave(&chat(), Some("data: "));
}

#[test]
fn a_client_that_leaves_with_pipelined_bytes_aborts_the_engine() {
    leave(&format!("{}{}", chat(), chat()), Some("data: "));
    leave(
        &format!("{}GET / HT", post("/v1/completions", r#"{"model":"m"}"#)),
        None,
    );
}

#[test]
fn a_client_that_leaves_while_the_engine_queues_it_frees_its_place() {
    let speed = Speed {
        max_running: 1,
        base_ttft: Duration::from_secs(30),
        ..Speed::default()
    };
    let engine = SimEngine::start(SimConfig::new("m", speed)).unwrap();
    let app = TestApp::new(&[engine.url()]);
    let (mut first, mut second) = (app.connect(), app.connect());
    first.write(chat().as_bytes());
    eventually("one runs", || engine.gauges().running.load(SeqCst) == 1);
    second.write(chat().as_bytes());
    eventually("one waits", || engine.gauges().waiting.load(SeqCst) == 1);
    drop(second);
    eventually("none waits", || engine.gauges().waiting.load(SeqCst) == 0);
    assert_eq!(app.in_flight(), 1);
    drop(first);
    app.settled();
}

#[test]
fn a_slow_client_slows_the_engine() {
    const MOST: usize = 256 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let engine = RawEngine::start(move |mut conn| {
        if conn
            .request()
            .is_none_or(|seen| seen.head.starts_with("GET /v1/models "))
        {
            return;
        }
        conn.stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        conn.stream_head();
        let event = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while count.load(SeqCst) < MOST {
            if std::io::Write::write_all(&mut conn.stream, event.as_bytes()).is_err() {
                return;
            }
            count.fetch_add(0x10000, SeqCst);
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(chat().as_bytes());
    client.until("\r\n\r\n");
    // The engine gives up when nothing moves: long before it has sent all.
    eventually("the engine stops", || {
        let before = sent.load(SeqCst);
        std::thread::park_timeout(Duration::from_millis(700));
        before > 0 && before == sent.load(SeqCst)
    });
    assert!(
        sent.load(SeqCst) < 64 << 20,
        "{} bytes taken",
        sent.load(SeqCst)
    );
    drop(client);
    app.settled();
}

/// The connection's last bytes, of an engine that plays `answer` and closes.
fn cut(answer: &'static str) -> String {
    let engine = RawEngine::start(move |mut conn| {
        if conn
            .request()
            .is_some_and(|seen| !seen.head.starts_with("GET /v1/models "))
        {
            conn.write(answer);
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(chat().as_bytes());
    let rest = String::from_utf8(client.rest()).unwrap();
    app.settled();
    assert!(
        app.metric(&format!(
            "pilotfish_engine_requests_total{{engine=\"{}\",outcome=\"failure\"}}",
            engine.url()
        )) == 1.0
    );
    rest
}

const SSE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";

#[test]
fn a_cut_stream_never_looks_complete() {
    // At an event's boundary: the events, then one error event, no end.
    let got = cut(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n",
    );
    assert!(got.contains("data: 1\n\n"), "{got}");
    assert!(got.contains(r#"data: {"error":{"message":"#), "{got}");
    assert!(
        !got.contains("[DONE]") && !got.ends_with("0\r\n\r\n"),
        "{got}"
    );
    // In the midst of an event: nothing is added.
    let got = cut(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n8\r\ndata: 12\r\n",
    );
    assert!(got.contains("data: 12") && !got.contains("error"), "{got}");
    assert!(!got.ends_with("0\r\n\r\n"), "{got}");
    // A plain body, chunked or by length.
    let got = cut("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n");
    assert!(
        got.contains("abcde") && !got.ends_with("0\r\n\r\n"),
        "{got}"
    );
    let got = cut("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabcde");
    assert!(got.ends_with("\r\n\r\nabcde"), "{got}");
    // Garbage where a chunk should be.
    let got =
        cut("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\nnonsense\r\n");
    assert!(
        got.contains("abcde") && !got.ends_with("0\r\n\r\n"),
        "{got}"
    );
}

#[test]
fn a_client_of_http_1_0_is_not_fooled_either() {
    let engine = RawEngine::start(|mut conn| {
        let Some(seen) = conn.request() else { return };
        conn.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n");
        if seen.head.contains("/whole ") {
            conn.write("0\r\n\r\n");
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let read = |path: &str| {
        let mut client = app.connect();
        client.write(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        let mut all = Vec::new();
        let end = std::io::Read::read_to_end(&mut client.stream, &mut all);
        (
            String::from_utf8(all).unwrap(),
            end.map_err(|error| error.kind()),
        )
    };
    let (text, end) = read("/whole");
    assert!(
        text.ends_with("\r\n\r\nabcde") && end.is_ok(),
        "{text} {end:?}"
    );
    let (_, end) = read("/cut");
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_stream_that_ends_by_close_is_whole_only_when_it_says_so() {
    let engine = RawEngine::start(move |mut conn| {
        if let Some(seen) = conn.request() {
            let end = if seen.head.contains("/done ") {
                "data: [DONE]\n\n"
            } else {
                ""
            };
            conn.write(&format!("{SSE}connection: close\r\n\r\ndata: 1\n\n{end}"));
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(post("/done", "{}").as_bytes());
    let answer = client.answer().unwrap();
    assert!(
        answer.whole && answer.text() == "data: 1\n\ndata: [DONE]\n\n",
        "{answer:?}"
    );
    client.write(post("/cut", "{}").as_bytes());
    let answer = client.answer().unwrap();
    assert!(
        !answer.whole && answer.text().contains("error"),
        "{answer:?}"
    );
}

#[test]
fn an_answer_before_the_upload_ends_is_passed_on_at_once() {
    let engine = RawEngine::start(|mut conn| {
        let Some(head) = conn.head() else { return };
        if head.starts_with("GET") {
            return;
        }
        conn.write("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
        conn.closed();
    });
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    // The body never ends.
    client.write(b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-type: audio/wav\r\ncontent-length: 100000000\r\n\r\nabc");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
    app.settled();
}

#[test]
fn a_client_that_reads_only_after_it_has_sent_all_does_not_deadlock() {
    const SIZE: usize = 64 << 20;
    // Answers at once with more than all buffers hold, then reads everything.
    let engine = RawEngine::start(|mut conn| {
        let Some(head) = conn.head() else { return };
        if head.starts_with("GET") {
            return;
        }
        conn.write(&format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"
        ));
        let mut writer = conn.stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            let piece = vec![b'y'; 1 << 20];
            for _ in 0..SIZE >> 20 {
                std::io::Write::write_all(&mut writer, &piece).unwrap();
            }
        });
        conn.closed();
        writing.join().unwrap();
    });
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(
        format!("POST /upload HTTP/1.1\r\nhost: x\r\ncontent-type: audio/wav\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes(),
    );
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..SIZE >> 20 {
        client.write(&piece);
    }
    let answer = client.answer().unwrap();
    assert!(answer.whole && answer.body.len() == SIZE);
}
