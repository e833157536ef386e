//! One data-path thread: its own runtime, its own share of the listener, its
//! own pool. No request ever leaves the thread that accepted it.

mod caught;
mod room;

use std::cell::Cell;
use std::io;
use std::net::TcpListener as StdListener;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::api::search::{Desk, Form};
use crate::api::{Api, Route};
use crate::config::Bounds;
use crate::config::forwarded::TrustedProxies;
use crate::downstream::handshake::Handshakes;
use crate::downstream::idle::IdleQueue;
use crate::downstream::watch::{TICK, Watch};
use crate::downstream::{self, Asked, Shared};
use crate::drain::DrainPhase;
use crate::fleet::Snapshot;
use crate::metrics::{Counter, Gauge, WorkerMetrics};
use crate::net;
use crate::proxy::{Proxy, ProxySettings, headers, unseen};
use crate::report::{Outlets, Reporter};
use crate::smart::worker::Asker;
use crate::tls::Tls;
use crate::upstream::{Pool, Secure};
use caught::Instead;
use room::{Room, SPARE};

/// Ticks between two sweeps of the pool.
const POOL_SWEEP: u64 = 10;
/// Ticks that one stall counts at most: a minute's. A machine that has slept
/// would else count for hours.
const MOST_MISSED: u32 = 600;
/// A pause before accepting again when the worker is full, or another worker
/// should be first.
const PAUSE: Duration = Duration::from_millis(5);
/// The same when the process is out of descriptors.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that a worker starts with.
#[derive(Debug)]
pub struct WorkerSpec {
    /// Its number, from 0.
    pub index: usize,
    /// Its handle on the listener.
    pub listener: StdListener,
    /// The newest snapshot.
    pub published: Arc<ArcSwap<Snapshot>>,
    /// What the proxies share.
    pub settings: ProxySettings,
    /// TLS, if we speak it.
    pub tls: Option<Arc<Tls>>,
    /// Where ended requests are told of.
    pub outlets: Outlets,
    /// Bounds.
    pub bounds: Bounds,
    /// Proxies before us that are believed.
    pub trusted: Arc<TrustedProxies>,
    /// Cut from the front of every path.
    pub root_path: Arc<str>,
    /// Our own routes.
    pub api: Api,
    /// How engines that speak TLS are spoken to.
    pub secure: Arc<Secure>,
    /// Open connections of each worker.
    pub open: Arc<[AtomicUsize]>,
    /// What each worker tells of itself.
    pub told: Arc<[WorkerMetrics]>,
}

/// Runs a worker until it is drained.
///
/// # Errors
/// When the runtime or the listener cannot be set up.
pub fn run(spec: WorkerSpec) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(serve(spec))
}

async fn serve(spec: WorkerSpec) -> io::Result<()> {
    let listener = net::register(spec.listener)?;
    let settings = spec.settings;
    let published = Arc::clone(&spec.published);
    let timeouts = published.load().settings.timeouts;
    let pool = Pool::secured(
        spec.bounds.max_idle_per_engine,
        (timeouts.pool_idle, timeouts.connect),
        spec.secure,
    );
    let watch = Watch::new(Instant::now());
    let stop_accepting = Rc::new(Notify::new());
    let shared = Rc::new(Shared {
        watch: Rc::clone(&watch),
        timeouts: Cell::new(timeouts),
        drain: settings.drain.clone(),
        idle: Rc::new(IdleQueue::new(settings.metrics.closed_idle.clone())),
        trusted: spec.trusted,
        unseen: unseen(Arc::clone(&settings.refusals)),
        tls: (spec.tls).map(|tls| Handshakes::new(tls, Arc::clone(&settings.metrics))),
    });
    let reporter = Reporter::new(spec.outlets, settings.drain.clone());
    let asker = Asker::new(settings.smart.clone());
    let ticking = tokio::task::spawn_local(
        Ticking {
            published,
            shared: Rc::clone(&shared),
            pool: Rc::clone(&pool),
            stop_accepting: Rc::clone(&stop_accepting),
            reporter: Rc::clone(&reporter),
            asker: Rc::clone(&asker),
            told: (spec.told, spec.index),
        }
        .run(),
    );
    let server = Server {
        index: spec.index,
        room: Room::new(spec.bounds.max_connections, spec.open.len(), spec.index),
        freed: Rc::default(),
        connections: settings.metrics.connections.clone(),
        accept_errors: settings.metrics.accept_errors.clone(),
        root_path: spec.root_path,
        proxy: Proxy::new(spec.published, settings, pool, (reporter, asker)),
        api: spec.api,
        shared,
        open: spec.open,
    };
    server.accept(&listener, &stop_accepting).await;
    // The kernel may hold connections that we have not accepted yet.
    while server.accept_waiting(&listener).await {}
    drop(listener);
    while server.open[server.index].load(Relaxed) > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    ticking.abort();
    Ok(())
}

