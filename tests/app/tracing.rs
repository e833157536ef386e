//! Traces: spans that a collector gets, and what becomes of requests when it
//! gets none.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilotfish::config::{AccessLog, Collector, Config, LineForm, LogTarget, TraceSettings};
use pilotfish::sim::faults::Fault;
use pilotfish::trace::otlp::{ERROR, ExportTraceServiceRequest, SERVER, Span, Value};
use prost::Message as _;

use crate::http2::with_h2;
use crate::support::collector::Grpc;
use crate::support::engine::{RawEngine, Seen};
use crate::support::{Client, Folder, TestApp, eventually, post, sim};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// A secret that must be in no span.
const CANARY: &str = "canary-91c2";

/// A collector that is spoken to in plain HTTP, and does as it is told.
struct Http {
    engine: RawEngine,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Http {
    fn answering(answer: &'static str) -> Self {
        Self::answering_each(move |_| answer)
    }

    /// Answers the posts, by their number.
    fn answering_each(answer: impl Fn(usize) -> &'static str + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let engine = RawEngine::start(move |mut conn| {
            while let Some(post) = conn.request() {
                let number = {
                    let mut all = all.lock().unwrap();
                    all.push(post);
                    all.len() - 1
                };
                match answer(number) {
                    "" => drop(conn.closed()),
                    answer => conn.write(answer),
                }
            }
        });
        Self { engine, seen }
    }

    fn good() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    }

    fn spans(&self) -> Vec<Span> {
        let seen = self.seen.lock().unwrap();
        seen.iter().flat_map(|post| decoded(&post.body)).collect()
    }
}

/// The spans of one batch; it says of whom it is.
fn decoded(body: &[u8]) -> Vec<Span> {
    let batch = ExportTraceServiceRequest::decode(body).unwrap();
    assert!(!format!("{batch:?}").contains(CANARY));
    assert_eq!(batch.resource_spans.len(), 1);
    let from = &batch.resource_spans[0];
    let resource = from.resource.as_ref().unwrap();
    let mut named = resource.attributes.iter();
    let name = named.find(|one| one.key == "service.name").unwrap();
    let name = name.value.clone().unwrap().value.unwrap();
    assert_eq!(name, Value::Text("edge".to_owned()));
    assert_eq!(
        from.scope_spans[0].scope.as_ref().unwrap().name,
        "pilotfish"
    );
    from.scope_spans[0].spans.clone()
}

fn traces(to: &str, sample: f64) -> impl FnOnce(&mut Config) + use<> {
    let collector = Collector::parse(to).unwrap();
    move |config| {
        config.traces = Some(TraceSettings {
            collector,
            service: "edge".to_owned(),
            sample,
        });
    }
}

fn traced(engines: &[&str], to: &str, sample: f64) -> TestApp {
    let engines: Vec<(&str, &str)> = engines.iter().map(|url| (*url, "m")).collect();
    TestApp::with(&engines, traces(to, sample))
}

/// A chat with these fields in its head.
fn chat(fields: &str) -> String {
    let body = format!(
        r#"{{"model":"m","stream":true,"max_tokens":3,"messages":[{{"role":"user","content":"{CANARY}"}}]}}"#
    );
    let fields =
        format!("authorization: Bearer {CANARY}\r\nx-request-id: r-1\r\n{fields}host: x\r\n");
    let path = format!("/v1/chat/completions?key={CANARY}");
    post(&path, &body).replace("host: x\r\n", &fields)
}

fn parent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\ntracestate: other=1\r\n")
}

