//! When an engine is left alone, and how it comes back.
//!
//! A plain state machine: no task, no timer, no clock. It stores when an engine
//! may be asked again, and whoever asks compares that with the time.
//!
//! *Trusted* until so many failures come in a row, or so large a share of its
//! requests fails; then *ejected* for a time that doubles with every relapse;
//! then on *trial*: one probe at a time, until so many went well.

use std::time::Duration;

use super::engine::Outcome;
use crate::config::Breaker as Settings;

/// Between two probes of our own of an engine on trial: traffic comes first.
const CHECK_PAUSE: Duration = Duration::from_secs(1);
/// A probe that has told nothing for so long holds up no other.
const PROBE: Duration = Duration::from_secs(30);
/// An ejection lasts up to this part longer, so that sidecars do not come back
/// to an engine all at once.
const JITTER: f64 = 0.1;
/// Ejections that are remembered: 2^20 of the shortest is beyond any limit.
const MOST_DOUBLINGS: u32 = 20;

/// How much an engine is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Trusted,
    Ejected,
    /// Between probes, or with one under way.
    Trial {
        is_probed: bool,
    },
}

/// What a request may learn of an engine, told when it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// One of many.
    Trusted,
    /// The one probe of an engine on trial, by its number.
    Probe(u32),
    /// Sent though the engine is set aside, since there was no better one: its
    /// success changes nothing.
    Forced,
}

/// Requests of the last half minute, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    /// All that ended.
    pub all: u32,
    /// Those that failed.
    pub failed: u32,
}

/// One engine's breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Good probes in a row.
    good: u32,
    /// Whether the last that is known is that nobody listens there.
    is_down: bool,
    /// Ejections that are not forgotten.
    times: u32,
    /// When the last ejection ends, or has ended.
    until: Duration,
    /// When the last probe began or ended.
    probed_at: Duration,
    /// Its number.
    probe: u32,
    /// When it was last trusted anew.
    trusted_at: Duration,
}

