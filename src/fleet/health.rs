//! Whether an engine is to be left alone for a while: after so many failures in
//! a row, whichever kind, nobody asks it until its time is over.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::engine::Outcome;

/// Failures in a row after which an engine is set aside.
const MOST_FAILURES: u32 = 5;
/// For how long.
const ASIDE: Duration = Duration::from_secs(5);

/// What an engine's last requests say of it.
#[derive(Debug, Default)]
pub struct Health {
    /// In a row.
    failures: AtomicU32,
    /// Milliseconds of the fleet's clock; 0: never.
    aside_until: AtomicU64,
    /// When it came, or was last to be asked again after it had been set aside.
    /// Milliseconds of the fleet's clock.
    since: AtomicU64,
}

/// An engine's health in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its last request went well.
    Healthy,
    /// Its last request failed.
    Degraded,
    /// It is set aside.
    Unhealthy,
}

impl Health {
    /// An engine that came at that time of the fleet's clock.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self::from_parts([0, 0, millis(now)])
    }

    /// One that was read before.
    #[must_use]
    pub fn from_parts([failures, aside_until, since]: [u64; 3]) -> Self {
        Self {
            failures: AtomicU32::new(u32::try_from(failures).unwrap_or(u32::MAX)),
            aside_until: AtomicU64::new(aside_until),
            since: AtomicU64::new(since),
        }
    }

    /// All of it.
    #[must_use]
    pub fn to_parts(&self) -> [u64; 3] {
        [
            u64::from(self.failures.load(Relaxed)),
            self.aside_until.load(Relaxed),
            self.since.load(Relaxed),
        ]
    }

    /// Takes in how a request ended.
    pub fn observe(&self, outcome: Outcome, now: Duration) {
        match outcome {
            Outcome::Success => {
                if self.failures.load(Relaxed) == 0 {
                    return;
                }
                if self.failures.swap(0, Relaxed) >= MOST_FAILURES {
                    let until = self.aside_until.swap(0, Relaxed);
                    self.since.store(until.min(millis(now)), Relaxed);
                }
            }
            Outcome::Failure | Outcome::Timeout => {
                if self.failures.fetch_add(1, Relaxed) + 1 >= MOST_FAILURES {
                    self.aside_until.store(millis(now + ASIDE), Relaxed);
                }
            }
            // Neither good nor bad.
            Outcome::ClientGone | Outcome::Overloaded => {}
        }
    }

    /// Whether it may be asked.
    #[must_use]
    pub fn is_up(&self, now: Duration) -> bool {
        self.is_up_at(millis(now))
    }

    /// The same, in milliseconds of the fleet's clock.
    #[must_use]
    pub fn is_up_at(&self, now_ms: u64) -> bool {
        self.aside_until.load(Relaxed) <= now_ms
    }

    /// In a word.
    #[must_use]
    pub fn state(&self, now: Duration) -> State {
        if !self.is_up(now) {
            State::Unhealthy
        } else if self.failures.load(Relaxed) > 0 {
            State::Degraded
        } else {
            State::Healthy
        }
    }

    /// For how many milliseconds it has been there, or back.
    #[must_use]
    pub fn up_for(&self, now_ms: u64) -> u64 {
        let aside = self.aside_until.load(Relaxed);
        now_ms.saturating_sub(self.since.load(Relaxed).max(aside))
    }
}

/// Whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_set_aside_and_a_success_brings_back() {
        let health = Health::new(Duration::ZERO);
        let at = Duration::from_secs;
        for _ in 1..MOST_FAILURES {
            health.observe(Outcome::Failure, at(10));
            health.observe(Outcome::ClientGone, at(10));
            health.observe(Outcome::Overloaded, at(10));
        }
        assert_eq!(health.state(at(10)), State::Degraded);
        health.observe(Outcome::Success, at(10));
        assert_eq!(health.state(at(10)), State::Healthy);
        assert_eq!(health.up_for(10_000), 10_000);
        for _ in 0..MOST_FAILURES {
            health.observe(Outcome::Timeout, at(20));
        }
        assert_eq!(health.state(at(24)), State::Unhealthy);
        assert!(health.is_up(at(25)), "its time is over");
        health.observe(Outcome::Failure, at(25));
        assert!(!health.is_up(at(29)), "once more is enough");
        assert_eq!(health.up_for(33_000), 3000, "it begins slowly at once");
        health.observe(Outcome::Success, at(31));
        assert_eq!(
            (health.state(at(31)), health.up_for(33_000)),
            (State::Healthy, 3000)
        );
    }
}
