//! Whether an engine may be asked, as decisions read it: one number that is
//! compared with the time. What makes that number is behind a lock that only
//! engines in trouble take: the [breaker](super::breaker), the pressure that an
//! engine tells of (429, 503), and sleep.

mod words;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::breaker::{Breaker, Standing};
use super::engine::Outcome;
use super::recent::Window;
use super::ring::mix;
use crate::config::Breaker as Settings;
pub use words::WORDS;

/// How long an engine that said 429 or 503 is left alone, if it does not say:
/// doubled each time up to the second.
const PRESSURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The longest `Retry-After` that is believed.
const MOST_PRESSURE: Duration = Duration::from_secs(60);

/// Its last request failed, or it is under pressure.
const TROUBLED: u32 = 1;
/// It is ejected or on trial.
const EJECTED: u32 = 2;
/// Nobody listens there.
const DOWN: u32 = 4;
/// It told that it sleeps.
const ASLEEP: u32 = 8;
/// It is left alone as it said 429 or 503.
const PRESSED: u32 = 16;
/// A probe is under way.
const PROBED: u32 = 32;
/// The cluster says that it is not ready, or about to end.
const UNREADY: u32 = 64;

/// What an engine's last requests say of it.
#[derive(Debug)]
pub struct Health {
    /// Milliseconds of the fleet's clock; 0: open, the greatest: nobody knows.
    closed_until: AtomicU64,
    /// When it came, or was last trusted anew.
    since: AtomicU64,
    marks: AtomicU32,
    rest: Box<Rest>,
}

/// What decisions do not read.
#[derive(Debug)]
struct Rest {
    window: Window,
    trouble: Mutex<Trouble>,
    ejections: AtomicU64,
    /// Engines of the whole fleet that are ejected or on trial.
    ejected: Arc<AtomicU32>,
}

#[derive(Debug)]
struct Trouble {
    breaker: Breaker,
    settings: Settings,
    /// Times that it said 429 or 503 in a row, and until when that counts.
    pressed: u32,
    pressed_until: Duration,
    is_asleep: bool,
    is_unready: bool,
}

/// An engine's health in three steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its last request went well.
    Healthy,
    /// Its last request failed, or it is on trial.
    Degraded,
    /// It is set aside.
    Unhealthy,
}

impl Default for Health {
    fn default() -> Self {
        Self::new(Duration::ZERO, Arc::default())
    }
}

impl Health {
    /// An engine that came at that time of the fleet's clock, of a fleet that
    /// counts those that are ejected.
    #[must_use]
    pub fn new(now: Duration, ejected: Arc<AtomicU32>) -> Self {
        Self {
            closed_until: AtomicU64::new(0),
            since: AtomicU64::new(millis(now)),
            marks: AtomicU32::new(0),
            rest: Box::new(Rest {
                window: Window::default(),
                trouble: Mutex::new(Trouble {
                    breaker: Breaker::new(now),
                    settings: Settings::default(),
                    pressed: 0,
                    pressed_until: Duration::ZERO,
                    is_asleep: false,
                    is_unready: false,
                }),
                ejections: AtomicU64::new(0),
                ejected,
            }),
        }
    }

    /// One that reads as this did when [`Health::to_parts`] was taken.
    #[must_use]
    pub fn from_parts([marks, closed_until, since]: [u64; 3], ejected: Arc<AtomicU32>) -> Self {
        let health = Self::new(Duration::ZERO, ejected);
        health.closed_until.store(closed_until, Relaxed);
        health.since.store(since, Relaxed);
        let marks = u32::try_from(marks).unwrap_or(u32::MAX);
        health.marks.store(marks, Relaxed);
        let is_ejected = u32::from(health.is_distrusted());
        health.rest.ejected.fetch_add(is_ejected, Relaxed);
        health
    }

    /// All that decisions read.
    #[must_use]
    pub fn to_parts(&self) -> [u64; 3] {
        [
            u64::from(self.marks.load(Relaxed)),
            self.closed_until.load(Relaxed),
            self.since.load(Relaxed),
        ]
    }

