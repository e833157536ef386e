//! Dotted paths into documents.

use serde_json::{Map, Value};

/// Objects with more keys are asked for each name that could be meant; smaller
/// ones are read through, which takes less.
const FEW_KEYS: usize = 24;
const COMPONENT: &str = "component";
const METADATA: &str = "componentMetadata";

/// Shown each value that is found; tells whether to go on.
pub(super) type Visit<'f, 'v> = &'f mut dyn FnMut(&'v Value) -> bool;

/// What came of a walk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Walk {
    /// There is nothing.
    Nowhere,
    /// There was something.
    Through,
    /// There was, and that is enough.
    Stopped,
}

/// A dotted path, without empty names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path {
    text: Box<str>,
    /// Where it goes on behind a leading `component.`.
    tail: usize,
    /// Where it goes on behind `componentMetadata.` thereafter.
    inner: Option<usize>,
}

impl Path {
    /// Of names that are separated by dots.
    pub(super) fn new(text: &str) -> Self {
        let after = |text: &str, name| {
            let rest = text.strip_prefix(name)?.strip_prefix('.')?;
            Some(text.len() - rest.len())
        };
        let tail = after(text, COMPONENT).unwrap_or(0);
        Self {
            inner: after(&text[tail..], METADATA).map(|inner| tail + inner),
            tail,
            text: text.into(),
        }
    }
}

/// A component's document, or a part of it, as paths begin in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document<'v> {
    root: &'v Value,
    /// What stands under `componentMetadata`.
    metadata: Option<&'v Value>,
    /// Whether it has those two names in a way that takes a closer look.
    is_odd: bool,
}

impl<'v> Document<'v> {
    /// The document that begins there.
    pub(super) fn new(root: &'v Value) -> Self {
        let (mut metadata, mut is_odd) = (None, root.is_array());
        for (key, value) in root.as_object().into_iter().flatten() {
            if key == METADATA {
                metadata = Some(value);
            }
            let ends = |at: usize| key.as_bytes().get(at) == Some(&b'.');
            let may_be = key.len() == COMPONENT.len() || ends(COMPONENT.len());
            if may_be || ends(METADATA.len()) {
                is_odd |= key.starts_with(COMPONENT);
            }
        }
        Self {
            root,
            metadata,
            is_odd,
        }
    }

    /// Shows what stands at that path: as it is, without a leading `component.`,
    /// or under `componentMetadata`, whichever is there first. Tells whether
    /// there is anything.
    pub(super) fn each(&self, path: &Path, visit: Visit<'_, 'v>) -> bool {
        let (text, tail) = (&*path.text, &path.text[path.tail..]);
        if self.is_odd {
            let places = [text, tail].into_iter();
            for place in places.take(if path.tail > 0 { 2 } else { 1 }) {
                if walk(self.root, place, visit) != Walk::Nowhere {
                    return true;
                }
            }
        } else if let Some(inner) = path.inner {
            let inner = &text[inner..];
            if self.metadata.map(|at| walk(at, inner, visit)) == Some(Walk::Nowhere) {
                return self.under_metadata(tail, visit);
            }
            return self.metadata.is_some();
        } else if walk(self.root, tail, visit) != Walk::Nowhere {
            return true;
        }
        self.under_metadata(tail, visit)
    }

    fn under_metadata(&self, tail: &str, visit: Visit<'_, 'v>) -> bool {
        let under = self.metadata.map(|at| walk(at, tail, visit));
        under.is_some_and(|under| under != Walk::Nowhere)
    }
}

/// Shows what stands at that path. No value is come by twice: the way to each is
/// one way to read the path.
fn walk<'v>(value: &'v Value, path: &str, visit: Visit<'_, 'v>) -> Walk {
    if path.is_empty() {
        return if visit(value) {
            Walk::Through
        } else {
            Walk::Stopped
        };
    }
    match value {
        Value::Object(map) => match step(map, path) {
            Some((value, rest)) => walk(value, rest, visit),
            None => Walk::Nowhere,
        },
        Value::Array(list) => {
            let (first, rest) = path.split_once('.').unwrap_or((path, ""));
            if let Some(index) = index(first) {
                return match list.get(index) {
                    Some(value) => walk(value, rest, visit),
                    None => Walk::Nowhere,
                };
            }
            let mut all = Walk::Nowhere;
            for value in list {
                match walk(value, path, visit) {
                    Walk::Stopped => return Walk::Stopped,
                    Walk::Through => all = Walk::Through,
                    Walk::Nowhere => {}
                }
            }
            all
        }
        _ => Walk::Nowhere,
    }
}

/// A place in a list.
fn index(name: &str) -> Option<usize> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.parse().ok()).flatten()
}

