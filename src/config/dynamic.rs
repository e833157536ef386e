//! The dynamic file as it is written: the vLLM production-stack router's flat
//! keys, and our own.
//!
//! The JSON Schema is made from these types, so every field says here what it
//! is. A key that is missing leaves the flag, or the default, in force.

mod attributes;
mod policies;
mod resilience;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::EngineType;
pub use super::Seconds;
pub use attributes::{AggregateEntry, AttributeEntry};
pub use policies::{
    DirectionEntry, GoalEntry, MetricEntry, ModelEntry, PickerEntry, PlacementEntry, PolicyEntry,
    RequestHeader, RequestHeadersEntry, RequirementOfEntry, SlowStartEntry,
};
pub use resilience::{
    BreakerEntry, CauseEntry, CommitEntry, LimitsEntry, PolicyTimeoutsEntry, RetryEntry, ShedEntry,
    TimeoutsEntry,
};

/// What the dynamic file may hold. Every key is optional; `service_discovery`
/// and `routing_logic` must be set here or by a flag.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Pilotfish dynamic configuration")]
pub struct DynamicFile {
    /// Where engines come from: `static`, a list; or `k8s`, a cluster.
    #[schemars(extend("enum" = ["static", "k8s", null]))]
    pub service_discovery: Option<String>,
    /// How an engine is chosen: a built-in policy, or a name of `policies`.
    pub routing_logic: Option<String>,
    /// Engine URLs, separated by commas. Not together with `engines`.
    pub static_backends: Option<String>,
    /// The model of each URL, separated by commas; left out, engines are asked
    /// for their models. Or a map: model → {static_backends, static_model_type}.
    #[schemars(extend("type" = ["string", "object", "null"], "additionalProperties" = model_map()))]
    pub static_models: Option<String>,
    /// Other names of models: `alias:model,alias2:model2`, or a map alias → model.
    #[schemars(extend("type" = ["string", "object", "null"], "additionalProperties" = json!({"type": "string"})))]
    pub static_aliases: Option<String>,
    /// A label for each URL, separated by commas; engines carry it as `model_label`.
    pub static_model_labels: Option<String>,
    /// A type for each URL (chat, completion, embeddings, ...); engines carry it as `model_type`.
    pub static_model_types: Option<String>,
    /// Whether engines are asked how they are though there is no need to
    /// (default false): with a small request of their `model_type`, or
    /// `GET /health`. Those that are set aside are asked in any case.
    pub static_backend_health_checks: Option<bool>,
    /// How often, in seconds (default 60).
    #[schemars(range(min = 1))]
    pub static_backend_health_check_interval: Option<u32>,
    /// How long an answer may take, in seconds (default 10).
    #[schemars(range(min = 1))]
    pub static_backend_health_check_timeout_seconds: Option<u32>,
    /// Accepted and without effect: prefill and decode are not told apart.
    pub prefill_model_labels: Option<String>,
    /// Accepted and without effect: prefill and decode are not told apart.
    pub decode_model_labels: Option<String>,
    /// For `k8s`: where engines listen, unless they tell otherwise (default 8000).
    #[schemars(range(min = 1))]
    pub k8s_port: Option<u16>,
    /// For `k8s`: the namespace that is watched (default: the one that we run in).
    pub k8s_namespace: Option<String>,
    /// For `k8s`: which objects are watched, as `app=vllm,tier in (a,b)`.
    pub k8s_label_selector: Option<String>,
    /// For `k8s`: `pod-ip`, each pod is an engine (default); or `service-name`,
    /// each service is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["pod-ip", "service-name", null]))]
    pub k8s_service_discovery_type: Option<String>,
    /// For `k8s`: what tells of engines: `pods` (default), `endpointslices` or
    /// `inferencepool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["pods", "endpointslices", "inferencepool", null]))]
    pub k8s_source: Option<String>,
    /// For `k8s_source: inferencepool`: the pool's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_inference_pool: Option<String>,
    /// For `k8s`: how long one watch lasts, in seconds, before the next begins
    /// where it ended (5 to 3600; default, and 0: 60).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 3600))]
    pub k8s_watcher_timeout_seconds: Option<u32>,
    /// For `k8s`: whether lists come as streams, from API servers that can
    /// (default false).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_streaming_lists: Option<bool>,
    /// For `session`: the header, or top-level key of the body, that carries
    /// the session's id.
    pub session_key: Option<String>,
    /// For `prefixaware`: shorter common beginnings, in bytes of the prompt, do
    /// not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub prefix_min_match_length: Option<u32>,
    /// Refused: code is not loaded.
    pub callbacks: Option<String>,

