//! From a document's settings and parameters to a policy of the dynamic file.

use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::document::Kind;
use crate::config::dynamic::PolicyEntry;
use crate::config::policies::APP_MAP;
use crate::config::problem::Problem;

/// No settings, no parameters.
pub(super) static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// What holds for a policy whose document says nothing.
#[must_use]
pub fn defaults() -> Map<String, Value> {
    let map: Map<String, Value> = (APP_MAP.iter())
        .map(|(kind, case)| ((*kind).to_owned(), json!(case)))
        .collect();
    Map::from_iter([("APP_MAP".to_owned(), Value::Object(map))])
}

/// What holds: a request's parameters before registered ones, those before
/// settings, those before defaults; each top-level key as a whole.
#[must_use]
pub fn merged(
    defaults: &Map<String, Value>,
    settings: &Map<String, Value>,
    parameters: &Map<String, Value>,
    request: &Map<String, Value>,
) -> Map<String, Value> {
    let mut all = defaults.clone();
    for over in [settings, parameters, request] {
        all.extend(over.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    all
}

/// The policy that makes of what [`merged`] says holds.
///
/// # Errors
/// Every value that cannot be understood.
pub(super) fn of(kind: Kind, holds: Map<String, Value>) -> Result<PolicyEntry, Vec<Problem>> {
    let holds = Value::Object(holds);
    let mut taking = Taking {
        holds: &holds,
        problems: Vec::new(),
    };
    let mut entry = PolicyEntry {
        kind: kind.name().to_owned(),
        app_map: taking.take("/APP_MAP").unwrap_or_default(),
        application_type: taking.take("/selection_query/application_type"),
        // Without goals all are as good, as in the reference; not `scored`'s own.
        goals: Some(
            taking
                .take("/selection_query/optimization_goals")
                .unwrap_or_default(),
        ),
        filter: taking.take("/filterRule/filter"),
        instance_policy: taking.take("/instance_policy"),
        ..PolicyEntry::default()
    };
    if kind != Kind::Scored {
        entry.deadline = taking.take("/deadline");
        entry.ttl = taking.take("/ttl");
    }
    match kind {
        Kind::Scored => {}
        Kind::Remote => {
            entry.url = taking.take("/url");
            if entry.url.is_none() {
                taking.missing("/url", "the URL that is asked");
            }
        }
        Kind::Llm => {
            entry.server = taking.take("/llm_server_address");
            entry.block = taking.take("/llm_block_id");
            entry.query_string = taking.take("/query_string");
            if entry.server.is_none() && entry.block.is_none() {
                taking.missing(
                    "/llm_block_id",
                    "the block, or llm_server_address, that is asked",
                );
            }
        }
    }
    if taking.problems.is_empty() {
        return Ok(entry);
    }
    Err(taking.problems)
}

/// Takes values, and remembers those that cannot be understood.
struct Taking<'a> {
    holds: &'a Value,
    problems: Vec<Problem>,
}

impl Taking<'_> {
    fn take<T: DeserializeOwned>(&mut self, pointer: &str) -> Option<T> {
        let value = self.holds.pointer(pointer)?;
        if value.is_null() {
            return None;
        }
        match serde_json::from_value(value.clone()) {
            Ok(taken) => Some(taken),
            Err(error) => {
                self.problems.push(Problem::at(pointer, error.to_string()));
                None
            }
        }
    }

    /// Unless it is there, and told of already.
    fn missing(&mut self, pointer: &str, what: &str) {
        if self.holds.pointer(pointer).is_none_or(Value::is_null) {
            let message = format!("is missing among policy_settings and policy_parameters: {what}");
            self.problems.push(Problem::at(pointer, message));
        }
    }
}
