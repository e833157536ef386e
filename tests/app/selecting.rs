//! Selections by attributes of OpenAI traffic: by a field of the head, by the
//! body, by policies that are named in place of a model.

use crate::support::engine::RawEngine;
use crate::support::{Answer, Folder, TestApp, post};
use pilotfish::sim::speed::Speed;
use pilotfish::sim::{SimConfig, SimEngine};
use serde_json::{Value, json};

/// Two models of one engine each: a small cheap one and a large good one.
struct World {
    app: TestApp,
    small: SimEngine,
    large: SimEngine,
}

fn component(usecase: &str, parameters: u32, mmlu: f64) -> Value {
    json!({"tags": ["text"], "componentMetadata": {
        "usecase": usecase,
        "architecture": {"parameterCountB": parameters},
        "evaluation": {"benchmarks": {"MMLU": {"metric": "accuracy", "value": mmlu}}},
    }})
}

fn app(name: &str, engines: &Value, keys: Value) -> TestApp {
    let mut all = json!({
        "service_discovery": "static", "routing_logic": "roundrobin", "engines": engines,
    });
    let Value::Object(keys) = keys else {
        panic!("no keys");
    };
    all.as_object_mut().unwrap().extend(keys);
    let folder = Folder::new(name);
    let file = folder.path("dynamic.json");
    std::fs::write(&file, all.to_string()).unwrap();
    TestApp::from_flags(&["--dynamic-config-json", file.to_str().unwrap()])
}

fn world(name: &str, keys: Value) -> World {
    let start = |model: &str| SimEngine::start(SimConfig::new(model, Speed::instant())).unwrap();
    let (small, large) = (start("small"), start("large"));
    let engines = json!([
        {"url": small.url(), "models": ["small"], "metadata": component("chat-completion", 8, 65.0)},
        {"url": large.url(), "models": ["large"],
         "metadata": component("chat-completion, code-generation", 70, 86.0)},
    ]);
    let app = app(name, &engines, keys);
    World { app, small, large }
}

fn body(model: &str, more: &Value) -> String {
    let mut body = json!({"model": model, "max_tokens": 2,
        "messages": [{"role": "user", "content": "Hello"}]});
    body.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    body.to_string()
}

fn ask(app: &TestApp, fields: &str, body: &str) -> Answer {
    let fields = format!("host: x\r\nx-pilotfish-explain: 1\r\n{fields}");
    app.send(&post("/v1/chat/completions", body).replacen("host: x\r\n", &fields, 1))
}

/// The model that answers.
fn model(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer: Value = serde_json::from_str(&answer.text()).unwrap();
    answer["model"].as_str().unwrap().to_owned()
}

fn mmlu(least: u32) -> Value {
    json!({"variable": "component.componentMetadata.evaluation.benchmarks.MMLU.value",
        "operator": ">=", "value": least})
}

fn code(answer: &Answer) -> String {
    let error: Value = serde_json::from_str(&answer.text()).unwrap();
    error["error"]["code"].as_str().unwrap().to_owned()
}

#[test]
fn a_request_that_leaves_its_model_open_gets_the_best() {
    // Of metadata alone: latencies would come to be known while this runs.
    let best = json!({
        "attribute": "componentMetadata.evaluation.benchmarks.MMLU.value", "direction": "max",
    });
    let world = world(
        "selecting-open",
        json!({"policies": {
            "good": {"type": "scored", "goals": [best]},
            "cheap": {"type": "scored", "goals": [{"name": "Cost_Saver"}]},
            "turns": {"type": "roundrobin"},
        }}),
    );
    let app = &world.app;
    let by_goal = |name: &str| json!({"selection_query": {"goals": [{"name": name}]}});
    for (asked, fields, more, expected) in [
        ("auto", "", by_goal("Cost_Saver"), "small"),
        (
            "",
            "",
            json!({"selection_query": {"goals": [best]}}),
            "large",
        ),
        ("auto", "x-pilotfish-policy: good\r\n", json!({}), "large"),
        ("auto", "x-pilotfish-policy: cheap\r\n", json!({}), "small"),
        ("good", "", json!({}), "large"),
        ("cheap", "", json!({}), "small"),
        // Its filter, and the policy's goals.
        (
            "cheap",
            "",
            json!({"selection_query": {"filter": mmlu(80)}}),
            "large",
        ),
        // A model that is named is that model.
        (
            "small",
            "",
            json!({"selection_query": {"goals": [best]}}),
            "small",
        ),
    ] {
        let answer = ask(app, fields, &body(asked, &more));
        assert_eq!(model(&answer), expected, "{asked} {fields} {more}");
        let url = if expected == "small" {
            world.small.url()
        } else {
            world.large.url()
        };
        assert_eq!(answer.field("x-pilotfish-engine"), Some(&*url));
    }
    let select = json!({"filter": mmlu(80), "goals": [{"name": "Cost_Saver"}]});
    let field = format!("x-pilotfish-select: {select}\r\n");
    let answer = ask(app, &field, &body("auto", &json!({})));
    assert_eq!(model(&answer), "large");
    assert!(answer.field("x-pilotfish-decision").is_some());
    // A policy that does not select by attributes is no model.
    let answer = ask(app, "", &body("turns", &json!({})));
    assert_eq!((answer.status, &*code(&answer)), (404, "model_not_found"));
    let answer = ask(app, "", &body("auto", &json!({})));
    assert_eq!((answer.status, &*code(&answer)), (400, "invalid_value"));
}

