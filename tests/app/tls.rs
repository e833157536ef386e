//! TLS on the public listener: who gets in, what is spoken there, how a
//! connection ends, and certificates that change while it is open.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use clap::Parser as _;
use pilotfish::cli::Cli;
use pilotfish::config::Config;
use pilotfish::config::tls::{ClientAuth, MinVersion, TlsSettings};
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::support::engine::RawEngine;
use crate::support::tls::{Authority, Ended, Mounted, TlsClient};
use crate::support::{PATIENCE, TestApp, eventually, post, sim};

mod ending;

const STREAM: &str = r#"{"model":"m","stream":true}"#;
const UPGRADE: &str =
    "GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";

fn app(url: &str, tls: TlsSettings, change: impl FnOnce(&mut Config)) -> TestApp {
    TestApp::with(&[(url, "m")], |config| {
        config.tls = Some(tls);
        change(config);
    })
}

/// An authority, and a mount with a certificate of its.
fn mounted(name: &str) -> (Authority, Mounted) {
    let authority = Authority::new("authority");
    let mounted = Mounted::new(name, &authority.issue(None));
    (authority, mounted)
}

#[test]
fn both_versions_of_tls_carry_requests_and_streams() {
    let (authority, files) = mounted("versions");
    let engine = sim(None);
    let app = app(&engine.url(), files.settings(), |_| {});
    for version in [&TLS12, &TLS13] {
        let trusted = authority.trusted_by((None, &["http/1.1"]), &[version]);
        let mut client = TlsClient::connect(app.address, &trusted).unwrap();
        for _ in 0..3 {
            client.write(&post("/v1/chat/completions", STREAM));
            client.until("data: [DONE]\n\n\r\n0\r\n\r\n");
            assert!(client.get("/health").0.starts_with("HTTP/1.1 200 "));
        }
        // Several requests at once are answered in turn.
        client.write(&post("/v1/chat/completions", r#"{"model":"m"}"#).repeat(3));
        for _ in 0..3 {
            assert!(client.answer().0.starts_with("HTTP/1.1 200 "));
        }
        let close = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write(close);
        assert_eq!(client.rest().1, Ended::Announced, "{version:?}");
    }
}

#[test]
fn http2_is_agreed_upon() {
    let (authority, files) = mounted("alpn");
    let engine = sim(None);
    let app = app(&engine.url(), files.settings(), |_| {});
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let trusted = authority.trusted(None, offered);
        let client = TlsClient::connect(app.address, &trusted).unwrap();
        let found = client.stream.conn.alpn_protocol();
        assert_eq!(found, agreed.map(str::as_bytes));
    }
    let trusted = authority.trusted(None, &["spdy/3"]);
    assert!(TlsClient::connect(app.address, &trusted).is_err());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let trusted = authority.trusted(None, &["h2"]);
    let speaking = async {
        let socket = pilotfish::net::connect("127.0.0.1", app.address.port(), PATIENCE)
            .await
            .unwrap();
        let name = "localhost".try_into().unwrap();
        let connector = tokio_rustls::TlsConnector::from(trusted);
        let stream = connector.connect(name, socket).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        for _ in 0..3 {
            let request = crate::http2::post(STREAM);
            let (answer, mut upload) = send.send_request(request, false).unwrap();
            upload.send_data(STREAM.into(), true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            let mut text = Vec::new();
            while let Some(data) = body.data().await {
                text.extend_from_slice(&data.unwrap());
            }
            assert!(text.ends_with(b"data: [DONE]\n\n"));
        }
        drop(send);
        driver.await.unwrap().unwrap();
    };
    let ended = runtime.block_on(async { tokio::time::timeout(PATIENCE, speaking).await });
    ended.unwrap();
}

#[test]
fn whoever_speaks_something_else_is_told_or_left() {
    let (authority, files) = mounted("else");
    let engine = sim(None);
    let app = app(&engine.url(), files.settings(), |config| {
        config.settings.timeouts.client_head = Duration::from_millis(300);
    });
    app.get("/health")
        .assert_error_without_id(400, "https_expected");
    let hello = [0x16, 3, 1, 0, 200, 1, 0, 0, 196];
    for (sent, reason) in [
        (&b""[..], None),
        (&hello[..1], Some("timeout")),
        (&hello, Some("timeout")),
        (&[0x16, 3, 1, 255, 255, 0], Some("protocol")),
        (&[0x15, 3, 1, 0, 2, 2, 0], Some("refused_by_client")),
        (&[0; 5000], Some("protocol")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some("plain_http")),
    ] {
        let trusted = authority.trusted(None, &[]);
        let count = || {
            let mut client = TlsClient::connect(app.address, &trusted).unwrap();
            let series = "pilotfish_tls_handshake_failures_total";
            let reason = reason.unwrap_or("timeout");
            client.metric(&format!("{series}{{reason=\"{reason}\"}}"))
        };
        let before = count();
        let mut socket = TcpStream::connect(app.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(sent).unwrap();
        // It ends, one way or another.
        let _ = socket.read_to_end(&mut Vec::new());
        let expected = before + f64::from(u8::from(reason.is_some()));
        eventually("counted", || count() >= expected);
        assert!(count() <= expected, "{reason:?}");
    }
}

#[test]
fn clients_show_certificates_where_they_are_asked_to() {
    let (authority, files) = mounted("clients");
    let (others, known) = (Authority::new("others"), authority.issue(None));
    let stranger = others.issue(None);
    let issued = authority.issue(None);
    files.swap(&[
        ("tls.crt", &issued.certificate),
        ("tls.key", &issued.key),
        ("ca.crt", &authority.pem()),
    ]);
    for (auth, nobody, version) in [
        (ClientAuth::Required, false, &TLS13),
        (ClientAuth::Required, false, &TLS12),
        (ClientAuth::Optional, true, &TLS13),
        (ClientAuth::Optional, true, &TLS12),
    ] {
        let engine = sim(None);
        let app = app(&engine.url(), files.asking(auth), |_| {});
        for (shown, is_let_in) in [
            (None, nobody),
            (Some(&stranger), false),
            (Some(&known), true),
        ] {
            let trusted = authority.trusted_by((shown, &[]), &[version]);
            let got_in = TlsClient::connect(app.address, &trusted).is_ok_and(|mut client| {
                let sent = client
                    .stream
                    .write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
                let mut first = [0; 12];
                let read = sent.and_then(|()| client.stream.read_exact(&mut first));
                // Who is refused is told why, not reset.
                assert!(
                    is_let_in
                        || read
                            .as_ref()
                            .is_err_and(|e| e.to_string().contains("alert"))
                );
                read.is_ok() && first == *b"HTTP/1.1 200"
            });
            assert_eq!(
                got_in,
                is_let_in,
                "{auth:?} {version:?} {}",
                shown.is_some()
            );
        }
        let trusted = authority.trusted_by((Some(&known), &[]), &[version]);
        for _ in 0..2 {
            let mut client = TlsClient::connect(app.address, &trusted).unwrap();
            let refused = r#"pilotfish_tls_handshake_failures_total{reason="client_certificate"}"#;
            assert!(client.metric(refused) >= 1.0);
            assert!(!client.is_resumed(), "certificates are shown each time");
        }
    }
}

#[test]
fn old_versions_are_refused_where_it_is_asked_for() {
    let (authority, files) = mounted("old");
    let engine = sim(None);
    let tls = TlsSettings {
        min_version: MinVersion::Tls13,
        ..files.settings()
    };
    let app = app(&engine.url(), tls, |_| {});
    for (version, is_let_in) in [(&TLS12, false), (&TLS13, true)] {
        let trusted = authority.trusted_by((None, &[]), &[version]);
        let client = TlsClient::connect(app.address, &trusted);
        assert_eq!(client.is_ok(), is_let_in, "{version:?}");
    }
}

#[test]
fn new_connections_get_the_new_certificate_and_old_ones_stay() {
    let (authority, files) = mounted("rotation");
    let engine = sim(None);
    let app = app(&engine.url(), files.settings(), |_| {});
    let trusted = authority.trusted(None, &[]);
    let connect = || TlsClient::connect(app.address, &trusted).unwrap();
    let mut old = connect();
    let before = old.shown();
    let expiry = "pilotfish_tls_certificate_expiry_timestamp_seconds{file=";
    assert!(old.metric(expiry) > 4e9, "{}", old.metric(expiry));
    let next = authority.issue(None);
    files.swap(&[("tls.crt", &next.certificate), ("tls.key", &next.key)]);
    let fresh = || {
        let trusted = authority.trusted(None, &[]);
        TlsClient::connect(app.address, &trusted).unwrap()
    };
    eventually("the new one", || fresh().shown() != before);
    assert_eq!(old.metric("pilotfish_tls_reloads_total"), 1.0);
    // A session outlives the certificate that it began with.
    let mut resumed = connect();
    resumed.get("/health");
    assert!(resumed.is_resumed());
    let series = r#"pilotfish_tls_handshakes_total{session="resumed"}"#;
    assert!(old.metric(series) >= 1.0);

    // What is no pair is refused after a while, and the last good one stays.
    let half = authority.issue(None);
    let current = fresh().shown();
    files.swap(&[("tls.crt", &half.certificate), ("tls.key", &next.key)]);
    eventually("refused", || {
        old.metric("pilotfish_tls_reload_failures_total") == 1.0
    });
    assert_eq!(fresh().shown(), current);
    files.swap(&[("tls.crt", &half.certificate), ("tls.key", &half.key)]);
    eventually("the third", || fresh().shown() != current);
}

#[test]
fn websockets_go_through() {
    let (authority, files) = mounted("tunnel");
    let engine = RawEngine::start(|mut conn| {
        if conn.head().is_none_or(|head| !head.contains("upgrade: ")) {
            return;
        }
        conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
        let mut nine = [0; 9];
        conn.stream.read_exact(&mut nine).unwrap();
        conn.write(&format!("got {}", std::str::from_utf8(&nine).unwrap()));
    });
    let app = app(&engine.url(), files.settings(), |_| {});
    let trusted = authority.trusted(None, &["http/1.1"]);
    let mut client = TlsClient::connect(app.address, &trusted).unwrap();
    client.write(&format!("{UPGRADE}from "));
    client.until("hello");
    client.write("here");
    client.until("got from here");
    assert_eq!(client.rest(), (String::new(), Ended::Announced));
    app.settled();
}

#[test]
fn files_that_are_no_good_are_an_error_at_the_start() {
    let (_authority, files) = mounted("start");
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| files.path(name));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let engines = "--static-backends=http://127.0.0.1:1";
    for (flags, expected) in [
        (
            ["--tls-cert", key, "--tls-key", certificate],
            "are the two files mixed up?",
        ),
        (
            ["--tls-cert", certificate, "--tls-key", "/nowhere"],
            "/nowhere: cannot read the file",
        ),
    ] {
        let ours = [
            "pilotfish",
            "--service-discovery=static",
            "--routing-logic=random",
            engines,
        ];
        let cli = Cli::try_parse_from(ours.iter().chain(&flags)).unwrap();
        let problems = cli.proxy.launch().unwrap_err();
        assert!(problems.to_string().contains(expected), "{problems}");
        // 1 would mean that a setting is missing.
        assert!(problems.list.iter().all(|one| !one.is_missing));
    }
}
