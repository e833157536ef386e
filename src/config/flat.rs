//! The reference router's flat form: lists in strings, and its YAML maps,
//! which are flattened to the same strings.

use serde_json::{Map, Value};

use super::problem::{Problem, masked};

/// Splits a list at its commas; empty items are nothing.
pub(super) fn items(list: &str) -> Vec<&str> {
    let items = list.split(',').map(str::trim);
    items.filter(|item| !item.is_empty()).collect()
}

/// Makes the map forms of `static_models` and `static_aliases` the strings that
/// they stand for. The tree has been checked against the schema.
///
/// Tells what the strings could not say, or what is said twice.
pub(super) fn flatten(tree: &mut Map<String, Value>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut plain = |path: String, text: &str, forbidden: &[char]| {
        if text.contains(forbidden) || text.is_empty() {
            let message = format!(
                "{:?} cannot stand in this form; use `engines` or `aliases`",
                masked(text)
            );
            problems.push(Problem::at(path, message));
        }
    };
    if let Some(Value::Object(models)) = tree.get("static_models") {
        for (name, entry) in models {
            let path = format!("static_models.{name}");
            plain(path.clone(), name, &[',']);
            for url in entry["static_backends"].as_array().into_iter().flatten() {
                plain(path.clone(), url.as_str().unwrap_or_default(), &[',']);
            }
        }
    }
    if let Some(Value::Object(aliases)) = tree.get("static_aliases") {
        for (alias, model) in aliases {
            let path = format!("static_aliases.{alias}");
            plain(path.clone(), alias, &[',', ':']);
            plain(path, model.as_str().unwrap_or_default(), &[',']);
        }
    }
    if tree.get("static_models").is_some_and(Value::is_object) {
        for twice in ["static_backends", "static_model_types"] {
            if tree.get(twice).is_some_and(|value| !value.is_null()) {
                let message = "and a map of static_models say the same thing: keep one";
                problems.push(Problem::at(twice, message));
            }
        }
        if tree["static_models"] == Value::Object(Map::new()) {
            let message = "names no model and no engine";
            problems.push(Problem::at("static_models", message));
        }
    }
    if problems.is_empty() {
        write_as_strings(tree);
    }
    problems
}

fn write_as_strings(tree: &mut Map<String, Value>) {
    if let Some(Value::Object(models)) = tree.get("static_models") {
        let (mut urls, mut names, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for (name, entry) in models {
            for url in entry["static_backends"].as_array().into_iter().flatten() {
                urls.push(url.as_str().unwrap_or_default());
                names.push(name.as_str());
                types.push(entry["static_model_type"].as_str().unwrap_or_default());
            }
        }
        let typed = types.iter().any(|kind| !kind.is_empty());
        let types: Vec<&str> = (types.into_iter())
            .map(|kind| if kind.is_empty() { "chat" } else { kind })
            .collect();
        let [urls, names, types] = [urls, names, types].map(|list| Value::from(list.join(",")));
        tree.insert("static_backends".to_owned(), urls);
        tree.insert("static_models".to_owned(), names);
        if typed {
            tree.insert("static_model_types".to_owned(), types);
        }
    }
    if let Some(Value::Object(aliases)) = tree.get("static_aliases") {
        let pair = |(alias, model): (&String, &Value)| {
            format!("{alias}:{}", model.as_str().unwrap_or_default())
        };
        let list: Vec<String> = aliases.iter().map(pair).collect();
        tree.insert("static_aliases".to_owned(), Value::from(list.join(",")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_strings_cannot_say_is_told() {
        for (tree, path) in [
            (
                serde_json::json!({"static_aliases": {"llama3:8b": "x"}}),
                "static_aliases.llama3:8b",
            ),
            (
                serde_json::json!({"static_models": {"a,b": {"static_backends": ["u"]}}}),
                "static_models.a,b",
            ),
            (
                serde_json::json!({"static_models": {"a": {"static_backends": ["u,v"]}}}),
                "static_models.a",
            ),
            (serde_json::json!({"static_models": {}}), "static_models"),
            (
                serde_json::json!({"static_models": {"a": {"static_backends": ["u"]}}, "static_backends": "v"}),
                "static_backends",
            ),
        ] {
            let mut keys = tree.as_object().unwrap().clone();
            let problems = flatten(&mut keys);
            assert_eq!(problems[0].path, path);
            assert_eq!(Value::Object(keys), tree);
        }
    }

    #[test]
    fn maps_become_the_strings_they_stand_for() {
        let mut tree = serde_json::json!({
            "static_models": {
                "a": {"static_backends": ["http://1", "http://2"], "static_model_type": "embeddings"},
                "b": {"static_backends": ["http://1"]},
            },
            "static_aliases": {"x": "a", "y": "b"},
        });
        let problems = flatten(tree.as_object_mut().unwrap());
        assert_eq!(problems, []);
        assert_eq!(
            tree,
            serde_json::json!({
                "static_backends": "http://1,http://2,http://1",
                "static_models": "a,a,b",
                "static_model_types": "embeddings,embeddings,chat",
                "static_aliases": "x:a,y:b",
            })
        );
    }
}
