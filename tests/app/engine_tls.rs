//! Engines that speak TLS: whom we trust, what we show, and that nothing else
//! differs from clear text.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::certificates::{Authority, Pair};
use crate::support::engine::RawEngine;
use crate::support::front::Front;
use crate::support::{Folder, TestApp, eventually, post, sim};

const HOST: &str = "127.0.0.1";

/// An authority, and where its certificate is.
fn authority(folder: &Folder) -> (Authority, PathBuf) {
    let authority = Authority::new("engines");
    let file = folder.write("ca.pem", &authority.pem());
    (authority, file)
}

fn trusting(url: &str, ca: PathBuf) -> TestApp {
    TestApp::with(&[(url, "m")], |config| config.engine_tls.ca = Some(ca))
}

#[test]
fn an_engine_gets_the_same_over_tls_and_its_connection_is_kept() {
    let folder = Folder::new("engine-tls");
    let (authority, ca) = authority(&folder);
    let engine = RawEngine::echo();
    let front = Front::start(&authority.sign(&[HOST]), None, engine.address);
    let app = trusting(&front.url(), ca);
    let large = format!(r#"{{"model":"m","x":"{}"}}"#, "y".repeat(5 << 20));
    for body in [r#"{"model":"m"}"#, r#"{"model":"m","n":2}"#, &large] {
        let answer = app.chat(body);
        assert_eq!(answer.status, 200);
        let text = answer.text();
        let (head, echoed) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("host: {}", front.address)), "{head}");
        assert!(echoed == body, "{} of {}", echoed.len(), body.len());
    }
    // What cannot be sent again took a fresh one.
    assert_eq!(app.metric("pilotfish_upstream_reuses_total"), 1.0);
    app.settled();
}

