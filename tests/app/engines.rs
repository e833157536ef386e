//! `pilotfish engines`, as a user runs it against a sidecar that serves.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::Duration;

use pilotfish::sim::faults::Fault;

use crate::binary::pilotfish;
use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually, sim};

fn engines(words: &[&str]) -> Output {
    let mut command = pilotfish();
    command.arg("engines").args(words);
    command.output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// An engine's entry of the page.
fn entry<'a>(page: &'a serde_json::Value, url: &str) -> &'a serde_json::Value {
    let mut entries = page.as_array().unwrap().iter();
    entries.find(|entry| entry["engine_id"] == url).unwrap()
}

#[track_caller]
fn refused(words: &[&str]) -> String {
    let output = engines(words);
    assert_eq!(output.status.code(), Some(2), "{words:?}");
    assert_eq!(stdout(&output), "", "{words:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_table_and_the_document_of_a_fleet_that_is_well() {
    let sims = [sim(None), sim(None)];
    let urls = sims.each_ref().map(|sim| format!("http://{}", sim.address));
    let listed = urls.each_ref().map(|url| (url.as_str(), "m"));
    let app = TestApp::with(&listed, |config| {
        config.stats.scrape_every = Duration::from_millis(50);
        config.root_path = "/pilot".to_owned();
    });
    eventually("each has had its share within the window", || {
        let body = r#"{"model":"m","stream":true,"max_tokens":5}"#;
        assert_eq!(app.chat(body).status, 200);
        let page = app.get("/engines").json();
        let finished = |url| entry(&page, url)["window"]["finished"].as_u64();
        urls.iter().all(|url| finished(url) >= Some(2))
    });
    app.settled();
    eventually("the engines' own metrics", || {
        let page = app.get("/engines").json();
        let engines = page.as_array().unwrap();
        engines
            .iter()
            .all(|one| one["attributes"]["requests_running"] == 0.0)
    });

    // Without a scheme, and under the root path.
    let output = engines(&[&format!("{}/pilot/", app.address)]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("engines: 2, healthy: 2; 0 requests in flight; over 60 s: "),
        "{text}"
    );
    assert_eq!((lines[1], lines.len()), ("", 5), "{text}");
    assert!(lines[2].starts_with("engine ") && lines[2].ends_with("age s"));
    for url in &urls {
        let line = lines.iter().find(|line| line.starts_with(url.as_str()));
        let cells: Vec<&str> = line.unwrap().split_whitespace().collect();
        // engine, state, models, in flight, running, waiting.
        assert_eq!(cells[..6], [url, "healthy", "m", "0", "0", "0"], "{text}");
        assert!(cells[7].parse::<f64>().unwrap() > 0.0, "{text}");
        assert!(cells[8] != "-" && cells[10] != "-", "{text}");
        assert_eq!((cells[12], cells.len()), ("0", 14), "{text}");
    }
    assert!(!text.contains('\x1b'), "colours where there is no terminal");

    let output = engines(&[&format!("http://{}", app.address), "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let page: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    for url in &urls {
        let window = &entry(&page, url)["window"];
        assert_eq!(window["failed"], 0);
        assert_eq!(window["seconds"], 60.0);
        // Five tokens and the end of it, if events are counted.
        let tokens = window["tokens_per_request"].as_f64().unwrap();
        assert!((5.0..=6.0).contains(&tokens), "{window}");
        for name in ["qps", "ttft_ms", "latency_ms", "tokens_per_second"] {
            assert!(window[name].as_f64().unwrap() > 0.0, "{window}");
        }
    }
    assert!(stdout(&output).lines().count() > 20, "one thing a line");
}

#[test]
fn an_engine_that_is_not_well_is_told_by_the_exit_code() {
    let (good, bad) = (sim(None), sim(Some(Fault::Status(500))));
    let urls = [&good, &bad].map(|sim| format!("http://{}", sim.address));
    let app = TestApp::new(&urls);
    let page = format!("http://{}", app.address);
    eventually("one is set aside", || {
        app.chat(r#"{"model":"m"}"#);
        engines(&[&page]).status.code() == Some(1)
    });
    let output = engines(&[&page, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(stderr.contains("1 of 2 engines not healthy"), "{stderr}");
    let page: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let failed = urls
        .each_ref()
        .map(|url| entry(&page, url)["window"]["failed"].as_u64());
    assert!(failed[0] == Some(0) && failed[1] > Some(0), "{page}");
}

#[test]
fn watching_goes_on_until_it_is_stopped() {
    let sim = sim(None);
    let app = TestApp::new(&[format!("http://{}", sim.address)]);
    let mut child = pilotfish()
        .args(["engines", &format!("http://{}", app.address)])
        .args(["--watch", "100ms"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut blocks = 0;
    while blocks < 3 {
        let line = lines.next().unwrap().unwrap();
        assert!(
            !line.contains('\x1b'),
            "nothing is cleared where there is no terminal"
        );
        blocks += usize::from(line.starts_with("engines: 1, healthy: 1"));
    }
    // A sidecar that goes is told of, and waited for.
    drop(app);
    let told = lines.by_ref().map(Result::unwrap);
    let told = told
        .skip_while(|line| !line.starts_with("cannot connect to"))
        .take(1);
    assert_eq!(told.count(), 1);
    // Whoever reads has had enough: it ends by itself.
    drop(lines);
    eventually("it ends", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
}

#[test]
fn errors_say_what_is_there_instead() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let text = refused(&[&address]);
    assert!(
        text.contains("cannot connect to") && text.contains("8001 by default"),
        "{text}"
    );

    for (answer, expected) in [
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 13\r\n\r\n<html>no</htm",
            "is not there",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html>hi</htm",
            "is no JSON",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\": 1}\n",
            "no list of engines",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[1]",
            "no list of engines",
        ),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nlate", "503"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n[",
            "gave no answer that can be read",
        ),
        ("SSH-2.0-OpenSSH\r\n", "gave no answer that can be read"),
    ] {
        let server = RawEngine::start(move |mut conn| {
            let _ = conn.request();
            conn.write(answer);
        });
        let text = refused(&[&format!("http://{}", server.address)]);
        assert!(text.contains(expected), "{answer}: {text}");
    }
    // One that speaks no TLS is not taken for one that does.
    let server = RawEngine::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]");
    let text = refused(&[&format!("https://{}", server.address)]);
    assert!(text.contains("cannot connect to https://"), "{text}");
    let help = stdout(&engines(&["--help"]));
    for word in ["--json", "--watch", "Exit codes:", "http://127.0.0.1:8001"] {
        assert!(help.contains(word), "{word} not in\n{help}");
    }
    // A sidecar without engines is none that is well.
    let server = RawEngine::start(|mut conn| {
        let _ = conn.request();
        conn.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]");
    });
    let output = engines(&[&server.address.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).starts_with("engines: 0, healthy: 0"));
}
