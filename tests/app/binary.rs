//! The binary as a user runs it.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};

use crate::support::{Client, PATIENCE, eventually, post};

pub(crate) fn pilotfish() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pilotfish"))
}

fn output(flags: &str) -> Output {
    pilotfish().args(flags.split_whitespace()).output().unwrap()
}

pub(crate) fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// A port that nobody else takes meanwhile: below those that the kernel hands
/// out, and a different one each time.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let base = u16::try_from(std::process::id() % 600).unwrap() * 16;
        let port = 20_000 + base + NEXT.fetch_add(1, SeqCst);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn usage_errors_say_what_to_do() {
    let missing = output("");
    assert_eq!(missing.status.code(), Some(1));
    let text = String::from_utf8(missing.stderr).unwrap();
    assert!(
        text.contains("required: give --service-discovery"),
        "{text}"
    );
    for flags in [
        "--no-such-flag",
        "--port x",
        "--service-discovery static --routing-logic roundrobin --static-backends http://a,http://b --static-models m",
        "--service-discovery static --routing-logic roundrobin --static-backends ftp://a --static-models m",
        "--routing-logic nonsense",
    ] {
        let output = output(flags);
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(!output.stderr.is_empty(), "{flags}");
    }
    let help = String::from_utf8(output("--help").stdout).unwrap();
    for flag in ["--static-backends", "--drain-timeout", "demo", "engine"] {
        assert!(help.contains(flag), "{flag} not in\n{help}");
    }
}

#[test]
fn validate_tells_all_that_is_wrong_at_once() {
    let folder = crate::support::Folder::new("validate");
    let file = folder.path("dynamic.yaml");
    let start = "--service-discovery static --routing-logic roundrobin --dynamic-config-yaml";
    let flags = format!("{start} {}", file.display());
    let missing = output(&flags);
    assert_eq!(missing.status.code(), Some(2));
    let text = String::from_utf8(missing.stderr).unwrap();
    assert!(text.contains("cannot read the file"), "{text}");

    std::fs::write(
        &file,
        "routing_logic: sesion\nengins: []\nservice_discovery: static\n",
    )
    .unwrap();
    for flags in [format!("validate {}", file.display()), flags] {
        let wrong = output(&flags);
        assert_eq!(wrong.status.code(), Some(2), "{flags}");
        let text = String::from_utf8(wrong.stderr).unwrap();
        assert!(
            text.contains(r#"engins: is no known key; did you mean "engines"?"#),
            "{text}"
        );
    }
    let text =
        "routing_logic: roundrobin\nservice_discovery: static\nengines: [{url: 'http://a'}]\n";
    std::fs::write(&file, text).unwrap();
    let good = output(&format!("validate {}", file.display()));
    assert!(good.status.success());
    assert!(
        String::from_utf8(good.stdout)
            .unwrap()
            .ends_with("is good\n")
    );
    // What flags may add is not wrong with the file.
    std::fs::write(&file, "static_backends: http://a\n").unwrap();
    let partial = output(&format!("validate {}", file.display()));
    assert!(partial.status.success());
    let text = String::from_utf8(partial.stdout).unwrap();
    assert!(
        text.contains("warning: service_discovery: required"),
        "{text}"
    );
    let schema = output("schema").stdout;
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    assert!(schema["properties"]["engines"].is_object());
}

#[test]
fn a_log_level_that_is_none_is_told_of() {
    let output = output("--log-level nonsense --routing-logic roundrobin");
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("log level 'nonsense' is unknown; expected critical,"),
        "{text}"
    );
}

#[test]
fn the_environment_sets_flags_but_a_service_link_does_not() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let flags = "--host 127.0.0.1 --service-discovery static --routing-logic roundrobin \
        --static-backends http://127.0.0.1:1 --static-models m";
    let run = |port: &str| {
        let mut command = pilotfish();
        command.args(flags.split_whitespace());
        command
            .env("PILOTFISH_PORT", port)
            .env("PILOTFISH_LOG_STATS", "1");
        command.env("PILOTFISH_ADMIN_PORT", port_of(&taken));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&port).contains("cannot listen"));
    // The default port is taken instead, and then the admin's is not free.
    assert!(run("tcp://10.0.0.1:80").contains("cannot listen on"));
    assert!(run("x").contains("invalid value 'x' for '--port"));
}

fn port_of(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().port().to_string()
}

#[test]
fn a_taken_port_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = output(&format!(
        "--host 127.0.0.1 --port {port} --service-discovery static --routing-logic roundrobin \
         --static-backends http://127.0.0.1:1 --static-models m"
    ));
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
}

#[test]
fn the_demo_streams_tells_of_it_and_drains() {
    let port = free_port();
    let mut demo = pilotfish()
        .args(["demo", "--port", &port.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let shown = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("why"));
    assert!(shown.is_some(), "the demo's table");
    let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], port)));
    client.write(
        post(
            "/v1/chat/completions",
            r#"{"model":"pilot-small","stream":true,"max_tokens":5}"#,
        )
        .as_bytes(),
    );
    let answer = client.answer().unwrap();
    assert!(answer.whole && answer.text().ends_with("data: [DONE]\n\n"));
    let line = lines.next().unwrap().unwrap();
    assert!(
        line.starts_with("pilot-small") && line.contains("roundrobin"),
        "{line}"
    );
    signal(&demo, "-INT");
    drop(client);
    let mut stderr = String::new();
    demo.stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert!(demo.wait().unwrap().success(), "{stderr}");
    assert!(stderr.contains("stopped"), "{stderr}");
}

#[test]
fn a_second_signal_ends_the_demo_too() {
    let port = free_port();
    let mut demo = pilotfish()
        .args(["demo", "--port", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("it serves", || {
        std::net::TcpStream::connect(address).is_ok()
    });
    let mut client = Client::connect(address);
    let body = r#"{"model":"pilot-large","stream":true,"max_tokens":2000}"#;
    client.write(post("/v1/chat/completions", body).as_bytes());
    client.until("data: ");
    signal(&demo, "-INT");
    eventually("it drains", || {
        let mut probe = Client::connect(address);
        probe.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n");
        probe.answer().is_some_and(|answer| answer.status == 503)
    });
    signal(&demo, "-INT");
    eventually("it exits", || demo.try_wait().unwrap().is_some());
}

#[test]
fn a_second_signal_exits_at_once() {
    let engine_port = free_port();
    let mut engine = pilotfish()
        .args([
            "engine",
            "--model",
            "m",
            "--ttft",
            "60s",
            "--port",
            &engine_port.to_string(),
        ])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let port = free_port();
    let mut proxy = pilotfish()
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--service-discovery",
            "static",
        ])
        .args(["--routing-logic", "roundrobin", "--static-models", "m"])
        .args([
            "--static-backends",
            &format!("http://127.0.0.1:{engine_port}"),
        ])
        .args(["--drain-settle", "60s"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("both serve", || {
        let up = |port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        up(port) && up(engine_port)
    });
    let mut client = Client::connect(address);
    client.write(post("/v1/completions", r#"{"model":"m"}"#).as_bytes());
    signal(&proxy, "-TERM");
    eventually("readiness fails", || {
        let mut probe = Client::connect(address);
        probe.write(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n");
        probe.answer().is_some_and(|answer| answer.status == 503)
    });
    assert!(
        proxy.try_wait().unwrap().is_none(),
        "it waits for the stream"
    );
    signal(&proxy, "-TERM");
    let began = std::time::Instant::now();
    proxy.wait().unwrap();
    assert!(began.elapsed() < PATIENCE);
    engine.kill().unwrap();
    engine.wait().unwrap();
}
