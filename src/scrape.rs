//! What engines tell of themselves, read now and then: what they run, what
//! waits, how full they are.
//!
//! Invariant: traffic never waits for a reading, and an engine is never worse
//! off for one that failed: its attributes only grow old.

mod dialect;
mod exposition;
mod fetching;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guess;
mod json;
mod page;
mod reading;
mod schedule;
mod turn;
mod wanted;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::config::Scraping;
use crate::fleet::attributes::Freshness;
use crate::fleet::{Candidate, Snapshot};
use crate::upstream::Pool;
use fetching::{Outcome, Task};
use guess::guess;
pub use schedule::stale_after;
use schedule::{Pace, aperture, rank};
use turn::Turn;
use wanted::Wanted;

/// Pages that are read at the same time.
const AT_ONCE: usize = 64;
/// How often it is looked who is due.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is guessed what others sent to those who do not tell.
const GUESS: Duration = Duration::from_secs(1);
/// New engines are first read within this time, or half an interval.
const FIRST: Duration = Duration::from_secs(5);
/// Requests are thought to come for so long after the last.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// Reads engines' pages; the control thread's own.
#[derive(Debug)]
pub struct Scraper {
    interval: Duration,
    pool: Rc<Pool>,
    /// Tells this process's aperture from others'.
    process: u64,
    scraping: Scraping,
    wanted: Rc<Wanted>,
    turns: HashMap<u64, Turn>,
    /// Requests that had come when it was last looked, and when any last came.
    traffic: (u64, Option<Instant>),
    /// Whether engines were read often when it was last looked.
    is_quick: bool,
    guessed_at: Option<Instant>,
}

impl Scraper {
    /// One that reads every engine at that interval.
    #[must_use]
    pub fn new(interval: Duration, pool: Rc<Pool>) -> Self {
        let scraping = Scraping::default();
        Self {
            interval,
            pool,
            process: fastrand::u64(..),
            wanted: Rc::new(Wanted::new(&scraping.own)),
            scraping,
            turns: HashMap::new(),
            traffic: (0, None),
            is_quick: false,
            guessed_at: None,
        }
    }

    /// Reads for ever whoever is due.
    pub async fn run(mut self, snapshot: impl Fn() -> Arc<Snapshot>) {
        let mut reading: JoinSet<Outcome> = JoinSet::new();
        let mut look = tokio::time::interval(LOOK.min(self.interval));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_full = false;
        loop {
            tokio::select! {
                Some(outcome) = reading.join_next() => {
                    match outcome {
                        Ok(outcome) => self.take(outcome, Instant::now()),
                        Err(error) => {
                            tracing::error!(%error, "reading an engine's metrics");
                            // Which one is not known: better two readings than none.
                            self.turns.values_mut().for_each(|turn| turn.is_being_read = false);
                        }
                    }
                    // Others may be waiting for this place.
                    if !is_full {
                        continue;
                    }
                }
                _ = look.tick() => {}
            }
            let free = AT_ONCE - reading.len();
            let due = self.due(&snapshot(), free, Instant::now());
            is_full = due.len() == free;
            for task in due {
                reading.spawn_local(task.run());
            }
        }
    }

    /// Whoever is due, so many at most: those that have waited longest.
    fn due(&mut self, snapshot: &Snapshot, most: usize, now: Instant) -> Vec<Task> {
        self.follow(snapshot);
        let engines = self.within(snapshot.all.candidates.list(), snapshot.clock(now));
        for one in &engines {
            let first = FIRST.min(self.interval / 2).mul_f64(fastrand::f64());
            let turn = self.turns.entry(one.engine.key);
            turn.or_insert_with(|| Turn::new(now + first));
        }
        let pace = self.pace(snapshot, &engines, now);
        if pace.is_quick() && !self.is_quick {
            // Not all at once, here and in all sidecars that this traffic woke.
            let soon = pace.after(&schedule::Past::default());
            for turn in self.turns.values_mut() {
                turn.due = turn.due.max(now + soon.mul_f64(fastrand::f64()));
            }
        }
        self.is_quick = pace.is_quick();
        let mut due: Vec<(Option<Reverse<Duration>>, &Candidate)> = Vec::new();
        for one in engines {
            if let Some(turn) = self.turns.get(&one.engine.key)
                && turn.is_due(&pace, now)
            {
                let waited = turn.read_at.map(|at| now.saturating_duration_since(at));
                due.push((waited.map(Reverse), one));
            }
        }
        due.sort_by_key(|(waited, _)| *waited);
        let due = due.into_iter().take(most);
        let due = due.filter_map(|(_, one)| self.task(one)).collect();
        self.guess(snapshot, now);
        due
    }