impl Breaker {
    /// Of an engine that comes at that time: trusted.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            state: State::Trusted,
            failures: 0,
            good: 0,
            is_down: false,
            times: 0,
            until: Duration::ZERO,
            probed_at: now,
            probe: 0,
            trusted_at: now,
        }
    }

    /// From when traffic may ask it.
    #[must_use]
    pub fn opens_at(&self) -> Duration {
        match self.state {
            State::Trusted | State::Trial { is_probed: false } => Duration::ZERO,
            // Our own probe is first, so that no client's request is the one
            // that finds out; if none comes, traffic does not wait for it.
            State::Ejected => self.until + CHECK_PAUSE,
            State::Trial { is_probed: true } => self.probed_at + PROBE,
        }
    }

    /// Whether a probe is under way.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        self.state == State::Trial { is_probed: true }
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it is ejected or on trial.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.state != State::Trusted
    }

    /// Whether it is set aside because nobody listens there.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.is_down && self.is_ejected()
    }

    /// When it was last trusted anew: from then on it starts slowly.
    #[must_use]
    pub fn trusted_at(&self) -> Duration {
        self.trusted_at
    }

    /// A request is sent to it: what may be learnt of that.
    pub fn take(&mut self, now: Duration) -> Standing {
        match self.state {
            State::Trusted => Standing::Trusted,
            _ if self.opens_at() <= now => self.probe(now),
            State::Ejected | State::Trial { .. } => Standing::Forced,
        }
    }

    /// Whether a probe of our own is due: an ejection has ended, an engine on
    /// trial gets no traffic, or one that is down may be back.
    #[must_use]
    pub fn is_check_due(&self, now: Duration, settings: &Settings) -> bool {
        match self.state {
            State::Trusted => false,
            State::Trial { is_probed: true } => now >= self.opens_at(),
            State::Trial { is_probed: false } => now >= self.probed_at + CHECK_PAUSE,
            State::Ejected => {
                // To connect in vain harms nobody: no need to wait for long.
                let again = self.probed_at + settings.ejection;
                now >= self.until || (self.is_down && now >= again)
            }
        }
    }

    /// Begins a probe, which from now on is the one that counts.
    pub fn probe(&mut self, now: Duration) -> Standing {
        self.state = State::Trial { is_probed: true };
        self.probed_at = now;
        self.probe = self.probe.wrapping_add(1);
        Standing::Probe(self.probe)
    }

    /// Whether that is the probe under way.
    fn is_current(&self, standing: Standing) -> bool {
        standing == Standing::Probe(self.probe) && self.is_probed()
    }

    /// A request went well.
    pub fn succeeded(&mut self, standing: Standing, now: Duration, settings: &Settings) {
        match (standing, self.state) {
            // Late is as good.
            (Standing::Probe(_), State::Trial { .. }) => {
                self.is_down = false;
                self.good += 1;
                if self.good < settings.probes {
                    if self.is_current(standing) {
                        self.probed_at = now;
                        self.state = State::Trial { is_probed: false };
                    }
                } else {
                    self.state = State::Trusted;
                    self.failures = 0;
                    self.trusted_at = now;
                }
            }
            (Standing::Trusted | Standing::Probe(_), State::Trusted) => self.failures = 0,
            // What began before an ejection says nothing of the time after it.
            _ => {}
        }
    }

    /// A probe ended without a word on the engine: another one may begin.
    pub fn released(&mut self, standing: Standing, now: Duration) {
        if self.is_current(standing) {
            self.probed_at = now;
            self.state = if now < self.until {
                State::Ejected
            } else {
                State::Trial { is_probed: false }
            };
        }
    }

    /// It answered, though not well: somebody listens there.
    pub fn heard(&mut self) {
        self.is_down = false;
    }

    /// A request failed. `recent` counts it already; `seed` is any number that
    /// differs from one sidecar to the next. Tells whether the engine is ejected
    /// for it.
    pub fn failed(
        &mut self,
        (standing, outcome): (Standing, Outcome),
        recent: Recent,
        (now, seed): (Duration, u64),
        settings: &Settings,
    ) -> bool {
        let is_down = outcome == Outcome::Unreachable;
        match (standing, self.state) {
            _ if self.is_current(standing) && now < self.until => {
                // An early look in vain: the ejection goes on as it was.
                (self.state, self.is_down, self.good) = (State::Ejected, is_down, 0);
                self.probed_at = now;
                false
            }
            _ if self.is_current(standing) => {
                self.eject(is_down, (now, seed), settings);
                true
            }
            (Standing::Forced, State::Trusted) => false,
            (_, State::Trusted) => {
                self.failures = self.failures.saturating_add(1);
                let share = f64::from(recent.failed) / f64::from(recent.all.max(1));
                let too_many = recent.all >= settings.min_requests && share >= settings.ratio;
                if self.failures < settings.failures && !too_many {
                    return false;
                }
                self.forget(now, settings);
                self.eject(is_down, (now, seed), settings);
                true
            }
            // Failures of what was in flight do not make an ejection longer.
            (_, State::Ejected) => {
                self.is_down |= is_down;
                false
            }
            (_, State::Trial { .. }) => false,
        }
    }

    fn eject(&mut self, is_down: bool, (now, seed): (Duration, u64), settings: &Settings) {
        self.times = (self.times + 1).min(MOST_DOUBLINGS);
        let part = f64::from(u32::try_from(seed >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        let length = self.length(settings);
        self.until = now + length.mul_f64(1.0 + JITTER * part);
        (self.state, self.good, self.is_down) = (State::Ejected, 0, is_down);
        self.probed_at = now;
    }

    /// The length of the last ejection, before jitter.
    fn length(&self, settings: &Settings) -> Duration {
        let doublings = self.times.saturating_sub(1);
        (settings.ejection * (1 << doublings)).min(settings.max_ejection)
    }

    /// For each time that it was trusted for as long as it was last ejected,
    /// one ejection is forgotten.
    fn forget(&mut self, now: Duration, settings: &Settings) {
        let trusted = now.saturating_sub(self.trusted_at);
        let length = self.length(settings).as_secs_f64().max(0.001);
        let mut forgotten = trusted.as_secs_f64() / length;
        while forgotten >= 1.0 && self.times > 0 {
            (self.times, forgotten) = (self.times - 1, forgotten - 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALONE: Recent = Recent { all: 1, failed: 1 };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fail(breaker: &mut Breaker, standing: Standing, now: Duration) -> bool {
        let settings = Settings::default();
        breaker.failed((standing, Outcome::Failure), ALONE, (now, 0), &settings)
    }

    #[test]
    fn failures_in_a_row_eject_and_three_good_probes_bring_back() {
        let settings = Settings::default();
        let mut breaker = Breaker::new(Duration::ZERO);
        for _ in 0..4 {
            assert!(!fail(&mut breaker, Standing::Trusted, at(10)));
        }
        breaker.succeeded(Standing::Trusted, at(10), &settings);
        for _ in 0..4 {
            assert!(!fail(&mut breaker, Standing::Trusted, at(10)));
        }
        assert!(fail(&mut breaker, Standing::Trusted, at(10)));
        assert_eq!(breaker.opens_at(), at(16));
        assert_eq!(breaker.take(at(15)), Standing::Forced);
        assert!(!breaker.is_check_due(at(14), &settings));
        assert!(breaker.is_check_due(at(15), &settings));
        for good in 1..=3 {
            let now = at(16 + good);
            let probe = breaker.take(now);
            assert!(matches!(probe, Standing::Probe(_)));
            assert_eq!(breaker.opens_at(), now + PROBE);
            assert_eq!(breaker.take(now), Standing::Forced, "one at a time");
            breaker.succeeded(Standing::Forced, now, &settings);
            assert!(breaker.is_probed(), "only the probe counts");
            breaker.succeeded(probe, now, &settings);
            assert_eq!(breaker.is_ejected(), good < 3);
        }
        assert_eq!(breaker.trusted_at(), at(19));
        assert_eq!(breaker.failures(), 0);
    }

    #[test]
    fn a_share_of_failures_ejects_when_there_are_enough_requests() {
        let settings = Settings::default();
        for (all, failed, ejected) in [(19, 19, false), (20, 9, false), (20, 10, true)] {
            let mut breaker = Breaker::new(Duration::ZERO);
            let recent = Recent { all, failed };
            let what = (Standing::Trusted, Outcome::Timeout);
            let is = breaker.failed(what, recent, (at(1), 0), &settings);
            assert_eq!(is, ejected, "{failed} of {all}");
        }
    }

    #[test]
    fn ejections_double_up_to_a_limit_and_are_forgotten() {
        let settings = Settings::default();
        let mut breaker = Breaker::new(Duration::ZERO);
        for _ in 0..5 {
            fail(&mut breaker, Standing::Trusted, at(0));
        }
        let mut now = at(6);
        for length in [10, 20, 40, 80, 160, 300, 300] {
            let probe = breaker.take(now);
            assert!(fail(&mut breaker, probe, now), "{length}");
            let opens = breaker.opens_at();
            assert_eq!(opens, now + at(length) + CHECK_PAUSE);
            now = opens;
        }
        for _ in 0..3 {
            let probe = breaker.take(now);
            breaker.succeeded(probe, now, &settings);
        }
        // Ejected eight times; good for as long as six ejections: two are left.
        now += at(1800);
        for _ in 0..5 {
            fail(&mut breaker, Standing::Trusted, now);
        }
        assert_eq!(breaker.opens_at(), now + at(20) + CHECK_PAUSE);
    }

    #[test]
    fn one_that_is_down_is_looked_at_early_and_that_costs_it_nothing() {
        let settings = Settings::default();
        let mut breaker = Breaker::new(Duration::ZERO);
        let down = (Standing::Trusted, Outcome::Unreachable);
        for _ in 0..5 {
            breaker.failed(down, ALONE, (at(0), 0), &settings);
        }
        assert!(breaker.is_down());
        let probe = (breaker.probe(at(6)), Outcome::Unreachable);
        assert!(breaker.failed(probe, ALONE, (at(6), 0), &settings));
        assert_eq!(breaker.opens_at(), at(17));
        assert!(breaker.is_check_due(at(11), &settings));
        let probe = (breaker.probe(at(11)), Outcome::Unreachable);
        assert!(!breaker.failed(probe, ALONE, (at(12), 0), &settings));
        assert_eq!(breaker.opens_at(), at(17), "as it was");
        assert!(!breaker.is_check_due(at(16) - at(1), &settings));
        let probe = breaker.probe(at(16));
        breaker.succeeded(probe, at(16), &settings);
        assert!(!breaker.is_down() && breaker.is_ejected());
        assert_eq!(breaker.opens_at(), Duration::ZERO);
    }

    #[test]
    fn a_probe_that_tells_nothing_holds_up_no_other() {
        let settings = Settings::default();
        let mut breaker = Breaker::new(Duration::ZERO);
        for _ in 0..5 {
            fail(&mut breaker, Standing::Trusted, at(0));
        }
        let first = breaker.take(at(10));
        assert_eq!(breaker.take(at(39)), Standing::Forced);
        assert!(!breaker.is_check_due(at(39), &settings));
        assert!(breaker.is_check_due(at(40), &settings));
        let second = breaker.take(at(40));
        assert_ne!(second, first);
        assert!(!fail(&mut breaker, first, at(41)), "too late to count");
        breaker.released(first, at(41));
        assert!(breaker.is_probed());
        breaker.succeeded(first, at(41), &settings);
        assert!(
            breaker.is_probed(),
            "a good one counts, and the other goes on"
        );
        breaker.succeeded(second, at(42), &settings);
        let third = breaker.take(at(43));
        breaker.succeeded(third, at(43), &settings);
        assert!(!breaker.is_ejected());
        assert!(!fail(&mut breaker, second, at(44)), "one of five");
    }

    /// Something that happens to a breaker.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Take,
        Check,
        End(usize, Outcome),
    }

    fn event() -> impl Strategy<Value = Event> {
        let outcomes = Outcome::ALL.map(|(outcome, _)| outcome);
        prop_oneof![
            3 => Just(Event::Take),
            1 => Just(Event::Check),
            4 => (0..8usize, prop::sample::select(outcomes.to_vec()))
                .prop_map(|(which, outcome)| Event::End(which, outcome)),
        ]
    }

    fn end(breaker: &mut Breaker, standing: Standing, outcome: Outcome, now: Duration) {
        let settings = Settings::default();
        match outcome {
            Outcome::Success => breaker.succeeded(standing, now, &settings),
            Outcome::Failure | Outcome::Timeout | Outcome::Unreachable => {
                breaker.failed((standing, outcome), ALONE, (now, 7), &settings);
            }
            _ => breaker.released(standing, now),
        }
    }

    proptest! {
        /// Never two probes at once, but for one that tells nothing for long;
        /// always probes again; closed for a bounded time; time alone only opens.
        #[test]
        fn whatever_happens(events in prop::collection::vec((event(), 0..9000u64), 1..200)) {
            let settings = Settings::default();
            let mut breaker = Breaker::new(Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut open: Vec<(Standing, Duration)> = Vec::new();
            for (event, wait) in events {
                now += Duration::from_millis(wait);
                match event {
                    Event::Take => open.push((breaker.take(now), now)),
                    Event::Check if breaker.is_check_due(now, &settings) => {
                        open.push((breaker.probe(now), now));
                    }
                    Event::Check => {}
                    Event::End(which, outcome) => {
                        if !open.is_empty() {
                            let (standing, _) = open.swap_remove(which % open.len());
                            end(&mut breaker, standing, outcome, now);
                        }
                    }
                }
                let is_probe = |one: &&(Standing, Duration)| {
                    matches!(one.0, Standing::Probe(_)) && one.1 + PROBE > now
                };
                let probes = open.iter().filter(is_probe).count();
                prop_assert!(probes <= 1);
                // Time alone only ever opens.
                let taken = breaker.clone().take(now);
                let later = breaker.clone().take(now + Duration::from_millis(wait + 1));
                prop_assert!(taken == Standing::Forced || later != Standing::Forced);
                let most = settings.max_ejection.mul_f64(1.1) + CHECK_PAUSE;
                prop_assert!(breaker.opens_at() <= now + most.max(PROBE));
            }
            let later = now + settings.max_ejection * 2;
            for _ in 0..settings.probes {
                let standing = breaker.take(later);
                prop_assert_ne!(standing, Standing::Forced);
                breaker.succeeded(standing, later, &settings);
            }
            prop_assert!(!breaker.is_ejected());
        }
    }
}