/// An engine that keeps what it saw, and answers with three tokens.
fn witness() -> (RawEngine, Arc<Mutex<Vec<Seen>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(request) = conn.request() {
            if request.head.starts_with("GET ") {
                conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
                continue;
            }
            all.lock().unwrap().push(request);
            conn.stream_head();
            conn.chunk("data: {\"choices\":[{}]}\n\n");
            conn.chunk("data: {\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":3}}\n\n");
            conn.chunk("data: [DONE]\n\n");
            conn.write("0\r\n\r\n");
        }
    });
    (engine, seen)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
    };
    let pairs = span.attributes.iter().map(|one| {
        let value = one.value.as_ref().unwrap().value.as_ref().unwrap();
        (one.key.as_str(), text(value))
    });
    let found: BTreeMap<_, _> = pairs.collect();
    assert_eq!(found.len(), span.attributes.len(), "names are unique");
    found
}

#[track_caller]
fn says(span: &Span, expected: &[(&str, &str)]) {
    let found = attributes(span);
    for (key, value) in expected {
        assert_eq!(
            found.get(key).map(String::as_str),
            Some(*value),
            "{key} of {found:?}"
        );
    }
}

/// Checks that a span has failed, and says why in one place.
#[track_caller]
fn assert_failed(span: &Span, why: &str) {
    says(span, &[("error.type", why)]);
    let status = span.status.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (ERROR, ""));
}

/// Checks the spans of the one chat with the client's trace.
#[track_caller]
fn check_chat(spans: &[Span], engine: &RawEngine, seen: &[Seen]) {
    assert_eq!(spans.len(), 2, "{spans:?}");
    let (server, client) = (&spans[0], &spans[1]);
    assert_eq!((server.kind, client.kind), (SERVER, 3));
    assert_eq!(hex(&server.trace_id), TRACE);
    assert_eq!(hex(&server.parent_span_id), PARENT);
    assert_eq!(server.trace_state, "other=1");
    assert_eq!(client.trace_id, server.trace_id);
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!((server.flags, client.flags), (0x301, 0x101));
    // The engine goes on from our client span.
    let told = format!("00-{TRACE}-{}-01", hex(&client.span_id));
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].field("traceparent"), Some(told));
    assert_eq!(seen[0].field("tracestate").as_deref(), Some("other=1"));
    assert_eq!(seen[0].head.matches("traceparent").count(), 1);

    assert_eq!(server.name, "POST /v1/chat/completions");
    assert_eq!(client.name, "chat m");
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.start_time_unix_nano < client.end_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_nanos() as u64;
    assert!(now.abs_diff(server.end_time_unix_nano) < 60_000_000_000);
    let port = engine.address.port().to_string();
    says(
        server,
        &[
            ("http.request.method", "POST"),
            ("http.response.status_code", "200"),
            ("url.path", "/v1/chat/completions"),
            ("client.address", "127.0.0.1"),
            ("gen_ai.request.model", "m"),
            ("pilotfish.request_id", "r-1"),
            ("pilotfish.policy", "roundrobin"),
            ("pilotfish.engine", &engine.url()),
            ("pilotfish.attempts", "1"),
            ("pilotfish.ended", "complete"),
        ],
    );
    says(
        client,
        &[
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
            ("url.full", &format!("{}/v1/chat/completions", engine.url())),
            ("http.response.status_code", "200"),
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.request.model", "m"),
            ("gen_ai.request.stream", "true"),
            ("gen_ai.usage.input_tokens", "5"),
            ("gen_ai.usage.output_tokens", "3"),
        ],
    );
    says(client, &[("gen_ai.provider.name", "openai")]);
    let ttft = &attributes(client)["gen_ai.response.time_to_first_chunk"];
    assert!(ttft.parse::<f64>().unwrap() > 0.0);
    assert!(server.status.is_none() && client.status.is_none());
}

#[test]
fn a_collector_over_http_gets_spans_whose_parent_is_the_clients() {
    let collector = Http::good();
    let (engine, seen) = witness();
    let app = traced(&[&engine.url()], &collector.engine.url(), 0.0);
    assert!(app.send(&chat(&parent("01"))).whole);
    app.settled();
    app.drain();
    check_chat(&collector.spans(), &engine, &seen.lock().unwrap());
    let posts = collector.seen.lock().unwrap();
    assert!(posts[0].head.starts_with("POST /v1/traces HTTP/1.1\r\n"));
    let kind = posts[0].field("content-type");
    assert_eq!(kind.as_deref(), Some("application/x-protobuf"));
}

