//! The reference router's flat form: lists in strings, and its YAML maps,
//! which are flattened to the same strings.

use serde_json::{Map, Value};

/// Splits a list at its commas; empty items are nothing.
pub(super) fn items(list: &str) -> Vec<&str> {
    let items = list.split(',').map(str::trim);
    items.filter(|item| !item.is_empty()).collect()
}

/// Makes the map forms of `static_models` and `static_aliases` the strings that
/// they stand for. The tree has been checked against the schema.
pub(super) fn flatten(tree: &mut Map<String, Value>) {
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
    fn maps_become_the_strings_they_stand_for() {
        let mut tree = serde_json::json!({
            "static_models": {
                "a": {"static_backends": ["http://1", "http://2"], "static_model_type": "embeddings"},
                "b": {"static_backends": ["http://1"]},
            },
            "static_aliases": {"x": "a", "y": "b"},
        });
        flatten(tree.as_object_mut().unwrap());
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