/// What is looked at ten times a second.
struct Ticking {
    published: Arc<ArcSwap<Snapshot>>,
    shared: Rc<Shared>,
    pool: Rc<Pool>,
    stop_accepting: Rc<Notify>,
    reporter: Rc<Reporter>,
    asker: Rc<Asker>,
    /// What the workers tell of themselves, and which of them this is.
    told: (Arc<[WorkerMetrics]>, usize),
}

impl Ticking {
    /// Looks at deadlines, phases, idle connections, and changed settings.
    async fn run(self) {
        let (shared, pool) = (&self.shared, &self.pool);
        let told = &self.told.0[self.told.1];
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut phase = DrainPhase::Run;
        for count in 0u64.. {
            // When the tick was due.
            let now = interval.tick().await.into_std();
            late(told, now.elapsed());
            shared.watch.sweep(now);
            self.reporter.sweep();
            self.asker.sweep();
            let timeouts = self.published.load().settings.timeouts;
            if timeouts != shared.timeouts.replace(timeouts) {
                pool.set_timeouts(timeouts.pool_idle, timeouts.connect);
            }
            if count % POOL_SWEEP == 0 {
                pool.sweep(now);
                told.set_idle_links(pool.idle());
                told.set_tasks(
                    tokio::runtime::Handle::current()
                        .metrics()
                        .num_alive_tasks(),
                );
            }
            let current = shared.drain.phase();
            if current != phase {
                phase = current;
                if phase >= DrainPhase::Finish {
                    self.stop_accepting.notify_one();
                }
                shared.watch.wake_all();
            }
        }
    }
}

/// Counts a tick that came so late, and those that could not come meanwhile: a
/// worker that stood still would else be late but once. HdrHistogram corrects
/// for coordinated omission likewise.
fn late(told: &WorkerMetrics, delay: Duration) {
    told.delay.observe(delay);
    let missed = (1..=MOST_MISSED).map_while(|ticks| delay.checked_sub(TICK * ticks));
    missed.for_each(|delay| told.delay.observe(delay));
}

struct Server {
    index: usize,
    room: Room,
    /// Tells that a connection has ended.
    freed: Rc<Notify>,
    connections: Gauge,
    accept_errors: Counter,
    root_path: Arc<str>,
    proxy: Rc<Proxy>,
    api: Api,
    shared: Rc<Shared>,
    open: Arc<[AtomicUsize]>,
}

