use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config::attribute::Attribute;
use crate::config::dynamic::DynamicFile;
use crate::discovery::listed;
use crate::fleet::testing::{fleet, spec};
use crate::registry::{Known, Registered};

fn snapshot(keys: Value) -> Arc<Snapshot> {
    let mut all = json!({
        "service_discovery": "static", "routing_logic": "roundrobin",
        "engines": [{"url": "http://a:1", "models": ["m"], "metadata": {"size": 7}}],
        "matchers": ["http://listed:9/"],
    });
    let Value::Object(keys) = keys else {
        panic!("no keys");
    };
    all.as_object_mut().unwrap().extend(keys);
    let keys: DynamicFile = serde_json::from_value(all).unwrap();
    let settings = crate::config::resolve::resolve(&keys).unwrap().settings;
    let specs = listed::specs(&settings.engines, &Default::default());
    let mut fleet = fleet();
    fleet.apply(Arc::new(settings), specs);
    fleet.published().load_full()
}

fn selected(snapshot: &Snapshot, document: &Value) -> Result<Arc<Policy>, SelectError> {
    let envelope = Envelope::search(document)?;
    let base = snapshot.policies.find("p");
    compile((&envelope, 100), snapshot, base).map(|selection| selection.policy)
}

#[test]
fn what_the_request_says_comes_first() {
    let snapshot = snapshot(json!({"policies": {"p": {
        "type": "scored", "application_type": "Chat", "app_map": {"Chat": "talk"},
        "goals": [{"name": "Free_Block"}], "instance_policy": "random",
    }}}));
    let of = |document: Value| selected(&snapshot, &document).unwrap();
    let nothing = of(json!({"policy": "p"}));
    let told = &snapshot.policies.find("p").unwrap().spec;
    assert_eq!(nothing.spec, *told);
    let goals = of(json!({"goals": [{"attribute": "size", "direction": "min", "weight": 2}]}));
    let goals = goals.spec.kind.scored().unwrap();
    let told = told.kind.scored().unwrap();
    assert_eq!(
        (&goals.filter, &goals.instance),
        (&told.filter, &told.instance)
    );
    assert_eq!(goals.goals.len(), 1);
    assert_eq!(goals.goals[0].attribute, Attribute::Path(Arc::from("size")));
    let filter = of(json!({"filter": {"variable": "id", "operator": "==", "value": "m"}}));
    let filter = filter.spec.kind.scored().unwrap();
    assert_ne!(filter.filter, told.filter);
    assert_eq!(filter.goals, told.goals);
}

#[test]
fn nobody_has_us_ask_whom_the_configuration_does_not_list() {
    let snapshot = snapshot(json!({"policies": {
        "p": {"type": "remote", "url": "http://own:9"},
        "judge": {"type": "llm", "block": "m"},
        "other": {"type": "llm", "block": "other"},
        "far": {"type": "llm", "block": "m", "server": "http://own:9"},
    }}));
    let ask = |policy: &str, parameters: Value| {
        selected(
            &snapshot,
            &json!({"policy": policy, "parameters": parameters}),
        )
    };
    for (policy, parameters, is_fine) in [
        ("p", json!({}), true),
        ("p", json!({"url": "http://listed:9"}), true),
        ("p", json!({"url": "http://169.254.169.254/latest"}), false),
        (
            "judge",
            json!({"llm_server_address": "http://listed:9"}),
            true,
        ),
        (
            "judge",
            json!({"llm_server_address": "http://listed:9/more"}),
            false,
        ),
        (
            "judge",
            json!({"llm_block_id": "other", "query_string": " x "}),
            true,
        ),
        ("judge", json!({"llm_block_id": "m"}), true),
        // Blocks and models of ours that no policy asks.
        ("judge", json!({"llm_block_id": "large"}), false),
        ("judge", json!({"llm_block_id": ""}), false),
        ("far", json!({"llm_block_id": "m"}), true),
        ("far", json!({"llm_block_id": "other"}), false),
        (
            "judge",
            json!({"llm_block_id": "large", "llm_server_address": "http://listed:9"}),
            true,
        ),
    ] {
        let found = ask(policy, parameters.clone());
        assert_eq!(found.is_ok(), is_fine, "{policy} {parameters} {found:?}");
        if let Err(error) = found {
            let text = error.to_string();
            let is_told = ["matchers", "type llm"]
                .iter()
                .any(|word| text.contains(word));
            assert!(is_told, "{error}");
        }
    }
    let judge = ask(
        "judge",
        json!({"llm_block_id": "other", "query_string": " x "}),
    )
    .unwrap();
    let PolicyKind::Advised(judge) = &judge.spec.kind else {
        panic!("no matcher");
    };
    let expected = Adviser::Llm {
        server: None,
        block: "other".to_owned(),
        query_string: "x".to_owned(),
    };
    assert_eq!(judge.adviser, expected);
}

#[test]
fn a_registered_schema_is_kept_to() {
    let document = json!({
        "name": "strict", "version": "1.0", "release_tag": "stable", "type": "policy",
        "policy_parameters_schema": {"tier": {"type": "string", "enum": ["gold", "iron"]}},
    });
    let at = std::time::UNIX_EPOCH + Duration::from_secs(1);
    let registered = Registered::of(document, at).unwrap();
    let registry = Registry::default().with(registered, Known::Refuse).unwrap();
    for (tier, is_fine) in [("gold", true), ("tin", false)] {
        let document = json!({"policy": "strict:1.0-stable", "parameters": {"tier": tier}});
        let found = allowed(
            &Envelope::search(&document).unwrap(),
            "strict:1.0-stable",
            &registry,
        );
        assert_eq!(found.is_ok(), is_fine, "{found:?}");
        if let Err(error) = found {
            assert_eq!(error.pointer, "/parameters/tier");
        }
    }
}

