//! Requests and answers go through as they are: any method, path, framing and
//! body; heads changed only as a proxy must.

use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually, post};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};

fn sim(model: &str) -> SimEngine {
    SimEngine::start(SimConfig::new(model, Speed::instant())).unwrap()
}

#[test]
fn any_method_and_path_goes_through_with_its_query() {
    let engine = RawEngine::echo();
    let app = TestApp::new(&[engine.url()]);
    for line in [
        "GET /any/path?a=b%20c&a=d HTTP/1.1",
        "PUT /x HTTP/1.1",
        "DELETE /v1/files/1 HTTP/1.1",
        "PATCH /x HTTP/1.1",
        "OPTIONS /x HTTP/1.1",
        "WEIRD-METHOD /a/../b//c%2f HTTP/1.1",
    ] {
        let answer = app.send(&format!("{line}\r\nhost: x\r\n\r\n"));
        assert_eq!(answer.text().lines().next().unwrap(), line);
    }
    let absolute = app
        .send("GET http://other/p?q HTTP/1.1\r\nhost: x\r\n\r\n")
        .text();
    assert!(
        absolute.starts_with("GET /p?q HTTP/1.1\r\nhost: 127.0.0.1:"),
        "{absolute}"
    );
}

#[test]
fn bodies_go_through_to_the_byte() {
    let engine = RawEngine::echo();
    let app = TestApp::new(&[engine.url()]);
    let json = "{\n  \"model\" : \"m\", \"unknown\": [1.0, \"é\\u0041\"], \"messages\":[] }";
    let echoed = app.chat(json).text();
    assert!(echoed.ends_with(&format!("\r\n\r\n{json}")), "{echoed}");

    // Chunked, in odd pieces: the engine gets the length.
    let mut client = app.connect();
    client.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    for piece in json.as_bytes().chunks(7) {
        client.write(format!("{:x}\r\n", piece.len()).as_bytes());
        client.write(piece);
        client.write(b"\r\n");
    }
    client.write(b"0\r\n\r\n");
    let echoed = client.answer().unwrap().text();
    assert!(echoed.ends_with(&format!("\r\n\r\n{json}")), "{echoed}");
    assert!(echoed.contains(&format!("content-length: {}\r\n", json.len())));

    // A body of unknown type and length is passed on as it comes.
    let mut client = app.connect();
    client.write(b"POST /raw HTTP/1.1\r\nhost: x\r\ncontent-type: audio/wav\r\ntransfer-encoding: chunked\r\n\r\n3\r\n\x00\xff\x01\r\n0\r\n\r\n");
    let echoed = client.answer().unwrap().body;
    assert!(echoed.ends_with(b"\r\n\r\n\x00\xff\x01"));
    assert!(memchr::memmem::find(&echoed, b"transfer-encoding: chunked").is_some());
}

#[test]
fn the_model_is_found_after_megabytes_and_in_forms() {
    let (small, large) = (
        RawEngine::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nsmall"),
        RawEngine::echo(),
    );
    let app = TestApp::with(&[(&small.url(), "small"), (&large.url(), "large")], |_| {});
    let messages = "x".repeat(5 << 20);
    let body =
        format!(r#"{{"messages":[{{"role":"user","content":"{messages}"}}],"model":"large"}}"#);
    let answer = app.chat(&body);
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with(body.as_bytes()));

    let form = format!(
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{}\r\n\
         --B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nlarge\r\n--B--\r\n",
        "y".repeat(1 << 20)
    );
    let request = |form: &str| {
        format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n\
             content-type: multipart/form-data; boundary=B\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        )
    };
    assert!(app.send(&request(&form)).body.ends_with(form.as_bytes()));
    app.send(&request(&form.replace("large", "other")))
        .assert_error(404, "model_not_found");
    // Without a model, any engine will do.
    assert_eq!(app.send(&request("--B--\r\n")).status, 200);
}

