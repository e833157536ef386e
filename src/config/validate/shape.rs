//! Whether a document has the shape that our own JSON Schema says.
//!
//! A validator for any schema would bring 74 crates and a third of the binary;
//! this one knows the keywords that our schema uses, and is tested against such
//! a validator. In return it tells what was expected, and what was meant.

use serde_json::{Map, Value};

use super::super::dynamic::schema;
use super::super::problem::{Problem, nearest, shown};

/// Problems that are told at once.
pub(super) const MOST: usize = 100;

/// What of the document is not as the schema says.
pub(super) fn problems(tree: &Value) -> Vec<Problem> {
    let root = schema();
    problems_of(tree, &root, &root, "")
}

/// What of the value at `path` is not as `schema` says, whose references are
/// into `root`.
pub(super) fn problems_of(value: &Value, root: &Value, schema: &Value, path: &str) -> Vec<Problem> {
    let mut checking = Checking {
        root,
        problems: Vec::new(),
    };
    checking.check(value, schema, path);
    checking.problems.truncate(MOST);
    checking.problems
}

struct Checking<'a> {
    root: &'a Value,
    problems: Vec<Problem>,
}

impl<'a> Checking<'a> {
    fn wrong(&mut self, path: &str, value: &Value, expected: &str) {
        let key = path.rsplit('.').next().unwrap_or_default();
        // Someone may have written the key itself.
        let message = match key.starts_with("api_key") {
            true => format!("expected {expected}"),
            false => format!("{}: expected {expected}", shown(value)),
        };
        self.problems.push(Problem::at(path, message));
    }

    /// Our schema's references do not lead in circles.
    fn check(&mut self, value: &Value, mut schema: &'a Value, path: &str) {
        if self.problems.len() >= MOST {
            return;
        }
        while let Some(name) = schema["$ref"].as_str() {
            let target = self.root.pointer(name.trim_start_matches('#'));
            schema = target.unwrap_or(&Value::Null);
        }
        let types = names(&schema["type"]);
        if !types.is_empty() && !types.iter().any(|name| is_of(value, name)) {
            let named = types.iter().filter(|name| **name != "null");
            let named: Vec<&str> = named.map(|name| in_words(name)).collect();
            return self.wrong(path, value, &named.join(" or "));
        }
        if let Some(expected) = not_listed(value, schema) {
            return self.wrong(path, value, &expected);
        }
        match value {
            Value::Number(_) => self.number(value, schema, path),
            Value::String(text) if schema["pattern"].is_string() && !is_duration(text) => {
                self.wrong(path, value, "a duration: 250ms, 30s, 5m or seconds");
            }
            Value::Array(items) => self.list(value, items, schema, path),
            Value::Object(map) => self.object(map, schema, path),
            _ => {}
        }
    }

    fn number(&mut self, value: &Value, schema: &Value, path: &str) {
        let number = value.as_f64().unwrap_or_default();
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            self.wrong(path, value, &format!("{least} or more"));
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            self.wrong(path, value, &format!("at most {most}"));
        }
    }

    fn list(&mut self, value: &Value, items: &[Value], schema: &'a Value, path: &str) {
        let least = schema["minItems"].as_u64().unwrap_or(0);
        if (items.len() as u64) < least {
            self.wrong(path, value, &format!("at least {least} item(s)"));
        }
        if let Some(each) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.check(item, each, &format!("{path}[{index}]"));
            }
        }
    }

    fn object(&mut self, map: &Map<String, Value>, schema: &'a Value, path: &str) {
        for required in names(&schema["required"]) {
            if !map.contains_key(required) {
                let message = format!("{required:?} is missing");
                self.problems.push(Problem::at(path, message));
            }
        }
        let known = schema["properties"].as_object();
        for (key, value) in map {
            let at = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            match known.and_then(|known| known.get(key)) {
                Some(property) => self.check(value, property, &at),
                None => match &schema["additionalProperties"] {
                    Value::Bool(false) => self.unknown(&at, key, known),
                    other => self.check(value, other, &at),
                },
            }
        }
    }

    fn unknown(&mut self, at: &str, key: &str, known: Option<&Map<String, Value>>) {
        if key == "api_key" && known.is_some_and(|known| known.contains_key("api_key_env")) {
            let message = "a key is not written here: name the variable that holds it \
                           (api_key_env), or the file (api_key_file)";
            return self.problems.push(Problem::at(at, message));
        }
        let known: Vec<&str> = (known.into_iter())
            .flat_map(|known| known.keys().map(String::as_str))
            .collect();
        let hint = nearest(key, known.iter().copied()).map_or_else(
            || format!("known: {}", known.join(", ")),
            |near| format!("did you mean {near:?}?"),
        );
        let message = format!("is no known key; {hint}");
        self.problems.push(Problem::at(at, message));
    }
}

/// One name, or a list of them.
fn names(value: &Value) -> Vec<&str> {
    match value {
        Value::String(name) => vec![name],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn in_words(name: &str) -> &'static str {
    match name {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        _ => "an object",
    }
}

/// The values that are allowed, when this is none of them: an `enum`, or a
/// variant each, which have descriptions.
fn not_listed(value: &Value, schema: &Value) -> Option<String> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    let variants = schema["oneOf"].as_array().into_iter().flatten();
    let mut allowed: Vec<&Value> = listed.chain(variants.map(|one| &one["const"])).collect();
    if allowed.is_empty() || allowed.contains(&value) {
        return None;
    }
    allowed.retain(|one| !one.is_null());
    let names: Vec<String> = allowed.into_iter().map(Value::to_string).collect();
    Some(names.join(" or "))
}

/// The one pattern of the schema: digits, perhaps a fraction, perhaps a unit.
fn is_duration(text: &str) -> bool {
    let number = ["ms", "s", "m"]
        .iter()
        .find_map(|unit| text.strip_suffix(unit))
        .unwrap_or(text);
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match number.split_once('.') {
        None => is_digits(number),
        Some((whole, fraction)) => is_digits(whole) && is_digits(fraction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3i64..70_000).prop_map(Value::from),
            Just(json!(-0.5)),
            Just(json!(1.5)),
            "[0-9]{0,2}(\\.[0-9]{0,2})?(ms|s|m|h)?".prop_map(Value::from),
            prop_oneof![Just("static"), Just("public"), Just("x")].prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("engines"),
            Just("url"),
            Just("models"),
            Just("weight"),
            Just("labels"),
            Just("privacy"),
            Just("cost"),
            Just("input_per_mtok"),
            Just("output_per_mtok"),
            Just("metadata"),
            Just("service_discovery"),
            Just("static_models"),
            Just("static_backends"),
            Just("k8s_port"),
            Just("timeouts"),
            Just("connect"),
            Just("limits"),
            Just("max_peek_bytes"),
            Just("policies"),
            Just("type"),
            Just("other"),
        ];
        leaf.prop_recursive(4, 40, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map(key.clone(), inner, 0..5).prop_map(|map| {
                    let map = map.into_iter().map(|(key, value)| (key.to_owned(), value));
                    Value::Object(map.collect())
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn agrees_with_a_validator_for_any_schema(tree in anything()) {
            thread_local! {
                static ORACLE: jsonschema::Validator = jsonschema::validator_for(&schema()).unwrap();
            }
            let is_good = ORACLE.with(|oracle| oracle.is_valid(&tree));
            let told = problems(&tree);
            prop_assert_eq!(told.is_empty(), is_good, "{:?}", told);
        }
    }
}
