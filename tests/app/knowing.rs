//! What engines tell of themselves, through the whole proxy: pages of every
//! kind, reports in answers, and that neither ever costs anyone a request.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::support::engine::RawEngine;
use crate::support::{Folder, TestApp, eventually, post};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::{Value, json};

const BODY: &str = r#"{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}"#;

/// An app before these engines, which are read twenty times a second.
fn app(name: &str, engines: &Value, keys: Value) -> TestApp {
    let mut all = json!({
        "service_discovery": "static", "routing_logic": "leastload", "engines": engines,
    });
    let Value::Object(keys) = keys else {
        panic!("no keys");
    };
    all.as_object_mut().unwrap().extend(keys);
    let folder = Folder::new(name);
    let file = folder.path("dynamic.json");
    std::fs::write(&file, all.to_string()).unwrap();
    TestApp::from_flags(&[
        "--engine-stats-interval=0.05",
        "--dynamic-config-json",
        file.to_str().unwrap(),
    ])
}

fn engine(app: &TestApp) -> Value {
    app.get("/engines").json()[0].clone()
}

/// An engine that answers to these paths, and to everything else with 404.
fn pages(pages: Vec<(&'static str, String)>) -> RawEngine {
    counted(pages).0
}

/// The same, and how often it was asked for one of them.
fn counted(pages: Vec<(&'static str, String)>) -> (RawEngine, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            let is_asked = |path: &str| seen.head.starts_with(&format!("GET {path} "));
            match pages.iter().find(|(path, _)| is_asked(path)) {
                Some((_, answer)) => {
                    count.fetch_add(1, SeqCst);
                    conn.write(answer);
                }
                None if seen.head.starts_with("POST ") => conn.json("{}"),
                None => conn.write("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
            }
        }
    });
    (engine, asked)
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

#[test]
fn engines_are_found_by_what_they_have() {
    let loads = r#"{"loads": [{"num_running_reqs": 3, "num_waiting_reqs": 2, "max_total_num_tokens": 100}]}"#;
    let slots = r#"[{"n_ctx": 512, "is_processing": true}, {"n_ctx": 512, "is_processing": true}, {"n_ctx": 512, "is_processing": true}]"#;
    let trtllm = "trtllm_num_requests_running 3\ntrtllm_num_requests_waiting 2\n";
    let llamacpp = "llamacpp:requests_processing 3\nllamacpp:requests_deferred 2\n";
    for (kind, has, kv_tokens) in [
        (
            "vllm",
            vec![("/metrics", ok("vllm:num_requests_running 3\n"))],
            None,
        ),
        ("sglang", vec![("/v1/loads", ok(loads))], Some(100.0)),
        ("llamacpp", vec![("/slots", ok(slots))], Some(1536.0)),
        (
            "llamacpp",
            vec![("/metrics", ok(llamacpp)), ("/slots", ok(slots))],
            Some(1536.0),
        ),
        (
            "trtllm",
            vec![("/metrics", ok("[]")), ("/prometheus/metrics", ok(trtllm))],
            None,
        ),
    ] {
        let raw = pages(has);
        let app = app(
            kind,
            &json!([{"url": raw.url(), "models": ["m"]}]),
            json!({}),
        );
        eventually("it is understood", || {
            let entry = engine(&app);
            entry["engine_type"] == kind
                && entry["attributes"]["requests_running"] == 3.0
                && entry["attributes"]["kv_cache_tokens"] == json!(kv_tokens)
        });
        let details = &engine(&app)["attribute_details"]["requests_running"];
        assert_eq!(details["unit"], "requests");
        assert!(details["age_seconds"].as_f64().unwrap() < 60.0);
    }
}

#[test]
fn a_bad_page_costs_nobody_anything() {
    let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 30\r\n\r\nvllm:num_requests_running 3333";
    let endless = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\n",
        20 << 20,
        "vllm:num_requests_running 3\n".repeat((20 << 20) / 28 + 1)
    );
    let slow = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nvllm:num_requests_running 3\n";
    for (name, page) in [
        ("silent", String::new()),
        ("html", ok("<html><body>Not here</body></html>")),
        ("empty", ok("")),
        ("gzip", gzip.to_owned()),
        (
            "unauthorised",
            "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "redirect",
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: /metrics/\r\ncontent-length: 0\r\n\r\n"
                .to_owned(),
        ),
        ("endless", endless),
        ("slow", slow.to_owned()),
        (
            "nonsense",
            ok("vllm:num_requests_running NaN\nvllm:num_requests_waiting{ 3\n"),
        ),
        ("not http", "HELLO\r\n\r\n".to_owned()),
    ] {
        let (raw, asked) = counted(vec![("/metrics", page)]);
        let app = app(
            "bad",
            &json!([{"url": raw.url(), "models": ["m"]}]),
            json!({}),
        );
        assert_eq!(app.chat(BODY).status, 200, "{name}");
        eventually("it is asked", || asked.load(SeqCst) > 0);
        // Those two take five seconds to fail.
        if !matches!(name, "slow" | "silent") {
            eventually(name, || {
                let page = app.get("/metrics").text();
                let name = "pilotfish_scrape_failures_total{";
                let line = page.lines().find(|line| line.starts_with(name));
                let count = line.unwrap().rsplit(' ').next().unwrap();
                count.parse::<u64>().unwrap() >= 2
            });
        }
        let entry = engine(&app);
        assert_eq!(entry["attributes"].get("requests_running"), None, "{name}");
        assert_eq!(entry["state"], "healthy", "{name}: {entry}");
        assert_eq!(app.chat(BODY).status, 200, "{name}");
    }
}

