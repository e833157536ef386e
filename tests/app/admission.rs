//! How much is let in at once, who waits, and who is turned away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilotfish::config::{Admission, Config, Shed};
use pilotfish::fleet::attributes::Live;
use pilotfish::sim::faults::Fault;
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};

use crate::support::engine::RawEngine;
use crate::support::{Client, TestApp, eventually, post, sim};

const BODY: &str = r#"{"model":"m","max_tokens":2}"#;
const STREAM: &str = r#"{"model":"m","max_tokens":9,"stream":true}"#;

fn limited(engines: &[(&str, &str)], change: impl FnOnce(&mut Admission)) -> TestApp {
    TestApp::with(engines, |config: &mut Config| {
        let admission = &mut config.settings.admission;
        admission.queue_timeout = Duration::from_secs(20);
        change(admission);
        config.stats.scrape_every = Duration::from_secs(1);
    })
}

/// A stream that stays open until its client is dropped.
fn open(app: &TestApp) -> Client {
    let mut client = app.connect();
    client.write(post("/v1/chat/completions", STREAM).as_bytes());
    client.until("data: ");
    client
}

fn waiting(app: &TestApp) -> u64 {
    app.metric("pilotfish_requests_waiting") as u64
}

/// A request that waits, as the `count`th that does.
fn wait(app: &TestApp, field: &str, count: u64) -> Client {
    let mut client = app.connect();
    let head = format!("host: x\r\n{field}");
    let request = post("/v1/chat/completions", BODY).replacen("host: x", &head, 1);
    client.write(request.as_bytes());
    eventually("it waits", || waiting(app) == count);
    client
}

#[test]
fn beyond_the_limit_it_is_a_429_with_retry_after() {
    let engine = sim(Some(Fault::StallAfter(3)));
    let app = limited(&[(&engine.url(), "m")], |limits| {
        limits.max_in_flight = Some(2);
    });
    let streams = [open(&app), open(&app)];
    let answer = app.chat(BODY);
    answer.assert_error(429, "queue_full");
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(app.metric("pilotfish_requests_refused_total") as u64, 1);
    // What is ours is not limited, and an engine that is asked nothing has not failed.
    assert_eq!(app.get("/health").status, 200);
    engine.set_fault(None);
    drop(streams);
    eventually("the places are free", || app.chat(BODY).status == 200);
}

#[test]
fn those_that_wait_come_in_turn_and_leave_no_trace() {
    let engine = sim(Some(Fault::StallAfter(3)));
    let app = limited(&[(&engine.url(), "m")], |limits| {
        limits.max_per_model = Some(1);
        limits.queue_size = 3;
    });
    let stream = open(&app);
    engine.set_fault(None);
    let mut first = wait(&app, "x-a: 1", 1);
    let gone = wait(&app, "x-a: 2", 2);
    let mut third = wait(&app, "x-a: 3", 3);
    app.chat(BODY).assert_error(429, "queue_full");
    drop(gone);
    eventually("who left waits no more", || waiting(&app) == 2);
    drop(stream);
    assert_eq!(first.answer().unwrap().status, 200);
    assert_eq!(third.answer().unwrap().status, 200);
    assert_eq!(waiting(&app), 0);
    assert_eq!(app.metric("pilotfish_queue_seconds_count") as u64, 2);
    app.settled();
}

#[test]
fn nobody_waits_longer_than_the_queue_allows() {
    let engine = sim(Some(Fault::StallAfter(3)));
    let app = limited(&[(&engine.url(), "m")], |limits| {
        limits.max_per_engine = Some(1);
        limits.queue_size = 3;
        limits.queue_timeout = Duration::from_millis(150);
    });
    let _stream = open(&app);
    app.chat(BODY).assert_error(429, "queue_timeout");
    let hurried = post("/v1/chat/completions", BODY).replacen(
        "host: x",
        "host: x\r\nx-pilotfish-timeout-ms: 20",
        1,
    );
    app.send(&hurried).assert_error(504, "deadline_exceeded");
    assert_eq!(waiting(&app), 0);
}

