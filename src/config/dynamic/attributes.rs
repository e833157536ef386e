//! Live attributes as the dynamic file has them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an attribute is read from engines' metrics.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttributeEntry {
    /// The metric, as engines' pages name it; of a histogram with `_sum`,
    /// `_count` or `_bucket`.
    pub metric: String,
    /// Only samples with these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How several samples become one (default `sum`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AggregateEntry")]
    pub aggregate: Option<AggregateEntry>,
    /// Whether it is a counter, of which is told by how much it grows a second
    /// (default false).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rate: bool,
    /// Another counter: it is told by how much `metric` grows for each unit by
    /// which this one does, such as a histogram's `_sum` over its `_count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub over: Option<String>,
    /// The outcome is multiplied by this, such as 1000 for seconds as
    /// milliseconds (default 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64")]
    pub scale: Option<f64>,
}

/// How several samples of a metric become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum AggregateEntry {
    /// All together.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Their mean.
    Mean,
}
