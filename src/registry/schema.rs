//! JSON Schemas that come from outside: bounded before they are compiled, and
//! again, together with what is checked, before they are asked.
//!
//! Nothing is fetched, and patterns run on an engine that is linear in the text.
//! Every part of a schema may look at every part of a document, so what checking
//! costs is bounded by the product of the two ([`MOST_WORK`]). A schema may refer
//! to its own parts, but not to itself: what its references amount to, each
//! written out (`schema/weighing.rs`), is bounded too.

mod weighing;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value, json};

use super::document::object;
use super::refused::{Cause, Refused};
use crate::config::problem::{Problem, shown};
use weighing::Weighing;

/// Values of a schema, its references written out, times what it is asked of: its
/// values, and each 32 bytes of its texts.
const MOST_WORK: usize = 1_000_000;
/// Bytes of text that are reckoned as one more value.
const TEXT: usize = 32;
/// What a value of a schema is reckoned with once it is compiled, in bytes.
const VALUE_BYTES: usize = 256;
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
pub(super) struct Schema {
    validator: Validator,
    /// Its values, with its references written out, and twice as many for each part
    /// that looks again at all beside it.
    work: usize,
    /// What it is reckoned with among all documents.
    pub(super) bytes: usize,
}

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
        compile(&schema).map(Some).map_err(|mut problem| {
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
        })
    }

    /// What of `instance` is not as it says, with pointers that begin so.
    pub(super) fn violations(&self, instance: &Value, below: &str) -> Vec<Problem> {
        self.violations_but(|_| false, instance, below)
    }

    /// The same, but for top-level keys that are missing: others may bring them.
    pub(super) fn violations_of_part(&self, instance: &Value, below: &str) -> Vec<Problem> {
        self.violations_but(only_lacks_keys, instance, below)
    }

    fn violations_but(
        &self,
        is_excused: fn(&ValidationError<'_>) -> bool,
        instance: &Value,
        below: &str,
    ) -> Vec<Problem> {
        let (work, size) = (self.work, size(instance));
        if work.saturating_mul(size) > MOST_WORK {
            let message = format!(
                "is too large to be checked: {size} values, or pieces of {TEXT} bytes, times the \
                 schema's {work}; at most {MOST_WORK}"
            );
            return vec![Problem::at(below, message)];
        }
        let errors = self.validator.iter_errors(instance);
        errors
            .filter(|error| !is_excused(error))
            .take(MOST_TOLD)
            .map(|error| {
                let words = error.masked_with("it").to_string();
                let path = format!("{below}{}", error.instance_path());
                Problem::at(path, words.chars().take(MOST_WORDS).collect::<String>())
            })
            .collect()
    }
}

/// How much there is to look at in a document: its values, and its texts.
fn size(of: &Value) -> usize {
    1 + match of {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => {
            let one = |(key, value): (&String, &Value)| key.len() / TEXT + size(value);
            map.iter().map(one).sum()
        }
        Value::String(text) => text.len() / TEXT,
        _ => 0,
    }
}

/// Whether nothing is wrong but that the document has too few keys.
fn only_lacks_keys(error: &ValidationError<'_>) -> bool {
    if !error.instance_path().as_str().is_empty() {
        return false;
    }
    match error.kind() {
        ValidationErrorKind::Required { .. } | ValidationErrorKind::MinProperties { .. } => true,
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            let mut branches = context.iter();
            branches.any(|branch| branch.iter().all(only_lacks_keys))
        }
        _ => false,
    }
}

/// Whether it is, as the reference writes them, only the properties.
fn is_map_of_properties(written: &Map<String, Value>) -> bool {
    // A property may be called `type`.
    let has_type = written.get("type").is_some_and(|value| !value.is_object());
    !(has_type || written.contains_key("properties") || written.contains_key("$schema"))
}

fn compile(schema: &Value) -> Result<Schema, Problem> {
    dialect(schema)?;
    let weight = Weighing::new(schema).whole()?;
    let patterns = PatternOptions::regex()
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES);
    let compiled = jsonschema::options()
        .offline()
        .with_pattern_options(patterns)
        .build(schema);
    let validator = compiled.map_err(|error| {
        let words: String = error.to_string().chars().take(MOST_WORDS).collect();
        Problem::at(error.instance_path().to_string(), words)
    })?;
    Ok(Schema {
        validator,
        work: weight.values << weight.unevaluated,
        bytes: weight.values * VALUE_BYTES + weight.patterns * PATTERN_BYTES / 2,
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
