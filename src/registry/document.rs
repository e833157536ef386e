//! A policy's document, as the reference registers one.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::entry;
use super::refused::{Cause, Refused};
use super::schema::Schema;
use super::{ATTRIBUTE_BASED, MOST_DOCUMENT};
use crate::config::dynamic::PolicyEntry;
use crate::config::problem::Problem;

/// Characters of each part of a URI.
const MOST_NAME: usize = 128;
/// What a value of a document is reckoned with beside its text, in bytes.
const VALUE_BYTES: usize = 32;
/// Levels of a document: the file that keeps it adds its own, and JSON of 128 is
/// not read.
pub(super) const MOST_DEPTH: usize = 64;

/// Fields that the reference's registration has.
const FIELDS: [&str; 17] = [
    "name",
    "version",
    "release_tag",
    "metadata",
    "tags",
    "code",
    "code_type",
    "type",
    "policy_input_schema",
    "policy_output_schema",
    "policy_settings_schema",
    "policy_parameters_schema",
    "policy_settings",
    "policy_parameters",
    "description",
    "functionality_data",
    "resource_estimates",
];

/// Keys of settings and parameters that the reference's policies have, and that
/// change nothing here.
const WITHOUT_EFFECT: [(&str, &str); 2] = [
    (
        "METRICS_BASE_URL",
        "engines' metrics are read by ourselves, never from a URL that a policy names",
    ),
    (
        "user_query",
        "it is for matchers whose code is not published",
    ),
];

/// How a registered policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By attributes: `policy`, as the reference calls it, or `scored`.
    Scored,
    /// By asking a URL.
    Remote,
    /// By asking a language model.
    Llm,
}

impl Kind {
    /// As `policies.*.type` of the dynamic file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scored => "scored",
            Self::Remote => "remote",
            Self::Llm => "llm",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "policy" | "scored" => Self::Scored,
            "remote" => Self::Remote,
            "llm" => Self::Llm,
            _ => return None,
        })
    }
}

/// A policy that was registered, or is built in.
#[derive(Debug)]
pub struct Registered {
    /// `name:version-release_tag`.
    pub uri: String,
    /// The document as it was sent.
    pub document: Value,
    /// How it decides.
    pub kind: Kind,
    /// When; `None` for what is built in.
    pub registered_at: Option<SystemTime>,
    /// What of it has no effect.
    pub warnings: Vec<String>,
    /// What it is reckoned with among all documents.
    pub(super) bytes: usize,
    /// What a request's parameters must be; `None` where anything goes.
    parameters: Option<Schema>,
}

impl Registered {
    /// Reads a registration and checks it as far as it goes by itself.
    ///
    /// # Errors
    /// What is wrong with it: no JSON, a field, a schema, or what the schemas
    /// say of settings and parameters.
    pub fn read(body: &[u8], at: SystemTime) -> Result<Self, Refused> {
        Self::of(parse(body)?, at)
    }

    /// The same of a document that has been parsed.
    ///
    /// # Errors
    /// As [`Registered::read`].
    pub fn of(document: Value, at: SystemTime) -> Result<Self, Refused> {
        let Value::Object(fields) = &document else {
            let message = "a policy is registered as a JSON object";
            return Err(Refused::new(Cause::Invalid, message));
        };
        let depth = depth(&document);
        if depth > MOST_DEPTH {
            let message = format!("the document has {depth} levels; the most is {MOST_DEPTH}");
            return Err(Refused::new(Cause::Invalid, message));
        }
        let uri = uri(fields)?;
        let kind = kind(fields)?;
        for known in ["policy_settings", "policy_parameters"] {
            object(fields, known)?;
        }
        for known in ["policy_input_schema", "policy_output_schema"] {
            object(fields, known)?;
        }
        let mut violations = Vec::new();
        if let Some(schema) = Schema::of(fields, "policy_settings_schema")? {
            let settings = written(fields, "policy_settings");
            violations.extend(schema.violations(settings, "/policy_settings"));
        }
        let schema = Schema::of(fields, "policy_parameters_schema")?;
        if let Some(schema) = &schema {
            // What is missing here, requests may bring.
            let parameters = written(fields, "policy_parameters");
            violations.extend(schema.violations_of_part(parameters, "/policy_parameters"));
        }
        if !violations.is_empty() {
            let message = "the document does not keep to its own schemas";
            return Err(Refused::listing(Cause::Violates, message, violations));
        }
        let registered = Self {
            uri,
            kind,
            registered_at: Some(at),
            warnings: warnings(fields),
            bytes: document.to_string().len()
                + VALUE_BYTES * values(&document)
                + schema.as_ref().map_or(0, |schema| schema.bytes),
            parameters: schema,
            document,
        };
        registered.entry()?;
        Ok(registered)
    }

