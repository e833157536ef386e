use super::super::dynamic::schema;
use super::super::resolve::resolve;
use super::*;

fn problems(text: &str, format: Format) -> Vec<String> {
    let keys = parse(text.as_bytes(), format);
    let list = keys.and_then(|keys| resolve(&keys)).unwrap_err();
    list.iter().map(ToString::to_string).collect()
}

fn json(text: &str) -> String {
    problems(text, Format::Json).join("\n")
}

/// A good file but for one key.
fn with(key: &str) -> String {
    format!(
        r#"{{"service_discovery":"static","routing_logic":"roundrobin","static_backends":"http://a",{key}}}"#
    )
}

#[test]
fn the_references_example_is_good() {
    let text = r#"{
    "service_discovery": "static",
    "routing_logic": "roundrobin",
    "static_backends": "http://localhost:9001,http://localhost:9002,http://localhost:9003",
    "static_models": "facebook/opt-125m,meta-llama/Llama-3.1-8B-Instruct,facebook/opt-125m"
}"#;
    let keys = parse(text.as_bytes(), Format::Json).unwrap();
    let settings = resolve(&keys).unwrap().settings;
    assert_eq!(settings.engines.len(), 3);
    // JSON is YAML.
    assert_eq!(parse(text.as_bytes(), Format::Yaml).unwrap(), keys);
}

