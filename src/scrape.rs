//! What engines tell of themselves, read now and then: what they run, what
//! waits, how full they are.
//!
//! Invariant: traffic never waits for a reading, and an engine is never worse
//! off for one that failed: its attributes only grow old.

mod dialect;
mod exposition;
mod fetching;
mod json;
mod page;
mod reading;
mod schedule;
mod wanted;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use crate::config::{EngineType, Scraping};
use crate::fleet::attributes::{Freshness, Live, trust};
use crate::fleet::{Candidate, Engine, Snapshot};
use crate::upstream::{FetchError, Pool};
use fetching::{Endpoint, Outcome, Task};
use reading::Reading;
pub use schedule::stale_after;
use schedule::{Pace, Past, aperture, rank};
use wanted::Wanted;

/// Pages that are read at the same time.
const AT_ONCE: usize = 32;
/// How often it is looked who is due.
const LOOK: Duration = Duration::from_millis(250);
/// New engines are first read within this time, or half an interval.
const FIRST: Duration = Duration::from_secs(5);
/// Requests are thought to come for so long after the last.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// Reads engines' pages; the control thread's own.
#[derive(Debug)]
pub struct Scraper {
    interval: Duration,
    pool: Rc<Pool>,
    bearer: Option<String>,
    /// Tells this process's aperture from others'.
    process: u64,
    scraping: Scraping,
    wanted: Rc<Wanted>,
    turns: HashMap<u64, Turn>,
    /// Requests that had come when it was last looked, and when any last came.
    traffic: (u64, Option<Instant>),
}

/// What is known of one engine's pages.
#[derive(Debug)]
struct Turn {
    /// Not before.
    due: Instant,
    read_at: Option<Instant>,
    is_being_read: bool,
    past: Past,
    bytes: usize,
    /// Which of [`Endpoint::of`].
    endpoint: usize,
    dialect: EngineType,
    has_no_slots: bool,
    /// The last page, for what counters did since.
    last: Option<(Reading, Instant)>,
    /// When the newest process behind the URL began, in Unix seconds.
    started: Option<f64>,
}

impl Turn {
    fn new(due: Instant) -> Self {
        Self {
            due,
            read_at: None,
            is_being_read: false,
            past: Past::default(),
            bytes: 0,
            endpoint: 0,
            dialect: EngineType::Other,
            has_no_slots: false,
            last: None,
            started: None,
        }
    }

    fn is_due(&self, pace: &Pace, now: Instant) -> bool {
        let waited = |at: Instant| now.saturating_duration_since(at) >= pace.after(&self.past);
        !self.is_being_read && now >= self.due && self.read_at.is_none_or(waited)
    }
}

impl Scraper {
    /// One that reads every engine at that interval, with this token.
    #[must_use]
    pub fn new(interval: Duration, pool: Rc<Pool>, bearer: Option<String>) -> Self {
        let scraping = Scraping::default();
        Self {
            interval,
            pool,
            bearer,
            process: fastrand::u64(..),
            wanted: Rc::new(Wanted::new(&scraping.own)),
            scraping,
            turns: HashMap::new(),
            traffic: (0, None),
        }
    }