#[test]
fn a_collector_over_grpc_gets_them_too() {
    let collector = Grpc::start(0);
    let (engine, seen) = witness();
    let app = traced(&[&engine.url()], &collector.address.to_string(), 0.0);
    assert!(app.send(&chat(&parent("01"))).whole);
    app.settled();
    app.drain();
    let bodies = collector.messages();
    assert_eq!(bodies.len(), 1);
    check_chat(&decoded(&bodies[0]), &engine, &seen.lock().unwrap());
}

/// The binary, over TLS: what the system trusts is in a file.
#[test]
fn a_collector_may_speak_tls() {
    let collector = Grpc::start_secure();
    let (engine, seen) = witness();
    let port = crate::binary::free_port();
    let flags = format!(
        "--host 127.0.0.1 --port {port} --service-discovery static --routing-logic roundrobin \
         --static-models m --drain-settle 0 --static-backends {} --otel-secure \
         --otel-endpoint localhost:{} --otel-service-name edge",
        engine.url(),
        collector.address.port(),
    );
    let certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/collector.pem");
    let mut child = crate::binary::pilotfish()
        .args(flags.split_whitespace())
        .env("SSL_CERT_FILE", certificate)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let mut client = Client::connect(format!("127.0.0.1:{port}").parse().unwrap());
    client.write(chat(&parent("01")).as_bytes());
    assert!(client.answer().unwrap().whole);
    drop(client);
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(sent.unwrap().success());
    assert!(child.wait().unwrap().success());
    let bodies = collector.messages();
    assert_eq!(bodies.len(), 1);
    check_chat(&decoded(&bodies[0]), &engine, &seen.lock().unwrap());
}