#[test]
fn heads_are_changed_only_as_a_proxy_must() {
    let engine = RawEngine::echo();
    let app = TestApp::new(&[engine.url()]);
    let answer = app.send(
        "GET /x HTTP/1.1\r\nhost: client\r\nconnection: x-hop\r\nx-hop: 1\r\n\
         authorization: Bearer k\r\nx-forwarded-for: 9.9.9.9\r\nx-multi: a\r\nx-multi: b\r\n\
         x-request-id: my-id\r\n\r\n",
    );
    assert_eq!(answer.field("x-request-id"), Some("my-id"));
    assert_eq!(answer.field("via"), Some("1.1 pilotfish"));
    let seen = answer.text();
    for line in [
        &format!("host: {}", engine.address) as &str,
        "authorization: Bearer k",
        "x-multi: a",
        "x-multi: b",
        "x-request-id: my-id",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "via: 1.1 pilotfish",
    ] {
        assert!(
            seen.contains(&format!("{line}\r\n")),
            "{line} not in {seen}"
        );
    }
    assert!(
        !seen.contains("x-hop") && !seen.contains("9.9.9.9"),
        "{seen}"
    );
    let made = app.get("/x");
    assert_eq!(made.field("x-request-id").unwrap().len(), 32);
}

#[test]
fn answers_without_bodies_stay_without() {
    for (status, head_only) in [
        ("204 No Content", false),
        ("304 Not Modified", false),
        ("200 OK", true),
    ] {
        let engine = RawEngine::answering(&format!(
            "HTTP/1.1 {status}\r\netag: e\r\ncontent-length: 7\r\n\r\n"
        ));
        let app = TestApp::new(&[engine.url()]);
        let mut client = app.connect();
        let method = if head_only { "HEAD" } else { "GET" };
        for _ in 0..2 {
            client.write(format!("{method} /x HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
            let answer = client.answer_to(head_only).unwrap();
            assert_eq!(answer.status, status[..3].parse::<u16>().unwrap());
            assert_eq!(answer.field("etag"), Some("e"));
            if head_only {
                assert_eq!(answer.field("content-length"), Some("7"));
            }
        }
        assert_eq!(app.metric("pilotfish_upstream_reuses_total") as u64, 1);
    }
}

#[test]
fn an_engines_own_error_is_untouched() {
    let body = r#"{"detail": "mine"}"#;
    let engine = RawEngine::answering(&format!(
        "HTTP/1.1 422 Unprocessable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let app = TestApp::new(&[engine.url()]);
    let answer = app.chat(r#"{"model":"m"}"#);
    assert_eq!((answer.status, answer.text().as_str()), (422, body));
}

#[test]
fn models_are_routed_and_turns_are_taken() {
    let engines = [sim("m"), sim("m"), sim("n")];
    let urls: Vec<String> = engines.iter().map(SimEngine::url).collect();
    let app = TestApp::with(&[(&urls[0], "m"), (&urls[1], "m"), (&urls[2], "n")], |_| {});
    for _ in 0..10 {
        assert_eq!(
            app.chat(r#"{"model":"m","max_tokens":1}"#).json()["model"],
            "m"
        );
    }
    assert_eq!(app.chat(r#"{"model":"n"}"#).json()["model"], "n");
    let served = |engine: &SimEngine| {
        engine
            .gauges()
            .succeeded
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    // An engine counts what it has sent, a moment after.
    eventually("every second one", || {
        [0, 1, 2].map(|at| served(&engines[at])) == [5, 5, 1]
    });
    let unknown = app.chat(r#"{"model":"nope"}"#);
    unknown.assert_error(404, "model_not_found");
    assert_eq!(
        unknown.json()["error"]["message"],
        "Model 'nope' not found. Available models can be listed at /v1/models."
    );
    assert!(app.metric(r#"pilotfish_requests_total{model="unknown",status="404"}"#) >= 1.0);
    assert!(app.metric(r#"pilotfish_requests_total{model="m",status="200"}"#) >= 10.0);
}

#[test]
fn our_own_routes_answer() {
    let (a, b) = (sim("m"), sim("n"));
    let app = TestApp::with(&[(&a.url(), "m"), (&b.url(), "n")], |_| {});
    assert_eq!(app.get("/health").text(), r#"{"status":"healthy"}"#);
    assert_eq!(app.get("/livez").status, 200);
    assert_eq!(app.get("/readyz").status, 200);
    assert_eq!(
        app.get("/version").json()["version"],
        env!("CARGO_PKG_VERSION")
    );
    let engines = app.get("/engines").json();
    for (engine, model) in [(&a, "m"), (&b, "n")] {
        let entry = (engines.as_array().unwrap().iter())
            .find(|entry| entry["engine_id"] == engine.url())
            .unwrap();
        assert_eq!(entry["serving_models"], serde_json::json!([model]));
        assert!(entry["created"].is_u64());
    }
    // The engines' own cards, whole, once they have been asked.
    crate::support::eventually("both cards", || {
        let list = app.get("/v1/models").json();
        let owners = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|card| card["owned_by"].clone());
        owners.collect::<Vec<_>>() == ["vllm", "vllm"]
    });
    let options = app.send("OPTIONS /health HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(
        (options.status, options.field("allow")),
        (204, Some("GET, HEAD, OPTIONS"))
    );
    app.send(&post("/metrics", ""))
        .assert_error(405, "method_not_allowed");
    let metrics = app.get("/metrics").text();
    for line in metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let help = format!("# HELP {} ", family.unwrap_or(name));
        assert!(metrics.contains(&help), "no HELP for {name}");
    }
}

#[test]
fn expect_100_is_answered_once_the_request_is_accepted() {
    let engine = RawEngine::echo();
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 13\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 100);
    client.write(br#"{"model":"m"}"#);
    let answer = client.answer().unwrap();
    assert_eq!(answer.status, 200);
    assert!(!answer.text().contains("expect"), "{}", answer.text());
    // A request that is refused by its head alone gets no 100.
    let mut client = app.connect();
    client.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\nexpect: 100-continue\r\ncontent-length: 13\r\n\r\n");
    client
        .answer()
        .unwrap()
        .assert_error(415, "unsupported_encoding");
}

#[test]
fn websockets_are_tunnelled_when_asked_for() {
    let engine = RawEngine::start(|mut conn| {
        let Some(head) = conn.head() else { return };
        if !head.contains("upgrade: websocket\r\n") {
            return;
        }
        conn.write("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello");
        let mut all = Vec::new();
        while all.len() < 9 {
            let mut piece = [0; 64];
            let n = std::io::Read::read(&mut conn.stream, &mut piece).unwrap();
            all.extend_from_slice(&piece[..n]);
        }
        conn.write(&format!("got {}", String::from_utf8(all).unwrap()));
    });
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(b"GET /v1/realtime HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"));
    client.until("hello");
    assert_eq!(app.in_flight(), 1, "an open tunnel is a request under way");
    client.write(b"from ");
    client.write(b"here");
    client.until("got from here");
    assert!(client.rest().is_empty());
    app.settled();
}

#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    let engine = RawEngine::answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n");
    let app = TestApp::new(&[engine.url()]);
    app.get("/x").assert_error(502, "engine_error");
}

#[test]
fn connections_to_engines_are_reused() {
    let engine = sim("m");
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    for _ in 0..200 {
        client.write(
            post(
                "/v1/completions",
                r#"{"model":"m","stream":true,"max_tokens":3}"#,
            )
            .as_bytes(),
        );
        let answer = client.answer().unwrap();
        assert!(answer.whole && answer.text().ends_with("data: [DONE]\n\n"));
    }
    assert_eq!(app.metric("pilotfish_upstream_reuses_total") as u64, 199);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let engine = RawEngine::echo();
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(client.answer().unwrap().text().starts_with("GET /1 "));
    assert!(client.answer().unwrap().text().starts_with("GET /2 "));
}
