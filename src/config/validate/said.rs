//! What is said of an engine key by key, as texts, elsewhere than in the dynamic
//! file: with the meaning that `engines` has there.
//!
//! It is said by many who cannot be asked to be brief, and is kept for as long as
//! their engines are: so it has bounds of its own. A key has [`MAX_SAID`] bytes;
//! `metadata` has [`MAX_METADATA`], and [`MAX_NODES`] values; `models` are
//! [`MAX_MODELS`], and these, `block` and `region` have [`MAX_NAME`] bytes each,
//! with no control characters.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::super::Traits;
use super::super::dynamic::EngineEntry;
use super::super::flat::items;
use super::super::problem::Problem;
use super::shape;
use super::tree::Tree;

/// Bytes that one key may say at most.
pub const MAX_SAID: usize = 64 << 10;
/// Bytes of `metadata` at most.
const MAX_METADATA: usize = 4 << 10;
/// Values in `metadata` at most, at any depth, itself among them: each takes tens of
/// bytes, however short its text is.
const MAX_NODES: usize = 512;
/// Models of one engine at most.
const MAX_MODELS: usize = 256;
/// Bytes of a name at most.
const MAX_NAME: usize = 256;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(EngineEntry).to_value());

/// What is said of an engine, so far as it can be used.
#[derive(Debug, Default)]
pub struct Said {
    /// Its models.
    pub models: Option<Vec<String>>,
    /// All else.
    pub traits: Traits,
    /// What is wrong; each has its key as path, and is left out.
    pub problems: Vec<Problem>,
}

/// Reads keys of `engines` with their texts: those that are no texts themselves
/// are JSON, but for `models`, which may be a list with commas, unless it begins as
/// JSON does. One that cannot be used, or is beyond a bound, is left out.
#[must_use]
pub fn said<'a>(keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Said {
    let mut said = Said::default();
    let mut entry = Map::new();
    entry.insert("url".to_owned(), Value::from(""));
    for (key, text) in keys {
        match value(key, text) {
            Ok(value) => {
                entry.insert(key.to_owned(), value);
            }
            Err(problem) => said.problems.push(problem),
        }
    }
    // All keys that are left fit the schema, which is made of the type.
    match serde_json::from_value::<EngineEntry>(Value::Object(entry)) {
        Ok(entry) => {
            said.traits = entry.traits();
            said.models = entry.models;
        }
        Err(error) => said.problems.push(Problem::at("", error.to_string())),
    }
    said
}

/// What the text means as the value of that key.
fn value(key: &str, text: &str) -> Result<Value, Problem> {
    let wrong = |message: String| Err(Problem::at(key, message));
    if key.starts_with("api_key") {
        // Who says it would have us send our own secrets there.
        return wrong("is for the dynamic file alone; a cluster's engines have one key".to_owned());
    }
    let schema = &SCHEMA["properties"][key];
    if schema.is_null() {
        return wrong("is no key of an engine".to_owned());
    }
    let (length, most) = (text.len(), most_bytes(key));
    if length > most {
        return wrong(format!("has {length} bytes; at most {most} are read"));
    }
    let text = text.trim();
    if text.is_empty() {
        return wrong(format!("is empty; expected {}", expected(key)));
    }
    let value = match key {
        "block" | "region" | "privacy" | "engine_type" => Value::from(text),
        "models" if !begins_as_json(text) => items(text).into(),
        _ => match serde_json::from_str(text) {
            Ok(Tree(Value::String(model))) if key == "models" => vec![model].into(),
            Ok(Tree(value)) => value,
            Err(error) => {
                let expected = expected(key);
                return wrong(format!("is not valid JSON: {error}; expected {expected}"));
            }
        },
    };
    let misfits = shape::problems_of(&value, &SCHEMA, schema, key);
    if let Some(problem) = misfits.into_iter().next() {
        return Err(problem);
    }
    match beyond(key, &value) {
        Some(message) => wrong(message),
        None => Ok(value),
    }
}

