//! Paths into engines' metadata, as goals and queries write them.

use serde_json::Value;

/// Under which the reference keeps what it says of a component, outermost first.
/// Some documents have these levels, some paths name them, and others do not.
const LEVELS: [&str; 3] = ["component", "componentMetadata", "architecture"];

/// What stands at a dotted path of a document: `a.b`, `a.0.b` and `a[0].b`.
///
/// The levels `component`, `componentMetadata` and `architecture` may be left
/// out at the front of the path, or be missing in the document:
/// `parameterCountB` finds `componentMetadata.architecture.parameterCountB`,
/// and the other way round. What stands exactly there comes first.
#[must_use]
pub fn lookup<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    exactly(document, path).or_else(|| nearby(document, path))
}

/// The number at such a path; NaN: there is none.
#[must_use]
pub fn number(document: &Value, path: &str) -> f64 {
    let found = lookup(document, path).and_then(Value::as_f64);
    found.unwrap_or(f64::NAN)
}

/// The same with levels left out: a level that the path names is looked into
/// alone, if the document has it anywhere; any other one as well.
fn nearby<'a>(document: &'a Value, mut path: &str) -> Option<&'a Value> {
    // Most engines say nothing of themselves.
    document.as_object()?;
    let mut places = vec![document];
    for level in LEVELS {
        let named = path.strip_prefix(level);
        let named = named.and_then(|rest| rest.strip_prefix('.'));
        let inner: Vec<&Value> = places.iter().filter_map(|at| at.get(level)).collect();
        match named {
            Some(rest) => {
                path = rest;
                if !inner.is_empty() {
                    places = inner;
                }
            }
            None => places.extend(inner),
        }
        let found = places.iter().find_map(|at| exactly(at, path));
        if found.is_some() {
            return found;
        }
    }
    None
}

fn exactly<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = document;
    for part in path.split('.') {
        let bracket = part.find('[').unwrap_or(part.len());
        let (name, mut indices) = part.split_at(bracket);
        if !name.is_empty() || indices.is_empty() {
            at = match name.parse::<usize>() {
                Ok(index) if at.is_array() => at.get(index)?,
                _ => at.get(name)?,
            };
        }
        while !indices.is_empty() {
            let (index, rest) = indices.strip_prefix('[')?.split_once(']')?;
            at = at.get(index.parse::<usize>().ok()?)?;
            indices = rest;
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_found_by_dotted_paths() {
        let document = json!({"a": {"b": [{"c": 7}, [8, 9]]}, "x": "text", "7": 6});
        for (path, expected) in [
            ("a.b.0.c", 7.0),
            ("a.b[0].c", 7.0),
            ("a.b.[0].c", 7.0),
            ("a.b[1][0]", 8.0),
            ("a.b.1.1", 9.0),
            ("7", 6.0),
        ] {
            assert_eq!(number(&document, path), expected, "{path}");
        }
        let none = [
            "a.b.2.c", "a.b[2].c", "a.b[0", "a.b[]", "a.b[0]c", "a.b]0[", "a[0]", "a.b[-1]", "x.y",
            "y.z", "", ".", "[", "[0]", "a..b",
        ];
        for missing in none {
            assert_eq!(lookup(&document, missing), None, "{missing}");
        }
        assert!(number(&document, "x").is_nan(), "no number");
        assert_eq!(lookup(&document, "x"), Some(&json!("text")));
        let deep = format!("a{}", "[0]".repeat(100_000));
        assert_eq!(lookup(&document, &deep), None);
    }

    /// However the document is rooted, and however the path.
    #[test]
    fn the_references_levels_may_be_left_out() {
        let count = "parameterCountB";
        let whole = json!({"component": {"tags": ["t"], "componentMetadata": {
            "architecture": {count: 7}, "hardware": {"gpus": [{"totalMem": 80}]},
        }}});
        let component = whole["component"].clone();
        let metadata = component["componentMetadata"].clone();
        for document in [&whole, &component, &metadata, &metadata["architecture"]] {
            for path in [
                "component.componentMetadata.architecture.parameterCountB",
                "componentMetadata.architecture.parameterCountB",
                "architecture.parameterCountB",
                "parameterCountB",
            ] {
                assert_eq!(number(document, path), 7.0, "{path} in {document}");
            }
        }
        for document in [&whole, &component, &metadata] {
            for path in [
                "hardware.gpus[0].totalMem",
                "componentMetadata.hardware.gpus.0.totalMem",
            ] {
                assert_eq!(number(document, path), 80.0, "{path} in {document}");
            }
        }
        assert!(lookup(&component, "component.tags[0]").is_some());
        assert!(lookup(&metadata, "tags").is_none());
    }

    #[test]
    fn what_is_named_whole_is_not_looked_for_elsewhere() {
        let document = json!({
            "name": "block",
            "component": {"name": "inner", "componentMetadata": {"usecase": "chat"}},
        });
        assert_eq!(lookup(&document, "name"), Some(&json!("block")));
        assert_eq!(lookup(&document, "component.name"), Some(&json!("inner")));
        for missing in [
            "componentMetadata.name",
            "component.usecase.name",
            "component.componentMetadata.name",
        ] {
            assert_eq!(lookup(&document, missing), None, "{missing}");
        }
        assert_eq!(lookup(&document, "usecase"), Some(&json!("chat")));
    }
}
