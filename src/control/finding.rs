//! Engines of a cluster: what is watched follows the settings, what is found is
//! put in force at once, and what was found stays while the cluster is away.
//!
//! That an engine is ready, or not any more, is a mark on the engine itself and
//! takes effect at once; other changes need a new snapshot, which in a large fleet
//! is work, and has to fit into a share of a core.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::Control;
use crate::api::exposition::cluster;
use crate::config::DISCOVERY_TIMEOUT;
use crate::discovery::kubernetes::source::{self, Progress, Told};
use crate::discovery::{self, Found};
use crate::fleet::EngineSpec;

/// The share of a core that new snapshots take at most, in the long run.
const SHARE: f64 = 0.02;
/// What may be spent on them at once, after a quiet time.
const CREDIT: Duration = Duration::from_millis(100);
/// The longest rest between two of them, whatever they cost.
const REST: Duration = Duration::from_secs(1);
/// How often it is looked whether those that stay are still needed.
const LOOK: Duration = Duration::from_millis(50);
/// Changes that come within this time are one line of the log.
const LOG_EVERY: Duration = Duration::from_secs(2);

/// Engines of a cluster, and what is to be done about them.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// As the cluster told of them last, sorted by URL; `None`: it has not.
    found: RefCell<Option<Vec<Found>>>,
    staying: RefCell<Option<Staying>>,
    /// What nobody has read in the log yet.
    untold: Cell<Changes>,
    /// How following the cluster goes.
    progress: Progress,
    /// Other objects are to be watched.
    rewatch: Notify,
    /// A new snapshot is to be made.
    regroup: Notify,
    /// There is something to be told in the log.
    changed: Notify,
    /// Some are staying.
    stays: Notify,
}

/// What the cluster told of, in numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Changes {
    joined: usize,
    left: usize,
    ready: usize,
    unready: usize,
    other: usize,
}

/// Engines of what was watched before, until those of what is watched now have
/// told their models.
#[derive(Debug)]
struct Staying {
    specs: Vec<EngineSpec>,
    until: Instant,
}

