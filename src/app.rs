//! The composition root: builds everything from a [`Config`], starts the
//! threads, and stops them. The only file that knows everyone.

mod telling;
mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::api::page::Sources;
use crate::api::{Api, Ask, models};
use crate::auth::Auth;
use crate::config::auth::{CallersSource, KeptSecret};
use crate::config::problem::Problems;
use crate::config::tls::TlsSettings;
use crate::config::{Config, DrainSettings, EngineTls, Settings};
use crate::control::{Admin, ControlSpec, QUEUE};
#[cfg(feature = "kubernetes")]
use crate::discovery::kubernetes::api::ApiServer;
use crate::discovery::kubernetes::known::Own;
use crate::discovery::listed;
use crate::discovery::models::Cards;
use crate::drain::{DrainPhase, DrainWatch};
use crate::fleet::{Fleet, Snapshot};
use crate::metrics::{ModelRegistry, ProcessMetrics};
use crate::proxy::ProxySettings;
use crate::proxy::facts::Budget;
use crate::registry::store::Kept;
use crate::scrape::stale_after;
use crate::smart::service::Service;
use crate::tls::Tls;
use crate::upstream::Secure;
use crate::{control, net};
use workers::{WorkerTemplate, start_workers, thread};

/// A running process, with the address that it really listens on.
#[derive(Debug)]
pub struct App {
    /// The public listener.
    pub address: SocketAddr,
    /// The admin listener, if there is one.
    pub admin: Option<SocketAddr>,
    drain: DrainWatch,
    settings: DrainSettings,
    open: Arc<[AtomicUsize]>,
    published: Arc<ArcSwap<Snapshot>>,
    threads: Vec<JoinHandle<()>>,
    /// Those that tell of requests; they end when the workers have.
    tellers: Vec<JoinHandle<()>>,
    /// Its threads end when the workers and control have.
    smart: Service,
}

/// How stopping went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Requests that were still open when the time was up.
    pub requests_cut: u32,
    /// Connections that were still open when the time was up.
    pub connections_cut: usize,
}

/// Builds and starts everything; no policies are registered.
///
/// # Errors
/// What is wrong with the configuration, or that the port is taken.
pub fn build(config: Config) -> anyhow::Result<App> {
    build_with(config, Kept::default())
}

/// The same with policies that were registered before.
///
/// # Errors
/// As [`build`].
#[expect(
    clippy::too_many_lines,
    reason = "the one place where everything is put together, step by step"
)]
pub fn build_with(config: Config, kept: Kept) -> anyhow::Result<App> {
    look_for_engines(&config.settings)?;
    let metrics = Arc::new(ProcessMetrics::default());
    let registry = ModelRegistry::default();
    let mut sources = Sources::new(Arc::clone(&metrics), &registry, config.workers.max(1));
    sources.tls = load_tls(config.tls.as_ref())?;
    sources.secure = secure(config.engine_tls, &config.settings)?;
    let own_ips = config.locality.pod_ips.clone();
    let mut fleet = Fleet::at(config.locality, registry);
    fleet.set_engine_key(config.auth.engine_key);
    let (settings, cards) = (config.settings, Cards::default());
    let specs = listed::specs(&settings.engines, &cards);
    fleet.apply(Arc::new(settings.clone()), specs);
    let published = fleet.published();

    let listener = listen(config.listen)?;
    let address = listener.local_addr()?;
    let (outlets, tellers) = telling::start(config.access_log, config.traces, &metrics.telling)?;
    let drain = DrainWatch::default();
    let admin = admin((config.admin, config.auth.admin_token), &settings, &drain)?;
    let stale_after = stale_after(config.stats.scrape_every);
    let smart = begin_smart(&kept, (stale_after, &drain), &published)?;
    let admin_address = admin.as_ref().map(Admin::address).transpose()?;
    let (control, asked) = mpsc::channel(QUEUE);
    let api = api(
        &settings,
        control,
        models::list(&published.load(), &cards),
        &drain,
    );
    let spec = ControlSpec {
        fleet,
        flags: config.flags,
        dynamic: config.dynamic,
        policies: Arc::new(ArcSwap::from_pointee(kept.registry)),
        store: kept.store,
        sources,
        list: Arc::clone(&api.models),
        health: Arc::clone(&api.health),
        is_discovered: Arc::clone(&api.is_discovered),
        callers: config.auth.callers.map(known),
        decisions: Arc::default(),
        discovery_timeout: config.discovery_timeout,
        smart: smart.clone(),
        own: Own {
            port: address.port(),
            ips: own_ips,
        },
        stats: config.stats.clone(),
        timeouts: settings.timeouts,
        settings,
    };
    spec.show_config();
    let asked_of_proxies = (config.bounds.peek_budget_bytes, config.aios_compat_errors);
    let template = WorkerTemplate {
        published: Arc::clone(&published),
        settings: shared(&spec, metrics, &drain, asked_of_proxies),
        tls: spec.sources.tls.clone(),
        outlets,
        bounds: config.bounds,
        trusted: Arc::new(config.trusted_proxies),
        root_path: Arc::from(config.root_path),
        api,
        secure: Arc::clone(&spec.sources.secure),
        told: Arc::clone(&spec.sources.workers),
    };
    let (open, mut threads) = start_workers(&template, &listener)?;
    threads.push(thread("control", move || control::run(spec, asked, admin))?);
    let admin = admin_address;
    let settings = config.drain;
    Ok(App {
        address,
        admin,
        drain,
        settings,
        open,
        published,
        threads,
        tellers,
        smart,
    })
}

