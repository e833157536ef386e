//! Nothing is lost: what is sent again, who is asked when engines are in
//! trouble, and how they come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pilotfish::config::{Causes, Commit};
use pilotfish::sim::faults::Fault;
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};

use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually, post, sim};

const BODY: &str = r#"{"model":"m","max_tokens":2}"#;
const STREAM: &str = r#"{"model":"m","max_tokens":5,"stream":true}"#;

fn on(port: u16) -> SimEngine {
    let mut config = SimConfig::new("m", Speed::instant());
    config.listen.set_port(port);
    SimEngine::start(config).unwrap()
}

fn urls(engines: &[&SimEngine]) -> Vec<String> {
    engines.iter().map(|engine| engine.url()).collect()
}

fn state(app: &TestApp, at: usize) -> String {
    let engines = app.get("/engines").json();
    engines[at]["state"].as_str().unwrap().to_owned()
}

fn retries(app: &TestApp, reason: &str) -> u64 {
    app.metric(&format!("pilotfish_retries_total{{reason=\"{reason}\"}}")) as u64
}

/// Sorted.
fn statuses(app: &TestApp, count: usize) -> Vec<u16> {
    let mut all: Vec<u16> = (0..count).map(|_| app.chat(BODY).status).collect();
    all.sort_unstable();
    all
}

fn with(field: &str, body: &str) -> String {
    let head = format!("host: x\r\n{field}");
    post("/v1/chat/completions", body).replacen("host: x", &head, 1)
}

#[test]
fn what_an_engine_had_and_did_not_answer_goes_to_another() {
    for fault in [
        Fault::ResetBeforeHead,
        Fault::Garbage,
        Fault::TruncateAfter(0),
    ] {
        let (bad, good) = (sim(Some(fault)), sim(None));
        let app = TestApp::new(&urls(&[&bad, &good]));
        for _ in 0..10 {
            let answer = app.send(&with("x-pilotfish-explain: 1", BODY));
            assert_eq!(answer.status, 200);
            let attempts = answer.field("x-pilotfish-attempts").unwrap();
            assert!(["1", "2"].contains(&attempts));
            assert_eq!(answer.field("x-pilotfish-engine"), Some(&*good.url()));
        }
        assert!(retries(&app, "reset") >= 4);
        app.settled();
    }
}

#[test]
fn how_often_and_after_what_is_configured() {
    let (bad, good) = (sim(Some(Fault::ResetBeforeHead)), sim(None));
    let app = TestApp::with(&[(&bad.url(), "m"), (&good.url(), "m")], |config| {
        config.settings.retry.attempts = 0;
    });
    let seen = statuses(&app, 4);
    assert_eq!(seen, [200, 200, 502, 502]);
    let (bad, good) = (sim(Some(Fault::Status(500))), sim(None));
    let both = [(&*bad.url(), "m"), (&*good.url(), "m")];
    let app = TestApp::new(&urls(&[&bad, &good]));
    let seen = statuses(&app, 4);
    assert_eq!(seen, [200, 200, 500, 500], "not by default");
    let app = TestApp::with(&both, |config| {
        config.settings.retry.on = Causes {
            server_error: true,
            ..Causes::default()
        };
    });
    (0..4).for_each(|_| assert_eq!(app.chat(BODY).status, 200));
    assert!(retries(&app, "server_error") >= 1);
    let (bad, good) = (sim(Some(Fault::Hang)), sim(None));
    let app = TestApp::with(&[(&bad.url(), "m"), (&good.url(), "m")], |config| {
        config.settings.timeouts.engine_head = Duration::from_millis(200);
        config.settings.retry.on.timeout = true;
    });
    (0..4).for_each(|_| assert_eq!(app.chat(BODY).status, 200));
    assert!(retries(&app, "timeout") >= 1);
}

#[test]
fn a_body_that_is_not_held_is_not_sent_again() {
    let (bad, good) = (sim(Some(Fault::ResetBeforeHead)), sim(None));
    let app = TestApp::with(&[(&bad.url(), "m"), (&good.url(), "m")], |config| {
        config.settings.limits.max_replay_bytes = 10;
    });
    let seen = statuses(&app, 4);
    assert_eq!(seen, [200, 200, 502, 502]);
    assert_eq!(retries(&app, "reset"), 0);
}

