//! Asking engines for their models: each by itself, so that a silent one holds
//! up none of the others.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Control;
use crate::discovery::models::{Card, list};
use crate::fleet::{Candidate, Closed, Engine, EngineSpec};
use crate::probe::{Sleep, is_sleeping};
use crate::upstream::FetchError;

/// Between two questions for an engine that has told its models.
const AGAIN: Duration = Duration::from_secs(60);
/// The same for one that has not: doubled each time, up to [`AGAIN`].
const SOON: Duration = Duration::from_secs(2);
/// Over how long questions that do not press are spread, for each engine.
const EACH: Duration = Duration::from_millis(2);
/// Engines that are asked at the same time.
const AT_ONCE: usize = 64;
/// Answers that come within this time are taken in together.
const TOGETHER: Duration = Duration::from_millis(20);
/// How long a new one may take to say whether it sleeps.
const WITHIN: Duration = Duration::from_secs(2);
/// How long readiness waits for engines whose models are not listed.
const DISCOVERY: Duration = Duration::from_secs(5);

/// When an engine is to be asked next, and after which pause again.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    pause: Duration,
    is_asked: bool,
}

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
        let mut dues: HashMap<u64, Due> = HashMap::new();
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
                () = self.newcomers.notified() => if self.asks_again.take() {
                    self.ask_learners_now(&mut dues);
                },
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Readiness waits for a cluster's list, and for engines whose models are not
    /// listed, but not for ever.
    pub(super) async fn wait_for_discovery(&self) {
        tokio::time::sleep(DISCOVERY).await;
        self.is_discovered.store(true, Relaxed);
        std::future::pending().await
    }

    /// Asks whoever is due; tells when the next one is.
    fn start(&self, dues: &mut HashMap<u64, Due>, asking: &mut JoinSet<Told>) -> Instant {
        let now = Instant::now();
        let snapshot = self.published.load_full();
        let engines = snapshot.all.candidates.list();
        let mut next = now + AGAIN;
        let keys: HashSet<u64> = engines.iter().map(|one| one.engine.key).collect();
        dues.retain(|key, _| keys.contains(key));
        let spread = EACH * u32::try_from(engines.len()).unwrap_or(u32::MAX);
        for candidate in engines {
            let due = dues.entry(candidate.engine.key).or_insert_with(|| {
                // Whoever's models are listed can be asked in peace.
                let wait = spread.min(SOON).mul_f64(fastrand::f64());
                Due {
                    at: if candidate.spec.is_learned {
                        now
                    } else {
                        now + wait
                    },
                    pause: SOON,
                    is_asked: false,
                }
            });
            if due.is_asked || asking.len() >= AT_ONCE {
                continue;
            }
            if due.at > now {
                next = next.min(due.at);
                continue;
            }
            due.is_asked = true;
            asking.spawn_local(self.ask_models(candidate));
        }
        next
    }

    /// Asks for its models; one that a cluster told of, and that has not answered
    /// before, also whether it sleeps.
    fn ask_models(&self, candidate: &Candidate) -> impl Future<Output = Told> + use<> {
        let (pool, bearer) = (Rc::clone(&self.pool), self.engine_key.clone());
        let (engine, identity) = (
            Arc::clone(&candidate.engine),
            Arc::clone(&candidate.spec.identity),
        );
        let is_new = candidate.spec.closed == Some(Closed::NoModels);
        async move {
            let bearer = bearer.as_deref();
            let cards = list(&pool, &engine, bearer).await;
            let sleep = if is_new && cards.is_ok() {
                is_sleeping(&pool, &engine, bearer, WITHIN).await
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
    fn take_in_answer(&self, dues: &mut HashMap<u64, Due>, told: Told) -> bool {
        if let Some(due) = dues.get_mut(&told.engine.key) {
            due.answered(told.cards.is_ok());
        }
        if told.sleep == Sleep::Asleep {
            told.engine
                .health
                .falls_asleep(told.engine.clock(Instant::now()));
        }
        match told.cards {
            Ok(cards) => self.cards.borrow_mut().told(told.identity, cards),
            Err(error) => {
                tracing::debug!(engine = told.engine.url.text(), %error, "no model list");
                false
            }
        }
    }

    /// A changed configuration is a reason to ask those whose answer counts.
    fn ask_learners_now(&self, dues: &mut HashMap<u64, Due>) {
        let snapshot = self.published.load();
        for candidate in snapshot.all.candidates.list() {
            if let (true, Some(due)) = (
                candidate.spec.is_learned,
                dues.get_mut(&candidate.engine.key),
            ) {
                due.at = Instant::now();
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
        self.pause = if has_told {
            AGAIN
        } else {
            (self.pause * 2).min(AGAIN)
        };
        self.at = Instant::now() + if has_told { AGAIN } else { self.pause / 2 };
    }
}