#[test]
fn attributes_of_the_configurations_own() {
    let raw = pages(vec![(
        "/metrics",
        ok(
            "tgi_queue_size 4\ntgi_batch_current_size 2\nmy_heat{gpu=\"0\"} 40\nmy_heat{gpu=\"1\"} 70\n",
        ),
    )]);
    let cool = pages(vec![("/metrics", ok("my_heat{gpu=\"0\"} 30\n"))]);
    let engines =
        json!([{"url": raw.url(), "models": ["m"]}, {"url": cool.url(), "models": ["m"]}]);
    let keys = json!({
        "attributes": {
            "requests_waiting": {"metric": "tgi_queue_size"},
            "requests_running": {"metric": "tgi_batch_current_size"},
            "heat": {"metric": "my_heat", "aggregate": "max", "scale": 2},
            "first_heat": {"metric": "my_heat", "labels": {"gpu": "0"}},
        },
        "policies": {"cool": {"type": "scored", "goals": [{"attribute": "heat", "direction": "min"}]}},
        "routing_logic": "cool",
    });
    let app = app("own", &engines, keys);
    eventually("both have told", || {
        let engines = app.get("/engines").json();
        let told = |n: usize, name: &str| engines[n]["attributes"][name].clone();
        let by_url = usize::from(engines[0]["engine_id"] != raw.url());
        told(by_url, "heat") == 140.0
            && told(by_url, "first_heat") == 40.0
            && told(by_url, "requests_waiting") == 4.0
            && told(by_url, "requests_running") == 2.0
            && told(1 - by_url, "heat") == 60.0
    });
    for _ in 0..5 {
        let fields = "host: x\r\nx-pilotfish-explain: 1\r\n";
        let answer =
            app.send(&post("/v1/chat/completions", BODY).replacen("host: x\r\n", fields, 1));
        assert_eq!(
            answer.field("x-pilotfish-engine"),
            Some(cool.url().as_str())
        );
    }
}

#[test]
fn averages_are_kept_and_goals_look_at_them() {
    let raw = pages(vec![("/metrics", ok("vllm:num_requests_waiting 4\n"))]);
    let engines =
        json!([{"url": raw.url(), "models": ["m"], "metadata": {"latency": {"current": 9}}}]);
    let all = json!({
        "service_discovery": "static", "routing_logic": "p", "engines": engines,
        "policies": {"p": {"type": "scored", "goals": [
            {"name": "Free_Block"}, {"attribute": "end_to_end_latency", "direction": "min"},
        ]}},
        "decision_sample": 1,
    });
    let folder = Folder::new("averages");
    let file = folder.path("dynamic.json");
    std::fs::write(&file, all.to_string()).unwrap();
    let app = TestApp::from_flags(&[
        "--engine-stats-interval=0.05",
        "--request-stats-window=0.6",
        "--dynamic-config-json",
        file.to_str().unwrap(),
    ]);
    assert_eq!(app.chat(BODY).status, 200);
    eventually("they are known", || {
        let entry = engine(&app);
        let known = |name: &str| entry["attributes"][name].as_f64();
        let (latency, fps) = (known("latency.current"), known("fps.average_15m"));
        known("queue_length.average_1m") == Some(4.0)
            && known("end_to_end_count_total") == Some(1.0)
            && known("tasks_processed.average_5m").is_some()
            && latency
                .is_some_and(|latency| latency < 9.0 && (fps.unwrap() * latency - 1.0).abs() < 1e-6)
            && entry["attribute_details"]["latency.average_1m"]["unit"] == "s"
    });
    let page = app.get("/metrics").text();
    assert!(!page.contains("average_1m"), "{page}");
}