    /// Other settings, from now on.
    pub fn set(&self, settings: &Settings) {
        self.trouble().settings = *settings;
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        // Whoever panicked left a whole state.
        (self.rest.trouble.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is behind the lock, and shows what follows from it.
    fn change<T>(&self, now: Duration, change: impl FnOnce(&mut Trouble) -> T) -> T {
        let mut trouble = self.trouble();
        let made = change(&mut trouble);
        let breaker = &trouble.breaker;
        let closed_until = if trouble.is_asleep || trouble.is_unready {
            u64::MAX
        } else {
            millis(breaker.opens_at().max(trouble.pressed_until))
        };
        let is_pressed = trouble.pressed_until > now;
        let mark = |is: bool, mark: u32| if is { mark } else { 0 };
        let marks = mark(breaker.failures() > 0 || trouble.pressed > 0, TROUBLED)
            | mark(breaker.is_ejected(), EJECTED)
            | mark(breaker.is_down(), DOWN)
            | mark(trouble.is_asleep, ASLEEP)
            | mark(trouble.is_unready, UNREADY)
            | mark(is_pressed, PRESSED)
            | mark(breaker.is_probed(), PROBED);
        let trusted_at = millis(breaker.trusted_at());
        self.since.fetch_max(trusted_at, Relaxed);
        self.closed_until.store(closed_until, Relaxed);
        let before = self.marks.swap(marks, Relaxed);
        match (before & EJECTED, marks & EJECTED) {
            (0, EJECTED) => drop(self.rest.ejected.fetch_add(1, Relaxed)),
            (EJECTED, 0) => drop(self.rest.ejected.fetch_sub(1, Relaxed)),
            _ => {}
        }
        made
    }

    /// A request is sent there: what may be learnt from it.
    pub fn take(&self, now: Duration) -> Standing {
        if self.marks.load(Relaxed) & EJECTED == 0 {
            return Standing::Trusted;
        }
        self.change(now, |trouble| trouble.breaker.take(now))
    }

    /// A request ended in this way.
    pub fn learn(&self, standing: Standing, outcome: Outcome, now: Duration) {
        match outcome {
            Outcome::Success => self.succeeded(standing, now),
            Outcome::Failure | Outcome::Timeout | Outcome::Unreachable => {
                self.failed(standing, outcome, now);
            }
            Outcome::Overloaded => self.pressed(standing, None, now),
            Outcome::ClientGone | Outcome::Unrelated => self.released(standing, now),
        }
    }

    /// A request went well.
    pub fn succeeded(&self, standing: Standing, now: Duration) {
        self.rest.window.good(millis(now));
        if self.marks.load(Relaxed) == 0 {
            return;
        }
        let is_back = self.change(now, |trouble| {
            if trouble.pressed_until <= now {
                trouble.pressed = 0;
            }
            let settings = trouble.settings;
            trouble.breaker.succeeded(standing, now, &settings);
            matches!(standing, Standing::Probe(_)) && !trouble.breaker.is_ejected()
        });
        if is_back {
            self.rest.window.clear();
        }
    }

    /// A request failed: [`Outcome::Failure`], `Timeout` or `Unreachable`.
    pub fn failed(&self, standing: Standing, outcome: Outcome, now: Duration) {
        if standing == Standing::Forced && outcome != Outcome::Unreachable {
            return;
        }
        let window = &self.rest.window;
        window.failed(millis(now));
        let recent = window.read(millis(now));
        let seed = mix(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), 0);
        self.change(now, |trouble| {
            let what = (standing, outcome);
            let settings = trouble.settings;
            let is_ejected = trouble.breaker.failed(what, recent, (now, seed), &settings);
            self.rest
                .ejections
                .fetch_add(u64::from(is_ejected), Relaxed);
        });
    }

    /// It said 429 or 503, and when to come again if it said so.
    pub fn pressed(&self, standing: Standing, retry_after: Option<Duration>, now: Duration) {
        self.change(now, |trouble| {
            // What was sent at the same time says the same thing.
            if trouble.pressed_until <= now {
                trouble.pressed = trouble.pressed.saturating_add(1);
            }
            let (first, most) = PRESSURE;
            let doubled = first * (1 << trouble.pressed.saturating_sub(1).min(5));
            let pause = retry_after.map_or(doubled.min(most), |after| after.min(MOST_PRESSURE));
            trouble.pressed_until = trouble.pressed_until.max(now + pause);
            trouble.breaker.heard();
            trouble.breaker.released(standing, now);
        });
    }

    /// A request ended without a word on the engine.
    pub fn released(&self, standing: Standing, now: Duration) {
        if matches!(standing, Standing::Probe(_)) {
            self.change(now, |trouble| trouble.breaker.released(standing, now));
        }
    }

    /// Begins a probe of our own, if one is due.
    pub fn check(&self, now: Duration) -> Option<Standing> {
        if self.marks.load(Relaxed) & EJECTED == 0 {
            return None;
        }
        self.change(now, |trouble| {
            let is_due = trouble.breaker.is_check_due(now, &trouble.settings);
            let is_pressed = trouble.pressed_until > now;
            (is_due && !is_pressed).then(|| trouble.breaker.probe(now))
        })
    }

    /// It told that it sleeps: nobody asks it until it wakes.
    pub fn falls_asleep(&self, now: Duration) {
        self.change(now, |trouble| trouble.is_asleep = true);
    }

    /// It told that it does not sleep.
    pub fn wakes(&self, now: Duration) {
        if self.is_asleep() {
            self.change(now, |trouble| trouble.is_asleep = false);
        }
    }

    /// The cluster says whether it may get requests: one that may not gets nothing
    /// new, whatever else is known of it.
    pub fn set_ready(&self, is_ready: bool, now: Duration) {
        if self.is_unready() == is_ready {
            self.change(now, |trouble| trouble.is_unready = !is_ready);
        }
    }

    /// It is a new process: it starts slowly, and nothing presses it.
    pub fn restarted(&self, now: Duration) {
        self.since.store(millis(now), Relaxed);
        self.change(now, |trouble| {
            (trouble.pressed, trouble.pressed_until) = (0, Duration::ZERO);
            trouble.is_asleep = false;
        });
    }

    /// Times that it was ejected.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.rest.ejections.load(Relaxed)
    }

