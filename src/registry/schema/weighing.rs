//! What a schema amounts to, each reference as what it refers to.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::config::problem::Problem;

/// Values of a schema with its references written out.
const MOST_VALUES: usize = 10_000;
/// How deep it may be, with its references written out.
const MOST_DEPTH: usize = 64;
/// Regular expressions in one schema, with its references written out.
const MOST_PATTERNS: usize = 32;
/// `unevaluatedProperties` and `unevaluatedItems`: each looks again at all that
/// stands beside it, and so do those within, which doubles the work.
const MOST_UNEVALUATED: usize = 4;

/// What a part of a schema amounts to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    /// Its values, itself too.
    pub(super) values: usize,
    /// Regular expressions.
    pub(super) patterns: usize,
    /// Parts that look again at all beside them; 4 at most.
    pub(super) unevaluated: usize,
    depth: usize,
}

/// Adds up a schema, each reference as what it refers to.
pub(super) struct Weighing<'a> {
    root: &'a Value,
    /// What is referred to; `None` while it is being weighed.
    known: HashMap<&'a str, Option<Weight>>,
    /// Levels above what is being looked at, through references.
    above: usize,
}

impl<'a> Weighing<'a> {
    pub(super) fn new(root: &'a Value) -> Self {
        Self {
            root,
            known: HashMap::new(),
            above: 0,
        }
    }

    /// # Errors
    /// When it is too much, or has what is not supported.
    pub(super) fn whole(mut self) -> Result<Weight, Problem> {
        let weight = self.value(self.root, &mut String::new())?;
        for (what, is, most) in [
            ("values", weight.values, MOST_VALUES),
            ("levels", weight.depth, MOST_DEPTH),
            ("patterns", weight.patterns, MOST_PATTERNS),
            ("`unevaluated...`", weight.unevaluated, MOST_UNEVALUATED),
        ] {
            if is > most {
                let message =
                    format!("has {is} {what}, with its references written out; at most {most}");
                return Err(Problem::at("", message));
            }
        }
        Ok(weight)
    }

    fn value(&mut self, value: &'a Value, at: &mut String) -> Result<Weight, Problem> {
        // Before it is looked into: whoever is deep enough would have us overflow.
        if self.above >= MOST_DEPTH {
            let message = format!(
                "has more than {MOST_DEPTH} levels, with its references written out, which is \
                 the most"
            );
            return Err(Problem::at("", message));
        }
        self.above += 1;
        let weight = self.parts(value, at);
        self.above -= 1;
        weight
    }

    fn parts(&mut self, value: &'a Value, at: &mut String) -> Result<Weight, Problem> {
        let mut weight = Weight {
            values: 1,
            patterns: 0,
            unevaluated: 0,
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
                    weight.keyword(key, inner);
                    unsupported(key, inner, at)?;
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
        for (sum, inner) in [
            (&mut self.values, inner.values),
            (&mut self.patterns, inner.patterns),
            (&mut self.unevaluated, inner.unevaluated),
        ] {
            *sum = sum.saturating_add(inner);
        }
        self.depth = self.depth.max(inner.depth.saturating_add(1));
    }

    /// Counts what takes long.
    fn keyword(&mut self, key: &str, value: &Value) {
        match (key, value) {
            ("pattern", Value::String(_)) => self.patterns += 1,
            ("patternProperties", Value::Object(map)) => self.patterns += map.len(),
            ("unevaluatedProperties" | "unevaluatedItems", _) => self.unevaluated += 1,
            _ => {}
        }
    }
}

/// Refuses what would change what references mean.
fn unsupported(key: &str, value: &Value, at: &str) -> Result<(), Problem> {
    let is_inner = !at.is_empty();
    let message = match (key, value) {
        ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
            "is not supported: use $ref to a part of this schema, as \"#/$defs/x\""
        }
        ("$anchor", Value::String(_)) => {
            "is not supported: refer to parts by their path, as \"#/$defs/x\""
        }
        ("$id", Value::String(_)) if is_inner => {
            "is not supported: refer to parts by their path, as \"#/$defs/x\""
        }
        ("$schema", Value::String(_)) if is_inner => {
            "is not supported: a schema is of one dialect, which is named at its top"
        }
        _ => return Ok(()),
    };
    Err(Problem::at(format!("{at}/{key}"), message))
}
