//! The file of those who may call: JSON, checked as a whole.
//!
//! It is checked by hand, not by a schema: a message must never show a value of
//! this file, since someone may have put a key where its hash should be.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::problem::{Problem, Problems, nearest};
use super::super::validate::{document, read_at_most};
use super::moment;
use super::{Bytes, CallerEntry, CallersSource, KeyHash, Proof};

/// Bytes of the file at most.
pub const MAX_FILE: u64 = 1 << 20;
/// Callers in it at most.
pub const MOST_CALLERS: usize = 10_000;
/// Bytes of a caller's name.
const MAX_NAME: usize = 64;
/// Bytes of a model's name, or a certificate's subject.
const MAX_TEXT: usize = 1024;
/// Models of one caller.
const MOST_MODELS: usize = 1000;
/// Keys of one caller: the old one, the new one, and a few more.
const MOST_HASHES: usize = 8;
/// Problems that are told at once.
const MOST_PROBLEMS: usize = 100;

const LISTS: [&str; 2] = ["keys", "identities"];
const OF_KEY: [&str; 6] = [
    "name",
    "sha256",
    "models",
    "requests_per_minute",
    "max_in_flight",
    "expires",
];
const OF_IDENTITY: [&str; 6] = [
    "name",
    "subject",
    "models",
    "requests_per_minute",
    "max_in_flight",
    "expires",
];

/// Reads and checks the file.
///
/// # Errors
/// All that is wrong with it.
pub fn load(path: &Path) -> Result<CallersSource, Problems> {
    let found = read_at_most(path, MAX_FILE).and_then(|bytes| {
        let first = parse(&bytes)?;
        Ok(CallersSource {
            file: path.to_owned(),
            first,
            bytes: Bytes(bytes),
        })
    });
    found.map_err(|list| Problems {
        of: path.display().to_string(),
        list,
    })
}

