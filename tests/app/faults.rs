//! Engines that fail before they answer: who is blamed, what is repeated, and
//! what the client is told.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pilotfish::sim::faults::Fault;
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};

use crate::support::engine::RawEngine;
use crate::support::{TestApp, post};

const BODY: &str = r#"{"model":"m","max_tokens":2}"#;

/// A URL that nothing listens on.
fn nowhere() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", free.local_addr().unwrap())
}

fn outcome(app: &TestApp, url: &str, outcome: &str) -> u64 {
    let series =
        format!("pilotfish_engine_requests_total{{engine=\"{url}\",outcome=\"{outcome}\"}}");
    app.metric(&series) as u64
}

#[test]
fn an_engine_that_cannot_be_reached_is_passed_over() {
    let (dead, live) = (
        nowhere(),
        SimEngine::start(SimConfig::new("m", Speed::instant())).unwrap(),
    );
    let app = TestApp::new(&[dead.clone(), live.url()]);
    for _ in 0..4 {
        assert_eq!(app.chat(BODY).status, 200);
    }
    assert!(outcome(&app, &dead, "unreachable") >= 1);
    assert_eq!(outcome(&app, &live.url(), "success"), 4);
    assert!(app.metric(r#"pilotfish_retries_total{reason="unsent"}"#) >= 1.0);
}

#[test]
fn without_any_engine_that_can_be_reached_it_is_a_503() {
    let app = TestApp::new(&[nowhere(), nowhere()]);
    let answer = app.chat(BODY);
    answer.assert_error(503, "model_unavailable");
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(app.in_flight(), 0);
}

#[test]
fn an_empty_engine_list_is_a_state_like_any_other() {
    let app = TestApp::new(&[]);
    app.chat(BODY).assert_error(404, "model_not_found");
    let answer = app.get("/anything");
    answer.assert_error(503, "no_available_engine");
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(app.get("/health").status, 200);
    assert_eq!(app.get("/v1/models").json()["data"], serde_json::json!([]));
}

#[test]
fn faults_before_the_head_are_502_and_the_engines() {
    for fault in [
        Fault::Refuse,
        Fault::ResetBeforeHead,
        Fault::Garbage,
        Fault::GarbageHead,
        Fault::ContinueForever,
    ] {
        let config = SimConfig {
            fault: Some(fault),
            ..SimConfig::new("m", Speed::instant())
        };
        let engine = SimEngine::start(config).unwrap();
        let app = TestApp::new(&[engine.url()]);
        app.chat(BODY).assert_error(502, "engine_error");
        // There is no other: it gets a second chance.
        assert_eq!(outcome(&app, &engine.url(), "failure"), 2);
        assert_eq!(app.in_flight(), 0);
    }
    for garbage in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 20",
    ] {
        let engine = RawEngine::start(move |mut conn| {
            if conn.request().is_some() {
                conn.write(garbage);
            }
        });
        let app = TestApp::new(&[engine.url()]);
        app.chat(BODY).assert_error(502, "engine_error");
    }
}

#[test]
fn faults_can_be_asked_for_by_a_request() {
    let engine = SimEngine::start(SimConfig::new("m", Speed::instant())).unwrap();
    let app = TestApp::new(&[engine.url()]);
    let with = |fault: &str| {
        post("/v1/chat/completions", BODY).replacen(
            "host: x",
            &format!("host: x\r\nx-sim-fault: {fault}"),
            1,
        )
    };
    assert_eq!(app.send(&with("status=503")).status, 503);
    let busy = app.send(&with("busy=7"));
    assert_eq!((busy.status, busy.field("retry-after")), (429, Some("7")));
    app.send(&with("reset-before-head"))
        .assert_error(502, "engine_error");
    assert_eq!(app.send(&with("slow-head=30")).status, 200);
    assert_eq!(app.send(&with("early")).status, 413);
    assert_eq!(outcome(&app, &engine.url(), "overloaded"), 2);
    let stream = BODY
        .replace('}', r#","stream":true,"max_tokens":9}"#)
        .replace(r#""max_tokens":2,"#, "");
    for fault in ["reset-after=3", "truncate-after=3", "garbage-after=3"] {
        let request = post("/v1/chat/completions", &stream);
        let answer =
            app.send(&request.replacen("host: x", &format!("host: x\r\nx-sim-fault: {fault}"), 1));
        assert!(!answer.whole, "{fault}");
        assert!(
            !app.send(&with(fault).replace(":2}", ":9}")).whole,
            "{fault}"
        );
        let text = answer.text();
        assert!(
            text.matches("data: ").count() >= 3 || fault.starts_with("reset"),
            "{fault}: {text}"
        );
    }
    for _ in 0..4 {
        // What comes after an answer belongs to no other.
        assert!(matches!(app.send(&with("surplus")).status, 200 | 502));
    }
    let succeeded = || engine.gauges().succeeded.load(SeqCst);
    let before = succeeded();
    app.send(&with("restart")).assert_error(502, "engine_error");
    assert!(before > 0 && succeeded() == 0);
    assert_eq!(app.chat(BODY).status, 200, "it serves again");
    app.settled();
}

#[test]
fn a_connection_closed_just_as_it_is_reused_costs_the_client_nothing() {
    // Answers one request on each connection as if it would take more, then
    // closes when the second one comes, without a byte.
    let closed = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&closed);
    let engine = RawEngine::start(move |mut conn| {
        if conn.request().is_some() {
            conn.json("{}");
            if conn.request().is_some() {
                count.fetch_add(1, SeqCst);
            }
        }
    });
    let app = TestApp::new(&[engine.url()]);
    for _ in 0..20 {
        assert_eq!(app.chat(BODY).status, 200);
    }
    assert!(closed.load(SeqCst) >= 5, "{} closed", closed.load(SeqCst));
    assert_eq!(outcome(&app, &engine.url(), "success"), 20);
    assert_eq!(outcome(&app, &engine.url(), "failure"), 0);
    assert_eq!(
        app.metric("pilotfish_upstream_stale_total") as usize,
        closed.load(SeqCst)
    );
}

#[test]
fn an_engine_that_never_answers_is_a_504() {
    let config = SimConfig {
        fault: Some(Fault::Hang),
        ..SimConfig::new("m", Speed::instant())
    };
    let engine = SimEngine::start(config).unwrap();
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.engine_head = Duration::from_millis(200);
    });
    app.chat(BODY).assert_error(504, "engine_timeout");
    assert_eq!(outcome(&app, &engine.url(), "timeout"), 1);
    crate::support::eventually("the abort", || engine.gauges().aborted.load(SeqCst) == 1);
}

