//! What users of the reference router rely on: its log line, its sessions, its
//! pages and its metrics, its flags' meanings.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::engine::RawEngine;
use crate::support::{Client, Folder, TestApp, eventually, post};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::{Value, json};

fn sim(model: &str) -> SimEngine {
    SimEngine::start(SimConfig::new(model, Speed::instant())).unwrap()
}

/// Runs the binary before engines of model `m` with these flags, sends the
/// requests, stops it, and gives what it logged.
fn logged(engines: &[SimEngine], flags: &[&str], requests: &[String]) -> String {
    let urls: Vec<String> = engines.iter().map(SimEngine::url).collect();
    let port = crate::binary::free_port();
    let mut proxy = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
        .args(["--service-discovery", "static", "--static-backends"])
        .args([urls.join(","), "--static-models".to_owned()])
        .arg(vec!["m"; urls.len()].join(","))
        .args(flags)
        .args(["--drain-settle", "0"])
        .env("PILOTFISH_HOST", "127.0.0.1")
        .env("PILOTFISH_PORT", port.to_string())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("it serves", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    for request in requests {
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.write(request.as_bytes());
        assert_eq!(client.answer().unwrap().status, 200);
    }
    let killed = Command::new("kill").arg(proxy.id().to_string()).status();
    assert!(killed.unwrap().success());
    let mut log = String::new();
    proxy
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(proxy.wait().unwrap().success(), "{log}");
    log
}

/// The request's id, its session and its engine of every routing line.
fn routed(log: &str) -> Vec<(String, String, String)> {
    let lines = log.lines().filter_map(|line| {
        let rest = line.split_once("Routing request ")?.1;
        let (id, rest) = rest.split_once(" with session id ")?;
        let (session, rest) = rest.split_once(" to ")?;
        let (url, rest) = rest.split_once(" at ")?;
        let (at, took) = rest.split_once(", process time = ")?;
        assert!(at.parse::<f64>().unwrap() > 1e9, "{line}");
        assert_eq!(took.split_once('.').unwrap().1.len(), 4, "{line}");
        Some((id.to_owned(), session.to_owned(), url.to_owned()))
    });
    lines.collect()
}

fn chat(fields: &str) -> String {
    let body = r#"{"model":"m","max_tokens":1,"messages":[]}"#;
    let plain = post("/v1/chat/completions", body);
    plain.replacen("host: x\r\n", &format!("host: x\r\n{fields}"), 1)
}

#[test]
fn the_routing_line_shows_round_robin() {
    let engines = [sim("m"), sim("m")];
    let ids: Vec<String> = (0..20).map(|n| format!("request-{n}")).collect();
    let requests: Vec<String> = (ids.iter())
        .map(|id| chat(&format!("x-request-id: {id}\r\n")))
        .collect();
    let log = logged(
        &engines,
        &["--routing-logic", "roundrobin", "--log-stats"],
        &requests,
    );
    let routed = routed(&log);
    let logged_ids: Vec<&String> = routed.iter().map(|(id, ..)| id).collect();
    assert_eq!(logged_ids, ids.iter().collect::<Vec<_>>());
    for pair in routed.windows(2) {
        assert_ne!(pair[0].2, pair[1].2, "consecutive requests on one engine");
    }
    assert!(routed.iter().all(|(_, session, _)| session == "None"));
}

#[test]
fn the_routing_line_shows_sticky_sessions_and_is_off_by_default() {
    let engines = [sim("m"), sim("m"), sim("m")];
    let flags = ["--routing-logic", "session", "--session-key", "X-User-Id"];
    let requests: Vec<String> = (0..40)
        .map(|n| chat(&format!("x-user-id: user-{}\r\n", n % 8)))
        .collect();
    let log = logged(
        &engines,
        &[&flags[..], &["--log-requests"]].concat(),
        &requests,
    );
    let routed = routed(&log);
    assert_eq!(routed.len(), 40);
    for (n, (_, session, url)) in routed.iter().enumerate() {
        assert_eq!(session, &format!("user-{}", n % 8));
        assert_eq!(url, &routed[n % 8].2, "{session} moved");
    }
    let log = logged(&engines, &flags, &requests[..3]);
    assert!(!log.contains("Routing request"), "{log}");
}

#[test]
fn a_session_may_be_named_by_the_body_and_need_be_no_text() {
    let engines = [sim("m"), sim("m"), sim("m")];
    let bodies = [
        r#""u":42"#,
        r#""u":"42""#,
        r#""u":1e22"#,
        r#""u":"1e+22""#,
        r#""u":true"#,
    ];
    let requests: Vec<String> = (bodies.iter())
        .map(|key| {
            post(
                "/v1/completions",
                &format!(r#"{{"model":"m","max_tokens":1,{key}}}"#),
            )
        })
        .collect();
    let flags = [
        "--routing-logic",
        "session",
        "--session-key",
        "u",
        "--log-requests",
    ];
    let routed = routed(&logged(&engines, &flags, &requests));
    let sessions: Vec<&str> = routed
        .iter()
        .map(|(_, session, _)| session.as_str())
        .collect();
    assert_eq!(sessions, ["42", "42", "1e+22", "1e+22", "True"]);
    assert_eq!(routed[0].2, routed[1].2);
    assert_eq!(routed[2].2, routed[3].2);
}

#[test]
fn no_id_writes_a_line_of_its_own() {
    let engines = [sim("m")];
    let body =
        r#"{"model":"m","max_tokens":1,"u":"a\nRouting request evil with session id q to x at 1"}"#;
    let long = format!(
        r#"{{"model":"m","max_tokens":1,"u":"{}"}}"#,
        "x".repeat(2000)
    );
    let requests = [body, &long].map(|body| post("/v1/completions", body));
    let flags = [
        "--routing-logic",
        "session",
        "--session-key",
        "u",
        "--log-requests",
    ];
    let log = logged(&engines, &flags, &requests);
    assert!(
        !log.lines().any(|line| line.starts_with("Routing request")),
        "{log}"
    );
    assert!(
        log.contains(r"with session id a\nRouting request evil"),
        "{log}"
    );
    assert!(log.contains("with session id None to"), "{log}");
}

#[test]
fn health_has_the_references_two_shapes() {
    let plain = TestApp::new(&["http://127.0.0.1:1".to_owned()]);
    assert_eq!(plain.get("/health").text(), r#"{"status":"healthy"}"#);
    let folder = Folder::new("health");
    let file = folder.path("dynamic.json");
    let example = r#"{
    "service_discovery": "static",
    "routing_logic": "roundrobin",
    "static_backends": "http://localhost:9001,http://localhost:9002,http://localhost:9003",
    "static_models": "facebook/opt-125m,meta-llama/Llama-3.1-8B-Instruct,facebook/opt-125m"
}"#;
    std::fs::write(&file, example).unwrap();
    let app = TestApp::from_file(&file);
    assert_eq!(
        app.get("/health").text(),
        concat!(
            r#"{"status":"healthy","dynamic_config":{"callbacks":null,"decode_model_labels":null,"#,
            r#""k8s_label_selector":null,"k8s_namespace":null,"k8s_port":null,"#,
            r#""prefill_model_labels":null,"routing_logic":"roundrobin","#,
            r#""service_discovery":"static","session_key":null,"static_aliases":null,"#,
            r#""static_backend_health_check_interval":60,"#,
            r#""static_backend_health_check_timeout_seconds":10,"#,
            r#""static_backend_health_checks":false,"#,
            r#""static_backends":"http://localhost:9001,http://localhost:9002,http://localhost:9003","#,
            r#""static_model_labels":null,"static_model_types":null,"#,
            r#""static_models":"facebook/opt-125m,meta-llama/Llama-3.1-8B-Instruct,facebook/opt-125m"}}"#,
        )
    );
    let list = app.get("/v1/models").json();
    assert_eq!(list["data"][0]["id"], "facebook/opt-125m");
}

#[test]
fn metrics_have_the_references_names_and_tell_the_truth() {
    let engine = sim("m");
    let url = engine.url();
    let app = TestApp::with(&[(&url, "m"), ("http://127.0.0.1:1", "down")], |_| {});
    // What autoscalers start engines by: there from the first moment on.
    let incoming = |model: &str| {
        app.metric(&format!(
            "vllm:num_incoming_requests_total{{model=\"{model}\"}}"
        ))
    };
    assert_eq!(incoming("down"), 0.0);
    assert_eq!(app.chat(r#"{"model":"down"}"#).status, 503);
    assert_eq!(incoming("down"), 1.0);

    let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let answer = app.chat(body).json();
    let streamed = r#"{"model":"m","max_tokens":7,"stream":true,"messages":[]}"#;
    assert!(app.chat(streamed).whole);
    app.settled();
    let of =
        |name: &str, labels: &str| app.metric(&format!("vllm:{name}{{server=\"{url}\"{labels}}}"));
    assert_eq!(incoming("m"), 2.0);
    let input = of("input_tokens_total", ",model=\"m\"");
    assert!(
        input >= answer["usage"]["prompt_tokens"].as_f64().unwrap(),
        "{input}"
    );
    // The answer tells 5; the stream has 7 tokens, and an event that opens it.
    assert_eq!(of("output_tokens_total", ",model=\"m\""), 13.0);
    assert!(of("current_qps", "") > 0.0);
    for (name, value) in [
        ("num_prefill_requests", 0.0),
        ("num_decoding_requests", 0.0),
        ("num_requests_running", 0.0),
        ("num_requests_swapped", 0.0),
        ("healthy_pods_total", 1.0),
        ("avg_decoding_length", 6.5),
    ] {
        assert_eq!(of(name, ""), value, "{name}");
    }
    assert!(of("avg_latency", "") > 0.0);
    let count = ",model=\"m\",status=\"success\"";
    assert_eq!(of("request_latency_seconds_count", count), 2.0);
    let failed = "vllm:request_errors_total{server=\"http://127.0.0.1:1\",model=\"down\",error_type=\"unreachable\"}";
    assert_eq!(app.metric(failed), 1.0);
    for name in ["cpu", "memory", "disk"] {
        let percent = app.metric(&format!("router_{name}_usage_percent "));
        assert!((0.0..=100.0).contains(&percent));
    }
}

#[test]
fn engines_tell_of_themselves_and_failing_to_costs_nothing() {
    let engine = sim("m");
    let mute = RawEngine::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let urls = format!("{},{}", engine.url(), mute.url());
    let app = TestApp::from_flags(&[
        "--service-discovery=static",
        "--routing-logic=roundrobin",
        "--static-models=m,m",
        "--engine-stats-interval=0.05",
        "--static-backends",
        &urls,
    ]);
    let body = r#"{"model":"m","max_tokens":50,"messages":[]}"#;
    for _ in 0..4 {
        assert_eq!(app.chat(body).status, 200);
    }
    let attributes = |url: &str| {
        let engines = app.get("/engines").json();
        let mut engines = engines.as_array().unwrap().iter();
        engines.find(|one| one["engine_id"] == url).unwrap().clone()
    };
    eventually("two pages were read", || {
        attributes(&engine.url())["attributes"]["tokens_per_second"].is_number()
    });
    let told = attributes(&engine.url());
    assert_eq!(told["attributes"]["requests_waiting"], 0.0);
    assert!(told["attributes_age_seconds"].as_f64().unwrap() < 60.0);
    let waiting = format!("vllm:num_requests_waiting{{server=\"{}\"}}", engine.url());
    assert_eq!(app.metric(&waiting), 0.0);
    assert!(
        app.metric(&format!(
            "pilotfish_scrape_age_seconds{{engine=\"{}\"}}",
            engine.url()
        )) < 60.0
    );

    let failures = format!(
        "pilotfish_scrape_failures_total{{engine=\"{}\"}}",
        mute.url()
    );
    eventually("a failure is counted", || app.metric(&failures) > 0.0);
    let silent = attributes(&mute.url());
    assert_eq!(silent["attributes_age_seconds"], Value::Null);
    // What it did for us we know without it.
    for name in silent["attributes"].as_object().unwrap().keys() {
        let ours = ["tasks_processed.", "latency.", "fps.", "end_to_end_"];
        assert!(ours.iter().any(|own| name.starts_with(own)), "{name}");
    }
    let page = app.get("/metrics").text();
    assert!(!page.contains(&format!(
        "vllm:num_requests_waiting{{server=\"{}\"}}",
        mute.url()
    )));
}

#[test]
fn requests_under_way_are_seen_by_their_phase() {
    let (engine, go) = RawEngine::stepped(2);
    let app = TestApp::new(&[engine.url()]);
    let of = |name: &str| app.metric(&format!("vllm:{name}{{server=\"{}\"}}", engine.url()));
    let mut client = app.connect();
    client.write(post("/v1/completions", r#"{"model":"m","stream":true}"#).as_bytes());
    client.until("data: 0\n\n");
    assert_eq!(
        (of("num_decoding_requests"), of("num_prefill_requests")),
        (1.0, 0.0)
    );
    assert_eq!(of("num_requests_running"), 1.0);
    go.send(()).unwrap();
    go.send(()).unwrap();
    client.until("[DONE]");
    app.settled();
    assert_eq!(of("num_decoding_requests"), 0.0);
    assert!(of("avg_itl") > 0.0 && of("avg_latency") > of("avg_itl"));
}

#[test]
fn an_alias_is_spliced_and_all_other_bytes_stay() {
    let engine = RawEngine::echo();
    let url = engine.url();
    let app = TestApp::with(&[(&url, "org/model \"x\"")], |config| {
        config.settings.aliases = [("gpt-4".to_owned(), "org/model \"x\"".to_owned())].into();
    });
    let body = "{\"a\":\"\\u00e9 gpt-4\",\r\n \"model\" : \"gpt-\\u0034\" , \"n\":1.0}";
    let echoed = app.chat(body).text();
    let spliced = "{\"a\":\"\\u00e9 gpt-4\",\r\n \"model\" : \"org/model \\\"x\\\"\" , \"n\":1.0}";
    assert!(echoed.ends_with(&format!("\r\n\r\n{spliced}")), "{echoed}");
    assert!(
        echoed.contains(&format!("content-length: {}\r\n", spliced.len())),
        "{echoed}"
    );

    let form = |model: &str| {
        format!(
            "--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\ngpt-4\r\n\
             --B\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--B--\r\n"
        )
    };
    let request = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n\
         content-type: multipart/form-data; boundary=B\r\ncontent-length: {}\r\n\r\n{}",
        form("gpt-4").len(),
        form("gpt-4")
    );
    let echoed = app.send(&request).text();
    assert!(echoed.ends_with(&form("org/model \"x\"")), "{echoed}");
    let list = app.get("/v1/models").json();
    let alias = (list["data"].as_array().unwrap().iter()).find(|card| card["id"] == "gpt-4");
    assert_eq!(alias.unwrap()["root"], "org/model \"x\"");
}

#[test]
fn models_are_learned_from_engines_and_adapters_appear() {
    let has_adapter = Arc::new(AtomicBool::new(false));
    let adapter = Arc::clone(&has_adapter);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET /v1/models ") {
                assert!(seen.field("authorization").is_none());
                let mut cards = vec![json!({"id": "base"})];
                if adapter.load(SeqCst) {
                    cards.push(json!({"id": "adapter", "parent": "base"}));
                }
                conn.json(&json!({"object": "list", "data": cards}).to_string());
            } else {
                conn.json(r#"{"ok":true}"#);
            }
        }
    });
    let folder = Folder::new("learned");
    let file = folder.path("dynamic.json");
    let keys = |more: Value| {
        let mut keys = json!({
            "service_discovery": "static", "routing_logic": "roundrobin",
            "static_backends": engine.url(), "static_aliases": "gpt:adapter",
        });
        keys.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        keys.to_string()
    };
    std::fs::write(&file, keys(json!({}))).unwrap();
    let app = TestApp::from_file(&file);
    eventually("it is ready", || app.get("/readyz").status == 200);
    assert_eq!(app.chat(r#"{"model":"base"}"#).status, 200);
    app.chat(r#"{"model":"adapter"}"#)
        .assert_error(404, "model_not_found");
    has_adapter.store(true, SeqCst);
    // Any change of the configuration has the engines asked again at once.
    std::fs::write(&file, keys(json!({"stream_error_events": false}))).unwrap();
    eventually("the adapter appears", || {
        app.chat(r#"{"model":"adapter"}"#).status == 200
    });
    assert_eq!(app.chat(r#"{"model":"gpt"}"#).status, 200);
    assert_eq!(
        app.get("/engines").json()[0]["serving_models"],
        json!(["base", "adapter"])
    );
}

#[test]
fn a_silent_engine_holds_up_no_other() {
    let silent = RawEngine::start(|mut conn| drop(conn.closed()));
    let engine = RawEngine::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let urls = format!("{},{}", silent.url(), engine.url());
    let app = TestApp::from_flags(&[
        "--service-discovery=static",
        "--routing-logic=roundrobin",
        "--static-backends",
        &urls,
    ]);
    eventually("its model is served", || {
        app.chat(r#"{"model":"m"}"#).status == 200
    });
    assert_eq!(
        app.get("/readyz").status,
        503,
        "the other one was not waited for"
    );
}

#[test]
fn readiness_waits_for_engines_that_were_not_asked_yet() {
    let engine = RawEngine::start(|mut conn| {
        conn.closed();
    });
    let flags = [
        "--service-discovery=static",
        "--routing-logic=roundrobin",
        "--static-backends",
    ];
    let app = TestApp::from_flags(&[&flags[..], &[&engine.url()]].concat());
    assert_eq!(app.get("/readyz").status, 503);
    assert_eq!(app.get("/health").status, 200);
    app.chat(r#"{"model":"any"}"#)
        .assert_error(404, "model_not_found");
    // It has its time, and no more.
    eventually("it is ready all the same", || {
        app.get("/readyz").status == 200
    });
}

#[test]
fn sleep_is_for_one_engine_that_is_named() {
    let engines = [RawEngine::echo(), RawEngine::echo()];
    let urls: Vec<String> = engines.iter().map(RawEngine::url).collect();
    let app = TestApp::new(&urls);
    for url in &urls {
        for id in [url.clone(), url.replace(':', "%3A").replace('/', "%2F")] {
            let request = format!(
                "POST /sleep?level=1&id={id}&x=y HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
            );
            let echoed = app.send(&request).text();
            assert!(
                echoed.starts_with("POST /sleep?level=1&x=y HTTP/1.1\r\n"),
                "{echoed}"
            );
            let host = url.strip_prefix("http://").unwrap();
            assert!(echoed.contains(&format!("host: {host}\r\n")), "{echoed}");
        }
        let echoed = app.get(&format!("/is_sleeping?id={url}")).text();
        assert!(
            echoed.starts_with("GET /is_sleeping HTTP/1.1\r\n"),
            "{echoed}"
        );
    }
    for path in ["/sleep", "/wake_up?level=1", "/is_sleeping?ids=x"] {
        app.get(path).assert_error(400, "missing_engine_id");
    }
    app.get("/is_sleeping?id=http://nowhere")
        .assert_error(404, "engine_not_found");
}

#[test]
fn a_root_path_is_cut_from_the_front() {
    let engine = RawEngine::echo();
    let url = engine.url();
    let app = TestApp::with(&[(&url, "m")], |config| {
        config.root_path = "/llm".to_owned()
    });
    for (path, forwarded) in [
        ("/llm/v1/x?a=b", "/v1/x?a=b"),
        ("/llm?q", "/?q"),
        ("/llmx/y", "/llmx/y"),
        ("/v1/y", "/v1/y"),
    ] {
        let echoed = app.get(path).text();
        assert!(
            echoed.starts_with(&format!("GET {forwarded} HTTP/1.1\r\n")),
            "{echoed}"
        );
    }
    assert_eq!(app.get("/llm/health").text(), r#"{"status":"healthy"}"#);
    app.send(&post("/llm/v1/chat/completions", "{}"))
        .assert_error(400, "missing_model");
}

#[test]
fn the_admin_listener_has_routes_of_its_own() {
    let app = TestApp::from_flags(&[
        "--service-discovery=static",
        "--routing-logic=roundrobin",
        "--static-backends=http://127.0.0.1:1",
        "--static-models=m",
        "--admin-port=0",
    ]);
    for path in ["/config", "/debug/log-level", "/v1/feedback"] {
        let refused = app.get(path);
        refused.assert_error(404, "not_found");
        assert!(refused.text().contains("--admin-port"));
    }
    let ask = |line: &str| {
        let mut client = Client::connect(app.admin());
        client.write(format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        client.answer().unwrap()
    };
    let config = ask("GET /config").json();
    assert_eq!(
        (&config["policy"], &config["engines"]),
        (&json!("roundrobin"), &json!(1))
    );
    assert_eq!(ask("GET /v1/models").status, 404);
    assert_eq!(ask("POST /config").status, 405);
    assert_eq!(ask("PUT /debug/log-level?level=no=such").status, 400);
}
