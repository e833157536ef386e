//! How long an engine takes to its first token, as a peak-sensitive average
//! that fades: a slow answer counts at once, a quick one by and by, and an
//! engine that nobody asks is forgiven.
//!
//! The idea is Finagle's peak EWMA, as in tower and linkerd2-proxy.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// In this time, in seconds, a value falls to its half.
const HALF_LIFE: f64 = 2.0;
/// What a failed request counts as: a broken engine must not look quick.
pub const PENALTY: Duration = Duration::from_secs(5);

/// The average; one word, so that a reader never sees half of it.
///
/// The high half is the value as the bits of an `f32`, in seconds, the low half
/// its moment in milliseconds of the fleet's clock, of which 49 days make a
/// round; 0: none yet.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// One that was read before.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(AtomicU64::new(bits))
    }

    /// All of it.
    #[must_use]
    pub fn to_bits(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Seconds, as of now; `None`: never observed.
    #[must_use]
    pub fn get(&self, now: Duration) -> Option<f64> {
        let bits = self.0.load(Relaxed);
        (bits != 0).then(|| {
            let (value, fading) = unpack(bits, now);
            value * fading
        })
    }

    /// As if it had never been observed.
    pub fn forget(&self) {
        self.0.store(0, Relaxed);
    }

    /// Takes in how long a first token took.
    pub fn observe(&self, took: Duration, now: Duration) {
        let bits = self.0.load(Relaxed);
        let sample = took.as_secs_f64();
        let mut value = sample;
        if bits != 0 {
            let (before, fading) = unpack(bits, now);
            if before * fading > sample {
                value = sample + (before - sample) * fading;
            }
        }
        // Of two at the same moment one may be lost.
        self.0.store(pack(value, now), Relaxed);
    }
}

/// What is left after so many half-lives: 1 at none, 1/2 at one, and on a
/// straight line between whole ones, since an exponential costs more than the
/// rest of a decision.
#[must_use]
pub fn fade(half_lives: f64) -> f64 {
    /// Nothing is left of a double after so many.
    const MOST: f64 = 1000.0;
    if half_lives.is_nan() || half_lives >= MOST {
        return 0.0;
    }
    let half_lives = half_lives.max(0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to MOST; floor() is a call on older processors"
    )]
    let whole = half_lives as u32;
    let power = f64::from_bits(u64::from(1023 - whole) << 52);
    power * (1.0 - (half_lives - f64::from(whole)) / 2.0)
}

/// A value, and what is left of it by now.
fn unpack(bits: u64, now: Duration) -> (f64, f64) {
    let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
    let value = f32::from_be_bytes([a, b, c, d]);
    let age = moment(now).wrapping_sub(u32::from_be_bytes([e, f, g, h]));
    // The last minute of a round is a moment from now: of another worker.
    let age = if age > u32::MAX - 60_000 { 0 } else { age };
    (f64::from(value), fade(f64::from(age) / (HALF_LIFE * 1e3)))
}

#[expect(clippy::cast_possible_truncation, reason = "seven digits of value")]
fn pack(value: f64, now: Duration) -> u64 {
    let bits = u64::from((value as f32).to_bits()) << 32 | u64::from(moment(now));
    bits.max(1)
}

#[expect(clippy::cast_possible_truncation, reason = "rounds of 49 days")]
fn moment(now: Duration) -> u32 {
    now.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(value: f64) -> Duration {
        Duration::from_secs_f64(value)
    }

    #[test]
    fn half_is_left_after_a_half_life() {
        for (half_lives, left) in [(0.0, 1.0), (1.0, 0.5), (1.5, 0.375), (3.0, 0.125)] {
            assert_eq!(fade(half_lives), left);
        }
        assert_eq!((fade(-1.0), fade(f64::NAN), fade(1e9)), (1.0, 0.0, 0.0));
    }

    #[test]
    fn peaks_count_at_once_and_fade() {
        let latency = Latency::default();
        assert_eq!(latency.get(seconds(1.0)), None);
        latency.observe(seconds(0.1), seconds(1.0));
        let near = |now: f64, expected: f64| {
            let value = latency.get(seconds(now)).unwrap();
            assert!(
                (value - expected).abs() < expected * 1e-3,
                "{value} {expected}"
            );
        };
        near(1.0, 0.1);
        latency.observe(seconds(2.0), seconds(1.0));
        near(1.0, 2.0);
        near(0.5, 2.0);
        near(3.0, 1.0);
        latency.observe(seconds(0.1), seconds(3.0));
        near(3.0, 0.1 + 1.9 / 2.0);
        for later in 0..100 {
            latency.observe(seconds(0.1), seconds(8.0 + f64::from(later)));
        }
        near(107.0, 0.1);
    }

    #[test]
    fn the_clock_may_go_round() {
        let latency = Latency::default();
        let round = 4_294_967.296;
        latency.observe(seconds(2.0), seconds(round - 1.0));
        let value = latency.get(seconds(round + 1.0)).unwrap();
        assert!((value - 1.0).abs() < 1e-2, "{value}");
        latency.observe(Duration::ZERO, seconds(0.0));
        assert_eq!(
            Latency::from_bits(latency.to_bits()).get(seconds(1.0)),
            latency.get(seconds(1.0))
        );
    }
}