    /// Reads for ever whoever is due.
    pub async fn run(mut self, snapshot: impl Fn() -> Arc<Snapshot>) {
        let mut reading: JoinSet<Outcome> = JoinSet::new();
        let mut look = tokio::time::interval(LOOK.min(self.interval));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(outcome) = reading.join_next() => match outcome {
                    Ok(outcome) => self.take(outcome, Instant::now()),
                    Err(error) => {
                        tracing::error!(%error, "reading an engine's metrics");
                        // Which one is not known: better two readings than none.
                        self.turns.values_mut().for_each(|turn| turn.is_being_read = false);
                    }
                },
                _ = look.tick() => {
                    let now = Instant::now();
                    for task in self.due(&snapshot(), AT_ONCE - reading.len(), now) {
                        reading.spawn_local(task.run());
                    }
                }
            }
        }
    }

    /// Whoever is due, so many at most.
    fn due(&mut self, snapshot: &Snapshot, most: usize, now: Instant) -> Vec<Task> {
        self.follow(snapshot);
        let engines = snapshot.all.candidates.list();
        let clock = snapshot.clock(now);
        let floor = self.floor(engines, clock);
        let pace = self.pace(snapshot, now);
        let mut due = Vec::new();
        for candidate in engines {
            let engine = &candidate.engine;
            let first = FIRST.min(self.interval / 2).mul_f64(fastrand::f64());
            let turn = self.turns.entry(engine.key);
            let turn = turn.or_insert_with(|| Turn::new(now + first));
            let is_in = rank(self.process, engine.hash, clock) >= floor;
            if !is_in || due.len() >= most || !turn.is_due(&pace, now) {
                continue;
            }
            turn.is_being_read = true;
            let kind = candidate.spec.traits.engine_type;
            let places = Endpoint::of(kind);
            let endpoint = places[turn.endpoint % places.len()];
            due.push(Task {
                engine: Arc::clone(engine),
                pool: Rc::clone(&self.pool),
                wanted: Rc::clone(&self.wanted),
                bearer: self.bearer.clone(),
                kind,
                endpoint,
                with_slots: turn.dialect == EngineType::Llamacpp
                    && endpoint == Endpoint::Metrics
                    && !turn.has_no_slots,
            });
        }
        guess(snapshot, Freshness::new(clock, stale_after(self.interval)));
        due
    }

    /// Follows the engines that there are, and the configuration.
    fn follow(&mut self, snapshot: &Snapshot) {
        let engines = snapshot.all.candidates.list();
        if self.turns.len() > engines.len() {
            let keys: HashSet<u64> = engines.iter().map(|one| one.engine.key).collect();
            self.turns.retain(|key, _| keys.contains(key));
        }
        let scraping = &snapshot.settings.scraping;
        if self.scraping.own != scraping.own {
            self.wanted = Rc::new(Wanted::new(&scraping.own));
            for one in engines {
                one.engine.attributes.forget_own();
            }
            for turn in self.turns.values_mut() {
                (turn.last, turn.read_at) = (None, None);
            }
        }
        if self.scraping != *scraping {
            self.scraping = scraping.clone();
        }
    }

    /// The lowest rank within the aperture.
    fn floor(&self, engines: &[Candidate], clock: Duration) -> u64 {
        let most = aperture(self.scraping.aperture, engines.len());
        if most >= engines.len() {
            return 0;
        }
        let ranks = engines.iter();
        let ranks = ranks.map(|one| rank(self.process, one.engine.hash, clock));
        let mut ranks: Vec<u64> = ranks.collect();
        let last = ranks.len() - most;
        *ranks.select_nth_unstable(last).1
    }

    fn pace(&mut self, snapshot: &Snapshot, now: Instant) -> Pace {
        let engines = snapshot.all.candidates.list().iter();
        let requests = engines.map(|one| one.engine.requests()).sum();
        if requests != self.traffic.0 {
            self.traffic = (requests, Some(now));
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        Pace {
            interval: self.interval,
            is_looked_at: snapshot.settings.looks_at_live(),
            is_busy: self.traffic.1.is_some_and(|at| since(at) < BUSY_FOR),
            bytes: self.turns.values().map(|turn| turn.bytes as u64).sum(),
        }
    }

    /// Takes in what came of reading an engine.
    fn take(&mut self, outcome: Outcome, now: Instant) {
        let engine = &outcome.engine;
        // It may be gone.
        let Some(turn) = self.turns.get_mut(&engine.key) else {
            return;
        };
        turn.is_being_read = false;
        turn.read_at = Some(now);
        turn.bytes = outcome.bytes;
        // With jitter: sidecars are many.
        turn.due = now + LOOK.mul_f64(fastrand::f64());
        if !Rc::ptr_eq(&outcome.wanted, &self.wanted) {
            // The configuration has changed meanwhile.
            turn.read_at = None;
            return;
        }
        let kind = outcome.kind;
        let reading = match outcome.reading {
            Ok(Some(reading)) => reading,
            failed => {
                engine.attributes.failures.fetch_add(1, Relaxed);
                let error = failed.as_ref().err();
                return turn.failed(error, engine, Endpoint::of(kind).len());
            }
        };
        turn.has_no_slots |= outcome.has_no_slots;
        turn.past = Past {
            took: outcome.took,
            ..Past::default()
        };
        turn.dialect = kind.unwrap_or_else(|| reading.dialect(&self.wanted));
        turn.learn(engine, kind, (reading, now), &self.wanted);
    }
}

