//! The reference's ad-hoc requests, as its document writes them, before engines
//! that have told what is asked after real traffic.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::{Value, json};

use crate::support::{Answer, Folder, TestApp, eventually, post};

/// What the document's Python sends, byte for byte what it makes of it.
const PAYLOAD: &str = include_str!("../fixtures/aios-adhoc.json");

fn component(tags: &[&str], mmlu: f64, quantized: bool) -> Value {
    json!({"tags": tags, "componentMetadata": {
        "usecase": "chat-completion, text-generation",
        "framework": "llama-cpp-python", "supports_quantization": quantized,
        "capabilities": {"supportsStreaming": true},
        "evaluation": {"benchmarks": {
            "MMLU": {"metric": "accuracy", "value": mmlu},
            "ARC-Challenge": {"metric": "accuracy", "value": 71.0},
        }},
    }})
}

/// A block of one engine each, read every second.
fn app(name: &str, blocks: &[(&str, &SimEngine, Value)], more: &Value) -> TestApp {
    let engines = blocks.iter().map(|(block, engine, metadata)| {
        json!({"url": engine.url(), "models": ["m"], "block": block, "metadata": metadata})
    });
    let mut keys = json!({
        "service_discovery": "static", "routing_logic": "roundrobin",
        "engines": engines.collect::<Vec<_>>(),
    });
    keys.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let folder = Folder::new(name);
    let file = folder.path("dynamic.json");
    std::fs::write(&file, keys.to_string()).unwrap();
    TestApp::from_flags(&[
        "--engine-stats-interval=1s",
        "--dynamic-config-json",
        file.to_str().unwrap(),
    ])
}

/// An engine that takes prompts at once and 5 ms for a token.
fn engine() -> SimEngine {
    let speed = Speed {
        itl: Duration::from_millis(5),
        ..Speed::instant()
    };
    SimEngine::start(SimConfig::new("m", speed)).unwrap()
}

fn chat(tokens: u32, prompt: &str) -> String {
    let body = json!({"model": "m", "max_tokens": tokens,
        "messages": [{"role": "user", "content": prompt}]});
    post("/v1/chat/completions", &body.to_string())
}

fn infer(app: &TestApp, payload: &Value) -> Answer {
    app.send(&post("/v1/infer", &payload.to_string()))
}

#[test]
fn the_documents_payload_is_answered_as_it_is_written() {
    let engines = [engine(), engine()];
    let blocks = [
        ("blk-weak", &engines[0], component(&[], 58.1, true)),
        ("blk-strong", &engines[1], component(&[], 82.3, true)),
    ];
    let app = app("adhoc-payload", &blocks, &json!({}));
    let payload: Value = serde_json::from_str(PAYLOAD).unwrap();
    // Nobody has told how quick it is.
    let answer = infer(&app, &payload);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["error"]["code"], "no_match_now");
    let mut answered = None;
    eventually("the engines' speed is known", || {
        assert_eq!(app.send(&chat(40, "Hello")).status, 200);
        let answer = app.send(&post("/v1/infer", PAYLOAD));
        let is_there = answer.status == 200;
        answered = is_there.then_some(answer);
        is_there
    });
    let answer = answered.unwrap();
    let told = answer.json();
    assert_eq!(told["model"], "blk-strong", "{told}");
    assert_eq!(
        (&told["session_id"], &told["seq_no"]),
        (&json!("session-1257"), &json!(11))
    );
    assert!(
        !told["data"]["reply"].as_str().unwrap().is_empty(),
        "{told}"
    );
    assert_eq!(answer.field("x-pilotfish-sticky"), Some("miss"));
    assert_eq!(
        infer(&app, &payload).field("x-pilotfish-sticky"),
        Some("hit")
    );
}

/// What the document says in prose: a multi-modal block, quick in taking its
/// input, and busy.
#[test]
fn so_is_the_query_that_its_prose_describes() {
    let engines = [engine(), engine(), engine()];
    let blocks = [
        ("blk-text", &engines[0], component(&["text"], 82.0, true)),
        (
            "blk-seeing",
            &engines[1],
            component(&["text", "multi-modal"], 40.0, true),
        ),
        (
            "blk-whole",
            &engines[2],
            component(&["multi-modal"], 82.0, false),
        ),
    ];
    // What an engine of vLLM's words takes of prompts in a second.
    let attributes = json!({"attributes": {
        "on_preprocess_fps": {"metric": "vllm:prompt_tokens_total", "rate": true},
    }});
    let app = app("adhoc-prose", &blocks, &attributes);
    let is = |variable: &str, value: Value| json!({"variable": format!("component.{variable}"), "operator": "==", "value": value});
    let filter = json!({
        "blockQuery": {"logicalOperator": "AND", "conditions": [
            is("componentMetadata.framework", json!("llama-cpp-python")),
            is("componentMetadata.supports_quantization", json!(true)),
            is("tags", json!("multi-modal")),
        ]},
        "blockMetricsQuery": {"logicalOperator": "AND", "conditions": [
            {"aggOperator": "avg", "target": "instances.on_preprocess_fps", "operator": ">", "value": 8000},
            {"aggOperator": "max", "target": "instances.llm_active_sessions", "operator": ">=", "value": 5},
        ]},
    });
    let payload = json!({
        "model": "", "session_id": "s", "seq_no": 1, "graph": {},
        "data": {"mode": "chat", "message": "What is in the picture?", "gen_params": {"max_tokens": 3}},
        "selection_query": {"body": {"values": {"rankingPolicyRule": {"values": {
            "policyRuleURI": "attributebasedrouter:2.0-stable",
            "parameters": {"filterRule": {"matchType": "block", "filter": filter}},
        }}}}},
    });
    let answer = infer(&app, &payload);
    assert_eq!(answer.status, 503, "{}", answer.text());
    let stop = AtomicBool::new(false);
    // Eight clients with long prompts for each engine.
    let prompt = "A long story. ".repeat(3000);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    app.send(&chat(60, &prompt));
                }
            });
        }
        eventually("the seeing one is busy", || {
            let answer = infer(&app, &payload);
            let is_there = answer.status == 200;
            if is_there {
                assert_eq!(answer.json()["model"], "blk-seeing", "{}", answer.text());
            }
            is_there
        });
        stop.store(true, SeqCst);
    });
}
