//! Each policy through the whole proxy: who gets a request, what requests may
//! ask for, and what is told of it.

use std::collections::BTreeSet;

use crate::support::engine::RawEngine;
use crate::support::{Answer, Client, Folder, TestApp, eventually, post};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::{Value, json};

const BODY: &str = r#"{"model":"m","max_tokens":2,"user":"u","messages":[{"role":"user","content":"Tell me a long story of the sea, and of the salt in it."}]}"#;

fn sims(count: usize) -> Vec<SimEngine> {
    (0..count)
        .map(|_| SimEngine::start(SimConfig::new("m", Speed::instant())).unwrap())
        .collect()
}

/// An app under these keys, before engines of model `m`, with a file of its own.
fn app(name: &str, urls: &[String], keys: Value) -> TestApp {
    let engines: Vec<Value> = urls
        .iter()
        .map(|url| json!({"url": url, "models": ["m"]}))
        .collect();
    let mut all = json!({
        "service_discovery": "static", "routing_logic": "roundrobin",
        "session_key": "x-user-id", "engines": engines,
    });
    let Value::Object(keys) = keys else {
        panic!("no keys");
    };
    all.as_object_mut().unwrap().extend(keys);
    let folder = Folder::new(name);
    let file = folder.path("dynamic.json");
    std::fs::write(&file, all.to_string()).unwrap();
    TestApp::from_flags(&[
        "--admin-port=0",
        "--dynamic-config-json",
        file.to_str().unwrap(),
    ])
}

fn urls(engines: &[SimEngine]) -> Vec<String> {
    engines.iter().map(SimEngine::url).collect()
}

/// Sends a request with these fields more in its head.
fn ask(app: &TestApp, fields: &str, body: &str) -> Answer {
    app.send(&asking(fields, "/v1/chat/completions", body))
}

fn asking(fields: &str, path: &str, body: &str) -> String {
    post(path, body).replacen("host: x\r\n", &format!("host: x\r\n{fields}"), 1)
}