impl Turn {
    /// There is no page, or it says nothing.
    fn failed(&mut self, error: Option<&FetchError>, engine: &Engine, endpoints: usize) {
        let url = engine.url.text();
        let is_mute = !matches!(
            error,
            Some(FetchError::Fault(_) | FetchError::Late(_) | FetchError::Nonsense(_))
        );
        match error {
            Some(error) => tracing::debug!(engine = url, %error, "no metrics"),
            None => tracing::debug!(engine = url, "no metrics that we know"),
        }
        let failures = self.past.failures.saturating_add(1);
        if is_mute {
            self.endpoint = (self.endpoint + 1) % endpoints;
        }
        self.past = Past {
            took: Duration::ZERO,
            failures,
            is_mute,
            is_searching: is_mute && (failures as usize) < endpoints,
        };
    }

    /// Takes in a page.
    fn learn(
        &mut self,
        engine: &Engine,
        kind: Option<EngineType>,
        (reading, now): (Reading, Instant),
        wanted: &Wanted,
    ) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix = unix.unwrap_or_default().as_secs_f64();
        let before = self.last.as_ref();
        let before = before.map(|(reading, at)| (reading, now.duration_since(*at)));
        let mut values = reading.values(wanted, kind, before, unix);
        let is_restart = match (reading.started(wanted), self.started) {
            // Some round to seconds; behind one URL there may be several.
            (Some(now), Some(newest)) => now - newest > 1.0,
            (Some(_), None) => false,
            (None, _) => before.is_some_and(|(before, _)| reading.has_fallen(before, wanted)),
        };
        if let Some(started) = reading.started(wanted) {
            self.started = Some(self.started.map_or(started, |newest| newest.max(started)));
        }
        if is_restart {
            let url = engine.url.text();
            tracing::info!(engine = url, "the engine has been restarted");
            engine.restarted(engine.clock(now));
        }
        let speed = values[Live::TokensPerSecond as usize].filter(|speed| *speed > 0.0);
        let held = || engine.attributes.get(Live::BusyTokensPerSecond);
        values[Live::BusyTokensPerSecond as usize] = speed.or_else(held);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 seconds")]
        let since_seen = (unix - engine.created as f64) / 3600.0;
        values[Live::UptimeHours as usize].get_or_insert(since_seen.max(0.0));
        engine.attributes.set_adapters(reading.names.clone());
        engine.attributes.speak(self.dialect);
        engine.told(&values, engine.clock(now));
        self.last = Some((reading, now));
    }
}

/// What others sent to engines that have not told of late is thought to be what
/// they sent to those that have, of the same model: else whoever tells nothing
/// would look idle.
fn guess(snapshot: &Snapshot, by: Freshness) {
    if !snapshot.settings.looks_at_live() {
        return;
    }
    // All of them first, as a model's own engines know better.
    let models = std::iter::once(&snapshot.all).chain(snapshot.models());
    for model in models {
        let list = model.candidates.list();
        let (mut told, mut sum) = (0.0, 0.0);
        for engine in list.iter().map(|one| &one.engine) {
            if let Some(age) = engine.attributes.age(by.now)
                && engine.attributes.is_fresh(by)
            {
                told += 1.0;
                sum += engine.foreign_requests() * trust(age);
            }
        }
        let guess = if told > 0.0 { sum / told } else { 0.0 };
        for engine in list.iter().map(|one| &one.engine) {
            if !engine.attributes.is_fresh(by) {
                engine.guess_foreign_requests(guess);
            }
        }
    }
}

#[cfg(test)]
mod tests;