#[test]
fn what_may_leave_a_trace_is_not_sent_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let engine = RawEngine::start(move |mut conn| {
        if let Some(request) = conn.request()
            && request.head.starts_with("POST ")
        {
            count.fetch_add(1, SeqCst);
        }
    });
    let app = TestApp::new(&[engine.url()]);
    for (path, times) in [
        ("/v1/files", 1),
        ("/v1/load_lora_adapter", 1),
        ("/v1/chat/completions", 2),
    ] {
        let answer = app.send(&post(path, BODY));
        answer.assert_error(502, "engine_error");
        assert_eq!(seen.swap(0, SeqCst), times, "{path}");
    }
    assert_eq!(retries(&app, "reset"), 1);
}

#[test]
fn the_budget_bounds_what_is_sent_again() {
    let (bad, good) = (sim(Some(Fault::ResetBeforeHead)), sim(None));
    let app = TestApp::with(&[(&bad.url(), "m"), (&good.url(), "m")], |config| {
        config.settings.retry.reserve = 0.0;
        config.settings.breaker.failures = 1000;
        config.settings.breaker.ratio = 1.0;
        config.workers = 1;
    });
    let statuses: Vec<u16> = (0..40).map(|_| app.chat(BODY).status).collect();
    let failed = statuses.iter().filter(|status| **status == 502).count();
    let again = retries(&app, "reset");
    assert!(
        (6..=8).contains(&again),
        "a fifth of 40, as they came: {again}"
    );
    assert_eq!(failed + again as usize, 20, "{statuses:?}");
    assert_eq!(
        app.metric("pilotfish_retries_denied_total") as usize,
        failed
    );
}

#[test]
fn a_busy_engine_is_passed_over_and_left_alone() {
    let (busy, good) = (sim(Some(Fault::Busy(30))), sim(None));
    let app = TestApp::new(&urls(&[&busy, &good]));
    (0..10).for_each(|_| assert_eq!(app.chat(BODY).status, 200));
    assert_eq!(retries(&app, "busy"), 1, "asked once in 30 s");
    assert_eq!(state(&app, usize::from(busy.url() > good.url())), "pressed");
    // Nobody else: the engine's own words.
    good.set_fault(Some(Fault::Status(503)));
    let answer = app.chat(BODY);
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("SimulatedError"),
        "{}",
        answer.text()
    );
    let alone = TestApp::new(&urls(&[&busy]));
    for _ in 0..3 {
        let answer = alone.chat(BODY);
        assert_eq!(
            (answer.status, answer.field("retry-after")),
            (429, Some("30"))
        );
    }
}

#[test]
fn when_both_are_busy_the_first_answer_is_given() {
    let first = sim(Some(Fault::Busy(11)));
    let second = sim(Some(Fault::Busy(22)));
    let app = TestApp::new(&urls(&[&first, &second]));
    let answer = app.send(&with("x-pilotfish-explain: 1", BODY));
    assert_eq!(answer.field("x-pilotfish-attempts"), Some("2"));
    let asked_first = answer.field("x-pilotfish-engine").unwrap() == first.url();
    let expected = if asked_first { "11" } else { "22" };
    assert_eq!(
        (answer.status, answer.field("retry-after")),
        (429, Some(expected))
    );
    app.settled();
}

#[test]
fn a_stream_may_go_elsewhere_until_its_first_token_if_that_is_wanted() {
    let (bad, good) = (sim(Some(Fault::TruncateAfter(0))), sim(None));
    let both = [(&*bad.url(), "m"), (&*good.url(), "m")];
    let app = TestApp::with(&both, |config| {
        config.settings.retry.until = Commit::FirstPiece;
    });
    for _ in 0..6 {
        let answer = app.chat(STREAM);
        assert!(answer.whole && answer.text().ends_with("data: [DONE]\n\n"));
    }
    bad.set_fault(Some(Fault::StallAfter(0)));
    let app = TestApp::with(&both, |config| {
        config.settings.retry.until = Commit::FirstPiece;
        config.settings.retry.on.timeout = true;
        config.settings.timeouts.first_token = Some(Duration::from_millis(200));
    });
    for _ in 0..4 {
        assert!(app.chat(STREAM).whole);
    }
    assert!(retries(&app, "timeout") >= 1);
}