/// The binary: what users of OpenTelemetry write for gRPC is something else here.
#[test]
fn a_port_that_is_grpcs_is_warned_of() {
    for (endpoint, is_warned) in [
        ("http://127.0.0.1:4317", true),
        ("http://127.0.0.1:4318", false),
        ("127.0.0.1:4317", false),
    ] {
        let port = crate::binary::free_port();
        let flags = format!(
            "--host 127.0.0.1 --port {port} --service-discovery static --routing-logic roundrobin \
             --static-models m --drain-settle 0 --static-backends http://127.0.0.1:1 \
             --otel-endpoint {endpoint}"
        );
        let child = crate::binary::pilotfish()
            .args(flags.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("it listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        crate::binary::signal(&child, "-TERM");
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let is_told = log.contains("for gRPC write HOST:4317");
        assert_eq!(is_told, is_warned, "{endpoint}: {log}");
    }
}

#[test]
fn each_try_is_a_span() {
    let collector = Http::good();
    let (good, seen) = witness();
    let busy = RawEngine::answering("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
    let app = traced(&[&busy.url(), &good.url()], &collector.engine.url(), 1.0);
    // One of two begins with the bad one, which is then left alone.
    for _ in 0..2 {
        assert_eq!(app.send(&chat("")).status, 200);
    }
    app.settled();
    app.drain();
    let spans = collector.spans();
    let twice = spans
        .iter()
        .position(|span| span.kind == SERVER && attributes(span)["pilotfish.attempts"] == "2");
    let of_it = &spans[twice.unwrap()..][..3];
    let [server, first, second] = of_it else {
        unreachable!()
    };
    assert!(server.parent_span_id.is_empty(), "it began here");
    for client in [first, second] {
        assert_eq!(client.parent_span_id, server.span_id);
    }
    assert_ne!(first.span_id, second.span_id);
    says(
        first,
        &[("http.response.status_code", "503"), ("error.type", "503")],
    );
    // The request was one for a stream, whatever this engine made of it.
    says(first, &[("gen_ai.request.stream", "true")]);
    assert_failed(first, "503");
    says(
        second,
        &[
            ("http.response.status_code", "200"),
            ("http.request.resend_count", "1"),
        ],
    );
    assert!(second.status.is_none() && server.status.is_none());
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    let told: Vec<_> = seen
        .lock()
        .unwrap()
        .iter()
        .map(|one| one.field("traceparent").unwrap())
        .collect();
    assert!(told.iter().any(|told| told.contains(&hex(&second.span_id))));
}

#[test]
fn who_decides_what_is_recorded() {
    let collector = Http::good();
    let (engine, seen) = witness();
    let app = traced(&[&engine.url()], &collector.engine.url(), 1.0);
    let bad = format!("traceparent: 00-{TRACE}-{PARENT}\r\ntracestate: other=1\r\n");
    for fields in [&parent("00"), &bad] {
        assert!(app.send(&chat(fields)).whole);
    }
    app.settled();
    app.drain();
    // Not recorded by the client's will; the other is one that began here.
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE));
    let seen = seen.lock().unwrap();
    let told = |at: usize| seen[at].field("traceparent").unwrap();
    assert!(told(0).starts_with(&format!("00-{TRACE}-")) && told(0).ends_with("-00"));
    assert!(
        !told(0).contains(PARENT),
        "a span of our own stands between"
    );
    assert_eq!(seen[0].field("tracestate").as_deref(), Some("other=1"));
    assert_eq!(
        told(1),
        format!(
            "00-{}-{}-03",
            hex(&spans[1].trace_id),
            hex(&spans[1].span_id)
        )
    );
    assert_eq!(seen[1].field("tracestate"), None, "it belonged to no trace");
}

#[test]
fn without_a_collector_fields_pass_untouched() {
    let (engine, seen) = witness();
    let app = TestApp::new(&[engine.url()]);
    let fields = "traceparent: whatever it is\r\ntracestate: other=1\r\n";
    assert!(app.send(&chat(fields)).whole);
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen[0].field("traceparent").as_deref(),
        Some("whatever it is")
    );
    assert_eq!(seen[0].field("tracestate").as_deref(), Some("other=1"));
}

/// Its size is the sender's choice: it must not cost others their spans.
#[test]
fn a_tracestate_that_is_too_long_is_passed_on_and_not_told() {
    let collector = Http::good();
    let (engine, seen) = witness();
    let app = traced(&[&engine.url()], &collector.engine.url(), 0.0);
    let long = format!("a={}", "x".repeat(60 << 10));
    let huge = parent("01").replace("other=1", &long);
    let two = parent("01") + "tracestate: more=2\r\n";
    for fields in [&huge, &two] {
        assert!(app.send(&chat(fields)).whole);
    }
    app.settled();
    app.drain();
    let states: BTreeSet<_> = collector
        .spans()
        .into_iter()
        .map(|span| (span.kind, span.trace_state))
        .collect();
    let told = |kind| [(kind, String::new()), (kind, "other=1,more=2".to_owned())];
    assert_eq!(
        states,
        [told(SERVER), told(3)].concat().into_iter().collect()
    );
    let posted: usize = (collector.seen.lock().unwrap().iter())
        .map(|post| post.body.len())
        .sum();
    assert!(posted < 8 << 10, "{posted} bytes");
    assert_eq!(seen.lock().unwrap()[0].field("tracestate"), Some(long));
}