impl Server {
    async fn accept(&self, listener: &TcpListener, stop: &Notify) {
        let accepting = async {
            loop {
                if self.is_ahead() {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                let surplus = self.surplus();
                if surplus > 0 {
                    self.make_room(listener, surplus).await;
                    continue;
                }
                match net::accept(listener).await {
                    Ok((stream, peer)) => self.spawn(stream, peer),
                    Err(error) => self.not_accepted(&error).await,
                }
            }
        };
        tokio::select! {
            () = accepting => {}
            () = stop.notified() => {}
        }
    }

    /// Accepts one connection if one waits; tells whether it did.
    async fn accept_waiting(&self, listener: &TcpListener) -> bool {
        let waiting = tokio::time::timeout(Duration::ZERO, net::accept(listener)).await;
        if let Ok(Ok((stream, peer))) = waiting {
            self.spawn(stream, peer);
            return true;
        }
        false
    }

    fn mine(&self) -> usize {
        self.open[self.index].load(Relaxed)
    }

    /// Whether this worker has two connections more than another: a few clients
    /// would otherwise gather on one of them.
    fn is_ahead(&self) -> bool {
        let least = self.open.iter().map(|open| open.load(Relaxed)).min();
        self.mine() > least.unwrap_or(0) + 1
    }

    /// How many must go before one more may come; none when there is room.
    fn surplus(&self) -> usize {
        let most = self.room.most(self.shared.watch.now());
        (self.mine() + 1).saturating_sub(most)
    }

    /// Waits until a connection has ended, at most for a moment. If a newcomer
    /// waits, idle ones are asked to make room; until then it is the kernel's.
    async fn make_room(&self, listener: &TcpListener, surplus: usize) {
        if net::has_waiting(listener) {
            let now = self.shared.watch.now();
            self.shared.idle.make_room(surplus.min(SPARE), now);
        }
        // Either way it is to be looked at again.
        let _ = tokio::time::timeout(PAUSE, self.freed.notified()).await;
    }

    async fn not_accepted(&self, error: &io::Error) {
        if net::is_of_one_connection(error) {
            return;
        }
        self.accept_errors.increment(1);
        let now = self.shared.watch.now();
        let open = self.mine();
        if self.room.may_warn(now) {
            tracing::warn!(%error, open, "cannot take more connections; idle ones are closed");
        }
        self.room.ran_out(open, now);
        self.shared.idle.make_room(SPARE, now);
        tokio::time::sleep(SHORT_PAUSE).await;
    }

    fn spawn(&self, stream: tokio::net::TcpStream, peer: std::net::SocketAddr) {
        let open = Open::count(self);
        let (proxy, api) = (Rc::clone(&self.proxy), self.api.clone());
        let root_path = Arc::clone(&self.root_path);
        let handle = move |asked: Asked, handled| {
            let mut request = match asked {
                Ok(request) => request,
                Err(refused) => {
                    let refused = proxy.refuse(*refused, handled);
                    let answering: downstream::Answering<_> =
                        Box::pin(std::future::ready(Ok(refused)));
                    return answering;
                }
            };
            headers::strip_root(&mut request, &root_path);
            let admission = proxy.admit(&request, &handled);
            let path = request.uri().path();
            let instead = Instead::of(&handled, request.version());
            let counting = Rc::clone(&proxy);
            if let (Some(form), true) = (Form::of(path), admission.is_ok()) {
                let desk = Desk::new(Rc::clone(&proxy), api.control.clone());
                let answering: downstream::Answering<_> = Box::pin(async move {
                    let handler = pin!(desk.answer(form, request, handled));
                    let answer = instead.of_panic(handler, &counting).await;
                    // Its place was held until now.
                    drop(admission);
                    Ok(answer)
                });
                return answering;
            }
            let route = Route::of(request.method(), path).filter(|_| admission.is_ok());
            let answering: downstream::Answering<_> = match route {
                None => {
                    let proxy = Rc::clone(&proxy);
                    Box::pin(async move {
                        let handler = pin!(proxy.handle(request, handled, admission));
                        Ok(instead.of_panic(handler, &counting).await)
                    })
                }
                Some(route) => {
                    let mut api = api.clone();
                    proxy.show_only_usable(&mut api.models, &admission);
                    Box::pin(async move {
                        let handler = pin!(api.answer(route, request, handled));
                        let answer = instead.of_panic(handler, &counting).await;
                        drop(admission);
                        Ok(answer)
                    })
                }
            };
            answering
        };
        let serving = downstream::serve(stream, peer, Rc::clone(&self.shared), handle);
        tokio::task::spawn_local(async move {
            serving.await;
            drop(open);
        });
    }
}

/// An open connection, counted until it is dropped.
struct Open {
    open: Arc<[AtomicUsize]>,
    index: usize,
    gauge: Gauge,
    freed: Rc<Notify>,
}

impl Open {
    fn count(server: &Server) -> Self {
        server.open[server.index].fetch_add(1, Relaxed);
        server.connections.up();
        Self {
            open: Arc::clone(&server.open),
            index: server.index,
            gauge: server.connections.clone(),
            freed: Rc::clone(&server.freed),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open[self.index].fetch_sub(1, Relaxed);
        self.gauge.down();
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_for_every_tick_that_it_took() {
        for (stall, ticks, sum) in [
            (0, 1, 0.0),
            (99, 1, 0.099),
            (100, 2, 0.1),
            (250, 3, 0.25 + 0.15 + 0.05),
            // 9 s of every 20 are not one late tick of a hundred.
            (9000, 91, 90.0 * 91.0 / 20.0),
        ] {
            let told = WorkerMetrics::default();
            late(&told, Duration::from_millis(stall));
            let (_, counts, seconds) = told.delay.read();
            assert_eq!(counts.last(), Some(&ticks), "{stall}");
            assert!((seconds - sum).abs() < 1e-9, "{stall}: {seconds}");
        }
        let told = WorkerMetrics::default();
        late(&told, Duration::MAX);
        let (_, counts, _) = told.delay.read();
        assert_eq!(counts.last(), Some(&u64::from(MOST_MISSED + 1)));
    }
}
