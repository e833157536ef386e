//! What registered policies mean beside a configuration, and those that do not
//! fit it.

use super::*;
use crate::config::attribute::Attribute;
use crate::config::dynamic::DynamicFile;

#[test]
fn registered_policies_are_resolved_beside_the_files_own() {
    let keys = |routing: &str| -> DynamicFile {
        serde_json::from_value(json!({
            "service_discovery": "static", "static_backends": "http://a", "static_models": "m",
            "routing_logic": routing, "policies": {"own": {"type": "random"}},
        }))
        .unwrap()
    };
    let empty = Registry::default();
    let named_policies = |resolved: &InForce| -> Vec<String> {
        resolved.settings.routing.named.keys().cloned().collect()
    };
    // The built-in ones are there, want nothing of their own, and cost no look at
    // engines' pages.
    let plain = empty.resolve(&keys("roundrobin")).unwrap();
    assert_eq!(named_policies(&plain), [ATTRIBUTE_BASED, ALIAS, "own"]);
    assert_eq!(plain.warnings, Vec::<String>::new());
    assert!(!plain.settings.looks_at_live());
    for uri in BUILT_IN {
        let scored = plain.settings.routing.named[uri].kind.scored().unwrap();
        assert_eq!((scored.goals.len(), &scored.filter), (0, &None));
    }
    let mut restricted = keys("roundrobin");
    restricted.request_headers = serde_json::from_value(json!({"policies": ["own"]})).unwrap();
    let restricted = empty.resolve(&restricted).unwrap();
    assert_eq!(named_policies(&restricted), ["own"]);
    let built_in = empty.resolve(&keys(ATTRIBUTE_BASED)).unwrap();
    assert_eq!(&*built_in.settings.routing.policy.name, ATTRIBUTE_BASED);
    let alias = empty.resolve(&keys(ALIAS)).unwrap();
    assert_eq!(
        alias.settings.routing.policy.kind,
        built_in.settings.routing.policy.kind
    );

    let registry = empty.with(named("p"), Known::Refuse).unwrap();
    assert!(empty.resolve(&keys("p:1-a")).is_err());
    let resolved = registry.resolve(&keys("p:1-a")).unwrap();
    assert_eq!(
        named_policies(&resolved),
        [ATTRIBUTE_BASED, ALIAS, "own", "p:1-a"]
    );
    assert_eq!(&*resolved.settings.routing.policy.name, "p:1-a");

    let mut file = keys("roundrobin");
    let own = file.policies.as_mut().unwrap();
    own.insert("p:1-a".to_owned(), own["own"].clone());
    let resolved = registry.resolve(&file).unwrap();
    assert_eq!(
        resolved.settings.routing.named["p:1-a"].kind.name(),
        "random"
    );
    assert_eq!(resolved.warnings.len(), 1, "{:?}", resolved.warnings);
}

/// A small configuration with these keys in it.
fn file(keys: Value) -> DynamicFile {
    let mut file = json!({
        "service_discovery": "static", "static_backends": "http://a", "static_models": "m",
        "routing_logic": "roundrobin",
    });
    let Value::Object(keys) = keys else {
        panic!("no object")
    };
    file.as_object_mut().unwrap().extend(keys);
    serde_json::from_value(file).unwrap()
}

/// A registry with a policy that asks a URL, and one with a goal of that name.
fn needy() -> Registry {
    let remote = json!({"name": "r", "type": "remote", "policy_settings": {"url": "http://x:1/"}});
    let goals = json!({"selection_query": {"optimization_goals": [{"name": "mine"}]}});
    let goal = json!({"name": "g", "policy_parameters": goals});
    [remote, goal]
        .into_iter()
        .fold(Registry::default(), |registry, one| {
            registry
                .with(read(&with(one)).unwrap(), Known::Refuse)
                .unwrap()
        })
}