/// A try that does not come to its end has failed, whoever cut it.
#[test]
fn tries_that_are_cut_have_failed() {
    let collector = Http::good();
    let silent = sim(Some(Fault::Hang));
    let (streaming, _go) = RawEngine::stepped(1000);
    let unread = RawEngine::start(|mut conn| {
        conn.head();
        conn.closed();
    });
    let app = |engine: &str| {
        let collecting = traces(&collector.engine.url(), 1.0);
        TestApp::with(&[(engine, "m")], |config| {
            collecting(config);
            config.settings.timeouts.total = Some(Duration::from_secs(1));
            config.settings.timeouts.client_body_idle = Duration::from_millis(200);
        })
    };
    let drained = |app: TestApp, why: &str| {
        app.settled();
        app.drain();
        assert_failed(collector.spans().last().unwrap(), why);
    };
    // The client leaves a try that goes on.
    let left = app(&silent.url());
    let mut client = left.connect();
    client.write(chat("").as_bytes());
    eventually("it is under way", || left.in_flight() == 1);
    drop(client);
    drained(left, "client_gone");
    // The time of an answer is up.
    let late = app(&streaming.url());
    assert_eq!(late.send(&chat("")).status, 200);
    drained(late, "deadline_exceeded");
    // The client does not send its body.
    let waiting = app(&unread.url());
    let unfinished = "POST /other HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n{";
    assert_eq!(waiting.send(unfinished).status, 408);
    drained(waiting, "client_broke_off");
}

/// What the engine does not tell is in the log, and in no span: others bill by it.
#[test]
fn a_client_of_http2_is_told_of_by_both() {
    let collector = Http::good();
    let engine = RawEngine::start(|mut conn| {
        while conn.request().is_some() {
            conn.stream_head();
            conn.chunk("data: {}\n\ndata: {}\n\n");
            conn.chunk("data: [DONE]\n\n");
            conn.write("0\r\n\r\n");
        }
    });
    let folder = Folder::new("tracing-both");
    let file = folder.path("access.log");
    let url = engine.url();
    let collecting = traces(&collector.engine.url(), 1.0);
    let app = TestApp::with(&[(&url, "m")], |config| {
        collecting(config);
        config.access_log = Some(AccessLog {
            to: LogTarget::File(file.clone()),
            form: LineForm::Json,
        });
    });
    with_h2(&app, async |send| {
        let body = r#"{"model":"m","stream":true}"#;
        let mut send = send.ready().await.unwrap();
        let (mut head, ()) = crate::http2::post(body).into_parts();
        head.headers.insert("x-request-id", "r-2".parse().unwrap());
        let request = http::Request::from_parts(head, ());
        let (answer, mut upload) = send.send_request(request, false).unwrap();
        upload.send_data(body.into(), true).unwrap();
        let mut stream = answer.await.unwrap().into_body();
        while let Some(data) = stream.data().await {
            data.unwrap();
        }
    });
    app.settled();
    app.drain();
    let spans = collector.spans();
    assert_eq!(spans.len(), 2);
    says(
        &spans[0],
        &[
            ("network.protocol.version", "2"),
            ("pilotfish.request_id", "r-2"),
            ("pilotfish.ended", "complete"),
        ],
    );
    assert!(!attributes(&spans[1]).contains_key("gen_ai.usage.output_tokens"));
    let text = std::fs::read_to_string(&file).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["id"], "r-2");
    assert_eq!(line["ended"], "complete");
    assert_eq!(line["output_tokens"], 2);
    assert_eq!(line["trace_id"], hex(&spans[0].trace_id));
}