/// No model's name does; `null` is what a template writes that has none.
fn begins_as_json(text: &str) -> bool {
    text.starts_with(['{', '[', '"']) || text == "null"
}

fn most_bytes(key: &str) -> usize {
    match key {
        "metadata" => MAX_METADATA,
        _ => MAX_SAID,
    }
}

/// The bound that a value of the right shape is beyond.
fn beyond(key: &str, value: &Value) -> Option<String> {
    match (key, value) {
        ("metadata", value) => {
            let count = nodes(value);
            let message = || format!("has {count} values; at most {MAX_NODES} are taken");
            (count > MAX_NODES).then(message)
        }
        ("models", Value::Array(models)) if models.len() > MAX_MODELS => {
            let count = models.len();
            Some(format!("has {count} names; at most {MAX_MODELS} are taken"))
        }
        ("models", Value::Array(models)) => {
            let mut names = models.iter().filter_map(Value::as_str);
            names.find_map(wrong_name)
        }
        ("block" | "region", Value::String(name)) => wrong_name(name),
        _ => None,
    }
}

fn wrong_name(name: &str) -> Option<String> {
    let length = name.len();
    if name.trim().is_empty() {
        Some("has an empty name".to_owned())
    } else if length > MAX_NAME {
        Some(format!(
            "has a name of {length} bytes; at most {MAX_NAME} are taken"
        ))
    } else if name.contains(char::is_control) {
        Some(format!("{name:?} has control characters"))
    } else {
        None
    }
}

/// How many values it has, itself among them. The parser bounds how deep they are.
fn nodes(value: &Value) -> usize {
    let inner: usize = match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(map) => map.values().map(nodes).sum(),
        _ => 0,
    };
    1 + inner
}

