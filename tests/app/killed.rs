//! Engines as processes of their own, killed as kill -9 does.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::{Client, TestApp, eventually, post};

/// Two requests out of three are at work for so long, at 200 a second.
const TTFT: &str = "60ms";
const CLIENTS: usize = 16;
const PAUSE: Duration = Duration::from_millis(20);

/// One simulated engine, killed when dropped.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    /// On that port; 0 takes a free one.
    fn start(port: u16) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
            .args([
                "engine",
                "--model",
                "m",
                "--ttft",
                TTFT,
                "--port",
                &port.to_string(),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let port = line.split_once("address=127.0.0.1:").unwrap().1;
        let port = port.split(' ').next().unwrap().parse().unwrap();
        Self { child, port }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    fn kill(mut self) -> u16 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.port
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn processes() -> Vec<Process> {
    (0..3).map(|_| Process::start(0)).collect()
}

fn app(engines: &[Process]) -> TestApp {
    let urls: Vec<String> = engines.iter().map(Process::url).collect();
    TestApp::new(&urls)
}

/// Keeps some 200 requests a second going while `meanwhile` runs; tells how
/// many there were, and the answers that were no 200.
fn under_load(app: &TestApp, meanwhile: impl FnOnce()) -> (usize, Vec<String>) {
    let is_over = AtomicBool::new(false);
    let address = app.address;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| client(address, &is_over)))
            .collect();
        meanwhile();
        is_over.store(true, SeqCst);
        let mut all = (0, Vec::new());
        for client in clients {
            let (count, failed) = client.join().unwrap();
            all.0 += count;
            all.1.extend(failed);
        }
        all
    })
}

fn client(address: SocketAddr, is_over: &AtomicBool) -> (usize, Vec<String>) {
    let mut client = Client::connect(address);
    let (mut count, mut failed) = (0, Vec::new());
    while !is_over.load(SeqCst) {
        client.write(post("/v1/chat/completions", r#"{"model":"m","max_tokens":3}"#).as_bytes());
        let answer = client.answer().expect("an answer");
        count += 1;
        if answer.status != 200 || !answer.whole {
            failed.push(format!("{} {}", answer.status, answer.text()));
        }
        let until = Instant::now() + PAUSE;
        while Instant::now() < until {
            std::thread::park_timeout(until - Instant::now());
        }
    }
    (count, failed)
}

fn wait(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::park_timeout(until - Instant::now());
    }
}

fn is_healthy(app: &TestApp, url: &str) -> bool {
    let engines = app.get("/engines").json();
    let mut engines = engines.as_array().unwrap().iter();
    engines.any(|engine| engine["engine_id"] == url && engine["state"] == "healthy")
}

#[test]
fn a_killed_engine_costs_no_request() {
    let mut engines = processes();
    let app = app(&engines);
    let (count, failed) = under_load(&app, || {
        wait(Duration::from_secs(1));
        engines.remove(0).kill();
        wait(Duration::from_secs(2));
    });
    assert!(count > 300, "{count} requests");
    assert!(failed.is_empty(), "{} of {count}: {failed:?}", failed.len());
    app.settled();
}

#[test]
fn a_rolling_restart_costs_no_request() {
    let mut engines = processes();
    let app = app(&engines);
    let (count, failed) = under_load(&app, || {
        wait(Duration::from_millis(500));
        for _ in 0..3 {
            let port = engines.remove(0).kill();
            wait(Duration::from_millis(300));
            let back = Process::start(port);
            // As whoever restarts them waits: for the next to be of use.
            eventually("it is trusted again", || is_healthy(&app, &back.url()));
            engines.push(back);
        }
    });
    assert!(count > 300, "{count} requests");
    assert!(failed.is_empty(), "{} of {count}: {failed:?}", failed.len());
    app.settled();
}

#[test]
fn streams_of_a_killed_engine_end_honestly() {
    let engines = processes();
    let app = app(&engines);
    let body = r#"{"model":"m","max_tokens":5000,"stream":true}"#;
    let mut clients: Vec<Client> = (0..6)
        .map(|_| {
            let mut client = app.connect();
            client.write(post("/v1/chat/completions", body).as_bytes());
            client
        })
        .collect();
    eventually("all streams have begun", || {
        let begun = "pilotfish_time_to_first_token_seconds_count{model=\"m\"}";
        let page = app.get("/metrics").text();
        page.contains(&format!("{begun} {}\n", clients.len()))
    });
    for engine in engines {
        engine.kill();
    }
    for client in &mut clients {
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.whole), (200, false));
        let text = answer.text();
        assert!(!text.contains("[DONE]"));
        let (events, last) =
            (text.trim_end().rsplit_once("\n\n")).unwrap_or_else(|| panic!("{text}"));
        assert!(last.contains("engine_disconnected"), "{last}");
        assert!(events.starts_with("data: {") && !events.contains("engine_disconnected"));
        assert!(text.ends_with("\n\n"));
    }
    app.settled();
}
