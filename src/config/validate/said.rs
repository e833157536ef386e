//! What is said of an engine key by key, as texts, elsewhere than in the dynamic
//! file: with the bounds and the meaning that `engines` has there.

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
/// are JSON, but for `models`, which may be a list with commas.
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
    let schema = &SCHEMA["properties"][key];
    if schema.is_null() {
        return wrong("is no key of an engine".to_owned());
    }
    if text.len() > MAX_SAID {
        let length = text.len();
        return wrong(format!("has {length} bytes; at most {MAX_SAID} are read"));
    }
    let text = text.trim();
    if text.is_empty() {
        return wrong(format!("is empty; expected {}", expected(key)));
    }
    let value = match key {
        "block" | "region" | "privacy" | "engine_type" => Value::from(text),
        "models" if !text.starts_with('[') => items(text).into(),
        _ => match serde_json::from_str(text) {
            Ok(Tree(value)) => value,
            Err(error) => {
                let expected = expected(key);
                return wrong(format!("is not valid JSON: {error}; expected {expected}"));
            }
        },
    };
    match shape::problems_of(&value, &SCHEMA, schema, key)
        .into_iter()
        .next()
    {
        Some(problem) => Err(problem),
        None => Ok(value),
    }
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
        };
        assert_eq!(read.traits, expected);
        assert_eq!(said([("models", "a, b,")]).models.unwrap(), ["a", "b"]);
        let nothing = said([]);
        assert!(nothing.models.is_none() && nothing.traits == Traits::default());
    }

    #[test]
    fn what_cannot_be_used_is_left_out_and_told() {
        let long = format!("\"{}\"", "x".repeat(MAX_SAID));
        for (key, text, told) in [
            ("models", "[]", "at least 1"),
            ("models", ",", "at least 1"),
            ("models", "[1]", "expected text"),
            ("models", r#"["a""#, "not valid JSON"),
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
            ("metadata", &long, "at most 65536"),
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
        assert_eq!(said([("metadata", &long[1..=MAX_SAID])]).problems.len(), 1);
        let most = format!("\"{}\"", "x".repeat(MAX_SAID - 2));
        assert_eq!(said([("metadata", &*most)]).problems, []);
    }
}