impl Control {
    /// Watches for ever what the settings say.
    pub(super) async fn find(&self) {
        let watch = async {
            loop {
                let wanted = self.settings.borrow().kubernetes.clone();
                let watch = async {
                    match &wanted {
                        Some(wanted) => {
                            let tell = |told: Told| self.take_found(told);
                            Box::pin(source::run(wanted, &self.own, &self.finding.progress, tell))
                                .await
                        }
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    // What is not wanted any more is not told of.
                    biased;
                    () = self.finding.rewatch.notified() => {}
                    never = watch => match never {},
                }
            }
        };
        tokio::select! {
            () = watch => {}
            () = self.group() => {}
            () = self.log_changes() => {}
            () = self.end_staying() => {}
        }
    }

    /// The settings tell to watch something else, or nothing.
    pub(super) fn watch_others(&self) {
        if self.settings.borrow().kubernetes.is_none() {
            self.finding.found.replace(None);
            self.finding.staying.replace(None);
        }
        self.finding.rewatch.notify_one();
    }

    /// The engines of the cluster that is watched; `None`: none is.
    pub(super) fn found(&self) -> Option<Vec<EngineSpec>> {
        self.settings.borrow().kubernetes.as_ref()?;
        let Some(found) = &*self.finding.found.borrow() else {
            // Until the cluster has told, those stay that there were.
            let snapshot = self.published.load();
            let known = snapshot.all.candidates.list().iter();
            return Some(known.map(|one| EngineSpec::clone(&one.spec)).collect());
        };
        let mut specs = discovery::specs(found, &self.cards.borrow());
        if let Some(staying) = &*self.finding.staying.borrow() {
            specs.extend(staying.specs.iter().cloned());
        }
        Some(specs)
    }

    /// Whether it is known which engines there are.
    pub(super) fn is_listed(&self) -> bool {
        let is_cluster = self.settings.borrow().kubernetes.is_some();
        !is_cluster || self.finding.found.borrow().is_some()
    }

    fn take_found(&self, told: Told) {
        let before = self.finding.found.borrow_mut().take();
        let changes = self.mark(before.as_deref().unwrap_or_default(), &told);
        if told.is_other_selection {
            self.let_stay(&told.found);
        }
        if before.is_none() || changes.needs_snapshot() {
            self.finding.regroup.notify_one();
        }
        self.finding.found.replace(Some(told.found));
        self.finding
            .untold
            .set(self.finding.untold.get().and(&changes));
        self.finding.changed.notify_one();
    }

    /// Has engines heed at once what is said of their readiness, and those that are
    /// gone get nothing new; counts what is different.
    fn mark(&self, before: &[Found], told: &Told) -> Changes {
        let snapshot = self.published.load();
        let all = snapshot.all.candidates.list();
        let now = snapshot.epoch.elapsed();
        let set_ready = |one: &Found, is_ready: bool| {
            let at = all.binary_search_by(|known| known.spec.url.text().cmp(one.url.text()));
            let known = at.ok().map(|at| &all[at])?;
            let known = Some(known).filter(|known| known.spec.identity == one.identity)?;
            known.engine.health.set_ready(is_ready, now);
            Some(known.engine.key)
        };
        let mut changes = Changes::default();
        let mut again = self.ready_again.take();
        for pair in joined(before, &told.found) {
            match pair {
                (Some(old), None) => {
                    changes.left += 1;
                    if !told.is_other_selection {
                        set_ready(old, false);
                    }
                }
                (Some(old), Some(new)) => {
                    if old.is_ready != new.is_ready {
                        let key = set_ready(new, new.is_ready);
                        again.extend(key.filter(|_| new.is_ready));
                    }
                    changes.compare(old, new);
                }
                _ => changes.joined += 1,
            }
        }
        if !again.is_empty() {
            self.newcomers.notify_one();
        }
        self.ready_again.set(again);
        changes
    }

    /// Makes snapshots of what was found, as often as may be.
    async fn group(&self) {
        let mut purse = Purse::full(Instant::now());
        loop {
            self.finding.regroup.notified().await;
            let began = Instant::now();
            self.reconcile();
            self.newcomers.notify_one();
            if !self.is_discovered.load(Relaxed) {
                self.look_whether_discovered(&self.specs());
            }
            let rest = purse.spend(began.elapsed(), Instant::now());
            tokio::time::sleep(rest).await;
        }
    }

    /// Other engines are selected: those that get requests now go on until the
    /// others have told their models.
    fn let_stay(&self, found: &[Found]) {
        let snapshot = self.published.load();
        let is_found = |spec: &EngineSpec| {
            let at = found.binary_search_by(|one| one.url.text().cmp(spec.url.text()));
            at.is_ok()
        };
        let all = snapshot.all.candidates.list().iter();
        let open = all.filter(|one| one.spec.closed.is_none() && !one.engine.health.is_unready());
        let leaving = open.filter(|one| !is_found(&one.spec));
        let specs = leaving.map(|one| EngineSpec {
            is_ready: true,
            ..EngineSpec::clone(&one.spec)
        });
        let specs: Vec<EngineSpec> = specs.collect();
        if !specs.is_empty() && !self.have_told(found) {
            let until = Instant::now() + DISCOVERY_TIMEOUT;
            self.finding.staying.replace(Some(Staying { specs, until }));
            self.finding.stays.notify_one();
        }
    }

    fn have_told(&self, found: &[Found]) -> bool {
        let cards = self.cards.borrow();
        let mut ready = found.iter().filter(|one| one.is_ready);
        ready.all(|one| one.models.is_some() || cards.knows(&one.identity))
    }

    /// Lets those go that stayed, when they are needed no more.
    async fn end_staying(&self) {
        loop {
            self.finding.stays.notified().await;
            loop {
                tokio::time::sleep(LOOK).await;
                let until = self
                    .finding
                    .staying
                    .borrow()
                    .as_ref()
                    .map(|staying| staying.until);
                let found = self.finding.found.borrow();
                let have_told = found.as_deref().is_none_or(|found| self.have_told(found));
                if have_told || until.is_none_or(|until| Instant::now() >= until) {
                    break;
                }
            }
            self.finding.staying.replace(None);
            self.finding.regroup.notify_one();
        }
    }

    /// Tells of what has changed, at most once in a while.
    async fn log_changes(&self) {
        loop {
            self.finding.changed.notified().await;
            let changes = self.finding.untold.take();
            if changes != Changes::default() {
                let found = self.finding.found.borrow();
                let found = found.as_deref().unwrap_or_default();
                let ready = found.iter().filter(|one| one.is_ready).count();
                let unready = found.len() - ready;
                tracing::info!(ready, unready, "engines of the cluster: {changes}");
            }
            tokio::time::sleep(LOG_EVERY).await;
        }
    }

    /// Appends the series that tell of it, where a cluster is watched.
    pub(super) fn expose_watching(&self, out: &mut String) {
        if self.settings.borrow().kubernetes.is_some() {
            let since = (self.published.load().epoch, Instant::now());
            let found = self.finding.found.borrow();
            let streams = self.finding.progress.streams();
            cluster::expose(out, &streams, found.as_deref(), since);
        }
    }
}

impl Changes {
    fn compare(&mut self, old: &Found, new: &Found) {
        let is_same = Arc::ptr_eq(&old.traits, &new.traits) || old.traits == new.traits;
        self.other += usize::from(!is_same || old.models != new.models);
        match (old.is_ready, new.is_ready) {
            (false, true) => self.ready += 1,
            (true, false) => self.unready += 1,
            _ => {}
        }
    }

