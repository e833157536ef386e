use super::super::policies::{PolicyKind, Routing};
use super::*;

fn keys(json: Value) -> DynamicFile {
    serde_json::from_value(json).unwrap()
}

fn json(text: &str) -> DynamicFile {
    keys(serde_json::from_str(text).unwrap())
}

#[test]
fn the_file_comes_before_flags_key_by_key() {
    let flags = json(
        r#"{"service_discovery":"static","routing_logic":"session","session_key":"x-user-id",
            "static_backends":"http://a,http://b","static_models":"m,n","static_aliases":"x:m",
            "limits":{"max_peek_bytes":4096},"timeouts":{"connect":1}}"#,
    );
    let file = json(r#"{"routing_logic":"roundrobin","timeouts":{"engine_head":"5s"}}"#);
    let settings = resolve(&overlay(&file, &flags)).unwrap().settings;
    assert_eq!(settings.routing, Routing::default());
    assert_eq!(settings.engines.len(), 2);
    assert_eq!(settings.aliases.len(), 1);
    assert_eq!(settings.limits.max_peek_bytes, 4096);
    assert_eq!(settings.timeouts.connect.as_secs(), 1);
    assert_eq!(settings.timeouts.engine_head.as_secs(), 5);
}

#[test]
fn the_files_engines_replace_all_that_flags_say_of_engines() {
    let flags = json(
        r#"{"service_discovery":"static","routing_logic":"roundrobin",
            "static_backends":"http://a,http://b","static_models":"m,n"}"#,
    );
    for file in [
        r#"{"static_backends":"http://c"}"#,
        r#"{"engines":[{"url":"http://c"}]}"#,
    ] {
        let settings = resolve(&overlay(&json(file), &flags)).unwrap().settings;
        let [engine] = settings.engines.as_slice() else {
            panic!("{:?}", settings.engines);
        };
        assert_eq!((engine.url.text(), &engine.models), ("http://c", &None));
    }
}

#[test]
fn our_own_form_carries_all_that_is_said() {
    let keys = json(
        r#"{"service_discovery":"static","routing_logic":"sticky",
            "policies":{"sticky":{"type":"session","session_key":"x-user-id"},"even":{"type":"roundrobin"}},
            "engines":[{"url":"http://a:8000","models":["m","n"],"aliases":{"gpt-4":"m"},"weight":0.5,
              "block":"b","region":"eu","labels":{"tier":"gold"},"privacy":"confidential",
              "cost":{"input_per_mtok":1,"output_per_mtok":2.5},"metadata":{"any":["thing"]}}]}"#,
    );
    let settings = resolve(&keys).unwrap().settings;
    let engine = &settings.engines[0];
    assert_eq!(engine.traits.weight, 0.5);
    assert_eq!(engine.traits.metadata["any"][0], "thing");
    assert_eq!(settings.aliases["gpt-4"], "m");
    assert!(matches!(
        settings.routing.policy.kind,
        PolicyKind::Session(_)
    ));
    // What is written is what is shown.
    let shown: DynamicFile = serde_json::from_value(serde_json::to_value(&keys).unwrap()).unwrap();
    assert_eq!(shown, keys);
}

#[test]
fn a_url_listed_twice_is_one_engine_with_two_models() {
    let keys = json(
        r#"{"service_discovery":"static","routing_logic":"roundrobin",
            "static_backends":"http://a:1,http://b:1,http://a:1,http://a:1","static_models":"m,m,n,n"}"#,
    );
    let settings = resolve(&keys).unwrap().settings;
    assert_eq!(settings.engines.len(), 2);
    assert_eq!(settings.engines[0].models.as_deref().unwrap(), ["m", "n"]);
}

#[test]
fn a_weight_that_is_no_number_is_refused_wherever_it_comes_from() {
    let mut keys = json(
        r#"{"service_discovery":"static","routing_logic":"roundrobin","engines":[{"url":"http://a"}]}"#,
    );
    for weight in [f64::NAN, f64::INFINITY, -1.0] {
        keys.engines.as_mut().unwrap()[0].weight = Some(weight);
        let problems = resolve(&keys).unwrap_err();
        assert_eq!(problems[0].path, "engines[0].weight");
    }
}
