//! Policies as the dynamic file has them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Cost, PolicyTimeoutsEntry, Privacy, Seconds};

/// A named policy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// The built-in policy that it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// Deadlines of its requests, instead of those at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PolicyTimeoutsEntry")]
    pub timeouts: Option<PolicyTimeoutsEntry>,
    /// For `session`: instead of the `session_key` at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
    /// For `consistenthash`: where the key is looked for, the first that a
    /// request has: `header:NAME`, `body:KEY`, `cookie:NAME`, `user`,
    /// `session_id`, `address` or `prompt` (default: user, session_id, address).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// For `session` (default `ring`) and `consistenthash` (default `rendezvous`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PlacementEntry")]
    pub placement: Option<PlacementEntry>,
    /// For `rendezvous` and `prefixaware`: no engine gets more than its share
    /// of the requests in flight, times this (default 1.25).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 1.0))]
    pub load_bound: Option<f64>,
    /// For `prefixaware`: shorter common beginnings, in bytes of the prompt, do
    /// not count (default: `prefix_min_match_length`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub min_match: Option<u32>,
    /// For `scored`, and for `weighted` instead of weights: what is wanted. An
    /// empty list for `scored`: all are as good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<GoalEntry>")]
    pub goals: Option<Vec<GoalEntry>>,
    /// For `scored`: who is taken of those that were scored (default `argmax`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PickerEntry")]
    pub picker: Option<PickerEntry>,
    /// For `top_k`: of so many best the one with the fewest requests (default 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1, max = 64))]
    pub top_k: Option<usize>,
    /// For `softmax` (default 0.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.001))]
    pub temperature: Option<f64>,
    /// For `federation`: of health (2), latency, privacy, locality, cost (1 each).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, f64>,
    /// For `federation`: so many best are given to the strategy (default 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1, max = 64))]
    pub max_candidates: Option<usize>,
    /// For `federation`: engines with a lower score are left out (default 0.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0))]
    pub min_score: Option<f64>,
    /// For `federation`: where we are; engines of that region are near.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// For `federation`: the privacy that requests need which say nothing of
    /// it (default `internal`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Privacy")]
    pub privacy: Option<Privacy>,
    /// For `federation` (default `leastlatency`), `sequential` and `smart` (default
    /// `leastload`): the built-in policy that picks in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub strategy: Option<String>,
    /// For `smart`: how likely an answer must be right (default 0.7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0, max = 1.0))]
    pub performance_requirement: Option<f64>,
    /// For `smart`: what must be: `each` answer (default), or their `average`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RequirementOfEntry")]
    pub requirement_of: Option<RequirementOfEntry>,
    /// For `smart`: the models to choose from where a request leaves it open, with
    /// what is said of them (default: all that are served).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ModelEntry>,
    /// For `scored`, `remote` and `llm`: who may be chosen: `{clusterQuery,
    /// blockQuery, blockMetricsQuery}`, or a condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub filter: Option<Value>,
    /// The same: the type of the application, which asks for a use case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub application_type: Option<String>,
    /// The same: type of application → use case (default: RAG and Chat →
    /// chat-completion, Code → code-generation, Vision → multi-modal).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub app_map: BTreeMap<String, String>,
    /// The same: the built-in policy that picks of the engines of a block
    /// (default `leastload`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub instance_policy: Option<String>,
    /// For `remote`: where the candidates are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub url: Option<String>,
    /// For `remote` (default 200ms) and `llm` (default 3s): how long the advice may
    /// take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub deadline: Option<Seconds>,
    /// For `remote` and `llm`: how long the same question is answered by the same
    /// advice (default 10s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub ttl: Option<Seconds>,
    /// For `llm`: where the language model is served (default: by an engine of
    /// ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub server: Option<String>,
    /// For `llm`: the block, or the model, that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub block: Option<String>,
    /// For `llm`: what it is asked for, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub query_string: Option<String>,
}

/// Of what `performance_requirement` is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum RequirementOfEntry {
    /// The cheapest model that meets it, else the best.
    Each,
    /// The least cost at which all answers together meet it.
    Average,
}

/// What is said of a model that `smart` may choose.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelEntry {
    /// What its tokens cost (default: what its engines say).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Cost")]
    pub cost: Option<Cost>,
    /// The same, of one prompt token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0))]
    pub cost_per_input_token: Option<f64>,
    /// The same, of one generated token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0))]
    pub cost_per_output_token: Option<f64>,
    /// The built-in policy that picks of its engines (default: the policy's
    /// `strategy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub strategy: Option<String>,
}

/// How keys are given to engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PlacementEntry {
    /// The reference router's ring.
    Ring,
    /// The greatest hash of key and engine.
    Rendezvous,
}

/// Who is taken of those that were scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum PickerEntry {
    /// The best.
    Argmax,
    /// Of some best the one with the fewest requests.
    TopK,
    /// At random, by the power of the score.
    Softmax,
    /// At random, by score.
    Weighted,
}

/// One thing that is wanted of an engine: an attribute with its direction, or
/// a named goal.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GoalEntry {
    /// A goal that was shipped, or one of `goals`, instead of an attribute:
    /// the mean of its metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// An attribute: of `/engines`, `in_flight`, `outstanding_tokens`,
    /// `latency_ms`, `cost_per_input_mtok`, `cost_per_output_mtok`, or a
    /// dotted path in the metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub attribute: Option<String>,
    /// Which end of the attribute is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DirectionEntry")]
    pub direction: Option<DirectionEntry>,
    /// Its share in the score (default 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0))]
    pub weight: Option<f64>,
}

/// One attribute that a named goal looks at.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricEntry {
    /// As in a policy's `goals`.
    pub attribute: String,
    /// Which end of it is good.
    pub direction: DirectionEntry,
    /// Its share in the goal (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0))]
    pub weight: Option<f64>,
}

/// Which end of an attribute is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DirectionEntry {
    /// More is better.
    Max,
    /// Less is better.
    Min,
}

/// How a new or recovered engine begins.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlowStartEntry {
    /// Until it has its whole weight (default 30s; 0 for at once).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub over: Option<Seconds>,
    /// 1: straight (default); above: quick at first; below: slow at first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.1, max = 10.0))]
    pub shape: Option<f64>,
}

/// What requests may ask for in fields of their head.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RequestHeadersEntry {
    /// The fields `x-pilotfish-NAME` that are heeded (default explain, policy,
    /// models, select, qos, timeout-ms; `engine` too pins a request to one engine,
    /// `priority` has some wait less than others).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<RequestHeader>")]
    pub allow: Option<Vec<RequestHeader>>,
    /// The names that `x-pilotfish-policy` may give (default: all of `policies`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>")]
    pub policies: Option<Vec<String>>,
}

/// A field `x-pilotfish-NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum RequestHeader {
    /// Tells who was chosen, and keeps why.
    Explain,
    /// Another policy.
    Policy,
    /// Models to choose from.
    Models,
    /// A selection by attributes; also `selection_query` in the body.
    Select,
    /// What is needed of the engine.
    Qos,
    /// One engine.
    Engine,
    /// A deadline for the whole.
    TimeoutMs,
    /// Who goes first of those that wait.
    Priority,
}