fn expected(key: &str) -> &'static str {
    match key {
        "models" => r#"["a", "b"], or a, b"#,
        "weight" => "a number, 0 or more",
        "labels" => r#"{"name": "value"}"#,
        "cost" => r#"{"input_per_mtok": 0.5, "output_per_mtok": 1.5}"#,
        "metadata" => "an object",
        "draining" => "true or false",
        _ => "text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineType;
    use crate::config::dynamic::{Cost, Privacy};
    use serde_json::json;

    #[test]
    fn keys_mean_what_they_mean_in_the_file() {
        let keys = [
            ("models", r#"["a/b", "c"]"#),
            ("weight", "2.5"),
            ("block", "fast"),
            ("region", "eu-1"),
            ("labels", r#"{"tier": "gold"}"#),
            ("privacy", "internal"),
            ("cost", r#"{"input_per_mtok": 1, "output_per_mtok": 2}"#),
            ("engine_type", "sglang"),
            ("metadata", r#"{"parameterCountB": 7}"#),
            ("draining", "true"),
        ];
        let read = said(keys);
        assert_eq!(read.problems, []);
        assert_eq!(read.models.unwrap(), ["a/b", "c"]);
        let expected = Traits {
            weight: 2.5,
            block: Some("fast".to_owned()),
            region: Some("eu-1".to_owned()),
            labels: [("tier".to_owned(), "gold".to_owned())].into(),
            privacy: Some(Privacy::Internal),
            cost: Some(Cost {
                input_per_mtok: 1.0,
                output_per_mtok: 2.0,
            }),
            engine_type: Some(EngineType::Sglang),
            metadata: json!({"parameterCountB": 7}),
            draining: true,
            key: None,
        };
        assert_eq!(read.traits, expected);
        assert_eq!(said([("models", "a, b,")]).models.unwrap(), ["a", "b"]);
        let nothing = said([]);
        assert!(nothing.models.is_none() && nothing.traits == Traits::default());
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_told() {
        let long = format!(r#"{{"a": "{}"}}"#, "x".repeat(MAX_SAID));
        let long_metadata = format!("[{}]", " ".repeat(MAX_METADATA - 1));
        let many_values = format!("[{}1]", "1,".repeat(MAX_NODES - 1));
        let many_models = "m,".repeat(MAX_MODELS + 1);
        let long_model = "m".repeat(MAX_NAME + 1);
        for (key, text, told) in [
            ("api_key_file", "/etc/passwd", "for the dynamic file alone"),
            ("api_key_env", "VLLM_API_KEY", "for the dynamic file alone"),
            ("models", "[]", "at least 1"),
            ("models", ",", "at least 1"),
            ("models", "[1]", "expected text"),
            ("models", r#"["a""#, "not valid JSON"),
            ("models", "{bad", "not valid JSON"),
            ("models", "[bad", "not valid JSON"),
            ("models", "\"bad", "not valid JSON"),
            ("models", r#"{"a": 1}"#, "expected a list"),
            ("models", "null", "expected a list"),
            ("models", r#"[""]"#, "empty name"),
            ("models", r#"["a", " "]"#, "empty name"),
            ("models", r#""""#, "empty name"),
            ("models", r#"["a\nb"]"#, "\"a\\nb\" has control characters"),
            ("models", "a, b\u{1b}c", "control characters"),
            ("models", &many_models, "has 257 names; at most 256"),
            ("models", &long_model, "a name of 257 bytes; at most 256"),
            ("block", &long_model, "a name of 257 bytes"),
            ("region", "a\tb", "control characters"),
            ("weight", "-1", "0 or more"),
            ("weight", "heavy", "not valid JSON"),
            ("weight", "1e999", "not valid JSON"),
            ("weight", "null", "expected a number"),
            ("weight", "", "is empty"),
            ("block", " ", "is empty; expected text"),
            ("labels", r#"{"a": 1}"#, "expected text"),
            ("labels", r#"{"a": "x", "a": "y"}"#, "duplicate key"),
            ("privacy", "secret", r#""public" or "internal""#),
            ("cost", r#"{"input_per_mtok": 1}"#, "output_per_mtok"),
            (
                "cost",
                r#"{"input_per_mtok": -1, "output_per_mtok": 1}"#,
                "0 or more",
            ),
            (
                "cost",
                r#"{"input_per_mtok": 1, "output_per_mtok": 1, "x": 1}"#,
                "known key",
            ),
            ("engine_type", "vlm", r#""vllm""#),
            ("metadata", "{", "line 1 column 1"),
            ("metadata", &"[".repeat(1000), "recursion"),
            ("metadata", &long_metadata, "has 4097 bytes; at most 4096"),
            ("metadata", &many_values, "has 513 values; at most 512"),
            ("labels", &long, "at most 65536"),
            ("draining", "yes", "expected true or false"),
            ("other", "1", "no key"),
        ] {
            let read = said([(key, text), ("region", "r")]);
            let [problem] = &read.problems[..] else {
                panic!("{key} {text}: {:?}", read.problems);
            };
            assert!(problem.path.starts_with(key), "{problem}");
            assert!(problem.message.contains(told), "{problem}");
            assert_eq!(read.traits.region.as_deref(), Some("r"));
            let mut rest = read.traits;
            rest.region = None;
            assert_eq!(rest, Traits::default(), "{key} {text}");
        }
    }

    #[test]
    fn what_is_within_the_bounds_is_taken() {
        let labels = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_SAID - 8));
        assert_eq!(labels.len(), MAX_SAID);
        let metadata = format!("[{}]", " ".repeat(MAX_METADATA - 2));
        let values = format!(r#"{{"a": [{}1]}}"#, "1,".repeat(MAX_NODES - 3));
        let models = "m,".repeat(MAX_MODELS);
        let model = "m".repeat(MAX_NAME);
        for (key, text) in [
            ("labels", &labels),
            ("metadata", &metadata),
            ("metadata", &values),
            ("models", &models),
            ("models", &model),
            ("block", &model),
        ] {
            assert_eq!(said([(key, &**text)]).problems, [], "{key}");
        }
        let of = |text| said([("models", text)]).models.unwrap();
        assert_eq!(of("\"m\""), ["m"]);
        assert_eq!(of("nullable, true"), ["nullable", "true"]);
    }
}
