//! From a file's bytes to keys, or to all that is wrong with them at once.
//!
//! Syntax first, with its line and column; then the shape, by the JSON Schema;
//! then, in `resolve`, what a schema cannot say.

mod said;
mod shape;
mod tree;

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::dynamic::DynamicFile;
use super::flat::flatten;
use super::problem::{Problem, Problems};
pub use said::{MAX_SAID, Said, said};
use tree::Tree;

/// Bytes of a dynamic file at most: 1,000 engines, each with 8 KiB of metadata.
pub const MAX_FILE: u64 = 8 << 20;

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
    read_at_most(path, MAX_FILE)
}

/// The same of another file, of so many bytes at most.
///
/// # Errors
/// As [`read`].
pub fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, Vec<Problem>> {
    let fail = |message: String| vec![Problem::at("", message)];
    let failed = |e: std::io::Error| fail(format!("cannot read the file: {e}"));
    // Opening a pipe would wait for who writes to it.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed)?;
    let kind = file.metadata().map_err(failed)?;
    if !kind.is_file() {
        return Err(fail("is no file".to_owned()));
    }
    if kind.len() > most {
        return Err(fail(format!(
            "has {} bytes; at most {most} are read",
            kind.len()
        )));
    }
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(fail(format!("has more than {most} bytes")));
    }
    Ok(bytes)
}

/// Any JSON document without duplicate keys.
pub(super) fn document(text: &str) -> Result<Value, serde_json::Error> {
    let Tree(tree) = serde_json::from_str(text)?;
    Ok(tree)
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
        Format::Yaml => serde_saphyr::from_str_with_options(text, yaml()).map_err(|e| {
            let message = e.render_with_options(serde_saphyr::render_options! {
                snippets: serde_saphyr::SnippetMode::Off,
            });
            fail(format!("is not valid YAML: {message}"))
        }),
    };
    let Tree(tree) = tree?;
    let problems = shape::problems(&tree);
    if !problems.is_empty() {
        return Err(problems);
    }
    let Value::Object(mut keys) = tree else {
        return Err(fail("expected an object".to_owned()));
    };
    let problems = flatten(&mut keys);
    if !problems.is_empty() {
        return Err(problems);
    }
    serde_json::from_value(Value::Object(keys)).map_err(|e| fail(e.to_string()))
}

/// Room for as many nodes as [`MAX_FILE`] can have, and little for aliases.
fn yaml() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 4_000_000,
            max_events: 8_000_000,
            max_aliases: 1000,
            max_anchors: 1000,
        },
    }
}

#[cfg(test)]
mod tests;