#[test]
fn an_engine_that_falls_silent_mid_stream_is_cut() {
    let config = SimConfig {
        fault: Some(Fault::StallAfter(3)),
        ..SimConfig::new("m", Speed::instant())
    };
    let engine = SimEngine::start(config).unwrap();
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.engine_idle = Duration::from_millis(200);
    });
    let answer = app.chat(r#"{"model":"m","stream":true,"max_tokens":9}"#);
    assert!(!answer.whole);
    assert!(
        answer.text().ends_with("\"engine_disconnected\"}}\n\n"),
        "{}",
        answer.text()
    );
    assert_eq!(outcome(&app, &engine.url(), "timeout"), 1);
    app.settled();
}

#[test]
fn surplus_bytes_are_never_anyones_answer() {
    let engine = RawEngine::start(|mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET /v1/models ") {
                return;
            }
            conn.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
        }
    });
    let app = TestApp::new(&[engine.url()]);
    for _ in 0..5 {
        assert_eq!(app.chat(BODY).text(), "ok");
    }
    assert_eq!(app.metric("pilotfish_upstream_reuses_total") as u64, 0);
}

/// What a client and the engine's account see of a fault.
#[derive(Debug, Clone, Copy)]
struct Row {
    fault: &'static str,
    body: &'static str,
    status: u16,
    /// Whether the answer is whole.
    whole: bool,
    outcome: &'static str,
    /// The engine's state after five of them.
    state: &'static str,
}

const WHOLE: &str = r#"{"model":"m","max_tokens":9}"#;
const STREAM: &str = r#"{"model":"m","max_tokens":9,"stream":true}"#;

