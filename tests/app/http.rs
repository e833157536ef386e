//! HTTP to the letter: what hyper leaves to us, on every route and listener.
//! `docs/http.md` names these tests beside the rules.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilotfish::config::forwarded::TrustedProxies;

use crate::http2::with_h2;
use crate::support::engine::RawEngine;
use crate::support::{Answer, Client, TestApp, eventually, post};

const SHORT: Duration = Duration::from_millis(300);

/// An app with an admin listener, and what its engine was asked for.
fn app() -> (TestApp, Arc<Mutex<Vec<String>>>, RawEngine) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&asked);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            // Our own questions aside.
            if seen.field("x-forwarded-for").is_some() {
                heads.lock().unwrap().push(seen.head);
            }
            conn.json(r#"{"data":[]}"#);
        }
    });
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.admin = Some("127.0.0.1:0".parse().unwrap());
        config.settings.timeouts.client_head = SHORT;
    });
    (app, asked, engine)
}

/// The answer to these bytes; the connection must end after it.
#[track_caller]
fn last(mut client: Client, bytes: &[u8]) -> Answer {
    client.write(bytes);
    let answer = client.answer().expect("an answer");
    let then = client.answer();
    assert!(then.is_none(), "the connection goes on: {then:?}");
    answer
}

fn counted(app: &TestApp, code: &str) -> u64 {
    app.metric(&format!("pilotfish_refusals_total{{reason=\"{code}\"}}")) as u64
}

