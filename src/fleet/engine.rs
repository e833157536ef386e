//! One serving process at one URL, with its live state.
//!
//! Readers never lock: what the workers count here are atomics, kept in the
//! object that they describe, so that a reload which keeps the engine keeps
//! them too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::attributes::{Attributes, Freshness, Live, Values};
use super::credentials::Credential;
use super::health::{Health, millis};
use super::latency::Latency;
use super::orca::LoadReports;
use super::reading::Reading;
use super::ring::hash;
use super::rolling;
use super::stats::Served;
use crate::config::{EngineUrl, Traits};

/// What discovery says of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSpec {
    /// Which one it is, wherever it listens: the URL of a listed engine, the
    /// object and port of one in a cluster. Another one at the same URL inherits
    /// nothing.
    pub identity: Arc<str>,
    /// Where it listens.
    pub url: EngineUrl,
    /// The models that it serves.
    pub models: Arc<[String]>,
    /// Whether these are what it tells of itself.
    pub is_learned: bool,
    /// All else that was said of it.
    pub traits: Arc<Traits>,
    /// Why it is to get nothing new; what it has, it finishes.
    pub closed: Option<Closed>,
    /// Whether its cluster said, when this was made, that it is ready; what it says
    /// now is in [`Engine::health`].
    pub is_ready: bool,
}

/// Why an engine is to get nothing new, whatever is known of its health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Someone wants it so.
    Draining,
    /// It has not told its models.
    NoModels,
}

impl Closed {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NoModels => "no models",
        }
    }
}

/// How a request ended, as far as the engine is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered whole, whatever the status below 500.
    Success,
    /// The client left or broke its own request: says nothing of the engine.
    ClientGone,
    /// 429 or 503: back-pressure, not a fault.
    Overloaded,
    /// Reset, truncation, protocol error or another 5xx.
    Failure,
    /// A deadline of ours passed.
    Timeout,
    /// No connection could be made, or it took nothing: a fault that no request
    /// was lost by.
    Unreachable,
    /// The request's own time was up, or we had no socket for it: says nothing of
    /// the engine.
    Unrelated,
}

impl Outcome {
    /// All outcomes with their label values.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Success, "success"),
        (Self::ClientGone, "client_gone"),
        (Self::Overloaded, "overloaded"),
        (Self::Failure, "failure"),
        (Self::Timeout, "timeout"),
        (Self::Unreachable, "unreachable"),
        (Self::Unrelated, "unrelated"),
    ];

    /// Whether the engine is to blame.
    #[must_use]
    pub fn is_fault(self) -> bool {
        matches!(self, Self::Failure | Self::Timeout | Self::Unreachable)
    }

    /// The outcome of a whole answer with this status.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            429 | 503 => Self::Overloaded,
            501 => Self::Success,
            500.. => Self::Failure,
            _ => Self::Success,
        }
    }
}

/// One engine with its live state, which outlives every change of what is
/// said of it: that is in the snapshot's candidates.
///
/// What decisions read of every candidate stands first, in one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Engine {
    /// Unique for the life of the process; pools are keyed by it.
    pub key: u64,
    /// Requests picked and not ended.
    pub in_flight: AtomicU32,
    /// Of these, those whose answer has begun to come.
    pub answering: AtomicU32,
    /// Tokens of these requests that are still to be taken or generated, by
    /// estimate ([`super::load::Expected`]).
    pub outstanding: AtomicU64,
    /// How long it takes to a first token.
    pub latency: Latency,
    /// Whether it is to be left alone.
    pub health: Health,
    /// Requests from others, as the bits of an `f64`, and when that was so.
    foreign: AtomicU64,
    foreign_ms: AtomicU64,
    guessed: AtomicU64,
    /// What it tells of itself.
    pub attributes: Attributes,
    /// Whether it tells of its load with its answers.
    pub orca: LoadReports,
    /// Where it listens.
    pub url: EngineUrl,
    /// By which key it is called.
    pub credential: Credential,
    /// Of the URL: the same in every process.
    pub hash: u64,
    /// When the fleet's clock began.
    pub epoch: Instant,
    /// When it was first seen, Unix seconds.
    pub created: u64,
    /// TCP connections to it that are open.
    pub open: AtomicU32,
    /// TCP connections made.
    pub connects: AtomicU64,
    /// Requests sent on a connection that had served one before.
    pub reuses: AtomicU64,
    /// Connections that the engine had closed just as they were reused.
    pub stale: AtomicU64,
    /// Times that we asked it how it is.
    pub probes: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// What it did for the models of each label, kept when it no longer serves
    /// them: counters must not fall. Touched by the control thread alone.
    served: Mutex<BTreeMap<Arc<str>, Arc<Served>>>,
}

impl Engine {
    /// An engine that comes at `now` of the fleet's clock, which began at `epoch`.
    #[must_use]
    pub fn new(
        url: EngineUrl,
        key: u64,
        (epoch, now): (Instant, Duration),
        ejected: &Arc<AtomicU32>,
    ) -> Self {
        let created = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let hash = hash(url.text().as_bytes());
        let mut engine = Self::idle(url, key, hash, (epoch, created));
        engine.health = Health::new(now, Arc::clone(ejected));
        engine
    }