#[test]
fn the_first_token_is_due_though_the_head_was_given() {
    let engine = sim(Some(Fault::StallAfter(0)));
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.first_token = Some(Duration::from_millis(200));
    });
    let began = Instant::now();
    let answer = app.chat(STREAM);
    assert_eq!((answer.status, answer.whole), (200, false));
    assert!(began.elapsed() < Duration::from_secs(10));
    engine.set_fault(Some(Fault::StallAfter(2)));
    // It came in time; what follows has the idle deadline.
    let mut client = app.connect();
    client.write(post("/v1/chat/completions", STREAM).as_bytes());
    client.until("data: ");
    assert_eq!(app.in_flight(), 1);
}

#[test]
fn a_request_may_say_how_long_it_may_take() {
    let engine = sim(Some(Fault::Hang));
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.total = Some(Duration::from_secs(3600));
    });
    let answer = app.send(&with("x-pilotfish-timeout-ms: 150", BODY));
    answer.assert_error(504, "deadline_exceeded");
    engine.set_fault(Some(Fault::StallAfter(2)));
    let answer = app.send(&with("x-pilotfish-timeout-ms: 150", STREAM));
    assert!(!answer.whole && answer.text().contains("deadline_exceeded"));
    app.settled();
    // Nobody's fault: a client in a hurry sets no engine aside.
    for _ in 0..5 {
        app.send(&with("x-pilotfish-timeout-ms: 1", BODY));
    }
    assert_eq!(state(&app, 0), "healthy");
    for value in ["0", "-5", "soon", "1.5"] {
        let field = format!("x-pilotfish-timeout-ms: {value}");
        app.send(&with(&field, BODY))
            .assert_error(400, "invalid_header");
    }
    // The next request on the same connection has its own time.
    engine.set_fault(None);
    let mut client = app.connect();
    client.write(with("x-pilotfish-timeout-ms: 100", BODY).as_bytes());
    assert_eq!(client.answer().unwrap().status, 200);
    engine.set_fault(Some(Fault::SlowHead(Duration::from_millis(400))));
    client.write(post("/v1/chat/completions", BODY).as_bytes());
    assert_eq!(client.answer().unwrap().status, 200);
}

#[test]
fn the_total_caps_what_a_request_may_ask_for() {
    let engine = sim(Some(Fault::Hang));
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.total = Some(Duration::from_millis(200));
    });
    for _ in 0..5 {
        let answer = app.send(&with("x-pilotfish-timeout-ms: 3600000", BODY));
        answer.assert_error(504, "deadline_exceeded");
    }
    // That time is ours: who has told nothing by then hangs.
    assert_eq!(state(&app, 0), "ejected");
}

#[test]
fn what_is_no_stream_has_no_first_token_to_wait_for() {
    let engine = sim(Some(Fault::SlowHead(Duration::from_millis(500))));
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.first_token = Some(Duration::from_millis(100));
    });
    assert_eq!(app.chat(BODY).status, 200);
    app.chat(STREAM).assert_error(504, "engine_timeout");
}

#[test]
fn what_a_dying_engine_had_is_not_taken_for_unsent() {
    // It serves one request on a connection, and goes with the second.
    let engine = RawEngine::start(|mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("POST /v1/chat/completions ") {
                if seen.body.starts_with(br#"{"model":"m","last":1"#) {
                    std::thread::park_timeout(Duration::from_millis(1200));
                    return;
                }
                conn.json("{}");
            }
        }
    });
    let other = sim(None);
    let app = TestApp::with(&[(&engine.url(), "m"), (&other.url(), "m")], |config| {
        config.settings.retry.attempts = 0;
        config.settings.routing.allow.engine = true;
    });
    let pin = format!("x-pilotfish-engine: {}", engine.url());
    assert_eq!(app.send(&with(&pin, BODY)).status, 200);
    let last = r#"{"model":"m","last":1}"#;
    let (first, second) = (app.chat(last), app.chat(last));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 502],
        "one went to the other engine, none to both"
    );
}

