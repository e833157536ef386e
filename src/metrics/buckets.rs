//! Histograms of atomics with fixed bounds: bounded memory, and a few
//! nanoseconds an observation, where the exporter's cost 40 and a place in a
//! buffer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Seconds between two pieces of a stream.
pub const ITL_BOUNDS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0,
];
/// Seconds; first tokens, and waiting for a place, take from milliseconds to
/// minutes.
pub(super) const TTFT_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
/// Seconds, for whole requests.
pub(super) const DURATION_BOUNDS: [f64; 14] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
];
/// Seconds, for our own work.
pub(super) const OVERHEAD_BOUNDS: [f64; 12] = [
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 100e-3, 1.0,
];
/// Seconds that a worker's timer was late. The timer itself is a millisecond
/// coarse.
pub(super) const DELAY_BOUNDS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
];
/// Tokens of one request: the powers of two.
pub const TOKEN_BOUNDS: [f64; 21] = [
    1.0,
    2.0,
    4.0,
    8.0,
    16.0,
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16384.0,
    32768.0,
    65536.0,
    131_072.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
];

/// Counts by bound, and what they sum up to; the last slot is for what is beyond
/// every bound.
#[derive(Debug)]
pub struct Buckets<const SLOTS: usize> {
    counts: [AtomicU64; SLOTS],
    sum: AtomicU64,
}

impl<const SLOTS: usize> Default for Buckets<SLOTS> {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; SLOTS],
            sum: AtomicU64::new(0),
        }
    }
}

impl<const SLOTS: usize> Buckets<SLOTS> {
    /// Counts one observation of that size in that slot.
    pub(super) fn add(&self, slot: usize, size: u64) {
        self.counts[slot].fetch_add(1, Relaxed);
        self.sum.fetch_add(size, Relaxed);
    }

    /// Cumulative counts by bound (the last is all), and the sum, in
    /// microseconds where times are observed.
    #[must_use]
    pub fn read(&self) -> ([u64; SLOTS], u64) {
        let mut sum = 0;
        let cumulative = std::array::from_fn(|i| {
            sum += self.counts[i].load(Relaxed);
            sum
        });
        (cumulative, self.sum.load(Relaxed))
    }
}

/// Times, counted by bounds in seconds; `SLOTS` is one more than there are.
#[derive(Debug)]
pub struct TimeBuckets<const SLOTS: usize> {
    bounds: &'static [f64],
    /// The sum is of nanoseconds.
    counts: Buckets<SLOTS>,
}

impl<const SLOTS: usize> TimeBuckets<SLOTS> {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        debug_assert_eq!(bounds.len() + 1, SLOTS);
        Self {
            bounds,
            counts: Buckets::default(),
        }
    }

    /// Something took so long.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let slot = self.bounds.partition_point(|bound| seconds > *bound);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts.add(slot, nanos);
    }

    /// All that were observed.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.read().0[SLOTS - 1]
    }

    /// The bounds, cumulative counts by them (the last is all), and the sum in
    /// seconds.
    #[must_use]
    pub fn read(&self) -> (&'static [f64], [u64; SLOTS], f64) {
        let (counts, nanos) = self.counts.read();
        let sum = Duration::from_nanos(nanos).as_secs_f64();
        (self.bounds, counts, sum)
    }
}

/// Tokens of requests.
#[derive(Debug, Default)]
pub struct TokenBuckets(Buckets<{ TOKEN_BOUNDS.len() + 1 }>);

impl TokenBuckets {
    /// A request had so many.
    pub fn observe(&self, tokens: u64) {
        // Of powers of two, the least that is not below.
        let bits = u64::BITS - tokens.saturating_sub(1).leading_zeros();
        let slot = usize::try_from(bits).unwrap_or(TOKEN_BOUNDS.len());
        self.0.add(slot.min(TOKEN_BOUNDS.len()), tokens);
    }

    /// Cumulative counts by [`TOKEN_BOUNDS`] (the last is all), and all tokens.
    #[must_use]
    pub fn read(&self) -> ([u64; TOKEN_BOUNDS.len() + 1], u64) {
        self.0.read()
    }
}

/// One stream's share of a model's inter-token latencies, merged every 64
/// observations and at the end, so that a stream does not write shared memory at
/// every event.
#[derive(Debug, Default)]
pub struct LocalBuckets {
    counts: [u8; ITL_BOUNDS.len() + 1],
    held: u8,
    sum_us: u64,
}

impl LocalBuckets {
    /// Adds one observation, and merges when 64 are held.
    pub fn observe(&mut self, gap: Duration, into: &Buckets<{ ITL_BOUNDS.len() + 1 }>) {
        let seconds = gap.as_secs_f64();
        let slot = ITL_BOUNDS.iter().filter(|bound| seconds > **bound).count();
        self.counts[slot] += 1;
        self.held += 1;
        self.sum_us += micros(gap);
        if self.held == 64 {
            self.merge(into);
        }
    }

    /// Gives what is held to the shared histogram.
    pub fn merge(&mut self, into: &Buckets<{ ITL_BOUNDS.len() + 1 }>) {
        if self.held == 0 {
            return;
        }
        for (count, shared) in self.counts.iter().zip(&into.counts) {
            if *count > 0 {
                shared.fetch_add(u64::from(*count), Relaxed);
            }
        }
        into.sum.fetch_add(self.sum_us, Relaxed);
        *self = Self::default();
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_buckets_lose_nothing() {
        let shared = Buckets::default();
        let mut local = LocalBuckets::default();
        for _ in 0..100 {
            local.observe(Duration::from_millis(15), &shared);
        }
        assert_eq!(shared.read().0[11], 64);
        local.merge(&shared);
        let (counts, sum) = shared.read();
        assert_eq!((counts[3], counts[4], counts[11]), (0, 100, 100));
        assert_eq!(sum, 1_500_000);
    }

    #[test]
    fn tokens_are_counted_below_the_next_power_of_two() {
        let of = |tokens: u64| {
            let buckets = TokenBuckets::default();
            buckets.observe(tokens);
            let (counts, sum) = buckets.read();
            assert_eq!(sum, tokens);
            let slot = counts.iter().position(|count| *count == 1).unwrap();
            TOKEN_BOUNDS.get(slot).copied()
        };
        for (tokens, bound) in [
            (0, Some(1.0)),
            (1, Some(1.0)),
            (2, Some(2.0)),
            (3, Some(4.0)),
            (1024, Some(1024.0)),
            (1025, Some(2048.0)),
            (131_072, Some(131_072.0)),
            (131_073, Some(262_144.0)),
            (1_048_577, None),
            (u64::MAX, None),
        ] {
            assert_eq!(of(tokens), bound, "{tokens}");
        }
    }
}
