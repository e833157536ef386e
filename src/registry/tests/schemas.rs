//! What schemas say, and what they may cost.

use super::*;

#[test]
fn the_references_registration_is_read_and_its_schemas_hold() {
    let policy = read(&reference()).unwrap();
    assert_eq!(policy.uri, ATTRIBUTE_BASED);
    assert_eq!(policy.document, reference());
    assert_eq!(policy.registered_seconds(), Some(1_700_000_000));
    let words = policy.warnings.join("\n");
    assert!(words.contains("`code` and `code_type` are stored, never fetched"));
    assert!(words.contains("`METRICS_BASE_URL` has no effect"));
    assert_eq!(policy.warnings.len(), 2, "{words}");
    let entry = policy.entry().unwrap();
    assert_eq!((entry.kind.as_str(), entry.app_map.len()), ("scored", 4));

    let check = |request: Value| policy.check_parameters(request.as_object().unwrap());
    assert_eq!(check(json!({})), Ok(()));
    let good = json!({"selection_query": {"optimization_goals": [{"name": "x", "weight": 1}]}});
    assert_eq!(check(good), Ok(()));
    let bad = json!({
        "METRICS_BASE_URL": "ftp://x",
        "selection_query": {"optimization_goals": [{"weight": "much"}]},
    });
    let problems = check(bad).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths.len(), 3, "{problems:?}");
    for path in [
        "/METRICS_BASE_URL",
        "/selection_query/optimization_goals/0",
        "/selection_query/optimization_goals/0/weight",
    ] {
        assert!(paths.contains(&path), "{path} in {problems:?}");
    }
}

/// Asserts that each schema is refused, with that in the message.
#[track_caller]
fn no_schema<const N: usize>(cases: [(Value, &str); N]) {
    for (schema, part) in cases {
        let document = with(json!({"policy_parameters_schema": schema}));
        let refused = read(&document).unwrap_err();
        assert_eq!(refused.cause, Cause::Invalid, "{refused}");
        let text = refused.to_string();
        assert!(text.contains("/policy_parameters_schema"), "{text}");
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_schema_cannot_cost_more_than_it_says() {
    let mut doubling = json!({"a0": {"type": "string"}});
    for n in 1..64 {
        let before = format!("#/$defs/a{}", n - 1);
        doubling[format!("a{n}")] = json!({"allOf": [{"$ref": before}, {"$ref": before}]});
    }
    let chain: Map<String, Value> = (0..80)
        .map(|n| {
            (
                format!("a{n}"),
                json!({"$ref": format!("#/$defs/a{}", n + 1)}),
            )
        })
        .chain([("a80".to_owned(), json!({}))])
        .collect();
    let patterns: Vec<Value> = (0..33)
        .map(|n| json!({"pattern": format!("a{n}")}))
        .collect();
    let nested = |depth: usize, of: Value| (0..depth).fold(of, |inner, _| json!({"not": inner}));
    no_schema([
        (json!({"type": "object", "$ref": "#"}), "refers to itself"),
        (
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
                "type": "object", "allOf": [{"$ref": "#/$defs/a"}]}),
            "refers to itself",
        ),
        (
            json!({"$defs": doubling, "type": "object", "allOf": [{"$ref": "#/$defs/a63"}]}),
            "values",
        ),
        (
            json!({"$defs": chain, "type": "object", "allOf": [{"$ref": "#/$defs/a0"}]}),
            "levels",
        ),
        (
            json!({"type": "object", "$defs": {"a": nested(40, json!({}))},
                "not": nested(40, json!({"$ref": "#/$defs/a"}))}),
            "levels",
        ),
        (json!({"type": "object", "enum": vec![1; 10_000]}), "values"),
        (json!({"type": "object", "allOf": patterns}), "patterns"),
    ]);
}

/// A chain of so many parts, each of which refers to the next.
fn chain(length: usize) -> Value {
    let part = |n: usize| {
        (
            format!("{n:05}"),
            json!({"$ref": format!("#/$defs/{:05}", n + 1)}),
        )
    };
    let mut defs: Map<String, Value> = (0..length).map(part).collect();
    defs.insert(format!("{length:05}"), json!({"required": ["k"]}));
    json!({"$defs": defs, "type": "object", "allOf": [{"$ref": "#/$defs/00000"}]})
}

