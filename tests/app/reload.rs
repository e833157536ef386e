//! The dynamic file changes while we serve: each change is seen, none is lost,
//! no request fails, and what is known of engines is kept.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::engine::RawEngine;
use crate::support::{Folder, TestApp, eventually, post};
use serde_json::{Value, json};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn flat(urls: &[&str], routing: &str) -> String {
    let models = vec!["m"; urls.len()].join(",");
    json!({
        "service_discovery": "static",
        "routing_logic": routing,
        "session_key": "x-user-id",
        "static_backends": urls.join(","),
        "static_models": models,
    })
    .to_string()
}

fn applied(app: &TestApp) -> Value {
    app.get("/health").json()["dynamic_config"].clone()
}

fn is_applied(app: &TestApp, key: &str, value: &str) {
    eventually(&format!("{key} = {value}"), || applied(app)[key] == value);
}

/// The engine that answered one request.
fn serves(app: &TestApp, engines: &[&RawEngine]) -> usize {
    let before: Vec<f64> = engines.iter().map(|one| requests(app, one)).collect();
    assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200);
    app.settled();
    let after = engines.iter().map(|one| requests(app, one));
    let served: Vec<bool> = after.zip(before).map(|(now, then)| now > then).collect();
    served.iter().position(|served| *served).unwrap()
}

fn requests(app: &TestApp, engine: &RawEngine) -> f64 {
    let url = engine.url();
    app.metric(&format!(
        "pilotfish_engine_requests_total{{engine=\"{url}\",outcome=\"success\"}}"
    ))
}

/// Swaps the symlink `..data`, as a kubelet does for a mounted `ConfigMap`.
fn swap(folder: &Folder, generation: usize, content: &str) {
    let data = folder.path(&format!("..{generation}"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("router.json"), content).unwrap();
    let link = folder.path("..data_tmp");
    std::os::unix::fs::symlink(format!("..{generation}"), &link).unwrap();
    fs::rename(&link, folder.path("..data")).unwrap();
    if generation > 0 {
        fs::remove_dir_all(folder.path(&format!("..{}", generation - 1))).unwrap();
    }
}

#[test]
fn a_config_map_is_swapped_fifty_times_under_load() {
    let engines: Vec<RawEngine> = (0..3).map(|_| RawEngine::answering(OK)).collect();
    let urls: Vec<String> = engines.iter().map(RawEngine::url).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let content = |n: usize| {
        let routing = ["roundrobin", "session"][n % 2];
        flat(&urls[..1 + n % 3], routing)
    };
    let folder = Folder::new("swap");
    swap(&folder, 0, &content(0));
    let file = folder.path("router.json");
    std::os::unix::fs::symlink("..data/router.json", &file).unwrap();
    let app = TestApp::from_file(&file);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let served = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut served = 0;
            let mut client = app.connect();
            while !stop.load(SeqCst) {
                let request = post("/v1/chat/completions", r#"{"model":"m"}"#);
                client.write(request.as_bytes());
                let answer = client.answer().expect("an answer");
                assert_eq!((answer.status, answer.whole), (200, true));
                served += 1;
            }
            served
        });
        for n in 1..=50 {
            swap(&folder, n, &content(n));
            let expected: Value = serde_json::from_str(&content(n)).unwrap();
            eventually("the change is seen", || {
                let applied = applied(&app);
                applied["static_backends"] == expected["static_backends"]
                    && applied["routing_logic"] == expected["routing_logic"]
            });
            assert_eq!(
                app.get("/engines").json().as_array().unwrap().len(),
                1 + n % 3
            );
        }
        stop.store(true, SeqCst);
        load.join().unwrap()
    });
    assert!(served > 50, "{served}");
    // Polling alone would have taken 50 times as long as one poll.
    assert!(began.elapsed() < Duration::from_secs(250));
    assert!(app.metric("pilotfish_config_reloads_total ") >= 51.0);
    assert_eq!(app.metric("pilotfish_config_reload_failures_total "), 0.0);
}

