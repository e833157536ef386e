//! How long a stream's gaps are: a small histogram of one request's own, for
//! its median.
//!
//! Eight buckets for each doubling: the median is told to about 6 %, in
//! constant memory and without a search.

use std::time::Duration;

/// Buckets for each doubling, as a power of two.
const FINE: u32 = 3;
/// Gaps below 2^4 us, and doublings from there on: up to a minute.
const FIRST: u32 = 4;
const DOUBLINGS: usize = 22;
const BUCKETS: usize = DOUBLINGS << FINE;

/// The gaps between the pieces of one answer.
#[derive(Debug, Clone)]
pub struct Gaps {
    counts: [u32; BUCKETS],
    all: u32,
}

impl Default for Gaps {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            all: 0,
        }
    }
}

impl Gaps {
    /// Adds one.
    pub fn add(&mut self, gap: Duration) {
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        let count = &mut self.counts[bucket(micros)];
        *count = count.saturating_add(1);
        self.all = self.all.saturating_add(1);
    }

    /// The median, about; none without a gap.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        let half = self.all.div_ceil(2);
        let mut seen = 0u32;
        let found = self.counts.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= half
        })?;
        (self.all > 0).then(|| Duration::from_micros(middle(found)))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        if self.all > 0 {
            self.counts.fill(0);
            self.all = 0;
        }
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.max(1 << FIRST);
    let doubling = micros.ilog2();
    let within = (micros >> (doubling - FINE)) & ((1 << FINE) - 1);
    let index = (((doubling - FIRST) << FINE) as usize) + usize::try_from(within).unwrap_or(0);
    index.min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let doubling = u32::try_from(bucket >> FINE).unwrap_or(0) + FIRST;
    let within = (bucket & ((1 << FINE) - 1)) as u64;
    let step = 1u64 << (doubling - FINE);
    (1 << doubling) + within * step + step / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_about_right() {
        for micros in [20, 100, 999, 15_000, 30_000, 1_000_000, 59_000_000] {
            let mut gaps = Gaps::default();
            for share in [50, 100, 100, 100, 300] {
                gaps.add(Duration::from_micros(micros * share / 100));
            }
            let found = gaps.median().unwrap().as_secs_f64() * 1e6;
            let off = (found / micros as f64 - 1.0).abs();
            assert!(off < 0.07, "{micros} us told as {found}");
        }
    }

    #[test]
    fn any_gap_has_a_bucket() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.median(), None);
        gaps.add(Duration::ZERO);
        assert!(gaps.median().unwrap() < Duration::from_micros(20));
        (0..9).for_each(|_| gaps.add(Duration::MAX));
        assert!(gaps.median().unwrap() > Duration::from_secs(60));
        gaps.clear();
        assert_eq!(gaps.median(), None);
        let mut last = 0;
        for micros in 0..2_000_000 {
            let at = bucket(micros);
            assert!(at == last || at == last + 1, "{micros}");
            last = at;
        }
    }
}
