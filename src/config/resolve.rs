//! From keys as they are written to [`Settings`] that can be acted upon.
//!
//! Everything that a schema cannot say is checked here, and all that is wrong
//! is told at once.

mod attributes;
mod engines;
mod goals;
mod kubernetes;
mod policies;
mod requests;
mod resilience;
mod selection;
mod smart;
mod unused;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Settings;
use super::attribute::OwnAttribute;
use super::dynamic::DynamicFile;
use super::goals::NamedGoal;
use super::kubernetes::Kubernetes;
use super::problem::Problem;

/// The keys that say which engines there are: taken together or not at all.
const ENGINE_LISTS: [&str; 5] = [
    "static_backends",
    "static_models",
    "static_model_labels",
    "static_model_types",
    "engines",
];

/// What holds: the file's keys, and the flags where it has none.
///
/// The lists of engines go together: a file that has one of them replaces all
/// that flags say of engines.
#[must_use]
pub fn overlay(file: &DynamicFile, flags: &DynamicFile) -> DynamicFile {
    let keys = |of: &DynamicFile| match serde_json::to_value(of) {
        Ok(Value::Object(keys)) => keys,
        _ => serde_json::Map::new(),
    };
    let (file_keys, mut merged) = (keys(file), keys(flags));
    let gives = |key: &str| file_keys.get(key).is_some_and(|value| !value.is_null());
    if ENGINE_LISTS.iter().any(|key| gives(key)) {
        ENGINE_LISTS.iter().for_each(|key| {
            merged.remove(*key);
        });
    }
    if gives("aliases") || gives("static_aliases") {
        merged.remove("aliases");
        merged.remove("static_aliases");
    }
    for (key, value) in file_keys {
        match (merged.get_mut(&key), value) {
            (_, Value::Null) => {}
            (Some(Value::Object(known)), Value::Object(over)) if key != "aliases" => {
                known.extend(over);
            }
            (_, value) => {
                merged.insert(key, value);
            }
        }
    }
    serde_json::from_value(Value::Object(merged)).unwrap_or_else(|_| file.clone())
}

/// What the keys mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// What to act upon.
    pub settings: Settings,
    /// What was accepted but has no effect, in words.
    pub warnings: Vec<String>,
}

/// Checks `keys` as a whole, and makes settings of them.
///
/// # Errors
/// All that is wrong.
pub fn resolve(keys: &DynamicFile) -> Result<Resolved, Vec<Problem>> {
    let mut resolving = Resolving::default();
    resolving.discovery(keys);
    resolving.refused(keys);
    let scraping = resolving.scraping(keys);
    resolving.own = Arc::clone(&scraping.own);
    let routing = resolving.routing(keys);
    let mut aliases = resolving.aliases(keys);
    let engines = match &keys.engines {
        _ if resolving.kubernetes.is_some() => Vec::new(),
        Some(entries) => resolving.entries(entries, &mut aliases),
        None => resolving.flat(keys),
    };
    resolving.alias_targets(&aliases, &engines);
    if let (Some(routing), None) = (&routing, &resolving.kubernetes) {
        resolving.unknown_columns(routing, keys, &engines);
    }
    resolving.bounds(keys);
    let settings = Settings {
        kubernetes: resolving.kubernetes.take(),
        engines,
        aliases,
        routing: routing.unwrap_or_default(),
        limits: resolving.limits(keys),
        admission: resolving.admission(keys),
        timeouts: resilience::timeouts(keys),
        breaker: resolving.breaker(keys),
        retry: resolving.retry(keys),
        checks: resolving.checks(keys),
        scraping,
        stream_error_events: keys.stream_error_events.unwrap_or(true),
    };
    if resolving.problems.is_empty() {
        let warnings = resolving.warnings;
        return Ok(Resolved { settings, warnings });
    }
    Err(resolving.problems)
}

#[derive(Default)]
struct Resolving {
    problems: Vec<Problem>,
    warnings: Vec<String>,
    /// How engines are found in a cluster.
    kubernetes: Option<Kubernetes>,
    /// Keys of metadata that goals look at.
    columns: Vec<String>,
    /// So many there may be.
    most_columns: usize,
    /// Attributes that the keys tell how to read.
    own: Arc<[OwnAttribute]>,
    /// Named goals, the shipped ones too.
    named_goals: BTreeMap<Arc<str>, NamedGoal>,
}

impl Resolving {
    fn wrong(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::at(path, message));
    }

    fn missing(&mut self, path: &str, flag: &str, hint: &str) {
        self.problems.push(Problem::missing(
            path,
            format!("required: give {flag}, or this key in the dynamic file ({hint})"),
        ));
    }

    fn discovery(&mut self, keys: &DynamicFile) {
        match keys.service_discovery.as_deref() {
            Some("static") => {
                if keys.engines.is_none() && keys.static_backends.is_none() {
                    let hint = "engine URLs, separated by commas; or `engines`";
                    self.missing("static_backends", "--static-backends", hint);
                }
            }
            Some("k8s") => self.cluster(keys),
            Some("external-only") => self.wrong(
                "service_discovery",
                "\"external-only\" is not supported: list the provider as an engine, \"static\"",
            ),
            Some(other) => self.wrong(
                "service_discovery",
                format!("{other:?} is unknown; expected \"static\" or \"k8s\""),
            ),
            None => self.missing("service_discovery", "--service-discovery", "static or k8s"),
        }
    }

    /// What would be unsafe to ignore, and what is harmless.
    fn refused(&mut self, keys: &DynamicFile) {
        let lists = [
            ("static_backends", &keys.static_backends),
            ("static_models", &keys.static_models),
            ("static_model_labels", &keys.static_model_labels),
            ("static_model_types", &keys.static_model_types),
        ];
        for (name, list) in lists {
            if keys.engines.is_some() && list.is_some() {
                self.wrong(
                    "engines",
                    format!("and {name} say the same thing: keep one"),
                );
            }
        }
        if keys.callbacks.is_some() {
            self.wrong(
                "callbacks",
                "code is not loaded, and ignoring a check of access would be unsafe: \
                 put it into a proxy in front of this one, and remove the key",
            );
        }
        let labels = [&keys.prefill_model_labels, &keys.decode_model_labels];
        if labels.iter().any(|label| label.is_some()) {
            self.warnings.push(
                "prefill_model_labels and decode_model_labels have no effect: prefill and decode \
                 are not told apart; leave them to the engines"
                    .to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests;