    /// Engines, each with all that is to be said of it. Not together with the
    /// `static_*` lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<EngineEntry>")]
    pub engines: Option<Vec<EngineEntry>>,
    /// Other names of models: alias → model. Not together with `static_aliases`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub aliases: Option<BTreeMap<String, String>>,
    /// Named policies, for `routing_logic` to choose from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, PolicyEntry>")]
    pub policies: Option<BTreeMap<String, PolicyEntry>>,
    /// A policy of `policies` of type `smart` that decides beside the one in force:
    /// what it would have chosen, and saved, is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub shadow_policy: Option<String>,
    /// URLs of matchers that requests and registered policies may have asked;
    /// those of `policies` need not be here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    pub matchers: Option<Vec<String>>,
    /// Named goals, for policies to want beside the shipped ones, or instead of
    /// one of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, Vec<MetricEntry>>")]
    pub goals: Option<BTreeMap<String, Vec<MetricEntry>>>,
    /// How a new or recovered engine begins, in policies that look at load.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SlowStartEntry")]
    pub slow_start: Option<SlowStartEntry>,
    /// What requests may ask for in fields of their head.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RequestHeadersEntry")]
    pub request_headers: Option<RequestHeadersEntry>,
    /// Live attributes beside the built-in ones, or read otherwise: name → metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, AttributeEntry>")]
    pub attributes: Option<BTreeMap<String, AttributeEntry>>,
    /// Engines whose metrics are read at most, in turns (default: all if there
    /// are fewer than 50, else 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 2))]
    pub aperture: Option<u32>,
    /// Share of requests that ask their engine for a report of its load with the
    /// answer (default 0.1); engines that never give one are asked no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0, max = 1.0))]
    pub orca_sample: Option<f64>,
    /// Share of decisions that are recorded though nobody asked (default 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0, max = 1.0))]
    pub decision_sample: Option<f64>,
    /// Whether engines in our own pod come before those on our node, these before
    /// those in our zone, and these before all others (default false).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub prefer_local: Option<bool>,
    /// Bounds on what requests may hold, and how many there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LimitsEntry")]
    pub limits: Option<LimitsEntry>,
    /// Deadlines.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TimeoutsEntry")]
    pub timeouts: Option<TimeoutsEntry>,
    /// When an engine is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BreakerEntry")]
    pub breaker: Option<BreakerEntry>,
    /// What is sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RetryEntry")]
    pub retry: Option<RetryEntry>,
    /// Whether an event stream that an engine cut ends with an `error` event
    /// (default true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_error_events: Option<bool>,
}

fn model_map() -> Value {
    json!({
        "type": "object",
        "required": ["static_backends"],
        "additionalProperties": false,
        "properties": {
            "static_backends": {
                "description": "The URLs of the engines that serve the model.",
                "type": "array",
                "items": {"type": "string"},
                "minItems": 1,
            },
            "static_model_type": {
                "description": "chat, completion, embeddings, ...",
                "type": ["string", "null"],
            },
        },
    })
}

/// One engine.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EngineEntry {
    /// `http://HOST[:PORT][/PATH]`, or `https://...`.
    pub url: String,
    /// The models that it serves; left out, it is asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub models: Option<Vec<String>>,
    /// Other names of its models: alias → model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, String>,
    /// Its share of the traffic, relative to others (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0))]
    pub weight: Option<f64>,
    /// The named group of engines that it is an instance of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Names with values, to filter by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How far it may be trusted with what prompts say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Privacy")]
    pub privacy: Option<Privacy>,
    /// What its tokens cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Cost")]
    pub cost: Option<Cost>,
    /// Whose words it uses in its metrics; left out, they tell by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EngineType")]
    pub engine_type: Option<EngineType>,
    /// Any document: what selections by attribute look into.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub metadata: Value,
    /// Whether it is to finish what it has, and to get nothing new.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// The variable of the environment that holds its key, which it is sent in
    /// place of the client's. Not together with `api_key_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub api_key_env: Option<String>,
    /// The file that holds its key, read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub api_key_file: Option<String>,
}

/// Levels of privacy, in their order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Privacy {
    /// For anything public.
    Public,
    /// For what stays within the house.
    Internal,
    /// For confidential prompts.
    Confidential,
    /// For the most guarded ones.
    Restricted,
}

/// Prices.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Of a million prompt tokens.
    #[schemars(range(min = 0.0))]
    pub input_per_mtok: f64,
    /// Of a million generated tokens.
    #[schemars(range(min = 0.0))]
    pub output_per_mtok: f64,
}

/// The JSON Schema of the dynamic file.
#[must_use]
pub fn schema() -> Value {
    schemars::schema_for!(DynamicFile).to_value()
}