#[test]
fn a_stream_comes_event_by_event_and_ends_with_its_client() {
    let folder = Folder::new("engine-tls-stream");
    let (authority, ca) = authority(&folder);
    let (engine, go) = RawEngine::stepped(3);
    let front = Front::start(&authority.sign(&[HOST]), None, engine.address);
    let app = trusting(&front.url(), ca);
    let mut client = app.connect();
    let request = post("/v1/chat/completions", r#"{"model":"m","stream":true}"#);
    client.write(request.as_bytes());
    client.until("data: 0\n\n");
    go.send(()).unwrap();
    client.until("data: 1\n\n");
    drop(client);
    // The engine waits to be told; the proxy has gone from it before.
    app.settled();
}

#[test]
fn who_cuts_an_answer_that_ends_with_its_connection_has_not_ended_it() {
    let folder = Folder::new("engine-tls-cut");
    let (authority, ca) = authority(&folder);
    let engine = RawEngine::start(|mut conn| {
        if conn.request().is_some() {
            conn.write("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhalf of it");
            // Unread bytes make this end a reset.
            let _ = socket2::SockRef::from(&conn.stream).set_linger(Some(Duration::ZERO));
        }
    });
    let front = Front::start(&authority.sign(&[HOST]), None, engine.address);
    let app = trusting(&front.url(), ca);
    let mut client = app.connect();
    client.write(post("/v1/chat/completions", r#"{"model":"m"}"#).as_bytes());
    let answer = client.answer();
    assert!(answer.is_none_or(|answer| answer.status == 502 || !answer.whole));
    app.settled();
}

#[test]
fn a_websocket_goes_through() {
    let folder = Folder::new("engine-tls-socket");
    let (authority, ca) = authority(&folder);
    let engine = RawEngine::start(|mut conn| {
        if conn
            .head()
            .is_some_and(|head| head.contains("upgrade: websocket\r\n"))
        {
            conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
            let heard = conn.closed();
            assert_eq!(heard, b"and good-bye");
        }
    });
    let front = Front::start(&authority.sign(&[HOST]), None, engine.address);
    let app = trusting(&front.url(), ca);
    let mut client = app.connect();
    client.write(b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    client.until("hello");
    client.write(b"and good-bye");
    drop(client);
    app.settled();
}

#[test]
fn whom_we_do_not_trust_gets_nothing_and_others_get_it() {
    let folder = Folder::new("engine-tls-trust");
    let (authority, ca) = authority(&folder);
    let stranger = Authority::new("a stranger");
    let engine = RawEngine::echo();
    for pair in [
        stranger.sign(&[HOST]),
        authority.sign(&["another.test"]),
        authority.signed(&[HOST], |of| {
            of.not_before = rcgen::date_time_ymd(2020, 1, 1);
            of.not_after = rcgen::date_time_ymd(2020, 2, 1);
        }),
    ] {
        let front = Front::start(&pair, None, engine.address);
        let app = trusting(&front.url(), ca.clone());
        let answer = app.chat(r#"{"model":"m"}"#);
        // Whom nobody can reach is set aside at once.
        answer.assert_error(503, "model_unavailable");
        assert_eq!(front.handshakes(), 0);
        let plain = sim(None);
        let both = [(front.url(), "m"), (plain.url(), "m")];
        let both = both.each_ref().map(|(url, model)| (url.as_str(), *model));
        let app = TestApp::with(&both, |config| config.engine_tls.ca = Some(ca.clone()));
        for _ in 0..4 {
            assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200, "sent elsewhere");
        }
    }
    assert_eq!(engine.connections(), 0);
}

#[test]
fn a_name_may_be_given_for_engines_that_are_known_by_address() {
    let folder = Folder::new("engine-tls-name");
    let (authority, ca) = authority(&folder);
    let engine = RawEngine::echo();
    let front = Front::start(&authority.sign(&["engines.internal"]), None, engine.address);
    let app = TestApp::with(&[(&front.url(), "m")], |config| {
        config.engine_tls.ca = Some(ca);
        config.engine_tls.name = Some("engines.internal".to_owned());
    });
    assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200);
}

#[test]
fn we_show_a_certificate_to_those_who_ask_for_it() {
    let folder = Folder::new("engine-tls-client");
    let (authority, ca) = authority(&folder);
    let engine = RawEngine::echo();
    let front = Front::start(&authority.sign(&[HOST]), Some(&authority), engine.address);
    let nobody = trusting(&front.url(), ca.clone());
    assert!(nobody.chat(r#"{"model":"m"}"#).status >= 502);
    let Pair { cert, key } = authority.sign(&["sidecar"]);
    let (cert, key) = (
        folder.write("cert.pem", &cert),
        folder.write("key.pem", &key),
    );
    let urls = front.url();
    let flag = |name: &str, file: &PathBuf| format!("--{name}={}", file.display());
    let app = TestApp::from_flags(&[
        "--service-discovery=static",
        "--routing-logic=roundrobin",
        &format!("--static-backends={urls}"),
        "--static-models=m",
        &flag("engine-ca", &ca),
        &flag("engine-client-cert", &cert),
        &flag("engine-client-key", &key),
    ]);
    assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200);
}

#[test]
fn an_engine_that_does_not_shake_hands_is_not_waited_for() {
    let folder = Folder::new("engine-tls-silent");
    let (_, ca) = authority(&folder);
    // The kernel accepts; nobody says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let app = TestApp::with(&[(&url, "m")], |config| {
        config.engine_tls.ca = Some(ca.clone());
        config.settings.timeouts.connect = Duration::from_millis(200);
    });
    app.chat(r#"{"model":"m"}"#)
        .assert_error(503, "model_unavailable");
    // Nor is one that speaks no TLS.
    let engine = RawEngine::echo();
    let url = format!("https://{}", engine.address);
    let app = trusting(&url, ca);
    app.chat(r#"{"model":"m"}"#)
        .assert_error(503, "model_unavailable");
}

#[test]
fn models_are_asked_for_over_tls() {
    let folder = Folder::new("engine-tls-models");
    let (authority, ca) = authority(&folder);
    let engine = sim(None);
    let address = engine.url().trim_start_matches("http://").parse().unwrap();
    let front = Front::start(&authority.sign(&[HOST]), None, address);
    let app = TestApp::from_flags(&[
        "--service-discovery=static",
        "--routing-logic=roundrobin",
        &format!("--static-backends={}", front.url()),
        &format!("--engine-ca={}", ca.display()),
    ]);
    eventually("the model is known", || {
        app.chat(r#"{"model":"m"}"#).status == 200
    });
}

#[test]
fn files_that_cannot_be_used_are_told_of_at_the_start() {
    let folder = Folder::new("engine-tls-files");
    let (authority, ca) = authority(&folder);
    let pair = authority.sign(&["sidecar"]);
    let other = authority.sign(&["other"]);
    let cert = folder.write("cert.pem", &pair.cert);
    let key = folder.write("other.pem", &other.key);
    let empty = folder.write("empty.pem", "");
    let gone = folder.path("gone.pem");
    let build = |change: &dyn Fn(&mut pilotfish::config::Config)| {
        let mut config = pilotfish::config::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Default::default()
        };
        change(&mut config);
        let error = pilotfish::app::build(config).unwrap_err();
        format!("{error:#}")
    };
    for (message, expected) in [
        (
            build(&|config| config.engine_tls.ca = Some(gone.clone())),
            "gone.pem",
        ),
        (
            build(&|config| config.engine_tls.ca = Some(empty.clone())),
            "empty.pem",
        ),
        (
            build(&|config| {
                config.engine_tls.ca = Some(ca.clone());
                config.engine_tls.client = Some((cert.clone(), key.clone()));
            }),
            "other.pem",
        ),
        (
            build(&|config| {
                config.engine_tls.ca = Some(ca.clone());
                config.engine_tls.name = Some("no name".to_owned());
            }),
            "--engine-tls-name",
        ),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_new_authority_is_trusted_without_a_restart_and_a_bad_file_changes_nothing() {
    let folder = Folder::new("engine-tls-rotation");
    let (_, ca) = authority(&folder);
    let next = Authority::new("the next one");
    let engine = RawEngine::echo();
    let front = Front::start(&next.sign(&[HOST]), None, engine.address);
    let app = trusting(&front.url(), ca.clone());
    assert_eq!(app.chat(r#"{"model":"m"}"#).status, 503);
    // As a mounted Secret is replaced: another file in its place.
    let new = folder.write("new.pem", &next.pem());
    std::fs::rename(new, &ca).unwrap();
    eventually("the new one is trusted", || {
        app.chat(r#"{"model":"m"}"#).status == 200
    });
    std::fs::write(&ca, "no certificate").unwrap();
    for _ in 0..3 {
        assert_eq!(app.chat(r#"{"model":"m"}"#).status, 200);
    }
}
