//! Engines' own metrics, read now and then: what they run, what waits, how full
//! they are.
//!
//! Invariant: traffic never waits for a scrape, and an engine is never worse
//! off for one that failed: its attributes only grow old.

mod dialect;
mod exposition;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use crate::fleet::Engine;
use crate::upstream::{FetchError, Get, Pool, fetch};
use dialect::{Reading, Wanted};

/// Bytes of one page at most; a vLLM page has some 300 kB.
const MAX_PAGE: usize = 4 << 20;
/// How long one page may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Pages that are fetched at the same time.
const AT_ONCE: usize = 32;
/// Pages of a round are spread over this part of the interval.
const SPREAD: f64 = 0.5;
/// Attributes are stale after so many intervals, and not before [`FRESH`].
const STALE_AFTER: u32 = 3;
/// Attributes are never stale before this age.
const FRESH: Duration = Duration::from_secs(60);

/// The age from which attributes scraped at that interval are stale.
#[must_use]
pub fn stale_after(interval: Duration) -> Duration {
    (interval * STALE_AFTER).max(FRESH)
}

/// Reads engines' pages; the control thread's own.
#[derive(Debug, Default)]
pub struct Scraper {
    wanted: Wanted,
    /// Each engine's last page, by its key, for what counters did since.
    last: HashMap<u64, (Reading, Instant)>,
    /// When the newest process of each began, in Unix seconds.
    started: HashMap<u64, f64>,
}

type Fetched = (Arc<Engine>, Result<Vec<u8>, FetchError>);

impl Scraper {
    /// Reads every engine once, spread over a part of `interval`.
    pub async fn round(
        &mut self,
        engines: Vec<Arc<Engine>>,
        interval: Duration,
        pool: &Rc<Pool>,
        bearer: Option<&str>,
    ) {
        let keys: HashSet<u64> = engines.iter().map(|engine| engine.key).collect();
        self.last.retain(|key, _| keys.contains(key));
        self.started.retain(|key, _| keys.contains(key));
        let count = u32::try_from(engines.len().max(1)).unwrap_or(u32::MAX);
        let pace = interval.mul_f64(SPREAD) / count;
        let mut fetching: JoinSet<Fetched> = JoinSet::new();
        for engine in engines {
            if fetching.len() >= AT_ONCE {
                self.next(&mut fetching).await;
            }
            let pool = Rc::clone(pool);
            let bearer = bearer.map(str::to_owned);
            fetching.spawn_local(async move {
                let get = Get {
                    path: "/metrics",
                    json: None,
                    bearer: bearer.as_deref(),
                    within: WITHIN.min(interval),
                    most: MAX_PAGE,
                };
                let page = fetch(&pool, &engine, get).await;
                (engine, page)
            });
            tokio::time::sleep(pace.mul_f64(fastrand::f64() * 2.0)).await;
        }
        while !fetching.is_empty() {
            self.next(&mut fetching).await;
        }
    }

    async fn next(&mut self, fetching: &mut JoinSet<Fetched>) {
        match fetching.join_next().await {
            Some(Ok((engine, Ok(page)))) => self.take(&engine, &page, Instant::now()),
            Some(Ok((engine, Err(error)))) => {
                engine.attributes.failures.fetch_add(1, Relaxed);
                let url = engine.url.text();
                tracing::debug!(engine = url, %error, "no metrics");
            }
            Some(Err(error)) => tracing::error!(%error, "reading an engine's metrics"),
            None => {}
        }
    }

    /// Takes in one page.
    fn take(&mut self, engine: &Engine, page: &[u8], now: Instant) {
        let reading = self.wanted.read(&String::from_utf8_lossy(page));
        if reading.is_empty() {
            engine.attributes.failures.fetch_add(1, Relaxed);
            return;
        }
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix = unix.unwrap_or_default().as_secs_f64();
        let before = self.last.get(&engine.key);
        let before = before.map(|(reading, at)| (reading, now.duration_since(*at)));
        let values = reading.values(before, unix);
        let is_restart = match (reading.started(), self.started.get(&engine.key)) {
            // Some round to seconds; behind one URL there may be several.
            (Some(now), Some(newest)) => now - newest > 1.0,
            (Some(_), None) => false,
            (None, _) => before.is_some_and(|(before, _)| reading.has_fallen(before)),
        };
        if let Some(started) = reading.started() {
            let newest = self.started.entry(engine.key).or_insert(started);
            *newest = newest.max(started);
        }
        if is_restart {
            let url = engine.url.text();
            tracing::info!(engine = url, "the engine has been restarted");
            engine.restarted(engine.clock(now));
        }
        engine.told(&values, engine.clock(now));
        self.last.insert(engine.key, (reading, now));
    }
}
