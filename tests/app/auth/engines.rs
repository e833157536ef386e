//! Whose key engines see, and that nobody makes us call others.

use std::sync::{Arc, Mutex};

use pilotfish::config::auth::KeyFrom;
use serde_json::Value;

use super::{BODY, CHAT, Keys, OK, chat, entry, kept};
use crate::support::engine::RawEngine;
use crate::support::{Folder, TestApp, eventually, post};

#[test]
fn engines_see_their_own_key_or_the_clients_never_ours() {
    let engine = RawEngine::echo();
    let sent = "authorization: Bearer k\r\nx-api-key: k";
    let raw = post(CHAT, BODY).replacen("host: x", &format!("host: x\r\n{sent}"), 1);
    let seen = |app: &TestApp| {
        let head = app.send(&raw).text();
        let fields = head
            .split("\r\n")
            .filter(|line| line.contains("key") || line.contains("auth"));
        fields.map(str::to_owned).collect::<Vec<_>>()
    };
    let url = engine.url();
    let open = TestApp::with(&[(&url, "m")], |_| {});
    assert_eq!(seen(&open), ["authorization: Bearer k", "x-api-key: k"]);
    let injecting = TestApp::with(&[(&url, "m")], |config| config.auth.engine_key = kept("e"));
    assert_eq!(seen(&injecting), ["authorization: Bearer e"]);
    let keys = Keys::new("forward", &[entry("k", &Value::Null)]);
    let guarded = keys.app(&[(&url, "m")], |_| {});
    assert_eq!(seen(&guarded), [""; 0]);
    let both = keys.app(&[(&url, "m")], |config| config.auth.engine_key = kept("e"));
    assert_eq!(seen(&both), ["authorization: Bearer e"]);
}

/// Heads that an engine got.
type Heads = Arc<Mutex<Vec<String>>>;

/// An engine that notes the heads that it gets, and tells of the model `m`.
fn noting() -> (RawEngine, Heads) {
    let heads = Heads::default();
    let noted = Arc::clone(&heads);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            noted.lock().unwrap().push(seen.head.clone());
            match seen.head.split(' ').nth(1) {
                Some("/v1/models") => conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#),
                _ => conn.write(OK),
            }
        }
    });
    (engine, heads)
}

#[test]
fn each_engine_is_called_by_its_own_key_whatever_is_asked() {
    let ((one, of_one), (two, of_two), (three, of_three)) = (noting(), noting(), noting());
    let folder = Folder::new("auth-own");
    let file = folder.path("key");
    std::fs::write(&file, "own-of-one\n").unwrap();
    let app = TestApp::with(
        &[(&one.url(), "x"), (&two.url(), "x"), (&three.url(), "x")],
        |config| {
            config.auth.engine_key = kept("common");
            config.stats.scrape_every = std::time::Duration::from_millis(50);
            let keys = [Some(file), Some(folder.path("missing")), None];
            for (engine, key) in config.settings.engines.iter_mut().zip(keys) {
                engine.models = None;
                Arc::make_mut(&mut engine.traits).key = key.map(KeyFrom::File);
            }
        },
    );
    let is_asked = |heads: &Heads, what: &str| {
        let heads = heads.lock().unwrap();
        heads.iter().any(|head| head.contains(what))
    };
    eventually("models and metrics are asked for", || {
        let all = [&of_one, &of_two, &of_three];
        all.iter()
            .all(|heads| is_asked(heads, "/v1/models") && is_asked(heads, "/metrics"))
    });
    for _ in 0..6 {
        assert_eq!(chat(&app, "client").status, 200);
    }
    for (heads, expected) in [
        (&of_one, Some("own-of-one")),
        // Not the common one, nor the client's.
        (&of_two, None),
        (&of_three, Some("common")),
    ] {
        let heads = heads.lock().unwrap();
        assert!(
            heads.iter().any(|head| head.starts_with("POST")),
            "{heads:?}"
        );
        for head in heads.iter() {
            let mut lines = head.split("\r\n");
            let field = lines.find_map(|line| line.strip_prefix("authorization: Bearer "));
            assert_eq!(field, expected, "{head}");
        }
    }
}

#[test]
fn a_field_names_no_address_of_its_own() {
    let engine = RawEngine::answering(OK);
    let elsewhere = RawEngine::answering(OK);
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.routing.allow.engine = true;
        config.settings.routing.allow.select = true;
    });
    for url in [
        elsewhere.url(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
    ] {
        let pin = format!("host: x\r\nx-pilotfish-engine: {url}\r\n");
        let raw = post(CHAT, BODY).replacen("host: x\r\n", &pin, 1);
        app.send(&raw).assert_error(404, "engine_not_found");
        app.send(&post(&format!("{CHAT}?id={url}"), BODY))
            .assert_error(404, "engine_not_found");
    }
    assert_eq!(elsewhere.connections(), 0);
}
