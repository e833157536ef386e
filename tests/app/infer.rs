//! `POST /v1/infer`: a block is selected and answers, in the reference's words
//! for both; sessions stay where they are; every fault has one shape.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilotfish::sim::faults::Fault;
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine, text as sim_text};
use serde_json::{Value, json};

use crate::support::engine::RawEngine;
use crate::support::{Answer, Folder, TestApp, eventually, post, sim};

fn infer(body: &Value) -> String {
    post("/v1/infer", &body.to_string())
}

/// A request of session `s`, with these keys more.
fn chat(seq_no: u64, more: &Value) -> Value {
    let mut body = json!({
        "model": "", "session_id": "s", "seq_no": seq_no, "graph": {},
        "data": {"mode": "chat", "gen_params": {"max_tokens": 5}, "message": "Hello"},
    });
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    body
}

fn ask(app: &TestApp, body: &Value) -> Answer {
    app.send(&infer(body))
}

/// Asserts an error in this path's one shape.
#[track_caller]
fn assert_fault(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let json = answer.json();
    assert_eq!(json["success"], false, "{json}");
    assert_eq!(json["error"]["code"], code, "{json}");
    assert_eq!(json["message"], json["error"]["message"], "{json}");
    assert!(answer.field("x-request-id").is_some());
}

/// What the file says of these engines: URL, block, use case.
fn write(file: &Path, engines: &[(&str, &str, &str)]) {
    let engines: Vec<Value> = (engines.iter())
        .map(|(url, block, usecase)| {
            let component = json!({"componentMetadata": {"usecase": usecase}});
            json!({"url": url, "models": ["m"], "block": block, "metadata": component})
        })
        .collect();
    let all = json!({
        "service_discovery": "static", "routing_logic": "roundrobin", "engines": engines,
    });
    std::fs::write(file, all.to_string()).unwrap();
}

fn with_usecase(pattern: &str) -> Value {
    json!({"header": {"templateUri": "Parser/V1"}, "body": {"values": {
        "matchType": "block",
        "rankingPolicyRule": {"values": {"parameters": {"filterRule": {
            "matchType": "block",
            "filter": {"blockQuery": {"logicalOperator": "AND", "conditions": [{
                "variable": "component.componentMetadata.usecase",
                "operator": "LIKE", "value": pattern,
            }]}},
        }}}},
    }}})
}

