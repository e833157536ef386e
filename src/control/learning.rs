//! Asking engines for their models: each by itself, so that a silent one holds
//! up none of the others.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::Control;
use crate::discovery::listed;
use crate::discovery::models::{Card, list};
use crate::fleet::EngineSpec;
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
/// How long readiness waits for engines whose models are not listed.
const DISCOVERY: Duration = Duration::from_secs(5);

/// When an engine is to be asked next, and after which pause again.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    pause: Duration,
    is_asked: bool,
}

type Told = (u64, String, Result<Vec<Card>, FetchError>);

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
                    for (key, url, told) in std::iter::once(told).chain(more).flatten() {
                        if let Some(due) = dues.get_mut(&key) {
                            due.answered(told.is_ok());
                        }
                        match told {
                            Ok(cards) => is_news |= self.cards.borrow_mut().told(url, cards),
                            Err(error) => tracing::debug!(engine = url, %error, "no model list"),
                        }
                    }
                    if is_news {
                        self.take_in_models();
                    }
                }
                () = self.newcomers.notified() => self.ask_learners_now(&mut dues),
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Readiness waits for engines whose models are not listed, but not for ever.
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
            let engine = Arc::clone(&candidate.engine);
            let due = dues.entry(engine.key).or_insert_with(|| {
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
            let (pool, bearer) = (Rc::clone(&self.pool), self.engine_key.clone());
            asking.spawn_local(async move {
                let told = list(&pool, &engine, bearer.as_deref()).await;
                (engine.key, engine.url.text().to_owned(), told)
            });
        }
        next
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
        let urls = current.iter().map(|one| one.engine.url.text());
        self.cards.borrow_mut().keep(&urls.collect());
        let settings = Arc::clone(&self.settings.borrow());
        let specs = listed::specs(&settings.engines, &self.cards.borrow());
        let models: HashMap<&str, &Vec<String>> = (current.iter())
            .map(|one| (one.engine.url.text(), &one.spec.models))
            .collect();
        let is_other = |spec: &EngineSpec| {
            spec.is_learned && models.get(spec.url.text()) != Some(&&spec.models)
        };
        if specs.iter().any(is_other) {
            self.reconcile();
            let generation = self.published.load().generation;
            tracing::info!(generation, "engines told of other models");
        }
        self.show_models();
        let cards = self.cards.borrow();
        let mut learned = specs.iter().filter(|spec| spec.is_learned);
        if learned.all(|spec| cards.knows(spec.url.text())) {
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
