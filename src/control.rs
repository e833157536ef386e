//! The control thread: owns the fleet, and does whatever costs in proportion to
//! it, so that a worker never does anything but decide and relay.
//!
//! It applies the configuration and what engines tell of their models, samples
//! the statistics, makes the pages, and serves the admin listener. All of it
//! shares one thread, hence no locks: what changes is in `RefCell`s that no
//! `await` ever sees borrowed.

mod admin;
mod checking;
mod feedback;
#[cfg(feature = "kubernetes")]
mod finding;
mod learning;
mod pages;
mod policies;
mod reload;
mod secrets;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Mutex, Notify, mpsc};

use crate::api::body::Budget;
use crate::api::host::Host;
use crate::api::page::{self, Sources};
use crate::api::{Ask, Health, Query, exposition, models, summary};
use crate::auth::Auth;
use crate::config::auth::CallersSource;
use crate::config::dynamic::DynamicFile;
use crate::config::{DynamicSource, Settings, StatsSettings, Timeouts};
use crate::decisions::DecisionLog;
use crate::discovery::kubernetes::known::Own;
use crate::discovery::listed;
use crate::discovery::models::Cards;
use crate::fleet::attributes::Freshness;
use crate::fleet::rolling::{self, Rolling};
use crate::fleet::stats::Windows;
use crate::fleet::{EngineSpec, Fleet, Snapshot};
use crate::registry::Registry;
use crate::registry::store::Store;
use crate::scrape::{Scraper, stale_after};
use crate::smart::service::Service;
use crate::upstream::Pool;
pub use admin::Admin;
use pages::Pages;
use reload::ReloadStatus;
use secrets::CallersStatus;

/// Questions that may wait; one more is told to come again.
pub const QUEUE: usize = 64;
/// How much the thread steps back, of 19: a third of a worker's share.
const NICE: i32 = 5;

/// What the control thread starts with.
pub struct ControlSpec {
    /// The single writer of the snapshot.
    pub fleet: Fleet,
    /// The settings in force.
    pub settings: Settings,
    /// The flags, as keys of the dynamic file.
    pub flags: DynamicFile,
    /// The dynamic file.
    pub dynamic: Option<DynamicSource>,
    /// The policies that are registered, for whoever reads them.
    pub policies: Arc<ArcSwap<Registry>>,
    /// Where they are kept; `None`: here only.
    pub store: Option<Store>,
    /// What `/metrics` is made from.
    pub sources: Sources,
    /// The list behind `/v1/models`.
    pub list: Arc<ArcSwap<Bytes>>,
    /// The page behind `/health`.
    pub health: Health,
    /// Set when every engine has been asked, or had its time.
    pub is_discovered: Arc<AtomicBool>,
    /// How long readiness waits for engines to be found, and to tell their models.
    pub discovery_timeout: Duration,
    /// What is learned of models.
    pub smart: Service,
    /// Where we listen: no engine is found there.
    pub own: Own,
    /// Statistics.
    pub stats: StatsSettings,
    /// Decisions that are to be explained.
    pub decisions: Arc<DecisionLog>,
    /// Who may call, and the file that says so.
    pub callers: Option<(CallersSource, Arc<Auth>)>,
    /// Deadlines of its own connections.
    pub timeouts: Timeouts,
}

impl ControlSpec {
    /// Makes the page behind `/health`, so that it is there from the start.
    pub fn show_config(&self) {
        let keys = self.dynamic.as_ref().map(|source| &source.first.keys);
        self.health.store(Arc::new(reload::health_page(keys)));
    }
}

/// The control thread: works until every worker is gone.
///
/// # Errors
/// When its runtime cannot be made.
pub fn run(
    spec: ControlSpec,
    asked: mpsc::Receiver<Ask>,
    admin: Option<Admin>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    // Where there is but one core, streams come before pages.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the control thread keeps its priority");
    }
    let Timeouts {
        pool_idle, connect, ..
    } = spec.timeouts;
    let pool = Pool::secured(0, (pool_idle, connect), Arc::clone(&spec.sources.secure));
    runtime.block_on(Control::new(spec, pool).run(asked, admin));
    Ok(())
}

