//! Who may call: keys and their limits, the engines' own keys, and the admin
//! listener's token.

mod engines;
mod limits;
mod models;

use std::path::PathBuf;

use pilotfish::auth::hash;
use pilotfish::config::auth::{KeptSecret, Secret, load};
use pilotfish::config::{AccessLog, Config, LineForm, LogTarget};
use serde_json::{Value, json};

use crate::support::engine::RawEngine;
use crate::support::{Answer, Folder, TestApp, eventually, post};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[]}"#;

/// An entry of the file for the key that is the name.
fn entry(name: &str, more: &Value) -> Value {
    let hex: String = (hash(name.as_bytes()).0.iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut entry = json!({"name": name, "sha256": hex});
    let more = more.as_object().cloned().unwrap_or_default();
    entry.as_object_mut().unwrap().extend(more);
    entry
}

/// A file of keys, gone when dropped.
struct Keys {
    folder: Folder,
    file: PathBuf,
}

impl Keys {
    fn new(of: &str, entries: &[Value]) -> Self {
        let folder = Folder::new(&format!("auth-{of}"));
        let file = folder.path("keys.json");
        let keys = Self { folder, file };
        keys.write(entries);
        keys
    }

    fn write(&self, entries: &[Value]) {
        std::fs::write(&self.file, json!({"keys": entries}).to_string()).unwrap();
    }

    fn app(&self, engines: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> TestApp {
        TestApp::with(engines, |config| {
            config.auth.callers = Some(load(&self.file).unwrap());
            change(config);
        })
    }
}

fn with_key(raw: &str, key: &str) -> String {
    let field = format!("host: x\r\nauthorization: Bearer {key}\r\n");
    raw.replacen("host: x\r\n", &field, 1)
}

fn get(app: &TestApp, path: &str, key: &str) -> Answer {
    let raw = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    app.send(&with_key(&raw, key))
}

fn chat(app: &TestApp, key: &str) -> Answer {
    app.send(&with_key(&post(CHAT, BODY), key))
}

fn kept(text: &str) -> Option<KeptSecret> {
    Some(KeptSecret {
        first: Secret::new(text).unwrap(),
        file: None,
    })
}

#[test]
fn every_route_but_those_of_probes_and_scrapers_asks_for_a_key() {
    let engine = RawEngine::answering(OK);
    let keys = Keys::new("routes", &[entry("k", &Value::Null)]);
    let app = keys.app(&[(&engine.url(), "m")], |_| {});
    for path in ["/health", "/livez", "/readyz", "/version", "/metrics"] {
        assert_eq!(app.get(path).status, 200, "{path}");
    }
    for request in [
        "GET /engines",
        "GET /v1/models",
        "GET /v1/models/m",
        "POST /v1/chat/completions",
        "POST /v1/infer",
        "POST /api/search",
        "POST /api/filter",
        "GET /config",
        "GET /policy",
        "GET /debug/decisions",
        "POST /v1/feedback",
        "POST /sleep?id=x",
        "OPTIONS /v1/chat/completions",
        "GET /",
        "GET /health/",
        "GET //health",
        "GET /metrics/..%2fv1/models",
    ] {
        let raw = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = app.send(&raw);
        answer.assert_error(401, "invalid_api_key");
        assert_eq!(
            answer.field("www-authenticate"),
            Some("Bearer"),
            "{request}"
        );
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert_ne!(app.send(&with_key(&raw, "k")).status, 401, "{request}");
    }
    assert_eq!(
        app.metric("pilotfish_refusals_total{reason=\"invalid_api_key\"}") as u64,
        17
    );
}

#[test]
fn whoever_is_not_known_gets_the_same_answer_and_reaches_no_engine() {
    let engine = RawEngine::answering(OK);
    let old = entry("old", &json!({"expires": "2020-01-01T00:00:00Z"}));
    let keys = Keys::new("same", &[entry("k", &Value::Null), old]);
    let app = keys.app(&[(&engine.url(), "m")], |_| {});
    let long = format!("authorization: Bearer {}", "k".repeat(10 << 10));
    let expected = app.chat(BODY);
    for fields in [
        "authorization: Bearer wrong",
        "authorization: Bearer old",
        "authorization: Bearer K",
        "authorization: Bearer",
        "authorization: Bearer k k",
        "authorization: k",
        "authorization: Basic azo=",
        "authorization: Bearer k\r\nauthorization: Bearer k",
        "authorization: Bearer wrong\r\nx-api-key: k",
        "x-api-key: wrong",
        "x_api_key: k",
        "authorization: Bearer \u{e9}\u{fffd}",
        "cookie: authorization=k",
        &long,
    ] {
        let raw = post(CHAT, BODY).replacen("host: x", &format!("host: x\r\n{fields}"), 1);
        let answer = app.send(&raw);
        answer.assert_error(401, "invalid_api_key");
        assert_eq!(answer.body, expected.body, "{fields}");
    }
    let url = engine.url();
    let served = format!("pilotfish_engine_requests_total{{engine=\"{url}\",outcome=\"success\"}}");
    assert_eq!(app.metric(&served) as u64, 0);
    for fields in [
        "authorization: Bearer k",
        "authorization: bearer  k",
        "x-api-key: k",
    ] {
        let raw = post(CHAT, BODY).replacen("host: x", &format!("host: x\r\n{fields}"), 1);
        assert_eq!(app.send(&raw).status, 200, "{fields}");
    }
}

#[test]
fn a_stranger_is_told_so_before_the_body() {
    let engine = RawEngine::answering(OK);
    let keys = Keys::new("body", &[entry("k", &Value::Null)]);
    let app = keys.app(&[(&engine.url(), "m")], |_| {});
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\
                expect: 100-continue\r\n\r\n";
    app.send(head).assert_error(401, "invalid_api_key");
    // The same of one who does not wait to be asked.
    let mut client = app.connect();
    client.write(head.replace("expect: 100-continue\r\n", "").as_bytes());
    client.write(&[b'x'; 1000]);
    client
        .answer()
        .unwrap()
        .assert_error(401, "invalid_api_key");
}

#[test]
fn the_file_is_reloaded_and_the_last_good_one_kept() {
    let engine = RawEngine::answering(OK);
    let keys = Keys::new(
        "reload",
        &[entry("one", &json!({"requests_per_minute": 1}))],
    );
    let app = keys.app(&[(&engine.url(), "m")], |_| {});
    assert_eq!(chat(&app, "one").status, 200);
    keys.write(&[
        entry("one", &json!({"requests_per_minute": 1})),
        entry("two", &Value::Null),
    ]);
    eventually("two", || get(&app, "/engines", "two").status == 200);
    // What was counted of one stays.
    assert_eq!(chat(&app, "one").status, 429);
    std::fs::write(&keys.file, "{\"keys\": [{\"name\": 1}]}").unwrap();
    let failures = "pilotfish_callers_reload_failures_total";
    eventually("a failure", || app.metric(failures) as u64 == 1);
    assert_eq!(
        app.metric("pilotfish_callers_last_reload_successful") as u64,
        0
    );
    assert_eq!(chat(&app, "two").status, 200);
    std::fs::remove_file(&keys.file).unwrap();
    eventually("another", || app.metric(failures) as u64 == 2);
    assert_eq!(chat(&app, "two").status, 200);
    keys.write(&[entry("three", &Value::Null)]);
    eventually("three", || get(&app, "/engines", "three").status == 200);
    assert_eq!(chat(&app, "two").status, 401);
    assert_eq!(app.metric("pilotfish_callers_reloads_total") as u64, 3);
}

#[test]
fn the_access_log_has_the_callers_name() {
    let engine = RawEngine::answering(OK);
    let keys = Keys::new(
        "log",
        &[entry("team-a", &json!({"requests_per_minute": 1}))],
    );
    let file = keys.folder.path("access.log");
    let app = keys.app(&[(&engine.url(), "m")], |config| {
        config.access_log = Some(AccessLog {
            to: LogTarget::File(file.clone()),
            form: LineForm::Json,
        });
    });
    for (key, status, caller, error) in [
        ("team-a", 200, json!("team-a"), Value::Null),
        ("team-a", 429, json!("team-a"), json!("rate_limit_exceeded")),
        ("wrong", 401, Value::Null, json!("invalid_api_key")),
    ] {
        let before = std::fs::read_to_string(&file)
            .unwrap_or_default()
            .lines()
            .count();
        assert_eq!(chat(&app, key).status, status);
        let lines = || std::fs::read_to_string(&file).unwrap_or_default();
        eventually("a line", || lines().lines().count() > before);
        let line: Value = serde_json::from_str(lines().lines().last().unwrap()).unwrap();
        assert_eq!(
            (&line["caller"], &line["error"]),
            (&caller, &error),
            "{line}"
        );
        assert_eq!(line["status"], status);
    }
}

#[test]
fn the_admin_listener_asks_for_its_token() {
    let keys = Keys::new("admin", &[entry("k", &Value::Null)]);
    let token = keys.folder.path("token");
    std::fs::write(&token, "t0ken\n").unwrap();
    let app = keys.app(&[], |config| {
        config.admin = Some("127.0.0.1:0".parse().unwrap());
        config.auth.admin_token = Some(KeptSecret {
            first: Secret::read(&token).unwrap(),
            file: Some(token),
        });
    });
    let ask = |request: &str, fields: &str| {
        let mut client = crate::support::Client::connect(app.admin());
        client.write(format!("{request} HTTP/1.1\r\nhost: x\r\n{fields}\r\n").as_bytes());
        client.answer().unwrap()
    };
    for request in [
        "GET /config",
        "GET /policy",
        "DELETE /policy/x",
        "POST /v1/feedback",
        "GET /debug/decisions",
        "PUT /debug/log-level?level=debug",
        "GET /nothing",
    ] {
        for fields in [
            "",
            "authorization: Bearer k\r\n",
            "authorization: Bearer t0ke\r\n",
        ] {
            let answer = ask(request, fields);
            assert_eq!(answer.status, 401, "{request}");
            assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
        }
        let answer = ask(request, "authorization: Bearer t0ken\r\n");
        assert_ne!(answer.status, 401, "{request}");
    }
}
