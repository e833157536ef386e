//! The reference's documents, as they are written there.

use super::*;

/// The selection of the ad-hoc inference guide's request.
fn payload() -> Value {
    serde_json::from_str(include_str!("payload.json")).unwrap()
}

fn fitting() -> Value {
    json!({
        "componentId": {"name": "deepseek", "version": "1.0.0", "releaseTag": "stable"},
        "componentMetadata": {
            "usecase": "chat-completion, multi-modal",
            "capabilities": {"supportsStreaming": true},
            "evaluation": {"benchmarks": {
                "MMLU": {"metric": "accuracy", "value": 82.3},
                "ARC-Challenge": {"metric": "accuracy", "value": 85},
            }},
        },
        "tags": ["llm"],
    })
}

#[test]
fn the_payload_is_read_and_picks_who_fits() {
    let payload = payload();
    let envelope = Envelope::search(&payload).unwrap();
    assert_eq!(envelope.template, Some("Parser/V1"));
    assert_eq!(envelope.match_type, Some("block"));
    assert_eq!(envelope.policy, Some("attributebasedrouter:2.0-stable"));
    let rule = "/body/values/rankingPolicyRule/values";
    assert_eq!(envelope.policy_at, format!("{rule}/policyRuleURI"));
    assert_eq!(envelope.ignored, ["METRICS_BASE_URL", "user_query"]);
    let words = "Find a reliable and high-performing chat model";
    assert_eq!(envelope.query_string, Some(words));
    let (goals, at) = envelope.goals.unwrap();
    assert_eq!(goals[0], json!({"name": "Fast_Generator", "weight": 0.9}));
    assert_eq!((goals.len(), payload.pointer(&at).is_some()), (2, true));
    assert_eq!(envelope.application_type, None);
    let (filter, at) = envelope.filter.unwrap();
    assert_eq!(at, format!("{rule}/parameters/filterRule/filter"));
    let query = Query::parse(filter, &at, Vocabulary { own: &[] }).unwrap();
    assert_eq!((query.fixed.len(), query.live.len()), (3, 1));
    assert!(query.looks_at_scraped());

    let change = |pointer: &str, value: Value| {
        let mut document = fitting();
        *document.pointer_mut(pointer).unwrap() = value;
        document
    };
    let inner = "/componentMetadata";
    let mmlu = format!("{inner}/evaluation/benchmarks/MMLU/value");
    let mut by_arc = change(&mmlu, json!(70));
    by_arc["componentMetadata"]["evaluation"]["benchmarks"]["ARC-Challenge"]["value"] = json!(90);
    let (up, speed) = (Live::UptimeHours.into(), Live::BusyTokensPerSecond.into());
    for (metadata, told, expected) in [
        (fitting(), vec![(up, 11.0)], true),
        (json!({"component": fitting()}), vec![(up, 11.0)], true),
        (fitting(), vec![(speed, 10.5)], true),
        (by_arc, vec![(speed, 10.5)], true),
        (fitting(), vec![(up, 10.0), (speed, 10.0)], false),
        (fitting(), vec![], false),
        (change(&mmlu, json!(79.9)), vec![(up, 11.0)], false),
        (change(&mmlu, json!("82.3")), vec![(up, 11.0)], false),
        (
            change(&format!("{inner}/usecase"), json!("embedding")),
            vec![(up, 11.0)],
            false,
        ),
        (
            change(&format!("{inner}/capabilities"), json!({})),
            vec![(up, 11.0)],
            false,
        ),
        (json!(null), vec![(up, 11.0)], false),
    ] {
        let world = World::one(&metadata);
        world.tell(0, &told, 1);
        assert_eq!(world.meets(&query), expected, "{metadata} {told:?}");
    }
}

#[test]
fn the_query_in_prose_is_another_one() {
    let world = World::one(&json!({
        "componentMetadata": {"framework": "llama-cpp-python", "supports_quantization": true},
        "tags": ["llm", "multi-modal"],
    }));
    world.tell(0, &[(Live::RequestsRunning.into(), 5.0)], 1);
    let query = |fps: u64| {
        let inner = "component.componentMetadata";
        parse(&json!({
            "blockQuery": join("AND", &[
                condition(&format!("{inner}.framework"), "==", &json!("llama-cpp-python")),
                condition(&format!("{inner}.supports_quantization"), "==", &json!(true)),
                condition("component.tags", "CONTAINS", &json!("multi-modal")),
            ]),
            "blockMetricsQuery": join("OR", &[
                aggregate("avg", "instances.on_preprocess_fps", ">", &json!(fps)),
                aggregate("max", "instances.llm_active_sessions", ">=", &json!(5)),
            ]),
        }))
        .unwrap()
    };
    assert!(world.meets(&query(8000)));
}

