//! That nothing gets past a caller's list of models.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{CHAT, Keys, OK, entry, with_key};
use crate::support::engine::RawEngine;
use crate::support::{Answer, TestApp, post};

/// Paths that an engine was asked for, but for its models.
type Paths = Arc<Mutex<Vec<String>>>;

/// An engine that tells of the model `bad`, and notes what else it is asked.
fn telling() -> (RawEngine, Paths) {
    let paths = Paths::default();
    let noted = Arc::clone(&paths);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            let path = seen.head.split(' ').nth(1).unwrap_or_default().to_owned();
            if path == "/v1/models" {
                conn.json(r#"{"object":"list","data":[{"id":"bad"}]}"#);
                continue;
            }
            noted.lock().unwrap().push(path);
            conn.write(OK);
        }
    });
    (engine, paths)
}

/// Callers `some`, of the model `good` alone, and `all`.
fn keys(of: &str) -> Keys {
    let some = entry("some", &json!({"models": ["good"]}));
    Keys::new(of, &[some, entry("all", &Value::Null)])
}

fn send(app: &TestApp, key: &str, path: &str, body: &str) -> Answer {
    app.send(&with_key(&post(path, body), key))
}

fn form(app: &TestApp, key: &str, parts: &[&str], more: usize) -> Answer {
    let mut body: String = parts
        .iter()
        .map(|part| format!("--B\r\nContent-Disposition: form-data; {part}\r\n"))
        .collect();
    body += "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    body += &"x".repeat(more);
    body += "\r\n--B--\r\n";
    let raw = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n\
         content-type: multipart/form-data; boundary=B\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    app.send(&with_key(&raw, key))
}

#[test]
fn no_form_names_another_model() {
    let (engine, paths) = telling();
    let app = keys("forms").app(&[(&engine.url(), "good")], |config| {
        config.settings.limits.max_peek_bytes = 4096;
    });
    let good = "name=\"model\"\r\n\r\ngood";
    for more in [
        "name=\"model\"\r\n\r\nbad",
        "name=\"x\"; name=\"model\"\r\n\r\nbad",
        "name=\"x\"\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nbad",
        "name=\"model\"; filename=\"x\"\r\n\r\nbad",
    ] {
        for key in ["some", "all"] {
            let answer = form(&app, key, &[good, more], 10);
            answer.assert_error(400, "invalid_value");
        }
    }
    // Behind what is held there might be another.
    form(&app, "some", &[good], 100_000).assert_error(413, "request_too_large");
    let long = format!(r#"{{"model":"good","x":"{}"}}"#, "x".repeat(100_000));
    send(&app, "some", CHAT, &long).assert_error(413, "request_too_large");
    assert_eq!(paths.lock().unwrap().len(), 0);
    for (key, more) in [("some", 10), ("all", 10), ("all", 100_000)] {
        assert_eq!(form(&app, key, &[good], more).status, 200, "{key} {more}");
    }
    assert_eq!(send(&app, "all", CHAT, &long).status, 200);
    assert_eq!(paths.lock().unwrap().len(), 4);
}

#[test]
fn paths_that_may_name_another_model_are_refused_whatever_the_body_says() {
    let (engine, paths) = telling();
    let app = keys("paths").app(&[(&engine.url(), "good")], |_| {});
    let id = engine.url();
    let body = r#"{"model":"good"}"#;
    for path in [
        &format!("/sleep?id={id}"),
        &format!("/wake_up?id={id}"),
        &format!("/is_sleeping?id={id}"),
        "/sleep",
        "/v1/models/bad",
        "/v2/models/bad/infer",
        "/v1/load_lora_adapter",
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "/",
    ] {
        send(&app, "some", path, body).assert_error(403, "model_not_allowed");
    }
    assert_eq!(paths.lock().unwrap().len(), 0);
    assert_eq!(send(&app, "all", "/v2/models/bad/infer", body).status, 200);
    assert_eq!(send(&app, "some", CHAT, body).status, 200);
    assert_eq!(paths.lock().unwrap().len(), 2);
}