    /// A built-in policy with its defaults.
    pub(super) fn built_in(uri: &str) -> Self {
        let (name, rest) = uri.split_once(':').unwrap_or((uri, ""));
        let (version, tag) = rest.split_once('-').unwrap_or((rest, ""));
        let mut document = json!({
            "name": name, "version": version, "release_tag": tag, "type": "policy",
            "description": "Built in: filters by metadata and live metrics, and chooses by goals.",
            "policy_settings": entry::defaults(),
            "policy_parameters": {},
        });
        if uri != ATTRIBUTE_BASED {
            document["metadata"] = json!({"alias_of": ATTRIBUTE_BASED});
        }
        Self {
            uri: uri.to_owned(),
            document,
            kind: Kind::Scored,
            registered_at: None,
            warnings: Vec::new(),
            bytes: 0,
            parameters: None,
        }
    }

    /// Its `policy_settings`.
    #[must_use]
    pub fn settings(&self) -> &Map<String, Value> {
        self.map("policy_settings")
    }

    /// Its `policy_parameters`: what holds where a request says nothing.
    #[must_use]
    pub fn parameters(&self) -> &Map<String, Value> {
        self.map("policy_parameters")
    }

    fn map(&self, field: &str) -> &Map<String, Value> {
        self.document[field].as_object().unwrap_or(&entry::NOTHING)
    }

    /// Whether a request's parameters, laid over the registered ones, keep to
    /// `policy_parameters_schema`.
    ///
    /// # Errors
    /// Problems with JSON pointers into the parameters.
    pub fn check_parameters(&self, request: &Map<String, Value>) -> Result<(), Vec<Problem>> {
        let Some(schema) = &self.parameters else {
            return Ok(());
        };
        let violations = if request.is_empty() {
            let fields = self.document.as_object().unwrap_or(&entry::NOTHING);
            schema.violations(written(fields, "policy_parameters"), "")
        } else {
            // Only what the request leaves is copied: it may be large.
            let left = self.parameters().iter();
            let left = left.filter(|(key, _)| !request.contains_key(*key));
            let all = left.chain(request);
            let holds = all.map(|(key, value)| (key.clone(), value.clone()));
            schema.violations(&Value::Object(holds.collect()), "")
        };
        if violations.is_empty() {
            return Ok(());
        }
        Err(violations)
    }

    /// What holds for a request with these parameters, as [`entry::merged`] has it.
    #[must_use]
    pub fn holds(&self, request: &Map<String, Value>) -> Map<String, Value> {
        let (settings, parameters) = (self.settings(), self.parameters());
        entry::merged(&entry::defaults(), settings, parameters, request)
    }

    /// It as a policy of the dynamic file, for a request that says nothing.
    ///
    /// # Errors
    /// A setting or parameter that cannot be understood.
    pub fn entry(&self) -> Result<PolicyEntry, Refused> {
        entry::of(self.kind, self.holds(&entry::NOTHING)).map_err(|problems| {
            let message = "settings or parameters cannot be understood";
            Refused::listing(Cause::Invalid, message, problems)
        })
    }

    /// Seconds since 1970 at its registration.
    #[must_use]
    pub fn registered_seconds(&self) -> Option<u64> {
        let at = self.registered_at?.duration_since(UNIX_EPOCH).ok()?;
        Some(at.as_secs())
    }
}