#[test]
fn the_engine_sees_no_selection_and_every_other_byte() {
    let engine = RawEngine::echo();
    let engines =
        json!([{"url": engine.url(), "models": ["large"], "metadata": component("x", 1, 90.0)}]);
    let app = app("selecting-bytes", &engines, json!({}));
    let select = r#"{"filter": {"variable": "component.tags", "operator": "==", "value": "text"}}"#;
    for (body, expected) in [
        (
            format!(
                r#"{{"selection_query" : {select} , "messages":[ ] ,"model":"auto", "x":1.50}}"#
            ),
            r#"{ "messages":[ ] ,"model":"large", "x":1.50}"#,
        ),
        (
            format!(r#"{{"model" :"auto","messages":["\u00e9"], "selection_query":{select}}}"#),
            r#"{"model" :"large","messages":["\u00e9"]}"#,
        ),
        (
            format!(r#"{{"model":"large","selection_query":{select},"messages":[]}}"#),
            r#"{"model":"large","messages":[]}"#,
        ),
    ] {
        let answer = ask(&app, "", &body);
        let text = answer.text();
        let (head, seen) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(seen, expected);
        assert!(
            head.contains(&format!("content-length: {}", expected.len())),
            "{head}"
        );
        assert!(!head.contains("x-pilotfish"), "{head}");
    }
}

/// Selections that cannot be made: with what status, code and word.
fn wrong() -> Vec<(Value, u16, &'static str, &'static str)> {
    let goals = |goals: Value| json!({"selection_query": {"goals": goals}});
    let filter = |filter: Value| json!({"selection_query": {"filter": filter}});
    vec![
        (
            goals(json!([{"name": "Fast_Generatr"}])),
            400,
            "invalid_selection",
            "Fast_Generator",
        ),
        (
            goals(json!([{"name": "Cost_Saver", "weight": -1}])),
            400,
            "invalid_selection",
            "weight",
        ),
        (
            goals(json!([{"name": "Cost_Saver", "weight": "1"}])),
            400,
            "invalid_selection",
            "weight",
        ),
        (
            goals(json!([{"name": "Cost_Saver", "weight": 0}])),
            400,
            "invalid_selection",
            "all 0",
        ),
        (
            goals(json!([{"attribute": "x"}])),
            400,
            "invalid_selection",
            "max or min",
        ),
        (goals(json!([5])), 400, "invalid_selection", "/goals/0"),
        (
            filter(json!({"variable": "id", "operator": "~", "value": 1})),
            400,
            "invalid_selection",
            "/filter/operator",
        ),
        (filter(mmlu(99)), 404, "no_match", "metadata"),
        (
            filter(json!({"blockMetricsQuery": {"aggOperator": "avg",
                "target": "instances.llm_tokens_per_second", "operator": ">", "value": 1e9}})),
            503,
            "no_match_now",
            "does as well",
        ),
        (
            json!({"selection_query": {"body": {"values": {"rankingPolicyRule": {"values": {
                "policyRuleURI": "nobody:1.0-stable"}}}}}}),
            404,
            "policy_not_found",
            "nobody:1.0-stable",
        ),
        (
            json!({"selection_query": "x".repeat(70_000)}),
            400,
            "invalid_selection",
            "65536",
        ),
    ]
}

#[test]
fn what_cannot_be_selected_is_told() {
    let world = world("selecting-errors", json!({}));
    for (more, status, named, said) in wrong() {
        let answer = ask(&world.app, "", &body("auto", &more));
        let (text, shown) = (answer.text(), more.to_string());
        let shown = &shown[..shown.len().min(200)];
        assert_eq!(
            (answer.status, &*code(&answer)),
            (status, named),
            "{shown} {text}"
        );
        assert!(text.contains(said), "{shown} {text}");
    }
}

#[test]
fn a_selection_is_given_once_and_where_it_is_allowed() {
    let world = world("selecting-twice", json!({}));
    let goals = |goals: Value| json!({"selection_query": {"goals": goals}});
    let twice = ask(
        &world.app,
        "x-pilotfish-select: {}\r\n",
        &body("auto", &goals(json!([]))),
    );
    assert_eq!((twice.status, &*code(&twice)), (400, "invalid_header"));
    let off = world_without_select();
    for (fields, more) in [
        ("x-pilotfish-select: {}\r\n", json!({})),
        ("", goals(json!([]))),
    ] {
        let answer = ask(&off.app, fields, &body("small", &more));
        assert_eq!(answer.status, 400);
        assert!(
            answer.text().contains("request_headers.allow"),
            "{}",
            answer.text()
        );
    }
}

fn world_without_select() -> World {
    world(
        "selecting-off",
        json!({"request_headers": {"allow": ["explain"]}}),
    )
}

#[test]
fn a_selection_gets_round_nothing() {
    let guarded = world(
        "selecting-guarded",
        json!({"routing_logic": "federation", "policies": {
            "open": {"type": "scored", "timeouts": {"total": "1s"}}, "turns": {"type": "sequential"},
        }}),
    );
    let goals = json!({"selection_query": {"goals": []}});
    let open = "x-pilotfish-policy: open\r\n";
    for (fields, asked, more) in [
        // What guards privacy gives way to no selection.
        ("", "small", &goals),
        // Nobody here heeds these.
        (
            "x-pilotfish-policy: open\r\nx-pilotfish-qos: privacy=restricted\r\n",
            "small",
            &goals,
        ),
        (
            "x-pilotfish-qos: privacy=restricted\r\n",
            "open",
            &json!({}),
        ),
        (
            "x-pilotfish-policy: turns\r\nx-pilotfish-models: large\r\n",
            "auto",
            &goals,
        ),
    ] {
        let answer = ask(&guarded.app, fields, &body(asked, more));
        assert_eq!(
            (answer.status, &*code(&answer)),
            (400, "invalid_header"),
            "{fields} {asked}"
        );
    }
    // Not given, in words.
    let nothing = json!({"selection_query": null});
    assert_eq!(
        model(&ask(&guarded.app, "", &body("small", &nothing))),
        "small"
    );
    // Of the blocks that have the engine.
    let pinned = world(
        "selecting-pinned",
        json!({
            "request_headers": {"allow": ["explain", "policy", "select", "engine"]},
            "policies": {"open": {"type": "scored", "goals": [{"name": "Cost_Saver"}]}},
        }),
    );
    for engine in [&pinned.small, &pinned.large] {
        let fields = format!("{open}x-pilotfish-engine: {}\r\n", engine.url());
        let answer = ask(&pinned.app, &fields, &body("auto", &json!({})));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.field("x-pilotfish-engine"), Some(&*engine.url()));
    }
    let hidden = world(
        "selecting-hidden",
        json!({
            "request_headers": {"allow": ["select"]}, "policies": {"hidden": {"type": "scored"}},
        }),
    );
    let more = json!({"selection_query": {"policy": "hidden"}});
    let answer = ask(&hidden.app, "", &body("small", &more)).text();
    assert!(answer.contains("request_headers.allow"), "{answer}");
}

/// The policy's own deadlines are in force however it is named.
#[test]
fn a_policy_that_is_selected_has_its_deadlines() {
    let engine = RawEngine::start(|mut conn| {
        if conn
            .request()
            .is_some_and(|seen| seen.head.starts_with("POST"))
        {
            conn.closed();
        }
    });
    let engines = json!([{"url": engine.url(), "models": ["m"]}]);
    let app = app(
        "selecting-deadlines",
        &engines,
        json!({"policies": {
            "quick": {"type": "scored", "timeouts": {"total": "300ms"}},
        }}),
    );
    for (asked, more) in [
        ("quick", json!({})),
        ("auto", json!({"selection_query": {"policy": "quick"}})),
        ("m", json!({"selection_query": {"policy": "quick"}})),
    ] {
        let answer = ask(&app, "", &body(asked, &more));
        assert_eq!(
            (answer.status, &*code(&answer)),
            (504, "deadline_exceeded"),
            "{asked}"
        );
    }
}