    /// Whether it told that it sleeps.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.marks.load(Relaxed) & ASLEEP != 0
    }

    /// Whether the cluster says that it is not ready.
    #[must_use]
    pub fn is_unready(&self) -> bool {
        self.marks.load(Relaxed) & UNREADY != 0
    }

    /// Whether it is ejected or on trial.
    #[must_use]
    pub fn is_distrusted(&self) -> bool {
        self.marks.load(Relaxed) & EJECTED != 0
    }

    /// Whether it may be asked.
    #[must_use]
    pub fn is_up(&self, now: Duration) -> bool {
        self.is_up_at(millis(now))
    }

    /// The same, in milliseconds of the fleet's clock.
    #[inline]
    #[must_use]
    pub fn is_up_at(&self, now_ms: u64) -> bool {
        self.closed_until.load(Relaxed) <= now_ms
    }

    /// Whether to ask it is in vain, however few others there are: nobody
    /// listens there, it sleeps, or is not ready.
    #[must_use]
    pub fn is_out_at(&self, now_ms: u64) -> bool {
        self.marks.load(Relaxed) & (DOWN | ASLEEP | UNREADY) != 0 && !self.is_up_at(now_ms)
    }

    /// Whether it is set aside for its failures, though it can be reached.
    #[must_use]
    pub fn is_ejected_at(&self, now_ms: u64) -> bool {
        let marks = self.marks.load(Relaxed);
        marks & EJECTED != 0
            && marks & (DOWN | ASLEEP | UNREADY | PRESSED) == 0
            && !self.is_up_at(now_ms)
    }

    /// When it may be asked again, in milliseconds of the fleet's clock, if that
    /// is known.
    #[must_use]
    pub fn opens_at_ms(&self) -> Option<u64> {
        Some(self.closed_until.load(Relaxed)).filter(|at| *at < u64::MAX)
    }

    /// How well it is, in three steps.
    #[must_use]
    pub fn state(&self, now: Duration) -> State {
        if !self.is_up(now) {
            State::Unhealthy
        } else if self.marks.load(Relaxed) != 0 {
            State::Degraded
        } else {
            State::Healthy
        }
    }

    /// Whether what began then says something of it as it is now: it was not
    /// trusted anew since.
    #[must_use]
    pub fn is_news(&self, began: Duration) -> bool {
        began >= self.trouble().breaker.trusted_at()
    }

    /// For how many milliseconds it has been there, or back.
    #[must_use]
    pub fn up_for(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.since.load(Relaxed))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if self.is_distrusted() {
            self.rest.ejected.fetch_sub(1, Relaxed);
        }
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

    const AT: fn(u64) -> Duration = Duration::from_secs;

    fn fail(health: &Health, outcome: Outcome, now: Duration) {
        health.failed(Standing::Trusted, outcome, now);
    }

    #[test]
    fn trouble_is_shown_and_passes() {
        let health = Health::default();
        (0..4).for_each(|_| fail(&health, Outcome::Failure, AT(10)));
        assert_eq!(health.state(AT(10)), State::Degraded);
        health.succeeded(Standing::Trusted, AT(10));
        assert_eq!(
            (health.state(AT(10)), health.word(AT(10))),
            (State::Healthy, "healthy")
        );
        assert_eq!(health.up_for(10_000), 10_000);
        (0..5).for_each(|_| fail(&health, Outcome::Timeout, AT(20)));
        assert_eq!(
            (health.state(AT(24)), health.word(AT(24))),
            (State::Unhealthy, "ejected")
        );
        assert!(health.is_ejected_at(24_000) && !health.is_out_at(24_000));
        assert!(health.check(AT(24)).is_none());
        assert!(WORDS.contains(&health.word(AT(24))));
        let mut now = AT(28);
        for _ in 0..3 {
            let probe = health.check(now).unwrap();
            assert_eq!(
                (health.check(now), health.why_closed()),
                (None, "being probed")
            );
            health.succeeded(probe, now);
            now += AT(1);
        }
        assert_eq!(health.state(now), State::Healthy);
        assert_eq!(health.up_for(33_000), 3000, "it begins slowly");
        assert_eq!(health.ejections(), 1);
    }

    #[test]
    fn the_unreachable_and_the_sleeping_are_out() {
        let health = Health::default();
        (0..5).for_each(|_| fail(&health, Outcome::Unreachable, AT(1)));
        assert!(health.is_out_at(2000) && !health.is_ejected_at(2000));
        assert_eq!(health.word(AT(2)), "down");
        let asleep = Health::default();
        asleep.falls_asleep(AT(1));
        assert!(asleep.is_out_at(u64::MAX - 1), "however long");
        asleep.wakes(AT(2));
        assert!(asleep.is_up(AT(2)));
        // Not ready, through whatever else happens.
        let unready = Health::default();
        unready.set_ready(false, AT(1));
        assert!(unready.is_out_at(u64::MAX - 1) && !unready.is_ejected_at(1));
        unready.succeeded(Standing::Trusted, AT(2));
        unready.restarted(AT(2));
        assert_eq!(
            (unready.word(AT(2)), unready.why_closed()),
            ("unready", "not ready")
        );
        unready.set_ready(true, AT(3));
        assert!(unready.is_up(AT(3)));
    }

    #[test]
    fn pressure_lasts_as_long_as_was_said_or_doubles() {
        let health = Health::default();
        let press = |after: Option<u64>, now| {
            health.pressed(Standing::Trusted, after.map(AT), now);
            health.opens_at_ms()
        };
        assert_eq!(press(Some(7), AT(10)), Some(17_000));
        assert_eq!(press(Some(1_000_000_000), AT(20)), Some(80_000), "capped");
        assert_eq!(health.word(AT(20)), "pressed");
        let mut now = AT(100);
        health.succeeded(Standing::Trusted, now);
        assert_eq!(health.state(now), State::Healthy);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            for _ in 0..3 {
                assert_eq!(press(None, now), Some(millis(now + AT(pause))));
            }
            now = Duration::from_millis(health.opens_at_ms().unwrap());
        }
    }
}