/// The control thread's state.
struct Control {
    fleet: RefCell<Fleet>,
    published: Arc<ArcSwap<Snapshot>>,
    settings: RefCell<Arc<Settings>>,
    flags: DynamicFile,
    dynamic: Option<DynamicSource>,
    policies: Arc<ArcSwap<Registry>>,
    store: Option<Arc<Store>>,
    /// Held by who changes the file's keys or the policies in force.
    changing: Mutex<()>,
    /// Bytes of documents that are being sent.
    bodies: Budget,
    reloads: RefCell<ReloadStatus>,
    sources: Sources,
    list: Arc<ArcSwap<Bytes>>,
    health: Health,
    is_discovered: Arc<AtomicBool>,
    stats: StatsSettings,
    callers: Option<(CallersSource, Arc<Auth>)>,
    callers_status: RefCell<CallersStatus>,
    decisions: Arc<DecisionLog>,
    cards: RefCell<Cards>,
    /// Engines of a cluster.
    #[cfg(feature = "kubernetes")]
    finding: finding::Finding,
    #[cfg(feature = "kubernetes")]
    own: Own,
    windows: RefCell<Windows>,
    host: RefCell<Host>,
    smart: Service,
    pool: Rc<Pool>,
    pages: Pages,
    /// Engines have come that nobody has asked yet.
    newcomers: Notify,
    /// Whoever tells of its models is asked again.
    asks_again: Cell<bool>,
    /// Engines that are ready again, and are asked too.
    ready_again: Cell<Vec<u64>>,
    /// How long readiness waits for engines to be found, and to tell their models.
    discovery_timeout: Duration,
}

impl Control {
    fn new(spec: ControlSpec, pool: Rc<Pool>) -> Self {
        Self {
            published: spec.fleet.published(),
            fleet: RefCell::new(spec.fleet),
            settings: RefCell::new(Arc::new(spec.settings)),
            reloads: RefCell::new(ReloadStatus::first(spec.dynamic.as_ref())),
            flags: spec.flags,
            dynamic: spec.dynamic,
            policies: spec.policies,
            store: spec.store.map(Arc::new),
            changing: Mutex::new(()),
            bodies: Budget::new(policies::BODIES),
            sources: spec.sources,
            list: spec.list,
            health: spec.health,
            is_discovered: spec.is_discovered,
            windows: RefCell::new(Windows::new(spec.stats.window)),
            stats: spec.stats,
            callers_status: {
                let source = spec.callers.as_ref().map(|(source, _)| source);
                RefCell::new(CallersStatus::first(source))
            },
            callers: spec.callers,
            decisions: spec.decisions,
            cards: RefCell::default(),
            #[cfg(feature = "kubernetes")]
            finding: finding::Finding::default(),
            #[cfg(feature = "kubernetes")]
            own: spec.own,
            host: RefCell::default(),
            smart: spec.smart,
            pool,
            pages: Pages::default(),
            newcomers: Notify::new(),
            asks_again: Cell::new(false),
            ready_again: Cell::default(),
            discovery_timeout: spec.discovery_timeout,
        }
    }

