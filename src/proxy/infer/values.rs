//! What the values of a request to `/v1/infer` must be, and what is told of those
//! that are not.

use serde_json::value::RawValue;

use super::fault::InferError;
use super::fields::{Fields, kind};

/// Something of the data that makes no sense.
pub(super) fn wrong(pointer: impl Into<String>, message: impl Into<String>) -> InferError {
    InferError::wrong("data", pointer, message)
}

/// An object.
pub(super) fn object<'a>(value: &'a RawValue, pointer: &str) -> Result<Fields<'a>, InferError> {
    match kind(value) {
        "an object" => Fields::read(value.get()).map_err(|error| wrong(pointer, error.to_string())),
        found => Err(wrong(pointer, format!("expected an object, not {found}"))),
    }
}

/// Text, if it is there; `mode` and `system_message` are keys of the data.
pub(super) fn text_of(
    fields: &Fields<'_>,
    key: &'static str,
) -> Result<Option<String>, InferError> {
    let Some(value) = fields.get(key) else {
        return Ok(None);
    };
    let text = serde_json::from_str(value.get());
    text.map(Some).map_err(|_| {
        let message = format!("expected text, not {}", seen(value));
        match key {
            "mode" | "system_message" => wrong(format!("/data/{key}"), message),
            key => InferError::wrong(key, format!("/{key}"), message),
        }
    })
}

/// True or false, if it is there.
pub(super) fn flag(
    fields: &Fields<'_>,
    key: &str,
    under: &str,
) -> Result<Option<bool>, InferError> {
    match fields.get(key).map(RawValue::get) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => {
            let pointer = format!("{under}/{key}");
            Err(InferError::wrong(
                "stream",
                pointer,
                "expected true or false",
            ))
        }
    }
}

/// A key that must be there.
pub(super) fn missing(key: &'static str, expected: &str) -> InferError {
    let message = format!("missing; expected {expected}");
    InferError::wrong(key, format!("/{key}"), message)
}

/// A value in an error: short ones as they are written.
pub(super) fn seen(value: &RawValue) -> String {
    if value.get().len() <= 40 && !matches!(kind(value), "an object" | "an array") {
        return value.get().to_owned();
    }
    kind(value).to_owned()
}

/// Whether it is an object or an array of nothing.
pub(super) fn is_empty(value: &RawValue, open: char, close: char) -> bool {
    let inner = value.get().strip_prefix(open);
    inner.is_some_and(|inner| inner.trim_start().starts_with(close))
}

/// Keys that have no effect, in words.
pub(super) fn unknown(fields: &Fields<'_>, known: &[&str], under: &str) -> Vec<String> {
    let keys = fields.0.iter().map(|(key, _)| key.as_str());
    let unknown = keys.filter(|key| !known.contains(key));
    unknown
        .map(|key| {
            let key: String = key.chars().take(64).collect();
            format!("{under}/{key} has no effect")
        })
        .collect()
}
