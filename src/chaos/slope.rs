//! Whether figures grew while the work stayed the same.

use serde::Serialize;

use super::watcher::Sample;

/// The beginning is left out: pools, tables and the allocator fill.
const WARM: f64 = 1.0 / 3.0;
/// Parts of the rest, of which each gives its median: neighbouring seconds are
/// much alike, and would make the noise look small.
const PARTS: usize = 20;
/// Seconds of a run that can be judged.
const SHORTEST: f64 = 120.0;
/// Standard errors that are noise.
const ERRORS: f64 = 3.0;

/// What is looked at, how it is read, and what it may grow by in any case.
type Figure = (&'static str, fn(&Sample) -> u64, f64);
const FIGURES: [Figure; 3] = [
    ("memory, KiB", |sample| sample.resident_kib, 2048.0),
    ("descriptors", |sample| sample.descriptors, 8.0),
    ("tasks", |sample| sample.tasks, 8.0),
];

/// How one figure moved, from the first third's end to the run's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slope {
    /// Which.
    pub what: &'static str,
    /// Its median.
    pub median: f64,
    /// Growth an hour, by least squares.
    pub per_hour: f64,
    /// What of it may be chance: three standard errors, an hour.
    pub noise_per_hour: f64,
    /// Growth over what was looked at.
    pub grown: f64,
    /// Growth that is allowed: the noise, or a small amount.
    pub allowed: f64,
}

impl Slope {
    /// Whether it did not grow beyond its noise.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.grown <= self.allowed
    }
}

/// How each figure moved; nothing of runs that are too short.
pub(super) fn slopes(samples: &[Sample]) -> Vec<Slope> {
    let length = samples.last().map_or(0.0, |last| last.at);
    let from = samples.partition_point(|sample| sample.at < length * WARM);
    let rest = &samples[from..];
    if length < SHORTEST || rest.len() < 2 * PARTS {
        return Vec::new();
    }
    FIGURES.map(|figure| slope(rest, figure)).to_vec()
}

#[expect(clippy::cast_precision_loss, reason = "figures of a process")]
fn slope(samples: &[Sample], (what, read, least): Figure) -> Slope {
    let size = samples.len() / PARTS;
    let points: Vec<(f64, f64)> = samples
        .chunks_exact(size)
        .map(|part| {
            let middle = (part[0].at + part[size - 1].at) / 2.0;
            (middle, median(part.iter().map(read)))
        })
        .collect();
    let count = points.len() as f64;
    let mean_at = points.iter().map(|(at, _)| at).sum::<f64>() / count;
    let mean = points.iter().map(|(_, value)| value).sum::<f64>() / count;
    let spread: f64 = points.iter().map(|(at, _)| (at - mean_at).powi(2)).sum();
    let both = points
        .iter()
        .map(|(at, value)| (at - mean_at) * (value - mean));
    let per_second = both.sum::<f64>() / spread;
    let left = points.iter().map(|(at, value)| {
        let expected = mean + per_second * (at - mean_at);
        (value - expected).powi(2)
    });
    let noise = ERRORS * (left.sum::<f64>() / (count - 2.0) / spread).sqrt();
    let seconds = samples[samples.len() - 1].at - samples[0].at;
    Slope {
        what,
        median: median(samples.iter().map(read)),
        per_hour: per_second * 3600.0,
        noise_per_hour: noise * 3600.0,
        grown: per_second * seconds,
        allowed: (noise * seconds).max(least),
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures of a process")]
pub(super) fn median(values: impl Iterator<Item = u64>) -> f64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values
        .get(values.len() / 2)
        .map_or(0.0, |value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seconds: u32, resident: impl Fn(u32) -> u64) -> Vec<Slope> {
        let samples: Vec<_> = (1..=seconds)
            .map(|second| Sample {
                at: second.into(),
                resident_kib: resident(second),
                descriptors: 50 + u64::from(second % 7),
                tasks: 20,
                requests: 0,
            })
            .collect();
        slopes(&samples)
    }

    /// Noise without a random generator.
    fn noise(second: u32) -> u64 {
        u64::from(second.wrapping_mul(2_654_435_761) >> 20)
    }

    #[test]
    fn noise_is_flat_and_growth_is_not() {
        for (seconds, resident, flat) in [
            (1800, (|_| 60_000) as fn(u32) -> u64, true),
            (1800, |second| 60_000 + noise(second), true),
            // It fills, and then is full.
            (
                1800,
                |second| 60_000 + u64::from(second.min(500)) * 40,
                true,
            ),
            // A KiB lost every second, 5 MiB lost in 3 minutes.
            (
                1800,
                |second| 60_000 + noise(second) + 3 * u64::from(second),
                false,
            ),
            (180, |second| 60_000 + 30 * u64::from(second), false),
            // Less is always well.
            (180, |second| 90_000 - 30 * u64::from(second), true),
        ] {
            let slopes = run(seconds, resident);
            assert_eq!(slopes.len(), FIGURES.len());
            assert_eq!(slopes[0].is_flat(), flat, "{:?}", slopes[0]);
            assert!(slopes[1].is_flat() && slopes[2].is_flat(), "{slopes:?}");
        }
    }

    #[test]
    fn the_slope_is_the_slope() {
        let slope = run(600, |second| 1000 + 2 * u64::from(second))[0];
        assert!((slope.per_hour - 7200.0).abs() < 1.0, "{slope:?}");
        assert!(slope.noise_per_hour < 1.0, "{slope:?}");
    }

    #[test]
    fn short_runs_are_not_judged() {
        assert_eq!(run(100, |_| 60_000), []);
        assert_eq!(slopes(&[]), []);
    }
}