/// Those who may call, as the file says at first.
fn known(source: CallersSource) -> (CallersSource, Arc<Auth>) {
    let auth = Arc::new(Auth::new(&source.first));
    (source, auth)
}

/// The listener's certificates, if it is to have any.
fn load_tls(settings: Option<&TlsSettings>) -> anyhow::Result<Option<Arc<Tls>>> {
    let of = "TLS".to_owned();
    let tls = settings.map(Tls::load).transpose();
    Ok(tls.map_err(|list| Problems { of, list })?)
}

/// Says so where there is nobody to be found.
fn look_for_engines(settings: &Settings) -> anyhow::Result<()> {
    if settings.kubernetes.is_some() {
        #[cfg(feature = "kubernetes")]
        find_cluster()?;
    } else if settings.engines.is_empty() {
        tracing::warn!("the engine list is empty: every request gets a 503");
    }
    Ok(())
}

/// Whether there is a cluster to be asked; nothing is sent to it yet.
#[cfg(feature = "kubernetes")]
fn find_cluster() -> anyhow::Result<()> {
    // We may be on a runtime's thread, which must not wait for another runtime.
    let finding = std::thread::spawn(|| -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(ApiServer::locate())?;
        Ok(())
    });
    let found = finding.join();
    found.unwrap_or_else(|_| Err(anyhow::anyhow!("looking for a cluster panicked")))
}

/// How engines that speak TLS are spoken to: read now where it is known that
/// it will be needed.
fn secure(of: EngineTls, settings: &Settings) -> anyhow::Result<Arc<Secure>> {
    let secure = Secure::new(of);
    let mut engines = settings.engines.iter();
    if secure.files().next().is_some() || engines.any(|engine| engine.url.is_tls()) {
        (secure.load()).context("engines that speak TLS cannot be spoken to")?;
    }
    Ok(secure)
}

/// What is learned of models, begun if a policy needs it.
fn begin_smart(
    kept: &Kept,
    (stale_after, drain): (Duration, &DrainWatch),
    published: &Arc<ArcSwap<Snapshot>>,
) -> anyhow::Result<Service> {
    let smart = Service::new(kept.folder(), stale_after, drain.clone());
    if published.load().settings.routing.learns() {
        (smart.start(published)).context("cannot begin smart routing")?;
    }
    Ok(smart)
}