/// Enough requests for a batch, on one connection; each is quick.
fn batch(app: &TestApp) {
    let mut client = app.connect();
    let all = Instant::now();
    for _ in 0..300 {
        let began = Instant::now();
        client.write(chat("").as_bytes());
        let answer = client.answer().unwrap();
        assert!(answer.status == 200 && answer.whole);
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    assert!(
        all.elapsed() < Duration::from_secs(3),
        "{:?}",
        all.elapsed()
    );
}

/// Collectors that take nothing: requests do not notice, and what is lost is
/// counted.
#[test]
fn a_collector_that_takes_nothing_costs_spans_and_nothing_else() {
    let engine = sim(None);
    let (refused, nonsense) = (
        Http::answering("HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n"),
        Http::answering("SSH-2.0-x\r\n\r\n"),
    );
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let unwilling = Grpc::start(3);
    for url in [
        refused.engine.url(),
        nonsense.engine.url(),
        nobody,
        unwilling.address.to_string(),
    ] {
        let app = traced(&[&engine.url()], &url, 1.0);
        batch(&app);
        eventually("spans are counted as lost", || {
            app.metric("pilotfish_spans_dropped_total ") >= 512.0
        });
        assert_eq!(app.metric("pilotfish_spans_exported_total "), 0.0, "{url}");
    }
}

#[test]
fn a_collector_that_hangs_holds_nobody_up() {
    let engine = sim(None);
    let collector = Http::answering("");
    let app = traced(&[&engine.url()], &collector.engine.url(), 1.0);
    // More than may wait.
    for _ in 0..9 {
        batch(&app);
    }
    eventually("spans are lost", || {
        app.metric("pilotfish_spans_dropped_total ") > 0.0
    });
    let began = Instant::now();
    app.drain();
    assert!(
        began.elapsed() < Duration::from_millis(4500),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn what_may_pass_is_posted_again_and_what_is_refused_is_counted() {
    let engine = sim(None);
    // Busy, with a page that nobody reads; then an answer that breaks off; then 12 of
    // the spans are refused: partial_success {rejected_spans: 12}.
    let page = "x".repeat(100 << 10);
    let busy = format!(
        "HTTP/1.1 503 Busy\r\ncontent-length: {}\r\n\r\n{page}",
        page.len()
    );
    let busy: &'static str = busy.leak();
    let collector = Http::answering_each(move |number| match number {
        0 => busy,
        1 => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nbroken\r\n",
        _ => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\x0a\x02\x08\x0c",
    });
    let app = traced(&[&engine.url()], &collector.engine.url(), 1.0);
    batch(&app);
    eventually("spans are taken", || {
        app.metric("pilotfish_spans_exported_total ") >= 500.0
    });
    assert_eq!(app.metric("pilotfish_spans_exported_total "), 500.0);
    assert_eq!(app.metric("pilotfish_spans_dropped_total "), 12.0);
    batch(&app);
    eventually("more are taken", || {
        app.metric("pilotfish_spans_exported_total ") >= 1000.0
    });
    let seen = collector.seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    assert!(seen[0].body == seen[1].body && seen[1].body == seen[2].body);
    assert_eq!(
        collector.engine.connections(),
        3,
        "none after an error, else one"
    );
}

/// Every kind of request there is; the documents list what its spans say.
#[test]
fn the_documents_list_every_attribute() {
    let collector = Http::good();
    let (engine, _seen) = witness();
    let busy = RawEngine::answering("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
    let failing = RawEngine::start(|mut conn| drop(conn.request()));
    let urls = [busy.url(), engine.url(), failing.url()];
    let engines = [(&*urls[0], "m"), (&*urls[1], "m"), (&*urls[2], "n")];
    let app = TestApp::with(&engines, traces(&collector.engine.url(), 1.0));
    app.send(&chat("").replace("\"m\"", "\"n\""))
        .assert_error(502, "engine_error");
    for _ in 0..2 {
        app.send(&chat(""));
    }
    app.send("PURGE /x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    app.send(&chat("").replace("\"m\"", "\"z\""));
    app.settled();
    app.drain();
    let spans = collector.spans();
    let of_kind = |is_server: bool| -> BTreeSet<String> {
        let all = spans
            .iter()
            .filter(|span| (span.kind == SERVER) == is_server);
        all.flat_map(|span| {
            attributes(span)
                .into_keys()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logs-and-traces.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, traces) = text.split_once("## Traces").unwrap();
    let rows: Vec<(String, &str)> = traces
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(name, _)| name.contains('.') && !name.contains('/'))
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap()))
        .collect();
    for (is_server, word) in [(true, "server"), (false, "client")] {
        let listed: BTreeSet<String> = rows
            .iter()
            .filter(|(_, of)| *of == word || *of == "both")
            .map(|(name, _)| name.clone())
            .collect();
        assert_eq!(of_kind(is_server), listed, "{word}");
    }
}