#[test]
fn a_client_that_takes_nothing_is_cut_with_its_time() {
    let engine = RawEngine::answering(&format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n{}",
        "x".repeat(50_000_000)
    ));
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.total = Some(Duration::from_millis(300));
    });
    let mut client = app.connect();
    client.write(post("/v1/chat/completions", BODY).as_bytes());
    eventually("it is under way", || app.in_flight() == 1);
    app.settled();
    assert!(client.rest().len() < 50_000_000);
}

#[test]
fn when_nobody_can_be_reached_it_is_a_503_at_once_and_no_storm() {
    let engines = [sim(None), sim(None)];
    let ports = engines.each_ref().map(|engine| engine.address.port());
    let app = TestApp::new(&urls(&[&engines[0], &engines[1]]));
    assert_eq!(app.chat(BODY).status, 200);
    drop(engines);
    for _ in 0..5 {
        app.chat(BODY).assert_error(503, "model_unavailable");
    }
    eventually("both are down", || {
        state(&app, 0) == "down" && state(&app, 1) == "down"
    });
    let probes = |app: &TestApp| app.metric("pilotfish_engine_probes_total") as u64;
    let tried = app.metric("pilotfish_retries_total{reason=\"unsent\"}");
    let (before, began) = (probes(&app), Instant::now());
    for _ in 0..500 {
        let answer = app.chat(BODY);
        answer.assert_error(503, "model_unavailable");
        let after: u64 = answer.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&after));
    }
    // Those requests asked nobody; only our own probes did, one in five seconds.
    let seconds = began.elapsed().as_secs() + 1;
    assert_eq!(
        app.metric("pilotfish_retries_total{reason=\"unsent\"}"),
        tried
    );
    assert!(probes(&app) - before <= seconds.div_ceil(5) + 1);
    let _back = ports.map(on);
    eventually("traffic within the probe interval", || {
        app.chat(BODY).status == 200
    });
    eventually("both are trusted", || {
        app.chat(BODY);
        state(&app, 0) == "healthy" && state(&app, 1) == "healthy"
    });
    app.settled();
}

#[test]
fn engines_come_back_without_any_traffic() {
    let engine = sim(Some(Fault::Status(500)));
    let other = sim(None);
    let app = TestApp::with(&[(&engine.url(), "m"), (&other.url(), "m")], |config| {
        config.settings.breaker.ejection = Duration::from_millis(100);
    });
    (0..10).for_each(|_| drop(app.chat(BODY)));
    let at = usize::from(engine.url() > other.url());
    assert_ne!(state(&app, at), "healthy");
    engine.set_fault(None);
    eventually("three good probes", || state(&app, at) == "healthy");
    assert!(
        app.metric(&format!(
            "pilotfish_engine_ejections_total{{engine=\"{}\"}}",
            engine.url()
        )) >= 1.0
    );
}

#[test]
fn more_than_half_ejected_and_all_are_asked() {
    let engines = [Some(Fault::Status(500)), Some(Fault::Status(500)), None].map(sim);
    let app = TestApp::new(&urls(&[&engines[0], &engines[1], &engines[2]]));
    let statuses: Vec<u16> = (0..60).map(|_| app.chat(BODY).status).collect();
    let bad = statuses
        .iter()
        .skip(30)
        .filter(|status| **status == 500)
        .count();
    assert!(bad >= 10, "the third would drown: {statuses:?}");
    app.settled();
}

