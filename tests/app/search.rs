//! `/api/search` and `/api/filter` through the whole app: shapes, choices, reasons,
//! and what is refused.

use crate::support::engine::RawEngine;
use crate::support::{Answer, Folder, TestApp, eventually, post};
use serde_json::{Value, json};

/// An engine that tells so many running sequences, and so many that wait.
fn engine(running: u32, waiting: u32) -> RawEngine {
    RawEngine::start(move |mut conn| {
        while let Some(seen) = conn.request() {
            if seen.head.starts_with("GET /metrics ") {
                let page = format!(
                    "vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n"
                );
                let length = page.len();
                conn.write(&format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{page}"
                ));
            } else {
                conn.write("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            }
        }
    })
}

fn metadata(use_case: &str, mmlu: f64) -> Value {
    json!({
        "componentType": "model",
        "componentId": {"name": "x", "version": "1.0", "releaseTag": "stable"},
        "componentMetadata": {
            "usecase": use_case,
            "evaluation": {"benchmarks": {"MMLU": {"metric": "accuracy", "value": mmlu}}},
        },
        "tags": ["text"],
    })
}

/// Two blocks for chats, the large one of two engines, and one for code; of the
/// small one nothing is known.
struct Rig {
    app: TestApp,
    _engines: Vec<RawEngine>,
}

impl Rig {
    fn new(name: &str, keys: Value) -> Self {
        let engines = vec![engine(4, 1), engine(2, 1), engine(1, 0)];
        let entry = |url: String, block: &str, metadata: Value| {
            json!({
                "url": url, "models": [format!("{block}-model")], "block": block,
                "metadata": metadata, "region": "eu", "labels": {"cluster": "c1"},
            })
        };
        let mut all = json!({
            "service_discovery": "static", "routing_logic": "leastload",
            "policies": {
                "keen": {
                    "type": "scored",
                    "goals": [{"attribute": "componentMetadata.evaluation.benchmarks.MMLU.value",
                        "direction": "max"}],
                },
                "even": {"type": "roundrobin"},
            },
            "engines": [
                entry(engines[0].url(), "chat-large", metadata("chat-completion, multi-modal", 86.0)),
                entry(engines[1].url(), "chat-large", metadata("chat-completion, multi-modal", 86.0)),
                entry(engines[2].url(), "code", metadata("code-generation", 70.0)),
                // Nobody is there.
                entry("http://127.0.0.1:9".to_owned(), "chat-small", metadata("chat-completion", 60.0)),
            ],
        });
        let Value::Object(keys) = keys else {
            panic!("no keys");
        };
        all.as_object_mut().unwrap().extend(keys);
        let folder = Folder::new(name);
        let file = folder.path("dynamic.json");
        std::fs::write(&file, all.to_string()).unwrap();
        let app = TestApp::from_flags(&[
            "--engine-stats-interval=0.05",
            "--dynamic-config-json",
            file.to_str().unwrap(),
        ]);
        eventually("three engines are read", || {
            let page = app.get("/engines").json();
            let page = page.as_array().unwrap().iter();
            let read = page.filter(|one| one["attributes"]["requests_running"].is_number());
            read.count() == 3
        });
        Self {
            app,
            _engines: engines,
        }
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.app.send(&post(path, &body.to_string()))
    }

    /// What a search answers that goes well.
    #[track_caller]
    fn search(&self, body: &Value) -> Value {
        let answer = self.post("/api/search", body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["result"][1].clone()
    }
}

fn for_chats() -> Value {
    condition(
        "component.componentMetadata.usecase",
        "LIKE",
        &json!("*chat-completion*"),
    )
}

fn condition(variable: &str, operator: &str, value: &Value) -> Value {
    json!({"logicalOperator": "AND",
        "conditions": [{"variable": variable, "operator": operator, "value": value}]})
}

/// The reference's envelope, with `values` in both places.
fn search(parameters: &Value) -> Value {
    json!({
        "header": {"templateUri": "Parser/V1"},
        "body": {"values": {"matchType": "block", "rankingPolicyRule": {"values": {
            "policyRuleURI": "keen", "parameters": parameters}}}},
    })
}

fn filtered(filter: &Value) -> Value {
    json!({"filterRule": {"matchType": "block", "filter": filter}})
}

fn filter(filter: &Value) -> Value {
    json!({"header": {}, "body": {"values": {"matchType": "block", "filter": filter}}})
}

fn ids(blocks: &Value) -> Vec<&str> {
    let blocks = blocks.as_array().unwrap().iter();
    blocks.map(|block| block["id"].as_str().unwrap()).collect()
}

#[test]
fn a_search_answers_with_the_best_block_in_the_references_shapes() {
    let rig = Rig::new("search-shapes", json!({}));
    let nested = search(&filtered(&json!({"blockQuery": for_chats()})));
    let rule = &nested["body"]["values"]["rankingPolicyRule"]["values"];
    let bare = json!({"body": {"rankingPolicyRule": rule}});
    let half = json!({"body": {"values": {"rankingPolicyRule": rule}}});
    let flat = json!({"filter": {"blockQuery": for_chats()}, "policy": "keen"});
    for body in [&nested, &bare, &half, &flat] {
        let answer = rig.post("/api/search", body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert!(answer.field("x-request-id").is_some());
        let page = answer.json();
        assert_eq!(
            (&page["success"], &page["task_id"], &page["result"][0]),
            (&json!(true), &json!(""), &json!(true))
        );
        assert_eq!(page["result"][1]["id"], "chat-large", "{body}");
        assert!(page.get("ranked").is_none() && page.get("warnings").is_none());
    }
    for path in ["/api/similarity-search", "/api/no-ir/similarity-search"] {
        let page = rig.post(path, &nested).json();
        assert_eq!(page["success"], true);
        assert_eq!(page["data"]["id"], "chat-large");
        assert!(page.get("result").is_none() && page.get("task_id").is_none());
    }
    let all = json!({"variable": "id", "operator": "LIKE", "value": "*"});
    let page = rig.post("/api/filter", &filter(&all)).json();
    assert_eq!(ids(&page["result"]), ["chat-large", "chat-small", "code"]);
    for path in ["/api/filter-data", "/api/no-ir/filter"] {
        let of = filter(&json!({"blockQuery": for_chats()}));
        let page = rig.post(path, &of).json();
        assert_eq!(ids(&page["data"]), ["chat-large", "chat-small"]);
    }
    // Nothing of this is traffic of a model.
    assert!(
        !rig.app
            .get("/metrics")
            .text()
            .contains("pilotfish_requests_total{model=")
    );
}

#[test]
fn a_document_has_what_is_known_and_leaves_out_the_rest() {
    let rig = Rig::new("search-document", json!({}));
    let block = rig.search(&search(&filtered(&json!({"blockQuery": for_chats()}))));
    assert_eq!(block["componentUri"], "model.x:1.0-stable");
    assert_eq!(block["component"]["tags"], json!(["text"]));
    assert_eq!(block["cluster"], json!({"id": "c1", "regionId": "eu"}));
    assert_eq!(
        (&block["minInstances"], &block["instanceCount"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(block["models"], json!(["chat-large-model"]));
    assert_eq!(block["metrics"]["blockId"], "chat-large");
    let instances = block["metrics"]["instances"].as_array().unwrap();
    let sessions: f64 = instances
        .iter()
        .map(|one| one["llm_active_sessions"].as_f64().unwrap())
        .sum();
    assert!((sessions - 6.0).abs() < f64::EPSILON);
    for one in instances {
        assert_eq!(one["queue_length"]["current"], 1.0, "{one}");
        assert!(one["timestamp"].as_f64().unwrap() > 1.6e9);
        assert_eq!(
            (&one["healthy"], &one["type"]),
            (&json!(true), &json!("app"))
        );
        // It has generated nothing yet.
        assert!(one.get("llm_tokens_per_second").is_none());
    }
    let small = json!({"variable": "id", "operator": "==", "value": "chat-small"});
    let page = rig.post("/api/filter", &filter(&small)).json();
    let silent = &page["result"][0]["metrics"]["instances"][0];
    for unknown in [
        "timestamp",
        "llm_active_sessions",
        "queue_length",
        "latency_ms",
    ] {
        assert!(silent.get(unknown).is_none(), "{unknown} of {silent}");
    }
}

#[test]
fn without_a_match_it_says_why() {
    let rig = Rig::new("search-none", json!({}));
    let busy = json!({"aggOperator": "avg", "target": "instances.llm_active_sessions",
        "operator": ">", "value": 100});
    for (filter, why) in [
        (
            json!({"blockQuery": condition("component.x", "==", &json!(1))}),
            "metadata and labels",
        ),
        (
            json!({"blockQuery": for_chats(), "blockMetricsQuery":
                {"logicalOperator": "AND", "conditions": [busy]}}),
            "does as well now",
        ),
    ] {
        for explain in ["", "?explain=1"] {
            let answer = rig.post(
                &format!("/api/search{explain}"),
                &search(&filtered(&filter)),
            );
            assert_eq!(answer.status, 200);
            let page = answer.json();
            assert_eq!(page["result"][0], true);
            assert_eq!(page["result"][1]["result"], json!([]));
            let reason = page["result"][1]["reason"].as_str().unwrap();
            assert!(
                reason.starts_with("No candidates found") && reason.contains(why),
                "{reason}"
            );
        }
        let page = rig
            .post("/api/no-ir/similarity-search", &search(&filtered(&filter)))
            .json();
        assert_eq!(page["data"]["result"], json!([]));
        let body = json!({"body": {"values": {"filter": filter}}});
        assert_eq!(rig.post("/api/filter", &body).json()["result"], json!([]));
    }
}

#[test]
fn an_explanation_ranks_every_block_with_its_reasons() {
    let rig = Rig::new("search-explain", json!({}));
    let mut parameters = filtered(&json!({"blockQuery": for_chats()}));
    parameters["selection_query"] = json!({"optimization_goals": [
        {"attribute": "llm_active_sessions", "direction": "min", "weight": 1},
        {"attribute": "componentMetadata.evaluation.benchmarks.MMLU.value", "direction": "max",
            "weight": 3},
    ]});
    let answer = rig.post("/api/search?explain=1", &search(&parameters));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = answer.json();
    assert_eq!(page["result"][1]["id"], "chat-large");
    let ranked = page["ranked"].as_array().unwrap();
    assert_eq!(ids(&page["ranked"])[0], "chat-large");
    assert_eq!(ranked.len(), 3);
    let ranks: Vec<u64> = ranked
        .iter()
        .map(|one| one["rank"].as_u64().unwrap())
        .collect();
    assert_eq!(ranks, [1, 2, 3]);
    let first = &ranked[0];
    assert_eq!(
        (&first["excluded"], &first["in_flight"]),
        (&Value::Null, &json!(0))
    );
    let sessions = &first["goals"][0];
    assert_eq!(
        (&sessions["raw"], &sessions["weight"]),
        (&json!(6.0), &json!(1.0))
    );
    assert!(sessions["age_seconds"].is_number() && sessions["normalised"].is_number());
    let condition = page["conditions"][0].as_str().unwrap();
    assert!(condition.contains("LIKE"), "{condition}");
    let seen = &first["conditions"][0];
    assert!(seen.get("condition").is_none(), "it is told once");
    assert_eq!(
        (&seen["holds"], &seen["value"]),
        (&json!(true), &json!("chat-completion, multi-modal"))
    );
    let code = ranked.iter().find(|one| one["id"] == "code").unwrap();
    assert_eq!(code["excluded"], "does not match");
    assert_eq!(code["conditions"][0]["holds"], false);
    let small = ranked.iter().find(|one| one["id"] == "chat-small").unwrap();
    // Unknown is the worst, and is said to be unknown.
    assert_eq!(
        (&small["goals"][0]["raw"], &small["goals"][0]["normalised"]),
        (&Value::Null, &json!(0.0))
    );
    // Asked without reasons, it is the same choice.
    assert_eq!(rig.search(&search(&parameters))["id"], "chat-large");
}

#[test]
fn what_has_no_effect_is_told_and_the_policy_in_force_is_the_base() {
    let rig = Rig::new("search-base", json!({"routing_logic": "keen"}));
    let mut parameters = filtered(&json!({"blockQuery": for_chats()}));
    parameters["METRICS_BASE_URL"] = json!("http://metrics:30201/block/");
    let page = rig.post("/api/search", &search(&parameters)).json();
    assert!(
        page["warnings"][0]
            .as_str()
            .unwrap()
            .contains("METRICS_BASE_URL")
    );
    // Nothing is named: the goals are those of the policy in force.
    let all = json!({"filter": {"variable": "id", "operator": "LIKE", "value": "*"}});
    assert_eq!(rig.search(&all)["id"], "chat-large");
}

#[test]
fn errors_say_where_and_have_real_statuses() {
    let rig = Rig::new("search-errors", json!({}));
    let template = json!({"header": {"templateUri": "Other/V1"}, "body": {}});
    let by = |policy: &str| {
        let filter = filtered(&json!({"blockQuery": for_chats()}));
        search(&filter)
            .to_string()
            .replace("\"keen\"", &format!("\"{policy}\""))
    };
    let operator = search(&filtered(
        &json!({"blockQuery": condition("a", "~", &json!(1))}),
    ));
    let at = "/body/values/rankingPolicyRule/values/parameters/filterRule/filter/blockQuery/\
              conditions/0/operator";
    for (path, body, status, code, pointer) in [
        (
            "/api/search",
            template.to_string(),
            400,
            "invalid_selection",
            "/header/templateUri",
        ),
        ("/api/search", by("none:1.0-x"), 404, "policy_not_found", ""),
        ("/api/search", by("even"), 404, "policy_not_found", ""),
        (
            "/api/search",
            operator.to_string(),
            400,
            "invalid_selection",
            at,
        ),
        (
            "/api/filter",
            "{\"body\":".to_owned(),
            400,
            "invalid_selection",
            "",
        ),
        ("/api/filter", "[]".to_owned(), 400, "invalid_selection", ""),
        ("/api/filter", String::new(), 400, "invalid_selection", ""),
        (
            "/api/filter",
            " ".repeat(2 << 20),
            413,
            "request_too_large",
            "",
        ),
    ] {
        let answer = rig.app.send(&post(path, &body));
        answer.assert_error(status, code);
        let page = answer.json();
        assert_eq!(page["success"], false);
        assert_eq!(page["message"], page["error"]["message"]);
        assert!(
            page["message"].as_str().unwrap().starts_with(pointer),
            "{page}"
        );
        if !pointer.is_empty() {
            assert_eq!(page["error"]["param"], pointer);
        }
    }
}

#[test]
fn bodies_that_are_late_and_other_methods_are_refused() {
    let keys = json!({"timeouts": {"client_body_idle": 0.3}});
    let rig = Rig::new("search-methods", keys);
    for method in ["GET", "PUT", "DELETE", "HEAD"] {
        let mut client = rig.app.connect();
        client.write(format!("{method} /api/search HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        let answer = client.answer_to(method == "HEAD").unwrap();
        assert_eq!(
            (answer.status, answer.field("allow")),
            (405, Some("POST, OPTIONS"))
        );
    }
    let options = rig
        .app
        .send("OPTIONS /api/filter HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(
        (options.status, options.field("allow")),
        (204, Some("POST, OPTIONS"))
    );
    // A body that does not come.
    let late = rig
        .app
        .send("POST /api/search HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{");
    late.assert_error(408, "request_timeout");
    assert_eq!(late.json()["success"], false);
}