    fn task(&mut self, candidate: &Candidate) -> Option<Task> {
        let turn = self.turns.get_mut(&candidate.engine.key)?;
        let (endpoint, with_slots) = turn.begin(candidate.spec.traits.engine_type);
        Some(Task {
            engine: Arc::clone(&candidate.engine),
            pool: Rc::clone(&self.pool),
            wanted: Rc::clone(&self.wanted),
            endpoint,
            with_slots,
        })
    }

    /// Follows the engines that there are, and the configuration.
    fn follow(&mut self, snapshot: &Snapshot) {
        let engines = snapshot.all.candidates.list();
        if self.turns.len() > engines.len() {
            let keys: HashSet<u64> = engines.iter().map(|one| one.engine.key).collect();
            self.turns.retain(|key, _| keys.contains(key));
        }
        let scraping = &snapshot.settings.scraping;
        if self.scraping == *scraping {
            return;
        }
        if self.scraping.own != scraping.own {
            self.wanted = Rc::new(Wanted::new(&scraping.own));
            for one in engines {
                one.engine.attributes.forget_own();
            }
            for turn in self.turns.values_mut() {
                (turn.last, turn.read_at) = (None, None);
            }
        }
        self.scraping = scraping.clone();
    }

    /// Engines within the aperture.
    fn within<'a>(&self, engines: &'a [Candidate], clock: Duration) -> Vec<&'a Candidate> {
        let most = aperture(self.scraping.aperture, engines.len());
        if most >= engines.len() {
            return engines.iter().collect();
        }
        let ranked = engines.iter();
        let ranked = ranked.map(|one| (rank(self.process, one.engine.hash, clock), one));
        let mut ranked: Vec<(u64, &Candidate)> = ranked.collect();
        let last = ranked.len() - most;
        ranked.select_nth_unstable_by_key(last, |(rank, _)| *rank);
        ranked.drain(last..).map(|(_, one)| one).collect()
    }

    fn pace(&mut self, snapshot: &Snapshot, within: &[&Candidate], now: Instant) -> Pace {
        let engines = snapshot.all.candidates.list().iter();
        let requests = engines.map(|one| one.engine.requests()).sum();
        if requests != self.traffic.0 {
            self.traffic = (requests, Some(now));
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let turns = within
            .iter()
            .filter_map(|one| self.turns.get(&one.engine.key));
        Pace {
            interval: self.interval,
            is_looked_at: snapshot.settings.looks_at_live(),
            is_busy: self.traffic.1.is_some_and(|at| since(at) < BUSY_FOR),
            bytes: turns.map(|turn| turn.bytes as u64).sum(),
        }
    }

    /// Takes in what came of reading an engine.
    fn take(&mut self, outcome: Outcome, now: Instant) {
        let engine = Arc::clone(&outcome.engine);
        // It may be gone.
        let Some(turn) = self.turns.get_mut(&engine.key) else {
            return;
        };
        if !Rc::ptr_eq(&outcome.wanted, &self.wanted) {
            // The configuration has changed meanwhile.
            (turn.is_being_read, turn.read_at) = (false, None);
            return;
        }
        if !turn.end(outcome, stale_after(self.interval), now) {
            engine.attributes.failures.fetch_add(1, Relaxed);
        }
    }

    fn guess(&mut self, snapshot: &Snapshot, now: Instant) {
        let since = |at: Instant| now.saturating_duration_since(at);
        if self.guessed_at.is_none_or(|at| since(at) >= GUESS) {
            self.guessed_at = Some(now);
            let stale_after = stale_after(self.interval);
            guess(snapshot, Freshness::new(snapshot.clock(now), stale_after));
        }
    }
}

#[cfg(test)]
mod tests;
