//! The example files of `config/`, as users and their editors take them.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::path::{Path, PathBuf};

use pilotfish::config::dynamic::schema;
use pilotfish::config::resolve::{Resolved, resolve};
use pilotfish::config::validate::{Format, load};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn every_example_is_good() {
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("schema.json") {
            continue;
        }
        let loaded = load(&path, Format::of(&path)).unwrap_or_else(|problems| panic!("{problems}"));
        let resolved = resolve(&loaded.keys);
        let Resolved { settings, warnings } = resolved.unwrap_or_else(|list| panic!("{list:?}"));
        assert!(!settings.engines.is_empty(), "{}", path.display());
        assert_eq!(warnings, Vec::<String>::new());
        seen += 1;
    }
    assert_eq!(seen, 6);
}

/// Rewrite it with `cargo run -- schema > config/schema.json`.
#[test]
fn the_schema_beside_them_is_the_programs() {
    let text = std::fs::read_to_string(folder().join("schema.json")).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(written, schema());
}

/// Policies that docs/policies.md shows in YAML are good ones.
#[test]
fn the_policies_of_the_documentation_are_good() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md");
    let text = std::fs::read_to_string(path).unwrap();
    let engines = "engines: [{url: 'http://a:8000', models: [m]}]";
    let name = format!("pilotfish-policies-{}.yaml", std::process::id());
    let file = std::env::temp_dir().join(name);
    let shown = text.split("```yaml\n").skip(1);
    let shown = shown.filter_map(|rest| rest.split("```").next());
    let mut seen = 0;
    for policies in shown.filter(|shown| shown.starts_with("policies:")) {
        let all =
            format!("service_discovery: static\nrouting_logic: random\n{engines}\n{policies}");
        std::fs::write(&file, all).unwrap();
        let loaded = load(&file, Format::of(&file));
        std::fs::remove_file(&file).unwrap();
        let loaded = loaded.unwrap_or_else(|problems| panic!("{policies}: {problems}"));
        resolve(&loaded.keys).unwrap_or_else(|list| panic!("{policies}: {list:?}"));
        seen += 1;
    }
    assert_eq!(seen, 2);
}

/// The README lists every key of the schema, and no other.
#[test]
fn the_readme_lists_every_key() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let schema = schema();
    let mut sections = vec![("", &schema)];
    for (section, name) in [
        ("engines[].", "EngineEntry"),
        ("engines[].cost.", "Cost"),
        ("policies.*.", "PolicyEntry"),
        ("policies.*.goals[].", "GoalEntry"),
        ("policies.*.models.*.", "ModelEntry"),
        ("goals.*[].", "MetricEntry"),
        ("limits.", "LimitsEntry"),
        ("limits.shed.", "ShedEntry"),
        ("timeouts.", "TimeoutsEntry"),
        ("policies.*.timeouts.", "PolicyTimeoutsEntry"),
        ("breaker.", "BreakerEntry"),
        ("retry.", "RetryEntry"),
        ("attributes.*.", "AttributeEntry"),
    ] {
        sections.push((section, &schema["$defs"][name]));
    }
    for (section, part) in sections {
        for key in part["properties"].as_object().unwrap().keys() {
            let named = format!("`{section}{key}`");
            assert!(readme.contains(&named), "{named} is not in README.md");
        }
    }
}