/// The engine that gets a request with these fields.
fn chosen(app: &TestApp, fields: &str, path: &str, body: &str) -> String {
    let fields = format!("x-pilotfish-explain: 1\r\n{fields}");
    let answer = app.send(&asking(&fields, path, body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.field("x-pilotfish-engine").unwrap().to_owned()
}

fn admin(app: &TestApp, path: &str) -> Answer {
    let mut client = Client::connect(app.admin());
    client.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
    client.answer().unwrap()
}

#[test]
fn every_policy_serves_and_tells_why() {
    let engines = sims(3);
    let all: BTreeSet<String> = urls(&engines).into_iter().collect();
    for policy in pilotfish::config::policies::PolicyKind::NAMES {
        let app = app(policy, &urls(&engines), json!({"routing_logic": policy}));
        for _ in 0..6 {
            let answer = ask(&app, "x-pilotfish-explain: 1\r\n", BODY);
            assert_eq!(answer.status, 200, "{policy}: {}", answer.text());
            let engine = answer.field("x-pilotfish-engine").unwrap();
            assert!(all.contains(engine), "{policy}: {engine}");
            assert_eq!(answer.field("x-pilotfish-policy"), Some(policy));
            let id = answer.field("x-pilotfish-decision").unwrap();
            let record = admin(&app, &format!("/debug/decisions/{id}")).json();
            assert_eq!(record["chosen"], engine, "{policy}");
            assert_eq!(record["type"], policy);
            assert_eq!(record["model"], "m");
            let candidates = record["candidates"].as_array().unwrap();
            assert_eq!(candidates.len(), 3, "{policy}");
            let ranked: BTreeSet<String> = candidates
                .iter()
                .map(|one| one["engine_id"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(ranked, all);
        }
        let last = admin(&app, "/debug/decisions?last=4").json();
        let ids: Vec<u64> = (last.as_array().unwrap().iter())
            .map(|record| record["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, [6, 5, 4, 3]);
        assert!(ask(&app, "", BODY).field("x-pilotfish-engine").is_none());
    }
}

#[test]
fn decisions_that_are_not_there_are_told_of() {
    let engines = sims(1);
    let sampled = app("sampled", &urls(&engines), json!({"decision_sample": 1.0}));
    ask(&sampled, "x-request-id: mine\r\n", BODY);
    let last = admin(&sampled, "/debug/decisions").json();
    assert_eq!(last[0]["request_id"], "mine");
    let plain = app("plain", &urls(&engines), json!({}));
    ask(&plain, "x-pilotfish-explain: 0\r\n", BODY);
    assert_eq!(admin(&plain, "/debug/decisions").json(), json!([]));
    assert_eq!(admin(&plain, "/debug/decisions/1").status, 404);
    assert_eq!(admin(&plain, "/debug/decisions/x").status, 404);
    assert_eq!(admin(&plain, "/debug/decisions?last=all").status, 400);
    assert_eq!(plain.get("/debug/decisions").status, 404, "only for admins");
}

#[test]
fn a_key_may_come_from_anywhere() {
    let engines = sims(4);
    for (keys, same, other) in [
        (json!(["header:x-tenant"]), "x-tenant: a\r\n", "x-tenant: b"),
        (
            json!(["cookie:sid"]),
            "cookie: x=1; sid=a\r\n",
            "cookie: sid=b",
        ),
        (json!(["user", "address"]), "", ""),
        (json!(["prompt", "header:x-tenant"]), "", ""),
        (json!(["body:tenant", "address"]), "", ""),
    ] {
        let name = keys[0].as_str().unwrap().replace(':', "-");
        let policies = json!({"p": {"type": "consistenthash", "keys": keys}});
        let app = app(
            &name,
            &urls(&engines),
            json!({"routing_logic": "p", "policies": policies}),
        );
        let first = chosen(&app, same, "/v1/chat/completions", BODY);
        for _ in 0..5 {
            app.settled();
            assert_eq!(
                chosen(&app, same, "/v1/chat/completions", BODY),
                first,
                "{name}"
            );
        }
        if !other.is_empty() {
            // Some key of another's goes elsewhere.
            let moved = (0..20).any(|n| {
                app.settled();
                chosen(
                    &app,
                    &format!("{other}{n}\r\n"),
                    "/v1/chat/completions",
                    BODY,
                ) != first
            });
            assert!(moved, "{name}");
        }
    }
}

#[test]
fn a_hot_key_overflows_to_the_next_in_its_order() {
    let engines: Vec<(RawEngine, _)> = (0..3).map(|_| RawEngine::stepped(1)).collect();
    let urls: Vec<String> = engines.iter().map(|(engine, _)| engine.url()).collect();
    let policies = json!({"p": {"type": "session", "placement": "rendezvous", "load_bound": 1.0}});
    let app = app(
        "overflow",
        &urls,
        json!({"routing_logic": "p", "policies": policies}),
    );
    let body = r#"{"model":"m","stream":true,"messages":[]}"#;
    let mut open = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let mut client = app.connect();
        let fields = "x-user-id: hot\r\nx-pilotfish-explain: 1\r\n";
        client.write(asking(fields, "/v1/chat/completions", body).as_bytes());
        let head = client.until("data: 0\n\n");
        let line = head
            .lines()
            .find(|line| line.starts_with("x-pilotfish-engine"));
        seen.insert(line.unwrap().to_owned());
        open.push(client);
    }
    assert_eq!(seen.len(), 3, "one each: {seen:?}");
}

#[test]
fn conversations_stay_with_their_cache() {
    let engines = sims(8);
    let app = app(
        "prefix",
        &urls(&engines),
        json!({"routing_logic": "prefixaware"}),
    );
    let long = |n: usize| format!("{n} {}", "tell me more of it ".repeat(30));
    let message = |role: &str, n: usize| json!({"role": role, "content": long(n)});
    let mut engines_used = BTreeSet::new();
    for conversation in 0..6 {
        let system = json!({"role": "system", "content": "Be kind, and be brief."});
        let mut messages = vec![system, message("user", 1000 + conversation)];
        let mut homes = BTreeSet::new();
        for turn in 0..4 {
            let body = json!({"model": "m", "max_tokens": 2, "messages": messages});
            app.settled();
            homes.insert(chosen(&app, "", "/v1/chat/completions", &body.to_string()));
            messages.push(message("assistant", turn));
            messages.push(message("user", 100 + turn));
        }
        assert_eq!(homes.len(), 1, "conversation {conversation}");
        engines_used.extend(homes);
    }
    assert!(
        engines_used.len() > 1,
        "a shared system prompt binds nobody"
    );
}

#[test]
fn prompts_that_grow_by_128_bytes_stay() {
    let engines = sims(8);
    let app = app(
        "nested",
        &urls(&engines),
        json!({"routing_logic": "prefixaware"}),
    );
    let part = |n: usize| format!("{n:04} {}", "x".repeat(123));
    for prompt in 0..4 {
        let mut content = String::new();
        let mut homes = BTreeSet::new();
        for step in 0..6 {
            content.push_str(&part(prompt * 100 + step));
            let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
            app.settled();
            homes.insert(chosen(&app, "", "/v1/chat/completions", &body.to_string()));
        }
        assert_eq!(homes.len(), 1, "prompt {prompt}");
    }
}

#[test]
fn every_kind_of_prompt_has_a_home() {
    let engines = sims(8);
    let app = app(
        "prompts",
        &urls(&engines),
        json!({"routing_logic": "prefixaware"}),
    );
    let text = "once upon a time ".repeat(40);
    let ids: Vec<u32> = (0..300).collect();
    let picture = format!("data:image/png;base64,{}", "QUJD".repeat(100));
    for (path, body) in [
        (
            "/v1/completions",
            json!({"model": "m", "max_tokens": 1, "prompt": text}),
        ),
        (
            "/v1/completions",
            json!({"model": "m", "max_tokens": 1, "prompt": ids}),
        ),
        (
            "/v1/embeddings",
            json!({"model": "m", "input": [text, "x"]}),
        ),
        (
            "/v1/chat/completions",
            json!({"model": "m", "max_tokens": 1, "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]},
            ]}),
        ),
    ] {
        let home = chosen(&app, "", path, &body.to_string());
        for _ in 0..4 {
            app.settled();
            assert_eq!(chosen(&app, "", path, &body.to_string()), home, "{body}");
        }
        // The record tells what was recalled.
        let record = &admin(&app, "/debug/decisions?last=1").json()[0];
        let recalled = &record["request"]["prefix"]["recalled"][0]["bytes"];
        assert!(recalled.as_u64().unwrap() >= 64, "{record}");
        assert!(
            record["candidates"][0]["because"]["seen_bytes"]
                .as_f64()
                .unwrap()
                >= 64.0
        );
    }
}

#[test]
fn models_take_turns_and_their_names_are_put_in() {
    let engines = [RawEngine::echo(), RawEngine::echo()];
    let [a, b] = &engines;
    let app = app(
        "sequential",
        &[],
        json!({
            "routing_logic": "sequential",
            "engines": [
                {"url": a.url(), "models": ["a", "both"], "aliases": {"first": "a"}},
                {"url": b.url(), "models": ["b", "both"]},
            ],
        }),
    );
    let model = |fields: &str, asked: &str| {
        let body = format!(r#"{{"model":"{asked}","messages":[]}}"#);
        let text = ask(&app, fields, &body).text();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        body["model"].as_str().unwrap().to_owned()
    };
    let list = "x-pilotfish-models: first, b, never\r\n";
    let four: Vec<String> = (0..4).map(|_| model(list, "a")).collect();
    assert_eq!(
        four[..2].iter().collect::<BTreeSet<_>>().len(),
        2,
        "{four:?}"
    );
    assert_eq!(four[..2], four[2..]);
    let four: Vec<String> = (0..4).map(|_| model("", "a,b")).collect();
    assert_eq!(four[..2], four[2..]);
    let auto: BTreeSet<String> = (0..3).map(|_| model("", "auto")).collect();
    assert_eq!(auto.len(), 3, "each of all in its turn");
    assert_eq!(model("", "both"), "both");
    for _ in 0..4 {
        let path = format!("/v1/chat/completions?id={}", b.url());
        let text = app
            .send(&asking("", &path, r#"{"model":"a,b","messages":[]}"#))
            .text();
        assert!(text.ends_with(r#"{"model":"b","messages":[]}"#), "{text}");
    }
    let never = r#"{"model":"x,y","messages":[]}"#;
    ask(&app, "", never).assert_error(404, "model_not_found");
    let many = format!("x-pilotfish-models: {}\r\n", vec!["a"; 65].join(","));
    ask(&app, &many, never).assert_error(400, "invalid_value");
}

#[test]
fn a_request_may_name_its_policy() {
    let engines = sims(3);
    let keys = json!({
        "policies": {"sticky": {"type": "session"}, "any": {"type": "random"}},
        "request_headers": {"policies": ["sticky"]},
    });
    let app = app("named", &urls(&engines), keys);
    let sticky = "x-pilotfish-policy: sticky\r\nx-user-id: 7\r\n";
    let homes: BTreeSet<String> = (0..6)
        .map(|_| chosen(&app, sticky, "/v1/chat/completions", BODY))
        .collect();
    assert_eq!(homes.len(), 1);
    let turns: BTreeSet<String> = (0..6)
        .map(|_| {
            chosen(
                &app,
                "x-pilotfish-policy: roundrobin\r\n",
                "/v1/chat/completions",
                BODY,
            )
        })
        .collect();
    assert_eq!(turns.len(), 3, "the one in force may be named too");
    for unknown in ["any", "nonsense"] {
        let answer = ask(&app, &format!("x-pilotfish-policy: {unknown}\r\n"), BODY);
        answer.assert_error(400, "invalid_header");
        assert!(
            answer.text().contains("known: sticky, roundrobin"),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn no_engine_sees_what_was_asked_of_us() {
    let engine = RawEngine::echo();
    let app = TestApp::new(&[engine.url()]);
    let fields = "x-pilotfish-explain: 1\r\nX-Pilotfish-Later: ü\r\n";
    let seen = ask(&app, fields, BODY).text();
    assert!(!seen.contains("x-pilotfish"), "{seen}");
    for unheeded in [
        "x-pilotfish-qos: privacy=secret",
        "x-pilotfish-qos: privacy=public",
        "x-pilotfish-models: m",
    ] {
        ask(&app, &format!("{unheeded}\r\n"), BODY).assert_error(400, "invalid_header");
    }
    ask(&app, "x-pilotfish-explain: perhaps\r\n", BODY).assert_error(400, "invalid_header");
}

#[test]
fn a_request_may_be_pinned_where_that_is_allowed() {
    let engines = sims(3);
    let urls = urls(&engines);
    let plain = app("unpinned", &urls, json!({}));
    let pin = |url: &str| format!("x-pilotfish-engine: {url}\r\n");
    ask(&plain, &pin(&urls[1]), BODY).assert_error(400, "invalid_header");
    let app = app(
        "pinned",
        &urls,
        json!({
            "request_headers": {"allow": ["engine", "explain"]},
            "engines": [
                {"url": urls[0], "models": ["m"]},
                {"url": urls[1], "models": ["m"]},
                {"url": urls[2], "models": ["other"]},
            ],
        }),
    );
    for _ in 0..4 {
        let engine = chosen(&app, &pin(&urls[1]), "/v1/chat/completions", BODY);
        assert_eq!(engine, urls[1]);
    }
    // As in the reference, by the query too, which is then cut.
    let by_query = format!("/v1/chat/completions?id={}", urls[0]);
    assert_eq!(chosen(&app, "", &by_query, BODY), urls[0]);
    ask(&app, &pin("http://elsewhere:1"), BODY).assert_error(404, "engine_not_found");
    ask(&app, &pin(&urls[2]), BODY).assert_error(404, "engine_not_found");
    ask(&app, "x-pilotfish-policy: roundrobin\r\n", BODY).assert_error(400, "invalid_header");
}

#[test]
fn needs_are_met_or_refused() {
    let engines = sims(2);
    let urls = urls(&engines);
    let app = app(
        "qos",
        &[],
        json!({
            "routing_logic": "federation",
            "engines": [
                {"url": urls[0], "models": ["m"], "privacy": "restricted"},
                {"url": urls[1], "models": ["m"], "labels": {"model_type": "chat"}},
                {"url": "http://127.0.0.1:1", "models": ["vectors"], "labels": {"model_type": "chat"}},
            ],
        }),
    );
    let private = "x-pilotfish-qos: privacy=confidential\r\n";
    for _ in 0..4 {
        assert_eq!(chosen(&app, private, "/v1/chat/completions", BODY), urls[0]);
    }
    let by_query = format!("/v1/chat/completions?id={}", urls[1]);
    app.send(&asking(private, &by_query, BODY))
        .assert_error(400, "invalid_header");
    let slow = "x-pilotfish-qos: min_tokens_per_second=1000000\r\n";
    let refused = ask(&app, slow, BODY);
    refused.assert_error(503, "qos_violation");
    assert!(refused.field("retry-after").is_some());
    let vectors = asking("", "/v1/embeddings", r#"{"model":"vectors","input":"x"}"#);
    app.send(&vectors).assert_error(404, "no_capacity");
    let only = r#"{"model":"vectors","messages":[]}"#;
    ask(&app, private, only).assert_error(403, "privacy_violation");
}

#[test]
fn an_engine_that_keeps_failing_is_left_alone() {
    let engines = sims(1);
    let dead = "http://127.0.0.1:1".to_owned();
    let app = app("aside", &[engines[0].url(), dead.clone()], json!({}));
    let failures =
        format!("pilotfish_engine_requests_total{{engine=\"{dead}\",outcome=\"failure\"}}");
    for _ in 0..30 {
        assert_eq!(ask(&app, "", BODY).status, 200, "sent to the other one");
    }
    assert!(app.metric(&failures) <= 6.0, "set aside after five");
    let page = app.get("/engines").json();
    let of = |url: &str| {
        page.as_array()
            .unwrap()
            .iter()
            .find(|one| one["engine_id"] == url)
            .unwrap()
    };
    assert_eq!(of(&dead)["is_set_aside"], true);
    assert!(of(&engines[0].url())["latency_ms"].as_f64().is_some());
    // Where there is no other, it is better than none.
    let pinned = ask(&app, "x-pilotfish-policy: roundrobin\r\n", BODY);
    assert_eq!(pinned.status, 200);
}

#[test]
fn load_goes_where_there_is_least() {
    for policy in ["leastload", "leastconnections"] {
        let (busy, go) = RawEngine::stepped(1);
        let idle = sims(1);
        let urls = [busy.url(), idle[0].url()];
        let app = app(
            policy,
            &urls,
            json!({
                "routing_logic": policy, "request_headers": {"allow": ["engine", "explain"]},
            }),
        );
        let mut client = app.connect();
        let pin = format!("x-pilotfish-engine: {}\r\n", busy.url());
        let body = r#"{"model":"m","stream":true,"max_tokens":100,"messages":[]}"#;
        client.write(asking(&pin, "/v1/chat/completions", body).as_bytes());
        client.until("data: 0\n\n");
        for _ in 0..10 {
            eventually("one is left", || app.in_flight() == 1);
            assert_eq!(
                chosen(&app, "", "/v1/chat/completions", BODY),
                urls[1],
                "{policy}"
            );
        }
        let _ = go.send(());
        client.until("[DONE]");
    }
}