#[test]
fn a_chain_of_references_ends_before_the_stack_does() {
    let small = |of: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().stack_size(512 << 10);
        thread.spawn(of).unwrap().join().unwrap();
    };
    small(Box::new(|| {
        no_schema([(chain(20_000), "more than 64 levels")])
    }));
    // What is just let in neither overflows who compiles it nor who asks it.
    let most = (0..200).rev().find_map(|length| {
        let document = with(json!({"policy_parameters_schema": chain(length)}));
        read(&document).ok().map(|policy| (length, policy))
    });
    let (length, policy) = most.unwrap();
    assert!((20..64).contains(&length), "{length}");
    let mut nested = json!({"type": "object", "properties": {"k": {"type": "number"}}});
    while let Ok(deeper) = read(&with(json!({"policy_parameters_schema": {
        "type": "object", "allOf": [nested.clone()]}})))
    {
        nested = deeper.document["policy_parameters_schema"].clone();
    }
    let document = with(json!({"policy_parameters_schema": nested}));
    small(Box::new(move || {
        let request = json!({"k": "x"});
        let check = |policy: &Registered| policy.check_parameters(request.as_object().unwrap());
        assert_eq!(check(&policy), Ok(()));
        assert!(policy.check_parameters(&Map::new()).is_err());
        assert!(check(&read(&document).unwrap()).is_err());
    }));
}

#[test]
fn what_a_schema_is_asked_of_is_bounded_together_with_it() {
    let nots: Vec<Value> = (0..3000).map(|n| json!({"not": {"const": n}})).collect();
    let schema = json!({"type": "object", "properties": {"k": {"items": {"allOf": nots}}}});
    let document = with(json!({"policy_parameters_schema": schema}));
    let policy = read(&document).unwrap();
    let check = |request: Value| policy.check_parameters(request.as_object().unwrap());
    assert_eq!(check(json!({"k": vec!["x"; 50]})), Ok(()));
    for large in [
        json!({"k": vec![-1; 10_000]}),
        json!({"k": "x".repeat(64 << 10)}),
    ] {
        let problems = check(large).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].message.contains("is too large to be checked"),
            "{problems:?}"
        );
    }
    // As what is registered.
    let mut document = document;
    document["policy_parameters"] = json!({"k": vec![-1; 10_000]});
    refused([(
        document,
        422,
        "/policy_parameters: is too large to be checked",
    )]);
}

#[test]
fn what_looks_again_at_all_beside_it_is_bounded() {
    let nested = |depth: usize| {
        (0..depth).fold(
            json!({"type": "object", "properties": {"k": {}}}),
            |inner, _| json!({"type": "object", "allOf": [inner], "unevaluatedProperties": false}),
        )
    };
    no_schema([(nested(5), "`unevaluated...`")]);
    let policy = read(&with(json!({"policy_parameters_schema": nested(4)}))).unwrap();
    let check = |request: Value| policy.check_parameters(request.as_object().unwrap());
    assert_eq!(check(json!({"k": 1})), Ok(()));
    assert!(check(json!({"l": 1})).is_err());
}

#[test]
fn what_is_required_a_request_may_bring() {
    let schema = json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "number"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "minProperties": 2});
    let policy = read(&with(json!({
        "policy_parameters_schema": schema, "policy_parameters": {"z": 1}})))
    .unwrap();
    let check = |request: Value| policy.check_parameters(request.as_object().unwrap());
    assert_eq!(check(json!({"k": 1, "a": 1})), Ok(()));
    let missing = check(json!({})).unwrap_err();
    assert_eq!(missing.len(), 3, "{missing:?}");
    assert!(
        missing
            .iter()
            .any(|one| one.message.contains("\"k\" is a required"))
    );
    assert!(check(json!({"k": "x", "a": 1})).is_err());
    refused([
        // What is given is right, and within what is given nobody brings anything.
        (
            with(json!({"policy_parameters_schema": schema, "policy_parameters": {"k": "x"}})),
            422,
            "/policy_parameters/k: ",
        ),
        (
            with(json!({
                "policy_parameters_schema": {"k": {"type": "object", "required": ["x"]}},
                "policy_parameters": {"k": {}},
            })),
            422,
            "/policy_parameters/k: ",
        ),
        // Nobody brings settings.
        (
            with(json!({"policy_settings_schema": schema})),
            422,
            "/policy_settings: ",
        ),
    ]);
}

