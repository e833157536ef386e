//! JSON Schemas that come from outside: bounded before they are compiled, so
//! that checking a document against one takes about as long as reading it.
//!
//! Nothing is fetched, and patterns run on an engine that is linear in the text.
//! A schema may refer to its own parts, but not to itself: what its references
//! amount to, each written out, is bounded too.

use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::document::object;
use super::refused::{Cause, Refused};
use crate::config::problem::{Problem, shown};

/// Values of a schema with its references written out.
const MOST_VALUES: usize = 10_000;
/// How deep it may be, with its references written out.
const MOST_DEPTH: usize = 64;
/// Regular expressions in one schema.
const MOST_PATTERNS: usize = 32;
/// Bytes of one compiled expression, and of what it remembers while it runs.
const PATTERN_BYTES: usize = 128 << 10;
/// Violations that are told of.
const MOST_TOLD: usize = 16;
/// Characters of one.
const MOST_WORDS: usize = 300;

/// Dialects that are read; the last is what a schema is read as that names none.
const DIALECTS: [&str; 4] = [
    "http://json-schema.org/draft-06/schema",
    "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
];

/// A schema, compiled.
#[derive(Debug)]
pub(super) struct Schema(Validator);

impl Schema {
    /// The schema in that field, if there is one.
    ///
    /// # Errors
    /// When it is no schema, or too large.
    pub(super) fn of(fields: &Map<String, Value>, field: &str) -> Result<Option<Self>, Refused> {
        let written = object(fields, field)?;
        if written.is_empty() {
            return Ok(None);
        }
        let pointer = format!("/{field}");
        let is_map = is_map_of_properties(written);
        let schema = if is_map {
            json!({"type": "object", "properties": written})
        } else {
            Value::Object(written.clone())
        };
        let compiled = compile(&schema).map_err(|mut problem| {
            if is_map {
                let inner = problem.path.strip_prefix("/properties");
                problem.path = inner.unwrap_or_default().to_owned();
                problem.message.push_str(
                    " (without `type`, `properties` or `$schema` a schema is read as the \
                     `properties` of an object)",
                );
            }
            Refused::listing(
                Cause::Invalid,
                "a schema cannot be used",
                vec![Problem::at(pointer + &problem.path, problem.message)],
            )
        })?;
        Ok(Some(Self(compiled)))
    }

    /// What of `instance` is not as it says, with pointers that begin so.
    pub(super) fn violations(&self, instance: &Map<String, Value>, below: &str) -> Vec<Problem> {
        let instance = Value::Object(instance.clone());
        let errors = self.0.iter_errors(&instance).take(MOST_TOLD);
        errors
            .map(|error| {
                let words = error.masked_with("it").to_string();
                let path = format!("{below}{}", error.instance_path());
                Problem::at(path, words.chars().take(MOST_WORDS).collect::<String>())
            })
            .collect()
    }
}

/// Whether it is, as the reference writes them, only the properties.
fn is_map_of_properties(written: &Map<String, Value>) -> bool {
    // A property may be called `type`.
    let has_type = written.get("type").is_some_and(|value| !value.is_object());
    !(has_type || written.contains_key("properties") || written.contains_key("$schema"))
}

fn compile(schema: &Value) -> Result<Validator, Problem> {
    dialect(schema)?;
    Weighing::new(schema).whole()?;
    let patterns = PatternOptions::regex()
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES);
    let compiled = jsonschema::options()
        .offline()
        .with_pattern_options(patterns)
        .build(schema);
    compiled.map_err(|error| {
        let words: String = error.to_string().chars().take(MOST_WORDS).collect();
        Problem::at(error.instance_path().to_string(), words)
    })
}

fn dialect(schema: &Value) -> Result<(), Problem> {
    let Some(named) = schema.get("$schema") else {
        return Ok(());
    };
    let text = named.as_str().unwrap_or_default();
    if DIALECTS.contains(&text.trim_end_matches('#')) {
        return Ok(());
    }
    let message = format!(
        "{} is unknown; expected {}",
        shown(named),
        DIALECTS.join(", ")
    );
    Err(Problem::at("/$schema", message))
}

