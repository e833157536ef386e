//! E7: our own faults, and what happens to whoever runs us.

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Once;
use std::time::{Duration, Instant};

use pilotfish::config::{AccessLog, LineForm, LogTarget};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::frames::{Came, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, fields, frame, pseudo};
use crate::harness::{Outcomes, Puppet, SHORT, Then, Witness, app, impatient};
use crate::support::engine::RawEngine;
use crate::support::{Client, PATIENCE, TestApp, eventually, post, sim};

const BODY: &str = r#"{"model":"m"}"#;
const STREAM: &str = r#"{"model":"m","stream":true}"#;
/// The id of a request whose handler panics, and of one whose answer's body does.
const PANICS: &str = "panics-at-once";
const PANICS_LATER: &str = "panics-later";

/// A log that panics where it is told to: in the midst of a request, without a
/// line of the program that is for tests alone.
struct FailPoint;

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
}

impl FailPoint {
    fn set() {
        static SET: Once = Once::new();
        SET.call_once(|| tracing::subscriber::set_global_default(Self).unwrap());
    }
}

impl Subscriber for FailPoint {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("pilotfish::proxy")
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        let says = |text: &str| words.0.contains(text);
        if says(&format!("Routing request {PANICS_LATER} ")) {
            // The worker is of one test alone.
            ARMED.set(true);
        }
        let is_later = says("broke off") && ARMED.replace(false);
        assert!(!is_later, "as the test wants it, in an answer's body");
        assert!(
            !says(&format!("Routing request {PANICS} ")),
            "as the test wants it"
        );
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

fn with_id(id: &str, body: &str) -> String {
    let field = format!("host: x\r\nx-request-id: {id}");
    post("/v1/chat/completions", body).replacen("host: x", &field, 1)
}

#[test]
fn a_panic_is_one_requests_own() {
    FailPoint::set();
    let (engine, go) = RawEngine::stepped(2);
    let good = Witness::start();
    let app = app(&engine.url(), |config| {
        let other = pilotfish::config::ListedEngine::new(&good.url(), &["n"]).unwrap();
        config.settings.engines.push(other);
        config.stats.log_requests = true;
        config.settings.admission.max_in_flight = Some(2);
        config.settings.timeouts.engine_idle = PATIENCE;
    });
    let ask = BODY.replace("\"m\"", "\"n\"");
    let mut streaming = app.connect();
    streaming.write(post("/v1/chat/completions", STREAM).as_bytes());
    streaming.until("data: 0\n\n");
    for _ in 0..5 {
        let mut client = app.connect();
        client.write(with_id(PANICS, &ask).as_bytes());
        let answer = client.answer().unwrap();
        answer.assert_error(500, "internal_error");
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(client.rest().is_empty());
        // Its place is free, and its engine has not failed.
        assert_eq!(app.in_flight(), 1);
        assert_eq!(app.chat(&ask).status, 200);
    }
    let refused = r#"pilotfish_refusals_total{reason="internal_error"}"#;
    assert_eq!(app.metric(refused) as u64, 5);
    // On HTTP/2 it is one stream's.
    let mut raw = Raw::open(app.address);
    let mut head = pseudo("POST", "/v1/chat/completions");
    head.push(("content-type", "application/json"));
    for (stream, id, status) in [(1, PANICS, 500), (3, "fine", 200)] {
        let all = [head.clone(), vec![("x-request-id", id)]].concat();
        raw.write(&frame(HEADERS, END_HEADERS, stream, &fields(&all)))
            .unwrap();
        raw.write(&frame(DATA, END_STREAM, stream, ask.as_bytes()))
            .unwrap();
        assert_eq!(raw.outcome(stream), Came::Status(status));
    }
    for event in ["data: 1\n\n", "data: [DONE]\n\n\r\n0\r\n\r\n"] {
        go.send(()).unwrap();
        streaming.until(event);
    }
    drop((raw, streaming));
    app.settled();
    assert_eq!(Outcomes::of(&app).faults, 0);
    eventually("connections are counted out", || {
        app.metric("pilotfish_client_connections ") as u64 == 1
    });
}

#[test]
fn a_panic_once_the_head_is_out_ends_that_answer_alone() {
    FailPoint::set();
    let puppet = Puppet::start();
    let app = impatient(&puppet.url(), |config| {
        config.stats.log_requests = true;
        config.settings.admission.max_in_flight = Some(1);
    });
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    for _ in 0..3 {
        puppet.says(format!("{head}9\r\ndata: 1\n\n\r\n"), Then::Hangs);
        let mut client = app.connect();
        client.write(with_id(PANICS_LATER, STREAM).as_bytes());
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.whole), (200, false));
        assert!(client.rest().is_empty());
        app.settled();
        puppet.says(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Then::Keeps,
        );
        assert_eq!(app.chat(BODY).status, 200, "its place is free");
    }
    eventually("connections are counted out", || {
        app.metric("pilotfish_client_connections ") as u64 == 1
    });
}

#[test]
fn without_any_engine_it_is_a_503_at_once_until_one_is_back() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let app = app(&format!("http://{address}"), |config| {
        config.settings.breaker.failures = 5;
        config.settings.breaker.ejection = SHORT;
    });
    for _ in 0..10 {
        let since = Instant::now();
        let answer = app.chat(BODY);
        answer.assert_error(503, "model_unavailable");
        assert!(answer.field("retry-after").is_some());
        assert!(since.elapsed() < Duration::from_secs(1));
    }
    let engines = app.get("/engines").json();
    assert_ne!(engines[0]["state"], "healthy", "{engines}");
    // We are alive, and welcome requests: whether engines are up is told of at
    // /engines, and who asked for it is answered with a 503.
    for page in ["/livez", "/readyz", "/health", "/metrics"] {
        assert_eq!(app.get(page).status, 200, "{page}");
    }
    let mut config = SimConfig::new("m", Speed::instant());
    config.listen = address;
    let _engine = SimEngine::start(config).unwrap();
    eventually("it is asked again", || app.chat(BODY).status == 200);
    let none = TestApp::new(&[]);
    let answer = none.get("/v1/anything");
    answer.assert_error(503, "no_available_engine");
    assert!(answer.field("retry-after").is_some());
    assert_eq!(none.get("/livez").status, 200);
}

