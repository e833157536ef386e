//! Deadlines, limits, breaker and retries as the dynamic file has them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Seconds;

/// Bounds on what requests may hold, and how many there may be.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsEntry {
    /// Bytes of a body that are held until it can be routed (default 32 MiB).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1024, max = 1_073_741_824))]
    pub max_peek_bytes: Option<usize>,
    /// Bytes of a body that are kept for a retry (default 1 MiB).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(max = 1_073_741_824))]
    pub max_replay_bytes: Option<usize>,
    /// Requests in flight in the whole process (default: no limit). Beyond it
    /// they wait in the queue, or get a 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1))]
    pub max_in_flight: Option<u32>,
    /// The same for each model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1))]
    pub max_in_flight_per_model: Option<u32>,
    /// The same for each engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1))]
    pub max_in_flight_per_engine: Option<u32>,
    /// Requests that may wait for a place (default 0). Needs a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(max = 100_000))]
    pub queue_size: Option<u32>,
    /// How long each may wait (default 30s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub queue_timeout: Option<Seconds>,
    /// When requests are turned away because of what engines tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ShedEntry")]
    pub shed: Option<ShedEntry>,
}

/// A 429, if each engine of the model that can be asked tells of so much.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShedEntry {
    /// Requests that wait in the engine, or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 1.0))]
    pub requests_waiting: Option<f64>,
    /// The share of its KV cache in use, or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.01, max = 1.0))]
    pub kv_cache_usage: Option<f64>,
}

/// Deadlines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsEntry {
    /// From a request's first byte to the end of its head (default 10s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub client_head: Option<Seconds>,
    /// An idle keep-alive connection of a client (default 75s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub client_idle: Option<Seconds>,
    /// Silence within a request's body (default 30s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub client_body_idle: Option<Seconds>,
    /// A client that takes no bytes though there are some (default 60s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub client_write_stall: Option<Seconds>,
    /// Connecting to an engine (default 2s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub connect: Option<Seconds>,
    /// From the request's end to the head of the answer (default 300s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub engine_head: Option<Seconds>,
    /// From the request's end to the first piece of the answer (default: none).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub first_token: Option<Seconds>,
    /// Silence within an answer (default 300s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub engine_idle: Option<Seconds>,
    /// From the request's head to the end of the answer (default: none); also
    /// the most that `x-pilotfish-timeout-ms` may ask for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub total: Option<Seconds>,
    /// How long an idle engine connection is kept (default 3s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub pool_idle: Option<Seconds>,
}

/// Deadlines of one policy, instead of those at the top.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyTimeoutsEntry {
    /// From the request's end to the head of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub engine_head: Option<Seconds>,
    /// From the request's end to the first piece of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub first_token: Option<Seconds>,
    /// Silence within an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub engine_idle: Option<Seconds>,
    /// From the request's head to the end of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub total: Option<Seconds>,
}

/// When an engine is left alone.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerEntry {
    /// Failures in a row (default 5).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1))]
    pub failures: Option<u32>,
    /// Or this share of the requests of the last 30 s (default 0.5).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.01, max = 1.0))]
    pub ratio: Option<f64>,
    /// Fewer requests have no share (default 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1))]
    pub min_requests: Option<u32>,
    /// For how long at first; doubled each time (default 5s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub ejection: Option<Seconds>,
    /// For how long at most (default 300s).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub max_ejection: Option<Seconds>,
    /// The share of a model's engines that may be ejected: beyond it all are
    /// asked (default 0.5). Those that cannot be reached are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0, max = 1.0))]
    pub max_ejected: Option<f64>,
    /// Good probes in a row before it is trusted again (default 3).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 100))]
    pub probes: Option<u32>,
}

/// What is sent again when an engine had it and did not answer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryEntry {
    /// Further engines (default 1, or `--max-instance-failover-reroute-attempts`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(max = 7))]
    pub attempts: Option<u32>,
    /// After what (default `reset` and `busy`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<CauseEntry>")]
    pub on: Option<Vec<CauseEntry>>,
    /// Until when another engine may answer instead (default `head`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CommitEntry")]
    pub until: Option<CommitEntry>,
    /// The share of the requests of the last 10 s that may be sent again (default 0.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0, max = 10.0))]
    pub budget: Option<f64>,
    /// So many a second may be, however few there are (default 3).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(min = 0.0, max = 10_000.0))]
    pub reserve: Option<f64>,
}

/// After what a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum CauseEntry {
    /// The connection broke, or what came was no HTTP.
    Reset,
    /// 429 or 503.
    Busy,
    /// No answer in time.
    Timeout,
    /// Another 5xx than 501 and 503.
    ServerError,
}

/// Until when another engine may answer instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum CommitEntry {
    /// The head of the answer.
    Head,
    /// The first piece of its body: the head is held back until then.
    FirstToken,
}
