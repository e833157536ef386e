//! The names by which engines' properties go in goals, pages and records.

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
    /// Hours since the engine's process began.
    UptimeHours,
}

impl Live {
    /// All of them, with the names by which they are known.
    pub const ALL: [(Self, &'static str); 12] = [
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
    ];
}

/// What a goal may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// What the engine tells of itself.
    Live(Live),
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
    const OURS: [(Self, &'static str); 5] = [
        (Self::InFlight, "in_flight"),
        (Self::OutstandingTokens, "outstanding_tokens"),
        (Self::Latency, "latency_ms"),
        (Self::InputPrice, "cost_per_input_mtok"),
        (Self::OutputPrice, "cost_per_output_mtok"),
    ];

    /// The attribute of that name; one that is not ours is a key of the
    /// metadata, which gets a place among `columns`.
    #[must_use]
    pub fn named(name: &str, columns: &mut Vec<String>) -> Self {
        if let Some((live, _)) = Live::ALL.iter().find(|(_, known)| *known == name) {
            return Self::Live(*live);
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
    fn numbers_are_found_by_dotted_paths() {
        let document = serde_json::json!({"a": {"b": [{"c": 7}]}, "x": "text"});
        assert_eq!(number(&document, "a.b.0.c"), 7.0);
        for missing in ["a.b.1.c", "x", "y.z", ""] {
            assert!(number(&document, missing).is_nan(), "{missing}");
        }
    }
}
