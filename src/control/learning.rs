//! Asking engines for their models: each by itself, so that a silent one holds
//! up none of the others.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::task::JoinSet;

use super::Control;
use crate::discovery::models::{Card, list};
use crate::fleet::{Candidate, Engine, EngineSpec};
use crate::probe::{Sleep, is_sleeping};
use crate::upstream::FetchError;

/// Between two questions for an engine that has told its models.
const AGAIN: Duration = Duration::from_secs(60);
/// The same for one that has not: doubled each time, up to [`AGAIN`].
const SOON: Duration = Duration::from_secs(2);
/// Over how long questions that do not press are spread, for each engine.
const EACH: Duration = Duration::from_millis(2);
/// Engines that are asked at the same time: whoever is silent has its place for
/// five seconds.
const AT_ONCE: usize = 256;
/// Answers that come within this time are taken in together.
const TOGETHER: Duration = Duration::from_millis(20);
/// How long a new one may take to say whether it sleeps.
const WITHIN: Duration = Duration::from_secs(2);
/// Questions in vain before that is worth a warning: about a quarter of a minute.
const WORTH_A_WARNING: u32 = 4;

/// When an engine is to be asked next, and after which pause again.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    pause: Duration,
    is_asked: bool,
    /// Questions in vain, in a row.
    failures: u32,
    has_answered: bool,
}

/// By engine key.
type Dues = HashMap<u64, Due, RandomState>;

/// What came of asking one engine.
struct Told {
    engine: Arc<Engine>,
    identity: Arc<str>,
    cards: Result<Vec<Card>, FetchError>,
    sleep: Sleep,
}

