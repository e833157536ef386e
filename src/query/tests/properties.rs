//! What holds for any query.

use proptest::prelude::*;

use super::*;

/// Any JSON, with the language's words strewn in.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "AND",
        "OR",
        "NOT",
        "LIKE",
        "==",
        "IN",
        "<",
        "BETWEEN",
        "EXISTS",
        "CONTAINS",
        "avg",
        "count",
        "instances",
        "instances.x",
        "requests_running",
        "component.x",
        "a[0].b",
        "id",
        "cluster.id",
        "block",
        "Parser/V1",
        "",
        "a..b",
        "*x*",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "variable",
        "operator",
        "value",
        "logicalOperator",
        "conditions",
        "aggOperator",
        "target",
        "blockQuery",
        "blockMetricsQuery",
        "clusterQuery",
        "header",
        "body",
        "values",
        "matchType",
        "rankingPolicyRule",
        "parameters",
        "filterRule",
        "filter",
        "selection_query",
        "goals",
        "optimization_goals",
        "policy",
        "x",
        "x/y~z",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Any condition that is well formed.
fn any_condition() -> impl Strategy<Value = Value> {
    let variable = prop::sample::select(vec![
        "n",
        "word",
        "list",
        "missing",
        "objects.v",
        "id",
        "region",
        "instances.score",
    ]);
    let operator = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let value = prop_oneof![(0..4).prop_map(Value::from), "[ab]".prop_map(Value::from)];
    let simple = (variable, operator.clone(), value)
        .prop_map(|(variable, operator, value)| condition(variable, operator, &value));
    let how = prop::sample::select(vec!["avg", "sum", "min", "max", "count"]);
    let target = prop::sample::select(vec!["instances.score", "instances.queue_length"]);
    let many = (how, target, operator, 0..4)
        .prop_map(|(how, target, operator, value)| aggregate(how, target, operator, &json!(value)));
    let word = prop::sample::select(vec!["AND", "OR", "NOT"]);
    prop_oneof![simple, many].prop_recursive(3, 16, 3, move |inner| {
        (word.clone(), prop::collection::vec(inner, 1..4))
            .prop_map(|(operator, conditions)| join(operator, &conditions))
    })
}

fn small() -> World {
    let metadata =
        json!({"n": 2, "word": "a", "list": [1, 3], "objects": [{"v": 1}, {"v": 2}], "score": 1});
    let world = World::of(&[
        json!({"region": "a", "metadata": metadata}),
        json!({"region": "b", "metadata": {"score": 2}}),
        json!({"metadata": {"score": "b"}}),
    ]);
    world.tell(0, &[(Live::RequestsWaiting.into(), 1.0)], 1);
    world.tell(1, &[(Live::RequestsWaiting.into(), 2.0)], 100);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_read_or_refused(json in any_json()) {
        for result in [Envelope::search(&json), Envelope::filter(&json)] {
            if let Err(error) = result {
                // What is wrong, or missing, is there.
                prop_assert!(json.pointer(&error.pointer).is_some(), "{}", error);
            }
        }
        match Query::parse(&json, "", Vocabulary { own: &own() }) {
            Err(error) => prop_assert!(json.pointer(&error.pointer).is_some(), "{}", error),
            Ok(query) => {
                let world = small();
                let subject = Subject { id: "x", list: world.list(), members: &[0, 1, 2] };
                let _ = query.admits_live(&subject, by());
                let _ = query.explain(&subject, by());
            }
        }
    }

    #[test]
    fn joins_are_what_they_are_in_logic(conditions in prop::collection::vec(any_condition(), 1..4)) {
        let world = small();
        let meets = |asked: &Value| world.meets(&parse(asked).unwrap());
        let each: Vec<bool> = conditions.iter().map(meets).collect();
        let not: Vec<Value> = conditions.iter().map(|one| join("NOT", std::slice::from_ref(one))).collect();
        prop_assert_eq!(meets(&join("AND", &conditions)), each.iter().all(|is| *is));
        prop_assert_eq!(meets(&join("OR", &conditions)), each.iter().any(|is| *is));
        prop_assert_eq!(meets(&join("NOT", &conditions)), !each.iter().any(|is| *is));
        let none = meets(&join("NOT", &[join("OR", &conditions)]));
        prop_assert_eq!(none, meets(&join("AND", &not)));
        let not_all = meets(&join("NOT", &[join("AND", &conditions)]));
        prop_assert_eq!(not_all, meets(&join("OR", &not)));
        let together = conditions.iter().map(|one| parse(one).unwrap());
        let together = together.fold(Query::everything(), Query::and);
        prop_assert_eq!(world.meets(&together), each.iter().all(|is| *is));
    }

    #[test]
    fn an_explanation_agrees_with_the_answer(condition in any_condition()) {
        let world = small();
        let query = parse(&condition).unwrap();
        let subject = Subject { id: "blk-1", list: world.list(), members: &[0, 1, 2] };
        let seen = query.explain(&subject, by());
        if let [one] = seen.as_slice() && condition.get("conditions").is_none() {
            prop_assert_eq!(one.holds, world.meets(&query));
        }
        prop_assert!(!seen.is_empty());
    }
}
