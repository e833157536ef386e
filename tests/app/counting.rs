//! What is counted of a request, and under which name.

use crate::support::engine::RawEngine;
use crate::support::{TestApp, eventually, post};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};

#[test]
fn only_streams_have_first_tokens_and_gaps() {
    let big = "x".repeat(2 << 20);
    let engine = RawEngine::start(move |mut conn| {
        while conn.request().is_some() {
            conn.json(&format!("{{\"data\":\"{big}\"}}"));
        }
    });
    let app = TestApp::new(&[engine.url()]);
    let body = r#"{"model":"m","input":"x"}"#;
    assert_eq!(app.send(&post("/v1/embeddings", body)).status, 200);
    app.settled();
    let page = app.get("/metrics").text();
    let count = "pilotfish_request_duration_seconds_count{model=\"m\"} 1\n";
    assert!(page.contains(count), "{page}");
    for name in [
        "pilotfish_inter_token_latency_seconds",
        "pilotfish_time_to_first_token_seconds",
    ] {
        assert!(!page.contains(&format!("{name}_count")), "{name}\n{page}");
    }
}

#[test]
fn a_client_that_leaves_while_it_sends_is_counted() {
    let sim = SimEngine::start(SimConfig::new("m", Speed::instant())).unwrap();
    let app = TestApp::new(&[sim.url()]);
    for _ in 0..3 {
        let mut client = app.connect();
        client.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{");
    }
    eventually("each is counted", || {
        let page = app.get("/metrics").text();
        page.contains("pilotfish_requests_total{model=\"unknown\",status=\"499\"} 3\n")
    });
    let in_flight = app.metric("pilotfish_requests_in_flight{model=\"unknown\"}");
    assert_eq!(in_flight, 0.0);
}

#[test]
fn an_error_that_names_a_known_model_is_counted_as_its() {
    let sim = SimEngine::start(SimConfig::new("m", Speed::instant())).unwrap();
    let url = sim.url();
    let app = TestApp::with(&[(&url, "m")], |_| {});
    drop(sim);
    let body = r#"{"model":"m","max_tokens":1,"messages":[]}"#;
    eventually("it is unavailable at once", || app.chat(body).status == 503);
    let incoming = app.metric("vllm:num_incoming_requests_total{model=\"m\"}");
    assert!(incoming >= 1.0);
    assert_eq!(
        app.metric("vllm:num_incoming_requests_total{model=\"unknown\"}"),
        0.0
    );
}
