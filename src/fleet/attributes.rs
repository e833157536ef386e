//! What an engine tells of itself, as last scraped: numbers with an age.
//!
//! Written by the control thread, read by anyone without a lock. A value that
//! is not known, or too old, is `None`: unknown never wins.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use crate::config::attribute::Live;

/// By when attributes are told fresh from stale.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// The time, on the fleet's clock.
    pub now: Duration,
    /// Milliseconds of the fleet's clock: what was scraped before is stale.
    from_ms: u64,
}

impl Freshness {
    /// What is at most that old is fresh.
    #[must_use]
    pub fn new(now: Duration, stale_after: Duration) -> Self {
        let from = now.saturating_sub(stale_after).as_millis();
        Self {
            now,
            // 0 is never.
            from_ms: u64::try_from(from).unwrap_or(u64::MAX).max(1),
        }
    }
}

/// One engine's live attributes.
#[derive(Debug)]
#[repr(C)]
pub struct Attributes {
    /// When they were scraped, in milliseconds of the process's own clock; 0:
    /// never.
    at_ms: AtomicU64,
    /// The bits of an `f64` each; NaN: not known.
    values: [AtomicU64; Live::ALL.len()],
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
    /// Those that were read before.
    #[must_use]
    pub fn from_read(values: &[Option<f64>; Live::ALL.len()], at_ms: u64) -> Self {
        let attributes = Self::default();
        attributes.store(values);
        attributes.at_ms.store(at_ms, Relaxed);
        attributes
    }

    /// All of them, and when they were scraped.
    #[must_use]
    pub fn read(&self) -> ([Option<f64>; Live::ALL.len()], u64) {
        let values = Live::ALL.map(|(attribute, _)| self.get(attribute));
        (values, self.at_ms.load(Relaxed))
    }

    fn store(&self, values: &[Option<f64>; Live::ALL.len()]) {
        for (slot, value) in self.values.iter().zip(values) {
            slot.store(value.unwrap_or(f64::NAN).to_bits(), Relaxed);
        }
    }

    /// Takes in what was scraped at that time of the process's own clock.
    pub fn set(&self, values: &[Option<f64>; Live::ALL.len()], at: Duration) {
        self.store(values);
        let millis = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.at_ms.store(millis.max(1), Relaxed);
    }

    /// How old they are; `None`: there are none.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        let at = self.at_ms.load(Relaxed);
        (at > 0).then(|| now.saturating_sub(Duration::from_millis(at)))
    }

    /// Whether they are no older than that.
    #[must_use]
    pub fn is_fresh(&self, by: Freshness) -> bool {
        self.at_ms.load(Relaxed) >= by.from_ms
    }

    /// The value, if it is known and no older than that.
    #[must_use]
    pub fn fresh(&self, attribute: Live, by: Freshness) -> Option<f64> {
        self.is_fresh(by).then(|| self.get(attribute)).flatten()
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
            let by = Freshness::new(second * 3, second * age);
            attributes.fresh(Live::TtftMs, by)
        };
        assert_eq!((fresh(2), fresh(1)), (Some(5.0), None));
        for (index, (attribute, _)) in Live::ALL.iter().enumerate() {
            assert_eq!(*attribute as usize, index);
        }
    }
}