#[test]
fn a_worker_reads_a_text_once_for_each_snapshot_and_not_too_many() {
    let one = snapshot(json!({}));
    let mut selections = Selections::default();
    let text = br#"{"goals": [{"name": "Cost_Saver"}]}"#;
    let mut policy = |snapshot: &Snapshot, text: &[u8]| {
        let found = selections.search(text, snapshot, None).unwrap();
        Arc::clone(&found.policy)
    };
    let first = policy(&one, text);
    assert!(Arc::ptr_eq(&first, &policy(&one, text)));
    // Many others, and it is read again; nothing grows.
    for n in 0..1000 {
        let other = format!(r#"{{"goals": [{{"name": "Cost_Saver", "weight": {n}.5}}]}}"#);
        policy(&one, other.as_bytes());
    }
    assert!(!Arc::ptr_eq(&first, &policy(&one, text)));
    assert!(selections.kept() <= 256);
    assert!(matches!(
        selections.search(&[b' '; MOST_TEXT + 1], &one, None),
        Err(SelectError::Query(_))
    ));
}

#[test]
fn who_still_has_an_older_snapshot_forgets_nothing_of_the_newer() {
    let mut fleet = fleet();
    let published = fleet.published();
    fleet.reconcile(vec![spec("http://a:1", &["a"])]);
    let old = published.load_full();
    fleet.reconcile(vec![spec("http://b:1", &["b"])]);
    let new = published.load_full();
    assert!(old.generation < new.generation);
    let mut selections = Selections::default();
    let text = br#"{"filter": {"variable": "id", "operator": "==", "value": "a"}}"#;
    let first = selections.search(text, &new, None).unwrap();
    let older = selections.search(text, &old, None).unwrap();
    assert!(!Arc::ptr_eq(&first.policy, &older.policy));
    let set = &old.blocks.all.candidates;
    assert!(selections.bound(&older.policy, &old, set).is_some());
    let again = selections.search(text, &new, None).unwrap();
    assert!(Arc::ptr_eq(&first.policy, &again.policy), "it is kept");
    assert_eq!(selections.kept(), 1);
}

#[test]
fn the_languages_depth_is_reached_and_no_more() {
    let snapshot = snapshot(json!({}));
    let nested = |levels: usize| {
        let leaf = r#"{"variable":"id","operator":"==","value":"m"}"#.to_owned();
        let nest =
            |inner: String, _| format!(r#"{{"logicalOperator":"AND","conditions":[{inner}]}}"#);
        let query = (0..levels).fold(leaf, nest);
        format!(
            r#"{{"header":{{}},"body":{{"values":{{"rankingPolicyRule":{{"values":{{"parameters":
            {{"filterRule":{{"filter":{{"blockQuery":{query}}}}}}}}}}}}}}}}}"#
        )
    };
    let mut selections = Selections::default();
    let mut search = |text: &str| selections.search(text.as_bytes(), &snapshot, None);
    assert!(search(&nested(64)).is_ok());
    for (text, said) in [
        (nested(65), "/body/values/rankingPolicyRule"),
        ("[".repeat(60_000), "160 deep"),
        (r#"{"goals": "[[[["#.to_owned(), "invalid JSON"),
        ("{} {}".to_owned(), "invalid JSON"),
    ] {
        let error = search(&text).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert_eq!(depth(br#"{"a":["[[[",{"\"[":1}]}"#), 3);
}

#[test]
fn what_is_mistyped_widens_nothing() {
    let snapshot = snapshot(json!({}));
    for (document, said) in [
        (
            json!({"rankingPolicyRule": {"parameters": {"filterRule": {"fliter": {}}}}}),
            "fliter",
        ),
        (
            json!({"goals": [{"name": "Cost_Saver", "wieght": 5}]}),
            "wieght",
        ),
        (
            json!({"application_type": "Chat", "APP_MAP": {"Chat": 5}}),
            "APP_MAP",
        ),
    ] {
        let error = selected(&snapshot, &document).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let nothing = selected(&snapshot, &json!({"goals": [], "application_type": ""})).unwrap();
    assert_eq!(nothing.spec.kind.scored().unwrap().filter, None);
}

#[test]
fn a_request_has_a_use_case_of_its_own() {
    let snapshot = snapshot(json!({"policies": {"p": {
        "type": "scored", "application_type": "Chat",
        "filter": {"variable": "id", "operator": "==", "value": "m"},
    }}}));
    let asked = |document: Value| {
        let policy = selected(&snapshot, &document).unwrap();
        policy.spec.kind.scored().unwrap().asked.clone()
    };
    let told = asked(json!({"policy": "p"}));
    let other = asked(json!({"application_type": "Code"}));
    assert_eq!(other[0], told[0]);
    assert_ne!(other[1], told[1]);
    let filter = asked(json!({"filter": {"variable": "id", "operator": "==", "value": "n"}}));
    assert_ne!(filter[0], told[0]);
    assert_eq!(filter[1], told[1]);
}