#[test]
fn a_policy_that_no_longer_fits_is_set_aside_unless_it_is_named() {
    let registry = needy();
    let mine = json!({"mine": [{"attribute": "latency_ms", "direction": "min"}]});
    let all = file(json!({"goals": mine, "matchers": ["http://x:1"]}));
    let resolved = registry.resolve(&all).unwrap();
    assert_eq!(resolved.set_aside, []);
    assert!(resolved.settings.routing.named.contains_key("r:1-a"));

    let neither = registry.resolve(&file(json!({}))).unwrap();
    let told: Vec<_> = neither
        .set_aside
        .iter()
        .map(|one| (&*one.uri, one.to_string()))
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].0, "g:1-a");
    assert!(
        told[0].1.starts_with("goals[0].name: \"mine\" is unknown"),
        "{told:?}"
    );
    assert_eq!(
        (told[1].0, told[1].1.split(' ').next()),
        ("r:1-a", Some("url:"))
    );
    let named = &neither.settings.routing.named;
    assert!(!named.contains_key("g:1-a") && !named.contains_key("r:1-a"));
    assert!(registry.set_aside("r:1-a", &file(json!({}))).is_some());
    assert_eq!(registry.set_aside("r:1-a", &all), None);

    for (keys, by) in [
        (
            json!({"routing_logic": "r:1-a"}),
            "(routing_logic names it)",
        ),
        (
            json!({"request_headers": {"policies": ["r:1-a"]}}),
            "(request_headers.policies names it)",
        ),
    ] {
        let problems = registry.resolve(&file(keys)).unwrap_err();
        let [problem] = &problems[..] else {
            panic!("{problems:?}")
        };
        let text = problem.to_string();
        assert!(text.starts_with("registered policy r:1-a: url: "), "{text}");
        assert!(text.ends_with(by), "{text}");
    }
    // The file's own has the name: what is registered is not judged.
    let own = file(json!({"policies": {"r:1-a": {"type": "random"}, "g:1-a": {"type": "random"}}}));
    let resolved = registry.resolve(&own).unwrap();
    assert_eq!((resolved.set_aside.len(), resolved.warnings.len()), (0, 2));
    // What is wrong with the keys themselves is no policy's fault.
    let wrong = file(json!({"goals": {"mine": []}, "matchers": ["http://x:1"]}));
    let problems = registry.resolve(&wrong).unwrap_err();
    assert!(problems[0].path.starts_with("goals.mine"), "{problems:?}");
}

#[test]
fn a_built_in_policy_whose_settings_no_longer_fit_is_as_it_was_made() {
    let mut own = reference();
    own["policy_settings"]["APP_MAP"] = json!({"RAG": "retrieval"});
    own["policy_parameters"] =
        json!({"selection_query": {"optimization_goals": [{"name": "mine", "weight": 1}]}});
    let registry = Registry::default()
        .with(read(&own).unwrap(), Known::Refuse)
        .unwrap();
    let resolved = registry.resolve(&file(json!({}))).unwrap();
    assert_eq!(resolved.set_aside.len(), 2, "its other name too");
    for uri in BUILT_IN {
        let kind = &resolved.settings.routing.named[uri].kind;
        assert_eq!(kind.scored().unwrap().app_map["RAG"], "chat-completion");
    }
}

#[test]
fn keys_of_metadata_beyond_the_columns_are_looked_up_by_path() {
    let mut registry = Registry::default();
    for n in 0..20 {
        let goal = |g: usize| json!({"attribute": format!("k{n}.{g}"), "direction": "max"});
        let goals: Vec<Value> = (0..16).map(goal).collect();
        let selection = json!({"selection_query": {"optimization_goals": goals}});
        let document = with(json!({"name": format!("p{n:02}"), "policy_parameters": selection}));
        registry = registry
            .with(read(&document).unwrap(), Known::Refuse)
            .unwrap();
    }
    let resolved = registry.resolve(&file(json!({}))).unwrap();
    assert_eq!(resolved.set_aside, []);
    let routing = &resolved.settings.routing;
    let usual = Registry::default().resolve(&file(json!({}))).unwrap();
    assert_eq!(
        routing.columns.len(),
        usual.settings.routing.columns.len() + 64
    );
    let is_path = |name: &str| {
        let scored = routing.named[name].kind.scored().unwrap();
        let mut goals = scored.goals.iter();
        goals.all(|goal| {
            matches!(&goal.attribute, Attribute::Path(path)
            if **path == *goal.name)
        })
    };
    assert!(!is_path("p00:1-a") && is_path("p19:1-a"));
}

#[test]
fn what_may_be_registered_elsewhere_is_no_fault_of_a_file() {
    let mut keys = file(json!({
        "routing_logic": "p:1-a", "policies": {"q:1-a": {"type": "random"}},
        "request_headers": {"policies": ["q:1-a", "r:2.0-b", "typo", ATTRIBUTE_BASED]},
    }));
    let taken = without_unregistered(&mut keys);
    let expected = [
        ("routing_logic", "p:1-a"),
        ("request_headers.policies", "r:2.0-b"),
    ];
    assert_eq!(taken, expected.map(|(key, name)| (key, name.to_owned())));
    let problems = Registry::default().resolve(&keys).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("typo"), "{problems:?}");
}