#[test]
fn each_mode_is_answered_in_its_own_words() {
    let engine = sim(None);
    let app = TestApp::new(&[engine.url()]);
    let answer = ask(&app, &chat(11, &json!({})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert_eq!(answer.field("x-pilotfish-block"), Some("m"));
    let told = answer.json();
    assert_eq!(told["model"], "m");
    assert_eq!(told["session_id"], "s");
    assert_eq!(told["seq_no"], 11);
    assert!(told["ts"].as_f64().unwrap() > 1.7e9);
    assert_eq!(told["data"]["reply"], sim_text(5));
    assert_eq!(told["data"]["usage"]["completion_tokens"], 5);
    assert!(told.get("warnings").is_none(), "{told}");
    for (data, key) in [
        (
            json!({"messages": [{"role": "user", "content": "a"}]}),
            "reply",
        ),
        (json!({"prompt": "a"}), "generated"),
        (json!({"mode": "generate", "prompt": "a"}), "generated"),
        (json!({"mode": "tokens", "text": "a b c d e"}), "tokens"),
        (json!({"text": "a"}), "embedding"),
    ] {
        for model in ["", "m"] {
            let body = chat(1, &json!({"data": data, "model": model}));
            let answer = ask(&app, &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let told = answer.json();
            assert!(!told["data"][key].is_null(), "{told}");
            assert_eq!(told["model"], "m");
            let sticky = answer.field("x-pilotfish-sticky");
            assert_eq!(sticky.is_some(), model.is_empty());
        }
    }
    let answer = ask(&app, &chat(1, &json!({"frame_ptr": ""})));
    assert_eq!(
        answer.json()["warnings"],
        json!(["/frame_ptr has no effect"])
    );
    app.settled();
    let counted = app.metric("pilotfish_requests_total{model=\"m\",status=\"200\"");
    assert_eq!(counted as u64, 12);
}

#[test]
fn the_engine_gets_a_request_of_its_own_api() {
    let engine = RawEngine::echo();
    let app = TestApp::new(&[engine.url()]);
    let fields = "host: x\r\naccept-encoding: gzip\r\nx-own: 1\r\ncontent-encoding: identity";
    let raw = infer(&chat(1, &json!({"selection_query": {"goals": []}})));
    let raw = raw.replacen("host: x", fields, 1);
    let raw = raw.replacen("application/json", "text/plain", 1);
    let raw = raw.replacen("/v1/infer", "/v1/infer?id=7", 1);
    // What comes back is no answer, and is not quoted.
    assert_fault(&app.send(&raw), 502, "engine_error");
    let seen = Arc::new(Mutex::new(None));
    let take = Arc::clone(&seen);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(request) = conn.request() {
            if request.head.starts_with("POST") {
                *take.lock().unwrap() = Some(request);
            }
            conn.json(r#"{"choices":[{"message":{"content":"hi"}}]}"#);
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let answer = app.send(&raw);
    assert_eq!(answer.json()["data"], json!({"reply": "hi"}));
    let seen = seen.lock().unwrap().take().unwrap();
    let line = "POST /v1/chat/completions HTTP/1.1\r\n";
    assert!(seen.head.starts_with(line), "{}", seen.head);
    assert_eq!(seen.field("content-type").unwrap(), "application/json");
    assert_eq!(seen.field("x-own").unwrap(), "1");
    for gone in ["accept-encoding", "content-encoding", "x-pilotfish-select"] {
        assert_eq!(seen.field(gone), None);
    }
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    let expected = json!({
        "model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5,
    });
    assert_eq!(body, expected);
}

#[test]
fn a_stream_ends_with_its_marker() {
    let engine = sim(None);
    let app = TestApp::new(&[engine.url()]);
    for body in [
        chat(1, &json!({"stream": true})),
        chat(
            2,
            &json!({"data": {"prompt": "a", "stream": true, "gen_params": {"max_tokens": 5}}}),
        ),
    ] {
        let answer = ask(&app, &body);
        assert_eq!(
            (answer.status, answer.whole),
            (200, true),
            "{}",
            answer.text()
        );
        let kind = answer.field("content-type").unwrap();
        assert!(kind.starts_with("text/event-stream"), "{kind}");
        assert_eq!(answer.field("x-pilotfish-block"), Some("m"));
        let text = answer.text();
        let events: Vec<Value> = (text.split_terminator("\n\n"))
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect();
        let deltas: Vec<&str> = (events.iter())
            .map(|event| event["delta"].as_str().unwrap())
            .collect();
        let (last, words) = deltas.split_last().unwrap();
        assert_eq!(*last, "[END_OF_STREAM]");
        assert_eq!(words.len(), 5);
        assert_eq!(words.concat(), sim_text(5));
    }
    app.settled();
    // The connection was left as it should be.
    assert_eq!(
        app.metric("pilotfish_time_to_first_token_seconds_count") as u64,
        2
    );
    let answer = ask(
        &app,
        &chat(1, &json!({"stream": true, "data": {"text": "a"}})),
    );
    assert_fault(&answer, 400, "invalid_value");
}

/// What the client gets of a stream that breaks off.
fn cut(fault: Fault) -> Answer {
    let engine = sim(Some(fault));
    let app = TestApp::new(&[engine.url()]);
    let answer = ask(&app, &chat(1, &json!({"stream": true})));
    app.settled();
    // The session's request is not under way any more.
    engine.set_fault(None);
    assert_ne!(ask(&app, &chat(1, &json!({}))).status, 409);
    answer
}

#[test]
fn a_stream_that_breaks_off_has_no_end() {
    for fault in [
        Fault::ResetAfter(2),
        Fault::TruncateAfter(2),
        Fault::GarbageAfter(2),
    ] {
        let answer = cut(fault);
        let text = answer.text();
        assert!(!answer.whole && answer.status == 200, "{text}");
        assert_eq!(text.matches("{\"delta\":").count(), 2, "{text}");
        assert_eq!(text.matches("data: {\"error\":{").count(), 1, "{text}");
        assert!(!text.contains("END_OF_STREAM"), "{text}");
    }
}

#[test]
fn a_session_keeps_its_block_while_it_suits() {
    let engines = [sim(None), sim(None), sim(None)];
    let urls: Vec<String> = engines.iter().map(SimEngine::url).collect();
    let blocks = ["b0", "b1", "b2"];
    let all: Vec<(&str, &str, &str)> = (urls.iter().zip(blocks))
        .map(|(url, block)| (url.as_str(), block, "chat-completion, x"))
        .collect();
    let folder = Folder::new("infer-sessions");
    let file = folder.path("dynamic.json");
    write(&file, &all);
    let app = TestApp::from_file(&file);
    let query = with_usecase("*chat*");
    let told = |session: &str, query: &Value| {
        let body = chat(1, &json!({"session_id": session, "selection_query": query}));
        let answer = ask(&app, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let block = answer.field("x-pilotfish-block").unwrap().to_owned();
        assert_eq!(answer.json()["model"], block.as_str());
        (
            block,
            answer.field("x-pilotfish-sticky").unwrap().to_owned(),
        )
    };
    let (block, sticky) = told("s", &query);
    assert_eq!(sticky, "miss");
    for _ in 0..8 {
        assert_eq!(told("s", &query), (block.clone(), "hit".to_owned()));
    }
    // The order of keys does not make another query; another filter does.
    let text = query.to_string().replace(":", " : ");
    let same: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told("s", &same).1, "hit");
    assert_eq!(told("s", &with_usecase("*completion*")).1, "rebound");
    assert_eq!(told("s", &query), (block.clone(), "hit".to_owned()));
    assert_eq!(told("t", &query).1, "miss");
    // Its block is gone.
    let left: Vec<(&str, &str, &str)> = (all.iter())
        .filter(|(_, name, _)| *name != block)
        .copied()
        .collect();
    write(&file, &left);
    eventually("another block", || told("s", &query).1 == "rebound");
    let (other, sticky) = told("s", &query);
    assert_eq!(sticky, "hit");
    assert_ne!(other, block);
}

#[test]
fn a_block_that_does_not_answer_is_left() {
    let (bad, good) = (sim(Some(Fault::ResetBeforeHead)), sim(None));
    let urls = [bad.url(), good.url()];
    let folder = Folder::new("infer-left");
    let file = folder.path("dynamic.json");
    write(
        &file,
        &[(&urls[0], "bad", "chat"), (&urls[1], "good", "chat")],
    );
    let app = TestApp::from_file(&file);
    let mut last = None;
    eventually("both blocks", || {
        let answer = ask(&app, &chat(1, &json!({})));
        let block = answer.field("x-pilotfish-block").unwrap().to_owned();
        let sticky = answer.field("x-pilotfish-sticky").unwrap().to_owned();
        assert_eq!(answer.status == 200, block == "good", "{}", answer.text());
        // It is never told that it had the one that failed.
        assert!(block == "good" || sticky != "hit");
        let before = last.replace(block.clone());
        block == "good" && before.as_deref() == Some("bad") || sticky == "hit"
    });
}

#[test]
fn a_session_leaves_a_block_that_does_not_match_any_more() {
    let engines = [sim(None), sim(None)];
    let urls: Vec<String> = engines.iter().map(SimEngine::url).collect();
    let folder = Folder::new("infer-filter");
    let file = folder.path("dynamic.json");
    write(&file, &[(&urls[0], "a", "chat"), (&urls[1], "b", "code")]);
    let app = TestApp::from_file(&file);
    let told = || {
        let body = chat(1, &json!({"selection_query": with_usecase("chat")}));
        let answer = ask(&app, &body);
        let field = |name: &str| answer.field(name).unwrap_or_default().to_owned();
        (field("x-pilotfish-block"), field("x-pilotfish-sticky"))
    };
    assert_eq!(told(), ("a".to_owned(), "miss".to_owned()));
    assert_eq!(told(), ("a".to_owned(), "hit".to_owned()));
    write(&file, &[(&urls[0], "a", "code"), (&urls[1], "b", "chat")]);
    let moved = ("b".to_owned(), "rebound".to_owned());
    eventually("the other block", || told() == moved);
    let none = chat(2, &json!({"selection_query": with_usecase("nothing")}));
    assert_fault(&ask(&app, &none), 404, "no_match");
}

#[test]
fn a_block_or_a_model_is_named_without_a_search() {
    let engines = [sim(None), sim(None)];
    let urls: Vec<String> = engines.iter().map(SimEngine::url).collect();
    let folder = Folder::new("infer-named");
    let file = folder.path("dynamic.json");
    write(&file, &[(&urls[0], "a", "chat"), (&urls[1], "b", "chat")]);
    let app = TestApp::from_file(&file);
    for (model, expected) in [("a", &urls[..1]), ("b", &urls[1..]), ("m", &urls[..])] {
        for seq_no in 0..4 {
            // A selection does not matter, nor whether it makes sense.
            let body = chat(seq_no, &json!({"model": model, "selection_query": 7}));
            let raw = infer(&body).replacen("host: x", "host: x\r\nx-pilotfish-explain: 1", 1);
            let answer = app.send(&raw);
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["model"], model);
            let engine = answer.field("x-pilotfish-engine").unwrap().to_owned();
            assert!(expected.contains(&engine), "{model}: {engine}");
            assert_eq!(answer.field("x-pilotfish-sticky"), None);
        }
    }
    let answer = ask(&app, &chat(1, &json!({"model": "c"})));
    assert_fault(&answer, 404, "model_not_found");
}

#[test]
fn a_request_is_under_way_once() {
    let engine = RawEngine::start(|mut conn| {
        if (conn.request()).is_some_and(|seen| !seen.head.starts_with("GET")) {
            conn.stream_head();
            conn.chunk("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
            conn.closed();
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(infer(&chat(7, &json!({"stream": true}))).as_bytes());
    client.until("\r\n\r\n");
    let answer = ask(&app, &chat(7, &json!({"stream": true})));
    assert_fault(&answer, 409, "duplicate_request");
    assert!(answer.json()["message"].as_str().unwrap().contains('7'));
    // A client that leaves ends it, too.
    drop(client);
    app.settled();
    eventually("it is over", || {
        ask(&app, &chat(7, &json!({"model": "none"}))).status == 404
    });
}

#[test]
fn mistakes_are_told_in_one_shape() {
    let engine = sim(None);
    let app = TestApp::new(&[engine.url()]);
    for (more, status, code, said) in [
        (
            json!({"session_id": null}),
            400,
            "invalid_value",
            "/session_id",
        ),
        (json!({"seq_no": "11"}), 400, "invalid_value", "/seq_no"),
        (json!({"seq_no": -1}), 400, "invalid_value", "/seq_no"),
        (json!({"data": {}}), 400, "invalid_value", "/data"),
        (json!({"data": "x"}), 400, "invalid_value", "/data"),
        (
            json!({"graph": {"a": ["b"]}}),
            501,
            "not_implemented",
            "/graph",
        ),
        (json!({"model": "no"}), 404, "model_not_found", "'no'"),
    ] {
        let answer = ask(&app, &chat(1, &more));
        assert_fault(&answer, status, code);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(said), "{message}");
    }
    assert_fault(&app.send(&post("/v1/infer", "{")), 400, "invalid_json");
    assert_fault(&app.send(&post("/v1/infer", "")), 400, "invalid_json");
    let encoded = infer(&chat(1, &json!({})));
    let encoded = encoded.replacen("host: x", "host: x\r\ncontent-encoding: gzip", 1);
    assert_fault(&app.send(&encoded), 415, "unsupported_encoding");
    let field = infer(&chat(1, &json!({})));
    let field = field.replacen("host: x", "host: x\r\nx-pilotfish-timeout-ms: soon", 1);
    assert_fault(&app.send(&field), 400, "invalid_header");
    let answer = app.get("/v1/infer");
    assert_fault(&answer, 405, "method_not_allowed");
    assert_eq!(answer.field("allow"), Some("POST, OPTIONS"));
    let answer = app.send("OPTIONS /v1/infer HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(
        (answer.status, answer.field("allow")),
        (204, Some("POST, OPTIONS"))
    );
    app.settled();
    let counted = app.metric("pilotfish_refusals_total{reason=\"invalid_json\"");
    assert_eq!(counted as u64, 2);
}

#[test]
fn bodies_are_bounded() {
    let engine = sim(None);
    let app = TestApp::with(&[(&engine.url(), "m")], |config| {
        config.settings.limits.max_peek_bytes = 1000;
    });
    let long = chat(1, &json!({"data": {"message": "x".repeat(1000)}}));
    assert_fault(&ask(&app, &long), 413, "request_too_large");
    let mut client = app.connect();
    client.write(b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    client.write(format!("3e9\r\n{}\r\n", "x".repeat(1001)).as_bytes());
    assert_fault(&client.answer().unwrap(), 413, "request_too_large");
}

#[test]
fn answers_are_bounded() {
    let engine = RawEngine::start(|mut conn| {
        while let Some(seen) = conn.request() {
            let text = "x".repeat(17 << 20);
            if seen.head.starts_with("GET") {
                return;
            } else if String::from_utf8_lossy(&seen.body).contains("\"stream\":true") {
                conn.stream_head();
                conn.chunk("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
                conn.chunk(&format!("data: {}", &text[..2 << 20]));
                conn.closed();
            } else {
                conn.json(&text);
            }
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let answer = ask(&app, &chat(1, &json!({})));
    assert_fault(&answer, 502, "engine_error");
    let answer = ask(&app, &chat(1, &json!({"stream": true})));
    let text = answer.text();
    assert!(!answer.whole && text.starts_with("data: {\"delta\":\"a\"}\n\n"));
    assert!(
        text.contains("data: {\"error\":") && text.len() < 1000,
        "{text}"
    );
    app.settled();
}

#[test]
fn an_engines_errors_are_passed_on() {
    let engine = sim(Some(Fault::Status(429)));
    let app = TestApp::new(&[engine.url()]);
    for stream in [false, true] {
        let answer = ask(&app, &chat(1, &json!({"stream": stream})));
        assert_eq!(answer.status, 429, "{}", answer.text());
        let told = answer.json();
        assert_eq!(told["success"], false);
        assert!(
            told["message"].is_string() && told["error"].is_object(),
            "{told}"
        );
    }
    let engine = sim(Some(Fault::ResetBeforeHead));
    let app = TestApp::new(&[engine.url()]);
    assert_fault(&ask(&app, &chat(1, &json!({}))), 502, "engine_error");
    let engine = RawEngine::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
    let app = TestApp::new(&[engine.url()]);
    assert_fault(&ask(&app, &chat(1, &json!({}))), 502, "engine_error");
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 20\r\nconnection: close\r\n\r\n{\"a\":";
    let engine = RawEngine::start(move |mut conn| {
        if conn.request().is_some() {
            conn.write(broken);
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let answer = ask(&app, &chat(1, &json!({})));
    assert!(answer.whole);
    assert_fault(&answer, 502, "engine_error");
    app.settled();
}

#[test]
fn as_in_the_reference_every_error_may_be_a_200() {
    let engine = sim(None);
    let backend = format!("--static-backends={}", engine.url());
    let app = TestApp::from_flags(&[
        "--service-discovery=static",
        &backend,
        "--static-models=m",
        "--routing-logic=roundrobin",
        "--aios-compat-errors",
    ]);
    assert_eq!(ask(&app, &chat(1, &json!({}))).status, 200);
    assert_fault(
        &ask(&app, &chat(1, &json!({"seq_no": "1"}))),
        200,
        "invalid_value",
    );
    assert_fault(
        &ask(&app, &chat(1, &json!({"model": "no"}))),
        200,
        "model_not_found",
    );
    assert_fault(&app.get("/v1/infer"), 200, "method_not_allowed");
    engine.set_fault(Some(Fault::Status(400)));
    let answer = ask(&app, &chat(1, &json!({})));
    assert_eq!(
        (answer.status, &answer.json()["success"]),
        (200, &json!(false))
    );
    // Only here.
    assert_eq!(app.chat("{}").status, 400);
}

#[test]
fn a_client_that_leaves_aborts_the_engine() {
    for stream in [false, true] {
        let speed = Speed {
            itl: Duration::from_millis(5),
            ..Speed::instant()
        };
        let engine = SimEngine::start(SimConfig::new("m", speed)).unwrap();
        let app = TestApp::new(&[engine.url()]);
        let data = json!({"message": "a", "gen_params": {"max_tokens": 10_000}});
        let body = chat(1, &json!({"stream": stream, "data": data}));
        let mut client = app.connect();
        client.write(infer(&body).as_bytes());
        if stream {
            client.until("{\"delta\":");
        }
        let gauges = engine.gauges();
        eventually("it runs", || gauges.running.load(SeqCst) == 1);
        drop(client);
        eventually("the engine's abort", || gauges.aborted.load(SeqCst) == 1);
        app.settled();
        // Its number is free again.
        engine.set_fault(Some(Fault::Status(400)));
        eventually("it is over", || {
            ask(&app, &chat(1, &json!({}))).status == 400
        });
    }
}

#[test]
fn a_slow_client_slows_the_engine() {
    const MOST: usize = 256 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let engine = RawEngine::start(move |mut conn| {
        if (conn.request()).is_none_or(|seen| seen.head.starts_with("GET")) {
            return;
        }
        let patience = Some(Duration::from_millis(500));
        conn.stream.set_write_timeout(patience).unwrap();
        conn.stream_head();
        let text = "x".repeat(0x1000);
        let event = format!(r#"data: {{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#);
        let event = format!("{event}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        while count.load(SeqCst) < MOST {
            if std::io::Write::write_all(&mut conn.stream, chunk.as_bytes()).is_err() {
                return;
            }
            count.fetch_add(chunk.len(), SeqCst);
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let mut client = app.connect();
    client.write(infer(&chat(1, &json!({"stream": true}))).as_bytes());
    client.until("\r\n\r\n");
    eventually("the engine stops", || {
        let before = sent.load(SeqCst);
        std::thread::park_timeout(Duration::from_millis(700));
        before > 0 && before == sent.load(SeqCst)
    });
    assert!(sent.load(SeqCst) < 64 << 20, "{} bytes", sent.load(SeqCst));
    drop(client);
    app.settled();
}

/// An engine that answers each POST with this, head and all.
fn answering(answer: String) -> RawEngine {
    RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET") {
                return;
            }
            conn.write(&answer);
        }
    })
}

#[test]
fn what_is_compressed_is_not_passed_on_nor_what_speaks_of_the_engines_body() {
    let fields = "etag: x\r\nlast-modified: x\r\ncontent-md5: x\r\ndigest: x\r\n\
        repr-digest: x\r\naccept-ranges: bytes\r\ncontent-disposition: inline\r\nx-own: 1\r\n";
    let body = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n";
    for stream in [false, true] {
        let kind = if stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        let body = if stream {
            body
        } else {
            r#"{"choices":[{"text":"a"}]}"#
        };
        for (encoding, status) in [("gzip", 502), ("identity", 200)] {
            let engine = answering(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-encoding: {encoding}\r\n\
                 {fields}content-length: {}\r\n\r\n{body}",
                body.len()
            ));
            let app = TestApp::new(&[engine.url()]);
            let asked = json!({"stream": stream, "data": {"prompt": "a"}});
            let answer = ask(&app, &chat(1, &asked));
            if status == 502 {
                assert_fault(&answer, 502, "engine_error");
                continue;
            }
            assert_eq!((answer.status, answer.field("x-own")), (200, Some("1")));
            for field in fields.lines().chain(["content-encoding: x"]) {
                let (name, _) = field.split_once(':').unwrap();
                assert_eq!(answer.field(name).is_some(), name == "x-own", "{name}");
            }
        }
    }
}

#[test]
fn a_compressed_error_keeps_its_status() {
    let engine = answering(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}"
            .to_owned(),
    );
    let app = TestApp::new(&[engine.url()]);
    let answer = ask(&app, &chat(1, &json!({})));
    assert_eq!(answer.status, 429, "{}", answer.text());
    assert_eq!(answer.json()["error"]["type"], "upstream_error");
    app.settled();
}

#[test]
fn an_error_without_end_is_read_no_further() {
    let text = "x".repeat(1 << 20);
    let engine = answering(format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-length: {}\r\n\r\n{text}",
        text.len() * 2
    ));
    let app = TestApp::new(&[engine.url()]);
    let answer = ask(&app, &chat(1, &json!({})));
    assert_eq!(answer.status, 400, "{}", answer.text());
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "The engine answered with status 400.");
    app.settled();
}

#[test]
fn a_stream_that_cannot_be_understood_aborts_the_engine() {
    let aborted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&aborted);
    let engine = RawEngine::start(move |mut conn| {
        if (conn.request()).is_none_or(|seen| seen.head.starts_with("GET")) {
            return;
        }
        conn.stream_head();
        conn.chunk("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
        conn.chunk("data: no JSON\n\n");
        // It would go on for ever.
        conn.closed();
        count.fetch_add(1, SeqCst);
    });
    let app = TestApp::new(&[engine.url()]);
    let answer = ask(&app, &chat(1, &json!({"stream": true})));
    let text = answer.text();
    assert!(!answer.whole, "{text}");
    assert!(text.contains("cannot be understood"), "{text}");
    eventually("the engine's abort", || aborted.load(SeqCst) == 1);
    app.settled();
}

#[test]
fn a_cut_is_told_of_in_the_stream_only_where_that_is_wanted() {
    for told in [true, false] {
        let engine = RawEngine::start(|mut conn| {
            while let Some(seen) = conn.request() {
                if seen.head.starts_with("GET") {
                    return;
                }
                conn.stream_head();
                conn.chunk("data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
                conn.write("0\r\n\r\n");
            }
        });
        let app = TestApp::with(&[(&engine.url(), "m")], |config| {
            config.settings.stream_error_events = told;
        });
        let answer = ask(&app, &chat(1, &json!({"stream": true})));
        let text = answer.text();
        assert!(
            !answer.whole && text.starts_with("data: {\"delta\":\"a\"}\n\n"),
            "{text}"
        );
        assert_eq!(text.contains("{\"error\":"), told, "{text}");
        assert!(!text.contains("END_OF_STREAM"), "{text}");
        app.settled();
    }
}

#[test]
fn a_block_that_breaks_off_in_the_middle_is_left() {
    let bad = sim(Some(Fault::ResetAfter(2)));
    let good = sim(None);
    let urls = [bad.url(), good.url()];
    let folder = Folder::new("infer-breaks-off");
    let file = folder.path("dynamic.json");
    write(
        &file,
        &[(&urls[0], "bad", "chat"), (&urls[1], "good", "chat")],
    );
    let app = TestApp::from_file(&file);
    let ask = |stream: bool, session: &str| {
        let more = json!({"stream": stream, "session_id": session});
        let answer = ask(&app, &chat(1, &more));
        let field = |name: &str| answer.field(name).unwrap().to_owned();
        (field("x-pilotfish-block"), field("x-pilotfish-sticky"))
    };
    for stream in [false, true] {
        let mut n = 0;
        eventually("a session that is given the bad one", || {
            n += 1;
            ask(stream, &format!("{stream} {n}")).0 == "bad"
        });
        assert_eq!(ask(stream, &format!("{stream} {n}")).1, "rebound");
    }
}

#[test]
fn errors_of_the_selection_have_their_place_in_the_request() {
    let engine = sim(None);
    let app = TestApp::new(&[engine.url()]);
    let filter = json!({"filter": {"variable": "id", "operator": "~", "value": 1}});
    for (selection, pointer) in [
        (filter, " /selection_query/filter/operator: "),
        (json!(7), " /selection_query: "),
        (json!("x".repeat(70_000)), " /selection_query: "),
    ] {
        let more = json!({"selection_query": selection});
        let answer = ask(&app, &chat(1, &more));
        assert_fault(&answer, 400, "invalid_selection");
        let told = answer.json();
        assert_eq!(told["error"]["param"], "selection_query");
        let message = told["message"].as_str().unwrap();
        assert!(message.contains(pointer), "{message}");
        let mut body = more;
        body["model"] = json!("auto");
        let plain = app.chat(&body.to_string()).json();
        let plain = plain["error"]["message"].as_str().unwrap().to_owned();
        assert!(plain.contains(pointer), "{plain}");
    }
}

#[test]
fn selections_need_no_leave_and_what_has_no_effect_is_told() {
    let engine = sim(None);
    let folder = Folder::new("infer-leave");
    let file = folder.path("dynamic.json");
    let all = json!({
        "service_discovery": "static", "routing_logic": "roundrobin",
        "engines": [{"url": engine.url(), "models": ["m"]}],
        "request_headers": {"allow": ["explain"]},
    });
    std::fs::write(&file, all.to_string()).unwrap();
    let app = TestApp::from_file(&file);
    let selection = json!({"filter": {"variable": "id", "operator": "==", "value": "m"},
        "parameters": {"METRICS_BASE_URL": "http://x"}});
    let answer = ask(&app, &chat(1, &json!({"selection_query": selection})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    let warning = told["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("METRICS_BASE_URL"), "{told}");
    let named = json!({"selection_query": selection, "model": "m"});
    let told = ask(&app, &chat(1, &named)).json();
    let expected = json!(["/selection_query has no effect: model is given"]);
    assert_eq!(told["warnings"], expected);
    // Elsewhere they need it.
    let body = json!({"model": "auto", "selection_query": selection});
    assert_eq!(app.chat(&body.to_string()).status, 400);
}

#[test]
fn tokens_are_asked_for_in_the_words_of_two_engines() {
    let seen = Arc::new(Mutex::new(None));
    let take = Arc::clone(&seen);
    let engine = RawEngine::start(move |mut conn| {
        while let Some(request) = conn.request() {
            if request.head.starts_with("POST /tokenize ") {
                *take.lock().unwrap() = Some(request);
            }
            conn.json(r#"{"tokens":[1,2]}"#);
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let data = json!({"mode": "tokens", "text": "a b"});
    let answer = ask(&app, &chat(1, &json!({"data": data})));
    assert_eq!(answer.json()["data"], json!({"tokens": [1, 2]}));
    let seen = seen.lock().unwrap().take().unwrap();
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    // vLLM reads the first, llama.cpp the second.
    assert_eq!(
        body,
        json!({"model": "m", "prompt": "a b", "content": "a b"})
    );
}
