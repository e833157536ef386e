//! The composition root: builds everything from a [`Config`], starts the
//! threads, and stops them. The only file that knows everyone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::api::Api;
use crate::api::control::{Control, QUEUE};
use crate::api::models::ModelCards;
use crate::config::{Config, DrainSettings, RoutingLogic, Timeouts};
use crate::discovery::listed;
use crate::drain::{DrainPhase, DrainWatch};
use crate::fleet::{Fleet, Snapshot};
use crate::metrics::{Metrics, ModelRegistry};
use crate::policy::Policy;
use crate::proxy::ProxySettings;
use crate::proxy::facts::Budget;
use crate::proxy::meter::RecordSink;
use crate::upstream::Pool;
use crate::{net, worker};

/// A running process, with the address that it really listens on.
#[derive(Debug)]
pub struct App {
    /// The public listener.
    pub address: SocketAddr,
    drain: DrainWatch,
    settings: DrainSettings,
    open: Arc<[AtomicUsize]>,
    published: Arc<ArcSwap<Snapshot>>,
    threads: Vec<JoinHandle<()>>,
}

/// How stopping went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Requests that were still open when the time was up.
    pub requests_cut: u32,
    /// Connections that were still open when the time was up.
    pub connections_cut: usize,
}

/// Builds and starts everything.
///
/// # Errors
/// What is wrong with the configuration, or that the port is taken.
pub fn build(config: Config, records: Option<RecordSink>) -> anyhow::Result<App> {
    let specs = listed::specs(&config.engines)?;
    if specs.is_empty() {
        tracing::warn!("the engine list is empty: every request gets a 503");
    }
    let metrics = Metrics::default();
    let registry = ModelRegistry::new(metrics.clone());
    let models = registry.rendered();
    let policy = match config.routing {
        RoutingLogic::RoundRobin => Policy::RoundRobin,
    };
    let mut fleet = Fleet::new(policy, registry);
    fleet.reconcile(specs);
    let published = fleet.published();

    let listener = net::listen(config.listen)
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    let drain = DrainWatch::default();
    let cards = Arc::new(ModelCards::new(&published.load()));
    let (control, asked) = mpsc::channel(QUEUE);
    let template = WorkerTemplate {
        published: Arc::clone(&published),
        settings: ProxySettings {
            budget: Budget::new(config.limits.peek_budget_bytes),
            limits: config.limits,
            timeouts: config.timeouts.clone(),
            metrics: metrics.process(),
            drain: drain.clone(),
            stream_error_events: config.stream_error_events,
            records,
        },
        api: Api {
            control,
            models: Arc::clone(&cards),
            drain: drain.clone(),
        },
    };
    let (open, mut threads) = start_workers(&template, &listener, config.workers)?;
    let (seen, timeouts) = (Arc::clone(&published), config.timeouts);
    threads.push(thread("control", move || {
        run_control(&timeouts, |pool| {
            let control = Control {
                published: seen,
                exporter: metrics.handle(),
                models,
                cards,
                pool,
            };
            control.run(asked)
        })
    })?);
    Ok(App {
        address,
        drain,
        settings: config.drain,
        open,
        published,
        threads,
    })
}

/// What all workers are made from.
struct WorkerTemplate {
    published: Arc<ArcSwap<Snapshot>>,
    settings: ProxySettings,
    api: Api,
}

type OpenCounts = Arc<[AtomicUsize]>;

/// Starts the workers. Once `build` has returned they hold the only senders to
/// the control thread: when they are gone, so is control.
fn start_workers(
    template: &WorkerTemplate,
    listener: &std::net::TcpListener,
    count: usize,
) -> io::Result<(OpenCounts, Vec<JoinHandle<()>>)> {
    let open: OpenCounts = (0..count.max(1)).map(|_| AtomicUsize::new(0)).collect();
    let mut threads = Vec::with_capacity(open.len() + 1);
    for index in 0..open.len() {
        let spec = worker::WorkerSpec {
            index,
            listener: net::share(listener)?,
            published: Arc::clone(&template.published),
            settings: template.settings.clone(),
            api: template.api.clone(),
            open: Arc::clone(&open),
        };
        threads.push(thread(&format!("worker-{index}"), move || {
            worker::run(spec)
        })?);
    }
    Ok((open, threads))
}

fn run_control<F: Future<Output = ()>>(
    timeouts: &Timeouts,
    work: impl FnOnce(std::rc::Rc<Pool>) -> F,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let pool = Pool::new(0, timeouts.pool_idle, timeouts.connect);
    runtime.block_on(work(pool));
    Ok(())
}

fn thread(
    name: &str,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let named = name.to_owned();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if let Err(error) = body() {
                tracing::error!(thread = named, %error, "a thread could not start");
            }
        })
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
        let engines = snapshot.all.candidates.engines().iter();
        engines.map(|engine| engine.in_flight.load(Relaxed)).sum()
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
///
/// # Errors
/// When signals cannot be watched.
pub fn until_stopped(app: App) -> anyhow::Result<Stopped> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::watch()?;
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