#[test]
fn the_highest_priority_goes_first() {
    // One at a time: it sees them in the order in which they are let in.
    let seen_by = Arc::new(Mutex::new(Vec::new()));
    let order = Arc::clone(&seen_by);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            order.lock().unwrap().extend(seen.field("x-a"));
            conn.json("{}");
        }
    });
    let blocker = SimConfig {
        fault: Some(Fault::StallAfter(3)),
        ..SimConfig::new("blocked", Speed::instant())
    };
    let blocker = SimEngine::start(blocker).unwrap();
    let app = TestApp::with(
        &[(&engine.url(), "m"), (&blocker.url(), "blocked")],
        |config| {
            config.settings.admission.max_in_flight = Some(1);
            config.settings.admission.queue_size = 9;
            config.settings.admission.queue_timeout = Duration::from_secs(20);
            config.settings.routing.allow.priority = true;
        },
    );
    let mut stream = app.connect();
    stream.write(
        post(
            "/v1/chat/completions",
            &STREAM.replace("\"m\"", "\"blocked\""),
        )
        .as_bytes(),
    );
    eventually("it is open", || app.in_flight() == 1);
    // In this order they come; the usual priority is 5.
    let fields = [
        "x-a: low\r\nx-pilotfish-priority: 0",
        "x-a: usual",
        "x-a: high\r\nx-pilotfish-priority: 9",
    ];
    let clients: Vec<Client> = (fields.iter().zip(1..))
        .map(|(field, count)| wait(&app, field, count))
        .collect();
    drop(stream);
    for mut client in clients {
        assert_eq!(client.answer().unwrap().status, 200);
    }
    assert_eq!(*seen_by.lock().unwrap(), ["high", "usual", "low"]);
    let out_of_range = post("/v1/chat/completions", BODY).replacen(
        "host: x",
        "host: x\r\nx-pilotfish-priority: 10",
        1,
    );
    app.send(&out_of_range).assert_error(400, "invalid_header");
}

#[test]
fn without_an_engine_it_is_a_503_however_many_wait() {
    let engine = sim(Some(Fault::StallAfter(3)));
    let app = limited(&[(&engine.url(), "m")], |limits| {
        limits.max_in_flight = Some(1);
        limits.queue_size = 1;
    });
    let _stream = open(&app);
    let mut waits = wait(&app, "x-a: 1", 1);
    app.chat(BODY).assert_error(429, "queue_full");
    drop(engine);
    // The stream is cut, and whoever waited finds nobody.
    let answer = waits.answer().unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    eventually("nobody is there", || app.chat(BODY).status == 503);
    assert_eq!(waiting(&app), 0);
}

#[test]
fn an_engine_has_no_more_than_it_may_though_others_are_full_too() {
    let engines = [
        sim(Some(Fault::StallAfter(3))),
        sim(Some(Fault::StallAfter(3))),
    ];
    let urls = engines.each_ref().map(SimEngine::url);
    let app = limited(&[(&urls[0], "m"), (&urls[1], "m")], |limits| {
        limits.max_per_engine = Some(2);
    });
    let streams: Vec<Client> = (0..4).map(|_| open(&app)).collect();
    let engines = app.get("/engines").json();
    let in_flight = engines.as_array().unwrap().iter();
    assert!(
        in_flight.clone().all(|engine| engine["in_flight"] == 2),
        "{engines}"
    );
    app.chat(BODY).assert_error(429, "queue_full");
    drop(streams);
    app.settled();
}

#[test]
fn what_engines_tell_may_turn_requests_away() {
    let engine = RawEngine::start(|mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET /metrics ") {
                let page = "vllm:num_requests_running 8\nvllm:num_requests_waiting 50\n";
                conn.write(&format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{page}",
                    page.len()
                ));
            } else {
                conn.json("{}");
            }
        }
    });
    let shed = |most: f64| {
        limited(&[(&engine.url(), "m")], |limits| {
            limits.shed = Shed {
                requests_waiting: Some(most),
                kv_cache_usage: None,
            };
        })
    };
    let app = shed(50.0);
    let name = Live::ALL[Live::RequestsWaiting as usize].1;
    eventually("it has told", || {
        app.get("/engines").json()[0]["attributes"][name] == 50.0
    });
    app.chat(BODY).assert_error(429, "engines_saturated");
    let app = shed(51.0);
    eventually("it has told", || {
        app.get("/engines").json()[0]["attributes"][name] == 50.0
    });
    assert_eq!(app.chat(BODY).status, 200);
}
