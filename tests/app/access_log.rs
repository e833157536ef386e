//! The access log: a line for each request that has ended, whoever ended it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use pilotfish::config::{AccessLog, Config, LineForm, LogTarget};
use pilotfish::sim::faults::Fault;
use serde_json::Value;

use crate::binary::{free_port, signal};
use crate::support::engine::RawEngine;
use crate::support::{Client, Folder, TestApp, eventually, post, sim};

/// What must never be in a line.
const CANARY: &str = "canary-7f3a";
/// A deadline.
const SHORT: Duration = Duration::from_millis(200);

/// An app that logs to a file, and that file.
struct Logged {
    app: Option<TestApp>,
    file: PathBuf,
    _folder: Folder,
}

impl Logged {
    fn new(name: &str, engines: &[String], change: impl FnOnce(&mut Config)) -> Self {
        let folder = Folder::new(&format!("access-{name}"));
        let file = folder.path("access.log");
        let engines: Vec<(&str, &str)> = engines.iter().map(|url| (url.as_str(), "m")).collect();
        let app = TestApp::with(&engines, |config| {
            config.access_log = Some(AccessLog {
                to: LogTarget::File(file.clone()),
                form: LineForm::Json,
            });
            change(config);
        });
        Self {
            app: Some(app),
            file,
            _folder: folder,
        }
    }

    fn app(&self) -> &TestApp {
        self.app.as_ref().unwrap()
    }