    /// One that is like this one was when `reading` was taken, and stays so.
    #[must_use]
    pub fn frozen(&self, reading: &Reading, ejected: &Arc<AtomicU32>) -> Self {
        let since = (self.epoch, self.created);
        let mut engine = Self::idle(self.url.clone(), self.key, self.hash, since);
        engine.in_flight = AtomicU32::new(reading.in_flight);
        engine.outstanding = AtomicU64::new(reading.outstanding_tokens);
        let (foreign, at_ms) = reading.foreign_requests;
        engine.set_foreign_requests(foreign, at_ms);
        engine.guess_foreign_requests(reading.guessed_requests);
        engine.latency = Latency::from_bits(reading.latency_bits);
        engine.health = Health::from_parts(reading.health, Arc::clone(ejected));
        engine.attributes = Attributes::from_told(&reading.attributes);
        engine
    }

    fn idle(url: EngineUrl, key: u64, hash: u64, (epoch, created): (Instant, u64)) -> Self {
        Self {
            key,
            in_flight: AtomicU32::new(0),
            answering: AtomicU32::new(0),
            outstanding: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            foreign_ms: AtomicU64::new(0),
            guessed: AtomicU64::new(0),
            latency: Latency::default(),
            health: Health::default(),
            attributes: Attributes::default(),
            orca: LoadReports::default(),
            url,
            credential: Credential::default(),
            hash,
            epoch,
            created,
            open: AtomicU32::new(0),
            connects: AtomicU64::new(0),
            reuses: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            outcomes: Default::default(),
            served: Mutex::default(),
        }
    }

    /// That moment on the fleet's clock.
    #[must_use]
    pub fn clock(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.epoch)
    }

    /// Takes in what its own metrics said at that time of the fleet's clock.
    pub fn told(&self, values: &Values, at: Duration) {
        self.attributes.set(values, at);
        let value = |live: Live| values[live as usize].filter(|value| value.is_finite());
        let parts = [value(Live::RequestsRunning), value(Live::RequestsWaiting)];
        if parts.iter().any(Option::is_some) {
            let all: f64 = parts.into_iter().flatten().sum();
            let foreign = (all - f64::from(self.in_flight.load(Relaxed))).max(0.0);
            self.set_foreign_requests(foreign, millis(at).max(1));
        }
    }

    /// It is a new process: what is known of its speed is not of this one.
    pub fn restarted(&self, now: Duration) {
        self.latency.forget();
        self.orca.forget();
        self.attributes.forget(Live::BusyTokensPerSecond);
        self.attributes.forget(Live::MaxModelLen);
        rolling::forget_speed(&self.attributes);
        self.health.restarted(now);
    }

    /// Requests that it had from others when its metrics last told, and how long
    /// ago that was; `None`: that is stale.
    #[must_use]
    pub fn foreign_requests(&self, by: Freshness) -> Option<(f64, Duration)> {
        let (foreign, at_ms) = self.foreign_read();
        let age = || by.now.saturating_sub(Duration::from_millis(at_ms));
        by.is_fresh(at_ms).then(|| (foreign, age()))
    }

    /// Whether its metrics have told of late how much it has to do.
    #[must_use]
    pub fn tells(&self, by: Freshness) -> bool {
        by.is_fresh(self.foreign_ms.load(Relaxed))
    }

    /// Those requests, and when that was so, in milliseconds of the fleet's clock.
    pub(super) fn foreign_read(&self) -> (f64, u64) {
        let foreign = f64::from_bits(self.foreign.load(Relaxed));
        (foreign, self.foreign_ms.load(Relaxed))
    }

    fn set_foreign_requests(&self, requests: f64, at_ms: u64) {
        self.foreign.store(requests.to_bits(), Relaxed);
        self.foreign_ms.store(at_ms, Relaxed);
    }

    /// Requests that it is thought to have from others, when it has not told of
    /// late.
    #[must_use]
    pub fn guessed_requests(&self) -> f64 {
        f64::from_bits(self.guessed.load(Relaxed))
    }

    /// Sets them.
    pub fn guess_foreign_requests(&self, requests: f64) {
        self.guessed.store(requests.to_bits(), Relaxed);
    }

    /// The account of its work for models that are counted under `label`, made on
    /// first use. There are as many as the registry has labels.
    #[must_use]
    pub fn served(&self, label: &str) -> Arc<Served> {
        let mut served = self.lock_served();
        if let Some(known) = served.get(label) {
            return Arc::clone(known);
        }
        let made = Arc::<Served>::default();
        served.insert(Arc::from(label), Arc::clone(&made));
        made
    }

    /// Shows the accounts of all its work, by label, for models that it no longer
    /// serves too.
    pub fn each_served(&self, mut show: impl FnMut(&Arc<str>, &Arc<Served>)) {
        let served = self.lock_served();
        served.iter().for_each(|(label, one)| show(label, one));
    }

    /// Requests that it answered, and the microseconds that they took together.
    pub(super) fn answered(&self) -> (u64, u64) {
        let (mut answers, mut micros) = (0, 0);
        self.each_served(|_, served| {
            let (more, took) = served.answered();
            (answers, micros) = (answers + more, micros + took);
        });
        (answers, micros)
    }

    fn lock_served(&self) -> std::sync::MutexGuard<'_, BTreeMap<Arc<str>, Arc<Served>>> {
        // Whoever panicked left whole entries.
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one ended request.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Requests that it was ever picked for, and that have ended or not.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let ended: u64 = self.outcomes.iter().map(|count| count.load(Relaxed)).sum();
        ended + u64::from(self.in_flight.load(Relaxed))
    }

    /// Ended requests with that outcome.
    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_index_their_own_counters() {
        for (index, (outcome, _)) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
        for (status, outcome) in [
            (200, Outcome::Success),
            (404, Outcome::Success),
            (429, Outcome::Overloaded),
            (500, Outcome::Failure),
            (501, Outcome::Success),
            (503, Outcome::Overloaded),
            (504, Outcome::Failure),
        ] {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }
}
