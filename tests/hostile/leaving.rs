//! E3, the second half: clients that leave, whatever they wait for, and in
//! whichever way: their engine's side ends and their place is free.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::frames::{
    Came, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, Raw, fields, frame, pseudo,
};
use crate::harness::{Outcomes, Witness, app, reset_on_close};
use crate::support::engine::RawEngine;
use crate::support::{Client, TestApp, eventually, post};

const STREAM: &str = r#"{"model":"m","stream":true}"#;
/// Far more than it takes, far less than any deadline here.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It shuts down its writing side, which is leaving too.
    Fin,
    Close,
    Reset,
}

const WAYS: [Way; 3] = [Way::Fin, Way::Close, Way::Reset];

/// Leaves; what is given back must live on for the others to see a FIN alone.
fn leave(client: Client, way: Way) -> Option<Client> {
    match way {
        Way::Fin => {
            client.stream.shutdown(Shutdown::Write).unwrap();
            return Some(client);
        }
        Way::Close => {}
        Way::Reset => reset_on_close(&client.stream),
    }
    None
}

/// An engine that takes requests to `/v1/completions` and says nothing, begins
/// a stream for others and says nothing more; and what of this has ended.
struct Patient {
    engine: RawEngine,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Patient {
    fn start() -> Self {
        let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (first, last) = (Arc::clone(&begun), Arc::clone(&ended));
        let engine = RawEngine::start(move |mut conn| {
            let Some(seen) = conn.request() else { return };
            if seen.head.starts_with("GET ") {
                conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
                return;
            }
            if !seen.head.starts_with("POST /v1/completions ") {
                conn.stream_head();
                conn.chunk("data: 0\n\n");
            }
            first.fetch_add(1, SeqCst);
            conn.closed();
            last.fetch_add(1, SeqCst);
        });
        Self {
            engine,
            begun,
            ended,
        }
    }

    /// Asserts that what has begun has ended too, and soon.
    #[track_caller]
    fn is_released(&self, app: &TestApp, what: &str) {
        let since = Instant::now();
        eventually(what, || self.ended.load(SeqCst) == self.begun.load(SeqCst));
        app.settled();
        let waited = since.elapsed();
        assert!(waited < AT_ONCE, "{what}: {waited:?}");
    }
}

/// An app with one place, and time enough that no deadline frees it.
fn one_place(engine: &RawEngine) -> TestApp {
    app(&engine.url(), |config| {
        let settings = &mut config.settings;
        settings.admission.max_in_flight = Some(1);
        settings.timeouts.engine_head = Duration::from_secs(300);
        settings.timeouts.engine_idle = Duration::from_secs(300);
    })
}

#[test]
fn before_the_head_mid_stream_and_with_pipelined_bytes() {
    let patient = Patient::start();
    let app = one_place(&patient.engine);
    let head = post("/v1/completions", r#"{"model":"m"}"#);
    let stream = post("/v1/chat/completions", STREAM);
    let phases = [
        ("before the head", head.clone(), None),
        ("mid-stream", stream.clone(), Some("data: 0\n\n")),
        ("a head, pipelined", format!("{head}{head}"), None),
        (
            "mid-stream, pipelined",
            format!("{stream}{stream}"),
            Some("data: 0\n\n"),
        ),
        (
            "half a head, pipelined",
            format!("{stream}GET / HT"),
            Some("data: 0\n\n"),
        ),
    ];
    let mut left = 0;
    for (phase, request, until) in phases {
        for way in WAYS {
            let begun = patient.begun.load(SeqCst);
            let mut client = app.connect();
            client.write(request.as_bytes());
            if let Some(text) = until {
                client.until(text);
            }
            eventually("the engine has it", || patient.begun.load(SeqCst) > begun);
            let _kept = leave(client, way);
            patient.is_released(&app, &format!("{phase}, {way:?}"));
            left += 1;
            // Had its place been lost, there would be none for the next.
            assert_eq!(patient.begun.load(SeqCst), left, "{phase}, {way:?}");
        }
    }
    let outcomes = Outcomes::of(&app);
    assert_eq!((outcomes.client_gone, outcomes.faults), (left as u64, 0));
}

#[test]
fn in_the_queue() {
    let patient = Patient::start();
    let app = app(&patient.engine.url(), |config| {
        let settings = &mut config.settings;
        settings.admission.max_in_flight = Some(1);
        settings.admission.queue_size = 1;
        settings.admission.queue_timeout = Duration::from_secs(300);
        settings.timeouts.engine_idle = Duration::from_secs(300);
    });
    let waiting = || app.metric("pilotfish_requests_waiting") as u64;
    let mut first = app.connect();
    first.write(post("/v1/chat/completions", STREAM).as_bytes());
    first.until("data: 0\n\n");
    for way in WAYS {
        let mut client = app.connect();
        client.write(post("/v1/completions", r#"{"model":"m"}"#).as_bytes());
        eventually("it waits", || waiting() == 1);
        let since = Instant::now();
        let _kept = leave(client, way);
        eventually("it waits no more", || waiting() == 0);
        assert!(since.elapsed() < AT_ONCE, "{way:?}");
    }
    assert_eq!(patient.begun.load(SeqCst), 1, "none of them was asked for");
    drop(first);
    patient.is_released(&app, "the first");
}

#[test]
fn in_a_pause_before_the_next_try() {
    const TRIES: usize = 12;
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let engine = RawEngine::start(move |mut conn| {
        let Some(seen) = conn.request() else { return };
        if seen.head.starts_with("POST ") {
            count.fetch_add(1, SeqCst);
        }
    });
    let app = app(&engine.url(), |config| {
        let retry = &mut config.settings.retry;
        retry.attempts = TRIES as u32 - 1;
        (retry.budget, retry.reserve) = (1.0, 1000.0);
        config.settings.admission.max_in_flight = Some(1);
    });
    for way in WAYS {
        tries.store(0, SeqCst);
        let mut client = app.connect();
        client.write(post("/v1/completions", r#"{"model":"m"}"#).as_bytes());
        // The pauses that follow take seconds together.
        eventually("it is tried again", || tries.load(SeqCst) >= 6);
        let _kept = leave(client, way);
        app.settled();
        assert!(tries.load(SeqCst) < TRIES, "{way:?}: to the last try");
    }
}

#[test]
fn a_stream_of_http2_that_is_reset() {
    let patient = Patient::start();
    let app = one_place(&patient.engine);
    let mut raw = Raw::open(app.address);
    let mut request = pseudo("POST", "/v1/chat/completions");
    request.push(("content-type", "application/json"));
    for (stream, path) in [(1, "/v1/completions"), (3, "/v1/chat/completions")] {
        let begun = patient.begun.load(SeqCst);
        request[2] = (":path", path);
        raw.write(&frame(HEADERS, END_HEADERS, stream, &fields(&request)))
            .unwrap();
        raw.write(&frame(DATA, END_STREAM, stream, STREAM.as_bytes()))
            .unwrap();
        eventually("the engine has it", || patient.begun.load(SeqCst) > begun);
        if stream == 3 {
            assert_eq!(raw.outcome(stream), Came::Status(200));
        }
        raw.write(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()))
            .unwrap();
        patient.is_released(&app, path);
    }
    // Others on the connection go on.
    let live = fields(&pseudo("GET", "/livez"));
    raw.write(&frame(HEADERS, END_HEADERS | END_STREAM, 5, &live))
        .unwrap();
    assert_eq!(raw.outcome(5), Came::Status(200));
    // All of its streams end with a connection.
    request[2] = (":path", "/v1/completions");
    raw.write(&frame(HEADERS, END_HEADERS, 7, &fields(&request)))
        .unwrap();
    raw.write(&frame(DATA, END_STREAM, 7, STREAM.as_bytes()))
        .unwrap();
    eventually("the engine has it", || patient.begun.load(SeqCst) == 3);
    drop(raw);
    patient.is_released(&app, "the connection");
    let outcomes = Outcomes::of(&app);
    assert_eq!((outcomes.client_gone, outcomes.faults), (3, 0));
}

#[test]
fn mid_upload_and_no_engine_sees_an_end() {
    let witness = Witness::start();
    let app = app(&witness.url(), |_| {});
    let head = |kind: &str, framing: &str| {
        format!(
            "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n"
        )
    };
    for kind in ["application/json", "audio/wav"] {
        for (framing, some) in [
            ("content-length: 9000000", "{\"model\""),
            ("transfer-encoding: chunked", "8\r\n{\"model\"\r\n"),
            ("transfer-encoding: chunked", "8\r\n{\"mod"),
        ] {
            for way in WAYS {
                let met = witness.met().len();
                let mut client = app.connect();
                client.write(head(kind, framing).as_bytes());
                client.write(some.as_bytes());
                if kind == "audio/wav" {
                    eventually("the engine sees it begin", || witness.met().len() > met);
                }
                let _kept = leave(client, way);
                eventually("it has ended", || app.in_flight() == 0);
            }
        }
    }
    app.settled();
    for met in witness.met() {
        assert!(met.body.is_none(), "a whole request: {met:?}");
    }
    assert_eq!(Outcomes::of(&app).faults, 0);
    let page = app.get("/metrics").text();
    for line in page
        .lines()
        .filter(|line| line.starts_with("pilotfish_requests_total"))
    {
        assert!(!line.contains("status=\"5"), "{line}");
    }
}
