//! How many of an engine's last requests failed: ten buckets of three seconds,
//! which see a burst that an average would smooth away, and forget by
//! themselves.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::breaker::Recent;

/// Milliseconds of one bucket.
const BUCKET_MS: u64 = 3000;
const BUCKETS: usize = 10;
/// Bits of each of a bucket's two counts; they stay at their most.
const BITS: u32 = 20;
const MOST: u64 = (1 << BITS) - 1;

/// Ended requests by time. A bucket is one word: when, failed, all.
#[derive(Debug, Default)]
pub(super) struct Window([AtomicU64; BUCKETS]);

impl Window {
    /// Counts a request that went well at that time of the fleet's clock.
    pub(super) fn good(&self, now_ms: u64) {
        self.count(now_ms, 1);
    }

    /// Counts one that failed.
    pub(super) fn failed(&self, now_ms: u64) {
        self.count(now_ms, 1 | 1 << BITS);
    }

    fn bucket(&self, slot: u64) -> &AtomicU64 {
        // Below the number of buckets.
        &self.0[usize::try_from(slot % BUCKETS as u64).unwrap_or(0)]
    }

    fn count(&self, now_ms: u64, one: u64) {
        let slot = now_ms / BUCKET_MS;
        let bucket = self.bucket(slot);
        let stamp = (slot & ((1 << (64 - 2 * BITS)) - 1)) << (2 * BITS);
        let next = |word: u64| {
            let is_this = word >> (2 * BITS) == stamp >> (2 * BITS);
            match word & MOST {
                _ if !is_this => Some(stamp | one),
                MOST => None,
                _ => Some(word + one),
            }
        };
        // A full bucket counts no further: its share is known well enough.
        let _ = bucket.fetch_update(Relaxed, Relaxed, next);
    }

    /// The last half minute.
    #[must_use]
    pub(super) fn read(&self, now_ms: u64) -> Recent {
        let now = now_ms / BUCKET_MS;
        let mut recent = Recent::default();
        for slot in now.saturating_sub(BUCKETS as u64 - 1)..=now {
            let word = self.bucket(slot).load(Relaxed);
            if word >> (2 * BITS) == slot & ((1 << (64 - 2 * BITS)) - 1) {
                // Twenty bits each.
                let count = |bits: u64| u32::try_from(bits & MOST).unwrap_or(u32::MAX);
                recent.all += count(word);
                recent.failed += count(word >> BITS);
            }
        }
        recent
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_minute_is_remembered_and_no_more() {
        let window = Window::default();
        for second in 0..60 {
            window.good(second * 1000);
            if second % 2 == 0 {
                window.failed(second * 1000);
            }
        }
        let recent = window.read(59_999);
        assert_eq!((recent.all, recent.failed), (45, 15));
        let recent = window.read(80_000);
        assert_eq!((recent.all, recent.failed), (13, 4), "buckets of 3 s");
        assert_eq!(window.read(200_000), Recent::default());
        window.clear();
        assert_eq!(window.read(59_999), Recent::default());
    }

    #[test]
    fn a_bucket_is_full_at_its_most() {
        let window = Window::default();
        (0..MOST + 10).for_each(|_| window.failed(5));
        let recent = window.read(5);
        assert_eq!(
            (u64::from(recent.all), u64::from(recent.failed)),
            (MOST, MOST)
        );
    }
}