impl Control {
    /// Asks for ever: every engine when it is new, and then now and then.
    pub(super) async fn learn(&self) {
        let mut dues = Dues::default();
        let mut asking: JoinSet<Told> = JoinSet::new();
        loop {
            let next = self.start(&mut dues, &mut asking);
            tokio::select! {
                Some(told) = asking.join_next() => {
                    tokio::time::sleep(TOGETHER).await;
                    let more = std::iter::from_fn(|| asking.try_join_next());
                    let mut is_news = false;
                    for told in std::iter::once(told).chain(more).flatten() {
                        is_news |= self.take_in_answer(&mut dues, told);
                    }
                    if is_news {
                        self.take_in_models();
                    }
                }
                () = self.newcomers.notified() => self.ask_some_now(&mut dues),
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Readiness waits for a cluster's list, and for engines whose models are not
    /// listed, but not for ever.
    pub(super) async fn wait_for_discovery(&self) {
        tokio::time::sleep(self.discovery_timeout).await;
        self.is_discovered.store(true, Relaxed);
        std::future::pending().await
    }

    /// Asks whoever is due; tells when the next one is.
    fn start(&self, dues: &mut Dues, asking: &mut JoinSet<Told>) -> Instant {
        let now = Instant::now();
        let snapshot = self.published.load_full();
        let engines = snapshot.all.candidates.list();
        let mut next = now + AGAIN;
        let spread = EACH * u32::try_from(engines.len()).unwrap_or(u32::MAX);
        let is_cluster = snapshot.settings.kubernetes.is_some();
        let mut ready = Vec::new();
        for (at, candidate) in engines.iter().enumerate() {
            let due = dues.entry(candidate.engine.key).or_insert_with(|| {
                // Whoever is listed with its models can be asked in peace.
                let in_peace = !candidate.spec.is_learned && !is_cluster;
                let wait = spread.min(SOON).mul_f64(fastrand::f64());
                Due {
                    at: if in_peace { now + wait } else { now },
                    pause: SOON,
                    is_asked: false,
                    failures: 0,
                    has_answered: false,
                }
            });
            match due.is_asked {
                true => {}
                false if due.at > now => next = next.min(due.at),
                false => ready.push((due.failures, due.at, at)),
            }
        }
        if dues.len() > engines.len() {
            let keys: HashSet<u64, RandomState> =
                engines.iter().map(|one| one.engine.key).collect();
            dues.retain(|key, _| keys.contains(key));
        }
        // Those who were silent before wait for those who may have something to say.
        ready.sort_unstable();
        for (_, _, at) in ready.into_iter().take(AT_ONCE.saturating_sub(asking.len())) {
            let candidate = &engines[at];
            if let Some(due) = dues.get_mut(&candidate.engine.key) {
                due.is_asked = true;
                let is_new = is_cluster && !due.has_answered;
                asking.spawn_local(self.ask_models(candidate, is_new));
            }
        }
        next
    }

    /// Asks for its models; a new one of a cluster also whether it sleeps.
    fn ask_models(
        &self,
        candidate: &Candidate,
        is_new: bool,
    ) -> impl Future<Output = Told> + use<> {
        let pool = Rc::clone(&self.pool);
        let (engine, identity) = (
            Arc::clone(&candidate.engine),
            Arc::clone(&candidate.spec.identity),
        );
        async move {
            let cards = list(&pool, &engine).await;
            let sleep = if is_new && cards.is_ok() {
                is_sleeping(&pool, &engine, WITHIN).await
            } else {
                Sleep::Unknown
            };
            Told {
                engine,
                identity,
                cards,
                sleep,
            }
        }
    }

    /// Whether that is news.
    fn take_in_answer(&self, dues: &mut Dues, told: Told) -> bool {
        let engine = &told.engine;
        let mut failures = 0;
        if let Some(due) = dues.get_mut(&engine.key) {
            due.answered(told.cards.is_ok());
            failures = due.failures;
        }
        if told.sleep == Sleep::Asleep {
            engine.health.falls_asleep(engine.clock(Instant::now()));
        }
        match told.cards {
            Ok(cards) => self.cards.borrow_mut().told(told.identity, cards),
            Err(error) => {
                let url = engine.url.text();
                let is_needed = !self.cards.borrow().knows(&told.identity);
                if is_needed && failures == WORTH_A_WARNING && self.is_learned(engine.key) {
                    tracing::warn!(engine = url, %error, "it does not tell its models, and gets no requests");
                } else {
                    tracing::debug!(engine = url, %error, "no model list");
                }
                false
            }
        }
    }

    fn is_learned(&self, key: u64) -> bool {
        let snapshot = self.published.load();
        let mut all = snapshot.all.candidates.list().iter();
        all.any(|one| one.engine.key == key && one.spec.is_learned)
    }

    /// A changed configuration is a reason to ask those whose answer counts; so is
    /// a pod that is ready again: it may have another model.
    fn ask_some_now(&self, dues: &mut Dues) {
        let now = Instant::now();
        for key in self.ready_again.take() {
            if let Some(due) = dues.get_mut(&key) {
                due.at = now;
            }
        }
        if !self.asks_again.take() {
            return;
        }
        let snapshot = self.published.load();
        for candidate in snapshot.all.candidates.list() {
            if let (true, Some(due)) = (
                candidate.spec.is_learned,
                dues.get_mut(&candidate.engine.key),
            ) {
                due.at = now;
            }
        }
    }

    /// Puts what engines told in force, if it changes who serves what.
    fn take_in_models(&self) {
        let snapshot = self.published.load_full();
        let current = snapshot.all.candidates.list();
        let identities = current.iter().map(|one| &*one.spec.identity);
        self.cards.borrow_mut().keep(&identities.collect());
        let specs = self.specs();
        let in_force: HashMap<&str, &EngineSpec> = (current.iter())
            .map(|one| (&*one.spec.identity, &*one.spec))
            .collect();
        let is_other = |spec: &EngineSpec| {
            let before = in_force.get(&*spec.identity);
            spec.is_learned
                && before.is_none_or(|before| {
                    before.models != spec.models || before.closed != spec.closed
                })
        };
        if specs.iter().any(is_other) {
            self.reconcile();
            let generation = self.published.load().generation;
            tracing::info!(generation, "engines told of other models");
        }
        self.show_models();
        self.look_whether_discovered(&specs);
    }

    /// We are ready once everyone whose models are not listed has told them.
    pub(super) fn look_whether_discovered(&self, specs: &[EngineSpec]) {
        let cards = self.cards.borrow();
        let mut learned = specs.iter().filter(|spec| spec.is_learned);
        if self.is_listed() && learned.all(|spec| cards.knows(&spec.identity)) {
            self.is_discovered.store(true, Relaxed);
        }
    }
}

impl Due {
    fn answered(&mut self, has_told: bool) {
        self.is_asked = false;
        self.has_answered |= has_told;
        self.failures = if has_told { 0 } else { self.failures + 1 };
        self.pause = if has_told {
            AGAIN
        } else {
            (self.pause * 2).min(AGAIN)
        };
        self.at = Instant::now() + if has_told { AGAIN } else { self.pause / 2 };
    }
}
