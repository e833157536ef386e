//! From a file's bytes to keys, or to all that is wrong with them at once.
//!
//! Syntax first, with its line and column; then the shape, by the JSON Schema;
//! then, in `resolve`, what a schema cannot say.

mod tree;

use std::io::Read as _;
use std::path::Path;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::dynamic::{DynamicFile, schema};
use super::flat::flatten;
use super::problem::{Problem, Problems, nearest, shown};
use tree::Tree;

/// Bytes of a dynamic file at most: 1,000 engines, each with 8 KiB of metadata.
pub const MAX_FILE: u64 = 8 << 20;
/// Problems that are told at once.
const MOST: usize = 100;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259, without duplicate keys.
    Json,
    /// YAML 1.2.
    Yaml,
}

impl Format {
    /// JSON when the name ends so, else YAML, of which JSON is a part.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let is_json = |end: &std::ffi::OsStr| end.eq_ignore_ascii_case("json");
        if path.extension().is_some_and(is_json) {
            Self::Json
        } else {
            Self::Yaml
        }
    }
}

/// A file as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// How it is written.
    pub format: Format,
    /// What it says.
    pub keys: DynamicFile,
    /// Its bytes, by which a change is noticed.
    pub bytes: Vec<u8>,
}

/// Reads and checks a file.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path, format: Format) -> Result<Loaded, Problems> {
    let of = path.display().to_string();
    let found = read(path).and_then(|bytes| {
        let keys = parse(&bytes, format)?;
        Ok(Loaded {
            format,
            keys,
            bytes,
        })
    });
    found.map_err(|list| Problems { of, list })
}

/// The file's bytes.
///
/// # Errors
/// When there is no such file, or it is no file, or too large.
pub fn read(path: &Path) -> Result<Vec<u8>, Vec<Problem>> {
    let fail = |message: String| vec![Problem::at("", message)];
    let failed = |e: std::io::Error| fail(format!("cannot read the file: {e}"));
    let file = std::fs::File::open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?;
    if !kind.is_file() {
        return Err(fail("is no file".to_owned()));
    }
    if kind.len() > MAX_FILE {
        return Err(fail(format!(
            "has {} bytes; at most {MAX_FILE} are read",
            kind.len()
        )));
    }
    let mut bytes = Vec::new();
    let most = MAX_FILE + 1;
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 == most {
        return Err(fail(format!("has more than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

/// The keys that a file's bytes mean.
///
/// # Errors
/// All that is wrong with syntax and shape.
pub fn parse(bytes: &[u8], format: Format) -> Result<DynamicFile, Vec<Problem>> {
    let fail = |message: String| vec![Problem::at("", message)];
    if bytes.trim_ascii().is_empty() {
        return Err(fail("the file is empty; expected an object".to_owned()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| fail(format!("is not UTF-8: byte {} is wrong", e.valid_up_to())))?;
    let tree = match format {
        Format::Json => {
            serde_json::from_str(text).map_err(|e| fail(format!("is not valid JSON: {e}")))
        }
        Format::Yaml => serde_saphyr::from_str(text).map_err(|e| {
            let message = e.render_with_options(serde_saphyr::render_options! {
                snippets: serde_saphyr::SnippetMode::Off,
            });
            fail(format!("is not valid YAML: {message}"))
        }),
    };
    let Tree(tree) = tree?;
    let problems = shape(&tree);
    if !problems.is_empty() {
        return Err(problems);
    }
    let Value::Object(mut keys) = tree else {
        return Err(fail("expected an object".to_owned()));
    };
    flatten(&mut keys);
    serde_json::from_value(Value::Object(keys)).map_err(|e| fail(e.to_string()))
}

/// What of the tree is not as the schema says.
fn shape(tree: &Value) -> Vec<Problem> {
    let schema = schema();
    let validator = match jsonschema::validator_for(&schema) {
        Ok(validator) => validator,
        Err(error) => return vec![Problem::at("", format!("the schema is broken: {error}"))],
    };
    let errors = validator.iter_errors(tree).take(MOST);
    errors.flat_map(|error| problems(&error, &schema)).collect()
}

fn problems(error: &ValidationError<'_>, schema: &Value) -> Vec<Problem> {
    let pointer = error.instance_path().as_str();
    let path = path(pointer);
    let value = shown(error.instance());
    let expected = |what: String| vec![Problem::at(&path, format!("{value}: expected {what}"))];
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = schema_at(schema, pointer)["properties"].as_object();
            let known: Vec<&str> = known
                .into_iter()
                .flat_map(|keys| keys.keys())
                .map(String::as_str)
                .collect();
            let unknown = |key: &String| {
                let near = nearest(key, known.iter().copied());
                let hint = near.map_or_else(
                    || format!("known: {}", known.join(", ")),
                    |near| format!("did you mean {near:?}?"),
                );
                let path = [&path, key.as_str()].map(str::to_owned);
                let path = path.into_iter().filter(|part| !part.is_empty());
                Problem::at(
                    path.collect::<Vec<_>>().join("."),
                    format!("is no known key; {hint}"),
                )
            };
            unexpected.iter().map(unknown).collect()
        }
        ValidationErrorKind::Type { kind } => expected(type_names(kind)),
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().into_iter().flatten();
            let named = options.filter(|option| !option.is_null());
            let list: Vec<String> = named.map(Value::to_string).collect();
            expected(list.join(" or "))
        }
        // A variant each, since each has a description.
        ValidationErrorKind::OneOfNotValid { .. } => {
            let variants = schema_at(schema, pointer)["oneOf"].as_array();
            let names = variants.into_iter().flatten().map(|one| &one["const"]);
            let names: Vec<String> = names.map(Value::to_string).collect();
            expected(names.join(" or "))
        }
        ValidationErrorKind::Minimum { limit } => expected(format!("{} or more", number(limit))),
        ValidationErrorKind::Maximum { limit } => expected(format!("at most {}", number(limit))),
        ValidationErrorKind::MinItems { limit } => expected(format!("at least {limit} item(s)")),
        ValidationErrorKind::Pattern { .. } => {
            expected("a duration: 250ms, 30s, 5m or seconds".to_owned())
        }
        ValidationErrorKind::Required { property } => {
            vec![Problem::at(path, format!("{property} is missing"))]
        }
        _ => vec![Problem::at(path, error.to_string())],
    }
}

fn type_names(kind: &TypeKind) -> String {
    let name = |kind: JsonType| match kind {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "text",
    };
    match kind {
        TypeKind::Single(kind) => name(*kind).to_owned(),
        TypeKind::Multiple(kinds) => {
            let named = kinds.iter().filter(|kind| *kind != JsonType::Null);
            named.map(name).collect::<Vec<_>>().join(" or ")
        }
    }
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// `/engines/2/url` → `engines[2].url`.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for token in pointer.split('/').skip(1) {
        if token.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{token}]"));
        } else {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(&unescaped(token));
        }
    }
    path
}

/// A bound without the `.0` of whole ones.
fn number(limit: &Value) -> String {
    let text = limit.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// What the schema says of a place of the tree.
fn schema_at<'a>(schema: &'a Value, pointer: &str) -> &'a Value {
    let mut at = schema;
    for token in pointer.split('/').skip(1).map(unescaped) {
        let next = [&at["properties"][&token], &at["items"]];
        let next = next.into_iter().find(|next| !next.is_null());
        at = next.unwrap_or(&at["additionalProperties"]);
        while let Some(name) = at["$ref"].as_str() {
            let target = schema.pointer(name.trim_start_matches('#'));
            at = target.unwrap_or(&Value::Null);
        }
    }
    at
}

#[cfg(test)]
mod tests;