#[test]
fn what_is_known_of_engines_is_kept() {
    let engines: Vec<RawEngine> = (0..3).map(|_| RawEngine::answering(OK)).collect();
    let (slow, go) = RawEngine::stepped(3);
    let mut urls: Vec<String> = engines.iter().map(RawEngine::url).collect();
    urls.sort();
    let mut all: Vec<&str> = urls.iter().map(String::as_str).collect();
    let sorted: Vec<&RawEngine> = (urls.iter())
        .map(|url| engines.iter().find(|one| one.url() == *url).unwrap())
        .collect();
    let folder = Folder::new("kept");
    let file = folder.path("router.json");
    let slow_url = slow.url();
    let with_slow = |routing| {
        let entry = |url: &str, model: &str| json!({"url": url, "models": [model]});
        let mut entries: Vec<Value> = urls.iter().map(|url| entry(url, "m")).collect();
        entries.push(entry(&slow_url, "slow"));
        json!({
            "service_discovery": "static", "routing_logic": routing,
            "session_key": "x-user-id", "engines": entries,
        })
        .to_string()
    };
    fs::write(&file, with_slow("roundrobin")).unwrap();
    let app = TestApp::from_file(&file);

    // A stream is open, and two turns have been taken.
    let mut stream = app.connect();
    let body = r#"{"model":"slow","stream":true}"#;
    stream.write(post("/v1/chat/completions", body).as_bytes());
    stream.until("data: 0\n\n");
    for turn in 0..2 {
        assert_eq!(serves_while_streaming(&app, &sorted), turn);
    }
    // Connections are not told apart from those of our own questions; uses are.
    let reuses = |url: &str| {
        let series = format!("pilotfish_upstream_reuses_total{{engine=\"{url}\"}}");
        app.metric(&series)
    };
    let before: f64 = urls.iter().map(|url| reuses(url)).sum();

    // The engine that streams leaves; the others stay, with their turn.
    all.truncate(3);
    let without_slow = |routing| flat(&all, routing);
    fs::write(&file, without_slow("roundrobin")).unwrap();
    eventually("three engines", || {
        app.get("/engines").json().as_array().unwrap().len() == 3
    });
    assert_eq!(serves(&app, &sorted), 2);
    assert_eq!(serves(&app, &sorted), 0);
    assert!(requests(&app, sorted[0]) >= 2.0, "the counts went on");
    let after: f64 = urls.iter().map(|url| reuses(url)).sum();
    assert!(after > before, "the connections were kept");
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    stream.until("data: [DONE]\n\n\r\n0\r\n\r\n");
    // A model that was served once is known, and not there.
    app.chat(r#"{"model":"slow"}"#)
        .assert_error(503, "model_unavailable");

    // Sessions stay where they are when nothing of their engines changes.
    fs::write(&file, without_slow("session")).unwrap();
    is_applied(&app, "routing_logic", "session");
    let owner = session_owner(&app, &sorted);
    let mut longer: Value = serde_json::from_str(&without_slow("session")).unwrap();
    longer["timeouts"] = json!({"engine_head": "9s"});
    fs::write(&file, longer.to_string()).unwrap();
    eventually("the timeouts are applied", || {
        applied(&app)["timeouts"].is_object()
    });
    assert_eq!(session_owner(&app, &sorted), owner);
}

/// As [`serves`], while a stream keeps something in flight.
fn serves_while_streaming(app: &TestApp, engines: &[&RawEngine]) -> usize {
    let before: Vec<f64> = engines.iter().map(|one| requests(app, one)).collect();
    assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200);
    let mut served = None;
    eventually("the request is counted", || {
        let after = engines.iter().map(|one| requests(app, one));
        served = after.zip(&before).position(|(now, then)| now > *then);
        served.is_some()
    });
    served.unwrap()
}

fn session_owner(app: &TestApp, engines: &[&RawEngine]) -> usize {
    let body = r#"{"model":"m","x-user-id":"someone"}"#;
    let before: Vec<f64> = engines.iter().map(|one| requests(app, one)).collect();
    for _ in 0..3 {
        assert_eq!(app.chat(body).status, 200);
    }
    app.settled();
    let after = engines.iter().map(|one| requests(app, one));
    let served: Vec<f64> = after.zip(before).map(|(now, then)| now - then).collect();
    served.iter().position(|count| *count == 3.0).unwrap()
}