/// The value of the longest key with which the path begins, as keys may have
/// dots, and the path from there.
fn step<'v, 'p>(map: &'v Map<String, Value>, path: &'p str) -> Option<(&'v Value, &'p str)> {
    let mut found = None;
    if map.len() > FEW_KEYS {
        let mut key = path;
        loop {
            if let Some(value) = map.get(key) {
                return Some((value, after(path, key.len())));
            }
            key = &key[..key.rfind('.')?];
        }
    }
    let mut longest = 0;
    for (key, value) in map {
        let len = key.len();
        let ends = match path.as_bytes().get(len) {
            Some(byte) => *byte == b'.',
            None => len == path.len(),
        };
        if ends && (len > longest || found.is_none()) && path.starts_with(key.as_str()) {
            (found, longest) = (Some(value), len);
        }
    }
    found.map(|value| (value, after(path, longest)))
}

/// The path behind its first bytes and their dot.
fn after(path: &str, bytes: usize) -> &str {
    path.get(bytes + 1..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(document: &Value, path: &str) -> Vec<Value> {
        let mut found = Vec::new();
        let document = Document::new(document);
        let is_there = document.each(&Path::new(path), &mut |value| {
            found.push(value.clone());
            true
        });
        assert_eq!(is_there, !found.is_empty());
        found
    }

    #[test]
    fn paths_descend_fan_out_and_index() {
        let mut wide = Map::new();
        for n in 0..100 {
            wide.insert(format!("k{n}"), json!(n));
        }
        wide.insert("k7.x".to_owned(), json!({"y": "dotted"}));
        let document = json!({
            "a": {"b": [{"c": 1}, {"c": [2, 3]}, 4, [{"c": 5}]]},
            "gpt-4": {"1": {"v": "short"}, "2": 2}, "gpt-4.1": {"v": "long"},
            "tags": ["x", "y"], "null": null, "wide": wide,
        });
        for (path, expected) in [
            ("a.b.c", json!([1, [2, 3], 5])),
            ("a.b.0.c", json!([1])),
            ("a.b.1.c.1", json!([3])),
            ("a.b.2", json!([4])),
            ("a.b.9.c", json!([])),
            ("a.b.+1", json!([])),
            ("a.b.3.0.c", json!([5])),
            ("gpt-4.1.v", json!(["long"])),
            ("gpt-4.2", json!([2])),
            ("gpt-4.1", json!([{"v": "long"}])),
            ("tags", json!([["x", "y"]])),
            ("tags.1", json!(["y"])),
            ("tags.x", json!([])),
            ("null", json!([null])),
            ("null.x", json!([])),
            ("wide.k99", json!([99])),
            ("wide.k7.x.y", json!(["dotted"])),
            ("wide.k7", json!([7])),
            ("wide.no.such.key", json!([])),
        ] {
            assert_eq!(json!(found(&document, path)), expected, "{path}");
        }
    }

    #[test]
    fn paths_begin_in_three_places() {
        let plain = json!({"componentMetadata": {"usecase": "in", "tags": [1]}, "tags": "out"});
        let rooted = json!({
            "component": {"componentMetadata": {"usecase": "rooted"}, "x": null},
            "componentMetadata": {"usecase": "in", "x": 1, "y": 2},
        });
        let dotted = json!({"componentMetadata.usecase": "flat", "component.x": "x"});
        for (document, path, expected) in [
            (&plain, "component.componentMetadata.usecase", json!(["in"])),
            (&plain, "componentMetadata.usecase", json!(["in"])),
            (&plain, "component.usecase", json!(["in"])),
            (&plain, "usecase", json!(["in"])),
            (&plain, "component.tags", json!(["out"])),
            (&plain, "componentMetadata.tags", json!([[1]])),
            (&plain, "component.component.tags", json!([])),
            (
                &plain,
                "componentMetadata",
                json!([{"usecase": "in", "tags": [1]}]),
            ),
            (
                &rooted,
                "component.componentMetadata.usecase",
                json!(["rooted"]),
            ),
            (&rooted, "componentMetadata.usecase", json!(["in"])),
            (&rooted, "component.x", json!([null])),
            (&rooted, "component.y", json!([2])),
            (&rooted, "x", json!([1])),
            (
                &dotted,
                "component.componentMetadata.usecase",
                json!(["flat"]),
            ),
            (&dotted, "component.x", json!(["x"])),
            (&dotted, "x", json!([])),
            (&Value::Null, "x", json!([])),
            (&json!("text"), "component.x", json!([])),
            (&json!([{"x": 1}, {"x": 2}]), "component.x", json!([1, 2])),
        ] {
            assert_eq!(json!(found(document, path)), expected, "{path} {document}");
        }
    }

    #[test]
    fn a_visit_may_be_the_last() {
        let document = json!({"a": [{"b": 1}, {"b": 2}]});
        let mut visits = 0;
        let document = Document::new(&document);
        assert!(document.each(&Path::new("a.b"), &mut |_| {
            visits += 1;
            false
        }));
        assert_eq!(visits, 1);
    }
}