#[test]
fn every_route_of_both_listeners_wants_one_host() {
    let (app, asked, _engine) = app();
    let public = [
        "/v1/x",
        "/v1/completions",
        "/v1/infer",
        "/api/search",
        "/livez",
        "/metrics",
        "/debug/x",
    ];
    let admin = [
        "/config",
        "/policy",
        "/v1/feedback",
        "/debug/decisions",
        "/nowhere",
    ];
    let public = public.map(|path| (app.address, path));
    let admin = admin.map(|path| (app.admin(), path));
    for (address, path) in public.into_iter().chain(admin) {
        for fields in [
            "",
            "host: x\r\nhost: x\r\n",
            "host: a/b\r\n",
            "host: u@h\r\n",
            "host:\r\n",
        ] {
            for method in ["GET", "POST", "OPTIONS"] {
                let request =
                    format!("{method} {path} HTTP/1.1\r\n{fields}content-length: 0\r\n\r\n");
                let answer = last(Client::connect(address), request.as_bytes());
                answer.assert_error(400, "bad_host");
                assert_eq!(answer.field("connection"), Some("close"), "{request}");
            }
        }
    }
    assert_eq!(counted(&app, "bad_host"), 12 * 5 * 3);
    assert!(asked.lock().unwrap().is_empty());
    // HTTP/1.0 knows no Host.
    assert_eq!(app.send("GET /livez HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn on_http2_it_is_the_authority() {
    let (app, asked, _engine) = app();
    with_h2(&app, async |send| {
        for (uri, host, status) in [
            ("http://x/v1/x", None, 200),
            ("http://x/v1/x", Some("X"), 200),
            // Malformed (RFC 9113 8.3.1): its stream is reset.
            ("http://x/v1/x", Some("y"), 0),
            ("http://u@x/v1/x", None, 400),
            ("http://x/livez", Some("y"), 0),
        ] {
            let request = http::Request::get(uri).version(http::Version::HTTP_2);
            let request = match host {
                Some(host) => request.header("host", host),
                None => request,
            };
            let mut send = send.clone().ready().await.unwrap();
            let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
            let answer = match answer.await {
                Ok(answer) => answer,
                Err(error) => {
                    let reason = error.reason();
                    assert_eq!((reason, status), (Some(h2::Reason::PROTOCOL_ERROR), 0));
                    continue;
                }
            };
            assert_eq!(answer.status(), status, "{uri} {host:?}");
            assert!(!answer.headers().contains_key("connection"));
        }
    });
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[test]
fn targets_have_one_form() {
    let (app, asked, _engine) = app();
    let send = |line: &str| format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n");
    for line in [
        "GET x:80",
        "GET *",
        "POST *",
        "GET http://u:p@x/livez",
        "GET ftp://x/livez",
        "GET /livez#top",
        "GET /v1/x?a=b#c",
    ] {
        for address in [app.address, app.admin()] {
            let answer = last(Client::connect(address), send(line).as_bytes());
            answer.assert_error(400, "bad_target");
        }
    }
    let long = format!("GET /{}", "x".repeat(16 << 10));
    last(app.connect(), send(&long).as_bytes()).assert_error(414, "target_too_long");
    assert!(asked.lock().unwrap().is_empty());
    // The absolute form is the same request; a name of another host is nothing to us.
    for line in ["GET http://x/v1/x?y", "GET https://other:80/v1/x?y"] {
        assert_eq!(app.send(&send(line)).status, 200);
    }
    for head in asked.lock().unwrap().drain(..) {
        assert!(
            head.starts_with("GET /v1/x?y HTTP/1.1\r\nhost: 127.0.0.1:"),
            "{head}"
        );
    }
    let answer = app.send(&send("OPTIONS *"));
    assert_eq!(answer.status, 204);
    assert!(answer.field("allow").unwrap().contains("POST"));
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn methods_are_refused_on_every_route() {
    let (app, asked, _engine) = app();
    for path in ["/livez", "/v1/x", "/api/search"] {
        let mut client = app.connect();
        client.write(format!("TRACE {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        let answer = client.answer().unwrap();
        answer.assert_error(405, "method_not_allowed");
        assert!(answer.field("allow").is_some());
        client.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(client.answer().unwrap().status, 200, "it goes on");
    }
    let tunnel =
        b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    last(app.connect(), tunnel).assert_error(405, "method_not_allowed");
    last(Client::connect(app.admin()), tunnel).assert_error(405, "method_not_allowed");
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table, case by case")]
fn what_is_no_request_gets_json_and_is_counted() {
    let (app, _asked, _engine) = app();
    let huge = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nbig: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(70_000));
    let many = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "x: y\r\n".repeat(101)
    );
    let mut before = 0;
    for (bytes, status, code) in [
        ("nonsense\r\n\r\n", 400, "bad_request"),
        ("GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400, "bad_request"),
        (
            "GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "GET / HTTP/1.1\r\nhost: x\r\na: b\0\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "GET / HTTP/1.1\r\nhost: x\r\na: b\rc\r\n\r\n",
            400,
            "bad_request",
        ),
        ("GET / HTTP/2.0\r\nhost: x\r\n\r\n", 400, "bad_request"),
        ("GET /\r\n\r\n", 400, "bad_request"),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5, 5\r\n\r\n",
            400,
            "bad_request",
        ),
        (
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
            400,
            "bad_request",
        ),
        (&huge, 431, "head_too_large"),
        (&long, 414, "target_too_long"),
        (&many, 431, "head_too_large"),
        ("GET / HTTP/1.1\r\nho", 408, "head_timeout"),
    ] {
        let answer = last(app.connect(), bytes.as_bytes());
        answer.assert_error_without_id(status, code);
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(answer.field("content-type"), Some("application/json"));
        before += 1;
    }
    let codes = [
        "bad_request",
        "head_too_large",
        "head_timeout",
        "target_too_long",
    ];
    assert_eq!(
        codes.map(|code| counted(&app, code)).iter().sum::<u64>(),
        before
    );
    let admin = last(Client::connect(app.admin()), b"nonsense\r\n\r\n");
    admin.assert_error_without_id(400, "bad_request");
    // Behind another answer it is told of too.
    let mut client = app.connect();
    client.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(client.answer().unwrap().status, 400);
    assert!(client.answer().is_none());
    assert_eq!(
        codes.map(|code| counted(&app, code)).iter().sum::<u64>(),
        before + 2
    );
}

#[test]
fn a_length_beside_chunks_is_found_wherever_it_hides() {
    let (app, asked, _engine) = app();
    let good = post("/v1/good", "{}");
    let chunked = "POST /v1/good HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let get = "GET /v1/good HTTP/1.1\r\nhost: x\r\n\r\n";
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let two = "content-length: 4\r\ntransfer-encoding: chunked\r\n";
    let swapped = "Transfer-Encoding:chunked\r\nCONTENT-LENGTH : 4\r\n".replace(" :", ":");
    for before in ["", get, &good, chunked, &[chunked, get, &good].concat()] {
        for fields in [two, &swapped] {
            let bad = format!("POST /bad HTTP/1.1\r\nhost: x\r\n{fields}\r\n{smuggled}");
            for step in [1, 7, 10_000] {
                let mut client = app.connect();
                let all = format!("{before}{bad}");
                for piece in all.as_bytes().chunks(step) {
                    // It may be refused before all has been sent.
                    let _ = std::io::Write::write_all(&mut client.stream, piece);
                }
                for _ in 0..before.matches("HTTP/1.1").count() {
                    assert_eq!(client.answer().unwrap().status, 200);
                }
                client
                    .answer()
                    .unwrap()
                    .assert_error(400, "bad_transfer_encoding");
                assert!(client.answer().is_none(), "the connection ends");
            }
        }
    }
    let asked = asked.lock().unwrap();
    assert!(
        asked.iter().all(|head| head.contains(" /v1/good ")),
        "{asked:?}"
    );
}

#[test]
fn a_coding_is_chunked_and_that_alone() {
    let (app, asked, _engine) = app();
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "identity\r\ntransfer-encoding: chunked",
        "chunked\r\ntransfer-encoding: chunked",
    ] {
        let request = format!(
            "POST /v1/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n"
        );
        last(app.connect(), request.as_bytes()).assert_error(501, "bad_transfer_encoding");
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn a_request_that_goes_round_is_stopped() {
    let (app, asked, _engine) = app();
    let via = ["1.1 pilotfish"; 8].join(", ");
    let answer = app.send(&format!(
        "GET /v1/x HTTP/1.1\r\nhost: x\r\nvia: {via}\r\n\r\n"
    ));
    answer.assert_error(508, "loop_detected");
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn only_proxies_that_are_listed_are_believed() {
    let told = "GET /v1/x HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\n\
                x-forwarded-host: api\r\nx_forwarded_for: 8.8.8.8\r\n\r\n";
    for (networks, seen) in [
        (
            None,
            "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\n",
        ),
        (
            Some("192.0.2.0/24"),
            "x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\n",
        ),
        (
            Some("127.0.0.0/8"),
            "x-forwarded-for: 9.9.9.9, 127.0.0.1\r\n",
        ),
    ] {
        let engine = RawEngine::echo();
        let app = TestApp::with(&[(&engine.url(), "m")], |config| {
            if let Some(networks) = networks {
                config.trusted_proxies = TrustedProxies::parse(networks).unwrap();
            }
        });
        let head = app.send(told).text();
        assert!(head.contains(seen), "{networks:?}: {head}");
        let kept = head.contains("x-forwarded-host: api\r\n") && head.contains("proto: https\r\n");
        assert_eq!(kept, networks == Some("127.0.0.0/8"), "{head}");
        assert!(!head.contains("8.8.8.8"), "{head}");
    }
    let app = TestApp::from_flags(&[
        "--trusted-proxies=10.0.0.0/8,::1",
        "--service-discovery=static",
        "--static-backends=http://127.0.0.1:1",
        "--static-models=m",
        "--routing-logic=roundrobin",
    ]);
    assert_eq!(app.get("/livez").status, 200);
}

#[test]
fn a_tunnel_in_which_nobody_speaks_ends() {
    let engine = RawEngine::start(|mut conn| {
        if conn.head().is_some() {
            conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi");
            conn.closed();
        }
    });
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.timeouts.engine_idle = SHORT;
    });
    let mut client = app.connect();
    client.write(b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    assert!(client.until("\r\n\r\nhi").starts_with("HTTP/1.1 101 "));
    // Whoever speaks keeps it.
    for _ in 0..10 {
        client.write(b"still here");
        std::thread::park_timeout(SHORT / 3);
        assert_eq!(app.in_flight(), 1);
    }
    assert!(client.rest().is_empty(), "it ends by itself");
    eventually("nothing is left", || app.in_flight() == 0);
}