#[test]
fn a_bad_file_changes_nothing_and_the_next_good_one_heals_even_the_same() {
    let engine = RawEngine::answering(OK);
    let folder = Folder::new("heal");
    let file = folder.path("router.json");
    let good = flat(&[&engine.url()], "roundrobin");
    fs::write(&file, &good).unwrap();
    let app = TestApp::from_file(&file);
    let health = app.get("/health").text();
    let successful = |wanted: f64| {
        eventually("the gauge tells", || {
            app.metric("pilotfish_config_last_reload_successful ") == wanted
        });
    };
    // Good in part is bad as a whole.
    let half_good = flat(&["http://127.0.0.1:1"], "nonsense");
    let bad: [&dyn Fn(&Path); 7] = [
        &|file| {
            fs::remove_file(file).unwrap();
            let made = std::process::Command::new("mkfifo").arg(file).status();
            assert!(made.unwrap().success());
        },
        &|file| fs::write(file, &half_good).unwrap(),
        &|file| fs::write(file, "").unwrap(),
        &|file| fs::write(file, "{").unwrap(),
        &|file| fs::remove_file(file).unwrap(),
        &|file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        },
        &|file| fs::File::create(file).unwrap().set_len(50 << 20).unwrap(),
    ];
    for spoil in bad {
        spoil(&file);
        successful(0.0);
        assert_eq!(app.get("/health").text(), health);
        assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200);
        if file.is_dir() {
            fs::remove_dir(&file).unwrap();
        }
        let new = folder.path("new");
        fs::write(&new, &good).unwrap();
        fs::rename(&new, &file).unwrap();
        successful(1.0);
    }
    assert_eq!(app.metric("pilotfish_config_reload_failures_total "), 7.0);
}

#[test]
fn a_file_may_be_replaced_by_rename_and_a_half_written_one_is_never_seen() {
    let engines: Vec<RawEngine> = (0..2).map(|_| RawEngine::answering(OK)).collect();
    let urls: Vec<String> = engines.iter().map(RawEngine::url).collect();
    let folder = Folder::new("rename");
    let file = folder.path("router.yaml");
    let yaml = |urls: &[String]| {
        let mut text = "service_discovery: static\nrouting_logic: roundrobin\n".to_owned();
        writeln!(text, "static_models: {}", vec!["m"; urls.len()].join(",")).unwrap();
        writeln!(text, "static_backends: {}", urls.join(",")).unwrap();
        text
    };
    fs::write(&file, yaml(&urls[..1])).unwrap();
    let app = TestApp::from_flags(&["--dynamic-config-yaml", file.to_str().unwrap()]);
    let new = folder.path("new");
    fs::write(&new, yaml(&urls)).unwrap();
    fs::rename(&new, &file).unwrap();
    is_applied(&app, "static_models", "m,m");

    // Truncated, written in part, then whole: each part is good YAML, and each
    // write comes within the time that a file must have been still.
    let text = yaml(&urls[1..]);
    let generation = app.metric("pilotfish_config_generation ");
    fs::write(&file, "").unwrap();
    for end in (0..text.len()).step_by(40) {
        fs::write(&file, &text[..end]).unwrap();
    }
    fs::write(&file, &text).unwrap();
    is_applied(&app, "static_backends", &urls[1]);
    assert_eq!(app.metric("pilotfish_config_reload_failures_total "), 0.0);
    assert_eq!(app.metric("pilotfish_config_generation "), generation + 1.0);
}

#[test]
fn limits_and_deadlines_change_without_a_restart() {
    let engine = RawEngine::start(|mut conn| while conn.request().is_some() {});
    let folder = Folder::new("limits");
    let file = folder.path("router.json");
    let mut keys: Value = serde_json::from_str(&flat(&[&engine.url()], "roundrobin")).unwrap();
    fs::write(&file, keys.to_string()).unwrap();
    let app = TestApp::from_file(&file);
    keys["timeouts"] = json!({"engine_head": "100ms"});
    fs::write(&file, keys.to_string()).unwrap();
    eventually("the deadline is applied", || {
        applied(&app)["timeouts"].is_object()
    });
    app.chat(r#"{"model":"m"}"#)
        .assert_error(504, "engine_timeout");
}