/// What a part of a schema amounts to.
#[derive(Debug, Clone, Copy)]
struct Weight {
    values: usize,
    depth: usize,
}

/// Adds up a schema, each reference as what it refers to.
struct Weighing<'a> {
    root: &'a Value,
    /// What is referred to; `None` while it is being weighed.
    known: HashMap<&'a str, Option<Weight>>,
    patterns: usize,
}

impl<'a> Weighing<'a> {
    fn new(root: &'a Value) -> Self {
        Self {
            root,
            known: HashMap::new(),
            patterns: 0,
        }
    }

    fn whole(mut self) -> Result<(), Problem> {
        let weight = self.value(self.root, &mut String::new())?;
        let (what, is, most) = if weight.values > MOST_VALUES {
            ("values", weight.values, MOST_VALUES)
        } else if weight.depth > MOST_DEPTH {
            ("levels", weight.depth, MOST_DEPTH)
        } else if self.patterns > MOST_PATTERNS {
            ("patterns", self.patterns, MOST_PATTERNS)
        } else {
            return Ok(());
        };
        let message = format!("has {is} {what}, with its references written out; at most {most}");
        Err(Problem::at("", message))
    }

    fn value(&mut self, value: &'a Value, at: &mut String) -> Result<Weight, Problem> {
        let mut weight = Weight {
            values: 1,
            depth: 1,
        };
        match value {
            Value::Array(list) => {
                for (index, inner) in list.iter().enumerate() {
                    let inner = self.inner(inner, &index.to_string(), at)?;
                    weight.add(inner);
                }
            }
            Value::Object(map) => {
                for (key, inner) in map {
                    self.keyword(key, inner, at)?;
                    let inner = match (key.as_str(), inner) {
                        ("$ref", Value::String(target)) => self.reference(target, at)?,
                        _ => self.inner(inner, key, at)?,
                    };
                    weight.add(inner);
                }
            }
            _ => {}
        }
        Ok(weight)
    }

    fn inner(&mut self, value: &'a Value, key: &str, at: &mut String) -> Result<Weight, Problem> {
        let length = at.len();
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        let weight = self.value(value, at);
        at.truncate(length);
        weight
    }

    /// Counts patterns, and refuses what would change what references mean.
    fn keyword(&mut self, key: &str, value: &Value, at: &str) -> Result<(), Problem> {
        match (key, value) {
            ("pattern", Value::String(_)) => self.patterns += 1,
            ("patternProperties", Value::Object(map)) => self.patterns += map.len(),
            ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                let message =
                    "is not supported: use $ref to a part of this schema, as \"#/$defs/x\"";
                return Err(Problem::at(format!("{at}/{key}"), message));
            }
            ("$id" | "$anchor", Value::String(_)) if !at.is_empty() || key == "$anchor" => {
                let message = "is not supported: refer to parts by their path, as \"#/$defs/x\"";
                return Err(Problem::at(format!("{at}/{key}"), message));
            }
            _ => {}
        }
        Ok(())
    }

    fn reference(&mut self, target: &'a str, at: &str) -> Result<Weight, Problem> {
        let fail = |message: String| Err(Problem::at(format!("{at}/$ref"), message));
        match self.known.get(target) {
            Some(Some(weight)) => return Ok(*weight),
            Some(None) => {
                return fail(format!(
                    "{target:?} refers to itself, which is not supported"
                ));
            }
            None => {}
        }
        let pointer = target.strip_prefix('#');
        let pointer = pointer.filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let pointer = pointer.and_then(|text| percent_decode_str(text).decode_utf8().ok());
        let Some(pointer) = pointer else {
            return fail(format!(
                "{target:?}: nothing is fetched; refer to a part of this schema, as \"#/$defs/x\""
            ));
        };
        let Some(part) = self.root.pointer(&pointer) else {
            return fail(format!("there is no {target:?} in this schema"));
        };
        self.known.insert(target, None);
        let weight = self.value(part, &mut pointer.into_owned())?;
        self.known.insert(target, Some(weight));
        Ok(weight)
    }
}

impl Weight {
    fn add(&mut self, inner: Self) {
        self.values = self.values.saturating_add(inner.values);
        self.depth = self.depth.max(inner.depth.saturating_add(1));
    }
}
