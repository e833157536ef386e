mod fit;
mod schemas;

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::*;

fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn read(document: &Value) -> Result<Registered, Refused> {
    Registered::read(document.to_string().as_bytes(), at())
}

/// A small document with that in it.
fn with(fields: Value) -> Value {
    let mut document = json!({"name": "p", "version": "1", "release_tag": "a"});
    let Value::Object(fields) = fields else {
        panic!("no object")
    };
    document.as_object_mut().unwrap().extend(fields);
    document
}

fn named(name: &str) -> Registered {
    read(&with(json!({"name": name}))).unwrap()
}

/// The reference's registration, as its guide has it.
fn reference() -> Value {
    let text = include_str!("../../tests/fixtures/attributebasedrouter.json");
    serde_json::from_str(text).unwrap()
}

/// Asserts that each is refused, with that status and that in the message.
#[track_caller]
fn refused<const N: usize>(cases: [(Value, u16, &str); N]) {
    for (document, status, part) in cases {
        let refused = read(&document).unwrap_err();
        assert_eq!(refused.cause.words().0, status, "{refused}");
        assert!(refused.to_string().contains(part), "{part} in {refused}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let long = "x".repeat(129);
    refused([
        (json!([]), 400, "as a JSON object"),
        (
            json!({}),
            400,
            "/name: is missing; /version: is missing; /release_tag: is missing",
        ),
        (
            json!({"name": "p", "version": "1"}),
            400,
            ": /release_tag: is missing",
        ),
        (
            with(json!({"name": ""})),
            400,
            "/name: expected a text that is not empty",
        ),
        (
            with(json!({"version": 2.0})),
            400,
            "/version: expected a text",
        ),
        (
            with(json!({"name": "a:b"})),
            400,
            "/name: expected letters, digits",
        ),
        (
            with(json!({"name": "../x"})),
            400,
            "/name: expected letters",
        ),
        (with(json!({"name": long})), 400, "/name: may have 128"),
        (
            with(json!({"type": "magic"})),
            400,
            "/type: \"magic\" is unknown; expected \"policy\" or",
        ),
        (with(json!({"type": 1})), 400, "/type: 1 is unknown"),
        (
            with(json!({"policy_settings": []})),
            400,
            "/policy_settings: expected an object",
        ),
        (
            with(json!({"policy_input_schema": 1})),
            400,
            "/policy_input_schema: expected an object",
        ),
    ]);
}

#[test]
fn what_is_wrong_within_a_field_is_pointed_at() {
    refused([
        (
            with(json!({"type": "remote"})),
            400,
            "/url: is missing among policy_settings",
        ),
        (
            with(json!({"type": "llm"})),
            400,
            "/llm_block_id: is missing",
        ),
        (
            with(json!({"policy_settings": {"APP_MAP": {"RAG": 1}}})),
            400,
            "/APP_MAP: invalid type",
        ),
        (
            with(json!({"policy_parameters": {"selection_query": {"application_type": []}}})),
            400,
            "/selection_query/application_type: ",
        ),
        (
            with(json!({"policy_parameters_schema": {"type": "objekt"}})),
            400,
            "/policy_parameters_schema/type: ",
        ),
        (
            with(json!({"policy_parameters_schema": {"x": {"type": "objekt"}}})),
            400,
            "a schema is read as the `properties` of an object",
        ),
        (
            with(json!({
                "policy_settings_schema": {"a": {"type": "number"}, "b": {"type": "string"}},
                "policy_settings": {"a": "x", "b": 2},
                "policy_parameters_schema": {"k": {"type": "string"}},
                "policy_parameters": {"k": 1},
            })),
            422,
            "/policy_settings/b: it is not of type \"string\"; /policy_parameters/k: ",
        ),
    ]);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let refused = Registered::read(b"{", at()).unwrap_err();
    assert!(refused.to_string().starts_with("no JSON"), "{refused}");
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(
        Registered::read(deep.as_bytes(), at()).unwrap_err().cause,
        Cause::Invalid
    );
    let large = vec![b' '; MOST_DOCUMENT + 1];
    assert_eq!(
        Registered::read(&large, at()).unwrap_err().cause,
        Cause::TooLarge
    );
}

#[test]
fn a_request_comes_before_parameters_before_settings_before_defaults() {
    let map = |value: Value| value.as_object().unwrap().clone();
    let holds = merged(
        &map(json!({"a": 1, "b": 1, "c": 1, "d": 1})),
        &map(json!({"b": 2, "c": 2, "d": 2})),
        &map(json!({"c": 3, "d": {"x": 3}})),
        &map(json!({"d": {"y": 4}})),
    );
    assert_eq!(
        Value::Object(holds),
        json!({"a": 1, "b": 2, "c": 3, "d": {"y": 4}})
    );

    let policy = read(&with(json!({
        "policy_settings": {"selection_query": {"application_type": "RAG"}, "k": 1},
        "policy_parameters": {"k": 2},
    })))
    .unwrap();
    let holds = policy.holds(&map(json!({"k": 3})));
    assert_eq!(holds["k"], 3);
    assert_eq!(holds["APP_MAP"]["Vision"], "multi-modal");
    assert_eq!(policy.holds(&Map::new())["k"], 2);
}

#[test]
fn documents_become_policies_of_the_file() {
    let goal = json!({"attribute": "latency_ms", "direction": "min", "weight": 0.7});
    let entry = |fields: Value| serde_json::to_value(read(&with(fields)).unwrap().entry().unwrap());
    let app_map = json!({"RAG": "chat-completion", "Code": "code-generation",
        "Vision": "multi-modal", "Chat": "chat-completion"});
    let parameters = json!({
        "filterRule": {"matchType": "block", "filter": {"blockQuery": {"conditions": []}}},
        "selection_query": {"application_type": "RAG", "optimization_goals": [goal]},
        "instance_policy": "roundrobin",
    });
    assert_eq!(
        entry(json!({"policy_parameters": parameters})).unwrap(),
        json!({"type": "scored", "app_map": app_map, "application_type": "RAG", "goals": [goal],
            "filter": {"blockQuery": {"conditions": []}}, "instance_policy": "roundrobin"})
    );
    assert_eq!(
        entry(json!({"type": "remote", "policy_settings": {
            "url": "http://r/x", "deadline": "50ms", "ttl": 5, "APP_MAP": {}}}))
        .unwrap(),
        json!({"type": "remote", "url": "http://r/x", "deadline": 0.05, "ttl": 5.0, "goals": []})
    );
    assert_eq!(
        entry(
            json!({"type": "llm", "policy_settings": {"APP_MAP": {}}, "policy_parameters": {
            "llm_block_id": "b", "llm_server_address": "http://s", "query_string": "fast"}})
        )
        .unwrap(),
        json!({"type": "llm", "block": "b", "server": "http://s", "query_string": "fast",
            "goals": []})
    );
}

#[test]
fn the_first_registration_over_a_built_in_one_stands_until_it_is_deleted() {
    let empty = Registry::default();
    assert_eq!(empty.uris(), [ATTRIBUTE_BASED, ALIAS]);
    assert_eq!(
        empty.without(ATTRIBUTE_BASED).unwrap_err().cause,
        Cause::BuiltIn
    );
    let mut own = reference();
    own["policy_settings"]["APP_MAP"] = json!({"RAG": "retrieval"});
    let one = empty.with(read(&own).unwrap(), Known::Refuse).unwrap();
    let entry = |of: &Registry, uri: &str| of.get(uri).unwrap().entry().unwrap();
    let app_map = |of: &Registry, uri: &str| entry(of, uri).app_map["RAG"].clone();
    assert_eq!(app_map(&empty, ATTRIBUTE_BASED), "chat-completion");
    assert_eq!(app_map(&one, ATTRIBUTE_BASED), "retrieval");
    assert_eq!(app_map(&one, ALIAS), "retrieval");
    let again = || read(&reference()).unwrap();
    assert_eq!(
        one.with(again(), Known::Refuse).unwrap_err().cause,
        Cause::Exists
    );
    let replaced = one.with(again(), Known::Replace).unwrap();
    assert_eq!(app_map(&replaced, ATTRIBUTE_BASED), "chat-completion");
    let restored = one.without(ATTRIBUTE_BASED).unwrap();
    assert_eq!(app_map(&restored, ATTRIBUTE_BASED), "chat-completion");
    assert!(
        restored
            .get(ATTRIBUTE_BASED)
            .unwrap()
            .registered_at
            .is_none()
    );
    let mut remote = reference();
    remote["type"] = json!("remote");
    remote["policy_settings"]["url"] = json!("http://x");
    let refused = empty
        .with(read(&remote).unwrap(), Known::Refuse)
        .unwrap_err();
    assert_eq!(refused.cause, Cause::Invalid);
    assert_eq!(empty.without("p:1-a").unwrap_err().cause, Cause::Unknown);
}

#[test]
fn a_replacement_is_of_its_uri() {
    let registry = Registry::default().with(named("p"), Known::Refuse).unwrap();
    let replace =
        |uri: &str, body: Value| registry.replacement(uri, body.to_string().as_bytes(), at());
    assert_eq!(
        replace("p:1-a", json!({"description": "x"})).unwrap().uri,
        "p:1-a"
    );
    assert_eq!(replace(ALIAS, json!({})).unwrap().uri, ALIAS);
    let other = replace("p:1-a", json!({"name": "q"})).unwrap_err();
    assert!(
        other
            .to_string()
            .contains("make q:1-a, and the path says p:1-a"),
        "{other}"
    );
    assert_eq!(
        replace("q:1-a", json!({})).unwrap_err().cause,
        Cause::Unknown
    );
}

#[test]
fn there_is_a_most_of_everything() {
    let mut registry = Registry::default();
    for n in 0..MOST_POLICIES {
        let policy = named(&format!("p{n}"));
        registry = registry.with(policy, Known::Refuse).unwrap();
    }
    let full = registry.with(named("more"), Known::Refuse).unwrap_err();
    assert_eq!(full.cause.words().0, 507);
    assert!(registry.with(named("p0"), Known::Replace).is_ok());

    let mut registry = Registry::default();
    let text = "x".repeat(MOST_DOCUMENT - 1000);
    for n in 0..15 {
        let large = read(&with(json!({"name": format!("p{n}"), "description": text}))).unwrap();
        registry = registry.with(large, Known::Refuse).unwrap();
    }
    let large = || read(&with(json!({"name": "x", "description": text}))).unwrap();
    let registry = registry.with(large(), Known::Refuse).unwrap();
    assert_eq!(registry.with(named("y"), Known::Refuse).map(|_| ()), Ok(()));
    let more = read(&with(json!({"name": "y", "description": text}))).unwrap();
    assert_eq!(
        registry.with(more, Known::Refuse).unwrap_err().cause,
        Cause::Full
    );
}

#[test]
fn documents_are_found_by_their_fields() {
    let document = with(json!({"metadata": {"author": "admin", "n": [1, 2]}}));
    let registry = Registry::default()
        .with(read(&document).unwrap(), Known::Refuse)
        .and_then(|registry| registry.with(named("q"), Known::Refuse))
        .unwrap();
    for (query, found) in [
        (json!({}), 2),
        (json!({"name": "p"}), 1),
        (json!({"version": "1"}), 2),
        (json!({"metadata.author": "admin", "name": "p"}), 1),
        (json!({"metadata.author": "admin", "name": "q"}), 0),
        (json!({"metadata.n.1": 2}), 1),
        (json!({"metadata": {"author": "admin", "n": [1, 2]}}), 1),
        (json!({"none": null}), 0),
    ] {
        let count = registry.matching(query.as_object().unwrap()).count();
        assert_eq!(count, found, "{query}");
    }
}

#[test]
fn documents_are_of_few_levels() {
    let nested = |levels: usize| {
        let inner = (0..levels - 2).fold(json!(1), |inner, _| json!([inner]));
        with(json!({"metadata": inner}))
    };
    assert!(read(&nested(64)).is_ok());
    refused([(nested(65), 400, "has 65 levels; the most is 64")]);
}