    /// The lines so far.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        assert!(!text.contains(CANARY), "{text}");
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The line of the one request that was made.
    fn line(&self) -> Value {
        eventually("a line", || !self.lines().is_empty());
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

/// A chat with secrets wherever there may be some.
fn chat(extra: &str) -> String {
    let body = format!(
        r#"{{"model":"m",{extra}"max_tokens":3,"messages":[{{"role":"user","content":"{CANARY}"}}]}}"#
    );
    let path = format!("/v1/chat/completions?key={CANARY}");
    let fields = format!(
        "authorization: Bearer {CANARY}\r\ncookie: a={CANARY}\r\nx-request-id: r-1\r\nhost: x\r\n"
    );
    post(&path, &body).replace("host: x\r\n", &fields)
}

/// Checks what a line says, by its fields.
#[track_caller]
fn says(line: &Value, expected: &[(&str, Value)]) {
    for (field, value) in expected {
        assert_eq!(&line[field], value, "{field} of {line}");
    }
}

fn words<const N: usize>(pairs: [(&'static str, &str); N]) -> Vec<(&'static str, Value)> {
    pairs.map(|(key, value)| (key, value.into())).to_vec()
}

#[test]
fn an_answer_is_told_of() {
    let engine = sim(None);
    let logged = Logged::new("json", &[engine.url()], |_| {});
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let field = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\nhost: x\r\n");
    let request = chat("").replace("host: x\r\n", &field);
    let answer = logged.app().send(&request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let line = logged.line();
    says(
        &line,
        &words([
            ("id", "r-1"),
            ("client", "127.0.0.1"),
            ("method", "POST"),
            ("path", "/v1/chat/completions"),
            ("model", "m"),
            ("engine", &engine.url()),
            ("policy", "roundrobin"),
            ("ended", "complete"),
            ("trace_id", trace),
        ]),
    );
    let usage = &answer.json()["usage"];
    let length = request.split_once("\r\n\r\n").unwrap().1.len();
    says(
        &line,
        &[
            ("status", 200.into()),
            ("attempts", 1.into()),
            ("error", Value::Null),
            ("itl_p50_ms", Value::Null),
            ("input_tokens", usage["prompt_tokens"].clone()),
            ("output_tokens", usage["completion_tokens"].clone()),
            ("request_bytes", length.into()),
            ("response_bytes", answer.body.len().into()),
        ],
    );
    let number = |field: &str| line[field].as_f64().unwrap_or_else(|| panic!("{field}"));
    assert!(number("ttft_ms") > 0.0 && number("ttft_ms") <= number("duration_ms"));
    assert!(number("overhead_us") > 0.0);
}

#[test]
fn a_stream_tells_its_pace() {
    let engine = RawEngine::start(|mut conn| {
        while conn.request().is_some() {
            conn.stream_head();
            for _ in 0..9 {
                conn.chunk("data: {}\n\n");
                std::thread::park_timeout(Duration::from_millis(20));
            }
            conn.chunk("data: [DONE]\n\n");
            conn.write("0\r\n\r\n");
        }
    });
    let logged = Logged::new("stream", &[engine.url()], |_| {});
    let answer = logged.app().send(&chat("\"stream\":true,"));
    assert!(answer.whole);
    let line = logged.line();
    says(&line, &words([("ended", "complete")]));
    says(&line, &[("output_tokens", 9.into())]);
    let median = line["itl_p50_ms"].as_f64().unwrap();
    assert!((15.0..200.0).contains(&median), "{median} ms");
}

/// What a line is to say: status, attempts, who ended it, the error.
type Said = (u16, u64, &'static str, Option<&'static str>);

/// Sends a request to these engines under that configuration, and checks what
/// its line says.
#[track_caller]
fn ends(name: &str, engines: &[String], change: fn(&mut Config), request: &str, said: Said) {
    let (status, attempts, ended, error) = said;
    let logged = Logged::new(name, engines, change);
    let mut answer = logged.app().send(request);
    let line = if attempts < 2 {
        logged.line()
    } else {
        // One of two in a row begins with the bad one.
        answer = logged.app().send(request);
        eventually("two lines", || logged.lines().len() == 2);
        let mut lines = logged.lines().into_iter();
        lines.find(|line| line["attempts"] == 2).unwrap()
    };
    assert_eq!(answer.status, status, "{name}: {}", answer.text());
    assert_eq!(line["status"], status, "{name}: {line}");
    assert_eq!(line["attempts"], attempts, "{name}: {line}");
    assert_eq!(line["ended"], ended, "{name}: {line}");
    assert_eq!(line["error"].as_str(), error, "{name}: {line}");
    let was_sent = attempts > 0;
    assert_eq!(line["engine"].is_string(), was_sent, "{name}: {line}");
    assert_eq!(line["policy"].is_string(), was_sent, "{name}: {line}");
    if attempts == 2 {
        assert_eq!(line["engine"], engines[1], "{name}: {line}");
    }
}

/// The URL of nobody.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn who_answers_in_the_end_is_named() {
    let busy = RawEngine::answering("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
    let (one, other) = (sim(None), sim(None));
    let twice = (200, 2, "complete", None);
    ends("retry", &[nobody(), one.url()], |_| {}, &chat(""), twice);
    ends("busy", &[busy.url(), other.url()], |_| {}, &chat(""), twice);
    let passed_on = (503, 1, "complete", None);
    ends("passed on", &[busy.url()], |_| {}, &chat(""), passed_on);
}

#[test]
fn engines_that_fail_are_named() {
    let failing = RawEngine::start(|mut conn| drop(conn.request()));
    let cut = RawEngine::start(|mut conn| {
        if conn.request().is_some() {
            conn.stream_head();
            conn.chunk("data: {}\n\n");
        }
    });
    let silent = sim(Some(Fault::Hang));
    let failed = |status, error| (status, 1, "engine_failed", Some(error));
    let said = failed(503, "model_unavailable");
    ends("nobody", &[nobody()], |_| {}, &chat(""), said);
    // It may leave a trace, and is not sent again.
    let other = chat("").replace("/v1/chat/completions", "/other");
    let said = failed(502, "engine_error");
    ends("failed", &[failing.url()], |_| {}, &other, said);
    let said = failed(200, "connection_broken");
    ends("cut", &[cut.url()], |_| {}, &chat("\"stream\":true,"), said);
    let said = failed(504, "engine_timeout");
    let change = |config: &mut Config| config.settings.timeouts.engine_head = SHORT;
    ends("silent", &[silent.url()], change, &chat(""), said);
    let said = (504, 1, "deadline", Some("deadline_exceeded"));
    let change = |config: &mut Config| config.settings.timeouts.total = Some(SHORT);
    ends("deadline", &[silent.url()], change, &chat(""), said);
}

#[test]
fn what_we_refuse_is_told_of() {
    let engine = sim(None);
    let engines = [engine.url()];
    let refused = |status, error| (status, 0, "refused", Some(error));
    let unknown = chat("").replace("\"m\"", "\"z\"");
    let said = refused(404, "model_not_found");
    ends("unknown", &engines, |_| {}, &unknown, said);
    let full = |config: &mut Config| config.settings.admission.max_in_flight = Some(0);
    let said = refused(429, "queue_full");
    ends("full", &engines, full, &chat(""), said);
    let bad = post("/v1/completions", "{");
    ends("bad", &engines, |_| {}, &bad, refused(400, "invalid_json"));
}

#[test]
fn a_client_that_leaves_ended_it() {
    let (engine, go) = RawEngine::stepped(1000);
    let logged = Logged::new("gone", &[engine.url()], |_| {});
    // In the midst of a stream.
    let mut client = logged.app().connect();
    client.write(chat("\"stream\":true,").as_bytes());
    client.until("data: 0");
    drop(client);
    let line = logged.line();
    says(&line, &words([("ended", "client_gone"), ("model", "m")]));
    says(&line, &[("status", 200.into())]);
    drop(go);
    // In the midst of its own body: no engine has heard of it.
    let mut client = logged.app().connect();
    client.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: r-2\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{");
    eventually("the request is there", || {
        logged.app().metric("pilotfish_client_connections ") >= 2.0
    });
    drop(client);
    eventually("two lines", || logged.lines().len() == 2);
    let line = logged.lines().remove(1);
    says(&line, &words([("id", "r-2"), ("ended", "client_gone")]));
    says(&line, &[("attempts", 0.into()), ("model", Value::Null)]);
}

/// The client's own doing, though an engine has the request.
#[test]
fn a_client_that_does_not_go_on_with_its_body_ended_it() {
    let engine = RawEngine::start(|mut conn| {
        conn.head();
        conn.closed();
    });
    let change = |config: &mut Config| config.settings.timeouts.client_body_idle = SHORT;
    let unfinished = "POST /other HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n{";
    let said = (408, 1, "client_gone", Some("request_timeout"));
    ends("body late", &[engine.url()], change, unfinished, said);
}

#[test]
fn who_is_asked_in_vain_before_the_others_are_full_is_to_blame() {
    let (engine, _go) = RawEngine::stepped(1000);
    let engines = [nobody(), engine.url()];
    let logged = Logged::new("then full", &engines, |config| {
        config.settings.admission.max_per_engine = Some(1);
    });
    // One of two in a row begins with nobody, and both end with the other one.
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut client = logged.app().connect();
        client.write(chat("\"stream\":true,").as_bytes());
        streams.push(client);
    }
    let line = logged.line();
    says(&line, &words([("ended", "engine_failed")]));
    says(&line, &[("attempts", 1.into()), ("status", 429.into())]);
}

#[test]
fn a_time_that_is_up_is_told_though_the_client_takes_nothing() {
    let engine = RawEngine::start(|mut conn| {
        if conn.request().is_some() {
            conn.stream_head();
            let data = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while conn.stream.write_all(data.as_bytes()).is_ok() {}
        }
    });
    let logged = Logged::new("slow", &[engine.url()], |config| {
        config.settings.timeouts.total = Some(Duration::from_secs(1));
        // Later: if not all is stuck by then, the answer's end is.
        config.settings.timeouts.client_write_stall = Duration::from_secs(5);
    });
    let mut client = logged.app().connect();
    client.write(chat("\"stream\":true,").as_bytes());
    let line = logged.line();
    let said = [("ended", "deadline"), ("error", "deadline_exceeded")];
    says(&line, &words(said));
    says(&line, &[("status", 200.into())]);
}

/// A tunnel is told of when it has ended; what passed is not seen.
#[test]
fn tunnels_are_told_of() {
    let engine = RawEngine::start(|mut conn| {
        if conn.head().is_some() {
            conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
            conn.closed();
        }
    });
    for (name, is_left, ended) in [("left", true, "complete"), ("cut", false, "stopped")] {
        let mut logged = Logged::new(name, &[engine.url()], |_| {});
        let mut client = logged.app().connect();
        client.write(b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
        client.until("hello");
        assert!(logged.lines().is_empty());
        if is_left {
            drop(client);
            logged.line();
        }
        logged.app.take().unwrap().drain();
        let line = logged.line();
        says(&line, &words([("ended", ended)]));
        says(
            &line,
            &[("status", 101.into()), ("response_bytes", Value::Null)],
        );
        says(&line, &[("request_bytes", Value::Null)]);
    }
}

#[test]
fn what_we_cut_when_stopping_is_told_and_nothing_is_lost() {
    let (engine, _go) = RawEngine::stepped(1000);
    let mut logged = Logged::new("stop", &[engine.url()], |_| {});
    let mut client = logged.app().connect();
    client.write(chat("\"stream\":true,").as_bytes());
    client.until("data: 0");
    logged.app.take().unwrap().drain();
    let lines = logged.lines();
    assert_eq!(lines.len(), 1);
    says(&lines[0], &words([("ended", "stopped")]));
}

#[test]
fn nobody_writes_a_line_of_his_own() {
    let engine = sim(None);
    let logged = Logged::new("escape", &[engine.url()], |_| {});
    for (id, path) in [
        (r#"a","status":0,"x":"#, "/v1/\"quoted\"%0a{}"),
        ("back\\slash", "/%22%0d%0a"),
        ("x", "/'|;~"),
    ] {
        let answer = logged.app().send(&format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\n\r\n"
        ));
        assert_eq!(
            answer.field("x-request-id"),
            Some(id),
            "{path} {}",
            answer.status
        );
    }
    // Ids that are none are replaced.
    logged
        .app()
        .send("GET /x HTTP/1.1\r\nhost: x\r\nx-request-id: a b\tc\r\n\r\n");
    eventually("four lines", || logged.lines().len() == 4);
    let ids: BTreeMap<String, String> = logged
        .lines()
        .iter()
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("id"), text("path"))
        })
        .collect();
    assert_eq!(ids[r#"a","status":0,"x":"#], "/v1/\"quoted\"%0a{}");
    assert_eq!(ids["back\\slash"], "/%22%0d%0a");
    assert!(!ids.contains_key("a b\tc"));
}

#[test]
fn our_own_pages_are_not_told_of() {
    let engine = sim(None);
    let mut logged = Logged::new("pages", &[engine.url()], |_| {});
    for page in ["/health", "/metrics", "/v1/models"] {
        assert_eq!(logged.app().get(page).status, 200);
    }
    logged.app.take().unwrap().drain();
    assert_eq!(logged.lines().len(), 0);
}

#[test]
fn a_log_that_cannot_be_opened_keeps_us_from_starting() {
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        access_log: Some(AccessLog {
            to: LogTarget::File("/nowhere/access.log".into()),
            form: LineForm::Json,
        }),
        ..Config::default()
    };
    let error = pilotfish::app::build(config).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains("cannot open the access log /nowhere/access.log"),
        "{text}"
    );
}

/// The binary with these flags, and a chat that it answers.
fn started(engine: &str, flags: &str) -> (Child, impl Fn() + use<>) {
    let port = free_port();
    let flags = format!(
        "--host 127.0.0.1 --port {port} --service-discovery static --routing-logic roundrobin \
         --static-models m --drain-settle 0 --static-backends {engine} {flags}"
    );
    let child = crate::binary::pilotfish()
        .args(flags.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("it listens", || TcpStream::connect(address).is_ok());
    let ask = move || {
        let mut client = Client::connect(address);
        client.write(chat("").as_bytes());
        assert_eq!(client.answer().unwrap().status, 200);
    };
    (child, ask)
}

/// The binary: SIGHUP means files, and harms nobody who has none.
#[test]
fn a_hangup_without_files_is_nothing() {
    let engine = sim(None);
    for flags in ["", "--access-log -"] {
        let (mut child, ask) = started(&engine.url(), flags);
        signal(&child, "-HUP");
        // It is delivered before the next one is.
        ask();
        signal(&child, "-TERM");
        assert!(child.wait().unwrap().success(), "{flags}");
    }
}

/// The binary: a log that is moved away is begun anew on SIGHUP.
#[test]
fn a_log_is_rotated() {
    let engine = sim(None);
    let folder = Folder::new("access-rotate");
    let (file, moved) = (folder.path("access.log"), folder.path("access.log.1"));
    let (mut child, ask) = started(&engine.url(), &format!("--access-log {}", file.display()));
    let lines = |file: &std::path::Path| {
        std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
    };
    ask();
    eventually("a line", || lines(&file) == 1);
    std::fs::rename(&file, &moved).unwrap();
    ask();
    eventually("a line in the old file", || lines(&moved) == 2);
    signal(&child, "-HUP");
    eventually("a new file", || file.exists());
    ask();
    eventually("a line in the new file", || lines(&file) == 1);
    ask();
    // The last line is not lost.
    signal(&child, "-TERM");
    assert!(child.wait().unwrap().success());
    assert_eq!((lines(&file), lines(&moved)), (2, 2));
}
