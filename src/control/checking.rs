//! Asking engines how they are: those that are set aside, so that they come
//! back without a client's request finding out; those that sleep, whether they
//! still do; and all of them now and then, if that is wanted.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Control;
use crate::config::Checks;
use crate::fleet::breaker::Standing;
use crate::fleet::engine::Outcome;
use crate::fleet::{Candidate, Engine};
use crate::probe::{Probe, Sleep, is_sleeping};

/// How often it is looked who is due.
const LOOK: Duration = Duration::from_millis(250);
/// Engines that are asked at the same time.
const AT_ONCE: usize = 64;
/// The longest wait for an engine that is set aside: it is not worth more.
const RECOVERY: Duration = Duration::from_secs(5);
/// Between two questions for an engine that sleeps, or whose check failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Why an engine is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is set aside: the one probe.
    Recovery(Standing),
    /// It told that it sleeps.
    Asleep,
    /// Because it is time.
    Routine,
    /// The same, of one that does not know of sleep.
    RoutineOfSleepless,
}

/// What came of it.
struct Checked {
    engine: Arc<Engine>,
    why: Why,
    /// `None`: that was not asked.
    outcome: Option<Outcome>,
    sleep: Sleep,
}

/// Who is asked when, and who cannot tell whether it sleeps; by engine key.
#[derive(Debug, Default)]
struct Plan {
    due: HashMap<u64, Instant>,
    busy: HashSet<u64>,
    sleepless: HashSet<u64>,
    /// States of engines that are not well, as they were told.
    told: HashMap<u64, &'static str>,
}

impl Plan {
    /// Forgets engines that are gone.
    fn keep(&mut self, engines: &[Candidate]) {
        let keys: HashSet<u64> = engines.iter().map(|one| one.engine.key).collect();
        self.due.retain(|key, _| keys.contains(key));
        self.sleepless.retain(|key| keys.contains(key));
        self.told.retain(|key, _| keys.contains(key));
    }

    /// Whether whoever put it to sleep has labelled it so, as the reference router
    /// does in a cluster.
    fn may_sleep(&self, candidate: &Candidate) -> bool {
        let label = candidate.spec.traits.labels.get("sleeping");
        label.is_some_and(|label| label == "true")
            && !self.sleepless.contains(&candidate.engine.key)
    }

    /// Logs who is set aside, and who is back.
    fn tell(&mut self, engine: &Engine, now: Instant) {
        let (url, state) = (engine.url.text(), engine.health.word(engine.clock(now)));
        match state {
            "ejected" | "down" | "asleep" => {
                if self.told.insert(engine.key, state) != Some(state) {
                    tracing::warn!(engine = url, state, "the engine is set aside");
                }
            }
            // Neither in nor out; or the cluster's affair.
            "trial" | "unready" => {}
            _ => {
                if self.told.remove(&engine.key).is_some() {
                    tracing::info!(engine = url, "the engine is back");
                }
            }
        }
    }

    /// Learns what came of asking.
    fn take_in(&mut self, checked: &Checked) {
        let engine = &checked.engine;
        self.busy.remove(&engine.key);
        let now = Instant::now();
        let clock = engine.clock(now);
        let standing = match checked.why {
            Why::Recovery(standing) => standing,
            _ => Standing::Trusted,
        };
        let is_recovery = matches!(checked.why, Why::Recovery(_));
        if let Some(outcome) = checked.outcome {
            // That it is well between requests makes up for none that failed.
            if is_recovery || outcome != Outcome::Success {
                engine.health.learn(standing, outcome, clock);
            }
            if outcome.is_fault() && !is_recovery {
                // Soon again, until it is well or set aside.
                self.due.insert(engine.key, now + AGAIN);
            }
            let (url, state) = (engine.url.text(), engine.health.word(clock));
            tracing::debug!(engine = url, ?outcome, state, "asked how it is");
        }
        match checked.sleep {
            Sleep::Asleep => engine.health.falls_asleep(clock),
            Sleep::Awake => engine.health.wakes(clock),
            Sleep::Sleepless => {
                self.sleepless.insert(engine.key);
                engine.health.wakes(clock);
            }
            Sleep::Unknown => {}
        }
    }
}