#[test]
fn who_finds_no_place_is_told_at_once_and_our_pages_answer() {
    let (engine, _go) = RawEngine::stepped(2);
    let app = app(&engine.url(), |config| {
        config.settings.admission.max_in_flight = Some(1);
        config.settings.timeouts.engine_idle = PATIENCE;
    });
    let mut streaming = app.connect();
    streaming.write(post("/v1/chat/completions", STREAM).as_bytes());
    streaming.until("data: 0\n\n");
    let mut client = app.connect();
    let mut times = Vec::new();
    for _ in 0..100 {
        let since = Instant::now();
        client.write(post("/v1/chat/completions", BODY).as_bytes());
        let answer = client.answer().unwrap();
        times.push(since.elapsed());
        answer.assert_error(429, "queue_full");
        assert!(answer.field("retry-after").is_some());
    }
    times.sort();
    assert!(
        times[50] < Duration::from_millis(50),
        "half took {:?}",
        times[50]
    );
    for page in ["/livez", "/readyz", "/health", "/metrics", "/engines"] {
        assert_eq!(app.get(page).status, 200, "{page}");
    }
    assert_eq!(Outcomes::of(&app).faults, 0);
}

#[test]
fn a_hundred_open_streams_all_end_well_when_we_are_stopped() {
    const STREAMS: usize = 100;
    let speed = Speed {
        itl: Duration::from_millis(20),
        max_running: STREAMS,
        ..Speed::instant()
    };
    let engine = SimEngine::start(SimConfig::new("m", speed)).unwrap();
    let app = app(&engine.url(), |config| {
        config.drain.settle = SHORT;
        config.drain.timeout = PATIENCE;
        config.settings.timeouts.engine_head = PATIENCE;
        config.settings.timeouts.engine_idle = PATIENCE;
    });
    let body = r#"{"model":"m","stream":true,"max_tokens":50}"#;
    let mut clients: Vec<Client> = (0..STREAMS).map(|_| app.connect()).collect();
    for client in &mut clients {
        client.write(post("/v1/chat/completions", body).as_bytes());
    }
    for client in &mut clients {
        client.until("data: ");
    }
    let address = app.address;
    let draining = std::thread::spawn(move || app.drain());
    // Who comes while we settle is served, and asked to go elsewhere next.
    eventually("not ready", || {
        let mut probe = Client::connect(address);
        probe.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n");
        probe.answer().is_some_and(|answer| answer.status == 503)
    });
    for client in &mut clients {
        let rest = client.rest();
        let text = String::from_utf8_lossy(&rest);
        assert!(text.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{text}");
    }
    let report = draining.join().unwrap();
    assert_eq!((report.requests_cut, report.connections_cut), (0, 0));
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let engine = sim(None);
    let app = app(&engine.url(), |config| {
        config.access_log = Some(AccessLog {
            to: LogTarget::File("/dev/full".into()),
            form: LineForm::Json,
        });
    });
    for _ in 0..200 {
        assert_eq!(app.chat(r#"{"model":"m","max_tokens":1}"#).status, 200);
    }
    eventually("its loss is told of", || {
        app.metric("pilotfish_access_log_dropped_total") as u64 == 200
    });
    assert_eq!(app.chat(BODY).status, 200);
}

/// Where the wall clock is looked at, and what for: all else is measured by one
/// that never jumps.
const DATES: [(&str, &str); 21] = [
    ("src/access", "dates of lines"),
    ("src/api/blocks.rs", "`$now` of queries"),
    ("src/api/exposition/process.rs", "the age of a reload"),
    ("src/auth", "when a key ends"),
    ("src/cli", "dates that are shown"),
    ("src/config/auth", "when a key ends"),
    ("src/control/policies.rs", "dates of documents"),
    ("src/control/reload.rs", "the date of a reload"),
    ("src/control/secrets.rs", "the date of a reload"),
    ("src/decisions.rs", "dates of decisions"),
    ("src/fleet/engine.rs", "`created`"),
    ("src/proxy/choose.rs", "dates of decisions"),
    ("src/proxy/headers/retry_after.rs", "Retry-After as a date"),
    ("src/proxy/infer/give.rs", "dates of answers"),
    ("src/proxy/tries.rs", "Retry-After as a date; a line"),
    ("src/registry", "dates of documents"),
    ("src/report.rs", "dates of lines and spans"),
    ("src/scrape/turn.rs", "since when an engine runs"),
    ("src/sim", "`created`"),
    ("src/smart", "dates of what is kept"),
    ("src/tls", "when a certificate ends"),
];

#[test]
fn a_clock_that_jumps_moves_dates_alone() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            if !text.contains("SystemTime") || name.ends_with("tests.rs") {
                continue;
            }
            found += 1;
            let is_known = DATES.iter().any(|(known, _)| name.starts_with(known));
            assert!(
                is_known,
                "{name} looks at the wall clock: for what? Say so here."
            );
        }
    }
    assert!(found >= 10, "{found} files");
}