/// What all workers' proxies share.
fn shared(
    spec: &ControlSpec,
    metrics: Arc<ProcessMetrics>,
    drain: &DrainWatch,
    (budget, aios_compat_errors): (usize, bool),
) -> ProxySettings {
    ProxySettings {
        budget: Budget::new(budget),
        metrics,
        drain: drain.clone(),
        log_requests: spec.stats.log_requests,
        decisions: Arc::clone(&spec.decisions),
        stale_after: stale_after(spec.stats.scrape_every),
        places: spec.sources.places.clone(),
        refusals: Arc::clone(&spec.sources.refusals),
        registry: Arc::clone(&spec.policies),
        workers: spec.sources.workers.len(),
        auth: spec.callers.as_ref().map(|(_, auth)| Arc::clone(auth)),
        sessions: Arc::default(),
        aios_compat_errors,
        smart: spec.smart.clone(),
    }
}

fn api(settings: &Settings, control: mpsc::Sender<Ask>, list: Bytes, drain: &DrainWatch) -> Api {
    let mut engines = settings.engines.iter();
    let is_listed = settings.kubernetes.is_none();
    let is_known = is_listed && engines.all(|engine| engine.models.is_some());
    Api {
        control,
        models: Arc::new(ArcSwap::from_pointee(list)),
        health: Arc::default(),
        is_discovered: Arc::new(AtomicBool::new(is_known)),
        drain: drain.clone(),
    }
}

fn admin(
    (address, token): (Option<SocketAddr>, Option<KeptSecret>),
    settings: &Settings,
    drain: &DrainWatch,
) -> anyhow::Result<Option<Admin>> {
    let listener = address.map(listen).transpose()?;
    Ok(listener.map(|listener| Admin {
        listener,
        drain: drain.clone(),
        timeouts: settings.timeouts,
        token,
    }))
}

fn listen(address: SocketAddr) -> anyhow::Result<StdListener> {
    net::listen(address).with_context(|| format!("cannot listen on {address}"))
}

impl App {
    /// Stops: readiness fails, then the listener closes, open requests finish,
    /// and what is left at the deadline is cut.
    pub async fn drain(self) -> DrainReport {
        self.drain.advance(DrainPhase::Settle);
        tokio::time::sleep(self.settings.settle).await;
        self.drain.advance(DrainPhase::Finish);
        let deadline = Instant::now() + self.settings.timeout;
        while self.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let report = DrainReport {
            requests_cut: self.in_flight(),
            connections_cut: self.connections(),
        };
        self.drain.advance(DrainPhase::Cut);
        // Joining blocks, but everything else of ours has stopped by now.
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread panicked");
            }
        }
        self.smart.join();
        telling::finish(&self.tellers).await;
        report
    }

    /// Open client connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.iter().map(|open| open.load(Relaxed)).sum()
    }

    /// Requests that engines are working on.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let snapshot = self.published.load();
        let engines = snapshot.all.candidates.list().iter();
        engines.map(|one| one.engine.in_flight.load(Relaxed)).sum()
    }
}

/// How a process came to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything has ended.
    Drained,
    /// A second signal: threads still run, and nothing is to be waited for.
    AtOnce,
}

/// Serves until SIGTERM or SIGINT, then drains; a second signal exits at once.
/// Signals are watched before anyone can connect.
///
/// # Errors
/// When signals cannot be watched, or those of `start`.
pub fn until_stopped(start: impl FnOnce() -> anyhow::Result<App>) -> anyhow::Result<Stopped> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::watch()?;
        let app = start()?;
        signals.next().await;
        let open = app.in_flight();
        tracing::info!(
            open,
            "stopping: open requests may finish; a second signal exits at once"
        );
        tokio::select! {
            report = app.drain() => {
                let DrainReport { requests_cut, connections_cut } = report;
                tracing::info!(requests_cut, connections_cut, "stopped");
                Ok(Stopped::Drained)
            }
            () = signals.next() => {
                tracing::warn!("second signal: exiting at once");
                Ok(Stopped::AtOnce)
            }
        }
    })
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        // It asks for files to be looked at, where there are some; without a
        // handler, which stays for the life of the process, it would end us.
        drop(signal(SignalKind::hangup())?);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