/// A key that is wrong, and what is told of it.
const WRONG_KEYS: &[(&str, &str)] = &[
    (
        r#""engine":[]"#,
        r#"engine: is no known key; did you mean "engines"?"#,
    ),
    (r#""zzz":1"#, "zzz: is no known key; known: aliases,"),
    (
        r#""k8s_port":"x""#,
        r#"k8s_port: "x": expected a whole number"#,
    ),
    (
        r#""k8s_port":70000"#,
        "k8s_port: 70000: expected at most 65535",
    ),
    (
        r#""service_discovery_":1,"limits":{"max_peek":1}"#,
        r#"limits.max_peek: is no known key; did you mean "max_peek_bytes"?"#,
    ),
    (
        r#""timeouts":{"connect":"1h"}"#,
        r#"timeouts.connect: "1h": expected a duration: 250ms, 30s, 5m or seconds"#,
    ),
    (
        r#""timeouts":{"client_head":0}"#,
        "timeouts.client_head: 0ns is too short; expected 10ms or more",
    ),
    (
        r#""timeouts":{"connect":-1}"#,
        "timeouts.connect: -1: expected 0 or more",
    ),
    (r#""timeouts":[]"#, "timeouts: []: expected an object"),
    (
        r#""stream_error_events":"yes""#,
        r#""yes": expected true or false"#,
    ),
    (r#""callbacks":"x.y""#, "callbacks: code is not loaded"),
    (
        r#""static_models":"a,b""#,
        "static_models: lists 2, but static_backends lists 1",
    ),
    (
        r#""static_aliases":"gpt""#,
        r#"static_aliases: "gpt" is no alias; expected ALIAS:MODEL"#,
    ),
    (
        r#""static_aliases":"a:b,a:c""#,
        r#""a" stands for both "b" and "c""#,
    ),
    (
        r#""static_aliases":"a:b,b:c""#,
        r#""a" leads to the alias "b""#,
    ),
    (
        r#""static_models":"m","static_aliases":"m:x""#,
        "also the name of a model",
    ),
    (
        r#""aliases":{},"static_aliases":"a:b""#,
        "say the same thing",
    ),
    (
        r#""limits":{"max_peek_bytes":2048,"max_replay_bytes":4096}"#,
        "limits.max_replay_bytes: 4096 is more than max_peek_bytes (2048)",
    ),
    (
        r#""limits":{"queue_size":5}"#,
        "limits.queue_size: a queue needs a limit to wait for: give max_in_flight",
    ),
    (
        r#""limits":{"max_in_flight":5,"queue_timeout":1}"#,
        "limits.queue_timeout: there is no queue to wait in: give queue_size",
    ),
    (
        r#""limits":{"max_in_flight":0}"#,
        "limits.max_in_flight: 0: expected 1 or more",
    ),
    (
        r#""limits":{"shed":{"kv_cache_usage":2}}"#,
        "limits.shed.kv_cache_usage: 2: expected at most 1",
    ),
    (
        r#""breaker":{"ratio":0}"#,
        "breaker.ratio: 0: expected 0.01 or more",
    ),
    (
        r#""breaker":{"ejection":"60s","max_ejection":"30s"}"#,
        "breaker.max_ejection: 30s is shorter than ejection (60s)",
    ),
    (
        r#""retry":{"on":["reset","always"]}"#,
        "retry.on[1]: \"always\": expected \"reset\" or \"busy\"",
    ),
    (
        r#""retry":{"attempts":8}"#,
        "retry.attempts: 8: expected at most 7",
    ),
    (
        r#""timeouts":{"total":-1}"#,
        "timeouts.total: -1: expected 0 or more",
    ),
    (
        r#""policies":{"p":{"type":"leastload","timeouts":{"first_token":0.001}}}"#,
        "policies.p.timeouts.first_token: 1ms is too short",
    ),
    (
        r#""static_backend_health_checks":true,"static_backend_health_check_interval":0"#,
        "static_backend_health_check_interval: 0: expected 1 or more",
    ),
    (
        r#""policies":{"p":{"type":"sesion"}}"#,
        r#"policies.p.type: "sesion" is unknown; known: roundrobin, session, consistenthash"#,
    ),
    (
        r#""policies":{"session":{"type":"session"}}"#,
        "is the name of a policy of our own",
    ),
    (
        r#""policies":{"p":{"type":"consistenthash","load_bound":0.9}}"#,
        "policies.p.load_bound: 0.9: expected 1 or more",
    ),
    (
        r#""policies":{"p":{"type":"consistenthash","keys":["header:a b"]}}"#,
        "policies.p.keys: \"header:a b\": expected header:NAME, body:KEY",
    ),
    (
        r#""policies":{"p":{"type":"consistenthash","keys":["body:a","body:b"]}}"#,
        "one body:KEY is looked for at most",
    ),
    (
        r#""policies":{"p":{"type":"scored","goals":[{"attribute":"x","direction":"max","weight":-1}]}}"#,
        "policies.p.goals[0].weight: -1: expected 0 or more",
    ),
    (
        r#""policies":{"p":{"type":"scored","goals":[{"attribute":"x","direction":"up"}]}}"#,
        "expected",
    ),
    (
        r#""policies":{"p":{"type":"scored","goals":[{"attribute":"x","direction":"max","weight":0}]}}"#,
        "all weights are 0",
    ),
    (
        r#""policies":{"p":{"type":"federation","weights":{"speed":1}}}"#,
        "policies.p.weights.speed: unknown; expected health",
    ),
    (
        r#""policies":{"p":{"type":"sequential","strategy":"federation"}}"#,
        "\"federation\" cannot be a strategy",
    ),
    (
        r#""request_headers":{"policies":["q"]},"policies":{"p":{"type":"random"}}"#,
        "request_headers.policies: \"q\" is unknown; known: p",
    ),
    (
        r#""engines":[{"url":"http://a","weight":-1}]"#,
        "engines[0].weight: -1: expected 0 or more",
    ),
];

/// The same for whole files.
const WRONG_FILES: &[(&str, &str)] = &[
    (r#"{"engines":3}"#, "engines: 3: expected a list"),
    (r#"[]"#, "[]: expected an object"),
    (
        r#"{}"#,
        "service_discovery: required: give --service-discovery",
    ),
    (
        r#"{"service_discovery":"consul"}"#,
        r#"service_discovery: "consul": expected "static""#,
    ),
    (
        r#"{"service_discovery":"static","static_backends":"http://a","routing_logic":"sesssion"}"#,
        r#"smart; did you mean "session"?"#,
    ),
    (
        r#"{"service_discovery":"static","static_backends":"http://a","routing_logic":"session"}"#,
        "session_key: required: give --session-key",
    ),
    (
        r#"{"service_discovery":"static","static_backends":"http://a","routing_logic":"session","session_key":"a b"}"#,
        r#"session_key: "a b" cannot be the name of a header"#,
    ),
];

#[test]
fn each_problem_has_its_place_its_value_and_what_was_expected() {
    for (key, says) in WRONG_KEYS {
        let told = json(&with(key));
        assert!(told.contains(says), "{key}: {told}");
    }
    for (text, says) in WRONG_FILES {
        let told = json(text);
        assert!(told.contains(says), "{text}: {told}");
    }
}

#[test]
fn engines_are_checked_one_by_one() {
    let told = json(
        r#"{"service_discovery":"static","routing_logic":"roundrobin","static_backends":"http://a","engines":[
            {"url":"ftp://a"},
            {"url":"http://b","weight":1},
            {"url":"http://b","weight":2},
            {"url":"http://c","models":["m"],"aliases":{"x":"y"}}
        ]}"#,
    );
    for says in [
        "engines: and static_backends say the same thing: keep one",
        "engines[0]: engine URL 'ftp://a'",
        "engines[2]: http://b is listed twice, with weights 1 and 2",
        r#"engines[3].aliases: "x" leads to "y", which is not in models"#,
    ] {
        assert!(told.contains(says), "{says} not in {told}");
    }
    let told = json(
        r#"{"engines":[{"url":"http://a","weight":-1},{"weight":1},{"url":"http://a","privacy":"none","cost":{"input_per_mtok":"1"}}]}"#,
    );
    for says in [
        "engines[0].weight: -1: expected 0",
        r#"engines[1]: "url" is missing"#,
        r#"engines[2].privacy: "none": expected "public" or "internal""#,
        r#"engines[2].cost.input_per_mtok: "1": expected a number"#,
        r#"engines[2].cost: "output_per_mtok" is missing"#,
    ] {
        assert!(told.contains(says), "{says} not in {told}");
    }
}

#[test]
fn syntax_errors_have_line_and_column() {
    let told = json("{\n  \"a\": 1,\n  oops\n}");
    assert!(told.contains("line 3 column"), "{told}");
    let told = json("{\"routing_logic\":\"a\",\n\"routing_logic\":\"b\"}");
    assert!(
        told.contains("duplicate key \"routing_logic\" at line 2"),
        "{told}"
    );
    let told = problems("a: b\n  c: [", Format::Yaml).join("\n");
    assert!(told.contains("line 2, column"), "{told}");
    let told = problems("engines: 1\nengines: 2\n", Format::Yaml).join("\n");
    assert!(
        told.contains("duplicate") && told.contains("line 2"),
        "{told}"
    );
    for empty in ["", " \n\t"] {
        assert!(json(empty).contains("the file is empty"));
    }
    let list = parse(b"\xff{}", Format::Json).unwrap_err();
    assert!(list[0].to_string().contains("is not UTF-8: byte 0"));
}

#[test]
fn numbers_that_are_none_and_yaml_bombs_are_refused() {
    let told = problems(
        "service_discovery: static\nengines: [{url: 'http://a', weight: .nan}]",
        Format::Yaml,
    );
    assert!(told[0].contains("line 2"), "{told:?}");
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (this, last) in ('b'..='k').zip('a'..) {
        bomb += &format!("{this}: &{this} [*{last},*{last},*{last},*{last},*{last},*{last}]\n");
    }
    let told = problems(&bomb, Format::Yaml).join("\n");
    assert!(told.contains("is not valid YAML"), "{told}");
    assert!(told.len() < 2000, "{}", told.len());
}

#[test]
fn a_large_file_may_be_yaml_too() {
    let metadata: Vec<String> = (0..400).map(|n| format!("k{n}: {n}")).collect();
    let metadata = metadata.join(", ");
    let mut text = "service_discovery: static\nrouting_logic: roundrobin\nengines:\n".to_owned();
    for n in 0..500 {
        text += &format!("- {{url: 'http://e{n}', metadata: {{{metadata}}}}}\n");
    }
    let keys = parse(text.as_bytes(), Format::Yaml).unwrap();
    assert_eq!(resolve(&keys).unwrap().settings.engines.len(), 500);
}

#[test]
fn many_problems_are_told_at_once_but_not_all() {
    let entries: Vec<&str> = vec![r#"{"url":1}"#; 1000];
    let text = format!(r#"{{"engines":[{}]}}"#, entries.join(","));
    assert_eq!(problems(&text, Format::Json).len(), shape::MOST);
}

#[test]
fn the_yaml_map_form_means_the_same() {
    let text = "
service_discovery: static
routing_logic: roundrobin
static_models:
  facebook/opt-125m:
    static_backends: [http://localhost:9001, http://localhost:9003]
    static_model_type: completion
  other:
    static_backends: [http://localhost:9002]
static_aliases:
  gpt-4: other
";
    let keys = parse(text.as_bytes(), Format::Yaml).unwrap();
    assert_eq!(
        keys.static_models.as_deref(),
        Some("facebook/opt-125m,facebook/opt-125m,other")
    );
    let settings = resolve(&keys).unwrap().settings;
    assert_eq!(settings.engines[2].url.text(), "http://localhost:9002");
    assert_eq!(
        settings.engines[0].traits.labels["model_type"],
        "completion"
    );
    assert_eq!(settings.aliases["gpt-4"], "other");
    let wrong = text.replace(
        "static_backends: [http://localhost:9002]",
        "static_backend: x",
    );
    let told = problems(&wrong, Format::Yaml).join("\n");
    assert!(
        told.contains(r#"did you mean "static_backends"?"#),
        "{told}"
    );
}

#[test]
fn files_that_are_none_are_told_of() {
    let folder = std::env::temp_dir();
    let told = load(&folder, Format::Json).unwrap_err().to_string();
    assert!(told.contains("is no file"), "{told}");
    let told = load(&folder.join("no such file"), Format::Json).unwrap_err();
    assert!(told.to_string().contains("cannot read the file"), "{told}");
    // What even root may not read.
    let told = load(Path::new("/proc/sys/net/ipv4/route/flush"), Format::Json).unwrap_err();
    assert!(told.to_string().contains("Permission denied"), "{told}");
    let large = folder.join(format!("pilotfish-large-{}.json", std::process::id()));
    let file = std::fs::File::create(&large).unwrap();
    file.set_len(50 << 20).unwrap();
    let told = load(&large, Format::Json).unwrap_err().to_string();
    std::fs::remove_file(&large).unwrap();
    assert!(
        told.contains("has 52428800 bytes; at most 8388608 are read"),
        "{told}"
    );
}

#[test]
fn every_key_of_the_schema_has_a_description() {
    fn check(at: &Value, path: &str) {
        if let Some(properties) = at["properties"].as_object() {
            for (name, property) in properties {
                let told = property["description"]
                    .as_str()
                    .or(property["$ref"].as_str());
                assert!(told.is_some(), "{path}.{name} has no description");
            }
        }
        for (key, inner) in at.as_object().into_iter().flatten() {
            check(inner, &format!("{path}.{key}"));
        }
    }
    let schema = schema();
    check(&schema, "");
    assert!(schema["properties"].as_object().unwrap().len() >= 23);
}
