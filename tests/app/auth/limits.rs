//! What a caller may use, how often, and how much of it at once.

use serde_json::{Value, json};

use super::{CHAT, Keys, OK, chat, entry, get, with_key};
use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually, post};

#[test]
fn a_key_may_be_for_some_models_alone() {
    let engines = [RawEngine::echo(), RawEngine::echo()];
    let urls = engines.each_ref().map(RawEngine::url);
    let some = entry("some", &json!({"models": ["alias-of-a"]}));
    let keys = Keys::new("models", &[some, entry("all", &Value::Null)]);
    let app = keys.app(&[(&urls[0], "a"), (&urls[1], "b")], |config| {
        config.settings.aliases = [("alias-of-a", "a"), ("alias-of-b", "b")]
            .map(|(alias, model)| (alias.to_owned(), model.to_owned()))
            .into();
    });
    let ask = |key: &str, model: &str| {
        let body = format!(r#"{{"model":"{model}"}}"#);
        app.send(&with_key(&post(CHAT, &body), key))
    };
    for model in ["a", "alias-of-a"] {
        assert_eq!(ask("some", model).status, 200, "{model}");
    }
    for model in ["b", "alias-of-b"] {
        ask("some", model).assert_error(403, "model_not_allowed");
        assert_eq!(ask("all", model).status, 200, "{model}");
    }
    ask("some", "c").assert_error(404, "model_not_found");
    // What names no model may reach any engine.
    get(&app, "/tokenizer_info", "some").assert_error(403, "model_not_allowed");
    let sleep = with_key(&post(&format!("/sleep?id={}", urls[1]), ""), "some");
    app.send(&sleep).assert_error(403, "model_not_allowed");
    let listed = |key: &str| {
        let list = get(&app, "/v1/models", key).json();
        let ids = list["data"].as_array().unwrap().iter();
        ids.map(|card| card["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed("some"), ["a", "alias-of-a"]);
    assert_eq!(listed("all"), ["a", "b", "alias-of-a", "alias-of-b"]);
    let refused = "pilotfish_caller_refusals_total{caller=\"some\",reason=\"model\"}";
    assert_eq!(app.metric(refused) as u64, 4);
}

#[test]
fn a_policy_chooses_among_the_models_that_the_caller_may_use() {
    let engines = [RawEngine::echo(), RawEngine::echo()];
    let keys = Keys::new(
        "chosen",
        &[
            entry("some", &json!({"models": ["b"]})),
            entry("none", &json!({"models": ["c"]})),
        ],
    );
    let folder = &keys.folder;
    let dynamic = folder.path("router.json");
    let content = json!({
        "service_discovery": "static", "routing_logic": "sequential",
        "request_headers": {"allow": ["models"]},
        "engines": [{"url": engines[0].url(), "models": ["a"]}, {"url": engines[1].url(), "models": ["b"]}],
    });
    std::fs::write(&dynamic, content.to_string()).unwrap();
    let flags = [
        "--api-keys",
        keys.file.to_str().unwrap(),
        "--dynamic-config-json",
    ];
    let app = TestApp::from_flags(&[&flags[..], &[dynamic.to_str().unwrap()]].concat());
    let ask = |key: &str, model: &str| {
        let body = format!(r#"{{"model":"{model}"}}"#);
        app.send(&with_key(&post(CHAT, &body), key))
    };
    for model in ["a,b", "auto", "b,a", "auto"] {
        let answer = ask("some", model);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer.text().ends_with(r#"{"model":"b"}"#),
            "{}",
            answer.text()
        );
        ask("none", model).assert_error(403, "model_not_allowed");
    }
}

#[test]
fn a_key_has_so_many_requests_a_minute() {
    let engine = RawEngine::answering(OK);
    let limited = entry("slow", &json!({"requests_per_minute": 2}));
    let keys = Keys::new("rate", &[limited, entry("fast", &Value::Null)]);
    let app = keys.app(&[(&engine.url(), "m")], |config| config.workers = 2);
    for _ in 0..2 {
        assert_eq!(chat(&app, "slow").status, 200);
    }
    let refused = chat(&app, "slow");
    refused.assert_error(429, "rate_limit_exceeded");
    let wait: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((20..=30).contains(&wait), "{wait}");
    assert_eq!(
        get(&app, "/v1/models", "slow").status,
        429,
        "our own routes count too"
    );
    assert_eq!(chat(&app, "fast").status, 200);
    for (series, count) in [
        ("pilotfish_caller_requests_total{caller=\"slow\"}", 2),
        ("pilotfish_caller_requests_total{caller=\"fast\"}", 1),
        (
            "pilotfish_caller_refusals_total{caller=\"slow\",reason=\"rate\"}",
            2,
        ),
        ("pilotfish_callers", 2),
    ] {
        assert_eq!(app.metric(series) as u64, count, "{series}");
    }
}

#[test]
fn a_key_has_so_many_requests_at_once_until_their_streams_end() {
    let (engine, go) = RawEngine::stepped(1);
    let keys = Keys::new("busy", &[entry("k", &json!({"max_in_flight": 1}))]);
    let app = keys.app(&[(&engine.url(), "m")], |_| {});
    let mut first = app.connect();
    first.write(with_key(&post(CHAT, r#"{"model":"m","stream":true}"#), "k").as_bytes());
    first.until("data: 0");
    let refused = chat(&app, "k");
    refused.assert_error(429, "too_many_requests_for_key");
    assert!(refused.field("retry-after").is_some());
    get(&app, "/engines", "k").assert_error(429, "too_many_requests_for_key");
    go.send(()).unwrap();
    first.until("0\r\n\r\n");
    eventually("a place", || get(&app, "/engines", "k").status == 200);
    // Who leaves in the middle gives its place back too.
    let mut second = app.connect();
    second.write(with_key(&post(CHAT, r#"{"model":"m","stream":true}"#), "k").as_bytes());
    second.until("data: 0");
    assert_eq!(get(&app, "/engines", "k").status, 429);
    drop(second);
    eventually("a place", || get(&app, "/engines", "k").status == 200);
}

#[test]
fn a_tunnel_holds_its_place() {
    let engine = RawEngine::start(|mut conn| {
        if conn
            .head()
            .is_some_and(|head| head.contains("upgrade: websocket\r\n"))
        {
            conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
            conn.closed();
        }
    });
    let keys = Keys::new("tunnel", &[entry("k", &json!({"max_in_flight": 1}))]);
    let app = keys.app(&[(&engine.url(), "m")], |_| {});
    let upgrade =
        "GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    app.send(upgrade).assert_error(401, "invalid_api_key");
    let mut client = app.connect();
    client.write(with_key(upgrade, "k").as_bytes());
    client.until("hello");
    assert_eq!(get(&app, "/engines", "k").status, 429);
    drop(client);
    eventually("a place", || get(&app, "/engines", "k").status == 200);
}
