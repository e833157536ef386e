//! Who is read, and how often: often while it matters, seldom when nobody looks
//! or when it hurts. Pure: time and chance are passed in.

use std::time::Duration;

use crate::fleet::ring::hash;

/// How often engines are read at most.
const QUICKEST: Duration = Duration::from_secs(1);
/// Bytes of pages a second, of all engines together, that are read without being
/// asked to: about a hundredth of a core.
const BYTES_A_SECOND: f64 = 2e6;
/// Each of us may take this part of the time of whoever makes a page: engines
/// have sidecars by the dozen.
const SHARE_OF_ENGINE: u32 = 100;
/// Attributes are stale after so many intervals, and not before [`FRESH`].
const STALE_AFTER: u32 = 3;
/// Attributes are never stale before this age.
const FRESH: Duration = Duration::from_secs(60);
/// Engines that tell nothing, and that nobody looks at, are asked at least that
/// often, in intervals.
const SELDOM: u32 = 10;

/// Fewer engines than this are all read.
const ALL_BELOW: usize = 50;
/// Engines that are read where there are more.
const APERTURE: usize = 20;
/// In this time every engine of the aperture has been drawn anew.
const ROTATION: Duration = Duration::from_secs(600);

/// The age from which attributes are stale that are read at that interval.
#[must_use]
pub fn stale_after(interval: Duration) -> Duration {
    (interval * STALE_AFTER).max(FRESH)
}

/// What holds for all engines.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pace {
    /// As configured.
    pub(super) interval: Duration,
    /// Whether a policy looks at what engines tell.
    pub(super) is_looked_at: bool,
    /// Whether requests come.
    pub(super) is_busy: bool,
    /// Bytes of all pages that are read.
    pub(super) bytes: u64,
}

/// What is known of one engine's pages.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Past {
    /// How long its pages take to come.
    pub(super) took: Duration,
    /// How often in a row there was none.
    pub(super) failures: u32,
    /// Whether there are places where it has not been looked for one.
    pub(super) is_searching: bool,
}

impl Pace {
    /// Whether engines are read often.
    pub(super) fn is_quick(&self) -> bool {
        self.is_looked_at && self.is_busy
    }

    /// How long after the last reading an engine is read again.
    pub(super) fn after(&self, past: &Past) -> Duration {
        let interval = self.interval;
        if past.is_searching {
            return QUICKEST.min(interval);
        }
        let usual = match (self.is_looked_at, self.is_busy) {
            (true, true) => {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
                let affordable = Duration::from_secs_f64(self.bytes as f64 / BYTES_A_SECOND);
                affordable.max(QUICKEST).min(interval)
            }
            (false, false) => interval * 2,
            _ => interval,
        };
        // Whoever is looked at is asked again before it is stale.
        let most = match (self.is_looked_at, past.failures) {
            (true, _) | (_, 0) => stale_after(interval) / STALE_AFTER,
            (false, _) => interval * SELDOM,
        };
        let backed_off = usual * 2u32.saturating_pow(past.failures.clamp(1, 16) - 1);
        let gentle = past.took * SHARE_OF_ENGINE;
        backed_off.max(gentle).min(most.max(usual))
    }
}

/// How many of so many engines are read.
pub(super) fn aperture(configured: Option<usize>, engines: usize) -> usize {
    let usual = if engines < ALL_BELOW {
        engines
    } else {
        APERTURE
    };
    configured.unwrap_or(usual).min(engines)
}

/// Where an engine stands in this process's order at that time of its clock; the
/// highest are read. Each engine is drawn anew at a moment of its own, so that
/// one after the other comes and goes; other processes have other orders.
pub(super) fn rank(process: u64, engine: u64, now: Duration) -> u64 {
    let rotation = ROTATION.as_secs();
    let turn = (now.as_secs() + engine % rotation) / rotation;
    let mut seed = [0; 24];
    for (part, value) in seed.chunks_exact_mut(8).zip([process, engine, turn]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    hash(&seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(is_looked_at: bool, is_busy: bool, bytes: u64) -> Pace {
        Pace {
            interval: SECOND * 30,
            is_looked_at,
            is_busy,
            bytes,
        }
    }

    #[test]
    fn often_while_it_matters_and_seldom_when_it_hurts() {
        let past = |took, failures| Past {
            took: SECOND.mul_f64(took),
            failures,
            is_searching: false,
        };
        let well = past(0.01, 0);
        for (pace, past, expected) in [
            (pace(true, true, 1000), well, 1.0),
            (pace(true, false, 1000), well, 30.0),
            (pace(false, true, 1000), well, 30.0),
            (pace(false, false, 1000), well, 60.0),
            // 100 engines of vLLM's size, and some that take even longer.
            (pace(true, true, 30_000_000), well, 15.0),
            (pace(true, true, 300_000_000), well, 30.0),
            (pace(true, true, 1000), past(0.04, 0), 4.0),
            (pace(true, true, 1000), past(4.0, 0), 30.0),
            (pace(false, false, 1000), past(4.0, 0), 60.0),
            (pace(true, true, 1000), past(0.0, 1), 1.0),
            (pace(true, true, 1000), past(0.0, 4), 8.0),
            (pace(true, true, 1000), past(0.0, u32::MAX), 30.0),
            (pace(false, true, 1000), past(0.0, 3), 120.0),
            (pace(false, true, 1000), past(0.0, u32::MAX), 300.0),
        ] {
            assert_eq!(
                pace.after(&past),
                SECOND.mul_f64(expected),
                "{pace:?} {past:?}"
            );
        }
        let searching = Past {
            is_searching: true,
            ..past(0.0, 2)
        };
        assert_eq!(pace(false, false, 0).after(&searching), SECOND);
        let own = Pace {
            interval: SECOND / 10,
            ..pace(true, true, 1000)
        };
        assert_eq!(own.after(&Past::default()), SECOND / 10);
        assert_eq!(stale_after(SECOND), SECOND * 60);
        assert_eq!(stale_after(SECOND * 30), SECOND * 90);
        for pace in [pace(true, false, 0), pace(false, false, 0)] {
            assert!(pace.after(&well) < stale_after(pace.interval));
        }
    }

    #[test]
    fn few_engines_are_all_read_and_of_many_some() {
        for (configured, engines, expected) in [
            (None, 49, 49),
            (None, 50, 20),
            (None, 1000, 20),
            (Some(5), 10, 5),
            (Some(5000), 1000, 1000),
        ] {
            assert_eq!(aperture(configured, engines), expected);
        }
    }

    fn chosen(process: u64, at: Duration) -> HashSet<u64> {
        let engine = |n: u64| hash(&n.to_le_bytes());
        let mut ranked: Vec<u64> = (0..100).collect();
        ranked.sort_by_key(|n| std::cmp::Reverse(rank(process, engine(*n), at)));
        ranked.into_iter().take(20).collect()
    }

    #[test]
    fn the_aperture_turns_slowly_and_every_process_has_its_own() {
        let mut seen = HashSet::new();
        for minute in 0..600 {
            let now = chosen(7, SECOND * 60 * minute);
            let next = chosen(7, SECOND * 60 * (minute + 1));
            assert!(now.intersection(&next).count() >= 12);
            seen.extend(now);
        }
        assert_eq!(seen.len(), 100);
        // Of 64 processes at one moment, every engine is read by some.
        let all: HashSet<u64> = (0..64)
            .flat_map(|process| chosen(process, SECOND))
            .collect();
        assert_eq!(all.len(), 100);
    }
}