/// A document as it is sent.
pub(super) fn parse(body: &[u8]) -> Result<Value, Refused> {
    if body.len() > MOST_DOCUMENT {
        let message = format!("a document may have {MOST_DOCUMENT} bytes");
        return Err(Refused::new(Cause::TooLarge, message));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refused::new(Cause::Invalid, format!("no JSON: {error}")))
}

/// The URI that the document's name, version and tag make.
fn uri(fields: &Map<String, Value>) -> Result<String, Refused> {
    let mut problems = Vec::new();
    let [name, version, tag] = ["name", "version", "release_tag"].map(|field| {
        let text = fields.get(field).and_then(Value::as_str).unwrap_or("");
        let pointer = format!("/{field}");
        if !fields.contains_key(field) {
            problems.push(Problem::at(pointer, "is missing"));
        } else if text.is_empty() {
            problems.push(Problem::at(pointer, "expected a text that is not empty"));
        } else if text.len() > MOST_NAME {
            let message = format!("may have {MOST_NAME} characters");
            problems.push(Problem::at(pointer, message));
        } else if !text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            let message = "expected letters, digits, dots, hyphens and underscores";
            problems.push(Problem::at(pointer, message));
        }
        text
    });
    if problems.is_empty() {
        return Ok(format!("{name}:{version}-{tag}"));
    }
    let message = "name, version and release_tag make the policy's URI";
    Err(Refused::listing(Cause::Invalid, message, problems))
}

fn kind(fields: &Map<String, Value>) -> Result<Kind, Refused> {
    let given = fields.get("type").unwrap_or(&Value::Null);
    let name = match given {
        Value::Null => Some("policy"),
        other => other.as_str(),
    };
    name.and_then(Kind::named).ok_or_else(|| {
        let message = format!(
            "{} is unknown; expected \"policy\" or \"scored\" (by attributes), \"remote\" (a URL \
             is asked) or \"llm\" (a language model is asked)",
            crate::config::problem::shown(given)
        );
        Refused::field("/type", message)
    })
}

/// An object that may be left out.
pub(super) fn object<'a>(
    fields: &'a Map<String, Value>,
    field: &str,
) -> Result<&'a Map<String, Value>, Refused> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(&entry::NOTHING),
        Some(Value::Object(object)) => Ok(object),
        Some(_) => Err(Refused::field(&format!("/{field}"), "expected an object")),
    }
}

/// The same as it is written, for who looks at it as a value.
fn written<'a>(fields: &'a Map<String, Value>, field: &str) -> &'a Value {
    static NOTHING: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
    fields
        .get(field)
        .filter(|value| value.is_object())
        .unwrap_or(&NOTHING)
}

/// What of a document is kept and does nothing.
fn warnings(fields: &Map<String, Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let has = |field: &str| fields.get(field).is_some_and(|value| !value.is_null());
    if has("code") || has("code_type") {
        warnings.push(
            "`code` and `code_type` are stored, never fetched or run: the policy decides by its \
             `type` (remote asks a service of yours)"
                .to_owned(),
        );
    }
    for (key, reason) in WITHOUT_EFFECT {
        let of = ["policy_settings", "policy_parameters"];
        if of
            .iter()
            .any(|of| fields.get(*of).is_some_and(|map| map.get(key).is_some()))
        {
            warnings.push(format!("`{key}` has no effect: {reason}"));
        }
    }
    let unknown: Vec<&str> = (fields.keys())
        .map(String::as_str)
        .filter(|field| !FIELDS.contains(field))
        .take(8)
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join("`, `");
        warnings.push(format!("`{unknown}`: stored, and without a meaning here"));
    }
    warnings
}

/// How many values there are in it, itself too.
fn values(of: &Value) -> usize {
    1 + match of {
        Value::Array(list) => list.iter().map(values).sum(),
        Value::Object(map) => map.values().map(values).sum(),
        _ => 0,
    }
}

/// How many levels it has, itself too; whoever parsed it has bounded them.
fn depth(of: &Value) -> usize {
    1 + match of {
        Value::Array(list) => list.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => None,
    }
    .unwrap_or(0)
}