impl Control {
    /// Asks for ever.
    pub(super) async fn check(&self) {
        let mut plan = Plan::default();
        let mut asking: JoinSet<Checked> = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(checked) = asking.join_next() => match checked {
                    Ok(checked) => plan.take_in(&checked),
                    Err(error) => {
                        tracing::error!(%error, "asking an engine how it is");
                        // Which one is not known: better two questions than none.
                        plan.busy.clear();
                    }
                },
                _ = look.tick() => self.start_checks(&mut plan, &mut asking),
            }
        }
    }

    fn start_checks(&self, plan: &mut Plan, asking: &mut JoinSet<Checked>) {
        let snapshot = self.published.load_full();
        let checks = snapshot.settings.checks;
        let engines = snapshot.all.candidates.list();
        if plan.due.len() > engines.len() || plan.told.len() > engines.len() {
            plan.keep(engines);
        }
        let now = Instant::now();
        for candidate in engines {
            let key = candidate.engine.key;
            plan.tell(&candidate.engine, now);
            if asking.len() >= AT_ONCE || plan.busy.contains(&key) {
                continue;
            }
            if let Some(why) = self.why(plan, candidate, checks) {
                plan.busy.insert(key);
                candidate.engine.probes.fetch_add(1, Relaxed);
                asking.spawn_local(self.ask(candidate, why, checks));
            }
        }
    }

    /// Whether it is to be asked now, and why.
    fn why(&self, plan: &mut Plan, candidate: &Candidate, checks: Checks) -> Option<Why> {
        let (engine, now) = (&candidate.engine, Instant::now());
        if engine.health.is_unready() {
            return None;
        }
        let clock = engine.clock(now);
        let is_asleep = engine.health.is_asleep() || plan.may_sleep(candidate);
        if !is_asleep && let Some(standing) = engine.health.check(clock) {
            return Some(Why::Recovery(standing));
        }
        let every = checks.every.filter(|_| !engine.health.is_distrusted());
        if !is_asleep && every.is_none() {
            return None;
        }
        let every = every.filter(|_| !is_asleep).unwrap_or(AGAIN);
        let first = || now + every.mul_f64(fastrand::f64());
        let due = plan.due.entry(engine.key).or_insert_with(first);
        // It may have been planned when it was awake.
        *due = (*due).min(now + every.mul_f64(1.1));
        if *due > now {
            return None;
        }
        // With jitter: sidecars are many.
        *due = now + every.mul_f64(0.9 + 0.2 * fastrand::f64());
        Some(match is_asleep {
            true => Why::Asleep,
            false if plan.sleepless.contains(&engine.key) => Why::RoutineOfSleepless,
            false => Why::Routine,
        })
    }

    fn ask(
        &self,
        candidate: &Candidate,
        why: Why,
        checks: Checks,
    ) -> impl Future<Output = Checked> + use<> {
        let pool = Rc::clone(&self.pool);
        let (engine, probe) = (Arc::clone(&candidate.engine), Probe::of(candidate));
        let within = match why {
            Why::Routine | Why::RoutineOfSleepless => checks.within,
            // A real request may take its time.
            Why::Recovery(_) if probe.is_inference() => checks.within,
            Why::Recovery(_) | Why::Asleep => checks.within.min(RECOVERY),
        };
        async move {
            let outcome = match why {
                Why::Asleep => None,
                _ => Some(probe.run(&pool, &engine, within).await),
            };
            let sleep = match why {
                Why::Asleep | Why::Routine => is_sleeping(&pool, &engine, within).await,
                Why::Recovery(_) | Why::RoutineOfSleepless => Sleep::Unknown,
            };
            Checked {
                engine,
                why,
                outcome,
                sleep,
            }
        }
    }
}
