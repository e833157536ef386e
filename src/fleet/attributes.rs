//! What an engine tells of itself, as last scraped: numbers with an age.
//!
//! Written by the control thread, read by anyone without a lock. A value that
//! is not known, or too old, is `None`: unknown never wins.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A live attribute.
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

/// By when attributes are told fresh from stale.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// The time, on the process's own clock.
    pub now: Duration,
    /// The greatest age of what is fresh.
    pub stale_after: Duration,
}

/// One engine's live attributes.
#[derive(Debug)]
pub struct Attributes {
    /// The bits of an `f64` each; NaN: not known.
    values: [AtomicU64; Live::ALL.len()],
    /// When they were scraped, in milliseconds of the process's own clock; 0:
    /// never.
    at_ms: AtomicU64,
    /// Scrapes that brought nothing.
    pub failures: AtomicU64,
}

impl Default for Attributes {
    fn default() -> Self {
        Self {
            values: [const { AtomicU64::new(f64::NAN.to_bits()) }; Live::ALL.len()],
            at_ms: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }
}

impl Attributes {
    /// Takes in what was scraped at that time of the process's own clock.
    pub fn set(&self, values: &[Option<f64>; Live::ALL.len()], at: Duration) {
        for (slot, value) in self.values.iter().zip(values) {
            slot.store(value.unwrap_or(f64::NAN).to_bits(), Relaxed);
        }
        let millis = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.at_ms.store(millis.max(1), Relaxed);
    }

    /// How old they are; `None`: there are none.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        let at = self.at_ms.load(Relaxed);
        (at > 0).then(|| now.saturating_sub(Duration::from_millis(at)))
    }

    /// The value, if it is known and no older than that.
    #[must_use]
    pub fn fresh(&self, attribute: Live, by: Freshness) -> Option<f64> {
        let is_fresh = self.age(by.now).is_some_and(|age| age <= by.stale_after);
        is_fresh.then(|| self.get(attribute)).flatten()
    }

    /// The value, if it is known, however old.
    #[must_use]
    pub fn get(&self, attribute: Live) -> Option<f64> {
        let bits = self.values[attribute as usize].load(Relaxed);
        Some(f64::from_bits(bits)).filter(|value| value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_none() {
        let attributes = Attributes::default();
        let second = Duration::from_secs(1);
        assert_eq!(attributes.age(second), None);
        assert_eq!(attributes.get(Live::TtftMs), None);
        let mut values = [None; Live::ALL.len()];
        values[Live::TtftMs as usize] = Some(5.0);
        values[Live::ItlMs as usize] = Some(f64::INFINITY);
        attributes.set(&values, second);
        assert_eq!(attributes.get(Live::TtftMs), Some(5.0));
        assert_eq!(attributes.get(Live::ItlMs), None);
        assert_eq!(attributes.age(second * 3), Some(second * 2));
        let fresh = |age| {
            let by = Freshness {
                now: second * 3,
                stale_after: second * age,
            };
            attributes.fresh(Live::TtftMs, by)
        };
        assert_eq!((fresh(2), fresh(1)), (Some(5.0), None));
        for (index, (attribute, _)) in Live::ALL.iter().enumerate() {
            assert_eq!(*attribute as usize, index);
        }
    }
}