/// Those whom the file's bytes name.
///
/// # Errors
/// All that is wrong with them; no value of the file is shown.
pub fn parse(bytes: &[u8]) -> Result<Vec<CallerEntry>, Vec<Problem>> {
    let fail = |message: String| vec![Problem::at("", message)];
    if bytes.len() as u64 > MAX_FILE {
        return Err(fail(format!("has more than {MAX_FILE} bytes")));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(fail("the file is empty; expected an object".to_owned()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| fail(format!("is not UTF-8: byte {} is wrong", e.valid_up_to())))?;
    let tree = document(text).map_err(|error| fail(syntax(&error)))?;
    let Value::Object(lists) = tree else {
        return Err(fail("expected an object with \"keys\"".to_owned()));
    };
    let mut reading = Reading::default();
    reading.lists(&lists);
    reading.problems.truncate(MOST_PROBLEMS);
    if reading.problems.is_empty() {
        return Ok(reading.callers);
    }
    Err(reading.problems)
}

/// What is wrong with the syntax, and where. Its own words may quote the file.
fn syntax(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a key stands twice in one object",
        _ => "this is no JSON",
    };
    let (line, column) = (error.line(), error.column());
    format!("is not valid JSON: {what}, at line {line} column {column}")
}

#[derive(Default)]
struct Reading {
    callers: Vec<CallerEntry>,
    problems: Vec<Problem>,
    /// Where names, hashes and subjects stood first.
    names: HashMap<String, String>,
    hashes: HashMap<KeyHash, String>,
    subjects: HashMap<String, String>,
}

impl Reading {
    fn wrong(&mut self, path: &str, message: impl Into<String>) {
        // There may be one for each byte of the file.
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(Problem::at(path, message));
        }
    }

    fn lists(&mut self, lists: &Map<String, Value>) {
        self.known("", lists, &LISTS);
        if LISTS.iter().all(|list| !lists.contains_key(*list)) {
            self.wrong("", "\"keys\" is missing; an empty list lets nobody in");
        }
        let mut count = 0;
        for list in LISTS {
            match lists.get(list) {
                None => {}
                Some(Value::Array(entries)) => {
                    count += entries.len();
                    if count > MOST_CALLERS {
                        let message = format!("there are more than {MOST_CALLERS} callers");
                        return self.wrong(list, message);
                    }
                    for (at, entry) in entries.iter().enumerate() {
                        self.entry(&format!("{list}[{at}]"), entry, list);
                    }
                }
                Some(_) => self.wrong(list, "expected a list"),
            }
        }
    }

    fn entry(&mut self, path: &str, entry: &Value, list: &str) {
        let Value::Object(entry) = entry else {
            return self.wrong(path, "expected an object");
        };
        let is_key = list == LISTS[0];
        self.known(path, entry, if is_key { &OF_KEY } else { &OF_IDENTITY });
        let name = self.name(path, entry);
        let proof = if is_key {
            self.keys(path, entry).map(Proof::Keys)
        } else {
            self.subject(path, entry).map(Proof::Subject)
        };
        let models = self.models(path, entry);
        let requests_per_minute = self.count(path, entry, "requests_per_minute");
        let max_in_flight = self.count(path, entry, "max_in_flight");
        let expires = entry.get("expires").and_then(|value| {
            let moment = value.as_str().and_then(moment::parse);
            if moment.is_none() {
                let message = "expected a moment like \"2027-01-01T00:00:00Z\"";
                self.wrong(&format!("{path}.expires"), message);
            }
            moment
        });
        if let (Some(name), Some(proof)) = (name, proof) {
            self.callers.push(CallerEntry {
                name,
                proof,
                models,
                requests_per_minute,
                max_in_flight,
                expires,
            });
        }
    }

    /// Tells of keys that mean nothing.
    fn known(&mut self, path: &str, map: &Map<String, Value>, known: &[&str]) {
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            // What looks like no key of ours may be a secret.
            let is_word =
                key.len() <= 24 && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let what = if is_word {
                format!("{key:?}")
            } else {
                "a key".to_owned()
            };
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) if is_word => format!("did you mean {near:?}?"),
                _ => format!("known: {}", known.join(", ")),
            };
            self.wrong(path, format!("{what} is not known here; {hint}"));
        }
    }

    fn name(&mut self, path: &str, entry: &Map<String, Value>) -> Option<Arc<str>> {
        let at = format!("{path}.name");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@".contains(&byte);
        let name = match entry.get("name") {
            None => {
                self.wrong(path, "\"name\" is missing");
                return None;
            }
            Some(Value::String(name))
                if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain) =>
            {
                name
            }
            Some(_) => {
                let message = "expected 1 to 64 letters, digits, or any of ._-:/@";
                self.wrong(&at, message);
                return None;
            }
        };
        if let Some(first) = self.names.insert(name.clone(), at.clone()) {
            self.wrong(
                &at,
                format!("is the same as {first}: names are for one caller each"),
            );
        }
        Some(Arc::from(name.as_str()))
    }

    fn keys(&mut self, path: &str, entry: &Map<String, Value>) -> Option<Vec<KeyHash>> {
        let at = format!("{path}.sha256");
        let texts = match entry.get("sha256") {
            None => {
                self.wrong(
                    path,
                    "\"sha256\" is missing; `pilotfish key` makes a key and its hash",
                );
                return None;
            }
            Some(Value::Array(texts)) if (1..=MOST_HASHES).contains(&texts.len()) => {
                texts.as_slice()
            }
            Some(Value::Array(_)) => {
                self.wrong(&at, format!("expected 1 to {MOST_HASHES} hashes"));
                return None;
            }
            Some(one) => std::slice::from_ref(one),
        };
        let mut hashes = Vec::with_capacity(texts.len());
        for text in texts {
            let Some(hash) = text.as_str().and_then(hash) else {
                let message = "expected the SHA-256 of a key, in 64 hexadecimal digits; \
                               `pilotfish key` makes a key and its hash";
                self.wrong(&at, message);
                continue;
            };
            if let Some(first) = self.hashes.insert(hash, at.clone()) {
                self.wrong(
                    &at,
                    format!("is the same as {first}: a key is for one caller"),
                );
            }
            hashes.push(hash);
        }
        Some(hashes)
    }

    fn subject(&mut self, path: &str, entry: &Map<String, Value>) -> Option<Arc<str>> {
        let at = format!("{path}.subject");
        let Some(subject) = entry.get("subject") else {
            let message = "\"subject\" is missing: a certificate's URI, DNS name or common name";
            self.wrong(path, message);
            return None;
        };
        let subject = self.text(&at, subject)?;
        if let Some(first) = self.subjects.insert(subject.clone(), at.clone()) {
            self.wrong(&at, format!("is the same as {first}"));
        }
        Some(Arc::from(subject))
    }

    fn models(&mut self, path: &str, entry: &Map<String, Value>) -> Option<Box<[String]>> {
        let at = format!("{path}.models");
        match entry.get("models")? {
            Value::Array(models) if (1..=MOST_MODELS).contains(&models.len()) => {
                let models = models.iter().enumerate();
                let names =
                    models.filter_map(|(index, model)| self.text(&format!("{at}[{index}]"), model));
                Some(names.collect())
            }
            _ => {
                let message = "expected a list of 1 to 1,000 models; left out, all are allowed";
                self.wrong(&at, message);
                None
            }
        }
    }

    fn text(&mut self, at: &str, value: &Value) -> Option<String> {
        let text = value.as_str();
        let text = text.filter(|text| {
            (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
        });
        if text.is_none() {
            self.wrong(at, format!("expected a text of 1 to {MAX_TEXT} bytes"));
        }
        text.map(str::to_owned)
    }

    fn count(&mut self, path: &str, entry: &Map<String, Value>, key: &str) -> Option<NonZeroU32> {
        let value = entry.get(key)?;
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        let count = count.and_then(NonZeroU32::new);
        if count.is_none() {
            let message = "expected a whole number from 1; left out, there is no limit";
            self.wrong(&format!("{path}.{key}"), message);
        }
        count
    }
}

/// 64 hexadecimal digits.
fn hash(text: &str) -> Option<KeyHash> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (place, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = digit(pair[0])? * 16 + digit(pair[1])?;
        *place = u8::try_from(byte).ok()?;
    }
    Some(KeyHash(hash))
}

#[cfg(test)]
mod tests;