#[test]
fn health_checks_find_what_no_request_did() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let engine = RawEngine::start(move |mut conn| {
        if let Some(seen) = conn.request()
            && seen.head.starts_with("POST /v1/embeddings ")
        {
            assert!(seen.body.starts_with(b"{"));
            count.fetch_add(1, SeqCst);
            conn.write("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let app = TestApp::from_flags(&[
        "--service-discovery=static",
        "--routing-logic=roundrobin",
        &format!("--static-backends={}", engine.url()),
        "--static-models=m",
        "--static-model-types=embeddings",
        "--static-backend-health-checks",
        "--static-backend-health-check-interval=1",
        "--static-backend-health-check-timeout-seconds=2",
    ]);
    eventually("it is set aside", || state(&app, 0) == "ejected");
    assert!(asked.load(SeqCst) >= 5);
}

#[test]
fn a_sleeping_engine_gets_nothing_until_it_wakes() {
    let is_asleep = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&is_asleep);
    let sleeper = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            let path = seen.head.split(' ').nth(1).unwrap().to_owned();
            match path.split('?').next().unwrap() {
                "/sleep" => told.store(1, SeqCst),
                "/wake_up" => told.store(0, SeqCst),
                "/is_sleeping" if told.load(SeqCst) == 1 => {
                    conn.json(r#"{"is_sleeping":true}"#);
                    continue;
                }
                "/is_sleeping" => {
                    conn.json(r#"{"is_sleeping":false}"#);
                    continue;
                }
                _ => {}
            }
            conn.json(r#"{"who":"sleeper"}"#);
        }
    });
    let other = sim(None);
    let app = TestApp::with(&[(&sleeper.url(), "m"), (&other.url(), "m")], |_| {});
    let at = usize::from(sleeper.url() > other.url());
    let sleep = format!("/sleep?id={}", sleeper.url());
    assert_eq!(app.send(&post(&sleep, "")).status, 200);
    assert_eq!(state(&app, at), "asleep");
    for _ in 0..6 {
        assert!(!app.chat(BODY).text().contains("sleeper"));
    }
    // Someone else wakes it: it is asked now and then.
    is_asleep.store(0, SeqCst);
    eventually("it is awake", || state(&app, at) == "healthy");
    eventually("it serves", || app.chat(BODY).text().contains("sleeper"));
}

#[test]
fn who_cannot_tell_whether_it_sleeps_does_not() {
    let engine = RawEngine::start(|mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET /is_sleeping ") {
                conn.write("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            } else {
                conn.json("{}");
            }
        }
    });
    // Nothing that concerns one engine alone waits for a place.
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.admission.max_in_flight = Some(1);
    });
    let to = |what: &str| post(&format!("/{what}?id={}", engine.url()), "");
    assert_eq!(app.send(&to("sleep")).status, 200);
    app.chat(BODY).assert_error(503, "model_unavailable");
    assert_eq!(app.send(&to("wake_up")).status, 200);
    assert_eq!(app.chat(BODY).status, 200);
    assert_eq!(app.send(&to("sleep")).status, 200);
    eventually("it is asked, and cannot tell", || {
        state(&app, 0) == "healthy"
    });
}

#[test]
fn a_draining_engine_finishes_and_gets_nothing_new() {
    let (draining, go) = RawEngine::stepped(3);
    let other = sim(None);
    let engines = |is_draining: bool| {
        format!(
            r#"{{"service_discovery":"static","routing_logic":"roundrobin","engines":[
                {{"url":"{}","models":["m"],"draining":{is_draining}}},
                {{"url":"{}","models":["m","n"]}}]}}"#,
            draining.url(),
            other.url()
        )
    };
    let folder = crate::support::Folder::new("draining");
    let file = folder.path("config.json");
    std::fs::write(&file, engines(false)).unwrap();
    let app = TestApp::from_file(&file);
    let in_flight = |app: &TestApp| {
        let list = app.get("/engines").json();
        let of = |url: &str| {
            let engines = list.as_array().unwrap().iter();
            engines
                .clone()
                .find(|one| one["engine_id"] == url)
                .unwrap()
                .clone()
        };
        (
            of(&draining.url())["in_flight"].as_u64().unwrap(),
            of(&draining.url())["draining"] == true,
        )
    };
    // One of the first two goes to the stepped one, and stays open.
    let mut clients: Vec<_> = (0..2)
        .map(|_| {
            let mut client = app.connect();
            client.write(post("/v1/chat/completions", STREAM).as_bytes());
            client
        })
        .collect();
    eventually("a stream is open", || in_flight(&app).0 == 1);
    std::fs::write(&file, engines(true)).unwrap();
    eventually("it drains", || in_flight(&app).1);
    for _ in 0..6 {
        assert_eq!(app.chat(BODY).status, 200);
    }
    assert_eq!(in_flight(&app), (1, true));
    (0..3).for_each(|_| go.send(()).unwrap());
    let whole = clients
        .iter_mut()
        .map(|client| client.answer().unwrap().whole);
    assert!(whole.collect::<Vec<_>>().iter().all(|whole| *whole));
    eventually("it is done", || in_flight(&app).0 == 0);
}
