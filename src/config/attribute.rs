//! The names by which engines' properties go in goals, pages and records.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A live attribute: what an engine tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// Sequences being generated.
    RequestsRunning,
    /// Sequences that wait for a place.
    RequestsWaiting,
    /// Of the memory for keys and values, 0 to 1.
    KvCacheUsage,
    /// Prompt tokens found in the prefix cache, of those looked up, 0 to 1.
    PrefixCacheHitRate,
    /// Prompt tokens found in the prefix cache since the engine's start.
    PrefixCacheHits,
    /// Prompt tokens looked up there.
    PrefixCacheQueries,
    /// Tokens generated a second.
    TokensPerSecond,
    /// Prompt tokens taken a second.
    PromptTokensPerSecond,
    /// Milliseconds to the first token.
    TtftMs,
    /// Milliseconds between two tokens.
    ItlMs,
    /// Milliseconds that whole requests took.
    E2eLatencyMs,
    /// Hours since the engine's process began; if it does not tell, since it was
    /// first seen.
    UptimeHours,
    /// Tokens generated a second when it last generated any.
    BusyTokensPerSecond,
    /// Adapters that it works with, or is asked for.
    LoraAdapters,
    /// Tokens of a prompt and its answer at most.
    MaxModelLen,
    /// Tokens that its memory for keys and values holds.
    KvCacheTokens,
}

impl Live {
    /// All of them, with the names by which they are known.
    pub const ALL: [(Self, &'static str); 16] = [
        (Self::RequestsRunning, "requests_running"),
        (Self::RequestsWaiting, "requests_waiting"),
        (Self::KvCacheUsage, "kv_cache_usage"),
        (Self::PrefixCacheHitRate, "prefix_cache_hit_rate"),
        (Self::PrefixCacheHits, "prefix_cache_hits"),
        (Self::PrefixCacheQueries, "prefix_cache_queries"),
        (Self::TokensPerSecond, "tokens_per_second"),
        (Self::PromptTokensPerSecond, "prompt_tokens_per_second"),
        (Self::TtftMs, "ttft_ms"),
        (Self::ItlMs, "itl_ms"),
        (Self::E2eLatencyMs, "e2e_latency_ms"),
        (Self::UptimeHours, "uptime_hours"),
        (Self::BusyTokensPerSecond, "llm_tokens_per_second"),
        (Self::LoraAdapters, "lora_adapters"),
        (Self::MaxModelLen, "max_model_len"),
        (Self::KvCacheTokens, "kv_cache_tokens"),
    ];

    /// The AIOS reference's names for some of them.
    pub const ALIASES: [(&'static str, Self); 2] = [
        ("llm_active_sessions", Self::RequestsRunning),
        ("queue_length", Self::RequestsWaiting),
    ];

    /// The one of that name, or alias.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().map(|(live, known)| (*known, *live));
        let mut known = known.chain(Self::ALIASES);
        known
            .find(|(known, _)| *known == name)
            .map(|(_, live)| live)
    }

    /// What its values are counted in.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::RequestsRunning | Self::RequestsWaiting => "requests",
            Self::KvCacheUsage | Self::PrefixCacheHitRate => "share",
            Self::PrefixCacheHits
            | Self::PrefixCacheQueries
            | Self::MaxModelLen
            | Self::KvCacheTokens => "tokens",
            Self::TokensPerSecond | Self::PromptTokensPerSecond | Self::BusyTokensPerSecond => {
                "tokens/s"
            }
            Self::TtftMs | Self::ItlMs | Self::E2eLatencyMs => "ms",
            Self::UptimeHours => "hours",
            Self::LoraAdapters => "adapters",
        }
    }
}

/// Attributes of the configuration's own at most.
pub const MOST_OWN: usize = 16;

/// Where an engine keeps a live attribute: the built-in ones first, then those
/// that the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(u8);

impl Place {
    /// How many there are.
    pub const COUNT: usize = Live::ALL.len() + MOST_OWN;

    /// The place at that index, if there is one.
    #[must_use]
    pub fn at(index: usize) -> Option<Self> {
        let index = u8::try_from(index).ok()?;
        (usize::from(index) < Self::COUNT).then_some(Self(index))
    }

    /// The place of the `n`th attribute of the configuration's own.
    #[must_use]
    pub fn own(n: usize) -> Option<Self> {
        Self::at(Live::ALL.len() + n)
    }