    async fn run(self, asked: mpsc::Receiver<Ask>, admin: Option<Admin>) {
        let control = Rc::new(self);
        let serve = control.pages.serve(asked, |query, length| match query {
            Query::Metrics => control.metrics(length),
            Query::Engines => control.engines_page(),
        });
        let administer = async {
            match admin {
                Some(admin) => admin.serve(Rc::clone(&control)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = serve => {}
            () = control.learn() => {}
            () = control.find() => {}
            () = control.wait_for_discovery() => {}
            () = control.sample() => {}
            () = control.roll() => {}
            () = control.scrape() => {}
            () = control.check() => {}
            () = control.log_stats() => {}
            () = control.watch_file() => {}
            () = control.watch_callers() => {}
            () = control.refresh_engine_keys() => {}
            () = control.sources.watch_certificates() => {}
            () = administer => {}
        }
    }

    #[cfg(not(feature = "kubernetes"))]
    async fn find(&self) {
        std::future::pending().await
    }

    #[cfg(not(feature = "kubernetes"))]
    fn watch_others(&self) {}

    #[cfg(not(feature = "kubernetes"))]
    fn found(&self) -> Option<Vec<EngineSpec>> {
        None
    }

    #[cfg(not(feature = "kubernetes"))]
    fn is_listed(&self) -> bool {
        true
    }

    /// Makes the fleet what settings and engines say.
    fn reconcile(&self) {
        let settings = Arc::clone(&self.settings.borrow());
        let specs = self.specs();
        let timeouts = settings.timeouts;
        self.pool.set_timeouts(timeouts.pool_idle, timeouts.connect);
        self.fleet.borrow_mut().apply(settings, specs);
        self.show_models();
    }

    /// All engines that there are.
    fn specs(&self) -> Vec<EngineSpec> {
        let listed = || listed::specs(&self.settings.borrow().engines, &self.cards.borrow());
        self.found().unwrap_or_else(listed)
    }

    fn show_models(&self) {
        let list = models::list(&self.published.load(), &self.cards.borrow());
        self.list.store(Arc::new(list));
    }

    /// Samples the statistics.
    async fn sample(&self) {
        loop {
            let every = self.windows.borrow().every();
            let snapshot = self.published.load_full();
            self.windows.borrow_mut().sample(&snapshot, Instant::now());
            self.host.borrow_mut().sample();
            self.pages.forget();
            tokio::time::sleep(every).await;
        }
    }

    /// Keeps the averages over minutes, more often than any of them is stale.
    async fn roll(&self) {
        let mut rolling = Rolling::default();
        let every = self.windows.borrow().every().min(rolling::EVERY);
        loop {
            rolling.roll(&self.published.load_full(), self.freshness());
            tokio::time::sleep(every).await;
        }
    }

    /// Reads the engines' own metrics.
    async fn scrape(&self) {
        let every = self.stats.scrape_every;
        let scraper = Scraper::new(every, Rc::clone(&self.pool));
        scraper.run(|| self.published.load_full()).await;
    }

    /// By when attributes are told fresh from stale.
    fn freshness(&self) -> Freshness {
        let now = self.published.load().epoch.elapsed();
        Freshness::new(now, stale_after(self.stats.scrape_every))
    }

    /// Logs a table of the engines.
    async fn log_stats(&self) {
        let Some(every) = self.stats.log_every else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(every).await;
            let snapshot = self.published.load_full();
            let rates = self.windows.borrow().rates(&snapshot, Instant::now());
            summary::log(&snapshot, &rates, self.freshness());
        }
    }

    fn engines_page(&self) -> Bytes {
        let snapshot = self.published.load();
        let rates = self.windows.borrow().rates(&snapshot, Instant::now());
        models::engines(&snapshot, &rates, self.stats.window, self.freshness())
    }

    /// The page behind `/metrics`, of about so many bytes.
    fn metrics(&self, length: usize) -> Bytes {
        let snapshot = self.published.load();
        let windows = self.windows.borrow();
        // Numbers become longer, and a string that has to grow doubles.
        let mut text = String::with_capacity(length + length / 16);
        (self.sources).page(&mut text, &snapshot, &windows, self.freshness());
        page::host(&mut text, self.host.borrow().usage());
        self.reloads.borrow().expose(&mut text, snapshot.generation);
        self.expose_keys(&mut text);
        if let Some(started) = self.smart.started() {
            exposition::smart(&mut text, started);
        }
        #[cfg(feature = "kubernetes")]
        self.expose_watching(&mut text);
        #[cfg(feature = "count-allocations")]
        page::allocations(&mut text);
        Bytes::from(text)
    }
}