const fn row(
    (fault, body): (&'static str, &'static str),
    (status, whole): (u16, bool),
    (outcome, state): (&'static str, &'static str),
) -> Row {
    Row {
        fault,
        body,
        status,
        whole,
        outcome,
        state,
    }
}

/// Faults before the head, and after it, for whole answers and for streams.
const TABLE: [Row; 31] = {
    let failed = ("failure", "ejected");
    let late = ("timeout", "ejected");
    let busy = ("overloaded", "pressed");
    let fine = ("success", "healthy");
    [
        row(("refuse", WHOLE), (502, true), failed),
        row(("refuse", STREAM), (502, true), failed),
        row(("reset-before-head", WHOLE), (502, true), failed),
        row(("reset-before-head", STREAM), (502, true), failed),
        row(("garbage", WHOLE), (502, true), failed),
        row(("garbage", STREAM), (502, true), failed),
        row(("garbage-head", WHOLE), (502, true), failed),
        row(("garbage-head", STREAM), (502, true), failed),
        row(("continue-forever", WHOLE), (502, true), failed),
        row(("hang", WHOLE), (504, true), late),
        row(("hang", STREAM), (504, true), late),
        row(("slow-head=20", WHOLE), (200, true), fine),
        row(("slow-head=20", STREAM), (200, true), fine),
        row(("early", WHOLE), (413, true), fine),
        row(("restart", WHOLE), (502, true), failed),
        row(("status=500", WHOLE), (500, true), failed),
        row(("status=500", STREAM), (500, true), failed),
        row(("status=501", WHOLE), (501, true), fine),
        row(("status=503", WHOLE), (503, true), busy),
        row(("busy=7", WHOLE), (429, true), busy),
        row(("busy=1000000000", STREAM), (429, true), busy),
        row(("reset-after=0", WHOLE), (502, true), failed),
        row(("truncate-after=0", WHOLE), (502, true), failed),
        row(("truncate-after=0", STREAM), (200, false), failed),
        row(("truncate-after=3", WHOLE), (200, false), failed),
        row(("truncate-after=3", STREAM), (200, false), failed),
        row(("reset-after=3", STREAM), (200, false), failed),
        row(("garbage-after=3", WHOLE), (200, false), failed),
        row(("garbage-after=3", STREAM), (200, false), failed),
        row(("stall-after=3", WHOLE), (200, false), late),
        row(("stall-after=3", STREAM), (200, false), late),
    ]
};

#[test]
fn each_fault_has_its_status_its_verdict_and_leaves_nothing_in_flight() {
    let check = |row: Row| {
        let config = SimConfig {
            fault: Some(row.fault.parse().unwrap()),
            ..SimConfig::new("m", Speed::instant())
        };
        let engine = SimEngine::start(config).unwrap();
        let app = TestApp::with(&[(&engine.url(), "m")], |config| {
            config.settings.timeouts.engine_head = Duration::from_millis(300);
            config.settings.timeouts.engine_idle = Duration::from_millis(300);
            config.settings.retry.attempts = 0;
        });
        for _ in 0..5 {
            let answer = app.chat(row.body);
            assert_eq!(answer.status, row.status, "{row:?}: {}", answer.text());
            assert_eq!(answer.whole, row.whole, "{row:?}: {}", answer.text());
            if !row.whole && row.body == STREAM {
                let text = answer.text();
                assert!(!text.contains("[DONE]"), "{row:?}: {text}");
                assert!(text.contains("engine_disconnected") || row.fault.starts_with("reset"));
            }
        }
        app.settled();
        assert_eq!(outcome(&app, &engine.url(), row.outcome), 5, "{row:?}");
        let state = app.get("/engines").json()[0]["state"].clone();
        assert_eq!(state, row.state, "{row:?}");
    };
    // Each waits for its own deadlines: side by side.
    std::thread::scope(|scope| {
        let rows: Vec<_> = TABLE.chunks(4).collect();
        for rows in rows {
            scope.spawn(move || rows.iter().for_each(|row| check(*row)));
        }
    });
}