#[test]
fn envelopes_come_in_many_forms() {
    let filter = json!({"blockQuery": condition("n", "==", &json!(1))});
    let goals = json!([{"name": "Free_Block"}]);
    let rule = json!({
        "policyRuleURI": "p:1-s", "settings": {}, "executionMode": "remote",
        "parameters": {
            "filterRule": {"matchType": "block", "filter": filter}, "return": 3,
            "query_string": "words", "user_query": "other words", "APP_MAP": {"RAG": "chat"},
            "selection_query": {"application_type": "RAG", "optimization_goals": goals},
        },
    });
    let whole = |rule: Value| json!({"matchType": "block", "rankingPolicyRule": rule});
    for document in [
        json!({"header": {"templateUri": ""}, "body": {"values": whole(rule.clone())}}),
        json!({"header": {}, "body": {"values": whole(json!({"values": rule}))}}),
        json!({"header": null, "body": whole(rule.clone())}),
        json!({"body": whole(json!({"values": rule}))}),
        json!({"values": whole(rule.clone())}),
        whole(rule.clone()),
    ] {
        let envelope = Envelope::search(&document).unwrap();
        assert_eq!(envelope.policy, Some("p:1-s"));
        let (found, at) = envelope.filter.unwrap();
        assert_eq!((found, document.pointer(&at)), (&filter, Some(&filter)));
        let (found, at) = envelope.goals.unwrap();
        assert_eq!(
            (json!(found), document.pointer(&at)),
            (goals.clone(), Some(&goals))
        );
        assert_eq!(document.pointer(&envelope.policy_at), Some(&json!("p:1-s")));
        assert_eq!(envelope.application_type, Some("RAG"));
        assert_eq!(envelope.app_map.unwrap()["RAG"], "chat");
        assert_eq!(envelope.query_string, Some("words"));
        assert_eq!(envelope.parameters.unwrap()["return"], 3);
        assert_eq!(
            envelope.ignored,
            ["settings", "executionMode", "user_query", "return"]
        );
    }
    let short = json!({
        "filter": filter, "goals": goals, "application_type": "Code", "policy": "p",
        "parameters": {"selection_query": {"application_type": "RAG"}},
    });
    let envelope = Envelope::search(&short).unwrap();
    assert_eq!(envelope.filter.unwrap(), (&filter, "/filter".to_owned()));
    assert_eq!(
        (envelope.policy, &*envelope.policy_at),
        (Some("p"), "/policy")
    );
    assert_eq!(envelope.application_type, Some("Code"));
    assert_eq!(envelope.goals.unwrap().1, "/goals");
    for document in [
        json!({"header": {"templateUri": "Parser/V1"}, "body": {"values": {"matchType": "block", "filter": filter}}}),
        json!({"body": {"filter": filter}}),
        json!({"values": {"filter": filter}}),
        json!({"filter": filter}),
    ] {
        let (found, at) = Envelope::filter(&document).unwrap().filter.unwrap();
        assert_eq!((found, document.pointer(&at)), (&filter, Some(&filter)));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong_envelopes_say_where() {
    let rule = |rule: Value| json!({"body": {"rankingPolicyRule": rule}});
    let within = "/body/rankingPolicyRule";
    let parameters = |key: &str, value: Value| rule(json!({"parameters": {key: value}}));
    let search = |document: &Value| Envelope::search(document).unwrap_err();
    for (document, pointer, word) in [
        (json!([]), String::new(), "an object"),
        (json!({}), String::new(), "nothing is asked"),
        (json!({"header": 1}), "/header".into(), "an object"),
        (
            json!({"header": {"templateUri": 1}}),
            "/header/templateUri".into(),
            "a text",
        ),
        (
            json!({"header": {"templateUri": "Parser/V2"}}),
            "/header/templateUri".into(),
            "Parser/V1",
        ),
        (json!({"body": 1}), "/body".into(), "values"),
        (json!({"body": {}}), "/body".into(), "rankingPolicyRule"),
        (
            json!({"body": {"values": 1}}),
            "/body/values".into(),
            "an object",
        ),
        (
            json!({"body": {"values": {"matchType": "vdag", "rankingPolicyRule": {}}}}),
            "/body/values/matchType".into(),
            "only blocks",
        ),
        (
            json!({"rankingPolicyRul": {}}),
            "/rankingPolicyRul".into(),
            "did you mean rankingPolicyRule",
        ),
        (
            json!({"filters": {}}),
            "/filters".into(),
            "did you mean filter",
        ),
        (json!({"goals": {}}), "/goals".into(), "a list"),
        (
            json!({"application_type": 1}),
            "/application_type".into(),
            "a text",
        ),
        (rule(json!([])), within.into(), "policyRuleURI"),
        (
            rule(json!({"policyRuleURI": 5})),
            format!("{within}/policyRuleURI"),
            "a text",
        ),
        (
            rule(json!({"values": 5})),
            format!("{within}/values"),
            "an object",
        ),
        (
            rule(json!({"parameters": 5})),
            format!("{within}/parameters"),
            "an object",
        ),
        (
            parameters("filterRule", json!(1)),
            format!("{within}/parameters/filterRule"),
            "matchType",
        ),
        (
            parameters("filterRule", json!({"matchType": "cluster"})),
            format!("{within}/parameters/filterRule/matchType"),
            "only blocks",
        ),
        (
            parameters("selection_query", json!("x")),
            format!("{within}/parameters/selection_query"),
            "optimization_goals",
        ),
        (
            parameters("selection_query", json!({"optimization_goals": "x"})),
            format!("{within}/parameters/selection_query/optimization_goals"),
            "a list",
        ),
        (
            parameters("user_query", json!({})),
            format!("{within}/parameters/user_query"),
            "a text",
        ),
        (
            parameters("APP_MAP", json!([])),
            format!("{within}/parameters/APP_MAP"),
            "use case",
        ),
    ] {
        let error = search(&document);
        assert_eq!(error.pointer, pointer, "{document}: {error}");
        assert!(error.message.contains(word), "{document}: {error}");
    }
    let error = Envelope::filter(&json!({"body": {"values": {"matchType": "block"}}})).unwrap_err();
    assert_eq!(
        (&*error.pointer, error.message.contains("filter is missing")),
        ("/body/values", true)
    );
}