    /// Whether its value is the same for as long as the engine lives, hence never
    /// stale: what its model cards tell.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        self == Self::from(Live::MaxModelLen)
    }

    /// From 0 to below [`Self::COUNT`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<Live> for Place {
    fn from(live: Live) -> Self {
        Self(live as u8)
    }
}

/// A value for each [`Place`]. `None`: it is not known any more; NaN: there is
/// nothing new to tell.
pub type Values = [Option<f64>; Place::COUNT];

/// What a goal may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// What the engine tells of itself.
    Live(Place),
    /// Requests of ours that it works on.
    InFlight,
    /// Their tokens, by estimate.
    OutstandingTokens,
    /// Milliseconds to the first token, as we see it.
    Latency,
    /// The price of a million prompt tokens.
    InputPrice,
    /// The price of a million generated tokens.
    OutputPrice,
    /// A number of its metadata, by its place among [`super::Routing::columns`].
    Column(usize),
}

impl Attribute {
    /// What is known of every engine, beside what it tells of itself.
    pub const OURS: [(Self, &'static str); 5] = [
        (Self::InFlight, "in_flight"),
        (Self::OutstandingTokens, "outstanding_tokens"),
        (Self::Latency, "latency_ms"),
        (Self::InputPrice, "cost_per_input_mtok"),
        (Self::OutputPrice, "cost_per_output_mtok"),
    ];

    /// The attribute of that name: a built-in one, one of the configuration's
    /// `own`, else a key of the metadata, which gets a place among `columns`.
    #[must_use]
    pub fn named(name: &str, own: &[OwnAttribute], columns: &mut Vec<String>) -> Self {
        let live = Live::named(name).map(Place::from);
        let of_own = || own.iter().find(|own| &*own.name == name);
        let live = live.or_else(|| of_own().map(|own| own.place));
        if let Some(place) = live {
            return Self::Live(place);
        }
        if let Some((ours, _)) = Self::OURS.iter().find(|(_, known)| *known == name) {
            return ours.clone();
        }
        let known = columns.iter().position(|column| column == name);
        Self::Column(known.unwrap_or_else(|| {
            columns.push(name.to_owned());
            columns.len() - 1
        }))
    }
}

/// A live attribute that the configuration tells how to read from engines'
/// metrics; a built-in one, or one of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnAttribute {
    /// By which it is known.
    pub name: Arc<str>,
    /// Where it is kept.
    pub place: Place,
    /// The metric.
    pub metric: String,
    /// Only samples with these labels count.
    pub labels: BTreeMap<String, String>,
    /// How several samples become one.
    pub aggregate: Aggregate,
    /// What is made of it.
    pub how: How,
    /// By what the outcome is multiplied.
    pub scale: f64,
}

/// How several samples of a metric become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// All together.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Their mean.
    Mean,
}

/// What is made of a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// Its value.
    Now,
    /// By how much it grows a second.
    Rate,
    /// By how much it grows, for each unit by which this other metric, with the
    /// same labels, does.
    Over(String),
}

/// The number at a dotted path of a document; NaN: there is none.
#[must_use]
pub fn number(document: &serde_json::Value, path: &str) -> f64 {
    let mut at = document;
    for part in path.split('.') {
        at = match part.parse::<usize>() {
            Ok(index) if at.is_array() => &at[index],
            _ => &at[part],
        };
    }
    at.as_f64().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_of_the_names() {
        for (index, (live, name)) in Live::ALL.into_iter().enumerate() {
            assert_eq!(Place::from(live).index(), index);
            assert_eq!(Live::named(name), Some(live));
            assert!(!live.unit().is_empty());
        }
        assert_eq!(Live::named("queue_length"), Some(Live::RequestsWaiting));
        assert_eq!(Place::own(MOST_OWN), None);
        assert_eq!(Place::own(0).unwrap().index(), Live::ALL.len());
    }

    #[test]
    fn numbers_are_found_by_dotted_paths() {
        let document = serde_json::json!({"a": {"b": [{"c": 7}]}, "x": "text"});
        assert_eq!(number(&document, "a.b.0.c"), 7.0);
        for missing in ["a.b.1.c", "x", "y.z", ""] {
            assert!(number(&document, missing).is_nan(), "{missing}");
        }
    }
}