    /// Whether more is different than what engines are marked with.
    fn needs_snapshot(&self) -> bool {
        self.joined + self.left + self.other > 0
    }

    fn and(mut self, more: &Self) -> Self {
        self.joined += more.joined;
        self.left += more.left;
        self.ready += more.ready;
        self.unready += more.unready;
        self.other += more.other;
        self
    }
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            joined,
            left,
            ready,
            unready,
            other,
        } = self;
        write!(f, "+{joined} -{left}")?;
        for (count, what) in [(ready, "ready"), (unready, "not ready"), (other, "changed")] {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// Engines before and after, in pairs where they are the same; both are sorted by
/// URL.
fn joined<'a>(
    before: &'a [Found],
    after: &'a [Found],
) -> impl Iterator<Item = (Option<&'a Found>, Option<&'a Found>)> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) if old.url == new.url => match old.identity == new.identity {
                true => Ordering::Equal,
                false => Ordering::Less,
            },
            (Some(old), Some(new)) => match old.url.text().cmp(new.url.text()) {
                // Now the other one of that URL.
                Ordering::Equal => Ordering::Greater,
                order => order,
            },
        };
        Some(match order {
            Ordering::Less => (before.next(), None),
            Ordering::Greater => (None, after.next()),
            Ordering::Equal => (before.next(), after.next()),
        })
    })
}

/// Time that may be spent: it grows again by [`SHARE`] of the time that passes.
struct Purse {
    seconds: f64,
    at: Instant,
}

impl Purse {
    fn full(at: Instant) -> Self {
        let seconds = CREDIT.as_secs_f64();
        Self { seconds, at }
    }

    /// Takes that time out; tells how long it takes until there is some again.
    fn spend(&mut self, time: Duration, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * SHARE;
        self.at = now;
        let (least, most) = (-REST.as_secs_f64() * SHARE, CREDIT.as_secs_f64());
        self.seconds = ((self.seconds + earned).min(most) - time.as_secs_f64()).max(least);
        Duration::from_secs_f64((-self.seconds).max(0.0) / SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineUrl;

    #[test]
    fn what_is_spent_is_a_share_of_the_time() {
        let mut now = Instant::now();
        let mut purse = Purse::full(now);
        let cost = Duration::from_millis(5);
        for _ in 0..2 {
            let end = now + Duration::from_secs(60);
            let mut spent = Duration::ZERO;
            while now < end {
                now += cost;
                spent += cost;
                now += purse.spend(cost, now);
            }
            let most = Duration::from_secs(60).mul_f64(SHARE) + CREDIT + cost;
            assert!(
                spent <= most && spent * 10 > most * 9,
                "{spent:?} of {most:?}"
            );
            // The purse is full again, not fuller.
            now += Duration::from_secs(3600);
        }
        assert_eq!(purse.spend(CREDIT / 2, now), Duration::ZERO);
        // Whatever one costs, the next one is not far.
        assert!(purse.spend(Duration::from_secs(60), now) <= REST);
    }

    #[test]
    fn changes_are_counted_engine_by_engine() {
        let found = |url: &str, identity: &str, is_ready: bool| Found {
            identity: identity.into(),
            url: EngineUrl::parse(url).unwrap(),
            models: None,
            traits: Arc::default(),
            is_ready,
        };
        let before = [
            found("http://a", "1", true),
            found("http://b", "2", true),
            found("http://c", "3", false),
            found("http://e", "5", true),
        ];
        let after = [
            found("http://b", "2", false),
            found("http://c", "4", true),
            found("http://d", "6", true),
            found("http://e", "5", true),
        ];
        let pairs: Vec<String> = joined(&before, &after)
            .map(|(old, new)| {
                let text = |one: Option<&Found>| one.map_or("-", |one| &one.identity).to_owned();
                text(old) + &text(new)
            })
            .collect();
        assert_eq!(pairs, ["1-", "22", "3-", "-4", "-6", "55"]);
        assert_eq!(joined(&[], &[]).count(), 0);
        let mut changes = Changes::default();
        changes.compare(&before[1], &after[0]);
        assert!(!changes.needs_snapshot());
        assert_eq!(changes.to_string(), "+0 -0, 1 not ready");
    }
}