#[test]
fn reports_in_answers_are_learnt_from_and_kept_from_clients() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let raw = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET ") {
                conn.write("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
                continue;
            }
            let report = match seen.field("endpoint-load-metrics-format").as_deref() {
                Some("TEXT") => {
                    count.fetch_add(1, SeqCst);
                    "endpoint-load-metrics: TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=7\r\n"
                }
                Some("JSON") => "endpoint-load-metrics: JSON {}\r\n",
                _ => "",
            };
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\n{report}content-length: 2\r\n\r\n{{}}"
            ));
        }
    });
    let engines = json!([{"url": raw.url(), "models": ["m"]}]);
    let app = app("orca", &engines, json!({"orca_sample": 1}));
    let answer = app.chat(BODY);
    assert_eq!(answer.field("endpoint-load-metrics"), None);
    let entry = engine(&app);
    assert_eq!(entry["attributes"]["kv_cache_usage"], 0.25);
    assert_eq!(entry["attributes"]["requests_waiting"], 7.0);
    // A client's own request for it is left alone.
    let fields = "host: x\r\nendpoint-load-metrics-format: JSON\r\n";
    let own = app.send(&post("/v1/chat/completions", BODY).replacen("host: x\r\n", fields, 1));
    assert_eq!(own.field("endpoint-load-metrics"), Some("JSON {}"));
    // Nor is it asked for elsewhere.
    let before = asked.load(SeqCst);
    app.send(&post("/v1/embeddings", r#"{"model":"m","input":"x"}"#));
    assert_eq!(asked.load(SeqCst), before);
}

#[test]
fn who_never_reports_is_not_asked_for_long_and_a_share_is_a_share() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let silent = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            let is_asked = seen.field("endpoint-load-metrics-format").is_some();
            count.fetch_add(usize::from(is_asked), SeqCst);
            conn.json("{}");
        }
    });
    let engines = json!([{"url": silent.url(), "models": ["m"]}]);
    let every = app("silent", &engines, json!({"orca_sample": 1}));
    for _ in 0..30 {
        assert_eq!(every.chat(BODY).status, 200);
    }
    assert_eq!(asked.swap(0, SeqCst), 8);
    let never = app("never", &engines, json!({"orca_sample": 0}));
    for _ in 0..30 {
        assert_eq!(never.chat(BODY).status, 200);
    }
    assert_eq!(asked.load(SeqCst), 0);
}

#[test]
fn the_simulated_engine_tells_as_vllm_does() {
    let sim = SimEngine::start(SimConfig::new("m", Speed::instant())).unwrap();
    let engines = json!([{"url": sim.url(), "models": ["m"]}]);
    let app = app("sim", &engines, json!({"orca_sample": 1}));
    app.chat(BODY);
    eventually("it has told", || {
        let entry = engine(&app);
        entry["attributes"]["max_model_len"] == 32768.0
            && entry["engine_type"] == "vllm"
            && entry["attributes"]["uptime_hours"].as_f64().is_some()
    });
}

#[test]
fn of_many_engines_some_are_read_and_all_are_served() {
    let (read, served) = (
        Arc::new(Mutex::new(HashSet::new())),
        Arc::new(AtomicUsize::new(0)),
    );
    let (reads, serves) = (Arc::clone(&read), Arc::clone(&served));
    let raw = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            let path = seen.head.split(' ').nth(1).unwrap().to_owned();
            if let Some(engine) = path.strip_suffix("/metrics") {
                reads.lock().unwrap().insert(engine.to_owned());
                conn.write(&ok("vllm:num_requests_running 3\n"));
            } else if seen.head.starts_with("GET ") {
                conn.write("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            } else {
                serves.fetch_add(1, SeqCst);
                conn.json("{}");
            }
        }
    });
    let engines: Vec<Value> = (0..60)
        .map(|n| json!({"url": format!("{}/e{n}", raw.url()), "models": ["m"]}))
        .collect();
    let app = app("aperture", &json!(engines), json!({"aperture": 7}));
    let told = || {
        let engines = app.get("/engines").json();
        let engines = engines.as_array().unwrap().iter();
        engines
            .filter(|one| one["attributes"]["requests_running"] == 3.0)
            .count()
    };
    eventually("its share has told", || told() == 7);
    for _ in 0..30 {
        assert_eq!(app.chat(BODY).status, 200);
    }
    assert_eq!(served.load(SeqCst), 30);
    // Ten minutes turn it once.
    assert!(read.lock().unwrap().len() <= 9);
    let engines = app.get("/engines").json();
    let used = engines
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["connects"].as_u64() > Some(1));
    assert!(used.count() > 7, "{engines}");
}