#[test]
fn compiled_schemas_take_room_among_all_documents() {
    let patterns: Vec<Value> = (0..32)
        .map(|n| json!({"pattern": format!("a{n}")}))
        .collect();
    let document = |name: &str| {
        let schema = json!({"type": "object", "allOf": patterns});
        read(&with(
            json!({"name": name, "policy_parameters_schema": schema}),
        ))
        .unwrap()
    };
    let mut registry = Registry::default();
    let mut room = 0;
    let full = loop {
        match registry.with(document(&format!("p{room}")), Known::Refuse) {
            Ok(more) => registry = more,
            Err(full) => break full,
        }
        room += 1;
    };
    assert_eq!((full.cause, room), (Cause::Full, 7));
    // Each reference is compiled by itself.
    let references = vec![json!({"$ref": "#/$defs/p"}); 33];
    no_schema([(
        json!({"type": "object", "$defs": {"p": {"pattern": "x"}}, "allOf": references}),
        "patterns",
    )]);
}

#[test]
fn a_schema_refers_to_nothing_outside_and_its_patterns_are_small() {
    no_schema([
        (
            json!({"type": "object", "$ref": "http://127.0.0.1:1/x"}),
            "nothing is fetched",
        ),
        (
            json!({"type": "object", "$ref": "file:///etc/passwd"}),
            "nothing is fetched",
        ),
        (
            json!({"type": "object", "$ref": "other.json"}),
            "nothing is fetched",
        ),
        (
            json!({"type": "object", "$ref": "#/$defs/none"}),
            "there is no",
        ),
        (
            json!({"type": "object", "$dynamicRef": "#x"}),
            "is not supported",
        ),
        (
            json!({"type": "object", "not": {"$id": "http://x/y"}}),
            "is not supported",
        ),
        (
            json!({"type": "object", "not": {"$schema": "http://json-schema.org/draft-04/schema#"}}),
            "is not supported",
        ),
        (json!({"$schema": "http://example.com/own"}), "/$schema: "),
        (
            json!({"properties": {"a": {"pattern": "(a{1000}){1000}"}}}),
            "pattern",
        ),
        (json!({"properties": {"a": {"pattern": "("}}}), "pattern"),
        // What only an engine that goes back can do.
        (
            json!({"properties": {"a": {"pattern": r"^(a+)\1$"}}}),
            "pattern",
        ),
    ]);
}

#[test]
fn schemas_that_are_good_are_compiled() {
    for (schema, good, bad) in [
        // A property may be called `type`, and a schema may have parts.
        (
            json!({"type": {"type": "string"}}),
            json!({"type": "x"}),
            json!({"type": 1}),
        ),
        (
            json!({"$defs": {"s": {"type": "string"}}, "properties": {
                "a": {"$ref": "#/$defs/s"}, "b": {"$ref": "#/$defs/s"}}}),
            json!({"a": "x"}),
            json!({"b": 1}),
        ),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "http://x/y",
                "properties": {"a~b/c": {"minimum": 2}}}),
            json!({"a~b/c": 2}),
            json!({"a~b/c": 1}),
        ),
        // It would take for ever on an engine that goes back.
        (
            json!({"properties": {"a": {"pattern": "^(a+)+$"}}}),
            json!({"a": "a".repeat(1000)}),
            json!({"a": "a".repeat(100_000) + "!"}),
        ),
        (
            json!({"properties": {"a": {"type": "array", "uniqueItems": true}}}),
            json!({"a": (0..20_000).collect::<Vec<_>>()}),
            json!({"a": [1, 2, 1]}),
        ),
    ] {
        let policy = read(&with(json!({"policy_parameters_schema": schema}))).unwrap();
        let check = |request: &Value| policy.check_parameters(request.as_object().unwrap());
        assert_eq!(check(&good), Ok(()), "{schema}");
        assert!(check(&bad).is_err(), "{schema}");
    }
}

#[test]
fn violations_are_told_of_briefly_and_without_the_values() {
    let policy = read(&with(json!({"policy_parameters_schema": {
        "keys": {"type": "array", "items": {"type": "number"}}}})))
    .unwrap();
    let request = json!({"keys": vec!["a secret"; 5000]});
    let problems = policy
        .check_parameters(request.as_object().unwrap())
        .unwrap_err();
    assert_eq!(problems.len(), 16);
    assert!(problems.iter().all(|one| !one.message.contains("secret")));
}
