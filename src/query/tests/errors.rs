//! What is wrong, where, and what is told of it.

use super::*;

fn deep(levels: usize) -> Value {
    let leaf = condition("n", "==", &json!(1));
    (0..levels).fold(leaf, |inner, _| join("AND", &[inner]))
}

fn many(conditions: usize) -> Value {
    join("OR", &vec![condition("n", "==", &json!(1)); conditions])
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn errors_say_where_and_what_is_allowed() {
    let is = |operator: &str, value: Value| condition("n", operator, &value);
    let busy = |operator: &str, value: Value| condition("requests_running", operator, &value);
    let mean = |operator: &str, value: Value| aggregate("avg", "instances.n", operator, &value);
    let deepest = "/conditions/0".repeat(64);
    for (filter, pointer, word) in [
        (json!("x"), "", "filter"),
        (json!([]), "", "an object"),
        (json!({"blockQuery": 7}), "/blockQuery", "condition"),
        (json!({"blockquery": {}}), "", "did you mean blockQuery"),
        (
            json!({"blocksQuery": {}}),
            "/blocksQuery",
            "did you mean blockQuery",
        ),
        (
            json!({"vdagQuery": {}}),
            "/vdagQuery",
            "clusterQuery, blockQuery",
        ),
        (
            json!({"blockQuery": is("==", json!(1)), "x": 1}),
            "/x",
            "blockMetricsQuery",
        ),
        (json!({"vairable": "x"}), "", "did you mean variable"),
        (json!({"operator": "=="}), "", "{variable, operator, value}"),
        // How conditions are joined.
        (
            join("XOR", &[is("==", json!(1))]),
            "/logicalOperator",
            "AND, OR, NOT",
        ),
        (
            join("ANDD", &[is("==", json!(1))]),
            "/logicalOperator",
            "did you mean AND",
        ),
        (
            json!({"logicalOperator": "AND"}),
            "",
            "conditions is missing",
        ),
        (
            json!({"conditions": [is("==", json!(1))]}),
            "",
            "logicalOperator is missing",
        ),
        (
            json!({"logicalOperator": 1, "conditions": []}),
            "/logicalOperator",
            "AND",
        ),
        (join("AND", &[]), "/conditions", "one condition or more"),
        (
            json!({"logicalOperator": "NOT", "conditions": is("==", json!(1))}),
            "/conditions",
            "list",
        ),
        (join("NOT", &[json!("x")]), "/conditions/0", "condition"),
        (
            join(
                "OR",
                &[is("==", json!(1)), join("AND", &[is("=", json!(1))])],
            ),
            "/conditions/1/conditions/0/operator",
            "==",
        ),
        (
            json!({"logicalOperator": "AND", "conditions": [1], "x": 1}),
            "/x",
            "conditions",
        ),
        (deep(65), &deepest, "64 levels"),
        (many(257), "/conditions/256", "256 conditions"),
        // Operators.
        (is("LYKE", json!("x")), "/operator", "did you mean LIKE"),
        (is("regex", json!("x")), "/operator", "LIKE, ==, !=, IN"),
        (is("<>", json!(1)), "/operator", "unknown operator"),
        (
            json!({"variable": "n", "operator": 1, "value": 1}),
            "/operator",
            "expected an operator",
        ),
        (
            json!({"variable": "n", "value": 1}),
            "",
            "operator is missing",
        ),
        (
            json!({"variable": "n", "operator": "=="}),
            "",
            "value is missing",
        ),
        (
            json!({"variable": "n", "operator": "==", "value": 1, "valeu": 2}),
            "/valeu",
            "did you mean value",
        ),
        // Names.
        (
            json!({"variable": 1, "operator": "==", "value": 1}),
            "/variable",
            "name",
        ),
        (condition("", "==", &json!(1)), "/variable", "empty name"),
        (condition("a..b", "==", &json!(1)), "/variable", "a..b"),
        (
            condition("cluster.", "==", &json!(1)),
            "/variable",
            "cluster.*",
        ),
        (
            condition("instances", "==", &json!(1)),
            "/variable",
            "count",
        ),
        (
            condition(&["a"; 65].join("."), "==", &json!(1)),
            "/variable",
            "64 are allowed",
        ),
        (
            condition(&"a".repeat(4097), "==", &json!(1)),
            "/variable",
            "4096",
        ),
        // Values.
        (is("==", json!([1])), "/value", "a text, a number"),
        (is("==", json!({})), "/value", "null"),
        (is("<", json!(null)), "/value", "a number or a text"),
        (is(">=", json!(true)), "/value", "a number or a text"),
        (is("==", json!("x".repeat(4097))), "/value", "4096"),
        (is("LIKE", json!(5)), "/value", "a text"),
        (is("LIKE", json!("*".repeat(4097))), "/value", "4096"),
        (is("IN", json!("a,b")), "/value", "a list"),
        (is("IN", json!([1, [2]])), "/value/1", "a text, a number"),
        (is("IN", json!(vec![1; 1025])), "/value", "1024"),
        (is("IN", json!(["x".repeat(4097)])), "/value/0", "4096"),
        (is("BETWEEN", json!(5)), "/value", "[lowest, highest]"),
        (is("BETWEEN", json!([1])), "/value", "[lowest, highest]"),
        (
            is("BETWEEN", json!([1, 2, 3])),
            "/value",
            "[lowest, highest]",
        ),
        (
            is("BETWEEN", json!([1, "2"])),
            "/value",
            "two numbers or two texts",
        ),
        (is("BETWEEN", json!([null, null])), "/value", "two numbers"),
        (is("EXISTS", json!("yes")), "/value", "true or false"),
        (is("CONTAINS", json!([1])), "/value", "a text, a number"),
        // Attributes are numbers.
        (busy(">", json!("10")), "/value", "expected a number"),
        (busy("==", json!("10")), "/value", "expected a number"),
        (busy("!=", json!(true)), "/value", "expected a number"),
        (busy("IN", json!([1, "2"])), "/value/1", "expected a number"),
        (
            busy("BETWEEN", json!(["1", "2"])),
            "/value/0",
            "expected a number",
        ),
        (busy("LIKE", json!("*1*")), "/operator", "looks into texts"),
        (busy("CONTAINS", json!(1)), "/operator", "BETWEEN"),
        (
            condition("instances.queue_length", "<", &json!("5")),
            "/value",
            "expected a number",
        ),
        (
            condition("gpu_heat", "<", &json!("5")),
            "/value",
            "expected a number",
        ),
        // Aggregates.
        (mean("LIKE", json!("x")), "/operator", "==, !=, <"),
        (mean("IN", json!([1])), "/operator", "BETWEEN"),
        (mean(">", json!("10")), "/value", "a number"),
        (mean("==", json!(null)), "/value", "a number"),
        (mean("BETWEEN", json!([1, "2"])), "/value/1", "a number"),
        (
            aggregate("median", "instances.n", ">", &json!(1)),
            "/aggOperator",
            "avg, sum, min, max, count",
        ),
        (
            aggregate("averg", "instances.n", ">", &json!(1)),
            "/aggOperator",
            "did you mean avg",
        ),
        (
            aggregate("avg", "instances", ">", &json!(1)),
            "/target",
            "only be counted",
        ),
        (
            aggregate("avg", "tokens", ">", &json!(1)),
            "/target",
            "begins with instances.",
        ),
        (
            aggregate("avg", "uptime_hour", ">", &json!(1)),
            "/target",
            "did you mean uptime_hours",
        ),
        (
            aggregate("avg", "gpu_heap", ">", &json!(1)),
            "/target",
            "did you mean gpu_heat",
        ),
        (
            aggregate("avg", "instances.", ">", &json!(1)),
            "/target",
            "empty name",
        ),
        (
            json!({"aggOperator": "avg", "operator": ">", "value": 1}),
            "",
            "target is missing",
        ),
        (
            json!({"target": "instances.n", "operator": ">", "value": 1}),
            "",
            "aggOperator is missing",
        ),
        (
            json!({"aggOperator": "avg", "target": "instances.n", "variable": "n"}),
            "/variable",
            "unknown key",
        ),
    ] {
        let error = parse(&filter).unwrap_err();
        let shown: String = filter.to_string().chars().take(200).collect();
        assert_eq!(
            error.pointer,
            format!("/filter{pointer}"),
            "{shown}: {error}"
        );
        assert!(error.message.contains(word), "{shown}: {error}");
        assert!(error.to_string().starts_with("/filter"), "{error}");
        assert!(error.message.len() < 600, "{error}");
    }
}

#[test]
fn long_names_are_not_repeated() {
    let long = "x".repeat(100_000);
    let mut keys = condition("n", "==", &json!(1));
    keys[&long] = json!(1);
    let mut parts = json!({"blockQuery": null});
    parts[&long] = json!(1);
    for filter in [
        keys,
        parts,
        json!({ (&*long): 1 }),
        condition(&format!("a..{}", &long[..4000]), "==", &json!(1)),
        condition("n", &long[..4000], &json!(1)),
        aggregate("avg", &long[..4000], ">", &json!(1)),
        condition("n", "<", &json!([long])),
    ] {
        let error = parse(&filter).unwrap_err().to_string();
        assert!(error.len() < 600, "{error}");
    }
}

#[test]
fn what_is_just_within_the_bounds_is_read() {
    let world = World::one(&json!({"n": 1}));
    for filter in [
        deep(64),
        many(256),
        condition("n", "IN", &json!(vec![1; 1024])),
        condition("x", "!=", &json!("x".repeat(4096))),
        condition(&["a"; 64].join("."), "!=", &json!(1)),
        json!({"variable": "n", "operator": "EXISTS"}),
        json!({"variable": "n", "operator": "exists", "value": true}),
    ] {
        assert!(world.meets(&parse(&filter).unwrap()));
    }
    // All parts together are one query.
    let half = many(128);
    assert!(parse(&json!({"blockQuery": half, "blockMetricsQuery": half})).is_ok());
    let error = parse(&json!({"blockQuery": many(129), "blockMetricsQuery": half})).unwrap_err();
    assert_eq!(error.pointer, "/filter/blockMetricsQuery/conditions/127");
}
